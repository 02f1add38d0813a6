//! The process: opens the log, listens, serves, and stops in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use api::token::Keyring;
use axum::serve::ListenerExt;
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::artifacts::{ArtifactPlace, Artifacts};
use crate::checkpoints::{self, Checkpointer, Checkpoints, FileShelf, Places, Shelf, TableShelf};
use crate::history::History;
use crate::http::{self, App};
use crate::ledger::Ledger;
use crate::presence::Presence;
use crate::snapshots::{Claim, Snapshots, Snapshotter};
use crate::start::{self, Started};
use crate::store::{self, EventStore, MemoryStore, NdjsonStore, PostgresStore, Unread};
use crate::verification::{Verified, Verifier};
use crate::witness::{Pusher, Witness, WitnessAccess};

/// How long requests under way may take to end once the process stops.
const DRAIN: Duration = Duration::from_secs(15);

/// How many artifacts, each of up to 64 MiB in memory, are received at once.
const UPLOADS: usize = 4;

/// Where the log is kept.
#[derive(Debug, Clone)]
pub enum Backend {
    /// In files under the data folder.
    Ndjson,
    /// In memory, for as long as the process lives.
    Memory,
    /// In a PostgreSQL database that several control planes may share.
    Postgres(Database),
}

/// The database of a log, by URLs that hold passwords.
#[derive(Debug, Clone)]
pub struct Database {
    /// The URL with the role of the daily work.
    pub url: SecretString,
    /// The URL with the role that owns the schema. Used at the start only; without it the daily role makes the
    /// schema.
    pub owner_url: Option<SecretString>,
}

impl Backend {
    /// The word in `LEVIATHAN_BACKEND`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Ndjson => "ndjson",
            Self::Memory => "memory",
            Self::Postgres(_) => "postgres",
        }
    }

    /// Where other control planes of this log are heard; none where there are none.
    fn database_url(&self) -> Option<&SecretString> {
        match self {
            Self::Ndjson | Self::Memory => None,
            Self::Postgres(database) => Some(&database.url),
        }
    }
}

/// Everything a control plane is told at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 takes any that is free.
    pub listen: SocketAddr,
    /// The folder of `journal/`, `artifacts/` and `log-key`.
    pub data: PathBuf,
    /// Where the files of attempts are kept.
    pub artifacts: ArtifactPlace,
    /// The key that signs the log; without it, the one in the file `log-key`, which is made at the first start.
    pub log_key: Option<SecretString>,
    /// Where the log is kept.
    pub backend: Backend,
    /// The operator's token.
    pub token: SecretString,
    /// How long an executor counts as alive after its last heartbeat.
    pub lease: Duration,
    /// How long reads go on after the journal has failed, before the process ends.
    pub read_only_for: Duration,
    /// How long events may wait for a signed checkpoint before `/readyz` says so.
    pub unsigned_for: Duration,
    /// Who is shown each checkpoint.
    pub witness: Option<WitnessAccess>,
}

impl Config {
    /// The ordinary configuration: files under `data`, 127.0.0.1:8000, leases of 120 s.
    pub fn new(data: PathBuf, token: SecretString) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
            data,
            artifacts: ArtifactPlace::DataFolder,
            log_key: None,
            backend: Backend::Ndjson,
            token,
            lease: Duration::from_secs(120),
            read_only_for: Duration::from_secs(30),
            unsigned_for: Duration::from_secs(30),
            witness: None,
        }
    }
}

/// A control plane that has its log open and its port bound.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    app: Arc<App>,
    ledger: JoinHandle<()>,
    checkpointer: Option<Checkpointer>,
    pusher: Option<Pusher>,
    behind: Behind,
    read_only_for: Duration,
}

/// Serves until the process is told to stop by SIGTERM or SIGINT. `listening` is called once the port is bound.
///
/// # Errors
///
/// When the log cannot be opened or the address cannot be bound, and when the journal failed while serving.
pub async fn serve(config: Config, listening: impl FnOnce(SocketAddr)) -> anyhow::Result<()> {
    let server = Server::bind(config).await?;
    listening(server.address());
    server.run(told_to_stop()?).await
}

