//! What a Job and its pod say about an executor. Pure: the same objects at the same moment give the same sight.
//!
//! Three clocks run one after another and never together: until the pod has a node, until its containers can start,
//! and the attempt's own. Only the first two are watched here; the third is the executor's, and behind it the Job's
//! deadline.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodCondition, PodStatus};
use model::Epoch;

use super::Settings;
use super::job::EPOCH;
use crate::launch::{Cause, End, ExecutorSight};

/// How long the Secret of a Job may be missing: its scheduler makes it right after the Job, unless it died.
const SECRET_AFTER: Duration = Duration::from_secs(30);

/// What is known of one Job.
pub(super) struct Seen<'a> {
    pub(super) job: &'a Job,
    /// Its pods; more than one only when the Job controller started it twice.
    pub(super) pods: &'a [&'a Pod],
    /// Why the Job controller could not make a pod, in its own words.
    pub(super) pod_refused: Option<&'a str>,
}

/// The executor of a Job at `now`.
pub(super) fn sight(seen: &Seen<'_>, settings: &Settings, now: Timestamp) -> ExecutorSight {
    let Some(epoch) = epoch(seen.job) else { return ExecutorSight::Absent };
    if let Some(condition) = finished(seen.job, "Complete") {
        return ExecutorSight::Gone { epoch, end: End::new(Cause::Ended, words_of(condition)) };
    }
    if let Some(condition) = finished(seen.job, "Failed") {
        return ExecutorSight::Gone { epoch, end: failure(condition, newest(seen.pods)) };
    }
    match hindrance(seen, settings, now) {
        Some(end) => ExecutorSight::Stuck { epoch, end },
        None => ExecutorSight::Alive { epoch },
    }
}

/// The epoch that a Job was started with. None when it is no Job of ours.
pub(super) fn epoch(job: &Job) -> Option<Epoch> {
    job.metadata.annotations.as_ref()?.get(EPOCH)?.parse().ok().map(Epoch)
}

/// Whether a pod may still do something.
pub(super) fn may_run(pod: &Pod) -> bool {
    !matches!(phase(pod), Some("Succeeded" | "Failed"))
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

fn finished<'a>(job: &'a Job, kind: &str) -> Option<&'a JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True")
}

fn newest<'a>(pods: &[&'a Pod]) -> Option<&'a Pod> {
    pods.iter().copied().max_by_key(|pod| created(pod))
}

fn created(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.creation_timestamp.as_ref().map(|time| time.0)
}

/// Why a Job failed: the deadline, else what its pod shows.
fn failure(condition: &JobCondition, pod: Option<&Pod>) -> End {
    if condition.reason.as_deref() == Some("DeadlineExceeded") {
        return End::new(Cause::Deadline, words_of(condition));
    }
    let Some(pod) = pod else {
        // The pod went with its node; the Job keeps what it showed last.
        if condition.message.as_deref().is_some_and(|message| message.contains("DisruptionTarget")) {
            return End::new(Cause::Evicted, words_of(condition));
        }
        let words = "its pod is gone, and neither its node nor an eviction took it".to_owned();
        return End::new(Cause::Deleted, words);
    };
    let status = pod.status.clone().unwrap_or_default();
    if let Some(end) = disruption(&status) {
        return end;
    }
    if let Some(end) = terminations(&status).find_map(|(name, state)| out_of_memory(name, state)) {
        return end;
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return End::new(Cause::Deleted, "its pod was deleted".to_owned());
    }
    let ended_badly = terminations(&status).find_map(|(name, state)| exit(name, state));
    ended_badly.unwrap_or_else(|| End::new(Cause::Ended, words_of(condition)))
}

/// What took the pod off its node.
fn disruption(status: &PodStatus) -> Option<End> {
    let condition = condition(status, "DisruptionTarget").filter(|condition| condition.status == "True");
    if let Some(condition) = condition {
        let reason = condition.reason.as_deref().unwrap_or_default();
        // The node does not answer any more, or is not there any more.
        let is_lost = matches!(reason, "DeletionByPodGC" | "DeletionByTaintManager");
        let cause = if is_lost { Cause::NodeLost } else { Cause::Evicted };
        return Some(End::new(cause, sentence(reason, condition.message.as_deref())));
    }
    let cause = match status.reason.as_deref()? {
        "Evicted" | "Preempting" | "Terminated" | "NodeShutdown" | "NodeAffinity" => Cause::Evicted,
        "NodeLost" => Cause::NodeLost,
        _ => return None,
    };
    Some(End::new(cause, sentence(status.reason.as_deref().unwrap_or_default(), status.message.as_deref())))
}

