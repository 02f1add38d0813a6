//! Git as a person types it: with the person's own configuration, in an ordinary clone.
//!
//! Leviathan's own work never goes this way. It is for what the demo and the benchmarks do in a human's place: make
//! a repository, and merge when the user asked for it with `--merge`.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Runs `git ARGUMENTS` in `folder` and returns what it wrote.
pub(crate) fn git<S: AsRef<OsStr>>(folder: &Path, arguments: &[S]) -> anyhow::Result<String> {
    git_with_input(folder, arguments, |_| Ok(()))
}

/// The same, for a command that reads what `feed` writes.
pub(crate) fn git_with_input<S: AsRef<OsStr>>(
    folder: &Path,
    arguments: &[S],
    feed: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>,
) -> anyhow::Result<String> {
    let mut child = Command::new("git")
        .args(arguments)
        .current_dir(folder)
        .env("GIT_TERMINAL_PROMPT", "0")
        .envs(missing_identity(folder).iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("git cannot be started; install git and try again")?;
    let stdin = child.stdin.take().context("git takes no input")?;
    let mut stdin = std::io::BufWriter::new(stdin);
    let fed = feed(&mut stdin).and_then(|()| stdin.flush());
    drop(stdin);
    let output = child.wait_with_output().context("git did not end")?;
    let verb = arguments.first().map(|verb| verb.as_ref().to_string_lossy().into_owned()).unwrap_or_default();
    if !output.status.success() {
        bail!("git {verb} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    fed.with_context(|| format!("git {verb} did not read its input"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A name to commit under, where the user has configured none.
fn missing_identity(folder: &Path) -> &'static [(&'static str, &'static str)] {
    let is_configured = Command::new("git")
        .args(["config", "user.email"])
        .current_dir(folder)
        .output()
        .is_ok_and(|output| output.status.success());
    if is_configured {
        return &[];
    }
    &[
        ("GIT_AUTHOR_NAME", "you"),
        ("GIT_AUTHOR_EMAIL", "you@localhost"),
        ("GIT_COMMITTER_NAME", "you"),
        ("GIT_COMMITTER_EMAIL", "you@localhost"),
    ]
}
