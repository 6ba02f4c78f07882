//! What the running system needs to update its boot loader, and to go back.

use anyhow::Result;

use super::super::boot::GENERATOR;
use super::Preparation;

/// libostree runs this to write grub.cfg; Debian's own looks for kernels in /boot, where OSTree has none.
const MKCONFIG: &str = "/usr/sbin/grub-mkconfig";

const ROLLBACK: &str = "/usr/sbin/debforge-rollback";

/// Puts the generator of grub.cfg into the place of Debian's, which is diverted, and `debforge-rollback` beside it.
pub(super) fn install(it: &Preparation<'_>) -> Result<String> {
    let diverted = format!("{MKCONFIG}.distrib");
    if it.files.has(MKCONFIG) && !it.files.has(&diverted) {
        let words = ["dpkg-divert", "--local", "--rename", "--divert", &diverted, "--add", MKCONFIG];
        it.cx.chroot(words).run("diverting grub-mkconfig")?;
    }
    for (path, text) in [(MKCONFIG, GENERATOR), (ROLLBACK, include_str!("rollback.sh"))] {
        it.files.write(path, text)?;
        it.files.set_executable(path)?;
    }
    Ok(format!("{MKCONFIG}, {ROLLBACK}"))
}
