//! A trusted bare repository: the questions we ask of it and the few things we write, as methods with types.
//!
//! Its folder is ours: no agent and no check can write there. Nothing here reads a working tree or an index.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};

use model::change::Mode;
use model::{CommitId, ObjectId, RepoPath};

use crate::git::{Git, GitError, Invocation, failed};

/// A git repository that is addressed by its git folder alone. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Repository {
    git: Git,
    dir: PathBuf,
    format: ObjectFormat,
}

/// The hash that names objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectFormat {
    /// 40 hexadecimal digits.
    Sha1,
    /// 64 hexadecimal digits.
    Sha256,
}

/// One entry of a tree that is no tree itself. Its path may be any bytes: what a base holds is not our choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// The path from the root of the tree, as git stores it.
    pub path: Vec<u8>,
    /// What the entry is.
    pub mode: Mode,
    /// The object that it names.
    pub object: ObjectId,
}

/// What a commit says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitFacts {
    /// The tree.
    pub tree: ObjectId,
    /// The parents, the first one first.
    pub parents: Vec<CommitId>,
    /// `Name <email>` of the author.
    pub author: String,
    /// Seconds since 1970 at which it was written.
    pub author_seconds: i64,
    /// `Name <email>` of the committer.
    pub committer: String,
    /// Seconds since 1970 at which it was committed.
    pub committer_seconds: i64,
    /// The whole message.
    pub message: String,
}

/// What a ref must be before it is changed; the change is refused otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// It must not exist.
    Absent,
    /// It must name exactly this.
    At(ObjectId),
}

impl ObjectFormat {
    /// The format of the repository in which an object has this name.
    pub fn of(object: &ObjectId) -> Self {
        if object.as_str().len() == 64 { Self::Sha256 } else { Self::Sha1 }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        }
    }

    /// The tree without entries, which every repository has without storing it.
    fn empty_tree(self) -> &'static str {
        match self {
            Self::Sha1 => "4b825dc642cb6eb9a060e54bf8d69288fbee4904",
            Self::Sha256 => "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321",
        }
    }

    /// The name of no object, as refs use it for "does not exist".
    pub(crate) fn zero(self) -> &'static str {
        const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";
        match self {
            Self::Sha1 => &ZEROS[..40],
            Self::Sha256 => ZEROS,
        }
    }

    /// The configuration of our own repositories: this and nothing else.
    fn configuration(self) -> String {
        let head = "# Written by Leviathan, which restores this file when it differs.\n[core]\n\tbare = true\n\tfilemode = true\n\tlogallrefupdates = false\n";
        match self {
            Self::Sha1 => format!("{head}\trepositoryformatversion = 0\n"),
            Self::Sha256 => {
                format!("{head}\trepositoryformatversion = 1\n[extensions]\n\tobjectformat = sha256\n")
            }
        }
    }
}

impl Repository {
    /// Makes an empty bare repository of our own at `dir`, without hooks and with our configuration.
    pub fn init(git: &Git, dir: &Path, format: ObjectFormat) -> Result<Self, GitError> {
        git.command_without_repository("init")
            .args(["--quiet", "--bare", "--template=", "--initial-branch=main"])
            .arg(format!("--object-format={}", format.as_str()))
            .arg("--")
            .arg(dir)
            .output()?;
        let repository = Self { git: git.clone(), dir: dir.to_owned(), format };
        repository.restore_configuration()?;
        Ok(repository)
    }

    /// Makes an empty bare repository that reads the objects of `lender` without copying them. What is written
    /// goes into the new one alone.
    pub fn init_borrowing(dir: &Path, lender: &Self) -> Result<Self, GitError> {
        let repository = Self::init(&lender.git, dir, lender.format)?;
        let objects = fs::canonicalize(lender.dir.join("objects")).map_err(|e| failed("init", e))?;
        let info = dir.join("objects/info");
        let mut line = objects.into_os_string();
        line.push("\n");
        fs::create_dir_all(&info).map_err(|e| failed("init", e))?;
        fs::write(info.join("alternates"), line.as_encoded_bytes()).map_err(|e| failed("init", e))?;
        Ok(repository)
    }

