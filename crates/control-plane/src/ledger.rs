//! The only writer of the log: it decides, on one thread and in one order, what is recorded.
//!
//! Everybody who wants something recorded hands it over through a bounded queue. The thread takes all that waits,
//! judges each in its turn by the graph as it will stand after those before it, makes what is left durable with
//! one write, takes it into the graph, and only then answers. Two callers who want the same thing therefore cannot
//! both get it, and what one disk can sync in a second does not limit how many are served. There is no timer: a
//! batch is what came while the one before it was written. The ledger knows nothing of HTTP, tokens or clocks;
//! whoever calls has read those.

mod follower;
mod measures;
mod writer;

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;

use anyhow::Context;
use api::types::RecordedEvent;
use journal::{BundleError, BundleId, Record};
use model::graph::{Attempt, Refusal};
use model::{AttemptId, AttemptState, Epoch, Event, EventId, Graph, Seq};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use self::measures::Measures;
use self::writer::Writer;
use crate::admission::{Admitted, NotAdmitted};
use crate::history::{self, History, UnknownRecord};
use crate::steering::Denied;
use crate::store::{AppendError, EventStore, ReadError};

/// How many requests may wait. More are told to come back.
const QUEUE: usize = 1_024;

/// How many bytes of events may wait. More are told to come back.
const QUEUE_BYTES: usize = 64 << 20;

/// How many records are read at once when the log is replayed.
const REPLAY: usize = 4_096;

/// A handle on the ledger. Cheap to clone; the thread ends when the last one is gone.
#[derive(Clone)]
pub(crate) struct Ledger {
    queue: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
    shared: Arc<Shared>,
}

/// What the thread and its callers both see.
struct Shared {
    store: Box<dyn EventStore>,
    history: RwLock<History>,
    /// The last record that readers see.
    seen: watch::Sender<u64>,
    /// What keeps us from the log at the moment, as far as the follower noticed.
    unreachable: watch::Sender<Option<String>>,
    stopped: watch::Sender<Option<String>>,
    measures: Measures,
}

