//! The first stage: an agent changes a tree, the change is judged, and the invariants are run at its commit.
//!
//! It runs as a process of its own that has the agent's credential and no other: it cannot reach the control
//! plane or the forge. What it finds out it writes to the spool, and the candidate to its folder, from where
//! `publish` verifies it again.

mod agent_tree;
mod baseline;
mod network;
mod rounds;
mod tools;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use api::types::Assignment;
use model::documents::{AgentChoice, Document};
use model::event::{EventKind, NetworkUse, SandboxReported, Usage};
use model::secrets::Redactor;
use model::{FailureReason, PathRules, Stage, TargetSpec, Task};
use secrecy::SecretString;
use target::{Git, Mirror, PrepareError, Repository, SnapshotError, spec};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::agent::Agent;
use crate::agent::claude::{self, Claude};
use crate::agent::command::CommandAgent;
use crate::checks::{self, Checks, SetUp, export, set_up};
use crate::contain::{self, Containment};
use crate::fault::Fault;
use crate::folder::{AttemptFolder, PAUSED_YES};
use crate::job::{Job, StageOutcome};
use crate::sandbox::Sandbox;
use crate::spool::{Recorder, Spool, Voice};
use crate::stage::{self, Stop};
use crate::toolbox::Bounds;
use agent_tree::{AgentTree, Reading};
use network::Network;

/// What the stage is told by its command line and environment.
#[derive(Debug)]
pub struct Settings {
    /// The attempt's places.
    pub folder: AttemptFolder,
    /// Our own program, for the keepers of commands.
    pub program: PathBuf,
    /// What every contained command sees in its environment, beside what the containment sets.
    pub environment: BTreeMap<String, String>,
    /// The walls around commands.
    pub sandbox: Sandbox,
    /// The way to the Claude API.
    pub claude: ClaudeAccess,
    /// Knows the secrets of this process.
    pub redactor: Redactor,
    /// Where this process shall die in a test.
    pub fault: Fault,
    /// The clock.
    pub clock: fn() -> jiff::Timestamp,
}

/// The way to the Claude API, as far as it is configured.
#[derive(Debug, Default)]
pub struct ClaudeAccess {
    /// `ANTHROPIC_API_KEY`.
    pub api_key: Option<SecretString>,
    /// `ANTHROPIC_BASE_URL`.
    pub base_url: Option<String>,
    /// `LEVIATHAN_MODEL`.
    pub model: Option<String>,
    /// `LEVIATHAN_MODEL_PRICES`, as it was written: a wrong one is the attempt's failure, which people read.
    pub prices: Option<String>,
}

/// The whole life of a `work` process.
pub async fn main(settings: Settings) -> ExitCode {
    let begun = match stage::begin(&settings.folder).context("the stage cannot begin") {
        Ok(begun) => begun,
        Err(error) => return stage::end(Err(error)),
    };
    let outcome = work(&settings, begun.cancelled.clone()).await;
    stage::end(outcome)
}

/// The stage itself, until it comes to something or `cancelled` becomes true.
pub(crate) async fn work(
    settings: &Settings,
    cancelled: watch::Receiver<bool>,
) -> anyhow::Result<StageOutcome> {
    let worked = match Work::prepare(settings, cancelled).await {
        Ok(work) => work.run().await,
        Err(stop) => Err(stop),
    };
    worked.or_else(Stop::into_outcome)
}

/// One attempt at work.
struct Work<'a> {
    settings: &'a Settings,
    folder: AttemptFolder,
    job: Job,
    spec: TargetSpec,
    task: Task,
    rules: PathRules,
    /// Our own repository: it borrows the mirror's objects and receives the candidate's.
    repository: Repository,
    tree: AgentTree,
    /// How commands of the agent are contained.
    containment: Containment,
    /// What is known of the walls; nothing before they are proven.
    sandbox: SandboxReported,
    network: Network,
    checks: Checks,
    recorder: Recorder,
    bounds: Bounds,
    usage: Usage,
}

