//! What `leviathan bench` measures inside this crate: the ledger without HTTP, and the start on a long log.
//!
//! Nothing here judges; each number comes with the limit that was measured beside it.

mod lives;
mod postgres;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use api::types::EventsQuery;
use journal::{Bundle, BundleId, CanonicalBody, Head, Line, Lines, Tail, Unchained};
use model::{AttemptId, Event};
use rustix::time::{ClockId, clock_gettime};
use sha2::{Digest, Sha256};

use crate::admission::Admitted;
use crate::history;
use crate::ledger::Ledger;
use crate::snapshots::Snapshots;
use crate::start::{self, Started};
use crate::store::{EventStore, NdjsonStore, segments_in};
use crate::verification::{Verdict, Verified, verify as verify_all};

pub use self::lives::{life, pause, target};
pub use self::postgres::{Postgres, postgres};

/// How many events an in-process load records, and how fast a disk could take them.
#[derive(Debug, Clone)]
pub struct Ingest {
    /// Events that were recorded.
    pub events: u64,
    /// How many of them shared one write, on average.
    pub mean_batch: f64,
    /// Events a second, each answered once it was durable.
    pub per_second: f64,
    /// Events a second of plain writes and syncs of as many bytes at once.
    pub raw_per_second: f64,
}

/// How long one event takes while nothing else happens, in seconds, each round.
#[derive(Debug, Clone, Default)]
pub struct Idle {
    /// From proposal to answer.
    pub answers: Vec<f64>,
    /// A plain write and sync of the same lines.
    pub raw: Vec<f64>,
}

/// What a start on a long log costs.
#[derive(Debug, Clone)]
pub struct Replay {
    /// How many events the log has.
    pub events: u64,
    /// How many bytes its files have.
    pub bytes: u64,
    /// Seconds from nothing to a ledger that answers.
    pub cold: f64,
    /// What of it were seconds of processors.
    pub cold_cpu: f64,
    /// Processor seconds to read the bodies as events and to hash them, and nothing else.
    pub parse_and_hash: f64,
    /// Seconds from nothing to a ledger that answers, with a snapshot of all of it.
    pub resumed: f64,
    /// What of it were seconds of processors.
    pub resumed_cpu: f64,
    /// Seconds to verify, after that, what was not read, and to compare what follows from it.
    pub verified_behind: f64,
    /// Seconds for which nobody could record while the snapshot was taken.
    pub snapshot_held: f64,
    /// Seconds to write the snapshot after that.
    pub snapshot_written: f64,
    /// How many bytes it has.
    pub snapshot_bytes: u64,
    /// Seconds to verify the files alone.
    pub verify: f64,
    /// Seconds to verify them with two threads.
    pub verify_by_two: f64,
    /// Seconds to hash the same bytes and nothing else.
    pub hash: f64,
    /// What it is asked, and the same of a log of [`SHORT`] events, in turns.
    pub asked: Asked,
    /// See above.
    pub asked_short: Asked,
}

/// How long a control plane takes for single things, in seconds, each round.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// One durable event.
    pub appends: Vec<f64>,
    /// The summary's numbers.
    pub summaries: Vec<f64>,
    /// Finding the events of one attempt.
    pub finds: Vec<f64>,
}

/// How many events the log has with which a long one is compared.
pub const SHORT: u64 = 1_000;

/// Records `events` events through a ledger on files in `folder`, `in_flight` at once.
///
/// # Errors
///
/// When the folder cannot be written.
pub async fn ingest(folder: &Path, events: u64, in_flight: u64) -> anyhow::Result<Ingest> {
    let (ledger, thread) = start(&folder.join("ingest"))?;
    ledger.ingest(None, vec![Admitted::of(lives::target())?], None).await?;
    let (share, step) = (usize::try_from(events.div_ceil(in_flight))?, usize::try_from(in_flight)?);
    // Making the events is not recording them.
    let loads: Vec<Vec<Event>> = (0..in_flight)
        .map(|sender| (sender..).step_by(step).flat_map(lives::life).take(share).collect())
        .collect();
    let began = Instant::now();
    let send = |load: Vec<Event>| {
        let ledger = ledger.clone();
        tokio::spawn(async move {
            for event in load {
                ledger.ingest(None, vec![Admitted::of(event)?], None).await?;
            }
            anyhow::Ok(())
        })
    };
    let senders: Vec<_> = loads.into_iter().map(send).collect();
    for sender in senders {
        sender.await??;
    }
    let took = began.elapsed().as_secs_f64();
    let events = share as u64 * in_flight;
    let mean_batch = ledger.measures().mean_batch();
    drop(ledger);
    end(thread)?;
    let line = bytes_of(&folder.join("ingest"))? as f64 / events as f64;
    let raw = raw_writes(&folder.join("raw"), (line * mean_batch) as usize, Duration::from_secs(2))?;
    Ok(Ingest {
        events,
        mean_batch,
        per_second: events as f64 / took,
        raw_per_second: mean_batch / mean(&raw),
    })
}

