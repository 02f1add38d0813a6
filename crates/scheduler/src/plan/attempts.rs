//! What becomes of attempts whose executor is not where it should be.

use api::types::LostEvidence;
use model::attempt::{AttemptState, FailureReason, Stage};
use model::event::{AttemptCompleted, AttemptFailed, Event, EventKind, Timestamp};
use model::graph::Attempt;

use super::{Dispatch, Lost, Reconciliation, World};
use crate::launch::ExecutorSight;

/// How often an attempt is handed out before it has begun; after that something is wrong with the machine.
const MOST_LAUNCHES: u32 = 3;
/// How often an attempt is handed out for publishing; after that a human must look.
const MOST_PUBLISHES: u32 = 12;
/// How long an executor may go on after its attempt has ended, to put its things away.
const AFTERLIFE_MS: i64 = 60_000;

/// Whether somebody works at an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    /// As far as can be seen.
    Working,
    /// It was handed out by this scheduler, and no executor was started.
    Unlaunched,
    /// Its process or Job was seen to be gone.
    Gone,
    /// It is seen here, but its lease ran out.
    Hanging,
    /// It works elsewhere, and its lease ran out.
    Silent,
}

/// What to do about an attempt.
enum Step {
    Dispatch,
    Lose { evidence: LostEvidence, reason: String },
    Record(Box<EventKind>),
}

/// Adds what is to be done about every attempt that is not, or not quite, over.
pub(super) fn plan(world: &World<'_>, plan: &mut Reconciliation) {
    let graph = world.history.graph();
    let live = graph.targets().flat_map(|(_, target)| &target.live);
    for attempt in live.filter_map(|id| graph.attempt(id)) {
        match next_step(world, attempt) {
            None => {}
            Some(Step::Dispatch) => {
                plan.dispatch.push(Dispatch { attempt: attempt.id.clone(), epoch: attempt.epoch });
            }
            Some(Step::Lose { evidence, reason }) => {
                let epoch = attempt.epoch;
                plan.lost.push(Lost { attempt: attempt.id.clone(), epoch, evidence, reason });
            }
            Some(Step::Record(kind)) => plan.record.push(vec![on_behalf(world, attempt, *kind)]),
        }
    }
    let overdue =
        world.sights.executors.iter().filter(|(_, sight)| matches!(sight, ExecutorSight::Alive { .. }));
    plan.stop = overdue
        .filter_map(|(id, _)| graph.attempt(id))
        .filter(|attempt| attempt.ended_at.is_some_and(|ended| world.now.millis_since(ended) > AFTERLIFE_MS))
        .map(|attempt| attempt.id.clone())
        .collect();
}

/// The event that the executor would have recorded, had it lived.
fn on_behalf(world: &World<'_>, attempt: &Attempt, kind: EventKind) -> Event {
    world.event_about(attempt, "on behalf of the executor", kind)
}

fn next_step(world: &World<'_>, attempt: &Attempt) -> Option<Step> {
    let presence = presence(world, attempt);
    if presence == Presence::Working {
        return None;
    }
    match attempt.state {
        AttemptState::Created => before_its_start(world, attempt, presence),
        AttemptState::Started | AttemptState::Candidate => Some(lost(presence)),
        AttemptState::Verified => before_its_pull_request(world, attempt, presence),
        AttemptState::Published => Some(Step::Record(Box::new(completed(world, attempt)))),
        AttemptState::Completed
        | AttemptState::Failed
        | AttemptState::Cancelled
        | AttemptState::Lost
        | AttemptState::Superseded => None,
    }
}

