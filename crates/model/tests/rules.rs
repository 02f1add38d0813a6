//! What the path rules permit and what they refuse, attack by attack.

use leviathan_model::{
    Change, ChangeSet, CheckOutcome, CommitId, Digest, Document, Documents, Entry, FailureReason,
    InvariantReport, Irregularity, IrregularityKind, Limits, Mode, ObjectId, PathRules, Policy, Protection,
    RepoPath, TargetSpec, TaskId, Verdict, Violation, ViolationKind,
};

const CONTRACT: &str =
    "target_id: shop\nname: Shop\nrepo_url: https://example.org/o/shop.git\ndefault_branch: main\n";

const BACKLOG: &str = "\
tasks:
  - {task_id: api, title: t, scope: api, allowed_paths: ['src/**', 'tests/**', 'docs/**']}
  - {task_id: all, title: t, scope: all, allowed_paths: ['**']}
  - {task_id: named, title: t, scope: named, allowed_paths: [conftest.py, pyproject.toml, .github/workflows/ci.yml, .leviathan/policy.yaml, .gitmodules]}
  - {task_id: half, title: t, scope: all, allowed_paths: [conftest.py]}
  - {task_id: braces, title: t, scope: named, allowed_paths: ['{conftest,x}.py']}
  - {task_id: nothing, title: t, scope: all}
";

const POLICY: &str = "\
scopes:
  api:
    allowed_paths: ['src/**', 'tests/**']
    forbidden_patterns: ['tests/**', 'src/secret?/**']
  all:
    allowed_paths: ['**']
  named:
    allowed_paths: [conftest.py, pyproject.toml, .github/workflows/ci.yml, .leviathan/policy.yaml, .gitmodules]
protected: ['src/generated/**']
invariants:
  - {name: tests, check: pytest}
  - {name: lint, check: ruff check .}
";

#[test]
fn paths_are_judged_by_task_scope_and_what_denies() {
    use ViolationKind::*;
    for (task, path, expected) in [
        ("api", "src/a.py", None),
        ("api", "src/deep/er/a.py", None),
        // Allowed by the task alone, by the scope alone, by neither
        ("api", "docs/a.md", Some(NotAllowedByScope)),
        ("api", "README.md", Some(NotAllowedByTask)),
        ("nothing", "README.md", Some(NotAllowedByTask)),
        // Denying wins, in any spelling
        ("api", "tests/test_a.py", Some(Forbidden)),
        ("api", "TESTS/test_a.py", Some(Forbidden)),
        ("api", "Tests/x", Some(Forbidden)),
        ("api", "src/secrets/key", Some(Forbidden)),
        ("api", "src/SECRETß/key", Some(Forbidden)),
        // Never, not even under `**` or when named
        ("all", ".leviathan/policy.yaml", Some(Untouchable)),
        ("all", ".Leviathan/policy.yaml", Some(Untouchable)),
        ("all", ".leviathan/schemas/new.json", Some(Untouchable)),
        ("all", ".leviathan", Some(Untouchable)),
        ("all", "LEVIAT~1/policy.yaml", Some(Untouchable)),
        ("all", ".gitmodules", Some(Untouchable)),
        ("all", "vendor/.GitModules", Some(Untouchable)),
        ("named", ".leviathan/policy.yaml", Some(Untouchable)),
        ("named", ".gitmodules", Some(Untouchable)),
        // Only when the task and the scope name it literally
        ("all", "conftest.py", Some(Protected)),
        ("all", "tests/unit/conftest.py", Some(Protected)),
        ("half", "conftest.py", Some(Protected)),
        ("braces", "conftest.py", Some(Protected)),
        ("named", "conftest.py", None),
        ("named", "pyproject.toml", None),
        ("named", ".github/workflows/ci.yml", None),
        ("named", "sub/conftest.py", Some(Protected)),
        ("named", "CONFTEST.PY", Some(Protected)),
        // What the policy protects beside the built-in list
        ("api", "src/generated/a.py", Some(Protected)),
        ("api", "src/Generated/a.py", Some(Protected)),
    ] {
        let verdict = rules(task).judge_path(&path_of(path));
        assert_eq!(verdict.violation().map(|violation| violation.kind), expected, "{task}: {path}");
    }
}

