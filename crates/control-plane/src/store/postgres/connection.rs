//! One connection to the database, with limits that keep a dead peer from holding anybody up.

use std::time::Duration;

use journal::ChainHash;
use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::{Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::OpenError;
use super::schema::said;

/// How long anything that is asked of the database may take, the waiting for a turn included. The server gives up
/// before us, so that its answer is the one we hear.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// What the server is told about each session: a statement ends, a lock is not waited for for ever, and a turn
/// whose holder is gone or stuck is given back.
const LIMITS: &str = "SET statement_timeout = '30s';
    SET lock_timeout = '20s';
    SET idle_in_transaction_session_timeout = '10s';
    SET tcp_keepalives_idle = 5;
    SET tcp_keepalives_interval = 2;
    SET tcp_keepalives_count = 3;
    SET default_transaction_isolation = 'read committed'";

/// A session. Its traffic runs in a task that ends with it.
pub(crate) struct Connection {
    pub(crate) client: Client,
}

impl Connection {
    /// Connects with the URL's own role.
    pub(crate) async fn open(url: &SecretString) -> Result<Self, OpenError> {
        let mut config = parse(url)?;
        config
            .application_name("leviathan")
            .connect_timeout(Duration::from_secs(5))
            .keepalives_idle(Duration::from_secs(5))
            .keepalives_interval(Duration::from_secs(2))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(10))
            // A standby answers reads from the past, and takes no writes.
            .target_session_attrs(TargetSessionAttrs::ReadWrite);
        let connect = async {
            let client = if config.get_ssl_mode() == SslMode::Require {
                let (client, traffic) = config.connect(tls()?).await.map_err(unreachable)?;
                tokio::spawn(async { drop(traffic.await) });
                client
            } else {
                let (client, traffic) = config.connect(NoTls).await.map_err(unreachable)?;
                tokio::spawn(async { drop(traffic.await) });
                client
            };
            client.batch_execute(LIMITS).await.map_err(unreachable)?;
            Ok(Self { client })
        };
        tokio::time::timeout(PATIENCE, connect)
            .await
            .unwrap_or_else(|_| Err(OpenError::Unreachable("the server does not answer".to_owned())))
    }
}

/// The role that a URL names.
pub(super) fn role_of(url: &SecretString) -> Result<Option<String>, OpenError> {
    Ok(parse(url)?.get_user().map(str::to_owned))
}

/// Reads a URL, and refuses one that would send a password over a network in the clear without saying so.
fn parse(url: &SecretString) -> Result<tokio_postgres::Config, OpenError> {
    // The error names the option that is wrong, never its value.
    let mut config: tokio_postgres::Config =
        url.expose_secret().parse().map_err(|error| OpenError::Url(said(&error)))?;
    let is_here = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => matches!(name.as_str(), "localhost" | "127.0.0.1" | "::1"),
    };
    let asks_for_no_tls = config.get_ssl_mode() == SslMode::Disable;
    if config.get_ssl_mode() == SslMode::Prefer {
        if !config.get_hosts().iter().all(is_here) {
            return Err(OpenError::Plain);
        }
        config.ssl_mode(SslMode::Disable);
    }
    if asks_for_no_tls && !config.get_hosts().iter().all(is_here) {
        tracing::warn!("The connection to PostgreSQL is not encrypted, as its URL says.");
    }
    Ok(config)
}

/// TLS that trusts the certificates of the system, or those of `SSL_CERT_FILE`.
fn tls() -> Result<MakeRustlsConnect, OpenError> {
    // Whoever was first has chosen; the second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (tls, _) = MakeRustlsConnect::with_native_certs().map_err(|_| OpenError::NoCertificates)?;
    Ok(tls)
}

fn unreachable(error: tokio_postgres::Error) -> OpenError {
    OpenError::Unreachable(said(&error))
}

/// A hash as the database holds it.
pub(super) fn chain_hash(bytes: &[u8]) -> Option<ChainHash> {
    Some(ChainHash::from_bytes(bytes.try_into().ok()?))
}
