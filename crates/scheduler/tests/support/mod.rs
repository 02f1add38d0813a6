//! A log under construction and everything that a scheduler sees beside it, with verbs for what can happen.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::fmt::Write as _;
use std::sync::Arc;

use leviathan_scheduler::history::History;
use leviathan_scheduler::launch::ExecutorSight;
use leviathan_scheduler::plan::{self, Agent, Reconciliation, Sights, TargetSight, World, WriteBackStep};
use model::event::*;
use model::graph::Attempt;
use model::*;
use target::forge::PullRequestState;

/// How far an attempt came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Claimed,
    Started,
    Permitted,
    Verified,
    Pushed,
    Published,
    Completed,
}

#[derive(Debug, Clone)]
pub(crate) struct Story {
    events: Vec<Event>,
    tasks: Vec<(String, String, String)>,
    commit: CommitId,
    sights: (Option<TargetSight>, Option<ExecutorSight>, Option<u64>, Option<PullRequestState>),
    seconds: i64,
    in_cluster: bool,
}

const POLICY: &str = "scopes:\n  docs:\n    allowed_paths: ['docs/**']\n";
const CONTRACT: &str =
    "target_id: shop\nname: Shop\nrepo_url: file:///nowhere/shop.git\ndefault_branch: main\n";

pub(crate) fn commit(digit: char) -> CommitId {
    CommitId::parse(digit.to_string().repeat(40)).unwrap()
}

fn target() -> TargetId {
    TargetId::parse("shop").unwrap()
}

fn task(name: &str) -> TaskId {
    TaskId::parse(name).unwrap()
}

fn attempt_id() -> AttemptId {
    AttemptId::parse("attempt-1").unwrap()
}

impl Story {
    /// A registered target whose backlog holds these tasks, pending, and is known to the log.
    pub(crate) fn with_tasks(names: &[&str]) -> Self {
        let mut story = Self {
            events: Vec::new(),
            tasks: Vec::new(),
            commit: commit('b'),
            sights: (None, None, None, None),
            seconds: 1_000,
            in_cluster: false,
        };
        let registered = TargetRegistered {
            name: "Shop".to_owned(),
            repo_url: "file:///nowhere/shop.git".to_owned(),
            default_branch: "main".to_owned(),
            contract: CONTRACT.to_owned(),
            operator_policy: None,
            backlog: None,
            executor_image: None,
            source: None,
        };
        story.take(Subject::target(&target()), EventKind::TargetRegistered(registered));
        story.push_backlog(&names.iter().map(|name| (*name, "pending")).collect::<Vec<_>>());
        let plan = story.reconcile();
        story.record(&plan);
        story
    }

    /// Humans push another backlog: tasks with their status.
    pub(crate) fn push_backlog(&mut self, tasks: &[(&str, &str)]) {
        let digits = "0123456789abcdef".chars();
        let next = digits.cycle().skip_while(|digit| commit(*digit) != self.commit).nth(1).unwrap();
        self.push_backlog_at(commit(next), tasks);
    }

    pub(crate) fn push_backlog_at(&mut self, commit: CommitId, tasks: &[(&str, &str)]) {
        self.commit = commit;
        let title = |name: &str| format!("Title of {name}");
        self.tasks =
            tasks.iter().map(|(name, status)| ((*name).into(), (*status).into(), title(name))).collect();
        self.see_documents();
    }

    pub(crate) fn edit_title(&mut self, name: &str, title: &str) {
        for (_, _, old) in self.tasks.iter_mut().filter(|(id, ..)| id == name) {
            title.clone_into(old);
        }
        self.see_documents();
    }

    /// The same backlog, but not from the repository.
    pub(crate) fn register_backlog(&mut self) {
        let Some(TargetSight::Spec(spec)) = &self.sights.0 else { panic!("no documents are seen") };
        let spec = TargetSpec { backlog_is_registered: true, ..(**spec).clone() };
        self.sights.0 = Some(TargetSight::Spec(Arc::new(spec)));
    }

    pub(crate) fn break_documents(&mut self) {
        self.sights.0 = Some(TargetSight::Problems(vec!["backlog.yaml:1:1: broken".to_owned()]));
    }

    fn see_documents(&mut self) {
        let mut backlog = "tasks:\n".to_owned();
        if self.tasks.is_empty() {
            backlog = "tasks: []\n".to_owned();
        }
        for (name, status, title) in &self.tasks {
            writeln!(
                backlog,
                "  - task_id: {name}\n    title: {title}\n    scope: docs\n    allowed_paths: ['docs/**']\n    status: {status}"
            )
            .unwrap();
        }
        let document = |file, text| Document { file, content: Some(str::as_bytes(text)) };
        let documents = Documents {
            contract: document("contract.yaml", CONTRACT),
            backlog: document("backlog.yaml", &backlog),
            policy: document("policy.yaml", POLICY),
            operator_policy: None,
        };
        let spec = TargetSpec::parse(self.commit.clone(), &documents).unwrap();
        self.sights.0 = Some(TargetSight::Spec(Arc::new(spec)));
    }

