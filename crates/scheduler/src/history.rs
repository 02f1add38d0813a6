//! The scheduler's own fold of the log: the same graph as the control plane's, and the few facts beside it that
//! only a scheduler needs. Nothing is kept on disk; a new process reads the log again.

use std::collections::{BTreeMap, BTreeSet};

use api::types::EventsQuery;
use api::{Client, ClientError};
use model::event::{Event, EventKind, Timestamp};
use model::{ActorId, AttemptId, EventId, Graph};

/// How many events are asked for at once; the most that the control plane gives.
const PAGE: u32 = 5000;

/// How executors call themselves in the log.
const EXECUTOR: &str = "executor";

/// What the log says up to some event.
#[derive(Debug, Default)]
pub struct History {
    graph: Graph,
    handed_out: BTreeMap<AttemptId, HandedOut>,
    pauses: BTreeSet<EventId>,
    cancelled_by_executor: BTreeSet<AttemptId>,
}

/// Who handed an attempt to an executor last, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandedOut {
    /// The scheduler.
    pub by: ActorId,
    /// When, by the control plane's clock.
    pub at: Timestamp,
}

impl History {
    /// The graph of everything read so far.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Who handed out the attempt last. None before the first time, and once the attempt has ended.
    pub fn handed_out(&self, attempt: &AttemptId) -> Option<&HandedOut> {
        self.handed_out.get(attempt)
    }

    /// Whether the pause of that id was ever recorded, also when a human lifted it since.
    pub fn knows_pause(&self, id: &EventId) -> bool {
        self.pauses.contains(id)
    }

    /// Whether it was the attempt's own executor that said it was told to stop.
    pub fn was_cancelled_by_its_executor(&self, attempt: &AttemptId) -> bool {
        self.cancelled_by_executor.contains(attempt)
    }

    /// Takes in the next event of the log.
    pub fn apply(&mut self, event: &Event) {
        self.graph.apply(event);
        if let EventKind::SchedulerPaused(_) = &event.kind {
            self.pauses.insert(event.event_id.clone());
        }
        let Some(attempt) = &event.subject.attempt_id else { return };
        if matches!(event.kind, EventKind::AttemptCancelled(_)) && event.actor_id.as_str() == EXECUTOR {
            self.cancelled_by_executor.insert(attempt.clone());
        }
        if let EventKind::AttemptClaimed(_) = &event.kind {
            let handed_out = HandedOut { by: event.actor_id.clone(), at: event.timestamp };
            self.handed_out.insert(attempt.clone(), handed_out);
        } else if self.graph.attempt(attempt).is_some_and(|attempt| attempt.state.is_terminal()) {
            self.handed_out.remove(attempt);
        }
    }

    /// Reads what was recorded since the last time.
    pub(crate) async fn catch_up(&mut self, client: &Client) -> Result<(), ClientError> {
        loop {
            let query =
                EventsQuery { after: Some(self.graph.head()), limit: Some(PAGE), ..EventsQuery::default() };
            let page = client.events(&query).await?;
            for recorded in &page.events {
                self.apply(&recorded.event);
            }
            if page.events.is_empty() || self.graph.head() >= page.head {
                return Ok(());
            }
        }
    }
}
