//! A witness that is shown the checkpoints: what it signs is served, and whatever it does, the log goes on.

use std::path::Path;
use std::time::Duration;

use api::{Client, ErrorCode};
use journal::{Checkpoint, Note, VerifierKey, WitnessKey};
use leviathan_control_plane::{Config, Server, WitnessAccess};
use secrecy::SecretString;
use test_support::witness::{Fault, Witness};

use crate::support::*;
use crate::watching::{scraped, until};

const LAG: &str = "leviathan_witness_lag_events";
const FAILURES: &str = "leviathan_witness_failures_total";

/// A control plane whose checkpoints are shown to the witness, which knows its log.
async fn shown_to(witness: &Witness, data: &Path) -> Plane {
    let plane = shown_to_stranger(witness, data).await;
    witness.know(&plane.client.log_vkey().await.unwrap());
    plane
}

/// The same with a witness that may not know the log.
async fn shown_to_stranger(witness: &Witness, data: &Path) -> Plane {
    let access = access(witness);
    Plane::start_with(data, |config| config.witness = Some(access)).await
}

fn access(witness: &Witness) -> WitnessAccess {
    WitnessAccess { url: witness.url().parse().unwrap(), key: witness.vkey().parse().unwrap() }
}

async fn record(client: &Client, count: usize) {
    client.ingest((0..count).map(|n| paused(&format!("reason {n}"))).collect()).await.unwrap();
}

/// Waits until everything is signed, which nothing that a witness does may hinder.
async fn signed(plane: &Plane) {
    until(plane, "leviathan_checkpoint_lag_events", |lag| lag == 0.0).await;
}

async fn cosigned(plane: &Plane) {
    until(plane, LAG, |lag| lag == 0.0).await;
}

/// The name of the log.
async fn origin(plane: &Plane) -> String {
    let key: VerifierKey = plane.client.log_vkey().await.unwrap().trim().parse().unwrap();
    key.name().to_string()
}

/// The size of the checkpoint that the witness cosigned last, verified by both keys.
async fn witnessed(plane: &Plane, witness: &Witness) -> u64 {
    let note = plane.client.log_witnessed_checkpoint().await.unwrap();
    let key: WitnessKey = witness.vkey().parse().unwrap();
    assert!(key.cosigned(&Note::parse(&note).unwrap()).unwrap() > 0);
    let log: VerifierKey = plane.client.log_vkey().await.unwrap().trim().parse().unwrap();
    Checkpoint::open(&note, &log).unwrap().size
}

#[tokio::test]
async fn each_checkpoint_is_cosigned_from_the_first_on_and_served_with_the_line_of_the_witness() {
    let (witness, data) = (Witness::start().await, tempfile::tempdir().unwrap());
    let plane = shown_to(&witness, data.path()).await;
    let (status, code, _) = refusal(plane.client.log_witnessed_checkpoint().await);
    assert_eq!((status, code), (404, ErrorCode::NotFound), "an empty log is shown to nobody");
    for (count, size) in [(3, 3), (1, 4), (700, 704)] {
        record(&plane.client, count).await;
        cosigned(&plane).await;
        assert_eq!(witnessed(&plane, &witness).await, size);
        assert_eq!(witness.size(&origin(&plane).await), size);
        // It is the newest, so it is what everybody gets; and whoever knows no witness reads it as ever.
        let newest = plane.client.log_checkpoint().await.unwrap();
        assert_eq!(newest, plane.client.log_witnessed_checkpoint().await.unwrap());
    }
    let samples = scraped(&plane).await;
    assert_eq!(samples[FAILURES], 0.0);
    assert!(samples["leviathan_witness_cosigned_timestamp_seconds"] > 1e9);
    assert!(witness.seen().iter().all(|seen| seen.ends_with("-> 200")), "{:?}", witness.seen());
    plane.stop().await;

    // A new process knows nothing of it, is told which size the witness knows, and goes on from there.
    let plane = shown_to(&witness, data.path()).await;
    cosigned(&plane).await;
    record(&plane.client, 2).await;
    cosigned(&plane).await;
    assert_eq!(witnessed(&plane, &witness).await, 706);
    let seen = witness.seen();
    assert!(
        seen.contains(&"0 to 704 -> 409".to_owned()) && seen.contains(&"704 to 704 -> 200".to_owned()),
        "{seen:?}"
    );
    plane.stop().await;
}

#[tokio::test]
async fn a_newer_checkpoint_is_served_without_the_line_until_the_witness_has_seen_it() {
    let (witness, data) = (Witness::start().await, tempfile::tempdir().unwrap());
    let plane = shown_to(&witness, data.path()).await;
    record(&plane.client, 1).await;
    cosigned(&plane).await;
    witness.meet(Some(Fault::Silence));
    record(&plane.client, 1).await;
    signed(&plane).await;
    let newest = plane.client.log_checkpoint().await.unwrap();
    assert!(newest.contains("\n2\n") && !newest.contains("witness.example"), "{newest}");
    assert_eq!(
        witnessed(&plane, &witness).await,
        1,
        "the one before it is still there for whoever wants a witness"
    );
    assert_eq!(scraped(&plane).await[LAG], 1.0);
    // A call under way does not hold up the end either.
    plane.stop().await;
}

#[tokio::test]
async fn the_witness_forgets_and_another_shows_it_more() {
    let (witness, data) = (Witness::start().await, tempfile::tempdir().unwrap());
    let plane = shown_to(&witness, data.path()).await;
    record(&plane.client, 5).await;
    cosigned(&plane).await;
    witness.forget();
    record(&plane.client, 1).await;
    cosigned(&plane).await;
    assert_eq!(witnessed(&plane, &witness).await, 6);
    let seen = witness.seen();
    assert!(
        seen.contains(&"5 to 6 -> 409".to_owned()) && seen.contains(&"0 to 6 -> 200".to_owned()),
        "{seen:?}"
    );
    assert_eq!(scraped(&plane).await[FAILURES], 0.0);
    plane.stop().await;
}

