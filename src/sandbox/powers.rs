//! What a command may do: the capabilities that a product is made with, and none over the machine.

use anyhow::{Context, Result};

use super::{Command, Isolation, View};
use crate::sys::process;

/// Capabilities over the machine itself, which no product needs (linux/capability.h): sys_module, sys_rawio,
/// sys_boot, sys_time, syslog, wake_alarm, perfmon, bpf.
const OF_THE_MACHINE: [u32; 8] = [16, 17, 22, 25, 34, 35, 38, 39];

/// Capabilities that lead around what a command sees: dac_read_search, sys_ptrace.
const AROUND: [u32; 2] = [2, 19];

/// Capabilities that packages and their scripts need: over files (chown, dac_override, fowner, fsetid,
/// linux_immutable, mknod, lease, setfcap), over who they run as (kill, setgid, setuid, setpcap, sys_chroot), over
/// ports of their own, locked memory and queues (net_bind_service, ipc_lock, ipc_owner), and audit_write.
///
/// Not sys_admin: what it is needed for is done for the command by who answers its calls ([`super::mounts`]). Nor
/// dac_read_search, by which files are opened that no path leads to, nor sys_ptrace, by which a command would become
/// the process that watches it.
const OF_PRODUCTS: [u32; 17] = [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 14, 15, 18, 27, 28, 29, 31];

/// Over interfaces and packets (net_broadcast, net_admin, net_raw), where the network is the command's own.
const OF_A_NETWORK: [u32; 3] = [11, 12, 13];

const SYS_CHROOT: u32 = 18;

/// More than any kernel has.
const ALL: std::ops::Range<u32> = 0..64;

/// Whether programs of the target run in it, or are run by it: what may mean harm.
pub(super) fn runs_the_target(command: &Command) -> bool {
    match &command.view {
        View::Chroot { .. } => true,
        View::Host { root, .. } | View::HostPrograms { root, .. } => root.is_some(),
    }
}

/// Whether a command is held to what products need. One that works on a device mounts it itself.
pub(super) fn held(command: &Command) -> bool {
    runs_the_target(command) && !command.remounts
}

fn keeps(command: &Command, isolation: Isolation, capability: u32) -> bool {
    if !held(command) {
        let target = runs_the_target(command) && AROUND.contains(&capability);
        return !OF_THE_MACHINE.contains(&capability) && !target;
    }
    // Its way out, where no mount keeps it in.
    if capability == SYS_CHROOT && isolation == Isolation::Chroot && matches!(command.view, View::Chroot { .. }) {
        return false;
    }
    let own_network = isolation == Isolation::Namespaces && !command.network;
    OF_PRODUCTS.contains(&capability) || own_network && OF_A_NETWORK.contains(&capability)
}

/// Takes from this process, for what it becomes, all capabilities that the command is not to have.
pub(super) fn reduce(command: &Command, isolation: Isolation) -> Result<()> {
    for capability in ALL.filter(|capability| !keeps(command, isolation, *capability)) {
        process::drop_capability(capability)
            .with_context(|| format!("the capability {capability} over this machine cannot be taken from it"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::sandbox::{Input, Told};

    fn command(view: View) -> Command {
        Command {
            argv: vec!["true".into()],
            environment: std::collections::BTreeMap::new(),
            directory: None,
            view,
            binds: Vec::new(),
            network: false,
            input: Input::Null,
            uniform: None,
            remounts: false,
            told: Told::Constant,
        }
    }

    #[test]
    fn no_capability_over_the_machine_is_left_to_anybody() {
        let root = || Some(PathBuf::from("/root"));
        let mut all = vec![
            command(View::Chroot { root: "/root".into() }),
            command(View::Host { root: root(), writable: Vec::new() }),
            command(View::Host { root: None, writable: Vec::new() }),
        ];
        all.push(Command { remounts: true, ..all[0].clone() });
        for command in &all {
            for isolation in [Isolation::Namespaces, Isolation::Chroot] {
                assert!(OF_THE_MACHINE.iter().all(|capability| !keeps(command, isolation, *capability)));
            }
        }
        // The step with a device keeps what it mounts with.
        assert!(keeps(&all[3], Isolation::Namespaces, 21) && !keeps(&all[3], Isolation::Namespaces, 2));
        // dac_read_search, sys_ptrace, sys_admin, sys_nice, sys_resource.
        for capability in [2, 19, 21, 23, 24] {
            assert!(!keeps(&all[0], Isolation::Namespaces, capability), "{capability}");
            assert!(!keeps(&all[1], Isolation::Namespaces, capability), "{capability}");
            assert!(keeps(&all[2], Isolation::Namespaces, capability), "{capability}");
        }
        assert!(keeps(&all[0], Isolation::Namespaces, 12) && !keeps(&all[0], Isolation::Chroot, 12));
        assert!(keeps(&all[0], Isolation::Namespaces, 18) && !keeps(&all[0], Isolation::Chroot, 18));
        let online = Command { network: true, ..all[0].clone() };
        assert!(!keeps(&online, Isolation::Namespaces, 12) && keeps(&online, Isolation::Namespaces, 9));
    }
}
