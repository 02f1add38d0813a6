//! Passes that somebody asked for: by `leviathanctl scheduler-pass`, which the CronJob of a cluster runs. A request
//! makes a pass earlier, and its number is how whoever asked learns that the pass was made.

use std::time::Duration;

use api::Client;
use api::types::{PassReport, PassesQuery};
use tokio::sync::watch;

/// How long the control plane may keep a question for requests, in milliseconds.
const ASKED_FOR_MS: u64 = 25_000;
/// How long to wait before a question that failed is asked again.
const PAUSE: Duration = Duration::from_secs(5);

/// The number of the last request.
pub(crate) fn listen(client: Client) -> watch::Receiver<u64> {
    let (sender, receiver) = watch::channel(0);
    tokio::spawn(async move {
        loop {
            let known = *sender.borrow();
            let query = PassesQuery {
                requested_after: Some(known),
                wait_ms: Some(ASKED_FOR_MS),
                ..PassesQuery::default()
            };
            tokio::select! {
                () = sender.closed() => return,
                asked = client.passes(&query) => match asked {
                    // A control plane that started anew counts from the beginning.
                    Ok(passes) if passes.requested != known => {
                        sender.send_replace(passes.requested);
                    }
                    Ok(_) => {}
                    Err(error) => {
                        tracing::debug!(%error, "requests for passes cannot be heard");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
            }
        }
    });
    receiver
}

/// Says that a pass was made. Nobody waits for long who is not told.
pub(crate) async fn report(client: &Client, report: PassReport) {
    if let Err(error) = client.report_pass(&report).await {
        tracing::debug!(%error, "a pass could not be reported");
    }
}
