//! The descriptors that this process inherited from its own parents: taken over by number, and kept out of the command.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// Marks every descriptor above the three standard ones so that executing the command closes it.
///
/// Call it only while this process has a single thread.
pub(super) fn close_all_on_exec() -> io::Result<()> {
    let numbers: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number > 2)
        .collect();
    for number in numbers {
        mark(number)?;
    }
    Ok(())
}

/// Takes over the inherited descriptor `number`, which the keeper left open for this process and told it of. Call it
/// once.
#[expect(unsafe_code, reason = "an inherited descriptor is known only by its number")]
pub(super) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the borrow is for one call, which fails cleanly when the number is not open.
    fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) })?;
    // SAFETY: it is open, and nothing else in this process knows the number, so that this is its only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[expect(unsafe_code, reason = "an inherited descriptor is known only by its number")]
fn mark(number: RawFd) -> io::Result<()> {
    // SAFETY: the borrow ends with this function, the process has one thread, so nothing closes or reuses the
    // number meanwhile; both calls only read and set a flag and fail cleanly when the number is not open.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    match fcntl_getfd(descriptor) {
        // The descriptor that listed the folder is closed by now.
        Err(rustix::io::Errno::BADF) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(flags) => Ok(fcntl_setfd(descriptor, flags | FdFlags::CLOEXEC)?),
    }
}