/// Records single events one after the other, `rounds` times, in turns with plain writes of as many bytes.
///
/// # Errors
///
/// When the folder cannot be written.
pub async fn idle(folder: &Path, rounds: usize) -> anyhow::Result<Idle> {
    let (ledger, thread) = start(&folder.join("idle"))?;
    let mut file = File::create(folder.join("idle.raw"))?;
    let mut idle = Idle::default();
    for n in 0..rounds {
        let admitted = Admitted::of(lives::pause(n as u64))?;
        let lines = lines_of(&admitted)?;
        let began = Instant::now();
        ledger.ingest(None, vec![admitted], None).await?;
        idle.answers.push(began.elapsed().as_secs_f64());
        let began = Instant::now();
        file.write_all(&lines)?;
        file.sync_data()?;
        idle.raw.push(began.elapsed().as_secs_f64());
    }
    drop(ledger);
    end(thread)?;
    Ok(idle)
}

/// Makes a log of `events` events in `folder`, starts on it as a control plane does, and asks it a few things.
///
/// # Errors
///
/// When the folder cannot be written.
pub async fn replay(folder: &Path, events: u64) -> anyhow::Result<Replay> {
    let journal = folder.join("replay");
    let attempt = make(&journal, events)?;
    warm(&journal)?;
    let bytes = bytes_of(&journal)?;
    let (verify, hash) = verified(&journal)?;
    let verify_by_two = verified_by(2, &journal)?;
    let parse_and_hash = parsed_and_hashed(&journal)?;

    let (began, cpu) = (Instant::now(), processor_seconds());
    let (ledger, thread) = start(&journal)?;
    let (cold, cold_cpu) = (began.elapsed().as_secs_f64(), processor_seconds() - cpu);
    ensure!(ledger.history().graph().head() == events, "the log was not read whole");
    let (snapshot_held, snapshot_written, snapshot_bytes) = snapshot(&ledger, &journal)?;
    drop(ledger);
    end(thread)?;

    let (began, cpu) = (Instant::now(), processor_seconds());
    let Started { store, history, claim } = start::start(&journal, ORIGIN)?;
    let unread = store.unread().zip(claim);
    let (ledger, thread) = Ledger::start(Box::new(store), history)?;
    let (resumed, resumed_cpu) = (began.elapsed().as_secs_f64(), processor_seconds() - cpu);
    ensure!(ledger.history().graph().head() == events, "the snapshot is not of all");
    let (unread, claim) = unread.context("the snapshot was not used")?;
    let began = Instant::now();
    let verdict = verify_all(&unread, &claim, &Verified::default(), &AtomicBool::new(false))?;
    let verified_behind = began.elapsed().as_secs_f64();
    ensure!(verdict == Verdict::Holds, "nobody stopped the verification");

    let short = folder.join("replay-short");
    let attempt_of_short = make(&short, SHORT)?;
    let (short_ledger, short_thread) = start(&short)?;
    let (mut asked, mut asked_short) = (Asked::default(), Asked::default());
    for n in 0..ROUNDS {
        asked_short.ask(&short_ledger, n, &attempt_of_short).await?;
        asked.ask(&ledger, n, &attempt).await?;
    }
    drop(short_ledger);
    end(short_thread)?;
    std::fs::remove_dir_all(&short)?;
    drop(ledger);
    end(thread)?;
    std::fs::remove_dir_all(&journal)?;
    Ok(Replay {
        events,
        bytes,
        cold,
        cold_cpu,
        parse_and_hash,
        resumed,
        resumed_cpu,
        verified_behind,
        snapshot_held,
        snapshot_written,
        snapshot_bytes,
        verify,
        verify_by_two,
        hash,
        asked,
        asked_short,
    })
}

