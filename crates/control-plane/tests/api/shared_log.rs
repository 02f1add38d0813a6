//! A signed log in a database: several control planes with one key, and what its superuser changes.

use std::path::Path;
use std::time::{Duration, Instant};

use api::Client;
use api::types::{LogEntriesQuery, ProofQuery};
use journal::{
    Bundle, BundleId, CanonicalBody, Checkpoint, Head, InclusionProof, KeyName, Line, Record, SigningKey,
    Unchained,
};
use leviathan_control_plane::{Backend, Config, Database, Server, WitnessAccess, copy_log};
use model::Event;
use secrecy::SecretString;
use test_support::postgres::Postgres;
use test_support::witness::Witness;

use crate::support::{Plane, TOKEN, paused};
use crate::watching::until;

/// A database, the key of its log, and a folder for each control plane.
struct Log {
    server: Postgres,
    database: String,
    key: SigningKey,
    folder: tempfile::TempDir,
}

impl Log {
    fn new() -> Self {
        let server = Postgres::start();
        let database = server.create_database("log_owner");
        server.create_role("log_daily");
        let key = SigningKey::from_seed(KeyName::parse("example.com/log").unwrap(), &[7; 32]);
        Self { server, database, key, folder: tempfile::tempdir().unwrap() }
    }

    fn config(&self, name: &str) -> Config {
        let url = |role| SecretString::from(self.server.url(role, &self.database));
        let data = self.folder.path().join(name);
        std::fs::create_dir_all(&data).unwrap();
        Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            backend: Backend::Postgres(Database { url: url("log_daily"), owner_url: Some(url("log_owner")) }),
            log_key: Some(SecretString::from(self.key.to_secret_text())),
            ..Config::new(data, SecretString::from(TOKEN))
        }
    }

    async fn start(&self, name: &str) -> Plane {
        Plane::start_with(Path::new("unused"), |config| *config = self.config(name)).await
    }

    /// Why none starts on the log as it is.
    async fn refused(&self, name: &str) -> String {
        format!("{:#}", Server::bind(self.config(name)).await.err().expect("it starts"))
    }

    /// Waits until `client` shows a checkpoint of at least `size` records.
    async fn covering(&self, client: &Client, size: u64) -> Checkpoint {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let checkpoint =
                Checkpoint::open(&client.log_checkpoint().await.unwrap(), &self.key.verifier()).unwrap();
            if checkpoint.size >= size {
                return checkpoint;
            }
            assert!(Instant::now() < deadline, "no checkpoint covers {size}: {checkpoint:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Does what only a superuser can, with every trigger off.
    fn tamper(&self, statements: &str) {
        let tables = ["events", "bundles", "chain_head", "checkpoint"];
        let all = |verb: &str| -> String {
            tables.iter().map(|table| format!("ALTER TABLE leviathan.{table} {verb} TRIGGER USER;")).collect()
        };
        let script = format!("BEGIN; {} {statements}; {} COMMIT", all("DISABLE"), all("ENABLE"));
        self.server.sql("postgres", &self.database, &script).unwrap();
    }
}

/// Each is told by the witness what the other showed, and none of them takes that for a contradiction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_planes_of_one_log_have_one_witness() {
    let (log, witness) = (Log::new(), Witness::start().await);
    witness.know(&log.key.verifier().to_string());
    let start = async |name| {
        let access =
            WitnessAccess { url: witness.url().parse().unwrap(), key: witness.vkey().parse().unwrap() };
        let config = Config { witness: Some(access), ..log.config(name) };
        Plane::start_with(Path::new("unused"), |it| *it = config).await
    };
    let planes = [start("a").await, start("b").await];
    let mut size = 0_u32;
    for round in 0..4 {
        planes[round % 2].client.ingest(events(5)).await.unwrap();
        size += 5;
        for plane in &planes {
            until(plane, "leviathan_journal_head", |head| head >= f64::from(size)).await;
            until(plane, "leviathan_witness_lag_events", |lag| lag == 0.0).await;
            until(plane, "leviathan_checkpoint_lag_events", |lag| lag == 0.0).await;
            let note = plane.client.log_witnessed_checkpoint().await.unwrap();
            assert_eq!(Checkpoint::open(&note, &log.key.verifier()).unwrap().size, u64::from(size));
        }
    }
    assert_eq!(witness.size("example.com/log"), u64::from(size));
    let seen = witness.seen();
    assert!(seen.iter().all(|seen| seen.ends_with("200") || seen.ends_with("409")), "{seen:?}");
    for plane in planes {
        plane.stop().await;
    }
}

