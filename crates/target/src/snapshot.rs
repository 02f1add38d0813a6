//! The clean room: what the agent left in its tree becomes a change set and one commit of our own making.
//!
//! To be called when every process of the attempt is dead. Nothing that the agent could have prepared is
//! believed: no index, no `.git`, no ignore rules, no attributes, no times. Each file is read, named by its
//! content and compared with the base; what differs is written by one `git fast-import` into our repository, and
//! then the objects are asked what they say. If that is not what was read from the tree, nothing is trusted.
//!
//! Two kinds of new files are no part of the change: what the policy's `setup` left and nobody touched since, and
//! what the base commit's own `.gitignore` files name. Neither can reach the commit.

mod ignored;
mod prepared;
mod walk;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Write};
use std::path::Path;

use model::change::{ChangeSet, Irregularity, Mode};
use model::secrets::Redactor;
use model::{CommitId, ObjectId, RepoPath};

use crate::changes::{Measured, irregular_name, measure};
use crate::export::escaped;
use crate::git::GitError;
use crate::import::{NewCommit, import, put, remove};
use crate::provenance::Provenance;
use crate::repository::{Repository, TreeEntry};
use ignored::ignored;
pub use prepared::{PrepareError, Prepared};
use walk::{Found, Tree};

/// How much of a tree is read before it is called too large. Wider than the policy's limits, which judge the
/// change afterwards: these only keep a hostile tree from filling memory and disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotLimits {
    /// The largest new or changed file, in bytes.
    pub file_bytes: u64,
    /// All new and changed files together, in bytes.
    pub changed_bytes: u64,
    /// How many entries the tree may have beyond those of the base.
    pub new_entries: u64,
}

impl Default for SnapshotLimits {
    fn default() -> Self {
        Self { file_bytes: 256 << 20, changed_bytes: 1 << 30, new_entries: 200_000 }
    }
}

/// Why there is no change set.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Git failed.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The tree is beyond the limits. The attempt's change is too large; nobody's machine failed.
    #[error("the tree is too large to be judged: {0}")]
    TooLarge(String),
    /// Something changed while it was read: a process of the attempt is still alive.
    #[error("`{0}` changed while it was read; a process of the attempt is still running")]
    Moving(String),
    /// The tree could not be read.
    #[error("`{path}` could not be read: {source}")]
    Read {
        /// The path inside the tree, escaped.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The objects that were written say something else than the tree that was read.
    #[error("the candidate commit does not hold what was read from the tree, at `{0}`; this is a bug")]
    Disagreement(String),
}

/// What an agent's tree came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// What differs from the base, and the commit that holds it.
    pub change: ChangeSet,
    /// How many new files were left out because the base's own `.gitignore` files name them.
    pub ignored_files: u64,
}

/// Reads the tree in `folder`, which began as the export of `base` with what is `prepared`, and commits what
/// differs on top of `base`.
///
/// The candidate of an unchanged tree is `base` itself. Irregular entries are reported and are not in the
/// commit. The commit is kept from garbage collection by `refs/leviathan/attempts/<attempt>`. What `redactor` takes
/// for a secret is noted where the change adds it.
pub fn snapshot(
    repository: &Repository,
    base: &CommitId,
    folder: &Path,
    prepared: &Prepared,
    provenance: &Provenance,
    limits: &SnapshotLimits,
    redactor: &Redactor,
) -> Result<Snapshot, SnapshotError> {
    let base_entries = repository.tree(base)?;
    let tree = Tree::open(folder)?;
    let known = (2 * base_entries.len() as u64).saturating_add(prepared.len());
    let most_entries = limits.new_entries.saturating_add(known);
    let mut walked = tree.walk(repository.format(), limits.file_bytes, most_entries)?;
    hash_large_files(repository, &tree, &base_entries, prepared, &mut walked.files)?;
    walked.files.retain(|file| !prepared.holds(file));
    walked.irregularities.retain(|one| !prepared.holds_irregular(one));
    let ignored_files = leave_out_ignored(repository, &base_entries, &mut walked.files)?;
    let Planned { edits, mut irregularities } = plan(&base_entries, walked.files, limits)?;
    irregularities.append(&mut walked.irregularities);
    if edits.is_empty() {
        let change = ChangeSet::new(base.clone(), base.clone(), Vec::new(), irregularities, 0);
        return Ok(Snapshot { change, ignored_files });
    }
    let candidate = commit(repository, base, &tree, &edits, provenance)?;
    let measured = measure(repository, base, &candidate, redactor)?;
    require_agreement(&edits, &measured)?;
    let Measured { changes, irregularities: measured_irregularities, patch_bytes } = measured;
    irregularities.extend(measured_irregularities);
    let change = ChangeSet::new(base.clone(), candidate, changes, irregularities, patch_bytes);
    Ok(Snapshot { change, ignored_files })
}

