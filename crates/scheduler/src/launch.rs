//! How an executor comes to run, is looked at, and is stopped. Every launcher starts the same program with the
//! same variables; what the executor does then is not known here.

pub mod kubernetes;
pub mod worktree;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use model::{AttemptId, Epoch, TargetId, TaskId};
use secrecy::SecretString;

pub use kubernetes::Kubernetes;
pub use worktree::Worktree;

/// The variables that an executor is given of the scheduler's own environment: those of the specification, and
/// what the machine needs to reach the network and a collector of spans. Beside them it gets the four that say which
/// attempt it works on, and nothing else. Its stages get none of the collector's: they run what others wrote.
pub const PASSED_ON: &[&str] = &[
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_BASE_URL",
    "GITHUB_API_URL",
    "GITHUB_TOKEN",
    "HOME",
    "HTTPS_PROXY",
    "LEVIATHAN_COMMAND_PATH",
    "LEVIATHAN_I_UNDERSTAND_NO_SANDBOX",
    "LEVIATHAN_LOG",
    "LEVIATHAN_MODEL",
    "LEVIATHAN_MODEL_PRICES",
    "LEVIATHAN_SANDBOX",
    "LEVIATHAN_SANDBOX_READ",
    "LEVIATHAN_PRIVATE_HOSTS",
    "LEVIATHAN_SANDBOX_WITHOUT_NAMESPACES",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SDK_DISABLED",
    "OTEL_TRACES_EXPORTER",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "PATH",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
];

/// One way of running executors.
#[derive(Debug)]
pub enum Launcher {
    /// A process of its own on this machine.
    Worktree(Worktree),
    /// A Job of its own in a Kubernetes cluster.
    Kubernetes(Box<Kubernetes>),
}

/// What is to be started.
#[derive(Debug, Clone, Copy)]
pub struct Order<'a> {
    /// The attempt.
    pub attempt: &'a AttemptId,
    /// The epoch it was handed out with.
    pub epoch: Epoch,
    /// Lets the executor act for this attempt in this epoch.
    pub token: &'a SecretString,
    /// Its target.
    pub target: &'a TargetId,
    /// Its task.
    pub task: &'a TaskId,
    /// How long the whole attempt may take.
    pub timeout: Duration,
    /// The image that the target wants to be worked in, for launchers that have images.
    pub image: Option<&'a str>,
}

/// How an executor was started, for launchers whose executors others can see and delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launched {
    /// Its name where it runs.
    pub name: String,
    /// What tells it apart from others of that name.
    pub uid: String,
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Launch {
    /// The executor was started.
    Started,
    /// It was started under a name that is to be recorded.
    StartedAs(Launched),
    /// There is no room for it yet; it is started when there is.
    Waits,
}

/// What this launcher sees of an attempt's executor. A foreign launcher's executor is `Absent`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecutorSight {
    /// It was never started here, or it was deleted.
    Absent,
    /// It runs, or it waits for its turn.
    Alive {
        /// The epoch it was started with.
        epoch: Epoch,
    },
    /// It is there and comes to nothing: it is to be stopped.
    Stuck {
        /// The epoch it was started with.
        epoch: Epoch,
        /// What keeps it.
        end: End,
    },
    /// It was started and runs no more.
    Gone {
        /// The epoch it was started with.
        epoch: Epoch,
        /// How it ended.
        end: End,
    },
}

/// How an executor ended, or why it does not begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// What a scheduler decides by.
    pub cause: Cause,
    /// The launcher's own words, for people; empty when it has none.
    pub words: String,
}

/// Why an executor runs no more, or does not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It ended, and what it did is in the log.
    Ended,
    /// It ended with an exit code that says that it failed.
    Exit,
    /// It was started without its token: whoever started it died meanwhile.
    NotLaunched,
    /// Its image cannot be had.
    Image,
    /// No machine or quota had room for it.
    Unschedulable,
    /// It had a machine and did not start.
    NotStarting,
    /// Its machine got rid of it.
    Evicted,
    /// Its machine is gone.
    NodeLost,
    /// It used more memory than it may.
    OutOfMemory,
    /// It reached the launcher's own time limit.
    Deadline,
    /// Somebody deleted it.
    Deleted,
}

impl End {
    /// An end for that cause, in those words.
    pub fn new(cause: Cause, words: impl Into<String>) -> Self {
        Self { cause, words: words.into() }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.cause {
            Cause::Ended | Cause::NotLaunched => "its executor is gone",
            Cause::Exit => "its executor failed",
            Cause::Image => "the image of its executor cannot be had",
            Cause::Unschedulable => "there was no room for its executor",
            Cause::NotStarting => "its executor did not start",
            Cause::Evicted => "its executor was evicted",
            Cause::NodeLost => "the node of its executor is lost",
            Cause::OutOfMemory => "its executor ran out of memory",
            Cause::Deadline => "its executor reached the deadline",
            Cause::Deleted => "its executor was deleted",
        };
        if self.words.is_empty() { f.write_str(what) } else { write!(f, "{what}: {}", self.words) }
    }
}

