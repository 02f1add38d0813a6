//! The local forge: pull requests kept inside a bare repository on this machine, without any server.
//!
//! Pull request `n` is two refs: `refs/pull/<n>/head` (the tip of its branch, as last seen) and `refs/pull/<n>/meta`
//! (a JSON blob, see [`Record`]). `refs/pull/of/<branch>` points to the record of the newest one of a branch. All
//! three appear in one transaction that only creates or compares, so that two openers get two numbers and one branch
//! never gets two open pull requests.
//!
//! Nobody tells this forge that something was merged. It looks: a head that is reachable from the default branch was
//! merged or fast-forwarded; a patch that a later commit of the default branch repeats was squashed or rebased; a
//! branch that is gone without either was closed.

use std::path::PathBuf;
use std::sync::Arc;

use model::{BranchName, CommitId};
use serde::{Deserialize, Serialize};

use crate::git::{Ended, ORDINARY_OUTPUT};
use crate::{Git, IDENTITY};

use super::{CANCELLED_LABEL, Error, HumanTouch, Opening, PullRequest, PullRequestState};

/// How many numbers, or races lost, are tried before giving up.
const TRIES: u32 = 64;

/// How many commits of the default branch are searched for a squashed or rebased change.
const COMMITS_SEARCHED: &str = "--max-count=2000";

/// The pull requests inside one bare repository.
#[derive(Debug, Clone)]
pub struct Local(Arc<Repository>);

impl Local {
    /// The forge inside the bare repository at `path`. Nothing is read or written yet.
    pub fn new(git: Git, path: PathBuf, default_branch: BranchName) -> Self {
        Self(Arc::new(Repository { git, path, default_branch }))
    }

    pub(super) async fn propose(&self, opening: Opening<'_>) -> Result<PullRequest, Error> {
        let (branch, commit, rolling) = (opening.branch.clone(), opening.commit.clone(), opening.rolling);
        let text = opening.text.clone();
        self.run(move |repository| {
            repository.propose(Opening { branch: &branch, commit: &commit, text: &text, rolling })
        })
        .await
    }

    pub(super) async fn find_by_branch(&self, branch: &BranchName) -> Result<Option<PullRequest>, Error> {
        let branch = branch.clone();
        self.run(move |repository| repository.find_by_branch(&branch)).await
    }

    pub(super) async fn state(&self, number: u64) -> Result<PullRequestState, Error> {
        self.run(move |repository| repository.state(number)).await
    }

    pub(super) async fn mark_cancelled(&self, number: u64) -> Result<(), Error> {
        self.run(move |repository| repository.mark_cancelled(number)).await
    }

    /// Runs git off the threads that serve other tasks.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Repository) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let repository = Arc::clone(&self.0);
        match tokio::task::spawn_blocking(move || work(&repository)).await {
            Ok(result) => result,
            Err(failure) => std::panic::resume_unwind(failure.into_panic()),
        }
    }
}

/// What `refs/pull/<n>/meta` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// The version of this form: 1.
    version: u32,
    number: u64,
    title: String,
    body: String,
    labels: Vec<String>,
    head_branch: BranchName,
    /// The commit that was proposed.
    head_commit: CommitId,
    base_branch: BranchName,
    /// The tip of the base branch at that time: a merge can only be later.
    base_commit: CommitId,
    /// Set by a human who closes it and keeps the branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    closed_by: Option<String>,
}

#[derive(Debug)]
struct Repository {
    git: Git,
    path: PathBuf,
    default_branch: BranchName,
}

impl Repository {
    fn propose(&self, opening: Opening<'_>) -> Result<PullRequest, Error> {
        let Opening { branch, commit, text, .. } = opening;
        let mut lost = String::new();
        for _ in 0..TRIES {
            let newest = self.newest_of(branch)?;
            if let Some((_, record)) = &newest {
                let existing = self.pull_request(record)?;
                if opening.is_answered_by(&existing)? {
                    return Ok(existing);
                }
            }
            self.require_tip(opening)?;
            let base_commit = self.require_something_to_merge(branch, commit)?;
            let record = Record {
                version: 1,
                number: self.highest_number()? + 1,
                title: text.title().to_owned(),
                body: text.body().to_owned(),
                labels: text.labels().to_vec(),
                head_branch: branch.clone(),
                head_commit: commit.clone(),
                base_branch: self.default_branch.clone(),
                base_commit,
                closed_by: None,
            };
            match self.create(&record, newest.map(|(blob, _)| blob).as_deref())? {
                Created::Yes => return self.pull_request(&record),
                // Somebody took the number, or opened the same pull request: look again.
                Created::Lost(why) => lost = why,
            }
        }
        Err(self.unavailable(format!(
            "the refs of the pull request could not be written in {TRIES} tries: {lost}"
        )))
    }

