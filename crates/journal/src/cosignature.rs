//! Cosignatures: what a witness says below a checkpoint that it was shown.
//!
//! The format is that of <https://c2sp.org/tlog-cosignature>, with Ed25519: a signature line that holds a time, and
//! signs that time and the text of the checkpoint. It says that until then the witness had seen no larger state of this
//! log, and that this state begins with every one it had seen. Who does not know the key passes the line over.

use std::fmt;
use std::str::FromStr;

use crate::note::{COSIGNATURE, KeyError, KeyName, Note, NoteError, key_id, split_key, typed};

/// What verifies the cosignatures of a witness: it may be given to anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WitnessKey {
    name: KeyName,
    key: ed25519_dalek::VerifyingKey,
}

impl WitnessKey {
    /// The witness.
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// The number that a signature line names the key by.
    pub fn id(&self) -> u32 {
        key_id(&self.name, COSIGNATURE, self.key.as_bytes())
    }

    /// When the witness cosigned this note, in seconds since 1970: the last time, if it did several times.
    pub fn cosigned(&self, note: &Note) -> Result<u64, NoteError> {
        let (name, id) = (self.name.clone(), self.id());
        let mut last = None;
        for line in note.signatures_by(&name, id) {
            let time = self.time_of(line, note.text());
            last = last.max(Some(time.ok_or_else(|| NoteError::Signature { name: name.clone() })?));
        }
        last.ok_or(NoteError::Unsigned { name, id })
    }

    /// The note with the cosignature that is among the lines which the witness answered when it was shown the note.
    /// Lines of other keys are left out.
    pub fn take(&self, note: Note, answer: &str) -> Result<Note, NoteError> {
        let answered = Note::parse(&format!("{note}{answer}"))?;
        if answered.text() != note.text() {
            return Err(NoteError::Format("what was answered is not made of signature lines"));
        }
        self.cosigned(&answered)?;
        Ok(note.with_signatures_of(&answered, &self.name, self.id()))
    }

    /// The time in one line, if what is signed there is this text at that time.
    fn time_of(&self, line: &[u8], text: &str) -> Option<u64> {
        let (time, signature) = line.split_first_chunk()?;
        let time = u64::from_be_bytes(*time);
        let signature = ed25519_dalek::Signature::from_slice(signature).ok()?;
        let signed = format!("cosignature/v1\ntime {time}\n{text}");
        self.key.verify_strict(signed.as_bytes(), &signature).ok()?;
        (1..=i64::MAX.unsigned_abs()).contains(&time).then_some(time)
    }
}

/// Reads `NAME+ID+BASE64`.
impl FromStr for WitnessKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, id, key) = split_key(text, COSIGNATURE).ok_or(KeyError::Witness)?;
        let name = KeyName::parse(name)?;
        let key = ed25519_dalek::VerifyingKey::from_bytes(&key).map_err(|_| KeyError::Witness)?;
        let key = Self { name, key };
        if key.id() == id { Ok(key) } else { Err(KeyError::Id(id)) }
    }
}

