//! The objects, their versions and what became of them: creating, replacing, patching, deleting, garbage.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::access::Account;
use super::defaults::fill_in;
use super::pod_security;
use super::refusal::{Problem, Refusal};
use super::resources::{RESOURCES, Resource, by_plural};
use super::schema;
use super::validation;
use super::{Gone, NAMESPACE, Request};
use crate::kubernetes::faults::Pending;

/// Where an object is: resource, namespace, name.
pub(super) type Key = (&'static str, String, String);

/// One change, for those who watch.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) key: Key,
    pub(super) before: Option<Value>,
    /// What it is now; what it was last if it is gone.
    pub(super) object: Value,
    pub(super) deleted: bool,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) now: Option<Timestamp>,
    pub(super) version: u64,
    /// Versions before this one are forgotten.
    pub(super) compacted: u64,
    pub(super) counter: u64,
    pub(super) objects: BTreeMap<Key, Value>,
    pub(super) history: Vec<Change>,
    pub(super) namespaces: BTreeSet<String>,
    pub(super) accounts: BTreeMap<String, Account>,
    pub(super) faults: Vec<Pending>,
    pub(super) requests: Vec<Request>,
    pub(super) illegal: Vec<String>,
    pub(super) quota_jobs: Option<usize>,
    pub(super) quota_pods: Option<usize>,
    pub(super) restricted: bool,
    pub(super) runtime_classes: BTreeSet<String>,
    pub(super) gone: Gone,
    /// Watches that began under an earlier number end.
    pub(super) watch_generation: u64,
    pub(super) bookmarks: u64,
}

/// What a delete says.
#[derive(Debug, Clone, Default)]
pub(super) struct DeleteOptions {
    pub(super) propagation: Option<String>,
    pub(super) grace: Option<i64>,
    pub(super) uid: Option<String>,
    pub(super) version: Option<String>,
}

impl DeleteOptions {
    pub(super) fn background() -> Self {
        Self { propagation: Some("Background".into()), ..Self::default() }
    }
}

/// What came of a delete.
#[derive(Debug)]
pub(super) enum Deleted {
    Gone(Value),
    /// Something has to happen first.
    Marked(Value),
}

/// An answer to a write: the object, and warnings.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) object: Value,
    pub(super) warnings: Vec<String>,
}

/// How unknown fields are met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strictness {
    Ignore,
    Warn,
    Strict,
}

pub(super) const FOREGROUND: &str = "foregroundDeletion";
const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

impl State {
    pub(super) fn new() -> Self {
        let mut state = Self {
            now: None,
            version: 1000,
            compacted: 0,
            counter: 0,
            objects: BTreeMap::new(),
            history: Vec::new(),
            namespaces: ["default", "kube-system", NAMESPACE].map(str::to_owned).into(),
            accounts: BTreeMap::new(),
            faults: Vec::new(),
            requests: Vec::new(),
            illegal: Vec::new(),
            quota_jobs: None,
            quota_pods: None,
            restricted: true,
            runtime_classes: BTreeSet::new(),
            gone: Gone::AsEvent,
            watch_generation: 0,
            bookmarks: 0,
        };
        for name in ["default", "leviathan-executor"] {
            let account = json!({ "metadata": { "name": name } });
            let made = state.create(by_plural("serviceaccounts"), NAMESPACE, account, Strictness::Strict);
            made.expect("a service account is valid");
        }
        state
    }

