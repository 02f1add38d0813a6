//! The scheduler dies right after each of its steps. Whatever it left behind, the next start goes on from there:
//! one attempt, one branch, one pull request, one commit that says completed.
#![expect(clippy::unwrap_used, reason = "a story that cannot be set up has failed")]

use std::process::Command;
use std::time::{Duration, Instant};

use leviathan_stories::{Entry, Installation, MergeKind, eventually};

const POLICY: &str = "scopes:
  notes:
    allowed_paths: ['notes/**']
invariants:
  - name: Notes are not empty
    check: \"test -s notes/first.txt\"
";

const BRANCH: &str = "leviathan/task-1-a1";

/// One task whose agent is this shell command.
fn installation(agent: &str) -> Installation {
    let backlog = format!(
        "# What we want done, in our order.
tasks:
  - task_id: task-1
    title: Write a note
    scope: notes
    allowed_paths: [notes/1.txt]
    agent: {{command: '{agent}'}}
    status: pending # set by Leviathan
"
    );
    Installation::new(&[("notes/first.txt", "first\n")], &backlog, POLICY)
}

fn story() -> Installation {
    installation("echo 1 > notes/1.txt")
}

/// One pass that dies at `point`.
#[track_caller]
fn dies_at(story: &Installation, point: &str) {
    let mut command = story.command("leviathan", &["scheduler", "--once"]);
    let status = command.env("LEVIATHAN_FAULT", point).output().unwrap().status;
    assert_eq!(status.code(), None, "the scheduler must die at {point}");
}

/// Passes until the pull request waits for its human.
#[track_caller]
fn until_in_review(story: &Installation) {
    eventually("the pull request is open", || {
        story.pass().succeeded();
        story.json(&["tasks-list"])["tasks"][0]["state"] == "in_review"
            && story.json(&["attempts-list"])["attempts"][0]["status"] == "completed"
    });
}

fn count(story: &Installation, event_type: &str) -> usize {
    story.event_types("task-1").iter().filter(|seen| *seen == event_type).count()
}

#[track_caller]
fn exactly_one_of_everything(story: &Installation) {
    assert_eq!(story.json(&["attempts-list"])["total"], 1);
    let refs: Vec<String> = story.origin.refs().into_iter().map(|(name, _)| name).collect();
    let branches: Vec<_> = refs.iter().filter(|name| name.starts_with("refs/heads/leviathan/")).collect();
    assert_eq!(branches, [&format!("refs/heads/{BRANCH}")]);
    assert_eq!(refs.iter().filter(|name| is_pull_request(name)).count(), 1, "{refs:?}");
    assert_eq!(story.origin.read_git(&["rev-list", "--count", &format!("main..{BRANCH}")]).trim(), "1");
    for once in ["task.created", "attempt.created", "pr.created", "attempt.completed"] {
        assert_eq!(count(story, once), 1, "{once}");
    }
}

fn is_pull_request(name: &str) -> bool {
    name.starts_with("refs/pull/") && name.ends_with("/meta")
}

/// How many commits of the default branch say that a task is completed.
fn completions(story: &Installation) -> String {
    let log =
        ["log", "--format=%s", "--grep=Leviathan-Task: task-1", "main", "--", ".leviathan/backlog.yaml"];
    story.origin.read_git(&log)
}

#[test]
fn before_the_pull_request() {
    let rows: &[(&[&str], u32)] = &[
        (&["after_record"], 1),
        (&["after_claim"], 2),
        (&["after_claim", "after_dispatch"], 3),
        (&["after_launch"], 1),
    ];
    for (points, epochs) in rows {
        let story = story();
        for point in *points {
            dies_at(&story, point);
        }
        until_in_review(&story);
        exactly_one_of_everything(&story);
        let handed_out = u32::try_from(count(&story, "attempt.claimed")).unwrap();
        assert_eq!(handed_out, *epochs, "{points:?}");
    }
}

#[test]
fn after_the_merge() {
    for (point, outcome) in [("after_pr_merged", "committed"), ("after_write_back_push", "already_done")] {
        let story = story();
        until_in_review(&story);
        exactly_one_of_everything(&story);
        let before = story.backlog();
        story.origin.merge(BRANCH, MergeKind::Merge);
        dies_at(&story, point);
        story.pass().succeeded();
        story.pass().succeeded();
        assert_eq!(story.backlog(), before.replace("status: pending", "status: completed"), "{point}");
        assert_eq!(completions(&story), "Mark task-1 as completed\n", "{point}");
        for once in ["pr.merged", "task.completed", "backlog.updated", "attempt.created"] {
            assert_eq!(count(&story, once), 1, "{once} after {point}");
        }
        let tasks = story.json(&["tasks-list"]);
        assert_eq!(tasks["tasks"][0]["state"], "completed");
        let events = story.events();
        let updated = events.iter().find(|event| event["event_type"] == "backlog.updated").unwrap();
        assert_eq!(updated["payload"]["outcome"], outcome, "{point}");
    }
}

