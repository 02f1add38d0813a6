//! `leviathan scheduler`: sees what is to be done and has it done, once or for as long as it runs.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use api::Client;
use clap::Args;
use jiff::SignedDuration;
use model::secrets::Redactor;
use model::{ActorId, AgentChoice, Digest, MicroDollars};
use scheduler::launch::{PASSED_ON, Worktree};
use scheduler::plan::Agent;
use scheduler::{Config, Fault, Launcher, Report, RepositoryAccess};
use secrecy::{ExposeSecret, SecretString};
use target::forge::GitHubAccess;
use target::{Git, Network};
use tokio::sync::watch;

use crate::data::DataFolder;
use crate::{Answer, logging};
use cluster::LauncherSettings;

mod cluster;

/// What `leviathan scheduler` is told.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Make one pass, wait for the executors that it started, look once more, and end
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    control_plane: ControlPlaneAccess,
    #[command(flatten)]
    data: DataFolder,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    launcher: LauncherSettings,
}

/// Where the control plane is, and the operator's token for it.
#[derive(Args)]
struct ControlPlaneAccess {
    /// The control plane
    #[arg(
        long = "control-plane-url",
        env = "LEVIATHAN_CONTROL_PLANE_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8000"
    )]
    url: String,
    /// The operator's token; without it, the one that `leviathan up` keeps in the data folder
    #[arg(long, env = "LEVIATHAN_CONTROL_PLANE_TOKEN", hide_env_values = true)]
    token: Option<SecretString>,
}

/// What a scheduler is told, whether it runs alone or beside a control plane.
#[derive(Args)]
pub(crate) struct Settings {
    /// How long to wait between two passes, such as `10s`
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    interval: Duration,
    /// How long to wait before the forge is asked again about the same pull requests
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    review_interval: Duration,
    /// Who does the work of tasks that do not say so: `claude`, or `command:` and a shell command
    #[arg(long, env = "LEVIATHAN_AGENT", default_value = "claude")]
    agent: AgentChoice,
    /// The model of the claude agent
    #[arg(long, env = "LEVIATHAN_MODEL")]
    model: Option<String>,
    /// How many US dollars the attempts at all targets may cost that are begun on one day, in UTC [default: unlimited]
    #[arg(long, env = "LEVIATHAN_BUDGET_USD_PER_DAY", value_name = "DOLLARS", value_parser = dollars)]
    budget_usd_per_day: Option<MicroDollars>,
    /// The name of this scheduler in the log [default: from the host and the data folder]
    #[arg(long, value_name = "NAME")]
    name: Option<ActorId>,
    /// The token for the forge
    #[arg(long, env = "GITHUB_TOKEN", hide_env_values = true, hide = true)]
    github_token: Option<SecretString>,
    /// The REST interface of a GitHub Enterprise
    #[arg(long, env = "GITHUB_API_URL", hide = true)]
    github_api_url: Option<String>,
    /// The proxy for https
    #[arg(long, env = "HTTPS_PROXY", hide_env_values = true, hide = true)]
    https_proxy: Option<String>,
    /// The certificates that git trusts
    #[arg(long, env = "SSL_CERT_FILE", hide = true)]
    certificates: Option<PathBuf>,
    /// The socket of the ssh agent
    #[arg(long, env = "SSH_AUTH_SOCK", hide = true)]
    ssh_agent: Option<PathBuf>,
    /// Where this process shall die, in a test
    #[arg(long, env = "LEVIATHAN_FAULT", hide = true)]
    fault: Option<String>,
}

impl Settings {
    /// The token for the forge, if it was given.
    pub(crate) fn github_token(&self) -> Option<&SecretString> {
        self.github_token.as_ref()
    }
}

/// Runs until SIGTERM or SIGINT, or for one pass.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<Answer> {
    let data = arguments.data.path()?;
    let client = arguments.control_plane.client(&data)?;
    let redactor = Redactor::new(arguments.settings.github_token().map(ExposeSecret::expose_secret));
    let _telemetry = logging::start_with_spans("leviathan-scheduler", &redactor);
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    runtime.block_on(async {
        let config = arguments.settings.config(client, data)?;
        let config = arguments.launcher.apply(config).await?;
        let stop = told_to_stop()?;
        if arguments.once {
            let report = scheduler::run_once(config, stop).await?;
            return Ok(told(&report));
        }
        scheduler::run(config, stop).await?;
        Ok(Answer::Yes)
    })
}

fn told(report: &Report) -> Answer {
    for problem in &report.problems {
        anstream::eprintln!("leviathan: {problem}");
    }
    if report.problems.is_empty() { Answer::Yes } else { Answer::No }
}

impl ControlPlaneAccess {
    /// A client with the operator's token.
    fn client(&self, data: &Path) -> anyhow::Result<Client> {
        client(&self.url, self.token.as_ref(), data)
    }
}

