//! Boards whose own U-Boot runs in QEMU: Debian's packages, put on a card by the part of the board, from
//! the chip's boot ROM to a marker that systemd prints.

use std::path::Path;

use super::qemu::{Machine, boot};
use super::systems::build;
use crate::harness::Project;

/// What a unit of the root prints when the system is up.
const MARKER: &str = "the board is up";

/// A recipe that is that of a board, with the marker, and an initrd that holds the card's driver alone:
/// emulated machines take a minute to read what else there is, and emulated processors many to pack it.
fn recipe(architecture: &str, drivers: &str, part: &str) -> String {
    format!(
        r#"architecture: {architecture}

actions:
{{% include "boards/system.yaml" %}}

  - action: run
    chroot: true
    network: false
    command: |
      mkdir -p /etc/initramfs-tools/conf.d /etc/systemd/system/multi-user.target.wants
      printf 'MODULES=list\nCOMPRESS=gzip\n' > /etc/initramfs-tools/conf.d/board
      printf '%s\n' {drivers} ext4 > /etc/initramfs-tools/modules
      cat > /etc/systemd/system/marker.service <<'END'
      [Unit]
      After=multi-user.target
      [Service]
      Type=oneshot
      StandardOutput=tty
      TTYPath=/dev/console
      ExecStart=/bin/echo {MARKER}
      END
      ln -s ../marker.service /etc/systemd/system/multi-user.target.wants/marker.service
      ln -s /dev/null /etc/systemd/system/dhcpcd.service

{{% include "boards/{part}.yaml" %}}
"#
    )
}

/// Ends a test where an architecture's maintainer scripts cannot run.
macro_rules! needs_emulator {
    ($name:expr, $architecture:expr) => {
        if !Path::new("/proc/sys/fs/binfmt_misc").join($name).exists() {
            skip!("needs qemu-user for {}, registered with the kernel", $architecture);
        }
    };
}

/// A card of an Orange Pi Plus in QEMU's Orange Pi PC, which has the same chip: the boot ROM loads U-Boot's
/// first stage from sector 16, that one the second, which finds extlinux.conf, which names the kernel.
#[test]
fn an_allwinner_h3_boots_from_its_card() {
    needs_machine!(Machine::OrangePiPc);
    needs_emulator!("qemu-arm", "armhf");
    let project = Project::new().shared_store().recipe(&recipe("armhf", "sunxi-mmc mmc_block", "orangepi-plus"));
    // The mirror alone: security updates are of no matter here, and not everywhere to be had for armhf.
    let mirror = match debforge::debian::host::default_mirror() {
        Ok(mirror) => format!("mirror:{mirror}"),
        Err(error) => skip!("no mirror: {error:#}"),
    };
    let variables = ["-t", "suite:bookworm", "-t", &mirror, "-t", "imagename:card.img"];
    if let Err(reason) = build(&project, None, &variables) {
        skip!("{reason}");
    }
    let said = boot(
        &project,
        Machine::OrangePiPc,
        "out/card.img",
        &[],
        &["U-Boot SPL", "/boot/extlinux/extlinux.conf", "Starting kernel", MARKER],
    );
    assert!(said.contains("Allwinner H3"), "{said}");
    assert!(said.contains("sun8i-h3-orangepi-plus.dtb"), "{said}");
}
