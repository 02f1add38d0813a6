//! `leviathanctl attempts-show` shows one attempt whole: what it touched, who allowed it, what was checked, what it cost.

use std::io;

use api::Client;
use api::types::{AttemptDetail, AttemptView};
use model::event::{ChangePermitted, NetworkAnswer, SandboxReported};

use crate::commands::attempt_named;
use crate::describe;
use crate::failure::Failure;
use crate::table::Table;
use crate::terminal::{Format, Look, Screen, Span, faint, plain, strong};
use crate::words;

/// One attempt: what it touched, who allowed it, what was checked, what it cost.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The attempt: its id, or a beginning or end of it that no other has.
    #[arg(value_name = "ID")]
    attempt: String,
}

pub(crate) async fn run(
    arguments: Arguments,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let attempt = attempt_named(&arguments.attempt, client).await?;
    let detail = client.attempt(&attempt).await?;
    match screen.format {
        Format::Json => screen.json(&detail)?,
        Format::Table => show(&detail, screen)?,
    }
    Ok(())
}

fn show(detail: &AttemptDetail, screen: &mut Screen<'_>) -> io::Result<()> {
    header(detail, screen)?;
    ending(&detail.attempt, screen)?;
    files(detail.change.as_ref(), screen)?;
    refused(detail, screen)?;
    checks(detail, screen)?;
    sandbox(detail.sandbox.as_ref(), screen)?;
    network(detail, screen)?;
    artifacts(detail, screen)?;
    notes(detail, screen)?;
    timeline(detail, screen)
}

fn header(detail: &AttemptDetail, screen: &mut Screen<'_>) -> io::Result<()> {
    let it = &detail.attempt;
    screen.line(&[strong(&it.attempt_id), plain("  "), words::state(&it.status)])?;
    field("Task", format!("{}  {}", it.task_id, it.title), screen)?;
    field("Target", &it.target, screen)?;
    let launcher = it.launcher.as_deref().unwrap_or("nothing yet");
    field(
        "Attempt",
        format!("number {} at this task, epoch {}, launched by {launcher}", it.n, it.epoch),
        screen,
    )?;
    field("Agent", &it.agent, screen)?;
    field("Created", words::utc_and_age(it.timestamp, screen.now), screen)?;
    if let Some(started) = it.started_at {
        field("Started", words::utc_and_age(started, screen.now), screen)?;
    }
    if let Some(ended) = it.ended_at {
        let took = u64::try_from(ended.millis_since(it.started_at.unwrap_or(it.timestamp))).unwrap_or(0);
        let text = format!("{}, after {}", words::utc_and_age(ended, screen.now), words::duration(took));
        field("Ended", text, screen)?;
    }
    if let Some(activity) = &it.activity {
        field("Now", activity, screen)?;
    }
    match it.lease_remaining_ms {
        Some(0) => field("Lease", "run out: the scheduler will mark it lost", screen)?,
        Some(millis) => field("Lease", format!("{} left", words::duration(millis)), screen)?,
        None => {}
    }
    field("Base", &it.base_commit, screen)?;
    if let Some(candidate) = &it.candidate {
        field("Candidate", candidate, screen)?;
    }
    field("Branch", format!("{}{}", it.branch, if it.is_pushed { "" } else { " (not pushed)" }), screen)?;
    field("Policy", &detail.policy_digest, screen)?;
    field("Cost", words::cost(&it.usage), screen)
}

/// What became of it: the pull request, the failure with its next step, and a human's invalidation.
fn ending(it: &AttemptView, screen: &mut Screen<'_>) -> io::Result<()> {
    if let Some(pr) = &it.pull_request {
        let url = it.pr_url.as_ref().unwrap_or(&pr.url);
        field("PR", format!("#{} {url} ({})", pr.number, words::pull_request(pr)), screen)?;
        for (reviewer, verdict) in &pr.reviews {
            field("Review", format!("{verdict} by {reviewer}"), screen)?;
        }
    }
    if let Some(moment) = it.publish_not_before {
        field("Publishing", format!("waits until {}", words::utc_and_age(moment, screen.now)), screen)?;
    }
    if let Some(invalidated) = &it.invalidated {
        let at = words::utc_and_age(invalidated.at, screen.now);
        field("Void", format!("by {} at {at}: {}", invalidated.by, invalidated.reason), screen)?;
    }
    if let Some(failure) = &it.failure {
        let stage = failure.stage.map(|stage| format!(" in stage {stage}")).unwrap_or_default();
        let text = format!("{}{stage}: {}", failure.reason, failure.detail);
        screen.line(&[faint(format!("  {:<11}", "Failure")), Span { text, look: Look::Bad }])?;
        field("Next", failure.reason.next_step(), screen)?;
    }
    Ok(())
}

fn files(change: Option<&ChangePermitted>, screen: &mut Screen<'_>) -> io::Result<()> {
    let Some(change) = change else { return Ok(()) };
    let count = words::counted(change.files.len() as u64, "file");
    let left_out = match change.ignored_files {
        0 => String::new(),
        more => format!("; {} that .gitignore names left out", words::counted(more, "new file")),
    };
    let size = words::bytes(change.patch_bytes);
    section(&format!("Changed and permitted: {count}, {size}{left_out}"), screen)?;
    let mut table = Table::new().words("CHANGE").numbers("+").numbers("-").words("PATH");
    for file in &change.files {
        table.row([
            plain(&file.change),
            plain(file.added_lines),
            plain(file.removed_lines),
            plain(&file.path),
        ]);
        table.note(faint(format!("permitted by {}", file.rule)));
    }
    table.write("  ", screen)?;
    omitted(change.omitted, screen)
}

