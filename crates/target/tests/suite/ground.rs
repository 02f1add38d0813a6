//! What the tests stand on: an origin, a mirror, an attempt's repository and its tree.

use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use leviathan_target::{
    Git, Mirror, Prepared, Provenance, Remote, Repository, Snapshot, SnapshotError, SnapshotLimits, export,
    snapshot,
};
use model::change::ChangeSet;
use model::{AttemptId, BranchName, CommitId, Digest, RepoUrl, TargetId, TaskId};
use tempfile::TempDir;
use test_support::repository::{Entry, Origin};

/// An exported tree and the repository that judges it.
pub(crate) struct Room {
    pub(crate) folder: TempDir,
    pub(crate) repository: Repository,
    pub(crate) base: CommitId,
}

impl Room {
    pub(crate) fn new(origin: &Origin) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let lender = Repository::open(&git(), origin.dir()).unwrap();
        let repository = Repository::init_borrowing(&folder.path().join("own.git"), &lender).unwrap();
        let base = repository.resolve(&origin.resolve("main").unwrap()).unwrap().unwrap();
        export(&repository, &base, &folder.path().join("tree")).unwrap();
        Self { folder, repository, base }
    }

    pub(crate) fn tree(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.tree().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn try_snapshot(&self, limits: &SnapshotLimits) -> Result<ChangeSet, SnapshotError> {
        self.snapshot_after(&Prepared::default(), limits).map(|taken| taken.change)
    }

    pub(crate) fn snapshot_after(
        &self,
        prepared: &Prepared,
        limits: &SnapshotLimits,
    ) -> Result<Snapshot, SnapshotError> {
        snapshot(
            &self.repository,
            &self.base,
            &self.tree(),
            prepared,
            &provenance(),
            limits,
            &Default::default(),
        )
    }

    pub(crate) fn snapshot(&self) -> ChangeSet {
        self.try_snapshot(&SnapshotLimits::default()).unwrap()
    }
}

pub(crate) fn git() -> Git {
    Git::find().unwrap()
}

pub(crate) fn provenance() -> Provenance {
    provenance_of("attempt-1")
}

pub(crate) fn provenance_of(attempt: &str) -> Provenance {
    Provenance {
        title: "A change".to_owned(),
        task: TaskId::parse("task-001").unwrap(),
        attempt: AttemptId::parse(attempt).unwrap(),
        policy: Digest::of(b"policy"),
        at: Timestamp::from_second(1_700_000_000).unwrap(),
    }
}

pub(crate) fn mirror(data: &Path) -> Mirror {
    Mirror::of(&git(), data, &TargetId::parse("my-repo").unwrap())
}

pub(crate) fn remote(origin: &Origin) -> Remote {
    Remote::new(&RepoUrl::parse(&origin.url()).unwrap(), None)
}

pub(crate) fn main_branch() -> BranchName {
    BranchName::parse("main").unwrap()
}

/// An ordinary small repository with one of everything.
pub(crate) fn sample() -> Origin {
    let origin = Origin::empty();
    origin.commit(
        "main",
        "first",
        &[
            Entry::file("README.md", "hello\n"),
            Entry::file("src/a.py", "a = 1\n"),
            Entry::file("src/b.py", "b = 1\nb = 2\n"),
            Entry::file("tests/big.py", "assert True\n"),
            Entry::executable("run.sh", "#!/bin/sh\n"),
            Entry::symlink("link", "README.md"),
            Entry::file(".gitignore", "ignored/\n*.log\n"),
            Entry::gitlink("vendor/lib", "1111111111111111111111111111111111111111"),
        ],
    );
    origin
}
