//! Which completions backlog.yaml does not say yet.

use model::event::{BacklogUpdated, Event, EventKind, Subject, WriteBackOutcome};
use model::graph::{Attempt, Task};
use model::{AttemptId, CommitId, Status, TargetId, TaskId};

use super::{TargetSight, World};

/// Why nothing is written back to a registered backlog.
const REGISTERED: &str =
    "the backlog is the registered one, to which nothing is written back; take the task out of it";

/// A merged task whose completion is not settled in backlog.yaml.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteBackDue {
    /// The task.
    pub task: TaskId,
    /// The attempt whose merge is the reason.
    pub attempt: AttemptId,
    /// What is to be done.
    pub step: WriteBackStep,
}

/// What is to be done about a completion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteBackStep {
    /// Edit the file.
    Edit,
    /// The edit waits in the rolling pull request; it stays there.
    Propose,
    /// Nothing is to be edited, only to be recorded, and why.
    Settle(WriteBackOutcome, &'static str),
}

/// The unsettled completions of a target, in backlog order and after that those of removed tasks.
pub fn write_backs(world: &World<'_>, target: &TargetId) -> Vec<WriteBackDue> {
    let graph = world.history.graph();
    let mut tasks: Vec<&Task> = graph.tasks_of(target).collect();
    tasks.sort_by_key(|task| (task.is_removed, task.facts.position, &task.id));
    tasks.into_iter().filter_map(|task| due(world, target, task)).collect()
}

fn due(world: &World<'_>, target: &TargetId, task: &Task) -> Option<WriteBackDue> {
    let graph = world.history.graph();
    let merged = graph.attempts_at(task).rev().find(|a| a.is_merged() && a.invalidated.is_none())?;
    let step = match step(task, merged)? {
        WriteBackStep::Edit | WriteBackStep::Propose if is_registered(world, target) => {
            WriteBackStep::Settle(WriteBackOutcome::Skipped, REGISTERED)
        }
        step @ (WriteBackStep::Edit | WriteBackStep::Propose | WriteBackStep::Settle(..)) => step,
    };
    Some(WriteBackDue { task: task.id.clone(), attempt: merged.id.clone(), step })
}

/// Whether the backlog does not come from the repository.
fn is_registered(world: &World<'_>, target: &TargetId) -> bool {
    match world.sights.targets.get(target) {
        Some(TargetSight::Spec(spec)) => spec.backlog_is_registered,
        Some(TargetSight::Problems(_)) | None => false,
    }
}

fn step(task: &Task, merged: &Attempt) -> Option<WriteBackStep> {
    let last = task.write_back.as_ref().filter(|last| last.attempt_id == merged.id);
    let last = last.map(|last| last.outcome);
    match last {
        // The file said so once. When it says otherwise now, a human decided that.
        Some(WriteBackOutcome::Committed | WriteBackOutcome::AlreadyDone | WriteBackOutcome::Skipped) => None,
        None | Some(WriteBackOutcome::PullRequest) if task.is_removed => Some(WriteBackStep::Settle(
            WriteBackOutcome::Skipped,
            "the task was taken out of the backlog meanwhile",
        )),
        None | Some(WriteBackOutcome::PullRequest) if task.facts.revision != merged.created.task_revision => {
            Some(WriteBackStep::Settle(
                WriteBackOutcome::Skipped,
                "the task was edited after the attempt began; what was merged does not complete it",
            ))
        }
        Some(WriteBackOutcome::PullRequest) if task.facts.status == Status::Completed => {
            Some(WriteBackStep::Settle(WriteBackOutcome::AlreadyDone, "the default branch says so now"))
        }
        Some(WriteBackOutcome::PullRequest) => Some(WriteBackStep::Propose),
        None => Some(WriteBackStep::Edit),
    }
}

/// The event that says what became of a completion; none when the log says exactly that already.
pub fn write_back_event(
    world: &World<'_>,
    target: &TargetId,
    due: &WriteBackDue,
    outcome: WriteBackOutcome,
    commit: Option<CommitId>,
    detail: String,
) -> Option<Event> {
    let task = world.history.graph().task(target, &due.task)?;
    let updated = BacklogUpdated { outcome, attempt_id: due.attempt.clone(), commit, detail };
    (task.write_back.as_ref() != Some(&updated)).then(|| {
        let subject = Subject::task(target, &due.task);
        world.event(subject, task.last_event().0, due.attempt.as_str(), EventKind::BacklogUpdated(updated))
    })
}
