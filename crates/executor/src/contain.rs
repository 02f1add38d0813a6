//! Runs one foreign command so that nothing of it outlives the call.
//!
//! Every tool command of an agent and every check of a policy goes through [`Containment::run`]. Our own
//! program is executed once more as a *keeper*: it becomes the reaper of everything the command starts, gives
//! the command a cleared environment, limits and an empty set of descriptors, and when the command ends, runs
//! too long, writes too much or is cancelled, it kills every descendant, also one that called `setsid` or
//! forked twice. The keeper holds one end of a socket whose other end only this process has: if this process is
//! killed, the socket closes and the keeper kills everything as well.
//!
//! Between the command and the rest of the machine stand its [`Walls`]: namespaces, landlock and a filter of system
//! calls. A command whose walls cannot be put up does not run.
//!
//! What this module refuses to know: what the command is for, whether its end is good or bad, and which walls this
//! machine can hold.

pub mod bubblewrap;
mod descriptors;
mod disk;
mod enter;
mod keeper;
pub mod landlock;
mod log;
mod plan;
pub mod probe;
mod processes;
mod seccomp;
mod walls;
mod warden;
mod way_out;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::Child;

use crate::network::Proxy;

pub use log::{Excerpt, excerpt};
pub use plan::{End, Limits, Program};
pub use processes::{Survivors, adopt_orphans, end_all_descendants};
pub use walls::Walls;

/// The search path of every contained command, unless the operator configures another.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Keeps the common tools of Python from leaving caches in the tree, where they would count as changes of whoever
/// ran them: no compiled files, and the caches of pytest under HOME, of ruff and mypy nowhere.
pub const QUIET_TOOLS: [(&str, &str); 4] = [
    ("PYTHONDONTWRITEBYTECODE", "1"),
    ("PYTEST_ADDOPTS", "-o cache_dir=$HOME/.cache/pytest"),
    ("RUFF_NO_CACHE", "true"),
    ("MYPY_CACHE_DIR", "/dev/null"),
];

/// How long the keeper may take, beyond the command's own time, to end everything and report.
const GRACE: Duration = Duration::from_secs(15);

/// How commands are contained on this machine: which program keeps them and what every one of them sees in its
/// environment.
#[derive(Debug, Clone)]
pub struct Containment {
    program: PathBuf,
    environment: BTreeMap<String, String>,
    walls: Walls,
    way_out: Option<Proxy>,
}

/// One command to run.
#[derive(Debug, Clone)]
pub struct Command {
    /// What to run.
    pub program: Program,
    /// The working directory. It must exist.
    pub directory: PathBuf,
    /// A folder of the command's own, made when it is missing: `home` below it is its HOME, `tmp` its TMPDIR.
    /// Commands that share it see each other's caches and installed packages.
    pub scratch: PathBuf,
    /// Variables beside those of the [`Containment`] and HOME and TMPDIR.
    pub environment: BTreeMap<String, String>,
    /// What the command reads from its standard input; empty means `/dev/null`.
    pub stdin: Vec<u8>,
    /// The file that receives what the command writes, up to [`Limits::log_bytes`]. Overwritten.
    pub log: PathBuf,
    /// A second file for what it writes to standard error; without it both go to `log` in their true order.
    pub stderr_log: Option<PathBuf>,
    /// What it may use.
    pub limits: Limits,
}

/// How a contained command ended, when nothing of it runs any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// From its start to its end, without the clearing up.
    pub duration: Duration,
    /// How much it wrote altogether, also what the log left out.
    pub output_bytes: u64,
}

/// Why a command could not be contained. The command may have run; its result must not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The keeper itself could not be started.
    #[error("the keeper `{program}` cannot be started: {source}")]
    Keeper {
        /// The program that was tried.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder for HOME and TMPDIR could not be made.
    #[error("the scratch folder {path} cannot be made: {source}")]
    Scratch {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The keeper could not prepare the containment.
    #[error("the command was not contained: {0}")]
    Setup(String),
    /// A signal ended the keeper. Nothing of ours sends it one, so the command did, or what it started. Its
    /// processes may still run, as after [`Error::KeeperLost`].
    #[error(
        "signal {signal} ended the keeper of a command before it reported; what the command did is unknown"
    )]
    KeeperKilled {
        /// The signal's number.
        signal: i32,
    },
    /// The keeper fell silent without a report: somebody stopped it, or a process does not die. Its command's processes may still run; the caller must stop, and its parent must call
    /// [`end_all_descendants`].
    #[error("the keeper of a command was lost before it reported; what the command did is unknown")]
    KeeperLost,
}

impl Containment {
    /// Commands will be kept by `program contain`, where `program` is a binary whose main calls
    /// [`keeper_main`] for that argument, and see `environment`; PATH is [`DEFAULT_PATH`], LANG is `C.UTF-8` and
    /// [`QUIET_TOOLS`] hold unless it says otherwise. Landlock and the filter of system calls stand around each.
    pub fn new(program: impl Into<PathBuf>, environment: BTreeMap<String, String>) -> Self {
        let ours = [("PATH", DEFAULT_PATH), ("LANG", "C.UTF-8")].into_iter().chain(QUIET_TOOLS);
        let mut all: BTreeMap<_, _> = ours.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        all.extend(environment);
        Self { program: program.into(), environment: all, walls: Walls::filters(Vec::new()), way_out: None }
    }

    /// The same with other walls.
    #[must_use]
    pub fn within(self, walls: Walls) -> Self {
        Self { walls, ..self }
    }

