//! A change on its way to a pull request, and the permissions it needs: [`ChangeSet`] (what git objects say)
//! becomes a [`PermittedChange`] only through the path rules and the limits, and that becomes a
//! [`VerifiedChange`] only through a passing report of every invariant at that very commit.
//!
//! This module knows no git and runs no check: it judges what others measured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::documents::{Limits, Policy};
use crate::rules::{PathRules, Protection, Verdict, Violation, ViolationKind, protection};
use crate::{CommitId, Digest, FailureReason, ObjectId, RepoPath};

/// What a tree entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// An ordinary file: `100644`.
    Regular,
    /// A file that may be executed: `100755`.
    Executable,
    /// A symbolic link: `120000`. Its content is the text of the link.
    Symlink,
    /// A commit of another repository: `160000`.
    Gitlink,
}

impl Mode {
    /// The mode as git writes it.
    pub fn as_octal(self) -> &'static str {
        match self {
            Self::Regular => "100644",
            Self::Executable => "100755",
            Self::Symlink => "120000",
            Self::Gitlink => "160000",
        }
    }

    /// Reads a mode as git writes it; nothing else is known.
    pub fn from_octal(text: &str) -> Option<Self> {
        match text {
            "100644" => Some(Self::Regular),
            "100755" => Some(Self::Executable),
            "120000" => Some(Self::Symlink),
            "160000" => Some(Self::Gitlink),
            _ => None,
        }
    }

    /// Whether it is a file with content of its own, executable or not.
    pub fn is_file(self) -> bool {
        match self {
            Self::Regular | Self::Executable => true,
            Self::Symlink | Self::Gitlink => false,
        }
    }
}

/// One side of a change: what the tree holds at the path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What it is.
    pub mode: Mode,
    /// The object that holds its content.
    pub object: ObjectId,
    /// The size of the content in bytes; 0 for a gitlink.
    pub size: u64,
}

/// One path whose entry differs between base and candidate. A rename is two of them: one removed, one added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// The path, the same on both sides.
    pub path: RepoPath,
    /// The entry at the base; none when the path is new.
    pub before: Option<Entry>,
    /// The entry at the candidate; none when the path was deleted.
    pub after: Option<Entry>,
    /// Whether either side is binary, so that no lines can be counted.
    pub is_binary: bool,
    /// How many lines were added; 0 when binary.
    pub added_lines: u64,
    /// How many lines were removed; 0 when binary.
    pub removed_lines: u64,
    /// Whether the new content is a pointer of Git LFS.
    pub is_lfs_pointer: bool,
    /// The secrets in the new content that the old content of the same path does not hold.
    pub secrets: Vec<SecretFound>,
}

/// Where a secret was found. It holds nothing of the secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretFound {
    /// The line in the new content, from 1; 0 when the name of the file holds it.
    pub line: u64,
    /// The rule of [`crate::secrets`] that found it.
    pub rule: String,
    /// Whether it is a secret that Leviathan itself holds, in whatever spelling. No policy allows one.
    pub is_ours: bool,
}

impl Change {
    /// What happened to the path, in a word: `added`, `modified`, `deleted`, `mode changed`, `type changed`.
    pub fn verb(&self) -> &'static str {
        match (&self.before, &self.after) {
            (None, _) => "added",
            (Some(_), None) => "deleted",
            (Some(before), Some(after)) if before.mode == after.mode => "modified",
            (Some(before), Some(after)) if before.mode.is_file() && after.mode.is_file() => {
                if before.object == after.object { "mode changed" } else { "modified" }
            }
            (Some(_), Some(_)) => "type changed",
        }
    }
}

/// What is wrong with something in the agent's tree that cannot even become a tree entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IrregularityKind {
    /// A name that is no [`RepoPath`].
    Name,
    /// A pipe, a socket or a device.
    SpecialFile,
    /// A repository inside the repository.
    NestedRepository,
    /// Two names that some file system holds for one.
    Collision,
}

/// Something in the agent's tree that cannot become a tree entry. One is enough to refuse the change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Irregularity {
    /// The path, escaped for display: it need not be a valid [`RepoPath`].
    pub path: String,
    /// What is wrong.
    pub kind: IrregularityKind,
    /// What is wrong, in words.
    pub detail: String,
}

/// Everything that differs between base and candidate, as git objects say, sorted by path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "ChangeSetFields")]
pub struct ChangeSet {
    base: CommitId,
    candidate: CommitId,
    changes: Vec<Change>,
    irregularities: Vec<Irregularity>,
    patch_bytes: u64,
}

