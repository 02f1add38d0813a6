//! The log in PostgreSQL, beside plain tables in the same database: one without a chain, and one whose chain is made
//! as it is first thought of, by locking the newest hash in each request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, ensure};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio_postgres::{Client, NoTls};

use super::{ORIGIN, end, lives};
use crate::admission::Admitted;
use crate::history::History;
use crate::ledger::Ledger;
use crate::store::PostgresStore;

/// How many events a bundle has.
const BUNDLE: u64 = 64;
/// How many requests are under way at once.
const IN_FLIGHT: u64 = 64;
/// How many connections the naive chain has. Each request waits for the lock anyway; more would only wait elsewhere.
const CONNECTIONS: u64 = 16;

/// What recording in a database costs.
#[derive(Debug, Clone, Default)]
pub struct Postgres {
    /// Seconds of each bundle of 64 events, one after the other.
    pub bundles: Vec<f64>,
    /// Seconds of inserting the same rows into a table without a chain, in turns with those.
    pub inserts: Vec<f64>,
    /// Events a second of requests with one event each, 64 at once.
    pub singles_per_second: f64,
    /// The same by a chain whose head each request locks.
    pub naive_per_second: f64,
}

/// Measures in a database of its own on the server of `url`, which is removed afterwards.
///
/// # Errors
///
/// When the server cannot be reached without TLS, or its role may not make databases; and when measuring fails.
pub async fn postgres(url: &SecretString, bundles: u64, requests: u64) -> anyhow::Result<Postgres> {
    let name = format!("leviathan_bench_{}", uuid::Uuid::new_v4().simple());
    let server = connect(url).await?;
    server.batch_execute(&format!("CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")).await.context(
        "cannot make a database to measure in: give the role of LEVIATHAN_POSTGRES_URL the right CREATEDB, or name another role",
    )?;
    let measured = measured(&with_database(url, &name), bundles, requests).await;
    let removed = server.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
    removed.with_context(|| format!("cannot remove the database {name} again: remove it by hand"))?;
    measured
}

async fn measured(url: &SecretString, bundles: u64, requests: u64) -> anyhow::Result<Postgres> {
    let opening = url.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let store = PostgresStore::open(&opening, None, ORIGIN)?;
        Ledger::start(Box::new(store), History::default())
    });
    let (ledger, thread) = opened.await??;
    let mut measured = Postgres::default();
    in_turns(&ledger, &connect(url).await?, bundles, &mut measured).await?;
    measured.singles_per_second = singles(&ledger, requests).await?;
    drop(ledger);
    tokio::task::spawn_blocking(|| end(thread)).await??;
    // As many requests would take minutes.
    measured.naive_per_second = naive(url, (requests / 10).max(IN_FLIGHT)).await?;
    Ok(measured)
}

