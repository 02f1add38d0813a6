//! A graph as parts that can be kept and read back: for whoever wants to go on from it without every event.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Attempt, Counts, Graph, Pause, Rejection, Target, Task};
use crate::{AttemptId, TargetId, TaskId};

/// All of a graph. The same graph has the same parts, in the same order.
#[derive(Debug, Clone)]
pub struct GraphParts {
    /// What there is one or few of.
    pub outline: Outline,
    /// Every task, by target and name.
    pub tasks: Vec<(TargetId, TaskId, Arc<Task>)>,
    /// Every attempt, by id.
    pub attempts: Vec<Arc<Attempt>>,
}

/// What a graph has beside its tasks and attempts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outline {
    head: u64,
    pause: Option<Pause>,
    targets: Vec<(TargetId, Target)>,
    claimed: Vec<AttemptId>,
    rejections: Vec<(String, Rejection)>,
    counts: Counts,
}

/// Parts that are no graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the parts are not in the order of a graph, or one is there twice")]
pub struct ImageError;

impl Graph {
    /// The parts of the graph. Tasks and attempts are shared with it, not copied.
    pub fn to_parts(&self) -> GraphParts {
        let Self { head, pause, targets, tasks, attempts, claimed, rejections, counts } = self;
        let outline = Outline {
            head: *head,
            pause: pause.clone(),
            targets: targets.iter().map(|(id, target)| (id.clone(), target.clone())).collect(),
            claimed: claimed.clone(),
            rejections: rejections.iter().map(|(source, why)| (source.clone(), why.clone())).collect(),
            counts: counts.clone(),
        };
        let task = |((target, id), task): (&(TargetId, TaskId), &Arc<Task>)| {
            (target.clone(), id.clone(), Arc::clone(task))
        };
        let (tasks, attempts) = (tasks.iter().map(task).collect(), attempts.values().cloned().collect());
        GraphParts { outline, tasks, attempts }
    }

    /// The graph that has these parts.
    pub fn from_parts(parts: GraphParts) -> Result<Self, ImageError> {
        let GraphParts { outline, tasks, attempts } = parts;
        let Outline { head, pause, targets, claimed, rejections, counts } = outline;
        let tasks = tasks.into_iter().map(|(target, id, task)| ((target, id), task));
        let attempts = attempts.into_iter().map(|attempt| (attempt.id.clone(), attempt));
        Ok(Self {
            head,
            pause,
            targets: in_order(targets)?,
            tasks: in_order(tasks.collect())?,
            attempts: in_order(attempts.collect())?,
            claimed,
            rejections: in_order(rejections)?,
            counts,
        })
    }
}

fn in_order<K: Ord, V>(entries: Vec<(K, V)>) -> Result<BTreeMap<K, V>, ImageError> {
    if entries.is_sorted_by(|(one, _), (next, _)| one < next) {
        Ok(entries.into_iter().collect())
    } else {
        Err(ImageError)
    }
}
