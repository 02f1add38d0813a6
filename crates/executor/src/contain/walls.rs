//! The walls around one command: which layers stand, and what can be seen and changed inside them.
//!
//! A wall is either up or the command does not run: nothing here is best effort. Which walls a machine can hold is
//! found out elsewhere, by trying them.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Folders of programs and their libraries, readable and executable inside the walls.
pub(super) const SYSTEM: &[&str] =
    &["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/run/current-system"];

/// What programs read of `/etc`. The rest of it can hold secrets (`shadow`, host keys), which root could read.
const CONFIGURATION: &[&str] = &[
    "/etc/alternatives",
    "/etc/bash.bashrc",
    "/etc/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/crypto-policies",
    "/etc/debian_version",
    "/etc/fonts",
    "/etc/gai.conf",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/inputrc",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld-musl-aarch64.path",
    "/etc/ld-musl-x86_64.path",
    "/etc/locale.alias",
    "/etc/localtime",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/perl",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/cert.pem",
    "/etc/profile",
    "/etc/profile.d",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/rpc",
    "/etc/services",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/terminfo",
    "/etc/timezone",
];

/// The beginnings of further names in `/etc`, which end in a version: `python3.13`, `java-21-openjdk`.
const VERSIONED: &[&str] = &["java-", "python"];

/// Everything of `/etc` that can be read inside the walls.
pub(super) fn configuration() -> Vec<PathBuf> {
    let names = std::fs::read_dir("/etc").into_iter().flatten().flatten();
    let versioned = names.filter(|entry| {
        let name = entry.file_name();
        VERSIONED.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
    });
    CONFIGURATION.iter().map(PathBuf::from).chain(versioned.map(|entry| entry.path())).collect()
}

/// Whether a path is beneath one of the system's folders.
pub(super) fn is_of_the_system(path: &Path) -> bool {
    SYSTEM.iter().any(|folder| path.starts_with(folder))
}

/// What runtimes ask to learn how many processors there are.
pub(super) const PROCESSORS: &str = "/sys/devices/system/cpu";

/// Which walls stand around a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walls {
    /// The bubblewrap that makes the namespaces, if they stand.
    bubblewrap: Option<PathBuf>,
    /// Whether landlock and the system call filter stand, and no capability is left.
    filters: bool,
    /// What the operator opened for reading beside the system's own folders.
    read: Vec<PathBuf>,
}

/// The places of one command.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Places {
    /// Its working directory, which it may change.
    pub(super) directory: PathBuf,
    /// What is its own: it may read all of it and change `home` and `tmp`.
    pub(super) scratch: PathBuf,
}

impl Walls {
    /// Landlock and the system call filter, without namespaces; `read` is readable beside the system's folders.
    pub fn filters(read: Vec<PathBuf>) -> Self {
        Self { bubblewrap: None, filters: true, read }
    }

    /// No wall at all. The environment, the limits and the end of every process hold nevertheless.
    pub fn none() -> Self {
        Self { bubblewrap: None, filters: false, read: Vec::new() }
    }

    /// The same, and namespaces made by this bubblewrap.
    #[must_use]
    pub fn with_namespaces(self, bubblewrap: PathBuf) -> Self {
        Self { bubblewrap: Some(bubblewrap), ..self }
    }

    /// The same, and `path` can be read.
    #[must_use]
    pub fn reading(mut self, path: &Path) -> Self {
        self.read.push(path.to_owned());
        self
    }

    /// The bubblewrap that makes the namespaces.
    pub fn bubblewrap(&self) -> Option<&Path> {
        self.bubblewrap.as_deref()
    }

    /// Whether landlock and the system call filter stand.
    pub fn has_filters(&self) -> bool {
        self.filters
    }

    /// What the operator opened for reading.
    pub(super) fn read(&self) -> &[PathBuf] {
        &self.read
    }
}

impl Places {
    /// Everything that the command may change.
    pub(super) fn writable(&self) -> [PathBuf; 3] {
        [self.directory.clone(), self.scratch.join("home"), self.temporary()]
    }

    pub(super) fn temporary(&self) -> PathBuf {
        self.scratch.join("tmp")
    }
}
