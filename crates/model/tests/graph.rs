//! The rules of an attempt's life: which event may follow which, and what the log means.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "the helpers of a test may panic like it"
)]

use leviathan_model::attempt::{AttemptState, FailureReason, Stage};
use leviathan_model::event::{
    AgentFinished, AttemptClaimed, AttemptCompleted, AttemptCreated, AttemptFailed, AttemptLaunched,
    AttemptStarted, BranchPushed, ChangePermitted, ChangeVerified, Event, EventKind, InvariantChecked,
    PrClosed, PrCreated, PrMerged, Reason, Subject, TargetRegistered, TargetRejected, TaskFacts, Timestamp,
    Usage,
};
use leviathan_model::graph::{Graph, Refusal};
use leviathan_model::select::{self, Selection, Spending, TargetLimits};
use leviathan_model::{
    ActorId, AttemptId, BranchName, CommitId, Digest, Epoch, EventId, Priority, Status, TargetId, TaskId,
};
use proptest::prelude::*;

const LIMITS: TargetLimits =
    TargetLimits { max_concurrent: 9, max_open_prs: 9, overlap_waits: false, spending: Spending::UNLIMITED };

/// A log under construction, with verbs for what can happen.
#[derive(Clone, Default)]
struct History {
    graph: Graph,
    events: Vec<Event>,
    seconds: i64,
}

fn target() -> TargetId {
    TargetId::parse("shop").unwrap()
}

fn task(name: &str) -> TaskId {
    TaskId::parse(name).unwrap()
}

fn attempt(n: usize) -> AttemptId {
    AttemptId::parse(format!("attempt-{n:04}")).unwrap()
}

fn commit(digit: char) -> CommitId {
    CommitId::parse(digit.to_string().repeat(40)).unwrap()
}

fn facts(name: &str, position: u32) -> TaskFacts {
    TaskFacts {
        revision: Digest::of(name.as_bytes()),
        commit: commit('b'),
        title: format!("Title of {name}"),
        scope: "docs".to_owned(),
        priority: Priority::Medium,
        position,
        status: Status::Pending,
        blocked_reason: None,
        depends_on: Vec::new(),
        allowed_paths: vec!["docs/**".to_owned()],
        max_attempts: 2,
        agent: None,
    }
}

fn reason(text: &str) -> Reason {
    Reason { reason: text.to_owned() }
}

fn failed(reason: FailureReason, detail: &str) -> EventKind {
    EventKind::AttemptFailed(AttemptFailed {
        stage: Stage::Agent,
        reason,
        detail: detail.to_owned(),
        usage: Usage::default(),
    })
}

fn claimed(epoch: u32) -> EventKind {
    EventKind::AttemptClaimed(AttemptClaimed { epoch: Epoch(epoch), launcher: "worktree".to_owned() })
}

fn registered() -> EventKind {
    EventKind::TargetRegistered(TargetRegistered {
        name: "Shop".to_owned(),
        repo_url: "file:///shop.git".to_owned(),
        default_branch: "main".to_owned(),
        contract: "target_id: shop".to_owned(),
        operator_policy: None,
        backlog: None,
        executor_image: None,
        source: None,
    })
}

fn rejected(source: &str, content: &str) -> EventKind {
    EventKind::TargetRejected(TargetRejected {
        source: source.to_owned(),
        digest: Digest::of(content.as_bytes()),
        problems: vec![format!("{source}: what is wrong with {content}")],
    })
}

fn launched(epoch: u32, uid: &str) -> EventKind {
    EventKind::AttemptLaunched(AttemptLaunched {
        epoch: Epoch(epoch),
        name: "leviathan-attempt-0001".to_owned(),
        uid: uid.to_owned(),
    })
}

fn started(epoch: u32) -> EventKind {
    EventKind::AttemptStarted(AttemptStarted { epoch: Epoch(epoch), executor: "host/1".to_owned() })
}

fn permitted(digit: char) -> EventKind {
    EventKind::ChangePermitted(ChangePermitted {
        round: 1,
        candidate: commit(digit),
        files: Vec::new(),
        omitted: 0,
        patch_bytes: 10,
        ignored_files: 0,
    })
}

