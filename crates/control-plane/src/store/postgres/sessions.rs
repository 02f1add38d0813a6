//! Sessions with the database for threads that may block, and what can go wrong in them.

use std::future::Future;

use secrecy::SecretString;
use tokio::runtime::Runtime;
use tokio_postgres::error::SqlState;

use super::OpenError;
use super::connection::{Connection, PATIENCE};
use super::schema::said;

/// Where sessions are opened, and what carries their traffic.
pub(crate) struct Sessions {
    url: SecretString,
    /// Taken only by `drop`, which may run where blocking is forbidden.
    runtime: Option<Runtime>,
}

impl Sessions {
    /// Sessions with the role of `url`. None is opened yet.
    pub(crate) fn new(url: &SecretString) -> Result<Self, OpenError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("postgres")
            .enable_all()
            .build()?;
        Ok(Self { url: url.clone(), runtime: Some(runtime) })
    }

    /// Waits for `work`, which sets its own limits.
    pub(super) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("the runtime is there until this is dropped").block_on(work)
    }

    /// Waits for `work`, but not for ever.
    pub(super) fn wait<T, E>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, Trouble>
    where
        Trouble: From<E>,
    {
        self.block_on(async {
            match tokio::time::timeout(PATIENCE, work).await {
                Ok(done) => Ok(done?),
                Err(_) => Err(Trouble::Silent),
            }
        })
    }

    /// Does `work` on a connection. One that has been idle may have died unnoticed: then again on a new one.
    pub(crate) fn retried<T>(
        &self,
        slot: &mut Option<Connection>,
        work: impl AsyncFn(&Connection) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, Trouble> {
        loop {
            let is_new = slot.is_none();
            let connection = match slot.take() {
                Some(connection) => connection,
                None => self.wait(Connection::open(&self.url))?,
            };
            match self.wait(work(&connection)) {
                Ok(done) => {
                    *slot = Some(connection);
                    return Ok(done);
                }
                Err(trouble) if is_new || !trouble.is_lost() => return Err(trouble),
                Err(_) => {}
            }
        }
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What went wrong between us and the server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("{0}")]
    Connecting(#[from] OpenError),
    #[error("{}", said(.0))]
    Asking(#[from] tokio_postgres::Error),
    #[error("the database does not answer")]
    Silent,
}

impl Trouble {
    /// Whether the connection died, or was ended by the server, rather than that something was refused on it.
    fn is_lost(&self) -> bool {
        match self {
            Self::Connecting(_) | Self::Silent => false,
            Self::Asking(error) => match error.as_db_error() {
                None => true,
                Some(said) => matches!(
                    *said.code(),
                    SqlState::ADMIN_SHUTDOWN
                        | SqlState::CRASH_SHUTDOWN
                        | SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
                        | SqlState::IDLE_SESSION_TIMEOUT
                ),
            },
        }
    }

    pub(super) fn is(&self, state: &SqlState) -> bool {
        matches!(self, Self::Asking(error) if error.code() == Some(state))
    }

    /// Whether the database holds something else than we believe, or computes something else.
    pub(super) fn is_disagreement(&self) -> bool {
        let Self::Asking(error) = self else { return false };
        error.code().is_some_and(|code| {
            matches!(code.code(), "LV002" | "LV003") || *code == SqlState::UNIQUE_VIOLATION
        })
    }
}
