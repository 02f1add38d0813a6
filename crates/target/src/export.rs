//! The plain tree of a commit: the bytes of every file as git stores them, in an empty folder without `.git`.
//!
//! No filter, no attribute, no line-ending rule is applied, so what is checked is what will be committed.
//! Symbolic links are made last and never followed. It does not judge names beyond what could leave the folder.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

use model::CommitId;
use model::change::Mode;

use crate::git::{GitError, failed};
use crate::repository::{Repository, TreeEntry, unexpected};

/// Why a commit's tree is not in the folder. The folder then holds a part of it and is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Git could not read the objects.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The folder holds something already.
    #[error("the folder {} is not empty; a tree is only exported into an empty one", .0.display())]
    NotEmpty(PathBuf),
    /// The commit's own tree holds a name that no checkout may have.
    #[error("the commit holds the path `{path}`, {reason}; remove it from the default branch")]
    Hostile {
        /// The path, escaped.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file could not be written.
    #[error("`{path}` could not be written: {source}")]
    Write {
        /// The path inside the tree, escaped.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// How much was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exported {
    /// Files and symbolic links.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The longest text that a symbolic link can have on Linux.
const LONGEST_LINK: u64 = 4096;

/// Writes the tree of `commit` into `folder`, which is made when missing and must be empty.
pub fn export(repository: &Repository, commit: &CommitId, folder: &Path) -> Result<Exported, ExportError> {
    require_empty(folder)?;
    let entries = repository.tree(commit)?;
    for entry in &entries {
        require_harmless(&entry.path)?;
    }
    make_folders(&entries, folder)?;
    let blobs: Vec<&TreeEntry> = entries.iter().filter(|entry| entry.mode != Mode::Gitlink).collect();
    let written = write_blobs(repository, &blobs, folder)?;
    for (entry, text) in written.links {
        let made = symlink(OsStr::from_bytes(&text), place(folder, &entry.path));
        made.map_err(|source| ExportError::Write { path: escaped(&entry.path), source })?;
    }
    Ok(Exported { files: blobs.len() as u64, bytes: written.bytes })
}

/// What was written, and the links that are still to be made.
#[derive(Default)]
struct Written<'a> {
    links: Vec<(&'a TreeEntry, Vec<u8>)>,
    bytes: u64,
}

/// Writes the files, a part of them on each thread: making files is what takes the time.
fn write_blobs<'a>(
    repository: &Repository,
    blobs: &[&'a TreeEntry],
    folder: &Path,
) -> Result<Written<'a>, ExportError> {
    /// Fewer files than this are not worth another git process.
    const WORTH_A_THREAD: usize = 500;
    const MOST_THREADS: usize = 4;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    let part = blobs.len().div_ceil(threads).max(WORTH_A_THREAD);
    std::thread::scope(|scope| {
        let parts: Vec<_> =
            blobs.chunks(part).map(|blobs| scope.spawn(|| write_part(repository, blobs, folder))).collect();
        parts.into_iter().try_fold(Written::default(), |mut all, part| {
            let part = part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            all.links.extend(part.links);
            all.bytes += part.bytes;
            Ok(all)
        })
    })
}

fn write_part<'a>(
    repository: &Repository,
    blobs: &[&'a TreeEntry],
    folder: &Path,
) -> Result<Written<'a>, ExportError> {
    let mut links = Vec::new();
    let bytes = each_blob(repository, blobs, |entry, size, content| {
        if entry.mode == Mode::Symlink {
            links.push((entry, read_link_text(entry, size, content)?));
            Ok(())
        } else {
            write_file(folder, entry, size, content)
        }
    })?;
    Ok(Written { links, bytes })
}

fn require_empty(folder: &Path) -> Result<(), ExportError> {
    let io = |source| ExportError::Write { path: folder.display().to_string(), source };
    fs::create_dir_all(folder).map_err(io)?;
    match fs::read_dir(folder).map_err(io)?.next() {
        None => Ok(()),
        Some(_) => Err(ExportError::NotEmpty(folder.to_owned())),
    }
}

/// Git refuses to store most of these, but a server need not, and `git mktree` does not.
fn require_harmless(path: &[u8]) -> Result<(), ExportError> {
    let reason = path.split(|byte| *byte == b'/').find_map(|component| match component {
        b"" => Some("which has an empty component"),
        b"." | b".." => Some("which would leave the folder"),
        name if name.eq_ignore_ascii_case(b".git") => Some("which git would take for a repository"),
        _ => None,
    });
    match reason {
        None => Ok(()),
        Some(reason) => Err(ExportError::Hostile { path: escaped(path), reason }),
    }
}

