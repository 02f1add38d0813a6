//! Reading policy.yaml, the repository's and the operator's.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::backlog::{duration, path_rules};
use super::decode::{Fields, boolean, choice, count, line, list, mapping, parsed, placed, quantity, text};
use super::findings::{Findings, Placed, Position};
use super::quantity::{MONEY_FORM, SIZE_FORM, TEN_MINUTES, parse_size};
use super::warnings;
use super::yaml::{self, Node, Value, shown};
use super::{
    Example, Invariant, Limits, MicroDollars, Network, Overlap, PathRule, Policy, Sandbox, Scope, Setup,
};
use crate::RepoPath;
use crate::rules::PathRules;

/// A policy with what the cross-check needs beside it.
pub(super) struct ReadPolicy {
    /// The policy without the parts that have problems.
    pub(super) policy: Policy,
    /// The name of every scope, those with problems included.
    pub(super) scope_names: BTreeSet<String>,
}

/// Reads a policy. What the text does not say is taken from `silent`.
pub(super) fn read(content: &[u8], silent: Policy, findings: &mut Findings) -> Option<ReadPolicy> {
    let root = yaml::read(content, findings)?;
    let mut fields = Fields::of("the policy", &root, findings)?;
    let mut scope_names = BTreeSet::new();
    let problems_before_rules = findings.problems.len();
    let protected = fields.optional("protected", findings, path_rules);
    let allow_binary = fields.optional("allow_binary", findings, path_rules);
    let allow_lfs = fields.optional("allow_lfs", findings, path_rules);
    let allow_secrets = fields.optional("allow_secrets", findings, literal_paths);
    let scopes = fields.optional("scopes", findings, |_, node, findings| {
        let mapping = mapping("`scopes`", node, findings)?;
        scope_names.extend(mapping.entries.iter().map(|entry| entry.key.clone()));
        Some(mapping.entries.iter().filter_map(|entry| scope(entry, findings)).collect::<BTreeMap<_, _>>())
    });
    let rules_are_whole = findings.problems.len() == problems_before_rules;
    let invariants = fields.optional("invariants", findings, invariants);
    let limits =
        fields.optional("limits", findings, |_, node, findings| limits(node, silent.limits, findings));
    let setup = fields.optional("setup", findings, |name, node, findings| list(name, node, findings, setup));
    let network = fields.optional("network", findings, |_, node, findings| network(node, findings));
    let examples = fields.optional("examples", findings, |name, node, findings| {
        list(name, node, findings, |_, node, findings| example(node, findings))
    });
    let baseline = fields.optional("baseline", findings, boolean);
    let strict_checks = fields.optional("strict_checks", findings, boolean);
    let sandbox = fields.optional("sandbox", findings, sandbox);
    let overlap = fields.optional("overlap", findings, overlap);
    fields.finish(findings);

    let examples = examples.flatten().unwrap_or_default();
    let policy = Policy {
        scopes: scopes.flatten().unwrap_or_default(),
        invariants: invariants.flatten().unwrap_or_default(),
        limits: limits.flatten().unwrap_or(silent.limits),
        setup: setup.flatten().unwrap_or_default(),
        network: network.flatten().unwrap_or(silent.network),
        protected: protected.flatten().unwrap_or_default(),
        allow_binary: allow_binary.flatten().unwrap_or(silent.allow_binary),
        allow_lfs: allow_lfs.flatten().unwrap_or(silent.allow_lfs),
        allow_secrets: allow_secrets.flatten().unwrap_or(silent.allow_secrets),
        examples: examples.iter().map(PlacedExample::example).collect(),
        baseline: baseline.flatten().unwrap_or(silent.baseline),
        strict_checks: strict_checks.flatten().unwrap_or(silent.strict_checks),
        sandbox: sandbox.flatten().unwrap_or(silent.sandbox),
        overlap: overlap.flatten().unwrap_or(silent.overlap),
    };
    // Rules that were refused in part say nothing about an example.
    if rules_are_whole {
        for example in &examples {
            check_example(example, &policy, findings);
        }
    }
    Some(ReadPolicy { policy, scope_names })
}

fn scope(entry: &yaml::Entry, findings: &mut Findings) -> Option<(String, Scope)> {
    if entry.key.trim().is_empty() || entry.key.chars().any(crate::path::is_hidden) {
        let message = format!("`{}` is no name of a scope; expected visible text", shown(&entry.key));
        findings.problem(entry.at, message, None);
        return None;
    }
    let mut fields = Fields::of("a scope", &entry.value, findings)?;
    let description = fields.optional("description", findings, text);
    let allowed_paths = fields.optional("allowed_paths", findings, path_rules);
    let forbidden_patterns = fields.optional("forbidden_patterns", findings, path_rules);
    fields.finish(findings);
    let scope = Scope {
        description: description?,
        allowed_paths: allowed_paths?.unwrap_or_default(),
        forbidden_patterns: forbidden_patterns?.unwrap_or_default(),
    };
    Some((entry.key.clone(), scope))
}

