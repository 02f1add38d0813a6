//! The life of one attempt: its states, and why it can fail.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where an attempt stands. `Completed`, `Failed`, `Cancelled`, `Lost` and `Superseded` are terminal: nothing
/// changes them any more; a human's invalidation is recorded beside them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    /// Claimed by a scheduler; no executor has reported yet.
    Created,
    /// An executor works on it.
    Started,
    /// A change was made that the path rules permit; the invariants are being run.
    Candidate,
    /// Every invariant passed at the candidate commit; it may be published.
    Verified,
    /// Its pull request is open.
    Published,
    /// Its pull request is recorded and the executor is done. A human decides the rest.
    Completed,
    /// It ended without a pull request, for a recorded reason.
    Failed,
    /// Somebody stopped it.
    Cancelled,
    /// Its executor fell silent and its lease ran out.
    Lost,
    /// Something of ours that is newer took its place.
    Superseded,
}

impl AttemptState {
    /// Whether nothing can change this state any more.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Created | Self::Started | Self::Candidate | Self::Verified | Self::Published => false,
            Self::Completed | Self::Failed | Self::Cancelled | Self::Lost | Self::Superseded => true,
        }
    }

    /// The word that users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Started => "started",
            Self::Candidate => "candidate",
            Self::Verified => "verified",
            Self::Published => "published",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
            Self::Superseded => "superseded",
        }
    }
}

impl fmt::Display for AttemptState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The part of an attempt in which something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Before the agent: fetching, reading the documents, exporting the tree, checking the base.
    Prepare,
    /// The agent works.
    Agent,
    /// The change is judged by the path rules.
    Gate,
    /// The invariants run.
    Checks,
    /// The candidate is verified again, pushed, and the pull request opened.
    Publish,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Prepare => "prepare",
            Self::Agent => "agent",
            Self::Gate => "gate",
            Self::Checks => "checks",
            Self::Publish => "publish",
        })
    }
}

/// Why an attempt failed. A closed list: a failure that fits nothing else is `Internal`, and a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// The agent changed nothing.
    NoChange,
    /// A changed path is outside what task and scope allow, or is forbidden.
    ScopeViolation,
    /// A changed path is protected: it steers Leviathan, the platform or the checks.
    ProtectedPath,
    /// More files, a larger patch or a larger file than the policy's limits.
    ChangeTooLarge,
    /// An added line holds a secret, or what looks like one.
    SecretFound,
    /// An invariant failed at the candidate, and the rounds are used up.
    InvariantFailed,
    /// An invariant fails before anything was changed.
    InvariantFailedOnBase,
    /// The money, tokens or turns of the attempt are used up.
    BudgetExceeded,
    /// The attempt reached its deadline.
    TimedOut,
    /// The agent repeats itself without progress, or gave up.
    Stuck,
    /// The model declined the task.
    ModelRefusal,
    /// The model's provider cannot be reached or is overloaded.
    ProviderUnavailable,
    /// The provider's own spend limit is reached.
    ProviderSpendLimit,
    /// The sandbox that the configuration demands cannot be had here.
    SandboxUnavailable,
    /// A document or setting is wrong; a human must correct it.
    ConfigInvalid,
    /// The default branch moved in a way that this change cannot follow.
    BaseMovedConflict,
    /// The branch or the pull request could not be made.
    PublishFailed,
    /// Somebody stopped it.
    Cancelled,
    /// The executor fell silent.
    Lost,
    /// A bug of Leviathan, or a machine that failed.
    Internal,
}

/// Who has to act after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Machines and services: tried again by itself, at most [`FailureReason::INFRASTRUCTURE_RETRIES`] times.
    Infrastructure,
    /// The agent's work: tried again up to the policy's `max_attempts`, then the task is parked.
    Agent,
    /// A document or setting: waits for a human.
    Configuration,
    /// A person's decision: never tried again by itself.
    Human,
}

impl FailureReason {
    /// How often a failure of machines or services is followed by another attempt without a human.
    pub const INFRASTRUCTURE_RETRIES: u32 = 3;

