//! A journal of which every file is damaged in every way: what is torn is recovered, what follows from the log is
//! made again, and everything else is refused and named. Nothing that was changed is ever told as what was recorded.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use journal::{BundleId, CanonicalBody, Record, Unchained};
use tempfile::TempDir;

use super::*;
use crate::admission::Admitted;
use crate::checkpoints::{Checkpoints, FileShelf, Places};
use crate::ledger::Ledger;
use crate::store::EventStore;
use crate::verification::{Verdict, Verified, Verifier, verify};

const ORIGIN: &str = "test/start";

/// So many events were signed, and so many are in the snapshot. One more follows them.
const SIGNED: usize = 4;

/// The files of a data folder, by their names in it.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// What a start came to.
#[derive(Debug, PartialEq)]
struct Told {
    records: Vec<Record>,
    /// What follows from them, in bytes.
    history: Vec<Vec<u8>>,
}

fn body(n: usize) -> CanonicalBody {
    let event = format!(
        r#"{{"event_id":"e-{n}","event_type":"scheduler.paused","timestamp":"2026-01-01T00:00:0{n}Z","actor_id":"operator","payload":{{"reason":"for {n}"}}}}"#
    );
    Admitted::from_json(event.as_bytes()).unwrap().body
}

fn append(store: &dyn EventStore, events: Range<usize>) {
    let id = BundleId::parse(&format!("b-{}", events.start)).unwrap();
    let bundle = Unchained::new(id, events.map(body).collect()).unwrap();
    store.turn().unwrap().append(vec![bundle]).unwrap();
}

fn opening(data: &Path) -> Opening {
    Opening::begin(&data.join("journal"), ORIGIN).unwrap()
}

fn places<'a>(journal: &Path, key: &'a Path) -> Places<'a> {
    let shelf = Box::new(FileShelf::new(journal.join("checkpoint")));
    Places { shelf, tiles: journal.join("tiles"), key }
}

/// Where there is no disk to wait for, if this machine has that.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).unwrap()
}

/// A journal of two sealed segments and one that grows, with tiles and a checkpoint, the places of its records and
/// a snapshot; and after all that one more event.
fn journal() -> Files {
    let data = folder();
    let store = opening(data.path()).with_segments_of(1).read(&mut |_| {}).unwrap();
    for events in [0..2, 2..3, 3..SIGNED] {
        append(&store, events);
    }
    drop(store);
    let folder = data.path().join("journal");
    let Started { store, history, .. } = start(&folder, ORIGIN).unwrap();
    let (ledger, thread) = Ledger::start(Box::new(store), history).unwrap();
    let key = data.path().join("log-key");
    let (_, checkpointer) = Checkpoints::start(ledger.clone(), ORIGIN, None, places(&folder, &key)).unwrap();
    checkpointer.end();
    ledger.keep_places(SIGNED as u64).unwrap();
    Snapshots::of(&folder).write(ORIGIN, &ledger.history()).unwrap();
    drop(ledger);
    thread.join().unwrap();
    append(&opening(data.path()).read(&mut |_| {}).unwrap(), SIGNED..SIGNED + 1);
    let mut files = Files::new();
    read_all(data.path(), data.path(), &mut files);
    files
}

fn read_all(root: &Path, folder: &Path, files: &mut Files) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(root, &path, files);
        } else {
            files.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap());
        }
    }
}

