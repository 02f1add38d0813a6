//! Attempts from their claim to their pull request, through the real programs: the control plane, and executors
//! that are killed at every named point, cancelled, cut off and started again.
#![expect(clippy::unwrap_used, reason = "a failed expectation ends its test")]

mod pod;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use api::Client;
use api::types::{ClaimRequest, DispatchRequest, Dispatched, EventsQuery, ReasonRequest, RegisterTarget};
use model::event::{EventKind, Subject, TaskFacts, Timestamp};
use model::select::{Spending, TargetLimits};
use model::{ActorId, AttemptId, CommitId, Contract, Document, Event, EventId, TargetId, TargetSpec, TaskId};
use secrecy::SecretString;
use target::{Git, Mirror, Remote};
use tempfile::TempDir;
use test_support::repository::Origin;

const OPERATOR: &str = "the-operators-own-token";
const CLAUDE_KEY: &str = "claude-key-that-only-work-may-have";
const FORGE_TOKEN: &str = "forge-token-that-only-publish-may-have";

const BACKLOG: &str = "tasks:
  - task_id: task-001
    title: Update dependencies
    scope: dependencies
    allowed_paths: [requirements.txt]
    acceptance_criteria: [Tests pass]
    status: pending
";

const POLICY: &str = "scopes:
  dependencies:
    allowed_paths: [requirements.txt]
invariants:
  - name: Pinned
    check: grep -q == requirements.txt
";

/// A control plane that runs, and one target with one task.
struct Installation {
    home: TempDir,
    origin: Origin,
    control_plane: Child,
    url: String,
    client: Client,
    runtime: tokio::runtime::Runtime,
    /// Whether commands are walled in.
    has_walls: bool,
}

impl Installation {
    fn new() -> Self {
        let origin = Origin::with_files(&[
            (".leviathan/backlog.yaml", BACKLOG),
            (".leviathan/policy.yaml", POLICY),
            ("requirements.txt", "flask==1.0\n"),
        ]);
        let home = tempfile::tempdir().unwrap();
        let (control_plane, url) = start_control_plane(home.path(), "127.0.0.1:0");
        let client = Client::new(&url, SecretString::from(OPERATOR)).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        Self { home, origin, control_plane, url, client, runtime, has_walls: true }
    }

    /// For agents that reach out of their tree on purpose: to play one that got out, or to make something happen at
    /// a moment that only they know.
    fn without_walls() -> Self {
        let mut installation = Self::new();
        installation.has_walls = false;
        installation
    }

    /// What executors are told of the sandbox.
    fn sandbox(&self) -> &'static [(&'static str, &'static str)] {
        if self.has_walls {
            return &[];
        }
        &[("LEVIATHAN_SANDBOX", "none"), ("LEVIATHAN_I_UNDERSTAND_NO_SANDBOX", "true")]
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// Registers the target and claims the task for the shell command `agent`, as a scheduler would.
    fn claim(&self, agent: &str) -> Dispatched {
        let contract =
            format!("target_id: shop\nname: Shop\nrepo_url: {}\ndefault_branch: main\n", self.origin.url());
        let register = RegisterTarget::of_contract(contract.clone());
        self.runtime.block_on(self.client.register_target(&register)).unwrap();
        let (base, spec) = read_documents(&self.data(), &contract);
        let task = spec.backlog.tasks[0].clone();
        let target = spec.contract.target_id.clone();
        let scheduler = ActorId::parse("scheduler").unwrap();
        let facts = TaskFacts {
            revision: task.revision(),
            commit: base.clone(),
            title: task.title.clone(),
            scope: task.scope.clone(),
            priority: task.priority,
            position: 0,
            status: task.status,
            blocked_reason: None,
            depends_on: Vec::new(),
            allowed_paths: vec!["requirements.txt".to_owned()],
            max_attempts: 2,
            agent: None,
        };
        let created = Event {
            event_id: EventId::parse("task-001-created").unwrap(),
            timestamp: Timestamp::new(jiff::Timestamp::now()),
            actor_id: scheduler.clone(),
            subject: Subject::task(&target, &task.task_id),
            kind: EventKind::TaskCreated(facts),
        };
        self.runtime.block_on(self.client.ingest(vec![created])).unwrap();
        let claim = ClaimRequest {
            target_id: target,
            task_id: task.task_id.clone(),
            task_revision: task.revision(),
            base_commit: base,
            contract_digest: spec.digests.contract.clone(),
            policy_digest: spec.digests.policy.clone(),
            operator_policy_digest: None,
            limits: TargetLimits {
                max_concurrent: 1,
                max_open_prs: 3,
                overlap_waits: false,
                spending: Spending::UNLIMITED,
            },
            agent: format!("command: {agent}"),
            model: None,
            timeout_seconds: 120,
            launcher: "worktree".to_owned(),
            actor_id: scheduler,
        };
        self.runtime.block_on(self.client.claim(&claim)).unwrap()
    }

