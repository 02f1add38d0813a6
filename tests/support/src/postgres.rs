//! A PostgreSQL server of a test's own: its data in a temporary folder, reached by a socket in it, gone when dropped.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to be ready.
const START: Duration = Duration::from_secs(60);

/// A running server. Every role is trusted; only this user can reach the socket.
pub struct Postgres {
    folder: TempDir,
    programs: PathBuf,
    user: Option<(u32, u32)>,
    server: Mutex<Option<Child>>,
    databases: AtomicU32,
}

impl Postgres {
    /// Makes a new, empty server and waits until it is ready.
    ///
    /// # Panics
    ///
    /// When PostgreSQL is not installed or does not start.
    pub fn start() -> Self {
        let programs = programs();
        let folder = tempfile::Builder::new().prefix("pg-").tempdir().expect("a temporary folder");
        let user = unprivileged();
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid)).expect("root may give folders away");
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("the folder is ours");
        let server = Self { folder, programs, user, server: Mutex::new(None), databases: AtomicU32::new(0) };
        let made = server
            .program("initdb")
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(server.folder.path().join("data"))
            .output()
            .expect("initdb runs");
        assert!(made.status.success(), "initdb failed: {}", String::from_utf8_lossy(&made.stderr));
        server.restart();
        server
    }

    /// The URL of a database for a role.
    pub fn url(&self, role: &str, database: &str) -> String {
        let socket = self.folder.path().to_str().expect("a temporary path is text").replace('/', "%2F");
        format!("postgres://{role}@{socket}/{database}")
    }

    /// Makes an empty database that `owner` owns, making the role too.
    pub fn create_database(&self, owner: &str) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.create_role(owner);
        self.sql("postgres", "postgres", &format!("CREATE DATABASE {name} OWNER {owner}"))
            .expect("a new database");
        name
    }

    /// Makes a role that may log in and nothing else, unless it is there.
    pub fn create_role(&self, role: &str) {
        let is_there = format!("SELECT 1 FROM pg_roles WHERE rolname = '{role}'");
        if self.sql("postgres", "postgres", &is_there).expect("the roles can be read").is_empty() {
            self.sql("postgres", "postgres", &format!("CREATE ROLE {role} LOGIN")).expect("a new role");
        }
    }

    /// What `statement` answers, or how it is refused.
    ///
    /// # Errors
    ///
    /// The server's words.
    pub fn sql(&self, role: &str, database: &str, statement: &str) -> Result<String, String> {
        let output = self
            .program("psql")
            .args([
                "-X",
                "-A",
                "-t",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                role,
                "-d",
                database,
                "-c",
                statement,
            ])
            .arg("-h")
            .arg(self.folder.path())
            .output()
            .expect("psql runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Kills the server as a power cut would: SIGKILL to it and to each of its sessions, without a word to anybody.
    pub fn kill(&self) {
        let mut server = self.server.lock().expect("no test panics while it holds this");
        if let Some(mut server) = server.take() {
            let sessions = children(server.id());
            let _ = server.kill();
            // A session that outlives the server may still commit what it was asked for.
            if !sessions.is_empty() {
                let _ = Command::new("kill").arg("-KILL").args(&sessions).stderr(Stdio::null()).status();
            }
            let _ = server.wait();
        }
    }

    /// Starts the server again on the data that it has.
    ///
    /// # Panics
    ///
    /// When it does not come up in a minute.
    pub fn restart(&self) {
        let deadline = Instant::now() + START;
        loop {
            // Processes of a server that was killed may be there for an instant, and hold its memory.
            match self.try_start() {
                Ok(child) => {
                    *self.server.lock().expect("no test panics while it holds this") = Some(child);
                    return;
                }
                Err(said) => assert!(Instant::now() < deadline, "the server does not start:\n{said}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn try_start(&self) -> Result<Child, String> {
        let mut server = self.program("postgres");
        server.arg("-D").arg(self.folder.path().join("data")).arg("-k").arg(self.folder.path());
        for setting in
            ["listen_addresses=", "max_connections=60", "shared_buffers=16MB", "log_min_messages=warning"]
        {
            server.arg("-c").arg(setting);
        }
        let mut child = server
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("postgres runs");
        let mut log = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut said = String::new();
        loop {
            let before = said.len();
            if log.read_line(&mut said).unwrap_or(0) == 0 {
                let _ = child.wait();
                return Err(said);
            }
            if said[before..].contains("ready to accept connections") {
                break;
            }
        }
        // Whatever it says later must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Ok(child)
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command
            .current_dir(self.folder.path())
            .env_remove("PGOPTIONS")
            .env_remove("PGHOST")
            .env_remove("PGPORT");
        if let Some((uid, gid)) = self.user {
            // Clears the other groups as well.
            command.uid(uid).gid(gid);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // A server that is killed leaves a piece of shared memory behind; one that is told to stop at once does not.
        if let Ok(Some(server)) = self.server.get_mut() {
            let told = Command::new("kill").arg("-QUIT").arg(server.id().to_string()).status();
            let deadline = Instant::now() + Duration::from_secs(5);
            while told.is_ok() && Instant::now() < deadline && matches!(server.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self.kill();
    }
}

/// The processes that a process has started and not outlived.
fn children(pid: u32) -> Vec<String> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().map(str::to_owned).collect()
}

/// Where the programs of PostgreSQL are: on the `PATH`, or where Debian keeps them.
fn programs() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .collect();
    versions.sort();
    let is_fit = |folder: &PathBuf| ["initdb", "postgres", "psql"].iter().all(|it| folder.join(it).exists());
    std::env::split_paths(&path)
        .chain(versions.into_iter().rev())
        .find(is_fit)
        .expect("PostgreSQL is not installed: install the package `postgresql` (scripts/test.sh does it)")
}

/// PostgreSQL refuses to run as root: then it runs as `postgres`, or as `nobody`.
fn unprivileged() -> Option<(u32, u32)> {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !is_root {
        return None;
    }
    let users = fs::read_to_string(Path::new("/etc/passwd")).unwrap_or_default();
    let ids = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Some(ids("postgres").or_else(|| ids("nobody")).expect("there is a user `nobody`"))
}
