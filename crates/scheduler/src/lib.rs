//! What runs next. The scheduler is a reconciler: it reads the log, looks at repositories, executors and forges,
//! decides with pure functions what is to be done, and does it. It keeps nothing that it could not see again, so
//! that it may die at any moment and several may run at once.
//!
//! It does not know how an attempt is worked at, and it never merges anything.

mod act;
mod fault;
pub mod history;
pub mod launch;
mod lease;
pub mod observe;
mod passes;
pub mod plan;
mod registration;
mod review;
mod write_back;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use api::types::{AttemptsQuery, PassReport, TargetObservation};
use api::{Client, ClientError, ErrorCode};
use model::event::Timestamp;
use model::{ActorId, AttemptId, MicroDollars, TargetId};
use rustix::fs::FlockOperation;
use tokio::sync::watch;
use tracing::Instrument as _;
use tracing::field::Empty;

pub use fault::Fault;
pub use launch::Launcher;
pub use lease::Leadership;
pub use observe::RepositoryAccess;
pub use registration::ConfigMaps;

use history::History;
use launch::ExecutorSight;
use observe::Repositories;
use plan::{Agent, Sights, TargetSight, World};
use registration::Registrations;
use review::Reviews;
use write_back::{Place, WriteBacks};

/// How long an attempt that has ended is still looked after, in milliseconds.
const ENDED_LATELY_MS: i64 = 600_000;
/// The most attempts that the control plane lists at once.
const MOST_LIVE: u32 = 1000;
/// How soon after a pass began the next may begin, however much happens meanwhile.
const SHORTEST_BETWEEN: Duration = Duration::from_millis(250);
/// How often somebody else's pass over the same data folder is looked at.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// What a scheduler works with.
#[derive(Debug)]
pub struct Config {
    /// The control plane, with the operator's token.
    pub client: Client,
    /// The name of this scheduler in the log; the same after a restart, another one on another machine.
    pub actor: ActorId,
    /// The data folder.
    pub data: PathBuf,
    /// What starts executors.
    pub launcher: Launcher,
    /// The ConfigMaps that register targets, in a cluster.
    pub config_maps: Option<ConfigMaps>,
    /// Who does the work of tasks that do not say so.
    pub agent: Agent,
    /// What all targets together may spend on one day, if that is limited.
    pub budget_per_day: Option<MicroDollars>,
    /// By what several schedulers agree on who makes the passes, where there may be several.
    pub leadership: Option<Leadership>,
    /// How repositories and forges are reached.
    pub access: RepositoryAccess,
    /// How long to wait between two passes.
    pub interval: Duration,
    /// How long to wait before the same pull requests are looked at again.
    pub review_interval: Duration,
    /// Where a test lets this process die.
    pub fault: Fault,
}

/// What one pass came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    /// What kept some target or attempt from going on, for people.
    pub problems: Vec<String>,
    /// How many executors were started.
    pub launched: usize,
    /// How long the control plane took to grant each claim, as it was seen from here.
    pub claims: Vec<Duration>,
}

