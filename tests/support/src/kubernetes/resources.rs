//! The kinds of objects that are served, and how a path names them.

use serde_json::{Value, json};

/// A kind of object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resource {
    /// Empty for the core group.
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) plural: &'static str,
    pub(super) kind: &'static str,
    /// Whether the status is written by a path of its own.
    pub(super) has_status: bool,
    /// Whether a replace is taken that does not say which version it replaces.
    pub(super) unconditional: bool,
}

const fn resource(group: &'static str, plural: &'static str, kind: &'static str) -> Resource {
    Resource { group, version: "v1", plural, kind, has_status: false, unconditional: true }
}

const fn with_status(resource: Resource) -> Resource {
    Resource { has_status: true, ..resource }
}

/// Everything that is served.
pub(super) static RESOURCES: [Resource; 10] = [
    resource("", "configmaps", "ConfigMap"),
    resource("", "secrets", "Secret"),
    resource("", "serviceaccounts", "ServiceAccount"),
    resource("", "events", "Event"),
    with_status(resource("", "services", "Service")),
    with_status(resource("", "pods", "Pod")),
    with_status(resource("batch", "jobs", "Job")),
    with_status(resource("batch", "cronjobs", "CronJob")),
    Resource { unconditional: false, ..resource("coordination.k8s.io", "leases", "Lease") },
    with_status(resource("apps", "deployments", "Deployment")),
];

impl Resource {
    /// `v1` or `batch/v1`.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.into() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `pods` or `jobs.batch`: how messages call it.
    pub(super) fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.into() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// `Pod` or `Job.batch`: how messages about invalid objects call it.
    pub(super) fn qualified_kind(&self) -> String {
        if self.group.is_empty() { self.kind.into() } else { format!("{}.{}", self.kind, self.group) }
    }
}

/// The resource of this plural; a test that asks for another one is told so.
pub(super) fn by_plural(plural: &str) -> &'static Resource {
    let found = RESOURCES.iter().find(|resource| resource.plural == plural);
    found.unwrap_or_else(|| panic!("the cluster serves no {plural:?}"))
}

/// What a path names.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) resource: &'static Resource,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
}

impl Place {
    /// Reads `/api/v1/namespaces/x/pods/y` and its like.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let mut parts = path.trim_matches('/').split('/');
        let group = match parts.next()? {
            "api" => "",
            "apis" => parts.next()?,
            _ => return None,
        };
        let version = parts.next()?;
        let mut plural = parts.next()?;
        let mut namespace = None;
        if plural == "namespaces" {
            namespace = Some(parts.next()?.to_owned());
            plural = parts.next()?;
        }
        let name = parts.next().map(str::to_owned);
        let subresource = parts.next().map(str::to_owned);
        if parts.next().is_some() || (name.is_some() && namespace.is_none()) {
            return None;
        }
        let resource = RESOURCES.iter().find(|resource| {
            resource.group == group && resource.version == version && resource.plural == plural
        })?;
        Some(Self { resource, namespace, name, subresource })
    }
}

/// What is told about the served groups and versions, so that `kubectl` finds its way.
pub(super) fn discovery(path: &str) -> Option<Value> {
    let path = path.trim_matches('/');
    match path {
        "version" => {
            return Some(
                json!({ "major": "1", "minor": "34", "gitVersion": "v1.34.0", "platform": "linux/amd64" }),
            );
        }
        "api" => return Some(json!({ "kind": "APIVersions", "versions": ["v1"] })),
        "apis" => {
            let groups = ["apps", "batch", "coordination.k8s.io"].map(|group| {
                let version = json!({ "groupVersion": format!("{group}/v1"), "version": "v1" });
                json!({ "name": group, "versions": [version], "preferredVersion": version })
            });
            return Some(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups }));
        }
        _ => {}
    }
    let version = path.strip_prefix("apis/").or_else(|| path.strip_prefix("api/"))?;
    let resources: Vec<Value> = RESOURCES
        .iter()
        .filter(|resource| resource.api_version() == version)
        .map(|resource| {
            json!({
                "name": resource.plural, "singularName": resource.kind.to_lowercase(), "kind": resource.kind,
                "namespaced": true,
                "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
            })
        })
        .collect();
    (!resources.is_empty()).then(|| {
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources })
    })
}
