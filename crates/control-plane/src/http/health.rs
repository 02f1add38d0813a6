//! Whether the process lives, whether it can write, and what it understands.

use api::ErrorCode;
use api::types::{Health, Readiness};
use axum::routing::get;
use axum::{Json, Router};
use std::sync::Arc;

use super::failure::Failure;
use super::{App, Shared};

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/openapi.json", get(async || Json(api::openapi())))
}

async fn healthz() -> Json<Health> {
    Json(Health {
        status: "ok".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        time: Some(super::now()),
    })
}

async fn readyz(app: Shared) -> Result<Json<Readiness>, Failure> {
    if let Some(reason) = app.ledger.stopped().borrow().as_ref() {
        let failure = Failure::new(ErrorCode::Unavailable, "read_only: the journal takes no writes any more");
        return Err(Failure { internal: Some(reason.clone()), ..failure });
    }
    if let Some(reason) = app.ledger.unreachable() {
        let failure =
            Failure::new(ErrorCode::Unavailable, "the journal cannot be reached; reads from memory go on");
        return Err(Failure { internal: Some(reason), ..failure });
    }
    let head = app.ledger.history().graph().head();
    Ok(Json(Readiness {
        status: "ready".to_owned(),
        backend: app.backend.to_owned(),
        head,
        verified_to: app.verified.to(head),
        artifacts: match app.artifacts.problem().await {
            None => "ready".to_owned(),
            Some(_) => "unreachable".to_owned(),
        },
    }))
}
