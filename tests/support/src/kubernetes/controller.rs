//! The Job controller in miniature: one step makes the pods that are wanted and counts those that ended.

use serde_json::{Value, json};

use super::Cluster;
use super::resources::by_plural;
use super::store::{DeleteOptions, Key, State, Strictness, add_finalizer, remove_finalizer, text};

/// What keeps a pod until its end was counted.
pub(super) const TRACKING: &str = "batch.kubernetes.io/job-tracking";

impl Cluster {
    /// The Job controller looks at every Job: makes the pods that are wanted, or says in an event why it could not,
    /// and counts those that ended.
    pub fn controller_step(&self) {
        self.world.with(|state| {
            for key in state.jobs() {
                state.sync(&key, true);
            }
        });
    }

    /// `activeDeadlineSeconds` of a Job is over: its pod is told to stop. The Job has failed when the pod is gone.
    pub fn deadline_exceeded(&self, job: &str) {
        self.world.with(|state| {
            let key = state.job(job);
            assert!(state.begin(&key), "the Job {job} is over already");
            let message = "Job was active longer than specified deadline";
            state.add_condition(&key, "FailureTarget", "DeadlineExceeded", message);
            state.event(&key, "Warning", "DeadlineExceeded", message, "job-controller");
            state.stop_pods(&key);
            state.sync(&key, false);
        });
    }

    /// Somebody deletes a Job as `kubectl delete job` does: with its pod, which on a node goes on until it has stopped.
    pub fn delete_job(&self, job: &str) {
        self.world.with(|state| {
            let (plural, namespace, name) = state.job(job);
            state
                .delete(by_plural(plural), &namespace, &name, &DeleteOptions::background())
                .expect("it is there");
        });
    }

    /// `ttlSecondsAfterFinished` of a finished Job is over.
    pub fn ttl_expired(&self, job: &str) {
        self.world.with(|state| {
            let key = state.job(job);
            let object = &state.objects[&key];
            assert!(is_finished(object), "the Job {job} has not finished");
            assert!(!object["spec"]["ttlSecondsAfterFinished"].is_null(), "the Job {job} may stay for ever");
            let options =
                DeleteOptions { propagation: Some("Foreground".into()), ..DeleteOptions::default() };
            state.delete(by_plural("jobs"), &key.1, &key.2, &options).expect("it is there");
        });
    }
}

/// Whether a Job is complete or has failed.
fn is_finished(job: &Value) -> bool {
    condition(job, "Complete").is_some() || condition(job, "Failed").is_some()
}

pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == kind && condition["status"] == "True")
}

fn is_over(pod: &Value) -> bool {
    ["Succeeded", "Failed"].contains(&text(pod, "/status/phase"))
}

impl State {
    fn jobs(&self) -> Vec<Key> {
        self.objects.keys().filter(|key| key.0 == "jobs").cloned().collect()
    }

    /// Where the Job of this name is.
    pub(super) fn job(&self, name: &str) -> Key {
        let found = self.objects.keys().find(|key| key.0 == "jobs" && key.2 == name);
        found.unwrap_or_else(|| panic!("there is no Job {name}")).clone()
    }

    fn pods_of(&self, job: &Key) -> Vec<Key> {
        let uid = text(&self.objects[job], "/metadata/uid");
        self.dependents(uid).into_iter().filter(|key| key.0 == "pods").collect()
    }

    /// Writes down that a Job was taken on. Says whether it is still to be worked at.
    fn begin(&mut self, key: &Key) -> bool {
        let now = self.time();
        let job = self.change(key, |job| {
            if job["status"]["startTime"].is_null() && job["spec"]["suspend"] != true && !is_finished(job) {
                job["status"]["startTime"] = now.into();
            }
        });
        !is_finished(&job)
    }

    pub(super) fn sync(&mut self, key: &Key, may_create: bool) {
        let Some(job) = self.objects.get(key) else { return };
        if !job["metadata"]["deletionTimestamp"].is_null() {
            return;
        }
        if self.begin(key) {
            self.work_at(key, may_create);
        }
        // What was counted is let go.
        for pod in self.pods_of(key) {
            if is_over(&self.objects[&pod]) {
                self.change(&pod, |pod| remove_finalizer(pod, TRACKING));
                self.finish_deletion(&pod);
            }
        }
    }

