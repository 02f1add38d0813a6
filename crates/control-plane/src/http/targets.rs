//! Which repositories are operated, and what a scheduler last saw of them.

use std::sync::Arc;

use api::ErrorCode;
use api::types::{
    ReasonRequest, RegisterTarget, RejectTarget, Steered, TargetList, TargetObservation,
    TargetRegisteredResponse, TargetView,
};
use axum::routing::{get, post, put};
use axum::{Json as Answer, Router};
use model::graph::{Refusal, Target};
use model::{Backlog, Contract, Policy, Problems, TargetId};

use super::failure::Failure;
use super::payload::{Id, Json};
use super::{App, Shared};
use crate::steering;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/targets", get(list).post(register))
        .route("/v1/targets/rejected", post(reject))
        .route("/v1/targets/{target_id}/unregister", post(unregister))
        .route("/v1/targets/{target_id}/observation", put(observe))
}

async fn list(app: Shared) -> Answer<TargetList> {
    let history = app.ledger.history();
    let targets = history.graph().targets().map(|(id, target)| view(&app, id, target)).collect();
    Answer(TargetList { targets })
}

fn view(app: &App, id: &TargetId, target: &Target) -> TargetView {
    let registered = &target.registered;
    TargetView {
        target_id: id.clone(),
        name: registered.name.clone(),
        repo_url: registered.repo_url.clone(),
        default_branch: registered.default_branch.clone(),
        registered_at: target.registered_at,
        contract: registered.contract.clone(),
        operator_policy: registered.operator_policy.clone(),
        backlog: registered.backlog.clone(),
        executor_image: registered.executor_image.clone(),
        source: registered.source.clone(),
        unregistered: target.unregistered.clone(),
        pause: target.pause.clone(),
        live_attempts: target.live.len() as u64,
        open_pull_requests: target.in_review.len() as u64,
        observation: app.presence.observation(id),
    }
}

async fn register(
    app: Shared,
    Json(request): Json<RegisterTarget>,
) -> Result<Answer<TargetRegisteredResponse>, Failure> {
    let contract = read_documents(&request)?;
    let (target_id, stamp) = (contract.target_id.clone(), app.stamp());
    let decide = move |graph: &model::Graph| Ok(steering::register(graph, &contract, &request, stamp));
    let recorded = app.ledger.decide(decide).await?;
    Ok(Answer(TargetRegisteredResponse { target_id, changed: recorded.fresh > 0 }))
}

async fn unregister(
    app: Shared,
    Id(id): Id<TargetId>,
    Json(request): Json<ReasonRequest>,
) -> Result<Answer<Steered>, Failure> {
    let stamp = app.stamp();
    let recorded = app.ledger.decide(move |graph| steering::unregister(graph, &id, &request, stamp)).await?;
    Ok(Answer(steered("unregistered", recorded.fresh > 0)))
}

async fn reject(app: Shared, Json(request): Json<RejectTarget>) -> Result<Answer<Steered>, Failure> {
    let stamp = app.stamp();
    let recorded = app.ledger.decide(move |graph| Ok(steering::reject(graph, &request, stamp))).await?;
    Ok(Answer(steered("rejected", recorded.fresh > 0)))
}

fn steered(status: &str, changed: bool) -> Steered {
    Steered { status: status.to_owned(), attempt_id: None, changed }
}

async fn observe(
    app: Shared,
    Id(id): Id<TargetId>,
    Json(observation): Json<TargetObservation>,
) -> Result<(), Failure> {
    if app.ledger.history().graph().target(&id).is_none() {
        return Err(Refusal::UnknownTarget(id).into());
    }
    app.presence.observed(id, observation);
    Ok(())
}

/// Reads the contract and the operator's policy; a refusal names every problem of the document.
fn read_documents(request: &RegisterTarget) -> Result<Contract, Failure> {
    let contract = Contract::parse("contract.yaml", request.contract.as_bytes()).map_err(invalid)?;
    if let Some(policy) = &request.operator_policy {
        Policy::parse_operator("policy.yaml", policy.as_bytes()).map_err(invalid)?;
    }
    if let Some(backlog) = &request.backlog {
        Backlog::parse("backlog.yaml", backlog.as_bytes()).map_err(invalid)?;
    }
    if let Some(image) = request.executor_image.as_deref().filter(|image| !is_image(image)) {
        let told = format!("{image:?} cannot be the name of an image: expected such as `python:3.12-slim`");
        return Err(Failure::new(ErrorCode::Invalid, told).with_hint("nothing was registered"));
    }
    Ok(contract)
}

fn is_image(name: &str) -> bool {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/' | ':' | '@');
    (1..=255).contains(&name.len())
        && name.chars().all(is_fit)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

fn invalid(problems: Problems) -> Failure {
    Failure::new(ErrorCode::Invalid, problems.to_string()).with_hint("nothing was registered")
}
