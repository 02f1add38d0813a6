//! What a graph has entries of, and what each says of itself. How events change them is not known here.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::attempt::{AttemptState, FailureReason, Stage};
use crate::event::{
    AttemptCreated, AttemptLaunched, BacklogUpdated, ChangePermitted, TargetRegistered, TargetRejected,
    TaskFacts, Timestamp, Usage,
};
use crate::sharing::List;
use crate::{ActorId, AttemptId, BranchName, CommitId, Epoch, Seq, TargetId, TaskId};

/// How much of everything there is; kept as events arrive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counts {
    /// Targets that were ever registered.
    pub targets: u64,
    /// Tasks that were ever in a backlog.
    pub tasks: u64,
    /// Attempts that were ever claimed.
    pub attempts: u64,
    /// Stored files of attempts.
    pub artifacts: u64,
    /// Pull requests that were ever opened.
    pub pull_requests: u64,
    /// Attempts by their state.
    pub attempts_by_state: BTreeMap<String, u64>,
    /// What all ended rounds of agents cost, in millionths of a US dollar.
    pub cost_micro_usd: u64,
}

/// That and why a human stopped new attempts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pause {
    /// Who paused.
    pub by: ActorId,
    /// Why.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// A human's word that a target is operated no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unregistration {
    /// Who.
    pub by: ActorId,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// A registration that was not accepted, and is not put right yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rejection {
    /// The registered target that it was meant for, as far as that is known.
    pub target_id: Option<TargetId>,
    /// What was wrong, and where.
    pub rejected: TargetRejected,
    /// When.
    pub at: Timestamp,
}

/// A registered repository.
#[derive(Debug, Clone)]
pub struct Target {
    /// The documents as last registered.
    pub registered: TargetRegistered,
    /// When that was.
    pub registered_at: Timestamp,
    /// Whether its attempts are paused.
    pub pause: Option<Pause>,
    /// That and why a human took it out of operation, until it is registered again.
    pub unregistered: Option<Unregistration>,
    /// The places of its tasks that were ever in the backlog.
    pub(super) tasks: List<usize>,
    /// Its attempts that are not terminal.
    pub live: BTreeSet<AttemptId>,
    /// Its attempts whose pull request is open.
    pub in_review: BTreeSet<AttemptId>,
}

/// A task as the backlog last had it, and what was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its target.
    pub target_id: TargetId,
    /// Its name.
    pub id: TaskId,
    /// What the backlog says.
    pub facts: TaskFacts,
    /// Whether a human took it out of the backlog.
    pub is_removed: bool,
    /// Every event about the task itself, oldest first; its attempts have their own.
    pub events: Vec<Seq>,
    /// Its attempts, oldest first.
    pub attempts: Vec<AttemptId>,
    /// What became of the last write-back of its completion.
    pub write_back: Option<BacklogUpdated>,
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// Its target.
    pub target_id: TargetId,
    /// Its task.
    pub task_id: TaskId,
    /// What it was claimed with.
    pub created: AttemptCreated,
    /// When it was claimed.
    pub created_at: Timestamp,
    /// When an executor first began.
    pub started_at: Option<Timestamp>,
    /// When it reached a terminal state.
    pub ended_at: Option<Timestamp>,
    /// Where it stands.
    pub state: AttemptState,
    /// How often it was handed to an executor; 0 before the first time.
    pub epoch: Epoch,
    /// Which launcher has it.
    pub launcher: Option<String>,
    /// The last Job that was made for it.
    pub launched: Option<AttemptLaunched>,
    /// The change that was last permitted.
    pub candidate: Option<ChangePermitted>,
    /// Whether its branch is on the forge.
    pub is_pushed: bool,
    /// When publishing may be tried again, while it is parked.
    pub publish_not_before: Option<Timestamp>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Its pull request.
    pub pull_request: Option<PullRequest>,
    /// That and why a human declared it void.
    pub invalidated: Option<Invalidation>,
    /// What its rounds cost.
    pub usage: Usage,
    /// Every event about it, oldest first.
    pub events: Vec<Seq>,
}