/// Drops the new files that the base ignores, and says how many they were.
fn leave_out_ignored(
    repository: &Repository,
    base: &[TreeEntry],
    found: &mut Vec<Found>,
) -> Result<u64, SnapshotError> {
    let of_base: HashSet<&[u8]> = base.iter().map(|entry| entry.path.as_slice()).collect();
    let new = found.iter().map(|file| file.path.as_slice()).filter(|path| !of_base.contains(path));
    let ignored = ignored(repository, base, &new.collect::<Vec<_>>())?;
    found.retain(|file| !ignored.contains(&file.path));
    Ok(ignored.len() as u64)
}

/// One path that differs.
#[derive(Debug)]
struct Edit {
    before: Option<(Mode, ObjectId)>,
    after: Option<After>,
}

#[derive(Debug)]
struct After {
    mode: Mode,
    object: ObjectId,
    size: u64,
}

#[derive(Default)]
struct Planned {
    edits: BTreeMap<RepoPath, Edit>,
    irregularities: Vec<Irregularity>,
}

/// A file that is too large to be hashed unasked is hashed when the base or `setup` has a file of the same size
/// there: only then can it be unchanged, and then its size is not the agent's doing.
fn hash_large_files(
    repository: &Repository,
    tree: &Tree,
    base: &[TreeEntry],
    prepared: &Prepared,
    files: &mut [Found],
) -> Result<(), SnapshotError> {
    let mut large: HashMap<&[u8], ObjectId> = HashMap::new();
    if files.iter().any(|file| file.object.is_none()) {
        large = base.iter().map(|entry| (entry.path.as_slice(), entry.object.clone())).collect();
    }
    for file in files.iter_mut().filter(|file| file.object.is_none()) {
        let may_be_unchanged = match large.get(file.path.as_slice()) {
            Some(object) => repository.sizes(std::slice::from_ref(object))?.get(object) == Some(&file.size),
            None => prepared.has_size(&file.path, file.size),
        };
        if may_be_unchanged {
            file.object = Some(tree.hash(&file.path, repository.format())?);
        }
    }
    Ok(())
}

/// Compares what was found with the base.
fn plan(base: &[TreeEntry], found: Vec<Found>, limits: &SnapshotLimits) -> Result<Planned, SnapshotError> {
    let mut missing: HashMap<&[u8], &TreeEntry> =
        base.iter().map(|entry| (entry.path.as_slice(), entry)).collect();
    let mut planned = Planned::default();
    let mut changed_bytes = 0_u64;
    let mut occupied_gitlinks = Vec::new();
    for file in found {
        let before = missing.remove(file.path.as_slice());
        let Some(object) = file.object else {
            return Err(too_large(&file.path, file.size, limits.file_bytes));
        };
        if before.is_some_and(|entry| entry.mode == file.mode && entry.object == object) {
            continue;
        }
        if file.size > limits.file_bytes {
            return Err(too_large(&file.path, file.size, limits.file_bytes));
        }
        changed_bytes = changed_bytes.saturating_add(file.size);
        occupied_gitlinks.extend(
            folders_of(&file.path)
                .filter(|folder| missing.get(folder).is_some_and(|entry| entry.mode == Mode::Gitlink))
                .map(<[u8]>::to_vec),
        );
        let after = Some(After { mode: file.mode, object, size: file.size });
        planned.add(&file.path, before, after);
    }
    if changed_bytes > limits.changed_bytes {
        return Err(SnapshotError::TooLarge(format!(
            "its new and changed files have {changed_bytes} bytes, the limit is {}",
            limits.changed_bytes
        )));
    }
    for entry in missing.into_values() {
        // An exported gitlink is an empty folder, and no tree without `.git` can move it to another commit.
        // Unless a file took the place of it, or of a folder that it was in.
        let is_gone = || occupied_gitlinks.contains(&entry.path) || planned.takes_a_folder_of(&entry.path);
        if entry.mode != Mode::Gitlink || is_gone() {
            planned.add(&entry.path, Some(entry), None);
        }
    }
    Ok(planned)
}

