//! A log of bounded size, and short pieces of it for people.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// How much of the end of the output a full log keeps.
const TAIL_BYTES: u64 = 256 << 10;

/// A file that takes output of any length and keeps its beginning and its end.
pub(super) struct BoundedLog {
    file: File,
    head_room: u64,
    tail: VecDeque<u8>,
    tail_room: usize,
    total: u64,
    left_out: u64,
}

impl BoundedLog {
    pub(super) fn create(path: &Path, most: u64) -> io::Result<Self> {
        let tail_room = TAIL_BYTES.min(most / 2);
        Ok(Self {
            file: File::create(path)?,
            head_room: most - tail_room,
            tail: VecDeque::new(),
            tail_room: usize::try_from(tail_room).unwrap_or(usize::MAX),
            total: 0,
            left_out: 0,
        })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.total += bytes.len() as u64;
        let room = usize::try_from(self.head_room).unwrap_or(usize::MAX).min(bytes.len());
        let (head, rest) = bytes.split_at(room);
        self.head_room -= room as u64;
        self.file.write_all(head)?;
        self.tail.extend(rest);
        let excess = self.tail.len().saturating_sub(self.tail_room);
        self.tail.drain(..excess);
        self.left_out += excess as u64;
        Ok(())
    }

    /// How many bytes were written, kept or not.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Appends the kept end and makes the file durable.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if self.left_out > 0 {
            write!(self.file, "\n[{} bytes were left out here]\n", self.left_out)?;
        }
        self.file.write_all(self.tail.make_contiguous())?;
        self.file.sync_data()
    }
}

/// The beginning and the end of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// Its first bytes; the whole log when `left_out` is 0.
    pub head: String,
    /// Bytes between `head` and `tail`.
    pub left_out: u64,
    /// Its last bytes.
    pub tail: String,
}

impl std::fmt::Display for Excerpt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.left_out {
            0 => write!(f, "{}{}", self.head, self.tail),
            bytes => write!(f, "{}\n[… {bytes} bytes …]\n{}", self.head, self.tail),
        }
    }
}

/// Reads at most `head` bytes from the beginning of the file at `path` and at most `tail` from its end. Bytes
/// that are no UTF-8 become replacement characters; control characters are kept.
pub fn excerpt(path: &Path, head: u64, tail: u64) -> io::Result<Excerpt> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    if length <= head + tail {
        return Ok(Excerpt { head: read_text(&mut file, length)?, left_out: 0, tail: String::new() });
    }
    let beginning = read_text(&mut file, head)?;
    file.seek(SeekFrom::Start(length - tail))?;
    Ok(Excerpt { head: beginning, left_out: length - head - tail, tail: read_text(&mut file, tail)? })
}

fn read_text(file: &mut File, most: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(most: u64, pieces: &[&[u8]]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = BoundedLog::create(&path, most).unwrap();
        for piece in pieces {
            log.write(piece).unwrap();
        }
        log.finish().unwrap();
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn output_within_the_limit_is_kept_whole() {
        assert_eq!(logged(8, &[b"abc", b"defgh"]), "abcdefgh");
        assert_eq!(logged(8, &[]), "");
    }

    #[test]
    fn output_beyond_the_limit_keeps_its_beginning_and_end_and_says_what_is_missing() {
        assert_eq!(logged(8, &[b"abcdef", b"ghij", b"klm"]), "abcd\n[5 bytes were left out here]\njklm");
    }

    #[test]
    fn excerpts_name_what_they_leave_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "0123456789").unwrap();
        assert_eq!(excerpt(&path, 5, 5).unwrap().to_string(), "0123456789");
        assert_eq!(excerpt(&path, 2, 3).unwrap().to_string(), "01\n[… 5 bytes …]\n789");
    }
}
