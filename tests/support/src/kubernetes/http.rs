//! The protocol: paths, queries and bodies, lists in pages, watches as a stream of lines.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Request as HttpRequest, State as Shared};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

use super::connection::Wire;
use super::faults::{self, Harm};
use super::refusal::Refusal;
use super::resources::{Place, Resource, discovery};
use super::selectors::Selection;
use super::store::{Change, DeleteOptions, Deleted, Key, State, Strictness, Written, text};
use super::{Gone, Request, Use, World};

const LONGEST_BODY: usize = 3_145_728;

pub(super) fn router(world: Arc<World>) -> Router {
    Router::new().fallback(serve).with_state(world)
}

/// A request, read.
struct Call {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    query_text: String,
    token: String,
    content_type: String,
    body: Bytes,
    place: Option<Place>,
    used: Use,
}

/// What is answered.
enum Reply {
    Json(StatusCode, Value, Vec<String>),
    Watch(Box<Watching>),
}

async fn serve(
    Shared(world): Shared<Arc<World>>,
    ConnectInfo(wire): ConnectInfo<Wire>,
    request: HttpRequest,
) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, 2 * LONGEST_BODY).await else {
        return refuse(&Refusal::too_large());
    };
    let call = Call::read(&parts, body);
    let harm = world.with(|state| faults::take(&mut state.faults, &call.method, &call.used));
    if let Some(Harm::Delay(time)) = harm {
        tokio::time::sleep(time).await;
    }
    if harm == Some(Harm::Drop) {
        world.with(|state| state.requests.push(call.seen(0)));
        return cut(&wire);
    }
    let answer = match harm.and_then(Harm::refusal) {
        Some(refusal) => Err(refusal),
        None => world.with(|state| answer(&world, state, &call)),
    };
    let (status, response) = match answer {
        Ok(Reply::Json(status, value, warnings)) => {
            (status.as_u16(), json_response(status, &value, &warnings))
        }
        Ok(Reply::Watch(watching)) => (200, stream(*watching)),
        Err(refusal) => (refusal.code, refuse(&refusal)),
    };
    match harm {
        Some(Harm::DropAfter) => {
            world.with(|state| state.requests.push(call.seen(0)));
            cut(&wire)
        }
        Some(Harm::GatewayTimeoutAfter) => {
            world.with(|state| state.requests.push(call.seen(504)));
            refuse(&Refusal::timeout())
        }
        _ => {
            world.with(|state| state.requests.push(call.seen(status)));
            response
        }
    }
}

fn cut(wire: &Wire) -> Response {
    wire.cut();
    Response::new(Body::empty())
}

fn json_response(status: StatusCode, value: &Value, warnings: &[String]) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for warning in warnings {
        let words = format!("299 - \"{}\"", warning.replace('\\', "\\\\").replace('"', "\\\""));
        if let Ok(words) = HeaderValue::from_str(&words) {
            headers.append(header::WARNING, words);
        }
    }
    response
}

