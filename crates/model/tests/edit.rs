//! The one edit that Leviathan makes in a backlog: a status, and not one byte more.

use leviathan_model::{Backlog, EditRefused, Status, TaskId};
use proptest::prelude::*;

#[test]
fn only_the_word_changes_in_every_style() {
    // A blocked task needs no more than its id, so the examples can be short. WORD is the status.
    for text in [
        // Block style, odd spacing, comments
        "tasks:\n- task_id: a\n  status: WORD # now\n",
        "tasks:\n  -   task_id:   a\n      status:    \"WORD\"   \n",
        "tasks:\n- status: 'WORD'\n  task_id: a\n",
        "tasks:\n- task_id: a\n  status:\n    WORD\n",
        "tasks:\n- task_id: a\n  status: WORD",
        "tasks:\n- task_id: b\n  status: blocked\n- task_id: a\n  status: WORD\n",
        // Flow style
        "tasks: [{task_id: a, status: WORD, scope: x}]",
        "tasks: [ {task_id: b, status: blocked}, {\"task_id\": 'a',\"status\":\"WORD\"} ]",
        // Characters of several bytes, a byte order mark, other line ends
        "# é 日本\ntasks:\n- task_id: a\n  x-note: ü\n  status: WORD\n",
        "\u{feff}tasks:\r\n- task_id: a\r\n  status: WORD\r\n",
        // Text that only looks like it
        "tasks:\n- task_id: a\n  description: |\n    status: blocked\n    task_id: a\n  status: WORD\n# status: blocked\n",
        "x-tasks: [{task_id: a, status: blocked}]\ntasks:\n- x-a: {task_id: a, status: blocked}\n  task_id: a\n  status: WORD\n",
    ] {
        let edited = set(&text.replace("WORD", "blocked"), Status::Blocked, Status::Completed);
        assert_eq!(edited, Ok(text.replace("WORD", "completed")), "{text}");
    }
}

#[test]
fn a_task_without_a_status_gets_a_line_of_its_own() {
    for text in [
        "tasks:\n  - task_id: a # first\n+    title: t\n    scope: s\n",
        "tasks:\n- title: t\n  scope: s\n  task_id: a+",
        "tasks:\r\n- title: t\r\n  task_id: a\r\n+  scope: s\r\n",
        "tasks:\n-   task_id: \"a\"\n+    title: t\n    scope: s\n",
    ] {
        let (before, after) = text.split_once('+').unwrap();
        let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
        let indent = if text.contains("    title") { "    " } else { "  " };
        let inserted = match after {
            "" => format!("{newline}{indent}status: completed"),
            _ => format!("{indent}status: completed{newline}"),
        };
        let edited = set(&text.replace('+', ""), Status::Pending, Status::Completed);
        assert_eq!(edited, Ok(format!("{before}{inserted}{after}")), "{text}");
    }
}

#[test]
fn an_edit_that_cannot_be_exact_is_refused() {
    let flow_without_status = "tasks: [{task_id: a, title: t, scope: s}]";
    assert_eq!(
        set(flow_without_status, Status::Pending, Status::Completed),
        Err(EditRefused::NotAlone(task()))
    );
    let several_in_a_line = "tasks:\n- {task_id: a, title: t, scope: s,\n   x-y: z}\n";
    assert_eq!(
        set(several_in_a_line, Status::Pending, Status::Completed),
        Err(EditRefused::NotAlone(task()))
    );
    for unreadable in [
        "tasks: [",
        "tasks:\n- task_id: a\n  status: &s pending\n  title: t\n  scope: s\n",
        "x-s: &s pending\ntasks:\n- {task_id: a, title: t, scope: s, status: *s}\n",
        "tasks:\n- task_id: a\n  title: t\n  scope: s\n  status: |\n    pending\n",
        "tasks:\n- task_id: a\n  title: t\n  scope: s\n  status: done\n",
    ] {
        let refused = set(unreadable, Status::Pending, Status::Completed);
        assert!(matches!(refused, Err(EditRefused::Unreadable(_))), "{unreadable}: {refused:?}");
    }
}

