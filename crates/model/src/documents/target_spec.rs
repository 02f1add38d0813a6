//! The three documents together: read, cross-checked, and tightened by the operator's policy.

use super::backlog::{self, ReadBacklog};
use super::findings::Findings;
use super::policy::{self, ReadPolicy};
use super::yaml::shown;
use super::{
    Backlog, Contract, DocumentDigests, Invariant, Limits, MicroDollars, Network, Overlap, PathRule, Policy,
    Problem, Problems, Sandbox, TargetSpec, Task, contract, warnings,
};
use crate::{CommitId, Digest, PathPattern, TaskId};

/// One document as it was found: the name that messages use, and its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Document<'a> {
    /// The file as messages name it.
    pub file: &'a str,
    /// Its bytes; none when there is no such file, which is a problem like any other.
    pub content: Option<&'a [u8]>,
}

/// The texts of a target's documents.
#[derive(Debug, Clone, Copy)]
pub struct Documents<'a> {
    /// contract.yaml.
    pub contract: Document<'a>,
    /// backlog.yaml.
    pub backlog: Document<'a>,
    /// policy.yaml.
    pub policy: Document<'a>,
    /// The operator's policy, if there is one.
    pub operator_policy: Option<Document<'a>>,
}

impl Contract {
    /// Reads a contract alone. `file` is the name that messages use.
    pub fn parse(file: &str, content: &[u8]) -> Result<Self, Problems> {
        let mut findings = Findings::of(file);
        let contract = contract::read(content, &mut findings);
        finished(contract, vec![findings]).map(|(contract, _)| contract)
    }
}

impl Backlog {
    /// Reads a backlog alone, without the policy that its scopes belong to.
    pub fn parse(file: &str, content: &[u8]) -> Result<Self, Problems> {
        let mut findings = Findings::of(file);
        let backlog = backlog::read(content, &mut findings);
        finished(backlog, vec![findings]).map(|(read, _)| read.backlog)
    }

    /// The task of that name.
    pub fn task(&self, task_id: &TaskId) -> Option<&Task> {
        self.tasks.iter().find(|task| task.task_id == *task_id)
    }
}

impl Policy {
    /// Reads a policy alone.
    pub fn parse(file: &str, content: &[u8]) -> Result<Self, Problems> {
        let mut findings = Findings::of(file);
        let policy = policy::read(content, Self::default(), &mut findings);
        finished(policy, vec![findings]).map(|(read, _)| read.policy)
    }

    /// Reads an operator's policy: what it does not say, it leaves to the repository's.
    pub fn parse_operator(file: &str, content: &[u8]) -> Result<Self, Problems> {
        let mut findings = Findings::of(file);
        let policy = policy::read(content, Self::unrestricted(), &mut findings);
        finished(policy, vec![findings]).map(|(read, _)| read.policy)
    }

    /// The policy that tightens no other.
    fn unrestricted() -> Self {
        let any_host = vec!["*".to_owned()];
        let any_path = vec![PathRule {
            pattern: PathPattern::parse("**").expect("`**` is a pattern"),
            file: "unrestricted".into(),
            line: 1,
            column: 1,
        }];
        Self {
            limits: Limits {
                max_files_changed: u32::MAX,
                max_patch_bytes: u64::MAX,
                max_file_bytes: u64::MAX,
                attempt_timeout: std::time::Duration::MAX,
                max_attempts: u32::MAX,
                max_open_prs: u32::MAX,
                max_concurrent: u32::MAX,
                budget_usd: MicroDollars(u64::MAX),
                budget_usd_per_task: None,
                budget_usd_per_day: None,
            },
            network: Network { agent: any_host.clone(), setup: any_host.clone(), checks: any_host },
            allow_binary: any_path.clone(),
            allow_lfs: any_path.clone(),
            allow_secrets: any_path,
            baseline: false,
            sandbox: Sandbox::None,
            overlap: Overlap::Allow,
            ..Self::default()
        }
    }