impl<'a> Work<'a> {
    /// Reads the documents at the base commit and lays out what the attempt needs.
    async fn prepare(settings: &'a Settings, cancelled: watch::Receiver<bool>) -> Result<Self, Stop> {
        let folder = settings.folder.clone();
        let job = Job::read(&folder).with_context(|| format!("{}", folder.assignment().display()))?;
        let deadline = Instant::now() + job.remaining((settings.clock)());
        let git = Git::find().context("git is needed")?;
        let mirror = Mirror::of(&git, folder.data(), &job.assignment.target_id);
        let mirror = mirror.repository().context("the mirror of the target")?;
        let spec = read_spec(&mirror, &job)?;
        let task = task_of(&spec, &job)?;
        let repository =
            Repository::init_borrowing(&folder.repository(), &mirror).context("the attempt's repository")?;
        let containment = Containment::new(&settings.program, settings.environment.clone());
        let network = Network::new(&spec.policy.network, &settings.sandbox.private_hosts);
        let checks = Checks::new(
            containment.clone(),
            repository.clone(),
            folder.checks(),
            &spec.policy,
            settings.redactor.clone(),
        );
        let spool = Spool::open(&folder.spool(job.assignment.epoch)).context("the spool")?;
        Ok(Self {
            settings,
            rules: PathRules::for_task(&spec, &task),
            recorder: Recorder::new(
                spool,
                Voice::new(job.subject(), job.assignment.epoch, settings.clock, settings.redactor.clone()),
            ),
            bounds: Bounds::new(deadline, cancelled),
            usage: Usage::default(),
            tree: AgentTree::new(folder.tree()),
            folder,
            job,
            spec,
            task,
            repository,
            containment,
            network,
            sandbox: SandboxReported { profile: settings.sandbox.profile.to_string(), layers: Vec::new() },
            checks,
        })
    }

    /// The steps of an attempt up to its verified candidate.
    async fn run(mut self) -> Result<StageOutcome, Stop> {
        self.prove_the_walls().await?;
        self.check_base().await?;
        self.make_tree().await?;
        let mut agent = self.agent()?;
        self.go_rounds(&mut agent).await
    }

    /// Walls that do not withstand the self-test, or are weaker than the policy demands, let nothing run.
    async fn prove_the_walls(&mut self) -> Result<(), Stop> {
        self.say("testing the sandbox");
        let sandbox = self.settings.sandbox.clone().demanded_by(self.spec.policy.sandbox);
        let proven = sandbox.prove(&self.containment, self.folder.private()).await;
        self.sandbox = match &proven {
            Ok(proven) => proven.report.clone(),
            Err(unavailable) => unavailable.report.clone(),
        };
        if let Ok(proven) = &proven {
            self.sandbox.layers.push(self.network.layer(proven.containment.walls()));
        }
        self.record(EventKind::SandboxReported(self.sandbox.clone()), "")?;
        let unavailable =
            |problem: String| self.failed(Stage::Prepare, FailureReason::SandboxUnavailable, problem);
        let containment = proven.map_err(|it| unavailable(it.to_string()))?.containment;
        self.network.can_be_opened(containment.walls()).map_err(|problem| unavailable(problem.to_owned()))?;
        let for_setup = self.network.reached_from(NetworkUse::Setup, &containment);
        let for_checks = self.network.reached_from(NetworkUse::Checks, &containment);
        self.checks.set_containment(for_setup, for_checks);
        self.containment = self.network.reached_from(NetworkUse::Agent, &containment);
        Ok(())
    }

    /// The tree that the agent will change: the base commit's files, with the policy's `setup` run in it.
    async fn make_tree(&mut self) -> Result<(), Stop> {
        let (tree, scratch) = (self.folder.tree(), self.folder.agent());
        export(&self.repository, &self.job.assignment.base_commit, &tree)
            .await
            .context("the agent's tree")?;
        std::fs::create_dir_all(&scratch).context("the agent's folder")?;
        let setup = &self.spec.policy.setup;
        if setup.is_empty() {
            return Ok(());
        }
        self.say("running setup");
        let containment = &self.checks.setup_containment;
        let ended = set_up(containment, setup, &tree, &scratch, &scratch, &self.bounds).await;
        self.record_network()?;
        match ended.map_err(|error| self.stop_of_checks(error))? {
            SetUp::Done => self.remember_setup().await,
            SetUp::Failed { problem, log } => {
                self.keep_artifact("log", "setup.log", &log)?;
                Err(self.failed(Stage::Prepare, FailureReason::ConfigInvalid, problem))
            }
        }
    }

