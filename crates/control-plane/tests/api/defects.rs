//! Ways in which other stores of this kind lost or blocked what they were given. None may happen here.

use std::time::{Duration, Instant};

use api::types::{AttemptsQuery, EventsQuery};
use leviathan_control_plane::{Config, Server};
use secrecy::SecretString;

use crate::support::*;

/// An event that is not taken is never answered with a success, and never written: the next start is clean.
#[tokio::test]
async fn a_poison_event_is_refused_and_leaves_nothing_behind() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await;
    let poison = r#"{"events":[{"event_id":"p","event_type":"attempt.created","timestamp":"2026-01-01T00:00:00Z","actor_id":"x","payload":{}}]}"#;
    let (status, body) = answer(post(&plane, "/v1/events/ingest", poison)).await;
    assert_eq!(status, 422, "{body}");
    plane.stop().await;
    let plane = Plane::start(data.path()).await;
    assert_eq!(head(&plane.client).await, 0);
    plane.stop().await;
}

/// Timestamps in several spellings are one spelling afterwards, so that lists can be ordered by them.
#[tokio::test]
async fn timestamps_of_several_zones_do_not_break_lists() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await.with_tasks(&["t1", "t2"]).await;
    for (name, stamp) in [("t1", "2026-01-01T00:00:00Z"), ("t2", "2026-01-01T02:00:00.5+02:00")] {
        let attempt = plane.claim(name).await.unwrap().attempt_id;
        let failed = serde_json::to_string(&step(&attempt, name, "attempt.failed")).unwrap();
        let failed = failed.replace("2026-01-01T00:00:00.000000Z", stamp);
        let (status, body) =
            answer(post(&plane, "/v1/events/ingest", format!(r#"{{"events":[{failed}]}}"#))).await;
        assert_eq!(status, 200, "{body}");
    }
    let failures = plane.client.failures(&AttemptsQuery::default()).await.unwrap().failures;
    let stamps: Vec<String> = failures.iter().map(|failure| failure.timestamp.to_string()).collect();
    assert_eq!(stamps, ["2026-01-01T00:00:00.500000Z", "2026-01-01T00:00:00.000000Z"]);
    plane.stop().await;
}

/// Two control planes on one folder would fork the chain: the second does not start.
#[tokio::test]
async fn a_second_control_plane_on_the_same_folder_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await;
    let mut config = Config::new(data.path().to_owned(), SecretString::from(TOKEN));
    config.listen = "127.0.0.1:0".parse().unwrap();
    let error = Server::bind(config).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("in use by process") && error.contains("one writer"), "{error}");
    plane.client.ingest(vec![paused("still well")]).await.unwrap();
    plane.stop().await;
}

/// A damaged log refuses to start and names the place, instead of answering from the part that it understands.
#[tokio::test]
async fn a_damaged_log_refuses_to_start_and_names_the_place() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await;
    plane.client.ingest(vec![paused("one")]).await.unwrap();
    plane.client.ingest(vec![paused("two")]).await.unwrap();
    plane.stop().await;
    let segment = data.path().join("journal/00000000000000000001.ndjson");
    let text = std::fs::read_to_string(&segment).unwrap();
    std::fs::write(&segment, text.replacen("one", "oNe", 1)).unwrap();
    let config = Config::new(data.path().to_owned(), SecretString::from(TOKEN));
    let error = format!("{:#}", Server::bind(config).await.map(drop).unwrap_err());
    assert!(error.contains("00000000000000000001.ndjson") && error.contains("record 1"), "{error}");
    assert!(error.contains("byte 0") && error.contains("restore"), "{error}");
}

/// Heavy readers never keep the process from saying that it lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heavy_reading_does_not_block_the_health_of_the_process() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await;
    for _ in 0..10 {
        plane.client.ingest((0..1_000).map(|_| paused("load")).collect()).await.unwrap();
    }
    let readers: Vec<_> = (0..8)
        .map(|_| {
            let client = plane.client.clone();
            let query = EventsQuery { limit: Some(5_000), ..Default::default() };
            tokio::spawn(async move { client.events(&query).await.unwrap().events.len() })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    while readers.iter().any(|reader| !reader.is_finished()) {
        let asked = Instant::now();
        plane.client.health().await.unwrap();
        slowest = slowest.max(asked.elapsed());
    }
    for reader in readers {
        assert_eq!(reader.await.unwrap(), 5_000);
    }
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    plane.stop().await;
}

/// What one more event costs does not grow with the log.
#[tokio::test]
async fn appending_does_not_slow_down_as_the_log_grows() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await;
    let median = async || {
        let mut times = Vec::new();
        for _ in 0..31 {
            let asked = Instant::now();
            plane.client.ingest(vec![paused("one more")]).await.unwrap();
            times.push(asked.elapsed());
        }
        times.sort_unstable();
        times[times.len() / 2]
    };
    let empty = median().await;
    for _ in 0..15 {
        plane.client.ingest((0..1_000).map(|_| paused("load")).collect()).await.unwrap();
    }
    let full = median().await;
    // A log that is read again for each append is hundreds of times slower here.
    assert!(
        full < empty * 20 + Duration::from_millis(20),
        "{empty:?} when empty, {full:?} with 15,000 events"
    );
    plane.stop().await;
}