    pub(crate) fn attempt(&mut self, name: &str, reached: Stage) {
        self.attempt_by(name, "scheduler@here", reached);
    }

    /// The first attempt, claimed by that scheduler.
    pub(crate) fn attempt_by(&mut self, name: &str, by: &str, reached: Stage) {
        let revision = self.history().graph().task(&target(), &task(name)).unwrap().facts.revision.clone();
        let created = AttemptCreated {
            n: 1,
            task_revision: revision,
            base_commit: self.commit.clone(),
            branch: BranchName::of_attempt(&task(name), 1),
            contract_digest: Digest::of(b"contract"),
            policy_digest: Digest::of(b"policy"),
            operator_policy_digest: None,
            agent: "claude".to_owned(),
            model: None,
            version: "0.1.0".to_owned(),
            timeout_seconds: 60,
            budget_micro_usd: None,
        };
        let subject = Subject::attempt(&target(), &task(name), &attempt_id());
        self.take_by(by, subject.clone(), EventKind::AttemptCreated(created));
        self.take_by(by, subject, claimed(1));
        self.go_on(name, reached);
    }

    /// The attempt that was claimed comes that far.
    pub(crate) fn go_on(&mut self, name: &str, reached: Stage) {
        let subject = Subject::attempt(&target(), &task(name), &attempt_id());
        let candidate = commit('c');
        let steps = [
            (Stage::Started, started(1)),
            (
                Stage::Permitted,
                EventKind::ChangePermitted(ChangePermitted {
                    round: 1,
                    candidate: candidate.clone(),
                    files: Vec::new(),
                    omitted: 0,
                    patch_bytes: 1,
                    ignored_files: 0,
                }),
            ),
            (
                Stage::Verified,
                EventKind::ChangeVerified(ChangeVerified {
                    candidate: candidate.clone(),
                    manifest: Digest::of(b"manifest"),
                }),
            ),
            (
                Stage::Pushed,
                EventKind::BranchPushed(BranchPushed {
                    branch: BranchName::of_attempt(&task(name), 1),
                    commit: candidate.clone(),
                }),
            ),
            (
                Stage::Published,
                EventKind::PrCreated(PrCreated {
                    number: 7,
                    url: "https://forge/7".to_owned(),
                    branch: BranchName::of_attempt(&task(name), 1),
                    commit: candidate,
                    title: "Title".to_owned(),
                }),
            ),
            (
                Stage::Completed,
                EventKind::AttemptCompleted(AttemptCompleted { duration_ms: 1, usage: Usage::default() }),
            ),
        ];
        for (stage, kind) in steps {
            if stage <= reached {
                self.take(subject.clone(), kind);
            }
        }
    }

    /// From here on the launcher sees every executor, as that of a cluster does.
    pub(crate) fn in_cluster(mut self) -> Self {
        self.in_cluster = true;
        self
    }

    /// The launch of the first epoch is recorded.
    pub(crate) fn launched(&mut self) {
        let (name, uid) = ("leviathan-attempt-1".to_owned(), "uid".to_owned());
        self.step(EventKind::AttemptLaunched(AttemptLaunched { epoch: Epoch(1), name, uid }));
    }

    /// Somebody says that the attempt is stopped: `executor` when it was told to stop.
    pub(crate) fn cancelled_by(&mut self, actor: &str) {
        let attempt = self.only_attempt();
        let subject = Subject::attempt(&attempt.target_id, &attempt.task_id, &attempt.id);
        let reason = Reason { reason: "told to stop".to_owned() };
        self.take_by(actor, subject, EventKind::AttemptCancelled(reason));
    }

    pub(crate) fn dispatched_again(&mut self, epoch: u32) {
        let attempt = self.only_attempt();
        let subject = Subject::attempt(&attempt.target_id, &attempt.task_id, &attempt.id);
        self.take_by("scheduler@here", subject, claimed(epoch));
    }

    pub(crate) fn step(&mut self, kind: EventKind) {
        let attempt = self.only_attempt();
        let subject = Subject::attempt(&attempt.target_id, &attempt.task_id, &attempt.id);
        self.take(subject, kind);
    }

    pub(crate) fn task_event(&mut self, name: &str, kind: EventKind) {
        self.take(Subject::task(&target(), &task(name)), kind);
    }

    pub(crate) fn fail(&mut self, stage: attempt::Stage, reason: FailureReason, detail: &str) {
        let detail = detail.to_owned();
        self.step(EventKind::AttemptFailed(AttemptFailed { stage, reason, detail, usage: Usage::default() }));
    }

