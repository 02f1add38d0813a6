//! Runs the invariants of a policy at one commit.
//!
//! Each run exports the commit afresh, so that nothing which an agent left behind or ignored exists there, runs
//! the policy's `setup` in it and then every check, contained, one after the other. Only a check that exits
//! with 0 and leaves the commit's own files as they were has passed. The module does not decide what follows
//! from a failure.

mod stamps;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::change::{CheckOutcome, InvariantReport};
use model::documents::{Invariant, Policy, Setup};
use model::secrets::Redactor;
use model::{CommitId, Digest};
use sha2::Digest as _;
use target::Repository;

use crate::contain::{self, Command, Containment, End, Excerpt, Limits, Outcome, Program, excerpt};
use crate::job::copy_cleaned;
use crate::toolbox::Bounds;
use stamps::Stamps;

/// In the folder of a run: the fresh export that it runs in.
const TREE: &str = "tree";
/// In the folder of a run: what is its commands' own, their HOME and temporary files.
const SCRATCH: &str = "scratch";

/// What all runs of an attempt's checks share.
#[derive(Debug, Clone)]
pub struct Checks {
    /// How the checks are contained.
    pub containment: Containment,
    /// How the commands of `setup` are.
    pub setup_containment: Containment,
    /// The repository that holds the commits.
    pub repository: Repository,
    /// Where the trees and logs go.
    pub folder: PathBuf,
    /// The policy's `setup`.
    pub setup: Vec<Setup>,
    /// The policy's invariants, in order.
    pub invariants: Vec<Invariant>,
    /// Takes secrets out of what the checks write.
    pub redactor: Redactor,
}

/// One invariant that was run, and the file with everything that it wrote.
#[derive(Debug, Clone)]
pub struct Checked {
    /// What it showed.
    pub report: InvariantReport,
    /// Its whole log; or the log of the setup that failed before it.
    pub log: PathBuf,
}

/// Why the invariants could not be run. A check that fails, in whatever way, is a [`Checked`] and no error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The commit could not be exported.
    #[error(transparent)]
    Export(#[from] target::ExportError),
    /// A command could not be contained.
    #[error(transparent)]
    Containment(#[from] contain::Error),
    /// A tree or a log could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The attempt was cancelled or reached its deadline while the checks ran.
    #[error("the checks were interrupted")]
    Interrupted,
}

impl Checks {
    /// The checks of `policy`.
    pub fn new(
        containment: Containment,
        repository: Repository,
        folder: PathBuf,
        policy: &Policy,
        redactor: Redactor,
    ) -> Self {
        let (setup, invariants) = (policy.setup.clone(), policy.invariants.clone());
        let setup_containment = containment.clone();
        Self { containment, setup_containment, repository, folder, setup, invariants, redactor }
    }

    /// Contains the commands in this way from now on.
    pub fn set_containment(&mut self, setup: Containment, checks: Containment) {
        (self.setup_containment, self.containment) = (setup, checks);
    }

    /// Runs every invariant at `commit`, in order, whatever the others show. `name` tells the runs of an attempt
    /// apart and names their folder, which is made anew.
    pub async fn run(&self, commit: &CommitId, name: &str, bounds: &Bounds) -> Result<Vec<Checked>, Error> {
        if self.invariants.is_empty() {
            return Ok(Vec::new());
        }
        let run = self.start(commit, name).await?;
        match run.set_up(bounds).await? {
            SetUp::Done => run.check_all(bounds).await,
            SetUp::Failed { problem, log } => run.refuse_all(&problem, &log),
        }
    }

    async fn start<'a>(&'a self, commit: &'a CommitId, name: &str) -> Result<Run<'a>, Error> {
        let folder = self.folder.join(name);
        let (tree, logs) = (folder.join(TREE), folder.join("logs"));
        match tokio::fs::remove_dir_all(&folder).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&folder)(error)),
            Ok(()) | Err(_) => {}
        }
        self.remove_earlier_trees().await.map_err(at(&self.folder))?;
        tokio::fs::create_dir_all(&logs).await.map_err(at(&logs))?;
        export(&self.repository, commit, &tree).await?;
        let before = Stamps::take(&tree).map_err(at(&tree))?;
        Ok(Run { checks: self, commit, tree, scratch: folder.join(SCRATCH), logs, before })
    }

    /// What the trees of earlier runs hold is of no further use; their logs stay. It is removed when the next run
    /// needs the room, and not after each: nobody waits for the removal of the last, which ends with the attempt.
    async fn remove_earlier_trees(&self) -> io::Result<()> {
        let mut runs = match tokio::fs::read_dir(&self.folder).await {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            runs => runs?,
        };
        while let Some(run) = runs.next_entry().await? {
            // A link leads to what is not ours; nothing of ours is one.
            if !run.file_type().await?.is_dir() {
                continue;
            }
            // A check may leave what cannot be removed; no later run uses the same place.
            let _ = tokio::fs::remove_dir_all(run.path().join(TREE)).await;
            let _ = tokio::fs::remove_dir_all(run.path().join(SCRATCH)).await;
        }
        Ok(())
    }
}

