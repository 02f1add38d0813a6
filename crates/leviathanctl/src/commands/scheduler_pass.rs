//! `leviathanctl scheduler-pass` asks the schedulers for a pass and waits until one has made it.

use std::time::Duration;

use api::Client;
use api::types::{PassReport, PassesQuery};
use jiff::SignedDuration;
use tokio::time::Instant;

use crate::failure::Failure;
use crate::terminal::{Format, Look, Screen, Span, plain};
use crate::words;

/// How long the control plane keeps one question at most, in milliseconds.
const ASKED_FOR_MS: u64 = 30_000;

/// Asks the schedulers for a pass now, and waits until one has made it.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How long to wait for it, such as `90s` or `2m`.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    wait: Duration,
}

pub(crate) async fn run(
    arguments: Arguments,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let number = client.request_pass().await?.number;
    let report = made(client, number, Instant::now() + arguments.wait).await?.ok_or_else(|| {
        Failure::No(format!(
            "no scheduler has taken it: request {number} for a pass waited {}; start one with `leviathan scheduler`, or in a cluster with `kubectl scale deployment leviathan-scheduler --replicas=1`",
            words::duration(u64::try_from(arguments.wait.as_millis()).unwrap_or(u64::MAX))
        ))
    })?;
    match screen.format {
        Format::Json => screen.json(&report)?,
        Format::Table => show(&report, screen)?,
    }
    Ok(())
}

/// What a scheduler said of the pass that it made for this request; none when `deadline` came first.
async fn made(client: &Client, number: u64, deadline: Instant) -> Result<Option<PassReport>, Failure> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let wait_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).min(ASKED_FOR_MS);
        let query = PassesQuery { done_from: Some(number), wait_ms: Some(wait_ms), ..PassesQuery::default() };
        let passes = client.passes(&query).await?;
        if passes.done >= number {
            return Ok(passes.last);
        }
        if left.is_zero() {
            return Ok(None);
        }
    }
}

fn show(report: &PassReport, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let launched = words::counted(report.launched, "executor");
    screen.line(&[plain(format!("{} made a pass and started {launched}.", report.by))])?;
    for problem in &report.problems {
        screen.line(&[plain("Problem: "), Span { text: problem.clone(), look: Look::Bad }])?;
    }
    Ok(())
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: SignedDuration =
        text.parse().map_err(|_| format!("`{text}` is no duration: expected such as `90s` or `2m`"))?;
    Duration::try_from(parsed).map_err(|_| format!("`{text}` is negative"))
}
