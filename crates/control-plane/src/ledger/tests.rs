//! What the ledger tells its callers when its store, its queue or its own thread gives out.

use std::ops::ControlFlow;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use journal::{Bundle, CanonicalBody, Head, Unchained};
use model::ActorId;
use model::event::{EventKind, Reason, Subject, Timestamp};

use super::*;
use crate::store::{AppendError, MemoryStore, Turn};

/// A store that does as it is told at each append: one word per call.
struct Obedient {
    inner: MemoryStore,
    words: Mutex<Receiver<Word>>,
    /// Told when it waits for a word.
    asks: Sender<()>,
}

enum Word {
    Append,
    BeFull,
    Break,
}

impl EventStore for Obedient {
    fn head(&self) -> Head {
        self.inner.head()
    }

    fn turn(&self) -> Result<Box<dyn Turn + '_>, AppendError> {
        Ok(Box::new(ObedientTurn { inner: self.inner.turn()?, words: &self.words, asks: &self.asks }))
    }

    fn origin(&self) -> &str {
        self.inner.origin()
    }

    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        self.inner.read(from, limit)
    }

    fn bundles(&self, each: &mut dyn FnMut(Unchained, Head) -> ControlFlow<()>) -> Result<(), ReadError> {
        self.inner.bundles(each)
    }
}

struct ObedientTurn<'a> {
    inner: Box<dyn Turn + 'a>,
    words: &'a Mutex<Receiver<Word>>,
    asks: &'a Sender<()>,
}

impl Turn for ObedientTurn<'_> {
    fn head(&self) -> Head {
        self.inner.head()
    }

    fn append(self: Box<Self>, bundles: Vec<Unchained>) -> Result<Vec<Bundle>, AppendError> {
        // Most tests do not listen.
        let _ = self.asks.send(());
        let word = self.words.lock().unwrap().recv().unwrap();
        match word {
            Word::Append => self.inner.append(bundles),
            Word::BeFull => Err(AppendError::Full),
            Word::Break => Err(AppendError::Poisoned { reason: "a sync failed".to_owned() }),
        }
    }
}

fn obedient() -> (Ledger, JoinHandle<()>, Sender<Word>) {
    let (ledger, thread, say, _) = asking();
    (ledger, thread, say)
}

fn asking() -> (Ledger, JoinHandle<()>, Sender<Word>, Receiver<()>) {
    let ((say, words), (asks, asked)) = (channel(), channel());
    let store = Obedient { inner: MemoryStore::new("test/ledger"), words: words.into(), asks };
    let (ledger, thread) = Ledger::start(Box::new(store), History::default()).unwrap();
    (ledger, thread, say, asked)
}

fn paused(id: &str) -> Event {
    Event {
        event_id: EventId::parse(id).unwrap(),
        timestamp: Timestamp::new(jiff::Timestamp::UNIX_EPOCH),
        actor_id: ActorId::parse("operator").unwrap(),
        subject: Subject::everything(),
        kind: EventKind::SchedulerPaused(Reason { reason: "test".to_owned() }),
    }
}

async fn ingest(ledger: &Ledger, id: &str) -> Result<Recorded, NotRecorded> {
    ledger.ingest(None, vec![Admitted::of(paused(id)).unwrap()], None).await
}

#[tokio::test]
async fn a_full_disk_is_told_and_forgotten_once_there_is_space() {
    let (ledger, thread, say) = obedient();
    for word in [Word::BeFull, Word::Append] {
        say.send(word).unwrap();
    }
    assert!(matches!(ingest(&ledger, "a").await, Err(NotRecorded::Full)));
    assert_eq!(ledger.history().graph().head(), 0);
    assert_eq!(ingest(&ledger, "a").await.unwrap().seqs, [Seq(1)]);
    assert_eq!(*ledger.stopped().borrow(), None);
    drop(ledger);
    thread.join().unwrap();
}

#[tokio::test]
async fn a_poisoned_store_stops_every_later_write_and_no_read() {
    let (ledger, thread, say) = obedient();
    for word in [Word::Append, Word::Break] {
        say.send(word).unwrap();
    }
    ingest(&ledger, "a").await.unwrap();
    assert!(matches!(ingest(&ledger, "b").await, Err(NotRecorded::Stopped { .. })));
    // The store is not asked again: it has no word to obey.
    assert!(matches!(ingest(&ledger, "c").await, Err(NotRecorded::Stopped { .. })));
    assert!(matches!(ledger.decide(|_| Ok(Vec::new())).await, Err(NotRecorded::Stopped { .. })));
    assert!(ledger.stopped().borrow().as_ref().is_some_and(|reason| reason.contains("a sync failed")));
    assert_eq!(ledger.events(&[1], usize::MAX).unwrap().len(), 1);
    drop(ledger);
    thread.join().unwrap();
}

