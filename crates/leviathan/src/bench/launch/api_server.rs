//! As much of a Kubernetes API server as the scheduler asks of one, on a free loopback port. It keeps state, counts
//! versions, and gives each new Job a pod that runs. What it does not know it answers with 404 and remembers, so that
//! a scheduler that begins to ask for more breaks the benchmark instead of being measured wrongly.
//!
//! It keeps objects as text, so that a list costs it little: what is measured is the scheduler, and a real API server
//! is on another machine.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The only namespace.
pub(super) const NAMESPACE: &str = "leviathan-bench";

/// How long a watch lasts that does not say so, in seconds.
const WATCH: u64 = 300;

/// What there is in the namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    ConfigMap,
    Event,
    Job,
    Pod,
    Secret,
}

/// A resource as its path names it, and which verbs are known of it.
const RESOURCES: [(&str, &str, Kind, &[Verb]); 5] = [
    ("api/v1", "configmaps", Kind::ConfigMap, &[Verb::List]),
    ("api/v1", "events", Kind::Event, &[Verb::List]),
    ("apis/batch/v1", "jobs", Kind::Job, &[Verb::Create, Verb::Get, Verb::List, Verb::Watch, Verb::Delete]),
    ("api/v1", "pods", Kind::Pod, &[Verb::List, Verb::Watch]),
    ("api/v1", "secrets", Kind::Secret, &[Verb::Create]),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Create,
    Get,
    List,
    Watch,
    Delete,
}

/// A running API server. It ends when it is dropped.
pub(super) struct ApiServer {
    address: SocketAddr,
    world: Arc<World>,
    serving: JoinHandle<()>,
}

/// What the requests and the benchmark share.
struct World {
    objects: Mutex<Objects>,
    /// Told after everything that changed something.
    turned: watch::Sender<u64>,
}

#[derive(Default)]
struct Objects {
    version: u64,
    all: BTreeMap<(Kind, String), Object>,
    changes: Vec<Change>,
    /// When each Secret was made: the last that the scheduler does for a launch in the cluster.
    launched: Vec<Instant>,
    refused: Vec<String>,
}

#[derive(Clone)]
struct Object {
    uid: String,
    /// The uid of what it goes with.
    owner: Option<String>,
    labels: BTreeMap<String, String>,
    text: Arc<str>,
}

struct Change {
    version: u64,
    kind: Kind,
    labels: BTreeMap<String, String>,
    line: String,
}

/// An answer that is no.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    reason: &'static str,
    message: String,
}

type Answer = Result<Response, Refusal>;
type Parameters = BTreeMap<String, String>;

