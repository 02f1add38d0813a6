//! Where pull requests live: a bare repository on this machine, or GitHub.
//!
//! Three verbs: open a pull request for a change that was verified, find it again by its branch, and ask how it
//! stands. There is no verb that merges, approves or closes: those belong to humans. The module does not push
//! (the branch must be there already) and does not judge the change: that it was judged is the argument.
//!
//! `open` may be repeated after any crash. It looks first, and a pull request of the same branch at the same commit
//! is adopted in whatever state a human brought it meanwhile. That something exists already, or does not exist, is
//! an answer here and no error.

mod github;
mod local;

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use model::{BranchName, CommitId, Contract, VerifiedChange};
use serde::Serialize;

pub use github::{GitHub, GitHubAccess, Pace};
pub use local::Local;

use crate::Git;
use crate::pull_request::PullRequestText;
use crate::write_back::ROLLING_BRANCH;

/// The label of a pull request whose attempt was cancelled or declared void after it was opened.
pub const CANCELLED_LABEL: &str = "leviathan-cancelled";

/// The place where the pull requests of one target live.
#[derive(Debug)]
pub enum Forge {
    /// A bare repository on this machine.
    Local(Local),
    /// GitHub, or GitHub Enterprise.
    GitHub(Box<GitHub>),
}

impl Forge {
    /// The forge that a contract's `repo_url` names. `github` is only used, and its token only needed, when the
    /// repository is on a host.
    pub fn of_contract(contract: &Contract, git: &Git, github: GitHubAccess) -> Result<Self, Error> {
        let default_branch = contract.default_branch.clone();
        match contract.repo_url.local_path() {
            Some(path) => Ok(Self::Local(Local::new(git.clone(), path.into(), default_branch))),
            None => GitHub::new(&contract.repo_url, default_branch, github)
                .map(|github| Self::GitHub(Box::new(github))),
        }
    }

    /// Opens the pull request of a verified change whose commit is already the tip of `branch`, or adopts the one
    /// that exists for this branch and commit: open, merged or closed.
    pub async fn open(
        &self,
        change: &VerifiedChange,
        text: &PullRequestText,
        branch: &BranchName,
    ) -> Result<PullRequest, Error> {
        self.propose(Opening { branch, commit: change.commit(), text, rolling: false }).await
    }

    /// Opens the rolling pull request that carries edits of the backlog, or adopts the open one at whatever commit.
    /// `commit` is the tip of [`ROLLING_BRANCH`].
    pub async fn open_backlog(
        &self,
        commit: &CommitId,
        text: &PullRequestText,
    ) -> Result<PullRequest, Error> {
        let branch = BranchName::parse(ROLLING_BRANCH).expect("the rolling branch has a valid name");
        self.propose(Opening { branch: &branch, commit, text, rolling: true }).await
    }

    /// The pull request of a branch, in whatever state: the open one, else the newest; none when there never was one.
    pub async fn find_by_branch(&self, branch: &BranchName) -> Result<Option<PullRequest>, Error> {
        match self {
            Self::Local(local) => local.find_by_branch(branch).await,
            Self::GitHub(github) => github.find_by_branch(branch).await,
        }
    }

    /// Labels a pull request whose attempt was cancelled or declared void after it was opened. It stays open: what
    /// becomes of it is for humans to decide. A second call changes nothing.
    pub async fn mark_cancelled(&self, number: u64) -> Result<(), Error> {
        match self {
            Self::Local(local) => local.mark_cancelled(number).await,
            Self::GitHub(github) => github.mark_cancelled(number).await,
        }
    }

    /// How the pull request with this number stands now.
    pub async fn state(&self, number: u64) -> Result<PullRequestState, Error> {
        match self {
            Self::Local(local) => local.state(number).await,
            Self::GitHub(github) => github.state(number).await,
        }
    }

