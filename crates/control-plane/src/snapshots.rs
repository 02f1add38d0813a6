//! What the log came to at some record, kept so that a start need not read everything before it.
//!
//! ```text
//! journal/snapshots/<seq>.snapshot      at most two; written by a thread of its own, and once more at the end
//! ```
//!
//! A snapshot is a cache. It is used only where the log has the very record that it ends with, and then everything
//! before that record is verified while the control plane works already: see [`crate::verification`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use journal::{ChainHash, Head};
use serde::{Deserialize, Serialize};

use crate::cache::{Cached, Fingerprint, Format, Unusable};
use crate::history::History;
use crate::ledger::Ledger;
use crate::store::Opening;
use crate::verification::Verified;

const FORMAT: Format = Format("leviathan-snapshot-v2");

/// A log of fewer records is read whole in no time.
const LEAST: u64 = 10_000;

/// After how many records there is a new snapshot, unless a segment was sealed before.
const EVERY: u64 = 100_000;

/// How many are kept: the second is for when the first is of no use.
const KEPT: usize = 2;

/// How often to look whether a snapshot is due.
const INTERVAL: Duration = Duration::from_secs(1);

/// The snapshots of one log.
pub(crate) struct Snapshots {
    folder: PathBuf,
}

/// A snapshot that fits the log, and what follows from it.
pub(crate) struct Resumed {
    pub(crate) history: History,
    pub(crate) claim: Claim,
}

/// What a snapshot says the log comes to, until somebody looked.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) file: PathBuf,
    fingerprint: Fingerprint,
    place: Place,
}

/// Which log, and which record of it a snapshot ends with.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Place {
    origin: String,
    seq: u64,
    hash: [u8; 32],
}

impl Snapshots {
    /// Those of the journal in this folder.
    pub(crate) fn of(journal: &Path) -> Self {
        Self { folder: journal.join("snapshots") }
    }

    /// The newest snapshot that is of use. Those that are none are named in the log of the process.
    pub(crate) fn resume(&self, opening: &mut Opening) -> Option<Resumed> {
        self.newest_first().into_iter().find_map(|file| match read(&file, opening) {
            Ok(resumed) => Some(resumed),
            Err(problem) => {
                opening.start_over();
                tracing::warn!(file = %file.display(), error = %problem, "A snapshot of the journal is not used. Nothing is lost: more of the journal is read instead.");
                None
            }
        })
    }

    /// Makes the snapshot of a history durable, and removes those that are older than the one before it.
    pub(crate) fn write(&self, origin: &str, history: &History) -> anyhow::Result<()> {
        let Some(Head { seq, hash }) = history.head() else { return Ok(()) };
        let place = Place { origin: origin.to_owned(), seq, hash: *hash.as_bytes() };
        let pieces = pieces_of(&place, history)?;
        let file = self.folder.join(format!("{seq:020}.snapshot"));
        FORMAT
            .write(&file, &borrowed(&pieces))
            .with_context(|| format!("cannot write {}", file.display()))?;
        for old in self.newest_first().into_iter().skip(KEPT) {
            fs::remove_file(&old).with_context(|| format!("cannot remove {}", old.display()))?;
        }
        Ok(())
    }

    fn newest_first(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        let mut found: Vec<_> =
            paths.filter(|path| path.extension().is_some_and(|extension| extension == "snapshot")).collect();
        found.sort();
        found.reverse();
        found
    }
}

fn read(file: &Path, opening: &mut Opening) -> Result<Resumed, Unusable> {
    let cached = FORMAT.read(file)?;
    let place: Place =
        rmp_serde::from_slice(cached.piece(0)?).map_err(|problem| Unusable::Content(problem.to_string()))?;
    if place.origin != opening.origin() {
        return Err(Unusable::Foreign("it has another name"));
    }
    let head = Head { seq: place.seq, hash: ChainHash::from_bytes(place.hash) };
    opening.resume(head)?;
    let history = history_of(&cached)?;
    if history.head() != Some(head) {
        return Err(Unusable::Content("it does not end with the record that it names".to_owned()));
    }
    Ok(Resumed { history, claim: Claim { file: file.to_owned(), fingerprint: cached.fingerprint(), place } })
}

