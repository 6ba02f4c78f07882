//! Small Debian systems that say on their serial console what they are.

use crate::harness::project::Finished;
use crate::harness::{Project, source_dir};

/// Said when the system is up, after what it has to report.
pub const DONE: &str = "report done";

/// A script that says what differs between machines, and the service that runs it when all else is up.
///
/// It is said all at once: whoever opens the console meanwhile throws away what is still on its way.
const REPORT: &str = r#"#!/bin/sh
{
    echo
    echo "report machine-id $(cat /etc/machine-id)"
    for key in /etc/ssh/ssh_host_*_key.pub; do
        [ -e "$key" ] && echo "report key $(ssh-keygen -lf "$key")"
    done
    for key in /etc/ssl/private/*.key /etc/iscsi/initiatorname.iscsi; do
        [ -e "$key" ] && echo "report key $(sha256sum "$key")"
    done
    echo "report root $(df --output=size -BM / | tail -n1)"
    echo "report source $(findmnt --noheadings --output SOURCE /)"
    echo "report mapped $(cat /sys/block/dm-*/dm/uuid 2>/dev/null)"
    echo "report failed $(systemctl --failed --plain --no-legend | cut -d' ' -f1 | tr '\n' ' ')"
    echo "report cmdline $(cat /proc/cmdline) "
    echo "report networkd $(systemctl is-enabled systemd-networkd.service)"
    echo "report done"
} >/run/report 2>&1
# The machine is switched off when this is seen.
sync
cat /run/report >/dev/console
"#;

const SERVICE: &str = "[Unit]
Description=Say what this machine is
After=multi-user.target ssh.service systemd-growfs-root.service
[Service]
Type=oneshot
ExecStart=/usr/local/bin/report
[Install]
WantedBy=multi-user.target
";

/// What an emulated machine needs to reach its root, and no more: the initrd is read and unpacked an
/// emulated instruction at a time.
const MODULES: &str = "virtio_pci\nvirtio_blk\next4\n";

/// A project with a recipe for a system of this architecture: the root, and then `actions`.
pub fn project(architecture: &str, actions: &str) -> Project {
    filled(Project::new().shared_store(), architecture, actions)
}

/// The same of a project that is there.
pub fn filled(project: Project, architecture: &str, actions: &str) -> Project {
    let extra = match architecture {
        "amd64" => "grub-pc-bin, openssh-server, systemd-boot-efi, systemd-repart, fdisk, ",
        _ => "",
    };
    let recipe = format!(
        r#"architecture: {architecture}
actions:
  - action: mmdebstrap
    suite: trixie
    variant: minbase
  - action: overlay
    source: initramfs
    destination: /etc/initramfs-tools
  - action: apt
    packages: [systemd-sysv, udev, initramfs-tools, {extra}linux-image-cloud-{architecture}, grub-efi-{architecture}-signed, shim-signed]
  - action: overlay
    source: report
    destination: /usr/local/bin/report
    mode: "0755"
  - action: overlay
    source: report.service
    destination: /etc/systemd/system/
  - action: run
    chroot: true
    command: systemctl enable report.service && systemctl mask getty.target
{}"#,
        actions.trim_start_matches('\n')
    );
    project
        .recipe(&recipe)
        .file("report", REPORT)
        .file("report.service", SERVICE)
        .file("initramfs/modules", MODULES)
        .file("initramfs/conf.d/small", "MODULES=list\nCOMPRESS=gzip\n")
}

/// The values that a system reported under a name.
pub fn reported<'a>(console: &'a str, name: &str) -> Vec<&'a str> {
    let prefix = format!("report {name} ");
    console.lines().filter_map(|line| line.trim().strip_prefix(prefix.as_str())).map(str::trim).collect()
}

/// Asserts that no unit of a system failed.
pub fn nothing_failed(console: &str) {
    assert_eq!(reported(console, "failed"), [""; 0], "units failed:\n{console}");
}

/// Builds a project's recipe, or one that comes with debforge; the line that says why the archive cannot
/// be reached, if it cannot.
pub fn build(project: &Project, example: Option<&str>, args: &[&str]) -> Result<Finished, String> {
    let recipe = match example {
        Some(name) => source_dir().join("recipes").join(name).display().to_string(),
        None => "recipe.yaml".to_owned(),
    };
    let words = ["build", &recipe, "--artifactdir", "out"];
    let finished = project.run(words.into_iter().chain(args.iter().copied()));
    let signs =
        ["Temporary failure resolving", "Could not resolve", "failed to lookup address", "Network is unreachable"];
    match finished.stderr.lines().find(|line| signs.iter().any(|sign| line.contains(sign))) {
        Some(line) => Err(format!("no archive: {line}")),
        None => Ok(finished.success()),
    }
}

/// Builds, or ends the test where the archive cannot be reached.
macro_rules! build {
    ($project:expr) => {
        match $crate::boot::systems::build($project, None, &[]) {
            Ok(finished) => finished,
            Err(reason) => skip!("{reason}"),
        }
    };
    ($project:expr, $example:expr $(, $arg:expr)*) => {
        match $crate::boot::systems::build($project, Some($example), &[$($arg),*]) {
            Ok(finished) => finished,
            Err(reason) => skip!("{reason}"),
        }
    };
}
