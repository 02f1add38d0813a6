//! Brings what the stages leave in the attempt's folder to the control plane: events in their order, and
//! artifacts under the name of their content.
//!
//! On one machine all events are in one spool. In a pod the work zone has its own, which is read with suspicion.

mod zone;

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Context;
use api::{Client, ClientError, ErrorCode};
use model::Digest;
use model::event::{ArtifactStored, Event, EventKind};

use crate::fault::Fault;
use crate::folder::{ARTIFACTS, AttemptFolder};
use crate::job::UNFINISHED;
use crate::spool::{Spool, Voice};
use crate::toolbox::{Tree, TreeError};
use zone::ZoneSpool;

/// How long the courier waits before it looks again, or tries again after an answer that did not come.
const PAUSE: Duration = Duration::from_millis(250);

/// The largest artifact that is uploaded; what is larger stays in the folder.
pub(crate) const LARGEST_ARTIFACT: u64 = 64 << 20;

/// How many events are sent at once.
const BUNDLE: usize = 100;

/// The most artifacts that are uploaded for one attempt.
const MOST_ARTIFACTS: usize = 10_000;

/// Sends for one attempt in one epoch.
pub(crate) struct Courier {
    client: Client,
    voice: Voice,
    handover: Tree,
    /// The events of trusted stages, and on one machine of every stage.
    spool: Option<Spool>,
    /// In a pod: the events of the work zone.
    zone: Option<ZoneSpool>,
    uploaded: HashSet<String>,
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
    /// Sends what is in `spool` and in the handover of `folder`, which must be there.
    pub(crate) fn new(
        client: Client,
        spool: Spool,
        voice: Voice,
        folder: &AttemptFolder,
        fault: Fault,
    ) -> std::io::Result<Self> {
        let handover = folder.open_handover()?;
        let zone = folder.is_in_pod().then(|| ZoneSpool::new(handover.clone(), voice.clone()));
        Ok(Self { client, voice, handover, spool: Some(spool), zone, uploaded: HashSet::new(), fault })
    }

    /// Sends what the work zone of a pod leaves, and keeps nothing on disk itself.
    pub(crate) fn of_zone(
        client: Client,
        voice: Voice,
        folder: &AttemptFolder,
        fault: Fault,
    ) -> std::io::Result<Self> {
        let handover = folder.open_handover()?;
        let zone = Some(ZoneSpool::new(handover.clone(), voice.clone()));
        Ok(Self { client, voice, handover, spool: None, zone, uploaded: HashSet::new(), fault })
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
        // What the work zone has said by now rests on artifacts that lie there by now: they go first, so that no
        // pod that dies in between leaves a verified candidate without its objects.
        let said = self.zone.as_mut().map(ZoneSpool::unsent).unwrap_or_default();
        self.upload_artifacts().await?;
        for bundle in said.chunks(BUNDLE) {
            self.send(bundle.iter().map(|said| said.event.clone()).collect()).await?;
            if let Some(zone) = &mut self.zone {
                zone.acknowledge(bundle);
            }
        }
        self.deliver_spool().await
    }

    async fn deliver_spool(&self) -> Result<(), Undelivered> {
        let Some(spool) = &self.spool else { return Ok(()) };
        loop {
            let unsent = spool.unsent().context("the spool").map_err(Undelivered::Error)?;
            let bundle = &unsent[..unsent.len().min(BUNDLE)];
            let Some((last, _)) = bundle.last() else { return Ok(()) };
            self.send(bundle.iter().map(|(_, event)| event.clone()).collect()).await?;
            spool.acknowledge(*last).context("the spool").map_err(Undelivered::Error)?;
        }
    }

    async fn send(&self, events: Vec<Event>) -> Result<(), Undelivered> {
        // The work stage knows fewer secrets than this process does.
        let cleaned: std::io::Result<Vec<Event>> =
            events.into_iter().map(|event| self.voice.without_secrets(event)).collect();
        let events = cleaned.context("the spool").map_err(Undelivered::Error)?;
        self.fault.reach("before_event_sent");
        patiently(|| self.client.ingest(events.clone())).await?;
        self.fault.reach("after_event_sent");
        Ok(())
    }

