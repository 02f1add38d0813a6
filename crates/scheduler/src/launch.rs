//! How an executor comes to run, is looked at, and is stopped. Every launcher starts the same program with the
//! same variables; what the executor does then is not known here.

pub mod worktree;

use std::time::Duration;

use model::{AttemptId, Epoch};
use secrecy::SecretString;

pub use worktree::Worktree;

/// The variables that an executor is given of the scheduler's own environment: those of the specification, and
/// what the machine needs to reach the network. Beside them it gets the four that say which attempt it works on,
/// and nothing else.
pub const PASSED_ON: &[&str] = &[
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_BASE_URL",
    "GITHUB_API_URL",
    "GITHUB_TOKEN",
    "HOME",
    "HTTPS_PROXY",
    "LEVIATHAN_COMMAND_PATH",
    "LEVIATHAN_LOG",
    "LEVIATHAN_MODEL",
    "LEVIATHAN_MODEL_PRICES",
    "PATH",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
];

/// One way of running executors.
#[derive(Debug)]
pub enum Launcher {
    /// A process of its own on this machine.
    Worktree(Worktree),
}

/// What is to be started.
#[derive(Debug)]
pub struct Order<'a> {
    /// The attempt.
    pub attempt: &'a AttemptId,
    /// The epoch it was handed out with.
    pub epoch: Epoch,
    /// Lets the executor act for this attempt in this epoch.
    pub token: &'a SecretString,
}

/// What this launcher sees of an attempt's executor. A foreign launcher's executor is `Absent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecutorSight {
    /// It was never started here.
    Absent,
    /// It runs.
    Alive {
        /// The epoch it was started with.
        epoch: Epoch,
    },
    /// It was started and runs no more.
    Gone {
        /// The epoch it was started with.
        epoch: Epoch,
    },
}

/// Why a launcher could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The program or its folder cannot be used.
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
    #[error("the folder of {attempt} says that it belongs to {found}; it is left alone")]
    OtherIdentity {
        /// Whose executor was looked for.
        attempt: AttemptId,
        /// What was found.
        found: String,
    },
}

impl Launcher {
    /// The word in the log: `worktree`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Worktree(_) => "worktree",
        }
    }

    /// Starts the executor of an attempt. One of an older epoch that still runs is stopped first.
    pub async fn launch(&self, order: Order<'_>) -> Result<(), LaunchError> {
        match self {
            Self::Worktree(worktree) => worktree.launch(order).await,
        }
    }

    /// Looks at the executor of an attempt.
    pub fn observe(&self, attempt: &AttemptId) -> Result<ExecutorSight, LaunchError> {
        match self {
            Self::Worktree(worktree) => worktree.observe(attempt),
        }
    }

    /// Stops the executor of an attempt: asks it first, and ends it when it has not obeyed within `grace`.
    /// Nothing happens when it does not run.
    pub async fn stop(&self, attempt: &AttemptId, grace: Duration) -> Result<(), LaunchError> {
        match self {
            Self::Worktree(worktree) => worktree.stop(attempt, grace).await,
        }
    }

    /// Comes back when an executor that this process started has ended since `watch` was last looked at.
    pub fn running(&self) -> tokio::sync::watch::Receiver<usize> {
        match self {
            Self::Worktree(worktree) => worktree.running(),
        }
    }
}