impl ApiServer {
    /// Listens, with these ConfigMaps there already: name and data.
    pub(super) async fn start(config_maps: &[(String, Value)]) -> anyhow::Result<Self> {
        let mut objects = Objects::default();
        for (name, data) in config_maps {
            let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data });
            objects.keep(Kind::ConfigMap, map, "ADDED");
        }
        let world = Arc::new(World { objects: Mutex::new(objects), turned: watch::Sender::new(0) });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&world));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("cannot listen")?;
        let address = listener.local_addr().context("the listener has no address")?;
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, world, serving })
    }

    /// A client as the scheduler makes one.
    pub(super) fn client(&self) -> anyhow::Result<kube::Client> {
        let address = format!("http://{}", self.address).parse().context("the address makes no URL")?;
        let mut access = kube::Config::new(address);
        access.default_retry = false;
        kube::Client::try_from(access).context("the cluster cannot be spoken to")
    }

    /// The names of all objects of a kind.
    pub(super) fn names(&self, kind: Kind) -> Vec<String> {
        self.world.lock().of(kind).map(|(name, _)| name.clone()).collect()
    }

    /// An object as it is answered.
    pub(super) fn text(&self, kind: Kind, name: &str) -> Option<Arc<str>> {
        self.world.lock().all.get(&(kind, name.to_owned())).map(|object| Arc::clone(&object.text))
    }

    /// When each attempt had its Job and its token, in that order.
    pub(super) fn launched(&self) -> Vec<Instant> {
        self.world.lock().launched.clone()
    }

    /// Every request that was refused, in words.
    pub(super) fn refused(&self) -> Vec<String> {
        self.world.lock().refused.clone()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl World {
    fn lock(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.turned.send_modify(|turn| *turn = turn.wrapping_add(1));
    }
}

async fn answer(
    State(world): State<Arc<World>>,
    Query(parameters): Query<Parameters>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    let answer = match asked(&method, uri.path(), &parameters) {
        Some((kind, verb, name)) => carry_out(&world, kind, verb, name, &parameters, &body),
        None => Err(refusal(
            StatusCode::NOT_FOUND,
            "NotFound",
            "the benchmark's cluster does not know this request",
        )),
    };
    answer.unwrap_or_else(|refusal| {
        world.lock().refused.push(format!("{method} {uri}: {}", refusal.message));
        refusal.into_response()
    })
}

/// Which resource, what with it, and the name of the object. None for what is not known here.
fn asked<'a>(method: &Method, path: &'a str, parameters: &Parameters) -> Option<(Kind, Verb, &'a str)> {
    RESOURCES.iter().find_map(|(group, plural, kind, verbs)| {
        let rest = path.strip_prefix(&format!("/{group}/namespaces/{NAMESPACE}/{plural}"))?;
        let name = if rest.is_empty() { "" } else { rest.strip_prefix('/')? };
        let watches = parameters.get("watch").is_some_and(|watch| watch == "true");
        let verb = match (method.as_str(), name.is_empty()) {
            ("POST", true) => Verb::Create,
            ("GET", true) if watches => Verb::Watch,
            ("GET", true) => Verb::List,
            ("GET", false) => Verb::Get,
            ("DELETE", false) => Verb::Delete,
            _ => return None,
        };
        (verbs.contains(&verb) && !name.contains('/')).then_some((*kind, verb, name))
    })
}

fn carry_out(
    world: &Arc<World>,
    kind: Kind,
    verb: Verb,
    name: &str,
    parameters: &Parameters,
    body: &[u8],
) -> Answer {
    match verb {
        Verb::Create => {
            let created = world.lock().create(kind, body);
            world.tell();
            Ok(object(StatusCode::CREATED, created?.as_ref().to_owned()))
        }
        Verb::Get => match world.lock().all.get(&(kind, name.to_owned())) {
            Some(found) => Ok(object(StatusCode::OK, found.text.as_ref().to_owned())),
            None => Err(not_found(name)),
        },
        Verb::List => list(world, kind, parameters),
        Verb::Watch => watch(world, kind, parameters),
        Verb::Delete => {
            let deleted = world.lock().delete(kind, name, body);
            world.tell();
            Ok(object(StatusCode::OK, deleted?))
        }
    }
}

impl Objects {
    fn of(&self, kind: Kind) -> impl Iterator<Item = (&String, &Object)> {
        self.all.iter().filter(move |((of, _), _)| *of == kind).map(|((_, name), object)| (name, object))
    }

    /// Makes what was sent, once.
    fn create(&mut self, kind: Kind, body: &[u8]) -> Result<Arc<str>, Refusal> {
        let unreadable =
            |problem: serde_json::Error| bad_request(&format!("the body is no object: {problem}"));
        let mut object: Value = serde_json::from_slice(body).map_err(unreadable)?;
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if name.is_empty() {
            return Err(bad_request("the object has no name"));
        }
        if self.all.contains_key(&(kind, name.clone())) {
            let message = format!("{name:?} already exists");
            return Err(refusal(StatusCode::CONFLICT, "AlreadyExists", &message));
        }
        if kind == Kind::Secret {
            // A token is given and not told again.
            object["stringData"] = Value::Null;
            self.launched.push(Instant::now());
        }
        if kind == Kind::Job {
            object["status"] = json!({});
        }
        let created = self.keep(kind, object.clone(), "ADDED");
        if kind == Kind::Job {
            self.start(&object, &created);
        }
        Ok(created.text)
    }

