//! The same job on a cluster: the real programs, an API server that keeps state, and a node that runs the
//! containers of each pod as its specification says.

#![expect(clippy::unwrap_used, reason = "a story fails where it is told")]

use std::collections::BTreeSet;

use leviathan_stories::kubelet::{Pod, terminate};
use leviathan_stories::manifests::{applied, find};
use leviathan_stories::{Installation, MergeKind, Program, contract, eventually};
use serde_json::{Value, json};
use test_support::kubernetes::{Cluster, Use};

const BACKLOG: &str = "tasks:\n  - task_id: task-001\n    title: Greet\n    scope: docs\n    priority: high\n    estimated_size: small\n    allowed_paths: [docs/greeting.md]\n    acceptance_criteria: [It greets]\n    status: pending\n";
const POLICY: &str = "scopes:\n  docs:\n    allowed_paths: ['docs/**']\ninvariants:\n  - name: It begins with a capital\n    check: grep -q ^H docs/greeting.md\n";
const FILES: &[(&str, &str)] = &[("docs/greeting.md", "Hullo\n")];
const GREET: &str = "command:echo Hello > docs/greeting.md";
/// An agent that is at work until somebody ends it.
const DAWDLE: &str = "command:touch \"$TMPDIR\"/at-work; sleep 600";

/// An installation whose executors are pods, and whose scheduler has the Role of `ops/k8s/control-plane.yaml` and
/// no other right.
struct Site {
    cluster: Cluster,
    installation: Installation,
    role: Value,
    token: String,
    _folder: tempfile::TempDir,
}

impl Site {
    fn new(agent: &str) -> Self {
        let cluster = Cluster::start();
        let role = find(&applied(), "Role", "leviathan-scheduler").clone();
        let token = cluster.service_account("leviathan-scheduler", std::slice::from_ref(&role));
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, cluster.kubeconfig_of(&token)).unwrap();
        let mut installation = Installation::new(FILES, BACKLOG, POLICY);
        installation.set("KUBECONFIG", kubeconfig.to_str().unwrap());
        installation.set("LEVIATHAN_LAUNCHER", "kubernetes");
        installation.set("LEVIATHAN_IMAGE", "leviathan:0.1.0");
        installation.set("LEVIATHAN_AGENT", agent);
        Self { cluster, installation, role, token, _folder: folder }
    }

    /// `kubectl scale deployment leviathan-scheduler --replicas=1`; dropping it is `--replicas=0`.
    fn scheduler(&self) -> Program {
        self.installation.start(&["scheduler", "--interval", "200ms", "--review-interval", "200ms"])
    }

    fn jobs(&self) -> Vec<String> {
        let name = |job: Value| job["metadata"]["name"].as_str().unwrap().to_owned();
        self.cluster.objects("jobs").into_iter().map(name).collect()
    }

    /// The Job of the newest attempt, once there is one beside `known`.
    fn next_job(&self, known: &[String]) -> String {
        let mut next = None;
        eventually("a Job is made", || {
            next = self.jobs().into_iter().find(|job| !known.contains(job));
            next.is_some()
        });
        next.unwrap()
    }

    /// The newest attempt's status, as an operator sees it.
    fn newest(&self) -> Value {
        self.installation.json(&["attempts-list", "--limit", "1"])["attempts"][0].clone()
    }

    /// Waits until the newest attempt has this status, and fails at once when it ends with another.
    fn becomes(&self, status: &str) {
        eventually(&format!("the attempt is {status}"), || {
            let newest = self.newest();
            assert!(
                newest["failure"].is_null() || newest["status"] == status,
                "it is not {status}: {newest}"
            );
            newest["status"] == status
        });
    }

    fn types(&self) -> Vec<String> {
        self.installation.event_types("task-001")
    }
}

