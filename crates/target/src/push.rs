//! One commit to one branch of the remote, and nothing else: no tag, no other ref, no hook, no merge.
//!
//! The remote is observed before and after, so that a repeat after a crash finds what is already done, and a
//! branch that somebody else has is never overwritten.

use model::{AttemptId, BranchName, CommitId, ObjectId};

use crate::git::{GitError, ORDINARY_OUTPUT};
use crate::mirror::{remote_ref, update};
use crate::provenance::attempt_of;
use crate::remote::Remote;
use crate::repository::{Expected, Repository, unexpected};

/// What became of a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushOutcome {
    /// The branch names the commit now.
    Pushed,
    /// The branch named the commit already.
    AlreadyThere,
    /// The branch names another commit than expected; it was not touched.
    Occupied(Occupant),
    /// The remote, or git on its behalf, refused; the branch was not touched.
    Rejected(Rejection),
}

/// Whose commit is on a branch that was expected to be free or elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Occupant {
    /// Every commit beyond our base is Leviathan's; the last is of this attempt.
    Ours {
        /// The tip.
        commit: CommitId,
        /// The attempt that made the tip.
        attempt: AttemptId,
    },
    /// Somebody else committed to it.
    Foreign {
        /// The tip, which need not be a commit.
        tip: ObjectId,
    },
    /// The branch was expected to exist and does not.
    Nobody,
}

/// Why a push was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// The branch moved between the look and the push.
    StaleLease,
    /// The branch holds commits that ours does not build on.
    NonFastForward,
    /// The forge protects the branch, or a hook of it declined.
    Protected {
        /// What the forge said.
        message: String,
    },
    /// Another ref stands in the way: `leviathan` blocks `leviathan/x`.
    NameConflict {
        /// What the forge said.
        message: String,
    },
    /// Refused for another reason.
    Refused {
        /// What the forge said.
        message: String,
    },
}

/// Pushes `commit` to `branch`, which must be as `expected`, and proves by reading the branch that it is there.
pub fn push(
    repository: &Repository,
    remote: &Remote,
    branch: &BranchName,
    commit: &CommitId,
    expected: &Expected,
) -> Result<PushOutcome, GitError> {
    let found = remote_ref(repository.git(), remote, &branch.to_ref())?;
    if let Some(outcome) = observed(repository, remote, branch, commit, expected, found)? {
        return Ok(outcome);
    }
    match push_once(repository, remote, branch, commit, expected)? {
        None => prove(repository, remote, branch, commit).map(|()| PushOutcome::Pushed),
        Some(rejection) => {
            let found = remote_ref(repository.git(), remote, &branch.to_ref())?;
            let outcome = observed(repository, remote, branch, commit, expected, found)?;
            Ok(outcome.unwrap_or(PushOutcome::Rejected(rejection)))
        }
    }
}

/// Deletes `branch` if it still names `commit`; `false` when it names something else or is gone.
pub fn delete_branch(
    repository: &Repository,
    remote: &Remote,
    branch: &BranchName,
    commit: &CommitId,
) -> Result<bool, GitError> {
    let expected = Expected::At(object_of(commit));
    let name = branch.to_ref();
    match remote_ref(repository.git(), remote, &name)? {
        Some(found) if found.as_str() == commit.as_str() => {
            Ok(run(repository, remote, &format!(":{name}"), &name, &expected)?.is_none())
        }
        Some(_) | None => Ok(false),
    }
}

/// What the branch says before anything is sent; none when it is as expected.
fn observed(
    repository: &Repository,
    remote: &Remote,
    branch: &BranchName,
    commit: &CommitId,
    expected: &Expected,
    found: Option<ObjectId>,
) -> Result<Option<PushOutcome>, GitError> {
    match (found, expected) {
        (Some(found), _) if found.as_str() == commit.as_str() => Ok(Some(PushOutcome::AlreadyThere)),
        (None, Expected::Absent) => Ok(None),
        (Some(found), Expected::At(wanted)) if found == *wanted => Ok(None),
        (None, Expected::At(_)) => Ok(Some(PushOutcome::Occupied(Occupant::Nobody))),
        (Some(found), _) => {
            let occupant = occupant(repository, remote, branch, commit, found)?;
            Ok(Some(PushOutcome::Occupied(occupant)))
        }
    }
}

/// Fetches the branch and looks whether everything beyond our base is Leviathan's.
fn occupant(
    repository: &Repository,
    remote: &Remote,
    branch: &BranchName,
    commit: &CommitId,
    found: ObjectId,
) -> Result<Occupant, GitError> {
    let foreign = Occupant::Foreign { tip: found };
    let Ok(tip) = update(repository, remote, &branch.to_ref()) else { return Ok(foreign) };
    match attempt_on(repository, commit, &tip)? {
        Some(attempt) => Ok(Occupant::Ours { commit: tip, attempt }),
        None => Ok(foreign),
    }
}

