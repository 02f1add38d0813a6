//! What differs between two commits, measured from git objects alone.
//!
//! The same measurement serves the gate of an attempt, the second look of the publish stage and
//! `leviathan check --diff`. It judges nothing, and it reads no index, no working tree and no attributes.

use std::collections::{HashMap, HashSet};
use std::io::{self, BufReader, Read, Write as _};

use model::change::{Change, ChangeSet, Entry, Irregularity, IrregularityKind, Mode, SecretFound};
use model::secrets::{Redactor, Scan, Sighting, added};
use model::{CommitId, ObjectId, RepoPath};

use crate::export::escaped;
use crate::git::{GitError, failed};
use crate::repository::{Repository, drain, read_record, split_nul, unexpected};

/// Everything that differs between `base` and `candidate`. A rename is a removal and an addition. What `redactor`
/// takes for a secret is noted where the candidate adds it.
///
/// A changed path that is no [`RepoPath`] is an irregularity, and so is one that some file system would
/// take for another path of the candidate.
pub fn changes_between(
    repository: &Repository,
    base: &CommitId,
    candidate: &CommitId,
    redactor: &Redactor,
) -> Result<ChangeSet, GitError> {
    let Measured { changes, irregularities, patch_bytes } = measure(repository, base, candidate, redactor)?;
    Ok(ChangeSet::new(base.clone(), candidate.clone(), changes, irregularities, patch_bytes))
}

/// The parts of a change set before it is closed.
pub(crate) struct Measured {
    pub(crate) changes: Vec<Change>,
    pub(crate) irregularities: Vec<Irregularity>,
    pub(crate) patch_bytes: u64,
}

pub(crate) fn measure(
    repository: &Repository,
    base: &CommitId,
    candidate: &CommitId,
    redactor: &Redactor,
) -> Result<Measured, GitError> {
    let differences = differences(repository, base, candidate)?;
    let contents = inspect(repository, &differences, redactor)?;
    let (mut changes, mut irregularities) = (Vec::new(), Vec::new());
    for difference in differences {
        match RepoPath::from_bytes(&difference.path) {
            Ok(path) => {
                changes.push(with_secrets_of_name(difference.into_change(path, &contents)?, redactor))
            }
            Err(error) => irregularities.push(irregular_name(&difference.path, &error.to_string())),
        }
    }
    irregularities.extend(collisions(repository, base, candidate, &changes)?);
    let patch_bytes = if changes.is_empty() { 0 } else { patch_bytes(repository, base, candidate)? };
    Ok(Measured { changes, irregularities, patch_bytes })
}

/// A new name can tell a secret as well as a line can. It counts as line 0.
fn with_secrets_of_name(mut change: Change, redactor: &Redactor) -> Change {
    if change.before.is_none() {
        let mut scan = redactor.scan();
        scan.push(change.path.as_str().as_bytes());
        let found = added(scan.finish(), &[]);
        change.secrets.splice(0..0, found.into_iter().map(|found| SecretFound { line: 0, ..found }));
    }
    change
}

/// The irregularity of a path that is no [`RepoPath`].
pub(crate) fn irregular_name(path: &[u8], detail: &str) -> Irregularity {
    Irregularity { path: escaped(path), kind: IrregularityKind::Name, detail: detail.to_owned() }
}

/// Added and removed lines.
type LineCounts = (u64, u64);

/// One path that differs, as `git diff-tree` says.
struct Difference {
    path: Vec<u8>,
    before: Option<(Mode, ObjectId)>,
    after: Option<(Mode, ObjectId)>,
    /// None when git takes a side for binary, as attributes can make it do.
    lines: Option<LineCounts>,
}

/// What a blob is, learned by reading it once.
#[derive(Clone, Default)]
struct Content {
    size: u64,
    lines: u64,
    holds_nul: bool,
    is_lfs_pointer: bool,
    /// Empty for what is only removed: nobody learns from it what they could not know already.
    secrets: Vec<Sighting>,
}

