//! What crosses between the caller, the keeper and the process that becomes the command.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::walls::{Places, Walls};
use super::{Command, descriptors, way_out};

/// The argument that makes our program a keeper.
pub(super) const KEEPER_ARGUMENT: &str = "contain";
/// The argument, after [`KEEPER_ARGUMENT`], that makes our program become the command.
pub(super) const ENTER_ARGUMENT: &str = "enter";
/// The argument, after [`KEEPER_ARGUMENT`], that makes our program the first process inside namespaces.
pub(super) const WARDEN_ARGUMENT: &str = "warden";

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// A line for `sh -c`, as policies and backlogs write them.
    Shell(String),
    /// A program, found on the PATH of the containment, and its arguments.
    Direct(Vec<String>),
}

impl Program {
    /// The program and its arguments as they are executed.
    pub(super) fn arguments(&self) -> Vec<String> {
        match self {
            Self::Shell(line) => vec!["/bin/sh".to_owned(), "-c".to_owned(), line.clone()],
            Self::Direct(arguments) => arguments.clone(),
        }
    }
}

/// What one command may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Wall time; after it everything is killed.
    pub timeout: Duration,
    /// How many bytes of output the log keeps. What exceeds them is left out of its middle, and the log says so.
    pub log_bytes: u64,
    /// How many bytes of output end the command.
    pub output_bytes: u64,
    /// How many processes may live at once; more end the command.
    pub processes: u32,
    /// Open descriptors of each process (RLIMIT_NOFILE).
    pub open_files: u64,
    /// Bytes of the largest file it may write (RLIMIT_FSIZE).
    pub file_bytes: u64,
    /// Bytes that all its files together may take of the disk; never more than half of what is free when it begins.
    pub disk_bytes: u64,
    /// How many files it may make, by the same measure.
    pub disk_files: u64,
    /// Bytes of memory that each process may have for its data (RLIMIT_DATA).
    pub memory_bytes: u64,
    /// Processes and threads of the whole user (RLIMIT_NPROC); the system does not hold root to it.
    pub user_processes: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10 * 60),
            log_bytes: 10 << 20,
            output_bytes: 1 << 30,
            processes: 512,
            open_files: 4096,
            file_bytes: 4 << 30,
            disk_bytes: 16 << 30,
            disk_files: 1_000_000,
            memory_bytes: 8 << 30,
            user_processes: None,
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It exited by itself.
    Exited {
        /// 0 to 255.
        code: i32,
    },
    /// A signal that did not come from its keeper ended it.
    Signalled {
        /// The signal's number.
        signal: i32,
    },
    /// It ran longer than it may.
    TimedOut,
    /// It wrote more than it may.
    OutputLimit,
    /// It had more processes than it may.
    ProcessLimit,
    /// It took more of the disk than it may.
    DiskLimit,
    /// The caller wanted no more of it.
    Cancelled,
    /// It could not be executed: no such program, no such directory.
    NotStarted {
        /// What the system said.
        problem: String,
    },
}

/// What the caller tells the keeper: one line of JSON, then `stdin_bytes` bytes for the command.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) arguments: Vec<String>,
    pub(super) directory: PathBuf,
    pub(super) environment: BTreeMap<String, String>,
    pub(super) log: PathBuf,
    pub(super) stderr_log: Option<PathBuf>,
    pub(super) limits: Limits,
    pub(super) walls: Walls,
    pub(super) scratch: PathBuf,
    /// Whether the command's own network gets a way out.
    pub(super) has_way_out: bool,
    stdin_bytes: usize,
}

impl Plan {
    pub(super) fn new(
        command: &Command,
        shared: &BTreeMap<String, String>,
        walls: &Walls,
        has_way_out: bool,
    ) -> Self {
        let mut environment = shared.clone();
        if has_way_out {
            environment.extend(way_out::variables());
        }
        environment.extend(command.environment.clone());
        for (name, path) in [("HOME", command.home()), ("TMPDIR", command.temporary())] {
            environment.insert(name.to_owned(), path.to_string_lossy().into_owned());
        }
        Self {
            arguments: command.program.arguments(),
            directory: command.directory.clone(),
            log: command.log.clone(),
            stderr_log: command.stderr_log.clone(),
            limits: command.limits.clone(),
            walls: path_folders(&environment).fold(walls.clone(), |walls, folder| walls.reading(folder)),
            scratch: command.scratch.clone(),
            has_way_out,
            environment,
            stdin_bytes: command.stdin.len(),
        }
    }

