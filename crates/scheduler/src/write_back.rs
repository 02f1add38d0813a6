//! Writes completions back to backlog.yaml: one commit with one changed scalar on the default branch, or, where
//! the default branch takes no such commit, an edit in the one rolling pull request that a human merges. The task
//! counts as completed without it; this only makes the file say so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use model::event::{Event, WriteBackOutcome};
use model::{CommitId, Status, TargetId, TaskId};
use target::pull_request::PullRequestText;
use target::write_back::{self, BacklogEdit, Proposal, WriteBack, WriteBackError};

use crate::Config;
use crate::observe::TargetRepository;
use crate::plan::{self, TargetSight, World, WriteBackDue, WriteBackStep};

/// How long a default branch that refused a commit is not asked again.
const PROTECTED_FOR: Duration = Duration::from_secs(3600);
/// How long an unchanged proposal is not looked after again.
const PROPOSED_FOR: Duration = Duration::from_secs(600);

/// What was learned about default branches. Forgotten with the process, and then learned again.
#[derive(Debug, Default)]
pub(crate) struct WriteBacks {
    protected: BTreeMap<TargetId, Instant>,
    proposed: BTreeMap<TargetId, Proposed>,
}

/// What the rolling pull request was last made from.
#[derive(Debug)]
struct Proposed {
    base: CommitId,
    tasks: Vec<TaskId>,
    at: Instant,
}

/// Where is written back to.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) config: &'a Config,
    pub(crate) world: &'a World<'a>,
    pub(crate) target: &'a TargetId,
    pub(crate) repository: &'a Arc<TargetRepository>,
}

/// What came of one completion.
enum Settled {
    /// It is settled; there is no event when the log says so already.
    Recorded(Vec<Event>),
    /// It needs the rolling pull request.
    Waits(WriteBackDue),
    /// The next pass tries again.
    Later,
}

