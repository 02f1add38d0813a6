//! What runs next, and why everything else waits.
//!
//! Both the scheduler, which proposes, and the control plane, which decides, ask the same functions, so that a
//! claim can be refused only for what became true in between.

use std::fmt;

use crate::attempt::{FailureClass, FailureReason};
use crate::documents::{MicroDollars, Status};
use crate::event::Timestamp;
use crate::graph::{Attempt, Graph, PullRequestState, Task};
use crate::{AttemptId, CommitId, PathPattern, TargetId, TaskId};

/// Where a task stands, folded from the backlog and the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It may run, as far as the task itself is concerned.
    Ready,
    /// It waits, for a reason of its own.
    Waits(WaitReason),
}

/// Why a task does not run now. Each has a code that never changes and words that explain it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitReason {
    /// The backlog says `completed`, its pull request was merged, or it left the backlog.
    NotPending {
        /// Which of these.
        why: String,
    },
    /// A human wrote `status: blocked`.
    Blocked {
        /// `blocked_reason`, when there is one.
        reason: Option<String>,
    },
    /// An attempt at it is under way.
    Running {
        /// Which.
        attempt: AttemptId,
    },
    /// Its pull request waits for a human.
    InReview {
        /// Whose pull request.
        attempt: AttemptId,
        /// Where people see it.
        url: String,
    },
    /// A human closed its pull request without merging it; editing the task arms it again.
    Declined {
        /// Whose pull request.
        attempt: AttemptId,
    },
    /// Its attempts are used up; editing the task or invalidating an attempt arms it again.
    Parked {
        /// What used them up.
        why: String,
    },
    /// It failed for reasons outside the task and is tried again later.
    Backoff {
        /// When.
        until: Timestamp,
    },
    /// A task that must come first is not completed.
    Dependency {
        /// Which.
        on: TaskId,
    },
    /// As many pull requests of the target are open as the policy allows.
    MaxOpenPrs {
        /// How many that is.
        limit: u32,
    },
    /// As many attempts of the target are under way as the policy allows.
    MaxConcurrent {
        /// How many that is.
        limit: u32,
    },
    /// What may still be spent is less than an attempt may cost.
    BudgetSpent {
        /// Which budget, how much of it is left, and until when.
        why: String,
    },
    /// It could touch the same files as an attempt under way or a pull request that is open.
    PathsOverlap {
        /// Which attempt.
        attempt: AttemptId,
    },
    /// A human took its target out of operation.
    Unregistered {
        /// Why.
        reason: String,
    },
    /// A human paused everything, or this target.
    Paused {
        /// Why.
        reason: String,
    },
    /// A document or setting must be corrected first.
    ConfigInvalid {
        /// What.
        why: String,
    },
}

impl WaitReason {
    /// The code for machines.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotPending { .. } => "not_pending",
            Self::Blocked { .. } => "blocked",
            Self::Running { .. } => "running",
            Self::InReview { .. } => "in_review",
            Self::Declined { .. } => "declined",
            Self::Parked { .. } => "parked",
            Self::Backoff { .. } => "backoff",
            Self::Dependency { .. } => "dependency",
            Self::MaxOpenPrs { .. } => "max_open_prs",
            Self::MaxConcurrent { .. } => "max_concurrent",
            Self::BudgetSpent { .. } => "budget_spent",
            Self::PathsOverlap { .. } => "paths_overlap",
            Self::Unregistered { .. } => "unregistered",
            Self::Paused { .. } => "paused",
            Self::ConfigInvalid { .. } => "config_invalid",
        }
    }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPending { why } => write!(f, "{why}"),
            Self::Blocked { reason: Some(reason) } => write!(f, "blocked in backlog.yaml: {reason}"),
            Self::Blocked { reason: None } => write!(f, "blocked in backlog.yaml"),
            Self::Running { attempt } => write!(f, "{attempt} is under way"),
            Self::InReview { attempt, url } => {
                write!(f, "the pull request of {attempt} waits for a human: {url}")
            }
            Self::Declined { attempt } => write!(
                f,
                "a human closed the pull request of {attempt}; edit the task or invalidate the attempt to run it again"
            ),
            Self::Parked { why } => {
                write!(f, "{why}; edit the task or invalidate an attempt to run it again")
            }
            Self::Backoff { until } => write!(f, "tried again after {until}"),
            Self::Dependency { on } => write!(f, "{on} must be completed first"),
            Self::MaxOpenPrs { limit } => {
                write!(f, "the policy allows {limit} open pull requests; merge or close one")
            }
            Self::MaxConcurrent { limit } => write!(f, "the policy allows {limit} attempts at once"),
            Self::BudgetSpent { why } => write!(f, "{why}"),
            Self::PathsOverlap { attempt } => write!(f, "it could touch the same files as {attempt}"),
            Self::Unregistered { reason } => write!(
                f,
                "its target is unregistered: {reason}; `leviathanctl targets-register` lets it run again"
            ),
            Self::Paused { reason } => write!(f, "paused: {reason}; `leviathanctl resume` lets it run"),
            Self::ConfigInvalid { why } => write!(f, "{why}"),
        }
    }
}

