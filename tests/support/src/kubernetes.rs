//! A Kubernetes API server for tests: the objects that a launcher of Jobs works with, stateful, over HTTP on a
//! loopback port, with versions, watches, owners and garbage, Roles, quotas and Pod Security. Requests that a real
//! API server would refuse are refused the same way; those that no correct client makes are written down, and a test
//! that made one fails when the cluster is dropped.
//!
//! Nothing happens by itself in it: the Job controller takes a step when the test says so, and what a kubelet, a
//! scheduler or somebody with `kubectl` does is a verb of [`Cluster`]. Its verbs do not ask for permission.
//!
//! What it does not speak: server-side apply, JSON patches, strategic merge patches, protocol buffers, logs, `exec`.

mod access;
mod connection;
mod controller;
mod defaults;
mod faults;
mod http;
mod kubelet;
mod pod_security;
mod refusal;
mod resources;
mod schema;
mod selectors;
mod store;
mod validation;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;

use self::access::Account;
pub use self::access::Use;
use self::connection::Server;
use self::faults::Pending;
pub use self::faults::{Fault, Harm};
use self::resources::by_plural;
use self::store::{DeleteOptions, State, Strictness, text};

/// The namespace that an object is put into that names none.
pub const NAMESPACE: &str = "leviathan";

const TOKEN: &str = "token-of-the-cluster-admin";

/// A cluster with nodes that a test plays.
#[derive(Debug)]
pub struct Cluster {
    server: Server,
    world: Arc<World>,
}

/// How a watch learns that its version is too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// As an `ERROR` event in an answer with status 200: what the watch cache does.
    AsEvent,
    /// As an answer with status 410.
    AsAnswer,
}

/// A request as it was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The HTTP method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The query, as it was sent.
    pub query: String,
    /// The namespace; empty for all of them.
    pub namespace: String,
    /// What it did, in the words of a Role.
    pub used: Use,
    /// The bearer token.
    pub token: String,
    /// The JSON that was sent; null if there was none.
    pub body: Value,
    /// The status that it was answered with; 0 when the connection was broken instead.
    pub status: u16,
}

/// What the requests and the test share.
#[derive(Debug)]
struct World {
    state: Mutex<State>,
    /// Told after everything that may have changed something.
    turned: watch::Sender<u64>,
}

impl World {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something, and wakes those who watch.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let done = act(&mut self.lock());
        self.turned.send_modify(|turn| *turn += 1);
        done
    }
}

impl Cluster {
    /// A cluster with the namespaces `default`, `kube-system` and [`NAMESPACE`], and in the latter the service
    /// accounts `default` and `leviathan-executor`. Its pods have to keep to Pod Security `restricted`.
    pub fn start() -> Self {
        let (turned, _) = watch::channel(0);
        let world = Arc::new(World { state: Mutex::new(State::new()), turned });
        let admin = Account { user: "admin".into(), roles: None };
        world.lock().accounts.insert(TOKEN.into(), admin);
        let server = Server::start(http::router(Arc::clone(&world)), 0);
        Self { server, world }
    }

