//! Lines of a log file, and their one spelling.

use crate::chain::Link;
use crate::{BodyError, BundleId, CanonicalBody, ChainHash, Head, Record};

/// The longest line, with its newline: a body of full length and the members around it.
pub(crate) const MAX_LINE_BYTES: usize = crate::MAX_BODY_BYTES + 256;

/// One line of a log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// An event at its place.
    Record(Record),
    /// The end of a bundle.
    Commit(Commit),
}

/// A line whose body, if it is a record, stays where it was read.
pub(crate) enum LineRef<'a> {
    Record(Link, &'a str),
    Commit(Commit),
}

/// The end of a bundle: the records from `first` to `last` exist from here on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    bundle_id: BundleId,
    first: u64,
    last: u64,
    seal: ChainHash,
}

/// Why some bytes are not a line of a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Not the spelling of any line.
    #[error("it is spelled neither as a record nor as a commit")]
    Spelling,
    /// A record whose body is not canonical.
    #[error("the record's body is refused: {0}")]
    Body(BodyError),
    /// A record whose hash is not the hash of its body at its place.
    #[error("the hash of record {seq} does not match its content")]
    Hash {
        /// The place that the record claims.
        seq: u64,
    },
}

impl Line {
    /// Reads one line, without its newline. Decoding and encoding again gives the same bytes.
    pub fn decode(line: &[u8]) -> Result<Self, LineError> {
        Ok(match LineRef::decode(line)? {
            LineRef::Record(link, body) => Self::Record(Record::of(link, CanonicalBody::whole(body))),
            LineRef::Commit(commit) => Self::Commit(commit),
        })
    }

    /// The line with its newline.
    pub fn encode(&self) -> Vec<u8> {
        let mut line = Vec::new();
        match self {
            Self::Record(record) => encode_record(record, &mut line),
            Self::Commit(commit) => encode_commit(commit, &mut line),
        }
        line
    }
}

impl<'a> LineRef<'a> {
    pub(crate) fn decode(line: &'a [u8]) -> Result<Self, LineError> {
        if line.starts_with(RECORD_START) {
            decode_record(line).map(|(link, body)| Self::Record(link, body))
        } else {
            decode_commit(line).map(Self::Commit)
        }
    }
}

impl Commit {
    /// The commit of the records from `first` up to `head`.
    pub(crate) fn new(bundle_id: BundleId, first: u64, head: Head) -> Self {
        let seal = seal(&bundle_id, first, head);
        Self { bundle_id, first, last: head.seq, seal }
    }

    /// Whether it commits exactly the records from `first` up to `head`.
    pub(crate) fn seals(&self, first: u64, head: Head) -> bool {
        self.first == first && self.last == head.seq && self.seal == seal(&self.bundle_id, first, head)
    }

    pub(crate) fn into_bundle_id(self) -> BundleId {
        self.bundle_id
    }
}

/// What the commit line vouches for. It covers every member of that line, so that no bit of a log is unprotected.
fn seal(bundle_id: &BundleId, first: u64, head: Head) -> ChainHash {
    let length = u32::try_from(bundle_id.as_str().len()).expect("a bundle id is at most 200 bytes");
    ChainHash::of(&[
        b"leviathan-commit-v1\n",
        head.hash.as_bytes(),
        &first.to_be_bytes(),
        &head.seq.to_be_bytes(),
        &length.to_be_bytes(),
        bundle_id.as_str().as_bytes(),
    ])
}

const RECORD_START: &[u8] = b"{\"body\":";

pub(crate) fn encode_record(record: &Record, out: &mut Vec<u8>) {
    append(out, &[RECORD_START, record.body().as_bytes()]);
    append(out, &[b",\"hash\":\"", &record.hash().to_hex()]);
    append(out, &[b"\",\"prev_hash\":\"", &record.prev_hash().to_hex()]);
    append(out, &[b"\",\"seq\":", record.seq().to_string().as_bytes(), b"}\n"]);
}

pub(crate) fn encode_commit(commit: &Commit, out: &mut Vec<u8>) {
    let Commit { bundle_id, first, last, seal } = commit;
    append(out, &[b"{\"commit\":{\"bundle_id\":\"", bundle_id.as_str().as_bytes()]);
    append(out, &[b"\",\"first\":", first.to_string().as_bytes()]);
    append(out, &[b",\"last\":", last.to_string().as_bytes()]);
    append(out, &[b",\"hash\":\"", &seal.to_hex(), b"\"}}\n"]);
}

