//! `leviathan attack` and `leviathan doctor` on this machine: with and without namespaces, as this user and as an
//! ordinary one.
#![expect(clippy::unwrap_used, reason = "a failed expectation ends its test")]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use executor::attack::ATTACKS;
use executor::contain::landlock;
use serde_json::Value;
use tempfile::TempDir;

const NOBODY: u32 = 65534;

/// Our program where every user can run it, and a folder in which every user can make files.
struct Place {
    folder: TempDir,
    /// Several bombs at once would measure the machine and not the walls.
    _alone: MutexGuard<'static, ()>,
}

static ALONE: Mutex<()> = Mutex::new(());

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let program = folder.path().join("leviathan");
        std::fs::copy(env!("CARGO_BIN_EXE_leviathan"), &program).unwrap();
        std::fs::set_permissions(program, PermissionsExt::from_mode(0o755)).unwrap();
        Self { folder, _alone: ALONE.lock().unwrap_or_else(PoisonError::into_inner) }
    }

    fn run(&self, user: Option<u32>, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.folder.path().join("leviathan"));
        command.args(arguments).env_clear().env("TMPDIR", self.folder.path()).current_dir(self.folder.path());
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        command.output().unwrap()
    }

    fn attack(&self, user: Option<u32>, arguments: &[&str]) -> Vec<Value> {
        let output = self.run(user, &[&["attack", "--json"], arguments].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        let findings: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(findings.len() > ATTACKS.len(), "{}", String::from_utf8_lossy(&output.stderr));
        let rows: Vec<u64> = findings.iter().map(|finding| finding["row"].as_u64().unwrap()).collect();
        assert_eq!(rows, (1..=findings.len() as u64).collect::<Vec<_>>());
        findings
    }

    /// Whether this machine can make namespaces.
    fn has_namespaces(&self) -> bool {
        self.run(None, &["doctor", "--sandbox", "strict"]).status.success()
    }
}

/// This user, and an ordinary one if this is root.
fn users() -> Vec<Option<u32>> {
    let is_root = this_user() == 0;
    if is_root { vec![None, Some(NOBODY)] } else { vec![None] }
}

fn this_user() -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").unwrap().uid()
}

/// Signals are kept inside by namespaces, or by landlock from its ABI 6.
fn is_expected(finding: &Value, with_namespaces: bool) -> bool {
    let signals = ["signal-victim", "signal-keeper"].contains(&finding["attack"].as_str().unwrap());
    let scopes = landlock::version().is_some_and(|version| version >= landlock::SCOPES_ABI);
    finding["outcome"] == "stopped" || (signals && !with_namespaces && !scopes)
}

#[test]
fn every_attack_is_stopped_with_and_without_namespaces_and_for_every_user() {
    let place = Place::new();
    let has_namespaces = place.has_namespaces();
    for user in users() {
        for arguments in [&[][..], &["--without-namespaces"]] {
            let with_namespaces = arguments.is_empty() && has_namespaces;
            for finding in place.attack(user, arguments) {
                assert!(is_expected(&finding, with_namespaces), "{user:?} {arguments:?} {finding}");
            }
        }
    }
}

