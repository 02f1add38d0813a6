//! Attempts to break out, made from inside the walls by our own program.
//!
//! The self-test before an attempt and `leviathan attack` run the same probes. A probe does what an attacker would
//! do with the same call, and says what the system answered. It judges nothing.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket, socket_with, sockopt,
};
use rustix::process::{Pid, Signal, getppid, kill_process};
use serde::{Deserialize, Serialize};

use super::plan::KEEPER_ARGUMENT;
use super::way_out;

/// The argument, after [`KEEPER_ARGUMENT`], that makes our program try probes.
pub(super) const PROBE_ARGUMENT: &str = "probe";
/// The argument that makes our program an orphan that stays.
pub(super) const LINGER_ARGUMENT: &str = "linger";

/// Something that must not succeed inside the walls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// Read a file.
    Read(PathBuf),
    /// Make a file, in a folder that exists.
    Write(PathBuf),
    /// Read a file by a symbolic link that is made in the working directory.
    ReadByLink(PathBuf),
    /// Change a file by a hard link that is made in the working directory.
    WriteByHardLink(PathBuf),
    /// Connect to a port of the loopback address.
    Tcp(u16),
    /// Send a datagram to a port of the loopback address.
    Udp(u16),
    /// Ask the proxy for a tunnel to a place.
    Tunnel(String),
    /// Make a socket of this family, by its number.
    Family(i32),
    /// Connect to a socket in the file system.
    UnixPath(PathBuf),
    /// Connect to an abstract socket.
    UnixAbstract(String),
    /// Read the environment of a process: this one, or the parent.
    Environment(Option<i32>),
    /// Attach to a process: this one, or the parent.
    Trace(Option<i32>),
    /// Read the memory of a process: this one, or the parent.
    Memory(Option<i32>),
    /// Signal a process: this one, or the parent. The signal asks only whether it may be sent.
    Signal(Option<i32>),
    /// Make a user namespace.
    Unshare,
    /// Open a file system to mount it.
    Mount,
    /// Set up a ring for input and output.
    Ring,
    /// Load a program into the kernel.
    Bpf,
    /// Ask the kernel's store of keys.
    Keys,
    /// Become root by a program that has the bit for it.
    SetUser,
    /// Allow core dumps again.
    CoreDumps,
    /// Map more memory than the limit.
    MapMemory(u64),
    /// Write a file larger than the limit.
    LargeFile(u64),
    /// Leave a process that holds a lock on this file, in a session of its own.
    Orphan(PathBuf),
}

/// What the system answered to a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It worked.
    Succeeded,
    /// A call failed.
    Refused {
        /// The call.
        call: String,
        /// The number of the error.
        errno: i32,
    },
    /// The call did not fail, and had no effect.
    Ineffective {
        /// What was seen.
        detail: String,
    },
}

/// What makes `program` try `probes` and write its answers.
pub fn command(program: &Path, probes: &[Probe]) -> Vec<String> {
    let probes = serde_json::to_string(probes).expect("a probe holds only text, numbers and UTF-8 paths");
    let words = [program.to_string_lossy().into_owned(), KEEPER_ARGUMENT.into(), PROBE_ARGUMENT.into()];
    words.into_iter().chain([probes]).collect()
}

/// Tries each of `probes`, a JSON list, and writes the answers as one.
pub(super) fn try_all(probes: &str) -> ExitCode {
    let Ok(probes) = serde_json::from_str::<Vec<Probe>>(probes) else { return ExitCode::from(2) };
    let answers: Vec<Answer> = probes.iter().map(answer).collect();
    match serde_json::to_writer(io::stdout(), &answers) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(2),
    }
}

