//! The whole gate on real trees: what a hostile agent leaves, judged by rules, kinds, names and content. Each row is
//! an attack with the violations that refuse it and the reason that the attempt ends with.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::{Duration, Instant};

use leviathan_target::{SnapshotLimits, changes_between};
use model::documents::Limits;
use model::{
    ChangeSet, Document, Documents, FailureReason, PathRules, Refused, TargetSpec, TaskId, ViolationKind,
};
use test_support::repository::{Entry, Origin};

use crate::clean_room::{git_in, make_node, set_mode};
use crate::ground::{Room, sample};

/// A task that may change `src/**`, `assets/**`, and nothing else; forbidden there is `src/private/**`.
fn spec(more_policy: &str) -> TargetSpec {
    let contract =
        "target_id: shop\nname: Shop\nrepo_url: https://example.org/o/shop.git\ndefault_branch: main\n";
    let backlog =
        "tasks:\n  - {task_id: t, title: T, scope: s, allowed_paths: ['src/**', 'assets/**', '*']}\n";
    let policy = format!(
        "scopes:\n  s:\n    allowed_paths: ['src/**', 'assets/**', 'Src/**', 'SRC/**']\n    forbidden_patterns: ['src/private/**']\ninvariants: []\n{more_policy}"
    );
    let document = |file, text: &'static str| Document { file, content: Some(text.as_bytes()) };
    let documents = Documents {
        contract: document("contract.yaml", contract),
        backlog: document("backlog.yaml", backlog),
        policy: Document { file: "policy.yaml", content: Some(policy.as_bytes()) },
        operator_policy: None,
    };
    let commit = model::CommitId::parse("1".repeat(40)).unwrap();
    TargetSpec::parse(commit, &documents).unwrap_or_else(|problems| panic!("{problems}"))
}

#[expect(clippy::result_large_err, reason = "as in `permit` itself")]
fn judge(change: ChangeSet, more_policy: &str) -> Result<(), Refused> {
    let spec = spec(more_policy);
    let rules = PathRules::for_task(&spec, spec.backlog.task(&TaskId::parse("t").unwrap()).unwrap());
    change.permit(&rules, &spec.policy.limits).map(drop)
}

/// What refused the change: `path kind` of each violation, sorted, and the reason. Nothing when it is permitted.
fn verdict(room: &Room, more_policy: &str) -> (Vec<(String, ViolationKind)>, Option<FailureReason>) {
    let change = room.snapshot();
    let from_objects =
        changes_between(&room.repository, &room.base, change.candidate(), &Default::default()).unwrap();
    let verdict = match judge(change.clone(), more_policy) {
        Ok(()) => (Vec::new(), None),
        Err(refused) => {
            let reason = refused.reason();
            let told = refused.violations.into_iter().map(|violation| (violation.path, violation.kind));
            (told.collect(), Some(reason))
        }
    };
    // The second stage sees the objects alone. What never became an object was refused by the first.
    if change.irregularities().is_empty() {
        let again = judge(from_objects, more_policy).err().map(|refused| refused.reason());
        assert_eq!(again, verdict.1, "the second look decides the same");
    }
    verdict
}

