//! What in the documents is suspicious without being wrong.

use super::findings::{Findings, Position};
use super::{Backlog, PathRule, Policy, Scope, Status, Task};
use crate::RepoPath;
use crate::rules::PathRules;

/// So many rules of one task or scope are looked at. Each is held against all others: thousands would take minutes.
const MOST_RULES: usize = 50;

/// Warns of a check that passes whatever the tree holds, or may.
pub(super) fn of_check(check: &str, at: Position, findings: &mut Findings) {
    let command = without_quoted(check);
    for (is_suspicious, message, hint) in SUSPICIOUS_CHECKS {
        if is_suspicious(&command) {
            findings.warning(at, (*message).to_owned(), Some((*hint).to_owned()));
        }
    }
}

/// Warns of what in a policy holds nothing back.
pub(super) fn of_policy(policy: &Policy, findings: &mut Findings) {
    if policy.invariants.is_empty() {
        let message =
            "the policy has no invariants: every permitted change becomes a pull request".to_owned();
        findings.warning(Position::START, message, Some("add a check such as the test suite".to_owned()));
    }
    for (name, scope) in &policy.scopes {
        of_scope(policy, name, scope, findings);
    }
    policy.protected.iter().for_each(|rule| of_folder_name(rule, findings));
}

/// Warns of tasks that cannot do what they ask for.
pub(super) fn of_backlog(
    backlog: &Backlog,
    policy: &Policy,
    operator: Option<&Policy>,
    findings: &mut Findings,
) {
    for task in backlog.tasks.iter().filter(|task| task.status == Status::Pending) {
        // A scope that is unknown or has problems is reported as such.
        if let Some(scope) = policy.scopes.get(&task.scope) {
            of_task(task, scope, &PathRules::between(task, policy, operator), findings);
        }
    }
}

type Suspicion = (fn(&str) -> bool, &'static str, &'static str);

const SUSPICIOUS_CHECKS: &[Suspicion] = &[
    (
        |check| check.contains("detect-secrets scan"),
        "`detect-secrets scan` exits with 0 also when it finds secrets: this check cannot fail",
        "use `detect-secrets-hook`, which fails on a finding",
    ),
    (
        |check| ignores_failure(check),
        "the command ignores its failure: this check cannot fail",
        "remove what follows the `||` or the last `;`",
    ),
    (
        |check| words(check).any(|word| word == "--exit-zero" || word == "--exit-zero-even-if-changed"),
        "`--exit-zero` makes the command exit with 0 whatever it finds: this check cannot fail",
        "remove `--exit-zero`",
    ),
    (
        |check| words(check).any(|word| word.strip_prefix("--cov=").is_some_and(is_number)),
        "`--cov=` takes what to measure, not how much must be covered: this is no threshold",
        "use `--cov-fail-under=` with the percentage",
    ),
    (
        |check| has_pipe(check) && !check.contains("pipefail"),
        "the result of a pipe is that of its last command: a failure before it is lost",
        "use `bash -o pipefail -c '…'`",
    ),
    (
        |check| check.trim_end().ends_with('&') && !check.trim_end().ends_with("&&"),
        "the command goes to the background: its failure is lost",
        "remove the `&`",
    ),
];

fn of_scope(policy: &Policy, name: &str, scope: &Scope, findings: &mut Findings) {
    if scope.allowed_paths.is_empty() {
        let line = scope.forbidden_patterns.first().map_or(1, |rule| rule.line);
        let message = format!("the scope `{name}` has no allowed_paths: its tasks can change nothing");
        findings.warning(Position { line, column: 1 }, message, None);
    }
    scope.forbidden_patterns.iter().for_each(|rule| of_folder_name(rule, findings));
    let rules = PathRules::for_scope(policy, name);
    for rule in scope.allowed_paths.iter().take(MOST_RULES) {
        of_breadth(rule, findings);
        of_literal(rule, &rules, findings);
    }
}

fn of_task(task: &Task, scope: &Scope, rules: &PathRules, findings: &mut Findings) {
    if task.allowed_paths.is_empty() {
        let message = format!("the task `{}` has no allowed_paths: it can change nothing", task.task_id);
        findings.warning(Position { line: task.line, column: 1 }, message, None);
    }
    for rule in task.allowed_paths.iter().take(MOST_RULES) {
        of_breadth(rule, findings);
        if rule.pattern.is_literal() {
            of_literal(rule, rules, findings);
        } else if !scope.allowed_paths.iter().any(|allowed| allowed.pattern.overlaps(&rule.pattern)) {
            let message =
                format!("`{}` can match nothing that the scope `{}` allows", rule.pattern, task.scope);
            findings.warning(rule.position(), message, None);
        }
    }
}

/// A pattern for every file bounds nothing.
fn of_breadth(rule: &PathRule, findings: &mut Findings) {
    if rule.pattern.matches_everything() {
        let message = format!("`{}` allows every file", rule.pattern);
        findings.warning(rule.position(), message, Some("name the folders that the work needs".to_owned()));
    }
}

/// A rule that is to deny a folder, but names it as one would name a file, denies nothing below it. What looks
/// like a folder's name is a guess: no dot, and not in capitals as `Makefile` or `LICENSE` are.
fn of_folder_name(rule: &PathRule, findings: &mut Findings) {
    let text = rule.pattern.as_str();
    let name = text.rsplit('/').next().unwrap_or(text);
    if rule.pattern.is_literal() && !name.contains('.') && name.starts_with(char::is_lowercase) {
        let message = format!("`{text}` denies a file of that name, and nothing below a folder of that name");
        findings.warning(rule.position(), message, Some(format!("write `{text}/` for the whole folder")));
    }
}

/// A file that is named and still can never be changed.
fn of_literal(rule: &PathRule, rules: &PathRules, findings: &mut Findings) {
    if !rule.pattern.is_literal() {
        return;
    }
    match RepoPath::parse(rule.pattern.as_str()) {
        Ok(path) => {
            if let Some(violation) = rules.judge_path(&path).violation() {
                findings.warning(
                    rule.position(),
                    format!("the path is denied all the same: {violation}"),
                    None,
                );
            }
        }
        Err(error) => findings.warning(rule.position(), format!("it matches nothing: {error}"), None),
    }
}

impl PathRule {
    fn position(&self) -> Position {
        Position { line: self.line, column: self.column }
    }
}

/// The command with everything between quotes blanked out, so that `grep 'a|b'` is no pipe.
fn without_quoted(command: &str) -> String {
    let mut quote: Option<char> = None;
    let blanked = command.chars().map(|c| match (quote, c) {
        (None, '\'' | '"') => {
            quote = Some(c);
            ' '
        }
        (Some(open), _) => {
            if c == open {
                quote = None;
            }
            ' '
        }
        (None, _) => c,
    });
    blanked.collect()
}

fn words(command: &str) -> impl Iterator<Item = &str> {
    command.split_whitespace()
}

fn ignores_failure(command: &str) -> bool {
    let last = command.rsplit([';', '|', '\n']).find(|part| !part.trim().is_empty()).unwrap_or_default();
    let is_no_op = matches!(last.trim(), "true" | ":" | "exit 0" | "/bin/true");
    is_no_op && last.len() < command.trim().len()
}

fn has_pipe(command: &str) -> bool {
    command.replace("||", "  ").contains('|')
}

fn is_number(text: &str) -> bool {
    text.parse::<f64>().is_ok()
}
