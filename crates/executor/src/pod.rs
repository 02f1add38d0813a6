//! An attempt in a pod: four stages in containers of their own, which share nothing but volumes.
//!
//! `prepare` takes the assignment, decides what is left to do, and fetches. `courier` runs beside the rest and
//! brings to the control plane what the work zone leaves in `handover`. `work` is the work zone: it holds the
//! agent's credential alone. `finish` publishes and records the end. Only `prepare` and `finish` hold the
//! credentials of the forge, and neither runs anything of the repository's or the agent's. What the work zone
//! wrote is opened beneath `handover` alone, up to a size, and without following a link.
//!
//! The steps are those of the supervisor on one machine; their order is the pod's.

pub mod courier;
pub mod finish;
pub mod prepare;
pub mod work;

use std::io;

use model::AttemptId;
use serde::{Deserialize, Serialize};

use crate::folder::{AttemptFolder, write_durably};
use crate::job::StageOutcome;

/// How a stage of a pod ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// 0: it is done, or the next stage goes on; 1: the attempt failed, and that is recorded; 2: it could not be
    /// carried out; 42: the attempt is no longer this pod's.
    pub code: u8,
    /// Why, in one line for people.
    pub why: String,
}

impl Ended {
    fn new(code: u8, why: impl Into<String>) -> Self {
        Self { code, why: why.into() }
    }

    /// The end of a stage that may have failed, which the log hears of.
    fn of(stage: &str, attempt: &AttemptId, ended: anyhow::Result<Self>) -> Self {
        ended.unwrap_or_else(|error| {
            let why = format!("the {stage} stage of attempt {attempt} could not be carried out: {error:#}");
            tracing::error!("{why}");
            Self::new(2, why)
        })
    }
}

/// What `prepare` decided. It lies where the work zone can only read, so `finish` may believe it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Prepared {
    /// The agent is to work.
    Fresh,
    /// An earlier pod's verified candidate is to be published.
    Verified,
    /// Nothing is left but to record this.
    Over(StageOutcome),
}

impl Prepared {
    fn write(&self, folder: &AttemptFolder) -> io::Result<()> {
        write_durably(&folder.prepared(), &serde_json::to_vec_pretty(self)?)
    }

    fn read(folder: &AttemptFolder) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(folder.prepared())?)?)
    }
}
