//! `init`, `check` and `explain` as their users see them: complete output and exit code of the built binary.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

const CONTRACT: &str = "\
target_id: shop
name: Shop
repo_url: git@github.com:acme/shop.git
default_branch: main
";

const BACKLOG: &str = "\
tasks:
  - task_id: task-001
    title: Update dependencies
    scope: dependencies
    allowed_paths:
      - requirements.txt
      - conftest.py
";

const POLICY: &str = "\
scopes:
  dependencies:
    allowed_paths:
      - requirements.txt
      - \"*.py\"
    forbidden_patterns:
      - src/**
invariants:
  - name: Tests pass
    check: pytest tests/
";

#[test]
fn check_says_what_the_documents_hold() {
    let target = target(CONTRACT, BACKLOG, POLICY);
    insta::assert_snapshot!(run(target.path(), &["check"]), @r##"
.leviathan/backlog.yaml:7:9: warning: the path is denied all the same: `conftest.py`: it steers the checks or runs by itself: it may be changed only when the task and the scope name it literally, and the scope `dependencies` does not: protected **/conftest.py (built in)
ok: target shop with 1 task, 1 scope and 1 invariant; 1 warning
exit code: 0
"##);
}

#[test]
fn check_reports_every_problem_of_every_document() {
    let backlog = BACKLOG.replace("title:", "titel:").replace("scope: dependencies", "scope: dependency");
    let policy = POLICY.replace("\"*.py\"", "/etc/*.py").replace("pytest tests/", "pytest || true");
    let target = target("target_id: shop\n", &backlog, &policy);
    insta::assert_snapshot!(run(target.path(), &["check"]), @r##"
.leviathan/backlog.yaml:2:5: problem: a task has no `title`; expected the field `title`
.leviathan/backlog.yaml:3:5: problem: `titel` is no field of a task; expected `acceptance_criteria`, `agent`, `allowed_paths`, `blocked_reason`, `depends_on`, `description`, `estimated_size`, `max_attempts`, `priority`, `scope`, `status`, `task_id`, `timeout` or `title`; hint: did you mean `title`?
.leviathan/backlog.yaml:4:12: problem: `scope` is `dependency`; expected a scope of the policy: `dependencies`; hint: did you mean `dependencies`?
.leviathan/contract.yaml:1:1: problem: the contract has no `default_branch`; expected the field `default_branch`
.leviathan/contract.yaml:1:1: problem: the contract has no `name`; expected the field `name`
.leviathan/contract.yaml:1:1: problem: the contract has no `repo_url`; expected the field `repo_url`
.leviathan/policy.yaml:5:9: problem: an item of allowed_paths: the pattern `/etc/*.py` is refused: it begins with `/`; patterns are relative to the root of the repository
.leviathan/policy.yaml:10:12: warning: the command ignores its failure: this check cannot fail; hint: remove what follows the `||` or the last `;`
stderr: 7 problems; 1 warning
exit code: 1
"##);
}

#[test]
fn check_of_a_folder_without_documents_names_the_next_step() {
    let empty = TempDir::new().unwrap();
    insta::assert_snapshot!(run(empty.path(), &["check"]), @r##"
.leviathan/backlog.yaml:1:1: problem: there is no such file; hint: `leviathan init` writes the three documents
.leviathan/contract.yaml:1:1: problem: there is no such file; hint: `leviathan init` writes the three documents
.leviathan/policy.yaml:1:1: problem: there is no such file; hint: `leviathan init` writes the three documents
stderr: 3 problems; 0 warnings
exit code: 1
"##);
    insta::assert_snapshot!(run(empty.path(), &["check", "nowhere"]), @r##"
stderr: leviathan: there is no folder nowhere
exit code: 2
"##);
}

#[test]
fn check_reads_no_document_without_end() {
    let target = target(CONTRACT, BACKLOG, POLICY);
    let policy = target.path().join(".leviathan/policy.yaml");
    fs::remove_file(&policy).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &policy).unwrap();
    insta::assert_snapshot!(run(target.path(), &["check"]), @r##"
stderr: leviathan: cannot read .leviathan/policy.yaml: it is not a plain file
exit code: 2
"##);
}

#[test]
fn check_applies_an_operators_policy() {
    let target = target(CONTRACT, BACKLOG, POLICY);
    fs::write(target.path().join("operator.yaml"), "scopes: {dependencies: {allowed_path: []}}\n").unwrap();
    insta::assert_snapshot!(run(target.path(), &["check", "--operator-policy", "operator.yaml"]), @r##"
operator.yaml:1:25: problem: `allowed_path` is no field of a scope; expected `allowed_paths`, `description` or `forbidden_patterns`; hint: did you mean `allowed_paths`?
.leviathan/backlog.yaml:6:9: warning: the path is denied all the same: `requirements.txt`: the operator's scope `dependencies` allows no path at all
.leviathan/backlog.yaml:7:9: warning: the path is denied all the same: `conftest.py`: it steers the checks or runs by itself: it may be changed only when the task and the scope name it literally, and the scope `dependencies` does not: protected **/conftest.py (built in)
stderr: 1 problem; 2 warnings
exit code: 1
"##);
}

#[test]
fn explain_names_the_rule_for_each_path() {
    let target = target(CONTRACT, BACKLOG, POLICY);
    let paths =
        ["requirements.txt", "conftest.py", "src/app.py", ".leviathan/policy.yaml", "a/../b", "x\u{1b}[31m"];
    let arguments = [["explain", "--task", "task-001"].as_slice(), paths.as_slice()].concat();
    insta::assert_snapshot!(run(target.path(), &arguments), @r##"
permitted	requirements.txt	allowed_paths requirements.txt (.leviathan/backlog.yaml:6) and allowed_paths requirements.txt (.leviathan/policy.yaml:4)
denied	conftest.py	protected **/conftest.py (built in): it steers the checks or runs by itself: it may be changed only when the task and the scope name it literally, and the scope `dependencies` does not
denied	src/app.py	forbidden_patterns src/** (.leviathan/policy.yaml:7): a forbidden pattern of the scope matches the path
denied	.leviathan/policy.yaml	never .leviathan/** (built in): Leviathan never changes this path, whatever allows it
denied	a/../b	the path `a/../b` is refused: Relative components '.' and '..' are disallowed
denied	x\u{1b}[31m	the path `x\u{1b}[31m` is refused: it holds the control or invisible character U+001B
exit code: 1
"##);
    insta::assert_snapshot!(
        run(target.path(), &["explain", "--task", "task-001", "requirements.txt"]), @r##"
permitted	requirements.txt	allowed_paths requirements.txt (.leviathan/backlog.yaml:6) and allowed_paths requirements.txt (.leviathan/policy.yaml:4)
exit code: 0
"##
    );
    insta::assert_snapshot!(run(target.path(), &["explain", "--task", "task-009", "a"]), @r##"
stderr: the backlog has no task `task-009`
exit code: 1
"##);
}

#[test]
fn init_writes_documents_that_pass_the_check_and_never_overwrites() {
    let folder = TempDir::new().unwrap();
    git(folder.path(), &["init", "-q", "-b", "trunk"]);
    git(folder.path(), &["remote", "add", "origin", "https://github.com/acme/Shop.Api.git"]);
    insta::assert_snapshot!(run(folder.path(), &["init"]), @r##"
wrote .leviathan/contract.yaml
wrote .leviathan/backlog.yaml
wrote .leviathan/policy.yaml
wrote .leviathan/schemas/contract.schema.json
wrote .leviathan/schemas/backlog.schema.json
wrote .leviathan/schemas/policy.schema.json
next: fill in the places marked TODO, then run `leviathan check`
exit code: 0
"##);
    insta::assert_snapshot!(run(folder.path(), &["check"]), @r##"
ok: target Shop-Api with 0 tasks, 1 scope and 1 invariant; 0 warnings
exit code: 0
"##);
    insta::assert_snapshot!(run(folder.path(), &["init"]), @r##"
stderr: leviathan: .leviathan/contract.yaml is there already; nothing was written
exit code: 2
"##);

    let contract = fs::read_to_string(folder.path().join(".leviathan/contract.yaml")).unwrap();
    for line in [
        "# yaml-language-server: $schema=./schemas/contract.schema.json",
        "target_id: Shop-Api",
        "name: \"Shop.Api\"",
        "repo_url: https://github.com/acme/Shop.Api.git",
        "default_branch: trunk",
    ] {
        assert!(contract.lines().any(|found| found == line), "{line} in:\n{contract}");
    }
}

#[test]
fn init_outside_of_git_leaves_a_place_to_fill_in() {
    let folder = TempDir::new().unwrap();
    let project = folder.path().join("my project");
    fs::create_dir(&project).unwrap();
    insta::assert_snapshot!(run(&project, &["init", "--help"]), @r##"
Write the three documents of a target into a repository

Usage: leviathan init [DIR]

Arguments:
  [DIR]  The repository to make a target [default: .]

Options:
  -h, --help  Print help
exit code: 0
"##);
    run(&project, &["init"]);
    insta::assert_snapshot!(run(&project, &["check"]), @r##"
ok: target my-project with 0 tasks, 1 scope and 1 invariant; 0 warnings
exit code: 0
"##);
    let contract = fs::read_to_string(project.join(".leviathan/contract.yaml")).unwrap();
    assert!(contract.contains("repo_url: https://github.com/owner/my-project.git # TODO"), "{contract}");
}

fn target(contract: &str, backlog: &str, policy: &str) -> TempDir {
    let target = TempDir::new().expect("a temporary folder");
    let folder = target.path().join(".leviathan");
    fs::create_dir(&folder).expect("the folder");
    for (name, text) in [("contract", contract), ("backlog", backlog), ("policy", policy)] {
        fs::write(folder.join(format!("{name}.yaml")), text).expect("a document");
    }
    target
}

/// What the user sees: both outputs and the exit code.
fn run(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_leviathan"))
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_CEILING_DIRECTORIES", "/")
        .output()
        .expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    format!(
        "{}{}exit code: {}",
        text(output.stdout),
        text(output.stderr).lines().map(|line| format!("stderr: {line}\n")).collect::<String>(),
        output.status.code().expect("no signal")
    )
}

fn git(directory: &Path, arguments: &[&str]) {
    let status = Command::new("git").args(arguments).current_dir(directory).status().expect("git runs");
    assert!(status.success());
}

#[test]
fn init_names_a_repository_of_this_machine_by_its_url() {
    let folder = TempDir::new().unwrap();
    git(folder.path(), &["init", "-q", "-b", "main"]);
    git(folder.path(), &["remote", "add", "origin", "/srv/git/shop.git"]);
    run(folder.path(), &["init"]);
    let contract = fs::read_to_string(folder.path().join(".leviathan/contract.yaml")).unwrap();
    assert!(contract.contains("repo_url: file:///srv/git/shop.git\n"), "{contract}");
}
