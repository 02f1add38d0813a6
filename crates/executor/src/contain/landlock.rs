//! Landlock: the kernel refuses this process, and everything it starts, every file that no rule names.

use std::io;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope, make_bitflags, path_beneath_rules,
};

use super::walls::{PROCESSORS, Places, SYSTEM, Walls, configuration};

/// The oldest landlock that can refuse every way to change a file.
pub const OLDEST_ABI: i32 = 3;
/// From here on it refuses TCP,
const NETWORK_ABI: i32 = 4;
/// here the control of devices,
const DEVICES_ABI: i32 = 5;
/// and here signals and abstract sockets that leave the sandbox.
pub const SCOPES_ABI: i32 = 6;

const DEVICES: &[&str] = &["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];
/// Inside namespaces these are the command's own.
const OWN_DEVICES: &[&str] = &["/dev/shm", "/dev/pts", "/dev/ptmx", "/dev/tty"];

/// Restricts this process for good.
pub(super) fn restrict(walls: &Walls, places: &Places) -> io::Result<()> {
    let abi = version().ok_or_else(|| io::Error::other("this kernel has no landlock"))?;
    if abi < OLDEST_ABI {
        return Err(io::Error::other(format!("landlock has ABI {abi} here, and {OLDEST_ABI} is needed")));
    }
    let status = restrict_at(abi, walls, places)
        .map_err(|error| io::Error::other(format!("landlock (ABI {abi}): {error}")))?;
    match status {
        RulesetStatus::FullyEnforced => Ok(()),
        RulesetStatus::PartiallyEnforced | RulesetStatus::NotEnforced => {
            Err(io::Error::other(format!("landlock (ABI {abi}) is not fully enforced")))
        }
    }
}

fn restrict_at(abi: i32, walls: &Walls, places: &Places) -> Result<RulesetStatus, landlock::RulesetError> {
    let handled = AccessFs::from_all(if abi >= DEVICES_ABI { ABI::V5 } else { ABI::V3 });
    let read = make_bitflags!(AccessFs::{Execute | ReadFile | ReadDir});
    // Nobody needs a device file in a tree.
    let change: BitFlags<AccessFs> = handled & !make_bitflags!(AccessFs::{MakeChar | MakeBlock | IoctlDev});
    let device = handled & make_bitflags!(AccessFs::{ReadFile | WriteFile | Truncate | IoctlDev});
    let has_namespaces = walls.bubblewrap().is_some();

    let mut ruleset =
        Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(handled)?;
    // A network namespace has no way out, and what is inside it is the command's own.
    if abi >= NETWORK_ABI && !has_namespaces {
        ruleset = ruleset.handle_access(AccessNet::BindTcp | AccessNet::ConnectTcp)?;
    }
    if abi >= SCOPES_ABI {
        ruleset = ruleset.scope(Scope::AbstractUnixSocket | Scope::Signal)?;
    }
    let mut created = ruleset
        .create()?
        .add_rules(path_beneath_rules(SYSTEM, read))?
        .add_rules(path_beneath_rules(configuration(), read))?
        // The ptrace rule of landlock keeps the memory, environment and files of other processes closed.
        .add_rules(path_beneath_rules([PROCESSORS, "/proc"], read))?
        .add_rules(path_beneath_rules(walls.read(), read))?
        .add_rules(path_beneath_rules([&places.scratch], read))?
        .add_rules(path_beneath_rules(DEVICES, device))?
        .add_rules(path_beneath_rules(places.writable(), change))?;
    if has_namespaces {
        created = created
            .add_rules(path_beneath_rules(["/tmp"], change))?
            .add_rules(path_beneath_rules(OWN_DEVICES, handled))?;
    }
    Ok(created.restrict_self()?.ruleset)
}

/// The version of landlock's interface that this kernel has; none when it has no landlock or it is switched off.
#[expect(unsafe_code, reason = "no safe wrapper tells the version without restricting the process")]
pub fn version() -> Option<i32> {
    const CREATE_RULESET_VERSION: libc::c_ulong = 1;
    // SAFETY: with this flag the call reads no memory: it takes a null pointer of size 0 and returns a number.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0_usize,
            CREATE_RULESET_VERSION,
        )
    };
    i32::try_from(answer).ok().filter(|version| *version > 0)
}