    fn find_by_branch(&self, branch: &BranchName) -> Result<Option<PullRequest>, Error> {
        match self.newest_of(branch)? {
            Some((_, record)) => self.pull_request(&record).map(Some),
            None => Ok(None),
        }
    }

    fn state(&self, number: u64) -> Result<PullRequestState, Error> {
        match self.record(&format!("refs/pull/{number}/meta"))? {
            Some((_, record)) => Ok(self.pull_request(&record)?.state),
            None => Err(Error::NoSuchPullRequest { forge: self.name(), number }),
        }
    }

    fn mark_cancelled(&self, number: u64) -> Result<(), Error> {
        let meta = format!("refs/pull/{number}/meta");
        for _ in 0..TRIES {
            let Some((old, mut record)) = self.record(&meta)? else {
                return Err(Error::NoSuchPullRequest { forge: self.name(), number });
            };
            if record.labels.iter().any(|label| label == CANCELLED_LABEL) {
                return Ok(());
            }
            record.labels.push(CANCELLED_LABEL.to_owned());
            if self.replace(&meta, &old, &record)? {
                return Ok(());
            }
        }
        Err(self.unavailable(format!("{meta} was changed by others in {TRIES} tries")))
    }

    /// Writes `record` where `old` stands, and there as the newest of its branch; false when somebody was faster.
    fn replace(&self, meta: &str, old: &str, record: &Record) -> Result<bool, Error> {
        let json = serde_json::to_vec_pretty(record).expect("a record is plain data");
        let new = self.text("hash-object", &["-w", "--stdin"], &json)?;
        let of_branch = format!("refs/pull/of/{}", record.head_branch);
        let newest = match self.object_at(&of_branch)? {
            Some(blob) if blob == old => format!("update {of_branch} {new} {old}\n"),
            Some(_) | None => String::new(),
        };
        let transaction = format!("start\nupdate {meta} {new} {old}\n{newest}prepare\ncommit\n");
        let (_, ended) = self.run("update-ref", &["--stdin"], transaction.as_bytes())?;
        Ok(ended.status.success())
    }

    /// Writes the three refs of a new pull request, all or none.
    fn create(&self, record: &Record, newest_of_branch: Option<&str>) -> Result<Created, Error> {
        let json = serde_json::to_vec_pretty(record).expect("a record is plain data");
        let blob = self.text("hash-object", &["-w", "--stdin"], &json)?;
        let Record { number, head_commit, head_branch, .. } = record;
        let of_branch = match newest_of_branch {
            Some(old) => format!("update refs/pull/of/{head_branch} {blob} {old}"),
            None => format!("create refs/pull/of/{head_branch} {blob}"),
        };
        let transaction = format!(
            "start\ncreate refs/pull/{number}/head {head_commit}\ncreate refs/pull/{number}/meta {blob}\n{of_branch}\nprepare\ncommit\n"
        );
        let (_, ended) = self.run("update-ref", &["--stdin"], transaction.as_bytes())?;
        Ok(if ended.status.success() { Created::Yes } else { Created::Lost(ended.stderr) })
    }

    fn pull_request(&self, record: &Record) -> Result<PullRequest, Error> {
        let (head_commit, state) = self.observe(record)?;
        Ok(PullRequest {
            number: record.number,
            url: format!("file://{}#refs/pull/{}", self.path.display(), record.number),
            head_branch: record.head_branch.clone(),
            head_commit,
            state,
        })
    }

