//! How a graph takes in an event that was admitted. Nothing is judged here.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{
    Attempt, Counts, Failure, Graph, Invalidation, Pause, PullRequest, PullRequestState, Rejection, Target,
    Task, Unregistration,
};
use crate::attempt::{AttemptState, FailureReason, Stage};
use crate::event::{AttemptCreated, Event, EventKind, Subject, TargetRejected, Timestamp, Usage};
use crate::{AttemptId, Epoch, Seq, TargetId, TaskId};

impl Graph {
    /// Takes in one event that [`Graph::admit`] let pass.
    pub fn apply(&mut self, event: &Event) {
        self.head += 1;
        let Some(target_id) = &event.subject.target_id else {
            self.apply_to_everything(event);
            return;
        };
        match (&event.subject.task_id, &event.subject.attempt_id) {
            (None, _) => self.apply_to_target(target_id, event),
            (Some(task_id), None) => self.apply_to_task(target_id, task_id, event),
            (Some(_), Some(attempt_id)) => self.apply_to_attempt(attempt_id, event),
        }
    }

    fn apply_to_everything(&mut self, event: &Event) {
        if let EventKind::TargetRejected(rejected) = &event.kind {
            self.reject(None, rejected, event.timestamp);
        } else {
            set_pause(&mut self.pause, event);
        }
    }

    fn reject(&mut self, target_id: Option<&TargetId>, rejected: &TargetRejected, at: Timestamp) {
        let rejection = Rejection { target_id: target_id.cloned(), rejected: rejected.clone(), at };
        self.rejections.insert(rejected.source.clone(), rejection);
    }

    fn apply_to_target(&mut self, id: &TargetId, event: &Event) {
        if let EventKind::TargetRegistered(registered) = &event.kind {
            let counts = &mut self.counts;
            let target = self.targets.entry(id.clone()).or_insert_with(|| {
                counts.targets += 1;
                Arc::new(Target::new(registered.clone(), event.timestamp))
            });
            let target = Arc::make_mut(target);
            target.registered = registered.clone();
            target.registered_at = event.timestamp;
            target.unregistered = None;
            self.rejections.retain(|_, rejection| rejection.target_id.as_ref() != Some(id));
        } else if let EventKind::TargetRejected(rejected) = &event.kind {
            self.reject(Some(id), rejected, event.timestamp);
        } else if let Some(target) = self.targets.get_mut(id).map(Arc::make_mut) {
            if let EventKind::TargetUnregistered(why) = &event.kind {
                target.unregistered = Some(Unregistration {
                    by: event.actor_id.clone(),
                    reason: why.reason.clone(),
                    at: event.timestamp,
                });
            } else {
                set_pause(&mut target.pause, event);
            }
        }
    }

    fn apply_to_task(&mut self, target_id: &TargetId, task_id: &TaskId, event: &Event) {
        let seq = Seq(self.head);
        let place = self.place_of_task(target_id, task_id);
        let known = place.and_then(|place| self.tasks.get_mut(place)).map(Arc::make_mut);
        if let Some(task) = known {
            task.events.push(seq);
            if let EventKind::TaskCreated(facts) | EventKind::TaskUpdated(facts) = &event.kind {
                task.facts = facts.clone();
                task.is_removed = false;
            } else if let EventKind::TaskRemoved(_) = &event.kind {
                task.is_removed = true;
            } else if let EventKind::BacklogUpdated(updated) = &event.kind {
                task.write_back = Some(updated.clone());
            }
        } else if let EventKind::TaskCreated(facts) | EventKind::TaskUpdated(facts) = &event.kind {
            let place = self.add_task(Arc::new(Task {
                target_id: target_id.clone(),
                id: task_id.clone(),
                facts: facts.clone(),
                is_removed: false,
                events: vec![seq],
                attempts: Vec::new(),
                write_back: None,
            }));
            self.counts.tasks += 1;
            if let Some(target) = self.targets.get_mut(target_id).map(Arc::make_mut) {
                target.tasks.push(place);
            }
        }
    }