#[test]
fn what_steers_people_platforms_agents_and_checks_is_protected() {
    for path in [
        ".github/workflows/release.yml",
        ".github/dependabot.yml",
        ".github/CODEOWNERS",
        "CODEOWNERS",
        "docs/CODEOWNERS",
        ".gitlab-ci.yml",
        "renovate.json",
        ".gitattributes",
        "src/.gitattributes",
        "AGENTS.md",
        "src/agents.md",
        "CLAUDE.md",
        ".claude/settings.json",
        "sub/.cursor/rules",
        ".mcp.json",
        ".vscode/tasks.json",
        "pytest.ini",
        "tox.ini",
        "setup.cfg",
        "setup.py",
        "pyproject.toml",
        "sitecustomize.py",
        "pytest.py",
        "evil.pth",
        "ruff.toml",
        "mypy.ini",
        ".secrets.baseline",
        ".pre-commit-config.yaml",
        "Makefile",
        "makefile",
        "build.rs",
        "crates/x/build.rs",
        "package.json",
        "vite.config.ts",
        "gradlew.bat",
    ] {
        let verdict = rules("all").judge_path(&path_of(path));
        assert_eq!(
            verdict.violation().map(|violation| violation.kind),
            Some(ViolationKind::Protected),
            "{path}"
        );
    }
    for path in
        ["requirements.txt", "src/make.py", "docs/agents/a.md", "tests/test_conftest.py", "a.config.py"]
    {
        assert!(rules("all").judge_path(&path_of(path)).violation().is_none(), "{path}");
    }
}

#[test]
fn the_verdict_names_the_rule_and_its_line() {
    let shown = |task: &str, path: &str| match rules(task).judge_path(&path_of(path)) {
        Verdict::Permitted { rules } => {
            rules.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
        }
        Verdict::Denied(violation) => violation.to_string(),
    };
    assert_eq!(
        shown("api", "src/a.py"),
        "allowed_paths src/** (backlog.yaml:2) and allowed_paths src/** (policy.yaml:3)"
    );
    assert_eq!(
        shown("api", "tests/a.py"),
        "`tests/a.py`: a forbidden pattern of the scope matches the path: forbidden_patterns tests/** (policy.yaml:4)"
    );
    assert_eq!(
        shown("api", "docs/a.md"),
        "`docs/a.md`: no allowed path matches: allowed_paths of the scope `api` (policy.yaml:3)"
    );
    assert_eq!(
        shown("half", "conftest.py"),
        "`conftest.py`: it steers the checks or runs by itself: it may be changed only when the task and the scope name it \
         literally, and the scope `all` does not: protected **/conftest.py (built in)"
    );
}