/// Exports `commit` into the empty folder `tree` without holding up other work.
pub(crate) async fn export(
    repository: &Repository,
    commit: &CommitId,
    tree: &Path,
) -> Result<(), target::ExportError> {
    let (repository, commit, tree) = (repository.clone(), commit.clone(), tree.to_owned());
    let exported = tokio::task::spawn_blocking(move || target::export(&repository, &commit, &tree)).await;
    exported.expect("the export does not panic").map(|_| ())
}

/// What became of the policy's `setup`.
pub(crate) enum SetUp {
    Done,
    Failed { problem: String, log: PathBuf },
}

/// Runs the `setup` of a policy in a fresh tree. The tree of the agent and the trees of the checks get the same.
pub(crate) async fn set_up(
    containment: &Containment,
    setup: &[Setup],
    tree: &Path,
    scratch: &Path,
    logs: &Path,
    bounds: &Bounds,
) -> Result<SetUp, Error> {
    for (index, step) in setup.iter().enumerate() {
        let log = logs.join(format!("setup-{}.log", index + 1));
        let outcome = run_line(containment, &step.run, step.timeout, tree, scratch, &log, bounds).await?;
        let ended = outcome_of(&outcome.end)?;
        if !ended.is_pass() {
            return Ok(SetUp::Failed { problem: format!("setup `{}` {ended}", step.run), log });
        }
    }
    Ok(SetUp::Done)
}

/// One run: a commit in its fresh tree.
struct Run<'a> {
    checks: &'a Checks,
    commit: &'a CommitId,
    tree: PathBuf,
    scratch: PathBuf,
    logs: PathBuf,
    /// What the commit's own files were before the next check.
    before: Stamps,
}

impl Run<'_> {
    async fn set_up(&self, bounds: &Bounds) -> Result<SetUp, Error> {
        let Checks { setup_containment, setup, .. } = self.checks;
        set_up(setup_containment, setup, &self.tree, &self.scratch, &self.logs, bounds).await
    }

    async fn check_all(mut self, bounds: &Bounds) -> Result<Vec<Checked>, Error> {
        if !self.checks.setup.is_empty() {
            self.before = self.before.again(&self.tree);
        }
        let mut checked = Vec::new();
        for (index, invariant) in self.checks.invariants.iter().enumerate() {
            let log = self.logs.join(format!("check-{}.log", index + 1));
            let outcome = self.check(invariant, &log, bounds).await?;
            let mut verdict = outcome_of(&outcome.end)?;
            let after = self.before.again(&self.tree);
            if verdict.is_pass() && self.has_changed(&after).await? {
                verdict = CheckOutcome::MutatedTree;
            }
            self.before = after;
            checked.push(self.report(invariant, verdict, outcome.duration, log)?);
        }
        Ok(checked)
    }

    async fn check(&self, invariant: &Invariant, log: &Path, bounds: &Bounds) -> Result<Outcome, Error> {
        let containment = &self.checks.containment;
        let Invariant { check, timeout, .. } = invariant;
        run_line(containment, check, *timeout, &self.tree, &self.scratch, log, bounds).await
    }

    /// Whether a file of the commit is no longer what it was. A file that was only touched is compared with a
    /// second export.
    async fn has_changed(&self, after: &Stamps) -> Result<bool, Error> {
        let touched = self.before.differences(after);
        if touched.is_empty() {
            return Ok(false);
        }
        let pristine = self.scratch.join("pristine");
        export(&self.checks.repository, self.commit, &pristine).await?;
        let changed =
            touched.iter().any(|name| !stamps::is_same(&self.tree.join(name), &pristine.join(name)));
        tokio::fs::remove_dir_all(&pristine).await.map_err(at(&pristine))?;
        Ok(changed)
    }

    /// The reports when the checks could not even begin.
    fn refuse_all(&self, problem: &str, log: &Path) -> Result<Vec<Checked>, Error> {
        let refuse = |invariant| {
            let outcome = CheckOutcome::NotStarted { problem: problem.to_owned() };
            self.report(invariant, outcome, Duration::ZERO, log.to_owned())
        };
        self.checks.invariants.iter().map(refuse).collect()
    }

    fn report(
        &self,
        invariant: &Invariant,
        outcome: CheckOutcome,
        duration: Duration,
        log: PathBuf,
    ) -> Result<Checked, Error> {
        remove_secrets(&self.checks.redactor, &log).map_err(at(&log))?;
        let (digest, log_bytes) = digest_of(&log).map_err(at(&log))?;
        let report = InvariantReport {
            name: invariant.name.clone(),
            check: invariant.check.clone(),
            commit: self.commit.clone(),
            outcome,
            duration_ms: duration.as_millis().try_into().unwrap_or(u64::MAX),
            log: digest,
            log_bytes,
        };
        Ok(Checked { report, log })
    }
}

