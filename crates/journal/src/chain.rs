//! The chain: how each record names all that came before it.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::CanonicalBody;

/// A SHA-256 that stands for one record and, through it, for every record before.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainHash([u8; 32]);

/// The end of a log: how many records it has, and the hash of the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Head {
    /// The number of the last record; 0 while there is none.
    pub seq: u64,
    /// The hash of the last record; the genesis hash while there is none.
    pub hash: ChainHash,
}

/// One body at its place in the log. Its hash is right by construction: no other can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    link: Link,
    body: CanonicalBody,
}

/// What a record is beside its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) seq: u64,
    pub(crate) prev_hash: ChainHash,
    pub(crate) hash: ChainHash,
}

/// The value of each lower-case hexadecimal digit, and 255 for every other byte.
const DIGITS: [u8; 256] = {
    let mut digits = [u8::MAX; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value as usize] as usize] = value;
        value += 1;
    }
    digits
};

impl ChainHash {
    /// What the first record of the log named `origin` follows. Two logs never share a chain.
    pub fn genesis(origin: &str) -> Self {
        Self::of(&[b"leviathan-genesis-v1\n", origin.as_bytes()])
    }

    /// The hash of `parts` one after the other. Callers make the parts unambiguous by length or by a prefix.
    pub(crate) fn of(parts: &[&[u8]]) -> Self {
        let mut sha = Sha256::new();
        for part in parts {
            sha.update(part);
        }
        Self(sha.finalize().into())
    }

    /// Reads 64 lower-case hexadecimal digits.
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        let (pairs, []) = text.as_chunks::<2>() else { return None };
        let pairs: &[[u8; 2]; 32] = pairs.try_into().ok()?;
        // No digit has a bit of the upper half: one look at the end tells whether all were digits.
        let (mut bytes, mut seen) = ([0; 32], 0);
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            let (high, low) = (DIGITS[usize::from(*high)], DIGITS[usize::from(*low)]);
            seen |= high | low;
            *byte = high << 4 | low & 0x0f;
        }
        (seen <= 0x0f).then_some(Self(bytes))
    }

    /// The 64 lower-case hexadecimal digits.
    pub(crate) fn to_hex(self) -> [u8; 64] {
        let mut digits = [0; 64];
        for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
            *pair = [byte >> 4, byte & 0x0f].map(|value| b"0123456789abcdef"[usize::from(value)]);
        }
        digits
    }

    /// What was kept as 32 bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes themselves.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Head {
    /// The head of the empty log named `origin`.
    pub fn genesis(origin: &str) -> Self {
        Self { seq: 0, hash: ChainHash::genesis(origin) }
    }
}

impl Link {
    /// That of the record that follows `head` with this body.
    pub(crate) fn after(head: Head, body: &str) -> Self {
        let seq = head.seq + 1;
        Self { seq, prev_hash: head.hash, hash: record_hash(head.hash, seq, body) }
    }

    pub(crate) fn head(&self) -> Head {
        Head { seq: self.seq, hash: self.hash }
    }

    pub(crate) fn follows(&self, head: Head) -> bool {
        Some(self.seq) == head.seq.checked_add(1) && self.prev_hash == head.hash
    }
}

impl Record {
    /// The record that follows `head` with this body.
    pub fn after(head: Head, body: CanonicalBody) -> Self {
        Self { link: Link::after(head, body.as_str()), body }
    }

    /// The record of a body and the link that was made for it.
    pub(crate) fn of(link: Link, body: CanonicalBody) -> Self {
        Self { link, body }
    }

    /// Its place: 1 for the first record, without gaps.
    pub fn seq(&self) -> u64 {
        self.link.seq
    }

    /// The hash of the record before, or the genesis hash.
    pub fn prev_hash(&self) -> ChainHash {
        self.link.prev_hash
    }

    /// Its own hash: the leaf that a proof about this record starts from.
    pub fn hash(&self) -> ChainHash {
        self.link.hash
    }

    /// What was recorded.
    pub fn body(&self) -> &CanonicalBody {
        &self.body
    }

    /// The head of the log that ends with this record.
    pub fn head(&self) -> Head {
        self.link.head()
    }

    /// Whether this record is the one that comes right after `head`.
    pub fn follows(&self, head: Head) -> bool {
        self.link.follows(head)
    }
}

fn record_hash(prev: ChainHash, seq: u64, body: &str) -> ChainHash {
    let length = u32::try_from(body.len()).expect("a canonical body is at most 256 KiB");
    ChainHash::of(&[
        b"leviathan-event-v1\n",
        &prev.0,
        &seq.to_be_bytes(),
        &length.to_be_bytes(),
        body.as_bytes(),
    ])
}

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(std::str::from_utf8(&self.to_hex()).expect("hexadecimal digits are ASCII"))
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_fixed_by_known_hashes() {
        // Computed with `printf … | sha256sum` from the format in the crate's documentation, not with this code.
        let genesis = Head::genesis("leviathan.example/log");
        assert_eq!(
            genesis.hash.to_string(),
            "710376aec75550b61753399f351fadde880e9a6cead9c9beb44d11e3e50a943c"
        );
        let record = Record::after(genesis, CanonicalBody::admit(br#"{"a":1}"#).unwrap());
        assert_eq!(
            record.hash().to_string(),
            "a4a673e9298a3abd0e80b36e3fa03e08af7e62236a012553fd78040b3b5b98ef"
        );
    }

    #[test]
    fn a_hash_has_one_spelling() {
        let hash = ChainHash::genesis("x");
        assert_eq!(ChainHash::from_hex(hash.to_string().as_bytes()), Some(hash));
        assert_eq!(ChainHash::from_hex(hash.to_string().to_uppercase().as_bytes()), None);
        for other in [&b"00"[..], &[b'0'; 63], &[b'0'; 65], &[b'0'; 66], &[b'g'; 64], &[0; 64]] {
            assert_eq!(ChainHash::from_hex(other), None);
        }
    }

    #[test]
    fn place_and_past_are_part_of_a_record() {
        let body = || CanonicalBody::admit(b"{}").unwrap();
        let first = Record::after(Head::genesis("a"), body());
        let second = Record::after(first.head(), body());
        assert!(second.follows(first.head()) && !second.follows(Head::genesis("a")));
        assert_ne!(first.hash(), second.hash());
        assert_ne!(first.hash(), Record::after(Head::genesis("b"), body()).hash());
    }
}
