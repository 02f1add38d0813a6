//! The executor's subcommands by themselves, so that this crate's tests run real processes.

use std::collections::BTreeMap;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use leviathan_executor::contain::{self, Command, Containment, Limits, Program};
use leviathan_executor::fault::Fault;
use leviathan_executor::folder::AttemptFolder;
use leviathan_executor::sandbox::{self, Sandbox};
use leviathan_executor::work::{self, ClaudeAccess};
use model::AttemptId;
use model::secrets::Redactor;
use secrecy::SecretString;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["contain", ..] => contain::keeper_main(&arguments[1..]),
        ["run-contained", folder, line] => run_contained(Path::new(folder), line),
        ["executor", "--stage", "work"] => work(),
        [..] => ExitCode::from(2),
    }
}

/// Runs one command and waits for it: a caller that a test can kill.
fn run_contained(folder: &Path, line: &str) -> ExitCode {
    let command = Command {
        program: Program::Shell(line.to_owned()),
        directory: folder.to_owned(),
        scratch: folder.join("scratch"),
        environment: BTreeMap::new(),
        stdin: Vec::new(),
        log: folder.join("log"),
        stderr_log: None,
        limits: Limits::default(),
    };
    let containment = Containment::new(this_program(), BTreeMap::new());
    match runtime().block_on(containment.run(&command, pending())) {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(2),
    }
}

/// The work stage, told by its environment as the product's own program is.
fn work() -> ExitCode {
    let variable = |name: &str| std::env::var(name).ok();
    let required = |name: &str| variable(name).expect("the test sets every variable");
    let attempt = AttemptId::parse(required("LEVIATHAN_ATTEMPT_ID")).expect("the test names an attempt");
    let profile = variable(sandbox::PROFILE_VARIABLE).map(|it| it.parse().expect("the test names a profile"));
    let profile = profile.unwrap_or_default();
    let private_hosts = variable(sandbox::PRIVATE_HOSTS_VARIABLE).unwrap_or_default();
    let private_hosts = private_hosts.split(',').filter(|host| !host.is_empty());
    let private_hosts = private_hosts.map(|host| host.parse().expect("the test names a host")).collect();
    let namespaces = variable(sandbox::WITHOUT_NAMESPACES_VARIABLE).is_none();
    runtime().block_on(work::main(work::Settings {
        folder: AttemptFolder::new(Path::new(&required("LEVIATHAN_DATA_DIR")), &attempt),
        program: this_program(),
        environment: BTreeMap::new(),
        sandbox: Sandbox { profile, namespaces, private_hosts, ..Sandbox::default() },
        claude: ClaudeAccess {
            api_key: variable("ANTHROPIC_API_KEY").map(SecretString::from),
            prices: variable("LEVIATHAN_MODEL_PRICES"),
            ..ClaudeAccess::default()
        },
        redactor: Redactor::new(variable("ANTHROPIC_API_KEY").as_deref()),
        fault: Fault::at(variable("LEVIATHAN_FAULT")),
        clock: jiff::Timestamp::now,
    }))
}

fn this_program() -> PathBuf {
    std::env::current_exe().expect("a running program has a path")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Runtime::new().expect("a runtime can be made")
}
