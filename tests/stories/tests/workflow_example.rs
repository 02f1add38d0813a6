//! The specification's workflow example, step by step, through the public programs: a task to update
//! `requirements.txt`, an agent, invariants, a pull request, a human's merge, and `status: completed`.

use leviathan_stories::{Installation, MergeKind};

const TASK: &str = "task-deps-2024-01";

const BACKLOG: &str = r#"tasks:
  # Humans add tasks here explicitly.
  - task_id: task-deps-2024-01
    title: "Update Python dependencies to latest"
    scope: dependencies
    priority: high
    estimated_size: small
    allowed_paths:
      - requirements.txt
    acceptance_criteria:
      - "All dependencies updated to latest compatible versions"
      - "Tests pass"
    status: pending   # set by humans, and by a merge

  - task_id: task-later
    title: "Something for another day"
    scope: dependencies
    priority: low
    estimated_size: small
    allowed_paths: [package.json]
    acceptance_criteria: ["It is done"]
    status: blocked
    blocked_reason: "Needs investigation - fails on step X"
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

invariants:
  - name: "Tests must pass"
    check: "pytest-3 -q -p no:cacheprovider tests/"
  - name: "Dependencies are pinned"
    check: "! grep -v '==' requirements.txt"
"#;

const FILES: &[(&str, &str)] = &[
    ("requirements.txt", "requests==2.0.0\nflask==1.0.0\n"),
    ("src/app.py", "def greet(name):\n    return f'Hello {name}'\n"),
    (
        "tests/test_app.py",
        "import sys\nsys.path.insert(0, 'src')\nfrom app import greet\n\n\ndef test_greet():\n    assert greet('you') == 'Hello you'\n",
    ),
];

const AGENT: &str = "command:sed -i 's/2.0.0/2.32.0/; s/1.0.0/3.0.0/' requirements.txt";

#[test]
fn update_python_dependencies() {
    // Step 1: a human added the task to backlog.yaml.
    let mut story = Installation::new(FILES, BACKLOG, POLICY);
    story.set("LEVIATHAN_AGENT", AGENT);

    // Steps 2 and 3: the scheduler picks the task, the executor runs it.
    let pass = story.pass().succeeded();
    assert!(!pass.stderr.contains("panicked"), "{}", pass.stderr);

    // Step 4: the pull request says what was changed, checked and by whom.
    let attempts = story.json(&["attempts-list"]);
    let attempt = &attempts["attempts"][0];
    assert_eq!((attempt["task_id"].as_str(), attempt["status"].as_str()), (Some(TASK), Some("completed")));
    let branch = attempt["branch"].as_str().unwrap();
    assert_eq!(branch, format!("leviathan/{TASK}-a1"));
    assert_eq!(
        story.origin.read_git(&["diff", "--name-only", &format!("main...{branch}")]).trim(),
        "requirements.txt"
    );
    let pull_request = story.origin.read_git(&["cat-file", "blob", "refs/pull/1/meta"]);
    let pull_request: serde_json::Value = serde_json::from_str(&pull_request).unwrap();
    assert_eq!(pull_request["title"], "Update Python dependencies to latest");
    let body = pull_request["body"].as_str().unwrap();
    let attempt_id = attempt["attempt_id"].as_str().unwrap();
    for expected in [
        "requirements.txt",
        "✓ Tests passed",
        "Dependencies are pinned",
        "✓ Only allowed files modified",
        "Leviathan Metadata:",
        TASK,
        attempt_id,
        "All dependencies updated to latest compatible versions",
        "- [ ]",
        "policy.yaml:",
    ] {
        assert!(body.contains(expected), "{expected} is missing in\n{body}");
    }

    // Every step was logged, under the specification's names.
    let types = story.event_types(TASK);
    let specified = ["task.created", "attempt.created", "attempt.started", "pr.created", "attempt.completed"];
    let mut rest = types.iter();
    for step in specified {
        assert!(rest.any(|seen| seen == step), "{step} is missing or out of order in {types:?}");
    }
    assert!(!types.iter().any(|seen| seen == "pr.merged"), "nothing merges by itself");

    // While the pull request is open the task waits for its human, and the blocked one stays blocked.
    let tasks = story.json(&["tasks-list"]);
    let reasons: Vec<_> =
        tasks["tasks"].as_array().unwrap().iter().map(|task| task["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, ["in_review", "blocked"]);

    // Step 5: the human reviews and merges.
    story.origin.merge(branch, MergeKind::Merge);

    // Step 6: the backlog is updated, in that one word.
    story.pass().succeeded();
    assert_eq!(story.backlog(), BACKLOG.replacen("status: pending ", "status: completed ", 1));
    let changed = story.origin.read_git(&["diff", "--name-only", "main~1..main"]);
    assert_eq!(changed.trim(), ".leviathan/backlog.yaml");
    let types = story.event_types(TASK);
    for step in ["pr.merged", "task.completed", "backlog.updated"] {
        assert!(types.iter().any(|seen| seen == step), "{step} is missing in {types:?}");
    }

    // And it stays so: nothing runs twice.
    story.pass().succeeded();
    assert_eq!(story.json(&["attempts-list"])["total"], 1);
    let shown = story.ctl(&["attempts-show", attempt_id]).succeeded().stdout;
    for expected in ["requirements.txt", "Tests must pass", "merged", "leviathan/task-deps-2024-01-a1"] {
        assert!(shown.contains(expected), "{expected} is missing in\n{shown}");
    }
}