fn lay_out(files: &Files) -> TempDir {
    let data = folder();
    for (name, bytes) in files {
        let path = data.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    data
}

/// What a control plane does at its start and after it until everything is verified, and what it then tells; with
/// whether it began with a snapshot.
fn told(data: &Path) -> anyhow::Result<(Told, bool)> {
    let folder = data.join("journal");
    let Started { store, history, claim } = start(&folder, ORIGIN)?;
    let (unread, origin) = (store.unread(), store.origin().to_owned());
    let (ledger, thread) = Ledger::start(Box::new(store), history)?;
    let answer = (|| {
        Checkpoints::compare(ledger.clone(), &origin, places(&folder, &data.join("log-key")))?;
        let has_snapshot = claim.is_some();
        if let Some((unread, claim)) = unread.zip(claim) {
            let verdict = verify(&unread, &claim, &Verified::default(), &AtomicBool::new(false))?;
            assert_eq!(verdict, Verdict::Holds);
        }
        let history = ledger.history().to_pieces()?;
        Ok((Told { records: records(&ledger)?, history }, has_snapshot))
    })();
    drop(ledger);
    thread.join().unwrap();
    answer
}

/// Every record, as readers get them.
fn records(ledger: &Ledger) -> anyhow::Result<Vec<Record>> {
    let mut all = Vec::new();
    loop {
        let next = ledger.records(all.len() as u64 + 1, 100)?;
        if next.is_empty() {
            return Ok(all);
        }
        all.extend(next);
    }
}

/// What may become of a damaged file.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Sealed: every change is refused.
    Sealed,
    /// The last segment: what is torn from its last bundle is recovered.
    Growing,
    /// Every change is refused, but it is no place in a segment.
    Signed,
    /// Made again, or of no meaning.
    Cache,
}

fn kind(name: &Path) -> Kind {
    let name = name.to_str().unwrap();
    match name {
        "journal/00000000000000000001.ndjson" | "journal/00000000000000000003.ndjson" => Kind::Sealed,
        "journal/00000000000000000004.ndjson" => Kind::Growing,
        "journal/checkpoint" | "journal/origin" => Kind::Signed,
        _ => Kind::Cache,
    }
}

/// One way to damage a file: its bytes afterwards, and whether an interrupted write can leave them.
struct Damage {
    bytes: Vec<u8>,
    is_torn: bool,
    what: String,
}

fn cuts(bytes: &[u8]) -> Vec<Damage> {
    let cut =
        |length| Damage { bytes: bytes[..length].to_vec(), is_torn: true, what: format!("cut to {length}") };
    (0..bytes.len()).map(cut).collect()
}

/// Every bit of a short file; of a longer one, one bit of each byte, each time the next.
fn flips(bytes: &[u8]) -> Vec<Damage> {
    let bits = |at: usize| if bytes.len() <= 256 { 0..8 } else { at % 8..at % 8 + 1 };
    let flip = |at: usize, bit: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1 << bit;
        Damage { bytes, is_torn: false, what: format!("bit {bit} of byte {at} flipped") }
    };
    (0..bytes.len())
        .flat_map(|at| bits(at).map(move |bit| (at, bit)))
        .map(|(at, bit)| flip(at, bit))
        .collect()
}

fn zeroed_sectors(bytes: &[u8]) -> Vec<Damage> {
    let zero = |start: usize| {
        let (mut zeroed, end) = (bytes.to_vec(), (start + 512).min(bytes.len()));
        zeroed[start..end].fill(0);
        Damage { bytes: zeroed, is_torn: end == bytes.len(), what: format!("zeros from {start} to {end}") }
    };
    (0..bytes.len()).step_by(512).map(zero).collect()
}

fn moved_lines(bytes: &[u8]) -> Vec<Damage> {
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let damage = |lines: &[&[u8]], what: String, is_torn| Damage { bytes: lines.concat(), is_torn, what };
    let mut all = Vec::new();
    for n in 0..lines.len() {
        let mut removed = lines.clone();
        removed.remove(n);
        // Without its commit line the last bundle does not exist, as after an interrupted write.
        all.push(damage(&removed, format!("line {n} removed"), n + 1 == lines.len()));
        let mut doubled = lines.clone();
        doubled.insert(n, lines[n]);
        all.push(damage(&doubled, format!("line {n} doubled"), false));
        for other in n + 1..lines.len() {
            let mut swapped = lines.clone();
            swapped.swap(n, other);
            all.push(damage(&swapped, format!("lines {n} and {other} swapped"), false));
        }
    }
    all.retain(|damage| damage.bytes != bytes);
    all
}

