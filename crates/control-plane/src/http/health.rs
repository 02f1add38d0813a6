//! Whether the process lives, whether it can write, and what it understands.

use api::ErrorCode;
use api::types::{Health, Readiness};
use axum::routing::get;
use axum::{Json, Router};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::failure::Failure;
use super::{App, Shared};
use crate::checkpoints::Lag;

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
    let late = app.checkpoints.as_ref().map(|it| late(it.lag(Instant::now()), app.unsigned_for));
    Ok(Json(Readiness {
        status: "ready".to_owned(),
        backend: app.backend.to_owned(),
        head,
        verified_to: app.verified.to(head),
        artifacts: match app.artifacts.problem().await {
            None => "ready".to_owned(),
            Some(_) => "unreachable".to_owned(),
        },
        checkpoints: match late {
            None => "none".to_owned(),
            Some(None) => "signed".to_owned(),
            Some(Some(_)) => "late".to_owned(),
        },
        checkpoints_late: late.flatten(),
    }))
}

/// Why checkpoints are late, if events wait for one longer than they should. The log is recorded all the same, so
/// this takes nobody out of service; it must be seen by somebody.
fn late(lag: Lag, unsigned_for: Duration) -> Option<String> {
    let Lag { events, age, obstacle } = lag;
    (events > 0 && age >= unsigned_for).then(|| {
        let obstacle = obstacle.unwrap_or("signing has not come to an end");
        format!(
            "{obstacle}: {events} events are recorded and not signed, the oldest for up to {} s; the log of the control plane says more",
            age.as_secs()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_waits_for_too_long_is_late() {
        let told = |events, age, obstacle| {
            late(Lag { events, age: Duration::from_secs(age), obstacle }, Duration::from_secs(30))
        };
        assert_eq!(told(0, 99, None), None);
        assert_eq!(told(5, 29, Some("the disk is full")), None);
        assert_eq!(
            told(5, 30, Some("the disk is full")).as_deref(),
            Some(
                "the disk is full: 5 events are recorded and not signed, the oldest for up to 30 s; the log of the control plane says more"
            )
        );
        // A thread that hangs or has died meets nothing, and is late all the same.
        assert!(told(1, 31, None).is_some_and(|reason| reason.starts_with("signing has not come to an end")));
    }
}
