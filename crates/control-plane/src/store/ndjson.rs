//! The log as files of lines in one folder, readable with `jq` and verifiable with nothing but the crate `journal`.
//!
//! ```text
//! journal/LOCK                          held by the one process that may write
//! journal/origin                        the name of this log, from which its first hash is made
//! journal/00000000000000000001.ndjson   a segment, named by its first record; the next begins where it ends
//! journal/torn/…                        what interrupted writes left, set aside when the store was opened
//! ```
//!
//! What is appended together is one write and one `fdatasync`, however many bundles it is. Opening reads and verifies every byte: the beginning of a bundle
//! at the very end is set aside, because nobody was told about it; anything else that is wrong refuses to open.

mod lock;
mod segment;

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use journal::{Bundle, Damage, DamageProblem, Head, Line, Lines, Record, Tail, Unchained};

use self::lock::Lock;
use self::segment::SegmentWriter;
use super::{AppendError, EventStore, ReadError, Turn, chained};

/// A segment that has grown to this size is followed by a new one.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// The most bytes that one `read` takes from a file, unless a single record is longer.
const READ_BYTES: u64 = 4 * 1024 * 1024;

/// A log in a folder of which this process is the only writer.
pub(crate) struct NdjsonStore {
    folder: PathBuf,
    origin: String,
    segment_bytes: u64,
    writer: Mutex<Writer>,
    index: RwLock<Index>,
    recovered: Option<Recovered>,
    _lock: Lock,
}

/// A torn tail that was set aside when the store was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recovered {
    /// The segment that had it.
    pub(crate) segment: PathBuf,
    /// Where it began.
    pub(crate) offset: u64,
    /// How long it was.
    pub(crate) bytes: u64,
    /// Where it is now.
    pub(crate) moved_to: PathBuf,
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

/// The end of the log, and the file that grows there.
struct Writer {
    head: Head,
    /// Where the last whole bundle ends in the last segment.
    end: u64,
    /// `None` until the first bundle of a new segment is written.
    file: Option<SegmentWriter>,
    poison: Option<String>,
}

/// Where each record is, as far as readers may know. Its lock is never held during input or output.
struct Index {
    head: Head,
    segments: Vec<Segment>,
}

struct Segment {
    file: Arc<SegmentReader>,
    first: u64,
    offsets: Vec<u64>,
    end: u64,
}

struct SegmentReader {
    path: PathBuf,
    file: File,
}

/// A part of a segment that begins with the record `seq`.
struct Span {
    file: Arc<SegmentReader>,
    seq: u64,
    offset: u64,
    bytes: usize,
}

impl NdjsonStore {
    /// Opens the log in `folder`, making it if it is not there, and verifies all of it.
    ///
    /// `origin` names a log that is made now; a log that is there already keeps its name.
    pub(crate) fn open(folder: &Path, origin: &str) -> Result<Self, OpenError> {
        Self::open_with_segments_of(SEGMENT_BYTES, folder, origin)
    }

    fn open_with_segments_of(segment_bytes: u64, folder: &Path, origin: &str) -> Result<Self, OpenError> {
        create_folder(folder)?;
        let lock = Lock::acquire(folder)?;
        let found = segments_in(folder)?;
        let origin = origin_of(folder, origin, found.is_empty())?;
        let index = Index { head: Head::genesis(&origin), segments: Vec::new() };
        let mut opening = Opening { index, recovered: None };
        for (n, path) in found.iter().enumerate() {
            opening.read_segment(folder, path, n + 1 == found.len())?;
        }
        let Opening { index, recovered } = opening;
        let writer = Writer::at_the_end_of(&index)?;
        Ok(Self {
            folder: folder.to_owned(),
            origin,
            segment_bytes,
            writer: Mutex::new(writer),
            index: RwLock::new(index),
            recovered,
            _lock: lock,
        })
    }

    /// The torn tail that opening set aside, if there was one.
    pub(crate) fn recovered(&self) -> Option<&Recovered> {
        self.recovered.as_ref()
    }

