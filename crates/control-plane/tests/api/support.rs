//! A control plane of one's own, and the events of one target.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::types::{ClaimRequest, Dispatched, RegisterTarget, TargetObservation};
use api::{Client, ClientError, ErrorCode};
use leviathan_control_plane::{Config, Server};
use model::select::{Spending, TargetLimits};
use model::{AttemptId, Event, TargetId, TaskId};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) const TOKEN: &str = "operator-token-of-the-tests";
pub(crate) const COMMIT: &str = "1111111111111111111111111111111111111111";
pub(crate) const CANDIDATE: &str = "2222222222222222222222222222222222222222";
pub(crate) const DIGEST: &str = "3333333333333333333333333333333333333333333333333333333333333333";

/// A running control plane; `stop` ends it in order.
pub(crate) struct Plane {
    pub(crate) client: Client,
    pub(crate) base: String,
    stop: oneshot::Sender<()>,
    running: JoinHandle<anyhow::Result<()>>,
}

impl Plane {
    pub(crate) async fn start(data: &Path) -> Self {
        Self::start_with(data, |_| {}).await
    }

    pub(crate) async fn start_with(data: &Path, adjust: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(data.to_owned(), SecretString::from(TOKEN));
        config.listen = "127.0.0.1:0".parse().unwrap();
        adjust(&mut config);
        // Another test that starts a process duplicates our files for an instant, and with them the lock of a
        // control plane that has just stopped.
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        let server = loop {
            match Server::bind(config.clone()).await {
                Ok(server) => break server,
                Err(error)
                    if error.to_string().contains("in use") && std::time::Instant::now() < deadline =>
                {
                    tokio::task::yield_now().await;
                }
                Err(error) => panic!("{error:#}"),
            }
        };
        let base = format!("http://{}", server.address());
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(server.run(async move {
            let _ = stopped.await;
        }));
        let client = Client::new(&base, SecretString::from(TOKEN)).unwrap();
        Self { client, base, stop, running }
    }

    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        self.running.await.unwrap().unwrap();
    }

    /// A client that bears another token.
    pub(crate) fn client_with(&self, token: &str) -> Client {
        Client::new(&self.base, SecretString::from(token)).unwrap()
    }

    /// Registers `shop` with these tasks, all pending.
    pub(crate) async fn with_tasks(self, tasks: &[&str]) -> Self {
        let contract = contract("shop");
        self.client.register_target(&RegisterTarget::of_contract(contract)).await.unwrap();
        let events = tasks.iter().enumerate().map(|(n, task)| task_created(task, n)).collect();
        if !tasks.is_empty() {
            self.client.ingest(events).await.unwrap();
        }
        self
    }

    pub(crate) async fn claim(&self, task: &str) -> Result<Dispatched, ClientError> {
        self.client.claim(&claim_request(task)).await
    }
}

pub(crate) fn contract(target: &str) -> String {
    format!(
        "target_id: {target}\nname: Shop\nrepo_url: git@github.com:owner/{target}.git\ndefault_branch: main\ndescription: A shop\nowner: team\ncreated_at: \"2024-01-01T00:00:00Z\"\n"
    )
}

pub(crate) fn claim_request(task: &str) -> ClaimRequest {
    let request = json!({
        "target_id": "shop", "task_id": task, "task_revision": DIGEST, "base_commit": COMMIT,
        "contract_digest": DIGEST, "policy_digest": DIGEST,
        "limits": { "max_concurrent": 100, "max_open_prs": 100, "overlap_waits": false },
        "agent": "command: true", "timeout_seconds": 60, "launcher": "worktree", "actor_id": "scheduler",
    });
    serde_json::from_value(request).unwrap()
}

pub(crate) fn observation(problems: &[&str]) -> TargetObservation {
    let limits = TargetLimits {
        max_concurrent: 1,
        max_open_prs: 3,
        overlap_waits: false,
        spending: Spending::UNLIMITED,
    };
    serde_json::from_value(json!({
        "at": "2026-01-01T00:00:00Z", "by": "scheduler", "base_commit": COMMIT, "limits": limits,
        "problems": problems,
    }))
    .unwrap()
}

/// An event as JSON, with an id that no other has.
pub(crate) fn raw(event_type: &str, actor: &str, subject: &Value, payload: Value) -> Value {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut event = json!({
        "event_id": format!("event-{id}"), "event_type": event_type, "timestamp": "2026-01-01T00:00:00Z",
        "actor_id": actor, "payload": payload,
    });
    for (key, value) in subject.as_object().unwrap() {
        event[key] = value.clone();
    }
    event
}

pub(crate) fn event(event_type: &str, actor: &str, subject: &Value, payload: Value) -> Event {
    serde_json::from_value(raw(event_type, actor, subject, payload)).unwrap()
}

