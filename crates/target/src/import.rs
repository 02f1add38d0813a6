//! One commit, written by one `git fast-import`: blobs, trees and the commit itself, without a working tree,
//! an index, a filter or a hook.

use std::io::{self, BufWriter, Read as _, Write};

use jiff::Timestamp;
use model::change::Mode;
use model::{CommitId, ObjectId, RepoPath};

use crate::git::{GitError, failed};
use crate::provenance::IDENTITY;
use crate::repository::{Repository, parse_commit};

const VERB: &str = "fast-import";

/// The commit that is to be written: always one, on one parent, by Leviathan.
pub(crate) struct NewCommit<'a> {
    /// The ref that keeps it, which is moved wherever it was.
    pub(crate) reference: String,
    pub(crate) parent: &'a CommitId,
    pub(crate) message: String,
    pub(crate) at: Timestamp,
}

/// Writes the commit; `write_edits` sends what differs from the parent, as [`remove`] and [`put`] do.
/// When it fails, nothing is committed.
pub(crate) fn import<E: From<GitError> + Send>(
    repository: &Repository,
    new: &NewCommit<'_>,
    write_edits: impl FnOnce(&mut dyn Write) -> Result<(), E> + Send,
) -> Result<CommitId, E> {
    let mut edit_error = None;
    let conversation =
        repository.command(VERB).args(["--quiet", "--done", "--force", "--date-format=raw"]).converse(
            |stdin| {
                let mut stream =
                    Remembering { inner: BufWriter::with_capacity(1 << 16, stdin), is_broken: false };
                write_head(&mut stream, new)?;
                if let Err(error) = write_edits(&mut stream) {
                    // A broken stream is git's failure, and git says why. Otherwise the stream stays without
                    // its end, and git throws it away.
                    edit_error = (!stream.is_broken).then_some(error);
                    return Ok(());
                }
                stream.write_all(b"\nget-mark :1\ndone\n")?;
                stream.flush()
            },
            |stdout| {
                let mut answer = Vec::new();
                stdout.take(1024).read_to_end(&mut answer).map_err(|e| failed(VERB, e))?;
                Ok(answer)
            },
        );
    if let Some(error) = edit_error {
        return Err(error);
    }
    let (answer, ended) = conversation?;
    ended.successful(VERB)?;
    Ok(parse_commit(VERB, &answer)?)
}

/// Sends the removal of a path. Removals come before additions: a file may become a folder.
pub(crate) fn remove(stream: &mut dyn Write, path: &RepoPath) -> io::Result<()> {
    writeln!(stream, "D {}", quoted(path))
}

/// Sends that a path is to hold an object that is there already.
pub(crate) fn restore(
    stream: &mut dyn Write,
    path: &RepoPath,
    mode: Mode,
    object: &ObjectId,
) -> io::Result<()> {
    writeln!(stream, "M {} {object} {}", mode.as_octal(), quoted(path))
}

/// Sends the new content of a path, exactly `size` bytes of it; the number of bytes that there were.
pub(crate) fn put(
    stream: &mut dyn Write,
    path: &RepoPath,
    mode: Mode,
    size: u64,
    content: &mut dyn io::Read,
) -> io::Result<u64> {
    writeln!(stream, "M {} inline {}\ndata {size}", mode.as_octal(), quoted(path))?;
    let copied = io::copy(&mut content.take(size), stream)?;
    stream.write_all(b"\n")?;
    Ok(copied)
}

fn write_head(stream: &mut dyn Write, new: &NewCommit<'_>) -> io::Result<()> {
    let NewCommit { reference, parent, message, at } = new;
    let seconds = at.as_second();
    writeln!(stream, "commit {reference}\nmark :1")?;
    writeln!(stream, "author {IDENTITY} {seconds} +0000\ncommitter {IDENTITY} {seconds} +0000")?;
    writeln!(stream, "data {}\n{message}\nfrom {parent}", message.len())
}

/// A path in the quotes of fast-import; a [`RepoPath`] holds no control character.
fn quoted(path: &RepoPath) -> String {
    format!("\"{}\"", path.as_str().replace('\\', "\\\\").replace('"', "\\\""))
}

/// Remembers whether git stopped listening.
struct Remembering<W> {
    inner: W,
    is_broken: bool,
}

impl<W: Write> Write for Remembering<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes).inspect_err(|_| self.is_broken = true)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush().inspect_err(|_| self.is_broken = true)
    }
}
