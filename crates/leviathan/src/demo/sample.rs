//! The sample repository of the demo: a tea timer in shell, with the three documents and four tasks.

use std::path::Path;

/// A file of the first commit: path and content.
pub(super) struct File {
    pub(super) path: &'static str,
    pub(super) content: String,
}

/// The task that ends in a pull request.
pub(super) const WANTED: &str = "task-001";
/// The task whose change leaves its scope.
pub(super) const ASTRAY: &str = "task-002";
/// The task whose change breaks an invariant.
pub(super) const BREAKING: &str = "task-003";
/// The task that waits for the first.
pub(super) const WAITING: &str = "task-004";

/// Every file of the sample, for a repository at `origin`. With a model at hand the first and the last task
/// are left to it; the two that must go wrong are always done by commands, since no model errs on request.
pub(super) fn files(origin: &Path, with_model: bool) -> Vec<File> {
    let fixed = [
        ("README.md", README),
        ("docs/usage.md", USAGE),
        ("src/timer.sh", TIMER),
        ("tests/run.sh", TESTS),
        (".leviathan/policy.yaml", POLICY),
    ];
    let mut files: Vec<File> =
        fixed.map(|(path, content)| File { path, content: content.to_owned() }).into_iter().collect();
    files.push(File { path: ".leviathan/contract.yaml", content: contract(origin) });
    files.push(File { path: ".leviathan/backlog.yaml", content: backlog(with_model) });
    files
}

const README: &str = "\
# Tea timer

Says when the tea is ready.
";

const USAGE: &str = "\
# Usage

    sh src/timer.sh MINUTES
";

const TIMER: &str = "\
#!/bin/sh
# Says for how long the tea still draws.
minutes=${1:-3}
echo \"Tea in $minutes minutes.\"
";

const TESTS: &str = "\
#!/bin/sh
# The timer must name the minutes that it was given.
test \"$(sh src/timer.sh 4)\" = 'Tea in 4 minutes.'
";

const POLICY: &str = "\
scopes:
  documentation:
    allowed_paths:
      - README.md
      - docs/**
    forbidden_patterns:
      - src/**
      - tests/**
  code:
    allowed_paths:
      - src/**
    forbidden_patterns:
      - tests/**

invariants:
  - name: \"Tests must pass\"
    check: \"sh tests/run.sh\"
  - name: \"Scripts must parse\"
    check: \"sh -n src/timer.sh\"

limits:
  max_attempts: 1
  max_concurrent: 1
";

fn contract(origin: &Path) -> String {
    format!(
        "\
target_id: tea-timer
name: Tea timer
repo_url: file://{}
default_branch: main
description: \"The sample repository of the demo\"
owner: you
",
        origin.display()
    )
}

fn backlog(with_model: bool) -> String {
    let agent = |command: &str| {
        if with_model { String::new() } else { format!("    agent:\n      command: {command}\n") }
    };
    let document = agent(r#"printf '\nWithout MINUTES the tea draws for three minutes.\n' >> docs/usage.md"#);
    let mention = agent(r#"printf '\nSee docs/usage.md.\n' >> README.md"#);
    format!(
        r#"tasks:
  # This one is wanted and well behaved: it ends in a pull request.
  - task_id: {WANTED}
    title: "Document the default time"
    scope: documentation
    priority: high
    estimated_size: small
    allowed_paths:
      - docs/usage.md
    acceptance_criteria:
      - "docs/usage.md says how long the tea draws when no minutes are given"
{document}    status: pending

  # The agent of this one also touches the code: the path rules refuse it.
  - task_id: {ASTRAY}
    title: "Explain the greeting"
    scope: documentation
    priority: medium
    estimated_size: small
    allowed_paths:
      - docs/**
    acceptance_criteria:
      - "docs/usage.md explains what the timer prints"
    agent:
      command: |
        printf '\nIt prints one line.\n' >> docs/usage.md
        printf '# changed in passing\n' >> src/timer.sh
    status: pending

  # This one stays in its scope and breaks the tests: an invariant fails.
  - task_id: {BREAKING}
    title: "Make the timer more cheerful"
    scope: code
    priority: medium
    estimated_size: small
    allowed_paths:
      - src/timer.sh
    acceptance_criteria:
      - "The timer sounds cheerful"
    agent:
      command: |
        sed 's/Tea in/Lovely tea in/' src/timer.sh > timer.new && cat timer.new > src/timer.sh && rm timer.new
    status: pending

  # This one waits until a human has merged the first.
  - task_id: {WAITING}
    title: "Mention the usage page in the README"
    scope: documentation
    priority: low
    estimated_size: small
    depends_on: [{WANTED}]
    allowed_paths:
      - README.md
    acceptance_criteria:
      - "README.md names docs/usage.md"
{mention}    status: pending
"#
    )
}
