//! Which change is permitted, and which rule said so.
//!
//! A path is permitted when the task allows it and the scope allows it and, where an operator's policy has
//! scopes, that scope allows it too, and nothing denies it. Denying always wins. Three classes of path stand
//! beside the documents: some are never changed, some only when every list names them literally, and for all
//! others the rules alone decide. This module reads no file and knows no git.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::change::{Change, Irregularity, IrregularityKind, Mode, SecretFound};
use crate::documents::{PathRule, Policy, Scope, TargetSpec, Task};
use crate::pattern::Spelled;
use crate::{FailureReason, RepoPath};

mod built_in;

pub use built_in::{Protection, built_in_rules};

/// The path rules of one task: what its attempt may change.
#[derive(Debug, Clone)]
pub struct PathRules {
    /// Every one of these must allow a path.
    layers: Vec<Layer>,
    forbidden: Vec<PathRule>,
    /// What policies protect beside the built-in list.
    protected: Vec<PathRule>,
    /// Every one of these must allow a content that is out of the ordinary.
    contents: Vec<ContentRules>,
}

/// What one policy allows files to hold.
#[derive(Debug, Clone)]
struct ContentRules {
    binary: Vec<PathRule>,
    lfs: Vec<PathRule>,
    secrets: Vec<PathRule>,
}

/// One list of allowed paths.
#[derive(Debug, Clone)]
struct Layer {
    author: Author,
    allowed: Vec<PathRule>,
}

/// Whose list of allowed paths it is, with the name it goes by.
#[derive(Debug, Clone)]
enum Author {
    Task(String),
    Scope(String),
    Operator(String),
}

impl PathRules {
    /// The rules for `task`. A scope that is not in the policy, or not in an operator's policy that has scopes,
    /// allows nothing.
    pub fn for_task(spec: &TargetSpec, task: &Task) -> Self {
        Self::between(task, &spec.policy, spec.operator_policy.as_ref())
    }

    /// The rules that task, policy and operator's policy make together.
    pub(crate) fn between(task: &Task, policy: &Policy, operator: Option<&Policy>) -> Self {
        let by_task =
            Layer { author: Author::Task(task.task_id.to_string()), allowed: task.allowed_paths.clone() };
        let contents = [Some(policy), operator].into_iter().flatten().map(ContentRules::of).collect();
        let mut rules =
            Self { layers: vec![by_task], forbidden: Vec::new(), protected: Vec::new(), contents };
        rules.add_scope(Author::Scope(task.scope.clone()), policy.scopes.get(&task.scope));
        rules.protected.extend(policy.protected.iter().cloned());
        if let Some(operator) = operator
            && !operator.scopes.is_empty()
        {
            rules.add_scope(Author::Operator(task.scope.clone()), operator.scopes.get(&task.scope));
        }
        rules
    }

    /// The rules for a task that asks for everything its scope allows.
    pub(crate) fn for_scope(policy: &Policy, name: &str) -> Self {
        let mut rules = Self {
            layers: Vec::new(),
            forbidden: Vec::new(),
            protected: policy.protected.clone(),
            contents: vec![ContentRules::of(policy)],
        };
        rules.add_scope(Author::Scope(name.to_owned()), policy.scopes.get(name));
        rules
    }

    /// Judges a path as though its content were to be changed: for `explain` and for each write of an agent.
    pub fn judge_path(&self, path: &RepoPath) -> Verdict {
        let spelled = Spelled::of(path);
        match self.denial(path, &spelled) {
            Some(violation) => Verdict::Denied(violation),
            None => Verdict::Permitted {
                rules: self.layers.iter().filter_map(|layer| layer.rule_for(&spelled)).collect(),
            },
        }
    }

    /// Judges one change: what kind of change it is, its path, and what the file holds.
    pub fn judge(&self, change: &Change) -> Verdict {
        let verdict = match kind_denial(change) {
            Some(violation) => Verdict::Denied(violation),
            None => self.judge_path(&change.path),
        };
        match (verdict.violation(), self.content_denial(change)) {
            (None, Some(violation)) => Verdict::Denied(violation),
            (Some(_), _) | (None, None) => verdict,
        }
    }

