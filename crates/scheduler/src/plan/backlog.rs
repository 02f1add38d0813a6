//! What a backlog says now, against what the log last heard of it.

use model::event::{Event, EventKind, Subject, TaskBlocked, TaskCompleted, TaskFacts, TaskRemoved};
use model::graph;
use model::{Seq, Status, TargetId, TargetSpec, Task, TaskId};

use super::World;

/// How many events go into one bundle; the control plane takes a bundle of 4 MiB.
const BUNDLE: usize = 500;

/// The events by which the log learns what humans did to the backlog, in file order.
pub(super) fn bundles(world: &World<'_>, target: &TargetId, spec: &TargetSpec) -> Vec<Vec<Event>> {
    let mut events: Vec<Event> = Vec::new();
    for (task, position) in spec.backlog.tasks.iter().zip(0..) {
        events.extend(events_of(world, target, task, facts(spec, task, position)));
    }
    events.extend(removals(world, target, spec));
    events.chunks(BUNDLE).map(<[Event]>::to_vec).collect()
}

fn facts(spec: &TargetSpec, task: &Task, position: u32) -> TaskFacts {
    TaskFacts {
        revision: task.revision(),
        commit: spec.commit.clone(),
        title: task.title.clone(),
        scope: task.scope.clone(),
        priority: task.priority,
        position,
        status: task.status,
        blocked_reason: task.blocked_reason.clone(),
        depends_on: task.depends_on.clone(),
        allowed_paths: task.allowed_paths.iter().map(|rule| rule.pattern.as_str().to_owned()).collect(),
        max_attempts: spec.limits_for(task).max_attempts,
        agent: task.agent.as_ref().map(ToString::to_string),
    }
}

/// Nothing when the log knows the task as it is.
fn events_of(world: &World<'_>, target: &TargetId, task: &Task, facts: TaskFacts) -> Vec<Event> {
    let known = world.history.graph().task(target, &task.task_id);
    let last_event = known.map_or(Seq(0), |known| known.last_event());
    let subject = Subject::task(target, &task.task_id);
    let in_backlog = known.filter(|known| !known.is_removed);
    if in_backlog.is_some_and(|known| is_same(&known.facts, &facts)) {
        return Vec::new();
    }
    let stands_for = status_event(world, in_backlog, &facts);
    let kind = match in_backlog {
        None => EventKind::TaskCreated(facts),
        Some(_) => EventKind::TaskUpdated(facts),
    };
    std::iter::once(kind)
        .chain(stands_for)
        .map(|kind| world.event(subject.clone(), last_event.0, "", kind))
        .collect()
}

/// The commit at which the backlog was read says nothing about the task.
fn is_same(known: &TaskFacts, seen: &TaskFacts) -> bool {
    TaskFacts { commit: seen.commit.clone(), ..known.clone() } == *seen
}

/// What a human's new word about the status means.
fn status_event(world: &World<'_>, known: Option<&graph::Task>, seen: &TaskFacts) -> Option<EventKind> {
    let before = known.map_or(Status::Pending, |known| known.facts.status);
    match seen.status {
        Status::Blocked if before != Status::Blocked => {
            Some(EventKind::TaskBlocked(TaskBlocked { reason: seen.blocked_reason.clone() }))
        }
        // The completion of merged work was recorded with the merge; the file only repeats it.
        Status::Completed if before != Status::Completed && !is_merged(world, known) => {
            Some(EventKind::TaskCompleted(TaskCompleted { attempt_id: None }))
        }
        Status::Pending | Status::Blocked | Status::Completed => None,
    }
}

fn is_merged(world: &World<'_>, known: Option<&graph::Task>) -> bool {
    known.is_some_and(|task| world.history.graph().attempts_at(task).any(graph::Attempt::is_merged))
}

fn removals(world: &World<'_>, target: &TargetId, spec: &TargetSpec) -> Vec<Event> {
    let graph = world.history.graph();
    let is_missing = |id: &TaskId| !spec.backlog.tasks.iter().any(|task| task.task_id == *id);
    let removed = graph.backlog(target).into_iter().filter(|(id, _)| is_missing(id));
    removed
        .map(|(id, task)| {
            let kind = EventKind::TaskRemoved(TaskRemoved { commit: spec.commit.clone() });
            world.event(Subject::task(target, id), task.last_event().0, "", kind)
        })
        .collect()
}