/// What a policy allows a target at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetLimits {
    /// Attempts under way at once.
    pub max_concurrent: u32,
    /// Pull requests open at once. Attempts under way count, since each may open one.
    pub max_open_prs: u32,
    /// Whether a task waits while it could touch the files of another attempt.
    #[serde(default)]
    pub overlap_waits: bool,
    /// What may be spent.
    #[serde(default)]
    pub spending: Spending,
}

/// What agents that are paid for may spend, in millionths of a US dollar. An attempt sets aside all that it may cost
/// when it is claimed; what it did not spend is free again once it has ended.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(deny_unknown_fields, default)]
pub struct Spending {
    /// One attempt.
    pub per_attempt_micro_usd: u64,
    /// All attempts at one revision of a task.
    pub per_task_micro_usd: Option<u64>,
    /// All attempts at the target that are claimed on one day, in UTC.
    pub per_day_micro_usd: Option<u64>,
    /// All attempts at all targets that are claimed on one day.
    pub everything_per_day_micro_usd: Option<u64>,
    /// Whether a task that does not say who does it is done by somebody who is paid.
    pub is_paid_by_default: bool,
}

impl Spending {
    /// No limit at all, and nobody who is paid.
    pub const UNLIMITED: Self = Self {
        per_attempt_micro_usd: 0,
        per_task_micro_usd: None,
        per_day_micro_usd: None,
        everything_per_day_micro_usd: None,
        is_paid_by_default: false,
    };

    /// What an attempt of this agent sets aside; nothing for one that is not paid.
    pub fn set_aside(&self, agent: Option<&str>) -> Option<u64> {
        let is_paid = agent.map_or(self.is_paid_by_default, |agent| agent == PAID_AGENT);
        is_paid.then_some(self.per_attempt_micro_usd)
    }
}

/// The agent that costs money, as events name it. A command costs what it costs, and nobody here sees it.
const PAID_AGENT: &str = "claude";

/// The outcome of looking at every task of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The tasks to run now, most urgent first.
    pub chosen: Vec<TaskId>,
    /// Every other task of the backlog in file order, with its reason.
    pub waiting: Vec<(TaskId, WaitReason)>,
}

/// Chooses what runs now: pending tasks, `high` before `medium` before `low`, ties by file order, within the
/// limits. `base` is the commit of the default branch that was last seen.
pub fn select(
    graph: &Graph,
    target: &TargetId,
    limits: TargetLimits,
    base: &CommitId,
    now: Timestamp,
) -> Selection {
    let backlog = graph.backlog(target);
    let mut by_urgency: Vec<_> = backlog.iter().collect();
    by_urgency.sort_by_key(|(_, task)| (std::cmp::Reverse(task.facts.priority), task.facts.position));
    let mut chosen: Vec<&TaskId> = Vec::new();
    let mut reasons = std::collections::BTreeMap::new();
    for (id, task) in by_urgency {
        match wait_reason(graph, target, task, limits, base, now, chosen.len()) {
            None => chosen.push(id),
            Some(reason) => {
                reasons.insert(*id, reason);
            }
        }
    }
    let waiting = backlog
        .iter()
        .filter_map(|(id, _)| reasons.remove(*id).map(|reason| ((*id).clone(), reason)))
        .collect();
    Selection { chosen: chosen.into_iter().cloned().collect(), waiting }
}

/// Why the task may not be claimed now, when `chosen` others of its target are about to be.
fn wait_reason(
    graph: &Graph,
    target: &TargetId,
    task: &Task,
    limits: TargetLimits,
    base: &CommitId,
    now: Timestamp,
    chosen: usize,
) -> Option<WaitReason> {
    match standing(graph, target, task, base, now) {
        Standing::Waits(reason) => Some(reason),
        Standing::Ready => limit_reason(graph, target, limits, chosen)
            .or_else(|| budget_reason(graph, target, task, limits.spending, now, chosen))
            .or_else(|| overlap_reason(graph, target, task).filter(|_| limits.overlap_waits)),
    }
}

