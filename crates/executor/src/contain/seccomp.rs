//! The system call filter: what no build and no test needs, and what leads around the other walls.
//!
//! It is the last wall that a process puts on itself, because the others need calls that it refuses.

use std::collections::BTreeMap;
use std::io;

use libc::c_long;
use seccompiler::{
    SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Is, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Calls that fail with "operation not permitted", whatever their arguments.
const DENIED: &[c_long] = &[
    // The memory, files and names of other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_perf_event_open,
    // Input and output that the other filters do not see.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Other views of the file system.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // Other namespaces.
    libc::SYS_unshare,
    libc::SYS_setns,
    // The kernel itself, and what it keeps for its users.
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// `clone` with one of these would make a namespace.
const NAMESPACES: &[libc::c_int] = &[
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// Requests that type into the terminal of somebody else.
const TERMINAL_REQUESTS: &[u64] = &[libc::TIOCSTI, libc::TIOCLINUX];

/// Filters every later system call of this process and of all it starts. With `own_network` sockets for the
/// internet can be made: they end in the command's own network namespace. Without it no socket can be made but
/// pairs.
pub(super) fn filter(own_network: bool) -> io::Result<()> {
    let failed = |error: &dyn std::fmt::Display| io::Error::other(format!("the system call filter: {error}"));
    let denied = denied(own_network).map_err(|error| failed(&error))?;
    let unknown = Rules::from([(libc::SYS_clone3, Vec::new())]);
    // The flags of `clone3` lie in memory, where no filter sees them; programs that find no such call use `clone`.
    let filters = [(unknown, libc::ENOSYS), (denied, libc::EPERM)];
    for (rules, errno) in filters {
        let program = program(rules, errno).map_err(|error| failed(&error))?;
        seccompiler::apply_filter(&program).map_err(|error| failed(&error))?;
    }
    #[cfg(target_arch = "x86_64")]
    seccompiler::apply_filter(&x32::DENIED).map_err(|error| failed(&error))?;
    Ok(())
}

fn denied(own_network: bool) -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = DENIED.iter().map(|call| (*call, Vec::new())).collect();
    let namespaces = NAMESPACES.iter().map(|flag| {
        let flag = u64::try_from(*flag).unwrap_or_default();
        SeccompRule::new(vec![SeccompCondition::new(0, Length::Qword, Is::MaskedEq(flag), flag)?])
    });
    rules.insert(libc::SYS_clone, namespaces.collect::<Result<_, _>>()?);
    let requests = TERMINAL_REQUESTS
        .iter()
        .map(|request| SeccompRule::new(vec![SeccompCondition::new(1, Length::Dword, Is::Eq, *request)?]));
    rules.insert(libc::SYS_ioctl, requests.collect::<Result<_, _>>()?);
    let sockets = if own_network { vec![none_of(&[libc::AF_INET, libc::AF_INET6])?] } else { Vec::new() };
    rules.insert(libc::SYS_socket, sockets);
    rules.insert(libc::SYS_socketpair, vec![none_of(&[libc::AF_UNIX])?]);
    Ok(rules)
}

/// Matches when the family, the first argument, is none of `families`.
fn none_of(families: &[libc::c_int]) -> Result<SeccompRule, seccompiler::BackendError> {
    let others = families.iter().map(|family| {
        let family = u64::try_from(*family).unwrap_or_default();
        SeccompCondition::new(0, Length::Dword, Is::Ne, family)
    });
    SeccompRule::new(others.collect::<Result<_, _>>()?)
}

/// A program that lets every call pass but those of `rules`, which fail with `errno`.
fn program(rules: Rules, errno: libc::c_int) -> Result<seccompiler::BpfProgram, seccompiler::BackendError> {
    let errno = SeccompAction::Errno(errno.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, errno, ARCHITECTURE)?.try_into()
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;

/// The second set of numbers that a kernel for x86-64 may know: every call once more, under another number.
#[cfg(target_arch = "x86_64")]
mod x32 {
    use seccompiler::sock_filter;

    const LOAD_NUMBER: u16 = 0x20;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const FIRST_NUMBER: u32 = 0x4000_0000;

    const fn step(code: u16, jt: u8, k: u32) -> sock_filter {
        sock_filter { code, jt, jf: 0, k }
    }

    pub(super) const DENIED: [sock_filter; 4] = [
        step(LOAD_NUMBER, 0, 0),
        step(JUMP_IF_AT_LEAST, 1, FIRST_NUMBER),
        step(RETURN, 0, libc::SECCOMP_RET_ALLOW),
        step(RETURN, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs()),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_compiles_for_this_machine() {
        for own_network in [true, false] {
            assert!(!program(denied(own_network).unwrap(), libc::EPERM).unwrap().is_empty());
        }
    }
}