impl fmt::Display for WitnessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}+{:08x}+{}", self.name, self.id(), typed(COSIGNATURE, self.key.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use ed25519_dalek::Signer as _;

    use super::*;
    use crate::{Checkpoint, SigningKey, TreeHash};

    /// A checkpoint that a public log signed and a public witness cosigned, as both published it. The third line is of
    /// a kind of key that nobody here knows.
    const PUBLISHED: &str = "coachandhorses2026h1.staging.certificate.transparency.goog\n\
        185550722\n\
        YXAM0VmnrfvLaBCOOYSJhCaE5F10oGBOo+hkbDa1kng=\n\
        \n\
        — coachandhorses2026h1.staging.certificate.transparency.goog MpXgsHy8ZwxXnO+WjtVrPxAzL49Rs1gWTkNVNeEa//5peAzaocRCB3qt3EaibjzY5GILLtGgBP7dBhgcSHy+JQh0OAc=\n\
        — witness.navigli.sunlight.geomys.org o+AP4gAAAABqb7DzNrGFRJnQ9vrJ8xpnwZytnr/ZYczDIsvwvouiSjwOjn7a72ccxBk+lKnZ7dKqkYKER1s/KxLTaVwQD7lJZTC/CQ==\n\
        — grease.invalid Ym9ndXM=\n";
    const PUBLIC_WITNESS: &str =
        "witness.navigli.sunlight.geomys.org+a3e00fe2+BNy/co4C1Hn1p+INwJrfUlgz7W55dSZReusH/GhUhJ/G";

    /// A witness that can sign.
    struct Witness(ed25519_dalek::SigningKey);

    impl Witness {
        fn key(&self) -> WitnessKey {
            WitnessKey { name: KeyName::parse("witness.example").unwrap(), key: self.0.verifying_key() }
        }

        /// The line that it answers.
        fn line(&self, text: &str, time: u64) -> String {
            let signature = self.0.sign(format!("cosignature/v1\ntime {time}\n{text}").as_bytes()).to_bytes();
            let bytes = [&self.key().id().to_be_bytes()[..], &time.to_be_bytes(), &signature].concat();
            format!("— witness.example {}\n", BASE64_STANDARD.encode(bytes))
        }
    }

    fn witness() -> Witness {
        Witness(ed25519_dalek::SigningKey::from_bytes(&[5; 32]))
    }

    fn log_key() -> SigningKey {
        SigningKey::from_seed(KeyName::parse("leviathan/test").unwrap(), &[3; 32])
    }

    fn note() -> Note {
        let checkpoint =
            Checkpoint { origin: log_key().name().clone(), size: 7, root: TreeHash::leaf_of(b"x") };
        checkpoint.sign(&log_key()).unwrap()
    }

    #[test]
    fn what_a_public_witness_published_verifies_and_no_changed_bit_of_it_does() {
        let key: WitnessKey = PUBLIC_WITNESS.parse().unwrap();
        assert_eq!((key.to_string(), key.id()), (PUBLIC_WITNESS.to_owned(), 0xa3e0_0fe2));
        let published = Note::parse(PUBLISHED).unwrap();
        assert_eq!(key.cosigned(&published), Ok(1_785_704_691));
        assert!(Checkpoint::read_unverified(PUBLISHED).is_ok());
        let start = PUBLISHED.find("— witness").unwrap();
        for at in (0..start - 1).chain(start..PUBLISHED.find("— grease").unwrap()) {
            let mut changed = PUBLISHED.as_bytes().to_vec();
            changed[at] ^= 1;
            let Ok(changed) = String::from_utf8(changed) else { continue };
            let Ok(changed) = Note::parse(&changed) else { continue };
            let is_of_the_log = changed.text() == published.text() && at < start;
            assert_eq!(key.cosigned(&changed).is_ok(), is_of_the_log, "byte {at}");
        }
    }

    #[test]
    fn an_answer_is_taken_below_the_note_and_other_readers_do_not_mind() {
        let (witness, note) = (witness(), note());
        let (key, line) = (witness.key(), witness.line(note.text(), 1_700_000_000));
        let foreign = "— grease.invalid Ym9ndXM=\n";
        let cosigned = key.take(note.clone(), &format!("{foreign}{line}")).unwrap();
        assert_eq!(cosigned.to_string(), format!("{note}{line}"));
        assert_eq!(key.cosigned(&cosigned), Ok(1_700_000_000));
        assert!(Checkpoint::open(&cosigned.to_string(), &log_key().verifier()).is_ok());
        let theirs = signed_note::Note::from_bytes(cosigned.to_string().as_bytes()).unwrap();
        let verifier = signed_note::StandardVerifier::new(&log_key().verifier().to_string()).unwrap();
        assert!(theirs.verify(&signed_note::VerifierList::new(vec![Box::new(verifier)])).is_ok());
        // Shown the same again, it cosigns again; the last time counts.
        let again = key.take(cosigned, &witness.line(note.text(), 1_700_000_009)).unwrap();
        assert_eq!(key.cosigned(&again), Ok(1_700_000_009));
    }

    #[test]
    fn an_answer_that_is_no_cosignature_of_this_note_is_refused() {
        let (witness, note) = (witness(), note());
        let (key, good) = (witness.key(), witness.line(note.text(), 1));
        let other = Witness(ed25519_dalek::SigningKey::from_bytes(&[6; 32]));
        let in_its_name = other.line(note.text(), 1);
        let plain = log_key().sign(note.text()).unwrap().to_string();
        for answer in [
            String::new(),
            "\n".to_owned(),
            "garbage".to_owned(),
            good.trim_end().to_owned(),
            format!("{good}\n"),
            // Another text, and below it what the witness says of that one.
            format!("\nother\n\n{}", witness.line("other\n", 1)),
            witness.line("leviathan/test\n8\n", 1),
            witness.line(note.text(), 0),
            witness.line(note.text(), 1 << 63),
            in_its_name,
            plain.rsplit_once("\n\n").unwrap().1.to_owned(),
            // One good line does not make up for a wrong one by the same key.
            format!("{good}{}", witness.line("other\n", 2)),
            good.repeat(64),
        ] {
            assert!(key.take(note.clone(), &answer).is_err(), "{answer:?}");
        }
        assert!(key.take(note, &good).is_ok());
    }

    #[test]
    fn the_key_of_a_witness_is_no_key_of_a_log_and_has_one_spelling() {
        assert_eq!(log_key().verifier().to_string().parse::<WitnessKey>(), Err(KeyError::Witness));
        assert!(matches!(PUBLIC_WITNESS.parse::<crate::VerifierKey>(), Err(KeyError::Verifier)));
        for at in 0..PUBLIC_WITNESS.len() {
            let mut other = PUBLIC_WITNESS.as_bytes().to_vec();
            other[at] ^= 1;
            let Ok(other) = String::from_utf8(other) else { continue };
            assert!(other.parse::<WitnessKey>().is_err(), "{other}");
        }
    }
}
