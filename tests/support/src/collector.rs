//! The far side of OTLP over HTTP: a collector that takes spans as protobuf, and refuses what a real one refuses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{CONTENT_TYPE, HeaderMap};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use prost::Message;

/// One span as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// What it is called.
    pub name: String,
    /// `1` internal, `2` server, as the protocol counts.
    pub kind: i32,
    /// Its trace, in hexadecimal.
    pub trace_id: String,
    /// Its own id.
    pub span_id: String,
    /// The span that it belongs to; empty for the first of a trace.
    pub parent: String,
    /// Whether it failed.
    pub failed: bool,
    /// What is said of it, numbers in decimal.
    pub attributes: BTreeMap<String, String>,
    /// What is said of the process that sent it.
    pub resource: BTreeMap<String, String>,
    /// How many events came with it.
    pub events: usize,
}

/// A running collector. It stops when it is dropped.
pub struct Collector {
    url: String,
    shared: Arc<Mutex<Shared>>,
    task: tokio::task::JoinHandle<Result<(), std::io::Error>>,
}

#[derive(Default)]
struct Shared {
    spans: Vec<Span>,
    /// Everything that arrived, as it was sent.
    bytes: Vec<u8>,
    headers: Vec<(String, String)>,
    is_silent: bool,
    calls: usize,
}

impl Collector {
    /// Starts a collector on a free port of 127.0.0.1.
    pub async fn start() -> Self {
        let listener =
            tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port on the loopback");
        let url = format!("http://{}", listener.local_addr().expect("a bound listener has an address"));
        let shared = Arc::<Mutex<Shared>>::default();
        let app = Router::new().route("/v1/traces", post(take));
        let app = app.layer(DefaultBodyLimit::max(64 << 20)).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, shared, task }
    }

    /// Where it is, as `OTEL_EXPORTER_OTLP_ENDPOINT` has it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on it takes connections and answers nothing.
    pub fn fall_silent(&self) {
        self.shared().is_silent = true;
    }

    /// Every span so far.
    pub fn spans(&self) -> Vec<Span> {
        self.shared().spans.clone()
    }

    /// Whether these words are anywhere in what was sent.
    pub fn was_told(&self, words: &str) -> bool {
        self.shared().bytes.windows(words.len()).any(|window| window == words.as_bytes())
    }

    /// Whether a call bore this header.
    pub fn was_sent(&self, name: &str, value: &str) -> bool {
        self.shared().headers.iter().any(|(sent, is)| sent == name && is == value)
    }

    /// How often it was called, whether it answered or not.
    pub fn calls(&self) -> usize {
        self.shared().calls
    }

    /// Waits until a span is there that is as it should be.
    pub async fn span(&self, is_it: impl Fn(&Span) -> bool) -> Span {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(span) = self.shared().spans.iter().find(|span| is_it(span)) {
                return span.clone();
            }
            assert!(Instant::now() < deadline, "no such span came; these did: {:#?}", self.spans());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        locked(&self.shared)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Answer = (StatusCode, [(HeaderName, HeaderValue); 1], Vec<u8>);

async fn take(State(shared): State<Arc<Mutex<Shared>>>, headers: HeaderMap, body: Bytes) -> Answer {
    let is_silent = {
        let mut shared = locked(&shared);
        shared.calls += 1;
        shared.is_silent
    };
    if is_silent {
        std::future::pending::<()>().await;
    }
    const PROTOBUF: &str = "application/x-protobuf";
    if headers.get(CONTENT_TYPE).is_none_or(|kind| kind != PROTOBUF) {
        return answer(StatusCode::UNSUPPORTED_MEDIA_TYPE, Vec::new());
    }
    let Ok(request) = ExportTraceServiceRequest::decode(body.clone()) else {
        return answer(StatusCode::BAD_REQUEST, Vec::new());
    };
    let mut shared = locked(&shared);
    shared.bytes.extend_from_slice(&body);
    shared.headers.extend(
        headers
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into())),
    );
    for resource in request.resource_spans {
        let of_process =
            attributes(resource.resource.map(|resource| resource.attributes).unwrap_or_default());
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            shared.spans.push(Span {
                name: span.name,
                kind: span.kind,
                trace_id: hex::encode(span.trace_id),
                span_id: hex::encode(span.span_id),
                parent: hex::encode(span.parent_span_id),
                failed: span.status.is_some_and(|status| status.code == 2),
                attributes: attributes(span.attributes),
                resource: of_process.clone(),
                events: span.events.len(),
            });
        }
    }
    answer(StatusCode::OK, ExportTraceServiceResponse::default().encode_to_vec())
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<Value>| match value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(it)) => it.to_string(),
        other => format!("{other:?}"),
    };
    pairs.into_iter().map(|pair| (pair.key, text(pair.value.and_then(|value| value.value)))).collect()
}

fn answer(status: StatusCode, body: Vec<u8>) -> Answer {
    (status, [(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"))], body)
}

fn locked(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