impl Checked {
    /// Head and tail of what the check wrote, for people and agents.
    pub fn excerpt(&self) -> io::Result<Excerpt> {
        excerpt(&self.log, 2 << 10, 6 << 10)
    }
}

async fn run_line(
    containment: &Containment,
    line: &str,
    timeout: Duration,
    tree: &Path,
    scratch: &Path,
    log: &Path,
    bounds: &Bounds,
) -> Result<Outcome, Error> {
    bounds.check().map_err(|_| Error::Interrupted)?;
    let command = Command {
        program: Program::Shell(line.to_owned()),
        directory: tree.to_owned(),
        scratch: scratch.to_owned(),
        environment: Default::default(),
        stdin: Vec::new(),
        log: log.to_owned(),
        stderr_log: None,
        limits: Limits { timeout, ..Limits::default() },
    };
    Ok(containment.run(&command, bounds.end()).await?)
}

/// What the end of a command means for a check.
fn outcome_of(end: &End) -> Result<CheckOutcome, Error> {
    Ok(match end {
        End::Exited { code: 0 } => CheckOutcome::Passed,
        End::Exited { code } => CheckOutcome::Failed { exit_code: *code },
        End::Signalled { signal } => CheckOutcome::Killed { signal: *signal },
        End::TimedOut => CheckOutcome::TimedOut,
        End::OutputLimit => CheckOutcome::OutputLimit,
        End::DiskLimit => CheckOutcome::DiskLimit,
        // The keeper kills what has too many processes.
        End::ProcessLimit => CheckOutcome::Killed { signal: 9 },
        End::NotStarted { problem } => CheckOutcome::NotStarted { problem: problem.clone() },
        End::Cancelled => return Err(Error::Interrupted),
    })
}

/// Rewrites a log that holds a secret. Its digest is recorded, so that it must be without any from then on.
fn remove_secrets(redactor: &Redactor, log: &Path) -> io::Result<()> {
    let Some(folder) = log.parent().filter(|_| log.exists()) else { return Ok(()) };
    let cleaned = tempfile::NamedTempFile::new_in(folder)?;
    if copy_cleaned(redactor, log, cleaned.as_file())? {
        cleaned.persist(log)?;
    }
    Ok(())
}

/// The SHA-256 and the length of a file. A log that was never begun counts as empty.
pub(crate) fn digest_of(path: &Path) -> io::Result<(Digest, u64)> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Digest::of(b""), 0)),
        opened => opened?,
    };
    let mut hash = sha2::Sha256::new();
    let length = io::copy(&mut file, &mut HashWriter(&mut hash))?;
    let digest = Digest::parse(hex::encode(hash.finalize())).expect("a SHA-256 in hexadecimal is a digest");
    Ok((digest, length))
}

struct HashWriter<'a>(&'a mut sha2::Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    |source| Error::File { path, source }
}
