//! What the log means: targets, their tasks, the attempts at them and their pull requests, folded from events.
//!
//! [`Graph::admit`] says whether an event may follow what is already known; [`Graph::apply`] takes it in. The
//! control plane admits before it writes and applies after; whoever reads the log applies the same events and
//! arrives at the same graph. Nothing here stores, sends, or asks for the time.

mod image;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::image::{GraphParts, ImageError, Outline};
use crate::attempt::{AttemptState, FailureReason, Stage};
use crate::event::{
    AttemptCreated, AttemptLaunched, BacklogUpdated, ChangePermitted, Event, EventKind, Subject,
    TargetRegistered, TargetRejected, TaskFacts, Timestamp, Usage,
};
use crate::{ActorId, AttemptId, BranchName, CommitId, Epoch, Seq, TargetId, TaskId};

/// Everything that the log says, as it stands after its last event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Graph {
    head: u64,
    pause: Option<Pause>,
    targets: BTreeMap<TargetId, Target>,
    /// Shared with the copies that were made of the graph, until either changes.
    tasks: BTreeMap<(TargetId, TaskId), Arc<Task>>,
    attempts: BTreeMap<AttemptId, Arc<Attempt>>,
    /// The order in which they were claimed; ids that were made in one millisecond do not tell.
    claimed: Vec<AttemptId>,
    /// The last rejection of each source, until its target is registered.
    rejections: BTreeMap<String, Rejection>,
    counts: Counts,
}

/// Events on top of a graph that are judged and not recorded.
#[derive(Debug)]
pub struct Draft<'g> {
    base: &'g Graph,
    /// The part of the graph that the events can touch, with what was taken applied.
    excerpt: Graph,
}

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The documents as last registered.
    pub registered: TargetRegistered,
    /// When that was.
    pub registered_at: Timestamp,
    /// Whether its attempts are paused.
    pub pause: Option<Pause>,
    /// That and why a human took it out of operation, until it is registered again.
    pub unregistered: Option<Unregistration>,
    /// Its tasks that were ever in the backlog.
    pub tasks: BTreeSet<TaskId>,
    /// Its attempts that are not terminal.
    pub live: BTreeSet<AttemptId>,
    /// Its attempts whose pull request is open.
    pub in_review: BTreeSet<AttemptId>,
}

/// A task as the backlog last had it, and what was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// What the backlog says.
    pub facts: TaskFacts,
    /// Whether a human took it out of the backlog.
    pub is_removed: bool,
    /// The last event about the task itself; its attempts have their own.
    pub last_event: Seq,
    /// Its attempts, oldest first.
    pub attempts: Vec<AttemptId>,
    /// What became of the last write-back of its completion.
    pub write_back: Option<BacklogUpdated>,
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// An event that may not follow what is already known. A value that callers show, not a fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The target is not registered.
    #[error("target {0} is not registered; register it with `leviathanctl targets-register FILE`")]
    UnknownTarget(TargetId),
    /// The task was never in the backlog of that target.
    #[error("target {target} has no task {task}")]
    UnknownTask {
        /// The target.
        target: TargetId,
        /// The task it does not have.
        task: TaskId,
    },
    /// No such attempt.
    #[error("there is no attempt {0}; `leviathanctl attempts-list` shows those there are")]
    UnknownAttempt(AttemptId),
    /// The event's target or task is not the attempt's.
    #[error("attempt {0} belongs to another target or task")]
    OtherSubject(AttemptId),
    /// The step may not follow the attempt's state.
    #[error("attempt {attempt} is {state}: {event_type} cannot follow ({rule})")]
    IllegalStep {
        /// The attempt.
        attempt: AttemptId,
        /// Its state.
        state: AttemptState,
        /// The event that cannot follow.
        event_type: &'static str,
        /// The rule, in words.
        rule: &'static str,
    },
    /// The task may not get this event now.
    #[error("task {task}: {event_type} cannot follow ({rule})")]
    IllegalTaskStep {
        /// The task.
        task: TaskId,
        /// The event that cannot follow.
        event_type: &'static str,
        /// The rule, in words.
        rule: &'static str,
    },
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

    fn illegal(&self, event: &EventKind, rule: &'static str) -> Refusal {
        Refusal::IllegalStep {
            attempt: self.id.clone(),
            state: self.state,
            event_type: event.event_type(),
            rule,
        }
    }
}

