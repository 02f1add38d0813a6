//! An attempt as the API shows it.

use std::time::Duration;

use api::types::AttemptView;
use model::Graph;
use model::graph::Attempt;

/// What a reader sees of `attempt`; `remaining` is what is left of its lease, `activity` what its executor said.
pub(super) fn attempt(
    graph: &Graph,
    attempt: &Attempt,
    remaining: Duration,
    activity: Option<String>,
) -> AttemptView {
    let task = graph.task(&attempt.target_id, &attempt.task_id);
    // An executor is expected of an attempt that was handed out, unless it waits for the forge.
    let is_expected =
        !attempt.state.is_terminal() && attempt.epoch.0 > 0 && attempt.publish_not_before.is_none();
    AttemptView {
        attempt_id: attempt.id.clone(),
        task_id: attempt.task_id.clone(),
        title: task.map(|task| task.facts.title.clone()).unwrap_or_default(),
        target: attempt.target_id.clone(),
        n: attempt.created.n,
        status: attempt.status().to_owned(),
        state: attempt.state,
        epoch: attempt.epoch,
        launcher: attempt.launcher.clone(),
        agent: attempt.created.agent.clone(),
        timestamp: attempt.created_at,
        started_at: attempt.started_at,
        ended_at: attempt.ended_at,
        lease_remaining_ms: is_expected.then(|| u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX)),
        activity: activity.filter(|text| is_expected && !text.is_empty()),
        publish_not_before: attempt.publish_not_before,
        base_commit: attempt.created.base_commit.clone(),
        branch: attempt.created.branch.clone(),
        candidate: attempt.candidate.as_ref().map(|change| change.candidate.clone()),
        is_pushed: attempt.is_pushed,
        failure: attempt.failure.clone(),
        pull_request: attempt.pull_request.clone(),
        pr_url: attempt.pull_request.as_ref().map(|pr| pr.url.clone()),
        pr_number: attempt.pull_request.as_ref().map(|pr| pr.number),
        invalidated: attempt.invalidated.clone(),
        usage: attempt.usage.clone(),
    }
}
