//! `leviathan up`: control plane and scheduler in one process, for one machine.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context;
use clap::Args;
use model::secrets::Redactor;
use secrecy::{ExposeSecret, SecretString};

use crate::data::DataFolder;
use crate::installation::Installation;
use crate::scheduler::{Settings, token_file, told_to_stop};
use crate::witness::WitnessArguments;
use crate::{Answer, logging};

/// What `leviathan up` is told.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    data: DataFolder,
    /// Where to listen; port 0 takes any that is free
    #[arg(long, env = "LEVIATHAN_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// The operator's token; without it one is made and kept in the data folder
    #[arg(long, env = "LEVIATHAN_CONTROL_PLANE_TOKEN", hide_env_values = true)]
    token: Option<SecretString>,
    /// The key that signs the log: PRIVATE+KEY+… as the file `log-key` has it. Better given by the environment
    #[arg(long, env = "LEVIATHAN_LOG_KEY", hide_env_values = true, value_name = "KEY")]
    log_key: Option<SecretString>,
    #[command(flatten)]
    witness: WitnessArguments,
    #[command(flatten)]
    settings: Settings,
}

/// Runs both until SIGTERM or SIGINT, or until one of them cannot go on.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<Answer> {
    let data = arguments.data.path()?;
    fs::create_dir_all(&data).with_context(|| format!("cannot make the data folder {}", data.display()))?;
    let (token, is_kept) = match arguments.token {
        Some(token) => (token, false),
        None => (kept_token(&data)?, true),
    };
    let secrets = [Some(&token), arguments.log_key.as_ref(), arguments.settings.github_token()];
    let redactor = Redactor::new(secrets.into_iter().flatten().map(ExposeSecret::expose_secret));
    let _telemetry = logging::start_with_spans("leviathan", &redactor);
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    runtime.block_on(async {
        let config = control_plane::Config {
            listen: arguments.listen,
            log_key: arguments.log_key,
            witness: arguments.witness.access(),
            ..control_plane::Config::new(data.clone(), token.clone())
        };
        let settings = arguments.settings;
        let installation =
            Installation::start(config, |client| settings.config(client, data.clone())).await?;
        tell(installation.url(), &data, is_kept);
        let mut told = told_to_stop()?;
        tokio::select! {
            _ = told.wait_for(|told| *told) => {}
            () = installation.ended() => {}
        }
        installation.stop().await
    })?;
    Ok(Answer::Yes)
}

/// The token of this installation; made at the first start, for the eyes of its user alone.
pub(crate) fn kept_token(data: &Path) -> anyhow::Result<SecretString> {
    let path = token_file(data);
    match fs::read_to_string(&path) {
        Ok(token) => Ok(SecretString::from(token.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = new_token()?;
            let mut file = File::options()
                .create_new(true)
                .write(true)
                .mode(0o600)
                .open(&path)
                .with_context(|| format!("cannot make {}", path.display()))?;
            writeln!(file, "{token}").with_context(|| format!("cannot write {}", path.display()))?;
            file.sync_all().with_context(|| format!("cannot write {}", path.display()))?;
            Ok(SecretString::from(token))
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// 256 random bits.
fn new_token() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 32];
    io::Read::read_exact(&mut File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn tell(url: &str, data: &Path, is_kept: bool) {
    anstream::println!("Leviathan is up: {url}");
    anstream::println!("  targets   put contracts into {}", data.join("targets").display());
    anstream::println!("  look      leviathanctl tasks-list   (in another terminal, with these variables)");
    anstream::println!("    export LEVIATHAN_CONTROL_PLANE_URL={url}");
    if is_kept {
        anstream::println!(
            "    export LEVIATHAN_CONTROL_PLANE_TOKEN=\"$(cat {})\"",
            token_file(data).display()
        );
    } else {
        anstream::println!("    LEVIATHAN_CONTROL_PLANE_TOKEN as it is set here");
    }
    anstream::println!("  stop      Ctrl-C; attempts under way go on and are found again at the next start");
}
