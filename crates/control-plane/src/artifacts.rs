//! Files of attempts, each under the SHA-256 of its content: storing the same twice changes nothing, and what is
//! read is what was stored or an error. The store does not know what a file is for.

mod bucket;
mod folder;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::Digest;

use self::bucket::Bucket;
pub use self::bucket::{BucketAccess, BucketUrl, InvalidBucketUrl};
use self::folder::Folder;

/// Where the files of attempts are kept.
#[derive(Debug, Clone)]
pub enum ArtifactPlace {
    /// In the folder `artifacts` of the data folder.
    DataFolder,
    /// In a bucket of S3, or of a store that speaks as S3 does.
    Bucket(BucketAccess),
}

/// All artifacts, wherever they are kept.
pub(crate) enum Artifacts {
    Folder(Folder),
    Bucket(Bucket),
}

/// Why bytes could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArtifactError {
    /// The bytes are not those of the name.
    #[error("the bytes are those of {actual}, not of {expected}")]
    Mismatch {
        /// The name that was given.
        expected: Digest,
        /// The name that the bytes have.
        actual: Digest,
    },
    /// Nothing has that name.
    #[error("there is no artifact {0}")]
    Missing(Digest),
    /// What is stored under the name has changed.
    #[error("the artifact {name} is damaged: what {place} holds is not what was stored")]
    Damaged {
        /// Its name.
        name: Digest,
        /// The file or object that holds something else.
        place: String,
    },
    /// There is no space.
    #[error("the disk that holds the artifacts is full")]
    Full,
    /// The file system failed.
    #[error("cannot keep artifacts in {}: {source}", .folder.display())]
    Io {
        /// The folder.
        folder: PathBuf,
        /// What failed.
        #[source]
        source: io::Error,
    },
    /// The bucket does not answer, or not to us.
    #[error("the artifacts in {place} cannot be reached: {reason}")]
    Unreachable {
        /// The bucket.
        place: String,
        /// What was said instead, without anything secret.
        reason: String,
    },
}

impl Artifacts {
    /// Opens the place, making the folder if it is not there. Nothing is asked of a bucket yet.
    pub(crate) fn open(place: &ArtifactPlace, data: &Path) -> anyhow::Result<Self> {
        Ok(match place {
            ArtifactPlace::DataFolder => Self::Folder(Folder::open(&data.join("artifacts"))?),
            ArtifactPlace::Bucket(access) => Self::Bucket(Bucket::open(access)?),
        })
    }

    /// Stores `bytes`, durable before it returns, if they are those of `name`.
    pub(crate) async fn put(&self, name: &Digest, bytes: Bytes) -> Result<(), ArtifactError> {
        match self {
            Self::Folder(folder) => {
                let (folder, name) = (folder.clone(), name.clone());
                on_a_thread(move || folder.put(&name, &bytes)).await
            }
            Self::Bucket(bucket) => bucket.put(name, bytes).await,
        }
    }

    /// The bytes of `name`, verified.
    pub(crate) async fn get(&self, name: &Digest) -> Result<Bytes, ArtifactError> {
        match self {
            Self::Folder(folder) => {
                let (folder, name) = (folder.clone(), name.clone());
                on_a_thread(move || folder.get(&name)).await
            }
            Self::Bucket(bucket) => bucket.get(name).await,
        }
    }

    /// Why nothing can be stored or read now, as far as is known. Asks a bucket at most every ten seconds.
    pub(crate) async fn problem(&self) -> Option<String> {
        match self {
            Self::Folder(_) => None,
            Self::Bucket(bucket) => bucket.problem().await,
        }
    }
}

/// Refuses bytes that are not those of `name`.
fn require_match(name: &Digest, bytes: &[u8]) -> Result<(), ArtifactError> {
    let actual = Digest::of(bytes);
    if actual == *name { Ok(()) } else { Err(ArtifactError::Mismatch { expected: name.clone(), actual }) }
}

/// Where an artifact is beneath the folder or prefix of all of them. The same everywhere, so that a folder can be
/// copied into a bucket as it is.
fn key(name: &Digest) -> String {
    format!("sha256/{}/{}", &name.as_str()[..2], name.as_str())
}

/// Runs what may block; a panic of it goes on here.
async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}