fn refuse(refusal: &Refusal) -> Response {
    let status = StatusCode::from_u16(refusal.code).expect("refusals have statuses of HTTP");
    let mut response = json_response(status, &refusal.status(), &[]);
    if let Some(seconds) = refusal.retry_after() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

impl Call {
    fn read(parts: &Parts, body: Bytes) -> Self {
        let header = |name| parts.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let query_text = parts.uri.query().unwrap_or_default().to_owned();
        let query = read_query(&query_text);
        let method = parts.method.as_str().to_owned();
        let path = parts.uri.path().to_owned();
        let place = Place::parse(&path);
        let token = header(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
        let used = used(&method, &query, place.as_ref());
        Self {
            token: token.unwrap_or_default().into(),
            content_type: header(header::CONTENT_TYPE).unwrap_or_default().into(),
            method,
            path,
            query,
            query_text,
            body,
            place,
            used,
        }
    }

    fn seen(&self, status: u16) -> Request {
        Request {
            method: self.method.clone(),
            path: self.path.clone(),
            query: self.query_text.clone(),
            namespace: self.place.as_ref().and_then(|place| place.namespace.clone()).unwrap_or_default(),
            used: self.used.clone(),
            token: self.token.clone(),
            body: serde_json::from_slice(&self.body).unwrap_or_default(),
            status,
        }
    }

    fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    fn is_on(&self, name: &str) -> bool {
        ["true", "1"].contains(&self.parameter(name))
    }

    fn strictness(&self) -> Result<Strictness, Refusal> {
        match self.parameter("fieldValidation") {
            "Ignore" => Ok(Strictness::Ignore),
            "" | "Warn" => Ok(Strictness::Warn),
            "Strict" => Ok(Strictness::Strict),
            other => Err(Refusal::bad_request(format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }
}

/// The query, decoded.
fn read_query(text: &str) -> BTreeMap<String, String> {
    let decode = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            match byte {
                b'+' => bytes.push(b' '),
                b'%' => {
                    let digits = [rest.next().unwrap_or_default(), rest.next().unwrap_or_default()];
                    bytes.extend(hex::decode(digits).unwrap_or_default());
                }
                byte => bytes.push(byte),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}

/// What a request does, in the words of a Role.
fn used(method: &str, query: &BTreeMap<String, String>, place: Option<&Place>) -> Use {
    let watch = query.get("watch").is_some_and(|value| value == "true" || value == "1");
    let named = place.is_some_and(|place| place.name.is_some());
    let verb = match (method, named) {
        ("GET", _) if watch => "watch",
        ("GET", true) => "get",
        ("GET", false) => "list",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        _ => "",
    };
    let resource = place.map(|place| match &place.subresource {
        Some(subresource) => format!("{}/{subresource}", place.resource.plural),
        None => place.resource.plural.to_owned(),
    });
    // A list or watch of one name counts as that name.
    let selected = query.get("fieldSelector").and_then(|fields| fields.strip_prefix("metadata.name="));
    let name = place.and_then(|place| place.name.clone()).or_else(|| selected.map(str::to_owned));
    Use {
        verb: verb.into(),
        group: place.map(|place| place.resource.group.to_owned()).unwrap_or_default(),
        resource: resource.unwrap_or_default(),
        name: name.unwrap_or_default(),
    }
}

fn answer(world: &Arc<World>, state: &mut State, call: &Call) -> Result<Reply, Refusal> {
    let account = state.accounts.get(&call.token).cloned().ok_or_else(Refusal::unauthorized)?;
    let Some(place) = &call.place else {
        if let Some(found) = discovery(&call.path).filter(|_| call.method == "GET") {
            return Ok(Reply::Json(StatusCode::OK, found, Vec::new()));
        }
        state.illegal.push(format!("{} {}: nothing is served there", call.method, call.path));
        return Err(Refusal::no_such_path());
    };
    account.check(&call.used, place.resource, place.namespace.as_deref().unwrap_or_default())?;
    if call.body.len() > LONGEST_BODY {
        return Err(Refusal::too_large());
    }
    check_parameters(state, call);
    let dry = call.parameter("dryRun") == "All";
    let before = dry.then(|| (state.version, state.objects.clone(), state.history.len()));
    let answer = carry_out(world, state, call, place);
    if let Some((version, objects, changes)) = before {
        state.version = version;
        state.objects = objects;
        state.history.truncate(changes);
    }
    if let Err(refusal) = &answer
        && matches!(refusal.code, 400 | 405 | 415)
    {
        state.illegal.push(format!("{} {}: {}", call.method, call.path, refusal.message()));
    }
    answer
}

/// Writes down parameters that Kubernetes does not have there.
fn check_parameters(state: &mut State, call: &Call) {
    let known: &[&str] = match call.used.verb.as_str() {
        "list" | "watch" => &[
            "allowWatchBookmarks",
            "continue",
            "fieldSelector",
            "labelSelector",
            "limit",
            "pretty",
            "resourceVersion",
            "resourceVersionMatch",
            "sendInitialEvents",
            "timeoutSeconds",
            "watch",
        ],
        "get" => &["pretty", "resourceVersion"],
        "create" | "update" => &["dryRun", "fieldManager", "fieldValidation", "pretty"],
        "patch" => &["dryRun", "fieldManager", "fieldValidation", "force", "pretty"],
        _ => &[
            "continue",
            "dryRun",
            "fieldSelector",
            "gracePeriodSeconds",
            "labelSelector",
            "limit",
            "orphanDependents",
            "pretty",
            "propagationPolicy",
            "resourceVersion",
            "resourceVersionMatch",
            "timeoutSeconds",
        ],
    };
    for parameter in call.query.keys().filter(|parameter| !known.contains(&parameter.as_str())) {
        state.illegal.push(format!("{} {}: there is no parameter {parameter:?}", call.method, call.path));
    }
}

fn carry_out(world: &Arc<World>, state: &mut State, call: &Call, place: &Place) -> Result<Reply, Refusal> {
    let (resource, namespace) = (place.resource, place.namespace.as_deref());
    let subresource = place.subresource.as_deref().unwrap_or_default();
    if !(subresource.is_empty() || subresource == "status" && resource.has_status) {
        return Err(Refusal::no_such_path());
    }
    match (call.method.as_str(), namespace, place.name.as_deref()) {
        ("GET", _, None) if call.is_on("watch") => watch(world, state, call, place),
        ("GET", _, None) => list(state, call, place),
        ("GET", Some(namespace), Some(name)) => {
            let object = state.get(resource, namespace, name)?.clone();
            Ok(Reply::Json(StatusCode::OK, object, Vec::new()))
        }
        ("POST", Some(namespace), None) => {
            let object = read_body(call)?;
            let written = state.create(resource, namespace, object, call.strictness()?)?;
            Ok(Reply::Json(StatusCode::CREATED, written.object, written.warnings))
        }
        ("PUT", Some(namespace), Some(name)) => {
            let there = state.get(resource, namespace, name).is_ok();
            let object = read_body(call)?;
            let written =
                state.replace(resource, namespace, name, subresource, object, call.strictness()?)?;
            let status = if there { StatusCode::OK } else { StatusCode::CREATED };
            Ok(Reply::Json(status, written.object, written.warnings))
        }
        ("PATCH", Some(namespace), Some(name)) => {
            if call.content_type.split(';').next() != Some("application/merge-patch+json") {
                return Err(Refusal::unsupported_media_type());
            }
            let patch = read_body(call)?;
            let Written { object, warnings } =
                state.patch(resource, namespace, name, subresource, &patch, call.strictness()?)?;
            Ok(Reply::Json(StatusCode::OK, object, warnings))
        }
        ("DELETE", Some(namespace), Some(name)) => {
            let options = delete_options(call)?;
            let deleted = state.delete(resource, namespace, name, &options)?;
            Ok(Reply::Json(StatusCode::OK, deleted_value(resource, deleted), Vec::new()))
        }
        ("DELETE", Some(namespace), None) => {
            let options = delete_options(call)?;
            let selection = selection(call, resource)?;
            let all = state.at(state.version, resource);
            let chosen = all.iter().filter(|(key, object)| key.1 == namespace && selection.takes(object));
            let mut items = Vec::new();
            for (key, object) in chosen {
                // One that went away with another is deleted as well as it can be.
                let _ = state.delete(resource, namespace, &key.2, &options);
                items.push(object.clone());
            }
            Ok(Reply::Json(StatusCode::OK, list_value(resource, state.version, items, None), Vec::new()))
        }
        _ => Err(Refusal::method_not_allowed()),
    }
}

fn read_body(call: &Call) -> Result<Value, Refusal> {
    if !call.content_type.contains("json") {
        return Err(Refusal::unsupported_media_type());
    }
    serde_json::from_slice(&call.body).map_err(|error| {
        Refusal::bad_request(format!("the object provided is unrecognized (must be of type JSON): {error}"))
    })
}

fn delete_options(call: &Call) -> Result<DeleteOptions, Refusal> {
    let body: Value = if call.body.is_empty() { json!({}) } else { read_body(call)? };
    let from = |name: &str| match call.parameter(name) {
        "" => body[name].as_str().map(str::to_owned),
        value => Some(value.to_owned()),
    };
    let propagation = from("propagationPolicy");
    if let Some(other) = &propagation
        && !["Orphan", "Background", "Foreground"].contains(&other.as_str())
    {
        return Err(Refusal::bad_request(format!(
            "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: {other:?}"
        )));
    }
    Ok(DeleteOptions {
        propagation,
        grace: call.parameter("gracePeriodSeconds").parse().ok().or(body["gracePeriodSeconds"].as_i64()),
        uid: body["preconditions"]["uid"].as_str().map(str::to_owned),
        version: body["preconditions"]["resourceVersion"].as_str().map(str::to_owned),
    })
}

fn deleted_value(resource: &Resource, deleted: Deleted) -> Value {
    match deleted {
        Deleted::Marked(object) => object,
        // A pod is answered as it was last.
        Deleted::Gone(object) if resource.plural == "pods" => object,
        Deleted::Gone(object) => json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {
                "name": text(&object, "/metadata/name"), "group": resource.group, "kind": resource.plural,
                "uid": text(&object, "/metadata/uid"),
            },
        }),
    }
}

fn selection(call: &Call, resource: &Resource) -> Result<Selection, Refusal> {
    Selection::parse(resource, call.parameter("labelSelector"), call.parameter("fieldSelector"))
}

/// The version that a list or watch names; none for an empty one.
fn named_version(state: &State, call: &Call) -> Result<Option<u64>, Refusal> {
    let named = call.parameter("resourceVersion");
    if named.is_empty() {
        return Ok(None);
    }
    let version: u64 = named
        .parse()
        .map_err(|_| Refusal::bad_request(format!("Invalid value: {named:?}: resourceVersion")))?;
    if version > state.version {
        return Err(Refusal::version_from_the_future(version, state.version));
    }
    Ok(Some(version))
}

fn list(state: &mut State, call: &Call, place: &Place) -> Result<Reply, Refusal> {
    let resource = place.resource;
    let selection = selection(call, resource)?;
    let named = named_version(state, call)?;
    let exact = call.parameter("resourceVersionMatch");
    if !exact.is_empty() && named.is_none() {
        return Err(Refusal::bad_request(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ));
    }
    let (version, after) = match call.parameter("continue") {
        "" if exact == "Exact" => (named.unwrap_or(state.version), None),
        "" => (state.version, None),
        token => {
            let (version, after) = read_continue(token).ok_or_else(|| {
                Refusal::bad_request("continue key is not valid: it is not from this server")
            })?;
            (version, Some(after))
        }
    };
    if version < state.compacted {
        let message = match after {
            Some(_) => {
                "The provided continue parameter is too old to display a consistent list result. You can \
                        start a new list without the continue parameter."
                    .to_owned()
            }
            None => format!("The resourceVersion for the provided list is too old: {version}"),
        };
        return Err(Refusal::expired(message));
    }
    let limit: usize = call.parameter("limit").parse().unwrap_or(0);
    let all = state.at(version, resource);
    let wanted = all.into_iter().filter(|(key, object)| {
        place.namespace.as_ref().is_none_or(|namespace| *namespace == key.1)
            && selection.takes(object)
            && after.as_ref().is_none_or(|after| (&key.1, &key.2) > (&after.0, &after.1))
    });
    let mut wanted: Vec<(Key, Value)> = wanted.collect();
    let mut more = None;
    if limit > 0 && wanted.len() > limit {
        let remaining = wanted.split_off(limit).len();
        let last = &wanted[limit - 1].0;
        more = Some((write_continue(version, last), selection.is_everything().then_some(remaining)));
    }
    let items = wanted.into_iter().map(|(_, object)| object).collect();
    Ok(Reply::Json(StatusCode::OK, list_value(resource, version, items, more), Vec::new()))
}

fn list_value(
    resource: &Resource,
    version: u64,
    mut items: Vec<Value>,
    more: Option<(String, Option<usize>)>,
) -> Value {
    // The items of a list do not repeat what the list says.
    for item in items.iter_mut().filter_map(Value::as_object_mut) {
        item.remove("kind");
        item.remove("apiVersion");
    }
    let mut metadata = json!({ "resourceVersion": version.to_string() });
    if let Some((token, remaining)) = more {
        metadata["continue"] = token.into();
        if let Some(remaining) = remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
    }
    let kind = format!("{}List", resource.kind);
    json!({ "kind": kind, "apiVersion": resource.api_version(), "metadata": metadata, "items": items })
}

fn write_continue(version: u64, last: &Key) -> String {
    URL_SAFE_NO_PAD.encode(json!([version, last.1, last.2]).to_string())
}

fn read_continue(token: &str) -> Option<(u64, (String, String))> {
    serde_json::from_slice::<(u64, String, String)>(&URL_SAFE_NO_PAD.decode(token).ok()?)
        .ok()
        .map(|(version, namespace, name)| (version, (namespace, name)))
}

/// Somebody who watches.
struct Watching {
    world: Arc<World>,
    resource: &'static Resource,
    namespace: Option<String>,
    selection: Selection,
    /// Up to which version everything was told.
    after: u64,
    lines: VecDeque<Bytes>,
    generation: u64,
    /// How many bookmarks were asked for already; none are taken without this.
    bookmarks: Option<u64>,
    deadline: Instant,
    turned: Receiver<u64>,
    ended: bool,
}

fn watch(world: &Arc<World>, state: &mut State, call: &Call, place: &Place) -> Result<Reply, Refusal> {
    let selection = selection(call, place.resource)?;
    let named = named_version(state, call)?;
    let seconds: u64 = call.parameter("timeoutSeconds").parse().unwrap_or(1800);
    let mut watching = Watching {
        world: Arc::clone(world),
        resource: place.resource,
        namespace: place.namespace.clone(),
        selection,
        after: state.version,
        lines: VecDeque::new(),
        generation: state.watch_generation,
        bookmarks: call.is_on("allowWatchBookmarks").then_some(state.bookmarks),
        deadline: Instant::now() + Duration::from_secs(seconds),
        turned: world.turned.subscribe(),
        ended: false,
    };
    let streamed = call.is_on("sendInitialEvents");
    match named {
        Some(version) if version > 0 && !streamed => {
            if version < state.compacted {
                let oldest = state.compacted;
                let refusal = Refusal::expired(format!("too old resource version: {version} ({oldest})"));
                match state.gone {
                    Gone::AsAnswer => return Err(refusal),
                    Gone::AsEvent => watching.tell("ERROR", refusal.status()),
                }
                watching.ended = true;
            }
            watching.after = version;
        }
        _ => {
            for object in state.at(state.version, place.resource).into_values() {
                if watching.is_about(&object) {
                    watching.tell("ADDED", object);
                }
            }
            if streamed {
                watching.tell_bookmark(true);
            }
        }
    }
    Ok(Reply::Watch(Box::new(watching)))
}

fn stream(watching: Watching) -> Response {
    let lines = futures_util::stream::unfold(watching, |mut watching| async move {
        let line = watching.next().await?;
        Some((Ok::<_, Infallible>(line), watching))
    });
    let mut response = Response::new(Body::from_stream(lines));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

impl Watching {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            if self.ended {
                return None;
            }
            self.turned.borrow_and_update();
            self.catch_up();
            if !self.lines.is_empty() || self.ended {
                continue;
            }
            tokio::select! {
                turned = self.turned.changed() => self.ended = turned.is_err(),
                () = tokio::time::sleep_until(self.deadline) => {
                    self.tell_bookmark(false);
                    self.ended = true;
                }
            }
        }
    }

    /// Tells what happened since.
    fn catch_up(&mut self) {
        let world = Arc::clone(&self.world);
        let state = world.lock();
        let from = state.history.partition_point(|change| change.version <= self.after);
        for change in &state.history[from..] {
            if change.key.0 == self.resource.plural {
                self.tell_change(change);
            }
        }
        self.after = state.version;
        self.ended |= state.watch_generation != self.generation;
        if self.bookmarks.is_some_and(|told| told < state.bookmarks) {
            self.bookmarks = Some(state.bookmarks);
            self.tell_bookmark(false);
        }
    }

    fn is_about(&self, object: &Value) -> bool {
        let here =
            self.namespace.as_ref().is_none_or(|namespace| object["metadata"]["namespace"] == **namespace);
        here && self.selection.takes(object)
    }

    /// An object that no longer is as it is watched for is deleted for this watch.
    fn tell_change(&mut self, change: &Change) {
        let was = change.before.as_ref().is_some_and(|before| self.is_about(before));
        let is = !change.deleted && self.is_about(&change.object);
        match (was, is) {
            (false, false) => {}
            (false, true) => self.tell("ADDED", change.object.clone()),
            (true, true) => self.tell("MODIFIED", change.object.clone()),
            (true, false) => {
                let mut last = change.before.clone().unwrap_or_default();
                last["metadata"]["resourceVersion"] = change.version.to_string().into();
                self.tell("DELETED", last);
            }
        }
    }

    fn tell_bookmark(&mut self, initial_events_end: bool) {
        if self.bookmarks.is_none() {
            return;
        }
        let mut metadata = json!({ "resourceVersion": self.after.to_string() });
        if initial_events_end {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let version = self.resource.api_version();
        let object = json!({ "kind": self.resource.kind, "apiVersion": version, "metadata": metadata });
        self.tell("BOOKMARK", object);
    }

    fn tell(&mut self, kind: &str, object: Value) {
        let mut line = json!({ "type": kind, "object": object }).to_string();
        line.push('\n');
        self.lines.push_back(line.into());
    }
}