    /// What the Job controller, a scheduler of pods and a kubelet do of a new Job, at once.
    fn start(&mut self, job: &Value, kept: &Object) {
        let name = job["metadata"]["name"].as_str().unwrap_or_default();
        let template = &job["spec"]["template"];
        let owner = json!([{
            "apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": kept.uid, "controller": true,
        }]);
        let metadata = json!({
            "name": format!("{name}-pod"),
            "labels": template["metadata"]["labels"],
            "annotations": template["metadata"]["annotations"],
            "ownerReferences": owner,
        });
        let pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": template["spec"],
            "status": running(&template["spec"]),
        });
        self.keep(Kind::Pod, pod, "ADDED");
        let mut job = job.clone();
        job["metadata"]["uid"] = kept.uid.as_str().into();
        job["status"] = json!({ "active": 1, "ready": 1, "startTime": now() });
        self.keep(Kind::Job, job, "MODIFIED");
    }

    /// Keeps an object in a version of its own, and tells of it.
    fn keep(&mut self, kind: Kind, mut object: Value, change: &str) -> Object {
        self.version += 1;
        let metadata = &mut object["metadata"];
        let name = metadata["name"].as_str().unwrap_or_default().to_owned();
        let uid = match metadata["uid"].as_str() {
            Some(uid) => uid.to_owned(),
            None => format!("00000000-0000-4000-8000-{:012}", self.version),
        };
        metadata["uid"] = uid.as_str().into();
        metadata["namespace"] = NAMESPACE.into();
        metadata["resourceVersion"] = self.version.to_string().into();
        if metadata["creationTimestamp"].is_null() {
            metadata["creationTimestamp"] = now().into();
        }
        let owner = metadata["ownerReferences"][0]["uid"].as_str().map(str::to_owned);
        let labels = labels(&metadata["labels"]);
        let kept = Object { uid, owner, labels, text: object.to_string().into() };
        self.all.insert((kind, name), kept.clone());
        self.tell(kind, &kept, change);
        kept
    }

    fn tell(&mut self, kind: Kind, object: &Object, change: &str) {
        // Nobody watches the others.
        if matches!(kind, Kind::Job | Kind::Pod) {
            let line = format!("{{\"type\":\"{change}\",\"object\":{}}}\n", object.text);
            let labels = object.labels.clone();
            self.changes.push(Change { version: self.version, kind, labels, line });
        }
    }

    /// Deletes an object and all that goes with it, if it is the one that was meant.
    fn delete(&mut self, kind: Kind, name: &str, body: &[u8]) -> Result<String, Refusal> {
        let Some(object) = self.all.get(&(kind, name.to_owned())).cloned() else {
            return Err(not_found(name));
        };
        let options: Value = serde_json::from_slice(body).unwrap_or_default();
        if let Some(expected) = options["preconditions"]["uid"].as_str().filter(|uid| *uid != object.uid) {
            let message = format!("{name:?} has the uid {}, not {expected}", object.uid);
            return Err(refusal(StatusCode::CONFLICT, "Conflict", &message));
        }
        let goes = |key: &(Kind, String), other: &Object| {
            (key.0, key.1.as_str()) == (kind, name) || other.owner.as_deref() == Some(&object.uid)
        };
        let gone: Vec<_> = self.all.iter().filter(|(key, other)| goes(key, other)).collect();
        let gone: Vec<_> = gone.into_iter().map(|(key, other)| (key.clone(), other.clone())).collect();
        for (key, other) in gone {
            self.version += 1;
            self.all.remove(&key);
            self.tell(key.0, &other, "DELETED");
        }
        Ok(json!({ "apiVersion": "v1", "kind": "Status", "status": "Success" }).to_string())
    }

    /// The changes after a version, as the lines of a watch, and the version up to which they go.
    fn lines_after(&self, version: u64, kind: Kind, selector: &BTreeMap<String, String>) -> (String, u64) {
        let first = self.changes.partition_point(|change| change.version <= version);
        let new = self.changes[first..].iter();
        let lines = new.filter(|change| change.kind == kind && is_selected(&change.labels, selector));
        (lines.map(|change| change.line.as_str()).collect(), self.version)
    }
}