/// What a probe came to, with the call that refused it.
type Tried = Result<Answer, (&'static str, io::Error)>;

fn answer(probe: &Probe) -> Answer {
    match tried(probe) {
        Ok(answer) => answer,
        Err((call, error)) => match error.raw_os_error() {
            Some(errno) => Answer::Refused { call: call.to_owned(), errno },
            None => Answer::Ineffective { detail: format!("{call}: {error}") },
        },
    }
}

fn tried(probe: &Probe) -> Tried {
    match probe {
        Probe::Read(path) => fs::read(path).map_err(at("open")).and_then(succeeded),
        Probe::Write(path) => File::create_new(path).map_err(at("open")).and_then(succeeded),
        Probe::ReadByLink(path) => read_by_link(path),
        Probe::WriteByHardLink(path) => write_by_hard_link(path),
        Probe::Tcp(port) => tcp(*port),
        Probe::Udp(port) => udp(*port),
        Probe::Tunnel(place) => tunnel(place),
        Probe::Family(number) => family(*number),
        Probe::UnixPath(path) => unix(SocketAddrUnix::new(path)),
        Probe::UnixAbstract(name) => unix(SocketAddrUnix::new_abstract_name(name.as_bytes())),
        Probe::Environment(pid) => environment(target(*pid)),
        Probe::Trace(pid) => trace(target(*pid)),
        Probe::Memory(pid) => memory(target(*pid)),
        Probe::Signal(pid) => signal(*pid),
        Probe::Unshare => calls::unshare_user().map_err(at("unshare")).and_then(succeeded),
        Probe::Mount => calls::open_file_system().map_err(at("fsopen")).and_then(succeeded),
        Probe::Ring => calls::ring().map_err(at("io_uring_setup")).and_then(succeeded),
        Probe::Bpf => calls::bpf().map_err(at("bpf")).and_then(succeeded),
        Probe::Keys => calls::keys().map_err(at("keyctl")).and_then(succeeded),
        Probe::SetUser => set_user(),
        Probe::CoreDumps => core_dumps(),
        Probe::MapMemory(bytes) => calls::map(*bytes).map_err(at("mmap")).and_then(succeeded),
        Probe::LargeFile(bytes) => large_file(*bytes),
        Probe::Orphan(lock) => orphan(lock),
    }
}

fn succeeded<T>(_: T) -> Tried {
    Ok(Answer::Succeeded)
}

fn ineffective(detail: impl Into<String>) -> Tried {
    Ok(Answer::Ineffective { detail: detail.into() })
}

fn at<E: Into<io::Error>>(call: &'static str) -> impl FnOnce(E) -> (&'static str, io::Error) {
    move |error| (call, error.into())
}

fn target(pid: Option<i32>) -> i32 {
    pid.or_else(|| getppid().map(Pid::as_raw_pid)).unwrap_or(1)
}

fn read_by_link(path: &Path) -> Tried {
    let link = Path::new("probe-link");
    std::os::unix::fs::symlink(path, link).map_err(at("symlink"))?;
    let read = fs::read(link).map_err(at("open"));
    let _ = fs::remove_file(link);
    read.and_then(succeeded)
}

fn write_by_hard_link(path: &Path) -> Tried {
    let link = Path::new("probe-hard-link");
    fs::hard_link(path, link).map_err(at("link"))?;
    let written = fs::write(link, "changed").map_err(at("open"));
    let _ = fs::remove_file(link);
    written.and_then(succeeded)
}

fn tcp(port: u16) -> Tried {
    let end = socket(AddressFamily::INET, SocketType::STREAM, None).map_err(at("socket"))?;
    connect(&end, &loopback(port)).map_err(at("connect")).and_then(succeeded)
}

fn udp(port: u16) -> Tried {
    let end = socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(at("socket"))?;
    connect(&end, &loopback(port)).map_err(at("connect"))?;
    rustix::net::send(&end, b"probe", rustix::net::SendFlags::empty()).map_err(at("send"))?;
    // The answer of a port at which nobody listens comes as an error of the socket.
    match sockopt::socket_error(&end).map_err(at("getsockopt"))? {
        Ok(()) => Ok(Answer::Succeeded),
        Err(error) => Err(("send", error.into())),
    }
}

fn tunnel(place: &str) -> Tried {
    let way = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, way_out::PORT));
    let mut end = std::net::TcpStream::connect(way).map_err(at("connect"))?;
    write!(end, "CONNECT {place} HTTP/1.1\r\n\r\n").map_err(at("send"))?;
    let mut said = String::new();
    io::Read::take(end, 4096).read_to_string(&mut said).map_err(at("recv"))?;
    if said.starts_with("HTTP/1.1 200 ") {
        return Ok(Answer::Succeeded);
    }
    ineffective(said.lines().last().unwrap_or("no answer").to_owned())
}

