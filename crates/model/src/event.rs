//! What can happen, and the one form in which it is written down.
//!
//! An event is a claim by an actor about a target, a task or an attempt. On the wire and in the log it is flat:
//! `event_id`, `event_type`, `timestamp`, `actor_id`, optionally `target_id`, `task_id`, `attempt_id`, and a
//! `payload` whose fields the type determines. Amounts are integers (milliseconds, bytes, millionths of a
//! dollar), because the log accepts nothing that two readers could spell differently.

mod flat;

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::attempt::{FailureReason, Stage};
use crate::documents::{Priority, Status};
use crate::{ActorId, AttemptId, BranchName, CommitId, Digest, Epoch, EventId, RepoPath, TargetId, TaskId};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The idempotency key.
    pub event_id: EventId,
    /// When the actor says it happened. Order is the log's, never this.
    pub timestamp: Timestamp,
    /// Who says so.
    pub actor_id: ActorId,
    /// What it is about.
    pub subject: Subject,
    /// What happened.
    pub kind: EventKind,
}

/// What an event is about. Its type says which of the ids it must carry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Subject {
    /// The repository.
    pub target_id: Option<TargetId>,
    /// The task of that repository.
    pub task_id: Option<TaskId>,
    /// The attempt at that task.
    pub attempt_id: Option<AttemptId>,
}

impl Subject {
    /// The whole installation.
    pub fn everything() -> Self {
        Self::default()
    }

    /// One target.
    pub fn target(target: &TargetId) -> Self {
        Self { target_id: Some(target.clone()), ..Self::default() }
    }

    /// One task of a target.
    pub fn task(target: &TargetId, task: &TaskId) -> Self {
        Self { task_id: Some(task.clone()), ..Self::target(target) }
    }

    /// One attempt at a task.
    pub fn attempt(target: &TargetId, task: &TaskId, attempt: &AttemptId) -> Self {
        Self { attempt_id: Some(attempt.clone()), ..Self::task(target, task) }
    }
}

/// A moment to the microsecond, in the one spelling `YYYY-MM-DDTHH:MM:SS.ffffffZ`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(jiff::Timestamp);

impl Timestamp {
    /// The moment, cut to whole microseconds.
    pub fn new(moment: jiff::Timestamp) -> Self {
        Self(
            jiff::Timestamp::from_microsecond(moment.as_microsecond())
                .expect("a timestamp cut to microseconds stays in range"),
        )
    }

    /// The moment as jiff knows it.
    pub fn moment(self) -> jiff::Timestamp {
        self.0
    }

    /// How many milliseconds passed from `earlier` to this moment; negative when `earlier` is later.
    pub fn millis_since(self, earlier: Self) -> i64 {
        self.0.as_millisecond() - earlier.0.as_millisecond()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string())
    }
}

/// Text that is not a timestamp.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a timestamp: expected RFC 3339 such as 2026-01-31T12:00:00.000000Z")]
pub struct TimestampError(String);

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        // Nearly every timestamp that is read was written here.
        if let Some(moment) = in_our_spelling(text.as_bytes()) {
            return Ok(Self(moment));
        }
        text.parse()
            .map(Self::new)
            .map_err(|_| TimestampError(text.chars().take(64).flat_map(char::escape_debug).collect()))
    }
}

/// The moment that is written `YYYY-MM-DDTHH:MM:SS.ffffffZ`; `None` for every other spelling, and where there is no such
/// moment.
fn in_our_spelling(text: &[u8]) -> Option<jiff::Timestamp> {
    let text: &[u8; 27] = text.try_into().ok()?;
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (26, b'Z')];
    if marks.iter().any(|(place, mark)| text[*place] != *mark) {
        return None;
    }
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0_i32, |number, digit| {
            digit.is_ascii_digit().then(|| number * 10 + i32::from(digit - b'0'))
        })
    };
    let two = |place: usize| number(&text[place..place + 2]).and_then(|number| i8::try_from(number).ok());
    let year = i16::try_from(number(&text[..4])?).ok()?;
    let date = jiff::civil::Date::new(year, two(5)?, two(8)?).ok()?;
    let time = jiff::civil::Time::new(two(11)?, two(14)?, two(17)?, number(&text[20..26])? * 1_000).ok()?;
    jiff::tz::Offset::UTC.to_timestamp(date.to_datetime(time)).ok()
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl serde::de::Visitor<'_> for Text {
            type Value = Timestamp;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Timestamp, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Text)
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

