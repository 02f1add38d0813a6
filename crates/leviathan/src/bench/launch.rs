//! `leviathan bench launch`: how fast attempts are launched as Jobs, and what so many live ones cost.
//!
//! A real control plane with its journal on disk and a real scheduler work in this process against an API server of
//! the benchmark's own. Nobody works at an attempt: each stays claimed, with its Job made and its pod running. The
//! limits are the same calls without a scheduler between them, and what a durable answer must cost at least.

mod api_server;

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use api::Client;
use api::types::{AttemptsQuery, ClaimRequest, Dispatched, EventsQuery};
use control_plane::Server;
use kube::api::PostParams;
use model::event::{AttemptCreated, AttemptLaunched, EventKind, Subject, Timestamp};
use model::select::{Spending, TargetLimits};
use model::{ActorId, AttemptId, Event, EventId};
use scheduler::{Report, Scheduler};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Goal, large_repository, machine, median, percentile, print_row, show};
use crate::scheduler::{Settings, in_cluster};
use crate::{Answer, up};
use api_server::{ApiServer, Kind, NAMESPACE};

/// The goal: so many launches per second, in the slowest tenth of them.
const LAUNCHES_PER_SECOND: f64 = 20.0;
/// The middle claim may take so many times what a durable answer must take at least.
const CLAIM_TARGET: f64 = 3.0;
/// The slowest claim in a hundred may.
const SLOW_CLAIM_TARGET: f64 = 10.0;
/// How many targets the attempts are spread over.
const TARGETS: u32 = 10;
/// In how many parts the launches are looked at.
const PARTS: usize = 10;
/// How many passes are made with everything live.
const STEADY_PASSES: usize = 5;
/// How often a durable answer's parts are measured.
const SAMPLES: usize = 300;
/// Any will do: nothing pulls it.
const IMAGE: &str = "leviathan:bench";
/// The interval of a scheduler that is told none, which a pass has to fit into.
const INTERVAL: f64 = 10.0;

/// What `leviathan bench launch` is told.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many attempts are live in the end
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(10..=1_000))]
    attempts: u32,
    /// Write JSON objects, one a line, instead of the table
    #[arg(long)]
    json: bool,
}

/// Measures, prints, and says whether the goals are met.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let measured = runtime.block_on(measure(arguments.attempts))?;
    let goals = measured.goals();
    show(&goals, arguments.json, || print_table(arguments, &measured, &goals))
}

/// What was measured. Times are in seconds.
struct Measured {
    /// How many attempts are live.
    live: Vec<AttemptId>,
    /// From the beginning of the pass that launched to its end.
    launching: f64,
    /// Launches per second, by parts of equal number.
    rates: Vec<f64>,
    claims: Vec<f64>,
    /// A pass that finds everything as it was.
    steady: f64,
    /// One answer of the control plane that records nothing.
    answer: f64,
    /// One write and `fdatasync` of as much as a claim records.
    append: f64,
    /// The calls of one launch without a scheduler.
    calls: f64,
}

impl Measured {
    fn goals(&self) -> [Goal; 5] {
        let launch = self.launching / self.live.len() as f64;
        let durable = self.answer + self.append;
        let claims = |part| percentile(self.claims.clone(), part);
        [
            Goal::at_least(1.0, "launch-rate", self.slowest(), LAUNCHES_PER_SECOND),
            Goal::told("launch-overhead", launch, self.calls),
            Goal::at_most(CLAIM_TARGET, "claim-latency-p50", claims(0.5), durable),
            Goal::at_most(SLOW_CLAIM_TARGET, "claim-latency-p99", claims(0.99), durable),
            Goal::told("steady-pass", self.steady, INTERVAL),
        ]
    }

    /// The rate of the slowest part: what is sustained.
    fn slowest(&self) -> f64 {
        self.rates.iter().copied().min_by(f64::total_cmp).unwrap_or(f64::NAN)
    }
}

