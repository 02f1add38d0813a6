//! Asking what happened.

use api::types::{AttemptsQuery, EventsQuery, RegisterTarget, TasksQuery};
use model::AttemptState;

use crate::support::*;

#[tokio::test]
async fn the_log_is_read_in_pages_and_by_filters() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await.with_tasks(&["t1", "t2"]).await;
    let one = plane.claim("t1").await.unwrap().attempt_id;
    plane.client.ingest(vec![paused("a"), step(&one, "t1", "attempt.started")]).await.unwrap();
    let all = plane.client.events(&EventsQuery::default()).await.unwrap();
    assert_eq!((all.events.len(), all.head, all.next_after), (7, 7, 7));

    let mut paged = Vec::new();
    let mut after = 0;
    loop {
        let query = EventsQuery { after: Some(after), limit: Some(3), ..Default::default() };
        let page = plane.client.events(&query).await.unwrap();
        if page.events.is_empty() {
            break;
        }
        assert!(page.next_after > after);
        after = page.next_after;
        paged.extend(page.events);
    }
    assert_eq!(paged, all.events);

    let seqs = async |query: EventsQuery| {
        let page = plane.client.events(&query).await.unwrap();
        page.events.iter().map(|event| event.seq.0).collect::<Vec<_>>()
    };
    let none = EventsQuery::default;
    assert_eq!(seqs(EventsQuery { target: Some(target()), ..none() }).await, [1, 2, 3, 4, 5, 7]);
    assert_eq!(seqs(EventsQuery { task: Some(task("t1")), ..none() }).await, [2, 4, 5, 7]);
    assert_eq!(seqs(EventsQuery { attempt: Some(one.clone()), ..none() }).await, [4, 5, 7]);
    assert_eq!(seqs(EventsQuery { event_type: Some("scheduler.paused".into()), ..none() }).await, [6]);
    let started = EventsQuery { attempt: Some(one), event_type: Some("attempt.started".into()), ..none() };
    assert_eq!(seqs(started).await, [7]);
    assert_eq!(seqs(EventsQuery { newest: Some(true), limit: Some(2), ..none() }).await, [6, 7]);
    assert_eq!(seqs(EventsQuery { task: Some(task("t2")), newest: Some(true), ..none() }).await, [3]);
    assert_eq!(seqs(EventsQuery { after: Some(99), ..none() }).await, [0_u64; 0]);
    // The events of the test say midnight of 2026-01-01, and those that the control plane made itself a later time.
    let (then, later) = ("2026-01-01T00:00:00Z".parse().unwrap(), "2026-01-01T00:00:01Z".parse().unwrap());
    assert_eq!(seqs(EventsQuery { until: Some(later), ..none() }).await, [2, 3, 6, 7]);
    assert_eq!(seqs(EventsQuery { since: Some(later), ..none() }).await, [1, 4, 5]);
    assert_eq!(seqs(EventsQuery { until: Some(then), ..none() }).await, [0_u64; 0]);
    assert_eq!(
        seqs(EventsQuery {
            since: Some(then),
            until: Some(later),
            task: Some(task("t1")),
            newest: Some(true),
            limit: Some(1),
            ..none()
        })
        .await,
        [7]
    );
    let (status, _, text) = refusal(
        plane.client.events(&EventsQuery { event_type: Some("task.invented".into()), ..none() }).await,
    );
    assert!(status == 422 && text.contains("attempt.created"), "{text}");
    plane.stop().await;
}

#[tokio::test]
async fn a_page_is_never_larger_than_a_few_megabytes() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await;
    let long = "x".repeat(200_000);
    for _ in 0..5 {
        plane.client.ingest((0..15).map(|_| paused(&long)).collect()).await.unwrap();
    }
    let mut seen = 0;
    let mut pages = 0;
    while seen < 75 {
        let query = EventsQuery { after: Some(seen), ..Default::default() };
        let page = plane.client.events(&query).await.unwrap();
        assert!((1..45).contains(&page.events.len()), "{}", page.events.len());
        seen = page.next_after;
        pages += 1;
    }
    assert!(pages >= 2);
    let newest = EventsQuery { newest: Some(true), ..Default::default() };
    let page = plane.client.events(&newest).await.unwrap();
    assert!(page.events.len() < 45 && page.events.last().unwrap().seq.0 == 75);
    plane.stop().await;
}