impl ChangeSet {
    /// The differences between the commits `base` and `candidate`. `patch_bytes` is the length of the patch in bytes.
    pub fn new(
        base: CommitId,
        candidate: CommitId,
        mut changes: Vec<Change>,
        mut irregularities: Vec<Irregularity>,
        patch_bytes: u64,
    ) -> Self {
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        irregularities.sort_by(|a, b| a.path.cmp(&b.path));
        Self { base, candidate, changes, irregularities, patch_bytes }
    }

    /// The commit that the attempt started from.
    pub fn base(&self) -> &CommitId {
        &self.base
    }

    /// The commit that holds the change.
    pub fn candidate(&self) -> &CommitId {
        &self.candidate
    }

    /// The changed paths, sorted.
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// What could not become a tree entry.
    pub fn irregularities(&self) -> &[Irregularity] {
        &self.irregularities
    }

    /// The length of the patch in bytes.
    pub fn patch_bytes(&self) -> u64 {
        self.patch_bytes
    }

    /// Whether nothing at all differs.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.irregularities.is_empty()
    }

    /// Judges every change by the path rules and the whole by the limits. All violations are found, not only the first.
    #[expect(
        clippy::result_large_err,
        reason = "a refusal is a value that is kept, and both sides hold the change"
    )]
    pub fn permit(self, rules: &PathRules, limits: &Limits) -> Result<PermittedChange, Refused> {
        let verdicts: Vec<Verdict> = self.changes.iter().map(|change| rules.judge(change)).collect();
        let mut violations: Vec<Violation> =
            verdicts.iter().filter_map(Verdict::violation).cloned().collect();
        violations.extend(self.irregularities.iter().map(Violation::irregular));
        violations.extend(collisions(&self.changes));
        violations.extend(beyond(limits, &self));
        if violations.is_empty() {
            Ok(PermittedChange { change_set: self, verdicts })
        } else {
            violations.sort_by(|a, b| a.path.cmp(&b.path));
            Err(Refused { change_set: self, violations })
        }
    }
}

/// A change that was refused, with every reason. A recorded value, not an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// What was refused.
    pub change_set: ChangeSet,
    /// Why: at least one, sorted by path.
    pub violations: Vec<Violation>,
}

impl Refused {
    /// The failure that the attempt ends with: the gravest of the violations.
    pub fn reason(&self) -> FailureReason {
        let reasons: Vec<FailureReason> = self.violations.iter().map(|v| v.kind.reason()).collect();
        let by_gravity = [
            FailureReason::SecretFound,
            FailureReason::ProtectedPath,
            FailureReason::ScopeViolation,
            FailureReason::ChangeTooLarge,
        ];
        by_gravity
            .into_iter()
            .find(|reason| reasons.contains(reason))
            .unwrap_or(FailureReason::ScopeViolation)
    }
}

/// A change of which every path is permitted by a rule and which is within the limits.
///
/// Only [`ChangeSet::permit`] makes one; it cannot be read from text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PermittedChange {
    change_set: ChangeSet,
    verdicts: Vec<Verdict>,
}

impl PermittedChange {
    /// The change itself.
    pub fn change_set(&self) -> &ChangeSet {
        &self.change_set
    }

    /// Each change with the verdict that names the rules which permitted it.
    pub fn files(&self) -> impl Iterator<Item = (&Change, &Verdict)> {
        self.change_set.changes.iter().zip(&self.verdicts)
    }

    /// The changes of protected files, which task and scope name literally, with what each file steers. A
    /// reviewer must see them first.
    pub fn steering(&self) -> impl Iterator<Item = (&Change, Protection)> {
        let changes = self.change_set.changes.iter();
        changes.filter_map(|change| Some((change, protection(&change.path)?)))
    }

    /// The changed files that steer the checks. Where there are any, the checks must also run with these files as
    /// the base has them: a change must not be judged by its own measure alone.
    pub fn check_files(&self) -> Vec<RepoPath> {
        let steers_checks = |(change, protection): (&Change, Protection)| {
            (protection == Protection::Checks).then(|| change.path.clone())
        };
        self.steering().filter_map(steers_checks).collect()
    }

