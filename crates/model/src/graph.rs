//! What the log means: targets, their tasks, the attempts at them and their pull requests, folded from events.
//!
//! [`Graph::admit`] says whether an event may follow what is already known; [`Graph::apply`] takes it in. The
//! control plane admits before it writes and applies after; whoever reads the log applies the same events and
//! arrives at the same graph. Nothing here stores, sends, or asks for the time.

mod admission;
mod draft;
mod entries;
mod fold;
mod image;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use self::admission::Refusal;
pub use self::draft::Draft;
pub use self::entries::{
    Attempt, Counts, Failure, Invalidation, Pause, PullRequest, PullRequestState, Rejection, Target, Task,
    Unregistration,
};
pub use self::image::{GraphParts, ImageError, Outline};
use crate::event::Timestamp;
use crate::{AttemptId, TargetId, TaskId};

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
}
