//! `leviathan executor`: carries out one attempt. With `--stage` it is one of the two processes that it starts
//! for that, or one of the containers of a pod; each is given only the credentials that its stage needs.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use executor::fault::Fault;
use executor::folder::{AttemptFolder, PodPart};
use executor::publish::ForgeAccess;
use executor::work::ClaudeAccess;
use executor::{pod, publish, supervise, work};
use model::AttemptId;
use model::secrets::Redactor;
use secrecy::{ExposeSecret, SecretString};

use crate::data::DataFolder;
use crate::logging;
use crate::sandbox::SandboxSettings;
use crate::telemetry::Telemetry;

/// What `leviathan executor` is told. A launcher gives all of it by the environment.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Only one stage, as a process that the executor starts itself or as a container of a pod
    #[arg(long, value_enum, hide = true)]
    stage: Option<Stage>,
    /// The attempt to carry out
    #[arg(long, env = "LEVIATHAN_ATTEMPT_ID", value_name = "ID")]
    attempt: AttemptId,
    #[command(flatten)]
    data: DataFolder,
    /// In a pod: the folder under which the pod's volumes are mounted, instead of a data folder
    #[arg(long, env = "LEVIATHAN_POD_DIR", value_name = "FOLDER")]
    pod_dir: Option<PathBuf>,
    /// What the log and the pull request call this executor [default: the host and the process]
    #[arg(long, env = "LEVIATHAN_EXECUTOR_NAME", value_name = "NAME")]
    executor_name: Option<String>,
    /// In a pod: the file that says why a container ended [default: /dev/termination-log, if there is one]
    #[arg(long, env = "LEVIATHAN_TERMINATION_LOG", value_name = "FILE")]
    termination_log: Option<PathBuf>,
    /// In a pod: how many seconds the courier, once told to end, waits for the last words of the other stages
    #[arg(long, default_value_t = 20, value_name = "SECONDS", hide = true)]
    patience: u64,
    #[command(flatten)]
    control_plane: ControlPlane,
    #[command(flatten)]
    claude: Claude,
    #[command(flatten)]
    forge: Forge,
    /// The search path of the agent's commands and of the checks
    #[arg(long, env = "LEVIATHAN_COMMAND_PATH", value_name = "PATH")]
    command_path: Option<String>,
    #[command(flatten)]
    sandbox: SandboxSettings,
    /// Where this process or a stage shall die, in a test
    #[arg(long, env = "LEVIATHAN_FAULT", hide = true)]
    fault: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// In a pod: the assignment and the fetch
    Prepare,
    /// In a pod: the lease and the delivery of what the work stage leaves
    Courier,
    /// The agent, the gate and the checks
    Work,
    /// The second verification, the push and the pull request
    Publish,
    /// In a pod: the publishing and the end
    Finish,
}

#[derive(Args)]
struct ControlPlane {
    /// Where the control plane is
    #[arg(long, env = "LEVIATHAN_CONTROL_PLANE_URL", value_name = "URL")]
    api_url: Option<String>,
    /// The token of this attempt. Better given by the environment
    #[arg(long, env = "LEVIATHAN_CONTROL_PLANE_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<SecretString>,
}

#[derive(Args)]
struct Claude {
    /// The key of the Claude API. Better given by the environment
    #[arg(long, env = "ANTHROPIC_API_KEY", hide_env_values = true, value_name = "KEY")]
    anthropic_api_key: Option<SecretString>,
    /// Where the Claude API is
    #[arg(long, env = "ANTHROPIC_BASE_URL", value_name = "URL")]
    anthropic_base_url: Option<String>,
    /// The model that works, when the attempt names none
    #[arg(long, env = "LEVIATHAN_MODEL")]
    model: Option<String>,
    /// What the model costs, in dollars per million tokens: input/output/cache write/cache read, like
    /// 4/20/5/0.40. Needed for a model that is not in the built-in list
    #[arg(long, env = "LEVIATHAN_MODEL_PRICES", value_name = "PRICES")]
    model_prices: Option<String>,
}

