//! On a server of their own.

use journal::Lines;
use test_support::postgres::Postgres;

use super::*;
use crate::store::conformance::{self, append, bundle, contents};
use crate::store::{NdjsonStore, copy};

const OWNER: &str = "log_owner";
const DAILY: &str = "log_daily";

/// The log of a database, with the two roles that an installation should have.
fn open(server: &Postgres, database: &str) -> Result<PostgresStore, OpenError> {
    open_as(server, database, "test/postgres")
}

fn open_as(server: &Postgres, database: &str, new_origin: &str) -> Result<PostgresStore, OpenError> {
    server.create_role(DAILY);
    let [url, owner] = [DAILY, OWNER].map(|role| SecretString::from(server.url(role, database)));
    PostgresStore::open(&url, Some(&owner), new_origin)
}

fn new(server: &Postgres) -> PostgresStore {
    let database = server.create_database(OWNER);
    open(server, &database).unwrap()
}

/// Every line of a log as its file would have it.
fn lines(store: &dyn EventStore) -> Vec<u8> {
    let mut lines = Lines::default();
    let mut head = Head::genesis(store.origin());
    let each = &mut |unchained, end| {
        let bundle = Bundle::after(head, unchained);
        bundle.encode(&mut lines);
        head = bundle.head();
        assert_eq!(head, end);
        ControlFlow::Continue(())
    };
    store.bundles(each).unwrap();
    lines.bytes
}

