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
use crate::sharing::{Index, List};
use crate::{AttemptId, TargetId, TaskId};

/// Everything that the log says, as it stands after its last event.
///
/// A copy is made at once, however much that is: it shares with the graph what neither has changed since.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    head: u64,
    pause: Option<Pause>,
    targets: BTreeMap<TargetId, Arc<Target>>,
    /// In the order in which they first appeared.
    tasks: List<Arc<Task>>,
    places_of_tasks: Index,
    /// In the order of their claims, which ids that were made in one millisecond do not tell.
    attempts: List<Arc<Attempt>>,
    places_of_attempts: Index,
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
        self.targets.iter().map(|(id, target)| (id, &**target))
    }

    /// One target.
    pub fn target(&self, id: &TargetId) -> Option<&Target> {
        self.targets.get(id).map(|target| &**target)
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
    pub fn task(&self, target: &TargetId, id: &TaskId) -> Option<&Task> {
        self.shared_task(target, id).map(|task| &**task)
    }

    /// The tasks of a target that were ever in its backlog, in the order in which they appeared.
    pub fn tasks_of(&self, target: &TargetId) -> impl Iterator<Item = &Task> {
        let places = self.targets.get(target).into_iter().flat_map(|target| target.tasks.iter());
        places.filter_map(|place| self.tasks.get(*place).map(|task| &**task))
    }

    /// The tasks of a target that are in its backlog, in file order.
    pub fn backlog<'a>(&'a self, target: &'a TargetId) -> Vec<(&'a TaskId, &'a Task)> {
        let tasks = self.tasks_of(target).filter(|task| !task.is_removed);
        let mut tasks: Vec<_> = tasks.map(|task| (&task.id, task)).collect();
        tasks.sort_by_key(|(id, task)| (task.facts.position, *id));
        tasks
    }

    /// One attempt.
    pub fn attempt(&self, id: &AttemptId) -> Option<&Attempt> {
        self.shared_attempt(id).map(|attempt| &**attempt)
    }

    /// Every attempt, oldest first.
    pub fn attempts(&self) -> impl DoubleEndedIterator<Item = &Attempt> {
        self.attempts.iter().map(|attempt| &**attempt)
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

    fn shared_task(&self, target: &TargetId, id: &TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(self.place_of_task(target, id)?)
    }

    fn place_of_task(&self, target: &TargetId, id: &TaskId) -> Option<usize> {
        let is_there = |task: &Arc<Task>| task.id == *id && task.target_id == *target;
        self.places_of_tasks.find(&(target, id), |place| self.tasks.get(place).is_some_and(is_there))
    }

    /// Adds a task that is not there yet. Answers its place.
    fn add_task(&mut self, task: Arc<Task>) -> usize {
        let place = self.tasks.len();
        self.places_of_tasks.push(&(&task.target_id, &task.id));
        self.tasks.push(task);
        place
    }

    fn shared_attempt(&self, id: &AttemptId) -> Option<&Arc<Attempt>> {
        self.attempts.get(self.place_of_attempt(id)?)
    }

    fn place_of_attempt(&self, id: &AttemptId) -> Option<usize> {
        let is_there = |attempt: &Arc<Attempt>| attempt.id == *id;
        self.places_of_attempts.find(id, |place| self.attempts.get(place).is_some_and(is_there))
    }

    /// Adds an attempt that is not there yet.
    fn add_attempt(&mut self, attempt: Arc<Attempt>) {
        self.places_of_attempts.push(&attempt.id);
        self.attempts.push(attempt);
    }
}
