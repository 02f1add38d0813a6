//! Attempts from their claim to a human's merge, and everything that can stop them on the way.

use std::time::{Duration, Instant};

use api::ErrorCode;
use api::types::{
    AttemptsQuery, DispatchRequest, HeartbeatRequest, LostEvidence, LostRequest, ReasonRequest, TasksQuery,
};
use model::{ActorId, AttemptState, Digest, Epoch};

use crate::support::*;

#[tokio::test]
async fn an_attempt_goes_from_its_claim_to_a_merge() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await.with_tasks(&["t1"]).await;
    let claimed = plane.claim("t1").await.unwrap();
    assert_eq!((claimed.n, claimed.epoch, claimed.branch.as_str()), (1, Epoch(1), "leviathan/t1-a1"));
    let executor = plane.client_with(&claimed.token);

    let assignment = executor.assignment(&claimed.attempt_id).await.unwrap();
    assert_eq!(assignment.contract, contract("shop"));
    assert_eq!((assignment.base_commit.as_str(), assignment.timeout_seconds), (COMMIT, 60));
    let receipt = executor.put_artifact("the log".into()).await.unwrap();
    assert_eq!(plane.client.artifact(&receipt.sha256).await.unwrap(), "the log");
    for event_type in LIFE {
        executor.ingest(vec![step(&claimed.attempt_id, "t1", event_type)]).await.unwrap();
    }

    let detail = plane.client.attempt(&claimed.attempt_id).await.unwrap();
    assert_eq!(detail.attempt.state, AttemptState::Completed);
    assert_eq!((detail.attempt.pr_number, detail.attempt.usage.cost_micro_usd), (Some(7), 1_500));
    assert_eq!(detail.attempt.lease_remaining_ms, None, "nothing more is expected of its executor");
    assert_eq!(detail.change.unwrap().files[0].rule, "docs/**");
    assert!(detail.checks[0].passed && detail.sandbox.is_some());
    assert_eq!((detail.agent_notes, detail.artifacts.len()), (vec!["done".to_owned()], 1));
    assert_eq!(detail.events.len(), LIFE.len() + 2);
    assert!(detail.events.windows(2).all(|pair| pair[0].seq < pair[1].seq));

    let (status, code, text) = refusal(plane.claim("t1").await);
    assert_eq!((status, code), (409, ErrorCode::NotClaimable));
    assert!(text.contains("(in_review)") && text.contains("https://forge/shop/7"), "{text}");

    plane.client.ingest(vec![step(&claimed.attempt_id, "t1", "pr.merged")]).await.unwrap();
    let tasks = plane.client.tasks(&TasksQuery::default()).await.unwrap().tasks;
    assert_eq!((tasks[0].state.as_str(), tasks[0].reason.as_deref()), ("completed", Some("not_pending")));
    assert_eq!(tasks[0].pr_url.as_deref(), Some("https://forge/shop/7"));
    let summary = plane.client.graph_summary().await.unwrap();
    assert_eq!(summary.nodes_by_type["PullRequest"], 1);
    assert_eq!(summary.attempts_by_state["completed"], 1);
    plane.stop().await;
}

#[tokio::test]
async fn of_many_schedulers_exactly_one_gets_each_task() {
    let data = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..12).map(|n| format!("t{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let plane = Plane::start(data.path()).await.with_tasks(&names).await;
    let schedulers = (0..4).map(|_| {
        let client = plane.client.clone();
        let requests: Vec<_> = names.iter().map(|task| claim_request(task)).collect();
        tokio::spawn(async move {
            let mut won = 0;
            for request in requests {
                match client.claim(&request).await {
                    Ok(_) => won += 1,
                    Err(error) => assert_eq!(error.code(), Some(ErrorCode::NotClaimable), "{error}"),
                }
            }
            won
        })
    });
    let mut won = 0;
    for scheduler in schedulers.collect::<Vec<_>>() {
        won += scheduler.await.unwrap();
    }
    assert_eq!(won, names.len());
    let live = AttemptsQuery { status: Some("live".to_owned()), limit: Some(100), ..Default::default() };
    assert_eq!(plane.client.attempts(&live).await.unwrap().total, names.len() as u64);
    plane.stop().await;
}

#[tokio::test]
async fn an_attempt_that_is_handed_out_again_is_fenced_from_its_first_executor() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await.with_tasks(&["t1"]).await;
    let first = plane.claim("t1").await.unwrap();
    let id = &first.attempt_id;
    let again = DispatchRequest {
        expected_epoch: Epoch(1),
        launcher: "worktree".to_owned(),
        actor_id: ActorId::parse("scheduler").unwrap(),
    };
    let second = plane.client.dispatch(id, &again).await.unwrap();
    assert_eq!(second.epoch, Epoch(2));
    // The same call again comes from somebody who does not know yet.
    let (_, code, text) = refusal(plane.client.dispatch(id, &again).await);
    assert!(code == ErrorCode::Fenced && text.contains("its epoch is 2, not 1"), "{text}");

    let late = plane.client_with(&first.token);
    let beat = HeartbeatRequest { activity: String::new() };
    for (_, code, text) in [
        refusal(late.heartbeat(id, &beat).await),
        refusal(late.assignment(id).await),
        refusal(late.ingest(vec![step(id, "t1", "attempt.started")]).await),
        refusal(late.put_artifact("x".into()).await),
    ] {
        assert_eq!(code, ErrorCode::Fenced, "{text}");
    }
    plane.client_with(&second.token).heartbeat(id, &beat).await.unwrap();
    plane.stop().await;
}

