//! The attacks that `leviathan attack` makes for real, and what stopped each.
//!
//! An attack is a row of a table: what it tries, and how. Which layer stopped it is read off the call that failed
//! and its error, never off a list of what ought to be. An attack that reached its end is `succeeded`, whatever the
//! reason: there is no expected failure. No attack may harm the machine where nothing stops it.

mod commands;

use model::event::NetworkUse;
use serde::Serialize;

use crate::contain::probe::{Answer, Probe};
use crate::contain::{Containment, Walls};
use crate::network::{Hosts, Proxy, Tally};
use crate::sandbox::Canaries;

/// What part of the product an attack is aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// The judgement of a change.
    Gate,
    /// The walls around commands.
    Sandbox,
    /// The credentials.
    Secrets,
    /// The proxy that leads to permitted hosts.
    Network,
    /// Documents and requests from outside.
    Inputs,
}

/// One attack.
#[derive(Debug, Clone, Copy)]
pub struct Attack {
    /// Its name in tables.
    pub name: &'static str,
    /// What it is aimed at.
    pub group: Group,
    /// What it does, for people.
    pub does: &'static str,
    how: How,
}

#[derive(Debug, Clone, Copy)]
enum How {
    /// A call from inside the walls.
    Probe(fn(&Canaries) -> Probe),
    /// A command, and a look from outside at what came of it.
    Command(commands::Trick),
    /// A wish for a place, said to a proxy that leads to these hosts.
    Tunnel { hosts: &'static [&'static str], place: &'static str },
}

/// What an attack came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The attack's name.
    pub attack: &'static str,
    /// Its place in the list, from 1.
    pub row: usize,
    /// What it was aimed at.
    pub group: Group,
    /// What it did, for people.
    pub does: &'static str,
    /// Whether it was stopped.
    pub outcome: Outcome,
    /// The layer that stopped it.
    pub by: String,
    /// What was seen.
    pub detail: String,
}

/// The end of an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It did not reach what it wanted.
    Stopped,
    /// It did.
    Succeeded,
    /// It could not be made, so nothing is known.
    Failed,
}

