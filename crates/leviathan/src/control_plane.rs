//! `leviathan control-plane`: keeps the log, decides what is recorded, and answers the API.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use control_plane::{ArtifactPlace, Backend, BucketAccess, BucketUrl, Config, Database};
use model::secrets::Redactor;
use secrecy::{ExposeSecret, SecretString};

use crate::data::DataFolder;
use crate::witness::WitnessArguments;
use crate::{Answer, logging, open_files};

/// What `leviathan control-plane` is told.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    data: DataFolder,
    /// Where to listen; port 0 takes any that is free
    #[arg(long, env = "LEVIATHAN_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// Where the log is kept
    #[arg(long, env = "LEVIATHAN_BACKEND", value_enum, default_value = "ndjson")]
    backend: BackendName,
    /// With the postgres backend: the URL of the database, with a role that may only look and call functions. Better given by the environment
    #[arg(long, env = "LEVIATHAN_POSTGRES_URL", value_name = "URL", hide_env_values = true)]
    postgres_url: Option<SecretString>,
    /// The URL with the role that makes and owns the tables; used at the start only. Better given by the environment
    #[arg(long, env = "LEVIATHAN_POSTGRES_OWNER_URL", value_name = "URL", hide_env_values = true)]
    postgres_owner_url: Option<SecretString>,
    /// Keep the files of attempts in a bucket instead of the data folder: s3://BUCKET/PREFIX. Endpoint, region and keys are those of the AWS_ variables
    #[arg(long, env = "LEVIATHAN_ARTIFACTS_URL", value_name = "URL")]
    artifacts_url: Option<BucketUrl>,
    /// The operator's token: 8 characters or more, known to nobody else. Better given by the environment
    #[arg(long, env = "LEVIATHAN_CONTROL_PLANE_TOKEN", hide_env_values = true)]
    token: Option<SecretString>,
    /// The key that signs the log: PRIVATE+KEY+… as the file `log-key` has it. Better given by the environment
    #[arg(long, env = "LEVIATHAN_LOG_KEY", hide_env_values = true, value_name = "KEY")]
    log_key: Option<SecretString>,
    #[command(flatten)]
    witness: WitnessArguments,
    /// How many seconds an executor counts as alive after its last heartbeat
    #[arg(long, env = "LEVIATHAN_LEASE", value_name = "SECONDS", default_value_t = 120)]
    lease: u64,
    /// How many seconds reads go on after the journal has failed, before the process ends
    #[arg(long, env = "LEVIATHAN_READ_ONLY_FOR", value_name = "SECONDS", default_value_t = 30)]
    read_only_for: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum BackendName {
    /// Files under the data folder
    Ndjson,
    /// A PostgreSQL database
    Postgres,
    /// Nowhere: the log ends with the process
    Memory,
}

/// Serves until SIGTERM or SIGINT.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<Answer> {
    let config = config(arguments)?;
    let _telemetry = logging::start_with_spans("leviathan-control-plane", &redactor(&config));
    open_files::raise_limit();
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    runtime.block_on(control_plane::serve(config, |address| {
        anstream::println!("Listening on http://{address}");
    }))?;
    Ok(Answer::Yes)
}

/// Those of the variables for S3 that are secrets.
const SECRETS_OF_S3: [&str; 2] = ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

/// Knows every secret that this process holds.
fn redactor(config: &Config) -> Redactor {
    let database = match &config.backend {
        Backend::Postgres(database) => Some(database),
        Backend::Ndjson | Backend::Memory => None,
    };
    let urls = database.into_iter().flat_map(|it| [Some(&it.url), it.owner_url.as_ref()]).flatten();
    let variables = match &config.artifacts {
        ArtifactPlace::Bucket(access) => access.variables.as_slice(),
        ArtifactPlace::DataFolder => &[],
    };
    let of_bucket = variables.iter().filter(|(name, _)| SECRETS_OF_S3.contains(&name.as_str()));
    let of_bucket = of_bucket.map(|(_, value)| value);
    let held = [&config.token].into_iter().chain(&config.log_key).chain(urls).chain(of_bucket);
    Redactor::new(held.map(|secret| secret.expose_secret()))
}

fn config(arguments: Arguments) -> anyhow::Result<Config> {
    let backend = match arguments.backend {
        BackendName::Ndjson => Backend::Ndjson,
        BackendName::Memory => Backend::Memory,
        BackendName::Postgres => Backend::Postgres(Database {
            url: arguments.postgres_url.context(
                "LEVIATHAN_BACKEND is postgres but LEVIATHAN_POSTGRES_URL is not set: set it to such as postgres://leviathan:password@host/leviathan?sslmode=require",
            )?,
            owner_url: arguments.postgres_owner_url,
        }),
    };
    let token = arguments.token.context(
        "LEVIATHAN_CONTROL_PLANE_TOKEN is not set: set it to a long random text, such as that of `openssl rand -hex 32`",
    )?;
    let data = arguments.data.path()?;
    Ok(Config {
        listen: arguments.listen,
        backend,
        artifacts: arguments.artifacts_url.map_or(ArtifactPlace::DataFolder, in_a_bucket),
        log_key: arguments.log_key,
        witness: arguments.witness.access(),
        lease: Duration::from_secs(arguments.lease),
        read_only_for: Duration::from_secs(arguments.read_only_for),
        ..Config::new(data, token)
    })
}

/// With every variable by which programs for S3 are told where it is and how to be let in.
fn in_a_bucket(url: BucketUrl) -> ArtifactPlace {
    let of_s3 = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok().filter(|name| name.starts_with("AWS_"))?;
        Some((name, SecretString::from(value.into_string().ok()?)))
    });
    ArtifactPlace::Bucket(BucketAccess { url, variables: of_s3.collect() })
}