#[tokio::test]
async fn what_an_executor_is_at_is_shown_until_its_attempt_ends() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await.with_tasks(&["t1"]).await;
    let claimed = plane.claim("t1").await.unwrap();
    let (executor, id) = (plane.client_with(&claimed.token), &claimed.attempt_id);
    let shown = async || plane.client.attempt(id).await.unwrap().attempt.activity;
    assert_eq!(shown().await, None);
    for activity in ["the agent works, round 1", "running the checks of round 1"] {
        executor.heartbeat(id, &HeartbeatRequest { activity: activity.to_owned() }).await.unwrap();
        assert_eq!(shown().await.as_deref(), Some(activity));
    }
    executor.ingest(vec![step(id, "t1", "attempt.failed")]).await.unwrap();
    assert_eq!(shown().await, None);
    plane.stop().await;
}

#[tokio::test]
async fn what_was_recorded_before_the_end_is_answered_after_it() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await.with_tasks(&["t1"]).await;
    let claimed = plane.claim("t1").await.unwrap();
    let executor = plane.client_with(&claimed.token);
    let failed = step(&claimed.attempt_id, "t1", "attempt.failed");
    let first = executor.ingest(vec![failed.clone()]).await.unwrap();
    // The answer was lost on the way; the executor sends it again from its spool.
    assert_eq!(executor.ingest(vec![failed]).await.unwrap().seqs, first.seqs);
    let more = step(&claimed.attempt_id, "t1", "sandbox.reported");
    assert_eq!(refusal(executor.ingest(vec![more]).await).1, ErrorCode::Fenced);
    let failures = plane.client.failures(&AttemptsQuery::default()).await.unwrap().failures;
    assert_eq!(failures[0].error, "no_change: nothing was changed");
    assert!(!failures[0].next_step.is_empty());
    plane.stop().await;
}