fn checked(digit: char) -> EventKind {
    EventKind::InvariantPassed(InvariantChecked {
        round: 1,
        name: "Tests pass".to_owned(),
        check: "true".to_owned(),
        commit: commit(digit),
        outcome: "passed".to_owned(),
        duration_ms: 5,
        log: Digest::of(b""),
        log_bytes: 0,
    })
}

fn verified(digit: char) -> EventKind {
    EventKind::ChangeVerified(ChangeVerified { candidate: commit(digit), manifest: Digest::of(b"m") })
}

fn pushed(name: &str, digit: char) -> EventKind {
    EventKind::BranchPushed(BranchPushed {
        branch: BranchName::of_attempt(&task(name), 1),
        commit: commit(digit),
    })
}

fn opened(name: &str, digit: char) -> EventKind {
    EventKind::PrCreated(PrCreated {
        number: 7,
        url: "https://forge/7".to_owned(),
        branch: BranchName::of_attempt(&task(name), 1),
        commit: commit(digit),
        title: "Title".to_owned(),
    })
}

fn completed() -> EventKind {
    EventKind::AttemptCompleted(AttemptCompleted { duration_ms: 1, usage: Usage::default() })
}

fn merged() -> EventKind {
    EventKind::PrMerged(PrMerged {
        number: 7,
        by: "alice".to_owned(),
        commit: commit('d'),
        approved_by: vec!["bob".to_owned()],
    })
}

fn closed() -> EventKind {
    EventKind::PrClosed(PrClosed { number: 7, by: "alice".to_owned() })
}

impl History {
    fn with_tasks(names: &[&str]) -> Self {
        let mut history = Self::default();
        history.take(Subject::target(&target()), registered()).unwrap();
        for (position, name) in names.iter().enumerate() {
            history.task(name, EventKind::TaskCreated(facts(name, position as u32))).unwrap();
        }
        history
    }

    fn event(&mut self, subject: Subject, kind: EventKind) -> Event {
        self.seconds += 1;
        Event {
            event_id: EventId::parse(format!("e{}", self.seconds)).unwrap(),
            timestamp: self.now(),
            actor_id: ActorId::parse("tester").unwrap(),
            subject,
            kind,
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::new(jiff::Timestamp::from_second(1_800_000_000 + self.seconds).unwrap())
    }

    fn take(&mut self, subject: Subject, kind: EventKind) -> Result<(), Refusal> {
        let event = self.event(subject, kind);
        self.graph.admit(&event)?;
        self.graph.apply(&event);
        self.events.push(event);
        Ok(())
    }

    fn task(&mut self, name: &str, kind: EventKind) -> Result<(), Refusal> {
        self.take(Subject::task(&target(), &task(name)), kind)
    }

    fn step(&mut self, name: &str, n: usize, kind: EventKind) -> Result<(), Refusal> {
        self.take(Subject::attempt(&target(), &task(name), &attempt(n)), kind)
    }

    fn claim(&mut self, name: &str, n: usize) -> Result<(), Refusal> {
        let known = self.graph.task(&target(), &task(name));
        let next = known.map_or(0, |known| known.attempts.len()) as u32 + 1;
        let created = AttemptCreated {
            n: next,
            task_revision: known.map_or(Digest::of(b"none"), |known| known.facts.revision.clone()),
            base_commit: commit('b'),
            branch: BranchName::of_attempt(&task(name), next),
            contract_digest: Digest::of(b"c"),
            policy_digest: Digest::of(b"p"),
            operator_policy_digest: None,
            agent: "claude".to_owned(),
            model: None,
            version: "0.1.0".to_owned(),
            timeout_seconds: 60,
            budget_micro_usd: Some(DOLLAR),
        };
        self.step(name, n, EventKind::AttemptCreated(created))?;
        self.step(name, n, claimed(1))
    }

    /// The whole way to an open pull request.
    fn publish(&mut self, name: &str, n: usize) {
        self.claim(name, n).unwrap();
        let steps = [
            started(1),
            permitted('c'),
            checked('c'),
            verified('c'),
            pushed(name, 'c'),
            opened(name, 'c'),
            completed(),
        ];
        for kind in steps {
            self.step(name, n, kind).unwrap();
        }
    }

    fn select(&self) -> Selection {
        select::select(&self.graph, &target(), LIMITS, &commit('b'), self.now())
    }

    fn code(&self, name: &str) -> &'static str {
        let selection = self.select();
        selection
            .waiting
            .iter()
            .find(|(id, _)| *id == task(name))
            .map_or("chosen", |(_, reason)| reason.code())
    }

