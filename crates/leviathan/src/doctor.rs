//! `leviathan doctor`: which layers of the sandbox hold on this machine, as configured, and what is missing.

use std::collections::BTreeMap;

use anyhow::Context;
use executor::contain::{Containment, bubblewrap, landlock};
use model::event::SandboxReported;

use crate::Answer;
use crate::sandbox::SandboxSettings;

/// What `leviathan doctor` is told.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    sandbox: SandboxSettings,
    /// Write one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

/// Makes the self-test of an attempt. The answer is no when an attempt would not run.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<Answer> {
    let sandbox = arguments.sandbox.into_sandbox()?;
    let program = std::env::current_exe().context("this program does not know its own file")?;
    let folder = tempfile::Builder::new().prefix("leviathan-doctor-").tempdir()?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let containment = Containment::new(program, BTreeMap::new());
    let (report, problem) = match runtime.block_on(sandbox.prove(&containment, folder.path())) {
        Ok(proven) => (proven.report, None),
        Err(unavailable) => (unavailable.report, Some(unavailable.problem)),
    };
    if arguments.json {
        let said = serde_json::json!({ "sandbox": report, "holds": problem.is_none(), "problem": problem });
        anstream::println!("{said}");
    } else {
        print(&report, problem.as_deref());
    }
    Ok(if problem.is_none() { Answer::Yes } else { Answer::No })
}

fn print(report: &SandboxReported, problem: Option<&str>) {
    for layer in &report.layers {
        let holds = if layer.holds { "yes" } else { "no" };
        anstream::println!("  {:<12} {holds:<4} {}", layer.name, layer.detail);
    }
    anstream::println!();
    match problem {
        None => anstream::println!("The sandbox `{}` withstood its self-test.", report.profile),
        Some(problem) => {
            anstream::println!("No attempt runs here with the sandbox `{}`: {problem}", report.profile);
        }
    }
    for advice in advice() {
        anstream::println!("{advice}");
    }
}

fn advice() -> Vec<String> {
    let mut advice = Vec::new();
    if bubblewrap::find().is_none() {
        advice.push(
            "For namespaces install `bubblewrap` (apt install bubblewrap, dnf install bubblewrap)."
                .to_owned(),
        );
    }
    match landlock::version() {
        Some(abi) if abi >= landlock::SCOPES_ABI => {}
        Some(abi) if abi >= landlock::OLDEST_ABI => advice.push(format!(
            "Landlock has ABI {abi} here; from {} (Linux 6.12) it also keeps signals inside.",
            landlock::SCOPES_ABI
        )),
        Some(_) | None => advice.push(format!(
            "Landlock of ABI {} is needed: Linux 6.2 or newer, with `landlock` in the list of /sys/kernel/security/lsm.",
            landlock::OLDEST_ABI
        )),
    }
    advice
}
