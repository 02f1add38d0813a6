//! The agent's folder, opened so that no path can leave it.
//!
//! Every file is opened with `openat2` beneath the folder's own descriptor and without following any symbolic
//! link, so that a link which appears between a look and an open changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};

/// A folder and the only ways into it.
#[derive(Debug, Clone)]
pub struct Tree {
    path: PathBuf,
    root: Arc<OwnedFd>,
}

/// What a tree held at one moment: names, and what the system says of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    marks: BTreeMap<String, Mark>,
}

/// Mode, size, and time of the last change in seconds and nanoseconds.
type Mark = (u32, i64, i64, u64);

impl Survey {
    /// The paths that were added, changed or removed since `before`, sorted. A file that was rewritten with its
    /// old bytes counts as changed.
    pub fn changed_since(&self, before: &Self) -> Vec<String> {
        let is_same = |path: &String| self.marks.get(path) == before.marks.get(path);
        let paths: BTreeSet<&String> = self.marks.keys().chain(before.marks.keys()).collect();
        paths.into_iter().filter(|path| !is_same(path)).cloned().collect()
    }
}

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// Nothing is there.
    #[error("`{0}` does not exist")]
    Missing(String),
    /// The path leaves the tree or passes through a symbolic link.
    #[error("`{0}` leaves the repository or passes through a symbolic link")]
    Outside(String),
    /// A folder, a device, a pipe or a socket.
    #[error("`{path}` is {kind}, not a regular file")]
    NotAFile {
        /// The path as it was given.
        path: String,
        /// What it is, with its article.
        kind: &'static str,
    },
    /// More bytes than the caller wants.
    #[error("`{path}` has {size} bytes; at most {limit} can be read")]
    TooLarge {
        /// The path as it was given.
        path: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The system refused.
    #[error("`{path}`: {source}")]
    Io {
        /// The path as it was given.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// One name in a folder of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Relative to the tree, `/` between components.
    pub path: String,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// Whether it is a regular file.
    pub is_file: bool,
}

impl Tree {
    /// Opens the folder `path`, which must exist.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { path: path.to_owned(), root: Arc::new(root) })
    }

    /// Where the folder is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of a regular file of at most `limit` bytes.
    pub fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, TreeError> {
        let file = self.open_file(path, limit)?;
        let size = file.metadata().map_or(0, |metadata| metadata.len().min(limit));
        // All of it at once: a vector that grows would take the room of two.
        let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0).saturating_add(1));
        // The file may grow while it is read: one byte more than the limit is enough to know.
        let read = file.take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|source| TreeError::Io { path: path.to_owned(), source })?;
        if bytes.len() as u64 > limit {
            return Err(TreeError::TooLarge { path: path.to_owned(), size: bytes.len() as u64, limit });
        }
        Ok(bytes)
    }

    /// A regular file of at most `limit` bytes, to read from. It may grow while it is read.
    pub fn open_file(&self, path: &str, limit: u64) -> Result<std::fs::File, TreeError> {
        // NONBLOCK, so that a pipe which the agent made cannot hold the open for ever.
        let file = self.beneath(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let size = regular_size(path, &file)?;
        if size > limit {
            return Err(TreeError::TooLarge { path: path.to_owned(), size, limit });
        }
        Ok(file.into())
    }

    /// Whether anything has this name, a dangling link included.
    pub fn exists(&self, path: &str) -> Result<bool, TreeError> {
        match self.beneath(path, OFlags::PATH) {
            Ok(_) => Ok(true),
            Err(TreeError::Missing(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Puts `bytes` in place of the file in one step, or makes it with its folders. A file that was there keeps
    /// its mode; a new one is readable by all. A crash leaves the old bytes or the new, and at worst a
    /// `.leviathan-write-*` file beside them.
    pub fn write(&self, path: &str, bytes: &[u8]) -> Result<(), TreeError> {
        let io_error = |source: io::Error| TreeError::Io { path: path.to_owned(), source };
        let mode = match self.beneath(path, OFlags::PATH) {
            Ok(file) => existing_mode(path, &file)?,
            Err(TreeError::Missing(_)) => Mode::from_raw_mode(0o644),
            Err(error) => return Err(error),
        };
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let folder = self.make_folders(folder)?;
        let temporary = format!(".leviathan-write-{}", uuid::Uuid::new_v4().simple());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&folder, &temporary, flags, mode).map_err(|e| io_error(e.into()))?;
        let written = (|| {
            // The process's umask must not take bits from a mode that was there.
            rustix::fs::fchmod(&file, mode)?;
            let mut file = std::fs::File::from(file);
            file.write_all(bytes)?;
            file.sync_all()?;
            rustix::fs::renameat(&folder, &temporary, &folder, name)?;
            Ok(())
        })();
        if written.is_err() {
            // Best effort: the gate refuses what is left behind, so it cannot reach a commit.
            let _ = rustix::fs::unlinkat(&folder, &temporary, AtFlags::empty());
        }
        written.map_err(io_error)
    }

    /// The names in a folder (`""` is the tree itself), sorted, without `.git`.
    pub fn list(&self, folder: &str) -> Result<Vec<Listed>, TreeError> {
        let io_error = |e: rustix::io::Errno| TreeError::Io { path: shown(folder), source: e.into() };
        let opened = self.beneath(folder, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&opened).map_err(io_error)? {
            let entry = entry.map_err(io_error)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if matches!(name.as_str(), "." | ".." | ".git") {
                continue;
            }
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            let is_folder = entry.file_type() == rustix::fs::FileType::Directory;
            let is_file = entry.file_type() == rustix::fs::FileType::RegularFile;
            names.push(Listed { path, is_folder, is_file });
        }
        names.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(names)
    }

    /// Calls `visit` for everything beneath `folder` that is no folder, sorted, folder by folder, until it
    /// returns false. What cannot be opened (it vanished, or it is a link now) is passed over.
    pub fn walk(&self, folder: &str, mut visit: impl FnMut(&Listed) -> bool) -> Result<(), TreeError> {
        let mut waiting = vec![self.list(folder)?.into_iter()];
        while let Some(names) = waiting.last_mut() {
            let Some(name) = names.next() else {
                waiting.pop();
                continue;
            };
            if !name.is_folder && !visit(&name) {
                return Ok(());
            }
            if name.is_folder
                && waiting.len() < DEEPEST
                && let Ok(inner) = self.list(&name.path)
            {
                waiting.push(inner.into_iter());
            }
        }
        Ok(())
    }

    /// What the tree holds now, without reading any file: one `stat` for each.
    pub fn survey(&self) -> Result<Survey, TreeError> {
        let mut marks = BTreeMap::new();
        self.walk("", |name| {
            if let Ok(stat) = rustix::fs::statat(&*self.root, &name.path, AtFlags::SYMLINK_NOFOLLOW) {
                let mark = (stat.st_mode, stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
                marks.insert(name.path.clone(), mark);
            }
            true
        })?;
        Ok(Survey { marks })
    }

    fn beneath(&self, path: &str, flags: OFlags) -> Result<OwnedFd, TreeError> {
        open_beneath(&*self.root, path, flags)
    }

    fn make_folders(&self, folder: &str) -> Result<OwnedFd, TreeError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let mut opened = self.beneath("", flags)?;
        for name in folder.split('/').filter(|name| !name.is_empty()) {
            match rustix::fs::mkdirat(&opened, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(TreeError::Io { path: folder.to_owned(), source: error.into() }),
            }
            opened = open_beneath(&opened, name, flags)?;
        }
        Ok(opened)
    }
}

/// Folders within folders, beyond which a walk does not go.
const DEEPEST: usize = 128;

fn open_beneath(root: impl AsFd, path: &str, flags: OFlags) -> Result<OwnedFd, TreeError> {
    use rustix::io::Errno;
    let name = if path.is_empty() { "." } else { path };
    // O_PATH|O_NOFOLLOW would open a link itself; NO_SYMLINKS makes that an error too.
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        return match rustix::fs::openat2(&root, name, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Ok(file) => Ok(file),
            // The kernel asks to try again when it lost a race with a rename.
            Err(Errno::AGAIN | Errno::INTR) => continue,
            // An old kernel, or a sandbox that has its own.
            Err(Errno::NOSYS) => open_step_by_step(&root, path, flags),
            Err(Errno::NOENT | Errno::NOTDIR) => Err(TreeError::Missing(shown(path))),
            Err(Errno::XDEV | Errno::LOOP) => Err(TreeError::Outside(shown(path))),
            Err(Errno::NXIO) => Err(TreeError::NotAFile { path: shown(path), kind: "a pipe or socket" }),
            Err(error) => Err(TreeError::Io { path: shown(path), source: error.into() }),
        };
    }
}

/// The same where the kernel has no `openat2`: each folder is opened by itself and must be one.
fn open_step_by_step(root: impl AsFd, path: &str, flags: OFlags) -> Result<OwnedFd, TreeError> {
    use rustix::io::Errno;
    let outside = || TreeError::Outside(shown(path));
    let io_error = |error: Errno| TreeError::Io { path: shown(path), source: error.into() };
    let mut names: Vec<&str> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    if path.starts_with('/') || names.contains(&"..") {
        return Err(outside());
    }
    let last = names.pop().unwrap_or(".");
    let open = |folder: &OwnedFd, name: &str, flags: OFlags| -> Result<OwnedFd, TreeError> {
        let opened =
            rustix::fs::openat(folder, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        let opened = opened.map_err(|error| match error {
            Errno::NOENT => TreeError::Missing(shown(path)),
            Errno::LOOP => outside(),
            // With NOFOLLOW a link is no folder either.
            Errno::NOTDIR if is_link(folder, name) => outside(),
            Errno::NOTDIR => TreeError::Missing(shown(path)),
            Errno::NXIO => TreeError::NotAFile { path: shown(path), kind: "a pipe or socket" },
            error => io_error(error),
        })?;
        // O_PATH|O_NOFOLLOW opens a link itself.
        let stat = rustix::fs::fstat(&opened).map_err(io_error)?;
        let is_link = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_symlink();
        if is_link { Err(outside()) } else { Ok(opened) }
    };
    let mut folder = rustix::io::dup(&root).map_err(io_error)?;
    for name in names {
        folder = open(&folder, name, OFlags::PATH | OFlags::DIRECTORY)?;
    }
    open(&folder, last, flags)
}

fn is_link(folder: &OwnedFd, name: &str) -> bool {
    let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_symlink())
}

fn regular_size(path: &str, file: &OwnedFd) -> Result<u64, TreeError> {
    let stat = rustix::fs::fstat(file).map_err(|e| TreeError::Io { path: shown(path), source: e.into() })?;
    let file_type = rustix::fs::FileType::from_raw_mode(stat.st_mode);
    if file_type.is_file() {
        return Ok(u64::try_from(stat.st_size).unwrap_or(u64::MAX));
    }
    let kind = if file_type.is_dir() { "a folder" } else { "a device, pipe or socket" };
    Err(TreeError::NotAFile { path: shown(path), kind })
}

fn existing_mode(path: &str, file: &OwnedFd) -> Result<Mode, TreeError> {
    regular_size(path, file)?;
    let stat = rustix::fs::fstat(file).map_err(|e| TreeError::Io { path: shown(path), source: e.into() })?;
    // Set-user-id and its kin are not bits that a rewritten file should keep.
    Ok(Mode::from_raw_mode(stat.st_mode & 0o777))
}

fn shown(path: &str) -> String {
    if path.is_empty() { ".".to_owned() } else { path.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, Tree) {
        let folder = tempfile::tempdir().unwrap();
        let tree = Tree::open(folder.path()).unwrap();
        (folder, tree)
    }

    #[test]
    fn writes_make_folders_and_keep_the_mode() {
        use std::os::unix::fs::PermissionsExt as _;
        let (folder, tree) = tree();
        tree.write("a/b/run.sh", b"one").unwrap();
        let path = folder.path().join("a/b/run.sh");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        tree.write("a/b/run.sh", b"two").unwrap();
        assert_eq!(tree.read("a/b/run.sh", 10).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(tree.list("a/b").unwrap().len(), 1, "no temporary file is left");
    }

    #[test]
    fn no_path_leaves_the_tree() {
        let (folder, tree) = tree();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("canary"), "secret").unwrap();
        std::os::unix::fs::symlink(outside.path(), folder.path().join("link")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("canary"), folder.path().join("file")).unwrap();
        std::os::unix::fs::symlink("/proc/self/environ", folder.path().join("environ")).unwrap();
        let absolute = outside.path().join("canary");
        for path in ["link/canary", "file", "environ", "../x", "/etc/passwd", absolute.to_str().unwrap()] {
            assert!(matches!(tree.read(path, 100), Err(TreeError::Outside(_))), "{path}");
            assert!(tree.write(path, b"overwritten").is_err(), "{path}");
        }
        assert_eq!(std::fs::read_to_string(outside.path().join("canary")).unwrap(), "secret");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    }

    #[test]
    fn both_ways_of_opening_agree() {
        let (folder, tree) = tree();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("canary"), "secret").unwrap();
        std::os::unix::fs::symlink(outside.path(), folder.path().join("link")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("canary"), folder.path().join("file")).unwrap();
        tree.write("a/b/c", b"x").unwrap();
        let absolute = outside.path().join("canary");
        let absolute = absolute.to_str().unwrap();
        let paths =
            ["", "a", "a/b/c", "a/b/c/d", "a/x", "x/y", "link", "link/canary", "file", "a/../a/b", "../x"];
        for path in paths.into_iter().chain([absolute]) {
            for flags in [OFlags::RDONLY, OFlags::PATH, OFlags::PATH | OFlags::DIRECTORY] {
                let word = |opened: Result<OwnedFd, TreeError>| match opened {
                    Ok(_) => "opened".to_owned(),
                    Err(error) => error.to_string(),
                };
                let (one, other) = (tree.beneath(path, flags), open_step_by_step(&*tree.root, path, flags));
                let is_outside = |opened: &Result<_, _>| matches!(opened, Err(TreeError::Outside(_)));
                // What goes up and down again is opened by the one and refused by the other.
                if path != "a/../a/b" {
                    assert_eq!(word(one), word(other), "{path} {flags:?}");
                } else {
                    assert!(is_outside(&other), "{path} {flags:?}");
                }
            }
        }
    }

    #[test]
    fn a_link_that_comes_and_goes_never_leaks_what_is_outside() {
        let (folder, tree) = tree();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("x"), "secret").unwrap();
        std::fs::create_dir(folder.path().join("real")).unwrap();
        std::fs::write(folder.path().join("real/x"), "inside").unwrap();
        std::os::unix::fs::symlink(outside.path(), folder.path().join("other")).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    rustix::fs::renameat_with(
                        rustix::fs::CWD,
                        folder.path().join("real"),
                        rustix::fs::CWD,
                        folder.path().join("other"),
                        rustix::fs::RenameFlags::EXCHANGE,
                    )
                    .unwrap();
                }
            });
            for _ in 0..4000 {
                if let Ok(bytes) = tree.read("real/x", 100) {
                    assert_eq!(bytes, b"inside");
                }
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }

    #[test]
    fn pipes_folders_and_large_files_are_refused_at_once() {
        let (folder, tree) = tree();
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        std::fs::write(folder.path().join("large"), [0; 100]).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            folder.path().join("pipe"),
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        for path in ["pipe", "folder"] {
            assert!(matches!(tree.read(path, 10), Err(TreeError::NotAFile { .. })), "{path}");
            assert!(tree.write(path, b"x").is_err(), "{path}");
        }
        assert!(matches!(tree.read("large", 10), Err(TreeError::TooLarge { size: 100, .. })));
        assert!(matches!(tree.read("missing", 10), Err(TreeError::Missing(_))));
    }

    #[test]
    fn a_survey_tells_what_was_added_changed_and_removed() {
        let (folder, tree) = tree();
        let path = |name: &str| folder.path().join(name);
        for name in ["kept", "changed", "removed", "a/b"] {
            tree.write(name, b"1").unwrap();
        }
        let before = tree.survey().unwrap();
        assert!(tree.survey().unwrap().changed_since(&before).is_empty());
        tree.write("changed", b"23").unwrap();
        tree.write("a/c/added", b"1").unwrap();
        std::fs::remove_file(path("removed")).unwrap();
        std::os::unix::fs::symlink("kept", path("link")).unwrap();
        std::fs::create_dir(path("empty")).unwrap();
        std::fs::create_dir(path(".git")).unwrap();
        std::fs::write(path(".git/config"), "").unwrap();
        let changed = tree.survey().unwrap().changed_since(&before);
        assert_eq!(changed, ["a/c/added", "changed", "link", "removed"]);
    }
}
