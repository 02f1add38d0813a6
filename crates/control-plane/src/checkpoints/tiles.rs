//! Tiles as files. What is in them follows from the log: whatever is missing or wrong can be made again, and
//! nothing that is read here is believed before it led to a signed root.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use journal::{Tile, TileHashes, TileSizeError};

use crate::durable;

/// The tiles of one log, in a folder of their own.
pub(super) struct TileFolder {
    folder: PathBuf,
}

/// Why a tile is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// There is no file, or it cannot be read.
    #[error("{tile} cannot be read: {source}")]
    Io {
        /// The tile.
        tile: Tile,
        /// What failed.
        source: io::Error,
    },
    /// It was cut or has grown.
    #[error(transparent)]
    Size(#[from] TileSizeError),
}

impl TileFolder {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Whether any tile was ever written.
    pub(super) fn is_empty(&self) -> io::Result<bool> {
        match fs::read_dir(&self.folder) {
            Ok(mut entries) => Ok(entries.next().is_none()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Whether every tile of a tree of `size` leaves has a file of its length.
    pub(super) fn has_all(&self, size: u64) -> bool {
        Tile::between(0, size).all(|tile| {
            let length = u64::from(tile.width()) * 32;
            fs::metadata(self.path(tile)).is_ok_and(|file| file.len() == length)
        })
    }

    /// Reads a tile, or the beginning of the same tile when it was wider. Verifies nothing.
    pub(super) fn read(&self, tile: Tile) -> Result<TileHashes, Unreadable> {
        let exact = match self.read_exact(tile) {
            Err(Unreadable::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => source,
            read => return read,
        };
        // A narrower one is removed once a wider one is there, perhaps while we look.
        let wider = self.wider(tile).into_iter().find_map(|wider| self.read_exact(wider).ok());
        let narrowed = wider.and_then(|wider| wider.narrowed(tile.width()));
        narrowed.ok_or(Unreadable::Io { tile, source: exact })
    }

    fn read_exact(&self, tile: Tile) -> Result<TileHashes, Unreadable> {
        let bytes = fs::read(self.path(tile)).map_err(|source| Unreadable::Io { tile, source })?;
        Ok(TileHashes::from_bytes(tile, &bytes)?)
    }

    /// The same tile as it is there with more hashes, the full one first.
    fn wider(&self, tile: Tile) -> Vec<Tile> {
        let partial = self.widths(tile).into_iter().filter(|width| *width > tile.width());
        [tile.filled()].into_iter().chain(partial.map(|width| tile.of_width(width))).collect()
    }

    /// The widths in which a partial tile has files.
    fn widths(&self, tile: Tile) -> Vec<u16> {
        let entries = fs::read_dir(self.partial_folder(tile)).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        names.filter(|width| (1..journal::TILE_WIDTH).contains(width)).collect()
    }

    /// Writes tiles so that a crash leaves each of them whole or absent. What is there already is not written
    /// again.
    pub(super) fn write(&self, tiles: &[TileHashes]) -> io::Result<()> {
        let mut changed = BTreeSet::new();
        for hashes in tiles {
            let (path, bytes) = (self.path(hashes.tile()), hashes.to_bytes());
            if fs::read(&path).is_ok_and(|kept| kept == bytes) {
                continue;
            }
            let folder = path.parent().unwrap_or(&self.folder);
            create_folder(folder, &mut changed)?;
            // Others may keep their tiles in the same folder.
            durable::write_whole_among_others(&path, &[&bytes])?;
            changed.insert(folder.to_owned());
        }
        changed.iter().try_for_each(|folder| durable::sync_folder(folder))
    }

    /// Removes the narrower files of tiles that are there as wide as given. Readers find them in the wider ones.
    pub(super) fn tidy(&self, tiles: &[TileHashes]) {
        for tile in tiles.iter().map(TileHashes::tile) {
            for width in self.widths(tile).into_iter().filter(|width| *width < tile.width()) {
                // Whatever stays costs a little space and nothing else.
                let _ = fs::remove_file(self.path(tile.of_width(width)));
            }
            if tile.is_full() {
                let _ = fs::remove_dir(self.partial_folder(tile));
            }
        }
    }

    fn path(&self, tile: Tile) -> PathBuf {
        let path = tile.to_string();
        self.folder.join(path.strip_prefix("tile/").unwrap_or(&path))
    }

    fn partial_folder(&self, tile: Tile) -> PathBuf {
        let mut folder = self.path(tile.filled()).into_os_string();
        folder.push(".p");
        folder.into()
    }
}

/// Makes a folder and those above it, and remembers in which folders a name is new.
fn create_folder(folder: &Path, changed: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    match fs::create_dir(folder) {
        Ok(()) => {
            changed.extend(folder.parent().map(Path::to_owned));
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create_folder(folder.parent().ok_or(error)?, changed)?;
            create_folder(folder, changed)
        }
        Err(error) => Err(error),
    }
}
