//! What the API server fills in where an object is silent.

use serde_json::{Value, json};

use super::resources::Resource;
use super::store::text;

/// Fills in the defaults of its kind.
pub(super) fn fill_in(resource: &Resource, object: &mut Value) {
    match resource.plural {
        "jobs" => job(object),
        "pods" => pod(object),
        "secrets" => {
            default(&mut object["type"], "Opaque");
            encode_plain_data(object);
        }
        _ => {}
    }
}

fn default(field: &mut Value, value: impl Into<Value>) {
    if field.is_null() {
        *field = value.into();
    }
}

fn job(object: &mut Value) {
    let uid = text(object, "/metadata/uid").to_owned();
    let name = text(object, "/metadata/name").to_owned();
    let template_labels = object.pointer("/spec/template/metadata/labels").cloned();
    let own = &mut object["metadata"]["labels"];
    if let (true, Some(labels)) = (own.is_null(), template_labels) {
        *own = labels;
    } else if own.is_null() {
        object["metadata"].as_object_mut().expect("every object has metadata").remove("labels");
    }
    let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    default(&mut spec["parallelism"], 1);
    default(&mut spec["completions"], 1);
    default(&mut spec["backoffLimit"], 6);
    default(&mut spec["completionMode"], "NonIndexed");
    default(&mut spec["suspend"], false);
    let replacement = if spec["podFailurePolicy"].is_null() { "TerminatingOrFailed" } else { "Failed" };
    default(&mut spec["podReplacementPolicy"], replacement);
    if spec["podFailurePolicy"].is_null() {
        spec.as_object_mut().expect("checked").remove("podFailurePolicy");
    } else {
        let rules = spec["podFailurePolicy"]["rules"].as_array_mut();
        for rule in rules.into_iter().flatten() {
            let patterns = rule.get_mut("onPodConditions").and_then(Value::as_array_mut);
            for pattern in patterns.into_iter().flatten() {
                if text(pattern, "/status").is_empty() {
                    pattern["status"] = "True".into();
                }
            }
        }
    }
    default(&mut spec["selector"], json!({ "matchLabels": { "batch.kubernetes.io/controller-uid": uid } }));
    if spec["template"]["metadata"].is_null() {
        spec["template"]["metadata"] = json!({});
    }
    let labels = &mut spec["template"]["metadata"]["labels"];
    default(labels, json!({}));
    if let Some(labels) = labels.as_object_mut() {
        for prefix in ["", "batch.kubernetes.io/"] {
            labels.insert(format!("{prefix}controller-uid"), uid.clone().into());
            labels.insert(format!("{prefix}job-name"), name.clone().into());
        }
    }
    pod_spec(&mut spec["template"]["spec"]);
}

fn pod(object: &mut Value) {
    let spec = &mut object["spec"];
    pod_spec(spec);
    if !spec.is_object() {
        return;
    }
    default(&mut spec["serviceAccountName"], "default");
    spec["serviceAccount"] = spec["serviceAccountName"].clone();
    default(&mut spec["enableServiceLinks"], true);
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let limits = container["resources"]["limits"].clone();
            for (what, limit) in limits.as_object().into_iter().flatten() {
                default(&mut container["resources"]["requests"][what.as_str()], limit.clone());
            }
        }
    }
}

fn pod_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    default(&mut spec["restartPolicy"], "Always");
    default(&mut spec["dnsPolicy"], "ClusterFirst");
    default(&mut spec["schedulerName"], "default-scheduler");
    default(&mut spec["terminationGracePeriodSeconds"], 30);
    default(&mut spec["securityContext"], json!({}));
    for list in ["initContainers", "containers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter(|container| container.is_object()) {
            default(&mut container["terminationMessagePath"], "/dev/termination-log");
            default(&mut container["terminationMessagePolicy"], "File");
            let image = text(container, "/image");
            let moves = !image.contains('@')
                && (image.ends_with(":latest") || !image.rsplit('/').next().unwrap_or(image).contains(':'));
            default(&mut container["imagePullPolicy"], if moves { "Always" } else { "IfNotPresent" });
            default(&mut container["resources"], json!({}));
        }
    }
    let volumes = spec.get_mut("volumes").and_then(Value::as_array_mut);
    for volume in volumes.into_iter().flatten() {
        for source in ["secret", "configMap", "projected"] {
            if let Some(source) = volume.get_mut(source).filter(|source| source.is_object()) {
                default(&mut source["defaultMode"], 420);
            }
        }
    }
}

/// `stringData` is written only, and ends up in `data`.
fn encode_plain_data(object: &mut Value) {
    use base64::Engine as _;
    let plain = object.as_object_mut().and_then(|secret| secret.remove("stringData"));
    for (key, value) in plain.iter().filter_map(Value::as_object).flatten() {
        let value = value.as_str().unwrap_or_default();
        let encoded = base64::engine::general_purpose::STANDARD.encode(value);
        object["data"][key.as_str()] = encoded.into();
    }
}
