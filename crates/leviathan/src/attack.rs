//! `leviathan attack`: every attack on the sandbox, for real, on this machine as it is configured.

use std::collections::BTreeMap;

use anyhow::Context;
use executor::attack::{self, ATTACKS, Finding, Outcome};
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
    let (report, findings) = runtime.block_on(async {
        let containment = Containment::new(program, BTreeMap::new());
        let proven = sandbox.prove(&containment, folder.path()).await?;
        let canaries = Canaries::new(folder.path()).context("the canaries cannot be set out")?;
        anyhow::Ok((proven.report, attack::attack(&proven.containment, &canaries).await))
    })?;
    if arguments.json {
        for finding in &findings {
            anstream::println!("{}", serde_json::to_string(finding)?);
        }
    } else {
        let held: Vec<&str> =
            report.layers.iter().filter(|layer| layer.holds).map(|layer| layer.name.as_str()).collect();
        anstream::println!("sandbox `{}`: {}\n", report.profile, held.join(", "));
        print(&findings);
    }
    let all_stopped = findings.iter().all(|finding| finding.outcome == Outcome::Stopped);
    Ok(if all_stopped { Answer::Yes } else { Answer::No })
}

fn print(findings: &[Finding]) {
    for (finding, attack) in findings.iter().zip(ATTACKS) {
        let (word, by) = match finding.outcome {
            Outcome::Stopped => ("stopped by", finding.by.as_str()),
            Outcome::Succeeded => ("SUCCEEDED", ""),
            Outcome::Failed => ("not made", ""),
        };
        anstream::println!("  {:<22} {word:<10} {by:<12} {}", finding.attack, attack.does);
        if finding.outcome != Outcome::Stopped && !finding.detail.is_empty() {
            anstream::println!("  {:<22} {}", "", finding.detail);
        }
    }
    let stopped = findings.iter().filter(|finding| finding.outcome == Outcome::Stopped).count();
    anstream::println!("\n{stopped} of {} attacks were stopped", findings.len());
}