#[test]
fn a_protected_default_branch_gets_one_rolling_pull_request() {
    let story = story();
    until_in_review(&story);
    story.origin.merge(BRANCH, MergeKind::Squash);
    story.origin.protect("main");
    dies_at(&story, "after_backlog_branch_push");
    for _ in 0..2 {
        story.pass().succeeded();
    }
    let pull_requests = story.origin.refs().into_iter().filter(|(name, _)| is_pull_request(name)).count();
    assert_eq!(pull_requests, 2, "the task's own, and the one that rolls");
    assert!(story.backlog().contains("status: pending"), "nothing went round the protection");
    assert_eq!(story.json(&["tasks-list"])["tasks"][0]["state"], "completed", "it counts all the same");
    assert_eq!(count(&story, "backlog.updated"), 1);

    // Humans may do on the forge what we may not.
    story.origin.install_hook("update", "exit 0");
    story.origin.merge("leviathan/backlog", MergeKind::Merge);
    story.origin.protect("main");
    story.pass().succeeded();
    story.pass().succeeded();
    assert!(story.backlog().contains("status: completed # set by Leviathan"));
    assert_eq!(count(&story, "backlog.updated"), 2);
    assert_eq!(story.json(&["attempts-list"])["total"], 1);
}

#[test]
fn a_human_who_edits_the_task_meanwhile_is_not_overruled() {
    let story = story();
    until_in_review(&story);
    let edited = story.backlog().replace("Write a note", "Write a longer note");
    story.origin.commit("main", "Want more", &[Entry::file(".leviathan/backlog.yaml", &edited)]);
    story.origin.merge(BRANCH, MergeKind::Merge);
    story.ctl(&["pause", "--reason", "look first"]).succeeded();
    story.pass().succeeded();
    story.pass().succeeded();
    assert_eq!(story.backlog(), edited);
    let events = story.events();
    let updated: Vec<_> = events.iter().filter(|event| event["event_type"] == "backlog.updated").collect();
    assert_eq!(updated.len(), 1);
    assert_eq!(updated[0]["payload"]["outcome"], "skipped");
}

#[test]
fn an_executor_that_is_killed_is_lost_and_its_task_is_tried_again_later() {
    let story = installation("sleep 600");
    let mut scheduler = story.start(&["scheduler", "--once"]);
    eventually("the attempt is under way", || count(&story, "attempt.started") == 1);
    kill_executor(&story);
    assert_eq!(scheduler.ended(), Some(0));
    let attempt = &story.json(&["attempts-list"])["attempts"][0];
    assert_eq!(attempt["status"], "lost");
    let task = &story.json(&["tasks-list"])["tasks"][0];
    assert_eq!((task["state"].as_str(), task["reason"].as_str()), (Some("pending"), Some("backoff")));
    story.pass().succeeded();
    assert_eq!(count(&story, "attempt.lost"), 1);
    assert_eq!(count(&story, "attempt.created"), 1, "not before its time");
}

#[test]
fn a_scheduler_that_is_told_to_stop_leaves_its_executors_at_work() {
    let story = installation("sleep 2; echo 1 > notes/1.txt");
    let mut scheduler = story.start(&["scheduler", "--interval", "100ms"]);
    eventually("the attempt is under way", || count(&story, "attempt.started") == 1);
    signal(scheduler.pid(), "-TERM");
    let told = Instant::now();
    assert_eq!(scheduler.ended(), Some(0));
    assert!(told.elapsed() < Duration::from_secs(20), "it waits for nobody");
    until_in_review(&story);
    exactly_one_of_everything(&story);
    assert_eq!(count(&story, "attempt.claimed"), 1, "adopted, not started again");
}

#[test]
fn a_broken_contract_is_shown_and_stops_nobody_else() {
    let story = story();
    let targets = story.data().join("targets");
    std::fs::create_dir_all(&targets).unwrap();
    std::fs::write(targets.join("broken.yaml"), "target_id: other\nname: [\n").unwrap();
    let pass = story.leviathan(&["scheduler", "--once"]);
    assert_eq!(pass.code, 1, "{}", pass.stderr);
    assert!(pass.stderr.contains("broken.yaml"), "{}", pass.stderr);
    assert_eq!(story.json(&["tasks-list"])["tasks"][0]["state"], "in_review");
}

#[test]
fn without_a_control_plane_there_is_no_pass() {
    let mut story = story();
    story.kill_control_plane();
    let pass = story.pass();
    assert_eq!(pass.code, 2);
    assert!(pass.stderr.contains("leviathan up"), "it says what to do: {}", pass.stderr);
    story.start_control_plane();
    until_in_review(&story);
}

/// Kills the running executor of this installation.
fn kill_executor(story: &Installation) {
    let attempts = std::fs::read_dir(story.data().join("attempts")).unwrap();
    for attempt in attempts {
        let launched = std::fs::read_to_string(attempt.unwrap().path().join("launched.json")).unwrap();
        let launched: serde_json::Value = serde_json::from_str(&launched).unwrap();
        signal(u32::try_from(launched["pid"].as_u64().unwrap()).unwrap(), "-KILL");
    }
}

fn signal(pid: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}
