//! What may follow what: whether an event fits what a graph knows, and by which rule it does not.

use super::{Attempt, Graph};
use crate::attempt::AttemptState;
use crate::event::{AttemptCreated, Event, EventKind};
use crate::{AttemptId, BranchName, TargetId, TaskId};

/// An event that may not follow what is already known. A value that callers show, not a fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The target is not registered.
    #[error("target {0} is not registered; register it with `leviathanctl targets-register FILE`")]
    UnknownTarget(TargetId),
    /// The task was never in the backlog of that target.
    #[error("target {target} has no task {task}")]
    UnknownTask {
        /// The target.
        target: TargetId,
        /// The task it does not have.
        task: TaskId,
    },
    /// No such attempt.
    #[error("there is no attempt {0}; `leviathanctl attempts-list` shows those there are")]
    UnknownAttempt(AttemptId),
    /// The event's target or task is not the attempt's.
    #[error("attempt {0} belongs to another target or task")]
    OtherSubject(AttemptId),
    /// The step may not follow the attempt's state.
    #[error("attempt {attempt} is {state}: {event_type} cannot follow ({rule})")]
    IllegalStep {
        /// The attempt.
        attempt: AttemptId,
        /// Its state.
        state: AttemptState,
        /// The event that cannot follow.
        event_type: &'static str,
        /// The rule, in words.
        rule: &'static str,
    },
    /// The task may not get this event now.
    #[error("task {task}: {event_type} cannot follow ({rule})")]
    IllegalTaskStep {
        /// The task.
        task: TaskId,
        /// The event that cannot follow.
        event_type: &'static str,
        /// The rule, in words.
        rule: &'static str,
    },
}

impl Graph {
    /// Whether `event` may follow what is known.
    pub fn admit(&self, event: &Event) -> Result<(), Refusal> {
        let Some(target_id) = &event.subject.target_id else { return Ok(()) };
        if matches!(event.kind, EventKind::TargetRegistered(_)) {
            return Ok(());
        }
        if !self.targets.contains_key(target_id) {
            return Err(Refusal::UnknownTarget(target_id.clone()));
        }
        match (&event.subject.task_id, &event.subject.attempt_id) {
            (None, _) => Ok(()),
            (Some(task_id), None) => self.admit_about_task(target_id, task_id, &event.kind),
            (Some(task_id), Some(attempt_id)) => {
                if let EventKind::AttemptCreated(created) = &event.kind {
                    self.admit_claim(target_id, task_id, attempt_id, created)
                } else {
                    self.admit_step(target_id, task_id, attempt_id, &event.kind)
                }
            }
        }
    }

    fn admit_about_task(&self, target: &TargetId, task_id: &TaskId, kind: &EventKind) -> Result<(), Refusal> {
        let known = self.task(target, task_id);
        let illegal = |rule| {
            Err(Refusal::IllegalTaskStep { task: task_id.clone(), event_type: kind.event_type(), rule })
        };
        if matches!(kind, EventKind::TaskCreated(_)) {
            return match known {
                Some(task) if !task.is_removed => {
                    illegal("the task is known; a change of it is task.updated")
                }
                Some(_) | None => Ok(()),
            };
        }
        match known {
            None => Err(Refusal::UnknownTask { target: target.clone(), task: task_id.clone() }),
            Some(task) if task.is_removed && !matches!(kind, EventKind::BacklogUpdated(_)) => {
                illegal("the task was taken out of the backlog")
            }
            Some(_) => Ok(()),
        }
    }

    fn admit_claim(
        &self,
        target: &TargetId,
        task_id: &TaskId,
        attempt: &AttemptId,
        created: &AttemptCreated,
    ) -> Result<(), Refusal> {
        let illegal = |rule| {
            Err(Refusal::IllegalTaskStep { task: task_id.clone(), event_type: "attempt.created", rule })
        };
        let Some(task) = self.task(target, task_id) else {
            return Err(Refusal::UnknownTask { target: target.clone(), task: task_id.clone() });
        };
        if self.attempt(attempt).is_some() {
            return illegal("an attempt of that id exists");
        }
        if self.target(target).is_some_and(|target| target.unregistered.is_some()) {
            return illegal("its target is unregistered");
        }
        if task.is_removed {
            return illegal("the task was taken out of the backlog");
        }
        if created.task_revision != task.facts.revision {
            return illegal("the task was edited meanwhile");
        }
        if self.attempts_at(task).any(|other| !other.state.is_terminal()) {
            return illegal("another attempt at it is live");
        }
        if self.attempts_at(task).any(Attempt::is_in_review) {
            return illegal("a pull request for it is open");
        }
        if created.n as usize != task.attempts.len() + 1 {
            return illegal("attempts are counted without gaps");
        }
        if created.branch != BranchName::of_attempt(task_id, created.n) {
            return illegal("the branch is named after task and attempt");
        }
        Ok(())
    }

    fn admit_step(
        &self,
        target: &TargetId,
        task: &TaskId,
        attempt_id: &AttemptId,
        kind: &EventKind,
    ) -> Result<(), Refusal> {
        let Some(attempt) = self.attempt(attempt_id) else {
            return Err(Refusal::UnknownAttempt(attempt_id.clone()));
        };
        if attempt.target_id != *target || attempt.task_id != *task {
            return Err(Refusal::OtherSubject(attempt_id.clone()));
        }
        match broken_rule(attempt, kind) {
            None => Ok(()),
            Some(rule) => Err(attempt.illegal(kind, rule)),
        }
    }
}

