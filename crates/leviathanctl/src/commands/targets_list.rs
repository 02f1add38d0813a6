//! `leviathanctl targets-list` lists the registered targets.

use api::Client;
use api::types::{TargetList, TargetView};

use crate::failure::Failure;
use crate::terminal::{Format, Look, Screen, Span, faint, plain, strong};
use crate::words;

/// Every registered target, and what a scheduler last saw of it.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {}

pub(crate) async fn run(_: Arguments, client: &Client, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let list = client.targets().await?;
    match screen.format {
        Format::Json => screen.json(&list)?,
        Format::Table => show(&list, screen)?,
    }
    Ok(())
}

fn show(list: &TargetList, screen: &mut Screen<'_>) -> Result<(), Failure> {
    if list.targets.is_empty() {
        screen.line(&[plain("No targets found.")])?;
        return Ok(screen.line(&[faint("`leviathanctl targets-register FILE` registers one.")])?);
    }
    for (index, target) in list.targets.iter().enumerate() {
        if index > 0 {
            screen.blank()?;
        }
        paragraph(target, screen)?;
    }
    Ok(())
}

fn paragraph(target: &TargetView, screen: &mut Screen<'_>) -> Result<(), Failure> {
    screen.line(&[strong(&target.target_id), plain("  "), plain(&target.name)])?;
    let repository = format!("{} ({})", target.repo_url, target.default_branch);
    screen.line(&[faint("  Repository  "), plain(repository)])?;
    let registered = words::utc_and_age(target.registered_at, screen.now);
    let by_operator = if target.operator_policy.is_some() { ", with an operator's policy" } else { "" };
    screen.line(&[faint("  Registered  "), plain(registered), plain(by_operator)])?;
    if let Some(source) = &target.source {
        screen.line(&[faint("  Source      "), plain(source)])?;
    }
    if let Some(image) = &target.executor_image {
        screen.line(&[faint("  Image       "), plain(image)])?;
    }
    if let Some(gone) = &target.unregistered {
        let at = words::utc_and_age(gone.at, screen.now);
        let text = format!("by {} at {at}: {}", gone.by, gone.reason);
        screen.line(&[faint("  Stopped     "), Span { text, look: Look::Waiting }])?;
    }
    let work = format!(
        "{} under way, {} open",
        words::counted(target.live_attempts, "attempt"),
        words::counted(target.open_pull_requests, "pull request")
    );
    screen.line(&[faint("  Work        "), plain(work)])?;
    if let Some(pause) = &target.pause {
        let since = words::utc_and_age(pause.since, screen.now);
        let text = format!("by {} since {since}: {}", pause.by, pause.reason);
        screen.line(&[faint("  Paused      "), Span { text, look: Look::Waiting }])?;
    }
    let Some(seen) = &target.observation else {
        return Ok(screen
            .line(&[faint("  Last seen   "), plain("by no scheduler since the control plane started")])?);
    };
    let at = seen
        .base_commit
        .as_ref()
        .map_or(String::new(), |base| format!(", at {}", words::short(base.as_str())));
    let text = format!("{} by {}{at}", words::utc_and_age(seen.at, screen.now), seen.by);
    screen.line(&[faint("  Last seen   "), plain(text)])?;
    for problem in &seen.problems {
        screen.line(&[faint("  Problem     "), Span { text: problem.clone(), look: Look::Bad }])?;
    }
    Ok(())
}
