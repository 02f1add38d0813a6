//! The log as files of lines in one folder, readable with `jq` and verifiable with nothing but the crate `journal`.
//!
//! ```text
//! journal/LOCK                          held by the one process that may write
//! journal/origin                        the name of this log, from which its first hash is made
//! journal/00000000000000000001.ndjson   a segment, named by its first record; the next begins where it ends
//! journal/index/…                       where each record of a segment is; made again whenever it is of no use
//! journal/torn/…                        what interrupted writes left, set aside when the store was settled
//! ```
//!
//! What is appended together is one write and one `fdatasync`, however many bundles it is. A segment that is
//! followed by another is sealed: nobody may write to it any more, its owner included.
//!
//! Opening reads every byte once, verifies it, and changes nothing. The beginning of a bundle at the very end is set
//! aside when the log is settled, because nobody was told about it; anything else that is wrong refuses to open.

mod lock;
mod opening;
mod places;
mod segment;
mod unread;

use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use journal::{Bundle, Damage, DamageProblem, Head, Line, Lines, Record, Tail, Unchained};

use self::lock::Lock;
pub(crate) use self::opening::{OpenError, Opening, segments_in};
use self::opening::{Opened, Recovered, set_aside};
use self::segment::SegmentWriter;
pub(crate) use self::unread::Unread;
use super::{AppendError, EventStore, ReadError, Turn, chained};
use crate::durable::sync_folder;

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
    unread: Option<Unread>,
    _lock: Lock,
}

/// The end of the log, and the file that grows there.
struct Writer {
    head: Head,
    /// Where the last whole bundle ends in the last segment.
    end: u64,
    /// `None` until the first bundle of a new segment is written.
    file: Option<SegmentWriter>,
    /// What is to be done before the first write: the end is to be made durable, and so many torn bytes after it
    /// are to be set aside.
    unsettled: Option<Option<u64>>,
    poison: Option<String>,
    /// What was written last: its room is used again.
    lines: Lines,
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
    /// How many of the offsets are in the file beside it.
    kept: usize,
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
    /// Opens the log in `folder`, making it if it is not there, and verifies all of it. Nothing that is there is
    /// changed before the log is settled.
    ///
    /// `origin` names a log that is made now; a log that is there already keeps its name.
    pub(crate) fn open(folder: &Path, origin: &str) -> Result<Self, OpenError> {
        Opening::begin(folder, origin)?.read(&mut |_| {})
    }

    fn opened(opened: Opened) -> Self {
        let Opened { folder, lock, origin, index, unread, torn, segment_bytes } = opened;
        Self {
            folder,
            origin,
            segment_bytes,
            writer: Mutex::new(Writer::unsettled(&index, torn)),
            index: RwLock::new(index),
            unread,
            _lock: lock,
        }
    }

    /// What was not read when the log was opened, and is to be verified.
    pub(crate) fn unread(&self) -> Option<Unread> {
        self.unread.clone()
    }

    /// Makes the end of the log one that can be extended, unless it is: see [`EventStore::settle`].
    fn settle_end(&self, writer: &mut Writer) -> Result<Option<Recovered>, AppendError> {
        let Some(torn) = writer.unsettled.take() else { return Ok(None) };
        let segments: Vec<PathBuf> = {
            let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
            index.segments.iter().map(|segment| segment.file.path.clone()).collect()
        };
        let Some((last, sealed)) = segments.split_last() else { return Ok(None) };
        sealed.iter().for_each(|segment| segment::seal(segment));
        let settle = || {
            let recovered = torn.map(|bytes| set_aside(&self.folder, last, writer.end, bytes)).transpose()?;
            let file = File::options().append(true).open(last)?;
            // A process that was killed between its write and its sync left a bundle that is whole here but
            // perhaps not on the disk. Make it so before anybody is told that it is recorded.
            file.sync_all()?;
            Ok((recovered, file))
        };
        let (recovered, file) = settle().map_err(|error| {
            writer.poisoned(&format!("the end of {} cannot be made whole", last.display()), &error)
        })?;
        writer.file = Some(SegmentWriter::new(file));
        if let Some(torn) = &recovered {
            tracing::warn!(
                journal.segment = %torn.segment.display(),
                journal.offset = torn.offset,
                journal.bytes = torn.bytes,
                journal.moved_to = %torn.moved_to.display(),
                "The last write was interrupted before it was answered for: what it left was set aside."
            );
        }
        Ok(recovered)
    }