fn events(count: usize) -> Vec<Event> {
    (0..count).map(|n| paused(&format!("reason {n}"))).collect()
}

/// The records of a log, by its entries.
async fn records(client: &Client) -> Vec<Record> {
    let lines = client.log_entries(&LogEntriesQuery { from: None, limit: None }).await.unwrap();
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| match Line::decode(line).unwrap() {
            Line::Record(record) => record,
            Line::Commit(_) => panic!("only records are entries"),
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_planes_with_one_key_sign_one_history() {
    let log = Log::new();
    let (a, b) = (log.start("a").await, log.start("b").await);
    let mut last = String::new();
    for round in 0..6 {
        let events = events(40);
        last = events[39].event_id.to_string();
        let plane = if round % 2 == 0 { &a } else { &b };
        plane.client.ingest(events).await.unwrap();
        if round == 3 {
            // Both sign while both record.
            log.covering(&a.client, 80).await;
        }
    }
    // Whoever signed it, both show it, and each proves any event by it.
    let [of_a, of_b] = [log.covering(&a.client, 240).await, log.covering(&b.client, 240).await];
    assert_eq!(of_a, of_b);
    let leaf = records(&b.client).await.pop().unwrap().hash();
    for plane in [&a, &b] {
        let text = plane.client.log_proof(&ProofQuery { event_id: last.parse().unwrap() }).await.unwrap();
        let proven = InclusionProof::parse(&text).unwrap().verify(leaf, &log.key.verifier()).unwrap();
        assert_eq!(proven, of_a);
    }
    a.stop().await;
    // One that was away signs on from where the other is; nobody takes the stored one back.
    b.client.ingest(events(5)).await.unwrap();
    log.covering(&b.client, 245).await;
    let a = log.start("a").await;
    assert_eq!(log.covering(&a.client, 245).await.size, 245);
    let back = "UPDATE leviathan.checkpoint SET size = 1, note = 'older'";
    assert!(log.server.sql("log_daily", &log.database, back).unwrap_err().contains("only ever replaced"));
    let gone = log.server.sql("log_daily", &log.database, "DELETE FROM leviathan.checkpoint").unwrap_err();
    assert!(gone.contains("denied"), "{gone}");
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_superuser_cannot_cut_or_rewrite_what_was_signed_unnoticed() {
    let log = Log::new();
    let plane = log.start("a").await;
    plane.client.ingest(events(9)).await.unwrap();
    log.covering(&plane.client, 9).await;
    let records = records(&plane.client).await;
    plane.stop().await;
    let saved = "CREATE TABLE public.events_saved AS TABLE leviathan.events;
        CREATE TABLE public.bundles_saved AS TABLE leviathan.bundles;
        CREATE TABLE public.head_saved AS TABLE leviathan.chain_head;
        CREATE TABLE public.checkpoint_saved AS TABLE leviathan.checkpoint";
    log.server.sql("postgres", &log.database, saved).unwrap();
    let restore = "TRUNCATE leviathan.events, leviathan.bundles, leviathan.chain_head, leviathan.checkpoint;
        INSERT INTO leviathan.events TABLE public.events_saved;
        INSERT INTO leviathan.bundles TABLE public.bundles_saved;
        INSERT INTO leviathan.chain_head TABLE public.head_saved;
        INSERT INTO leviathan.checkpoint TABLE public.checkpoint_saved";

    // The last events are gone, and everything left fits together.
    log.tamper(
        "DELETE FROM leviathan.events WHERE seq > 5;
         UPDATE leviathan.bundles SET last_seq = 5;
         UPDATE leviathan.chain_head SET (seq, hash) = (SELECT seq, hash FROM leviathan.events WHERE seq = 5)",
    );
    // With the folder that it had before and with a new one.
    for name in ["a", "fresh"] {
        let told = log.refused(name).await;
        assert!(told.contains("ends with record 5") && told.contains("when it had 9"), "{told}");
    }

    // Another history, every hash of it computed anew by the database's own function.
    log.tamper(restore);
    let genesis = Head::genesis("example.com/log");
    let bodies: Vec<CanonicalBody> = records
        .iter()
        .map(|record| record.body().as_str().replace("reason 3", "excuse 3"))
        .map(|body| CanonicalBody::admit(body.as_bytes()).unwrap())
        .collect();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let listed: Vec<String> =
        bodies.iter().map(|body| format!("'\\x{}'::bytea", hex(body.as_bytes()))).collect();
    let forged = Bundle::after(genesis, Unchained::new(BundleId::parse("forged").unwrap(), bodies).unwrap());
    log.tamper(&format!(
        "TRUNCATE leviathan.events, leviathan.bundles;
         UPDATE leviathan.chain_head SET seq = 0, hash = '\\x{genesis}';
         SELECT leviathan.append_bundles(0, '\\x{genesis}', '{{forged}}', '{{9}}', ARRAY[{}], '\\x{}')",
        listed.join(","),
        forged.head().hash,
        genesis = genesis.hash,
    ));
    for name in ["a", "fresh"] {
        let told = log.refused(name).await;
        assert!(told.contains("the first 9 records of the journal are not those"), "{told}");
    }
    assert!(log.refused("a").await.contains("first of all in record 4"));
    // Nor does it help to take the checkpoint away, where the tiles are.
    log.tamper("TRUNCATE leviathan.checkpoint");
    assert!(log.refused("a").await.contains("leviathan.checkpoint is gone, but there are tiles"));

    // A checkpoint that another key signed.
    log.tamper(restore);
    log.tamper("UPDATE leviathan.checkpoint SET note = replace(note, E'\\n9\\n', E'\\n8\\n')");
    let told = log.refused("a").await;
    assert!(told.contains("is not one that the key of this log signed"), "{told}");

    // What was never changed goes on.
    log.tamper(restore);
    let plane = log.start("a").await;
    plane.client.ingest(events(1)).await.unwrap();
    log.covering(&plane.client, 10).await;
    plane.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_the_log_is_served_unsigned_and_says_so() {
    let log = Log::new();
    let plane = Plane::start_with(Path::new("unused"), |config| {
        *config = Config { log_key: None, ..log.config("a") };
    })
    .await;
    plane.client.ingest(events(1)).await.unwrap();
    let told = plane.client.log_checkpoint().await.unwrap_err().to_string();
    assert!(told.contains("LEVIATHAN_LOG_KEY") && told.contains("log keygen"), "{told}");
    plane.stop().await;
    // The name of the log is not that of the key, which nobody can give afterwards.
    let told = log.refused("a").await;
    assert!(
        told.contains("the key is that of the log `example.com/log`, but this log is `leviathan/"),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signed_log_moves_between_files_and_a_database_with_its_checkpoint() {
    let log = Log::new();
    let key = SecretString::from(log.key.to_secret_text());
    let files = |name: &str| Config {
        log_key: Some(key.clone()),
        ..Config::new(log.folder.path().join(name), SecretString::from(TOKEN))
    };
    let start = async |config: Config| {
        let listen = "127.0.0.1:0".parse().unwrap();
        Plane::start_with(Path::new("unused"), |unused| *unused = Config { listen, ..config }).await
    };
    let copy = async |from: Config, into: Config| {
        tokio::task::spawn_blocking(move || copy_log(&from, &into)).await.unwrap().unwrap()
    };
    let original = start(files("original")).await;
    original.client.ingest(events(5)).await.unwrap();
    let signed = log.covering(&original.client, 5).await;
    original.stop().await;
    assert_eq!(copy(files("original"), log.config("a")).await, 5);
    let plane = log.start("a").await;
    assert_eq!(log.covering(&plane.client, 5).await, signed);
    plane.client.ingest(events(3)).await.unwrap();
    log.covering(&plane.client, 8).await;
    plane.stop().await;
    // What goes back is held to what was signed meanwhile.
    assert_eq!(copy(log.config("a"), files("back")).await, 8);
    let plane = start(files("back")).await;
    assert_eq!(log.covering(&plane.client, 8).await.size, 8);
    plane.stop().await;
}
