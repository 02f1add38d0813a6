//! Executors as Kubernetes Jobs. One Job for each attempt, named after it: that it exists already is how a scheduler
//! that died, or whose call was answered by nobody, finds what it had started.
//!
//! A Job is no lock: Kubernetes may start its pod twice, and a deleted one may still run. What fences an executor is
//! the epoch in its token, which the control plane checks.

mod job;
mod sight;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod, Secret};
use kube::api::{Api, DeleteParams, ListParams, ObjectList, PostParams, Preconditions};
use kube::{Client, ResourceExt as _};
use model::{AttemptId, Epoch, TargetId, TaskId};
use secrecy::SecretString;
use tokio::sync::watch as channel;

use super::{Cause, End, ExecutorSight, Launch, LaunchError, Launched, Order};
use job::{ATTEMPT, SELECTOR, job_name};

/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many objects are listed at once.
const PAGE: u32 = 500;
/// How many Jobs without a pod are asked about in one look; each is a call of its own.
const ASKED_ABOUT: usize = 20;
/// How long a Job that was deleted may take to be gone before its successor is made.
const GONE_AFTER: Duration = Duration::from_secs(30);
/// How often that is looked at.
const POLL: Duration = Duration::from_millis(200);

/// What every Job of this scheduler is made from.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Our own image.
    pub image: String,
    /// The image of `work`, for targets that name none.
    pub executor_image: String,
    /// Where the control plane is, for a pod.
    pub control_plane: String,
    /// The Secret with the keys of the specification.
    pub secret: String,
    /// The service account of the pods. It needs no right, and no token of it is mounted.
    pub service_account: String,
    /// What `work` asks for, as a quantity of Kubernetes, such as `1`.
    pub cpu: String,
    /// What `work` may use, such as `2Gi`.
    pub memory: String,
    /// What `work` may write, such as `8Gi`.
    pub disk: String,
    /// The runtime class of the pods, if it is not the cluster's own.
    pub runtime_class: Option<String>,
    /// `Always`, `IfNotPresent` or `Never`.
    pub image_pull_policy: String,
    /// How long a pod may wait for a node.
    pub unscheduled_after: Duration,
    /// How long a container may wait for its start once it could start.
    pub pending_after: Duration,
    /// What is passed on of the scheduler's own environment; never a secret.
    pub environment: BTreeMap<String, String>,
}

/// Starts executors as Jobs of one namespace.
pub struct Kubernetes {
    client: Client,
    namespace: String,
    settings: Settings,
    /// What the cluster has no room for yet.
    waiting: Mutex<BTreeMap<AttemptId, Waiting>>,
    changes: channel::Sender<usize>,
}

/// An order that a quota refused; it is repeated at each look until its time is over.
struct Waiting {
    order: OwnedOrder,
    since: Instant,
    words: String,
}

/// An order that outlives its call.
#[derive(Clone)]
struct OwnedOrder {
    attempt: AttemptId,
    epoch: Epoch,
    token: SecretString,
    target: TargetId,
    task: TaskId,
    timeout: Duration,
    image: Option<String>,
}

/// What the cluster answered to a new Job.
enum Created {
    /// It is there.
    Job(Box<Job>),
    /// A quota refuses it for now, in the cluster's words.
    Full(String),
}

/// All of our Jobs and pods, by attempt.
struct Cluster {
    jobs: HashMap<String, Job>,
    pods: HashMap<String, Vec<Pod>>,
}

impl Kubernetes {
    /// A launcher that works in `namespace`, through `client`.
    pub fn new(client: Client, namespace: String, settings: Settings) -> Self {
        let changes = channel::Sender::new(0);
        Self { client, namespace, settings, waiting: Mutex::default(), changes }
    }

    /// Begins to listen for changes, which wake whoever has asked for [`Self::running`]. They only make a look
    /// earlier: what is true is what a look finds.
    pub fn listen(&self) {
        watch::listen(self.jobs(), self.changes.clone());
        watch::listen(self.pods(), self.changes.clone());
    }

