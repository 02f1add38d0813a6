//! One writer per journal: a lock that the kernel releases when its holder dies, however it dies.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::OpenError;

/// Held for as long as the store is open.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of `folder` at once or not at all.
    pub(super) fn acquire(folder: &Path) -> Result<Self, OpenError> {
        let path = folder.join("LOCK");
        let io = |source| OpenError::Io { action: "cannot lock", path: path.clone(), source };
        let mut file =
            File::options().create(true).truncate(false).read(true).write(true).open(&path).map_err(io)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(OpenError::Locked { folder: folder.into(), holder: holder(&mut file) });
            }
            Err(error) => return Err(io(error.into())),
        }
        name_holder(&mut file).map_err(io)?;
        Ok(Self { _file: file })
    }
}

/// Leaves the process id for whoever finds the lock taken. Nothing decides by it.
fn name_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(20).read_to_string(&mut text).map(|_| text.trim().parse::<u32>()) {
        Ok(Ok(pid)) => format!("process {pid}"),
        Ok(Err(_)) | Err(_) => "another process".to_owned(),
    }
}
