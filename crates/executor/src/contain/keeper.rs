//! The keeper: starts one command, watches it, and ends everything that came of it.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, OFlags, fcntl_getfl, fcntl_setfl, memfd_create};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Signal, WaitStatus, getpid, kill_process, kill_process_group,
    pidfd_open,
};

use super::disk::{Disk, Taken};
use super::log::BoundedLog;
use super::plan::{ENTER_ARGUMENT, End, Entry, KEEPER_ARGUMENT, Plan, Report, WARDEN_ARGUMENT, Word};
use super::{bubblewrap, processes};

/// How often it is looked at how many processes there are.
const CENSUS: Duration = Duration::from_millis(20);

/// Reads the plan from standard input, carries it out, and reports on standard output.
pub(super) fn keep() -> ExitCode {
    let report = match Plan::read(io::stdin().lock()) {
        Err(error) => not_contained("the plan cannot be read", &error),
        Ok((plan, stdin)) => carry_out(&plan, &stdin),
    };
    let text = serde_json::to_vec(&report).expect("a report holds only text and numbers");
    // When the caller has gone, there is nobody to tell.
    let _ = io::stdout().write_all(&text);
    ExitCode::SUCCESS
}

fn carry_out(plan: &Plan, stdin: &[u8]) -> Report {
    if !plan.directory.is_dir() {
        let problem = format!("there is no directory {}", plan.directory.display());
        return Report::Ended { end: End::NotStarted { problem }, duration: Duration::ZERO, output_bytes: 0 };
    }
    let mut kept = match prepare_this_process().and_then(|()| Kept::start(plan, stdin)) {
        Ok(kept) => kept,
        Err(error) => return not_contained("the command cannot be prepared", &error),
    };
    let watched = kept.watch(plan);
    let duration = kept.started.elapsed();
    if !matches!(watched, Ok(None)) {
        kept.halt(plan);
    }
    let mut status = kept.status;
    // The keeper never leaves before its processes: when that takes too long, the caller stops waiting.
    while processes::end_all_descendants(|pid, ended| note(&mut status, kept.pid, pid, ended)).is_err() {}
    let words = kept.words.take().map_or_else(|| Ok(Vec::new()), Word::read_all);
    let output_bytes = match kept.finish_logs() {
        Ok(bytes) => bytes,
        Err(error) => return not_contained("the log cannot be written", &error),
    };
    let end = watched.and_then(|watched| Ok(end_of(watched, &words?, status, plan)));
    match end {
        Err(error) => not_contained("the command cannot be watched", &error),
        Ok(Err(problem)) => Report::NotContained { problem },
        Ok(Ok(end)) => Report::Ended { end, duration, output_bytes },
    }
}