/// Bundles of 64, each followed by an insert of as many and the same bodies.
async fn in_turns(ledger: &Ledger, plain: &Client, bundles: u64, into: &mut Postgres) -> anyhow::Result<()> {
    plain
        .batch_execute(
            "CREATE TABLE plain (seq bigserial PRIMARY KEY, event_id text COLLATE \"C\" NOT NULL UNIQUE, body bytea NOT NULL)",
        )
        .await?;
    let insert = "INSERT INTO plain (event_id, body) SELECT * FROM unnest($1::text[], $2::bytea[])";
    let insert = plain.prepare(insert).await?;
    for bundle in 0..bundles {
        let events = (bundle * BUNDLE..(bundle + 1) * BUNDLE).map(|n| Admitted::of(lives::pause(n)));
        let events = events.collect::<Result<Vec<_>, _>>()?;
        let names: Vec<String> = events.iter().map(|admitted| admitted.event.event_id.to_string()).collect();
        let bodies: Vec<Vec<u8>> = events.iter().map(|admitted| admitted.body.as_bytes().to_vec()).collect();
        let began = Instant::now();
        ledger.ingest(None, events, None).await?;
        into.bundles.push(began.elapsed().as_secs_f64());
        let began = Instant::now();
        plain.execute(&insert, &[&names, &bodies]).await?;
        into.inserts.push(began.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Requests with one event each through the ledger, 64 at once.
async fn singles(ledger: &Ledger, requests: u64) -> anyhow::Result<f64> {
    let next = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let senders: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let (ledger, next) = (ledger.clone(), Arc::clone(&next));
            tokio::spawn(async move {
                while let Some(n) = taken(&next, requests) {
                    // Far from the numbers of the bundles.
                    ledger
                        .ingest(None, vec![Admitted::of(lives::pause(u64::from(u32::MAX) + n))?], None)
                        .await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for sender in senders {
        sender.await??;
    }
    Ok(requests as f64 / began.elapsed().as_secs_f64())
}

/// The same requests by a chain that locks its newest hash, reads it, and writes the next.
async fn naive(url: &SecretString, requests: u64) -> anyhow::Result<f64> {
    let made = "CREATE TABLE naive_head (seq bigint NOT NULL, hash bytea NOT NULL);
        INSERT INTO naive_head VALUES (0, '');
        CREATE TABLE naive (seq bigint PRIMARY KEY, event_id text COLLATE \"C\" NOT NULL UNIQUE, body bytea NOT NULL,
            prev_hash bytea NOT NULL, hash bytea NOT NULL)";
    connect(url).await?.batch_execute(made).await?;
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(connect(url).await?);
    }
    let next = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let senders: Vec<_> = connections
        .into_iter()
        .map(|mut connection| {
            let next = Arc::clone(&next);
            tokio::spawn(async move {
                while let Some(n) = taken(&next, requests) {
                    chain(&mut connection, &Admitted::of(lives::pause(n))?).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for sender in senders {
        sender.await??;
    }
    Ok(requests as f64 / began.elapsed().as_secs_f64())
}

async fn chain(connection: &mut Client, admitted: &Admitted) -> anyhow::Result<()> {
    let turn = connection.transaction().await?;
    let head = turn.query_one("SELECT seq, hash FROM naive_head FOR UPDATE", &[]).await?;
    let (seq, previous): (i64, Vec<u8>) = (head.get(0), head.get(1));
    let (body, name) = (admitted.body.as_bytes(), admitted.event.event_id.to_string());
    let hash = Sha256::new().chain_update(&previous).chain_update(body).finalize().to_vec();
    let row = "INSERT INTO naive VALUES ($1, $2, $3, $4, $5)";
    turn.execute(row, &[&(seq + 1), &name, &body, &previous, &hash]).await?;
    turn.execute("UPDATE naive_head SET seq = $1, hash = $2", &[&(seq + 1), &hash]).await?;
    Ok(turn.commit().await?)
}

/// The next number below `requests`, as long as there is one.
fn taken(next: &AtomicU64, requests: u64) -> Option<u64> {
    Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < requests)
}

async fn connect(url: &SecretString) -> anyhow::Result<Client> {
    let config: tokio_postgres::Config =
        url.expose_secret().parse().context("LEVIATHAN_POSTGRES_URL is no URL of a database")?;
    ensure!(!config.get_hosts().is_empty(), "LEVIATHAN_POSTGRES_URL names no host");
    let (client, traffic) = config
        .connect(NoTls)
        .await
        .context("cannot reach PostgreSQL: the benchmark needs a server that it reaches without TLS")?;
    tokio::spawn(async { drop(traffic.await) });
    Ok(client)
}

/// The same URL with another database.
fn with_database(url: &SecretString, name: &str) -> SecretString {
    let text = url.expose_secret();
    let Some((scheme, rest)) = text.split_once("://") else {
        // Of options that are given twice the later one counts.
        return SecretString::from(format!("{text} dbname={name}"));
    };
    let (place, options) =
        rest.split_once('?').map_or((rest, None), |(place, options)| (place, Some(options)));
    let authority = place.split('/').next().unwrap_or_default();
    let options = options.map(|options| format!("?{options}")).unwrap_or_default();
    SecretString::from(format!("{scheme}://{authority}/{name}{options}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_database_of_a_url_is_another() {
        for (url, expected) in [
            ("postgres://a:b@host:5432/db?sslmode=disable", "postgres://a:b@host:5432/own?sslmode=disable"),
            ("postgresql://a@%2Ftmp%2Fpg/db", "postgresql://a@%2Ftmp%2Fpg/own"),
            ("postgres://host", "postgres://host/own"),
            ("host=/tmp/pg user=a", "host=/tmp/pg user=a dbname=own"),
        ] {
            assert_eq!(with_database(&SecretString::from(url), "own").expose_secret(), expected);
        }
    }
}
