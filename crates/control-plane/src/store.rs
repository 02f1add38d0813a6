//! Where the log is kept. The seam between the ledger, which decides what is recorded, and a medium that keeps it.
//!
//! A store knows order, durability and hashes. It does not know what an event means: bodies are opaque to it.

mod memory;
mod ndjson;

#[cfg(test)]
mod conformance;

use std::io;
use std::path::PathBuf;

use journal::{Bundle, BundleError, BundleId, CanonicalBody, Damage, Head, Record};

pub(crate) use memory::MemoryStore;
pub(crate) use ndjson::NdjsonStore;

/// An append-only log with one writer and any number of readers.
///
/// # Contract
///
/// - **Order.** Records count from 1 without gaps; `head` is the last one, and never moves back.
/// - **Durable before it returns.** When `append` answers `Ok`, the bundle survives the death of the process and
///   of the machine, and every later `read` sees it.
/// - **All or nothing.** After any error, and after a crash at any moment, either every record of the bundle
///   exists or none does. An error of [`AppendError::Poisoned`] leaves open which; every other one means none.
/// - **Compare and swap.** `append` records nothing unless `expected` is the head at that moment.
/// - **Poison.** Once a write could not be made durable, no later `append` succeeds until the store is opened
///   anew. Reads go on. What a disk did with data it failed to keep is unknowable, so nothing is retried.
/// - **No silent damage.** `read` verifies what it returns; what is not what was written is an error.
pub(crate) trait EventStore: Send + Sync {
    /// The end of the log.
    fn head(&self) -> Head;

    /// Chains `bodies` after `expected` as one bundle and makes them durable.
    fn append(&self, expected: Head, id: BundleId, bodies: Vec<CanonicalBody>)
    -> Result<Bundle, AppendError>;

    /// The records from `from` on, in order, at most `limit`. May be fewer than there are, but is empty only
    /// when there are none.
    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, ReadError>;
}

/// Why a bundle was not recorded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendError {
    /// The log has moved on since `expected` was read. Read it again and decide anew.
    #[error("the log is at record {}, not at {} as expected", .actual.seq, .expected.seq)]
    Stale {
        /// What the caller believed.
        expected: Head,
        /// What is.
        actual: Head,
    },
    /// The bodies cannot be one bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// There is no space. Nothing was recorded; the next append may succeed once there is space again.
    #[error("the disk that holds the journal is full: free some space, then try again")]
    Full,
    /// A write or sync failed, now or earlier. Nothing more is recorded until the store is opened anew.
    #[error(
        "the journal can no longer be written ({reason}): restart the control plane once the disk is well"
    )]
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
    /// The medium failed.
    #[error("the journal cannot be read from {}", .segment.display())]
    Io {
        /// The file.
        segment: PathBuf,
        /// What failed.
        source: io::Error,
    },
}
