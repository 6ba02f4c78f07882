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

/// Builds out/card.img; why it cannot be built here, if it cannot.
///
/// Its packages come from the machine's mirror alone: security updates are of no matter here, and not
/// everywhere to be had for these architectures. Nor does it matter how old the mirror's copy is.
fn build_card(project: &Project, suite: &str, cmdline: &str) -> Result<(), String> {
    let mirror = debforge::debian::host::default_mirror().map_err(|error| format!("no mirror: {error:#}"))?;
    let mirror = format!("mirror:deb [check-valid-until=no] {mirror} {suite} main");
    let (suite, cmdline) = (format!("suite:{suite}"), format!("cmdline:{cmdline}"));
    let variables = ["-t", &suite, "-t", &mirror, "-t", &cmdline, "-t", "imagename:card.img"];
    build(project, None, &variables).map(drop)
}

/// A card of an Orange Pi Plus in QEMU's Orange Pi PC, which has the same chip: the boot ROM loads U-Boot's
/// first stage from sector 16, that one the second, which finds extlinux.conf, which names the kernel.
#[test]
fn an_allwinner_h3_boots_from_its_card() {
    needs_machine!(Machine::OrangePiPc);
    needs_emulator!("qemu-arm", "armhf");
    let project = Project::new().shared_store().recipe(&recipe("armhf", "sunxi-mmc mmc_block", "orangepi-plus"));
    if let Err(reason) = build_card(&project, "bookworm", "") {
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

/// A card of a HiFive Unleashed: its boot ROM, which debforge stands for, starts U-Boot's first stage from the
/// partition of that type, which goes on to the second, to OpenSBI, and to extlinux.conf.
#[test]
fn a_hifive_unleashed_boots_from_its_card() {
    needs_machine!(Machine::SifiveU);
    needs_emulator!("qemu-riscv64", "riscv64");
    let project =
        Project::new().shared_store().recipe(&recipe("riscv64", "spi-sifive mmc_spi mmc_block", "hifive-unleashed"));
    // The emulated board has no I2C, and Linux does not live through asking for it. Its PWM rings every
    // nanosecond once a LED's duty is set to nothing, and QEMU's main loop never leaves its timers.
    if let Err(reason) = build_card(&project, "trixie", "modprobe.blacklist=i2c_ocores,pwm_sifive") {
        skip!("{reason}");
    }
    // One processor for Linux: the others' start is waited for, and an emulated one is late.
    let said = boot(
        &project,
        Machine::SifiveU,
        "out/card.img",
        &["--cpus", "2"],
        &["U-Boot SPL", "/boot/extlinux/extlinux.conf", "Starting kernel", MARKER],
    );
    assert!(said.contains("Trying to boot from MMC1"), "{said}");
    assert!(said.contains("sifive/hifive-unleashed-a00.dtb"), "{said}");
}
