//! The paths of the REST interface, as GitHub describes them.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::any;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::shapes::{
    commits_json, issue_json, label, own_account, pull_json, pull_url, ref_json, repository_json,
    reviews_json, row_json,
};
use super::{BOT, Fate, Fault, Pull, Repository, Seen, World, commits_between};
use crate::git_http::broken;

/// The longest body and title that GitHub takes, in characters.
const LONGEST_BODY: usize = 65_536;
const LONGEST_TITLE: usize = 256;

pub(super) fn router(world: World) -> Router {
    Router::new().route("/api/v3/{*path}", any(serve)).with_state(world)
}

/// What is answered: a status, a body and more headers.
struct Reply {
    status: StatusCode,
    body: Value,
    headers: Vec<(&'static str, String)>,
}

impl Reply {
    fn new(status: StatusCode, body: Value) -> Self {
        Self { status, body, headers: Vec::new() }
    }

    fn ok(body: Value) -> Self {
        Self::new(StatusCode::OK, body)
    }

    fn message(status: StatusCode, message: &str) -> Self {
        let documentation = "https://docs.github.com/rest";
        let status_text = status.as_u16().to_string();
        Self::new(
            status,
            json!({ "message": message, "documentation_url": documentation, "status": status_text }),
        )
    }

    fn not_found() -> Self {
        Self::message(StatusCode::NOT_FOUND, "Not Found")
    }

