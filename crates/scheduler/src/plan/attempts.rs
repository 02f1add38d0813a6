//! What becomes of attempts whose executor is not where it should be.

use api::types::LostEvidence;
use model::attempt::{AttemptState, FailureReason, Stage};
use model::event::{AttemptCompleted, AttemptFailed, Event, EventKind, Reason, Timestamp};
use model::graph::Attempt;

use super::{Dispatch, Lost, Reconciliation, World};
use crate::launch::{Cause, End, ExecutorSight};

/// How often an attempt is handed out before it has begun; after that something is wrong with the machine.
const MOST_LAUNCHES: u32 = 3;
/// How often an attempt is handed out for publishing; after that a human must look.
const MOST_PUBLISHES: u32 = 12;
/// How long an executor may go on after its attempt has ended, to put its things away.
const AFTERLIFE_MS: i64 = 60_000;

/// How long after a claim its scheduler may need to start the executor; then any scheduler does, where several see
/// the same executors.
const LAUNCHED_AFTER_MS: i64 = 30_000;

/// Whether somebody works at an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Presence<'a> {
    /// As far as can be seen.
    Working,
    /// It was handed out by this scheduler, and no executor was started.
    Unlaunched,
    /// Its process or Job was seen to be gone, or to come to nothing.
    Gone(&'a End),
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
    for (id, sight) in &world.sights.executors {
        let Some(attempt) = graph.attempt(id) else { continue };
        if is_to_be_stopped(world, attempt, sight) {
            plan.stop.push(attempt.id.clone());
        }
        plan.record.extend(disrupted(world, attempt, sight).map(|event| vec![event]));
    }
}

/// Whether an executor goes on although its attempt is over.
fn is_to_be_stopped(world: &World<'_>, attempt: &Attempt, sight: &ExecutorSight) -> bool {
    let Some(ended) = attempt.ended_at else { return false };
    match sight {
        ExecutorSight::Absent | ExecutorSight::Gone { .. } => false,
        ExecutorSight::Alive { .. } => world.now.millis_since(ended) > AFTERLIFE_MS,
        ExecutorSight::Stuck { .. } => true,
    }
}

/// An executor that was told to stop says so and cannot know why. When its machine wanted to be rid of it, nobody
/// decided against the task: it may run again.
fn disrupted(world: &World<'_>, attempt: &Attempt, sight: &ExecutorSight) -> Option<Event> {
    let ExecutorSight::Gone { end, .. } = sight else { return None };
    let is_disrupted = matches!(end.cause, Cause::Evicted | Cause::NodeLost);
    let is_due = is_disrupted
        && attempt.invalidated.is_none()
        && attempt.state == AttemptState::Cancelled
        && world.history.was_cancelled_by_its_executor(&attempt.id);
    is_due.then(|| {
        let reason = format!("nobody cancelled it: {end}; the task may run again");
        on_behalf(world, attempt, EventKind::AttemptInvalidated(Reason { reason }))
    })
}

/// The event that the executor would have recorded, had it lived.
fn on_behalf(world: &World<'_>, attempt: &Attempt, kind: EventKind) -> Event {
    world.event_about(attempt, "on behalf of the executor", kind)
}

fn next_step(world: &World<'_>, attempt: &Attempt) -> Option<Step> {
    let deleted = End::new(Cause::Deleted, "");
    let presence = presence(world, attempt, &deleted);
    if presence == Presence::Working {
        return None;
    }
    match attempt.state {
        AttemptState::Created => before_its_start(world, attempt, &presence),
        AttemptState::Started | AttemptState::Candidate => Some(while_it_worked(attempt, &presence)),
        AttemptState::Verified => before_its_pull_request(world, attempt, &presence),
        AttemptState::Published => Some(record(completed(world, attempt))),
        AttemptState::Completed
        | AttemptState::Failed
        | AttemptState::Cancelled
        | AttemptState::Lost
        | AttemptState::Superseded => None,
    }
}

fn presence<'a>(world: &World<'a>, attempt: &Attempt, deleted: &'a End) -> Presence<'a> {
    // Nobody keeps the lease of an executor that waits for a node or an image; those waits have clocks of their own.
    let may_wait = world.sees_all_executors && attempt.state == AttemptState::Created;
    let lease_is_over = !may_wait && world.sights.leases.get(&attempt.id) == Some(&0);
    match world.sights.executors.get(&attempt.id) {
        Some(ExecutorSight::Alive { epoch }) if *epoch == attempt.epoch => {
            if lease_is_over {
                Presence::Hanging
            } else {
                Presence::Working
            }
        }
        Some(ExecutorSight::Gone { epoch, end } | ExecutorSight::Stuck { epoch, end })
            if *epoch == attempt.epoch =>
        {
            Presence::Gone(end)
        }
        Some(ExecutorSight::Absent) if was_deleted(world, attempt) => Presence::Gone(deleted),
        // Never started here, or only with an epoch that is fenced by now.
        Some(
            ExecutorSight::Absent
            | ExecutorSight::Alive { .. }
            | ExecutorSight::Gone { .. }
            | ExecutorSight::Stuck { .. },
        ) => elsewhere(is_ours_to_launch(world, attempt), lease_is_over),
        // It could not be looked at, or nobody here would see it.
        None => elsewhere(!world.sees_all_executors && is_ours_to_launch(world, attempt), lease_is_over),
    }
}

fn elsewhere<'a>(is_ours: bool, lease_is_over: bool) -> Presence<'a> {
    match (is_ours, lease_is_over) {
        (true, _) => Presence::Unlaunched,
        (false, true) => Presence::Silent,
        (false, false) => Presence::Working,
    }
}

