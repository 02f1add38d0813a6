//! The ledger's thread.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use journal::{Bundle, BundleId, CanonicalBody, Unchained};
use model::graph::Draft;
use model::{Event, EventId, Graph, Seq};
use tokio::sync::{mpsc, oneshot};

use super::{Decision, Fence, Job, NotRecorded, Proposal, Recorded, ReplayError, Shared, StopsWithUs};
use crate::admission::Admitted;
use crate::history::History;
use crate::store::{AppendError, EventStore, ReadError, Turn};

/// A batch that has so many events takes no more. One bundle may bring it beyond.
const BATCH_EVENTS: usize = 1_024;

/// A batch whose bodies have so many bytes takes no more. One bundle may bring it beyond.
const BATCH_BYTES: usize = 4 << 20;

/// Takes what waits, a batch at a time.
pub(super) struct Writer {
    shared: Arc<Shared>,
    jobs: mpsc::Receiver<Job>,
}

/// What is made durable with one write, and what everybody hears once it is.
struct Batch {
    /// The end of the log with this batch.
    head: u64,
    bytes: usize,
    bundles: Vec<Unchained>,
    /// The events of all bundles, in order.
    events: Vec<Event>,
    /// Where its events will be.
    known: HashMap<EventId, Seq>,
    answers: Vec<Answer>,
}

/// What is recorded: what it means, and where it is.
struct Log<'a> {
    history: &'a History,
    store: &'a dyn EventStore,
}

/// What is known of an event that somebody wants to record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Earlier {
    /// Its id was never used.
    Never,
    /// The very same event was recorded.
    Same(Seq),
    /// Its id was used for another event.
    Other(Seq),
}

/// A job that was judged. Nobody hears of it before the batch is durable: even a refusal may come from what is
/// not recorded yet.
struct Answer {
    reply: oneshot::Sender<Result<Recorded, NotRecorded>>,
    outcome: Result<Recorded, NotRecorded>,
}

/// Why nothing of a batch was recorded.
enum Failed {
    Full,
    Unavailable { reason: String },
    Stopped { reason: String },
}

/// What of a proposal is new.
struct Fresh {
    events: Vec<Event>,
    bodies: Vec<CanonicalBody>,
}

impl Fresh {
    fn with_room_for(events: usize) -> Self {
        Self { events: Vec::with_capacity(events), bodies: Vec::with_capacity(events) }
    }
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, jobs: mpsc::Receiver<Job>) -> Self {
        Self { shared, jobs }
    }

    pub(super) fn run(mut self) {
        let _guard = StopsWithUs(Arc::clone(&self.shared));
        let mut waiting = VecDeque::new();
        while self.gather(&mut waiting) {
            self.serve(&mut waiting);
        }
    }

    /// Waits until there is something to do. `false` once every handle on the ledger is gone.
    fn gather(&mut self, waiting: &mut VecDeque<Job>) -> bool {
        if waiting.is_empty() {
            waiting.extend(self.jobs.blocking_recv());
        }
        while waiting.len() < BATCH_EVENTS
            && let Ok(job) = self.jobs.try_recv()
        {
            waiting.push_back(job);
        }
        !waiting.is_empty()
    }

    /// Answers one batch from the front of what waits; all of it when nothing can be recorded at all.
    fn serve(&self, waiting: &mut VecDeque<Job>) {
        let turn = match self.turn() {
            Ok(turn) => turn,
            Err(failed) => {
                return waiting.drain(..).for_each(|job| drop(job.reply.send(Err(failed.told()))));
            }
        };
        let mut batch = Batch::after(turn.head().seq, waiting.len());
        batch.judge(&Log { history: &self.shared.history(), store: &*self.shared.store }, waiting);
        let bundles = std::mem::take(&mut batch.bundles);
        let began = Instant::now();
        let appended = if bundles.is_empty() { Ok(Vec::new()) } else { turn.append(bundles) };
        match appended {
            Ok(bundles) => {
                if !bundles.is_empty() {
                    self.shared.measures.appended(bundles.len(), batch.events.len(), began.elapsed());
                    self.shared.apply(bundles.iter().flat_map(Bundle::records), batch.events);
                }
                for Answer { reply, outcome } in batch.answers {
                    // A caller who has gone away meanwhile asks again, and hears of it by the event id.
                    let _ = reply.send(outcome.map(|recorded| Recorded { head: batch.head, ..recorded }));
                }
            }
            Err(error) => {
                let failed = self.failed(error);
                batch.answers.into_iter().for_each(|answer| drop(answer.reply.send(Err(failed.told()))));
            }
        }
    }

    /// The right to append, on a graph that knows all that is recorded.
    fn turn(&self) -> Result<Box<dyn Turn + '_>, Failed> {
        if let Some(reason) = self.shared.stopped.borrow().clone() {
            return Err(Failed::Stopped { reason });
        }
        let turn = self.shared.store.turn().map_err(|error| self.failed(error))?;
        if turn.head().seq > self.shared.history().graph().head() {
            self.shared.catch_up().map_err(|error| self.unread(&error))?;
        }
        Ok(turn)
    }

    fn failed(&self, error: AppendError) -> Failed {
        match error {
            AppendError::Full => Failed::Full,
            AppendError::Unavailable { reason } => Failed::Unavailable { reason },
            AppendError::Poisoned { .. } => self.stop(error.to_string()),
        }
    }

    fn unread(&self, error: &ReplayError) -> Failed {
        match error {
            ReplayError::Read(ReadError::Io { .. } | ReadError::Unavailable { .. }) => {
                Failed::Unavailable { reason: error.to_string() }
            }
            // What is there is damaged, or is from a newer version: nothing can be decided on it.
            ReplayError::Read(ReadError::Damaged { .. } | ReadError::Altered { .. })
            | ReplayError::Unknown(_) => self.stop(error.to_string()),
        }
    }

    fn stop(&self, reason: String) -> Failed {
        self.shared.stopped.send_replace(Some(reason.clone()));
        Failed::Stopped { reason }
    }
}

