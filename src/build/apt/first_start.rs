//! What a package makes when it is installed, and every system should make for itself.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::repository::write_file;
use crate::build::BuildContext;
use crate::build::files::RootFiles;
use crate::build::inside::Inside;

const UNIT: &str = "ssh-host-keys.service";

const UNIT_TEXT: &str = "\
[Unit]
Description=Make this system's SSH host keys
Documentation=man:ssh-keygen(1)
DefaultDependencies=no
Conflicts=shutdown.target
After=local-fs.target
Before=ssh.service ssh.socket shutdown.target
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
";

/// The private SSH host keys of a root, and the public ones.
pub(crate) fn host_keys(root: &Path) -> BTreeSet<PathBuf> {
    let names = RootFiles::open(root).and_then(|files| files.names("/etc/ssh")).unwrap_or_default().into_iter();
    names
        .filter(|name| name.starts_with("ssh_host_") && name.contains("_key"))
        .map(|name| Path::new("/etc/ssh").join(name))
        .collect()
}

/// Removes keys that were made in the build, and has systemd make others on the first start.
pub(crate) fn renew_host_keys(cx: &BuildContext<'_>, made: &BTreeSet<PathBuf>) -> Result<()> {
    if made.is_empty() {
        return Ok(());
    }
    let inside = Inside::open(cx.root)?;
    for key in made {
        inside.slot(key)?.remove().with_context(|| format!("removing {}", key.display()))?;
    }
    cx.log("removed SSH host keys, which all copies of this root would share");
    make_host_keys(cx)
}

/// Has systemd make the keys on the first start, where openssh-server brings nothing that does.
pub(crate) fn make_host_keys(cx: &BuildContext<'_>) -> Result<()> {
    let inside = Inside::open(cx.root)?;
    let has = |path: &str| anyhow::Ok(inside.kind(Path::new(path))?.is_some());
    if has("/usr/lib/systemd/system/sshd-keygen.service")? {
        return Ok(());
    }
    if !has("/usr/lib/systemd/systemd")? && !has("/lib/systemd/systemd")? {
        cx.warn(
            "the SSH server has no keys, since all copies of this root would share them; run `ssh-keygen -A` in each",
        );
        return Ok(());
    }
    write_file(cx.root, &format!("/etc/systemd/system/{UNIT}"), UNIT_TEXT.as_bytes())?;
    let wants = Path::new("/etc/systemd/system/multi-user.target.wants");
    inside.create_dir_all(wants)?;
    inside.slot(&wants.join(UNIT))?.create_link(OsStr::new(&format!("/etc/systemd/system/{UNIT}")))?;
    cx.log(format!("{UNIT} makes SSH host keys on the first start"));
    Ok(())
}