/// Whether one task may be claimed now, by everything that can forbid it.
pub fn claimable(
    graph: &Graph,
    target: &TargetId,
    task: &Task,
    limits: TargetLimits,
    base: &CommitId,
    now: Timestamp,
) -> Result<(), WaitReason> {
    wait_reason(graph, target, task, limits, base, now, 0).map_or(Ok(()), Err)
}

/// Where a task stands by itself, without regard to what else runs.
pub fn standing(graph: &Graph, target: &TargetId, task: &Task, base: &CommitId, now: Timestamp) -> Standing {
    let reason = written_reason(task)
        .or_else(|| attempt_reason(graph, task))
        .or_else(|| unregistered_reason(graph, target))
        .or_else(|| history_reason(graph, task, base, now))
        .or_else(|| dependency_reason(graph, target, task))
        .or_else(|| pause_reason(graph, target));
    reason.map_or(Standing::Ready, Standing::Waits)
}

/// What the humans wrote always wins.
fn written_reason(task: &Task) -> Option<WaitReason> {
    if task.is_removed {
        return Some(WaitReason::NotPending { why: "no longer in backlog.yaml".to_owned() });
    }
    match task.facts.status {
        Status::Pending => None,
        Status::Completed => Some(WaitReason::NotPending { why: "completed".to_owned() }),
        Status::Blocked => Some(WaitReason::Blocked { reason: task.facts.blocked_reason.clone() }),
    }
}

/// An attempt under way, an open pull request, or one that was merged or declined at this revision.
fn attempt_reason(graph: &Graph, task: &Task) -> Option<WaitReason> {
    graph.attempts_at(task).rev().find_map(|attempt| {
        let id = attempt.id.clone();
        if let Some(pr) = attempt.pull_request.as_ref().filter(|_| attempt.is_in_review()) {
            return Some(WaitReason::InReview { attempt: id, url: pr.url.clone() });
        }
        if !attempt.state.is_terminal() {
            return Some(WaitReason::Running { attempt: id });
        }
        if attempt.created.task_revision != task.facts.revision || attempt.invalidated.is_some() {
            return None;
        }
        match &attempt.pull_request.as_ref()?.state {
            PullRequestState::Open => None,
            PullRequestState::Merged { .. } => {
                Some(WaitReason::NotPending { why: format!("completed: {id} was merged") })
            }
            PullRequestState::Closed { .. } => Some(WaitReason::Declined { attempt: id }),
        }
    })
}

/// Attempts under way and open pull requests come first: they go on.
fn unregistered_reason(graph: &Graph, target: &TargetId) -> Option<WaitReason> {
    let unregistered = graph.target(target)?.unregistered.as_ref()?;
    Some(WaitReason::Unregistered { reason: unregistered.reason.clone() })
}

/// What the failures at this revision of the task say. Invalidated attempts do not count.
fn history_reason(graph: &Graph, task: &Task, base: &CommitId, now: Timestamp) -> Option<WaitReason> {
    let ended: Vec<&Attempt> = graph
        .attempts_at(task)
        .filter(|a| a.created.task_revision == task.facts.revision && a.invalidated.is_none())
        .filter(|a| a.failure.is_some())
        .collect();
    let last = ended.last()?.failure.as_ref()?;
    match last.reason.class() {
        FailureClass::Human => Some(WaitReason::Parked { why: format!("cancelled: {}", last.detail) }),
        // The target was paused for it, and a human who resumes it says that there is money again.
        FailureClass::Configuration if last.reason == FailureReason::ProviderSpendLimit => None,
        FailureClass::Configuration => {
            let is_unchanged = ended.last().is_some_and(|attempt| attempt.created.base_commit == *base);
            is_unchanged
                .then(|| WaitReason::ConfigInvalid { why: format!("{}: {}", last.reason, last.detail) })
        }
        FailureClass::Infrastructure => infrastructure_reason(&ended, last.at, now),
        FailureClass::Agent => agent_reason(&ended, task.facts.max_attempts),
    }
}

