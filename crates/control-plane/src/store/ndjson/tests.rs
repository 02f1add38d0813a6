//! The files under attack: cut, flipped, out of space, failing, killed, and opened twice.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::segment::Fault;
use super::*;
use crate::store::MemoryStore;
use crate::store::conformance::{self, append, contents};

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

/// Opens a store with small segments.
///
/// A test that starts a process beside this one duplicates every file of ours for the instant before the new
/// program runs, and with it a lock that was just given up: so a lock is waited for.
fn open(folder: &Path) -> Result<NdjsonStore, OpenError> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match open_at_once(folder) {
            Err(OpenError::Locked { .. }) if Instant::now() < deadline => std::thread::yield_now(),
            opened => return opened,
        }
    }
}

fn open_at_once(folder: &Path) -> Result<NdjsonStore, OpenError> {
    open_with_segments_of(600, folder)
}

fn open_with_segments_of(bytes: u64, folder: &Path) -> Result<NdjsonStore, OpenError> {
    Opening::begin(folder, "test/ndjson")?.with_segments_of(bytes).read(&mut |_| {})
}

/// What settling set aside.
fn recovered(store: &NdjsonStore) -> Option<Recovered> {
    store.writable().unwrap().1
}

/// Changes a file in its place, also one that nobody may write to.
fn overwrite(path: &Path, bytes: &[u8]) {
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    fs::write(path, bytes).unwrap();
}

/// Replaces a file, also one that nobody may write to.
fn replace(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

/// A store of several segments, and its files with their contents, by name.
fn small_store(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let store = open(folder).unwrap();
    for names in [&["a", "b"][..], &["c"], &["d", "e", "f"], &["g"]] {
        append(&store, names).unwrap();
    }
    let files = segments_in(folder).unwrap();
    assert_eq!(files.len(), 3, "the test wants several segments");
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn inject(store: &NdjsonStore, fault: Fault) {
    store.writable().unwrap().0.file.as_mut().unwrap().inject(fault);
}

#[test]
fn it_keeps_the_contract_of_a_store() {
    let folders = tempfile::tempdir().unwrap();
    let number = std::sync::atomic::AtomicUsize::new(0);
    conformance::check(|| {
        let n = number.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Box::new(open(&folders.path().join(n.to_string())).unwrap())
    });
}

#[test]
fn what_was_recorded_is_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    small_store(folder.path());
    let before = contents(&open(folder.path()).unwrap());
    assert_eq!(before.len(), 7);
    let store = open(folder.path()).unwrap();
    assert_eq!(recovered(&store), None);
    append(&store, &["h"]).unwrap();
    drop(store);
    assert_eq!(contents(&open(folder.path()).unwrap())[..7], before);
}

#[test]
fn the_files_are_lines_that_anybody_can_verify() {
    let folder = tempfile::tempdir().unwrap();
    let files = small_store(folder.path());
    let log: Vec<u8> = files.into_iter().flat_map(|(_, bytes)| bytes).collect();
    let scan = journal::scan(&log[..], Head::genesis("test/ndjson"), |_, _| io::Result::Ok(())).unwrap();
    assert_eq!((scan.head.seq, scan.tail), (7, Tail::Clean));
}

#[test]
fn a_cut_at_any_offset_of_the_last_segment_leaves_whole_bundles() {
    let folder = tempfile::tempdir().unwrap();
    let files = small_store(folder.path());
    let (last, bytes) = files.last().unwrap();
    let whole = contents(&open(folder.path()).unwrap());
    for length in 0..bytes.len() {
        fs::write(last, &bytes[..length]).unwrap();
        let store = open(folder.path()).unwrap();
        let kept = contents(&store);
        assert_eq!(kept, whole[..kept.len()]);
        // The last segment holds one bundle of one event: it is there whole, or not at all.
        assert_eq!(kept.len(), 6);
        match recovered(&store) {
            None => assert_eq!(length, 0),
            Some(torn) => {
                assert_eq!((torn.offset, torn.bytes), (0, length as u64));
                assert_eq!(fs::read(&torn.moved_to).unwrap(), bytes[..length]);
            }
        }
        append(&store, &["again"]).unwrap();
        drop(store);
        assert_eq!(contents(&open(folder.path()).unwrap()).len(), 7);
    }
}

#[test]
fn nothing_is_changed_before_the_log_is_settled_and_the_first_turn_settles_it() {
    let folder = tempfile::tempdir().unwrap();
    let files = small_store(folder.path());
    let (last, bytes) = files.last().unwrap();
    let torn = [bytes, &b"{\"body\":{\"ev"[..]].concat();
    replace(last, &torn);
    drop(open(folder.path()).unwrap());
    assert_eq!(fs::read(last).unwrap(), torn);
    assert!(!folder.path().join("torn").exists());
    append(&open(folder.path()).unwrap(), &["h"]).unwrap();
    assert_eq!(fs::read(last).unwrap()[..bytes.len()], bytes[..]);
    assert_eq!(fs::read_dir(folder.path().join("torn")).unwrap().count(), 1);
    assert_eq!(contents(&open(folder.path()).unwrap()).len(), 8);
}

#[test]
fn a_segment_that_is_followed_by_another_is_read_only() {
    let folder = tempfile::tempdir().unwrap();
    let files = small_store(folder.path());
    let modes = || -> Vec<bool> {
        files.iter().map(|(path, _)| fs::metadata(path).unwrap().permissions().mode() & 0o222 == 0).collect()
    };
    assert_eq!(modes(), [true, true, false]);
    // Also in a log from before segments were sealed, or from a backup that knows no permissions.
    overwrite(&files[0].0, &files[0].1);
    open(folder.path()).unwrap().settle().unwrap();
    assert_eq!(modes(), [true, true, false]);
}

#[test]
fn a_cut_in_an_earlier_segment_refuses_to_open_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let files = small_store(folder.path());
    let (first, bytes) = &files[0];
    for length in 0..bytes.len() {
        replace(first, &bytes[..length]);
        assert!(matches!(open(folder.path()), Err(OpenError::Damaged { .. } | OpenError::Sequence { .. })));
        assert_eq!(fs::read(first).unwrap(), bytes[..length]);
    }
}

