//! Executors as processes on this machine. Each has a session of its own, so that it outlives a scheduler that
//! dies; the next scheduler finds it by the folder of its attempt: a record of who was started, and the lock
//! that the executor holds as long as it lives.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use model::{AttemptId, Epoch};
use rustix::fs::FlockOperation;
use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::{Cause, End, ExecutorSight, LaunchError, Order};

mod detach;

/// How often a process that was asked to end is looked at.
const POLL: Duration = Duration::from_millis(50);

/// How long an executor of an older epoch may take to end before its successor is started.
const GRACE: Duration = Duration::from_secs(10);

/// Starts executors as child processes.
pub struct Worktree {
    program: PathBuf,
    data: PathBuf,
    control_plane: String,
    environment: Vec<(OsString, SecretString)>,
    running: watch::Sender<usize>,
}

/// What is known of a started executor; written before the start, and again once its process is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Launched {
    attempt_id: AttemptId,
    epoch: Epoch,
    #[serde(flatten)]
    process: Option<ProcessName>,
}

/// A process, told apart from a later one that got the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ProcessName {
    pid: i32,
    /// Clock ticks from the machine's start to the process's start, as `/proc/<pid>/stat` says.
    started: u64,
    /// Which start of the machine.
    boot: String,
}

impl Worktree {
    /// Runs `program executor` for each attempt, with the data folder `data`, against the control plane at that
    /// URL. `environment` holds what is passed on of the scheduler's own environment.
    pub fn new(
        program: PathBuf,
        data: PathBuf,
        control_plane: String,
        environment: Vec<(OsString, SecretString)>,
    ) -> Self {
        Self { program, data, control_plane, environment, running: watch::Sender::new(0) }
    }

    pub(super) fn running(&self) -> watch::Receiver<usize> {
        self.running.subscribe()
    }

    pub(super) async fn launch(&self, order: Order<'_>) -> Result<(), LaunchError> {
        self.stop(order.attempt, GRACE).await?;
        let child = self.start(&order).map_err(|source| LaunchError::Failed {
            attempt: order.attempt.clone(),
            step: "started",
            source,
            next: format!(
                "see whether {} can be run and {} written",
                self.program.display(),
                self.data.display()
            ),
        })?;
        self.watch(child);
        Ok(())
    }

    /// Each by itself: one that cannot be seen hides no other.
    pub(super) fn look(
        &self,
        attempts: &[&AttemptId],
    ) -> (BTreeMap<AttemptId, ExecutorSight>, Vec<LaunchError>) {
        let mut sights = BTreeMap::new();
        let mut errors = Vec::new();
        for attempt in attempts {
            match self.observe(attempt) {
                Ok(sight) => {
                    sights.insert((*attempt).clone(), sight);
                }
                Err(error) => errors.push(error),
            }
        }
        (sights, errors)
    }

    fn observe(&self, attempt: &AttemptId) -> Result<ExecutorSight, LaunchError> {
        let Some(launched) = self.launched(attempt)? else { return Ok(ExecutorSight::Absent) };
        let epoch = launched.epoch;
        // The lock is only tried when the process is not seen: an executor that begins at the same moment would
        // find it taken.
        let is_alive = launched.process.is_some_and(|process| process.is_running())
            || is_locked(&self.folder(attempt)).map_err(|source| self.unobservable(attempt, source))?;
        Ok(if is_alive {
            ExecutorSight::Alive { epoch }
        } else {
            ExecutorSight::Gone { epoch, end: End::new(Cause::Ended, "") }
        })
    }

    pub(super) async fn stop(&self, attempt: &AttemptId, grace: Duration) -> Result<(), LaunchError> {
        let Some(launched) = self.launched(attempt)? else { return Ok(()) };
        let Some(process) = launched.process else { return Ok(()) };
        for signal in [Signal::TERM, Signal::KILL] {
            if !process.is_running() {
                return Ok(());
            }
            process.signal_session(signal);
            process.ended_within(grace).await;
        }
        if process.is_running() {
            let source = io::Error::other(format!("process {} does not end", process.pid));
            let next = "end it by hand".to_owned();
            return Err(LaunchError::Failed { attempt: attempt.clone(), step: "stopped", source, next });
        }
        Ok(())
    }

