//! Writing a decision back into backlog.yaml: one scalar, every other byte as it was, one commit on the default
//! branch. When the default branch refuses us, the same edits wait in one rolling branch for a human to merge.
//!
//! It does not decide that a task is completed; it is told. A human's own edit always wins.

use std::path::Path;

use jiff::Timestamp;
use model::change::Mode;
use model::documents::{Backlog, EditRefused, Status};
use model::secrets::Redactor;
use model::{AttemptId, BranchName, CommitId, RepoPath, TaskId};

use crate::changes::changes_between;
use crate::git::GitError;
use crate::import::{NewCommit, import, put};
use crate::mirror::{Mirror, MirrorError, remote_ref, update};
use crate::provenance::attempt_of;
use crate::push::{Occupant, PushOutcome, Rejection, object_of, push, push_once};
use crate::remote::Remote;
use crate::repository::{Expected, Repository, unexpected};
use crate::spec::{self, BACKLOG, SpecError, Stored};

/// One status that is to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BacklogEdit {
    /// The task.
    pub task: TaskId,
    /// The attempt whose merge is the reason.
    pub attempt: AttemptId,
    /// The status that the task must have; otherwise a human decided something else.
    pub from: Status,
    /// The status that it gets.
    pub to: Status,
}

/// What became of an edit on the default branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteBack {
    /// The commit is on the default branch.
    Written {
        /// The commit.
        commit: CommitId,
    },
    /// The task has the status already.
    AlreadyDone,
    /// The backlog is not as expected: a human edited or removed the task. Nothing was written.
    Skipped {
        /// What was found, as a sentence.
        why: String,
    },
    /// The default branch takes no push from us; [`propose`] is the other way.
    RejectedProtected {
        /// What the forge said.
        message: String,
    },
    /// Somebody pushed between every look and push. Try again later.
    BaseKeepsMoving,
}

/// What became of the rolling branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proposal {
    /// The branch holds one commit on the default branch with these edits; a pull request can show it.
    Ready {
        /// The commit.
        commit: CommitId,
        /// The tasks whose status it changes.
        tasks: Vec<TaskId>,
    },
    /// No edit applies any more.
    NothingToPropose,
    /// A human committed to the branch; it is theirs now.
    HumanOwned,
    /// The branch was refused as well.
    Rejected {
        /// What the forge said.
        message: String,
    },
}

