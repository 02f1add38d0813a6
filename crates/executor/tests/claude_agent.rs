//! The Claude agent against a scripted Messages API that refuses what the real one refuses.

#![expect(clippy::unwrap_used, reason = "a failed expectation ends its test")]

mod sample;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use leviathan_executor as executor;

use executor::agent::claude::{Budgets, Claude, Config, Patience};
use executor::agent::{Agent, AgentFailure, AgentReport, Brief, Budget, FailedCheck, FailureCause, Outcome};
use executor::contain::Containment;
use executor::toolbox::{Bounds, CheckReport, Shell, Toolbox, Tree};
use model::FailureReason;
use secrecy::SecretString;
use serde_json::{Value, json};
use test_support::claude::{ClaudeServer, KEY, Reply};
use tokio::sync::watch;
use tokio::time::Instant;

/// A tree, an agent and a server that answers from a script.
struct Stage {
    folder: tempfile::TempDir,
    server: ClaudeServer,
    config: Config,
    cancel: watch::Sender<bool>,
    deadline: Instant,
    waits: Arc<Mutex<Vec<Duration>>>,
}

impl Stage {
    async fn new(script: impl IntoIterator<Item = Reply>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("tree/src")).unwrap();
        std::fs::write(folder.path().join("tree/src/app.py"), "def one():\n    return 1\n").unwrap();
        std::fs::write(folder.path().join("tree/README.md"), "A sample.\n").unwrap();
        let server = ClaudeServer::start(script).await;
        let transcript = folder.path().join("transcript.jsonl");
        let mut config = Config::new(SecretString::from(KEY), 5_000_000, transcript);
        config.base_url = server.base_url().to_owned();
        config.idle_timeout = Duration::from_secs(20);
        let waits = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&waits);
        config.pause = Arc::new(move |wait| {
            record.lock().unwrap().push(wait);
            Box::pin(std::future::ready(()))
        });
        let deadline = Instant::now() + Duration::from_secs(60);
        Self { folder, server, config, cancel: watch::channel(false).0, deadline, waits }
    }

    fn tree(&self) -> std::path::PathBuf {
        self.folder.path().join("tree")
    }

    fn toolbox(&self) -> Toolbox {
        let containment = Containment::new(env!("CARGO_BIN_EXE_executor-under-test"), BTreeMap::new());
        Toolbox {
            tree: Tree::open(&self.tree()).unwrap(),
            rules: sample::task().1,
            shell: Shell::new(containment, self.folder.path().join("agent")),
            check: Arc::new(|name| {
                let report = CheckReport { passed: false, text: "1 test failed".to_owned() };
                Box::pin(std::future::ready((name == "tests").then_some(report)))
            }),
            bounds: Bounds::new(self.deadline, self.cancel.subscribe()),
        }
    }

    fn agent(&self) -> Agent {
        Agent::Claude(Box::new(Claude::new(self.config.clone()).unwrap()))
    }

    async fn work(&self) -> Result<AgentReport, AgentFailure> {
        // A hang is a failure of the test, not of the machine that runs it.
        let toolbox = self.toolbox();
        let mut agent = self.agent();
        let brief = brief();
        tokio::time::timeout(Duration::from_secs(50), agent.work(&brief, &toolbox)).await.unwrap()
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.tree().join(path)).unwrap()
    }

    fn transcript(&self) -> Vec<Value> {
        lines_of(&self.folder.path().join("transcript.jsonl"))
    }
}

