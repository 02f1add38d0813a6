//! The human's part of the demo, by the commands that a human would type. Leviathan itself cannot merge; what
//! happens here is git in an ordinary clone, and only because the user asked for it.

use std::path::Path;

use anyhow::Context;

use super::sample;
use crate::plain_git::git;

/// Makes the bare repository `origin` with the sample as its first commit.
pub(super) fn make_repository(origin: &Path, with_model: bool) -> anyhow::Result<()> {
    let clone = tempfile::tempdir().context("no temporary folder can be made")?;
    let origin_text = text(origin)?;
    git(clone.path(), &["init", "--quiet", "--bare", "--initial-branch=main", origin_text])?;
    // The log of its refs says who merged, also where a merge leaves no commit of its own.
    git(origin, &["config", "core.logAllRefUpdates", "true"])?;
    git(clone.path(), &["clone", "--quiet", origin_text, "."])?;
    git(clone.path(), &["checkout", "--quiet", "-B", "main"])?;
    for file in sample::files(origin, with_model) {
        let path = clone.path().join(file.path);
        let folder = path.parent().context("every sample file lies in a folder")?;
        std::fs::create_dir_all(folder)?;
        std::fs::write(&path, file.content)
            .with_context(|| format!("{} cannot be written", path.display()))?;
    }
    git(clone.path(), &["add", "--all"])?;
    git(clone.path(), &["commit", "--quiet", "--message", "A tea timer, and four tasks for it"])?;
    git(clone.path(), &["push", "--quiet", "origin", "main"])?;
    Ok(())
}

/// Merges `branch` into `main`, as [`merge_commands`] do.
pub(super) fn merge(origin: &Path, branch: &str) -> anyhow::Result<()> {
    let clone = tempfile::tempdir().context("no temporary folder can be made")?;
    git(clone.path(), &["clone", "--quiet", text(origin)?, "."])?;
    git(clone.path(), &["merge", "--quiet", "--no-ff", "--no-edit", &format!("origin/{branch}")])?;
    git(clone.path(), &["push", "--quiet", "origin", "HEAD:main"])?;
    Ok(())
}

/// The merge as commands to type.
pub(super) fn merge_commands(origin: &Path, branch: &str) -> [String; 3] {
    [
        format!("git clone {} merge-it && cd merge-it", origin.display()),
        format!("git merge --no-ff origin/{branch}"),
        "git push origin main".to_owned(),
    ]
}

/// The backlog on the default branch.
pub(super) fn backlog(origin: &Path) -> anyhow::Result<String> {
    git(origin, &["show", "main:.leviathan/backlog.yaml"])
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not valid UTF-8; choose another --dir", path.display()))
}
