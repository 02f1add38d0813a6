//! `leviathanctl`: what the operator sees and steers.
//!
//! Every command is a question to the control plane and an answer on the screen; nothing is kept or decided
//! here. The environment, the clock and the terminal are looked at in this file alone.

mod commands;
mod connection;
mod describe;
mod failure;
mod table;
mod terminal;
#[cfg(test)]
mod tests;
mod words;

use std::env;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use model::event::Timestamp;
use secrecy::SecretString;

use crate::commands::Command;
use crate::connection::Environment;
use crate::failure::Failure;
use crate::terminal::{Format, Screen, clean};

/// Shows what Leviathan did and does, and steers it.
///
/// Exit codes: 0 done; 1 the answer is no; 2 it could not be asked.
#[derive(Debug, Parser)]
#[command(name = "leviathanctl", version, arg_required_else_help = true, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    connection: connection::Arguments,
    /// For people or for programs.
    #[arg(long, value_name = "FORMAT", global = true, default_value = "table")]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut screen = screen(arguments.output);
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::NotRun(format!("this machine gives no event loop: {error}")))
        .and_then(|runtime| runtime.block_on(run(arguments, &environment(), &mut screen)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let (text, code) = failure.report();
            if let Some(text) = text {
                eprintln!("leviathanctl: {}", text.lines().map(clean).collect::<Vec<_>>().join("\n"));
            }
            code
        }
    }
}

async fn run(
    arguments: Arguments,
    environment: &Environment,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let client = connection::connect(&arguments.connection, environment);
    arguments.command.run(client, environment.log_vkey.as_deref(), screen).await?;
    Ok(screen.flush()?)
}

fn environment() -> Environment {
    Environment {
        control_plane_url: variable("LEVIATHAN_CONTROL_PLANE_URL"),
        api_url: variable("LEVIATHAN_API_URL"),
        token: variable("LEVIATHAN_CONTROL_PLANE_TOKEN").map(SecretString::from),
        log_vkey: variable("LEVIATHAN_LOG_VKEY"),
        data_dir: variable("LEVIATHAN_DATA_DIR")
            .map(PathBuf::from)
            .or_else(|| env::home_dir().map(|home| home.join(".leviathan"))),
    }
}

/// An empty variable counts as absent, as everywhere in Leviathan.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn screen(format: Format) -> Screen<'static> {
    let out = io::stdout();
    let is_terminal = out.is_terminal();
    let columns = rustix::termios::tcgetwinsize(&out).ok().map(|size| usize::from(size.ws_col));
    let now = Timestamp::new(jiff::Timestamp::now());
    let mut screen = Screen::new(io::BufWriter::new(out), format, now);
    screen.width = columns.filter(|&columns| is_terminal && columns > 0);
    screen.is_terminal = is_terminal;
    screen.is_coloured =
        is_terminal && variable("NO_COLOR").is_none() && variable("TERM").as_deref() != Some("dumb");
    screen
}
