//! The only writer of the log: it decides, on one thread and in one order, what is recorded.
//!
//! Everybody who wants something recorded hands it over through a bounded queue. The thread looks at the graph
//! as it stands at that moment, refuses what may not follow, makes the rest durable, takes it into the graph,
//! and only then answers. Two callers who want the same thing therefore cannot both get it. The ledger knows
//! nothing of HTTP, tokens or clocks; whoever calls has read those.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;

use anyhow::Context;
use api::types::RecordedEvent;
use journal::{BundleError, BundleId, Head, Record};
use model::graph::Refusal;
use model::{AttemptId, AttemptState, Epoch, Event, EventId, Graph, Seq};
use tokio::sync::{mpsc, oneshot, watch};

use crate::admission::{Admitted, NotAdmitted};
use crate::history::{self, Earlier, History, UnknownRecord};
use crate::steering::Denied;
use crate::store::{AppendError, EventStore, ReadError};

/// How many requests may wait. More are told to come back.
const QUEUE: usize = 1_024;

/// How many records are read at once when the log is replayed.
const REPLAY: usize = 4_096;

/// A handle on the ledger. Cheap to clone; the thread ends when the last one is gone.
#[derive(Clone)]
pub(crate) struct Ledger {
    queue: mpsc::Sender<Job>,
    shared: Arc<Shared>,
}

/// What the thread and its callers both see.
struct Shared {
    store: Box<dyn EventStore>,
    history: RwLock<History>,
    stopped: watch::Sender<Option<String>>,
}

/// Something to record, and whom to answer.
struct Job {
    what: Proposal,
    reply: oneshot::Sender<Result<Recorded, NotRecorded>>,
}

enum Proposal {
    /// Events that somebody else observed.
    Given { id: Option<BundleId>, events: Vec<Admitted>, fence: Option<Fence> },
    /// Events that follow from the graph at the moment of the decision; none when nothing must change.
    Decided(Decision),
}

type Decision = Box<dyn FnOnce(&Graph) -> Result<Vec<Event>, Denied> + Send>;

/// The attempt and epoch for which alone a sender may speak.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fence {
    pub(crate) attempt: AttemptId,
    pub(crate) epoch: Epoch,
}

/// What became of a proposal. Everything in it is durable.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    /// The seq of each event, in the order proposed.
    pub(crate) seqs: Vec<Seq>,
    /// The events that were recorded now and not before.
    pub(crate) fresh: Vec<Event>,
    /// The end of the log.
    pub(crate) head: u64,
}

/// Why nothing of a proposal was recorded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRecorded {
    /// An event's id was used for another event.
    #[error("event {event_id} was recorded with another body as number {seq}")]
    Conflict {
        /// The id.
        event_id: EventId,
        /// What has it.
        seq: Seq,
    },
    /// An event's id occurs twice in the bundle, with two bodies.
    #[error("event {event_id} occurs twice in the bundle, with different bodies")]
    Ambiguous {
        /// The id.
        event_id: EventId,
    },
    /// An event may not follow what is recorded.
    #[error("event {event_id} (number {} of the bundle): {refusal}", .index + 1)]
    Illegal {
        /// Its place in the proposal, from 0.
        index: usize,
        /// Its id.
        event_id: EventId,
        /// The rule.
        refusal: Refusal,
    },
    /// The sender speaks for an attempt that was handed to another, or has ended.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// The decision is no.
    #[error("{0}")]
    Denied(Denied),
    /// An event of our own that the log cannot keep: one of its texts is too long.
    #[error(transparent)]
    NotAdmitted(#[from] NotAdmitted),
    /// Too many events, or too large.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// Too many others wait.
    #[error("more than {QUEUE} requests wait for the journal")]
    Busy,
    /// There is no space.
    #[error("the disk that holds the journal is full")]
    Full,
    /// The journal takes no writes any more.
    #[error("the journal takes no writes: {reason}")]
    Stopped {
        /// What stopped it.
        reason: String,
    },
}

