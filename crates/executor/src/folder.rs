//! The folder of one attempt on this machine: where its parts lie, and who may work in it.

use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use model::{AttemptId, Epoch};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// `<data>/attempts/<attempt_id>/`.
#[derive(Debug, Clone)]
pub struct AttemptFolder {
    root: PathBuf,
}

/// The right to work in an attempt's folder. It ends with the process, however that ends.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl AttemptFolder {
    /// The folder of `attempt` below the data folder. Nothing is made yet.
    pub fn new(data: &Path, attempt: &AttemptId) -> Self {
        Self { root: data.join("attempts").join(attempt.as_str()) }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What the supervisor tells the stages: the assignment and when the attempt began.
    pub fn assignment(&self) -> PathBuf {
        self.root.join("assignment.json")
    }

    /// Events of one epoch on their way to the control plane. What an older epoch did not send, nobody may.
    pub fn spool(&self, epoch: Epoch) -> PathBuf {
        self.root.join("spool").join(epoch.to_string())
    }

    /// The plain tree that the agent changes.
    pub fn tree(&self) -> PathBuf {
        self.root.join("tree")
    }

    /// What the work stage is at, in one line for people.
    pub fn activity(&self) -> PathBuf {
        self.root.join("activity")
    }

    /// HOME and TMPDIR of everything that runs in the agent's tree, and the agent's own papers.
    pub fn agent(&self) -> PathBuf {
        self.root.join("agent")
    }

    /// What passed between the agent and its model.
    pub fn transcript(&self) -> PathBuf {
        self.root.join("transcript.jsonl")
    }

    /// Our own repository, which holds the candidate's objects and borrows the mirror's.
    pub fn repository(&self) -> PathBuf {
        self.root.join("repository.git")
    }

    /// What `work` hands to `publish`.
    pub fn candidate(&self) -> PathBuf {
        self.root.join("candidate")
    }

    /// The trees in which checks run.
    pub fn checks(&self) -> PathBuf {
        self.root.join("checks")
    }

    /// The repository in which `publish` receives the candidate.
    pub fn publishing(&self) -> PathBuf {
        self.root.join("publish.git")
    }

    /// Finished files to upload, as `<kind>/<name>`.
    pub fn artifacts(&self) -> PathBuf {
        self.root.join("artifacts")
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
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.root)
    }

    fn open_lock(&self, name: &str) -> io::Result<File> {
        File::options().create(true).truncate(false).write(true).open(self.root.join(name))
    }

    fn lock_file(&self) -> PathBuf {
        self.root.join("lock")
    }
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
