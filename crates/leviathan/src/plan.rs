//! `leviathan plan`: what would run now, and why everything else waits.

use std::path::PathBuf;

use anyhow::Context;
use api::Client;
use api::types::TasksQuery;
use clap::Args;
use jiff::Timestamp;
use secrecy::SecretString;

use crate::data::DataFolder;
use crate::{Answer, local_documents, scheduler};

/// What `leviathan plan` is told.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The repository whose documents are read when no control plane is named
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// The control plane to ask; it knows attempts and pull requests too
    #[arg(long = "control-plane-url", env = "LEVIATHAN_CONTROL_PLANE_URL", value_name = "URL")]
    url: Option<String>,
    /// The operator's token; without it, the one that `leviathan up` keeps in the data folder
    #[arg(long, env = "LEVIATHAN_CONTROL_PLANE_TOKEN", hide_env_values = true)]
    token: Option<SecretString>,
    #[command(flatten)]
    data: DataFolder,
}

/// One task, and why it does not run; nothing when it does.
struct Row {
    target: String,
    task: String,
    priority: String,
    wait: Option<(String, String)>,
}

/// Asks the control plane when there is one, else reads the documents alone.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let rows = match &arguments.url {
        Some(url) => asked(&scheduler::client(url, arguments.token.as_ref(), &arguments.data.path()?)?)?,
        None => match of_documents(arguments)? {
            Ok(rows) => rows,
            Err(problems) => {
                anstream::eprintln!("{problems}");
                return Ok(Answer::No);
            }
        },
    };
    show(&rows);
    Ok(Answer::Yes)
}

fn asked(client: &Client) -> anyhow::Result<Vec<Row>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let tasks = runtime.block_on(client.tasks(&TasksQuery::default()))?.tasks;
    let rows = tasks.into_iter().map(|task| Row {
        target: task.target.to_string(),
        task: task.task_id.to_string(),
        priority: task.priority,
        wait: task.reason.map(|reason| (reason, task.detail.unwrap_or_default())),
    });
    Ok(rows.collect())
}

/// As if every task were new: attempts and pull requests are not in the documents.
fn of_documents(arguments: &Arguments) -> anyhow::Result<Result<Vec<Row>, model::Problems>> {
    let spec = match local_documents::read(&arguments.directory, None)? {
        Ok(spec) => spec,
        Err(problems) => return Ok(Err(problems)),
    };
    let target = spec.contract.target_id.clone();
    let outlook = ::scheduler::plan::outlook(&spec, model::event::Timestamp::new(Timestamp::now()));
    let rows = outlook.into_iter().map(|(task, wait)| Row {
        target: target.to_string(),
        task: task.task_id.to_string(),
        priority: task.priority.to_string(),
        wait: wait.map(|reason| (reason.code().to_owned(), reason.to_string())),
    });
    Ok(Ok(rows.collect()))
}

fn show(rows: &[Row]) {
    if rows.is_empty() {
        anstream::println!("No tasks. Humans add them to .leviathan/backlog.yaml.");
        return;
    }
    let cells: Vec<[String; 5]> = rows.iter().map(cells).collect();
    let head = ["TARGET", "TASK", "PRIORITY", "NOW", "WHY"].map(str::to_owned);
    let widths: [usize; 5] = std::array::from_fn(|column| {
        std::iter::once(&head).chain(&cells).map(|row| row[column].chars().count()).max().unwrap_or(0)
    });
    for row in std::iter::once(&head).chain(&cells) {
        let line: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        anstream::println!("{}", line.join("  ").trim_end());
    }
}

fn cells(row: &Row) -> [String; 5] {
    let (now, why) = match &row.wait {
        None => ("runs".to_owned(), String::new()),
        Some((code, detail)) => (code.clone(), detail.clone()),
    };
    [row.target.clone(), row.task.clone(), row.priority.clone(), now, why].map(|cell| visible(&cell))
}

/// Text of the repository without what would steer a terminal.
fn visible(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if steers(c) { '\u{fffd}' } else { c }).collect()
}
