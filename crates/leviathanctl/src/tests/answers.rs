//! What a control plane would answer about one small target.

use std::collections::BTreeMap;

use api::types::*;
use model::AttemptState;
use model::event::Timestamp;
use model::graph::Pause;
use serde_json::{Value, json};

pub(super) const ATTEMPT: &str = "attempt-01khz4e8m0abcdef";
pub(super) const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const COMMIT: &str = "c0ffee0000000000000000000000000000000001";
const CANDIDATE: &str = "c0ffee0000000000000000000000000000000002";

pub(super) fn at(clock: &str) -> Timestamp {
    format!("2026-01-31T{clock}Z").parse().unwrap()
}

/// An event of [`ATTEMPT`].
pub(super) fn event(seq: u64, event_type: &str, clock: &str, payload: Value) -> RecordedEvent {
    serde_json::from_value(json!({
        "seq": seq, "hash": DIGEST, "prev_hash": DIGEST,
        "event_id": format!("e{seq}"), "event_type": event_type, "timestamp": at(clock),
        "actor_id": "executor", "target_id": "my-repo", "task_id": "task-001", "attempt_id": ATTEMPT,
        "payload": payload,
    }))
    .unwrap()
}

/// An attempt whose pull request waits for a human.
pub(super) fn completed() -> AttemptView {
    serde_json::from_value(json!({
        "attempt_id": ATTEMPT, "task_id": "task-001", "title": "Update dependencies", "target": "my-repo",
        "n": 1, "status": "completed", "state": "completed", "epoch": 1, "launcher": "worktree",
        "agent": "claude", "timestamp": at("11:50:00"), "started_at": at("11:50:02"),
        "ended_at": at("11:53:22"), "lease_remaining_ms": null, "publish_not_before": null,
        "base_commit": COMMIT, "branch": "leviathan/task-001-a1", "candidate": CANDIDATE, "is_pushed": true,
        "failure": null, "invalidated": null,
        "pull_request": {
            "number": 7, "url": "https://forge.example/owner/my-repo/pull/7",
            "branch": "leviathan/task-001-a1", "commit": CANDIDATE, "title": "Update dependencies",
            "state": { "state": "open" }, "human_owned": null, "reviews": { "ada": "approved" },
        },
        "pr_url": "https://forge.example/owner/my-repo/pull/7", "pr_number": 7,
        "usage": {
            "input_tokens": 5200, "output_tokens": 800, "cache_read_tokens": 41000,
            "cache_write_tokens": 3000, "turns": 6, "cost_micro_usd": 123_456,
        },
    }))
    .unwrap()
}

/// An attempt whose change left its scope.
pub(super) fn failed() -> AttemptView {
    let failure = json!({
        "stage": "gate", "reason": "scope_violation", "detail": "src/app.py is outside allowed_paths",
        "at": at("11:40:00"),
    });
    AttemptView {
        attempt_id: "attempt-01khz3zzzz000009".parse().unwrap(),
        task_id: "task-002".parse().unwrap(),
        title: "Add logging to API endpoints".to_owned(),
        status: "failed".to_owned(),
        state: AttemptState::Failed,
        n: 2,
        timestamp: at("09:00:00"),
        ended_at: Some(at("11:40:00")),
        started_at: Some(at("09:00:05")),
        candidate: None,
        branch: "leviathan/task-002-a2".parse().unwrap(),
        is_pushed: false,
        failure: serde_json::from_value(failure).unwrap(),
        pull_request: None,
        pr_url: None,
        pr_number: None,
        usage: Default::default(),
        agent: "command: ./bump.sh".to_owned(),
        ..completed()
    }
}

pub(super) fn attempts(attempts: Vec<AttemptView>, total: u64) -> AttemptList {
    AttemptList { count: attempts.len() as u64, attempts, total }
}

pub(super) fn detail() -> AttemptDetail {
    let check = |round: u32, passed: bool, outcome: &str| {
        json!({
            "passed": passed, "round": round, "name": "Tests must pass", "check": "pytest tests/",
            "commit": CANDIDATE, "outcome": outcome, "duration_ms": 4210, "log": DIGEST, "log_bytes": 20480,
        })
    };
    serde_json::from_value(json!({
        "attempt": completed(),
        "change": {
            "round": 2, "candidate": CANDIDATE, "patch_bytes": 1234,
            "files": [
                { "path": "requirements.txt", "change": "modified", "added_lines": 15, "removed_lines": 9,
                  "rule": "requirements.txt (.leviathan/backlog.yaml:9), requirements.txt (.leviathan/policy.yaml:4)" },
                { "path": "package.json", "change": "added", "added_lines": 120, "removed_lines": 0,
                  "rule": "package.json (.leviathan/backlog.yaml:10)" },
            ],
        },
        "violations": [
            { "path": "src/app.py", "kind": "not_allowed", "rule": "src/** (.leviathan/policy.yaml:9)",
              "message": "src/app.py is forbidden by the scope `dependencies`" },
        ],
        "checks": [check(0, true, "passed"), check(1, false, "exit code 1"), check(2, true, "passed")],
        "sandbox": { "profile": "standard", "layers": [
            { "name": "landlock", "holds": true, "detail": "writes only below the tree" },
            { "name": "namespaces", "holds": false, "detail": "this machine gives no user namespaces" },
        ] },
        "agent_notes": ["I updated every dependency.\nAll tests pass."],
        "artifacts": [ { "sha256": DIGEST, "name": "transcript.jsonl", "kind": "transcript", "size": 1_572_864 } ],
        "policy_digest": DIGEST,
        "events": timeline(),
    }))
    .unwrap()
}

