//! What changes something: what is sent, what is said, and how an attempt is named.

use api::types::{Steered, TargetRegisteredResponse};
use insta::assert_snapshot;
use serde_json::json;

use super::answers::{self, ATTEMPT, DIGEST};
use super::{Answer, ask, ask_on, yes};

fn steered(status: &str, changed: bool) -> Steered {
    Steered { status: status.to_owned(), attempt_id: None, changed }
}

/// What was sent, then what was said.
fn told(command_line: &str, answers: Vec<Answer>) -> String {
    let outcome = ask(command_line, answers);
    let asked = outcome.asked.join("\n");
    format!("{asked}\n\n{}", outcome.shown())
}

#[test]
fn each_order_is_sent_with_its_reason() {
    let invalidate = "POST /v1/attempts/attempt-01khz4e8m0abcdef/invalidate";
    let command = format!("invalidate {ATTEMPT} --reason 'Transient API error, retry'");
    assert_snapshot!(told(&command, vec![yes(invalidate, &steered("invalidated", true))]), @r#"
    POST /v1/attempts/attempt-01khz4e8m0abcdef/invalidate {"reason":"Transient API error, retry"}

    Invalidated attempt: attempt-01khz4e8m0abcdef
    Reason: Transient API error, retry
    Its task may run again at the next pass; `leviathanctl tasks-list` shows when.
    "#);
    assert_snapshot!(told(&command, vec![yes(invalidate, &steered("invalidated", false))]), @r#"
    POST /v1/attempts/attempt-01khz4e8m0abcdef/invalidate {"reason":"Transient API error, retry"}

    attempt-01khz4e8m0abcdef was invalidated before; nothing changed.
    "#);

    let cancel = "POST /v1/attempts/attempt-01khz4e8m0abcdef/cancel";
    let command = format!("cancel {ATTEMPT} --reason 'Emergency stop'");
    assert_snapshot!(told(&command, vec![yes(cancel, &steered("cancelled", true))]), @r#"
    POST /v1/attempts/attempt-01khz4e8m0abcdef/cancel {"reason":"Emergency stop"}

    Cancelled attempt: attempt-01khz4e8m0abcdef
    Reason: Emergency stop
    `leviathanctl invalidate attempt-01khz4e8m0abcdef --reason REASON` lets its task run again.
    "#);
    assert_snapshot!(told(&command, vec![yes(cancel, &steered("cancelled", false))]), @r#"
    POST /v1/attempts/attempt-01khz4e8m0abcdef/cancel {"reason":"Emergency stop"}

    attempt-01khz4e8m0abcdef was cancelled before; nothing changed.
    "#);

    let pause = || yes("POST /v1/pause", &steered("paused", true));
    assert_snapshot!(told("pause --reason 'release day'", vec![pause()]), @r#"
    POST /v1/pause {"reason":"release day"}

    Paused everything: no new attempt starts.
    Reason: release day
    Attempts under way go on; `leviathanctl attempts-list --status live` shows them, `leviathanctl cancel ID --reason REASON` stops one.
    "#);
    assert_snapshot!(told("pause --reason broken --target my-repo", vec![pause()]), @r#"
    POST /v1/pause {"reason":"broken","target":"my-repo"}

    Paused target my-repo: no new attempt starts.
    Reason: broken
    Attempts under way go on; `leviathanctl attempts-list --status live` shows them, `leviathanctl cancel ID --reason REASON` stops one.
    "#);
    let resume = |changed| vec![yes("POST /v1/resume", &steered("resumed", changed))];
    assert_snapshot!(told("resume", resume(true)), @r#"
    POST /v1/resume {"reason":"resumed by the operator"}

    Resumed everything: new attempts start at the next pass.
    "#);
    assert_snapshot!(told("resume --reason done --target my-repo", resume(false)), @r#"
    POST /v1/resume {"reason":"done","target":"my-repo"}

    Target my-repo was not paused by itself; nothing changed.
    "#);
    assert_snapshot!(told("resume", resume(false)), @r#"
    POST /v1/resume {"reason":"resumed by the operator"}

    No pause of everything is in force; nothing changed. `--target TARGET` ends that of one target.
    "#);
}

#[test]
fn a_target_is_unregistered_with_a_reason() {
    let unregister = "POST /v1/targets/my-repo/unregister";
    let command = "targets-unregister my-repo --reason 'moved away'";
    assert_snapshot!(told(command, vec![yes(unregister, &steered("unregistered", true))]), @r#"
    POST /v1/targets/my-repo/unregister {"reason":"moved away"}

    Unregistered target: my-repo
    Reason: moved away
    Attempts under way go on; `leviathanctl targets-register FILE` takes the target up again.
    "#);
    assert_snapshot!(told(command, vec![yes(unregister, &steered("unregistered", false))]), @r#"
    POST /v1/targets/my-repo/unregister {"reason":"moved away"}

    my-repo was unregistered before; nothing changed.
    "#);
}

#[test]
fn a_pass_is_asked_for_and_waited_for() {
    let request = || yes("POST /v1/scheduler/passes", &json!({ "number": 3 }));
    let report = json!({
        "number": 3, "by": "scheduler@here", "at": "2026-01-31T12:00:00Z", "launched": 1,
        "problems": ["my-repo cannot be fetched"],
    });
    let passes = |done, last: serde_json::Value| {
        let body = json!({ "requested": 3, "done": done, "last": last });
        yes("GET /v1/scheduler/passes?done_from=3&wait_ms=0", &body)
    };
    let made = ask("scheduler-pass --wait 0s", vec![request(), passes(3, report)]).shown();
    assert_snapshot!(made, @r#"
    scheduler@here made a pass and started 1 executor.
    Problem: my-repo cannot be fetched
    "#);
    let waited = ask("scheduler-pass --wait 0s", vec![request(), passes(2, json!(null))]).refused();
    assert_snapshot!(waited, @r#"
    1: no scheduler has taken it: request 3 for a pass waited 0 ms; start one with `leviathan scheduler`, or in a cluster with `kubectl scale deployment leviathan-scheduler --replicas=1`
    "#);
}

#[test]
fn a_doctor_names_what_is_not_well_and_what_to_do() {
    let health = |version: &str, time: &str| {
        yes("GET /healthz", &json!({ "status": "ok", "version": version, "time": time }))
    };
    let passes = |at: &str| {
        let last = json!({ "number": 0, "by": "scheduler@here", "at": at, "launched": 0, "problems": [] });
        yes("GET /v1/scheduler/passes", &json!({ "requested": 0, "done": 0, "last": last }))
    };
    let none = yes("GET /v1/scheduler/passes", &json!({ "requested": 0, "done": 0 }));
    let said = |answers| {
        let outcome = ask("doctor", answers);
        // The port of the control plane is another each time.
        let lines = outcome.out.lines().filter(|line| !line.contains("reach")).collect::<Vec<_>>().join("\n");
        format!("{lines}\n{:?}", outcome.failure)
    };
    let ours = env!("CARGO_PKG_VERSION");
    let well = said(vec![health(ours, "2026-01-31T12:00:01Z"), passes("2026-01-31T11:59:30Z")]);
    assert_snapshot!(well.replace(ours, "VERSION"), @r#"
    ok    version    both are VERSION
    ok    clock      this machine and the control plane agree
    ok    token      the control plane takes the token
    ok    scheduler  scheduler@here made a pass 2026-01-31 11:59:30 UTC (30s ago)
    None
    "#);
    let unwell = said(vec![health("9.9.9", "2026-01-31T12:05:00Z"), passes("2026-01-31T10:00:00Z")]);
    assert_snapshot!(unwell.replace(ours, "VERSION"), @r#"
    warn  version    leviathanctl is VERSION, the control plane 9.9.9; use a leviathanctl of its version
    warn  clock      this machine and the control plane are 5 min 0 s apart; set both clocks by the same source
    ok    token      the control plane takes the token
    warn  scheduler  scheduler@here made a pass 2026-01-31 10:00:00 UTC (2h ago) and none since; start one with `leviathan scheduler`, or in a cluster with `kubectl scale deployment leviathan-scheduler --replicas=1`
    None
    "#);
    let idle = said(vec![health(ours, "2026-01-31T12:00:00Z"), none]);
    assert_snapshot!(idle.replace(ours, "VERSION"), @r#"
    ok    version    both are VERSION
    ok    clock      this machine and the control plane agree
    ok    token      the control plane takes the token
    fail  scheduler  none has made a pass since the control plane started; start one with `leviathan scheduler`, or in a cluster with `kubectl scale deployment leviathan-scheduler --replicas=1`
    Some(No("1 check failed; the lines marked `fail` say what to do"))
    "#);
}

#[test]
fn an_attempt_may_be_named_by_a_part_that_no_other_has() {
    let list = yes("GET /v1/attempts?id=01khz4&limit=10", &answers::attempts(vec![answers::completed()], 1));
    let cancel = yes("POST /v1/attempts/attempt-01khz4e8m0abcdef/cancel", &steered("cancelled", true));
    let outcome = ask("cancel 01khz4 --reason stop", vec![list, cancel]);
    assert_eq!(outcome.asked.len(), 2);
    assert!(outcome.shown().starts_with("Cancelled attempt: attempt-01khz4e8m0abcdef\n"));

    let both = answers::attempts(vec![answers::completed(), answers::failed()], 2);
    let ambiguous = ask("cancel 01kh --reason stop", vec![yes("GET /v1/attempts?id=01kh&limit=10", &both)]);
    assert_snapshot!(ambiguous.refused(), @"1: `01kh` fits 2 attempts, among them attempt-01khz4e8m0abcdef, attempt-01khz3zzzz000009; give more of the id");
    let none = yes("GET /v1/attempts?id=zzz&limit=10", &answers::attempts(Vec::new(), 0));
    assert_snapshot!(ask("attempts-show zzz", vec![none]).refused(), @"1: there is no attempt `zzz`; `leviathanctl attempts-list` shows those there are");
}

#[test]
fn an_artifact_is_cleaned_for_a_terminal_and_exact_for_everything_else() {
    let content = b"test";
    let answer = || {
        vec![Answer {
            request: "GET /v1/artifacts/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            status: 200,
            body: content.to_vec(),
        }]
    };
    let command = format!("artifact {DIGEST}");
    assert_eq!(ask(&command, answer()).shown(), "test");
    assert_eq!(ask_on(Some(80), &command, answer()).shown(), "test\n");

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("check.log");
    let command = format!("artifact {DIGEST} --out {}", file.display());
    assert!(ask(&command, answer()).shown().starts_with("Wrote 4 B to "));
    assert_eq!(std::fs::read(&file).unwrap(), content);
    let again = ask(&command, answer()).refused();
    assert!(again.starts_with("2: ") && again.contains("cannot be written"), "{again}");
    assert_eq!(std::fs::read(&file).unwrap(), content, "nothing is overwritten");

    let broken = Answer { body: b"tampered".to_vec(), ..answer().remove(0) };
    let refused = ask(&format!("artifact {DIGEST}"), vec![broken]).refused();
    assert!(refused.starts_with("2: ") && refused.contains("the bytes are not those of"), "{refused}");
}

#[test]
fn a_target_is_registered_with_its_files_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let contract = folder.path().join("contract.yaml");
    let text = "target_id: my-repo\nname: My Repository\nrepo_url: git@github.com:owner/my-repo.git\ndefault_branch: main\n";
    std::fs::write(&contract, text).unwrap();
    let answer = |changed| {
        let answer = TargetRegisteredResponse { target_id: "my-repo".parse().unwrap(), changed };
        vec![yes("POST /v1/targets", &answer)]
    };
    let command = format!("targets-register {}", contract.display());
    let outcome = ask(&command, answer(true));
    assert_eq!(outcome.asked, [format!("POST /v1/targets {}", serde_json::json!({ "contract": text }))]);
    assert_snapshot!(outcome.shown(), @r"
    Registered target: my-repo
    A scheduler reads its backlog at the next pass; `leviathanctl tasks-list --target my-repo` shows it.
    ");
    assert_snapshot!(ask(&command, answer(false)).shown(), @"my-repo was registered with the same documents before; nothing changed.");
}

#[test]
fn every_problem_of_the_files_is_named_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let contract = folder.path().join("contract.yaml");
    let policy = folder.path().join("policy.yaml");
    std::fs::write(&contract, "target_id: my repo\nname: My Repository\ndefault_brunch: main\n").unwrap();
    std::fs::write(&policy, "limits:\n  max_attempts: many\n").unwrap();
    let command = format!("targets-register {} --policy {}", contract.display(), policy.display());
    let outcome = ask(&command, Vec::new());
    assert_eq!(outcome.asked, [""; 0]);
    let refused = outcome.refused().replace(&*folder.path().to_string_lossy(), "FOLDER");
    assert_snapshot!(refused, @r"
    1: 5 problems to correct before the target can be registered:
    FOLDER/contract.yaml:1:1: the contract has no `default_branch`; expected the field `default_branch`
    FOLDER/contract.yaml:1:1: the contract has no `repo_url`; expected the field `repo_url`
    FOLDER/contract.yaml:1:12: `target_id`: `my repo` is not a target id: expected 1 to 63 letters, digits, `.`, `_` or `-`, beginning and ending with a letter or digit, without `..` or a `.lock` ending
    FOLDER/contract.yaml:3:1: `default_brunch` is no field of the contract; expected `created_at`, `default_branch`, `description`, `name`, `owner`, `repo_url` or `target_id`; hint: did you mean `default_branch`?
    FOLDER/policy.yaml:2:17: `max_attempts` is `many`; expected a whole number from 1
    ");

    let missing = ask("targets-register /nowhere/contract.yaml", Vec::new()).refused();
    assert_snapshot!(missing, @"2: /nowhere/contract.yaml cannot be read: No such file or directory (os error 2); give the file that holds it");
}