async fn measure(attempts: u32) -> anyhow::Result<Measured> {
    let folder = tempfile::Builder::new().prefix("leviathan-bench-").tempdir()?;
    let site = Site { folder: folder.path().canonicalize()?, attempts };
    site.make_repositories()?;

    let mut installation = Installation::start(&site, "scheduled").await?;
    installation.pass(Claims::Nothing).await.context("the targets were not registered")?;
    let begun = Instant::now();
    let claims = installation.launch_all(attempts).await?;
    let launching = begun.elapsed().as_secs_f64();
    let live = installation.every_attempt_has_its_job().await?;
    ensure!(live.len() == attempts as usize, "{} attempts are live, not {attempts}", live.len());
    let rates = rates(begun, &installation.cluster.launched());
    let steady = installation.steady_pass().await?;
    let answer = installation.answer().await?;
    let append = append(&site.folder, installation.bytes_of_a_claim(&live[0]).await?)?;
    let works = installation.work().await?;
    let samples = installation.objects_of(&live[0])?;
    installation.stop().await?;

    let mut bare = Installation::start(&site, "bare").await?;
    bare.pass(Claims::Nothing).await.context("the targets were not registered")?;
    let calls = bare.launch_without_a_scheduler(&works, &samples).await?;
    bare.stop().await?;
    Ok(Measured { live, launching, rates, claims, steady, answer, append, calls })
}

/// Launches per second, by parts of equal number.
fn rates(begun: Instant, launched: &[Instant]) -> Vec<f64> {
    let mut before = begun;
    let mut rates = Vec::new();
    for part in launched.chunks(launched.len().div_ceil(PARTS).max(1)) {
        let Some(last) = part.last() else { continue };
        rates.push(part.len() as f64 / last.duration_since(before).as_secs_f64());
        before = *last;
    }
    rates
}

/// The middle one of many writes of so many bytes, each made durable as the journal does it.
fn append(folder: &Path, bytes: usize) -> anyhow::Result<f64> {
    let mut file = File::options().create(true).append(true).open(folder.join("appended"))?;
    let line = vec![b'x'; bytes];
    let mut times = Vec::new();
    for _ in 0..SAMPLES {
        let begun = Instant::now();
        file.write_all(&line)?;
        file.sync_data()?;
        times.push(begun.elapsed().as_secs_f64());
    }
    Ok(median(times))
}

/// The folder that the benchmark happens in.
struct Site {
    folder: PathBuf,
    attempts: u32,
}

impl Site {
    fn origin(&self, number: u32) -> PathBuf {
        self.folder.join(format!("origin-{number}.git"))
    }

    /// How many tasks a target has: one for each attempt.
    fn tasks(&self, number: u32) -> u32 {
        self.attempts / TARGETS + u32::from(number < self.attempts % TARGETS)
    }

    fn make_repositories(&self) -> anyhow::Result<()> {
        for number in 0..TARGETS {
            let documents = [
                (".leviathan/contract.yaml", contract(&self.origin(number), number)),
                (".leviathan/policy.yaml", policy(self.tasks(number))),
                (".leviathan/backlog.yaml", backlog(self.tasks(number))),
            ];
            large_repository::make(&self.origin(number), 10, 1, &documents)?;
        }
        Ok(())
    }

