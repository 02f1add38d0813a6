//! The one door to git: every git process of the product is started here, with a cleared environment, constant
//! options, a deadline and typed errors.
//!
//! A repository's content, its configuration and the user's own configuration are all untrusted: nothing of
//! them chooses a program, a protocol, a proxy, a hook or a filter. This module knows how to run git; which
//! questions are asked of a repository is [`crate::Repository`]'s part. Everything here blocks: async callers
//! use a blocking thread.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::remote::Remote;

/// How to run git on this machine: the program, found once, and the way to the network. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Git {
    program: Arc<PathBuf>,
    network: Arc<Network>,
}

/// What git needs of the machine to reach a remote. Empty by default: direct connections, the system's
/// certificates, no ssh agent.
#[derive(Debug, Clone, Default)]
pub struct Network {
    /// The proxy for https, as `http://host:port`.
    pub https_proxy: Option<String>,
    /// A file of certificates (PEM) that are trusted instead of the system's.
    pub certificates: Option<PathBuf>,
    /// The socket of the ssh agent that holds the key for `ssh://` and `git@host:` addresses without a token.
    pub ssh_agent: Option<PathBuf>,
}

/// Why git did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is no git on this machine where programs are expected.
    #[error("no git was found in {searched}; install git {} or later", minimum_version())]
    NotFound {
        /// The folders, separated by commas.
        searched: String,
    },
    /// The git that was found lacks what Leviathan needs.
    #[error("{program} is {found}; Leviathan needs git {} or later", minimum_version())]
    TooOld {
        /// The program.
        program: String,
        /// What it says about itself.
        found: String,
    },
    /// The process could not be started or spoken to.
    #[error("`git {verb}` could not be run: {source}")]
    Io {
        /// The git command, such as `fetch`.
        verb: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Git ended with an error.
    #[error("`git {verb}` failed ({status}): {stderr}")]
    Failed {
        /// The git command.
        verb: &'static str,
        /// How it ended: `exit status: 128`.
        status: ExitStatus,
        /// What it said, without control characters and without secrets.
        stderr: String,
    },
    /// Git did not end in time and was killed.
    #[error("`git {verb}` did not end within {} s and was stopped", after.as_secs())]
    TimedOut {
        /// The git command.
        verb: &'static str,
        /// The time it had.
        after: Duration,
    },
    /// Git printed more than the caller is ready to hold.
    #[error("`git {verb}` printed more than {limit} bytes")]
    OutputTooLarge {
        /// The git command.
        verb: &'static str,
        /// The limit in bytes.
        limit: u64,
    },
    /// Git printed what this version of Leviathan does not understand.
    #[error("`git {verb}` answered with something unexpected: {detail}")]
    Unexpected {
        /// The git command.
        verb: &'static str,
        /// What was wrong with the answer.
        detail: String,
    },
}

impl GitError {
    /// Whether the remote knows us and says no, or does not know us: the token is missing, wrong or too weak.
    /// Trying again changes nothing until a human acts.
    pub fn is_denied(&self) -> bool {
        self.says(&[
            "Authentication failed",
            "could not read Username",
            "could not read Password",
            "returned error: 401",
            "returned error: 403",
            "Permission denied",
            "Repository not found",
        ])
    }

    /// Whether the remote could not be reached or is overloaded: worth trying again later.
    pub fn is_unreachable(&self) -> bool {
        const SIGNS: [&str; 11] = [
            "Could not resolve host",
            "Could not resolve hostname",
            "Failed to connect",
            "Couldn't connect",
            "Connection refused",
            "Connection timed out",
            "Connection reset",
            "returned error: 429",
            "returned error: 5",
            "early EOF",
            "unexpected disconnect",
        ];
        matches!(self, Self::TimedOut { .. }) || self.says(&SIGNS)
    }

    fn says(&self, signs: &[&str]) -> bool {
        matches!(self, Self::Failed { stderr, .. } if signs.iter().any(|sign| stderr.contains(sign)))
    }
}