fn infrastructure_reason(ended: &[&Attempt], at: Timestamp, now: Timestamp) -> Option<WaitReason> {
    let in_a_row = ended
        .iter()
        .rev()
        .take_while(|a| a.failure.as_ref().is_some_and(|f| f.reason.class() == FailureClass::Infrastructure))
        .count();
    if in_a_row > FailureReason::INFRASTRUCTURE_RETRIES as usize {
        return Some(WaitReason::Parked {
            why: format!("{in_a_row} failures of machines or services in a row"),
        });
    }
    let until = backoff_end(at, in_a_row, &ended[ended.len() - 1].id);
    (now < until).then_some(WaitReason::Backoff { until })
}

/// 30 s after the first failure, doubled for each further one up to 15 minutes, and up to a quarter more that
/// the attempt's id decides, so that many tasks do not come back in the same second.
fn backoff_end(at: Timestamp, in_a_row: usize, attempt: &AttemptId) -> Timestamp {
    let doublings = u32::try_from(in_a_row.saturating_sub(1)).unwrap_or(u32::MAX).min(5);
    let seconds = (30_i64 << doublings).min(900);
    let spread = attempt.as_str().bytes().fold(0_i64, |sum, byte| (sum * 31 + i64::from(byte)) % 1000);
    let millis = seconds * 1000 + seconds * 250 * spread / 1000;
    let end = at.moment().checked_add(jiff::SignedDuration::from_millis(millis));
    Timestamp::new(end.unwrap_or(jiff::Timestamp::MAX))
}

fn agent_reason(ended: &[&Attempt], max_attempts: u32) -> Option<WaitReason> {
    let failures: Vec<_> = ended
        .iter()
        .filter_map(|a| a.failure.as_ref())
        .filter(|f| f.reason.class() == FailureClass::Agent)
        .collect();
    let last = failures.last()?;
    if failures.len() >= max_attempts as usize {
        return Some(WaitReason::Parked {
            why: format!("{} of {max_attempts} attempts failed, last with {}", failures.len(), last.reason),
        });
    }
    let same =
        failures.iter().rev().take_while(|f| f.reason == last.reason && f.detail == last.detail).count();
    (same >= 2).then(|| WaitReason::Parked { why: format!("the same failure twice: {}", last.reason) })
}

fn dependency_reason(graph: &Graph, target: &TargetId, task: &Task) -> Option<WaitReason> {
    let unmet = task.facts.depends_on.iter().find(|on| !is_completed(graph, target, on))?;
    Some(WaitReason::Dependency { on: unmet.clone() })
}

/// Whether the humans wrote `completed`, or the task's work at its present revision was merged.
pub fn is_completed(graph: &Graph, target: &TargetId, task: &TaskId) -> bool {
    graph.task(target, task).is_some_and(|task| {
        task.facts.status == Status::Completed
            || graph.attempts_at(task).any(|a| {
                a.is_merged() && a.created.task_revision == task.facts.revision && a.invalidated.is_none()
            })
    })
}

fn pause_reason(graph: &Graph, target: &TargetId) -> Option<WaitReason> {
    let pause = graph.pause().or_else(|| graph.target(target).and_then(|t| t.pause.as_ref()))?;
    Some(WaitReason::Paused { reason: pause.reason.clone() })
}

fn limit_reason(graph: &Graph, target: &TargetId, limits: TargetLimits, chosen: usize) -> Option<WaitReason> {
    let target = graph.target(target)?;
    if target.live.len() + chosen >= limits.max_concurrent as usize {
        return Some(WaitReason::MaxConcurrent { limit: limits.max_concurrent });
    }
    // An attempt whose pull request is open already is counted once.
    let live_without_pr = target.live.difference(&target.in_review).count();
    if target.in_review.len() + live_without_pr + chosen >= limits.max_open_prs as usize {
        return Some(WaitReason::MaxOpenPrs { limit: limits.max_open_prs });
    }
    None
}

/// A budget that the next attempt at the task could overrun, when `chosen` others of its target are about to be
/// claimed.
fn budget_reason(
    graph: &Graph,
    target: &TargetId,
    task: &Task,
    spending: Spending,
    now: Timestamp,
    chosen: usize,
) -> Option<WaitReason> {
    let next = spending.set_aside(task.facts.agent.as_deref())?;
    let about_to_be = next.saturating_mul(chosen as u64);
    let today = start_of_day(now);
    let of_task = |budget| Budget {
        budget,
        committed: committed_at(graph, task),
        of: "this task",
        next_step: "edit the task, or raise limits.budget_usd_per_task in policy.yaml",
    };
    let of_target = |budget| Budget {
        budget,
        committed: graph.committed_since(today, Some(target)).saturating_add(about_to_be),
        of: "this target today",
        next_step: "more from 00:00 UTC on, or raise limits.budget_usd_per_day in policy.yaml",
    };
    let of_everything = |budget| Budget {
        budget,
        committed: graph.committed_since(today, None).saturating_add(about_to_be),
        of: "all targets today",
        next_step: "more from 00:00 UTC on, or raise LEVIATHAN_BUDGET_USD_PER_DAY of the scheduler",
    };
    let overrun = |budget: Budget| budget.overrun_by(next);
    (spending.per_task_micro_usd.map(of_task).and_then(overrun))
        .or_else(|| spending.per_day_micro_usd.map(of_target).and_then(overrun))
        .or_else(|| spending.everything_per_day_micro_usd.map(of_everything).and_then(overrun))
}