type Row = (&'static str, fn(&Room), &'static [(&'static str, ViolationKind)], Option<FailureReason>);

use FailureReason::{ChangeTooLarge, ProtectedPath, ScopeViolation, SecretFound};
use ViolationKind::*;

const ROWS: &[Row] = &[
    ("what is asked for", |room| room.write("src/a.py", "a = 2\n"), &[], None),
    (
        "a rename out of a forbidden folder is judged by both names",
        |room| fs::rename(room.tree().join("tests/big.py"), room.tree().join("src/big.py")).unwrap(),
        &[("tests/big.py", NotAllowedByTask)],
        Some(ScopeViolation),
    ),
    (
        "a copy of a file with a secret",
        |room| {
            fs::copy(room.tree().join("config/token"), room.tree().join("src/token")).unwrap();
        },
        &[("src/token", ViolationKind::SecretFound)],
        Some(SecretFound),
    ),
    (
        "a deletion outside",
        |room| fs::remove_file(room.tree().join("tests/big.py")).unwrap(),
        &[("tests/big.py", NotAllowedByTask)],
        Some(ScopeViolation),
    ),
    ("a deletion inside", |room| fs::remove_file(room.tree().join("src/b.py")).unwrap(), &[], None),
    (
        "chmod alone",
        |room| set_mode(&room.tree().join("src/a.py"), 0o755),
        &[("src/a.py", ModeChange)],
        Some(ScopeViolation),
    ),
    (
        "a link to another folder",
        |room| symlink("../tests", room.tree().join("src/d")).unwrap(),
        &[("src/d", Symlink)],
        Some(ScopeViolation),
    ),
    (
        "a link to the machine's files",
        |room| symlink("/etc/passwd", room.tree().join("src/d")).unwrap(),
        &[("src/d", Symlink)],
        Some(ScopeViolation),
    ),
    (
        "a folder swapped for a link, so that writes land elsewhere",
        |room| {
            fs::remove_dir_all(room.tree().join("src")).unwrap();
            symlink("tests", room.tree().join("src")).unwrap();
        },
        &[("src", Symlink), ("src/module", Gitlink)],
        Some(ProtectedPath),
    ),
    (
        "a link swapped for a file",
        |room| {
            fs::remove_file(room.tree().join("src/link")).unwrap();
            room.write("src/link", "a.py");
        },
        &[("src/link", TypeChange)],
        Some(ScopeViolation),
    ),
    (
        "a pipe",
        |room| make_node(room, "src/pipe", rustix::fs::FileType::Fifo),
        &[("src/pipe", SpecialFile)],
        Some(ScopeViolation),
    ),
    (
        "a repository inside the repository",
        |room| {
            room.write("src/lib/file", "x\n");
            git_in(&room.tree().join("src/lib"), &["init", "--quiet"]);
            git_in(&room.tree().join("src/lib"), &["add", "file"]);
        },
        &[("src/lib", NestedRepository)],
        Some(ProtectedPath),
    ),
    (
        "a .git file inside",
        |room| room.write("src/lib/.git", "gitdir: /tmp/evil\n"),
        &[("src/lib", NestedRepository)],
        Some(ProtectedPath),
    ),
    (
        "a replaced .git file at the root changes nothing and hides nothing",
        |room| {
            room.write(".git", "gitdir: /tmp/evil\n");
            room.write("tests/big.py", "x\n");
        },
        &[("tests/big.py", NotAllowedByTask)],
        Some(ScopeViolation),
    ),
    (
        "a file in the place of a submodule",
        |room| {
            fs::remove_dir(room.tree().join("src/module")).unwrap();
            room.write("src/module", "x\n");
        },
        &[("src/module", Gitlink)],
        Some(ProtectedPath),
    ),
    (
        "a submodule that would run a program",
        |room| room.write(".gitmodules", "[submodule \"x\"]\n\tpath = -x\n\turl = ext::sh -c evil\n"),
        &[(".gitmodules", Untouchable)],
        Some(ProtectedPath),
    ),
    (
        "flags of an index of the agent's own",
        |room| {
            git_in(&room.tree(), &["init", "--quiet"]);
            git_in(&room.tree(), &["add", "-f", "tests/big.py", "README.md", "config/token"]);
            git_in(&room.tree(), &["update-index", "--assume-unchanged", "tests/big.py"]);
            git_in(&room.tree(), &["update-index", "--skip-worktree", "README.md"]);
            git_in(&room.tree(), &["config", "core.fileMode", "false"]);
            room.write(".git/info/exclude", "*\n");
            room.write(".git/info/sparse-checkout", "!/config\n");
            room.write("tests/big.py", "1\n");
            room.write("README.md", "2\n");
            room.write("config/token", "3\n");
        },
        &[
            ("README.md", NotAllowedByScope),
            ("config/token", NotAllowedByTask),
            ("tests/big.py", NotAllowedByTask),
        ],
        Some(ScopeViolation),
    ),
    (
        "borrowed objects, other refs and a moved HEAD of the agent's own",
        |room| {
            git_in(&room.tree(), &["init", "--quiet"]);
            room.write(".git/objects/info/alternates", "/tmp/evil/objects\n");
            room.write(".git/refs/heads/main", &format!("{}\n", "1".repeat(40)));
            room.write(".git/HEAD", &"2".repeat(40));
            room.write("src/a.py", "a = 2\n");
        },
        &[],
        None,
    ),
    (
        "attributes that hide a change from the reviewer",
        |room| room.write(".gitattributes", "*.py -diff linguist-generated\n"),
        &[(".gitattributes", Protected)],
        Some(ProtectedPath),
    ),
    (
        "an ignore rule of the agent's own",
        |room| {
            room.write("src/.gitignore", "*\n");
            room.write("src/conftest.py", "x\n");
        },
        &[("src/conftest.py", Protected)],
        Some(ProtectedPath),
    ),
    (
        "a pointer of LFS",
        |room| room.write("src/model.bin", LFS_POINTER),
        &[("src/model.bin", LfsPointer)],
        Some(ScopeViolation),
    ),
    (
        "binary content",
        |room| room.write("src/logo.png", "\u{89}PNG\0\0"),
        &[("src/logo.png", Binary)],
        Some(ScopeViolation),
    ),
    (
        "binary content far behind a text",
        |room| room.write("src/logo.py", &format!("{}\0", "text\n".repeat(20_000))),
        &[("src/logo.py", Binary)],
        Some(ScopeViolation),
    ),
    ("text that attributes call binary is text", |room| room.write("src/plain.py", "x = 1\n"), &[], None),
    (
        "names that differ by case",
        |room| room.write("src/A.py", "x\n"),
        &[("src/A.py", Collision)],
        Some(ScopeViolation),
    ),
    (
        "folders that differ by case",
        |room| room.write("SRC/new.py", "x\n"),
        &[("SRC", Collision), ("SRC/new.py", NotAllowedByTask)],
        Some(ScopeViolation),
    ),
    (
        "names that differ by normalisation",
        |room| room.write("src/e\u{301}.py", "x\n"),
        &[("src/e\\u{301}.py", Name)],
        Some(ScopeViolation),
    ),
    (
        "a line break in a name is one record",
        |room| room.write("src/a\nconfig", "x\n"),
        &[("src/a\\nconfig", Name)],
        Some(ScopeViolation),
    ),
    (
        "an escape in a name is told without one",
        |room| room.write("src/\u{1b}[2J", "x\n"),
        &[("src/\\u{1b}[2J", Name)],
        Some(ScopeViolation),
    ),
    (
        "a name that is not UTF-8",
        |room| fs::write(room.tree().join(OsStr::from_bytes(b"src/\xff")), "x\n").unwrap(),
        &[("src/\\xff", Name)],
        Some(ScopeViolation),
    ),
    ("an option for a name", |room| room.write("-rf", "x\n"), &[("-rf", Name)], Some(ScopeViolation)),
    (
        "a secret in a name",
        |room| room.write(&format!("src/{}.py", github_token()), "x\n"),
        &[("src/[name]", ViolationKind::SecretFound)],
        Some(SecretFound),
    ),
    (
        "a secret in an added line",
        |room| room.write("src/a.py", &format!("a = 1\nkey = '{}'\n", github_token())),
        &[("src/a.py", ViolationKind::SecretFound)],
        Some(SecretFound),
    ),
    (
        "a secret that the file held already is no addition",
        |room| room.write("src/fixture.py", &format!("more = 1\nt = '{}'\n", base_token())),
        &[],
        None,
    ),
    (
        "the documents",
        |room| room.write(".leviathan/policy.yaml", "scopes: {}\n"),
        &[(".leviathan/policy.yaml", Untouchable)],
        Some(ProtectedPath),
    ),
    (
        "forbidden in another spelling",
        |room| room.write("Src/Private/x", "x\n"),
        &[("Src", Collision), ("Src/Private/x", Forbidden)],
        Some(ScopeViolation),
    ),
];

const LFS_POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";

/// Made up; put together here, so that no scanner takes this file for a leak.
fn github_token() -> String {
    ["ghp_", "a8Kd03mVq2Zx7Rt5Yb1Nc6Wf4Hg9Jp0LsEu3"].concat()
}

fn base_token() -> String {
    ["ghp_", "Zz8Kd03mVq2Zx7Rt5Yb1Nc6Wf4Hg9Jp0LsEu"].concat()
}

/// The sample with a submodule, a link, a token outside the scope and one inside it.
fn ground() -> Origin {
    let origin = sample();
    let token = base_token();
    origin.commit(
        "main",
        "second",
        &[
            Entry::gitlink("src/module", &"2".repeat(40)),
            Entry::symlink("src/link", "a.py"),
            Entry::file("config/token", format!("{token}\n")),
            Entry::file("src/fixture.py", format!("t = '{token}'\n")),
        ],
    );
    origin
}

#[test]
fn every_attack_is_refused_by_its_kind_and_ends_with_its_reason() {
    let origin = ground();
    for (name, act, expected, reason) in ROWS {
        let room = Room::new(&origin);
        act(&room);
        let begun = Instant::now();
        let (found, found_reason) = verdict(&room, "");
        assert!(begun.elapsed() < Duration::from_secs(20), "{name} held the gate up");
        let named = |path: &str| path.replace(&format!("{}.py", github_token()), "[name]");
        let found: Vec<(String, ViolationKind)> =
            found.into_iter().map(|(path, kind)| (named(&path), kind)).collect();
        let found: Vec<(&str, ViolationKind)> =
            found.iter().map(|(path, kind)| (path.as_str(), *kind)).collect();
        assert_eq!(found, *expected, "{name}");
        assert_eq!(found_reason, *reason, "{name}");
    }
}

#[test]
fn a_policy_opens_what_is_out_of_the_ordinary_and_never_a_secret_of_ours() {
    let origin = ground();
    let own = "a-token-of-the-executor";
    for (path, content, policy, expected) in [
        ("assets/logo.png", "\0", "allow_binary: ['assets/*.png']", None),
        ("assets/logo.jpg", "\0", "allow_binary: ['assets/*.png']", Some(Binary)),
        ("assets/model", LFS_POINTER, "allow_lfs: ['assets/**']", None),
        ("assets/model", LFS_POINTER, "allow_binary: ['**']", Some(LfsPointer)),
        ("src/fake.py", &github_token(), "allow_secrets: [src/fake.py]", None),
        ("src/other.py", &github_token(), "allow_secrets: [src/fake.py]", Some(ViolationKind::SecretFound)),
        ("src/fake.py", own, "allow_secrets: [src/fake.py]", Some(ViolationKind::SecretFound)),
        ("src/fake.py", &hex::encode(own), "allow_secrets: [src/fake.py]", Some(ViolationKind::SecretFound)),
    ] {
        let room = Room::new(&origin);
        room.write(path, content);
        let redactor = model::secrets::Redactor::new([own]);
        let candidate = room.snapshot().candidate().clone();
        let change = changes_between(&room.repository, &room.base, &candidate, &redactor).unwrap();
        let found = judge(change, policy).err().map(|refused| refused.violations[0].kind);
        assert_eq!(found, expected, "{path} {policy}");
    }
}

#[test]
fn a_refusal_names_file_line_and_rule_and_nothing_of_the_secret() {
    let origin = ground();
    let room = Room::new(&origin);
    room.write("src/a.py", &format!("a = 1\n\nkey = '{}'\n", github_token()));
    let refused = judge(room.snapshot(), "").unwrap_err();
    assert_eq!(
        refused.violations[0].to_string(),
        "`src/a.py`: line 3 holds what looks like a secret (github-token)"
    );
    let recorded = serde_json::to_string(&refused).unwrap();
    assert!(!recorded.contains(&github_token()[8..]), "{recorded}");
}

#[test]
fn limits_hold_to_the_last_file_and_byte() {
    let origin = ground();
    let judged = |act: &dyn Fn(&Room), limits: Limits| {
        let room = Room::new(&origin);
        act(&room);
        let change = room.try_snapshot(&SnapshotLimits::default()).unwrap();
        let spec = spec("");
        let rules = PathRules::for_task(&spec, spec.backlog.task(&TaskId::parse("t").unwrap()).unwrap());
        let patch_bytes = change.patch_bytes();
        let refused = change.permit(&rules, &limits).err();
        (patch_bytes, refused.map(|refused| (refused.violations[0].kind, refused.reason())))
    };
    let files =
        |count: usize| move |room: &Room| (0..count).for_each(|n| room.write(&format!("src/n{n}"), "x\n"));
    let of_files = Limits { max_files_changed: 3, ..Limits::default() };
    assert_eq!(judged(&files(3), of_files).1, None);
    assert_eq!(judged(&files(4), of_files).1, Some((TooManyFiles, ChangeTooLarge)));

    let sized = |bytes: usize| move |room: &Room| room.write("src/big", &"x".repeat(bytes));
    let of_bytes = Limits { max_file_bytes: 1000, ..Limits::default() };
    assert_eq!(judged(&sized(1000), of_bytes).1, None);
    assert_eq!(judged(&sized(1001), of_bytes).1, Some((FileTooLarge, ChangeTooLarge)));

    let (patch_bytes, _) = judged(&sized(1000), Limits::default());
    let of_patch = |max_patch_bytes| Limits { max_patch_bytes, ..Limits::default() };
    assert_eq!(judged(&sized(1000), of_patch(patch_bytes)).1, None);
    assert_eq!(judged(&sized(1000), of_patch(patch_bytes - 1)).1, Some((PatchTooLarge, ChangeTooLarge)));
}

#[test]
fn an_executable_file_is_made_only_new() {
    let origin = ground();
    let room = Room::new(&origin);
    room.write("src/tool.sh", "#!/bin/sh\n");
    fs::set_permissions(room.tree().join("src/tool.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(verdict(&room, "").1, None);
}
