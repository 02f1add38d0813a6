//! `leviathanctl log export` writes the whole log into one file that can be verified without a control plane.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use api::Client;

use super::audit::Audit;
use super::folder::{ExportHead, FORMAT};
use super::{Key, judge, remote, untrue};
use crate::failure::Failure;
use crate::terminal::{Screen, plain};

/// Writes the records up to the newest checkpoint, each in the bytes that were hashed, and the checkpoint. The
/// result is verified while it is written: `log verify --offline FILE` verifies it again, anywhere.
///
/// The commit lines of the journal say how records were written, not what they are, and are left out.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    key: Key,
    /// The file, which must not exist; `-` is standard output.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(crate) async fn run(
    arguments: Arguments,
    client: &Client,
    vkey: Option<&str>,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    let key = arguments.key.or(vkey)?;
    let note = client.log_checkpoint().await?;
    let judged = judge(&note, key.as_ref()).map_err(|problem| untrue("the checkpoint", &problem))?;
    let checkpoint = judged.checkpoint;
    let origin = checkpoint.origin.to_string();
    let head = ExportHead { format: FORMAT.to_owned(), origin: origin.clone(), checkpoint: note };
    let is_stdout = arguments.file.as_os_str() == "-";
    let failed = |problem: std::io::Error| {
        Failure::NotRun(format!("{} cannot be written: {problem}", arguments.file.display()))
    };
    let mut file = match is_stdout {
        true => None,
        false => Some(BufWriter::new(File::create_new(&arguments.file).map_err(failed)?)),
    };
    let mut write = |line: &[u8], screen: &mut Screen<'_>| -> Result<(), Failure> {
        let line = [line, b"\n"].concat();
        match &mut file {
            Some(file) => file.write_all(&line).map_err(failed),
            None => Ok(screen.raw(&line)?),
        }
    };
    let first = serde_json::to_vec(&head).map_err(|problem| Failure::NotRun(problem.to_string()))?;
    write(&first, screen)?;
    let mut audit = Audit::new(&origin, &[checkpoint.size]);
    remote::entries(client, checkpoint.size, |line| {
        audit.take_line(line).map_err(Failure::No)?;
        write(line, screen)
    })
    .await?;
    audit.compare("its checkpoint", &checkpoint).map_err(Failure::No)?;
    if let Some(mut file) = file {
        file.flush().map_err(failed)?;
        let told = format!("Wrote {} records to {}.", checkpoint.size, arguments.file.display());
        screen.line(&[plain(told)])?;
    }
    Ok(())
}
