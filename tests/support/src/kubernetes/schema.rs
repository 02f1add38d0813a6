//! Which fields a kind has: what the generated types of the Kubernetes API read and write again.

use k8s_openapi::api::{apps, batch, coordination, core};
use serde_json::Value;

use super::resources::Resource;

/// Drops the fields that the kind does not have and says which these were; or what cannot be read at all.
pub(super) fn drop_unknown_fields(resource: &Resource, object: &mut Value) -> Result<Vec<String>, String> {
    let known = match resource.plural {
        "configmaps" => again::<core::v1::ConfigMap>(object),
        "secrets" => again::<core::v1::Secret>(object),
        "serviceaccounts" => again::<core::v1::ServiceAccount>(object),
        "events" => again::<core::v1::Event>(object),
        "services" => again::<core::v1::Service>(object),
        "pods" => again::<core::v1::Pod>(object),
        "jobs" => again::<batch::v1::Job>(object),
        "cronjobs" => again::<batch::v1::CronJob>(object),
        "leases" => again::<coordination::v1::Lease>(object),
        "deployments" => again::<apps::v1::Deployment>(object),
        other => unreachable!("{other} has no type"),
    }?;
    let mut unknown = Vec::new();
    compare(object, &known, "", &mut unknown);
    Ok(unknown)
}

/// An object as its type writes it after having read it.
fn again<T: serde::de::DeserializeOwned + serde::Serialize>(object: &Value) -> Result<Value, String> {
    let typed: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    serde_json::to_value(typed).map_err(|error| error.to_string())
}

fn compare(object: &mut Value, known: &Value, path: &str, unknown: &mut Vec<String>) {
    if let (Some(fields), Some(known)) = (object.as_object_mut(), known.as_object()) {
        fields.retain(|key, value| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match known.get(key) {
                Some(known) => {
                    compare(value, known, &path, unknown);
                    true
                }
                // What is empty is not written again, whether it is known or not.
                None if is_empty(value) => false,
                None => {
                    unknown.push(path);
                    false
                }
            }
        });
    } else if let (Some(items), Some(known)) = (object.as_array_mut(), known.as_array()) {
        for (at, (item, known)) in items.iter_mut().zip(known).enumerate() {
            compare(item, known, &format!("{path}[{at}]"), unknown);
        }
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null()
        || value.as_array().is_some_and(Vec::is_empty)
        || value.as_object().is_some_and(serde_json::Map::is_empty)
}
