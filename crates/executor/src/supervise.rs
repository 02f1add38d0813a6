//! The supervisor of one attempt: takes it over from the control plane, runs its two stages as processes with
//! separate environments, and reports.
//!
//! The supervisor holds every credential and therefore runs nothing of the repository's or the agent's. It does
//! not judge anything itself: what the stages found is in the spool, and what they came to decides how the
//! attempt ends. It can be killed at any moment: the stages die with it, and the next one finds its way from
//! the folder and the control plane.

use std::io;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context;
use api::types::{Assignment, HeartbeatRequest};
use api::{Client, ClientError, ErrorCode};
use model::event::{
    AttemptCompleted, AttemptStarted, EventKind, PublishParked, Reason, SandboxReported, Timestamp, Usage,
};
use model::{AttemptId, AttemptState, Contract, FailureReason, Stage};
use secrecy::{ExposeSecret, SecretString};
use target::{Git, Mirror, Remote};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::candidate::Manifest;
use crate::contain;
use crate::courier::{Courier, Undelivered, is_fence};
use crate::fault::Fault;
use crate::folder::AttemptFolder;
use crate::job::{Job, StageOutcome};
use crate::publish::ForgeAccess;
use crate::spool::{Recorder, Spool};
use crate::work::ClaudeAccess;

/// How often the control plane hears that the executor lives, unless its leases are shorter than it usually is.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How soon a new activity is noticed.
const LOOK: Duration = Duration::from_millis(500);

/// What the supervisor is at while the work stage says more.
const WORKING: &str = "working";

/// How long after the attempt's deadline a stage may take to say so itself.
const GRACE: Duration = Duration::from_secs(60);

/// How long publishing waits after its process died.
const PAUSE: Duration = Duration::from_secs(60);

/// What the supervisor is told by its command line and environment.
pub struct Settings {
    /// The data folder.
    pub data: PathBuf,
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
    /// For `work` alone.
    pub claude: ClaudeAccess,
    /// For the mirror and for `publish` alone.
    pub forge: ForgeAccess,
    /// The executor for people: a host and process, or a Job.
    pub executor: String,
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
    /// The exit code of `leviathan executor`.
    pub fn exit_code(self) -> ExitCode {
        match self {
            Self::Completed | Self::Parked => ExitCode::SUCCESS,
            Self::Failed => ExitCode::from(1),
            Self::Stopped => ExitCode::from(2),
            Self::Fenced => ExitCode::from(42),
        }
    }
}

/// The whole life of an executor's supervisor.
pub async fn main(settings: Settings) -> ExitCode {
    match supervise(&settings).await {
        Ok(ending) => ending.exit_code(),
        Err(error) => {
            tracing::error!("attempt {} could not be carried out: {error:#}", settings.attempt);
            ExitCode::from(2)
        }
    }
}

async fn supervise(settings: &Settings) -> anyhow::Result<Ending> {
    contain::adopt_orphans()?;
    let folder = AttemptFolder::new(&settings.data, &settings.attempt);
    let lock = folder.lock().with_context(|| format!("the folder {}", folder.root().display()))?;
    let _lock = lock.with_context(|| format!("another executor works in {}", folder.root().display()))?;
    // A stage of a supervisor that was killed may still be ending; its files are not touched before it has.
    let ending = folder.clone();
    drop(tokio::task::spawn_blocking(move || ending.lock_stage()).await.expect("a lock does not panic")?);
    let client = Client::new(&settings.control_plane_url, settings.control_plane_token.clone())?;
    let (activity, activities) = watch::channel("preparing");
    let ended = tokio::select! {
        ended = carry_out(settings, folder.clone(), client.clone(), activity) => ended,
        fenced = heartbeats(&client, &settings.attempt, &folder, activities) => Err(fenced),
        stopped = terminated() => stopped.map_err(Halt::Error).and(Ok(Ending::Stopped)),
    };
    // Whatever the reason is: nothing of the attempt survives its supervisor.
    end_all_descendants().await?;
    match ended {
        Ok(ending) => Ok(ending),
        Err(Halt::Fenced(why)) => {
            tracing::warn!("attempt {} is no longer ours: {why}", settings.attempt);
            Ok(Ending::Fenced)
        }
        Err(Halt::Error(error)) => Err(error),
    }
}

/// Why the supervisor stops without recording an end.
#[derive(Debug)]
enum Halt {
    Fenced(String),
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

/// One attempt under supervision.
struct Supervision<'a> {
    settings: &'a Settings,
    folder: AttemptFolder,
    job: Job,
    recorder: Recorder,
    courier: Courier,
    activity: watch::Sender<&'static str>,
    fault: Fault,
}

