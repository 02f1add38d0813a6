//! An installation of Leviathan for stories: the built programs, a data folder, a bare repository as the
//! target, and a human who merges. Nothing here calls our crates; a story sees what an operator sees.

#![expect(clippy::unwrap_used, reason = "a story fails where it is told")]

pub mod kubelet;
pub mod manifests;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;
pub use test_support::repository::{Entry, MergeKind, Origin};

/// The operator's token in stories. Nothing but the programs' environment may ever hold it.
pub const TOKEN: &str = "story-operator-token";

/// How long a story waits for something that must happen.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// An installation with one target.
pub struct Installation {
    /// The bare repository that is operated.
    pub origin: Arc<Origin>,
    home: tempfile::TempDir,
    control_plane: Option<Program>,
    url: String,
    environment: Vec<(String, String)>,
}

/// A running program; killed when it is dropped.
pub struct Program {
    child: Child,
}

impl Installation {
    /// A control plane that runs, and a local repository with `files` in which `backlog`, `policy` and a contract
    /// lie under `.leviathan/`. The target is called `story` and is registered.
    pub fn new(files: &[(&str, &str)], backlog: &str, policy: &str) -> Self {
        let origin = Arc::new(Origin::empty());
        let url = origin.url();
        Self::at(origin, &url, files, backlog, policy)
    }

    /// The same on a repository that is reached at `repo_url`.
    pub fn at(
        origin: Arc<Origin>,
        repo_url: &str,
        files: &[(&str, &str)],
        backlog: &str,
        policy: &str,
    ) -> Self {
        let mut entries: Vec<Entry> =
            files.iter().map(|(path, content)| Entry::file(path, content)).collect();
        entries.push(Entry::file(".leviathan/contract.yaml", contract(repo_url)));
        entries.push(Entry::file(".leviathan/backlog.yaml", backlog));
        entries.push(Entry::file(".leviathan/policy.yaml", policy));
        origin.commit("main", "The repository as its humans made it", &entries);
        let mut installation = Self {
            origin,
            home: tempfile::tempdir().unwrap(),
            control_plane: None,
            url: String::new(),
            environment: Vec::new(),
        };
        installation.start_control_plane();
        let registered = installation.home.path().join("contract.yaml");
        std::fs::write(&registered, contract(repo_url)).unwrap();
        installation.ctl(&["targets-register", registered.to_str().unwrap()]).succeeded();
        installation
    }

    /// Sets a variable for every program started from now on.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Where the control plane listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// Starts the control plane on a free port, or on its former one after a kill.
    pub fn start_control_plane(&mut self) {
        let listen = self.url.strip_prefix("http://").unwrap_or("127.0.0.1:0").to_owned();
        let mut child = self
            .command("leviathan", &["control-plane", "--listen", &listen])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let mut lines = BufReader::new(stdout).lines();
        let line = lines.next().expect("the control plane says where it listens").unwrap();
        let start = line.find("http://").unwrap_or_else(|| panic!("no URL in {line:?}"));
        self.url = line[start..].split_whitespace().next().unwrap().trim_end_matches(['.', ',']).to_owned();
        // Whatever else it says is read, so that it never waits for a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        self.control_plane = Some(Program { child });
    }

    /// Kills the control plane as a power cut would.
    pub fn kill_control_plane(&mut self) {
        self.control_plane.take().expect("the control plane runs").kill();
    }

    /// One pass of the scheduler, with the attempts that it starts.
    pub fn pass(&self) -> Finished {
        self.leviathan(&["scheduler", "--once"])
    }

    /// Starts `leviathan` and leaves it running.
    pub fn start(&self, arguments: &[&str]) -> Program {
        let mut command = self.command("leviathan", arguments);
        Program { child: command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap() }
    }

    /// Runs `leviathan` to its end.
    pub fn leviathan(&self, arguments: &[&str]) -> Finished {
        Finished::of(&mut self.command("leviathan", arguments))
    }

