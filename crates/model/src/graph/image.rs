//! A graph as parts that can be kept and read back: for whoever wants to go on from it without every event.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{
    Attempt, Counts, Failure, Graph, Invalidation, Pause, PullRequest, PullRequestState, Rejection, Target,
    Task, Unregistration,
};
use crate::attempt::{AttemptState, FailureReason, Stage};
use crate::compact::{Compact, compact_fields, compact_variants};
use crate::documents::{Priority, Status};
use crate::event::{
    AttemptCreated, AttemptLaunched, BacklogUpdated, ChangePermitted, FileRecord, TargetRegistered,
    TaskFacts, Timestamp, Usage, WriteBackOutcome,
};
use crate::sharing::List;
use crate::{CommitId, TargetId};

/// All of a graph. The same graph has the same parts.
#[derive(Debug, Clone)]
pub struct GraphParts {
    /// What there is one or few of.
    pub outline: Outline,
    /// Every task, in the order in which they appeared.
    pub tasks: List<Arc<Task>>,
    /// Every attempt, in the order of their claims.
    pub attempts: List<Arc<Attempt>>,
}

/// What a graph has beside its tasks and attempts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outline {
    head: u64,
    pause: Option<Pause>,
    targets: Vec<(TargetId, TargetOutline)>,
    rejections: Vec<(String, Rejection)>,
    counts: Counts,
}

/// What does not follow from the tasks and attempts of a target.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct TargetOutline {
    registered: TargetRegistered,
    registered_at: Timestamp,
    pause: Option<Pause>,
    unregistered: Option<Unregistration>,
}

/// Parts that are no graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the parts are not in the order of a graph")]
pub struct ImageError;

impl Graph {
    /// The parts of the graph. Tasks and attempts are shared with it, not copied.
    pub fn to_parts(&self) -> GraphParts {
        let Self {
            head,
            pause,
            targets,
            tasks,
            places_of_tasks: _,
            attempts,
            places_of_attempts: _,
            rejections,
            counts,
        } = self;
        let outline = Outline {
            head: *head,
            pause: pause.clone(),
            targets: targets.iter().map(|(id, target)| (id.clone(), target.outline())).collect(),
            rejections: rejections.iter().map(|(source, why)| (source.clone(), why.clone())).collect(),
            counts: counts.clone(),
        };
        GraphParts { outline, tasks: tasks.clone(), attempts: attempts.clone() }
    }

    /// The graph that has these parts.
    pub fn from_parts(parts: GraphParts) -> Result<Self, ImageError> {
        let GraphParts { outline, tasks, attempts } = parts;
        let Outline { head, pause, targets, rejections, counts } = outline;
        let targets = targets.into_iter().map(|(id, outline)| (id, Target::of(outline)));
        let mut targets = in_order(targets.collect())?;
        let mut graph = Self { head, pause, rejections: in_order(rejections)?, counts, ..Self::default() };
        graph.places_of_tasks.extend(tasks.iter().map(|task| (&task.target_id, &task.id)));
        for (place, task) in tasks.iter().enumerate() {
            if let Some(target) = targets.get_mut(&task.target_id) {
                target.tasks.push(place);
            }
        }
        graph.places_of_attempts.extend(attempts.iter().map(|attempt| &attempt.id));
        for attempt in attempts.iter() {
            if let Some(target) = targets.get_mut(&attempt.target_id) {
                target.know(attempt);
            }
        }
        (graph.tasks, graph.attempts) = (tasks, attempts);
        graph.targets = targets.into_iter().map(|(id, target)| (id, Arc::new(target))).collect();
        Ok(graph)
    }
}

impl Target {
    fn outline(&self) -> TargetOutline {
        let Self { registered, registered_at, pause, unregistered, tasks: _, live: _, in_review: _ } = self;
        TargetOutline {
            registered: registered.clone(),
            registered_at: *registered_at,
            pause: pause.clone(),
            unregistered: unregistered.clone(),
        }
    }

    fn of(outline: TargetOutline) -> Self {
        let TargetOutline { registered, registered_at, pause, unregistered } = outline;
        Self { pause, unregistered, ..Self::new(registered, registered_at) }
    }

    /// Takes in where one of its attempts stands.
    fn know(&mut self, attempt: &Attempt) {
        if !attempt.state.is_terminal() {
            self.live.insert(attempt.id.clone());
        }
        if attempt.is_in_review() {
            self.in_review.insert(attempt.id.clone());
        }
    }
}

fn in_order<K: Ord, V>(entries: Vec<(K, V)>) -> Result<BTreeMap<K, V>, ImageError> {
    if entries.is_sorted_by(|(one, _), (next, _)| one < next) {
        Ok(entries.into_iter().collect())
    } else {
        Err(ImageError)
    }
}

compact_fields! {
    Task { target_id, id, facts, is_removed, events, attempts, write_back }
    TaskFacts {
        revision, commit, title, scope, priority, position, status, blocked_reason, depends_on,
        allowed_paths, max_attempts, agent,
    }
    BacklogUpdated { outcome, attempt_id, commit, detail }
    Attempt {
        id, target_id, task_id, created, created_at, started_at, ended_at, state, epoch, launcher,
        launched, candidate, is_pushed, publish_not_before, failure, pull_request, invalidated, usage,
        events,
    }
    AttemptCreated {
        n, task_revision, base_commit, branch, contract_digest, policy_digest, operator_policy_digest,
        agent, model, version, timeout_seconds, budget_micro_usd,
    }
    AttemptLaunched { epoch, name, uid }
    ChangePermitted { round, candidate, files, omitted, patch_bytes, ignored_files }
    FileRecord { path, change, added_lines, removed_lines, rule }
    Failure { stage, reason, detail, at }
    Invalidation { by, reason, at }
    PullRequest { number, url, branch, commit, title, state, human_owned, reviews }
    Usage { input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, turns, cost_micro_usd }
}

compact_variants! {
    AttemptState {
        Created, Started, Candidate, Verified, Published, Completed, Failed, Cancelled, Lost,
        Superseded,
    }
    Stage { Prepare, Agent, Gate, Checks, Publish }
    FailureReason {
        NoChange, ScopeViolation, ProtectedPath, ChangeTooLarge, SecretFound, InvariantFailed,
        InvariantFailedOnBase, BudgetExceeded, TimedOut, Stuck, ModelRefusal, ProviderUnavailable,
        ProviderSpendLimit, SandboxUnavailable, ConfigInvalid, BaseMovedConflict, PublishFailed,
        Cancelled, Lost, Internal,
    }
    Priority { Low, Medium, High }
    Status { Pending, Completed, Blocked }
    WriteBackOutcome { Committed, AlreadyDone, PullRequest, Skipped }
}

impl Compact for PullRequestState {
    fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Open => 0_u64.write(bytes),
            Self::Merged { by, commit, approved_by } => {
                1_u64.write(bytes);
                by.write(bytes);
                commit.write(bytes);
                approved_by.write(bytes);
            }
            Self::Closed { by } => {
                2_u64.write(bytes);
                by.write(bytes);
            }
        }
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        match u64::read(bytes)? {
            0 => Some(Self::Open),
            1 => {
                let (by, commit) = (String::read(bytes)?, CommitId::read(bytes)?);
                Some(Self::Merged { by, commit, approved_by: Vec::read(bytes)? })
            }
            2 => Some(Self::Closed { by: String::read(bytes)? }),
            _ => None,
        }
    }
}