impl Difference {
    fn into_change(self, path: RepoPath, contents: &HashMap<ObjectId, Content>) -> Result<Change, GitError> {
        let before = self.before.map(|side| Side::of(side, contents)).transpose()?;
        let after = self.after.map(|side| Side::of(side, contents)).transpose()?;
        let is_binary = [&before, &after].into_iter().flatten().any(|side| side.content.holds_nul);
        let all_lines = |side: &Option<Side>| side.as_ref().map_or(0, |side| side.content.lines);
        let (added_lines, removed_lines) = match self.lines {
            _ if is_binary => (0, 0),
            Some(lines) => lines,
            None => (all_lines(&after), all_lines(&before)),
        };
        let known = before.as_ref().map_or(&[][..], |side| &side.content.secrets);
        let secrets = after.as_ref().map_or_else(Vec::new, |side| added(side.content.secrets.clone(), known));
        let is_lfs_pointer = after.as_ref().is_some_and(|side| side.content.is_lfs_pointer);
        let (before, after) = (before.map(|side| side.entry), after.map(|side| side.entry));
        Ok(Change { path, before, after, is_binary, added_lines, removed_lines, is_lfs_pointer, secrets })
    }
}

/// One side of a change, with what its content is.
struct Side {
    entry: Entry,
    content: Content,
}

impl Side {
    fn of((mode, object): (Mode, ObjectId), contents: &HashMap<ObjectId, Content>) -> Result<Self, GitError> {
        let content = match contents.get(&object) {
            Some(content) => content.clone(),
            None if mode == Mode::Gitlink => Content::default(),
            None => return Err(unexpected("cat-file", &format!("blob {object} is missing"))),
        };
        Ok(Self { entry: Entry { mode, object, size: content.size }, content })
    }
}

const DIFF_OPTIONS: [&str; 6] =
    ["-r", "--no-renames", "--no-ext-diff", "--no-textconv", "--no-color", "--diff-algorithm=myers"];

/// The raw differences with their line counts.
fn differences(
    repository: &Repository,
    base: &CommitId,
    candidate: &CommitId,
) -> Result<Vec<Difference>, GitError> {
    let output = repository
        .command("diff-tree")
        .args(DIFF_OPTIONS)
        .args(["--raw", "--numstat", "-z", "--no-abbrev", "--ignore-submodules=none"])
        .args([base.as_str(), candidate.as_str(), "--"])
        .output()?;
    parse_differences(&output)
}

/// Whether the bytes are an answer of `git diff-tree` in the form that the gate reads.
pub fn reads_as_diff(output: &[u8]) -> bool {
    parse_differences(output).is_ok()
}

fn parse_differences(output: &[u8]) -> Result<Vec<Difference>, GitError> {
    let mut found = Vec::new();
    let mut lines = HashMap::new();
    let mut records = split_nul(output);
    while let Some(record) = records.next() {
        if record.starts_with(b":") {
            let path = records.next().ok_or_else(|| malformed(record))?;
            found.push(parse_raw(record, path)?);
        } else {
            let (path, counts) = parse_numstat(record)?;
            lines.insert(path, counts);
        }
    }
    for difference in &mut found {
        difference.lines = lines.get(difference.path.as_slice()).copied().flatten();
    }
    Ok(found)
}

/// `:<mode> <mode> <object> <object> <status>`.
fn parse_raw(record: &[u8], path: &[u8]) -> Result<Difference, GitError> {
    let text = std::str::from_utf8(&record[1..]).map_err(|_| malformed(record))?;
    let words: Vec<&str> = text.split(' ').collect();
    let [mode_before, mode_after, before, after, _status] = words.as_slice() else {
        return Err(malformed(record));
    };
    let side = |mode: &str, object: &str| match mode {
        "000000" => Ok(None),
        mode => match (Mode::from_octal(mode), ObjectId::parse(object)) {
            (Some(mode), Ok(object)) => Ok(Some((mode, object))),
            (None, _) | (_, Err(_)) => Err(malformed(record)),
        },
    };
    Ok(Difference {
        path: path.to_vec(),
        before: side(mode_before, before)?,
        after: side(mode_after, after)?,
        lines: None,
    })
}

