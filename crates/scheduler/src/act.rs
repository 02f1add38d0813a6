//! Carries out what was planned, through the control plane and the launcher. That somebody else was faster is an
//! answer and no error: the next pass sees what became of it.

use std::time::Duration;

use api::types::{ClaimRequest, DispatchRequest, Dispatched, LostRequest};
use api::{Client, ClientError, ErrorCode};
use model::event::{Event, EventKind};
use secrecy::SecretString;

use crate::fault::Fault;
use crate::launch::{LaunchError, Order};
use crate::plan::{Dispatch, Lost, Reconciliation};
use crate::{Config, Report};

/// How long an executor whose attempt is over may take to end.
const GRACE: Duration = Duration::from_secs(10);

/// Carries out a reconciliation: what happened is recorded first, then what waits is handed out.
pub(crate) async fn reconcile(
    config: &Config,
    plan: Reconciliation,
    report: &mut Report,
) -> Result<(), ClientError> {
    for bundle in plan.record {
        record(&config.client, &config.fault, bundle).await?;
    }
    for lost in plan.lost {
        lose(config, lost, report).await?;
    }
    for attempt in plan.stop {
        tracing::warn!(attempt.id = %attempt, "the attempt has ended and its executor has not: stopping it");
        report.launcher(config.launcher.stop(&attempt, GRACE).await);
    }
    for dispatch in plan.dispatch {
        dispatch_again(config, dispatch, report).await?;
    }
    Ok(())
}

/// Claims a task and starts its executor. `false` when the task may not be claimed now.
pub(crate) async fn claim(
    config: &Config,
    request: &ClaimRequest,
    report: &mut Report,
) -> Result<bool, ClientError> {
    let Some(dispatched) = unless_overtaken(config.client.claim(request).await)? else {
        tracing::debug!(target.id = %request.target_id, task.id = %request.task_id, "the task is not claimable any more");
        return Ok(false);
    };
    config.fault.reach("after_claim");
    let Dispatched { attempt_id, n, .. } = &dispatched;
    tracing::info!(target.id = %request.target_id, task.id = %request.task_id, attempt.id = %attempt_id, n, "claimed a task");
    launch(config, dispatched, report).await;
    Ok(true)
}

/// Records a bundle, and says whether it is new. One that was recorded by another scheduler, or that may not
/// follow what was recorded meanwhile, is left to the next pass.
pub(crate) async fn record(client: &Client, fault: &Fault, bundle: Vec<Event>) -> Result<bool, ClientError> {
    let is_merge = bundle.iter().any(|event| matches!(event.kind, EventKind::PrMerged(_)));
    let kinds: Vec<&str> = bundle.iter().map(|event| event.kind.event_type()).collect();
    tracing::debug!(?kinds, "recording");
    let recorded = unless_overtaken(client.ingest(bundle).await)?;
    fault.reach("after_record");
    if is_merge {
        fault.reach("after_pr_merged");
    }
    Ok(recorded.is_some_and(|response| response.ingested > 0))
}

/// Lost first, which fences the executor; only then is it stopped.
async fn lose(config: &Config, lost: Lost, report: &mut Report) -> Result<(), ClientError> {
    let request = LostRequest {
        expected_epoch: lost.epoch,
        evidence: lost.evidence,
        reason: lost.reason.clone(),
        actor_id: config.actor.clone(),
    };
    if unless_overtaken(config.client.lost(&lost.attempt, &request).await)?.is_some() {
        config.fault.reach("after_lost");
        tracing::warn!(attempt.id = %lost.attempt, reason = lost.reason, "an attempt is lost");
        report.launcher(config.launcher.stop(&lost.attempt, GRACE).await);
    }
    Ok(())
}

async fn dispatch_again(config: &Config, dispatch: Dispatch, report: &mut Report) -> Result<(), ClientError> {
    let request = DispatchRequest {
        expected_epoch: dispatch.epoch,
        launcher: config.launcher.name().to_owned(),
        actor_id: config.actor.clone(),
    };
    let answer = config.client.dispatch(&dispatch.attempt, &request).await;
    if let Some(dispatched) = unless_overtaken(answer)? {
        config.fault.reach("after_dispatch");
        tracing::info!(attempt.id = %dispatched.attempt_id, epoch = %dispatched.epoch, "handed out an attempt again");
        launch(config, dispatched, report).await;
    }
    Ok(())
}

/// An executor that cannot be started is a problem of this machine; the attempt waits and is handed out again.
async fn launch(config: &Config, dispatched: Dispatched, report: &mut Report) {
    let Dispatched { attempt_id, epoch, token, .. } = dispatched;
    let order = Order { attempt: &attempt_id, epoch, token: &SecretString::from(token) };
    report.launched += usize::from(report.launcher(config.launcher.launch(order).await));
    config.fault.reach("after_launch");
}

impl Report {
    /// Notes what the launcher could not do, and says whether it could.
    fn launcher(&mut self, answer: Result<(), LaunchError>) -> bool {
        let is_done = answer.is_ok();
        self.problems.extend(answer.err().map(|error| error.to_string()));
        is_done
    }
}

/// The answer; none when the log went another way since it was read.
fn unless_overtaken<T>(answer: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(error) => match error.code() {
            Some(
                ErrorCode::IllegalStep
                | ErrorCode::EventConflict
                | ErrorCode::Fenced
                | ErrorCode::NotClaimable
                | ErrorCode::NotFound,
            ) => {
                tracing::debug!(%error, "overtaken");
                Ok(None)
            }
            Some(_) | None => Err(error),
        },
    }
}