    pub(super) async fn launch(&self, order: Order<'_>) -> Result<Launch, LaunchError> {
        self.remove_older(&order).await?;
        match self.create(&order).await? {
            Created::Job(job) => {
                let launched = self.give_token(&order, &job).await?;
                self.waiting().remove(order.attempt);
                Ok(Launch::StartedAs(launched))
            }
            Created::Full(words) => {
                tracing::info!(attempt.id = %order.attempt, words, "the cluster has no room for an attempt yet");
                let mut waiting = self.waiting();
                let since = waiting.get(order.attempt).map_or_else(Instant::now, |known| known.since);
                waiting
                    .insert(order.attempt.clone(), Waiting { order: OwnedOrder::of(&order), since, words });
                Ok(Launch::Waits)
            }
        }
    }

    /// Repeats what the cluster had no room for, and says what came of each.
    pub(super) async fn launch_waiting(
        &self,
        may: impl Fn(&AttemptId) -> bool,
    ) -> Vec<Result<(AttemptId, Launched), LaunchError>> {
        let orders: Vec<_> = {
            let waiting = self.waiting();
            let orders = waiting.values().map(|waiting| &waiting.order);
            orders.filter(|order| may(&order.attempt)).cloned().collect()
        };
        let mut answers = Vec::new();
        for order in orders {
            match self.launch(order.as_order()).await {
                Ok(Launch::StartedAs(launched)) => answers.push(Ok((order.attempt, launched))),
                // No room for this one is no room for the next.
                Ok(Launch::Started | Launch::Waits) => break,
                Err(error) => answers.push(Err(error)),
            }
        }
        answers
    }

    /// Whether the cluster takes more.
    pub(super) fn has_room(&self) -> bool {
        self.waiting().is_empty()
    }

    /// Forgets orders whose attempt is not among the live ones any more.
    pub(super) fn forget_all_but(&self, live: &BTreeSet<&AttemptId>) {
        self.waiting().retain(|attempt, _| live.contains(attempt));
    }

    pub(super) async fn look(
        &self,
        attempts: &[&AttemptId],
        now: jiff::Timestamp,
    ) -> Result<BTreeMap<AttemptId, ExecutorSight>, LaunchError> {
        let cluster = self.cluster().await?;
        let mut asked = 0;
        let mut sights = BTreeMap::new();
        for attempt in attempts {
            let refused = match cluster.without_pod(attempt).filter(|_| asked < ASKED_ABOUT) {
                Some(job) => {
                    asked += 1;
                    self.why_no_pod(job).await
                }
                None => None,
            };
            let sight = self.waiting_sight(attempt);
            let sight =
                sight.unwrap_or_else(|| cluster.sight(attempt, refused.as_deref(), &self.settings, now));
            sights.insert((*attempt).clone(), sight);
        }
        Ok(sights)
    }

    /// Deletes the Job, and with it its pod, which gets SIGTERM and the grace of its own template.
    pub(super) async fn stop(&self, attempt: &AttemptId) -> Result<(), LaunchError> {
        self.waiting().remove(attempt);
        let Some(job) = self.find(attempt).await? else { return Ok(()) };
        self.delete(attempt, &job).await
    }

    pub(super) fn running(&self) -> channel::Receiver<usize> {
        self.changes.subscribe()
    }

    /// A Job of the same attempt that an older epoch left, also one that has ended. It is fenced already.
    async fn remove_older(&self, order: &Order<'_>) -> Result<(), LaunchError> {
        if order.epoch == Epoch::FIRST {
            return Ok(());
        }
        let Some(job) = self.find(order.attempt).await? else { return Ok(()) };
        if sight::epoch(&job).is_some_and(|epoch| epoch < order.epoch) {
            self.delete(order.attempt, &job).await?;
            self.wait_until_gone(order.attempt, &job).await?;
        }
        Ok(())
    }

    /// Makes the Job, or finds that it was made. A Job of that name which is another's is an error.
    async fn create(&self, order: &Order<'_>) -> Result<Created, LaunchError> {
        let job = job::job(&self.settings, order);
        let unstartable = |error| failed(order.attempt, "started", error);
        let created = call(self.jobs().create(&PostParams::default(), &job)).await;
        match created {
            Ok(job) => Ok(Created::Job(Box::new(job))),
            Err(Unanswered::Kube(kube::Error::Api(status))) if is_quota(&status) => {
                Ok(Created::Full(status.message))
            }
            // Somebody was faster, or the answer to an earlier call was lost; so may this one's be.
            Err(error) if error.may_be_done() => match self.find(order.attempt).await? {
                Some(found) => same(order, found).map(|job| Created::Job(Box::new(job))),
                None => Err(unstartable(error)),
            },
            Err(error) => Err(unstartable(error)),
        }
    }

