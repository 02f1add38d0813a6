//! The mirror against real remotes: fetching, crashes in the middle, damage, and two at once.

use std::fs;
use std::path::Path;

use leviathan_target::{MirrorError, Remote, Repository, export};
use model::{BranchName, RepoUrl};
use test_support::repository::{Entry, Origin};

use crate::ground::{main_branch, mirror, remote};

#[test]
fn a_fetch_answers_with_the_tip_and_only_the_asked_branch_is_there() {
    let (data, origin) = (tempfile::tempdir().unwrap(), Origin::with_files(&[("a", "1\n")]));
    origin.commit("other", "elsewhere", &[Entry::file("b", "1\n")]);
    let mirror = mirror(data.path());
    for content in ["2\n", "3\n"] {
        let tip = origin.commit("main", "next", &[Entry::file("a", content)]);
        let base = mirror.fetch(&remote(&origin), &main_branch()).unwrap();
        assert_eq!(base.as_str(), tip);
    }
    let refs = mirror.repository().unwrap().refs("refs").unwrap();
    assert_eq!(refs.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["refs/heads/main"]);

    // A rewritten branch is followed; what the remote says is the truth.
    let first = origin.resolve("main~2").unwrap();
    origin.set_branch("main", &first);
    assert_eq!(mirror.fetch(&remote(&origin), &main_branch()).unwrap().as_str(), first);
}

#[test]
fn exact_refs_are_fetched_and_missing_ones_are_an_answer() {
    let (data, origin) = (tempfile::tempdir().unwrap(), Origin::with_files(&[("a", "1\n")]));
    let tip = origin.commit("leviathan/task-1-a1", "work", &[Entry::file("b", "1\n")]);
    let mirror = mirror(data.path());
    let name = "refs/heads/leviathan/task-1-a1";
    assert_eq!(mirror.fetch_ref(&remote(&origin), name).unwrap().unwrap().as_str(), tip);
    assert_eq!(mirror.fetch_ref(&remote(&origin), "refs/heads/task-1-a1").unwrap(), None);
    let missing = mirror.fetch(&remote(&origin), &BranchName::parse("trunk").unwrap());
    assert!(matches!(missing, Err(MirrorError::NoBranch { .. })));
}

/// Its name, and what it does to the folder of a mirror.
type Damage = (&'static str, fn(&Path));

#[test]
fn a_damaged_mirror_is_made_again() {
    let damages: [Damage; 7] = [
        ("no HEAD", |dir| fs::remove_file(dir.join("HEAD")).unwrap()),
        ("a foreign configuration", |dir| {
            let evil = "[core]\n\tbare = true\n[url \"file:///nowhere\"]\n\tinsteadOf = file://\n";
            fs::write(dir.join("config"), evil).unwrap();
        }),
        ("no objects", |dir| fs::remove_dir_all(dir.join("objects")).unwrap()),
        ("emptied objects", |dir| {
            fs::remove_dir_all(dir.join("objects")).unwrap();
            fs::create_dir_all(dir.join("objects")).unwrap();
        }),
        ("a lock of a killed fetch", |dir| {
            fs::write(dir.join("refs/heads/main.lock"), "").unwrap();
            fs::write(dir.join("packed-refs.lock"), "").unwrap();
        }),
        ("a half-written ref", |dir| fs::write(dir.join("refs/heads/main"), "").unwrap()),
        ("a file instead of the folder", |dir| {
            fs::remove_dir_all(dir).unwrap();
            fs::create_dir_all(dir).unwrap();
            fs::write(dir.join("junk"), "").unwrap();
        }),
    ];
    let origin = Origin::with_files(&[("a", "1\n")]);
    let every_damage = damages.iter().flat_map(|damage| [(damage, false), (damage, true)]);
    for ((name, damage), has_moved) in every_damage {
        let data = tempfile::tempdir().unwrap();
        let mirror = mirror(data.path());
        mirror.fetch(&remote(&origin), &main_branch()).unwrap();
        damage(&data.path().join("mirrors/my-repo.git"));
        if has_moved {
            origin.commit("main", name, &[Entry::file("a", name)]);
        }
        let tip = origin.resolve("main").unwrap();
        let base = mirror.fetch(&remote(&origin), &main_branch()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(base.as_str(), tip, "{name}");
        export(&mirror.repository().unwrap(), &base, &data.path().join("tree")).unwrap();
    }
}

#[test]
fn an_unreachable_remote_leaves_the_mirror_as_it_was() {
    let (data, origin) = (tempfile::tempdir().unwrap(), Origin::with_files(&[("a", "1\n")]));
    let mirror = mirror(data.path());
    let base = mirror.fetch(&remote(&origin), &main_branch()).unwrap();
    let gone = Remote::new(&RepoUrl::parse("file:///nowhere/repo.git").unwrap(), None);
    let error = mirror.fetch(&gone, &main_branch()).unwrap_err();
    assert!(error.to_string().contains("ls-remote"), "{error}");
    assert!(mirror.repository().unwrap().has_commit(&base).unwrap());
}

#[test]
fn many_fetches_at_once_wait_for_each_other() {
    let (data, origin) = (tempfile::tempdir().unwrap(), Origin::with_files(&[("a", "1\n")]));
    let tip = origin.resolve("main").unwrap();
    std::thread::scope(|scope| {
        let fetches: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| mirror(data.path()).fetch(&remote(&origin), &main_branch())))
            .collect();
        for fetch in fetches {
            assert_eq!(fetch.join().unwrap().unwrap().as_str(), tip);
        }
    });
}

#[test]
fn a_borrowing_repository_reads_the_mirror_and_writes_only_into_itself() {
    let (data, origin) = (tempfile::tempdir().unwrap(), Origin::with_files(&[("a", "1\n")]));
    let mirror = mirror(data.path());
    let base = mirror.fetch(&remote(&origin), &main_branch()).unwrap();
    let lender = mirror.repository().unwrap();
    let own = Repository::init_borrowing(&data.path().join("own.git"), &lender).unwrap();
    assert!(own.has_commit(&base).unwrap());
    let blob = own.write_blob(b"new\n").unwrap();
    assert_eq!(own.read_blob(&blob, 100).unwrap(), b"new\n");
    assert!(lender.read_blob(&blob, 100).is_err());
}