    fn content_denial(&self, change: &Change) -> Option<Violation> {
        change.after.as_ref()?;
        let spelled = Spelled::of(&change.path);
        let allow = |list: fn(&ContentRules) -> &[PathRule]| {
            self.contents.iter().all(|rules| list(rules).iter().any(|r| r.pattern.matches_spelled(&spelled)))
        };
        let denied = |kind, message: String| Some(Violation::of_path(&change.path, kind, None, message));
        let secrets: Vec<&SecretFound> = match allow(|rules| &rules.secrets) {
            true => change.secrets.iter().filter(|secret| secret.is_ours).collect(),
            false => change.secrets.iter().collect(),
        };
        if !secrets.is_empty() {
            return denied(ViolationKind::SecretFound, described(&secrets));
        }
        if change.is_lfs_pointer && !allow(|rules| &rules.lfs) {
            let message =
                "it is a pointer of Git LFS, whose content nobody sees here; allow_lfs does not name it";
            return denied(ViolationKind::LfsPointer, message.to_owned());
        }
        if change.is_binary && !allow(|rules| &rules.binary) {
            let message = "its content is binary, which no reviewer can read; allow_binary does not name it";
            return denied(ViolationKind::Binary, message.to_owned());
        }
        None
    }

    fn add_scope(&mut self, author: Author, scope: Option<&Scope>) {
        let scope = scope.cloned().unwrap_or_default();
        self.layers.push(Layer { author, allowed: scope.allowed_paths });
        self.forbidden.extend(scope.forbidden_patterns);
    }

    fn denial(&self, path: &RepoPath, spelled: &Spelled) -> Option<Violation> {
        untouchable(path, spelled)
            .or_else(|| self.forbidden(path, spelled))
            .or_else(|| self.protected(path, spelled))
            .or_else(|| self.layers.iter().find_map(|layer| layer.denial(path, spelled)))
    }

    fn forbidden(&self, path: &RepoPath, spelled: &Spelled) -> Option<Violation> {
        let rule = self.forbidden.iter().find(|rule| rule.pattern.matches_any_spelling_of(spelled))?;
        let rule = rule.reference("forbidden_patterns");
        let message = "a forbidden pattern of the scope matches the path".to_owned();
        Some(Violation::of_path(path, ViolationKind::Forbidden, Some(rule), message))
    }

    fn protected(&self, path: &RepoPath, spelled: &Spelled) -> Option<Violation> {
        let by_policy = self.protected.iter().find(|rule| rule.pattern.matches_any_spelling_of(spelled));
        let (rule, why) = match by_policy {
            Some(rule) => (rule.reference("protected"), "the policy protects it"),
            None => {
                let (pattern, protection) = built_in::protection(spelled)?;
                (RuleRef::built_in("protected", pattern), protection.why())
            }
        };
        let unnamed = self.layers.iter().find(|layer| !layer.names_literally(path))?;
        let message = format!(
            "{why}: it may be changed only when the task and the scope name it literally, and {} does not",
            unnamed.author
        );
        Some(Violation::of_path(path, ViolationKind::Protected, Some(rule), message))
    }
}

/// Whether a path steers people and platforms, or the checks, so that a change to it needs special attention.
pub fn protection(path: &RepoPath) -> Option<Protection> {
    built_in::protection(&Spelled::of(path)).map(|(_, protection)| protection)
}

impl Layer {
    fn rule_for(&self, path: &Spelled) -> Option<RuleRef> {
        self.allowed
            .iter()
            .find(|rule| rule.pattern.matches_spelled(path))
            .map(|rule| rule.reference("allowed_paths"))
    }

    fn names_literally(&self, path: &RepoPath) -> bool {
        self.allowed.iter().any(|rule| rule.pattern.names_literally(path))
    }

    fn denial(&self, path: &RepoPath, spelled: &Spelled) -> Option<Violation> {
        if self.allowed.iter().any(|rule| rule.pattern.matches_spelled(spelled)) {
            return None;
        }
        let (rule, message) = match self.allowed.first() {
            None => (None, format!("{} allows no path at all", self.author)),
            Some(first) => {
                let text = format!("allowed_paths of {}", self.author);
                let list = RuleRef { text, file: first.file.to_string(), line: first.line };
                (Some(list), "no allowed path matches".to_owned())
            }
        };
        Some(Violation::of_path(path, self.author.denial_kind(), rule, message))
    }
}

