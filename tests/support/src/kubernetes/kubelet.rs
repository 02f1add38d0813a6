//! What happens to the pod of a Job on its way: the scheduler, the kubelet and the node, played by the test. Every
//! verb names the Job and means its newest pod; containers are named.

use serde_json::{Value, json};

use super::Cluster;
use super::controller::{TRACKING, set_condition};
use super::resources::by_plural;
use super::store::{DeleteOptions, Key, State, remove_finalizer, text};
use super::validation::containers;

/// What the words of an ended container say, where a test does not say anything else.
const ENDED: [&str; 2] = ["Completed", "Error"];

impl Cluster {
    /// The newest pod of a Job; panics if there is none.
    pub fn pod(&self, job: &str) -> Value {
        let state = self.world.lock();
        state.objects[&state.pod_of(job)].clone()
    }

    /// The scheduler found no node.
    pub fn pod_unschedulable(&self, job: &str, message: &str) {
        self.on_pod(job, |state, key| {
            let now = state.time();
            state.change(key, |pod| {
                set_condition(pod, &now, "PodScheduled", "False", "Unschedulable", message);
            });
            state.event(key, "Warning", "FailedScheduling", message, "default-scheduler");
        });
    }

    /// The scheduler found a node; its kubelet takes the pod on.
    pub fn pod_scheduled(&self, job: &str) {
        self.on_pod(job, State::schedule);
    }

    /// The image of a container cannot be had: `ErrImagePull`, `ImagePullBackOff`, `InvalidImageName` …
    pub fn pod_image_error(&self, job: &str, container: &str, reason: &str, message: &str) {
        self.on_pod(job, |state, key| {
            state.schedule(key);
            state.change(key, |pod| {
                let waiting = json!({ "waiting": { "reason": reason, "message": message } });
                status_of(pod, container)["state"] = waiting;
            });
            state.event(key, "Warning", "Failed", message, "kubelet");
        });
    }

    /// A container runs. The init containers before it have ended well, and those that stay run.
    ///
    /// A Secret or a key that it needs and that is not there keeps it waiting, as on a node; the answer says whether
    /// it runs.
    pub fn container_running(&self, job: &str, container: &str) -> bool {
        self.on_pod(job, |state, key| {
            state.schedule(key);
            state.run(key, container)
        })
    }

    /// All containers run that are to run when the init containers are over.
    pub fn pod_running(&self, job: &str) -> bool {
        self.on_pod(job, |state, key| {
            state.schedule(key);
            main_containers(&state.objects[key]).iter().all(|name| state.run(key, name))
        })
    }

    /// A container ends. An empty `reason` is `Completed` or `Error`. If the pod cannot go on, or has nothing left to
    /// do, everything else in it is stopped, and the Job controller counts it.
    pub fn container_terminated(
        &self,
        job: &str,
        container: &str,
        exit_code: i32,
        reason: &str,
        message: &str,
    ) {
        self.on_pod(job, |state, key| {
            state.schedule(key);
            state.run(key, container);
            state.end(key, container, exit_code, reason, message);
            state.settle(key);
        });
    }

    /// Every container ends well; the Job completes.
    pub fn pod_succeeded(&self, job: &str) {
        self.on_pod(job, |state, key| {
            state.schedule(key);
            for name in main_containers(&state.objects[key]) {
                state.run(key, &name);
                state.end(key, &name, 0, "", "");
            }
            state.settle(key);
        });
    }

    /// The last container ends with this exit code; the Job fails if its `backoffLimit` or `podFailurePolicy` says so.
    pub fn pod_failed(&self, job: &str, exit_code: i32) {
        self.on_pod(job, |state, key| {
            state.schedule(key);
            for name in main_containers(&state.objects[key]) {
                state.run(key, &name);
                state.end(key, &name, exit_code, "", "");
            }
            state.settle(key);
        });
    }

    /// A pod is disrupted for a reason of `DisruptionTarget`: `TerminationByKubelet` (its node ran out of something; the
    /// pod stays, failed), `EvictionByEvictionAPI`, `PreemptionByScheduler` or `DeletionByTaintManager` (the pod is
    /// deleted and has stopped).
    pub fn evict(&self, job: &str, reason: &str, message: &str) {
        self.on_pod(job, |state, key| {
            let now = state.time();
            let by_kubelet = reason == "TerminationByKubelet";
            state.change(key, |pod| {
                set_condition(pod, &now, "DisruptionTarget", "True", reason, message);
                if by_kubelet {
                    pod["status"]["reason"] = "Evicted".into();
                    pod["status"]["message"] = message.into();
                }
            });
            if by_kubelet {
                state.event(key, "Warning", "Evicted", message, "kubelet");
                state.stop_all(key, "Failed");
            } else {
                state.terminate(key);
            }
        });
    }

