//! Carrying out steps of an attempt while the control plane hears that they go on, until they end, the attempt is
//! taken away, or this process is told to stop.

use std::future::pending;
use std::time::Duration;

use api::types::HeartbeatRequest;
use api::{Client, ClientError, ErrorCode};
use model::AttemptId;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::contain;
use crate::courier::{Undelivered, is_fence};
use crate::folder::{ACTIVITY, AttemptFolder, PAUSED, PAUSED_YES};
use crate::toolbox::Tree;

/// How often the control plane hears that the executor lives, unless its leases are shorter than it usually is. In its
/// answer the executor hears that it was cancelled or paused, so this is also how long those take.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// How soon a new activity is noticed.
const LOOK: Duration = Duration::from_millis(500);

/// What an executor is at while the work stage says more.
pub(crate) const WORKING: &str = "working";

/// What an executor is at once it tells how the attempt ended. From then on a heartbeat would be refused for that end
/// itself, and so none is sent.
pub(crate) const ENDING: &str = "ending";

/// The most bytes that are read of what the work stage says it is at.
const LONGEST_ACTIVITY: u64 = 4 << 10;

/// Why an executor stops without recording an end.
#[derive(Debug)]
pub(crate) enum Halt {
    /// The attempt is no longer this executor's.
    Fenced(String),
    /// Something of ours or of the machine failed.
    Error(anyhow::Error),
}

impl From<anyhow::Error> for Halt {
    fn from(error: anyhow::Error) -> Self {
        Self::Error(error)
    }
}

impl From<Undelivered> for Halt {
    fn from(undelivered: Undelivered) -> Self {
        match undelivered {
            Undelivered::Fenced(why) => Self::Fenced(why),
            Undelivered::Error(error) => Self::Error(error),
        }
    }
}

impl From<ClientError> for Halt {
    fn from(error: ClientError) -> Self {
        if is_fence(&error) { Self::Fenced(error.to_string()) } else { Self::Error(error.into()) }
    }
}

/// How watched steps ended.
#[derive(Debug)]
pub(crate) enum Watched<T> {
    /// By themselves.
    Ended(T),
    /// The attempt was taken away from this executor.
    Fenced(String),
    /// This process was told to stop.
    Stopped,
}

/// Carries out `steps` while the control plane hears that they go on. When this returns, nothing that they
/// started runs any more, whatever the reason is.
pub(crate) async fn watched<T>(
    client: &Client,
    attempt: &AttemptId,
    folder: &AttemptFolder,
    activities: watch::Receiver<&'static str>,
    steps: impl Future<Output = Result<T, Halt>>,
) -> anyhow::Result<Watched<T>> {
    let mut terminated = Termination::listen()?;
    let ended = tokio::select! {
        ended = steps => ended.map(Watched::Ended),
        halt = heartbeats(client, attempt, folder, activities) => Err(halt),
        () = terminated.received() => Ok(Watched::Stopped),
    };
    end_all_descendants().await?;
    match ended {
        Ok(watched) => Ok(watched),
        Err(Halt::Fenced(why)) => {
            tracing::warn!("attempt {attempt} is no longer ours: {why}");
            Ok(Watched::Fenced(why))
        }
        Err(Halt::Error(error)) => Err(error),
    }
}

/// Tells the control plane again and again that the executor lives. Returns when it is to live no longer.
pub(crate) async fn heartbeats(
    client: &Client,
    attempt: &AttemptId,
    folder: &AttemptFolder,
    activities: watch::Receiver<&'static str>,
) -> Halt {
    let handover = match folder.open_handover() {
        Ok(handover) => handover,
        Err(error) => return Halt::Error(anyhow::Error::new(error).context("the folder of the attempt")),
    };
    let activity_now = || {
        let stage = *activities.borrow();
        let told = (stage == WORKING).then(|| told_activity(&handover)).flatten();
        told.unwrap_or_else(|| stage.to_owned())
    };
    let mut told_paused = None;
    let is_ending = || *activities.borrow() == ENDING;
    loop {
        if is_ending() {
            return pending().await;
        }
        let activity = activity_now();
        let rest = match client.heartbeat(attempt, &HeartbeatRequest { activity: activity.clone() }).await {
            Ok(heard) => {
                if told_paused.replace(heard.paused) != Some(heard.paused) {
                    tell_paused(&handover, heard.paused);
                }
                HEARTBEAT.min(Duration::from_millis(heard.lease_ms / 4))
            }
            // The attempt may go on without an answer; nothing is published without one.
            Err(error) if error.is_transient() => HEARTBEAT,
            // It was on its way when the end was recorded.
            Err(_) if is_ending() => return pending().await,
            Err(error) => match error.code() {
                Some(ErrorCode::Fenced | ErrorCode::IllegalStep | ErrorCode::NotFound) => {
                    return Halt::Fenced(error.to_string());
                }
                Some(_) | None => return Halt::Error(error.into()),
            },
        };
        // Something new is told at once; people wait for it.
        let news = async {
            while activity_now() == activity {
                tokio::time::sleep(LOOK).await;
            }
        };
        let _ = tokio::time::timeout(rest, news).await;
    }
}

/// Tells the work stage whether its target is paused.
fn tell_paused(handover: &Tree, is_paused: bool) {
    let word = if is_paused { PAUSED_YES } else { "no" };
    if let Err(error) = handover.write(PAUSED, word.as_bytes()) {
        tracing::warn!("the work stage could not be told whether its target is paused: {error}");
    }
}

/// What the work stage last said it is at.
fn told_activity(handover: &Tree) -> Option<String> {
    let bytes = handover.read(ACTIVITY, LONGEST_ACTIVITY).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The wish that this process ends, from the moment of [`Termination::listen`] on.
pub(crate) struct Termination {
    terminate: Signal,
    interrupt: Signal,
}

impl Termination {
    /// From here on a signal does not kill this process but is waited for.
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Completes when this process is asked to end.
    pub(crate) async fn received(&mut self) {
        let heard = tokio::select! {
            heard = self.terminate.recv() => heard,
            heard = self.interrupt.recv() => heard,
        };
        if heard.is_none() {
            // Nobody can send a signal any more.
            pending::<()>().await;
        }
    }
}

/// Ends whatever descends from this process.
pub(crate) async fn end_all_descendants() -> anyhow::Result<()> {
    let ended = tokio::task::spawn_blocking(|| contain::end_all_descendants(|_, _| {})).await;
    Ok(ended.expect("ending processes does not panic")?)
}