fn out_of_memory(container: &str, state: &ContainerState) -> Option<End> {
    let ended = state.terminated.as_ref().filter(|ended| ended.reason.as_deref() == Some("OOMKilled"))?;
    let words = format!(
        "container `{container}` used more memory than its limit (OOMKilled, exit code {})",
        ended.exit_code
    );
    Some(End::new(Cause::OutOfMemory, words))
}

fn exit(container: &str, state: &ContainerState) -> Option<End> {
    let ended = state.terminated.as_ref().filter(|ended| ended.exit_code != 0)?;
    let said = ended.message.as_deref().or(ended.reason.as_deref());
    let words = sentence(&format!("container `{container}` ended with exit code {}", ended.exit_code), said);
    Some(End::new(Cause::Exit, words))
}

/// The containers that have ended, in the order in which they run.
fn terminations(status: &PodStatus) -> impl Iterator<Item = (&str, &ContainerState)> {
    statuses(status).filter_map(|status| Some((status.name.as_str(), status.state.as_ref()?)))
}

fn statuses(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    let lists = [&status.init_container_statuses, &status.container_statuses];
    lists.into_iter().flatten().flatten()
}

/// What keeps a Job that has not ended from going on, once it has done so for too long.
fn hindrance(seen: &Seen<'_>, settings: &Settings, now: Timestamp) -> Option<End> {
    let Some(pod) = newest(seen.pods) else {
        let since = seen.job.metadata.creation_timestamp.as_ref()?.0;
        let words = seen.pod_refused.unwrap_or("no pod was made for it");
        return overdue(since, settings.unscheduled_after, now)
            .then(|| End::new(Cause::Unschedulable, words.to_owned()));
    };
    if pod.metadata.deletion_timestamp.is_some() || !may_run(pod) {
        return None;
    }
    let status = pod.status.as_ref()?;
    let Some(scheduled_at) = scheduled_at(status) else {
        let words = condition(status, "PodScheduled").map(|condition| {
            sentence(condition.reason.as_deref().unwrap_or_default(), condition.message.as_deref())
        });
        return overdue(created(pod)?, settings.unscheduled_after, now).then(|| {
            End::new(Cause::Unschedulable, words.unwrap_or_else(|| "no node took its pod".to_owned()))
        });
    };
    not_starting(status, scheduled_at, settings, now)
}

fn not_starting(
    status: &PodStatus,
    scheduled_at: Timestamp,
    settings: &Settings,
    now: Timestamp,
) -> Option<End> {
    let waiting = statuses(status).find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        Some((container.name.as_str(), waiting.reason.as_deref()?, waiting.message.as_deref()))
    });
    // The next container begins to wait when the one before it has ended.
    let ended_at =
        terminations(status).filter_map(|(_, state)| state.terminated.as_ref()?.finished_at.as_ref());
    let since = ended_at.map(|time| time.0).chain([scheduled_at]).max()?;
    let (name, reason, message) = waiting?;
    let (cause, patience) = match reason {
        "InvalidImageName" | "ErrImageNeverPull" => (Cause::Image, Duration::ZERO),
        "ErrImagePull"
        | "ImagePullBackOff"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed" => (Cause::Image, settings.pending_after),
        "CreateContainerConfigError" if message.is_some_and(|message| message.contains("secret")) => {
            (Cause::NotLaunched, SECRET_AFTER)
        }
        // Those that come later than the first that waits: nothing is wrong with them.
        "PodInitializing" if !is_first(status) => return None,
        _ => (Cause::NotStarting, settings.pending_after),
    };
    let words = sentence(&format!("container `{name}` does not start: {reason}"), message);
    overdue(since, patience, now).then(|| End::new(cause, words))
}

/// Whether no container has begun yet.
fn is_first(status: &PodStatus) -> bool {
    !statuses(status).any(|container| {
        container.state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    })
}

fn scheduled_at(status: &PodStatus) -> Option<Timestamp> {
    let scheduled = condition(status, "PodScheduled").filter(|condition| condition.status == "True")?;
    scheduled.last_transition_time.as_ref().map(|time| time.0)
}

fn condition<'a>(status: &'a PodStatus, kind: &str) -> Option<&'a PodCondition> {
    status.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

fn overdue(since: Timestamp, patience: Duration, now: Timestamp) -> bool {
    let waited = now.duration_since(since);
    Duration::try_from(waited).is_ok_and(|waited| waited >= patience)
}

fn words_of(condition: &JobCondition) -> String {
    sentence(condition.reason.as_deref().unwrap_or_default(), condition.message.as_deref())
}

/// What happened, and what was said of it.
fn sentence(what: &str, said: Option<&str>) -> String {
    match said.map(str::trim).filter(|said| !said.is_empty()) {
        Some(said) if what.is_empty() => said.to_owned(),
        Some(said) => format!("{what}: {said}"),
        None => what.to_owned(),
    }
}
