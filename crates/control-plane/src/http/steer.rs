//! What the operator does to attempts and to the scheduler.

use std::sync::Arc;

use api::types::{ReasonRequest, Steered};
use axum::routing::post;
use axum::{Json as Answer, Router};
use model::{AttemptId, Event, Graph};

use super::failure::Failure;
use super::payload::{Id, Json};
use super::{App, Shared};
use crate::steering::{self, Denied};

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/attempts/{attempt_id}/cancel", post(cancel))
        .route("/v1/attempts/{attempt_id}/invalidate", post(invalidate))
        .route("/v1/pause", post(pause))
        .route("/v1/resume", post(resume))
}

async fn cancel(
    app: Shared,
    Id(id): Id<AttemptId>,
    Json(request): Json<ReasonRequest>,
) -> Result<Answer<Steered>, Failure> {
    let (attempt, stamp) = (id.clone(), app.stamp());
    steer(&app, "cancelled", Some(id), move |graph| steering::cancel(graph, &attempt, &request, stamp)).await
}

async fn invalidate(
    app: Shared,
    Id(id): Id<AttemptId>,
    Json(request): Json<ReasonRequest>,
) -> Result<Answer<Steered>, Failure> {
    let (attempt, stamp) = (id.clone(), app.stamp());
    let decide = move |graph: &Graph| steering::invalidate(graph, &attempt, &request, stamp);
    steer(&app, "invalidated", Some(id), decide).await
}

async fn pause(app: Shared, Json(request): Json<ReasonRequest>) -> Result<Answer<Steered>, Failure> {
    let stamp = app.stamp();
    steer(&app, "paused", None, move |graph| steering::pause(graph, &request, stamp)).await
}

async fn resume(app: Shared, Json(request): Json<ReasonRequest>) -> Result<Answer<Steered>, Failure> {
    let stamp = app.stamp();
    steer(&app, "resumed", None, move |graph| steering::resume(graph, &request, stamp)).await
}

async fn steer(
    app: &App,
    status: &str,
    attempt_id: Option<AttemptId>,
    decide: impl FnOnce(&Graph) -> Result<Vec<Event>, Denied> + Send + 'static,
) -> Result<Answer<Steered>, Failure> {
    let recorded = app.ledger.decide(decide).await?;
    Ok(Answer(Steered { status: status.to_owned(), attempt_id, changed: recorded.fresh > 0 }))
}