impl Failed {
    /// What each caller hears.
    fn told(&self) -> NotRecorded {
        match self {
            Self::Full => NotRecorded::Full,
            Self::Unavailable { reason } => NotRecorded::Unavailable { reason: reason.clone() },
            Self::Stopped { reason } => NotRecorded::Stopped { reason: reason.clone() },
        }
    }
}

impl Batch {
    /// The batch that follows the record `head`, with room for the proposals that wait.
    fn after(head: u64, waiting: usize) -> Self {
        Self {
            head,
            bytes: 0,
            bundles: Vec::with_capacity(waiting),
            events: Vec::with_capacity(waiting),
            known: HashMap::with_capacity(waiting),
            answers: Vec::with_capacity(waiting),
        }
    }

    /// Takes jobs from the front of what waits, each judged as if those before it were recorded.
    fn judge(&mut self, log: &Log<'_>, waiting: &mut VecDeque<Job>) {
        let Log { history, .. } = log;
        let mut draft = history.graph().draft();
        while self.events.len() < BATCH_EVENTS && self.bytes < BATCH_BYTES {
            // A decision reads the whole graph, which does not know this batch yet.
            let must_wait = |job: &Job| !self.events.is_empty() && matches!(job.what, Proposal::Decided(_));
            let Some(job) = waiting.pop_front_if(|job| !must_wait(job)) else { return };
            let outcome = match job.what {
                Proposal::Given { id, events, fence } => {
                    self.take(log, &mut draft, id, events, fence.as_ref())
                }
                Proposal::Decided(decide) => decided(history.graph(), decide).and_then(|proposed| {
                    let decided = proposed.iter().map(|admitted| admitted.event.clone()).collect();
                    let recorded = self.take(log, &mut draft, None, proposed, None)?;
                    Ok(Recorded { decided, ..recorded })
                }),
            };
            self.answers.push(Answer { reply: job.reply, outcome });
        }
    }

    /// Takes a proposal, or nothing of it.
    fn take(
        &mut self,
        log: &Log<'_>,
        draft: &mut Draft<'_>,
        id: Option<BundleId>,
        proposed: Vec<Admitted>,
        fence: Option<&Fence>,
    ) -> Result<Recorded, NotRecorded> {
        let taken = self.take_or_leave_a_trace(log, draft, id, proposed, fence);
        if taken.is_err() {
            self.known.retain(|_, seq| seq.0 <= self.head);
        }
        taken
    }

