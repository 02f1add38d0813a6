//! The bare mirror of a target on this machine: one per target, fetched by one process at a time.
//!
//! A mirror is a cache that can always be made again. A crash in the middle of a fetch leaves at most lock
//! files and unused packs; a mirror that git can no longer read is put aside and fetched anew. Attempts read it
//! through [`Repository::init_borrowing`] and write nothing into it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use model::{BranchName, CommitId, ObjectId, TargetId};
use rustix::fs::FlockOperation;

use crate::git::{Git, GitError, failed};
use crate::remote::Remote;
use crate::repository::{ObjectFormat, Repository, parse_object, unexpected};

/// The place of a target's mirror: `<data>/mirrors/<target_id>.git`. Opening it touches nothing.
#[derive(Debug, Clone)]
pub struct Mirror {
    git: Git,
    dir: PathBuf,
    lock: PathBuf,
}

/// Why a mirror does not hold what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// Git failed: the remote cannot be reached, refuses us, or sent what git does not accept.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The mirror's folder or lock could not be used.
    #[error("the mirror {} cannot be used: {source}", dir.display())]
    Folder {
        /// The mirror.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The remote has no such branch.
    #[error("the remote has no branch `{branch}`; check default_branch in contract.yaml")]
    NoBranch {
        /// The branch that was asked for.
        branch: BranchName,
    },
}

/// As many loose objects as git itself would tolerate before it cleans up.
const LOOSE_OBJECTS_TOLERATED: u64 = 6700;

impl Mirror {
    /// The mirror of `target` under the data folder `data`.
    pub fn of(git: &Git, data: &Path, target: &TargetId) -> Self {
        let mirrors = data.join("mirrors");
        Self {
            git: git.clone(),
            dir: mirrors.join(format!("{target}.git")),
            lock: mirrors.join(format!("{target}.lock")),
        }
    }

    /// The repository to read from, as the last fetch left it.
    pub fn repository(&self) -> Result<Repository, MirrorError> {
        if !self.dir.exists() {
            let problem = io::Error::new(io::ErrorKind::NotFound, "nothing was fetched into it yet");
            return Err(self.folder_error(problem));
        }
        Ok(Repository::open(&self.git, &self.dir)?)
    }

    /// Fetches `branch` and answers with the commit that it names now. Waits for another fetch of the same
    /// mirror. Makes the mirror when there is none, and again when it is damaged.
    pub fn fetch(&self, remote: &Remote, branch: &BranchName) -> Result<CommitId, MirrorError> {
        let lock = self.lock()?;
        let wanted = branch.to_ref();
        let tip = remote_ref(&self.git, remote, &wanted)?;
        let tip = tip.ok_or_else(|| MirrorError::NoBranch { branch: branch.clone() })?;
        self.bring(&lock, remote, &wanted, &tip)
    }

    /// Fetches the exact ref `name`; none when the remote has no such ref.
    pub fn fetch_ref(&self, remote: &Remote, name: &str) -> Result<Option<CommitId>, MirrorError> {
        let lock = self.lock()?;
        match remote_ref(&self.git, remote, name)? {
            None => Ok(None),
            Some(tip) => self.bring(&lock, remote, name, &tip).map(Some),
        }
    }

    /// Fetches the ref, and makes the mirror anew if the remote answers but the mirror cannot take it.
    fn bring(
        &self,
        lock: &File,
        remote: &Remote,
        name: &str,
        tip: &ObjectId,
    ) -> Result<CommitId, MirrorError> {
        if let Some(mirror) = self.usable()? {
            if let Some(commit) = current(&mirror, name, tip) {
                return Ok(commit);
            }
            match update_holding(&mirror, remote, name, Some(lock)) {
                Ok(commit) => {
                    pack_loose_objects(&mirror, LOOSE_OBJECTS_TOLERATED);
                    return Ok(commit);
                }
                Err(error) => tracing::warn!(
                    mirror.dir = %self.dir.display(), git.error = %error,
                    "the mirror could not be updated although its remote answers; it is fetched anew"
                ),
            }
        }
        self.replace(lock, remote, name, tip)
    }

