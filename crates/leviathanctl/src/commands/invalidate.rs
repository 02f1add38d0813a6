//! `leviathanctl invalidate` declares an attempt void.

use api::Client;
use api::types::ReasonRequest;

use crate::commands::attempt_named;
use crate::failure::Failure;
use crate::terminal::{Format, Screen, faint, plain};

/// Declares an attempt void, stopping it first when it is live. Its task may run again.
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
    let steered = client.invalidate(&attempt, &request).await?;
    match screen.format {
        Format::Json => screen.json(&steered)?,
        Format::Table if steered.changed => {
            screen.line(&[plain(format!("Invalidated attempt: {attempt}"))])?;
            screen.line(&[plain(format!("Reason: {}", request.reason))])?;
            screen.line(&[faint(
                "Its task may run again at the next pass; `leviathanctl tasks-list` shows when.",
            )])?;
        }
        Format::Table => {
            screen.line(&[plain(format!("{attempt} was invalidated before; nothing changed."))])?;
        }
    }
    Ok(())
}