/// Which ids the subject of an event type must carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectKind {
    /// None, or a target.
    EverythingOrTarget,
    /// A target.
    Target,
    /// A target and a task.
    Task,
    /// A target, a task and an attempt.
    Attempt,
}

/// Declares the closed list of event types: variant, name in the log, subject, payload, and what it means.
macro_rules! event_kinds {
    ($($(#[$doc:meta])* $variant:ident($payload:ty) = $name:literal about $subject:ident;)*) => {
        /// What happened. A closed list; each variant has its payload.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "event_type", content = "payload")]
        pub enum EventKind {
            $($(#[$doc])* #[serde(rename = $name)] $variant($payload),)*
        }

        impl EventKind {
            /// Every event type, in the order of an attempt's life.
            pub const TYPES: &'static [&'static str] = &[$($name),*];

            /// The name in the log.
            pub fn event_type(&self) -> &'static str {
                match self { $(Self::$variant(_) => $name,)* }
            }

            /// The place of its name in [`Self::TYPES`].
            pub fn type_place(&self) -> usize {
                enum Place { $($variant,)* }
                match self { $(Self::$variant(_) => Place::$variant as usize,)* }
            }

            /// Reads the payload of an event of the type `name`.
            fn of_type<'de, D: Deserializer<'de>>(name: &str, payload: D) -> Result<Self, D::Error> {
                match name {
                    $($name => <$payload>::deserialize(payload).map(Self::$variant),)*
                    other => Err(serde::de::Error::custom(EventError::UnknownType(other.to_owned()))),
                }
            }

            fn serialize_payload<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self { $(Self::$variant(payload) => payload.serialize(serializer),)* }
            }

            /// Which ids the subject must carry.
            pub fn subject_kind(&self) -> SubjectKind {
                match self { $(Self::$variant(_) => SubjectKind::$subject,)* }
            }
        }
    };
}

event_kinds! {
    /// A human registered a target, or registered it anew with other documents.
    TargetRegistered(TargetRegistered) = "target.registered" about Target;
    /// A human took a target out of operation: nothing more of it is claimed. Registering it again revives it.
    TargetUnregistered(Reason) = "target.unregistered" about Target;
    /// A registration was not accepted; what was registered before stays.
    TargetRejected(TargetRejected) = "target.rejected" about EverythingOrTarget;
    /// A task appeared in the backlog.
    TaskCreated(TaskFacts) = "task.created" about Task;
    /// A human changed a task in the backlog.
    TaskUpdated(TaskFacts) = "task.updated" about Task;
    /// A task's pull request was merged, or a human marked it completed.
    TaskCompleted(TaskCompleted) = "task.completed" about Task;
    /// A human marked a task blocked.
    TaskBlocked(TaskBlocked) = "task.blocked" about Task;
    /// A human took a task out of the backlog.
    TaskRemoved(TaskRemoved) = "task.removed" about Task;
    /// A scheduler claimed a task: everything the attempt depends on is pinned here.
    AttemptCreated(AttemptCreated) = "attempt.created" about Attempt;
    /// The attempt was handed to an executor. Older epochs are fenced from here on.
    AttemptClaimed(AttemptClaimed) = "attempt.claimed" about Attempt;
    /// The launcher made the Job whose pod is to execute the attempt.
    AttemptLaunched(AttemptLaunched) = "attempt.launched" about Attempt;
    /// The executor began.
    AttemptStarted(AttemptStarted) = "attempt.started" about Attempt;
    /// Which sandbox layers hold for this attempt.
    SandboxReported(SandboxReported) = "sandbox.reported" about Attempt;
    /// What commands of this attempt asked of the network.
    NetworkReported(NetworkReported) = "network.reported" about Attempt;
    /// The agent ended a round.
    AgentFinished(AgentFinished) = "agent.finished" about Attempt;
    /// The path rules refused the change.
    PolicyViolated(PolicyViolated) = "policy.violated" about Attempt;
    /// The path rules permitted the change; its commit is the candidate.
    ChangePermitted(ChangePermitted) = "change.permitted" about Attempt;
    /// An invariant passed.
    InvariantPassed(InvariantChecked) = "invariant.passed" about Attempt;
    /// An invariant failed.
    InvariantFailed(InvariantChecked) = "invariant.failed" about Attempt;
    /// Every invariant passed at the candidate commit.
    ChangeVerified(ChangeVerified) = "change.verified" about Attempt;
    /// A file that belongs to the attempt was stored.
    ArtifactStored(ArtifactStored) = "artifact.stored" about Attempt;
    /// Publishing waits for the forge; nothing is lost.
    PublishParked(PublishParked) = "publish.parked" about Attempt;
    /// The branch of the attempt is on the forge.
    BranchPushed(BranchPushed) = "branch.pushed" about Attempt;
    /// The pull request is open.
    PrCreated(PrCreated) = "pr.created" about Attempt;
    /// The executor is done; a human decides about the pull request.
    AttemptCompleted(AttemptCompleted) = "attempt.completed" about Attempt;
    /// A human reviewed the pull request.
    PrReviewed(PrReviewed) = "pr.reviewed" about Attempt;
    /// A human changed the branch or the base of the pull request: Leviathan keeps its hands off it.
    PrHumanOwned(PrHumanOwned) = "pr.human_owned" about Attempt;
    /// A human merged the pull request.
    PrMerged(PrMerged) = "pr.merged" about Attempt;
    /// A human closed the pull request without merging it.
    PrClosed(PrClosed) = "pr.closed" about Attempt;
    /// The attempt ended without a pull request.
    AttemptFailed(AttemptFailed) = "attempt.failed" about Attempt;
    /// Somebody stopped the attempt.
    AttemptCancelled(Reason) = "attempt.cancelled" about Attempt;
    /// The executor fell silent and its lease ran out, or its process is gone.
    AttemptLost(Reason) = "attempt.lost" about Attempt;
    /// Something newer of ours took the attempt's place.
    AttemptSuperseded(Reason) = "attempt.superseded" about Attempt;
    /// A human declared the attempt void; the task may run again.
    AttemptInvalidated(Reason) = "attempt.invalidated" about Attempt;
    /// The completion was written back to backlog.yaml, or why it was not.
    BacklogUpdated(BacklogUpdated) = "backlog.updated" about Task;
    /// A human stopped new attempts, everywhere or for one target.
    SchedulerPaused(Reason) = "scheduler.paused" about EverythingOrTarget;
    /// A human let new attempts run again.
    SchedulerResumed(Reason) = "scheduler.resumed" about EverythingOrTarget;
}

/// Why a person or a process did what it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// In words, for people.
    pub reason: String,
}

