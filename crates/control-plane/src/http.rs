//! The routes of the API, one file for each group of them.
//!
//! A handler reads its request, asks the ledger, and shapes the answer. What may be recorded is decided in the
//! ledger, and no handler touches a file on an async thread.

mod artifacts;
mod attempts;
mod caller;
mod claims;
mod events;
mod failure;
mod graph;
mod guard;
mod health;
mod log;
mod metrics;
mod passes;
mod payload;
mod steer;
mod stream;
mod targets;
mod tasks;
mod trace;
mod view;

use std::sync::Arc;
use std::time::Duration;

use api::token::Keyring;
use axum::Router;
use axum::middleware;
use model::event::Timestamp;
use tokio::sync::{Semaphore, watch};

use self::failure::Failure;
pub(crate) use self::metrics::Requests;
use crate::artifacts::Artifacts;
use crate::checkpoints::Checkpoints;
use crate::ledger::Ledger;
use crate::presence::Presence;
use crate::steering::Stamp;
use crate::verification::Verified;
use crate::witness::Witness;

/// What every handler works with.
pub(crate) struct App {
    pub(crate) ledger: Ledger,
    /// None of a log in memory.
    pub(crate) checkpoints: Option<Checkpoints>,
    /// For how long an event may wait for its checkpoint before readers are told.
    pub(crate) unsigned_for: Duration,
    /// Who cosigns checkpoints; often nobody.
    pub(crate) witness: Option<Witness>,
    pub(crate) artifacts: Artifacts,
    pub(crate) keyring: Keyring,
    pub(crate) presence: Arc<Presence>,
    /// How many artifacts are received at once.
    pub(crate) uploads: Semaphore,
    pub(crate) backend: &'static str,
    /// What was asked so far, for whoever watches.
    pub(crate) requests: Requests,
    /// How far the log is verified.
    pub(crate) verified: Arc<Verified>,
    /// Whether the process stops: who stays connected for long ends then.
    pub(crate) stopping: watch::Sender<bool>,
}

type Shared = axum::extract::State<Arc<App>>;

/// Every route of the API, behind the guard.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .merge(health::routes())
        .merge(metrics::routes())
        .merge(events::routes())
        .merge(stream::routes())
        .merge(log::routes())
        .merge(graph::routes())
        .merge(attempts::routes())
        .merge(claims::routes())
        .merge(steer::routes())
        .merge(targets::routes())
        .merge(tasks::routes())
        .merge(passes::routes())
        .merge(artifacts::routes())
        .method_not_allowed_fallback(failure::method_not_allowed)
        .route_layer(middleware::from_fn_with_state(Arc::clone(&app), guard::admit))
        .fallback(failure::no_such_route)
        .layer(middleware::from_fn(guard::answer))
        .with_state(app)
}

impl App {
    /// The time and randomness for one decision.
    fn stamp(&self) -> Stamp {
        Stamp { now: now(), nonce: uuid::Uuid::new_v4().as_u128() }
    }
}

/// The wall clock, read here because this is the rim: everything below takes the time as an argument.
fn now() -> Timestamp {
    Timestamp::new(jiff::Timestamp::now())
}

/// Runs something that reads or writes files where it may block.
async fn blocking<T: Send + 'static, E: Into<Failure> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(Into::into),
        Err(problem) => Err(Failure::internal(problem.to_string())),
    }
}