#[test]
fn an_operator_can_only_tighten() {
    let spec = spec_with(Some(
        "scopes:\n  api:\n    allowed_paths: ['src/api/**', conftest.py]\n    forbidden_patterns: ['**/*.key']\n\
         invariants: [{name: tests, check: pytest -x}, {name: scan, check: scan}]\n\
         limits: {max_files_changed: 3, max_patch_bytes: 50MiB}\nsandbox: strict\n",
    ));
    let judged = |task: &str, path: &str| {
        let rules = PathRules::for_task(&spec, spec.backlog.task(&task_id(task)).unwrap());
        rules.judge_path(&path_of(path)).violation().map(|violation| violation.kind)
    };
    assert_eq!(judged("api", "src/api/a.py"), None);
    assert_eq!(judged("api", "src/a.py"), Some(ViolationKind::NotAllowedByOperator));
    assert_eq!(judged("api", "src/api/a.KEY"), Some(ViolationKind::Forbidden));
    // The operator allows it, the repository does not
    assert_eq!(judged("api", "conftest.py"), Some(ViolationKind::Protected));
    // The operator's policy has scopes, but not this one
    assert_eq!(judged("all", "README.md"), Some(ViolationKind::NotAllowedByOperator));

    let names: Vec<&str> = spec.policy.invariants.iter().map(|invariant| invariant.name.as_str()).collect();
    assert_eq!(names, ["tests", "lint", "tests (operator)", "scan"]);
    assert_eq!(spec.policy.limits.max_files_changed, 3);
    assert_eq!(spec.policy.limits.max_patch_bytes, Limits::default().max_patch_bytes);
    assert_eq!(spec.policy.sandbox.as_str(), "strict");
    assert!(spec.policy.baseline);
    assert!(spec.digests.operator_policy.is_some());
}

#[test]
fn kinds_of_change_are_judged_beside_their_path() {
    use Mode::*;
    use ViolationKind as V;
    for (before, after, expected) in [
        (None, Some(Regular), None),
        (None, Some(Executable), None),
        (Some(Regular), Some(Regular), None),
        (Some(Regular), None, None),
        (Some(Symlink), None, None),
        (None, Some(Symlink), Some(V::Symlink)),
        (Some(Symlink), Some(Symlink), Some(V::Symlink)),
        (Some(Regular), Some(Symlink), Some(V::Symlink)),
        (Some(Symlink), Some(Regular), Some(V::TypeChange)),
        (Some(Regular), Some(Executable), Some(V::ModeChange)),
        (Some(Executable), Some(Regular), Some(V::ModeChange)),
        (None, Some(Gitlink), Some(V::Gitlink)),
        (Some(Gitlink), Some(Gitlink), Some(V::Gitlink)),
        (Some(Gitlink), None, Some(V::Gitlink)),
        (Some(Regular), Some(Gitlink), Some(V::Gitlink)),
    ] {
        let change = change("src/a.py", before, after);
        let verdict = rules("api").judge(&change);
        assert_eq!(verdict.violation().map(|violation| violation.kind), expected, "{before:?} -> {after:?}");
    }
}

#[test]
fn a_rename_out_of_a_forbidden_folder_is_refused_by_its_source() {
    let changes = vec![
        change("tests/big.py", Some(Mode::Regular), None),
        change("src/big.py", None, Some(Mode::Regular)),
    ];
    let refused = permit(changes, vec![], 10).unwrap_err();
    assert_eq!(kinds(&refused.violations), [("tests/big.py", ViolationKind::Forbidden)]);
    assert_eq!(refused.reason(), FailureReason::ScopeViolation);
}

#[test]
fn every_violation_is_found_and_the_gravest_is_the_reason() {
    let changes = vec![
        change("src/ok.py", None, Some(Mode::Regular)),
        change("src/A.py", None, Some(Mode::Regular)),
        change("src/a.py", None, Some(Mode::Regular)),
        change(".leviathan/policy.yaml", Some(Mode::Regular), Some(Mode::Regular)),
        change("tests/x.py", Some(Mode::Regular), None),
    ];
    let irregular = |path: &str, kind| Irregularity { path: path.to_owned(), kind, detail: "odd".to_owned() };
    let irregularities = vec![
        irregular("src/a\\nconfig", IrregularityKind::Name),
        irregular("src/pipe", IrregularityKind::SpecialFile),
        irregular("src/lib", IrregularityKind::NestedRepository),
    ];
    let refused = permit(changes, irregularities, 10).unwrap_err();
    assert_eq!(
        kinds(&refused.violations),
        [
            (".leviathan/policy.yaml", ViolationKind::Untouchable),
            ("src/a.py", ViolationKind::Collision),
            ("src/a\\nconfig", ViolationKind::Name),
            ("src/lib", ViolationKind::NestedRepository),
            ("src/pipe", ViolationKind::SpecialFile),
            ("tests/x.py", ViolationKind::Forbidden),
        ]
    );
    assert_eq!(refused.reason(), FailureReason::ProtectedPath);
}

