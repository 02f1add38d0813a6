//! The demo is the first thing that a stranger runs: it keeps its promises, also when it is asked twice.

#![expect(clippy::unwrap_used, reason = "a story fails where it is told")]

use std::path::Path;
use std::process::Command;

use leviathan_stories::{Finished, Program, eventually, program};

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

/// What the demo says goes to a file, so that it can be read while it waits.
fn start(dir: &Path, home: &Path) -> (Program, std::path::PathBuf) {
    let said = home.join("said.txt");
    let child = Command::new(program("leviathan"))
        .args(["demo", "--dir", dir.to_str().unwrap()])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .stdin(std::process::Stdio::null())
        .stdout(std::fs::File::create(&said).unwrap())
        .spawn()
        .unwrap();
    (child.into(), said)
}

/// Starts a demo, lets `merge` do the human's part once it is asked for, and sees the demo end well by itself.
fn merged_from_another_terminal(merge: impl FnOnce(&Path, &str)) {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("demo");
    let (mut demo, said) = start(&dir, home.path());
    eventually("the demo waits for a merge", || {
        std::fs::read_to_string(&said).is_ok_and(|text| text.contains("Waiting for your merge"))
    });
    merge(&dir, &std::fs::read_to_string(&said).unwrap());
    let ended = demo.ended();
    let text = std::fs::read_to_string(&said).unwrap();
    assert_eq!(ended, Some(0), "{text}");
    assert!(text.contains("backlog.yaml on main now says status: completed"), "{text}");
}

#[test]
fn the_commands_that_it_prints_merge_the_pull_request() {
    merged_from_another_terminal(|dir, said| {
        let after = said.split("Merge it, as the human").nth(1).unwrap();
        let commands: Vec<&str> = after.lines().skip(1).take_while(|line| line.starts_with("  ")).collect();
        assert_eq!(commands.len(), 3, "{said}");
        let typed = format!("set -e\n{}", commands.join("\n"));
        let mut shell = Command::new("sh");
        shell.args(["-c", &typed]).current_dir(dir.parent().unwrap());
        for role in ["AUTHOR", "COMMITTER"] {
            shell.env(format!("GIT_{role}_NAME"), "you").env(format!("GIT_{role}_EMAIL"), "you@localhost");
        }
        Finished::of(&mut shell).succeeded();
    });
}

#[test]
fn another_terminal_can_merge_while_the_demo_runs() {
    merged_from_another_terminal(|dir, _| {
        let merged = demo(&["--dir", dir.to_str().unwrap(), "--merge"], dir.parent().unwrap()).succeeded();
        assert!(merged.stdout.contains("The other terminal shows what follows"), "{}", merged.stdout);
    });
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
