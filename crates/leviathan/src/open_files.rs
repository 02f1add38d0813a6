//! How many files and connections this process may have open at once.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the limit as far as the system lets an ordinary process: by default it is 1,024, and each reader of the stream is
/// a connection. Where that is refused, the limit stays as it is.
pub(crate) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "The limit of open files could not be raised.");
    }
}
