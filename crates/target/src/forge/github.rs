//! GitHub as a forge, by its REST interface.
//!
//! Every request carries the version of the interface that it was written for. Reads are conditional, so that polling
//! what did not change costs nothing of the allowance, and are repeated when the far side stumbles. Writes are spaced
//! and never repeated blindly: after a lost answer the module looks whether the write happened. A rate limit silences
//! it until the moment that GitHub names; nothing spins.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use model::{BranchName, CommitId, RepoUrl};
use reqwest::header::{
    ACCEPT, AUTHORIZATION, DATE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_NONE_MATCH, RETRY_AFTER,
};
use reqwest::{Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::IDENTITY;

use super::{
    CANCELLED_LABEL, Error, HumanTouch, Opening, PullRequest, PullRequestState, Review, ReviewVerdict,
};

/// The version of the interface that the requests and answers below are written for.
const API_VERSION: &str = "2022-11-28";
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a read is sent before its failure is reported.
const READ_TRIES: u32 = 3;
/// How often something that must exist is looked for while GitHub's index lags behind.
const LAG_TRIES: u32 = 4;
/// GitHub's own advice for a secondary limit that names no time.
const UNNAMED_WAIT: Duration = Duration::from_secs(60);
/// A wait longer than this is asked about again.
const LONGEST_WAIT: Duration = Duration::from_secs(2 * 60 * 60);
/// The largest answer that is read.
const LARGEST_ANSWER: usize = 16 << 20;
/// How many answers are kept for conditional requests.
const ANSWERS_KEPT: usize = 2000;
const PAGE: usize = 100;
/// GitHub lists at most 250 commits of a pull request; more reviews than this decide nothing.
const MOST_PAGES: usize = 10;

/// How to reach GitHub.
#[derive(Debug, Clone, Default)]
pub struct GitHubAccess {
    /// Where its REST interface is, for GitHub Enterprise; by default what belongs to the host of the repository.
    pub api_url: Option<String>,
    /// The token. Needed.
    pub token: Option<SecretString>,
    /// The proxy for https, as `http://host:port`; by default none.
    pub https_proxy: Option<String>,
    /// How fast.
    pub pace: Pace,
}

/// How fast GitHub is spoken to.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The least time between two writes: GitHub asks for one second.
    pub between_writes: Duration,
    /// The time between two looks for something that was just made.
    pub lag: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { between_writes: Duration::from_secs(1), lag: Duration::from_secs(1) }
    }
}

/// The pull requests of one repository on GitHub.
#[derive(Debug)]
pub struct GitHub {
    client: reqwest::Client,
    api_url: String,
    owner: String,
    name: String,
    default_branch: BranchName,
    token: SecretString,
    pace: Pace,
    /// When the last write was sent. Held while one is under way, so that writes are one after the other.
    last_write: tokio::sync::Mutex<Option<Instant>>,
    /// Until when nothing may be sent.
    silent_until: Mutex<Option<Instant>>,
    /// The last answer of each address, to be used again when GitHub says that nothing changed.
    answers: Mutex<HashMap<String, (HeaderValue, Value)>>,
}

impl GitHub {
    pub(super) fn new(
        url: &RepoUrl,
        default_branch: BranchName,
        access: GitHubAccess,
    ) -> Result<Self, Error> {
        let (owner, name) =
            url.owner_and_name().expect("a repository that is not on this machine is on a host");
        let repository = format!("{owner}/{name}");
        let Some(token) = access.token.filter(|token| !token.expose_secret().trim().is_empty()) else {
            return Err(Error::Unauthorized {
                forge: format!("GitHub ({repository})"),
                detail: "GITHUB_TOKEN is not set".into(),
            });
        };
        let api_url = access.api_url.unwrap_or_else(|| default_api_url(url));
        if !keeps_secrets(&api_url) {
            return Err(Error::Refused {
                forge: format!("GitHub ({repository})"),
                step: "be given the token",
                detail: format!("`{}` is not an https address", visible(&api_url)),
                next: "write GITHUB_API_URL as https://host/api/v3".into(),
            });
        }
        let client = client(access.https_proxy.as_deref()).map_err(|error| Error::Unavailable {
            forge: format!("GitHub ({repository})"),
            detail: format!("the HTTP client could not be made: {error}"),
        })?;
        Ok(Self {
            client,
            api_url: api_url.trim_end_matches('/').to_owned(),
            owner: owner.to_owned(),
            name: name.to_owned(),
            default_branch,
            token,
            pace: access.pace,
            last_write: tokio::sync::Mutex::default(),
            silent_until: Mutex::default(),
            answers: Mutex::default(),
        })
    }

