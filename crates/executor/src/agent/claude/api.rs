//! The Messages API: one request out, one streamed answer in.
//!
//! Knows the wire: headers, the events of a stream, the shape of errors. It neither retries nor counts money,
//! and it does not look into what the model says beyond putting the pieces of a block together.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

use super::sse;

/// The version of the API that we speak.
pub(super) const API_VERSION: &str = "2026-10-21";

/// The connection to one provider.
pub(super) struct Api {
    http: reqwest::Client,
    messages_url: reqwest::Url,
    key: HeaderValue,
    idle_timeout: Duration,
}

/// A complete answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    /// The model as the provider names it.
    pub(super) model: String,
    /// The content blocks as they must be sent back: thinking with its signature, nothing reordered.
    pub(super) content: Vec<Value>,
    /// The tool calls among the blocks, in order.
    pub(super) calls: Vec<ToolCall>,
    /// Why the model stopped.
    pub(super) stop: Stop,
    /// What it cost in tokens.
    pub(super) tokens: Tokens,
    /// The provider's name of this request, for its support.
    pub(super) request_id: Option<String>,
}

/// One wish of the model to use a tool.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ToolCall {
    pub(super) id: String,
    pub(super) name: String,
    /// The input, or why it is not a JSON object.
    pub(super) input: Result<Map<String, Value>, String>,
}

/// Why the model stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stop {
    EndTurn,
    Sequence,
    ToolUse,
    MaxTokens,
    PauseTurn,
    Refusal {
        category: Option<String>,
        explanation: Option<String>,
    },
    ContextWindowExceeded,
    /// A reason that is newer than this program, or none at all.
    Unknown(String),
}

/// Tokens of one call, as the provider counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tokens {
    pub(super) input: u64,
    pub(super) output: u64,
    pub(super) cache_read: u64,
    pub(super) cache_write: u64,
}

/// Why there is no complete answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CallError {
    /// The provider answered with an error instead of a stream. It does not bill such a call.
    #[error("{status} {kind}: {message}")]
    Refused {
        status: u16,
        /// `error.type`.
        kind: String,
        /// `error.message`, shortened.
        message: String,
        /// `error.details.error_code`.
        code: Option<String>,
        /// How long to wait, if the provider says so.
        retry_after: Option<Duration>,
        /// The provider's own opinion (`x-should-retry`).
        should_retry: Option<bool>,
    },
    /// No connection was made, so nothing can have been billed.
    #[error("no connection: {0}")]
    NotConnected(String),
    /// The connection or the stream broke off, or made no sense. The provider may bill it.
    #[error("the answer broke off: {detail}")]
    Broken { detail: String, seen: Option<Tokens> },
    /// The stream held an `error` event. The provider may bill it.
    #[error("the answer ended in {kind}: {message}")]
    StreamError { kind: String, message: String, seen: Option<Tokens> },
    /// What answers there is no Messages API.
    #[error("the address answers with `{content_type}` instead of an event stream")]
    NotAnApi { content_type: String },
}

/// The largest answer that is accepted, in bytes on the wire.
const MAX_ANSWER: usize = 64 << 20;
/// The most of an error's body that is read.
const MAX_ERROR_BODY: usize = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

impl Api {
    /// A connection to the API beneath `base_url`. The errors are the user's to correct.
    pub(super) fn new(key: &SecretString, base_url: &str, idle_timeout: Duration) -> Result<Self, String> {
        // Only the first installation succeeds; a later one finds the same provider in place.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let messages_url = messages_url(base_url)?;
        let mut key = HeaderValue::from_str(key.expose_secret().trim())
            .map_err(|_| "ANTHROPIC_API_KEY holds characters that no key has".to_owned())?;
        if key.is_empty() {
            return Err("ANTHROPIC_API_KEY is empty".to_owned());
        }
        key.set_sensitive(true);
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // A redirect would carry the key to another address.
            .redirect(reqwest::redirect::Policy::none())
            // Proxies would be read from the environment; the address is the user's to choose.
            .no_proxy()
            .build()
            .map_err(|error| format!("no HTTPS client can be made: {error}"))?;
        Ok(Self { http, messages_url, key, idle_timeout })
    }

