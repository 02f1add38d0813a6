//! Which control plane is asked, and with which token. Flags beat the environment, the environment beats files.

use std::path::{Path, PathBuf};

use api::Client;
use secrecy::SecretString;

use crate::failure::Failure;

/// Where a control plane listens unless somebody says otherwise.
pub(crate) const DEFAULT_URL: &str = "http://127.0.0.1:8000";

/// The flags that say which control plane is meant.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Arguments {
    /// Where the control plane is.
    ///
    /// Without it LEVIATHAN_CONTROL_PLANE_URL, then LEVIATHAN_API_URL, then http://127.0.0.1:8000.
    #[arg(long, value_name = "URL", global = true)]
    api_url: Option<String>,
    /// The operator's token. Everybody on this machine can see it in the list of processes: prefer
    /// LEVIATHAN_CONTROL_PLANE_TOKEN or --token-file.
    #[arg(long, value_name = "TOKEN", global = true, conflicts_with = "token_file")]
    token: Option<String>,
    /// A file that holds the operator's token.
    ///
    /// Without it LEVIATHAN_CONTROL_PLANE_TOKEN, then the file `token` in the data folder
    /// (LEVIATHAN_DATA_DIR, or ~/.leviathan), which `leviathan up` writes.
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
}

/// What the environment says, read once by `main`. Empty values count as absent.
#[derive(Default)]
pub(crate) struct Environment {
    /// LEVIATHAN_CONTROL_PLANE_URL
    pub(crate) control_plane_url: Option<String>,
    /// LEVIATHAN_API_URL
    pub(crate) api_url: Option<String>,
    /// LEVIATHAN_CONTROL_PLANE_TOKEN
    pub(crate) token: Option<SecretString>,
    /// LEVIATHAN_LOG_VKEY
    pub(crate) log_vkey: Option<String>,
    /// LEVIATHAN_DATA_DIR, or `.leviathan` in the home folder.
    pub(crate) data_dir: Option<PathBuf>,
}

/// A client for the control plane that is meant.
pub(crate) fn connect(arguments: &Arguments, environment: &Environment) -> Result<Client, Failure> {
    let url = arguments
        .api_url
        .as_deref()
        .or(environment.control_plane_url.as_deref())
        .or(environment.api_url.as_deref())
        .unwrap_or(DEFAULT_URL);
    Ok(Client::new(url, token(arguments, environment)?)?)
}

fn token(arguments: &Arguments, environment: &Environment) -> Result<SecretString, Failure> {
    if let Some(token) = &arguments.token {
        return Ok(SecretString::from(token.clone()));
    }
    if let Some(file) = &arguments.token_file {
        return read(file)?.ok_or_else(|| not_run(file, "it does not exist"));
    }
    if let Some(token) = &environment.token {
        return Ok(token.clone());
    }
    let kept = environment.data_dir.as_ref().map(|folder| folder.join("token"));
    let found = kept.as_deref().map(read).transpose()?.flatten();
    found.ok_or_else(|| {
        Failure::NotRun(
            "there is no token: set LEVIATHAN_CONTROL_PLANE_TOKEN to the token that the control plane was started with, or give --token-file FILE"
                .to_owned(),
        )
    })
}

fn read(file: &Path) -> Result<Option<SecretString>, Failure> {
    match std::fs::read_to_string(file) {
        Ok(text) if text.trim().is_empty() => Err(not_run(file, "it is empty")),
        Ok(text) => Ok(Some(SecretString::from(text.trim().to_owned()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(not_run(file, &error.to_string())),
    }
}

fn not_run(file: &Path, problem: &str) -> Failure {
    Failure::NotRun(format!(
        "no token can be read from {}: {problem}; it must hold the token that the control plane was started with",
        file.display()
    ))
}