impl WriteBacks {
    /// Writes back what is due for one target, and answers with what is to be recorded and what went wrong.
    pub(crate) async fn write_back(&mut self, place: Place<'_>) -> (Vec<Event>, Vec<String>) {
        let (mut events, mut problems, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        for due in plan::write_backs(place.world, place.target) {
            match self.settle(place, due).await {
                Ok(Settled::Recorded(event)) => events.extend(event),
                Ok(Settled::Waits(due)) => waiting.push(due),
                Ok(Settled::Later) => {}
                Err(error) => problems.push(error.to_string()),
            }
        }
        if !waiting.is_empty() && !self.is_proposed(place, &waiting) {
            match self.propose(place, &waiting).await {
                Ok(proposed) => events.extend(proposed),
                Err(problem) => problems.push(problem),
            }
        }
        (events, problems)
    }

    async fn settle(&mut self, place: Place<'_>, due: WriteBackDue) -> Result<Settled, WriteBackError> {
        match &due.step {
            WriteBackStep::Settle(outcome, why) => {
                Ok(Settled::Recorded(place.note(&due, *outcome, None, why)))
            }
            WriteBackStep::Propose => Ok(Settled::Waits(due)),
            WriteBackStep::Edit if self.is_protected(place.target) => Ok(Settled::Waits(due)),
            WriteBackStep::Edit => self.edit(place, due).await,
        }
    }

    async fn edit(&mut self, place: Place<'_>, due: WriteBackDue) -> Result<Settled, WriteBackError> {
        let written = place.edit(&due).await?;
        let Place { config, target, .. } = place;
        Ok(match written {
            WriteBack::Written { commit } => {
                config.fault.reach("after_write_back_push");
                tracing::info!(target.id = %target, task.id = %due.task, %commit, "marked a task completed");
                let detail = "committed to the default branch";
                Settled::Recorded(place.note(&due, WriteBackOutcome::Committed, Some(commit), detail))
            }
            WriteBack::AlreadyDone => {
                let detail = "the default branch says so already";
                Settled::Recorded(place.note(&due, WriteBackOutcome::AlreadyDone, None, detail))
            }
            WriteBack::Skipped { why } => {
                Settled::Recorded(place.note(&due, WriteBackOutcome::Skipped, None, &why))
            }
            WriteBack::RejectedProtected { message } => {
                tracing::info!(target.id = %target, message, "the default branch takes no commit of ours");
                self.protected.insert(target.clone(), Instant::now());
                Settled::Waits(due)
            }
            WriteBack::BaseKeepsMoving => Settled::Later,
        })
    }

    /// Makes the rolling pull request hold every edit that waits. The error is for people.
    async fn propose(&mut self, place: Place<'_>, waiting: &[WriteBackDue]) -> Result<Vec<Event>, String> {
        let (commit, tasks) = match place.propose(waiting).await.map_err(|error| error.to_string())? {
            Proposal::Ready { commit, tasks } => (commit, tasks),
            Proposal::NothingToPropose => return Ok(Vec::new()),
            Proposal::HumanOwned => {
                return Err(format!(
                    "{} holds a human's commit and is left alone; merge or delete it",
                    write_back::ROLLING_BRANCH
                ));
            }
            Proposal::Rejected { message } => {
                return Err(format!(
                    "neither the default branch nor {} takes the completed status: {message}",
                    write_back::ROLLING_BRANCH
                ));
            }
        };
        place.config.fault.reach("after_backlog_branch_push");
        let shown: Vec<&WriteBackDue> = waiting.iter().filter(|due| tasks.contains(&due.task)).collect();
        let text = PullRequestText::for_backlog(&tasks);
        let forge = &place.repository.forge;
        let opened = forge.open_backlog(&commit, &text).await.map_err(|error| error.to_string())?;
        let detail = format!("waits for a human in {}", opened.url);
        let noted = shown
            .into_iter()
            .flat_map(|due| place.note(due, WriteBackOutcome::PullRequest, Some(commit.clone()), &detail));
        let events = noted.collect();
        if let Some(base) = place.base() {
            let tasks = waiting.iter().map(|due| due.task.clone()).collect();
            self.proposed.insert(place.target.clone(), Proposed { base, tasks, at: Instant::now() });
        }
        Ok(events)
    }

    fn is_protected(&self, target: &TargetId) -> bool {
        self.protected.get(target).is_some_and(|since| since.elapsed() < PROTECTED_FOR)
    }

    fn is_proposed(&self, place: Place<'_>, waiting: &[WriteBackDue]) -> bool {
        self.proposed.get(place.target).is_some_and(|last| {
            place.base().as_ref() == Some(&last.base)
                && waiting.iter().map(|due| &due.task).eq(&last.tasks)
                && last.at.elapsed() < PROPOSED_FOR
        })
    }
}

impl Place<'_> {
    fn note(
        &self,
        due: &WriteBackDue,
        outcome: WriteBackOutcome,
        commit: Option<CommitId>,
        detail: &str,
    ) -> Vec<Event> {
        let detail = detail.to_owned();
        let event = plan::write_back_event(self.world, self.target, due, outcome, commit, detail);
        event.into_iter().collect()
    }

    /// The default branch as this pass saw it.
    fn base(&self) -> Option<CommitId> {
        match self.world.sights.targets.get(self.target)? {
            TargetSight::Spec(spec) => Some(spec.commit.clone()),
            TargetSight::Problems(_) => None,
        }
    }

    async fn edit(&self, due: &WriteBackDue) -> Result<WriteBack, WriteBackError> {
        let (repository, edit, at) = (self.repository.clone(), edit_of(due), self.world.now.moment());
        off_the_loop(move || {
            let TargetRepository { mirror, remote, contract, .. } = &*repository;
            write_back::write_back(mirror, remote, &contract.default_branch, &edit, at)
        })
        .await
    }

    async fn propose(&self, waiting: &[WriteBackDue]) -> Result<Proposal, WriteBackError> {
        let edits: Vec<BacklogEdit> = waiting.iter().map(edit_of).collect();
        let (repository, at) = (self.repository.clone(), self.world.now.moment());
        off_the_loop(move || {
            let TargetRepository { mirror, remote, contract, .. } = &*repository;
            write_back::propose(mirror, remote, &contract.default_branch, &edits, at)
        })
        .await
    }
}

fn edit_of(due: &WriteBackDue) -> BacklogEdit {
    BacklogEdit {
        task: due.task.clone(),
        attempt: due.attempt.clone(),
        from: Status::Pending,
        to: Status::Completed,
    }
}

/// Git blocks; the loop must not.
async fn off_the_loop<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("writing back does not panic, and is not aborted")
}
