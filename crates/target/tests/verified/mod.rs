//! A change that went the whole way: permitted by rules, verified by reports.

use model::documents::{Document, Documents};
use model::{
    Change, ChangeSet, CheckOutcome, CommitId, Digest, Entry, InvariantReport, Mode, ObjectId, PathRules,
    RepoPath, RepoUrl, TargetSpec, VerifiedChange,
};

/// The documents of the specification's example, with this address and these patterns in task and scope.
pub(crate) fn documents(repo_url: &str, allowed_paths: &[&str], invariants: &[(&str, &str)]) -> TargetSpec {
    let contract = "target_id: my-repo\nname: My Repository\nrepo_url: git@github.com:owner/my-repo.git\n\
                    default_branch: main\n";
    let allowed = serde_json::to_string(allowed_paths).expect("texts are JSON");
    let backlog = format!(
        "tasks:\n  - task_id: task-deps-2024-01\n    title: \"Update Python dependencies to latest\"\n    \
         scope: dependencies\n    priority: high\n    allowed_paths: {allowed}\n    acceptance_criteria:\n      \
         - \"All dependencies updated to latest compatible versions\"\n      - \"Tests pass\"\n    status: pending\n"
    );
    let invariants: Vec<serde_json::Value> =
        invariants.iter().map(|(name, check)| serde_json::json!({ "name": name, "check": check })).collect();
    let policy = format!(
        "scopes:\n  dependencies:\n    allowed_paths: {allowed}\nlimits: {{ max_files_changed: 5000 }}\ninvariants: {}\n",
        serde_json::Value::from(invariants)
    );
    fn document<'a>(file: &'a str, text: &'a str) -> Document<'a> {
        Document { file, content: Some(text.as_bytes()) }
    }
    let documents = Documents {
        contract: document(".leviathan/contract.yaml", contract),
        backlog: document(".leviathan/backlog.yaml", &backlog),
        policy: document(".leviathan/policy.yaml", &policy),
        operator_policy: None,
    };
    let mut spec =
        TargetSpec::parse(CommitId::parse("a".repeat(40)).expect("a commit"), &documents).expect("documents");
    spec.contract.repo_url = RepoUrl::parse(repo_url).expect("an address");
    spec
}

/// The verified change of these paths between two commits. Every invariant ran for 12.3 s.
pub(crate) fn verified(spec: &TargetSpec, base: &str, commit: &str, paths: &[&str]) -> VerifiedChange {
    let [base, commit] = [base, commit].map(|id| CommitId::parse(id).expect("a commit"));
    let entry = |digit: &str| Entry {
        mode: Mode::Regular,
        object: ObjectId::parse(digit.repeat(40)).expect("an object"),
        size: 10,
    };
    let changes = paths.iter().copied().map(|path| Change {
        path: RepoPath::parse(path).expect("a path"),
        before: Some(entry("1")),
        after: Some(entry("2")),
        is_binary: false,
        is_lfs_pointer: false,
        secrets: Vec::new(),
        added_lines: 15,
        removed_lines: 14,
    });
    let set = ChangeSet::new(base, commit.clone(), changes.collect(), Vec::new(), 400);
    let rules = PathRules::for_task(spec, &spec.backlog.tasks[0]);
    let permitted = set.permit(&rules, &spec.policy.limits).expect("the paths are allowed");
    let report = |invariant: &model::Invariant, outcome| InvariantReport {
        name: invariant.name.clone(),
        check: invariant.check.clone(),
        commit: commit.clone(),
        outcome,
        duration_ms: 12_345,
        log: Digest::of(invariant.name.as_bytes()),
        log_bytes: 17,
    };
    let reports = |outcome: CheckOutcome| {
        spec.policy.invariants.iter().map(|invariant| report(invariant, outcome.clone())).collect::<Vec<_>>()
    };
    let second = match permitted.check_files().is_empty() {
        true => Vec::new(),
        false => reports(CheckOutcome::Failed { exit_code: 1 }),
    };
    permitted.verify(&spec.policy, reports(CheckOutcome::Passed), second).expect("every invariant passed")
}
