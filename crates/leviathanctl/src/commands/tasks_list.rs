//! `leviathanctl tasks-list` lists tasks, and why each waits.

use api::Client;
use api::types::{TaskList, TaskView, TasksQuery};
use model::TargetId;

use crate::failure::Failure;
use crate::terminal::{Format, Screen, faint, plain, strong};
use crate::{table::Table, words};

/// Every task, where it stands, and why it does not run now.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only of this target.
    #[arg(long, value_name = "TARGET")]
    target: Option<TargetId>,
}

pub(crate) async fn run(
    arguments: Arguments,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let list = client.tasks(&TasksQuery { target: arguments.target }).await?;
    match screen.format {
        Format::Json => screen.json(&list)?,
        Format::Table => show(&list, screen)?,
    }
    Ok(())
}

fn show(list: &TaskList, screen: &mut Screen<'_>) -> Result<(), Failure> {
    if list.tasks.is_empty() {
        screen.line(&[plain("No tasks found.")])?;
        return Ok(screen.line(&[faint(
            "A scheduler reads them from .leviathan/backlog.yaml of each registered target.",
        )])?);
    }
    for (index, tasks) in list.tasks.chunk_by(|a, b| a.target == b.target).enumerate() {
        if index > 0 {
            screen.blank()?;
        }
        screen.line(&[strong(format!("Target {}", tasks[0].target))])?;
        table(tasks).write("  ", screen)?;
    }
    Ok(())
}

fn table(tasks: &[TaskView]) -> Table {
    let mut table =
        Table::new().words("TASK").words("STATE").words("PRIORITY").numbers("ATTEMPTS").text("TITLE");
    for task in tasks {
        table.row([
            plain(&task.task_id),
            words::state(&task.state),
            plain(&task.priority),
            plain(task.attempts),
            plain(&task.title),
        ]);
        table.note(faint(why(task)));
    }
    table
}

/// The reason code and its words, or that it runs; and what became of its write-back.
fn why(task: &TaskView) -> String {
    let why = match (&task.reason, &task.detail) {
        (Some(code), Some(detail)) => format!("{code}: {detail}"),
        (Some(code), None) => code.clone(),
        (None, Some(detail)) => detail.clone(),
        (None, None) => "runs at the next pass".to_owned(),
    };
    match &task.write_back {
        Some(write_back) => format!("{why}; backlog.yaml: {write_back}"),
        None => why,
    }
}
