//! Where the log is kept. The seam between the ledger, which decides what is recorded, and a medium that keeps it.
//!
//! A store knows order, durability and hashes. It does not know what an event means: bodies are opaque to it.

mod memory;
mod ndjson;

#[cfg(test)]
mod conformance;

use std::io;
use std::path::PathBuf;

use journal::{Bundle, Damage, Head, Record, Unchained};

pub(crate) use memory::MemoryStore;
pub(crate) use ndjson::NdjsonStore;

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

    /// Waits until nobody else appends, and gives the right to.
    fn turn(&self) -> Result<Box<dyn Turn + '_>, AppendError>;

    /// The records from `from` on, in order, at most `limit`. May be fewer than there are, but is empty only
    /// when there are none.
    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, ReadError>;
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

/// Gives each bundle its place, the first after `head`.
fn chained(mut head: Head, bundles: Vec<Unchained>) -> Vec<Bundle> {
    let chain = |bundle| {
        let bundle = Bundle::after(head, bundle);
        head = bundle.head();
        bundle
    };
    bundles.into_iter().map(chain).collect()
}
