//! The demo is the first thing that a stranger runs: it keeps its promises, also when it is asked twice.

#![expect(clippy::unwrap_used, reason = "a story fails where it is told")]

use std::path::Path;
use std::process::Command;

use leviathan_stories::{Finished, program};

fn demo(arguments: &[&str], home: &Path) -> Finished {
    let mut command = Command::new(program("leviathan"));
    command
        .arg("demo")
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .current_dir(home);
    Finished::of(&mut command)
}

fn git(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git").arg("-C").arg(dir).args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_promised_outcome_is_seen_and_a_merge_completes_the_task() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("demo");
    let shown = demo(&["--dir", dir.to_str().unwrap(), "--exit"], home.path()).succeeded().stdout;
    for promised in [
        "PULL REQUEST #1",
        "src/timer.sh: a forbidden pattern of the scope matches the path: forbidden_patterns src/** (.leviathan/policy.yaml:7)",
        "invariant FAILED: Tests must pass",
        "waits (dependency): task-001 must be completed first",
        "git merge --no-ff origin/leviathan/task-001-a1",
    ] {
        assert!(shown.contains(promised), "{promised} is missing in\n{shown}");
    }
    assert!(!shown.contains('\u{1b}'), "colour is for terminals");
    let origin = dir.join("origin.git");
    let branches = git(&origin, &["for-each-ref", "--format=%(refname:short)", "refs/heads"]);
    assert_eq!(
        branches, "leviathan/task-001-a1\nmain\n",
        "only the permitted and verified change was pushed"
    );
    assert_eq!(git(&origin, &["rev-list", "--count", "main"]), "1\n", "nothing merges by itself");

    let merged = demo(&["--dir", dir.to_str().unwrap(), "--merge", "--exit"], home.path()).succeeded().stdout;
    assert!(merged.contains("backlog.yaml on main now says status: completed"), "{merged}");
    let backlog = git(&origin, &["show", "main:.leviathan/backlog.yaml"]);
    assert_eq!(backlog.matches("status: completed").count(), 1);
    assert!(dir.join("data/journal").is_dir());
}

#[test]
fn a_folder_with_something_else_in_it_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("precious.txt"), "mine").unwrap();
    let refused = demo(&["--dir", home.path().to_str().unwrap(), "--exit"], home.path());
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("is not empty and holds no demo"), "{}", refused.stderr);
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
}
