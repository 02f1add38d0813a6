//! What the scheduler and the operator may do to attempts, decided on the graph as it stands. Pure: each
//! function says which events follow, or why none may; nothing here writes, sends or asks for the time.

use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use api::types::{
    ClaimRequest, DispatchRequest, LostEvidence, LostRequest, ReasonRequest, RegisterTarget, RejectTarget,
};
use model::event::{
    AttemptClaimed, AttemptCreated, Event, EventKind, Reason, Subject, TargetRegistered, TargetRejected,
    Timestamp,
};
use model::graph::{Attempt, Refusal, Task};
use model::select::{self, WaitReason};
use model::{
    ActorId, AttemptId, AttemptState, BranchName, Contract, Epoch, EventId, Graph, TargetId, TaskId,
};

use crate::ledger::Fenced;

/// Why a decision is no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Denied {
    /// The thing it is about does not exist.
    Unknown(Refusal),
    /// The task may not be claimed now.
    NotClaimable {
        /// The task.
        task: TaskId,
        /// Why.
        reason: WaitReason,
    },
    /// The task or its documents are not what the scheduler saw.
    Edited(TaskId),
    /// Somebody else was faster, or the attempt has ended.
    Fenced(Fenced),
    /// The lease has not run out.
    Alive {
        /// The attempt.
        attempt: AttemptId,
        /// For how much longer.
        remaining: Duration,
    },
    /// The attempt has ended in another way.
    Ended {
        /// The attempt.
        attempt: AttemptId,
        /// How.
        state: AttemptState,
    },
    /// A human's reason is missing.
    NoReason,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(refusal) => write!(f, "{refusal}"),
            Self::NotClaimable { task, reason } => {
                write!(f, "task {task} may not be claimed now ({}): {reason}", reason.code())
            }
            Self::Edited(task) => write!(f, "task {task} was edited meanwhile: read the backlog again"),
            Self::Fenced(fenced) => write!(f, "{fenced}"),
            Self::Alive { attempt, remaining } => write!(
                f,
                "the executor of {attempt} is not lost: its lease runs for another {} s",
                remaining.as_secs()
            ),
            Self::Ended { attempt, state } => write!(f, "attempt {attempt} is {state}, which never changes"),
            Self::NoReason => write!(f, "a reason is needed: it is what others will read in the log"),
        }
    }
}

/// What a decision takes from outside: the time, and something that nobody could know before.
///
/// The ids of the events are made from the nonce. Were they made from the attempt alone, its executor could
/// use them up and so keep the operator from ever recording that the attempt was cancelled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    /// When the decision is made.
    pub(crate) now: Timestamp,
    /// 128 random bits.
    pub(crate) nonce: u128,
}

/// Claims a task for a new attempt and hands it out for the first time.
pub(crate) fn claim(graph: &Graph, request: &ClaimRequest, stamp: Stamp) -> Result<Vec<Event>, Denied> {
    let task = known_task(graph, &request.target_id, &request.task_id)?;
    if task.facts.revision != request.task_revision {
        return Err(Denied::Edited(request.task_id.clone()));
    }
    select::claimable(graph, &request.target_id, task, request.limits, &request.base_commit, stamp.now)
        .map_err(|reason| Denied::NotClaimable { task: request.task_id.clone(), reason })?;
    let n = u32::try_from(task.attempts.len() + 1).unwrap_or(u32::MAX);
    let created = AttemptCreated {
        n,
        task_revision: request.task_revision.clone(),
        base_commit: request.base_commit.clone(),
        branch: BranchName::of_attempt(&request.task_id, n),
        contract_digest: request.contract_digest.clone(),
        policy_digest: request.policy_digest.clone(),
        operator_policy_digest: request.operator_policy_digest.clone(),
        agent: request.agent.clone(),
        model: request.model.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        timeout_seconds: request.timeout_seconds,
        budget_micro_usd: request.limits.spending.set_aside(Some(&request.agent)),
    };
    let claimed = AttemptClaimed { epoch: Epoch::FIRST, launcher: request.launcher.clone() };
    let subject = Subject::attempt(&request.target_id, &request.task_id, &new_attempt(stamp));
    let record = |kind| stamp.event(subject.clone(), &request.actor_id, kind);
    Ok(vec![record(EventKind::AttemptCreated(created)), record(EventKind::AttemptClaimed(claimed))])
}

