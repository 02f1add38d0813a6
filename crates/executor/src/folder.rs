//! The places of one attempt: where its parts lie, and who may work in them.
//!
//! On one machine all of them are one folder below the data folder. In a pod they are volumes, of which each
//! container has only those that its stage needs: `given` is what trusted stages tell the others and the work
//! zone can only read, `handover` is what the work zone leaves for them, and the rest is a stage's own.

use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use model::{AttemptId, Epoch};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::toolbox::Tree;

/// The places of one attempt, as one process sees them.
#[derive(Debug, Clone)]
pub struct AttemptFolder {
    ground: Ground,
    private: PathBuf,
    given: PathBuf,
    handover: PathBuf,
}

/// What the places are part of.
#[derive(Debug, Clone)]
enum Ground {
    /// The data folder of this machine.
    Machine { data: PathBuf },
    /// The folder under which a pod's volumes are mounted.
    Pod { volumes: PathBuf, part: PodPart },
}

/// Which part of a pod a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodPart {
    /// Takes the assignment and fetches.
    Prepare,
    /// Brings to the control plane what the work zone leaves.
    Courier,
    /// The work zone.
    Work,
    /// Publishes, and records the end.
    Finish,
}

/// The right to work in an attempt's folder. It ends with the process, however that ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl AttemptFolder {
    /// `<data>/attempts/<attempt_id>/` on this machine. Nothing is made yet.
    pub fn new(data: &Path, attempt: &AttemptId) -> Self {
        let folder = data.join("attempts").join(attempt.as_str());
        let ground = Ground::Machine { data: data.to_owned() };
        Self { ground, private: folder.clone(), given: folder.clone(), handover: folder }
    }

    /// The volumes of a pod, mounted below `volumes`, for one part of it.
    pub fn in_pod(volumes: &Path, part: PodPart) -> Self {
        let private = match part {
            PodPart::Prepare | PodPart::Courier => "given",
            PodPart::Work => "scratch",
            PodPart::Finish => "publishing",
        };
        Self {
            private: volumes.join(private),
            given: volumes.join("given"),
            handover: volumes.join("handover"),
            ground: Ground::Pod { volumes: volumes.to_owned(), part },
        }
    }

    /// What is this process's own, or on one machine the attempt's.
    pub fn private(&self) -> &Path {
        &self.private
    }

    /// What the work zone leaves for the trusted stages.
    pub fn handover(&self) -> &Path {
        &self.handover
    }

    /// The same for a stage that must not be led elsewhere by what it finds there.
    pub(crate) fn open_handover(&self) -> io::Result<Tree> {
        Tree::open(&self.handover)
    }

    /// The folder that holds the mirrors of targets.
    pub fn data(&self) -> &Path {
        match &self.ground {
            Ground::Machine { data } => data,
            Ground::Pod { .. } => &self.given,
        }
    }

    /// What is remembered of base commits; in a pod it is forgotten with it.
    pub fn baselines(&self) -> PathBuf {
        match &self.ground {
            Ground::Machine { data } => data.join("baselines"),
            Ground::Pod { .. } => self.private.join("baselines"),
        }
    }

    /// Whether these are the volumes of a pod.
    pub fn is_in_pod(&self) -> bool {
        matches!(self.ground, Ground::Pod { .. })
    }

    /// The variable that leads another process of ours to the same places.
    pub(crate) fn variable(&self) -> (&'static str, String) {
        let (name, path) = match &self.ground {
            Ground::Machine { data } => ("LEVIATHAN_DATA_DIR", data),
            Ground::Pod { volumes, .. } => ("LEVIATHAN_POD_DIR", volumes),
        };
        (name, path.to_string_lossy().into_owned())
    }

    /// In a pod: where `prepare` puts our own program for the image that the agent works in.
    pub fn program(&self) -> Option<PathBuf> {
        match &self.ground {
            Ground::Machine { .. } => None,
            Ground::Pod { volumes, .. } => Some(volumes.join("program").join("leviathan")),
        }
    }

    /// What the trusted stages tell the others: the assignment and when the attempt began.
    pub fn assignment(&self) -> PathBuf {
        self.given.join("assignment.json")
    }

    /// In a pod: what `prepare` decided, which only it can have written.
    pub(crate) fn prepared(&self) -> PathBuf {
        self.given.join("prepared.json")
    }

    /// Events of one epoch on their way to the control plane. What an older epoch did not send, nobody may. In a
    /// pod each part has its own, so that what the work zone says can be told from what trusted stages say.
    pub fn spool(&self, epoch: Epoch) -> PathBuf {
        match &self.ground {
            Ground::Machine { .. } => self.handover.join("spool").join(epoch.to_string()),
            Ground::Pod { part: PodPart::Work, .. } => self.handover.join(work_spool(epoch)),
            Ground::Pod { part: PodPart::Prepare | PodPart::Courier | PodPart::Finish, .. } => {
                self.private.join("spool").join(epoch.to_string())
            }
        }
    }

    /// The plain tree that the agent changes.
    pub fn tree(&self) -> PathBuf {
        self.private.join("tree")
    }

    /// What the work stage is at, in one line for people.
    pub fn activity(&self) -> PathBuf {
        self.handover.join(ACTIVITY)
    }

    /// Whether an operator has paused the target, as the executor last heard: [`PAUSED_YES`] or anything else.
    pub fn paused(&self) -> PathBuf {
        self.handover.join(PAUSED)
    }

    /// HOME and TMPDIR of everything that runs in the agent's tree, and the agent's own papers.
    pub fn agent(&self) -> PathBuf {
        self.private.join("agent")
    }

    /// What passed between the agent and its model.
    pub fn transcript(&self) -> PathBuf {
        self.private.join("transcript.jsonl")
    }

    /// Our own repository, which holds the candidate's objects and borrows the mirror's.
    pub fn repository(&self) -> PathBuf {
        self.private.join("repository.git")
    }

    /// What `work` hands to `publish`. In a pod `finish` takes it over into a place of its own first.
    pub fn candidate(&self) -> PathBuf {
        match &self.ground {
            Ground::Pod { part: PodPart::Finish, .. } => self.private.join(CANDIDATE),
            Ground::Machine { .. }
            | Ground::Pod { part: PodPart::Prepare | PodPart::Courier | PodPart::Work, .. } => {
                self.handover.join(CANDIDATE)
            }
        }
    }

    /// The trees in which checks run.
    pub fn checks(&self) -> PathBuf {
        self.private.join("checks")
    }

    /// The repository in which `publish` receives the candidate.
    pub fn publishing(&self) -> PathBuf {
        self.private.join("publish.git")
    }

    /// Finished files to upload, as `<kind>/<name>`.
    pub fn artifacts(&self) -> PathBuf {
        self.handover.join(ARTIFACTS)
    }

    /// In a pod: what the work stage came to.
    pub fn outcome(&self) -> PathBuf {
        self.handover.join(OUTCOME)
    }

    /// In a pod: says that a stage was told to stop, and which.
    pub fn interrupted(&self) -> PathBuf {
        self.handover.join(INTERRUPTED)
    }

    /// In a pod: appears when the work stage is to stop, because the attempt is not this pod's any more.
    pub fn stop(&self) -> PathBuf {
        self.handover.join(STOP)
    }

    /// Takes the right to work here, and makes the folder when it is missing. `None` when another process has it.
    pub fn lock(&self) -> io::Result<Option<FolderLock>> {
        self.make()?;
        let file = self.open_lock("lock")?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(FolderLock { _file: file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the right to run a stage here, and waits while a stage of a supervisor that died still ends.
    pub(crate) fn lock_stage(&self) -> io::Result<FolderLock> {
        let file = self.open_lock("stage.lock")?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(FolderLock { _file: file })
    }

    /// Whether some executor works here now.
    pub fn is_locked(&self) -> io::Result<bool> {
        let file = match File::options().write(true).open(self.lock_file()) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(false),
            Err(Errno::WOULDBLOCK) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// The folder is nobody else's: what agents and models said lies there.
    fn make(&self) -> io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.private)
    }

    fn open_lock(&self, name: &str) -> io::Result<File> {
        File::options().create(true).truncate(false).write(true).open(self.private.join(name))
    }

    fn lock_file(&self) -> PathBuf {
        self.private.join("lock")
    }
}

/// What the file [`PAUSED`] holds while the target is paused.
pub(crate) const PAUSED_YES: &str = "yes";

/// Names in the handover, which trusted stages open beneath it.
pub(crate) const ACTIVITY: &str = "activity";
pub(crate) const PAUSED: &str = "paused";
pub(crate) const ARTIFACTS: &str = "artifacts";
pub(crate) const CANDIDATE: &str = "candidate";
pub(crate) const OUTCOME: &str = "outcome.json";
pub(crate) const STOP: &str = "stop";
pub(crate) const INTERRUPTED: &str = "interrupted";
pub(crate) const ENDED: &str = "ended";

/// Where in the handover of a pod the work zone writes its events.
pub(crate) fn work_spool(epoch: Epoch) -> String {
    format!("spool/work/{epoch}")
}

/// Writes a file so that after a crash it is there whole or not at all.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let folder = path.parent().ok_or_else(|| io::Error::other("a file needs a folder"))?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_at_a_time_works_in_a_folder() {
        let data = tempfile::tempdir().unwrap();
        let folder = AttemptFolder::new(data.path(), &AttemptId::parse("attempt-1").unwrap());
        assert!(!folder.is_locked().unwrap());
        let lock = folder.lock().unwrap().unwrap();
        assert!(folder.is_locked().unwrap());
        assert!(folder.lock().unwrap().is_none());
        drop(lock);
        assert!(!folder.is_locked().unwrap());
        assert!(folder.lock().unwrap().is_some());
    }
}