    /// Derives the state from the refs and the history. The recorded head is judged before the present tip: what
    /// is pushed to a branch after its merge does not undo the merge.
    fn observe(&self, record: &Record) -> Result<(CommitId, PullRequestState), Error> {
        let head_ref = format!("refs/pull/{}/head", record.number);
        let seen = self.commit_at(&head_ref)?.unwrap_or_else(|| record.head_commit.clone());
        if let Some(merged) = self.merged(record, &seen)? {
            return Ok((seen, merged));
        }
        let Some(tip) = self.commit_at(&record.head_branch.to_ref())? else {
            return Ok((seen, PullRequestState::Closed { by: record.closed_by.clone() }));
        };
        if tip != seen {
            // Kept for the day the branch is gone. If another process was faster, it saw the same branch.
            self.run("update-ref", &[&head_ref, tip.as_str(), seen.as_str()], &[])?;
            if let Some(merged) = self.merged(record, &tip)? {
                return Ok((tip, merged));
            }
        }
        if record.closed_by.is_some() {
            return Ok((tip, PullRequestState::Closed { by: record.closed_by.clone() }));
        }
        let open = PullRequestState::Open {
            head_commit: tip.clone(),
            base_branch: record.base_branch.clone(),
            human_owned: self.human_touch(record, &tip)?,
            reviews: Vec::new(),
        };
        Ok((tip, open))
    }

    /// Whether and how `head` came into the base branch after the pull request was opened.
    fn merged(&self, record: &Record, head: &CommitId) -> Result<Option<PullRequestState>, Error> {
        let Some(base) = self.commit_at(&record.base_branch.to_ref())? else { return Ok(None) };
        if base == record.base_commit {
            return Ok(None);
        }
        let arrived = if self.is_ancestor(head, &base)? {
            Some(self.arrival(head, &base)?)
        } else {
            self.repeated(record, head, &base)?
        };
        let Some(commit) = arrived else { return Ok(None) };
        let by = self.who_merged(record, &commit)?;
        Ok(Some(PullRequestState::Merged { by, commit, approved_by: Vec::new() }))
    }

    /// The commit by which `head` came into `base`: itself after a fast-forward, else the first one of the main line
    /// that contains it.
    fn arrival(&self, head: &CommitId, base: &CommitId) -> Result<CommitId, Error> {
        let before_head = format!("^{head}^@");
        let main_line = self.text("rev-list", &["--first-parent", base.as_str(), &before_head], &[])?;
        if main_line.lines().any(|line| line == head.as_str()) {
            return Ok(head.clone());
        }
        let not_head = format!("^{head}");
        let containing =
            self.text("rev-list", &["--first-parent", "--ancestry-path", base.as_str(), &not_head], &[])?;
        match containing.lines().last() {
            Some(first) => self.commit_id(first),
            // Reached only through a second parent of the base's own tip.
            None => Ok(base.clone()),
        }
    }

    /// The commit of the base branch that completes a squash or a rebase of `head`, by patch id.
    fn repeated(&self, record: &Record, head: &CommitId, base: &CommitId) -> Result<Option<CommitId>, Error> {
        let Some(fork) = self.ask("merge-base", &[record.base_commit.as_str(), head.as_str()])? else {
            return Ok(None);
        };
        let not_fork = format!("^{fork}");
        let touched = self.touched_paths(&fork, head)?;
        let touched: Vec<&str> = touched.iter().map(String::as_str).collect();
        let candidates =
            self.patch_ids(&[&[COMMITS_SEARCHED, base.as_str(), &not_fork, "--"], &touched[..]].concat())?;
        if candidates.is_empty() {
            return Ok(None);
        }
        let landed = |patch: &str| candidates.iter().find(|(id, _)| id == patch).map(|(_, commit)| commit);
        let whole = self.bytes("diff-tree", &[PATCH, &[fork.as_str(), head.as_str()]].concat(), &[])?;
        if let Some(commit) = self.patch_ids_of(&whole)?.first().and_then(|(patch, _)| landed(patch)) {
            return self.commit_id(commit).map(Some);
        }
        let own = self.patch_ids(&[head.as_str(), &not_fork])?;
        let all_landed: Option<Vec<&String>> = own.iter().map(|(patch, _)| landed(patch)).collect();
        // `rev-list` lists the newest first: the first one completed the rebase.
        match all_landed.as_deref() {
            Some([newest, ..]) => self.commit_id(newest).map(Some),
            Some([]) | None => Ok(None),
        }
    }

