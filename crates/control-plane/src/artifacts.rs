//! Files of attempts, each under the SHA-256 of its content: storing the same twice changes nothing, and what is
//! read is what was stored or an error. The store does not know what a file is for.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use model::Digest;

/// The folder of all artifacts.
#[derive(Debug, Clone)]
pub(crate) struct Artifacts {
    folder: PathBuf,
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
    #[error("the artifact in {} is damaged: restore it from a backup", .0.display())]
    Damaged(PathBuf),
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
}

impl Artifacts {
    /// Opens the folder, making it if it is not there.
    pub(crate) fn open(folder: &Path) -> Result<Self, ArtifactError> {
        let artifacts = Self { folder: folder.to_owned() };
        fs::create_dir_all(artifacts.folder.join("sha256")).map_err(|source| artifacts.error(source))?;
        Ok(artifacts)
    }

    /// Stores `bytes`, durable before it returns, if they are those of `name`.
    pub(crate) fn put(&self, name: &Digest, bytes: &[u8]) -> Result<(), ArtifactError> {
        let actual = Digest::of(bytes);
        if actual != *name {
            return Err(ArtifactError::Mismatch { expected: name.clone(), actual });
        }
        if self.get(name).is_ok() {
            return Ok(());
        }
        self.write(name, bytes).map_err(|source| self.error(source))
    }

    /// The bytes of `name`, verified.
    pub(crate) fn get(&self, name: &Digest) -> Result<Vec<u8>, ArtifactError> {
        let path = self.path(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ArtifactError::Missing(name.clone()));
            }
            Err(source) => return Err(self.error(source)),
        };
        if Digest::of(&bytes) == *name { Ok(bytes) } else { Err(ArtifactError::Damaged(path)) }
    }

    /// Writes beside the final name and renames: whoever looks sees all of the file or none.
    fn write(&self, name: &Digest, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(name);
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()?;
        // The folder of the first two digits may be new as well.
        File::open(self.folder.join("sha256"))?.sync_all()
    }

    fn path(&self, name: &Digest) -> PathBuf {
        self.folder.join("sha256").join(&name.as_str()[..2]).join(name.as_str())
    }

    fn error(&self, source: io::Error) -> ArtifactError {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return ArtifactError::Full;
        }
        ArtifactError::Io { folder: self.folder.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_artifact_is_what_its_name_says_or_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(folder.path()).unwrap();
        let name = Digest::of(b"hello");
        assert!(matches!(artifacts.get(&name), Err(ArtifactError::Missing(_))));
        assert!(matches!(artifacts.put(&name, b"other"), Err(ArtifactError::Mismatch { .. })));
        artifacts.put(&name, b"hello").unwrap();
        artifacts.put(&name, b"hello").unwrap();
        assert_eq!(artifacts.get(&name).unwrap(), b"hello");

        fs::write(artifacts.path(&name), b"hellO").unwrap();
        assert!(matches!(artifacts.get(&name), Err(ArtifactError::Damaged(_))));
        // Storing it again is how it is restored.
        artifacts.put(&name, b"hello").unwrap();
        assert_eq!(artifacts.get(&name).unwrap(), b"hello");
        let beside = fs::read_dir(artifacts.path(&name).parent().unwrap()).unwrap().count();
        assert_eq!(beside, 1, "no unfinished files are left");
    }
}
