//! The three documents by which humans govern a target: contract, backlog and policy.
//!
//! The types here are what the documents mean; how they are read from text, with all problems at once, is in
//! the modules below. Nothing here reads a file.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pattern::PathPattern;
use crate::{BranchName, CommitId, Digest, RepoPath, TargetId, TaskId};

mod backlog;
mod contract;
mod decode;
mod edit;
mod findings;
mod policy;
mod problem;
mod quantity;
mod repo_url;
mod schema;
mod target_spec;
mod warnings;
mod yaml;

pub use edit::EditRefused;
pub use problem::{Problem, Problems};
pub use quantity::MicroDollars;
pub use repo_url::{RepoUrl, RepoUrlError};
pub use schema::schemas;
pub use target_spec::{Document, Documents};

/// contract.yaml: which repository this is and who owns it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Contract {
    /// The name of the target in Leviathan, its log and its commands.
    pub target_id: TargetId,
    /// The name that people read.
    pub name: String,
    /// Where the repository is: `git@host:owner/repository.git`, `https://…`, `ssh://…` or `file:///path`.
    pub repo_url: RepoUrl,
    /// The branch that attempts start from and pull requests go to.
    pub default_branch: BranchName,
    /// What the repository is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The team or person that answers for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// When it was registered, as RFC 3339 with a time zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub created_at: Option<Timestamp>,
}

/// backlog.yaml: the work that humans ask for, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backlog {
    /// The tasks, in file order.
    pub tasks: Vec<Task>,
}

/// One piece of work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// The name of the task; part of its branch names. Unique in the backlog, also when case is ignored.
    pub task_id: TaskId,
    /// The title, also of the pull request. A task that is not pending may leave it out; then it is the task id.
    #[schemars(default)]
    pub title: String,
    /// What is to be done, in as many words as it takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The scope in policy.yaml that bounds the task. A task that is not pending may leave it out; then it is empty.
    #[schemars(default)]
    pub scope: String,
    /// How soon: high before medium before low, then file order.
    #[schemars(default)]
    pub priority: Priority,
    /// How large its humans take it to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimated_size: Option<Size>,
    /// The paths that the task may change, within what its scope allows. None: it may change nothing.
    #[schemars(default)]
    pub allowed_paths: Vec<PathRule>,
    /// What the reviewer will look for.
    #[schemars(default)]
    pub acceptance_criteria: Vec<String>,
    /// Whether it waits, is done, or must not run.
    #[schemars(default)]
    pub status: Status,
    /// Why it must not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked_reason: Option<String>,
    /// The tasks that must be completed before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub depends_on: Vec<TaskId>,
    /// How often it may be tried without a human; instead of the policy's limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// How long one attempt may take; instead of the policy's limit.
    #[serde(skip_serializing_if = "Option::is_none", with = "quantity::duration_option")]
    #[schemars(with = "Option<quantity::DurationText>")]
    pub timeout: Option<Duration>,
    /// Who does the work; without it the executor's configuration decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentChoice>,
    /// The line of the task in its file, from 1.
    #[serde(skip)]
    pub line: u32,
}

/// How soon a task is wanted.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// After all others.
    Low,
    /// The default.
    #[default]
    Medium,
    /// Before all others.
    High,
}

/// How large a task is, as its humans take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Size {
    /// A few lines.
    Small,
    /// A few files.
    Medium,
    /// More: consider several tasks.
    Large,
}

/// What the backlog says of a task. Everything else about its progress is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It may be selected.
    #[default]
    Pending,
    /// It is done.
    Completed,
    /// A human keeps it from running.
    Blocked,
}

/// Who does the work of a task.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentChoice {
    /// The Claude API.
    Claude,
    /// A program, run by `sh -c` in the tree, with the task as JSON on its standard input.
    Command(String),
}

