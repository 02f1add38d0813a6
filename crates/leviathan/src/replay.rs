//! `leviathan replay`: does again what a transcript records, offline, and compares the commit.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context;
use executor::agent::claude::replay::{Ground, Round, replay};
use executor::contain::Containment;
use target::{Git, Repository};

use crate::Answer;
use crate::sandbox::SandboxSettings;

/// What `leviathan replay` is told.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    sandbox: SandboxSettings,
    /// The repository that has the base commit; it is only read
    #[arg(long = "dir", value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// Leave out the policy's `setup`
    #[arg(long)]
    without_setup: bool,
    /// The search path of commands, as executors have it
    #[arg(long, env = "LEVIATHAN_COMMAND_PATH", value_name = "PATH")]
    command_path: Option<String>,
    /// The transcript of an attempt: `leviathanctl artifact SHA256 > transcript.jsonl`
    #[arg(value_name = "TRANSCRIPT")]
    transcript: PathBuf,
}

/// Replays, prints, and says whether every round came to the same commit.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<Answer> {
    let Arguments { sandbox, directory, without_setup, command_path, transcript } = arguments;
    let sandbox = sandbox.into_sandbox()?;
    let text = std::fs::read(&transcript).with_context(|| format!("cannot read {}", transcript.display()))?;
    let program = std::env::current_exe().context("this program does not know its own file")?;
    let repository = Repository::open(&Git::find()?, &git_folder(directory))?;
    let folder = tempfile::Builder::new().prefix("leviathan-replay-").tempdir()?;
    let environment: BTreeMap<_, _> =
        command_path.map(|path| ("PATH".to_owned(), path)).into_iter().collect();
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let rounds = runtime.block_on(async {
        let private = folder.path().join("private");
        let proven = sandbox.prove(&Containment::new(program, environment), &private).await?;
        let ground = Ground {
            repository: &repository,
            folder: folder.path(),
            containment: &proven.containment,
            setup: !without_setup,
        };
        replay(&text, &ground).await.with_context(|| format!("cannot replay {}", transcript.display()))
    })?;
    rounds.iter().enumerate().for_each(|(index, round)| print(index + 1, round));
    let is_same = rounds.iter().all(|round| round.made == round.recorded);
    Ok(if is_same { Answer::Yes } else { Answer::No })
}

/// A clone keeps its objects in `.git`; a bare repository is one itself.
fn git_folder(directory: PathBuf) -> PathBuf {
    let inside = directory.join(".git");
    if inside.exists() { inside } else { directory }
}

fn print(number: usize, round: &Round) {
    let Round { uses, differences, recorded, made } = round;
    anstream::println!("round {number}: {uses} uses of tools made again");
    for difference in differences {
        anstream::println!("  line {}: `{}` said something else", difference.line, difference.tool);
    }
    anstream::println!("  recorded {recorded}");
    let verdict = if made == recorded { "the same" } else { "NOT THE SAME" };
    anstream::println!("  made     {made}: {verdict}");
}
