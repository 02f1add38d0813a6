//! A bundle: records that exist together or not at all.

use std::fmt;

use crate::line::{self, Commit};
use crate::{CanonicalBody, Head, Record};

/// The most events in one bundle.
pub const MAX_BUNDLE_EVENTS: usize = 1_000;

/// The most bytes that the bodies of one bundle may have together.
pub const MAX_BUNDLE_BYTES: usize = 4 * 1024 * 1024;

/// The name that a sender gave to a bundle: 1 to 200 letters, digits or `. _ : / @ -`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BundleId(String);

/// Text that cannot name a bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a bundle id: expected 1 to 200 letters, digits or `. _ : / @ -`")]
pub struct BundleIdError(String);

/// A bundle that has no place in a log yet: as many bodies as one bundle may have, under its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unchained {
    id: BundleId,
    bodies: Vec<CanonicalBody>,
}

/// At least one record, in order, under one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    id: BundleId,
    records: Vec<Record>,
}

/// Bundles as a log file holds them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lines {
    /// The lines, to be written at once.
    pub bytes: Vec<u8>,
    /// Where each record begins in them.
    pub offsets: Vec<u64>,
}

/// Why some bodies cannot be one bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// No body at all.
    #[error("a bundle holds at least one event")]
    Empty,
    /// More than [`MAX_BUNDLE_EVENTS`].
    #[error("a bundle holds at most {MAX_BUNDLE_EVENTS} events, this one has {0}: send it in parts")]
    TooMany(usize),
    /// More than [`MAX_BUNDLE_BYTES`].
    #[error(
        "the events of a bundle have at most {MAX_BUNDLE_BYTES} bytes together, these have {0}: send them in parts"
    )]
    TooLarge(usize),
}

impl BundleId {
    /// Checks `text` against the rule.
    pub fn parse(text: &str) -> Result<Self, BundleIdError> {
        let is_valid = (1..=200).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/@-".contains(&b));
        if is_valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(BundleIdError(text.chars().take(80).flat_map(char::escape_debug).collect()))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BundleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Lines {
    /// Forgets the lines, and keeps the room that they had.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.offsets.clear();
    }
}

impl Unchained {
    /// Bodies that are to be recorded together, in the order given.
    pub fn new(id: BundleId, bodies: Vec<CanonicalBody>) -> Result<Self, BundleError> {
        let bytes = bodies.iter().map(|body| body.as_bytes().len()).sum();
        if bodies.is_empty() {
            return Err(BundleError::Empty);
        }
        if bodies.len() > MAX_BUNDLE_EVENTS {
            return Err(BundleError::TooMany(bodies.len()));
        }
        if bytes > MAX_BUNDLE_BYTES {
            return Err(BundleError::TooLarge(bytes));
        }
        Ok(Self { id, bodies })
    }

    /// The sender's name for it.
    pub fn id(&self) -> &BundleId {
        &self.id
    }

    /// Its bodies, at least one.
    pub fn bodies(&self) -> &[CanonicalBody] {
        &self.bodies
    }
}

impl Bundle {
    /// Gives a bundle its place after `head`.
    pub fn after(head: Head, Unchained { id, bodies }: Unchained) -> Self {
        let mut head = head;
        let chain = |body| {
            let record = Record::after(head, body);
            head = record.head();
            record
        };
        Self { id, records: bodies.into_iter().map(chain).collect() }
    }

    /// Records that were read back and followed by a commit line that names them.
    pub(crate) fn committed(id: BundleId, records: Vec<Record>) -> Self {
        Self { id, records }
    }

    /// The sender's name for it.
    pub fn id(&self) -> &BundleId {
        &self.id
    }

    /// Its records, at least one.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The records themselves, without the bundle.
    pub fn into_records(self) -> Vec<Record> {
        self.records
    }

    /// The head of the log that ends with this bundle.
    pub fn head(&self) -> Head {
        self.records.last().expect("a bundle is never empty").head()
    }

    /// Adds the lines of this bundle: each record, then the commit line without which none of them exists.
    pub fn encode(&self, lines: &mut Lines) {
        for record in &self.records {
            lines.offsets.push(lines.bytes.len() as u64);
            line::encode_record(record, &mut lines.bytes);
        }
        let first = self.records.first().expect("a bundle is never empty").seq();
        line::encode_commit(&Commit::new(self.id.clone(), first, self.head()), &mut lines.bytes);
    }
}