/// Why there can be no pass at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The control plane does not answer, or does not know us.
    #[error(transparent)]
    ControlPlane(#[from] ClientError),
    /// The data folder cannot be used.
    #[error("the data folder {} cannot be used: {source}", folder.display())]
    Data {
        /// Which.
        folder: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
}

impl Error {
    /// Whether no later pass can come to anything either. A single call that the control plane refuses for what
    /// it says is no reason to leave every other target alone.
    fn is_final(&self) -> bool {
        match self {
            Self::ControlPlane(ClientError::Refused { body, .. }) => {
                matches!(body.code, ErrorCode::Unauthenticated | ErrorCode::Forbidden)
            }
            Self::ControlPlane(ClientError::Unreachable { .. }) => false,
            Self::ControlPlane(ClientError::Unreadable { .. } | ClientError::Unusable(_))
            | Self::Data { .. } => true,
        }
    }
}

/// A scheduler between two passes. What it holds can all be seen again.
#[derive(Debug)]
pub struct Scheduler {
    config: Config,
    history: History,
    registrations: Registrations,
    repositories: Repositories,
    reviews: Reviews,
    write_backs: WriteBacks,
    shown: BTreeSet<String>,
}

/// Runs passes until `stop` becomes true. Executors that run then go on; the next scheduler adopts them.
pub async fn run(mut config: Config, mut stop: watch::Receiver<bool>) -> Result<(), Error> {
    let interval = config.interval;
    let mut leadership = config.leadership.take();
    let mut requested = passes::listen(config.client.clone());
    let mut scheduler = Scheduler::new(config);
    let mut running = scheduler.config.launcher.running();
    while !*stop.borrow() {
        running.mark_unchanged();
        let request = *requested.borrow_and_update();
        let began = tokio::time::Instant::now();
        if scheduler.leads(leadership.as_mut()).await {
            scheduler.pass_as_asked(request, &stop).await?;
        }
        let next = began + SHORTEST_BETWEEN.min(interval);
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            _ = running.changed() => {}
            Ok(()) = requested.changed() => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }
    if let Some(leadership) = &mut leadership {
        leadership.release().await;
    }
    Ok(())
}

/// One pass; then the executors that it started are waited for, and what they came to is looked at. Nothing more
/// is claimed then.
pub async fn run_once(config: Config, mut stop: watch::Receiver<bool>) -> Result<Report, Error> {
    let mut scheduler = Scheduler::new(config);
    let first = scheduler.pass(&stop).await?;
    tokio::select! {
        () = scheduler.config.launcher.started_have_ended() => {}
        _ = stop.wait_for(|stop| *stop) => return Ok(first),
    }
    let (_claim_nothing, nothing) = watch::channel(true);
    let last = scheduler.pass(&nothing).await?;
    Ok(Report { launched: first.launched + last.launched, claims: first.claims, ..last })
}

impl Scheduler {
    /// A scheduler that has seen nothing yet.
    pub fn new(config: Config) -> Self {
        Self {
            history: History::default(),
            registrations: Registrations::new(config.actor.clone(), &config.data, config.config_maps.clone()),
            repositories: Repositories::new(&config.data, config.access.clone()),
            reviews: Reviews::default(),
            write_backs: WriteBacks::default(),
            shown: BTreeSet::new(),
            config,
        }
    }

    /// Whether this scheduler makes the passes now.
    async fn leads(&mut self, leadership: Option<&mut Leadership>) -> bool {
        let Some(leadership) = leadership else { return true };
        match leadership.hold(std::time::Instant::now()).await {
            Ok(leads) => leads,
            Err(problem) => {
                tracing::warn!("{problem}; the pass is made without it");
                true
            }
        }
    }

    /// A pass, which may have been asked for by a request of that number.
    async fn pass_as_asked(&mut self, request: u64, stop: &watch::Receiver<bool>) -> Result<(), Error> {
        let report = match self.pass(stop).await {
            Ok(report) => report,
            Err(error) if error.is_final() => return Err(error),
            Err(error) => {
                let problems = vec![error.to_string()];
                self.show(problems.clone());
                Report { problems, ..Report::default() }
            }
        };
        let report = PassReport {
            number: request,
            by: self.config.actor.clone(),
            at: now(),
            launched: report.launched as u64,
            problems: report.problems,
        };
        passes::report(&self.config.client, report).await;
        Ok(())
    }

    /// One pass: look, reconcile, write back, then claim. Once `stop` is true nothing new is claimed.
    pub async fn pass(&mut self, stop: &watch::Receiver<bool>) -> Result<Report, Error> {
        let span = tracing::info_span!(
            target: api::trace::TARGET,
            "pass",
            otel.name = "scheduler pass",
            otel.status_code = Empty,
            scheduler.name = %self.config.actor,
            pass.launched = Empty,
            pass.problems = Empty,
        );
        let made = self.make_pass(stop).instrument(span.clone()).await;
        match &made {
            Ok(report) => {
                span.record("pass.launched", report.launched as u64);
                span.record("pass.problems", report.problems.len() as u64);
            }
            Err(_) => {
                span.record("otel.status_code", "ERROR");
            }
        }
        made
    }

    async fn make_pass(&mut self, stop: &watch::Receiver<bool>) -> Result<Report, Error> {
        let _turn = self.turn().await?;
        let mut report = Report::default();
        self.history.catch_up(&self.config.client).await?;
        let graph = self.history.graph();
        report.problems.extend(self.registrations.register(&self.config.client, graph).await?);
        let executors = self.look_at_executors(&mut report).await?;
        let leases = self.leases().await?;
        let targets = self.look_at_targets(&mut report).await?;
        let pull_requests =
            self.reviews.look(&self.config, &self.history, &self.repositories, &mut report).await;
        let sights = Sights { targets, executors, leases, pull_requests };

        let plan = plan::reconcile(&self.world(&sights));
        act::reconcile(&self.config, &self.history, plan, &mut report).await?;
        self.history.catch_up(&self.config.client).await?;
        act::launch_waiting(&self.config, &self.history, &mut report).await?;
        self.write_back(&sights, &mut report).await?;
        for request in plan::claims(&self.world(&sights)) {
            if *stop.borrow() || !self.config.launcher.has_room() {
                break;
            }
            act::claim(&self.config, &self.history, &request, &mut report).await?;
        }
        self.show(report.problems.clone());
        Ok(report)
    }

    fn world<'a>(&'a self, sights: &'a Sights) -> World<'a> {
        World {
            now: now(),
            actor: &self.config.actor,
            launcher: self.config.launcher.name(),
            sees_all_executors: self.config.launcher.sees_all(),
            agent: &self.config.agent,
            budget_per_day: self.config.budget_per_day,
            history: &self.history,
            sights,
        }
    }

    /// Passes over one data folder take turns, so that an attempt without an executor is never one that another
    /// pass is about to start.
    async fn turn(&self) -> Result<File, Error> {
        let folder = &self.config.data;
        let unusable = |source| Error::Data { folder: folder.clone(), source };
        std::fs::create_dir_all(folder).map_err(unusable)?;
        let path = folder.join("scheduler.lock");
        let lock = File::options().create(true).truncate(false).write(true).open(path).map_err(unusable)?;
        loop {
            match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(lock),
                Err(rustix::io::Errno::WOULDBLOCK) => tokio::time::sleep(LOCK_POLL).await,
                Err(error) => return Err(unusable(error.into())),
            }
        }
    }

    /// Looks at executors first and reads the log after that: what an executor did before it ended is known then.
    async fn look_at_executors(
        &mut self,
        report: &mut Report,
    ) -> Result<BTreeMap<AttemptId, ExecutorSight>, ClientError> {
        self.history.catch_up(&self.config.client).await?;
        let now = now();
        let may_run =
            self.history.graph().attempts().rev().filter(|attempt| {
                attempt.ended_at.is_none_or(|ended| now.millis_since(ended) < ENDED_LATELY_MS)
            });
        let may_run: Vec<_> = may_run.map(|attempt| &attempt.id).collect();
        let (sights, errors) = self.config.launcher.look(&may_run, now.moment()).await;
        report.problems.extend(errors.iter().map(ToString::to_string));
        self.history.catch_up(&self.config.client).await?;
        Ok(sights)
    }

    async fn leases(&self) -> Result<BTreeMap<AttemptId, u64>, ClientError> {
        let live = AttemptsQuery {
            status: Some("live".to_owned()),
            limit: Some(MOST_LIVE),
            ..AttemptsQuery::default()
        };
        let list = self.config.client.attempts(&live).await?;
        let lease = |view: api::types::AttemptView| Some((view.attempt_id, view.lease_remaining_ms?));
        Ok(list.attempts.into_iter().filter_map(lease).collect())
    }

    /// Looks at every repository, and tells the control plane what was seen.
    async fn look_at_targets(
        &mut self,
        report: &mut Report,
    ) -> Result<BTreeMap<TargetId, TargetSight>, ClientError> {
        let targets = self.repositories.look(self.history.graph()).await;
        for (id, sight) in &targets {
            if let TargetSight::Problems(problems) = sight {
                let told = first_few(problems).into_iter();
                report.problems.extend(told.map(|problem| format!("target {id}: {problem}")));
            }
            let observation = self.observation(sight);
            self.config.client.observe_target(id, &observation).await?;
        }
        Ok(targets)
    }

    fn observation(&self, sight: &TargetSight) -> TargetObservation {
        let (base_commit, limits, problems) = match sight {
            TargetSight::Spec(spec) => {
                let limits = plan::limits(spec, &self.config.agent, self.config.budget_per_day);
                (Some(spec.commit.clone()), Some(limits), Vec::new())
            }
            TargetSight::Problems(problems) => (None, None, problems.clone()),
        };
        TargetObservation { at: now(), by: self.config.actor.clone(), base_commit, limits, problems }
    }

    /// Writes the completions of merged tasks back to the backlogs.
    async fn write_back(&mut self, sights: &Sights, report: &mut Report) -> Result<(), ClientError> {
        let mut write_backs = std::mem::take(&mut self.write_backs);
        let world = self.world(sights);
        for target in sights.targets.keys() {
            let Some(repository) = self.repositories.get(target) else { continue };
            let place = Place { config: &self.config, world: &world, target, repository };
            let (events, problems) = write_backs.write_back(place).await;
            report.problems.extend(problems.into_iter().map(|problem| format!("target {target}: {problem}")));
            if !events.is_empty() {
                act::record(&self.config.client, &self.config.fault, events).await?;
            }
        }
        self.write_backs = write_backs;
        self.history.catch_up(&self.config.client).await
    }

    /// Says what is newly wrong, once.
    fn show(&mut self, problems: Vec<String>) {
        let problems: BTreeSet<String> = problems.into_iter().collect();
        for problem in problems.difference(&self.shown) {
            tracing::warn!("{problem}");
        }
        self.shown = problems;
    }
}

/// A broken document is not copied into the log of this process in full; the control plane is told everything.
fn first_few(problems: &[String]) -> Vec<String> {
    const FEW: usize = 10;
    if problems.len() <= FEW {
        return problems.to_vec();
    }
    let more = problems.len() - FEW;
    let rest = format!("and {more} more problems: `leviathanctl targets-list` names each");
    problems.iter().take(FEW).cloned().chain([rest]).collect()
}

fn now() -> Timestamp {
    Timestamp::new(jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_of_many_problems_does_not_fill_the_log() {
        let problems = |count: usize| (1..=count).map(|n| format!("problem {n}")).collect::<Vec<_>>();
        assert_eq!(first_few(&problems(10)), problems(10));
        let told = first_few(&problems(500));
        assert_eq!(told[..10], problems(10));
        assert_eq!(told[10..], ["and 490 more problems: `leviathanctl targets-list` names each"]);
    }
}