    /// Takes the reports of the invariants as proof. There must be exactly one passing report for every
    /// invariant of `policy`, with the same check, at exactly the candidate commit, and no other report.
    ///
    /// `with_base_files` are the reports of the same checks where [`Self::check_files`] are as the base has them,
    /// one for every invariant; none when no such file is changed. With `strict_checks` they must pass as well.
    pub fn verify(
        self,
        policy: &Policy,
        reports: Vec<InvariantReport>,
        with_base_files: Vec<InvariantReport>,
    ) -> Result<VerifiedChange, Unverified> {
        let mut problems = unproven(policy, &reports, self.change_set.candidate());
        let needs_second_look = !self.check_files().is_empty();
        problems.extend(unproven_with_base_files(policy, &with_base_files, needs_second_look));
        if problems.is_empty() {
            Ok(VerifiedChange { permitted: self, reports, with_base_files })
        } else {
            Err(Unverified { reports, problems })
        }
    }
}

/// A permitted change at whose commit every invariant passed: what a pull request may be opened for.
///
/// Only [`PermittedChange::verify`] makes one; it cannot be read from text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifiedChange {
    permitted: PermittedChange,
    reports: Vec<InvariantReport>,
    with_base_files: Vec<InvariantReport>,
}

impl VerifiedChange {
    /// The commit that the pull request proposes.
    pub fn commit(&self) -> &CommitId {
        self.permitted.change_set.candidate()
    }

    /// The change itself.
    pub fn change_set(&self) -> &ChangeSet {
        self.permitted.change_set()
    }

    /// Each change with the verdict that names the rules which permitted it.
    pub fn files(&self) -> impl Iterator<Item = (&Change, &Verdict)> {
        self.permitted.files()
    }

    /// The changes of protected files, with what each file steers.
    pub fn steering(&self) -> impl Iterator<Item = (&Change, Protection)> {
        self.permitted.steering()
    }

    /// The passing reports, one for each invariant.
    pub fn reports(&self) -> &[InvariantReport] {
        &self.reports
    }

    /// What the same checks showed with the files that steer them as the base has them, passing or not; none when
    /// no such file is changed.
    pub fn with_base_files(&self) -> &[InvariantReport] {
        &self.with_base_files
    }
}

/// Why a permitted change was not verified. A recorded value, not an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unverified {
    /// The reports that were offered.
    pub reports: Vec<InvariantReport>,
    /// Each gap in the proof, as a sentence.
    pub problems: Vec<String>,
}

/// How one run of one check ended. Only `Passed` is a pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "result", deny_unknown_fields)]
pub enum CheckOutcome {
    /// It ended by itself with exit code 0.
    Passed,
    /// It ended by itself with another exit code.
    Failed {
        /// The exit code.
        exit_code: i32,
    },
    /// A signal ended it.
    Killed {
        /// The number of the signal.
        signal: i32,
    },
    /// It reached its time limit.
    TimedOut,
    /// It wrote more than it may.
    OutputLimit,
    /// It took more of the disk than it may.
    DiskLimit,
    /// It could not be started.
    NotStarted {
        /// Why not.
        problem: String,
    },
    /// It ended with exit code 0, but the tree is another than before.
    MutatedTree,
}

impl CheckOutcome {
    /// Whether the check passed.
    pub fn is_pass(&self) -> bool {
        match self {
            Self::Passed => true,
            Self::Failed { .. }
            | Self::Killed { .. }
            | Self::TimedOut
            | Self::OutputLimit
            | Self::DiskLimit
            | Self::NotStarted { .. }
            | Self::MutatedTree => false,
        }
    }
}

impl std::fmt::Display for CheckOutcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Failed { exit_code } => write!(f, "failed with exit code {exit_code}"),
            Self::Killed { signal } => write!(f, "was killed by signal {signal}"),
            Self::TimedOut => f.write_str("reached its time limit"),
            Self::OutputLimit => f.write_str("wrote more output than it may"),
            Self::DiskLimit => f.write_str("took more of the disk than it may"),
            Self::NotStarted { problem } => write!(f, "could not be started: {problem}"),
            Self::MutatedTree => f.write_str("changed the tree that it was to judge"),
        }
    }
}

/// What one run of one invariant at one commit showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InvariantReport {
    /// The invariant's name.
    pub name: String,
    /// The command that ran.
    pub check: String,
    /// The commit whose tree it ran on.
    pub commit: CommitId,
    /// How it ended.
    pub outcome: CheckOutcome,
    /// How long it ran, in milliseconds.
    pub duration_ms: u64,
    /// The digest of its whole output.
    pub log: Digest,
    /// The length of its whole output in bytes.
    pub log_bytes: u64,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename = "ChangeSet", deny_unknown_fields)]
