//! `leviathanctl graph-summary` says how much of everything there is.

use api::Client;
use api::types::GraphSummary;

use crate::describe;
use crate::failure::Failure;
use crate::terminal::{Format, Look, Screen, Span, faint, plain, strong};
use crate::words;

/// How much of everything there is, what it cost, and the newest events.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

pub(crate) async fn run(_: Arguments, client: &Client, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let summary = client.graph_summary().await?;
    match screen.format {
        Format::Json => screen.json(&summary)?,
        Format::Table => show(&summary, screen)?,
    }
    Ok(())
}

fn show(summary: &GraphSummary, screen: &mut Screen<'_>) -> Result<(), Failure> {
    screen.line(&[strong("Graph summary")])?;
    if let Some(pause) = &summary.pause {
        let since = words::utc_and_age(pause.since, screen.now);
        let text = format!("  Paused by {} since {since}: {}", pause.by, pause.reason);
        screen.line(&[Span { text, look: Look::Waiting }])?;
        screen.line(&[faint("  `leviathanctl resume` lets new attempts run again.")])?;
    }
    let counted = [("Nodes", &summary.nodes_by_type), ("Edges", &summary.edges_by_type)];
    for (heading, counts) in counted {
        section(heading, counts.iter().map(|(name, count)| (plain(name), *count)), screen)?;
    }
    let states = summary.attempts_by_state.iter().map(|(name, count)| (words::state(name), *count));
    section("Attempts by state", states, screen)?;
    screen.blank()?;
    screen.line(&[strong("Cost    "), plain(words::dollars(summary.cost_micro_usd))])?;
    screen.line(&[strong("Events  "), plain(summary.head)])?;
    if summary.recent_events.is_empty() {
        return Ok(screen.line(&[faint(
            "Nothing has happened yet. `leviathanctl targets-register FILE` registers the first target.",
        )])?);
    }
    screen.blank()?;
    screen.line(&[strong("Newest events")])?;
    Ok(describe::events(summary.recent_events.iter(), screen)?)
}

/// Counts with their numbers aligned, the most first.
fn section(
    heading: &str,
    counts: impl Iterator<Item = (Span, u64)>,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let mut counts: Vec<_> = counts.filter(|(_, count)| *count > 0).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    screen.blank()?;
    screen.line(&[strong(heading)])?;
    if counts.is_empty() {
        screen.line(&[faint("  none")])?;
    }
    let widest = counts.iter().map(|(_, count)| count.to_string().len()).max().unwrap_or(0);
    for (name, count) in counts {
        screen.line(&[plain(format!("  {count:>widest$}  ")), name])?;
    }
    Ok(())
}