    /// The mirror, cleaned of what a crash left; none when there is none that git can read.
    fn usable(&self) -> Result<Option<Repository>, MirrorError> {
        if !self.dir.exists() {
            return Ok(None);
        }
        remove_stale_locks(&self.dir).map_err(|source| self.folder_error(source))?;
        match Repository::open(&self.git, &self.dir) {
            Ok(mirror) => {
                mirror.restore_configuration()?;
                Ok(Some(mirror))
            }
            Err(error) => {
                tracing::warn!(
                    mirror.dir = %self.dir.display(), git.error = %error,
                    "the mirror is damaged; it is fetched anew"
                );
                Ok(None)
            }
        }
    }

    /// Fetches into a new folder beside the mirror and puts it in its place when it is complete.
    fn replace(
        &self,
        lock: &File,
        remote: &Remote,
        name: &str,
        tip: &ObjectId,
    ) -> Result<CommitId, MirrorError> {
        let (new, old) = (self.dir.with_extension("new"), self.dir.with_extension("old"));
        for left_over in [&new, &old] {
            remove_folder(left_over).map_err(|source| self.folder_error(source))?;
        }
        let made = Repository::init(&self.git, &new, ObjectFormat::of(tip))?;
        let commit = update_holding(&made, remote, name, Some(lock))?;
        let exchange = || -> io::Result<()> {
            if self.dir.exists() {
                fs::rename(&self.dir, &old)?;
            }
            fs::rename(&new, &self.dir)?;
            remove_folder(&old)
        };
        exchange().map_err(|source| self.folder_error(source))?;
        Ok(commit)
    }

    /// Waits until no other process fetches into this mirror.
    fn lock(&self) -> Result<File, MirrorError> {
        let folder = self.lock.parent().unwrap_or(Path::new("/"));
        let take = || -> io::Result<File> {
            fs::create_dir_all(folder)?;
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&self.lock)?;
            rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
            Ok(file)
        };
        take().map_err(|source| self.folder_error(source))
    }

    fn folder_error(&self, source: io::Error) -> MirrorError {
        MirrorError::Folder { dir: self.dir.clone(), source }
    }
}

/// What the remote's ref names now; none when it does not exist.
pub(crate) fn remote_ref(git: &Git, remote: &Remote, name: &str) -> Result<Option<ObjectId>, GitError> {
    const VERB: &str = "ls-remote";
    let output = git
        .command_without_repository(VERB)
        .reaching(remote)
        .args(["--quiet", "--refs", "--", remote.address(), name])
        .output()?;
    let text = String::from_utf8_lossy(&output);
    // The pattern also matches refs that end with it.
    let exact = text.lines().filter_map(|line| line.split_once('\t')).find(|(_, found)| *found == name);
    exact.map(|(object, _)| parse_object(VERB, object.as_bytes())).transpose()
}

/// The commit that the ref names, if that is `tip` already and can be read: then nothing is to be fetched.
fn current(mirror: &Repository, name: &str, tip: &ObjectId) -> Option<CommitId> {
    // An error here is the beginning of a repair, not the end of the fetch.
    let commit = mirror.resolve(name).ok()??;
    let is_current = commit.as_str() == tip.as_str() && require_tree(mirror, &commit).is_ok();
    is_current.then_some(commit)
}

/// Fetches one ref to the same name, and proves that its commit and tree can be read.
pub(crate) fn update(repository: &Repository, remote: &Remote, name: &str) -> Result<CommitId, GitError> {
    update_holding(repository, remote, name, None)
}

fn update_holding(
    repository: &Repository,
    remote: &Remote,
    name: &str,
    lock: Option<&File>,
) -> Result<CommitId, GitError> {
    const VERB: &str = "fetch";
    let mut fetch = repository
        .command(VERB)
        .reaching(remote)
        .args(["--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--force", "--"])
        .arg(remote.address())
        .arg(format!("+{name}:{name}"));
    if let Some(lock) = lock {
        fetch = fetch.holding(lock.try_clone().map_err(|e| failed(VERB, e))?);
    }
    fetch.output()?;
    let commit = repository.resolve(name)?;
    let commit = commit.ok_or_else(|| unexpected("fetch", &format!("{name} does not name a commit")))?;
    require_tree(repository, &commit)?;
    Ok(commit)
}

