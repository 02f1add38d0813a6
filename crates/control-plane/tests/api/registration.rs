//! Targets that come and go, and passes that somebody asks for.

use std::time::Duration;

use api::ErrorCode;
use api::types::{PassReport, PassesQuery, ReasonRequest, RegisterTarget, RejectTarget};
use model::Digest;
use serde_json::json;

use crate::support::*;

fn reason(words: &str) -> ReasonRequest {
    ReasonRequest { reason: words.to_owned(), target: None, actor_id: None }
}

#[tokio::test]
async fn nothing_more_is_claimed_of_a_target_that_is_unregistered_until_it_is_registered_again() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await.with_tasks(&["t1", "t2"]).await;
    let live = plane.claim("t1").await.unwrap();
    let (status, code, _) = refusal(plane.client.unregister_target(&target(), &reason(" ")).await);
    assert_eq!((status, code), (422, ErrorCode::Invalid), "others will read why");
    assert!(plane.client.unregister_target(&target(), &reason("it moved")).await.unwrap().changed);
    assert!(!plane.client.unregister_target(&target(), &reason("again")).await.unwrap().changed);
    let (_, code, told) = refusal(plane.claim("t2").await);
    assert_eq!(code, ErrorCode::NotClaimable);
    assert!(told.contains("unregistered") && told.contains("it moved"), "{told}");
    // What is under way goes on.
    let executor = plane.client_with(&live.token);
    executor.ingest(vec![step(&live.attempt_id, "t1", "attempt.started")]).await.unwrap();

    // A restart reads the same; the same documents, sent again, register it.
    plane.stop().await;
    let plane = Plane::start(data.path()).await;
    let seen = plane.client.targets().await.unwrap().targets.remove(0);
    assert_eq!(seen.unregistered.unwrap().reason, "it moved");
    let again = RegisterTarget::of_contract(contract("shop"));
    assert!(plane.client.register_target(&again).await.unwrap().changed);
    assert!(plane.client.targets().await.unwrap().targets.remove(0).unregistered.is_none());
    plane.claim("t2").await.unwrap();

    let stranger = model::TargetId::parse("nobody").unwrap();
    assert_eq!(refusal(plane.client.unregister_target(&stranger, &reason("x")).await).0, 404);
    plane.stop().await;
}

#[tokio::test]
async fn a_registration_that_is_not_accepted_is_recorded_once_and_changes_nothing() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await.with_tasks(&[]).await;
    let rejected = |digest: &[u8]| RejectTarget {
        source: "configmap/leviathan-target-shop".to_owned(),
        target_id: Some(target()),
        digest: Digest::of(digest),
        problems: vec!["contract.yaml:1:1: broken".to_owned()],
        actor_id: None,
    };
    let before = plane.client.targets().await.unwrap().targets;
    assert!(plane.client.reject_target(&rejected(b"one")).await.unwrap().changed);
    assert!(!plane.client.reject_target(&rejected(b"one")).await.unwrap().changed);
    assert!(plane.client.reject_target(&rejected(b"two")).await.unwrap().changed);
    // Broken as before, after it was something else: that is news.
    assert!(plane.client.reject_target(&rejected(b"one")).await.unwrap().changed);
    assert_eq!(plane.client.targets().await.unwrap().targets, before);

    for (request, told) in [
        (RegisterTarget { backlog: Some("tasks: 7\n".to_owned()), ..of("shop") }, "backlog.yaml:1"),
        (RegisterTarget { executor_image: Some("two words".to_owned()), ..of("shop") }, "two words"),
        (
            RegisterTarget { executor_image: Some(String::new()), ..of("shop") },
            "cannot be the name of an image",
        ),
        (RegisterTarget { executor_image: Some("-flag".to_owned()), ..of("shop") }, "-flag"),
    ] {
        let (status, _, said) = refusal(plane.client.register_target(&request).await);
        assert_eq!(status, 422);
        assert!(said.contains(told) && said.contains("nothing was registered"), "{said}");
    }
    assert_eq!(plane.client.targets().await.unwrap().targets, before);
    plane.stop().await;
}

fn of(target: &str) -> RegisterTarget {
    RegisterTarget::of_contract(contract(target))
}

#[tokio::test]
async fn an_executor_reads_back_what_its_own_attempt_stored_and_nothing_else() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await.with_tasks(&["t1", "t2"]).await;
    let (own, other) = (plane.claim("t1").await.unwrap(), plane.claim("t2").await.unwrap());
    let executor = plane.client_with(&own.token);
    let pack = executor.put_artifact("a pack".into()).await.unwrap().sha256;
    let (status, code, _) = refusal(executor.artifact(&pack).await);
    assert_eq!((status, code), (403, ErrorCode::Forbidden), "uploaded, and recorded of no attempt");
    executor.ingest(vec![step(&own.attempt_id, "t1", "attempt.started")]).await.unwrap();
    let stored = json!({ "sha256": pack, "name": "candidate.pack", "kind": "pack", "size": 6 });
    executor.ingest(vec![step_with(&own.attempt_id, "t1", "artifact.stored", stored)]).await.unwrap();
    assert_eq!(executor.artifact(&pack).await.unwrap(), "a pack");
    let assignment = executor.assignment(&own.attempt_id).await.unwrap();
    assert_eq!(assignment.artifacts.iter().map(|stored| &stored.sha256).collect::<Vec<_>>(), [&pack]);

    let stranger = plane.client_with(&other.token);
    assert_eq!(refusal(stranger.artifact(&pack).await).0, 403);
    let cancel = plane.client.cancel(&own.attempt_id, &reason("enough")).await.unwrap();
    assert!(cancel.changed);
    assert_eq!(refusal(executor.artifact(&pack).await).1, ErrorCode::Fenced);
    plane.stop().await;
}

#[tokio::test]
async fn whoever_asks_for_a_pass_hears_when_it_was_made() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await;
    let report = |number| PassReport {
        number,
        by: model::ActorId::parse("scheduler").unwrap(),
        at: "2026-01-01T00:00:00Z".parse().unwrap(),
        launched: 2,
        problems: Vec::new(),
    };
    let asked = |query: PassesQuery| {
        let client = plane.client.clone();
        tokio::spawn(async move { client.passes(&query).await.unwrap() })
    };
    let hour = Some(3_600_000);
    let scheduler = asked(PassesQuery { requested_after: Some(0), wait_ms: hour, ..PassesQuery::default() });
    let number = plane.client.request_pass().await.unwrap().number;
    assert_eq!(number, 1);
    assert_eq!(scheduler.await.unwrap().requested, 1, "the scheduler is told at once");

    let human = asked(PassesQuery { done_from: Some(number), wait_ms: hour, ..PassesQuery::default() });
    // A pass that began before the request is not the one; nor is the word of one that nobody asked for.
    plane.client.report_pass(&report(0)).await.unwrap();
    assert_eq!(plane.client.passes(&PassesQuery::default()).await.unwrap().done, 0);
    assert!(!human.is_finished());
    plane.client.report_pass(&report(number)).await.unwrap();
    let heard = tokio::time::timeout(Duration::from_secs(60), human).await.unwrap().unwrap();
    assert_eq!((heard.done, heard.last.unwrap().launched), (1, 2));
    // A number of before the last start of the control plane asks for nothing.
    plane.client.report_pass(&report(99)).await.unwrap();
    assert_eq!(plane.client.passes(&PassesQuery::default()).await.unwrap().done, 1);
    plane.stop().await;
}