/// Why a sender may no longer speak for an attempt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fenced {
    /// There is no such attempt.
    #[error("there is no attempt {0}")]
    Unknown(AttemptId),
    /// It was handed out again.
    #[error("attempt {attempt} was handed out again: its epoch is {current}, not {given}")]
    Epoch {
        /// The attempt.
        attempt: AttemptId,
        /// Its epoch.
        current: Epoch,
        /// The sender's.
        given: Epoch,
    },
    /// It has ended.
    #[error("attempt {attempt} is {state}: nothing more is recorded by its executor")]
    Ended {
        /// The attempt.
        attempt: AttemptId,
        /// How it ended.
        state: AttemptState,
    },
}

/// Why the log could not be replayed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplayError {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log holds something else.
    #[error(transparent)]
    Unknown(#[from] UnknownRecord),
}

impl Fence {
    /// Whether the graph still lets the sender speak.
    pub(crate) fn check(&self, graph: &Graph) -> Result<(), Fenced> {
        let attempt = graph.attempt(&self.attempt).ok_or_else(|| Fenced::Unknown(self.attempt.clone()))?;
        if attempt.epoch != self.epoch {
            return Err(Fenced::Epoch {
                attempt: self.attempt.clone(),
                current: attempt.epoch,
                given: self.epoch,
            });
        }
        if attempt.state.is_terminal() {
            return Err(Fenced::Ended { attempt: self.attempt.clone(), state: attempt.state });
        }
        Ok(())
    }
}

impl Ledger {
    /// Replays the log and begins to take proposals. The thread ends, and is to be joined, once every handle
    /// is gone.
    pub(crate) fn start(store: Box<dyn EventStore>) -> anyhow::Result<(Self, JoinHandle<()>)> {
        let history = RwLock::new(replay(&*store)?);
        let shared = Arc::new(Shared { store, history, stopped: watch::Sender::new(None) });
        let (queue, jobs) = mpsc::channel(QUEUE);
        let writer = Writer { shared: Arc::clone(&shared), jobs };
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || writer.run())
            .context("cannot start the ledger's thread")?;
        Ok((Self { queue, shared }, thread))
    }

    /// Records events that were observed: all that are new, or nothing. With a fence only if the sender may
    /// still speak for its attempt; events that were recorded before are answered all the same.
    pub(crate) async fn ingest(
        &self,
        id: Option<BundleId>,
        events: Vec<Admitted>,
        fence: Option<Fence>,
    ) -> Result<Recorded, NotRecorded> {
        self.propose(Proposal::Given { id, events, fence }).await
    }

    /// Records what `decide` makes of the graph at that moment.
    pub(crate) async fn decide(
        &self,
        decide: impl FnOnce(&Graph) -> Result<Vec<Event>, Denied> + Send + 'static,
    ) -> Result<Recorded, NotRecorded> {
        self.propose(Proposal::Decided(Box::new(decide))).await
    }

    /// What the log says up to its last record. Hold it briefly: the ledger waits for it.
    pub(crate) fn history(&self) -> RwLockReadGuard<'_, History> {
        self.shared.history.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The events of these seqs, verified: as many from the front as have `budget` bytes together, but at least
    /// one. Reads files: not for an async thread.
    pub(crate) fn events(&self, seqs: &[u64], budget: usize) -> Result<Vec<RecordedEvent>, ReplayError> {
        let mut events = Vec::with_capacity(seqs.len());
        let (mut rest, mut bytes) = (seqs, 0);
        while let Some(first) = rest.first() {
            let in_a_row = rest.iter().zip(*first..).take_while(|(seq, expected)| *seq == expected).count();
            let records = self.shared.store.read(*first, in_a_row)?;
            if records.is_empty() {
                break;
            }
            for record in &records {
                bytes += record.body().as_bytes().len();
                if bytes > budget && !events.is_empty() {
                    return Ok(events);
                }
                events.push(history::placed(record, history::event_of(record)?));
            }
            rest = &rest[records.len()..];
        }
        Ok(events)
    }

    /// The same from the back, in the order of the log.
    pub(crate) fn newest_events(
        &self,
        seqs: &[u64],
        budget: usize,
    ) -> Result<Vec<RecordedEvent>, ReplayError> {
        let (mut events, mut bytes) = (VecDeque::new(), 0);
        for seq in seqs.iter().rev() {
            let Some(record) = self.shared.store.read(*seq, 1)?.pop() else { break };
            bytes += record.body().as_bytes().len();
            if bytes > budget && !events.is_empty() {
                break;
            }
            events.push_front(history::placed(&record, history::event_of(&record)?));
        }
        Ok(events.into())
    }

    /// The records from `from` on, verified: at most `limit`, and none only when there are none. Reads files.
    pub(crate) fn records(&self, from: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        self.shared.store.read(from, limit)
    }

    /// Why the journal takes no writes any more; `None` while all is well.
    pub(crate) fn stopped(&self) -> watch::Receiver<Option<String>> {
        self.shared.stopped.subscribe()
    }

    async fn propose(&self, what: Proposal) -> Result<Recorded, NotRecorded> {
        let (reply, answer) = oneshot::channel();
        match self.queue.try_send(Job { what, reply }) {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(self.shared.stopped_error())),
            Err(mpsc::error::TrySendError::Full(_)) => Err(NotRecorded::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(self.shared.stopped_error()),
        }
    }
}