fn presence(world: &World<'_>, attempt: &Attempt) -> Presence {
    let lease_is_over = world.sights.leases.get(&attempt.id) == Some(&0);
    match world.sights.executors.get(&attempt.id) {
        Some(ExecutorSight::Alive { epoch }) if *epoch == attempt.epoch => {
            if lease_is_over {
                Presence::Hanging
            } else {
                Presence::Working
            }
        }
        Some(ExecutorSight::Gone { epoch }) if *epoch == attempt.epoch => Presence::Gone,
        // Never started here, or only with an epoch that is fenced by now.
        Some(ExecutorSight::Absent | ExecutorSight::Alive { .. } | ExecutorSight::Gone { .. }) | None => {
            let handed_out = world.history.handed_out(&attempt.id);
            let is_ours = attempt.launcher.as_deref() == Some(world.launcher)
                && handed_out.is_some_and(|handed_out| handed_out.by == *world.actor);
            match (is_ours, lease_is_over) {
                (true, _) => Presence::Unlaunched,
                (false, true) => Presence::Silent,
                (false, false) => Presence::Working,
            }
        }
    }
}

/// Nothing was done yet, so the same attempt begins anew; but not for ever.
fn before_its_start(world: &World<'_>, attempt: &Attempt, presence: Presence) -> Option<Step> {
    let graph = world.history.graph();
    let is_paused = graph.pause().is_some()
        || graph.target(&attempt.target_id).is_some_and(|target| target.pause.is_some());
    match presence {
        Presence::Working => None,
        Presence::Hanging | Presence::Silent => Some(lost(presence)),
        Presence::Unlaunched | Presence::Gone if attempt.epoch.0 >= MOST_LAUNCHES => Some(Step::Lose {
            evidence: LostEvidence::ExecutorGone,
            reason: format!("its executor was started {} times and never began", attempt.epoch),
        }),
        Presence::Unlaunched | Presence::Gone => (!is_paused).then_some(Step::Dispatch),
    }
}

/// The verified candidate is durable on the machine that made it: publishing is all that is left.
fn before_its_pull_request(world: &World<'_>, attempt: &Attempt, presence: Presence) -> Option<Step> {
    match presence {
        Presence::Working => None,
        // The candidate is on a machine that fell silent, unless it waits there for the forge.
        Presence::Silent => attempt.publish_not_before.is_none().then(|| lost(presence)),
        Presence::Unlaunched | Presence::Gone | Presence::Hanging => {
            if attempt.epoch.0 >= MOST_PUBLISHES {
                return Some(Step::Record(Box::new(EventKind::AttemptFailed(AttemptFailed {
                    stage: Stage::Publish,
                    reason: FailureReason::PublishFailed,
                    detail: format!("handed out {} times, and still no pull request", attempt.epoch),
                    usage: attempt.usage.clone(),
                }))));
            }
            (world.now >= publish_again_at(world, attempt)).then_some(Step::Dispatch)
        }
    }
}

/// When the forge said, else at once the first time, and then after growing pauses.
fn publish_again_at(world: &World<'_>, attempt: &Attempt) -> Timestamp {
    if let Some(not_before) = attempt.publish_not_before {
        return not_before;
    }
    let Some(handed_out) = world.history.handed_out(&attempt.id) else { return world.now };
    let pause = match attempt.epoch.0.saturating_sub(2) {
        0 => 0,
        n => (15_i64 << n.min(6)).min(900),
    };
    let at = handed_out.at.moment().checked_add(jiff::SignedDuration::from_secs(pause));
    Timestamp::new(at.unwrap_or(jiff::Timestamp::MAX))
}

fn lost(presence: Presence) -> Step {
    let is_silent = matches!(presence, Presence::Hanging | Presence::Silent);
    let (evidence, reason) = if is_silent {
        (LostEvidence::LeaseExpired, "its executor fell silent and its lease ran out")
    } else {
        (LostEvidence::ExecutorGone, "its executor is gone")
    };
    Step::Lose { evidence, reason: reason.to_owned() }
}

/// The pull request is open: what the executor would have said last is known without it.
fn completed(world: &World<'_>, attempt: &Attempt) -> EventKind {
    let began = attempt.started_at.unwrap_or(attempt.created_at);
    let duration_ms = u64::try_from(world.now.millis_since(began)).unwrap_or(0);
    EventKind::AttemptCompleted(AttemptCompleted { duration_ms, usage: attempt.usage.clone() })
}
