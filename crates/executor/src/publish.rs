//! The second stage: the candidate is verified again from its objects, pushed, and its pull request opened.
//!
//! It runs as a process of its own that has the credentials of the forge and of the control plane, and runs
//! nothing of the repository's or the agent's. Everything that can be measured from git objects is measured
//! again. Each step looks before it acts, so that the stage can be repeated from its beginning after a crash.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use api::ErrorCode;
use api::types::HeartbeatRequest;
use model::event::{BranchPushed, EventKind, PrCreated, Timestamp, Usage};
use model::integrity::Weakening;
use model::secrets::Redactor;
use model::{AttemptId, FailureReason, PathRules, Refused, Stage, TargetSpec, Task, VerifiedChange};
use secrecy::SecretString;
use target::forge::{self, Forge, GitHubAccess};
use target::pull_request::{AgentNote, Facts, PullRequestText};
use target::{
    Expected, Git, Mirror, Network, Occupant, PushOutcome, Rejection, Remote, Repository, changes_between,
    weakenings_of,
};
use tokio::sync::watch;

use crate::agent::CriterionNote;
use crate::candidate::{Manifest, Words};
use crate::fault::Fault;
use crate::folder::AttemptFolder;
use crate::job::{Job, StageOutcome};
use crate::spool::{Recorder, Spool, Voice};
use crate::stage::{self, Stop};
use crate::work::{read_spec, task_of};

/// How long the forge is left alone when it says nothing about it itself.
const PAUSE: Duration = Duration::from_secs(60);

/// What the stage is told by its command line and environment.
pub struct Settings {
    /// The attempt's places.
    pub folder: AttemptFolder,
    /// The attempt.
    pub attempt: AttemptId,
    /// The control plane, with the attempt's own token.
    pub control_plane: api::Client,
    /// The way to the forge.
    pub forge: ForgeAccess,
    /// Knows the secrets of this process.
    pub redactor: Redactor,
    /// Where this process shall die in a test.
    pub fault: Fault,
    /// The clock.
    pub clock: fn() -> jiff::Timestamp,
}

/// The way to the forge and its repositories, as far as it is configured.
#[derive(Debug, Clone, Default)]
pub struct ForgeAccess {
    /// `GITHUB_TOKEN`.
    pub token: Option<SecretString>,
    /// `GITHUB_API_URL`.
    pub api_url: Option<String>,
    /// What git needs to reach a remote.
    pub network: Network,
}

/// The whole life of a `publish` process.
pub async fn main(settings: Settings) -> ExitCode {
    let begun = match stage::begin(&settings.folder).context("the stage cannot begin") {
        Ok(begun) => begun,
        Err(error) => return stage::end(Err(error)),
    };
    let outcome = publish(&settings, begun.cancelled.clone()).await;
    stage::end(outcome)
}

async fn publish(settings: &Settings, cancelled: watch::Receiver<bool>) -> anyhow::Result<StageOutcome> {
    let published = match Publish::prepare(settings, cancelled) {
        Ok(publish) => publish.run().await,
        Err(stop) => Err(stop),
    };
    published.or_else(Stop::into_outcome)
}

/// One candidate on its way to a pull request.
struct Publish<'a> {
    settings: &'a Settings,
    folder: AttemptFolder,
    job: Job,
    manifest: Manifest,
    spec: TargetSpec,
    task: Task,
    /// The repository of this stage alone: it borrows the mirror's objects and receives the candidate's.
    repository: Repository,
    recorder: Recorder,
    cancelled: watch::Receiver<bool>,
}

impl<'a> Publish<'a> {
    fn prepare(settings: &'a Settings, cancelled: watch::Receiver<bool>) -> Result<Self, Stop> {
        let folder = settings.folder.clone();
        let job = Job::read(&folder).with_context(|| format!("{}", folder.assignment().display()))?;
        let manifest = Manifest::read(&folder.candidate()).context("the candidate's manifest")?;
        let manifest = manifest.context("there is no complete candidate to publish")?;
        let git = Git::find().context("git is needed")?.with_network(settings.forge.network.clone());
        let mirror = Mirror::of(&git, folder.data(), &job.assignment.target_id);
        let mirror = mirror.repository().context("the mirror of the target")?;
        let spec = read_spec(&mirror, &job)?;
        let task = task_of(&spec, &job)?;
        remove_left_over(&folder)?;
        let repository = Repository::init_borrowing(&folder.publishing(), &mirror)
            .context("the repository to publish from")?;
        let spool = Spool::open(&folder.spool(job.assignment.epoch)).context("the spool")?;
        let (subject, redactor) = (job.subject(), settings.redactor.clone());
        let voice = Voice::new(subject, job.assignment.epoch, settings.clock, redactor);
        let recorder = Recorder::new(spool, voice);
        Ok(Self { settings, folder, job, manifest, spec, task, repository, recorder, cancelled })
    }

