//! Which walls an attempt gets on this machine, proven before anything foreign runs.
//!
//! A wall is not believed because a kernel has it: our own program tries to break out of the walls that the
//! commands will get, and if one attempt succeeds, none of the agent's or the policy's commands runs. This module
//! does not build walls; [`crate::contain`] does.

mod canaries;

use std::path::{Path, PathBuf};
use std::str::FromStr;

use model::documents;
use model::event::{SandboxLayer, SandboxReported};

use crate::contain::{Containment, Walls, bubblewrap, landlock};
use crate::network::PrivateHost;
pub use canaries::Canaries;

/// Sets the [`Profile`].
pub const PROFILE_VARIABLE: &str = "LEVIATHAN_SANDBOX";
/// Sets what commands may read, folders separated by colons.
pub const READ_VARIABLE: &str = "LEVIATHAN_SANDBOX_READ";
/// Leaves out namespaces where they could be made.
pub const WITHOUT_NAMESPACES_VARIABLE: &str = "LEVIATHAN_SANDBOX_WITHOUT_NAMESPACES";
/// Sets which hosts may lie in the machine's own network, separated by commas.
pub const PRIVATE_HOSTS_VARIABLE: &str = "LEVIATHAN_PRIVATE_HOSTS";
/// Must be `true` for [`Profile::None`].
pub const NONE_VARIABLE: &str = "LEVIATHAN_I_UNDERSTAND_NO_SANDBOX";

/// How strong the walls must be, weakest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// No walls. Only an operator can choose it, and must say so twice.
    None,
    /// Landlock and the system call filter, and namespaces where they can be made.
    #[default]
    Standard,
    /// All of it, namespaces too.
    Strict,
}

/// What the operator of this machine configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// The least that must hold. A policy can ask for more.
    pub profile: Profile,
    /// What commands may read beside the system's folders.
    pub read: Vec<PathBuf>,
    /// Whether namespaces are used where they can be made.
    pub namespaces: bool,
    /// Hosts that may lie in the machine's own network, if a policy names them.
    pub private_hosts: Vec<PrivateHost>,
}

/// Walls that withstood the self-test.
#[derive(Debug, Clone)]
pub struct Proven {
    /// Commands within them.
    pub containment: Containment,
    /// Which layers hold.
    pub report: SandboxReported,
}

/// Why nothing may run here.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox `{profile}` does not hold here: {problem}. `leviathan doctor` says what is missing")]
pub struct Unavailable {
    /// What was demanded.
    pub profile: Profile,
    /// Which layer does not hold, and why.
    pub problem: String,
    /// Every layer as far as it is known.
    pub report: SandboxReported,
}

impl Sandbox {
    /// The least that a policy and this operator together demand.
    #[must_use]
    pub fn demanded_by(self, policy: documents::Sandbox) -> Self {
        let demanded = match policy {
            documents::Sandbox::Strict => Profile::Strict,
            documents::Sandbox::Standard | documents::Sandbox::None => self.profile,
        };
        Self { profile: self.profile.max(demanded), ..self }
    }

    /// The environment that tells a `work` process the same.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![(PROFILE_VARIABLE, self.profile.to_string())];
        if self.profile == Profile::None {
            variables.push((NONE_VARIABLE, "true".to_owned()));
        }
        if !self.read.is_empty() {
            let read: Vec<_> = self.read.iter().map(|path| path.to_string_lossy()).collect();
            variables.push((READ_VARIABLE, read.join(":")));
        }
        if !self.private_hosts.is_empty() {
            let hosts: Vec<_> = self.private_hosts.iter().map(ToString::to_string).collect();
            variables.push((PRIVATE_HOSTS_VARIABLE, hosts.join(",")));
        }
        if !self.namespaces {
            variables.push((WITHOUT_NAMESPACES_VARIABLE, "true".to_owned()));
        }
        variables
    }

    /// Tries the strongest walls that this machine may hold, and weaker ones as far as the profile permits. `folder`
    /// is a place for the test, outside of everything that a command may read.
    pub async fn prove(&self, containment: &Containment, folder: &Path) -> Result<Proven, Unavailable> {
        if self.profile == Profile::None {
            return Ok(self.proven(containment, Walls::none(), "switched off by the operator"));
        }
        let filters = Walls::filters(self.read.clone());
        let missing = match self.bubblewrap() {
            Err(missing) => missing,
            Ok(bubblewrap) => {
                let walls = filters.clone().with_namespaces(bubblewrap);
                match Canaries::release(&containment.clone().within(walls.clone()), folder).await {
                    Ok(()) => return Ok(self.proven(containment, walls, "")),
                    Err(canaries::Failure::Escaped(problem)) => {
                        return Err(self.unavailable(&walls, "", problem));
                    }
                    Err(canaries::Failure::NotWalled(problem)) => problem,
                }
            }
        };
        if self.profile == Profile::Strict {
            let problem = format!("namespaces: {missing}");
            return Err(self.unavailable(&filters, &missing, problem));
        }
        match Canaries::release(&containment.clone().within(filters.clone()), folder).await {
            Ok(()) => Ok(self.proven(containment, filters, &missing)),
            Err(failure) => Err(self.unavailable(&filters, &missing, failure.to_string())),
        }
    }

    /// The bubblewrap to use, or why there is none.
    fn bubblewrap(&self) -> Result<PathBuf, String> {
        if !self.namespaces {
            return Err("switched off".to_owned());
        }
        bubblewrap::find().ok_or_else(|| "bubblewrap is not installed (package `bubblewrap`)".to_owned())
    }

    fn proven(&self, containment: &Containment, walls: Walls, missing: &str) -> Proven {
        let report = SandboxReported { profile: self.profile.to_string(), layers: layers(&walls, missing) };
        Proven { containment: containment.clone().within(walls), report }
    }

    fn unavailable(&self, walls: &Walls, missing: &str, problem: String) -> Unavailable {
        let report = SandboxReported { profile: self.profile.to_string(), layers: layers(walls, missing) };
        Unavailable { profile: self.profile, problem, report }
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        Self { profile: Profile::Standard, read: Vec::new(), namespaces: true, private_hosts: Vec::new() }
    }
}

