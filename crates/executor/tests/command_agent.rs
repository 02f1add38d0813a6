//! The command agent with real programs: what it is told, what its end means, and that it is stopped.
#![expect(clippy::unwrap_used, reason = "a failed expectation ends its test")]

mod sample;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use leviathan_executor::agent::command::CommandAgent;
use leviathan_executor::agent::{Agent, AgentFailure, AgentReport, Brief, Outcome};
use leviathan_executor::contain::Containment;
use leviathan_executor::toolbox::{Bounds, Shell, Toolbox, Tree};
use model::FailureReason;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::Instant;

/// Lets the agent `line` work on an empty tree within `time`; `cancel` says whether it is cancelled soon.
async fn work(line: &str, time: Duration, cancel: bool) -> (TempDir, Result<AgentReport, AgentFailure>) {
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    std::fs::create_dir(&tree).unwrap();
    let containment = Containment::new(env!("CARGO_BIN_EXE_executor-under-test"), BTreeMap::new());
    let agent = CommandAgent::new(line.to_owned(), containment.clone(), folder.path().join("agent"));
    let (sender, cancelled) = watch::channel(false);
    let bounds = Bounds::new(Instant::now() + time, cancelled);
    let toolbox = Toolbox {
        tree: Tree::open(&tree).unwrap(),
        rules: sample::task().1,
        shell: Shell::new(containment, folder.path().join("shell")),
        check: Arc::new(|_| unreachable!("a command agent runs its checks itself")),
        bounds,
    };
    tokio::spawn(async move {
        if cancel {
            tokio::time::sleep(Duration::from_millis(200)).await;
            sender.send_replace(true);
        }
        // A sender that is dropped would cancel too.
        sender.closed().await;
    });
    (folder, Agent::Command(agent).work(&brief(), &toolbox).await)
}

fn brief() -> Brief {
    sample::task().0
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_task_arrives_on_standard_input_and_in_a_file_outside_the_tree() {
    let (folder, report) = work("cat > given; cmp given \"$LEVIATHAN_TASK_FILE\"", LONG, false).await;
    assert_eq!(report.unwrap().outcome, Outcome::Finished);
    let given = std::fs::read(folder.path().join("tree/given")).unwrap();
    assert_eq!(serde_json::from_slice::<Brief>(&given).unwrap(), brief());
    assert_eq!(std::fs::read_dir(folder.path().join("tree")).unwrap().count(), 1);
}

#[tokio::test]
async fn its_exit_code_says_whether_it_is_done_and_the_end_of_its_output_is_its_note() {
    let rows = [
        ("echo all done", Outcome::Finished, "all done"),
        ("echo noise >&2", Outcome::Finished, ""),
        ("echo tried; echo broken >&2; exit 3", Outcome::GaveUp, "exit code 3\nbroken\ntried"),
        ("kill -9 $$", Outcome::GaveUp, "killed by signal 9"),
        ("no-such-agent", Outcome::GaveUp, "exit code 127"),
    ];
    for (line, outcome, note) in rows {
        let report = work(line, LONG, false).await.1.unwrap();
        assert_eq!(report.outcome, outcome, "{line}");
        assert!(report.summary.starts_with(note), "{line}: {}", report.summary);
    }
}

#[tokio::test]
async fn it_is_stopped_at_the_deadline_and_when_the_attempt_is_cancelled() {
    let late = work("sleep 1000", Duration::from_millis(300), false).await.1.unwrap_err();
    assert_eq!(late.reason(), FailureReason::TimedOut);
    let cancelled = work("sleep 1000", LONG, true).await.1.unwrap_err();
    assert_eq!(cancelled.reason(), FailureReason::Cancelled);
}

#[tokio::test]
async fn an_agent_that_never_stops_talking_is_stuck() {
    let failure = work("yes", LONG, false).await.1.unwrap_err();
    assert_eq!(failure.reason(), FailureReason::Stuck);
}

#[test]
fn the_documented_task_is_one_that_agents_get() {
    let page = include_str!("../../../docs/command-agent.md");
    let example = page.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    let documented: Brief = serde_json::from_str(example).unwrap();
    let given: serde_json::Value = serde_json::to_value(&documented).unwrap();
    assert_eq!(
        given,
        serde_json::from_str::<serde_json::Value>(example).unwrap(),
        "no field is missing or made up"
    );
}
