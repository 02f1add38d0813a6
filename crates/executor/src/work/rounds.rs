//! The rounds of an attempt: the agent works, the change is judged, the invariants are run; what failed goes
//! back to the agent, and everything is judged and run again from the start.

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use model::change::{PermittedChange, Refused};
use model::event::{
    AgentFinished, ChangePermitted, ChangeVerified, EventKind, FileRecord, InvariantChecked, PolicyViolated,
    ViolationRecord,
};
use model::{FailureReason, Stage};
use target::candidate::{PACK_FILE, pack};
use target::{Snapshot, SnapshotError, with_files_of_base};

use super::{Stop, Work};
use crate::agent::command::CommandAgent;
use crate::agent::{Agent, AgentFailure, AgentReport, Brief, FailedCheck, Outcome};
use crate::candidate::{self, Manifest, Words};
use crate::checks::Checked;
use crate::contain;
use crate::courier::LARGEST_ARTIFACT;
use crate::job::{StageOutcome, shortened};

/// How often the agent may work before a failed check ends the attempt.
const ROUNDS: u32 = 3;

impl Work<'_> {
    pub(super) async fn go_rounds(&mut self, agent: &mut Agent) -> Result<StageOutcome, Stop> {
        let attempt = self.job.assignment.attempt_id.clone();
        let mut brief = Brief::new(&self.spec, &self.task, attempt);
        loop {
            let round = brief.round;
            let said = self.let_agent_work(agent, &brief).await?;
            let left = self.read_tree(agent, round).await?;
            let change = self.judge(round, left)?;
            self.settings.fault.reach("after_candidate");
            let checked = self.run_checks(round, &change).await?;
            let mut failed_checks = failed(&checked)?;
            let mut with_base_files = Vec::new();
            if failed_checks.is_empty() {
                with_base_files = self.check_with_files_of_base(round, &change).await?;
                failed_checks = self.blocking(&with_base_files)?;
            }
            if failed_checks.is_empty() {
                return self.store(change, &checked, &with_base_files, said);
            }
            if round == ROUNDS {
                return Err(self.still_failing(&failed_checks));
            }
            brief = brief.next_round(failed_checks);
        }
    }

    fn still_failing(&self, checks: &[FailedCheck]) -> Stop {
        let names: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
        let detail = format!("after {ROUNDS} rounds these invariants still fail: {}", names.join(", "));
        self.failed(Stage::Checks, FailureReason::InvariantFailed, detail)
    }

    /// What the agent says in the end. Where that is the end of the attempt, what it wrote is kept here; else with its tree.
    async fn let_agent_work(&mut self, agent: &mut Agent, brief: &Brief) -> Result<AgentReport, Stop> {
        let round = brief.round;
        self.say(&format!("the agent works, round {round}"));
        let toolbox = self.toolbox().context("the agent's tools")?;
        let begun = Instant::now();
        let worked = agent.work(brief, &toolbox).await;
        // Whatever the agent left running dies before its tree is read.
        contain::end_all_descendants(|_, _| {}).context("the agent's processes")?;
        let duration_ms = begun.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        self.record_network()?;
        let worked = worked.map(|said| said.without_secrets(&self.settings.redactor));
        let (summary, usage) = match &worked {
            Ok(said) => (said.summary.clone(), said.usage.clone()),
            Err(failure) => (String::new(), failure.usage.clone()),
        };
        self.usage += &usage;
        let finished = AgentFinished { round, summary: shortened(summary), duration_ms, usage };
        self.record(EventKind::AgentFinished(finished), &round.to_string())?;
        let answer = self.answer(worked);
        if answer.is_err() {
            self.keep_agent_logs(round)?;
        }
        answer
    }

    /// Reads what the agent left in its tree. Its transcript is kept once it says what that came to.
    async fn read_tree(&self, agent: &mut Agent, round: u32) -> Result<Snapshot, Stop> {
        self.say(&format!("judging the change of round {round}"));
        let left = self.snapshot().await;
        if let Ok(left) = &left {
            agent.came_to(left.change.candidate())?;
        }
        self.keep_agent_logs(round)?;
        left
    }

    /// What the agent's end means for the attempt.
    fn answer(&self, worked: Result<AgentReport, AgentFailure>) -> Result<AgentReport, Stop> {
        match worked {
            Ok(said) => match said.outcome {
                Outcome::Finished => Ok(said),
                Outcome::GaveUp => {
                    let detail = format!("the agent gave up: {}", in_one_line(&said.summary));
                    Err(self.failed(Stage::Agent, FailureReason::Stuck, detail))
                }
            },
            Err(failure) => {
                let reason = failure.reason();
                if matches!(reason, FailureReason::Cancelled | FailureReason::TimedOut) {
                    Err(self.interrupted(Stage::Agent))
                } else {
                    Err(self.failed(Stage::Agent, reason, failure.to_string()))
                }
            }
        }
    }

    /// The gate: what git objects say of the tree, held against the rules of the base commit.
    fn judge(&self, round: u32, left: Snapshot) -> Result<PermittedChange, Stop> {
        let Snapshot { change, ignored_files } = left;
        if ignored_files > 0 {
            tracing::info!(
                attempt.id = %self.job.assignment.attempt_id,
                "New files that the base's .gitignore names are left out of the change: {ignored_files}."
            );
        }
        if change.is_empty() {
            return Err(self.failed(Stage::Gate, FailureReason::NoChange, no_change(ignored_files)));
        }
        match change.permit(&self.rules, &self.spec.policy.limits) {
            Err(refused) => Err(self.refuse(round, &refused)?),
            Ok(permitted) => {
                let (files, omitted) = self.listed(round, file_records(&permitted))?;
                let change = ChangePermitted {
                    round,
                    candidate: permitted.change_set().candidate().clone(),
                    files,
                    omitted,
                    patch_bytes: permitted.change_set().patch_bytes(),
                    ignored_files,
                };
                self.record(EventKind::ChangePermitted(change), &round.to_string())?;
                Ok(permitted)
            }
        }
    }

    async fn snapshot(&self) -> Result<Snapshot, Stop> {
        match self.tree.read(&self.reading()).await {
            Ok(taken) => Ok(taken),
            Err(SnapshotError::TooLarge(detail)) => {
                Err(self.failed(Stage::Gate, FailureReason::ChangeTooLarge, detail))
            }
            Err(error) => Err(anyhow::Error::new(error).context("the agent's tree cannot be read").into()),
        }
    }

    /// As many of `records` as an event can hold, and how many more there are. All of them are kept as an artifact
    /// then, so that nothing of what was touched is lost.
    fn listed<T: serde::Serialize>(&self, round: u32, mut records: Vec<T>) -> Result<(Vec<T>, u64), Stop> {
        let fitting = fitting(&records);
        let omitted = (records.len() - fitting) as u64;
        if omitted > 0 {
            let file = self.folder.private().join("changes.json");
            let json = serde_json::to_vec_pretty(&records).context("the list of changes")?;
            std::fs::write(&file, json).with_context(|| format!("{}", file.display()))?;
            self.keep_artifact("log", &format!("round-{round}/changes.json"), &file)?;
            records.truncate(fitting);
        }
        Ok((records, omitted))
    }

    fn refuse(&self, round: u32, refused: &Refused) -> Result<Stop, Stop> {
        let all: Vec<ViolationRecord> = refused
            .violations
            .iter()
            .map(|violation| ViolationRecord {
                path: violation.path.clone(),
                kind: word(&violation.kind),
                rule: violation.rule.as_ref().map(ToString::to_string),
                message: violation.message.clone(),
            })
            .collect();
        let first = refused.violations.first().map(ToString::to_string).unwrap_or_default();
        let detail = match refused.violations.len() {
            1 => first,
            more => format!("{first}; and {} more", more - 1),
        };
        let (violations, omitted) = self.listed(round, all)?;
        let violated = PolicyViolated { round, violations, omitted };
        self.record(EventKind::PolicyViolated(violated), &round.to_string())?;
        Ok(self.failed(Stage::Gate, refused.reason(), detail))
    }

    async fn run_checks(&self, round: u32, change: &PermittedChange) -> Result<Vec<Checked>, Stop> {
        self.say(&format!("running the checks of round {round}"));
        let name = format!("round-{round}");
        let checked = self.checks.run(change.change_set().candidate(), &name, &self.bounds).await;
        self.record_network()?;
        let checked = checked.map_err(|error| self.stop_of_checks(error))?;
        self.record_checks(round, &checked)?;
        Ok(checked)
    }

    /// Runs the checks once more where the change touches files that steer them: with these as the base has them, so
    /// that the result does not rest on the change's own measure alone.
    async fn check_with_files_of_base(
        &self,
        round: u32,
        change: &PermittedChange,
    ) -> Result<Vec<Checked>, Stop> {
        let paths = change.check_files();
        if paths.is_empty() || self.spec.policy.invariants.is_empty() {
            return Ok(Vec::new());
        }
        self.say(&format!("running the checks of round {round} with the base's configuration"));
        let (repository, base) = (self.repository.clone(), self.job.assignment.base_commit.clone());
        let (candidate, provenance) =
            (change.change_set().candidate().clone(), self.job.provenance(&self.task));
        let made = tokio::task::spawn_blocking(move || {
            with_files_of_base(&repository, &base, &candidate, &paths, &provenance)
        });
        let commit = made.await.expect("git is called without a panic").context("the base's files")?;
        let folder = format!("round-{round}-with-base-files");
        let checked = self.checks.run(&commit, &folder, &self.bounds).await;
        self.record_network()?;
        let checked = checked.map_err(|error| self.stop_of_checks(error))?;
        for (index, one) in checked.iter().enumerate().filter(|(_, one)| one.log.exists()) {
            self.keep_artifact("log", &format!("{folder}/check-{}.log", index + 1), &one.log)?;
        }
        Ok(checked)
    }

    /// What of the second look goes back to the agent: nothing, unless the policy is strict.
    fn blocking(&self, with_base_files: &[Checked]) -> Result<Vec<FailedCheck>, Stop> {
        if !self.spec.policy.strict_checks {
            return Ok(Vec::new());
        }
        let mut blocking = failed(with_base_files)?;
        for check in &mut blocking {
            check.name.push_str(", with the check configuration of the base");
        }
        Ok(blocking)
    }

    /// Writes an event for each check, and keeps its log.
    pub(super) fn record_checks(&self, round: u32, checked: &[Checked]) -> Result<(), Stop> {
        for (index, one) in checked.iter().enumerate() {
            let report = one.report.clone();
            let passed = report.outcome.is_pass();
            if one.log.exists() {
                let folder = if round == 0 { "base".to_owned() } else { format!("round-{round}") };
                self.keep_artifact("log", &format!("{folder}/check-{}.log", index + 1), &one.log)?;
            }
            let checked = InvariantChecked {
                round,
                name: report.name,
                check: report.check,
                commit: report.commit,
                outcome: report.outcome.to_string(),
                duration_ms: report.duration_ms,
                log: report.log,
                log_bytes: report.log_bytes,
            };
            let step = format!("{round} {}", checked.name);
            let kind = if passed { EventKind::InvariantPassed } else { EventKind::InvariantFailed };
            self.record(kind(checked), &step)?;
        }
        Ok(())
    }

    /// Makes the candidate durable, so that publishing needs nothing of this process any more.
    fn store(
        &self,
        change: PermittedChange,
        checked: &[Checked],
        with_base_files: &[Checked],
        said: AgentReport,
    ) -> Result<StageOutcome, Stop> {
        let reports = |checked: &[Checked]| checked.iter().map(|one| one.report.clone()).collect();
        let (reports, second) = (reports(checked), reports(with_base_files));
        let verified = change.verify(&self.spec.policy, reports, second).map_err(|unproven| {
            anyhow::anyhow!("the checks prove nothing: {}", unproven.problems.join("; "))
        })?;
        let folder = self.folder.candidate();
        std::fs::create_dir_all(&folder).context("the candidate's folder")?;
        let base = self.job.assignment.base_commit.clone();
        let objects = folder.join(PACK_FILE);
        let size =
            pack(&self.repository, &base, verified.commit(), &objects).context("the candidate's objects")?;
        self.keep_objects(&objects, size)?;
        let manifest = Manifest {
            version: candidate::VERSION,
            attempt: self.job.assignment.attempt_id.clone(),
            base,
            candidate: verified.commit().clone(),
            policy: self.spec.digests.policy.clone(),
            operator_policy: self.spec.digests.operator_policy.clone(),
            reports: verified.reports().to_vec(),
            with_base_files: verified.with_base_files().to_vec(),
            model: said.model.clone(),
            usage: self.usage.clone(),
            sandbox: self.sandbox.clone(),
        };
        let words = Words { agent: said, network: self.network.reported() };
        words.write(&folder).context("the words of the agent")?;
        self.keep_artifact("words", "words.json", &Words::file(&folder))?;
        let digest = manifest.write(&folder).context("the candidate's manifest")?;
        self.keep_artifact("manifest", "manifest.json", &Manifest::file(&folder))?;
        let candidate = verified.commit().clone();
        let done = ChangeVerified { candidate: candidate.clone(), manifest: digest.clone() };
        self.record(EventKind::ChangeVerified(done), "")?;
        self.settings.fault.reach("after_verified");
        Ok(StageOutcome::Verified { candidate, manifest: digest })
    }

    /// In a pod the objects go with the pod, so the control plane keeps them as well.
    fn keep_objects(&self, objects: &Path, size: u64) -> Result<(), Stop> {
        if !self.folder.is_in_pod() {
            return Ok(());
        }
        if size > LARGEST_ARTIFACT {
            tracing::warn!(
                attempt.id = %self.job.assignment.attempt_id,
                "The objects of the candidate have {size} bytes, more than the control plane keeps: if publishing \
                 has to wait for the forge, the attempt is lost and the task has to be done again."
            );
            return Ok(());
        }
        self.keep_artifact("pack", PACK_FILE, objects)
    }

    fn keep_agent_logs(&self, round: u32) -> Result<(), Stop> {
        for log in CommandAgent::logs(&self.folder.agent(), round) {
            let name = log.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if log.exists() {
                self.keep_artifact("log", &format!("agent/{name}"), &log)?;
            }
        }
        let transcript = self.folder.transcript();
        if transcript.exists() {
            self.keep_artifact("transcript", &format!("transcript-{round}.jsonl"), &transcript)?;
        }
        Ok(())
    }
}