    /// This policy and the operator's at once. Scopes and what is allowed by content stay those of the repository:
    /// a path is judged by both.
    fn tightened_by(self, operator: &Self) -> Self {
        Self {
            scopes: self.scopes,
            invariants: united(self.invariants, &operator.invariants),
            limits: self.limits.tightened_by(&operator.limits),
            setup: self.setup.into_iter().chain(operator.setup.iter().cloned()).collect(),
            network: self.network.tightened_by(&operator.network),
            protected: self.protected.into_iter().chain(operator.protected.iter().cloned()).collect(),
            allow_binary: self.allow_binary,
            allow_lfs: self.allow_lfs,
            allow_secrets: self.allow_secrets,
            examples: self.examples,
            baseline: self.baseline || operator.baseline,
            strict_checks: self.strict_checks || operator.strict_checks,
            sandbox: self.sandbox.max(operator.sandbox),
            overlap: self.overlap.max(operator.overlap),
        }
    }
}

impl Limits {
    /// The smaller of each.
    fn tightened_by(&self, other: &Self) -> Self {
        Self {
            max_files_changed: self.max_files_changed.min(other.max_files_changed),
            max_patch_bytes: self.max_patch_bytes.min(other.max_patch_bytes),
            max_file_bytes: self.max_file_bytes.min(other.max_file_bytes),
            attempt_timeout: self.attempt_timeout.min(other.attempt_timeout),
            max_attempts: self.max_attempts.min(other.max_attempts),
            max_open_prs: self.max_open_prs.min(other.max_open_prs),
            max_concurrent: self.max_concurrent.min(other.max_concurrent),
            budget_usd: self.budget_usd.min(other.budget_usd),
            budget_usd_per_task: smaller(self.budget_usd_per_task, other.budget_usd_per_task),
            budget_usd_per_day: smaller(self.budget_usd_per_day, other.budget_usd_per_day),
        }
    }
}

/// The smaller of what is said.
fn smaller(one: Option<MicroDollars>, other: Option<MicroDollars>) -> Option<MicroDollars> {
    one.into_iter().chain(other).min()
}

impl Network {
    fn tightened_by(self, operator: &Self) -> Self {
        Self {
            agent: hosts_of_both(self.agent, &operator.agent),
            setup: hosts_of_both(self.setup, &operator.setup),
            checks: hosts_of_both(self.checks, &operator.checks),
        }
    }
}

impl TargetSpec {
    /// Reads the documents of `commit` and checks them against each other. Every problem of all of them is
    /// reported at once.
    pub fn parse(commit: CommitId, documents: &Documents<'_>) -> Result<Self, Problems> {
        let (contract, of_contract) = read(documents.contract, contract::read);
        let (backlog, mut of_backlog) = read(documents.backlog, backlog::read);
        let (policy, mut of_policy) =
            read(documents.policy, |content, findings| policy::read(content, Policy::default(), findings));
        let (operator, of_operator) = match documents.operator_policy {
            Some(document) => {
                let (operator, findings) = read(document, |content, findings| {
                    policy::read(content, Policy::unrestricted(), findings)
                });
                (operator, Some(findings))
            }
            None => (None, None),
        };
        if let (Some(backlog), Some(policy)) = (&backlog, &policy) {
            check_scopes(backlog, policy, &mut of_backlog);
            let operator = operator.as_ref().map(|operator| &operator.policy);
            warnings::of_backlog(&backlog.backlog, &policy.policy, operator, &mut of_backlog);
        }
        if let Some(policy) = &policy {
            warnings::of_policy(&policy.policy, &mut of_policy);
        }

        let findings = [Some(of_contract), Some(of_backlog), Some(of_policy), of_operator];
        let read = contract.zip(backlog).zip(policy);
        let (((contract, backlog), policy), warnings) =
            finished(read, findings.into_iter().flatten().collect())?;
        let operator_policy = operator.map(|operator| operator.policy);
        let policy = match &operator_policy {
            Some(operator) => policy.policy.tightened_by(operator),
            None => policy.policy,
        };
        let backlog = backlog.backlog;
        let digests = DocumentDigests::of(documents);
        Ok(Self {
            commit,
            contract,
            backlog,
            policy,
            operator_policy,
            backlog_is_registered: false,
            digests,
            warnings,
        })
    }

