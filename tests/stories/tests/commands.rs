//! The operator's commands against a running installation: what happened, why nothing happens, and how to stop it.

#![expect(clippy::unwrap_used, reason = "a story fails where it is told")]

use leviathan_stories::{Installation, Program, eventually};

const POLICY: &str = "scopes:
  notes:
    allowed_paths: ['notes/**']
invariants:
  - name: Notes are there
    check: 'test -d notes'
limits:
  max_attempts: 1
";

fn task(name: &str, command: &str) -> String {
    format!(
        "  - task_id: {name}
    title: Write {name}
    scope: notes
    priority: medium
    estimated_size: small
    allowed_paths: ['notes/**']
    acceptance_criteria: [It is written]
    agent: {{command: '{command}'}}
    status: pending
"
    )
}

fn story(tasks: &[(&str, &str)]) -> Installation {
    let tasks: String = tasks.iter().map(|(name, command)| task(name, command)).collect();
    Installation::new(&[("notes/first.txt", "first\n")], &format!("tasks:\n{tasks}"), POLICY)
}

/// The only attempt there is.
fn attempt(story: &Installation) -> String {
    let attempts = story.json(&["attempts-list"]);
    attempts["attempts"][0]["attempt_id"].as_str().unwrap().to_owned()
}

#[test]
fn the_commands_of_the_specification_answer() {
    let story = story(&[("good", "echo x > notes/x.txt"), ("astray", "echo x > elsewhere.txt")]);
    story.pass();
    story.pass();
    let summary = story.json(&["graph-summary"]);
    assert_eq!(summary["nodes_by_type"]["Attempt"], 2);
    assert_eq!(summary["nodes_by_type"]["PullRequest"], 1);
    assert_eq!(story.json(&["attempts-list", "--limit", "20"])["count"], 2);
    let failures = story.json(&["failures-recent", "--limit", "10"]);
    assert_eq!(failures["failures"][0]["failure"]["reason"], "scope_violation");
    let id = failures["failures"][0]["attempt_id"].as_str().unwrap();
    let shown = story.ctl(&["attempts-show", id]).succeeded().stdout;
    assert!(
        shown.contains("elsewhere.txt") && shown.contains("policy.yaml:") || shown.contains("backlog.yaml:"),
        "{shown}"
    );
    let unknown = story.ctl(&["attempts-show", "attempt-nowhere"]);
    assert_eq!(unknown.code, 1);
    assert!(unknown.stderr.contains("attempt-nowhere"), "{}", unknown.stderr);
    for command in
        ["graph-summary", "attempts-list", "failures-recent", "tasks-list", "targets-list", "events-tail"]
    {
        story.ctl(&[command]).succeeded();
    }
}

#[test]
fn an_invalidated_attempt_lets_the_task_run_again() {
    let story = story(&[("astray", "echo x > elsewhere.txt")]);
    story.pass();
    assert_eq!(story.json(&["tasks-list"])["tasks"][0]["reason"], "parked");
    let first = attempt(&story);
    let done = story.ctl(&["invalidate", &first, "--reason", "Transient API error, retry"]).succeeded();
    assert!(done.stdout.contains(&first), "{}", done.stdout);
    story.pass();
    assert_eq!(story.json(&["attempts-list"])["total"], 2);
    let shown = story.ctl(&["attempts-show", &first]).succeeded().stdout;
    assert!(shown.contains("Transient API error, retry"), "{shown}");
}

#[test]
fn the_pull_request_of_an_invalidated_attempt_is_left_to_humans() {
    let story = story(&[("good", "echo x > notes/x.txt")]);
    story.pass();
    let id = attempt(&story);
    story.ctl(&["invalidate", &id, "--reason", "The task was wrong"]).succeeded();
    story.pass();
    story.pass();
    let meta = story.origin.read_git(&["cat-file", "blob", "refs/pull/1/meta"]);
    let meta: serde_json::Value = serde_json::from_str(&meta).unwrap();
    assert_eq!(meta["labels"], serde_json::json!(["leviathan-cancelled"]));
    let types = story.event_types("good");
    assert_eq!(types.iter().filter(|seen| *seen == "pr.human_owned").count(), 1, "{types:?}");
    assert_eq!(
        story.json(&["tasks-list"])["tasks"][0]["reason"],
        "in_review",
        "an open pull request is never closed"
    );
}

#[test]
fn a_pause_stops_new_attempts_until_resumed() {
    let story = story(&[("good", "echo x > notes/x.txt")]);
    story.ctl(&["pause", "--reason", "Emergency stop"]).succeeded();
    story.pass();
    assert_eq!(story.json(&["attempts-list"])["total"], 0);
    let tasks = story.ctl(&["tasks-list"]).succeeded().stdout;
    assert!(tasks.contains("paused") && tasks.contains("Emergency stop"), "{tasks}");
    story.ctl(&["resume"]).succeeded();
    story.pass();
    assert_eq!(story.json(&["attempts-list"])["total"], 1);
}

#[test]
fn a_cancelled_attempt_stops_at_once_and_leaves_nothing_running() {
    // The agent leaves a process behind that nothing but its own name connects to the attempt.
    let marker = format!("leviathan-story-{}", std::process::id());
    let mut story = story(&[("slow", "x")]);
    // An agent of the operator's own is no part of the repository: the sandbox must be told where it may be read.
    let tools = tempfile::tempdir().unwrap();
    let script = tools.path().join("slow.sh");
    std::fs::write(
        &script,
        format!(
            "#!/bin/bash\nsetsid bash -c 'exec -a {marker} sleep 1000' &\ntouch notes/begun\nsleep 1000\n"
        ),
    )
    .unwrap();
    story.set("LEVIATHAN_AGENT", &format!("command:bash {}", script.display()));
    story.set("LEVIATHAN_SANDBOX_READ", tools.path().to_str().unwrap());
    let backlog = format!("tasks:\n{}", task("slow", "x").replace("    agent: {command: 'x'}\n", ""));
    story.origin.commit(
        "main",
        "Leave the agent to the operator",
        &[leviathan_stories::Entry::file(".leviathan/backlog.yaml", backlog)],
    );
    let mut scheduler: Program = story.start(&["scheduler", "--once"]);
    eventually("the agent runs", || is_running(&marker));
    let id = attempt(&story);
    story.ctl(&["cancel", &id, "--reason", "Emergency stop"]).succeeded();
    eventually("everything of the attempt is gone", || !is_running(&marker));
    assert_eq!(scheduler.ended(), Some(0));
    let types = story.event_types("slow");
    assert!(
        types.iter().any(|seen| seen == "attempt.cancelled")
            && !types.iter().any(|seen| seen == "pr.created"),
        "{types:?}"
    );
    assert_eq!(story.json(&["tasks-list"])["tasks"][0]["reason"], "parked");
}

fn is_running(marker: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).any(|argument| argument == marker.as_bytes()))
    })
}