pub(super) fn timeline() -> Vec<RecordedEvent> {
    vec![
        event(41, "attempt.claimed", "11:50:00", json!({ "epoch": 1, "launcher": "worktree" })),
        event(42, "attempt.started", "11:50:02", json!({ "epoch": 1, "executor": "host-1:4242" })),
        event(
            43,
            "pr.created",
            "11:53:20",
            json!({
                "number": 7, "url": "https://forge.example/owner/my-repo/pull/7",
                "branch": "leviathan/task-001-a1", "commit": CANDIDATE, "title": "Update dependencies",
            }),
        ),
    ]
}

pub(super) fn summary() -> GraphSummary {
    let counts = |rows: &[(&str, u64)]| {
        rows.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect::<BTreeMap<_, _>>()
    };
    GraphSummary {
        nodes_by_type: counts(&[("Target", 1), ("Task", 12), ("Attempt", 104), ("Artifact", 0)]),
        edges_by_type: counts(&[("DEPENDS_ON", 116)]),
        attempts_by_state: counts(&[("completed", 96), ("failed", 7), ("started", 1)]),
        cost_micro_usd: 12_345_678,
        pause: Some(Pause {
            by: "operator".parse().unwrap(),
            reason: "release day".to_owned(),
            since: at("11:00:00"),
        }),
        head: 43,
        recent_events: timeline().into_iter().rev().collect(),
    }
}

pub(super) fn tasks() -> TaskList {
    let task = |target: &str, id: &str, state: &str, reason: Option<&str>, detail: Option<&str>| {
        json!({
            "target": target, "task_id": id, "title": format!("Title of {id}"), "priority": "high",
            "scope": "dependencies", "state": state, "reason": reason, "detail": detail, "attempts": 2,
            "last_attempt": ATTEMPT, "pr_url": null,
            "write_back": (state == "completed").then_some("committed as c0ffee"),
        })
    };
    serde_json::from_value(json!({ "tasks": [
        task("my-repo", "task-001", "in_review", Some("in_review"), Some("the pull request waits for a human: https://forge.example/7")),
        task("my-repo", "task-002", "pending", None, None),
        task("my-repo", "task-003", "completed", Some("not_pending"), Some("completed: attempt-a was merged")),
        task("other", "task-1", "parked", Some("parked"), Some("2 of 2 attempts failed, last with no_change; edit the task or invalidate an attempt to run it again")),
    ] }))
    .unwrap()
}

pub(super) fn targets() -> TargetList {
    serde_json::from_value(json!({ "targets": [
        {
            "target_id": "my-repo", "name": "My Repository", "repo_url": "git@github.com:owner/my-repo.git",
            "default_branch": "main", "registered_at": at("08:00:00"), "contract": "target_id: my-repo\n",
            "operator_policy": "limits: {}\n", "pause": null, "live_attempts": 1, "open_pull_requests": 2,
            "observation": { "at": at("11:59:30"), "by": "scheduler", "base_commit": COMMIT, "limits": null,
                "problems": [".leviathan/policy.yaml:3:5: unknown key `scope`; hint: did you mean `scopes`?"] },
        },
        {
            "target_id": "other", "name": "Other", "repo_url": "file:///srv/other.git",
            "default_branch": "trunk", "registered_at": at("08:00:00"), "contract": "", "operator_policy": null,
            "pause": { "by": "operator", "reason": "its tests are broken", "since": at("09:00:00") },
            "live_attempts": 0, "open_pull_requests": 1, "observation": null,
        },
    ] }))
    .unwrap()
}

pub(super) fn failures() -> FailureList {
    let failures: Vec<FailureView> = vec![serde_json::from_value(json!({
        "attempt_id": failed().attempt_id, "task_id": "task-002", "target": "my-repo",
        "error": "scope_violation: src/app.py is outside allowed_paths", "failure": failed().failure,
        "next_step": "widen allowed_paths in the task and scope if the change is wanted, or narrow the task",
        "timestamp": at("11:40:00"),
    }))
    .unwrap()];
    FailureList { count: 1, failures }
}

pub(super) fn page(events: Vec<RecordedEvent>, next_after: u64) -> EventsPage {
    EventsPage { events, next_after, head: next_after }
}