    async fn propose(&self, opening: Opening<'_>) -> Result<PullRequest, Error> {
        match self {
            Self::Local(local) => local.propose(opening).await,
            Self::GitHub(github) => github.propose(opening).await,
        }
    }
}

/// What is asked to become a pull request.
#[derive(Debug, Clone, Copy)]
struct Opening<'a> {
    branch: &'a BranchName,
    /// The commit that the tip of the branch must be.
    commit: &'a CommitId,
    text: &'a PullRequestText,
    /// Whether an open pull request of the branch is the right one at any commit.
    rolling: bool,
}

impl Opening<'_> {
    /// Whether a pull request that already exists for the branch is the one that is asked for; an error when it
    /// proposes something else. Only the rolling branch has one after the other: once one is merged or closed, the
    /// answer is `false` and a new one may be opened.
    fn is_answered_by(&self, existing: &PullRequest) -> Result<bool, Error> {
        if existing.head_commit == *self.commit {
            return Ok(true);
        }
        match (&existing.state, self.rolling) {
            (PullRequestState::Open { .. }, true) => Ok(true),
            (PullRequestState::Merged { .. } | PullRequestState::Closed { .. }, true) => Ok(false),
            (
                PullRequestState::Open { .. }
                | PullRequestState::Merged { .. }
                | PullRequestState::Closed { .. },
                false,
            ) => Err(self.moved_to(existing.head_commit.clone())),
        }
    }

    fn moved_to(&self, found: CommitId) -> Error {
        Error::HeadMoved { branch: self.branch.clone(), expected: self.commit.clone(), found }
    }
}

/// A pull request as its forge tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PullRequest {
    /// Its number in its repository.
    pub number: u64,
    /// Where a human looks at it.
    pub url: String,
    /// The branch that it asks to merge.
    pub head_branch: BranchName,
    /// The tip of that branch, as last seen by the forge.
    pub head_commit: CommitId,
    /// How it stands.
    pub state: PullRequestState,
}

/// How a pull request stands. People are named as the forge names them: a GitHub login, or the e-mail address that
/// git recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum PullRequestState {
    /// Waiting for a human.
    Open {
        /// The tip of the branch.
        head_commit: CommitId,
        /// The branch that it would be merged into.
        base_branch: BranchName,
        /// Set when a human changed what Leviathan proposed: from then on Leviathan keeps its hands off.
        human_owned: Option<HumanTouch>,
        /// The latest word of each reviewer.
        reviews: Vec<Review>,
    },
    /// A human merged it.
    Merged {
        /// Who merged it; none when the forge does not know.
        by: Option<String>,
        /// The commit of the default branch that holds the change.
        commit: CommitId,
        /// Whose latest review approved the commit that was merged.
        approved_by: Vec<String>,
    },
    /// A human closed it, or deleted its branch, without merging.
    Closed {
        /// Who did; none when the forge does not know.
        by: Option<String>,
    },
}

/// What a human did to a pull request of ours that makes it the human's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "touch", rename_all = "snake_case")]
pub enum HumanTouch {
    /// The branch holds a commit that is not Leviathan's.
    ForeignCommit {
        /// That commit.
        commit: CommitId,
        /// Its author or committer, who is not Leviathan, as `Name <email>`.
        by: String,
    },
    /// It no longer asks for a merge into the default branch.
    Retargeted {
        /// The branch that it names instead.
        base_branch: String,
    },
    /// Its attempt was cancelled or declared void after it was opened.
    Cancelled,
}

impl fmt::Display for HumanTouch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForeignCommit { commit, by } => write!(f, "commit {commit} on its branch is by {by}"),
            Self::Retargeted { base_branch } => write!(f, "it was retargeted to `{base_branch}`"),
            Self::Cancelled => {
                write!(f, "its attempt was cancelled or declared void; merge or close it by hand")
            }
        }
    }
}