    /// The time, in whole seconds as Kubernetes writes it.
    pub(super) fn time(&self) -> String {
        self.timestamp().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    pub(super) fn timestamp(&self) -> Timestamp {
        self.now.unwrap_or_else(Timestamp::now)
    }

    /// A number that was not given before.
    pub(super) fn next_number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn next_uid(&mut self) -> String {
        let number = self.next_number();
        format!("{number:08x}-0000-4000-8000-{number:012x}")
    }

    /// Five characters, as the end of a generated name has them.
    pub(super) fn suffix(&mut self) -> String {
        let alphabet = b"bcdfghjklmnpqrstvwxz2456789";
        let mut number = self.next_number().wrapping_mul(2_654_435_761) % 14_348_907;
        let mut suffix = String::new();
        for _ in 0..5 {
            let at = usize::try_from(number % 27).expect("a small number");
            suffix.push(char::from(alphabet[at]));
            number /= 27;
        }
        suffix
    }

    pub(super) fn get(&self, resource: &Resource, namespace: &str, name: &str) -> Result<&Value, Refusal> {
        let key = (resource.plural, namespace.to_owned(), name.to_owned());
        self.objects.get(&key).ok_or_else(|| Refusal::not_found(resource, name))
    }

    /// The objects of a resource as they were at a version.
    pub(super) fn at(&self, version: u64, resource: &Resource) -> BTreeMap<Key, Value> {
        let mut objects = BTreeMap::new();
        if version >= self.version {
            let all = self.objects.iter().filter(|(key, _)| key.0 == resource.plural);
            objects.extend(all.map(|(key, object)| (key.clone(), object.clone())));
            return objects;
        }
        let past = self.history.iter().take_while(|change| change.version <= version);
        for change in past.filter(|change| change.key.0 == resource.plural) {
            if change.deleted {
                objects.remove(&change.key);
            } else {
                objects.insert(change.key.clone(), change.object.clone());
            }
        }
        objects
    }

    /// Keeps an object under the next version.
    pub(super) fn keep(&mut self, key: Key, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let before = self.objects.insert(key.clone(), object.clone());
        let change = Change { version: self.version, key, before, object: object.clone(), deleted: false };
        self.history.push(change);
        object
    }

    /// Lets an object go.
    pub(super) fn let_go(&mut self, key: &Key) -> Option<Value> {
        let before = self.objects.remove(key)?;
        self.version += 1;
        let mut object = before.clone();
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.history.push(Change {
            version: self.version,
            key: key.clone(),
            before: Some(before),
            object: object.clone(),
            deleted: true,
        });
        Some(object)
    }

    /// Changes an object in place, as a controller or the kubelet does, without asking whether that is valid.
    pub(super) fn change(&mut self, key: &Key, act: impl FnOnce(&mut Value)) -> Value {
        let before = self.objects.get(key);
        let before = before.unwrap_or_else(|| panic!("there is no {} {}/{}", key.0, key.1, key.2)).clone();
        let mut object = before.clone();
        act(&mut object);
        if object == before { object } else { self.keep(key.clone(), object) }
    }

    pub(super) fn create(
        &mut self,
        resource: &'static Resource,
        namespace: &str,
        object: Value,
        strictness: Strictness,
    ) -> Result<Written, Refusal> {
        let mut written = decode(resource, object, strictness)?;
        let object = &mut written.object;
        let metadata = place(resource, namespace, object)?;
        if !self.namespaces.contains(namespace) {
            return Err(Refusal::no_such_namespace(namespace));
        }
        if metadata.contains_key("resourceVersion") {
            return Err(Refusal::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let generated = metadata.get("generateName").and_then(Value::as_str).map(str::to_owned);
        if let (None, Some(prefix)) = (metadata.get("name"), generated) {
            let kept: String = prefix.chars().take(58).collect();
            let name = format!("{kept}{}", self.suffix());
            metadata.insert("name".into(), name.into());
        }
        for own in ["uid", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "creationTimestamp"]
        {
            metadata.remove(own);
        }
        let uid = self.next_uid();
        let metadata = object["metadata"].as_object_mut().expect("made by place");
        metadata.insert("uid".into(), uid.into());
        metadata.insert("creationTimestamp".into(), self.time().into());
        if resource.has_status {
            metadata.insert("generation".into(), 1.into());
            let begun = if resource.plural == "pods" { json!({ "phase": "Pending" }) } else { json!({}) };
            object["status"] = begun;
        }
        fill_in(resource, object);
        let name = text(object, "/metadata/name").to_owned();
        self.admit(resource, namespace, &name, object)?;
        written.warnings.extend(pod_security::warnings(resource, object, self.restricted));
        let problems = validation::problems(resource, object);
        if !problems.is_empty() {
            return Err(Refusal::invalid(resource, &name, &problems));
        }
        let key = (resource.plural, namespace.to_owned(), name);
        if self.objects.contains_key(&key) {
            return Err(Refusal::already_exists(resource, &key.2));
        }
        let object = written.object;
        written.object = self.keep(key, object);
        self.collect_garbage();
        Ok(written)
    }

    /// What admission refuses before it is known whether the object is there already.
    fn admit(
        &mut self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        object: &mut Value,
    ) -> Result<(), Refusal> {
        let there = self.objects.keys().filter(|key| key.0 == resource.plural && key.1 == namespace).count();
        let quota = match resource.plural {
            "jobs" => self.quota_jobs.map(|quota| ("count/jobs.batch", quota)),
            "pods" => self.quota_pods.map(|quota| ("pods", quota)),
            _ => None,
        };
        if let Some((what, quota)) = quota.filter(|(_, quota)| there >= *quota) {
            let why = format!(
                "exceeded quota: {namespace}, requested: {what}=1, used: {what}={there}, limited: {what}={quota}"
            );
            return Err(Refusal::forbidden(resource, name, &why));
        }
        if resource.plural != "pods" {
            return Ok(());
        }
        let account = text(object, "/spec/serviceAccountName").to_owned();
        if self.get(by_plural("serviceaccounts"), namespace, &account).is_err() {
            let why = format!(
                "error looking up service account {namespace}/{account}: serviceaccount {account:?} not found"
            );
            return Err(Refusal::forbidden(resource, name, &why));
        }
        let class = text(object, "/spec/runtimeClassName");
        if !class.is_empty() && !self.runtime_classes.contains(class) {
            let why = format!("pod rejected: RuntimeClass {class:?} not found");
            return Err(Refusal::forbidden(resource, name, &why));
        }
        if object.pointer("/spec/automountServiceAccountToken") != Some(&false.into()) {
            mount_token(object);
        }
        let violations = pod_security::violations(&object["spec"]);
        if self.restricted && !violations.is_empty() {
            let why = format!("violates PodSecurity \"restricted:latest\": {}", violations.join(", "));
            return Err(Refusal::forbidden(resource, name, &why));
        }
        Ok(())
    }

    /// Takes an object in the place of the one that is there. `subresource` is `status` or empty.
    pub(super) fn replace(
        &mut self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        subresource: &str,
        object: Value,
        strictness: Strictness,
    ) -> Result<Written, Refusal> {
        let mut written = decode(resource, object, strictness)?;
        let metadata = place(resource, namespace, &mut written.object)?;
        if metadata.get("name").and_then(Value::as_str) != Some(name) {
            let given = metadata.get("name").and_then(Value::as_str).unwrap_or_default();
            return Err(Refusal::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({name})"
            )));
        }
        let version = metadata.get("resourceVersion").and_then(Value::as_str).map(str::to_owned);
        let before = match self.get(resource, namespace, name) {
            Ok(before) => before.clone(),
            // A Lease may be created by a replace; one that names a version is not asking for that.
            Err(_) if resource.plural == "leases" && version.is_none() && subresource.is_empty() => {
                return self.create(resource, namespace, written.object, strictness);
            }
            Err(refusal) => return Err(refusal),
        };
        let after = &mut written.object;
        let uid = text(after, "/metadata/uid");
        if !uid.is_empty() && uid != text(&before, "/metadata/uid") {
            let why = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                text(&before, "/metadata/uid")
            );
            return Err(Refusal::conflict(resource, name, &why));
        }
        match version {
            Some(version) if version != text(&before, "/metadata/resourceVersion") => {
                return Err(Refusal::conflict(resource, name, MODIFIED));
            }
            None if !resource.unconditional => {
                let field = "metadata.resourceVersion";
                let problem = Problem::invalid(field, &"".into(), "must be specified for an update");
                return Err(Refusal::invalid(resource, name, &[problem]));
            }
            _ => {}
        }
        for own in
            ["uid", "creationTimestamp", "resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds"]
        {
            keep_from(&before, after, own);
        }
        keep_from(&before, after, "generation");
        if subresource == "status" {
            let status = std::mem::take(&mut after["status"]);
            *after = before.clone();
            after["status"] = if status.is_null() { json!({}) } else { status };
        } else {
            if resource.has_status {
                after["status"] = before["status"].clone();
            }
            fill_in(resource, after);
            if resource.has_status && after["spec"] != before["spec"] {
                let generation = before["metadata"]["generation"].as_u64().unwrap_or(1) + 1;
                after["metadata"]["generation"] = generation.into();
            }
            let mut problems = validation::problems(resource, after);
            problems.extend(validation::problems_of_change(resource, &before, after));
            if !problems.is_empty() {
                return Err(Refusal::invalid(resource, name, &problems));
            }
        }
        if *after == before {
            return Ok(written);
        }
        let key = (resource.plural, namespace.to_owned(), name.to_owned());
        let object = written.object;
        written.object = self.keep(key.clone(), object);
        self.finish_deletion(&key);
        self.collect_garbage();
        Ok(written)
    }

