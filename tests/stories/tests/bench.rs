//! The benchmark measures real attempts and says what it found in a shape that programs can read. How long
//! anything takes is never asserted here: that depends on the machine.

#![expect(clippy::unwrap_used, reason = "a story fails where it is told")]

use std::process::Command;

use leviathan_stories::{Finished, program};
use serde_json::Value;
use test_support::postgres::Postgres;

/// A repository that is small enough for a test.
const SMALL: [&str; 8] = ["bench", "attempt", "--files", "500", "--commits", "50", "--rounds", "1"];
/// So few attempts that a test can wait for them.
const FEW: [&str; 4] = ["bench", "launch", "--attempts", "20"];

fn measured(subject: &[&str], more: &[&str]) -> Finished {
    let home = tempfile::tempdir().unwrap();
    let temporary = home.path().join("temporary");
    std::fs::create_dir(&temporary).unwrap();
    let mut command = Command::new(program("leviathan"));
    command
        .args(subject)
        .args(more)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home.path())
        .env("TMPDIR", &temporary)
        .current_dir(home.path());
    let finished = Finished::of(&mut command);
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0, "what was measured on is removed again");
    finished
}

#[test]
fn the_overhead_of_an_attempt_is_one_object_on_a_line() {
    let finished = measured(&SMALL, &["--json"]);
    let goal: Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(finished.stdout.lines().count(), 1);
    let mut names: Vec<&String> = goal.as_object().unwrap().keys().collect();
    names.sort();
    assert_eq!(names, ["goal", "limit", "measured", "met", "ratio", "target"]);
    assert_eq!((&goal["goal"], &goal["target"]), (&"attempt-overhead".into(), &2.0.into()));
    let number = |name: &str| goal[name].as_f64().unwrap();
    assert!(number("measured") > 0.0 && number("limit") > 0.0, "{goal}");
    assert!((number("ratio") - number("measured") / number("limit")).abs() < 1e-9, "{goal}");
    assert_eq!(goal["met"], number("ratio") <= 2.0);
    assert_eq!(finished.code, if goal["met"] == true { 0 } else { 1 }, "{}", finished.stderr);
}

#[test]
fn the_table_names_every_step_and_the_ratio() {
    let shown = measured(&SMALL, &[]).stdout;
    for row in [
        "500 files, 50 commits",
        "git worktree add",
        "git diff",
        "git push",
        "prepare, export for the agent",
        "snapshot and gate",
        "export for the checks",
        "pack the candidate",
        "verify it again and push",
        "open the pull request",
        "complete the attempt",
        "at most 2.0",
    ] {
        assert!(shown.contains(row), "{row} is missing in\n{shown}");
    }
}

/// Runs a benchmark and holds what it says to the form: one object a line, with these names, of which those that
/// decide have a target.
fn told(subject: &[&str], rows: &[(&str, bool)]) -> Vec<Value> {
    let finished = measured(subject, &["--json"]);
    let goals: Vec<Value> = finished.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(goals.len(), rows.len(), "{}{}", finished.stdout, finished.stderr);
    for (goal, (name, decides)) in goals.iter().zip(rows) {
        assert_eq!(goal["goal"], *name);
        let number = |name: &str| goal[name].as_f64().unwrap();
        assert!((number("ratio") - number("measured") / number("limit")).abs() < 1e-9, "{goal}");
        assert_eq!((goal["target"].is_number(), goal["met"].is_boolean()), (*decides, *decides), "{goal}");
    }
    let is_missed = goals.iter().any(|goal| goal["met"] == false);
    assert_eq!(finished.code, i32::from(is_missed), "{}", finished.stderr);
    goals
}

/// That every attempt has exactly one Job, one pod and one token is checked by the benchmark itself, which fails
/// otherwise.
#[test]
fn launches_are_told_as_one_object_a_line_with_what_decides() {
    let rows = [
        ("launch-rate", true),
        ("launch-overhead", false),
        ("claim-latency-p50", true),
        ("claim-latency-p99", true),
        ("steady-pass", false),
    ];
    assert_eq!(told(&FEW, &rows)[0]["limit"], 20.0);
}

#[test]
fn recording_and_starting_are_told_as_one_object_a_line() {
    told(&["bench", "journal", "--events", "1000", "--rounds", "10"], &[("G1", true), ("G2", true)]);
    let of_a_start = [
        "G4-replay",
        "G4-cold",
        "G4-snapshot",
        "G5-verify",
        "G5-two-threads",
        "G6-append",
        "G6-summary",
        "G6-find",
    ];
    told(&["bench", "replay", "--events", "10000"], &of_a_start.map(|name| (name, true)));
}

/// Every reader receives every event, however small the machine.
#[test]
fn recording_over_http_is_told_as_one_object_a_line() {
    let few = ["bench", "http", "--events", "2000", "--readers", "50", "--streamed", "20"];
    let goals = told(
        &few,
        &[
            ("G3-single", true),
            ("G3-bundle", true),
            ("G10-lag", true),
            ("G10-proof", true),
            ("G10-stream", true),
        ],
    );
    assert_eq!((&goals[4]["measured"], &goals[4]["met"]), (&1000.0.into(), &true.into()));
}

#[test]
fn recording_in_a_database_is_told_as_one_object_a_line_and_leaves_nothing_there() {
    let server = Postgres::start();
    let databases =
        || server.sql("postgres", "postgres", "SELECT datname FROM pg_database ORDER BY 1").unwrap();
    let before = databases();
    let url = server.url("postgres", "postgres");
    let few = ["bench", "postgres", "--bundles", "5", "--requests", "200", "--postgres-url", &url];
    told(&few, &[("G8-append", true), ("G8-together", true)]);
    assert_eq!(databases(), before);

    server.create_role("nobody_special");
    let url = server.url("nobody_special", "postgres");
    for (url, told) in
        [(&*url, "the right CREATEDB"), ("postgres://localhost:1/x", "cannot reach PostgreSQL")]
    {
        let refused = measured(&["bench", "postgres"], &["--postgres-url", url]);
        assert!(refused.code == 2 && refused.stderr.contains(told), "{}", refused.stderr);
    }
    let refused = measured(&["bench", "postgres"], &[]);
    assert!(
        refused.code == 2 && refused.stderr.contains("LEVIATHAN_POSTGRES_URL is not set"),
        "{}",
        refused.stderr
    );
}

#[test]
fn what_judging_costs_is_told_as_one_object_a_line() {
    let small = ["bench", "gate", "--files", "500", "--changed", "20", "--rounds", "1", "--commands", "5"];
    told(&small, &[("S1", true), ("S2-gate", true)]);
}

#[test]
fn the_table_of_launches_names_what_was_measured() {
    let shown = measured(&FEW, &[]).stdout;
    for row in [
        "20 attempts live at once, 10 targets",
        "the slowest",
        "the same calls without a scheduler",
        "p99",
        "one write and fdatasync of as much",
        "a whole pass",
    ] {
        assert!(shown.contains(row), "{row} is missing in\n{shown}");
    }
}

#[test]
fn what_cannot_be_measured_is_said_before_anything_is_made() {
    let mut command = Command::new(program("leviathan"));
    let refused = Finished::of(command.args(["bench", "attempt", "--files", "3"]));
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("3 is not in 10..=1000000"), "{}", refused.stderr);
}
