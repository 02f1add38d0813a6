//! Checkpoints: the size and root of a log at one moment, signed by it.
//!
//! The format is that of <https://c2sp.org/tlog-checkpoint> without extension lines. Somebody who kept a
//! checkpoint can later hold the log to it: whatever was cut off, rewritten or rolled back since contradicts it.

use crate::note::{KeyName, Note, NoteError, SigningKey, VerifierKey};
use crate::{TreeHash, decimal};

/// What a log looked like at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The name of the log.
    pub origin: KeyName,
    /// How many records it had.
    pub size: u64,
    /// The root of the tree over them.
    pub root: TreeHash,
}

/// Why a text is no checkpoint, or not one of this log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The note around it is refused.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The note is sound, but says something else.
    #[error("the note is not a checkpoint: expected three lines with the log's name, its size and its root")]
    Format,
    /// It is another log's.
    #[error("this is a checkpoint of the log {found}, but the key is that of {expected}")]
    Origin {
        /// The log that it names.
        found: KeyName,
        /// The name of the key.
        expected: KeyName,
    },
}

impl Checkpoint {
    /// The text that is signed.
    pub fn to_text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, self.root)
    }

    /// Reads the text that is signed. Nothing says yet that it is true.
    pub fn from_text(text: &str) -> Result<Self, CheckpointError> {
        let parts = || {
            let (origin, rest) = text.split_once('\n')?;
            let (size, rest) = rest.split_once('\n')?;
            let root = TreeHash::from_base64(rest.strip_suffix('\n')?)?;
            Some(Self { origin: KeyName::parse(origin).ok()?, size: decimal(size)?, root })
        };
        parts().ok_or(CheckpointError::Format)
    }

    /// Signs it with the key of this log.
    pub fn sign(&self, key: &SigningKey) -> Result<Note, CheckpointError> {
        self.require_name(key.name())?;
        Ok(key.sign(&self.to_text())?)
    }

    /// Reads a signed checkpoint of the log whose key is given.
    pub fn open(note: &str, key: &VerifierKey) -> Result<Self, CheckpointError> {
        let note = Note::open(note, key)?;
        let checkpoint = Self::from_text(note.text())?;
        checkpoint.require_name(key.name())?;
        Ok(checkpoint)
    }

    /// Reads a checkpoint without its key: what it says, and not whether its log said it.
    pub fn read_unverified(note: &str) -> Result<Self, CheckpointError> {
        Self::from_text(Note::parse(note)?.text())
    }

    fn require_name(&self, name: &KeyName) -> Result<(), CheckpointError> {
        if self.origin == *name {
            return Ok(());
        }
        Err(CheckpointError::Origin { found: self.origin.clone(), expected: name.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> SigningKey {
        SigningKey::from_seed(KeyName::parse(name).unwrap(), &[7; 32])
    }

    fn checkpoint() -> Checkpoint {
        let origin = KeyName::parse("leviathan/test").unwrap();
        Checkpoint { origin, size: 70_000, root: TreeHash::leaf_of(b"x") }
    }

    #[test]
    fn a_checkpoint_is_read_back_and_agrees_with_an_independent_reader() {
        let key = key("leviathan/test");
        let note = checkpoint().sign(&key).unwrap().to_string();
        assert_eq!(Checkpoint::open(&note, &key.verifier()), Ok(checkpoint()));
        assert_eq!(Checkpoint::read_unverified(&note), Ok(checkpoint()));
        let theirs = tlog_tiles::Checkpoint::from_bytes(checkpoint().to_text().as_bytes()).unwrap();
        assert_eq!((theirs.origin(), theirs.size()), ("leviathan/test", 70_000));
        assert_eq!(theirs.hash().0, *checkpoint().root.as_bytes());
    }

    #[test]
    fn every_flipped_bit_of_a_checkpoint_is_refused() {
        let key = key("leviathan/test").verifier();
        let note = checkpoint().sign(&self::key("leviathan/test")).unwrap().to_string();
        for at in 0..note.len() {
            for bit in 0..8 {
                let mut flipped = note.clone().into_bytes();
                flipped[at] ^= 1 << bit;
                let Ok(flipped) = String::from_utf8(flipped) else { continue };
                assert!(Checkpoint::open(&flipped, &key).is_err(), "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_checkpoint_has_one_spelling_and_one_log() {
        for text in [
            "",
            "a\n1\n",
            "a\n01\nAAAA\n",
            &checkpoint().to_text().replace("70000", "070000"),
            &checkpoint().to_text().replace("70000", "+70000"),
            &checkpoint().to_text().replace("70000", ""),
            &format!("{}extension\n", checkpoint().to_text()),
            checkpoint().to_text().trim_end(),
        ] {
            assert_eq!(Checkpoint::from_text(text), Err(CheckpointError::Format), "{text:?}");
        }
        assert!(matches!(checkpoint().sign(&key("other/log")), Err(CheckpointError::Origin { .. })));
        let foreign = key("other/log").sign(&checkpoint().to_text()).unwrap().to_string();
        let refused = Checkpoint::open(&foreign, &key("other/log").verifier());
        assert!(matches!(refused, Err(CheckpointError::Origin { .. })));
    }
}