    /// Opens the repository whose git folder is `dir`.
    pub fn open(git: &Git, dir: &Path) -> Result<Self, GitError> {
        let dir = fs::canonicalize(dir).map_err(|e| failed("rev-parse", e))?;
        let answer = git.command(&dir, "rev-parse").arg("--show-object-format").output()?;
        let format = match answer.trim_ascii_end() {
            b"sha1" => ObjectFormat::Sha1,
            b"sha256" => ObjectFormat::Sha256,
            other => return Err(unexpected("rev-parse", &format!("object format {}", other.escape_ascii()))),
        };
        Ok(Self { git: git.clone(), dir, format })
    }

    /// Opens the repository that the folder `start` or one of its parents belongs to, as a user's git would.
    pub fn discover(git: &Git, start: &Path) -> Result<Self, GitError> {
        let answer = git
            .command_without_repository("rev-parse")
            .in_folder(start)
            .arg("--absolute-git-dir")
            .output()?;
        let text = answer.strip_suffix(b"\n").unwrap_or(&answer);
        Self::open(git, Path::new(std::ffi::OsStr::new(&*String::from_utf8_lossy(text))))
    }

    /// The git folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The hash that names its objects.
    pub fn format(&self) -> ObjectFormat {
        self.format
    }

    /// The program that works on it.
    pub fn git(&self) -> &Git {
        &self.git
    }

    /// The commit that a ref or a commit name stands for; none when there is no such ref or it names no commit.
    pub fn resolve(&self, name: &str) -> Result<Option<CommitId>, GitError> {
        let (output, ended) = self
            .command("rev-parse")
            .args(["--verify", "--quiet", "--end-of-options", &format!("{name}^{{commit}}")])
            .outcome_of(&[], 1024)?;
        match ended.status.code() {
            Some(0) => parse_commit("rev-parse", &output).map(Some),
            Some(1) => Ok(None),
            Some(_) | None => Err(ended.into_error("rev-parse")),
        }
    }

    /// Every ref whose name begins with `prefix` (whole components, such as `refs/pull/`), sorted by name.
    pub fn refs(&self, prefix: &str) -> Result<Vec<(String, ObjectId)>, GitError> {
        let output = self
            .command("for-each-ref")
            .args(["--format=%(objectname) %(refname)", "--", prefix.trim_end_matches('/')])
            .output()?;
        String::from_utf8_lossy(&output)
            .lines()
            .map(|line| {
                let (object, name) = line.split_once(' ').ok_or_else(|| unexpected("for-each-ref", line))?;
                Ok((name.to_owned(), parse_object("for-each-ref", object.as_bytes())?))
            })
            .collect()
    }

    /// Points the ref at `object` if it is as expected; `false` when it is not.
    pub fn set_ref(&self, name: &str, object: &ObjectId, expected: &Expected) -> Result<bool, GitError> {
        self.update_ref(&format!("update {name} {object} {}\n", self.expected_name(expected)))
    }

    /// Removes the ref if it names `expected`; `false` when it names something else or does not exist.
    pub fn delete_ref(&self, name: &str, expected: &ObjectId) -> Result<bool, GitError> {
        self.update_ref(&format!("delete {name} {expected}\n"))
    }

    /// Stores some bytes as a blob.
    pub fn write_blob(&self, content: &[u8]) -> Result<ObjectId, GitError> {
        let output =
            self.command("hash-object").args(["-w", "--no-filters", "--stdin"]).output_of(content, 1024)?;
        parse_object("hash-object", &output)
    }

    /// The content of a blob of at most `limit` bytes.
    pub fn read_blob(&self, object: &ObjectId, limit: u64) -> Result<Vec<u8>, GitError> {
        self.command("cat-file").args(["blob", object.as_str()]).output_of(&[], limit)
    }

    /// The entry at `path` in the tree of `commit`, if it is there and no folder.
    pub fn entry(&self, commit: &CommitId, path: &RepoPath) -> Result<Option<TreeEntry>, GitError> {
        let output = self
            .command("ls-tree")
            .args(["-z", "--full-tree", commit.as_str(), "--"])
            .arg(format!(":(literal){path}"))
            .output()?;
        let mut entries = split_nul(&output).filter_map(|record| parse_tree_entry(record).transpose());
        entries.find(|entry| entry.as_ref().map_or(true, |e| e.path == path.as_str().as_bytes())).transpose()
    }