/// Whether an executor that is not there was there, in this epoch. One that waits for the forge has ended long ago.
fn was_deleted(world: &World<'_>, attempt: &Attempt) -> bool {
    world.sees_all_executors
        && attempt.launcher.as_deref() == Some(world.launcher)
        && attempt.publish_not_before.is_none()
        && attempt.launched.as_ref().is_some_and(|launched| launched.epoch == attempt.epoch)
}

fn is_ours_to_launch(world: &World<'_>, attempt: &Attempt) -> bool {
    let Some(handed_out) = world.history.handed_out(&attempt.id) else { return false };
    let is_overdue = world.sees_all_executors && world.now.millis_since(handed_out.at) > LAUNCHED_AFTER_MS;
    attempt.launcher.as_deref() == Some(world.launcher) && (handed_out.by == *world.actor || is_overdue)
}

/// Nothing was done yet, so the same attempt begins anew; but not for ever.
fn before_its_start(world: &World<'_>, attempt: &Attempt, presence: &Presence<'_>) -> Option<Step> {
    let is_paused = world.history.graph().is_paused(&attempt.target_id);
    match presence {
        Presence::Working => None,
        Presence::Hanging | Presence::Silent => Some(fell_silent()),
        Presence::Gone(end) if is_final(end.cause) => Some(ended(attempt, Stage::Prepare, end)),
        Presence::Unlaunched | Presence::Gone(_) if attempt.epoch.0 >= MOST_LAUNCHES => Some(Step::Lose {
            evidence: LostEvidence::ExecutorGone,
            reason: format!("its executor was started {} times and never began", attempt.epoch),
        }),
        Presence::Unlaunched | Presence::Gone(_) => (!is_paused).then_some(Step::Dispatch),
    }
}

/// The agent's work is on a machine that is not there any more.
fn while_it_worked(attempt: &Attempt, presence: &Presence<'_>) -> Step {
    match presence {
        Presence::Hanging | Presence::Silent | Presence::Working => fell_silent(),
        Presence::Gone(end) => ended(attempt, Stage::Agent, end),
        Presence::Unlaunched => ended(attempt, Stage::Agent, &End::new(Cause::Ended, "")),
    }
}

/// The verified candidate is durable: publishing is all that is left.
fn before_its_pull_request(world: &World<'_>, attempt: &Attempt, presence: &Presence<'_>) -> Option<Step> {
    match presence {
        Presence::Working => None,
        // The candidate is on a machine that fell silent, unless it waits there for the forge.
        Presence::Silent => attempt.publish_not_before.is_none().then(fell_silent),
        Presence::Gone(end) if end.cause == Cause::Deleted => Some(ended(attempt, Stage::Publish, end)),
        Presence::Unlaunched | Presence::Gone(_) | Presence::Hanging => {
            if attempt.epoch.0 >= MOST_PUBLISHES {
                return Some(record(EventKind::AttemptFailed(AttemptFailed {
                    stage: Stage::Publish,
                    reason: FailureReason::PublishFailed,
                    detail: format!("handed out {} times, and still no pull request", attempt.epoch),
                    usage: attempt.usage.clone(),
                })));
            }
            (world.now >= publish_again_at(world, attempt)).then_some(Step::Dispatch)
        }
    }
}

/// Whether an executor that ended so before it began is not simply begun anew.
fn is_final(cause: Cause) -> bool {
    match cause {
        Cause::Ended | Cause::Exit | Cause::NotLaunched | Cause::Evicted | Cause::NodeLost => false,
        Cause::Image
        | Cause::Unschedulable
        | Cause::NotStarting
        | Cause::OutOfMemory
        | Cause::Deadline
        | Cause::Deleted => true,
    }
}

/// What the log is told of an executor that ended without saying so itself. Only what was the machine's fault is
/// tried again by itself.
fn ended(attempt: &Attempt, stage: Stage, end: &End) -> Step {
    let failed = |reason| {
        record(EventKind::AttemptFailed(AttemptFailed {
            stage,
            reason,
            detail: end.to_string(),
            usage: attempt.usage.clone(),
        }))
    };
    match end.cause {
        Cause::Image | Cause::OutOfMemory => failed(FailureReason::ConfigInvalid),
        Cause::Deadline => failed(FailureReason::TimedOut),
        Cause::Deleted => {
            let reason = format!("external: {end}; invalidate the attempt when the task may run again");
            record(EventKind::AttemptCancelled(Reason { reason }))
        }
        Cause::Ended
        | Cause::Exit
        | Cause::NotLaunched
        | Cause::Unschedulable
        | Cause::NotStarting
        | Cause::Evicted
        | Cause::NodeLost => Step::Lose { evidence: LostEvidence::ExecutorGone, reason: end.to_string() },
    }
}

fn record(kind: EventKind) -> Step {
    Step::Record(Box::new(kind))
}

fn fell_silent() -> Step {
    Step::Lose {
        evidence: LostEvidence::LeaseExpired,
        reason: "its executor fell silent and its lease ran out".to_owned(),
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

/// The pull request is open: what the executor would have said last is known without it.
fn completed(world: &World<'_>, attempt: &Attempt) -> EventKind {
    let began = attempt.started_at.unwrap_or(attempt.created_at);
    let duration_ms = u64::try_from(world.now.millis_since(began)).unwrap_or(0);
    EventKind::AttemptCompleted(AttemptCompleted { duration_ms, usage: attempt.usage.clone() })
}
