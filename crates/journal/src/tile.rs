//! Tiles: the hashes of the tree in files of 256 that never change once they are full.
//!
//! The layout is that of <https://c2sp.org/tlog-tiles>. A tile at level 0 has the hashes of 256 leaves; each hash
//! of a tile at the level above stands for one full tile below. Whoever has the tiles of a log can make every
//! proof about it. This module says which tiles there are, what is in them and how they are named; it reads and
//! writes none.

use std::fmt;

use crate::merkle::{Frontier, Subtree, Unproven, peaks, prove_inclusion, verify_inclusion};
use crate::{TreeHash, decimal};

/// How many levels of the tree one tile spans.
const HEIGHT: u8 = 8;

/// How many hashes a full tile has.
pub const TILE_WIDTH: u16 = 256;

/// The most levels of tiles that a tree of any size has.
const LEVELS: u8 = 64 / HEIGHT;

/// The name of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    level: u8,
    index: u64,
    width: u16,
}

/// Text that names no tile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the path of a tile: expected for example tile/0/x001/067 or tile/0/x001/067.p/12")]
pub struct TilePathError(String);

/// Bytes that are not the hashes of a tile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{tile} should have {expected} bytes, not {found}")]
pub struct TileSizeError {
    /// The tile.
    pub tile: Tile,
    /// How many bytes its hashes have.
    pub expected: usize,
    /// How many there are.
    pub found: usize,
}

/// A tile with its hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TileHashes {
    tile: Tile,
    hashes: Vec<TreeHash>,
}

/// Where the hash of a subtree is found: these hashes of this tile, combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    tile: Tile,
    first: usize,
    count: usize,
}

/// Makes the tiles of a tree while it grows.
#[derive(Debug, Clone, Default)]
pub struct TileWriter {
    frontier: Frontier,
    /// For each level the hashes of its last tile, fewer than 256.
    edge: Vec<Vec<TreeHash>>,
    /// Tiles that filled up since the last cut.
    full: Vec<TileHashes>,
    /// The size at the last cut.
    cut: u64,
}

impl Tile {
    /// The tile of `level` and `index` in a tree of `size` leaves, as wide as it is there.
    pub fn in_tree(level: u8, index: u64, size: u64) -> Option<Self> {
        let below = hashes_at(level, size).checked_sub(index.checked_mul(u64::from(TILE_WIDTH))?)?;
        let width = u16::try_from(below).unwrap_or(u16::MAX).min(TILE_WIDTH);
        (width > 0).then_some(Self { level, index, width })
    }

    /// The tiles that a tree of `new` leaves has and one of `old` did not: full ones, and the partial one at the
    /// end of each level. Level by level, from the leaves up.
    pub fn between(old: u64, new: u64) -> impl Iterator<Item = Self> {
        (0..LEVELS).flat_map(move |level| {
            let (had, has) = (hashes_at(level, old), hashes_at(level, new));
            let width = u64::from(TILE_WIDTH);
            let indexes = if had < has { had / width..has.div_ceil(width) } else { 0..0 };
            indexes.filter_map(move |index| Self::in_tree(level, index, new))
        })
    }

    /// 0 for leaves.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Its place in its level, from 0.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes it has, from 1 to 256.
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Whether it will never change again.
    pub fn is_full(&self) -> bool {
        self.width == TILE_WIDTH
    }

    /// The same tile with all its hashes, which it gets when the tree grows.
    pub fn filled(&self) -> Self {
        Self { width: TILE_WIDTH, ..*self }
    }

    /// The same tile with its first `width` hashes.
    ///
    /// # Panics
    ///
    /// When that is none, or more than 256.
    pub fn of_width(&self, width: u16) -> Self {
        assert!((1..=TILE_WIDTH).contains(&width), "no tile has {width} hashes");
        Self { width, ..*self }
    }

    /// Whether a tree of `size` leaves has this tile, perhaps with more hashes.
    pub fn is_in(&self, size: u64) -> bool {
        Self::in_tree(self.level, self.index, size).is_some_and(|widest| self.width <= widest.width)
    }

    /// The subtree that the hash number `n` of this tile stands for.
    pub fn subtree(&self, n: u16) -> Subtree {
        let index = self.index * u64::from(TILE_WIDTH) + u64::from(n);
        Subtree { height: self.level * HEIGHT, index }
    }

