//! The toolbox of an attempt's agent: the tree, the rules, contained commands, and checks of what it has so far.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use model::CommitId;
use model::change::ChangeSet;
use model::documents::Invariant;
use target::{Provenance, Repository, SnapshotError, SnapshotLimits, snapshot};

use super::Work;
use crate::checks::Checks;
use crate::toolbox::{Bounds, CheckReport, Shell, Toolbox, Tree};

impl Work<'_> {
    pub(super) fn toolbox(&self) -> io::Result<Toolbox> {
        let tree = self.folder.tree();
        let trial = Arc::new(Trial {
            checks: self.checks.clone(),
            repository: self.repository.clone(),
            tree: tree.clone(),
            base: self.job.assignment.base_commit.clone(),
            provenance: self.provenance(),
            bounds: self.bounds.clone(),
        });
        Ok(Toolbox {
            tree: Tree::open(&tree)?,
            rules: Arc::new(self.rules.clone()),
            shell: Shell::new(self.containment.clone(), self.folder.agent()),
            check: Arc::new(move |name| {
                let trial = Arc::clone(&trial);
                Box::pin(async move { trial.run(&name).await })
            }),
            bounds: self.bounds.clone(),
        })
    }
}

/// Runs one invariant on the tree as it is now, in the way the last check will.
struct Trial {
    checks: Checks,
    repository: Repository,
    tree: PathBuf,
    base: CommitId,
    provenance: Provenance,
    bounds: Bounds,
}

impl Trial {
    async fn run(&self, name: &str) -> Option<CheckReport> {
        let invariant = self.checks.invariants.iter().find(|invariant| invariant.name == name)?;
        Some(self.check(invariant.clone()).await.unwrap_or_else(|problem| CheckReport {
            passed: false,
            text: format!("the check could not be run: {problem}"),
        }))
    }

    async fn check(&self, invariant: Invariant) -> Result<CheckReport, String> {
        let change = self.snapshot().await.map_err(|error| error.to_string())?;
        let checks = Checks { invariants: vec![invariant], ..self.checks.clone() };
        let checked = checks.run(change.candidate(), "trial", &self.bounds).await;
        let checked = checked.map_err(|error| error.to_string())?;
        let one = checked.first().ok_or("there was nothing to run")?;
        let output = one.excerpt().map(|excerpt| excerpt.to_string()).unwrap_or_default();
        let text = format!("{}\n{output}", one.report.outcome);
        Ok(CheckReport { passed: one.report.outcome.is_pass(), text })
    }

    async fn snapshot(&self) -> Result<ChangeSet, SnapshotError> {
        let (repository, base) = (self.repository.clone(), self.base.clone());
        let (tree, provenance) = (self.tree.clone(), self.provenance.clone());
        let taken = tokio::task::spawn_blocking(move || {
            snapshot(&repository, &base, &tree, &provenance, &SnapshotLimits::default())
        });
        taken.await.expect("the snapshot does not panic")
    }
}
