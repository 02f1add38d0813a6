//! Passes that somebody asks of the schedulers. Nothing of it is an event: what a pass does is in the log.

use std::sync::Arc;
use std::time::Duration;

use api::types::{PassReport, PassRequested, Passes, PassesQuery};
use axum::routing::get;
use axum::{Json as Answer, Router};

use super::failure::Failure;
use super::payload::{Filters, Json};
use super::{App, Shared};

/// The longest wait for an answer.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/scheduler/passes", get(look).post(request).put(report))
}

async fn request(app: Shared) -> Result<Answer<PassRequested>, Failure> {
    Ok(Answer(PassRequested { number: app.presence.request_pass().await? }))
}

/// Answers as soon as what is asked for is so. A question that asks for nothing is answered at once.
async fn look(app: Shared, Filters(query): Filters<PassesQuery>) -> Result<Answer<Passes>, Failure> {
    let wait = Duration::from_millis(query.wait_ms.unwrap_or(0)).min(LONGEST_WAIT);
    let mut passes = app.presence.passes();
    let is_answer = |passes: &Passes| {
        let is_other = query.requested_after.is_none_or(|known| passes.requested != known);
        is_other && query.done_from.is_none_or(|number| passes.done >= number)
    };
    // Late or not: what is so then is the answer.
    let _ = tokio::time::timeout(wait, passes.wait_for(is_answer)).await;
    let now = passes.borrow().clone();
    Ok(Answer(now))
}

async fn report(app: Shared, Json(report): Json<PassReport>) -> Result<(), Failure> {
    Ok(app.presence.made_pass(report).await?)
}
