//! How much of the disk a command takes, all its files together.
//!
//! Adding up a whole tree takes long, so that it is done only when the file system itself has lost so much room since
//! the command began, whoever took it. Then what was made or changed since is added up, which the kernel's own time of
//! each file tells and no command can set. It is a claim of a tree that changes meanwhile; it decides only whether the
//! command is ended, never what its work is.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{StatVfs, statvfs};

/// How long nothing is added up after it was.
const REST: Duration = Duration::from_secs(2);
/// The unit of `st_blocks`, whatever the file system's own is.
const BLOCK: u64 = 512;

/// Watches the folders that a command may change.
pub(super) struct Disk {
    folders: Vec<PathBuf>,
    most: Taken,
    /// The most room that was free since then, in each folder's file system.
    free: Vec<Taken>,
    not_before: Instant,
    /// When the command began, in seconds since 1970. Files that were changed in this very second count as its own.
    began: i64,
}

/// Room of a disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) bytes: u64,
    pub(super) files: u64,
}

impl Disk {
    /// From now on a command may fill `folders` up to `most`, and never take more than half of what is free now: others
    /// need the rest, our own log among them.
    pub(super) fn watch(folders: &[PathBuf], most: Taken) -> io::Result<Self> {
        let free: Vec<Taken> = folders.iter().map(|folder| free(folder)).collect::<io::Result<_>>()?;
        let least = free.iter().fold(most, |least, free| least.or_less(free.half()));
        let began = SystemTime::now().duration_since(UNIX_EPOCH).map_err(io::Error::other)?.as_secs();
        let began = i64::try_from(began).map_err(io::Error::other)?;
        Ok(Self { folders: folders.to_vec(), most: least, free, not_before: Instant::now(), began })
    }

    /// Whether the command has taken more than it may.
    pub(super) fn is_over(&mut self) -> bool {
        if Instant::now() < self.not_before || !self.has_shrunk() {
            return false;
        }
        let is_over = self.has_taken_too_much();
        self.not_before = Instant::now() + REST;
        is_over
    }

    /// Adds up what was made or changed since the command began, links not followed, and no further than it may.
    fn has_taken_too_much(&self) -> bool {
        let mut taken = Taken::default();
        let mut waiting = self.folders.clone();
        while let Some(folder) = waiting.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                // What has gone meanwhile takes nothing.
                let Ok(found) = entry.metadata() else { continue };
                if found.ctime() >= self.began {
                    taken = taken.and(Taken { bytes: found.blocks().saturating_mul(BLOCK), files: 1 });
                }
                if taken.exceeds(self.most) {
                    return true;
                }
                if found.is_dir() {
                    waiting.push(entry.path());
                }
            }
        }
        false
    }

    /// Whether a file system has lost as much room as the command may take.
    fn has_shrunk(&mut self) -> bool {
        let mut has_shrunk = false;
        for (folder, most_free) in self.folders.iter().zip(&mut self.free) {
            // A folder that cannot be asked takes no room.
            let Ok(now) = free(folder) else { continue };
            most_free.bytes = most_free.bytes.max(now.bytes);
            most_free.files = most_free.files.max(now.files);
            let lost = Taken {
                bytes: most_free.bytes.saturating_sub(now.bytes),
                files: most_free.files.saturating_sub(now.files),
            };
            has_shrunk |= lost.exceeds(self.most);
        }
        has_shrunk
    }
}

impl Taken {
    fn half(self) -> Self {
        Self { bytes: self.bytes / 2, files: self.files / 2 }
    }

    fn or_less(self, other: Self) -> Self {
        Self { bytes: self.bytes.min(other.bytes), files: self.files.min(other.files) }
    }

    fn exceeds(self, most: Self) -> bool {
        self.bytes > most.bytes || self.files > most.files
    }

    fn and(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(other.bytes), files: self.files.saturating_add(other.files) }
    }
}

fn free(folder: &Path) -> io::Result<Taken> {
    let StatVfs { f_bfree, f_frsize, f_files, f_ffree, .. } = statvfs(folder)?;
    // Some file systems make room for names as they need it, and know no number.
    let files = if f_files == 0 { u64::MAX } else { f_ffree };
    Ok(Taken { bytes: f_bfree.saturating_mul(f_frsize), files })
}
