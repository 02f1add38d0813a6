//! A target's documents as its humans would write them, for tests of agents.

use std::sync::Arc;

use leviathan_executor::agent::Brief;
use model::documents::{Document, Documents, TargetSpec};
use model::rules::PathRules;
use model::{AttemptId, CommitId};

const CONTRACT: &str = "\
target_id: sample
name: Sample
repo_url: https://example.com/team/sample.git
default_branch: main
";

const BACKLOG: &str = "\
tasks:
  - task_id: task-001
    title: Return two
    description: The function `one` should be called `two` and return 2.
    scope: code
    priority: high
    allowed_paths:
      - src/**
    acceptance_criteria:
      - two() returns 2
    status: pending
";

const POLICY: &str = "\
scopes:
  code:
    allowed_paths:
      - src/**
    forbidden_patterns:
      - \"**/*.pem\"
invariants:
  - name: tests
    check: pytest
";

/// The brief and the rules of the only task.
pub(crate) fn task() -> (Brief, Arc<PathRules>) {
    let document = |file, text: &'static str| Document { file, content: Some(text.as_bytes()) };
    let documents = Documents {
        contract: document("contract.yaml", CONTRACT),
        backlog: document("backlog.yaml", BACKLOG),
        policy: document("policy.yaml", POLICY),
        operator_policy: None,
    };
    let commit = CommitId::parse("1".repeat(40)).unwrap();
    let spec = TargetSpec::parse(commit, &documents).unwrap_or_else(|problems| panic!("{problems}"));
    let task = &spec.backlog.tasks[0];
    let brief = Brief::new(&spec, task, AttemptId::parse("attempt-1").unwrap());
    (brief, Arc::new(PathRules::for_task(&spec, task)))
}
