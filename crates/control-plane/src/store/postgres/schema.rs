//! The schema of the log: who makes it, and what it must be before anything is recorded.

use journal::Head;
use secrecy::SecretString;
use tokio_postgres::error::SqlState;

use super::OpenError;
use super::connection::{Connection, chain_hash};

/// What makes each version of the schema from the one before it. None is ever changed once it was released.
const MIGRATIONS: [&str; 3] =
    [include_str!("schema.sql"), include_str!("board.sql"), include_str!("checkpoint.sql")];

/// The version of the schema that this program works with.
const VERSION: i32 = MIGRATIONS.len() as i32;

/// The oldest server that this program was written for.
const OLDEST_SERVER: i32 = 14;

/// What only one process at a time may do, in every database that has a log.
const MIGRATION_LOCK: i64 = 0x6c65_7669_6174_6861;

/// The name of a log, and its end when it was looked at.
pub(super) struct Found {
    pub(super) origin: String,
    pub(super) head: Head,
}

/// Makes the schema if it is not there, or migrates it, as the role of `owner`, and lets the role `daily` work with it.
pub(super) async fn prepare(
    owner: &SecretString,
    daily: Option<&str>,
    new_origin: &str,
) -> Result<(), OpenError> {
    let connection = Connection::open(owner).await?;
    check_server(&connection).await?;
    let made = make(&connection, daily, new_origin).await;
    made.map_err(|error| match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => OpenError::NotAllowed(said(&error)),
        _ => OpenError::Failed { action: "cannot make the schema `leviathan`", reason: said(&error) },
    })
}

async fn make(
    connection: &Connection,
    daily: Option<&str>,
    new_origin: &str,
) -> Result<(), tokio_postgres::Error> {
    let client = &connection.client;
    client.batch_execute("BEGIN").await?;
    client.execute("SELECT pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK]).await?;
    let is_there: bool =
        client.query_one("SELECT to_regnamespace('leviathan') IS NOT NULL", &[]).await?.get(0);
    if !is_there {
        client.batch_execute("CREATE SCHEMA leviathan").await?;
    }
    let from = version(connection).await?;
    for migration in MIGRATIONS.iter().skip(usize::try_from(from).unwrap_or(0)) {
        client.batch_execute(migration).await?;
    }
    if from == 0 {
        let genesis = Head::genesis(new_origin);
        client
            .execute(
                "INSERT INTO leviathan.chain_head (origin, seq, hash) VALUES ($1, 0, $2)",
                &[&new_origin, &&genesis.hash.as_bytes()[..]],
            )
            .await?;
    }
    if let Some(daily) = daily {
        grant(connection, daily).await?;
    }
    client.batch_execute("COMMIT").await
}

/// The version that is there; 0 when nothing is.
async fn version(connection: &Connection) -> Result<i32, tokio_postgres::Error> {
    let client = &connection.client;
    let is_made: bool =
        client.query_one("SELECT to_regclass('leviathan.schema_version') IS NOT NULL", &[]).await?.get(0);
    if !is_made {
        return Ok(0);
    }
    let version = client.query_one("SELECT max(version) FROM leviathan.schema_version", &[]).await?;
    Ok(version.get::<_, Option<i32>>(0).unwrap_or(0))
}

/// What the daily role needs: to look, to call the two functions, and to write what is beside the log.
async fn grant(connection: &Connection, daily: &str) -> Result<(), tokio_postgres::Error> {
    let client = &connection.client;
    let role: String = client.query_one("SELECT quote_ident($1)", &[&daily]).await?.get(0);
    client
        .batch_execute(&format!(
            "GRANT USAGE ON SCHEMA leviathan TO {role};
             GRANT SELECT ON ALL TABLES IN SCHEMA leviathan TO {role};
             GRANT INSERT, UPDATE, DELETE ON leviathan.notices TO {role};
             GRANT UPDATE ON leviathan.passes TO {role};
             GRANT INSERT, UPDATE ON leviathan.checkpoint TO {role};
             GRANT EXECUTE ON FUNCTION leviathan.take_turn(),
                 leviathan.append_bundles(bigint, bytea, text[], integer[], bytea[], bytea) TO {role}"
        ))
        .await
}

/// Whether the schema is there for this role, and no older than this program.
pub(super) async fn is_current(connection: &Connection) -> Result<bool, OpenError> {
    // Without USAGE on the schema even the look is refused.
    version(connection).await.map(|version| version >= VERSION).map_err(|error| match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => OpenError::NotAllowed(said(&error)),
        _ => OpenError::Failed { action: "cannot look for the schema", reason: said(&error) },
    })
}