    /// Reads a path as [`Tile`]'s `Display` writes it.
    pub fn parse(path: &str) -> Result<Self, TilePathError> {
        let parts = || {
            let (level, rest) = path.strip_prefix("tile/")?.split_once('/')?;
            let level = decimal(level).and_then(|level| u8::try_from(level).ok())?;
            let (index, width) = match rest.split_once(".p/") {
                Some((index, width)) => (index, u16::try_from(decimal(width)?).ok()?),
                None => (rest, TILE_WIDTH),
            };
            let tile = Self { level, index: parse_index(index)?, width };
            // What is written the same is the same: this refuses every other spelling, and a width of 256.
            (level < LEVELS && width > 0 && tile.to_string() == path).then_some(tile)
        };
        parts().ok_or_else(|| TilePathError(path.chars().take(80).flat_map(char::escape_debug).collect()))
    }
}

/// The path of the tile below the log: `tile/LEVEL/INDEX`, then `.p/WIDTH` while it is partial.
impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut path = format!("{:03}", self.index % 1_000);
        let mut rest = self.index / 1_000;
        while rest > 0 {
            path = format!("x{:03}/{path}", rest % 1_000);
            rest /= 1_000;
        }
        write!(f, "tile/{}/{path}", self.level)?;
        if self.is_full() { Ok(()) } else { write!(f, ".p/{}", self.width) }
    }
}

impl TileHashes {
    /// Takes the bytes of a tile apart.
    pub fn from_bytes(tile: Tile, bytes: &[u8]) -> Result<Self, TileSizeError> {
        let expected = usize::from(tile.width) * 32;
        let (hashes, rest) = bytes.as_chunks();
        if bytes.len() != expected || !rest.is_empty() {
            return Err(TileSizeError { tile, expected, found: bytes.len() });
        }
        Ok(Self { tile, hashes: hashes.iter().copied().map(TreeHash::from_bytes).collect() })
    }

    /// The bytes that are stored and served.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.hashes.iter().flat_map(|hash| *hash.as_bytes()).collect()
    }

    /// Which tile it is.
    pub fn tile(&self) -> Tile {
        self.tile
    }

    /// Its hashes.
    pub fn hashes(&self) -> &[TreeHash] {
        &self.hashes
    }

    /// The same tile when it was `width` hashes wide; `None` if it never was that wide.
    pub fn narrowed(&self, width: u16) -> Option<Self> {
        let hashes = self.hashes.get(..usize::from(width)).filter(|hashes| !hashes.is_empty())?;
        Some(Self { tile: self.tile.of_width(width), hashes: hashes.to_vec() })
    }

    /// The root over its hashes: what a full tile is in the tile above.
    pub fn root(&self) -> TreeHash {
        root(&self.hashes)
    }

    /// Whether each of its hashes leads to `root`, the root of a tree of `size` leaves whose tiles `read` knows.
    /// What `read` answers need not be true: a wrong answer proves nothing.
    pub fn verify<E: From<Unproven>>(
        &self,
        size: u64,
        root: TreeHash,
        mut read: impl FnMut(Tile) -> Result<TileHashes, E>,
    ) -> Result<(), E> {
        let mut start = 0;
        for part in peaks(u64::from(self.tile.width)) {
            let count = 1_usize << part.height;
            let hash = self::root(&self.hashes[start..start + count]);
            let height = self.tile.level * HEIGHT + part.height;
            let index = (self.tile.index * u64::from(TILE_WIDTH) + start as u64) >> part.height;
            let first = index.checked_shl(u32::from(height)).filter(|first| first >> height == index);
            let first = first.filter(|first| *first < size).ok_or(Unproven::NoSuchLeaf { index, size })?;
            let path = prove_inclusion(first, size, |subtree| subtree_hash(subtree, size, &mut read))?;
            // Up to its own height, the way of its first leaf runs inside the subtree.
            let path = path.get(usize::from(height)..).unwrap_or_default();
            verify_inclusion(hash, index, ((size - 1) >> height) + 1, path, root)?;
            start += count;
        }
        Ok(())
    }
}