#[test]
fn changes_that_steer_the_checks_are_shown_apart() {
    let changes = vec![
        change("pyproject.toml", Some(Mode::Regular), Some(Mode::Regular)),
        change(".github/workflows/ci.yml", Some(Mode::Regular), Some(Mode::Regular)),
    ];
    let set = ChangeSet::new(commit('a'), commit('b'), changes, vec![], 10);
    let permitted = set.permit(&rules("named"), &Limits::default()).unwrap();
    let steering: Vec<_> =
        permitted.steering().map(|(change, protection)| (change.path.as_str(), protection)).collect();
    assert_eq!(
        steering,
        [(".github/workflows/ci.yml", Protection::Platform), ("pyproject.toml", Protection::Checks)]
    );
}

#[test]
fn limits_hold_at_the_limit_and_not_beyond() {
    let limits =
        Limits { max_files_changed: 2, max_patch_bytes: 100, max_file_bytes: 50, ..Limits::default() };
    let of_size = |path: &str, size| {
        let mut change = change(path, None, Some(Mode::Regular));
        change.after.as_mut().unwrap().size = size;
        change
    };
    for (sizes, patch_bytes, expected) in [
        (vec![50, 50], 100, vec![]),
        (vec![50, 51], 100, vec![ViolationKind::FileTooLarge]),
        (vec![1, 1, 1], 100, vec![ViolationKind::TooManyFiles]),
        (vec![1], 101, vec![ViolationKind::PatchTooLarge]),
    ] {
        let changes =
            sizes.iter().enumerate().map(|(index, size)| of_size(&format!("src/{index}"), *size)).collect();
        let set = ChangeSet::new(commit('a'), commit('b'), changes, vec![], patch_bytes);
        let outcome = set.permit(&rules("api"), &limits);
        let found = outcome.map_or_else(
            |refused| {
                assert_eq!(refused.reason(), FailureReason::ChangeTooLarge);
                refused.violations.iter().map(|violation| violation.kind).collect()
            },
            |_| Vec::new(),
        );
        assert_eq!(found, expected, "{sizes:?} {patch_bytes}");
    }
}

#[test]
fn only_a_passing_report_of_every_invariant_at_the_candidate_verifies() {
    let spec = spec_with(None);
    let permitted = || permit(vec![change("src/a.py", None, Some(Mode::Regular))], vec![], 10).unwrap();
    let tests = || report("tests", "pytest", 'b', CheckOutcome::Passed);
    let lint = || report("lint", "ruff check .", 'b', CheckOutcome::Passed);

    let verified = permitted().verify(&spec.policy, vec![tests(), lint()], Vec::new()).unwrap();
    assert_eq!(verified.commit(), &commit('b'));
    assert_eq!(verified.reports().len(), 2);

    for (reports, expected) in [
        (vec![tests()], "the invariant `lint` has no report"),
        (vec![], "the invariant `tests` has no report"),
        (vec![tests(), tests(), lint()], "the invariant `tests` has 2 reports instead of one"),
        (
            vec![tests(), lint(), report("extra", "true", 'b', CheckOutcome::Passed)],
            "the report `extra` belongs to no invariant of the policy",
        ),
        (
            vec![report("tests", "true", 'b', CheckOutcome::Passed), lint()],
            "the report `tests` is of another command: `true`",
        ),
        (
            vec![report("tests", "pytest", 'a', CheckOutcome::Passed), lint()],
            "the report `tests` is of commit aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa, not of bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
        ),
        (
            vec![report("tests", "pytest", 'b', CheckOutcome::Failed { exit_code: 1 }), lint()],
            "the invariant `tests` failed with exit code 1",
        ),
        (
            vec![report("tests", "pytest", 'b', CheckOutcome::TimedOut), lint()],
            "the invariant `tests` reached its time limit",
        ),
        (
            vec![report("tests", "pytest", 'b', CheckOutcome::Killed { signal: 9 }), lint()],
            "the invariant `tests` was killed by signal 9",
        ),
        (
            vec![report("tests", "pytest", 'b', CheckOutcome::MutatedTree), lint()],
            "the invariant `tests` changed the tree that it was to judge",
        ),
    ] {
        let unverified = permitted().verify(&spec.policy, reports, Vec::new()).unwrap_err();
        assert_eq!(unverified.problems[0], expected);
    }
}

