//! The log in a PostgreSQL database, shared by any number of control planes.
//!
//! A turn is a transaction that holds the one row of `chain_head` locked, so numbers have no gaps and are seen in
//! their order. The database computes every hash itself and refuses what does not agree with ours. The role of the
//! daily work may look, and call two functions; it cannot write a table. Reads use connections of their own and
//! never wait for a turn. What stands in the tables is believed no more than a file: every record is verified.

mod connection;
mod schema;
mod sessions;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future;
use journal::{Bundle, BundleId, CanonicalBody, ChainHash, Head, Record, Unchained};
use secrecy::SecretString;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, SimpleQueryMessage};

use self::connection::chain_hash;
pub(crate) use self::connection::{Connection, PATIENCE};
pub(crate) use self::schema::said;
pub(crate) use self::sessions::Sessions;
use super::{AppendError, EventStore, ReadError, Turn, chained};

/// How often a reader looks for what others recorded.
const POLL: Duration = Duration::from_millis(75);

/// How many reads are served at once; more wait for each other.
const READERS: usize = 3;

/// The most bytes of bodies that one read takes, unless a single record is longer.
const READ_BYTES: i64 = 4 * 1024 * 1024;

/// A log in a database.
pub(crate) struct PostgresStore {
    sessions: Sessions,
    origin: String,
    /// The end of the log as far as every record up to it was verified, or is of our making.
    known: Mutex<Head>,
    writer: Mutex<Writer>,
    readers: [Mutex<Option<Connection>>; READERS],
    next_reader: AtomicUsize,
}

/// The connection that appends.
#[derive(Default)]
struct Writer {
    connection: Option<Connection>,
    poison: Option<String>,
}

/// Why a database cannot be worked with as a log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The URL cannot be read.
    #[error(
        "LEVIATHAN_POSTGRES_URL or LEVIATHAN_POSTGRES_OWNER_URL cannot be used ({0}): expected such as postgres://role:password@host:5432/database?sslmode=require"
    )]
    Url(String),
    /// The URL would send everything in the clear, and does not say that it shall.
    #[error(
        "the URL of PostgreSQL names another machine but no sslmode: add sslmode=require, or sslmode=disable where the network itself is trusted"
    )]
    Plain,
    /// Nothing to trust.
    #[error(
        "the URL of PostgreSQL asks for TLS, but there are no certificates to trust: install the system's, or name a file with SSL_CERT_FILE"
    )]
    NoCertificates,
    /// Nobody answers.
    #[error(
        "PostgreSQL cannot be reached ({0}): see that it runs, and that the URL, role and password are right"
    )]
    Unreachable(String),
    /// Too old.
    #[error("the server is PostgreSQL {found}: version {oldest} or newer is needed")]
    OldServer {
        /// Its version.
        found: i32,
        /// The oldest that will do.
        oldest: i32,
    },
    /// Not UTF-8.
    #[error(
        "the database has the encoding {0}: make one with `createdb --encoding=UTF8 --template=template0`"
    )]
    Encoding(String),
    /// A crash could take back what was answered for.
    #[error(
        "PostgreSQL runs with {0}=off, so a crash could take back what was recorded: set {0}=on (also for this role and database: see `\\drds` in psql), then start again"
    )]
    NotDurable(&'static str),
    /// Another version made the schema.
    #[error(
        "the schema `leviathan` has version {found}, this program works with {known}: use the program that fits, or migrate with LEVIATHAN_POSTGRES_OWNER_URL"
    )]
    Version {
        /// Its version.
        found: i32,
        /// Ours.
        known: i32,
    },
    /// The role may not do what is needed.
    #[error(
        "the role of the URL may not make or use the schema `leviathan` ({0}): set LEVIATHAN_POSTGRES_OWNER_URL to the URL of a role that may create a schema in this database"
    )]
    NotAllowed(String),
    /// The head row is not that of the records.
    #[error(
        "the head of the log says that it ends with record {seq}, but that record is not there or has another hash: the database was altered. Restore it from a backup"
    )]
    Head {
        /// The number in the head row.
        seq: u64,
    },
    /// Something else failed.
    #[error("{action}: {reason}")]
    Failed {
        /// What was tried.
        action: &'static str,
        /// What the server said.
        reason: String,
    },
    /// No thread for the traffic.
    #[error("cannot start the threads that talk to PostgreSQL")]
    Runtime(#[from] std::io::Error),
}

