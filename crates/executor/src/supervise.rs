//! The supervisor of one attempt: takes it over from the control plane, runs its two stages as processes with
//! separate environments, and reports.
//!
//! The supervisor holds every credential and therefore runs nothing of the repository's or the agent's. It does
//! not judge anything itself: what the stages found is in the spool, and what they came to decides how the
//! attempt ends. It can be killed at any moment: the stages die with it, and the next one finds its way from
//! the folder and the control plane.

mod supervision;
mod watch;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use api::Client;
use model::event::Usage;
use model::secrets::Redactor;
use model::{AttemptId, FailureReason, Stage};
use secrecy::SecretString;
use tracing::Instrument as _;
use tracing::field::Empty;

use crate::candidate::Manifest;
use crate::contain;
use crate::folder::AttemptFolder;
use crate::job::{Job, StageOutcome};
use crate::publish::ForgeAccess;
use crate::sandbox::Sandbox;
use crate::work::ClaudeAccess;

pub(crate) use supervision::{Entry, GRACE, Supervision, assignment_of};
pub(crate) use watch::{Halt, Termination, WORKING, Watched, end_all_descendants, heartbeats, watched};

/// What the supervisor is told by its command line and environment.
pub struct Settings {
    /// The attempt's places.
    pub folder: AttemptFolder,
    /// The attempt.
    pub attempt: AttemptId,
    /// Where the control plane is.
    pub control_plane_url: String,
    /// The attempt's own token.
    pub control_plane_token: SecretString,
    /// Our own program: the stages and keepers are the same file.
    pub program: PathBuf,
    /// PATH of every contained command, unless it is the usual one.
    pub command_path: Option<String>,
    /// For `work` alone: the walls around commands.
    pub sandbox: Sandbox,
    /// For `work` alone.
    pub claude: ClaudeAccess,
    /// For the mirror and for `publish` alone.
    pub forge: ForgeAccess,
    /// The executor for people: a host and process, or a Job.
    pub executor: String,
    /// Knows the secrets of this process.
    pub redactor: Redactor,
    /// What to log, as in `LEVIATHAN_LOG`; the stages log the same.
    pub log_filter: Option<String>,
    /// Where this process or a stage shall die in a test.
    pub fault: Option<String>,
    /// The clock.
    pub clock: fn() -> jiff::Timestamp,
}

/// How the supervision of an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Its pull request is there.
    Completed,
    /// It failed, and that is recorded.
    Failed,
    /// Publishing waits for the forge, and that is recorded.
    Parked,
    /// The attempt is no longer this executor's: cancelled, or handed to another.
    Fenced,
    /// This process was told to stop.
    Stopped,
}

impl Ending {
    /// What it is called in traces.
    fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Parked => "parked",
            Self::Fenced => "fenced",
            Self::Stopped => "stopped",
        }
    }

    /// The exit code of `leviathan executor`.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Completed | Self::Parked => 0,
            Self::Failed => 1,
            Self::Stopped => 2,
            Self::Fenced => 42,
        }
    }
}

/// The whole life of an executor's supervisor.
pub async fn main(settings: Settings) -> ExitCode {
    let span = tracing::info_span!(
        target: api::trace::TARGET,
        "attempt",
        otel.name = "attempt",
        otel.status_code = Empty,
        attempt.id = %settings.attempt,
        attempt.epoch = Empty,
        attempt.ending = Empty,
        target.id = Empty,
        task.id = Empty,
    );
    match supervise(&settings).instrument(span.clone()).await {
        Ok(ending) => {
            span.record("attempt.ending", ending.as_str());
            ending.exit_code().into()
        }
        Err(error) => {
            span.record("otel.status_code", "ERROR");
            tracing::error!("attempt {} could not be carried out: {error:#}", settings.attempt);
            ExitCode::from(2)
        }
    }
}

async fn supervise(settings: &Settings) -> anyhow::Result<Ending> {
    contain::adopt_orphans()?;
    let folder = &settings.folder;
    let lock = folder.lock().with_context(|| format!("the folder {}", folder.private().display()))?;
    let _lock = lock.with_context(|| format!("another executor works in {}", folder.private().display()))?;
    // A stage of a supervisor that was killed may still be ending; its files are not touched before it has.
    let ending = folder.clone();
    drop(tokio::task::spawn_blocking(move || ending.lock_stage()).await.expect("a lock does not panic")?);
    let client = Client::new(&settings.control_plane_url, settings.control_plane_token.clone())?;
    let (activity, activities) = tokio::sync::watch::channel("preparing");
    let steps = carry_out(settings, &client, activity);
    match watched(&client, &settings.attempt, folder, activities, steps).await? {
        Watched::Ended(ending) => Ok(ending),
        Watched::Fenced(_) => Ok(Ending::Fenced),
        Watched::Stopped => Ok(Ending::Stopped),
    }
}

