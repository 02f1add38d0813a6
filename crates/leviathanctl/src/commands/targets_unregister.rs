//! `leviathanctl targets-unregister` takes a target out of operation.

use api::Client;
use api::types::ReasonRequest;
use model::TargetId;

use crate::commands::steering::answer;
use crate::failure::Failure;
use crate::terminal::{Screen, faint, plain};

/// Takes a target out of operation: nothing more of it is claimed. Attempts under way go on: `cancel` stops those.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The target.
    #[arg(value_name = "TARGET")]
    target: TargetId,
    /// Why, for everybody who reads the log.
    #[arg(long)]
    reason: String,
}

pub(crate) async fn run(
    arguments: Arguments,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let Arguments { target, reason } = arguments;
    let request = ReasonRequest { reason, target: None, actor_id: None };
    let steered = client.unregister_target(&target, &request).await?;
    let done = [
        plain(format!("Unregistered target: {target}")),
        plain(format!("Reason: {}", request.reason)),
        faint("Attempts under way go on; `leviathanctl targets-register FILE` takes the target up again."),
    ];
    answer(&steered, &done, format!("{target} was unregistered before; nothing changed."), screen)
}
