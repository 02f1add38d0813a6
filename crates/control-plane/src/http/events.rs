//! Recording events, and reading them back in order.

use std::sync::Arc;

use api::ErrorCode;
use api::types::{EventsPage, EventsQuery, IngestResponse};
use axum::routing::{get, post};
use axum::{Json, Router};
use journal::BundleId;
use model::EventKind;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::caller::Caller;
use super::failure::Failure;
use super::payload::{self, Filters, Payload};
use super::{App, Shared, blocking};
use crate::admission::Admitted;
use crate::ledger::Fence;

/// How many events a page has unless more or fewer are asked for.
const PAGE: u32 = 1_000;
/// The most events that a page can have.
const LARGEST_PAGE: u32 = 5_000;
/// The most bytes that the events of a page have together, unless a single one is longer.
const PAGE_BYTES: usize = 8 << 20;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/events/ingest", post(ingest)).route("/v1/events", get(list))
}

/// [`api::types::IngestRequest`] with its events as they were sent, so that each is judged by its own bytes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bundle<'a> {
    #[serde(default)]
    bundle_id: Option<String>,
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

async fn ingest(
    app: Shared,
    caller: Caller,
    Payload(bytes): Payload,
) -> Result<Json<IngestResponse>, Failure> {
    let bundle: Bundle<'_> = payload::parse(&bytes)?;
    if bundle.events.is_empty() {
        return Err(Failure::new(ErrorCode::Invalid, "a bundle holds at least one event"));
    }
    let id = bundle.bundle_id.as_deref().map(BundleId::parse).transpose();
    let id = id.map_err(|problem| Failure::new(ErrorCode::Invalid, problem.to_string()))?;
    let events = bundle.events.iter().enumerate().map(|(index, json)| admitted(index, json.get()));
    let events = events.collect::<Result<Vec<_>, _>>()?;
    let fence = fence(&caller, &events)?;
    let sent = events.len() as u64;
    let recorded = app.ledger.ingest(id, events, fence).await?;
    let ingested = recorded.fresh as u64;
    Ok(Json(IngestResponse {
        status: "ok".to_owned(),
        ingested,
        duplicates: sent - ingested,
        seqs: recorded.seqs,
        head: recorded.head,
    }))
}

/// Judges one event of a bundle; the refusal names it by its place and, if it can be read, its id.
fn admitted(index: usize, json: &str) -> Result<Admitted, Failure> {
    #[derive(Deserialize)]
    struct Named<'a> {
        event_id: &'a str,
    }
    Admitted::from_json(json.as_bytes()).map_err(|problem| {
        let name = serde_json::from_str::<Named<'_>>(json).map(|named| named.event_id.chars().take(200));
        let name: String = name.map(|id| id.flat_map(char::escape_debug).collect()).unwrap_or_default();
        let detail = format!("event {name} (number {} of the bundle): {problem}", index + 1);
        Failure::new(ErrorCode::Invalid, detail).with_hint("nothing of this bundle was recorded")
    })
}

/// What an executor may record: what it does itself, under its own name, about its own attempt.
fn fence(caller: &Caller, events: &[Admitted]) -> Result<Option<Fence>, Failure> {
    let Caller::Executor { attempt, epoch } = caller else { return Ok(None) };
    for Admitted { event, .. } in events {
        let forbidden = |why: &str| {
            let detail = format!("event {}: the token of {attempt} may not {why}", event.event_id);
            Err(Failure::new(ErrorCode::Forbidden, detail))
        };
        if event.subject.attempt_id.as_ref() != Some(attempt) {
            return forbidden("report on anything but its own attempt");
        }
        if !is_an_executors_step(&event.kind) {
            return forbidden(&format!("record {}", event.kind.event_type()));
        }
        if !event.actor_id.as_str().starts_with("executor") {
            return forbidden("speak for an actor that is not `executor…`");
        }
    }
    Ok(Some(Fence { attempt: attempt.clone(), epoch: *epoch }))
}

fn is_an_executors_step(kind: &EventKind) -> bool {
    match kind {
        EventKind::AttemptStarted(_)
        | EventKind::SandboxReported(_)
        | EventKind::NetworkReported(_)
        | EventKind::AgentFinished(_)
        | EventKind::PolicyViolated(_)
        | EventKind::ChangePermitted(_)
        | EventKind::InvariantPassed(_)
        | EventKind::InvariantFailed(_)
        | EventKind::ChangeVerified(_)
        | EventKind::ArtifactStored(_)
        | EventKind::PublishParked(_)
        | EventKind::BranchPushed(_)
        | EventKind::PrCreated(_)
        | EventKind::AttemptCompleted(_)
        | EventKind::AttemptFailed(_)
        // A pod that somebody deletes says itself that it was stopped.
        | EventKind::AttemptCancelled(_)
        | EventKind::AttemptSuperseded(_) => true,
        EventKind::TargetRegistered(_)
        | EventKind::TargetUnregistered(_)
        | EventKind::TargetRejected(_)
        | EventKind::AttemptLaunched(_)
        | EventKind::TaskCreated(_)
        | EventKind::TaskUpdated(_)
        | EventKind::TaskCompleted(_)
        | EventKind::TaskBlocked(_)
        | EventKind::TaskRemoved(_)
        | EventKind::AttemptCreated(_)
        | EventKind::AttemptClaimed(_)
        | EventKind::PrReviewed(_)
        | EventKind::PrHumanOwned(_)
        | EventKind::PrMerged(_)
        | EventKind::PrClosed(_)
        | EventKind::AttemptLost(_)
        | EventKind::AttemptInvalidated(_)
        | EventKind::BacklogUpdated(_)
        | EventKind::SchedulerPaused(_)
        | EventKind::SchedulerResumed(_) => false,
    }
}

/// Refuses a type that no event has, so that a misspelt filter is not taken for silence.
pub(super) fn check_type(query: &EventsQuery) -> Result<(), Failure> {
    let Some(name) = query.event_type.as_deref().filter(|name| !EventKind::TYPES.contains(name)) else {
        return Ok(());
    };
    let name: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    let types = EventKind::TYPES.join(", ");
    Err(Failure::new(ErrorCode::Invalid, format!("`{name}` is not an event type"))
        .with_hint(format!("the types are {types}")))
}

async fn list(app: Shared, Filters(query): Filters<EventsQuery>) -> Result<Json<EventsPage>, Failure> {
    check_type(&query)?;
    let limit = query.limit.unwrap_or(PAGE).min(LARGEST_PAGE) as usize;
    let (seqs, head) = {
        let history = app.ledger.history();
        (history.find(&query, limit), history.graph().head())
    };
    let (found, newest) = (seqs.len(), query.newest.unwrap_or(false));
    let ledger = app.ledger.clone();
    let read = move || {
        if newest { ledger.newest_events(&seqs, PAGE_BYTES) } else { ledger.events(&seqs, PAGE_BYTES) }
    };
    let events = blocking(read).await?;
    let is_whole = newest || (found < limit && events.len() == found);
    let next_after = match events.last() {
        Some(last) if !is_whole => last.seq.0,
        Some(_) | None => head,
    };
    Ok(Json(EventsPage { events, next_after, head }))
}