    fn state(&self, n: usize) -> AttemptState {
        self.graph.attempt(&attempt(n)).unwrap().state
    }
}

#[test]
fn the_whole_way_to_a_merge_and_nothing_twice() {
    let mut history = History::with_tasks(&["a"]);
    history.publish("a", 1);
    assert_eq!(history.state(1), AttemptState::Completed);
    assert_eq!(history.code("a"), "in_review");
    assert!(history.claim("a", 2).is_err(), "an open pull request keeps the task from running");
    history.step("a", 1, merged()).unwrap();
    assert_eq!(history.code("a"), "not_pending");
    assert!(history.step("a", 1, merged()).is_err());
    assert!(select::is_completed(&history.graph, &target(), &task("a")));
    assert_eq!(history.graph.counts().pull_requests, 1);
}

#[test]
fn no_step_is_skipped() {
    let way = [
        started(1),
        permitted('c'),
        verified('c'),
        pushed("a", 'c'),
        opened("a", 'c'),
        completed(),
        merged(),
    ];
    for skipped in 0..way.len() - 1 {
        let mut history = History::with_tasks(&["a"]);
        history.claim("a", 1).unwrap();
        for kind in &way[..skipped] {
            history.step("a", 1, kind.clone()).unwrap();
        }
        let refusal = history.step("a", 1, way[skipped + 1].clone());
        // A merge is known from the pull request, which may be seen before the executor reports its own end.
        let may_follow = matches!(way[skipped + 1], EventKind::PrMerged(_)) && skipped > 4;
        assert_eq!(refusal.is_ok(), may_follow, "{} after {skipped} steps", way[skipped + 1].event_type());
    }
}

#[test]
fn only_the_permitted_commit_is_checked_verified_pushed_and_proposed() {
    let mut history = History::with_tasks(&["a"]);
    history.claim("a", 1).unwrap();
    history.step("a", 1, started(1)).unwrap();
    history.step("a", 1, permitted('c')).unwrap();
    assert!(history.step("a", 1, checked('e')).is_err());
    assert!(history.step("a", 1, verified('e')).is_err());
    history.step("a", 1, verified('c')).unwrap();
    assert!(history.step("a", 1, permitted('e')).is_err(), "a verified change is final");
    assert!(history.step("a", 1, pushed("a", 'e')).is_err());
    assert!(history.step("a", 1, opened("a", 'c')).is_err(), "not before it is pushed");
}

#[test]
fn terminal_states_never_change() {
    let ends = [
        failed(FailureReason::NoChange, "x"),
        EventKind::AttemptCancelled(reason("stop")),
        EventKind::AttemptLost(reason("gone")),
        EventKind::AttemptSuperseded(reason("newer")),
    ];
    for end in &ends {
        let mut history = History::with_tasks(&["a"]);
        history.claim("a", 1).unwrap();
        history.step("a", 1, started(1)).unwrap();
        history.step("a", 1, end.clone()).unwrap();
        let state = history.state(1);
        for next in ends.iter().cloned().chain([
            started(1),
            claimed(2),
            permitted('c'),
            completed(),
            opened("a", 'c'),
        ]) {
            assert!(history.step("a", 1, next.clone()).is_err(), "{} after {state}", next.event_type());
            assert_eq!(history.state(1), state);
        }
    }
}

#[test]
fn an_invalidated_attempt_frees_its_task_and_keeps_its_state() {
    let mut history = History::with_tasks(&["a"]);
    history.claim("a", 1).unwrap();
    assert!(
        history.step("a", 1, EventKind::AttemptInvalidated(reason("x"))).is_err(),
        "a live one is stopped first"
    );
    history.step("a", 1, EventKind::AttemptCancelled(reason("stop"))).unwrap();
    assert_eq!(history.code("a"), "parked");
    history.step("a", 1, EventKind::AttemptInvalidated(reason("again"))).unwrap();
    assert_eq!((history.state(1), history.code("a")), (AttemptState::Cancelled, "chosen"));
    assert!(history.step("a", 1, EventKind::AttemptInvalidated(reason("again"))).is_err());
}