#[test]
fn without_a_sandbox_attacks_succeed_and_the_answer_is_no() {
    let place = Place::new();
    let output = place.run(None, &["attack", "--json", "--sandbox", "none", "--i-understand-no-sandbox"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    for attack in ["read-outside", "write-outside", "tcp", "pathname-unix", "victim-environ"] {
        let line = text.lines().find(|line| line.contains(&format!("\"attack\":\"{attack}\""))).unwrap();
        assert!(line.contains("\"outcome\":\"succeeded\""), "{line}");
    }
}

#[test]
fn no_sandbox_is_never_taken_by_accident() {
    let place = Place::new();
    let output = place.run(None, &["doctor", "--sandbox", "none"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--i-understand-no-sandbox"));
}

#[test]
fn the_doctor_names_every_layer() {
    let place = Place::new();
    let output = place.run(None, &["doctor", "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.success(), said["holds"] == true);
    let names: Vec<&str> =
        said["sandbox"]["layers"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    let expected = ["environment", "limits", "privileges", "processes", "namespaces", "landlock", "seccomp"];
    assert_eq!(names, expected);
}

const BEGIN: &str = "<!-- generated: attacks -->\n";
const END: &str = "<!-- end -->";

#[test]
fn the_table_in_docs_is_what_is_found_here() {
    let place = Place::new();
    let scopes = landlock::version().is_some_and(|version| version >= landlock::SCOPES_ABI);
    let is_complete = scopes && place.has_namespaces();
    let path = docs();
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (table, after) = rest.split_once(END).unwrap();
    if std::env::var_os("UPDATE").is_some() {
        assert!(is_complete, "the table is made on a machine with bubblewrap and landlock's ABI 6");
        let table = render(&place.attack(None, &[]), &place.attack(None, &["--without-namespaces"]));
        std::fs::write(path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    } else if is_complete {
        let found = render(&place.attack(None, &[]), &place.attack(None, &["--without-namespaces"]));
        assert_eq!(table, found, "UPDATE=1 writes it anew");
    } else {
        // Which layer stops an attack depends on the machine, and which attacks there are does not.
        for finding in place.attack(None, &["--without-namespaces"]) {
            let (attack, does) = (finding["attack"].as_str().unwrap(), finding["does"].as_str().unwrap());
            assert!(table.contains(&format!("| `{attack}` | {does} |")), "{attack}");
        }
    }
}

fn render(with: &[Value], without: &[Value]) -> String {
    fn word<'a>(finding: &'a Value, field: &str) -> &'a str {
        finding[field].as_str().unwrap_or_default()
    }
    let is_walled = |finding: &Value| ["sandbox", "secrets", "network"].contains(&word(finding, "group"));
    let mut table =
        "| attack | an agent's command … | stopped with namespaces by | without |\n|---|---|---|---|\n"
            .to_owned();
    for (with, without) in with.iter().zip(without).filter(|(finding, _)| is_walled(finding)) {
        let (attack, does) = (word(with, "attack"), word(with, "does"));
        table += &format!("| `{attack}` | {does} | {} | {} |\n", word(with, "by"), word(without, "by"));
    }
    table += "\n| attack | an agent … | refused by the gate as |\n|---|---|---|\n";
    for finding in with.iter().filter(|finding| word(finding, "group") == "gate") {
        let (attack, does) = (word(finding, "attack"), word(finding, "does"));
        table += &format!("| `{attack}` | {does} | {} |\n", word(finding, "detail"));
    }
    table += "\n| attack | somebody outside … | refused by the rules for |\n|---|---|---|\n";
    for finding in with.iter().filter(|finding| word(finding, "group") == "inputs") {
        let (attack, does) = (word(finding, "attack"), word(finding, "does"));
        table += &format!("| `{attack}` | {does} | {} |\n", word(finding, "by"));
    }
    table
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/security.md")
}

#[test]
fn hosts_and_folders_that_are_none_are_refused_and_nothing_is_nothing() {
    let place = Place::new();
    let doctor = |variable: &str, value: &str| {
        let mut command = Command::new(place.folder.path().join("leviathan"));
        command.arg("doctor").env_clear().env("TMPDIR", place.folder.path()).env(variable, value);
        command.output().unwrap()
    };
    for (variable, value) in
        [("LEVIATHAN_PRIVATE_HOSTS", "https://mirror"), ("LEVIATHAN_SANDBOX_READ", "/opt:tools")]
    {
        let refused = doctor(variable, value);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && said.contains(variable), "{said}");
        assert_eq!(doctor(variable, "").status.code(), place.run(None, &["doctor"]).status.code());
    }
}