fn append(out: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// Takes the line apart from its end: everything behind the body has a fixed width, but for the number.
fn decode_record(line: &[u8]) -> Result<(Link, &str), LineError> {
    let parts = || {
        let rest = line.strip_prefix(RECORD_START)?.strip_suffix(b"}")?;
        let (rest, seq) = split_number(rest)?;
        let rest = rest.strip_suffix(b"\",\"seq\":")?;
        let (rest, prev_hash) = split_hash(rest)?;
        let rest = rest.strip_suffix(b"\",\"prev_hash\":\"")?;
        let (rest, hash) = split_hash(rest)?;
        Some((rest.strip_suffix(b",\"hash\":\"")?, hash, prev_hash, seq))
    };
    let (body, hash, prev_hash, seq) = parts().ok_or(LineError::Spelling)?;
    let body = CanonicalBody::check(body).map_err(LineError::Body)?;
    let before = seq.checked_sub(1).ok_or(LineError::Spelling)?;
    let link = Link::after(Head { seq: before, hash: prev_hash }, body);
    if link.hash == hash { Ok((link, body)) } else { Err(LineError::Hash { seq }) }
}

fn decode_commit(line: &[u8]) -> Result<Commit, LineError> {
    let parts = || {
        let rest = line.strip_prefix(b"{\"commit\":{\"bundle_id\":\"")?.strip_suffix(b"\"}}")?;
        let (rest, seal) = split_hash(rest)?;
        let rest = rest.strip_suffix(b",\"hash\":\"")?;
        let (rest, last) = split_number(rest)?;
        let rest = rest.strip_suffix(b",\"last\":")?;
        let (rest, first) = split_number(rest)?;
        let id = std::str::from_utf8(rest.strip_suffix(b"\",\"first\":")?).ok()?;
        Some(Commit { bundle_id: BundleId::parse(id).ok()?, first, last, seal })
    };
    parts().ok_or(LineError::Spelling)
}

fn split_hash(bytes: &[u8]) -> Option<(&[u8], ChainHash)> {
    let (rest, hash) = bytes.split_at_checked(bytes.len().checked_sub(64)?)?;
    Some((rest, ChainHash::from_hex(hash)?))
}

/// Splits off the decimal number at the end, in its only spelling.
fn split_number(bytes: &[u8]) -> Option<(&[u8], u64)> {
    let digits = bytes.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    let (rest, number) = bytes.split_at(bytes.len() - digits);
    Some((rest, decimal(std::str::from_utf8(number).ok()?)?))
}

/// A decimal number in its only spelling: digits alone, and no zero in front.
pub(crate) fn decimal(text: &str) -> Option<u64> {
    let has_one_spelling = matches!(text.as_bytes(), [b'0'] | [b'1'..=b'9', ..]);
    has_one_spelling.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> Vec<Line> {
        // A body that holds the text of the members around it must not confuse the reader.
        let tricky = br#"{"a":",\"hash\":\"00\",\"seq\":1}","hash":"x","seq":7}"#;
        let record = Record::after(Head::genesis("o"), CanonicalBody::admit(tricky).unwrap());
        let commit = Commit::new(BundleId::parse("b-1").unwrap(), 1, record.head());
        vec![Line::Record(record), Line::Commit(commit)]
    }

    #[test]
    fn lines_are_spelled_as_documented() {
        let record = Record::after(Head::genesis("o"), CanonicalBody::admit(br#"{"b":1,"a":[]}"#).unwrap());
        let commit = Commit::new(BundleId::parse("b-1").unwrap(), 1, record.head());
        assert_eq!(
            String::from_utf8(Line::Record(record.clone()).encode()).unwrap(),
            format!(
                "{{\"body\":{{\"a\":[],\"b\":1}},\"hash\":\"{}\",\"prev_hash\":\"{}\",\"seq\":1}}\n",
                record.hash(),
                record.prev_hash()
            )
        );
        let seal = seal(&BundleId::parse("b-1").unwrap(), 1, record.head());
        assert_eq!(
            String::from_utf8(Line::Commit(commit).encode()).unwrap(),
            format!("{{\"commit\":{{\"bundle_id\":\"b-1\",\"first\":1,\"last\":1,\"hash\":\"{seal}\"}}}}\n")
        );
    }

    #[test]
    fn another_spelling_of_the_same_line_is_no_line() {
        for line in sample() {
            let text = String::from_utf8(line.encode()).unwrap();
            let text = text.trim_end();
            assert_eq!(Line::decode(text.as_bytes()), Ok(line));
            for (from, to) in
                [("\":", "\": "), ("{\"", "{ \""), ("\"seq\":1", "\"seq\":01"), ("\"last\":1", "\"last\":+1")]
            {
                let other = text.replacen(from, to, 1);
                assert!(other == text || Line::decode(other.as_bytes()).is_err(), "{other}");
            }
            for other in [
                format!("{text} "),
                format!(" {text}"),
                format!("{text}\r"),
                format!("{text}\n"),
                String::new(),
            ] {
                assert!(Line::decode(other.as_bytes()).is_err(), "{other:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_decodes_encodes_to_the_same_bytes(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3)) {
            for line in sample() {
                let mut bytes = line.encode();
                bytes.pop();
                for (at, to) in &flips {
                    let at = at.index(bytes.len());
                    bytes[at] = *to;
                }
                if let Ok(decoded) = Line::decode(&bytes) {
                    let mut again = decoded.encode();
                    again.pop();
                    prop_assert_eq!(again, bytes);
                }
            }
        }
    }
}
