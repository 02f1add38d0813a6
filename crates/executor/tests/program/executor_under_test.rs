//! The executor's subcommands by themselves, so that this crate's tests run real processes.

use std::collections::BTreeMap;
use std::future::pending;
use std::path::Path;
use std::process::ExitCode;

use leviathan_executor::contain::{self, Command, Containment, Limits, Program};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["contain", ..] => contain::keeper_main(&arguments[1..]),
        ["run-contained", folder, line] => run_contained(Path::new(folder), line),
        [..] => ExitCode::from(2),
    }
}

/// Runs one command and waits for it: a caller that a test can kill.
fn run_contained(folder: &Path, line: &str) -> ExitCode {
    let command = Command {
        program: Program::Shell(line.to_owned()),
        directory: folder.to_owned(),
        scratch: folder.join("scratch"),
        environment: BTreeMap::new(),
        stdin: Vec::new(),
        log: folder.join("log"),
        stderr_log: None,
        limits: Limits::default(),
    };
    let program = std::env::current_exe().expect("a running program has a path");
    let containment = Containment::new(program, BTreeMap::new());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be made");
    match runtime.block_on(containment.run(&command, pending())) {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(2),
    }
}
