//! Where a role's own log goes: to standard error, as much as `LEVIATHAN_LOG` asks for.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// Begins to log. `LEVIATHAN_LOG` takes a level (`debug`) or a filter (`info,leviathan_scheduler=debug`).
pub(crate) fn start() {
    let filter = EnvFilter::try_from_env("LEVIATHAN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // A second start, by a command that runs two roles in one process, changes nothing.
    let log = tracing_subscriber::fmt().with_ansi(io::stderr().is_terminal()).with_writer(io::stderr);
    let _ = log.with_env_filter(filter).try_init();
}
