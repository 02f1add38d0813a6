//! Reading the agent's tree without being led out of it, held up by it, or filled up by it.
//!
//! Every open goes through `openat2` with `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`, so that a folder that
//! is exchanged for a link leads nowhere. Pipes cannot block, devices are not opened, `.git` at the root is the
//! agent's own affair and is not looked at. This module knows no git process and no rules.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use model::ObjectId;
use model::change::{Irregularity, IrregularityKind};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sha1::{Digest as _, Sha1};
use sha2::Sha256;

use super::SnapshotError;
use crate::export::escaped;
use crate::repository::ObjectFormat;

/// What was found in a tree.
pub(super) struct Walked {
    pub(super) files: Vec<Found>,
    pub(super) irregularities: Vec<Irregularity>,
}

/// One file or link of the tree.
#[derive(Debug)]
pub(super) struct Found {
    /// From the root of the tree, `/` between components.
    pub(super) path: Vec<u8>,
    pub(super) mode: model::change::Mode,
    pub(super) size: u64,
    /// The name that git would give to its content; none when the file is too large to be read unasked.
    pub(super) object: Option<ObjectId>,
}

/// An open tree.
pub(super) struct Tree {
    root: OwnedFd,
}

/// A tree with more irregularities than this is not described further.
const MOST_IRREGULARITIES: usize = 1000;
/// More threads would wait for the same disk.
const MOST_THREADS: usize = 8;

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// `NONBLOCK`: opening a pipe that takes the place of a file returns at once.
const FILE: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

impl Tree {
    /// Opens the folder that holds the tree. The path to it is ours.
    pub(super) fn open(root: &Path) -> Result<Self, SnapshotError> {
        let flags = FOLDER | OFlags::NOFOLLOW;
        let root = rustix::fs::open(root, flags, Mode::empty()).map_err(|error| SnapshotError::Read {
            path: root.display().to_string(),
            source: error.into(),
        })?;
        Ok(Self { root })
    }

