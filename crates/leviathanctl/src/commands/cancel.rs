//! `leviathanctl cancel` stops an attempt.

use api::Client;

use crate::commands::attempt_named;
use crate::commands::steering::{AttemptAndReason, answer};
use crate::failure::Failure;
use crate::terminal::{Screen, faint, plain};

/// Stops an attempt. Its task does not run again until it is edited or the attempt is invalidated.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    what: AttemptAndReason,
}

pub(crate) async fn run(
    Arguments { what }: Arguments,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let attempt = attempt_named(&what.attempt, client).await?;
    let steered = client.cancel(&attempt, &what.request()).await?;
    let next = format!("`leviathanctl invalidate {attempt} --reason REASON` lets its task run again.");
    let done = [
        plain(format!("Cancelled attempt: {attempt}")),
        plain(format!("Reason: {}", what.reason)),
        faint(next),
    ];
    answer(&steered, &done, format!("{attempt} was cancelled before; nothing changed."), screen)
}