/// Every attack, in the order of the table.
pub const ATTACKS: &[Attack] = &[
    secrets(
        "victim-environ",
        "reads the environment of another process",
        |_| Probe::Environment(ourselves()),
    ),
    secrets("keeper-environ", "reads the environment of its parent", |_| Probe::Environment(None)),
    secrets("ptrace-victim", "attaches to another process", |_| Probe::Trace(ourselves())),
    secrets("ptrace-parent", "attaches to its parent", |_| Probe::Trace(None)),
    secrets("read-memory", "reads the memory of another process", |_| Probe::Memory(ourselves())),
    secrets("read-outside", "reads a secret outside of its tree", |canaries| Probe::Read(canaries.secret())),
    secrets("read-shadow", "reads /etc/shadow", |_| Probe::Read("/etc/shadow".into())),
    secrets("symlink", "reads a secret by a symbolic link", |canaries| Probe::ReadByLink(canaries.secret())),
    secrets("keyring", "asks the kernel for its keys", |_| Probe::Keys),
    sandbox("write-outside", "writes a file outside of its tree", |canaries| {
        Probe::Write(canaries.outside())
    }),
    sandbox("hard-link", "changes a file outside by a hard link", |canaries| {
        Probe::WriteByHardLink(canaries.secret())
    }),
    sandbox("signal-victim", "signals another process", |_| Probe::Signal(ourselves())),
    sandbox("signal-keeper", "signals its parent", |_| Probe::Signal(None)),
    sandbox("tcp", "connects to a port of this machine", |canaries| Probe::Tcp(canaries.tcp_port())),
    sandbox("udp", "sends a datagram to this machine", |canaries| Probe::Udp(canaries.udp_port())),
    sandbox("vsock", "makes a socket to the host of a virtual machine", |_| Probe::Family(libc::AF_VSOCK)),
    sandbox("netlink", "makes a socket to the kernel", |_| Probe::Family(libc::AF_NETLINK)),
    sandbox("packet", "makes a socket that sees every packet", |_| Probe::Family(libc::AF_PACKET)),
    sandbox("abstract-unix", "connects to an abstract socket", |canaries| {
        Probe::UnixAbstract(canaries.abstract_name().to_owned())
    }),
    sandbox("pathname-unix", "connects to a socket like docker.sock", |canaries| {
        Probe::UnixPath(canaries.socket())
    }),
    sandbox("unshare", "makes a user namespace", |_| Probe::Unshare),
    sandbox("mount", "opens a file system to mount it", |_| Probe::Mount),
    sandbox("io-uring", "sets up input and output that filters do not see", |_| Probe::Ring),
    sandbox("bpf", "loads a map into the kernel", |_| Probe::Bpf),
    sandbox("setuid", "gains rights by a setuid program", |_| Probe::SetUser),
    sandbox("core-dump", "allows core dumps of itself", |_| Probe::CoreDumps),
    sandbox("memory", "maps more memory than it may", |_| Probe::MapMemory(64 << 30)),
    sandbox("large-file", "writes a file larger than it may", |_| Probe::LargeFile(64 << 30)),
    trick("orphan", "leaves a process in a session of its own", commands::Trick::Orphan),
    trick("fork-bomb", "doubles its processes until it is stopped", commands::Trick::ForkBomb),
    trick("log-flood", "writes without end", commands::Trick::LogFlood),
    trick("disk-fill", "fills the disk with many small files", commands::Trick::DiskFill),
    trick("late-edit", "edits its tree after its end", commands::Trick::LateEdit),
    trick("path-shim", "leaves a program where the next command may find it", commands::Trick::PathShim),
    trick("inherited-variables", "waits for LD_PRELOAD or GIT_* of its caller", commands::Trick::Inherited),
    trick("inherited-descriptors", "uses what its caller had open", commands::Trick::Descriptors),
    tunnel("other-host", "asks the proxy for a host that no policy names", OPEN, "evil.example:443"),
    tunnel(
        "host-below",
        "asks for a host whose name ends like a permitted one",
        OPEN,
        "evil-allowed.example:443",
    ),
    tunnel("other-port", "asks for another port of a permitted host", OPEN, "allowed.example:22"),
    tunnel(
        "own-machine",
        "asks for a permitted name that leads to this machine",
        &["localhost"],
        "localhost:443",
    ),
    tunnel(
        "private-network",
        "asks for an address of a private network, where all hosts are open",
        ALL,
        "10.0.0.1:443",
    ),
    tunnel("mapped-address", "hides this machine in an address of IPv6", ALL, "[::ffff:127.0.0.1]:443"),
    tunnel("metadata", "asks for a cloud's metadata, where all hosts are open", ALL, "169.254.169.254:443"),
];

const OPEN: &[&str] = &["allowed.example"];
const ALL: &[&str] = &["*"];

const fn tunnel(
    name: &'static str,
    does: &'static str,
    hosts: &'static [&'static str],
    place: &'static str,
) -> Attack {
    Attack { name, group: Group::Network, does, how: How::Tunnel { hosts, place } }
}

const fn sandbox(name: &'static str, does: &'static str, probe: fn(&Canaries) -> Probe) -> Attack {
    Attack { name, group: Group::Sandbox, does, how: How::Probe(probe) }
}

const fn secrets(name: &'static str, does: &'static str, probe: fn(&Canaries) -> Probe) -> Attack {
    Attack { name, group: Group::Secrets, does, how: How::Probe(probe) }
}

const fn trick(name: &'static str, does: &'static str, trick: commands::Trick) -> Attack {
    Attack { name, group: Group::Sandbox, does, how: How::Command(trick) }
}

fn ourselves() -> Option<i32> {
    i32::try_from(std::process::id()).ok()
}

/// Makes every attack within the walls of `containment`.
pub async fn attack(containment: &Containment, canaries: &Canaries) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, attack) in ATTACKS.iter().enumerate() {
        let (outcome, by, detail) = match attack.how {
            How::Probe(probe) => probed(containment, canaries, &probe(canaries)).await,
            How::Command(trick) => commands::play(trick, containment, canaries).await,
            How::Tunnel { hosts, place } => tunnelled(containment, canaries, hosts, place).await,
        };
        let Attack { name, group, does, .. } = *attack;
        findings.push(Finding {
            attack: name,
            row: index + 1,
            group,
            does,
            outcome,
            by: by.to_owned(),
            detail,
        });
    }
    findings
}

