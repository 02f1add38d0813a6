//! The log as it grows, for whoever stays connected.
//!
//! Each reader follows the log at its own pace: what it has not read yet is read from the store when its connection
//! takes more. Nothing is kept for a slow reader and nothing is dropped.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use api::ErrorCode;
use api::types::{EventsQuery, RecordedEvent};
use axum::Router;
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use axum::routing::get;
use futures_util::{Stream, stream};
use tokio::sync::watch;

use super::events::check_type;
use super::failure::Failure;
use super::payload::Filters;
use super::{App, Shared, blocking};
use crate::ledger::Ledger;

/// How many events are read at once.
const PAGE: usize = 200;
/// The most bytes of events that are read at once, unless a single one is longer.
const PAGE_BYTES: usize = 1 << 20;
/// How often something is said when nothing happens, so that nobody on the way takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/events/stream", get(follow))
}

async fn follow(
    app: Shared,
    headers: HeaderMap,
    Filters(mut query): Filters<EventsQuery>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failure> {
    check_type(&query)?;
    if query.limit.is_some() || query.newest.is_some() {
        return Err(Failure::new(
            ErrorCode::Invalid,
            "a stream has no `limit` and no `newest`: it is all there is, in order",
        )
        .with_hint("GET /v1/events has both"));
    }
    if let Some(last) = last_event_id(&headers)? {
        query.after = Some(last);
    }
    let follower = Follower {
        head: app.ledger.seen(),
        ledger: app.ledger.clone(),
        stopping: app.stopping.subscribe(),
        query,
        unsent: VecDeque::new(),
    };
    let events = stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok(event), follower))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// Where a reader that was cut off goes on.
fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Failure> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let seq = value.to_str().ok().and_then(|text| text.parse().ok());
    let refused = || {
        Failure::new(ErrorCode::Invalid, "`Last-Event-ID` is not the seq of an event")
            .with_hint("send the `id` of the last event that was read, or no such header")
    };
    seq.map(Some).ok_or_else(refused)
}

/// One reader's place in the log.
struct Follower {
    ledger: Ledger,
    head: watch::Receiver<u64>,
    stopping: watch::Receiver<bool>,
    query: EventsQuery,
    unsent: VecDeque<RecordedEvent>,
}

impl Follower {
    /// The next event once there is one. `None` ends the stream: the control plane stops, or cannot read its log.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.unsent.pop_front() {
                return sent(&event);
            }
            let head = *self.head.borrow_and_update();
            if self.query.after.is_some_and(|after| after > head) {
                // The log was put back to an older state, or the reader comes from another one.
                self.query.after = Some(head);
                return Some(Event::default().event("reset").data(format!(r#"{{"head":{head}}}"#)));
            }
            let found = self.ledger.history().find(&self.query, PAGE);
            if found.is_empty() {
                self.query.after = Some(head);
                self.wait().await?;
            } else {
                let ledger = self.ledger.clone();
                let events = blocking(move || ledger.events(&found, PAGE_BYTES)).await;
                let events = events.inspect_err(|failure| {
                    tracing::error!(error = ?failure.internal, "A reader of the stream was cut off.");
                });
                self.unsent = events.ok()?.into();
                self.query.after = self.unsent.back().map(|event| event.seq.0);
            }
        }
    }

    async fn wait(&mut self) -> Option<()> {
        tokio::select! {
            changed = self.head.changed() => changed.ok(),
            _ = self.stopping.wait_for(|stopping| *stopping) => None,
        }
    }
}

fn sent(event: &RecordedEvent) -> Option<Event> {
    let written = Event::default().id(event.seq.to_string()).json_data(event);
    written.inspect_err(|error| tracing::error!(%error, "An event cannot be sent.")).ok()
}