    /// What `setup` left is not the agent's; what it changed of the base could not be told from the agent's work.
    async fn remember_setup(&mut self) -> Result<(), Stop> {
        let reading = self.reading();
        let remembered = self.tree.remember_setup(&reading).await;
        remembered.map_err(|error| match error {
            PrepareError::ChangedBase(_) | PrepareError::Unreadable(SnapshotError::TooLarge(_)) => {
                self.failed(Stage::Prepare, FailureReason::ConfigInvalid, error.to_string())
            }
            PrepareError::Unreadable(error) => {
                anyhow::Error::new(error).context("the tree cannot be read after setup").into()
            }
        })
    }

    /// Who does the work, as it was pinned when the attempt was claimed.
    fn agent(&self) -> Result<Agent, Stop> {
        let invalid = |detail: String| self.failed(Stage::Prepare, FailureReason::ConfigInvalid, detail);
        let choice: AgentChoice = self
            .job
            .assignment
            .agent
            .parse()
            .map_err(|error| invalid(format!("the attempt's agent: {error}")))?;
        match choice {
            AgentChoice::Command(line) => {
                let agent = CommandAgent::new(line, self.containment.clone(), self.folder.agent());
                Ok(Agent::Command(agent))
            }
            AgentChoice::Claude => self.claude(),
        }
    }

    fn claude(&self) -> Result<Agent, Stop> {
        let ClaudeAccess { api_key, base_url, model, prices } = &self.settings.claude;
        let invalid = |detail: String| self.failed(Stage::Prepare, FailureReason::ConfigInvalid, detail);
        let Some(key) = api_key else {
            let detail = "the agent is `claude`, but ANTHROPIC_API_KEY is not set where the executor runs";
            return Err(invalid(detail.to_owned()));
        };
        let budget = self.spec.policy.limits.budget_usd.0;
        let mut config = claude::Config::new(key.clone(), budget, self.folder.transcript());
        let folder = self.folder.clone();
        config.origin = Some(claude::Origin {
            base: self.job.assignment.base_commit.clone(),
            tree: self.folder.tree(),
            provenance: self.job.provenance(&self.task),
        });
        config.is_paused = Arc::new(move || waits_for_an_operator(&folder));
        if let Some(prices) = prices {
            let prices = prices.parse();
            let prices = prices.map_err(|problem| invalid(format!("LEVIATHAN_MODEL_PRICES: {problem}")))?;
            config.prices = Some(prices);
        }
        if let Some(base_url) = base_url {
            config.base_url = base_url.clone();
        }
        // What was pinned at the claim is recorded; what the environment says is only the default.
        if let Some(model) = self.job.assignment.model.as_ref().or(model.as_ref()) {
            config.model = model.clone();
        }
        let claude = Claude::new(config)
            .map_err(|failure| self.failed(Stage::Prepare, failure.reason(), failure.to_string()))?;
        Ok(Agent::Claude(Box::new(claude)))
    }

    /// What the agent's tree is read into.
    fn reading(&self) -> Reading {
        Reading {
            repository: self.repository.clone(),
            base: self.job.assignment.base_commit.clone(),
            provenance: self.job.provenance(&self.task),
            redactor: self.settings.redactor.clone(),
        }
    }

    /// Says what the stage is at. People read it; nothing depends on it, and an attempt does not fail for it.
    fn say(&self, activity: &str) {
        let _ = std::fs::write(self.folder.activity(), activity);
    }

    fn record(&self, kind: EventKind, step: &str) -> Result<(), Stop> {
        Ok(self.recorder.record(kind, step).context("the spool")?)
    }

    fn keep_artifact(&self, kind: &str, name: &str, content: &std::path::Path) -> Result<(), Stop> {
        let redactor = &self.settings.redactor;
        let kept = crate::job::keep_artifact(&self.folder, redactor, kind, name, content);
        Ok(kept.with_context(|| format!("{}", content.display()))?)
    }

