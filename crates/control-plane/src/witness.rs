//! The witness: somebody elsewhere who is shown each checkpoint, and signs below it if it continues what it saw before.
//!
//! It gives the log a memory that the owner of this machine cannot change. A task of its own shows what was signed, in
//! the protocol of <https://c2sp.org/tlog-witness>. It reads what signing has published and nothing waits for it, so
//! that a witness which is slow, wrong or away holds up neither recording nor signing. What a witness answers is
//! believed only as far as its key verifies it. Nothing is kept on the disk: the witness knows what it saw last, and is
//! asked.

mod client;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use journal::{Note, NoteError, WitnessKey};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use self::client::{Answer, Client, Problem};
pub use self::client::{InvalidWitnessUrl, WitnessUrl};
use crate::checkpoints::{Checkpoints, Signed};
use crate::trouble::Trouble;

/// How long to wait between two checkpoints that are shown, and after the first failure.
const PAUSE: Duration = Duration::from_secs(1);

/// How long to wait at most when showing fails again and again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How long what another control plane of this log was cosigned for may take to be seen here.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which witness, and the key by which its answers are judged.
#[derive(Debug, Clone)]
pub struct WitnessAccess {
    /// The prefix of its `add-checkpoint`.
    pub url: WitnessUrl,
    /// The key of its cosignatures.
    pub key: WitnessKey,
}

/// What the witness said so far. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Witness {
    shared: Arc<Shared>,
}

struct Shared {
    key: WitnessKey,
    newest: Mutex<Option<Arc<Cosigned>>>,
    failures: Counter,
}

/// A checkpoint that the witness cosigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cosigned {
    /// As the log signed it.
    shown: Arc<Signed>,
    /// With the line of the witness below.
    note: String,
    /// When the witness says that this was, in seconds since 1970.
    time: u64,
}

/// The task that shows checkpoints.
pub(crate) struct Pusher {
    witness: Witness,
    checkpoints: Checkpoints,
    client: Client,
    /// The size that the witness has cosigned of this log, as far as we know.
    known: u64,
    trouble: Trouble,
}

impl Witness {
    /// The witness, and the task that is to be spawned.
    pub(crate) fn of(access: WitnessAccess, checkpoints: Checkpoints) -> anyhow::Result<(Self, Pusher)> {
        let WitnessAccess { url, key } = access;
        let client = Client::of(&url)?;
        let shared = Shared { key, newest: Mutex::default(), failures: Counter::default() };
        let witness = Self { shared: Arc::new(shared) };
        let pusher =
            Pusher { witness: witness.clone(), checkpoints, client, known: 0, trouble: Trouble::default() };
        Ok((witness, pusher))
    }

    /// Who it is.
    pub(crate) fn name(&self) -> &str {
        self.shared.key.name().as_str()
    }

    /// The newest checkpoint that it cosigned since this process started.
    pub(crate) fn newest(&self) -> Option<String> {
        self.newest_cosigned().as_ref().map(|cosigned| cosigned.note.clone())
    }

    /// This very checkpoint with its cosignature, if it is the newest that it cosigned.
    pub(crate) fn below(&self, signed: &Signed) -> Option<String> {
        let newest = self.newest_cosigned();
        newest.as_ref().filter(|cosigned| *cosigned.shown == *signed).map(|cosigned| cosigned.note.clone())
    }

    /// Shows a scraper how far it is behind a log of `head` events.
    pub(crate) fn register(&self, head: u64, registry: &mut Registry) {
        let (size, time) = self
            .newest_cosigned()
            .as_ref()
            .map_or((0, 0), |cosigned| (cosigned.shown.checkpoint.size, cosigned.time));
        let gauge = |value| {
            let gauge = Gauge::<u64, AtomicU64>::default();
            gauge.set(value);
            gauge
        };
        let witness = registry.sub_registry_with_prefix("witness");
        witness.register(
            "lag_events",
            "Events that are durable and that the witness has not cosigned yet",
            gauge(head.saturating_sub(size)),
        );
        witness.register(
            "cosigned_timestamp_seconds",
            "When the witness cosigned last, by its own clock; 0 if it has not since the process began",
            gauge(time),
        );
        witness.register(
            "failures",
            "Tries to have a checkpoint cosigned that failed",
            self.shared.failures.clone(),
        );
    }

