//! `leviathan copy-log`: the whole log of one place into another, byte for byte.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context;
use clap::Args;
use control_plane::{Backend, Config, Database};
use model::secrets::Redactor;
use secrecy::{ExposeSecret, SecretString};

use crate::{Answer, logging};

/// What `leviathan copy-log` is told.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Where the log is: a data folder, or `postgres` for the database of LEVIATHAN_POSTGRES_URL
    #[arg(value_name = "FROM")]
    from: Place,
    /// Where it shall be: a data folder without a journal, or `postgres` for a database without a log
    #[arg(value_name = "INTO")]
    into: Place,
    /// The URL of the database. Better given by the environment
    #[arg(long, env = "LEVIATHAN_POSTGRES_URL", value_name = "URL", hide_env_values = true)]
    postgres_url: Option<SecretString>,
    /// The URL with the role that makes and owns the tables. Better given by the environment
    #[arg(long, env = "LEVIATHAN_POSTGRES_OWNER_URL", value_name = "URL", hide_env_values = true)]
    postgres_owner_url: Option<SecretString>,
}

/// Where a log is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Folder(PathBuf),
    Postgres,
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "postgres" => Ok(Self::Postgres),
            // A password on the command line can be read by everybody on this machine.
            _ if text.contains("://") => Err("say `postgres`, and give the URL in LEVIATHAN_POSTGRES_URL"),
            _ => Ok(Self::Folder(text.into())),
        }
    }
}

/// Copies the log, and says what is left to do.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<Answer> {
    let Arguments { from, into, postgres_url, postgres_owner_url } = arguments;
    let held = postgres_url.iter().chain(&postgres_owner_url);
    logging::start(&Redactor::new(held.map(|secret| secret.expose_secret())));
    anyhow::ensure!(from != into, "FROM and INTO are the same place: nothing was copied");
    if let Place::Folder(folder) = &from {
        anyhow::ensure!(
            folder.join("journal/origin").exists(),
            "{} has no journal: FROM is the data folder of a control plane, or `postgres`",
            folder.display()
        );
    }
    let database = match postgres_url {
        _ if !matches!((&from, &into), (Place::Postgres, _) | (_, Place::Postgres)) => None,
        Some(url) => Some(Database { url, owner_url: postgres_owner_url }),
        None => {
            anyhow::bail!("LEVIATHAN_POSTGRES_URL is not set: `postgres` means the database that it names")
        }
    };
    let records =
        control_plane::copy_log(&config(from, database.as_ref())?, &config(into, database.as_ref())?)
            .context("the log was not copied")?;
    anstream::println!(
        "Copied {records} records. Give the control plane of the copy the same key: copy `log-key`, or set LEVIATHAN_LOG_KEY. Artifacts are not in the log: copy `artifacts` too."
    );
    Ok(Answer::Yes)
}

fn config(place: Place, database: Option<&Database>) -> anyhow::Result<Config> {
    // Nobody is served, so the token is nobody's.
    let new = |folder| Config::new(folder, SecretString::from("unused"));
    Ok(match (place, database) {
        (Place::Folder(folder), _) => new(folder),
        (Place::Postgres, Some(database)) => {
            Config { backend: Backend::Postgres(database.clone()), ..new(PathBuf::from("unused")) }
        }
        (Place::Postgres, None) => anyhow::bail!("there is no database to copy from or into"),
    })
}
