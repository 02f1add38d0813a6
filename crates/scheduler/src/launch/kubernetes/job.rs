//! The Job of one attempt: one pod, in which the two trust zones are separate containers.
//!
//! `prepare` (our image) fetches what the attempt starts from, `work` (the target's image) runs the agent and the
//! checks and holds no credential but the agent's, `courier` (our image, beside it) speaks to the control plane for
//! it, and `publish` (our image) verifies the candidate again and opens the pull request. `work` and `publish` share
//! the folder of the candidate and nothing else that `work` can write.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Secret;
use model::{AttemptId, Digest, Epoch};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::Settings;
use crate::launch::Order;

/// The label by which people find and delete every executor: `kubectl delete jobs -l app=leviathan-executor`.
pub(super) const SELECTOR: &str = "app=leviathan-executor";
/// The annotation that says which attempt a Job or pod belongs to, whole.
pub(super) const ATTEMPT: &str = "leviathan.dev/attempt";
/// The annotation that says in which epoch it was started.
pub(super) const EPOCH: &str = "leviathan.dev/epoch";

/// How long a stage may take to end after SIGTERM, in seconds, before it is killed.
const GRACE: u64 = 60;
/// How long the attempt may take to be fetched and published beside its own time, in seconds.
const AROUND_THE_WORK: u64 = 900;
/// How long a Job that ended can be looked at, in seconds.
const KEPT: u64 = 3600;
/// The user that everything runs as.
const USER: u32 = 65532;
/// The longest value of a label.
const LONGEST_LABEL: usize = 63;
/// Where the pod's folders are.
const FOLDER: &str = "/leviathan";

/// `leviathan-<attempt_id>`.
pub(super) fn job_name(attempt: &AttemptId) -> String {
    format!("leviathan-{attempt}")
}

/// The Secret with the token of one epoch of an attempt.
pub(super) fn secret_name(attempt: &AttemptId, epoch: Epoch) -> String {
    format!("leviathan-{attempt}-{epoch}")
}

/// The Secret that the Job owns, so that it goes with it.
pub(super) fn token_secret(order: &Order<'_>, owner_uid: &str) -> Secret {
    typed(json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": secret_name(order.attempt, order.epoch),
            "labels": labels(order),
            "ownerReferences": [{
                "apiVersion": "batch/v1", "kind": "Job", "name": job_name(order.attempt), "uid": owner_uid,
                "blockOwnerDeletion": false, "controller": true,
            }],
        },
        "immutable": true,
        "type": "Opaque",
        "stringData": { "token": order.token.expose_secret() },
    }))
}

/// The Job of an attempt in one epoch. Made of the same order it is the same Job.
pub(super) fn job(settings: &Settings, order: &Order<'_>) -> Job {
    typed(template(settings, order))
}

fn template(settings: &Settings, order: &Order<'_>) -> Value {
    let running = order.timeout.as_secs() + AROUND_THE_WORK;
    // The clock of the Job also runs while its pod waits for a node and its images; those waits have their own.
    let waiting = settings.unscheduled_after.as_secs() + 4 * settings.pending_after.as_secs();
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(order.attempt),
            "labels": labels(order),
            "annotations": annotations(order),
        },
        "spec": {
            "completions": 1,
            "parallelism": 1,
            // Trying again is the scheduler's decision, and a new attempt.
            "backoffLimit": 0,
            "activeDeadlineSeconds": running + waiting + 2 * GRACE,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": { "rules": [
                { "action": "FailJob", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] },
                { "action": "FailJob", "onExitCodes": { "operator": "NotIn", "values": [0] } },
            ] },
            "ttlSecondsAfterFinished": KEPT,
            "template": {
                "metadata": {
                    "labels": labels(order),
                    "annotations": pod_annotations(order),
                },
                "spec": pod(settings, order),
            },
        },
    })
}

fn pod(settings: &Settings, order: &Order<'_>) -> Value {
    let mut pod = json!({
        "restartPolicy": "Never",
        "serviceAccountName": settings.service_account,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "shareProcessNamespace": false,
        "terminationGracePeriodSeconds": GRACE,
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": { "type": "RuntimeDefault" },
        },
        "volumes": volumes(settings),
        "initContainers": [prepare(settings, order), courier(settings, order), work(settings, order)],
        "containers": [publish(settings, order)],
    });
    if let Some(class) = &settings.runtime_class {
        pod["runtimeClassName"] = json!(class);
    }
    pod
}