#[test]
fn one_live_attempt_a_task_whoever_asks() {
    let mut history = History::with_tasks(&["a"]);
    history.claim("a", 1).unwrap();
    assert!(matches!(history.claim("a", 2), Err(Refusal::IllegalTaskStep { .. })));
}

#[test]
fn nothing_more_is_claimed_of_an_unregistered_target_until_it_is_registered_again() {
    let mut history = History::with_tasks(&["a", "b"]);
    history.claim("a", 1).unwrap();
    let about = Subject::target(&target());
    history.take(about.clone(), EventKind::TargetUnregistered(reason("moved"))).unwrap();
    assert_eq!((history.code("a"), history.code("b")), ("running", "unregistered"));
    let refusal = history.claim("b", 2).unwrap_err().to_string();
    assert!(refusal.contains("its target is unregistered"), "{refusal}");
    history.step("a", 1, started(1)).unwrap();
    history.take(about, registered()).unwrap();
    assert_eq!(history.code("b"), "chosen");
    history.claim("b", 2).unwrap();
    assert_eq!(history.graph.counts().targets, 1);
}

#[test]
fn a_rejection_changes_nothing_and_is_known_until_its_target_is_registered() {
    let mut history = History::with_tasks(&["a"]);
    let known =
        |history: &History, source| history.graph.rejection(source).map(|it| it.rejected.digest.clone());
    history.take(Subject::everything(), rejected("broken", "x")).unwrap();
    history.take(Subject::target(&target()), rejected("shop", "x")).unwrap();
    history.take(Subject::target(&target()), rejected("shop", "y")).unwrap();
    assert_eq!(history.code("a"), "chosen");
    assert_eq!(known(&history, "shop"), Some(Digest::of(b"y")), "the last of each source counts");
    history.take(Subject::target(&target()), registered()).unwrap();
    assert_eq!((known(&history, "shop"), known(&history, "broken")), (None, Some(Digest::of(b"x"))));
    let elsewhere = Subject::target(&TargetId::parse("other").unwrap());
    assert!(matches!(history.take(elsewhere, rejected("other", "x")), Err(Refusal::UnknownTarget(_))));
}

#[test]
fn a_launch_is_known_in_any_live_state_and_moves_none() {
    let mut history = History::with_tasks(&["a"]);
    history.claim("a", 1).unwrap();
    for (n, kind) in [started(1), permitted('c'), verified('c')].into_iter().enumerate() {
        let (uid, state) = (format!("uid-{n}"), history.state(1));
        history.step("a", 1, launched(1, &uid)).unwrap();
        let last = history.graph.attempt(&attempt(1)).unwrap().launched.clone().unwrap();
        assert_eq!((history.state(1), last.uid), (state, uid));
        history.step("a", 1, kind).unwrap();
    }
    assert!(history.step("a", 1, launched(2, "x")).is_err(), "only for the epoch it was handed");
    history.step("a", 1, EventKind::AttemptLost(reason("gone"))).unwrap();
    assert!(history.step("a", 1, launched(1, "x")).is_err(), "not after its end");
}

#[test]
fn a_stale_epoch_is_refused() {
    let mut history = History::with_tasks(&["a"]);
    history.claim("a", 1).unwrap();
    assert!(history.step("a", 1, claimed(1)).is_err());
    assert!(history.step("a", 1, claimed(3)).is_err());
    history.step("a", 1, claimed(2)).unwrap();
    assert!(history.step("a", 1, started(1)).is_err(), "the executor of the first epoch is fenced");
    history.step("a", 1, started(2)).unwrap();
}

#[test]
fn events_about_unknown_things_are_refused() {
    let mut history = History::with_tasks(&["a", "b"]);
    assert!(matches!(history.step("a", 1, started(1)), Err(Refusal::UnknownAttempt(_))));
    assert!(matches!(history.claim("zzz", 1), Err(Refusal::UnknownTask { .. })));
    history.claim("a", 1).unwrap();
    assert!(matches!(history.step("b", 1, started(1)), Err(Refusal::OtherSubject(_))));
    let elsewhere = Subject::task(&TargetId::parse("other").unwrap(), &task("a"));
    assert!(matches!(
        history.take(elsewhere, EventKind::TaskCreated(facts("a", 0))),
        Err(Refusal::UnknownTarget(_))
    ));
}

