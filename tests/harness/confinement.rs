//! Containers that builds must work in, made of what this machine allows. Each function gives the
//! words to put before a command, for [`super::Project::run_inside`].

use std::os::unix::process::CommandExt;
use std::process::Command;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// The capabilities that Docker leaves to containers.
const DEFAULT: &str = "+chown,+dac_override,+fsetid,+fowner,+mknod,+net_raw,+setgid,+setuid,+setfcap,+setpcap,+net_bind_service,+sys_chroot,+kill,+audit_write";

/// Runs a program with a container's usual capabilities: no mounts, but device nodes.
pub fn without_mounts() -> Vec<String> {
    capabilities(DEFAULT)
}

/// The same where chattr(1) can protect files, too.
pub fn with_protection() -> Vec<String> {
    capabilities(&format!("{DEFAULT},+linux_immutable"))
}

/// As [`without_mounts`], and without device nodes.
pub fn without_devices() -> Vec<String> {
    capabilities(&DEFAULT.replace("+mknod,", ""))
}

fn capabilities(some: &str) -> Vec<String> {
    ["setpriv", &format!("--bounding-set=-all,{some}"), "--inh-caps=-all", "--"].map(str::to_owned).into()
}

/// As root of a user namespace of an ordinary user's own, who may mount there.
pub fn nested() -> Vec<String> {
    ["unshare", "--user", "--map-root-user", "--map-auto", "--setuid=0", "--setgid=0", "--"].map(str::to_owned).into()
}

/// As [`without_devices`], and the system calls that could lead out of a container are answered
/// with "not permitted" whatever the caller's capabilities.
pub fn filtered() -> Vec<String> {
    let own = std::env::current_exe().expect("the tests' program").display().to_string();
    [&own, "--exact", "harness::confinement::container", "--ignored", "--nocapture", "--"].map(str::to_owned).into()
}

/// What goes wrong where the sandbox is set up.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// A call fails with an error that says nothing about what is allowed.
    Fails,
    /// The process that makes a call is killed.
    Kills,
    /// A network of its own is granted, and not made.
    Lies,
}

/// As root of this machine, where setting up the sandbox goes wrong in this way.
pub fn faulty(fault: Fault) -> Vec<String> {
    let own = std::env::current_exe().expect("the tests' program").display().to_string();
    let inner = "harness::confinement::faults";
    [&own, "--exact", inner, "--ignored", "--nocapture", &format!("--skip={fault:?}"), "--"].map(str::to_owned).into()
}

/// The inner side of [`faulty`], whose first word says which.
#[test]
#[ignore = "the inner side of other tests"]
fn faults() {
    let words: Vec<String> = std::env::args().skip_while(|word| word != "--").skip(1).collect();
    if words.is_empty() {
        return;
    }
    let action = match std::env::args().find_map(|word| word.strip_prefix("--skip=").map(str::to_owned)).as_deref() {
        Some("Fails") => SeccompAction::Errno(libc::EIO as u32),
        Some("Kills") => SeccompAction::KillProcess,
        // Success, and nothing done.
        _ => SeccompAction::Errno(0),
    };
    let mut rules: std::collections::BTreeMap<i64, Vec<SeccompRule>> = [(libc::SYS_sethostname, Vec::new())].into();
    if matches!(action, SeccompAction::Errno(0)) {
        let network = SeccompRule::new(vec![condition(0, libc::CLONE_NEWNET as u64)]).expect("a rule");
        rules.insert(libc::SYS_unshare, vec![network]);
    }
    let architecture = std::env::consts::ARCH.try_into().expect("an architecture with filters");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, architecture).expect("a filter");
    let filter: BpfProgram = filter.try_into().expect("a filter");
    debforge::sys::filter::install(&filter).expect("a filter of system calls");
    let error = Command::new(&words[0]).args(&words[1..]).exec();
    panic!("running {words:?}: {error}");
}

/// In a container whose keeper answers some system calls of its programs, so that nobody else can.
pub fn watched() -> Vec<String> {
    let own = std::env::current_exe().expect("the tests' program").display().to_string();
    [&own, "--exact", "harness::confinement::keeper", "--ignored", "--nocapture", "--"].map(str::to_owned).into()
}

/// The inner side of [`watched`].
#[test]
#[ignore = "the inner side of other tests"]
fn keeper() {
    let words: Vec<String> = std::env::args().skip_while(|word| word != "--").skip(1).collect();
    if words.is_empty() {
        return;
    }
    // The call of acct(2), which nobody makes: load its number, compare, hand over or allow.
    let instruction = |code, jt, jf, k| seccompiler::sock_filter { code, jt, jf, k };
    let program = [
        instruction(0x20, 0, 0, 0),
        instruction(0x15, 0, 1, libc::SYS_acct as u32),
        instruction(0x06, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
        instruction(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    // As long as somebody listens to it, no other can be.
    let _listener = debforge::sys::filter::install_listened(&program).expect("a filter of system calls");
    let status = Command::new(&words[0]).args(&words[1..]).status().expect("running the command");
    std::process::exit(status.code().unwrap_or(1));
}

fn condition(argument: u8, mask: u64) -> SeccompCondition {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), mask).expect("a condition")
}

fn filter(calls: &[libc::c_long], errno: libc::c_int, clone: bool) -> BpfProgram {
    let mut rules: std::collections::BTreeMap<i64, Vec<SeccompRule>> =
        calls.iter().map(|call| (*call, Vec::new())).collect();
    if clone {
        let flags = [
            libc::CLONE_NEWNS,
            libc::CLONE_NEWUSER,
            libc::CLONE_NEWPID,
            libc::CLONE_NEWIPC,
            libc::CLONE_NEWUTS,
            libc::CLONE_NEWNET,
            libc::CLONE_NEWCGROUP,
        ];
        let new = |flag: &libc::c_int| SeccompRule::new(vec![condition(0, *flag as u64)]).expect("a rule");
        rules.insert(libc::SYS_clone, flags.iter().map(new).collect());
    }
    let architecture = std::env::consts::ARCH.try_into().expect("an architecture with filters");
    let action = SeccompAction::Errno(errno as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, architecture).expect("a filter");
    filter.try_into().expect("a filter")
}

/// The inner side of [`filtered`].
#[test]
#[ignore = "the inner side of other tests"]
fn container() {
    let words: Vec<String> = std::env::args().skip_while(|word| word != "--").skip(1).collect();
    if words.is_empty() {
        return;
    }
    let refused = filter(
        &[
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_pivot_root,
            libc::SYS_open_tree,
            libc::SYS_move_mount,
            libc::SYS_fsopen,
            libc::SYS_mount_setattr,
        ],
        libc::EPERM,
        true,
    );
    let unknown = filter(&[libc::SYS_clone3], libc::ENOSYS, false);
    for program in [refused, unknown] {
        debforge::sys::filter::install(&program).expect("a filter of system calls");
    }
    let outer = without_devices();
    let error = Command::new(&outer[0]).args(&outer[1..]).args(&words).exec();
    panic!("running {words:?}: {error}");
}