    /// The address of the API server.
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// A token that everything is granted to.
    pub fn token(&self) -> &'static str {
        TOKEN
    }

    /// A kubeconfig with the token that everything is granted to.
    pub fn kubeconfig(&self) -> String {
        self.kubeconfig_of(TOKEN)
    }

    /// A kubeconfig with this token.
    pub fn kubeconfig_of(&self, token: &str) -> String {
        let cluster = json!({ "name": "fake", "cluster": { "server": self.url() } });
        let user = json!({ "name": "fake", "user": { "token": token } });
        let context = json!({ "cluster": "fake", "user": "fake", "namespace": NAMESPACE });
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "fake", "clusters": [cluster],
            "users": [user], "contexts": [{ "name": "fake", "context": context }],
        })
        .to_string()
    }

    /// Grants these Roles to whoever knows a token, as the service account of this name; nothing else is granted to
    /// it. Returns the token.
    pub fn service_account(&self, name: &str, roles: &[Value]) -> String {
        let token = format!("token-of-{name}");
        let user = format!("system:serviceaccount:{NAMESPACE}:{name}");
        let account = Account { user, roles: Some(roles.to_vec()) };
        self.world.with(|state| state.accounts.insert(token.clone(), account));
        token
    }

    /// A token is not known any more.
    pub fn revoke(&self, token: &str) {
        self.world.with(|state| state.accounts.remove(token));
    }

    /// Stops answering: connections are refused. What is stored stays.
    pub fn stop(&mut self) {
        self.server.stop();
    }

    /// Answers again after a stop, at the same address.
    pub fn start_again(&mut self) {
        self.server.stop();
        let port = self.server.address.port();
        self.server = Server::start(http::router(Arc::clone(&self.world)), port);
    }

    /// All objects of a resource, such as `jobs`, in the order of their names.
    pub fn objects(&self, resource: &str) -> Vec<Value> {
        let state = self.world.lock();
        state.at(state.version, by_plural(resource)).into_values().collect()
    }

    /// An object of [`NAMESPACE`].
    pub fn object(&self, resource: &str, name: &str) -> Option<Value> {
        self.world.lock().get(by_plural(resource), NAMESPACE, name).ok().cloned()
    }

    /// Somebody applies an object: creates it, or merges it into the one that is there.
    pub fn put(&self, resource: &str, mut object: Value) -> Value {
        let kind = by_plural(resource);
        let namespace = match text(&object, "/metadata/namespace") {
            "" => NAMESPACE.to_owned(),
            namespace => namespace.to_owned(),
        };
        object["metadata"]["namespace"] = namespace.clone().into();
        let name = text(&object, "/metadata/name").to_owned();
        self.world.with(|state| {
            let there = state.get(kind, &namespace, &name).is_ok();
            let written = if there {
                state.patch(kind, &namespace, &name, "", &object, Strictness::Strict)
            } else {
                state.create(kind, &namespace, object, Strictness::Strict)
            };
            written.unwrap_or_else(|refusal| panic!("{resource} {name:?}: {}", refusal.message())).object
        })
    }

    /// Somebody deletes an object of [`NAMESPACE`] as `kubectl delete` does, with everything that it owns.
    pub fn remove(&self, resource: &str, name: &str) {
        let kind = by_plural(resource);
        self.world.with(|state| {
            let deleted = state.delete(kind, NAMESPACE, name, &DeleteOptions::background());
            deleted.unwrap_or_else(|refusal| panic!("{resource} {name:?}: {}", refusal.message()))
        });
    }

    /// Lets something go wrong once.
    pub fn fault(&self, fault: Fault) {
        self.world.with(|state| state.faults.push(Pending { fault, seen: 0 }));
    }

    /// Every request so far, refused ones too, in the order in which they were answered.
    pub fn requests(&self) -> Vec<Request> {
        self.world.lock().requests.clone()
    }

    /// What the requests with a token did, without names: what a Role has to grant.
    pub fn uses(&self, token: &str) -> BTreeSet<Use> {
        let state = self.world.lock();
        let own = state.requests.iter().filter(|request| request.token == token);
        own.filter(|request| !request.used.resource.is_empty())
            .map(|request| Use { name: String::new(), ..request.used.clone() })
            .collect()
    }

    /// Requests that no correct client makes; asking forgives them.
    pub fn illegal(&self) -> Vec<String> {
        std::mem::take(&mut self.world.lock().illegal)
    }

    /// How many Jobs the quota of a namespace allows.
    pub fn quota_jobs(&self, quota: Option<usize>) {
        self.world.with(|state| state.quota_jobs = quota);
    }

    /// How many pods the quota of a namespace allows.
    pub fn quota_pods(&self, quota: Option<usize>) {
        self.world.with(|state| state.quota_pods = quota);
    }

    /// Whether pods have to keep to Pod Security `restricted`.
    pub fn restricted(&self, restricted: bool) {
        self.world.with(|state| state.restricted = restricted);
    }

    /// Knows a RuntimeClass.
    pub fn runtime_class(&self, name: &str) {
        self.world.with(|state| state.runtime_classes.insert(name.into()));
    }

    /// Stops the clock at this time; until then it is the real one.
    pub fn set_time(&self, now: Timestamp) {
        self.world.with(|state| state.now = Some(now));
    }

    /// Forgets the versions so far: watches from them are told that they are gone.
    pub fn compact(&self) {
        self.world.with(|state| state.compacted = state.version + 1);
        // The present version itself has to stay readable, so there is one more.
        self.world.with(|state| state.version += 1);
    }

    /// How a watch learns that its version is too old.
    pub fn gone(&self, how: Gone) {
        self.world.with(|state| state.gone = how);
    }

    /// Ends all watches, as an API server does from time to time.
    pub fn close_watches(&self) {
        self.world.with(|state| state.watch_generation += 1);
    }

    /// Sends a bookmark to every watch that takes them.
    pub fn bookmark(&self) {
        self.world.with(|state| state.bookmarks += 1);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let illegal = self.illegal();
        if !std::thread::panicking() {
            assert!(illegal.is_empty(), "Kubernetes was asked what it does not understand: {illegal:#?}");
        }
    }
}