#[tokio::test]
async fn who_finds_the_queue_full_is_told_to_come_back_and_everybody_else_is_answered() {
    let (ledger, thread, say) = obedient();
    // The store waits for a word, so one batch is under way at most, and the others fill the queue.
    let send = |n: usize| {
        let ledger = ledger.clone();
        tokio::spawn(async move { ingest(&ledger, &format!("e-{n}")).await })
    };
    let waiting: Vec<_> = (0..3 * QUEUE).map(send).collect();
    let mut refused = 0;
    while refused == 0 {
        refused = waiting.iter().filter(|job| job.is_finished()).count();
        tokio::task::yield_now().await;
    }
    for _ in 0..3 * QUEUE {
        say.send(Word::Append).unwrap();
    }
    let mut seqs = Vec::new();
    for job in waiting {
        match job.await.unwrap() {
            Ok(recorded) => seqs.extend(recorded.seqs),
            Err(error) => assert!(matches!(error, NotRecorded::Busy), "{error}"),
        }
    }
    seqs.sort();
    assert!(seqs.len() >= QUEUE && seqs.iter().zip(1..).all(|(seq, n)| seq.0 == n));
    drop(ledger);
    thread.join().unwrap();
}

type Outcome = Result<Recorded, NotRecorded>;

/// Gives the ledger something to write, proposes `bundles` meanwhile, and answers what became of them. The store
/// appends twice and no more, so all of them were one batch.
async fn together(bundles: &[&[Event]], word: Word) -> Vec<Outcome> {
    let (ledger, thread, say, asked) = asking();
    let propose = |events: &[Event]| {
        let events = events.iter().cloned().map(|event| Admitted::of(event).unwrap()).collect();
        let ledger = ledger.clone();
        tokio::spawn(async move { ledger.ingest(None, events, None).await })
    };
    let under_way = propose(&[paused("first")]);
    while asked.try_recv().is_err() {
        tokio::task::yield_now().await;
    }
    let waits = |count: usize| ledger.waiting() == count;
    let mut proposed = Vec::new();
    for (n, events) in bundles.iter().enumerate() {
        proposed.push(propose(events));
        while !waits(n + 1) {
            tokio::task::yield_now().await;
        }
    }
    say.send(Word::Append).unwrap();
    say.send(word).unwrap();
    drop(say);
    assert_eq!(under_way.await.unwrap().unwrap().seqs, [Seq(1)]);
    let mut outcomes = Vec::new();
    for outcome in proposed {
        outcomes.push(outcome.await.unwrap());
    }
    let recorded = outcomes.iter().flatten().flat_map(|recorded| recorded.seqs.iter().copied()).max();
    assert_eq!(ledger.history().graph().head(), recorded.map_or(1, |seq| seq.0));
    drop(ledger);
    thread.join().unwrap();
    outcomes
}

fn about(attempt: &str, id: &str) -> Event {
    let subject = Subject {
        target_id: Some(model::TargetId::parse("nowhere").unwrap()),
        task_id: Some(model::TaskId::parse("task-1").unwrap()),
        attempt_id: Some(AttemptId::parse(attempt).unwrap()),
    };
    Event { subject, kind: EventKind::AttemptLost(Reason { reason: "test".to_owned() }), ..paused(id) }
}

#[tokio::test]
async fn what_waits_is_written_together_and_everybody_is_answered() {
    let bundles: Vec<Vec<Event>> =
        (0..100).map(|n| vec![paused(&format!("a-{n}")), paused(&format!("b-{n}"))]).collect();
    let bundles: Vec<&[Event]> = bundles.iter().map(Vec::as_slice).collect();
    let outcomes = together(&bundles, Word::Append).await;
    for (outcome, first) in outcomes.into_iter().zip((2..).step_by(2)) {
        let recorded = outcome.unwrap();
        assert_eq!(recorded.seqs, [Seq(first), Seq(first + 1)]);
        assert_eq!((recorded.fresh, recorded.head), (2, 201));
    }
}

