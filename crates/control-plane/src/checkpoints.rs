//! What the log looked like, signed: so that whoever keeps a checkpoint can hold the log to it.
//!
//! ```text
//! journal/checkpoint    the last signed checkpoint; replaced by one that it is a beginning of, and by no other
//! journal/tiles/…       the hashes of the tree over all records, from which every proof is made
//! ```
//!
//! Of a log in a database, the checkpoint is in a table there and the tiles are in the data folder of each process.
//! A thread of its own looks twice a second whether there are new records, takes their hashes into the tree,
//! writes the tiles and then signs. It reads what the ledger has made durable and holds the ledger up by nothing.
//! When the process starts, the stored checkpoint must be one of this log as it is now: a log that was cut,
//! rewritten or rolled back is refused before anything is recorded after it.

mod key;
mod shelf;
mod standing;
mod tiles;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use journal::{
    Checkpoint, CheckpointError, InclusionProof, KeyError, KeyName, Note, NoteError, SigningKey, Subtree,
    Tile, TileHashes, TileWriter, TreeHash, Unproven, VerifierKey, prove_consistency, prove_inclusion,
    root_of, subtree_hash, verify_consistency, verify_inclusion,
};
use prometheus_client::registry::Registry;
use tokio::sync::watch;

pub(crate) use self::key::{NoKey, given as given_key};
pub(crate) use self::shelf::{FileShelf, Shelf, ShelfError, TableShelf};
pub(crate) use self::standing::Lag;
use self::standing::Standing;
use self::tiles::{TileFolder, Unreadable};
use crate::ledger::Ledger;
use crate::store::{AppendError, ReadError};

/// How long new records wait for their checkpoint.
const INTERVAL: Duration = Duration::from_millis(500);

/// How long they wait at most once signing failed: a try may read the whole log.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// How long what another process recorded may take to be seen here.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many records are read at once.
const BATCH: usize = 4_096;

/// After how many records the tiles are written although more records wait.
const WRITE_EVERY: u64 = 65_536;

/// A handle on the checkpoints of the log. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Checkpoints {
    shared: Arc<Shared>,
}

/// The thread that signs. It signs once more when it is told to end.
pub(crate) struct Checkpointer {
    thread: JoinHandle<()>,
    stop: mpsc::Sender<()>,
}

/// Where the parts are that checkpoints need.
pub(crate) struct Places<'a> {
    /// The place of the newest checkpoint.
    pub(crate) shelf: Box<dyn Shelf>,
    /// The folder of the tiles.
    pub(crate) tiles: PathBuf,
    /// The file of the key, unless one is given.
    pub(crate) key: &'a Path,
}

/// A checkpoint and the note that says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signed {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) note: String,
}

/// Why there is no next checkpoint, and at the start, no control plane.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    /// The log's name cannot be that of a key.
    #[error("this log cannot be signed, because its name cannot name a key: {0}")]
    Name(KeyError),
    /// There is no key.
    #[error(transparent)]
    Key(#[from] NoKey),
    /// What is stored as the checkpoint is not one of this log.
    #[error(
        "the checkpoint in {place} is not one that the key of this log signed: {problem}. Nothing was changed: restore the checkpoint, and the key if that was replaced, from a backup"
    )]
    Foreign {
        /// Where it is kept.
        place: String,
        /// What is wrong.
        problem: CheckpointError,
    },
    /// There were checkpoints, and the last one is gone.
    #[error(
        "the checkpoint in {place} is gone, but there are tiles of this log, so it was signed before: restore the checkpoint from a backup. If it is lost for good, remove {} too, and a new one is signed for the log as it is",
        .tiles.display()
    )]
    Gone {
        /// Where it was kept.
        place: String,
        /// The folder of the tiles.
        tiles: PathBuf,
    },
    /// Records that were signed are not there any more.
    #[error(
        "the journal ends with record {head}, but its checkpoint was signed when it had {signed}: the records {} to {signed} were cut off, or an older copy was put back. Nothing was changed: restore all of the journal from the newest backup", .head + 1
    )]
    Cut {
        /// The records that there are.
        head: u64,
        /// The records that were signed.
        signed: u64,
    },
    /// Records that were signed are now others.
    #[error(
        "the first {signed} records of the journal are not those that its checkpoint was signed for: the history was rewritten{}. Nothing was changed now: restore all of the journal from a backup",
        .first.map(|seq| format!(", first of all in record {seq}")).unwrap_or_default()
    )]
    Rewritten {
        /// The records that were signed.
        signed: u64,
        /// The first record that differs, as far as the tiles tell.
        first: Option<u64>,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The checkpoint cannot be read or replaced.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    /// The end of the log cannot be made whole.
    #[error(transparent)]
    Unsettled(#[from] AppendError),
    /// The file system failed.
    #[error("{action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
}

impl Refused {
    /// The kind of the problem, in words that may be told to anybody.
    fn in_short(&self) -> &'static str {
        match self {
            Self::Name(_) | Self::Key(_) => "the key of the log cannot be used",
            Self::Foreign { .. } => "the stored checkpoint is not one that the key of this log signed",
            Self::Gone { .. } => "the stored checkpoint is gone",
            Self::Cut { .. } => "records that were signed are not there any more",
            Self::Rewritten { .. } => "records that were signed are now others",
            Self::Read(_) | Self::Unsettled(_) => "the log cannot be read",
            Self::Shelf(_) => "the stored checkpoint cannot be read or replaced",
            Self::Io { .. } => "the tiles of the log cannot be read or written",
        }
    }
}

