//! The flags by which an operator says how strong the sandbox of this machine must be.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{anyhow, bail};
use clap::Args;
use executor::network::PrivateHost;
use executor::sandbox::{Profile, Sandbox};

#[derive(Args)]
#[command(next_help_heading = "Sandbox")]
pub(crate) struct SandboxSettings {
    /// How strong the sandbox of commands must be: `strict` needs namespaces, `standard` takes them where they can
    /// be made, `none` has no walls and needs --i-understand-no-sandbox. A policy can only ask for more
    #[arg(
        long = "sandbox",
        visible_alias = "profile",
        env = "LEVIATHAN_SANDBOX",
        value_name = "PROFILE",
        default_value = "standard"
    )]
    profile: Profile,
    /// Folders that commands may read beside those of the system, separated by colons
    #[arg(long, env = "LEVIATHAN_SANDBOX_READ", value_name = "FOLDERS", value_delimiter = ':')]
    sandbox_read: Vec<OsString>,
    /// Hosts that may lie in the machine's own network where a policy's `network` names them, separated by commas, with
    /// a port if it is not 443: `mirror.example.org:8443`
    #[arg(long, env = "LEVIATHAN_PRIVATE_HOSTS", value_name = "HOSTS", value_delimiter = ',')]
    private_hosts: Vec<String>,
    /// Make no namespaces, also where they can be made
    #[arg(long, env = "LEVIATHAN_SANDBOX_WITHOUT_NAMESPACES")]
    without_namespaces: bool,
    /// Accept that whatever an agent runs can do all that this user can do
    #[arg(long, env = "LEVIATHAN_I_UNDERSTAND_NO_SANDBOX")]
    i_understand_no_sandbox: bool,
}

impl SandboxSettings {
    /// What is configured, if it can be meant.
    pub(crate) fn into_sandbox(self) -> anyhow::Result<Sandbox> {
        let Self { profile, sandbox_read, private_hosts, without_namespaces, i_understand_no_sandbox } = self;
        if profile == Profile::None && !i_understand_no_sandbox {
            bail!(
                "the sandbox `none` lets an agent read and change all that this user can. Use `standard`, or accept \
                 it with --i-understand-no-sandbox (LEVIATHAN_I_UNDERSTAND_NO_SANDBOX=true)"
            );
        }
        if profile == Profile::Strict && without_namespaces {
            bail!("the sandbox `strict` needs namespaces: leave out --without-namespaces, or use `standard`");
        }
        // A variable that is set to nothing says nothing.
        let sandbox_read: Vec<PathBuf> =
            sandbox_read.into_iter().filter(|path| !path.is_empty()).map(PathBuf::from).collect();
        let private_hosts: Vec<PrivateHost> = private_hosts
            .iter()
            .filter(|host| !host.is_empty())
            .map(|host| host.parse().map_err(|problem| anyhow!("LEVIATHAN_PRIVATE_HOSTS: {problem}")))
            .collect::<anyhow::Result<_>>()?;
        if let Some(relative) = sandbox_read.iter().find(|path| !path.is_absolute()) {
            bail!("LEVIATHAN_SANDBOX_READ names `{}`, and takes absolute paths only", relative.display());
        }
        Ok(Sandbox { profile, read: sandbox_read, namespaces: !without_namespaces, private_hosts })
    }
}
