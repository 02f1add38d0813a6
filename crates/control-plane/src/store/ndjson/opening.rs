//! Opening a folder as a log: every byte is read once and believed only if it is what was written.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use journal::{Damage, DamageProblem, Head, Record, Tail};

use super::lock::Lock;
use super::{Index, Segment, SegmentReader, segment_name};
use crate::durable::{sync_folder, write_whole};

/// A torn tail that was set aside when the log was settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recovered {
    /// The segment that had it.
    pub(super) segment: PathBuf,
    /// Where it began.
    pub(super) offset: u64,
    /// How long it was.
    pub(super) bytes: u64,
    /// Where it is now.
    pub(super) moved_to: PathBuf,
}

/// Why a folder could not be opened as a log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// Another process writes it.
    #[error("the journal in {} is in use by {holder}: stop that process first; one journal has one writer", .folder.display())]
    Locked {
        /// The folder.
        folder: PathBuf,
        /// Who holds it, as far as it says.
        holder: String,
    },
    /// A segment is not what was written.
    #[error("the journal is damaged in {}, {damage}. Nothing was changed: restore this file from a backup", .segment.display())]
    Damaged {
        /// The file.
        segment: PathBuf,
        /// Where, and what.
        damage: Damage,
    },
    /// A segment is missing, or one is there that does not belong.
    #[error(
        "the journal in {} is incomplete: the next segment should begin with record {expected}, but {} is there. Nothing was changed: restore the missing file from a backup",
        .folder.display(), .found.display()
    )]
    Sequence {
        /// The folder.
        folder: PathBuf,
        /// The record that should come next.
        expected: u64,
        /// The file that was found instead.
        found: PathBuf,
    },
    /// There are segments, but the file that names the log is gone.
    #[error("the file {} is missing, without which the journal beside it cannot be verified: restore it from a backup", .0.display())]
    NoOrigin(PathBuf),
    /// The file system failed.
    #[error("{action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
}

/// A folder whose log was read whole. Nothing that was there is changed yet.
pub(super) struct Opened {
    pub(super) lock: Lock,
    pub(super) origin: String,
    pub(super) index: Index,
    /// How many torn bytes follow the end of the last segment.
    pub(super) torn: Option<u64>,
}

/// Locks and reads the log in `folder`, and hands the records of each bundle to `each`.
pub(super) fn open(
    folder: &Path,
    origin: &str,
    each: &mut dyn FnMut(Vec<Record>),
) -> Result<Opened, OpenError> {
    create_folder(folder)?;
    let lock = Lock::acquire(folder)?;
    let found = segments_in(folder)?;
    let origin = origin_of(folder, origin, found.is_empty())?;
    let mut index = Index { head: Head::genesis(&origin), segments: Vec::new() };
    let mut torn = None;
    for (n, path) in found.iter().enumerate() {
        let is_last = n + 1 == found.len();
        torn = read_segment(&mut index, folder, path, is_last, each)?;
    }
    Ok(Opened { lock, origin, index, torn })
}

/// Adds the next segment to the index. Answers how many torn bytes follow its end, which only the last may have.
fn read_segment(
    index: &mut Index,
    folder: &Path,
    path: &Path,
    is_last: bool,
    each: &mut dyn FnMut(Vec<Record>),
) -> Result<Option<u64>, OpenError> {
    let first = index.head.seq + 1;
    if path.file_name().is_none_or(|name| name != segment_name(first).as_str()) {
        return Err(OpenError::Sequence { folder: folder.into(), expected: first, found: path.into() });
    }
    let io = |source| OpenError::Io { action: "cannot read the segment", path: path.into(), source };
    let file = File::open(path).map_err(io)?;
    let mut offsets = Vec::new();
    let scan = journal::scan(&file, index.head, |bundle, found: &[u64]| {
        offsets.extend_from_slice(found);
        each(bundle.into_records());
        io::Result::Ok(())
    });
    let scan = scan.map_err(io)?;
    let torn = match scan.tail {
        Tail::Clean => None,
        Tail::Torn { bytes } if is_last => Some(bytes),
        Tail::Torn { .. } => {
            // Only the last segment is ever written: an earlier one that ends early was cut.
            let seq = scan.head.seq + 1;
            let damage = Damage { offset: scan.end, seq, problem: DamageProblem::Commit };
            return Err(OpenError::Damaged { segment: path.into(), damage });
        }
        Tail::Damaged(damage) => return Err(OpenError::Damaged { segment: path.into(), damage }),
    };
    index.head = scan.head;
    let file = Arc::new(SegmentReader { path: path.into(), file });
    index.segments.push(Segment { file, first, offsets, end: scan.end });
    Ok(torn)
}

/// Keeps the torn tail under `torn/`, durably, and only then cuts it off.
pub(super) fn set_aside(folder: &Path, segment: &Path, offset: u64, bytes: u64) -> io::Result<Recovered> {
    let torn = folder.join("torn");
    create_folder(&torn).map_err(io::Error::other)?;
    let name = segment.file_stem().unwrap_or_default().to_string_lossy();
    let moved_to = (0..)
        .map(|n| torn.join(format!("{name}-{offset}-{n}.bin")))
        .find(|path| !path.exists())
        .expect("a folder does not hold every number");
    let mut file = File::options().read(true).write(true).open(segment)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let mut copy = File::create_new(&moved_to)?;
    copy.write_all(&tail)?;
    copy.sync_all()?;
    sync_folder(&torn)?;
    // A crash before this line repeats all of it, and keeps the tail twice.
    file.set_len(offset)?;
    file.sync_all()?;
    Ok(Recovered { segment: segment.into(), offset, bytes, moved_to })
}

/// The segments of a folder in the order of their names.
pub(crate) fn segments_in(folder: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let list = || {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "ndjson") {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    };
    list().map_err(|source| OpenError::Io { action: "cannot list the folder", path: folder.into(), source })
}

/// The name of the log in `folder`: the one it has, or `new` for one that is made now.
fn origin_of(folder: &Path, new: &str, is_empty: bool) -> Result<String, OpenError> {
    let path = folder.join("origin");
    match fs::read_to_string(&path) {
        Ok(origin) => Ok(origin),
        Err(error) if error.kind() == io::ErrorKind::NotFound && is_empty => {
            let write = || {
                write_whole(&path, &[new.as_bytes()])?;
                sync_folder(folder)
            };
            write().map_err(|source| OpenError::Io { action: "cannot write", path: path.clone(), source })?;
            Ok(new.to_owned())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(OpenError::NoOrigin(path)),
        Err(source) => Err(OpenError::Io { action: "cannot read", path, source }),
    }
}

/// Makes a folder, and the folders above it, so that a crash cannot take any of them away again.
fn create_folder(folder: &Path) -> Result<(), OpenError> {
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.exists() {
        create_folder(parent)?;
    }
    let create = || match fs::create_dir(folder) {
        Ok(()) => sync_folder(parent),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        Err(error) => Err(error),
    };
    create().map_err(|source| OpenError::Io { action: "cannot make the folder", path: folder.into(), source })
}