/// Why an attempt ended without a pull request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// In which part; absent when it was stopped or lost.
    pub stage: Option<Stage>,
    /// Why, from the closed list.
    pub reason: FailureReason,
    /// What exactly.
    pub detail: String,
    /// When.
    pub at: Timestamp,
}

/// A human's word that an attempt does not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Invalidation {
    /// Who.
    pub by: ActorId,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// A pull request as last observed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PullRequest {
    /// Its number on the forge.
    pub number: u64,
    /// Where people see it.
    pub url: String,
    /// Its branch.
    pub branch: BranchName,
    /// The commit it was opened with.
    pub commit: CommitId,
    /// Its title.
    pub title: String,
    /// What became of it.
    pub state: PullRequestState,
    /// Why Leviathan keeps its hands off it, once a human changed it.
    pub human_owned: Option<String>,
    /// The last verdict of each reviewer.
    pub reviews: BTreeMap<String, String>,
}

/// What became of a pull request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum PullRequestState {
    /// It waits for a human.
    Open,
    /// A human merged it.
    Merged {
        /// Who.
        by: String,
        /// The commit by which it entered the default branch.
        commit: CommitId,
        /// Who approved it.
        approved_by: Vec<String>,
    },
    /// A human closed it without a merge.
    Closed {
        /// Who.
        by: String,
    },
}

impl Target {
    /// The target without its tasks and attempts.
    pub(super) fn alone(&self) -> Self {
        let Self { registered, registered_at, pause, unregistered, tasks: _, live: _, in_review: _ } = self;
        Self {
            pause: pause.clone(),
            unregistered: unregistered.clone(),
            ..Self::new(registered.clone(), *registered_at)
        }
    }

    /// A target that was just registered for the first time.
    pub(super) fn new(registered: TargetRegistered, at: Timestamp) -> Self {
        Self {
            registered,
            registered_at: at,
            pause: None,
            unregistered: None,
            tasks: List::default(),
            live: BTreeSet::new(),
            in_review: BTreeSet::new(),
        }
    }
}

impl Task {
    /// The last event about the task itself.
    pub fn last_event(&self) -> Seq {
        self.events.last().copied().unwrap_or(Seq(0))
    }
}

impl Attempt {
    /// Whether its pull request waits for a human.
    pub fn is_in_review(&self) -> bool {
        self.pull_request.as_ref().is_some_and(|pr| pr.state == PullRequestState::Open)
    }

    /// Whether its pull request was merged.
    pub fn is_merged(&self) -> bool {
        self.pull_request.as_ref().is_some_and(|pr| matches!(pr.state, PullRequestState::Merged { .. }))
    }

    /// The word for people: the state, or `invalidated`.
    pub fn status(&self) -> &'static str {
        if self.invalidated.is_some() { "invalidated" } else { self.state.as_str() }
    }

    /// What it has cost, and while that is not known to the end, all that it may cost: an agent that works may spend
    /// the rest at any moment, and what one that was stopped or lost had spent by then, nobody could say.
    pub fn committed_micro_usd(&self) -> u64 {
        let spent = self.usage.cost_micro_usd;
        let is_open = match self.state {
            AttemptState::Created | AttemptState::Started | AttemptState::Candidate => true,
            AttemptState::Lost | AttemptState::Cancelled => self.started_at.is_some(),
            AttemptState::Verified
            | AttemptState::Published
            | AttemptState::Completed
            | AttemptState::Failed
            | AttemptState::Superseded => false,
        };
        self.created.budget_micro_usd.filter(|_| is_open).map_or(spent, |budget| budget.max(spent))
    }
}

impl Counts {
    pub(super) fn moved(&mut self, before: AttemptState, after: AttemptState) {
        if let Some(count) = self.attempts_by_state.get_mut(before.as_str()) {
            *count -= 1;
        }
        self.entered(after);
    }

    pub(super) fn entered(&mut self, state: AttemptState) {
        match self.attempts_by_state.get_mut(state.as_str()) {
            Some(count) => *count += 1,
            None => drop(self.attempts_by_state.insert(state.to_string(), 1)),
        }
    }
}