#[test]
fn a_change_of_check_configuration_needs_the_checks_with_the_bases_own() {
    let spec = spec_with(None);
    let strict = Policy { strict_checks: true, ..spec.policy.clone() };
    let named = || {
        let changes = vec![change("conftest.py", Some(Mode::Regular), Some(Mode::Regular))];
        let set = ChangeSet::new(commit('a'), commit('b'), changes, vec![], 1);
        set.permit(&rules("named"), &Limits::default()).unwrap()
    };
    assert_eq!(named().check_files(), [path_of("conftest.py")]);
    let first = || {
        vec![
            report("tests", "pytest", 'b', CheckOutcome::Passed),
            report("lint", "ruff check .", 'b', CheckOutcome::Passed),
        ]
    };
    let second = |outcome| {
        vec![
            report("tests", "pytest", 'c', outcome),
            report("lint", "ruff check .", 'c', CheckOutcome::Passed),
        ]
    };
    let failing = || second(CheckOutcome::Failed { exit_code: 1 });

    let missing = named().verify(&spec.policy, first(), Vec::new()).unwrap_err();
    assert_eq!(missing.problems.len(), 2, "{:?}", missing.problems);
    assert_eq!(named().verify(&spec.policy, first(), failing()).unwrap().with_base_files(), failing());
    named().verify(&strict, first(), second(CheckOutcome::Passed)).unwrap();
    let blocked = named().verify(&strict, first(), failing()).unwrap_err();
    assert_eq!(
        blocked.problems,
        ["with the base's check configuration the invariant `tests` failed with exit code 1"]
    );
}

#[test]
fn a_change_set_is_sorted_also_when_it_was_read_from_text() {
    let set = ChangeSet::new(
        commit('a'),
        commit('b'),
        vec![change("b", None, Some(Mode::Regular)), change("a", None, Some(Mode::Regular))],
        vec![],
        0,
    );
    assert_eq!(set.changes()[0].path.as_str(), "a");
    let mut json = serde_json::to_value(&set).unwrap();
    json["changes"].as_array_mut().unwrap().reverse();
    assert_eq!(serde_json::from_value::<ChangeSet>(json).unwrap(), set);
}

