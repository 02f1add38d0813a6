//! Where the log is kept. The seam between the ledger, which decides what is recorded, and a medium that keeps it.
//!
//! A store knows order, durability and hashes. It does not know what an event means: bodies are opaque to it.

mod memory;
mod ndjson;
pub(crate) mod postgres;

#[cfg(test)]
mod conformance;

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use journal::{Bundle, Damage, Head, Record, Unchained};

pub(crate) use memory::MemoryStore;
pub(crate) use ndjson::{NdjsonStore, Opening, Unread, segments_in};
pub(crate) use postgres::PostgresStore;

/// An append-only log that is extended by one writer at a time and read by any number.
///
/// # Contract
///
/// - **Order.** Records count from 1 without gaps; `head` is the last one known here, and never moves back.
/// - **One at a time.** Only a [`Turn`] appends, and there is one at a time, over all processes that share the
///   log: what its holder reads up to the turn's head stays all there is until the turn ends.
/// - **Durable before it returns.** When `append` answers `Ok`, its bundles survive the death of the process and
///   of the machine, and every later `read` sees them.
/// - **All or nothing.** After a crash at any moment a bundle exists whole or not at all, and none exists without
///   those before it. [`AppendError::Full`] means that no bundle of the call exists; the other errors leave open
///   which do, and whoever wants to know reads.
/// - **Poison.** Once a local write could not be made durable, no later turn is given until the store is opened
///   anew. Reads go on. What a disk did with data it failed to keep is unknowable, so nothing is retried.
/// - **No silent damage.** `read` verifies what it returns; what is not what was written is an error.
pub(crate) trait EventStore: Send + Sync {
    /// The end of the log, as far as this process has seen it.
    fn head(&self) -> Head;

    /// The name of the log, from which its first hash is made.
    fn origin(&self) -> &str;

    /// How often to look for what other processes recorded; `None` where there are none.
    fn follows(&self) -> Option<Duration> {
        None
    }

    /// Makes durable what was found when the log was opened, and sets aside what an interrupted write left after
    /// it. Until then nothing that was found is changed, so that a start can still be refused. The first turn
    /// settles what nobody settled before it.
    fn settle(&self) -> Result<(), AppendError> {
        Ok(())
    }

    /// How many parts of the log are never written again.
    fn sealed(&self) -> usize {
        0
    }

    /// Keeps where the records up to `to` are, for a later start. Loses nothing when it fails.
    fn keep_places(&self, _to: u64) -> io::Result<()> {
        Ok(())
    }

    /// Waits until nobody else appends, and gives the right to.
    fn turn(&self) -> Result<Box<dyn Turn + '_>, AppendError>;

    /// The records from `from` on, in order, at most `limit`. May be fewer than there are, but is empty only
    /// when there are none.
    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, ReadError>;

    /// Hands every bundle, verified and in order, to `each`, with the end of the log that it makes.
    fn bundles(&self, each: &mut dyn FnMut(Unchained, Head) -> ControlFlow<()>) -> Result<(), ReadError>;
}

/// The right to append, until it is used or dropped.
pub(crate) trait Turn {
    /// The end of the log, by whomever.
    fn head(&self) -> Head;

    /// Chains `bundles` after the head, in their order, and makes them durable together.
    fn append(self: Box<Self>, bundles: Vec<Unchained>) -> Result<Vec<Bundle>, AppendError>;
}

/// Why nothing more was recorded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    /// There is no space. Nothing was recorded; the next append may succeed once there is space again.
    #[error("the disk that holds the journal is full: free some space, then try again")]
    Full,
    /// The medium cannot be reached, or its answer was lost: whether the bundles exist is not known. A later turn
    /// sees which.
    #[error("the journal cannot be reached ({reason}): try again")]
    Unavailable {
        /// What failed.
        reason: String,
    },
    /// A write or sync failed, now or earlier. Nothing more is recorded until the store is opened anew.
    #[error("the journal can no longer be written ({reason}): restart the control plane once that is mended")]
    Poisoned {
        /// What failed first.
        reason: String,
    },
}

/// Why records could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// What is there is not what was written.
    #[error("the journal is damaged in {}, {damage}: stop the control plane and restore the file", .segment.display())]
    Damaged {
        /// The file.
        segment: PathBuf,
        /// Where, and what.
        damage: Damage,
    },
    /// A record in a database is not what was written.
    #[error(
        "record {seq} of the journal in the database was altered: {problem}. Stop the control planes and restore the database"
    )]
    Altered {
        /// Its number.
        seq: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// The medium cannot be reached now.
    #[error("the journal cannot be reached ({reason}): try again")]
    Unavailable {
        /// What failed.
        reason: String,
    },
    /// The medium failed.
    #[error("the journal cannot be read from {}", .segment.display())]
    Io {
        /// The file.
        segment: PathBuf,
        /// What failed.
        source: io::Error,
    },
}

/// Why a log could not be copied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    /// The source cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The destination takes nothing.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The destination has another log, or a part of this one.
    #[error("the log to copy into is not empty, or has another name: copy into a new one")]
    NotEmpty,
    /// The copy is not the original.
    #[error("record {0} of the copy has another hash than the original: do not use the copy")]
    Differs(u64),
}

/// Copies the whole log `from` into the empty log `into` of the same name, bundle by bundle, so that both have the
/// same lines. Answers how many records there are.
pub(crate) fn copy(from: &dyn EventStore, into: &dyn EventStore) -> Result<u64, CopyError> {
    if into.origin() != from.origin() || into.turn()?.head().seq != 0 {
        return Err(CopyError::NotEmpty);
    }
    let mut copying = Copying { into, waiting: Vec::new(), bytes: 0, head: Head::genesis(from.origin()) };
    let mut failed = None;
    from.bundles(&mut |bundle, head| match copying.take(bundle, head) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    })?;
    failed.map_or(Ok(()), Err)?;
    copying.append()?;
    Ok(copying.head.seq)
}

/// A copy that is as long as `head` once what waits is appended.
struct Copying<'a> {
    into: &'a dyn EventStore,
    waiting: Vec<Unchained>,
    bytes: usize,
    head: Head,
}

impl Copying<'_> {
    /// Appends so much at once.
    const BATCH: usize = 4 << 20;

    fn take(&mut self, bundle: Unchained, head: Head) -> Result<(), CopyError> {
        self.bytes += bundle.bodies().iter().map(|body| body.as_bytes().len()).sum::<usize>();
        self.waiting.push(bundle);
        self.head = head;
        if self.bytes < Self::BATCH { Ok(()) } else { self.append() }
    }

    fn append(&mut self) -> Result<(), CopyError> {
        self.bytes = 0;
        let appended = self.into.turn()?.append(std::mem::take(&mut self.waiting))?;
        match appended.last() {
            Some(last) if last.head() != self.head => Err(CopyError::Differs(self.head.seq)),
            Some(_) | None => Ok(()),
        }
    }
}

/// Gives each bundle its place, the first after `head`.
fn chained(mut head: Head, bundles: Vec<Unchained>) -> Vec<Bundle> {
    let chain = |bundle| {
        let bundle = Bundle::after(head, bundle);
        head = bundle.head();
        bundle
    };
    bundles.into_iter().map(chain).collect()
}
