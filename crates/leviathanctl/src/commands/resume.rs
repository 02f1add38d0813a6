//! `leviathanctl resume` lets new attempts run again.

use api::Client;
use api::types::ReasonRequest;
use model::TargetId;

use crate::failure::Failure;
use crate::terminal::{Format, Screen, plain};

/// Lets new attempts run again, everywhere or for one target.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Why, for everybody who reads the log.
    #[arg(long, default_value = "resumed by the operator")]
    reason: String,
    /// Only this target.
    #[arg(long, value_name = "TARGET")]
    target: Option<TargetId>,
}

pub(crate) async fn run(
    arguments: Arguments,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let request = ReasonRequest { reason: arguments.reason, target: arguments.target, actor_id: None };
    let steered = client.resume(&request).await?;
    let what = request.target.as_ref().map_or("everything".to_owned(), |target| format!("target {target}"));
    match screen.format {
        Format::Json => screen.json(&steered)?,
        Format::Table if steered.changed => {
            screen.line(&[plain(format!("Resumed {what}: new attempts start at the next pass."))])?;
        }
        Format::Table => screen.line(&[plain(format!("{what} was not paused; nothing changed."))])?,
    }
    Ok(())
}
