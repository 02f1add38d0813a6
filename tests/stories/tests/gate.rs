//! `leviathan check --diff`: the gate by itself, for CI and for people.

#![expect(clippy::unwrap_used, reason = "a story fails where it is told")]

use std::path::Path;
use std::process::Command;

use leviathan_stories::{Entry, Finished, Origin, contract, program};

const BACKLOG: &str = "tasks:
  - task_id: task-001
    title: Log requests
    scope: api
    priority: high
    estimated_size: small
    allowed_paths:
      - src/api/**
    acceptance_criteria: [Requests are logged]
    status: pending
";

const POLICY: &str = "scopes:
  api:
    allowed_paths:
      - src/**
    forbidden_patterns:
      - '**/secret*'
invariants: []
";

fn origin() -> Origin {
    let origin = Origin::empty();
    let entries = [
        Entry::file(".leviathan/contract.yaml", contract(&origin.url())),
        Entry::file(".leviathan/backlog.yaml", BACKLOG),
        Entry::file(".leviathan/policy.yaml", POLICY),
        Entry::file("src/api/users.py", "users = []\n"),
        Entry::file("src/db/users.py", "table = 'users'\n"),
    ];
    origin.commit("main", "Base", &entries);
    origin
}

fn check(folder: &Path, arguments: &[&str]) -> Finished {
    Finished::of(
        Command::new(program("leviathan")).arg("check").arg(folder).args(arguments).env("NO_COLOR", "1"),
    )
}

/// The verdict on one set of edits: exit code, and the lines without their rules.
fn verdict(edits: &[Entry]) -> (i32, String) {
    let origin = origin();
    let base = origin.resolve("main").unwrap();
    let head = origin.commit("main", "Change", edits);
    let finished = check(origin.dir(), &["--diff", &format!("{base}..{head}"), "--task", "task-001"]);
    (finished.code, finished.stdout)
}

#[test]
fn a_change_within_task_and_scope_is_permitted_by_the_rules_it_names() {
    let (code, stdout) = verdict(&[Entry::file("src/api/users.py", "users = [1]\n")]);
    assert_eq!(code, 0, "{stdout}");
    assert_eq!(
        stdout,
        "permitted\tsrc/api/users.py\tallowed_paths src/api/** (.leviathan/backlog.yaml:8) and \
         allowed_paths src/** (.leviathan/policy.yaml:4)\nok: 1 file may be changed by this task\n"
    );
}

#[test]
fn whatever_leaves_the_scope_is_denied() {
    let rows: &[(&str, Vec<Entry>)] = &[
        ("src/db/users.py", vec![Entry::file("src/db/users.py", "x = 1\n")]),
        ("src/api/secret.txt", vec![Entry::file("src/api/secret.txt", "x\n")]),
        (".leviathan/policy.yaml", vec![Entry::file(".leviathan/policy.yaml", "scopes: {}\n")]),
        (
            "src/db/users.py",
            vec![Entry::removed("src/db/users.py"), Entry::file("src/api/moved.py", "table = 'users'\n")],
        ),
        ("src/api/link", vec![Entry::symlink("src/api/link", "/etc/passwd")]),
        ("src/api/sub", vec![Entry::gitlink("src/api/sub", &"1".repeat(40))]),
        ("src/api/users.py", vec![Entry::executable("src/api/users.py", "users = []\n")]),
    ];
    for (path, edits) in rows {
        let (code, stdout) = verdict(edits);
        assert_eq!(code, 1, "{path}: {stdout}");
        assert!(stdout.contains(&format!("denied\t{path}\t")), "{path}: {stdout}");
    }
}

#[test]
fn what_cannot_be_judged_is_said() {
    let origin = origin();
    let rows: &[(&[&str], &str)] = &[
        (&["--diff", "main...main", "--task", "task-001"], "merge base"),
        (&["--diff", "main", "--task", "task-001"], "expected two commits as BASE..HEAD"),
        (&["--diff", "nowhere..main", "--task", "task-001"], "`nowhere` names no commit here"),
        (&["--diff", "main..main", "--task", "task-999"], "has no task `task-999`"),
        (&["--diff", "main..main"], "--task"),
    ];
    for (arguments, expected) in rows {
        let finished = check(origin.dir(), arguments);
        assert_eq!(finished.code, 2, "{arguments:?}");
        assert!(finished.stderr.contains(expected), "{arguments:?}: {}", finished.stderr);
    }
    let nowhere = tempfile::tempdir().unwrap();
    let finished = check(nowhere.path(), &["--diff", "a..b", "--task", "task-001"]);
    assert!(finished.stderr.contains("is in no git repository"), "{}", finished.stderr);
}
