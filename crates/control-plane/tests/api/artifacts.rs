//! Artifacts in a bucket, as clients of the control plane see them.

use std::time::{Duration, Instant};

use api::ErrorCode;
use leviathan_control_plane::{ArtifactPlace, BucketAccess, Config};
use model::Digest;
use secrecy::SecretString;
use test_support::s3::{BUCKET, S3};

use crate::support::*;

fn in_bucket(s3: &S3) -> impl FnOnce(&mut Config) + use<> {
    let url = format!("s3://{BUCKET}/leviathan").parse().unwrap();
    let variables = s3.variables().map(|(name, value)| (name.to_owned(), SecretString::from(value))).into();
    move |config| config.artifacts = ArtifactPlace::Bucket(BucketAccess { url, variables })
}

#[tokio::test]
async fn what_was_stored_in_a_bucket_is_there_for_the_next_process_and_nothing_is_on_the_disk() {
    let (s3, data) = (S3::start().await, tempfile::tempdir().unwrap());
    let plane = Plane::start_with(data.path(), in_bucket(&s3)).await;
    let bytes = vec![7; 3 << 20];
    let name = Digest::of(&bytes);
    let receipt = plane.client.put_artifact(bytes.clone().into()).await.unwrap();
    assert_eq!((receipt.sha256, receipt.size), (name.clone(), 3 << 20));
    plane.stop().await;

    let plane = Plane::start_with(data.path(), in_bucket(&s3)).await;
    assert_eq!(plane.client.artifact(&name).await.unwrap(), bytes);
    assert_eq!(plane.client.readiness().await.unwrap().artifacts, "ready");
    plane.stop().await;
    assert!(!data.path().join("artifacts").exists());
    assert_eq!(s3.keys(), [format!("leviathan/sha256/{}/{name}", &name.as_str()[..2])]);
}

#[tokio::test]
async fn a_damaged_artifact_is_named_and_not_served() {
    let (s3, data) = (S3::start().await, tempfile::tempdir().unwrap());
    let plane = Plane::start_with(data.path(), in_bucket(&s3)).await;
    let name = Digest::of(b"hello");
    plane.client.put_artifact(b"hello".as_slice().into()).await.unwrap();
    s3.replace(&s3.keys()[0], b"hellO");
    let (status, code, text) = refusal(plane.client.artifact(&name).await);
    assert_eq!((status, code), (500, ErrorCode::Internal));
    assert!(text.contains(name.as_str()) && text.contains("damaged") && !text.contains("hellO"), "{text}");
    plane.stop().await;
}

/// The log is recorded and told without artifacts; and they are there again as soon as the store is.
#[tokio::test]
async fn without_its_bucket_a_control_plane_does_everything_else_and_says_so() {
    let (s3, data) = (S3::start().await, tempfile::tempdir().unwrap());
    let reach = in_bucket(&s3);
    let name = Digest::of(b"hello");
    drop(s3);
    let plane = Plane::start_with(data.path(), reach).await.with_tasks(&["t1"]).await;
    for outcome in [
        plane.client.put_artifact(b"hello".as_slice().into()).await.map(drop),
        plane.client.artifact(&name).await.map(drop),
    ] {
        let (status, code, text) = refusal(outcome);
        assert_eq!((status, code), (503, ErrorCode::Unavailable));
        assert!(text.contains("the store of artifacts cannot be reached"), "{text}");
    }
    plane.claim("t1").await.unwrap();
    assert!(head(&plane.client).await > 2);
    let ready = plane.client.readiness().await.unwrap();
    assert_eq!((ready.status.as_str(), ready.artifacts.as_str()), ("ready", "unreachable"));
    plane.stop().await;
}

#[tokio::test]
async fn readiness_follows_the_store() {
    let (s3, data) = (S3::start().await, tempfile::tempdir().unwrap());
    let plane = Plane::start_with(data.path(), in_bucket(&s3)).await;
    assert_eq!(plane.client.readiness().await.unwrap().artifacts, "ready");
    drop(s3);
    let (name, deadline) = (Digest::of(b"hello"), Instant::now() + Duration::from_secs(60));
    while plane.client.readiness().await.unwrap().artifacts != "unreachable" {
        assert!(Instant::now() < deadline, "nobody noticed");
        refusal(plane.client.artifact(&name).await);
    }
    plane.stop().await;
}
