//! `leviathanctl resume` lets new attempts run again.

use api::Client;
use api::types::ReasonRequest;
use model::TargetId;

use crate::commands::steering::answer;
use crate::failure::Failure;
use crate::terminal::{Screen, plain};

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
    let target = request.target.as_ref();
    let what = target.map_or("everything".to_owned(), |target| format!("target {target}"));
    let done = [plain(format!("Resumed {what}: new attempts start at the next pass."))];
    let unchanged = match target {
        Some(target) => format!("Target {target} was not paused by itself; nothing changed."),
        None => {
            "No pause of everything is in force; nothing changed. `--target TARGET` ends that of one target."
                .to_owned()
        }
    };
    answer(&steered, &done, unchanged, screen)
}
