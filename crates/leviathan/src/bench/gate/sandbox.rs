//! Row S1: a contained command, beside the same command started plainly.

use std::collections::BTreeMap;
use std::future::pending;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, ensure};
use executor::contain::{Command, Containment, End, Limits, Program};
use executor::sandbox::{Proven, Sandbox};

use super::super::{Goal, median};
use super::Arguments;

/// A contained command may take so many seconds more than the same command started plainly.
const EXTRA: f64 = 0.030;

/// What was measured, in seconds: medians.
pub(super) struct Measured {
    plain: f64,
    contained: f64,
    /// The layers that held.
    pub(super) layers: Vec<String>,
}

impl Measured {
    /// The goal of the row.
    pub(super) fn goal(&self) -> Goal {
        Goal::at_most(1.0, "S1", self.contained, self.plain + EXTRA)
    }

    /// The rows of the table.
    pub(super) fn rows(&self) -> [(&'static str, f64); 2] {
        [
            ("the command `true`, started plainly", self.plain),
            ("the command `true`, contained", self.contained),
        ]
    }
}

/// Proves the walls, then runs a command in both ways by turns.
pub(super) fn measure(arguments: &Arguments) -> anyhow::Result<Measured> {
    let folder = tempfile::Builder::new().prefix("leviathan-bench-").tempdir()?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let sandbox = Sandbox { namespaces: !arguments.without_namespaces, ..Sandbox::default() };
    let (proven, times) = runtime.block_on(async {
        let containment = Containment::new(std::env::current_exe()?, BTreeMap::new());
        let proven = sandbox.prove(&containment, folder.path()).await?;
        let times = take_turns(&proven, folder.path(), arguments.commands).await?;
        anyhow::Ok((proven, times))
    })?;
    let layers = proven.report.layers.iter().filter(|layer| layer.holds);
    Ok(Measured {
        plain: median(times.plain),
        contained: median(times.contained),
        layers: layers.map(|layer| layer.name.clone()).collect(),
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
