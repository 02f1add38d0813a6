//! What holds wherever artifacts are kept, and what a bucket adds: a network that fails.

use std::fs;
use std::time::{Duration, Instant};

use secrecy::SecretString;
use test_support::s3::{BUCKET, Fault, S3, SECRET};

use super::*;

/// Holds a place to the contract. `damage` writes other bytes under a key; `keys` lists what is there.
async fn conforms(artifacts: &Artifacts, damage: impl Fn(&str, &[u8]), keys: impl Fn() -> Vec<String>) {
    let (name, other) = (Digest::of(b"hello"), Digest::of(b""));
    assert!(matches!(artifacts.get(&name).await, Err(ArtifactError::Missing(missing)) if missing == name));
    let mismatch = artifacts.put(&name, Bytes::from_static(b"other")).await;
    assert!(matches!(mismatch, Err(ArtifactError::Mismatch { .. })));
    assert!(keys().is_empty(), "what was refused left nothing");

    let hello = || Bytes::from_static(b"hello");
    let (first, second) = tokio::join!(artifacts.put(&name, hello()), artifacts.put(&name, hello()));
    first.unwrap();
    second.unwrap();
    artifacts.put(&name, hello()).await.unwrap();
    artifacts.put(&other, Bytes::new()).await.unwrap();
    assert_eq!(artifacts.get(&name).await.unwrap(), hello());
    assert_eq!(artifacts.get(&other).await.unwrap(), Bytes::new());
    assert_eq!(keys().len(), 2, "{:?}", keys());

    for bytes in [&b"hellO"[..], b"hell", b"", b"hello "] {
        damage(&key(&name), bytes);
        let error = artifacts.get(&name).await.unwrap_err();
        assert!(matches!(error, ArtifactError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(name.as_str()), "{error}");
        // Storing it again is how it is restored.
        artifacts.put(&name, hello()).await.unwrap();
        assert_eq!(artifacts.get(&name).await.unwrap(), hello());
    }
    assert_eq!(keys().len(), 2, "no unfinished files are left");
    assert_eq!(artifacts.problem().await, None);
}

#[tokio::test]
async fn a_folder_conforms() {
    let data = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::open(&ArtifactPlace::DataFolder, data.path()).unwrap();
    let folder = data.path().join("artifacts");
    conforms(&artifacts, |key, bytes| fs::write(folder.join(key), bytes).unwrap(), || files(&folder)).await;
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path.display().to_string()] })
        .collect()
}

fn access(s3: &S3, url: &str) -> BucketAccess {
    let variables = s3.variables().map(|(name, value)| (name.to_owned(), SecretString::from(value)));
    BucketAccess { url: url.parse().unwrap(), variables: variables.into() }
}

fn bucket(access: &BucketAccess) -> Artifacts {
    Artifacts::Bucket(Bucket::open(access).unwrap().with_patience(Duration::from_secs(5)))
}

#[tokio::test]
async fn a_bucket_conforms_with_a_prefix_and_without() {
    for (url, prefix) in [("", ""), ("/", ""), ("/kept/here", "kept/here/")] {
        let s3 = S3::start().await;
        let artifacts = bucket(&access(&s3, &format!("s3://{BUCKET}{url}")));
        conforms(&artifacts, |key, bytes| s3.replace(&format!("{prefix}{key}"), bytes), || s3.keys()).await;
    }
}

#[tokio::test]
async fn a_bucket_without_conditions_conforms() {
    let s3 = S3::start().await;
    s3.know_no_conditions();
    let artifacts = bucket(&access(&s3, &format!("s3://{BUCKET}")));
    conforms(&artifacts, |key, bytes| s3.replace(key, bytes), || s3.keys()).await;
}

#[tokio::test]
async fn what_is_there_is_not_written_again() {
    let s3 = S3::start().await;
    let artifacts = bucket(&access(&s3, &format!("s3://{BUCKET}")));
    let name = Digest::of(b"hello");
    artifacts.put(&name, Bytes::from_static(b"hello")).await.unwrap();
    artifacts.put(&name, Bytes::from_static(b"hello")).await.unwrap();
    let path = format!("/{BUCKET}/{}", key(&name));
    assert_eq!(s3.seen(), [format!("PUT {path} 200"), format!("PUT {path} 412"), format!("GET {path} 200")]);
}

/// A fault of the network or of the store is tried again; what was stored is stored once and whole.
#[tokio::test]
async fn a_lost_answer_or_a_failing_server_is_met_by_asking_again() {
    for faults in [
        &[Fault::LostAnswer][..],
        &[Fault::Status(500)],
        &[Fault::Status(503), Fault::LostAnswer],
        &[Fault::LostAnswer, Fault::LostAnswer],
    ] {
        let s3 = S3::start().await;
        let artifacts = bucket(&access(&s3, &format!("s3://{BUCKET}")));
        let name = Digest::of(b"hello");
        s3.next(faults);
        artifacts.put(&name, Bytes::from_static(b"hello")).await.unwrap();
        assert_eq!(s3.object(&key(&name)).unwrap(), "hello", "{faults:?}");
        s3.next(faults);
        assert_eq!(artifacts.get(&name).await.unwrap(), "hello", "{faults:?}");
        assert_eq!(s3.keys().len(), 1);
    }
}