pub(crate) fn task_created(task: &str, position: usize) -> Event {
    let payload = json!({
        "revision": DIGEST, "commit": COMMIT, "title": format!("Do {task}"), "scope": "docs",
        "priority": "high", "position": position, "status": "pending", "allowed_paths": ["docs/**"],
        "max_attempts": 2,
    });
    event("task.created", "scheduler", &json!({ "target_id": "shop", "task_id": task }), payload)
}

pub(crate) fn paused(reason: &str) -> Event {
    event("scheduler.paused", "operator", &json!({}), json!({ "reason": reason }))
}

/// An event about the attempt `id` at `task`, as its executor sends it.
pub(crate) fn step(id: &AttemptId, task: &str, event_type: &str) -> Event {
    step_with(id, task, event_type, payload_of(event_type))
}

pub(crate) fn step_with(id: &AttemptId, task: &str, event_type: &str, payload: Value) -> Event {
    let subject = json!({ "target_id": "shop", "task_id": task, "attempt_id": id });
    let actor = if event_type.starts_with("pr.merged") { "scheduler" } else { "executor" };
    event(event_type, actor, &subject, payload)
}

/// The steps of an attempt from its start to its pull request, in order.
pub(crate) const LIFE: &[&str] = &[
    "attempt.started",
    "sandbox.reported",
    "invariant.passed",
    "agent.finished",
    "change.permitted",
    "change.verified",
    "artifact.stored",
    "branch.pushed",
    "pr.created",
    "attempt.completed",
];

fn payload_of(event_type: &str) -> Value {
    let usage = json!({
        "input_tokens": 10, "output_tokens": 5, "cache_read_tokens": 0, "cache_write_tokens": 0, "turns": 1,
        "cost_micro_usd": 1_500,
    });
    match event_type {
        "attempt.started" => json!({ "epoch": 1, "executor": "host:1" }),
        "sandbox.reported" => json!({ "profile": "standard", "layers": [] }),
        "invariant.passed" => json!({
            "round": 0, "name": "Tests pass", "check": "true", "commit": COMMIT, "outcome": "passed",
            "duration_ms": 5, "log": DIGEST, "log_bytes": 0,
        }),
        "agent.finished" => json!({ "round": 1, "summary": "done", "duration_ms": 7, "usage": usage }),
        "change.permitted" => json!({
            "round": 1, "candidate": CANDIDATE, "patch_bytes": 10,
            "files": [{ "path": "docs/a.md", "change": "modified", "added_lines": 1, "removed_lines": 0, "rule": "docs/**" }],
        }),
        "change.verified" => json!({ "candidate": CANDIDATE, "manifest": DIGEST }),
        "artifact.stored" => json!({ "sha256": DIGEST, "name": "log", "kind": "log", "size": 3 }),
        "branch.pushed" => json!({ "branch": "leviathan/t1-a1", "commit": CANDIDATE }),
        "pr.created" => json!({
            "number": 7, "url": "https://forge/shop/7", "branch": "leviathan/t1-a1", "commit": CANDIDATE,
            "title": "Do t1",
        }),
        "attempt.completed" => json!({ "duration_ms": 100, "usage": usage }),
        "attempt.failed" => {
            json!({ "stage": "agent", "reason": "no_change", "detail": "nothing was changed" })
        }
        "pr.merged" => json!({ "number": 7, "by": "alice", "commit": CANDIDATE, "approved_by": ["bob"] }),
        other => panic!("no payload for {other}"),
    }
}

/// The status and code of a refusal, and its whole text.
pub(crate) fn refusal<T: std::fmt::Debug>(outcome: Result<T, ClientError>) -> (u16, ErrorCode, String) {
    let error = outcome.unwrap_err();
    let ClientError::Refused { status, body } = error else { panic!("{error}") };
    assert!(body.request_id.is_some(), "every refusal can be found in the log");
    (status, body.code, body.to_string())
}

/// The number of events in the log.
pub(crate) async fn head(client: &Client) -> u64 {
    client.graph_summary().await.unwrap().head
}

pub(crate) fn target() -> TargetId {
    TargetId::parse("shop").unwrap()
}

pub(crate) fn task(id: &str) -> TaskId {
    TaskId::parse(id).unwrap()
}

/// The body of an answer as JSON, with its status.
pub(crate) async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status}: no JSON: {text}")))
}

/// A request with the operator's token.
pub(crate) fn post(plane: &Plane, path: &str, body: impl Into<reqwest::Body>) -> reqwest::RequestBuilder {
    http().post(format!("{}{path}", plane.base)).bearer_auth(TOKEN).body(body)
}

pub(crate) fn http() -> reqwest::Client {
    reqwest::Client::builder().build().unwrap()
}