struct ChangeSetFields {
    base: CommitId,
    candidate: CommitId,
    changes: Vec<Change>,
    irregularities: Vec<Irregularity>,
    patch_bytes: u64,
}

impl From<ChangeSetFields> for ChangeSet {
    fn from(fields: ChangeSetFields) -> Self {
        Self::new(fields.base, fields.candidate, fields.changes, fields.irregularities, fields.patch_bytes)
    }
}

/// Changed paths that some file system holds for one. Collisions with unchanged files are found by whoever
/// walks the tree and arrive as [`Irregularity`].
fn collisions(changes: &[Change]) -> Vec<Violation> {
    let mut present: Vec<(String, &RepoPath)> = changes
        .iter()
        .filter(|change| change.after.is_some())
        .map(|change| (change.path.collision_key(), &change.path))
        .collect();
    present.sort();
    present
        .windows(2)
        .filter(|pair| pair[0].0 == pair[1].0)
        .map(|pair| Violation::collision(pair[1].1, pair[0].1))
        .collect()
}

/// What in the change exceeds the limits.
fn beyond(limits: &Limits, change_set: &ChangeSet) -> Vec<Violation> {
    let mut violations = Vec::new();
    let files = change_set.changes.len();
    if files > limits.max_files_changed as usize {
        let message = format!("{files} files are changed; max_files_changed is {}", limits.max_files_changed);
        violations.push(Violation::of_whole(ViolationKind::TooManyFiles, message));
    }
    if change_set.patch_bytes > limits.max_patch_bytes {
        let message = format!(
            "the patch is {} bytes long; max_patch_bytes is {}",
            change_set.patch_bytes, limits.max_patch_bytes
        );
        violations.push(Violation::of_whole(ViolationKind::PatchTooLarge, message));
    }
    let sizes =
        change_set.changes.iter().filter_map(|change| Some((&change.path, change.after.as_ref()?.size)));
    let too_large = sizes.filter(|(_, size)| *size > limits.max_file_bytes);
    violations.extend(too_large.map(|(path, size)| Violation {
        path: path.to_string(),
        kind: ViolationKind::FileTooLarge,
        rule: None,
        message: format!("the file is {size} bytes long; max_file_bytes is {}", limits.max_file_bytes),
    }));
    violations
}

fn unproven(policy: &Policy, reports: &[InvariantReport], candidate: &CommitId) -> Vec<String> {
    let missing = policy.invariants.iter().filter_map(|invariant| {
        let found = reports.iter().filter(|report| report.name == invariant.name).count();
        match found {
            0 => Some(format!("the invariant `{}` has no report", invariant.name)),
            1 => None,
            more => Some(format!("the invariant `{}` has {more} reports instead of one", invariant.name)),
        }
    });
    let unfit = reports.iter().filter_map(|report| unfit(policy, report, candidate));
    missing.chain(unfit).collect()
}

/// What is missing in the reports of the checks with the base's own files.
fn unproven_with_base_files(policy: &Policy, reports: &[InvariantReport], are_needed: bool) -> Vec<String> {
    if !are_needed {
        return reports
            .iter()
            .map(|report| format!("nobody asked for the second report `{}`", report.name))
            .collect();
    }
    let missing = policy.invariants.iter().filter_map(|invariant| {
        let mut found =
            reports.iter().filter(|one| one.name == invariant.name && one.check == invariant.check);
        match (found.next(), found.next()) {
            (Some(report), None) if policy.strict_checks && !report.outcome.is_pass() => Some(format!(
                "with the base's check configuration the invariant `{}` {}",
                report.name, report.outcome
            )),
            (Some(_), None) => None,
            (None, _) | (Some(_), Some(_)) => Some(format!(
                "the invariant `{}` has not exactly one report with the base's check configuration",
                invariant.name
            )),
        }
    });
    missing.collect()
}

fn unfit(policy: &Policy, report: &InvariantReport, candidate: &CommitId) -> Option<String> {
    let name = &report.name;
    let Some(invariant) = policy.invariants.iter().find(|invariant| invariant.name == *name) else {
        return Some(format!("the report `{name}` belongs to no invariant of the policy"));
    };
    if report.check != invariant.check {
        return Some(format!("the report `{name}` is of another command: `{}`", report.check));
    }
    if report.commit != *candidate {
        return Some(format!("the report `{name}` is of commit {}, not of {candidate}", report.commit));
    }
    (!report.outcome.is_pass()).then(|| format!("the invariant `{name}` {}", report.outcome))
}