/// What the database holds, once it is sure that this program may work with it.
pub(super) async fn check(connection: &Connection) -> Result<Found, OpenError> {
    check_server(connection).await?;
    let failed = |error: tokio_postgres::Error| OpenError::Failed {
        action: "cannot read the schema `leviathan`",
        reason: said(&error),
    };
    let client = &connection.client;
    match version(connection).await.map_err(failed)? {
        VERSION => {}
        found => return Err(OpenError::Version { found, known: VERSION }),
    }
    let row = client.query_one(
        "SELECT head.origin, head.seq, head.hash, last.hash
         FROM leviathan.chain_head AS head LEFT JOIN leviathan.events AS last USING (seq)",
        &[],
    );
    let row = row.await.map_err(failed)?;
    let origin: String = row.get(0);
    let seq = u64::try_from(row.get::<_, i64>(1)).unwrap_or(0);
    let hash = chain_hash(row.get(2)).unwrap_or_else(|| Head::genesis("").hash);
    let last: Option<&[u8]> = row.get(3);
    let fits =
        if seq == 0 { hash == Head::genesis(&origin).hash } else { last.and_then(chain_hash) == Some(hash) };
    if !fits {
        return Err(OpenError::Head { seq });
    }
    if could_rewrite(connection).await.map_err(failed)? {
        tracing::warn!(
            "The role of LEVIATHAN_POSTGRES_URL owns the log or may write its tables, so whoever has its password could rewrite it: give the owner's URL as LEVIATHAN_POSTGRES_OWNER_URL and another role as LEVIATHAN_POSTGRES_URL."
        );
    }
    Ok(Found { origin, head: Head { seq, hash } })
}

/// Refuses a server that could lose what it said is recorded.
async fn check_server(connection: &Connection) -> Result<(), OpenError> {
    let settings =
        "SELECT current_setting('server_version_num')::int / 10000, current_setting('server_encoding'),
                           current_setting('fsync'), current_setting('full_page_writes'),
                           current_setting('synchronous_commit')";
    let row = connection.client.query_one(settings, &[]).await;
    let row = row.map_err(|error| OpenError::Failed {
        action: "cannot read the settings of the server",
        reason: said(&error),
    })?;
    let version: i32 = row.get(0);
    if version < OLDEST_SERVER {
        return Err(OpenError::OldServer { found: version, oldest: OLDEST_SERVER });
    }
    let encoding: String = row.get(1);
    if encoding != "UTF8" {
        return Err(OpenError::Encoding(encoding));
    }
    for (column, name) in [(2, "fsync"), (3, "full_page_writes"), (4, "synchronous_commit")] {
        if row.get::<_, &str>(column) == "off" {
            return Err(OpenError::NotDurable(name));
        }
    }
    Ok(())
}

async fn could_rewrite(connection: &Connection) -> Result<bool, tokio_postgres::Error> {
    let row = connection.client.query_one(
        "SELECT pg_has_role(current_user, relowner, 'USAGE')
             OR has_table_privilege('leviathan.events', 'INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER')
             OR has_table_privilege('leviathan.chain_head', 'INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER')
         FROM pg_class WHERE oid = 'leviathan.events'::regclass",
        &[],
    );
    Ok(row.await?.get(0))
}

/// What the server says, without what it quotes of a statement.
pub(crate) fn said(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(said) => format!("{} ({})", said.message(), said.code().code()),
        None => {
            let source = std::error::Error::source(error).map(|source| format!(": {source}"));
            format!("{error}{}", source.unwrap_or_default())
        }
    }
}