#[test]
fn a_flipped_bit_anywhere_refuses_to_open_and_names_the_place() {
    let folder = tempfile::tempdir().unwrap();
    for (path, bytes) in small_store(folder.path()) {
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            replace(&path, &flipped);
            let Err(OpenError::Damaged { segment, damage }) = open(folder.path()).map(drop) else {
                panic!("byte {at} of {}: no damage was found", path.display());
            };
            assert_eq!(segment, path);
            assert!(damage.offset <= at as u64 && damage.seq >= 1);
            assert_eq!(fs::read(&path).unwrap(), flipped, "a damaged file is left as it is");
        }
        replace(&path, &bytes);
    }
    let origin = folder.path().join("origin");
    fs::write(&origin, "test/ndjsoN").unwrap();
    assert!(matches!(open(folder.path()), Err(OpenError::Damaged { damage, .. }) if damage.seq == 1));
    fs::remove_file(&origin).unwrap();
    assert!(matches!(open(folder.path()), Err(OpenError::NoOrigin(_))));
}

#[test]
fn damage_while_open_is_an_error_of_the_reader() {
    let folder = tempfile::tempdir().unwrap();
    let files = small_store(folder.path());
    let store = open(folder.path()).unwrap();
    let (path, mut bytes) = files[0].clone();
    bytes[20] ^= 1;
    overwrite(&path, &bytes);
    let error = store.read(1, 10).unwrap_err();
    assert!(matches!(&error, ReadError::Damaged { segment, .. } if *segment == path), "{error}");
}

#[test]
fn a_missing_segment_refuses_to_open() {
    let folder = tempfile::tempdir().unwrap();
    let files = small_store(folder.path());
    for (path, bytes) in &files[..2] {
        fs::remove_file(path).unwrap();
        let error = open(folder.path()).map(drop).unwrap_err();
        assert!(matches!(error, OpenError::Sequence { .. }), "{error}");
        fs::write(path, bytes).unwrap();
    }
    open(folder.path()).unwrap();
}