    /// The limits for attempts at `task`: its own `max_attempts` and `timeout` stand for the policy's, but
    /// never exceed the operator's.
    pub fn limits_for(&self, task: &Task) -> Limits {
        let mut limits = self.policy.limits;
        limits.max_attempts = task.max_attempts.unwrap_or(limits.max_attempts);
        limits.attempt_timeout = task.timeout.unwrap_or(limits.attempt_timeout);
        match &self.operator_policy {
            Some(operator) => limits.tightened_by(&operator.limits),
            None => limits,
        }
    }
}

impl DocumentDigests {
    fn of(documents: &Documents<'_>) -> Self {
        let digest = |document: Document<'_>| Digest::of(document.content.unwrap_or_default());
        Self {
            contract: digest(documents.contract),
            backlog: digest(documents.backlog),
            policy: digest(documents.policy),
            operator_policy: documents.operator_policy.map(digest),
        }
    }
}

fn read<T>(
    document: Document<'_>,
    read: impl FnOnce(&[u8], &mut Findings) -> Option<T>,
) -> (Option<T>, Findings) {
    let mut findings = Findings::of(document.file);
    let value = match document.content {
        Some(content) => read(content, &mut findings),
        None => {
            let hint = "`leviathan init` writes the three documents";
            let at = super::findings::Position::START;
            findings.problem(at, "there is no such file".to_owned(), Some(hint.to_owned()));
            None
        }
    };
    (value, findings)
}

/// The value and the warnings, or every problem.
fn finished<T>(value: Option<T>, findings: Vec<Findings>) -> Result<(T, Vec<Problem>), Problems> {
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    for found in findings {
        problems.extend(found.problems);
        warnings.extend(found.warnings);
    }
    warnings.sort();
    match (Problems::of(problems, &warnings), value) {
        (Some(problems), _) => Err(problems),
        (None, Some(value)) => Ok((value, warnings)),
        (None, None) => unreachable!("a value is refused only together with a problem"),
    }
}

fn check_scopes(backlog: &ReadBacklog, policy: &ReadPolicy, findings: &mut Findings) {
    for scope in backlog.declared.iter().filter_map(|task| task.scope.as_ref()) {
        if !policy.scope_names.contains(&scope.value) {
            let known: Vec<&str> = policy.scope_names.iter().map(String::as_str).collect();
            let message = format!(
                "`scope` is `{}`; expected a scope of the policy: {}",
                shown(&scope.value),
                super::decode::one_of(&known)
            );
            findings.problem(scope.at, message, super::decode::did_you_mean(&scope.value, &known));
        }
    }
}

/// All of both. Reports are told apart by name, so an operator's invariant that shares a name is renamed.
fn united(mut ours: Vec<Invariant>, operators: &[Invariant]) -> Vec<Invariant> {
    for invariant in operators {
        let mut invariant = invariant.clone();
        if ours.contains(&invariant) {
            continue;
        }
        while ours.iter().any(|other| other.name == invariant.name) {
            invariant.name.push_str(" (operator)");
        }
        ours.push(invariant);
    }
    ours
}

/// The hosts that both lists permit, each in its narrower form.
fn hosts_of_both(ours: Vec<String>, operators: &[String]) -> Vec<String> {
    let mut both: Vec<String> = Vec::new();
    for our in &ours {
        for operator in operators {
            let narrower = if covers(operator, our) {
                our
            } else if covers(our, operator) {
                operator
            } else {
                continue;
            };
            if !both.contains(narrower) {
                both.push(narrower.clone());
            }
        }
    }
    both
}

/// Whether every host of `inner` is one of `outer`.
fn covers(outer: &str, inner: &str) -> bool {
    let below = |domain: &str| inner.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
    outer == "*" || outer == inner || outer.strip_prefix("*.").is_some_and(below)
}