    pub(super) async fn propose(&self, opening: Opening<'_>) -> Result<PullRequest, Error> {
        if let Some(existing) = self.look_for(opening.branch).await?
            && opening.is_answered_by(&existing)?
        {
            self.label(&existing, opening).await;
            return Ok(existing);
        }
        self.require_tip(opening).await?;
        let mut tries = 1;
        let opened = loop {
            match self.create(opening).await? {
                Creation::Created(pull) => break self.just_created(pull, opening)?,
                Creation::MayExist(error) => break self.adopt(opening, error).await?,
                Creation::BranchUnknown(_) if tries < LAG_TRIES => {
                    tokio::time::sleep(self.pace.lag).await;
                    tries += 1;
                }
                Creation::BranchUnknown(error) => return Err(error),
            }
        };
        self.label(&opened, opening).await;
        Ok(opened)
    }

    pub(super) async fn find_by_branch(&self, branch: &BranchName) -> Result<Option<PullRequest>, Error> {
        for _ in 1..LAG_TRIES {
            if let Some(found) = self.look_for(branch).await? {
                return Ok(Some(found));
            }
            tokio::time::sleep(self.pace.lag).await;
        }
        self.look_for(branch).await
    }

    pub(super) async fn state(&self, number: u64) -> Result<PullRequestState, Error> {
        Ok(self.pull_request(&self.pull(number).await?).await?.state)
    }

    /// The pull request of a branch as the index has it now: the open one, else the newest.
    async fn look_for(&self, branch: &BranchName) -> Result<Option<PullRequest>, Error> {
        let query = [
            ("head", format!("{}:{branch}", self.owner)),
            ("state", "all".to_owned()),
            ("per_page", PAGE.to_string()),
        ];
        let path = self.path("pulls");
        let listed: Vec<Pull> = self.read(&path, &query).await?.ok_or_else(|| self.no_such_repository())?;
        // GitHub ignores a filter that it does not understand, so the answer is filtered again.
        let newest = listed
            .into_iter()
            .filter(|pull| pull.head.name == branch.as_str())
            .max_by_key(|pull| (pull.state == "open", pull.number));
        match newest {
            // The list holds neither who merged nor what was merged.
            Some(pull) => Ok(Some(self.pull_request(&self.pull(pull.number).await?).await?)),
            None => Ok(None),
        }
    }

    async fn pull(&self, number: u64) -> Result<Pull, Error> {
        let path = self.path(&format!("pulls/{number}"));
        for attempt in 1..=LAG_TRIES {
            if let Some(pull) = self.read(&path, &[]).await? {
                return Ok(pull);
            }
            if attempt < LAG_TRIES {
                tokio::time::sleep(self.pace.lag).await;
            }
        }
        Err(Error::NoSuchPullRequest { forge: self.forge(), number })
    }

    async fn pull_request(&self, pull: &Pull) -> Result<PullRequest, Error> {
        let head_commit = self.commit_id(&pull.head.sha)?;
        let state = match (&pull.merged_at, pull.state.as_str()) {
            (Some(_), _) => self.merged(pull, &head_commit).await?,
            (None, "closed") => PullRequestState::Closed { by: self.who_closed(pull.number).await? },
            (None, _) => self.open(pull, &head_commit).await?,
        };
        Ok(PullRequest {
            number: pull.number,
            url: pull.html_url.clone(),
            head_branch: self.branch_name(&pull.head.name)?,
            head_commit,
            state,
        })
    }