/// Where the rest of a list is that an event could not hold.
fn omitted(count: u64, screen: &mut Screen<'_>) -> io::Result<()> {
    if count == 0 {
        return Ok(());
    }
    let count = words::counted(count, "more path");
    screen.line(&[plain(format!("  and {count}: see the artifact changes.json"))])
}

fn refused(detail: &AttemptDetail, screen: &mut Screen<'_>) -> io::Result<()> {
    if detail.violations.is_empty() {
        return Ok(());
    }
    section("Refused by the path rules in the last round that was refused", screen)?;
    for violation in &detail.violations {
        screen.line(&[
            Span { text: format!("  {}", violation.path), look: Look::Bad },
            plain(format!("  {}", violation.kind)),
            faint(violation.rule.as_ref().map(|rule| format!("  {rule}")).unwrap_or_default()),
        ])?;
        screen.line(&[plain(format!("    {}", violation.message))])?;
    }
    omitted(detail.violations_omitted, screen)
}

fn checks(detail: &AttemptDetail, screen: &mut Screen<'_>) -> io::Result<()> {
    if detail.checks.is_empty() {
        return Ok(());
    }
    section("Checks (round 0 ran on the base commit; `leviathanctl artifact SHA256` shows a log)", screen)?;
    let mut table = Table::new()
        .numbers("ROUND")
        .text("INVARIANT")
        .words("OUTCOME")
        .numbers("TIME")
        .numbers("LOG SIZE")
        .words("LOG SHA-256");
    for run in &detail.checks {
        let look = if run.passed { Look::Good } else { Look::Bad };
        table.row([
            plain(run.check.round),
            plain(&run.check.name),
            Span { text: run.check.outcome.clone(), look },
            plain(words::duration(run.check.duration_ms)),
            plain(words::bytes(run.check.log_bytes)),
            faint(&run.check.log),
        ]);
    }
    table.write("  ", screen)
}

fn sandbox(sandbox: Option<&SandboxReported>, screen: &mut Screen<'_>) -> io::Result<()> {
    let Some(sandbox) = sandbox else { return Ok(()) };
    section(&format!("Sandbox: {}", sandbox.profile), screen)?;
    let mut table = Table::new().words("LAYER").words("HOLDS").text("DETAIL");
    for layer in &sandbox.layers {
        let (word, look) = if layer.holds { ("yes", Look::Good) } else { ("no", Look::Waiting) };
        table.row([plain(&layer.name), Span { text: word.to_owned(), look }, faint(&layer.detail)]);
    }
    table.write("  ", screen)
}

fn network(detail: &AttemptDetail, screen: &mut Screen<'_>) -> io::Result<()> {
    if detail.network.is_empty() && detail.network_omitted == 0 {
        return Ok(());
    }
    section("Network: what commands asked for, and what the proxy answered", screen)?;
    let mut table = Table::new()
        .words("USED BY")
        .text("HOST")
        .text("ANSWER")
        .numbers("TIMES")
        .numbers("SENT")
        .numbers("RECEIVED");
    for request in &detail.network {
        let look = if request.answer == NetworkAnswer::Connected { Look::Plain } else { Look::Bad };
        table.row([
            plain(request.used_by),
            plain(format!("{}:{}", request.host, request.port)),
            Span { text: request.answer.to_string(), look },
            plain(request.count),
            plain(words::bytes(request.sent_bytes)),
            plain(words::bytes(request.received_bytes)),
        ]);
    }
    table.write("  ", screen)?;
    if detail.network_omitted > 0 {
        screen.line(&[faint(format!("  and {} requests that had no place", detail.network_omitted))])?;
    }
    Ok(())
}

fn artifacts(detail: &AttemptDetail, screen: &mut Screen<'_>) -> io::Result<()> {
    if detail.artifacts.is_empty() {
        return Ok(());
    }
    section("Artifacts", screen)?;
    let mut table = Table::new().text("NAME").words("KIND").numbers("SIZE").words("SHA-256");
    for artifact in &detail.artifacts {
        table.row([
            plain(&artifact.name),
            plain(&artifact.kind),
            plain(words::bytes(artifact.size)),
            faint(&artifact.sha256),
        ]);
    }
    table.write("  ", screen)
}

fn notes(detail: &AttemptDetail, screen: &mut Screen<'_>) -> io::Result<()> {
    if detail.agent_notes.is_empty() {
        return Ok(());
    }
    section("What the agent says (claims, not evidence)", screen)?;
    for note in &detail.agent_notes {
        screen.block("  | ", note)?;
    }
    Ok(())
}

fn timeline(detail: &AttemptDetail, screen: &mut Screen<'_>) -> io::Result<()> {
    if detail.events.is_empty() {
        return Ok(());
    }
    section("Timeline", screen)?;
    describe::timeline(detail.events.iter(), screen)
}

fn section(heading: &str, screen: &mut Screen<'_>) -> io::Result<()> {
    screen.blank()?;
    screen.line(&[strong(heading)])
}

fn field(name: &str, value: impl ToString, screen: &mut Screen<'_>) -> io::Result<()> {
    screen.line(&[faint(format!("  {name:<11}")), plain(value)])
}