/// One page of the objects, in the order of their names. What changes between two pages may be seen in one of them.
fn list(world: &World, kind: Kind, parameters: &Parameters) -> Answer {
    let selector = selector(parameters)?;
    if kind != Kind::Event && parameters.contains_key("fieldSelector") {
        return Err(bad_request("field selectors are known of events alone"));
    }
    let limit = parameters.get("limit").map_or(Ok(usize::MAX), |limit| limit.parse());
    let limit = limit.map_err(|_| bad_request("the limit is no number"))?;
    let after = parameters.get("continue").map_or("", String::as_str);
    let (version, mut found) = {
        let objects = world.lock();
        let selected = objects.of(kind).filter(|(_, object)| is_selected(&object.labels, &selector));
        let rest = selected.filter(|(name, _)| name.as_str() > after);
        let found: Vec<(String, Arc<str>)> = rest
            .take(limit.saturating_add(1))
            .map(|(name, it)| (name.clone(), Arc::clone(&it.text)))
            .collect();
        (objects.version, found)
    };
    let is_more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| is_more).map_or("", |(name, _)| name.as_str());
    let metadata = json!({ "resourceVersion": version.to_string(), "continue": next });
    let mut text = format!(
        "{{\"apiVersion\":\"{}\",\"kind\":\"{kind:?}List\",\"metadata\":{metadata},\"items\":[",
        if kind == Kind::Job { "batch/v1" } else { "v1" }
    );
    for (index, (_, item)) in found.iter().enumerate() {
        let separator = if index == 0 { "" } else { "," };
        let _ = write!(text, "{separator}{item}");
    }
    text.push_str("]}");
    Ok(object(StatusCode::OK, text))
}

