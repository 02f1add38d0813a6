//! The documents of a commit, read from its objects.

use leviathan_target::Repository;
use leviathan_target::spec::{Registered, SpecError, read};
use model::CommitId;
use model::documents::{Document, TargetSpec};
use test_support::repository::{Entry, Origin};

use crate::ground::git;

pub(crate) const CONTRACT: &str = "target_id: my-repo\nname: My Repository\nrepo_url: git@github.com:owner/my-repo.git\ndefault_branch: main\n";
pub(crate) const BACKLOG: &str = "tasks:\n  - task_id: task-001\n    title: \"One\"\n    scope: source\n    priority: high\n    estimated_size: small\n    allowed_paths:\n      - src/a.py\n    acceptance_criteria:\n      - \"It works\"\n    status: pending\n\n  - task_id: task-002   # the second\n    title: Two\n    scope: source\n    allowed_paths: [src/b.py]\n    status: \"pending\"\n";
pub(crate) const POLICY: &str = "scopes:\n  source:\n    allowed_paths:\n      - \"src/**\"\ninvariants:\n  - name: Tests pass\n    check: \"true\"\n";

pub(crate) fn governed() -> Origin {
    Origin::with_files(&[
        (".leviathan/contract.yaml", CONTRACT),
        (".leviathan/backlog.yaml", BACKLOG),
        (".leviathan/policy.yaml", POLICY),
        ("src/a.py", "a = 1\n"),
    ])
}

fn spec_of(origin: &Origin, registered: Registered<'_>) -> Result<TargetSpec, SpecError> {
    let repository = Repository::open(&git(), origin.dir()).unwrap();
    read(&repository, &CommitId::parse(origin.resolve("main").unwrap()).unwrap(), registered)
}

#[test]
fn the_three_documents_are_read_from_the_commit() {
    let spec = spec_of(&governed(), Registered::default()).unwrap();
    assert_eq!(spec.contract.target_id.as_str(), "my-repo");
    assert_eq!(spec.backlog.tasks.len(), 2);
    assert_eq!(spec.policy.invariants.len(), 1);
}

#[test]
fn a_registered_contract_stands_in_and_a_registered_policy_tightens() {
    let origin = governed();
    origin.commit("main", "no contract", &[Entry::removed(".leviathan/contract.yaml")]);
    let missing = spec_of(&origin, Registered::default()).unwrap_err().to_string();
    assert!(missing.contains(".leviathan/contract.yaml"), "{missing}");
    let contract = Document { file: "targets/my-repo.yaml", content: Some(CONTRACT.as_bytes()) };
    let policy = Document { file: "operator.yaml", content: Some(b"limits:\n  max_files_changed: 1\n") };
    let registered = Registered { contract: Some(contract), policy: Some(policy), backlog: None };
    let spec = spec_of(&origin, registered).unwrap();
    assert_eq!(spec.policy.limits.max_files_changed, 1);
    assert!(spec.digests.operator_policy.is_some());
}

#[test]
fn a_registered_backlog_is_used_only_while_the_repository_holds_none() {
    let origin = governed();
    let registered = |text: &'static str| Registered {
        backlog: Some(Document { file: "registered backlog", content: Some(text.as_bytes()) }),
        ..Registered::default()
    };
    let spec = spec_of(&origin, registered("tasks: []\n")).unwrap();
    assert_eq!((spec.backlog.tasks.len(), spec.backlog_is_registered), (2, false));
    origin.commit("main", "no backlog", &[Entry::removed(".leviathan/backlog.yaml")]);
    let missing = spec_of(&origin, Registered::default()).unwrap_err().to_string();
    assert!(missing.contains(".leviathan/backlog.yaml"), "{missing}");
    let spec = spec_of(&origin, registered(BACKLOG)).unwrap();
    assert_eq!((spec.backlog.tasks.len(), spec.backlog_is_registered), (2, true));
    let broken = spec_of(&origin, registered("tasks: 3\n")).unwrap_err().to_string();
    assert!(broken.contains("registered backlog:1:8"), "{broken}");
    // What the repository holds is never passed over, however broken it is.
    origin.commit("main", "a broken backlog", &[Entry::file(".leviathan/backlog.yaml", "tasks: 3\n")]);
    assert!(spec_of(&origin, registered(BACKLOG)).is_err());
}

#[test]
fn what_is_no_document_is_an_answer_with_its_path() {
    type Expectation = fn(&SpecError) -> bool;
    let path = ".leviathan/backlog.yaml";
    let rows: [(Entry, Expectation); 4] = [
        (Entry::symlink(path, "/etc/passwd"), |e| matches!(e, SpecError::NotAFile { .. })),
        (Entry::gitlink(path, &"1".repeat(40)), |e| matches!(e, SpecError::NotAFile { .. })),
        (Entry::file(path, "x".repeat((1 << 20) + 1)), |e| matches!(e, SpecError::TooLarge { .. })),
        (Entry::file(path, "tasks: 3\n"), |e| matches!(e, SpecError::Problems(_))),
    ];
    for (entry, is_expected) in rows {
        let origin = governed();
        origin.commit("main", "bad", std::slice::from_ref(&entry));
        let error = spec_of(&origin, Registered::default()).unwrap_err();
        assert!(is_expected(&error) && error.to_string().contains(path), "{entry:?}: {error}");
    }
}

#[test]
fn the_repository_cannot_lead_the_operators_credentials_elsewhere() {
    let registered = Document { file: "registered", content: Some(CONTRACT.as_bytes()) };
    let registered = Registered { contract: Some(registered), ..Registered::default() };
    let rows = [
        ("repo_url", CONTRACT.replace("git@github.com:owner", "https://elsewhere.example/owner")),
        ("repo_url", CONTRACT.replace("my-repo.git", "other.git")),
        ("default_branch", CONTRACT.replace("main", "open")),
        ("target_id", CONTRACT.replace("target_id: my-repo", "target_id: other")),
    ];
    for (expected, contract) in rows {
        let origin = governed();
        origin.commit("main", "elsewhere", &[Entry::file(".leviathan/contract.yaml", contract)]);
        match spec_of(&origin, registered) {
            Err(SpecError::OtherContract { field, .. }) => assert_eq!(field, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
    let origin = governed();
    let same = CONTRACT.replace("git@github.com:", "https://github.com/");
    origin.commit("main", "the same by another way", &[Entry::file(".leviathan/contract.yaml", same)]);
    assert!(spec_of(&origin, registered).is_ok());
}