fn loopback(port: u16) -> std::net::SocketAddr {
    (std::net::Ipv4Addr::LOCALHOST, port).into()
}

fn family(number: i32) -> Tried {
    let number = u16::try_from(number).unwrap_or_default();
    let family = AddressFamily::from_raw(number);
    socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .or_else(|_| socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None))
        .map_err(at("socket"))
        .and_then(succeeded)
}

fn unix(address: Result<SocketAddrUnix, rustix::io::Errno>) -> Tried {
    let address = address.map_err(at("address"))?;
    let end = socket(AddressFamily::UNIX, SocketType::STREAM, None).map_err(at("socket"))?;
    connect(&end, &address).map_err(at("connect")).and_then(succeeded)
}

fn environment(pid: i32) -> Tried {
    let text = fs::read(format!("/proc/{pid}/environ")).map_err(at("open"))?;
    if text.is_empty() { ineffective("it was empty") } else { Ok(Answer::Succeeded) }
}

fn trace(pid: i32) -> Tried {
    calls::attach(pid).map_err(at("ptrace")).and_then(succeeded)
}

fn memory(pid: i32) -> Tried {
    match calls::read_memory(pid) {
        Ok(()) => Ok(Answer::Succeeded),
        // The address is nowhere: only the permission is asked, and it was given.
        Err(error) if error.raw_os_error() == Some(libc::EFAULT) => Ok(Answer::Succeeded),
        Err(error) => Err(("process_vm_readv", error)),
    }
}

fn signal(pid: Option<i32>) -> Tried {
    let pid = Pid::from_raw(target(pid)).ok_or(("getppid", io::Error::other("there is no parent")))?;
    // The first process of a namespace gets no signal from inside, although the call succeeds.
    if pid.as_raw_pid() == 1 {
        return match kill_process(pid, Signal::KILL) {
            Ok(()) => ineffective("the first process of the namespace is deaf to it"),
            Err(error) => Err(("kill", error.into())),
        };
    }
    rustix::process::test_kill_process(pid).map_err(at("kill")).and_then(succeeded)
}

fn set_user() -> Tried {
    let status = fs::read_to_string("/proc/self/status").map_err(at("open"))?;
    if status.lines().any(|line| line == "NoNewPrivs:\t1") {
        // With it the kernel ignores the bit of every program.
        return ineffective("no_new_privs is set");
    }
    let set = ["/usr/bin/su", "/bin/su", "/usr/bin/passwd", "/usr/bin/mount"]
        .iter()
        .find(|path| fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o4000 != 0));
    if set.is_some() { Ok(Answer::Succeeded) } else { ineffective("there is no program with the bit") }
}

fn core_dumps() -> Tried {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let wanted = Rlimit { current: Some(1 << 20), maximum: Some(1 << 20) };
    setrlimit(Resource::Core, wanted).map_err(at("setrlimit")).and_then(succeeded)
}

fn large_file(bytes: u64) -> Tried {
    calls::ignore_file_size_signal();
    let path = Path::new("probe-large-file");
    let file = File::create(path).map_err(at("open"))?;
    let grown = file.set_len(bytes).map_err(at("ftruncate"));
    let _ = fs::remove_file(path);
    grown.and_then(succeeded)
}

