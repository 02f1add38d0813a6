//! The proof that one record is in a log, as a text that anybody can keep and verify without the log.
//!
//! The format is that of <https://c2sp.org/tlog-proof> version 1, without its optional extra data: nothing signs
//! that, and so nothing of ours relies on it.

use std::fmt;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::merkle::{Unproven, verify_inclusion};
use crate::note::{Note, NoteError, VerifierKey};
use crate::{ChainHash, TreeHash, decimal};

const FIRST_LINE: &str = "c2sp.org/tlog-proof@v1\n";

/// That a record is in the log which signed a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InclusionProof {
    /// The place of the record in the tree: its seq less one.
    pub index: u64,
    /// The hashes on the way to the root, that of the leaf's neighbour first.
    pub hashes: Vec<TreeHash>,
    /// The signed checkpoint.
    pub checkpoint: Note,
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Not a proof.
    #[error("this is not a proof of inclusion: {0}")]
    Format(&'static str),
    /// The note in it cannot be read.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The checkpoint in it is refused.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The record is not in that log.
    #[error(transparent)]
    Unproven(#[from] Unproven),
}

impl InclusionProof {
    /// Reads the text without verifying anything.
    pub fn parse(text: &str) -> Result<Self, ProofError> {
        let rest = text
            .strip_prefix(FIRST_LINE)
            .ok_or(ProofError::Format("its first line is not that of version 1"))?;
        let (head, checkpoint) =
            rest.split_once("\n\n").ok_or(ProofError::Format("it has no checkpoint after an empty line"))?;
        let mut lines = head.split('\n');
        let index = lines.next().and_then(|line| decimal(line.strip_prefix("index ")?));
        let index = index.ok_or(ProofError::Format("its second line is not an index"))?;
        // A tree has at most 64 levels.
        let hashes = lines.take(65).map(TreeHash::from_base64).collect::<Option<Vec<_>>>();
        let hashes = hashes.filter(|hashes| hashes.len() <= 64);
        let hashes = hashes.ok_or(ProofError::Format("a hash is malformed, or there are too many"))?;
        Ok(Self { index, hashes, checkpoint: Note::parse(checkpoint)? })
    }

    /// Whether the log with this key has the record with this hash. Answers the checkpoint that says so.
    pub fn verify(&self, record: ChainHash, key: &VerifierKey) -> Result<Checkpoint, ProofError> {
        let checkpoint = Checkpoint::open(&self.checkpoint.to_string(), key)?;
        verify_inclusion(TreeHash::leaf(record), self.index, checkpoint.size, &self.hashes, checkpoint.root)?;
        Ok(checkpoint)
    }
}

/// The text of the proof.
impl fmt::Display for InclusionProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FIRST_LINE}index {}", self.index)?;
        self.hashes.iter().try_for_each(|hash| writeln!(f, "{hash}"))?;
        write!(f, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::{Frontier, prove_inclusion};
    use crate::note::{KeyName, SigningKey};
    use crate::tile::{TileHashes, TileWriter, subtree_hash};

    fn record(n: u64) -> ChainHash {
        ChainHash::genesis(&n.to_string())
    }

    fn proof(index: u64, size: u64) -> (InclusionProof, SigningKey) {
        let mut tree = TileWriter::default();
        (0..size).for_each(|n| tree.append(TreeHash::leaf(record(n))));
        let root = Frontier::clone(tree.frontier()).root();
        let tiles = tree.cut();
        let read = |tile| {
            let found: Option<&TileHashes> = tiles.iter().find(|hashes| hashes.tile() == tile);
            found.cloned().ok_or(tile)
        };
        let hashes = prove_inclusion(index, size, |subtree| subtree_hash(subtree, size, read)).unwrap();
        let origin = KeyName::parse("leviathan/test").unwrap();
        let key = SigningKey::from_seed(origin.clone(), &[9; 32]);
        let checkpoint = Checkpoint { origin, size, root }.sign(&key).unwrap();
        (InclusionProof { index, hashes, checkpoint }, key)
    }

    #[test]
    fn a_proof_is_read_back_and_holds_for_its_record_alone() {
        for (index, size) in [(0, 1), (0, 2), (4, 7), (300, 600), (599, 600)] {
            let (proof, key) = proof(index, size);
            let text = proof.to_string();
            assert_eq!(InclusionProof::parse(&text), Ok(proof.clone()));
            let checkpoint = proof.verify(record(index), &key.verifier()).unwrap();
            assert_eq!(checkpoint.size, size);
            assert!(proof.verify(record(size), &key.verifier()).is_err());
            let other = SigningKey::from_seed(key.name().clone(), &[8; 32]);
            assert!(proof.verify(record(index), &other.verifier()).is_err());
        }
    }

    #[test]
    fn every_flipped_bit_of_a_proof_is_refused() {
        let (proof, key) = proof(4, 7);
        let text = proof.to_string();
        let accepts = |text: &str| {
            InclusionProof::parse(text).and_then(|proof| proof.verify(record(4), &key.verifier())).is_ok()
        };
        assert!(accepts(&text));
        for at in 0..text.len() {
            for bit in 0..8 {
                let mut flipped = text.clone().into_bytes();
                flipped[at] ^= 1 << bit;
                let Ok(flipped) = String::from_utf8(flipped) else { continue };
                assert!(!accepts(&flipped), "byte {at}, bit {bit}");
            }
        }
        for length in 0..text.len() {
            assert!(!text.is_char_boundary(length) || !accepts(&text[..length]), "cut at {length}");
        }
    }
}