/// Why something about the log cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotServed {
    /// No checkpoint covers it.
    #[error("the log has no {what}: its checkpoint is of {size} records")]
    Beyond {
        /// What was asked for.
        what: String,
        /// The size of the checkpoint.
        size: u64,
    },
    /// Sizes in the wrong order.
    #[error("a log of {new} records cannot begin with one of {old}: `old` must not be above `new`")]
    Shrunk {
        /// The earlier size that was asked for.
        old: u64,
        /// The later one.
        new: u64,
    },
    /// The log does not give it.
    #[error(transparent)]
    Failed(#[from] Refused),
}

/// Why a tile did not lead to a proof.
#[derive(Debug, thiserror::Error)]
enum Useless {
    #[error(transparent)]
    Tile(#[from] Unreadable),
    #[error(transparent)]
    Unproven(#[from] Unproven),
}

struct Shared {
    ledger: Ledger,
    key: SigningKey,
    shelf: Box<dyn Shelf>,
    tiles: TileFolder,
    tiles_folder: PathBuf,
    latest: watch::Sender<Arc<Signed>>,
    standing: Standing,
    /// Held while tiles are made again.
    repair: Mutex<()>,
}

impl Checkpoints {
    /// Compares the log with its stored checkpoint, then settles the log and begins to sign. The thread holds a
    /// handle on the ledger and is to be ended before that.
    pub(crate) fn start(
        ledger: Ledger,
        origin: &str,
        key: Option<SigningKey>,
        places: Places<'_>,
    ) -> Result<(Self, Checkpointer), Refused> {
        let (shared, tree) = Shared::open(ledger, origin, key, places)?;
        shared.ledger.settle()?;
        tracing::info!(log.key = %shared.verifier(), log.size = tree.frontier().size(), "The log is what its checkpoint says.");
        let shared = Arc::new(shared);
        let (stop, stopped) = mpsc::channel();
        let signer = Signer { shared: Arc::clone(&shared), tree: Some(tree) };
        let thread = std::thread::Builder::new().name("checkpoints".to_owned());
        let thread = thread.spawn(move || signer.run(&stopped)).map_err(|source| Refused::Io {
            action: "cannot start the thread that signs",
            path: shared.tiles_folder.clone(),
            source,
        })?;
        Ok((Self { shared }, Checkpointer { thread, stop }))
    }

    /// What [`Self::start`] does before it begins to sign.
    #[cfg(test)]
    pub(crate) fn compare(ledger: Ledger, origin: &str, places: Places<'_>) -> Result<(), Refused> {
        let (shared, _) = Shared::open(ledger, origin, None, places)?;
        Ok(shared.ledger.settle()?)
    }

    /// The key with which others verify this log.
    pub(crate) fn verifier(&self) -> VerifierKey {
        self.shared.verifier()
    }

    /// The newest checkpoint.
    pub(crate) fn latest(&self) -> Arc<Signed> {
        self.shared.latest()
    }

    /// What is durable and not signed yet.
    pub(crate) fn lag(&self, now: Instant) -> Lag {
        self.shared.lag(now)
    }

    /// Shows it to a scraper.
    pub(crate) fn register(&self, now: Instant, registry: &mut Registry) {
        self.shared.standing.register(self.lag(now), registry);
    }

    /// The newest checkpoint, as it is replaced.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Signed>> {
        self.shared.latest.subscribe()
    }

    /// Whether other processes sign the same log.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.shelf.is_shared()
    }

