use std::path::{Path, PathBuf};

use api::Client;
use api::types::RegisterTarget;

use crate::failure::Failure;
use crate::terminal::{Format, Screen, faint, plain};

/// Registers a target by its contract, after every problem of the file was looked for here.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The target's contract.yaml.
    #[arg(value_name = "FILE")]
    contract: PathBuf,
    /// Your own policy.yaml for this target. It can only tighten the repository's.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

pub(crate) async fn run(
    arguments: Arguments,
    client: Result<Client, Failure>,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let contract = read(&arguments.contract)?;
    let operator_policy = arguments.policy.as_deref().map(read).transpose()?;
    let answer = client?.register_target(&RegisterTarget { contract, operator_policy }).await?;
    match screen.format {
        Format::Json => screen.json(&answer)?,
        Format::Table if answer.changed => {
            screen.line(&[plain(format!("Registered target: {}", answer.target_id))])?;
            let next = format!(
                "A scheduler reads its backlog at the next pass; `leviathanctl tasks-list --target {}` shows it.",
                answer.target_id
            );
            screen.line(&[faint(next)])?;
        }
        Format::Table => {
            let text = format!(
                "{} was registered with the same documents before; nothing changed.",
                answer.target_id
            );
            screen.line(&[plain(text)])?;
        }
    }
    Ok(())
}

fn read(file: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(file).map_err(|error| {
        Failure::NotRun(format!("{} cannot be read: {error}; give the file that holds it", file.display()))
    })
}
