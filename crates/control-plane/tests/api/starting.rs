//! A start on a log that is long enough to have a snapshot.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use leviathan_control_plane::{Config, Server};
use model::Event;
use secrecy::SecretString;

use crate::support::*;

/// So many events are worth a snapshot.
const LONG: u64 = 10_000;

/// A log of [`LONG`] events of a control plane that has stopped in order; and the first of them.
async fn long_log(data: &Path) -> Event {
    let plane = Plane::start(data).await;
    let events: Vec<_> = (0..LONG).map(|n| paused(&format!("reason {n}"))).collect();
    for bundle in events.chunks(1_000) {
        plane.client.ingest(bundle.to_vec()).await.unwrap();
    }
    plane.stop().await;
    assert_eq!(snapshots(data), [format!("{LONG:020}.snapshot")]);
    events[0].clone()
}

fn snapshots(data: &Path) -> Vec<String> {
    let entries = fs::read_dir(data.join("journal/snapshots")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_start_from_a_snapshot_tells_the_same_and_verifies_what_it_did_not_read() {
    let data = tempfile::tempdir().unwrap();
    let first = long_log(data.path()).await;
    let plane = Plane::start(data.path()).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let ready = plane.client.readiness().await.unwrap();
        assert_eq!((ready.status.as_str(), ready.head), ("ready", LONG));
        if ready.verified_to == LONG {
            break;
        }
        assert!(ready.verified_to < LONG && Instant::now() < deadline);
    }
    let metrics = http().get(format!("{}/metrics", plane.base)).bearer_auth(TOKEN).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(metrics.contains(&format!("leviathan_journal_verified_seq {LONG}\n")), "{metrics}");
    // What was recorded before the snapshot is known, and what is new follows it.
    plane.client.ingest(vec![first, paused("one more")]).await.unwrap();
    assert_eq!(head(&plane.client).await, LONG + 1);
    plane.stop().await;
    assert_eq!(snapshots(data.path()), [LONG, LONG + 1].map(|seq| format!("{seq:020}.snapshot")));
}

#[tokio::test]
async fn a_record_that_was_changed_before_the_snapshot_ends_the_process() {
    let data = tempfile::tempdir().unwrap();
    long_log(data.path()).await;
    let segment = data.path().join("journal/00000000000000000001.ndjson");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[30] ^= 1;
    fs::write(&segment, &bytes).unwrap();
    let mut config = Config::new(data.path().to_owned(), SecretString::from(TOKEN));
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.read_only_for = Duration::ZERO;
    let deadline = Instant::now() + Duration::from_secs(20);
    let server = loop {
        match Server::bind(config.clone()).await {
            Ok(server) => break server,
            // Another test that starts a process holds the lock for an instant.
            Err(error) => {
                assert!(error.to_string().contains("in use") && Instant::now() < deadline, "{error:#}")
            }
        }
    };
    let told = format!("{:#}", server.run(std::future::pending()).await.unwrap_err());
    assert!(told.contains(segment.to_str().unwrap()) && told.contains("at byte 0, where record 1"), "{told}");
    assert_eq!(fs::read(&segment).unwrap(), bytes);
}