impl PostgresStore {
    /// Opens the log in the database of `url`, making it under the name `new_origin` if there is none. With an
    /// `owner` the schema is made and the role of `url` allowed to use it; without, `url` itself must be able to.
    /// Blocks: not for an async thread.
    pub(crate) fn open(
        url: &SecretString,
        owner: Option<&SecretString>,
        new_origin: &str,
    ) -> Result<Self, OpenError> {
        let sessions = Sessions::new(url)?;
        let (connection, found) = sessions.block_on(async {
            if let Some(owner) = owner {
                schema::prepare(owner, connection::role_of(url)?.as_deref(), new_origin).await?;
            }
            let connection = Connection::open(url).await?;
            if owner.is_none() && !schema::is_current(&connection).await? {
                schema::prepare(url, None, new_origin).await?;
            }
            let found = schema::check(&connection).await?;
            Ok::<_, OpenError>((connection, found))
        })?;
        tracing::info!(journal.head = found.head.seq, "Opened the log in PostgreSQL.");
        Ok(Self {
            sessions,
            // Nothing is verified yet: the first reader begins at the first record.
            known: Mutex::new(Head::genesis(&found.origin)),
            origin: found.origin,
            writer: Mutex::new(Writer { connection: Some(connection), poison: None }),
            readers: Default::default(),
            next_reader: AtomicUsize::new(0),
        })
    }

    fn known(&self) -> MutexGuard<'_, Head> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves what is known on to `head`, unless it is there already.
    fn learn(&self, head: Head) {
        let mut known = self.known();
        if head.seq > known.seq {
            *known = head;
        }
    }

    /// Asks with a connection for reading; once more with a new one if the one at hand had died.
    fn ask(&self, first: i64, limit: usize) -> Result<Vec<Row>, ReadError> {
        let end = first.saturating_add(i64::try_from(limit).unwrap_or(i64::MAX));
        let reader = self.next_reader.fetch_add(1, Ordering::Relaxed) % READERS;
        let mut reader = self.readers[reader].lock().unwrap_or_else(PoisonError::into_inner);
        let rows = self.sessions.retried(&mut reader, async |connection| {
            let parameters: [(&(dyn ToSql + Sync), Type); 3] =
                [(&first, Type::INT8), (&end, Type::INT8), (&READ_BYTES, Type::INT8)];
            connection.client.query_typed(READ, &parameters).await
        });
        rows.map_err(|trouble| ReadError::Unavailable { reason: trouble.to_string() })
    }
}

/// The records from `$1` to before `$2`, with bodies of about `$3` bytes; and the end of the log at that moment,
/// which comes with a row of its own when there are none.
const READ: &str = "
    SELECT head.seq, it.seq, it.body, it.prev_hash, it.hash
    FROM leviathan.chain_head AS head LEFT JOIN LATERAL (
        SELECT seq, body, prev_hash, hash, sum(octet_length(body)) OVER (ORDER BY seq) - octet_length(body) AS before
        FROM leviathan.events WHERE seq >= $1 AND seq < $2 AND seq <= head.seq
    ) AS it ON it.before < $3
    ORDER BY it.seq";

impl EventStore for PostgresStore {
    fn head(&self) -> Head {
        *self.known()
    }

    fn origin(&self) -> &str {
        &self.origin
    }

    fn follows(&self) -> Option<Duration> {
        Some(POLL)
    }

