//! Carries out what was planned, through the control plane and the launcher. That somebody else was faster is an
//! answer and no error: the next pass sees what became of it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use api::types::{ClaimRequest, DispatchRequest, Dispatched, LostRequest};
use api::{Client, ClientError, ErrorCode};
use model::event::{AttemptLaunched, Event, EventKind, Subject};
use model::graph::Attempt;
use model::{AttemptId, AttemptState, Epoch, EventId, Graph, TargetId, TaskId};
use secrecy::SecretString;

use crate::fault::Fault;
use crate::history::History;
use crate::launch::{Launch, LaunchError, Launched, Order};
use crate::plan::{Dispatch, Lost, Reconciliation};
use crate::{Config, Report};

/// How long an executor whose attempt is over may take to end.
const GRACE: Duration = Duration::from_secs(10);

/// Carries out a reconciliation: what happened is recorded first, then what waits is handed out.
pub(crate) async fn reconcile(
    config: &Config,
    history: &History,
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
        dispatch_again(config, history, dispatch, report).await?;
    }
    Ok(())
}

/// Claims a task and starts its executor. `false` when the task may not be claimed now.
pub(crate) async fn claim(
    config: &Config,
    history: &History,
    request: &ClaimRequest,
    report: &mut Report,
) -> Result<bool, ClientError> {
    let asked = Instant::now();
    let Some(dispatched) = unless_overtaken(config.client.claim(request).await)? else {
        tracing::debug!(target.id = %request.target_id, task.id = %request.task_id, "the task is not claimable any more");
        return Ok(false);
    };
    report.claims.push(asked.elapsed());
    config.fault.reach("after_claim");
    let Dispatched { attempt_id, n, .. } = &dispatched;
    tracing::info!(target.id = %request.target_id, task.id = %request.task_id, attempt.id = %attempt_id, n, "claimed a task");
    let work = Work::at(&request.target_id, &request.task_id, request.timeout_seconds, history.graph());
    launch(config, dispatched, &work, report).await?;
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

async fn dispatch_again(
    config: &Config,
    history: &History,
    dispatch: Dispatch,
    report: &mut Report,
) -> Result<(), ClientError> {
    let graph = history.graph();
    let Some(work) = graph.attempt(&dispatch.attempt).map(|attempt| Work::of(attempt, graph)) else {
        return Ok(());
    };
    let request = DispatchRequest {
        expected_epoch: dispatch.epoch,
        launcher: config.launcher.name().to_owned(),
        actor_id: config.actor.clone(),
    };
    let answer = config.client.dispatch(&dispatch.attempt, &request).await;
    if let Some(dispatched) = unless_overtaken(answer)? {
        config.fault.reach("after_dispatch");
        tracing::info!(attempt.id = %dispatched.attempt_id, epoch = %dispatched.epoch, "handed out an attempt again");
        launch(config, dispatched, &work, report).await?;
    }
    Ok(())
}

/// An executor that cannot be started is a problem of this machine or cluster; the attempt waits and is handed out
/// again.
async fn launch(
    config: &Config,
    dispatched: Dispatched,
    work: &Work,
    report: &mut Report,
) -> Result<(), ClientError> {
    let Dispatched { attempt_id, epoch, token, .. } = dispatched;
    let order = Order {
        attempt: &attempt_id,
        epoch,
        token: &SecretString::from(token),
        target: &work.target,
        task: &work.task,
        timeout: work.timeout,
        image: work.image.as_deref(),
    };
    let launched = config.launcher.launch(order).await;
    config.fault.reach("after_launch");
    match launched {
        Ok(Launch::Started) => {
            report.launched += 1;
            Ok(())
        }
        Ok(Launch::StartedAs(launched)) => {
            report.launched += 1;
            record_launch(config, &attempt_id, epoch, work, launched).await
        }
        Ok(Launch::Waits) => Ok(()),
        Err(error) => {
            report.problems.push(error.to_string());
            Ok(())
        }
    }
}

/// From here on an executor that is not there any more is one that somebody deleted.
async fn record_launch(
    config: &Config,
    attempt: &AttemptId,
    epoch: Epoch,
    work: &Work,
    launched: Launched,
) -> Result<(), ClientError> {
    let Launched { name, uid } = launched;
    let launched = Event {
        event_id: EventId::derived(["attempt.launched", attempt.as_str(), &epoch.to_string(), &uid]),
        timestamp: crate::now(),
        actor_id: config.actor.clone(),
        subject: Subject::attempt(&work.target, &work.task, attempt),
        kind: EventKind::AttemptLaunched(AttemptLaunched { epoch, name, uid }),
    };
    record(&config.client, &config.fault, vec![launched]).await.map(drop)
}

/// Starts what waited for room, as far as there is room now.
pub(crate) async fn launch_waiting(
    config: &Config,
    history: &History,
    report: &mut Report,
) -> Result<(), ClientError> {
    let graph = history.graph();
    let live: BTreeSet<&AttemptId> = graph.targets().flat_map(|(_, target)| &target.live).collect();
    config.launcher.forget_all_but(&live);
    // What is verified is published also while a human pauses.
    let may = |id: &AttemptId| {
        graph.attempt(id).is_some_and(|attempt| {
            attempt.state != AttemptState::Created || !graph.is_paused(&attempt.target_id)
        })
    };
    for launched in config.launcher.launch_waiting(may).await {
        match launched {
            Ok((id, launched)) => {
                let Some(attempt) = graph.attempt(&id) else { continue };
                report.launched += 1;
                record_launch(config, &id, attempt.epoch, &Work::of(attempt, graph), launched).await?;
            }
            Err(error) => report.problems.push(error.to_string()),
        }
    }
    Ok(())
}

/// What a launcher must know of an attempt beside its name.
struct Work {
    target: TargetId,
    task: TaskId,
    timeout: Duration,
    image: Option<String>,
}

impl Work {
    fn of(attempt: &Attempt, graph: &Graph) -> Self {
        Self::at(&attempt.target_id, &attempt.task_id, attempt.created.timeout_seconds, graph)
    }

    fn at(target: &TargetId, task: &TaskId, timeout_seconds: u64, graph: &Graph) -> Self {
        Self {
            target: target.clone(),
            task: task.clone(),
            timeout: Duration::from_secs(timeout_seconds),
            image: graph.target(target).and_then(|known| known.registered.executor_image.clone()),
        }
    }
}

impl Report {
    /// Notes what the launcher could not do.
    fn launcher(&mut self, answer: Result<(), LaunchError>) {
        self.problems.extend(answer.err().map(|error| error.to_string()));
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