    /// Takes a proposal. When it is refused, ids of its events may be known that are nowhere.
    fn take_or_leave_a_trace(
        &mut self,
        log: &Log<'_>,
        draft: &mut Draft<'_>,
        id: Option<BundleId>,
        proposed: Vec<Admitted>,
        fence: Option<&Fence>,
    ) -> Result<Recorded, NotRecorded> {
        let mut fresh = Fresh::with_room_for(proposed.len());
        let mut seqs = Vec::with_capacity(proposed.len());
        for admitted in proposed {
            seqs.push(self.place(log, admitted, &mut fresh)?);
        }
        let Fresh { mut events, bodies } = fresh;
        let count = events.len();
        if let Some(first) = events.first() {
            let name = || BundleId::parse(first.event_id.as_str()).expect("every event id is a bundle id");
            let bundle = Unchained::new(id.unwrap_or_else(name), bodies)?;
            if let Some(fence) = fence {
                fence.check_at(draft.attempt(&fence.attempt))?;
            }
            draft.take(&events).map_err(|(index, refusal)| NotRecorded::Illegal {
                index,
                event_id: events[index].event_id.clone(),
                refusal,
            })?;
            self.head += count as u64;
            self.bytes += bundle.bodies().iter().map(|body| body.as_bytes().len()).sum::<usize>();
            self.events.append(&mut events);
            self.bundles.push(bundle);
        }
        Ok(Recorded { seqs, fresh: count, decided: Vec::new(), head: self.head })
    }

    /// Where an event is recorded already, or is in this batch, or will be: then it is one of the fresh ones.
    fn place(
        &mut self,
        log: &Log<'_>,
        Admitted { event, body }: Admitted,
        fresh: &mut Fresh,
    ) -> Result<Seq, NotRecorded> {
        let event_id = &event.event_id;
        if let Some(seq) = self.known.get(event_id).copied() {
            let (before, conflict) = match seq.0.checked_sub(self.head + 1) {
                Some(place) => {
                    let place = usize::try_from(place).ok();
                    let before = place.and_then(|place| fresh.bodies.get(place));
                    (before, NotRecorded::Ambiguous { event_id: event_id.clone() })
                }
                None => (self.body(seq), NotRecorded::Conflict { event_id: event_id.clone(), seq }),
            };
            return if before == Some(&body) { Ok(seq) } else { Err(conflict) };
        }
        match log.earlier(event_id, &body)? {
            Earlier::Same(seq) => Ok(seq),
            Earlier::Other(seq) => Err(NotRecorded::Conflict { event_id: event_id.clone(), seq }),
            Earlier::Never => {
                let seq = Seq(self.head + fresh.events.len() as u64 + 1);
                self.known.insert(event_id.clone(), seq);
                fresh.events.push(event);
                fresh.bodies.push(body);
                Ok(seq)
            }
        }
    }

    /// The body of an event of this batch.
    fn body(&self, seq: Seq) -> Option<&CanonicalBody> {
        let after = (self.head - seq.0) as usize;
        self.bundles.iter().rev().flat_map(|bundle| bundle.bodies().iter().rev()).nth(after)
    }
}

impl Log<'_> {
    /// Whether an event of this id was recorded, and with this body. Only one that was is read.
    fn earlier(&self, id: &EventId, body: &CanonicalBody) -> Result<Earlier, NotRecorded> {
        let Some(seq) = self.history.seq_of(id) else { return Ok(Earlier::Never) };
        let unread = |error: ReadError| NotRecorded::Unavailable { reason: error.to_string() };
        let record = self.store.read(seq.0, 1).map_err(unread)?.pop();
        let is_same = record.is_some_and(|record| record.body() == body);
        Ok(if is_same { Earlier::Same(seq) } else { Earlier::Other(seq) })
    }
}

fn decided(graph: &Graph, decide: Decision) -> Result<Vec<Admitted>, NotRecorded> {
    let events = decide(graph).map_err(NotRecorded::Denied)?;
    Ok(events.into_iter().map(Admitted::of).collect::<Result<_, _>>()?)
}
