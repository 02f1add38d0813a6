//! Noticing cheaply that files of a tree were changed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What the file system says of each file. Every write, also one that restores the time of modification, moves
/// the time of change, which no call can set.
pub(super) struct Stamps(BTreeMap<PathBuf, Option<Stamp>>);

#[derive(PartialEq, Eq)]
struct Stamp {
    inode: u64,
    mode: u32,
    size: u64,
    changed: (i64, i64),
}

impl Stamps {
    pub(super) fn take(root: &Path, names: &[PathBuf]) -> io::Result<Self> {
        let stamp = |name: &PathBuf| Ok((name.clone(), stamp_of(&root.join(name))?));
        names.iter().map(stamp).collect::<io::Result<_>>().map(Self)
    }

    /// The files that may have changed since; one that cannot be looked at any more is among them.
    pub(super) fn differences(&self, root: &Path) -> Vec<&Path> {
        let differs =
            |name: &Path, before: &Option<Stamp>| !stamp_of(&root.join(name)).is_ok_and(|now| now == *before);
        self.0.iter().filter(|(name, before)| differs(name, before)).map(|(name, _)| name.as_path()).collect()
    }
}

fn stamp_of(path: &Path) -> io::Result<Option<Stamp>> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(data) => Ok(Some(Stamp {
            inode: data.ino(),
            mode: data.mode(),
            size: data.size(),
            changed: (data.ctime(), data.ctime_nsec()),
        })),
    }
}

/// Every file and link below `root`, relative to it.
pub(super) fn files_below(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let name = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() { folders.push(name) } else { found.push(name) }
        }
    }
    Ok(found)
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
