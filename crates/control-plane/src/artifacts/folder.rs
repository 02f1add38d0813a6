//! Artifacts in a folder of this machine.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use model::Digest;

use super::{ArtifactError, key, require_match};

/// The folder of all artifacts.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Opens the folder, making it if it is not there.
    pub(super) fn open(path: &Path) -> Result<Self, ArtifactError> {
        let folder = Self { path: path.to_owned() };
        fs::create_dir_all(folder.path.join("sha256")).map_err(|source| folder.error(source))?;
        Ok(folder)
    }

    /// Stores `bytes`, durable before it returns, if they are those of `name`.
    pub(super) fn put(&self, name: &Digest, bytes: &[u8]) -> Result<(), ArtifactError> {
        require_match(name, bytes)?;
        if self.get(name).is_ok() {
            return Ok(());
        }
        self.write(name, bytes).map_err(|source| self.error(source))
    }

    /// The bytes of `name`, verified.
    pub(super) fn get(&self, name: &Digest) -> Result<Bytes, ArtifactError> {
        let path = self.file(name);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(ArtifactError::Missing(name.clone()));
            }
            Err(source) => return Err(self.error(source)),
        };
        if Digest::of(&bytes) != *name {
            return Err(ArtifactError::Damaged { name: name.clone(), place: path.display().to_string() });
        }
        Ok(bytes.into())
    }

    /// Writes beside the final name and renames: whoever looks sees all of the file or none.
    fn write(&self, name: &Digest, bytes: &[u8]) -> io::Result<()> {
        let path = self.file(name);
        let folder = path.parent().unwrap_or(&self.path);
        fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        File::open(folder)?.sync_all()?;
        // The folder of the first two digits may be new as well.
        File::open(self.path.join("sha256"))?.sync_all()
    }

    fn file(&self, name: &Digest) -> PathBuf {
        self.path.join(key(name))
    }

    fn error(&self, source: io::Error) -> ArtifactError {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            return ArtifactError::Full;
        }
        ArtifactError::Io { folder: self.path.clone(), source }
    }
}