    fn apply_to_attempt(&mut self, id: &AttemptId, event: &Event) {
        if let EventKind::AttemptCreated(created) = &event.kind {
            self.insert_attempt(id, created, event);
        }
        let place = self.place_of_attempt(id);
        let known = place.and_then(|place| self.attempts.get_mut(place)).map(Arc::make_mut);
        let Some(attempt) = known else { return };
        attempt.events.push(Seq(self.head));
        let before = (attempt.state, attempt.is_in_review());
        step(attempt, event, &mut self.counts);
        let after = (attempt.state, attempt.is_in_review());
        if before == after {
            return;
        }
        if before.0 != after.0 {
            self.counts.moved(before.0, after.0);
            if after.0.is_terminal() {
                attempt.ended_at = Some(event.timestamp);
            }
        }
        // A target is copied when it is changed, if it is shared; most steps change nothing of it.
        let is_news = after.0.is_terminal() || before.1 != after.1;
        if let Some(target) = self.targets.get_mut(&attempt.target_id).filter(|_| is_news) {
            let target = Arc::make_mut(target);
            if after.0.is_terminal() {
                target.live.remove(id);
            }
            if after.1 {
                target.in_review.insert(id.clone());
            } else {
                target.in_review.remove(id);
            }
        }
    }

    fn insert_attempt(&mut self, id: &AttemptId, created: &AttemptCreated, event: &Event) {
        let Subject { target_id: Some(target_id), task_id: Some(task_id), .. } = event.subject.clone() else {
            unreachable!("the subject of attempt.created was checked when the event was made");
        };
        let task = self.place_of_task(&target_id, &task_id).and_then(|place| self.tasks.get_mut(place));
        if let Some(task) = task.map(Arc::make_mut) {
            task.attempts.push(id.clone());
        }
        if let Some(target) = self.targets.get_mut(&target_id).map(Arc::make_mut) {
            target.live.insert(id.clone());
        }
        self.counts.attempts += 1;
        self.counts.entered(AttemptState::Created);
        self.add_attempt(Arc::new(Attempt {
            id: id.clone(),
            target_id,
            task_id,
            created: created.clone(),
            created_at: event.timestamp,
            started_at: None,
            ended_at: None,
            state: AttemptState::Created,
            epoch: Epoch(0),
            launcher: None,
            launched: None,
            candidate: None,
            is_pushed: false,
            publish_not_before: None,
            failure: None,
            pull_request: None,
            invalidated: None,
            usage: Usage::default(),
            events: Vec::new(),
        }));
    }
}

fn set_pause(pause: &mut Option<Pause>, event: &Event) {
    if let EventKind::SchedulerPaused(why) = &event.kind {
        *pause =
            Some(Pause { by: event.actor_id.clone(), reason: why.reason.clone(), since: event.timestamp });
    } else if let EventKind::SchedulerResumed(_) = &event.kind {
        *pause = None;
    }
}

