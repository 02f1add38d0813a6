//! The tree that the agent changes, and what of it is read as its change.
//!
//! Folders that the policy's `setup` made at the top of the tree (`node_modules`, `.venv`) are tools, not work:
//! they are held aside while the tree is read, so that they are in no candidate, whatever the agent did there.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use model::CommitId;
use model::change::ChangeSet;
use target::{Provenance, Repository, SnapshotError, SnapshotLimits, snapshot};

/// The agent's tree.
#[derive(Debug, Clone)]
pub(super) struct AgentTree {
    path: PathBuf,
    aside: PathBuf,
    of_setup: BTreeSet<OsString>,
}

/// What the tree is read into.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) repository: Repository,
    pub(super) base: CommitId,
    pub(super) provenance: Provenance,
}

impl AgentTree {
    /// The tree at `path`, as it was exported; `aside` is a name beside it that nothing uses.
    pub(super) fn new(path: PathBuf, aside: PathBuf) -> Self {
        Self { path, aside, of_setup: BTreeSet::new() }
    }

    /// Remembers which folders at the top `set_up` made.
    pub(super) async fn note_folders_of<T>(&mut self, set_up: impl Future<Output = T>) -> io::Result<T> {
        let before = folders_in(&self.path)?;
        let done = set_up.await;
        self.of_setup = folders_in(&self.path)?.difference(&before).cloned().collect();
        Ok(done)
    }

    /// The candidate commit of the tree as it is now, and what it changes. No process of the attempt may run.
    pub(super) async fn read(&self, into: &Reading) -> anyhow::Result<Result<ChangeSet, SnapshotError>> {
        self.rename_all(&self.path, &self.aside).context("what setup made cannot be held aside")?;
        let Reading { repository, base, provenance } = into.clone();
        let tree = self.path.clone();
        let taken = tokio::task::spawn_blocking(move || {
            snapshot(&repository, &base, &tree, &provenance, &SnapshotLimits::default())
        });
        let taken = taken.await.expect("the snapshot does not panic");
        self.rename_all(&self.aside, &self.path).context("what setup made cannot be put back")?;
        Ok(taken)
    }

    /// Renaming follows no link in the last component, and there is no other.
    fn rename_all(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.of_setup.is_empty() {
            return Ok(());
        }
        std::fs::create_dir_all(to)?;
        for name in &self.of_setup {
            match std::fs::rename(from.join(name), to.join(name)) {
                // The agent removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed?,
            }
        }
        Ok(())
    }
}

fn folders_in(folder: &Path) -> io::Result<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.insert(entry.file_name());
        }
    }
    Ok(names)
}
