//! Reading a log back: believe nothing, stop at the first byte that is wrong, and say which kind of wrong it is.
//!
//! A machine that loses power in the middle of a write leaves the beginning of a bundle that nobody was told
//! about; that is a torn tail, and it may be set aside. Everything else that is wrong has changed what somebody
//! was told, and is damage. The two are kept apart strictly: a tail is torn only if it is what an interrupted
//! write leaves (whole records, then part of a line, then perhaps space that was reserved but never written).

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use memchr::memchr;

use crate::chain::Link;
use crate::line::{LineError, LineRef, MAX_LINE_BYTES};
use crate::{Bundle, BundleId, CanonicalBody, Head, Line, MAX_BUNDLE_BYTES, MAX_BUNDLE_EVENTS, Record};

/// More than the lines of the largest bundle can have, so also the most that one interrupted write leaves.
const MAX_TAIL_BYTES: usize = MAX_BUNDLE_BYTES + (MAX_BUNDLE_EVENTS + 1) * 512;

/// How far a scan came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// The head after the last whole bundle.
    pub head: Head,
    /// Where the last whole bundle ends: the offset of the first byte that belongs to none.
    pub end: u64,
    /// What stands after it.
    pub tail: Tail,
}

/// What stands after the last whole bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tail {
    /// Nothing.
    Clean,
    /// What an interrupted write leaves. Nobody was told about it; it may be set aside.
    Torn {
        /// How many bytes.
        bytes: u64,
    },
    /// Something else. What was recorded has been changed.
    Damaged(Damage),
}