    fn turn(&self) -> Result<Box<dyn Turn + '_>, AppendError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = &writer.poison {
            return Err(AppendError::Poisoned { reason: reason.clone() });
        }
        let taken = self.sessions.retried(&mut writer.connection, take_turn);
        let (origin, head) =
            taken.map_err(|trouble| AppendError::Unavailable { reason: trouble.to_string() })?;
        let turn = PostgresTurn { store: self, writer, head, is_open: true };
        let known = self.head();
        if origin != self.origin || head.seq < known.seq || (head.seq == known.seq && head.hash != known.hash)
        {
            let reason = format!(
                "the database's log ends with record {}, but record {} was seen in it: it was restored or altered",
                head.seq, known.seq
            );
            return Err(turn.poisoned(reason));
        }
        Ok(Box::new(turn))
    }

    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        let from = from.max(1);
        let known = self.head();
        let mut last = (from == known.seq + 1).then_some(known);
        let Ok(first) = i64::try_from(from) else { return Ok(Vec::new()) };
        let rows = self.ask(first, limit)?;
        let end = rows.first().map_or(0, |row| number(row.get(0)));
        let mut records: Vec<Record> = Vec::with_capacity(rows.len());
        for (row, seq) in rows.iter().zip(from..) {
            let Some(found) = row.get::<_, Option<i64>>(1) else { break };
            let record = if number(found) == seq { record(seq, row) } else { Err("it is missing") };
            let record = record.map_err(|problem| ReadError::Altered { seq, problem })?;
            if last.is_some_and(|last| !record.follows(last)) {
                return Err(ReadError::Altered { seq, problem: "it does not follow the one before it" });
            }
            if seq == known.seq && record.head() != known {
                return Err(ReadError::Altered {
                    seq,
                    problem: "it has another hash than when it was seen first",
                });
            }
            last = Some(record.head());
            records.push(record);
        }
        if end < known.seq {
            return Err(ReadError::Altered { seq: end + 1, problem: "it was there, and is not any more" });
        }
        if records.is_empty() && limit > 0 && from <= end {
            return Err(ReadError::Altered { seq: from, problem: "it is missing" });
        }
        // What begins where the verified part ends makes that part longer.
        if let Some(last) = last.filter(|last| from <= known.seq + 1 && last.seq > known.seq) {
            self.learn(last);
        }
        Ok(records)
    }

    fn bundles(&self, each: &mut dyn FnMut(Unchained, Head) -> ControlFlow<()>) -> Result<(), ReadError> {
        let mut end = 0;
        loop {
            let bundles = self.bundles_after(end)?;
            if bundles.is_empty() {
                return Ok(());
            }
            for (id, first, last) in bundles {
                let altered = |problem| ReadError::Altered { seq: end + 1, problem };
                if first != end + 1 || last < first {
                    return Err(altered("its bundle is missing"));
                }
                let id = BundleId::parse(&id).map_err(|_| altered("its bundle has an impossible name"))?;
                let (bodies, head) = self.bodies(first, last)?;
                let bundle =
                    Unchained::new(id, bodies).map_err(|_| altered("its bundle has an impossible size"))?;
                if each(bundle, head).is_break() {
                    return Ok(());
                }
                end = last;
            }
        }
    }
}

impl PostgresStore {
    fn bundles_after(&self, end: u64) -> Result<Vec<(String, u64, u64)>, ReadError> {
        let end = i64::try_from(end).unwrap_or(i64::MAX);
        let mut reader = self.readers[0].lock().unwrap_or_else(PoisonError::into_inner);
        let rows = self.sessions.retried(&mut reader, async |connection| {
            let query = "SELECT bundle_id, first_seq, last_seq FROM leviathan.bundles WHERE first_seq > $1
                         ORDER BY first_seq LIMIT 1000";
            connection.client.query_typed(query, &[(&end, Type::INT8)]).await
        });
        let rows = rows.map_err(|trouble| ReadError::Unavailable { reason: trouble.to_string() })?;
        Ok(rows.iter().map(|row| (row.get(0), number(row.get(1)), number(row.get(2)))).collect())
    }

    fn bodies(&self, first: u64, last: u64) -> Result<(Vec<CanonicalBody>, Head), ReadError> {
        let mut bodies = Vec::new();
        let mut next = first;
        loop {
            let left = usize::try_from(last + 1 - next).unwrap_or(usize::MAX);
            let records = self.read(next, left)?;
            let Some(end) = records.last().map(Record::head) else {
                return Err(ReadError::Altered { seq: next, problem: "it is missing" });
            };
            bodies.extend(records.iter().map(|record| record.body().clone()));
            next = end.seq + 1;
            if next > last {
                return Ok((bodies, end));
            }
        }
    }
}

/// Begins a transaction and locks the head in it, with one question. The name of the log and its end.
async fn take_turn(connection: &Connection) -> Result<(String, Head), tokio_postgres::Error> {
    let messages = connection
        .client
        .simple_query("BEGIN; SELECT origin, seq, encode(hash, 'hex') FROM leviathan.take_turn()")
        .await?;
    let row = messages
        .iter()
        .find_map(|message| if let SimpleQueryMessage::Row(row) = message { Some(row) } else { None });
    let row = row.expect("a function with OUT parameters answers one row");
    let origin = row.try_get(0)?.unwrap_or_default().to_owned();
    let seq = row.try_get(1)?.and_then(|text| text.parse().ok()).unwrap_or(0);
    let hash = row.try_get(2)?.and_then(|text| ChainHash::from_hex(text.as_bytes()));
    // What is no hash equals none that we know.
    Ok((origin, Head { seq, hash: hash.unwrap_or_else(|| ChainHash::from_bytes([0; 32])) }))
}

