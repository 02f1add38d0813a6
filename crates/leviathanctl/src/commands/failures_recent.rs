//! `leviathanctl failures-recent` lists failures, each with what to do about it.

use api::Client;
use api::types::{AttemptsQuery, FailureList, FailureView};
use model::{TargetId, TaskId};

use crate::failure::Failure;
use crate::terminal::{Format, Look, Screen, Span, faint, plain, strong};
use crate::words;

/// Failures, newest first, each with what to do about it.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// At most so many, 1 to 1000.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Only of this target.
    #[arg(long, value_name = "TARGET")]
    target: Option<TargetId>,
    /// Only of this task.
    #[arg(long, value_name = "TASK")]
    task: Option<TaskId>,
}

pub(crate) async fn run(
    arguments: Arguments,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let Arguments { limit, target, task } = arguments;
    let query = AttemptsQuery { target, task, limit: Some(limit), ..AttemptsQuery::default() };
    let list = client.failures(&query).await?;
    match screen.format {
        Format::Json => screen.json(&list)?,
        Format::Table => show(&list, screen)?,
    }
    Ok(())
}

fn show(list: &FailureList, screen: &mut Screen<'_>) -> Result<(), Failure> {
    if list.failures.is_empty() {
        return Ok(screen.line(&[plain("No failures found.")])?);
    }
    for (index, failure) in list.failures.iter().enumerate() {
        if index > 0 {
            screen.blank()?;
        }
        paragraph(failure, screen)?;
    }
    Ok(())
}

fn paragraph(failure: &FailureView, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let stage = failure.failure.stage.map(|stage| format!(" in stage {stage}")).unwrap_or_default();
    let reason = Span { text: failure.failure.reason.to_string(), look: Look::Bad };
    screen.line(&[strong(&failure.attempt_id), plain("  "), reason, plain(stage)])?;
    let about = format!("{} of {}", failure.task_id, failure.target);
    screen.line(&[faint("  Task   "), plain(about)])?;
    let when = words::utc_and_age(failure.timestamp, screen.now);
    screen.line(&[faint("  When   "), plain(when)])?;
    screen.line(&[faint("  Error  "), plain(&failure.error)])?;
    Ok(screen.line(&[faint("  Next   "), plain(&failure.next_step)])?)
}