    async fn merged(&self, pull: &Pull, head: &CommitId) -> Result<PullRequestState, Error> {
        let reviews = self.reviews(pull.number).await?;
        let approved = |review: &&Review| {
            review.verdict == ReviewVerdict::Approved && review.commit.as_ref() == Some(head)
        };
        Ok(PullRequestState::Merged {
            by: pull.merged_by.as_ref().map(|user| user.login.clone()),
            commit: self.commit_id(pull.merge_commit_sha.as_deref().unwrap_or_default())?,
            approved_by: reviews.iter().filter(approved).map(|review| review.by.clone()).collect(),
        })
    }

    async fn open(&self, pull: &Pull, head: &CommitId) -> Result<PullRequestState, Error> {
        Ok(PullRequestState::Open {
            head_commit: head.clone(),
            base_branch: self.branch_name(&pull.base.name)?,
            human_owned: self.human_touch(pull).await?,
            reviews: self.reviews(pull.number).await?,
        })
    }

    async fn human_touch(&self, pull: &Pull) -> Result<Option<HumanTouch>, Error> {
        if pull.base.name != self.default_branch.as_str() {
            return Ok(Some(HumanTouch::Retargeted { base_branch: pull.base.name.clone() }));
        }
        let commits: Vec<ListedCommit> = self.read_all(&format!("pulls/{}/commits", pull.number)).await?;
        for listed in commits {
            let people = [listed.commit.author, listed.commit.committer];
            if let Some(by) = people.iter().map(full_name).find(|by| by != IDENTITY) {
                return Ok(Some(HumanTouch::ForeignCommit { commit: self.commit_id(&listed.sha)?, by }));
            }
        }
        Ok(None)
    }

    /// The latest word of each reviewer: a verdict, else a remark.
    async fn reviews(&self, number: u64) -> Result<Vec<Review>, Error> {
        let listed: Vec<ListedReview> = self.read_all(&format!("pulls/{number}/reviews")).await?;
        let mut latest: Vec<Review> = Vec::new();
        for review in listed {
            let verdict = match review.state.as_str() {
                "APPROVED" => ReviewVerdict::Approved,
                "CHANGES_REQUESTED" => ReviewVerdict::ChangesRequested,
                "DISMISSED" => ReviewVerdict::Dismissed,
                "COMMENTED" => ReviewVerdict::Commented,
                // Not submitted yet, or unknown: nothing was said.
                _ => continue,
            };
            let by = review.user.map_or_else(|| "ghost".to_owned(), |user| user.login);
            let commit = review.commit_id.and_then(|sha| CommitId::parse(sha).ok());
            let said = Review { by, verdict, commit };
            match latest.iter_mut().find(|earlier| earlier.by == said.by) {
                Some(earlier) if verdict != ReviewVerdict::Commented || earlier.verdict == verdict => {
                    *earlier = said
                }
                Some(_) => {}
                None => latest.push(said),
            }
        }
        Ok(latest)
    }

    async fn who_closed(&self, number: u64) -> Result<Option<String>, Error> {
        // A pull request does not say who closed it; the issue of the same number does.
        let issue: Option<Issue> = self.read(&self.path(&format!("issues/{number}")), &[]).await?;
        Ok(issue.and_then(|issue| issue.closed_by).map(|user| user.login))
    }

    /// Nothing is opened for a branch that somebody moved after the push. Whether the branch is there at all, the
    /// opening tells.
    async fn require_tip(&self, opening: Opening<'_>) -> Result<(), Error> {
        let path = self.path(&format!("git/ref/heads/{}", opening.branch));
        let Some(GitRef { object }) = self.read(&path, &[]).await? else { return Ok(()) };
        let tip = self.commit_id(&object.sha)?;
        if tip == *opening.commit { Ok(()) } else { Err(opening.moved_to(tip)) }
    }

    async fn create(&self, opening: Opening<'_>) -> Result<Creation, Error> {
        let body = json!({
            "title": opening.text.title(),
            "body": opening.text.body(),
            "head": opening.branch.as_str(),
            "base": self.default_branch.as_str(),
        });
        let answer = match self.write(&self.path("pulls"), &body).await {
            Ok(answer) => answer,
            Err(error @ Error::Unavailable { .. }) => return Ok(Creation::MayExist(error)),
            Err(error) => return Err(error),
        };
        if answer.status == StatusCode::CREATED {
            return self.parse(answer.body).map(Creation::Created);
        }
        let refusal = Refusal::of(&answer);
        let error = self.refusal_to_create(answer.status, &refusal);
        if refusal.says_it_exists() {
            Ok(Creation::MayExist(error))
        } else if refusal.says_head_is_unknown() {
            Ok(Creation::BranchUnknown(error))
        } else {
            Err(error)
        }
    }

