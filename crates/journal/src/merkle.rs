//! The tree: how a few hashes prove that a record is in a log, or that one log begins with another.
//!
//! The tree is that of RFC 6962 over the hashes of the records: the leaf at index n is about record n + 1. This
//! module hashes, proves and checks. Where hashes are stored is not its matter: whoever asks for a proof hands
//! over a function that reads the hash of a [`Subtree`], and a proof is checked with no tree at all.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

use crate::ChainHash;

/// A hash of the tree: of one leaf, or of everything below a node.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TreeHash([u8; 32]);

/// `2^height` leaves next to each other, complete: the leaves from `index * 2^height` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subtree {
    /// How many times it was doubled; 0 is a single leaf.
    pub height: u8,
    /// Its place among the subtrees of this height, from 0.
    pub index: u64,
}

/// The right edge of a tree: all that it takes to append to it and to name its root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// The roots of the complete subtrees that make up the tree, largest first: one for each bit of `size`.
    peaks: Vec<TreeHash>,
}

/// Some bytes are not a frontier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are not the frontier of a tree")]
pub struct FrontierError;

/// Why hashes prove nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// A leaf beyond the end of the tree.
    #[error("there is no leaf {index} in a tree of {size}")]
    NoSuchLeaf {
        /// The index of the leaf, from 0.
        index: u64,
        /// The number of leaves.
        size: u64,
    },
    /// The later tree is the smaller one.
    #[error("a tree of {new} leaves cannot begin with one of {old}")]
    Shrunk {
        /// The size of the earlier tree.
        old: u64,
        /// The size of the later one.
        new: u64,
    },
    /// More or fewer hashes than this proof has.
    #[error("the proof has {found} hashes, and that is not the number for trees of these sizes")]
    Length {
        /// How many it has.
        found: usize,
    },
    /// The hashes lead to another root.
    #[error("the proof leads to another root")]
    Root,
}

impl TreeHash {
    /// The root of the tree without leaves: the hash of nothing.
    pub fn empty() -> Self {
        Self(Sha256::digest(b"").into())
    }

    /// The leaf that stands for a record.
    pub fn leaf(record: ChainHash) -> Self {
        Self::leaf_of(record.as_bytes())
    }

    /// A leaf as RFC 6962 hashes it, whatever its data.
    pub(crate) fn leaf_of(data: &[u8]) -> Self {
        let mut sha = Sha256::new();
        sha.update([0x00]);
        sha.update(data);
        Self(sha.finalize().into())
    }

    /// The node above two others.
    pub fn node(left: Self, right: Self) -> Self {
        let mut sha = Sha256::new();
        sha.update([0x01]);
        sha.update(left.0);
        sha.update(right.0);
        Self(sha.finalize().into())
    }

    /// The hash that these bytes are.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes themselves.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads base64, in its one spelling of 44 characters.
    pub fn from_base64(text: &str) -> Option<Self> {
        BASE64_STANDARD.decode(text).ok()?.try_into().ok().map(Self)
    }
}

/// In base64, as checkpoints and proofs spell it.
impl fmt::Display for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for TreeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Frontier {
    /// How many leaves the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends the leaf of the next record.
    pub fn append(&mut self, leaf: TreeHash) {
        let mut hash = leaf;
        for _ in 0..self.size.trailing_ones() {
            let left = self.peaks.pop().expect("there is one peak for each bit of the size");
            hash = TreeHash::node(left, hash);
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// The root of the tree.
    pub fn root(&self) -> TreeHash {
        let peaks = self.peaks.iter().rev().copied();
        peaks.reduce(|right, left| TreeHash::node(left, right)).unwrap_or_else(TreeHash::empty)
    }

    /// The frontier of the tree of `size` leaves, whose subtrees `read` knows.
    pub fn of<E>(size: u64, mut read: impl FnMut(Subtree) -> Result<TreeHash, E>) -> Result<Self, E> {
        let peaks = peaks(size).map(&mut read).collect::<Result<_, _>>()?;
        Ok(Self { size, peaks })
    }

    /// The size as 8 bytes, the largest first, then the hashes, largest subtree first: for a snapshot.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.size.to_be_bytes().to_vec();
        bytes.extend(self.peaks.iter().flat_map(|peak| peak.0));
        bytes
    }

    /// Reads what [`Frontier::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FrontierError> {
        let (size, peaks) = bytes.split_first_chunk().ok_or(FrontierError)?;
        let size = u64::from_be_bytes(*size);
        let (peaks, rest) = peaks.as_chunks();
        if !rest.is_empty() || peaks.len() as u64 != u64::from(size.count_ones()) {
            return Err(FrontierError);
        }
        Ok(Self { size, peaks: peaks.iter().copied().map(TreeHash).collect() })
    }
}

/// The root of the first `size` leaves of a tree whose subtrees `read` knows.
pub fn root_of<E>(size: u64, read: impl FnMut(Subtree) -> Result<TreeHash, E>) -> Result<TreeHash, E> {
    Frontier::of(size, read).map(|frontier| frontier.root())
}