#[test]
fn failures_decide_what_happens_next() {
    let rows: &[(&[(FailureReason, &str)], &str)] = &[
        (&[(FailureReason::ScopeViolation, "x")], "chosen"),
        (&[(FailureReason::ScopeViolation, "x"), (FailureReason::NoChange, "y")], "parked"),
        (&[(FailureReason::ProviderUnavailable, "529")], "backoff"),
        (&[(FailureReason::InvariantFailedOnBase, "tests")], "config_invalid"),
        (&[(FailureReason::ConfigInvalid, "x")], "config_invalid"),
    ];
    for (failures, expected) in rows {
        let mut history = History::with_tasks(&["a"]);
        for (n, (reason, detail)) in failures.iter().enumerate() {
            history.claim("a", n).unwrap();
            history.step("a", n, failed(*reason, detail)).unwrap();
        }
        assert_eq!(history.code("a"), *expected, "{failures:?}");
    }
}

#[test]
fn infrastructure_is_retried_with_growing_pauses_and_then_parked() {
    let mut history = History::with_tasks(&["a"]);
    let mut pauses = Vec::new();
    for n in 1..=4 {
        history.claim("a", n).unwrap();
        history.step("a", n, EventKind::AttemptLost(reason("node gone"))).unwrap();
        let failed_at = history.seconds;
        while history.code("a") == "backoff" {
            history.seconds += 1;
        }
        pauses.push(history.seconds - failed_at);
    }
    assert_eq!(history.code("a"), "parked");
    assert!(pauses[0] >= 30 && pauses[1] >= 60 && pauses[2] >= 120, "{pauses:?}");
}

#[test]
fn a_configuration_failure_waits_for_the_base_to_move() {
    let mut history = History::with_tasks(&["a"]);
    history.claim("a", 1).unwrap();
    history.step("a", 1, failed(FailureReason::InvariantFailedOnBase, "tests")).unwrap();
    let select = |base| select::select(&history.graph, &target(), LIMITS, &commit(base), history.now());
    assert_eq!(select('b').chosen, []);
    assert_eq!(select('e').chosen, [task("a")]);
}

#[test]
fn editing_a_task_arms_it_again() {
    let mut history = History::with_tasks(&["a"]);
    history.publish("a", 1);
    history.step("a", 1, closed()).unwrap();
    assert_eq!(history.code("a"), "declined");
    let edited = TaskFacts { revision: Digest::of(b"edited"), ..facts("a", 0) };
    history.task("a", EventKind::TaskUpdated(edited)).unwrap();
    assert_eq!(history.code("a"), "chosen");
}

#[test]
fn the_humans_word_in_the_backlog_always_wins() {
    for (status, code) in [(Status::Blocked, "blocked"), (Status::Completed, "not_pending")] {
        let mut history = History::with_tasks(&["a"]);
        history.claim("a", 1).unwrap();
        history.task("a", EventKind::TaskUpdated(TaskFacts { status, ..facts("a", 0) })).unwrap();
        assert_eq!(history.code("a"), code);
    }
}

#[test]
fn the_most_urgent_pending_tasks_come_first_and_the_rest_say_why_they_wait() {
    let mut history = History::with_tasks(&["low", "first", "second", "high", "later"]);
    let update = |priority, position, name: &str| {
        EventKind::TaskUpdated(TaskFacts { priority, ..facts(name, position) })
    };
    history.task("low", update(Priority::Low, 0, "low")).unwrap();
    history.task("high", update(Priority::High, 3, "high")).unwrap();
    let later = TaskFacts { depends_on: vec![task("low")], ..facts("later", 4) };
    history.task("later", EventKind::TaskUpdated(later)).unwrap();
    let limits = TargetLimits {
        max_concurrent: 2,
        max_open_prs: 3,
        overlap_waits: false,
        spending: Spending::UNLIMITED,
    };
    let selection = select::select(&history.graph, &target(), limits, &commit('b'), history.now());
    assert_eq!(selection.chosen, [task("high"), task("first")]);
    let reasons: Vec<_> = selection.waiting.iter().map(|(id, reason)| (id.as_str(), reason.code())).collect();
    assert_eq!(reasons, [("low", "max_concurrent"), ("second", "max_concurrent"), ("later", "dependency")]);
}

