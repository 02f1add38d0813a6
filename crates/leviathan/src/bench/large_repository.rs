//! A repository of many files and commits, made in one stream.

use std::io::{self, Write};
use std::path::Path;

use crate::plain_git::{git, git_with_input};

/// Makes a bare repository at `dir` whose branch `main` has `files` files after `commits` commits, with `documents`
/// among them (path and content).
pub(super) fn make(
    dir: &Path,
    files: usize,
    commits: usize,
    documents: &[(&str, String)],
) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)?;
    git(dir, &["init", "--quiet", "--bare", "--initial-branch=main"])?;
    git_with_input(dir, &["fast-import", "--quiet"], |stream| write(stream, files, commits, documents))?;
    Ok(())
}

/// The path of a file by its number, from 0.
pub(super) fn path(number: usize) -> String {
    format!("src/part{:03}/module{:02}/file{number:05}.txt", number % 250, number / 250 % 20)
}

fn write(
    stream: &mut dyn Write,
    files: usize,
    commits: usize,
    documents: &[(&str, String)],
) -> io::Result<()> {
    begin_commit(stream, 0)?;
    for number in 0..files {
        file(stream, &path(number), &content(number, 0))?;
    }
    for (path, content) in documents {
        file(stream, path, content)?;
    }
    for commit in 1..commits {
        begin_commit(stream, commit)?;
        let number = commit * 7919 % files;
        file(stream, &path(number), &content(number, commit))?;
    }
    writeln!(stream, "done")
}

fn begin_commit(stream: &mut dyn Write, number: usize) -> io::Result<()> {
    let message = format!("Commit {number}");
    writeln!(stream, "commit refs/heads/main")?;
    writeln!(stream, "committer bench <bench@localhost> {} +0000", 1_700_000_000 + number)?;
    writeln!(stream, "data {}\n{message}", message.len())
}

fn file(stream: &mut dyn Write, path: &str, content: &str) -> io::Result<()> {
    writeln!(stream, "M 100644 inline {path}\ndata {}\n{content}", content.len())
}

fn content(number: usize, commit: usize) -> String {
    (0..20).map(|line| format!("line {line} of file {number} as of commit {commit}\n")).collect()
}
