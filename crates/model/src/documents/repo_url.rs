//! Where a target's repository is: a host with owner and name, or a bare repository on this machine.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv4Addr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const EXPECTED: &str = "`git@host:owner/repository.git`, `https://host/owner/repository.git`, `ssh://git@host/owner/repository.git` or `file:///absolute/path`";

/// The repository's address, taken apart strictly: git never sees text that a human wrote here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RepoUrl {
    text: String,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Place {
    Host { scheme: Scheme, authority: String, owner: String, name: String },
    Local { path: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Scheme {
    Https,
    Http,
    Ssh,
}

/// Text that is no address Leviathan fetches from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is refused: {reason}; expected {EXPECTED}")]
pub struct RepoUrlError {
    /// The text, with what stood before an `@` left out if it could be a password.
    text: String,
    /// What is wrong with it.
    reason: &'static str,
}

impl RepoUrl {
    /// Reads an address. Credentials, options, unknown schemes and plain http to another machine are refused.
    pub fn parse(text: &str) -> Result<Self, RepoUrlError> {
        match place(text) {
            Ok(place) => Ok(Self { text: text.to_owned(), place }),
            Err(reason) => Err(RepoUrlError { text: without_credentials(text), reason }),
        }
    }

    /// The address as its human wrote it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The host, with its port if it has one; none for a repository on this machine.
    pub fn host(&self) -> Option<&str> {
        match &self.place {
            Place::Host { authority, .. } => Some(authority),
            Place::Local { .. } => None,
        }
    }

    /// The owner and the name on the forge; none for a repository on this machine.
    pub fn owner_and_name(&self) -> Option<(&str, &str)> {
        match &self.place {
            Place::Host { owner, name, .. } => Some((owner, name)),
            Place::Local { .. } => None,
        }
    }

    /// The path of a repository on this machine.
    pub fn local_path(&self) -> Option<&str> {
        match &self.place {
            Place::Host { .. } => None,
            Place::Local { path } => Some(path),
        }
    }

    /// Whether it was written as an ssh address, so that without a token git would go by ssh.
    pub fn is_ssh(&self) -> bool {
        matches!(self.place, Place::Host { scheme: Scheme::Ssh, .. })
    }

    /// The address for git over https with a token: the same for `git@host:…` and `ssh://…`. For a repository
    /// on this machine, its `file://` address.
    pub fn over_https(&self) -> String {
        match &self.place {
            Place::Host { scheme: Scheme::Http, authority, owner, name } => {
                format!("http://{authority}/{owner}/{name}.git")
            }
            Place::Host { scheme: Scheme::Https, authority, owner, name } => {
                format!("https://{authority}/{owner}/{name}.git")
            }
            Place::Host { scheme: Scheme::Ssh, authority, owner, name } => {
                let host = authority.split(':').next().unwrap_or(authority);
                format!("https://{host}/{owner}/{name}.git")
            }
            Place::Local { path } => format!("file://{path}"),
        }
    }

    /// The address for git over ssh, as `git@`.
    pub fn over_ssh(&self) -> Option<String> {
        match &self.place {
            Place::Host { authority, owner, name, .. } => {
                Some(format!("ssh://git@{authority}/{owner}/{name}.git"))
            }
            Place::Local { .. } => None,
        }
    }
}

fn place(text: &str) -> Result<Place, &'static str> {
    if text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err("it holds white space, a backslash or a control character");
    }
    if let Some(path) = text.strip_prefix("file://") {
        return local(path);
    }
    if let Some(rest) = text.strip_prefix("https://") {
        return host(Scheme::Https, rest);
    }
    if let Some(rest) = text.strip_prefix("http://") {
        return loopback(host(Scheme::Http, rest)?);
    }
    if let Some(rest) = text.strip_prefix("ssh://") {
        return host(Scheme::Ssh, rest.strip_prefix("git@").unwrap_or(rest));
    }
    match text.strip_prefix("git@").and_then(|rest| rest.split_once(':')) {
        Some((authority, path)) => host(Scheme::Ssh, &format!("{authority}/{path}")),
        None => Err("its form is unknown"),
    }
}

fn local(path: &str) -> Result<Place, &'static str> {
    let is_plain = path.starts_with('/') && !path.split('/').any(|part| part == "..");
    if is_plain && path.len() > 1 {
        Ok(Place::Local { path: path.to_owned() })
    } else {
        Err("a path on this machine must be absolute and without `..`")
    }
}

fn host(scheme: Scheme, rest: &str) -> Result<Place, &'static str> {
    if rest.contains('@') {
        return Err("it holds credentials; they belong in the environment");
    }
    let (authority, path) = rest.split_once('/').ok_or("it has no owner and repository")?;
    if !is_authority(authority) {
        return Err("the host is no host name");
    }
    if is_never_a_forge(authority) {
        return Err(
            "no forge is there: the address is of the machine's own network, or a number in disguise",
        );
    }
    let path = path.strip_suffix('/').unwrap_or(path);
    let (owner, name) = path.rsplit_once('/').ok_or("it has no owner and repository")?;
    let name = name.strip_suffix(".git").unwrap_or(name);
    if !owner.split('/').all(is_name) || !is_name(name) {
        return Err("owner and repository are letters, digits, `.`, `_` and `-`");
    }
    Ok(Place::Host {
        scheme,
        authority: authority.to_owned(),
        owner: owner.to_owned(),
        name: name.to_owned(),
    })
}

/// Without encryption a token would be readable on the way, so plain http goes to this machine only.
fn loopback(place: Place) -> Result<Place, &'static str> {
    let is_loopback = match &place {
        Place::Host { authority, .. } => {
            matches!(authority.split(':').next(), Some("127.0.0.1" | "localhost"))
        }
        Place::Local { .. } => true,
    };
    if is_loopback { Ok(place) } else { Err("plain http would show the token to the network") }
}

fn is_authority(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "443"));
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.split('.').all(is_label) && port.parse::<u16>().is_ok()
}

/// Whether a host is one that only an attack would name: services that a cloud offers to its own machines, addresses
/// that stand for no host, and numbers in the spellings that some resolvers take for addresses.
fn is_never_a_forge(authority: &str) -> bool {
    let host = authority.split(':').next().unwrap_or(authority).to_ascii_lowercase();
    match host.parse::<Ipv4Addr>() {
        Ok(address) => {
            address.is_link_local()
                || address.is_unspecified()
                || address.is_multicast()
                || address.is_broadcast()
                || ["100.100.100.200", "168.63.129.16"].contains(&host.as_str())
        }
        Err(_) => {
            let is_number = |label: &str| {
                let digits = label.strip_prefix("0x").unwrap_or(label);
                label.starts_with("0x") && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
                    || label.bytes().all(|byte| byte.is_ascii_digit())
            };
            let is_metadata = |name: &str| host == name || host.ends_with(&format!(".{name}"));
            host.rsplit('.').next().is_some_and(is_number)
                || ["metadata", "metadata.google.internal", "instance-data"].into_iter().any(is_metadata)
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(['-', '.'])
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

fn without_credentials(text: &str) -> String {
    let shown = match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, after))) => format!("{scheme}://…@{after}"),
        (Some(_), None) | (None, _) => text.to_owned(),
    };
    shown.chars().take(120).flat_map(char::escape_debug).collect()
}

impl fmt::Display for RepoUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl Serialize for RepoUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for RepoUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for RepoUrl {
    fn schema_name() -> Cow<'static, str> {
        "RepoUrl".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(git@|https://|http://|ssh://|file://)", "description": EXPECTED })
    }
}
