//! A candidate on its way between two trust zones: a pack file with exactly the new objects, and the proof, in a
//! repository that has the base, that it is the commit it claims to be.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use model::CommitId;

use crate::git::{GitError, failed};
use crate::provenance::Provenance;
use crate::push::object_of;
use crate::repository::{Expected, Repository};

/// The name of the pack file in a candidate's folder.
pub const PACK_FILE: &str = "candidate.pack";

/// Why a pack is not taken for the candidate.
#[derive(Debug, thiserror::Error)]
pub enum CandidateError {
    /// Git failed, or refused the objects as broken or dangerous.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The pack file could not be written or read.
    #[error("the pack {} could not be used: {source}", path.display())]
    File {
        /// The pack file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The repository lacks the base that the candidate builds on.
    #[error("the base commit {0} is not in this repository; fetch it first")]
    NoBase(CommitId),
    /// The pack does not hold the commit.
    #[error("the pack does not hold the commit {0}")]
    NoCommit(CommitId),
    /// The commit is not one commit on the base, or not by Leviathan for this attempt.
    #[error("the commit {commit} is refused: {reason}")]
    Refused {
        /// The commit.
        commit: CommitId,
        /// What is wrong with it.
        reason: String,
    },
}

/// Writes the objects that `candidate` has and `base` has not into `file`, durably; the size in bytes.
/// The file appears complete or not at all.
pub fn pack(
    repository: &Repository,
    base: &CommitId,
    candidate: &CommitId,
    file: &Path,
) -> Result<u64, CandidateError> {
    const VERB: &str = "pack-objects";
    let unfinished = file.with_extension("unfinished");
    let file_error = |source| CandidateError::File { path: file.to_owned(), source };
    let mut output = File::create(&unfinished).map_err(file_error)?;
    let (size, ended) = repository.command(VERB).args(["--revs", "--stdout", "-q"]).converse(
        |stdin| write!(stdin, "{candidate}\n^{base}\n"),
        |stdout| io::copy(stdout, &mut output).map_err(|e| failed(VERB, e)),
    )?;
    ended.successful(VERB)?;
    output.sync_all().map_err(file_error)?;
    fs::rename(&unfinished, file).map_err(file_error)?;
    Ok(size)
}

/// Takes the pack into a repository that has `base`, and proves that `candidate` is one commit on it, made by
/// Leviathan as `provenance` says, with every object whole and harmless. At most `limit` bytes are read.
///
/// Taking the same pack again changes nothing.
pub fn receive(
    repository: &Repository,
    base: &CommitId,
    candidate: &CommitId,
    provenance: &Provenance,
    file: &Path,
    limit: u64,
) -> Result<(), CandidateError> {
    if !repository.has_commit(base)? {
        return Err(CandidateError::NoBase(base.clone()));
    }
    index(repository, file, limit)?;
    if !repository.has_commit(candidate)? {
        return Err(CandidateError::NoCommit(candidate.clone()));
    }
    require_one_commit_of_ours(repository, base, candidate, provenance)?;
    require_connected(repository, base, candidate)?;
    keep(repository, candidate, provenance)
}

/// Stores the objects after git's strictest check of each; a failure stores nothing.
fn index(repository: &Repository, file: &Path, limit: u64) -> Result<(), CandidateError> {
    const VERB: &str = "index-pack";
    let mut pack =
        File::open(file).map_err(|source| CandidateError::File { path: file.to_owned(), source })?;
    let (_, ended) = repository
        .command(VERB)
        .args(["--strict", "--stdin", "--threads=1", &format!("--max-input-size={limit}")])
        .converse(
            |stdin| io::copy(&mut pack, stdin).map(drop),
            |stdout| crate::repository::drain(stdout, VERB),
        )?;
    Ok(ended.successful(VERB)?)
}

fn require_one_commit_of_ours(
    repository: &Repository,
    base: &CommitId,
    candidate: &CommitId,
    provenance: &Provenance,
) -> Result<(), CandidateError> {
    let facts = repository.commit_facts(candidate)?;
    let refused = |reason: String| Err(CandidateError::Refused { commit: candidate.clone(), reason });
    if facts.parents != std::slice::from_ref(base) {
        return refused(format!("it is not exactly one commit on the base {base}"));
    }
    if !provenance.is_of(&facts) {
        return refused("its author, dates or message are not those of this attempt".to_owned());
    }
    Ok(())
}

/// Walks every object that the candidate has and the base has not.
fn require_connected(
    repository: &Repository,
    base: &CommitId,
    candidate: &CommitId,
) -> Result<(), CandidateError> {
    const VERB: &str = "rev-list";
    let (_, ended) = repository
        .command(VERB)
        .args(["--objects", "--quiet", candidate.as_str(), &format!("^{base}"), "--"])
        .outcome_of(&[], 1 << 20)?;
    Ok(ended.successful(VERB)?)
}

fn keep(
    repository: &Repository,
    candidate: &CommitId,
    provenance: &Provenance,
) -> Result<(), CandidateError> {
    let name = provenance.reference();
    let found = repository.resolve(&name)?;
    let expected = found.map_or(Expected::Absent, |found| Expected::At(object_of(&found)));
    // Nobody else moves the refs of this attempt; if somebody did, the objects are here all the same.
    repository.set_ref(&name, &object_of(candidate), &expected)?;
    Ok(())
}