    /// The steps from a candidate to its pull request.
    async fn run(self) -> Result<StageOutcome, Stop> {
        let change = self.verify_again()?;
        self.require_wanted("pushing the branch").await?;
        self.push(&change)?;
        self.settings.fault.reach("after_push");
        self.require_wanted("opening the pull request").await?;
        self.open(&change).await?;
        Ok(StageOutcome::Published { usage: self.manifest.usage })
    }

    /// Receives the candidate's objects, measures the change from them, and judges it by the documents at the
    /// base commit, as if nobody had done so before.
    fn verify_again(&self) -> Result<VerifiedChange, Stop> {
        let Manifest { base, candidate, reports, with_base_files, .. } = &self.manifest;
        if *base != self.job.assignment.base_commit {
            return Err(self.refused(format!("the candidate is made on {base}")));
        }
        let limits = &self.spec.policy.limits;
        let largest_files = u64::from(limits.max_files_changed).saturating_mul(limits.max_file_bytes);
        // A pack is compressed, but holds trees as well.
        let limit = largest_files.saturating_add(64 << 20);
        let pack = self.folder.candidate().join(target::candidate::PACK_FILE);
        let provenance = self.job.provenance(&self.task);
        target::candidate::receive(&self.repository, base, candidate, &provenance, &pack, limit)
            .map_err(|error| self.refused(error.to_string()))?;
        let change = changes_between(&self.repository, base, candidate, &self.settings.redactor);
        let change = change.context("the candidate's change")?;
        let rules = PathRules::for_task(&self.spec, &self.task);
        let permitted = change.permit(&rules, limits).map_err(|refused| self.not_permitted(&refused))?;
        permitted
            .verify(&self.spec.policy, reports.clone(), with_base_files.clone())
            .map_err(|unproven| self.refused(unproven.problems.join("; ")))
    }

    /// Asks the control plane whether the attempt is still this executor's. Without an answer nothing goes on.
    async fn require_wanted(&self, activity: &str) -> Result<(), Stop> {
        if *self.cancelled.borrow() {
            return Err(StageOutcome::Stopped.into());
        }
        let request = HeartbeatRequest { activity: activity.to_owned() };
        match self.settings.control_plane.heartbeat(&self.settings.attempt, &request).await {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some(ErrorCode::Fenced) => Err(StageOutcome::Stopped.into()),
            Err(error) => Err(self.parked(error.to_string(), None)),
        }
    }

    fn push(&self, change: &VerifiedChange) -> Result<(), Stop> {
        let branch = &self.job.assignment.branch;
        let remote = Remote::new(&self.spec.contract.repo_url, self.settings.forge.token.clone());
        let outcome = target::push(&self.repository, &remote, branch, change.commit(), &Expected::Absent);
        match outcome.map_err(|error| self.parked(error.to_string(), None))? {
            PushOutcome::Pushed | PushOutcome::AlreadyThere => {
                let pushed = BranchPushed { branch: branch.clone(), commit: change.commit().clone() };
                self.record(EventKind::BranchPushed(pushed))
            }
            PushOutcome::Occupied(occupant) => Err(self.occupied(&occupant)),
            PushOutcome::Rejected(rejection) => Err(self.rejected(&rejection)),
        }
    }

    async fn open(&self, change: &VerifiedChange) -> Result<(), Stop> {
        let ForgeAccess { token, api_url, network } = &self.settings.forge;
        let access = GitHubAccess {
            api_url: api_url.clone(),
            token: token.clone(),
            https_proxy: network.https_proxy.clone(),
            ..GitHubAccess::default()
        };
        let git = self.repository.git();
        let forge =
            Forge::of_contract(&self.spec.contract, git, access).map_err(|error| self.unopened(&error))?;
        let weakenings = weakenings_of(&self.repository, change.change_set()).context("the changed texts")?;
        let text = self.text(change, &weakenings);
        let branch = &self.job.assignment.branch;
        let opened = forge.open(change, &text, branch).await.map_err(|error| self.unopened(&error))?;
        self.settings.fault.reach("after_pull_request");
        self.record(EventKind::PrCreated(PrCreated {
            number: opened.number,
            url: opened.url,
            branch: branch.clone(),
            commit: change.commit().clone(),
            title: text.title().to_owned(),
        }))
    }