    pub(crate) fn park_for(&mut self, seconds: i64) {
        let not_before = at(self.seconds + seconds);
        self.step(EventKind::PublishParked(PublishParked { reason: "asked to wait".to_owned(), not_before }));
    }

    pub(crate) fn pause(&mut self) {
        self.take(
            Subject::target(&target()),
            EventKind::SchedulerPaused(Reason { reason: "lunch".to_owned() }),
        );
    }

    pub(crate) fn resume(&mut self) {
        self.take(
            Subject::target(&target()),
            EventKind::SchedulerResumed(Reason { reason: "back".to_owned() }),
        );
    }

    /// What the launcher and the control plane say about the attempt.
    pub(crate) fn sees(&mut self, executor: Option<ExecutorSight>, lease: Option<u64>) {
        (self.sights.1, self.sights.2) = (executor, lease);
    }

    pub(crate) fn sees_pull_request(&mut self, state: PullRequestState) {
        self.sights.3 = Some(state);
    }

    pub(crate) fn merge_seen(&mut self) {
        let by = Some("alice".to_owned());
        self.sees_pull_request(PullRequestState::Merged { by, commit: commit('d'), approved_by: Vec::new() });
    }

    pub(crate) fn merge(&mut self) {
        self.merge_seen();
        let plan = self.reconcile();
        self.record(&plan);
    }

    pub(crate) fn pass_seconds(&mut self, seconds: i64) {
        self.seconds += seconds;
    }

    pub(crate) fn reconcile(&self) -> Reconciliation {
        self.reconcile_by("scheduler@here")
    }

    pub(crate) fn reconcile_by(&self, actor: &str) -> Reconciliation {
        self.with_world(actor, plan::reconcile)
    }

    /// The tasks that would be claimed now.
    pub(crate) fn chosen(&self) -> Vec<String> {
        let claims = self.with_world("scheduler@here", plan::claims);
        claims.into_iter().map(|claim| claim.task_id.to_string()).collect()
    }

    pub(crate) fn write_backs(&self) -> Vec<WriteBackStep> {
        let due = self.with_world("scheduler@here", |world| plan::write_backs(world, &target()));
        due.into_iter().map(|due| due.step).collect()
    }

    /// The control plane takes what was planned.
    pub(crate) fn record(&mut self, plan: &Reconciliation) {
        for bundle in &plan.record {
            self.history().graph().draft().take(bundle).unwrap();
            self.events.extend(bundle.iter().cloned());
        }
    }

    pub(crate) fn only_attempt(&self) -> Attempt {
        self.history().graph().attempt(&attempt_id()).unwrap().clone()
    }

    fn with_world<T>(&self, actor: &str, look: impl FnOnce(&World<'_>) -> T) -> T {
        let (target_sight, executor, lease, pull_request) = self.sights.clone();
        let sights = Sights {
            targets: target_sight.map(|sight| (target(), sight)).into_iter().collect(),
            executors: executor.map(|sight| (attempt_id(), sight)).into_iter().collect(),
            leases: lease.map(|lease| (attempt_id(), lease)).into_iter().collect(),
            pull_requests: pull_request.map(|state| (attempt_id(), state)).into_iter().collect(),
        };
        look(&World {
            sees_all_executors: self.in_cluster,
            now: at(self.seconds),
            actor: &ActorId::parse(actor).unwrap(),
            launcher: "worktree",
            agent: &Agent { choice: AgentChoice::Claude, model: None },
            budget_per_day: None,
            history: &self.history(),
            sights: &sights,
        })
    }

    fn history(&self) -> History {
        let mut history = History::default();
        self.events.iter().for_each(|event| history.apply(event));
        history
    }

    fn take(&mut self, subject: Subject, kind: EventKind) {
        self.take_by("executor", subject, kind);
    }

    fn take_by(&mut self, actor: &str, subject: Subject, kind: EventKind) {
        let event = Event {
            event_id: EventId::parse(format!("event-{}", self.events.len())).unwrap(),
            timestamp: at(self.seconds),
            actor_id: ActorId::parse(actor).unwrap(),
            subject,
            kind,
        };
        self.history().graph().admit(&event).unwrap();
        self.events.push(event);
    }
}

fn claimed(epoch: u32) -> EventKind {
    EventKind::AttemptClaimed(AttemptClaimed { epoch: Epoch(epoch), launcher: "worktree".to_owned() })
}

fn started(epoch: u32) -> EventKind {
    EventKind::AttemptStarted(AttemptStarted { epoch: Epoch(epoch), executor: "host/1".to_owned() })
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::new(jiff::Timestamp::from_second(seconds).unwrap())
}