/// Rules that each name one file. A secret is too grave for a wildcard.
fn literal_paths(name: &str, node: &Node, findings: &mut Findings) -> Option<Vec<PathRule>> {
    let rules = path_rules(name, node, findings)?;
    for rule in rules.iter().filter(|rule| !rule.pattern.is_literal()) {
        let message = format!("`{}` names more than one file; expected the path of a file", rule.pattern);
        findings.problem(Position { line: rule.line, column: rule.column }, message, None);
    }
    Some(rules)
}

fn invariants(name: &str, node: &Node, findings: &mut Findings) -> Option<Vec<Invariant>> {
    let invariants = list(name, node, findings, |_, node, findings| invariant(node, findings))?;
    let mut seen = HashMap::new();
    for Placed { value: invariant, at } in &invariants {
        if let Some(first) = seen.insert(&invariant.name, at.line) {
            let name = shown(&invariant.name);
            let message = format!(
                "the invariant `{name}` has the name of the one in line {first}; expected names that differ"
            );
            findings.problem(*at, message, None);
        }
    }
    Some(invariants.into_iter().map(|invariant| invariant.value).collect())
}

fn invariant(node: &Node, findings: &mut Findings) -> Option<Placed<Invariant>> {
    let mut fields = Fields::of("an invariant", node, findings)?;
    let at = fields.at();
    let name = fields.required("name", findings, line);
    let check = fields.required("check", findings, check);
    let timeout = fields.optional("timeout", findings, duration);
    fields.finish(findings);
    let invariant = Invariant { name: name?, check: check?, timeout: timeout?.unwrap_or(TEN_MINUTES) };
    check_size(&invariant, at, findings);
    Some(Placed { value: invariant, at })
}

/// Each run of an invariant is an event of the log, with its name and command.
fn check_size(invariant: &Invariant, at: Position, findings: &mut Findings) {
    const LARGEST: usize = 16 << 10;
    let size = invariant.name.len() + invariant.check.len();
    if size > LARGEST {
        let message =
            format!("name and check of the invariant have {size} bytes; expected at most {LARGEST}");
        let hint = "put the commands into a script of the repository, and run that";
        findings.problem(at, message, Some(hint.to_owned()));
    }
}

fn check(name: &str, node: &Node, findings: &mut Findings) -> Option<String> {
    let check = text(name, node, findings)?;
    warnings::of_check(&check, node.at, findings);
    Some(check)
}

fn setup(name: &str, node: &Node, findings: &mut Findings) -> Option<Setup> {
    let Value::Mapping(_) = node.value else {
        return text(name, node, findings).map(|run| Setup { run, timeout: TEN_MINUTES });
    };
    let mut fields = Fields::of("a setup command", node, findings)?;
    let run = fields.required("run", findings, text);
    let timeout = fields.optional("timeout", findings, duration);
    fields.finish(findings);
    Some(Setup { run: run?, timeout: timeout?.unwrap_or(TEN_MINUTES) })
}

fn limits(node: &Node, silent: Limits, findings: &mut Findings) -> Option<Limits> {
    let mut fields = Fields::of("`limits`", node, findings)?;
    let max_files_changed = fields.optional("max_files_changed", findings, count);
    let max_patch_bytes = fields.optional("max_patch_bytes", findings, bytes);
    let max_file_bytes = fields.optional("max_file_bytes", findings, bytes);
    let attempt_timeout = fields.optional("attempt_timeout", findings, duration);
    let max_attempts = fields.optional("max_attempts", findings, count);
    let max_open_prs = fields.optional("max_open_prs", findings, count);
    let max_concurrent = fields.optional("max_concurrent", findings, count);
    let budget_usd = fields.optional("budget_usd", findings, dollars);
    let budget_usd_per_task = fields.optional("budget_usd_per_task", findings, dollars);
    let budget_usd_per_day = fields.optional("budget_usd_per_day", findings, dollars);
    fields.finish(findings);
    Some(Limits {
        max_files_changed: max_files_changed?.unwrap_or(silent.max_files_changed),
        max_patch_bytes: max_patch_bytes?.unwrap_or(silent.max_patch_bytes),
        max_file_bytes: max_file_bytes?.unwrap_or(silent.max_file_bytes),
        attempt_timeout: attempt_timeout?.unwrap_or(silent.attempt_timeout),
        max_attempts: max_attempts?.unwrap_or(silent.max_attempts),
        max_open_prs: max_open_prs?.unwrap_or(silent.max_open_prs),
        max_concurrent: max_concurrent?.unwrap_or(silent.max_concurrent),
        budget_usd: budget_usd?.unwrap_or(silent.budget_usd),
        budget_usd_per_task: budget_usd_per_task?.or(silent.budget_usd_per_task),
        budget_usd_per_day: budget_usd_per_day?.or(silent.budget_usd_per_day),
    })
}