/// The documents of a target as its humans registered them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetRegistered {
    /// The name for people.
    pub name: String,
    /// Where the repository is.
    pub repo_url: String,
    /// The branch whose documents are the authority and that pull requests aim at.
    pub default_branch: String,
    /// contract.yaml, as registered.
    pub contract: String,
    /// The operator's own policy.yaml, which can only tighten the repository's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_policy: Option<String>,
    /// backlog.yaml, as registered: used only while the repository holds none, and never written back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog: Option<String>,
    /// The image in which the agent and the checks of its attempts run, where attempts are pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor_image: Option<String>,
    /// Where a scheduler found the registration, such as `configmap/NAME`; absent when a human sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// A registration that was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetRejected {
    /// Where the documents came from: a file or a ConfigMap.
    pub source: String,
    /// SHA-256 of what was found there, so that the same is recorded once.
    pub digest: Digest,
    /// Why it was not accepted, each with its place.
    pub problems: Vec<String>,
}

/// What the log keeps of a task: enough to select, to show and to explain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskFacts {
    /// SHA-256 of the task without its status: editing the task makes a new revision.
    pub revision: Digest,
    /// The commit of the default branch at which the backlog was read.
    pub commit: CommitId,
    /// What is to be done.
    pub title: String,
    /// The scope of the policy that applies.
    pub scope: String,
    /// How urgent the humans find it.
    pub priority: Priority,
    /// Where the task stands in the file, counted from 0.
    pub position: u32,
    /// What the humans wrote.
    pub status: Status,
    /// `blocked_reason` of the backlog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_reason: Option<String>,
    /// The tasks that must be completed first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<TaskId>,
    /// The task's own path patterns, as the humans wrote them.
    pub allowed_paths: Vec<String>,
    /// How many failures of the agent's work park the task.
    pub max_attempts: u32,
    /// Who does the work, if the humans said so: `claude`, or `command: …`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
}