/// A session of its own, so that no terminal reaches the command and no signal to our group reaches the
/// keeper; the parent of all orphans; and closed to the eyes of other processes of the same user.
fn prepare_this_process() -> io::Result<()> {
    rustix::process::setsid()?;
    processes::adopt_orphans()?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// A command that runs.
struct Kept {
    pid: Pid,
    handle: OwnedFd,
    started: Instant,
    /// How the command itself ended, once it was reaped.
    status: Option<WaitStatus>,
    outputs: Vec<Output>,
    /// What the processes before the command tell. It is read when all of them have ended.
    words: Option<File>,
    /// The fewest processes and threads that the machine had while the command ran.
    quiet_count: usize,
}

/// One pipe that the command writes to, and where its bytes go.
struct Output {
    pipe: File,
    log: BoundedLog,
    is_open: bool,
}

impl Kept {
    fn start(plan: &Plan, stdin: &[u8]) -> io::Result<Self> {
        let (stdout, stdout_end) = Output::new(&plan.log, plan.limits.log_bytes)?;
        let mut outputs = vec![stdout];
        let stderr_end = match &plan.stderr_log {
            None => stdout_end.try_clone()?,
            Some(path) => {
                let (stderr, stderr_end) = Output::new(path, plan.limits.log_bytes)?;
                outputs.push(stderr);
                stderr_end
            }
        };
        let (words, words_end) = pipe_with(PipeFlags::CLOEXEC)?;
        // The copy is inherited: it is the one descriptor beside the three standard ones that crosses over.
        let words_copy = rustix::io::dup(&words_end)?;
        drop(words_end);
        let way_out = way_out(plan)?;
        let descriptor = way_out.as_ref().map(AsRawFd::as_raw_fd);
        let entry = Entry::new(plan, getpid().as_raw_pid(), words_copy.as_raw_fd(), descriptor);
        let quiet_count = processes::machine_wide_count()?;
        let started = Instant::now();
        let child = way_in(plan, &entry)?
            .env_clear()
            .envs(&plan.environment)
            .current_dir(&plan.directory)
            .stdin(input(stdin)?)
            .stdout(stdout_end)
            .stderr(stderr_end)
            .process_group(0)
            .spawn()?;
        drop((words_copy, way_out));
        let pid = Pid::from_child(&child);
        let handle = pidfd_open(pid, PidfdFlags::empty())?;
        let words = Some(File::from(words));
        Ok(Self { pid, handle, started, status: None, outputs, words, quiet_count })
    }

    /// Copies output and waits until the command exits (`None`) or must be ended.
    fn watch(&mut self, plan: &Plan) -> io::Result<Option<End>> {
        let deadline = self.started + plan.limits.timeout;
        let most = Taken { bytes: plan.limits.disk_bytes, files: plan.limits.disk_files };
        let mut disk = Disk::watch(&plan.places().writable(), most)?;
        let mut next_census = self.started + CENSUS;
        loop {
            let events = self.wait_until(deadline.min(next_census))?;
            if events.has_output {
                self.drain_once()?;
            }
            let output_bytes: u64 = self.outputs.iter().map(|output| output.log.total()).sum();
            if events.is_abandoned {
                return Ok(Some(End::Cancelled));
            }
            if output_bytes > plan.limits.output_bytes {
                return Ok(Some(End::OutputLimit));
            }
            if events.has_exited {
                return Ok(None);
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(Some(End::TimedOut));
            }
            if now >= next_census {
                self.reap();
                if self.has_too_many_processes(plan.limits.processes as usize)? {
                    return Ok(Some(End::ProcessLimit));
                }
                if disk.is_over() {
                    return Ok(Some(End::DiskLimit));
                }
                next_census = Instant::now() + CENSUS;
            }
        }
    }

    fn wait_until(&self, moment: Instant) -> io::Result<Events> {
        let lifeline = io::stdin();
        let mut watched =
            vec![PollFd::new(&lifeline, PollFlags::IN), PollFd::new(&self.handle, PollFlags::IN)];
        let open = self.outputs.iter().filter(|output| output.is_open);
        watched.extend(open.map(|output| PollFd::new(&output.pipe, PollFlags::IN)));
        let patience = moment.saturating_duration_since(Instant::now());
        let patience = Timespec::try_from(patience).map_err(io::Error::other)?;
        match poll(&mut watched, Some(&patience)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let happened: Vec<bool> = watched.iter().map(|fd| !fd.revents().is_empty()).collect();
        Ok(Events {
            // Nothing follows the plan: whatever happens there is the end of the caller, or its wish.
            is_abandoned: happened[0],
            has_exited: happened[1],
            has_output: happened[2..].contains(&true),
        })
    }

    fn drain_once(&mut self) -> io::Result<()> {
        for output in self.outputs.iter_mut().filter(|output| output.is_open) {
            output.copy_once()?;
        }
        Ok(())
    }

    /// Counts its processes only when the whole machine has grown by more than `most` since the start.
    fn has_too_many_processes(&mut self, most: usize) -> io::Result<bool> {
        let everywhere = processes::machine_wide_count()?;
        self.quiet_count = self.quiet_count.min(everywhere);
        if everywhere <= self.quiet_count + most {
            return Ok(false);
        }
        // Counting takes long while they all run. Nothing is ended yet, only held for the moment.
        let group = self.status.is_none().then_some(self.pid);
        let tell = |signal| group.map(|group| kill_process_group(group, signal));
        tell(Signal::STOP);
        let is_over = processes::count_descendants() > most;
        if !is_over {
            tell(Signal::CONT);
        }
        Ok(is_over)
    }

    /// Takes the processor from the command at once. Among hundreds of its processes the keeper has little of it, and
    /// would be long in finding them all. The command was not reaped, so its number is its own.
    fn halt(&self, plan: &Plan) {
        if plan.walls.bubblewrap().is_some() {
            // With bubblewrap the kernel ends everything inside.
            let _ = kill_process(self.pid, Signal::KILL);
        } else if self.status.is_none() {
            let _ = kill_process_group(self.pid, Signal::STOP);
        }
    }

    fn reap(&mut self) {
        let (pid, status) = (self.pid, &mut self.status);
        processes::reap(&mut |ended, how| note(status, pid, ended, how));
    }

    /// Takes what is left in the pipes, now that nobody writes any more; returns how much was written in all.
    fn finish_logs(self) -> io::Result<u64> {
        let mut total = 0;
        for mut output in self.outputs {
            while output.is_open && output.copy_once()? {}
            total += output.log.total();
            output.log.finish()?;
        }
        Ok(total)
    }
}

struct Events {
    is_abandoned: bool,
    has_exited: bool,
    has_output: bool,
}

impl Output {
    /// A pipe into a log, and the end that the command writes to.
    fn new(log: &Path, most: u64) -> io::Result<(Self, OwnedFd)> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        fcntl_setfl(&reader, fcntl_getfl(&reader)? | OFlags::NONBLOCK)?;
        let log = BoundedLog::create(log, most)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", log.display())))?;
        Ok((Self { pipe: File::from(reader), log, is_open: true }, writer))
    }

    /// Moves what the pipe holds now, at most one buffer. False when there was nothing.
    fn copy_once(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 64 << 10];
        match self.pipe.read(&mut buffer) {
            Ok(0) => {
                self.is_open = false;
                Ok(false)
            }
            Ok(length) => self.log.write(&buffer[..length]).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// The command's standard input: a file in memory, so that nobody has to feed a pipe.
fn input(bytes: &[u8]) -> io::Result<Stdio> {
    if bytes.is_empty() {
        return Ok(Stdio::null());
    }
    let mut file = File::from(memfd_create("stdin", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(Stdio::from(file))
}

fn note(status: &mut Option<WaitStatus>, command: Pid, ended: Pid, how: WaitStatus) {
    if ended == command && status.is_none() {
        *status = Some(how);
    }
}

/// The lifeline once more, for the warden: through it the caller gets the listener inside. Also this copy is
/// inherited.
fn way_out(plan: &Plan) -> io::Result<Option<OwnedFd>> {
    match (plan.has_way_out, plan.walls.bubblewrap()) {
        (false, _) => Ok(None),
        (true, Some(_)) => Ok(Some(rustix::io::dup(io::stdin())?)),
        (true, None) => Err(io::Error::other("without namespaces there is no way to some hosts alone")),
    }
}

/// The process that becomes the command; with namespaces by way of bubblewrap, which starts a warden inside.
fn way_in(plan: &Plan, entry: &Entry) -> io::Result<Command> {
    let text = serde_json::to_string(entry)?;
    let Some(program) = plan.walls.bubblewrap() else {
        let mut command = Command::new("/proc/self/exe");
        command.args([KEEPER_ARGUMENT, ENTER_ARGUMENT, &text]);
        return Ok(command);
    };
    let ourselves = std::env::current_exe()?;
    let mut command = Command::new(program);
    command.args(bubblewrap::arguments(&plan.walls, &entry.places, &ourselves)).arg(&ourselves).args([
        KEEPER_ARGUMENT,
        WARDEN_ARGUMENT,
        &text,
    ]);
    Ok(command)
}

/// How the command ended, or the words of the wall that could not be put up.
fn end_of(
    watched: Option<End>,
    words: &[Word],
    status: Option<WaitStatus>,
    plan: &Plan,
) -> Result<End, String> {
    let told = |wanted: fn(&Word) -> Option<Result<End, String>>| words.iter().find_map(wanted);
    let failed = told(|word| match word {
        Word::NotContained { problem } => Some(Err(problem.clone())),
        Word::Failed { problem } => Some(Ok(End::NotStarted { problem: problem.clone() })),
        Word::Begun | Word::Exited { .. } | Word::Signalled { .. } => None,
    });
    let ended = told(|word| match word {
        Word::Exited { code } => Some(Ok(End::Exited { code: *code })),
        Word::Signalled { signal } => Some(Ok(End::Signalled { signal: *signal })),
        Word::NotContained { .. } | Word::Failed { .. } | Word::Begun => None,
    });
    match (failed, watched, ended) {
        (Some(failed), _, _) => failed,
        (None, Some(end), _) => Ok(end),
        (None, None, Some(ended)) => ended,
        (None, None, None) if plan.walls.bubblewrap().is_none() => Ok(end_by_status(status)),
        // The warden was killed, which no process inside can do: the system was out of memory.
        (None, None, None) if words.contains(&Word::Begun) => Ok(End::Signalled { signal: 9 }),
        (None, None, None) => Err(format!(
            "bubblewrap made no namespaces: {}",
            first_words(plan.stderr_log.as_ref().unwrap_or(&plan.log))
        )),
    }
}

/// What bubblewrap said, which is where the command would have written.
fn first_words(log: &Path) -> String {
    let text = super::log::excerpt(log, 400, 0).map(|said| said.head.trim().to_owned()).unwrap_or_default();
    if text.is_empty() { "it did not say why".to_owned() } else { text.replace('\n', "; ") }
}

fn end_by_status(status: Option<WaitStatus>) -> End {
    let signal = status.and_then(WaitStatus::terminating_signal);
    match (status.and_then(WaitStatus::exit_status), signal) {
        (Some(code), _) => End::Exited { code },
        (None, Some(signal)) => End::Signalled { signal },
        // `watch` saw the command exit, so that its status was there to be reaped.
        (None, None) => End::NotStarted { problem: "its exit status was lost".to_owned() },
    }
}

fn not_contained(what: &str, error: &io::Error) -> Report {
    Report::NotContained { problem: format!("{what}: {error}") }
}
