//! What is to be done, decided from what is known. Everything here is pure: the same knowledge gives the same
//! plan, and carrying it out twice does no harm, because each event of it is named after the last event that it
//! follows.

mod attempts;
mod backlog;
mod pull_requests;
mod write_backs;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::types::{ClaimRequest, LostEvidence};
use model::event::{Event, EventKind, Reason, Subject, TargetRegistered, Timestamp};
use model::select::{self, Spending, TargetLimits, WaitReason};
use model::{
    ActorId, AgentChoice, AttemptId, Contract, Epoch, EventId, FailureReason, MicroDollars, Overlap,
    TargetId, TargetSpec, Task,
};
use target::forge::PullRequestState;

pub use write_backs::{WriteBackDue, WriteBackStep, write_back_event, write_backs};

use crate::history::History;
use crate::launch::ExecutorSight;

/// Everything that a plan is made from.
#[derive(Debug)]
pub struct World<'a> {
    /// When it was looked at.
    pub now: Timestamp,
    /// Who looks.
    pub actor: &'a ActorId,
    /// The launcher of this scheduler, as the log names it.
    pub launcher: &'a str,
    /// Whether that launcher sees every executor that any scheduler started with it, so that one which it does not
    /// see is not there.
    pub sees_all_executors: bool,
    /// Who does the work of tasks that do not say so, and with which model.
    pub agent: &'a Agent,
    /// What all targets together may spend on one day, if that is limited.
    pub budget_per_day: Option<MicroDollars>,
    /// What the log says.
    pub history: &'a History,
    /// What everything else says.
    pub sights: &'a Sights,
}

/// What was seen beside the log.
#[derive(Debug, Default)]
pub struct Sights {
    /// What each target's repository says.
    pub targets: BTreeMap<TargetId, TargetSight>,
    /// What the launcher says about attempts that may have an executor. Looked at before the log was read, so
    /// that whatever an executor did before it ended is in the log.
    pub executors: BTreeMap<AttemptId, ExecutorSight>,
    /// For how many more milliseconds the executor of each live attempt counts as alive.
    pub leases: BTreeMap<AttemptId, u64>,
    /// How pull requests stand, as far as the forges were asked this time.
    pub pull_requests: BTreeMap<AttemptId, PullRequestState>,
}

/// Who does the work of tasks that do not say so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// The agent.
    pub choice: AgentChoice,
    /// The model, for an agent that is one.
    pub model: Option<String>,
}

/// What was seen of a target's repository.
#[derive(Debug, Clone)]
pub enum TargetSight {
    /// Its documents at the tip of its default branch.
    Spec(Arc<TargetSpec>),
    /// Why nothing of it can run.
    Problems(Vec<String>),
}

/// What must be done before anything new is begun.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reconciliation {
    /// What to record: each bundle whole or not at all.
    pub record: Vec<Vec<Event>>,
    /// Whose executor counts as gone.
    pub lost: Vec<Lost>,
    /// What to hand out again.
    pub dispatch: Vec<Dispatch>,
    /// Whose executor still runs although the attempt has ended.
    pub stop: Vec<AttemptId>,
}

/// An attempt whose executor counts as gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Which.
    pub attempt: AttemptId,
    /// The epoch in which it was seen to be gone.
    pub epoch: Epoch,
    /// By what it was seen.
    pub evidence: LostEvidence,
    /// The same in words.
    pub reason: String,
}

/// An attempt that waits for an executor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispatch {
    /// Which.
    pub attempt: AttemptId,
    /// The epoch that it has now; it grows by the dispatch.
    pub epoch: Epoch,
}

/// What must be done before anything new is begun: the log brought up to the backlogs and the forges, attempts
/// without an executor lost or handed out again.
pub fn reconcile(world: &World<'_>) -> Reconciliation {
    let mut plan = Reconciliation::default();
    for (target, sight) in &world.sights.targets {
        if let TargetSight::Spec(spec) = sight {
            plan.record.extend(backlog::bundles(world, target, spec));
        }
        plan.record.extend(spend_limit_pause(world, target));
    }
    plan.record.extend(pull_requests::bundles(world));
    attempts::plan(world, &mut plan);
    plan
}

/// What to claim now: of each target the most urgent tasks first, within its limits.
pub fn claims(world: &World<'_>) -> Vec<ClaimRequest> {
    let specs = world.sights.targets.iter().filter_map(|(target, sight)| match sight {
        TargetSight::Spec(spec) => Some((target, spec)),
        TargetSight::Problems(_) => None,
    });
    specs.flat_map(|(target, spec)| claims_of(world, target, spec)).collect()
}

/// What would run of these documents, and why every other task waits, if nothing had ever been tried.
pub fn outlook(spec: &TargetSpec, now: Timestamp) -> Vec<(&Task, Option<WaitReason>)> {
    let target = &spec.contract.target_id;
    let actor = ActorId::parse("outlook").expect("letters make an actor id");
    let agent = Agent { choice: AgentChoice::Claude, model: None };
    let sights = Sights::default();
    let mut history = History::default();
    history.apply(&registration(spec, &actor, now));
    let world = World {
        now,
        actor: &actor,
        launcher: "",
        sees_all_executors: false,
        agent: &agent,
        budget_per_day: None,
        history: &history,
        sights: &sights,
    };
    let bundles = backlog::bundles(&world, target, spec);
    bundles.iter().flatten().for_each(|event| history.apply(event));
    let selection = select::select(history.graph(), target, limits(spec, &agent, None), &spec.commit, now);
    let mut waiting: BTreeMap<_, _> = selection.waiting.into_iter().collect();
    spec.backlog.tasks.iter().map(|task| (task, waiting.remove(&task.task_id))).collect()
}

