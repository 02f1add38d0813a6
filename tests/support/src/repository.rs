//! Real git repositories for tests, made quickly: a bare origin whose history is written by `git fast-import`,
//! and the things that humans do to it (merge, squash, rebase, commit).
//!
//! It speaks to the system's git by itself, so that a fault in the product's own git layer cannot hide here.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A bare repository that plays the far side: the one that humans and Leviathan push to.
#[derive(Debug)]
pub struct Origin {
    dir: PathBuf,
    /// Keeps the folder until the origin is dropped; none when the caller gave the folder.
    _temporary: Option<TempDir>,
}

/// One entry of a commit that a test writes.
#[derive(Debug, Clone)]
pub enum Entry {
    /// `100644` with this content.
    File(String, Vec<u8>),
    /// `100755` with this content.
    Executable(String, Vec<u8>),
    /// `120000` with this link text.
    Symlink(String, String),
    /// `160000` at this commit.
    Gitlink(String, String),
    /// The path is removed.
    Removed(String),
}

/// The human of the tests.
const ADA: &str = "Ada Human <ada@example.com>";

/// How a human brings a branch into another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MergeKind {
    /// A merge commit.
    Merge,
    /// One new commit with the whole change.
    Squash,
    /// The branch's commits, made anew on top.
    Rebase,
}

impl Entry {
    /// An ordinary file.
    pub fn file(path: &str, content: impl AsRef<[u8]>) -> Self {
        Self::File(path.to_owned(), content.as_ref().to_vec())
    }

    /// An executable file.
    pub fn executable(path: &str, content: impl AsRef<[u8]>) -> Self {
        Self::Executable(path.to_owned(), content.as_ref().to_vec())
    }

    /// A symbolic link.
    pub fn symlink(path: &str, text: &str) -> Self {
        Self::Symlink(path.to_owned(), text.to_owned())
    }

    /// A commit of another repository.
    pub fn gitlink(path: &str, commit: &str) -> Self {
        Self::Gitlink(path.to_owned(), commit.to_owned())
    }

    /// A removal.
    pub fn removed(path: &str) -> Self {
        Self::Removed(path.to_owned())
    }
}

impl Origin {
    /// An empty bare repository in a temporary folder, with `main` as its default branch.
    pub fn empty() -> Self {
        let temporary = tempfile::Builder::new().prefix("origin-").tempdir().expect("a temporary folder");
        let mut origin = Self::at(&temporary.path().join("origin.git"));
        origin._temporary = Some(temporary);
        origin
    }

    /// An empty bare repository at `dir`.
    pub fn at(dir: &Path) -> Self {
        let dir_text = dir.to_str().expect("test folders have UTF-8 names");
        succeed(git().args(["init", "--quiet", "--bare", "--initial-branch=main", dir_text]));
        Self { dir: dir.to_owned(), _temporary: None }
    }

    /// The same with SHA-256 object names.
    pub fn empty_sha256() -> Self {
        let temporary = tempfile::Builder::new().prefix("origin-").tempdir().expect("a temporary folder");
        let dir = temporary.path().join("origin.git");
        succeed(
            git()
                .args(["init", "--quiet", "--bare", "--initial-branch=main", "--object-format=sha256"])
                .arg(&dir),
        );
        Self { dir, _temporary: Some(temporary) }
    }

    /// A repository whose `main` holds these text files in one commit.
    pub fn with_files(files: &[(&str, &str)]) -> Self {
        let origin = Self::empty();
        let entries: Vec<Entry> = files.iter().map(|(path, content)| Entry::file(path, content)).collect();
        origin.commit("main", "first", &entries);
        origin
    }

    /// A large repository: `files` files in folders of 100, and `commits` commits on `main`, each of which
    /// changes one file.
    pub fn large(files: usize, commits: usize) -> Self {
        let origin = Self::empty();
        let mut stream = Vec::new();
        for number in 0..files {
            let content = format!("file {number}\n{}", "a line of ordinary text\n".repeat(number % 40));
            push_blob(&mut stream, number + 1, content.as_bytes());
        }
        push_commit_head(&mut stream, ADA, "refs/heads/main", "all files", 1_700_000_000);
        for number in 0..files {
            let _ = writeln!(stream, "M 100644 :{} {}", number + 1, large_path(number));
        }
        for number in 1..commits {
            push_commit_head(
                &mut stream,
                ADA,
                "refs/heads/main",
                &format!("change {number}"),
                1_700_000_000 + number,
            );
            let _ = writeln!(stream, "M 100644 inline {}", large_path(number % files.max(1)));
            push_data(&mut stream, format!("changed by commit {number}\n").as_bytes());
        }
        origin.import(&stream);
        origin
    }

    /// The folder of the bare repository.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The address as a contract writes it.
    pub fn url(&self) -> String {
        format!("file://{}", self.dir.display())
    }