    /// Gives the right to write to what is there, once it is settled.
    fn writable(&self) -> Result<(MutexGuard<'_, Writer>, Option<Recovered>), AppendError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = &writer.poison {
            return Err(AppendError::Poisoned { reason: reason.clone() });
        }
        let recovered = self.settle_end(&mut writer)?;
        Ok((writer, recovered))
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
        let reader = Arc::new(SegmentReader { path, file: reader });
        let next = Segment { file: reader, first, offsets: Vec::new(), end: 0, kept: 0 };
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let sealed = index.segments.last().map(|last| Arc::clone(&last.file));
        index.segments.push(next);
        drop(index);
        if let Some(sealed) = sealed {
            segment::seal(&sealed.path);
        }
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

    fn settle(&self) -> Result<(), AppendError> {
        self.writable().map(drop)
    }

    fn sealed(&self) -> usize {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.segments.len().saturating_sub(1)
    }

    fn keep_places(&self, to: u64) -> io::Result<()> {
        places::keep(&self.folder, &self.index, to)
    }

    fn turn(&self) -> Result<Box<dyn Turn + '_>, AppendError> {
        let (writer, _) = self.writable()?;
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
            let mut each = |bundle: Bundle| {
                let head = bundle.head();
                each(unchained(bundle), head)
            };
            match bundles_of(&file, end, head, &mut each)? {
                ControlFlow::Continue(reached) => head = reached,
                ControlFlow::Break(()) => break,
            }
        }
        Ok(())
    }
}

/// Verifies the first `end` bytes of one segment, and hands each of its bundles to `each`. Answers the end of the
/// segment, unless `each` had enough.
fn bundles_of(
    segment: &SegmentReader,
    end: u64,
    after: Head,
    each: &mut dyn FnMut(Bundle) -> ControlFlow<()>,
) -> Result<ControlFlow<(), Head>, ReadError> {
    let io = |source| ReadError::Io { segment: segment.path.clone(), source };
    // A file of our own: the offset of the one that is read from is everybody's.
    let file = File::open(&segment.path).map_err(io)?;
    let mut is_enough = false;
    let scan = journal::scan(file.take(end), after, |bundle, _: &[u64]| {
        is_enough = is_enough || each(bundle).is_break();
        if is_enough { Err(io::Error::other("enough")) } else { Ok(()) }
    });
    let scan = match scan {
        Err(_) if is_enough => return Ok(ControlFlow::Break(())),
        scan => scan.map_err(io)?,
    };
    let problem = match scan.tail {
        Tail::Clean if scan.end == end => return Ok(ControlFlow::Continue(scan.head)),
        Tail::Clean | Tail::Torn { .. } => {
            Damage { offset: scan.end, seq: scan.head.seq + 1, problem: DamageProblem::Commit }
        }
        Tail::Damaged(damage) => damage,
    };
    Err(ReadError::Damaged { segment: segment.path.clone(), damage: problem })
}

fn unchained(bundle: Bundle) -> Unchained {
    let id = bundle.id().clone();
    let bodies = bundle.into_records().into_iter().map(|record| record.body().clone()).collect();
    Unchained::new(id, bodies).expect("what was committed as a bundle is one")
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
        let mut lines = std::mem::take(&mut writer.lines);
        lines.clear();
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
        writer.lines = lines;
        Ok(bundles)
    }
}

impl Writer {
    /// The writer that goes on where the index ends, once what is there is settled.
    fn unsettled(index: &Index, torn: Option<u64>) -> Self {
        let end = index.segments.last().map_or(0, |last| last.end);
        let lines = Lines::default();
        Self { head: index.head, end, file: None, unsettled: Some(torn), poison: None, lines }
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

impl Segment {
    /// A segment of which nothing is known yet.
    fn open(path: &Path, first: u64) -> io::Result<Self> {
        let file = Arc::new(SegmentReader { file: File::open(path)?, path: path.into() });
        Ok(Self { file, first, offsets: Vec::new(), end: 0, kept: 0 })
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

/// Whether there is no space, on the disk or within the quota: a state that passes, unlike a disk that fails.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What the segment that begins with the record `first` is called.
fn segment_name(first: u64) -> String {
    format!("{first:020}.ndjson")
}

#[cfg(test)]
mod tests;