/// Moves the attempt by one admitted event.
fn step(attempt: &mut Attempt, event: &Event, counts: &mut Counts) {
    match &event.kind {
        EventKind::AttemptClaimed(claimed) => {
            attempt.epoch = claimed.epoch;
            attempt.launcher = Some(claimed.launcher.clone());
            attempt.publish_not_before = None;
        }
        EventKind::AttemptLaunched(launched) => attempt.launched = Some(launched.clone()),
        EventKind::AttemptStarted(_) => {
            attempt.started_at.get_or_insert(event.timestamp);
            if attempt.state == AttemptState::Created {
                attempt.state = AttemptState::Started;
            }
        }
        EventKind::AgentFinished(finished) => {
            attempt.usage += &finished.usage;
            counts.cost_micro_usd += finished.usage.cost_micro_usd;
        }
        EventKind::ChangePermitted(change) => {
            attempt.state = AttemptState::Candidate;
            attempt.candidate = Some(change.clone());
        }
        EventKind::ChangeVerified(_) => attempt.state = AttemptState::Verified,
        EventKind::ArtifactStored(_) => counts.artifacts += 1,
        EventKind::PublishParked(parked) => attempt.publish_not_before = Some(parked.not_before),
        EventKind::BranchPushed(_) => attempt.is_pushed = true,
        EventKind::PrCreated(pr) => {
            counts.pull_requests += 1;
            attempt.state = AttemptState::Published;
            attempt.pull_request = Some(PullRequest {
                number: pr.number,
                url: pr.url.clone(),
                branch: pr.branch.clone(),
                commit: pr.commit.clone(),
                title: pr.title.clone(),
                state: PullRequestState::Open,
                human_owned: None,
                reviews: BTreeMap::new(),
            });
        }
        EventKind::AttemptCompleted(_) => attempt.state = AttemptState::Completed,
        EventKind::AttemptFailed(failed) => {
            spent_in_all(attempt, &failed.usage, counts);
            end(
                attempt,
                AttemptState::Failed,
                Some(failed.stage),
                failed.reason,
                &failed.detail,
                event.timestamp,
            );
        }
        EventKind::AttemptCancelled(why) => {
            end(
                attempt,
                AttemptState::Cancelled,
                None,
                FailureReason::Cancelled,
                &why.reason,
                event.timestamp,
            );
        }
        EventKind::AttemptLost(why) => {
            end(attempt, AttemptState::Lost, None, FailureReason::Lost, &why.reason, event.timestamp);
        }
        EventKind::AttemptSuperseded(_) => attempt.state = AttemptState::Superseded,
        EventKind::AttemptInvalidated(why) => {
            attempt.invalidated = Some(Invalidation {
                by: event.actor_id.clone(),
                reason: why.reason.clone(),
                at: event.timestamp,
            });
        }
        EventKind::PrReviewed(_)
        | EventKind::PrHumanOwned(_)
        | EventKind::PrMerged(_)
        | EventKind::PrClosed(_) => {
            if let Some(pr) = &mut attempt.pull_request {
                observe(pr, &event.kind);
            }
        }
        EventKind::TargetRegistered(_)
        | EventKind::TargetUnregistered(_)
        | EventKind::TargetRejected(_)
        | EventKind::TaskCreated(_)
        | EventKind::TaskUpdated(_)
        | EventKind::TaskCompleted(_)
        | EventKind::TaskBlocked(_)
        | EventKind::TaskRemoved(_)
        | EventKind::AttemptCreated(_)
        | EventKind::SandboxReported(_)
        | EventKind::NetworkReported(_)
        | EventKind::PolicyViolated(_)
        | EventKind::InvariantPassed(_)
        | EventKind::InvariantFailed(_)
        | EventKind::BacklogUpdated(_)
        | EventKind::SchedulerPaused(_)
        | EventKind::SchedulerResumed(_) => {}
    }
}

/// Takes in what an attempt says that it cost in all: a round that failed has no event of its own.
fn spent_in_all(attempt: &mut Attempt, usage: &Usage, counts: &mut Counts) {
    if usage.cost_micro_usd > attempt.usage.cost_micro_usd {
        counts.cost_micro_usd += usage.cost_micro_usd - attempt.usage.cost_micro_usd;
        attempt.usage = usage.clone();
    }
}

fn end(
    attempt: &mut Attempt,
    state: AttemptState,
    stage: Option<Stage>,
    reason: FailureReason,
    detail: &str,
    at: Timestamp,
) {
    attempt.state = state;
    attempt.failure = Some(Failure { stage, reason, detail: detail.to_owned(), at });
}

fn observe(pr: &mut PullRequest, kind: &EventKind) {
    if let EventKind::PrReviewed(review) = kind {
        pr.reviews.insert(review.by.clone(), review.verdict.clone());
    } else if let EventKind::PrHumanOwned(owned) = kind {
        pr.human_owned = Some(owned.reason.clone());
    } else if let EventKind::PrMerged(merged) = kind {
        pr.state = PullRequestState::Merged {
            by: merged.by.clone(),
            commit: merged.commit.clone(),
            approved_by: merged.approved_by.clone(),
        };
    } else if let EventKind::PrClosed(closed) = kind {
        pr.state = PullRequestState::Closed { by: closed.by.clone() };
    }
}