    fn start(&self, order: &Order<'_>) -> io::Result<Child> {
        let folder = self.folder(order.attempt);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let log = File::options().create(true).append(true).mode(0o600).open(folder.join("executor.log"))?;
        let mut launched = Launched { attempt_id: order.attempt.clone(), epoch: order.epoch, process: None };
        // A crash after this line leaves a record without a process: the executor counts as gone, and if it
        // does run, the next epoch fences it.
        write_durably(&folder, &launched)?;
        let mut command = self.command(order);
        command.stdout(log.try_clone()?).stderr(log);
        let child = command.spawn()?;
        launched.process = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(ProcessName::of);
        write_durably(&folder, &launched)?;
        Ok(child)
    }

    fn command(&self, order: &Order<'_>) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("executor").env_clear();
        command.envs(self.environment.iter().map(|(name, value)| (name, value.expose_secret())));
        command
            .env("LEVIATHAN_CONTROL_PLANE_URL", &self.control_plane)
            .env("LEVIATHAN_CONTROL_PLANE_TOKEN", order.token.expose_secret())
            .env("LEVIATHAN_ATTEMPT_ID", order.attempt.as_str())
            .env("LEVIATHAN_DATA_DIR", &self.data);
        command.current_dir("/").stdin(Stdio::null()).kill_on_drop(false);
        detach::into_own_session(&mut command);
        command
    }

    /// Waits for the child in the background, so that it leaves no zombie and whoever watches is woken.
    fn watch(&self, mut child: Child) {
        self.running.send_modify(|running| *running += 1);
        let running = self.running.clone();
        tokio::spawn(async move {
            let ended = child.wait().await;
            tracing::debug!(?ended, "an executor ended");
            running.send_modify(|running| *running -= 1);
        });
    }

    fn launched(&self, attempt: &AttemptId) -> Result<Option<Launched>, LaunchError> {
        let text = match fs::read(record_file(&self.folder(attempt))) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.unobservable(attempt, error)),
        };
        let launched: Launched =
            serde_json::from_slice(&text).map_err(|error| self.unobservable(attempt, error.into()))?;
        if launched.attempt_id == *attempt {
            Ok(Some(launched))
        } else {
            let found = launched.attempt_id.to_string();
            let place = format!("the folder {}", self.folder(attempt).display());
            Err(LaunchError::OtherIdentity { attempt: attempt.clone(), place, found })
        }
    }

    fn unobservable(&self, attempt: &AttemptId, source: io::Error) -> LaunchError {
        let next = format!("see what is wrong with {}", self.folder(attempt).display());
        LaunchError::Failed { attempt: attempt.clone(), step: "observed", source, next }
    }

    fn folder(&self, attempt: &AttemptId) -> PathBuf {
        self.data.join("attempts").join(attempt.as_str())
    }
}

impl std::fmt::Debug for Worktree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worktree")
            .field("program", &self.program)
            .field("data", &self.data)
            .finish_non_exhaustive()
    }
}

impl ProcessName {
    /// The process of that number as it runs now.
    fn of(pid: i32) -> Option<Self> {
        let (_, started) = stat(pid)?;
        Some(Self { pid, started, boot: boot_id()? })
    }

    /// Whether this very process runs. One that ended and was not waited for does not.
    fn is_running(&self) -> bool {
        boot_id().as_ref() == Some(&self.boot)
            && stat(self.pid)
                .is_some_and(|(state, started)| started == self.started && !matches!(state, 'Z' | 'X'))
    }

    /// Sends the signal to every process of the session's first group, which the executor leads.
    fn signal_session(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.pid) {
            // That the group is gone already is what was wanted.
            let _ = kill_process_group(pid, signal);
        }
    }

    async fn ended_within(&self, time: Duration) {
        let deadline = Instant::now() + time;
        while self.is_running() && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The state letter and the start time of a process.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is a name in parentheses that may hold anything, also parentheses and spaces.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let started = fields.nth(18)?.parse().ok()?;
    Some((state, started))
}

fn boot_id() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned())
}

/// Whether somebody works in the attempt's folder: its lock is held.
fn is_locked(folder: &Path) -> io::Result<bool> {
    let file = match File::options().write(true).open(folder.join("lock")) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn record_file(folder: &Path) -> PathBuf {
    folder.join("launched.json")
}

/// Writes the record so that after a crash it is there whole, or as it was before.
fn write_durably(folder: &Path, launched: &Launched) -> io::Result<()> {
    let staged = folder.join("launched.json.new");
    let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(&staged)?;
    file.write_all(&serde_json::to_vec(launched)?)?;
    file.sync_all()?;
    fs::rename(&staged, record_file(folder))?;
    File::open(folder)?.sync_all()
}