/// The oldest git with every option that is used here.
const MINIMUM_VERSION: (u32, u32) = (2, 34);
/// Where programs that the machine's owner installed are; `PATH` is not asked, because others can set it.
const PROGRAM_FOLDERS: [&str; 4] = ["/usr/bin", "/usr/local/bin", "/bin", "/opt/homebrew/bin"];
/// The time that a command on local objects may take.
const LOCAL_PATIENCE: Duration = Duration::from_secs(10 * 60);
/// The time that a fetch or push may take.
const REMOTE_PATIENCE: Duration = Duration::from_secs(30 * 60);
/// How much of what git says on stderr is kept.
const STDERR_KEPT: usize = 16 * 1024;
/// How much git may print when the caller does not say.
pub(crate) const ORDINARY_OUTPUT: u64 = 256 * 1024 * 1024;

/// The environment of every git process; nothing else is inherited.
const ENVIRONMENT: [(&str, &str); 16] = [
    ("PATH", "/usr/local/bin:/usr/bin:/bin"),
    ("HOME", "/nonexistent"),
    ("XDG_CONFIG_HOME", "/nonexistent"),
    ("LC_ALL", "C.UTF-8"),
    ("TZ", "UTC"),
    ("GIT_ASKPASS", "/bin/false"),
    ("GIT_ATTR_NOSYSTEM", "1"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_SYSTEM", "/dev/null"),
    ("GIT_LFS_SKIP_SMUDGE", "1"),
    ("GIT_NO_REPLACE_OBJECTS", "1"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_PROTOCOL_FROM_USER", "0"),
    ("GIT_SSH_COMMAND", SSH_COMMAND),
    ("GIT_TERMINAL_PROMPT", "0"),
];

/// Never asks, never accepts an unknown host, never forwards, never leaves a master connection behind.
const SSH_COMMAND: &str = "ssh -oBatchMode=yes -oStrictHostKeyChecking=yes -oForwardAgent=no \
                           -oClearAllForwardings=yes -oPermitLocalCommand=no -oControlMaster=no -oControlPath=none \
                           -oServerAliveInterval=60 -oServerAliveCountMax=10";

/// Options of every git process. They win over the configuration of any repository.
const OPTIONS: [&str; 34] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.useReplaceRefs=false",
    "core.protectHFS=true",
    "core.protectNTFS=true",
    "core.attributesFile=/dev/null",
    "core.excludesFile=/dev/null",
    "core.bigFileThreshold=50m",
    "core.quotePath=true",
    "core.pager=cat",
    "core.abbrev=no",
    "diff.renames=false",
    "diff.external=",
    "diff.ignoreSubmodules=none",
    "protocol.allow=never",
    "transfer.fsckObjects=true",
    // Old histories hold commits that old programs wrote badly. They endanger nobody and must not lock a
    // repository out; everything else that fsck calls an error stays one.
    "fetch.fsck.badTimezone=ignore",
    "fetch.fsck.missingSpaceBeforeDate=ignore",
    "fetch.fsck.missingSpaceBeforeEmail=ignore",
    "fetch.fsck.missingNameBeforeEmail=ignore",
    "fetch.fsck.badEmail=ignore",
    "fetch.fsck.zeroPaddedFilemode=ignore",
    "fetch.recurseSubmodules=false",
    "submodule.recurse=false",
    "http.followRedirects=false",
    // A connection on which nothing at all arrives for ten minutes is dead, also for a git that outlived us.
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=600",
    "credential.helper=",
    "gc.auto=0",
    "maintenance.auto=false",
    "commit.gpgSign=false",
    "push.followTags=false",
    "push.gpgSign=false",
    "advice.detachedHead=false",
];

impl Git {
    /// Finds git among the machine's programs and checks that it is new enough.
    pub fn find() -> Result<Self, GitError> {
        let program =
            PROGRAM_FOLDERS.iter().map(|folder| Path::new(folder).join("git")).find(|p| p.is_file());
        match program {
            Some(program) => Self::at(program),
            None => Err(GitError::NotFound { searched: PROGRAM_FOLDERS.join(", ") }),
        }
    }

    /// Uses the git at an absolute path and checks that it is new enough.
    pub fn at(program: PathBuf) -> Result<Self, GitError> {
        let git = Self { program: Arc::new(program), network: Arc::default() };
        let answer = Invocation::new(&git, None, "version").output()?;
        let text = String::from_utf8_lossy(&answer).trim().to_owned();
        match version(&text) {
            Some(version) if version >= MINIMUM_VERSION => Ok(git),
            Some(_) | None => {
                Err(GitError::TooOld { program: git.program.display().to_string(), found: visible(&text) })
            }
        }
    }

    /// The same git with another way to the network.
    pub fn with_network(self, network: Network) -> Self {
        Self { program: self.program, network: Arc::new(network) }
    }

    /// A command on the repository at `dir`.
    pub(crate) fn command(&self, dir: &Path, verb: &'static str) -> Invocation {
        Invocation::new(self, Some(dir), verb)
    }

    /// A command that needs no repository, such as `init`.
    pub(crate) fn command_without_repository(&self, verb: &'static str) -> Invocation {
        Invocation::new(self, None, verb)
    }
}

/// One git process before it is started.
pub(crate) struct Invocation {
    git: Git,
    verb: &'static str,
    dir: Option<PathBuf>,
    folder: Option<PathBuf>,
    options: Vec<String>,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    held: Option<File>,
    patience: Duration,
}

/// How a git process ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// What it said, cleaned.
    pub(crate) stderr: String,
}