impl Graph {
    /// How many events were applied; the seq of the last one.
    pub fn head(&self) -> u64 {
        self.head
    }

    /// How much of everything there is.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Whether everything is paused, and why.
    pub fn pause(&self) -> Option<&Pause> {
        self.pause.as_ref()
    }

    /// Whether nothing of a target may begin, because it or everything is paused.
    pub fn is_paused(&self, target: &TargetId) -> bool {
        self.pause.is_some() || self.target(target).is_some_and(|target| target.pause.is_some())
    }

    /// Every target, by id.
    pub fn targets(&self) -> impl Iterator<Item = (&TargetId, &Target)> {
        self.targets.iter()
    }

    /// One target.
    pub fn target(&self, id: &TargetId) -> Option<&Target> {
        self.targets.get(id)
    }

    /// The last rejection of each source whose target was not registered since.
    pub fn rejections(&self) -> impl Iterator<Item = &Rejection> {
        self.rejections.values()
    }

    /// The last rejection of one source, unless its target was registered since.
    pub fn rejection(&self, source: &str) -> Option<&Rejection> {
        self.rejections.get(source)
    }

    /// One task.
    pub fn task(&self, target: &TargetId, task: &TaskId) -> Option<&Task> {
        self.tasks.get(&(target.clone(), task.clone())).map(|task| &**task)
    }

