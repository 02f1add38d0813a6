//! `leviathanctl cancel` stops an attempt.

use api::Client;
use api::types::ReasonRequest;

use crate::commands::attempt_named;
use crate::failure::Failure;
use crate::terminal::{Format, Screen, faint, plain};

/// Stops an attempt. Its task does not run again until it is edited or the attempt is invalidated.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The attempt: its id, or a beginning or end of it that no other has.
    #[arg(value_name = "ID")]
    attempt: String,
    /// Why, for everybody who reads the log.
    #[arg(long)]
    reason: String,
}

pub(crate) async fn run(
    arguments: Arguments,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let attempt = attempt_named(&arguments.attempt, client).await?;
    let request = ReasonRequest { reason: arguments.reason, target: None, actor_id: None };
    let steered = client.cancel(&attempt, &request).await?;
    match screen.format {
        Format::Json => screen.json(&steered)?,
        Format::Table if steered.changed => {
            screen.line(&[plain(format!("Cancelled attempt: {attempt}"))])?;
            screen.line(&[plain(format!("Reason: {}", request.reason))])?;
            screen.line(&[faint(format!(
                "`leviathanctl invalidate {attempt} --reason REASON` lets its task run again."
            ))])?;
        }
        Format::Table => {
            screen.line(&[plain(format!("{attempt} was cancelled before; nothing changed."))])?;
        }
    }
    Ok(())
}
