//! The Claude agent: a model of the Messages API that works with a closed set of tools under limits that hold.
//!
//! It knows how to hold one conversation, what it may cost and when to give up. It does not know how a change is
//! judged in the end, and nothing in its environment could publish one: the only credential here is the key of
//! the API, which no tool can reach.

mod api;
mod ledger;
mod prompt;
pub mod replay;
mod retry;
mod session;
mod sse;
mod stuck;
mod tools;
mod transcript;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::CommitId;
use model::event::Usage;
use secrecy::SecretString;
use target::Provenance;

pub use ledger::{Budgets, PRICES_AS_OF, Prices};
pub use retry::Patience;
pub use tools::understand;
pub use transcript::TRANSCRIPT_FORMAT;

use self::session::Session;
use crate::agent::{AgentFailure, AgentReport, Brief, FailureCause};
use crate::toolbox::{Pending, Toolbox};

/// The model that works when no other is named.
pub const DEFAULT_MODEL: &str = "claude-opus-5-5";

/// The address of the API when no other is named.
pub const DEFAULT_BASE_URL: &str = "https://api.anthropic.com";

/// Everything that a Claude agent must be told.
#[derive(Clone)]
pub struct Config {
    /// The key of the API (`ANTHROPIC_API_KEY`).
    pub key: SecretString,
    /// The address of the API (`ANTHROPIC_BASE_URL`); `https`, or `http` on this machine.
    pub base_url: String,
    /// The model (`LEVIATHAN_MODEL`).
    pub model: String,
    /// How hard the model should think: `low` to `max`. `None` leaves it to the model's own default.
    pub effort: Option<String>,
    /// The price of a model that is not in [`Prices::listed`].
    pub prices: Option<Prices>,
    /// What the attempt may use.
    pub budgets: Budgets,
    /// How long a failing call is tried.
    pub patience: Patience,
    /// A call in which nothing comes for this long counts as broken.
    pub idle_timeout: Duration,
    /// The file that the conversation is written to. What it says was spent counts against the budgets.
    pub transcript: PathBuf,
    /// What a replay of the transcript begins with.
    pub origin: Option<Origin>,
    /// Values, beside the key, that must not appear in the transcript or before the model.
    pub secrets: Vec<SecretString>,
    /// Whether an operator wants nothing more to be spent for now. Asked before every call.
    pub is_paused: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Waits between tries. Tests put something here that does not.
    pub pause: Arc<dyn Fn(Duration) -> Pending<()> + Send + Sync>,
}

/// Where the work begins, and what its commit says of itself.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The commit whose files the agent's tree began with.
    pub base: CommitId,
    /// The agent's tree.
    pub tree: PathBuf,
    /// What the commit of the agent's work says.
    pub provenance: Provenance,
}

impl Config {
    /// The usual settings for an attempt that may cost `microdollars`.
    pub fn new(key: SecretString, microdollars: u64, transcript: PathBuf) -> Self {
        Self {
            key,
            base_url: DEFAULT_BASE_URL.to_owned(),
            model: DEFAULT_MODEL.to_owned(),
            effort: None,
            prices: None,
            budgets: Budgets::of_dollars(microdollars),
            patience: Patience::default(),
            idle_timeout: Duration::from_secs(120),
            transcript,
            origin: None,
            secrets: Vec::new(),
            is_paused: Arc::new(|| false),
            pause: Arc::new(|wait| Box::pin(tokio::time::sleep(wait))),
        }
    }
}

/// One conversation with a model, and its accounts.
pub struct Claude {
    session: Session,
}

impl Claude {
    /// Checks the configuration and opens the transcript. Nothing is sent yet.
    pub fn new(config: Config) -> Result<Self, AgentFailure> {
        let session = Session::new(config);
        session
            .map(|session| Self { session })
            .map_err(|cause: FailureCause| AgentFailure { cause, usage: Usage::default() })
    }

    /// Remembers what the round's work came to: the commit of the tree that it left.
    pub(crate) fn came_to(&mut self, candidate: &CommitId) -> anyhow::Result<()> {
        self.session.came_to(candidate)
    }

    /// One round of work; see [`Agent::work`](crate::agent::Agent::work).
    pub(crate) async fn work(
        &mut self,
        brief: &Brief,
        toolbox: &Toolbox,
    ) -> Result<AgentReport, AgentFailure> {
        let done = self.session.round(brief, toolbox).await;
        done.map_err(|cause| AgentFailure { cause, usage: self.session.usage_of_round() })
    }
}