    /// The tasks of a target that are in its backlog, in file order.
    pub fn backlog<'a>(&'a self, target: &'a TargetId) -> Vec<(&'a TaskId, &'a Task)> {
        let ids = self.targets.get(target).map(|t| &t.tasks);
        let mut tasks: Vec<_> = ids
            .into_iter()
            .flatten()
            .filter_map(|id| self.task(target, id).map(|task| (id, task)))
            .filter(|(_, task)| !task.is_removed)
            .collect();
        tasks.sort_by_key(|(_, task)| task.facts.position);
        tasks
    }

    /// One attempt.
    pub fn attempt(&self, id: &AttemptId) -> Option<&Attempt> {
        self.attempts.get(id).map(|attempt| &**attempt)
    }

    /// Every attempt, oldest first.
    pub fn attempts(&self) -> impl DoubleEndedIterator<Item = &Attempt> {
        self.claimed.iter().filter_map(|id| self.attempt(id))
    }

    /// The attempts at a task, oldest first.
    pub fn attempts_at<'a>(&'a self, task: &'a Task) -> impl DoubleEndedIterator<Item = &'a Attempt> {
        task.attempts.iter().filter_map(|id| self.attempt(id))
    }

    /// What the attempts that were claimed from `since` on have committed, of one target or of all.
    pub fn committed_since(&self, since: Timestamp, target: Option<&TargetId>) -> u64 {
        // Claims are recorded in their order, but for a clock that was set back by less than this.
        let slack = jiff::SignedDuration::from_hours(1);
        let begin = since.moment().checked_sub(slack).unwrap_or(jiff::Timestamp::MIN);
        let newest_first = self.attempts().rev().take_while(|attempt| attempt.created_at.moment() >= begin);
        newest_first
            .filter(|attempt| attempt.created_at >= since)
            .filter(|attempt| target.is_none_or(|target| attempt.target_id == *target))
            .map(Attempt::committed_micro_usd)
            .sum()
    }

    /// Judges events that are not recorded yet, as if those that it took before were.
    pub fn draft(&self) -> Draft<'_> {
        Draft { base: self, excerpt: self.excerpt() }
    }

    /// Whether `event` may follow what is known.
    pub fn admit(&self, event: &Event) -> Result<(), Refusal> {
        let Some(target_id) = &event.subject.target_id else { return Ok(()) };
        if matches!(event.kind, EventKind::TargetRegistered(_)) {
            return Ok(());
        }
        if !self.targets.contains_key(target_id) {
            return Err(Refusal::UnknownTarget(target_id.clone()));
        }
        match (&event.subject.task_id, &event.subject.attempt_id) {
            (None, _) => Ok(()),
            (Some(task_id), None) => self.admit_about_task(target_id, task_id, &event.kind),
            (Some(task_id), Some(attempt_id)) => {
                if let EventKind::AttemptCreated(created) = &event.kind {
                    self.admit_claim(target_id, task_id, attempt_id, created)
                } else {
                    self.admit_step(target_id, task_id, attempt_id, &event.kind)
                }
            }
        }
    }

    fn admit_about_task(&self, target: &TargetId, task_id: &TaskId, kind: &EventKind) -> Result<(), Refusal> {
        let known = self.task(target, task_id);
        let illegal = |rule| {
            Err(Refusal::IllegalTaskStep { task: task_id.clone(), event_type: kind.event_type(), rule })
        };
        if matches!(kind, EventKind::TaskCreated(_)) {
            return match known {
                Some(task) if !task.is_removed => {
                    illegal("the task is known; a change of it is task.updated")
                }
                Some(_) | None => Ok(()),
            };
        }
        match known {
            None => Err(Refusal::UnknownTask { target: target.clone(), task: task_id.clone() }),
            Some(task) if task.is_removed && !matches!(kind, EventKind::BacklogUpdated(_)) => {
                illegal("the task was taken out of the backlog")
            }
            Some(_) => Ok(()),
        }
    }

    fn admit_claim(
        &self,
        target: &TargetId,
        task_id: &TaskId,
        attempt: &AttemptId,
        created: &AttemptCreated,
    ) -> Result<(), Refusal> {
        let illegal = |rule| {
            Err(Refusal::IllegalTaskStep { task: task_id.clone(), event_type: "attempt.created", rule })
        };
        let Some(task) = self.task(target, task_id) else {
            return Err(Refusal::UnknownTask { target: target.clone(), task: task_id.clone() });
        };
        if self.attempts.contains_key(attempt) {
            return illegal("an attempt of that id exists");
        }
        if self.target(target).is_some_and(|target| target.unregistered.is_some()) {
            return illegal("its target is unregistered");
        }
        if task.is_removed {
            return illegal("the task was taken out of the backlog");
        }
        if created.task_revision != task.facts.revision {
            return illegal("the task was edited meanwhile");
        }
        if self.attempts_at(task).any(|other| !other.state.is_terminal()) {
            return illegal("another attempt at it is live");
        }
        if self.attempts_at(task).any(Attempt::is_in_review) {
            return illegal("a pull request for it is open");
        }
        if created.n as usize != task.attempts.len() + 1 {
            return illegal("attempts are counted without gaps");
        }
        if created.branch != BranchName::of_attempt(task_id, created.n) {
            return illegal("the branch is named after task and attempt");
        }
        Ok(())
    }

    fn admit_step(
        &self,
        target: &TargetId,
        task: &TaskId,
        attempt_id: &AttemptId,
        kind: &EventKind,
    ) -> Result<(), Refusal> {
        let Some(attempt) = self.attempt(attempt_id) else {
            return Err(Refusal::UnknownAttempt(attempt_id.clone()));
        };
        if attempt.target_id != *target || attempt.task_id != *task {
            return Err(Refusal::OtherSubject(attempt_id.clone()));
        }
        match broken_rule(attempt, kind) {
            None => Ok(()),
            Some(rule) => Err(attempt.illegal(kind, rule)),
        }
    }

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
                Target {
                    registered: registered.clone(),
                    registered_at: event.timestamp,
                    pause: None,
                    unregistered: None,
                    tasks: BTreeSet::new(),
                    live: BTreeSet::new(),
                    in_review: BTreeSet::new(),
                }
            });
            target.registered = registered.clone();
            target.registered_at = event.timestamp;
            target.unregistered = None;
            self.rejections.retain(|_, rejection| rejection.target_id.as_ref() != Some(id));
        } else if let EventKind::TargetRejected(rejected) = &event.kind {
            self.reject(Some(id), rejected, event.timestamp);
        } else if let Some(target) = self.targets.get_mut(id) {
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
        let key = (target_id.clone(), task_id.clone());
        if let EventKind::TaskCreated(facts) | EventKind::TaskUpdated(facts) = &event.kind {
            if let Some(target) = self.targets.get_mut(target_id) {
                target.tasks.insert(task_id.clone());
            }
            let counts = &mut self.counts;
            let task = self.tasks.entry(key).or_insert_with(|| {
                counts.tasks += 1;
                Arc::new(Task {
                    facts: facts.clone(),
                    is_removed: false,
                    last_event: seq,
                    attempts: Vec::new(),
                    write_back: None,
                })
            });
            let task = Arc::make_mut(task);
            task.facts = facts.clone();
            task.is_removed = false;
            task.last_event = seq;
        } else if let Some(task) = self.tasks.get_mut(&key).map(Arc::make_mut) {
            task.last_event = seq;
            if let EventKind::TaskRemoved(_) = &event.kind {
                task.is_removed = true;
            } else if let EventKind::BacklogUpdated(updated) = &event.kind {
                task.write_back = Some(updated.clone());
            }
        }
    }

    fn apply_to_attempt(&mut self, id: &AttemptId, event: &Event) {
        let seq = Seq(self.head);
        if let EventKind::AttemptCreated(created) = &event.kind {
            self.insert_attempt(id, created, event);
        }
        let Some(attempt) = self.attempts.get_mut(id).map(Arc::make_mut) else { return };
        attempt.events.push(seq);
        let before = attempt.state;
        let was_in_review = attempt.is_in_review();
        step(attempt, event, &mut self.counts);
        let (after, is_in_review) = (attempt.state, attempt.is_in_review());
        if let Some(target) = self.targets.get_mut(&attempt.target_id) {
            if after.is_terminal() {
                target.live.remove(id);
            }
            if is_in_review && !was_in_review {
                target.in_review.insert(id.clone());
            } else if was_in_review && !is_in_review {
                target.in_review.remove(id);
            }
        }
        if before != after {
            if after.is_terminal() {
                attempt.ended_at = Some(event.timestamp);
            }
            self.counts.moved(before, after);
        }
    }

    fn insert_attempt(&mut self, id: &AttemptId, created: &AttemptCreated, event: &Event) {
        let Subject { target_id: Some(target_id), task_id: Some(task_id), .. } = event.subject.clone() else {
            unreachable!("the subject of attempt.created was checked when the event was made");
        };
        if let Some(task) = self.tasks.get_mut(&(target_id.clone(), task_id.clone())).map(Arc::make_mut) {
            task.attempts.push(id.clone());
        }
        if let Some(target) = self.targets.get_mut(&target_id) {
            target.live.insert(id.clone());
        }
        self.counts.attempts += 1;
        *self.counts.attempts_by_state.entry(AttemptState::Created.to_string()).or_default() += 1;
        let attempt = Attempt {
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
        };
        self.attempts.insert(id.clone(), Arc::new(attempt));
        self.claimed.push(id.clone());
    }

    /// The graph without what events are about: that is added as it is needed.
    fn excerpt(&self) -> Self {
        Self { head: self.head, pause: self.pause.clone(), counts: self.counts.clone(), ..Self::default() }
    }

    /// Copies from `base` what `event` can touch and is not here yet.
    fn widen(&mut self, base: &Self, event: &Event) {
        let Event { subject, .. } = event;
        let Some(target_id) = &subject.target_id else { return };
        if let (None, Some(target)) = (self.targets.get(target_id), base.targets.get(target_id)) {
            self.targets.insert(target_id.clone(), target.without_members());
        }
        let Some(task_id) = &subject.task_id else { return };
        let key = (target_id.clone(), task_id.clone());
        if let (None, Some(task)) = (self.tasks.get(&key), base.tasks.get(&key)) {
            for attempt in task.attempts.iter().filter_map(|id| base.attempts.get(id)) {
                self.attempts.entry(attempt.id.clone()).or_insert_with(|| Arc::clone(attempt));
            }
            self.tasks.insert(key, Arc::clone(task));
        }
        // An attempt that belongs to another task than the event says must be found, to be refused.
        if let Some(attempt) = subject.attempt_id.as_ref().and_then(|id| base.attempts.get(id)) {
            self.attempts.entry(attempt.id.clone()).or_insert_with(|| Arc::clone(attempt));
        }
    }

    /// Takes over what `later`, made of a part of this excerpt, has become.
    fn replace_by(&mut self, later: Self) {
        (self.head, self.pause) = (later.head, later.pause);
        self.targets.extend(later.targets);
        self.tasks.extend(later.tasks);
        self.attempts.extend(later.attempts);
    }
}