/// Something to record, and whom to answer.
struct Job {
    what: Proposal,
    reply: oneshot::Sender<Result<Recorded, NotRecorded>>,
    /// Its part of the room for what waits, given back when it is answered.
    _room: Option<OwnedSemaphorePermit>,
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
    /// How many of them were recorded now and not before.
    pub(crate) fresh: usize,
    /// What a decision came to; nothing for events that were given.
    pub(crate) decided: Vec<Event>,
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
    /// Too many others wait, or too much.
    #[error(
        "too many requests wait for the journal: at most {QUEUE}, and at most {QUEUE_BYTES} bytes of events"
    )]
    Busy,
    /// There is no space.
    #[error("the disk that holds the journal is full")]
    Full,
    /// The log cannot be reached. Whether the proposal was recorded is not known; asked again, the answer is.
    #[error("the journal cannot be reached: {reason}")]
    Unavailable {
        /// What failed.
        reason: String,
    },
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
        self.check_at(graph.attempt(&self.attempt))
    }

    /// Whether this state of the attempt still lets the sender speak.
    fn check_at(&self, attempt: Option<&Attempt>) -> Result<(), Fenced> {
        let attempt = attempt.ok_or_else(|| Fenced::Unknown(self.attempt.clone()))?;
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
    /// Replays what of the log is not in `history` yet, and begins to take proposals. The thread ends, and is to be
    /// joined, once every handle is gone.
    pub(crate) fn start(
        store: Box<dyn EventStore>,
        history: History,
    ) -> anyhow::Result<(Self, JoinHandle<()>)> {
        let shared = Shared {
            store,
            seen: watch::Sender::new(history.graph().head()),
            history: RwLock::new(history),
            unreachable: watch::Sender::new(None),
            stopped: watch::Sender::new(None),
            measures: Measures::default(),
        };
        shared.catch_up()?;
        let shared = Arc::new(shared);
        if let Some(interval) = shared.store.follows() {
            follower::start(&shared, interval).context("cannot start the thread that follows the log")?;
        }
        let (queue, jobs) = mpsc::channel(QUEUE);
        let writer = Writer::new(Arc::clone(&shared), jobs);
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || writer.run())
            .context("cannot start the ledger's thread")?;
        Ok((Self { queue, room: Arc::new(Semaphore::new(QUEUE_BYTES)), shared }, thread))
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
        self.shared.history()
    }

    /// Whether other processes record in the same log.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.store.follows().is_some()
    }

    /// The number of the last record that [`Self::history`] knows, as it moves on.
    pub(crate) fn seen(&self) -> watch::Receiver<u64> {
        self.shared.seen.subscribe()
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

    /// Makes the end of the log whole and durable, before anything is told of it. Writes files.
    pub(crate) fn settle(&self) -> Result<(), AppendError> {
        self.shared.store.settle()
    }

    /// The name of the log.
    pub(crate) fn origin(&self) -> &str {
        self.shared.store.origin()
    }

    /// How many parts of the log are never written again.
    pub(crate) fn sealed(&self) -> usize {
        self.shared.store.sealed()
    }

    /// Keeps where the records up to `to` are, for a later start. Writes files.
    pub(crate) fn keep_places(&self, to: u64) -> std::io::Result<()> {
        self.shared.store.keep_places(to)
    }

    /// Takes no writes any more, unless it does not already.
    pub(crate) fn stop(&self, reason: String) {
        self.shared.stopped.send_if_modified(|stopped| {
            let is_news = stopped.is_none();
            stopped.get_or_insert(reason);
            is_news
        });
    }

    /// Why the journal takes no writes any more; `None` while all is well.
    pub(crate) fn stopped(&self) -> watch::Receiver<Option<String>> {
        self.shared.stopped.subscribe()
    }

    /// How many proposals wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// What it measured of itself since it began.
    pub(crate) fn measures(&self) -> &Measures {
        &self.shared.measures
    }

    /// Why the log cannot be reached at the moment; `None` while it can.
    pub(crate) fn unreachable(&self) -> Option<String> {
        self.shared.unreachable.borrow().clone()
    }

    async fn propose(&self, what: Proposal) -> Result<Recorded, NotRecorded> {
        let outcome = self.ask(what).await;
        outcome.inspect_err(|error| self.shared.measures.refused(error))
    }

    async fn ask(&self, what: Proposal) -> Result<Recorded, NotRecorded> {
        let room = Arc::clone(&self.room).try_acquire_many_owned(what.bytes());
        let room = Some(room.map_err(|_| NotRecorded::Busy)?);
        let (reply, answer) = oneshot::channel();
        match self.queue.try_send(Job { what, reply, _room: room }) {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(self.shared.stopped_error())),
            Err(mpsc::error::TrySendError::Full(_)) => Err(NotRecorded::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(self.shared.stopped_error()),
        }
    }
}

impl Proposal {
    /// How much of the room for what waits it takes.
    fn bytes(&self) -> u32 {
        match self {
            Self::Given { events, .. } => {
                let bytes: usize = events.iter().map(|event| event.body.as_bytes().len()).sum();
                u32::try_from(bytes.min(QUEUE_BYTES)).expect("64 MiB are a u32")
            }
            Self::Decided(_) => 0,
        }
    }
}

impl Shared {
    fn stopped_error(&self) -> NotRecorded {
        let reason = self.stopped.borrow().clone();
        NotRecorded::Stopped { reason: reason.unwrap_or_else(|| "the ledger has ended".to_owned()) }
    }

    fn history(&self) -> RwLockReadGuard<'_, History> {
        self.history.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in every record of the store that readers do not see yet.
    fn catch_up(&self) -> Result<(), ReplayError> {
        loop {
            let next = self.history().graph().head() + 1;
            let records = self.store.read(next, REPLAY)?;
            if records.is_empty() {
                return Ok(());
            }
            let events = records.iter().map(history::event_of).collect::<Result<Vec<_>, _>>()?;
            self.apply(&records, events);
        }
    }

    /// Takes in records that are durable; those that are known already are passed over.
    fn apply<'a>(&self, records: impl IntoIterator<Item = &'a Record>, events: Vec<Event>) {
        let mut history = self.history.write().unwrap_or_else(PoisonError::into_inner);
        for (record, event) in records.into_iter().zip(events) {
            if record.seq() > history.graph().head() {
                history.apply(record, event);
            }
        }
        let head = history.graph().head();
        drop(history);
        // Two threads may come here in the other order than they applied.
        self.seen.send_if_modified(|seen| {
            let is_news = head > *seen;
            *seen = head.max(*seen);
            is_news
        });
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
