//! The last stage of a pod: publishes what the work zone verified, and records how the attempt ended.
//!
//! It holds the credentials of the control plane and of the forge. It believes what `prepare` left in `given`;
//! what the work zone left it takes over into a place of its own before it looks at it, and the publishing
//! verifies it again from its objects.

use std::io;
use std::time::Duration;

use anyhow::Context;
use api::Client;
use model::event::{AttemptFailed, Usage};
use model::{AttemptState, CommitId, Digest, FailureReason, Stage};
use target::candidate::PACK_FILE;
use tokio::sync::watch;

use super::{Ended, Prepared};
use crate::candidate::{Manifest, Words};
use crate::contain;
use crate::folder::{ACTIVITY, CANDIDATE, ENDED, INTERRUPTED, OUTCOME, write_durably};
use crate::job::{Job, StageOutcome, shortened};
use crate::supervise::{Ending, Halt, Settings, Supervision, Watched, assignment_of, watched};
use crate::toolbox::{Tree, TreeError};

/// The word for this stage in `interrupted`.
pub(super) const NAME: &str = "publish";

/// The most bytes that the outcome of the work stage may have.
const LARGEST_OUTCOME: u64 = 1 << 20;

/// The most bytes that a pack of the work stage may have before the policy's own limits are asked.
const LARGEST_PACK: u64 = 1 << 30;

/// How long this stage, once told to stop, may take to say what it has done.
const LAST_STEPS: Duration = Duration::from_secs(5);

/// The whole life of a `finish` process.
pub async fn main(settings: Settings) -> Ended {
    let ended = finish(&settings).await;
    Ended::of("finish", &settings.attempt, ended)
}

async fn finish(settings: &Settings) -> anyhow::Result<Ended> {
    contain::adopt_orphans()?;
    let Settings { attempt, folder, .. } = settings;
    let lock = folder.lock().with_context(|| format!("the volume {}", folder.private().display()))?;
    let _lock = lock.with_context(|| format!("another stage works in {}", folder.private().display()))?;
    let handover = folder.open_handover().with_context(|| format!("{}", folder.handover().display()))?;
    let client = Client::new(&settings.control_plane_url, settings.control_plane_token.clone())?;
    let job = Job::read(folder).with_context(|| format!("{}", folder.assignment().display()))?;
    let (activity, activities) = watch::channel("publishing");
    let mut supervision = Supervision::of(settings, &client, job, activity)?;
    leave(&handover, ACTIVITY, "publishing");
    let steps = end(&mut supervision, &client, &handover);
    let ended = watched(&client, attempt, folder, activities, steps).await;
    if let Ok(Watched::Stopped) = ended {
        let settled = tokio::time::timeout(LAST_STEPS, settle(&mut supervision, &client)).await;
        if let Ok(Ok(true)) = settled {
            leave(&handover, ENDED, "");
            return Ok(Ended::new(0, format!("attempt {attempt}: {}", said(Ending::Completed))));
        }
        leave(&handover, INTERRUPTED, NAME);
        return Ok(Ended::new(Ending::Stopped.exit_code(), "told to end by a signal while publishing"));
    }
    leave(&handover, ENDED, "");
    let (ending, why) = match ended? {
        Watched::Ended(ending) => (ending, said(ending)),
        Watched::Fenced(why) => (Ending::Fenced, format!("the attempt is no longer this pod's: {why}")),
        Watched::Stopped => (Ending::Stopped, said(Ending::Stopped)),
    };
    Ok(Ended::new(ending.exit_code(), format!("attempt {attempt}: {why}")))
}

/// Says what has been done before the stage was told to stop. True when that is all there was to do: a pull request
/// that is open is not taken back.
async fn settle(supervision: &mut Supervision<'_>, client: &Client) -> Result<bool, Halt> {
    supervision.courier.deliver().await?;
    if assignment_of(client, &supervision.settings.attempt).await?.state != AttemptState::Published {
        return Ok(false);
    }
    let manifest = Manifest::read(&supervision.folder.candidate()).context("the candidate's manifest")?;
    let usage = manifest.map(|manifest| manifest.usage).unwrap_or_default();
    let ending = supervision.record_end(StageOutcome::Published { usage }).await?;
    Ok(ending == Ending::Completed)
}

fn said(ending: Ending) -> String {
    let said = match ending {
        Ending::Completed => "its pull request is open",
        Ending::Failed => "it failed, and the log says why",
        Ending::Parked => "publishing waits for the forge",
        Ending::Fenced => "it is no longer this pod's",
        Ending::Stopped => "it was stopped",
    };
    said.to_owned()
}

