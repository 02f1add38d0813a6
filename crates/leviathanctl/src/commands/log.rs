//! `leviathanctl log …`: the log as evidence. Nothing here believes the control plane: it fetches, and judges by
//! the key alone.

mod audit;
mod export;
mod folder;
mod import;
mod keygen;
mod remote;
mod verify;

use std::path::{Path, PathBuf};

use api::Client;
use api::types::ProofQuery;
use journal::{Checkpoint, CheckpointError, Note, NoteError, VerifierKey, WitnessKey};
use model::EventId;

use crate::failure::Failure;
use crate::terminal::{Screen, plain};

/// Proves that the log is the one that was signed, and hands over what others need to prove it.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Verify(verify::Arguments),
    Checkpoint(CheckpointArguments),
    Proof(ProofArguments),
    Vkey(VkeyArguments),
    Export(export::Arguments),
    Import(import::Arguments),
    Keygen(keygen::Arguments),
}

/// The key that the answers of a log are judged by.
#[derive(Debug, clap::Args)]
#[group(skip)]
struct Key {
    /// The key that verifies the log's checkpoints, as `log vkey` printed it when you trusted it.
    ///
    /// Without it LEVIATHAN_LOG_VKEY. Without both, no signature is checked, and the answer says so.
    #[arg(long = "key", value_name = "VKEY")]
    key: Option<VerifierKey>,
}

impl Key {
    /// The key that was given, or the one of the environment.
    fn or(self, environment: Option<&str>) -> Result<Option<VerifierKey>, Failure> {
        let read = |text: &str| {
            text.parse()
                .map_err(|problem| Failure::NotRun(format!("LEVIATHAN_LOG_VKEY cannot be used: {problem}")))
        };
        self.key.map_or_else(|| environment.map(read).transpose(), |key| Ok(Some(key)))
    }
}

/// The newest signed checkpoint. Keep one elsewhere, and `log verify --since FILE` holds the log to it.
#[derive(Debug, clap::Args)]
struct CheckpointArguments {
    #[command(flatten)]
    key: Key,
    /// The newest that this witness cosigned, instead of the newest: the key that its operator publishes.
    #[arg(long, value_name = "VKEY")]
    witness: Option<WitnessKey>,
}

/// The proof that an event is in the log: a text that can be kept and verified without the log.
#[derive(Debug, clap::Args)]
struct ProofArguments {
    /// The id of the event, as `events-tail --output json` shows it.
    #[arg(value_name = "EVENT_ID")]
    event: EventId,
}

/// The key that verifies the log, as the control plane tells it. Compare it with the one that the control plane's
/// operator sees: from then on it takes nobody's word.
#[derive(Debug, clap::Args)]
struct VkeyArguments {}

pub(crate) async fn run(
    arguments: Arguments,
    client: Result<Client, Failure>,
    vkey: Option<&str>,
    screen: &mut Screen<'_>,
) -> Result<(), Failure> {
    match arguments.command {
        Command::Verify(arguments) => verify::run(arguments, client, vkey, screen).await,
        Command::Checkpoint(arguments) => {
            let key = arguments.key.or(vkey)?;
            let client = client?;
            let note = match &arguments.witness {
                Some(_) => client.log_witnessed_checkpoint().await?,
                None => client.log_checkpoint().await?,
            };
            let judged = judge(&note, key.as_ref()).map_err(|problem| untrue("the checkpoint", &problem))?;
            if let Some(witness) = &arguments.witness {
                witness.cosigned(&judged.note).map_err(|problem| untrue("the checkpoint", &problem))?;
            }
            show(&note, screen)
        }
        Command::Proof(ProofArguments { event }) => {
            let proof = client?.log_proof(&ProofQuery { event_id: event }).await?;
            show(&proof, screen)
        }
        Command::Vkey(VkeyArguments {}) => show(&client?.log_vkey().await?, screen),
        Command::Export(arguments) => export::run(arguments, &client?, vkey, screen).await,
        Command::Import(arguments) => import::run(arguments, vkey, screen),
        Command::Keygen(arguments) => keygen::run(&arguments, screen),
    }
}

/// A text as it is, since every byte of it counts; on a terminal, cleaned.
fn show(text: &str, screen: &mut Screen<'_>) -> Result<(), Failure> {
    if screen.is_terminal {
        text.lines().try_for_each(|line| screen.line(&[plain(line)]))?;
    } else {
        screen.raw(text.as_bytes())?;
    }
    Ok(())
}

/// The answer no, about something that does not verify.
fn untrue(what: &str, problem: &impl std::fmt::Display) -> Failure {
    Failure::No(format!("{what} is not to be believed: {problem}"))
}

fn unreadable(path: &Path, problem: &impl std::fmt::Display) -> Failure {
    Failure::NotRun(format!("{} cannot be read: {problem}", path.display()))
}

/// A checkpoint, and whether its signature was verified.
struct Judged {
    checkpoint: Checkpoint,
    is_verified: bool,
    /// With all its signatures.
    note: Note,
}

impl Judged {
    /// When the witness cosigned it, in seconds since 1970, if it did. A wrong line in its name is an answer too.
    fn cosigned(&self, witness: &WitnessKey) -> Result<Option<u64>, NoteError> {
        match witness.cosigned(&self.note) {
            Ok(time) => Ok(Some(time)),
            Err(NoteError::Unsigned { .. }) => Ok(None),
            Err(problem @ (NoteError::Format(_) | NoteError::Signature { .. })) => Err(problem),
        }
    }
}

/// Opens a note with the key, or reads it without.
fn judge(note: &str, key: Option<&VerifierKey>) -> Result<Judged, CheckpointError> {
    let checkpoint = match key {
        Some(key) => Checkpoint::open(note, key)?,
        None => Checkpoint::read_unverified(note)?,
    };
    Ok(Judged { checkpoint, is_verified: key.is_some(), note: Note::parse(note)? })
}

/// An older checkpoint that was kept elsewhere.
fn kept(file: &PathBuf, key: Option<&VerifierKey>) -> Result<Judged, Failure> {
    let note = std::fs::read_to_string(file).map_err(|problem| unreadable(file, &problem))?;
    judge(&note, key).map_err(|problem| untrue(&format!("the checkpoint in {}", file.display()), &problem))
}