impl Invocation {
    fn new(git: &Git, dir: Option<&Path>, verb: &'static str) -> Self {
        Self {
            git: git.clone(),
            verb,
            dir: dir.map(Path::to_owned),
            folder: None,
            options: Vec::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            held: None,
            patience: LOCAL_PATIENCE,
        }
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// One more `-c` option, of this command alone.
    pub(crate) fn option(mut self, option: impl Into<String>) -> Self {
        self.options.push(option.into());
        self
    }

    /// The folder that git starts in; everything else is addressed by absolute paths.
    pub(crate) fn in_folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// A folder of ours that git takes for the working tree.
    pub(crate) fn in_work_tree(mut self, folder: &Path) -> Self {
        self.environment.push(("GIT_WORK_TREE", folder.as_os_str().to_owned()));
        self.in_folder(folder)
    }

    /// Gives git the lock to hold as well, in the place of its input: should we be killed, the lock stays taken
    /// until git has ended too.
    pub(crate) fn holding(mut self, lock: File) -> Self {
        self.held = Some(lock);
        self
    }

    /// Opens the way to this remote and to no other: its protocol, its credentials, for this process alone.
    pub(crate) fn reaching(mut self, remote: &Remote) -> Self {
        self.patience = REMOTE_PATIENCE;
        let protocol = remote.protocol();
        self.options.push(format!("protocol.{protocol}.allow=always"));
        self.environment.push(("GIT_ALLOW_PROTOCOL", protocol.into()));
        if let Some(credentials) = remote.credentials() {
            // Git runs this helper by `sh -c`. The secret is only in the environment of this one process
            // tree; argv and configuration name the variable.
            self.options.push(format!("credential.{}.helper={CREDENTIAL_HELPER}", credentials.scope));
            self.environment.push(("LEVIATHAN_GIT_USER", credentials.user.into()));
            self.environment.push(("LEVIATHAN_GIT_TOKEN", credentials.token.into()));
        }
        self.reach_through_network()
    }

    fn reach_through_network(mut self) -> Self {
        let network = Arc::clone(&self.git.network);
        if let Some(proxy) = &network.https_proxy {
            self.environment.push(("https_proxy", proxy.into()));
        }
        if let Some(certificates) = &network.certificates {
            self.environment.push(("GIT_SSL_CAINFO", certificates.into()));
        }
        if let Some(agent) = &network.ssh_agent {
            self.environment.push(("SSH_AUTH_SOCK", agent.into()));
        }
        self
    }

    /// Runs the command without input; its whole output, or the error it ended with.
    pub(crate) fn output(self) -> Result<Vec<u8>, GitError> {
        self.output_of(&[], ORDINARY_OUTPUT)
    }

    /// Runs the command with `input`; at most `limit` bytes of output.
    pub(crate) fn output_of(self, input: &[u8], limit: u64) -> Result<Vec<u8>, GitError> {
        let verb = self.verb;
        let (output, ended) = self.outcome_of(input, limit)?;
        ended.successful(verb)?;
        Ok(output)
    }

    /// Runs the command and returns its output and how it ended, whatever that was.
    pub(crate) fn outcome_of(self, input: &[u8], limit: u64) -> Result<(Vec<u8>, Ended), GitError> {
        let verb = self.verb;
        self.converse(
            |stdin| stdin.write_all(input),
            |stdout| {
                let mut output = Vec::new();
                stdout.take(limit.saturating_add(1)).read_to_end(&mut output).map_err(|e| failed(verb, e))?;
                if output.len() as u64 > limit {
                    return Err(GitError::OutputTooLarge { verb, limit });
                }
                Ok(output)
            },
        )
    }

    /// Runs the command while `feed` writes its input on another thread and `read` consumes its output here.
    /// Whatever happens, the process and all that it started are gone when this returns.
    pub(crate) fn converse<T>(
        self,
        feed: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send,
        read: impl FnOnce(&mut dyn Read) -> Result<T, GitError>,
    ) -> Result<(T, Ended), GitError> {
        let (verb, patience) = (self.verb, self.patience);
        let mut running = Running::start(self)?;
        let Pipes { stdin, stdout, stderr } = running.take_pipes();
        std::thread::scope(|scope| {
            let feeder = scope.spawn(move || feed_all(stdin, feed));
            let listener = scope.spawn(move || kept_of(stderr));
            let mut output = UntilDeadline { pipe: stdout, deadline: running.deadline };
            let answer = read(&mut output);
            if answer.is_err() {
                // The feeder may be blocked on a pipe that nobody reads any more.
                running.kill();
            }
            drop(output);
            let status = running.wait(verb, patience);
            let fed = feeder.join().unwrap_or_else(|_| Err(io::Error::other("the feeding thread panicked")));
            let stderr = listener.join().unwrap_or_default();
            let (answer, status) = (answer.map_err(|e| timed_out(e, patience))?, status?);
            let ended = Ended { status, stderr: visible(&String::from_utf8_lossy(&stderr)) };
            if status.success() {
                fed.map_err(|source| GitError::Io { verb, source })?;
            }
            Ok((answer, ended))
        })
    }

    fn build(&self) -> std::process::Command {
        let mut command = std::process::Command::new(self.git.program.as_path());
        command.env_clear().envs(ENVIRONMENT).env("GIT_ALLOW_PROTOCOL", "none");
        for option in OPTIONS {
            command.arg("-c").arg(option);
        }
        for option in &self.options {
            command.arg("-c").arg(option);
        }
        if let Some(dir) = &self.dir {
            command.env("GIT_DIR", dir);
        }
        command.current_dir(self.folder.as_deref().unwrap_or(Path::new("/")));
        command.arg(self.verb).args(&self.arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        command
    }
}

impl Ended {
    /// An error unless git reported success.
    pub(crate) fn successful(self, verb: &'static str) -> Result<(), GitError> {
        if self.status.success() { Ok(()) } else { Err(self.into_error(verb)) }
    }

    /// The error that says how git ended.
    pub(crate) fn into_error(self, verb: &'static str) -> GitError {
        GitError::Failed { verb, status: self.status, stderr: self.stderr }
    }
}

/// Answers git's question for credentials from the environment of this process tree.
const CREDENTIAL_HELPER: &str = "!f() { test \"$1\" = get && printf 'username=%s\\npassword=%s\\n' \
                                 \"$LEVIATHAN_GIT_USER\" \"$LEVIATHAN_GIT_TOKEN\"; }; f";

/// A git process with its own process group, which dies with this value.
struct Running {
    child: Child,
    group: Pid,
    deadline: Instant,
    is_reaped: bool,
}

struct Pipes {
    /// None when git holds a lock instead.
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: ChildStderr,
}

impl Running {
    fn start(invocation: Invocation) -> Result<Self, GitError> {
        let verb = invocation.verb;
        let mut command = invocation.build();
        if let Some(lock) = invocation.held {
            command.stdin(lock);
        }
        let child = command.spawn().map_err(|source| GitError::Io { verb, source })?;
        let group = Pid::from_child(&child);
        Ok(Self { child, group, deadline: Instant::now() + invocation.patience, is_reaped: false })
    }

    fn take_pipes(&mut self) -> Pipes {
        Pipes {
            stdin: self.child.stdin.take(),
            stdout: self.child.stdout.take().expect("stdout was asked to be a pipe"),
            stderr: self.child.stderr.take().expect("stderr was asked to be a pipe"),
        }
    }

    /// Kills git and everything that it started in its group. Safe until the child is reaped, because only
    /// then can its number be given to another process.
    fn kill(&self) {
        if !self.is_reaped {
            // The group may be gone already, which is what is wanted.
            let _ = rustix::process::kill_process_group(self.group, Signal::KILL);
        }
    }

    fn wait(&mut self, verb: &'static str, patience: Duration) -> Result<ExitStatus, GitError> {
        let ended_in_time = self.wait_for_exit().map_err(|source| GitError::Io { verb, source })?;
        self.kill();
        let status = self.child.wait().map_err(|source| GitError::Io { verb, source })?;
        self.is_reaped = true;
        if ended_in_time { Ok(status) } else { Err(GitError::TimedOut { verb, after: patience }) }
    }

    fn wait_for_exit(&self) -> io::Result<bool> {
        let process = rustix::process::pidfd_open(self.group, PidfdFlags::empty())?;
        is_readable_before(&process, self.deadline)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_reaped {
            self.kill();
            // Nothing can be done about a child that cannot be reaped.
            let _ = self.child.wait();
        }
    }
}

/// Reads a pipe, but not beyond the deadline.
struct UntilDeadline {
    pipe: ChildStdout,
    deadline: Instant,
}

impl Read for UntilDeadline {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if is_readable_before(&self.pipe, self.deadline)? {
            self.pipe.read(buffer)
        } else {
            Err(io::ErrorKind::TimedOut.into())
        }
    }
}

fn is_readable_before(file: impl AsFd, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match rustix::event::poll(&mut [PollFd::new(&file, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn feed_all(
    stdin: Option<ChildStdin>,
    feed: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let Some(mut stdin) = stdin else { return Ok(()) };
    match feed(&mut stdin) {
        // Git stopped reading; its exit status says why.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// The beginning of what is said on the pipe; the rest is read and dropped so that git never blocks on it.
fn kept_of(mut pipe: ChildStderr) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = pipe.read(&mut buffer) {
        let room = STDERR_KEPT.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..count.min(room)]);
    }
    kept
}

/// The error for a failed read of git's output.
pub(crate) fn failed(verb: &'static str, source: io::Error) -> GitError {
    GitError::Io { verb, source }
}

/// A read that met the deadline is reported as the time-out it is.
fn timed_out(error: GitError, after: Duration) -> GitError {
    if let GitError::Io { verb, source } = &error
        && source.kind() == io::ErrorKind::TimedOut
    {
        return GitError::TimedOut { verb, after };
    }
    error
}

/// Text from git or a remote as it may be shown: one paragraph without control characters.
fn visible(text: &str) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.chars().filter(|c| !c.is_control()).collect::<String>().trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    lines.join("; ")
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("git version ")?.split(['.', ' ']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn minimum_version() -> impl fmt::Display {
    format!("{}.{}", MINIMUM_VERSION.0, MINIMUM_VERSION.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A command of our own making that git runs as `git hang`.
    fn hang(shell: &str, patience: Duration) -> Result<Vec<u8>, GitError> {
        let git = Git::find().unwrap();
        let mut invocation = git.command_without_repository("hang").option(format!("alias.hang=!{shell}"));
        invocation.patience = patience;
        invocation.output_of(&[], 1000)
    }

    #[test]
    fn a_command_that_never_ends_is_stopped_with_all_it_started() {
        let started = Instant::now();
        let outcome = hang("sleep 600 & sleep 600", Duration::from_millis(300));
        assert!(matches!(outcome, Err(GitError::TimedOut { verb: "hang", .. })), "{outcome:?}");
        assert!(started.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn a_child_that_is_left_behind_does_not_hold_us_up_once_output_is_complete() {
        let started = Instant::now();
        let outcome = hang("sleep 600 >/dev/null & echo done", Duration::from_secs(120));
        assert_eq!(outcome.unwrap(), b"done\n");
        assert!(started.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn output_is_limited_and_messages_hold_no_control_characters() {
        let flood = hang("yes", Duration::from_secs(60));
        assert!(matches!(flood, Err(GitError::OutputTooLarge { limit: 1000, .. })), "{flood:?}");
        let message =
            hang("printf 'bad\\033[31m\\nworse\\007' >&2; exit 3", Duration::from_secs(60)).unwrap_err();
        assert_eq!(message.to_string(), "`git hang` failed (exit status: 3): bad[31m; worse");
    }

    #[test]
    fn versions_are_read_as_every_platform_writes_them() {
        for (text, expected) in [
            ("git version 2.47.3", Some((2, 47))),
            ("git version 2.39.5 (Apple Git-154)", Some((2, 39))),
            ("git version 2.34", Some((2, 34))),
            ("something else", None),
        ] {
            assert_eq!(version(text), expected, "{text}");
        }
    }
}
