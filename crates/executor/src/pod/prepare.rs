//! The first stage of a pod: takes the assignment, decides what is left to do, and brings what the others need.
//!
//! It holds the credentials of the control plane and of the forge. When it ends well, everything that the other
//! stages are told lies in `given`; when an earlier pod had verified a candidate already, that candidate lies in
//! `handover` again, and the work stage finds nothing left to do.

use std::io;
use std::os::unix::fs::PermissionsExt;

use anyhow::Context;
use api::types::Assignment;
use api::{Client, ClientError, ErrorCode};
use model::event::{ArtifactStored, Usage};
use model::{Digest, FailureReason, Stage};
use target::candidate::PACK_FILE;
use tokio::sync::watch;

use super::{Ended, Prepared};
use crate::candidate::{Manifest, Words};
use crate::contain;
use crate::courier::{LARGEST_ARTIFACT, patiently};
use crate::folder::{AttemptFolder, write_durably};
use crate::job::StageOutcome;
use crate::supervise::{
    Ending, Entry, Halt, Settings, Supervision, Watched, assignment_of, end_all_descendants, watched,
};

/// The whole life of a `prepare` process.
pub async fn main(settings: Settings) -> Ended {
    let ended = prepare(&settings).await;
    Ended::of("prepare", &settings.attempt, ended)
}

async fn prepare(settings: &Settings) -> anyhow::Result<Ended> {
    contain::adopt_orphans()?;
    let Settings { attempt, folder, .. } = settings;
    let lock = folder.lock().with_context(|| format!("the volume {}", folder.private().display()))?;
    let _lock = lock.with_context(|| format!("another stage works in {}", folder.private().display()))?;
    place_program(settings).context("our own program for the work stage")?;
    let client = Client::new(&settings.control_plane_url, settings.control_plane_token.clone())?;
    let (activity, activities) = watch::channel("preparing");
    let steps = decide(settings, &client, activity);
    let ended = watched(&client, attempt, folder, activities, steps).await;
    end_all_descendants().await?;
    Ok(match ended? {
        Watched::Ended(Decision::GoOn) => Ended::new(0, format!("attempt {attempt} is prepared")),
        Watched::Ended(Decision::Failed(ending)) => {
            Ended::new(ending.exit_code(), format!("attempt {attempt} ended while it was prepared"))
        }
        Watched::Fenced(why) => Ended::new(
            Ending::Fenced.exit_code(),
            format!("attempt {attempt} is no longer this pod's: {why}"),
        ),
        Watched::Stopped => Ended::new(Ending::Stopped.exit_code(), "told to stop while preparing"),
    })
}

/// What becomes of the pod after this stage.
enum Decision {
    GoOn,
    Failed(Ending),
}

async fn decide(
    settings: &Settings,
    client: &Client,
    activity: watch::Sender<&'static str>,
) -> Result<Decision, Halt> {
    let assignment = assignment_of(client, &settings.attempt).await?;
    let mut supervision = Supervision::new(settings, client, assignment, activity)?;
    match supervision.entry(client).await? {
        Entry::Fresh => {
            begin(&mut supervision).await?;
            match supervision.fetch().await? {
                None => go_on(&supervision.folder, &Prepared::Fresh),
                Some(outcome) => Ok(Decision::Failed(supervision.record_end(outcome).await?)),
            }
        }
        Entry::Verified => go_on_with_candidate(&mut supervision, client).await,
        Entry::Published => {
            let restored = manifest_of(client, &supervision.job.assignment).await?;
            let usage = restored.map(|(manifest, _)| manifest.usage).unwrap_or_default();
            supervision.job.started_at = supervision.job.assignment.created_at;
            supervision.job.write(&supervision.folder).context("the assignment")?;
            go_on(&supervision.folder, &Prepared::Over(StageOutcome::Published { usage }))
        }
    }
}

/// Says that the attempt begins, which can be said once in each epoch, and tells the other stages.
async fn begin(supervision: &mut Supervision<'_>) -> Result<(), Halt> {
    let epoch = supervision.job.assignment.epoch;
    supervision.start().await.map_err(|halt| match halt {
        Halt::Error(error) if is_conflict(&error) => {
            Halt::Error(error.context(format!("another executor has begun with epoch {epoch} already")))
        }
        halt @ (Halt::Error(_) | Halt::Fenced(_)) => halt,
    })?;
    Ok(supervision.job.write(&supervision.folder).context("the assignment")?)
}

fn is_conflict(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ClientError>().is_some_and(|error| error.code() == Some(ErrorCode::EventConflict))
}

