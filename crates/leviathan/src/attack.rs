//! `leviathan attack`: every attack that can be made from one machine, for real, on this machine as it is configured.
//!
//! The attacks on the sandbox, its secrets and its network are the executor's; those on the gate and on what is read
//! from outside are modules here. None of them harms the machine.

mod gate;
mod inputs;

use std::collections::BTreeMap;

use anyhow::Context;
use executor::attack::{self, Finding, Group, Outcome};
use executor::contain::Containment;
use executor::sandbox::Canaries;

use crate::Answer;
use crate::sandbox::SandboxSettings;

/// What `leviathan attack` is told.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    sandbox: SandboxSettings,
    /// Write JSON objects, one a line, instead of the table
    #[arg(long)]
    json: bool,
}

/// Attacks, prints, and says whether everything was stopped.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<Answer> {
    let sandbox = arguments.sandbox.into_sandbox()?;
    let program = std::env::current_exe().context("this program does not know its own file")?;
    let folder = tempfile::Builder::new().prefix("leviathan-attack-").tempdir()?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let (report, mut findings) = runtime.block_on(async {
        let containment = Containment::new(program, BTreeMap::new());
        let proven = sandbox.prove(&containment, folder.path()).await?;
        let canaries = Canaries::new(folder.path()).context("the canaries cannot be set out")?;
        anyhow::Ok((proven.report, attack::attack(&proven.containment, &canaries).await))
    })?;
    let others = gate::attack(&folder.path().join("gate"))?.into_iter().chain(inputs::attack());
    for seen in others {
        let row = findings.len() + 1;
        findings.push(seen.finding(row));
    }
    if arguments.json {
        for finding in &findings {
            anstream::println!("{}", serde_json::to_string(finding)?);
        }
    } else {
        let held: Vec<&str> =
            report.layers.iter().filter(|layer| layer.holds).map(|layer| layer.name.as_str()).collect();
        anstream::println!("sandbox `{}`: {}", report.profile, held.join(", "));
        print(&findings);
    }
    let all_stopped = findings.iter().all(|finding| finding.outcome == Outcome::Stopped);
    Ok(if all_stopped { Answer::Yes } else { Answer::No })
}

/// What one attack of this program's own came to.
struct Seen {
    attack: &'static str,
    group: Group,
    does: &'static str,
    outcome: Outcome,
    by: &'static str,
    detail: String,
}

impl Seen {
    fn finding(self, row: usize) -> Finding {
        let Self { attack, group, does, outcome, by, detail } = self;
        Finding { attack, row, group, does, outcome, by: by.to_owned(), detail }
    }
}

fn print(findings: &[Finding]) {
    let mut group = None;
    for finding in findings {
        if group != Some(finding.group) && !is_beside(group, finding.group) {
            anstream::println!("\n{}", heading(finding.group));
        }
        group = Some(finding.group);
        let (word, by) = match finding.outcome {
            Outcome::Stopped => ("stopped by", finding.by.as_str()),
            Outcome::Succeeded => ("SUCCEEDED", ""),
            Outcome::Failed => ("not made", ""),
        };
        anstream::println!("  {:<24} {word:<10} {by:<12} {}", finding.attack, finding.does);
        if finding.outcome != Outcome::Stopped && !finding.detail.is_empty() {
            anstream::println!("  {:<24} {}", "", finding.detail);
        }
    }
    let stopped = findings.iter().filter(|finding| finding.outcome == Outcome::Stopped).count();
    anstream::println!("\n{stopped} of {} attacks were stopped", findings.len());
}

/// The executor's table goes from secrets to the sandbox and is one list.
fn is_beside(before: Option<Group>, group: Group) -> bool {
    before == Some(Group::Secrets) && group == Group::Sandbox
}

fn heading(group: Group) -> &'static str {
    match group {
        Group::Secrets | Group::Sandbox => "A command within the walls",
        Group::Network => "A command that is given a way to some hosts",
        Group::Gate => "A tree that an agent leaves to the gate",
        Group::Inputs => "What is read from outside",
    }
}
