//! Brings what the stages leave in the attempt's folder to the control plane: events in their order, and
//! artifacts under the name of their content.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use api::{Client, ClientError};
use model::Digest;
use model::event::{ArtifactStored, EventKind};

use crate::fault::Fault;
use crate::folder::AttemptFolder;
use crate::job::UNFINISHED;
use crate::spool::{Recorder, Spool};

/// How long the courier waits before it looks again, or tries again after an answer that did not come.
const PAUSE: Duration = Duration::from_millis(250);

/// The largest artifact that is uploaded; what is larger stays in the folder.
const LARGEST_ARTIFACT: u64 = 64 << 20;

/// How many events are sent at once.
const BUNDLE: usize = 100;

/// Sends for one attempt in one epoch.
pub(crate) struct Courier {
    client: Client,
    spool: Spool,
    recorder: Recorder,
    artifacts: PathBuf,
    uploaded: HashSet<PathBuf>,
    fault: Fault,
}

/// Why nothing more can be sent.
#[derive(Debug)]
pub(crate) enum Undelivered {
    /// The control plane takes nothing of this executor any more: the attempt ended, or another has it.
    Fenced(String),
    /// The folder cannot be read, or the control plane refused what we say. A bug or a damaged disk.
    Error(anyhow::Error),
}

impl Courier {
    pub(crate) fn new(
        client: Client,
        spool: Spool,
        recorder: Recorder,
        folder: &AttemptFolder,
        fault: Fault,
    ) -> Self {
        let artifacts = folder.artifacts();
        Self { client, spool, recorder, artifacts, uploaded: HashSet::new(), fault }
    }

    /// Sends what there is and what comes, until nothing more can be sent.
    pub(crate) async fn run(&mut self) -> Undelivered {
        loop {
            if let Err(undelivered) = self.deliver().await {
                return undelivered;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Sends what there is now, waiting for the control plane as long as that takes.
    pub(crate) async fn deliver(&mut self) -> Result<(), Undelivered> {
        self.upload_artifacts().await?;
        loop {
            let unsent = self.spool.unsent().context("the spool").map_err(Undelivered::Error)?;
            let bundle = &unsent[..unsent.len().min(BUNDLE)];
            let Some((last, _)) = bundle.last() else { return Ok(()) };
            self.fault.reach("before_event_sent");
            let events = || bundle.iter().map(|(_, event)| event.clone()).collect();
            patiently(|| self.client.ingest(events())).await?;
            self.fault.reach("after_event_sent");
            self.spool.acknowledge(*last).context("the spool").map_err(Undelivered::Error)?;
        }
    }

    async fn upload_artifacts(&mut self) -> Result<(), Undelivered> {
        let found = artifacts_in(&self.artifacts).context("the artifacts").map_err(Undelivered::Error)?;
        for (kind, name, file) in found {
            if self.uploaded.contains(&file) {
                continue;
            }
            self.upload(kind, name, &file).await?;
            self.uploaded.insert(file);
        }
        Ok(())
    }

    async fn upload(&self, kind: String, name: String, file: &Path) -> Result<(), Undelivered> {
        let error = |error: std::io::Error| {
            Undelivered::Error(anyhow::Error::new(error).context(file.display().to_string()))
        };
        let size = tokio::fs::metadata(file).await.map_err(error)?.len();
        if size > LARGEST_ARTIFACT {
            tracing::warn!(artifact.name = %name, artifact.size = size, "the artifact is too large to be uploaded");
            return Ok(());
        }
        let bytes: bytes::Bytes = tokio::fs::read(file).await.map_err(error)?.into();
        let sha256 = Digest::of(&bytes);
        patiently(|| self.client.put_artifact(bytes.clone())).await?;
        let step = format!("{name} {sha256}");
        let stored = EventKind::ArtifactStored(ArtifactStored { sha256, name, kind, size });
        self.recorder.record(stored, &step).map_err(error)
    }
}

/// Makes a call again and again until the control plane answers it.
async fn patiently<T, F>(call: impl Fn() -> F) -> Result<T, Undelivered>
where
    F: Future<Output = Result<T, ClientError>>,
{
    loop {
        match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) if error.is_transient() => {
                tracing::warn!("{error}");
                tokio::time::sleep(4 * PAUSE).await;
            }
            Err(error) if is_fence(&error) => return Err(Undelivered::Fenced(error.to_string())),
            Err(error) => {
                return Err(Undelivered::Error(
                    anyhow::Error::new(error).context("the control plane refused"),
                ));
            }
        }
    }
}

/// Whether a refusal says that the attempt is no longer this executor's.
pub(crate) fn is_fence(error: &ClientError) -> bool {
    use api::ErrorCode::{Fenced, IllegalStep};
    matches!(error.code(), Some(Fenced | IllegalStep))
}

/// Every finished artifact: its kind, its name and its file.
fn artifacts_in(folder: &Path) -> std::io::Result<Vec<(String, String, PathBuf)>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let entries = match std::fs::read_dir(&next) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if !entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                found.extend(named(folder, entry.path()));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn named(folder: &Path, file: PathBuf) -> Option<(String, String, PathBuf)> {
    let relative = file.strip_prefix(folder).ok()?.to_str()?;
    let (kind, name) = relative.split_once('/')?;
    Some((kind.to_owned(), name.to_owned(), file))
}
