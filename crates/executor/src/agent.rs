//! The seam to whoever does the work: what an agent is told, what it may use, and what it says in the end.
//!
//! An agent is untrusted. It gets a [`Brief`] and a [`Toolbox`](crate::toolbox::Toolbox) and changes the plain
//! tree in it; nothing that it reports decides anything. This module does not know what a permitted change is,
//! how a candidate is made or what becomes of it: the gate reads git objects, never an agent's word.

pub mod claude;
pub mod command;

use std::fmt;

use model::documents::{PathRule, TargetSpec, Task};
use model::event::Usage;
use model::secrets::Redactor;
use model::{AttemptId, CommitId, FailureReason, TargetId, TaskId};
use serde::{Deserialize, Serialize};

use crate::contain;
use crate::toolbox::{Interrupted, Toolbox};

/// Who does the work of an attempt. The same value is used for every round of one attempt, so that an agent
/// that holds a conversation can go on with it.
pub enum Agent {
    /// A model of the Claude family, through the Messages API.
    Claude(Box<claude::Claude>),
    /// Any program.
    Command(command::CommandAgent),
}

impl Agent {
    /// Lets the agent change the tree of `toolbox` until it says that it is done, gives up, or must stop.
    ///
    /// May be called again with the next round of the same brief: the failed checks in it then go to the agent
    /// as the answer to its last report. The tree is left as the agent left it, also after a failure. Every
    /// command that the agent started has ended when this returns.
    pub async fn work(&mut self, brief: &Brief, toolbox: &Toolbox) -> Result<AgentReport, AgentFailure> {
        match self {
            Self::Claude(claude) => claude.work(brief, toolbox).await,
            Self::Command(command) => command.work(brief, toolbox).await,
        }
    }

    /// Tells the agent what its last round came to, for its transcript if it has one.
    pub(crate) fn came_to(&mut self, candidate: &CommitId) -> anyhow::Result<()> {
        match self {
            Self::Claude(claude) => claude.came_to(candidate),
            Self::Command(_) => Ok(()),
        }
    }
}

/// What an agent is told. All of it comes from the documents at the base commit or was measured by us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brief {
    /// The repository.
    pub target: TargetId,
    /// The attempt.
    pub attempt: AttemptId,
    /// The task.
    pub task: TaskId,
    /// The task's title, as its human wrote it.
    pub title: String,
    /// More words about the task, if there are any.
    pub description: Option<String>,
    /// What the reviewer will look for.
    pub acceptance_criteria: Vec<String>,
    /// The name of the scope that the task belongs to.
    pub scope: String,
    /// Patterns of the paths that may change: a path must match the task's and the scope's.
    pub allowed_paths: AllowedPaths,
    /// Patterns of the paths that must not change, whatever the others say.
    pub forbidden_patterns: Vec<String>,
    /// The checks that must pass.
    pub invariants: Vec<BriefInvariant>,
    /// The hosts that its commands reach, by https through the proxy of `HTTPS_PROXY`. Usually none.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// The commit from which the tree was exported.
    pub base_commit: CommitId,
    /// 1 for the first round. A later one follows failed checks.
    pub round: u32,
    /// The checks that failed at the end of the round before; empty in the first.
    pub failed_checks: Vec<FailedCheck>,
}

impl Brief {
    /// The brief of the first round of an attempt at `task`.
    pub fn new(spec: &TargetSpec, task: &Task, attempt: AttemptId) -> Self {
        let words = |rules: &[PathRule]| rules.iter().map(|rule| rule.pattern.to_string()).collect();
        let scope = spec.policy.scopes.get(&task.scope).cloned().unwrap_or_default();
        let invariants = spec.policy.invariants.iter();
        Self {
            target: spec.contract.target_id.clone(),
            attempt,
            task: task.task_id.clone(),
            title: task.title.clone(),
            description: task.description.clone(),
            acceptance_criteria: task.acceptance_criteria.clone(),
            scope: task.scope.clone(),
            allowed_paths: AllowedPaths {
                task: words(&task.allowed_paths),
                scope: words(&scope.allowed_paths),
            },
            forbidden_patterns: words(&scope.forbidden_patterns),
            invariants: invariants
                .map(|invariant| BriefInvariant {
                    name: invariant.name.clone(),
                    check: invariant.check.clone(),
                })
                .collect(),
            hosts: spec.policy.network.agent.clone(),
            base_commit: spec.commit.clone(),
            round: 1,
            failed_checks: Vec::new(),
        }
    }

    /// The brief of the round after this one.
    pub fn next_round(&self, failed_checks: Vec<FailedCheck>) -> Self {
        Self { round: self.round + 1, failed_checks, ..self.clone() }
    }
}

/// The two lists of which a changed path must match both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowedPaths {
    /// What the task names.
    pub task: Vec<String>,
    /// What the scope names.
    pub scope: Vec<String>,
}

/// An invariant as an agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BriefInvariant {
    /// Its name.
    pub name: String,
    /// The command line that must exit with 0.
    pub check: String,
}

/// A check that did not pass, and what it said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedCheck {
    /// The name of the invariant.
    pub name: String,
    /// How it ended, in words: `exited with 1`.
    pub outcome: String,
    /// Head and tail of its output.
    pub output: String,
}

/// What an agent says when it stops by itself. Its words are claims and are shown as such.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentReport {
    /// Whether it believes that the task is done.
    pub outcome: Outcome,
    /// What it did, in its own words; may be empty.
    pub summary: String,
    /// Its notes on single acceptance criteria.
    pub criteria: Vec<CriterionNote>,
    /// What the round cost.
    pub usage: Usage,
    /// The model that answered, as its provider names it; `None` for an agent without a model.
    pub model: Option<String>,
}

