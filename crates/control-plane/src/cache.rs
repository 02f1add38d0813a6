//! Files that follow from the log and only save time: what is damaged, foreign or of another version is not used.
//!
//! ```text
//! name of the format and its version, and a newline
//! u32be number of pieces, then for each: u64be length ‖ SHA-256
//! SHA-256 of everything above
//! the pieces
//! ```

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;

use model::compact::Compact;
use sha2::{Digest, Sha256};

use crate::durable;

/// What stands at the beginning of every cache of one kind. The version of the program is part of it: what an
/// event means may change from one to the next.
pub(crate) struct Format(pub(crate) &'static str);

/// What a cache is as a whole: the same pieces of the same format have the same.
pub(crate) type Fingerprint = [u8; 32];

/// A cache whose table is whole. Each piece is verified when it is taken.
pub(crate) struct Cached {
    bytes: Vec<u8>,
    pieces: Vec<(Range<usize>, Fingerprint)>,
    fingerprint: Fingerprint,
}

/// Why a cache is of no use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is something else, or of another version.
    #[error("it is not of this format and version")]
    Format,
    /// It was changed.
    #[error("it is damaged")]
    Damaged,
    /// It does not say what it should.
    #[error("it is whole, but {0}")]
    Content(String),
    /// It is of another log than the one that is there.
    #[error("the log is not the one that it was made from: {0}")]
    Foreign(&'static str),
}

impl Format {
    fn line(&self) -> String {
        format!("{} of {}\n", self.0, env!("CARGO_PKG_VERSION"))
    }

    fn table(&self, pieces: &[&[u8]]) -> Vec<u8> {
        let mut table = self.line().into_bytes();
        table.extend(u32::try_from(pieces.len()).unwrap_or(u32::MAX).to_be_bytes());
        for piece in pieces {
            table.extend((piece.len() as u64).to_be_bytes());
            table.extend(Sha256::digest(piece));
        }
        table
    }

    /// What a cache of these pieces would be as a whole.
    pub(crate) fn fingerprint(&self, pieces: &[&[u8]]) -> Fingerprint {
        Sha256::digest(self.table(pieces)).into()
    }

    /// Makes the cache `path` of these pieces, durably.
    pub(crate) fn write(&self, path: &Path, pieces: &[&[u8]]) -> io::Result<()> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let table = self.table(pieces);
        let fingerprint = Sha256::digest(&table);
        let parts: Vec<&[u8]> =
            [&table[..], &fingerprint[..]].into_iter().chain(pieces.iter().copied()).collect();
        durable::write_whole(path, &parts)?;
        durable::sync_folder(folder)
    }

    /// Reads a cache and verifies its table.
    pub(crate) fn read(&self, path: &Path) -> Result<Cached, Unusable> {
        let bytes = fs::read(path)?;
        let line = self.line();
        let mut rest = bytes.strip_prefix(line.as_bytes()).ok_or(Unusable::Format)?;
        let count = take(&mut rest).map(u32::from_be_bytes).ok_or(Unusable::Damaged)?;
        let mut entries = Vec::new();
        for _ in 0..count {
            let length = take(&mut rest).map(u64::from_be_bytes).ok_or(Unusable::Damaged)?;
            entries.push((length, take(&mut rest).ok_or(Unusable::Damaged)?));
        }
        let table = &bytes[..bytes.len() - rest.len()];
        let fingerprint = take(&mut rest).ok_or(Unusable::Damaged)?;
        if fingerprint != <[u8; 32]>::from(Sha256::digest(table)) {
            return Err(Unusable::Damaged);
        }
        let mut at = bytes.len() - rest.len();
        let mut pieces = Vec::new();
        for (length, digest) in entries {
            let end = usize::try_from(length).ok().and_then(|length| at.checked_add(length));
            let end = end.filter(|end| *end <= bytes.len()).ok_or(Unusable::Damaged)?;
            pieces.push((at..end, digest));
            at = end;
        }
        if at == bytes.len() { Ok(Cached { bytes, pieces, fingerprint }) } else { Err(Unusable::Damaged) }
    }
}

impl Cached {
    /// What it is as a whole.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// One piece, verified.
    pub(crate) fn piece(&self, n: usize) -> Result<&[u8], Unusable> {
        let (place, digest) = self.pieces.get(n).ok_or(Unusable::Damaged)?;
        let piece = &self.bytes[place.clone()];
        if *digest == <[u8; 32]>::from(Sha256::digest(piece)) { Ok(piece) } else { Err(Unusable::Damaged) }
    }
}

/// Values as a piece, one after the other.
pub(crate) fn column<T: Compact>(values: impl IntoIterator<Item = T>) -> Vec<u8> {
    let mut bytes = Vec::new();
    values.into_iter().for_each(|value| value.write(&mut bytes));
    bytes
}

/// The values that [`column`] wrote, up to the first that cannot be read.
pub(crate) fn values_of<T: Compact>(mut piece: &[u8]) -> impl Iterator<Item = Result<T, Unusable>> {
    std::iter::from_fn(move || (!piece.is_empty()).then(|| T::read(&mut piece).ok_or_else(unreadable)))
}

fn unreadable() -> Unusable {
    Unusable::Content("some of it cannot be read".to_owned())
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}
