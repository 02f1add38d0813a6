//! Reading the three documents from a commit: from its objects, never from a working tree.

use model::change::Mode;
use model::documents::{Contract, Document, Documents, Problems, TargetSpec};
use model::{CommitId, RepoPath};

use crate::git::GitError;
use crate::repository::Repository;

/// The folder of the documents in a target repository.
pub const FOLDER: &str = ".leviathan";
/// The contract's path.
pub const CONTRACT: &str = ".leviathan/contract.yaml";
/// The backlog's path.
pub const BACKLOG: &str = ".leviathan/backlog.yaml";
/// The policy's path.
pub const POLICY: &str = ".leviathan/policy.yaml";

/// No document may be larger; its size is asked for before it is read.
const LARGEST_DOCUMENT: u64 = 1 << 20;

/// What the operator registered for the target, outside its repository.
#[derive(Debug, Clone, Copy, Default)]
pub struct Registered<'a> {
    /// The contract. It is used when the commit holds none, and one that the commit holds must agree with it.
    pub contract: Option<Document<'a>>,
    /// The operator's policy, which can only tighten the repository's.
    pub policy: Option<Document<'a>>,
    /// The backlog, for a commit that holds none.
    pub backlog: Option<Document<'a>>,
}

/// Why there is no specification of the target.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Git failed.
    #[error(transparent)]
    Git(#[from] GitError),
    /// The documents are wrong; every problem with its place, one a line.
    #[error("{0}")]
    Problems(Problems),
    /// A document is a symbolic link or the like; following it would read something else.
    #[error("`{path}` is not an ordinary file in commit {commit}; make it one")]
    NotAFile {
        /// The document.
        path: &'static str,
        /// The commit.
        commit: CommitId,
    },
    /// The contract in the repository leads elsewhere than the registered one. Following it would let whoever can
    /// push to the repository choose where the operator's credentials are used.
    #[error(
        "`{field}` is `{found}` in {CONTRACT} of commit {commit}, but the target is registered with `{registered}`; \
         correct the file, or register the target anew with `leviathanctl targets-register`"
    )]
    OtherContract {
        /// The field that differs.
        field: &'static str,
        /// What the repository says.
        found: String,
        /// What the operator registered.
        registered: String,
        /// The commit.
        commit: CommitId,
    },
    /// A document is larger than 1 MiB.
    #[error("`{path}` has {size} bytes; at most {LARGEST_DOCUMENT} are read")]
    TooLarge {
        /// The document.
        path: &'static str,
        /// Its size in bytes.
        size: u64,
    },
}

/// One document of a commit, as its objects hold it.
pub(crate) struct Stored {
    pub(crate) mode: Mode,
    pub(crate) content: Vec<u8>,
}

/// Reads and cross-checks the three documents of `commit`.
pub fn read(
    repository: &Repository,
    commit: &CommitId,
    registered: Registered<'_>,
) -> Result<TargetSpec, SpecError> {
    let stored = |path| stored(repository, commit, path).map(|found| found.map(|stored| stored.content));
    let (contract, backlog, policy) = (stored(CONTRACT)?, stored(BACKLOG)?, stored(POLICY)?);
    let contract = match (&contract, registered.contract) {
        (None, Some(registered)) => registered,
        (found, _) => Document { file: CONTRACT, content: found.as_deref() },
    };
    let registered_backlog = registered.backlog.filter(|_| backlog.is_none());
    let documents = Documents {
        contract,
        backlog: registered_backlog.unwrap_or(Document { file: BACKLOG, content: backlog.as_deref() }),
        policy: Document { file: POLICY, content: policy.as_deref() },
        operator_policy: registered.policy,
    };
    let mut spec = TargetSpec::parse(commit.clone(), &documents).map_err(SpecError::Problems)?;
    spec.backlog_is_registered = registered_backlog.is_some();
    match registered.contract {
        Some(registered) => agree(&spec, registered).map(|()| spec),
        None => Ok(spec),
    }
}

/// Where a target is, is the operator's word: the repository may only repeat it.
fn agree(spec: &TargetSpec, registered: Document<'_>) -> Result<(), SpecError> {
    let content = registered.content.unwrap_or_default();
    let registered = Contract::parse(registered.file, content).map_err(SpecError::Problems)?;
    let fields = [
        ("target_id", spec.contract.target_id.to_string(), registered.target_id.to_string()),
        ("repo_url", spec.contract.repo_url.over_https(), registered.repo_url.over_https()),
        ("default_branch", spec.contract.default_branch.to_string(), registered.default_branch.to_string()),
    ];
    match fields.into_iter().find(|(_, found, registered)| found != registered) {
        None => Ok(()),
        Some((field, found, registered)) => {
            Err(SpecError::OtherContract { field, found, registered, commit: spec.commit.clone() })
        }
    }
}

/// One document of a commit; none when it is not there.
pub(crate) fn stored(
    repository: &Repository,
    commit: &CommitId,
    path: &'static str,
) -> Result<Option<Stored>, SpecError> {
    let repo_path = RepoPath::parse(path).expect("the documents have valid paths");
    let Some(entry) = repository.entry(commit, &repo_path)? else { return Ok(None) };
    if !entry.mode.is_file() {
        return Err(SpecError::NotAFile { path, commit: commit.clone() });
    }
    let sizes = repository.sizes(std::slice::from_ref(&entry.object))?;
    match sizes.get(&entry.object) {
        Some(&size) if size > LARGEST_DOCUMENT => Err(SpecError::TooLarge { path, size }),
        Some(_) | None => {
            let content = repository.read_blob(&entry.object, LARGEST_DOCUMENT)?;
            Ok(Some(Stored { mode: entry.mode, content }))
        }
    }
}