/// policy.yaml: what may be changed and what must hold. The operator's policy has the same form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The scopes by name.
    #[schemars(default)]
    pub scopes: BTreeMap<String, Scope>,
    /// The checks that must all pass before a pull request is opened.
    #[schemars(default)]
    pub invariants: Vec<Invariant>,
    /// Bounds on each change and each attempt.
    #[schemars(default)]
    pub limits: Limits,
    /// Commands that run in each fresh tree before the agent and before the checks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, with = "Vec<SetupForm>")]
    pub setup: Vec<Setup>,
    /// The hosts that may be reached, none by default.
    #[schemars(default)]
    pub network: Network,
    /// Paths, beside those that are built in, which only a task and a scope that name them literally may change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub protected: Vec<PathRule>,
    /// Paths at which a change may hold binary content, which no reviewer can read; none by default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub allow_binary: Vec<PathRule>,
    /// Paths at which a change may hold a pointer of Git LFS, whose content nobody here sees; none by default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub allow_lfs: Vec<PathRule>,
    /// Files, each named literally, to which a change may add what looks like a secret; none by default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub allow_secrets: Vec<PathRule>,
    /// Paths with the verdict that must hold; checked when the policy is read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    pub examples: Vec<Example>,
    /// Whether the invariants run first on the base commit, so that a check that fails already costs no money.
    #[schemars(default = "yes")]
    pub baseline: bool,
    /// Whether a check that passes only with the changed check configuration blocks the pull request.
    #[schemars(default)]
    pub strict_checks: bool,
    /// The sandbox that an attempt needs.
    #[schemars(default)]
    pub sandbox: Sandbox,
    /// Whether a task waits while its paths meet those of a running attempt or an open pull request.
    #[schemars(default)]
    pub overlap: Overlap,
}

/// The files that one kind of task may change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// What the scope is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The paths that tasks of this scope may name. None: they may change nothing.
    #[schemars(default)]
    pub allowed_paths: Vec<PathRule>,
    /// The paths that tasks of this scope never change, whatever allows them.
    #[schemars(default)]
    pub forbidden_patterns: Vec<PathRule>,
}

/// A pattern and where it stands. In YAML and JSON it is the pattern alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRule {
    /// The pattern.
    pub pattern: PathPattern,
    /// The file that holds it.
    pub file: Arc<str>,
    /// Its line in that file, from 1.
    pub line: u32,
    /// Its column in that line, from 1.
    pub column: u32,
}

/// A check that must pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Invariant {
    /// What holds when it passes. Unique in the policy.
    pub name: String,
    /// The command, run by `sh -c` in a fresh tree of the candidate. Exit code 0 passes.
    pub check: String,
    /// How long it may take; 10 minutes by default.
    #[serde(with = "quantity::duration")]
    #[schemars(with = "quantity::DurationText", default = "quantity::ten_minutes")]
    pub timeout: Duration,
}

/// A command that prepares a fresh tree. In YAML the command alone, or with its timeout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Setup {
    /// The command, run by `sh -c`.
    pub run: String,
    /// How long it may take; 10 minutes by default.
    #[serde(with = "quantity::duration")]
    #[schemars(with = "quantity::DurationText", default = "quantity::ten_minutes")]
    pub timeout: Duration,
}

/// The two forms of a setup command in YAML, for the schema.
#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
#[expect(dead_code, reason = "only its schema is used")]
enum SetupForm {
    /// The command alone.
    Command(String),
    /// The command with its timeout.
    WithTimeout(Setup),
}

/// The hosts that each kind of process may reach: `pypi.org`, or `*.example.org` for every host below.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// The agent's tools.
    #[schemars(default)]
    pub agent: Vec<String>,
    /// The setup commands.
    #[schemars(default)]
    pub setup: Vec<String>,
    /// The checks.
    #[schemars(default)]
    pub checks: Vec<String>,
}

/// Paths of a scope with the verdict that must hold for a task that names all the scope allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// The scope.
    pub scope: String,
    /// Paths that must be permitted.
    #[schemars(default)]
    pub allow: Vec<RepoPath>,
    /// Paths that must be denied.
    #[schemars(default)]
    pub deny: Vec<RepoPath>,
}

/// The sandbox that an attempt needs, from the weakest to the strongest.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Sandbox {
    /// None at all. The executor's own configuration must agree.
    None,
    /// What the machine must at least enforce.
    #[default]
    Standard,
    /// Every layer, namespaces included.
    Strict,
}

/// What happens to a task whose paths meet those of work in progress.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// It may run.
    #[default]
    Allow,
    /// It waits.
    Wait,
}