    /// Sends `body` and reads the whole answer. Dropping the future closes the connection.
    pub(super) async fn send(&self, body: String) -> Result<Answer, CallError> {
        let request = self
            .http
            .post(self.messages_url.clone())
            .header("x-api-key", self.key.clone())
            .header("anthropic-version", API_VERSION)
            .header(CONTENT_TYPE, "application/json")
            .body(body)
            .send();
        let response = match tokio::time::timeout(self.idle_timeout, request).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) if error.is_connect() => return Err(CallError::NotConnected(chain(&error))),
            Ok(Err(error)) => return Err(broken(chain(&error), None)),
            Err(_) => return Err(broken(self.idle(), None)),
        };
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let content_type = header(response.headers(), CONTENT_TYPE.as_str()).unwrap_or_default();
        if !content_type.starts_with("text/event-stream") {
            return Err(CallError::NotAnApi { content_type });
        }
        self.read_stream(response).await
    }

    async fn read_stream(&self, response: reqwest::Response) -> Result<Answer, CallError> {
        let request_id = header(response.headers(), "request-id");
        let mut decoder = sse::Decoder::default();
        let mut assembly = Assembly::default();
        let mut size = 0;
        let mut chunks = response.bytes_stream();
        loop {
            let chunk = match tokio::time::timeout(self.idle_timeout, chunks.next()).await {
                Ok(Some(Ok(chunk))) => chunk,
                Ok(Some(Err(error))) => return Err(broken(chain(&error), assembly.tokens)),
                Ok(None) => {
                    return Err(broken("the stream ended before the message".to_owned(), assembly.tokens));
                }
                Err(_) => return Err(broken(self.idle(), assembly.tokens)),
            };
            size += chunk.len();
            if size > MAX_ANSWER {
                let detail = format!("the answer is longer than {MAX_ANSWER} bytes");
                return Err(broken(detail, assembly.tokens));
            }
            let events = decoder.push(&chunk).map_err(|e| broken(e.to_string(), assembly.tokens))?;
            for event in events {
                if let Progress::Complete = assembly.take(&event)? {
                    return assembly.into_answer(request_id);
                }
            }
        }
    }

    async fn refusal(&self, response: reqwest::Response) -> CallError {
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let should_retry = header(response.headers(), "x-should-retry").and_then(|text| text.parse().ok());
        let mut body = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Ok(Some(Ok(chunk))) = tokio::time::timeout(self.idle_timeout, chunks.next()).await {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ERROR_BODY {
                break;
            }
        }
        let parsed: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let error = &parsed["error"];
        CallError::Refused {
            status,
            kind: error["type"].as_str().unwrap_or("error").to_owned(),
            message: shortened(error["message"].as_str().unwrap_or("the answer does not say why")),
            code: error["details"]["error_code"].as_str().map(str::to_owned),
            retry_after,
            should_retry,
        }
    }

    fn idle(&self) -> String {
        format!("nothing came for {} seconds", self.idle_timeout.as_secs())
    }
}

impl CallError {
    /// The tokens that the provider had named before the call failed.
    pub(super) fn seen(&self) -> Option<Tokens> {
        match self {
            Self::Broken { seen, .. } | Self::StreamError { seen, .. } => *seen,
            Self::Refused { .. } | Self::NotConnected(_) | Self::NotAnApi { .. } => None,
        }
    }

    /// Whether the provider may bill the call.
    pub(super) fn may_be_billed(&self) -> bool {
        match self {
            Self::Broken { .. } | Self::StreamError { .. } => true,
            Self::Refused { .. } | Self::NotConnected(_) | Self::NotAnApi { .. } => false,
        }
    }
}

/// The answer as far as it has come.
#[derive(Debug, Default)]
struct Assembly {
    model: String,
    tokens: Option<Tokens>,
    blocks: Vec<Value>,
    /// The pieces of the open block's input, and whether a block is open.
    open: Option<String>,
    calls: Vec<ToolCall>,
    stop: Option<Stop>,
}

enum Progress {
    Continues,
    Complete,
}