#[test]
fn open_pull_requests_and_attempts_under_way_share_one_limit() {
    let mut history = History::with_tasks(&["a", "b", "c"]);
    history.publish("a", 1);
    history.claim("b", 2).unwrap();
    let limits = TargetLimits {
        max_concurrent: 9,
        max_open_prs: 2,
        overlap_waits: false,
        spending: Spending::UNLIMITED,
    };
    let selection = select::select(&history.graph, &target(), limits, &commit('b'), history.now());
    assert_eq!(selection.chosen, []);
    assert_eq!(selection.waiting[2].1.code(), "max_open_prs");
}

/// In millionths; what each attempt here may cost.
const DOLLAR: u64 = 1_000_000;

fn spent(cost_micro_usd: u64) -> Usage {
    Usage { cost_micro_usd, ..Usage::default() }
}

fn finished(cost_micro_usd: u64) -> EventKind {
    EventKind::AgentFinished(AgentFinished {
        round: 1,
        summary: "done".to_owned(),
        duration_ms: 1,
        usage: spent(cost_micro_usd),
    })
}

#[test]
fn an_attempt_sets_all_aside_that_it_may_cost_until_that_is_known() {
    let committed = |history: &History| history.graph.committed_since(history.now(), None);
    let mut history = History::with_tasks(&["a"]);
    let midnight = Timestamp::new(jiff::Timestamp::from_second(1_800_000_000).unwrap());
    history.claim("a", 1).unwrap();
    assert_eq!(history.graph.committed_since(midnight, Some(&target())), DOLLAR);
    assert_eq!(history.graph.committed_since(midnight, Some(&TargetId::parse("other").unwrap())), 0);
    assert_eq!(committed(&history), 0, "it was claimed before");
    let committed = |history: &History| history.graph.committed_since(midnight, None);
    history.step("a", 1, started(1)).unwrap();
    history.step("a", 1, finished(DOLLAR / 5)).unwrap();
    assert_eq!(committed(&history), DOLLAR, "another round may follow");

    let mut failing = history.clone();
    let failure = AttemptFailed {
        stage: Stage::Agent,
        reason: FailureReason::Stuck,
        detail: "stuck".to_owned(),
        usage: spent(DOLLAR / 2),
    };
    failing.step("a", 1, EventKind::AttemptFailed(failure)).unwrap();
    assert_eq!(committed(&failing), DOLLAR / 2, "the round that failed cost something too");
    assert_eq!(failing.graph.counts().cost_micro_usd, DOLLAR / 2);

    let mut lost = history.clone();
    lost.step("a", 1, EventKind::AttemptLost(reason("gone"))).unwrap();
    assert_eq!(committed(&lost), DOLLAR, "nobody knows what it had spent");

    history.step("a", 1, permitted('c')).unwrap();
    history.step("a", 1, verified('c')).unwrap();
    assert_eq!(committed(&history), DOLLAR / 5, "the agent is done");
}