fn lines_of(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn brief() -> Brief {
    sample::task().0
}

fn edit(old: &str, new: &str) -> Reply {
    let input = json!({ "command": "str_replace", "path": "src/app.py", "old_str": old, "new_str": new });
    Reply::tool("str_replace_based_edit_tool", input)
}

fn view() -> Reply {
    Reply::tool("str_replace_based_edit_tool", json!({ "command": "view", "path": "src/app.py" }))
}

#[tokio::test]
async fn a_task_is_done_in_a_few_turns_over_one_cached_conversation() {
    let stage = Stage::new([
        view().thinking("Let me look.").saying("I look at the file."),
        edit("def one():\n    return 1", "def two():\n    return 2").thinking("Simple."),
        Reply::tools([
            ("bash", json!({ "command": "cat src/app.py" })),
            ("grep", json!({ "pattern": "def t.o" })),
            ("glob", json!({ "pattern": "**/*.py" })),
            ("read_file", json!({ "path": "README.md" })),
            ("run_check", json!({ "name": "tests" })),
        ])
        .shredded(),
        Reply::tool(
            "finish",
            json!({
                "outcome": "finished",
                "summary": "Renamed it.",
                "criteria": [{ "criterion": "two() returns 2", "note": "it does" }],
            }),
        ),
    ])
    .await;
    let report = stage.work().await.unwrap();
    assert_eq!(report.outcome, Outcome::Finished);
    assert_eq!(report.summary, "Renamed it.");
    assert_eq!(report.criteria[0].note, "it does");
    assert_eq!(stage.read("src/app.py"), "def two():\n    return 2\n");
    let results = stage.server.last_results();
    let texts: Vec<_> = results.iter().map(|(_, text, _)| text.as_str()).collect();
    let expected =
        ["def two():\n    return 2", "src/app.py:1:def two():", "src/app.py", "A sample.\n", "1 test failed"];
    assert_eq!(texts, expected);
    assert_eq!(
        results.iter().map(|(_, _, is_error)| *is_error).collect::<Vec<_>>(),
        [false, false, false, false, true]
    );

    let seen = stage.server.seen();
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|request| request.refused.is_none()), "{seen:#?}");
    assert!(
        seen[1..].iter().all(|request| request.cache_read_tokens > 0),
        "every later turn reads from the cache"
    );
    assert!(seen.windows(2).skip(1).all(|two| two[0].cache_read_tokens < two[1].cache_read_tokens));
    assert_eq!(report.usage.turns, 4);
    assert_eq!(report.model.as_deref(), Some("claude-opus-5-5"));
    let read: u64 = seen.iter().map(|request| request.cache_read_tokens).sum();
    assert_eq!(report.usage.cache_read_tokens, read);
    assert!((1_000..200_000).contains(&report.usage.cost_micro_usd), "{:?}", report.usage);
}

#[tokio::test]
async fn a_write_that_the_rules_deny_is_refused_with_the_reason_and_what_is_allowed() {
    let create = |path: &str| {
        Reply::tool(
            "str_replace_based_edit_tool",
            json!({ "command": "create", "path": path, "file_text": "x" }),
        )
    };
    let stage = Stage::new([create("README.md"), create("src/new.py"), Reply::finish("Made a file.")]).await;
    stage.work().await.unwrap();
    assert_eq!(stage.read("README.md"), "A sample.\n");
    assert_eq!(stage.read("src/new.py"), "x");
    let results: Vec<_> =
        stage.transcript().into_iter().filter(|line| line["type"] == "tool_result").collect();
    let refused = results[0]["text"].as_str().unwrap();
    assert_eq!(results[0]["is_error"], true);
    for part in ["`README.md`: no allowed path matches", "src/**", "**/*.pem"] {
        assert!(refused.contains(part), "{part} is missing in {refused}");
    }
}

#[tokio::test]
async fn failed_checks_are_the_answer_to_finish_in_the_same_conversation() {
    let stage = Stage::new([
        edit("one", "two").thinking("Easy."),
        Reply::tools([
            ("bash", json!({ "command": "true" })),
            ("finish", json!({ "outcome": "finished", "summary": "First." })),
        ]),
        edit("return 1", "return 2"),
        Reply::finish("Second."),
    ])
    .await;
    let (mut agent, toolbox) = (stage.agent(), stage.toolbox());
    let first = agent.work(&brief(), &toolbox).await.unwrap();
    assert_eq!(first.summary, "First.");
    let failed = FailedCheck {
        name: "tests".to_owned(),
        outcome: "exited with 1".to_owned(),
        output: "assert 1 == 2".to_owned(),
    };
    let again = brief().next_round(vec![failed]);
    let second = agent.work(&again, &toolbox).await.unwrap();
    assert_eq!(second.summary, "Second.");
    assert_eq!(stage.read("src/app.py"), "def two():\n    return 2\n");
    assert_eq!((first.usage.turns, second.usage.turns), (2, 2), "each round tells what it cost by itself");
    assert!(second.usage.cost_micro_usd > 0);
    let seen = stage.server.seen();
    let messages = seen[2].body["messages"].as_array().unwrap();
    let answer = messages.last().unwrap()["content"].as_array().unwrap();
    assert_eq!(answer.len(), 2, "the results of one turn are one message: {answer:#?}");
    assert!(answer[1]["content"].as_str().unwrap().contains("assert 1 == 2"));
    assert_eq!(answer[1]["is_error"], true);
    assert!(seen[2].cache_read_tokens > seen[1].cache_read_tokens);
}

#[tokio::test]
async fn a_model_that_stops_without_a_report_is_asked_once() {
    for silence in
        [Reply::text("All done."), Reply::empty(), Reply::text("  "), Reply::empty().thinking("Hm.")]
    {
        let stage = Stage::new([edit("one", "two"), silence, Reply::text("I am done.")]).await;
        let report = stage.work().await.unwrap();
        assert_eq!((report.outcome, report.summary.as_str()), (Outcome::Finished, "I am done."));
        assert!(stage.server.seen()[2].body.to_string().contains("You stopped without calling"));
    }
    let stage = Stage::new([
        Reply::finish("Nothing to do."),
        Reply::tool("finish", json!({ "outcome": "gave_up", "summary": "It cannot be done." })),
    ])
    .await;
    let report = stage.work().await.unwrap();
    assert_eq!(report.outcome, Outcome::GaveUp);
    assert!(stage.server.last_results()[0].1.contains("No file differs"));
}

