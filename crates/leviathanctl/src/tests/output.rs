//! What people read when all is well, and when there is nothing.

use api::types::*;
use insta::assert_snapshot;

use super::answers::{self, ATTEMPT};
use super::{ask, ask_on, yes};

#[test]
fn graph_summary() {
    let shown = ask("graph-summary", vec![yes("GET /v1/graph/summary", &answers::summary())]).shown();
    assert_snapshot!(shown, @r"
    Graph summary
      Paused by operator since 2026-01-31 11:00:00 UTC (60m ago): release day
      `leviathanctl resume` lets new attempts run again.

    Nodes
      104  Attempt
       12  Task
        1  Target

    Edges
      116  DEPENDS_ON

    Attempts by state
      96  completed
       7  failed
       1  started

    Cost    $12.34
    Events  43

    Newest events
        43  2026-01-31 11:53:20  pr.created            attempt-01khz4e8m0abcdef task-001  #7 https://forge.example/owner/my-repo/pull/7
        42  2026-01-31 11:50:02  attempt.started       attempt-01khz4e8m0abcdef task-001  epoch 1 on host-1:4242
        41  2026-01-31 11:50:00  attempt.claimed       attempt-01khz4e8m0abcdef task-001  epoch 1 by worktree
    ");
    let nothing = GraphSummary {
        nodes_by_type: Default::default(),
        edges_by_type: Default::default(),
        attempts_by_state: Default::default(),
        cost_micro_usd: 0,
        pause: None,
        head: 0,
        recent_events: Vec::new(),
    };
    assert_snapshot!(ask("graph-summary", vec![yes("GET /v1/graph/summary", &nothing)]).shown(), @r"
    Graph summary

    Nodes
      none

    Edges
      none

    Attempts by state
      none

    Cost    $0.0000
    Events  0
    Nothing has happened yet. `leviathanctl targets-register FILE` registers the first target.
    ");
}

#[test]
fn attempts_list() {
    let list = answers::attempts(vec![answers::completed(), answers::failed()], 104);
    let answer = || vec![yes("GET /v1/attempts?limit=2", &list)];
    assert_snapshot!(ask("attempts-list --limit 2", answer()).shown(), @r"
    ATTEMPT                   STATUS     TARGET   TASK      N  CREATED (UTC)        AGE
    attempt-01khz4e8m0abcdef  completed  my-repo  task-001  1  2026-01-31 11:50:00  10m
        https://forge.example/owner/my-repo/pull/7 (open)
    attempt-01khz3zzzz000009  failed     my-repo  task-002  2  2026-01-31 09:00:00   3h
        scope_violation: src/app.py is outside allowed_paths
    2 of 104; --limit N shows more.
    ");
    assert_snapshot!(ask_on(Some(120), "attempts-list --limit 2", answer()).shown(), @r"
    ATTEMPT                   STATUS     TARGET   TASK      N  CREATED (UTC)        AGE
    attempt-01khz4e8m0abcdef  completed  my-repo  task-001  1  2026-01-31 11:50:00  10m
        https://forge.example/owner/my-repo/pull/7 (open)
    attempt-01khz3zzzz000009  failed     my-repo  task-002  2  2026-01-31 09:00:00   3h
        scope_violation: src/app.py is outside allowed_paths
    2 of 104; --limit N shows more.
    ");
    assert_snapshot!(ask_on(Some(60), "attempts-list --limit 2", answer()).shown(), @r"
    ATTEMPT        attempt-01khz4e8m0abcdef
    STATUS         completed
    TARGET         my-repo
    TASK           task-001
    N              1
    CREATED (UTC)  2026-01-31 11:50:00
    AGE            10m
    https://forge.example/owner/my-repo/pull/7 (open)

    ATTEMPT        attempt-01khz3zzzz000009
    STATUS         failed
    TARGET         my-repo
    TASK           task-002
    N              2
    CREATED (UTC)  2026-01-31 09:00:00
    AGE            3h
    scope_violation: src/app.py is outside allowed_paths
    2 of 104; --limit N shows more.
    ");
    let mut endless = answers::failed();
    endless.failure.as_mut().unwrap().detail = "deep/".repeat(1000);
    let list = yes("GET /v1/attempts?limit=10", &answers::attempts(vec![endless], 1));
    let shown = ask("attempts-list", vec![list]).shown();
    assert!(shown.lines().all(|line| line.chars().count() < 250) && shown.contains('…'), "{shown}");
    let none = yes(
        "GET /v1/attempts?target=my-repo&task=task-001&status=live&limit=10",
        &answers::attempts(Vec::new(), 0),
    );
    let shown = ask("attempts-list --target my-repo --task task-001 --status live", vec![none]).shown();
    assert_snapshot!(shown, @"No attempts found.");
}

#[test]
fn attempts_show() {
    let path = "GET /v1/attempts/attempt-01khz4e8m0abcdef";
    let shown = ask(&format!("attempts-show {ATTEMPT}"), vec![yes(path, &answers::detail())]).shown();
    assert_snapshot!(shown, @r"
    attempt-01khz4e8m0abcdef  completed
      Task       task-001  Update dependencies
      Target     my-repo
      Attempt    number 1 at this task, epoch 1, launched by worktree
      Agent      claude
      Created    2026-01-31 11:50:00 UTC (10m ago)
      Started    2026-01-31 11:50:02 UTC (9m ago)
      Ended      2026-01-31 11:53:22 UTC (6m ago), after 3 min 20 s
      Base       c0ffee0000000000000000000000000000000001
      Candidate  c0ffee0000000000000000000000000000000002
      Branch     leviathan/task-001-a1
      Policy     9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
      Cost       $0.1234 for 6 requests: 5200 tokens read, 41000 from the cache, 3000 into it, 800 written
      PR         #7 https://forge.example/owner/my-repo/pull/7 (open)
      Review     approved by ada

    Changed and permitted: 2 files, 1.2 KiB
      CHANGE      +  -  PATH
      modified   15  9  requirements.txt
          permitted by requirements.txt (.leviathan/backlog.yaml:9), requirements.txt (.leviathan/policy.yaml:4)
      added     120  0  package.json
          permitted by package.json (.leviathan/backlog.yaml:10)

    Refused by the path rules in the last round that was refused
      src/app.py  not_allowed  src/** (.leviathan/policy.yaml:9)
        src/app.py is forbidden by the scope `dependencies`

    Checks (round 0 ran on the base commit; `leviathanctl artifact SHA256` shows a log)
      ROUND  INVARIANT        OUTCOME       TIME  LOG SIZE  LOG SHA-256
          0  Tests must pass  passed       4.2 s  20.0 KiB  9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
          1  Tests must pass  exit code 1  4.2 s  20.0 KiB  9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
          2  Tests must pass  passed       4.2 s  20.0 KiB  9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

    Sandbox: standard
      LAYER       HOLDS  DETAIL
      landlock    yes    writes only below the tree
      namespaces  no     this machine gives no user namespaces

    Artifacts
      NAME              KIND           SIZE  SHA-256
      transcript.jsonl  transcript  1.5 MiB  9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

    What the agent says (claims, not evidence)
      | I updated every dependency.
      | All tests pass.

    Timeline
        41  2026-01-31 11:50:00  attempt.claimed       epoch 1 by worktree
        42  2026-01-31 11:50:02  attempt.started       epoch 1 on host-1:4242
        43  2026-01-31 11:53:20  pr.created            #7 https://forge.example/owner/my-repo/pull/7
    ");
}

#[test]
fn an_attempt_of_which_little_is_known() {
    let bare = AttemptDetail {
        attempt: answers::failed(),
        change: None,
        violations: Vec::new(),
        violations_omitted: 0,
        checks: Vec::new(),
        sandbox: None,
        agent_notes: Vec::new(),
        artifacts: Vec::new(),
        events: Vec::new(),
        ..answers::detail()
    };
    let path = "GET /v1/attempts/attempt-01khz4e8m0abcdef";
    assert_snapshot!(ask(&format!("attempts-show {ATTEMPT}"), vec![yes(path, &bare)]).shown(), @r"
    attempt-01khz3zzzz000009  failed
      Task       task-002  Add logging to API endpoints
      Target     my-repo
      Attempt    number 2 at this task, epoch 1, launched by worktree
      Agent      command: ./bump.sh
      Created    2026-01-31 09:00:00 UTC (3h ago)
      Started    2026-01-31 09:00:05 UTC (2h ago)
      Ended      2026-01-31 11:40:00 UTC (20m ago), after 2 h 39 min
      Base       c0ffee0000000000000000000000000000000001
      Branch     leviathan/task-002-a2 (not pushed)
      Policy     9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
      Cost       nothing (no model was called)
      Failure    scope_violation in stage gate: src/app.py is outside allowed_paths
      Next       widen allowed_paths in the task and scope if the change is wanted, or narrow the task
    ");
}

#[test]
fn failures_recent() {
    let answer = yes("GET /v1/failures?limit=10", &answers::failures());
    assert_snapshot!(ask("failures-recent", vec![answer]).shown(), @r"
    attempt-01khz3zzzz000009  scope_violation in stage gate
      Task   task-002 of my-repo
      When   2026-01-31 11:40:00 UTC (20m ago)
      Error  scope_violation: src/app.py is outside allowed_paths
      Next   widen allowed_paths in the task and scope if the change is wanted, or narrow the task
    ");
    let none = FailureList { failures: Vec::new(), count: 0 };
    let none = yes("GET /v1/failures?target=my-repo&limit=3", &none);
    assert_snapshot!(ask("failures-recent --limit 3 --target my-repo", vec![none]).shown(), @"No failures found.");
}

#[test]
fn tasks_list() {
    let shown = ask("tasks-list", vec![yes("GET /v1/tasks", &answers::tasks())]).shown();
    assert_snapshot!(shown, @r"
    Target my-repo
      TASK      STATE      PRIORITY  ATTEMPTS  TITLE
      task-001  in_review  high             2  Title of task-001
          in_review: the pull request waits for a human: https://forge.example/7
      task-002  pending    high             2  Title of task-002
          runs at the next pass
      task-003  completed  high             2  Title of task-003
          not_pending: completed: attempt-a was merged; backlog.yaml: committed as c0ffee

    Target other
      TASK    STATE   PRIORITY  ATTEMPTS  TITLE
      task-1  parked  high             2  Title of task-1
          parked: 2 of 2 attempts failed, last with no_change; edit the task or invalidate an attempt to run it again
    ");
    let shown = ask_on(Some(100), "tasks", vec![yes("GET /v1/tasks", &answers::tasks())]).shown();
    assert_snapshot!(shown, @r"
    Target my-repo
      TASK      STATE      PRIORITY  ATTEMPTS  TITLE
      task-001  in_review  high             2  Title of task-001
          in_review: the pull request waits for a human: https://forge.example/7
      task-002  pending    high             2  Title of task-002
          runs at the next pass
      task-003  completed  high             2  Title of task-003
          not_pending: completed: attempt-a was merged; backlog.yaml: committed as c0ffee

    Target other
      TASK    STATE   PRIORITY  ATTEMPTS  TITLE
      task-1  parked  high             2  Title of task-1
          parked: 2 of 2 attempts failed, last with no_change; edit the task or invalidate an attempt to run it again
    ");
    let none = yes("GET /v1/tasks?target=other", &TaskList { tasks: Vec::new() });
    assert_snapshot!(ask("tasks --target other", vec![none]).shown(), @r"
    No tasks found.
    A scheduler reads them from .leviathan/backlog.yaml of each registered target.
    ");
}

#[test]
fn targets_list() {
    assert_snapshot!(ask("targets-list", vec![yes("GET /v1/targets", &answers::targets())]).shown(), @r"
    my-repo  My Repository
      Repository  git@github.com:owner/my-repo.git (main)
      Registered  2026-01-31 08:00:00 UTC (4h ago), with an operator's policy
      Work        1 attempt under way, 2 pull requests open
      Last seen   2026-01-31 11:59:30 UTC (30s ago) by scheduler, at c0ffee000000
      Problem     .leviathan/policy.yaml:3:5: unknown key `scope`; hint: did you mean `scopes`?

    other  Other
      Repository  file:///srv/other.git (trunk)
      Registered  2026-01-31 08:00:00 UTC (4h ago)
      Work        0 attempts under way, 1 pull request open
      Paused      by operator since 2026-01-31 09:00:00 UTC (3h ago): its tests are broken
      Last seen   by no scheduler since the control plane started
    ");
    let none = yes("GET /v1/targets", &TargetList { targets: Vec::new() });
    assert_snapshot!(ask("targets-list", vec![none]).shown(), @r"
    No targets found.
    `leviathanctl targets-register FILE` registers one.
    ");
}

#[test]
fn events_tail() {
    let answer = yes(
        "GET /v1/events?limit=20&newest=true&attempt=attempt-01khz4e8m0abcdef&type=pr.created",
        &answers::page(answers::timeline(), 43),
    );
    let command = format!("events-tail --type pr.created --attempt {ATTEMPT}");
    assert_snapshot!(ask(&command, vec![answer]).shown(), @r"
    41  2026-01-31 11:50:00  attempt.claimed       attempt-01khz4e8m0abcdef task-001  epoch 1 by worktree
    42  2026-01-31 11:50:02  attempt.started       attempt-01khz4e8m0abcdef task-001  epoch 1 on host-1:4242
    43  2026-01-31 11:53:20  pr.created            attempt-01khz4e8m0abcdef task-001  #7 https://forge.example/owner/my-repo/pull/7
    ");
    let none = yes("GET /v1/events?limit=20&newest=true", &answers::page(Vec::new(), 0));
    assert_snapshot!(ask("events-tail", vec![none]).shown(), @"No events found.");
}

#[test]
fn json_is_the_answer_of_the_control_plane() {
    let shown = ask(
        "--output json attempts-list",
        vec![yes("GET /v1/attempts?limit=10", &answers::attempts(vec![answers::completed()], 1))],
    );
    let parsed: AttemptList = serde_json::from_str(&shown.shown()).unwrap();
    assert_eq!(parsed, answers::attempts(vec![answers::completed()], 1));

    let page = yes("GET /v1/events?limit=20&newest=true", &answers::page(answers::timeline(), 43));
    let shown = ask("events-tail --output json", vec![page]).shown();
    let events: Vec<RecordedEvent> = shown.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events, answers::timeline(), "one event in each line");
}
