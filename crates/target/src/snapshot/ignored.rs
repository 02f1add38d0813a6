//! Which new paths the repository itself ignores, by the `.gitignore` files of its base commit.
//!
//! Git answers, but from a folder that holds nothing except those files: neither the agent's edits of them, nor
//! the ones that its tools leave, nor anything else in its tree has a say. What is ignored never reaches the
//! candidate commit, and the checks run on an export of that commit: a path that is wrongly ignored can only be
//! missing, never pass unseen.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use model::RepoPath;
use model::change::Mode;

use super::folders_of;
use crate::git::{GitError, ORDINARY_OUTPUT, failed};
use crate::repository::{Repository, TreeEntry};

/// A file of rules that is larger is no file of rules.
const RULES_BYTES: u64 = 1 << 20;

/// Those of `new`, none of which the base has, that the base's own rules ignore.
pub(super) fn ignored(
    repository: &Repository,
    base: &[TreeEntry],
    new: &[&[u8]],
) -> Result<HashSet<Vec<u8>>, GitError> {
    let rules = rules_for(base, new);
    if rules.is_empty() {
        return Ok(HashSet::new());
    }
    let folder = tempfile::tempdir_in(repository.dir()).map_err(|e| failed("check-ignore", e))?;
    for (path, entry) in rules {
        let content = repository.read_blob(&entry.object, RULES_BYTES)?;
        write(&folder.path().join(path.as_str()), &content).map_err(|e| failed("check-ignore", e))?;
    }
    ask(repository, folder.path(), new)
}

/// The files of rules that lie beside or above a new path.
fn rules_for<'a>(base: &'a [TreeEntry], new: &[&[u8]]) -> Vec<(RepoPath, &'a TreeEntry)> {
    let folders: HashSet<&[u8]> = new.iter().flat_map(|path| folders_of(path)).collect();
    let governs = |path: &[u8]| match path.strip_suffix(b".gitignore") {
        Some([]) => !new.is_empty(),
        Some([folder @ .., b'/']) => folders.contains(folder),
        Some(_) | None => false,
    };
    base.iter()
        // Git follows no link to its rules.
        .filter(|entry| matches!(entry.mode, Mode::Regular | Mode::Executable) && governs(&entry.path))
        .filter_map(|entry| Some((RepoPath::from_bytes(&entry.path).ok()?, entry)))
        .collect()
}

fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::write(path, content)
}

fn ask(repository: &Repository, folder: &Path, paths: &[&[u8]]) -> Result<HashSet<Vec<u8>>, GitError> {
    // The prefix keeps git from reading a name that begins with `:` as a pattern.
    const PREFIX: &[u8] = b"./";
    let mut question = Vec::new();
    for path in paths {
        question.extend([PREFIX, path, b"\0"].concat());
    }
    let (answer, ended) = repository
        .command("check-ignore")
        .in_work_tree(folder)
        .args(["--no-index", "-z", "--stdin"])
        .outcome_of(&question, ORDINARY_OUTPUT)?;
    match ended.status.code() {
        // 1: none of them is ignored.
        Some(0 | 1) => Ok(answer
            .split(|byte| *byte == 0)
            .filter_map(|path| path.strip_prefix(PREFIX))
            .map(<[u8]>::to_vec)
            .collect()),
        Some(_) | None => Err(ended.into_error("check-ignore")),
    }
}
