//! Where a role's own log goes: to standard error, as much as `LEVIATHAN_LOG` asks for, and without any secret.

use std::io::{self, IsTerminal, Write};

use model::secrets::Redactor;
use tracing_subscriber::EnvFilter;

/// Begins to log. `LEVIATHAN_LOG` takes a level (`debug`) or a filter (`info,leviathan_scheduler=debug`).
pub(crate) fn start(redactor: &Redactor) {
    let filter = EnvFilter::try_from_env("LEVIATHAN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let redactor = redactor.clone();
    let writer = move || Cleaned { redactor: redactor.clone(), to: io::stderr() };
    // A second start, by a command that runs two roles in one process, changes nothing.
    let log = tracing_subscriber::fmt().with_ansi(io::stderr().is_terminal()).with_writer(writer);
    let _ = log.with_env_filter(filter).try_init();
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
