//! `leviathanctl invalidate` declares an attempt void.

use api::Client;

use crate::commands::attempt_named;
use crate::commands::steering::{AttemptAndReason, answer};
use crate::failure::Failure;
use crate::terminal::{Screen, faint, plain};

/// Declares an attempt void, stopping it first when it is live. Its task may run again.
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
    let steered = client.invalidate(&attempt, &what.request()).await?;
    let done = [
        plain(format!("Invalidated attempt: {attempt}")),
        plain(format!("Reason: {}", what.reason)),
        faint("Its task may run again at the next pass; `leviathanctl tasks-list` shows when."),
    ];
    answer(&steered, &done, format!("{attempt} was invalidated before; nothing changed."), screen)
}