    /// Who has to act.
    pub fn class(self) -> FailureClass {
        match self {
            Self::NoChange
            | Self::ScopeViolation
            | Self::ProtectedPath
            | Self::ChangeTooLarge
            | Self::SecretFound
            | Self::InvariantFailed
            | Self::BudgetExceeded
            | Self::TimedOut
            | Self::Stuck
            | Self::ModelRefusal
            | Self::BaseMovedConflict => FailureClass::Agent,
            Self::ProviderUnavailable | Self::PublishFailed | Self::Lost | Self::Internal => {
                FailureClass::Infrastructure
            }
            Self::InvariantFailedOnBase
            | Self::ProviderSpendLimit
            | Self::SandboxUnavailable
            | Self::ConfigInvalid => FailureClass::Configuration,
            Self::Cancelled => FailureClass::Human,
        }
    }

    /// The word that users see and that the log holds.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoChange => "no_change",
            Self::ScopeViolation => "scope_violation",
            Self::ProtectedPath => "protected_path",
            Self::ChangeTooLarge => "change_too_large",
            Self::SecretFound => "secret_found",
            Self::InvariantFailed => "invariant_failed",
            Self::InvariantFailedOnBase => "invariant_failed_on_base",
            Self::BudgetExceeded => "budget_exceeded",
            Self::TimedOut => "timed_out",
            Self::Stuck => "stuck",
            Self::ModelRefusal => "model_refusal",
            Self::ProviderUnavailable => "provider_unavailable",
            Self::ProviderSpendLimit => "provider_spend_limit",
            Self::SandboxUnavailable => "sandbox_unavailable",
            Self::ConfigInvalid => "config_invalid",
            Self::BaseMovedConflict => "base_moved_conflict",
            Self::PublishFailed => "publish_failed",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
            Self::Internal => "internal",
        }
    }

    /// What a human can do about it, in one sentence.
    pub fn next_step(self) -> &'static str {
        match self {
            Self::NoChange => "check that the task still needs work, or describe it more exactly",
            Self::ScopeViolation => {
                "widen allowed_paths in the task and scope if the change is wanted, or narrow the task"
            }
            Self::ProtectedPath => {
                "name the file literally in the task and the scope if it may be changed; what Leviathan never changes, such as links out of the tree and `.git`, the agent must leave alone"
            }
            Self::ChangeTooLarge => "split the task, or raise the limits in policy.yaml",
            Self::SecretFound => {
                "look at the named lines; if they hold no real secret, name the file in allow_secrets of policy.yaml; if they do, replace that secret at its issuer"
            }
            Self::InvariantFailed => {
                "read the log of the failed check, then make the task clearer or fix the check"
            }
            Self::InvariantFailedOnBase => {
                "repair the default branch: this check fails there before any change"
            }
            Self::BudgetExceeded => "raise budget_usd in policy.yaml, or make the task smaller",
            Self::TimedOut => "raise the timeout of the task or the policy, or make the task smaller",
            Self::Stuck => {
                "read what the agent wrote, in the artifacts of the attempt, then make the task clearer or correct the agent's command"
            }
            Self::ModelRefusal => "read the recorded refusal; the task will not be rephrased by itself",
            Self::ProviderUnavailable => "nothing: it is tried again by itself",
            Self::ProviderSpendLimit => "raise the limit at the provider, then resume the target",
            Self::SandboxUnavailable => {
                "give the executor's machine what the sandbox needs; `leviathanctl attempts-show` names the layers that do not hold"
            }
            Self::ConfigInvalid => "run `leviathan check` and correct what it names",
            Self::BaseMovedConflict => "nothing: a later attempt starts from the new base",
            Self::PublishFailed => "check the forge's token and branch rules; it is tried again by itself",
            Self::Cancelled => "invalidate the attempt when the task may run again",
            Self::Lost => "nothing: it is tried again by itself",
            Self::Internal => {
                "nothing: it is tried again by itself; report it with the attempt's `executor.log` if it comes again"
            }
        }
    }
}

impl fmt::Display for FailureReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
