//! The agent that is any program: it reads the task as JSON, changes the tree it stands in, and exits.
//!
//! The JSON is the [`Brief`], on standard input and in the file that `LEVIATHAN_TASK_FILE` names. Exit code 0
//! says that the work is done; any other that it gave up. The end of its standard output is its note. In a
//! later round it is started afresh in the same tree, and the brief holds the failed checks.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use model::event::Usage;

use super::{AgentFailure, AgentReport, Brief, FailureCause, Outcome};
use crate::contain::{self, Command, Containment, End, Limits, Program, excerpt};
use crate::toolbox::{Interrupted, Toolbox};

/// How many bytes of the end of its standard output become its note.
const NOTE_BYTES: u64 = 4096;

/// A program as an agent.
#[derive(Debug, Clone)]
pub struct CommandAgent {
    line: String,
    containment: Containment,
    folder: PathBuf,
}

impl CommandAgent {
    /// Runs `line` by `sh -c`; `folder` holds its HOME, its task file and its logs.
    pub fn new(line: String, containment: Containment, folder: PathBuf) -> Self {
        Self { line, containment, folder }
    }

    /// The files that hold what it wrote in `round`: standard output, then standard error.
    pub fn logs(folder: &Path, round: u32) -> [PathBuf; 2] {
        ["stdout", "stderr"].map(|stream| folder.join(format!("round-{round}.{stream}.log")))
    }

    /// One round of work; see [`Agent::work`](super::Agent::work).
    pub(crate) async fn work(
        &mut self,
        brief: &Brief,
        toolbox: &Toolbox,
    ) -> Result<AgentReport, AgentFailure> {
        let stopped = |cause| AgentFailure { cause, usage: Usage::default() };
        toolbox.bounds.check().map_err(|why| stopped(why.into()))?;
        let command = self.command(brief, toolbox).map_err(|error| {
            stopped(FailureCause::Internal(anyhow::Error::new(error).context("the task file")))
        })?;
        let outcome = self.containment.run(&command, toolbox.bounds.end()).await;
        let outcome = outcome.map_err(|error: contain::Error| stopped(error.into()))?;
        let said = match outcome.end {
            End::Exited { code: 0 } => Outcome::Finished,
            End::Exited { .. } | End::Signalled { .. } | End::NotStarted { .. } => Outcome::GaveUp,
            End::TimedOut => return Err(stopped(FailureCause::DeadlinePassed)),
            End::Cancelled => {
                let why = toolbox.bounds.check().err().unwrap_or(Interrupted::Cancelled);
                return Err(stopped(why.into()));
            }
            End::OutputLimit => return Err(stopped(stuck("it wrote more output than it may"))),
            End::DiskLimit => return Err(stopped(stuck("it took more of the disk than it may"))),
            End::ProcessLimit => return Err(stopped(stuck("it started more processes than it may"))),
        };
        Ok(AgentReport {
            outcome: said,
            summary: note(&command, &outcome.end),
            criteria: Vec::new(),
            usage: Usage::default(),
            model: None,
        })
    }

    fn command(&self, brief: &Brief, toolbox: &Toolbox) -> io::Result<Command> {
        std::fs::create_dir_all(&self.folder)?;
        let task = serde_json::to_vec_pretty(brief)?;
        let task_file = self.folder.join("task.json");
        std::fs::write(&task_file, &task)?;
        let [log, stderr_log] = Self::logs(&self.folder, brief.round);
        Ok(Command {
            program: Program::Shell(self.line.clone()),
            directory: toolbox.tree.path().to_owned(),
            scratch: self.folder.clone(),
            environment: BTreeMap::from([(
                "LEVIATHAN_TASK_FILE".to_owned(),
                task_file.to_string_lossy().into_owned(),
            )]),
            stdin: task,
            log,
            stderr_log: Some(stderr_log),
            limits: Limits { timeout: toolbox.bounds.remaining(), ..Limits::default() },
        })
    }
}

fn stuck(detail: &str) -> FailureCause {
    FailureCause::Stuck { detail: detail.to_owned() }
}

/// The end of what it said; when it gave up, of what it complained about, and how it ended.
fn note(command: &Command, end: &End) -> String {
    let tail = |path: &Path| {
        let text = excerpt(path, 0, NOTE_BYTES).map(|excerpt| excerpt.head + &excerpt.tail);
        text.unwrap_or_default().trim().to_owned()
    };
    let said = tail(&command.log);
    let ending = match end {
        End::Exited { code: 0 } => return said,
        End::Exited { code } => format!("exit code {code}"),
        End::Signalled { signal } => format!("killed by signal {signal}"),
        End::NotStarted { problem } => format!("not started: {problem}"),
        End::TimedOut | End::OutputLimit | End::ProcessLimit | End::DiskLimit | End::Cancelled => {
            "stopped".to_owned()
        }
    };
    let complained = command.stderr_log.as_deref().map(tail).unwrap_or_default();
    [ending, complained, said].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}
