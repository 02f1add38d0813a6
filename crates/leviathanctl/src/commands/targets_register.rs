//! `leviathanctl targets-register` checks a contract here, then registers its target.

use std::path::{Path, PathBuf};

use api::Client;
use api::types::RegisterTarget;
use model::{Backlog, Contract, Policy, Problems};

use crate::failure::Failure;
use crate::terminal::{Format, Screen, faint, plain};
use crate::words;

/// Registers a target by its contract, after every problem of the file was looked for here.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The target's contract.yaml.
    #[arg(value_name = "FILE")]
    contract: PathBuf,
    /// Your own policy.yaml for this target. It can only tighten the repository's.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// A backlog.yaml for a repository that has none. Nothing is written back to it.
    #[arg(long, value_name = "FILE")]
    backlog: Option<PathBuf>,
    /// The image in which agents and checks of this target run in a cluster.
    #[arg(long, value_name = "IMAGE")]
    executor_image: Option<String>,
}

pub(crate) async fn run(
    arguments: Arguments,
    client: Result<Client, Failure>,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let request = checked(&arguments)?;
    let answer = client?.register_target(&request).await?;
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

/// The files as text, once nothing is wrong with any of them. Every problem of all of them is named.
fn checked(arguments: &Arguments) -> Result<RegisterTarget, Failure> {
    let Arguments { contract, policy, backlog, executor_image } = arguments;
    let contract_text = read(contract)?;
    let policy_text = policy.as_deref().map(read).transpose()?;
    let backlog_text = backlog.as_deref().map(read).transpose()?;
    let mut problems = Vec::new();
    problems.extend(Contract::parse(&contract.to_string_lossy(), &contract_text).err());
    if let (Some(file), Some(text)) = (policy, &policy_text) {
        problems.extend(Policy::parse_operator(&file.to_string_lossy(), text).err());
    }
    if let (Some(file), Some(text)) = (backlog, &backlog_text) {
        problems.extend(Backlog::parse(&file.to_string_lossy(), text).err());
    }
    if problems.is_empty() {
        Ok(RegisterTarget {
            operator_policy: policy_text.map(text),
            backlog: backlog_text.map(text),
            executor_image: executor_image.clone(),
            ..RegisterTarget::of_contract(text(contract_text))
        })
    } else {
        Err(Failure::No(named(&problems)))
    }
}

fn named(problems: &[Problems]) -> String {
    let count: usize = problems.iter().map(Problems::len).sum();
    let lines: Vec<_> = problems.iter().map(Problems::to_string).collect();
    let counted = words::counted(count as u64, "problem");
    format!("{counted} to correct before the target can be registered:\n{}", lines.join("\n"))
}

fn text(document: Vec<u8>) -> String {
    String::from_utf8(document).expect("a document without problems is UTF-8")
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|error| {
        Failure::NotRun(format!("{} cannot be read: {error}; give the file that holds it", file.display()))
    })
}