    fn work_at(&mut self, key: &Key, may_create: bool) {
        let job = self.objects[key].clone();
        let pods: Vec<(Key, Value)> =
            self.pods_of(key).into_iter().map(|pod| (pod.clone(), self.objects[&pod].clone())).collect();
        let only_failed = job["spec"]["podReplacementPolicy"] == "Failed";
        let (mut active, mut terminating, mut ready) = (0, 0, 0);
        let (mut succeeded, mut failed) = (0, 0);
        let mut verdict = None;
        for (_, pod) in &pods {
            let counted = !text_list(&pod["metadata"]["finalizers"]).contains(&TRACKING);
            let leaving = !pod["metadata"]["deletionTimestamp"].is_null();
            match text(pod, "/status/phase") {
                "Succeeded" => succeeded += u64::from(!counted),
                "Failed" => {
                    failed += u64::from(!counted);
                    verdict = verdict.or_else(|| failure_rule_of(&job, pod));
                }
                _ if leaving => {
                    terminating += 1;
                    failed += u64::from(!only_failed && !counted);
                }
                _ => {
                    active += 1;
                    let is_ready = condition(pod, "Ready").is_some();
                    ready += u64::from(is_ready);
                }
            }
        }
        let status = &job["status"];
        succeeded += status["succeeded"].as_u64().unwrap_or(0);
        failed += status["failed"].as_u64().unwrap_or(0);
        if let Some((reason, message)) = verdict {
            self.add_condition(key, "FailureTarget", reason, &message);
        } else if failed > job["spec"]["backoffLimit"].as_u64().unwrap_or(6) {
            let message = "Job has reached the specified backoff limit";
            self.add_condition(key, "FailureTarget", "BackoffLimitExceeded", message);
        } else if succeeded >= job["spec"]["completions"].as_u64().unwrap_or(1) {
            let message = "Reached expected number of succeeded pods";
            self.add_condition(key, "SuccessCriteriaMet", "CompletionsReached", message);
        }
        let suspended = job["spec"]["suspend"] == true;
        let target = condition(&self.objects[key], "FailureTarget").cloned();
        let success = condition(&self.objects[key], "SuccessCriteriaMet").cloned();
        let deciding = target.is_some() || success.is_some();
        if active > 0 && (deciding || suspended) {
            self.stop_pods(key);
            active = 0;
            terminating = self.pods_of(key).iter().filter(|pod| !is_over(&self.objects[*pod])).count();
        }
        if suspended && condition(&job, "Suspended").is_none() {
            self.add_condition(key, "Suspended", "JobSuspended", "Job suspended");
        }
        let may_replace = terminating == 0 || !only_failed;
        if may_create && !deciding && !suspended && active == 0 && may_replace && self.make_pod(key) {
            active = 1;
        }
        let now = self.time();
        self.change(key, |job| {
            let status = &mut job["status"];
            for (field, count) in [("active", active as u64), ("succeeded", succeeded), ("failed", failed)] {
                if count > 0 {
                    status[field] = count.into();
                } else if let Some(status) = status.as_object_mut() {
                    status.remove(field);
                }
            }
            status["ready"] = ready.into();
            status["terminating"] = terminating.into();
            status["uncountedTerminatedPods"] = json!({});
            if active == 0 && terminating == 0 && success.is_some() {
                status["completionTime"] = now.into();
            }
        });
        if active > 0 || terminating > 0 {
            return;
        }
        if let Some(target) = target {
            let (reason, message) = (text(&target, "/reason"), text(&target, "/message"));
            self.add_condition(key, "Failed", reason, message);
            self.event(key, "Warning", reason, message, "job-controller");
        } else if let Some(success) = success {
            let (reason, message) = (text(&success, "/reason"), text(&success, "/message"));
            self.add_condition(key, "Complete", reason, message);
            self.event(key, "Normal", "Completed", "Job completed", "job-controller");
        }
    }

    fn add_condition(&mut self, key: &Key, kind: &str, reason: &str, message: &str) {
        let now = self.time();
        self.change(key, |job| {
            if condition(job, kind).is_none() {
                set_condition(job, &now, kind, "True", reason, message);
            }
        });
    }

    /// Deletes the pods of a Job that have not ended.
    fn stop_pods(&mut self, key: &Key) {
        for pod in self.pods_of(key) {
            let object = &self.objects[&pod];
            if is_over(object) || !object["metadata"]["deletionTimestamp"].is_null() {
                continue;
            }
            if text(object, "/spec/nodeName").is_empty() {
                self.change(&pod, |pod| remove_finalizer(pod, TRACKING));
            }
            self.delete(by_plural("pods"), &pod.1, &pod.2, &DeleteOptions::background())
                .expect("it is there");
        }
    }

    /// Makes the pod of a Job, or an event that says why not.
    fn make_pod(&mut self, key: &Key) -> bool {
        let job = self.objects[key].clone();
        let template = &job["spec"]["template"];
        let suffix = self.suffix();
        let mut pod = json!({
            "metadata": {
                "name": format!("{}-{suffix}", key.2), "generateName": format!("{}-", key.2),
                "labels": template["metadata"]["labels"],
                "ownerReferences": [{
                    "apiVersion": "batch/v1", "kind": "Job", "name": key.2, "uid": job["metadata"]["uid"],
                    "controller": true, "blockOwnerDeletion": true,
                }],
            },
            "spec": template["spec"],
        });
        if !template["metadata"]["annotations"].is_null() {
            pod["metadata"]["annotations"] = template["metadata"]["annotations"].clone();
        }
        add_finalizer(&mut pod, TRACKING);
        match self.create(by_plural("pods"), &key.1, pod, Strictness::Ignore) {
            Ok(written) => {
                let message = format!("Created pod: {}", text(&written.object, "/metadata/name"));
                self.event(key, "Normal", "SuccessfulCreate", &message, "job-controller");
                true
            }
            Err(refusal) => {
                let message = format!("Error creating: {}", refusal.message());
                self.event(key, "Warning", "FailedCreate", &message, "job-controller");
                false
            }
        }
    }