#[test]
fn it_keeps_the_contract_of_a_store() {
    let server = Postgres::start();
    conformance::check(|| Box::new(new(&server)));

    // Several that start at once on an empty database have one log.
    let database = server.create_database(OWNER);
    let origins: Vec<String> = std::thread::scope(|scope| {
        let open = |n| {
            let (server, database) = (&server, &database);
            move || open_as(server, database, &format!("test/{n}")).unwrap().origin().to_owned()
        };
        let opening: Vec<_> = (0..4).map(|n| scope.spawn(open(n))).collect();
        opening.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(origins.iter().all(|origin| *origin == origins[0]), "{origins:?}");

    // Two processes on one log: turns of both chain, and each sees what the other recorded.
    let database = server.create_database(OWNER);
    let stores = [open(&server, &database).unwrap(), open(&server, &database).unwrap()];
    std::thread::scope(|scope| {
        for (n, store) in stores.iter().enumerate() {
            scope.spawn(move || (0..20).for_each(|i| drop(append(store, &[&format!("{n}-{i}")]).unwrap())));
        }
    });
    let both = stores.each_ref().map(|store| contents(store));
    assert_eq!(both[0], both[1]);
    assert_eq!(both[0].len(), 40);
}

#[test]
fn a_copy_has_the_same_lines_in_every_store() {
    let server = Postgres::start();
    let folder = tempfile::tempdir().unwrap();
    let original = NdjsonStore::open(&folder.path().join("a"), "test/copy").unwrap();
    for n in 0..20 {
        let (x, y, z) = (format!("{n}-x"), format!("{n}-ü"), format!("{n}-z"));
        let bundles = vec![bundle(&[&x, &y]), bundle(&[&z])];
        original.turn().unwrap().append(bundles).unwrap();
    }
    let database = server.create_database(OWNER);
    let url = SecretString::from(server.url(OWNER, &database));
    let between = PostgresStore::open(&url, None, "test/copy").unwrap();
    assert_eq!(copy(&original, &between).unwrap(), 60);
    assert_eq!(lines(&between), lines(&original));
    let back = NdjsonStore::open(&folder.path().join("b"), "test/copy").unwrap();
    assert_eq!(copy(&between, &back).unwrap(), 60);
    let file =
        |name: &str| std::fs::read(folder.path().join(name).join("00000000000000000001.ndjson")).unwrap();
    assert_eq!(file("a"), file("b"));
    assert_eq!(file("a"), lines(&between));
    // Neither a log that has something nor one of another name is copied over.
    assert!(copy(&original, &back).is_err());
    assert!(copy(&original, &new(&server)).is_err());
}

#[test]
fn the_daily_role_can_only_look_and_append() {
    let server = Postgres::start();
    let database = server.create_database(OWNER);
    let store = open(&server, &database).unwrap();
    append(&store, &["a"]).unwrap();
    for statement in [
        "INSERT INTO leviathan.events SELECT 2, 'x', body, prev_hash, hash FROM leviathan.events",
        "UPDATE leviathan.events SET body = ''",
        "DELETE FROM leviathan.events",
        "TRUNCATE leviathan.events",
        "UPDATE leviathan.chain_head SET seq = 9",
        "DELETE FROM leviathan.bundles",
        "ALTER TABLE leviathan.events DISABLE TRIGGER ALL",
        "DROP TRIGGER append_only ON leviathan.events",
        "DROP TABLE leviathan.events",
        "CREATE OR REPLACE FUNCTION leviathan.refuse_change() RETURNS trigger LANGUAGE sql AS ''",
        "CREATE TABLE leviathan.mine ()",
        "SELECT * FROM leviathan.events FOR UPDATE",
    ] {
        let refused = server.sql(DAILY, &database, statement).expect_err(statement);
        assert!(refused.contains("denied") || refused.contains("must be owner"), "{statement}: {refused}");
    }
    // The owner has the rights, and is stopped by what it would have to remove first.
    for statement in [
        "UPDATE leviathan.events SET body = ''",
        "DELETE FROM leviathan.events",
        "TRUNCATE leviathan.events",
        "TRUNCATE leviathan.bundles",
        "DELETE FROM leviathan.chain_head",
        "UPDATE leviathan.chain_head SET seq = 0",
        "SET session_replication_role = replica; DELETE FROM leviathan.events",
    ] {
        let role = if statement.starts_with("SET") { "postgres" } else { OWNER };
        let refused = server.sql(role, &database, statement).expect_err(statement);
        assert!(refused.contains("only ever"), "{statement}: {refused}");
    }
    // Somebody who calls the function with a chain of their own is refused.
    let append = "SELECT leviathan.append_bundles(0, ''::bytea, '{x}', '{1}', ARRAY['{}'::bytea], ''::bytea)";
    assert!(server.sql(DAILY, &database, append).unwrap_err().contains("the log ends with record 1"));
    assert_eq!(contents(&store).len(), 1);
}

#[test]
fn a_log_of_the_first_version_is_migrated_with_all_that_it_holds() {
    let server = Postgres::start();
    let database = server.create_database(OWNER);
    let first = format!(
        "CREATE SCHEMA leviathan; {}; INSERT INTO leviathan.chain_head (origin, seq, hash)
         VALUES ('test/first', 0, decode('{}', 'hex'))",
        include_str!("schema.sql"),
        Head::genesis("test/first").hash
    );
    server.sql(OWNER, &database, &first).unwrap();
    // Without the owner's URL it is said what is needed.
    server.create_role(DAILY);
    let daily = SecretString::from(server.url(DAILY, &database));
    let refused = PostgresStore::open(&daily, None, "test/other").err().unwrap();
    assert!(refused.to_string().contains("LEVIATHAN_POSTGRES_OWNER_URL"), "{refused}");

    let store = open(&server, &database).unwrap();
    assert_eq!(store.origin(), "test/first");
    append(&store, &["one"]).unwrap();
    assert_eq!(contents(&open(&server, &database).unwrap()).len(), 1);
    // What is beside the log may be written by the daily role, and the log still may not.
    server.sql(DAILY, &database, "UPDATE leviathan.passes SET requested = 1").unwrap();
    server.sql(DAILY, &database, "DELETE FROM leviathan.notices").unwrap();
    server.sql(DAILY, &database, "UPDATE leviathan.chain_head SET seq = 9").unwrap_err();
}

#[test]
fn it_refuses_what_it_cannot_trust() {
    let server = Postgres::start();
    let database = server.create_database(OWNER);
    drop(open(&server, &database).unwrap());
    let refused = |expected: &str| {
        let error = open(&server, &database).err().expect(expected).to_string();
        assert!(error.contains(expected), "{error}");
    };
    let superuser = |statement: &str| server.sql("postgres", &database, statement).unwrap();

    superuser(&format!("ALTER ROLE {DAILY} SET synchronous_commit = off"));
    refused("synchronous_commit=off");
    superuser(&format!("ALTER ROLE {DAILY} RESET synchronous_commit"));
    superuser("ALTER SYSTEM SET fsync = off");
    superuser("SELECT pg_reload_conf()");
    // The server takes the change in when it comes to it.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while superuser("SHOW fsync") != "off" {
        assert!(std::time::Instant::now() < deadline);
    }
    refused("fsync=off");
    superuser("ALTER SYSTEM RESET fsync");
    superuser("SELECT pg_reload_conf()");
    while superuser("SHOW fsync") != "on" {
        assert!(std::time::Instant::now() < deadline);
    }

    let stranger = SecretString::from("postgres://role:secret@db.example/log");
    let error = PostgresStore::open(&stranger, None, "x").err().unwrap().to_string();
    assert!(error.contains("sslmode") && !error.contains("secret"), "{error}");
    let nonsense = SecretString::from("postgres://role:secret@localhost/log?sslmode=perhaps");
    let error = PostgresStore::open(&nonsense, None, "x").err().unwrap().to_string();
    assert!(!error.contains("secret"), "{error}");
    // Without the right to make the schema.
    let plain = server.create_database(OWNER);
    let url = SecretString::from(server.url(DAILY, &plain));
    let error = PostgresStore::open(&url, None, "x").err().unwrap().to_string();
    assert!(error.contains("LEVIATHAN_POSTGRES_OWNER_URL"), "{error}");

    superuser("INSERT INTO leviathan.schema_version VALUES (99)");
    refused("has version 99");
}

#[test]
fn what_was_altered_is_refused() {
    let server = Postgres::start();
    for (alter, seq) in [
        ("UPDATE leviathan.events SET body = '{\"event_id\":\"x\"}' WHERE seq = 2", 2),
        ("UPDATE leviathan.events SET body = '{ }' WHERE seq = 2", 2),
        ("DELETE FROM leviathan.events WHERE seq = 2", 2),
        ("UPDATE leviathan.events SET prev_hash = hash WHERE seq = 2", 2),
        // A record that is right by itself, but was exchanged: the next does not follow.
        (
            "UPDATE leviathan.events SET body = '{}', hash = sha256(convert_to(E'leviathan-event-v1\\n', 'UTF8') || prev_hash || int8send(2) || int4send(2) || '{}'::bytea) WHERE seq = 2",
            3,
        ),
    ] {
        let database = server.create_database(OWNER);
        let store = open(&server, &database).unwrap();
        append(&store, &["a", "b", "c", "d"]).unwrap();
        let off = "ALTER TABLE leviathan.events DISABLE TRIGGER ALL";
        server.sql("postgres", &database, &format!("{off}; {alter}")).unwrap();
        let found = |store: &PostgresStore| match store.read(1, 10) {
            Err(ReadError::Altered { seq, .. }) => seq,
            other => panic!("{alter}: {other:?}"),
        };
        assert_eq!(found(&store), seq, "{alter}");
        // Whoever starts on it reads it all.
        let error = crate::ledger::Ledger::start(
            Box::new(open(&server, &database).unwrap()),
            crate::history::History::default(),
        )
        .err()
        .unwrap();
        assert!(error.to_string().contains(&format!("record {seq} of the journal")), "{error:#}");
    }
    // A last record that was exchanged with its hash is noticed by whoever saw the first one.
    let database = server.create_database(OWNER);
    let store = open(&server, &database).unwrap();
    append(&store, &["a", "b"]).unwrap();
    let exchange = "ALTER TABLE leviathan.events DISABLE TRIGGER ALL;
        UPDATE leviathan.events SET body = '{}', hash = sha256(convert_to(E'leviathan-event-v1\\n', 'UTF8') || prev_hash || int8send(2) || int4send(2) || '{}'::bytea) WHERE seq = 2";
    server.sql("postgres", &database, exchange).unwrap();
    assert!(matches!(store.read(1, 10), Err(ReadError::Altered { seq: 2, .. })));
    assert!(matches!(open(&server, &database), Err(OpenError::Head { seq: 2 })));
    // A log that was cut is refused by whoever saw it longer, and by a new start.
    let database = server.create_database(OWNER);
    let store = open(&server, &database).unwrap();
    append(&store, &["a", "b", "c"]).unwrap();
    let cut = "ALTER TABLE leviathan.events DISABLE TRIGGER ALL; ALTER TABLE leviathan.chain_head DISABLE TRIGGER ALL;
               DELETE FROM leviathan.events WHERE seq = 3; UPDATE leviathan.chain_head SET seq = 2";
    server.sql("postgres", &database, cut).unwrap();
    assert!(matches!(store.read(1, 10), Err(ReadError::Altered { seq: 3, .. })));
    assert!(matches!(store.turn().err(), Some(AppendError::Poisoned { .. })));
    assert!(matches!(open(&server, &database), Err(OpenError::Head { seq: 2 })));
}

#[test]
fn it_goes_on_after_the_server_died() {
    let server = Postgres::start();
    let database = server.create_database(OWNER);
    let store = open(&server, &database).unwrap();
    append(&store, &["a"]).unwrap();
    let turn = store.turn().unwrap();
    server.kill();
    let lost = turn.append(vec![bundle(&["b"])]);
    assert!(matches!(lost, Err(AppendError::Unavailable { .. })), "{lost:?}");
    assert!(matches!(store.turn().err(), Some(AppendError::Unavailable { .. })));
    assert!(matches!(store.read(1, 1), Err(ReadError::Unavailable { .. })));
    server.restart();
    append(&store, &["c"]).unwrap();
    assert_eq!(contents(&store).len(), 2);
    // Connections that died while nobody used them are not noticed by who asks next.
    server.kill();
    server.restart();
    assert_eq!(contents(&store).len(), 2);
    append(&store, &["d"]).unwrap();
    assert_eq!(contents(&store).len(), 3);
}

#[test]
fn a_holder_that_hangs_loses_its_turn_and_appends_nothing() {
    let server = Postgres::start();
    let database = server.create_database(OWNER);
    let [hangs, waits] = [(); 2].map(|()| open(&server, &database).unwrap());
    let turn = hangs.turn().unwrap();
    append(&waits, &["a"]).unwrap();
    assert!(matches!(turn.append(vec![bundle(&["b"])]), Err(AppendError::Unavailable { .. })));
    append(&hangs, &["c"]).unwrap();
    assert_eq!(contents(&waits).len(), 2);
}
