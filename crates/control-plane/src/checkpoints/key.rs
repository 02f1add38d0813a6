//! The key that signs what the log looks like: given by the operator, or made once and kept in the data folder.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use journal::{KeyError, KeyName, SigningKey};
use secrecy::{ExposeSecret, SecretString};

/// Why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoKey {
    /// What was given is none.
    #[error("LEVIATHAN_LOG_KEY cannot be used: {0}")]
    Given(KeyError),
    /// What is kept is none.
    #[error("the key in {} cannot be used: {problem}; restore the file from a backup", .file.display())]
    Kept {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: KeyError,
    },
    /// It is another log's.
    #[error(
        "the key is that of the log `{key}`, but this log is `{log}`: give the key that signed this log's checkpoints; if none was ever signed, make one with `leviathanctl log keygen {log} FILE`"
    )]
    Foreign {
        /// The name of the key.
        key: KeyName,
        /// The name of the log.
        log: KeyName,
    },
    /// A log that was signed before has no key any more.
    #[error(
        "this log was signed before, but its key {} is gone: restore it from a backup, or give it in LEVIATHAN_LOG_KEY",
        .0.display()
    )]
    Gone(PathBuf),
    /// The file system failed.
    #[error("{action} {}: {source}", .file.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        file: PathBuf,
        /// What failed.
        source: io::Error,
    },
}

/// Reads a key that the operator gave.
pub(crate) fn given(text: &SecretString) -> Result<SigningKey, NoKey> {
    SigningKey::parse(text.expose_secret().trim()).map_err(NoKey::Given)
}

/// The key kept in `file`. If there is none, makes one for the log `name`, unless that was signed before.
pub(super) fn kept(file: &Path, name: &KeyName, was_signed: bool) -> Result<SigningKey, NoKey> {
    match fs::read_to_string(file) {
        Ok(text) => {
            let is_private = fs::metadata(file).is_ok_and(|file| file.permissions().mode() & 0o077 == 0);
            if !is_private {
                tracing::warn!(file = %file.display(), "Others on this machine can read the key that signs the log: make it `chmod 600`.");
            }
            SigningKey::parse(text.trim()).map_err(|problem| NoKey::Kept { file: file.into(), problem })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && was_signed => Err(NoKey::Gone(file.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let io = |source| NoKey::Io { action: "cannot make the key", file: file.into(), source };
            let key = SigningKey::from_seed(name.clone(), &random().map_err(io)?);
            keep(file, &key).map_err(io)?;
            Ok(key)
        }
        Err(source) => Err(NoKey::Io { action: "cannot read the key", file: file.into(), source }),
    }
}

fn random() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(seed)
}

/// Writes the key for its owner alone, durable before anything is signed with it.
fn keep(file: &Path, key: &SigningKey) -> io::Result<()> {
    let unfinished = file.with_extension("new");
    let mut written =
        File::options().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    written.set_permissions(Permissions::from_mode(0o600))?;
    writeln!(written, "{}", key.to_secret_text())?;
    written.sync_all()?;
    fs::rename(&unfinished, file)?;
    File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
}
