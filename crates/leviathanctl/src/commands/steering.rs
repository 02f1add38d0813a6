//! What the commands that steer have in common: how an attempt and a reason are given, and the answer, which says
//! whether anything was recorded or it was so already.

use api::types::{ReasonRequest, Steered};

use crate::failure::Failure;
use crate::terminal::{Format, Screen, Span, plain};

/// An attempt, and why something is done to it.
#[derive(Debug, clap::Args)]
pub(crate) struct AttemptAndReason {
    /// The attempt: its id, or a beginning or end of it that no other has.
    #[arg(value_name = "ID")]
    pub(super) attempt: String,
    /// Why, for everybody who reads the log.
    #[arg(long)]
    pub(super) reason: String,
}

impl AttemptAndReason {
    pub(super) fn request(&self) -> ReasonRequest {
        ReasonRequest { reason: self.reason.clone(), target: None, actor_id: None }
    }
}

/// Says each of `done` in a line of its own, or in one line that nothing changed.
pub(super) fn answer(
    steered: &Steered,
    done: &[Span],
    unchanged: String,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    match screen.format {
        Format::Json => screen.json(steered)?,
        Format::Table if steered.changed => {
            for line in done {
                screen.line(std::slice::from_ref(line))?;
            }
        }
        Format::Table => screen.line(&[plain(unchanged)])?,
    }
    Ok(())
}
