//! Requests and responses, as they stand in JSON.

use std::collections::BTreeMap;

use model::event::{
    ArtifactStored, ChangePermitted, InvariantChecked, NetworkRequest, Reason, SandboxReported, Timestamp,
    Usage, ViolationRecord,
};
use model::graph::{Failure, Invalidation, Pause, PullRequest, Unregistration};
use model::select::TargetLimits;
use model::{
    ActorId, AttemptId, AttemptState, BranchName, CommitId, Digest, Epoch, Event, EventId, Seq, TargetId,
    TaskId,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET /healthz`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// `ok`
    pub status: String,
    /// The version that answers.
    pub version: String,
    /// Its clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
}

/// `GET /readyz`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Readiness {
    /// `ready`, or `read_only` once the event store takes no writes any more.
    pub status: String,
    /// The backend of the event store.
    pub backend: String,
    /// The seq of the last event.
    pub head: u64,
    /// Up to which seq the hash chain was verified since the start.
    pub verified_to: u64,
    /// `ready`, or `unreachable` while the bucket of the artifacts does not answer: then requests for artifacts fail
    /// with 503 and everything else goes on.
    #[serde(default)]
    pub artifacts: String,
    /// `signed`, or `late` once events wait for a signed checkpoint longer than half a minute: they are recorded, and
    /// whoever keeps checkpoints cannot hold the log to them yet. `none` of a log that is not signed.
    #[serde(default)]
    pub checkpoints: String,
    /// Why checkpoints are late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoints_late: Option<String>,
}

/// `POST /v1/events/ingest`: all of the events or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IngestRequest {
    /// A name for the bundle, for the log of the control plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle_id: Option<String>,
    /// In the order in which they happened.
    pub events: Vec<Event>,
}

/// What became of a bundle. An answer means that it is durable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IngestResponse {
    /// `ok`
    pub status: String,
    /// How many were recorded now.
    pub ingested: u64,
    /// How many were recorded before, by the same id and body.
    pub duplicates: u64,
    /// The seq of each event, in the order of the request.
    pub seqs: Vec<Seq>,
    /// The seq of the last event in the log.
    pub head: u64,
}

/// An event with its place in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RecordedEvent {
    /// Its place.
    pub seq: Seq,
    /// Its hash, which covers everything before it.
    pub hash: Digest,
    /// The hash of the event before it.
    pub prev_hash: Digest,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// The filters of `GET /v1/events`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Only events after this seq.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// At most so many; 1000 unless said, at most 5000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// The newest instead of the oldest that fit; the answer is in order all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<bool>,
    /// Only of this target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetId>,
    /// Only of this task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// Only of this attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<AttemptId>,
    /// Only of this type.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// Only with a timestamp not before this. A timestamp is what its sender claims; the order of the log is seq.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Only with a timestamp before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// `GET /v1/events`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EventsPage {
    /// In the order of the log.
    pub events: Vec<RecordedEvent>,
    /// Ask for events after this seq next.
    pub next_after: u64,
    /// The seq of the last event in the log.
    pub head: u64,
}

/// Which checkpoint `GET /v1/log/checkpoint` answers.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckpointQuery {
    /// `true`: the newest that the witness cosigned, which may be older than the newest; 404 if there is none. Otherwise
    /// the newest, with the line of the witness below if it cosigned that one.
    pub witnessed: Option<bool>,
}

/// What `GET /v1/log/proof` is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProofQuery {
    /// The event. It must be given.
    pub event_id: EventId,
}

/// The two sizes of `GET /v1/log/consistency`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsistencyQuery {
    /// The size of the earlier log. It must be given.
    pub old: u64,
    /// The size of the later log, not above that of the newest checkpoint. It must be given.
    pub new: u64,
}

/// Which records `GET /v1/log/entries` answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogEntriesQuery {
    /// The seq of the first; 1 unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// At most so many; 1000 unless said, at most 5000. May be fewer, but none only when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// `GET /v1/graph/summary`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GraphSummary {
    /// How many targets, tasks, attempts, artifacts and pull requests there are.
    pub nodes_by_type: BTreeMap<String, u64>,
    /// How they hang together.
    pub edges_by_type: BTreeMap<String, u64>,
    /// Attempts by their state.
    pub attempts_by_state: BTreeMap<String, u64>,
    /// What all ended rounds of agents cost, in millionths of a US dollar.
    pub cost_micro_usd: u64,
    /// Whether everything is paused, and why.
    pub pause: Option<Pause>,
    /// The seq of the last event.
    pub head: u64,
    /// The newest events, newest first, at most 20.
    pub recent_events: Vec<RecordedEvent>,
}

/// The filters of `GET /v1/attempts` and `GET /v1/failures`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AttemptsQuery {
    /// Only of this target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetId>,
    /// Only of this task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// Only those whose id begins or ends so; `attempt-` may be left out. At least one character.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Only in this state; `live` for all that are not terminal, `invalidated` for those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// At most so many; 10 unless said, at most 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

impl AttemptsQuery {
    /// What `status` may say: the states of an attempt, and what people ask for beside them.
    pub const STATUSES: [&'static str; 12] = [
        "live",
        "created",
        "started",
        "candidate",
        "verified",
        "published",
        "completed",
        "failed",
        "cancelled",
        "lost",
        "superseded",
        "invalidated",
    ];
}

/// `GET /v1/attempts`: newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptList {
    /// The attempts that fit.
    pub attempts: Vec<AttemptView>,
    /// How many of them are listed.
    pub count: u64,
    /// How many fit in all.
    pub total: u64,
}

/// One attempt at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptView {
    /// Its id.
    pub attempt_id: AttemptId,
    /// Its task.
    pub task_id: TaskId,
    /// The task's title.
    pub title: String,
    /// Its target.
    pub target: TargetId,
    /// Counts the attempts at the task, from 1.
    pub n: u32,
    /// The word for people: the state, or `invalidated`.
    pub status: String,
    /// Where it stands.
    pub state: AttemptState,
    /// How often it was handed to an executor.
    pub epoch: Epoch,
    /// Which launcher has it.
    pub launcher: Option<String>,
    /// Who does the work.
    pub agent: String,
    /// When it was claimed.
    pub timestamp: Timestamp,
    /// When an executor first began.
    pub started_at: Option<Timestamp>,
    /// When it reached a terminal state.
    pub ended_at: Option<Timestamp>,
    /// For how many more milliseconds its executor counts as alive; absent when nothing is expected of one.
    /// 0 when the lease has run out.
    pub lease_remaining_ms: Option<u64>,
    /// What its executor says it is at, in one line for people; absent when nothing is expected of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity: Option<String>,
    /// When publishing may be tried again, while it is parked.
    pub publish_not_before: Option<Timestamp>,
    /// The commit it started from.
    pub base_commit: CommitId,
    /// Its branch.
    pub branch: BranchName,
    /// The commit that was last permitted.
    pub candidate: Option<CommitId>,
    /// Whether its branch is on the forge.
    pub is_pushed: bool,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// Its pull request.
    pub pull_request: Option<PullRequest>,
    /// Where people see the pull request.
    pub pr_url: Option<String>,
    /// The number of the pull request on the forge.
    pub pr_number: Option<u64>,
    /// That and why a human declared it void.
    pub invalidated: Option<Invalidation>,
    /// What its rounds cost.
    pub usage: Usage,
}

/// `GET /v1/attempts/{id}`: what it touched, who allowed it, what was checked, what it cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AttemptDetail {
    /// At a glance.
    pub attempt: AttemptView,
    /// The change that was last permitted, file by file with the rule that permitted each.
    pub change: Option<ChangePermitted>,
    /// The refused paths of the last round that was refused.
    pub violations: Vec<ViolationRecord>,
    /// How many more there were than an event holds; the artifact `round-<n>/changes.json` names all of them.
    #[serde(default)]
    pub violations_omitted: u64,
    /// Every run of an invariant, oldest first; `passed` says how it ended.
    pub checks: Vec<CheckView>,
    /// The sandbox it ran in.
    pub sandbox: Option<SandboxReported>,
    /// What its commands asked of the network, oldest report first.
    #[serde(default)]
    pub network: Vec<NetworkRequest>,
    /// How many further requests the reports had no place for.
    #[serde(default)]
    pub network_omitted: u64,
    /// What the agent said at the end of each round. Claims, never evidence.
    pub agent_notes: Vec<String>,
    /// Its stored files.
    pub artifacts: Vec<ArtifactStored>,
    /// SHA-256 of the policy it obeys.
    pub policy_digest: Digest,
    /// Everything that was recorded about it, oldest first.
    pub events: Vec<RecordedEvent>,
}

/// One run of an invariant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CheckView {
    /// Whether it passed.
    pub passed: bool,
    /// What it showed.
    #[serde(flatten)]
    pub check: InvariantChecked,
}

/// `GET /v1/failures`: newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FailureList {
    /// The failures that fit.
    pub failures: Vec<FailureView>,
    /// How many of them are listed.
    pub count: u64,
}

/// One failure at a glance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FailureView {
    /// The attempt that failed.
    pub attempt_id: AttemptId,
    /// Its task.
    pub task_id: TaskId,
    /// Its target.
    pub target: TargetId,
    /// The reason and its words in one line.
    pub error: String,
    /// Where and why, from the closed list.
    pub failure: Failure,
    /// What a human can do about it.
    pub next_step: String,
    /// When.
    pub timestamp: Timestamp,
}

/// `POST /v1/targets`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterTarget {
    /// contract.yaml, as text.
    pub contract: String,
    /// The operator's own policy.yaml, which can only tighten the repository's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_policy: Option<String>,
    /// backlog.yaml, for a repository that has none of its own. Nothing is written back to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog: Option<String>,
    /// The image in which agents and checks run, for launchers that have images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor_image: Option<String>,
    /// Where a scheduler found it; absent when a human sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Who registers it; `operator` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_id: Option<ActorId>,
}

impl RegisterTarget {
    /// The registration of a contract and nothing else, by a human.
    pub fn of_contract(contract: String) -> Self {
        Self {
            contract,
            operator_policy: None,
            backlog: None,
            executor_image: None,
            source: None,
            actor_id: None,
        }
    }
}

/// `POST /v1/targets/rejected`: a scheduler found a registration that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RejectTarget {
    /// Where it was found, such as `configmap/NAME`.
    pub source: String,
    /// The target that it names, if it names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_id: Option<TargetId>,
    /// SHA-256 of what was found there.
    pub digest: Digest,
    /// What is wrong with it.
    pub problems: Vec<String>,
    /// Which scheduler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_id: Option<ActorId>,
}

/// `POST /v1/scheduler/passes`: somebody asked for a pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PassRequested {
    /// The number of the request, counted from the control plane's start.
    pub number: u64,
}

/// The question of `GET /v1/scheduler/passes`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PassesQuery {
    /// Answer when another pass was requested than this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_after: Option<u64>,
    /// Answer when a pass was made for this request or a later one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_from: Option<u64>,
    /// Answer after so many milliseconds in any case; at once unless said, at most 30000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// `GET /v1/scheduler/passes`. Kept in memory, no event: what a pass does is in the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Passes {
    /// The number of the last request.
    pub requested: u64,
    /// The number of the last request for which a pass was made.
    pub done: u64,
    /// What a scheduler said of its last pass; absent when none made one since the control plane started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<PassReport>,
}

/// `PUT /v1/scheduler/passes`: a scheduler made a pass that began after that request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PassReport {
    /// The number of the last request before the pass began; 0 when nobody asked.
    pub number: u64,
    /// Which scheduler.
    pub by: ActorId,
    /// When the pass ended.
    pub at: Timestamp,
    /// How many executors it started.
    pub launched: u64,
    /// What kept targets or attempts from going on.
    pub problems: Vec<String>,
}

/// `POST /v1/targets`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TargetRegisteredResponse {
    /// The target that the contract names.
    pub target_id: TargetId,
    /// Whether anything was recorded: `false` when it was registered with the same documents already.
    pub changed: bool,
}

/// `GET /v1/targets`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TargetList {
    /// By id.
    pub targets: Vec<TargetView>,
}

/// One target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TargetView {
    /// Its id.
    pub target_id: TargetId,
    /// Its name for people.
    pub name: String,
    /// Where the repository is.
    pub repo_url: String,
    /// The branch whose documents are the authority.
    pub default_branch: String,
    /// When it was last registered.
    pub registered_at: Timestamp,
    /// contract.yaml, as registered.
    pub contract: String,
    /// The operator's own policy.
    pub operator_policy: Option<String>,
    /// backlog.yaml as registered, for a repository that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog: Option<String>,
    /// The image in which agents and checks run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor_image: Option<String>,
    /// Where a scheduler found the registration; absent when a human sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// That and why it is registered no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unregistered: Option<Unregistration>,
    /// Whether its attempts are paused, and why.
    pub pause: Option<Pause>,
    /// Attempts under way.
    pub live_attempts: u64,
    /// Pull requests that wait for a human.
    pub open_pull_requests: u64,
    /// What a scheduler last saw of it; absent when none looked since the control plane started.
    pub observation: Option<TargetObservation>,
}

/// `PUT /v1/targets/{id}/observation`: what a scheduler saw when it last looked. Kept in memory, no event:
/// it says nothing that the repository does not say again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetObservation {
    /// When.
    pub at: Timestamp,
    /// Which scheduler.
    pub by: ActorId,
    /// The commit of the default branch.
    pub base_commit: Option<CommitId>,
    /// What the policy allows at once.
    pub limits: Option<TargetLimits>,
    /// Why nothing of this target can run: unreachable, or documents that do not hold. Empty when all is well.
    pub problems: Vec<String>,
}

/// The filters of `GET /v1/tasks`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TasksQuery {
    /// Only of this target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetId>,
}

/// `GET /v1/tasks`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskList {
    /// By target, then in the order of the backlog.
    pub tasks: Vec<TaskView>,
}

/// One task, and why it does not run now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskView {
    /// Its target.
    pub target: TargetId,
    /// Its id.
    pub task_id: TaskId,
    /// What is to be done.
    pub title: String,
    /// `high`, `medium` or `low`.
    pub priority: String,
    /// The scope that applies.
    pub scope: String,
    /// `pending`, `running`, `in_review`, `completed`, `declined`, `parked` or `blocked`.
    pub state: String,
    /// Why it does not run now: a code; absent when it runs at the next pass.
    pub reason: Option<String>,
    /// The same in words, with what to do next.
    pub detail: Option<String>,
    /// How many attempts there were.
    pub attempts: u64,
    /// The newest of them.
    pub last_attempt: Option<AttemptId>,
    /// Where people see its pull request.
    pub pr_url: Option<String>,
    /// What became of the last write-back to backlog.yaml.
    pub write_back: Option<String>,
}

/// `POST /v1/attempts/claim`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimRequest {
    /// The target.
    pub target_id: TargetId,
    /// The task.
    pub task_id: TaskId,
    /// The revision of the task that was seen.
    pub task_revision: Digest,
    /// The commit of the default branch that was seen.
    pub base_commit: CommitId,
    /// SHA-256 of contract.yaml there.
    pub contract_digest: Digest,
    /// SHA-256 of policy.yaml there.
    pub policy_digest: Digest,
    /// SHA-256 of the operator's policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_policy_digest: Option<Digest>,
    /// What the policy allows at once.
    pub limits: TargetLimits,
    /// Who will do the work: `claude`, or `command: …`.
    pub agent: String,
    /// The model, when the agent is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How many seconds the whole attempt may take.
    pub timeout_seconds: u64,
    /// `worktree` or `kubernetes`.
    pub launcher: String,
    /// Which scheduler claims.
    pub actor_id: ActorId,
}

/// A claimed or re-dispatched attempt, with the token that its executor needs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Dispatched {
    /// The attempt.
    pub attempt_id: AttemptId,
    /// Counts the attempts at the task, from 1.
    pub n: u32,
    /// The epoch it was handed out with.
    pub epoch: Epoch,
    /// Its branch.
    pub branch: BranchName,
    /// Lets its bearer act for this attempt in this epoch, and nothing else. Never logged.
    pub token: String,
}

impl std::fmt::Debug for Dispatched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dispatched({} epoch {})", self.attempt_id, self.epoch)
    }
}

/// `POST /v1/attempts/{id}/dispatch`: hands a waiting attempt out again, with a new epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DispatchRequest {
    /// The epoch that was seen; another one means that somebody else was faster.
    pub expected_epoch: Epoch,
    /// `worktree` or `kubernetes`.
    pub launcher: String,
    /// Which scheduler.
    pub actor_id: ActorId,
}

/// `GET /v1/attempts/{id}/assignment`: everything an executor must know. The same at every call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Assignment {
    /// The attempt.
    pub attempt_id: AttemptId,
    /// Counts the attempts at the task, from 1.
    pub n: u32,
    /// The epoch it was handed out with.
    pub epoch: Epoch,
    /// Where it stands: a verified one goes on with publishing.
    pub state: AttemptState,
    /// Its target.
    pub target_id: TargetId,
    /// contract.yaml, as registered.
    pub contract: String,
    /// The operator's own policy.
    pub operator_policy: Option<String>,
    /// Its task.
    pub task_id: TaskId,
    /// The revision of the task.
    pub task_revision: Digest,
    /// The commit to start from; its documents are the authority.
    pub base_commit: CommitId,
    /// The branch to push.
    pub branch: BranchName,
    /// SHA-256 of policy.yaml at the base commit.
    pub policy_digest: Digest,
    /// Who does the work: `claude`, or `command: …`.
    pub agent: String,
    /// The model, when the agent is one.
    pub model: Option<String>,
    /// When it was claimed.
    pub created_at: Timestamp,
    /// How many seconds the whole attempt may take, counted from its start.
    pub timeout_seconds: u64,
    /// The permitted commit, once there is one.
    pub candidate: Option<CommitId>,
    /// The registered backlog.yaml, for a repository that has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backlog: Option<String>,
    /// The image in which its agent and checks run, where attempts are pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executor_image: Option<String>,
    /// The stored manifest and pack of its candidate, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<ArtifactStored>,
}

/// `POST /v1/attempts/{id}/heartbeat`, with the attempt's token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeartbeatRequest {
    /// What the executor is at, in one line for people.
    pub activity: String,
}

/// What an executor must do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HeartbeatResponse {
    /// The next heartbeat must arrive within so many milliseconds.
    pub lease_ms: u64,
    /// Whether new attempts are paused; an attempt under way may end its step.
    pub paused: bool,
}

/// `POST /v1/attempts/{id}/lost`: the scheduler says that an executor is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LostRequest {
    /// The epoch that was seen.
    pub expected_epoch: Epoch,
    /// Why the executor counts as gone.
    pub evidence: LostEvidence,
    /// The same in words.
    pub reason: String,
    /// Which scheduler.
    pub actor_id: ActorId,
}

/// Why an executor counts as gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LostEvidence {
    /// Its lease ran out; the control plane checks that by its own clock.
    LeaseExpired,
    /// Its process or Job was seen to be gone.
    ExecutorGone,
}

/// `POST /v1/attempts/{id}/invalidate` and `/cancel`, `POST /v1/pause` and `/v1/resume`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReasonRequest {
    /// Why, for everybody who reads the log.
    pub reason: String,
    /// Only this target; everything when absent. Not used for attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetId>,
    /// Who; `operator` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_id: Option<ActorId>,
}

impl From<&ReasonRequest> for Reason {
    fn from(request: &ReasonRequest) -> Self {
        Self { reason: request.reason.clone() }
    }
}

/// What became of a steering request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Steered {
    /// `invalidated`, `cancelled`, `lost`, `paused`, `resumed`, `unregistered` or `rejected`.
    pub status: String,
    /// The attempt, when it was about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt_id: Option<AttemptId>,
    /// Whether anything was recorded: `false` when it was so already.
    pub changed: bool,
}

/// `PUT /v1/artifacts/{sha256}`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArtifactReceipt {
    /// The content's name.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
}
