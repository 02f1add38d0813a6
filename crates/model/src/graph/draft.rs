//! Events that are judged one after the other before any of them is recorded.

use std::sync::Arc;

use super::{Attempt, Graph, Refusal};
use crate::AttemptId;
use crate::event::Event;

/// Events on top of a graph that are judged and not recorded.
#[derive(Debug)]
pub struct Draft<'g> {
    base: &'g Graph,
    /// The part of the graph that the events can touch, with what was taken applied.
    excerpt: Graph,
}

impl Graph {
    /// Judges events that are not recorded yet, as if those that it took before were.
    pub fn draft(&self) -> Draft<'_> {
        Draft { base: self, excerpt: self.excerpt() }
    }

    /// The graph without what events are about: that is added as it is needed.
    fn excerpt(&self) -> Self {
        Self { head: self.head, pause: self.pause.clone(), counts: self.counts.clone(), ..Self::default() }
    }

    /// Takes from `base` what `event` can touch and is not here yet.
    fn widen(&mut self, base: &Self, event: &Event) {
        let Event { subject, .. } = event;
        let Some(target_id) = &subject.target_id else { return };
        if let (None, Some(target)) = (self.targets.get(target_id), base.targets.get(target_id)) {
            self.targets.insert(target_id.clone(), Arc::new(target.alone()));
        }
        let Some(task_id) = &subject.task_id else { return };
        if let (None, Some(task)) = (self.task(target_id, task_id), base.shared_task(target_id, task_id)) {
            task.attempts.iter().for_each(|id| self.widen_by_attempt(base, id));
            self.add_task(Arc::clone(task));
        }
        // An attempt that belongs to another task than the event says must be found, to be refused.
        if let Some(id) = &subject.attempt_id {
            self.widen_by_attempt(base, id);
        }
    }

    fn widen_by_attempt(&mut self, base: &Self, id: &AttemptId) {
        if let (None, Some(attempt)) = (self.attempt(id), base.shared_attempt(id)) {
            self.add_attempt(Arc::clone(attempt));
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
        events.iter().for_each(|event| self.excerpt.apply(event));
        Ok(())
    }

    /// An attempt as it would be.
    pub fn attempt(&self, id: &AttemptId) -> Option<&Attempt> {
        self.excerpt.attempt(id).or_else(|| self.base.attempt(id))
    }
}
