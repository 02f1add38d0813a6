//! The Kubernetes of the tests, met by the client that the product uses.

use futures_util::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Pod, Secret};
use kube::api::{
    DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Config, Error, Resource};
use leviathan_test_support::kubernetes::{Cluster, Fault, Gone, Harm, NAMESPACE};
use serde_json::{Value, json};

async fn client_of(cluster: &Cluster, token: &str) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(&cluster.kubeconfig_of(token)).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("a configuration");
    Client::try_from(config).expect("a client")
}

async fn api<K>(cluster: &Cluster) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope>,
    K::DynamicType: Default,
{
    Api::namespaced(client_of(cluster, cluster.token()).await, NAMESPACE)
}

/// A Job whose pod has an init container, a courier beside it and a container that comes last.
fn job_value(name: &str) -> Value {
    let container = |name: &str| {
        json!({
            "name": name, "image": "example.test/leviathan:1",
            "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
                "readOnlyRootFilesystem": true,
            },
            "volumeMounts": [{ "name": "scratch", "mountPath": "/scratch" }],
        })
    };
    let mut courier = container("courier");
    courier["restartPolicy"] = "Always".into();
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": { "name": name, "labels": { "app": "leviathan-executor" } },
        "spec": {
            "backoffLimit": 0, "ttlSecondsAfterFinished": 3600, "podReplacementPolicy": "Failed",
            "podFailurePolicy": { "rules": [
                { "action": "FailJob", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] },
                { "action": "FailJob", "onExitCodes": { "operator": "In", "values": [42] } },
            ] },
            "template": {
                "metadata": { "labels": { "app": "leviathan-executor" } },
                "spec": {
                    "restartPolicy": "Never", "automountServiceAccountToken": false,
                    "serviceAccountName": "leviathan-executor",
                    "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
                    "initContainers": [courier, container("work")],
                    "containers": [container("publish")],
                    "volumes": [{ "name": "scratch", "emptyDir": { "sizeLimit": "1Gi" } }],
                },
            },
        },
    })
}

fn job(name: &str) -> Job {
    serde_json::from_value(job_value(name)).expect("a Job")
}

fn refusal<T>(answer: Result<T, Error>) -> (u16, String, String) {
    match answer {
        Err(Error::Api(status)) => (status.code, status.reason.clone(), status.message.clone()),
        Err(other) => panic!("not a refusal: {other}"),
        Ok(_) => panic!("it was not refused"),
    }
}