    /// Waits until a checkpoint covers `seq`.
    pub(crate) async fn covering(&self, seq: u64) -> Arc<Signed> {
        let mut latest = self.shared.latest.subscribe();
        match latest.wait_for(|signed| signed.checkpoint.size >= seq).await {
            Ok(signed) => Arc::clone(&signed),
            // We hold the sender ourselves.
            Err(_) => self.latest(),
        }
    }

    /// The bytes of a tile, each hash of which leads to the signed root. Reads files.
    pub(crate) fn tile(&self, tile: Tile) -> Result<Vec<u8>, NotServed> {
        let signed = self.latest();
        let Checkpoint { size, root, .. } = signed.checkpoint;
        if !tile.is_in(size) {
            return Err(NotServed::Beyond { what: tile.to_string(), size });
        }
        let hashes = self.shared.proven(&signed, || {
            let hashes = self.shared.tiles.read(tile)?;
            hashes.verify(size, root, |tile| Ok::<_, Useless>(self.shared.tiles.read(tile)?))?;
            Ok(hashes)
        })?;
        Ok(hashes.to_bytes())
    }

    /// The proof that the record `seq` is in the log. Reads files.
    pub(crate) fn inclusion(&self, seq: u64) -> Result<InclusionProof, NotServed> {
        let signed = self.latest();
        let Checkpoint { size, root, .. } = signed.checkpoint;
        let beyond = || NotServed::Beyond { what: format!("record {seq}"), size };
        let index = seq.checked_sub(1).filter(|index| *index < size).ok_or_else(beyond)?;
        let leaf = self.shared.leaf(seq)?;
        let hashes = self.shared.proven(&signed, || {
            let proof = prove_inclusion(index, size, |subtree| self.shared.hash(subtree, size))?;
            verify_inclusion(leaf, index, size, &proof, root)?;
            Ok(proof)
        })?;
        let checkpoint = self.shared.read_back(&signed)?;
        Ok(InclusionProof { index, hashes, checkpoint })
    }

    /// The proof that the log of `new` records begins with the log of `old`. Reads files.
    pub(crate) fn consistency(&self, old: u64, new: u64) -> Result<Vec<TreeHash>, NotServed> {
        let signed = self.latest();
        let Checkpoint { size, root, .. } = signed.checkpoint;
        if old > new {
            return Err(NotServed::Shrunk { old, new });
        }
        if new > size {
            return Err(NotServed::Beyond { what: format!("state of {new} records"), size });
        }
        let shared = &self.shared;
        let proof = shared.proven(&signed, || {
            let [old_root, new_root] = [old, new].map(|at| root_of(at, |subtree| shared.hash(subtree, size)));
            let (old_root, new_root) = (old_root?, new_root?);
            let to_signed = prove_consistency(new, size, |subtree| shared.hash(subtree, size))?;
            verify_consistency(new, new_root, size, root, &to_signed)?;
            let proof = prove_consistency(old, new, |subtree| shared.hash(subtree, size))?;
            verify_consistency(old, old_root, new, new_root, &proof)?;
            Ok(proof)
        })?;
        Ok(proof)
    }
}

impl Checkpointer {
    /// Signs what is recorded now, and ends.
    pub(crate) fn end(self) {
        drop(self.stop);
        // A panic has its text in the log; what was signed before stays true.
        let _ = self.thread.join();
    }
}