    /// Finds everything in the tree and hashes each file of at most `file_bytes` bytes.
    pub(super) fn walk(
        &self,
        format: ObjectFormat,
        file_bytes: u64,
        most_entries: u64,
    ) -> Result<Walked, SnapshotError> {
        let listing = self.list(most_entries)?;
        let next = AtomicUsize::new(0);
        let walked = Mutex::new(Walked { files: Vec::new(), irregularities: listing.irregularities });
        let folders = &listing.folders;
        let work = || -> Result<(), SnapshotError> {
            let mut own = Walked { files: Vec::new(), irregularities: Vec::new() };
            while let Some(folder) = folders.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.read_folder(folder, format, file_bytes, &mut own)?;
            }
            let mut all = walked.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            all.files.append(&mut own.files);
            all.irregularities.append(&mut own.irregularities);
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (1..threads_for(folders.len())).map(|_| scope.spawn(work)).collect();
            let own = work();
            threads.into_iter().fold(own, |outcome, thread| {
                outcome.and(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            })
        })?;
        let walked = walked.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        if walked.irregularities.len() > MOST_IRREGULARITIES {
            return Err(SnapshotError::TooLarge(format!(
                "more than {MOST_IRREGULARITIES} irregular entries"
            )));
        }
        Ok(walked)
    }

    /// The name that git would give to the content of the file, whatever its size.
    pub(super) fn hash(&self, path: &[u8], format: ObjectFormat) -> Result<ObjectId, SnapshotError> {
        let mut file = self.open_file(path)?;
        let size = file.metadata().map_err(|source| unreadable(path, source))?.len();
        hash(&mut file, size, format, path)
    }

    /// Opens a regular file of the tree for reading.
    pub(super) fn open_file(&self, path: &[u8]) -> Result<File, SnapshotError> {
        let file = open_beneath(&self.root, path, FILE).map_err(|error| unreadable(path, error.into()))?;
        let file = File::from(file);
        match file.metadata() {
            Ok(metadata) if metadata.is_file() => Ok(file),
            Ok(_) => Err(SnapshotError::Moving(escaped(path))),
            Err(source) => Err(unreadable(path, source)),
        }
    }

    /// The text of a symbolic link of the tree.
    pub(super) fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, SnapshotError> {
        let link = open_beneath(&self.root, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC)
            .map_err(|error| unreadable(path, error.into()))?;
        link_text(&link).map_err(|error| unreadable(path, error.into()))
    }

    /// Lists every folder with the entries that are no folders.
    fn list(&self, most_entries: u64) -> Result<Listing, SnapshotError> {
        let mut listing = Listing { folders: Vec::new(), irregularities: Vec::new() };
        let mut waiting = vec![Vec::new()];
        let mut entries = 0;
        while let Some(path) = waiting.pop() {
            match self.list_folder(&path, most_entries, &mut entries) {
                Ok(Contents { names, folders, nested }) => {
                    listing.irregularities.extend(nested.then(|| nested_repository(&path)));
                    waiting.extend(folders);
                    listing.folders.push(Folder { path, names });
                }
                Err(ListError::TooMany) => {
                    return Err(SnapshotError::TooLarge(format!("more than {most_entries} entries")));
                }
                // The machine's trouble, not the tree's.
                Err(ListError::System(Errno::NOSYS)) => {
                    let problem = "this system lacks `openat2`, without which no tree is read safely";
                    return Err(unreadable(&path, io::Error::other(problem)));
                }
                Err(ListError::System(error @ (Errno::NFILE | Errno::MFILE | Errno::NOMEM | Errno::IO))) => {
                    return Err(unreadable(&path, error.into()));
                }
                Err(ListError::System(error)) => {
                    listing.irregularities.push(special(&path, &error.to_string()))
                }
            }
            if listing.irregularities.len() > MOST_IRREGULARITIES {
                return Err(SnapshotError::TooLarge(format!(
                    "more than {MOST_IRREGULARITIES} irregular entries"
                )));
            }
        }
        Ok(listing)
    }

    /// Opens a folder of the tree; the empty path is the tree itself.
    fn open_folder(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let path = if path.is_empty() { b"." } else { path };
        open_beneath(&self.root, path, FOLDER | OFlags::NOFOLLOW)
    }

    fn list_folder(&self, path: &[u8], limit: u64, entries: &mut u64) -> Result<Contents, ListError> {
        let folder = self.open_folder(path)?;
        let mut contents = Contents::default();
        for entry in rustix::fs::Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            match name.to_bytes() {
                b"." | b".." => continue,
                b".git" if path.is_empty() => continue,
                b".git" => {
                    contents.nested = true;
                    continue;
                }
                _ => {}
            }
            *entries += 1;
            if *entries > limit {
                return Err(ListError::TooMany);
            }
            let mut kind = entry.file_type();
            if kind == FileType::Unknown {
                let found = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
                kind = FileType::from_raw_mode(found.st_mode);
            }
            if kind == FileType::Directory {
                contents.folders.push(joined(path, name.to_bytes()));
            } else {
                contents.names.push(name.to_owned());
            }
        }
        Ok(contents)
    }

    fn read_folder(
        &self,
        folder: &Folder,
        format: ObjectFormat,
        file_bytes: u64,
        walked: &mut Walked,
    ) -> Result<(), SnapshotError> {
        if folder.names.is_empty() {
            return Ok(());
        }
        let opened =
            self.open_folder(&folder.path).map_err(|_| SnapshotError::Moving(escaped(&folder.path)))?;
        for name in &folder.names {
            let path = joined(&folder.path, name.to_bytes());
            match read_entry(&opened, name, path, format, file_bytes)? {
                Entry::Found(found) => walked.files.push(found),
                Entry::Irregular(irregularity) => walked.irregularities.push(irregularity),
            }
        }
        Ok(())
    }
}

struct Listing {
    folders: Vec<Folder>,
    irregularities: Vec<Irregularity>,
}

struct Folder {
    path: Vec<u8>,
    names: Vec<CString>,
}

#[derive(Default)]
struct Contents {
    names: Vec<CString>,
    folders: Vec<Vec<u8>>,
    /// Whether there is a `.git` in it.
    nested: bool,
}

enum ListError {
    TooMany,
    System(Errno),
}

impl From<Errno> for ListError {
    fn from(error: Errno) -> Self {
        Self::System(error)
    }
}

enum Entry {
    Found(Found),
    Irregular(Irregularity),
}

fn read_entry(
    folder: &OwnedFd,
    name: &CStr,
    path: Vec<u8>,
    format: ObjectFormat,
    file_bytes: u64,
) -> Result<Entry, SnapshotError> {
    // An `O_PATH` descriptor runs nothing: no device is opened, no pipe is waited for.
    let handle = match open_beneath_name(folder, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC) {
        Ok(handle) => handle,
        Err(Errno::NOENT) => return Err(SnapshotError::Moving(escaped(&path))),
        Err(error) => return Ok(Entry::Irregular(special(&path, &error.to_string()))),
    };
    let status = rustix::fs::fstat(&handle).map_err(|error| unreadable(&path, error.into()))?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => read_file(folder, name, path, &status, format, file_bytes),
        FileType::Symlink => {
            let text = link_text(&handle).map_err(|error| unreadable(&path, error.into()))?;
            let object = hash(&mut text.as_slice(), text.len() as u64, format, &path)?;
            let (mode, size) = (model::change::Mode::Symlink, text.len() as u64);
            Ok(Entry::Found(Found { path, mode, size, object: Some(object) }))
        }
        FileType::Directory => Err(SnapshotError::Moving(escaped(&path))),
        FileType::Fifo => Ok(Entry::Irregular(special(&path, "it is a pipe"))),
        FileType::Socket => Ok(Entry::Irregular(special(&path, "it is a socket"))),
        FileType::CharacterDevice | FileType::BlockDevice => {
            Ok(Entry::Irregular(special(&path, "it is a device")))
        }
        FileType::Unknown => Ok(Entry::Irregular(special(&path, "its type is unknown"))),
    }
}

