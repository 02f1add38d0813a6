//! Artifacts in a bucket of S3, or of a store that speaks as S3 does.
//!
//! An object is written once, on the condition that there is none of its name, and has its whole content or is not
//! there. A store without conditions is written to without: the same name always has the same bytes.

use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use model::Digest;
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload, RetryConfig,
};
use secrecy::{ExposeSecret, SecretString};

use super::{ArtifactError, key, require_match};

/// How long storing or reading may take altogether: less than a request may.
const PATIENCE: Duration = Duration::from_secs(45);

/// How long an answer may take where only reachability is asked for.
const GLANCE: Duration = Duration::from_secs(3);

/// How long what was last seen of the bucket is believed.
const FRESH: Duration = Duration::from_secs(10);

/// More than may ever be stored: an object that is larger is not of our making.
const LARGEST: u64 = 64 << 20;

/// Which bucket, and how to be let in.
#[derive(Debug, Clone)]
pub struct BucketAccess {
    /// The bucket, and the prefix of its objects.
    pub url: BucketUrl,
    /// The variables that every program for S3 knows, such as `AWS_REGION`, with their values. Those that are not
    /// known here have no effect.
    pub variables: Vec<(String, SecretString)>,
}

/// `s3://BUCKET` or `s3://BUCKET/PREFIX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketUrl {
    bucket: String,
    /// Without a slash at either end; empty for none.
    prefix: String,
}

/// What is wrong with the URL of a bucket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no bucket: write s3://BUCKET or s3://BUCKET/PREFIX")]
pub struct InvalidBucketUrl(String);

impl FromStr for BucketUrl {
    type Err = InvalidBucketUrl;

