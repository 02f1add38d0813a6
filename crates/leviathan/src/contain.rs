//! The hidden `leviathan contain`: this program as the keeper of one contained command.

use std::process::ExitCode;

/// The whole life of a keeper, when this process was started as one. It must come before anything else: a keeper
/// has one thread, reads its standard input itself and knows no other argument.
pub(crate) fn run_if_keeper() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some("contain") {
        return None;
    }
    Some(executor::contain::keeper_main(&arguments.collect::<Vec<_>>()))
}