/// Why nothing is known about the backlog.
#[derive(Debug, thiserror::Error)]
pub enum WriteBackError {
    /// The default branch could not be fetched.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// Git failed.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The backlog could not be read from the default branch.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The place for the new objects could not be made.
    #[error("no folder for the backlog's commit beside the mirror: {0}")]
    Folder(#[from] std::io::Error),
}

/// How often the edit is made again when the default branch moved meanwhile.
const TRIES: u32 = 5;

/// The name of the rolling branch.
pub const ROLLING_BRANCH: &str = "leviathan/backlog";

/// Changes one status on the default branch `branch` of `remote`. `at` becomes the commit's date.
pub fn write_back(
    mirror: &Mirror,
    remote: &Remote,
    branch: &BranchName,
    edit: &BacklogEdit,
    at: Timestamp,
) -> Result<WriteBack, WriteBackError> {
    for _ in 0..TRIES {
        let base = mirror.fetch(remote, branch)?;
        let desk = Desk::beside(mirror)?;
        let text = match backlog_at(&desk.repository, &base)? {
            Ok(text) => text,
            Err(why) => return Ok(WriteBack::Skipped { why }),
        };
        let edited = match edited(&text.content, edit) {
            Edited::Changed(edited) => edited,
            Edited::AlreadyDone => return Ok(WriteBack::AlreadyDone),
            Edited::Refused(why) => return Ok(WriteBack::Skipped { why }),
        };
        let commit = desk.commit(&base, text.mode, &edited, message(std::slice::from_ref(edit)), at)?;
        match push_once(&desk.repository, remote, branch, &commit, &Expected::At(object_of(&base)))? {
            None => return Ok(WriteBack::Written { commit }),
            Some(Rejection::StaleLease | Rejection::NonFastForward) => {}
            Some(
                Rejection::Protected { message }
                | Rejection::NameConflict { message }
                | Rejection::Refused { message },
            ) => return Ok(WriteBack::RejectedProtected { message }),
        }
    }
    Ok(WriteBack::BaseKeepsMoving)
}

/// Makes the rolling branch anew: the default branch as it is now, plus one commit with every edit that still
/// applies. An unchanged proposal is left as it is.
pub fn propose(
    mirror: &Mirror,
    remote: &Remote,
    branch: &BranchName,
    edits: &[BacklogEdit],
    at: Timestamp,
) -> Result<Proposal, WriteBackError> {
    let rolling = BranchName::parse(ROLLING_BRANCH).expect("the rolling branch has a valid name");
    let base = mirror.fetch(remote, branch)?;
    let desk = Desk::beside(mirror)?;
    let Ok(text) = backlog_at(&desk.repository, &base)? else { return Ok(Proposal::NothingToPropose) };
    let (content, applied) = apply(text.content, edits);
    if applied.is_empty() {
        return Ok(Proposal::NothingToPropose);
    }
    let commit = desk.commit(&base, text.mode, &content, message(&applied), at)?;
    let tasks = applied.into_iter().map(|edit| edit.task).collect();
    let expected = match standing(&desk.repository, remote, &rolling, &base, &commit)? {
        Standing::Absent => Expected::Absent,
        Standing::Same(commit) => return Ok(Proposal::Ready { commit, tasks }),
        Standing::Older(tip) => Expected::At(object_of(&tip)),
        Standing::Foreign => return Ok(Proposal::HumanOwned),
    };
    Ok(match push(&desk.repository, remote, &rolling, &commit, &expected)? {
        PushOutcome::Pushed | PushOutcome::AlreadyThere => Proposal::Ready { commit, tasks },
        PushOutcome::Occupied(Occupant::Foreign { .. }) => Proposal::HumanOwned,
        PushOutcome::Occupied(Occupant::Ours { .. } | Occupant::Nobody)
        | PushOutcome::Rejected(Rejection::StaleLease | Rejection::NonFastForward) => {
            Proposal::Rejected { message: format!("{rolling} moved while it was pushed") }
        }
        PushOutcome::Rejected(
            Rejection::Protected { message }
            | Rejection::NameConflict { message }
            | Rejection::Refused { message },
        ) => Proposal::Rejected { message },
    })
}

/// A repository for one commit, which goes away with it.
struct Desk {
    repository: Repository,
    _folder: tempfile::TempDir,
}

impl Desk {
    fn beside(mirror: &Mirror) -> Result<Self, WriteBackError> {
        let lender = mirror.repository()?;
        let parent = lender.dir().parent().unwrap_or(Path::new("/"));
        let folder = tempfile::Builder::new().prefix("write-back-").tempdir_in(parent)?;
        let repository = Repository::init_borrowing(&folder.path().join("desk.git"), &lender)?;
        Ok(Self { repository, _folder: folder })
    }