/// The hashes which prove that the leaf at `index` is in the tree of `size` leaves, the leaf's neighbour first.
///
/// # Panics
///
/// When `index` is not below `size`.
pub fn prove_inclusion<E>(
    index: u64,
    size: u64,
    mut read: impl FnMut(Subtree) -> Result<TreeHash, E>,
) -> Result<Vec<TreeHash>, E> {
    assert!(index < size, "no leaf {index} in a tree of {size}");
    let (mut start, mut end) = (0, size);
    let mut proof = Vec::new();
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            proof.push(hash_of(middle, end, &mut read)?);
            end = middle;
        } else {
            proof.push(hash_of(start, middle, &mut read)?);
            start = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The hashes which prove that the tree of `new` leaves begins with the tree of `old`. Empty if either is empty
/// or both are the same.
///
/// # Panics
///
/// When `old` is above `new`.
pub fn prove_consistency<E>(
    old: u64,
    new: u64,
    mut read: impl FnMut(Subtree) -> Result<TreeHash, E>,
) -> Result<Vec<TreeHash>, E> {
    assert!(old <= new, "a tree of {new} leaves cannot begin with one of {old}");
    if old == 0 || old == new {
        return Ok(Vec::new());
    }
    let (mut start, mut end) = (0, new);
    let mut proof = Vec::new();
    // Down to the node at which the old tree ends.
    while end > old {
        let middle = start + split(end - start);
        if old <= middle {
            proof.push(hash_of(middle, end, &mut read)?);
            end = middle;
        } else {
            proof.push(hash_of(start, middle, &mut read)?);
            start = middle;
        }
    }
    // The verifier knows this node already if it is the whole old tree.
    if start > 0 {
        proof.push(hash_of(start, end, &mut read)?);
    }
    proof.reverse();
    Ok(proof)
}

/// Whether `proof` leads from `leaf` at `index` to `root`, the root of `size` leaves.
pub fn verify_inclusion(
    leaf: TreeHash,
    index: u64,
    size: u64,
    proof: &[TreeHash],
    root: TreeHash,
) -> Result<(), Unproven> {
    if index >= size {
        return Err(Unproven::NoSuchLeaf { index, size });
    }
    let length = Unproven::Length { found: proof.len() };
    let mut rest = proof.iter();
    let (mut index, mut last, mut hash) = (index, size - 1, leaf);
    while last > 0 {
        // The last node of a level has no sibling while it is a left one: it is its own parent.
        if index % 2 == 1 {
            hash = TreeHash::node(*rest.next().ok_or(length.clone())?, hash);
        } else if index < last {
            hash = TreeHash::node(hash, *rest.next().ok_or(length.clone())?);
        }
        (index, last) = (index / 2, last / 2);
    }
    if rest.next().is_some() {
        return Err(length);
    }
    if hash == root { Ok(()) } else { Err(Unproven::Root) }
}

/// Whether `proof` shows that the tree of `new` leaves with `new_root` begins with that of `old` with `old_root`.
pub fn verify_consistency(
    old: u64,
    old_root: TreeHash,
    new: u64,
    new_root: TreeHash,
    proof: &[TreeHash],
) -> Result<(), Unproven> {
    if old > new {
        return Err(Unproven::Shrunk { old, new });
    }
    let length = Unproven::Length { found: proof.len() };
    if old == 0 || old == new {
        let is_known = if old == 0 { old_root == TreeHash::empty() } else { old_root == new_root };
        return match (proof.is_empty(), is_known) {
            (true, true) => Ok(()),
            (true, false) => Err(Unproven::Root),
            (false, _) => Err(length),
        };
    }
    let mut rest = proof.iter().copied();
    // The node at which the old tree ends, at the height where it stops being a right child.
    let height = (old - 1).trailing_ones();
    let (mut index, mut last) = ((old - 1) >> height, (new - 1) >> height);
    let first = if index == 0 { old_root } else { rest.next().ok_or(length.clone())? };
    let (mut old_hash, mut new_hash) = (first, first);
    while last > 0 {
        if index % 2 == 1 {
            let left = rest.next().ok_or(length.clone())?;
            old_hash = TreeHash::node(left, old_hash);
            new_hash = TreeHash::node(left, new_hash);
        } else if index < last {
            new_hash = TreeHash::node(new_hash, rest.next().ok_or(length.clone())?);
        }
        (index, last) = (index / 2, last / 2);
    }
    if rest.next().is_some() {
        return Err(length);
    }
    if old_hash == old_root && new_hash == new_root { Ok(()) } else { Err(Unproven::Root) }
}

/// The complete subtrees that make up a tree of `size` leaves, largest first.
pub(crate) fn peaks(size: u64) -> impl Iterator<Item = Subtree> {
    let heights = (0..64_u8).rev().filter(move |height| size >> height & 1 == 1);
    // Everything left of it is a multiple of its size, because everything left of it is larger.
    heights.map(move |height| Subtree { height, index: (size >> height) - 1 })
}

/// The largest power of two below `size`: where RFC 6962 splits.
fn split(size: u64) -> u64 {
    1 << (u64::BITS - 1 - (size - 1).leading_zeros())
}

/// The hash over the leaves from `start` to before `end`, where `start` is where a split put it.
fn hash_of<E>(
    start: u64,
    end: u64,
    read: &mut impl FnMut(Subtree) -> Result<TreeHash, E>,
) -> Result<TreeHash, E> {
    // Everything before `start` is made of subtrees that are larger, so that `start` divides by each of these.
    let parts = peaks(end - start).map(|part| {
        let before = start >> part.height;
        read(Subtree { index: before + part.index, ..part })
    });
    let parts = parts.collect::<Result<Vec<_>, _>>()?;
    let root = parts.into_iter().rev().reduce(|right, left| TreeHash::node(left, right));
    Ok(root.expect("a split leaves no side empty"))
}

#[cfg(test)]
mod tests;
