//! Pushing: one ref, never over somebody else's, and the same answer after a crash.

use leviathan_target::{Expected, Occupant, PushOutcome, Rejection, delete_branch, push, snapshot};
use model::{BranchName, CommitId, ObjectId};
use test_support::repository::{Entry, Origin};

use crate::ground::{Room, provenance_of, remote, sample};

fn branch() -> BranchName {
    BranchName::parse("leviathan/task-001-a1").unwrap()
}

/// A candidate of `attempt` in a room of its own.
fn candidate(origin: &Origin, attempt: &str) -> (Room, CommitId) {
    let room = Room::new(origin);
    room.write("src/a.py", &format!("made by {attempt}\n"));
    let provenance = provenance_of(attempt);
    let (prepared, limits) = Default::default();
    let taken = snapshot(
        &room.repository,
        &room.base,
        &room.tree(),
        &prepared,
        &provenance,
        &limits,
        &Default::default(),
    )
    .unwrap();
    let candidate = taken.change.candidate().clone();
    (room, candidate)
}

fn create(origin: &Origin, room: &Room, commit: &CommitId) -> PushOutcome {
    push(&room.repository, &remote(origin), &branch(), commit, &Expected::Absent).unwrap()
}

#[test]
fn exactly_one_ref_is_made_and_a_repeat_changes_nothing() {
    let origin = sample();
    let (room, commit) = candidate(&origin, "attempt-1");
    assert_eq!(create(&origin, &room, &commit), PushOutcome::Pushed);
    let refs = origin.refs();
    assert_eq!(create(&origin, &room, &commit), PushOutcome::AlreadyThere);
    assert_eq!(origin.refs(), refs);
    assert_eq!(refs.len(), 2, "{refs:?}");
    assert_eq!(origin.resolve("leviathan/task-001-a1").unwrap(), commit.as_str());
}

#[test]
fn a_branch_that_is_taken_is_never_overwritten() {
    let origin = sample();
    let (first_room, first) = candidate(&origin, "attempt-1");
    let (room, commit) = candidate(&origin, "attempt-2");
    create(&origin, &first_room, &first);
    let attempt = provenance_of("attempt-1").attempt;
    let ours = PushOutcome::Occupied(Occupant::Ours { commit: first.clone(), attempt });
    assert_eq!(create(&origin, &room, &commit), ours);

    // One human commit on top makes the whole branch theirs.
    let theirs = origin.commit(branch().as_str(), "by hand", &[Entry::file("b", "1\n")]);
    let tip = ObjectId::parse(theirs.as_str()).unwrap();
    assert_eq!(create(&origin, &room, &commit), PushOutcome::Occupied(Occupant::Foreign { tip }));
    assert_eq!(create(&origin, &first_room, &first), create(&origin, &room, &commit));
    assert_eq!(origin.resolve(branch().as_str()).unwrap(), theirs);
}

#[test]
fn a_lease_is_kept() {
    let origin = sample();
    let (first_room, first) = candidate(&origin, "attempt-1");
    let (room, commit) = candidate(&origin, "attempt-2");
    create(&origin, &first_room, &first);
    let lease = |expected: &CommitId| {
        let expected = Expected::At(ObjectId::parse(expected.as_str()).unwrap());
        push(&room.repository, &remote(&origin), &branch(), &commit, &expected).unwrap()
    };
    assert!(matches!(lease(&room.base), PushOutcome::Occupied(Occupant::Ours { .. })));
    assert_eq!(lease(&first), PushOutcome::Pushed);
    origin.delete_branch(branch().as_str());
    assert_eq!(lease(&first), PushOutcome::Occupied(Occupant::Nobody));
}

#[test]
fn refusals_of_the_remote_are_told_apart() {
    type Row = (&'static str, fn(&Origin), fn(&Rejection) -> bool);
    let rows: [Row; 3] = [
        (
            "protected",
            |origin| origin.protect("leviathan/task-001-a1"),
            |rejection| matches!(rejection, Rejection::Protected { message } if message.contains("GH006")),
        ),
        (
            "a hook with control characters",
            |origin| origin.install_hook("pre-receive", "printf '\\033[31mno\\007' >&2; exit 1"),
            |rejection| matches!(rejection, Rejection::Protected { message } if !message.contains(char::is_control)),
        ),
        (
            "a name in the way",
            |origin| origin.set_branch("leviathan", &origin.resolve("main").unwrap()),
            |rejection| matches!(rejection, Rejection::NameConflict { .. }),
        ),
    ];
    for (name, prepare, is_expected) in rows {
        let origin = sample();
        let (room, commit) = candidate(&origin, "attempt-1");
        prepare(&origin);
        let outcome = create(&origin, &room, &commit);
        let PushOutcome::Rejected(rejection) = &outcome else { panic!("{name}: {outcome:?}") };
        assert!(is_expected(rejection), "{name}: {rejection:?}");
        assert_eq!(origin.resolve("refs/heads/leviathan/task-001-a1"), None, "{name}");
    }
}

#[test]
fn a_branch_is_deleted_only_while_it_is_ours() {
    let origin = sample();
    let (room, commit) = candidate(&origin, "attempt-1");
    create(&origin, &room, &commit);
    let delete = || delete_branch(&room.repository, &remote(&origin), &branch(), &commit).unwrap();
    origin.commit(branch().as_str(), "by hand", &[Entry::file("b", "1\n")]);
    assert!(!delete());
    origin.set_branch(branch().as_str(), origin.resolve("leviathan/task-001-a1~").unwrap().as_str());
    assert!(delete());
    assert!(!delete(), "it is gone");
}