    /// The ConfigMaps that register the targets.
    fn registrations(&self) -> Vec<(String, Value)> {
        let registration = |number| {
            let data = json!({ "contract.yaml": contract(&self.origin(number), number) });
            (format!("leviathan-target-{}", target_id(number)), data)
        };
        (0..TARGETS).map(registration).collect()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Claims {
    Everything,
    Nothing,
}

/// A cluster, a control plane and a scheduler, all in this process.
struct Installation {
    cluster: ApiServer,
    client: Client,
    scheduler: Scheduler,
    stop: watch::Sender<bool>,
    serving: JoinHandle<anyhow::Result<()>>,
}

/// What an attempt was claimed for.
struct Work {
    subject: Subject,
    created: AttemptCreated,
}

/// The objects of an attempt, to be made once more for others.
struct Samples {
    attempt: AttemptId,
    job: Value,
    secret: Value,
}

impl Installation {
    async fn start(site: &Site, name: &str) -> anyhow::Result<Self> {
        let data = site.folder.join(name);
        std::fs::create_dir_all(&data)?;
        let token = up::kept_token(&data)?;
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let config =
            control_plane::Config { listen, ..control_plane::Config::new(data.clone(), token.clone()) };
        let server = Server::bind(config).await?;
        let client = Client::new(&format!("http://{}", server.address()), token)?;
        let cluster = ApiServer::start(&site.registrations()).await?;
        let config = Settings::from_environment()?.config(client.clone(), data)?;
        let config = in_cluster(config, cluster.client()?, NAMESPACE, IMAGE)?;
        let (stop, mut stopped) = watch::channel(false);
        let serving = tokio::spawn(server.run(async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        }));
        Ok(Self { cluster, client, scheduler: Scheduler::new(config), stop, serving })
    }

    async fn stop(self) -> anyhow::Result<()> {
        let refused = self.cluster.refused();
        ensure!(
            refused.is_empty(),
            "the benchmark's cluster was asked what it refused: {}",
            refused.join("; ")
        );
        self.stop.send_replace(true);
        self.serving.await.context("the control plane met a bug")?
    }

    async fn pass(&mut self, claims: Claims) -> anyhow::Result<Report> {
        let (_go_on, stop) = watch::channel(claims == Claims::Nothing);
        let report = self.scheduler.pass(&stop).await?;
        ensure!(report.problems.is_empty(), "a pass did not go as it should: {}", report.problems.join("; "));
        Ok(report)
    }

    /// Passes until everything is launched. How long each claim took.
    async fn launch_all(&mut self, attempts: u32) -> anyhow::Result<Vec<f64>> {
        let mut claims = Vec::new();
        let mut launched = 0;
        while launched < attempts as usize {
            let report = self.pass(Claims::Everything).await?;
            ensure!(report.launched > 0, "the scheduler launches no more than {launched} attempts");
            launched += report.launched;
            claims.extend(report.claims.iter().map(Duration::as_secs_f64));
        }
        Ok(claims)
    }

    /// The live attempts, each of which has exactly one Job, one pod and one token; and nothing else has any.
    async fn every_attempt_has_its_job(&self) -> anyhow::Result<Vec<AttemptId>> {
        let live =
            AttemptsQuery { status: Some("live".to_owned()), limit: Some(1_000), ..AttemptsQuery::default() };
        let mut live: Vec<AttemptId> = self
            .client
            .attempts(&live)
            .await?
            .attempts
            .into_iter()
            .map(|attempt| attempt.attempt_id)
            .collect();
        live.sort();
        let objects = [(Kind::Job, ""), (Kind::Pod, "-pod"), (Kind::Secret, "-1")]
            .map(|(kind, end)| (self.cluster.names(kind), end));
        for (names, end) in objects {
            let expected: Vec<String> =
                live.iter().map(|attempt| format!("leviathan-{attempt}{end}")).collect();
            ensure!(
                names == expected,
                "{} attempts are live and the cluster has other objects: {names:?}",
                live.len()
            );
        }
        Ok(live)
    }

    /// How long a pass takes that finds everything as it was, and records nothing.
    async fn steady_pass(&mut self) -> anyhow::Result<f64> {
        let mut times = Vec::new();
        let before = self.head().await?;
        for _ in 0..STEADY_PASSES {
            let begun = Instant::now();
            let report = self.pass(Claims::Everything).await?;
            times.push(begun.elapsed().as_secs_f64());
            ensure!(report.launched == 0, "{} attempts more were launched", report.launched);
        }
        ensure!(self.head().await? == before, "a pass recorded something although nothing changed");
        Ok(median(times))
    }

    async fn head(&self) -> anyhow::Result<u64> {
        let one = EventsQuery { limit: Some(1), ..EventsQuery::default() };
        Ok(self.client.events(&one).await?.head)
    }

    /// How long the control plane takes to answer at all.
    async fn answer(&self) -> anyhow::Result<f64> {
        let mut times = Vec::new();
        for _ in 0..SAMPLES {
            let begun = Instant::now();
            self.client.health().await?;
            times.push(begun.elapsed().as_secs_f64());
        }
        Ok(median(times))
    }

    /// How much a claim records.
    async fn bytes_of_a_claim(&self, attempt: &AttemptId) -> anyhow::Result<usize> {
        let query = EventsQuery { attempt: Some(attempt.clone()), ..EventsQuery::default() };
        let mut bytes = 0;
        for recorded in self.client.events(&query).await?.events {
            if matches!(recorded.event.kind, EventKind::AttemptCreated(_) | EventKind::AttemptClaimed(_)) {
                bytes += serde_json::to_vec(&recorded)?.len();
            }
        }
        Ok(bytes)
    }

    /// What was claimed.
    async fn work(&self) -> anyhow::Result<Vec<Work>> {
        let created = EventsQuery {
            event_type: Some("attempt.created".to_owned()),
            limit: Some(5_000),
            ..EventsQuery::default()
        };
        let events = self.client.events(&created).await?.events.into_iter().map(|recorded| recorded.event);
        let works = events.filter_map(|event| {
            let EventKind::AttemptCreated(created) = event.kind else { return None };
            Some(Work { subject: event.subject, created })
        });
        Ok(works.collect())
    }

    fn objects_of(&self, attempt: &AttemptId) -> anyhow::Result<Samples> {
        let object = |kind, name: String| -> anyhow::Result<Value> {
            let text = self.cluster.text(kind, &name).with_context(|| format!("{name} is gone"))?;
            let mut object: Value = serde_json::from_str(&text)?;
            object.as_object_mut().map(|fields| fields.remove("status"));
            let metadata = object["metadata"].as_object_mut().context("an object has no metadata")?;
            metadata.retain(|key, _| {
                matches!(key.as_str(), "name" | "labels" | "annotations" | "ownerReferences")
            });
            Ok(object)
        };
        Ok(Samples {
            attempt: attempt.clone(),
            job: object(Kind::Job, format!("leviathan-{attempt}"))?,
            secret: object(Kind::Secret, format!("leviathan-{attempt}-1"))?,
        })
    }

    /// Makes for each work the calls that a launch consists of, one after another. How long they take for one.
    async fn launch_without_a_scheduler(&self, works: &[Work], samples: &Samples) -> anyhow::Result<f64> {
        let cluster = self.cluster.client()?;
        let actor = ActorId::parse("bench").context("the name is no actor")?;
        let begun = Instant::now();
        for work in works {
            let dispatched = self.client.claim(&claim(work, &actor)?).await?;
            let attempt = &dispatched.attempt_id;
            let job = make(&cluster, "apis/batch/v1", "jobs", samples.job_of(&dispatched)).await?;
            let uid = job["metadata"]["uid"].as_str().unwrap_or_default();
            make(&cluster, "api/v1", "secrets", samples.secret_of(&dispatched, uid)).await?;
            let launched = AttemptLaunched {
                epoch: dispatched.epoch,
                name: format!("leviathan-{attempt}"),
                uid: uid.to_owned(),
            };
            let event = Event {
                event_id: EventId::derived(["attempt.launched", attempt.as_str(), uid]),
                timestamp: Timestamp::new(jiff::Timestamp::now()),
                actor_id: actor.clone(),
                subject: Subject { attempt_id: Some(attempt.clone()), ..work.subject.clone() },
                kind: EventKind::AttemptLaunched(launched),
            };
            self.client.ingest(vec![event]).await?;
        }
        let took = begun.elapsed().as_secs_f64();
        self.every_attempt_has_its_job().await?;
        Ok(took / works.len() as f64)
    }
}

impl Samples {
    fn job_of(&self, dispatched: &Dispatched) -> String {
        self.job.to_string().replace(self.attempt.as_str(), dispatched.attempt_id.as_str())
    }