impl Shared {
    fn open(
        ledger: Ledger,
        origin: &str,
        key: Option<SigningKey>,
        places: Places<'_>,
    ) -> Result<(Self, TileWriter), Refused> {
        let name = KeyName::parse(origin).map_err(Refused::Name)?;
        let Places { shelf, tiles: tiles_folder, key: key_file } = places;
        let tiles = TileFolder::new(tiles_folder.clone());
        let io = |source| Refused::Io { action: "cannot read", path: tiles_folder.clone(), source };
        let stored = shelf.read()?;
        if stored.is_none() && !tiles.is_empty().map_err(io)? {
            return Err(Refused::Gone { place: shelf.place(), tiles: tiles_folder });
        }
        let key = match key {
            Some(key) => key,
            None => key::kept(key_file, &name, stored.is_some())?,
        };
        if *key.name() != name {
            return Err(NoKey::Foreign { key: key.name().clone(), log: name }.into());
        }
        let empty = Checkpoint { origin: name, size: 0, root: TreeHash::empty() };
        let first = sign(&empty, &key);
        let shared = Self {
            ledger,
            key,
            shelf,
            tiles,
            tiles_folder,
            latest: watch::Sender::new(Arc::new(first)),
            standing: Standing::new(Instant::now()),
            repair: Mutex::default(),
        };
        // The first is signed before any tile is there, so that tiles without a checkpoint mean that it was taken away.
        if stored.is_none() && shared.shelf.replace(None, &shared.latest())? {
            return Ok((shared, TileWriter::default()));
        }
        let signed = shared.stored()?;
        let tree = shared.require_beginning(&signed.checkpoint)?;
        shared.latest.send_replace(Arc::new(signed));
        Ok((shared, tree))
    }

    fn verifier(&self) -> VerifierKey {
        self.key.verifier()
    }

    fn latest(&self) -> Arc<Signed> {
        Arc::clone(&self.latest.borrow())
    }

    /// What is stored, as what we or another process with our key signed.
    fn stored(&self) -> Result<Signed, Refused> {
        let place = self.shelf.place();
        let Some(note) = self.shelf.read()? else {
            return Err(Refused::Gone { place, tiles: self.tiles_folder.clone() });
        };
        let checkpoint = Checkpoint::open(&note, &self.verifier());
        let checkpoint = checkpoint.map_err(|problem| Refused::Foreign { place, problem })?;
        Ok(Signed { checkpoint, note })
    }

    fn lag(&self, now: Instant) -> Lag {
        // The checkpoint is looked at first: what is recorded meanwhile is not signed.
        let size = self.latest().checkpoint.size;
        self.standing.lag(self.head().saturating_sub(size), now)
    }

    fn read_back(&self, signed: &Signed) -> Result<Note, Refused> {
        let foreign =
            |problem: NoteError| Refused::Foreign { place: self.shelf.place(), problem: problem.into() };
        Note::parse(&signed.note).map_err(foreign)
    }

    /// The tree of a signed size, if the log begins with it.
    ///
    /// Each record names all before it by its hash. So it is enough that the last one which was signed is the
    /// one that the log has there; the log itself was verified by its store.
    fn require_beginning(&self, signed: &Checkpoint) -> Result<TileWriter, Refused> {
        let Checkpoint { size, root, .. } = *signed;
        let head = self.head_from(size);
        if size > head {
            return Err(Refused::Cut { head, signed: size });
        }
        if size == 0 {
            return Ok(TileWriter::default());
        }
        let last = self.leaf(size)?;
        let by_tiles = || {
            let proof = prove_inclusion(size - 1, size, |subtree| self.hash(subtree, size))?;
            verify_inclusion(last, size - 1, size, &proof, root)?;
            self.resume(signed)
        };
        match by_tiles() {
            Ok(tree) if self.tiles.has_all(size) => Ok(tree),
            Ok(_) => self.rebuild(signed),
            Err(problem) => {
                tracing::warn!(error = %problem, "The tiles of the log do not fit its checkpoint: they are made again from its records.");
                self.rebuild(signed)
            }
        }
    }

    /// The tree of a signed size from the tiles at its right edge.
    fn resume(&self, signed: &Checkpoint) -> Result<TileWriter, Useless> {
        let tree = TileWriter::resume(signed.size, |tile| self.tiles.read(tile))?;
        if tree.frontier().root() == signed.root { Ok(tree) } else { Err(Unproven::Root.into()) }
    }

