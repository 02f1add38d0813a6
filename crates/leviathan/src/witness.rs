//! Who is shown the checkpoints of the log, as the command line and the environment say it.

use clap::Args;
use control_plane::{WitnessAccess, WitnessKey, WitnessUrl};

/// What a control plane is told of its witness: nothing, or both.
#[derive(Args)]
pub(crate) struct WitnessArguments {
    /// Show each checkpoint to the witness at this prefix, to have it cosigned as C2SP tlog-witness says
    #[arg(long, env = "LEVIATHAN_WITNESS_URL", value_name = "URL", requires = "witness_key")]
    witness_url: Option<WitnessUrl>,
    /// The key that verifies what the witness signs: NAME+ID+BASE64, as its operator publishes it
    #[arg(long, env = "LEVIATHAN_WITNESS_KEY", value_name = "VKEY", requires = "witness_url")]
    witness_key: Option<WitnessKey>,
}

impl WitnessArguments {
    /// The witness, if there is one.
    pub(crate) fn access(self) -> Option<WitnessAccess> {
        let (url, key) = self.witness_url.zip(self.witness_key)?;
        Some(WitnessAccess { url, key })
    }
}
