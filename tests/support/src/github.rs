//! A GitHub for tests: the REST paths that pull requests need, stateful, on a real bare repository, together with git
//! over HTTP on the same port. Merges are really done with git. Requests that GitHub would refuse are refused the same
//! way, and written down: a test that made one fails when the GitHub is dropped.

mod rest;
mod shapes;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::git_http::{self, Pushes, Server};
use crate::repository::{MergeKind, Origin};

/// The account that a token belongs to.
pub const BOT: &str = "leviathan-bot";

/// A GitHub with one repository, `owner/name`.
#[derive(Debug)]
pub struct GitHub {
    server: Server,
    pushes: Pushes,
    world: World,
}

/// Something that goes wrong once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The next request is told that the token is bad.
    BadCredentials,
    /// The next request meets a secondary rate limit with this `Retry-After`, in seconds.
    SecondaryLimit(u64),
    /// The next request finds the allowance used up; it is renewed in this many seconds.
    AllowanceUsedUp(u64),
    /// The next request meets a broken proxy.
    BadGateway,
    /// The next new pull request is opened, and then the connection breaks.
    DropAfterOpening,
    /// The next new pull request is opened, but the next so many reads do not know of it yet.
    ReadsLag(u32),
    /// The next so many requests for a new pull request do not know the branch yet.
    BranchLags(u32),
}

/// A request as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its method.
    pub method: String,
    /// Its path and query.
    pub path: String,
    /// The status that it was answered with; 0 when the connection was broken instead.
    pub status: u16,
}

/// What the requests and the humans share.
#[derive(Debug, Clone)]
struct World(Arc<Mutex<Repository>>);

#[derive(Debug)]
struct Repository {
    owner: String,
    name: String,
    /// `http://127.0.0.1:<port>`.
    root: String,
    token: String,
    origin: Arc<Origin>,
    pulls: Vec<Pull>,
    faults: VecDeque<Fault>,
    seen: Vec<Seen>,
    /// Requests that a correct client does not make.
    illegal: Vec<String>,
    remaining: u32,
    /// How many reads do not know the newest pull request yet.
    reads_lagging: u32,
    branch_lagging: u32,
}

#[derive(Debug, Clone)]
struct Pull {
    number: u64,
    title: String,
    body: Option<String>,
    head: String,
    head_sha: String,
    base: String,
    base_sha: String,
    author: String,
    labels: Vec<String>,
    reviews: Vec<GivenReview>,
    fate: Fate,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    Open,
    Closed { by: String },
    Merged { by: String, commit: String },
}

#[derive(Debug, Clone)]
struct GivenReview {
    by: String,
    state: &'static str,
    commit: String,
}

impl GitHub {
    /// Serves `origin` as `owner/name` to whoever knows `token`.
    pub fn start(origin: Arc<Origin>, owner: &str, name: &str, token: &str) -> Self {
        let world = World(Arc::new(Mutex::new(Repository {
            owner: owner.into(),
            name: name.into(),
            root: String::new(),
            token: token.into(),
            origin: Arc::clone(&origin),
            pulls: Vec::new(),
            faults: VecDeque::new(),
            seen: Vec::new(),
            illegal: Vec::new(),
            remaining: 5000,
            reads_lagging: 0,
            branch_lagging: 0,
        })));
        let pushes = Pushes::default();
        let git = git_http::router(origin.dir(), token, pushes.clone());
        let server = Server::start(rest::router(world.clone()).fallback_service(git));
        world.lock().root = format!("http://{}", server.address);
        Self { server, pushes, world }
    }

    /// The address of the repository, as a contract writes it.
    pub fn repo_url(&self) -> String {
        let repository = self.world.lock();
        format!("{}/{}/{}.git", repository.root, repository.owner, repository.name)
    }

    /// The address of the REST interface: what `GITHUB_API_URL` holds.
    pub fn api_url(&self) -> String {
        format!("{}/api/v3", self.world.lock().root)
    }

    /// What can be made to happen around pushes.
    pub fn pushes(&self) -> &Pushes {
        &self.pushes
    }

    /// Lets something go wrong. Several things go wrong in the order in which they were given.
    pub fn inject(&self, fault: Fault) {
        self.world.lock().faults.push_back(fault);
    }