    /// Every entry of the tree of `commit` that is no folder, in git's order.
    pub fn tree(&self, commit: &CommitId) -> Result<Vec<TreeEntry>, GitError> {
        let (entries, ended) =
            self.command("ls-tree").args(["-r", "-z", "--full-tree", commit.as_str()]).converse(
                |_| Ok(()),
                |stdout| {
                    let mut entries = Vec::new();
                    let mut reader = BufReader::with_capacity(1 << 16, stdout);
                    let mut record = Vec::new();
                    while read_record(&mut reader, &mut record, "ls-tree")? {
                        entries.extend(parse_tree_entry(&record)?);
                    }
                    Ok(entries)
                },
            )?;
        ended.successful("ls-tree")?;
        Ok(entries)
    }

    /// The sizes in bytes of these objects; one that is not here is left out.
    pub fn sizes(&self, objects: &[ObjectId]) -> Result<HashMap<ObjectId, u64>, GitError> {
        let mut input = Vec::with_capacity(objects.len() * 65);
        for object in objects {
            let _ = writeln!(input, "{object}");
        }
        let output = self
            .command("cat-file")
            .arg("--batch-check=%(objectname) %(objectsize)")
            .output_of(&input, crate::git::ORDINARY_OUTPUT)?;
        String::from_utf8_lossy(&output)
            .lines()
            .filter(|line| !line.ends_with(" missing"))
            .map(|line| {
                let (object, size) = line.split_once(' ').ok_or_else(|| unexpected("cat-file", line))?;
                let size = size.parse().map_err(|_| unexpected("cat-file", line))?;
                Ok((parse_object("cat-file", object.as_bytes())?, size))
            })
            .collect()
    }

    /// Whether the object and its type are here.
    pub fn has_commit(&self, commit: &CommitId) -> Result<bool, GitError> {
        Ok(self.resolve(commit.as_str())?.is_some())
    }

    /// Whether `ancestor` is `descendant` or reachable from it.
    pub fn is_ancestor(&self, ancestor: &CommitId, descendant: &CommitId) -> Result<bool, GitError> {
        let (_, ended) = self
            .command("merge-base")
            .args(["--is-ancestor", ancestor.as_str(), descendant.as_str()])
            .outcome_of(&[], 1024)?;
        match ended.status.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            Some(_) | None => Err(ended.into_error("merge-base")),
        }
    }

    /// The commits that `tip` reaches and `base` does not, newest first, at most `limit` of them.
    pub fn commits_between(
        &self,
        base: &CommitId,
        tip: &CommitId,
        limit: usize,
    ) -> Result<Vec<CommitId>, GitError> {
        let output = self
            .command("rev-list")
            .args([format!("--max-count={limit}"), tip.to_string(), format!("^{base}"), "--".to_owned()])
            .output()?;
        output
            .split(|byte| *byte == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| parse_commit("rev-list", l))
            .collect()
    }

    /// The patch id of what `commit` changes against its first parent: equal for equal changes, wherever they
    /// were made. None when it changes nothing.
    pub fn patch_id(&self, commit: &CommitId) -> Result<Option<String>, GitError> {
        self.patch_id_of(&[commit.as_str()])
    }

    /// The patch id of everything between two commits.
    pub fn patch_id_between(&self, base: &CommitId, tip: &CommitId) -> Result<Option<String>, GitError> {
        self.patch_id_of(&[base.as_str(), tip.as_str()])
    }

    /// What a commit says about itself.
    pub fn commit_facts(&self, commit: &CommitId) -> Result<CommitFacts, GitError> {
        let output = self.command("cat-file").args(["commit", commit.as_str()]).output_of(&[], 1 << 20)?;
        parse_commit_facts(&output).ok_or_else(|| unexpected("cat-file", "a commit that cannot be read"))
    }

    /// A git command on this repository. Its objects are compared without anybody's attributes.
    pub(crate) fn command(&self, verb: &'static str) -> Invocation {
        self.git.command(&self.dir, verb).option(format!("attr.tree={}", self.format.empty_tree()))
    }

    /// Writes our configuration again if the file differs from it.
    pub(crate) fn restore_configuration(&self) -> Result<(), GitError> {
        let (path, wanted) = (self.dir.join("config"), self.format.configuration());
        if fs::read_to_string(&path).is_ok_and(|found| found == wanted) {
            return Ok(());
        }
        fs::write(path, wanted).map_err(|e| failed("init", e))
    }

    fn expected_name(&self, expected: &Expected) -> String {
        match expected {
            Expected::Absent => self.format.zero().to_owned(),
            Expected::At(object) => object.to_string(),
        }
    }

    fn update_ref(&self, instruction: &str) -> Result<bool, GitError> {
        let (_, ended) = self
            .command("update-ref")
            .args(["--no-deref", "--stdin"])
            .outcome_of(instruction.as_bytes(), 1024)?;
        match ended.status.code() {
            Some(0) => Ok(true),
            Some(_) if ended.stderr.contains("cannot lock ref") => Ok(false),
            Some(_) | None => Err(ended.into_error("update-ref")),
        }
    }

    fn patch_id_of(&self, revisions: &[&str]) -> Result<Option<String>, GitError> {
        let patch = self
            .command("diff-tree")
            .args(["-p", "-r", "--no-renames", "--no-ext-diff", "--no-textconv", "--full-index", "--root"])
            .args(revisions)
            .output()?;
        let output = self.command("patch-id").arg("--stable").output_of(&patch, 1 << 20)?;
        Ok(String::from_utf8_lossy(&output).split_whitespace().next().map(str::to_owned))
    }
}

