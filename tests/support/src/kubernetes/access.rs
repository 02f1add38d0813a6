//! Who may do what: bearer tokens, and the rules of Roles.

use serde_json::Value;

use super::refusal::Refusal;
use super::resources::Resource;

/// What one call did, in the words of a Role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Use {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: String,
    /// The API group; empty for the core group.
    pub group: String,
    /// The resource, with its subresource: `jobs` or `jobs/status`.
    pub resource: String,
    /// The name of the object, where the call has one.
    pub name: String,
}

impl Use {
    /// Whether one of these Roles (or ClusterRoles) grants it.
    pub fn is_granted_by(&self, roles: &[Value]) -> bool {
        let rules = roles.iter().filter_map(|role| role["rules"].as_array()).flatten();
        rules.into_iter().any(|rule| {
            let has = |key: &str, value: &str| {
                let listed = rule[key].as_array().map(Vec::as_slice).unwrap_or_default();
                listed.iter().any(|one| one == value || one == "*")
            };
            let names = rule["resourceNames"].as_array().map(Vec::as_slice).unwrap_or_default();
            has("verbs", &self.verb)
                && has("apiGroups", &self.group)
                && has("resources", &self.resource)
                && (names.is_empty() || names.iter().any(|name| name == self.name.as_str()))
        })
    }
}

/// Somebody who knows a token.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) user: String,
    /// What is granted; everything if nothing was said.
    pub(super) roles: Option<Vec<Value>>,
}

impl Account {
    /// Refuses a use that is not granted in this namespace.
    pub(super) fn check(&self, used: &Use, resource: &Resource, namespace: &str) -> Result<(), Refusal> {
        let Some(roles) = &self.roles else { return Ok(()) };
        let here: Vec<Value> = roles
            .iter()
            .filter(|role| {
                let own = role["metadata"]["namespace"].as_str();
                role["kind"] == "ClusterRole" || own.is_none_or(|own| own == namespace)
            })
            .cloned()
            .collect();
        if used.is_granted_by(&here) {
            return Ok(());
        }
        let place = match namespace {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        let why = format!(
            "User {:?} cannot {} resource {:?} in API group {:?} {place}",
            self.user, used.verb, used.resource, used.group
        );
        Err(Refusal::forbidden(resource, &used.name, &why))
    }
}
