//! The first process inside the namespaces: it starts the command and tells the keeper how it ended. With it
//! the kernel ends every other process in there.
//!
//! It exists because bubblewrap tells a signal and an exit code by the same number. Nothing inside can signal or
//! read it: the kernel keeps signals from the first process of a namespace, and it is closed to other eyes.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};

use rustix::process::{DumpableBehavior, Pid, WaitOptions, WaitStatus, wait};

use super::plan::{ENTER_ARGUMENT, Entry, KEEPER_ARGUMENT, Word};
use super::way_out;

/// Starts the command of `entry` and waits for it.
pub(super) fn watch(entry: &str) -> ExitCode {
    let Ok(read) = serde_json::from_str::<Entry>(entry) else { return ExitCode::from(2) };
    let Ok(mut words) = read.words() else { return ExitCode::from(2) };
    let word = match open_way_out(&read) {
        Err(error) => Word::NotContained { problem: format!("the way to permitted hosts: {error}") },
        Ok(()) => match start_and_wait(&mut words, entry) {
            Ok(word) => word,
            Err(error) => Word::Failed { problem: format!("the command cannot be started: {error}") },
        },
    };
    match word.tell(&mut words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(2),
    }
}

/// Hands the listener over before the command exists, which so never holds a part of it.
fn open_way_out(entry: &Entry) -> std::io::Result<()> {
    entry.take_way_out()?.map_or(Ok(()), |out| way_out::open(&out))
}

fn start_and_wait(words: &mut File, entry: &str) -> std::io::Result<Word> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let child =
        Command::new(std::env::current_exe()?).args([KEEPER_ARGUMENT, ENTER_ARGUMENT, entry]).spawn()?;
    Word::Begun.tell(words)?;
    let status = wait_for(Pid::from_child(&child))?;
    let status = std::process::ExitStatus::from_raw(status.as_raw());
    Ok(match (status.code(), status.signal()) {
        (Some(code), _) => Word::Exited { code },
        (None, signal) => Word::Signalled { signal: signal.unwrap_or_default() },
    })
}

/// Waits for `command`, and clears away the orphans that end before it.
fn wait_for(command: Pid) -> std::io::Result<WaitStatus> {
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == command => return Ok(status),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