/// Reads up to the next NUL into `record`, without it; `false` at the end.
pub(crate) fn read_record(
    reader: &mut impl BufRead,
    record: &mut Vec<u8>,
    verb: &'static str,
) -> Result<bool, GitError> {
    record.clear();
    let count = reader.read_until(0, record).map_err(|e| failed(verb, e))?;
    if record.last() == Some(&0) {
        record.pop();
    }
    Ok(count > 0)
}

/// Reads the rest of a stream and throws it away.
pub(crate) fn drain(reader: &mut dyn Read, verb: &'static str) -> Result<u64, GitError> {
    std::io::copy(reader, &mut std::io::sink()).map_err(|e| failed(verb, e))
}

pub(crate) fn split_nul(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == 0).filter(|record| !record.is_empty())
}

pub(crate) fn unexpected(verb: &'static str, detail: &str) -> GitError {
    GitError::Unexpected { verb, detail: detail.chars().filter(|c| !c.is_control()).take(200).collect() }
}

pub(crate) fn parse_object(verb: &'static str, bytes: &[u8]) -> Result<ObjectId, GitError> {
    let text = String::from_utf8_lossy(bytes.trim_ascii_end());
    ObjectId::parse(text.as_ref()).map_err(|_| unexpected(verb, &text))
}

pub(crate) fn parse_commit(verb: &'static str, bytes: &[u8]) -> Result<CommitId, GitError> {
    let text = String::from_utf8_lossy(bytes.trim_ascii_end());
    CommitId::parse(text.as_ref()).map_err(|_| unexpected(verb, &text))
}

/// `<mode> <type> <object>\t<path>`; none for a folder.
fn parse_tree_entry(record: &[u8]) -> Result<Option<TreeEntry>, GitError> {
    let malformed = || unexpected("ls-tree", &record.escape_ascii().to_string());
    let tab = record.iter().position(|byte| *byte == b'\t').ok_or_else(malformed)?;
    let head = std::str::from_utf8(&record[..tab]).map_err(|_| malformed())?;
    let mut words = head.split(' ');
    let (mode, kind, object) = (
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
        words.next().unwrap_or_default(),
    );
    if kind == "tree" {
        return Ok(None);
    }
    let mode = Mode::from_octal(mode).ok_or_else(malformed)?;
    let object = parse_object("ls-tree", object.as_bytes())?;
    Ok(Some(TreeEntry { path: record[tab + 1..].to_vec(), mode, object }))
}

fn parse_commit_facts(bytes: &[u8]) -> Option<CommitFacts> {
    let text = String::from_utf8_lossy(bytes);
    let (head, message) = text.split_once("\n\n").unwrap_or((&text, ""));
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let parents = head.lines().filter_map(|line| line.strip_prefix("parent "));
    let (author, author_seconds) = parse_person(field("author")?)?;
    let (committer, committer_seconds) = parse_person(field("committer")?)?;
    Some(CommitFacts {
        tree: ObjectId::parse(field("tree")?).ok()?,
        parents: parents.map(|parent| CommitId::parse(parent).ok()).collect::<Option<_>>()?,
        author,
        author_seconds,
        committer,
        committer_seconds,
        message: message.to_owned(),
    })
}

/// `Name <email> seconds zone`.
fn parse_person(text: &str) -> Option<(String, i64)> {
    let (person, time) = text.rsplit_once("> ")?;
    Some((format!("{person}>"), time.split(' ').next()?.parse().ok()?))
}
