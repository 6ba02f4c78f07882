//! Units that such a system needs beside those of its packages.

use anyhow::Result;

use super::super::fit::listed;
use super::Preparation;

const UNITS: &str = "/usr/lib/systemd/system";

/// Completes shadow and gshadow on each start.
const ACCOUNTS: &str = "/usr/lib/debforge/accounts";

/// The journal is moved to /var/log/journal before tmpfiles.d makes that: without this the one of the first start
/// stays in memory.
const FLUSH: &str = "[Service]\nExecStartPre=-systemd-tmpfiles --create --prefix=/var/log/journal\n";

/// systemd's own units of a first start, which such a system does well without.
const KNOWN: [&str; 4] = [
    "first-boot-complete.target",
    "systemd-firstboot.service",
    "systemd-homed-firstboot.service",
    "sshd-keygen.service",
];

/// Puts them into the root, and says which of the packages' units will not run.
pub(super) fn install(it: &Preparation<'_>) -> Result<String> {
    let mut done = vec![ACCOUNTS];
    it.files.write(ACCOUNTS, include_str!("debforge-accounts.sh"))?;
    it.files.set_executable(ACCOUNTS)?;
    it.files.write(&format!("{UNITS}/debforge-accounts.service"), include_str!("debforge-accounts.service"))?;
    it.files
        .link(&format!("{UNITS}/sysinit.target.wants/debforge-accounts.service"), "../debforge-accounts.service")?;
    if it.files.has_directory("/var/log/journal") {
        it.files.write(&format!("{UNITS}/systemd-journal-flush.service.d/50-image.conf"), FLUSH)?;
        done.push("systemd-journal-flush.service");
    }
    let waiting = first_boot_units(it)?;
    if !waiting.is_empty() {
        it.cx.warn(format!(
            "units with ConditionFirstBoot do not run: {}; have them look for a file of their own instead",
            listed(&waiting)
        ));
    }
    Ok(done.join(", "))
}

/// Units that run on a first start only, which systemd never takes one of such a system for.
fn first_boot_units(it: &Preparation<'_>) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for directory in [UNITS, "/etc/systemd/system"] {
        for name in it.files.names(directory)?.into_iter().filter(|name| !KNOWN.contains(&name.as_str())) {
            let text = it.files.bytes(&format!("{directory}/{name}"))?.unwrap_or_default();
            if waits(&String::from_utf8_lossy(&text)) && !found.contains(&name) {
                found.push(name);
            }
        }
    }
    Ok(found)
}

/// Whether a unit's condition is a first start: `ConditionFirstBoot=yes` (systemd.unit(5)).
fn waits(unit: &str) -> bool {
    unit.lines().any(|line| {
        let value = line.trim().strip_prefix("ConditionFirstBoot").and_then(|rest| rest.trim_start().strip_prefix('='));
        value.is_some_and(|value| ["1", "yes", "true", "on"].contains(&value.trim().to_ascii_lowercase().as_str()))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn users_of_an_update_get_locked_lines_and_others_keep_theirs() {
        let etc = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(etc.path().join(name), text).unwrap();
        write("passwd", "root:x:0:0::/root:/bin/sh\nnewsvc:x:990:990::/:/bin/false\nopen::1:1::/:/bin/false\n");
        write("shadow", "root:$y$secret:20000:0:99999:7:::");
        write("group", "root:x:0:\nnewsvc:x:990:root,me\n");
        write("gshadow", "");
        fs::set_permissions(etc.path().join("shadow"), fs::Permissions::from_mode(0o640)).unwrap();
        let run = || {
            let script = include_str!("debforge-accounts.sh");
            let done = Command::new("sh").args(["-c", script, "sh"]).arg(etc.path()).output().unwrap();
            assert!(done.status.success() && done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
            String::from_utf8(done.stdout).unwrap()
        };
        assert!(run().contains("added newsvc to "));
        let read = |name: &str| fs::read_to_string(etc.path().join(name)).unwrap();
        assert_eq!(read("shadow"), "root:$y$secret:20000:0:99999:7:::\nnewsvc:!*:::::::\n");
        assert_eq!(read("gshadow"), "root:!*::\nnewsvc:!*::root,me\n");
        assert_eq!(fs::metadata(etc.path().join("shadow")).unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(run(), "");
    }

    #[test]
    fn first_boot_conditions_are_found() {
        assert!(waits("[Unit]\nConditionFirstBoot = yes\n"));
        assert!(!waits("[Unit]\nConditionFirstBoot=\n#ConditionFirstBoot=yes\nConditionFirstBoot=no\n"));
    }
}