/// How often each log is asked.
const ROUNDS: u64 = 300;

impl Asked {
    async fn ask(&mut self, ledger: &Ledger, n: u64, attempt: &AttemptId) -> anyhow::Result<()> {
        let admitted = Admitted::of(lives::pause(n))?;
        let began = Instant::now();
        ledger.ingest(None, vec![admitted], None).await?;
        self.appends.push(began.elapsed().as_secs_f64());
        let query = EventsQuery { attempt: Some(attempt.clone()), ..EventsQuery::default() };
        self.summaries.push(repeated(|| ledger.history().graph().counts().clone().attempts));
        self.finds.push(repeated(|| ledger.history().find(&query, 1_000).len()));
        Ok(())
    }
}

/// Waits until the files are on the disk, and reads them once, so that neither is measured with what comes after.
fn warm(journal: &Path) -> anyhow::Result<()> {
    for path in segments_in(journal)? {
        File::open(&path)?.sync_all()?;
        std::hint::black_box(std::fs::read(&path)?);
    }
    Ok(())
}

fn start(journal: &Path) -> anyhow::Result<(Ledger, std::thread::JoinHandle<()>)> {
    let Started { store, history, .. } = start::start(journal, ORIGIN)?;
    Ledger::start(Box::new(store), history)
}

const ORIGIN: &str = "leviathan/bench";

fn end(thread: std::thread::JoinHandle<()>) -> anyhow::Result<()> {
    thread.join().ok().context("the ledger met a bug")
}

/// Writes a log of whole lives, without judging them, and names an attempt in its middle.
fn make(journal: &Path, events: u64) -> anyhow::Result<AttemptId> {
    let store = NdjsonStore::open(journal, ORIGIN)?;
    let mut waiting = vec![lives::target()];
    let (mut made, mut middle) = (0, None);
    for n in 0.. {
        waiting.extend(lives::life(n));
        let rest = usize::try_from(events - made)?;
        if waiting.len() >= 500 || waiting.len() >= rest {
            waiting.truncate(rest);
            made += waiting.len() as u64;
            append(&store, std::mem::take(&mut waiting))?;
        }
        if middle.is_none() && made >= events / 2 {
            middle = Some(lives::attempt(n));
        }
        if made == events {
            break;
        }
    }
    middle.context("a log has a middle")
}

fn append(store: &NdjsonStore, events: Vec<Event>) -> anyhow::Result<()> {
    let id = BundleId::parse(events[0].event_id.as_str())?;
    let bodies = events.into_iter().map(|event| Ok(Admitted::of(event)?.body));
    let bodies = bodies.collect::<anyhow::Result<Vec<CanonicalBody>>>()?;
    store.turn()?.append(vec![Unchained::new(id, bodies)?])?;
    Ok(())
}

/// What the journal writes for one event alone.
fn lines_of(admitted: &Admitted) -> anyhow::Result<Vec<u8>> {
    let id = BundleId::parse(admitted.event.event_id.as_str())?;
    let mut lines = Lines::default();
    let unchained = Unchained::new(id, vec![admitted.body.clone()])?;
    Bundle::after(Head::genesis(ORIGIN), unchained).encode(&mut lines);
    Ok(lines.bytes)
}

fn bytes_of(journal: &Path) -> anyhow::Result<u64> {
    segments_in(journal)?.iter().map(|path| Ok(path.metadata()?.len())).sum()
}

/// Seconds to verify the files, and to hash their bytes and nothing else.
fn verified(journal: &Path) -> anyhow::Result<(f64, f64)> {
    let paths = segments_in(journal)?;
    let began = Instant::now();
    let mut head = Head::genesis(ORIGIN);
    for path in &paths {
        head = journal::scan(File::open(path)?, head, |_, _| std::io::Result::Ok(()))?.head;
    }
    let verify = began.elapsed().as_secs_f64();
    let mut hash = 0.0;
    for path in &paths {
        let bytes = std::fs::read(path)?;
        let began = Instant::now();
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            std::hint::black_box(Sha256::digest(line));
        }
        hash += began.elapsed().as_secs_f64();
    }
    Ok((verify, hash))
}