/// `<added>\t<removed>\t<path>`; both are `-` for what git takes for binary.
fn parse_numstat(record: &[u8]) -> Result<(&[u8], Option<LineCounts>), GitError> {
    let mut fields = record.splitn(3, |byte| *byte == b'\t');
    let mut next = || fields.next().ok_or_else(|| malformed(record));
    let (added, removed, path) = (next()?, next()?, next()?);
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse::<u64>().ok();
    match (added, removed) {
        (b"-", b"-") => Ok((path, None)),
        (added, removed) => {
            let counts = number(added).zip(number(removed)).ok_or_else(|| malformed(record))?;
            Ok((path, Some(counts)))
        }
    }
}

fn malformed(record: &[u8]) -> GitError {
    unexpected("diff-tree", &record.escape_ascii().to_string())
}

/// Reads every blob of the differences once, in constant memory.
fn inspect(
    repository: &Repository,
    differences: &[Difference],
    redactor: &Redactor,
) -> Result<HashMap<ObjectId, Content>, GitError> {
    let sides = differences.iter().flat_map(|difference| [&difference.before, &difference.after]);
    let wanted: HashSet<&ObjectId> =
        sides.flatten().filter(|(mode, _)| *mode != Mode::Gitlink).map(|(_, object)| object).collect();
    let kept = differences.iter().filter(|difference| difference.after.is_some());
    let kept = kept.flat_map(|difference| [&difference.before, &difference.after]);
    let scanned: HashSet<&ObjectId> = kept.flatten().map(|(_, object)| object).collect();
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let (contents, ended) = repository.command("cat-file").args(["--batch", "--buffer"]).converse(
        |stdin| {
            let mut names = io::BufWriter::new(stdin);
            for object in &wanted {
                writeln!(names, "{object}")?;
            }
            names.flush()
        },
        |stdout| {
            let mut reader = BufReader::with_capacity(1 << 16, stdout);
            let scan = |object: &ObjectId| scanned.contains(object).then(|| redactor.scan());
            let next = |object: &&ObjectId| {
                Ok(((*object).clone(), inspect_next(&mut reader, object, scan(object))?))
            };
            wanted.iter().map(next).collect()
        },
    )?;
    ended.successful("cat-file")?;
    Ok(contents)
}

fn inspect_next(
    reader: &mut impl io::BufRead,
    object: &ObjectId,
    scan: Option<Scan>,
) -> Result<Content, GitError> {
    let mut head = String::new();
    reader.read_line(&mut head).map_err(|e| failed("cat-file", e))?;
    let size: u64 = head
        .trim_end()
        .strip_prefix(object.as_str())
        .and_then(|rest| rest.strip_prefix(" blob "))
        .and_then(|size| size.parse().ok())
        .ok_or_else(|| unexpected("cat-file", &head))?;
    let mut reading = Reading { scan, ..Reading::default() };
    let read = io::copy(&mut reader.by_ref().take(size), &mut reading).map_err(|e| failed("cat-file", e))?;
    reader.read_exact(&mut [0]).map_err(|e| failed("cat-file", e))?;
    if read == size { Ok(reading.finish()) } else { Err(unexpected("cat-file", &head)) }
}

/// Learns from the bytes that are written to it.
#[derive(Default)]
struct Reading {
    content: Content,
    /// Whether the last byte was inside a line.
    is_in_line: bool,
    /// The first bytes, as many as the mark of a pointer has.
    head: Vec<u8>,
    scan: Option<Scan>,
}

/// How a pointer of Git LFS begins: the first and every later form of it.
const LFS_MARKS: [&[u8]; 2] = [b"version https://git-lfs.github.com/", b"version https://hawser.github.com/"];

impl Reading {
    fn finish(self) -> Content {
        let is_lfs_pointer = LFS_MARKS.iter().any(|mark| self.head.starts_with(mark));
        let secrets = self.scan.map(Scan::finish).unwrap_or_default();
        Content { is_lfs_pointer, secrets, ..self.content }
    }
}