#[test]
fn a_task_becomes_a_pull_request_in_a_pod_and_its_merge_is_written_back() {
    let site = Site::new(GREET);
    let _scheduler = site.scheduler();
    let job = site.next_job(&[]);
    Pod::of(&site.cluster, &job).run();
    site.becomes("completed");
    let attempt = site.newest();
    assert_eq!(attempt["launcher"], "kubernetes");
    assert_eq!(format!("leviathan-{}", attempt["attempt_id"].as_str().unwrap()), job);
    let types = site.types();
    for expected in ["attempt.launched", "attempt.started", "change.verified", "branch.pushed", "pr.created"]
    {
        assert!(types.iter().any(|found| found == expected), "{expected} in {types:?}");
    }
    let number = attempt["pr_number"].as_u64().unwrap();
    assert!(number > 0);
    site.installation.origin.merge(attempt["branch"].as_str().unwrap(), MergeKind::Merge);
    eventually("the backlog says so", || site.installation.backlog().contains("status: completed"));
    // Nothing that a pod may read says the operator's token.
    let told = site
        .cluster
        .objects("secrets")
        .iter()
        .chain(&site.cluster.objects("jobs"))
        .any(|object| object.to_string().contains(leviathan_stories::TOKEN));
    assert!(!told);
}

#[test]
fn a_config_map_registers_a_target_and_a_broken_one_keeps_the_last_good() {
    let site = Site::new(GREET);
    let _scheduler = site.scheduler();
    let target = |at: &str| {
        let targets = site.installation.json(&["targets-list"]);
        targets["targets"][0][at].clone()
    };
    let url = site.installation.origin.url();
    let map = |data: Value| {
        let name = "leviathan-target-story";
        site.cluster.put(
            "configmaps",
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data }),
        );
    };
    map(json!({ "contract.yaml": contract(&url), "executor_image": "python:3.12" }));
    eventually("it is registered", || target("executor_image") == "python:3.12");
    assert_eq!(target("source"), "configmap/leviathan-target-story");

    map(json!({ "contract.yaml": "target_id: story\nnam: Story\n" }));
    let rejected = || {
        let events = site.installation.events();
        events.into_iter().filter(|event| event["event_type"] == "target.rejected").collect::<Vec<_>>()
    };
    eventually("it is rejected", || !rejected().is_empty());
    assert!(rejected()[0]["payload"]["problems"].to_string().contains("nam"), "{:?}", rejected());
    assert_eq!(target("executor_image"), "python:3.12");

    map(json!({ "contract.yaml": contract(&url), "executor_image": null }));
    eventually("it is put right", || target("executor_image").is_null());
    assert_eq!(rejected().len(), 1);

    site.cluster.remove("configmaps", "leviathan-target-story");
    eventually("it is unregistered", || !target("unregistered").is_null());
    let task = || site.installation.json(&["tasks-list"])["tasks"][0].clone();
    eventually("its tasks say why they wait", || {
        matches!(task()["reason"].as_str(), Some("unregistered" | "running" | "in_review"))
    });
}

#[test]
fn jobs_that_somebody_deletes_are_cancelled_and_not_tried_again_until_a_human_says_so() {
    let site = Site::new(DAWDLE);
    let mut scheduler = site.scheduler();
    let job = site.next_job(&[]);
    // Deleted while it waits for a node: the scheduler says so.
    eventually("its launch is recorded", || site.types().iter().any(|found| found == "attempt.launched"));
    site.cluster.delete_job(&job);
    site.becomes("cancelled");
    let reason = site.newest()["failure"]["detail"].to_string();
    assert!(reason.contains("external: its executor was deleted"), "{reason}");

    // `leviathanctl invalidate` lets it run again.
    let attempt = site.newest()["attempt_id"].as_str().unwrap().to_owned();
    site.installation.ctl(&["invalidate", &attempt, "--reason", "Emergency stop"]).succeeded();
    let job = site.next_job(&[job]);

    // Deleted while the agent works, and no scheduler is there: the pod itself says so.
    let mut pod = Pod::of(&site.cluster, &job);
    assert!(pod.runs_through("prepare"));
    pod.start_courier();
    let mut work = pod.start("work");
    eventually("the agent works", || site.newest()["activity"].to_string().contains("agent"));
    scheduler.kill();
    site.cluster.delete_job(&job);
    terminate(&work);
    eventually("work ends", || work.try_wait().unwrap().is_some());
    pod.end_courier();
    site.becomes("cancelled");
    let reason = site.newest()["failure"]["detail"].to_string();
    assert!(reason.contains("external: its executor was told to stop (SIGTERM)"), "{reason}");

    // With the scheduler back, nothing runs by itself.
    let _scheduler = site.scheduler();
    let number = requested_pass(&site);
    assert!(number > 0);
    assert_eq!(site.jobs(), [""; 0]);
    let task = site.installation.json(&["tasks-list"])["tasks"][0].clone();
    assert_ne!(task["reason"], Value::Null, "{task}");
}

