//! The invariants of a policy, run on real commits by real processes.
#![expect(clippy::unwrap_used, reason = "a failed expectation ends its test")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use leviathan_executor::checks::{Checked, Checks, Error};
use leviathan_executor::contain::Containment;
use leviathan_executor::toolbox::Bounds;
use model::change::CheckOutcome;
use model::documents::{Invariant, Setup};
use model::secrets::Redactor;
use model::{CommitId, Digest};
use target::{Git, Repository};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::time::Instant;

/// Known to the process that runs the checks.
const SECRET: &str = "known-to-the-executor";

const LONG: Duration = Duration::from_secs(60);

/// A commit with a few files, and a place to check it.
struct Bench {
    folder: TempDir,
    checks: Checks,
    commit: CommitId,
    _origin: test_support::repository::Origin,
}

impl Bench {
    fn new(setup: &[&str], checks: &[&str]) -> Self {
        let origin = test_support::repository::Origin::with_files(&[
            ("README.md", "hello\n"),
            ("src/app.py", "print(1)\n"),
            (".gitignore", "*.pyc\n"),
        ]);
        let commit = CommitId::parse(origin.resolve("main").unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let containment = Containment::new(env!("CARGO_BIN_EXE_executor-under-test"), BTreeMap::new());
        let checks = Checks {
            setup_containment: containment.clone(),
            containment,
            repository: Repository::open(&Git::find().unwrap(), origin.dir()).unwrap(),
            folder: folder.path().to_owned(),
            setup: setup.iter().map(|run| Setup { run: (*run).to_owned(), timeout: LONG }).collect(),
            redactor: Redactor::new([SECRET]),
            invariants: checks.iter().enumerate().map(|(n, check)| invariant(n, check, LONG)).collect(),
        };
        Self { folder, checks, commit, _origin: origin }
    }

    async fn run(&self) -> Vec<Checked> {
        self.run_as("round-1").await
    }

    async fn run_as(&self, name: &str) -> Vec<Checked> {
        let (_open, cancelled) = watch::channel(false);
        let bounds = Bounds::new(Instant::now() + 10 * LONG, cancelled);
        self.checks.run(&self.commit, name, &bounds).await.unwrap()
    }

    async fn outcomes(&self) -> Vec<CheckOutcome> {
        self.run().await.into_iter().map(|checked| checked.report.outcome).collect()
    }
}

fn invariant(n: usize, check: &str, timeout: Duration) -> Invariant {
    Invariant { name: format!("check {n}"), check: check.to_owned(), timeout }
}

#[tokio::test]
async fn only_a_normal_exit_with_zero_passes() {
    let failed = |exit_code| CheckOutcome::Failed { exit_code };
    let rows = [
        ("true", CheckOutcome::Passed),
        ("test \"$(cat src/app.py)\" = 'print(1)'", CheckOutcome::Passed),
        ("echo 'all checks passed'; exit 1", failed(1)),
        ("no-such-linter .", failed(127)),
        ("./README.md", failed(126)),
        ("kill -SEGV $$", CheckOutcome::Killed { signal: 11 }),
        ("exit 0 & kill -9 $$", CheckOutcome::Killed { signal: 9 }),
        ("yes", CheckOutcome::OutputLimit),
    ];
    let bench = Bench::new(&[], &rows.each_ref().map(|row| row.0));
    assert_eq!(bench.outcomes().await, rows.map(|row| row.1));
}

#[tokio::test]
async fn a_check_has_its_own_time() {
    let mut bench = Bench::new(&[], &[]);
    let soon = Duration::from_millis(200);
    bench.checks.invariants = vec![invariant(0, "sleep 1000", soon), invariant(1, "true", LONG)];
    assert_eq!(bench.outcomes().await, [CheckOutcome::TimedOut, CheckOutcome::Passed]);
}

#[tokio::test]
async fn a_check_that_changes_what_it_judges_fails_and_one_that_leaves_traces_does_not() {
    let rows = [
        ("echo more >> README.md", CheckOutcome::MutatedTree),
        ("printf 'hello\\n' > README.md", CheckOutcome::Passed),
        ("touch -d '1 hour ago' src/app.py && echo x > src/app.pyc", CheckOutcome::Passed),
        ("chmod +x src/app.py", CheckOutcome::MutatedTree),
        ("chmod -x src/app.py && rm README.md && ln -s /etc/passwd README.md", CheckOutcome::MutatedTree),
        ("rm -r src", CheckOutcome::MutatedTree),
    ];
    for (check, expected) in rows {
        assert_eq!(Bench::new(&[], &[check]).outcomes().await, [expected], "{check}");
    }
}

#[tokio::test]
async fn what_setup_made_may_change_and_no_check_answers_for_the_one_before() {
    let setup = ["mkdir cache && touch cache/x"];
    let bench = Bench::new(&setup, &["echo more >> cache/x", "rm README.md", "true"]);
    let expected = [CheckOutcome::Passed, CheckOutcome::MutatedTree, CheckOutcome::Passed];
    assert_eq!(bench.outcomes().await, expected);
}

#[tokio::test]
async fn what_an_earlier_run_left_behind_is_gone() {
    let bench = Bench::new(&[], &["test ! -e trace && test ! -e $HOME/trace && touch trace $HOME/trace"]);
    assert_eq!(bench.outcomes().await, [CheckOutcome::Passed]);
    assert_eq!(bench.outcomes().await, [CheckOutcome::Passed]);
}

#[tokio::test]
async fn setup_runs_first_in_the_same_tree_and_its_failure_fails_every_check() {
    let prepared = Bench::new(&["touch prepared", "touch $HOME/too"], &["test -e prepared -a -e $HOME/too"]);
    assert_eq!(prepared.outcomes().await, [CheckOutcome::Passed]);

    let broken = Bench::new(&["true", "echo no network; exit 4", "touch never"], &["true", "true"]);
    let checked = broken.run().await;
    for one in &checked {
        let problem = "setup `echo no network; exit 4` failed with exit code 4".to_owned();
        assert_eq!(one.report.outcome, CheckOutcome::NotStarted { problem });
        assert_eq!(one.excerpt().unwrap().to_string(), "no network\n");
    }
    assert_eq!(checked.len(), 2);
}

#[tokio::test]
async fn the_log_is_kept_whole_under_its_digest() {
    let bench = Bench::new(&[], &["echo one; echo two >&2"]);
    let checked = bench.run().await.remove(0);
    assert_eq!(std::fs::read_to_string(&checked.log).unwrap(), "one\ntwo\n");
    assert_eq!(checked.report.log, Digest::of(b"one\ntwo\n"));
    assert_eq!((checked.report.log_bytes, &checked.report.commit), (8, &bench.commit));
}

#[tokio::test]
async fn a_log_is_without_secrets_and_known_by_what_is_left() {
    let bench = Bench::new(&[], &["printf 'a known-to-the%s b' -executor"]);
    let checked = bench.run().await;
    assert_eq!(std::fs::read_to_string(&checked[0].log).unwrap(), "a [redacted] b");
    assert_eq!(checked[0].report.log, Digest::of(b"a [redacted] b"));
}

#[tokio::test]
async fn a_check_sees_no_repository_and_nothing_of_the_callers_environment() {
    let bench = Bench::new(
        &[],
        &["! git rev-parse --git-dir && test -z \"$CARGO_MANIFEST_DIR$USER$ANTHROPIC_API_KEY\""],
    );
    assert!(bench.folder.path().starts_with(std::env::temp_dir()), "git must not find a repository above");
    assert_eq!(bench.outcomes().await, [CheckOutcome::Passed]);
}

/// Whether a file of that name is anywhere below a folder.
fn is_below(folder: &Path, name: &str) -> bool {
    std::fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
        entry.file_name() == name
            || entry.file_type().is_ok_and(|it| it.is_dir()) && is_below(&entry.path(), name)
    })
}