impl io::Write for Reading {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for &byte in bytes {
            // A line counts when it begins, so that a last one without its end counts too.
            self.content.lines += u64::from(!self.is_in_line);
            self.is_in_line = byte != b'\n';
            self.content.holds_nul |= byte == 0;
        }
        self.content.size += bytes.len() as u64;
        let missing = LFS_MARKS[0].len().saturating_sub(self.head.len());
        self.head.extend_from_slice(&bytes[..bytes.len().min(missing)]);
        if let Some(scan) = &mut self.scan {
            scan.push(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The length of the patch, without holding it.
fn patch_bytes(repository: &Repository, base: &CommitId, candidate: &CommitId) -> Result<u64, GitError> {
    let (bytes, ended) = repository
        .command("diff-tree")
        .args(DIFF_OPTIONS)
        .args(["-p", "--full-index", base.as_str(), candidate.as_str(), "--"])
        .converse(|_| Ok(()), |stdout| drain(stdout, "diff-tree"))?;
    ended.successful("diff-tree")?;
    Ok(bytes)
}

/// Changed paths that some file system would take for another path of the candidate: the whole path of
/// anything that is there after the change, and every folder that the change brings.
fn collisions(
    repository: &Repository,
    base: &CommitId,
    candidate: &CommitId,
    changes: &[Change],
) -> Result<Vec<Irregularity>, GitError> {
    if changes.iter().all(|change| change.after.is_none()) {
        return Ok(Vec::new());
    }
    let mut watched: HashMap<String, &str> = HashMap::new();
    for change in changes.iter().filter(|change| change.after.is_some()) {
        for prefix in prefixes(change.path.as_str()) {
            watched.insert(model::collision_key(prefix), prefix);
        }
    }
    let mut collisions = Vec::new();
    each_path(repository, candidate, |path| {
        let Ok(path) = std::str::from_utf8(path) else { return };
        match watched.get(&model::collision_key(path)) {
            Some(changed) if *changed != path => collisions.push(((*changed).to_owned(), path.to_owned())),
            Some(_) | None => {}
        }
    })?;
    if collisions.is_empty() {
        return Ok(Vec::new());
    }
    let changed_paths: HashSet<&str> = changes.iter().map(|change| change.path.as_str()).collect();
    let base_paths = paths_of(repository, base)?;
    let is_new = |path: &str| changed_paths.contains(path) || !base_paths.contains(path.as_bytes());
    Ok(collisions
        .into_iter()
        // Two folders that the base has already are not this change's doing.
        .filter(|(changed, other)| is_new(changed) || is_new(other))
        .map(|(changed, other)| Irregularity {
            path: escaped(changed.as_bytes()),
            kind: IrregularityKind::Collision,
            detail: format!("some file systems cannot tell it from `{}`", escaped(other.as_bytes())),
        })
        .collect())
}

/// `a`, `a/b`, `a/b/c` of `a/b/c`.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at]).chain([path])
}

fn paths_of(repository: &Repository, commit: &CommitId) -> Result<HashSet<Vec<u8>>, GitError> {
    let mut paths = HashSet::new();
    each_path(repository, commit, |path| {
        paths.insert(path.to_vec());
    })?;
    Ok(paths)
}

/// Visits the path of every entry of a commit's tree, folders too.
fn each_path(
    repository: &Repository,
    commit: &CommitId,
    mut visit: impl FnMut(&[u8]),
) -> Result<(), GitError> {
    let ((), ended) = repository
        .command("ls-tree")
        .args(["-r", "-t", "-z", "--name-only", "--full-tree", commit.as_str()])
        .converse(
            |_| Ok(()),
            |stdout| {
                let mut reader = BufReader::with_capacity(1 << 16, stdout);
                let mut path = Vec::new();
                while read_record(&mut reader, &mut path, "ls-tree")? {
                    visit(&path);
                }
                Ok(())
            },
        )?;
    ended.successful("ls-tree")
}
