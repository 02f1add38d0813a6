//! Where a role's own log goes: to standard error, as much as `LEVIATHAN_LOG` asks for, and without any secret.

use std::io::{self, IsTerminal, Write};

use model::secrets::Redactor;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::telemetry::Telemetry;

/// Begins to log. `LEVIATHAN_LOG` takes a level (`debug`) or a filter (`info,leviathan_scheduler=debug`).
pub(crate) fn start(redactor: &Redactor) {
    // A second start, by a command that runs two roles in one process, changes nothing.
    let _ = begin(redactor, &Telemetry::default());
}

/// The same for a role that tells a collector of its work, if the environment names one. It does as long as what is
/// answered here is kept.
pub(crate) fn start_with_spans(service: &'static str, redactor: &Redactor) -> Telemetry {
    let (telemetry, problem) = match Telemetry::of_environment(service, redactor) {
        Ok(telemetry) => (telemetry, None),
        Err(problem) => (Telemetry::default(), Some(problem)),
    };
    let _ = begin(redactor, &telemetry);
    if let Some(problem) = problem {
        tracing::warn!(
            error = format!("{problem:#}"),
            "No spans are sent to a collector; everything else goes on."
        );
    }
    telemetry
}

fn begin(redactor: &Redactor, telemetry: &Telemetry) -> Result<(), tracing_subscriber::util::TryInitError> {
    let filter = EnvFilter::try_from_env("LEVIATHAN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // Spans for a collector are no part of the log.
    let not_traced =
        format!("{}=off", api::trace::TARGET).parse().expect("a name and a level are a directive");
    let filter = filter.add_directive(not_traced);
    let redactor = redactor.clone();
    let writer = move || Cleaned { redactor: redactor.clone(), to: io::stderr() };
    let is_terminal = io::stderr().is_terminal();
    match telemetry.layer() {
        None => {
            let log = tracing_subscriber::fmt().with_ansi(is_terminal).with_writer(writer);
            log.with_env_filter(filter).finish().try_init()
        }
        Some(spans) => {
            let log = tracing_subscriber::fmt::layer().with_ansi(is_terminal).with_writer(writer);
            tracing_subscriber::registry().with(spans).with(log.with_filter(filter)).try_init()
        }
    }
}

/// Takes the secrets out of each line, which arrives in one piece.
struct Cleaned<W> {
    redactor: Redactor,
    to: W,
}

impl<W: Write> Write for Cleaned<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write_all(self.redactor.clean(&String::from_utf8_lossy(bytes)).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_is_without_secrets() {
        let mut line = Cleaned { redactor: Redactor::new(["a-token-of-ours"]), to: Vec::new() };
        writeln!(line, "refused a-token-of-ours").unwrap();
        assert_eq!(line.to, b"refused [redacted]\n");
    }
}