/// Where an attempt that was handed to us stands.
enum Entry {
    /// Nobody has worked on it.
    Fresh,
    /// Its candidate is verified, recorded and here.
    Verified,
    /// Its candidate is verified and recorded, but not here any more.
    Gone,
    /// Its pull request is recorded.
    Published,
}

async fn carry_out(
    settings: &Settings,
    folder: AttemptFolder,
    client: Client,
    activity: watch::Sender<&'static str>,
) -> Result<Ending, Halt> {
    let assignment = assignment_of(&client, &settings.attempt).await?;
    let mut supervision = Supervision::new(settings, folder, &client, assignment, activity)?;
    match supervision.entry(&client).await? {
        Entry::Fresh => {
            supervision.start().await?;
            match supervision.work().await? {
                StageOutcome::Verified { .. } => supervision.publish().await,
                ended @ (StageOutcome::Published { .. }
                | StageOutcome::Parked { .. }
                | StageOutcome::Superseded { .. }
                | StageOutcome::Failed(_)
                | StageOutcome::Stopped) => supervision.finish(ended).await,
            }
        }
        Entry::Verified => {
            supervision.start().await?;
            supervision.publish().await
        }
        Entry::Gone => {
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

/// Asks until there is an answer.
async fn assignment_of(client: &Client, attempt: &AttemptId) -> Result<Assignment, Halt> {
    loop {
        match client.assignment(attempt).await {
            Ok(assignment) => return Ok(assignment),
            Err(error) if error.is_transient() => {
                tracing::warn!("{error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

impl<'a> Supervision<'a> {
    fn new(
        settings: &'a Settings,
        folder: AttemptFolder,
        client: &Client,
        assignment: Assignment,
        activity: watch::Sender<&'static str>,
    ) -> anyhow::Result<Self> {
        let spool = Spool::open(&folder.spool(assignment.epoch)).context("the spool")?;
        let job = Job {
            started_at: Timestamp::new((settings.clock)()),
            executor: settings.executor.clone(),
            sandbox: SandboxReported { profile: "none".to_owned(), layers: contain::layers() },
            assignment,
        };
        let recorder = Recorder::new(spool.clone(), job.subject(), job.assignment.epoch, settings.clock);
        let fault = Fault::at(settings.fault.clone());
        let courier = Courier::new(client.clone(), spool, recorder.clone(), &folder, fault.clone());
        Ok(Self { settings, folder, job, recorder, courier, activity, fault })
    }

    /// What is left to do, after an earlier executor's events have arrived.
    async fn entry(&mut self, client: &Client) -> Result<Entry, Halt> {
        self.courier.deliver().await?;
        let assignment = assignment_of(client, &self.settings.attempt).await?;
        let state = assignment.state;
        self.job.assignment = assignment;
        match state {
            AttemptState::Created => Ok(Entry::Fresh),
            AttemptState::Published => Ok(Entry::Published),
            AttemptState::Verified => {
                let manifest =
                    Manifest::read(&self.folder.candidate()).context("the candidate's manifest")?;
                match manifest {
                    Some(found) if Some(&found.candidate) == self.job.assignment.candidate.as_ref() => {
                        // The attempt goes on; it does not begin anew.
                        let earlier = Job::read(&self.folder).context("the attempt's assignment")?;
                        self.job = Job { assignment: self.job.assignment.clone(), ..earlier };
                        Ok(Entry::Verified)
                    }
                    Some(_) | None => Ok(Entry::Gone),
                }
            }
            AttemptState::Started | AttemptState::Candidate => Err(Halt::Error(anyhow::anyhow!(
                "an executor of the same epoch was interrupted while the agent worked; \
                 the scheduler will mark the attempt lost"
            ))),
            AttemptState::Completed
            | AttemptState::Failed
            | AttemptState::Cancelled
            | AttemptState::Lost
            | AttemptState::Superseded => Err(Halt::Fenced(format!("it is {state}"))),
        }
    }

    /// Says that the attempt begins, and waits until that is recorded.
    async fn start(&mut self) -> Result<(), Halt> {
        let started =
            AttemptStarted { epoch: self.job.assignment.epoch, executor: self.settings.executor.clone() };
        self.record(EventKind::AttemptStarted(started))?;
        self.courier.deliver().await?;
        self.fault.reach("after_started");
        Ok(())
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
    async fn publish(&mut self) -> Result<Ending, Halt> {
        self.activity.send_replace("publishing");
        self.job.write(&self.folder).context("the assignment")?;
        // Nothing is pushed before its verification is recorded.
        self.courier.deliver().await?;
        let outcome = match self.run_stage("publish", self.environment_of_publish()).await? {
            Ok(outcome) => outcome,
            Err(how) => StageOutcome::Parked {
                reason: format!("the process of the publish stage ended without a result: {how}"),
                not_before: Timestamp::new(later(self.recorder.now())),
            },
        };
        self.finish(outcome).await
    }

    /// Brings the base commit into the mirror, with the credentials that the work stage must not have. An
    /// outcome is the end of the attempt.
    async fn fetch(&mut self) -> Result<Option<StageOutcome>, Halt> {
        let failed = |reason, detail: String| {
            Ok(Some(StageOutcome::failed(Stage::Prepare, reason, detail, Usage::default())))
        };
        let assignment = &self.job.assignment;
        let contract = match Contract::parse("registered contract.yaml", assignment.contract.as_bytes()) {
            Ok(contract) => contract,
            Err(problems) => return failed(FailureReason::ConfigInvalid, problems.to_string()),
        };
        let ForgeAccess { token, network, .. } = self.settings.forge.clone();
        let git = Git::find().context("git is needed")?.with_network(network);
        let mirror = Mirror::of(&git, &self.settings.data, &assignment.target_id);
        let base = assignment.base_commit.clone();
        let fetched = tokio::task::spawn_blocking(move || -> anyhow::Result<bool> {
            if mirror.repository().is_ok_and(|here| here.has_commit(&base).unwrap_or(false)) {
                return Ok(true);
            }
            mirror.fetch(&Remote::new(&contract.repo_url, token), &contract.default_branch)?;
            Ok(mirror.repository()?.has_commit(&base)?)
        });
        match fetched.await.expect("the fetch does not panic") {
            Ok(true) => Ok(None),
            Ok(false) => {
                let base = &self.job.assignment.base_commit;
                failed(
                    FailureReason::BaseMovedConflict,
                    format!("{base} is not on the default branch any more"),
                )
            }
            Err(error) => {
                failed(FailureReason::Internal, format!("the repository cannot be fetched: {error:#}"))
            }
        }
    }

    /// Records how the attempt ended, and clears up.
    async fn finish(&mut self, outcome: StageOutcome) -> Result<Ending, Halt> {
        // What the stages left must be recorded before the end: nothing can follow it.
        self.courier.deliver().await?;
        let (event, ending) = match outcome {
            StageOutcome::Verified { .. } => {
                return Err(anyhow::anyhow!("publishing cannot end with a verified candidate").into());
            }
            StageOutcome::Stopped => {
                return Err(Halt::Fenced(
                    "a stage was told that the attempt is not ours any more".to_owned(),
                ));
            }
            StageOutcome::Published { usage } => {
                let now = Timestamp::new(self.recorder.now());
                let duration_ms = now.millis_since(self.job.started_at).try_into().unwrap_or(0);
                let completed = AttemptCompleted { duration_ms, usage };
                (EventKind::AttemptCompleted(completed), Ending::Completed)
            }
            StageOutcome::Parked { reason, not_before } => {
                (EventKind::PublishParked(PublishParked { reason, not_before }), Ending::Parked)
            }
            StageOutcome::Superseded { reason } => {
                (EventKind::AttemptSuperseded(Reason { reason }), Ending::Failed)
            }
            StageOutcome::Failed(failed) => (EventKind::AttemptFailed(failed), Ending::Failed),
        };
        self.record(event)?;
        self.courier.deliver().await?;
        let leftovers = if ending == Ending::Parked { Leftovers::Trees } else { Leftovers::All };
        if let Err(error) = clear(&self.folder, &leftovers) {
            tracing::warn!("{} could not be cleared up: {error}", self.folder.root().display());
        }
        Ok(ending)
    }

    /// Runs one stage as a process with exactly `environment`, and delivers meanwhile. The inner error says in
    /// words how a process ended that said nothing.
    async fn run_stage(
        &mut self,
        stage: &str,
        environment: Vec<(&'static str, String)>,
    ) -> Result<Result<StageOutcome, String>, Halt> {
        let mut process = tokio::process::Command::new(&self.settings.program)
            .args(["executor", "--stage", stage])
            .env_clear()
            .envs(environment)
            .current_dir(self.folder.root())
            // A signal to the group of the supervisor is the supervisor's to answer.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} cannot be started", self.settings.program.display()))?;
        // The stage reads the end of its standard input as the end of its supervisor.
        let lifeline = process.stdin.take();
        let mut stdout = process.stdout.take().context("stdout was asked to be a pipe")?;
        let mut said = Vec::new();
        let patience = self.job.remaining(self.recorder.now()) + GRACE;
        let heard = tokio::select! {
            undelivered = self.courier.run() => return Err(undelivered.into()),
            heard = tokio::time::timeout(patience, stdout.read_to_end(&mut said)) => heard,
        };
        drop(lifeline);
        if heard.is_err() {
            process.kill().await.context("the stage")?;
        }
        let status = process.wait().await.context("the stage")?;
        // A stage that was killed could not end what it had started; it is ours now.
        end_all_descendants().await?;
        match serde_json::from_slice(&said) {
            Ok(outcome) if status.success() => Ok(Ok(outcome)),
            Ok(_) | Err(_) if heard.is_err() => Ok(Ok(self.timed_out())),
            Ok(_) | Err(_) => {
                self.fault.follow();
                Ok(Err(status.to_string()))
            }
        }
    }

    fn timed_out(&self) -> StageOutcome {
        let detail = "the attempt reached its deadline and did not stop by itself";
        StageOutcome::failed(Stage::Agent, FailureReason::TimedOut, detail, Usage::default())
    }

    /// The agent's credential and no other.
    fn environment_of_work(&self) -> Vec<(&'static str, String)> {
        let ClaudeAccess { api_key, base_url, model, prices } = &self.settings.claude;
        let secret = |value: &Option<SecretString>| value.as_ref().map(|it| it.expose_secret().to_owned());
        let mut environment = self.environment_of_every_stage();
        environment.extend(present("LEVIATHAN_COMMAND_PATH", self.settings.command_path.clone()));
        environment.extend(present("ANTHROPIC_API_KEY", secret(api_key)));
        environment.extend(present("ANTHROPIC_BASE_URL", base_url.clone()));
        environment.extend(present("LEVIATHAN_MODEL", model.clone()));
        environment.extend(present("LEVIATHAN_MODEL_PRICES", prices.clone()));
        environment
    }

    /// The credentials of the forge and of the control plane, and not the agent's.
    fn environment_of_publish(&self) -> Vec<(&'static str, String)> {
        let ForgeAccess { token, api_url, network } = &self.settings.forge;
        let text = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        let mut environment = self.environment_of_every_stage();
        environment.extend([
            ("LEVIATHAN_CONTROL_PLANE_URL", self.settings.control_plane_url.clone()),
            ("LEVIATHAN_CONTROL_PLANE_TOKEN", self.settings.control_plane_token.expose_secret().to_owned()),
        ]);
        environment.extend(present("GITHUB_TOKEN", token.as_ref().map(|it| it.expose_secret().to_owned())));
        environment.extend(present("GITHUB_API_URL", api_url.clone()));
        environment.extend(present("HTTPS_PROXY", network.https_proxy.clone()));
        environment.extend(present("SSL_CERT_FILE", text(&network.certificates)));
        environment.extend(present("SSH_AUTH_SOCK", text(&network.ssh_agent)));
        environment
    }

    fn environment_of_every_stage(&self) -> Vec<(&'static str, String)> {
        let mut environment = vec![
            ("PATH", contain::DEFAULT_PATH.to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("LEVIATHAN_ATTEMPT_ID", self.settings.attempt.to_string()),
            ("LEVIATHAN_DATA_DIR", self.settings.data.to_string_lossy().into_owned()),
        ];
        environment.extend(present("LEVIATHAN_LOG", self.settings.log_filter.clone()));
        environment.extend(present("LEVIATHAN_FAULT", self.settings.fault.clone()));
        environment
    }

    fn known_usage(&self) -> anyhow::Result<Usage> {
        let manifest = Manifest::read(&self.folder.candidate()).context("the candidate's manifest")?;
        Ok(manifest.map(|manifest| manifest.usage).unwrap_or_default())
    }

    fn record(&self, kind: EventKind) -> anyhow::Result<()> {
        self.recorder.record(kind, "").context("the spool")
    }
}

/// Tells the control plane again and again that the executor lives. Returns when it is to live no longer.
async fn heartbeats(
    client: &Client,
    attempt: &AttemptId,
    folder: &AttemptFolder,
    activities: watch::Receiver<&'static str>,
) -> Halt {
    let activity_now = || {
        let stage = *activities.borrow();
        let told = (stage == WORKING).then(|| std::fs::read_to_string(folder.activity()).ok()).flatten();
        told.unwrap_or_else(|| stage.to_owned())
    };
    loop {
        let activity = activity_now();
        let rest = match client.heartbeat(attempt, &HeartbeatRequest { activity: activity.clone() }).await {
            Ok(heard) => HEARTBEAT.min(Duration::from_millis(heard.lease_ms / 4)),
            // The attempt may go on without an answer; nothing is published without one.
            Err(error) if error.is_transient() => HEARTBEAT / 5,
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

/// Completes when this process is asked to end.
async fn terminated() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

async fn end_all_descendants() -> anyhow::Result<()> {
    let ended = tokio::task::spawn_blocking(|| contain::end_all_descendants(|_, _| {})).await;
    Ok(ended.expect("ending processes does not panic")?)
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

fn later(now: jiff::Timestamp) -> jiff::Timestamp {
    now.checked_add(PAUSE).unwrap_or(now)
}

fn present(name: &'static str, value: Option<String>) -> Option<(&'static str, String)> {
    value.map(|value| (name, value))
}