#[tokio::test]
async fn what_is_cut_or_paused_is_asked_for_again_within_limits() {
    let cut_call = || Reply::tool_with_raw_input("bash", r#"{"command": "echo ver"#).stop("max_tokens");
    let cut_text = || Reply::text("First I").stop("max_tokens");
    let paused = || Reply::text("Wait").stop("pause_turn");
    let done = || [edit("one", "two"), Reply::finish("Done.")];
    let stage = Stage::new([cut_call()].into_iter().chain(done())).await;
    stage.work().await.unwrap();
    let seen = stage.server.seen();
    assert_eq!(
        seen[0].body["messages"], seen[1].body["messages"],
        "a cut call leaves no trace in the history"
    );
    assert_eq!(seen[1].body["max_tokens"], 2 * seen[0].body["max_tokens"].as_u64().unwrap());

    Stage::new([cut_text()].into_iter().chain(done())).await.work().await.unwrap();
    Stage::new([paused(), paused()].into_iter().chain(done())).await.work().await.unwrap();

    let rows = [
        (vec![cut_call(), cut_call()], FailureReason::BudgetExceeded),
        (vec![cut_text(), cut_text()], FailureReason::BudgetExceeded),
        (vec![paused(), paused(), paused(), paused()], FailureReason::Stuck),
    ];
    for (script, reason) in rows {
        assert_eq!(Stage::new(script).await.work().await.unwrap_err().reason(), reason);
    }
}

/// Every way in which a conversation can fail ends typed, and in the number of calls that it should.
#[tokio::test]
async fn every_failure_ends_in_its_reason() {
    let many = |reply: Reply, count: usize| vec![reply; count];
    let malformed = |name: &str, input: &str| Reply::tool_with_raw_input(name, input);
    let rows: Vec<(&str, Vec<Reply>, FailureReason)> = vec![
        ("overload", many(Reply::overloaded(), 3), FailureReason::ProviderUnavailable),
        ("outage", many(Reply::error(500, "api_error", "x"), 3), FailureReason::ProviderUnavailable),
        ("cut", many(view().cut_after(5), 3), FailureReason::ProviderUnavailable),
        ("cut before the first event", many(view().cut_after(0), 3), FailureReason::ProviderUnavailable),
        ("short", many(view().short_after(6), 3), FailureReason::ProviderUnavailable),
        ("garbage", many(Reply::garbage(), 3), FailureReason::ProviderUnavailable),
        (
            "error event",
            many(view().error_event_after(4, "overloaded_error"), 3),
            FailureReason::ProviderUnavailable,
        ),
        (
            "out of order",
            many(view().bytes_after(1, "event: content_block_stop\ndata: {\"index\":0}\n\n"), 3),
            FailureReason::ProviderUnavailable,
        ),
        (
            "unknown piece",
            many(
                view().bytes_after(
                    3,
                    "event: content_block_delta\ndata: {\"index\":0,\"delta\":{\"type\":\"new\"}}\n\n",
                ),
                3,
            ),
            FailureReason::ProviderUnavailable,
        ),
        (
            "two messages",
            many(view().bytes_after(1, "event: message_start\ndata: {\"message\":{}}\n\n"), 3),
            FailureReason::ProviderUnavailable,
        ),
        ("rate limit", many(Reply::rate_limited(3), 3), FailureReason::ProviderUnavailable),
        ("rate limit of an hour", many(Reply::rate_limited(3600), 1), FailureReason::ProviderUnavailable),
        ("spend limit", many(Reply::spend_limit(), 1), FailureReason::ProviderSpendLimit),
        (
            "no credit",
            many(Reply::error(400, "invalid_request_error", "Your credit balance is too low"), 1),
            FailureReason::ProviderSpendLimit,
        ),
        ("payment", many(Reply::error(402, "billing_error", "x"), 1), FailureReason::ProviderSpendLimit),
        (
            "wrong request",
            many(Reply::error(400, "invalid_request_error", "x"), 1),
            FailureReason::ConfigInvalid,
        ),
        ("no permission", many(Reply::error(403, "permission_error", "x"), 1), FailureReason::ConfigInvalid),
        ("too large", many(Reply::error(413, "request_too_large", "x"), 1), FailureReason::ConfigInvalid),
        (
            "moved",
            many(Reply::error(308, "error", "x").header("location", "http://127.0.0.1:1/"), 1),
            FailureReason::ConfigInvalid,
        ),
        (
            "error event that no retry helps",
            many(view().error_event_after(1, "authentication_error"), 1),
            FailureReason::ConfigInvalid,
        ),
        ("refusal", many(Reply::refusal("cyber", "no"), 1), FailureReason::ModelRefusal),
        (
            "window",
            many(Reply::text("x").stop("model_context_window_exceeded"), 1),
            FailureReason::BudgetExceeded,
        ),
        ("unknown stop", many(Reply::text("x").stop("something_new"), 1), FailureReason::ConfigInvalid),
        ("unknown tool", many(Reply::tool("rm", json!({})), 3), FailureReason::Stuck),
        ("no JSON", many(malformed("bash", "{\"command\": "), 3), FailureReason::Stuck),
        ("no object", many(malformed("bash", "[1]"), 3), FailureReason::Stuck),
        (
            "wrong fields",
            many(malformed("bash", r#"{"command": "ls", "sudo": true}"#), 3),
            FailureReason::Stuck,
        ),
        ("wrong type", many(malformed("grep", r#"{"pattern": 7}"#), 3), FailureReason::Stuck),
        ("the same again", many(view(), 4), FailureReason::Stuck),
        ("the same error again", many(edit("not there", "x"), 3), FailureReason::Stuck),
    ];
    for (name, script, reason) in rows {
        let mut stage = Stage::new(script).await;
        stage.config.patience = Patience { tries: 3, ..Patience::default() };
        // Dropping the server checks that every reply was asked for, and none beyond.
        let failure = stage.work().await.unwrap_err();
        assert_eq!(failure.reason(), reason, "{name}: {failure}");
        assert!(stage.server.seen().iter().all(|seen| seen.refused.is_none()), "{name}");
        assert_eq!(failure.usage.turns as usize, stage.server.seen().len(), "{name}: failed calls count");
        let last = stage.transcript().pop().unwrap();
        assert_eq!((&last["type"], &last["outcome"]), (&json!("end"), &json!("failure")), "{name}");
        assert_eq!(stage.read("src/app.py"), "def one():\n    return 1\n", "{name}");
    }
}

#[tokio::test]
async fn passing_troubles_are_waited_out_and_paid_for() {
    let stage = Stage::new([
        Reply::overloaded(),
        Reply::rate_limited(7),
        view().cut_after(5),
        view(),
        edit("one", "two"),
        Reply::finish("Done."),
    ])
    .await;
    let report = stage.work().await.unwrap();
    let waits = stage.waits.lock().unwrap().clone();
    assert_eq!(waits.len(), 3);
    assert!(waits[0] <= Duration::from_secs(1), "{waits:?}");
    assert_eq!(waits[1], Duration::from_secs(7), "a rate limit says itself how long");
    assert_eq!(report.usage.turns, 6);
    // The broken stream may have been billed in full: 16,384 tokens at $20 per million.
    assert!(report.usage.cost_micro_usd > 16_384 * 20, "{:?}", report.usage);
    let types: Vec<_> =
        stage.transcript().iter().map(|line| line["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(types.iter().filter(|kind| *kind == "call_failed").count(), 3);
}

#[tokio::test]
async fn wrong_settings_end_before_or_at_the_first_call() {
    type Change = fn(&mut Config);
    let rows: [(&str, Change); 7] = [
        ("key", |config| config.key = SecretString::from("sk-ant-other")),
        ("empty key", |config| config.key = SecretString::from("")),
        ("key with a line feed", |config| config.key = SecretString::from("sk\nant")),
        ("model without a price", |config| config.model = "claude-opus-9".to_owned()),
        ("unknown model", |config| {
            config.model = "claude-opus-9".to_owned();
            config.prices = Some("4/20/5/0.40".parse().unwrap());
        }),
        ("address", |config| config.base_url = "ftp://127.0.0.1".to_owned()),
        ("clear text", |config| config.base_url = "http://example.com".to_owned()),
    ];
    for (name, change) in rows {
        let mut stage = Stage::new([]).await;
        change(&mut stage.config);
        let failure = match Claude::new(stage.config.clone()) {
            Err(failure) => failure,
            Ok(claude) => Agent::Claude(Box::new(claude)).work(&brief(), &stage.toolbox()).await.unwrap_err(),
        };
        assert_eq!(failure.reason(), FailureReason::ConfigInvalid, "{name}: {failure}");
        assert!(stage.server.seen().len() <= 1, "{name}");
    }
    let mut stage = Stage::new([]).await;
    stage.config.base_url = "http://127.0.0.1:1".to_owned();
    let failure = stage.work().await.unwrap_err();
    assert_eq!(failure.reason(), FailureReason::ProviderUnavailable, "{failure}");
    assert_eq!(failure.usage.cost_micro_usd, 0, "what never arrived costs nothing");
}

#[tokio::test]
async fn no_budget_is_overrun() {
    let costly = || edit("one", "one").output_tokens(10_000);
    type Change = fn(&mut Budgets);
    let rows: [(Budget, Change); 4] = [
        (Budget::Dollars, |budgets| budgets.microdollars = 500_000),
        (Budget::Tokens, |budgets| budgets.tokens = 40_000),
        (Budget::Turns, |budgets| budgets.turns = 2),
        (Budget::ContextTokens, |budgets| budgets.context_tokens = 11_500),
    ];
    for (budget, change) in rows {
        // Each turn differs, so that only the budget can end it.
        let script = (0..40).map(|n| {
            Reply::tool("bash", json!({ "command": format!("echo {n} >> src/app.py") })).output_tokens(10_000)
        });
        let mut stage = Stage::new(script.chain([costly()])).await;
        change(&mut stage.config.budgets);
        let failure = stage.work().await.unwrap_err();
        let is_expected =
            matches!(failure.cause, FailureCause::Budget { budget: found, .. } if found == budget);
        assert!(is_expected, "{budget}: {failure}");
        assert_eq!(failure.reason(), FailureReason::BudgetExceeded);
        assert!(stage.server.forget_rest() > 0);
        let (budgets, usage) = (stage.config.budgets, failure.usage);
        assert!(usage.cost_micro_usd <= budgets.microdollars, "{usage:?}");
        assert!(usage.turns <= budgets.turns);
        let asked: Vec<_> =
            stage.server.seen().iter().map(|seen| seen.body["max_tokens"].as_u64().unwrap()).collect();
        assert!(asked.iter().all(|max_tokens| *max_tokens <= budgets.output_tokens), "{asked:?}");
    }
}

#[tokio::test]
async fn a_model_is_told_when_its_budget_runs_low() {
    let script = (0..9).map(|n| Reply::tool("bash", json!({ "command": format!("echo {n} >> src/app.py") })));
    let mut stage = Stage::new(script.chain([Reply::finish("Done.")])).await;
    stage.config.budgets.turns = 10;
    stage.work().await.unwrap();
    let last = stage.server.seen().pop().unwrap().body.to_string();
    let notices = ["80 % of this attempt's budget", "90 % of this attempt's budget"];
    assert!(notices.iter().all(|notice| last.matches(notice).count() == 1), "{last}");
}

#[tokio::test]
async fn cancelling_and_the_deadline_end_every_wait() {
    let slow_command = || Reply::tool("bash", json!({ "command": "touch src/begun; sleep 600" }));
    let scripts: [fn() -> Reply; 2] = [|| view().hang_after(3), || view().hang_after(0)];
    let scripts =
        scripts.into_iter().map(|make| make()).chain([slow_command(), view().drip(Duration::from_secs(5))]);
    for reply in scripts {
        let mut stage = Stage::new([reply.clone()]).await;
        stage.deadline = Instant::now() + Duration::from_millis(700);
        assert_eq!(stage.work().await.unwrap_err().reason(), FailureReason::TimedOut);

        let stage = Stage::new([reply]).await;
        let cancel_soon = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            stage.cancel.send_replace(true);
        };
        let (done, ()) = tokio::join!(stage.work(), cancel_soon);
        let failure = done.unwrap_err();
        assert_eq!(failure.reason(), FailureReason::Cancelled, "{failure}");
        assert!(stage.transcript().last().unwrap()["type"] == "end");
    }
    let stage = Stage::new([]).await;
    stage.cancel.send_replace(true);
    assert_eq!(stage.work().await.unwrap_err().reason(), FailureReason::Cancelled);
}

#[tokio::test]
async fn while_an_operator_has_paused_nothing_is_asked_or_spent() {
    let mut stage = Stage::new([edit("one", "two"), Reply::finish("Done.")]).await;
    // Paused from after the first call on, and resumed when it has been looked at often enough to wait.
    let looks = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&looks);
    stage.config.is_paused = Arc::new(move || {
        let look = counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        (1..5).contains(&look)
    });
    let waited = Arc::new(std::sync::Mutex::new(Vec::new()));
    let waits = Arc::clone(&waited);
    stage.config.pause = Arc::new(move |wait| {
        waits.lock().unwrap().push(wait);
        Box::pin(tokio::task::yield_now())
    });
    assert_eq!(stage.work().await.unwrap().usage.turns, 2);
    assert_eq!(waited.lock().unwrap().len(), 4);
    assert_eq!(stage.server.seen().len(), 2);

    // A pause that nobody ends is ended by the deadline, and by a cancel.
    let mut stage = Stage::new([]).await;
    stage.config.is_paused = Arc::new(|| true);
    stage.deadline = Instant::now() + Duration::from_millis(300);
    assert_eq!(stage.work().await.unwrap_err().reason(), FailureReason::TimedOut);
    assert_eq!(stage.server.seen().len(), 0);
    stage.deadline = Instant::now() + Duration::from_secs(40);
    stage.cancel.send_replace(true);
    assert_eq!(stage.work().await.unwrap_err().reason(), FailureReason::Cancelled);
}

#[tokio::test]
async fn a_stream_in_which_nothing_comes_is_given_up_and_asked_again() {
    let mut stage = Stage::new([view().hang_after(2), edit("one", "two"), Reply::finish("Done.")]).await;
    stage.config.idle_timeout = Duration::from_millis(400);
    assert_eq!(stage.work().await.unwrap().usage.turns, 3);
}

#[tokio::test]
async fn neither_the_model_nor_the_transcript_sees_a_secret() {
    let secret = "forge-token-0123456789";
    let leak = format!("printf 'a%s' '{KEY}'; printf 'forge-token-%s' 0123456789; touch src/x");
    let mut stage =
        Stage::new([Reply::tool("bash", json!({ "command": leak })), Reply::finish("Done.")]).await;
    stage.config.secrets = vec![SecretString::from(secret)];
    stage.work().await.unwrap();
    assert_eq!(stage.server.last_results()[0].1, "a[redacted][redacted]");
    let written = std::fs::read_to_string(stage.folder.path().join("transcript.jsonl")).unwrap();
    assert!(!written.contains(secret) && !written.contains(KEY), "{written}");
    assert_eq!(stage.transcript()[0]["format"], executor::agent::claude::TRANSCRIPT_FORMAT);
}

#[tokio::test]
async fn requests_hold_what_the_api_wants_and_nothing_that_changes() {
    let stage = Stage::new([view(), edit("one", "two"), Reply::finish("Done.")]).await;
    stage.work().await.unwrap();
    let seen = stage.server.seen();
    for request in &seen {
        let body = &request.body;
        assert_eq!(body["tools"], seen[0].body["tools"]);
        assert_eq!(body["system"], seen[0].body["system"]);
        assert_eq!(body["thinking"], json!({ "type": "adaptive", "display": "summarized" }));
        assert_eq!(body["cache_control"], json!({ "type": "ephemeral" }));
        assert_eq!(body["stream"], true);
        for absent in ["temperature", "top_p", "top_k", "tool_choice"] {
            assert!(body.get(absent).is_none(), "{absent}");
        }
    }
    let first = seen[0].body["messages"][0].to_string();
    for part in ["Return two", "two() returns 2", "src/**", "**/*.pem", "pytest"] {
        assert!(first.contains(part), "{part} is missing in {first}");
    }
    let system = seen[0].body["system"].to_string();
    assert!(!system.contains("task-001") && !system.contains("attempt-1"));
}

#[tokio::test]
async fn what_commands_leave_behind_is_told_before_it_can_cost_the_work() {
    let bash = |command: &str| Reply::tool("bash", json!({ "command": command }));
    let stage = Stage::new([
        edit("one", "two"),
        bash("mkdir src/__pycache__ cache; echo x > src/__pycache__/app.pyc; echo x > cache/app.pyc; echo x >> README.md"),
        bash("true"),
        Reply::finish("Done."),
        bash("rm -r cache; printf 'A sample.\\n' > README.md"),
        Reply::finish("Done now."),
    ])
    .await;
    let report = stage.work().await.unwrap();
    assert_eq!(report.summary, "Done now.");
    let results = |n: usize| {
        let body = &stage.server.seen()[n].body;
        body["messages"].as_array().unwrap().last().unwrap()["content"][0]["content"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let notice = results(2);
    assert!(notice.contains("`README.md`, `cache/app.pyc`") && !notice.contains("src/"), "{notice}");
    assert_eq!(results(3), "[no output]", "the same is not said twice");
    assert!(results(4).contains("`cache/app.pyc`"), "a report that must fail is sent back");
}

/// The transcript alone is enough to write every request again, byte by byte.
#[tokio::test]
async fn the_transcript_holds_every_request_as_it_was_sent() {
    let stage = Stage::new([
        view().thinking("Hm.").saying("I look."),
        Reply::overloaded(),
        Reply::tool_with_raw_input("bash", "{\"command").stop("max_tokens"),
        edit("one", "two").saying("I edit."),
        Reply::empty(),
        Reply::finish("Done."),
    ])
    .await;
    stage.work().await.unwrap();
    let (lines, seen) = (stage.transcript(), stage.server.seen());
    let first = &lines[0];
    let mut messages: Vec<Value> = Vec::new();
    let mut requests = 0;
    for line in lines.iter().filter(|line| line["type"] == "request") {
        messages.truncate(usize::try_from(line["from"].as_u64().unwrap()).unwrap());
        messages.extend(line["messages"].as_array().unwrap().iter().cloned());
        let mut body = json!({ "model": first["model"], "max_tokens": line["max_tokens"], "stream": true });
        body.as_object_mut().unwrap().extend(first["fixed"].as_object().unwrap().clone());
        body["messages"] = Value::from(messages.clone());
        assert_eq!(line["digest"], model::Digest::of(body.to_string().as_bytes()).as_str());
        assert_eq!(body, seen[requests].body);
        requests += 1;
    }
    assert_eq!(requests, 6);
    let count = |kind: &str| lines.iter().filter(|line| line["type"] == kind).count();
    let counts = ["response", "call_failed", "tool_intent", "tool_result", "end"].map(count);
    assert_eq!(counts, [5, 1, 3, 3, 1]);
}

/// What each tool says to each input, and what the file is afterwards. All calls of a row are one turn.
#[tokio::test]
async fn tools_do_what_they_say_and_every_misuse_is_an_error_with_a_next_step() {
    let edit = |command: &str, more: Value| {
        let mut input = json!({ "command": command, "path": "src/app.py" });
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ("str_replace_based_edit_tool", input)
    };
    let replace = |old: &str, new: &str| edit("str_replace", json!({ "old_str": old, "new_str": new }));
    let insert = |line: i64, text: &str| edit("insert", json!({ "insert_line": line, "insert_text": text }));
    let view = |more: Value| edit("view", more);
    let read = |path: &str| ("read_file", json!({ "path": path }));
    let unchanged = "one\ntwo\ntwo\nthree";
    // The call, a part of what the tool must say, whether that is an error, and the file afterwards.
    let rows = [
        (replace("one", "1"), "Changed `src/app.py`", false, "1\ntwo\ntwo\nthree"),
        (replace("one\n", ""), "Changed `src/app.py`", false, "two\ntwo\nthree"),
        (replace("two", "2"), "2 times, at lines 2, 3", true, unchanged),
        (replace("four", "4"), "must match exactly", true, unchanged),
        (replace("one\nthree", "4"), "Lines that hold its first line", true, unchanged),
        (replace("", "4"), "old_str is empty", true, unchanged),
        (replace("one", "one"), "nothing was changed", true, unchanged),
        (insert(0, "zero"), "Changed", false, "zero\none\ntwo\ntwo\nthree"),
        (insert(4, "four\n"), "Changed", false, "one\ntwo\ntwo\nthree\nfour\n"),
        (insert(5, "five"), "between 0 and 4", true, unchanged),
        (edit("create", json!({ "file_text": "new" })), "Replaced", false, "new"),
        (view(json!({})), "     4\tthree", false, unchanged),
        (view(json!({ "view_range": [2, 2] })), "     2\ttwo", false, unchanged),
        (view(json!({ "view_range": [3, -1] })), "     3\ttwo\n     4\tthree", false, unchanged),
        (view(json!({ "view_range": [9, 12] })), "has 4 lines", true, unchanged),
        (view(json!({ "view_range": [0, 1] })), "1 <= first", true, unchanged),
        (view(json!({ "path": "." })), "src/app.py", false, unchanged),
        (view(json!({ "path": "missing.py" })), "look for it with glob", true, unchanged),
        (view(json!({ "path": "../canary" })), "leaves the repository", true, unchanged),
        (view(json!({ "path": "/etc/passwd" })), "leaves the repository", true, unchanged),
        (view(json!({ "path": "src/link" })), "symbolic link", true, unchanged),
        (view(json!({ "path": "src/binary" })), "not UTF-8", true, unchanged),
        (edit("create", json!({ "path": "../canary", "file_text": "x" })), "..", true, unchanged),
        (edit("create", json!({ "path": ".git/config", "file_text": "x" })), ".git", true, unchanged),
        (edit("create", json!({ "path": "src/link", "file_text": "x" })), "symbolic link", true, unchanged),
        (
            edit("create", json!({ "path": ".leviathan/policy.yaml", "file_text": "x" })),
            "refused",
            true,
            unchanged,
        ),
        (edit("create", json!({ "path": "src/key.pem", "file_text": "x" })), "forbidden", true, unchanged),
        (edit("undo_edit", json!({})), "undo_edit", true, unchanged),
        (read("src/app.py"), unchanged, false, unchanged),
        (
            ("read_file", json!({ "path": "src/app.py", "first_line": 2, "lines": 1 })),
            "two\n",
            false,
            unchanged,
        ),
        (("grep", json!({ "pattern": "t(wo|hree)$" })), "src/app.py:4:three", false, unchanged),
        (
            ("grep", json!({ "pattern": "ONE", "ignore_case": true, "path": "src/app.py" })),
            "src/app.py:1:one",
            false,
            unchanged,
        ),
        (("grep", json!({ "pattern": "one", "glob": "*.md" })), "Nothing was found.", false, unchanged),
        (("grep", json!({ "pattern": "secret" })), "Nothing was found.", false, unchanged),
        (("grep", json!({ "pattern": "(" })), "no regular expression", true, unchanged),
        (("glob", json!({ "pattern": "*.py" })), "Nothing was found.", false, unchanged),
        (("glob", json!({ "pattern": "**/*.{py,md}" })), "README.md\nsrc/app.py", false, unchanged),
        (("glob", json!({ "pattern": "[" })), "`[`", true, unchanged),
        (("bash", json!({ "command": "cat src/app.py; exit 3" })), "three\n[exited with 3]", true, unchanged),
        (("bash", json!({ "command": "env | grep -c ANTHROPIC" })), "0\n[exited with 1]", true, unchanged),
        (
            ("bash", json!({ "command": "head -c 30000 /dev/zero | tr '\\0' x" })),
            "20000 bytes left out",
            false,
            unchanged,
        ),
        (("bash", json!({ "restart": true })), "starts afresh", false, unchanged),
        (("bash", json!({})), "command is missing", true, unchanged),
        (("run_check", json!({ "name": "tests" })), "1 test failed", true, unchanged),
        (("run_check", json!({ "name": "lint" })), "the checks are: tests", true, unchanged),
    ];
    for ((tool, input), part, is_error, after) in rows {
        let shown = format!("{tool} {input}");
        let stage = Stage::new([Reply::tool(tool, input), Reply::refusal("none", "the row is over")]).await;
        std::fs::write(stage.tree().join("src/app.py"), unchanged).unwrap();
        std::fs::write(stage.tree().join("src/binary"), [0xff, 0xfe, b'\n']).unwrap();
        std::fs::write(stage.folder.path().join("canary"), "secret").unwrap();
        std::os::unix::fs::symlink("../../canary", stage.tree().join("src/link")).unwrap();
        stage.work().await.unwrap_err();
        let (_, text, was_error) = stage.server.last_results().remove(0);
        assert!(text.contains(part), "{shown}: {text}");
        assert_eq!(was_error, is_error, "{shown}: {text}");
        assert_eq!(stage.read("src/app.py"), after, "{shown}");
        assert_eq!(std::fs::read_to_string(stage.folder.path().join("canary")).unwrap(), "secret", "{shown}");
    }
}

#[tokio::test]
async fn lines_that_end_in_carriage_return_are_explained_and_kept() {
    let stage =
        Stage::new([edit("one\ntwo", "x"), edit("one\r\ntwo", "1\r\n2"), Reply::finish("Done.")]).await;
    std::fs::write(stage.tree().join("src/app.py"), "one\r\ntwo\r\n").unwrap();
    stage.work().await.unwrap();
    assert_eq!(stage.read("src/app.py"), "1\r\n2\r\n");
    let refused = stage.server.seen()[1].body["messages"][2].to_string();
    assert!(refused.contains("lines end with"), "{refused}");
}

#[tokio::test]
async fn a_provider_that_counts_nothing_does_not_switch_the_budget_off() {
    let script = (0..40).map(|n| {
        let call = Reply::tool("bash", json!({ "command": format!("echo {n} >> src/app.py") }));
        call.output_tokens(0)
    });
    let mut stage = Stage::new(script).await;
    stage.config.budgets.microdollars = 1_000_000;
    let failure = stage.work().await.unwrap_err();
    assert_eq!(failure.reason(), FailureReason::BudgetExceeded, "{failure}");
    assert!(stage.server.forget_rest() > 30);
    assert!(failure.usage.cost_micro_usd <= 1_000_000);
}

#[tokio::test]
async fn an_executor_that_starts_again_does_not_start_its_budget_again() {
    let mut stage = Stage::new([view().hang_after(1), view().hang_after(1)]).await;
    // What is set aside for one call, 16,384 tokens of output and the input, is more than half of this.
    stage.config.budgets.microdollars = 600_000;
    for _ in 0..2 {
        stage.deadline = Instant::now() + Duration::from_millis(700);
        assert_eq!(stage.work().await.unwrap_err().reason(), FailureReason::TimedOut);
    }
    stage.deadline = Instant::now() + Duration::from_secs(60);
    let failure = stage.work().await.unwrap_err();
    assert_eq!(failure.reason(), FailureReason::BudgetExceeded, "{failure}");
    assert!((300_000..=600_000).contains(&failure.usage.cost_micro_usd), "{:?}", failure.usage);
    assert_eq!(stage.transcript().iter().filter(|line| line["type"] == "conversation").count(), 3);
}
