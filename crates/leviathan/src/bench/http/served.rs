//! A server in a process of its own, and what it costs the processors.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, ensure};
use api::Client;
use secrecy::SecretString;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

pub(super) const TOKEN: &str = "token-of-the-benchmark";

/// In `/proc` times are told in hundredths of a second, on every machine that this runs on.
const TICKS: f64 = 100.0;

/// The process; killed when this is dropped.
pub(super) struct Served {
    child: Child,
    address: String,
    client: Client,
    /// What it keeps.
    data: TempDir,
}

impl Served {
    /// A control plane with an empty log in files.
    pub(super) async fn control_plane() -> anyhow::Result<Self> {
        Self::start(&["control-plane", "--listen", "127.0.0.1:0", "--backend", "ndjson"]).await
    }

    /// An endpoint that only parses.
    pub(super) async fn only_parse() -> anyhow::Result<Self> {
        Self::start(&["bench", "http", "--only-parse"]).await
    }

    async fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        let data = tempfile::Builder::new().prefix("leviathan-bench-").tempdir()?;
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut child = command(&program, data.path(), arguments).spawn().context("cannot start a server")?;
        let said = child.stdout.take().context("its output is piped")?;
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line).await?;
        let url =
            line.trim().strip_prefix("Listening on ").context("a server did not say where it listens")?;
        let client = Client::new(url, SecretString::from(TOKEN))?;
        let address = url.trim_start_matches("http://").to_owned();
        Ok(Self { child, address, client, data })
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// HOST:PORT.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// What the process took of the processors since its start, for itself and in the kernel.
    pub(super) fn processor_seconds(&self) -> anyhow::Result<f64> {
        let id = self.child.id().context("the server ended")?;
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).context("the server ended")?;
        // The name of the program, in parentheses, may hold anything.
        let (_, rest) = stat.rsplit_once(") ").context("/proc has another form")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok());
        let (user, system) = ticks(11).zip(ticks(12)).context("/proc has another form")?;
        Ok((user + system) / TICKS)
    }

    /// Ends the process and removes what it kept.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        ensure!(self.child.try_wait()?.is_none(), "the server ended before it was told to");
        self.child.kill().await?;
        Ok(self.data.close()?)
    }
}

fn command(program: &Path, data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("LEVIATHAN_CONTROL_PLANE_TOKEN", TOKEN)
        .env("LEVIATHAN_DATA_DIR", data)
        .env("LEVIATHAN_LOG", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}