/// Why a task counts as completed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskCompleted {
    /// The attempt whose pull request was merged; absent when a human wrote `completed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt_id: Option<AttemptId>,
}

/// Why a human blocked a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskBlocked {
    /// `blocked_reason` of the backlog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Where a task was found missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskRemoved {
    /// The commit of the default branch whose backlog no longer has it.
    pub commit: CommitId,
}

/// What an attempt was claimed with. None of it changes afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttemptCreated {
    /// Counts the attempts at this task, from 1.
    pub n: u32,
    /// The revision of the task.
    pub task_revision: Digest,
    /// The commit of the default branch that the attempt starts from and whose documents it obeys.
    pub base_commit: CommitId,
    /// The branch it will push.
    pub branch: BranchName,
    /// SHA-256 of contract.yaml.
    pub contract_digest: Digest,
    /// SHA-256 of policy.yaml.
    pub policy_digest: Digest,
    /// SHA-256 of the operator's policy, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_policy_digest: Option<Digest>,
    /// Who does the work: `claude`, or `command: …`.
    pub agent: String,
    /// The model, when the agent is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The version of Leviathan that claimed it.
    pub version: String,
    /// How many seconds the whole attempt may take.
    pub timeout_seconds: u64,
    /// What its agent may spend, in millionths of a US dollar; absent when nobody is paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_micro_usd: Option<u64>,
}

/// Who the attempt was handed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttemptClaimed {
    /// One more than the last time.
    pub epoch: Epoch,
    /// `worktree` or `kubernetes`.
    pub launcher: String,
}

/// The Job that was made for an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttemptLaunched {
    /// The epoch it was made for.
    pub epoch: Epoch,
    /// The name of the Job.
    pub name: String,
    /// Its uid: a Job of the same name that was made later has another.
    pub uid: String,
}

/// Which executor began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttemptStarted {
    /// The epoch it was handed.
    pub epoch: Epoch,
    /// The executor for people: a host and process, or a Job.
    pub executor: String,
}

/// Which layers of the sandbox hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SandboxReported {
    /// `strict`, `standard` or `none`.
    pub profile: String,
    /// Every layer that Leviathan knows, whether it holds or not.
    pub layers: Vec<SandboxLayer>,
}

/// One layer of the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SandboxLayer {
    /// Its name.
    pub name: String,
    /// Whether it holds here.
    pub holds: bool,
    /// What it does, or why it does not hold.
    pub detail: String,
}

/// What commands asked of the network since the last report, and what the proxy answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkReported {
    /// Requests of the same kind for the same place with the same answer are one entry.
    pub requests: Vec<NetworkRequest>,
    /// How many further requests had no place in the list.
    #[serde(default)]
    pub omitted: u64,
}

