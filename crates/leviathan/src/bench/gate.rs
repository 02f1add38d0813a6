//! `leviathan bench gate`: what it costs that nothing foreign is believed.

use std::collections::BTreeMap;
use std::future::pending;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, ensure};
use executor::contain::{Command, Containment, End, Limits, Program};
use executor::sandbox::{Proven, Sandbox};

use super::{Goal, machine, median, print_row, print_verdicts, show};
use crate::Answer;

/// A contained command may take so many seconds more than the same command started plainly.
const SANDBOX_EXTRA: f64 = 0.030;

/// What `leviathan bench gate` is told.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many commands are run in each way
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rounds: u32,
    /// Make no namespaces, also where they can be made
    #[arg(long)]
    without_namespaces: bool,
    /// Write JSON objects, one a line, instead of the table
    #[arg(long)]
    json: bool,
}

/// Measures, prints, and says whether the goals are met.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let folder = tempfile::Builder::new().prefix("leviathan-bench-").tempdir()?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let sandbox = Sandbox { namespaces: !arguments.without_namespaces, ..Sandbox::default() };
    let (proven, times) = runtime.block_on(async {
        let containment = Containment::new(std::env::current_exe()?, BTreeMap::new());
        let proven = sandbox.prove(&containment, folder.path()).await?;
        let times = take_turns(&proven, folder.path(), arguments.rounds).await?;
        anyhow::Ok((proven, times))
    })?;
    let (plain, contained) = (median(times.plain), median(times.contained));
    let goals = [Goal::at_most(1.0, "S1", contained, plain + SANDBOX_EXTRA)];
    show(&goals, arguments.json, || {
        let layers = proven.report.layers.iter().filter(|layer| layer.holds);
        let held: Vec<&str> = layers.map(|layer| layer.name.as_str()).collect();
        anstream::println!("{}\n", machine());
        anstream::println!(
            "the command `true`, {} times, milliseconds; {}",
            arguments.rounds,
            held.join(", ")
        );
        print_row("started plainly, median", plain * 1e3);
        print_row("contained, median", contained * 1e3);
        print_verdicts(&goals);
    })
}

/// Seconds of each command.
#[derive(Default)]
struct Times {
    plain: Vec<f64>,
    contained: Vec<f64>,
}

/// One round to warm up, and then those that count; whatever slows the machine slows both.
async fn take_turns(proven: &Proven, folder: &Path, rounds: u32) -> anyhow::Result<Times> {
    let tree = folder.join("tree");
    std::fs::create_dir(&tree)?;
    let command = Command {
        program: Program::Shell("true".to_owned()),
        directory: tree,
        scratch: folder.join("scratch"),
        environment: BTreeMap::new(),
        stdin: Vec::new(),
        log: folder.join("log"),
        stderr_log: None,
        limits: Limits::default(),
    };
    let mut times = Times::default();
    for round in 0..=rounds {
        let begun = Instant::now();
        let status = tokio::process::Command::new("/bin/sh")
            .args(["-c", "true"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .await?;
        let plain = begun.elapsed().as_secs_f64();
        ensure!(status.success(), "`true` ended with {status}");
        let begun = Instant::now();
        let outcome = proven.containment.run(&command, pending()).await?;
        let contained = begun.elapsed().as_secs_f64();
        ensure!(outcome.end == End::Exited { code: 0 }, "the contained `true` ended with {:?}", outcome.end);
        if round > 0 {
            times.plain.push(plain);
            times.contained.push(contained);
        }
    }
    Ok(times)
}