    /// Makes the next segment, durable under its name before anything is written to it.
    fn begin_segment(&self, writer: &mut Writer) -> Result<(), AppendError> {
        let first = writer.head.seq + 1;
        let path = self.folder.join(segment_name(first));
        let file = match File::options().create_new(true).append(true).open(&path) {
            Ok(file) => file,
            Err(error) if is_full(&error) => return Err(AppendError::Full),
            Err(error) => return Err(writer.poisoned("a segment cannot be made", &error)),
        };
        let settle = || {
            file.sync_all()?;
            sync_folder(&self.folder)?;
            File::open(&path)
        };
        let reader = settle().map_err(|error| writer.poisoned("a segment cannot be made", &error))?;
        let reader = Arc::new(SegmentReader { file: reader, path });
        let segment = Segment { file: reader, first, offsets: Vec::new(), end: 0 };
        self.index.write().unwrap_or_else(PoisonError::into_inner).segments.push(segment);
        writer.file = Some(SegmentWriter::new(file));
        writer.end = 0;
        Ok(())
    }

    /// Lets readers see what is durable.
    fn publish(&self, head: Head, lines: &Lines, written_at: u64) {
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        index.head = head;
        let segment = index.segments.last_mut().expect("a bundle was just written to the last segment");
        segment.offsets.extend(lines.offsets.iter().map(|offset| written_at + offset));
        segment.end = written_at + lines.bytes.len() as u64;
    }
}

impl EventStore for NdjsonStore {
    fn head(&self) -> Head {
        self.index.read().unwrap_or_else(PoisonError::into_inner).head
    }

    fn origin(&self) -> &str {
        &self.origin
    }

    fn turn(&self) -> Result<Box<dyn Turn + '_>, AppendError> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = &writer.poison {
            return Err(AppendError::Poisoned { reason: reason.clone() });
        }
        Ok(Box::new(NdjsonTurn { store: self, writer }))
    }

    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        let span = {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            index.span(from.max(1), limit)
        };
        span.map_or(Ok(Vec::new()), |span| span.read())
    }

    fn bundles(&self, each: &mut dyn FnMut(Unchained, Head) -> ControlFlow<()>) -> Result<(), ReadError> {
        let segments: Vec<_> = {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            index.segments.iter().map(|segment| (Arc::clone(&segment.file), segment.end)).collect()
        };
        let mut head = Head::genesis(&self.origin);
        for (file, end) in segments {
            match bundles_of(&file, end, head, each)? {
                ControlFlow::Continue(reached) => head = reached,
                ControlFlow::Break(()) => break,
            }
        }
        Ok(())
    }
}

/// Hands each bundle of one segment to `each`; the end of the segment, unless `each` had enough.
fn bundles_of(
    segment: &SegmentReader,
    end: u64,
    after: Head,
    each: &mut dyn FnMut(Unchained, Head) -> ControlFlow<()>,
) -> Result<ControlFlow<(), Head>, ReadError> {
    let io = |source| ReadError::Io { segment: segment.path.clone(), source };
    // A file of our own: the offset of the one that is read from is everybody's.
    let file = File::open(&segment.path).map_err(io)?;
    let mut is_enough = false;
    let scan = journal::scan(file.take(end), after, |bundle, _: &[u64]| {
        let (id, head) = (bundle.id().clone(), bundle.head());
        let bodies = bundle.into_records().into_iter().map(|record| record.body().clone()).collect();
        let bundle = Unchained::new(id, bodies).map_err(io::Error::other)?;
        is_enough = is_enough || each(bundle, head).is_break();
        if is_enough { Err(io::Error::other("enough")) } else { Ok(()) }
    });
    let scan = match scan {
        Err(_) if is_enough => return Ok(ControlFlow::Break(())),
        scan => scan.map_err(io)?,
    };
    let problem = match scan.tail {
        Tail::Clean => return Ok(ControlFlow::Continue(scan.head)),
        Tail::Torn { .. } => {
            Damage { offset: scan.end, seq: scan.head.seq + 1, problem: DamageProblem::Commit }
        }
        Tail::Damaged(damage) => damage,
    };
    Err(ReadError::Damaged { segment: segment.path.clone(), damage: problem })
}