    pub(super) fn places(&self) -> Places {
        Places { directory: self.directory.clone(), scratch: self.scratch.clone() }
    }

    pub(super) fn to_bytes(&self, stdin: &[u8]) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("a plan holds only text, numbers and UTF-8 paths");
        bytes.push(b'\n');
        bytes.extend_from_slice(stdin);
        bytes
    }

    /// Reads the plan and the command's input, and not one byte more: what follows is the lifeline.
    pub(super) fn read(mut from: impl BufRead) -> io::Result<(Self, Vec<u8>)> {
        let mut line = Vec::new();
        from.read_until(b'\n', &mut line)?;
        let plan: Self = serde_json::from_slice(&line)?;
        let mut stdin = vec![0; plan.stdin_bytes];
        from.read_exact(&mut stdin)?;
        Ok((plan, stdin))
    }
}

/// The folders of the search path, which the operator sets.
fn path_folders(environment: &BTreeMap<String, String>) -> impl Iterator<Item = &Path> {
    let path = environment.get("PATH").map(String::as_str).unwrap_or_default();
    path.split(':').map(Path::new).filter(|folder| folder.is_absolute())
}

/// What the keeper tells the caller: one JSON document.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    Ended { end: End, duration: Duration, output_bytes: u64 },
    NotContained { problem: String },
}

/// What the keeper tells the process that becomes the command, as its argument.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) arguments: Vec<String>,
    pub(super) keeper: i32,
    /// The number of the inherited descriptor on which [`Word`]s are told.
    words_descriptor: i32,
    /// The number of the inherited descriptor through which the warden hands the way out over, if there is one.
    way_out_descriptor: Option<i32>,
    pub(super) open_files: u64,
    pub(super) file_bytes: u64,
    pub(super) memory_bytes: u64,
    pub(super) user_processes: Option<u64>,
    pub(super) walls: Walls,
    pub(super) places: Places,
}

impl Entry {
    pub(super) fn new(
        plan: &Plan,
        keeper: i32,
        words_descriptor: i32,
        way_out_descriptor: Option<i32>,
    ) -> Self {
        let Plan { arguments, limits, walls, .. } = plan;
        Self {
            arguments: arguments.clone(),
            keeper,
            words_descriptor,
            way_out_descriptor,
            open_files: limits.open_files,
            file_bytes: limits.file_bytes,
            memory_bytes: limits.memory_bytes,
            user_processes: limits.user_processes,
            walls: walls.clone(),
            places: plan.places(),
        }
    }

    /// What the way out is handed over through. Call it once.
    pub(super) fn take_way_out(&self) -> io::Result<Option<OwnedFd>> {
        self.way_out_descriptor.map(descriptors::inherited).transpose()
    }

    /// The way to the keeper. Opening it anew gives a descriptor that the execution of the command closes.
    pub(super) fn words(&self) -> io::Result<File> {
        File::options().write(true).open(format!("/proc/self/fd/{}", self.words_descriptor))
    }
}

/// What the processes before the command tell the keeper, a line of JSON each. The command itself cannot: the
/// way is closed when it is executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Word {
    /// A wall could not be put up. The command did not run.
    NotContained { problem: String },
    /// The command could not be executed.
    Failed { problem: String },
    /// Inside namespaces: the command is being started.
    Begun,
    /// Inside namespaces: the command exited.
    Exited { code: i32 },
    /// Inside namespaces: a signal ended the command.
    Signalled { signal: i32 },
}

impl Word {
    pub(super) fn tell(&self, words: &mut File) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        words.write_all(&line)
    }

    pub(super) fn read_all(mut words: impl io::Read) -> io::Result<Vec<Self>> {
        let mut text = Vec::new();
        words.read_to_end(&mut text)?;
        text.split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| Ok(serde_json::from_slice(line)?))
            .collect()
    }
}
