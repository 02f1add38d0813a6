//! Every body that crosses the wire, written out once: it is read, it is written again as it was, and nothing
//! unknown is taken for a request.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::collections::BTreeSet;
use std::fmt::Debug;

use leviathan_api::types::*;
use leviathan_api::{ErrorBody, openapi};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const COMMIT: &str = "c0ffee0000000000000000000000000000000001";
const MOMENT: &str = "2026-01-31T12:00:00.000000Z";
const ATTEMPT: &str = "attempt-abc123";

/// Remembers the names of the types that were checked.
#[derive(Default)]
struct Wire(BTreeSet<String>);

impl Wire {
    /// An answer: what it says is what was read, and what an older or newer version adds is passed over.
    fn answer<T: Serialize + DeserializeOwned + JsonSchema + Debug>(&mut self, body: Value) {
        let read: T = serde_json::from_value(body.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), body, "{}", T::schema_name());
        self.0.insert(T::schema_name().into_owned());
    }

    /// A request: the same, and a field that nobody knows is an error, never silence.
    fn request<T: Serialize + DeserializeOwned + JsonSchema + Debug>(&mut self, body: Value) {
        self.answer::<T>(body.clone());
        let mut misspelt = body;
        misspelt["reson"] = json!("a field that nobody knows");
        let error = serde_json::from_value::<T>(misspelt).unwrap_err().to_string();
        assert!(error.contains("unknown field `reson`"), "{}: {error}", T::schema_name());
    }
}