impl AgentReport {
    /// The same words without any secret.
    pub(crate) fn without_secrets(mut self, redactor: &Redactor) -> Self {
        self.summary = redactor.clean(&self.summary);
        for note in &mut self.criteria {
            note.note = redactor.clean(&note.note);
        }
        self
    }
}

/// How an agent ended its round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It believes that the task is done.
    Finished,
    /// It says that it cannot do the task.
    GaveUp,
}

/// An agent's note on one acceptance criterion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CriterionNote {
    /// The criterion, as the agent quotes it.
    pub criterion: String,
    /// What it says about it.
    pub note: String,
}

/// Why an agent had to stop, and what it had used until then.
#[derive(Debug, thiserror::Error)]
#[error("{cause}")]
pub struct AgentFailure {
    /// Why.
    pub cause: FailureCause,
    /// What the round had cost until then, the failed calls included. Where the provider's bill cannot be known
    /// (a stream that broke off), the most that it can be.
    pub usage: Usage,
}

impl AgentFailure {
    /// The recorded reason of this failure.
    pub fn reason(&self) -> FailureReason {
        match &self.cause {
            FailureCause::Budget { .. } => FailureReason::BudgetExceeded,
            FailureCause::DeadlinePassed => FailureReason::TimedOut,
            FailureCause::Cancelled => FailureReason::Cancelled,
            FailureCause::Stuck { .. } => FailureReason::Stuck,
            FailureCause::Refusal { .. } => FailureReason::ModelRefusal,
            FailureCause::ProviderUnavailable { .. } => FailureReason::ProviderUnavailable,
            FailureCause::ProviderSpendLimit { .. } => FailureReason::ProviderSpendLimit,
            FailureCause::Configuration { .. } => FailureReason::ConfigInvalid,
            FailureCause::Internal(_) => FailureReason::Internal,
        }
    }
}

/// Everything that can stop an agent other than itself.
#[derive(Debug, thiserror::Error)]
pub enum FailureCause {
    /// A limit of the attempt is used up, or the next call could exceed it.
    #[error("the {budget} are used up: {detail}")]
    Budget {
        /// Which limit.
        budget: Budget,
        /// What was asked for and what is left.
        detail: String,
    },
    /// The attempt reached its deadline.
    #[error("the agent had not finished when the attempt reached its deadline")]
    DeadlinePassed,
    /// Somebody stopped the attempt.
    #[error("the attempt was cancelled while the agent worked")]
    Cancelled,
    /// The agent repeats itself, makes no progress, or cannot use its tools.
    #[error("the agent is stuck: {detail}")]
    Stuck {
        /// What was observed.
        detail: String,
    },
    /// The model declined. It is not asked again in other words.
    #[error("the model declined the task{}", in_brackets(category, explanation))]
    Refusal {
        /// The provider's category, if it names one.
        category: Option<String>,
        /// The provider's explanation, if it gives one.
        explanation: Option<String>,
    },
    /// The provider could not be reached, is overloaded or answers nonsense, and patience is used up.
    #[error("the model's provider is unavailable after {tries} tries: {detail}")]
    ProviderUnavailable {
        /// How often the call was tried.
        tries: u32,
        /// The last error.
        detail: String,
    },
    /// The provider's own spend limit is reached.
    #[error("the provider's spend limit is reached: {detail}")]
    ProviderSpendLimit {
        /// What the provider said.
        detail: String,
    },
    /// A key, a model name or another setting is wrong; asking again cannot help.
    #[error("the configuration of the agent is wrong: {detail}")]
    Configuration {
        /// What is wrong and where to correct it.
        detail: String,
    },
    /// A bug of ours, or a machine that failed.
    #[error("{0:#}")]
    Internal(anyhow::Error),
}

impl From<contain::Error> for FailureCause {
    /// A keeper that a signal ended was ended by the agent's own command: that is no failure of the machine, after
    /// which the same would be paid for again.
    fn from(error: contain::Error) -> Self {
        match error {
            contain::Error::KeeperKilled { .. } => {
                Self::Stuck { detail: format!("its command attacked its sandbox: {error}") }
            }
            contain::Error::Keeper { .. }
            | contain::Error::Scratch { .. }
            | contain::Error::Setup(_)
            | contain::Error::KeeperLost => Self::Internal(error.into()),
        }
    }
}

impl From<Interrupted> for FailureCause {
    fn from(interrupted: Interrupted) -> Self {
        match interrupted {
            Interrupted::Cancelled => Self::Cancelled,
            Interrupted::DeadlinePassed => Self::DeadlinePassed,
        }
    }
}

/// The limits that an agent's own use can exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// `budget_usd`.
    Dollars,
    /// All tokens of the attempt.
    Tokens,
    /// Tokens that one answer may have.
    OutputTokens,
    /// Tokens that one conversation may hold.
    ContextTokens,
    /// Calls to the model.
    Turns,
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Dollars => "dollars of the attempt",
            Self::Tokens => "tokens of the attempt",
            Self::OutputTokens => "tokens of one answer",
            Self::ContextTokens => "tokens of the conversation",
            Self::Turns => "turns of the attempt",
        })
    }
}

fn in_brackets(category: &Option<String>, explanation: &Option<String>) -> String {
    match (category, explanation) {
        (None, None) => String::new(),
        (Some(words), None) | (None, Some(words)) => format!(" ({words})"),
        (Some(category), Some(explanation)) => format!(" ({category}: {explanation})"),
    }
}