    fn newest_cosigned(&self) -> MutexGuard<'_, Option<Arc<Cosigned>>> {
        self.shared.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pusher {
    /// Shows every new checkpoint, until it is aborted.
    pub(crate) async fn run(mut self) {
        let mut latest = self.checkpoints.subscribe();
        loop {
            let signed = Arc::clone(&latest.borrow_and_update());
            // A log without records has nothing that could be held to.
            if signed.checkpoint.size > 0 && self.witness.below(&signed).is_none() {
                match self.show(&signed).await {
                    Ok(()) => self.succeeded(&signed),
                    Err(problem) => self.failed(&problem, &signed),
                }
                tokio::time::sleep(self.trouble.pause(PAUSE, LONGEST_PAUSE)).await;
                // What was signed meanwhile is shown now; and what failed once more.
                continue;
            }
            if latest.changed().await.is_err() {
                return;
            }
        }
    }

    /// Shows one checkpoint. If the witness knows another size than we thought, once more from that one.
    async fn show(&mut self, signed: &Arc<Signed>) -> Result<(), Problem> {
        for _ in 0..2 {
            let size = signed.checkpoint.size;
            if self.known > size {
                return self.catch_up(size).await;
            }
            let proof = self.proof(size).await?;
            match self.client.add(self.known, &proof, &signed.note).await? {
                Answer::Cosignatures(lines) => return self.take(signed, &lines),
                Answer::Knows(size) if size == self.known => {
                    return Err(Problem::Garbled(
                        "it refuses a size, and says that this is the size it knows",
                    ));
                }
                Answer::Knows(size) => self.known = size,
            }
        }
        if self.known > signed.checkpoint.size {
            self.catch_up(signed.checkpoint.size).await
        } else {
            Err(Problem::Raced)
        }
    }

    /// The witness knows more than this checkpoint says. Where others record too, they may have shown it; everywhere
    /// else there are records that we do not have any more.
    async fn catch_up(&self, size: u64) -> Result<(), Problem> {
        let known = self.known;
        let covering = self.checkpoints.covering(known);
        if self.checkpoints.is_shared() && tokio::time::timeout(PATIENCE, covering).await.is_ok() {
            return Ok(());
        }
        Err(Problem::Ahead { known, size })
    }

    async fn proof(&self, size: u64) -> Result<Vec<journal::TreeHash>, Problem> {
        let (checkpoints, known) = (self.checkpoints.clone(), self.known);
        if known == 0 {
            return Ok(Vec::new());
        }
        let made = tokio::task::spawn_blocking(move || checkpoints.consistency(known, size)).await;
        match made {
            Ok(Ok(proof)) => Ok(proof),
            Ok(Err(problem)) => Err(Problem::NoProof(problem.to_string())),
            Err(problem) => Err(Problem::NoProof(problem.to_string())),
        }
    }

    fn take(&mut self, signed: &Arc<Signed>, lines: &str) -> Result<(), Problem> {
        let key = &self.witness.shared.key;
        let cosigned = || -> Result<(String, u64), NoteError> {
            let note = key.take(Note::parse(&signed.note)?, lines)?;
            Ok((note.to_string(), key.cosigned(&note)?))
        };
        let (note, time) = cosigned().map_err(Problem::NotCosigned)?;
        self.known = signed.checkpoint.size;
        *self.witness.newest_cosigned() = Some(Arc::new(Cosigned { shown: Arc::clone(signed), note, time }));
        Ok(())
    }

    fn succeeded(&mut self, signed: &Signed) {
        if let Some(failures) = self.trouble.over() {
            let size = signed.checkpoint.size;
            tracing::info!(
                witness = self.witness.name(),
                log.size = size,
                failures,
                "The witness cosigns again."
            );
        }
    }

    /// Says that showing begins to fail, or fails in another way; and not that it still does.
    fn failed(&mut self, problem: &Problem, signed: &Signed) {
        self.witness.shared.failures.inc();
        if !self.trouble.met(problem.in_short()) {
            return;
        }
        let (witness, url, size) = (self.witness.name(), self.client.url(), signed.checkpoint.size);
        if problem.contradicts() {
            tracing::error!(witness, %url, error = %problem, log.size = size, "The witness contradicts this log.");
        } else {
            tracing::warn!(witness, %url, error = %problem, log.size = size, "The log goes on and is signed, but its checkpoints are not cosigned: the witness is asked again.");
        }
    }
}
