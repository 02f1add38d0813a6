//! What the stages of an attempt have in common as processes: how they begin, how they are stopped from
//! outside, and how they say what came of them.

use std::io::{Read, Write};
use std::process::ExitCode;

use rustix::process::DumpableBehavior;
use tokio::sync::watch;

use crate::contain;
use crate::folder::{AttemptFolder, FolderLock};
use crate::job::StageOutcome;

/// The wire by which a stage is stopped, and its right to run.
pub(crate) struct Begun {
    /// Becomes true when whoever started the stage closes its standard input, on purpose or by dying.
    pub(crate) cancelled: watch::Receiver<bool>,
    _right: FolderLock,
}

/// Prepares this process to be a stage whose lifeline is its standard input.
pub(crate) fn begin(folder: &AttemptFolder) -> std::io::Result<Begun> {
    let right = enter(folder)?;
    let (sender, cancelled) = watch::channel(false);
    std::thread::Builder::new().name("lifeline".to_owned()).spawn(move || {
        let mut byte = [0];
        // Nothing is ever written there: a byte would be as good an end as the closing.
        let _ = std::io::stdin().read(&mut byte);
        sender.send_replace(true);
        sender
    })?;
    Ok(Begun { cancelled, _right: right })
}

/// Prepares this process to be a stage: orphans of what it starts become its own, other processes of the same
/// user cannot look into it, and no other stage of the attempt runs here until it ends.
pub(crate) fn enter(folder: &AttemptFolder) -> std::io::Result<FolderLock> {
    let right = folder.lock_stage()?;
    contain::adopt_orphans()?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(right)
}

/// Ends everything that this process started, and says what came of the stage in one line.
pub(crate) fn end(outcome: anyhow::Result<StageOutcome>) -> ExitCode {
    let survivors = contain::end_all_descendants(|_, _| {});
    let told = outcome.and_then(|outcome| {
        survivors?;
        let line = serde_json::to_string(&outcome)?;
        writeln!(std::io::stdout(), "{line}")?;
        Ok(())
    });
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("the stage could not be carried out: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Why a stage does not go on to its next step.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It came to its end, if not to the one that was hoped for.
    Outcome(Box<StageOutcome>),
    /// Something of ours or of the machine failed.
    Error(anyhow::Error),
}

impl From<anyhow::Error> for Stop {
    fn from(error: anyhow::Error) -> Self {
        Self::Error(error)
    }
}

impl From<StageOutcome> for Stop {
    fn from(outcome: StageOutcome) -> Self {
        Self::Outcome(Box::new(outcome))
    }
}

impl Stop {
    /// The outcome of a stage that stopped, or the error.
    pub(crate) fn into_outcome(self) -> anyhow::Result<StageOutcome> {
        match self {
            Self::Outcome(outcome) => Ok(*outcome),
            Self::Error(error) => Err(error),
        }
    }
}
