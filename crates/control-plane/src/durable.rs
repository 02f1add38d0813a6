//! Files that a crash leaves whole or absent, never in between.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Puts `pieces`, one after the other, under `path` so that a reader sees all of them or what was there before.
/// The caller makes the name durable by [`sync_folder`].
pub(crate) fn write_whole(path: &Path, pieces: &[&[u8]]) -> io::Result<()> {
    write_by_way_of(path, "new", pieces)
}

/// The same where other processes may write the same file at this moment. A crash may leave a file of another name.
pub(crate) fn write_whole_among_others(path: &Path, pieces: &[&[u8]]) -> io::Result<()> {
    write_by_way_of(path, &format!("{}.new", uuid::Uuid::new_v4()), pieces)
}

fn write_by_way_of(path: &Path, ending: &str, pieces: &[&[u8]]) -> io::Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".");
    unfinished.push(ending);
    let mut file = File::create(&unfinished)?;
    pieces.iter().try_for_each(|piece| file.write_all(piece))?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