fn volumes(settings: &Settings) -> Value {
    let disk = &settings.disk;
    json!([
        { "name": "program", "emptyDir": { "sizeLimit": "512Mi" } },
        { "name": "given", "emptyDir": { "sizeLimit": disk } },
        { "name": "handover", "emptyDir": { "sizeLimit": disk } },
        { "name": "scratch", "emptyDir": { "sizeLimit": disk } },
        { "name": "publishing", "emptyDir": { "sizeLimit": disk } },
        { "name": "temporary-prepare", "emptyDir": { "sizeLimit": "1Gi" } },
        { "name": "temporary-courier", "emptyDir": { "sizeLimit": "1Gi" } },
        { "name": "temporary-work", "emptyDir": { "sizeLimit": disk } },
        { "name": "temporary-publish", "emptyDir": { "sizeLimit": "1Gi" } },
    ])
}

/// Fetches with the forge's credential what `work` will only read, and says that the attempt begins.
fn prepare(settings: &Settings, order: &Order<'_>) -> Value {
    let mut environment = common(order);
    environment.extend(control_plane(settings, order));
    environment.extend(forge(settings));
    let mounts = [("program", true), ("given", true), ("handover", true)];
    let mut container = container(settings, "prepare", &settings.image, environment, &mounts);
    container["args"] = json!(["executor", "--stage", "prepare"]);
    container["resources"] = helper_resources(settings);
    container
}

/// Runs beside `work` and speaks for it: heartbeats, events, artifacts, and the word to stop.
fn courier(settings: &Settings, order: &Order<'_>) -> Value {
    let mut environment = common(order);
    environment.extend(control_plane(settings, order));
    let mounts = [("given", false), ("handover", true)];
    let mut container = container(settings, "courier", &settings.image, environment, &mounts);
    container["args"] = json!(["executor", "--stage", "courier"]);
    container["restartPolicy"] = json!("Always");
    container["resources"] = json!({
        "requests": { "cpu": "10m", "memory": "64Mi", "ephemeral-storage": "64Mi" },
        "limits": { "memory": "256Mi", "ephemeral-storage": "1Gi" },
    });
    container
}

/// The agent and the checks, in the image that has the target's own tools.
fn work(settings: &Settings, order: &Order<'_>) -> Value {
    let mut environment = common(order);
    environment.push(from_secret(&settings.secret, "ANTHROPIC_API_KEY"));
    // The variable without which there is no `none` is not among them: in a pod there is always a sandbox.
    let names = [
        "ANTHROPIC_BASE_URL",
        "LEVIATHAN_COMMAND_PATH",
        "LEVIATHAN_MODEL",
        "LEVIATHAN_MODEL_PRICES",
        "LEVIATHAN_SANDBOX",
        "LEVIATHAN_SANDBOX_READ",
        "LEVIATHAN_PRIVATE_HOSTS",
    ];
    environment.extend(plain(settings, &names));
    let image = order.image.unwrap_or(&settings.executor_image);
    let mounts = [("program", false), ("given", false), ("handover", true), ("scratch", true)];
    let mut container = container(settings, "work", image, environment, &mounts);
    container["command"] = json!([format!("{FOLDER}/program/leviathan"), "executor", "--stage", "work"]);
    container["workingDir"] = json!(format!("{FOLDER}/scratch"));
    container["resources"] = json!({
        "requests": { "cpu": settings.cpu, "memory": settings.memory, "ephemeral-storage": settings.disk },
        "limits": { "memory": settings.memory, "ephemeral-storage": settings.disk },
    });
    container
}

/// Verifies the candidate again, pushes it, and opens its pull request; or records how the attempt ended.
fn publish(settings: &Settings, order: &Order<'_>) -> Value {
    let mut environment = common(order);
    environment.extend(control_plane(settings, order));
    environment.extend(forge(settings));
    let mounts = [("given", true), ("handover", true), ("publishing", true)];
    let mut container = container(settings, "publish", &settings.image, environment, &mounts);
    container["args"] = json!(["executor", "--stage", "finish"]);
    container["resources"] = helper_resources(settings);
    container
}

fn container(
    settings: &Settings,
    name: &str,
    image: &str,
    mut environment: Vec<Value>,
    mounts: &[(&str, bool)],
) -> Value {
    environment.push(json!({ "name": "HOME", "value": "/tmp" }));
    let mut mounts: Vec<Value> = mounts
        .iter()
        .map(|(volume, writable)| {
            let mut mount = json!({ "name": volume, "mountPath": format!("{FOLDER}/{volume}") });
            if !writable {
                mount["readOnly"] = json!(true);
            }
            mount
        })
        .collect();
    mounts.push(json!({ "name": format!("temporary-{name}"), "mountPath": "/tmp" }));
    json!({
        "name": name,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "env": environment,
        "volumeMounts": mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
            "seccompProfile": { "type": "RuntimeDefault" },
        },
    })
}