fn in_one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

fn no_change(ignored_files: u64) -> String {
    let unchanged = "the agent left every file as it was";
    match ignored_files {
        0 => unchanged.to_owned(),
        1 => {
            format!("{unchanged}; 1 new file is left out of a change because the base's .gitignore names it")
        }
        count => format!(
            "{unchanged}; {count} new files are left out of a change because the base's .gitignore names them"
        ),
    }
}

/// What the agent is told of the checks that did not pass.
fn failed(checked: &[Checked]) -> Result<Vec<FailedCheck>, Stop> {
    let not_passed = checked.iter().filter(|one| !one.report.outcome.is_pass());
    let tell = |one: &Checked| -> Result<FailedCheck, Stop> {
        let output = if one.log.exists() {
            one.excerpt().context("a check's log")?.to_string()
        } else {
            String::new()
        };
        Ok(FailedCheck { name: one.report.name.clone(), outcome: one.report.outcome.to_string(), output })
    };
    not_passed.map(tell).collect()
}

fn file_records(permitted: &PermittedChange) -> Vec<FileRecord> {
    let record = |(change, verdict): (&model::change::Change, &model::Verdict)| FileRecord {
        path: change.path.clone(),
        change: change.verb().to_owned(),
        added_lines: change.added_lines,
        removed_lines: change.removed_lines,
        rule: verdict.rules().iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    };
    permitted.files().map(record).collect()
}

/// How many of `records`, from the first, fit into a list of an event.
fn fitting(records: &[impl serde::Serialize]) -> usize {
    // The log takes 256 KiB for an event; the rest of it is small.
    const LIST_BYTES: usize = 192 << 10;
    let mut bytes = 0;
    let is_within = |record: &&_| {
        bytes += serde_json::to_vec(record).map_or(LIST_BYTES, |json| json.len() + 1);
        bytes <= LIST_BYTES
    };
    records.iter().take_while(is_within).count()
}

/// The word by which a value of a closed list is serialised.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::fitting;

    #[test]
    fn what_an_event_cannot_hold_is_left_out_whole() {
        let short = vec!["x".repeat(100); 50];
        assert_eq!(fitting(&short), 50);
        let long = vec!["x".repeat(1000); 5000];
        let fits = fitting(&long);
        assert!(fits > 150 && fits * 1003 <= 192 << 10, "{fits}");
        assert_eq!(fitting(&["x".repeat(300 << 10)]), 0);
    }
}
