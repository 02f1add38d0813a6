//! What the ledger tells its callers when its store, its queue or its own thread gives out.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use journal::{Bundle, CanonicalBody};
use model::ActorId;
use model::event::{EventKind, Reason, Subject, Timestamp};

use super::*;
use crate::store::MemoryStore;

/// A store that does as it is told at each append: one word per call.
struct Obedient {
    inner: MemoryStore,
    words: Mutex<Receiver<Word>>,
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

    fn append(
        &self,
        expected: Head,
        id: BundleId,
        bodies: Vec<CanonicalBody>,
    ) -> Result<Bundle, AppendError> {
        match self.words.lock().unwrap().recv().unwrap() {
            Word::Append => self.inner.append(expected, id, bodies),
            Word::BeFull => Err(AppendError::Full),
            Word::Break => Err(AppendError::Poisoned { reason: "a sync failed".to_owned() }),
        }
    }

    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        self.inner.read(from, limit)
    }
}

fn obedient() -> (Ledger, JoinHandle<()>, Sender<Word>) {
    let (say, words) = channel();
    let store = Obedient { inner: MemoryStore::new("test/ledger"), words: words.into() };
    let (ledger, thread) = Ledger::start(Box::new(store)).unwrap();
    (ledger, thread, say)
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
    // The store waits for a word, so one job is under way at most, and the others fill the queue.
    let send = |n: usize| {
        let ledger = ledger.clone();
        tokio::spawn(async move { ingest(&ledger, &format!("e-{n}")).await })
    };
    let waiting: Vec<_> = (0..QUEUE + 2).map(send).collect();
    let mut refused = 0;
    while refused == 0 {
        refused = waiting.iter().filter(|job| job.is_finished()).count();
        tokio::task::yield_now().await;
    }
    for _ in 0..QUEUE + 2 {
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
    store.append(store.head(), BundleId::parse("b").unwrap(), vec![body]).unwrap();
    let error = Ledger::start(Box::new(store)).map(drop).unwrap_err().to_string();
    assert!(error.contains("record 1 of the journal is no event that this version knows"), "{error}");
}
