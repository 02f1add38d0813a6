//! Reading a log back: believe nothing, stop at the first byte that is wrong, and say which kind of wrong it is.
//!
//! A machine that loses power in the middle of a write leaves the beginning of a bundle that nobody was told
//! about; that is a torn tail, and it may be set aside. Everything else that is wrong has changed what somebody
//! was told, and is damage. The two are kept apart strictly: a tail is torn only if it is what an interrupted
//! write leaves (whole records, then part of a line, then perhaps space that was reserved but never written).

use std::io::{self, BufRead, Read};

use crate::line::{LineError, MAX_LINE_BYTES};
use crate::{Bundle, Head, Line, MAX_BUNDLE_BYTES, MAX_BUNDLE_EVENTS};

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
    let mut log = io::BufReader::with_capacity(256 * 1024, log);
    let mut reading = Reading { committed: after, end: 0, open: Vec::new(), offsets: Vec::new() };
    let mut offset = 0;
    let mut line = Vec::new();
    loop {
        line.clear();
        log.by_ref().take(MAX_TAIL_BYTES as u64 + 1).read_until(b'\n', &mut line)?;
        let tail = match line.split_last() {
            None if reading.open.is_empty() => Tail::Clean,
            None => Tail::Torn { bytes: offset - reading.end },
            Some((b'\n', text)) => match reading.accept(text, offset, &mut each)? {
                Ok(()) => {
                    offset += line.len() as u64;
                    continue;
                }
                Err(problem) => reading.damaged(offset, problem),
            },
            Some((_, _)) => match interrupted(&line) {
                Ok(()) => Tail::Torn { bytes: offset + line.len() as u64 - reading.end },
                Err(problem) => reading.damaged(offset, problem),
            },
        };
        return Ok(Scan { head: reading.committed, end: reading.end, tail });
    }
}

/// The state between two lines: what is committed, and the records of the bundle that is not yet.
struct Reading {
    committed: Head,
    end: u64,
    open: Vec<crate::Record>,
    offsets: Vec<u64>,
}

impl Reading {
    fn head(&self) -> Head {
        self.open.last().map_or(self.committed, crate::Record::head)
    }

    /// Takes in one line without its newline. The outer error is of `each`, the inner one of the line.
    fn accept<E>(
        &mut self,
        text: &[u8],
        offset: u64,
        each: &mut impl FnMut(Bundle, &[u64]) -> Result<(), E>,
    ) -> Result<Result<(), DamageProblem>, E> {
        match Line::decode(text) {
            Err(problem) => Ok(Err(problem.into())),
            Ok(Line::Record(record)) if !record.follows(self.head()) => {
                Ok(Err(DamageProblem::Order { found: record.seq() }))
            }
            Ok(Line::Record(_)) if self.open.len() == MAX_BUNDLE_EVENTS => Ok(Err(DamageProblem::TooLong)),
            Ok(Line::Record(record)) => {
                self.open.push(record);
                self.offsets.push(offset);
                Ok(Ok(()))
            }
            Ok(Line::Commit(commit)) => {
                if self.open.is_empty() || !commit.seals(self.committed.seq + 1, self.head()) {
                    return Ok(Err(DamageProblem::Commit));
                }
                self.committed = self.head();
                self.end = offset + text.len() as u64 + 1;
                let bundle = Bundle::committed(commit.into_bundle_id(), std::mem::take(&mut self.open));
                each(bundle, &std::mem::take(&mut self.offsets))?;
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
