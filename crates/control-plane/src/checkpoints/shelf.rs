//! Where the newest checkpoint is kept: in a file beside the journal, or in the database of the log.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use secrecy::SecretString;
use tokio_postgres::types::{ToSql, Type};

use super::Signed;
use crate::durable;
use crate::store::postgres::{Connection, OpenError, Sessions};

/// One place for one checkpoint, which is only ever replaced by whoever has seen what is there.
pub(crate) trait Shelf: Send + Sync {
    /// The note that is there.
    fn read(&self) -> Result<Option<String>, ShelfError>;

    /// Puts `next` there, durably, if `known` is what is there. A crash leaves the one or the other.
    fn replace(&self, known: Option<&str>, next: &Signed) -> Result<bool, ShelfError>;

    /// Whether other processes put checkpoints there too.
    fn is_shared(&self) -> bool;

    /// How a message calls the place.
    fn place(&self) -> String;
}

/// The place of the checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{action} the checkpoint in {place}: {reason}")]
pub(crate) struct ShelfError {
    action: &'static str,
    place: String,
    reason: String,
}

/// A file that one process writes.
pub(crate) struct FileShelf {
    file: PathBuf,
}

impl FileShelf {
    pub(crate) fn new(file: PathBuf) -> Self {
        Self { file }
    }

    fn failed(&self, action: &'static str) -> impl Fn(io::Error) -> ShelfError {
        move |error| ShelfError { action, place: self.place(), reason: error.to_string() }
    }

    fn write(&self, note: &str) -> io::Result<()> {
        durable::write_whole(&self.file, &[note.as_bytes()])?;
        durable::sync_folder(self.file.parent().unwrap_or(Path::new(".")))
    }
}

impl Shelf for FileShelf {
    fn read(&self) -> Result<Option<String>, ShelfError> {
        match fs::read_to_string(&self.file) {
            Ok(note) => Ok(Some(note)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("cannot read")(error)),
        }
    }

    fn replace(&self, known: Option<&str>, next: &Signed) -> Result<bool, ShelfError> {
        if self.read()?.as_deref() != known {
            return Ok(false);
        }
        self.write(&next.note).map_err(self.failed("cannot write"))?;
        Ok(true)
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn place(&self) -> String {
        self.file.display().to_string()
    }
}

/// A row that every control plane of the log may replace. The database refuses one of fewer records.
pub(crate) struct TableShelf {
    sessions: Sessions,
    connection: Mutex<Option<Connection>>,
}

impl TableShelf {
    /// The row in the database of `url`. Nothing is asked of it yet.
    pub(crate) fn new(url: &SecretString) -> Result<Self, OpenError> {
        Ok(Self { sessions: Sessions::new(url)?, connection: Mutex::default() })
    }

    fn ask<T>(
        &self,
        action: &'static str,
        work: impl AsyncFn(&Connection) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, ShelfError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let done = self.sessions.retried(&mut connection, work);
        done.map_err(|trouble| ShelfError { action, place: self.place(), reason: trouble.to_string() })
    }
}

impl Shelf for TableShelf {
    fn read(&self) -> Result<Option<String>, ShelfError> {
        let query = "SELECT note FROM leviathan.checkpoint";
        let row = self.ask("cannot read", async |it| it.client.query_opt(query, &[]).await)?;
        Ok(row.map(|row| row.get(0)))
    }

    /// Where the answer was lost, whoever asks again is told that another one is there: its own.
    fn replace(&self, known: Option<&str>, next: &Signed) -> Result<bool, ShelfError> {
        let size = i64::try_from(next.checkpoint.size).expect("a log has fewer than 2^63 records");
        let statement = match known {
            None => {
                "INSERT INTO leviathan.checkpoint (size, note) SELECT $1, $2 WHERE $3 IS NULL ON CONFLICT DO NOTHING"
            }
            Some(_) => "UPDATE leviathan.checkpoint SET size = $1, note = $2 WHERE note = $3",
        };
        let parameters: [(&(dyn ToSql + Sync), Type); 3] =
            [(&size, Type::INT8), (&next.note, Type::TEXT), (&known, Type::TEXT)];
        let changed =
            self.ask("cannot replace", async |it| it.client.execute_typed(statement, &parameters).await)?;
        Ok(changed == 1)
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn place(&self) -> String {
        "the table leviathan.checkpoint".to_owned()
    }
}