#[tokio::test]
async fn a_wrong_bit_on_the_way_is_never_served() {
    let s3 = S3::start().await;
    let artifacts = bucket(&access(&s3, &format!("s3://{BUCKET}")));
    let name = Digest::of(b"hello");
    artifacts.put(&name, Bytes::from_static(b"hello")).await.unwrap();
    s3.next(&[Fault::FlippedBit]);
    assert!(matches!(artifacts.get(&name).await, Err(ArtifactError::Damaged { .. })));
    assert_eq!(artifacts.get(&name).await.unwrap(), "hello");
}

#[tokio::test]
async fn a_store_that_says_nothing_is_not_waited_for_longer_than_allowed() {
    let s3 = S3::start().await;
    let opened = Bucket::open(&access(&s3, &format!("s3://{BUCKET}"))).unwrap();
    let artifacts = Artifacts::Bucket(opened.with_patience(Duration::from_millis(300)));
    let began = Instant::now();
    s3.next(&[Fault::Silence, Fault::Silence]);
    let name = Digest::of(b"hello");
    for outcome in
        [artifacts.get(&name).await.map(drop), artifacts.put(&name, Bytes::from_static(b"hello")).await]
    {
        let error = outcome.unwrap_err();
        assert!(matches!(error, ArtifactError::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains("no answer in 300ms"), "{error}");
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(artifacts.problem().await.unwrap().contains("no answer"));
    // It is believed again as soon as it does something.
    artifacts.put(&name, Bytes::from_static(b"hello")).await.unwrap();
    assert_eq!(artifacts.problem().await, None);
}

/// A store that lets nobody in says why; nothing of that is a secret afterwards.
#[tokio::test]
async fn whoever_is_not_let_in_learns_why_without_a_secret() {
    let s3 = S3::start().await;
    let whole = format!("s3://{BUCKET}");
    for (url, variable, value, told) in [
        (&*whole, "AWS_SECRET_ACCESS_KEY", "wrong", "SignatureDoesNotMatch"),
        (&*whole, "AWS_ACCESS_KEY_ID", "AKIAOTHER", "InvalidAccessKeyId"),
        (&*whole, "AWS_REGION", "us-east-1", "AuthorizationHeaderMalformed"),
        (&*whole, "AWS_SKIP_SIGNATURE", "true", "AccessDenied: The request is not signed."),
        (&*whole, "AWS_UNSIGNED_PAYLOAD", "true", "XAmzContentSHA256Mismatch"),
        ("s3://another", "AWS_REGION", test_support::s3::REGION, "NoSuchBucket"),
    ] {
        let mut access = access(&s3, url);
        access.variables.push((variable.to_owned(), SecretString::from(value)));
        let artifacts = bucket(&access);
        let name = Digest::of(b"hello");
        for outcome in
            [artifacts.put(&name, Bytes::from_static(b"hello")).await, artifacts.get(&name).await.map(drop)]
        {
            let error = outcome.unwrap_err();
            assert!(matches!(error, ArtifactError::Unreachable { .. }), "{variable}: {error}");
            let said = format!("{error} {error:?}");
            assert!(said.contains(told), "{said}");
            assert!(!said.contains(SECRET), "{said}");
        }
        assert!(artifacts.problem().await.unwrap().contains(told));
        assert!(!format!("{access:?}").contains(SECRET));
    }
    assert!(s3.keys().is_empty());
}

#[test]
fn only_what_names_a_bucket_is_one() {
    for (text, shown) in [
        ("s3://artifacts", "s3://artifacts"),
        ("s3://artifacts/", "s3://artifacts"),
        ("s3://my.bucket-1/a/b_c/", "s3://my.bucket-1/a/b_c"),
    ] {
        assert_eq!(text.parse::<BucketUrl>().unwrap().to_string(), shown);
    }
    for text in [
        "",
        "artifacts",
        "s3:/artifacts",
        "s3://",
        "s3:///prefix",
        "s3://ab",
        "s3://Bucket",
        "s3://a_b_c",
        "s3://bucket//a",
        "s3://bucket/a/../b",
        "s3://bucket/a?b",
        "s3://key:secret@bucket",
        "https://bucket",
        "file:///tmp",
    ] {
        let error = text.parse::<BucketUrl>().unwrap_err().to_string();
        assert!(error.contains("write s3://BUCKET"), "{error}");
    }
}

#[test]
fn without_tls_only_on_this_machine_or_on_request() {
    let open = |endpoint: &str, allowed: &str| {
        let variables = [("AWS_ENDPOINT_URL", endpoint), ("AWS_ALLOW_HTTP", allowed)]
            .map(|(name, value)| (name.to_owned(), SecretString::from(value)));
        Bucket::open(&BucketAccess { url: "s3://bucket".parse().unwrap(), variables: variables.into() })
    };
    for (endpoint, allowed) in [
        ("http://127.0.0.1:9000", ""),
        ("http://localhost", ""),
        ("http://[::1]:9000/", ""),
        ("https://s3.example", ""),
        ("http://minio:9000", "true"),
    ] {
        assert!(open(endpoint, allowed).is_ok(), "{endpoint}");
    }
    for endpoint in ["http://minio:9000", "http://localhost.example", "http://127.0.0.1.example:9000"] {
        let error = open(endpoint, "").map(drop).unwrap_err().to_string();
        assert!(error.contains("AWS_ALLOW_HTTP"), "{error}");
    }
}
