//! Handing attempts to executors, and keeping them while they live.

use std::sync::Arc;

use api::ErrorCode;
use api::types::{
    Assignment, ClaimRequest, DispatchRequest, Dispatched, HeartbeatRequest, HeartbeatResponse, LostRequest,
    Steered,
};
use axum::routing::{get, post};
use axum::{Json as Answer, Router};
use model::event::Event;
use model::graph::Refusal;
use model::{AttemptId, EventKind, Graph};
use secrecy::ExposeSecret;

use super::caller::Caller;
use super::failure::Failure;
use super::payload::{Id, Json};
use super::{App, Shared, artifacts};
use crate::ledger::Fence;
use crate::steering;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/attempts/claim", post(claim))
        .route("/v1/attempts/{attempt_id}/dispatch", post(dispatch))
        .route("/v1/attempts/{attempt_id}/assignment", get(assignment))
        .route("/v1/attempts/{attempt_id}/heartbeat", post(heartbeat))
        .route("/v1/attempts/{attempt_id}/lost", post(lost))
}

async fn claim(app: Shared, Json(request): Json<ClaimRequest>) -> Result<Answer<Dispatched>, Failure> {
    let stamp = app.stamp();
    let recorded = app.ledger.decide(move |graph| steering::claim(graph, &request, stamp)).await?;
    handed_out(&app, &recorded.decided)
}

async fn dispatch(
    app: Shared,
    Id(id): Id<AttemptId>,
    Json(request): Json<DispatchRequest>,
) -> Result<Answer<Dispatched>, Failure> {
    let stamp = app.stamp();
    let recorded = app.ledger.decide(move |graph| steering::dispatch(graph, &id, &request, stamp)).await?;
    handed_out(&app, &recorded.decided)
}

/// Begins the lease of the attempt that `events` hand out, and mints the token for exactly that hand-out.
fn handed_out(app: &App, events: &[Event]) -> Result<Answer<Dispatched>, Failure> {
    let claimed = events.iter().find_map(|event| {
        let EventKind::AttemptClaimed(claimed) = &event.kind else { return None };
        Some((event.subject.attempt_id.as_ref()?, claimed.epoch))
    });
    let (id, epoch) = claimed.ok_or_else(|| Failure::internal("a hand-out recorded no claim"))?;
    let history = app.ledger.history();
    app.presence.handed_out(id, history.graph());
    let created = &known(history.graph(), id)?.created;
    Ok(Answer(Dispatched {
        attempt_id: id.clone(),
        n: created.n,
        epoch,
        branch: created.branch.clone(),
        token: app.keyring.mint(id, epoch).expose_secret().to_owned(),
    }))
}

async fn assignment(
    app: Shared,
    caller: Caller,
    Id(id): Id<AttemptId>,
) -> Result<Answer<Assignment>, Failure> {
    let fence = caller.fence_for(&id)?;
    let mut artifacts = artifacts::of_attempt(&app, &id).await?;
    artifacts.retain(|artifact| matches!(artifact.kind.as_str(), "manifest" | "pack" | "words"));
    let history = app.ledger.history();
    let graph = history.graph();
    let attempt = known(graph, &id)?;
    fence.map_or(Ok(()), |fence: Fence| fence.check(graph))?;
    let target = graph
        .target(&attempt.target_id)
        .ok_or_else(|| Failure::internal(format!("attempt {id} has no target")))?;
    let created = &attempt.created;
    Ok(Answer(Assignment {
        attempt_id: id,
        n: created.n,
        epoch: attempt.epoch,
        state: attempt.state,
        target_id: attempt.target_id.clone(),
        contract: target.registered.contract.clone(),
        operator_policy: target.registered.operator_policy.clone(),
        backlog: target.registered.backlog.clone(),
        executor_image: target.registered.executor_image.clone(),
        task_id: attempt.task_id.clone(),
        task_revision: created.task_revision.clone(),
        base_commit: created.base_commit.clone(),
        branch: created.branch.clone(),
        policy_digest: created.policy_digest.clone(),
        agent: created.agent.clone(),
        model: created.model.clone(),
        created_at: attempt.created_at,
        timeout_seconds: created.timeout_seconds,
        candidate: attempt.candidate.as_ref().map(|change| change.candidate.clone()),
        artifacts,
    }))
}

async fn heartbeat(
    app: Shared,
    caller: Caller,
    Id(id): Id<AttemptId>,
    Json(request): Json<HeartbeatRequest>,
) -> Result<Answer<HeartbeatResponse>, Failure> {
    let Some(fence) = caller.fence_for(&id)? else {
        return Err(Failure::new(ErrorCode::Forbidden, "only the executor of an attempt keeps its lease"));
    };
    let history = app.ledger.history();
    fence.check(history.graph())?;
    let activity: String = request.activity.chars().take(200).collect();
    tracing::debug!(attempt.id = %id, attempt.activity = ?activity, "An executor is alive.");
    let lease = app.presence.heartbeat(&id, activity);
    Ok(Answer(HeartbeatResponse {
        lease_ms: u64::try_from(lease.as_millis()).unwrap_or(u64::MAX),
        paused: is_paused(history.graph(), &id),
    }))
}

async fn lost(
    app: Shared,
    Id(id): Id<AttemptId>,
    Json(request): Json<LostRequest>,
) -> Result<Answer<Steered>, Failure> {
    let stamp = app.stamp();
    let (deciding, attempt) = (Arc::clone(&app), id.clone());
    // The lease is read when the decision is made, not when the request arrives.
    let decide = move |graph: &Graph| {
        steering::lost(graph, &attempt, &request, deciding.presence.lease_for_a_verdict(&attempt), stamp)
    };
    let recorded = app.ledger.decide(decide).await?;
    Ok(Answer(Steered { status: "lost".to_owned(), attempt_id: Some(id), changed: recorded.fresh > 0 }))
}

fn is_paused(graph: &Graph, id: &AttemptId) -> bool {
    graph.attempt(id).is_some_and(|attempt| graph.is_paused(&attempt.target_id))
}

fn known<'a>(graph: &'a Graph, id: &AttemptId) -> Result<&'a model::graph::Attempt, Failure> {
    graph.attempt(id).ok_or_else(|| Refusal::UnknownAttempt(id.clone()).into())
}
