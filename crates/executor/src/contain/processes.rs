//! Finding and ending every process that descends from this one.

use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpgrp, getpid, kill_process, kill_process_group, wait,
};

/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Processes that were killed and still exist, for example in an uninterruptible system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} processes could not be killed")]
pub struct Survivors(
    /// How many.
    pub u32,
);

/// From now on, orphans among the descendants of this process become its children instead of init's, so that
/// [`end_all_descendants`] finds them.
pub fn adopt_orphans() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(getpid()))?)
}

/// Kills every descendant of this process and waits until none is left; tells `reaped` how each child ended.
///
/// Orphans are found only after [`adopt_orphans`]. The caller must have no child that it wants to keep.
pub fn end_all_descendants(mut reaped: impl FnMut(Pid, WaitStatus)) -> Result<(), Survivors> {
    let deadline = Instant::now() + PATIENCE;
    while reap(&mut reaped) {
        // A process that is stopped starts no other. Killing without stopping would free places in the process
        // table that a flood of forks fills faster than the next look can find them.
        let found = stop_all();
        for pid in &found {
            // One that ended meanwhile needs no signal.
            let _ = kill_process(*pid, Signal::KILL);
        }
        if Instant::now() > deadline {
            return Err(Survivors(found.len().try_into().unwrap_or(u32::MAX)));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Takes the status of every child that has ended. False when there is no child at all.
pub(super) fn reap(reaped: &mut impl FnMut(Pid, WaitStatus)) -> bool {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => reaped(pid, status),
            Ok(None) => return true,
            Err(Errno::INTR) => {}
            // ECHILD; `wait` has no other error.
            Err(_) => return false,
        }
    }
}

/// How many processes and threads the machine has: a cheap measure that grows when a command's processes do.
pub(super) fn machine_wide_count() -> io::Result<usize> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    let count = text.split_ascii_whitespace().nth(3).and_then(|field| field.split_once('/')?.1.parse().ok());
    count.ok_or_else(|| io::Error::other("/proc/loadavg has no process count"))
}

/// How many descendants this process has, also those that ended and were not reaped.
pub(super) fn count_descendants() -> usize {
    let mut known = HashSet::new();
    visit_unknown(&mut known, |_| {});
    known.len()
}

/// Stops all descendants, looking again until no unknown one appears.
fn stop_all() -> HashSet<Pid> {
    const LOOKS: usize = 100;
    let mut known = HashSet::new();
    let mut groups = HashSet::new();
    for _ in 0..LOOKS {
        let before = known.len();
        visit_unknown(&mut known, |process| stop(process, &mut groups));
        if known.len() == before {
            break;
        }
    }
    known
}

/// Stops a process, and first its whole group, which no fork within the group can outrun. Only descendants can
/// be in that group unless it is our own: a process cannot join a group of another session.
fn stop(process: &Process, groups: &mut HashSet<Pid>) {
    if let Some(group) = process.group
        && group != getpgrp()
        && groups.insert(group)
    {
        let _ = kill_process_group(group, Signal::STOP);
    }
    let _ = kill_process(process.pid, Signal::STOP);
}

/// A line of the process table.
struct Process {
    pid: Pid,
    parent: Option<Pid>,
    /// `None` for a group of another pid namespace.
    group: Option<Pid>,
}

/// Visits every descendant of this process that is not in `known` and adds it. The table is read in ascending
/// order, in which a parent mostly comes before its children, and each is visited as soon as it is found.
fn visit_unknown(known: &mut HashSet<Pid>, mut visit: impl FnMut(&Process)) {
    let ourselves = getpid();
    let mut others: Vec<Process> = Vec::new();
    let mut found_any = false;
    for process in every_process() {
        let is_descendant =
            process.parent.is_some_and(|parent| parent == ourselves || known.contains(&parent));
        if !is_descendant {
            others.push(process);
        } else if known.insert(process.pid) {
            found_any = true;
            visit(&process);
        }
    }
    // Children whose number is lower than their parent's, after the numbers wrapped around.
    while found_any {
        found_any = false;
        others.retain(|process| {
            let is_descendant = process.parent.is_some_and(|parent| known.contains(&parent));
            if is_descendant && known.insert(process.pid) {
                found_any = true;
                visit(process);
            }
            !is_descendant
        });
    }
}

fn every_process() -> impl Iterator<Item = Process> {
    std::fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
        let pid = id(entry.ok()?.file_name().to_str()?)?;
        process(pid, &std::fs::read(format!("/proc/{pid}/stat")).ok()?)
    })
}

fn process(pid: Pid, stat: &[u8]) -> Option<Process> {
    // The name in parentheses may hold anything, also parentheses: the fields are counted from its end.
    let end_of_name = stat.iter().rposition(|byte| *byte == b')')?;
    let fields = std::str::from_utf8(stat.get(end_of_name + 1..)?).ok()?;
    let mut ids = fields.split_ascii_whitespace().skip(1).map(id);
    Some(Process { pid, parent: ids.next()?, group: ids.next()? })
}

/// The id of a process or group. The kernel writes 0 for one of another pid namespace and -1 for one that is just
/// being removed; a signal to either would reach processes that are not ours.
fn id(text: &str) -> Option<Pid> {
    let number = text.parse().ok().filter(|number| *number > 0)?;
    Pid::from_raw(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_being_removed_has_no_group() {
        let pid = getpid();
        let rows = [
            ("7 (sh) S 5 6 6 0", Some((Some(5), Some(6)))),
            ("7 (a) b) (c) S 5 6 6 0", Some((Some(5), Some(6)))),
            ("7 (sh) X 0 -1 -1 0", Some((None, None))),
            ("7 (sh) X 5 -1 -1 0", Some((Some(5), None))),
            ("7 (sh) S 0 0 0 0", Some((None, None))),
            ("7 (sh) S", None),
            ("", None),
        ];
        for (stat, expected) in rows {
            let read = process(pid, stat.as_bytes())
                .map(|process| (process.parent.map(Pid::as_raw_pid), process.group.map(Pid::as_raw_pid)));
            assert_eq!(read, expected, "{stat}");
        }
    }
}
