//! The first stage of a pod: takes the assignment, decides what is left to do, and brings what the others need.
//!
//! It holds the credentials of the control plane and of the forge. When it ends well, everything that the other
//! stages are told lies in `given`.

use std::io;
use std::os::unix::fs::PermissionsExt;

use anyhow::Context;
use api::{Client, ClientError, ErrorCode};
use model::event::Usage;
use model::{FailureReason, Stage};
use tokio::sync::watch;

use super::{Ended, Prepared};
use crate::contain;
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
        Entry::Verified => {
            let detail =
                "its verified candidate went with the pod that had it; the task has to be done again";
            let usage = Usage::default();
            let lost = StageOutcome::failed(Stage::Publish, FailureReason::Lost, detail, usage);
            Ok(Decision::Failed(supervision.record_end(lost).await?))
        }
        Entry::Published => {
            let published = StageOutcome::Published { usage: Usage::default() };
            supervision.job.write(&supervision.folder).context("the assignment")?;
            go_on(&supervision.folder, &Prepared::Over(published))
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
