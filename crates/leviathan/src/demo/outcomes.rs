//! What the demo promises to show, and whether it was seen.

use model::event::{EventKind, WriteBackOutcome};
use model::{BranchName, Event, FailureReason};

use super::sample;

/// The promised outcomes, filled in as events arrive.
#[derive(Debug, Default, Clone)]
pub(super) struct Outcomes {
    /// The branch of the pull request of the wanted task.
    pub(super) proposed: Option<BranchName>,
    /// The number of that pull request.
    pub(super) number: Option<u64>,
    refused: bool,
    invariant_failed: bool,
    waiting: bool,
    merged: bool,
    written_back: bool,
    /// Why an attempt ended otherwise than it should.
    pub(super) surprises: Vec<String>,
}

impl Outcomes {
    /// Takes in what happened.
    pub(super) fn see(&mut self, event: &Event) {
        let task = event.subject.task_id.as_ref().map_or("", |task| task.as_str());
        if let EventKind::PrCreated(pr) = &event.kind {
            match task {
                sample::WANTED => {
                    self.proposed = Some(pr.branch.clone());
                    self.number = Some(pr.number);
                }
                sample::WAITING => {}
                _ => self.surprises.push(format!("{task} ended in a pull request")),
            }
        } else if let EventKind::AttemptFailed(failed) = &event.kind {
            match (task, failed.reason) {
                (sample::ASTRAY, FailureReason::ScopeViolation) => self.refused = true,
                (sample::BREAKING, FailureReason::InvariantFailed) => self.invariant_failed = true,
                (_, reason) => self.surprises.push(format!("{task} failed with {reason}: {}", failed.detail)),
            }
        } else if let EventKind::PrMerged(_) = &event.kind {
            self.merged |= task == sample::WANTED;
        } else if let EventKind::BacklogUpdated(updated) = &event.kind {
            self.written_back |= task == sample::WANTED
                && matches!(updated.outcome, WriteBackOutcome::Committed | WriteBackOutcome::AlreadyDone);
        }
    }

    /// Takes in the code for which a task waits; whether that is news.
    pub(super) fn see_wait(&mut self, task: &str, code: &str) -> bool {
        let is_news = !self.waiting && task == sample::WAITING && code == "dependency";
        self.waiting |= is_news;
        is_news
    }

    /// Whether everything up to the human's part was seen.
    pub(super) fn are_ready_for_the_human(&self) -> bool {
        self.missing_before_merge().is_empty()
    }

    /// Whether the human's merge and what follows from it were seen.
    pub(super) fn are_complete(&self) -> bool {
        self.merged && self.written_back
    }

    /// What was promised and not seen, before a human merges.
    pub(super) fn missing_before_merge(&self) -> Vec<&'static str> {
        let promised = [
            (self.proposed.is_some(), "a task that ends in a pull request"),
            (self.refused, "a change that leaves its scope and is refused"),
            (self.invariant_failed, "a change that breaks an invariant"),
            (self.waiting, "a task that waits, with its reason"),
        ];
        promised.into_iter().filter(|(seen, _)| !seen).map(|(_, what)| what).collect()
    }
}

#[cfg(test)]
mod tests {
    use model::event::{AttemptFailed, Subject, Timestamp, Usage};
    use model::{ActorId, AttemptId, EventId, Stage, TargetId, TaskId};

    use super::*;

    fn failed(task: &str, reason: FailureReason) -> Event {
        let subject = Subject::attempt(
            &TargetId::parse("tea-timer").unwrap(),
            &TaskId::parse(task).unwrap(),
            &AttemptId::parse("attempt-a").unwrap(),
        );
        let failed =
            AttemptFailed { stage: Stage::Gate, reason, detail: "x".to_owned(), usage: Usage::default() };
        Event {
            event_id: EventId::parse("e").unwrap(),
            timestamp: "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap(),
            actor_id: ActorId::parse("executor").unwrap(),
            subject,
            kind: EventKind::AttemptFailed(failed),
        }
    }

    #[test]
    fn only_the_promised_failures_count_and_every_other_is_a_surprise() {
        let mut outcomes = Outcomes::default();
        outcomes.see(&failed(sample::ASTRAY, FailureReason::ScopeViolation));
        outcomes.see(&failed(sample::BREAKING, FailureReason::TimedOut));
        assert_eq!(
            outcomes.missing_before_merge(),
            [
                "a task that ends in a pull request",
                "a change that breaks an invariant",
                "a task that waits, with its reason"
            ]
        );
        assert_eq!(outcomes.surprises, ["task-003 failed with timed_out: x"]);
    }
}