/// Requests for one place that were answered alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkRequest {
    /// Whose commands asked.
    pub used_by: NetworkUse,
    /// The host's name or address as it was asked for, in lower case.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What was answered.
    pub answer: NetworkAnswer,
    /// How often.
    pub count: u64,
    /// Bytes that went to the host.
    pub sent_bytes: u64,
    /// Bytes that came from it.
    pub received_bytes: u64,
}

/// Whose commands use the network, in the words of a policy's `network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkUse {
    /// The agent's.
    Agent,
    /// Those of the policy's `setup`.
    Setup,
    /// The checks.
    Checks,
}

/// What the proxy answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum NetworkAnswer {
    /// The host was reached.
    Connected,
    /// The policy does not name the host.
    NotPermitted,
    /// A policy opens port 443 alone.
    PortNotPermitted,
    /// The name leads to this machine, a private network or a cloud's metadata.
    AddressNotPermitted,
    /// Nobody knows an address of the host.
    Unknown,
    /// The host does not answer.
    Unreachable,
}

impl fmt::Display for NetworkUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Agent => "agent",
            Self::Setup => "setup",
            Self::Checks => "checks",
        })
    }
}

impl fmt::Display for NetworkAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connected => "connected",
            Self::NotPermitted => "not permitted by the policy",
            Self::PortNotPermitted => "not permitted at this port",
            Self::AddressNotPermitted => "not permitted at its address",
            Self::Unknown => "has no address",
            Self::Unreachable => "did not answer",
        })
    }
}

/// What one round of the agent's work came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentFinished {
    /// Counted from 1.
    pub round: u32,
    /// The agent's own words. A claim, never evidence.
    pub summary: String,
    /// How long the round took, in milliseconds.
    pub duration_ms: u64,
    /// What the round cost.
    pub usage: Usage,
}

/// What a model was paid for. All zero for an agent that is no model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Tokens read without a cache.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Tokens read from the cache.
    pub cache_read_tokens: u64,
    /// Tokens put into the cache.
    pub cache_write_tokens: u64,
    /// Requests to the model, failed ones included.
    pub turns: u32,
    /// Millionths of a US dollar.
    pub cost_micro_usd: u64,
}

impl std::ops::AddAssign<&Usage> for Usage {
    fn add_assign(&mut self, other: &Usage) {
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.cache_read_tokens += other.cache_read_tokens;
        self.cache_write_tokens += other.cache_write_tokens;
        self.turns += other.turns;
        self.cost_micro_usd += other.cost_micro_usd;
    }
}

/// Why the path rules refused a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyViolated {
    /// Counted from 1.
    pub round: u32,
    /// The refused paths, as many as fit into an event.
    pub violations: Vec<ViolationRecord>,
    /// How many more there were; the artifact `round-<n>/changes.json` names all of them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub omitted: u64,
}

/// One refused path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ViolationRecord {
    /// The path, with control characters escaped. It may be a name that no platform should hold.
    pub path: String,
    /// The kind of violation, in one word.
    pub kind: String,
    /// The rule that forbade it, with its file and line, when a written rule did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The whole refusal in words.
    pub message: String,
}

/// What was permitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangePermitted {
    /// Counted from 1.
    pub round: u32,
    /// The commit that holds exactly this change, on the attempt's base.
    pub candidate: CommitId,
    /// The changed files, as many as fit into an event.
    pub files: Vec<FileRecord>,
    /// How many more there were; the artifact `round-<n>/changes.json` names all of them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub omitted: u64,
    /// The size of the change as a patch, in bytes.
    pub patch_bytes: u64,
    /// How many new files in the agent's tree are no part of the change because the base commit's own
    /// `.gitignore` files name them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ignored_files: u64,
}