    fn from_str(text: &str) -> Result<Self, InvalidBucketUrl> {
        let invalid = || InvalidBucketUrl(text.to_owned());
        let rest = text.strip_prefix("s3://").ok_or_else(invalid)?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_end_matches('/');
        let of_a_bucket = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
        let of_a_prefix = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/');
        let is_valid = (3..=63).contains(&bucket.len())
            && bucket.chars().all(of_a_bucket)
            && !prefix.starts_with('/')
            && prefix.chars().all(of_a_prefix)
            && Path::parse(prefix).is_ok();
        if !is_valid {
            return Err(invalid());
        }
        Ok(Self { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

impl BucketUrl {
    fn beneath(&self, key: &str) -> Path {
        if self.prefix.is_empty() { Path::from(key) } else { Path::from(format!("{}/{key}", self.prefix)) }
    }
}

/// The bucket of all artifacts.
pub(crate) struct Bucket {
    url: BucketUrl,
    store: AmazonS3,
    patience: Duration,
    sight: Mutex<Sight>,
}

/// What was last seen of the bucket.
#[derive(Default)]
struct Sight {
    at: Option<Instant>,
    problem: Option<String>,
}

impl Bucket {
    /// Prepares everything to speak to the bucket.
    pub(super) fn open(access: &BucketAccess) -> anyhow::Result<Self> {
        // An installed provider is as good: there is only one in this program.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let store = builder(access)?
            .build()
            .with_context(|| format!("cannot use {} for artifacts with these AWS_ variables", access.url))?;
        Ok(Self { url: access.url.clone(), store, patience: PATIENCE, sight: Mutex::default() })
    }

    #[cfg(test)]
    pub(super) fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    pub(super) async fn put(&self, name: &Digest, bytes: Bytes) -> Result<(), ArtifactError> {
        require_match(name, &bytes)?;
        self.patiently(self.write(name, bytes)).await
    }

    pub(super) async fn get(&self, name: &Digest) -> Result<Bytes, ArtifactError> {
        self.patiently(self.read(name)).await
    }

    pub(super) async fn problem(&self) -> Option<String> {
        if let Some(known) = self.known() {
            return known;
        }
        let nothing = Digest::of(b"");
        let asked = tokio::time::timeout(GLANCE, self.read(&nothing));
        match asked.await.unwrap_or_else(|_| Err(self.silent(GLANCE))) {
            Err(ArtifactError::Unreachable { reason, .. }) => self.saw(Some(reason)),
            // There or not, the bucket answered.
            _ => self.saw(None),
        }
        self.sight.lock().unwrap_or_else(PoisonError::into_inner).problem.clone()
    }

    /// What was seen lately. If that was too long ago, whoever asks next does not look as well.
    fn known(&self) -> Option<Option<String>> {
        let mut sight = self.sight.lock().unwrap_or_else(PoisonError::into_inner);
        if sight.at.is_some_and(|at| at.elapsed() < FRESH) {
            return Some(sight.problem.clone());
        }
        sight.at = Some(Instant::now());
        None
    }

    fn saw(&self, problem: Option<String>) {
        *self.sight.lock().unwrap_or_else(PoisonError::into_inner) =
            Sight { at: Some(Instant::now()), problem };
    }

    /// Bounds the time of a call, and remembers whether the bucket was there.
    async fn patiently<T>(
        &self,
        call: impl Future<Output = Result<T, ArtifactError>>,
    ) -> Result<T, ArtifactError> {
        let outcome = tokio::time::timeout(self.patience, call).await;
        let outcome = outcome.unwrap_or_else(|_| Err(self.silent(self.patience)));
        match &outcome {
            Err(ArtifactError::Unreachable { reason, .. }) => self.saw(Some(reason.clone())),
            _ => self.saw(None),
        }
        outcome
    }

    async fn write(&self, name: &Digest, bytes: Bytes) -> Result<(), ArtifactError> {
        let location = self.url.beneath(&key(name));
        let payload = PutPayload::from(bytes);
        match self.store.put_opts(&location, payload.clone(), PutMode::Create.into()).await {
            Ok(_) => return Ok(()),
            // Storing a damaged one again is how it is restored.
            Err(Error::AlreadyExists { .. }) => match self.read(name).await {
                Err(ArtifactError::Damaged { .. } | ArtifactError::Missing(_)) => {}
                outcome => return outcome.map(drop),
            },
            Err(error @ (Error::PermissionDenied { .. } | Error::Unauthenticated { .. })) => {
                return Err(self.unreachable(&error));
            }
            // The answer was lost, or the store knows no conditions. To write the same once more harms nobody.
            Err(_) => {}
        }
        self.store.put(&location, payload).await.map(drop).map_err(|error| self.unreachable(&error))
    }

    async fn read(&self, name: &Digest) -> Result<Bytes, ArtifactError> {
        let location = self.url.beneath(&key(name));
        let damaged = || {
            let place = format!("s3://{}/{location}", self.url.bucket);
            ArtifactError::Damaged { name: name.clone(), place }
        };
        let found = match self.store.get(&location).await {
            Ok(found) if found.meta.size > LARGEST => return Err(damaged()),
            Ok(found) => found,
            Err(Error::NotFound { source, .. }) if !source.to_string().contains("NoSuchBucket") => {
                return Err(ArtifactError::Missing(name.clone()));
            }
            Err(error) => return Err(self.unreachable(&error)),
        };
        let bytes = found.bytes().await.map_err(|error| self.unreachable(&error))?;
        if Digest::of(&bytes) == *name { Ok(bytes) } else { Err(damaged()) }
    }

    fn unreachable(&self, error: &Error) -> ArtifactError {
        ArtifactError::Unreachable {
            place: self.url.to_string(),
            reason: without_credentials(&error.to_string()),
        }
    }

    fn silent(&self, waited: Duration) -> ArtifactError {
        let reason = format!("no answer in {waited:?}");
        ArtifactError::Unreachable { place: self.url.to_string(), reason }
    }
}

fn builder(access: &BucketAccess) -> anyhow::Result<AmazonS3Builder> {
    let backoff = BackoffConfig { init_backoff: Duration::from_millis(100), ..BackoffConfig::default() };
    let retry = RetryConfig { backoff, max_retries: 3, retry_timeout: Duration::from_secs(15) };
    let options = ClientOptions::new().with_connect_timeout(Duration::from_secs(5));
    let mut builder = AmazonS3Builder::new().with_retry(retry).with_client_options(options);
    for (name, value) in &access.variables {
        let value = value.expose_secret();
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>()
            && !value.is_empty()
        {
            builder = builder.with_config(key, value);
        }
    }
    let endpoint = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint]
        .iter()
        .find_map(|key| builder.get_config_value(key));
    Ok(allow_plain_http(builder, endpoint.as_deref())?.with_bucket_name(&access.url.bucket))
}

/// Without TLS only on this machine, or where it was asked for.
fn allow_plain_http(builder: AmazonS3Builder, endpoint: Option<&str>) -> anyhow::Result<AmazonS3Builder> {
    let Some(host) = endpoint.and_then(|endpoint| endpoint.strip_prefix("http://")) else {
        return Ok(builder);
    };
    let is_here = ["127.0.0.1", "localhost", "[::1]"].iter().any(|here| {
        host.strip_prefix(here).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
    });
    let key = AmazonS3ConfigKey::Client(object_store::ClientConfigKey::AllowHttp);
    let is_asked_for = builder.get_config_value(&key).is_some_and(|value| value == "true");
    anyhow::ensure!(
        is_here || is_asked_for,
        "AWS_ENDPOINT_URL begins with http:// and is beyond this machine, where anybody on the way could read and change artifacts: write https://, or set AWS_ALLOW_HTTP=true"
    );
    Ok(builder.with_allow_http(true))
}

/// What a store said, shortened to its code and message: the rest of its XML may repeat a session token.
fn without_credentials(told: &str) -> String {
    let Some((before, body)) = told.split_once('<') else { return told.to_owned() };
    let within = |tag: &str| {
        let (_, rest) = body.split_once(&format!("<{tag}>"))?;
        rest.split_once(&format!("</{tag}>")).map(|(text, _)| text)
    };
    match (within("Code"), within("Message")) {
        (Some(code), Some(message)) => format!("{before}{code}: {message}"),
        (Some(only), None) | (None, Some(only)) => format!("{before}{only}"),
        (None, None) => before.trim_end_matches([' ', ':']).to_owned(),
    }
}