/// What must be told of the journal as it was, and without its last bundle.
struct Expected {
    whole: Told,
    torn: Told,
}

impl Expected {
    fn of(files: &Files) -> Self {
        let (whole, has_snapshot) = told(lay_out(files).path()).unwrap();
        assert!(has_snapshot, "the test wants a snapshot that is used");
        assert_eq!(whole.records.len(), SIGNED + 1);
        let mut cut = files.clone();
        let growing = cut.get_mut(Path::new("journal/00000000000000000004.ndjson")).unwrap();
        let lines: Vec<&[u8]> = growing.split_inclusive(|byte| *byte == b'\n').collect();
        *growing = lines[..2].concat();
        let (torn, _) = told(lay_out(&cut).path()).unwrap();
        assert_eq!(torn.records[..], whole.records[..SIGNED]);
        Self { whole, torn }
    }

    /// Starts on the damaged journal, and holds what comes of it to what may.
    fn check(&self, files: &Files, name: &Path, damage: Damage) {
        let context = format!("{}: {}", name.display(), damage.what);
        let mut files = files.clone();
        files.insert(name.to_owned(), damage.bytes);
        let data = lay_out(&files);
        let path = data.path().join(name);
        match (kind(name), told(data.path())) {
            (Kind::Cache, Ok((told, _))) => assert_eq!(told, self.whole, "{context}"),
            (Kind::Growing, Ok((told, _))) if damage.is_torn => assert_eq!(told, self.torn, "{context}"),
            (Kind::Sealed | Kind::Growing, Err(error)) => {
                let told = format!("{error:#}");
                let names_the_place = told.contains(path.to_str().unwrap()) && told.contains("at byte ");
                // A cut at the end of a bundle is only seen by what was signed, or by the segment after it.
                let names_the_loss = told.contains("cut off") || told.contains("incomplete");
                assert!(names_the_place && told.contains(" record ") || names_the_loss, "{context}: {told}");
                assert_eq!(fs::read(&path).unwrap(), files[name], "{context}: a refused start changed it");
                assert!(!data.path().join("journal/torn").exists(), "{context}: something was set aside");
            }
            (Kind::Signed, Err(_)) => {
                assert_eq!(fs::read(&path).unwrap(), files[name], "{context}: a refused start changed it");
            }
            (kind, outcome) => panic!("{context}: {kind:?} must not come to {outcome:?}"),
        }
    }
}

/// Damages every file of the kinds that `is_meant` in all ways that `ways` gives. Answers in how many.
fn damaged(is_meant: impl Fn(Kind) -> bool, ways: impl Fn(&[u8]) -> Vec<Damage>) -> usize {
    let files = journal();
    let expected = Expected::of(&files);
    let mut tried = 0;
    for (name, bytes) in files.iter().filter(|(name, _)| name.starts_with("journal") && is_meant(kind(name)))
    {
        for damage in ways(bytes) {
            expected.check(&files, name, damage);
            tried += 1;
        }
    }
    tried
}

#[test]
fn the_journal_of_these_tests_has_every_kind_of_file() {
    let files = journal();
    for (folder, count) in [("journal/index", 3), ("journal/snapshots", 1), ("journal/tiles", 1)] {
        assert_eq!(files.keys().filter(|name| name.starts_with(folder)).count(), count, "{folder}");
    }
    let segments = files.keys().filter(|name| matches!(kind(name), Kind::Sealed | Kind::Growing));
    assert_eq!(segments.count(), 3);
    assert_eq!(files.keys().filter(|name| kind(name) == Kind::Signed).count(), 2);
}

#[test]
fn a_cut_at_any_offset_of_any_file_is_recovered_made_again_or_refused() {
    assert!(damaged(|_| true, cuts) > 3_000);
}