#[test]
fn a_human_who_was_there_before_wins() {
    let blocked = "tasks:\n- task_id: a\n  status: blocked\n";
    let refused = set(blocked, Status::Pending, Status::Completed).unwrap_err();
    assert_eq!(refused.to_string(), "the task `a` is blocked, not pending: a human decided otherwise");
    let removed = "tasks: []\n";
    let refused = set(removed, Status::Pending, Status::Completed).unwrap_err();
    assert_eq!(refused.to_string(), "the backlog has no task `a`");
}

#[test]
fn the_revision_of_a_task_ignores_its_status_and_its_place() {
    let revision = |fields: &str| {
        let text = format!("tasks:\n- {{task_id: a, title: t, scope: s, {fields}}}\n");
        Backlog::parse("b.yaml", text.as_bytes()).unwrap().tasks[0].revision()
    };
    let base = revision("allowed_paths: [x]");
    assert_eq!(revision("allowed_paths: [\"x\"], status: completed"), base);
    assert_eq!(revision("status: blocked, blocked_reason: why,\n\n  allowed_paths: [x]"), base);
    assert_eq!(revision("allowed_paths: [x], priority: medium"), base, "the default, written out");
    for other in
        ["allowed_paths: [y]", "allowed_paths: [x], priority: high", "allowed_paths: [x], timeout: 5m"]
    {
        assert_ne!(revision(other), base, "{other}");
    }
    assert_eq!(
        base.as_str(),
        "4b5c0b480ec9b40ad13be8dc1fb2a12cc21d4cba2efa38710ef50fc4d206e268",
        "a revision stays the same for ever: it is in the log"
    );
}

proptest! {
    #[test]
    fn every_other_byte_is_the_same(
        tasks in proptest::collection::vec((0..6usize, "[ -~é日]{0,12}"), 1..6),
        edited in any::<prop::sample::Index>(),
        newline in prop_oneof![Just("\n"), Just("\r\n")],
        mark in any::<bool>(),
    ) {
        let edited = edited.index(tasks.len());
        let mut text = String::from(if mark { "\u{feff}" } else { "" });
        text.push_str(&format!("# status: pending{newline}tasks:{newline}"));
        let mut expected = text.clone();
        for (index, (style, note)) in tasks.iter().enumerate() {
            let task = in_style(*style, index, note).replace('\n', newline);
            expected.push_str(&task.replace("STATUS", if index == edited { "completed" } else { "pending" }));
            text.push_str(&task.replace("STATUS", "pending"));
        }
        let task = TaskId::parse(format!("t{edited}")).unwrap();
        let result = Backlog::set_status("b.yaml", &text, &task, Status::Pending, Status::Completed);
        prop_assert_eq!(result.as_deref(), Ok(expected.as_str()));
        let back = Backlog::set_status("b.yaml", &expected, &task, Status::Completed, Status::Pending);
        prop_assert_eq!(back.as_deref(), Ok(text.as_str()));
    }

    #[test]
    fn no_text_makes_the_editor_panic(text in "(tasks|task_id|status|pending|a|[-:\\[\\]{}, \n\"'|>&*#?!])*") {
        let _ = set(&text, Status::Pending, Status::Completed);
    }
}

/// One task as some human might write it, with `STATUS` in place of its status.
fn in_style(style: usize, index: usize, note: &str) -> String {
    let note = note.replace('\'', "''");
    match style {
        0 => format!("- task_id: t{index}\n  title: 'n {note}'\n  scope: s\n  status: STATUS # {note}\n"),
        1 => format!("- status:   \"STATUS\"\n  scope: s\n  title: 'n {note}'\n  task_id: \"t{index}\"\n\n"),
        2 => format!("- {{task_id: t{index}, title: 'n {note}', status: STATUS, scope: s}}\n"),
        3 => format!(
            "-    task_id: t{index}\n     title: t\n     scope: s\n     description: |\n       status: pending\n       {note}x\n     status: 'STATUS'\n"
        ),
        4 => format!(
            "- x-status: {{status: pending}}\n  title: t\n  scope: s\n  status:\n      STATUS\n  task_id: t{index}\n"
        ),
        _ => format!(
            "- {{\"task_id\":\"t{index}\",\"status\":\"STATUS\",\"title\":'n {note}',\"scope\":\"s\"}} # {note}\n"
        ),
    }
}

fn set(text: &str, expected: Status, to: Status) -> Result<String, EditRefused> {
    Backlog::set_status("b.yaml", text, &task(), expected, to)
}

fn task() -> TaskId {
    TaskId::parse("a").expect("a task id")
}
