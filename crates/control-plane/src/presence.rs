//! What executors and schedulers say of themselves: that they live, what they are at, what they saw. Nothing of it is
//! an event. It is kept in memory, and where several control planes share a log, told to the others by a board.

mod board;
mod leases;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use api::types::{PassReport, Passes, TargetObservation};
use model::{AttemptId, Graph, TargetId};
use secrecy::SecretString;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use self::board::{Board, Notice, Topic};
use self::leases::Leases;

pub(crate) use self::board::BoardError;

/// Who lives, and what was said.
pub(crate) struct Presence {
    leases: Mutex<Leases>,
    observations: RwLock<HashMap<TargetId, TargetObservation>>,
    /// What was asked of the schedulers, and what became of it.
    passes: watch::Sender<Passes>,
    /// None where nobody else serves this log.
    board: Option<Board>,
}

impl Presence {
    /// Nobody said anything yet; a lease lasts `lease`. With the URL of a database, its other control planes are heard.
    pub(crate) fn new(lease: Duration, shared: Option<&SecretString>) -> Self {
        Self {
            leases: Leases::new(lease, Instant::now()).into(),
            observations: RwLock::default(),
            passes: watch::Sender::default(),
            board: shared.map(Board::new),
        }
    }

    /// Tells the others and hears them, until the handle that it answers is used.
    pub(crate) fn exchange(self: &Arc<Self>) -> Option<AbortHandle> {
        self.board.as_ref()?;
        let presence = Arc::clone(self);
        let exchanging = tokio::spawn(async move {
            if let Some(board) = &presence.board {
                board.exchange_for_ever(|heard| presence.hear(heard)).await;
            }
        });
        Some(exchanging.abort_handle())
    }

    /// Begins the lease of an attempt that was handed out.
    pub(crate) fn handed_out(&self, attempt: &AttemptId, graph: &Graph) {
        let mut leases = self.leases();
        leases.renew(attempt, Instant::now());
        leases.forget_ended(graph);
        self.tell(Topic::Heartbeat, attempt.as_str(), None);
    }

    /// Begins the lease of an attempt anew, whose executor says what it is at. Answers how long it lasts.
    pub(crate) fn heartbeat(&self, attempt: &AttemptId, activity: String) -> Duration {
        self.tell(Topic::Heartbeat, attempt.as_str(), Some(activity.clone()));
        let mut leases = self.leases();
        leases.renew(attempt, Instant::now());
        leases.tell(attempt, activity);
        leases.length()
    }

    /// What is left of the lease of an attempt.
    pub(crate) fn lease_remaining(&self, attempt: &AttemptId) -> Duration {
        self.leases().remaining(attempt, Instant::now())
    }

    /// What is left of it for whoever wants to declare the attempt lost. Where others serve the log too, silence
    /// counts only until they were last heard: its executor may be speaking to one of them.
    pub(crate) fn lease_for_a_verdict(&self, attempt: &AttemptId) -> Duration {
        let mut leases = self.leases();
        match self.board.as_ref().map(Board::looked) {
            None => leases.remaining(attempt, Instant::now()),
            Some(Some(looked)) => leases.remaining_for_a_verdict(attempt, looked),
            Some(None) => leases.length(),
        }
    }

    /// What the executor of an attempt last said it is at.
    pub(crate) fn activity(&self, attempt: &AttemptId) -> Option<String> {
        self.leases().activity(attempt)
    }

    /// Remembers what a scheduler saw of a target.
    pub(crate) fn observed(&self, target: TargetId, observation: TargetObservation) {
        if self.board.is_some() {
            self.tell(Topic::Observation, target.as_str(), serde_json::to_string(&observation).ok());
        }
        self.observations.write().unwrap_or_else(PoisonError::into_inner).insert(target, observation);
    }

    /// What a scheduler last saw of a target.
    pub(crate) fn observation(&self, target: &TargetId) -> Option<TargetObservation> {
        self.observations.read().unwrap_or_else(PoisonError::into_inner).get(target).cloned()
    }

    /// Asks a pass of the schedulers. Answers its number.
    pub(crate) async fn request_pass(&self) -> Result<u64, BoardError> {
        let Some(board) = &self.board else {
            self.passes.send_modify(|passes| passes.requested += 1);
            return Ok(self.passes.borrow().requested);
        };
        let passes = board.request_pass().await?;
        let number = passes.requested;
        self.learn(passes);
        Ok(number)
    }

    /// Takes in that a scheduler made a pass.
    pub(crate) async fn made_pass(&self, report: PassReport) -> Result<(), BoardError> {
        if let Some(board) = &self.board {
            self.learn(board.report_pass(&report).await?);
            return Ok(());
        }
        self.passes.send_modify(|passes| {
            // A number of before the last start of this process asks for nothing that is known here.
            passes.done = passes.done.max(report.number.min(passes.requested));
            passes.last = Some(report);
        });
        Ok(())
    }

    /// The passes asked for and made, as they change.
    pub(crate) fn passes(&self) -> watch::Receiver<Passes> {
        self.passes.subscribe()
    }

    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, topic: Topic, name: &str, content: Option<String>) {
        if let Some(board) = &self.board {
            board.pin(Notice { topic, name: name.to_owned(), content, told: Instant::now() });
        }
    }

    /// Takes in what others, or we, have pinned. What cannot be read is of a version that we do not know.
    fn hear(&self, heard: board::Heard) {
        if heard.after_a_gap {
            self.leases().grant_all(Instant::now());
        }
        for notice in heard.notices {
            match notice.topic {
                Topic::Heartbeat => {
                    let Ok(attempt) = AttemptId::parse(&notice.name) else { continue };
                    self.leases().hear(&attempt, notice.told, notice.content);
                }
                Topic::Observation => {
                    let Ok(target) = TargetId::parse(&notice.name) else { continue };
                    let read = notice.content.and_then(|text| serde_json::from_str(&text).ok());
                    let Some(observation) = read else { continue };
                    self.hear_of(target, observation);
                }
            }
        }
        self.learn(heard.passes);
    }

    fn hear_of(&self, target: TargetId, observation: TargetObservation) {
        let mut observations = self.observations.write().unwrap_or_else(PoisonError::into_inner);
        let is_newer = observations.get(&target).is_none_or(|known| known.at < observation.at);
        if is_newer {
            observations.insert(target, observation);
        }
    }

    /// Moves what is known of passes on. Answers may overtake each other; numbers only grow.
    fn learn(&self, told: Passes) {
        self.passes.send_if_modified(|known| {
            let is_news = told.requested > known.requested
                || told.done > known.done
                || told.last.as_ref().map(|last| last.at) > known.last.as_ref().map(|last| last.at);
            if is_news {
                known.requested = known.requested.max(told.requested);
                known.done = known.done.max(told.done);
                known.last = told.last.or(known.last.take());
            }
            is_news
        });
    }
}