impl Server {
    /// Opens and verifies the log, then binds the port.
    ///
    /// # Errors
    ///
    /// When the log is in use, damaged, unreadable or not the one that its checkpoint was signed for, and when
    /// the address cannot be bound.
    pub async fn bind(config: Config) -> anyhow::Result<Self> {
        check_token(&config.token)?;
        let opening = config.clone();
        let opened = tokio::task::spawn_blocking(move || open(&opening)).await;
        let Opened { ledger, thread, checkpoints, artifacts, verified, behind } =
            opened.context("opening the journal met a bug")??;
        let (checkpoints, checkpointer) = checkpoints.unzip();
        let (witness, pusher) = witness(&config, checkpoints.as_ref())?.unzip();
        if let Some(problem) = artifacts.problem().await {
            tracing::warn!(error = ?problem, "Artifacts cannot be reached: what needs them answers 503 until they can.");
        }
        let listener = TcpListener::bind(config.listen).await.with_context(|| {
            format!("cannot listen on {}: is another control plane running?", config.listen)
        })?;
        let address = listener.local_addr().context("the listener has no address")?;
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "Listening beyond this machine without TLS: put a proxy in front, or tokens travel in the clear.");
        }
        let app = Arc::new(App {
            ledger,
            checkpoints,
            unsigned_for: config.unsigned_for,
            witness,
            artifacts,
            keyring: Keyring::new(&config.token),
            presence: Presence::new(config.lease, config.backend.database_url()).into(),
            uploads: Semaphore::new(UPLOADS),
            backend: config.backend.as_str(),
            requests: http::Requests::default(),
            verified,
            stopping: watch::Sender::default(),
        });
        let read_only_for = config.read_only_for;
        Ok(Self { listener, address, app, ledger: thread, checkpointer, pusher, behind, read_only_for })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is ready, then lets requests under way end.
    ///
    /// # Errors
    ///
    /// When the journal failed: every answer given before is durable, nothing was recorded after, and the
    /// process must end with a failure so that somebody looks at its disk or database.
    pub async fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
        let Self { listener, address, app, ledger, checkpointer, pusher, behind, read_only_for } = self;
        let failed = app.ledger.stopped();
        let (stopping, stopped) = (app.stopping.clone(), app.stopping.subscribe());
        let until = when_to_stop(stop, failed.clone(), read_only_for, stopping);
        let exchange = app.presence.exchange();
        let pusher = pusher.map(|pusher| tokio::spawn(pusher.run()));
        let router = http::router(app);
        // Answers are small and wait for nothing: do not let the kernel hold them back.
        let listener = listener.tap_io(|stream| {
            let _ = stream.set_nodelay(true);
        });
        tracing::info!(%address, "The control plane is ready.");
        let serving = axum::serve(listener, router).with_graceful_shutdown(until);
        tokio::select! {
            served = serving.into_future() => served.context("cannot serve")?,
            () = overdue(stopped) => tracing::warn!("Some requests did not end in time and were cut off."),
        }
        if let Some(exchange) = exchange {
            exchange.abort();
        }
        // The witness sees what it has not seen yet after the next start. Its task holds a handle on the ledger too.
        if let Some(pusher) = pusher {
            pusher.abort();
            let _ = pusher.await;
        }
        // Its thread holds a handle on the ledger, and signs what was recorded until now.
        if let Some(checkpointer) = checkpointer {
            let _ = tokio::task::spawn_blocking(|| checkpointer.end()).await;
        }
        let _ = tokio::task::spawn_blocking(|| behind.end()).await;
        end(ledger, &failed).await
    }
}

/// Everything that opening made.
struct Opened {
    ledger: Ledger,
    thread: JoinHandle<()>,
    /// None of a log in memory.
    checkpoints: Option<(Checkpoints, Checkpointer)>,
    artifacts: Artifacts,
    verified: Arc<Verified>,
    behind: Behind,
}

