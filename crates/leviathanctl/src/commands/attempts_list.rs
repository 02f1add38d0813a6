//! `leviathanctl attempts-list` lists attempts, newest first.

use api::Client;
use api::types::{AttemptList, AttemptView, AttemptsQuery};
use clap::builder::PossibleValuesParser;
use model::{TargetId, TaskId};

use crate::failure::Failure;
use crate::table::Table;
use crate::terminal::{Format, Screen, cut, faint, plain};
use crate::words;

/// What an attempt came to takes at most so many columns; `attempts-show` has the whole.
const LONGEST: usize = 240;

/// Attempts, newest first.
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
    /// Only in this state; `live` for all that have not ended.
    #[arg(long, value_name = "STATUS", value_parser = PossibleValuesParser::new(AttemptsQuery::STATUSES))]
    status: Option<String>,
}

pub(crate) async fn run(
    arguments: Arguments,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let Arguments { limit, target, task, status } = arguments;
    let query = AttemptsQuery { target, task, status, limit: Some(limit), ..AttemptsQuery::default() };
    let list = client.attempts(&query).await?;
    match screen.format {
        Format::Json => screen.json(&list)?,
        Format::Table => show(&list, screen)?,
    }
    Ok(())
}

fn show(list: &AttemptList, screen: &mut Screen<'_>) -> Result<(), Failure> {
    if list.attempts.is_empty() {
        return Ok(screen.line(&[plain("No attempts found.")])?);
    }
    let mut table = Table::new()
        .words("ATTEMPT")
        .words("STATUS")
        .words("TARGET")
        .words("TASK")
        .numbers("N")
        .words("CREATED (UTC)")
        .numbers("AGE");
    for attempt in &list.attempts {
        table.row([
            plain(&attempt.attempt_id),
            words::state(&attempt.status),
            plain(&attempt.target),
            plain(&attempt.task_id),
            plain(attempt.n),
            plain(words::utc(attempt.timestamp)),
            plain(words::age(attempt.timestamp, screen.now)),
        ]);
        table.note(faint(cut(&result(attempt), LONGEST)));
    }
    table.write("", screen)?;
    if list.total > list.count {
        let more = format!("{} of {}; --limit N shows more.", list.count, list.total);
        screen.line(&[faint(more)])?;
    }
    Ok(())
}

/// The pull request, else why there is none, else what the executor is at.
fn result(attempt: &AttemptView) -> String {
    match (&attempt.pull_request, &attempt.failure) {
        (Some(pr), _) => {
            format!("{} ({})", attempt.pr_url.as_ref().unwrap_or(&pr.url), words::pull_request(pr))
        }
        (None, Some(failure)) => format!("{}: {}", failure.reason, failure.detail),
        (None, None) => attempt.activity.clone().unwrap_or_default(),
    }
}