/// The first place at which a log is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset}, where record {seq} or the end of its bundle belongs: {problem}")]
pub struct Damage {
    /// The offset of the line.
    pub offset: u64,
    /// The number that the next record should have.
    pub seq: u64,
    /// What is wrong.
    pub problem: DamageProblem,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DamageProblem {
    /// It cannot be read.
    #[error("the line is damaged: {0}")]
    Line(#[from] LineError),
    /// It is a record, but not the one that belongs there.
    #[error("found record {found}, which does not follow the one before it")]
    Order {
        /// The number of the record that is there.
        found: u64,
    },
    /// It is a commit line, but not of the records before it.
    #[error("the commit line does not match the records before it")]
    Commit,
    /// A whole line whose newline is something else.
    #[error("the last line is complete, but does not end in a newline")]
    Newline,
    /// More bytes than one interrupted write can leave.
    #[error("there is no line here, and more bytes than one interrupted write can leave")]
    TooLong,
}

/// Reads lines until the end or the first that is wrong, and hands each whole bundle to `each` with the offset
/// of each of its records.
///
/// `after` is the head of what came before `log`: the genesis head, or the head of the segment before. An error
/// of `log` itself ends the scan; an error of `each` does too.
pub fn scan<E: From<io::Error>>(
    log: impl Read,
    after: Head,
    mut each: impl FnMut(Bundle, &[u64]) -> Result<(), E>,
) -> Result<Scan, E> {
    let mut window = Window::of(log);
    let mut reading = Reading { committed: after, end: 0, open: Open::default() };
    let mut offset = 0;
    loop {
        let line = window.line()?;
        let tail = match line.split_last() {
            None if reading.open.links.is_empty() => Tail::Clean,
            None => Tail::Torn { bytes: offset - reading.end },
            Some((b'\n', text)) => match reading.accept(text, offset, &mut each)? {
                Ok(()) => {
                    offset += line.len() as u64;
                    continue;
                }
                Err(problem) => reading.damaged(offset, problem),
            },
            Some((_, _)) => match interrupted(line) {
                Ok(()) => Tail::Torn { bytes: offset + line.len() as u64 - reading.end },
                Err(problem) => reading.damaged(offset, problem),
            },
        };
        return Ok(Scan { head: reading.committed, end: reading.end, tail });
    }
}

/// A part of the log in memory, in which lines are looked at where they stand.
struct Window<R> {
    log: R,
    bytes: Vec<u8>,
    /// What was read and not looked at yet.
    unread: Range<usize>,
}

impl<R: Read> Window<R> {
    /// How much is read at once.
    const BYTES: usize = 256 * 1024;

    fn of(log: R) -> Self {
        Self { log, bytes: vec![0; Self::BYTES], unread: 0..0 }
    }

    /// The next line with its newline; without one at the end of the log, or where more bytes follow than any line has.
    fn line(&mut self) -> io::Result<&[u8]> {
        let mut searched = 0;
        let length = loop {
            let unread = &self.bytes[self.unread.clone()];
            let unread = &unread[..unread.len().min(MAX_TAIL_BYTES + 1)];
            if let Some(newline) = memchr(b'\n', &unread[searched..]) {
                break searched + newline + 1;
            }
            searched = unread.len();
            if searched > MAX_TAIL_BYTES || !self.read_more()? {
                break searched;
            }
        };
        let line = self.unread.start..self.unread.start + length;
        self.unread.start = line.end;
        Ok(&self.bytes[line])
    }

    /// Whether there was more to read.
    fn read_more(&mut self) -> io::Result<bool> {
        self.bytes.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        if self.unread.end == self.bytes.len() {
            self.bytes.resize(2 * self.bytes.len(), 0);
        }
        loop {
            match self.log.read(&mut self.bytes[self.unread.end..]) {
                Ok(read) => {
                    self.unread.end += read;
                    return Ok(read > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The state between two lines: what is committed, and the records of the bundle that is not yet.
struct Reading {
    committed: Head,
    end: u64,
    open: Open,
}

/// Records whose commit line was not read yet.
#[derive(Default)]
struct Open {
    links: Vec<Link>,
    /// Where each of them begins in the log.
    offsets: Vec<u64>,
    /// Their bodies, one after the other,
    bodies: String,
    /// and where each of these ends.
    ends: Vec<usize>,
}

impl Open {
    fn add(&mut self, link: Link, body: &str, offset: u64) {
        self.links.push(link);
        self.offsets.push(offset);
        self.bodies.push_str(body);
        self.ends.push(self.bodies.len());
    }

    /// The bundle of all of them, and what is kept for the next.
    fn close(&mut self, id: BundleId) -> Bundle {
        let bodies: Arc<str> = self.bodies.as_str().into();
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let places = starts.zip(&self.ends).map(|(start, end)| start..*end);
        let records = self.links.iter().zip(places);
        let records = records.map(|(link, place)| Record::of(*link, CanonicalBody::within(&bodies, place)));
        let bundle = Bundle::committed(id, records.collect());
        self.links.clear();
        self.bodies.clear();
        self.ends.clear();
        bundle
    }
}

impl Reading {
    fn head(&self) -> Head {
        self.open.links.last().map_or(self.committed, Link::head)
    }

    /// Takes in one line without its newline. The outer error is of `each`, the inner one of the line.
    fn accept<E>(
        &mut self,
        text: &[u8],
        offset: u64,
        each: &mut impl FnMut(Bundle, &[u64]) -> Result<(), E>,
    ) -> Result<Result<(), DamageProblem>, E> {
        match LineRef::decode(text) {
            Err(problem) => Ok(Err(problem.into())),
            Ok(LineRef::Record(link, _)) if !link.follows(self.head()) => {
                Ok(Err(DamageProblem::Order { found: link.seq }))
            }
            Ok(LineRef::Record(..)) if self.open.links.len() == MAX_BUNDLE_EVENTS => {
                Ok(Err(DamageProblem::TooLong))
            }
            Ok(LineRef::Record(link, body)) => {
                self.open.add(link, body, offset);
                Ok(Ok(()))
            }
            Ok(LineRef::Commit(commit)) => {
                if self.open.links.is_empty() || !commit.seals(self.committed.seq + 1, self.head()) {
                    return Ok(Err(DamageProblem::Commit));
                }
                self.committed = self.head();
                self.end = offset + text.len() as u64 + 1;
                let bundle = self.open.close(commit.into_bundle_id());
                each(bundle, &std::mem::take(&mut self.open.offsets))?;
                Ok(Ok(()))
            }
        }
    }

    fn damaged(&self, offset: u64, problem: DamageProblem) -> Tail {
        Tail::Damaged(Damage { offset, seq: self.head().seq + 1, problem })
    }
}

/// Whether a last line without its newline is what an interrupted write leaves.
fn interrupted(line: &[u8]) -> Result<(), DamageProblem> {
    if line.len() > MAX_TAIL_BYTES {
        return Err(DamageProblem::TooLong);
    }
    // A file system may have extended the file and not yet written the bytes: they read as zeros. No line
    // holds a zero byte, and no single flipped bit makes a newline into one.
    let written = line.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    if written > MAX_LINE_BYTES {
        return Err(DamageProblem::TooLong);
    }
    // A whole line with one wrong byte in place of its newline was written to its end, and may have been
    // answered for.
    match line[..written].split_last() {
        Some((_, whole)) if Line::decode(whole).is_ok() => Err(DamageProblem::Newline),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BundleId, CanonicalBody, Lines, Unchained};
    use proptest::prelude::*;

    const ORIGIN: &str = "test/log";

    /// A log of bundles with the given numbers of records, and where each bundle ends.
    fn log(sizes: &[usize]) -> (Vec<u8>, Vec<(Head, usize)>) {
        let mut lines = Lines::default();
        let mut ends = vec![(Head::genesis(ORIGIN), 0)];
        for (n, size) in sizes.iter().enumerate() {
            let bodies = (0..*size)
                .map(|i| {
                    CanonicalBody::admit(format!(r#"{{"event_id":"e-{n}-{i}","a":null}}"#).as_bytes())
                        .unwrap()
                })
                .collect();
            let (head, _) = ends[n];
            let id = BundleId::parse(&format!("b-{n}")).unwrap();
            let bundle = Bundle::after(head, Unchained::new(id, bodies).unwrap());
            bundle.encode(&mut lines);
            ends.push((bundle.head(), lines.bytes.len()));
        }
        (lines.bytes, ends)
    }

    fn scanned(bytes: &[u8]) -> (Scan, Vec<Bundle>) {
        let mut bundles = Vec::new();
        let scan = scan(bytes, Head::genesis(ORIGIN), |bundle, offsets| {
            assert_eq!(bundle.records().len(), offsets.len());
            bundles.push(bundle);
            io::Result::Ok(())
        });
        (scan.unwrap(), bundles)
    }

    #[test]
    fn a_whole_log_is_read_back_as_it_was_written() {
        let (bytes, ends) = log(&[1, 3, 2]);
        let (scan, bundles) = scanned(&bytes);
        let (head, end) = *ends.last().unwrap();
        assert_eq!(scan, Scan { head, end: end as u64, tail: Tail::Clean });
        let mut again = Lines::default();
        bundles.iter().for_each(|bundle| bundle.encode(&mut again));
        assert_eq!(again.bytes, bytes);
        assert_eq!(scanned(b"").0, Scan { head: Head::genesis(ORIGIN), end: 0, tail: Tail::Clean });
    }

    #[test]
    fn every_truncation_leaves_the_longest_prefix_of_whole_bundles() {
        let (bytes, ends) = log(&[2, 1, 3]);
        for length in 0..=bytes.len() {
            let (head, end) = *ends.iter().rev().find(|(_, end)| *end <= length).unwrap();
            for reserved in [0, 1, 700] {
                let mut cut = bytes[..length].to_vec();
                cut.resize(length + reserved, 0);
                let (scan, _) = scanned(&cut);
                let tail = match (cut.len() - end) as u64 {
                    0 => Tail::Clean,
                    bytes => Tail::Torn { bytes },
                };
                // A whole line whose newline alone was lost and reads as zero is still only interrupted.
                assert_eq!(scan, Scan { head, end: end as u64, tail }, "{length} + {reserved}");
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_damage_also_in_the_last_bundle() {
        let (bytes, ends) = log(&[1, 2]);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                let (scan, _) = scanned(&flipped);
                assert!(matches!(scan.tail, Tail::Damaged(_)), "byte {at}, bit {bit}: {scan:?}");
                let (head, end) = *ends.iter().rev().find(|(_, end)| *end <= at).unwrap();
                assert_eq!((scan.head, scan.end), (head, end as u64));
            }
        }
    }

    #[test]
    fn lines_that_are_lost_doubled_swapped_or_foreign_are_damage() {
        let (bytes, _) = log(&[2, 2, 1]);
        let lines: Vec<&[u8]> = bytes.split_inclusive(|b| *b == b'\n').collect();
        let damaged = |lines: &[&[u8]]| matches!(scanned(&lines.concat()).0.tail, Tail::Damaged(_));
        for n in 0..lines.len() - 1 {
            let mut removed = lines.clone();
            removed.remove(n);
            assert!(damaged(&removed), "without line {n}");
            let mut doubled = lines.clone();
            doubled.insert(n, lines[n]);
            assert!(damaged(&doubled), "line {n} twice");
            let mut swapped = lines.clone();
            swapped.swap(n, n + 1);
            assert!(damaged(&swapped), "line {n} after the next");
            for foreign in [&b"\n"[..], b"{}\n", b"\r\n"] {
                let mut inserted = lines.clone();
                inserted.insert(n, foreign);
                assert!(damaged(&inserted), "{foreign:?} before line {n}");
            }
        }
        let other = scan(&bytes[..], Head::genesis("another/log"), |_, _| io::Result::Ok(())).unwrap();
        assert!(matches!(other.tail, Tail::Damaged(Damage { offset: 0, seq: 1, .. })));
    }

    #[test]
    fn what_no_interrupted_write_leaves_is_damage() {
        let (bytes, _) = log(&[1]);
        let with = |more: &[u8]| scanned(&[&bytes, more].concat()).0.tail;
        assert!(matches!(with(&vec![0; MAX_TAIL_BYTES]), Tail::Torn { .. }));
        assert!(matches!(with(&vec![0; MAX_TAIL_BYTES + 1]), Tail::Damaged(_)));
        assert!(matches!(with(&vec![b'x'; MAX_LINE_BYTES + 1]), Tail::Damaged(_)));
        assert!(matches!(with(b"\0\0\n"), Tail::Damaged(_)));
        assert!(matches!(with(b"\0\0{\"body\""), Tail::Torn { .. }));
    }

    #[test]
    fn an_error_of_the_reader_is_no_verdict_about_the_log() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the disk is gone"))
            }
        }
        assert!(scan(Failing, Head::genesis(ORIGIN), |_, _| io::Result::Ok(())).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_scan_panic_or_invent_a_bundle(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let (scan, bundles) = scanned(&bytes);
            prop_assert_eq!(bundles.len(), 0);
            prop_assert_eq!(scan.end, 0);
        }

        #[test]
        fn a_log_of_any_shape_is_read_back(sizes in prop::collection::vec(1_usize..5, 0..8)) {
            let (bytes, ends) = log(&sizes);
            let (scan, bundles) = scanned(&bytes);
            prop_assert_eq!(scan.head, ends.last().unwrap().0);
            prop_assert_eq!(bundles.iter().map(|b| b.records().len()).collect::<Vec<_>>(), sizes);
        }
    }
}