impl Assembly {
    fn take(&mut self, event: &sse::Event) -> Result<Progress, CallError> {
        // Events that are newer than this program are passed over, as the API's versioning rules ask.
        let is_known = matches!(
            event.name.as_str(),
            "message_start"
                | "content_block_start"
                | "content_block_delta"
                | "content_block_stop"
                | "message_delta"
                | "message_stop"
                | "error"
        );
        if !is_known {
            return Ok(Progress::Continues);
        }
        let data: Value = serde_json::from_str(&event.data)
            .map_err(|error| self.nonsense(format!("`{}` is not JSON: {error}", event.name)))?;
        match event.name.as_str() {
            "message_start" => self.start_message(&data["message"])?,
            "content_block_start" => self.start_block(&data)?,
            "content_block_delta" => self.extend_block(&data)?,
            "content_block_stop" => self.end_block(&data)?,
            "message_delta" => self.end_message(&data)?,
            "message_stop" => return Ok(Progress::Complete),
            _ => return Err(self.stream_error(&data["error"])),
        }
        Ok(Progress::Continues)
    }

    fn start_message(&mut self, message: &Value) -> Result<(), CallError> {
        if self.tokens.is_some() {
            return Err(self.nonsense("a second message began".to_owned()));
        }
        self.model = message["model"].as_str().unwrap_or_default().to_owned();
        let tokens = Tokens::default().updated(&message["usage"]);
        self.tokens = Some(tokens.ok_or_else(|| self.nonsense("the message names no usage".to_owned()))?);
        Ok(())
    }

    fn start_block(&mut self, data: &Value) -> Result<(), CallError> {
        if self.tokens.is_none() || self.open.is_some() || data["index"] != self.blocks.len() {
            return Err(self.nonsense("a block began out of order".to_owned()));
        }
        let block = &data["content_block"];
        if !block["type"].is_string() {
            return Err(self.nonsense("a block has no type".to_owned()));
        }
        self.blocks.push(block.clone());
        self.open = Some(String::new());
        Ok(())
    }

    fn extend_block(&mut self, data: &Value) -> Result<(), CallError> {
        let delta = &data["delta"];
        let kind = delta["type"].as_str().unwrap_or_default();
        let is_last = self.blocks.len().checked_sub(1).is_some_and(|last| data["index"] == last);
        let (Some(input), Some(block), true) = (&mut self.open, self.blocks.last_mut(), is_last) else {
            return Err(self.nonsense(format!("`{kind}` belongs to no open block")));
        };
        let field = match kind {
            "text_delta" => "text",
            "thinking_delta" => "thinking",
            "signature_delta" => "signature",
            "input_json_delta" => {
                input.push_str(delta["partial_json"].as_str().unwrap_or_default());
                return Ok(());
            }
            // Passing over an unknown piece would send back a block that the provider never wrote.
            unknown => {
                let detail = format!("the piece `{unknown}` is unknown");
                return Err(self.nonsense(detail));
            }
        };
        match (delta[field].as_str(), &mut block[field]) {
            (Some(piece), Value::String(text)) => text.push_str(piece),
            (Some(piece), empty @ Value::Null) => *empty = Value::from(piece),
            _ => return Err(self.nonsense(format!("`{kind}` does not fit its block"))),
        }
        Ok(())
    }

    fn end_block(&mut self, data: &Value) -> Result<(), CallError> {
        let is_last = self.blocks.len().checked_sub(1).is_some_and(|last| data["index"] == last);
        let (Some(input), Some(block), true) = (self.open.take(), self.blocks.last_mut(), is_last) else {
            return Err(self.nonsense("a block ended that was not open".to_owned()));
        };
        if block["type"] != "tool_use" {
            return Ok(());
        }
        let parsed = parsed_input(&input);
        block["input"] = match &parsed {
            Ok(object) => Value::Object(object.clone()),
            // History must hold an object; this one shows the model what it wrote.
            Err(_) => serde_json::json!({ "unreadable_input": input }),
        };
        let (id, name) =
            (block["id"].as_str().unwrap_or_default(), block["name"].as_str().unwrap_or_default());
        let call = ToolCall { id: id.to_owned(), name: name.to_owned(), input: parsed };
        if call.id.is_empty() || self.calls.iter().any(|other| other.id == call.id) {
            return Err(self.nonsense("a tool call has no id of its own".to_owned()));
        }
        self.calls.push(call);
        Ok(())
    }

