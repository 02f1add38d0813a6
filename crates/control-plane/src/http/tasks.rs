//! Every task, and why it does not run now.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::types::{TargetObservation, TaskList, TaskView, TasksQuery};
use axum::routing::get;
use axum::{Json, Router};
use model::event::{Timestamp, WriteBackOutcome};
use model::graph::{Refusal, Task};
use model::select::{self, Standing, WaitReason};
use model::{CommitId, Graph, Priority, TargetId, TaskId};

use super::failure::Failure;
use super::payload::Filters;
use super::{App, Shared, now};

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/tasks", get(list))
}

async fn list(app: Shared, Filters(query): Filters<TasksQuery>) -> Result<Json<TaskList>, Failure> {
    let history = app.ledger.history();
    let graph = history.graph();
    if let Some(target) = query.target.as_ref().filter(|target| graph.target(target).is_none()) {
        return Err(Refusal::UnknownTarget(target.clone()).into());
    }
    let mut tasks = Vec::new();
    for (target, _) in
        graph.targets().filter(|(id, _)| query.target.as_ref().is_none_or(|wanted| wanted == *id))
    {
        tasks.extend(tasks_of(graph, target, app.presence.observation(target).as_ref(), now()));
    }
    Ok(Json(TaskList { tasks }))
}

/// The backlog of one target in its order.
pub(super) fn tasks_of(
    graph: &Graph,
    target: &TargetId,
    seen: Option<&TargetObservation>,
    now: Timestamp,
) -> Vec<TaskView> {
    let waiting_for = |limits, base: &CommitId| select::select(graph, target, limits, base, now).waiting;
    let waiting = seen.and_then(|seen| Some(waiting_for(seen.limits?, seen.base_commit.as_ref()?)));
    let waiting: Option<BTreeMap<TaskId, WaitReason>> = waiting.map(|waiting| waiting.into_iter().collect());
    let view = |(id, task): (&TaskId, &Task)| {
        let base = seen.and_then(|seen| seen.base_commit.as_ref()).unwrap_or(&task.facts.commit);
        let reason = match (&waiting, seen) {
            (_, Some(seen)) if !seen.problems.is_empty() => {
                Some(WaitReason::ConfigInvalid { why: first_of(&seen.problems) })
            }
            (Some(waiting), _) => waiting.get(id).cloned(),
            (None, _) => match select::standing(graph, target, task, base, now) {
                Standing::Ready => None,
                Standing::Waits(reason) => Some(reason),
            },
        };
        let state = select::task_state(graph, target, task, base, now);
        task_view(graph, target, id, task, state, reason)
    };
    graph.backlog(target).into_iter().map(view).collect()
}

/// The first problem stands for all of them: each task of the target waits for the same ones, and the target
/// itself names each.
fn first_of(problems: &[String]) -> String {
    match problems {
        [] => String::new(),
        [only] => only.clone(),
        [first, more @ ..] => {
            format!("{first} (and {} more: `leviathanctl targets-list` names each)", more.len())
        }
    }
}

fn task_view(
    graph: &Graph,
    target: &TargetId,
    id: &TaskId,
    task: &Task,
    state: &str,
    reason: Option<WaitReason>,
) -> TaskView {
    let last = graph.attempts_at(task).next_back();
    TaskView {
        target: target.clone(),
        task_id: id.clone(),
        title: task.facts.title.clone(),
        priority: priority_word(task.facts.priority).to_owned(),
        scope: task.facts.scope.clone(),
        state: state.to_owned(),
        reason: reason.as_ref().map(|reason| reason.code().to_owned()),
        detail: reason.map(|reason| reason.to_string()),
        attempts: task.attempts.len() as u64,
        last_attempt: last.map(|attempt| attempt.id.clone()),
        pr_url: last.and_then(|attempt| attempt.pull_request.as_ref()).map(|pr| pr.url.clone()),
        write_back: task
            .write_back
            .as_ref()
            .map(|updated| format!("{}: {}", write_back_word(updated.outcome), updated.detail)),
    }
}

fn priority_word(priority: Priority) -> &'static str {
    match priority {
        Priority::High => "high",
        Priority::Medium => "medium",
        Priority::Low => "low",
    }
}

fn write_back_word(outcome: WriteBackOutcome) -> &'static str {
    match outcome {
        WriteBackOutcome::Committed => "committed",
        WriteBackOutcome::AlreadyDone => "already done",
        WriteBackOutcome::PullRequest => "pull request",
        WriteBackOutcome::Skipped => "skipped",
    }
}