    /// One commit on `base` in which the backlog has this text; proven to change nothing else.
    fn commit(
        &self,
        base: &CommitId,
        mode: Mode,
        text: &str,
        message: String,
        at: Timestamp,
    ) -> Result<CommitId, GitError> {
        let path = RepoPath::parse(BACKLOG).expect("the backlog has a valid path");
        let new = NewCommit { reference: "refs/leviathan/backlog".to_owned(), parent: base, message, at };
        let commit = import(&self.repository, &new, |stream| {
            put(stream, &path, mode, text.len() as u64, &mut text.as_bytes())
                .map(drop)
                .map_err(|e| crate::git::failed("fast-import", e))
        })?;
        let changes = changes_between(&self.repository, base, &commit, &Redactor::default())?;
        match changes.changes() {
            [only] if only.path == path && changes.irregularities().is_empty() => Ok(commit),
            _ => Err(unexpected("fast-import", "a commit that changes more than the backlog")),
        }
    }
}

/// The backlog as text, or why it cannot be edited.
fn backlog_at(repository: &Repository, base: &CommitId) -> Result<Result<Text, String>, WriteBackError> {
    let stored = match spec::stored(repository, base, BACKLOG) {
        Ok(Some(stored)) => stored,
        Ok(None) => return Ok(Err(format!("there is no `{BACKLOG}` on the default branch any more"))),
        Err(SpecError::Git(error)) => return Err(error.into()),
        Err(error) => return Ok(Err(error.to_string())),
    };
    let Stored { mode, content } = stored;
    Ok(match String::from_utf8(content) {
        Ok(content) => Ok(Text { mode, content }),
        Err(_) => Err(format!("`{BACKLOG}` is not UTF-8")),
    })
}

struct Text {
    mode: Mode,
    content: String,
}

enum Edited {
    Changed(String),
    AlreadyDone,
    Refused(String),
}

fn edited(text: &str, edit: &BacklogEdit) -> Edited {
    match Backlog::set_status(BACKLOG, text, &edit.task, edit.from, edit.to) {
        Ok(edited) if edited == text => Edited::AlreadyDone,
        Ok(edited) => Edited::Changed(edited),
        Err(EditRefused::Unexpected { found, .. }) if found == edit.to => Edited::AlreadyDone,
        Err(refused) => Edited::Refused(refused.to_string()),
    }
}

/// The text with every edit that applies, and those edits.
fn apply(mut text: String, edits: &[BacklogEdit]) -> (String, Vec<BacklogEdit>) {
    let mut applied = Vec::new();
    for edit in edits {
        if let Edited::Changed(changed) = edited(&text, edit) {
            text = changed;
            applied.push(edit.clone());
        }
    }
    (text, applied)
}

fn message(edits: &[BacklogEdit]) -> String {
    let title = match edits {
        [BacklogEdit { task, to, .. }] => format!("Mark {task} as {}", to.as_str()),
        edits => format!("Update the status of {} tasks", edits.len()),
    };
    let trailers: String = edits
        .iter()
        .map(|BacklogEdit { task, attempt, .. }| {
            format!("Leviathan-Task: {task}\nLeviathan-Attempt: {attempt}\n")
        })
        .collect();
    format!("{title}\n\n{trailers}")
}

/// What the rolling branch is now.
enum Standing {
    Absent,
    /// It holds the same change on the same base.
    Same(CommitId),
    /// It holds an earlier proposal of ours.
    Older(CommitId),
    Foreign,
}

fn standing(
    repository: &Repository,
    remote: &Remote,
    rolling: &BranchName,
    base: &CommitId,
    commit: &CommitId,
) -> Result<Standing, GitError> {
    let name = rolling.to_ref();
    if remote_ref(repository.git(), remote, &name)?.is_none() {
        return Ok(Standing::Absent);
    }
    let tip = update(repository, remote, &name)?;
    let (found, wanted) = (repository.commit_facts(&tip)?, repository.commit_facts(commit)?);
    // The branch is one commit of ours on some older state of the default branch, or it is a human's.
    let on_default_branch = match found.parents.as_slice() {
        [parent] => repository.is_ancestor(parent, base)?,
        _ => false,
    };
    if attempt_of(&found).is_none() || !on_default_branch {
        return Ok(Standing::Foreign);
    }
    let is_same =
        found.tree == wanted.tree && found.parents == wanted.parents && found.message == wanted.message;
    Ok(if is_same { Standing::Same(tip) } else { Standing::Older(tip) })
}
