//! The self-test: what lies outside the walls for a probe to reach, and one run of all probes.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::future::pending;
use std::io;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::contain::probe::{self, Answer, Probe};
use crate::contain::{Command, Containment, End, Limits, Program, landlock};

/// Things outside the walls that no command may reach, alive as long as this value.
pub struct Canaries {
    folder: TempDir,
    sockets: TempDir,
    tcp: TcpListener,
    udp: std::net::UdpSocket,
    _path: UnixListener,
    _abstract: UnixListener,
    abstract_name: String,
}

/// What the secret file holds.
const CANARY: &[u8] = b"canary";

/// Why the walls are not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// They could not be put up, or the test could not be made.
    #[error("{0}")]
    NotWalled(String),
    /// A probe came through.
    #[error("{0}")]
    Escaped(String),
}

impl Canaries {
    /// Sets them out beneath `folder`.
    pub fn new(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let folder = tempfile::Builder::new().prefix("canaries-").tempdir_in(folder)?;
        std::fs::write(folder.path().join("secret"), CANARY)?;
        std::fs::create_dir(folder.path().join("tree"))?;
        // A socket's path is short, whatever the folder's is.
        let sockets = tempfile::Builder::new().prefix("canaries-").tempdir()?;
        let path = UnixListener::bind(sockets.path().join("socket"))?;
        let abstract_name = format!("leviathan-canary-{}", uuid::Uuid::new_v4());
        let abstract_socket = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&abstract_name)?)?;
        Ok(Self {
            folder,
            sockets,
            tcp: TcpListener::bind("127.0.0.1:0")?,
            udp: std::net::UdpSocket::bind("127.0.0.1:0")?,
            _path: path,
            _abstract: abstract_socket,
            abstract_name,
        })
    }

    /// Runs the self-test within the walls of `containment`.
    pub(super) async fn release(containment: &Containment, folder: &Path) -> Result<(), Failure> {
        let canaries = Self::new(folder)
            .map_err(|error| Failure::NotWalled(format!("the self-test cannot be set up: {error}")))?;
        let probes = canaries.self_test(containment.walls().bubblewrap().is_some());
        let answers = canaries.run(containment, &probes).await.map_err(Failure::NotWalled)?;
        let escaped = probes.iter().zip(&answers).find(|(probe, answer)| canaries.is_reached(probe, answer));
        match escaped {
            None => Ok(()),
            Some((probe, _)) => Err(Failure::Escaped(format!(
                "the self-test got through the layer `{}`: {}",
                guard(probe),
                describe(probe)
            ))),
        }
    }

    fn self_test(&self, has_namespaces: bool) -> Vec<Probe> {
        let ourselves = i32::try_from(std::process::id()).ok();
        let mut probes = vec![
            Probe::Write(self.outside()),
            Probe::Read(self.secret()),
            Probe::Tcp(self.tcp_port()),
            Probe::UnixPath(self.socket()),
            Probe::UnixAbstract(self.abstract_name().to_owned()),
            Probe::Trace(None),
            Probe::Trace(ourselves),
            Probe::Environment(ourselves),
            Probe::Unshare,
            Probe::Orphan(self.lock()),
        ];
        // Without namespaces a kernel before ABI 6 has no wall against signals, and the report says so. A command
        // that ends its keeper in this way fails for it.
        if has_namespaces || landlock::version().is_some_and(|abi| abi >= landlock::SCOPES_ABI) {
            probes.extend([Probe::Signal(None), Probe::Signal(ourselves)]);
        }
        probes
    }

    /// Has `probes` tried in a contained command, and returns an answer for each.
    pub async fn run(&self, containment: &Containment, probes: &[Probe]) -> Result<Vec<Answer>, String> {
        let program = containment.program();
        let containment = containment.clone().within(containment.walls().clone().reading(program));
        let command = self.command(Program::Direct(probe::command(program, probes)));
        let outcome = containment.run(&command, pending()).await.map_err(|error| error.to_string())?;
        if outcome.end != (End::Exited { code: 0 }) {
            return Err(format!("the self-test ended with {:?}", outcome.end));
        }
        let text = std::fs::read(&command.log).map_err(|error| error.to_string())?;
        let answers: Vec<Answer> = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
        if answers.len() == probes.len() {
            Ok(answers)
        } else {
            Err(format!("{} probes were tried and {} answered", probes.len(), answers.len()))
        }
    }

    /// A command in a tree beside the canaries.
    pub fn command(&self, program: Program) -> Command {
        Command {
            program,
            directory: self.tree(),
            scratch: self.folder.path().join("scratch"),
            environment: BTreeMap::new(),
            stdin: Vec::new(),
            log: self.folder.path().join("log"),
            stderr_log: Some(self.folder.path().join("errors")),
            limits: Limits { timeout: Duration::from_secs(30), ..Limits::default() },
        }
    }

    /// Whether a probe that got this answer reached what it wanted. What it wrote may have gone to a place of its own
    /// under the same name, so that only a look from outside tells.
    pub fn is_reached(&self, probe: &Probe, answer: &Answer) -> bool {
        match probe {
            Probe::Orphan(_) => self.has_orphan(),
            Probe::Write(path) => path.exists(),
            Probe::WriteByHardLink(path) => std::fs::read(path).is_ok_and(|text| text != CANARY),
            Probe::Read(_)
            | Probe::ReadByLink(_)
            | Probe::Tcp(_)
            | Probe::Udp(_)
            | Probe::Tunnel(_)
            | Probe::Family(_)
            | Probe::UnixPath(_)
            | Probe::UnixAbstract(_)
            | Probe::Environment(_)
            | Probe::Trace(_)
            | Probe::Memory(_)
            | Probe::Signal(_)
            | Probe::Unshare
            | Probe::Mount
            | Probe::Ring
            | Probe::Bpf
            | Probe::Keys
            | Probe::SetUser
            | Probe::CoreDumps
            | Probe::MapMemory(_)
            | Probe::LargeFile(_) => *answer == Answer::Succeeded,
        }
    }

    /// Whether the orphan of the last run still holds its lock.
    pub fn has_orphan(&self) -> bool {
        match File::open(self.lock()).map(|file| file.try_lock()) {
            Ok(Ok(())) => false,
            Ok(Err(TryLockError::WouldBlock | TryLockError::Error(_))) => true,
            // It did not even begin.
            Err(_) => false,
        }
    }

    /// The working directory of probes.
    pub fn tree(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    /// A file with a secret.
    pub fn secret(&self) -> PathBuf {
        self.folder.path().join("secret")
    }

    /// A file that does not exist, in a folder that does.
    pub fn outside(&self) -> PathBuf {
        self.folder.path().join("outside")
    }

    /// The lock of an orphan.
    pub fn lock(&self) -> PathBuf {
        self.tree().join("orphan")
    }

    /// A socket in the file system at which somebody listens.
    pub fn socket(&self) -> PathBuf {
        self.sockets.path().join("socket")
    }

    /// The name of an abstract socket at which somebody listens.
    pub fn abstract_name(&self) -> &str {
        &self.abstract_name
    }

    /// A port at which somebody listens.
    pub fn tcp_port(&self) -> u16 {
        self.tcp.local_addr().map(|address| address.port()).unwrap_or_default()
    }

    /// A port that takes datagrams.
    pub fn udp_port(&self) -> u16 {
        self.udp.local_addr().map(|address| address.port()).unwrap_or_default()
    }
}

/// The layer that stops a probe even when there are no namespaces.
fn guard(probe: &Probe) -> &'static str {
    match probe {
        Probe::Read(_)
        | Probe::Write(_)
        | Probe::ReadByLink(_)
        | Probe::WriteByHardLink(_)
        | Probe::Environment(_)
        | Probe::Signal(_) => "landlock",
        Probe::Tcp(_)
        | Probe::Udp(_)
        | Probe::Tunnel(_)
        | Probe::Family(_)
        | Probe::UnixPath(_)
        | Probe::UnixAbstract(_)
        | Probe::Trace(_)
        | Probe::Memory(_)
        | Probe::Unshare
        | Probe::Mount
        | Probe::Ring
        | Probe::Bpf
        | Probe::Keys => "seccomp",
        Probe::SetUser => "privileges",
        Probe::CoreDumps | Probe::MapMemory(_) | Probe::LargeFile(_) => "limits",
        Probe::Orphan(_) => "processes",
    }
}

fn describe(probe: &Probe) -> String {
    serde_json::to_string(probe).unwrap_or_default()
}
