//! Noticing cheaply that files of a tree were changed.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, statat};

/// What the file system says of each file and link of a tree. Every write, also one that restores the time of
/// modification, moves the time of change, which no call can set.
pub(super) struct Stamps(HashMap<PathBuf, Stamp>);

#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    mode: u32,
    size: i64,
    changed: (i64, i64),
}

impl Stamps {
    /// The stamps of every file and link below `root`.
    pub(super) fn take(root: &Path) -> io::Result<Self> {
        let root = openat(CWD, root, FOLDER, Mode::empty())?;
        let mut stamps = HashMap::new();
        walk(&root, |path, stamp| {
            stamps.insert(path, stamp);
        })?;
        Ok(Self(stamps))
    }

    /// The stamps of the same files once more. One that is gone or cannot be looked at has none; what came to the
    /// tree since is passed over, however much it is.
    pub(super) fn again(&self, root: &Path) -> Self {
        let mut stamps = HashMap::with_capacity(self.0.len());
        if let Ok(root) = openat(CWD, root, FOLDER, Mode::empty()) {
            // Where the walk cannot go on, the stamps that are missing tell.
            let _ = walk(&root, |path, stamp| {
                if self.0.contains_key(&path) {
                    stamps.insert(path, stamp);
                }
            });
        }
        Self(stamps)
    }

    /// The files of these stamps that are no longer the same in `later`.
    pub(super) fn differences(&self, later: &Self) -> Vec<&Path> {
        let differs = |(name, before): &(&PathBuf, &Stamp)| later.0.get(*name) != Some(*before);
        self.0.iter().filter(differs).map(|(name, _)| name.as_path()).collect()
    }
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Goes through every file and link below `root`. A folder that cannot be opened is passed over.
fn walk(root: &OwnedFd, mut each: impl FnMut(PathBuf, Stamp)) -> io::Result<()> {
    let mut folders = vec![PathBuf::from(".")];
    while let Some(path) = folders.pop() {
        let Ok(folder) = openat(root, &path, FOLDER, Mode::empty()) else { continue };
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(data) = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let path = path.join(OsStr::from_bytes(name.to_bytes()));
            if FileType::from_raw_mode(data.st_mode) == FileType::Directory {
                folders.push(path);
            } else {
                each(path, stamp(&data));
            }
        }
    }
    Ok(())
}

#[expect(
    clippy::unnecessary_cast,
    clippy::useless_conversion,
    reason = "the widths differ between architectures"
)]
fn stamp(data: &Stat) -> Stamp {
    Stamp {
        inode: data.st_ino.into(),
        mode: data.st_mode,
        size: data.st_size as i64,
        changed: (data.st_ctime as i64, data.st_ctime_nsec as i64),
    }
}

/// Whether two paths hold the same kind of thing with the same permissions to execute and the same content.
pub(super) fn is_same(one: &Path, other: &Path) -> bool {
    let same = || -> io::Result<bool> {
        let (a, b) = (fs::symlink_metadata(one)?, fs::symlink_metadata(other)?);
        if a.file_type() != b.file_type() || (a.mode() & 0o100) != (b.mode() & 0o100) {
            return Ok(false);
        }
        if a.is_symlink() {
            return Ok(fs::read_link(one)? == fs::read_link(other)?);
        }
        Ok(a.is_file() && a.len() == b.len() && fs::read(one)? == fs::read(other)?)
    };
    same().unwrap_or(false)
}