    /// Makes all tiles of a signed size again from the records, if these are the ones that were signed.
    fn rebuild(&self, signed: &Checkpoint) -> Result<TileWriter, Refused> {
        let mut tree = TileWriter::default();
        self.append(&mut tree, signed.size, |_| Ok(()))?;
        let tiles = tree.cut();
        let found = tree.frontier();
        if found.size() != signed.size {
            return Err(Refused::Cut { head: found.size(), signed: signed.size });
        }
        if found.root() != signed.root {
            return Err(Refused::Rewritten { signed: signed.size, first: self.first_difference(&tiles) });
        }
        self.tiles.write(&tiles).map_err(|source| self.tiles_failed(source))?;
        tracing::info!(log.size = signed.size, "The tiles of the log were made again from its records.");
        Ok(tree)
    }

    /// The first record whose leaf is not the one that the stored tiles have.
    fn first_difference(&self, tiles: &[TileHashes]) -> Option<u64> {
        tiles.iter().filter(|hashes| hashes.tile().level() == 0).find_map(|ours| {
            let kept = self.tiles.read(ours.tile()).ok()?;
            let place = ours.hashes().iter().zip(kept.hashes()).position(|(ours, kept)| ours != kept)?;
            Some(ours.tile().index() * u64::from(journal::TILE_WIDTH) + place as u64 + 1)
        })
    }

    /// Appends the leaves of the records up to `end`, and hands the tree over after each batch.
    fn append(
        &self,
        tree: &mut TileWriter,
        end: u64,
        mut after: impl FnMut(&mut TileWriter) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        while tree.frontier().size() < end {
            let size = tree.frontier().size();
            let wanted = usize::try_from(end - size).unwrap_or(BATCH).min(BATCH);
            let records = self.ledger.records(size + 1, wanted)?;
            if records.is_empty() {
                return Ok(());
            }
            records.iter().for_each(|record| tree.append(TreeHash::leaf(record.hash())));
            after(tree)?;
        }
        Ok(())
    }

    /// What `make` answers. If the tiles are of no use to it, they are made again, once.
    fn proven<T>(&self, signed: &Signed, make: impl Fn() -> Result<T, Useless>) -> Result<T, Refused> {
        if let Ok(made) = make() {
            return Ok(made);
        }
        let _alone = self.repair.lock().unwrap_or_else(PoisonError::into_inner);
        make().or_else(|problem| {
            tracing::error!(error = %problem, "A tile of the log is not what it was: all are made again from the records.");
            self.rebuild(&signed.checkpoint)?;
            make().map_err(|problem| self.tiles_failed(io::Error::other(problem)))
        })
    }

    /// The number of the last record.
    fn head(&self) -> u64 {
        self.ledger.history().graph().head()
    }

    /// The same once it is `seq` or more. Where others record too, what they signed may not have been seen yet.
    fn head_from(&self, seq: u64) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        while self.shelf.is_shared() && self.head() < seq && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.head()
    }

    /// The leaf of a record that is there.
    fn leaf(&self, seq: u64) -> Result<TreeHash, Refused> {
        let record = self.ledger.records(seq, 1)?.pop();
        let record = record.ok_or(Refused::Cut { head: self.head(), signed: seq })?;
        Ok(TreeHash::leaf(record.hash()))
    }

    fn hash(&self, subtree: Subtree, size: u64) -> Result<TreeHash, Useless> {
        Ok(subtree_hash(subtree, size, |tile| self.tiles.read(tile))?)
    }

    /// Replaces the stored checkpoint by one of this tree, which must continue it. What is stored then; nothing when
    /// another process knows more records than the tree has, or signs at this very moment.
    fn advance(&self, tree: &TileWriter) -> Result<Option<Signed>, Refused> {
        let frontier = tree.frontier();
        let size = frontier.size();
        let stored = self.stored()?;
        let signed = &stored.checkpoint;
        if signed.size > size {
            let cut = Refused::Cut { head: size, signed: signed.size };
            return if self.shelf.is_shared() { Ok(None) } else { Err(cut) };
        }
        let root = root_of(signed.size, |subtree| self.hash(subtree, size));
        let root = root.map_err(|problem| self.tiles_failed(io::Error::other(problem)))?;
        if root != signed.root {
            return Err(Refused::Rewritten { signed: signed.size, first: None });
        }
        if signed.size == size {
            return Ok(Some(stored));
        }
        let next = Checkpoint { origin: signed.origin.clone(), size, root: frontier.root() };
        let next = sign(&next, &self.key);
        Ok(self.shelf.replace(Some(&stored.note), &next)?.then_some(next))
    }

    fn tiles_failed(&self, source: io::Error) -> Refused {
        Refused::Io { action: "cannot use the tiles in", path: self.tiles_folder.clone(), source }
    }
}

