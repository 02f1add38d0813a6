//! The way to the hosts that a policy opens, and to no other.
//!
//! A command within namespaces has a network that ends in itself. Where the policy names hosts, one port of that
//! network leads to a [`Proxy`] in this process. It takes nothing but `CONNECT host:443`, holds the name against the
//! policy, resolves it here, and connects to the very address that it judged: a name that leads to an address of this
//! machine, of its network or of a cloud's metadata is refused. What is carried is not read, only counted; every answer
//! goes into a [`Tally`].
//!
//! What this module refuses to know: which command asks, and how it comes to the listener.

mod address;
mod proxy;
mod request;
mod tally;

use std::fmt;
use std::str::FromStr;

pub use proxy::Proxy;
pub use tally::Tally;

/// The one port that a policy opens on its hosts.
pub const HTTPS: u16 = 443;

/// Hosts in the patterns of a policy: `pypi.org`, `*.example.org` for every host below it, `*` for all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// The hosts of these patterns, which are in lower case.
    pub fn new(patterns: Vec<String>) -> Self {
        Self(patterns)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn include(&self, host: &str) -> bool {
        self.0.iter().any(|pattern| match pattern.strip_prefix('*') {
            None => pattern == host,
            Some(suffix) => host.ends_with(suffix) && host.len() > suffix.len(),
        })
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// A host that an operator vouches for: it may lie in this machine's own network, and at a port of its own. A policy
/// must name the host all the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivateHost {
    host: String,
    port: u16,
}

impl FromStr for PrivateHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = match text.rsplit_once(':') {
            None => (text, Some(HTTPS)),
            Some((host, port)) => (host, port.parse().ok()),
        };
        let port = port.filter(|port| *port > 0);
        match (request::host(host), port) {
            (Some(host), Some(port)) => Ok(Self { host, port }),
            _ => Err(format!(
                "`{text}` is no host; expected a name such as `mirror.example.org` or `mirror.example.org:8443`"
            )),
        }
    }
}

impl fmt::Display for PrivateHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_take_whole_labels() {
        let rows = [
            ("pypi.org", "pypi.org", true),
            ("pypi.org", "evil-pypi.org", false),
            ("pypi.org", "pypi.org.evil.example", false),
            ("pypi.org", "files.pypi.org", false),
            ("*.example.org", "a.example.org", true),
            ("*.example.org", "a.b.example.org", true),
            ("*.example.org", "example.org", false),
            ("*.example.org", ".example.org", false),
            ("*.example.org", "aexample.org", false),
            ("*", "anything.example", true),
            ("*", "", false),
        ];
        for (pattern, host, expected) in rows {
            assert_eq!(Hosts::new(vec![pattern.to_owned()]).include(host), expected, "{pattern} {host}");
        }
        assert!(!Hosts::default().include("pypi.org"));
    }

    #[test]
    fn a_private_host_is_a_name_and_perhaps_a_port() {
        let shown = |text: &str| text.parse().map(|host: PrivateHost| host.to_string());
        assert_eq!(shown("Mirror.Example.org"), Ok("mirror.example.org:443".to_owned()));
        assert_eq!(shown("localhost:8443"), Ok("localhost:8443".to_owned()));
        for wrong in ["", "a b", "host:", "host:0", "host:99999", "*.example.org", "https://host", "::1"] {
            assert!(shown(wrong).is_err(), "{wrong}");
        }
    }
}