/// Why a launcher could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The program or its folder, or the cluster, cannot be used.
    #[error("the executor of {attempt} cannot be {step}: {source}; {next}")]
    Failed {
        /// Whose executor.
        attempt: AttemptId,
        /// What was tried: `started`, `observed`, `stopped`.
        step: &'static str,
        /// What went wrong.
        source: std::io::Error,
        /// What a human can do.
        next: String,
    },
    /// Something else has the name that the executor should have.
    #[error("{place} has the name of the executor of {attempt} and belongs to {found}; it is left alone")]
    OtherIdentity {
        /// Whose executor was looked for.
        attempt: AttemptId,
        /// What has its name.
        place: String,
        /// Whose it is.
        found: String,
    },
    /// No executor can be seen.
    #[error("executors cannot be seen: {source}")]
    Unseen {
        /// What went wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Launcher {
    /// The word in the log: `worktree` or `kubernetes`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Worktree(_) => "worktree",
            Self::Kubernetes(_) => "kubernetes",
        }
    }

    /// Starts the executor of an attempt. One of an older epoch that still runs is stopped first.
    pub async fn launch(&self, order: Order<'_>) -> Result<Launch, LaunchError> {
        match self {
            Self::Worktree(worktree) => worktree.launch(order).await.map(|()| Launch::Started),
            Self::Kubernetes(kubernetes) => kubernetes.launch(order).await,
        }
    }

    /// Starts what there was no room for before and `may` still begin, as far as there is room now.
    pub async fn launch_waiting(
        &self,
        may: impl Fn(&AttemptId) -> bool,
    ) -> Vec<Result<(AttemptId, Launched), LaunchError>> {
        match self {
            Self::Worktree(_) => Vec::new(),
            Self::Kubernetes(kubernetes) => kubernetes.launch_waiting(may).await,
        }
    }

    /// Whether something may be started now.
    pub fn has_room(&self) -> bool {
        match self {
            Self::Worktree(_) => true,
            Self::Kubernetes(kubernetes) => kubernetes.has_room(),
        }
    }

    /// Forgets what waits for room and is not live any more.
    pub fn forget_all_but(&self, live: &BTreeSet<&AttemptId>) {
        match self {
            Self::Worktree(_) => {}
            Self::Kubernetes(kubernetes) => kubernetes.forget_all_but(live),
        }
    }

    /// Looks at the executors of attempts. Beside what was seen, why some could not be.
    pub async fn look(
        &self,
        attempts: &[&AttemptId],
        now: jiff::Timestamp,
    ) -> (BTreeMap<AttemptId, ExecutorSight>, Vec<LaunchError>) {
        match self {
            Self::Worktree(worktree) => worktree.look(attempts),
            Self::Kubernetes(kubernetes) => match kubernetes.look(attempts, now).await {
                Ok(sights) => (sights, Vec::new()),
                Err(error) => (BTreeMap::new(), vec![error]),
            },
        }
    }

    /// Whether this launcher sees every executor that any scheduler started with it. One that it does not see, and
    /// that was started, has been deleted by somebody.
    pub fn sees_all(&self) -> bool {
        match self {
            Self::Worktree(_) => false,
            Self::Kubernetes(_) => true,
        }
    }

    /// Stops the executor of an attempt: asks it first, and ends it when it has not obeyed within `grace`.
    /// Nothing happens when it does not run.
    pub async fn stop(&self, attempt: &AttemptId, grace: Duration) -> Result<(), LaunchError> {
        match self {
            Self::Worktree(worktree) => worktree.stop(attempt, grace).await,
            Self::Kubernetes(kubernetes) => kubernetes.stop(attempt).await,
        }
    }

    /// Comes back when something has happened to an executor since `watch` was last looked at.
    pub fn running(&self) -> tokio::sync::watch::Receiver<usize> {
        match self {
            Self::Worktree(worktree) => worktree.running(),
            Self::Kubernetes(kubernetes) => kubernetes.running(),
        }
    }

    /// Waits until every executor that this process started has ended, if they end with it in sight at all.
    pub async fn started_have_ended(&self) {
        match self {
            Self::Worktree(worktree) => {
                let mut running = worktree.running();
                let _ = running.wait_for(|running| *running == 0).await;
            }
            // Jobs go on by themselves.
            Self::Kubernetes(_) => {}
        }
    }
}
