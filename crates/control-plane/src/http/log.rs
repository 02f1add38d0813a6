//! The log as evidence: checkpoints, tiles, proofs, and the records in the bytes that were hashed.

use std::sync::Arc;
use std::time::Duration;

use api::ErrorCode;
use api::types::{CheckpointQuery, ConsistencyQuery, LogEntriesQuery, ProofQuery};
use axum::extract::Path;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use journal::{Line, Tile, TreeHash};

use super::failure::Failure;
use super::payload::Filters;
use super::{App, Shared, blocking};
use crate::checkpoints::Checkpoints;

/// How many entries an answer has unless more or fewer are asked for.
const ENTRIES: u32 = 1_000;
/// The most entries that an answer can have.
const MOST_ENTRIES: u32 = 5_000;
/// How long a proof waits for the checkpoint that covers its event.
const PATIENCE: Duration = Duration::from_secs(5);

const TEXT: (header::HeaderName, &str) = (header::CONTENT_TYPE, "text/plain; charset=utf-8");

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/log/checkpoint", get(checkpoint))
        .route("/v1/log/vkey", get(vkey))
        .route("/v1/log/tile/{*path}", get(tile))
        .route("/v1/log/proof", get(proof))
        .route("/v1/log/consistency", get(consistency))
        .route("/v1/log/entries", get(entries))
}

fn checkpoints(app: &App) -> Result<Checkpoints, Failure> {
    app.checkpoints.clone().ok_or_else(|| {
        let (why, hint) = match app.backend {
            "memory" => ("kept in memory", "start the control plane with LEVIATHAN_BACKEND=ndjson"),
            _ => (
                "kept without a key",
                "give every control plane of it the same LEVIATHAN_LOG_KEY; `leviathanctl log keygen` makes one",
            ),
        };
        Failure::new(ErrorCode::NotFound, format!("this log is {why} and has no checkpoints")).with_hint(hint)
    })
}

async fn checkpoint(
    app: Shared,
    Filters(query): Filters<CheckpointQuery>,
) -> Result<impl IntoResponse, Failure> {
    let newest = checkpoints(&app)?.latest();
    let note = if query.witnessed == Some(true) {
        witnessed(&app)?
    } else {
        // Readers pass over signatures of keys that they do not know, so the line of the witness disturbs nobody.
        let cosigned = app.witness.as_ref().and_then(|witness| witness.below(&newest));
        cosigned.unwrap_or_else(|| newest.note.clone())
    };
    Ok(([TEXT, (header::CACHE_CONTROL, "no-cache")], note))
}

/// The newest checkpoint that the witness cosigned.
fn witnessed(app: &App) -> Result<String, Failure> {
    let Some(witness) = &app.witness else {
        return Err(Failure::new(ErrorCode::NotFound, "no witness is shown the checkpoints of this log")
            .with_hint("start the control plane with LEVIATHAN_WITNESS_URL and LEVIATHAN_WITNESS_KEY"));
    };
    witness.newest().ok_or_else(|| {
        let told =
            format!("the witness {} has cosigned nothing since the control plane started", witness.name());
        Failure::new(ErrorCode::NotFound, told)
            .with_hint("ask again in a few seconds; the log of the control plane says what is in the way")
    })
}

async fn vkey(app: Shared) -> Result<impl IntoResponse, Failure> {
    Ok(([TEXT], format!("{}\n", checkpoints(&app)?.verifier())))
}

async fn tile(app: Shared, Path(path): Path<String>) -> Result<impl IntoResponse, Failure> {
    let tile = Tile::parse(&format!("tile/{path}"));
    let tile = tile.map_err(|problem| Failure::new(ErrorCode::Invalid, problem.to_string()))?;
    let checkpoints = checkpoints(&app)?;
    let bytes = blocking(move || checkpoints.tile(tile)).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        // It never changes, and it is for those with the token alone.
        (header::CACHE_CONTROL, "private, max-age=31536000, immutable"),
    ];
    Ok((headers, bytes))
}

async fn proof(app: Shared, Filters(query): Filters<ProofQuery>) -> Result<impl IntoResponse, Failure> {
    let checkpoints = checkpoints(&app)?;
    let seq = app.ledger.history().seq_of(&query.event_id);
    let seq = seq.ok_or_else(|| {
        Failure::new(ErrorCode::NotFound, format!("there is no event {}", query.event_id))
            .with_hint("`leviathanctl events-tail --output json` shows the ids of events")
    })?;
    if tokio::time::timeout(PATIENCE, checkpoints.covering(seq.0)).await.is_err() {
        let told = format!("event {} is record {seq}, and no checkpoint covers it yet", query.event_id);
        return Err(Failure::new(ErrorCode::Busy, told).with_hint("try again in a second"));
    }
    let proof = blocking(move || checkpoints.inclusion(seq.0)).await?;
    Ok(([TEXT], proof.to_string()))
}

async fn consistency(
    app: Shared,
    Filters(query): Filters<ConsistencyQuery>,
) -> Result<Json<Vec<String>>, Failure> {
    let checkpoints = checkpoints(&app)?;
    let hashes = blocking(move || checkpoints.consistency(query.old, query.new)).await?;
    Ok(Json(hashes.iter().map(TreeHash::to_string).collect()))
}

async fn entries(
    app: Shared,
    Filters(query): Filters<LogEntriesQuery>,
) -> Result<impl IntoResponse, Failure> {
    let limit = query.limit.unwrap_or(ENTRIES).clamp(1, MOST_ENTRIES) as usize;
    let ledger = app.ledger.clone();
    let records = blocking(move || ledger.records(query.from.unwrap_or(1), limit)).await?;
    // A record has one spelling: these are the bytes of the journal.
    let lines: Vec<u8> = records.into_iter().flat_map(|record| Line::Record(record).encode()).collect();
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], lines))
}
