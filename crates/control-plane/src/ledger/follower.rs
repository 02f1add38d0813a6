//! Takes in what other processes record in a log that is shared, so that readers see it although nobody writes here.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{ReplayError, Shared};
use crate::store::ReadError;

/// How long to wait before the log that cannot be reached is tried again.
const WHILE_UNREACHABLE: Duration = Duration::from_millis(500);

/// Starts to look every `interval`. Ends by itself once nobody else holds the ledger.
pub(super) fn start(shared: &Arc<Shared>, interval: Duration) -> std::io::Result<()> {
    let shared = Arc::downgrade(shared);
    let follower = std::thread::Builder::new().name("follower".to_owned());
    follower.spawn(move || follow(&shared, interval)).map(drop)
}

fn follow(shared: &Weak<Shared>, interval: Duration) {
    let mut is_reachable = true;
    loop {
        std::thread::sleep(if is_reachable { interval } else { WHILE_UNREACHABLE });
        let Some(shared) = shared.upgrade() else { return };
        match shared.catch_up() {
            Ok(()) => {
                if !is_reachable {
                    tracing::info!("The journal can be reached again.");
                }
                is_reachable = true;
                shared.unreachable.send_replace(None);
            }
            Err(ReplayError::Read(error @ (ReadError::Io { .. } | ReadError::Unavailable { .. }))) => {
                if is_reachable {
                    tracing::warn!(%error, "The journal cannot be reached: readers see what was known until now.");
                }
                is_reachable = false;
                shared.unreachable.send_replace(Some(error.to_string()));
            }
            Err(error @ (ReplayError::Read(_) | ReplayError::Unknown(_))) => {
                // Nothing can be decided on a log that is not what was written.
                shared.stopped.send_replace(Some(error.to_string()));
                return;
            }
        }
    }
}
