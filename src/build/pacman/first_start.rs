//! pacman's keyring, which every system should make for itself: it has a secret key that vouches for all others.

use std::path::Path;

use anyhow::Result;

use crate::build::files::RootFiles;
use crate::build::inside::Inside;

const UNIT: &str = "pacman-keyring.service";

const UNIT_TEXT: &str = "\
[Unit]
Description=Make pacman's keyring
Documentation=man:pacman-key(8)
ConditionPathExists=!/etc/pacman.d/gnupg/pubring.gpg
RequiresMountsFor=/etc/pacman.d

[Service]
Type=oneshot
ExecStart=/usr/bin/pacman-key --init
ExecStart=/usr/bin/pacman-key --populate

[Install]
WantedBy=multi-user.target
";

/// Has systemd make the keyring on the first start, where the root has systemd and pacman.
pub(super) fn make_keyring(root: &Path) -> Result<()> {
    let files = RootFiles::open(root)?;
    let inside = Inside::open(root)?;
    let has = |path: &str| anyhow::Ok(inside.kind(Path::new(path))?.is_some());
    if !has("/usr/bin/pacman-key")? || !has("/usr/lib/systemd/systemd")? || has("/etc/pacman.d/gnupg/pubring.gpg")? {
        return Ok(());
    }
    let unit = format!("/etc/systemd/system/{UNIT}");
    if files.has(&unit) {
        return Ok(());
    }
    files.write(&unit, UNIT_TEXT)?;
    files.link(&format!("/etc/systemd/system/multi-user.target.wants/{UNIT}"), &unit)
}