fn read_file(
    folder: &OwnedFd,
    name: &CStr,
    path: Vec<u8>,
    seen: &rustix::fs::Stat,
    format: ObjectFormat,
    file_bytes: u64,
) -> Result<Entry, SnapshotError> {
    let file = match open_beneath_name(folder, name, FILE) {
        Ok(file) => file,
        Err(Errno::ACCESS | Errno::PERM) => {
            return Ok(Entry::Irregular(special(&path, "it cannot be read: permission denied")));
        }
        Err(error) => return Err(unreadable(&path, error.into())),
    };
    let status = rustix::fs::fstat(&file).map_err(|error| unreadable(&path, error.into()))?;
    if (status.st_dev, status.st_ino) != (seen.st_dev, seen.st_ino) {
        return Err(SnapshotError::Moving(escaped(&path)));
    }
    let size = u64::try_from(status.st_size).unwrap_or(0);
    let is_executable = status.st_mode & 0o100 != 0;
    let mode = if is_executable { model::change::Mode::Executable } else { model::change::Mode::Regular };
    let object =
        if size > file_bytes { None } else { Some(hash(&mut File::from(file), size, format, &path)?) };
    Ok(Entry::Found(Found { path, mode, size, object }))
}

fn open_beneath(root: impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = CString::new(path).map_err(|_| Errno::INVAL)?;
    open_beneath_name(root, &path, flags)
}

fn open_beneath_name(root: impl AsFd, name: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    // `O_PATH | O_NOFOLLOW` still opens a link itself, as the last component.
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    loop {
        match rustix::fs::openat2(&root, name, flags, Mode::empty(), resolve) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            outcome => return outcome,
        }
    }
}

fn link_text(link: &OwnedFd) -> Result<Vec<u8>, Errno> {
    rustix::fs::readlinkat(link, c"", Vec::new()).map(CString::into_bytes)
}

/// Hashes exactly `size` bytes as git would; a file that has more or fewer by now is being changed.
fn hash(
    content: &mut dyn Read,
    size: u64,
    format: ObjectFormat,
    path: &[u8],
) -> Result<ObjectId, SnapshotError> {
    let head = format!("blob {size}\0");
    let name = match format {
        ObjectFormat::Sha1 => digest(Sha1::new_with_prefix(head), content, size, path)?,
        ObjectFormat::Sha256 => digest(Sha256::new_with_prefix(head), content, size, path)?,
    };
    Ok(ObjectId::parse(name).expect("a hexadecimal digest is an object name"))
}

fn digest<D: sha2::Digest>(
    mut hasher: D,
    content: &mut dyn Read,
    size: u64,
    path: &[u8],
) -> Result<String, SnapshotError> {
    let mut buffer = [0; 1 << 15];
    let mut read = 0;
    loop {
        match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                read += count as u64;
                if read > size {
                    return Err(SnapshotError::Moving(escaped(path)));
                }
                hasher.update(&buffer[..count]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => return Err(unreadable(path, source)),
        }
    }
    if read == size { Ok(hex::encode(hasher.finalize())) } else { Err(SnapshotError::Moving(escaped(path))) }
}

fn joined(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if folder.is_empty() { name.to_vec() } else { [folder, b"/", name].concat() }
}

fn unreadable(path: &[u8], source: io::Error) -> SnapshotError {
    SnapshotError::Read { path: escaped(path), source }
}

fn special(path: &[u8], detail: &str) -> Irregularity {
    Irregularity { path: escaped(path), kind: IrregularityKind::SpecialFile, detail: detail.to_owned() }
}

fn nested_repository(folder: &[u8]) -> Irregularity {
    Irregularity {
        path: escaped(folder),
        kind: IrregularityKind::NestedRepository,
        detail: "it holds a `.git` of its own, whose files nobody would review".to_owned(),
    }
}

fn threads_for(folders: usize) -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS).min(folders)
}
