//! Signed notes: a text, and below it the signatures of those who stand by it.
//!
//! The format is that of <https://c2sp.org/signed-note>, with Ed25519. Names, signatures and keys each have one
//! accepted spelling. Signatures of keys that the reader does not know say nothing to it and are passed over, so
//! that others can sign the same note; a signature that is by a known key's name and is wrong refuses the note.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::Signer as _;
use sha2::{Digest, Sha256};

/// The longest note that is read.
const MAX_NOTE_BYTES: usize = 1024 * 1024;

/// The most signatures that are read.
const MAX_SIGNATURES: usize = 64;

/// The byte that says Ed25519.
const ED25519: u8 = 0x01;

/// The byte that says an Ed25519 cosignature.
pub(crate) const COSIGNATURE: u8 = 0x04;

/// The name of a key, and of the log that it signs: no spaces, no `+`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyName(String);

/// What signs. Its text form is a secret; its `Debug` form is not.
#[derive(Clone)]
pub struct SigningKey {
    name: KeyName,
    key: ed25519_dalek::SigningKey,
}

/// What verifies: it may be given to anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: KeyName,
    key: ed25519_dalek::VerifyingKey,
}

/// A text and its signatures, none of which was verified by reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

/// One line below a note.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Signature {
    name: KeyName,
    key_id: u32,
    bytes: Vec<u8>,
}

/// Text that is not a key, or cannot name one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not a name.
    #[error("`{0}` cannot name a key: it must not be empty, nor have spaces, control characters or `+`")]
    Name(String),
    /// Not spelled as a verifier key is.
    #[error("this is not a verifier key: expected NAME+ID+BASE64, an Ed25519 key of 32 bytes")]
    Verifier,
    /// Not spelled as the key of a witness is.
    #[error(
        "this is not the key of a witness: expected NAME+ID+BASE64, an Ed25519 cosignature key (type 4) of 32 bytes"
    )]
    Witness,
    /// Not spelled as a signing key is. The text is not repeated: it may hold a secret.
    #[error("this is not a signing key: expected PRIVATE+KEY+NAME+ID+BASE64, an Ed25519 seed of 32 bytes")]
    Signing,
    /// The id is that of another key.
    #[error("the key and its id {0:08x} do not belong together: was it copied whole?")]
    Id(u32),
}

/// Why a note is not to be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not a note.
    #[error("this is not a signed note: {0}")]
    Format(&'static str),
    /// Nothing that this key signed.
    #[error("the note has no signature by {name} with key id {id:08x}")]
    Unsigned {
        /// The key's name.
        name: KeyName,
        /// Its id.
        id: u32,
    },
    /// A signature in the key's name that is not over this text.
    #[error("the signature by {name} does not match the note: it was changed, or signed by somebody else")]
    Signature {
        /// The key's name.
        name: KeyName,
    },
}

impl KeyName {
    /// Checks `text` against the rule.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+') {
            Ok(Self(text.to_owned()))
        } else {
            Err(KeyError::Name(text.chars().take(80).flat_map(char::escape_debug).collect()))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl SigningKey {
    /// The key that follows from 32 bytes that nobody can guess.
    pub fn from_seed(name: KeyName, seed: &[u8; 32]) -> Self {
        Self { name, key: ed25519_dalek::SigningKey::from_bytes(seed) }
    }

    /// Reads `PRIVATE+KEY+NAME+ID+BASE64`.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let rest = text.strip_prefix("PRIVATE+KEY+").ok_or(KeyError::Signing)?;
        let (name, id, seed) = split_key(rest, ED25519).ok_or(KeyError::Signing)?;
        let key = Self::from_seed(KeyName::parse(name)?, &seed);
        if key.verifier().id() == id { Ok(key) } else { Err(KeyError::Id(id)) }
    }

    /// The text that [`SigningKey::parse`] reads: a secret.
    pub fn to_secret_text(&self) -> String {
        let verifier = self.verifier();
        format!("PRIVATE+KEY+{}+{:08x}+{}", self.name, verifier.id(), typed(ED25519, self.key.as_bytes()))
    }

    /// Whose key it is.
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// The key that verifies what this one signs.
    pub fn verifier(&self) -> VerifierKey {
        VerifierKey { name: self.name.clone(), key: self.key.verifying_key() }
    }

    /// Signs a text of whole lines.
    pub fn sign(&self, text: &str) -> Result<Note, NoteError> {
        check_text(text)?;
        let key_id = self.verifier().id();
        let bytes = self.key.sign(text.as_bytes()).to_bytes().to_vec();
        let signature = Signature { name: self.name.clone(), key_id, bytes };
        Ok(Note { text: text.to_owned(), signatures: vec![signature] })
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.verifier())
    }
}

impl VerifierKey {
    /// Whose key it is.
    pub fn name(&self) -> &KeyName {
        &self.name
    }

    /// The number that a signature line names the key by. Short: it identifies, it proves nothing.
    pub fn id(&self) -> u32 {
        key_id(&self.name, ED25519, self.key.as_bytes())
    }
}

/// Reads `NAME+ID+BASE64`.
impl FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, id, key) = split_key(text, ED25519).ok_or(KeyError::Verifier)?;
        let name = KeyName::parse(name)?;
        let key = ed25519_dalek::VerifyingKey::from_bytes(&key).map_err(|_| KeyError::Verifier)?;
        let key = Self { name, key };
        if key.id() == id { Ok(key) } else { Err(KeyError::Id(id)) }
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}+{:08x}+{}", self.name, self.id(), typed(ED25519, self.key.as_bytes())))
    }
}