    async fn upload_artifacts(&mut self) -> Result<(), Undelivered> {
        let found = artifacts_in(&self.handover).context("the artifacts").map_err(Undelivered::Error)?;
        for path in found {
            if self.uploaded.contains(&path) {
                continue;
            }
            if self.uploaded.len() >= MOST_ARTIFACTS {
                tracing::warn!("more than {MOST_ARTIFACTS} artifacts: `{path}` is not uploaded");
                continue;
            }
            self.upload(&path).await?;
            self.uploaded.insert(path);
        }
        Ok(())
    }

    async fn upload(&self, path: &str) -> Result<(), Undelivered> {
        let Some((kind, name)) = kind_and_name(path) else { return Ok(()) };
        let bytes: bytes::Bytes = match self.handover.read(path, LARGEST_ARTIFACT) {
            Ok(bytes) => bytes.into(),
            Err(TreeError::TooLarge { size, .. }) => {
                tracing::warn!(artifact.name = %name, artifact.size = size, "the artifact is too large to be uploaded");
                return Ok(());
            }
            Err(error @ (TreeError::Missing(_) | TreeError::Outside(_) | TreeError::NotAFile { .. })) => {
                tracing::warn!(artifact.name = %name, "the artifact is not uploaded: {error}");
                return Ok(());
            }
            Err(error @ TreeError::Io { .. }) => return Err(Undelivered::Error(error.into())),
        };
        let bytes = if is_text(kind) { self.voice.cleaned(&bytes).into() } else { bytes };
        let (sha256, size) = (Digest::of(&bytes), bytes.len() as u64);
        patiently(|| self.client.put_artifact(bytes.clone())).await?;
        let step = format!("{name} {sha256}");
        let stored = ArtifactStored { sha256, name: name.to_owned(), kind: kind.to_owned(), size };
        self.say_stored(EventKind::ArtifactStored(stored), &step).await
    }

    /// In a pod two processes may store the same artifact, each for its own sake; one of them says so.
    async fn say_stored(&self, stored: EventKind, step: &str) -> Result<(), Undelivered> {
        let stored = self.voice.event(stored, step).context("the event").map_err(Undelivered::Error)?;
        match &self.spool {
            Some(spool) if self.zone.is_none() => {
                spool.append(&stored).context("the spool").map_err(Undelivered::Error)
            }
            Some(_) | None => self.say_once(stored).await,
        }
    }

    /// Sends one event; that it is recorded already is as good.
    pub(crate) async fn say_once(&self, event: Event) -> Result<(), Undelivered> {
        let said = patiently(|| async {
            match self.client.ingest(vec![event.clone()]).await {
                Err(error) if error.code() == Some(ErrorCode::EventConflict) => Ok(()),
                answer => answer.map(|_| ()),
            }
        });
        said.await
    }
}

/// Makes a call again and again until the control plane answers it.
pub(crate) async fn patiently<T, F>(call: impl Fn() -> F) -> Result<T, Undelivered>
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

/// Every finished artifact, as its path in the handover, sorted.
fn artifacts_in(handover: &Tree) -> Result<Vec<String>, TreeError> {
    let mut found = Vec::new();
    let walked = handover.walk(ARTIFACTS, |entry| {
        let name = entry.path.rsplit_once('/').map_or("", |(_, name)| name);
        if !name.starts_with(UNFINISHED) {
            found.push(entry.path.clone());
        }
        true
    });
    match walked {
        Ok(()) | Err(TreeError::Missing(_)) => {}
        Err(error @ (TreeError::Outside(_) | TreeError::NotAFile { .. } | TreeError::TooLarge { .. })) => {
            tracing::warn!("no artifact is uploaded: {error}");
        }
        Err(error @ TreeError::Io { .. }) => return Err(error),
    }
    found.sort();
    Ok(found)
}

/// Whether an artifact of the kind is for people to read. Manifests hold nothing that an agent chose but paths that were
/// searched, and both they and packs are known by their digests.
pub(crate) fn is_text(kind: &str) -> bool {
    !matches!(kind, "manifest" | "pack")
}

/// `artifacts/<kind>/<name>`, where the name may have folders.
fn kind_and_name(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix(ARTIFACTS)?.strip_prefix('/')?.split_once('/')
}
