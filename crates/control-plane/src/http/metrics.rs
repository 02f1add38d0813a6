//! What Prometheus asks for: what the process measured of itself, and how things stand by the graph.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use api::Route;
use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::failure::Failure;
use super::{App, Shared, now, tasks};

/// Names and values by which one metric is told from another of the same name.
type Labels = Vec<(&'static str, String)>;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/metrics", get(scrape))
}

async fn scrape(app: Shared) -> Result<impl IntoResponse, Failure> {
    let mut registry = Registry::with_prefix("leviathan");
    app.ledger.measures().register(&mut registry);
    app.requests.register(&mut registry);
    let gauge = |value: usize| gauge(value as u64);
    registry.register("journal_waiting", "Proposals that wait for the journal", gauge(app.ledger.waiting()));
    if let Some(checkpoints) = &app.checkpoints {
        checkpoints.register(Instant::now(), &mut registry);
    }
    if let Some(witness) = &app.witness {
        witness.register(app.ledger.history().graph().head(), &mut registry);
    }
    how_things_stand(&app, &mut registry);
    let mut body = String::new();
    text::encode(&mut body, &registry).map_err(|error| Failure::internal(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], body))
}

/// What requests came, and how long they took, since the process began.
#[derive(Debug)]
pub(crate) struct Requests(Family<Request, Histogram, fn() -> Histogram>);

/// By what requests are told from each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Request {
    method: &'static str,
    path: &'static str,
    status: u16,
}

impl EncodeLabelSet for Request {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let Self { method, path, status } = self;
        ("method", *method).encode(encoder.encode_label())?;
        ("path", *path).encode(encoder.encode_label())?;
        ("status", *status).encode(encoder.encode_label())
    }
}

impl Default for Requests {
    fn default() -> Self {
        // From half a millisecond to 16 s.
        Self(Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.000_5, 2.0, 16))))
    }
}

impl Requests {
    /// A request to a known route was answered.
    pub(super) fn answered(&self, route: &'static Route, status: u16, took: Duration) {
        let request = Request { method: route.method.as_str(), path: route.path, status };
        self.0.get_or_create(&request).observe(took.as_secs_f64());
    }

    fn register(&self, registry: &mut Registry) {
        registry.register_with_unit("http_request", "How long requests took", Unit::Seconds, self.0.clone());
    }
}

fn how_things_stand(app: &App, registry: &mut Registry) {
    let history = app.ledger.history();
    let graph = history.graph();
    let counts = graph.counts();
    let version =
        vec![("version", env!("CARGO_PKG_VERSION").to_owned()), ("backend", app.backend.to_owned())];
    registry.register("build", "Always 1", family([(version, 1)]));
    registry.register("journal_head", "The seq of the newest event", gauge(graph.head()));
    let verified = app.verified.to(graph.head());
    registry.register("journal_verified_seq", "Up to which seq the log is verified", gauge(verified));
    registry.register(
        "paused",
        "Whether new attempts are stopped everywhere",
        gauge(graph.pause().is_some().into()),
    );
    let spent = Counter::<f64, AtomicU64>::default();
    spent.inc_by(counts.cost_micro_usd as f64 / 1e6);
    registry.register("cost_usd", "What the ended rounds of agents cost, in US dollars", spent);

    let by_state =
        counts.attempts_by_state.iter().map(|(state, count)| (vec![("state", state.clone())], *count));
    registry.register("attempts", "Attempts by their state", family(by_state));
    let failures = graph.attempts().filter_map(|attempt| {
        let failure = attempt.failure.as_ref()?;
        Some(vec![("target", attempt.target_id.to_string()), ("reason", failure.reason.to_string())])
    });
    registry.register("attempts_failed", "Attempts that failed, by the reason", family(counted(failures)));

    let per_target = |what: fn(&model::graph::Target) -> u64| {
        family(graph.targets().map(|(id, target)| (vec![("target", id.to_string())], what(target))))
    };
    let open = per_target(|target| target.in_review.len() as u64);
    registry.register("pull_requests_open", "Pull requests that wait for a human", open);
    registry.register("attempts_live", "Attempts that run", per_target(|target| target.live.len() as u64));
    let is_paused = per_target(|target| u64::from(target.pause.is_some()));
    registry.register("target_paused", "Whether new attempts at the target are stopped", is_paused);

    let now = now();
    let tasks = graph.targets().flat_map(|(id, _)| {
        tasks::tasks_of(graph, id, app.presence.observation(id).as_ref(), now).into_iter().map(|task| {
            let reason = task.reason.unwrap_or_else(|| "none".to_owned());
            vec![("target", task.target.to_string()), ("state", task.state), ("reason", reason)]
        })
    });
    registry.register("tasks", "Tasks by their state and why they do not run", family(counted(tasks)));
}

fn counted(labels: impl Iterator<Item = Labels>) -> BTreeMap<Labels, u64> {
    let mut counts = BTreeMap::new();
    labels.for_each(|labels| *counts.entry(labels).or_default() += 1);
    counts
}

fn family(values: impl IntoIterator<Item = (Labels, u64)>) -> Family<Labels, Gauge<u64, AtomicU64>> {
    let family = Family::default();
    for (labels, value) in values {
        let one: Gauge<u64, AtomicU64> = family.get_or_create_owned(&labels);
        one.set(value);
    }
    family
}

fn gauge(value: u64) -> Gauge<u64, AtomicU64> {
    let gauge = Gauge::default();
    gauge.set(value);
    gauge
}
