//! The program itself, as a process, against a real control plane.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use api::Client;
use api::types::ClaimRequest;
use control_plane::{Backend, Config, Server};
use model::{AttemptId, Digest, Event};
use rustix::process::{Pid, Signal, kill_process};
use secrecy::SecretString;
use serde_json::json;

const TOKEN: &str = "operator-token";
const CONTRACT: &str =
    "target_id: shop\nname: The Shop\nrepo_url: git@github.com:owner/shop.git\ndefault_branch: main\n";
const COMMIT: &str = "c0ffee0000000000000000000000000000000001";

type Flags<'a> = &'a [&'a str];
type Variables<'a> = &'a [(&'a str, &'a str)];

/// Nothing here takes as long; what does is a failure.
const DEADLINE: Duration = Duration::from_secs(30);

/// A control plane in this process, until it is dropped.
struct Installation {
    runtime: tokio::runtime::Runtime,
    client: Client,
    folder: tempfile::TempDir,
}

impl Installation {
    fn start() -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            backend: Backend::Memory,
            ..Config::new(folder.path().join("data"), SecretString::from(TOKEN))
        };
        let server = runtime.block_on(Server::bind(config)).unwrap();
        let url = format!("http://{}", server.address());
        runtime.spawn(server.run(std::future::pending()));
        let client = Client::new(&url, SecretString::from(TOKEN)).unwrap();
        Self { runtime, client, folder }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = leviathanctl(arguments);
        command.env("LEVIATHAN_CONTROL_PLANE_URL", self.client.base());
        command.env("LEVIATHAN_CONTROL_PLANE_TOKEN", TOKEN);
        command
    }

    /// The output of a command that must end with exit code 0.
    fn shown(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn register(&self) -> String {
        let file = self.folder.path().join("contract.yaml");
        std::fs::write(&file, CONTRACT).unwrap();
        self.shown(&["targets-register", file.to_str().unwrap()])
    }

    /// A claimed attempt at `task-001`, which the backlog is said to have.
    fn attempt(&self) -> AttemptId {
        let digest = Digest::of(b"");
        let created: Event = serde_json::from_value(json!({
            "event_id": "task-001-created", "event_type": "task.created", "timestamp": "2026-01-31T12:00:00Z",
            "actor_id": "scheduler", "target_id": "shop", "task_id": "task-001", "payload": {
                "revision": digest, "commit": COMMIT, "title": "Update \u{1b}[2J dependencies", "scope": "dependencies",
                "priority": "high", "position": 0, "status": "pending", "allowed_paths": ["requirements.txt"],
                "max_attempts": 2,
            },
        }))
        .unwrap();
        let claim: ClaimRequest = serde_json::from_value(json!({
            "target_id": "shop", "task_id": "task-001", "task_revision": digest, "base_commit": COMMIT,
            "contract_digest": digest, "policy_digest": digest,
            "limits": { "max_concurrent": 1, "max_open_prs": 3 }, "agent": "claude", "timeout_seconds": 60,
            "launcher": "worktree", "actor_id": "scheduler",
        }))
        .unwrap();
        self.runtime.block_on(async {
            self.client.ingest(vec![created]).await.unwrap();
            self.client.claim(&claim).await.unwrap().attempt_id
        })
    }
}

/// The program with nothing in its environment.
fn leviathanctl(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leviathanctl"));
    command.args(arguments).env_clear().env("HOME", "/nonexistent").stdin(Stdio::null());
    command
}

