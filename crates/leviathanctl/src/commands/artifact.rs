//! `leviathanctl artifact` fetches a stored file of an attempt.

use std::path::PathBuf;

use api::Client;
use api::types::ArtifactReceipt;
use model::Digest;

use crate::failure::Failure;
use crate::terminal::{Format, Screen, plain};
use crate::words;

/// A stored file of an attempt, such as the log of a check, by the SHA-256 that `attempts-show` gives.
///
/// On a terminal it is shown as text, cleaned of control characters; into a pipe or a file it goes byte for byte.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The SHA-256 of the content.
    #[arg(value_name = "SHA256")]
    digest: Digest,
    /// Writes it to this file, which must not exist.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) async fn run(
    arguments: Arguments,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let bytes = client.artifact(&arguments.digest).await?;
    match &arguments.out {
        Some(file) => {
            write_new(file, &bytes)?;
            let size = bytes.len() as u64;
            match screen.format {
                Format::Json => screen.json(&ArtifactReceipt { sha256: arguments.digest, size })?,
                Format::Table => {
                    let text = format!("Wrote {} to {}.", words::bytes(size), file.display());
                    screen.line(&[plain(text)])?;
                }
            }
        }
        None if screen.is_terminal => screen.block("", &String::from_utf8_lossy(&bytes))?,
        None => screen.raw(&bytes)?,
    }
    Ok(())
}

fn write_new(file: &PathBuf, bytes: &[u8]) -> Result<(), Failure> {
    let written = std::fs::File::create_new(file)
        .and_then(|mut created| std::io::Write::write_all(&mut created, bytes));
    written.map_err(|error| {
        Failure::NotRun(format!("{} cannot be written: {error}; give another --out", file.display()))
    })
}
