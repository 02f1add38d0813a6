//! Every YAML example of the specification is accepted as it stands there. Fragments are completed only by
//! the lines that surround such a fragment in a whole document.

use leviathan_model::{
    AgentChoice, Backlog, CommitId, Contract, Document, Documents, Policy, Priority, Size, Status,
    TargetSpec, TaskId,
};

const CONTRACT: &str = r#"target_id: my-repo
name: My Repository
repo_url: git@github.com:owner/my-repo.git
default_branch: main
description: "Production service for X"
owner: team-platform
created_at: "2024-01-01T00:00:00Z"
"#;

const BACKLOG: &str = r#"tasks:
  - task_id: task-001
    title: "Update dependencies"
    scope: dependencies
    priority: high
    estimated_size: small
    allowed_paths:
      - requirements.txt
      - package.json
    acceptance_criteria:
      - "All dependencies updated to latest compatible versions"
      - "Tests pass"
    status: pending
    
  - task_id: task-002
    title: "Add logging to API endpoints"
    scope: observability
    priority: medium
    estimated_size: medium
    allowed_paths:
      - src/api/**/*.py
    acceptance_criteria:
      - "All endpoints log request/response"
      - "Structured logging format"
    status: pending
"#;

const POLICY: &str = r#"scopes:
  dependencies:
    allowed_paths:
      - requirements.txt
      - package.json
      - Gemfile
    forbidden_patterns:
      - "src/**"
      - "tests/**"
  
  observability:
    allowed_paths:
      - "src/**/*.py"
    forbidden_patterns:
      - "tests/**"
      - "config/**"

invariants:
  - name: "Tests must pass"
    check: "pytest tests/"
    
  - name: "Linting must pass"
    check: "ruff check ."
    
  - name: "No secrets in code"
    check: "detect-secrets scan"
"#;

const WORKFLOW_TASK: &str = r#"- task_id: task-deps-2024-01
  title: "Update Python dependencies to latest"
  scope: dependencies
  priority: high
  estimated_size: small
  allowed_paths:
    - requirements.txt
  acceptance_criteria:
    - "All dependencies updated to latest compatible versions"
    - "Tests pass"
  status: pending
"#;

const SCOPE_FRAGMENT: &str = r#"  allowed_paths:
    - src/api/*.py
  
# Executor will REJECT changes to:
# - src/database/*.py (not in allowed_paths)
# - tests/*.py (not in allowed_paths)
# - config/*.yaml (not in allowed_paths)
"#;

const INVARIANTS_FRAGMENT: &str = r#"invariants:
  - name: "Tests pass"
    check: "pytest tests/"
  - name: "Linting passes"
    check: "ruff check ."
"#;

const BLOCKED_FRAGMENT: &str = r#"# Manually update backlog.yaml
tasks:
  - task_id: problematic-task
    status: blocked  # Prevents scheduler from picking it
    blocked_reason: "Needs investigation - fails on step X"
"#;

const BROAD_TASK: &str = r#"- title: "Refactor entire codebase"
  allowed_paths: ["**/*.py"]
"#;

const FOCUSED_TASK: &str = r#"- title: "Add logging to user API endpoints"
  allowed_paths: ["src/api/users/*.py"]
"#;

const VAGUE_CRITERIA: &str = r#"acceptance_criteria:
  - "Make it better"
"#;

const EXPLICIT_CRITERIA: &str = r#"acceptance_criteria:
  - "All user API endpoints log request/response"
  - "Logs include user_id and request_id"
  - "Tests pass"
"#;

const BROAD_SCOPE: &str = r#"scopes:
  general:
    allowed_paths: ["**/*"]
"#;

const NARROW_SCOPES: &str = r#"scopes:
  api:
    allowed_paths: ["src/api/**/*.py"]
  tests:
    allowed_paths: ["tests/**/*.py"]
"#;

const STRONG_INVARIANTS: &str = r#"invariants:
  - name: "Tests pass"
    check: "pytest tests/ --cov=80"
  - name: "Type checking passes"
    check: "mypy src/"
  - name: "No secrets"
    check: "detect-secrets scan"
  - name: "Security scan passes"
    check: "bandit -r src/"
"#;

