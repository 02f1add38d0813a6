//! The courier of a pod: keeps the lease, and brings to the control plane what the work zone leaves.
//!
//! It runs beside the other stages and holds the credential of the control plane alone. When the attempt is taken
//! away from the pod, it leaves the file `stop`. It is the last to end, and the one that records when somebody
//! stopped the pod; whatever else befell the pod, whoever watches pods can see and says.

use std::time::Duration;

use anyhow::Context;
use api::Client;
use model::AttemptId;
use model::event::{EventKind, Reason};
use model::secrets::Redactor;
use tokio::sync::watch;

use super::{Ended, finish, work};
use crate::courier::{Courier, Undelivered};
use crate::fault::Fault;
use crate::folder::{AttemptFolder, ENDED, INTERRUPTED, STOP};
use crate::job::Job;
use crate::spool::Voice;
use crate::supervise::{Halt, Termination, WORKING, heartbeats};
use crate::toolbox::Tree;

/// How often the courier looks for the last words of the others.
const LOOK: Duration = Duration::from_millis(100);

/// How long the last delivery may take.
const LAST_DELIVERY: Duration = Duration::from_secs(5);

/// What the courier is told by its command line and environment.
pub struct Settings {
    /// The attempt.
    pub attempt: AttemptId,
    /// The attempt's places.
    pub folder: AttemptFolder,
    /// The control plane, with the attempt's own token.
    pub control_plane: Client,
    /// How long the courier, once told to end, waits for the last words of the others.
    pub patience: Duration,
    /// Knows the secrets of this process.
    pub redactor: Redactor,
    /// Where this process shall die in a test.
    pub fault: Fault,
    /// The clock.
    pub clock: fn() -> jiff::Timestamp,
}

/// The whole life of a `courier` process.
pub async fn main(settings: Settings) -> Ended {
    let ended = carry_out(&settings).await;
    Ended::of("courier", &settings.attempt, ended)
}

async fn carry_out(settings: &Settings) -> anyhow::Result<Ended> {
    // Before anything else: the first process of a container does not hear a signal that it does not wait for.
    let mut terminated = Termination::listen()?;
    let Settings { attempt, folder, control_plane: client, .. } = settings;
    let job = Job::read(folder).with_context(|| format!("{}", folder.assignment().display()))?;
    let handover = folder.open_handover().with_context(|| format!("{}", folder.handover().display()))?;
    let voice = Voice::new(job.subject(), job.assignment.epoch, settings.clock, settings.redactor.clone());
    let courier = Courier::of_zone(client.clone(), voice.clone(), folder, settings.fault.clone());
    let mut courier = courier.context("the handover")?;
    let (_activity, activities) = watch::channel(WORKING);
    let halt = tokio::select! {
        undelivered = courier.run() => Some(Halt::from(undelivered)),
        halt = heartbeats(client, attempt, folder, activities) => Some(halt),
        () = terminated.received() => None,
    };
    if let Some(halt) = halt {
        return Ok(stopped(attempt, halt, &handover, &mut terminated).await);
    }
    last_words(settings, &handover, &mut courier).await;
    let why = match interrupted_stage(&handover) {
        None => format!("the courier of attempt {attempt} has delivered what there was"),
        Some(stage) => {
            let reason = format!(
                "external: its executor was told to stop (SIGTERM) during {stage}, and stopped everything that it had started"
            );
            record_cancelled(&courier, &voice, reason.clone()).await;
            reason
        }
    };
    Ok(Ended::new(0, why))
}

/// Stops the work stage, because nothing more of it can be recorded, and waits for the pod's own end: a courier that
/// ended before would only be started again.
async fn stopped(attempt: &AttemptId, halt: Halt, handover: &Tree, terminated: &mut Termination) -> Ended {
    let (code, why) = match halt {
        Halt::Fenced(why) => (0, format!("attempt {attempt} is no longer this pod's: {why}")),
        Halt::Error(error) => (2, format!("nothing more can be sent for attempt {attempt}: {error:#}")),
    };
    match handover.write(STOP, why.as_bytes()) {
        // This is also how the courier hears of an end that this pod recorded itself.
        Ok(()) if code == 0 => tracing::info!("{why}"),
        Ok(()) => tracing::error!("{why}"),
        Err(error) => tracing::error!("{why}; and the work stage cannot be told to stop: {error}"),
    }
    terminated.received().await;
    Ended::new(code, why)
}

/// Waits a while for the others to say that they have ended, and delivers what they leave.
async fn last_words(settings: &Settings, handover: &Tree, courier: &mut Courier) {
    let others_end = async {
        while !is_there(handover, ENDED) && !is_there(handover, INTERRUPTED) {
            tokio::time::sleep(LOOK).await;
        }
    };
    let delivering = async {
        tokio::select! {
            undelivered = courier.run() => Some(undelivered),
            _ = tokio::time::timeout(settings.patience, others_end) => None,
        }
    };
    let undelivered = match delivering.await {
        Some(undelivered) => Some(undelivered),
        None => match tokio::time::timeout(LAST_DELIVERY, courier.deliver()).await {
            Ok(delivered) => delivered.err(),
            Err(_too_late) => {
                tracing::warn!("the control plane does not answer; what it did not hear goes with the pod");
                None
            }
        },
    };
    match undelivered {
        // The attempt has ended: there is nothing more to say of it.
        Some(Undelivered::Fenced(why)) => tracing::info!("{why}"),
        Some(Undelivered::Error(error)) => tracing::warn!("{error:#}"),
        None => {}
    }
}

/// The stage that was told to stop, unless the attempt came to its end all the same. The word comes from where
/// agents can write: it names a stage or is taken for the work stage's.
fn interrupted_stage(handover: &Tree) -> Option<&'static str> {
    if is_there(handover, ENDED) || !is_there(handover, INTERRUPTED) {
        return None;
    }
    let word = handover.read(INTERRUPTED, 64).unwrap_or_default();
    Some(if word == finish::NAME.as_bytes() { finish::NAME } else { work::NAME })
}

async fn record_cancelled(courier: &Courier, voice: &Voice, reason: String) {
    let cancelled = match voice.event(EventKind::AttemptCancelled(Reason { reason }), "") {
        Ok(cancelled) => cancelled,
        Err(error) => return tracing::warn!("the end could not be recorded: {error}"),
    };
    match tokio::time::timeout(LAST_DELIVERY, courier.say_once(cancelled)).await {
        Ok(Ok(())) => {}
        // Somebody ended the attempt before: by a cancel, or because its lease ran out.
        Ok(Err(Undelivered::Fenced(why))) => tracing::info!("{why}"),
        Ok(Err(Undelivered::Error(error))) => tracing::warn!("the end could not be recorded: {error:#}"),
        Err(_too_late) => tracing::warn!("the end could not be recorded: the control plane does not answer"),
    }
}

fn is_there(handover: &Tree, name: &str) -> bool {
    handover.exists(name).unwrap_or(false)
}
