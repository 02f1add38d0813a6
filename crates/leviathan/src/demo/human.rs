//! The human's part of the demo, by the commands that a human would type.
//!
//! Leviathan itself never merges; the program cannot. What happens here is `git` in an ordinary clone, as in any
//! terminal, and only because the user asked for it with `--merge`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use super::sample;

/// Makes the bare repository `origin` with the sample as its first commit.
pub(super) fn make_repository(origin: &Path, with_model: bool) -> anyhow::Result<()> {
    let clone = tempfile::tempdir().context("no temporary folder can be made")?;
    git(clone.path(), &["init", "--quiet", "--bare", "--initial-branch=main", text(origin)?])?;
    git(clone.path(), &["clone", "--quiet", text(origin)?, "."])?;
    git(clone.path(), &["checkout", "--quiet", "-B", "main"])?;
    for file in sample::files(origin, with_model) {
        let path = clone.path().join(file.path);
        let folder = path.parent().context("every sample file lies in a folder")?;
        std::fs::create_dir_all(folder)?;
        std::fs::write(&path, file.content).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    git(clone.path(), &["add", "--all"])?;
    git(clone.path(), &["commit", "--quiet", "--message", "A tea timer, and four tasks for it"])?;
    git(clone.path(), &["push", "--quiet", "origin", "main"])
}

/// Merges `branch` into `main`, as the commands that the demo prints do.
pub(super) fn merge(origin: &Path, branch: &str) -> anyhow::Result<()> {
    let clone = tempfile::tempdir().context("no temporary folder can be made")?;
    git(clone.path(), &["clone", "--quiet", text(origin)?, "."])?;
    git(clone.path(), &["merge", "--quiet", "--no-ff", "--no-edit", &format!("origin/{branch}")])?;
    git(clone.path(), &["push", "--quiet", "origin", "HEAD:main"])
}

/// The same merge as commands to type.
pub(super) fn merge_commands(origin: &Path, branch: &str) -> [String; 3] {
    [
        format!("git clone {} merge-it && cd merge-it", origin.display()),
        format!("git merge --no-ff origin/{branch}"),
        "git push origin main".to_owned(),
    ]
}

fn git(folder: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    // A name is needed to commit; the user's own, where one is configured, comes first.
    let output = Command::new("git")
        .args(["-c", "user.useConfigOnly=false"])
        .args(arguments)
        .current_dir(folder)
        .env("GIT_TERMINAL_PROMPT", "0")
        .envs(missing_identity(folder))
        .output()
        .context("git cannot be started; install git and try again")?;
    if !output.status.success() {
        bail!("git {} failed: {}", arguments[0], String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn missing_identity(folder: &Path) -> Vec<(&'static str, &'static str)> {
    let is_configured = Command::new("git")
        .args(["config", "user.email"])
        .current_dir(folder)
        .output()
        .is_ok_and(|output| output.status.success());
    if is_configured {
        return Vec::new();
    }
    vec![
        ("GIT_AUTHOR_NAME", "you"),
        ("GIT_AUTHOR_EMAIL", "you@localhost"),
        ("GIT_COMMITTER_NAME", "you"),
        ("GIT_COMMITTER_EMAIL", "you@localhost"),
    ]
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not valid UTF-8; choose another --dir", path.display()))
}