/// Keeps a snapshot of all, as the thread of snapshots does: seconds for which nobody could record, seconds after
/// that, and bytes.
fn snapshot(ledger: &Ledger, journal: &Path) -> anyhow::Result<(f64, f64, u64)> {
    let began = Instant::now();
    let history = ledger.history().clone();
    let held = began.elapsed().as_secs_f64();
    ledger.keep_places(history.graph().head())?;
    Snapshots::of(journal).write(ORIGIN, &history)?;
    let written = began.elapsed().as_secs_f64() - held;
    let files = std::fs::read_dir(journal.join("snapshots"))?;
    let bytes = files.map(|file| Ok(file?.metadata()?.len())).sum::<anyhow::Result<u64>>()?;
    Ok((held, written, bytes))
}

/// Seconds to verify the files with so many threads: each segment by itself, from the head that its first record
/// names, and then that each begins where the one before it ends.
fn verified_by(threads: usize, journal: &Path) -> anyhow::Result<f64> {
    let paths = segments_in(journal)?;
    let (next, ends) = (AtomicUsize::new(0), Mutex::new(vec![None; paths.len()]));
    let work = || -> anyhow::Result<()> {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = paths.get(n) else { return Ok(()) };
            let before = head_before(path)?;
            let scan = journal::scan(File::open(path)?, before, |_, _| std::io::Result::Ok(()))?;
            ensure!(scan.tail == Tail::Clean, "{} is damaged", path.display());
            ends.lock().unwrap_or_else(PoisonError::into_inner)[n] = Some((before, scan.head));
        }
    };
    let began = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, anyhow::Result<()>>| {
            worker.join().map_err(|_| anyhow::anyhow!("verifying met a bug"))?
        };
        workers.into_iter().try_for_each(join)
    })?;
    let mut head = Head::genesis(ORIGIN);
    for (before, after) in ends.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten() {
        ensure!(before == head, "a segment does not follow the one before it");
        head = after;
    }
    Ok(began.elapsed().as_secs_f64())
}

/// What the first record of a segment says it follows.
fn head_before(segment: &Path) -> anyhow::Result<Head> {
    let mut line = Vec::new();
    BufReader::new(File::open(segment)?).read_until(b'\n', &mut line)?;
    match Line::decode(line.strip_suffix(b"\n").unwrap_or(&line))? {
        Line::Record(record) => Ok(Head { seq: record.seq() - 1, hash: record.prev_hash() }),
        Line::Commit(_) => anyhow::bail!("{} begins with the end of a bundle", segment.display()),
    }
}

/// Processor seconds to read every body as an event and to hash it.
fn parsed_and_hashed(journal: &Path) -> anyhow::Result<f64> {
    let mut seconds = 0.0;
    for path in segments_in(journal)? {
        let bytes = std::fs::read(path)?;
        let lines = bytes.split(|byte| *byte == b'\n');
        let records: Vec<_> = lines
            .filter_map(|line| match Line::decode(line) {
                Ok(Line::Record(record)) => Some(record),
                Ok(Line::Commit(_)) | Err(_) => None,
            })
            .collect();
        let cpu = processor_seconds();
        for record in &records {
            std::hint::black_box(history::event_of(record)?);
            std::hint::black_box(Sha256::digest(record.body().as_bytes()));
        }
        seconds += processor_seconds() - cpu;
    }
    Ok(seconds)
}

/// Seconds of each write and sync of `bytes` bytes, for as long as `time`.
fn raw_writes(path: &Path, bytes: usize, time: Duration) -> anyhow::Result<Vec<f64>> {
    let (mut file, chunk) = (File::create(path)?, vec![b'x'; bytes]);
    let (mut seconds, began) = (Vec::new(), Instant::now());
    while began.elapsed() < time {
        let one = Instant::now();
        file.write_all(&chunk)?;
        file.sync_data()?;
        seconds.push(one.elapsed().as_secs_f64());
    }
    Ok(seconds)
}

/// What a question takes, on average of a hundred.
fn repeated<T>(mut question: impl FnMut() -> T) -> f64 {
    let began = Instant::now();
    for _ in 0..100 {
        std::hint::black_box(question());
    }
    began.elapsed().as_secs_f64() / 100.0
}

fn processor_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
