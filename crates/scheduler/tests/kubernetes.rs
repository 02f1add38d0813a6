//! The launcher for Kubernetes, through the real client, against an API server that keeps state and refuses what a real one
//! refuses: the rows of the crash table that a cluster has a part in.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeMap;
use std::time::Duration;

use leviathan_scheduler::Launcher;
use leviathan_scheduler::launch::kubernetes::Settings;
use leviathan_scheduler::launch::{Cause, ExecutorSight, Kubernetes, Launch, LaunchError, Launched, Order};
use model::{AttemptId, Epoch, TargetId, TaskId};
use secrecy::SecretString;
use serde_json::{Value, json};
use test_support::kubernetes::{Cluster, Fault, Harm, NAMESPACE};

const JOB: &str = "leviathan-attempt-abc123";

async fn launcher(cluster: &Cluster) -> Launcher {
    let kubeconfig = kube::config::Kubeconfig::from_yaml(&cluster.kubeconfig()).unwrap();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    config.default_retry = false;
    let client = kube::Client::try_from(config).unwrap();
    let settings = Settings {
        image: "leviathan:0.1.0".to_owned(),
        executor_image: "leviathan:0.1.0".to_owned(),
        control_plane: "http://control-plane:8000".to_owned(),
        secret: "leviathan-secrets".to_owned(),
        service_account: "leviathan-executor".to_owned(),
        cpu: "1".to_owned(),
        memory: "2Gi".to_owned(),
        disk: "8Gi".to_owned(),
        runtime_class: None,
        image_pull_policy: "IfNotPresent".to_owned(),
        unscheduled_after: Duration::from_secs(600),
        pending_after: Duration::from_secs(600),
        environment: BTreeMap::new(),
    };
    Launcher::Kubernetes(Box::new(Kubernetes::new(client, NAMESPACE.to_owned(), settings)))
}

fn attempt() -> AttemptId {
    AttemptId::parse("attempt-abc123").unwrap()
}

/// The attempt's executor is started, and there is room for it.
async fn launched(launcher: &Launcher, epoch: u32) -> Launched {
    match launch(launcher, epoch).await.unwrap() {
        Launch::StartedAs(launched) => launched,
        other @ (Launch::Started | Launch::Waits) => panic!("{other:?}"),
    }
}

async fn launch(launcher: &Launcher, epoch: u32) -> Result<Launch, LaunchError> {
    let token = SecretString::from("lva.token");
    let (attempt, target) = (attempt(), TargetId::parse("shop").unwrap());
    let order = Order {
        attempt: &attempt,
        epoch: Epoch(epoch),
        token: &token,
        target: &target,
        task: &TaskId::parse("task-001").unwrap(),
        timeout: Duration::from_secs(1800),
        image: None,
    };
    launcher.launch(order).await
}

/// What is seen so many minutes from now.
async fn look(launcher: &Launcher, minutes: i64) -> ExecutorSight {
    let now = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(minutes);
    let (mut sights, errors) = launcher.look(&[&attempt()], now).await;
    assert!(errors.is_empty(), "{errors:?}");
    sights.remove(&attempt()).unwrap()
}

/// The sight in a line: what, the epoch, the cause, and the launcher's words.
fn told(sight: &ExecutorSight) -> String {
    match sight {
        ExecutorSight::Absent => "absent".to_owned(),
        ExecutorSight::Alive { epoch } => format!("alive in epoch {epoch}"),
        ExecutorSight::Stuck { epoch, end } => {
            format!("stuck in epoch {epoch}: {:?}: {}", end.cause, end.words)
        }
        ExecutorSight::Gone { epoch, end } => {
            format!("gone in epoch {epoch}: {:?}: {}", end.cause, end.words)
        }
    }
}

fn jobs(cluster: &Cluster) -> Vec<String> {
    let name = |job: Value| job["metadata"]["name"].as_str().unwrap().to_owned();
    cluster.objects("jobs").into_iter().map(name).collect()
}

