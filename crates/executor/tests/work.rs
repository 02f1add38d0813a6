//! The work stage as a process, on real repositories with real agents: what becomes a candidate, what does not,
//! and that nothing of it survives.
#![expect(clippy::unwrap_used, reason = "a failed expectation ends its test")]

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use api::types::Assignment;
use leviathan_executor::candidate::{Manifest, Words};
use leviathan_executor::folder::AttemptFolder;
use leviathan_executor::job::{Job, StageOutcome};
use leviathan_executor::sandbox;
use leviathan_executor::spool::Spool;
use model::CheckOutcome;
use model::event::{ChangePermitted, EventKind, NetworkAnswer, NetworkRequest, NetworkUse, Timestamp};
use model::{
    AttemptId, AttemptState, BranchName, CommitId, Digest, Epoch, FailureReason, TargetId, Task, TaskId,
};
use target::{Git, Mirror, Remote};
use tempfile::TempDir;
use test_support::repository::Origin;

const CONTRACT: &str = "target_id: shop\nname: Shop\nrepo_url: file://ORIGIN\ndefault_branch: main\n";

const BACKLOG: &str = "tasks:
  - task_id: task-001
    title: Update dependencies
    scope: dependencies
    allowed_paths: [requirements.txt, notes/**, notes/Makefile]
    acceptance_criteria: [Tests pass]
    status: pending
";

const POLICY: &str = "scopes:
  dependencies:
    allowed_paths: [requirements.txt, notes/**, notes/Makefile]
    forbidden_patterns: ['src/**']
";

/// Asks the proxy for a tunnel to the place that it is told, and exits with 0 only if it gets one.
const ASK: &str = "import os, socket, sys
way = os.environ.get('HTTPS_PROXY')
if way is None:
    sys.exit('there is no way')
host, port = way.removeprefix('http://').split(':')
end = socket.create_connection((host, int(port)))
end.sendall(f'CONNECT {sys.argv[1]} HTTP/1.1\\r\\n\\r\\n'.encode())
answer = end.recv(1000).decode()
print(answer)
sys.exit(0 if ' 200 ' in answer else 1)
";

/// A target, its mirror, and one attempt that was handed to this machine.
struct Bench {
    data: TempDir,
    folder: AttemptFolder,
    task: Task,
    base: CommitId,
    _origin: Origin,
}

impl Bench {
    /// The attempt's agent is the shell command `agent`; `policy` is added to the policy.
    fn new(agent: &str, policy: &str) -> Self {
        let origin = Origin::with_files(&[
            (".leviathan/backlog.yaml", BACKLOG),
            (".leviathan/policy.yaml", &format!("{POLICY}{policy}")),
            ("requirements.txt", "flask==1.0\n"),
            ("src/app.py", "print(1)\n"),
            ("src/ask.py", ASK),
            (".gitignore", "cache/\nnode_modules/\n"),
        ]);
        let data = tempfile::tempdir().unwrap();
        let target = TargetId::parse("shop").unwrap();
        let contract = CONTRACT.replace("ORIGIN", origin.dir().to_str().unwrap());
        let (base, spec) = fetch(data.path(), &target, &contract);
        let task = spec.backlog.task(&TaskId::parse("task-001").unwrap()).unwrap().clone();
        let attempt = AttemptId::parse("attempt-1").unwrap();
        let folder = AttemptFolder::new(data.path(), &attempt);
        std::fs::create_dir_all(folder.private()).unwrap();
        let job = Job {
            started_at: Timestamp::new(jiff::Timestamp::now()),
            executor: "here".to_owned(),
            assignment: Assignment {
                attempt_id: attempt,
                n: 1,
                epoch: Epoch::FIRST,
                state: AttemptState::Created,
                target_id: target,
                contract,
                operator_policy: None,
                task_id: task.task_id.clone(),
                task_revision: task.revision(),
                base_commit: base.clone(),
                branch: BranchName::of_attempt(&task.task_id, 1),
                policy_digest: spec.digests.policy.clone(),
                agent: format!("command: {agent}"),
                model: None,
                created_at: "2026-01-01T00:00:00Z".parse().unwrap(),
                timeout_seconds: 120,
                candidate: None,
                backlog: None,
                executor_image: None,
                artifacts: Vec::new(),
            },
        };
        job.write(&folder).unwrap();
        Self { data, folder, task, base, _origin: origin }
    }

    fn with(self, change: impl FnOnce(&mut Job)) -> Self {
        let mut job = Job::read(&self.folder).unwrap();
        change(&mut job);
        job.write(&self.folder).unwrap();
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_executor-under-test"));
        command
            .args(["executor", "--stage", "work"])
            .env_clear()
            .envs([("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LEVIATHAN_ATTEMPT_ID", "attempt-1")])
            .env("LEVIATHAN_DATA_DIR", self.data.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command
    }

    fn start(&self) -> Child {
        self.command().spawn().unwrap()
    }

    /// Runs the stage with its lifeline held, and returns what it came to.
    fn work(&self) -> StageOutcome {
        wait_for(self.start())
    }

    fn failure(&self) -> (FailureReason, String) {
        failure_of(self.work())
    }

    fn events(&self) -> Vec<EventKind> {
        let spool = Spool::open(&self.folder.spool(Epoch::FIRST)).unwrap();
        spool.unsent().unwrap().into_iter().map(|(_, event)| event.kind).collect()
    }

    fn permitted(&self) -> ChangePermitted {
        let permitted = self.events().into_iter().find_map(|kind| {
            if let EventKind::ChangePermitted(permitted) = kind { Some(permitted) } else { None }
        });
        permitted.unwrap()
    }

    fn event_types(&self) -> Vec<&'static str> {
        self.events().iter().map(EventKind::event_type).collect()
    }
}

fn fetch(data: &Path, target: &TargetId, contract: &str) -> (CommitId, model::TargetSpec) {
    let git = Git::find().unwrap();
    let mirror = Mirror::of(&git, data, target);
    let parsed = model::Contract::parse("contract.yaml", contract.as_bytes()).unwrap();
    let base = mirror.fetch(&Remote::new(&parsed.repo_url, None), &parsed.default_branch).unwrap();
    let registered = target::spec::Registered {
        contract: Some(model::Document { file: "contract.yaml", content: Some(contract.as_bytes()) }),
        policy: None,
        backlog: None,
    };
    let spec = target::spec::read(&mirror.repository().unwrap(), &base, registered).unwrap();
    (base, spec)
}

/// Waits for the end of a stage with its lifeline held.
fn wait_for(mut stage: Child) -> StageOutcome {
    let lifeline = stage.stdin.take();
    let output = stage.wait_with_output().unwrap();
    drop(lifeline);
    outcome(&output)
}

fn failure_of(outcome: StageOutcome) -> (FailureReason, String) {
    match outcome {
        StageOutcome::Failed(failed) => (failed.reason, failed.detail),
        other @ (StageOutcome::Verified { .. }
        | StageOutcome::Published { .. }
        | StageOutcome::Parked { .. }
        | StageOutcome::Superseded { .. }
        | StageOutcome::Stopped) => panic!("{other:?}"),
    }
}

fn outcome(output: &Output) -> StageOutcome {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

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

#[track_caller]
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The number of a `sleep` that no other process has.
fn marker() -> String {
    format!("97{}", uuid::Uuid::new_v4().as_u128() % 10_000_000_000)
}

#[test]
fn a_permitted_change_whose_checks_pass_becomes_a_verified_candidate() {
    let checks = "invariants: [{name: Pinned, check: 'grep -q == requirements.txt'}]\n";
    let bench = Bench::new("echo flask==3.0 > requirements.txt && echo updated", checks);
    let StageOutcome::Verified { candidate, manifest } = bench.work() else { panic!("not verified") };
    let file = Manifest::file(&bench.folder.candidate());
    assert_eq!(Digest::of(&std::fs::read(file).unwrap()), manifest);
    let manifest = Manifest::read(&bench.folder.candidate()).unwrap().unwrap();
    assert_eq!((&manifest.base, &manifest.candidate), (&bench.base, &candidate));
    assert_eq!(Words::read(&bench.folder.candidate()).unwrap().agent.summary, "updated");
    assert_eq!(
        bench.event_types(),
        [
            "sandbox.reported",
            "invariant.passed",
            "agent.finished",
            "change.permitted",
            "invariant.passed",
            "change.verified"
        ]
    );
    assert_eq!(std::fs::read_dir(bench.folder.artifacts().join("log")).unwrap().count(), 3);
}

#[test]
fn what_publish_receives_is_what_work_made() {
    let bench = Bench::new("echo flask==3.0 > requirements.txt", "");
    let StageOutcome::Verified { candidate, .. } = bench.work() else { panic!("not verified") };
    let git = Git::find().unwrap();
    let mirror = Mirror::of(&git, bench.data.path(), &TargetId::parse("shop").unwrap()).repository().unwrap();
    let received =
        target::Repository::init_borrowing(&bench.data.path().join("received.git"), &mirror).unwrap();
    let provenance = Job::read(&bench.folder).unwrap().provenance(&bench.task);
    let pack = bench.folder.candidate().join(target::candidate::PACK_FILE);
    target::candidate::receive(&received, &bench.base, &candidate, &provenance, &pack, 1 << 20).unwrap();
    let change = target::changes_between(&received, &bench.base, &candidate, &Default::default()).unwrap();
    assert_eq!(change.changes().iter().map(|it| it.path.as_str()).collect::<Vec<_>>(), ["requirements.txt"]);
}

#[test]
fn a_change_outside_the_scope_is_refused_with_the_rule() {
    let bench = Bench::new("echo flask==3.0 > requirements.txt; echo 'print(2)' > src/app.py", "");
    let (reason, detail) = bench.failure();
    assert_eq!(reason, FailureReason::ScopeViolation);
    assert!(detail.contains("src/app.py") && detail.contains("policy.yaml:4"), "{detail}");
    assert_eq!(bench.event_types(), ["sandbox.reported", "agent.finished", "policy.violated"]);
    assert!(!bench.folder.candidate().exists());
}

#[test]
fn an_agent_that_changes_nothing_or_gives_up_is_told_apart() {
    let rows = [
        ("true", FailureReason::NoChange),
        ("git init -q . 2>/dev/null; rm -rf .git", FailureReason::NoChange),
        ("echo cannot; exit 1", FailureReason::Stuck),
        ("echo x > .leviathan/policy.yaml", FailureReason::ProtectedPath),
        ("ln -s /etc/passwd notes", FailureReason::ScopeViolation),
    ];
    for (agent, reason) in rows {
        assert_eq!(Bench::new(agent, "").failure().0, reason, "{agent}");
    }
}

#[test]
fn a_failed_check_goes_back_to_the_agent_until_it_passes() {
    let agent = "test $(grep -c '\"round\": 2' $LEVIATHAN_TASK_FILE) = 1 && grep -q 'want 3.0' $LEVIATHAN_TASK_FILE \
                 && echo flask==3.0 > requirements.txt || echo flask==2.0 > requirements.txt";
    let checks = "baseline: false\ninvariants:\n  - name: Version\n    check: 'grep 3.0 requirements.txt || { echo want 3.0; exit 1; }'\n";
    let bench = Bench::new(agent, checks);
    assert!(matches!(bench.work(), StageOutcome::Verified { .. }));
    let types = bench.event_types();
    assert_eq!(types.iter().filter(|it| **it == "agent.finished").count(), 2, "{types:?}");
    assert_eq!(types.iter().filter(|it| **it == "invariant.failed").count(), 1, "{types:?}");
}

#[test]
fn what_setup_left_is_not_the_change_of_the_agent_unless_it_touches_it() {
    let setup = "setup: ['mkdir vendor && echo 1 > vendor/dependency']\n\
                 invariants: [{name: Installed, check: 'test -e vendor/dependency'}]\n";
    let update = "echo flask==3.0 > requirements.txt";
    let bench = Bench::new(&format!("test -e vendor/dependency && {update}"), setup);
    assert!(matches!(bench.work(), StageOutcome::Verified { .. }));
    let files: Vec<String> = bench.permitted().files.iter().map(|file| file.path.to_string()).collect();
    assert_eq!(files, ["requirements.txt"]);

    let bench = Bench::new(&format!("{update}; echo 2 > vendor/dependency"), setup);
    let (reason, detail) = bench.failure();
    assert_eq!(reason, FailureReason::ScopeViolation);
    assert!(detail.contains("vendor/dependency"), "{detail}");

    let bench = Bench::new("true", setup);
    assert_eq!(bench.failure().0, FailureReason::NoChange);
}

#[test]
fn setup_that_changes_the_repository_itself_is_refused_before_the_agent_begins() {
    let bench = Bench::new("touch notes", "setup: ['echo flask==9 > requirements.txt']\n");
    let (reason, detail) = bench.failure();
    assert_eq!(reason, FailureReason::ConfigInvalid);
    assert!(detail.contains("`requirements.txt`") && detail.contains("setup"), "{detail}");
    assert_eq!(bench.event_types(), ["sandbox.reported"]);
}

#[test]
fn files_that_the_base_ignores_are_left_out_and_counted() {
    let agent = "mkdir cache; echo evil > cache/plugin; echo x > cache/other; \
                 echo flask==3.0 > requirements.txt";
    let bench = Bench::new(agent, "");
    assert!(matches!(bench.work(), StageOutcome::Verified { .. }));
    let permitted = bench.permitted();
    assert_eq!((permitted.files.len(), permitted.ignored_files), (1, 2));

    // A check that leans on such a file does not find it.
    let leaning = "baseline: false\ninvariants: [{name: Leaning, check: 'cat cache/plugin'}]\n";
    assert_eq!(Bench::new(agent, leaning).failure().0, FailureReason::InvariantFailed);

    let (reason, detail) = Bench::new("mkdir cache; echo x > cache/only", "").failure();
    assert_eq!(reason, FailureReason::NoChange);
    assert!(detail.contains("1 new file") && detail.contains(".gitignore"), "{detail}");

    let hiding = "echo '*' > .gitignore; echo x > src/evil.py; echo flask==3.0 > requirements.txt";
    let (reason, detail) = Bench::new(hiding, "").failure();
    assert_eq!(reason, FailureReason::ScopeViolation);
    assert!(detail.contains(".gitignore") && detail.contains("1 more"), "{detail}");
}

#[test]
fn common_tools_are_told_to_leave_no_caches_in_the_tree() {
    let told = "test \"$PYTHONDONTWRITEBYTECODE $RUFF_NO_CACHE $MYPY_CACHE_DIR\" = '1 true /dev/null' \
                && test \"$PYTEST_ADDOPTS\" = '-o cache_dir=$HOME/.cache/pytest'";
    let checks = format!("invariants:\n  - name: Told\n    check: |\n      {told}\n");
    let bench = Bench::new(&format!("{told} && echo flask==3.0 > requirements.txt"), &checks);
    let outcome = bench.work();
    assert!(matches!(outcome, StageOutcome::Verified { .. }), "{outcome:?}");
}

#[test]
fn a_check_that_keeps_failing_ends_the_attempt_after_three_rounds() {
    let checks = "invariants: [{name: Untouched, check: 'grep -q 1.0 requirements.txt'}]\n";
    let bench = Bench::new("echo flask==3.0 > requirements.txt", checks);
    let (reason, detail) = bench.failure();
    assert_eq!(reason, FailureReason::InvariantFailed);
    assert!(detail.contains("Untouched"), "{detail}");
    let failed = bench.event_types().iter().filter(|it| **it == "invariant.failed").count();
    assert_eq!(failed, 3);
}

#[test]
fn a_check_that_fails_on_the_base_is_found_before_the_agent_begins() {
    let bench = Bench::new("touch notes", "invariants: [{name: Broken, check: 'exit 7'}]\n");
    let (reason, detail) = bench.failure();
    assert_eq!(reason, FailureReason::InvariantFailedOnBase);
    assert!(detail.contains("Broken") && detail.contains('7'), "{detail}");
    assert_eq!(bench.event_types(), ["sandbox.reported", "invariant.failed"]);
}

#[test]
fn a_base_that_passed_is_not_checked_again() {
    let count = tempfile::NamedTempFile::new().unwrap();
    let check = format!("invariants: [{{name: Counted, check: 'echo x >> {}'}}]\n", count.path().display());
    let bench = Bench::new("echo flask==3.0 > requirements.txt", &check);
    // A check behind walls could not count outside of its tree.
    let work = || wait_for(bench.command().env("LEVIATHAN_SANDBOX", "none").spawn().unwrap());
    assert!(matches!(work(), StageOutcome::Verified { .. }));
    std::fs::remove_dir_all(bench.folder.tree()).unwrap();
    std::fs::remove_dir_all(bench.folder.repository()).unwrap();
    assert!(matches!(work(), StageOutcome::Verified { .. }));
    assert_eq!(std::fs::read_to_string(count.path()).unwrap().lines().count(), 3);
}

#[test]
fn folders_that_setup_makes_are_there_for_the_agent_and_in_no_candidate() {
    let setup = "setup: [{run: 'mkdir node_modules && echo tool > node_modules/tool'}]\n\
                 invariants: [{name: Prepared, check: 'test -f node_modules/tool'}]\n";
    let agent = "cp node_modules/tool requirements.txt && echo evil > node_modules/tool && rm -f nothing";
    let bench = Bench::new(agent, setup);
    let outcome = bench.work();
    assert!(matches!(outcome, StageOutcome::Verified { .. }), "{outcome:?}");
    let paths: Vec<String> = bench.permitted().files.into_iter().map(|file| file.path.to_string()).collect();
    assert_eq!(paths, ["requirements.txt"]);
}

#[test]
fn a_daemon_of_the_agent_cannot_reach_the_candidate() {
    let mark = marker();
    let agent = format!(
        "echo flask==3.0 > requirements.txt; setsid -f sh -c 'while :; do echo evil > requirements.txt; sleep 0.01; done; sleep {mark}'; sleep 0.2; echo flask==3.0 > requirements.txt.new; exit 0"
    );
    let bench = Bench::new(&agent.replace("requirements.txt.new", "notes.tmp; rm notes.tmp"), "");
    let outcome = bench.work();
    assert!(matches!(outcome, StageOutcome::Verified { .. }), "{outcome:?}");
    assert_eq!(processes_with(&mark), Vec::<PathBuf>::new());
}

#[test]
fn the_attempt_ends_at_its_deadline() {
    let bench = Bench::new("sleep 1000", "").with(|job| job.assignment.timeout_seconds = 2);
    let begun = Instant::now();
    assert_eq!(bench.failure().0, FailureReason::TimedOut);
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn how_an_agent_gave_up_is_said_in_one_line() {
    let bench = Bench::new("echo tried; echo broken >&2; exit 3", "");
    let expected = "the agent gave up: exit code 3; broken; tried";
    assert_eq!(bench.failure(), (FailureReason::Stuck, expected.to_owned()));
}

#[test]
fn a_policy_that_demands_more_than_can_be_held_lets_no_agent_run() {
    let bench = Bench::new("echo flask==2.0 > requirements.txt", "sandbox: strict\n");
    let stage = bench.command().env("LEVIATHAN_SANDBOX_WITHOUT_NAMESPACES", "true").spawn().unwrap();
    let (reason, detail) = failure_of(wait_for(stage));
    assert_eq!(reason, FailureReason::SandboxUnavailable, "{detail}");
    assert!(detail.contains("namespaces"), "{detail}");
    let worked = |event: &EventKind| matches!(event, EventKind::AgentFinished(_));
    assert!(!bench.events().iter().any(worked), "the agent ran");
}

#[test]
fn checks_that_need_the_changes_own_configuration_are_shown_or_block() {
    let agent = "mkdir notes; touch notes/wrong notes/Makefile";
    let invariants = "invariants:\n  - {name: tests, check: 'test ! -e notes/wrong -o -e notes/Makefile'}\n";
    let bench = Bench::new(agent, invariants);
    assert!(matches!(bench.work(), StageOutcome::Verified { .. }));
    let manifest = Manifest::read(&bench.folder.candidate()).unwrap().unwrap();
    assert!(manifest.reports[0].outcome.is_pass());
    assert_eq!(manifest.with_base_files[0].outcome, CheckOutcome::Failed { exit_code: 1 });
    assert_ne!(manifest.with_base_files[0].commit, manifest.candidate);

    let strict = Bench::new(agent, &format!("{invariants}strict_checks: true\n"));
    let (reason, detail) = strict.failure();
    assert_eq!(reason, FailureReason::InvariantFailed);
    assert!(detail.contains("tests, with the check configuration of the base"), "{detail}");
}

#[test]
fn a_secret_ends_the_attempt_and_is_in_no_event() {
    let secret = ["ghp_", "a8Kd03mVq2Zx7Rt5Yb1Nc6Wf4Hg9Jp0LsEu3"].concat();
    let bench = Bench::new(&format!("echo told {secret}; echo {secret} > requirements.txt"), "");
    let (reason, detail) = bench.failure();
    assert_eq!(reason, FailureReason::SecretFound, "{detail}");
    let expected = "`requirements.txt`: line 1 holds what looks like a secret (github-token)";
    assert_eq!(detail, expected);
    assert!(!format!("{:?}", bench.events()).contains(&secret));
}

#[test]
fn the_stage_stops_with_its_supervisor_and_leaves_nothing_running() {
    let mark = marker();
    let bench = Bench::new(&format!("setsid -f sleep {mark}; sleep {mark}"), "");
    let mut stage = bench.start();
    eventually("the agent works", || processes_with(&mark).len() >= 3);
    drop(stage.stdin.take());
    assert_eq!(outcome(&stage.wait_with_output().unwrap()), StageOutcome::Stopped);
    assert_eq!(processes_with(&mark), Vec::<PathBuf>::new());
}

#[test]
fn nothing_survives_a_stage_that_is_killed() {
    let mark = marker();
    let bench = Bench::new(&format!("setsid -f sleep {mark}; sleep {mark}"), "");
    let mut stage = bench.start();
    eventually("the agent works", || processes_with(&mark).len() >= 3);
    stage.kill().unwrap();
    stage.wait().unwrap();
    eventually("everything dies with the stage", || processes_with(&mark).is_empty());
}

#[test]
fn documents_that_are_not_those_of_the_claim_stop_the_attempt() {
    let changes: [fn(&mut Job); 2] = [
        |job| job.assignment.policy_digest = Digest::of(b"another policy"),
        |job| job.assignment.task_revision = Digest::of(b"another task"),
    ];
    for change in changes {
        let bench = Bench::new("echo flask==3.0 > requirements.txt", "").with(change);
        assert_eq!(bench.failure().0, FailureReason::ConfigInvalid);
    }
}

#[test]
fn a_model_without_a_price_or_with_a_wrong_one_names_the_variable() {
    let rows = [(None, "`claude-next`"), (Some("cheap"), "`cheap`")];
    for (prices, named) in rows {
        let bench = Bench::new("", "").with(|job| {
            job.assignment.agent = "claude".to_owned();
            job.assignment.model = Some("claude-next".to_owned());
        });
        let mut stage = bench.command();
        stage.env("ANTHROPIC_API_KEY", "a key").envs(prices.map(|it| ("LEVIATHAN_MODEL_PRICES", it)));
        let (reason, detail) = failure_of(wait_for(stage.spawn().unwrap()));
        assert_eq!(reason, FailureReason::ConfigInvalid);
        assert!(detail.contains("LEVIATHAN_MODEL_PRICES") && detail.contains(named), "{detail}");
    }
}

#[test]
fn the_claude_agent_needs_its_key() {
    let bench = Bench::new("", "").with(|job| job.assignment.agent = "claude".to_owned());
    let (reason, detail) = bench.failure();
    assert_eq!(reason, FailureReason::ConfigInvalid);
    assert!(detail.contains("ANTHROPIC_API_KEY"), "{detail}");
}

#[test]
fn a_command_that_ends_its_keeper_is_the_agents_failure() {
    let bench = Bench::new("kill -9 $PPID; exit 0", "");
    let (reason, detail) =
        failure_of(wait_for(bench.command().env("LEVIATHAN_SANDBOX", "none").spawn().unwrap()));
    assert_eq!(reason, FailureReason::Stuck, "{detail}");
    assert!(detail.contains("attacked its sandbox"), "{detail}");
}

#[test]
fn every_layer_that_holds_is_recorded_before_anything_runs() {
    let bench = Bench::new("echo flask==3.0 > requirements.txt", "");
    assert!(matches!(bench.work(), StageOutcome::Verified { .. }));
    let EventKind::SandboxReported(reported) = bench.events().remove(0) else { panic!("not reported") };
    assert_eq!(reported.profile, "standard");
    let held: Vec<&str> =
        reported.layers.iter().filter(|layer| layer.holds).map(|layer| layer.name.as_str()).collect();
    assert!(held.contains(&"landlock") && held.contains(&"seccomp"), "{reported:?}");
    assert_eq!(Manifest::read(&bench.folder.candidate()).unwrap().unwrap().sandbox, reported);
}

/// Each kind of command reaches the hosts that the policy opens for it, and what all of them asked for is recorded.
#[test]
fn a_policy_opens_hosts_to_setup_and_not_to_the_agent_or_the_checks() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = format!("localhost:{}", server.local_addr().unwrap().port());
    let agent = format!("python3 src/ask.py {place}; echo flask==3.0 > requirements.txt");
    let policy = format!(
        "setup: ['python3 src/ask.py {place}']
network: {{setup: [localhost], agent: [example.org]}}
baseline: false
invariants: [{{name: Closed, check: '! python3 src/ask.py {place}'}}]
"
    );
    let bench = Bench::new(&agent, &policy);
    let work = || wait_for(bench.command().env("LEVIATHAN_PRIVATE_HOSTS", &place).spawn().unwrap());
    assert!(matches!(work(), StageOutcome::Verified { .. }), "{:?}", bench.events());
    let reported: Vec<_> = bench.events().into_iter().filter_map(asked).flatten().collect();
    let told: Vec<_> =
        reported.iter().map(|it| (it.used_by, it.host.as_str(), it.answer, it.count)).collect();
    let setup = (NetworkUse::Setup, "localhost", NetworkAnswer::Connected, 1);
    let refused = (NetworkUse::Agent, "localhost", NetworkAnswer::NotPermitted, 1);
    assert_eq!(told, [setup, refused, setup], "once for the agent's tree and once for the checks'");
    assert_eq!(Words::read(&bench.folder.candidate()).unwrap().network, reported);

    let EventKind::SandboxReported(sandbox) = bench.events().remove(0) else { panic!("not reported") };
    let layer = sandbox.layers.iter().find(|layer| layer.name == "network").unwrap();
    assert_eq!(layer.detail, "only by the proxy, and only: agent example.org; setup localhost");
}

fn asked(kind: EventKind) -> Option<Vec<NetworkRequest>> {
    if let EventKind::NetworkReported(reported) = kind { Some(reported.requests) } else { None }
}

#[test]
fn a_policy_that_opens_hosts_needs_namespaces() {
    let bench = Bench::new("true", "network: {setup: [pypi.org]}\n");
    let variable = sandbox::WITHOUT_NAMESPACES_VARIABLE;
    let (reason, detail) = failure_of(wait_for(bench.command().env(variable, "true").spawn().unwrap()));
    assert_eq!(reason, FailureReason::SandboxUnavailable);
    assert!(detail.contains("bubblewrap") && detail.contains("`network`"), "{detail}");
}

#[test]
fn the_stage_with_the_key_is_closed_to_processes_of_its_own_user() {
    const NOBODY: u32 = 65534;
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let mark = marker();
    let bench = Bench::new(&format!("sleep {mark}"), "");
    let mut command = bench.command();
    command.env("ANTHROPIC_API_KEY", "sk-canary");
    let as_user = |command: &mut Command| {
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
    };
    if is_root {
        let owner = format!("{NOBODY}:{NOBODY}");
        assert!(
            Command::new("chown").args(["-R", &owner]).arg(bench.data.path()).status().unwrap().success()
        );
    }
    as_user(&mut command);
    let mut stage = command.spawn().unwrap();
    eventually("the agent works", || !processes_with(&mark).is_empty());
    for file in ["environ", "maps", "mem"] {
        let mut read = Command::new("head");
        read.args(["-c", "1"]).arg(format!("/proc/{}/{file}", stage.id())).stderr(Stdio::null());
        as_user(&mut read);
        assert!(!read.status().unwrap().success(), "{file} can be read");
    }
    drop(stage.stdin.take());
    assert_eq!(outcome(&stage.wait_with_output().unwrap()), StageOutcome::Stopped);
}