impl Attempt {
    fn illegal(&self, event: &EventKind, rule: &'static str) -> Refusal {
        Refusal::IllegalStep {
            attempt: self.id.clone(),
            state: self.state,
            event_type: event.event_type(),
            rule,
        }
    }
}

/// The rule that forbids `kind` to follow the attempt's present state, if one does.
fn broken_rule(attempt: &Attempt, kind: &EventKind) -> Option<&'static str> {
    use AttemptState::{Candidate, Created, Published, Started, Verified};
    let state = attempt.state;
    let is_live = !state.is_terminal();
    let candidate = attempt.candidate.as_ref().map(|change| &change.candidate);
    let rules: &[(bool, &'static str)] = &match kind {
        EventKind::AttemptClaimed(claimed) => [
            (matches!(state, Created | Verified), "only an attempt that waits can be handed out"),
            (claimed.epoch == attempt.epoch.next(), "the epoch grows by one"),
        ],
        EventKind::AttemptLaunched(launched) => [
            (is_live, "the attempt has ended"),
            (launched.epoch == attempt.epoch, "the epoch is the one it was handed"),
        ],
        EventKind::AttemptStarted(started) => [
            (matches!(state, Created | Verified), "an attempt starts once in each epoch"),
            (started.epoch == attempt.epoch, "the epoch is the one it was handed"),
        ],
        EventKind::SandboxReported(_) | EventKind::NetworkReported(_) | EventKind::ArtifactStored(_) => {
            [(is_live, "the attempt has ended"), HOLDS]
        }
        EventKind::AgentFinished(_) | EventKind::PolicyViolated(_) | EventKind::ChangePermitted(_) => {
            [(matches!(state, Started | Candidate), "the agent works between start and verification"), HOLDS]
        }
        EventKind::InvariantPassed(check) | EventKind::InvariantFailed(check) => [
            (matches!(state, Started | Candidate), "checks run between start and verification"),
            (
                if check.round == 0 {
                    check.commit == attempt.created.base_commit
                } else {
                    Some(&check.commit) == candidate
                },
                "a check runs on the base or on the candidate, nothing else",
            ),
        ],
        EventKind::ChangeVerified(verified) => [
            (state == Candidate, "only a permitted change can be verified"),
            (Some(&verified.candidate) == candidate, "the verified commit is the permitted one"),
        ],
        EventKind::PublishParked(_) => {
            [(state == Verified, "only a verified change waits for the forge"), HOLDS]
        }
        EventKind::BranchPushed(pushed) => [
            (state == Verified, "only a verified change is pushed"),
            (
                Some(&pushed.commit) == candidate && pushed.branch == attempt.created.branch,
                "the pushed branch and commit are the verified ones",
            ),
        ],
        EventKind::PrCreated(pr) => [
            (state == Verified && attempt.is_pushed, "a pull request needs a verified change that is pushed"),
            (Some(&pr.commit) == candidate, "the pull request holds the verified commit"),
        ],
        EventKind::AttemptCompleted(_) => {
            [(state == Published, "an attempt is complete with its pull request"), HOLDS]
        }
        EventKind::AttemptFailed(_) => [
            (is_live, "terminal states never change"),
            (state != Published, "its pull request is open; a human decides about it"),
        ],
        EventKind::AttemptLost(_) => [
            (is_live, "terminal states never change"),
            (state != Published, "its pull request is open; it is completed instead"),
        ],
        EventKind::AttemptCancelled(_) | EventKind::AttemptSuperseded(_) => {
            [(is_live, "terminal states never change"), HOLDS]
        }
        EventKind::PrReviewed(_) | EventKind::PrHumanOwned(_) | EventKind::PrClosed(_) => {
            [(attempt.is_in_review(), "its pull request is not open"), HOLDS]
        }
        EventKind::PrMerged(_) => [
            (attempt.pull_request.is_some(), "it has no pull request"),
            (!attempt.is_merged(), "its pull request is merged already"),
        ],
        EventKind::AttemptInvalidated(_) => [
            (
                !is_live && !attempt.is_merged(),
                "only an ended attempt whose work was not merged can be invalidated",
            ),
            (attempt.invalidated.is_none(), "it is invalidated already"),
        ],
        EventKind::TargetRegistered(_)
        | EventKind::TargetUnregistered(_)
        | EventKind::TargetRejected(_)
        | EventKind::TaskCreated(_)
        | EventKind::TaskUpdated(_)
        | EventKind::TaskCompleted(_)
        | EventKind::TaskBlocked(_)
        | EventKind::TaskRemoved(_)
        | EventKind::AttemptCreated(_)
        | EventKind::BacklogUpdated(_)
        | EventKind::SchedulerPaused(_)
        | EventKind::SchedulerResumed(_) => {
            [(false, "this event is not about an attempt's next step"), HOLDS]
        }
    };
    rules.iter().find(|(holds, _)| !holds).map(|(_, rule)| *rule)
}

const HOLDS: (bool, &str) = (true, "");