#[test]
fn only_what_was_the_clusters_fault_is_tried_again() {
    let site = Site::new(DAWDLE);
    let _scheduler = site.scheduler();
    let job = site.next_job(&[]);
    let mut pod = Pod::of(&site.cluster, &job);
    assert!(pod.runs_through("prepare"));
    site.cluster.evict(&job, "TerminationByKubelet", "The node was low on resource: memory.");
    site.becomes("lost");
    let detail = site.newest()["failure"]["detail"].to_string();
    assert!(detail.contains("The node was low on resource: memory."), "{detail}");
    let task = site.installation.json(&["tasks-list"])["tasks"][0].clone();
    assert_eq!(task["reason"], "backoff", "{task}");

    let site = Site::new(DAWDLE);
    let _scheduler = site.scheduler();
    let job = site.next_job(&[]);
    let mut pod = Pod::of(&site.cluster, &job);
    assert!(pod.runs_through("prepare"));
    site.cluster.container_terminated(&job, "work", 137, "OOMKilled", "");
    site.becomes("failed");
    let failure = site.newest()["failure"].clone();
    assert_eq!(failure["reason"], "config_invalid");
    assert!(
        failure["detail"].to_string().contains("container `work` used more memory than its limit"),
        "{failure}"
    );
}

#[test]
fn a_scheduler_that_is_killed_makes_no_second_job() {
    let site = Site::new(GREET);
    let mut scheduler = site.scheduler();
    let job = site.next_job(&[]);
    // Killed before that, it leaves a pod that cannot start, and after half a minute another Job rightly takes its place.
    eventually("the Job has its Secret", || {
        let is_its =
            |secret: &Value| secret["metadata"]["name"].as_str().is_some_and(|name| name.contains(&job));
        site.cluster.objects("secrets").iter().any(is_its)
    });
    scheduler.kill();
    let _another = site.scheduler();
    requested_pass(&site);
    assert_eq!(site.jobs(), std::slice::from_ref(&job));
    Pod::of(&site.cluster, &job).run();
    site.becomes("completed");
    let created = site.types().iter().filter(|found| *found == "pr.created").count();
    assert_eq!(created, 1);
}

#[test]
fn the_scheduler_calls_all_that_its_role_grants_and_nothing_else() {
    let site = Site::new(DAWDLE);
    let granted: BTreeSet<String> = site.role["rules"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|rule| {
            let each = |key: &str| rule[key].as_array().unwrap().iter().map(|one| one.as_str().unwrap());
            let resources =
                each("resources").map(move |resource| (resource, rule["apiGroups"][0].as_str().unwrap()));
            resources.flat_map(move |(resource, group)| {
                let verbs = rule["verbs"].as_array().unwrap().iter();
                verbs.map(move |verb| format!("{} {group}/{resource}", verb.as_str().unwrap()))
            })
        })
        .collect();
    let called = || -> BTreeSet<String> {
        let words = |used: &Use| format!("{} {}/{}", used.verb, used.group, used.resource);
        site.cluster.uses(&site.token).iter().map(words).collect()
    };
    // Nobody gives the pod a node, so that the Job is asked about and given up.
    let scheduler =
        site.installation.start(&["scheduler", "--interval", "200ms", "--unscheduled-after", "2s"]);
    let job = site.next_job(&[]);
    eventually("it asks why the Job has no pod", || called().contains("list /events"));
    eventually("the Job is deleted", || !site.jobs().contains(&job));
    eventually("everything that is granted is called", || called().is_superset(&granted));
    drop(scheduler);
    assert_eq!(called(), granted, "granted is on the right");
    let refused: Vec<_> =
        site.cluster.requests().into_iter().filter(|request| request.status == 403).collect();
    assert!(refused.is_empty(), "{refused:#?}");
}

/// Asks for a pass and waits until it was made.
fn requested_pass(site: &Site) -> u64 {
    let finished =
        site.installation.ctl(&["--output", "json", "scheduler-pass", "--wait", "60s"]).succeeded();
    let answer: Value = serde_json::from_str(&finished.stdout).unwrap();
    answer["done"].as_u64().or_else(|| answer["number"].as_u64()).unwrap_or(1)
}