impl Shared {
    fn stopped_error(&self) -> NotRecorded {
        let reason = self.stopped.borrow().clone();
        NotRecorded::Stopped { reason: reason.unwrap_or_else(|| "the ledger has ended".to_owned()) }
    }
}

fn replay(store: &dyn EventStore) -> Result<History, ReplayError> {
    let mut history = History::default();
    loop {
        let records = store.read(history.graph().head() + 1, REPLAY)?;
        if records.is_empty() {
            return Ok(history);
        }
        for record in records {
            history.apply(&record, history::event_of(&record)?);
        }
    }
}

/// The thread's side.
struct Writer {
    shared: Arc<Shared>,
    jobs: mpsc::Receiver<Job>,
}

/// What of a bundle is new, and the seqs of the rest.
struct Sorted {
    /// New events, each once.
    fresh: Vec<Admitted>,
    /// For each event of the proposal: its seq, or its place among the new ones.
    places: Vec<Place>,
}

enum Place {
    Recorded(Seq),
    Fresh(usize),
}

impl Writer {
    fn run(mut self) {
        let _guard = StopsWithUs(Arc::clone(&self.shared));
        while let Some(Job { what, reply }) = self.jobs.blocking_recv() {
            let outcome = self.take(what);
            // A caller who has gone away meanwhile asks again, and hears of it by the event id.
            let _ = reply.send(outcome);
        }
    }

    fn take(&self, what: Proposal) -> Result<Recorded, NotRecorded> {
        if self.shared.stopped.borrow().is_some() {
            return Err(self.shared.stopped_error());
        }
        match what {
            Proposal::Given { id, events, fence } => self.record(id, events, fence.as_ref()),
            Proposal::Decided(decide) => {
                let events = decide(self.history().graph()).map_err(NotRecorded::Denied)?;
                let events = events.into_iter().map(Admitted::of).collect::<Result<_, _>>()?;
                self.record(None, events, None)
            }
        }
    }

