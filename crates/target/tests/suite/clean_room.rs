//! The clean room on real repositories: whatever an agent leaves in its tree, the change set says what the
//! objects of our own commit hold.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use leviathan_target::{ObjectFormat, SnapshotError, SnapshotLimits, changes_between};
use model::change::{ChangeSet, IrregularityKind};
use test_support::repository::{Entry, Origin};

use crate::ground::{Room, provenance, sample};

/// `verb path` of every change, and `kind path` of every irregularity.
pub(crate) fn summary(changes: &ChangeSet) -> Vec<String> {
    let irregular = changes.irregularities().iter().map(|irregularity| {
        let kind = match irregularity.kind {
            IrregularityKind::Name => "name",
            IrregularityKind::SpecialFile => "special",
            IrregularityKind::NestedRepository => "nested",
            IrregularityKind::Collision => "collision",
        };
        format!("{kind}! {}", irregularity.path)
    });
    changes
        .changes()
        .iter()
        .map(|change| format!("{} {}", change.verb(), change.path))
        .chain(irregular)
        .collect()
}

/// Each row: what an agent does to its tree, and what the change set must say.
type Row = (&'static str, fn(&Room), &'static [&'static str]);

const ROWS: &[Row] = &[
    ("nothing", |_| {}, &[]),
    ("a file is edited", |room| room.write("src/a.py", "a = 2\n"), &["modified src/a.py"]),
    ("a file is added", |room| room.write("src/new.py", "x\n"), &["added src/new.py"]),
    (
        "a file is deleted",
        |room| fs::remove_file(room.tree().join("tests/big.py")).unwrap(),
        &["deleted tests/big.py"],
    ),
    (
        "a rename out of a forbidden folder is both halves",
        |room| fs::rename(room.tree().join("tests/big.py"), room.tree().join("src/big.py")).unwrap(),
        &["added src/big.py", "deleted tests/big.py"],
    ),
    ("the mode alone", |room| set_mode(&room.tree().join("src/a.py"), 0o755), &["mode changed src/a.py"]),
    (
        "the mode alone, the other way",
        |room| set_mode(&room.tree().join("run.sh"), 0o644),
        &["mode changed run.sh"],
    ),
    (
        "a new link to another folder",
        |room| symlink("../tests", room.tree().join("src/d")).unwrap(),
        &["added src/d"],
    ),
    (
        "a link to a file outside is its text",
        |room| symlink("/etc/passwd", room.tree().join("src/d")).unwrap(),
        &["added src/d"],
    ),
    (
        "a folder becomes a link to another",
        |room| {
            fs::remove_dir_all(room.tree().join("src")).unwrap();
            symlink("tests", room.tree().join("src")).unwrap();
        },
        &["added src", "deleted src/a.py", "deleted src/b.py"],
    ),
    (
        "a file becomes a folder",
        |room| {
            fs::remove_file(room.tree().join("src/a.py")).unwrap();
            room.write("src/a.py/inner.py", "x\n");
        },
        &["deleted src/a.py", "added src/a.py/inner.py"],
    ),
    (
        "a folder becomes a file",
        |room| {
            fs::remove_dir_all(room.tree().join("src")).unwrap();
            room.write("src", "x\n");
        },
        &["added src", "deleted src/a.py", "deleted src/b.py"],
    ),
    (
        "a link becomes a file of the same bytes",
        |room| {
            fs::remove_file(room.tree().join("link")).unwrap();
            room.write("link", "README.md");
        },
        &["type changed link"],
    ),
    (
        "a repository inside the repository",
        |room| {
            room.write("src/lib/file", "x\n");
            git_in(&room.tree().join("src/lib"), &["init", "--quiet"]);
            git_in(&room.tree().join("src/lib"), &["add", "file"]);
        },
        &["added src/lib/file", "nested! src/lib"],
    ),
    (
        "a .git file inside the tree",
        |room| room.write("src/lib/.git", "gitdir: /tmp/evil\n"),
        &["nested! src/lib"],
    ),
    ("another spelling of .git", |room| room.write("src/.GIT/config", "x\n"), &["name! src/.GIT/config"]),
    ("a short name of .git", |room| room.write("git~1/config", "x\n"), &["name! git~1/config"]),
    (
        "a repository of the agent's own at the root is not looked at",
        |room| {
            git_in(&room.tree(), &["init", "--quiet"]);
            git_in(&room.tree(), &["add", "README.md"]);
            room.write("src/a.py", "a = 3\n");
            room.write(".git/info/exclude", "*\n");
            git_in(&room.tree(), &["update-index", "--assume-unchanged", "README.md"]);
            room.write("README.md", "changed\n");
        },
        &["modified README.md", "modified src/a.py"],
    ),
    ("a .git file at the root is not looked at", |room| room.write(".git", "gitdir: /tmp/evil\n"), &[]),
    (
        "attributes change no byte",
        |room| {
            room.write(".gitattributes", "* text eol=crlf ident filter=evil diff=evil\n");
            room.write("src/a.py", "a = 1\r\n$Id$\r\n");
        },
        &["added .gitattributes", "modified src/a.py"],
    ),
    (
        "a pipe does not block",
        |room| make_node(room, "src/pipe", rustix::fs::FileType::Fifo),
        &["special! src/pipe"],
    ),
    (
        "a pipe in the place of a file",
        |room| {
            fs::remove_file(room.tree().join("src/a.py")).unwrap();
            make_node(room, "src/a.py", rustix::fs::FileType::Fifo);
        },
        &["deleted src/a.py", "special! src/a.py"],
    ),
    (
        "a socket",
        |room| drop(std::os::unix::net::UnixListener::bind(room.tree().join("s")).unwrap()),
        &["special! s"],
    ),
    ("case twins", |room| room.write("src/A.py", "x\n"), &["added src/A.py", "collision! src/A.py"]),
    (
        "case twins of a folder",
        |room| room.write("SRC/new.py", "x\n"),
        &["added SRC/new.py", "collision! SRC"],
    ),
    ("a decomposed name", |room| room.write("src/e\u{301}.py", "x\n"), &["name! src/e\\u{301}.py"]),
    ("a newline in a name", |room| room.write("src/a\nconfig", "x\n"), &["name! src/a\\nconfig"]),
    ("an escape in a name", |room| room.write("src/\u{1b}[31m", "x\n"), &["name! src/\\u{1b}[31m"]),
    (
        "a name that is not UTF-8",
        |room| fs::write(room.tree().join(OsStr::from_bytes(b"src/\xff")), "x\n").unwrap(),
        &["name! src/\\xff"],
    ),
    ("a name that reads as an option", |room| room.write("-rf", "x\n"), &["name! -rf"]),
    ("empty folders are nothing", |room| fs::create_dir_all(room.tree().join("src/empty/er")).unwrap(), &[]),
    (
        "an absent gitlink folder is nothing",
        |room| fs::remove_dir(room.tree().join("vendor/lib")).unwrap(),
        &[],
    ),
    (
        "files under a gitlink replace it",
        |room| room.write("vendor/lib/x.c", "x\n"),
        &["deleted vendor/lib", "added vendor/lib/x.c"],
    ),
    (
        "a file in the place of a gitlink",
        |room| {
            fs::remove_dir(room.tree().join("vendor/lib")).unwrap();
            room.write("vendor/lib", "x\n");
        },
        &["type changed vendor/lib"],
    ),
    (
        "a submodule's settings",
        |room| room.write(".gitmodules", "[submodule \"x\"]\n"),
        &["added .gitmodules"],
    ),
    ("quotes and blanks in a name", |room| room.write("src/a \"b\".py", "x\n"), &["name! src/a \"b\".py"]),
    ("a name with letters of the world", |room| room.write("src/日本 ü.py", "x\n"), &["added src/日本 ü.py"]),
];

#[test]
fn the_change_set_says_what_is_in_the_tree_and_the_commit_holds_it() {
    let origin = sample();
    for (name, act, expected) in ROWS {
        let room = Room::new(&origin);
        act(&room);
        let changes = room.snapshot();
        let mut found = summary(&changes);
        let mut expected: Vec<String> = expected.iter().map(|line| (*line).to_owned()).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{name}");
        assert_eq!(changes.candidate() == &room.base, changes.changes().is_empty(), "{name}");

        // The second look, from objects alone, in a repository that only has the objects.
        let again =
            changes_between(&room.repository, &room.base, changes.candidate(), &Default::default()).unwrap();
        assert_eq!(again.changes(), changes.changes(), "{name}");
        // The same tree gives the same commit.
        assert_eq!(room.snapshot(), changes, "{name}");
    }
}

#[test]
fn sizes_lines_and_binaries_are_measured() {
    let origin = sample();
    let room = Room::new(&origin);
    room.write("src/b.py", "b = 1\nb = 3\nb = 4\n");
    fs::write(room.tree().join("logo.png"), [b"text first\n".repeat(2000).as_slice(), b"\0"].concat())
        .unwrap();
    room.write(".gitattributes", "*.py binary\n");
    let changes = room.snapshot();
    let change = |path: &str| changes.changes().iter().find(|change| change.path.as_str() == path).unwrap();
    let text = change("src/b.py");
    assert_eq!((text.added_lines, text.removed_lines, text.is_binary), (2, 1, false));
    assert_eq!(text.after.as_ref().unwrap().size, 18);
    let binary = change("logo.png");
    assert!(binary.is_binary, "a NUL far behind the beginning counts");
    assert_eq!((binary.added_lines, binary.after.as_ref().unwrap().size), (0, 22_001));
    assert!(changes.patch_bytes() > 22_000, "{}", changes.patch_bytes());
}

#[test]
fn one_commit_on_the_base_with_our_name_and_trailers() {
    let origin = sample();
    let room = Room::new(&origin);
    room.write("src/a.py", "a = 2\n");
    let changes = room.snapshot();
    let facts = room.repository.commit_facts(changes.candidate()).unwrap();
    assert_eq!(facts.parents, std::slice::from_ref(&room.base));
    assert!(provenance().is_of(&facts), "{facts:?}");
    assert_eq!(leviathan_target::attempt_of(&facts), Some(provenance().attempt));
}

#[test]
fn a_repository_with_sha256_names_works_the_same() {
    let origin = Origin::empty_sha256();
    origin.commit("main", "first", &[Entry::file("a", "1\n")]);
    let room = Room::new(&origin);
    assert_eq!(room.repository.format(), ObjectFormat::Sha256);
    room.write("a", "2\n");
    let changes = room.snapshot();
    assert_eq!(summary(&changes), ["modified a"]);
    assert_eq!(changes.candidate().as_str().len(), 64);
}

#[test]
fn limits_stop_a_tree_that_would_fill_the_machine() {
    let limits = SnapshotLimits { file_bytes: 100, changed_bytes: 150, new_entries: 30 };
    let origin = sample();
    let row = |act: fn(&Room)| {
        let room = Room::new(&origin);
        act(&room);
        room.try_snapshot(&limits)
    };
    assert!(row(|room| room.write("ok", &"x".repeat(100))).is_ok());
    let too_large: [fn(&Room); 4] = [
        |room| room.write("large", &"x".repeat(101)),
        |room| fs::File::create(room.tree().join("sparse")).unwrap().set_len(1 << 40).unwrap(),
        |room| (0..2).for_each(|n| room.write(&format!("part{n}"), &"x".repeat(80))),
        |room| (0..60).for_each(|n| room.write(&format!("many/{n}"), "")),
    ];
    for act in too_large {
        assert!(matches!(row(act), Err(SnapshotError::TooLarge(_))));
    }
}

#[test]
fn a_large_file_of_the_base_is_no_change_and_may_be_deleted() {
    let origin = Origin::empty();
    origin.commit("main", "first", &[Entry::file("large", "x".repeat(1000)), Entry::file("small", "1\n")]);
    let room = Room::new(&origin);
    let limits = SnapshotLimits { file_bytes: 100, ..SnapshotLimits::default() };
    room.write("small", "2\n");
    assert_eq!(summary(&room.try_snapshot(&limits).unwrap()), ["modified small"]);
    room.write("large", &"y".repeat(1000));
    assert!(matches!(room.try_snapshot(&limits), Err(SnapshotError::TooLarge(_))));
    fs::remove_file(room.tree().join("large")).unwrap();
    assert_eq!(summary(&room.try_snapshot(&limits).unwrap()), ["deleted large", "modified small"]);
}

#[test]
fn what_cannot_be_read_is_no_deletion() {
    let origin = sample();
    let room = Room::new(&origin);
    set_mode(&room.tree().join("src"), 0o000);
    set_mode(&room.tree().join("README.md"), 0o000);
    // Root reads everything; anybody else must be told, and nothing may pass for deleted in silence.
    let is_root = rustix::process::geteuid().is_root();
    let changes = room.snapshot();
    set_mode(&room.tree().join("src"), 0o755);
    assert_eq!(changes.irregularities().len(), if is_root { 0 } else { 2 });
}

#[test]
fn a_deep_tree_ends_in_a_report() {
    let origin = sample();
    let room = Room::new(&origin);
    let mut folder =
        rustix::fs::open(room.tree(), rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&folder, "deep", rustix::fs::Mode::RWXU).unwrap();
        folder =
            rustix::fs::openat(&folder, "deep", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    }
    let changes = room.snapshot();
    assert_eq!(changes.irregularities().len(), 1);
    remove_deep(&room.tree());
}

#[test]
fn a_folder_that_is_exchanged_for_a_link_leaks_nothing() {
    use std::sync::atomic::{AtomicBool, Ordering};

    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "outside\n").unwrap();
    let origin = sample();
    let room = Room::new(&origin);
    room.write("swap/secret", "inside!\n");
    symlink(outside.path(), room.tree().join("other")).unwrap();
    let (swap, other) = (room.tree().join("swap"), room.tree().join("other"));
    let is_over = AtomicBool::new(false);
    let leaked = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                let cwd = rustix::fs::CWD;
                rustix::fs::renameat_with(cwd, &swap, cwd, &other, flags).unwrap();
            }
        });
        let leaked = (0..40).any(|_| match room.try_snapshot(&SnapshotLimits::default()) {
            Ok(changes) => changes.changes().iter().any(|change| {
                let object = &change.after.as_ref().unwrap().object;
                room.repository.read_blob(object, 100).unwrap() == b"outside\n"
            }),
            Err(SnapshotError::Moving(_) | SnapshotError::Read { .. } | SnapshotError::Disagreement(_)) => {
                false
            }
            Err(other) => panic!("{other}"),
        });
        is_over.store(true, Ordering::Relaxed);
        leaked
    });
    assert!(!leaked);
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn make_node(room: &Room, path: &str, kind: rustix::fs::FileType) {
    rustix::fs::mknodat(rustix::fs::CWD, room.tree().join(path), kind, rustix::fs::Mode::RUSR, 0).unwrap();
}

/// The agent's own git, with nobody's configuration.
pub(crate) fn git_in(folder: &Path, arguments: &[&str]) {
    let status = Command::new("git")
        .current_dir(folder)
        .args(arguments)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .status()
        .unwrap();
    assert!(status.success());
}

fn remove_deep(folder: &Path) {
    let status = Command::new("rm").arg("-rf").arg(folder).status().unwrap();
    assert!(status.success());
}