/// The exit code and what was said about it.
fn ended(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

fn exit_code(mut child: Child) -> i32 {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().expect("it ends by itself, not by a signal");
        }
        if start.elapsed() > DEADLINE {
            child.kill().unwrap();
            panic!("the command does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_operator_registers_watches_and_steers() {
    let installation = Installation::start();
    assert_eq!(installation.shown(&["attempts-list"]), "No attempts found.\n");
    assert!(installation.register().starts_with("Registered target: shop\n"));
    assert!(installation.register().starts_with("shop was registered with the same documents before"));
    let attempt = installation.attempt();
    let id = attempt.as_str();

    let list = installation.shown(&["attempts-list", "--status", "live", "--target", "shop"]);
    assert!(list.contains(id) && list.contains("task-001"), "{list}");
    // The end of an id is what tells attempts of the same time apart.
    let shown = installation.shown(&["attempts-show", &id[id.len() - 6..]]);
    assert!(shown.starts_with(&format!("{id}  created\n")), "{shown}");
    assert!(shown.contains("Update \\u{1b}[2J dependencies") && !shown.contains('\u{1b}'), "{shown}");
    assert!(installation.shown(&["tasks"]).contains("running: "), "the reason code and its words");
    assert!(installation.shown(&["graph-summary"]).contains("  1  Attempt\n"));

    let cancelled = installation.shown(&["cancel", id, "--reason", "Emergency stop"]);
    assert!(
        cancelled.starts_with(&format!("Cancelled attempt: {id}\nReason: Emergency stop\n")),
        "{cancelled}"
    );
    let failures = installation.shown(&["failures-recent", "--limit", "5"]);
    assert!(failures.contains("Emergency stop") && failures.contains("  Next   "), "{failures}");
    let invalidated = installation.shown(&["invalidate", id, "--reason", "retry"]);
    assert!(invalidated.starts_with(&format!("Invalidated attempt: {id}\nReason: retry\n")), "{invalidated}");
    assert!(installation.shown(&["attempts-list"]).contains("invalidated"));

    installation.shown(&["pause", "--reason", "release day"]);
    let tasks = installation.shown(&["tasks-list", "--target", "shop"]);
    assert!(tasks.contains("paused: ") && tasks.contains("release day"), "{tasks}");
    installation.shown(&["resume"]);
    let events = installation.shown(&["events-tail", "--output", "json", "--limit", "2"]);
    let events: Vec<serde_json::Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["event_type"], "scheduler.paused");
    assert_eq!(events[1]["event_type"], "scheduler.resumed");
}

#[test]
fn an_artifact_comes_back_byte_for_byte() {
    let installation = Installation::start();
    let content = b"\x1b[31mlog\x00\xff\n".to_vec();
    let put = installation.client.put_artifact(content.clone().into());
    let digest = installation.runtime.block_on(put).unwrap().sha256;
    let output = installation.command(&["artifact", digest.as_str()]).output().unwrap();
    assert_eq!(output.stdout, content);
    let absent = installation.command(&["artifact", Digest::of(b"absent").as_str()]).output().unwrap();
    assert_eq!(ended(&absent).0, 1);
}

#[test]
fn following_shows_each_event_when_it_comes_and_ends_cleanly_when_interrupted() {
    let installation = Installation::start();
    let mut command = installation.command(&["events-tail", "--follow", "--limit", "0"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // Until the first line comes, nobody knows whether the program has asked for the head yet.
    let first = std::thread::scope(|scope| {
        let reader = scope.spawn(|| lines.next().unwrap().unwrap());
        let start = Instant::now();
        while !reader.is_finished() && start.elapsed() < DEADLINE {
            installation.shown(&["pause", "--reason", "a"]);
            installation.shown(&["resume", "--reason", "b"]);
        }
        reader.join().unwrap()
    });
    assert!(first.contains("scheduler."), "{first}");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((exit_code(child), said.as_str()), (0, ""));
}

#[test]
fn following_ends_cleanly_when_its_reader_is_gone() {
    let installation = Installation::start();
    installation.register();
    let mut command = installation.command(&["events-tail", "--follow"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(line.contains("target.registered"), "{line}");
    drop(out);
    installation.shown(&["pause", "--reason", "nobody reads this"]);
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((exit_code(child), said.as_str()), (0, ""));
}

#[test]
fn flags_beat_the_environment_and_the_environment_beats_the_file() {
    let installation = Installation::start();
    let url = installation.client.base();
    let folder = installation.folder.path().to_str().unwrap();
    let file = format!("{folder}/token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    const TOKEN_NAME: &str = "LEVIATHAN_CONTROL_PLANE_TOKEN";
    const URL_NAME: &str = "LEVIATHAN_CONTROL_PLANE_URL";
    let kept = ("LEVIATHAN_DATA_DIR", folder);
    let rows: [(Flags<'_>, Variables<'_>, i32); 10] = [
        (&["--api-url", url], &[kept], 0),
        (&["--api-url", url, "--token-file", &file], &[], 0),
        (&["--api-url", url, "--token", TOKEN], &[(TOKEN_NAME, "wrong")], 0),
        (&["--api-url", url, "--token-file", &file], &[(TOKEN_NAME, "wrong")], 0),
        (&["--api-url", url], &[(TOKEN_NAME, "wrong"), kept], 2),
        (&["--api-url", url], &[(TOKEN_NAME, ""), kept], 0),
        (&[], &[("LEVIATHAN_API_URL", url), kept], 0),
        (&[], &[(URL_NAME, url), ("LEVIATHAN_API_URL", "http://127.0.0.1:9"), kept], 0),
        (&["--api-url", url, "--token", "a", "--token-file", &file], &[], 2),
        (&["--api-url", url, "--token-file", "/nowhere/token"], &[(TOKEN_NAME, TOKEN)], 2),
    ];
    for (flags, environment, expected) in rows {
        let mut command = leviathanctl(&["targets-list"]);
        let output = command.args(flags).envs(environment.iter().copied()).output().unwrap();
        let (code, said) = ended(&output);
        assert_eq!(code, expected, "{flags:?} {environment:?}: {said}");
        assert!(!said.contains(TOKEN), "a token is never shown: {said}");
    }
}

#[test]
fn each_way_of_not_doing_it_has_its_exit_code_and_its_next_step() {
    let installation = Installation::start();
    let rows: [(Command, i32, &str); 7] = [
        (installation.command(&["attempts-show", "attempt-zzz"]), 1, "leviathanctl attempts-list"),
        (
            installation.command(&["invalidate", "attempt-0000000000000000", "--reason", "x"]),
            1,
            "attempts-list",
        ),
        (installation.command(&["pause", "--reason", "x", "--target", "unknown"]), 1, "targets-register"),
        (installation.command(&["attempts-list", "--status", "sleeping"]), 2, "[possible values: live"),
        (installation.command(&["cancel", "attempt-a"]), 2, "--reason <REASON>"),
        (leviathanctl(&["targets-list"]), 2, "LEVIATHAN_CONTROL_PLANE_TOKEN"),
        (
            leviathanctl(&["targets-list", "--token", "t", "--api-url", "http://127.0.0.1:9"]),
            2,
            "leviathan up",
        ),
    ];
    for (mut command, expected, next_step) in rows {
        let output = command.output().unwrap();
        let (code, said) = ended(&output);
        assert_eq!(code, expected, "{command:?}: {said}");
        assert!(said.contains(next_step), "{command:?}: {said}");
        assert!(output.stdout.is_empty(), "{command:?}");
    }
    let (code, _) = ended(&leviathanctl(&["--help"]).output().unwrap());
    assert_eq!(code, 0);
}
