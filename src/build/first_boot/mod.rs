//! What each copy of an image makes for itself when it is first started: its names and keys, and a
//! file system as large as its disk.

mod grow;
mod presets;
mod renew;

use anyhow::Result;

use super::BuildContext;
use super::apt::first_start;
use super::files::RootFiles;
use crate::image::Spec;

/// What is to be made new.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The system's id (machine-id(5)).
    pub machine_id: bool,
    /// The SSH server's keys.
    pub ssh_host_keys: bool,
    /// What the kernel's random numbers start from.
    pub random_seed: bool,
    /// Other secrets of a system.
    pub secrets: bool,
    /// Those of them that all copies are meant to share.
    pub keep: Vec<String>,
    /// Whether the last file system becomes as large as the disk allows; `None`: where that is possible.
    pub grow: Option<bool>,
}

/// Copies of the system's id.
const MACHINE_IDS: [&str; 1] = ["/var/lib/dbus/machine-id"];

/// Seeds of random numbers, of systemd, of systemd-boot and of sysvinit.
const SEEDS: [&str; 5] = [
    "/var/lib/systemd/random-seed",
    "/boot/efi/loader/random-seed",
    "/efi/loader/random-seed",
    "/boot/loader/random-seed",
    "/var/lib/urandom/random-seed",
];

/// Has the root make all of that at its first start; what was done, in a few words each.
pub fn prepare(cx: &BuildContext<'_>, wanted: Wanted) -> Result<Vec<String>> {
    let files = RootFiles::open(cx.root)?;
    let mut done = Vec::new();
    if wanted.machine_id && has_systemd(&files) {
        let contents = if cx.image.is_some_and(is_read_only) { "" } else { "uninitialized\n" };
        files.write("/etc/machine-id", contents)?;
        for copy in MACHINE_IDS {
            files.remove(copy)?;
        }
        presets::keep_disabled(&files)?;
        done.push("machine-id".to_owned());
    }
    if wanted.ssh_host_keys && files.has("/usr/sbin/sshd") {
        let keys = first_start::host_keys(cx.root);
        if !keys.is_empty() {
            cx.warn(format!(
                "removed {} SSH host keys, which all copies of the image would share; to keep them: `first-boot` \
                 with `ssh-host-keys: false`",
                keys.iter().filter(|key| key.extension().is_none()).count()
            ));
        }
        first_start::renew_host_keys(cx, &keys)?;
        first_start::make_host_keys(cx)?;
        done.push("SSH host keys".to_owned());
    }
    if wanted.random_seed {
        for seed in SEEDS {
            files.remove(seed)?;
        }
    }
    if wanted.secrets {
        let renewed = renew::renew(cx, &files, &wanted.keep)?;
        if !renewed.is_empty() {
            cx.warn(format!(
                "removed {}, which all copies of the image would share, and each makes for itself; to keep any of them: \
                 `first-boot` with `keep`",
                renewed.join(", ")
            ));
            done.push("secrets".to_owned());
        }
    }
    if let Some(spec) = cx.image.filter(|_| wanted.grow != Some(false)) {
        done.extend(grow::prepare(cx, &files, spec, wanted.grow == Some(true))?);
    }
    Ok(done)
}

/// Whether the root starts systemd.
fn has_systemd(files: &RootFiles) -> bool {
    files.has("/usr/lib/systemd/systemd") || files.has("/lib/systemd/systemd")
}

/// Whether the root can never be written to: it would be its first start each time.
fn is_read_only(spec: &Spec) -> bool {
    let slot = spec.deploys.last().and_then(|deploy| deploy.slot.as_deref());
    let mount = spec.mounts_of(slot).find(|mount| mount.path == "/");
    let partition = mount.and_then(|mount| spec.partition(&mount.partition));
    partition
        .is_some_and(|partition| partition.contents.kind.is_read_only() || spec.hashes_of(&partition.name).is_some())
}