fn bytes(name: &str, node: &Node, findings: &mut Findings) -> Option<u64> {
    quantity(name, node, findings, SIZE_FORM, parse_size)
}

fn dollars(name: &str, node: &Node, findings: &mut Findings) -> Option<MicroDollars> {
    quantity(name, node, findings, MONEY_FORM, MicroDollars::parse)
}

fn network(node: &Node, findings: &mut Findings) -> Option<Network> {
    let mut fields = Fields::of("`network`", node, findings)?;
    let agent = fields.optional("agent", findings, hosts);
    let setup = fields.optional("setup", findings, hosts);
    let checks = fields.optional("checks", findings, hosts);
    fields.finish(findings);
    Some(Network {
        agent: agent?.unwrap_or_default(),
        setup: setup?.unwrap_or_default(),
        checks: checks?.unwrap_or_default(),
    })
}

fn hosts(name: &str, node: &Node, findings: &mut Findings) -> Option<Vec<String>> {
    list(name, node, findings, |name, node, findings| {
        parsed(name, node, findings, |text| {
            let host = text.to_ascii_lowercase();
            let form = "expected a host such as `pypi.org`, `*.example.org` for every host below, or `*`";
            if is_host_pattern(&host) {
                Ok(host)
            } else {
                Err(format!("`{}` is no host; {form}", shown(text)))
            }
        })
    })
}

fn is_host_pattern(text: &str) -> bool {
    let host = text.strip_prefix("*.").unwrap_or(text);
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text == "*" || host.split('.').all(is_label)
}

fn sandbox(name: &str, node: &Node, findings: &mut Findings) -> Option<Sandbox> {
    let choices = [("strict", Sandbox::Strict), ("standard", Sandbox::Standard), ("none", Sandbox::None)];
    choice(name, node, findings, &choices)
}

fn overlap(name: &str, node: &Node, findings: &mut Findings) -> Option<Overlap> {
    choice(name, node, findings, &[("allow", Overlap::Allow), ("wait", Overlap::Wait)])
}

struct PlacedExample {
    scope: Placed<String>,
    allow: Vec<Placed<RepoPath>>,
    deny: Vec<Placed<RepoPath>>,
}

impl PlacedExample {
    fn example(&self) -> Example {
        let paths = |placed: &[Placed<RepoPath>]| placed.iter().map(|path| path.value.clone()).collect();
        Example { scope: self.scope.value.clone(), allow: paths(&self.allow), deny: paths(&self.deny) }
    }
}

fn example(node: &Node, findings: &mut Findings) -> Option<PlacedExample> {
    let mut fields = Fields::of("an example", node, findings)?;
    let scope = fields.required("scope", findings, placed(line));
    let allow = fields.optional("allow", findings, paths);
    let deny = fields.optional("deny", findings, paths);
    fields.finish(findings);
    Some(PlacedExample { scope: scope?, allow: allow?.unwrap_or_default(), deny: deny?.unwrap_or_default() })
}

fn paths(name: &str, node: &Node, findings: &mut Findings) -> Option<Vec<Placed<RepoPath>>> {
    list(
        name,
        node,
        findings,
        placed(|name: &str, node: &Node, findings: &mut Findings| {
            parsed(name, node, findings, RepoPath::parse)
        }),
    )
}

fn check_example(example: &PlacedExample, policy: &Policy, findings: &mut Findings) {
    let scope = &example.scope;
    if !policy.scopes.contains_key(&scope.value) {
        let message =
            format!("the example names the scope `{}`; expected a scope of this policy", shown(&scope.value));
        findings.problem(scope.at, message, None);
        return;
    }
    let rules = PathRules::for_scope(policy, &scope.value);
    for path in &example.allow {
        if let Some(violation) = rules.judge_path(&path.value).violation() {
            let message = format!("the example does not hold: {violation}; expected it to be permitted");
            findings.problem(path.at, message, None);
        }
    }
    for path in &example.deny {
        if let Some(rule) = rules.judge_path(&path.value).rules().first() {
            let message = format!(
                "the example does not hold: `{}` is permitted by {rule}; expected it to be denied",
                path.value
            );
            findings.problem(path.at, message, None);
        }
    }
}