    fn just_created(&self, pull: Pull, opening: Opening<'_>) -> Result<PullRequest, Error> {
        let head_commit = self.commit_id(&pull.head.sha)?;
        if head_commit != *opening.commit {
            // Moved in the moment between the look and the opening.
            return Err(opening.moved_to(head_commit));
        }
        Ok(PullRequest {
            number: pull.number,
            url: pull.html_url,
            head_branch: opening.branch.clone(),
            head_commit: head_commit.clone(),
            state: PullRequestState::Open {
                head_commit,
                base_branch: self.default_branch.clone(),
                human_owned: None,
                reviews: Vec::new(),
            },
        })
    }

    /// Looks for a pull request that exists or may exist; `otherwise` is the error when it does not.
    async fn adopt(&self, opening: Opening<'_>, otherwise: Error) -> Result<PullRequest, Error> {
        match self.find_by_branch(opening.branch).await? {
            Some(existing) if opening.is_answered_by(&existing)? => Ok(existing),
            Some(_) | None => Err(otherwise),
        }
    }

    /// Adds the labels. A pull request without its label is still right, so a failure is only logged.
    async fn label(&self, pull_request: &PullRequest, opening: Opening<'_>) {
        let is_open = matches!(pull_request.state, PullRequestState::Open { .. });
        if opening.text.labels().is_empty() || !is_open {
            return;
        }
        let path = self.path(&format!("issues/{}/labels", pull_request.number));
        let problem = match self.write(&path, &json!({ "labels": opening.text.labels() })).await {
            Ok(answer) if answer.status.is_success() => return,
            Ok(answer) => Refusal::of(&answer).to_string(),
            Err(error) => error.to_string(),
        };
        tracing::warn!(pull_request.url, problem, "A label could not be added to a pull request.");
    }

    pub(super) async fn mark_cancelled(&self, number: u64) -> Result<(), Error> {
        let path = self.path(&format!("issues/{number}/labels"));
        let answer = self.write(&path, &json!({ "labels": [CANCELLED_LABEL] })).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        let next = "let GITHUB_TOKEN write issues, or add the label by hand";
        Err(self.refused("label a pull request", Refusal::of(&answer).to_string(), next))
    }

    fn refusal_to_create(&self, status: StatusCode, refusal: &Refusal) -> Error {
        let next = if status == StatusCode::NOT_FOUND {
            format!(
                "check repo_url in contract.yaml, and that GITHUB_TOKEN may see {}/{}",
                self.owner, self.name
            )
        } else if refusal.message_has("no commits between") {
            "nothing is left to propose: the default branch holds the change already".into()
        } else {
            "check default_branch in contract.yaml, and that the branch was pushed".into()
        };
        self.refused("open a pull request", refusal.to_string(), &next)
    }

    /// Every page of a list.
    async fn read_all<T: DeserializeOwned>(&self, below: &str) -> Result<Vec<T>, Error> {
        let mut all = Vec::new();
        for page in 1..=MOST_PAGES {
            let query = [("per_page", PAGE.to_string()), ("page", page.to_string())];
            let rows: Vec<T> = self.read(&self.path(below), &query).await?.unwrap_or_default();
            let is_last = rows.len() < PAGE;
            all.extend(rows);
            if is_last {
                break;
            }
        }
        Ok(all)
    }

    /// What is at a path; none when GitHub says 404.
    async fn read<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<Option<T>, Error> {
        let mut tries = 1;
        let answer = loop {
            match self.send(Method::GET, path, query, None).await {
                Err(Error::Unavailable { .. }) if tries < READ_TRIES => {
                    tokio::time::sleep(self.pace.lag * tries).await;
                    tries += 1;
                }
                other => break other?,
            }
        };
        if answer.status.is_success() {
            return self.parse(answer.body).map(Some);
        }
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        Err(self.refused(
            "answer",
            Refusal::of(&answer).to_string(),
            "check repo_url in contract.yaml and GITHUB_TOKEN",
        ))
    }

