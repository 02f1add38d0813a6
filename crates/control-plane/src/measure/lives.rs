//! Events as a real installation has them: attempts from their claim to their pull request.

use model::{AttemptId, Event};
use serde_json::{Value, json};

const COMMIT: &str = "1111111111111111111111111111111111111111";
const DIGEST: &str = "3333333333333333333333333333333333333333333333333333333333333333";
const CONTRACT: &str = "target_id: bench\nname: Bench\nrepo_url: git@example.org:bench/bench.git\ndefault_branch: main\n\
     description: A bench\nowner: team\ncreated_at: \"2024-01-01T00:00:00Z\"\n";

/// The target of all of them.
pub fn target() -> Event {
    event(
        "target",
        "target.registered",
        json!({ "target_id": "bench" }),
        json!({
            "name": "Bench", "repo_url": "git@example.org:bench/bench.git", "default_branch": "main",
            "contract": CONTRACT,
        }),
    )
}

/// An event about nothing in particular.
pub fn pause(n: u64) -> Event {
    event(
        &format!("pause-{n}"),
        "scheduler.paused",
        json!({}),
        json!({ "reason": "The release is being prepared" }),
    )
}

/// The attempt of the n-th life.
pub(super) fn attempt(n: u64) -> AttemptId {
    AttemptId::parse(format!("attempt-{n:014}")).expect("letters and digits name an attempt")
}

/// The n-th task, and the attempt that ends with its pull request.
pub fn life(n: u64) -> Vec<Event> {
    let (task, attempt) = (format!("task-{n}"), attempt(n));
    let about_task = json!({ "target_id": "bench", "task_id": task });
    let about = json!({ "target_id": "bench", "task_id": task, "attempt_id": attempt });
    let branch = format!("leviathan/{task}-a1");
    let usage = json!({
        "input_tokens": 18_250, "output_tokens": 2_113, "cache_read_tokens": 96_000, "cache_write_tokens": 18_000,
        "turns": 9, "cost_micro_usd": 121_500,
    });
    let files: Vec<Value> = (0..3)
        .map(|file| {
            json!({
                "path": format!("src/module_{file}/mod_{n}.rs"), "change": "modified", "added_lines": 12,
                "removed_lines": 4, "rule": "src/**",
            })
        })
        .collect();
    let steps: [(&str, &Value, Value); 13] = [
        (
            "task.created",
            &about_task,
            json!({
                "revision": DIGEST, "commit": COMMIT, "title": format!("Correct the {n}th module"), "scope": "source",
                "priority": "high", "position": n, "status": "pending", "allowed_paths": ["src/**"], "max_attempts": 2,
            }),
        ),
        (
            "attempt.created",
            &about,
            json!({
                "n": 1, "task_revision": DIGEST, "base_commit": COMMIT, "branch": branch, "contract_digest": DIGEST,
                "policy_digest": DIGEST, "agent": "claude", "version": "0.1.0", "timeout_seconds": 1_800,
            }),
        ),
        ("attempt.claimed", &about, json!({ "epoch": 1, "launcher": "kubernetes" })),
        ("attempt.started", &about, json!({ "epoch": 1, "executor": "pod/leviathan-attempt" })),
        ("sandbox.reported", &about, json!({ "profile": "standard", "layers": [] })),
        (
            "agent.finished",
            &about,
            json!({
                "round": 1, "summary": "The module was corrected as the task says.", "duration_ms": 93_211, "usage": usage,
            }),
        ),
        (
            "change.permitted",
            &about,
            json!({ "round": 1, "candidate": COMMIT, "patch_bytes": 2_113, "files": files }),
        ),
        (
            "invariant.passed",
            &about,
            json!({
                "round": 1, "name": "The tests pass", "check": "cargo test", "commit": COMMIT, "outcome": "passed",
                "duration_ms": 41_020, "log": DIGEST, "log_bytes": 10_211,
            }),
        ),
        (
            "artifact.stored",
            &about,
            json!({ "sha256": DIGEST, "name": "transcript", "kind": "log", "size": 90_122 }),
        ),
        ("change.verified", &about, json!({ "candidate": COMMIT, "manifest": DIGEST })),
        ("branch.pushed", &about, json!({ "branch": branch, "commit": COMMIT })),
        (
            "pr.created",
            &about,
            json!({
                "number": n + 1, "url": format!("https://forge.example.org/bench/bench/pull/{}", n + 1), "branch": branch,
                "commit": COMMIT, "title": format!("Correct the {n}th module"),
            }),
        ),
        ("attempt.completed", &about, json!({ "duration_ms": 151_000, "usage": usage })),
    ];
    let steps = steps.into_iter().enumerate();
    steps
        .map(|(step, (kind, about, payload))| event(&format!("{n}-{step}"), kind, about.clone(), payload))
        .collect()
}

fn event(id: &str, event_type: &str, subject: Value, payload: Value) -> Event {
    let mut event = json!({
        "event_id": format!("bench-{id}"), "event_type": event_type, "timestamp": "2026-01-01T12:30:45.123456Z",
        "actor_id": "executor:bench", "payload": payload,
    });
    if let (Some(event), Value::Object(subject)) = (event.as_object_mut(), subject) {
        event.extend(subject);
    }
    serde_json::from_value(event).expect("the events of the benchmark are events")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_takes_every_life() {
        let graph = model::Graph::default();
        let mut draft = graph.draft();
        draft.take(&[target()]).unwrap();
        for n in 0..3 {
            draft.take(&life(n)).unwrap();
            assert!(draft.attempt(&attempt(n)).unwrap().pull_request.is_some());
        }
        draft.take(&[pause(1)]).unwrap();
    }
}