#[test]
fn a_full_disk_is_told_apart_and_heals() {
    let folder = tempfile::tempdir().unwrap();
    small_store(folder.path());
    let store = open(folder.path()).unwrap();
    for after in [0, 1, 100] {
        inject(&store, Fault::Write { after, errno: ENOSPC });
        assert!(matches!(append(&store, &["x", "y"]), Err(AppendError::Full)));
        assert_eq!(contents(&store).len(), 7);
    }
    append(&store, &["x", "y"]).unwrap();
    drop(store);
    let store = open(folder.path()).unwrap();
    assert_eq!((contents(&store).len(), recovered(&store)), (9, None));
}

#[test]
fn a_failed_write_or_sync_poisons_writes_and_leaves_reads() {
    let faults = [
        vec![Fault::Write { after: 0, errno: EIO }],
        vec![Fault::Write { after: 150, errno: EIO }],
        vec![Fault::Sync { errno: EIO }],
        // Also a disk that is found full only when the data is synced: by then it is unknown what was kept.
        vec![Fault::Sync { errno: ENOSPC }],
        vec![Fault::Write { after: 9, errno: ENOSPC }, Fault::Truncate { errno: EIO }],
    ];
    for faults in faults {
        let folder = tempfile::tempdir().unwrap();
        small_store(folder.path());
        let store = open(folder.path()).unwrap();
        for fault in &faults {
            inject(&store, *fault);
        }
        let error = append(&store, &["x"]).unwrap_err();
        assert!(matches!(error, AppendError::Poisoned { .. }), "{faults:?}: {error}");
        // The disk is well again, but what it did with the data is unknown: still no write.
        assert!(matches!(append(&store, &["y"]), Err(AppendError::Poisoned { .. })));
        assert_eq!(contents(&store).len(), 7);
        drop(store);
        let reopened = open(folder.path()).unwrap();
        let kept = contents(&reopened).len();
        assert!(kept == 7 || kept == 8, "the bundle is there whole or not at all");
        append(&reopened, &["z"]).unwrap();
    }
}

#[test]
fn a_second_process_is_refused_and_told_who_holds_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = writer_in(folder.path());
    let mut acknowledged = BufReader::new(child.stdout.take().unwrap()).lines();
    acknowledged.next().unwrap().unwrap();
    let error = open_at_once(folder.path()).map(drop).unwrap_err();
    assert!(error.to_string().contains(&format!("in use by process {}", child.id())), "{error}");
    child.kill().unwrap();
    child.wait().unwrap();
    open(folder.path()).unwrap();
}

