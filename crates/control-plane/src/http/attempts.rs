//! What attempts did, and how they failed.

use std::sync::Arc;

use api::ErrorCode;
use api::types::{
    AttemptDetail, AttemptList, AttemptView, AttemptsQuery, CheckView, FailureList, FailureView,
    RecordedEvent,
};
use axum::routing::get;
use axum::{Json, Router};
use model::graph::{Attempt, Refusal};
use model::{AttemptId, EventKind};

use super::failure::Failure;
use super::payload::{Filters, Id};
use super::{App, Shared, blocking, view};

/// How many are listed unless more or fewer are asked for.
const PAGE: u32 = 10;
/// The most that are listed.
const LARGEST_PAGE: u32 = 1_000;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/attempts", get(list))
        .route("/v1/attempts/{attempt_id}", get(detail))
        .route("/v1/failures", get(failures))
}

async fn list(app: Shared, Filters(query): Filters<AttemptsQuery>) -> Result<Json<AttemptList>, Failure> {
    check_status(&query)?;
    let history = app.ledger.history();
    let graph = history.graph();
    let mut total = 0;
    let mut attempts: Vec<AttemptView> = Vec::new();
    for attempt in graph.attempts().rev().filter(|attempt| fits(attempt, &query)) {
        total += 1;
        if attempts.len() < limit(&query) {
            attempts.push(view::attempt(
                graph,
                attempt,
                app.presence.lease_remaining(&attempt.id),
                app.presence.activity(&attempt.id),
            ));
        }
    }
    Ok(Json(AttemptList { count: attempts.len() as u64, total, attempts }))
}

async fn detail(app: Shared, Id(id): Id<AttemptId>) -> Result<Json<AttemptDetail>, Failure> {
    let (attempt, change, policy_digest, seqs) = {
        let history = app.ledger.history();
        let graph = history.graph();
        let attempt = graph.attempt(&id).ok_or_else(|| Refusal::UnknownAttempt(id.clone()))?;
        let seqs: Vec<u64> = attempt.events.iter().map(|seq| seq.0).collect();
        let view =
            view::attempt(graph, attempt, app.presence.lease_remaining(&id), app.presence.activity(&id));
        (view, attempt.candidate.clone(), attempt.created.policy_digest.clone(), seqs)
    };
    let ledger = app.ledger.clone();
    let events = blocking(move || ledger.events(&seqs, usize::MAX)).await?;
    let told = Told::by(&events);
    Ok(Json(AttemptDetail {
        attempt,
        change,
        violations: told.violations,
        violations_omitted: told.violations_omitted,
        checks: told.checks,
        sandbox: told.sandbox,
        network: told.network,
        network_omitted: told.network_omitted,
        agent_notes: told.agent_notes,
        artifacts: told.artifacts,
        policy_digest,
        events,
    }))
}

/// What the events of an attempt tell beyond the graph.
#[derive(Default)]
struct Told {
    violations: Vec<model::event::ViolationRecord>,
    violations_omitted: u64,
    checks: Vec<CheckView>,
    sandbox: Option<model::event::SandboxReported>,
    network: Vec<model::event::NetworkRequest>,
    network_omitted: u64,
    agent_notes: Vec<String>,
    artifacts: Vec<model::event::ArtifactStored>,
}

impl Told {
    fn by(events: &[RecordedEvent]) -> Self {
        let mut told = Self::default();
        for RecordedEvent { event, .. } in events {
            if let EventKind::PolicyViolated(violated) = &event.kind {
                told.violations.clone_from(&violated.violations);
                told.violations_omitted = violated.omitted;
            } else if let EventKind::InvariantPassed(check) = &event.kind {
                told.checks.push(CheckView { passed: true, check: check.clone() });
            } else if let EventKind::InvariantFailed(check) = &event.kind {
                told.checks.push(CheckView { passed: false, check: check.clone() });
            } else if let EventKind::SandboxReported(sandbox) = &event.kind {
                told.sandbox = Some(sandbox.clone());
            } else if let EventKind::NetworkReported(network) = &event.kind {
                told.network.extend_from_slice(&network.requests);
                told.network_omitted += network.omitted;
            } else if let EventKind::AgentFinished(finished) = &event.kind {
                told.agent_notes.push(finished.summary.clone());
            } else if let EventKind::ArtifactStored(artifact) = &event.kind {
                told.artifacts.push(artifact.clone());
            }
        }
        told
    }
}

async fn failures(app: Shared, Filters(query): Filters<AttemptsQuery>) -> Result<Json<FailureList>, Failure> {
    check_status(&query)?;
    let history = app.ledger.history();
    let attempts = history.graph().attempts().filter(|attempt| fits(attempt, &query));
    let mut failures: Vec<FailureView> = attempts.filter_map(failed).collect();
    failures.sort_by(|a, b| b.timestamp.cmp(&a.timestamp).then_with(|| b.attempt_id.cmp(&a.attempt_id)));
    failures.truncate(limit(&query));
    Ok(Json(FailureList { count: failures.len() as u64, failures }))
}

fn failed(attempt: &Attempt) -> Option<FailureView> {
    let failure = attempt.failure.clone()?;
    Some(FailureView {
        attempt_id: attempt.id.clone(),
        task_id: attempt.task_id.clone(),
        target: attempt.target_id.clone(),
        error: format!("{}: {}", failure.reason, failure.detail),
        next_step: failure.reason.next_step().to_owned(),
        timestamp: failure.at,
        failure,
    })
}

fn limit(query: &AttemptsQuery) -> usize {
    query.limit.unwrap_or(PAGE).min(LARGEST_PAGE) as usize
}

fn fits(attempt: &Attempt, query: &AttemptsQuery) -> bool {
    let status = query.status.as_deref();
    query.target.as_ref().is_none_or(|target| *target == attempt.target_id)
        && query.task.as_ref().is_none_or(|task| *task == attempt.task_id)
        && query.id.as_ref().is_none_or(|part| attempt.id.has_part(part))
        && status.is_none_or(|status| match status {
            "live" => !attempt.state.is_terminal(),
            word => attempt.status() == word,
        })
}

fn check_status(query: &AttemptsQuery) -> Result<(), Failure> {
    match query.status.as_deref() {
        Some(word) if !AttemptsQuery::STATUSES.contains(&word) => {
            let word: String = word.chars().take(80).flat_map(char::escape_debug).collect();
            Err(Failure::new(ErrorCode::Invalid, format!("`{word}` is not a status"))
                .with_hint(format!("the statuses are {}", AttemptsQuery::STATUSES.join(", "))))
        }
        Some(_) | None => Ok(()),
    }
}
