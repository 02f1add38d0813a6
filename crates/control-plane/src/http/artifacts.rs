//! Files of attempts by the SHA-256 of their content.

use std::sync::Arc;

use api::ErrorCode;
use api::types::ArtifactReceipt;
use axum::extract::{FromRequest, Request};
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use model::event::{ArtifactStored, EventKind};
use model::{AttemptId, Digest};

use super::caller::Caller;
use super::failure::Failure;
use super::payload::{Id, Payload};
use super::{App, Shared, blocking};
use crate::ledger::Fence;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/artifacts/{sha256}", get(read).put(store))
}

async fn store(
    app: Shared,
    caller: Caller,
    Id(name): Id<Digest>,
    request: Request,
) -> Result<Json<ArtifactReceipt>, Failure> {
    if let Caller::Executor { attempt, epoch } = caller {
        Fence { attempt, epoch }.check(app.ledger.history().graph())?;
    }
    // Waiting here costs a connection; a file that is being received costs its size in memory.
    let _turn = app.uploads.acquire().await.map_err(|closed| Failure::internal(closed.to_string()))?;
    let Payload(bytes) = Payload::from_request(request, &app).await?;
    let receipt = ArtifactReceipt { sha256: name.clone(), size: bytes.len() as u64 };
    app.artifacts.put(&name, bytes).await?;
    Ok(Json(receipt))
}

/// What the log says was stored of an attempt, oldest first.
pub(super) async fn of_attempt(app: &App, id: &AttemptId) -> Result<Vec<ArtifactStored>, Failure> {
    let seqs: Vec<u64> = {
        let history = app.ledger.history();
        let attempt = history.graph().attempt(id);
        attempt.into_iter().flat_map(|attempt| attempt.events.iter().map(|seq| seq.0)).collect()
    };
    let ledger = app.ledger.clone();
    let events = blocking(move || ledger.events(&seqs, usize::MAX)).await?;
    let stored = events.into_iter().filter_map(|recorded| {
        let EventKind::ArtifactStored(artifact) = recorded.event.kind else { return None };
        Some(artifact)
    });
    Ok(stored.collect())
}

/// An executor reads back what its own attempt stored, and nothing else.
async fn require_its_own(app: &App, fence: Fence, name: &Digest) -> Result<(), Failure> {
    fence.check(app.ledger.history().graph())?;
    let stored = of_attempt(app, &fence.attempt).await?;
    if stored.iter().any(|stored| stored.sha256 == *name) {
        return Ok(());
    }
    let told = format!("the token of {} may not read what its attempt did not store", fence.attempt);
    Err(Failure::new(ErrorCode::Forbidden, told))
}

async fn read(app: Shared, caller: Caller, Id(name): Id<Digest>) -> Result<impl IntoResponse, Failure> {
    if let Caller::Executor { attempt, epoch } = caller {
        require_its_own(&app, Fence { attempt, epoch }, &name).await?;
    }
    let bytes = app.artifacts.get(&name).await?;
    // What an attempt stored is never to be run or shown by a browser as a page of ours.
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, bytes))
}