impl ContentRules {
    fn of(policy: &Policy) -> Self {
        Self {
            binary: policy.allow_binary.clone(),
            lfs: policy.allow_lfs.clone(),
            secrets: policy.allow_secrets.clone(),
        }
    }
}

impl Author {
    fn denial_kind(&self) -> ViolationKind {
        match self {
            Self::Task(_) => ViolationKind::NotAllowedByTask,
            Self::Scope(_) => ViolationKind::NotAllowedByScope,
            Self::Operator(_) => ViolationKind::NotAllowedByOperator,
        }
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(name) => write!(f, "the task `{name}`"),
            Self::Scope(name) => write!(f, "the scope `{name}`"),
            Self::Operator(name) => write!(f, "the operator's scope `{name}`"),
        }
    }
}

fn untouchable(path: &RepoPath, spelled: &Spelled) -> Option<Violation> {
    let pattern = built_in::untouchable(spelled)?;
    let message = "Leviathan never changes this path, whatever allows it".to_owned();
    let rule = RuleRef::built_in("never", pattern);
    Some(Violation::of_path(path, ViolationKind::Untouchable, Some(rule), message))
}

/// The places and rules of some secrets, and nothing of the secrets themselves.
fn described(secrets: &[&SecretFound]) -> String {
    const MOST: usize = 5;
    let shown: Vec<String> = secrets
        .iter()
        .take(MOST)
        .map(|secret| {
            let place =
                if secret.line == 0 { "its name".to_owned() } else { format!("line {}", secret.line) };
            match secret.is_ours {
                true => format!("{place} holds a secret of Leviathan's own"),
                false => format!("{place} holds what looks like a secret ({})", secret.rule),
            }
        })
        .collect();
    let more = match secrets.len().saturating_sub(MOST) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    format!("{}{more}", shown.join(", "))
}

/// What is refused because of the kind of change, wherever it is.
fn kind_denial(change: &Change) -> Option<Violation> {
    let before = change.before.as_ref();
    let after = change.after.as_ref();
    let mode_before = before.map(|entry| entry.mode);
    let mode_after = after.map(|entry| entry.mode);
    let (kind, message) = match (mode_before, mode_after) {
        (Some(Mode::Gitlink), _) | (_, Some(Mode::Gitlink)) => {
            (ViolationKind::Gitlink, "a commit of another repository is never added, moved or removed")
        }
        (_, Some(Mode::Symlink)) => {
            (ViolationKind::Symlink, "a symbolic link is never added or changed; it could lead anywhere")
        }
        (Some(Mode::Symlink), Some(Mode::Regular | Mode::Executable)) => {
            (ViolationKind::TypeChange, "a symbolic link is never replaced by a file")
        }
        (Some(Mode::Regular), Some(Mode::Executable)) | (Some(Mode::Executable), Some(Mode::Regular)) => (
            ViolationKind::ModeChange,
            "the permission to execute an existing file is never changed; restore its mode",
        ),
        (Some(Mode::Regular), Some(Mode::Regular))
        | (Some(Mode::Executable), Some(Mode::Executable))
        | (None, Some(Mode::Regular | Mode::Executable))
        | (Some(Mode::Regular | Mode::Executable | Mode::Symlink), None)
        | (None, None) => return None,
    };
    Some(Violation::of_path(&change.path, kind, None, message.to_owned()))
}

/// A rule as its human finds it: its text and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleRef {
    /// The rule as it was written, after its field: `allowed_paths src/**`.
    pub text: String,
    /// The file that holds it, or `built in`.
    pub file: String,
    /// The line in that file, from 1; 0 for a rule that is built in.
    pub line: u32,
}

impl RuleRef {
    fn built_in(list: &str, pattern: &str) -> Self {
        Self { text: format!("{list} {pattern}"), file: "built in".to_owned(), line: 0 }
    }
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{} ({})", self.text, self.file),
            line => write!(f, "{} ({}:{line})", self.text, self.file),
        }
    }
}

impl PathRule {
    fn reference(&self, field: &str) -> RuleRef {
        RuleRef { text: format!("{field} {}", self.pattern), file: self.file.to_string(), line: self.line }
    }
}

/// What the path rules say about one path or one change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It may be changed.
    Permitted {
        /// The rules that permit it together: one of the task, one of the scope, and one of the operator's
        /// scope where there is one.
        rules: Vec<RuleRef>,
    },
    /// It may not.
    Denied(Violation),
}