/// Makes every folder before any file or link exists, so that no component of a path can be a link.
fn make_folders(entries: &[TreeEntry], root: &Path) -> Result<(), ExportError> {
    let mut made: HashSet<&[u8]> = HashSet::new();
    for entry in entries {
        let folder = match entry.mode {
            Mode::Gitlink => Some(entry.path.as_slice()),
            Mode::Regular | Mode::Executable | Mode::Symlink => parent(&entry.path),
        };
        if let Some(folder) = folder
            && made.insert(folder)
        {
            fs::create_dir_all(place(root, folder))
                .map_err(|source| ExportError::Write { path: escaped(folder), source })?;
        }
    }
    Ok(())
}

/// Calls `visit` with the content of each entry's blob, in order, from one `git cat-file` process; the bytes read.
fn each_blob<'a>(
    repository: &Repository,
    entries: &[&'a TreeEntry],
    mut visit: impl FnMut(&'a TreeEntry, u64, &mut dyn Read) -> Result<(), ExportError>,
) -> Result<u64, ExportError> {
    const VERB: &str = "cat-file";
    let mut write_error = None;
    let outcome = repository.command(VERB).args(["--batch", "--buffer"]).converse(
        |stdin| {
            let mut names = io::BufWriter::new(stdin);
            for entry in entries {
                writeln!(names, "{}", entry.object)?;
            }
            names.flush()
        },
        |stdout| {
            let mut reader = BufReader::with_capacity(1 << 16, stdout);
            let mut total = 0;
            for entry in entries {
                let size = read_blob_head(&mut reader, entry)?;
                let mut content = reader.by_ref().take(size);
                if let Err(error) = visit(entry, size, &mut content) {
                    write_error = Some(error);
                    return Err(unexpected(VERB, "the reader gave up"));
                }
                reader.read_exact(&mut [0]).map_err(|e| failed(VERB, e))?;
                total += size;
            }
            Ok(total)
        },
    );
    match (write_error, outcome) {
        (Some(error), _) => Err(error),
        (None, Ok((total, ended))) => {
            ended.successful(VERB)?;
            Ok(total)
        }
        (None, Err(error)) => Err(error.into()),
    }
}

/// `<object> blob <size>`.
fn read_blob_head(reader: &mut impl io::BufRead, entry: &TreeEntry) -> Result<u64, GitError> {
    let mut head = String::new();
    reader.read_line(&mut head).map_err(|e| failed("cat-file", e))?;
    let size =
        head.trim_end().strip_prefix(entry.object.as_str()).and_then(|rest| rest.strip_prefix(" blob "));
    size.and_then(|size| size.parse().ok())
        .ok_or_else(|| unexpected("cat-file", &format!("{} for `{}`", head.trim_end(), escaped(&entry.path))))
}

fn read_link_text(entry: &TreeEntry, size: u64, content: &mut dyn Read) -> Result<Vec<u8>, ExportError> {
    if size > LONGEST_LINK {
        return Err(ExportError::Hostile {
            path: escaped(&entry.path),
            reason: "a symbolic link with too long a text",
        });
    }
    let mut text = Vec::new();
    content.read_to_end(&mut text).map_err(|e| failed("cat-file", e))?;
    Ok(text)
}

fn write_file(root: &Path, entry: &TreeEntry, size: u64, content: &mut dyn Read) -> Result<(), ExportError> {
    let permissions = if entry.mode == Mode::Executable { 0o755 } else { 0o644 };
    let mut write = || -> io::Result<()> {
        let mut file: File = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(permissions)
            .open(place(root, &entry.path))?;
        if io::copy(content, &mut file)? == size { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    };
    write().map_err(|source| ExportError::Write { path: escaped(&entry.path), source })
}

fn parent(path: &[u8]) -> Option<&[u8]> {
    path.iter().rposition(|byte| *byte == b'/').map(|slash| &path[..slash])
}

fn place(root: &Path, path: &[u8]) -> PathBuf {
    root.join(OsStr::from_bytes(path))
}

/// A path as it may be shown: control and invisible characters and what is not UTF-8 are escaped.
pub(crate) fn escaped(path: &[u8]) -> String {
    match std::str::from_utf8(path) {
        Ok(text) => text.chars().map(escaped_character).collect(),
        Err(_) => path.escape_ascii().to_string(),
    }
}

fn escaped_character(c: char) -> String {
    if matches!(c, '"' | '\'' | '\\') { c.to_string() } else { c.escape_debug().to_string() }
}