    /// Applies a merge patch.
    pub(super) fn patch(
        &mut self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        subresource: &str,
        patch: &Value,
        strictness: Strictness,
    ) -> Result<Written, Refusal> {
        let mut after = self.get(resource, namespace, name)?.clone();
        merge(&mut after, patch);
        // Without a version in the patch, the newest object is what is patched.
        self.replace(resource, namespace, name, subresource, after, strictness)
    }

    pub(super) fn delete(
        &mut self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted, Refusal> {
        let before = self.get(resource, namespace, name)?.clone();
        let key: Key = (resource.plural, namespace.to_owned(), name.to_owned());
        let expected = [
            ("UID", &options.uid, "/metadata/uid"),
            ("ResourceVersion", &options.version, "/metadata/resourceVersion"),
        ];
        for (what, expected, pointer) in expected {
            let there = text(&before, pointer);
            if let Some(expected) = expected.as_deref().filter(|expected| *expected != there) {
                let why = format!(
                    "Precondition failed: {what} in precondition: {expected}, {what} in object meta: {there}"
                );
                return Err(Refusal::conflict(resource, name, &why));
            }
        }
        // Jobs of batch/v1 leave their pods behind unless they are told otherwise.
        let propagation = options.propagation.as_deref().unwrap_or("Background");
        let orphan = propagation == "Orphan" || (options.propagation.is_none() && resource.plural == "jobs");
        let uid = text(&before, "/metadata/uid").to_owned();
        if orphan {
            self.orphan_dependents(&uid);
        }
        let mut marked = before;
        if propagation == "Foreground" && !self.dependents(&uid).is_empty() {
            add_finalizer(&mut marked, FOREGROUND);
        }
        let grace = self.grace(resource, &marked, options.grace);
        let finalizers = marked["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
        if grace == 0 && !finalizers {
            let object = self.let_go(&key).expect("it was there");
            self.collect_garbage();
            return Ok(Deleted::Gone(object));
        }
        if marked["metadata"]["deletionTimestamp"].is_null() {
            let at = self.timestamp() + jiff::SignedDuration::from_secs(grace);
            marked["metadata"]["deletionTimestamp"] = at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
            marked["metadata"]["deletionGracePeriodSeconds"] = grace.into();
            if resource.has_status {
                let generation = marked["metadata"]["generation"].as_u64().unwrap_or(1) + 1;
                marked["metadata"]["generation"] = generation.into();
            }
        } else if grace == 0 {
            marked["metadata"]["deletionGracePeriodSeconds"] = 0.into();
        }
        let object = self.change(&key, |object| *object = marked);
        self.collect_garbage();
        match self.objects.get(&key) {
            Some(object) => Ok(Deleted::Marked(object.clone())),
            None => Ok(Deleted::Gone(object)),
        }
    }

    /// How long an object may go on after it was deleted: only a pod on a node may.
    fn grace(&self, resource: &Resource, object: &Value, asked: Option<i64>) -> i64 {
        if resource.plural != "pods"
            || text(object, "/spec/nodeName").is_empty()
            || ["Succeeded", "Failed"].contains(&text(object, "/status/phase"))
        {
            return 0;
        }
        asked.or_else(|| object["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30)
    }

    /// Lets a deleted object go when nothing holds it any more.
    pub(super) fn finish_deletion(&mut self, key: &Key) {
        let Some(object) = self.objects.get(key) else { return };
        let metadata = &object["metadata"];
        let held = metadata["finalizers"].as_array().is_some_and(|all| !all.is_empty())
            || self.grace(by_plural(key.0), object, metadata["deletionGracePeriodSeconds"].as_i64()) > 0;
        if !metadata["deletionTimestamp"].is_null() && !held {
            self.let_go(key);
        }
    }

    /// The objects that name this one as an owner.
    pub(super) fn dependents(&self, uid: &str) -> Vec<Key> {
        let owned = self.objects.iter().filter(|(_, object)| owners(object).any(|owner| owner == uid));
        owned.map(|(key, _)| key.clone()).collect()
    }

    fn orphan_dependents(&mut self, uid: &str) {
        for key in self.dependents(uid) {
            self.change(&key, |object| {
                if let Some(owners) = object["metadata"]["ownerReferences"].as_array_mut() {
                    owners.retain(|owner| owner["uid"] != uid);
                }
                remove_finalizer(object, super::controller::TRACKING);
            });
        }
    }

    /// Deletes what has owners none of which is there, and finishes deletions that waited for their dependents.
    pub(super) fn collect_garbage(&mut self) {
        loop {
            let alive: BTreeSet<&str> = self
                .objects
                .values()
                .filter(|object| !is_foreground(object))
                .map(|object| text(object, "/metadata/uid"))
                .collect();
            let garbage: Vec<Key> = self
                .objects
                .iter()
                .filter(|(_, object)| object["metadata"]["deletionTimestamp"].is_null())
                .filter(|(_, object)| owners(object).next().is_some())
                .filter(|(_, object)| owners(object).all(|owner| !alive.contains(owner)))
                .map(|(key, _)| key.clone())
                .collect();
            let waiting: Vec<Key> = self
                .objects
                .iter()
                .filter(|(_, object)| is_foreground(object))
                .filter(|(_, object)| self.dependents(text(object, "/metadata/uid")).is_empty())
                .map(|(key, _)| key.clone())
                .collect();
            if garbage.is_empty() && waiting.is_empty() {
                return;
            }
            for key in waiting {
                self.change(&key, |object| remove_finalizer(object, FOREGROUND));
                self.finish_deletion(&key);
            }
            for key in garbage {
                // Deleting other garbage may have taken it along already.
                if !self.objects.contains_key(&key) {
                    continue;
                }
                // A pod without its Job is not counted by anybody: its finalizer goes.
                self.change(&key, |object| remove_finalizer(object, super::controller::TRACKING));
                let resource = RESOURCES.iter().find(|resource| resource.plural == key.0);
                let resource = resource.expect("only what is served is kept");
                // It was there when the garbage was listed; deleting other garbage may have taken it along.
                let _ = self.delete(resource, &key.1, &key.2, &DeleteOptions::background());
            }
        }
    }
}

/// A text in an object, empty if there is none.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn add_finalizer(object: &mut Value, finalizer: &str) {
    let finalizers = &mut object["metadata"]["finalizers"];
    if finalizers.is_null() {
        *finalizers = json!([]);
    }
    let finalizers = finalizers.as_array_mut().expect("finalizers are a list");
    if !finalizers.iter().any(|one| one == finalizer) {
        finalizers.push(finalizer.into());
    }
}

pub(super) fn remove_finalizer(object: &mut Value, finalizer: &str) {
    let metadata = &mut object["metadata"];
    if let Some(finalizers) = metadata["finalizers"].as_array_mut() {
        finalizers.retain(|one| one != finalizer);
    }
    let metadata = metadata.as_object_mut().expect("every object has metadata");
    if metadata.get("finalizers").is_none_or(|all| all.as_array().is_none_or(Vec::is_empty)) {
        metadata.remove("finalizers");
    }
}

fn owners(object: &Value) -> impl Iterator<Item = &str> {
    let owners = object["metadata"]["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
    owners.iter().filter_map(|owner| owner["uid"].as_str())
}

fn is_foreground(object: &Value) -> bool {
    let metadata = &object["metadata"];
    let finalizers = metadata["finalizers"].as_array().map(Vec::as_slice).unwrap_or_default();
    !metadata["deletionTimestamp"].is_null() && finalizers.iter().any(|one| one == FOREGROUND)
}

fn keep_from(before: &Value, after: &mut Value, field: &str) {
    let metadata = after["metadata"].as_object_mut().expect("made by place");
    let value = before["metadata"][field].clone();
    if value.is_null() {
        metadata.remove(field);
    } else {
        metadata.insert(field.into(), value);
    }
}

/// Reads an object as its kind, and drops what the kind does not know, or says so.
fn decode(resource: &Resource, mut object: Value, strictness: Strictness) -> Result<Written, Refusal> {
    let kind = object["kind"].as_str().unwrap_or(resource.kind).to_owned();
    let version = object["apiVersion"].as_str().unwrap_or(&resource.api_version()).to_owned();
    if kind != resource.kind || version != resource.api_version() {
        return Err(Refusal::bad_request(format!(
            "the API version in the data ({version}, Kind={kind}) does not match the expected API version \
             ({}, Kind={})",
            resource.api_version(),
            resource.kind
        )));
    }
    let Some(fields) = object.as_object_mut() else {
        return Err(Refusal::bad_request("the object provided is unrecognized: it is not a JSON object"));
    };
    fields.insert("kind".into(), kind.clone().into());
    fields.insert("apiVersion".into(), version.into());
    let cannot = format!("{kind} in version \"v1\" cannot be handled as a {kind}");
    let unknown = schema::drop_unknown_fields(resource, &mut object)
        .map_err(|problem| Refusal::bad_request(format!("{cannot}: json: {problem}")))?;
    let words: Vec<String> = unknown.iter().map(|field| format!("unknown field {field:?}")).collect();
    if strictness == Strictness::Strict && !words.is_empty() {
        return Err(Refusal::bad_request(format!("{cannot}: strict decoding error: {}", words.join(", "))));
    }
    let warnings = if strictness == Strictness::Warn { words } else { Vec::new() };
    Ok(Written { object, warnings })
}

/// Puts the object into its namespace.
fn place<'a>(
    resource: &Resource,
    namespace: &str,
    object: &'a mut Value,
) -> Result<&'a mut Map<String, Value>, Refusal> {
    if object["metadata"].is_null() {
        object["metadata"] = json!({});
    }
    let Some(metadata) = object["metadata"].as_object_mut() else {
        return Err(Refusal::bad_request(format!("{}: metadata is not a JSON object", resource.kind)));
    };
    let given = metadata.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
    if given != namespace {
        return Err(Refusal::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    metadata.insert("namespace".into(), namespace.into());
    metadata.retain(|_, value| !value.is_null());
    Ok(metadata)
}

/// A merge patch, as RFC 7386 has it.
fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    let target = target.as_object_mut().expect("just made");
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// What the admission of service accounts does with a pod that does not refuse it.
fn mount_token(object: &mut Value) {
    let name = "kube-api-access-fake0";
    let volume = json!({ "name": name, "projected": { "sources": [
        { "serviceAccountToken": { "path": "token", "expirationSeconds": 3607 } },
    ] } });
    let mount = json!({
        "name": name, "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
    });
    let Some(spec) = object["spec"].as_object_mut() else { return };
    let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
    if let Some(volumes) = volumes.as_array_mut() {
        volumes.push(volume);
    }
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            if container["volumeMounts"].is_null() {
                container["volumeMounts"] = json!([]);
            }
            if let Some(mounts) = container["volumeMounts"].as_array_mut() {
                mounts.push(mount.clone());
            }
        }
    }
}
