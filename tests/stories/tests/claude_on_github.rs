//! The specification's setting: Claude does the task, GitHub holds the pull request. The far sides are servers that
//! refuse what the real ones refuse; git speaks HTTP with a token.

#![expect(clippy::unwrap_used, reason = "a story fails where it is told")]

use std::sync::Arc;

use leviathan_stories::{Installation, MergeKind, Origin, TOKEN, eventually, files_below};
use serde_json::json;
use test_support::claude::{ClaudeServer, KEY, Reply};
use test_support::github::GitHub;

const GITHUB_TOKEN: &str = "ghp_story0123456789abcdefghijklmnopqrstuv";

const BACKLOG: &str = "tasks:
  - task_id: task-002
    title: Add logging to API endpoints
    scope: observability
    priority: medium
    estimated_size: medium
    allowed_paths:
      - src/api/**/*.py
    acceptance_criteria:
      - All endpoints log request/response
      - Structured logging format
    status: pending
";

const POLICY: &str = "scopes:
  observability:
    allowed_paths:
      - src/**/*.py
    forbidden_patterns:
      - tests/**
      - config/**
invariants:
  - name: Every endpoint logs
    check: grep -q 'log(' src/api/users.py
";

const FILES: &[(&str, &str)] =
    &[("src/api/users.py", "def users():\n    return []\n"), ("tests/test_users.py", "assert True\n")];

struct World {
    story: Installation,
    github: GitHub,
    claude: ClaudeServer,
    _runtime: tokio::runtime::Runtime,
}

fn world(script: Vec<Reply>, check_passes_on_base: bool) -> World {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let claude = runtime.block_on(ClaudeServer::start(script));
    let origin = Arc::new(Origin::empty());
    let github = GitHub::start(Arc::clone(&origin), "acme", "shop", GITHUB_TOKEN);
    let policy = if check_passes_on_base { POLICY.to_owned() } else { format!("{POLICY}baseline: false\n") };
    // The control plane never sees the keys of the forge and the model: they are set for what starts later.
    let mut story = Installation::at(origin, &github.repo_url(), FILES, BACKLOG, &policy);
    story.set("GITHUB_TOKEN", GITHUB_TOKEN);
    story.set("GITHUB_API_URL", &github.api_url());
    story.set("ANTHROPIC_API_KEY", KEY);
    story.set("ANTHROPIC_BASE_URL", claude.base_url());
    World { story, github, claude, _runtime: runtime }
}

fn edit(new: &str) -> Reply {
    Reply::tool(
        "str_replace_based_edit_tool",
        json!({ "command": "str_replace", "path": "src/api/users.py", "old_str": "    return []", "new_str": new }),
    )
}

#[test]
fn claude_works_a_human_merges_and_no_secret_is_anywhere() {
    let script = vec![
        Reply::tool("str_replace_based_edit_tool", json!({ "command": "view", "path": "src/api/users.py" })),
        // Outside the scope: the tool refuses, the model hears why and goes on.
        Reply::tool(
            "str_replace_based_edit_tool",
            json!({ "command": "create", "path": "tests/test_log.py", "file_text": "assert True" }),
        ),
        Reply::tool("bash", json!({ "command": "env; cat /proc/self/environ" })),
        edit("    log('users')\n    return []"),
        Reply::tool("run_check", json!({ "name": "Every endpoint logs" })),
        Reply::finish("users() logs now. @octocat fixes #1 <img src=x>"),
    ];
    let world = world(script, false);
    let pass = world.story.pass().succeeded();

    let seen = world.claude.seen();
    assert!(seen.iter().all(|request| request.refused.is_none()), "{seen:?}");
    assert!(seen.last().unwrap().cache_read_tokens > 0, "the prompt cache is never hit");
    assert_eq!(
        world.github.numbers(),
        [1],
        "{}\n{}",
        pass.stderr,
        world.story.ctl(&["failures-recent"]).stdout
    );
    let (title, body) = world.github.text(1);
    assert_eq!(title, "Add logging to API endpoints");
    assert!(body.contains("src/api/users.py") && body.contains("Every endpoint logs"), "{body}");
    for live in ["@octocat", "<img", "fixes #1"] {
        assert!(!body.contains(live), "{live} is alive in\n{body}");
    }
    let attempt = &world.story.json(&["attempts-list"])["attempts"][0];
    assert!(attempt["usage"]["cost_micro_usd"].as_u64().unwrap() > 0, "{attempt}");
    let diff = world.story.origin.read_git(&["diff", "--name-only", "main...leviathan/task-002-a1"]);
    assert_eq!(diff.trim(), "src/api/users.py");

    world.github.review(1, "bob", "APPROVED");
    world.github.merge(1, MergeKind::Squash, "alice");
    world.story.pass().succeeded();
    assert!(world.story.backlog().contains("status: completed"));
    let merged = world.story.events().into_iter().find(|event| event["event_type"] == "pr.merged").unwrap();
    assert_eq!(merged["payload"]["by"], "alice");
    assert_eq!(merged["payload"]["approved_by"], json!(["bob"]));

    no_secret_is_in(&world, &[pass.stdout.as_bytes(), pass.stderr.as_bytes(), body.as_bytes()]);
}

/// Nothing that Leviathan wrote holds a secret: files, events, requests to the model, what the programs said.
fn no_secret_is_in(world: &World, outputs: &[&[u8]]) {
    let mut places: Vec<(String, Vec<u8>)> = files_below(&world.story.data())
        .into_iter()
        .map(|(path, content)| (path.display().to_string(), content))
        .collect();
    places.extend(outputs.iter().map(|output| ("output".to_owned(), output.to_vec())));
    let seen = world.claude.seen();
    places.extend(
        seen.iter().map(|seen| ("a request to the model".to_owned(), seen.body.to_string().into_bytes())),
    );
    places.push(("the log".to_owned(), format!("{:?}", world.story.events()).into_bytes()));
    for (place, content) in places {
        for secret in [GITHUB_TOKEN, KEY, TOKEN] {
            let is_there = content.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!is_there, "{secret} is in {place}");
        }
    }
}

#[test]
fn a_pause_holds_the_next_call_and_a_cancel_ends_everything_soon() {
    let wait = Reply::tool(
        "bash",
        json!({ "command": "touch src/began; while [ ! -e src/go ]; do sleep 0.1; done" }),
    );
    let world = world(vec![wait, edit("    log('users')\n    return []"), Reply::finish("Done.")], false);
    let mut scheduler = world.story.start(&["scheduler"]);
    let attempt = || world.story.json(&["attempts-list"])["attempts"][0].clone();
    let tree = |name: &str| -> Option<std::path::PathBuf> {
        let below = files_below(&world.story.data());
        below.into_iter().map(|(path, _)| path).find(|path| path.ends_with(name))
    };
    eventually("the command runs", || tree("src/began").is_some());
    let began = tree("src/began").unwrap();
    world.story.ctl(&["pause", "--reason", "month's end"]).succeeded();
    // Once its executor has heard of it, the command may end, and the model is not asked.
    eventually("the executor hears of the pause", || {
        files_below(&world.story.data())
            .into_iter()
            .any(|(path, content)| path.ends_with("paused") && content == b"yes")
    });
    std::fs::write(began.with_file_name("go"), "").unwrap();
    eventually("the attempt says that it waits", || {
        attempt()["activity"].as_str().is_some_and(|activity| activity.starts_with("paused"))
    });
    assert_eq!(world.claude.seen().len(), 1);

    // A cancel ends the executor and its stage, and with them all that they started, also while they wait.
    let is_held = |name: &str| {
        let lock = std::fs::File::options().write(true).open(tree(name).unwrap()).unwrap();
        lock.try_lock().is_err()
    };
    assert!(is_held("lock") && is_held("stage.lock"));
    let id = attempt()["attempt_id"].as_str().unwrap().to_owned();
    let asked = std::time::Instant::now();
    world.story.ctl(&["cancel", &id, "--reason", "enough"]).succeeded();
    eventually("nothing of the attempt runs", || !is_held("lock") && !is_held("stage.lock"));
    println!("the attempt's processes ended {:?} after the cancel was asked for", asked.elapsed());
    assert_eq!(world.claude.seen().len(), 1, "nothing was asked meanwhile");
    assert_eq!(world.claude.forget_rest(), 2);
    scheduler.kill();
}

#[test]
fn a_failed_check_goes_back_to_the_model_the_second_round_passes_and_both_can_be_replayed() {
    let script = vec![
        edit("    print('users')\n    return []"),
        Reply::finish("Done."),
        Reply::tool("bash", json!({ "command": "pwd; sed -i 's/print(/log(/' src/api/users.py" })),
        Reply::finish("Now it logs."),
    ];
    let world = world(script, false);
    world.story.pass().succeeded();
    assert_eq!(world.github.numbers(), [1], "{}", world.story.ctl(&["failures-recent"]).stdout);
    let types = world.story.event_types("task-002");
    let count = |wanted: &str| types.iter().filter(|seen| *seen == wanted).count();
    assert_eq!((count("change.permitted"), count("invariant.failed"), count("invariant.passed")), (2, 1, 1));
    replays(&world);
}

/// With the transcript and the repository alone, the same commits are made again; with another transcript they are not.
fn replays(world: &World) {
    let events = world.story.events();
    let of = |kind: &str| events.iter().filter(|event| event["event_type"] == kind).collect::<Vec<_>>();
    let commits: Vec<&str> =
        of("change.permitted").iter().map(|it| it["payload"]["candidate"].as_str().unwrap()).collect();
    let stored = of("artifact.stored");
    let digest = |name: &str| {
        let found = stored.iter().find(|it| it["payload"]["name"] == name).unwrap();
        found["payload"]["sha256"].as_str().unwrap().to_owned()
    };
    let transcript = world.story.ctl(&["artifact", &digest("transcript-2.jsonl")]).succeeded().stdout;
    let folder = tempfile::tempdir().unwrap();
    let origin = world.story.origin.dir().to_str().unwrap().to_owned();
    let replay = |transcript: &str| {
        let file = folder.path().join("transcript.jsonl");
        std::fs::write(&file, transcript).unwrap();
        world.story.leviathan(&["replay", "--dir", &origin, file.to_str().unwrap()])
    };
    let asked_before = world.claude.seen().len();
    let same = replay(&transcript).succeeded();
    for commit in commits {
        assert!(same.stdout.contains(&format!("made     {commit}: the same")), "{}", same.stdout);
    }
    assert!(!same.stdout.contains("something else"), "{}", same.stdout);
    assert_eq!(world.claude.seen().len(), asked_before, "a replay asks nobody");

    let another = replay(&transcript.replace("sed -i 's/print(/log(/'", "sed -i 's/print(/trace(/'"));
    assert!(another.stdout.contains("NOT THE SAME") && another.code == 1, "{}", another.stdout);
    let none = replay("{\"type\":\"conversation\",\"format\":\"leviathan-transcript/1\"}");
    assert!(none.code == 2 && none.stderr.contains("leviathan-transcript/2"), "{}", none.stderr);
}

#[test]
fn a_check_that_fails_before_any_change_costs_nothing() {
    let world = world(Vec::new(), true);
    world.story.pass();
    assert_eq!(world.claude.seen().len(), 0, "no model was asked");
    assert_eq!(world.github.numbers(), [] as [u64; 0]);
    let failures = world.story.json(&["failures-recent"]);
    assert_eq!(failures["failures"][0]["failure"]["reason"], "invariant_failed_on_base");
    let tasks = world.story.json(&["tasks-list"]);
    assert_eq!(tasks["tasks"][0]["reason"], "config_invalid");
}

#[test]
fn a_refusal_of_the_model_ends_the_attempt_and_is_recorded() {
    let world = world(vec![Reply::refusal("cyber", "I will not do this.")], false);
    world.story.pass();
    let failures = world.story.json(&["failures-recent"]);
    assert_eq!(failures["failures"][0]["failure"]["reason"], "model_refusal");
    assert_eq!(world.github.numbers(), [] as [u64; 0]);
}

/// What a day may cost holds before a model is asked: a claim sets aside all that its attempt may cost.
#[test]
fn a_budget_of_the_day_that_is_too_small_for_the_attempt_keeps_it_waiting() {
    let mut world = world(Vec::new(), false);
    world.story.set("LEVIATHAN_BUDGET_USD_PER_DAY", "4.99");
    world.story.pass().succeeded();
    assert_eq!(world.story.json(&["tasks-list"])["tasks"][0]["reason"], "budget_spent");
    assert_eq!(world.claude.seen().len(), 0, "no model was asked");
    assert_eq!(world.story.json(&["attempts-list"])["attempts"], json!([]));
}
