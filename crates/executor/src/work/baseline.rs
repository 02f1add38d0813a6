//! The invariants at the base commit, before anything is spent: a check that fails there cannot judge a change.

use std::path::PathBuf;

use anyhow::Context;
use model::change::InvariantReport;
use model::documents::{Network, Policy};
use model::{CommitId, Digest, FailureReason, Stage};
use serde::{Deserialize, Serialize};

use super::{Stop, Work};
use crate::contain::Walls;
use crate::folder::write_durably;

/// What is remembered of a base commit at which every invariant passed. A failure is not remembered: what is
/// missing on the machine may be there the next time.
#[derive(Serialize, Deserialize)]
struct Baseline {
    commit: CommitId,
    reports: Vec<InvariantReport>,
}

impl Work<'_> {
    /// Fails when an invariant already fails at the base commit, unless the policy turned this off.
    pub(super) async fn check_base(&self) -> Result<(), Stop> {
        let policy = &self.spec.policy;
        if !policy.baseline || policy.invariants.is_empty() || self.remembered().is_file() {
            return Ok(());
        }
        self.say("running the checks on the base commit");
        let base = &self.job.assignment.base_commit;
        let checked = self.checks.run(base, "base", &self.bounds).await;
        self.record_network()?;
        let checked = checked.map_err(|error| self.stop_of_checks(error))?;
        self.record_checks(0, &checked)?;
        match checked.iter().find(|one| !one.report.outcome.is_pass()) {
            None => self.remember(checked.into_iter().map(|one| one.report).collect()),
            Some(failed) => {
                let detail =
                    format!("the invariant `{}` {} at {base}", failed.report.name, failed.report.outcome);
                Err(self.failed(Stage::Prepare, FailureReason::InvariantFailedOnBase, detail))
            }
        }
    }

    fn remember(&self, reports: Vec<InvariantReport>) -> Result<(), Stop> {
        let file = self.remembered();
        let baseline = Baseline { commit: self.job.assignment.base_commit.clone(), reports };
        let write = || -> std::io::Result<()> {
            std::fs::create_dir_all(self.folder_of_baselines())?;
            write_durably(&file, &serde_json::to_vec_pretty(&baseline)?)
        };
        Ok(write().with_context(|| format!("{}", file.display()))?)
    }

    fn remembered(&self) -> PathBuf {
        let key = key(
            &self.job.assignment.base_commit,
            &self.spec.policy,
            &self.settings.environment,
            self.containment.walls(),
        );
        self.folder_of_baselines().join(format!("{key}.json"))
    }

    fn folder_of_baselines(&self) -> PathBuf {
        self.folder.baselines()
    }
}

/// Everything that the result depends on.
fn key(
    base: &CommitId,
    policy: &Policy,
    environment: &std::collections::BTreeMap<String, String>,
    walls: &Walls,
) -> Digest {
    let Network { setup, checks, agent: _ } = &policy.network;
    let parts = serde_json::json!([base, policy.setup, policy.invariants, environment, walls, setup, checks]);
    Digest::of(parts.to_string().as_bytes())
}