/// Succeeds always: whether the orphan lives on is seen from outside, by its lock.
fn orphan(lock: &Path) -> Tried {
    let ourselves = std::env::current_exe().map_err(at("readlink"))?;
    let mut orphan = Command::new(ourselves)
        .args([KEEPER_ARGUMENT, LINGER_ARGUMENT])
        .arg(lock)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(at("execve"))?;
    // It says a byte when it holds the lock.
    let mut said = [0; 1];
    let stdout = orphan.stdout.as_mut().ok_or(("pipe", io::Error::other("there is no pipe")))?;
    stdout.read_exact(&mut said).map_err(at("read")).and_then(succeeded)
}

/// The life of an orphan: it holds a lock, and stays for a minute.
pub(super) fn linger(lock: &str) -> ExitCode {
    let stay = || -> io::Result<()> {
        let _ = rustix::process::setsid();
        let file = File::create(lock)?;
        file.lock()?;
        io::stdout().write_all(b".")?;
        io::stdout().flush()?;
        std::thread::sleep(std::time::Duration::from_secs(60));
        drop(file);
        Ok(())
    };
    match stay() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(2),
    }
}

/// System calls that no safe function makes, because nobody has a good use for them.
#[expect(unsafe_code, reason = "an attack makes the calls that safe code does not offer")]
mod calls {
    use std::io;
    use std::ptr;

    fn result(answer: libc::c_long) -> io::Result<()> {
        if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    pub(super) fn unshare_user() -> io::Result<()> {
        // SAFETY: the call touches no memory of ours; success changes only what this short process may do.
        result(unsafe { libc::unshare(libc::CLONE_NEWUSER) }.into())
    }

    pub(super) fn open_file_system() -> io::Result<()> {
        // SAFETY: the string is a literal that ends with a zero. What is opened is mounted nowhere.
        result(unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), 0) })
    }

    pub(super) fn ring() -> io::Result<()> {
        let mut parameters = [0_u8; 120];
        // SAFETY: the kernel writes at most the 120 bytes of its structure for parameters.
        result(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) })
    }

    pub(super) fn bpf() -> io::Result<()> {
        const MAP_CREATE: libc::c_int = 0;
        // An array with one element of eight bytes.
        let mut attributes = [0_u32; 32];
        attributes[..4].copy_from_slice(&[2, 4, 8, 1]);
        // SAFETY: the kernel reads the 128 bytes that it is given.
        result(unsafe { libc::syscall(libc::SYS_bpf, MAP_CREATE, attributes.as_ptr(), 128) })
    }

    pub(super) fn keys() -> io::Result<()> {
        const GET_KEYRING_ID: libc::c_int = 0;
        const SESSION_KEYRING: libc::c_int = -3;
        // SAFETY: the call takes numbers alone.
        result(unsafe { libc::syscall(libc::SYS_keyctl, GET_KEYRING_ID, SESSION_KEYRING, 1) })
    }

    pub(super) fn attach(pid: i32) -> io::Result<()> {
        // PTRACE_SEIZE does not stop the victim, and the end of this process lets go of it.
        // SAFETY: the call takes numbers and null pointers.
        result(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, ptr::null_mut::<u8>(), ptr::null_mut::<u8>()) })
    }

    pub(super) fn read_memory(pid: i32) -> io::Result<()> {
        let mut byte = 0_u8;
        let here = libc::iovec { iov_base: ptr::from_mut(&mut byte).cast(), iov_len: 1 };
        let there = libc::iovec { iov_base: ptr::without_provenance_mut(4096), iov_len: 1 };
        // SAFETY: the kernel writes one byte to `byte`; the other address is never touched in this process.
        let answer = unsafe { libc::process_vm_readv(pid, &raw const here, 1, &raw const there, 1, 0) };
        result(i64::try_from(answer).unwrap_or(-1))
    }

    pub(super) fn map(bytes: u64) -> io::Result<()> {
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        let (readable, private) = (
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
        );
        // SAFETY: a new anonymous mapping touches no memory that exists, and nobody uses it.
        let address = unsafe { libc::mmap(ptr::null_mut(), length, readable, private, -1, 0) };
        if address == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    pub(super) fn ignore_file_size_signal() {
        // SAFETY: no handler is installed: the signal is ignored, so that the call fails instead.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    }
}
