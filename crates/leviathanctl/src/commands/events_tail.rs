//! `leviathanctl events-tail` shows the newest events, and follows the log.

use std::future::Future;
use std::time::Duration;

use api::Client;
use api::types::{EventsPage, EventsQuery};
use clap::builder::PossibleValuesParser;
use model::{AttemptId, EventKind, TargetId, TaskId};

use crate::describe;
use crate::failure::Failure;
use crate::terminal::{Format, Screen, plain};

/// How long `--follow` waits before it asks again.
const PAUSE: Duration = Duration::from_millis(500);

/// The newest events in the order of the log. With --output json one event in each line.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Goes on with what happens from now on, until it is interrupted.
    #[arg(long)]
    follow: bool,
    /// So many of the newest to begin with, 0 to 5000.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(0..=5000))]
    limit: u32,
    /// Only of this type, such as `attempt.failed`.
    #[arg(long = "type", value_name = "TYPE", value_parser = PossibleValuesParser::new(EventKind::TYPES.iter().copied()), hide_possible_values = true)]
    event_type: Option<String>,
    /// Only of this target.
    #[arg(long, value_name = "TARGET")]
    target: Option<TargetId>,
    /// Only of this task.
    #[arg(long, value_name = "TASK")]
    task: Option<TaskId>,
    /// Only of this attempt.
    #[arg(long, value_name = "ID")]
    attempt: Option<AttemptId>,
}

pub(crate) async fn run(
    arguments: Arguments,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let follow = arguments.follow;
    let filters = EventsQuery {
        event_type: arguments.event_type,
        target: arguments.target,
        task: arguments.task,
        attempt: arguments.attempt,
        ..EventsQuery::default()
    };
    // The server takes no limit of 0; with it, nothing is shown and only the head is wanted.
    let limit = Some(arguments.limit.max(1));
    let newest = EventsQuery { limit, newest: Some(true), ..filters.clone() };
    let mut page = client.events(&newest).await?;
    if arguments.limit == 0 {
        page.events.clear();
    }
    if page.events.is_empty() && !follow && screen.format == Format::Table {
        screen.line(&[plain("No events found.")])?;
    }
    show(&page, screen)?;
    if follow {
        until_interrupted(rest(filters, page.head, client, screen)).await?;
    }
    Ok(())
}

/// Everything after `seq`, for ever.
async fn rest(
    filters: EventsQuery,
    mut seq: u64,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    loop {
        let page = client.events(&EventsQuery { after: Some(seq), ..filters.clone() }).await?;
        show(&page, screen)?;
        if page.next_after == seq || page.events.is_empty() {
            tokio::time::sleep(PAUSE).await;
        }
        seq = page.next_after.max(seq);
    }
}

async fn until_interrupted(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    tokio::select! {
        outcome = work => outcome,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.map_err(|error| Failure::NotRun(format!("this machine gives no signals: {error}")))
        }
    }
}

fn show(page: &EventsPage, screen: &mut Screen<'_>) -> Result<(), Failure> {
    match screen.format {
        Format::Json => {
            for event in &page.events {
                screen.json_line(event)?;
            }
        }
        Format::Table => describe::events(page.events.iter(), screen)?,
    }
    // Whoever follows sees each event when it comes, also through a pipe.
    Ok(screen.flush()?)
}