/// Without namespaces there is no proxy, and the attack meets the walls themselves.
async fn tunnelled(containment: &Containment, canaries: &Canaries, hosts: &[&str], place: &str) -> Seen {
    let hosts = Hosts::new(hosts.iter().map(|host| (*host).to_owned()).collect());
    let proxy = Proxy::new(NetworkUse::Agent, hosts, Vec::new(), Tally::default());
    let containment = match containment.walls().bubblewrap() {
        Some(_) => containment.clone().with_way_out(proxy),
        None => containment.clone(),
    };
    probed(&containment, canaries, &Probe::Tunnel(place.to_owned())).await
}

type Seen = (Outcome, &'static str, String);

async fn probed(containment: &Containment, canaries: &Canaries, probe: &Probe) -> Seen {
    match canaries.run(containment, std::slice::from_ref(probe)).await {
        Err(problem) => (Outcome::Failed, "", problem),
        Ok(answers) => match answers.first() {
            None => (Outcome::Failed, "", "there was no answer".to_owned()),
            Some(answer) if canaries.is_reached(probe, answer) => (Outcome::Succeeded, "", String::new()),
            Some(Answer::Succeeded) => {
                let detail = "it was done to a file of the command's own, in a place of the same name";
                (Outcome::Stopped, "namespaces", detail.to_owned())
            }
            Some(Answer::Ineffective { detail }) => {
                (Outcome::Stopped, layer_without_effect(probe), detail.clone())
            }
            Some(Answer::Refused { call, errno }) => {
                let detail = format!("{call}: {}", std::io::Error::from_raw_os_error(*errno));
                (Outcome::Stopped, layer_of(call, *errno, containment.walls()), detail)
            }
        },
    }
}

/// The layer whose refusal looks like this. Without walls it is the system itself.
fn layer_of(call: &str, errno: i32, walls: &Walls) -> &'static str {
    let absent = [libc::ENOENT, libc::ESRCH, libc::EROFS, libc::ECONNREFUSED, libc::ENETUNREACH];
    match call {
        "setrlimit" | "mmap" | "ftruncate" => "limits",
        _ if !walls.has_filters() => "system",
        // What is not there, or another one of its kind, is the work of another view.
        _ if absent.contains(&errno) && walls.bubblewrap().is_some() => "namespaces",
        "open" | "symlink" | "link" | "kill" | "connect" | "send" if is_refusal(errno) => "landlock",
        "socket" | "ptrace" | "process_vm_readv" | "unshare" | "fsopen" | "io_uring_setup" | "bpf"
        | "keyctl"
            if errno == libc::EPERM =>
        {
            "seccomp"
        }
        _ => "system",
    }
}

fn is_refusal(errno: i32) -> bool {
    [libc::EACCES, libc::EPERM, libc::EXDEV].contains(&errno)
}

fn layer_without_effect(probe: &Probe) -> &'static str {
    match probe {
        Probe::SetUser => "privileges",
        Probe::Signal(_) => "namespaces",
        Probe::Environment(_) => "environment",
        Probe::Tunnel(_) => "proxy",
        Probe::Read(_)
        | Probe::Write(_)
        | Probe::ReadByLink(_)
        | Probe::WriteByHardLink(_)
        | Probe::Tcp(_)
        | Probe::Udp(_)
        | Probe::Family(_)
        | Probe::UnixPath(_)
        | Probe::UnixAbstract(_)
        | Probe::Trace(_)
        | Probe::Memory(_)
        | Probe::Unshare
        | Probe::Mount
        | Probe::Ring
        | Probe::Bpf
        | Probe::Keys
        | Probe::CoreDumps
        | Probe::MapMemory(_)
        | Probe::LargeFile(_)
        | Probe::Orphan(_) => "system",
    }
}