/// The attempt that made `tip`, if every commit from our own base to it is Leviathan's.
fn attempt_on(
    repository: &Repository,
    ours: &CommitId,
    tip: &CommitId,
) -> Result<Option<AttemptId>, GitError> {
    /// An attempt makes one commit; a branch with many is somebody's.
    const MOST_COMMITS: usize = 20;
    let facts = repository.commit_facts(ours)?;
    let base = facts.parents.first().unwrap_or(ours);
    let commits = repository.commits_between(base, tip, MOST_COMMITS)?;
    let mut last = None;
    for commit in commits.iter().rev() {
        match attempt_of(&repository.commit_facts(commit)?) {
            Some(attempt) => last = Some(attempt),
            None => return Ok(None),
        }
    }
    Ok(if commits.len() < MOST_COMMITS { last } else { None })
}

/// Sends the commit under its lease, once; how it was rejected, if it was.
pub(crate) fn push_once(
    repository: &Repository,
    remote: &Remote,
    branch: &BranchName,
    commit: &CommitId,
    expected: &Expected,
) -> Result<Option<Rejection>, GitError> {
    let name = branch.to_ref();
    let rejection = run(repository, remote, &format!("{commit}:{name}"), &name, expected)?;
    match rejection {
        // A server that lost a race says the same as one whose other ref stands in the way.
        Some(Rejection::NameConflict { .. })
            if !is_as_expected(remote_ref(repository.git(), remote, &name)?.as_ref(), expected) =>
        {
            Ok(Some(Rejection::StaleLease))
        }
        other => Ok(other),
    }
}

fn is_as_expected(found: Option<&ObjectId>, expected: &Expected) -> bool {
    match expected {
        Expected::Absent => found.is_none(),
        Expected::At(object) => found == Some(object),
    }
}

fn run(
    repository: &Repository,
    remote: &Remote,
    refspec: &str,
    name: &str,
    expected: &Expected,
) -> Result<Option<Rejection>, GitError> {
    const VERB: &str = "push";
    let lease = match expected {
        Expected::Absent => "",
        Expected::At(object) => object.as_str(),
    };
    let (output, ended) = repository
        .command(VERB)
        .reaching(remote)
        .args(["--porcelain", "--no-verify", "--no-follow-tags", "--no-signed", "--recurse-submodules=no"])
        .arg(format!("--force-with-lease={name}:{lease}"))
        .args(["--", remote.address(), refspec])
        .outcome_of(&[], ORDINARY_OUTPUT)?;
    if ended.status.success() {
        return Ok(None);
    }
    match rejection(&String::from_utf8_lossy(&output), &ended.stderr) {
        Some(rejection) => Ok(Some(rejection)),
        None => Err(ended.into_error(VERB)),
    }
}

/// Reads the one status line, `!\t<from>:<to>\t[rejected] (why)`; none when the remote was not even asked.
fn rejection(porcelain: &str, stderr: &str) -> Option<Rejection> {
    let line = porcelain.lines().find(|line| line.starts_with("!\t"))?;
    let summary = line.rsplit('\t').next().unwrap_or_default();
    let message = || {
        let summary: String = summary.chars().filter(|c| !c.is_control()).collect();
        if stderr.is_empty() { summary } else { format!("{summary}: {stderr}") }
    };
    let says = |text: &str| summary.contains(text);
    Some(if says("stale info") {
        Rejection::StaleLease
    } else if summary.starts_with("[rejected]") {
        Rejection::NonFastForward
    } else if says("hook declined")
        || says("protected")
        || stderr.contains("GH006")
        || stderr.contains("GH013")
    {
        Rejection::Protected { message: message() }
    } else if says("failed to update ref") || says("cannot lock ref") || says("conflict") {
        Rejection::NameConflict { message: message() }
    } else {
        Rejection::Refused { message: message() }
    })
}

fn prove(
    repository: &Repository,
    remote: &Remote,
    branch: &BranchName,
    commit: &CommitId,
) -> Result<(), GitError> {
    match remote_ref(repository.git(), remote, &branch.to_ref())? {
        Some(found) if found.as_str() == commit.as_str() => Ok(()),
        Some(found) => {
            Err(unexpected("push", &format!("{branch} names {found} right after {commit} was pushed")))
        }
        None => Err(unexpected("push", &format!("{branch} does not exist right after it was pushed"))),
    }
}

pub(crate) fn object_of(commit: &CommitId) -> ObjectId {
    ObjectId::parse(commit.as_str()).expect("a commit id is an object name")
}