    /// Hands the attempt out again, as a scheduler does after an executor is gone.
    fn dispatch(&self, handed: &Dispatched) -> Dispatched {
        let request = DispatchRequest {
            expected_epoch: handed.epoch,
            launcher: "worktree".to_owned(),
            actor_id: ActorId::parse("scheduler").unwrap(),
        };
        self.runtime.block_on(self.client.dispatch(&handed.attempt_id, &request)).unwrap()
    }

    fn executor(&self, handed: &Dispatched, fault: Option<&str>) -> Child {
        self.command(handed, fault).spawn().unwrap()
    }

    fn command(&self, handed: &Dispatched, fault: Option<&str>) -> Command {
        let mut command = leviathan(&["executor"]);
        command
            .env("LEVIATHAN_DATA_DIR", self.data())
            .env("LEVIATHAN_CONTROL_PLANE_URL", &self.url)
            .env("LEVIATHAN_CONTROL_PLANE_TOKEN", &handed.token)
            .env("LEVIATHAN_ATTEMPT_ID", handed.attempt_id.as_str())
            .envs(self.sandbox().iter().copied())
            .env("ANTHROPIC_API_KEY", CLAUDE_KEY)
            .env("GITHUB_TOKEN", FORGE_TOKEN)
            .env("LEVIATHAN_LOG", "warn");
        command.envs(fault.map(|point| ("LEVIATHAN_FAULT", point)));
        command
    }

    fn execute(&self, handed: &Dispatched, fault: Option<&str>) -> ExitStatus {
        ended(&mut self.executor(handed, fault))
    }

    fn state(&self, attempt: &AttemptId) -> String {
        self.runtime.block_on(self.client.attempt(attempt)).unwrap().attempt.state.to_string()
    }

    fn event_types(&self) -> Vec<String> {
        let query = EventsQuery { limit: Some(1000), ..EventsQuery::default() };
        let page = self.runtime.block_on(self.client.events(&query)).unwrap();
        page.events.iter().map(|recorded| recorded.event.kind.event_type().to_owned()).collect()
    }

    fn count(&self, event_type: &str) -> usize {
        self.event_types().iter().filter(|found| *found == event_type).count()
    }

    fn pull_requests(&self) -> usize {
        self.origin.refs().iter().filter(|(name, _)| name.ends_with("/head")).count()
    }

    fn branches(&self) -> Vec<String> {
        let names = self.origin.refs().into_iter().map(|(name, _)| name);
        names.filter(|name| name.starts_with("refs/heads/leviathan/")).collect()
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        let _ = self.control_plane.kill();
        let _ = self.control_plane.wait();
    }
}

fn leviathan(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leviathan"));
    command.args(arguments).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").stdin(Stdio::null());
    command
}

fn start_control_plane(home: &Path, listen: &str) -> (Child, String) {
    let mut child = leviathan(&["control-plane", "--listen", listen])
        .env("LEVIATHAN_DATA_DIR", home.join("data"))
        .env("LEVIATHAN_CONTROL_PLANE_TOKEN", OPERATOR)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let ready = log.by_ref().map(Result::unwrap).find(|line| line.contains("address="));
    let address = ready.expect("the control plane says where it listens");
    let address = address.rsplit("address=").next().unwrap().trim().to_owned();
    // What it logs from now on is read, so that it never waits for a full pipe.
    std::thread::spawn(move || log.for_each(drop));
    (child, format!("http://{address}"))
}