    /// An event about an object; one that repeats is counted.
    pub(super) fn event(&mut self, about: &Key, kind: &str, reason: &str, message: &str, component: &str) {
        let now = self.time();
        let Some(object) = self.objects.get(about).cloned() else { return };
        let uid = &object["metadata"]["uid"];
        let same = self.objects.iter().find(|(key, event)| {
            key.0 == "events"
                && event["involvedObject"]["uid"] == *uid
                && event["reason"] == reason
                && without_generated_names(text(event, "/message")) == without_generated_names(message)
        });
        if let Some((key, _)) = same {
            let key = key.clone();
            self.change(&key, |event| {
                event["count"] = (event["count"].as_u64().unwrap_or(1) + 1).into();
                event["lastTimestamp"] = now.into();
                event["message"] = message.into();
            });
            return;
        }
        let number = self.next_number();
        let event = json!({
            "metadata": { "name": format!("{}.{number:016x}", about.2) },
            "involvedObject": {
                "kind": object["kind"], "apiVersion": object["apiVersion"], "namespace": about.1, "name": about.2,
                "uid": uid, "resourceVersion": object["metadata"]["resourceVersion"],
            },
            "type": kind, "reason": reason, "message": message, "count": 1, "firstTimestamp": now,
            "lastTimestamp": now, "source": { "component": component }, "reportingComponent": component,
            "reportingInstance": "",
        });
        self.create(by_plural("events"), &about.1, event, Strictness::Strict).expect("a valid event");
    }
}

/// What does not change from one refused pod of a Job to the next.
fn without_generated_names(message: &str) -> String {
    message.split('"').enumerate().filter(|(at, _)| at % 2 == 0).map(|(_, part)| part).collect()
}

pub(super) fn set_condition(
    object: &mut Value,
    now: &str,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
) {
    let is_job = object["kind"] == "Job";
    let conditions = &mut object["status"]["conditions"];
    if conditions.is_null() {
        *conditions = json!([]);
    }
    let conditions = conditions.as_array_mut().expect("conditions are a list");
    let mut condition = json!({ "type": kind, "status": status, "lastTransitionTime": now });
    condition["lastProbeTime"] = if is_job { now.into() } else { Value::Null };
    for (field, words) in [("reason", reason), ("message", message)] {
        if !words.is_empty() {
            condition[field] = words.into();
        }
    }
    match conditions.iter_mut().find(|one| one["type"] == kind) {
        Some(one) => *one = condition,
        None => conditions.push(condition),
    }
}

/// What the rule of a Job's `podFailurePolicy` that fits a failed pod says: a reason and a message if the Job fails.
fn failure_rule_of(job: &Value, pod: &Value) -> Option<(&'static str, String)> {
    let rules = job["spec"]["podFailurePolicy"]["rules"].as_array()?;
    let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
    for (at, rule) in rules.iter().enumerate() {
        let action = text(rule, "/action");
        let met = if rule["onExitCodes"].is_null() {
            let patterns = rule["onPodConditions"].as_array().map(Vec::as_slice).unwrap_or_default();
            let conditions = pod["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
            let fits = |one: &&Value| {
                patterns
                    .iter()
                    .any(|pattern| pattern["type"] == one["type"] && pattern["status"] == one["status"])
            };
            conditions.iter().find(fits).map(|condition| {
                format!("Pod {namespace}/{name} has condition {} matching", text(condition, "/type"))
            })
        } else {
            exit_code_that_fits(&rule["onExitCodes"], pod).map(|(container, code)| {
                format!(
                    "Container {container} for pod {namespace}/{name} failed with exit code {code} matching"
                )
            })
        };
        if let Some(words) = met {
            let message = format!("{words} {action} rule at index {at}");
            return (action == "FailJob").then_some(("PodFailurePolicy", message));
        }
    }
    None
}

fn exit_code_that_fits(rule: &Value, pod: &Value) -> Option<(String, i64)> {
    let values: Vec<i64> = rule["values"].as_array()?.iter().filter_map(Value::as_i64).collect();
    let status = &pod["status"];
    let statuses = [&status["initContainerStatuses"], &status["containerStatuses"]];
    for one in statuses.iter().filter_map(|list| list.as_array()).flatten() {
        let Some(code) = one["state"]["terminated"]["exitCode"].as_i64().filter(|code| *code != 0) else {
            continue;
        };
        let named = rule["containerName"].is_null() || rule["containerName"] == one["name"];
        if named && values.contains(&code) == (rule["operator"] == "In") {
            return Some((text(one, "/name").to_owned(), code));
        }
    }
    None
}

fn text_list(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}