impl Note {
    /// Reads a note without verifying any signature.
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        if note.len() > MAX_NOTE_BYTES {
            return Err(NoteError::Format("it is longer than 1 MiB"));
        }
        let (text, signatures) = note
            .rsplit_once("\n\n")
            .ok_or(NoteError::Format("no empty line separates text and signatures"))?;
        let text = &note[..text.len() + 1];
        check_text(text)?;
        let lines = signatures.strip_suffix('\n').ok_or(NoteError::Format("it does not end in a newline"))?;
        let lines: Vec<&str> = lines.split('\n').collect();
        if lines.len() > MAX_SIGNATURES {
            return Err(NoteError::Format("it has more than 64 signatures"));
        }
        let signatures = lines.into_iter().map(Signature::parse).collect::<Option<_>>();
        let signatures = signatures.ok_or(NoteError::Format("a signature line is malformed"))?;
        Ok(Self { text: text.to_owned(), signatures })
    }

    /// Reads a note and the text that `key` signed.
    pub fn open(note: &str, key: &VerifierKey) -> Result<Self, NoteError> {
        let note = Self::parse(note)?;
        note.verify(key)?;
        Ok(note)
    }

    /// Whether `key` signed this text.
    pub fn verify(&self, key: &VerifierKey) -> Result<(), NoteError> {
        let (name, id) = (key.name.clone(), key.id());
        let mut is_signed = false;
        for bytes in self.signatures_by(&name, id) {
            let signature = ed25519_dalek::Signature::from_slice(bytes);
            let verdict = signature.and_then(|it| key.key.verify_strict(self.text.as_bytes(), &it));
            verdict.map_err(|_| NoteError::Signature { name: name.clone() })?;
            is_signed = true;
        }
        if is_signed { Ok(()) } else { Err(NoteError::Unsigned { name, id }) }
    }

    /// What stands in the lines by this name and key id, unverified.
    pub(crate) fn signatures_by(&self, name: &KeyName, id: u32) -> impl Iterator<Item = &[u8]> {
        let of_key = self.signatures.iter().filter(move |line| line.name == *name && line.key_id == id);
        of_key.map(|line| line.bytes.as_slice())
    }

    /// This note, with those lines of another that are by this name and key id.
    pub(crate) fn with_signatures_of(mut self, other: &Self, name: &KeyName, id: u32) -> Self {
        let theirs = other.signatures.iter().filter(|line| line.name == *name && line.key_id == id);
        let theirs: Vec<_> = theirs.filter(|line| !self.signatures.contains(line)).cloned().collect();
        self.signatures.extend(theirs);
        self
    }

    /// What is signed, with its last newline.
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// The note as it is stored and sent.
impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| signature.fmt(f))
    }
}

impl Signature {
    fn parse(line: &str) -> Option<Self> {
        let (name, signature) = line.strip_prefix("— ")?.split_once(' ')?;
        let signature = BASE64_STANDARD.decode(signature).ok()?;
        let (key_id, bytes) = signature.split_first_chunk()?;
        let key_id = u32::from_be_bytes(*key_id);
        (!bytes.is_empty()).then_some(())?;
        Some(Self { name: KeyName::parse(name).ok()?, key_id, bytes: bytes.to_vec() })
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&self.key_id.to_be_bytes()[..], &self.bytes].concat();
        writeln!(f, "— {} {}", self.name, BASE64_STANDARD.encode(bytes))
    }
}

/// The rule for a note's text: whole lines, and no control characters but their newlines.
fn check_text(text: &str) -> Result<(), NoteError> {
    if !text.ends_with('\n') {
        return Err(NoteError::Format("its text does not end in a newline"));
    }
    if text.bytes().any(|byte| byte < b' ' && byte != b'\n') {
        return Err(NoteError::Format("its text has control characters"));
    }
    Ok(())
}

/// The number by which signature lines name a key.
pub(crate) fn key_id(name: &KeyName, algorithm: u8, key: &[u8; 32]) -> u32 {
    let mut sha = Sha256::new();
    sha.update(name.0.as_bytes());
    sha.update([b'\n', algorithm]);
    sha.update(key);
    let digest: [u8; 32] = sha.finalize().into();
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

/// `NAME+ID+BASE64` in parts, the last one without the byte that says the algorithm.
pub(crate) fn split_key(text: &str, algorithm: u8) -> Option<(&str, u32, [u8; 32])> {
    let mut parts = text.splitn(3, '+');
    let (name, id, key) = (parts.next()?, parts.next()?, parts.next()?);
    let is_hex = id.len() == 8 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let id = is_hex.then(|| u32::from_str_radix(id, 16).ok()).flatten()?;
    let key: [u8; 33] = BASE64_STANDARD.decode(key).ok()?.try_into().ok()?;
    let (found, key) = key.split_first_chunk::<1>()?;
    (*found == [algorithm]).then_some((name, id, key.try_into().ok()?))
}

/// Key material behind the byte that says its algorithm, in base64.
pub(crate) fn typed(algorithm: u8, material: &[u8; 32]) -> String {
    BASE64_STANDARD.encode([&[algorithm], &material[..]].concat())
}

#[cfg(test)]
mod tests;