fn open(config: &Config) -> anyhow::Result<Opened> {
    let artifacts = Artifacts::open(&config.artifacts, &config.data)?;
    let key = config.log_key.as_ref().map(checkpoints::given_key).transpose()?;
    // A new log gets the name of the key that it is given, and otherwise one that no other log has.
    let new_origin = match &key {
        Some(key) => key.name().to_string(),
        None => format!("leviathan/{}", uuid::Uuid::new_v4()),
    };
    let Log { store, history, unverified } = open_log(config, &new_origin)?;
    let origin = store.origin().to_owned();
    let (ledger, thread) = Ledger::start(store, history)?;
    let checkpoints = match shelf(config, key.is_some())? {
        None => None,
        Some((shelf, tiles)) => {
            let places = Places { shelf, tiles, key: &config.data.join("log-key") };
            Some(Checkpoints::start(ledger.clone(), &origin, key, places)?)
        }
    };
    let (verified, behind) = Behind::start(config, &ledger, unverified)?;
    Ok(Opened { ledger, thread, checkpoints, artifacts, verified, behind })
}

/// Who is shown the checkpoints, and the task that shows them; nobody unless it is configured.
fn witness(config: &Config, checkpoints: Option<&Checkpoints>) -> anyhow::Result<Option<(Witness, Pusher)>> {
    let Some(access) = config.witness.clone() else { return Ok(None) };
    let checkpoints = checkpoints.context(
        "LEVIATHAN_WITNESS_URL is set, but this log is not signed, so there is nothing to show to a witness: give LEVIATHAN_LOG_KEY if the log is in PostgreSQL, keep it in files or PostgreSQL if it is in memory, or unset LEVIATHAN_WITNESS_URL",
    )?;
    Ok(Some(Witness::of(access, checkpoints.clone())?))
}

/// A log that was opened, with as much of its history as opening it gave.
struct Log {
    store: Box<dyn EventStore>,
    history: History,
    /// What was not read, and what a snapshot says that it comes to.
    unverified: Option<(Unread, Claim)>,
}

fn open_log(config: &Config, new_origin: &str) -> anyhow::Result<Log> {
    match config.backend {
        Backend::Ndjson => {
            let Started { store, history, claim } = start::start(&config.data.join("journal"), new_origin)?;
            let unverified = store.unread().zip(claim);
            Ok(Log { store: Box::new(store), history, unverified })
        }
        Backend::Memory | Backend::Postgres(_) => {
            let store = open_store(config, new_origin)?;
            Ok(Log { store, history: History::default(), unverified: None })
        }
    }
}

/// What works on the files of the log behind everything else.
struct Behind {
    verifier: Option<Verifier>,
    snapshotter: Option<Snapshotter>,
}

impl Behind {
    fn start(
        config: &Config,
        ledger: &Ledger,
        unverified: Option<(Unread, Claim)>,
    ) -> anyhow::Result<(Arc<Verified>, Self)> {
        let verified =
            Arc::new(if unverified.is_some() { Verified::default() } else { Verified::everything() });
        let snapshot = unverified.as_ref().map_or(0, |(unread, _)| unread.head().seq);
        let verify = |(unread, claim)| Verifier::start(ledger.clone(), unread, claim, Arc::clone(&verified));
        let verifier = unverified.map(verify).transpose()?;
        let snapshotter = match config.backend {
            Backend::Ndjson => {
                let snapshots = Snapshots::of(&config.data.join("journal"));
                Some(Snapshotter::start(ledger.clone(), snapshots, snapshot, Arc::clone(&verified))?)
            }
            Backend::Memory | Backend::Postgres(_) => None,
        };
        Ok((verified, Self { verifier, snapshotter }))
    }

    /// Ends all of it, and gives back the handles on the ledger.
    fn end(self) {
        self.verifier.into_iter().for_each(Verifier::end);
        self.snapshotter.into_iter().for_each(Snapshotter::end);
    }
}

