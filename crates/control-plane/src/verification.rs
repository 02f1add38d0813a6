//! Reads, after a start from a snapshot, what the start did not read: every record before it is verified, and the
//! history that follows from them must be the one that the snapshot said.
//!
//! Until then answers rest on the snapshot; `GET /readyz` says how far this has come. What is found to be wrong
//! stops all writes and ends the process.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::Context;

use crate::history::{History, fold_while};
use crate::ledger::Ledger;
use crate::snapshots::Claim;
use crate::store::Unread;

/// How far the log is verified.
#[derive(Debug, Default)]
pub(crate) struct Verified {
    to: AtomicU64,
    is_done: AtomicBool,
}

impl Verified {
    /// Everything was verified when the log was opened.
    pub(crate) fn everything() -> Self {
        Self { to: AtomicU64::new(0), is_done: AtomicBool::new(true) }
    }

    /// The last record up to which all are verified, in a log that ends with `head`. What was recorded since the
    /// start is of our own making.
    pub(crate) fn to(&self, head: u64) -> u64 {
        if self.is_done() { head } else { self.to.load(Ordering::Relaxed) }
    }

    /// Whether nothing is left to verify.
    pub(crate) fn is_done(&self) -> bool {
        self.is_done.load(Ordering::Relaxed)
    }
}

/// The thread that verifies.
pub(crate) struct Verifier {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
}

/// How verifying ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The log is whole, and the snapshot says what it says.
    Holds,
    /// It was told to stop before it knew.
    Stopped,
}

impl Verifier {
    /// Begins to verify `unread` and the claim about it.
    pub(crate) fn start(
        ledger: Ledger,
        unread: Unread,
        claim: Claim,
        verified: Arc<Verified>,
    ) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let work = move || match verify(&unread, &claim, &verified, &stopping) {
            Ok(Verdict::Holds) => {
                tracing::info!(journal.verified = unread.head().seq, "The whole journal is verified.");
            }
            Ok(Verdict::Stopped) => {}
            Err(problem) => ledger.stop(format!("{problem:#}")),
        };
        let thread = std::thread::Builder::new().name("verification".to_owned());
        let thread = thread.spawn(work).context("cannot start the thread that verifies the journal")?;
        Ok(Self { thread, stop })
    }

    /// Ends, whether it knows or not: the next start verifies again.
    pub(crate) fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
    }
}

/// Reads and verifies what was not read, and compares what follows from it with the claim.
pub(crate) fn verify(
    unread: &Unread,
    claim: &Claim,
    verified: &Verified,
    stop: &AtomicBool,
) -> anyhow::Result<Verdict> {
    let (read, history) = fold_while(History::default(), |take| {
        unread.verify(&mut |records| {
            if let Some(last) = records.last() {
                // The last record counts as verified only when what all of them come to is compared as well.
                verified.to.store(last.seq() - 1, Ordering::Relaxed);
            }
            take(records);
            if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    })?;
    if read?.is_break() {
        return Ok(Verdict::Stopped);
    }
    if !claim.is_of(&history?)? {
        claim.discard().with_context(|| format!("cannot remove {}", claim.file.display()))?;
        anyhow::bail!(
            "the snapshot {} does not say what the journal says. It was removed, and the journal is whole: start the control plane again, and it reads all of the journal",
            claim.file.display()
        );
    }
    verified.is_done.store(true, Ordering::Relaxed);
    Ok(Verdict::Holds)
}
