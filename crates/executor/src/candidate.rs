//! What `work` hands to `publish`: the candidate's objects, and a manifest of what was found out about them.
//!
//! The manifest is a claim of the zone that agents run in. `publish` uses from it only what it cannot measure
//! itself (the reports of the checks, the agent's note, the cost) and holds the rest against the objects.

use std::io;
use std::path::{Path, PathBuf};

use model::change::InvariantReport;
use model::event::{NetworkRequest, SandboxReported, Usage};
use model::{AttemptId, CommitId, Digest};
use serde::{Deserialize, Serialize};

use crate::agent::AgentReport;
use crate::folder::write_durably;

/// `candidate/manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of this form.
    pub version: u32,
    /// The attempt.
    pub attempt: AttemptId,
    /// The commit that the candidate is made on.
    pub base: CommitId,
    /// The candidate: one commit on `base`.
    pub candidate: CommitId,
    /// SHA-256 of the policy that judged it.
    pub policy: Digest,
    /// SHA-256 of the operator's policy, if there is one.
    pub operator_policy: Option<Digest>,
    /// What every invariant showed at the candidate.
    pub reports: Vec<InvariantReport>,
    /// What the invariants showed with the files that steer them as the base has them; empty when none is changed.
    #[serde(default)]
    pub with_base_files: Vec<InvariantReport>,
    /// The model that did the work, as its provider names it.
    pub model: Option<String>,
    /// What all rounds cost.
    pub usage: Usage,
    /// The walls within which everything foreign ran.
    pub sandbox: SandboxReported,
}

/// What the agent said, and what commands asked of the network: words that others chose, and that prove nothing.
///
/// They are no part of the manifest. It is known by its digest, so that nothing can be taken out of it any more, and whoever
/// publishes knows secrets that the stage which wrote it did not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Words {
    /// What the agent said in the end.
    pub agent: AgentReport,
    /// What commands asked of the network.
    pub network: Vec<NetworkRequest>,
}

impl Words {
    /// Writes them. To be called before the manifest, which completes the folder.
    pub fn write(&self, candidate: &Path) -> io::Result<()> {
        write_durably(&Self::file(candidate), &serde_json::to_vec_pretty(self)?)
    }

    /// Reads them; `None` when they were lost on the way, or are none. Nothing depends on them.
    pub fn read(candidate: &Path) -> Option<Self> {
        std::fs::read(Self::file(candidate)).ok().and_then(|bytes| Self::parse(&bytes))
    }

    /// Reads the bytes of a file.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// The most bytes that those of another zone may have.
    pub(crate) const LARGEST: u64 = 1 << 20;

    /// `words.json` in the folder of the candidate.
    pub fn file(candidate: &Path) -> PathBuf {
        candidate.join("words.json")
    }
}

/// The form that this version writes and reads.
pub const VERSION: u32 = 2;

impl Manifest {
    /// Writes the manifest last: a candidate folder that has one is complete. Returns its digest.
    pub fn write(&self, candidate: &Path) -> io::Result<Digest> {
        let bytes = serde_json::to_vec_pretty(self)?;
        write_durably(&Self::file(candidate), &bytes)?;
        Ok(Digest::of(&bytes))
    }

    /// Reads the manifest; `None` when there is no complete candidate.
    pub fn read(candidate: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(Self::file(candidate)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
            Ok(bytes) => Self::parse(&bytes).map(Some),
        }
    }

    /// Reads the bytes of a manifest.
    pub fn parse(bytes: &[u8]) -> io::Result<Self> {
        let manifest: Self = serde_json::from_slice(bytes)?;
        if manifest.version == VERSION {
            Ok(manifest)
        } else {
            Err(io::Error::other(format!("a manifest of version {} is not known", manifest.version)))
        }
    }

    /// The most bytes that a manifest of another zone may have.
    pub(crate) const LARGEST: u64 = 8 << 20;

    /// `manifest.json` in the folder of the candidate.
    pub fn file(candidate: &Path) -> PathBuf {
        candidate.join("manifest.json")
    }
}