#[derive(Args)]
struct Forge {
    /// The token of the forge. Better given by the environment
    #[arg(long, env = "GITHUB_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    github_token: Option<SecretString>,
    /// Where the REST interface of GitHub Enterprise is
    #[arg(long, env = "GITHUB_API_URL", value_name = "URL")]
    github_api_url: Option<String>,
    /// The proxy to the forge
    #[arg(long, env = "HTTPS_PROXY", value_name = "URL")]
    https_proxy: Option<String>,
    /// Certificates that are trusted instead of the system's
    #[arg(long, env = "SSL_CERT_FILE", value_name = "FILE")]
    certificates: Option<PathBuf>,
    /// The ssh agent with the key for repositories that are reached by ssh
    #[arg(long, env = "SSH_AUTH_SOCK", hide_env_values = true, value_name = "SOCKET")]
    ssh_agent: Option<PathBuf>,
}

/// Runs the attempt or the stage. Exit code 0: the pull request is there, or waits for the forge; 1: the attempt
/// failed; 2: it could not be carried out; 42: it is no longer this executor's.
pub(crate) fn run(arguments: Arguments) -> ExitCode {
    let redactor = arguments.redactor();
    // The work stage runs what the agent wrote, and a pod tells only the control plane: neither calls a collector.
    let _telemetry = match (arguments.stage, &arguments.pod_dir) {
        (None, None) => logging::start_with_spans("leviathan-executor", &redactor),
        (Some(_), _) | (None, Some(_)) => {
            logging::start(&redactor);
            Telemetry::default()
        }
    };
    let ran = tokio::runtime::Runtime::new().context("cannot start the async runtime").and_then(|runtime| {
        match &arguments.pod_dir {
            Some(volumes) => {
                let volumes = std::path::absolute(volumes).context("the folder of the volumes")?;
                runtime.block_on(run_in_pod(arguments, &volumes))
            }
            None => runtime.block_on(run_on_machine(arguments)),
        }
    });
    ran.unwrap_or_else(|error| {
        anstream::eprintln!("leviathan: {}", redactor.clean(&crate::explained(&error)));
        ExitCode::from(2)
    })
}

async fn run_on_machine(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let data = std::path::absolute(arguments.data.path()?).context("the data folder")?;
    let folder = AttemptFolder::new(&data, &arguments.attempt);
    match arguments.stage {
        None => Ok(supervise::main(supervision(arguments, folder)?).await),
        Some(Stage::Work) => Ok(work::main(work(arguments, folder)?).await),
        Some(Stage::Publish) => Ok(publish::main(publishing(arguments, folder)?).await),
        Some(Stage::Prepare | Stage::Courier | Stage::Finish) => {
            bail!("this stage runs in a pod: LEVIATHAN_POD_DIR names the folder of its volumes")
        }
    }
}

async fn run_in_pod(arguments: Arguments, volumes: &Path) -> anyhow::Result<ExitCode> {
    let places = |part| AttemptFolder::in_pod(volumes, part);
    let (termination_log, redactor) = (arguments.termination_log.clone(), arguments.redactor());
    let ended = match arguments.stage {
        Some(Stage::Prepare) => pod::prepare::main(supervision(arguments, places(PodPart::Prepare))?).await,
        Some(Stage::Courier) => pod::courier::main(courier(arguments, places(PodPart::Courier))?).await,
        Some(Stage::Work) => pod::work::main(work(arguments, places(PodPart::Work))?).await,
        Some(Stage::Finish) => pod::finish::main(supervision(arguments, places(PodPart::Finish))?).await,
        Some(Stage::Publish) => {
            return Ok(publish::main(publishing(arguments, places(PodPart::Finish))?).await);
        }
        None => bail!("in a pod (LEVIATHAN_POD_DIR is set) each container names its stage with --stage"),
    };
    say_why(termination_log, &redactor.clean(&ended.why));
    Ok(ExitCode::from(ended.code))
}

/// Leaves one line for whoever looks at the container afterwards. Best effort: the log has it as well.
fn say_why(file: Option<PathBuf>, why: &str) {
    // More is not shown, and the file is shared with nobody.
    const LONGEST: usize = 1000;
    let file = file.unwrap_or_else(|| PathBuf::from("/dev/termination-log"));
    let line: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect();
    let opened = std::fs::File::options().write(true).truncate(true).open(file);
    let _ = opened.and_then(|mut file| writeln!(file, "{line}"));
}