    /// Sends a write, once, at least the pace after the one before.
    async fn write(&self, path: &str, body: &Value) -> Result<Answer, Error> {
        let mut last_write = self.last_write.lock().await;
        if let Some(last) = *last_write {
            tokio::time::sleep_until((last + self.pace.between_writes).into()).await;
        }
        let answer = self.send(Method::POST, path, &[], Some(body)).await;
        *last_write = Some(Instant::now());
        answer
    }

    /// Sends a request; once more after a 401, which GitHub also gives for a token that is a moment old.
    async fn send(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> Result<Answer, Error> {
        match self.send_once(method.clone(), path, query, body).await {
            Err(Error::Unauthorized { .. }) => {
                tokio::time::sleep(self.pace.lag).await;
                self.send_once(method, path, query, body).await
            }
            other => other,
        }
    }

    async fn send_once(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, String)],
        body: Option<&Value>,
    ) -> Result<Answer, Error> {
        self.require_not_silenced()?;
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.api_url))
            .query(query)
            .header(ACCEPT, "application/vnd.github+json")
            .header(AUTHORIZATION, self.authorization()?)
            .header("x-github-api-version", API_VERSION);
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut request = request.build().map_err(|error| self.unavailable(&error))?;
        let address = request.url().to_string();
        let known = self.known_answer(&address).filter(|_| body.is_none());
        if let Some((tag, _)) = &known {
            request.headers_mut().insert(IF_NONE_MATCH, tag.clone());
        }
        let response = self.client.execute(request).await.map_err(|error| self.unavailable(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        if let (StatusCode::NOT_MODIFIED, Some((_, value))) = (status, known) {
            return Ok(Answer { status: StatusCode::OK, body: value });
        }
        let answer = Answer { status, body: self.body_of(response).await? };
        self.require_served(&answer, &headers)?;
        if let (true, None, Some(tag)) = (status.is_success(), body, headers.get(ETAG)) {
            self.remember(address, tag.clone(), answer.body.clone());
        }
        Ok(answer)
    }

    /// An error for every answer that is not about what was asked: limits, credentials, breakdowns, moves.
    fn require_served(&self, answer: &Answer, headers: &HeaderMap) -> Result<(), Error> {
        let detail = || Refusal::of(answer).to_string();
        match answer.status {
            StatusCode::UNAUTHORIZED => Err(Error::Unauthorized { forge: self.forge(), detail: detail() }),
            StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS => match limit_of(answer, headers) {
                Some(wait) => {
                    *lock(&self.silent_until) = Some(Instant::now() + wait);
                    Err(Error::RateLimited { forge: self.forge(), wait, detail: detail() })
                }
                None => Err(self.refused(
                    "serve the request",
                    detail(),
                    "give GITHUB_TOKEN write access to the contents and the pull requests of the repository",
                )),
            },
            status if status.is_server_error() => Err(self.unavailable(&format!("{status}: {}", detail()))),
            status if status.is_redirection() => Err(self.refused(
                "serve the request",
                format!("it answered {status}: the repository was moved or renamed"),
                "write its present address into repo_url in contract.yaml",
            )),
            _ => Ok(()),
        }
    }

    fn require_not_silenced(&self) -> Result<(), Error> {
        let left = lock(&self.silent_until).and_then(|until| until.checked_duration_since(Instant::now()));
        match left {
            Some(wait) if !wait.is_zero() => Err(Error::RateLimited {
                forge: self.forge(),
                wait,
                detail: "the pause that it asked for is not over".into(),
            }),
            Some(_) | None => Ok(()),
        }
    }

    async fn body_of(&self, mut response: reqwest::Response) -> Result<Value, Error> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unavailable(&error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > LARGEST_ANSWER {
                return Err(self.unavailable(&format!("an answer is longer than {LARGEST_ANSWER} bytes")));
            }
        }
        // An answer that is no JSON, such as the page of a proxy, is kept as text for the message.
        Ok(serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned())))
    }

    fn parse<T: DeserializeOwned>(&self, body: Value) -> Result<T, Error> {
        serde_json::from_value(body)
            .map_err(|error| self.unavailable(&format!("an answer was not understood: {error}")))
    }

    fn authorization(&self) -> Result<HeaderValue, Error> {
        let text = format!("Bearer {}", self.token.expose_secret().trim());
        let mut value = HeaderValue::try_from(text).map_err(|_| Error::Unauthorized {
            forge: self.forge(),
            detail: "GITHUB_TOKEN holds characters that no token has".into(),
        })?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn known_answer(&self, address: &str) -> Option<(HeaderValue, Value)> {
        lock(&self.answers).get(address).cloned()
    }

    fn remember(&self, address: String, tag: HeaderValue, body: Value) {
        let mut answers = lock(&self.answers);
        if answers.len() >= ANSWERS_KEPT {
            // Forgetting costs one full answer each; it happens after thousands of pull requests.
            answers.clear();
        }
        answers.insert(address, (tag, body));
    }

    fn path(&self, below: &str) -> String {
        format!("/repos/{}/{}/{below}", self.owner, self.name)
    }

    fn commit_id(&self, sha: &str) -> Result<CommitId, Error> {
        CommitId::parse(sha).map_err(|error| self.unavailable(&error))
    }

    fn branch_name(&self, name: &str) -> Result<BranchName, Error> {
        BranchName::parse(name).map_err(|error| self.unavailable(&error))
    }

    fn forge(&self) -> String {
        format!("GitHub ({}/{})", self.owner, self.name)
    }

    fn no_such_repository(&self) -> Error {
        self.refused(
            "list pull requests",
            "it knows no such repository".into(),
            "check repo_url in contract.yaml, and that GITHUB_TOKEN may see the repository",
        )
    }

    fn refused(&self, step: &'static str, detail: String, next: &str) -> Error {
        Error::Refused { forge: self.forge(), step, detail, next: next.into() }
    }

    fn unavailable(&self, problem: &dyn std::fmt::Display) -> Error {
        Error::Unavailable { forge: self.forge(), detail: visible(&problem.to_string()) }
    }
}

