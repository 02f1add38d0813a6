//! `leviathanctl log keygen` makes the key of a log that several control planes sign.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use journal::{KeyName, SigningKey};

use crate::failure::Failure;
use crate::terminal::{Screen, plain};

/// Makes a key that signs a log, and prints the key that verifies it. No control plane is asked.
///
/// A log in files makes its own at the first start. One in a database is signed by every control plane that has this
/// one, as LEVIATHAN_LOG_KEY=$(cat FILE).
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The name of the log, such as `example.com/leviathan`: a new log takes it, an old one has it already.
    #[arg(value_name = "NAME")]
    name: String,
    /// The file of the secret key, which must not exist.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(crate) fn run(arguments: &Arguments, screen: &mut Screen<'_>) -> Result<(), Failure> {
    let name = KeyName::parse(&arguments.name)
        .map_err(|problem| Failure::NotRun(format!("NAME cannot be used: {problem}")))?;
    let failed = |problem: io::Error| {
        Failure::NotRun(format!("the key cannot be written to {}: {problem}", arguments.file.display()))
    };
    let key = SigningKey::from_seed(name, &random().map_err(failed)?);
    let mut file =
        File::options().write(true).create_new(true).mode(0o600).open(&arguments.file).map_err(failed)?;
    writeln!(file, "{}", key.to_secret_text()).and_then(|()| file.sync_all()).map_err(failed)?;
    screen.line(&[plain(key.verifier().to_string())])?;
    Ok(())
}

fn random() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(seed)
}
