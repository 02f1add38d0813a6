//! Where Leviathan keeps everything on this machine.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

/// The one folder of an installation.
#[derive(Args)]
pub(crate) struct DataFolder {
    /// The folder of the journal, artifacts, mirrors and attempts [default: ~/.leviathan]
    #[arg(long = "data-dir", env = "LEVIATHAN_DATA_DIR", value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
}

impl DataFolder {
    /// The folder that was named, or the one in the user's home.
    pub(crate) fn path(&self) -> anyhow::Result<PathBuf> {
        match &self.data_dir {
            Some(folder) => Ok(folder.clone()),
            None => std::env::home_dir()
                .map(|home| home.join(".leviathan"))
                .context("there is no home folder: name a folder with LEVIATHAN_DATA_DIR"),
        }
    }
}