    /// The same with a way to the hosts that `proxy` permits. Namespaces are needed: without them a command that needs
    /// the way does not run. Without any walls the network is open anyway, and the way is not offered.
    #[must_use]
    pub fn with_way_out(self, proxy: Proxy) -> Self {
        Self { way_out: Some(proxy).filter(|_| self.walls.has_filters()), ..self }
    }

    /// The walls around each command.
    pub fn walls(&self) -> &Walls {
        &self.walls
    }

    /// The program that keeps the commands.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Runs `command` and returns when nothing of it runs any more.
    ///
    /// When `cancelled` completes, everything is killed and the end is [`End::Cancelled`]. When the returned
    /// future is dropped, everything is killed too, but nobody waits for it.
    pub async fn run(
        &self,
        command: &Command,
        cancelled: impl Future<Output = ()>,
    ) -> Result<Outcome, Error> {
        make_scratch(command).await?;
        let (mut keeper, lifeline) = self.start_keeper(command).await?;
        let patience = command.limits.timeout + GRACE;
        let report = report_of(&mut keeper, lifeline, self.way_out.as_ref(), cancelled);
        match tokio::time::timeout(patience, report).await {
            Ok(report) => report,
            Err(_too_late) => Err(Error::KeeperLost),
        }
    }

    async fn start_keeper(&self, command: &Command) -> Result<(Child, UnixStream), Error> {
        let failed = |source| Error::Keeper { program: self.program.clone(), source };
        let (mut lifeline, keepers_end) = lifeline().map_err(failed)?;
        let keeper = tokio::process::Command::new(&self.program)
            .arg(plan::KEEPER_ARGUMENT)
            .env_clear()
            .current_dir("/")
            .stdin(keepers_end)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let has_way_out = self.way_out.is_some();
        let plan = plan::Plan::new(command, &self.environment, &self.walls, has_way_out);
        let message = plan.to_bytes(&command.stdin);
        // A keeper that died while it read the plan is noticed by the missing report.
        let _ = lifeline.write_all(&message).await;
        Ok((keeper, lifeline))
    }
}

/// Our end of the lifeline, and the keeper's.
fn lifeline() -> io::Result<(UnixStream, Stdio)> {
    let (ours, keepers) = UnixStream::pair()?;
    let keepers = keepers.into_std()?;
    keepers.set_nonblocking(false)?;
    Ok((ours, Stdio::from(std::os::fd::OwnedFd::from(keepers))))
}

/// Waits for the keeper's report. The lifeline stays open until then, or until `cancelled` closes it.
async fn report_of(
    keeper: &mut Child,
    lifeline: UnixStream,
    way_out: Option<&Proxy>,
    cancelled: impl Future<Output = ()>,
) -> Result<Outcome, Error> {
    let mut stdout = keeper.stdout.take().expect("stdout was asked to be a pipe");
    let mut text = Vec::new();
    let is_complete = tokio::select! {
        read = stdout.read_to_end(&mut text) => read.is_ok(),
        never = serve(way_out, &lifeline) => match never {},
        () = cancelled => {
            drop(lifeline);
            matches!(tokio::time::timeout(GRACE, stdout.read_to_end(&mut text)).await, Ok(Ok(_)))
        }
    };
    if !is_complete {
        return Err(Error::KeeperLost);
    }
    let signal = keeper.wait().await.ok().and_then(|status| status.signal());
    match serde_json::from_slice(&text) {
        Err(_) => Err(signal.map_or(Error::KeeperLost, |signal| Error::KeeperKilled { signal })),
        Ok(plan::Report::NotContained { problem }) => Err(Error::Setup(problem)),
        Ok(plan::Report::Ended { end, duration, output_bytes }) => {
            Ok(Outcome { end, duration, output_bytes })
        }
    }
}

/// Answers what the command asks of the network, for as long as it runs.
async fn serve(way_out: Option<&Proxy>, lifeline: &UnixStream) -> Infallible {
    let Some(proxy) = way_out else { return std::future::pending().await };
    match way_out::received(lifeline).await {
        Ok(listener) => proxy.serve(listener).await,
        // The command meets a port at which nobody answers.
        Err(_) => std::future::pending().await,
    }
}

async fn make_scratch(command: &Command) -> Result<(), Error> {
    for path in [command.home(), command.temporary()] {
        tokio::fs::create_dir_all(&path).await.map_err(|source| Error::Scratch { path, source })?;
    }
    Ok(())
}

impl Command {
    fn home(&self) -> PathBuf {
        self.scratch.join("home")
    }

    fn temporary(&self) -> PathBuf {
        self.scratch.join("tmp")
    }
}

/// The whole life of a keeper process, for the hidden subcommand `contain` of our binaries; `arguments` are
/// those after `contain`. It reads its plan from standard input and reports on standard output.
///
/// Call it before anything else in `main`: the process must have one thread.
pub fn keeper_main(arguments: &[String]) -> ExitCode {
    match arguments {
        [] => keeper::keep(),
        [step, entry] if step == plan::ENTER_ARGUMENT => enter::enter(entry),
        [step, entry] if step == plan::WARDEN_ARGUMENT => warden::watch(entry),
        [step, probes] if step == probe::PROBE_ARGUMENT => probe::try_all(probes),
        [step, lock] if step == probe::LINGER_ARGUMENT => probe::linger(lock),
        [..] => ExitCode::from(2),
    }
}
