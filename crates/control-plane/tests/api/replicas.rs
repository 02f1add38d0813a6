//! Several control planes on one database.

use std::time::{Duration, Instant};

use api::types::{EventsQuery, HeartbeatRequest, LostEvidence, LostRequest, PassReport, PassesQuery};
use api::{Client, ErrorCode};
use leviathan_control_plane::{Backend, Config, Database, copy_log};
use secrecy::SecretString;
use serde_json::Value;
use test_support::postgres::Postgres;

use crate::support::{Plane, TOKEN, observation, paused};

fn database(server: &Postgres) -> Backend {
    let name = server.create_database("log_owner");
    server.create_role("log_daily");
    let url = |role| SecretString::from(server.url(role, &name));
    Backend::Postgres(Database { url: url("log_daily"), owner_url: Some(url("log_owner")) })
}

async fn replica(backend: &Backend, data: &std::path::Path) -> Plane {
    Plane::start_with(data, |config| config.backend = backend.clone()).await
}

/// What a GET answers, with its status.
async fn get(plane: &Plane, path: &str) -> (u16, Value) {
    let request = reqwest::Client::new().get(format!("{}{path}", plane.base)).bearer_auth(TOKEN);
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn head(client: &Client) -> u64 {
    client.graph_summary().await.unwrap().head
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_control_planes_agree_on_everything() {
    let server = Postgres::start();
    let backend = database(&server);
    let data = tempfile::tempdir().unwrap();
    let a = replica(&backend, data.path()).await.with_tasks(&["one", "two", "three"]).await;
    let b = replica(&backend, data.path()).await;
    assert_eq!(head(&b.client).await, head(&a.client).await);

    // Each task is handed out once, whomever one asks.
    for task in ["one", "two", "three"] {
        let (x, y) = tokio::join!(a.claim(task), b.claim(task));
        let won = if x.is_ok() { &x } else { &y }.as_ref().unwrap();
        let lost = if x.is_ok() { &y } else { &x }.as_ref().unwrap_err();
        assert_eq!(lost.code(), Some(ErrorCode::NotClaimable), "{lost}");
        // Its executor may turn to either at once.
        let other = if x.is_ok() { &b } else { &a };
        other.client_with(&won.token).assignment(&won.attempt_id).await.unwrap();
    }

    // An idle one sees what the other recorded: by itself, and at once with min_seq.
    let recorded = a.client.ingest(vec![paused("one")]).await.unwrap();
    let (status, summary) = get(&b, &format!("/v1/graph/summary?min_seq={}", recorded.head)).await;
    assert_eq!((status, summary["head"].as_u64()), (200, Some(recorded.head)));
    let (status, page) = get(&b, &format!("/v1/events?min_seq={}&newest=true&limit=1", recorded.head)).await;
    assert_eq!((status, page["events"][0]["seq"].as_u64()), (200, Some(recorded.head)));
    let wanted = a.client.ingest(vec![paused("two")]).await.unwrap().head;
    let deadline = Instant::now() + Duration::from_secs(20);
    while head(&b.client).await < wanted {
        assert!(Instant::now() < deadline, "it does not follow");
    }
    assert_eq!(get(&b, "/v1/events?min_seq=x").await.0, 422);
    let (status, refused) = get(&b, "/v1/tasks?min_seq=1000000").await;
    assert_eq!(status, 503, "{refused}");

    // The same event through both is one event, with one number.
    let event = vec![paused("three")];
    let (x, y) = tokio::join!(a.client.ingest(event.clone()), b.client.ingest(event.clone()));
    let (x, y) = (x.unwrap(), y.unwrap());
    assert_eq!(x.seqs, y.seqs);
    assert_eq!((x.ingested + y.ingested, x.duplicates + y.duplicates), (1, 1));

    let all = a.client.events(&EventsQuery::default()).await.unwrap();
    assert_eq!(b.client.events(&EventsQuery::default()).await.unwrap().events, all.events);
    a.stop().await;
    b.stop().await;

    // The log moves into files, and they hold the same.
    let files = tempfile::tempdir().unwrap();
    let config = |data: &std::path::Path| Config::new(data.to_owned(), SecretString::from(TOKEN));
    let (from, into) = (Config { backend, ..config(data.path()) }, config(files.path()));
    let copied = tokio::task::spawn_blocking(move || copy_log(&from, &into)).await.unwrap().unwrap();
    assert_eq!(copied, all.head);
    let c = Plane::start(files.path()).await;
    assert_eq!(c.client.events(&EventsQuery::default()).await.unwrap().events, all.events);
    c.stop().await;
}

/// Whoever asks `look` until it says so.
async fn in_time(what: &str, look: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !look().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_said_to_one_is_known_to_the_other() {
    let server = Postgres::start();
    let backend = database(&server);
    let data = tempfile::tempdir().unwrap();
    let lease = Duration::from_secs(6);
    let start = async || {
        let adjust = |config: &mut Config| (config.backend, config.lease) = (backend.clone(), lease);
        Plane::start_with(data.path(), adjust).await
    };
    let a = start().await.with_tasks(&["one"]).await;
    let b = start().await;
    let claimed = a.claim("one").await.unwrap();
    let id = &claimed.attempt_id;
    in_time("b follows", async || b.client.attempt(id).await.is_ok()).await;

    // An executor that speaks to one of them is not lost at the other, however often its lease would have run out.
    let executor = b.client_with(&claimed.token);
    let beat = HeartbeatRequest { activity: "building".to_owned() };
    let verdict = LostRequest {
        expected_epoch: claimed.epoch,
        evidence: LostEvidence::LeaseExpired,
        reason: "silent".to_owned(),
        actor_id: model::ActorId::parse("scheduler").unwrap(),
    };
    let until = Instant::now() + lease + lease / 4;
    while Instant::now() < until {
        executor.heartbeat(id, &beat).await.unwrap();
        let refused = a.client.lost(id, &verdict).await.unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::IllegalStep), "{refused}");
    }
    in_time("a hears what the executor is at", async || {
        a.client.attempt(id).await.unwrap().attempt.activity.as_deref() == Some("building")
    })
    .await;
    // Silent at both, it is.
    in_time("the lease runs out", async || a.client.lost(id, &verdict).await.is_ok()).await;

    // So it is with what a scheduler saw, and with passes.
    b.client.observe_target(&"shop".parse().unwrap(), &observation(&["unreachable"])).await.unwrap();
    in_time("a hears what b's scheduler saw", async || {
        let (status, targets) = get(&a, "/v1/targets").await;
        status == 200 && targets.to_string().contains("unreachable")
    })
    .await;
    let [first, second] = [a.client.request_pass().await.unwrap(), b.client.request_pass().await.unwrap()];
    assert!(second.number > first.number);
    let scheduler =
        PassesQuery { requested_after: Some(first.number), wait_ms: Some(30_000), ..PassesQuery::default() };
    let asked = a.client.passes(&scheduler).await.unwrap();
    assert_eq!(asked.requested, second.number);
    let report = PassReport {
        number: asked.requested,
        by: model::ActorId::parse("scheduler").unwrap(),
        at: "2026-01-01T00:00:00Z".parse().unwrap(),
        launched: 1,
        problems: Vec::new(),
    };
    a.client.report_pass(&report).await.unwrap();
    let operator =
        PassesQuery { done_from: Some(second.number), wait_ms: Some(30_000), ..PassesQuery::default() };
    let done = b.client.passes(&operator).await.unwrap();
    assert_eq!((done.done, done.last), (second.number, Some(report)));

    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_database_is_away_it_says_so_and_answers_from_memory() {
    let server = Postgres::start();
    let backend = database(&server);
    let data = tempfile::tempdir().unwrap();
    let plane = replica(&backend, data.path()).await;
    plane.client.ingest(vec![paused("one")]).await.unwrap();
    let is_ready = async |wanted: bool| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while (get(&plane, "/readyz").await.0 == 200) != wanted {
            assert!(Instant::now() < deadline, "ready: {}", !wanted);
        }
    };
    is_ready(true).await;
    tokio::task::block_in_place(|| server.kill());
    is_ready(false).await;
    let lost = plane.client.ingest(vec![paused("two")]).await.unwrap_err();
    assert_eq!(lost.code(), Some(ErrorCode::Unavailable), "{lost}");
    assert_eq!(head(&plane.client).await, 1);
    assert_eq!(get(&plane, "/v1/events").await.0, 503);
    tokio::task::block_in_place(|| server.restart());
    is_ready(true).await;
    plane.client.ingest(vec![paused("two")]).await.unwrap();
    assert_eq!(head(&plane.client).await, 2);
    plane.stop().await;
}