/// A client with the operator's token: the one that was given, else the one that the data folder keeps.
pub(crate) fn client(url: &str, token: Option<&SecretString>, data: &Path) -> anyhow::Result<Client> {
    let token = match token {
        Some(token) => token.clone(),
        None => match std::fs::read_to_string(token_file(data)) {
            Ok(token) => SecretString::from(token.trim().to_owned()),
            Err(_) => bail!(
                "LEVIATHAN_CONTROL_PLANE_TOKEN is not set, and there is no {}; set it to the control plane's token",
                token_file(data).display()
            ),
        },
    };
    Ok(Client::new(url, token)?)
}

/// Where `leviathan up` keeps the token that it made.
pub(crate) fn token_file(data: &Path) -> PathBuf {
    data.join("token")
}

impl Settings {
    /// What a scheduler is told when nobody tells it anything but by the environment.
    pub(crate) fn from_environment() -> anyhow::Result<Self> {
        from_environment()
    }

    /// The configuration of a scheduler that works in the data folder `data`.
    pub(crate) fn config(self, client: Client, data: PathBuf) -> anyhow::Result<Config> {
        std::fs::create_dir_all(&data)
            .with_context(|| format!("cannot make the data folder {}", data.display()))?;
        let data =
            data.canonicalize().with_context(|| format!("cannot find the data folder {}", data.display()))?;
        let program = std::env::current_exe().context("cannot tell which program this is")?;
        let launcher = Worktree::new(program, data.clone(), client.base().to_owned(), passed_on());
        let network = Network {
            https_proxy: self.https_proxy.clone(),
            certificates: self.certificates,
            ssh_agent: self.ssh_agent,
        };
        let github = GitHubAccess {
            api_url: self.github_api_url,
            token: self.github_token.filter(|token| !is_empty(token)),
            https_proxy: self.https_proxy,
            ..GitHubAccess::default()
        };
        Ok(Config {
            client,
            actor: self.name.unwrap_or_else(|| name_of(&data)),
            launcher: Launcher::Worktree(launcher),
            config_maps: None,
            leadership: None,
            agent: Agent { choice: self.agent, model: self.model },
            budget_per_day: self.budget_usd_per_day,
            access: RepositoryAccess { git: Git::find()?.with_network(network), github },
            interval: self.interval,
            review_interval: self.review_interval,
            fault: Fault::at(self.fault),
            data,
        })
    }
}

/// What a part of the command line says when only the environment speaks.
fn from_environment<T: Args>() -> anyhow::Result<T> {
    #[derive(clap::Parser)]
    struct Alone<T: Args> {
        #[command(flatten)]
        settings: T,
    }
    Ok(<Alone<T> as clap::Parser>::try_parse_from(["leviathan"])?.settings)
}

/// The configuration `config` for a namespace of a cluster, with what the environment says of launchers. Begins to
/// listen to the cluster.
pub(crate) fn in_cluster(
    config: Config,
    client: kube::Client,
    namespace: &str,
    image: &str,
) -> anyhow::Result<Config> {
    let settings: LauncherSettings = from_environment()?;
    Ok(settings.with(client, namespace, image.to_owned(), config))
}

/// The same after a restart, and another one for another machine or data folder: by it a scheduler knows which
/// attempts are its own to start again.
fn name_of(data: &Path) -> ActorId {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String =
        host.trim().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(60).collect();
    let folder = Digest::of(data.as_os_str().as_encoded_bytes());
    let name = format!("scheduler@{host}/{}", &folder.as_str()[..8]);
    ActorId::parse(name).expect("letters, digits and `@`, `/`, `-` make an actor id")
}

/// What executors are given of this process's environment.
fn passed_on() -> Vec<(OsString, SecretString)> {
    // A fault that a test set is for executors too; a release build has none.
    let fault = cfg!(debug_assertions).then_some("LEVIATHAN_FAULT");
    let names = PASSED_ON.iter().copied().chain(fault);
    names.filter_map(|name| Some((name.into(), std::env::var(name).ok()?.into()))).collect()
}

fn is_empty(secret: &SecretString) -> bool {
    secrecy::ExposeSecret::expose_secret(secret).is_empty()
}

/// Becomes true at SIGTERM or SIGINT.
pub(crate) fn told_to_stop() -> anyhow::Result<watch::Receiver<bool>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("Stopping: nothing more is claimed, and executors go on.");
        stop.send_replace(true);
    });
    Ok(stopped)
}

fn dollars(text: &str) -> Result<MicroDollars, String> {
    MicroDollars::parse(text)
        .ok_or_else(|| format!("`{text}` is no amount in US dollars such as `20` or `2.50`"))
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let parsed: SignedDuration =
        text.parse().map_err(|_| format!("`{text}` is no duration: expected such as `10s` or `500ms`"))?;
    let duration = Duration::try_from(parsed).map_err(|_| format!("`{text}` is negative"))?;
    if duration < Duration::from_millis(10) {
        return Err(format!("`{text}` is too short: at least `10ms`"));
    }
    Ok(duration)
}