/// The hash of `subtree` in a tree of `size` leaves, whose tiles `read` knows.
///
/// # Panics
///
/// When the subtree is not within the tree, or `read` answers another tile than it was asked for.
pub fn subtree_hash<E>(
    subtree: Subtree,
    size: u64,
    read: impl FnOnce(Tile) -> Result<TileHashes, E>,
) -> Result<TreeHash, E> {
    let Place { tile, first, count } = Place::of(subtree, size).expect("the subtree is within the tree");
    let hashes = read(tile)?;
    assert_eq!(hashes.tile, tile, "another tile was read");
    Ok(root(&hashes.hashes[first..first + count]))
}

impl Place {
    fn of(subtree: Subtree, size: u64) -> Option<Self> {
        let (level, within) = (subtree.height / HEIGHT, subtree.height % HEIGHT);
        let count = 1_usize << within;
        let start = subtree.index.checked_mul(count as u64)?;
        let index = start / u64::from(TILE_WIDTH);
        let first = usize::try_from(start % u64::from(TILE_WIDTH)).ok()?;
        let tile = Tile::in_tree(level, index, size)?;
        (first + count <= usize::from(tile.width)).then_some(Self { tile, first, count })
    }
}

impl TileWriter {
    /// Goes on with a tree of `size` leaves whose tiles `read` knows. Compare its root before you believe it.
    pub fn resume<E>(size: u64, mut read: impl FnMut(Tile) -> Result<TileHashes, E>) -> Result<Self, E> {
        let frontier = Frontier::of(size, |subtree| subtree_hash(subtree, size, &mut read))?;
        let mut edge = Vec::new();
        for level in 0..LEVELS {
            let hashes = hashes_at(level, size);
            let index = hashes / u64::from(TILE_WIDTH);
            edge.push(match Tile::in_tree(level, index, size) {
                Some(tile) => read(tile)?.hashes,
                None => Vec::new(),
            });
        }
        Ok(Self { frontier, edge, full: Vec::new(), cut: size })
    }

    /// Appends the leaf of the next record.
    pub fn append(&mut self, leaf: TreeHash) {
        self.frontier.append(leaf);
        let (mut hash, mut index) = (leaf, self.frontier.size() - 1);
        for level in 0..LEVELS {
            if self.edge.len() <= usize::from(level) {
                self.edge.push(Vec::new());
            }
            let edge = &mut self.edge[usize::from(level)];
            edge.push(hash);
            if edge.len() < usize::from(TILE_WIDTH) {
                return;
            }
            index /= u64::from(TILE_WIDTH);
            let tile = Tile { level, index, width: TILE_WIDTH };
            let full = TileHashes { tile, hashes: std::mem::take(edge) };
            hash = full.root();
            self.full.push(full);
        }
    }

    /// The tree so far.
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// The tiles that the tree has and did not have at the last cut.
    pub fn cut(&mut self) -> Vec<TileHashes> {
        let size = self.frontier.size();
        let mut tiles = std::mem::take(&mut self.full);
        let partial = Tile::between(self.cut, size).filter(|tile| !tile.is_full());
        tiles.extend(
            partial.map(|tile| TileHashes { tile, hashes: self.edge[usize::from(tile.level)].clone() }),
        );
        self.cut = size;
        tiles
    }
}

/// How many hashes the tiles of a level have together in a tree of `size` leaves.
fn hashes_at(level: u8, size: u64) -> u64 {
    size.checked_shr(u32::from(level) * u32::from(HEIGHT)).unwrap_or(0)
}

/// The root over hashes next to each other; there is at least one.
fn root(hashes: &[TreeHash]) -> TreeHash {
    let mut frontier = Frontier::default();
    hashes.iter().for_each(|hash| frontier.append(*hash));
    frontier.root()
}

fn parse_index(text: &str) -> Option<u64> {
    let mut index = 0_u64;
    for element in text.split('/') {
        let digits = element.strip_prefix('x').unwrap_or(element);
        let is_element = digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number: u64 = is_element.then(|| digits.parse().ok()).flatten()?;
        index = index.checked_mul(1_000)?.checked_add(number)?;
    }
    Some(index)
}

#[cfg(test)]
mod tests;