#[test]
fn what_may_be_spent_is_never_overrun_by_a_claim() {
    let spending = |name: &str, dollars: u64| {
        let budget = Some(dollars * DOLLAR);
        let none =
            Spending { per_attempt_micro_usd: DOLLAR, is_paid_by_default: true, ..Spending::UNLIMITED };
        match name {
            "task" => Spending { per_task_micro_usd: budget, ..none },
            "day" => Spending { per_day_micro_usd: budget, ..none },
            _ => Spending { everything_per_day_micro_usd: budget, ..none },
        }
    };
    let code = |history: &History, spending, name: &str, at: Timestamp| {
        let limits = TargetLimits { spending, ..LIMITS };
        let known = history.graph.task(&target(), &task(name)).unwrap();
        let claimable = select::claimable(&history.graph, &target(), known, limits, &commit('b'), at);
        claimable.map_or_else(|reason| reason.code(), |()| "chosen")
    };
    let mut history = History::with_tasks(&["a", "b", "free"]);
    let free = TaskFacts { agent: Some("command: true".to_owned()), ..facts("free", 2) };
    history.task("free", EventKind::TaskUpdated(free)).unwrap();
    history.claim("a", 1).unwrap();
    history.step("a", 1, started(1)).unwrap();
    let now = history.now();
    for name in ["day", "everything"] {
        assert_eq!(code(&history, spending(name, 1), "b", now), "budget_spent");
        assert_eq!(code(&history, spending(name, 2), "b", now), "chosen");
        assert_eq!(code(&history, spending(name, 0), "free", now), "chosen", "nobody is paid for it");
        let tomorrow = Timestamp::new(now.moment() + jiff::SignedDuration::from_hours(24));
        assert_eq!(code(&history, spending(name, 1), "b", tomorrow), "chosen");
    }
    assert_eq!(code(&history, spending("task", 1), "b", now), "chosen", "another task has its own");
    // The same attempt twice over: what is left of the task's budget does not do for another.
    let failure = AttemptFailed {
        stage: Stage::Agent,
        reason: FailureReason::NoChange,
        detail: "nothing".to_owned(),
        usage: spent(DOLLAR / 2),
    };
    history.step("a", 1, EventKind::AttemptFailed(failure)).unwrap();
    assert_eq!(code(&history, spending("task", 1), "a", now), "budget_spent");
    assert_eq!(code(&history, spending("task", 2), "a", now), "chosen");
    let edited = TaskFacts { revision: Digest::of(b"edited"), ..facts("a", 0) };
    history.task("a", EventKind::TaskUpdated(edited)).unwrap();
    assert_eq!(code(&history, spending("task", 1), "a", now), "chosen");
    // Those chosen in one look share what there is.
    let limits = TargetLimits { spending: spending("day", 2), ..LIMITS };
    let selection = select::select(&history.graph, &target(), limits, &commit('b'), history.now());
    assert_eq!(selection.chosen, [task("a"), task("free")]);
    assert_eq!(selection.waiting[0].1.code(), "budget_spent");
    let told = selection.waiting[0].1.to_string();
    assert!(told.contains("2.00 dollars") && told.contains("budget_usd_per_day"), "{told}");
}

#[test]
fn with_overlap_waits_a_task_waits_for_whoever_could_touch_its_files() {
    let limits = TargetLimits { overlap_waits: true, ..LIMITS };
    let rows = [
        (vec!["src/**"], "ready"),
        (vec!["docs/a.md"], "paths_overlap"),
        (vec!["src/**", "docs/*.txt"], "paths_overlap"),
        (vec![], "ready"),
    ];
    for (allowed_paths, expected) in rows {
        let mut history = History::with_tasks(&["a", "b"]);
        let allowed_paths = allowed_paths.into_iter().map(str::to_owned).collect();
        history.task("b", EventKind::TaskUpdated(TaskFacts { allowed_paths, ..facts("b", 1) })).unwrap();
        history.claim("a", 1).unwrap();
        let selection = select::select(&history.graph, &target(), limits, &commit('b'), history.now());
        let reason = selection.waiting.iter().find(|(id, _)| *id == task("b")).map(|(_, why)| why.code());
        assert_eq!(reason.unwrap_or("ready"), expected);
    }

    // An open pull request counts by the files it really changes: here none.
    let mut history = History::with_tasks(&["a", "b"]);
    history.publish("a", 1);
    let selection = select::select(&history.graph, &target(), limits, &commit('b'), history.now());
    assert_eq!(selection.chosen, [task("b")]);
}

#[test]
fn a_pause_stops_what_was_not_begun() {
    let mut history = History::with_tasks(&["a"]);
    history.take(Subject::everything(), EventKind::SchedulerPaused(reason("incident"))).unwrap();
    assert_eq!(history.code("a"), "paused");
    history.take(Subject::everything(), EventKind::SchedulerResumed(reason("over"))).unwrap();
    assert_eq!(history.code("a"), "chosen");
    history.take(Subject::target(&target()), EventKind::SchedulerPaused(reason("budget"))).unwrap();
    assert_eq!(history.code("a"), "paused");
}

#[test]
fn a_bundle_is_tried_as_a_whole() {
    let mut history = History::with_tasks(&["a"]);
    history.claim("a", 1).unwrap();
    let subject = Subject::attempt(&target(), &task("a"), &attempt(1));
    let good = [
        history.event(subject.clone(), started(1)),
        history.event(subject.clone(), EventKind::AttemptCancelled(reason("stop"))),
        history.event(subject.clone(), EventKind::AttemptInvalidated(reason("stop"))),
    ];
    assert_eq!(history.graph.draft().take(&good), Ok(()));
    let bad = [good[1].clone(), history.event(subject, started(1))];
    assert_eq!(history.graph.draft().take(&bad).unwrap_err().0, 1);
    assert_eq!(history.state(1), AttemptState::Created, "trying changes nothing");
}

