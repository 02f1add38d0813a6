//! The agent's commands: each one contained, each one afresh.

use std::collections::BTreeMap;
use std::future::pending;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use super::{Bounds, Tree};
use crate::contain::{Command, Containment, End, Excerpt, Limits, Program, excerpt};

/// How the commands of one attempt are run.
#[derive(Debug, Clone)]
pub struct Shell {
    containment: Containment,
    folder: PathBuf,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShellOutput {
    /// How it ended.
    pub end: End,
    /// Standard output and error in their true order, without the middle when they are long.
    pub output: Excerpt,
}

/// The most of a command's output that is kept, in bytes.
const LOG_BYTES: u64 = 1 << 20;
/// A command that writes more than this is ended.
const OUTPUT_BYTES: u64 = 100 << 20;
/// The most bytes of the beginning of the output, and as many of its end, that the agent sees.
const SHOWN_BYTES: u64 = 5_000;

impl Shell {
    /// Commands will run in `containment`; `folder`, outside the agent's tree, holds their HOME and their logs.
    pub fn new(containment: Containment, folder: PathBuf) -> Self {
        Self { containment, folder }
    }

    /// Runs `line` by `sh -c` in the tree. When it returns, nothing of the command lives any more: also when
    /// `bounds` ended it, which shows as [`End::Cancelled`]. An error means that the attempt must stop.
    pub async fn run(
        &self,
        tree: &Tree,
        line: String,
        timeout: Duration,
        bounds: &Bounds,
    ) -> anyhow::Result<ShellOutput> {
        std::fs::create_dir_all(&self.folder)
            .with_context(|| format!("the folder {} cannot be made", self.folder.display()))?;
        let command = Command {
            program: Program::Shell(line),
            directory: tree.path().to_owned(),
            scratch: self.folder.clone(),
            environment: BTreeMap::new(),
            stdin: Vec::new(),
            log: self.folder.join("command.log"),
            stderr_log: None,
            limits: Limits { timeout, log_bytes: LOG_BYTES, output_bytes: OUTPUT_BYTES, ..Limits::default() },
        };
        let must_stop = async {
            let _ = bounds.hold(pending::<()>()).await;
        };
        let outcome = self.containment.run(&command, must_stop).await.context("an agent's command")?;
        let output = match outcome.end {
            // The command may not have lived long enough to have a log.
            End::NotStarted { .. } => Excerpt { head: String::new(), left_out: 0, tail: String::new() },
            End::Exited { .. }
            | End::Signalled { .. }
            | End::TimedOut
            | End::OutputLimit
            | End::DiskLimit
            | End::ProcessLimit
            | End::Cancelled => {
                excerpt(&command.log, SHOWN_BYTES, SHOWN_BYTES).context("the output of an agent's command")?
            }
        };
        Ok(ShellOutput { end: outcome.end, output })
    }
}
