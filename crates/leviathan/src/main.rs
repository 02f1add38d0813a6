//! `leviathan`: the roles of the platform, and what its users run in their own repositories.
//!
//! This file knows the command line and how a command's end becomes an exit code: 0 done, 1 the answer is no,
//! 2 it could not be run. What a command does is in the module of its name.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod attack;
mod bench;
mod check;
mod contain;
mod control_plane;
mod copy_log;
mod data;
mod demo;
mod doctor;
mod executor;
mod explain;
mod init;
mod installation;
mod local_documents;
mod logging;
mod open_files;
mod plain_git;
mod plan;
mod replay;
mod sandbox;
mod scheduler;
mod telemetry;
mod up;
mod witness;

#[derive(Parser)]
#[command(
    version,
    about = "Operate repositories through explicit, auditable pull requests",
    max_term_width = 100
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the three documents of a target into a repository
    Init(init::Arguments),
    /// Check the three documents of a target, and report every problem at once
    Check(check::Arguments),
    /// Say which paths a task may change, and by which rule
    Explain(explain::Arguments),
    /// Say what would run now, and why everything else waits
    Plan(plan::Arguments),
    /// Show the main job on a sample repository: no key, no server, no network
    Demo(demo::Arguments),
    /// Say which layers of the sandbox hold on this machine, and what is missing
    Doctor(doctor::Arguments),
    /// Do again, offline, what the transcript of an attempt records, and compare the commit
    Replay(replay::Arguments),
    /// Attack the sandbox, the proxy, the gate and the readers for real, and say what stopped each attack
    Attack(attack::Arguments),
    /// Measure the product against its goals
    Bench(bench::Arguments),
    /// Run control plane and scheduler in one process
    Up(Box<up::Arguments>),
    /// Keep the log and answer the API
    ControlPlane(Box<control_plane::Arguments>),
    /// Copy the whole log between a folder and a database
    CopyLog(copy_log::Arguments),
    /// See what is to be done and have it done
    Scheduler(Box<scheduler::Arguments>),
    /// Carry out one attempt
    Executor(Box<executor::Arguments>),
}

/// How a command that could be run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Done; or the answer is yes.
    Yes,
    /// The answer is no.
    No,
}

fn main() -> ExitCode {
    if let Some(code) = contain::run_if_keeper() {
        return code;
    }
    let arguments = Arguments::parse();
    let answer = match arguments.command {
        Command::Init(arguments) => init::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Plan(arguments) => plan::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Replay(arguments) => replay::run(arguments),
        Command::Attack(arguments) => attack::run(arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Up(arguments) => up::run(*arguments),
        Command::ControlPlane(arguments) => control_plane::run(*arguments),
        Command::CopyLog(arguments) => copy_log::run(arguments),
        Command::Scheduler(arguments) => scheduler::run(*arguments),
        Command::Executor(arguments) => return executor::run(*arguments),
    };
    match answer {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Err(error) => {
            anstream::eprintln!("leviathan: {}", explained(&error));
            ExitCode::from(2)
        }
    }
}

/// An error and its causes in one line. A cause with which the line ends already is not said twice.
fn explained(error: &anyhow::Error) -> String {
    let mut line = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn no_cause_is_said_twice() {
        let error = anyhow::anyhow!("disk full").context("cannot write x: disk full").context("cannot start");
        assert_eq!(explained(&error), "cannot start: cannot write x: disk full");
    }

    #[test]
    fn the_reference_in_docs_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");
        let current = test_support::reference::markdown(Arguments::command());
        let document = std::fs::read_to_string(path).unwrap();
        let (kept, updated) = test_support::reference::section_of(&document, "leviathan", &current);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, updated).unwrap();
        } else {
            assert!(
                kept == current,
                "docs/cli.md is out of date; run `UPDATE=1 cargo test -p leviathan --bins`"
            );
        }
    }
}
