//! What humans did to pull requests, against what the log last heard of them.

use model::event::{Event, EventKind, PrClosed, PrHumanOwned, PrMerged, PrReviewed, Subject, TaskCompleted};
use model::graph::{self, Attempt, PullRequest};
use model::{Digest, Task};
use target::forge::{PullRequestState, Review, ReviewVerdict};

use super::{TargetSight, World};

/// The name of a person whom the forge does not tell.
const UNKNOWN: &str = "unknown";

/// One bundle for each pull request that changed.
pub(super) fn bundles(world: &World<'_>) -> Vec<Vec<Event>> {
    world.sights.pull_requests.iter().filter_map(|(id, state)| bundle(world, id, state)).collect()
}

fn bundle(world: &World<'_>, id: &model::AttemptId, state: &PullRequestState) -> Option<Vec<Event>> {
    let attempt = world.history.graph().attempt(id)?;
    let known = attempt.pull_request.as_ref()?;
    let events = match state {
        PullRequestState::Merged { .. } if attempt.is_merged() => Vec::new(),
        PullRequestState::Merged { by, commit, approved_by } => {
            let merged = PrMerged {
                number: known.number,
                by: by.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
                commit: commit.clone(),
                approved_by: approved_by.clone(),
            };
            let merged = world.event_about(attempt, "", EventKind::PrMerged(merged));
            std::iter::once(merged).chain(completion(world, attempt)).collect()
        }
        PullRequestState::Closed { .. } if !attempt.is_in_review() => Vec::new(),
        PullRequestState::Closed { by } => {
            let by = by.clone().unwrap_or_else(|| UNKNOWN.to_owned());
            vec![world.event_about(attempt, "", EventKind::PrClosed(PrClosed { number: known.number, by }))]
        }
        PullRequestState::Open { human_owned, reviews, .. } if attempt.is_in_review() => {
            let owned = human_owned.as_ref().filter(|_| known.human_owned.is_none()).map(|touch| {
                let owned = PrHumanOwned { number: known.number, reason: touch.to_string() };
                world.event_about(attempt, "", EventKind::PrHumanOwned(owned))
            });
            let reviews = reviews.iter().filter_map(|review| reviewed(world, attempt, known, review));
            reviews.chain(owned).collect()
        }
        // Opened again by a human: it counts again once it is merged.
        PullRequestState::Open { .. } => Vec::new(),
    };
    (!events.is_empty()).then_some(events)
}

/// The task is completed with the merge, unless a human took it out of the backlog or made another task of it
/// meanwhile.
fn completion(world: &World<'_>, attempt: &Attempt) -> Option<Event> {
    let task = world.history.graph().task(&attempt.target_id, &attempt.task_id)?;
    if revision_now(world, attempt, task) != Some(attempt.created.task_revision.clone()) {
        return None;
    }
    let completed = EventKind::TaskCompleted(TaskCompleted { attempt_id: Some(attempt.id.clone()) });
    let subject = Subject::task(&attempt.target_id, &attempt.task_id);
    Some(world.event(subject, task.last_event().0, attempt.id.as_str(), completed))
}

/// The task as the backlog has it now, or had it when it could last be read; none when it left the backlog.
fn revision_now(world: &World<'_>, attempt: &Attempt, task: &graph::Task) -> Option<Digest> {
    match world.sights.targets.get(&attempt.target_id) {
        Some(TargetSight::Spec(spec)) => spec.backlog.task(&attempt.task_id).map(Task::revision),
        Some(TargetSight::Problems(_)) | None => (!task.is_removed).then(|| task.facts.revision.clone()),
    }
}

/// Once for each reviewer and verdict.
fn reviewed(world: &World<'_>, attempt: &Attempt, known: &PullRequest, review: &Review) -> Option<Event> {
    let verdict = match review.verdict {
        ReviewVerdict::Approved => "approved",
        ReviewVerdict::ChangesRequested => "changes_requested",
        ReviewVerdict::Commented => "commented",
        ReviewVerdict::Dismissed => "dismissed",
    };
    let is_known = known.reviews.get(&review.by).is_some_and(|said| said == verdict);
    (!is_known).then(|| {
        let reviewed =
            PrReviewed { number: known.number, by: review.by.clone(), verdict: verdict.to_owned() };
        world.event_about(attempt, &review.by, EventKind::PrReviewed(reviewed))
    })
}
