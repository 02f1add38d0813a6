//! The exported tree: byte for byte what the objects hold, and no way out of the folder.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use leviathan_target::{ExportError, Repository, export};
use model::CommitId;
use test_support::repository::{Entry, Origin};

use crate::ground::git;

fn try_export(origin: &Origin, folder: &Path) -> Result<(), ExportError> {
    let repository = Repository::open(&git(), origin.dir()).unwrap();
    let commit = CommitId::parse(origin.resolve("main").unwrap()).unwrap();
    export(&repository, &commit, folder).map(drop)
}

#[test]
fn bytes_modes_and_links_are_those_of_the_objects() {
    let crlf = "one\r\ntwo $Id$\n".as_bytes();
    let origin = Origin::empty();
    origin.commit(
        "main",
        "first",
        &[
            Entry::file(".gitattributes", "* text eol=crlf ident filter=evil working-tree-encoding=UTF-16\n"),
            Entry::file("mixed.txt", crlf),
            Entry::file("empty", ""),
            Entry::executable("bin/run", "#!/bin/sh\n"),
            Entry::symlink("out", "/etc/passwd"),
            Entry::symlink("dangling", "nowhere"),
            Entry::gitlink("sub", "1111111111111111111111111111111111111111"),
            Entry::file("a \"quoted\"\nname", "x"),
        ],
    );
    let folder = tempfile::tempdir().unwrap();
    let tree = folder.path().join("tree");
    try_export(&origin, &tree).unwrap();
    assert_eq!(fs::read(tree.join("mixed.txt")).unwrap(), crlf);
    assert_eq!(fs::read(tree.join("empty")).unwrap(), b"");
    assert_eq!(fs::read(tree.join("a \"quoted\"\nname")).unwrap(), b"x");
    assert_eq!(fs::metadata(tree.join("bin/run")).unwrap().permissions().mode() & 0o100, 0o100);
    assert_eq!(fs::metadata(tree.join("mixed.txt")).unwrap().permissions().mode() & 0o111, 0);
    assert_eq!(fs::read_link(tree.join("out")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(fs::read_dir(tree.join("sub")).unwrap().count(), 0);
    assert!(!tree.join(".git").exists());
}

#[test]
fn a_tree_is_never_mixed_with_what_is_there() {
    let origin = Origin::with_files(&[("a", "1\n")]);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("left-over"), "").unwrap();
    assert!(matches!(try_export(&origin, folder.path()), Err(ExportError::NotEmpty(_))));
}

#[test]
fn a_base_with_names_that_leave_the_folder_is_refused() {
    // `git mktree` stores what no checkout may have.
    let rows: [(&str, &[&str]); 5] = [
        ("..", &["100644 blob {blob}\t.."]),
        (".git", &["100644 blob {blob}\t.git"]),
        (".GIT", &["040000 tree {tree}\t.GIT"]),
        (".", &["040000 tree {tree}\t."]),
        ("a link and a folder of one name", &["120000 blob {link}\ta", "040000 tree {tree}\ta"]),
    ];
    for (name, lines) in rows {
        let origin = Origin::with_files(&[("inner", "x\n")]);
        let outside = tempfile::tempdir().unwrap();
        let link = outside.path().join("victim");
        let link = origin.write_blob(link.to_str().unwrap().as_bytes());
        let (blob, tree) = (origin.resolve("main:inner").unwrap(), origin.resolve("main^{tree}").unwrap());
        let lines: String = lines
            .iter()
            .map(|line| {
                line.replace("{blob}", &blob).replace("{tree}", &tree).replace("{link}", &link) + "\n"
            })
            .collect();
        origin.commit_raw_tree("main", lines.as_bytes());
        let folder = tempfile::tempdir().unwrap();
        let outcome = try_export(&origin, &folder.path().join("tree"));
        assert!(
            matches!(outcome, Err(ExportError::Hostile { .. } | ExportError::Write { .. })),
            "{name}: {outcome:?}"
        );
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{name}");
        assert!(!folder.path().join("inner").exists(), "{name}");
    }
}