/// Hands an attempt that waits out again.
pub(crate) fn dispatch(
    graph: &Graph,
    id: &AttemptId,
    request: &DispatchRequest,
    stamp: Stamp,
) -> Result<Vec<Event>, Denied> {
    let attempt = known_attempt(graph, id)?;
    check_epoch(attempt, request.expected_epoch)?;
    let epoch = attempt.epoch.next();
    let claimed = AttemptClaimed { epoch, launcher: request.launcher.clone() };
    Ok(vec![stamp.event(subject(attempt), &request.actor_id, EventKind::AttemptClaimed(claimed))])
}

/// Records that the executor of an attempt is gone. `remaining` is what is left of its lease.
pub(crate) fn lost(
    graph: &Graph,
    id: &AttemptId,
    request: &LostRequest,
    remaining: Duration,
    stamp: Stamp,
) -> Result<Vec<Event>, Denied> {
    let attempt = known_attempt(graph, id)?;
    if attempt.state == AttemptState::Lost {
        return Ok(Vec::new());
    }
    check_epoch(attempt, request.expected_epoch)?;
    match request.evidence {
        LostEvidence::LeaseExpired if !remaining.is_zero() => {
            return Err(Denied::Alive { attempt: id.clone(), remaining });
        }
        LostEvidence::LeaseExpired | LostEvidence::ExecutorGone => {}
    }
    let reason = Reason { reason: request.reason.clone() };
    Ok(vec![stamp.event(subject(attempt), &request.actor_id, EventKind::AttemptLost(reason))])
}

/// Stops an attempt under way.
pub(crate) fn cancel(
    graph: &Graph,
    id: &AttemptId,
    request: &ReasonRequest,
    stamp: Stamp,
) -> Result<Vec<Event>, Denied> {
    let attempt = known_attempt(graph, id)?;
    check_reason(request)?;
    match attempt.state {
        AttemptState::Cancelled => Ok(Vec::new()),
        AttemptState::Created
        | AttemptState::Started
        | AttemptState::Candidate
        | AttemptState::Verified
        | AttemptState::Published => {
            let cancelled = EventKind::AttemptCancelled(request.into());
            Ok(vec![stamp.event(subject(attempt), actor(request), cancelled)])
        }
        AttemptState::Completed | AttemptState::Failed | AttemptState::Lost | AttemptState::Superseded => {
            Err(Denied::Ended { attempt: id.clone(), state: attempt.state })
        }
    }
}

/// Declares an attempt void, stopping it first when it is under way.
pub(crate) fn invalidate(
    graph: &Graph,
    id: &AttemptId,
    request: &ReasonRequest,
    stamp: Stamp,
) -> Result<Vec<Event>, Denied> {
    let attempt = known_attempt(graph, id)?;
    check_reason(request)?;
    if attempt.invalidated.is_some() {
        return Ok(Vec::new());
    }
    let record = |kind| stamp.event(subject(attempt), actor(request), kind);
    let cancelled = EventKind::AttemptCancelled(request.into());
    let invalidated = EventKind::AttemptInvalidated(request.into());
    if attempt.state.is_terminal() {
        Ok(vec![record(invalidated)])
    } else {
        Ok(vec![record(cancelled), record(invalidated)])
    }
}

/// Stops new attempts.
pub(crate) fn pause(graph: &Graph, request: &ReasonRequest, stamp: Stamp) -> Result<Vec<Event>, Denied> {
    check_reason(request)?;
    if is_paused(graph, request.target.as_ref())? {
        return Ok(Vec::new());
    }
    Ok(vec![stamp.event(scope(request), actor(request), EventKind::SchedulerPaused(request.into()))])
}

/// Lets new attempts run again.
pub(crate) fn resume(graph: &Graph, request: &ReasonRequest, stamp: Stamp) -> Result<Vec<Event>, Denied> {
    if !is_paused(graph, request.target.as_ref())? {
        return Ok(Vec::new());
    }
    Ok(vec![stamp.event(scope(request), actor(request), EventKind::SchedulerResumed(request.into()))])
}

/// Registers a target, unless the same documents are registered already.
pub(crate) fn register(
    graph: &Graph,
    contract: &Contract,
    request: &RegisterTarget,
    stamp: Stamp,
) -> Vec<Event> {
    let registered = TargetRegistered {
        name: contract.name.clone(),
        repo_url: contract.repo_url.as_str().to_owned(),
        default_branch: contract.default_branch.as_str().to_owned(),
        contract: request.contract.clone(),
        operator_policy: request.operator_policy.clone(),
        backlog: request.backlog.clone(),
        executor_image: request.executor_image.clone(),
        source: request.source.clone(),
    };
    if graph
        .target(&contract.target_id)
        .is_some_and(|known| known.registered == registered && known.unregistered.is_none())
    {
        return Vec::new();
    }
    let kind = EventKind::TargetRegistered(registered);
    let actor = request.actor_id.as_ref().unwrap_or(&OPERATOR);
    vec![stamp.event(Subject::target(&contract.target_id), actor, kind)]
}

