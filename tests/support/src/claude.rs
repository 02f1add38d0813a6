//! The far side of the Messages API: a server that answers from a script, and refuses what the real one refuses.
//!
//! A script is a list of [`Reply`]; each accepted request takes the next one. A request that the real API would
//! answer with an error gets that error and takes nothing. When a [`ClaudeServer`] is dropped while replies are left
//! over, or after a request for which there was no reply, the test fails.
//!
//! The server counts tokens (a quarter of the bytes) and plays the provider's prompt cache: what a request has in
//! common with an earlier one, up to a breakpoint, is reported as read from the cache.

mod cache;
mod reply;
mod rules;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::post;
use serde_json::{Value, json};

pub use reply::Reply;

use cache::Cache;
use rules::{Refusal, Rules};

/// The only key that the server accepts.
pub const KEY: &str = "sk-ant-test-0123456789abcdef0123456789abcdef";

/// A running server. It stops when it is dropped.
pub struct ClaudeServer {
    base_url: String,
    shared: Arc<Mutex<Shared>>,
    task: tokio::task::JoinHandle<Result<(), std::io::Error>>,
}

/// What the server saw, in order, the refused requests included.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The body, or null when it was not JSON.
    pub body: Value,
    /// The status it was answered with.
    pub status: u16,
    /// Why it was refused, if it was.
    pub refused: Option<String>,
    /// Tokens that were reported as read from the cache.
    pub cache_read_tokens: u64,
}

#[derive(Debug)]
struct Shared {
    script: VecDeque<Reply>,
    seen: Vec<Seen>,
    unexpected: usize,
    rules: Rules,
    cache: Cache,
    next_id: u64,
}

impl ClaudeServer {
    /// Starts a server on a free port of 127.0.0.1.
    pub async fn start(script: impl IntoIterator<Item = Reply>) -> Self {
        let shared = Shared {
            script: script.into_iter().collect(),
            seen: Vec::new(),
            unexpected: 0,
            rules: Rules::default(),
            cache: Cache::default(),
            next_id: 1,
        };
        let shared = Arc::new(Mutex::new(shared));
        let listener =
            tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port on the loopback");
        let address = listener.local_addr().expect("a bound listener has an address");
        let app = Router::new()
            .route("/v1/messages", post(messages))
            .layer(axum::extract::DefaultBodyLimit::max(rules::MAX_BODY + 1))
            .with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move { axum::serve(listener, app).await });
        Self { base_url: format!("http://{address}"), shared, task }
    }

    /// Where the server listens, for `ANTHROPIC_BASE_URL`.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// Conversations longer than this many tokens are refused.
    pub fn limit_context(&self, tokens: u64) {
        self.shared().rules.context_limit = tokens;
    }

    /// Everything that was asked so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared().seen.clone()
    }

    /// The results of tools in the last accepted request's last message: id, text, whether it is an error.
    pub fn last_results(&self) -> Vec<(String, String, bool)> {
        let seen = self.seen();
        let Some(last) = seen.iter().rev().find(|seen| seen.refused.is_none()) else { return Vec::new() };
        let messages = last.body["messages"].as_array().cloned().unwrap_or_default();
        let blocks = messages.last().and_then(|message| message["content"].as_array()).cloned();
        let results = blocks.unwrap_or_default().into_iter().filter(|block| block["type"] == "tool_result");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        results.map(|r| (text(&r["tool_use_id"]), text(&r["content"]), r["is_error"] == true)).collect()
    }

    /// Drops what is left of the script, for a test in which the client rightly stops early.
    pub fn forget_rest(&self) -> usize {
        self.shared().script.drain(..).count()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for ClaudeServer {
    fn drop(&mut self) {
        self.task.abort();
        if std::thread::panicking() {
            return;
        }
        let shared = self.shared();
        let (left, unexpected) = (shared.script.len(), shared.unexpected);
        drop(shared);
        assert!(unexpected == 0, "{unexpected} requests came for which the script has no reply");
        assert!(left == 0, "{left} replies of the script were never asked for");
    }
}

async fn messages(
    State(shared): State<Arc<Mutex<Shared>>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let mut shared = shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let request_id = format!("req_{:06}", shared.seen.len() + 1);
    let parsed: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let refusal = shared.rules.refuse(&headers, body.len(), &parsed).err();
    let refusal = refusal.or_else(|| {
        let nothing_left = shared.script.is_empty();
        shared.unexpected += usize::from(nothing_left);
        nothing_left.then(|| Refusal::invalid("the test's script has no reply for this request"))
    });
    if let Some(refusal) = refusal {
        let (status, refused) = (refusal.status, Some(refusal.message.clone()));
        shared.seen.push(Seen { body: parsed, status, refused, cache_read_tokens: 0 });
        return error_response(&refusal, &request_id, &[]);
    }
    let reply = shared.script.pop_front().expect("an empty script was refused above");
    if let Some((refusal, extra)) = reply.as_error() {
        shared.seen.push(Seen { body: parsed, status: refusal.status, refused: None, cache_read_tokens: 0 });
        return error_response(&refusal, &request_id, &extra);
    }
    let usage = shared.cache.count(&parsed);
    let first_id = shared.next_id;
    shared.next_id += 100;
    let stream = reply.into_stream(&parsed, usage, first_id, &mut shared.rules);
    shared.seen.push(Seen { body: parsed, status: 200, refused: None, cache_read_tokens: usage.cache_read });
    Response::builder()
        .header("content-type", "text/event-stream; charset=utf-8")
        .header("request-id", request_id)
        .body(Body::from_stream(stream))
        .expect("a response of constant parts")
}

fn error_response(refusal: &Refusal, request_id: &str, extra: &[(String, String)]) -> Response<Body> {
    let mut error = json!({ "type": refusal.kind, "message": refusal.message });
    if let Some(code) = &refusal.code {
        error["details"] = json!({ "error_code": code });
    }
    let body = json!({ "type": "error", "error": error, "request_id": request_id });
    let mut response = Response::builder()
        .status(StatusCode::from_u16(refusal.status).expect("a status in range"))
        .header("content-type", "application/json")
        .header("request-id", request_id);
    for (name, value) in extra {
        response = response.header(name, value);
    }
    let stream = futures_util::stream::iter([Ok::<_, Infallible>(Bytes::from(body.to_string()))]);
    response.body(Body::from_stream(stream)).expect("a response of constant parts")
}