    /// Adds one commit with these entries on top of `branch` (made when missing); returns its name.
    pub fn commit(&self, branch: &str, message: &str, entries: &[Entry]) -> String {
        self.commit_by(ADA, branch, message, entries)
    }

    /// The same by another person, written `Name <email>`.
    pub fn commit_by(&self, person: &str, branch: &str, message: &str, entries: &[Entry]) -> String {
        let parent = self.resolve(&format!("refs/heads/{branch}"));
        let mut stream = Vec::new();
        push_commit_head(&mut stream, person, &format!("refs/heads/{branch}"), message, 1_700_000_000);
        if let Some(parent) = parent {
            let _ = writeln!(stream, "from {parent}");
        }
        for entry in entries {
            push_entry(&mut stream, entry);
        }
        self.import(&stream);
        self.resolve(&format!("refs/heads/{branch}")).expect("the commit was just made")
    }

    /// Points `branch` at `commit`, as a human's `git branch --force` would.
    pub fn set_branch(&self, branch: &str, commit: &str) {
        succeed(self.git().args(["update-ref", &format!("refs/heads/{branch}"), commit]));
    }

    /// Removes a branch.
    pub fn delete_branch(&self, branch: &str) {
        succeed(self.git().args(["update-ref", "-d", &format!("refs/heads/{branch}")]));
    }