    fn record(
        &self,
        id: Option<BundleId>,
        events: Vec<Admitted>,
        fence: Option<&Fence>,
    ) -> Result<Recorded, NotRecorded> {
        let Sorted { fresh, places } = self.sort(events)?;
        let records = if fresh.is_empty() {
            Vec::new()
        } else {
            self.admit(&fresh, fence)?;
            self.append(id, &fresh)?
        };
        let seqs = places.into_iter().map(|place| match place {
            Place::Recorded(seq) => seq,
            Place::Fresh(index) => Seq(records[index].seq()),
        });
        let seqs = seqs.collect();
        let fresh: Vec<Event> = fresh.into_iter().map(|admitted| admitted.event).collect();
        self.apply(&records, &fresh);
        Ok(Recorded { seqs, fresh, head: self.shared.store.head().seq })
    }

    /// Tells new events from those that are recorded already.
    fn sort(&self, events: Vec<Admitted>) -> Result<Sorted, NotRecorded> {
        let history = self.history();
        let mut sorted = Sorted { fresh: Vec::new(), places: Vec::with_capacity(events.len()) };
        for admitted in events {
            let event_id = &admitted.event.event_id;
            match history.earlier(event_id, &admitted.body) {
                Earlier::Same(seq) => sorted.places.push(Place::Recorded(seq)),
                Earlier::Other(seq) => {
                    return Err(NotRecorded::Conflict { event_id: event_id.clone(), seq });
                }
                Earlier::Never => match sorted.fresh.iter().position(|f| f.event.event_id == *event_id) {
                    Some(index) if sorted.fresh[index].body == admitted.body => {
                        sorted.places.push(Place::Fresh(index));
                    }
                    Some(_) => return Err(NotRecorded::Ambiguous { event_id: event_id.clone() }),
                    None => {
                        sorted.places.push(Place::Fresh(sorted.fresh.len()));
                        sorted.fresh.push(admitted);
                    }
                },
            }
        }
        Ok(sorted)
    }

    /// Whether all of it may follow what is recorded.
    fn admit(&self, fresh: &[Admitted], fence: Option<&Fence>) -> Result<(), NotRecorded> {
        let history = self.history();
        if let Some(fence) = fence {
            fence.check(history.graph())?;
        }
        let events: Vec<Event> = fresh.iter().map(|admitted| admitted.event.clone()).collect();
        history.graph().admit_all(&events).map_err(|(index, refusal)| NotRecorded::Illegal {
            index,
            event_id: events[index].event_id.clone(),
            refusal,
        })
    }

    fn append(&self, id: Option<BundleId>, fresh: &[Admitted]) -> Result<Vec<Record>, NotRecorded> {
        let id = id.unwrap_or_else(|| {
            BundleId::parse(fresh[0].event.event_id.as_str()).expect("every event id is a bundle id")
        });
        let bodies = fresh.iter().map(|admitted| admitted.body.clone()).collect();
        let expected: Head = self.shared.store.head();
        match self.shared.store.append(expected, id, bodies) {
            Ok(bundle) => Ok(bundle.into_records()),
            Err(AppendError::Bundle(error)) => Err(error.into()),
            Err(AppendError::Full) => Err(NotRecorded::Full),
            // Nobody else writes this log. If its head moved, somebody does, and no decision made on our graph
            // holds any more.
            Err(error @ (AppendError::Stale { .. } | AppendError::Poisoned { .. })) => {
                self.shared.stopped.send_replace(Some(error.to_string()));
                Err(self.shared.stopped_error())
            }
        }
    }

    fn apply(&self, records: &[Record], events: &[Event]) {
        let mut history = self.shared.history.write().unwrap_or_else(PoisonError::into_inner);
        for (record, event) in records.iter().zip(events) {
            history.apply(record, event.clone());
        }
    }

    fn history(&self) -> RwLockReadGuard<'_, History> {
        self.shared.history.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says so when the thread ends by a panic, so that the process does not go on without a ledger.
struct StopsWithUs(Arc<Shared>);

impl Drop for StopsWithUs {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stopped.send_replace(Some("the ledger met a bug; its text is in the log".to_owned()));
        }
    }
}

#[cfg(test)]
mod tests;
