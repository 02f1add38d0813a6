//! Targets of a cluster: each ConfigMap whose name begins with `leviathan-target-` is one registration. Its keys are
//! files, as `kubectl create configmap --from-file` makes them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};
use model::TargetId;

use super::{Documents, target_of};
use crate::launch::kubernetes::call;

/// How the names of registrations begin.
const PREFIX: &str = "leviathan-target-";
/// How the log names where a registration came from.
const SOURCE: &str = "configmap/";
/// The keys that a registration may have.
const KEYS: [&str; 4] = ["contract.yaml", "backlog.yaml", "policy.yaml", "executor_image"];

/// The ConfigMaps of one namespace.
#[derive(Clone)]
pub struct ConfigMaps {
    api: Api<ConfigMap>,
}

/// What was found, by source; the error says what is wrong with a ConfigMap itself.
pub(super) type Found = BTreeMap<String, Result<Documents, String>>;

impl ConfigMaps {
    /// Those of `namespace`.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace) }
    }

    /// Every registration. The error is for people.
    pub(super) async fn look(&self) -> Result<Found, String> {
        let everything = ListParams::default();
        let all = call(self.api.list(&everything)).await;
        let all = all.map_err(|error| format!("the ConfigMaps of targets cannot be seen: {error}"))?;
        let registrations = all.items.into_iter().filter(|map| map.name_any().starts_with(PREFIX));
        Ok(registrations.map(|map| (format!("{SOURCE}{}", map.name_any()), documents(map))).collect())
    }
}

impl std::fmt::Debug for ConfigMaps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConfigMaps").finish_non_exhaustive()
    }
}

/// Whether a source is a ConfigMap.
pub(super) fn is_source(source: &str) -> bool {
    source.starts_with(SOURCE)
}

/// Which target each source names; none when its contract does not hold.
pub(super) fn targets(found: &Found) -> BTreeMap<String, Option<TargetId>> {
    let named = |documents: &Result<Documents, String>| target_of(&documents.as_ref().ok()?.contract);
    found.iter().map(|(source, documents)| (source.clone(), named(documents))).collect()
}

/// Leaves out all but the first, by name, of ConfigMaps that name the same target.
pub(super) fn one_for_each_target(found: Found, problems: &mut Vec<String>) -> Found {
    let mut taken: BTreeMap<TargetId, String> = BTreeMap::new();
    let mut kept = Found::new();
    for (source, documents) in found {
        let target = documents.as_ref().ok().and_then(|documents| target_of(&documents.contract));
        if let Some(target) = target {
            if let Some(first) = taken.get(&target) {
                problems.push(format!(
                    "{source}: target {target} is registered by {first} already; give it another target_id or remove one of them"
                ));
                continue;
            }
            taken.insert(target, source.clone());
        }
        kept.insert(source, documents);
    }
    kept
}

fn documents(map: ConfigMap) -> Result<Documents, String> {
    let mut data = map.data.unwrap_or_default();
    let binary = map.binary_data.unwrap_or_default();
    let unknown: Vec<&str> =
        data.keys().chain(binary.keys()).map(String::as_str).filter(|key| !KEYS.contains(key)).collect();
    if !unknown.is_empty() {
        return Err(format!(
            "it has keys that mean nothing: {}; expected {}",
            unknown.join(", "),
            KEYS.join(", ")
        ));
    }
    if let Some(key) = binary.keys().next() {
        return Err(format!("its key {key} is not text in UTF-8"));
    }
    let contract = data.remove("contract.yaml").ok_or(
        "it has no key contract.yaml: make it with `kubectl create configmap NAME --from-file=contract.yaml`",
    )?;
    Ok(Documents {
        contract,
        backlog: data.remove("backlog.yaml"),
        operator_policy: data.remove("policy.yaml"),
        executor_image: data.remove("executor_image").map(|image| image.trim().to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(data: &[(&str, &str)]) -> ConfigMap {
        let data = data.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
        ConfigMap { data: Some(data), ..ConfigMap::default() }
    }

    #[test]
    fn a_config_map_is_a_registration_or_says_why_not() {
        let read = documents(map(&[("contract.yaml", "c"), ("executor_image", "python:3.12\n")])).unwrap();
        assert_eq!((read.contract.as_str(), read.executor_image.as_deref()), ("c", Some("python:3.12")));
        let told = |data: &[(&str, &str)]| documents(map(data)).unwrap_err();
        assert!(
            told(&[("contract.yml", "c")]).contains("contract.yml"),
            "{}",
            told(&[("contract.yml", "c")])
        );
        assert!(told(&[("backlog.yaml", "b")]).contains("no key contract.yaml"));
    }

    #[test]
    fn the_second_config_map_of_a_target_is_left_out_and_named() {
        let contract =
            "target_id: shop\nname: Shop\nrepo_url: git@github.com:owner/shop.git\ndefault_branch: main\n";
        let contract = format!("{contract}description: d\nowner: o\ncreated_at: \"2024-01-01T00:00:00Z\"\n");
        let entry = |name: &str| (format!("{SOURCE}{name}"), documents(map(&[("contract.yaml", &contract)])));
        let mut problems = Vec::new();
        let kept = one_for_each_target(Found::from([entry("b"), entry("a")]), &mut problems);
        assert_eq!(kept.into_keys().collect::<Vec<_>>(), ["configmap/a"]);
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].starts_with("configmap/b: target shop is registered by configmap/a"),
            "{problems:?}"
        );
    }
}