    /// The object that a revision names, if any.
    pub fn resolve(&self, revision: &str) -> Option<String> {
        let output = self
            .git()
            .args(["rev-parse", "--verify", "--quiet", "--end-of-options", revision])
            .output()
            .expect("git runs");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Every ref and what it names, sorted.
    pub fn refs(&self) -> Vec<(String, String)> {
        let text = self.read_git(&["for-each-ref", "--format=%(refname) %(objectname)"]);
        text.lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .collect()
    }

    /// The content of a file at a revision; `None` when it is not there.
    pub fn read(&self, revision: &str, path: &str) -> Option<Vec<u8>> {
        let output =
            self.git().args(["cat-file", "blob", &format!("{revision}:{path}")]).output().expect("git runs");
        output.status.success().then_some(output.stdout)
    }

    /// Runs any git command here and returns what it printed. For assertions.
    pub fn read_git(&self, arguments: &[&str]) -> String {
        String::from_utf8_lossy(&succeed(self.git().args(arguments))).into_owned()
    }

    /// A human brings `branch` into `main` and pushes; returns the new tip of `main`.
    pub fn merge(&self, branch: &str, kind: MergeKind) -> String {
        let clone = tempfile::Builder::new().prefix("human-").tempdir().expect("a temporary folder");
        succeed(git().args(["clone", "--quiet", "--no-local"]).arg(&self.dir).arg(clone.path()));
        let run = |arguments: &[&str]| succeed(git().arg("-C").arg(clone.path()).args(arguments));
        let remote_branch = format!("origin/{branch}");
        match kind {
            MergeKind::Merge => {
                run(&["merge", "--quiet", "--no-ff", "-m", &format!("Merge {branch}"), &remote_branch]);
            }
            MergeKind::Squash => {
                run(&["merge", "--quiet", "--squash", &remote_branch]);
                run(&["commit", "--quiet", "-m", &format!("Squash {branch}")]);
            }
            MergeKind::Rebase => {
                run(&["rebase", "--quiet", "--no-ff", "main", &remote_branch]);
                run(&["branch", "--force", "main", "HEAD"]);
            }
        }
        run(&["push", "--quiet", "origin", "main"]);
        self.resolve("refs/heads/main").expect("main exists")
    }

    /// Stores a blob without a commit; returns its name.
    pub fn write_blob(&self, content: &[u8]) -> String {
        String::from_utf8_lossy(&self.feed(&["hash-object", "-w", "--stdin"], content)).trim().to_owned()
    }

    /// Points `branch` at a new commit whose tree is exactly these lines of `git ls-tree`, however hostile.
    pub fn commit_raw_tree(&self, branch: &str, lines: &[u8]) -> String {
        let tree = String::from_utf8_lossy(&self.feed(&["mktree", "--missing"], lines)).trim().to_owned();
        let commit = self.read_git(&["commit-tree", "-m", "raw tree", &tree]).trim().to_owned();
        self.set_branch(branch, &commit);
        commit
    }

    /// A pack of everything that a revision reaches.
    pub fn pack_of(&self, revision: &str) -> Vec<u8> {
        self.feed(&["pack-objects", "--revs", "--stdout", "-q"], format!("{revision}\n").as_bytes())
    }

    /// Installs a hook of the far side, such as `pre-receive`, with this shell text.
    pub fn install_hook(&self, name: &str, shell: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.dir.join("hooks").join(name);
        std::fs::create_dir_all(self.dir.join("hooks")).expect("the hooks folder");
        std::fs::write(&path, format!("#!/bin/sh\n{shell}\n")).expect("the hook is written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
            .expect("the hook is executable");
    }

    /// Refuses every push to `branch`, as a protected branch does.
    pub fn protect(&self, branch: &str) {
        self.install_hook(
            "update",
            &format!(
                "if [ \"$1\" = refs/heads/{branch} ]; then\n  echo 'GH006: Protected branch update failed' >&2\n  exit 1\nfi"
            ),
        );
    }

    fn import(&self, stream: &[u8]) {
        self.feed(&["fast-import", "--quiet", "--force", "--date-format=raw"], stream);
    }

    /// Runs git with this input; what it printed. The input is small or git reads all of it before it prints.
    fn feed(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let mut child = self
            .git()
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("git runs");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        stdin.write_all(input).expect("git reads its input");
        drop(stdin);
        let output = child.wait_with_output().expect("git ends");
        assert!(output.status.success(), "git {arguments:?} failed");
        output.stdout
    }

    fn git(&self) -> Command {
        let mut command = git();
        command.env("GIT_DIR", &self.dir);
        command
    }
}

/// The path of file `number` in [`Origin::large`].
pub fn large_path(number: usize) -> String {
    format!("src/part{:03}/file{number}.txt", number / 100)
}

/// A git command whose outcome does not depend on the machine's or the user's configuration.
fn git() -> Command {
    let mut command = Command::new("git");
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_AUTHOR_NAME", "Ada Human")
        .env("GIT_AUTHOR_EMAIL", "ada@example.com")
        .env("GIT_COMMITTER_NAME", "Ada Human")
        .env("GIT_COMMITTER_EMAIL", "ada@example.com")
        .env("LANG", "C.UTF-8")
        .stdin(Stdio::null());
    command
}

fn succeed(command: &mut Command) -> Vec<u8> {
    let output = command.output().expect("git runs");
    assert!(
        output.status.success(),
        "{command:?} failed: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

fn push_commit_head(stream: &mut Vec<u8>, person: &str, reference: &str, message: &str, seconds: usize) {
    let _ = writeln!(stream, "commit {reference}");
    let _ = writeln!(stream, "author {person} {seconds} +0000");
    let _ = writeln!(stream, "committer {person} {seconds} +0000");
    push_data(stream, message.as_bytes());
}

fn push_entry(stream: &mut Vec<u8>, entry: &Entry) {
    match entry {
        Entry::File(path, content) => push_inline(stream, "100644", path, content),
        Entry::Executable(path, content) => push_inline(stream, "100755", path, content),
        Entry::Symlink(path, text) => push_inline(stream, "120000", path, text.as_bytes()),
        Entry::Gitlink(path, commit) => {
            let _ = writeln!(stream, "M 160000 {commit} {}", quoted(path));
        }
        Entry::Removed(path) => {
            let _ = writeln!(stream, "D {}", quoted(path));
        }
    }
}

fn push_inline(stream: &mut Vec<u8>, mode: &str, path: &str, content: &[u8]) {
    let _ = writeln!(stream, "M {mode} inline {}", quoted(path));
    push_data(stream, content);
}

fn push_blob(stream: &mut Vec<u8>, mark: usize, content: &[u8]) {
    let _ = writeln!(stream, "blob\nmark :{mark}");
    push_data(stream, content);
}

fn push_data(stream: &mut Vec<u8>, content: &[u8]) {
    let _ = writeln!(stream, "data {}", content.len());
    stream.extend_from_slice(content);
    stream.push(b'\n');
}

/// A path as `git fast-import` reads it even when it holds quotes or newlines.
fn quoted(path: &str) -> String {
    let mut text = String::from("\"");
    for byte in path.bytes() {
        match byte {
            b'"' | b'\\' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            0x20..=0x7e => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\{byte:03o}")),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_human_can_merge_in_every_way() {
        for kind in [MergeKind::Merge, MergeKind::Squash, MergeKind::Rebase] {
            let origin = Origin::with_files(&[("a", "1\n"), ("b", "1\n")]);
            let base = origin.resolve("main").expect("main");
            origin.set_branch("topic", &base);
            origin.commit("topic", "change a", &[Entry::file("a", "2\n")]);
            origin.commit("main", "change b", &[Entry::file("b", "2\n")]);
            let merged = origin.merge("topic", kind);
            assert_eq!(origin.read(&merged, "a").as_deref(), Some(b"2\n".as_slice()), "{kind:?}");
            assert_eq!(origin.read(&merged, "b").as_deref(), Some(b"2\n".as_slice()), "{kind:?}");
        }
    }

    #[test]
    fn a_large_repository_has_as_many_files_and_commits_as_asked() {
        let origin = Origin::large(250, 20);
        assert_eq!(origin.read_git(&["ls-tree", "-r", "--name-only", "main"]).lines().count(), 250);
        assert_eq!(origin.read_git(&["rev-list", "--count", "main"]).trim(), "20");
    }
}
