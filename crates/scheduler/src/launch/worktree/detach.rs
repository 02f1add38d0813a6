//! The one thing that safe code cannot ask for: that a child begins in a session of its own.

use tokio::process::Command;

/// Lets the child begin in a new session, so that neither the end of the scheduler's terminal nor a signal to
/// its process group reaches it.
#[expect(unsafe_code, reason = "the standard library has no stable way to start a child in its own session")]
pub(super) fn into_own_session(command: &mut Command) {
    // SAFETY: the closure runs in the child between fork and exec. It makes one system call, which is
    // async-signal-safe, and touches neither memory nor locks of the parent.
    unsafe {
        command.pre_exec(|| rustix::process::setsid().map(drop).map_err(Into::into));
    }
}
