//! The three documents of a repository's working folder, as they stand there, committed or not.

use std::fs;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use model::{CommitId, Document, Documents, Problems, TargetSpec};

/// Where the documents are, below the root of a repository. For `.` the path is `.leviathan` alone, so that
/// messages say `.leviathan/backlog.yaml`.
pub(crate) fn folder(directory: &Path) -> PathBuf {
    let root = if directory == Path::new(".") { Path::new("") } else { directory };
    root.join(".leviathan")
}

/// Reads and cross-checks the documents below `directory`. The outer error is a folder that cannot be read; the
/// inner one is for its human.
pub(crate) fn read(
    directory: &Path,
    operator_policy: Option<&Path>,
) -> anyhow::Result<Result<TargetSpec, Problems>> {
    if !directory.is_dir() {
        bail!("there is no folder {}", directory.display());
    }
    let folder = folder(directory);
    let contract = File::read(folder.join("contract.yaml"))?;
    let backlog = File::read(folder.join("backlog.yaml"))?;
    let policy = File::read(folder.join("policy.yaml"))?;
    let operator_policy = operator_policy.map(|path| File::read(path.to_owned())).transpose()?;
    let documents = Documents {
        contract: contract.document(),
        backlog: backlog.document(),
        policy: policy.document(),
        operator_policy: operator_policy.as_ref().map(File::document),
    };
    Ok(TargetSpec::parse(no_commit(), &documents))
}

/// A working folder is no commit: git's null id stands for it.
fn no_commit() -> CommitId {
    CommitId::parse("0".repeat(40)).expect("forty zeros are an object name")
}

/// A little more than a document may have, so that one that is too large is seen to be.
const MOST_BYTES: u64 = (1 << 20) + 1;

/// The beginning of a plain file. In a repository of strangers a document may be a link to something without end.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a plain file"));
    }
    let mut content = Vec::new();
    fs::File::open(path)?.take(MOST_BYTES).read_to_end(&mut content)?;
    Ok(content)
}

struct File {
    name: String,
    content: Option<Vec<u8>>,
}

impl File {
    fn read(path: PathBuf) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        match read_bounded(&path) {
            Ok(content) => Ok(Self { name, content: Some(content) }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self { name, content: None }),
            Err(error) => Err(error).with_context(|| format!("cannot read {name}")),
        }
    }

    fn document(&self) -> Document<'_> {
        Document { file: &self.name, content: self.content.as_deref() }
    }
}