/// The thread's side.
struct Signer {
    shared: Arc<Shared>,
    /// The tree up to the newest checkpoint; gone after something failed on the way to the next.
    tree: Option<TileWriter>,
}

impl Signer {
    fn run(mut self, stopped: &mpsc::Receiver<()>) {
        loop {
            let pause = self.shared.standing.pause(INTERVAL, LONGEST_PAUSE);
            let is_last = match stopped.recv_timeout(pause) {
                Err(RecvTimeoutError::Timeout) => false,
                Ok(()) | Err(RecvTimeoutError::Disconnected) => true,
            };
            let advanced = self.advance();
            self.tell(&advanced);
            if is_last {
                return self.tell_what_is_left();
            }
        }
    }

    /// Says that signing begins to fail, fails in another way, or succeeds again; and not that it still does.
    fn tell(&self, advanced: &Result<(), Refused>) {
        let standing = &self.shared.standing;
        match advanced {
            Ok(()) => {
                if let Some(failures) = standing.succeeded() {
                    let size = self.shared.latest().checkpoint.size;
                    tracing::info!(log.size = size, failures, "The log is signed again.");
                }
            }
            Err(problem) => {
                if standing.failed(problem) {
                    let size = self.shared.latest().checkpoint.size;
                    tracing::error!(error = %problem, log.signed = size, "The log goes on, but without a new checkpoint: what is recorded now is durable and not signed. Mend this, and it is signed by itself.");
                }
            }
        }
    }

    fn tell_what_is_left(&self) {
        let Lag { events, obstacle, .. } = self.shared.lag(Instant::now());
        if events > 0
            && let Some(obstacle) = obstacle
        {
            tracing::error!(
                log.unsigned = events,
                obstacle,
                "Stopped without a checkpoint of the newest records: the next start signs them."
            );
        }
    }

    /// Signs what was recorded since the newest checkpoint, if anything was.
    fn advance(&mut self) -> Result<(), Refused> {
        let shared = Arc::clone(&self.shared);
        let looked = Instant::now();
        let (head, signed) = (shared.head(), shared.latest());
        if head <= signed.checkpoint.size {
            shared.standing.complete(looked);
            return Ok(());
        }
        let mut tree = match self.tree.take() {
            Some(tree) => tree,
            None => shared.require_beginning(&signed.checkpoint)?,
        };
        let write =
            |tiles: &[TileHashes]| shared.tiles.write(tiles).map_err(|source| shared.tiles_failed(source));
        let mut written = tree.frontier().size();
        shared.append(&mut tree, head, |tree| {
            if tree.frontier().size() - written >= WRITE_EVERY {
                written = tree.frontier().size();
                write(&tree.cut())?;
            }
            Ok(())
        })?;
        let tiles = tree.cut();
        write(&tiles)?;
        // A crash before this line leaves tiles beyond the checkpoint. They follow from the log: nobody was told
        // of them, and the next start writes the same.
        if let Some(next) = shared.advance(&tree)? {
            shared.latest.send_replace(Arc::new(next));
            shared.standing.complete(looked);
            shared.tiles.tidy(&tiles);
        }
        self.tree = Some(tree);
        Ok(())
    }
}

/// Puts the checkpoint of `from`, if there is one, into the empty place `into`. Who starts on it judges it by the key.
pub(crate) fn carry(from: &dyn Shelf, into: &dyn Shelf) -> Result<(), Refused> {
    let Some(note) = from.read()? else { return Ok(()) };
    let foreign = |problem| Refused::Foreign { place: from.place(), problem };
    let checkpoint = Checkpoint::read_unverified(&note).map_err(foreign)?;
    into.replace(None, &Signed { checkpoint, note })?;
    Ok(())
}

fn sign(checkpoint: &Checkpoint, key: &SigningKey) -> Signed {
    let note = checkpoint.sign(key).expect("the key has the name of the log");
    Signed { checkpoint: checkpoint.clone(), note: note.to_string() }
}