/// One changed file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileRecord {
    /// Which file.
    pub path: RepoPath,
    /// `added`, `modified`, `deleted` or `mode`.
    pub change: String,
    /// Lines that were added; 0 for a binary file.
    pub added_lines: u64,
    /// Lines that were removed; 0 for a binary file.
    pub removed_lines: u64,
    /// The rules that permitted it, each with its file and line.
    pub rule: String,
}

/// What one run of an invariant showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InvariantChecked {
    /// Counted from 1; 0 is the run on the base commit before the agent began.
    pub round: u32,
    /// The name in policy.yaml.
    pub name: String,
    /// The command.
    pub check: String,
    /// The commit whose clean export it ran in.
    pub commit: CommitId,
    /// What happened, in words: `passed`, `exit code 1`, `timed out after 600 s`, …
    pub outcome: String,
    /// How long it ran, in milliseconds.
    pub duration_ms: u64,
    /// SHA-256 of its whole output.
    pub log: Digest,
    /// The size of its output, in bytes.
    pub log_bytes: u64,
}

/// Which candidate may be published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeVerified {
    /// The candidate commit.
    pub candidate: CommitId,
    /// SHA-256 of the candidate's manifest.
    pub manifest: Digest,
}

/// A stored file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArtifactStored {
    /// Its content's name.
    pub sha256: Digest,
    /// What it is called: `transcript.jsonl`, `checks/tests-pass.log`.
    pub name: String,
    /// `log`, `transcript`, `patch` or `manifest`.
    pub kind: String,
    /// Its size in bytes.
    pub size: u64,
}

/// Why publishing waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishParked {
    /// What the forge said.
    pub reason: String,
    /// The forge is not asked again before this moment.
    pub not_before: Timestamp,
}

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BranchPushed {
    /// The branch.
    pub branch: BranchName,
    /// Its commit: the verified candidate.
    pub commit: CommitId,
}

/// An open pull request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrCreated {
    /// Its number on the forge.
    pub number: u64,
    /// Where people see it.
    pub url: String,
    /// Its branch.
    pub branch: BranchName,
    /// The commit it was opened with.
    pub commit: CommitId,
    /// Its title.
    pub title: String,
}

/// The sum of an attempt that reached its pull request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttemptCompleted {
    /// From its start, in milliseconds.
    pub duration_ms: u64,
    /// What all rounds cost.
    pub usage: Usage,
}

/// A review of a pull request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrReviewed {
    /// Which pull request.
    pub number: u64,
    /// Who reviewed it, as the forge names people.
    pub by: String,
    /// `approved`, `changes_requested`, `commented` or `dismissed`.
    pub verdict: String,
}

/// Why a pull request belongs to humans now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrHumanOwned {
    /// Which pull request.
    pub number: u64,
    /// What a human did to it.
    pub reason: String,
}

/// A merged pull request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrMerged {
    /// Which pull request.
    pub number: u64,
    /// Who merged it, as the forge names people.
    pub by: String,
    /// The commit by which it entered the default branch.
    pub commit: CommitId,
    /// Who approved it.
    pub approved_by: Vec<String>,
}

/// A pull request that was closed without a merge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrClosed {
    /// Which pull request.
    pub number: u64,
    /// Who closed it, as far as the forge tells.
    pub by: String,
}

/// Why and where an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttemptFailed {
    /// In which part.
    pub stage: Stage,
    /// Why, from the closed list.
    pub reason: FailureReason,
    /// What exactly, in words.
    pub detail: String,
    /// What the attempt cost until then.
    #[serde(default)]
    pub usage: Usage,
}

/// What became of a write-back to backlog.yaml.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BacklogUpdated {
    /// What was done.
    pub outcome: WriteBackOutcome,
    /// The attempt whose merge caused it.
    pub attempt_id: AttemptId,
    /// The commit that holds the edit, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<CommitId>,
    /// What exactly, in words.
    pub detail: String,
}