fn registration(spec: &TargetSpec, actor: &ActorId, now: Timestamp) -> Event {
    let Contract { target_id, name, repo_url, default_branch, .. } = &spec.contract;
    let registered = TargetRegistered {
        name: name.clone(),
        repo_url: repo_url.to_string(),
        default_branch: default_branch.to_string(),
        contract: String::new(),
        operator_policy: None,
        backlog: None,
        executor_image: None,
        source: None,
    };
    Event {
        event_id: EventId::derived(["outlook", target_id.as_str()]),
        timestamp: now,
        actor_id: actor.clone(),
        subject: Subject::target(target_id),
        kind: EventKind::TargetRegistered(registered),
    }
}

fn claims_of(world: &World<'_>, target: &TargetId, spec: &TargetSpec) -> Vec<ClaimRequest> {
    let graph = world.history.graph();
    let selection = select::select(
        graph,
        target,
        limits(spec, world.agent, world.budget_per_day),
        &spec.commit,
        world.now,
    );
    let chosen = selection.chosen.iter().filter_map(|id| spec.backlog.task(id));
    // The log learns of an edit before the edited task is claimed.
    let recorded = chosen.filter(|task| is_recorded(world, target, task));
    recorded.map(|task| claim(world, target, spec, task)).collect()
}

/// What the policy of a target allows at once, and what it and the operator let agents spend.
pub fn limits(spec: &TargetSpec, agent: &Agent, budget_per_day: Option<MicroDollars>) -> TargetLimits {
    let limits = &spec.policy.limits;
    let micros = |budget: Option<MicroDollars>| budget.map(|budget| budget.0);
    TargetLimits {
        max_concurrent: limits.max_concurrent,
        max_open_prs: limits.max_open_prs,
        overlap_waits: spec.policy.overlap == Overlap::Wait,
        spending: Spending {
            per_attempt_micro_usd: limits.budget_usd.0,
            per_task_micro_usd: micros(limits.budget_usd_per_task),
            per_day_micro_usd: micros(limits.budget_usd_per_day),
            everything_per_day_micro_usd: micros(budget_per_day),
            is_paid_by_default: agent.choice == AgentChoice::Claude,
        },
    }
}

fn is_recorded(world: &World<'_>, target: &TargetId, task: &Task) -> bool {
    let known = world.history.graph().task(target, &task.task_id);
    known.is_some_and(|known| known.facts.revision == task.revision())
}

fn claim(world: &World<'_>, target: &TargetId, spec: &TargetSpec, task: &Task) -> ClaimRequest {
    let agent = task.agent.as_ref().unwrap_or(&world.agent.choice);
    ClaimRequest {
        target_id: target.clone(),
        task_id: task.task_id.clone(),
        task_revision: task.revision(),
        base_commit: spec.commit.clone(),
        contract_digest: spec.digests.contract.clone(),
        policy_digest: spec.digests.policy.clone(),
        operator_policy_digest: spec.digests.operator_policy.clone(),
        limits: limits(spec, world.agent, world.budget_per_day),
        agent: agent.to_string(),
        model: match agent {
            AgentChoice::Claude => world.agent.model.clone(),
            AgentChoice::Command(_) => None,
        },
        timeout_seconds: spec.limits_for(task).attempt_timeout.as_secs(),
        launcher: world.launcher.to_owned(),
        actor_id: world.actor.clone(),
    }
}

/// A provider that refuses to be paid any more refuses the next attempt as well: the target is paused until a
/// human resumes it. Once for each such failure, so that the human's word holds.
fn spend_limit_pause(world: &World<'_>, target: &TargetId) -> Option<Vec<Event>> {
    let graph = world.history.graph();
    let last = graph.attempts().rev().find(|a| a.target_id == *target && a.failure.is_some())?;
    let failure = last.failure.as_ref()?;
    if failure.reason != FailureReason::ProviderSpendLimit || last.invalidated.is_some() {
        return None;
    }
    let event_id = EventId::derived(["scheduler.paused", target.as_str(), last.id.as_str()]);
    if graph.is_paused(target) || world.history.knows_pause(&event_id) {
        return None;
    }
    let reason = format!("{} ({}): {}", failure.reason, last.id, failure.detail);
    Some(vec![Event {
        event_id,
        timestamp: world.now,
        actor_id: world.actor.clone(),
        subject: Subject::target(target),
        kind: EventKind::SchedulerPaused(Reason { reason }),
    }])
}

impl World<'_> {
    /// An event of this scheduler. Its id says what it follows, so that two schedulers, or one before and after a
    /// crash, cannot record the same step twice.
    fn event(&self, subject: Subject, follows: u64, detail: &str, kind: EventKind) -> Event {
        let follows = follows.to_string();
        let ids = [
            subject.target_id.as_ref().map_or("", TargetId::as_str),
            subject.task_id.as_ref().map_or("", model::TaskId::as_str),
            subject.attempt_id.as_ref().map_or("", AttemptId::as_str),
        ];
        let parts = [kind.event_type(), detail, &follows].into_iter().chain(ids);
        Event {
            event_id: EventId::derived(parts),
            timestamp: self.now,
            actor_id: self.actor.clone(),
            subject,
            kind,
        }
    }

    /// An event about an attempt, after the last one about it.
    fn event_about(&self, attempt: &model::graph::Attempt, detail: &str, kind: EventKind) -> Event {
        let subject = Subject::attempt(&attempt.target_id, &attempt.task_id, &attempt.id);
        let follows = attempt.events.last().map_or(0, |seq| seq.0);
        self.event(subject, follows, detail, kind)
    }
}