    /// Every request to the REST interface so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.world.lock().seen.clone()
    }

    /// The numbers of all pull requests.
    pub fn numbers(&self) -> Vec<u64> {
        self.world.lock().pulls.iter().map(|pull| pull.number).collect()
    }

    /// The title and the body of a pull request.
    pub fn text(&self, number: u64) -> (String, String) {
        self.world.with(number, |pull| (pull.title.clone(), pull.body.clone().unwrap_or_default()))
    }

    /// The labels of a pull request.
    pub fn labels(&self, number: u64) -> Vec<String> {
        self.world.with(number, |pull| pull.labels.clone())
    }

    /// A human merges a pull request; returns the new tip of `main`.
    pub fn merge(&self, number: u64, kind: MergeKind, by: &str) -> String {
        let mut repository = self.world.lock();
        repository.follow_branches();
        let origin = Arc::clone(&repository.origin);
        let pull = repository.pull_mut(number);
        assert_eq!(pull.fate, Fate::Open, "only an open pull request can be merged");
        let commit = origin.merge(&pull.head, kind);
        pull.fate = Fate::Merged { by: by.into(), commit: commit.clone() };
        commit
    }

    /// A human closes a pull request without merging.
    pub fn close(&self, number: u64, by: &str) {
        self.world.with(number, |pull| pull.fate = Fate::Closed { by: by.into() });
    }

    /// A human opens a closed pull request again.
    pub fn reopen(&self, number: u64) {
        self.world.with(number, |pull| pull.fate = Fate::Open);
    }

    /// A human reviews the present head: `APPROVED`, `CHANGES_REQUESTED`, `COMMENTED` or `DISMISSED`.
    pub fn review(&self, number: u64, by: &str, state: &'static str) {
        let mut repository = self.world.lock();
        repository.follow_branches();
        let pull = repository.pull_mut(number);
        pull.reviews.push(GivenReview { by: by.into(), state, commit: pull.head_sha.clone() });
    }

    /// A human makes a pull request ask for another branch.
    pub fn retarget(&self, number: u64, base: &str) {
        self.world.with(number, |pull| pull.base = base.into());
    }

    /// Stops answering; connections are refused from then on.
    pub fn stop(&mut self) {
        self.server.stop();
    }

    /// The folder of the bare repository.
    pub fn dir(&self) -> std::path::PathBuf {
        let origin = Arc::clone(&self.world.lock().origin);
        Path::to_owned(origin.dir())
    }
}

impl Drop for GitHub {
    fn drop(&mut self) {
        let illegal = std::mem::take(&mut self.world.lock().illegal);
        if !std::thread::panicking() {
            assert!(illegal.is_empty(), "GitHub was asked what it does not understand: {illegal:#?}");
        }
    }
}

impl World {
    fn lock(&self) -> MutexGuard<'_, Repository> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, number: u64, act: impl FnOnce(&mut Pull) -> T) -> T {
        act(self.lock().pull_mut(number))
    }
}

impl Repository {
    fn pull_mut(&mut self, number: u64) -> &mut Pull {
        let found = self.pulls.iter_mut().find(|pull| pull.number == number);
        found.unwrap_or_else(|| panic!("there is no pull request {number}"))
    }

    /// Brings the open pull requests up to date with what was pushed: a new head, a branch that is gone, a head that
    /// somebody brought into the base by hand.
    fn follow_branches(&mut self) {
        let origin = Arc::clone(&self.origin);
        for pull in self.pulls.iter_mut().filter(|pull| pull.fate == Fate::Open) {
            match origin.resolve(&format!("refs/heads/{}", pull.head)) {
                None => pull.fate = Fate::Closed { by: BOT.into() },
                Some(tip) => pull.head_sha = tip,
            }
            if pull.fate == Fate::Open && commits_between(&origin, &pull.base, &pull.head_sha).is_empty() {
                let commit = origin.resolve(&pull.base).unwrap_or_default();
                pull.fate = Fate::Merged { by: "pusher".into(), commit };
            }
        }
    }
}

/// The commits of `head` that `base` does not have, oldest first.
fn commits_between(origin: &Origin, base: &str, head: &str) -> Vec<String> {
    let range = format!("{base}..{head}");
    origin.read_git(&["rev-list", "--reverse", &range]).lines().map(str::to_owned).collect()
}