impl Verdict {
    /// The violation, if it is one.
    pub fn violation(&self) -> Option<&Violation> {
        match self {
            Self::Permitted { .. } => None,
            Self::Denied(violation) => Some(violation),
        }
    }

    /// The rules that permit it; none when it is denied.
    pub fn rules(&self) -> &[RuleRef] {
        match self {
            Self::Permitted { rules } => rules,
            Self::Denied(_) => &[],
        }
    }
}

/// One reason why a change is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Violation {
    /// The path, escaped for display; empty when the violation is of the change as a whole.
    pub path: String,
    /// What kind of violation.
    pub kind: ViolationKind,
    /// The rule that denies it, or the list in which no rule allows it; none when there is no such rule or list.
    pub rule: Option<RuleRef>,
    /// What is wrong, as a clause.
    pub message: String,
}

impl Violation {
    fn of_path(path: &RepoPath, kind: ViolationKind, rule: Option<RuleRef>, message: String) -> Self {
        Self { path: path.to_string(), kind, rule, message }
    }

    pub(crate) fn of_whole(kind: ViolationKind, message: String) -> Self {
        Self { path: String::new(), kind, rule: None, message }
    }

    pub(crate) fn collision(path: &RepoPath, other: &RepoPath) -> Self {
        let message = format!("some file systems hold it and `{other}` for one");
        Self::of_path(path, ViolationKind::Collision, None, message)
    }

    pub(crate) fn irregular(irregularity: &Irregularity) -> Self {
        let kind = match irregularity.kind {
            IrregularityKind::Name => ViolationKind::Name,
            IrregularityKind::SpecialFile => ViolationKind::SpecialFile,
            IrregularityKind::NestedRepository => ViolationKind::NestedRepository,
            IrregularityKind::Collision => ViolationKind::Collision,
        };
        Self { path: irregularity.path.clone(), kind, rule: None, message: irregularity.detail.clone() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "`{}`: ", self.path)?;
        }
        f.write_str(&self.message)?;
        self.rule.as_ref().map_or(Ok(()), |rule| write!(f, ": {rule}"))
    }
}

/// The kinds of violation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ViolationKind {
    /// No pattern of the task allows the path.
    NotAllowedByTask,
    /// No pattern of the scope allows the path.
    NotAllowedByScope,
    /// The operator's policy does not allow the path.
    NotAllowedByOperator,
    /// A forbidden pattern matches the path.
    Forbidden,
    /// The path is never changed by Leviathan.
    Untouchable,
    /// The path steers people, platforms or checks, and is not named literally by task and scope.
    Protected,
    /// A symbolic link that is new or leads elsewhere than before.
    Symlink,
    /// A commit of another repository.
    Gitlink,
    /// A symbolic link became a file.
    TypeChange,
    /// An existing file became executable, or ceased to be.
    ModeChange,
    /// The name is no path that every platform and reader takes for the same.
    Name,
    /// A pipe, a socket or a device.
    SpecialFile,
    /// A repository inside the repository.
    NestedRepository,
    /// Two names that some file system holds for one.
    Collision,
    /// More files than the policy's limit.
    TooManyFiles,
    /// A larger patch than the policy's limit.
    PatchTooLarge,
    /// A larger file than the policy's limit.
    FileTooLarge,
    /// Binary content where the policy does not allow it.
    Binary,
    /// A pointer of Git LFS where the policy does not allow it.
    LfsPointer,
    /// An added line holds a secret, or what looks like one.
    SecretFound,
}

impl ViolationKind {
    /// The failure that an attempt ends with when this is its gravest violation.
    pub fn reason(self) -> FailureReason {
        match self {
            Self::Untouchable | Self::Protected | Self::Gitlink | Self::NestedRepository => {
                FailureReason::ProtectedPath
            }
            Self::NotAllowedByTask
            | Self::NotAllowedByScope
            | Self::NotAllowedByOperator
            | Self::Forbidden
            | Self::Symlink
            | Self::TypeChange
            | Self::ModeChange
            | Self::Name
            | Self::SpecialFile
            | Self::Collision
            | Self::Binary
            | Self::LfsPointer => FailureReason::ScopeViolation,
            Self::SecretFound => FailureReason::SecretFound,
            Self::TooManyFiles | Self::PatchTooLarge | Self::FileTooLarge => FailureReason::ChangeTooLarge,
        }
    }
}