#[tokio::test]
async fn a_witness_that_is_away_is_asked_again_and_misses_nothing() {
    let (witness, data) = (Witness::start().await, tempfile::tempdir().unwrap());
    let plane = shown_to(&witness, data.path()).await;
    record(&plane.client, 2).await;
    cosigned(&plane).await;
    let away = witness.stop().await;
    record(&plane.client, 2).await;
    until(&plane, FAILURES, |failures| failures >= 1.0).await;
    signed(&plane).await;
    let witness = away.come_back().await;
    cosigned(&plane).await;
    assert_eq!(witnessed(&plane, &witness).await, 4);
    plane.stop().await;
}

/// What a witness may answer instead: none of it is taken, and none of it disturbs.
#[tokio::test]
async fn whatever_a_witness_answers_the_log_is_recorded_and_signed() {
    let (witness, data) = (Witness::start().await, tempfile::tempdir().unwrap());
    shown_to(&witness, data.path()).await.stop().await;
    for fault in [
        Fault::Endless,
        Fault::OtherKey,
        Fault::Says(""),
        Fault::Says("— witness.example/w1 AAAA\n"),
        Fault::Says("\nanother log\n\n— witness.example/w1 AAAAAAAAAAAA\n"),
        Fault::Says("\u{1f980} not a signature"),
        Fault::Knows("18446744073709551615\n"),
        Fault::Knows("-1\n"),
        Fault::Knows("0\n"),
        Fault::Status(409, "7\n"),
        Fault::Status(500, "on fire"),
        Fault::Status(302, ""),
    ] {
        witness.meet(Some(fault.clone()));
        let plane = shown_to(&witness, data.path()).await;
        record(&plane.client, 1).await;
        until(&plane, FAILURES, |failures| failures >= 1.0).await;
        signed(&plane).await;
        assert!(plane.client.log_witnessed_checkpoint().await.is_err(), "{fault:?}");
        assert!(!plane.client.log_checkpoint().await.unwrap().contains("witness.example"), "{fault:?}");
        plane.stop().await;
    }
}

#[tokio::test]
async fn a_witness_that_refuses_is_asked_again_and_what_it_refused_is_not_served() {
    let witness = Witness::start().await;
    let other = Witness::start().await;
    let data = tempfile::tempdir().unwrap();
    // It does not know the log at all; it knows another key of the same name; it saw another history.
    let plane = shown_to_stranger(&witness, data.path()).await;
    record(&plane.client, 3).await;
    until(&plane, FAILURES, |failures| failures >= 1.0).await;
    assert!(witness.seen().contains(&"0 to 3 -> 404".to_owned()), "{:?}", witness.seen());
    let origin = origin(&plane).await;
    let impostor = journal::SigningKey::from_seed(journal::KeyName::parse(&origin).unwrap(), &[1; 32]);
    witness.know(&impostor.verifier().to_string());
    until(&plane, FAILURES, |failures| failures >= 2.0).await;
    while !witness.seen().contains(&"0 to 3 -> 403".to_owned()) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(plane.client.log_witnessed_checkpoint().await.is_err());
    other.know(&plane.client.log_vkey().await.unwrap());
    plane.stop().await;

    other.pretend(&origin, 2, [7; 32]);
    let plane = shown_to_stranger(&other, data.path()).await;
    until(&plane, FAILURES, |failures| failures >= 1.0).await;
    assert!(other.seen().contains(&"2 to 3 -> 422".to_owned()), "{:?}", other.seen());
    assert_eq!(other.size(&origin), 2, "it keeps what it saw");
    assert!(plane.client.log_witnessed_checkpoint().await.is_err());
    plane.stop().await;
}

/// An older copy of everything looks whole to whoever has only the copy. The witness has seen more.
#[tokio::test]
async fn an_older_copy_of_everything_is_not_cosigned() {
    let (witness, data) = (Witness::start().await, tempfile::tempdir().unwrap());
    let plane = shown_to(&witness, data.path()).await;
    record(&plane.client, 3).await;
    cosigned(&plane).await;
    let origin = origin(&plane).await;
    plane.stop().await;
    witness.pretend(&origin, 9, [8; 32]);
    let plane = shown_to(&witness, data.path()).await;
    until(&plane, FAILURES, |failures| failures >= 1.0).await;
    record(&plane.client, 1).await;
    signed(&plane).await;
    assert_eq!(witness.size(&origin), 9);
    assert!(plane.client.log_witnessed_checkpoint().await.is_err());
    plane.stop().await;
}

#[tokio::test]
async fn without_a_witness_nobody_is_told_of_one_and_an_unsigned_log_is_shown_to_none() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await;
    let (status, _, text) = refusal(plane.client.log_witnessed_checkpoint().await);
    assert!(status == 404 && text.contains("LEVIATHAN_WITNESS_URL"), "{text}");
    assert!(!scraped(&plane).await.contains_key(LAG));
    plane.stop().await;

    let witness = Witness::start().await;
    let mut config = Config::new(data.path().to_owned(), SecretString::from(TOKEN));
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.backend = leviathan_control_plane::Backend::Memory;
    config.witness = Some(access(&witness));
    let told = Server::bind(config).await.err().unwrap().to_string();
    assert!(told.contains("LEVIATHAN_WITNESS_URL is set, but this log is not signed"), "{told}");
}
