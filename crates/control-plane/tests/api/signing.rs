//! A log that cannot be signed for a while: it is recorded all the same, and everybody who watches sees it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::support::*;
use crate::watching::{scraped, until};

const LAG: &str = "leviathan_checkpoint_lag_events";
const AGE: &str = "leviathan_checkpoint_lag_seconds";
const FAILURES: &str = "leviathan_checkpoint_failures_total";

/// A control plane that tells at once of what is not signed.
async fn impatient(data: &Path) -> Plane {
    Plane::start_with(data, |config| config.unsigned_for = Duration::ZERO).await
}

/// What is in the way of the file that replaces the checkpoint. It is in root's way too.
fn obstacle(data: &Path) -> std::path::PathBuf {
    data.join("journal/checkpoint.new")
}

#[tokio::test]
async fn while_nothing_can_be_signed_events_are_recorded_and_everybody_is_told_why() {
    let data = tempfile::tempdir().unwrap();
    let plane = impatient(data.path()).await;
    plane.client.ingest(vec![paused("signed")]).await.unwrap();
    until(&plane, LAG, |lag| lag == 0.0).await;
    let samples = scraped(&plane).await;
    assert_eq!((samples[AGE], samples[FAILURES]), (0.0, 0.0));
    let ready = plane.client.readiness().await.unwrap();
    assert_eq!((ready.checkpoints.as_str(), ready.checkpoints_late), ("signed", None));

    fs::create_dir(obstacle(data.path())).unwrap();
    plane.client.ingest(vec![paused("not"), paused("signed")]).await.unwrap();
    until(&plane, FAILURES, |failures| failures >= 2.0).await;
    plane.client.ingest(vec![paused("yet")]).await.unwrap();
    let samples = scraped(&plane).await;
    assert_eq!(samples[LAG], 3.0, "what is recorded is not lost from sight");
    assert!(samples[AGE] > 0.0);
    assert_eq!(head(&plane.client).await, 4);
    let ready = plane.client.readiness().await.unwrap();
    assert_eq!((ready.status.as_str(), ready.checkpoints.as_str()), ("ready", "late"));
    let reason = ready.checkpoints_late.unwrap();
    assert!(reason.contains("the stored checkpoint cannot be read or replaced: 3 events"), "{reason}");
    assert!(!reason.contains(data.path().to_str().unwrap()), "it is told to everybody: {reason}");

    fs::remove_dir(obstacle(data.path())).unwrap();
    until(&plane, LAG, |lag| lag == 0.0).await;
    let ready = plane.client.readiness().await.unwrap();
    assert_eq!((ready.checkpoints.as_str(), ready.checkpoints_late), ("signed", None));
    plane.stop().await;
}

#[tokio::test]
async fn what_was_not_signed_when_it_stopped_is_signed_by_the_next_start() {
    let data = tempfile::tempdir().unwrap();
    let plane = impatient(data.path()).await;
    fs::create_dir(obstacle(data.path())).unwrap();
    plane.client.ingest(vec![paused("waits")]).await.unwrap();
    plane.stop().await;
    fs::remove_dir(obstacle(data.path())).unwrap();
    let plane = impatient(data.path()).await;
    until(&plane, LAG, |lag| lag == 0.0).await;
    assert!(plane.client.log_checkpoint().await.unwrap().contains("\n1\n"));
    plane.stop().await;
}

/// A log that nobody signs has no lag, rather than one that grows for ever.
#[tokio::test]
async fn a_log_in_memory_says_that_it_is_not_signed() {
    let data = tempfile::tempdir().unwrap();
    let memory = leviathan_control_plane::Backend::Memory;
    let plane = Plane::start_with(data.path(), |config| {
        config.backend = memory;
        config.unsigned_for = Duration::ZERO;
    })
    .await;
    plane.client.ingest(vec![paused("x")]).await.unwrap();
    assert!(!scraped(&plane).await.contains_key(LAG));
    assert_eq!(plane.client.readiness().await.unwrap().checkpoints, "none");
    plane.stop().await;
}