/// What became of the request to open a pull request.
enum Creation {
    Created(Pull),
    /// It exists already, or the answer was lost; with the error to report if it is not found.
    MayExist(Error),
    /// Nothing was made: the branch that was just pushed is not known to all of GitHub yet, or does not exist.
    BranchUnknown(Error),
}

struct Answer {
    status: StatusCode,
    body: Value,
}

/// GitHub's words for no.
struct Refusal {
    message: String,
    /// Each of its `errors`, as text; and as it came, for its field and code.
    errors: Vec<(String, Value)>,
}

impl Refusal {
    fn of(answer: &Answer) -> Self {
        // Text is what a proxy on the way answers.
        let message =
            answer.body.as_str().or(answer.body["message"].as_str()).unwrap_or("no reason was given");
        let errors = answer.body["errors"].as_array().cloned().unwrap_or_default();
        let errors = errors.into_iter().map(|error| (error_text(&error), error)).collect();
        Self { message: format!("{}: {message}", answer.status.as_u16()), errors }
    }

    fn says_it_exists(&self) -> bool {
        self.message_has("already exists")
    }

    fn says_head_is_unknown(&self) -> bool {
        self.errors.iter().any(|(_, error)| error["field"] == "head" && error["code"] == "invalid")
    }

    fn message_has(&self, words: &str) -> bool {
        self.to_string().to_ascii_lowercase().contains(words)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let errors: Vec<&str> = self.errors.iter().map(|(text, _)| text.as_str()).collect();
        let whole = if errors.is_empty() {
            self.message.clone()
        } else {
            format!("{} ({})", self.message, errors.join("; "))
        };
        f.write_str(&visible(&whole))
    }
}

fn error_text(error: &Value) -> String {
    match (error.as_str(), error["message"].as_str()) {
        (Some(text), _) | (None, Some(text)) => text.to_owned(),
        (None, None) => {
            format!(
                "{} is {}",
                error["field"].as_str().unwrap_or("something"),
                error["code"].as_str().unwrap_or("wrong")
            )
        }
    }
}