#[tokio::test]
async fn a_batch_knows_what_it_holds_already() {
    let other = Event { timestamp: Timestamp::new(jiff::Timestamp::from_second(1).unwrap()), ..paused("x") };
    let outcomes = together(
        &[
            &[paused("x")],
            // Sent again while the first answer is on its way.
            &[paused("x"), paused("y"), paused("y")],
            &[other],
            &[paused("z"), about("attempt-1", "w")],
            &[paused("z")],
        ],
        Word::Append,
    )
    .await;
    let seqs: Vec<Option<&[Seq]>> = outcomes
        .iter()
        .map(|outcome| outcome.as_ref().ok().map(|recorded| recorded.seqs.as_slice()))
        .collect();
    assert_eq!(seqs[0], Some(&[Seq(2)][..]));
    assert_eq!(seqs[1], Some(&[Seq(2), Seq(3), Seq(3)][..]));
    assert!(matches!(outcomes[2], Err(NotRecorded::Conflict { seq: Seq(2), .. })), "{:?}", outcomes[2]);
    // Nothing of a bundle with a refused event is kept, not even in memory.
    assert!(matches!(outcomes[3], Err(NotRecorded::Illegal { index: 1, .. })), "{:?}", outcomes[3]);
    assert_eq!(seqs[4], Some(&[Seq(4)][..]));
}

#[tokio::test]
async fn a_batch_that_was_not_written_is_answered_so_whatever_was_thought_of_its_parts() {
    for outcome in together(&[&[paused("x")], &[paused("x")], &[about("attempt-1", "w")]], Word::BeFull).await
    {
        assert!(matches!(outcome, Err(NotRecorded::Full)), "{outcome:?}");
    }
}

#[tokio::test]
async fn a_decision_sees_everything_that_was_proposed_before_it() {
    let (ledger, thread, say) = obedient();
    for _ in 0..3 {
        say.send(Word::Append).unwrap();
    }
    let decide = |id: &'static str| {
        ledger.decide(move |graph| Ok(if graph.pause().is_some() { Vec::new() } else { vec![paused(id)] }))
    };
    let outcomes = tokio::join!(decide("a"), decide("b"), ingest(&ledger, "c"), decide("d"));
    let fresh = [outcomes.0, outcomes.1, outcomes.2, outcomes.3].map(|outcome| outcome.unwrap().fresh);
    assert_eq!(fresh, [1, 0, 1, 0]);
    drop(ledger);
    thread.join().unwrap();
}

#[tokio::test]
async fn events_that_wait_have_room_for_so_many_bytes_together() {
    let (ledger, thread, say) = obedient();
    let room = Arc::clone(&ledger.room).try_acquire_many_owned(u32::try_from(QUEUE_BYTES).unwrap()).unwrap();
    assert!(matches!(ingest(&ledger, "a").await, Err(NotRecorded::Busy)));
    drop(room);
    say.send(Word::Append).unwrap();
    ingest(&ledger, "a").await.unwrap();
    assert_eq!(ledger.room.available_permits(), QUEUE_BYTES);
    drop(ledger);
    thread.join().unwrap();
}

#[tokio::test]
async fn a_bug_on_the_ledgers_thread_is_noticed() {
    let (ledger, thread, _say) = obedient();
    let outcome = ledger.decide(|_| panic!("a bug, for the test")).await;
    assert!(matches!(outcome, Err(NotRecorded::Stopped { .. })));
    assert!(matches!(ingest(&ledger, "a").await, Err(NotRecorded::Stopped { .. })));
    assert!(thread.join().is_err());
    assert!(ledger.stopped().borrow().is_some());
}

#[tokio::test]
async fn a_log_that_holds_something_else_is_not_replayed() {
    let store = MemoryStore::new("test/ledger");
    let body = CanonicalBody::admit(br#"{"event_id":"e","event_type":"from.the.future"}"#).unwrap();
    let bundle = Unchained::new(BundleId::parse("b").unwrap(), vec![body]).unwrap();
    store.turn().unwrap().append(vec![bundle]).unwrap();
    let error = Ledger::start(Box::new(store), History::default()).map(drop).unwrap_err().to_string();
    assert!(error.contains("record 1 of the journal is no event that this version knows"), "{error}");
}
