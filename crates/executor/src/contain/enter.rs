//! The last step before the command: this process limits itself for good and then becomes the command.
//!
//! Layers that a process puts on itself (limits today; landlock and a system call filter later) belong here,
//! in the order in which they must be applied.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit, umask};

use super::descriptors;
use super::plan::Entry;

/// Becomes the command of `entry`, or tells on the failure descriptor why not.
pub(super) fn enter(entry: &str) -> ExitCode {
    let Ok(entry) = serde_json::from_str::<Entry>(entry) else { return ExitCode::from(2) };
    // Opening it anew gives a descriptor that is closed by the execution of the command, which is how the
    // keeper learns that the command runs.
    let path = format!("/proc/self/fd/{}", entry.failure_descriptor);
    let Ok(mut failures) = File::options().write(true).open(path) else { return ExitCode::from(2) };
    let problem = match limit_this_process(&entry) {
        Ok(()) => execute(&entry),
        Err(problem) => problem,
    };
    let _ = write!(failures, "{problem}");
    ExitCode::from(2)
}

fn limit_this_process(entry: &Entry) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid().map(|parent| parent.as_raw_pid()) != Some(entry.keeper) {
        return Err(io::Error::other("the keeper has gone"));
    }
    descriptors::close_all_on_exec()?;
    rustix::thread::set_no_new_privs(true)?;
    umask(rustix::fs::Mode::from_raw_mode(0o022));
    limit(Resource::Core, 0)?;
    limit(Resource::Nofile, entry.open_files)?;
    limit(Resource::Fsize, entry.file_bytes)?;
    entry.user_processes.map_or(Ok(()), |most| limit(Resource::Nproc, most))
}

/// Sets a limit for this process and all it will start; one that is already lower stays.
fn limit(resource: Resource, most: u64) -> io::Result<()> {
    let held = rustix::process::getrlimit(resource).maximum;
    let most = Some(held.map_or(most, |held| held.min(most)));
    Ok(setrlimit(resource, Rlimit { current: most, maximum: most })?)
}

fn execute(entry: &Entry) -> io::Error {
    let Some((program, arguments)) = entry.arguments.split_first() else {
        return io::Error::other("there is no command");
    };
    let error = Command::new(program).args(arguments).exec();
    io::Error::new(error.kind(), format!("`{program}` cannot be executed: {error}"))
}
