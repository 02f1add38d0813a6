//! Text that comes in pieces, through a window that is wide enough for every secret.
//!
//! The window moves when it is full and never because a chunk ended, so that the outcome depends on the text alone.

use super::{Match, REDACTED, Redactor, Sighting};
use crate::Digest;

/// How many bytes the window holds.
const WINDOW: usize = 128 << 10;
/// A secret that begins in the last part of the window may end behind it, and waits. No two that overlap are longer.
const HELD_BACK: usize = 32 << 10;

/// The moving window.
struct Window {
    redactor: Redactor,
    bytes: Vec<u8>,
    /// How many bytes at the beginning were handed on and are only context.
    context: usize,
}

/// What the window hands on.
enum Piece<'a> {
    Text(&'a [u8]),
    Secret(&'a [u8], Match),
}

impl Window {
    fn new(redactor: Redactor) -> Self {
        Self { redactor, bytes: Vec::new(), context: 0 }
    }

    fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(Piece<'_>)) {
        while !bytes.is_empty() {
            let (fitting, rest) = bytes.split_at(bytes.len().min(WINDOW - self.bytes.len()));
            self.bytes.extend_from_slice(fitting);
            bytes = rest;
            if self.bytes.len() == WINDOW {
                self.hand_on(WINDOW - HELD_BACK, &mut each);
            }
        }
    }

    fn finish(&mut self, mut each: impl FnMut(Piece<'_>)) {
        self.hand_on(self.bytes.len(), &mut each);
    }

    /// Hands on what begins before `limit`.
    fn hand_on(&mut self, limit: usize, each: &mut impl FnMut(Piece<'_>)) {
        let mut at = self.context;
        for found in self.redactor.matches(&self.bytes, at, limit) {
            each(Piece::Text(&self.bytes[at..found.secret]));
            each(Piece::Secret(&self.bytes[found.secret..found.end], found));
            at = found.end;
        }
        if at < limit {
            each(Piece::Text(&self.bytes[at..limit]));
            at = limit;
        }
        // One byte is what an expression looks back.
        self.context = at.min(1);
        self.bytes.drain(..at - self.context);
    }
}

/// Takes the secrets out of bytes as they come.
pub struct Stream(Window);

impl Stream {
    pub(super) fn new(redactor: Redactor) -> Self {
        Self(Window::new(redactor))
    }

    /// Takes the next bytes, and adds to `out` what is certain by now.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.0.push(bytes, |piece| write(&piece, out));
    }

    /// Adds the rest to `out`.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        self.0.finish(|piece| write(&piece, out));
    }
}

fn write(piece: &Piece<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(match piece {
        Piece::Text(text) => text,
        Piece::Secret(..) => REDACTED.as_bytes(),
    });
}

/// Looks for secrets in bytes as they come.
pub struct Scan {
    window: Window,
    seen: Seen,
}

/// What was seen so far.
struct Seen {
    line: u64,
    sightings: Vec<Sighting>,
}

impl Scan {
    pub(super) fn new(redactor: Redactor) -> Self {
        Self { window: Window::new(redactor), seen: Seen { line: 1, sightings: Vec::new() } }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.window.push(bytes, |piece| self.seen.note(&piece));
    }

    /// The secrets, in order. A text with very many is not described further.
    pub fn finish(mut self) -> Vec<Sighting> {
        self.window.finish(|piece| self.seen.note(&piece));
        self.seen.sightings
    }
}

impl Seen {
    fn note(&mut self, piece: &Piece<'_>) {
        const MOST: usize = 10_000;
        let bytes = match piece {
            Piece::Text(text) => text,
            Piece::Secret(secret, found) => {
                if self.sightings.len() < MOST {
                    let (line, rule) = (self.line, found.rule);
                    self.sightings.push(Sighting { line, rule, digest: Digest::of(secret) });
                }
                secret
            }
        };
        self.line += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
    }
}