#[tokio::test]
async fn attempts_are_listed_newest_first_by_target_task_and_status() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await.with_tasks(&["t1", "t2", "t3"]).await;
    for name in ["t1", "t2", "t3"] {
        plane.claim(name).await.unwrap();
    }
    let all = plane.client.attempts(&AttemptsQuery::default()).await.unwrap();
    assert_eq!((all.count, all.total), (3, 3));
    assert!(all.attempts.windows(2).all(|pair| pair[0].timestamp >= pair[1].timestamp));
    assert!(all.attempts.iter().all(|attempt| attempt.lease_remaining_ms.is_some_and(|ms| ms > 60_000)));
    let failed = all.attempts[0].clone();
    plane
        .client
        .ingest(vec![step(&failed.attempt_id, failed.task_id.as_str(), "attempt.failed")])
        .await
        .unwrap();

    let listed = async |query: AttemptsQuery| plane.client.attempts(&query).await.unwrap();
    let none = AttemptsQuery::default;
    let live = listed(AttemptsQuery { status: Some("live".into()), limit: Some(1), ..none() }).await;
    assert_eq!((live.count, live.total), (1, 2));
    let failed_now = listed(AttemptsQuery { status: Some("failed".into()), ..none() }).await;
    assert_eq!(failed_now.attempts[0].state, AttemptState::Failed);
    assert_eq!(listed(AttemptsQuery { task: Some(task("t1")), ..none() }).await.total, 1);
    let elsewhere = model::TargetId::parse("elsewhere").unwrap();
    assert_eq!(listed(AttemptsQuery { target: Some(elsewhere), ..none() }).await.total, 0);
    let (status, _, text) =
        refusal(plane.client.attempts(&AttemptsQuery { status: Some("done".into()), ..none() }).await);
    assert!(status == 422 && text.contains("completed"), "{text}");
    plane.stop().await;
}

#[tokio::test]
async fn each_task_says_why_it_waits() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await.with_tasks(&["t1", "t2"]).await;
    let reasons = async || {
        let tasks = plane.client.tasks(&TasksQuery { target: Some(target()) }).await.unwrap().tasks;
        tasks.into_iter().map(|task| (task.state, task.reason)).collect::<Vec<_>>()
    };
    let row = |state: &str, reason: Option<&str>| (state.to_owned(), reason.map(str::to_owned));
    assert_eq!(reasons().await, [row("pending", None), row("pending", None)]);
    plane.client.observe_target(&target(), &observation(&[])).await.unwrap();
    assert_eq!(reasons().await, [row("pending", None), row("pending", Some("max_concurrent"))]);
    plane.claim("t1").await.unwrap();
    assert_eq!(reasons().await[0], row("running", Some("running")));
    plane.client.observe_target(&target(), &observation(&["policy.yaml:3:1: no"])).await.unwrap();
    assert_eq!(reasons().await[1], row("pending", Some("config_invalid")));
    let listed = &plane.client.targets().await.unwrap().targets[0];
    assert_eq!(listed.observation.as_ref().unwrap().problems, ["policy.yaml:3:1: no"]);
    assert_eq!((listed.live_attempts, listed.open_pull_requests), (1, 0));

    let many: Vec<String> = (1..=500).map(|line| format!("backlog.yaml:{line}:1: no")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    plane.client.observe_target(&target(), &observation(&many)).await.unwrap();
    let tasks = plane.client.tasks(&TasksQuery::default()).await.unwrap().tasks;
    let expected = "backlog.yaml:1:1: no (and 499 more: `leviathanctl targets-list` names each)";
    assert_eq!(tasks[1].detail.as_deref(), Some(expected));
    plane.stop().await;
}

#[tokio::test]
async fn a_target_is_registered_once_and_wrongly_never() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await;
    let register = async |contract: String, policy: Option<&str>| {
        let operator_policy = policy.map(str::to_owned);
        plane
            .client
            .register_target(&RegisterTarget { operator_policy, ..RegisterTarget::of_contract(contract) })
            .await
    };
    assert!(register(contract("shop"), None).await.unwrap().changed);
    assert!(!register(contract("shop"), None).await.unwrap().changed);
    assert!(register(contract("shop").replace("A shop", "The shop"), None).await.unwrap().changed);
    for (text, policy, problem) in [
        ("x: 1".to_owned(), None, "contract.yaml:1:1"),
        (contract("../etc"), None, "target_id"),
        (contract("shop"), Some("scopes: 1\n"), "policy.yaml:1"),
    ] {
        let (status, _, found) = refusal(register(text, policy).await);
        assert!(status == 422 && found.contains(problem), "{found}");
    }
    assert_eq!(head(&plane.client).await, 2);
    plane.stop().await;
}
