//! The steps of an attempt that need a credential: what is left to do, the fetch, the start, the publishing in a
//! process of its own, and the record of the end. The supervisor of one machine and the stages of a pod take them
//! in their own order.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use api::Client;
use api::types::Assignment;
use model::event::{AttemptCompleted, AttemptStarted, EventKind, PublishParked, Reason, Timestamp, Usage};
use model::{AttemptId, AttemptState, Contract, FailureReason, Stage};
use secrecy::{ExposeSecret, SecretString};
use target::{Git, Mirror, Remote};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use super::watch::{ENDING, Halt, end_all_descendants};
use super::{Ending, Settings};
use crate::contain;
use crate::courier::Courier;
use crate::fault::Fault;
use crate::folder::AttemptFolder;
use crate::job::{Job, StageOutcome};
use crate::publish::ForgeAccess;
use crate::spool::{Recorder, Spool, Voice};
use crate::work::ClaudeAccess;

/// How long after the attempt's deadline a stage may take to say so itself.
pub(crate) const GRACE: Duration = Duration::from_secs(60);

/// How long publishing waits after its process died.
const PAUSE: Duration = Duration::from_secs(60);

/// One attempt under supervision.
pub(crate) struct Supervision<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) folder: AttemptFolder,
    pub(crate) job: Job,
    pub(crate) recorder: Recorder,
    pub(crate) courier: Courier,
    pub(crate) activity: watch::Sender<&'static str>,
    pub(crate) fault: Fault,
}

/// Where an attempt that was handed to us stands.
pub(crate) enum Entry {
    /// Nobody has worked on it.
    Fresh,
    /// Its candidate is verified and recorded.
    Verified,
    /// Its pull request is recorded.
    Published,
}

/// Asks until there is an answer.
pub(crate) async fn assignment_of(client: &Client, attempt: &AttemptId) -> Result<Assignment, Halt> {
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
    /// What an executor needs for `assignment`; it begins now.
    pub(crate) fn new(
        settings: &'a Settings,
        client: &Client,
        assignment: Assignment,
        activity: watch::Sender<&'static str>,
    ) -> anyhow::Result<Self> {
        let job = Job {
            started_at: Timestamp::new((settings.clock)()),
            executor: settings.executor.clone(),
            assignment,
        };
        Self::of(settings, client, job, activity)
    }

    /// What an executor needs to go on with `job`.
    pub(crate) fn of(
        settings: &'a Settings,
        client: &Client,
        job: Job,
        activity: watch::Sender<&'static str>,
    ) -> anyhow::Result<Self> {
        let folder = settings.folder.clone();
        let epoch = job.assignment.epoch;
        let spool = Spool::open(&folder.spool(epoch)).context("the spool")?;
        let voice = Voice::new(job.subject(), epoch, settings.clock, settings.redactor.clone());
        let recorder = Recorder::new(spool.clone(), voice.clone());
        let fault = Fault::at(settings.fault.clone());
        let courier = Courier::new(client.clone(), spool, voice, &folder, fault.clone());
        let courier = courier.context("the folder of the attempt")?;
        Ok(Self { settings, folder, job, recorder, courier, activity, fault })
    }

    /// What is left to do, after an earlier executor's events have arrived.
    pub(crate) async fn entry(&mut self, client: &Client) -> Result<Entry, Halt> {
        self.courier.deliver().await?;
        let assignment = assignment_of(client, &self.settings.attempt).await?;
        let state = assignment.state;
        self.job.assignment = assignment;
        match state {
            AttemptState::Created => Ok(Entry::Fresh),
            AttemptState::Verified => Ok(Entry::Verified),
            AttemptState::Published => Ok(Entry::Published),
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
    pub(crate) async fn start(&mut self) -> Result<(), Halt> {
        let started =
            AttemptStarted { epoch: self.job.assignment.epoch, executor: self.settings.executor.clone() };
        self.record(EventKind::AttemptStarted(started))?;
        self.courier.deliver().await?;
        self.fault.reach("after_started");
        Ok(())
    }

    /// The second stage, as a process of its own. What it came to.
    pub(crate) async fn publish(&mut self) -> Result<StageOutcome, Halt> {
        self.activity.send_replace("publishing");
        // Nothing is pushed before its verification is recorded.
        self.courier.deliver().await?;
        match self.run_stage("publish", self.environment_of_publish()).await? {
            Ok(outcome) => Ok(outcome),
            Err(how) => {
                let reason = format!("the process of the publish stage ended without a result: {how}");
                Ok(self.parked(reason))
            }
        }
    }

    /// The forge cannot be used now; it is asked again in a while.
    pub(crate) fn parked(&self, reason: String) -> StageOutcome {
        let now = self.recorder.now();
        let later = now.checked_add(PAUSE).unwrap_or(now);
        StageOutcome::Parked { reason, not_before: Timestamp::new(later) }
    }

    /// Brings the base commit into the mirror, with the credentials that the work stage must not have. An
    /// outcome is the end of the attempt.
    pub(crate) async fn fetch(&mut self) -> Result<Option<StageOutcome>, Halt> {
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
        let mirror = Mirror::of(&git, self.folder.data(), &assignment.target_id);
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

    /// Records how the attempt ended.
    pub(crate) async fn record_end(&mut self, outcome: StageOutcome) -> Result<Ending, Halt> {
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
        self.activity.send_replace(ENDING);
        self.courier.deliver().await?;
        Ok(ending)
    }

    /// Runs one stage as a process with exactly `environment`, and delivers meanwhile. The inner error says in
    /// words how a process ended that said nothing.
    pub(crate) async fn run_stage(
        &mut self,
        stage: &str,
        environment: Vec<(&'static str, String)>,
    ) -> Result<Result<StageOutcome, String>, Halt> {
        let mut process = tokio::process::Command::new(&self.settings.program)
            .args(["executor", "--stage", stage])
            .env_clear()
            .envs(environment)
            .current_dir(self.folder.private())
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
    pub(crate) fn environment_of_work(&self) -> Vec<(&'static str, String)> {
        let ClaudeAccess { api_key, base_url, model, prices } = &self.settings.claude;
        let secret = |value: &Option<SecretString>| value.as_ref().map(|it| it.expose_secret().to_owned());
        let mut environment = self.environment_of_every_stage();
        environment.extend(present("LEVIATHAN_COMMAND_PATH", self.settings.command_path.clone()));
        environment.extend(self.settings.sandbox.variables());
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
            self.folder.variable(),
        ];
        environment.extend(present("LEVIATHAN_LOG", self.settings.log_filter.clone()));
        environment.extend(present("LEVIATHAN_FAULT", self.settings.fault.clone()));
        environment
    }

    fn record(&self, kind: EventKind) -> anyhow::Result<()> {
        self.recorder.record(kind, "").context("the spool")
    }
}

fn present(name: &'static str, value: Option<String>) -> Option<(&'static str, String)> {
    value.map(|value| (name, value))
}
