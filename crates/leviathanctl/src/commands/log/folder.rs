//! A log on this machine: the folder of a journal, or the file of an export.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use journal::{Head, Tail};
use serde::{Deserialize, Serialize};

use super::audit::Audit;
use super::unreadable;
use crate::failure::Failure;

/// The first line of an export. The records follow, one in each line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExportHead {
    /// What kind of file this is.
    pub(super) format: String,
    /// The name of the log.
    pub(super) origin: String,
    /// The signed checkpoint that covers the records.
    pub(super) checkpoint: String,
}

/// The only format of an export so far.
pub(super) const FORMAT: &str = "leviathan-log-export-v1";

/// The longest line of an export: a record with a body of full length.
const MAX_LINE: u64 = 1 << 20;

/// A log that can be read.
pub(super) enum Source {
    /// `journal/` of a data folder.
    Folder {
        /// The folder.
        path: PathBuf,
        /// The name of the log.
        origin: String,
        /// The stored checkpoint, if there is one.
        checkpoint: Option<String>,
    },
    /// What `log export` wrote.
    Export {
        /// The file.
        path: PathBuf,
        /// Its first line.
        head: ExportHead,
    },
}

impl Source {
    /// Looks at what there is: the folder of a journal, a data folder that has one, or an export.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let kind = fs::metadata(path).map_err(|problem| unreadable(path, &problem))?;
        if !kind.is_dir() {
            let mut first = String::new();
            let file = File::open(path).map_err(|problem| unreadable(path, &problem))?;
            let read = BufReader::new(io::Read::take(file, MAX_LINE)).read_line(&mut first);
            read.map_err(|problem| unreadable(path, &problem))?;
            let head = serde_json::from_str::<ExportHead>(&first).ok().filter(|head| head.format == FORMAT);
            let head = head.ok_or_else(|| unreadable(path, &"it is no export of this version"))?;
            return Ok(Self::Export { path: path.to_owned(), head });
        }
        let inner = path.join("journal");
        let path = if inner.join("origin").exists() { inner } else { path.to_owned() };
        let name = path.join("origin");
        let origin = fs::read_to_string(&name).map_err(|problem| unreadable(&name, &problem))?;
        let note = path.join("checkpoint");
        let checkpoint = match fs::read_to_string(&note) {
            Ok(note) => Some(note),
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => None,
            Err(problem) => return Err(unreadable(&note, &problem)),
        };
        Ok(Self::Folder { path, origin, checkpoint })
    }

    /// The name of the log.
    pub(super) fn origin(&self) -> &str {
        match self {
            Self::Folder { origin, .. } => origin,
            Self::Export { head, .. } => &head.origin,
        }
    }

    /// The checkpoint that came with it.
    pub(super) fn checkpoint(&self) -> Option<&str> {
        match self {
            Self::Folder { checkpoint, .. } => checkpoint.as_deref(),
            Self::Export { head, .. } => Some(&head.checkpoint),
        }
    }

    /// Reads every record into the audit. Answers what was passed over.
    pub(super) fn read(&self, audit: &mut Audit) -> Result<Option<String>, Failure> {
        match self {
            Self::Folder { path, .. } => segments(path, audit),
            Self::Export { path, .. } => {
                let take = |line: &[u8]| audit.take_line(line).map_err(|told| damaged_export(path, &told));
                lines(path, take).map(|()| None)
            }
        }
    }

    /// Hands over the lines of the records of an export, each as it stands there. Of a folder, nothing.
    pub(super) fn records(&self, each: impl FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
        match self {
            Self::Folder { .. } => Ok(()),
            Self::Export { path, .. } => lines(path, each),
        }
    }
}

/// Reads the segments of a folder in the order of their names.
fn segments(folder: &Path, audit: &mut Audit) -> Result<Option<String>, Failure> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "ndjson") {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    };
    let found = list().map_err(|problem| unreadable(folder, &problem))?;
    let mut torn = None;
    for path in &found {
        if let Some(told) = torn {
            return Err(Failure::No(format!(
                "{told}, and yet {} follows: the log is damaged",
                path.display()
            )));
        }
        torn = segment(path, audit)?;
    }
    Ok(torn)
}

/// Reads one segment. Answers what an interrupted write left at its end.
fn segment(path: &Path, audit: &mut Audit) -> Result<Option<String>, Failure> {
    let damaged = |told: String| Failure::No(format!("the log is damaged in {}: {told}", path.display()));
    let expected = format!("{:020}.ndjson", audit.head().seq + 1);
    if path.file_name().is_none_or(|name| name != expected.as_str()) {
        return Err(damaged(format!("the next segment should be {expected}, so one is missing or too many")));
    }
    let file = File::open(path).map_err(|problem| unreadable(path, &problem))?;
    let after: Head = audit.head();
    let scan = journal::scan(file, after, |bundle, _| {
        bundle.records().iter().try_for_each(|record| audit.take(record)).map_err(io::Error::other)
    });
    match scan.map_err(|problem| unreadable(path, &problem))?.tail {
        Tail::Clean => Ok(None),
        Tail::Torn { bytes } => {
            Ok(Some(format!("{} ends with {bytes} bytes of a write that was interrupted", path.display())))
        }
        Tail::Damaged(damage) => Err(damaged(damage.to_string())),
    }
}

fn damaged_export(path: &Path, told: &str) -> Failure {
    Failure::No(format!("the export {} is damaged: {told}", path.display()))
}

/// Reads the records of an export.
fn lines(path: &Path, mut each: impl FnMut(&[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
    let file = File::open(path).map_err(|problem| unreadable(path, &problem))?;
    let mut file = BufReader::new(file);
    let mut line = Vec::new();
    let mut is_head = true;
    loop {
        line.clear();
        let read = io::Read::take(&mut file, MAX_LINE).read_until(b'\n', &mut line);
        if read.map_err(|problem| unreadable(path, &problem))? == 0 {
            return Ok(());
        }
        let text =
            line.strip_suffix(b"\n").ok_or_else(|| damaged_export(path, "its last line is not whole"))?;
        if !std::mem::take(&mut is_head) {
            each(text)?;
        }
    }
}