/// Bounds on each change and each attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// How many files one change may touch.
    pub max_files_changed: u32,
    /// How long the patch may be, in bytes.
    #[schemars(with = "quantity::ByteSizeText")]
    pub max_patch_bytes: u64,
    /// How large one file may become, in bytes.
    #[schemars(with = "quantity::ByteSizeText")]
    pub max_file_bytes: u64,
    /// How long one attempt may take.
    #[serde(with = "quantity::duration")]
    #[schemars(with = "quantity::DurationText")]
    pub attempt_timeout: Duration,
    /// How often a task is tried without a human.
    pub max_attempts: u32,
    /// How many of our pull requests may be open at once.
    pub max_open_prs: u32,
    /// How many attempts may run at once.
    pub max_concurrent: u32,
    /// How much one attempt may spend, in US dollars.
    pub budget_usd: MicroDollars,
    /// How much all attempts at one revision of a task may spend; unlimited unless it is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_usd_per_task: Option<MicroDollars>,
    /// How much all attempts that are claimed on one day, in UTC, may spend; unlimited unless it is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget_usd_per_day: Option<MicroDollars>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            scopes: BTreeMap::new(),
            invariants: Vec::new(),
            limits: Limits::default(),
            setup: Vec::new(),
            network: Network::default(),
            protected: Vec::new(),
            allow_binary: Vec::new(),
            allow_lfs: Vec::new(),
            allow_secrets: Vec::new(),
            examples: Vec::new(),
            baseline: true,
            strict_checks: false,
            sandbox: Sandbox::default(),
            overlap: Overlap::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_files_changed: 100,
            max_patch_bytes: 2 * 1024 * 1024,
            max_file_bytes: 5 * 1024 * 1024,
            attempt_timeout: Duration::from_secs(30 * 60),
            max_attempts: 2,
            max_open_prs: 3,
            max_concurrent: 1,
            budget_usd: MicroDollars(5_000_000),
            budget_usd_per_task: None,
            budget_usd_per_day: None,
        }
    }
}

/// The three documents of a target at one commit, cross-checked, with the operator's policy merged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetSpec {
    /// The commit whose documents these are.
    pub commit: CommitId,
    /// contract.yaml.
    pub contract: Contract,
    /// backlog.yaml.
    pub backlog: Backlog,
    /// policy.yaml, tightened by the operator's: limits, invariants, sandbox and the rest that can be merged.
    pub policy: Policy,
    /// The operator's policy as it was given. A path must pass its scopes as well.
    pub operator_policy: Option<Policy>,
    /// Whether the backlog is the registered one, because the repository has none. Nothing is written back to it.
    pub backlog_is_registered: bool,
    /// The digests of the texts.
    pub digests: DocumentDigests,
    /// What is suspicious in the documents without being wrong.
    pub warnings: Vec<Problem>,
}

/// The digest of each document's text, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DocumentDigests {
    /// Of contract.yaml.
    pub contract: Digest,
    /// Of backlog.yaml.
    pub backlog: Digest,
    /// Of policy.yaml.
    pub policy: Digest,
    /// Of the operator's policy, if there is one.
    pub operator_policy: Option<Digest>,
}

impl Task {
    /// The identity of what is asked: the digest of the task without its status and the reason of a block. Editing
    /// anything else makes it another revision, which may be tried anew; where the task stands does not matter.
    pub fn revision(&self) -> Digest {
        let mut fields = serde_json::to_value(self).expect("a task holds only text, numbers and lists");
        if let Some(fields) = fields.as_object_mut() {
            fields.remove("status");
            fields.remove("blocked_reason");
        }
        fields.sort_all_objects();
        Digest::of(fields.to_string().as_bytes())
    }
}

impl Priority {
    /// The word in the document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Medium => "medium",
            Self::Low => "low",
        }
    }
}

impl Size {
    /// The word in the document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
        }
    }
}

impl Status {
    /// The word in the document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Completed => "completed",
            Self::Blocked => "blocked",
        }
    }
}

impl Sandbox {
    /// The word in the document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Standard => "standard",
            Self::Strict => "strict",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for AgentChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claude => f.write_str("claude"),
            Self::Command(command) => write!(f, "command:{command}"),
        }
    }
}

/// Text that names no agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no agent; expected `claude` or `command:` and a shell command")]
pub struct AgentChoiceError(String);

impl FromStr for AgentChoice {
    type Err = AgentChoiceError;

    /// Reads `claude` or `command:…`, the form of the environment and the flags.
    fn from_str(text: &str) -> Result<Self, AgentChoiceError> {
        match text.split_once(':') {
            None if text == "claude" => Ok(Self::Claude),
            Some(("command", command)) if !command.trim().is_empty() => Ok(Self::Command(command.to_owned())),
            Some(_) | None => Err(AgentChoiceError(text.to_owned())),
        }
    }
}

fn yes() -> bool {
    true
}

impl Serialize for PathRule {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.pattern.serialize(serializer)
    }
}

impl JsonSchema for PathRule {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        PathPattern::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        PathPattern::json_schema(generator)
    }
}