impl Planned {
    /// Whether a file or link is now where a folder of `path` was.
    fn takes_a_folder_of(&self, path: &[u8]) -> bool {
        let is_taken =
            |folder| RepoPath::from_bytes(folder).is_ok_and(|folder| self.edits.contains_key(&folder));
        folders_of(path).any(is_taken)
    }

    fn add(&mut self, path: &[u8], before: Option<&TreeEntry>, after: Option<After>) {
        match RepoPath::from_bytes(path) {
            Ok(path) => {
                let before = before.map(|entry| (entry.mode, entry.object.clone()));
                self.edits.insert(path, Edit { before, after });
            }
            Err(error) => self.irregularities.push(irregular_name(path, &error.to_string())),
        }
    }
}

fn too_large(path: &[u8], size: u64, limit: u64) -> SnapshotError {
    SnapshotError::TooLarge(format!("`{}` has {size} bytes, the limit is {limit}", escaped(path)))
}

/// `a` and `a/b` of `a/b/c`.
fn folders_of(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at])
}

/// Writes the changed blobs, the trees and one commit.
fn commit(
    repository: &Repository,
    base: &CommitId,
    tree: &Tree,
    edits: &BTreeMap<RepoPath, Edit>,
    provenance: &Provenance,
) -> Result<CommitId, SnapshotError> {
    let new = NewCommit {
        reference: provenance.reference(),
        parent: base,
        message: provenance.message(),
        at: provenance.at,
    };
    import(repository, &new, |stream| {
        for (path, _) in edits.iter().filter(|(_, edit)| edit.after.is_none()) {
            remove(stream, path).map_err(|e| stream_error(path, e))?;
        }
        for (path, edit) in edits {
            if let Some(after) = &edit.after {
                write_blob(stream, tree, path, after)?;
            }
        }
        Ok(())
    })
}

fn write_blob(
    stream: &mut dyn Write,
    tree: &Tree,
    path: &RepoPath,
    after: &After,
) -> Result<(), SnapshotError> {
    let bytes = path.as_str().as_bytes();
    let copied = match after.mode {
        Mode::Symlink => put(stream, path, after.mode, after.size, &mut tree.read_link(bytes)?.as_slice()),
        Mode::Regular | Mode::Executable => {
            put(stream, path, after.mode, after.size, &mut tree.open_file(bytes)?)
        }
        Mode::Gitlink => unreachable!("a walk of files finds no gitlinks"),
    };
    if copied.map_err(|e| stream_error(path, e))? == after.size {
        Ok(())
    } else {
        Err(SnapshotError::Moving(path.to_string()))
    }
}

fn stream_error(path: &RepoPath, source: io::Error) -> SnapshotError {
    SnapshotError::Read { path: path.to_string(), source }
}

/// The objects must say exactly what was read from the tree.
fn require_agreement(edits: &BTreeMap<RepoPath, Edit>, measured: &Measured) -> Result<(), SnapshotError> {
    type Sides = (Option<(Mode, ObjectId)>, Option<(Mode, ObjectId)>);
    let read: BTreeMap<&RepoPath, Sides> = edits
        .iter()
        .map(|(path, edit)| {
            let after = edit.after.as_ref().map(|after| (after.mode, after.object.clone()));
            (path, (edit.before.clone(), after))
        })
        .collect();
    let said: BTreeMap<&RepoPath, Sides> = measured
        .changes
        .iter()
        .map(|change| {
            let side =
                |entry: &Option<model::change::Entry>| entry.as_ref().map(|e| (e.mode, e.object.clone()));
            (&change.path, (side(&change.before), side(&change.after)))
        })
        .collect();
    let differing = read.keys().chain(said.keys()).find(|path| read.get(*path) != said.get(*path));
    match differing {
        None => Ok(()),
        Some(path) => Err(SnapshotError::Disagreement(path.to_string())),
    }
}