    /// Gives the pod its token. Until then its containers do not start.
    async fn give_token(&self, order: &Order<'_>, job: &Job) -> Result<Launched, LaunchError> {
        let uid = job.uid().unwrap_or_default();
        let secret = job::token_secret(order, &uid);
        match call(self.secrets().create(&PostParams::default(), &secret)).await {
            Ok(_) => {}
            Err(Unanswered::Kube(kube::Error::Api(status))) if status.code == 409 => {}
            // It may have been made; if not, the pod says so, and the attempt is handed out again.
            Err(error) => return Err(failed(order.attempt, "given its token", error)),
        }
        Ok(Launched { name: job.name_any(), uid })
    }

    async fn find(&self, attempt: &AttemptId) -> Result<Option<Job>, LaunchError> {
        call(self.jobs().get_opt(&job_name(attempt)))
            .await
            .map_err(|error| failed(attempt, "looked for", error))
    }

    /// Deletes exactly this Job. Without the policy the pod would go on alone.
    async fn delete(&self, attempt: &AttemptId, job: &Job) -> Result<(), LaunchError> {
        let exactly = Preconditions { uid: job.uid(), resource_version: None };
        let parameters = DeleteParams::background().preconditions(exactly);
        match call(self.jobs().delete(&job.name_any(), &parameters)).await {
            Ok(_) => Ok(()),
            // Gone, or gone and made anew by somebody else: this one is not there.
            Err(Unanswered::Kube(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(failed(attempt, "stopped", error)),
        }
    }

    async fn wait_until_gone(&self, attempt: &AttemptId, job: &Job) -> Result<(), LaunchError> {
        let deadline = Instant::now() + GONE_AFTER;
        while self.find(attempt).await?.is_some_and(|found| found.uid() == job.uid()) {
            if Instant::now() > deadline {
                let words = format!("Job {} was deleted and is still there", job.name_any());
                return Err(failed(attempt, "stopped", Unanswered::Late(words)));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// What the Job controller said when it could not make a pod.
    async fn why_no_pod(&self, job: &Job) -> Option<String> {
        let about = format!("involvedObject.kind=Job,involvedObject.name={}", job.name_any());
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let events = call(events.list(&ListParams::default().fields(&about).limit(PAGE))).await.ok()?;
        let refused =
            events.items.into_iter().rev().find(|event| event.reason.as_deref() == Some("FailedCreate"));
        refused?.message
    }

    async fn cluster(&self) -> Result<Cluster, LaunchError> {
        let unseen = |error| LaunchError::Unseen { source: Box::new(error) };
        let jobs = list(&self.jobs()).await.map_err(unseen)?;
        let pods = list(&self.pods()).await.map_err(unseen)?;
        let mut cluster = Cluster { jobs: HashMap::new(), pods: HashMap::new() };
        for pod in pods {
            if let Some(attempt) = pod.annotations().get(ATTEMPT) {
                cluster.pods.entry(attempt.clone()).or_default().push(pod);
            }
        }
        for job in jobs {
            if let Some(attempt) = job.annotations().get(ATTEMPT) {
                cluster.jobs.insert(attempt.clone(), job);
            }
        }
        Ok(cluster)
    }

    fn waiting_sight(&self, attempt: &AttemptId) -> Option<ExecutorSight> {
        let waiting = self.waiting();
        let Waiting { order, since, words } = waiting.get(attempt)?;
        let epoch = order.epoch;
        Some(if since.elapsed() < self.settings.unscheduled_after {
            ExecutorSight::Alive { epoch }
        } else {
            ExecutorSight::Stuck { epoch, end: End::new(Cause::Unschedulable, words.clone()) }
        })
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, BTreeMap<AttemptId, Waiting>> {
        self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn jobs(&self) -> Api<Job> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

impl std::fmt::Debug for Kubernetes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubernetes").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Cluster {
    fn sight(
        &self,
        attempt: &AttemptId,
        pod_refused: Option<&str>,
        settings: &Settings,
        now: jiff::Timestamp,
    ) -> ExecutorSight {
        let pods: Vec<&Pod> = self.pods.get(attempt.as_str()).into_iter().flatten().collect();
        if let Some(job) = self.jobs.get(attempt.as_str()) {
            return sight::sight(&sight::Seen { job, pods: &pods, pod_refused }, settings, now);
        }
        // A pod may outlive its Job for as long as it takes to end.
        let ending = pods.iter().filter(|pod| sight::may_run(pod));
        let epoch = ending.filter_map(|pod| pod.annotations().get(job::EPOCH)?.parse().ok()).max();
        epoch.map_or(ExecutorSight::Absent, |epoch| ExecutorSight::Alive { epoch: Epoch(epoch) })
    }

    fn without_pod(&self, attempt: &AttemptId) -> Option<&Job> {
        self.jobs.get(attempt.as_str()).filter(|_| !self.pods.contains_key(attempt.as_str()))
    }
}

/// The Job that was found in the place of the one that was to be made, if it is that.
fn same(order: &Order<'_>, found: Job) -> Result<Job, LaunchError> {
    let belongs_to = found.annotations().get(ATTEMPT).map_or("nobody that we know", String::as_str);
    let epoch = sight::epoch(&found);
    if belongs_to == order.attempt.as_str() && epoch == Some(order.epoch) {
        tracing::info!(attempt.id = %order.attempt, "its Job was there already");
        return Ok(found);
    }
    let epoch = epoch.map_or(String::new(), |epoch| format!(" (epoch {epoch})"));
    Err(LaunchError::OtherIdentity {
        attempt: order.attempt.clone(),
        place: format!("Job {}", found.name_any()),
        found: format!("{belongs_to}{epoch}"),
    })
}

/// A call that did not come to what was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// The cluster refused it, or cannot be reached.
    #[error("{}", told(.0))]
    Kube(kube::Error),
    /// It took too long.
    #[error("{0}")]
    Late(String),
}

impl Unanswered {
    /// Whether the cluster may have done it all the same, now or at an earlier call.
    fn may_be_done(&self) -> bool {
        match self {
            Self::Kube(kube::Error::Api(status)) => status.code == 409 || status.code >= 500,
            Self::Kube(_) | Self::Late(_) => true,
        }
    }
}

/// The cluster's own words, without the form that they came in.
fn told(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return format!("the cluster refuses it ({} {}): {}", status.code, status.reason, status.message);
    }
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let more = cause.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        source = cause.source();
    }
    format!("the cluster does not answer: {words}")
}

/// One call, within its time.
pub(crate) async fn call<T>(answer: impl Future<Output = kube::Result<T>>) -> Result<T, Unanswered> {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(answer) => answer.map_err(Unanswered::Kube),
        Err(_) => {
            Err(Unanswered::Late(format!("the cluster did not answer within {} s", PATIENCE.as_secs())))
        }
    }
}

/// Every object of ours, page by page.
async fn list<K>(api: &Api<K>) -> Result<Vec<K>, Unanswered>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let mut all = Vec::new();
    let mut parameters = ListParams::default().labels(SELECTOR).limit(PAGE);
    loop {
        let page: ObjectList<K> = call(api.list(&parameters)).await?;
        let next = page.metadata.continue_.clone().filter(|token| !token.is_empty());
        all.extend(page.items);
        match next {
            Some(token) => parameters = parameters.continue_token(&token),
            None => return Ok(all),
        }
    }
}

fn is_quota(status: &kube::core::Status) -> bool {
    status.code == 403 && status.message.contains("exceeded quota")
}

fn failed(attempt: &AttemptId, step: &'static str, error: Unanswered) -> LaunchError {
    let next =
        "see `kubectl get jobs -l app=leviathan-executor` and the rights of the scheduler's service account";
    LaunchError::Failed {
        attempt: attempt.clone(),
        step,
        source: std::io::Error::other(error),
        next: next.to_owned(),
    }
}

impl OwnedOrder {
    fn of(order: &Order<'_>) -> Self {
        Self {
            attempt: order.attempt.clone(),
            epoch: order.epoch,
            token: order.token.clone(),
            target: order.target.clone(),
            task: order.task.clone(),
            timeout: order.timeout,
            image: order.image.map(str::to_owned),
        }
    }

    fn as_order(&self) -> Order<'_> {
        Order {
            attempt: &self.attempt,
            epoch: self.epoch,
            token: &self.token,
            target: &self.target,
            task: &self.task,
            timeout: self.timeout,
            image: self.image.as_deref(),
        }
    }
}
