//! How much of everything there is.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::types::GraphSummary;
use axum::routing::get;
use axum::{Json, Router};

use super::{App, Shared};

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/v1/graph/summary", get(summary))
}

async fn summary(app: Shared) -> Json<GraphSummary> {
    let history = app.ledger.history();
    let graph = history.graph();
    let counts = graph.counts();
    let named = |rows: &[(&str, u64)]| -> BTreeMap<String, u64> {
        rows.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    };
    Json(GraphSummary {
        nodes_by_type: named(&[
            ("Target", counts.targets),
            ("Task", counts.tasks),
            ("Attempt", counts.attempts),
            ("Artifact", counts.artifacts),
            ("PullRequest", counts.pull_requests),
        ]),
        // A task depends on its target and an attempt on its task; an attempt produces files and pull requests.
        edges_by_type: named(&[
            ("DEPENDS_ON", counts.tasks + counts.attempts),
            ("PRODUCED", counts.artifacts + counts.pull_requests),
        ]),
        attempts_by_state: counts.attempts_by_state.clone(),
        cost_micro_usd: counts.cost_micro_usd,
        pause: graph.pause().cloned(),
        head: graph.head(),
        recent_events: history.recent(),
    })
}