/// Leaves a word for the courier. The attempt does not fail for it.
fn leave(handover: &Tree, name: &str, word: &str) {
    if let Err(error) = handover.write(name, word.as_bytes()) {
        tracing::warn!("the courier cannot be told: {error}");
    }
}

async fn end(supervision: &mut Supervision<'_>, client: &Client, handover: &Tree) -> Result<Ending, Halt> {
    supervision.courier.deliver().await?;
    let folder = &supervision.folder;
    let prepared = Prepared::read(folder).with_context(|| format!("{}", folder.prepared().display()))?;
    let outcome = match prepared {
        Prepared::Over(outcome) => outcome,
        Prepared::Fresh | Prepared::Verified => match outcome_of_work(handover) {
            Ok(StageOutcome::Verified { candidate, manifest }) => {
                publish(supervision, client, handover, &candidate, &manifest).await?
            }
            Ok(outcome) => outcome,
            Err(why) => refused(why),
        },
    };
    supervision.record_end(outcome).await
}

/// What the work stage says it came to, as far as it may come to that.
fn outcome_of_work(handover: &Tree) -> Result<StageOutcome, String> {
    let bytes = handover.read(OUTCOME, LARGEST_OUTCOME).map_err(|error| match error {
        TreeError::Missing(_) => "it ended without one".to_owned(),
        TreeError::Outside(_)
        | TreeError::NotAFile { .. }
        | TreeError::TooLarge { .. }
        | TreeError::Io { .. } => error.to_string(),
    })?;
    match serde_json::from_slice(&bytes).map_err(|error| error.to_string())? {
        outcome @ (StageOutcome::Verified { .. } | StageOutcome::Stopped) => Ok(outcome),
        StageOutcome::Failed(AttemptFailed { stage, reason, detail, usage }) => {
            Ok(StageOutcome::Failed(AttemptFailed { stage, reason, detail: shortened(detail), usage }))
        }
        StageOutcome::Published { .. } | StageOutcome::Parked { .. } | StageOutcome::Superseded { .. } => {
            Err("it says what only publishing can come to".to_owned())
        }
    }
}

fn refused(why: impl std::fmt::Display) -> StageOutcome {
    let detail = format!("the outcome of the work stage cannot be used: {why}");
    StageOutcome::failed(Stage::Agent, FailureReason::Internal, detail, Usage::default())
}

async fn publish(
    supervision: &mut Supervision<'_>,
    client: &Client,
    handover: &Tree,
    candidate: &CommitId,
    manifest: &Digest,
) -> Result<StageOutcome, Halt> {
    // What was delivered says which candidate is verified; nothing else is pushed.
    let recorded = assignment_of(client, &supervision.settings.attempt).await?;
    if recorded.state != AttemptState::Verified || recorded.candidate.as_ref() != Some(candidate) {
        return Ok(refused(format!(
            "it says that {candidate} is verified, but recorded is that the attempt is {}",
            recorded.state
        )));
    }
    if let Err(why) = take_over(supervision, handover, candidate, manifest)? {
        return Ok(refused(why));
    }
    supervision.publish().await
}

/// Copies the candidate into a place that only this stage has. The inner error says what is wrong with it.
fn take_over(
    supervision: &Supervision<'_>,
    handover: &Tree,
    candidate: &CommitId,
    digest: &Digest,
) -> anyhow::Result<Result<(), String>> {
    let place = supervision.folder.candidate();
    let found = handover.read(&format!("{CANDIDATE}/manifest.json"), Manifest::LARGEST);
    let bytes = match found {
        Ok(bytes) => bytes,
        Err(error) => return Ok(Err(format!("the candidate's manifest: {error}"))),
    };
    let is_of_candidate = Manifest::parse(&bytes).is_ok_and(|manifest| manifest.candidate == *candidate);
    if Digest::of(&bytes) != *digest || !is_of_candidate {
        return Ok(Err(format!("the candidate's manifest is not that of {candidate}")));
    }
    // Whether the agent said anything decides nothing.
    let words = handover.read(&format!("{CANDIDATE}/words.json"), Words::LARGEST).ok();
    let pack = match handover.open_file(&format!("{CANDIDATE}/{PACK_FILE}"), LARGEST_PACK) {
        Ok(pack) => pack,
        Err(error) => return Ok(Err(format!("the candidate's objects: {error}"))),
    };
    let copy = || -> io::Result<()> {
        std::fs::create_dir_all(&place)?;
        let mut copied = std::fs::File::create(place.join(PACK_FILE))?;
        io::copy(&mut io::Read::take(pack, LARGEST_PACK), &mut copied)?;
        words.map_or(Ok(()), |words| write_durably(&Words::file(&place), &words))?;
        write_durably(&Manifest::file(&place), &bytes)
    };
    copy().with_context(|| format!("{}", place.display()))?;
    Ok(Ok(()))
}