fn read_documents(data: &Path, contract: &str) -> (CommitId, TargetSpec) {
    let mirror = Mirror::of(&Git::find().unwrap(), data, &TargetId::parse("shop").unwrap());
    let parsed = Contract::parse("contract.yaml", contract.as_bytes()).unwrap();
    let base = mirror.fetch(&Remote::new(&parsed.repo_url, None), &parsed.default_branch).unwrap();
    let registered = target::spec::Registered {
        contract: Some(Document { file: "contract.yaml", content: Some(contract.as_bytes()) }),
        policy: None,
        backlog: None,
    };
    let spec = target::spec::read(&mirror.repository().unwrap(), &base, registered).unwrap();
    (base, spec)
}

#[track_caller]
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How a program ended, which must be soon.
#[track_caller]
fn ended(program: &mut Child) -> ExitStatus {
    let mut status = None;
    eventually("the program ends", || {
        status = program.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap()
}

/// The processes whose command line holds `marker`.
fn processes_with(marker: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let is_marked = |path: &PathBuf| {
        let is_zombie = std::fs::read_to_string(path.join("stat")).is_ok_and(|stat| stat.contains(") Z "));
        !is_zombie
            && std::fs::read(path.join("cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(marker))
    };
    entries.filter(is_marked).collect()
}

/// The number of a `sleep` that no other process has.
fn marker(n: u32) -> String {
    format!("96{}{n}", std::process::id())
}

const GOOD: &str = "echo flask==3.0 > requirements.txt";

#[test]
fn an_attempt_goes_from_its_claim_to_its_pull_request() {
    let installation = Installation::new();
    let handed = installation.claim(GOOD);
    assert_eq!(installation.execute(&handed, None).code(), Some(0));
    assert_eq!(installation.state(&handed.attempt_id), "completed");
    assert_eq!((installation.branches().len(), installation.pull_requests()), (1, 1));
    let types = installation.event_types();
    let of_attempt: Vec<&str> = types
        .iter()
        .map(String::as_str)
        .skip_while(|it| *it != "attempt.started")
        .filter(|it| *it != "artifact.stored")
        .collect();
    assert_eq!(
        of_attempt,
        [
            "attempt.started",
            "sandbox.reported",
            "invariant.passed",
            "agent.finished",
            "change.permitted",
            "invariant.passed",
            "change.verified",
            "branch.pushed",
            "pr.created",
            "attempt.completed"
        ]
    );
    assert!(types.iter().any(|it| it == "artifact.stored"));
    let merged = installation.origin.read("leviathan/task-001-a1", "requirements.txt").unwrap();
    assert_eq!(merged, b"flask==3.0\n");
}

/// The span is the supervisor's. What the agent and the stages are given names no collector, and none of its keys.
#[test]
fn a_collector_is_told_of_the_attempt_by_its_supervisor_alone() {
    let installation = Installation::new();
    let collector = installation.runtime.block_on(test_support::collector::Collector::start());
    let agent = "echo flask==2.0 > requirements.txt; ! env | grep OTEL && ! grep -aq OTEL_ /proc/1/environ";
    let handed = installation.claim(agent);
    let mut command = installation.command(&handed, None);
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url());
    command.env("OTEL_EXPORTER_OTLP_HEADERS", "x-collector-key=a-key-of-the-collector");
    assert!(ended(&mut command.spawn().unwrap()).success());
    assert_eq!(installation.state(&handed.attempt_id), "completed");
    let spans = collector.spans();
    let attempt: Vec<_> = spans.iter().filter(|span| span.name == "attempt").collect();
    assert_eq!(attempt.len(), 1, "{spans:#?}");
    let attributes = &attempt[0].attributes;
    let of = |name: &str| attributes.get(name).map(String::as_str);
    assert_eq!(of("attempt.id"), Some(handed.attempt_id.as_str()));
    assert_eq!((of("target.id"), of("task.id")), (Some("shop"), Some("task-001")));
    assert_eq!((of("attempt.epoch"), of("attempt.ending")), (Some("1"), Some("completed")));
    assert_eq!(attempt[0].resource["service.name"], "leviathan-executor");
    for secret in [CLAUDE_KEY, FORGE_TOKEN, handed.token.as_str(), "a-key-of-the-collector", "flask"] {
        assert!(!collector.was_told(secret), "the collector was told {secret}");
    }
}

#[test]
fn commands_are_found_where_the_operator_says() {
    let installation = Installation::new();
    let tools = installation.home.path().join("tools");
    fs::create_dir(&tools).unwrap();
    let tool = tools.join("update-requirements");
    fs::write(&tool, format!("#!/bin/sh\n{GOOD}\n")).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let handed = installation.claim("update-requirements");
    let mut executor = installation.command(&handed, None);
    executor.env("LEVIATHAN_COMMAND_PATH", format!("{}:/usr/bin:/bin", tools.display()));
    assert_eq!(ended(&mut executor.spawn().unwrap()).code(), Some(0));
    assert_eq!(installation.state(&handed.attempt_id), "completed");
}

#[test]
fn a_refused_change_leaves_no_branch() {
    let installation = Installation::new();
    let handed = installation.claim("echo x > README.md");
    assert_eq!(installation.execute(&handed, None).code(), Some(1));
    assert_eq!(installation.state(&handed.attempt_id), "failed");
    assert_eq!((installation.branches().len(), installation.pull_requests()), (0, 0));
    assert_eq!(installation.count("policy.violated"), 1);
}

#[test]
fn an_executor_that_died_while_publishing_is_followed_by_one_that_finishes() {
    for point in ["after_verified", "after_push", "after_pull_request"] {
        let installation = Installation::new();
        let handed = installation.claim(GOOD);
        let died = installation.execute(&handed, Some(point));
        assert_eq!(died.code(), None, "{point}: a crash has no exit code");
        // The same executor, started again: its spool still holds what was not sent.
        let resumed = installation.execute(&handed, None);
        assert_eq!(resumed.code(), Some(0), "{point}");
        assert_eq!(installation.state(&handed.attempt_id), "completed", "{point}");
        assert_eq!((installation.branches().len(), installation.pull_requests()), (1, 1), "{point}");
        for once in ["agent.finished", "change.verified", "branch.pushed", "pr.created"] {
            assert_eq!(installation.count(once), 1, "{point}: {once}");
        }
    }
}

#[test]
fn an_attempt_that_is_cancelled_while_it_is_published_opens_no_pull_request() {
    for (point, branches) in [("after_verified", 0), ("after_push", 1)] {
        let installation = Installation::new();
        let handed = installation.claim(GOOD);
        assert_eq!(installation.execute(&handed, Some(point)).code(), None, "{point}");
        let reason = ReasonRequest { reason: "Emergency stop".to_owned(), target: None, actor_id: None };
        installation.runtime.block_on(installation.client.cancel(&handed.attempt_id, &reason)).unwrap();
        assert_eq!(installation.execute(&handed, None).code(), Some(42), "{point}");
        assert_eq!(installation.state(&handed.attempt_id), "cancelled", "{point}");
        assert_eq!((installation.branches().len(), installation.pull_requests()), (branches, 0), "{point}");
    }
}

#[test]
fn a_candidate_that_is_gone_ends_its_attempt() {
    let installation = Installation::new();
    let handed = installation.claim(GOOD);
    assert_eq!(installation.execute(&handed, Some("after_push")).code(), None);
    let attempt = installation.data().join("attempts").join(handed.attempt_id.as_str());
    std::fs::remove_dir_all(attempt.join("candidate")).unwrap();
    let next = installation.dispatch(&handed);
    assert_eq!(installation.execute(&next, None).code(), Some(1));
    assert_eq!(installation.state(&handed.attempt_id), "failed");
    assert_eq!(installation.pull_requests(), 0);
}

#[test]
fn a_new_epoch_finishes_what_the_last_one_had_verified_and_fences_it() {
    let installation = Installation::new();
    let handed = installation.claim(GOOD);
    assert_eq!(installation.execute(&handed, Some("after_push")).code(), None);
    let next = installation.dispatch(&handed);
    assert_eq!(installation.execute(&handed, None).code(), Some(42), "the old epoch is fenced");
    assert_eq!(installation.execute(&next, None).code(), Some(0));
    assert_eq!((installation.branches().len(), installation.pull_requests()), (1, 1));
    assert_eq!(installation.count("agent.finished"), 1);
}

#[test]
fn an_event_is_recorded_once_however_its_sending_ends() {
    for point in ["before_event_sent", "after_event_sent"] {
        let installation = Installation::new();
        let handed = installation.claim(GOOD);
        assert_eq!(installation.execute(&handed, Some(point)).code(), None, "{point}");
        installation.execute(&handed, None);
        assert_eq!(installation.count("attempt.started"), 1, "{point}");
    }
}

#[test]
fn an_executor_that_died_while_the_agent_worked_leaves_the_attempt_to_the_scheduler() {
    for point in ["after_started", "after_candidate"] {
        let installation = Installation::new();
        let handed = installation.claim(GOOD);
        assert_eq!(installation.execute(&handed, Some(point)).code(), None, "{point}");
        assert_eq!(installation.execute(&handed, None).code(), Some(2), "{point}");
        assert!(
            ["started", "candidate"].contains(&installation.state(&handed.attempt_id).as_str()),
            "{point}"
        );
        assert_eq!(installation.branches().len(), 0, "{point}");
    }
}

#[test]
fn a_cancelled_attempt_ends_at_once_and_nothing_of_it_runs_on() {
    let installation = Installation::new();
    let mark = marker(1);
    let handed = installation.claim(&format!("setsid -f sleep {mark}; sleep {mark}"));
    let mut executor = installation.executor(&handed, None);
    eventually("the agent works", || processes_with(&mark).len() >= 3);
    let reason = ReasonRequest { reason: "Emergency stop".to_owned(), target: None, actor_id: None };
    installation.runtime.block_on(installation.client.cancel(&handed.attempt_id, &reason)).unwrap();
    assert_eq!(ended(&mut executor).code(), Some(42));
    assert_eq!(processes_with(&mark), Vec::<PathBuf>::new());
    assert_eq!(installation.state(&handed.attempt_id), "cancelled");
    assert_eq!(installation.branches().len(), 0);
}

#[test]
fn nothing_survives_an_executor_that_is_killed() {
    let installation = Installation::new();
    let mark = marker(2);
    let handed = installation.claim(&format!("setsid -f sleep {mark}; sleep {mark}"));
    let mut executor = installation.executor(&handed, None);
    eventually("the agent works", || processes_with(&mark).len() >= 3);
    executor.kill().unwrap();
    executor.wait().unwrap();
    eventually("everything dies with the executor", || processes_with(&mark).is_empty());
    let attempt = handed.attempt_id.as_str();
    eventually("its stages too", || {
        processes_with("--stage").iter().all(|path| !environment_holds(path, attempt))
    });
}

#[test]
fn two_executors_of_one_attempt_do_not_work_at_once() {
    let installation = Installation::new();
    let mark = marker(3);
    let handed = installation.claim(&format!("sleep {mark}"));
    let mut first = installation.executor(&handed, None);
    eventually("the agent works", || processes_with(&mark).len() >= 2);
    assert_eq!(installation.execute(&handed, None).code(), Some(2));
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn a_control_plane_that_is_away_for_a_while_costs_nothing() {
    let mut installation = Installation::without_walls();
    let begun = installation.home.path().join("begun");
    let handed = installation.claim(&format!("touch {}; sleep 1; {GOOD}", begun.display()));
    let mut executor = installation.executor(&handed, None);
    eventually("the agent works", || begun.exists());
    installation.control_plane.kill().unwrap();
    installation.control_plane.wait().unwrap();
    let manifest =
        installation.data().join("attempts").join(handed.attempt_id.as_str()).join("candidate/manifest.json");
    eventually("the candidate is stored all the same", || manifest.exists());
    let listen = installation.url.strip_prefix("http://").unwrap().to_owned();
    installation.control_plane = start_control_plane(installation.home.path(), &listen).0;
    assert_eq!(ended(&mut executor).code(), Some(0));
    assert_eq!((installation.count("attempt.started"), installation.pull_requests()), (1, 1));
}

#[test]
fn each_process_holds_only_the_credentials_of_its_work() {
    let installation = Installation::new();
    let mark = marker(4);
    let handed = installation.claim(&format!("env > seen; mv seen requirements.txt; sleep {mark}"));
    let mut executor = installation.executor(&handed, None);
    eventually("the agent works", || processes_with(&mark).len() >= 2);
    let work = processes_with("--stage")
        .into_iter()
        .find(|path| environment_holds(path, handed.attempt_id.as_str()));
    let work = work.expect("the work stage runs");
    // Root may read what the process hides from its own user.
    if std::fs::read(work.join("environ")).is_ok() {
        assert!(environment_holds(&work, CLAUDE_KEY));
    }
    for secret in [FORGE_TOKEN, handed.token.as_str(), OPERATOR] {
        assert!(!environment_holds(&work, secret), "the work stage holds {secret}");
    }
    for command in processes_with(&mark) {
        for secret in [CLAUDE_KEY, FORGE_TOKEN, handed.token.as_str(), OPERATOR] {
            let is_keeper_or_command = !environment_holds(&command, "LEVIATHAN_DATA_DIR");
            assert!(
                is_keeper_or_command && !environment_holds(&command, secret),
                "{command:?} holds {secret}"
            );
        }
    }
    executor.kill().unwrap();
    executor.wait().unwrap();
}

fn environment_holds(process: &Path, text: &str) -> bool {
    std::fs::read(process.join("environ"))
        .is_ok_and(|environment| String::from_utf8_lossy(&environment).contains(text))
}

#[test]
fn a_forge_that_is_down_parks_the_publishing_and_nothing_is_computed_again() {
    let installation = Installation::without_walls();
    let handed = installation
        .claim(&format!("{GOOD}; rm -rf {0}.away; mv {0} {0}.away", installation.origin.dir().display()));
    assert_eq!(installation.execute(&handed, None).code(), Some(0));
    assert_eq!(installation.count("publish.parked"), 1);
    assert_eq!(installation.state(&handed.attempt_id), "verified");
    let origin = installation.origin.dir();
    std::fs::rename(format!("{}.away", origin.display()), origin).unwrap();
    let next = installation.dispatch(&handed);
    assert_eq!(installation.execute(&next, None).code(), Some(0));
    assert_eq!(installation.state(&handed.attempt_id), "completed");
    assert_eq!((installation.count("agent.finished"), installation.pull_requests()), (1, 1));
}

#[test]
fn a_branch_of_somebody_else_is_left_alone() {
    let installation = Installation::new();
    let theirs = installation.origin.commit(
        "leviathan/task-001-a1",
        "Mine",
        &[test_support::repository::Entry::file("requirements.txt", "theirs\n")],
    );
    let handed = installation.claim(GOOD);
    assert_eq!(installation.execute(&handed, None).code(), Some(1));
    assert_eq!(installation.origin.resolve("leviathan/task-001-a1").unwrap(), theirs);
    assert_eq!(installation.pull_requests(), 0);
    let task = TaskId::parse("task-001").unwrap();
    let detail = installation.runtime.block_on(installation.client.attempt(&handed.attempt_id)).unwrap();
    assert_eq!(detail.attempt.task_id, task);
    assert!(detail.attempt.failure.unwrap().detail.contains("left alone"));
}