    fn failed(&self, stage: Stage, reason: FailureReason, detail: impl Into<String>) -> Stop {
        StageOutcome::failed(stage, reason, detail, self.usage.clone()).into()
    }

    /// Why the checks could not be run, when that is no finding about them.
    fn stop_of_checks(&self, error: checks::Error) -> Stop {
        match error {
            checks::Error::Interrupted => self.interrupted(Stage::Checks),
            // Tried again, it would only cost the same once more.
            checks::Error::Containment(error @ contain::Error::KeeperKilled { .. }) => self.failed(
                Stage::Checks,
                FailureReason::InvariantFailed,
                format!("a check or what it runs attacked its sandbox: {error}"),
            ),
            checks::Error::Export(_) | checks::Error::Containment(_) | checks::Error::File { .. } => {
                anyhow::Error::new(error).context("the checks could not be run").into()
            }
        }
    }

    /// The deadline has passed or the attempt was cancelled.
    fn interrupted(&self, stage: Stage) -> Stop {
        use crate::toolbox::Interrupted;
        match self.bounds.check() {
            Err(Interrupted::Cancelled) => StageOutcome::Stopped.into(),
            Ok(()) | Err(Interrupted::DeadlinePassed) => {
                let seconds = self.job.assignment.timeout_seconds;
                let detail = format!("the attempt may take {seconds} s, and they have passed");
                self.failed(stage, FailureReason::TimedOut, detail)
            }
        }
    }
}

/// The documents at the base commit. Both stages read them there, never from the agent's tree.
pub(crate) fn read_spec(mirror: &Repository, job: &Job) -> Result<TargetSpec, Stop> {
    let assignment = &job.assignment;
    let invalid = |detail: String| -> Stop {
        StageOutcome::failed(Stage::Prepare, FailureReason::ConfigInvalid, detail, Usage::default()).into()
    };
    let spec = spec::read(mirror, &assignment.base_commit, registered(assignment));
    let spec = spec.map_err(|error| invalid(error.to_string()))?;
    if spec.digests.policy != assignment.policy_digest {
        return Err(invalid(format!(
            "policy.yaml at {} is not the one that the attempt was claimed with",
            assignment.base_commit
        )));
    }
    Ok(spec)
}

/// The documents that do not come from the repository, under the names that messages use.
fn registered(assignment: &Assignment) -> spec::Registered<'_> {
    fn document<'a>(file: &'a str, text: &'a str) -> Document<'a> {
        Document { file, content: Some(text.as_bytes()) }
    }
    spec::Registered {
        contract: Some(document("registered contract.yaml", &assignment.contract)),
        policy: assignment.operator_policy.as_deref().map(|text| document("operator policy.yaml", text)),
        backlog: assignment.backlog.as_deref().map(|text| document("registered backlog.yaml", text)),
    }
}

/// The task at the base commit, if it is still the one that was claimed.
pub(crate) fn task_of(spec: &TargetSpec, job: &Job) -> Result<Task, Stop> {
    let assignment = &job.assignment;
    match spec.backlog.task(&assignment.task_id) {
        Some(task) if task.revision() == assignment.task_revision => Ok(task.clone()),
        Some(_) | None => {
            let detail = format!(
                "backlog.yaml at {} has no task `{}` of the revision that the attempt was claimed with",
                assignment.base_commit, assignment.task_id
            );
            Err(StageOutcome::failed(Stage::Prepare, FailureReason::ConfigInvalid, detail, Usage::default())
                .into())
        }
    }
}

/// Whether the target is paused, which people see as what the attempt is at.
fn waits_for_an_operator(folder: &AttemptFolder) -> bool {
    const PAUSED: &str = "paused: the model is asked nothing until an operator resumes";
    let is_paused = std::fs::read(folder.paused()).is_ok_and(|told| told == PAUSED_YES.as_bytes());
    let says_so = || std::fs::read(folder.activity()).is_ok_and(|told| told == PAUSED.as_bytes());
    if is_paused != says_so() {
        let _ = std::fs::write(folder.activity(), if is_paused { PAUSED } else { "the agent works" });
    }
    is_paused
}
