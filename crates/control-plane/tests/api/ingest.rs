//! What is recorded, once, whole, or not at all.

use api::ErrorCode;
use api::types::EventsQuery;
use model::Seq;
use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn an_answer_means_that_it_outlives_the_process() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await.with_tasks(&["t1", "t2"]).await;
    let before = plane.client.events(&EventsQuery::default()).await.unwrap();
    assert_eq!(before.events.iter().map(|e| e.seq.0).collect::<Vec<_>>(), [1, 2, 3]);
    plane.stop().await;

    let plane = Plane::start(data.path()).await;
    assert_eq!(plane.client.events(&EventsQuery::default()).await.unwrap(), before);
    let ready = plane.client.readiness().await.unwrap();
    assert_eq!((ready.status.as_str(), ready.head, ready.verified_to), ("ready", 3, 3));
    plane.stop().await;
}

#[tokio::test]
async fn the_same_event_again_is_answered_with_its_first_place() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await;
    let (a, b, c) = (paused("a"), paused("b"), paused("c"));
    let first = plane.client.ingest(vec![a.clone(), b.clone()]).await.unwrap();
    assert_eq!((first.ingested, first.duplicates, first.seqs), (2, 0, vec![Seq(1), Seq(2)]));
    let again = plane.client.ingest(vec![b.clone(), c.clone(), a, c]).await.unwrap();
    assert_eq!((again.ingested, again.duplicates), (1, 3));
    assert_eq!(again.seqs, [Seq(2), Seq(3), Seq(1), Seq(3)]);
    plane.stop().await;

    let plane = Plane::start(data.path()).await;
    let after_restart = plane.client.ingest(vec![b]).await.unwrap();
    assert_eq!((after_restart.ingested, after_restart.seqs), (0, vec![Seq(2)]));
    plane.stop().await;
}

#[tokio::test]
async fn the_same_id_with_another_body_is_a_conflict_and_nothing_is_kept() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await;
    let recorded = paused("a");
    plane.client.ingest(vec![recorded.clone()]).await.unwrap();
    let mut changed = paused("b");
    changed.event_id = recorded.event_id.clone();
    let (status, code, text) = refusal(plane.client.ingest(vec![paused("new"), changed]).await);
    assert_eq!((status, code), (409, ErrorCode::EventConflict));
    assert!(text.contains(recorded.event_id.as_str()) && text.contains("number 1"), "{text}");

    let (mut one, mut other) = (paused("x"), paused("y"));
    one.event_id = model::EventId::parse("twice").unwrap();
    other.event_id = one.event_id.clone();
    let (status, _, text) = refusal(plane.client.ingest(vec![one, other]).await);
    assert!(status == 422 && text.contains("twice"), "{text}");
    assert_eq!(head(&plane.client).await, 1);
    plane.stop().await;
}