/// The file at the end of the log, for as long as nobody else may have it.
struct NdjsonTurn<'a> {
    store: &'a NdjsonStore,
    writer: MutexGuard<'a, Writer>,
}

impl Turn for NdjsonTurn<'_> {
    fn head(&self) -> Head {
        self.writer.head
    }

    fn append(self: Box<Self>, bundles: Vec<Unchained>) -> Result<Vec<Bundle>, AppendError> {
        let Self { store, mut writer } = *self;
        if bundles.is_empty() {
            return Ok(Vec::new());
        }
        let bundles = chained(writer.head, bundles);
        let mut lines = Lines::default();
        bundles.iter().for_each(|bundle| bundle.encode(&mut lines));
        if writer.file.is_none() || writer.end >= store.segment_bytes {
            store.begin_segment(&mut writer)?;
        }
        writer.write(&lines.bytes)?;
        // From here on the bundles are durable. A crash before the answer leaves them recorded, and their senders,
        // who repeat them with the same event ids, hear their numbers then.
        let written_at = writer.end;
        writer.end += lines.bytes.len() as u64;
        writer.head = bundles.last().expect("there is a bundle").head();
        store.publish(writer.head, &lines, written_at);
        Ok(bundles)
    }
}

impl Writer {
    /// The writer that goes on where the index ends.
    fn at_the_end_of(index: &Index) -> Result<Self, OpenError> {
        let Some(last) = index.segments.last() else {
            return Ok(Self { head: index.head, end: 0, file: None, poison: None });
        };
        let open = || {
            let file = File::options().append(true).open(&last.file.path)?;
            // A process that was killed between its write and its sync left a bundle that is whole here but
            // perhaps not on the disk. Make it so before anybody is told that it is recorded.
            file.sync_all()?;
            Ok(file)
        };
        let file = open().map_err(|source| OpenError::Io {
            action: "cannot open for writing",
            path: last.file.path.clone(),
            source,
        })?;
        Ok(Self { head: index.head, end: last.end, file: Some(SegmentWriter::new(file)), poison: None })
    }

    /// Writes whole lines at the end and makes them durable, or leaves the end where it was, or poisons itself.
    fn write(&mut self, lines: &[u8]) -> Result<(), AppendError> {
        let file = self.file.as_mut().expect("a segment was begun before");
        match file.write_all(lines) {
            Ok(()) => {}
            Err(error) if is_full(&error) => return self.take_back(&error),
            Err(error) => return Err(self.poisoned("a write failed", &error)),
        }
        let file = self.file.as_mut().expect("a segment was begun before");
        file.sync().map_err(|error| self.poisoned("a sync failed", &error))
    }

    /// Removes the beginning of a bundle for which there was no space. It was never synced and never answered
    /// for, so the log is whole again once the file has its old length.
    fn take_back(&mut self, full: &io::Error) -> Result<(), AppendError> {
        let end = self.end;
        let file = self.file.as_mut().expect("a segment was begun before");
        match file.truncate(end) {
            Ok(()) => Err(AppendError::Full),
            Err(error) => {
                Err(self.poisoned(&format!("{full}, and what was written cannot be taken back"), &error))
            }
        }
    }

    fn poisoned(&mut self, what: &str, error: &io::Error) -> AppendError {
        let reason = format!("{what}: {error}");
        self.poison = Some(reason.clone());
        AppendError::Poisoned { reason }
    }
}

impl Index {
    /// What to read for at most `limit` records from `from` on; `None` where there are none.
    fn span(&self, from: u64, limit: usize) -> Option<Span> {
        let segment = self.segments.iter().rev().find(|segment| segment.first <= from)?;
        let offsets = segment.offsets.get(usize::try_from(from - segment.first).ok()?..)?;
        let start = *offsets.first().filter(|_| limit > 0)?;
        let fits = offsets.partition_point(|offset| *offset < start + READ_BYTES).clamp(1, limit);
        let end = offsets.get(fits).copied().unwrap_or(segment.end);
        let bytes = usize::try_from(end - start).ok()?;
        Some(Span { file: Arc::clone(&segment.file), seq: from, offset: start, bytes })
    }
}