/// An error unless the tree of the commit is here.
fn require_tree(repository: &Repository, commit: &CommitId) -> Result<(), GitError> {
    repository.command("cat-file").args(["-e", &format!("{commit}^{{tree}}")]).output().map(drop)
}

/// Small fetches leave loose objects, which make a mirror slow over the years. Nothing is thrown away: an
/// attempt may still read what no branch reaches any more. A failure costs only time.
fn pack_loose_objects(mirror: &Repository, tolerated: u64) {
    let packed = count_loose_objects(mirror).and_then(|count| {
        if count > tolerated {
            mirror.command("repack").args(["-d", "-q"]).output().map(drop)
        } else {
            Ok(())
        }
    });
    if let Err(error) = packed {
        tracing::warn!(mirror.dir = %mirror.dir().display(), git.error = %error, "the mirror was not packed");
    }
}

/// `<number> objects, <size> kilobytes`.
fn count_loose_objects(mirror: &Repository) -> Result<u64, GitError> {
    let output = mirror.command("count-objects").output()?;
    let text = String::from_utf8_lossy(&output);
    let count = text.split(' ').next().and_then(|number| number.parse().ok());
    count.ok_or_else(|| unexpected("count-objects", &text))
}

/// Removes the lock files that a killed git left. Only under our own lock, so that none is in use.
fn remove_stale_locks(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        let kind = entry.file_type()?;
        if kind.is_dir() && path.file_name().is_some_and(|name| name != "objects") {
            remove_stale_locks(&path)?;
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "lock") {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::Expected;

    #[test]
    fn a_git_that_outlives_its_caller_keeps_the_lock() {
        let data = tempfile::tempdir().unwrap();
        let git = Git::find().unwrap();
        let mirror = Mirror::of(&git, data.path(), &TargetId::parse("my-repo").unwrap());
        let lock = mirror.lock().unwrap();
        // Git creates `holds` and waits until `go` is there; meanwhile its caller lets go of the lock.
        let (holds, go) = (data.path().join("holds"), data.path().join("go"));
        let wait = format!("touch {}; while ! [ -e {} ]; do sleep 0.01; done", holds.display(), go.display());
        let invocation = git.command_without_repository("hold").option(format!("alias.hold=!{wait}"));
        let invocation = invocation.holding(lock.try_clone().unwrap());
        std::thread::scope(|scope| {
            let running = scope.spawn(|| invocation.output());
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
            while !holds.exists() && std::time::Instant::now() < deadline {
                std::thread::yield_now();
            }
            drop(lock);
            let file = File::open(&mirror.lock).unwrap();
            let taken = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
            fs::write(&go, "").unwrap();
            assert!(running.join().unwrap().is_ok());
            assert_eq!(taken, Err(rustix::io::Errno::WOULDBLOCK));
            rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        });
    }

    #[test]
    fn loose_objects_are_packed_and_none_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let git = Git::find().unwrap();
        let mirror = Repository::init(&git, &folder.path().join("mirror.git"), ObjectFormat::Sha1).unwrap();
        let (kept, unreached) =
            (mirror.write_blob(b"kept").unwrap(), mirror.write_blob(b"unreached").unwrap());
        mirror.set_ref("refs/tags/kept", &kept, &Expected::Absent).unwrap();
        pack_loose_objects(&mirror, 2);
        assert_eq!(count_loose_objects(&mirror).unwrap(), 2);
        pack_loose_objects(&mirror, 1);
        assert_eq!(count_loose_objects(&mirror).unwrap(), 1);
        for object in [kept, unreached] {
            assert!(mirror.read_blob(&object, 100).is_ok());
        }
    }
}