#[test]
fn the_three_documents_are_accepted_and_mean_what_they_say() {
    let spec = TargetSpec::parse(commit(), &documents(CONTRACT, BACKLOG, POLICY)).unwrap();

    assert_eq!(spec.contract.target_id.as_str(), "my-repo");
    assert_eq!(spec.contract.repo_url.over_https(), "https://github.com/owner/my-repo.git");
    assert_eq!(spec.contract.created_at.unwrap().to_string(), "2024-01-01T00:00:00Z");

    let [first, second] = spec.backlog.tasks.as_slice() else { panic!("two tasks") };
    assert_eq!((first.priority, first.estimated_size), (Priority::High, Some(Size::Small)));
    assert_eq!((second.scope.as_str(), second.status), ("observability", Status::Pending));
    assert_eq!(second.allowed_paths[0].pattern.as_str(), "src/api/**/*.py");
    assert_eq!((second.allowed_paths[0].line, second.allowed_paths[0].column), (21, 9));

    assert_eq!(spec.policy.scopes["observability"].forbidden_patterns.len(), 2);
    assert_eq!(spec.policy.invariants[2].check, "detect-secrets scan");
}

#[test]
fn the_only_warning_is_the_check_that_cannot_fail() {
    let spec = TargetSpec::parse(commit(), &documents(CONTRACT, BACKLOG, POLICY)).unwrap();
    let warnings: Vec<String> = spec.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "policy.yaml:26:12: `detect-secrets scan` exits with 0 also when it finds secrets: this check cannot fail; \
             hint: use `detect-secrets-hook`, which fails on a finding"
        ]
    );
}

#[test]
fn every_example_of_a_backlog_is_accepted() {
    let task = "tasks:\n- task_id: task-1\n  title: One\n  scope: general\n";
    let indented = |text: &str| text.lines().map(|line| format!("  {line}\n")).collect::<String>();
    let as_item = |text: &str| {
        format!("tasks:\n{}", text.replace("- title", "- task_id: task-1\n  scope: general\n  title"))
    };
    for text in [
        BACKLOG.to_owned(),
        format!("tasks:\n{WORKFLOW_TASK}"),
        format!("{task}{SCOPE_FRAGMENT}"),
        BLOCKED_FRAGMENT.to_owned(),
        as_item(BROAD_TASK),
        as_item(FOCUSED_TASK),
        format!("{task}{}", indented(VAGUE_CRITERIA)),
        format!("{task}{}", indented(EXPLICIT_CRITERIA)),
    ] {
        if let Err(problems) = Backlog::parse("backlog.yaml", text.as_bytes()) {
            panic!("{text}\n{problems}");
        }
    }
}

#[test]
fn every_example_of_a_policy_is_accepted() {
    for text in [POLICY, INVARIANTS_FRAGMENT, BROAD_SCOPE, NARROW_SCOPES, STRONG_INVARIANTS] {
        if let Err(problems) = Policy::parse("policy.yaml", text.as_bytes()) {
            panic!("{text}\n{problems}");
        }
    }
    Contract::parse("contract.yaml", CONTRACT.as_bytes()).unwrap();
}