#[test]
fn a_flipped_bit_of_the_log_or_its_checkpoint_is_refused() {
    assert!(damaged(|kind| kind != Kind::Cache, flips) > 3_000);
}

#[test]
fn a_flipped_bit_of_what_follows_from_the_log_changes_no_answer() {
    assert!(damaged(|kind| kind == Kind::Cache, flips) > 1_500);
}

#[test]
fn a_zeroed_sector_of_any_file_is_recovered_made_again_or_refused() {
    assert!(damaged(|_| true, zeroed_sectors) > 8);
}

#[test]
fn a_line_that_is_removed_doubled_or_swapped_is_refused() {
    assert!(damaged(|kind| matches!(kind, Kind::Sealed | Kind::Growing), moved_lines) > 20);
}

#[test]
fn a_snapshot_that_lies_is_found_out_and_taken_away() {
    let files = journal();
    let data = lay_out(&files);
    let folder = data.path().join("journal");
    // Whole in itself, and of the right record: but it counts an event that nobody recorded.
    let Started { store, history, .. } = start(&folder, ORIGIN).unwrap();
    store.keep_places(SIGNED as u64 + 1).unwrap();
    drop(store);
    let snapshots = Snapshots::of(&folder);
    let newest = fs::read_dir(folder.join("snapshots")).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(&newest).unwrap();
    snapshots.write(ORIGIN, &history.with_another_time(1)).unwrap();
    let error = format!("{:#}", told(data.path()).unwrap_err());
    assert!(error.contains("does not say what the journal says"), "{error}");
    let (told, has_snapshot) = told(data.path()).unwrap();
    assert!(!has_snapshot);
    assert_eq!(told, Expected::of(&files).whole);
}

#[test]
fn damage_before_the_snapshot_stops_all_writes_once_it_is_found() {
    let mut files = journal();
    let name = Path::new("journal/00000000000000000001.ndjson");
    files.get_mut(name).unwrap()[20] ^= 1;
    let data = lay_out(&files);
    let Started { store, history, claim } = start(&data.path().join("journal"), ORIGIN).unwrap();
    let (unread, claim) = store.unread().zip(claim).unwrap();
    let (ledger, thread) = Ledger::start(Box::new(store), history).unwrap();
    let verified = Arc::new(Verified::default());
    let (mut stopped, head) = (ledger.stopped(), ledger.history().graph().head());
    let verifier = Verifier::start(ledger.clone(), unread, claim, Arc::clone(&verified)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let reason =
        runtime.block_on(async { stopped.wait_for(Option::is_some).await.unwrap().clone().unwrap() });
    assert!(reason.contains("00000000000000000001.ndjson, at byte 0, where record 1"), "{reason}");
    assert!(!verified.is_done() && verified.to(head) == 0);
    let refused = runtime.block_on(ledger.decide(|_| Ok(Vec::new()))).unwrap_err().to_string();
    assert!(refused.contains("the journal takes no writes"), "{refused}");
    verifier.end();
    drop(ledger);
    thread.join().unwrap();
}

#[test]
fn two_snapshots_are_kept_and_the_older_one_is_used_when_the_newer_is_not() {
    let data = lay_out(&journal());
    let folder = data.path().join("journal");
    let snapshots = || {
        let mut names: Vec<_> =
            fs::read_dir(folder.join("snapshots")).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        names
    };
    for n in 5..8 {
        let Started { store, history, .. } = start(&folder, ORIGIN).unwrap();
        store.keep_places(n).unwrap();
        Snapshots::of(&folder).write(ORIGIN, &history).unwrap();
        append(&store, n as usize..n as usize + 1);
    }
    assert_eq!(snapshots().len(), 2);
    let claimed = || start(&folder, ORIGIN).unwrap().claim.map(|claim| claim.file);
    assert_eq!(claimed(), snapshots().pop());
    fs::write(snapshots().pop().unwrap(), "something else").unwrap();
    assert_eq!(claimed(), snapshots().first().cloned());
}