    /// Runs `leviathanctl` to its end.
    pub fn ctl(&self, arguments: &[&str]) -> Finished {
        Finished::of(&mut self.command("leviathanctl", arguments))
    }

    /// What `leviathanctl --output json` answers.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--output", "json"];
        all.extend(arguments);
        let finished = self.ctl(&all).succeeded();
        serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {}", finished.stdout))
    }

    /// Every event, oldest first, as the API gives them.
    pub fn events(&self) -> Vec<Value> {
        let mut events = Vec::new();
        let mut after = 0;
        loop {
            let page = self.get(&format!("/v1/events?after={after}&limit=5000"));
            events.extend(page["events"].as_array().unwrap().iter().cloned());
            after = page["next_after"].as_u64().unwrap();
            if after >= page["head"].as_u64().unwrap() {
                return events;
            }
        }
    }

    /// The types of all events about one task, oldest first.
    pub fn event_types(&self, task: &str) -> Vec<String> {
        let of_task = |event: &&Value| event["task_id"] == task;
        self.events()
            .iter()
            .filter(of_task)
            .map(|event| event["event_type"].as_str().unwrap().to_owned())
            .collect()
    }

    /// What the API answers to a GET.
    pub fn get(&self, path: &str) -> Value {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        runtime.block_on(async {
            let request = reqwest::Client::new().get(format!("{}{path}", self.url)).bearer_auth(TOKEN);
            request.send().await.unwrap().json().await.unwrap()
        })
    }

    /// The backlog on the default branch.
    pub fn backlog(&self) -> String {
        String::from_utf8(self.origin.read("main", ".leviathan/backlog.yaml").unwrap()).unwrap()
    }

    /// A program of ours with this installation's environment and nothing else of this process's.
    pub fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program(name));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("LEVIATHAN_DATA_DIR", self.data())
            .env("LEVIATHAN_CONTROL_PLANE_TOKEN", TOKEN)
            .env("LEVIATHAN_CONTROL_PLANE_URL", &self.url)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.home.path())
            .stdin(Stdio::null());
        command
    }
}

/// The contract of every story.
pub fn contract(url: &str) -> String {
    format!("target_id: story\nname: Story\nrepo_url: {url}\ndefault_branch: main\n")
}

impl From<Child> for Program {
    fn from(child: Child) -> Self {
        Self { child }
    }
}

impl Program {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it as a power cut would, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for its end; `None` when it still runs after the stories' patience.
    pub fn ended(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status.code().unwrap_or(-1));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// What it wrote.
    pub stdout: String,
    /// What it complained.
    pub stderr: String,
}

impl Finished {
    /// Runs `command` to its end.
    pub fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.output().unwrap();
        Self {
            code: status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }
    }

    /// The same, if it ended well.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert_eq!(self.code, 0, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }
}

/// Asks until `condition` holds.
#[track_caller]
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "it never came to pass: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The built program `name`, beside the test that runs. Built first, so that a story never drives an old one.
pub fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let test = std::env::current_exe().unwrap();
        let profile = test.ancestors().nth(2).unwrap().to_owned();
        let mut build = Command::new(env!("CARGO"));
        // Of the whole workspace with its tests, and without what cargo tells a test about its package: what is built
        // is then the same as in the workspace's own run of the tests, and nothing is built twice.
        build.args(["test", "--quiet", "--workspace", "--no-run"]).current_dir(root());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_EXE_"].iter().any(|own| name.starts_with(own)) {
                build.env_remove(&*name);
            }
        }
        if profile.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "the programs must build before a story can drive them");
        profile
    });
    folder.join(name)
}

/// The repository's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// Everything below `folder` that is a file, with its content, for searches that must find nothing.
pub fn files_below(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(path),
                Ok(kind) if kind.is_file() => {
                    let mut content = Vec::new();
                    if let Ok(mut file) = std::fs::File::open(&path) {
                        let _ = file.read_to_end(&mut content);
                    }
                    found.push((path, content));
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
    found
}