impl Target {
    /// What is asked for when an event about it is judged; its tasks and attempts, of which there is no end, are not.
    fn without_members(&self) -> Self {
        Self {
            registered: self.registered.clone(),
            registered_at: self.registered_at,
            pause: self.pause.clone(),
            unregistered: self.unregistered.clone(),
            tasks: BTreeSet::new(),
            live: BTreeSet::new(),
            in_review: BTreeSet::new(),
        }
    }
}

impl Draft<'_> {
    /// Takes all of `events`, in their order, if they may follow what is known and taken; otherwise none of them,
    /// and says which is refused first.
    pub fn take(&mut self, events: &[Event]) -> Result<(), (usize, Refusal)> {
        for event in events {
            self.excerpt.widen(self.base, event);
        }
        if let [event] = events {
            self.excerpt.admit(event).map_err(|refusal| (0, refusal))?;
            self.excerpt.apply(event);
            return Ok(());
        }
        // Tried on a copy of what they touch, so that a refusal in the middle leaves nothing behind.
        let mut trial =
            Graph { head: self.excerpt.head, pause: self.excerpt.pause.clone(), ..Graph::default() };
        for event in events {
            trial.widen(&self.excerpt, event);
        }
        for (index, event) in events.iter().enumerate() {
            trial.admit(event).map_err(|refusal| (index, refusal))?;
            trial.apply(event);
        }
        self.excerpt.replace_by(trial);
        Ok(())
    }

    /// An attempt as it would be.
    pub fn attempt(&self, id: &AttemptId) -> Option<&Attempt> {
        self.excerpt.attempt(id).or_else(|| self.base.attempt(id))
    }
}

