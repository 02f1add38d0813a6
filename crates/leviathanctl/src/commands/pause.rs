//! `leviathanctl pause` stops new attempts.

use api::Client;
use api::types::ReasonRequest;
use model::TargetId;

use crate::commands::steering::answer;
use crate::failure::Failure;
use crate::terminal::{Screen, faint, plain};

/// Stops new attempts, everywhere or for one target. Attempts under way go on: `cancel` stops those.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Why, for everybody who reads the log.
    #[arg(long)]
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
    let steered = client.pause(&request).await?;
    let target = request.target.as_ref();
    let what = target.map_or("everything".to_owned(), |target| format!("target {target}"));
    let next = "Attempts under way go on; `leviathanctl attempts-list --status live` shows them, `leviathanctl cancel ID --reason REASON` stops one.";
    let done = [
        plain(format!("Paused {what}: no new attempt starts.")),
        plain(format!("Reason: {}", request.reason)),
        faint(next),
    ];
    let what = target.map_or("Everything".to_owned(), |target| format!("Target {target}"));
    answer(&steered, &done, format!("{what} was paused before; nothing changed."), screen)
}