    fn end_message(&mut self, data: &Value) -> Result<(), CallError> {
        self.tokens = self.tokens.map(|tokens| tokens.updated(&data["usage"]).unwrap_or(tokens));
        let delta = &data["delta"];
        if !delta["stop_reason"].is_null() {
            self.stop = Some(Stop::parse(delta));
        }
        Ok(())
    }

    fn into_answer(self, request_id: Option<String>) -> Result<Answer, CallError> {
        match (self.tokens, self.open) {
            (Some(tokens), None) => Ok(Answer {
                model: self.model,
                content: self.blocks,
                calls: self.calls,
                stop: self.stop.unwrap_or_else(|| Stop::Unknown("none".to_owned())),
                tokens,
                request_id,
            }),
            (seen, _) => Err(broken("the message ended in the middle of a block".to_owned(), seen)),
        }
    }

    fn stream_error(&self, error: &Value) -> CallError {
        CallError::StreamError {
            kind: error["type"].as_str().unwrap_or("error").to_owned(),
            message: shortened(error["message"].as_str().unwrap_or("the stream does not say why")),
            seen: self.tokens,
        }
    }

    fn nonsense(&self, detail: String) -> CallError {
        broken(detail, self.tokens)
    }
}

impl Stop {
    fn parse(delta: &Value) -> Self {
        let details = &delta["stop_details"];
        let detail = |name: &str| details[name].as_str().map(str::to_owned);
        match delta["stop_reason"].as_str().unwrap_or_default() {
            "end_turn" => Self::EndTurn,
            "stop_sequence" => Self::Sequence,
            "tool_use" => Self::ToolUse,
            "max_tokens" => Self::MaxTokens,
            "pause_turn" => Self::PauseTurn,
            "refusal" => Self::Refusal { category: detail("category"), explanation: detail("explanation") },
            "model_context_window_exceeded" => Self::ContextWindowExceeded,
            unknown => Self::Unknown(shortened(unknown)),
        }
    }
}

impl Tokens {
    /// All tokens that the model read.
    pub(super) fn all_input(&self) -> u64 {
        self.input.saturating_add(self.cache_read).saturating_add(self.cache_write)
    }

    /// These numbers, each replaced by a larger one in `usage`: the provider counts upwards. `None` when
    /// `usage` names neither input nor output.
    fn updated(self, usage: &Value) -> Option<Self> {
        let number = |name: &str| usage[name].as_u64();
        if number("input_tokens").is_none() && number("output_tokens").is_none() {
            return None;
        }
        let larger = |old: u64, name: &str| old.max(number(name).unwrap_or(0));
        Some(Self {
            input: larger(self.input, "input_tokens"),
            output: larger(self.output, "output_tokens"),
            cache_read: larger(self.cache_read, "cache_read_input_tokens"),
            cache_write: larger(self.cache_write, "cache_creation_input_tokens"),
        })
    }
}

fn messages_url(base_url: &str) -> Result<reqwest::Url, String> {
    let url = format!("{}/v1/messages", base_url.trim().trim_end_matches('/'));
    let url: reqwest::Url =
        url.parse().map_err(|error| format!("ANTHROPIC_BASE_URL `{base_url}` is no address: {error}"))?;
    let is_local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match url.scheme() {
        "https" => Ok(url),
        // In clear text a key may only go to a proxy on this very machine.
        "http" if is_local => Ok(url),
        _ => Err(format!("ANTHROPIC_BASE_URL `{base_url}` must begin with https://, or be on this machine")),
    }
}

fn parsed_input(input: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(if input.is_empty() { "{}" } else { input }) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err("the input is not a JSON object".to_owned()),
        Err(error) => Err(format!("the input is not JSON: {error}")),
    }
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = |text: String| text.parse::<f64>().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    let milliseconds = header(headers, "retry-after-ms").and_then(seconds).map(|ms| ms / 1000);
    // The other form, a date, would need a clock; the API sends seconds.
    milliseconds.or_else(|| header(headers, "retry-after").and_then(seconds))
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn broken(detail: String, seen: Option<Tokens>) -> CallError {
    CallError::Broken { detail, seen }
}

/// An error with its causes; reqwest's own text names only the outermost.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn shortened(text: &str) -> String {
    text.chars().take(500).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
