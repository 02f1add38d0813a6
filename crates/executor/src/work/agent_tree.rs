//! The tree that the agent changes, and what of it is read as its change.
//!
//! What the policy's `setup` left there is not the agent's work as long as it is as `setup` left it. This module
//! does not judge what it reads.

use std::path::PathBuf;
use std::sync::Arc;

use model::CommitId;
use model::secrets::Redactor;
use target::{
    PrepareError, Prepared, Provenance, Repository, Snapshot, SnapshotError, SnapshotLimits, snapshot,
};

/// The agent's tree.
#[derive(Debug, Clone)]
pub(super) struct AgentTree {
    path: PathBuf,
    prepared: Arc<Prepared>,
}

/// What the tree is read into.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) repository: Repository,
    pub(super) base: CommitId,
    pub(super) provenance: Provenance,
    pub(super) redactor: Redactor,
}

impl AgentTree {
    /// The tree at `path`, as it was exported.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, prepared: Arc::default() }
    }

    /// Remembers what `setup` left. Nothing of it runs any more, and the agent has not begun.
    pub(super) async fn remember_setup(&mut self, into: &Reading) -> Result<(), PrepareError> {
        let (Reading { repository, base, .. }, tree) = (into.clone(), self.path.clone());
        let read = tokio::task::spawn_blocking(move || Prepared::read(&repository, &base, &tree)).await;
        self.prepared = Arc::new(read.expect("reading a tree does not panic")?);
        Ok(())
    }

    /// The candidate commit of the tree as it is now, and what it changes. No process of the attempt may run.
    pub(super) async fn read(&self, into: &Reading) -> Result<Snapshot, SnapshotError> {
        let Reading { repository, base, provenance, redactor } = into.clone();
        let (tree, prepared) = (self.path.clone(), Arc::clone(&self.prepared));
        let taken = tokio::task::spawn_blocking(move || {
            let limits = SnapshotLimits::default();
            snapshot(&repository, &base, &tree, &prepared, &provenance, &limits, &redactor)
        });
        taken.await.expect("the snapshot does not panic")
    }
}