/// Every change from a version on, for as long as the request wants.
fn watch(world: &Arc<World>, kind: Kind, parameters: &Parameters) -> Answer {
    let selector = selector(parameters)?;
    let from = parameters.get("resourceVersion").and_then(|version| version.parse::<u64>().ok());
    let from = from.ok_or_else(|| bad_request("a watch from no version is not known here"))?;
    let lasts = parameters.get("timeoutSeconds").map_or(Ok(WATCH), |seconds| seconds.parse());
    let lasts = Duration::from_secs(lasts.map_err(|_| bad_request("the timeout is no number"))?);
    let ends = tokio::time::Instant::now() + lasts;
    let seen = (from, world.turned.subscribe(), Arc::clone(world));
    let lines = stream::unfold(seen, move |(mut from, mut turned, world)| {
        let selector = selector.clone();
        async move {
            loop {
                let lines;
                (lines, from) = world.lock().lines_after(from, kind, &selector);
                if !lines.is_empty() {
                    return Some((Ok::<_, Infallible>(lines), (from, turned, world)));
                }
                match tokio::time::timeout_at(ends, turned.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return None,
                }
            }
        }
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response())
}

/// The status of a pod whose first container has ended and whose others run, up to the one that comes last.
fn running(spec: &Value) -> Value {
    let names = |list: &str| -> Vec<String> {
        let containers = spec[list].as_array().map(Vec::as_slice).unwrap_or_default();
        containers.iter().filter_map(|container| Some(container["name"].as_str()?.to_owned())).collect()
    };
    let status = |name: &String, state: Value| json!({ "name": name, "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": state });
    let ended = json!({ "terminated": { "exitCode": 0, "startedAt": now(), "finishedAt": now() } });
    let runs = json!({ "running": { "startedAt": now() } });
    let waits = json!({ "waiting": { "reason": "PodInitializing" } });
    let before = names("initContainers");
    let before = before.iter().enumerate();
    let before: Vec<Value> = before
        .map(|(index, name)| status(name, if index == 0 { ended.clone() } else { runs.clone() }))
        .collect();
    let last: Vec<Value> = names("containers").iter().map(|name| status(name, waits.clone())).collect();
    json!({
        "phase": "Running",
        "startTime": now(),
        "conditions": [{ "type": "PodScheduled", "status": "True", "lastTransitionTime": now() }],
        "initContainerStatuses": before,
        "containerStatuses": last,
    })
}

/// A label selector; only equality is known.
fn selector(parameters: &Parameters) -> Result<BTreeMap<String, String>, Refusal> {
    let Some(text) = parameters.get("labelSelector") else { return Ok(BTreeMap::new()) };
    let equals = text.split(',').map(|term| {
        let known =
            term.split_once('=').filter(|(key, value)| !format!("{key}{value}").contains(['=', '!', ' ']));
        known.map(|(key, value)| (key.to_owned(), value.to_owned()))
    });
    let known: Option<BTreeMap<String, String>> = equals.collect();
    known.ok_or_else(|| bad_request("the label selector is more than is known here"))
}

fn is_selected(labels: &BTreeMap<String, String>, selector: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn labels(labels: &Value) -> BTreeMap<String, String> {
    let pairs = labels.as_object().into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn object(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}

fn not_found(name: &str) -> Refusal {
    refusal(StatusCode::NOT_FOUND, "NotFound", &format!("{name:?} not found"))
}

fn bad_request(message: &str) -> Refusal {
    refusal(StatusCode::BAD_REQUEST, "BadRequest", message)
}

fn refusal(status: StatusCode, reason: &'static str, message: &str) -> Refusal {
    Refusal { status, reason, message: message.to_owned() }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { status, reason, message } = self;
        let text = json!({
            "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": status.as_u16(),
        });
        object(status, text.to_string())
    }
}

#[cfg(test)]
mod tests {
    use kube::api::{Api, DeleteParams, DynamicObject, ListParams, PostParams, Preconditions};
    use kube::core::{ApiResource, GroupVersionKind};

    use super::*;

    async fn jobs(server: &ApiServer) -> Api<DynamicObject> {
        let jobs = ApiResource::from_gvk(&GroupVersionKind::gvk("batch", "v1", "Job"));
        Api::namespaced_with(server.client().unwrap(), NAMESPACE, &jobs)
    }

    fn job(name: &str) -> DynamicObject {
        let template =
            json!({ "metadata": { "labels": { "app": "a" } }, "spec": { "containers": [{ "name": "c" }] } });
        let job = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": name, "labels": { "app": "a" } },
            "spec": { "template": template },
        });
        serde_json::from_value(job).unwrap()
    }

    fn code<T: std::fmt::Debug>(answer: kube::Result<T>) -> u16 {
        let kube::Error::Api(status) = answer.unwrap_err() else { panic!("no answer of an API server") };
        status.code
    }

    #[tokio::test]
    async fn a_job_is_made_once_runs_at_once_and_goes_with_its_pod() {
        let server = ApiServer::start(&[]).await.unwrap();
        let jobs = jobs(&server).await;
        let made = jobs.create(&PostParams::default(), &job("one")).await.unwrap();
        assert_eq!(code(jobs.create(&PostParams::default(), &job("one")).await), 409);
        jobs.create(&PostParams::default(), &job("two")).await.unwrap();
        assert_eq!(server.names(Kind::Pod), ["one-pod", "two-pod"]);
        let found = jobs.get("one").await.unwrap();
        assert_eq!(
            (found.metadata.uid.as_ref(), &found.data["status"]["active"]),
            (made.metadata.uid.as_ref(), &1.into())
        );

        let first = jobs.list(&ListParams::default().labels("app=a").limit(1)).await.unwrap();
        let next = first.metadata.continue_.unwrap();
        let second =
            jobs.list(&ListParams::default().labels("app=a").limit(1).continue_token(&next)).await.unwrap();
        assert_eq!((first.items.len(), second.items[0].metadata.name.as_deref()), (1, Some("two")));
        assert!(jobs.list(&ListParams::default().labels("app=b")).await.unwrap().items.is_empty());

        let another = Preconditions { uid: Some("another".to_owned()), resource_version: None };
        let deletes = DeleteParams::background().preconditions(another);
        assert_eq!(code(jobs.delete("one", &deletes).await), 409);
        jobs.delete("one", &DeleteParams::background()).await.unwrap();
        assert_eq!(code(jobs.delete("one", &DeleteParams::background()).await), 404);
        assert_eq!(
            (server.names(Kind::Job), server.names(Kind::Pod)),
            (vec!["two".to_owned()], vec!["two-pod".to_owned()])
        );
    }

    #[tokio::test]
    async fn what_is_not_known_is_refused_and_remembered() {
        let server = ApiServer::start(&[]).await.unwrap();
        let jobs = jobs(&server).await;
        assert_eq!(code(jobs.replace("one", &PostParams::default(), &job("one")).await), 404);
        assert_eq!(code(jobs.list(&ListParams::default().labels("app!=a")).await), 400);
        let refused = server.refused();
        assert!(
            refused[0].starts_with("PUT /apis/batch/v1/namespaces/leviathan-bench/jobs/one"),
            "{refused:?}"
        );
        assert_eq!(refused.len(), 2);
    }
}
