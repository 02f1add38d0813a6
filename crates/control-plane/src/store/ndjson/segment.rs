//! The file at the end of the log: the only place where the store meets a disk that can fail.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What may be done with a segment that is never written again: read it.
const SEALED: u32 = 0o444;

/// A file that is only ever extended.
pub(super) struct SegmentWriter {
    file: File,
    /// What the next calls of a test's store run into, in order.
    #[cfg(test)]
    faults: std::collections::VecDeque<Fault>,
}

/// A call that fails, with the error number that it fails with.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// The write stops after so many bytes.
    Write {
        /// The bytes that reach the file.
        after: usize,
        /// The error number.
        errno: i32,
    },
    /// The sync fails; the kernel may or may not have written the data.
    Sync {
        /// The error number.
        errno: i32,
    },
    /// The file cannot be cut.
    Truncate {
        /// The error number.
        errno: i32,
    },
}

/// Forbids everybody to write to a segment that is followed by another. It stays as good as it was where a file
/// system does not know permissions.
pub(super) fn seal(segment: &Path) {
    let is_sealed = |file: fs::Metadata| file.permissions().mode() & 0o777 == SEALED;
    if fs::metadata(segment).is_ok_and(is_sealed) {
        return;
    }
    if let Err(error) = fs::set_permissions(segment, Permissions::from_mode(SEALED)) {
        tracing::warn!(%error, journal.segment = %segment.display(), "A whole segment of the journal cannot be made read-only.");
    }
}

impl SegmentWriter {
    /// Wraps a file that was opened for appending.
    pub(super) fn new(file: File) -> Self {
        Self {
            file,
            #[cfg(test)]
            faults: std::collections::VecDeque::new(),
        }
    }

    /// Writes all of `bytes` at the end, not yet durable.
    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        #[cfg(test)]
        if let Some(Fault::Write { after, errno }) = self.faults.front().copied() {
            self.faults.pop_front();
            self.file.write_all(&bytes[..after.min(bytes.len())])?;
            return Err(io::Error::from_raw_os_error(errno));
        }
        self.file.write_all(bytes)
    }

    /// Makes everything written so far durable. Called once per write: after a failure the kernel may count the
    /// data as written though it is not, so a second call would prove nothing.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        #[cfg(test)]
        if let Some(Fault::Sync { errno }) = self.faults.front().copied() {
            self.faults.pop_front();
            return Err(io::Error::from_raw_os_error(errno));
        }
        self.file.sync_data()
    }

    /// Cuts the file to `length`, durably.
    pub(super) fn truncate(&mut self, length: u64) -> io::Result<()> {
        #[cfg(test)]
        if let Some(Fault::Truncate { errno }) = self.faults.front().copied() {
            self.faults.pop_front();
            return Err(io::Error::from_raw_os_error(errno));
        }
        self.file.set_len(length)?;
        self.file.sync_all()
    }

    /// Makes the next call of that kind fail.
    #[cfg(test)]
    pub(super) fn inject(&mut self, fault: Fault) {
        self.faults.push_back(fault);
    }
}