#[test]
fn every_body_of_every_route_survives_the_way_there_and_back() {
    let mut wire = Wire::default();
    wire.answer::<ErrorBody>(json!({
        "code": "illegal_step", "detail": "it has ended", "hint": "look at it", "request_id": "r-1",
    }));
    wire.answer::<Health>(json!({ "status": "ok", "version": "0.1.0" }));
    wire.answer::<Readiness>(json!({
        "status": "ready", "backend": "ndjson", "head": 7, "verified_to": 7, "artifacts": "ready",
        "checkpoints": "late", "checkpoints_late": "the disk is full",
    }));
    wire.request::<IngestRequest>(json!({ "bundle_id": "b1", "events": [event()] }));
    wire.answer::<IngestResponse>(
        json!({ "status": "ok", "ingested": 1, "duplicates": 1, "seqs": [7, 8], "head": 8 }),
    );
    wire.answer::<EventsPage>(json!({ "events": [recorded()], "next_after": 7, "head": 9 }));
    wire.answer::<GraphSummary>(json!({
        "nodes_by_type": { "Task": 2 }, "edges_by_type": {}, "attempts_by_state": { "failed": 1 },
        "cost_micro_usd": 5, "pause": pause(), "head": 7, "recent_events": [recorded()],
    }));
    wire.answer::<AttemptList>(json!({ "attempts": [attempt()], "count": 1, "total": 30 }));
    wire.answer::<AttemptDetail>(detail());
    wire.answer::<FailureList>(json!({ "count": 1, "failures": [{
        "attempt_id": ATTEMPT, "task_id": "task-001", "target": "shop", "error": "no_change: nothing changed",
        "failure": failure(), "next_step": "say it more exactly", "timestamp": MOMENT,
    }] }));
    wire.answer::<TaskList>(json!({ "tasks": [{
        "target": "shop", "task_id": "task-001", "title": "T", "priority": "high", "scope": "api",
        "state": "parked", "reason": "parked", "detail": "2 of 2 attempts failed", "attempts": 2,
        "last_attempt": ATTEMPT, "pr_url": null, "write_back": "committed",
    }] }));
    wire.answer::<TargetList>(json!({ "targets": [{
        "target_id": "shop", "name": "Shop", "repo_url": "file:///srv/shop.git", "default_branch": "main",
        "registered_at": MOMENT, "contract": "target_id: shop\n", "operator_policy": "limits: {}\n",
        "backlog": "tasks: []\n", "executor_image": "python:3.12", "source": "configmap/leviathan-target-shop",
        "unregistered": { "by": "operator", "reason": "moved", "at": MOMENT }, "pause": pause(), "live_attempts": 1, "open_pull_requests": 2, "observation": observation(),
    }] }));
    wire.request::<RegisterTarget>(json!({
        "contract": "target_id: shop\n", "operator_policy": "limits: {}\n", "backlog": "tasks: []\n",
        "executor_image": "python:3.12", "source": "configmap/leviathan-target-shop", "actor_id": "scheduler",
    }));
    wire.request::<RejectTarget>(json!({
        "source": "configmap/leviathan-target-shop", "target_id": "shop", "digest": DIGEST,
        "problems": ["contract.yaml:1:1: broken"], "actor_id": "scheduler",
    }));
    wire.answer::<PassRequested>(json!({ "number": 3 }));
    wire.request::<PassReport>(pass());
    wire.answer::<Passes>(json!({ "requested": 3, "done": 2, "last": pass() }));
    wire.answer::<TargetRegisteredResponse>(json!({ "target_id": "shop", "changed": true }));
    wire.request::<TargetObservation>(observation());
    wire.request::<ClaimRequest>(json!({
        "target_id": "shop", "task_id": "task-001", "task_revision": DIGEST, "base_commit": COMMIT,
        "contract_digest": DIGEST, "policy_digest": DIGEST, "operator_policy_digest": DIGEST,
        "limits": limits(), "agent": "claude", "model": "m", "timeout_seconds": 1800,
        "launcher": "worktree", "actor_id": "scheduler",
    }));
    wire.answer::<Dispatched>(json!({
        "attempt_id": ATTEMPT, "n": 1, "epoch": 1, "branch": "leviathan/task-001-a1", "token": "secret",
    }));
    wire.request::<DispatchRequest>(
        json!({ "expected_epoch": 1, "launcher": "worktree", "actor_id": "scheduler" }),
    );
    wire.answer::<Assignment>(json!({
        "attempt_id": ATTEMPT, "n": 1, "epoch": 2, "state": "verified", "target_id": "shop",
        "contract": "target_id: shop\n", "operator_policy": null, "task_id": "task-001",
        "task_revision": DIGEST, "base_commit": COMMIT, "branch": "leviathan/task-001-a1",
        "policy_digest": DIGEST, "agent": "claude", "model": null, "created_at": MOMENT,
        "timeout_seconds": 1800, "candidate": COMMIT, "backlog": "tasks: []\n", "executor_image": "python:3.12",
        "artifacts": [{ "sha256": DIGEST, "name": "candidate.pack", "kind": "pack", "size": 4 }],
    }));
    wire.request::<HeartbeatRequest>(json!({ "activity": "running the checks" }));
    wire.answer::<HeartbeatResponse>(json!({ "lease_ms": 120_000, "paused": false }));
    wire.request::<LostRequest>(json!({
        "expected_epoch": 1, "evidence": "executor_gone", "reason": "its process is gone", "actor_id": "scheduler",
    }));
    wire.request::<ReasonRequest>(json!({ "reason": "release day", "target": "shop", "actor_id": "ada" }));
    wire.answer::<Steered>(json!({ "status": "paused", "attempt_id": ATTEMPT, "changed": false }));
    wire.answer::<ArtifactReceipt>(json!({ "sha256": DIGEST, "size": 4 }));

    let missing: Vec<_> = bodies(&openapi()).into_iter().filter(|name| !wire.0.contains(name)).collect();
    assert_eq!(missing, [""; 0], "every body of every route is written out above");
}

#[test]
fn every_filter_survives_the_way_there_and_back() {
    let mut wire = Wire::default();
    wire.request::<EventsQuery>(json!({
        "after": 3, "limit": 10, "newest": true, "target": "shop", "task": "task-001", "attempt": ATTEMPT,
        "type": "pr.created",
    }));
    wire.request::<AttemptsQuery>(
        json!({ "target": "shop", "task": "task-001", "id": "abc", "status": "live", "limit": 5 }),
    );
    wire.request::<TasksQuery>(json!({ "target": "shop" }));
    wire.request::<PassesQuery>(json!({ "requested_after": 1, "done_from": 2, "wait_ms": 500 }));
}

#[test]
fn a_token_of_an_attempt_is_in_no_debug_text() {
    let dispatched: Dispatched = serde_json::from_value(json!({
        "attempt_id": ATTEMPT, "n": 1, "epoch": 1, "branch": "leviathan/t-a1", "token": "secret",
    }))
    .unwrap();
    assert_eq!(format!("{dispatched:?}"), "Dispatched(attempt-abc123 epoch 1)");
}

