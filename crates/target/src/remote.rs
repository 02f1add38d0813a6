//! The far side of fetch and push: one address, one protocol, and the credentials for it.
//!
//! It does not know where the token came from, and never writes it anywhere: not into the address, not into
//! argv, not into a configuration file, not into an error.

use model::documents::RepoUrl;
use secrecy::{ExposeSecret as _, SecretString};

/// A repository on the far side, and the way to it that this address and these credentials allow.
///
/// With a token every address of a host is reached over https, also `git@host:…`; without one, an ssh address
/// goes by ssh with the machine's own agent. A repository on this machine never sees the token.
#[derive(Debug, Clone)]
pub struct Remote {
    address: String,
    protocol: &'static str,
    token: Option<SecretString>,
}

/// What git is told when the far side asks who is there.
pub(crate) struct Credentials<'a> {
    /// The only scheme and host for which git may use them.
    pub(crate) scope: &'a str,
    pub(crate) user: &'static str,
    pub(crate) token: &'a str,
}

/// The user name that goes with a token; GitHub and Gitea look only at the token.
const TOKEN_USER: &str = "x-access-token";

impl Remote {
    /// The way to `url`, with a token if there is one.
    pub fn new(url: &RepoUrl, token: Option<SecretString>) -> Self {
        if url.local_path().is_some() {
            return Self { address: url.over_https(), protocol: "file", token: None };
        }
        match url.over_ssh().filter(|_| url.is_ssh() && token.is_none()) {
            Some(address) => Self { address, protocol: "ssh", token: None },
            None => {
                let address = url.over_https();
                let protocol = if address.starts_with("https:") { "https" } else { "http" };
                Self { address, protocol, token }
            }
        }
    }

    /// The address that git is given. It holds no credentials.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The only protocol that git may speak on the way: `https`, `http` (to this machine), `ssh` or `file`.
    pub fn protocol(&self) -> &'static str {
        self.protocol
    }

    pub(crate) fn credentials(&self) -> Option<Credentials<'_>> {
        let token = self.token.as_ref()?;
        Some(Credentials { scope: host_of(&self.address), user: TOKEN_USER, token: token.expose_secret() })
    }
}

/// `https://host:port` of `https://host:port/owner/name.git`.
fn host_of(address: &str) -> &str {
    let path_at = address
        .find("://")
        .map(|at| at + 3)
        .and_then(|start| address[start..].find('/').map(|length| start + length));
    &address[..path_at.unwrap_or(address.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_follows_from_the_address_and_the_token() {
        let rows = [
            ("git@github.com:owner/repo.git", true, "https://github.com/owner/repo.git", "https"),
            ("git@github.com:owner/repo.git", false, "ssh://git@github.com/owner/repo.git", "ssh"),
            ("https://github.com/owner/repo", false, "https://github.com/owner/repo.git", "https"),
            ("http://127.0.0.1:8123/owner/repo", true, "http://127.0.0.1:8123/owner/repo.git", "http"),
            ("file:///srv/repo.git", true, "file:///srv/repo.git", "file"),
        ];
        for (url, has_token, address, protocol) in rows {
            let token = has_token.then(|| SecretString::from("t0ken"));
            let remote = Remote::new(&RepoUrl::parse(url).unwrap(), token);
            assert_eq!((remote.address(), remote.protocol()), (address, protocol), "{url}");
            assert!(!format!("{remote:?}").contains("t0ken"), "{url}");
        }
    }

    #[test]
    fn credentials_are_for_the_host_alone_and_never_for_a_local_repository() {
        let remote = |url: &str| Remote::new(&RepoUrl::parse(url).unwrap(), Some(SecretString::from("t")));
        let scope = remote("http://127.0.0.1:8123/owner/repo").credentials().unwrap().scope.to_owned();
        assert_eq!(scope, "http://127.0.0.1:8123");
        assert!(remote("file:///srv/repo.git").credentials().is_none());
    }

    #[test]
    fn addresses_that_could_run_a_program_or_carry_a_password_are_no_addresses() {
        for bad in [
            "ext::sh -c touch% /tmp/x",
            "fd::17/foo",
            "-oProxyCommand=x",
            "--upload-pack=x",
            "https://user:password@github.com/o/r.git",
            "https://token@github.com/o/r.git",
            "ssh://-oProxyCommand=x/o/r",
            "git://github.com/o/r.git",
            "http://github.com/o/r.git",
            "file://../x",
            "file:///a/../b",
            "/srv/repo.git",
            "git@-host:o/r.git",
            "https://github.com/o/r.git\n",
        ] {
            assert!(RepoUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