    /// The node of a pod does not answer any more: the pod is to be deleted, and nobody knows whether it runs.
    pub fn node_lost(&self, job: &str) {
        self.on_pod(job, |state, key| {
            let now = state.time();
            let message = "Taint manager: deleting due to NoExecute taint";
            let node = text(&state.objects[key], "/spec/nodeName").to_owned();
            assert!(!node.is_empty(), "a pod without a node cannot lose it");
            state.change(key, |pod| {
                set_condition(pod, &now, "Ready", "False", "", "");
                set_condition(pod, &now, "DisruptionTarget", "True", "DeletionByTaintManager", message);
                pod["status"]["reason"] = "NodeLost".into();
                pod["status"]["message"] =
                    format!("Node {node} which was running pod {} is unresponsive", key.2).into();
            });
            state.event(key, "Warning", "NodeNotReady", "Node is not ready", "node-controller");
            state
                .delete(by_plural("pods"), &key.1, &key.2, &DeleteOptions::background())
                .expect("it is there");
        });
    }

    /// The lost node is taken out of the cluster: its pod is counted as failed, and gone.
    pub fn node_removed(&self, job: &str) {
        self.on_pod(job, |state, key| {
            let now = state.time();
            state.change(key, |pod| {
                let message = "PodGC: node no longer exists";
                set_condition(pod, &now, "DisruptionTarget", "True", "DeletionByPodGC", message);
                pod["status"]["phase"] = "Failed".into();
            });
            state.after(key);
            if state.objects.contains_key(key) {
                state
                    .delete(by_plural("pods"), &key.1, &key.2, &DeleteOptions::background())
                    .expect("it is there");
            }
        });
    }

    /// Somebody deletes the pod, which stops and is counted as failed.
    pub fn delete_pod(&self, job: &str) {
        self.on_pod(job, State::terminate);
    }

    /// A pod that was told to stop has stopped.
    pub fn pod_terminated(&self, job: &str) {
        self.on_pod(job, |state, key| {
            let leaving = &state.objects[key]["metadata"]["deletionTimestamp"];
            assert!(!leaving.is_null(), "the pod of {job} was not told to stop");
            state.terminate(key);
        });
    }

    fn on_pod<T>(&self, job: &str, act: impl FnOnce(&mut State, &Key) -> T) -> T {
        self.world.with(|state| {
            let key = state.pod_of(job);
            act(state, &key)
        })
    }
}

/// The names of the containers that are not init containers.
fn main_containers(pod: &Value) -> Vec<String> {
    let main = containers(&pod["spec"]).filter(|(init, _)| !init);
    main.map(|(_, container)| text(container, "/name").to_owned()).collect()
}

/// An init container that goes on beside the others.
fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

/// The status of a container, in either list.
fn status_of<'a>(pod: &'a mut Value, container: &str) -> &'a mut Value {
    let name = text(pod, "/metadata/name").to_owned();
    let status = pod["status"].as_object_mut().expect("every pod has a status");
    let lists = status.iter_mut().filter(|(field, _)| field.ends_with("ontainerStatuses"));
    let mut statuses = lists.filter_map(|(_, list)| list.as_array_mut()).flatten();
    let found = statuses.find(|status| status["name"] == container);
    found.unwrap_or_else(|| panic!("the pod {name} has no container {container}"))
}

