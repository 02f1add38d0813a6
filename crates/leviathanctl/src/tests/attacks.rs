//! Nothing that a repository, an agent or a check writes reaches the terminal as anything but text.

use api::types::{AttemptDetail, TaskList};
use serde_json::{Value, json};

use super::answers::{self, ATTEMPT};
use super::{Answer, ask, ask_on, yes};

const ATTACKS: [&str; 7] = [
    "\u{1b}[2J\u{1b}[H",
    "\u{1b}]0;title\u{7}",
    "\u{1b}]52;c;ZXZpbA==\u{1b}\\",
    "\u{9b}2J\u{9d}0;x\u{9c}",
    "line\nAttempt: forged",
    "\rover",
    "\u{202e}gnp.exe\u{2066}\u{200b}",
];

/// Puts the attack behind every string that is free text.
fn poison(value: &mut Value, attack: &str) {
    const FREE: [&str; 19] = [
        "title",
        "detail",
        "reason",
        "message",
        "rule",
        "name",
        "outcome",
        "summary",
        "url",
        "pr_url",
        "error",
        "next_step",
        "executor",
        "kind",
        "check",
        "agent",
        "launcher",
        "profile",
        "repo_url",
    ];
    match value {
        Value::Object(fields) => {
            for (key, field) in fields {
                // The reason of a failure is from a closed list.
                let is_closed = field.as_str().is_some_and(|text| text.contains("violation"));
                if let (Value::String(text), true) = (&mut *field, FREE.contains(&key.as_str()) && !is_closed)
                {
                    text.push_str(attack);
                } else {
                    poison(field, attack);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| poison(item, attack)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn assert_harmless(shown: &str, lines: usize, attack: &str) {
    let bad = |c: &char| {
        (c.is_control() && *c != '\n')
            || matches!(*c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert_eq!(shown.chars().find(bad), None, "{attack:?} in\n{shown}");
    assert_eq!(shown.lines().count(), lines, "{attack:?} makes or takes lines in\n{shown}");
}

#[test]
fn hostile_text_in_any_answer_stays_text() {
    let detail = format!("attempts-show {ATTEMPT}");
    let rows: [(&str, &'static str, Value); 6] = [
        (
            &detail,
            "GET /v1/attempts/attempt-01khz4e8m0abcdef",
            serde_json::to_value(answers::detail()).unwrap(),
        ),
        (
            "attempts-list",
            "GET /v1/attempts?limit=10",
            serde_json::to_value(answers::attempts(vec![answers::completed(), answers::failed()], 2))
                .unwrap(),
        ),
        ("failures-recent", "GET /v1/failures?limit=10", serde_json::to_value(answers::failures()).unwrap()),
        ("tasks-list", "GET /v1/tasks", serde_json::to_value(answers::tasks()).unwrap()),
        ("targets-list", "GET /v1/targets", serde_json::to_value(answers::targets()).unwrap()),
        ("graph-summary", "GET /v1/graph/summary", serde_json::to_value(answers::summary()).unwrap()),
    ];
    for (command, request, honest) in rows {
        let lines = ask(command, vec![yes(request, &honest)]).shown().lines().count();
        for attack in ATTACKS {
            let mut hostile = honest.clone();
            poison(&mut hostile, attack);
            assert_ne!(hostile, honest);
            let shown = ask(command, vec![yes(request, &hostile)]).shown();
            assert_harmless(&shown, lines, attack);
        }
    }
}

#[test]
fn the_notes_of_an_agent_cannot_leave_their_margin() {
    let mut detail: AttemptDetail = answers::detail();
    detail.agent_notes = vec!["fine\n\nTimeline\n\u{1b}[1A\r     1  forged".to_owned()];
    let request = "GET /v1/attempts/attempt-01khz4e8m0abcdef";
    let shown = ask(&format!("attempts-show {ATTEMPT}"), vec![yes(request, &detail)]).shown();
    assert!(shown.contains("\n  | fine\n  |\n  | Timeline\n  | \\u{1b}[1A\\r     1  forged\n"), "{shown}");
}

#[test]
fn the_log_of_a_check_loses_its_colours_and_its_tricks() {
    let log = b"\x1b[32mPASSED\x1b[0m tests/test_app.py\x1b[2J\r\n\ttab\x07 \xff\n";
    let digest = model::Digest::of(log);
    let request: &'static str = format!("GET /v1/artifacts/{digest}").leak();
    let answer = || vec![Answer { request, status: 200, body: log.to_vec() }];
    let shown = ask_on(Some(80), &format!("artifact {digest}"), answer()).shown();
    assert_eq!(shown, "PASSED tests/test_app.py\\u{1b}[2J\n    tab\\u{7} \u{fffd}\n");
}

#[test]
fn an_error_with_hostile_text_is_one_harmless_line() {
    let body = api::ErrorBody::new(api::ErrorCode::NotFound, "no \u{1b}]0;x\u{7} such \u{202e}thing");
    let refused = ask("targets-list", vec![super::no("GET /v1/targets", &body)]).refused();
    assert_eq!(crate::terminal::clean(&refused), "1: no \\u{1b}]0;x\\u{7} such \\u{202e}thing");
}

#[test]
fn json_keeps_every_character_and_still_no_terminal_obeys_it() {
    let hostile = json!({ "tasks": [{
        "target": "my-repo", "task_id": "t", "title": "\u{1b}[2J", "priority": "high", "scope": "s", "state": "pending",
        "reason": null, "detail": null, "attempts": 0, "last_attempt": null, "pr_url": null, "write_back": null,
    }] });
    let shown = ask("tasks --output json", vec![yes("GET /v1/tasks", &hostile)]).shown();
    assert!(!shown.contains('\u{1b}'), "JSON escapes controls: {shown}");
    let parsed: TaskList = serde_json::from_str(&shown).unwrap();
    assert_eq!(parsed.tasks[0].title, "\u{1b}[2J");
}