    fn text(&self, change: &VerifiedChange, weakenings: &[Weakening]) -> PullRequestText {
        let redactor = &self.settings.redactor;
        let words = Words::read(&self.folder.candidate());
        let said = words.as_ref().map(|words| &words.agent);
        let summary = said.map(|said| redactor.clean(&said.summary)).unwrap_or_default();
        let cleaned = |note: &CriterionNote| (note.criterion.clone(), redactor.clean(&note.note));
        let criteria: Vec<(String, String)> =
            said.into_iter().flat_map(|said| &said.criteria).map(cleaned).collect();
        PullRequestText::new(&Facts {
            spec: &self.spec,
            task: &self.task,
            attempt: &self.settings.attempt,
            executor: &self.job.executor,
            change,
            agent: AgentNote { summary: &summary, criteria: &criteria },
            sandbox: &self.manifest.sandbox,
            network: words.as_ref().map(|words| words.network.as_slice()).unwrap_or_default(),
            model: self.manifest.model.as_deref(),
            usage: &self.manifest.usage,
            weakenings,
            redactor,
        })
    }

    fn record(&self, kind: EventKind) -> Result<(), Stop> {
        Ok(self.recorder.record(kind, "").context("the spool")?)
    }

    /// The forge or the control plane cannot be used now. Nothing is lost and nothing is computed again.
    fn parked(&self, reason: String, not_before: Option<jiff::Timestamp>) -> Stop {
        let now = self.recorder.now();
        let later = now.checked_add(PAUSE).unwrap_or(now);
        StageOutcome::Parked { reason, not_before: Timestamp::new(not_before.unwrap_or(later)) }.into()
    }

    fn unopened(&self, error: &forge::Error) -> Stop {
        match error {
            forge::Error::RateLimited { .. }
            | forge::Error::Unavailable { .. }
            | forge::Error::Unauthorized { .. } => {
                self.parked(error.to_string(), error.not_before(self.recorder.now()))
            }
            forge::Error::Refused { .. }
            | forge::Error::HeadMoved { .. }
            | forge::Error::NoSuchPullRequest { .. } => self.failed(error.to_string()),
        }
    }

    fn occupied(&self, occupant: &Occupant) -> Stop {
        let branch = &self.job.assignment.branch;
        match occupant {
            Occupant::Ours { commit, attempt } => {
                let reason = format!("`{branch}` holds {commit} of {attempt}");
                StageOutcome::Superseded { reason }.into()
            }
            Occupant::Foreign { tip } => self.failed(format!(
                "`{branch}` exists already and holds {tip}, which is not Leviathan's; it is left alone. \
                 Remove or rename that branch"
            )),
            Occupant::Nobody => self.failed(format!("`{branch}` vanished while it was pushed")),
        }
    }

    fn rejected(&self, rejection: &Rejection) -> Stop {
        let branch = &self.job.assignment.branch;
        match rejection {
            Rejection::StaleLease | Rejection::NonFastForward => {
                self.parked(format!("`{branch}` changed while it was pushed"), None)
            }
            Rejection::Protected { message }
            | Rejection::NameConflict { message }
            | Rejection::Refused { message } => {
                self.failed(format!("the remote refused `{branch}`: {message}"))
            }
        }
    }

    fn failed(&self, detail: impl Into<String>) -> Stop {
        let usage = self.manifest.usage.clone();
        StageOutcome::failed(Stage::Publish, FailureReason::PublishFailed, detail, usage).into()
    }

    /// The gate of `work` does not know the secrets of this process. What else it let through is a bug.
    fn not_permitted(&self, refused: &Refused) -> Stop {
        let first = refused.violations.first().map(ToString::to_string).unwrap_or_default();
        if refused.reason() == FailureReason::SecretFound {
            let usage = self.manifest.usage.clone();
            return StageOutcome::failed(Stage::Publish, FailureReason::SecretFound, first, usage).into();
        }
        self.refused(format!("it holds {} violations: {first}", refused.violations.len()))
    }

    /// The candidate is not what `work` said. Somebody changed it, or there is a bug.
    fn refused(&self, detail: String) -> Stop {
        let detail = format!("the candidate does not pass its second verification: {detail}");
        StageOutcome::failed(Stage::Publish, FailureReason::Internal, detail, Usage::default()).into()
    }
}

/// A repository of an earlier, interrupted publishing.
fn remove_left_over(folder: &AttemptFolder) -> Result<(), Stop> {
    match std::fs::remove_dir_all(folder.publishing()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(anyhow::Error::new(error).context("the repository of an earlier publishing").into())
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