    fn invalid(errors: Value) -> Self {
        let mut reply = Self::message(StatusCode::UNPROCESSABLE_ENTITY, "Validation Failed");
        reply.body["errors"] = errors;
        reply
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

async fn serve(State(world): State<World>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
    let mut repository = world.lock();
    repository.follow_branches();
    let (reply, breaks) = answer(&mut repository, &parts, &body);
    let response = finish(&mut repository, &parts, reply);
    repository.seen.push(Seen {
        method: parts.method.to_string(),
        path: parts.uri.to_string(),
        status: if breaks { 0 } else { response.status().as_u16() },
    });
    if breaks { broken() } else { response }
}

/// The reply, and whether the connection breaks before it arrives.
fn answer(repository: &mut Repository, parts: &Parts, body: &Bytes) -> (Reply, bool) {
    if let Some(reply) = misfortune(repository, parts) {
        return (reply, false);
    }
    if let Some(problem) = illegality(&parts.headers) {
        repository.illegal.push(format!("{} {}: {problem}", parts.method, parts.uri));
        return (Reply::message(StatusCode::BAD_REQUEST, &problem), false);
    }
    let expected = format!("Bearer {}", repository.token);
    if header_text(&parts.headers, "authorization") != expected {
        return (Reply::message(StatusCode::UNAUTHORIZED, "Bad credentials"), false);
    }
    let reply = route(repository, parts, body);
    let opened = reply.status == StatusCode::CREATED && parts.uri.path().ends_with("/pulls");
    (reply, opened && take(repository, |fault| *fault == Fault::DropAfterOpening).is_some())
}

/// What goes wrong with this request, if something was to.
fn misfortune(repository: &mut Repository, parts: &Parts) -> Option<Reply> {
    let is_next = |fault: &Fault| match fault {
        Fault::BadCredentials | Fault::SecondaryLimit(_) | Fault::AllowanceUsedUp(_) | Fault::BadGateway => {
            true
        }
        Fault::DropAfterOpening | Fault::ReadsLag(_) => false,
        Fault::BranchLags(_) => parts.method == "POST",
    };
    if !repository.faults.front().is_some_and(is_next) {
        return None;
    }
    match repository.faults.pop_front()? {
        Fault::BadCredentials => Some(Reply::message(StatusCode::UNAUTHORIZED, "Bad credentials")),
        Fault::SecondaryLimit(seconds) => {
            let message =
                "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.";
            Some(Reply::message(StatusCode::FORBIDDEN, message).with("retry-after", seconds))
        }
        Fault::AllowanceUsedUp(seconds) => {
            let reset = Timestamp::now().as_second() + i64::try_from(seconds).unwrap_or(i64::MAX);
            let reply = Reply::message(StatusCode::FORBIDDEN, "API rate limit exceeded for user ID 1.");
            Some(reply.with("x-ratelimit-remaining", 0).with("x-ratelimit-reset", reset))
        }
        Fault::BadGateway => {
            Some(Reply::new(StatusCode::BAD_GATEWAY, Value::String("<html>502 Bad Gateway</html>".into())))
        }
        Fault::BranchLags(requests) => {
            repository.branch_lagging = requests;
            None
        }
        Fault::DropAfterOpening | Fault::ReadsLag(_) => unreachable!("these are not next"),
    }
}

/// The rules of the interface that GitHub itself forgives or not, and that our client shall keep.
fn illegality(headers: &HeaderMap) -> Option<String> {
    if header_text(headers, "user-agent").is_empty() {
        return Some("Request forbidden by administrative rules. There is no User-Agent header.".into());
    }
    if header_text(headers, "accept") != "application/vnd.github+json" {
        return Some("the Accept header is not application/vnd.github+json".into());
    }
    if header_text(headers, "x-github-api-version") != "2022-11-28" {
        return Some("the version of the interface is missing or unknown".into());
    }
    if header_text(headers, "authorization").is_empty() {
        return Some("there is no Authorization header".into());
    }
    None
}

fn route(repository: &mut Repository, parts: &Parts, body: &Bytes) -> Reply {
    let path = parts.uri.path().trim_start_matches("/api/v3/").to_owned();
    let words: Vec<&str> = path.split('/').collect();
    let query = |name: &str| query_value(parts.uri.query().unwrap_or_default(), name);
    match (parts.method.as_str(), words.as_slice()) {
        ("GET", ["user"]) => Reply::ok(own_account(BOT)),
        (method, ["repos", owner, name, below @ ..])
            if *owner == repository.owner && *name == repository.name =>
        {
            match (method, below) {
                ("GET", []) => Reply::ok(repository_json(repository)),
                ("GET", ["pulls"]) => list_pulls(repository, query),
                ("POST", ["pulls"]) => open_pull(repository, body),
                ("GET", ["pulls", number]) => with_pull(repository, number, pull_json),
                ("GET", ["pulls", number, "reviews"]) => {
                    with_pull(repository, number, reviews_json).paged(query)
                }
                ("GET", ["pulls", number, "commits"]) => {
                    with_pull(repository, number, commits_json).paged(query)
                }
                ("GET", ["git", "ref", "heads", branch @ ..]) => git_ref(repository, &branch.join("/")),
                ("GET", ["issues", number]) => with_pull(repository, number, issue_json),
                ("POST", ["issues", number, "labels"]) => add_labels(repository, number, body),
                _ => unknown(repository, parts),
            }
        }
        ("GET" | "POST", ["repos", ..]) => Reply::not_found(),
        _ => unknown(repository, parts),
    }
}

fn unknown(repository: &mut Repository, parts: &Parts) -> Reply {
    repository.illegal.push(format!("{} {}: no such path", parts.method, parts.uri));
    Reply::not_found()
}

fn list_pulls(repository: &mut Repository, query: impl Fn(&str) -> Option<String>) -> Reply {
    let lagging = lagging(repository);
    let state = query("state").unwrap_or_else(|| "open".into());
    let head = query("head");
    let known = repository.pulls.len() - usize::from(lagging);
    let mut listed: Vec<&Pull> = repository.pulls[..known]
        .iter()
        .filter(|pull| match state.as_str() {
            "all" => true,
            "closed" => pull.fate != Fate::Open,
            _ => pull.fate == Fate::Open,
        })
        .filter(|pull| {
            head.as_ref().is_none_or(|head| *head == format!("{}:{}", repository.owner, pull.head))
        })
        .collect();
    listed.sort_by_key(|pull| std::cmp::Reverse(pull.number));
    Reply::ok(listed.into_iter().map(|pull| row_json(repository, pull)).collect()).paged(query)
}

fn open_pull(repository: &mut Repository, body: &Bytes) -> Reply {
    let fields = match object(
        repository,
        body,
        &[
            ("title", true),
            ("head", true),
            ("base", true),
            ("body", true),
            ("draft", false),
            ("maintainer_can_modify", false),
        ],
    ) {
        Ok(fields) => fields,
        Err(reply) => return reply,
    };
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let error =
        |field: &str, code: &str| json!([{ "resource": "PullRequest", "field": field, "code": code }]);
    let custom =
        |message: String| json!([{ "resource": "PullRequest", "code": "custom", "message": message }]);
    for field in ["title", "head", "base"] {
        if text(field).is_empty() {
            return Reply::invalid(error(field, "missing_field"));
        }
    }
    for (field, longest) in [("title", LONGEST_TITLE), ("body", LONGEST_BODY)] {
        if text(field).chars().count() > longest {
            return Reply::invalid(custom(format!("{field} is too long (maximum is {longest} characters)")));
        }
    }
    let (head, base) = (text("head"), text("base"));
    let head = head.strip_prefix(&format!("{}:", repository.owner)).unwrap_or(&head).to_owned();
    let tip_of = |branch: &str| repository.origin.resolve(&format!("refs/heads/{branch}"));
    let Some(base_sha) = tip_of(&base) else { return Reply::invalid(error("base", "invalid")) };
    let Some(head_sha) = tip_of(&head).filter(|_| repository.branch_lagging == 0) else {
        repository.branch_lagging = repository.branch_lagging.saturating_sub(1);
        return Reply::invalid(error("head", "invalid"));
    };
    let is_open = |pull: &Pull| pull.head == head && pull.base == base && pull.fate == Fate::Open;
    if repository.pulls.iter().any(is_open) {
        return Reply::invalid(custom(format!(
            "A pull request already exists for {}:{head}.",
            repository.owner
        )));
    }
    if commits_between(&repository.origin, &base, &head_sha).is_empty() {
        return Reply::invalid(custom(format!("No commits between {base} and {head}")));
    }
    let pull = Pull {
        number: repository.pulls.len() as u64 + 1,
        title: text("title"),
        body: fields.get("body").and_then(Value::as_str).map(str::to_owned),
        head,
        head_sha,
        base,
        base_sha,
        author: BOT.into(),
        labels: Vec::new(),
        reviews: Vec::new(),
        fate: Fate::Open,
    };
    repository.pulls.push(pull.clone());
    if let Some(Fault::ReadsLag(reads)) = take(repository, |fault| matches!(fault, Fault::ReadsLag(_))) {
        repository.reads_lagging = reads;
    }
    Reply::new(StatusCode::CREATED, pull_json(repository, &pull))
        .with("location", pull_url(repository, pull.number))
}

fn git_ref(repository: &Repository, branch: &str) -> Reply {
    match repository.origin.resolve(&format!("refs/heads/{branch}")) {
        Some(sha) => Reply::ok(ref_json(repository, branch, &sha)),
        None => Reply::not_found(),
    }
}

fn add_labels(repository: &mut Repository, number: &str, body: &Bytes) -> Reply {
    let fields = match object(repository, body, &[("labels", true)]) {
        Ok(fields) => fields,
        Err(reply) => return reply,
    };
    let labels = fields.get("labels").and_then(Value::as_array).cloned().unwrap_or_default();
    let Some(pull) = repository.pulls.iter_mut().find(|pull| pull.number.to_string() == number) else {
        return Reply::not_found();
    };
    for label in labels.iter().filter_map(Value::as_str) {
        if !pull.labels.iter().any(|known| known == label) {
            pull.labels.push(label.to_owned());
        }
    }
    let labels = pull.labels.clone();
    Reply::ok(labels.iter().map(|name| label(repository, name)).collect())
}

/// The body as an object with these text, list or boolean fields and no others.
fn object(
    repository: &mut Repository,
    body: &Bytes,
    known: &[(&str, bool)],
) -> Result<Map<String, Value>, Reply> {
    let Ok(Value::Object(fields)) = serde_json::from_slice(body) else {
        repository.illegal.push("a body is no JSON object".into());
        return Err(Reply::message(StatusCode::BAD_REQUEST, "Problems parsing JSON"));
    };
    for (name, value) in &fields {
        let fits = match (name.as_str(), known.iter().find(|(field, _)| field == name)) {
            (_, None) => false,
            ("labels", Some(_)) => value.as_array().is_some_and(|items| items.iter().all(Value::is_string)),
            ("body", Some(_)) => value.is_string() || value.is_null(),
            (_, Some((_, true))) => value.is_string(),
            (_, Some((_, false))) => value.is_boolean(),
        };
        if !fits {
            let problem = format!("Invalid request.\n\nFor 'properties/{name}', {value} is not allowed.");
            repository.illegal.push(problem.clone());
            return Err(Reply::message(StatusCode::UNPROCESSABLE_ENTITY, &problem));
        }
    }
    Ok(fields)
}

fn with_pull(repository: &mut Repository, number: &str, show: impl Fn(&Repository, &Pull) -> Value) -> Reply {
    let lagging = lagging(repository);
    let newest = repository.pulls.len() as u64;
    match repository.pulls.iter().find(|pull| pull.number.to_string() == number) {
        Some(pull) if !(lagging && pull.number == newest) => Reply::ok(show(repository, pull)),
        Some(_) | None => Reply::not_found(),
    }
}

/// Whether this read does not know the newest pull request yet.
fn lagging(repository: &mut Repository) -> bool {
    let lags = repository.reads_lagging > 0;
    repository.reads_lagging = repository.reads_lagging.saturating_sub(1);
    lags && !repository.pulls.is_empty()
}

fn take(repository: &mut Repository, wanted: impl Fn(&Fault) -> bool) -> Option<Fault> {
    if repository.faults.front().is_some_and(wanted) { repository.faults.pop_front() } else { None }
}

impl Reply {
    /// The page of a list that the query asks for.
    fn paged(mut self, query: impl Fn(&str) -> Option<String>) -> Self {
        let number =
            |name: &str, default: usize| query(name).and_then(|text| text.parse().ok()).unwrap_or(default);
        let per_page = number("per_page", 30).clamp(1, 100);
        let page = number("page", 1).max(1);
        if let Value::Array(rows) = &mut self.body {
            let all = std::mem::take(rows);
            let is_last = all.len() <= page * per_page;
            *rows = all.into_iter().skip((page - 1) * per_page).take(per_page).collect();
            if !is_last {
                self = self.with("link", format!("<?per_page={per_page}&page={}>; rel=\"next\"", page + 1));
            }
        }
        self
    }
}

/// Adds what every answer carries: the tag, the allowance, and 304 where the client has the same already.
fn finish(repository: &mut Repository, parts: &Parts, reply: Reply) -> Response {
    let text = reply.body.as_str().map_or_else(|| reply.body.to_string(), str::to_owned);
    let tag = format!("W/\"{}\"", hex::encode(Sha256::digest(text.as_bytes())));
    let is_known = parts.method == "GET" && reply.status == StatusCode::OK;
    let is_unchanged = is_known && header_text(&parts.headers, "if-none-match") == tag;
    if !is_unchanged {
        repository.remaining = repository.remaining.saturating_sub(1);
    }
    let mut response = Response::builder()
        .status(if is_unchanged { StatusCode::NOT_MODIFIED } else { reply.status })
        .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
        .header("x-github-api-version-selected", "2022-11-28")
        .header("x-ratelimit-limit", "5000");
    if !reply.headers.iter().any(|(name, _)| *name == "x-ratelimit-remaining") {
        response = response.header("x-ratelimit-remaining", repository.remaining.to_string());
    }
    if is_known {
        response = response.header(header::ETAG, tag);
    }
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    let body = if is_unchanged { Body::empty() } else { Body::from(text) };
    response.body(body).expect("headers that were just written")
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn query_value(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| decoded(value)).next()
}

/// Percent-decoding, as far as a query needs it.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                let code = std::str::from_utf8(&digits).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok());
                bytes.push(code.unwrap_or(b'?'));
            }
            b'+' => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