fn helper_resources(settings: &Settings) -> Value {
    json!({
        "requests": { "cpu": "50m", "memory": "128Mi", "ephemeral-storage": "256Mi" },
        "limits": { "memory": "1Gi", "ephemeral-storage": settings.disk },
    })
}

/// What every container is told.
fn common(order: &Order<'_>) -> Vec<Value> {
    vec![
        json!({ "name": "LEVIATHAN_ATTEMPT_ID", "value": order.attempt.as_str() }),
        json!({ "name": "LEVIATHAN_EXECUTOR_NAME", "value": format!("k8s-job-{}", job_name(order.attempt)) }),
        json!({ "name": "LEVIATHAN_POD_DIR", "value": FOLDER }),
    ]
}

fn control_plane(settings: &Settings, order: &Order<'_>) -> Vec<Value> {
    let secret = secret_name(order.attempt, order.epoch);
    vec![
        json!({ "name": "LEVIATHAN_CONTROL_PLANE_URL", "value": settings.control_plane }),
        json!({
            "name": "LEVIATHAN_CONTROL_PLANE_TOKEN",
            "valueFrom": { "secretKeyRef": { "name": secret, "key": "token" } },
        }),
    ]
}

fn forge(settings: &Settings) -> Vec<Value> {
    let mut environment = vec![from_secret(&settings.secret, "GITHUB_TOKEN")];
    environment.extend(plain(settings, &["GITHUB_API_URL", "HTTPS_PROXY", "SSL_CERT_FILE"]));
    environment
}

/// A key of the installation's Secret: the scheduler itself never reads it.
fn from_secret(secret: &str, key: &str) -> Value {
    json!({
        "name": key,
        "valueFrom": { "secretKeyRef": { "name": secret, "key": key, "optional": true } },
    })
}

fn plain(settings: &Settings, names: &[&str]) -> Vec<Value> {
    let given = names.iter().chain(&["LEVIATHAN_LOG"]).filter_map(|name| {
        let value = settings.environment.get(*name)?;
        Some(json!({ "name": name, "value": value }))
    });
    given.collect()
}

fn labels(order: &Order<'_>) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("app", "leviathan-executor".to_owned()),
        ("app.kubernetes.io/name", "leviathan-executor".to_owned()),
        ("app.kubernetes.io/part-of", "leviathan".to_owned()),
        ("leviathan.dev/target", label_value(order.target.as_str())),
        ("leviathan.dev/task", label_value(order.task.as_str())),
        (ATTEMPT, label_value(order.attempt.as_str())),
    ])
}

/// The same as the labels, but whole.
fn annotations(order: &Order<'_>) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("leviathan.dev/target", order.target.to_string()),
        ("leviathan.dev/task", order.task.to_string()),
        (ATTEMPT, order.attempt.to_string()),
        (EPOCH, order.epoch.to_string()),
    ])
}