/// Where the checkpoints of the log are kept, and the folder of its tiles; nothing of a log that is not signed.
fn shelf(config: &Config, has_key: bool) -> anyhow::Result<Option<(Box<dyn Shelf>, PathBuf)>> {
    let journal = config.data.join("journal");
    Ok(match &config.backend {
        Backend::Ndjson => {
            Some((Box::new(FileShelf::new(journal.join("checkpoint"))), journal.join("tiles")))
        }
        Backend::Postgres(database) if has_key => {
            Some((Box::new(TableShelf::new(&database.url)?), config.data.join("tiles")))
        }
        // All that serve it must sign with one key, so none makes one of its own.
        Backend::Postgres(_) => {
            tracing::warn!(
                "The log is not signed: give every control plane of it the same LEVIATHAN_LOG_KEY, which `leviathanctl log keygen` makes."
            );
            None
        }
        // It ends with the process.
        Backend::Memory => None,
    })
}

fn open_store(config: &Config, new_origin: &str) -> anyhow::Result<Box<dyn EventStore>> {
    Ok(match &config.backend {
        Backend::Memory => Box::new(MemoryStore::new(new_origin)),
        Backend::Ndjson => Box::new(NdjsonStore::open(&config.data.join("journal"), new_origin)?),
        Backend::Postgres(Database { url, owner_url }) => {
            Box::new(PostgresStore::open(url, owner_url.as_ref(), new_origin)?)
        }
    })
}

/// Copies the whole log of `from` to where `into` keeps its own, which must be new: the same records in the same
/// bundles, so the same lines, and the newest checkpoint. Answers how many records there are. Blocks.
///
/// # Errors
///
/// When either cannot be opened, the original is damaged, or the destination is not empty.
pub fn copy_log(from: &Config, into: &Config) -> anyhow::Result<u64> {
    let shelves = (shelf(from, true)?, shelf(into, true)?);
    let from = open_store(from, "leviathan/empty").context("cannot open the log to copy")?;
    let into = open_store(into, from.origin()).context("cannot open the log to copy into")?;
    let copied = store::copy(&*from, &*into)?;
    if let (Some((from, _)), Some((into, _))) = shelves {
        checkpoints::carry(&*from, &*into).context("the records were copied, but not their checkpoint")?;
    }
    Ok(copied)
}

fn check_token(token: &SecretString) -> anyhow::Result<()> {
    anyhow::ensure!(
        token.expose_secret().len() >= 8,
        "LEVIATHAN_CONTROL_PLANE_TOKEN is empty or shorter than 8 characters: set it to a long random text"
    );
    Ok(())
}

/// Ready when the process is told to stop, or a while after the journal failed.
async fn when_to_stop(
    stop: impl Future<Output = ()>,
    mut failed: watch::Receiver<Option<String>>,
    read_only_for: Duration,
    stopping: watch::Sender<bool>,
) {
    let failure = async {
        // An error means that the ledger is gone altogether, which is no better.
        let reason = failed.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        tracing::error!(
            error = reason.unwrap_or_default(),
            "The journal failed: reads go on for a while, then the process ends."
        );
        tokio::time::sleep(read_only_for).await;
    };
    tokio::select! {
        () = stop => tracing::info!("Stopping: requests under way are answered first."),
        () = failure => {}
    }
    stopping.send_replace(true);
}

/// Ready once stopping has taken too long.
async fn overdue(mut stopping: watch::Receiver<bool>) {
    if stopping.wait_for(|is_stopping| *is_stopping).await.is_err() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(DRAIN).await;
}

/// Waits for the ledger to have answered everybody, and says whether it was well to the end.
async fn end(ledger: JoinHandle<()>, failed: &watch::Receiver<Option<String>>) -> anyhow::Result<()> {
    let joined = tokio::task::spawn_blocking(move || ledger.join()).await;
    let is_sound = matches!(joined, Ok(Ok(())));
    match failed.borrow().as_ref() {
        Some(reason) => anyhow::bail!("{reason}"),
        None if is_sound => Ok(()),
        None => anyhow::bail!("the ledger met a bug; its text is in the log above"),
    }
}

/// Ready when the process receives SIGTERM or SIGINT.
fn told_to_stop() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