#[tokio::test]
async fn checks_stop_when_the_attempt_does() {
    let bench = Bench::new(&[], &["touch begun; sleep 1000"]);
    let (sender, cancelled) = watch::channel(false);
    let bounds = Bounds::new(Instant::now() + 10 * LONG, cancelled);
    let run = bench.checks.run(&bench.commit, "round-1", &bounds);
    let cancel = async {
        while !is_below(bench.folder.path(), "begun") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        sender.send_replace(true);
    };
    let (checked, ()) = tokio::join!(run, cancel);
    assert!(matches!(checked, Err(Error::Interrupted)), "{checked:?}");
}

#[tokio::test]
async fn the_next_run_keeps_the_logs_of_the_last_removes_its_trees_and_follows_no_link() {
    let bench = Bench::new(&[], &["echo said; test ! -e left-over; touch left-over ~/left-over"]);
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::create_dir(elsewhere.path().join("tree")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), bench.folder.path().join("link")).unwrap();
    for round in ["round-1", "round-1", "round-2"] {
        let outcome = bench.run_as(round).await.remove(0).report.outcome;
        assert_eq!(outcome, CheckOutcome::Passed, "{round} began afresh");
    }
    let first = bench.folder.path().join("round-1");
    let left: Vec<_> = std::fs::read_dir(&first).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["logs"]);
    assert_eq!(std::fs::read_to_string(first.join("logs/check-1.log")).unwrap(), "said\n");
    assert!(elsewhere.path().join("tree").exists());
}
