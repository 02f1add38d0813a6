//! Row S2: the gate with its search for secrets, from a tree that an agent left to the verdict on every file.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, ensure};
use model::secrets::Redactor;
use model::{AttemptId, Digest, Document, Documents, PathRules, TargetSpec, TaskId};
use target::{Git, Prepared, Provenance, Repository, SnapshotLimits, changes_between, export, snapshot};

use super::super::{Goal, large_repository, median};
use super::Arguments;

/// The gate may take so many seconds.
const LIMIT: f64 = 0.5;

/// What was measured, in seconds: a median for each step.
pub(super) struct Measured {
    snapshot: f64,
    verdict: f64,
    second_look: f64,
    total: f64,
}

impl Measured {
    /// The goal of the row.
    pub(super) fn goal(&self) -> Goal {
        Goal::at_most(1.0, "S2-gate", self.total, LIMIT)
    }

    /// The rows of the table.
    pub(super) fn rows(&self) -> [(&'static str, f64); 4] {
        [
            ("read the tree, commit, measure, search for secrets", self.snapshot),
            ("judge every change", self.verdict),
            ("the gate", self.total),
            ("measured again from the objects alone", self.second_look),
        ]
    }
}

/// Makes a repository and a tree of it, changes the tree as an agent would, and judges it again and again.
pub(super) fn measure(arguments: &Arguments) -> anyhow::Result<Measured> {
    let folder = tempfile::Builder::new().prefix("leviathan-bench-").tempdir()?;
    let (origin, tree) = (folder.path().join("origin.git"), folder.path().join("tree"));
    large_repository::make(&origin, usize::try_from(arguments.files)?, 1, &[])?;
    let git = Git::find()?;
    let lender = Repository::open(&git, &origin)?;
    let base = lender.resolve("refs/heads/main")?.context("the benchmark's repository has a commit")?;
    export(&lender, &base, &tree)?;
    change(&tree, arguments)?;
    let (rules, limits) = judging(arguments)?;
    let redactor = Redactor::new(["a-token-that-nobody-was-ever-given"]);
    let mut times: [Vec<f64>; 4] = Default::default();
    for round in 0..=arguments.rounds {
        let repository =
            Repository::init_borrowing(&folder.path().join(format!("own-{round}.git")), &lender)?;
        let begun = Instant::now();
        let taken = snapshot(
            &repository,
            &base,
            &tree,
            &Prepared::default(),
            &provenance()?,
            &SnapshotLimits::default(),
            &redactor,
        )?;
        let snapshot_took = begun.elapsed().as_secs_f64();
        let candidate = taken.change.candidate().clone();
        let changed = taken.change.changes().len();
        ensure!(changed == arguments.changed as usize, "{changed} files were found changed");
        let permitted = taken.change.permit(&rules, &limits).is_ok();
        let total = begun.elapsed().as_secs_f64();
        ensure!(permitted, "the benchmark's change must be permitted");
        let again = Instant::now();
        changes_between(&repository, &base, &candidate, &redactor)?;
        if round > 0 {
            let took = [snapshot_took, total - snapshot_took, again.elapsed().as_secs_f64(), total];
            times.iter_mut().zip(took).for_each(|(times, took)| times.push(took));
        }
    }
    let [snapshot, verdict, second_look, total] = times.map(median);
    Ok(Measured { snapshot, verdict, second_look, total })
}

/// Adds 40 lines of code to each of so many files.
fn change(tree: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    ensure!(arguments.changed <= arguments.files, "more files would be changed than there are");
    let step = (arguments.files / arguments.changed) as usize;
    for number in 0..arguments.changed as usize {
        let path = tree.join(large_repository::path(number * step));
        let mut text = std::fs::read_to_string(&path)?;
        for line in 0..40 {
            text.push_str(&format!(
                "let value_{line} = compute(\"argument {number}\", {line})?; // a line of code\n"
            ));
        }
        std::fs::write(&path, text)?;
    }
    Ok(())
}

fn judging(arguments: &Arguments) -> anyhow::Result<(PathRules, model::Limits)> {
    let contract = "target_id: bench\nname: Bench\nrepo_url: file:///bench\ndefault_branch: main\n";
    let backlog = "tasks:\n  - {task_id: t, title: T, scope: s, allowed_paths: ['src/**/*.txt']}\n";
    let policy = format!(
        "scopes:\n  s: {{allowed_paths: ['src/**'], forbidden_patterns: ['**/private/**']}}\ninvariants: []\nlimits: {{max_files_changed: {}, max_patch_bytes: 1GiB}}\n",
        arguments.changed
    );
    fn document<'a>(file: &'a str, text: &'a str) -> Document<'a> {
        Document { file, content: Some(text.as_bytes()) }
    }
    let documents = Documents {
        contract: document("contract.yaml", contract),
        backlog: document("backlog.yaml", backlog),
        policy: document("policy.yaml", &policy),
        operator_policy: None,
    };
    let spec = TargetSpec::parse(model::CommitId::parse("0".repeat(40))?, &documents)?;
    let task = spec.backlog.task(&TaskId::parse("t")?).context("the benchmark's task")?;
    Ok((PathRules::for_task(&spec, task), spec.limits_for(task)))
}

fn provenance() -> anyhow::Result<Provenance> {
    Ok(Provenance {
        title: "A change".to_owned(),
        task: TaskId::parse("t")?,
        attempt: AttemptId::parse("attempt-bench")?,
        policy: Digest::of(b"bench"),
        at: jiff::Timestamp::UNIX_EPOCH,
    })
}
