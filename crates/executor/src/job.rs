//! What the supervisor and the stages of one attempt tell each other: one file before, one line after.

use std::fs::File;
use std::io::{self, BufRead as _, Write as _};
use std::path::Path;

use api::types::Assignment;
use model::event::{AttemptFailed, Subject, Timestamp, Usage};
use model::secrets::Redactor;
use model::{CommitId, Digest, FailureReason, Stage, Task};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use target::Provenance;

use crate::courier::is_text;
use crate::folder::{AttemptFolder, write_durably};

/// What a stage is to do. It holds no credential.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// What the control plane assigned.
    pub assignment: Assignment,
    /// When this attempt began to run.
    pub started_at: Timestamp,
    /// The executor for people: a host and process, or a Job.
    pub executor: String,
}

/// What a stage came to. It is the one line that the stage writes to standard output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum StageOutcome {
    /// `work`: the candidate is durable and every invariant passed at it.
    Verified {
        /// The candidate commit.
        candidate: CommitId,
        /// SHA-256 of the candidate's manifest.
        manifest: Digest,
    },
    /// `publish`: the pull request is there and its event is in the spool.
    Published {
        /// What all rounds cost.
        usage: Usage,
    },
    /// `publish`: the forge cannot be used now; everything is kept for later.
    Parked {
        /// What the forge said.
        reason: String,
        /// The forge is not asked again before this moment.
        not_before: Timestamp,
    },
    /// `publish`: something newer of ours took the place.
    Superseded {
        /// What was found.
        reason: String,
    },
    /// The attempt ends here.
    Failed(AttemptFailed),
    /// It was stopped from outside: the attempt was cancelled, or whoever ran it is gone.
    Stopped,
}

impl Job {
    /// Reads what the supervisor wrote.
    pub fn read(folder: &AttemptFolder) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(folder.assignment())?)?)
    }

    /// Writes it for the stages.
    pub fn write(&self, folder: &AttemptFolder) -> io::Result<()> {
        write_durably(&folder.assignment(), &serde_json::to_vec_pretty(self)?)
    }

    /// What its events are about.
    pub fn subject(&self) -> Subject {
        let Assignment { target_id, task_id, attempt_id, .. } = &self.assignment;
        Subject::attempt(target_id, task_id, attempt_id)
    }

    /// What the candidate commit must say of itself. The same for every round and every look at it.
    pub fn provenance(&self, task: &Task) -> Provenance {
        Provenance {
            title: task.title.clone(),
            task: task.task_id.clone(),
            attempt: self.assignment.attempt_id.clone(),
            policy: self.assignment.policy_digest.clone(),
            at: self.assignment.created_at.moment(),
        }
    }

    /// How much of the attempt's time is left.
    pub fn remaining(&self, now: jiff::Timestamp) -> std::time::Duration {
        let passed = Timestamp::new(now).millis_since(self.started_at);
        let passed = std::time::Duration::from_millis(passed.try_into().unwrap_or(0));
        std::time::Duration::from_secs(self.assignment.timeout_seconds).saturating_sub(passed)
    }
}

impl StageOutcome {
    /// The end of an attempt that costs nothing more than `usage`.
    pub fn failed(stage: Stage, reason: FailureReason, detail: impl Into<String>, usage: Usage) -> Self {
        Self::Failed(AttemptFailed { stage, reason, detail: shortened(detail.into()), usage })
    }
}

/// Words for the log, which takes no text without end.
pub(crate) fn shortened(text: String) -> String {
    const LONGEST: usize = 4000;
    match text.char_indices().nth(LONGEST) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Puts a finished file among the attempt's artifacts, from where the supervisor uploads it. `kind` is `log`,
/// `transcript`, `patch`, `manifest` or `pack`. What people will read is written without any secret.
pub(crate) fn keep_artifact(
    folder: &AttemptFolder,
    redactor: &Redactor,
    kind: &str,
    name: &str,
    content: &Path,
) -> io::Result<()> {
    let place = folder.artifacts().join(kind).join(name);
    let parent = place.parent().ok_or_else(|| io::Error::other("an artifact needs a folder"))?;
    std::fs::create_dir_all(parent)?;
    // The copy gets its name when it is whole: what can be seen can be uploaded.
    let unfinished = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(parent)?;
    if is_text(kind) {
        copy_cleaned(redactor, content, unfinished.as_file())?;
    } else {
        std::fs::copy(content, unfinished.path())?;
    }
    unfinished.persist(place)?;
    Ok(())
}

/// Copies a file of any length without the secrets in it; whether there were any.
pub(crate) fn copy_cleaned(redactor: &Redactor, from: &Path, mut to: &File) -> io::Result<bool> {
    let (mut read, mut written) = (sha2::Sha256::new(), sha2::Sha256::new());
    let (mut stream, mut cleaned) = (redactor.stream(), Vec::new());
    let mut pass_on = |cleaned: &mut Vec<u8>| {
        written.update(&cleaned);
        to.write_all(cleaned).map(|()| cleaned.clear())
    };
    let mut from = io::BufReader::with_capacity(1 << 16, File::open(from)?);
    loop {
        let bytes = from.fill_buf()?;
        if bytes.is_empty() {
            break;
        }
        read.update(bytes);
        stream.push(bytes, &mut cleaned);
        let length = bytes.len();
        from.consume(length);
        pass_on(&mut cleaned)?;
    }
    stream.finish(&mut cleaned);
    pass_on(&mut cleaned)?;
    Ok(read.finalize() != written.finalize())
}

/// The beginning of the names of artifacts that are still being written.
pub(crate) const UNFINISHED: &str = ".unfinished-";
