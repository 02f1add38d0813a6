//! The last step before the command: this process limits itself for good and then becomes the command.
//!
//! The layers that a process puts on itself belong here, in the order in which they must be applied: limits,
//! privileges, landlock, and last the system call filter, which refuses what the others need.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit, umask};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use super::plan::{Entry, Word};
use super::{descriptors, landlock, seccomp};

/// Becomes the command of `entry`, or tells the keeper why not.
pub(super) fn enter(entry: &str) -> ExitCode {
    let Ok(entry) = serde_json::from_str::<Entry>(entry) else { return ExitCode::from(2) };
    let Ok(mut words) = entry.words() else { return ExitCode::from(2) };
    let word = match limit_this_process(&entry).and_then(|()| wall_in_this_process(&entry)) {
        Ok(()) => Word::Failed { problem: execute(&entry).to_string() },
        Err(problem) => Word::NotContained { problem: problem.to_string() },
    };
    let _ = word.tell(&mut words);
    ExitCode::from(2)
}

fn limit_this_process(entry: &Entry) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // Inside namespaces the parent is the first process there, with which everything ends.
    if entry.walls.bubblewrap().is_none() && getppid().map(|parent| parent.as_raw_pid()) != Some(entry.keeper)
    {
        return Err(io::Error::other("the keeper has gone"));
    }
    descriptors::close_all_on_exec()?;
    rustix::thread::set_no_new_privs(true)?;
    umask(rustix::fs::Mode::from_raw_mode(0o022));
    limit(Resource::Core, 0)?;
    limit(Resource::Nofile, entry.open_files)?;
    limit(Resource::Fsize, entry.file_bytes)?;
    limit(Resource::Data, entry.memory_bytes)?;
    entry.user_processes.map_or(Ok(()), |most| limit(Resource::Nproc, most))
}

fn wall_in_this_process(entry: &Entry) -> io::Result<()> {
    if !entry.walls.has_filters() {
        return Ok(());
    }
    drop_capabilities()?;
    landlock::restrict(&entry.walls, &entry.places)?;
    seccomp::filter(entry.walls.bubblewrap().is_some())
}

/// Nothing of what root may do beyond its own files is left, also not to the programs that it starts.
fn drop_capabilities() -> io::Result<()> {
    let held = capabilities(None)?;
    if held.effective.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().iter() {
            if capability_is_in_bounding_set(capability).unwrap_or(false) {
                remove_capability_from_bounding_set(capability)?;
            }
        }
    }
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    Ok(set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?)
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
