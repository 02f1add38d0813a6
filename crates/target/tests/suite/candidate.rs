//! A candidate between two repositories: what is taken, and what is refused.

use std::fs;
use std::path::PathBuf;

use leviathan_target::candidate::{CandidateError, PACK_FILE, pack, receive};
use leviathan_target::{Repository, changes_between};
use model::CommitId;
use test_support::repository::{Entry, Origin};

use crate::ground::{Room, git, provenance, provenance_of, sample};

const LIMIT: u64 = 1 << 20;

/// The other zone: a repository that has the base and nothing of the attempt.
fn publisher(room: &Room, origin: &Origin) -> Repository {
    let lender = Repository::open(&git(), origin.dir()).unwrap();
    Repository::init_borrowing(&room.folder.path().join("publish.git"), &lender).unwrap()
}

fn packed(room: &Room, candidate: &CommitId) -> PathBuf {
    let file = room.folder.path().join(PACK_FILE);
    pack(&room.repository, &room.base, candidate, &file).unwrap();
    file
}

#[test]
fn a_candidate_arrives_whole_and_twice_is_once() {
    let origin = sample();
    let room = Room::new(&origin);
    room.write("src/a.py", "a = 2\n");
    room.write("src/deep/new.py", "x\n");
    let changes = room.snapshot();
    let file = packed(&room, changes.candidate());
    let publisher = publisher(&room, &origin);
    for _ in 0..2 {
        receive(&publisher, &room.base, changes.candidate(), &provenance(), &file, LIMIT).unwrap();
    }
    assert_eq!(
        changes_between(&publisher, &room.base, changes.candidate(), &Default::default()).unwrap(),
        changes
    );
}

#[test]
fn what_is_not_one_commit_of_this_attempt_on_the_base_is_refused() {
    let origin = sample();
    let room = Room::new(&origin);
    room.write("src/a.py", "a = 2\n");
    let candidate = room.snapshot().candidate().clone();
    let file = packed(&room, &candidate);
    let publisher = publisher(&room, &origin);
    let taken = |base: &CommitId, commit: &CommitId, attempt: &str, limit: u64| {
        receive(&publisher, base, commit, &provenance_of(attempt), &file, limit)
    };
    assert!(matches!(taken(&room.base, &candidate, "attempt-2", LIMIT), Err(CandidateError::Refused { .. })));
    assert!(matches!(taken(&room.base, &room.base, "attempt-1", LIMIT), Err(CandidateError::Refused { .. })));
    let unknown = CommitId::parse("1".repeat(40)).unwrap();
    assert!(matches!(taken(&unknown, &candidate, "attempt-1", LIMIT), Err(CandidateError::NoBase(_))));
    assert!(matches!(taken(&room.base, &unknown, "attempt-1", LIMIT), Err(CandidateError::NoCommit(_))));
    assert!(matches!(taken(&room.base, &candidate, "attempt-1", 100), Err(CandidateError::Git(_))));
    assert!(taken(&room.base, &candidate, "attempt-1", LIMIT).is_ok());

    // Somebody else's commit on the same base, and ours on another base.
    let foreign = origin.commit("main", "a human's", &[Entry::file("b", "1\n")]);
    let foreign = CommitId::parse(foreign).unwrap();
    assert!(matches!(taken(&room.base, &foreign, "attempt-1", LIMIT), Err(CandidateError::Refused { .. })));
    assert!(matches!(taken(&foreign, &candidate, "attempt-1", LIMIT), Err(CandidateError::Refused { .. })));
}

#[test]
fn damaged_and_dangerous_packs_leave_nothing_behind() {
    let origin = sample();
    let room = Room::new(&origin);
    room.write("src/a.py", "a = 2\n");
    let candidate = room.snapshot().candidate().clone();
    let whole = fs::read(packed(&room, &candidate)).unwrap();
    let publisher = publisher(&room, &origin);

    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    let evil_tree = {
        let blob = room.repository.write_blob(b"[core]\n").unwrap();
        let evil = Origin::empty();
        evil.write_blob(b"[core]\n");
        evil.commit_raw_tree("main", format!("100644 blob {blob}\t.git\n").as_bytes());
        evil.pack_of("main")
    };
    let rows =
        [("cut", &whole[..whole.len() - 30]), ("flipped", &flipped), ("evil", &evil_tree), ("no pack", b"x")];
    for (name, bytes) in rows {
        let file = room.folder.path().join("received.pack");
        fs::write(&file, bytes).unwrap();
        let outcome = receive(&publisher, &room.base, &candidate, &provenance(), &file, LIMIT);
        assert!(matches!(outcome, Err(CandidateError::Git(_))), "{name}: {outcome:?}");
        assert!(!publisher.has_commit(&candidate).unwrap(), "{name}");
    }
    assert!(publisher.refs("refs").unwrap().is_empty());
}