impl Span {
    fn read(&self) -> Result<Vec<Record>, ReadError> {
        let mut bytes = vec![0; self.bytes];
        let read = self.file.file.read_exact_at(&mut bytes, self.offset);
        read.map_err(|source| ReadError::Io { segment: self.file.path.clone(), source })?;
        self.decode(&bytes)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Vec<Record>, ReadError> {
        let mut offset = self.offset;
        let mut records: Vec<Record> = Vec::new();
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let seq = self.seq + records.len() as u64;
            let problem = match Line::decode(line.strip_suffix(b"\n").unwrap_or(line)) {
                Ok(Line::Record(record)) if record.seq() == seq => {
                    records.push(record);
                    None
                }
                Ok(Line::Record(record)) => Some(DamageProblem::Order { found: record.seq() }),
                Ok(Line::Commit(_)) => None,
                Err(problem) => Some(problem.into()),
            };
            if let Some(problem) = problem {
                let damage = Damage { offset, seq, problem };
                return Err(ReadError::Damaged { segment: self.file.path.clone(), damage });
            }
            offset += line.len() as u64;
        }
        Ok(records)
    }
}

/// What opening has learnt so far.
struct Opening {
    index: Index,
    recovered: Option<Recovered>,
}

impl Opening {
    fn read_segment(&mut self, folder: &Path, path: &Path, is_last: bool) -> Result<(), OpenError> {
        let first = self.index.head.seq + 1;
        if path.file_name().is_none_or(|name| name != segment_name(first).as_str()) {
            return Err(OpenError::Sequence { folder: folder.into(), expected: first, found: path.into() });
        }
        let io = |source| OpenError::Io { action: "cannot read the segment", path: path.into(), source };
        let file = File::open(path).map_err(io)?;
        let mut offsets = Vec::new();
        let scan = journal::scan(&file, self.index.head, |_, found: &[u64]| {
            offsets.extend_from_slice(found);
            io::Result::Ok(())
        });
        let scan = scan.map_err(io)?;
        match scan.tail {
            Tail::Clean => {}
            Tail::Torn { bytes } if is_last => {
                self.recovered = Some(set_aside(folder, path, scan.end, bytes)?);
            }
            Tail::Torn { .. } => {
                // Only the last segment is ever written: an earlier one that ends early was cut.
                let seq = scan.head.seq + 1;
                let damage = Damage { offset: scan.end, seq, problem: DamageProblem::Commit };
                return Err(OpenError::Damaged { segment: path.into(), damage });
            }
            Tail::Damaged(damage) => return Err(OpenError::Damaged { segment: path.into(), damage }),
        }
        self.index.head = scan.head;
        let file = Arc::new(SegmentReader { path: path.into(), file });
        self.index.segments.push(Segment { file, first, offsets, end: scan.end });
        Ok(())
    }
}

/// Keeps the torn tail under `torn/`, durably, and only then cuts it off.
fn set_aside(folder: &Path, segment: &Path, offset: u64, bytes: u64) -> Result<Recovered, OpenError> {
    let torn = folder.join("torn");
    create_folder(&torn)?;
    let name = segment.file_stem().unwrap_or_default().to_string_lossy();
    let moved_to = (0..)
        .map(|n| torn.join(format!("{name}-{offset}-{n}.bin")))
        .find(|path| !path.exists())
        .expect("a folder does not hold every number");
    let set_aside = || {
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
        file.sync_all()
    };
    set_aside().map_err(|source| OpenError::Io {
        action: "cannot set aside the torn tail of",
        path: segment.into(),
        source,
    })?;
    Ok(Recovered { segment: segment.into(), offset, bytes, moved_to })
}

fn segment_name(first: u64) -> String {
    format!("{first:020}.ndjson")
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
                let unfinished = folder.join("origin.new");
                let mut file = File::create(&unfinished)?;
                file.write_all(new.as_bytes())?;
                file.sync_all()?;
                fs::rename(&unfinished, &path)?;
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

/// Whether there is no space, on the disk or within the quota: a state that passes, unlike a disk that fails.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
