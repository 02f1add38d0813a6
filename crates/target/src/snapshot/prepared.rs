//! What a tree holds beside the files of the base when the agent is let in: the work of the policy's `setup`.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use model::change::{Irregularity, Mode};
use model::{CommitId, ObjectId};

use super::walk::{Found, Tree};
use super::{SnapshotError, TreeEntry};
use crate::export::escaped;
use crate::repository::Repository;

/// What is in a tree before the agent works in it, beside the files of the base. What of it is still the same
/// in the end is not the agent's change; everything else is judged. Empty for a fresh export.
#[derive(Debug, Clone, Default)]
pub struct Prepared {
    files: HashMap<Vec<u8>, (Mode, ObjectId, u64)>,
    irregularities: HashSet<(String, String)>,
}

/// Why a tree is not fit for an agent.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The base's own files are not what they were: they could not be told from the agent's changes.
    #[error(
        "setup changed {}, which the repository holds itself; a setup command may add files, but must leave the repository's own as they are",
        listed(.0)
    )]
    ChangedBase(Vec<String>),
    /// The tree could not be read.
    #[error(transparent)]
    Unreadable(#[from] SnapshotError),
}

/// Nobody installs more than this.
const MOST_ENTRIES: u64 = 2_000_000;

impl Prepared {
    /// Reads the tree in `folder`, which began as the export of `base`. No process may change it meanwhile.
    pub fn read(repository: &Repository, base: &CommitId, folder: &Path) -> Result<Self, PrepareError> {
        let base = repository.tree(base).map_err(SnapshotError::from)?;
        let walked = Tree::open(folder)?.walk(repository.format(), u64::MAX, MOST_ENTRIES)?;
        let mut missing: HashMap<&[u8], &TreeEntry> = base
            .iter()
            .filter(|entry| entry.mode != Mode::Gitlink)
            .map(|entry| (entry.path.as_slice(), entry))
            .collect();
        let mut changed = Vec::new();
        let mut files = HashMap::new();
        for Found { path, mode, size, object } in walked.files {
            let object = object.expect("a walk without a limit names every file");
            match missing.remove(path.as_slice()) {
                None => drop(files.insert(path, (mode, object, size))),
                Some(entry) if entry.mode == mode && entry.object == object => {}
                Some(_) => changed.push(escaped(&path)),
            }
        }
        changed.extend(missing.into_keys().map(escaped));
        if !changed.is_empty() {
            changed.sort();
            return Err(PrepareError::ChangedBase(changed));
        }
        let irregularities = walked.irregularities.into_iter().map(|one| (one.path, one.detail)).collect();
        Ok(Self { files, irregularities })
    }

    /// How many files it has.
    pub(super) fn len(&self) -> u64 {
        self.files.len() as u64
    }

    /// Whether it has a file of this size there.
    pub(super) fn has_size(&self, path: &[u8], size: u64) -> bool {
        self.files.get(path).is_some_and(|(_, _, before)| *before == size)
    }

    /// Whether the file is as it was.
    pub(super) fn holds(&self, file: &Found) -> bool {
        self.files
            .get(&file.path)
            .is_some_and(|(mode, object, _)| *mode == file.mode && Some(object) == file.object.as_ref())
    }

    /// Whether this was there already.
    pub(super) fn holds_irregular(&self, one: &Irregularity) -> bool {
        // An irregular entry is never read, so it is the same as long as it is as irregular.
        self.irregularities.contains(&(one.path.clone(), one.detail.clone()))
    }
}

/// The first few, for a message.
fn listed(paths: &[String]) -> String {
    const MOST: usize = 5;
    let named: Vec<String> = paths.iter().take(MOST).map(|path| format!("`{path}`")).collect();
    match paths.len().saturating_sub(MOST) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}