/// How a completion reached backlog.yaml.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WriteBackOutcome {
    /// One commit on the default branch.
    Committed,
    /// The file said so already.
    AlreadyDone,
    /// The default branch takes no direct commits: a pull request waits for a human.
    PullRequest,
    /// A human changed or removed the task meanwhile; nothing was edited.
    Skipped,
}

/// An event that cannot be: an unknown type, a payload that does not fit, a missing or superfluous id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The type is not on the list.
    #[error("`{0}` is not an event type")]
    UnknownType(String),
    /// The payload does not fit the type.
    #[error("the payload of {event_type} does not fit: {problem}")]
    Payload {
        /// The event's type.
        event_type: String,
        /// What does not fit.
        problem: String,
    },
    /// The subject does not fit the type.
    #[error("{event_type} must carry {expected}")]
    Subject {
        /// The event's type.
        event_type: &'static str,
        /// Which ids it must carry.
        expected: &'static str,
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn check_subject(kind: &EventKind, subject: &Subject) -> Result<(), EventError> {
    let present = (subject.target_id.is_some(), subject.task_id.is_some(), subject.attempt_id.is_some());
    let (fits, expected) = match kind.subject_kind() {
        SubjectKind::EverythingOrTarget => (!present.1 && !present.2, "no task_id and no attempt_id"),
        SubjectKind::Target => (present == (true, false, false), "target_id alone"),
        SubjectKind::Task => (present == (true, true, false), "target_id and task_id"),
        SubjectKind::Attempt => (present == (true, true, true), "target_id, task_id and attempt_id"),
    };
    if fits { Ok(()) } else { Err(EventError::Subject { event_type: kind.event_type(), expected }) }
}

impl JsonSchema for Event {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Event".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "One thing that happened. The fields of `payload` depend on `event_type`.",
            "properties": {
                "event_id": generator.subschema_for::<EventId>(),
                "event_type": { "enum": EventKind::TYPES },
                "timestamp": generator.subschema_for::<Timestamp>(),
                "actor_id": generator.subschema_for::<ActorId>(),
                "target_id": generator.subschema_for::<TargetId>(),
                "task_id": generator.subschema_for::<TaskId>(),
                "attempt_id": generator.subschema_for::<AttemptId>(),
                "payload": { "type": "object" },
            },
            "required": ["event_id", "event_type", "timestamp", "actor_id", "payload"],
            "additionalProperties": false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn wire(event_type: &str, subject: Value, payload: Value) -> Value {
        let mut event = json!({
            "event_id": "e1", "event_type": event_type, "timestamp": "2026-01-01T00:00:00Z",
            "actor_id": "operator", "payload": payload,
        });
        for (key, value) in subject.as_object().unwrap() {
            event[key] = value.clone();
        }
        event
    }

    #[test]
    fn an_event_is_flat_on_the_wire_and_survives_the_way_there_and_back() {
        let given = wire(
            "attempt.cancelled",
            json!({ "target_id": "shop", "task_id": "task-001", "attempt_id": "attempt-abc123" }),
            json!({ "reason": "Emergency stop" }),
        );
        let event: Event = serde_json::from_value(given).unwrap();
        assert_eq!(
            serde_json::to_value(&event).unwrap(),
            json!({
                "event_id": "e1", "event_type": "attempt.cancelled", "timestamp": "2026-01-01T00:00:00.000000Z",
                "actor_id": "operator", "target_id": "shop", "task_id": "task-001",
                "attempt_id": "attempt-abc123", "payload": { "reason": "Emergency stop" },
            })
        );
    }

    #[test]
    fn what_does_not_fit_its_type_is_named() {
        let attempt = json!({ "target_id": "shop", "task_id": "t", "attempt_id": "attempt-a" });
        let rows = [
            (wire("task.invented", attempt.clone(), json!({})), "`task.invented` is not an event type"),
            (
                wire("attempt.cancelled", json!({}), json!({ "reason": "x" })),
                "must carry target_id, task_id and attempt_id",
            ),
            (wire("scheduler.paused", attempt.clone(), json!({ "reason": "x" })), "must carry no task_id"),
            (wire("attempt.cancelled", attempt.clone(), json!({ "why": "x" })), "unknown field `why`"),
            (wire("attempt.cancelled", attempt.clone(), json!({})), "missing field `reason`"),
            (wire("attempt.cancelled", attempt.clone(), json!(null)), "invalid type: null"),
            (wire("attempt.cancelled", attempt.clone(), json!(["x"])), "invalid type: sequence"),
            (
                wire("attempt.cancelled", json!({ "target_id": "../x" }), json!({ "reason": "x" })),
                "is not a target id",
            ),
        ];
        for (event, expected) in rows {
            let error = serde_json::from_value::<Event>(event).unwrap_err().to_string();
            assert!(error.contains(expected), "{error} should contain {expected}");
        }
    }

    #[test]
    fn members_come_in_any_order_and_none_twice() {
        let rest = r#""event_id":"e1","timestamp":"2026-01-01T00:00:00Z","actor_id":"operator""#;
        let (kind, payload) = (r#""event_type":"scheduler.paused""#, r#""payload":{"reason":"x"}"#);
        let read = |members: &[&str]| serde_json::from_str::<Event>(&format!("{{{}}}", members.join(",")));
        assert_eq!(read(&[kind, payload, rest]).unwrap(), read(&[payload, rest, kind]).unwrap());
        assert_eq!(
            read(&[kind, payload, rest, r#""target_id":null"#]).unwrap(),
            read(&[kind, payload, rest]).unwrap()
        );
        for (members, expected) in [
            (&[kind, payload, rest, payload][..], "duplicate field `payload`"),
            (&[kind, rest], "missing field `payload`"),
            (&[payload, rest], "missing field `event_type`"),
            (&[payload, kind], "missing field `event_id`"),
            (&[kind, payload, rest, r#""more":1"#], "unknown field `more`"),
            (
                &[r#""payload":{"why":"x"}"#, kind, rest],
                "the payload of scheduler.paused does not fit: unknown field `why`",
            ),
            (
                &[kind, r#""payload":{"why":"x"}"#, rest],
                "the payload of scheduler.paused does not fit: unknown field `why`",
            ),
        ] {
            let error = read(members).unwrap_err().to_string();
            assert!(error.contains(expected), "{error} should contain {expected}");
        }
        assert!(serde_json::from_str::<Event>("[]").is_err());
    }

    #[test]
    fn the_events_of_the_specification_keep_their_names() {
        let specified = [
            "task.created",
            "attempt.created",
            "attempt.started",
            "attempt.completed",
            "pr.created",
            "pr.merged",
            "attempt.failed",
        ];
        for name in specified {
            assert!(EventKind::TYPES.contains(&name), "{name}");
        }
    }

    #[test]
    fn timestamps_have_one_spelling() {
        for text in ["2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00.0000004Z"] {
            assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), "2026-01-01T00:00:00.000000Z");
        }
        assert!("yesterday".parse::<Timestamp>().is_err());
    }

    proptest::proptest! {
        #[test]
        fn our_own_spelling_is_read_as_every_other(micros in -60_000_000_000_000_000_i64..250_000_000_000_000_000, at in 0..27_usize, to in b' '..b'~') {
            let timestamp = Timestamp::new(jiff::Timestamp::from_microsecond(micros).unwrap());
            let mut text = timestamp.to_string();
            proptest::prop_assert_eq!(text.parse::<Timestamp>(), Ok(timestamp));
            // Whatever else is accepted is what the general reader makes of it.
            text.replace_range(at..=at, &char::from(to).to_string());
            if let Some(moment) = in_our_spelling(text.as_bytes()) {
                proptest::prop_assert_eq!(Ok(moment), text.parse::<jiff::Timestamp>().map_err(|_| ()));
            }
        }
    }
}