/// An attempt is not to be moved to another node for the sake of order.
fn pod_annotations(order: &Order<'_>) -> BTreeMap<&'static str, String> {
    let mut annotations = annotations(order);
    annotations.insert("cluster-autoscaler.kubernetes.io/safe-to-evict", "false".to_owned());
    annotations.insert("karpenter.sh/do-not-disrupt", "true".to_owned());
    annotations
}

/// The text itself where it can be the value of a label, else its beginning and a digest.
fn label_value(text: &str) -> String {
    let is_edge = |c: char| c.is_ascii_alphanumeric();
    let is_inner = |c: char| is_edge(c) || matches!(c, '-' | '_' | '.');
    let is_label = text.len() <= LONGEST_LABEL
        && text.chars().all(is_inner)
        && text.starts_with(is_edge)
        && text.ends_with(is_edge);
    if is_label {
        return text.to_owned();
    }
    let readable: String =
        text.chars().filter(|c| is_inner(*c)).skip_while(|c| !is_edge(*c)).take(40).collect();
    let digest = Digest::of(text.as_bytes());
    format!("{readable}{}{}", if readable.is_empty() { "" } else { "." }, &digest.as_str()[..16])
}

/// The object as the client's types have it. A field that they do not know would be lost silently, which the tests
/// of this module exclude.
fn typed<T: serde::de::DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).expect("the template is written for this type")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::{TargetId, TaskId};
    use secrecy::SecretString;

    use super::*;

    fn settings() -> Settings {
        Settings {
            image: "leviathan:0.1.0".to_owned(),
            executor_image: "leviathan:0.1.0".to_owned(),
            control_plane: "http://control-plane:8000".to_owned(),
            secret: "leviathan-secrets".to_owned(),
            service_account: "leviathan-executor".to_owned(),
            cpu: "1".to_owned(),
            memory: "2Gi".to_owned(),
            disk: "8Gi".to_owned(),
            runtime_class: Some("gvisor".to_owned()),
            image_pull_policy: "IfNotPresent".to_owned(),
            unscheduled_after: Duration::from_secs(600),
            pending_after: Duration::from_secs(600),
            environment: BTreeMap::from([("LEVIATHAN_LOG".to_owned(), "info".to_owned())]),
        }
    }

    fn with_order<T>(look: impl FnOnce(&Order<'_>) -> T) -> T {
        look(&Order {
            attempt: &AttemptId::parse("attempt-abc123").unwrap(),
            epoch: Epoch(2),
            token: &SecretString::from("lva.secret"),
            target: &TargetId::parse("shop").unwrap(),
            task: &TaskId::parse("task-001").unwrap(),
            timeout: Duration::from_secs(1800),
            image: Some("python:3.12"),
        })
    }

    fn containers(job: &Value) -> BTreeMap<String, Value> {
        let pod = &job["spec"]["template"]["spec"];
        let of = |list: &str| pod[list].as_array().unwrap().clone();
        let all = of("initContainers").into_iter().chain(of("containers"));
        all.map(|container| (container["name"].as_str().unwrap().to_owned(), container)).collect()
    }

    #[test]
    fn the_clients_types_lose_nothing_of_the_template() {
        with_order(|order| {
            let template = template(&settings(), order);
            assert_eq!(serde_json::to_value(typed::<Job>(template.clone())).unwrap(), template);
            let secret = serde_json::to_value(token_secret(order, "uid-1")).unwrap();
            assert_eq!(secret["stringData"]["token"], "lva.secret");
            assert_eq!(secret["metadata"]["ownerReferences"][0]["uid"], "uid-1");
        });
    }

    #[test]
    fn each_zone_holds_its_own_credentials_and_no_other() {
        let job = with_order(|order| template(&settings(), order));
        let secrets = |container: &Value| {
            let environment = container["env"].as_array().unwrap();
            let secret = environment.iter().filter(|variable| variable.get("valueFrom").is_some());
            secret.map(|variable| variable["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let held: BTreeMap<_, _> =
            containers(&job).into_iter().map(|(name, container)| (name, secrets(&container))).collect();
        assert_eq!(held["work"], ["ANTHROPIC_API_KEY"]);
        assert_eq!(held["courier"], ["LEVIATHAN_CONTROL_PLANE_TOKEN"]);
        assert_eq!(held["prepare"], ["LEVIATHAN_CONTROL_PLANE_TOKEN", "GITHUB_TOKEN"]);
        assert_eq!(held["publish"], ["LEVIATHAN_CONTROL_PLANE_TOKEN", "GITHUB_TOKEN"]);
        // The token is named, not written: what describes a Job shows no secret.
        assert!(!job.to_string().contains("lva.secret"));
    }

    #[test]
    fn work_shares_only_the_handover_in_both_directions() {
        let job = with_order(|order| template(&settings(), order));
        let writable = |container: &Value| {
            let mounts = container["volumeMounts"].as_array().unwrap();
            let writable = mounts.iter().filter(|mount| mount.get("readOnly").is_none());
            writable.map(|mount| mount["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let containers = containers(&job);
        assert_eq!(writable(&containers["work"]), ["handover", "scratch", "temporary-work"]);
        let publish = containers["publish"]["volumeMounts"].to_string();
        assert!(!publish.contains("\"scratch\"") && !publish.contains("temporary-work"));
        assert_eq!(containers["work"]["image"], "python:3.12");
        assert_eq!(containers["publish"]["image"], "leviathan:0.1.0");
    }

    #[test]
    fn a_label_holds_any_id() {
        assert_eq!(label_value("task-001"), "task-001");
        for text in ["-task", "task-", &"x".repeat(64), "größe", "a/b", "…", ""] {
            let label = label_value(text);
            assert!(label.len() <= LONGEST_LABEL, "{label}");
            assert!(label.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)), "{label}");
            assert!(label.starts_with(|c: char| c.is_ascii_alphanumeric()), "{label}");
            assert_ne!(label, text);
        }
    }
}
