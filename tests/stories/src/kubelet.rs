//! A node for stories: runs the containers of a pod as processes, with exactly the environment and the folders that
//! the pod's own specification gives each of them, in a kubelet's order, and tells the cluster what became of them.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use test_support::kubernetes::Cluster;

use crate::{eventually, program};

/// One pod on its node. What still runs of it is killed when it is dropped.
pub struct Pod<'a> {
    cluster: &'a Cluster,
    job: String,
    specification: Value,
    ground: tempfile::TempDir,
    courier: Option<Child>,
}

impl<'a> Pod<'a> {
    /// Takes on the pod of a Job.
    pub fn of(cluster: &'a Cluster, job: &str) -> Self {
        cluster.controller_step();
        cluster.pod_scheduled(job);
        let specification = cluster.pod(job)["spec"].clone();
        let ground = tempfile::tempdir().unwrap();
        Self { cluster, job: job.to_owned(), specification, ground, courier: None }
    }

    /// Runs the pod to its end, whatever that is.
    pub fn run(&mut self) {
        if self.runs_through("prepare") {
            self.start_courier();
            if self.runs_through("work") {
                self.runs_through("publish");
            }
        }
        self.end_courier();
    }

    /// Runs one container to its end and tells the cluster. Whether it ended well.
    pub fn runs_through(&mut self, name: &str) -> bool {
        let mut container = self.start(name);
        let code = container.wait().unwrap().code().unwrap_or(137);
        if self.exists() {
            self.cluster.container_terminated(&self.job, name, code, "", "");
        }
        code == 0
    }

    /// Starts a container once it can start, and leaves it running. The Secret of a Job may come after its pod.
    pub fn start(&self, name: &str) -> Child {
        eventually(&format!("{name} of {} can start", self.job), || {
            self.cluster.container_running(&self.job, name)
        });
        self.command(name).spawn().unwrap()
    }

    /// Starts the container that runs beside `work`.
    pub fn start_courier(&mut self) {
        self.courier = Some(self.start("courier"));
    }

    /// Asks the container beside the others to end, as when they have, and waits for it.
    pub fn end_courier(&mut self) {
        if let Some(mut courier) = self.courier.take() {
            terminate(&courier);
            eventually("the courier ends", || courier.try_wait().unwrap().is_some());
        }
    }

    fn exists(&self) -> bool {
        self.cluster.object("jobs", &self.job).is_some()
    }

    fn command(&self, name: &str) -> Command {
        let container = self.container(name);
        let root = self.mounts(name, &container);
        let mut arguments: Vec<String> = texts(&container["command"]).into_iter().skip(1).collect();
        arguments.extend(texts(&container["args"]));
        // The image of `work` has our program only because `prepare` put it into a volume.
        let ours = match container["command"][0].as_str() {
            Some(path) => root.join(path.strip_prefix("/leviathan/").expect("it lies in a volume")),
            None => program("leviathan"),
        };
        let mut command = Command::new(ours);
        command.args(arguments).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
        for variable in container["env"].as_array().unwrap() {
            let name = variable["name"].as_str().unwrap();
            if let Some(value) = self.value(variable) {
                command.env(name, value);
            }
        }
        command
            .env("LEVIATHAN_POD_DIR", &root)
            .env("HOME", &root)
            .env("LEVIATHAN_TERMINATION_LOG", self.ground.path().join(format!("{name}.log")))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn container(&self, name: &str) -> Value {
        let all = ["initContainers", "containers"];
        let mut all = all.iter().flat_map(|list| self.specification[*list].as_array().unwrap());
        all.find(|container| container["name"] == name)
            .unwrap_or_else(|| panic!("no container {name}"))
            .clone()
    }

    /// A folder in which the volumes of one container are, and no other.
    fn mounts(&self, name: &str, container: &Value) -> PathBuf {
        let root = self.ground.path().join("containers").join(name);
        std::fs::create_dir_all(&root).unwrap();
        for mount in container["volumeMounts"].as_array().unwrap() {
            let path = mount["mountPath"].as_str().unwrap();
            let Some(place) = path.strip_prefix("/leviathan/") else { continue };
            let volume = self.ground.path().join("volumes").join(mount["name"].as_str().unwrap());
            std::fs::create_dir_all(&volume).unwrap();
            if !root.join(place).exists() {
                std::os::unix::fs::symlink(volume, root.join(place)).unwrap();
            }
        }
        root
    }

    fn value(&self, variable: &Value) -> Option<String> {
        if let Some(value) = variable["value"].as_str() {
            return Some(value.to_owned());
        }
        let reference = &variable["valueFrom"]["secretKeyRef"];
        let secret = self.cluster.object("secrets", reference["name"].as_str().unwrap());
        let encoded =
            secret.as_ref().and_then(|secret| secret["data"][reference["key"].as_str().unwrap()].as_str());
        assert!(encoded.is_some() || reference["optional"] == true, "a Secret is missing: {reference}");
        encoded.map(decoded)
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        if let Some(courier) = &mut self.courier {
            let _ = courier.kill();
            let _ = courier.wait();
        }
    }
}

/// Asks a process to end, as a kubelet does first.
pub fn terminate(process: &Child) {
    Command::new("kill").arg(process.id().to_string()).status().unwrap();
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn decoded(base64: &str) -> String {
    use base64::Engine as _;
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(base64).unwrap()).unwrap()
}
