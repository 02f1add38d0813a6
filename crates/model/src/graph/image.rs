//! A graph as parts that can be kept and read back: for whoever wants to go on from it without every event.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Attempt, Counts, Graph, Pause, Rejection, Target, Task, Unregistration};
use crate::TargetId;
use crate::event::{TargetRegistered, Timestamp};
use crate::sharing::List;

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
#[error("the parts are not in the order of a graph, or one is there twice")]
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
        for task in tasks.iter() {
            if graph.task(&task.target_id, &task.id).is_some() {
                return Err(ImageError);
            }
            let place = graph.add_task(Arc::clone(task));
            if let Some(target) = targets.get_mut(&task.target_id) {
                target.tasks.push(place);
            }
        }
        for attempt in attempts.iter() {
            if graph.attempt(&attempt.id).is_some() {
                return Err(ImageError);
            }
            graph.add_attempt(Arc::clone(attempt));
            if let Some(target) = targets.get_mut(&attempt.target_id) {
                target.know(attempt);
            }
        }
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