/// The candidate of an earlier pod goes on to its pull request.
async fn go_on_with_candidate(supervision: &mut Supervision<'_>, client: &Client) -> Result<Decision, Halt> {
    // Its time runs since it was claimed: nobody here knows when an earlier pod began.
    supervision.job.started_at = supervision.job.assignment.created_at;
    let outcome = match restore(supervision, client).await? {
        Ok(outcome) => outcome,
        Err(detail) => {
            let usage = Usage::default();
            let lost = StageOutcome::failed(Stage::Publish, FailureReason::Lost, detail, usage);
            return Ok(Decision::Failed(supervision.record_end(lost).await?));
        }
    };
    begin(supervision).await?;
    match supervision.fetch().await? {
        None => {
            write_outcome(&supervision.folder, &outcome)?;
            go_on(&supervision.folder, &Prepared::Verified)
        }
        // What keeps a forge from being fetched keeps it from being pushed to as well, and passes.
        Some(StageOutcome::Failed(failed)) if failed.reason == FailureReason::Internal => {
            let parked = supervision.parked(failed.detail);
            go_on(&supervision.folder, &Prepared::Over(parked))
        }
        Some(outcome) => Ok(Decision::Failed(supervision.record_end(outcome).await?)),
    }
}

/// The last thing that this stage writes for the others. When the agent has nothing to do, its stage is told so by
/// an outcome that is there already; `finish` believes what lies in `given`.
fn go_on(folder: &AttemptFolder, prepared: &Prepared) -> Result<Decision, Halt> {
    if let Prepared::Over(outcome) = prepared {
        write_outcome(folder, outcome)?;
    }
    prepared.write(folder).with_context(|| format!("{}", folder.prepared().display()))?;
    Ok(Decision::GoOn)
}

fn write_outcome(folder: &AttemptFolder, outcome: &StageOutcome) -> anyhow::Result<()> {
    let bytes = serde_json::to_vec(outcome).context("the outcome")?;
    write_durably(&folder.outcome(), &bytes).with_context(|| format!("{}", folder.outcome().display()))
}

/// Brings the verified candidate back from the artifacts of the attempt. The inner error says why that cannot be.
async fn restore(
    supervision: &Supervision<'_>,
    client: &Client,
) -> Result<Result<StageOutcome, String>, Halt> {
    let assignment = &supervision.job.assignment;
    let Some((manifest, bytes)) = manifest_of(client, assignment).await? else {
        return Ok(Err("the control plane does not keep the manifest of its verified candidate; \
                       the task has to be done again"
            .to_owned()));
    };
    let Some(pack) = newest(client, assignment, "pack", LARGEST_ARTIFACT, |_| Some(())).await? else {
        return Ok(Err(format!(
            "the control plane does not keep the objects of its verified candidate (a pack of more than {} MiB is \
             not kept), and the pod that had them is gone; the task has to be done again",
            LARGEST_ARTIFACT >> 20
        )));
    };
    let words = newest(client, assignment, "words", Words::LARGEST, Words::parse).await?;
    let folder = supervision.folder.candidate();
    let write = || -> io::Result<()> {
        std::fs::create_dir_all(&folder)?;
        write_durably(&folder.join(PACK_FILE), &pack.1)?;
        words.map_or(Ok(()), |(_, bytes)| write_durably(&Words::file(&folder), &bytes))?;
        write_durably(&Manifest::file(&folder), &bytes)
    };
    write().with_context(|| format!("{}", folder.display()))?;
    Ok(Ok(StageOutcome::Verified { candidate: manifest.candidate, manifest: Digest::of(&bytes) }))
}

/// The manifest of the candidate that is recorded.
async fn manifest_of(
    client: &Client,
    assignment: &Assignment,
) -> Result<Option<(Manifest, bytes::Bytes)>, Halt> {
    let of_candidate = |bytes: &[u8]| {
        let manifest = Manifest::parse(bytes).ok()?;
        (Some(&manifest.candidate) == assignment.candidate.as_ref()).then_some(manifest)
    };
    newest(client, assignment, "manifest", Manifest::LARGEST, of_candidate).await
}

/// The newest artifact of `kind` that `accept` takes. The client holds the bytes against their name.
async fn newest<T>(
    client: &Client,
    assignment: &Assignment,
    kind: &str,
    limit: u64,
    accept: impl Fn(&[u8]) -> Option<T>,
) -> Result<Option<(T, bytes::Bytes)>, Halt> {
    let fits = |stored: &&ArtifactStored| stored.kind == kind && stored.size <= limit;
    for stored in assignment.artifacts.iter().rev().filter(fits) {
        let found = patiently(|| async {
            match client.artifact(&stored.sha256).await {
                Err(error) if error.code() == Some(ErrorCode::NotFound) => Ok(None),
                answer => answer.map(Some),
            }
        });
        if let Some(bytes) = found.await?
            && let Some(accepted) = accept(&bytes)
        {
            return Ok(Some((accepted, bytes)));
        }
    }
    Ok(None)
}

/// Copies our own program to where the image of the work stage finds it. It appears whole or not at all.
fn place_program(settings: &Settings) -> io::Result<()> {
    let Some(place) = settings.folder.program() else { return Ok(()) };
    let folder = place.parent().ok_or_else(|| io::Error::other("a program needs a folder"))?;
    let unfinished = tempfile::NamedTempFile::new_in(folder)?;
    std::fs::copy(&settings.program, unfinished.path())?;
    std::fs::set_permissions(unfinished.path(), std::fs::Permissions::from_mode(0o755))?;
    unfinished.into_temp_path().persist(&place)?;
    Ok(())
}