fn any_step() -> impl Strategy<Value = (usize, usize, EventKind)> {
    let kinds = prop_oneof![
        Just(started(1)),
        Just(started(2)),
        Just(claimed(2)),
        Just(permitted('c')),
        Just(permitted('e')),
        Just(checked('c')),
        Just(verified('c')),
        Just(pushed("a", 'c')),
        Just(opened("a", 'c')),
        Just(completed()),
        Just(merged()),
        Just(closed()),
        Just(failed(FailureReason::ScopeViolation, "x")),
        Just(EventKind::AttemptCancelled(reason("stop"))),
        Just(EventKind::AttemptLost(reason("gone"))),
        Just(EventKind::AttemptInvalidated(reason("void"))),
        Just(EventKind::AgentFinished(AgentFinished {
            round: 1,
            summary: String::new(),
            duration_ms: 1,
            usage: Usage { cost_micro_usd: 3, ..Usage::default() },
        })),
        // Stands for a claim; see below.
        Just(claimed(1)),
    ];
    (0..2_usize, 1..6_usize, kinds)
}

proptest! {
    #[test]
    fn whatever_is_sent_the_graph_stays_sound(steps in proptest::collection::vec(any_step(), 0..120)) {
        let names = ["a", "b"];
        let mut history = History::with_tasks(&names);
        for (which, n, kind) in steps {
            let before: Vec<_> = history.graph.attempts().map(|a| (a.id.clone(), a.state)).collect();
            // A refusal is as good an outcome as any; what counts is the graph afterwards.
            let _ = match &kind {
                EventKind::AttemptClaimed(claim) if claim.epoch == Epoch(1) => history.claim(names[which], n),
                _ => history.step(names[which], n, kind),
            };
            for (id, state) in before {
                let now = history.graph.attempt(&id).unwrap().state;
                prop_assert!(now == state || !state.is_terminal(), "{state} became {now}");
            }
            for name in names {
                let task = history.graph.task(&target(), &task(name)).unwrap();
                let live = history.graph.attempts_at(task).filter(|a| !a.state.is_terminal()).count();
                let open = history.graph.attempts_at(task).filter(|a| a.is_in_review()).count();
                prop_assert!(live <= 1 && open <= 1, "{live} live, {open} open");
            }
        }
        let shop = history.graph.target(&target()).unwrap();
        let live: std::collections::BTreeSet<_> = history.graph.attempts().filter(|a| !a.state.is_terminal()).map(|a| &a.id).collect();
        prop_assert_eq!(shop.live.iter().collect::<std::collections::BTreeSet<_>>(), live);
        let counted: u64 = history.graph.counts().attempts_by_state.values().sum();
        prop_assert_eq!(counted, history.graph.attempts().count() as u64);
        // The same events, read again, give the same graph; and as one bundle they are admitted as one by one.
        let mut again = Graph::default();
        for event in &history.events {
            again.apply(event);
        }
        prop_assert_eq!(format!("{again:?}"), format!("{:?}", history.graph));
        prop_assert_eq!(Graph::default().draft().take(&history.events), Ok(()));
        // A draft judges what is on top of it as the graph itself would.
        let (nothing, base) = (Graph::default(), history.events.len() / 2);
        let mut from_nothing = nothing.draft();
        let mut half = Graph::default();
        history.events[..base].iter().for_each(|event| half.apply(event));
        let mut from_half = half.draft();
        for (n, event) in history.events.iter().enumerate() {
            prop_assert_eq!(from_nothing.take(std::slice::from_ref(event)), Ok(()));
            if n >= base {
                prop_assert_eq!(from_half.take(std::slice::from_ref(event)), Ok(()));
            }
        }
        for event in &history.events {
            let verdict = history.graph.admit(event);
            let judged = from_half.take(std::slice::from_ref(event)).map_err(|(_, refusal)| refusal);
            prop_assert_eq!(&judged, &verdict);
            prop_assert_eq!(&from_nothing.take(std::slice::from_ref(event)).map_err(|(_, refusal)| refusal), &verdict);
            if verdict.is_ok() {
                history.graph.apply(event);
            }
        }
    }
}
