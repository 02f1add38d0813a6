//! Namespaces by the system's own bubblewrap: the command sees a root of its own, no process of others, and a
//! network without a way out.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::walls::{PROCESSORS, Places, SYSTEM, Walls, is_of_the_system};

/// Where a bubblewrap may lie that is the system's. It is never looked for on a PATH or in a tree.
const PLACES: &[&str] = &["/usr/bin/bwrap", "/usr/local/bin/bwrap", "/bin/bwrap"];

/// The system's bubblewrap.
pub fn find() -> Option<PathBuf> {
    PLACES.iter().map(PathBuf::from).find(|path| path.is_file())
}

/// Its version in its own words.
pub fn version(bubblewrap: &Path) -> Option<String> {
    let output = Command::new(bubblewrap).arg("--version").env_clear().output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| output.status.success() && !text.is_empty())
}

/// What bubblewrap is told, up to the program that it shall run: that is the caller's to add.
pub(super) fn arguments(walls: &Walls, places: &Places, program: &Path) -> Vec<OsString> {
    let mut told = Told::default();
    told.flags(&["--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]);
    told.flags(&["--unshare-cgroup-try", "--hostname", "leviathan", "--cap-drop", "ALL"]);
    told.flags(&["--die-with-parent", "--new-session", "--as-pid-1"]);
    for path in SYSTEM.iter().map(Path::new) {
        told.mirror(path);
    }
    // Landlock opens only some of `/etc`. Mounting these one by one would cost more than all the rest.
    for path in ["/etc", PROCESSORS].map(Path::new) {
        told.bind("--ro-bind-try", path);
    }
    told.flags(&["--proc", "/proc", "--dev", "/dev"]);
    // Beneath `/tmp` a folder of the host would get the mount points of the tree.
    if places.directory.starts_with("/tmp") || places.scratch.starts_with("/tmp") {
        told.flags(&["--tmpfs", "/tmp"]);
    } else {
        told.flag("--bind").flag(places.temporary()).flag("/tmp");
    }
    for path in walls.read().iter().filter(|path| !is_of_the_system(path)) {
        told.bind("--ro-bind-try", path);
    }
    told.bind("--ro-bind", program);
    let [directory, home, temporary] = places.writable();
    told.bind("--bind", &directory);
    told.bind("--ro-bind", &places.scratch);
    told.bind("--bind", &home);
    told.bind("--bind", &temporary);
    told.flags(&["--remount-ro", "/", "--chdir"]).flag(directory).flag("--");
    told.0
}

#[derive(Default)]
struct Told(Vec<OsString>);

impl Told {
    fn flag(&mut self, flag: impl Into<OsString>) -> &mut Self {
        self.0.push(flag.into());
        self
    }

    fn flags(&mut self, flags: &[&str]) -> &mut Self {
        self.0.extend(flags.iter().map(OsString::from));
        self
    }

    /// A folder of the host, or the link that it is there.
    fn mirror(&mut self, path: &Path) {
        match std::fs::read_link(path) {
            Ok(target) => {
                self.flag("--symlink").flag(target).flag(path);
            }
            Err(_) => self.bind("--ro-bind-try", path),
        }
    }

    /// A place of the host at the same place inside.
    fn bind(&mut self, how: &str, path: &Path) {
        self.flag(how).flag(path).flag(path);
    }
}