#[test]
fn a_killed_writer_loses_nothing_that_it_answered_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = 0_u64;
    for round in 1..=8 {
        let mut child = writer_in(folder.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for _ in 0..round * 5 {
            acknowledged = lines.next().unwrap().unwrap().parse().unwrap();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it printed before it died counts too.
        acknowledged =
            lines.map_while(Result::ok).filter_map(|line| line.parse().ok()).last().unwrap_or(acknowledged);
        let store = open(folder.path()).unwrap();
        let kept = contents(&store);
        assert!(kept.len() as u64 >= acknowledged, "round {round}: {} of {acknowledged}", kept.len());
        assert_eq!(kept.len() % 3, 0, "whole bundles only");
    }
}

/// One step in the life of a store.
#[derive(Debug, Clone)]
enum Act {
    Append(usize),
    AppendTogether(usize),
    FillTheDisk(usize),
    OpenAgain,
    TearTheTail(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (1_usize..4).prop_map(Act::Append),
        2 => (1_usize..5).prop_map(Act::AppendTogether),
        1 => (0_usize..300).prop_map(Act::FillTheDisk),
        1 => Just(Act::OpenAgain),
        1 => (1_usize..400).prop_map(Act::TearTheTail),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happens to it, the store on disk holds what the store in memory holds, hash for hash.
    #[test]
    fn it_is_the_memory_store_that_outlives_the_process(acts in prop::collection::vec(act(), 0..24)) {
        let folder = tempfile::tempdir().unwrap();
        let memory = MemoryStore::new("test/ndjson");
        let mut store = Some(open(folder.path()).unwrap());
        for (n, act) in acts.into_iter().enumerate() {
            let disk = store.as_ref().unwrap();
            match act {
                Act::Append(size) => {
                    let names: Vec<String> = (0..size).map(|i| format!("{n}-{i}")).collect();
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    prop_assert_eq!(append(disk, &names).unwrap(), append(&memory, &names).unwrap());
                }
                Act::AppendTogether(bundles) => {
                    let bundles = || (0..bundles).map(|i| conformance::bundle(&[&format!("{n}-{i}")])).collect();
                    let append = |store: &dyn EventStore| store.turn().unwrap().append(bundles()).unwrap();
                    prop_assert_eq!(append(disk), append(&memory));
                }
                Act::FillTheDisk(after) if disk.writable().unwrap().0.can_fail_now() => {
                    inject(disk, Fault::Write { after, errno: ENOSPC });
                    prop_assert!(matches!(append(disk, &["lost"]), Err(AppendError::Full)));
                }
                Act::FillTheDisk(_) => {}
                Act::OpenAgain => {
                    drop(store.take());
                    store = Some(open(folder.path()).unwrap());
                }
                Act::TearTheTail(length) => {
                    drop(store.take());
                    tear(folder.path(), &memory, length);
                    let disk = open(folder.path()).unwrap();
                    // Nobody writes after a torn tail before it was set aside.
                    disk.settle().unwrap();
                    store = Some(disk);
                }
            }
            let disk = store.as_ref().unwrap();
            prop_assert_eq!(disk.head(), memory.head());
            prop_assert_eq!(contents(disk), contents(&memory));
        }
    }
}

impl Writer {
    /// Whether the next append writes to the segment that is open now, in which a test can place a fault.
    fn can_fail_now(&self) -> bool {
        self.file.is_some() && self.end < 600
    }
}

/// Leaves the beginning of a next bundle at the end of the log, as a writer does that dies while it writes.
fn tear(folder: &Path, memory: &MemoryStore, length: usize) {
    let bodies = vec![conformance::body("torn"), conformance::body("away")];
    let id = journal::BundleId::parse("torn").unwrap();
    let bundle = Bundle::after(memory.head(), Unchained::new(id, bodies).unwrap());
    let mut lines = Lines::default();
    bundle.encode(&mut lines);
    let lines = lines.bytes;
    if let Some(last) = segments_in(folder).unwrap().last() {
        let mut file = File::options().append(true).open(last).unwrap();
        file.write_all(&lines[..length.min(lines.len() - 1)]).unwrap();
    }
}

const WRITE_HERE: &str = "LEVIATHAN_TEST_WRITE_JOURNAL_HERE";

/// A process of its own that appends bundles of three events to `folder` until it is killed, and prints the
/// number of the last record after each answer.
fn writer_in(folder: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store::ndjson::tests::writes_for_the_tests_that_kill_it",
            "--nocapture",
            "--quiet",
        ])
        .env(WRITE_HERE, folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map(|mut child| {
            skip_harness_output(&mut child);
            child
        })
        .unwrap()
}

/// Reads past what the test harness prints before the first number, byte by byte so that nothing else is lost.
fn skip_harness_output(child: &mut std::process::Child) {
    let stdout = child.stdout.as_mut().unwrap();
    let mut line = Vec::new();
    while line != b"writing\n" {
        if line.last() == Some(&b'\n') {
            line.clear();
        }
        let mut byte = [0];
        stdout.read_exact(&mut byte).unwrap();
        line.push(byte[0]);
    }
}

/// In the ordinary run it checks that a bundle can be written at all; started by `writer_in` it never returns.
#[test]
fn writes_for_the_tests_that_kill_it() {
    let Some(folder) = std::env::var_os(WRITE_HERE) else {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(append(&open(folder.path()).unwrap(), &["a", "b", "c"]).unwrap().head().seq, 3);
        return;
    };
    let store = open_with_segments_of(5_000, Path::new(&folder)).unwrap();
    let mut out = io::stdout();
    writeln!(out, "writing").unwrap();
    loop {
        let head = append(&store, &["a", "b", "c"]).unwrap().head();
        // One write per line, so that a kill cannot leave half a number.
        out.write_all(format!("{}\n", head.seq).as_bytes()).unwrap();
        out.flush().unwrap();
    }
}