async fn carry_out(
    settings: &Settings,
    client: &Client,
    activity: tokio::sync::watch::Sender<&'static str>,
) -> Result<Ending, Halt> {
    let assignment = assignment_of(client, &settings.attempt).await?;
    let span = tracing::Span::current();
    span.record("attempt.epoch", assignment.epoch.0);
    span.record("target.id", tracing::field::display(&assignment.target_id));
    span.record("task.id", tracing::field::display(&assignment.task_id));
    let mut supervision = Supervision::new(settings, client, assignment, activity)?;
    match supervision.entry(client).await? {
        Entry::Fresh => {
            supervision.start().await?;
            match supervision.work().await? {
                StageOutcome::Verified { .. } => supervision.publish_and_finish().await,
                ended @ (StageOutcome::Published { .. }
                | StageOutcome::Parked { .. }
                | StageOutcome::Superseded { .. }
                | StageOutcome::Failed(_)
                | StageOutcome::Stopped) => supervision.finish(ended).await,
            }
        }
        Entry::Verified if supervision.find_candidate()? => {
            supervision.start().await?;
            supervision.publish_and_finish().await
        }
        Entry::Verified => {
            let folder = supervision.folder.candidate();
            let detail = format!("its verified candidate is not in {} any more", folder.display());
            let usage = Usage::default();
            supervision.finish(StageOutcome::failed(Stage::Publish, FailureReason::Lost, detail, usage)).await
        }
        Entry::Published => {
            let usage = supervision.known_usage()?;
            supervision.finish(StageOutcome::Published { usage }).await
        }
    }
}

/// The steps as they are on one machine, where the folder outlives an executor.
impl Supervision<'_> {
    /// Whether the verified candidate is here. If so, the attempt goes on; it does not begin anew.
    fn find_candidate(&mut self) -> anyhow::Result<bool> {
        let manifest = Manifest::read(&self.folder.candidate()).context("the candidate's manifest")?;
        let is_here =
            manifest.is_some_and(|found| Some(&found.candidate) == self.job.assignment.candidate.as_ref());
        if is_here {
            let earlier = Job::read(&self.folder).context("the attempt's assignment")?;
            self.job = Job { assignment: self.job.assignment.clone(), ..earlier };
        }
        Ok(is_here)
    }

    /// The first stage, from a clean folder to what it came to.
    async fn work(&mut self) -> Result<StageOutcome, Halt> {
        self.activity.send_replace(WORKING);
        clear(&self.folder, &Leftovers::All).context("what an earlier try left in the folder")?;
        self.job.write(&self.folder).context("the assignment")?;
        if let Some(outcome) = self.fetch().await? {
            return Ok(outcome);
        }
        match self.run_stage("work", self.environment_of_work()).await? {
            Ok(outcome) => Ok(outcome),
            Err(how) => {
                let detail = format!("the process of the work stage ended without a result: {how}");
                Ok(StageOutcome::failed(Stage::Agent, FailureReason::Internal, detail, Usage::default()))
            }
        }
    }

    /// The second stage, and the end of the attempt.
    async fn publish_and_finish(&mut self) -> Result<Ending, Halt> {
        self.job.write(&self.folder).context("the assignment")?;
        let outcome = self.publish().await?;
        self.finish(outcome).await
    }

    /// Records how the attempt ended, and clears up.
    async fn finish(&mut self, outcome: StageOutcome) -> Result<Ending, Halt> {
        let ending = self.record_end(outcome).await?;
        let leftovers = if ending == Ending::Parked { Leftovers::Trees } else { Leftovers::All };
        if let Err(error) = clear(&self.folder, &leftovers) {
            tracing::warn!("{} could not be cleared up: {error}", self.folder.private().display());
        }
        Ok(ending)
    }

    fn known_usage(&self) -> anyhow::Result<Usage> {
        let manifest = Manifest::read(&self.folder.candidate()).context("the candidate's manifest")?;
        Ok(manifest.map(|manifest| manifest.usage).unwrap_or_default())
    }
}

/// What of an attempt's folder is removed.
enum Leftovers {
    /// The trees and repositories; the candidate stays, to be published later.
    Trees,
    /// Everything but the spool.
    All,
}

fn clear(folder: &AttemptFolder, leftovers: &Leftovers) -> io::Result<()> {
    let trees = [
        folder.activity(),
        folder.tree(),
        folder.agent(),
        folder.repository(),
        folder.checks(),
        folder.publishing(),
    ];
    let rest = [folder.candidate(), folder.artifacts(), folder.transcript()];
    let rest = match leftovers {
        Leftovers::Trees => &[][..],
        Leftovers::All => &rest[..],
    };
    for path in trees.iter().chain(rest) {
        let removed = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}
