//! The work zone of a pod: the work stage of every attempt, whose lifelines are a file and a signal.
//!
//! It holds the agent's credential and no other. What it comes to is the last thing that it writes. When the
//! courier leaves the file `stop`, or the pod is told to end, everything that was started here dies first.

use std::time::Duration;

use anyhow::Context;
use model::event::Usage;
use model::{FailureReason, Stage};
use tokio::sync::watch;

use super::Ended;
use crate::folder::{AttemptFolder, write_durably};
use crate::job::{Job, StageOutcome};
use crate::stage;
use crate::supervise::{Ending, GRACE, Termination, end_all_descendants};
use crate::work::{Settings, work};

/// How often the stage looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(250);

/// The word for this stage in `interrupted`.
pub(super) const NAME: &str = "work";

/// The whole life of a `work` process in a pod.
pub async fn main(settings: Settings) -> Ended {
    let ended = carry_out(&settings).await;
    ended.unwrap_or_else(|error| {
        let why = format!("the work stage could not be carried out: {error:#}");
        tracing::error!("{why}");
        Ended::new(2, why)
    })
}

/// How the work came to its end.
enum Came {
    Outcome(anyhow::Result<StageOutcome>),
    TimedOut,
    Stopped,
    Interrupted,
}

async fn carry_out(settings: &Settings) -> anyhow::Result<Ended> {
    // Before anything else: the first process of a container does not hear a signal that it does not wait for.
    let mut terminated = Termination::listen()?;
    let folder = &settings.folder;
    if std::fs::symlink_metadata(folder.outcome()).is_ok() {
        return Ok(Ended::new(0, "there is nothing left for the work stage to do"));
    }
    let lock = folder.lock().with_context(|| format!("the volume {}", folder.private().display()))?;
    let _lock = lock.with_context(|| format!("another stage works in {}", folder.private().display()))?;
    let _right = stage::enter(folder).context("the stage cannot begin")?;
    let job = Job::read(folder).with_context(|| format!("{}", folder.assignment().display()))?;
    let patience = job.remaining((settings.clock)()) + GRACE;
    let (_held, cancelled) = watch::channel(false);
    let came = tokio::select! {
        outcome = work(settings, cancelled) => Came::Outcome(outcome),
        () = told_to_stop(folder) => Came::Stopped,
        () = terminated.received() => Came::Interrupted,
        () = tokio::time::sleep(patience) => Came::TimedOut,
    };
    // Nothing of the work survives it, and nothing is said of it before that is so.
    end_all_descendants().await?;
    let outcome = match came {
        Came::Outcome(Ok(StageOutcome::Stopped)) | Came::Stopped => {
            return Ok(Ended::new(
                Ending::Fenced.exit_code(),
                "told to stop: the attempt is no longer this pod's",
            ));
        }
        Came::Interrupted => {
            write_durably(&folder.interrupted(), NAME.as_bytes())
                .context("the word that it was interrupted")?;
            return Ok(Ended::new(Ending::Stopped.exit_code(), "told to end by a signal while working"));
        }
        Came::Outcome(Ok(outcome)) => outcome,
        Came::Outcome(Err(error)) => {
            let detail = format!("the work stage could not be carried out: {error:#}");
            tracing::error!("{detail}");
            StageOutcome::failed(Stage::Agent, FailureReason::Internal, detail, Usage::default())
        }
        Came::TimedOut => {
            let detail = "the attempt reached its deadline and did not stop by itself";
            StageOutcome::failed(Stage::Agent, FailureReason::TimedOut, detail, Usage::default())
        }
    };
    write_durably(&folder.outcome(), &serde_json::to_vec(&outcome)?)
        .with_context(|| format!("{}", folder.outcome().display()))?;
    Ok(Ended::new(0, summary(&outcome)))
}

/// Completes when the courier has left the file that ends the stage.
async fn told_to_stop(folder: &AttemptFolder) {
    while std::fs::symlink_metadata(folder.stop()).is_err() {
        tokio::time::sleep(LOOK).await;
    }
}

fn summary(outcome: &StageOutcome) -> String {
    match outcome {
        StageOutcome::Verified { candidate, .. } => format!("the candidate {candidate} is verified"),
        StageOutcome::Failed(failed) => format!("{}: {}", failed.reason, failed.detail),
        StageOutcome::Published { .. }
        | StageOutcome::Parked { .. }
        | StageOutcome::Superseded { .. }
        | StageOutcome::Stopped => "the work stage ended".to_owned(),
    }
}