#[tokio::test]
async fn an_executor_that_falls_silent_is_lost_when_its_lease_has_run_out() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await.with_tasks(&["t1"]).await;
    let claimed = plane.claim("t1").await.unwrap();
    let id = claimed.attempt_id.clone();
    let lost = |epoch, evidence| LostRequest {
        expected_epoch: Epoch(epoch),
        evidence,
        reason: "no heartbeat".to_owned(),
        actor_id: ActorId::parse("scheduler").unwrap(),
    };
    let (_, code, text) = refusal(plane.client.lost(&id, &lost(1, LostEvidence::LeaseExpired)).await);
    assert!(code == ErrorCode::IllegalStep && text.contains("its lease runs for another"), "{text}");
    assert_eq!(
        refusal(plane.client.lost(&id, &lost(2, LostEvidence::ExecutorGone)).await).1,
        ErrorCode::Fenced
    );
    plane.stop().await;

    // After a restart it has one whole lease of grace again, whatever it had before.
    let lease = Duration::from_millis(400);
    let started = Instant::now();
    let plane = Plane::start_with(data.path(), |config| config.lease = lease).await;
    let deadline = started + Duration::from_secs(20);
    loop {
        match plane.client.lost(&id, &lost(1, LostEvidence::LeaseExpired)).await {
            Ok(steered) => {
                assert!(steered.changed && started.elapsed() >= lease);
                break;
            }
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
    assert!(!plane.client.lost(&id, &lost(1, LostEvidence::LeaseExpired)).await.unwrap().changed);
    let late = plane.client_with(&claimed.token);
    let beat = HeartbeatRequest { activity: String::new() };
    assert_eq!(refusal(late.heartbeat(&id, &beat).await).1, ErrorCode::Fenced);
    plane.stop().await;
}

fn because(reason: &str) -> ReasonRequest {
    ReasonRequest { reason: reason.to_owned(), target: None, actor_id: None }
}

#[tokio::test]
async fn the_operator_stops_what_runs_and_voids_what_ended() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await.with_tasks(&["t1", "t2", "t3"]).await;
    let (one, two) = (plane.claim("t1").await.unwrap(), plane.claim("t2").await.unwrap());
    let client = &plane.client;

    let cancelled = client.cancel(&one.attempt_id, &because("Emergency stop")).await.unwrap();
    assert_eq!((cancelled.status.as_str(), cancelled.changed), ("cancelled", true));
    assert!(!client.cancel(&one.attempt_id, &because("again")).await.unwrap().changed);
    assert_eq!(refusal(client.cancel(&two.attempt_id, &because("  ")).await).0, 422);
    let beat = HeartbeatRequest { activity: String::new() };
    let told = refusal(plane.client_with(&one.token).heartbeat(&one.attempt_id, &beat).await);
    assert!(told.1 == ErrorCode::Fenced && told.2.contains("is cancelled"), "{}", told.2);

    // A live attempt is stopped first; both or neither is recorded.
    let before = head(client).await;
    let voided = client.invalidate(&two.attempt_id, &because("Transient error, retry")).await.unwrap();
    assert_eq!((voided.status.as_str(), voided.changed), ("invalidated", true));
    assert_eq!(head(client).await, before + 2);
    assert!(!client.invalidate(&two.attempt_id, &because("again")).await.unwrap().changed);
    let detail = client.attempt(&two.attempt_id).await.unwrap();
    assert_eq!(
        (detail.attempt.status.as_str(), detail.attempt.state),
        ("invalidated", AttemptState::Cancelled)
    );
    assert_eq!(plane.claim("t2").await.unwrap().n, 2, "its task may run again");

    assert!(client.pause(&because("maintenance")).await.unwrap().changed);
    assert!(!client.pause(&because("maintenance")).await.unwrap().changed);
    let (_, code, text) = refusal(plane.claim("t3").await);
    assert!(code == ErrorCode::NotClaimable && text.contains("maintenance"), "{text}");
    assert!(client.resume(&because("done")).await.unwrap().changed);
    assert!(!client.resume(&because("done")).await.unwrap().changed);
    let here = ReasonRequest { target: Some(target()), ..because("only the shop") };
    assert!(client.pause(&here).await.unwrap().changed);
    assert!(plane.claim("t3").await.is_err());
    assert!(client.resume(&here).await.unwrap().changed);
    plane.claim("t3").await.unwrap();
    plane.stop().await;
}

#[tokio::test]
async fn an_executor_cannot_use_up_the_ids_by_which_it_is_stopped() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await.with_tasks(&["t1"]).await;
    let claimed = plane.claim("t1").await.unwrap();
    let executor = plane.client_with(&claimed.token);
    for word in ["attempt.cancelled", "attempt.lost", "attempt.invalidated"] {
        let mut squatting = step(&claimed.attempt_id, "t1", "sandbox.reported");
        squatting.event_id = model::EventId::derived([claimed.attempt_id.as_str(), word]);
        executor.ingest(vec![squatting]).await.unwrap();
    }
    assert!(plane.client.invalidate(&claimed.attempt_id, &because("stop")).await.unwrap().changed);
    plane.stop().await;
}

#[tokio::test]
async fn unknown_ids_are_told_apart_and_come_with_a_next_step() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await.with_tasks(&[]).await;
    let client = &plane.client;
    let attempt = model::AttemptId::parse("attempt-xyz").unwrap();
    let nowhere = model::TargetId::parse("nowhere").unwrap();
    let elsewhere = ReasonRequest { target: Some(nowhere.clone()), ..because("x") };
    let mut claim = claim_request("t1");
    claim.target_id = nowhere.clone();
    let rows = [
        (refusal(client.attempt(&attempt).await), "leviathanctl attempts-list"),
        (refusal(client.cancel(&attempt, &because("x")).await), "leviathanctl attempts-list"),
        (refusal(client.invalidate(&attempt, &because("x")).await), "leviathanctl attempts-list"),
        (refusal(client.assignment(&attempt).await), "leviathanctl attempts-list"),
        (refusal(client.pause(&elsewhere).await), "leviathanctl targets-register"),
        (refusal(client.claim(&claim).await), "leviathanctl targets-register"),
        (refusal(client.claim(&claim_request("t1")).await), "leviathanctl tasks-list"),
        (refusal(client.observe_target(&nowhere, &observation(&[])).await), "leviathanctl targets-register"),
        (
            refusal(client.tasks(&TasksQuery { target: Some(nowhere.clone()) }).await),
            "leviathanctl targets-register",
        ),
        (refusal(client.artifact(&Digest::parse(DIGEST).unwrap()).await), "leviathanctl attempts-show"),
    ];
    for ((status, code, text), next_step) in rows {
        assert_eq!((status, code), (404, ErrorCode::NotFound), "{text}");
        assert!(text.contains(next_step), "{text}");
    }
    plane.stop().await;
}