/// The names of the types that requests and successes of the document hold.
fn bodies(document: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for operation in
        document["paths"].as_object().unwrap().values().flat_map(|path| path.as_object().unwrap().values())
    {
        for body in
            [&operation["requestBody"], &operation["responses"]["200"], &operation["responses"]["default"]]
        {
            let reference = body["content"]["application/json"]["schema"]["$ref"].as_str();
            names.extend(reference.map(|reference| reference.rsplit('/').next().unwrap().to_owned()));
        }
    }
    names
}

fn event() -> Value {
    json!({
        "event_id": "e1", "event_type": "attempt.cancelled", "timestamp": MOMENT, "actor_id": "operator",
        "target_id": "shop", "task_id": "task-001", "attempt_id": ATTEMPT, "payload": { "reason": "stop" },
    })
}

fn recorded() -> Value {
    let mut recorded = event();
    recorded["seq"] = json!(7);
    recorded["hash"] = json!(DIGEST);
    recorded["prev_hash"] = json!(DIGEST);
    recorded
}

fn pause() -> Value {
    json!({ "by": "operator", "reason": "release day", "since": MOMENT })
}

fn failure() -> Value {
    json!({ "stage": "agent", "reason": "no_change", "detail": "nothing changed", "at": MOMENT })
}

fn limits() -> Value {
    let spending = json!({
        "per_attempt_micro_usd": 5_000_000, "per_task_micro_usd": 10_000_000, "per_day_micro_usd": 20_000_000,
        "everything_per_day_micro_usd": 50_000_000, "is_paid_by_default": true,
    });
    json!({ "max_concurrent": 1, "max_open_prs": 3, "overlap_waits": true, "spending": spending })
}

fn pass() -> Value {
    json!({ "number": 2, "by": "scheduler", "at": MOMENT, "launched": 1, "problems": ["target shop: broken"] })
}

fn observation() -> Value {
    json!({ "at": MOMENT, "by": "scheduler", "base_commit": COMMIT, "limits": limits(), "problems": ["unreachable"] })
}

fn usage() -> Value {
    json!({
        "input_tokens": 1, "output_tokens": 2, "cache_read_tokens": 3, "cache_write_tokens": 4, "turns": 5,
        "cost_micro_usd": 6,
    })
}

fn attempt() -> Value {
    json!({
        "attempt_id": ATTEMPT, "task_id": "task-001", "title": "T", "target": "shop", "n": 1,
        "status": "invalidated", "state": "completed", "epoch": 2, "launcher": "worktree", "agent": "claude",
        "timestamp": MOMENT, "started_at": MOMENT, "ended_at": MOMENT, "lease_remaining_ms": 0,
        "activity": "the agent works, round 1",
        "publish_not_before": MOMENT, "base_commit": COMMIT, "branch": "leviathan/task-001-a1",
        "candidate": COMMIT, "is_pushed": true, "failure": failure(),
        "pull_request": {
            "number": 7, "url": "u", "branch": "leviathan/task-001-a1", "commit": COMMIT, "title": "T",
            "state": { "state": "merged", "by": "ada", "commit": COMMIT, "approved_by": ["bob"] },
            "human_owned": "retargeted", "reviews": { "bob": "approved" },
        },
        "pr_url": "u", "pr_number": 7,
        "invalidated": { "by": "operator", "reason": "wrong", "at": MOMENT }, "usage": usage(),
    })
}

fn detail() -> Value {
    json!({
        "attempt": attempt(),
        "change": { "round": 1, "candidate": COMMIT, "patch_bytes": 9, "files": [{
            "path": "a.txt", "change": "added", "added_lines": 1, "removed_lines": 0, "rule": "a.txt (backlog.yaml:3)",
        }] },
        "violations": [{ "path": "b", "kind": "not_allowed", "rule": "r", "message": "m" }],
        "violations_omitted": 2,
        "checks": [{
            "passed": false, "round": 1, "name": "Tests pass", "check": "pytest", "commit": COMMIT,
            "outcome": "exit code 1", "duration_ms": 3, "log": DIGEST, "log_bytes": 4,
        }],
        "sandbox": { "profile": "standard", "layers": [{ "name": "landlock", "holds": true, "detail": "d" }] },
        "network": [{
            "used_by": "setup", "host": "pypi.org", "port": 443, "answer": "connected", "count": 2,
            "sent_bytes": 3, "received_bytes": 4,
        }],
        "network_omitted": 1,
        "agent_notes": ["done"],
        "artifacts": [{ "sha256": DIGEST, "name": "check.log", "kind": "log", "size": 4 }],
        "policy_digest": DIGEST,
        "events": [recorded()],
    })
}