/// The record of a row, if it is what was written.
fn record(seq: u64, row: &Row) -> Result<Record, &'static str> {
    let (body, prev_hash, hash): (&[u8], &[u8], &[u8]) = (row.get(2), row.get(3), row.get(4));
    let body = CanonicalBody::from_canonical(body).map_err(|_| "its body is not canonical")?;
    let prev_hash = chain_hash(prev_hash).ok_or("its hash is none")?;
    let record = Record::after(Head { seq: seq - 1, hash: prev_hash }, body);
    if record.hash().as_bytes() == hash { Ok(record) } else { Err("its hash does not match its content") }
}

/// The tables hold no negative numbers.
fn number(found: i64) -> u64 {
    u64::try_from(found).unwrap_or(0)
}

/// The locked head.
struct PostgresTurn<'a> {
    store: &'a PostgresStore,
    writer: MutexGuard<'a, Writer>,
    head: Head,
    /// Whether the transaction is still to be ended.
    is_open: bool,
}

impl Turn for PostgresTurn<'_> {
    fn head(&self) -> Head {
        self.head
    }

    fn append(mut self: Box<Self>, bundles: Vec<Unchained>) -> Result<Vec<Bundle>, AppendError> {
        if bundles.is_empty() {
            return Ok(Vec::new());
        }
        let bundles = chained(self.head, bundles);
        let head = bundles.last().expect("there is a bundle").head();
        self.is_open = false;
        // Whatever fails, the connection is dropped with it, and the server ends the transaction.
        let connection = self.writer.connection.take().expect("a turn has a connection");
        match self.store.sessions.wait(commit(&connection, self.head, head, &bundles)) {
            Ok(()) => {
                self.writer.connection = Some(connection);
                self.store.learn(head);
                Ok(bundles)
            }
            Err(trouble) if trouble.is(&SqlState::DISK_FULL) => Err(AppendError::Full),
            Err(trouble) if trouble.is_disagreement() => Err(self.poisoned(trouble.to_string())),
            Err(trouble) => Err(AppendError::Unavailable { reason: trouble.to_string() }),
        }
    }
}

/// Appends and commits, with one question: the commit does nothing when the append was refused.
async fn commit(
    connection: &Connection,
    after: Head,
    head: Head,
    bundles: &[Bundle],
) -> Result<(), tokio_postgres::Error> {
    let after_seq = i64::try_from(after.seq).expect("a log has fewer than 2^63 records");
    let names: Vec<&str> = bundles.iter().map(|bundle| bundle.id().as_str()).collect();
    let sizes: Vec<i32> = bundles
        .iter()
        .map(|bundle| i32::try_from(bundle.records().len()).expect("a bundle has at most 1,000 records"))
        .collect();
    let records = bundles.iter().flat_map(Bundle::records);
    let bodies: Vec<&[u8]> = records.map(|record| record.body().as_bytes()).collect();
    let (after_hash, last_hash) = (&after.hash.as_bytes()[..], &head.hash.as_bytes()[..]);
    let parameters: [(&(dyn ToSql + Sync), Type); 6] = [
        (&after_seq, Type::INT8),
        (&after_hash, Type::BYTEA),
        (&names, Type::TEXT_ARRAY),
        (&sizes, Type::INT4_ARRAY),
        (&bodies, Type::BYTEA_ARRAY),
        (&last_hash, Type::BYTEA),
    ];
    let append = "SELECT leviathan.append_bundles($1, $2, $3, $4, $5, $6)";
    let append = connection.client.execute_typed(append, &parameters);
    let (appended, committed) = future::join(append, connection.client.batch_execute("COMMIT")).await;
    appended?;
    committed
}

impl PostgresTurn<'_> {
    /// No turn is given any more.
    fn poisoned(mut self, reason: String) -> AppendError {
        self.writer.poison = Some(reason.clone());
        AppendError::Poisoned { reason }
    }
}

impl Drop for PostgresTurn<'_> {
    fn drop(&mut self) {
        if !self.is_open {
            return;
        }
        if let Some(connection) = self.writer.connection.take()
            && self.store.sessions.wait(connection.client.batch_execute("ROLLBACK")).is_ok()
        {
            self.writer.connection = Some(connection);
        }
    }
}

#[cfg(test)]
mod tests;