impl Counts {
    fn moved(&mut self, before: AttemptState, after: AttemptState) {
        if let Some(count) = self.attempts_by_state.get_mut(before.as_str()) {
            *count -= 1;
        }
        *self.attempts_by_state.entry(after.to_string()).or_default() += 1;
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

/// The rule that forbids `kind` to follow the attempt's present state, if one does.
fn broken_rule(attempt: &Attempt, kind: &EventKind) -> Option<&'static str> {
    use AttemptState::{Candidate, Created, Published, Started, Verified};
    let state = attempt.state;
    let is_live = !state.is_terminal();
    let candidate = attempt.candidate.as_ref().map(|change| &change.candidate);
    let rules: &[(bool, &'static str)] = &match kind {
        EventKind::AttemptClaimed(claimed) => [
            (matches!(state, Created | Verified), "only an attempt that waits can be handed out"),
            (claimed.epoch == attempt.epoch.next(), "the epoch grows by one"),
        ],
        EventKind::AttemptLaunched(launched) => [
            (is_live, "the attempt has ended"),
            (launched.epoch == attempt.epoch, "the epoch is the one it was handed"),
        ],
        EventKind::AttemptStarted(started) => [
            (matches!(state, Created | Verified), "an attempt starts once in each epoch"),
            (started.epoch == attempt.epoch, "the epoch is the one it was handed"),
        ],
        EventKind::SandboxReported(_) | EventKind::NetworkReported(_) | EventKind::ArtifactStored(_) => {
            [(is_live, "the attempt has ended"), HOLDS]
        }
        EventKind::AgentFinished(_) | EventKind::PolicyViolated(_) | EventKind::ChangePermitted(_) => {
            [(matches!(state, Started | Candidate), "the agent works between start and verification"), HOLDS]
        }
        EventKind::InvariantPassed(check) | EventKind::InvariantFailed(check) => [
            (matches!(state, Started | Candidate), "checks run between start and verification"),
            (
                if check.round == 0 {
                    check.commit == attempt.created.base_commit
                } else {
                    Some(&check.commit) == candidate
                },
                "a check runs on the base or on the candidate, nothing else",
            ),
        ],
        EventKind::ChangeVerified(verified) => [
            (state == Candidate, "only a permitted change can be verified"),
            (Some(&verified.candidate) == candidate, "the verified commit is the permitted one"),
        ],
        EventKind::PublishParked(_) => {
            [(state == Verified, "only a verified change waits for the forge"), HOLDS]
        }
        EventKind::BranchPushed(pushed) => [
            (state == Verified, "only a verified change is pushed"),
            (
                Some(&pushed.commit) == candidate && pushed.branch == attempt.created.branch,
                "the pushed branch and commit are the verified ones",
            ),
        ],
        EventKind::PrCreated(pr) => [
            (state == Verified && attempt.is_pushed, "a pull request needs a verified change that is pushed"),
            (Some(&pr.commit) == candidate, "the pull request holds the verified commit"),
        ],
        EventKind::AttemptCompleted(_) => {
            [(state == Published, "an attempt is complete with its pull request"), HOLDS]
        }
        EventKind::AttemptFailed(_) => [
            (is_live, "terminal states never change"),
            (state != Published, "its pull request is open; a human decides about it"),
        ],
        EventKind::AttemptLost(_) => [
            (is_live, "terminal states never change"),
            (state != Published, "its pull request is open; it is completed instead"),
        ],
        EventKind::AttemptCancelled(_) | EventKind::AttemptSuperseded(_) => {
            [(is_live, "terminal states never change"), HOLDS]
        }
        EventKind::PrReviewed(_) | EventKind::PrHumanOwned(_) | EventKind::PrClosed(_) => {
            [(attempt.is_in_review(), "its pull request is not open"), HOLDS]
        }
        EventKind::PrMerged(_) => [
            (attempt.pull_request.is_some(), "it has no pull request"),
            (!attempt.is_merged(), "its pull request is merged already"),
        ],
        EventKind::AttemptInvalidated(_) => [
            (
                !is_live && !attempt.is_merged(),
                "only an ended attempt whose work was not merged can be invalidated",
            ),
            (attempt.invalidated.is_none(), "it is invalidated already"),
        ],
        EventKind::TargetRegistered(_)
        | EventKind::TargetUnregistered(_)
        | EventKind::TargetRejected(_)
        | EventKind::TaskCreated(_)
        | EventKind::TaskUpdated(_)
        | EventKind::TaskCompleted(_)
        | EventKind::TaskBlocked(_)
        | EventKind::TaskRemoved(_)
        | EventKind::AttemptCreated(_)
        | EventKind::BacklogUpdated(_)
        | EventKind::SchedulerPaused(_)
        | EventKind::SchedulerResumed(_) => {
            [(false, "this event is not about an attempt's next step"), HOLDS]
        }
    };
    rules.iter().find(|(holds, _)| !holds).map(|(_, rule)| *rule)
}

const HOLDS: (bool, &str) = (true, "");

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