#[tokio::test]
async fn one_invalid_event_refuses_its_bundle_by_name() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await;
    let good = serde_json::to_string(&paused("good")).unwrap();
    let bad = |payload: &str| {
        format!(
            r#"{{"event_id":"bad-one","event_type":"scheduler.paused","timestamp":"2026-01-01T00:00:00Z","actor_id":"operator","payload":{payload}}}"#
        )
    };
    let deep = format!(r#"{{"reason":{}1{}}}"#, "[".repeat(100), "]".repeat(100));
    let rows = [
        (bad(r#"{"reason":1}"#), "invalid type"),
        (bad(r#"{}"#), "missing field `reason`"),
        (bad(r#"{"reason":"a","b":1}"#), "unknown field `b`"),
        (bad(r#"{"reason":"a","reason":"b"}"#), "occurs twice"),
        (bad(r#"{"reason":"\u0000"}"#), "U+0000"),
        (bad(r#"{"reason":"\ud800"}"#), "surrogate"),
        (bad(r#"{"reason":1.5}"#), "integers"),
        (bad(&deep), "nested deeper"),
        (bad(&format!(r#"{{"reason":"{}"}}"#, "x".repeat(300_000))), "longer than"),
        (bad(r#"{"reason":"a"}"#).replace("scheduler.paused", "task.invented"), "is not an event type"),
        (bad(r#"{"reason":"a"}"#).replace("00:00:00Z", "00:00:00"), "is not a timestamp"),
        (bad(r#"{"reason":"a"}"#).replace(r#""actor_id":"operator","#, ""), "missing field `actor_id`"),
    ];
    for (event, expected) in rows {
        let bundle = format!(r#"{{"events":[{good},{event}]}}"#);
        let (status, body) = answer(post(&plane, "/v1/events/ingest", bundle)).await;
        let detail = body["detail"].as_str().unwrap();
        assert_eq!((status, body["code"].as_str()), (422, Some("invalid")), "{detail}");
        assert!(detail.contains("bad-one (number 2") && detail.contains(expected), "{expected}: {detail}");
    }
    for (body, status) in [
        (r#"{"events":[]}"#, 422),
        (r#"{"events":[1]}"#, 422),
        (r#"{}"#, 422),
        (r#"{"events":[],"more":1}"#, 422),
        (r#"{"bundle_id":"a b","events":[{}]}"#, 422),
        ("{", 400),
        ("", 400),
        (r#"{"events":[{"reason":NaN}]}"#, 400),
    ] {
        let (found, answer) = answer(post(&plane, "/v1/events/ingest", body)).await;
        assert_eq!(found, status, "{body}: {answer}");
    }
    assert_eq!(head(&plane.client).await, 0);
    plane.stop().await;
}

#[tokio::test]
async fn a_bundle_of_too_many_events_is_refused_whole() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await;
    let events = (0..1_001).map(|n| paused(&n.to_string())).collect();
    let (status, code, _) = refusal(plane.client.ingest(events).await);
    assert_eq!((status, code), (413, ErrorCode::TooLarge));
    assert_eq!(head(&plane.client).await, 0);
    plane.stop().await;
}

#[tokio::test]
async fn a_step_that_may_not_follow_is_refused_and_takes_its_bundle_with_it() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await.with_tasks(&["t1"]).await;
    let attempt = plane.claim("t1").await.unwrap().attempt_id;
    let before = head(&plane.client).await;
    let unknown = model::AttemptId::parse("attempt-unknown").unwrap();
    let rows = [
        vec![step(&attempt, "t1", "change.verified")],
        vec![step(&attempt, "t1", "attempt.started"), step(&attempt, "t1", "pr.created")],
        vec![step(&attempt, "t1", "attempt.started"), step(&attempt, "t1", "attempt.started")],
        vec![step(&attempt, "t1", "attempt.completed")],
        vec![step(&attempt, "t1", "pr.merged")],
        vec![step(&attempt, "other-task", "attempt.started")],
        vec![step(&unknown, "t1", "attempt.started")],
        vec![step_with(&attempt, "t1", "attempt.started", json!({ "epoch": 9, "executor": "x" }))],
        vec![task_created("t1", 0)],
    ];
    for events in rows {
        let last = events.last().unwrap().clone();
        let (status, code, text) = refusal(plane.client.ingest(events).await);
        assert_eq!((status, code), (409, ErrorCode::IllegalStep), "{text}");
        assert!(text.contains(last.event_id.as_str()), "{text}");
    }
    assert_eq!(head(&plane.client).await, before);
    plane.stop().await;
}

#[tokio::test]
async fn many_at_once_are_recorded_once_each_in_one_order() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await;
    let senders = (0..8).map(|sender| {
        let client = plane.client.clone();
        tokio::spawn(async move {
            let mut seqs = Vec::new();
            for n in 0..10 {
                let events = vec![paused(&format!("{sender}-{n}")), paused("again")];
                seqs.extend(client.ingest(events).await.unwrap().seqs);
            }
            seqs
        })
    });
    let mut all: Vec<u64> = Vec::new();
    for sender in senders.collect::<Vec<_>>() {
        let seqs = sender.await.unwrap();
        assert!(seqs.is_sorted(), "what one sender sent in turn is recorded in turn");
        all.extend(seqs.iter().map(|seq| seq.0));
    }
    all.sort_unstable();
    assert_eq!(all, (1..=160).collect::<Vec<_>>());
    plane.stop().await;
}