/// The latest word of one reviewer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Review {
    /// Who reviewed.
    pub by: String,
    /// What was said.
    pub verdict: ReviewVerdict,
    /// The commit that was looked at; none when the forge no longer knows.
    pub commit: Option<CommitId>,
}

/// What a reviewer said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReviewVerdict {
    /// It may be merged.
    Approved,
    /// Something has to change first.
    ChangesRequested,
    /// A remark without a verdict.
    Commented,
    /// An earlier verdict that somebody dismissed.
    Dismissed,
}

impl fmt::Display for ReviewVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Approved => "approved",
            Self::ChangesRequested => "changes_requested",
            Self::Commented => "commented",
            Self::Dismissed => "dismissed",
        })
    }
}

/// Why a forge did not do what was asked. Nothing is half done: to call the same verb again later is always right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Too many requests. Nothing may be sent before the wait is over.
    #[error("{forge} asks for a pause of {} s ({detail}); it is asked again after that, nothing is lost", wait.as_millis().div_ceil(1000))]
    RateLimited {
        /// Which forge.
        forge: String,
        /// How long to wait, from the moment of this answer.
        wait: Duration,
        /// What it said.
        detail: String,
    },
    /// The token is missing, wrong or expired.
    #[error(
        "{forge} does not accept the token ({detail}); set GITHUB_TOKEN to one that may read the repository and write its contents and pull requests"
    )]
    Unauthorized {
        /// Which forge.
        forge: String,
        /// What it said.
        detail: String,
    },
    /// It did not answer, or not sensibly. Worth trying again.
    #[error("{forge} cannot be used now ({detail}); it is tried again later")]
    Unavailable {
        /// Which forge.
        forge: String,
        /// What happened.
        detail: String,
    },
    /// It understood and said no. Trying the same again does not help.
    #[error("{forge} refused to {step}: {detail}; {next}")]
    Refused {
        /// Which forge.
        forge: String,
        /// What was asked of it.
        step: &'static str,
        /// What it said.
        detail: String,
        /// What a human can do.
        next: String,
    },
    /// The branch is not, or no longer, at the commit that was verified.
    #[error(
        "branch `{branch}` is at {found}, but {expected} was verified; somebody else moved it, and it is left alone"
    )]
    HeadMoved {
        /// The branch.
        branch: BranchName,
        /// The commit that was verified.
        expected: CommitId,
        /// The commit that the forge has.
        found: CommitId,
    },
    /// No pull request has this number.
    #[error("{forge} has no pull request {number}; check repo_url in contract.yaml")]
    NoSuchPullRequest {
        /// Which forge.
        forge: String,
        /// The number asked for.
        number: u64,
    },
}

impl Error {
    /// The moment before which nothing may be sent, when the forge set one.
    pub fn not_before(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::RateLimited { wait, .. } => Some(now.checked_add(*wait).unwrap_or(Timestamp::MAX)),
            Self::Unauthorized { .. }
            | Self::Unavailable { .. }
            | Self::Refused { .. }
            | Self::HeadMoved { .. }
            | Self::NoSuchPullRequest { .. } => None,
        }
    }

    /// Whether the same call may succeed later without a human doing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::RateLimited { .. } | Self::Unavailable { .. } => true,
            Self::Unauthorized { .. }
            | Self::Refused { .. }
            | Self::HeadMoved { .. }
            | Self::NoSuchPullRequest { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_rate_limit_sets_a_moment() {
        let now = Timestamp::UNIX_EPOCH;
        let limited = Error::RateLimited {
            forge: "GitHub".into(),
            wait: Duration::from_secs(60),
            detail: "slow".into(),
        };
        assert_eq!(limited.not_before(now), Some("1970-01-01T00:01:00Z".parse().unwrap()));
        assert!(limited.is_transient());
        let unauthorized = Error::Unauthorized { forge: "GitHub".into(), detail: "Bad credentials".into() };
        assert_eq!(unauthorized.not_before(now), None);
        assert!(!unauthorized.is_transient());
    }
}
