//! The backlog's status on the default branch, and the rolling branch where that is refused.

use jiff::Timestamp;
use leviathan_target::write_back::ROLLING_BRANCH;
use leviathan_target::{BacklogEdit, Proposal, WriteBack, propose, write_back};
use model::documents::Status;
use model::{AttemptId, TaskId};
use test_support::repository::{Entry, MergeKind, Origin};

use crate::ground::{main_branch, mirror, remote};
use crate::spec::{BACKLOG, governed};

const PATH: &str = ".leviathan/backlog.yaml";

fn completed(task: &str) -> BacklogEdit {
    BacklogEdit {
        task: TaskId::parse(task).unwrap(),
        attempt: AttemptId::parse("attempt-1").unwrap(),
        from: Status::Pending,
        to: Status::Completed,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn write(origin: &Origin, task: &str) -> WriteBack {
    let data = tempfile::tempdir().unwrap();
    let outcome = write_back(&mirror(data.path()), &remote(origin), &main_branch(), &completed(task), at(0));
    let left: Vec<_> = std::fs::read_dir(data.path().join("mirrors")).unwrap().collect();
    assert_eq!(left.len(), 2, "only the mirror and its lock stay: {left:?}");
    outcome.unwrap()
}

fn proposed(origin: &Origin, tasks: &[&str], second: i64) -> Proposal {
    let data = tempfile::tempdir().unwrap();
    let edits: Vec<_> = tasks.iter().map(|task| completed(task)).collect();
    propose(&mirror(data.path()), &remote(origin), &main_branch(), &edits, at(second)).unwrap()
}

fn backlog(origin: &Origin, revision: &str) -> String {
    String::from_utf8(origin.read(revision, PATH).unwrap()).unwrap()
}

#[test]
fn one_scalar_changes_and_a_repeat_finds_it_done() {
    let origin = governed();
    let before = origin.resolve("main").unwrap();
    let WriteBack::Written { commit } = write(&origin, "task-002") else { panic!("not written") };
    assert_eq!(origin.resolve("main").unwrap(), commit.as_str());
    assert_eq!(backlog(&origin, "main"), BACKLOG.replace("status: \"pending\"", "status: \"completed\""));
    assert_eq!(origin.resolve("main~").unwrap(), before);
    let changed = origin.read_git(&["diff-tree", "-r", "--name-only", "--no-commit-id", "main"]);
    assert_eq!(changed.trim(), PATH);
    let message = origin.read_git(&["log", "-1", "--format=%B", "main"]);
    assert!(message.starts_with("Mark task-002 as completed\n\nLeviathan-Task: task-002\n"), "{message}");
    assert_eq!(write(&origin, "task-002"), WriteBack::AlreadyDone);
}

#[test]
fn a_humans_decision_stays() {
    let rows = [
        (
            "blocked",
            BACKLOG.replace("    status: pending\n", "    status: blocked\n    blocked_reason: later\n"),
        ),
        ("removed", BACKLOG.replace("task-001", "task-003")),
        ("broken", "tasks: [".to_owned()),
    ];
    for (name, text) in rows {
        let origin = governed();
        let tip = origin.commit("main", name, &[Entry::file(PATH, text)]);
        let outcome = write(&origin, "task-001");
        assert!(matches!(&outcome, WriteBack::Skipped { why } if !why.is_empty()), "{name}: {outcome:?}");
        assert_eq!(origin.resolve("main").unwrap(), tip, "{name}");
    }
}

#[test]
fn a_base_that_moves_is_followed_and_one_that_never_rests_is_reported() {
    // A human pushes in the moment of our push: the hook runs before the ref is moved, and moves it first.
    let move_main = "commit=$(git commit-tree -p main -m 'in between' main^{tree} </dev/null) && \
                     env -u GIT_QUARANTINE_PATH git update-ref refs/heads/main $commit";
    let identity = "export GIT_AUTHOR_NAME=A GIT_AUTHOR_EMAIL=a@example.com GIT_COMMITTER_NAME=A GIT_COMMITTER_EMAIL=a@example.com";
    let unquarantine = "unset GIT_QUARANTINE_PATH GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES";

    let origin = governed();
    let once = format!("[ -e moved ] && exit 0; touch moved\n{identity}\n{unquarantine}\n{move_main}");
    origin.install_hook("pre-receive", &once);
    assert!(matches!(write(&origin, "task-001"), WriteBack::Written { .. }));
    assert_eq!(origin.read_git(&["log", "-1", "--format=%s", "main~"]).trim(), "in between");

    let origin = governed();
    let always = format!("{identity}\n{unquarantine}\nGIT_COMMITTER_DATE=\"$(date +%s) +0000\"\n{move_main}");
    origin.install_hook("pre-receive", &always);
    assert_eq!(write(&origin, "task-001"), WriteBack::BaseKeepsMoving);
    assert_eq!(backlog(&origin, "main"), BACKLOG);
}

#[test]
fn a_protected_branch_gets_a_rolling_proposal_that_a_human_merges() {
    let origin = governed();
    origin.protect("main");
    let outcome = write(&origin, "task-001");
    assert!(
        matches!(&outcome, WriteBack::RejectedProtected { message } if message.contains("GH006")),
        "{outcome:?}"
    );

    let Proposal::Ready { commit: first, tasks } = proposed(&origin, &["task-001"], 0) else { panic!() };
    assert_eq!(tasks.len(), 1);
    // The same again, later, is the same commit; one more edit replaces it.
    assert_eq!(proposed(&origin, &["task-001"], 60), Proposal::Ready { commit: first, tasks });
    let Proposal::Ready { commit: second, tasks } = proposed(&origin, &["task-001", "task-002"], 120) else {
        panic!()
    };
    assert_eq!(tasks.len(), 2);
    assert_eq!(origin.resolve(ROLLING_BRANCH).unwrap(), second.as_str());
    assert_eq!(backlog(&origin, ROLLING_BRANCH), BACKLOG.replace("pending", "completed"));

    // The default branch moves on; the proposal follows it as one commit.
    origin.install_hook("update", "exit 0");
    origin.commit("main", "on", &[Entry::file("other", "1\n")]);
    assert!(matches!(proposed(&origin, &["task-001", "task-002"], 180), Proposal::Ready { .. }));
    assert_eq!(origin.resolve("leviathan/backlog~").unwrap(), origin.resolve("main").unwrap());

    origin.merge(ROLLING_BRANCH, MergeKind::Squash);
    assert_eq!(proposed(&origin, &["task-001", "task-002"], 240), Proposal::NothingToPropose);
    assert_eq!(write(&origin, "task-001"), WriteBack::AlreadyDone);
}

#[test]
fn a_rolling_branch_with_a_humans_commit_is_theirs() {
    let origin = governed();
    assert!(matches!(proposed(&origin, &["task-001"], 0), Proposal::Ready { .. }));
    let theirs = origin.commit(ROLLING_BRANCH, "by hand", &[Entry::file("note", "1\n")]);
    assert_eq!(proposed(&origin, &["task-001", "task-002"], 60), Proposal::HumanOwned);
    assert_eq!(origin.resolve(ROLLING_BRANCH).unwrap(), theirs);
}