impl State {
    /// The newest pod of a Job, which may be gone itself.
    fn pod_of(&self, job: &str) -> Key {
        let own = self.objects.iter().filter(|(key, pod)| {
            key.0 == "pods" && pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] == job
        });
        let newest = own.max_by_key(|(_, pod)| text(pod, "/metadata/uid"));
        newest.unwrap_or_else(|| panic!("the Job {job} has no pod: is a controller step missing?")).0.clone()
    }

    fn schedule(&mut self, key: &Key) {
        if !text(&self.objects[key], "/spec/nodeName").is_empty() {
            return;
        }
        let now = self.time();
        self.change(key, |pod| {
            pod["spec"]["nodeName"] = "node-1".into();
            set_condition(pod, &now, "PodScheduled", "True", "", "");
        });
        let message = format!("Successfully assigned {}/{} to node-1", key.1, key.2);
        self.event(key, "Normal", "Scheduled", &message, "default-scheduler");
        self.change(key, |pod| {
            for (kind, reason) in [
                ("PodReadyToStartContainers", ""),
                ("Initialized", "ContainersNotInitialized"),
                ("Ready", "ContainersNotReady"),
                ("ContainersReady", "ContainersNotReady"),
            ] {
                let status = if reason.is_empty() { "True" } else { "False" };
                set_condition(pod, &now, kind, status, reason, "");
            }
            pod["status"]["startTime"] = now.clone().into();
            pod["status"]["hostIP"] = "10.0.0.1".into();
            pod["status"]["qosClass"] = "Burstable".into();
            for (init, field) in [(true, "initContainerStatuses"), (false, "containerStatuses")] {
                let own = containers(&pod["spec"]).filter(|(is_init, _)| *is_init == init);
                let statuses: Vec<Value> = own
                    .map(|(_, container)| {
                        json!({
                            "name": container["name"], "image": container["image"], "imageID": "", "ready": false,
                            "started": false, "restartCount": 0, "lastState": {},
                            "state": { "waiting": { "reason": "PodInitializing" } },
                        })
                    })
                    .collect();
                if !statuses.is_empty() {
                    pod["status"][field] = statuses.into();
                }
            }
        });
    }

    /// Starts a container, after those that come before it. One that has ended is not started again.
    fn run(&mut self, key: &Key, container: &str) -> bool {
        let all: Vec<(bool, Value)> =
            containers(&self.objects[key]["spec"]).map(|(init, one)| (init, one.clone())).collect();
        let at = all.iter().position(|(_, one)| one["name"] == container);
        let at = at.unwrap_or_else(|| panic!("the pod {} has no container {container}", key.2));
        for (init, before) in &all[..at] {
            let name = text(before, "/name");
            if !init || !self.start(key, before) {
                continue;
            }
            if !is_sidecar(before) {
                self.end(key, name, 0, "", "");
            }
        }
        let runs = self.start(key, &all[at].1);
        self.tell_phase(key);
        runs
    }

    /// Starts a container that waits; says whether it runs now.
    fn start(&mut self, key: &Key, container: &Value) -> bool {
        let name = text(container, "/name");
        let missing = self.missing_secret(&key.1, container);
        let now = self.time();
        let number = self.next_number();
        let pod = self.change(key, |pod| {
            let status = status_of(pod, name);
            if status["state"]["waiting"].is_null() {
                return;
            }
            if let Some(message) = missing {
                let reason = "CreateContainerConfigError";
                status["state"] = json!({ "waiting": { "reason": reason, "message": message } });
                return;
            }
            status["state"] = json!({ "running": { "startedAt": now } });
            status["started"] = true.into();
            status["ready"] = true.into();
            status["imageID"] = format!("sha256:{number:064x}").into();
            status["containerID"] = format!("containerd://{number:064x}").into();
        });
        let mut pod = pod;
        !status_of(&mut pod, name)["state"]["running"].is_null()
    }

    /// What a node says about a Secret that a container needs and that is not there.
    fn missing_secret(&self, namespace: &str, container: &Value) -> Option<String> {
        for variable in container["env"].as_array().into_iter().flatten() {
            let wanted = &variable["valueFrom"]["secretKeyRef"];
            if wanted.is_null() || wanted["optional"] == true {
                continue;
            }
            let (name, wanted_key) = (text(wanted, "/name"), text(wanted, "/key"));
            match self.get(by_plural("secrets"), namespace, name) {
                Err(_) => return Some(format!("secret {name:?} not found")),
                Ok(secret) if secret["data"][wanted_key].is_null() => {
                    return Some(format!("couldn't find key {wanted_key} in Secret {namespace}/{name}"));
                }
                Ok(_) => {}
            }
        }
        None
    }

    fn end(&mut self, key: &Key, container: &str, exit_code: i32, reason: &str, message: &str) {
        let now = self.time();
        self.change(key, |pod| {
            let status = status_of(pod, container);
            if !status["state"]["terminated"].is_null() {
                return;
            }
            let started = status["state"]["running"]["startedAt"].as_str().unwrap_or(&now).to_owned();
            let reason = if reason.is_empty() { ENDED[usize::from(exit_code != 0)] } else { reason };
            let mut terminated = json!({
                "exitCode": exit_code, "reason": reason, "startedAt": started, "finishedAt": now,
                "containerID": status["containerID"],
            });
            if !message.is_empty() {
                terminated["message"] = message.into();
            }
            status["state"] = json!({ "terminated": terminated });
            status["ready"] = (exit_code == 0 && reason == "Completed").into();
            status["started"] = false.into();
        });
    }

    /// What the phase of a pod is while something in it may still run.
    fn tell_phase(&mut self, key: &Key) {
        let now = self.time();
        self.change(key, |pod| {
            if ["Succeeded", "Failed"].contains(&text(pod, "/status/phase")) {
                return;
            }
            let waiting = pod["status"]["containerStatuses"]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| !one["state"]["waiting"].is_null()));
            pod["status"]["phase"] = if waiting { "Pending" } else { "Running" }.into();
            if !waiting {
                for kind in ["Initialized", "Ready", "ContainersReady"] {
                    set_condition(pod, &now, kind, "True", "", "");
                }
            }
        });
    }

    /// Ends a pod that cannot go on or has nothing left to do.
    fn settle(&mut self, key: &Key) {
        let pod = self.objects[key].clone();
        let mut all_ended = true;
        let mut failed = false;
        for (init, container) in containers(&pod["spec"]) {
            let mut copy = pod.clone();
            let state = status_of(&mut copy, text(container, "/name"))["state"].clone();
            let code = state["terminated"]["exitCode"].as_i64();
            if init && is_sidecar(container) {
                continue;
            }
            if init {
                failed |= code.is_some_and(|code| code != 0);
            }
            all_ended &= code.is_some();
            failed |= !init && all_ended && code.is_some_and(|code| code != 0);
        }
        let init_failed = failed && !all_ended;
        if all_ended || init_failed {
            self.stop_all(key, if failed { "Failed" } else { "Succeeded" });
        } else {
            self.tell_phase(key);
        }
    }

    /// Everything in a pod has ended, and its Job counts it.
    fn stop_all(&mut self, key: &Key, phase: &str) {
        let names: Vec<(bool, String)> = containers(&self.objects[key]["spec"])
            .map(|(init, container)| (init && is_sidecar(container), text(container, "/name").to_owned()))
            .collect();
        let scheduled = !text(&self.objects[key], "/spec/nodeName").is_empty();
        for (sidecar, name) in names.iter().filter(|_| scheduled) {
            let mut pod = self.objects[key].clone();
            // What never ran stays as it is.
            if !status_of(&mut pod, name)["state"]["running"].is_null() {
                self.end(key, name, if *sidecar { 0 } else { 143 }, "", "");
            }
        }
        let now = self.time();
        self.change(key, |pod| {
            pod["status"]["phase"] = phase.into();
            let reason = if phase == "Succeeded" { "PodCompleted" } else { "PodFailed" };
            for kind in ["Ready", "ContainersReady"] {
                set_condition(pod, &now, kind, "False", reason, "");
            }
        });
        self.after(key);
    }

    /// Deletes a pod, if that was not done, and stops it.
    fn terminate(&mut self, key: &Key) {
        let pods = by_plural("pods");
        if self.objects[key]["metadata"]["deletionTimestamp"].is_null() {
            self.delete(pods, &key.1, &key.2, &DeleteOptions::background()).expect("it is there");
        }
        if self.objects.contains_key(key) {
            self.stop_all(key, "Failed");
        }
    }

    /// The Job controller counts a pod that ended; one that nobody counts is let go.
    fn after(&mut self, key: &Key) {
        let Some(pod) = self.objects.get(key) else { return };
        let owner = text(pod, "/metadata/ownerReferences/0/uid").to_owned();
        let job = self.objects.iter().find(|(key, job)| {
            key.0 == "jobs" && !owner.is_empty() && job["metadata"]["uid"] == owner.as_str()
        });
        let job =
            job.filter(|(_, job)| job["metadata"]["deletionTimestamp"].is_null()).map(|(key, _)| key.clone());
        match job {
            Some(job) => self.sync(&job, false),
            None => drop(self.change(key, |pod| remove_finalizer(pod, TRACKING))),
        }
        self.finish_deletion(key);
        self.collect_garbage();
    }
}