fn conditions(job: &Value) -> Vec<(String, String)> {
    let conditions = job["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    conditions.iter().map(|one| (word(&one["type"]), word(&one["reason"]))).collect()
}

#[tokio::test]
async fn a_job_is_created_once_found_and_deleted_with_what_it_owns() {
    let cluster = Cluster::start();
    let jobs: Api<Job> = api(&cluster).await;
    let made = jobs.create(&PostParams::default(), &job("one")).await.unwrap();
    let (uid, version) = (made.metadata.uid.clone().unwrap(), made.metadata.resource_version.clone());
    assert!(version.is_some() && made.metadata.creation_timestamp.is_some());
    let (code, reason, message) = refusal(jobs.create(&PostParams::default(), &job("one")).await);
    assert_eq!((code, reason.as_str()), (409, "AlreadyExists"));
    assert_eq!(message, r#"jobs.batch "one" already exists"#);
    assert_eq!(refusal(jobs.get("two").await).2, r#"jobs.batch "two" not found"#);

    let secrets: Api<Secret> = api(&cluster).await;
    let secret = json!({
        "metadata": { "name": "one", "ownerReferences": [
            { "apiVersion": "batch/v1", "kind": "Job", "name": "one", "uid": uid },
        ] },
        "stringData": { "token": "abc" },
    });
    let secret =
        secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    assert_eq!(secret.data.unwrap()["token"].0, b"abc");
    cluster.controller_step();
    let pods: Api<Pod> = api(&cluster).await;
    assert_eq!(pods.list(&ListParams::default().labels("job-name=one")).await.unwrap().items.len(), 1);

    let wrong = DeleteParams::background()
        .preconditions(kube::api::Preconditions { uid: Some("another".into()), resource_version: None });
    assert_eq!(refusal(jobs.delete("one", &wrong).await).0, 409);
    jobs.delete("one", &DeleteParams::background()).await.unwrap();
    for resource in ["jobs", "secrets", "pods"] {
        assert_eq!(cluster.objects(resource), Vec::<Value>::new(), "{resource}");
    }
}

#[tokio::test]
async fn deleting_leaves_what_its_policy_says() {
    for (policy, running, pods_after) in [
        (DeleteParams::default(), true, 1),
        (DeleteParams::background(), true, 1),
        (DeleteParams::background(), false, 0),
        (DeleteParams::foreground(), true, 1),
    ] {
        let cluster = Cluster::start();
        let jobs: Api<Job> = api(&cluster).await;
        jobs.create(&PostParams::default(), &job("one")).await.unwrap();
        cluster.controller_step();
        if running {
            assert!(cluster.pod_running("one"));
        }
        jobs.delete("one", &policy).await.unwrap();
        assert_eq!(cluster.objects("pods").len(), pods_after, "{policy:?}");
        let foreground = policy == DeleteParams::foreground();
        assert_eq!(cluster.objects("jobs").len(), usize::from(foreground), "{policy:?}");
        let orphan = policy == DeleteParams::default();
        if pods_after == 1 && !orphan {
            assert!(!cluster.pod("one")["metadata"]["deletionTimestamp"].is_null(), "{policy:?}");
            cluster.pod_terminated("one");
            assert_eq!((cluster.objects("pods").len(), cluster.objects("jobs").len()), (0, 0), "{policy:?}");
        }
    }
}

#[tokio::test]
async fn a_watch_tells_changes_from_a_version_on_until_that_is_gone() {
    let cluster = Cluster::start();
    let jobs: Api<Job> = api(&cluster).await;
    let version = jobs.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let selected = WatchParams::default().labels("app=leviathan-executor");
    let mut events = jobs.watch(&selected, &version).await.unwrap().boxed();
    jobs.create(&PostParams::default(), &job("one")).await.unwrap();
    assert!(matches!(events.try_next().await.unwrap(), Some(WatchEvent::Added(_))));
    cluster.bookmark();
    assert!(matches!(events.try_next().await.unwrap(), Some(WatchEvent::Bookmark(_))));
    let patch = Patch::Merge(json!({ "metadata": { "labels": { "app": "other" } } }));
    jobs.patch("one", &PatchParams::default(), &patch).await.unwrap();
    assert!(matches!(events.try_next().await.unwrap(), Some(WatchEvent::Deleted(_))));
    cluster.close_watches();
    assert!(events.try_next().await.unwrap().is_none());

    cluster.compact();
    let mut events = jobs.watch(&selected, &version).await.unwrap().boxed();
    let Some(WatchEvent::Error(status)) = events.try_next().await.unwrap() else { panic!("it is not gone") };
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
    cluster.gone(Gone::AsAnswer);
    let Err(error) = jobs.watch(&selected, &version).await else { panic!("it is not gone") };
    assert_eq!(refusal::<()>(Err(error)).0, 410);
}

#[tokio::test]
async fn a_list_comes_in_pages_of_one_version() {
    let cluster = Cluster::start();
    let jobs: Api<Job> = api(&cluster).await;
    for name in ["a", "b", "c"] {
        cluster.put("jobs", job_value(name));
    }
    let first = jobs.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!((first.items.len(), first.metadata.remaining_item_count), (2, Some(1)));
    cluster.put("jobs", job_value("d"));
    let token = first.metadata.continue_.unwrap();
    let second = jobs.list(&ListParams::default().limit(2).continue_token(&token)).await.unwrap();
    let names: Vec<_> = second.items.iter().filter_map(|job| job.metadata.name.clone()).collect();
    assert_eq!(names, ["c"]);
    cluster.compact();
    assert_eq!(refusal(jobs.list(&ListParams::default().continue_token(&token)).await).0, 410);
}

#[tokio::test]
async fn a_replace_needs_the_version_that_it_replaces() {
    let cluster = Cluster::start();
    let leases: Api<Lease> = api(&cluster).await;
    let lease =
        json!({ "metadata": { "name": "x" }, "spec": { "holderIdentity": "a", "leaseDurationSeconds": 15 } });
    let mut lease =
        leases.create(&PostParams::default(), &serde_json::from_value(lease).unwrap()).await.unwrap();
    let old = lease.clone();
    lease.spec.as_mut().unwrap().holder_identity = Some("b".into());
    leases.replace("x", &PostParams::default(), &lease).await.unwrap();
    let (code, reason, _) = refusal(leases.replace("x", &PostParams::default(), &old).await);
    assert_eq!((code, reason.as_str()), (409, "Conflict"));
    lease.metadata.resource_version = None;
    assert_eq!(refusal(leases.replace("x", &PostParams::default(), &lease).await).0, 422);
}

#[tokio::test]
async fn objects_that_kubernetes_would_not_take_are_refused() {
    let cluster = Cluster::start();
    let jobs: Api<DynamicObject> = dynamic_jobs(&cluster).await;
    for (pointer, value, words) in [
        ("/metadata/name", json!("Under_score"), "metadata.name"),
        ("/metadata/labels/app", json!("x".repeat(64)), "must be no more than 63 characters"),
        ("/metadata/labels/app", json!("a/b"), "a valid label must"),
        ("/spec/template/spec/restartPolicy", json!("OnFailure"), "only \"Never\" is supported"),
        ("/spec/template/spec/restartPolicy", json!("Always"), "Unsupported value"),
        ("/spec/template/spec/containers/0/restartPolicy", json!("Always"), "may not be set for non-init"),
        ("/spec/template/spec/containers/0/volumeMounts/0/name", json!("none"), "Not found"),
        ("/spec/template/spec/volumes/0/emptyDir/sizeLimit", json!("much"), "quantities must match"),
        ("/spec/podFailurePolicy/rules/1/onExitCodes/values", json!([42, 1]), "must be ordered"),
        ("/spec/podFailurePolicy/rules/1/onExitCodes/containerName", json!("none"), "must be one of"),
        ("/spec/podReplacementPolicy", json!("TerminatingOrFailed"), "podReplacementPolicy"),
    ] {
        let mut bad = job_value("bad");
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        bad.pointer_mut(parent).unwrap()[field] = value;
        let bad: DynamicObject = serde_json::from_value(bad).unwrap();
        let (code, _, message) = refusal(jobs.create(&PostParams::default(), &bad).await);
        assert_eq!(code, 422, "{pointer}");
        assert!(message.contains(words), "{pointer}: {message}");
    }
    cluster.put("jobs", job_value("one"));
    let mut changed = jobs.get("one").await.unwrap();
    changed.data["spec"]["template"]["spec"]["containers"][0]["image"] = "another".into();
    let (code, _, message) = refusal(jobs.replace("one", &PostParams::default(), &changed).await);
    assert!(code == 422 && message.contains("field is immutable"), "{message}");
}

#[tokio::test]
async fn an_unknown_field_is_refused_where_that_is_asked_for() {
    let cluster = Cluster::start();
    let jobs: Api<DynamicObject> = dynamic_jobs(&cluster).await;
    cluster.put("jobs", job_value("one"));
    let patch = Patch::Merge(json!({ "spec": { "template": { "spec": { "hostNet": true } } } }));
    let strict = PatchParams {
        field_validation: Some(kube::api::ValidationDirective::Strict),
        ..PatchParams::default()
    };
    let (code, _, message) = refusal(jobs.patch("one", &strict, &patch).await);
    assert_eq!(code, 400);
    assert!(
        message.ends_with(r#"strict decoding error: unknown field "spec.template.spec.hostNet""#),
        "{message}"
    );
    assert_eq!(cluster.illegal().len(), 1);
    let taken = jobs.patch("one", &PatchParams::default(), &patch).await.unwrap();
    assert!(taken.data["spec"]["template"]["spec"]["hostNet"].is_null());
}

#[tokio::test]
async fn only_what_a_role_grants_is_done() {
    let cluster = Cluster::start();
    cluster.put("jobs", job_value("one"));
    let role = json!({ "kind": "Role", "metadata": { "namespace": NAMESPACE }, "rules": [
        { "apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["list"] },
        { "apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get"], "resourceNames": ["one"] },
    ] });
    let token = cluster.service_account("scheduler", std::slice::from_ref(&role));
    let jobs: Api<Job> = Api::namespaced(client_of(&cluster, &token).await, NAMESPACE);
    jobs.list(&ListParams::default()).await.unwrap();
    jobs.get("one").await.unwrap();
    assert_eq!(refusal(jobs.get("two").await).0, 403);
    let (code, reason, message) = refusal(jobs.create(&PostParams::default(), &job("two")).await);
    assert_eq!((code, reason.as_str()), (403, "Forbidden"));
    assert_eq!(
        message,
        "jobs.batch is forbidden: User \"system:serviceaccount:leviathan:scheduler\" cannot create resource \
         \"jobs\" in API group \"batch\" in the namespace \"leviathan\""
    );
    let verbs: Vec<_> = cluster.uses(&token).into_iter().map(|used| used.verb).collect();
    assert_eq!(verbs, ["create", "get", "list"]);
    cluster.revoke(&token);
    assert_eq!(refusal(jobs.list(&ListParams::default()).await).0, 401);
}

#[tokio::test]
async fn pods_that_may_not_be_are_told_in_an_event_of_their_job() {
    let cluster = Cluster::start();
    cluster.quota_pods(Some(0));
    cluster.put("jobs", job_value("one"));
    cluster.controller_step();
    cluster.controller_step();
    let events: Api<Event> = api(&cluster).await;
    let uid = cluster.object("jobs", "one").unwrap()["metadata"]["uid"].as_str().unwrap().to_owned();
    let own = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
    let found = events.list(&own).await.unwrap().items;
    assert_eq!((found.len(), found[0].count, found[0].reason.as_deref()), (1, Some(2), Some("FailedCreate")));
    assert!(
        found[0].message.as_ref().unwrap().contains("exceeded quota: leviathan"),
        "{:?}",
        found[0].message
    );

    cluster.quota_pods(None);
    let mut loose = job_value("loose");
    loose["spec"]["template"]["spec"]["containers"][0]["securityContext"] = json!({});
    cluster.put("jobs", loose);
    cluster.remove("jobs", "one");
    cluster.controller_step();
    let events = cluster.objects("events");
    let words = events.iter().map(|event| event["message"].as_str().unwrap()).collect::<Vec<_>>().join("\n");
    assert!(
        words.contains("violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation"),
        "{words}"
    );

    cluster.quota_jobs(Some(1));
    let jobs: Api<Job> = api(&cluster).await;
    let (code, _, message) = refusal(jobs.create(&PostParams::default(), &job("two")).await);
    assert!(code == 403 && message.contains("exceeded quota"), "{message}");
}

#[test]
fn a_job_ends_as_its_pod_does() {
    type End = fn(&Cluster);
    let ends: [(&str, End, &str, &[&str]); 6] = [
        ("well", |c| c.pod_succeeded("one"), "Succeeded", &["CompletionsReached"]),
        ("badly", |c| c.pod_failed("one", 1), "Failed", &["BackoffLimitExceeded"]),
        ("fenced", |c| c.pod_failed("one", 42), "Failed", &["PodFailurePolicy"]),
        (
            "out of memory",
            |c| c.container_terminated("one", "work", 137, "OOMKilled", ""),
            "Failed",
            &["BackoffLimitExceeded"],
        ),
        (
            "evicted",
            |c| c.evict("one", "TerminationByKubelet", "low on disk"),
            "Failed",
            &["PodFailurePolicy"],
        ),
        ("disrupted", |c| c.evict("one", "EvictionByEvictionAPI", "drained"), "", &["PodFailurePolicy"]),
    ];
    for (name, end, phase, reasons) in ends {
        let cluster = Cluster::start();
        cluster.put("jobs", job_value("one"));
        cluster.controller_step();
        assert!(cluster.container_running("one", "work"));
        assert_eq!(
            cluster.pod("one")["status"]["phase"],
            "Pending",
            "{name}: init containers run in Pending"
        );
        end(&cluster);
        let pods = cluster.objects("pods");
        let phases: Vec<_> = pods.iter().map(|pod| pod["status"]["phase"].as_str().unwrap()).collect();
        assert_eq!(phases.join(","), phase, "{name}");
        let job = cluster.object("jobs", "one").unwrap();
        let told = conditions(&job);
        assert!(told.iter().all(|(_, reason)| reasons.contains(&reason.as_str())), "{name}: {told:?}");
        let last = if phase == "Succeeded" { "Complete" } else { "Failed" };
        assert_eq!(told.last().map(|(kind, _)| kind.as_str()), Some(last), "{name}: {told:?}");
        cluster.controller_step();
        assert_eq!(cluster.objects("pods").len(), pods.len(), "{name}: no second pod");
        cluster.ttl_expired("one");
        assert_eq!(cluster.objects("jobs").len() + cluster.objects("pods").len(), 0, "{name}");
    }
}

#[test]
fn a_pod_whose_deadline_is_over_is_waited_for_and_a_lost_node_holds_it() {
    let cluster = Cluster::start();
    cluster.put("jobs", job_value("one"));
    cluster.controller_step();
    cluster.pod_running("one");
    cluster.deadline_exceeded("one");
    let told = conditions(&cluster.object("jobs", "one").unwrap());
    assert_eq!(told, [("FailureTarget".to_owned(), "DeadlineExceeded".to_owned())]);
    cluster.pod_terminated("one");
    let told = conditions(&cluster.object("jobs", "one").unwrap());
    assert_eq!(told.last().unwrap(), &("Failed".to_owned(), "DeadlineExceeded".to_owned()));

    cluster.put("jobs", job_value("two"));
    cluster.controller_step();
    cluster.pod_running("two");
    cluster.node_lost("two");
    cluster.controller_step();
    assert_eq!(cluster.pod("two")["status"]["phase"], "Running");
    assert!(conditions(&cluster.object("jobs", "two").unwrap()).is_empty());
    cluster.node_removed("two");
    let told = conditions(&cluster.object("jobs", "two").unwrap());
    assert_eq!(told.last().unwrap(), &("Failed".to_owned(), "PodFailurePolicy".to_owned()));
}

#[test]
fn a_container_waits_for_the_secret_that_it_needs() {
    let cluster = Cluster::start();
    let mut job = job_value("one");
    let from = json!({ "secretKeyRef": { "name": "token", "key": "token" } });
    job["spec"]["template"]["spec"]["initContainers"][1]["env"] =
        json!([{ "name": "TOKEN", "valueFrom": from }]);
    cluster.put("jobs", job);
    cluster.controller_step();
    assert!(!cluster.container_running("one", "work"));
    let waiting = &cluster.pod("one")["status"]["initContainerStatuses"][1]["state"]["waiting"];
    assert_eq!(waiting["reason"], "CreateContainerConfigError");
    cluster.put("secrets", json!({ "metadata": { "name": "token" }, "stringData": { "token": "x" } }));
    assert!(cluster.container_running("one", "work"));
}

#[tokio::test]
async fn a_lost_answer_is_not_a_lost_request() {
    let cluster = Cluster::start();
    let jobs: Api<Job> = api(&cluster).await;
    for (name, harm, made) in [
        ("one", Harm::Drop, false),
        ("two", Harm::DropAfter, true),
        ("three", Harm::GatewayTimeout, false),
        ("four", Harm::GatewayTimeoutAfter, true),
        ("five", Harm::InternalError, false),
    ] {
        cluster.fault(Fault { method: "create", resource: "jobs", nth: 1, harm });
        // The client may try again by itself; what was made is seen before that.
        let answer = jobs.create(&PostParams::default(), &job(name)).await;
        let tries =
            cluster.requests().iter().filter(|request| request.body["metadata"]["name"] == name).count();
        assert!(tries > 1 || answer.is_err(), "{harm:?}");
        if tries == 1 {
            assert_eq!(cluster.object("jobs", name).is_some(), made, "{harm:?}");
        }
    }
}

#[tokio::test]
async fn a_stopped_server_keeps_what_it_stored() {
    let mut cluster = Cluster::start();
    cluster.put("jobs", job_value("one"));
    cluster.stop();
    let jobs: Api<Job> = api(&cluster).await;
    assert!(matches!(jobs.get("one").await, Err(error) if !matches!(error, Error::Api(_))));
    cluster.start_again();
    assert_eq!(jobs.get("one").await.unwrap().metadata.name.as_deref(), Some("one"));
}

async fn dynamic_jobs(cluster: &Cluster) -> Api<DynamicObject> {
    let resource = kube::api::ApiResource::erase::<Job>(&());
    Api::namespaced_with(client_of(cluster, cluster.token()).await, NAMESPACE, &resource)
}