#[test]
fn what_a_file_may_hold_is_for_both_policies_to_allow() {
    use ViolationKind::{Binary, LfsPointer, SecretFound};
    let file = |is_binary, is_lfs_pointer, secret: Option<bool>| Change {
        is_binary,
        is_lfs_pointer,
        secrets: secret
            .map(|is_ours| leviathan_model::SecretFound { line: 3, rule: "r".to_owned(), is_ours })
            .into_iter()
            .collect(),
        ..change("src/a.py", None, Some(Mode::Regular))
    };
    let open = "allow_binary: ['src/**']\nallow_lfs: ['**']\nallow_secrets: [src/a.py]\n";
    let kind = |repository: &str, operator: Option<&str>, change: &Change| {
        let policy = format!("{POLICY}{repository}");
        let spec = spec_of(&policy, operator);
        let rules = PathRules::for_task(&spec, spec.backlog.task(&task_id("api")).expect("a task"));
        rules.judge(change).violation().map(|violation| violation.kind)
    };
    for (change, refused_as) in [
        (file(true, false, None), Binary),
        (file(false, true, None), LfsPointer),
        (file(false, false, Some(false)), SecretFound),
    ] {
        assert_eq!(kind("", None, &change), Some(refused_as));
        assert_eq!(kind(open, None, &change), None);
        assert_eq!(
            kind(open, Some("limits: {max_files_changed: 3}\n"), &change),
            None,
            "it says nothing of it"
        );
        let closed = "allow_binary: []\nallow_lfs: []\nallow_secrets: []\n";
        assert_eq!(kind(open, Some(closed), &change), Some(refused_as));
        assert_eq!(kind("", Some(open), &change), Some(refused_as));
    }
    assert_eq!(
        kind(open, None, &file(false, false, Some(true))),
        Some(SecretFound),
        "no policy allows our own"
    );
    let removed = Change {
        before: change("x", Some(Mode::Regular), None).before,
        after: None,
        ..file(true, false, None)
    };
    assert_eq!(kind("", None, &removed), None, "what goes brings nothing");
}

fn rules(task: &str) -> PathRules {
    let spec = spec_with(None);
    PathRules::for_task(&spec, spec.backlog.task(&task_id(task)).expect("a task of the backlog"))
}

fn spec_with(operator_policy: Option<&str>) -> TargetSpec {
    spec_of(POLICY, operator_policy)
}

fn spec_of(policy: &str, operator_policy: Option<&str>) -> TargetSpec {
    let document = |file, text: &'static str| Document { file, content: Some(text.as_bytes()) };
    let documents = Documents {
        contract: document("contract.yaml", CONTRACT),
        backlog: document("backlog.yaml", BACKLOG),
        policy: Document { file: "policy.yaml", content: Some(policy.as_bytes()) },
        operator_policy: operator_policy
            .map(|text| Document { file: "operator.yaml", content: Some(text.as_bytes()) }),
    };
    TargetSpec::parse(commit('a'), &documents).unwrap_or_else(|problems| panic!("{problems}"))
}

#[expect(clippy::result_large_err, reason = "as in `permit` itself")]
fn permit(
    changes: Vec<Change>,
    irregularities: Vec<Irregularity>,
    patch_bytes: u64,
) -> Result<leviathan_model::PermittedChange, leviathan_model::Refused> {
    let set = ChangeSet::new(commit('a'), commit('b'), changes, irregularities, patch_bytes);
    set.permit(&rules("api"), &Limits::default())
}

fn change(path: &str, before: Option<Mode>, after: Option<Mode>) -> Change {
    let entry = |mode, digit: char| Entry {
        mode,
        object: ObjectId::parse(digit.to_string().repeat(40)).expect("forty digits"),
        size: 10,
    };
    Change {
        path: path_of(path),
        before: before.map(|mode| entry(mode, '1')),
        after: after.map(|mode| entry(mode, '2')),
        is_binary: false,
        added_lines: 1,
        removed_lines: 0,
        is_lfs_pointer: false,
        secrets: Vec::new(),
    }
}

fn report(name: &str, check: &str, at: char, outcome: CheckOutcome) -> InvariantReport {
    InvariantReport {
        name: name.to_owned(),
        check: check.to_owned(),
        commit: commit(at),
        outcome,
        duration_ms: 1,
        log: Digest::of(b""),
        log_bytes: 0,
    }
}

fn kinds(violations: &[Violation]) -> Vec<(&str, ViolationKind)> {
    violations.iter().map(|violation| (violation.path.as_str(), violation.kind)).collect()
}

fn commit(digit: char) -> CommitId {
    CommitId::parse(digit.to_string().repeat(40)).expect("forty digits")
}

fn task_id(text: &str) -> TaskId {
    TaskId::parse(text).expect("a task id")
}

fn path_of(text: &str) -> RepoPath {
    RepoPath::parse(text).expect("a path")
}