    /// The paths that differ between two commits, as pathspecs; none when they are too many for a command line, and
    /// then every commit is looked at.
    fn touched_paths(&self, fork: &str, head: &CommitId) -> Result<Vec<String>, Error> {
        const MOST: usize = 500;
        let names =
            self.bytes("diff-tree", &["-r", "-z", "--name-only", "--no-renames", fork, head.as_str()], &[])?;
        let paths = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        let specs: Option<Vec<String>> =
            paths.map(|name| Some(format!(":(top,literal){}", std::str::from_utf8(name).ok()?))).collect();
        Ok(specs.filter(|specs| specs.len() <= MOST).unwrap_or_default())
    }

    /// Who brought it in: the committer of the merge, when that is a human; else whoever moved the base branch, when
    /// the repository keeps a reflog; else nobody knows.
    fn who_merged(&self, record: &Record, commit: &CommitId) -> Result<Option<String>, Error> {
        let committer = self.text("show", &["-s", "--format=%cn <%ce>%n%ce", commit.as_str()], &[])?;
        if let Some((_, email)) = committer.split_once('\n').filter(|(person, _)| *person != IDENTITY) {
            return Ok(Some(email.to_owned()));
        }
        let base = record.base_branch.to_ref();
        let moves = self.ask("log", &["-g", "--format=%H %ge", &base])?.unwrap_or_default();
        let mut mover = None;
        for line in moves.lines() {
            let Some((tip, email)) = line.split_once(' ') else { continue };
            if !self.is_ancestor(commit, &self.commit_id(tip)?)? {
                break;
            }
            mover = Some(email.to_owned());
        }
        Ok(mover.filter(|email| !email.is_empty()))
    }

    fn human_touch(&self, record: &Record, tip: &CommitId) -> Result<Option<HumanTouch>, Error> {
        if record.base_branch != self.default_branch {
            return Ok(Some(HumanTouch::Retargeted { base_branch: record.base_branch.to_string() }));
        }
        let (not_old_base, not_base) =
            (format!("^{}", record.base_commit), format!("^{}", record.base_branch.to_ref()));
        let format = "--format=%H%x00%an <%ae>%x00%cn <%ce>";
        let log = self.text("log", &["--reverse", format, tip.as_str(), &not_old_base, &not_base], &[])?;
        for line in log.lines() {
            let mut fields = line.split('\0');
            let commit = fields.next().unwrap_or_default();
            if let Some(person) = fields.find(|person| *person != IDENTITY) {
                return Ok(Some(HumanTouch::ForeignCommit {
                    commit: self.commit_id(commit)?,
                    by: person.into(),
                }));
            }
        }
        Ok(None)
    }

    /// The patch id and the commit of each commit that `rev-list` lists, newest first.
    fn patch_ids(&self, revisions: &[&str]) -> Result<Vec<(String, String)>, Error> {
        let listed = self.bytes("rev-list", &[&["--no-merges"], revisions].concat(), &[])?;
        let patches = self.bytes("diff-tree", &[PATCH, &["--stdin", "--root"]].concat(), &listed)?;
        self.patch_ids_of(&patches)
    }

    fn patch_ids_of(&self, patches: &[u8]) -> Result<Vec<(String, String)>, Error> {
        let ids = self.text("patch-id", &["--stable"], patches)?;
        let pairs = ids.lines().filter_map(|line| line.split_once(' '));
        Ok(pairs.map(|(patch, commit)| (patch.to_owned(), commit.to_owned())).collect())
    }

    fn require_tip(&self, opening: Opening<'_>) -> Result<(), Error> {
        let branch = opening.branch;
        match self.commit_at(&branch.to_ref())? {
            Some(tip) if tip == *opening.commit => Ok(()),
            Some(found) => Err(opening.moved_to(found)),
            None => Err(self.refused(
                "open a pull request",
                format!("there is no branch `{branch}`"),
                "push the branch first",
            )),
        }
    }

    /// The tip of the default branch, unless it already contains `commit`.
    fn require_something_to_merge(&self, branch: &BranchName, commit: &CommitId) -> Result<CommitId, Error> {
        let default = &self.default_branch;
        let Some(base) = self.commit_at(&default.to_ref())? else {
            return Err(self.refused(
                "open a pull request",
                format!("there is no branch `{default}`"),
                "check default_branch in contract.yaml",
            ));
        };
        if self.is_ancestor(commit, &base)? {
            return Err(self.refused(
                "open a pull request",
                format!("no commits between `{default}` and `{branch}`"),
                "nothing is left to propose: the default branch holds the change already",
            ));
        }
        Ok(base)
    }