fn history_of(cached: &Cached) -> Result<History, Unusable> {
    History::from_pieces(cached, 1)
}

fn pieces_of(place: &Place, history: &History) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut pieces = vec![rmp_serde::to_vec_named(place)?];
    pieces.extend(history.to_pieces()?);
    Ok(pieces)
}

fn borrowed(pieces: &[Vec<u8>]) -> Vec<&[u8]> {
    pieces.iter().map(Vec::as_slice).collect()
}

impl Claim {
    /// Whether a snapshot of this history is, byte for byte, the one that was used.
    pub(crate) fn is_of(&self, history: &History) -> anyhow::Result<bool> {
        let pieces = pieces_of(&self.place, history)?;
        Ok(FORMAT.fingerprint(&borrowed(&pieces)) == self.fingerprint)
    }

    /// Takes the snapshot away, so that no later start uses it.
    pub(crate) fn discard(&self) -> io::Result<()> {
        fs::remove_file(&self.file)
    }
}

/// The thread that writes snapshots. It writes a last one when it is told to end.
pub(crate) struct Snapshotter {
    thread: JoinHandle<()>,
    stop: mpsc::Sender<()>,
}

impl Snapshotter {
    /// Begins to look what there is after the record `seq`, of which there is a snapshot. What was not verified yet is
    /// not built upon.
    pub(crate) fn start(
        ledger: Ledger,
        snapshots: Snapshots,
        seq: u64,
        verified: Arc<Verified>,
    ) -> anyhow::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let mut writer = Writing { sealed: ledger.sealed(), seq, ledger, snapshots, verified };
        let thread = std::thread::Builder::new().name("snapshots".to_owned());
        let thread =
            thread.spawn(move || writer.run(&stopped)).context("cannot start the thread of snapshots")?;
        Ok(Self { thread, stop })
    }

    /// Writes what there is now, and ends.
    pub(crate) fn end(self) {
        drop(self.stop);
        // A panic has its text in the log; a snapshot that is missing costs time and nothing else.
        let _ = self.thread.join();
    }
}

struct Writing {
    ledger: Ledger,
    snapshots: Snapshots,
    verified: Arc<Verified>,
    /// The record of the newest snapshot; 0 while there is none.
    seq: u64,
    /// How many segments were sealed then.
    sealed: usize,
}

impl Writing {
    fn run(&mut self, stopped: &mpsc::Receiver<()>) {
        loop {
            let is_last = match stopped.recv_timeout(INTERVAL) {
                Err(RecvTimeoutError::Timeout) => false,
                Ok(()) | Err(RecvTimeoutError::Disconnected) => true,
            };
            if self.is_due(is_last)
                && let Err(error) = self.write()
            {
                tracing::warn!(%error, "A snapshot of the journal could not be written: the next start reads more of the journal.");
            }
            if is_last {
                return;
            }
        }
    }

    fn is_due(&self, is_last: bool) -> bool {
        let head = self.ledger.history().graph().head();
        let is_wanted = is_last || head - self.seq >= EVERY || self.ledger.sealed() > self.sealed;
        head >= LEAST && head > self.seq && is_wanted && self.verified.is_done()
    }

    fn write(&mut self) -> anyhow::Result<()> {
        // Whatever comes of it, it is not tried again at once.
        self.sealed = self.ledger.sealed();
        let history = self.ledger.history().clone();
        self.seq = history.graph().head();
        self.ledger.keep_places(self.seq).context("cannot write the index of the journal")?;
        self.snapshots.write(self.ledger.origin(), &history)
    }
}