/// Every layer, and whether it is part of `walls`. `missing` is why there are no namespaces.
fn layers(walls: &Walls, missing: &str) -> Vec<SandboxLayer> {
    let layer = |name: &str, holds, detail: String| SandboxLayer { name: name.to_owned(), holds, detail };
    let filters = walls.has_filters();
    let namespaces = walls.bubblewrap();
    let off = "switched off by the operator".to_owned();
    let privileges = if filters { "no_new_privs, and no capability is left" } else { "no_new_privs" };
    let processes = match namespaces {
        Some(_) => "the process namespace ends with its command, and with it all that is in it",
        None => "every descendant is killed at the end, also those that left their session",
    };
    let wanted = |present: String| if filters { present } else { off.clone() };
    vec![
        layer(
            "environment",
            true,
            "cleared; HOME and TMPDIR of its own; no inherited descriptor, no terminal".to_owned(),
        ),
        layer(
            "limits",
            true,
            "time, output, processes, open files, file size, disk, memory of a process; no core dumps"
                .to_owned(),
        ),
        layer("privileges", true, privileges.to_owned()),
        layer("processes", true, processes.to_owned()),
        layer("namespaces", namespaces.is_some(), namespaces_detail(namespaces, missing)),
        layer("landlock", filters, wanted(landlock_detail(namespaces.is_some()))),
        layer("seccomp", filters, wanted(seccomp_detail(namespaces.is_some()).to_owned())),
    ]
}

fn namespaces_detail(bubblewrap: Option<&Path>, missing: &str) -> String {
    match bubblewrap {
        None => missing.to_owned(),
        Some(program) => {
            let version = bubblewrap::version(program).unwrap_or_else(|| program.display().to_string());
            format!("{version}: user, pid, net, ipc, uts, mount; no network, no process of others")
        }
    }
}

fn landlock_detail(has_namespaces: bool) -> String {
    match landlock::version() {
        None => "this kernel has no landlock, or it is switched off".to_owned(),
        Some(abi) => {
            let network = if abi >= 4 && !has_namespaces { ", TCP" } else { "" };
            let scopes = if abi >= 6 { ", signals, abstract sockets" } else { "; no signals before ABI 6" };
            format!("ABI {abi}: files{network}{scopes}")
        }
    }
}

fn seccomp_detail(has_namespaces: bool) -> &'static str {
    if has_namespaces {
        "no tracing, io_uring, mounts, namespaces, keys; only sockets of its own network"
    } else {
        "no tracing, io_uring, mounts, namespaces, keys; no sockets"
    }
}

impl std::fmt::Display for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Standard => "standard",
            Self::Strict => "strict",
        })
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "standard" => Ok(Self::Standard),
            "strict" => Ok(Self::Strict),
            _ => Err(format!("`{text}` is no sandbox profile; it is `strict`, `standard` or `none`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_can_only_ask_for_more() {
        use documents::Sandbox as Policy;
        let rows = [
            (Profile::Standard, Policy::Strict, Profile::Strict),
            (Profile::Standard, Policy::Standard, Profile::Standard),
            (Profile::Standard, Policy::None, Profile::Standard),
            (Profile::Strict, Policy::None, Profile::Strict),
            (Profile::None, Policy::Standard, Profile::None),
            (Profile::None, Policy::Strict, Profile::Strict),
        ];
        for (profile, policy, expected) in rows {
            let sandbox = Sandbox { profile, ..Sandbox::default() }.demanded_by(policy);
            assert_eq!(sandbox.profile, expected, "{profile} {policy:?}");
        }
    }
}
