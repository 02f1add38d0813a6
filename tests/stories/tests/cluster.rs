//! The commands of the specification on a real Kubernetes. Runs where a cluster is given (`LEVIATHAN_TEST_KUBECONFIG`
//! and `LEVIATHAN_TEST_IMAGE`; docs/kubernetes.md has all variables), and otherwise says that it was skipped.
//!
//! The forge is the GitHub for tests. It listens on the machine of the test, and socat gives it the certificate that
//! the image trusts: Leviathan sends no token over plain http.

#![expect(clippy::unwrap_used, reason = "a story fails where it is told")]

use std::io::Write;
use std::net::{IpAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use leviathan_stories::{Entry, Finished, MergeKind, Origin, Program, root};
use serde_json::{Value, json};
use test_support::github::GitHub;

/// How long the cluster may take for one thing: images are pulled, nodes are busy.
const PATIENCE: Duration = Duration::from_secs(600);

const GITHUB_TOKEN: &str = "ghp_cluster0123456789abcdefghijklmnopqrst";

const POLICY: &str = "scopes:
  app:
    allowed_paths: ['src/**']
invariants:
  - name: The greeting is there
    check: test -s src/greeting.txt
limits:
  max_concurrent: 8
  max_open_prs: 8
";

#[test]
fn an_installation_comes_up_takes_registrations_and_stops_at_a_word() {
    let Some(given) = Given::from_environment() else { return };
    let cluster = Cluster::start(&given, "setup");
    cluster.wait_for_rollout();

    // A registration that does not hold is refused whole, and a corrected one is taken.
    let contract = "target_id: myrepo\nname: My Repository\nrepo_url: https://forge.invalid/acme/shop.git\n";
    cluster.register("leviathan-target-myrepo", &[("contract.yaml", contract)]);
    cluster.run_scheduler("leviathan-scheduler-run");
    cluster.eventually("the broken registration is in the log", || {
        cluster.events().iter().any(|event| event["event_type"] == "target.rejected")
    });
    assert_eq!(list(&cluster.ctl_json(&["targets-list"])["targets"]).len(), 0);
    let contract = format!("{contract}default_branch: main\n");
    cluster.register("leviathan-target-myrepo", &[("contract.yaml", &contract)]);
    cluster.eventually("the corrected registration is taken", || {
        cluster.ctl_json(&["targets-list"])["targets"][0]["target_id"] == "myrepo"
    });

    cluster.ctl(&["doctor"]).succeeded();

    // With no replica nothing runs, whatever the CronJob does: its Job fails, with the next step in its log.
    cluster.kubectl(&["scale", "deployment", "leviathan-scheduler", "--replicas=0"]).succeeded();
    cluster.eventually("the scheduler is gone", || {
        let selector = "app.kubernetes.io/component=scheduler";
        list(&cluster.get(&["pods", "-l", selector])["items"]).is_empty()
    });
    cluster.create_run("leviathan-scheduler-nobody");
    cluster.eventually("the pass that nobody makes fails", || {
        let job = cluster.get(&["job", "leviathan-scheduler-nobody"]);
        job["status"]["failed"] == 1
    });
    let log = cluster.kubectl(&["logs", "job/leviathan-scheduler-nobody"]).succeeded().stdout;
    assert!(log.contains("kubectl scale deployment leviathan-scheduler --replicas=1"), "{log}");

    // A control plane that is started anew has forgotten nothing.
    let before = cluster.events().len();
    cluster.kubectl(&["rollout", "restart", "deployment/leviathan-control-plane"]).succeeded();
    cluster.kubectl(&["rollout", "status", "deployment/leviathan-control-plane", "--timeout=5m"]).succeeded();
    assert!(cluster.events().len() >= before);

    cluster.kubectl(&["delete", "configmap", "leviathan-target-myrepo"]).succeeded();
    cluster.kubectl(&["scale", "deployment", "leviathan-scheduler", "--replicas=1"]).succeeded();
    cluster.eventually("the target is unregistered", || {
        !cluster.ctl_json(&["targets-list"])["targets"][0]["unregistered"].is_null()
    });
}

#[test]
fn attempts_run_in_pods_from_the_registration_to_the_write_back() {
    let Some(given) = Given::from_environment() else { return };
    let Some(reach) = Reach::from_environment() else {
        println!("skipped: no attempt was tried: LEVIATHAN_TEST_HOST, _CERTIFICATE and _KEY are not set");
        return;
    };
    let world = World::start(&given, &reach);
    let cluster = &world.cluster;

    // The specification's way: register, trigger, attempt in the pod, pull request, merge, write-back.
    world.add(&[task("greet", "mkdir -p src && echo hello > src/greeting.txt")]);
    let contract = world.contract();
    cluster.register("leviathan-target-myrepo", &[("contract.yaml", &contract)]);
    cluster.run_scheduler("leviathan-scheduler-run");
    cluster.eventually("there is a pull request", || !world.github.numbers().is_empty());
    let number = world.github.numbers()[0];
    let (_, body) = world.github.text(number);
    assert!(body.contains("k8s-job-leviathan-attempt-"), "{body}");
    world.github.merge(number, MergeKind::Merge, "maintainer");
    cluster.eventually("the backlog says so", || world.backlog().contains("status: completed"));

    // Every way in which a pod can end badly.
    world.add(&[
        task("memory", "head -c 2G /dev/zero | tail > /dev/null"),
        task("deadline", "sleep 3000"),
        task("deleted", "sleep 3000"),
    ]);
    world.fails("memory", "OOMKilled");
    let job = world.at_work("deadline");
    cluster
        .kubectl(&["patch", "job", &job, "--type=merge", "-p", r#"{"spec":{"activeDeadlineSeconds":1}}"#])
        .succeeded();
    world.ends("deadline", &["failed", "cancelled"]);
    world.at_work("deleted");
    cluster.kubectl(&["delete", "pods", "-l", "leviathan.dev/task=deleted", "--wait=false"]).succeeded();
    world.ends("deleted", &["failed", "cancelled", "lost", "invalidated"]);

    // The emergency stop: nothing new, nothing that runs, and one attempt declared void.
    world.add(&[task("emergency", "sleep 3000")]);
    world.at_work("emergency");
    cluster.kubectl(&["scale", "deployment", "leviathan-scheduler", "--replicas=0"]).succeeded();
    cluster.kubectl(&["delete", "jobs", "-l", "app=leviathan-executor"]).succeeded();
    let pods = cluster.get(&["pods", "-l", "app=leviathan-executor"]);
    assert!(list(&pods["items"]).iter().all(|pod| !pod["metadata"]["deletionTimestamp"].is_null()));
    world.ends("emergency", &["cancelled"]);
    let attempts = world.attempts().len();
    cluster.create_run("leviathan-scheduler-stopped");
    cluster.eventually("the pass that nobody makes fails", || {
        cluster.get(&["job", "leviathan-scheduler-stopped"])["status"]["failed"] == 1
    });
    assert_eq!(world.attempts().len(), attempts, "nothing new was started");
    cluster.kubectl(&["scale", "deployment", "leviathan-scheduler", "--replicas=1"]).succeeded();
    let cancelled = world.newest("emergency").unwrap();
    let id = cancelled["attempt_id"].as_str().unwrap();
    cluster.ctl(&["invalidate", id, "--reason", "Emergency stop"]).succeeded();
    cluster.eventually("the task runs again", || {
        world.newest("emergency").is_some_and(|newest| newest["attempt_id"] != id)
    });

    // An image that nobody has, by a change of the registration.
    let image = "leviathan.invalid/no-such-image:1";
    cluster.register("leviathan-target-myrepo", &[("contract.yaml", &contract), ("executor_image", image)]);
    cluster.eventually("the image is registered", || {
        cluster.ctl_json(&["targets-list"])["targets"][0]["executor_image"] == image
    });
    world.add(&[task("image", "true")]);
    world.fails("image", "does not start");
}

/// The cluster and the image of the test.
struct Given {
    kubeconfig: PathBuf,
    image: String,
}

impl Given {
    fn from_environment() -> Option<Self> {
        let (Some(kubeconfig), Some(image)) =
            (variable("LEVIATHAN_TEST_KUBECONFIG"), variable("LEVIATHAN_TEST_IMAGE"))
        else {
            println!("skipped: LEVIATHAN_TEST_KUBECONFIG and LEVIATHAN_TEST_IMAGE are not both set");
            return None;
        };
        Some(Self { kubeconfig: kubeconfig.into(), image })
    }
}

/// How pods reach the machine of the test.
struct Reach {
    host: IpAddr,
    certificate: String,
    key: String,
    /// What the image trusts, when that is not the system's.
    certificates: Option<String>,
}

impl Reach {
    fn from_environment() -> Option<Self> {
        let host = variable("LEVIATHAN_TEST_HOST")?;
        Some(Self {
            host: host.parse().expect("LEVIATHAN_TEST_HOST is an IP address"),
            certificate: variable("LEVIATHAN_TEST_CERTIFICATE")?,
            key: variable("LEVIATHAN_TEST_KEY")?,
            certificates: variable("LEVIATHAN_TEST_CERTIFICATES"),
        })
    }
}

/// An installation in a namespace of its own, which goes with it.
struct Cluster {
    kubeconfig: PathBuf,
    namespace: String,
}

impl Cluster {
    /// The steps of docs/kubernetes.md, in a namespace that admits only the `restricted` profile.
    fn start(given: &Given, name: &str) -> Self {
        let namespace = format!("leviathan-test-{name}-{}", std::process::id());
        let cluster = Self { kubeconfig: given.kubeconfig.clone(), namespace };
        cluster.apply(&json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": cluster.namespace, "labels": {
                "pod-security.kubernetes.io/enforce": "restricted",
                "pod-security.kubernetes.io/warn": "restricted",
            }},
        }));
        cluster.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": { "name": "leviathan-secrets" },
            "stringData": {
                "LEVIATHAN_CONTROL_PLANE_TOKEN": "cluster-test-operator-token",
                "ANTHROPIC_API_KEY": "unused-in-this-test",
                "GITHUB_TOKEN": GITHUB_TOKEN,
            },
        }));
        let manifests = std::fs::read_to_string(root().join("ops/k8s/control-plane.yaml")).unwrap();
        let manifests = manifests.replace("leviathan:0.1.0", &given.image);
        let applied = cluster.kubectl_with(&["apply", "-f", "-"], &manifests).succeeded();
        assert!(!applied.stderr.contains("Warning"), "{}", applied.stderr);
        cluster
    }

    fn wait_for_rollout(&self) {
        for deployment in ["leviathan-control-plane", "leviathan-scheduler"] {
            let name = format!("deployment/{deployment}");
            self.kubectl(&["rollout", "status", &name, "--timeout=10m"]).succeeded();
        }
    }

    /// A ConfigMap as `kubectl create configmap --from-file` makes it, or the same changed.
    fn register(&self, name: &str, files: &[(&str, &str)]) {
        let data: serde_json::Map<String, Value> =
            files.iter().map(|(key, text)| ((*key).to_owned(), json!(text))).collect();
        self.apply(
            &json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data }),
        );
    }

    /// The specification's manual trigger.
    fn create_run(&self, name: &str) {
        self.kubectl(&["create", "job", name, "--from=cronjob/leviathan-scheduler"]).succeeded();
    }

    fn run_scheduler(&self, name: &str) {
        self.create_run(name);
        let job = format!("job/{name}");
        self.kubectl(&["wait", "--for=condition=complete", &job, "--timeout=5m"]).succeeded();
    }

    /// leviathanctl in the pod of the control plane, which has the token.
    fn ctl(&self, arguments: &[&str]) -> Finished {
        let mut all = vec!["exec", "deployment/leviathan-control-plane", "--", "leviathanctl"];
        all.extend(arguments);
        self.kubectl(&all)
    }

    fn ctl_json(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--output", "json"];
        all.extend(arguments);
        serde_json::from_str(&self.ctl(&all).succeeded().stdout).unwrap()
    }

    /// The newest events, one from each line.
    fn events(&self) -> Vec<Value> {
        let lines = self.ctl(&["--output", "json", "events-tail"]).succeeded().stdout;
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn get(&self, what: &[&str]) -> Value {
        let mut all = vec!["get", "-o", "json"];
        all.extend(what);
        serde_json::from_str(&self.kubectl(&all).succeeded().stdout).unwrap()
    }

    fn apply(&self, object: &Value) {
        self.kubectl_with(&["apply", "-f", "-"], &object.to_string()).succeeded();
    }

    fn kubectl(&self, arguments: &[&str]) -> Finished {
        Finished::of(self.command(arguments).stdin(Stdio::null()))
    }

    fn kubectl_with(&self, arguments: &[&str], input: &str) -> Finished {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(input.as_bytes()).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        Finished::of(self.command(arguments).stdin(file))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.env("KUBECONFIG", &self.kubeconfig).args(["--namespace", &self.namespace]).args(arguments);
        command
    }

    /// Asks until it holds. What the namespace looks like is part of the failure.
    #[track_caller]
    fn eventually(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            if Instant::now() > deadline {
                let state = self.kubectl(&["get", "pods,jobs,events"]).stdout;
                panic!("it never came to pass: {what}\n{state}");
            }
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kubectl(&["delete", "namespace", &self.namespace, "--wait=false"]);
    }
}

