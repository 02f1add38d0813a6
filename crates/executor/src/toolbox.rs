//! What an agent may do: change files in one tree, run commands in containment, ask for a check, and all of it
//! only until the deadline or until somebody cancels.
//!
//! A toolbox holds no credential and cannot reach one. It judges a write early so that the agent hears the
//! reason; it does not decide what is published, that is the gate's.

mod shell;
mod tree;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use model::rules::PathRules;
use tokio::sync::watch;
use tokio::time::Instant;

pub use shell::{Shell, ShellOutput};
pub use tree::{Listed, Survey, Tree, TreeError};

/// A future that a toolbox's callback returns.
pub type Pending<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Everything an agent may use, for the rounds of one attempt.
#[derive(Clone)]
pub struct Toolbox {
    /// The plain tree that the agent changes; it is exported from the base commit and has no `.git` of ours.
    pub tree: Tree,
    /// The rules that the gate will judge by.
    pub rules: Arc<PathRules>,
    /// Runs the agent's commands.
    pub shell: Shell,
    /// Runs the named invariant on the tree as it is now, as the last check will, and returns its report in
    /// words. `None`: no invariant has this name. Dropping the future ends whatever it started.
    pub check: Arc<dyn Fn(String) -> Pending<Option<CheckReport>> + Send + Sync>,
    /// When the agent must stop.
    pub bounds: Bounds,
}

/// What a check said, for the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// Whether it passed.
    pub passed: bool,
    /// How it ended, with head and tail of its output.
    pub text: String,
}

/// The deadline of an attempt, and the wire by which it is cancelled.
#[derive(Debug, Clone)]
pub struct Bounds {
    deadline: Instant,
    cancelled: watch::Receiver<bool>,
}

/// Why work had to stop from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Interrupted {
    /// Somebody cancelled, or whoever could cancel is gone.
    #[error("the attempt was cancelled")]
    Cancelled,
    /// The deadline has passed.
    #[error("the attempt reached its deadline")]
    DeadlinePassed,
}

impl Bounds {
    /// Work may last until `deadline` or until `cancelled` becomes true. A sender that was dropped counts as
    /// cancelled: nobody could stop the work any more.
    pub fn new(deadline: Instant, cancelled: watch::Receiver<bool>) -> Self {
        Self { deadline, cancelled }
    }

    /// Whether work may go on.
    pub fn check(&self) -> Result<(), Interrupted> {
        if *self.cancelled.borrow() || self.cancelled.has_changed().is_err() {
            Err(Interrupted::Cancelled)
        } else if Instant::now() >= self.deadline {
            Err(Interrupted::DeadlinePassed)
        } else {
            Ok(())
        }
    }

    /// Runs `work` until it is done or must stop; in the second case it is dropped.
    pub async fn hold<T>(&self, work: impl Future<Output = T>) -> Result<T, Interrupted> {
        self.check()?;
        let mut cancelled = self.cancelled.clone();
        tokio::select! {
            biased;
            // An error means that the sender is gone, which counts as cancelled.
            _ = cancelled.wait_for(|cancelled| *cancelled) => Err(Interrupted::Cancelled),
            () = tokio::time::sleep_until(self.deadline) => Err(Interrupted::DeadlinePassed),
            done = work => Ok(done),
        }
    }

    /// Completes when work must stop.
    pub async fn end(&self) {
        // There is nothing to hold: only the end remains.
        let _ = self.hold(std::future::pending::<()>()).await;
    }

    /// How long work may still last.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}