/// Begins nothing more of a target. What is under way goes on.
pub(crate) fn unregister(
    graph: &Graph,
    id: &TargetId,
    request: &ReasonRequest,
    stamp: Stamp,
) -> Result<Vec<Event>, Denied> {
    check_reason(request)?;
    let target = graph.target(id).ok_or_else(|| Denied::Unknown(Refusal::UnknownTarget(id.clone())))?;
    if target.unregistered.is_some() {
        return Ok(Vec::new());
    }
    let unregistered = EventKind::TargetUnregistered(request.into());
    Ok(vec![stamp.event(Subject::target(id), actor(request), unregistered)])
}

/// Records that a registration was not accepted; once for as long as the same is found in the same place.
pub(crate) fn reject(graph: &Graph, request: &RejectTarget, stamp: Stamp) -> Vec<Event> {
    let RejectTarget { source, target_id, digest, problems, actor_id } = request;
    if graph.rejection(source).is_some_and(|last| last.rejected.digest == *digest) {
        return Vec::new();
    }
    let known = target_id.as_ref().filter(|id| graph.target(id).is_some());
    let subject = known.map_or_else(Subject::everything, Subject::target);
    let rejected =
        TargetRejected { source: source.clone(), digest: digest.clone(), problems: problems.clone() };
    let actor = actor_id.as_ref().unwrap_or(&OPERATOR);
    vec![stamp.event(subject, actor, EventKind::TargetRejected(rejected))]
}

impl Stamp {
    /// One event of the decision. No decision makes two of the same type.
    fn event(&self, subject: Subject, actor: &ActorId, kind: EventKind) -> Event {
        let nonce = self.nonce.to_string();
        let event_id = EventId::derived([nonce.as_str(), kind.event_type()]);
        Event { event_id, timestamp: self.now, actor_id: actor.clone(), subject, kind }
    }
}

fn new_attempt(stamp: Stamp) -> AttemptId {
    let millis = u64::try_from(stamp.now.moment().as_millisecond()).unwrap_or(0);
    let [a, b, c, d, ..] = stamp.nonce.to_le_bytes();
    AttemptId::new(millis, u32::from_le_bytes([a, b, c, d]))
}

fn subject(attempt: &Attempt) -> Subject {
    Subject::attempt(&attempt.target_id, &attempt.task_id, &attempt.id)
}

fn scope(request: &ReasonRequest) -> Subject {
    request.target.as_ref().map_or_else(Subject::everything, Subject::target)
}

fn is_paused(graph: &Graph, target: Option<&TargetId>) -> Result<bool, Denied> {
    match target {
        None => Ok(graph.pause().is_some()),
        Some(id) => match graph.target(id) {
            Some(target) => Ok(target.pause.is_some()),
            None => Err(Denied::Unknown(Refusal::UnknownTarget(id.clone()))),
        },
    }
}

fn known_task<'a>(graph: &'a Graph, target: &TargetId, task: &TaskId) -> Result<&'a Task, Denied> {
    if graph.target(target).is_none() {
        return Err(Denied::Unknown(Refusal::UnknownTarget(target.clone())));
    }
    graph
        .task(target, task)
        .ok_or_else(|| Denied::Unknown(Refusal::UnknownTask { target: target.clone(), task: task.clone() }))
}

fn known_attempt<'a>(graph: &'a Graph, id: &AttemptId) -> Result<&'a Attempt, Denied> {
    graph.attempt(id).ok_or_else(|| Denied::Unknown(Refusal::UnknownAttempt(id.clone())))
}

fn check_epoch(attempt: &Attempt, given: Epoch) -> Result<(), Denied> {
    if attempt.epoch == given {
        return Ok(());
    }
    let (attempt, current) = (attempt.id.clone(), attempt.epoch);
    Err(Denied::Fenced(Fenced::Epoch { attempt, current, given }))
}

fn check_reason(request: &ReasonRequest) -> Result<(), Denied> {
    if request.reason.trim().is_empty() { Err(Denied::NoReason) } else { Ok(()) }
}

static OPERATOR: LazyLock<ActorId> =
    LazyLock::new(|| ActorId::parse("operator").expect("it fits the rule of actor ids"));

fn actor(request: &ReasonRequest) -> &ActorId {
    request.actor_id.as_ref().unwrap_or(&OPERATOR)
}