/// What all attempts at the present revision of a task have committed.
fn committed_at(graph: &Graph, task: &Task) -> u64 {
    let at_revision = graph.attempts_at(task).filter(|it| it.created.task_revision == task.facts.revision);
    at_revision.map(Attempt::committed_micro_usd).sum()
}

/// A budget, in millionths of a US dollar, and how far it is used.
struct Budget {
    budget: u64,
    committed: u64,
    of: &'static str,
    next_step: &'static str,
}

impl Budget {
    fn overrun_by(self, next: u64) -> Option<WaitReason> {
        let Self { budget, committed, of, next_step } = self;
        (committed.saturating_add(next) > budget).then(|| {
            let [committed, budget, next] = [committed, budget, next].map(MicroDollars);
            let why = format!(
                "of the {budget} dollars for {of}, {committed} are spent or set aside, and an attempt may cost {next}: {next_step}"
            );
            WaitReason::BudgetSpent { why }
        })
    }
}

fn start_of_day(now: Timestamp) -> Timestamp {
    const DAY: i64 = 24 * 60 * 60;
    let midnight = now.moment().as_second().div_euclid(DAY) * DAY;
    Timestamp::new(jiff::Timestamp::from_second(midnight).unwrap_or(jiff::Timestamp::MIN))
}

/// An attempt under way or in review whose files the task could touch. Until its change is final, every file
/// that its task may touch counts.
fn overlap_reason(graph: &Graph, target: &TargetId, task: &Task) -> Option<WaitReason> {
    let ours = patterns(task);
    let target_id = target;
    let target = graph.target(target_id)?;
    let meets = |attempt: &&Attempt| match attempt.candidate.as_ref().filter(|_| attempt.is_in_review()) {
        Some(change) => {
            change.files.iter().any(|file| ours.iter().any(|pattern| pattern.matches(&file.path)))
        }
        None => graph.task(target_id, &attempt.task_id).is_none_or(|other| {
            patterns(other).iter().any(|theirs| ours.iter().any(|pattern| pattern.overlaps(theirs)))
        }),
    };
    let met = target.live.union(&target.in_review).filter_map(|id| graph.attempt(id)).find(meets)?;
    Some(WaitReason::PathsOverlap { attempt: met.id.clone() })
}

/// The task's own patterns; the scope can only narrow them further, and text that is no pattern permits nothing.
fn patterns(task: &Task) -> Vec<PathPattern> {
    task.facts.allowed_paths.iter().filter_map(|text| PathPattern::parse(text).ok()).collect()
}

/// The word for where a task stands, for people: `pending`, `running`, `in_review`, `completed`, `declined`,
/// `parked`, `blocked` or `removed`.
pub fn task_state(
    graph: &Graph,
    target: &TargetId,
    task: &Task,
    base: &CommitId,
    now: Timestamp,
) -> &'static str {
    if task.is_removed {
        return "removed";
    }
    match standing(graph, target, task, base, now) {
        Standing::Ready => "pending",
        Standing::Waits(reason) => match reason {
            WaitReason::NotPending { .. } => "completed",
            WaitReason::Blocked { .. } => "blocked",
            WaitReason::Running { .. } => "running",
            WaitReason::InReview { .. } => "in_review",
            WaitReason::Declined { .. } => "declined",
            WaitReason::Parked { .. } => "parked",
            WaitReason::Backoff { .. }
            | WaitReason::Dependency { .. }
            | WaitReason::MaxOpenPrs { .. }
            | WaitReason::MaxConcurrent { .. }
            | WaitReason::BudgetSpent { .. }
            | WaitReason::PathsOverlap { .. }
            | WaitReason::Unregistered { .. }
            | WaitReason::Paused { .. }
            | WaitReason::ConfigInvalid { .. } => "pending",
        },
    }
}