/// An installation with a forge that its pods reach.
struct World {
    cluster: Cluster,
    github: GitHub,
    origin: Arc<Origin>,
    address: String,
    _tls: Program,
}

impl World {
    fn start(given: &Given, reach: &Reach) -> Self {
        let origin = Arc::new(Origin::empty());
        let github = GitHub::start(Arc::clone(&origin), "acme", "shop", GITHUB_TOKEN);
        let local = github.api_url();
        let local = local.trim_start_matches("http://").split('/').next().unwrap();
        let port = free_port();
        let tls = with_certificate(port, local, reach);
        let host = match reach.host {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let address = format!("https://{host}:{port}");

        let cluster = Cluster::start(given, "attempts");
        let mut scheduler = vec![
            json!({ "name": "GITHUB_API_URL", "value": format!("{address}/api/v3") }),
            json!({ "name": "LEVIATHAN_EXECUTOR_MEMORY", "value": "256Mi" }),
            json!({ "name": "LEVIATHAN_EXECUTOR_CPU", "value": "100m" }),
            json!({ "name": "LEVIATHAN_EXECUTOR_DISK", "value": "1Gi" }),
        ];
        if let Some(certificates) = &reach.certificates {
            scheduler.push(json!({ "name": "SSL_CERT_FILE", "value": certificates }));
        }
        let container = "/spec/template/spec/containers/0";
        let mut patch: Vec<Value> = scheduler
            .iter()
            .map(|variable| json!({ "op": "add", "path": format!("{container}/env/-"), "value": variable }))
            .collect();
        for argument in ["--pending-after", "120s", "--review-interval", "2s"] {
            patch.push(json!({ "op": "add", "path": format!("{container}/args/-"), "value": argument }));
        }
        let patch = json!(patch).to_string();
        let deployment = "leviathan-scheduler";
        cluster.kubectl(&["patch", "deployment", deployment, "--type=json", "-p", &patch]).succeeded();
        cluster.apply(&let_out(reach.host, port));
        cluster.wait_for_rollout();

        let world = Self { cluster, github, origin, address, _tls: tls };
        world.commit("tasks:\n", &[Entry::file(".leviathan/policy.yaml", POLICY)]);
        world.commit("tasks:\n", &[Entry::file(".leviathan/contract.yaml", world.contract())]);
        world.commit("tasks:\n", &[Entry::file("src/greeting.txt", "good day\n")]);
        world
    }

    fn contract(&self) -> String {
        let url = format!("{}/acme/shop.git", self.address);
        format!("target_id: myrepo\nname: My Repository\nrepo_url: {url}\ndefault_branch: main\n")
    }

    /// A human adds tasks to the backlog.
    fn add(&self, tasks: &[String]) {
        self.commit(&format!("{}{}", self.backlog(), tasks.concat()), &[]);
    }

    fn commit(&self, backlog: &str, others: &[Entry]) {
        let mut entries = others.to_vec();
        entries.push(Entry::file(".leviathan/backlog.yaml", backlog));
        self.origin.commit("main", "A human's commit", &entries);
    }

    fn backlog(&self) -> String {
        String::from_utf8(self.origin.read("main", ".leviathan/backlog.yaml").unwrap()).unwrap()
    }

    /// Newest first.
    fn attempts(&self) -> Vec<Value> {
        list(&self.cluster.ctl_json(&["attempts-list", "--limit", "100"])["attempts"]).to_vec()
    }

    fn newest(&self, task: &str) -> Option<Value> {
        self.attempts().into_iter().find(|attempt| attempt["task_id"] == task)
    }

    /// Waits until the agent of a task is at work; returns the name of its Job.
    #[track_caller]
    fn at_work(&self, task: &str) -> String {
        self.cluster.eventually(&format!("`{task}` is at work"), || {
            let selector = format!("leviathan.dev/task={task}");
            let pods = self.cluster.get(&["pods", "-l", &selector]);
            list(&pods["items"]).iter().any(|pod| {
                list(&pod["status"]["initContainerStatuses"])
                    .iter()
                    .any(|container| container["name"] == "work" && !container["state"]["running"].is_null())
            })
        });
        format!("leviathan-{}", self.newest(task).unwrap()["attempt_id"].as_str().unwrap())
    }

    /// Waits until an attempt at a task ends in one of these states.
    #[track_caller]
    fn ends(&self, task: &str, states: &[&str]) {
        self.cluster.eventually(&format!("`{task}` ends as {states:?}"), || {
            self.attempts().iter().any(|attempt| {
                attempt["task_id"] == task && states.iter().any(|state| attempt["state"] == *state)
            })
        });
    }

    /// Waits until an attempt at a task fails with these words.
    #[track_caller]
    fn fails(&self, task: &str, words: &str) {
        self.cluster.eventually(&format!("`{task}` fails with {words:?}"), || {
            self.attempts()
                .iter()
                .any(|attempt| attempt["task_id"] == task && attempt["failure"].to_string().contains(words))
        });
    }
}

/// A task whose agent is a command.
fn task(id: &str, command: &str) -> String {
    let agent = json!({ "command": command });
    format!(
        "  - task_id: {id}\n    title: The task {id}\n    scope: app\n    priority: high\n    \
         estimated_size: small\n    allowed_paths: ['src/**']\n    acceptance_criteria: ['It is done']\n    \
         agent: {agent}\n    status: pending\n"
    )
}

/// Lets executors out to the forge of the test, beside what the installation allows.
fn let_out(host: IpAddr, port: u16) -> Value {
    let bits = if host.is_ipv4() { 32 } else { 128 };
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": { "name": "forge-of-the-test" },
        "spec": {
            "podSelector": {},
            "policyTypes": ["Egress"],
            "egress": [{
                "to": [{ "ipBlock": { "cidr": format!("{host}/{bits}") } }],
                "ports": [{ "protocol": "TCP", "port": port }],
            }],
        },
    })
}

/// Serves what listens at `local` on every address of this machine, with the certificate.
fn with_certificate(port: u16, local: &str, reach: &Reach) -> Program {
    let listen =
        format!("OPENSSL-LISTEN:{port},reuseaddr,fork,verify=0,cert={},key={}", reach.certificate, reach.key);
    let child: Child = Command::new("socat")
        .args([listen, format!("TCP:{local}")])
        .stdin(Stdio::null())
        .spawn()
        .expect("socat is installed");
    child.into()
}

fn free_port() -> u16 {
    TcpListener::bind(("0.0.0.0", 0)).unwrap().local_addr().unwrap().port()
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
