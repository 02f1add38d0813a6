//! Opening a folder as a log: every byte is read once and believed only if it is what was written.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use journal::{Damage, DamageProblem, Head, Record, Tail};

use super::lock::Lock;
use super::unread::Unread;
use super::{Index, NdjsonStore, SEGMENT_BYTES, Segment, places, segment_name};
use crate::cache::Unusable;
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

/// A folder that is locked, and as much of its log as is known already.
pub(crate) struct Opening {
    folder: PathBuf,
    lock: Lock,
    origin: String,
    found: Vec<PathBuf>,
    index: Index,
    segment_bytes: u64,
}

/// A folder whose log is known to its end. Nothing that was there is changed yet.
pub(super) struct Opened {
    pub(super) folder: PathBuf,
    pub(super) lock: Lock,
    pub(super) origin: String,
    pub(super) index: Index,
    /// What was not verified, because reading began after it.
    pub(super) unread: Option<Unread>,
    /// How many torn bytes follow the end of the last segment.
    pub(super) torn: Option<u64>,
    pub(super) segment_bytes: u64,
}

impl Opening {
    /// Locks the folder, making it if it is not there.
    ///
    /// `origin` names a log that is made now; a log that is there already keeps its name.
    pub(crate) fn begin(folder: &Path, origin: &str) -> Result<Self, OpenError> {
        create_folder(folder)?;
        let lock = Lock::acquire(folder)?;
        let found = segments_in(folder)?;
        let origin = origin_of(folder, origin, found.is_empty())?;
        let index = Index { head: Head::genesis(&origin), segments: Vec::new() };
        Ok(Self { folder: folder.to_owned(), lock, origin, found, index, segment_bytes: SEGMENT_BYTES })
    }

    /// The name of the log.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// Begins to read after the record `head`, if that is in the log and the indexes say where everything before
    /// it is. What is before it is then to be verified later: see [`NdjsonStore::unread`].
    pub(crate) fn resume(&mut self, head: Head) -> Result<(), Unusable> {
        let mut index = Index { head: Head::genesis(&self.origin), segments: Vec::new() };
        while index.head.seq < head.seq {
            let path =
                self.found.get(index.segments.len()).ok_or(Unusable::Foreign("it ends before that"))?;
            let mut segment = places::read(&self.folder, path, index.head.seq + 1)?;
            let known = segment.end;
            segment.shorten(head.seq);
            index.head.seq += segment.offsets.len() as u64;
            let length = fs::metadata(path)?.len();
            // Only the last segment may have grown since.
            if known > length || (index.head.seq < head.seq && known < length) {
                return Err(Unusable::Foreign("a segment has another length"));
            }
            index.segments.push(segment);
        }
        let last = index.span(head.seq, 1).map(|span| span.read());
        let is_there =
            matches!(last, Some(Ok(records)) if records.iter().any(|record| record.head() == head));
        if !is_there {
            return Err(Unusable::Foreign("another record is in that place"));
        }
        index.head = head;
        self.index = index;
        Ok(())
    }

    /// Forgets that reading should begin anywhere but at the beginning.
    pub(crate) fn start_over(&mut self) {
        self.index = Index { head: Head::genesis(&self.origin), segments: Vec::new() };
    }

    /// Reads the rest of the log, verifies it, and hands its records, in order, to `each`. Changes nothing.
    pub(crate) fn read(self, each: &mut dyn FnMut(Vec<Record>)) -> Result<NdjsonStore, OpenError> {
        let Self { folder, lock, origin, found, mut index, segment_bytes } = self;
        let unread = (index.head.seq > 0).then(|| Unread::before(&origin, &index));
        let mut partly = index.segments.pop();
        let (known, mut torn) = (index.segments.len(), None);
        for (n, path) in found.iter().enumerate().skip(known) {
            let segment = match partly.take() {
                Some(segment) => segment,
                None => begin_segment(&folder, path, index.head.seq + 1)?,
            };
            torn = read_segment(&mut index, segment, n + 1 == found.len(), each)?;
        }
        Ok(NdjsonStore::opened(Opened { folder, lock, origin, index, unread, torn, segment_bytes }))
    }

    /// Makes segments of another size.
    #[cfg(test)]
    pub(crate) fn with_segments_of(self, segment_bytes: u64) -> Self {
        Self { segment_bytes, ..self }
    }
}

fn begin_segment(folder: &Path, path: &Path, first: u64) -> Result<Segment, OpenError> {
    if path.file_name().is_none_or(|name| name != segment_name(first).as_str()) {
        return Err(OpenError::Sequence { folder: folder.into(), expected: first, found: path.into() });
    }
    Segment::open(path, first).map_err(|source| unreadable(path, source))
}

fn unreadable(path: &Path, source: io::Error) -> OpenError {
    OpenError::Io { action: "cannot read the segment", path: path.into(), source }
}

/// Reads what is left of the next segment into the index. Answers how many torn bytes follow its end, which only
/// the last may have.
fn read_segment(
    index: &mut Index,
    mut segment: Segment,
    is_last: bool,
    each: &mut dyn FnMut(Vec<Record>),
) -> Result<Option<u64>, OpenError> {
    let path = segment.file.path.clone();
    let begins = segment.end;
    let mut file = &segment.file.file;
    file.seek(SeekFrom::Start(begins)).map_err(|source| unreadable(&path, source))?;
    let scan = journal::scan(file, index.head, |bundle, found: &[u64]| {
        segment.offsets.extend(found.iter().map(|offset| begins + offset));
        each(bundle.into_records());
        io::Result::Ok(())
    });
    let scan = scan.map_err(|source| unreadable(&path, source))?;
    segment.end = begins + scan.end;
    let torn = match scan.tail {
        Tail::Clean => None,
        Tail::Torn { bytes } if is_last => Some(bytes),
        Tail::Torn { .. } => {
            // Only the last segment is ever written: an earlier one that ends early was cut.
            let seq = scan.head.seq + 1;
            let damage = Damage { offset: segment.end, seq, problem: DamageProblem::Commit };
            return Err(OpenError::Damaged { segment: path, damage });
        }
        Tail::Damaged(damage) => {
            let damage = Damage { offset: begins + damage.offset, ..damage };
            return Err(OpenError::Damaged { segment: path, damage });
        }
    };
    index.head = scan.head;
    index.segments.push(segment);
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
