//! A candidate with some of its files as the base has them: what the checks would say had those files not changed.
//!
//! The commit is for the checks alone. It is never packed, pushed or proposed.

use model::{CommitId, RepoPath};

use crate::git::{GitError, failed};
use crate::import::{NewCommit, import, remove, restore};
use crate::provenance::Provenance;
use crate::repository::Repository;

/// The commit that holds what `candidate` holds, but each of `paths` as it is at `base`, or not at all where `base` has
/// none. The same arguments give the same commit.
pub fn with_files_of_base(
    repository: &Repository,
    base: &CommitId,
    candidate: &CommitId,
    paths: &[RepoPath],
    provenance: &Provenance,
) -> Result<CommitId, GitError> {
    let mut restored = Vec::new();
    for path in paths {
        restored.push((path, repository.entry(base, path)?));
    }
    let new = NewCommit {
        reference: format!("refs/leviathan/with-files-of-base/{}", provenance.attempt),
        parent: candidate,
        message: "The candidate with the check configuration of the base".to_owned(),
        at: provenance.at,
    };
    import(repository, &new, |stream| {
        // Removals come first: a file may have become a folder.
        restored.iter().try_for_each(|(path, _)| remove(stream, path))?;
        for (path, entry) in &restored {
            if let Some(entry) = entry {
                restore(stream, path, entry.mode, &entry.object)?;
            }
        }
        Ok(())
    })
    .map_err(|error| match error {
        Failure::Git(error) => error,
        Failure::Stream(error) => failed("fast-import", error),
    })
}

/// What can go wrong while the commit is written.
enum Failure {
    Git(GitError),
    Stream(std::io::Error),
}

impl From<GitError> for Failure {
    fn from(error: GitError) -> Self {
        Self::Git(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Stream(error)
    }
}