#[test]
fn every_optional_field_is_understood() {
    let backlog = "\
tasks:
  - task_id: first
    title: One ⚠️ 👩‍💻
    scope: docs
    description: |
      Several
      lines
    depends_on: [second]
    max_attempts: 4
    timeout: 1h30m
    agent: {command: \"make docs\"}
    x-ticket: 7
  - {task_id: second, title: Two, scope: docs, status: blocked, blocked_reason: later, agent: claude}
";
    let policy = "\
scopes:
  docs: {description: texts, allowed_paths: [docs/], forbidden_patterns: []}
invariants:
  - {name: tests, check: pytest, timeout: 90s}
  - {name: lint, check: ruff check .}
limits: {max_files_changed: 7, max_patch_bytes: 512KiB, max_file_bytes: 1000, attempt_timeout: 45m, max_attempts: 3, max_open_prs: 9, max_concurrent: 2, budget_usd: 2.50, budget_usd_per_task: 4, budget_usd_per_day: 20}
setup: [pip install -r requirements.txt, {run: npm ci, timeout: 5m}]
network: {agent: [docs.rs], setup: [PyPI.org, '*.pythonhosted.org'], checks: []}
protected: [docs/legal/**]
allow_binary: [docs/*.png]
allow_lfs: [docs/media/]
allow_secrets: [docs/fake.txt]
examples:
  - {scope: docs, allow: [docs/a.md], deny: [docs/legal/terms.md, src/a.py]}
baseline: false
strict_checks: true
sandbox: strict
overlap: wait
x-owner: team
";
    let spec = TargetSpec::parse(commit(), &documents(CONTRACT, backlog, policy)).unwrap();

    let [first, second] = spec.backlog.tasks.as_slice() else { panic!("two tasks") };
    assert_eq!(first.description.as_deref(), Some("Several\nlines\n"));
    assert_eq!(first.depends_on.as_slice(), std::slice::from_ref(&second.task_id));
    assert_eq!(first.agent, Some(AgentChoice::Command("make docs".to_owned())));
    assert_eq!((second.status, second.blocked_reason.as_deref()), (Status::Blocked, Some("later")));
    assert_eq!(second.agent, Some(AgentChoice::Claude));
    let limits = spec.limits_for(first);
    assert_eq!((limits.max_attempts, limits.attempt_timeout.as_secs()), (4, 5400));
    assert_eq!(spec.limits_for(second).max_attempts, 3);

    let policy = serde_json::to_value(&spec.policy).unwrap();
    assert_eq!(
        policy,
        serde_json::json!({
            "scopes": { "docs": { "description": "texts", "allowed_paths": ["docs/"], "forbidden_patterns": [] } },
            "invariants": [
                { "name": "tests", "check": "pytest", "timeout": "1m30s" },
                { "name": "lint", "check": "ruff check .", "timeout": "10m" },
            ],
            "limits": {
                "max_files_changed": 7, "max_patch_bytes": 524_288, "max_file_bytes": 1000,
                "attempt_timeout": "45m", "max_attempts": 3, "max_open_prs": 9, "max_concurrent": 2,
                "budget_usd": 2.5, "budget_usd_per_task": 4.0, "budget_usd_per_day": 20.0,
            },
            "setup": [
                { "run": "pip install -r requirements.txt", "timeout": "10m" },
                { "run": "npm ci", "timeout": "5m" },
            ],
            "network": { "agent": ["docs.rs"], "setup": ["pypi.org", "*.pythonhosted.org"], "checks": [] },
            "protected": ["docs/legal/**"],
            "allow_binary": ["docs/*.png"],
            "allow_lfs": ["docs/media/"],
            "allow_secrets": ["docs/fake.txt"],
            "examples": [{ "scope": "docs", "allow": ["docs/a.md"], "deny": ["docs/legal/terms.md", "src/a.py"] }],
            "baseline": false,
            "strict_checks": true,
            "sandbox": "strict",
            "overlap": "wait",
        })
    );
}

#[test]
fn the_task_of_the_workflow_is_what_a_command_agent_reads() {
    let backlog = Backlog::parse("backlog.yaml", format!("tasks:\n{WORKFLOW_TASK}").as_bytes()).unwrap();
    assert_eq!(
        serde_json::to_value(&backlog.tasks[0]).unwrap(),
        serde_json::json!({
            "task_id": "task-deps-2024-01",
            "title": "Update Python dependencies to latest",
            "scope": "dependencies",
            "priority": "high",
            "estimated_size": "small",
            "allowed_paths": ["requirements.txt"],
            "acceptance_criteria": ["All dependencies updated to latest compatible versions", "Tests pass"],
            "status": "pending",
        })
    );
}

#[test]
fn the_workflow_example_ends_with_one_changed_word() {
    let before = format!("tasks:\n{WORKFLOW_TASK}");
    let task = TaskId::parse("task-deps-2024-01").unwrap();
    let after =
        Backlog::set_status("backlog.yaml", &before, &task, Status::Pending, Status::Completed).unwrap();
    assert_eq!(after, before.replace("status: pending", "status: completed"));
}

fn documents<'a>(contract: &'a str, backlog: &'a str, policy: &'a str) -> Documents<'a> {
    let document = |file, text: &'a str| Document { file, content: Some(text.as_bytes()) };
    Documents {
        contract: document("contract.yaml", contract),
        backlog: document("backlog.yaml", backlog),
        policy: document("policy.yaml", policy),
        operator_policy: None,
    }
}

fn commit() -> CommitId {
    CommitId::parse("0123456789abcdef0123456789abcdef01234567").expect("forty digits")
}
