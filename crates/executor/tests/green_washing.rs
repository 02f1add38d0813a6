//! Files by which a test suite is made to say what it does not: each turns a failing run of the real pytest green, and
//! none gets by. Unnamed, the gate refuses the file; named in task and scope, the checks also run without it.

#![expect(clippy::unwrap_used, reason = "a failed expectation ends its test")]

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use leviathan_executor::checks::Checks;
use leviathan_executor::contain::Containment;
use leviathan_executor::toolbox::Bounds;
use model::change::CheckOutcome;
use model::documents::{Document, Documents, Invariant};
use model::secrets::Redactor;
use model::{
    AttemptId, CommitId, Digest, FailureReason, PathRules, PermittedChange, Refused, TargetSpec, TaskId,
};
use target::{Git, Provenance, Repository, changes_between, with_files_of_base};
use test_support::repository::{Entry, Origin};
use tokio::sync::watch;
use tokio::time::Instant;

/// A name, the file with its content, and the check that it turns green.
type Trick = (&'static str, &'static str, &'static str, &'static str);

const TRICKS: [Trick; 3] = [
    (
        "a hook that rewrites the result",
        "conftest.py",
        "def pytest_sessionfinish(session, exitstatus):\n    session.exitstatus = 0\n",
        "PYTHON -m pytest -q -p no:cacheprovider tests",
    ),
    (
        "options that run nothing",
        "pytest.ini",
        "[pytest]\naddopts = --collect-only\n",
        "PYTHON -m pytest -q -p no:cacheprovider tests",
    ),
    ("a module in the place of pytest", "pytest.py", "print('1 passed')\n", "PYTHON -m pytest -q tests"),
];

const FAILING_TEST: &str = "from app import total\n\n\ndef test_total():\n    assert total([1, 2]) == 3\n";

/// The base is right; the change breaks the program and brings the trick.
struct Bench {
    folder: tempfile::TempDir,
    repository: Repository,
    base: CommitId,
    candidate: CommitId,
    _origin: Origin,
}

impl Bench {
    fn new(file: &str, content: &str) -> Self {
        let origin = Origin::with_files(&[
            ("app.py", "def total(numbers):\n    return sum(numbers)\n"),
            ("tests/test_app.py", FAILING_TEST),
        ]);
        let base = CommitId::parse(origin.resolve("main").unwrap()).unwrap();
        let edits =
            [Entry::file("app.py", "def total(numbers):\n    return 0\n"), Entry::file(file, content)];
        let candidate = CommitId::parse(origin.commit("main", "change", &edits)).unwrap();
        let repository = Repository::open(&Git::find().unwrap(), origin.dir()).unwrap();
        Self { folder: tempfile::tempdir().unwrap(), repository, base, candidate, _origin: origin }
    }

    #[expect(clippy::result_large_err, reason = "as in `permit` itself")]
    fn judge(&self, allowed: &[&str]) -> Result<PermittedChange, Refused> {
        let allowed = serde_json::to_string(allowed).unwrap();
        let contract = "target_id: t\nname: T\nrepo_url: https://example.org/o/t.git\ndefault_branch: main\n";
        let backlog = format!("tasks:\n  - {{task_id: t, title: T, scope: s, allowed_paths: {allowed}}}\n");
        let policy = format!("scopes:\n  s: {{allowed_paths: {allowed}}}\ninvariants: []\n");
        fn document<'a>(file: &'a str, text: &'a str) -> Document<'a> {
            Document { file, content: Some(text.as_bytes()) }
        }
        let documents = Documents {
            contract: document("contract.yaml", contract),
            backlog: document("backlog.yaml", &backlog),
            policy: document("policy.yaml", &policy),
            operator_policy: None,
        };
        let spec = TargetSpec::parse(self.base.clone(), &documents).unwrap_or_else(|e| panic!("{e}"));
        let rules = PathRules::for_task(&spec, spec.backlog.task(&TaskId::parse("t").unwrap()).unwrap());
        let change = changes_between(&self.repository, &self.base, &self.candidate, &Redactor::default());
        change.unwrap().permit(&rules, &spec.policy.limits)
    }

    async fn outcome_at(&self, commit: &CommitId, check: &str) -> CheckOutcome {
        let containment = Containment::new(env!("CARGO_BIN_EXE_executor-under-test"), BTreeMap::new());
        let checks = Checks {
            setup_containment: containment.clone(),
            containment,
            repository: self.repository.clone(),
            folder: self.folder.path().to_owned(),
            setup: Vec::new(),
            invariants: vec![Invariant {
                name: "tests".to_owned(),
                check: format!("export PYTHONPATH=. PYTHONDONTWRITEBYTECODE=1; {check}"),
                timeout: Duration::from_secs(120),
            }],
            redactor: Redactor::default(),
        };
        let (_open, cancelled) = watch::channel(false);
        let bounds = Bounds::new(Instant::now() + Duration::from_secs(300), cancelled);
        checks.run(commit, "round-1", &bounds).await.unwrap().remove(0).report.outcome
    }
}

#[test]
fn the_gate_refuses_each_trick_that_nobody_named() {
    for (name, file, content, _) in TRICKS {
        let refused = Bench::new(file, content).judge(&["**"]).unwrap_err();
        assert_eq!(refused.reason(), FailureReason::ProtectedPath, "{name}");
        assert_eq!(refused.violations[0].path, file, "{name}");
    }
}

#[tokio::test]
async fn a_trick_that_was_named_turns_the_check_green_and_fails_with_the_bases_files() {
    let Some(python) = python_with_pytest() else {
        // What the gate refuses is tested above without it.
        println!("no python3 with pytest is here: the tricks are not run");
        return;
    };
    for (name, file, content, check) in TRICKS {
        let bench = Bench::new(file, content);
        let check = check.replace("PYTHON", &python);
        let permitted = bench.judge(&["app.py", file]).unwrap();
        assert_eq!(permitted.check_files().iter().map(ToString::to_string).collect::<Vec<_>>(), [file]);
        assert_eq!(
            bench.outcome_at(&bench.base, &check).await,
            CheckOutcome::Passed,
            "{name}: the base is right"
        );
        let green = bench.outcome_at(&bench.candidate, &check).await;
        assert_eq!(green, CheckOutcome::Passed, "{name}: the trick works");
        let with_base_files = with_files_of_base(
            &bench.repository,
            &bench.base,
            &bench.candidate,
            &permitted.check_files(),
            &provenance(),
        );
        let outcome = bench.outcome_at(&with_base_files.unwrap(), &check).await;
        assert_eq!(outcome, CheckOutcome::Failed { exit_code: 1 }, "{name}");
    }
}

fn provenance() -> Provenance {
    Provenance {
        title: "T".to_owned(),
        task: TaskId::parse("t").unwrap(),
        attempt: AttemptId::parse("attempt-1").unwrap(),
        policy: Digest::of(b""),
        at: jiff::Timestamp::UNIX_EPOCH,
    }
}

/// A Python of the system that has pytest, if there is one.
fn python_with_pytest() -> Option<String> {
    let has_pytest = |python: &&str| {
        let asked = Command::new(python).args(["-m", "pytest", "--version"]).current_dir("/").output();
        asked.is_ok_and(|output| output.status.success())
    };
    ["/usr/bin/python3", "/usr/local/bin/python3", "python3"]
        .iter()
        .find(|python| has_pytest(python))
        .map(|p| (*p).to_owned())
}
