//! What is in an agent's tree and yet no part of its change: new files that the base ignores, and what `setup`
//! left. Whatever an agent does with either, nothing that reaches the commit escapes the change set.

use std::fs;
use std::os::unix::fs::symlink;

use leviathan_target::{PrepareError, Prepared, SnapshotLimits};
use test_support::repository::{Entry, Origin};

use crate::clean_room::{git_in, make_node, set_mode, summary};
use crate::ground::{Room, sample};

/// A repository that ignores some things, one of which it holds all the same.
fn ignoring() -> Origin {
    let origin = Origin::empty();
    let files = [
        (".gitignore", "*.log\n/build/\n__pycache__/\n!keep.log\ncache\n"),
        ("docs/.gitignore", "/out\n:odd\n"),
        ("src/a.py", "a = 1\n"),
        ("build/held.txt", "held although it is ignored\n"),
    ];
    let entries: Vec<Entry> = files.iter().map(|(path, content)| Entry::file(path, content)).collect();
    origin.commit("main", "first", &entries);
    origin
}

/// Each row: what the agent does, what the change set must say, and how many files were left out.
type Row = (&'static str, fn(&Room), &'static [&'static str], u64);

const IGNORED: &[Row] = &[
    (
        "caches of tools are no change",
        |room| {
            room.write("src/__pycache__/a.pyc", "x");
            room.write("deep/er/__pycache__/b.pyc", "x");
            room.write("run.log", "x\n");
            room.write("docs/out", "x\n");
            room.write("docs/:odd", "x\n");
            room.write("build/new \"name\"\n", "x\n");
        },
        &[],
        6,
    ),
    (
        "beside an ordinary change",
        |room| {
            room.write("src/a.py", "a = 2\n");
            room.write("run.log", "x\n");
        },
        &["modified src/a.py"],
        1,
    ),
    ("a rule of another folder", |room| room.write("out", "x\n"), &["added out"], 0),
    (
        "a rule for folders does not hide a file",
        |room| room.write("src/build", "x\n"),
        &["added src/build"],
        0,
    ),
    ("what is taken out of the rules", |room| room.write("keep.log", "x\n"), &["added keep.log"], 0),
    (
        "a file of the base is judged although it is ignored",
        |room| room.write("build/held.txt", "changed\n"),
        &["modified build/held.txt"],
        0,
    ),
    (
        "its deletion as well",
        |room| fs::remove_file(room.tree().join("build/held.txt")).unwrap(),
        &["deleted build/held.txt"],
        0,
    ),
    (
        "its mode as well",
        |room| set_mode(&room.tree().join("build/held.txt"), 0o755),
        &["mode changed build/held.txt"],
        0,
    ),
    (
        "its replacement by a folder as well",
        |room| {
            fs::remove_file(room.tree().join("build/held.txt")).unwrap();
            room.write("build/held.txt/inside", "x\n");
        },
        &["deleted build/held.txt"],
        1,
    ),
    (
        "the agent's own rules hide nothing",
        |room| {
            room.write(".gitignore", "*\n");
            room.write("src/.gitignore", "*\n");
            room.write("src/evil.py", "x\n");
        },
        &["added src/.gitignore", "added src/evil.py", "modified .gitignore"],
        0,
    ),
    (
        "nor a rule inside of what it makes, nor one of its own repository",
        |room| {
            git_in(&room.tree(), &["init", "--quiet"]);
            room.write(".git/info/exclude", "*\n");
            room.write(".pytest_cache/.gitignore", "*\n");
            room.write(".pytest_cache/v", "x\n");
        },
        &["added .pytest_cache/.gitignore", "added .pytest_cache/v"],
        0,
    ),
    (
        "deleted rules still say what they said",
        |room| {
            fs::remove_file(room.tree().join(".gitignore")).unwrap();
            room.write("run.log", "x\n");
        },
        &["deleted .gitignore"],
        1,
    ),
    (
        "an ignored link reaches no commit either",
        |room| {
            symlink("/etc/passwd", room.tree().join("x.log")).unwrap();
            symlink("..", room.tree().join("cache")).unwrap();
        },
        &[],
        2,
    ),
    (
        "what is irregular is refused wherever it lies",
        |room| {
            room.write("src/__pycache__/a.pyc", "x");
            make_node(room, "src/__pycache__/pipe", rustix::fs::FileType::Fifo);
            room.write("build/lib/.git", "gitdir: /tmp/evil\n");
        },
        &["special! src/__pycache__/pipe", "nested! build/lib"],
        1,
    ),
];

#[test]
fn new_files_that_the_base_ignores_are_no_part_of_the_change() {
    let origin = ignoring();
    for (name, act, expected, left_out) in IGNORED {
        let room = Room::new(&origin);
        act(&room);
        let taken = room.snapshot_after(&Prepared::default(), &SnapshotLimits::default()).unwrap();
        let (mut found, mut expected) = (summary(&taken.change), expected.to_vec());
        found.sort();
        expected.sort_unstable();
        assert_eq!(found, expected, "{name}");
        assert_eq!(taken.ignored_files, *left_out, "{name}");
        let committed = room.repository.tree(taken.change.candidate()).unwrap();
        assert!(committed.iter().all(|entry| !entry.path.ends_with(b"x.log")), "{name}");
    }
}

#[test]
fn an_ignored_file_may_be_larger_than_any_change() {
    let origin = ignoring();
    let room = Room::new(&origin);
    room.write("build/huge", &"x".repeat(1000));
    room.write("src/a.py", "a = 2\n");
    let limits = SnapshotLimits { file_bytes: 100, ..SnapshotLimits::default() };
    let taken = room.snapshot_after(&Prepared::default(), &limits).unwrap();
    assert_eq!(summary(&taken.change), ["modified src/a.py"]);
}

/// A room in which `setup` did its work.
fn prepared_room(origin: &Origin) -> (Room, Prepared) {
    let room = Room::new(origin);
    room.write("modules/lib/index.js", "1\n");
    room.write("modules/lib/large", &"x".repeat(1000));
    room.write("modules/dep/.git", "gitdir: elsewhere\n");
    room.write("vendor/lib/filled", "x\n");
    symlink("../lib/index.js", room.tree().join("modules/link")).unwrap();
    let prepared = Prepared::read(&room.repository, &room.base, &room.tree()).unwrap();
    (room, prepared)
}

const PREPARED: &[Row] = &[
    ("what setup left is not the agent's", |_| {}, &[], 0),
    ("beside an ordinary change", |room| room.write("src/a.py", "a = 2\n"), &["modified src/a.py"], 0),
    (
        "what the agent changed of it is judged",
        |room| room.write("modules/lib/index.js", "2\n"),
        &["added modules/lib/index.js"],
        0,
    ),
    (
        "its mode as well",
        |room| set_mode(&room.tree().join("modules/lib/index.js"), 0o755),
        &["added modules/lib/index.js"],
        0,
    ),
    (
        "a link that leads elsewhere as well",
        |room| {
            fs::remove_file(room.tree().join("modules/link")).unwrap();
            symlink("/etc/passwd", room.tree().join("modules/link")).unwrap();
        },
        &["added modules/link"],
        0,
    ),
    (
        "what the agent put beside it is judged",
        |room| room.write("modules/lib/evil.js", "1\n"),
        &["added modules/lib/evil.js"],
        0,
    ),
    ("a copy elsewhere is judged", |room| room.write("src/index.js", "1\n"), &["added src/index.js"], 0),
    (
        "what the agent removed of it was never there",
        |room| fs::remove_dir_all(room.tree().join("modules")).unwrap(),
        &[],
        0,
    ),
    (
        "another repository than that of setup",
        |room| room.write("modules/lib/.git", "gitdir: /tmp/evil\n"),
        &["nested! modules/lib"],
        0,
    ),
];

#[test]
fn what_setup_left_and_nobody_touched_is_no_part_of_the_change() {
    let origin = sample();
    // So small that neither the large file of `setup` nor its many entries would pass for the agent's.
    let limits = SnapshotLimits { file_bytes: 500, changed_bytes: 900, new_entries: 6 };
    for (name, act, expected, left_out) in PREPARED {
        let (room, prepared) = prepared_room(&origin);
        act(&room);
        let taken = room.snapshot_after(&prepared, &limits).unwrap();
        assert_eq!(summary(&taken.change), *expected, "{name}");
        assert_eq!(taken.ignored_files, *left_out, "{name}");
    }
}

#[test]
fn setup_must_leave_the_files_of_the_base_as_they_are() {
    let origin = sample();
    type Act = fn(&Room);
    let changes: [(Act, &str); 4] = [
        (|room| room.write("src/a.py", "a = 2\n"), "`src/a.py`"),
        (|room| set_mode(&room.tree().join("src/a.py"), 0o755), "`src/a.py`"),
        (|room| fs::remove_file(room.tree().join("link")).unwrap(), "`link`"),
        (
            |room| {
                fs::remove_dir_all(room.tree().join("src")).unwrap();
                fs::remove_file(room.tree().join("run.sh")).unwrap();
            },
            "`run.sh`, `src/a.py`, `src/b.py`",
        ),
    ];
    for (act, named) in changes {
        let room = Room::new(&origin);
        act(&room);
        let refused = Prepared::read(&room.repository, &room.base, &room.tree()).unwrap_err();
        assert!(matches!(refused, PrepareError::ChangedBase(_)), "{refused}");
        let message = refused.to_string();
        assert!(message.starts_with(&format!("setup changed {named}, which")), "{message}");
    }
}