fn supervision(arguments: Arguments, folder: AttemptFolder) -> anyhow::Result<supervise::Settings> {
    let redactor = arguments.redactor();
    let (control_plane_url, control_plane_token) = arguments.control_plane.required()?;
    Ok(supervise::Settings {
        redactor,
        folder,
        attempt: arguments.attempt,
        control_plane_url,
        control_plane_token,
        program: our_own_program()?,
        command_path: arguments.command_path,
        sandbox: arguments.sandbox.into_sandbox()?,
        claude: arguments.claude.into(),
        forge: arguments.forge.into(),
        executor: arguments.executor_name.unwrap_or_else(name_of_this_process),
        log_filter: std::env::var("LEVIATHAN_LOG").ok(),
        fault: arguments.fault,
        clock: jiff::Timestamp::now,
    })
}

fn courier(arguments: Arguments, folder: AttemptFolder) -> anyhow::Result<pod::courier::Settings> {
    let redactor = arguments.redactor();
    let (url, token) = arguments.control_plane.required()?;
    Ok(pod::courier::Settings {
        redactor,
        attempt: arguments.attempt,
        folder,
        control_plane: api::Client::new(&url, token)?,
        patience: Duration::from_secs(arguments.patience),
        fault: Fault::at(arguments.fault),
        clock: jiff::Timestamp::now,
    })
}

fn work(arguments: Arguments, folder: AttemptFolder) -> anyhow::Result<work::Settings> {
    let redactor = arguments.redactor();
    let path = arguments.command_path.map(|path| ("PATH".to_owned(), path));
    Ok(work::Settings {
        redactor,
        folder,
        program: our_own_program()?,
        environment: path.into_iter().collect::<BTreeMap<_, _>>(),
        sandbox: arguments.sandbox.into_sandbox()?,
        claude: arguments.claude.into(),
        fault: Fault::at(arguments.fault),
        clock: jiff::Timestamp::now,
    })
}

fn publishing(arguments: Arguments, folder: AttemptFolder) -> anyhow::Result<publish::Settings> {
    let redactor = arguments.redactor();
    let (url, token) = arguments.control_plane.required()?;
    Ok(publish::Settings {
        redactor,
        folder,
        attempt: arguments.attempt,
        control_plane: api::Client::new(&url, token)?,
        forge: arguments.forge.into(),
        fault: Fault::at(arguments.fault),
        clock: jiff::Timestamp::now,
    })
}

impl Arguments {
    /// Knows every secret that this process was given.
    fn redactor(&self) -> Redactor {
        let given = [&self.control_plane.token, &self.claude.anthropic_api_key, &self.forge.github_token];
        Redactor::new(given.into_iter().flatten().map(ExposeSecret::expose_secret))
    }
}

impl ControlPlane {
    fn required(self) -> anyhow::Result<(String, SecretString)> {
        let url = self.api_url.context("LEVIATHAN_CONTROL_PLANE_URL is not set: the launcher sets it")?;
        let token = self.token.context("LEVIATHAN_CONTROL_PLANE_TOKEN is not set: the launcher sets it")?;
        Ok((url, token))
    }
}

impl From<Claude> for ClaudeAccess {
    fn from(claude: Claude) -> Self {
        let Claude { anthropic_api_key, anthropic_base_url, model, model_prices } = claude;
        Self { api_key: anthropic_api_key, base_url: anthropic_base_url, model, prices: model_prices }
    }
}

impl From<Forge> for ForgeAccess {
    fn from(forge: Forge) -> Self {
        let Forge { github_token, github_api_url, https_proxy, certificates, ssh_agent } = forge;
        let network = target::Network { https_proxy, certificates, ssh_agent };
        Self { token: github_token, api_url: github_api_url, network }
    }
}

fn our_own_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("this program does not know its own file")
}

/// `HOST, process NUMBER`, for people.
fn name_of_this_process() -> String {
    let host = std::fs::read_to_string(Path::new("/proc/sys/kernel/hostname")).unwrap_or_default();
    format!("{}, process {}", host.trim(), std::process::id())
}