#[derive(Deserialize)]
struct Pull {
    number: u64,
    html_url: String,
    state: String,
    merged_at: Option<String>,
    merge_commit_sha: Option<String>,
    #[serde(default)]
    merged_by: Option<User>,
    head: End,
    base: End,
}

#[derive(Deserialize)]
struct End {
    #[serde(rename = "ref")]
    name: String,
    sha: String,
}

#[derive(Deserialize)]
struct GitRef {
    object: GitObject,
}

#[derive(Deserialize)]
struct GitObject {
    sha: String,
}

#[derive(Deserialize)]
struct User {
    login: String,
}

#[derive(Deserialize)]
struct Issue {
    #[serde(default)]
    closed_by: Option<User>,
}

#[derive(Deserialize)]
struct ListedReview {
    user: Option<User>,
    state: String,
    commit_id: Option<String>,
}

#[derive(Deserialize)]
struct ListedCommit {
    sha: String,
    commit: CommitPeople,
}

#[derive(Deserialize)]
struct CommitPeople {
    author: Option<Person>,
    committer: Option<Person>,
}

#[derive(Deserialize)]
struct Person {
    name: Option<String>,
    email: Option<String>,
}

fn full_name(person: &Option<Person>) -> String {
    let field =
        |of: fn(&Person) -> &Option<String>| person.as_ref().and_then(|p| of(p).clone()).unwrap_or_default();
    format!("{} <{}>", field(|p| &p.name), field(|p| &p.email))
}

/// How long GitHub wants to be left alone, if that is what a 403 or 429 is about.
fn limit_of(answer: &Answer, headers: &HeaderMap) -> Option<Duration> {
    const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
    const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    // Both clocks are GitHub's own: a wrong clock on this machine does not matter.
    let server_now =
        text(DATE).and_then(|date| jiff::fmt::rfc2822::parse(date).ok()).map(|date| date.timestamp());
    let until = |moment: Timestamp| {
        let seconds = server_now.map(|now| moment.as_second() - now.as_second());
        seconds.map_or(UNNAMED_WAIT, |seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    };
    let named = text(RETRY_AFTER).and_then(|after| after.trim().parse().ok()).map(Duration::from_secs);
    let exhausted = text(REMAINING) == Some("0");
    let reset = text(RESET)
        .filter(|_| exhausted)
        .and_then(|seconds| Timestamp::from_second(seconds.parse().ok()?).ok())
        .map(until);
    let message = Refusal::of(answer).to_string().to_ascii_lowercase();
    let is_limit = answer.status == StatusCode::TOO_MANY_REQUESTS
        || exhausted
        || named.is_some()
        || message.contains("rate limit")
        || message.contains("abuse detection");
    is_limit.then(|| named.or(reset).unwrap_or(UNNAMED_WAIT).clamp(Duration::from_secs(1), LONGEST_WAIT))
}

fn default_api_url(url: &RepoUrl) -> String {
    // The port of an ssh address says nothing about the web: the https address of the same repository does.
    let https = url.over_https();
    let (scheme, rest) = https.split_once("://").unwrap_or(("https", &https));
    match rest.split('/').next().unwrap_or(rest) {
        host if host.eq_ignore_ascii_case("github.com") => "https://api.github.com".into(),
        host => format!("{scheme}://{host}/api/v3"),
    }
}

/// Whether a token may be sent there: by https, or to this machine itself.
fn keeps_secrets(api_url: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(api_url) else { return false };
    let is_this_machine = matches!(url.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
    url.scheme() == "https" || (url.scheme() == "http" && is_this_machine)
}

fn client(https_proxy: Option<&str>) -> reqwest::Result<reqwest::Client> {
    // Fails when a provider was chosen before, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("leviathan/", env!("CARGO_PKG_VERSION")))
        .timeout(PATIENCE)
        .connect_timeout(PATIENCE / 3)
        // A redirect would carry the token elsewhere.
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    if let Some(proxy) = https_proxy {
        builder = builder.proxy(reqwest::Proxy::https(proxy)?);
    }
    builder.build()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // The values are plain, so a panic elsewhere cannot have left them half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Text from the far side as it may be shown: one short line without control characters.
fn visible(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().filter(|c| !c.is_control()).take(400).collect()
}