    fn newest_of(&self, branch: &BranchName) -> Result<Option<(String, Record)>, Error> {
        let Some((blob, record)) = self.record(&format!("refs/pull/of/{branch}"))? else { return Ok(None) };
        // The record under the number is the one that humans edit.
        let edited = self.record(&format!("refs/pull/{}/meta", record.number))?;
        Ok(Some((blob, edited.map_or(record, |(_, record)| record))))
    }

    fn record(&self, name: &str) -> Result<Option<(String, Record)>, Error> {
        let Some(blob) = self.object_at(name)? else { return Ok(None) };
        let json = self.bytes("cat-file", &["blob", &blob], &[])?;
        let record: Record = serde_json::from_slice(&json)
            .map_err(|error| self.unavailable(format!("{name} is no record of a pull request: {error}")))?;
        if record.version != 1 {
            return Err(self.unavailable(format!("{name} has version {}, known is 1", record.version)));
        }
        Ok(Some((blob, record)))
    }

    fn highest_number(&self) -> Result<u64, Error> {
        let names = self.text("for-each-ref", &["--format=%(refname:lstrip=2)", "refs/pull/"], &[])?;
        let numbers = names.lines().filter_map(|name| name.split('/').next()?.parse::<u64>().ok());
        Ok(numbers.max().unwrap_or(0))
    }

    fn commit_at(&self, name: &str) -> Result<Option<CommitId>, Error> {
        self.object_at(name)?.map(|text| self.commit_id(&text)).transpose()
    }

    fn object_at(&self, name: &str) -> Result<Option<String>, Error> {
        self.require_repository()?;
        self.ask("rev-parse", &["--verify", "--quiet", name])
    }

    fn is_ancestor(&self, ancestor: &CommitId, descendant: &CommitId) -> Result<bool, Error> {
        let arguments = ["--is-ancestor", ancestor.as_str(), descendant.as_str()];
        Ok(self.ask("merge-base", &arguments)?.is_some())
    }

    fn commit_id(&self, text: &str) -> Result<CommitId, Error> {
        CommitId::parse(text).map_err(|error| self.unavailable(error.to_string()))
    }

    fn require_repository(&self) -> Result<(), Error> {
        if self.path.join("objects").is_dir() {
            Ok(())
        } else {
            Err(self.unavailable("there is no bare repository at this path"))
        }
    }

    /// What git prints; none when it answers no by exit code 1.
    fn ask(&self, verb: &'static str, arguments: &[&str]) -> Result<Option<String>, Error> {
        let (output, ended) = self.run(verb, arguments, &[])?;
        match ended.status.code() {
            Some(0) => Ok(Some(as_text(&output))),
            Some(1) => Ok(None),
            Some(_) | None => Err(self.unavailable(ended.into_error(verb))),
        }
    }

    /// What git prints, as text without the last line break.
    fn text(&self, verb: &'static str, arguments: &[&str], input: &[u8]) -> Result<String, Error> {
        self.bytes(verb, arguments, input).map(|output| as_text(&output))
    }

    fn bytes(&self, verb: &'static str, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, Error> {
        let (output, ended) = self.run(verb, arguments, input)?;
        ended.successful(verb).map_err(|error| self.unavailable(error))?;
        Ok(output)
    }

    fn run(&self, verb: &'static str, arguments: &[&str], input: &[u8]) -> Result<(Vec<u8>, Ended), Error> {
        self.git
            .command(&self.path, verb)
            .args(arguments)
            .outcome_of(input, ORDINARY_OUTPUT)
            .map_err(|error| self.unavailable(error))
    }

    fn name(&self) -> String {
        format!("the local forge {}", self.path.display())
    }

    fn unavailable(&self, problem: impl std::fmt::Display) -> Error {
        Error::Unavailable { forge: self.name(), detail: problem.to_string() }
    }

    fn refused(&self, step: &'static str, detail: String, next: &str) -> Error {
        Error::Refused { forge: self.name(), step, detail, next: next.into() }
    }
}

/// Whether the refs of a new pull request could be written.
enum Created {
    Yes,
    /// One of them was not as expected; with git's words.
    Lost(String),
}

fn as_text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).trim_end().to_owned()
}

/// A patch as `git patch-id` reads it: nothing that a repository configures can change it.
const PATCH: &[&str] =
    &["-p", "-r", "--full-index", "--no-renames", "--no-ext-diff", "--no-textconv", "--no-color"];