async fn begun(cluster: &Cluster) -> Launcher {
    let launcher = launcher(cluster).await;
    launched(&launcher, 1).await;
    cluster.controller_step();
    launcher
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_becomes_one_job_with_a_token_of_its_own() {
    let cluster = Cluster::start();
    let launcher = launcher(&cluster).await;
    assert_eq!(look(&launcher, 0).await, ExecutorSight::Absent);
    let launched = launched(&launcher, 1).await;
    assert_eq!(launched.name, JOB);
    let job = cluster.object("jobs", JOB).unwrap();
    assert_eq!(job["metadata"]["uid"], launched.uid);
    assert_eq!(job["metadata"]["labels"]["app"], "leviathan-executor");
    let secret = cluster.object("secrets", "leviathan-attempt-abc123-1").unwrap();
    assert_eq!(secret["metadata"]["ownerReferences"][0]["uid"], launched.uid);
    assert_eq!(look(&launcher, 0).await, ExecutorSight::Alive { epoch: Epoch(1) });
    // Pod Security `restricted` lets the pod in.
    cluster.controller_step();
    assert_eq!(cluster.objects("pods").len(), 1, "{:?}", cluster.objects("events"));

    launcher.stop(&attempt(), Duration::from_secs(10)).await.unwrap();
    cluster.controller_step();
    assert_eq!(jobs(&cluster), [""; 0]);
    assert!(cluster.objects("secrets").is_empty());
    // Stopping what is not there is done.
    launcher.stop(&attempt(), Duration::from_secs(10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_is_found_again_and_nothing_is_made_twice() {
    for harm in [Harm::DropAfter, Harm::GatewayTimeoutAfter] {
        let cluster = Cluster::start();
        let launcher = launcher(&cluster).await;
        cluster.fault(Fault { method: "create", resource: "jobs", nth: 1, harm });
        assert_eq!(launched(&launcher, 1).await.name, JOB, "{harm:?}");
        assert_eq!(jobs(&cluster), [JOB]);
        // Once more in the same epoch: another scheduler, or the same one after a crash.
        assert_eq!(launched(&launcher, 1).await.name, JOB);
        assert_eq!(jobs(&cluster), [JOB]);
        assert_eq!(cluster.objects("secrets").len(), 1);
    }
    for harm in [Harm::Drop, Harm::Unavailable, Harm::TooManyRequests(1), Harm::InternalError] {
        let cluster = Cluster::start();
        let launcher = launcher(&cluster).await;
        cluster.fault(Fault { method: "create", resource: "jobs", nth: 1, harm });
        let error = launch(&launcher, 1).await.unwrap_err().to_string();
        assert!(error.contains("attempt-abc123 cannot be started"), "{error}");
        assert_eq!(jobs(&cluster), [""; 0]);
        // The next epoch begins as if nothing had been.
        launched(&launcher, 2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_its_token_is_handed_out_again() {
    let cluster = Cluster::start();
    let launcher = launcher(&cluster).await;
    cluster.fault(Fault { method: "create", resource: "secrets", nth: 1, harm: Harm::Drop });
    launch(&launcher, 1).await.unwrap_err();
    cluster.controller_step();
    cluster.pod_scheduled(JOB);
    cluster.pod_image_error(
        JOB,
        "prepare",
        "CreateContainerConfigError",
        "secret \"leviathan-attempt-abc123-1\" not found",
    );
    assert_eq!(look(&launcher, 0).await, ExecutorSight::Alive { epoch: Epoch(1) });
    let sight = look(&launcher, 1).await;
    assert!(told(&sight).starts_with("stuck in epoch 1: NotLaunched"), "{}", told(&sight));
    launched(&launcher, 2).await;
    cluster.controller_step();
    assert_eq!(look(&launcher, 0).await, ExecutorSight::Alive { epoch: Epoch(2) });
    assert_eq!(jobs(&cluster), [JOB]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_epoch_makes_room_and_a_stranger_does_not() {
    let cluster = Cluster::start();
    let launcher = begun(&cluster).await;
    let first = cluster.object("jobs", JOB).unwrap()["metadata"]["uid"].clone();
    let second = launched(&launcher, 2).await;
    assert_ne!(second.uid, first);
    assert_eq!(jobs(&cluster), [JOB]);
    // A scheduler that slept and still believes in the first epoch.
    let error = launch(&launcher, 1).await.unwrap_err();
    assert!(matches!(error, LaunchError::OtherIdentity { .. }), "{error}");

    launcher.stop(&attempt(), Duration::from_secs(10)).await.unwrap();
    cluster.put(
        "jobs",
        json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": JOB },
            "spec": { "template": { "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "i" }] } } },
        }),
    );
    let error = launch(&launcher, 3).await.unwrap_err().to_string();
    assert!(error.contains("belongs to nobody that we know; it is left alone"), "{error}");
    assert_eq!(jobs(&cluster), [JOB]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_quota_refuses_waits_for_room_and_not_for_ever() {
    let cluster = Cluster::start();
    let launcher = launcher(&cluster).await;
    cluster.quota_jobs(Some(0));
    assert_eq!(launch(&launcher, 1).await.unwrap(), Launch::Waits);
    assert!(!launcher.has_room());
    assert_eq!(look(&launcher, 0).await, ExecutorSight::Alive { epoch: Epoch(1) });
    assert!(launcher.launch_waiting(|_| true).await.is_empty());
    cluster.quota_jobs(None);
    assert!(launcher.launch_waiting(|_| false).await.is_empty(), "a pause holds it back");
    let launched = launcher.launch_waiting(|_| true).await;
    assert!(matches!(launched.as_slice(), [Ok((id, _))] if *id == attempt()), "{launched:?}");
    assert!(launcher.has_room());
    assert_eq!(jobs(&cluster), [JOB]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_pod_from_starting_is_told_in_its_own_words() {
    type Play = fn(&Cluster);
    let rows: [(&str, Play, &str, &str); 4] = [
        (
            "a quota refuses the pod",
            |_| {},
            "alive in epoch 1",
            "stuck in epoch 1: Unschedulable: no pod was made for it",
        ),
        (
            "no node has room",
            |cluster| {
                cluster.controller_step();
                cluster.pod_unschedulable(JOB, "0/3 nodes are available: 3 Insufficient memory.");
            },
            "alive in epoch 1",
            "stuck in epoch 1: Unschedulable: Unschedulable: 0/3 nodes are available: 3 Insufficient memory.",
        ),
        (
            "an image that cannot be pulled",
            |cluster| {
                cluster.controller_step();
                cluster.pod_scheduled(JOB);
                cluster.pod_image_error(JOB, "prepare", "ImagePullBackOff", "Back-off pulling image");
            },
            "alive in epoch 1",
            "stuck in epoch 1: Image: container `prepare` does not start: ImagePullBackOff: Back-off pulling image",
        ),
        (
            "an image whose name is none",
            |cluster| {
                cluster.controller_step();
                cluster.pod_scheduled(JOB);
                cluster.pod_image_error(JOB, "prepare", "InvalidImageName", "couldn't parse image");
            },
            "stuck in epoch 1: Image: container `prepare` does not start: InvalidImageName: couldn't parse image",
            "stuck in epoch 1: Image: container `prepare` does not start: InvalidImageName: couldn't parse image",
        ),
    ];
    for (name, play, at_once, late) in rows {
        let cluster = Cluster::start();
        let launcher = launcher(&cluster).await;
        launched(&launcher, 1).await;
        play(&cluster);
        assert_eq!(told(&look(&launcher, 1).await), at_once, "{name}");
        assert_eq!(told(&look(&launcher, 12).await), late, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn how_an_executor_ended_is_told_apart() {
    type Play = fn(&Cluster);
    let rows: [(&str, Play, Cause, &str); 7] = [
        ("it came to its end", |cluster| cluster.pod_succeeded(JOB), Cause::Ended, ""),
        ("an exit code", |cluster| cluster.pod_failed(JOB, 2), Cause::Exit, "ended with exit code 2"),
        (
            "out of memory",
            |cluster| cluster.container_terminated(JOB, "publish", 137, "OOMKilled", ""),
            Cause::OutOfMemory,
            "container `publish` used more memory than its limit",
        ),
        (
            "evicted",
            |cluster| cluster.evict(JOB, "TerminationByKubelet", "The node was low on resource: memory."),
            Cause::Evicted,
            "The node was low on resource: memory.",
        ),
        ("the node is gone", |cluster| cluster.node_removed(JOB), Cause::Evicted, "DisruptionTarget"),
        (
            "the Job's deadline",
            |cluster| {
                cluster.deadline_exceeded(JOB);
                cluster.controller_step();
                cluster.pod_terminated(JOB);
            },
            Cause::Deadline,
            "DeadlineExceeded",
        ),
        ("somebody deleted the pod", |cluster| cluster.delete_pod(JOB), Cause::Deleted, ""),
    ];
    for (name, play, cause, words) in rows {
        let cluster = Cluster::start();
        let launcher = begun(&cluster).await;
        cluster.pod_running(JOB);
        play(&cluster);
        for _ in 0..3 {
            cluster.controller_step();
        }
        let sight = look(&launcher, 0).await;
        let ExecutorSight::Gone { epoch: Epoch(1), end } = &sight else { panic!("{name}: {}", told(&sight)) };
        assert_eq!(end.cause, cause, "{name}: {}", told(&sight));
        assert!(end.words.contains(words), "{name}: {}", told(&sight));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_somebody_deletes_is_absent_once_its_pod_has_ended() {
    let cluster = Cluster::start();
    let launcher = begun(&cluster).await;
    cluster.pod_running(JOB);
    cluster.delete_job(JOB);
    assert_eq!(jobs(&cluster), [""; 0]);
    // Its pod has the grace of its template to say so itself.
    if !cluster.objects("pods").is_empty() {
        assert_eq!(look(&launcher, 0).await, ExecutorSight::Alive { epoch: Epoch(1) });
    }
    cluster.pod_terminated(JOB);
    assert_eq!(look(&launcher, 0).await, ExecutorSight::Absent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_does_not_answer_hides_executors_and_is_not_taken_for_an_empty_one() {
    let cluster = Cluster::start();
    let launcher = begun(&cluster).await;
    for resource in ["jobs", "pods"] {
        cluster.fault(Fault { method: "list", resource, nth: 1, harm: Harm::Unavailable });
        let (sights, errors) = launcher.look(&[&attempt()], jiff::Timestamp::now()).await;
        assert!(sights.is_empty(), "{sights:?}");
        assert!(errors[0].to_string().starts_with("executors cannot be seen"), "{errors:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_in_the_cluster_wakes_whoever_waits() {
    let cluster = Cluster::start();
    let launcher = launcher(&cluster).await;
    let Launcher::Kubernetes(kubernetes) = &launcher else { panic!("it is the one that was made") };
    let mut changes = launcher.running();
    kubernetes.listen();
    launched(&launcher, 1).await;
    let woken = tokio::time::timeout(Duration::from_secs(60), changes.changed()).await;
    woken.expect("a new Job wakes").unwrap();
}