    fn secret_of(&self, dispatched: &Dispatched, owner: &str) -> String {
        let mut secret = self.secret.clone();
        secret["stringData"] = json!({ "token": dispatched.token });
        secret["metadata"]["ownerReferences"][0]["uid"] = owner.into();
        secret.to_string().replace(self.attempt.as_str(), dispatched.attempt_id.as_str())
    }
}

async fn make(cluster: &kube::Client, group: &str, plural: &str, object: String) -> anyhow::Result<Value> {
    let path = format!("/{group}/namespaces/{NAMESPACE}/{plural}");
    let request = kube::core::Request::new(path).create(&PostParams::default(), object.into_bytes())?;
    Ok(cluster.request(request).await?)
}

fn claim(work: &Work, actor: &ActorId) -> anyhow::Result<ClaimRequest> {
    let Work { subject, created } = work;
    let (Some(target_id), Some(task_id)) = (subject.target_id.clone(), subject.task_id.clone()) else {
        bail!("an attempt has no task")
    };
    let created = created.clone();
    Ok(ClaimRequest {
        target_id,
        task_id,
        task_revision: created.task_revision,
        base_commit: created.base_commit,
        contract_digest: created.contract_digest,
        policy_digest: created.policy_digest,
        operator_policy_digest: created.operator_policy_digest,
        limits: TargetLimits {
            max_concurrent: u32::MAX,
            max_open_prs: u32::MAX,
            overlap_waits: false,
            spending: Spending::UNLIMITED,
        },
        agent: created.agent,
        model: created.model,
        timeout_seconds: created.timeout_seconds,
        launcher: "kubernetes".to_owned(),
        actor_id: actor.clone(),
    })
}

fn target_id(number: u32) -> String {
    format!("bench-{number}")
}

fn contract(origin: &Path, number: u32) -> String {
    format!(
        "\
target_id: {}
name: Benchmark
repo_url: file://{}
default_branch: main
description: \"A small repository\"
owner: you
",
        target_id(number),
        origin.display()
    )
}

fn policy(tasks: u32) -> String {
    format!(
        "\
scopes:
  everything:
    allowed_paths:
      - src/**
invariants:
  - name: \"The sources are there\"
    check: \"test -d src\"
limits:
  max_concurrent: {tasks}
  max_open_prs: {tasks}
"
    )
}

fn backlog(tasks: u32) -> String {
    let task = |number| {
        format!(
            "  - task_id: task-{number:04}
    title: \"Change a few files\"
    scope: everything
    priority: high
    estimated_size: small
    allowed_paths:
      - src/**
    acceptance_criteria:
      - \"A few files are changed\"
    agent:
      command: \"true\"
    status: pending
"
        )
    };
    format!("tasks:\n{}", (0..tasks).map(task).collect::<String>())
}

fn print_table(arguments: &Arguments, measured: &Measured, goals: &[Goal]) {
    let [rate, overhead, middle, slow, steady] = goals else { return };
    let millis = |seconds: f64| seconds * 1e3;
    anstream::println!("{} attempts live at once, {TARGETS} targets", arguments.attempts);
    anstream::println!("{}\n", machine());
    anstream::println!("launches per second, by tenths of all");
    let last = measured.rates.len().saturating_sub(1);
    for (name, index) in [("the first", 0), ("the last", last)] {
        print_row(name, measured.rates.get(index).copied().unwrap_or(f64::NAN));
    }
    print_row("the slowest", rate.measured);
    anstream::println!("  {}", rate.verdict());
    anstream::println!("one launch, in milliseconds");
    print_row("by the scheduler, its looks included", millis(overhead.measured));
    print_row("the same calls without a scheduler", millis(overhead.limit));
    anstream::println!("  {}", overhead.verdict());
    anstream::println!("a claim, in milliseconds");
    print_row("p50", millis(middle.measured));
    print_row("p99", millis(slow.measured));
    print_row("an answer that records nothing, p50", millis(measured.answer));
    print_row("one write and fdatasync of as much, p50", millis(measured.append));
    anstream::println!("  p50 {}", middle.verdict());
    anstream::println!("  p99 {}", slow.verdict());
    anstream::println!("a pass with all of them live and nothing to do, in seconds");
    print_row("a whole pass", steady.measured);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn every_attempt_is_launched_once_and_every_number_is_measured() {
        let measured = measure(23).await.unwrap();
        assert_eq!((measured.live.len(), measured.claims.len()), (23, 23));
        assert!(measured.rates.len() <= PARTS, "{:?}", measured.rates);
        let goals = measured.goals();
        let names = goals.each_ref().map(|goal| goal.goal);
        let expected =
            ["launch-rate", "launch-overhead", "claim-latency-p50", "claim-latency-p99", "steady-pass"];
        assert_eq!(names, expected);
        for goal in goals {
            assert!(goal.measured > 0.0 && goal.limit > 0.0, "{goal:?}");
        }
    }

    #[test]
    fn the_tasks_of_all_targets_are_as_many_as_the_attempts() {
        for attempts in [10, 23, 1_000] {
            let site = Site { folder: PathBuf::new(), attempts };
            assert_eq!((0..TARGETS).map(|number| site.tasks(number)).sum::<u32>(), attempts);
        }
    }

    #[test]
    fn the_slowest_part_is_what_is_sustained() {
        let begun = Instant::now();
        let launched: Vec<Instant> =
            (1..=20).map(|n| begun + Duration::from_millis(n * if n > 10 { 20 } else { 10 })).collect();
        let rates = rates(begun, &launched);
        assert_eq!(rates.len(), 10);
        assert!((rates[0] - 100.0).abs() < 1e-6 && (rates[9] - 50.0).abs() < 1e-6, "{rates:?}");
    }
}
