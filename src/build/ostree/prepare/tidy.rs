//! What no two machines should share, what no machine needs, and what would be out of date on each.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use walkdir::WalkDir;

use super::Preparation;
use super::tree::{move_contents, move_one, remove_contents};
use crate::build::apt::first_start;

/// Timers that look for packages to upgrade, and one that saves dpkg's database.
const TIMERS: [&str; 4] =
    ["apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "apt-listchanges.timer"];

/// Backups that programs for accounts leave, a policy for services that only builds have, and keys of one machine.
const LEFT_OVER: [&str; 9] = [
    "/etc/passwd-",
    "/etc/group-",
    "/etc/shadow-",
    "/etc/gshadow-",
    "/etc/subuid-",
    "/etc/subgid-",
    "/etc/.pwd.lock",
    "/usr/sbin/policy-rc.d",
    "/etc/hostid",
];

/// Directories of /var whose contents can be made again.
const CACHES: [&str; 8] = [
    "var/backups",
    "var/cache/apt",
    "var/cache/fontconfig",
    "var/cache/ldconfig",
    "var/cache/man",
    "var/lib/apt/lists",
    "var/lib/systemd/catalog",
    "var/tmp",
];

/// Makes keys on the first start only, which a system with an empty machine id has none of.
const KEY_UNIT: &str = "/usr/lib/systemd/system/sshd-keygen.service";

/// Where dpkg's database is on such a system: what is installed is part of the deployment.
const DATABASE: &str = "usr/share/dpkg/database";

/// What moves there.
pub(super) const MOVED_DATABASE: (&str, &str) = ("var/lib/dpkg", DATABASE);

/// Which packages came as dependencies of others, as apt knows it.
const STATES: &str = "var/lib/apt/extended_states";

/// Gives each machine its own id, keys and resolver.
pub(super) fn identity(it: &Preparation<'_>) -> Result<String> {
    let mut done = Vec::new();
    // Empty, not `uninitialized`: systemd takes that for a first start, and enables all units that a recipe disabled
    // (systemd.preset(5)).
    it.files.write("/etc/machine-id", "")?;
    for seed in ["/var/lib/dbus/machine-id", "/var/lib/systemd/random-seed", "/var/lib/systemd/credential.secret"] {
        it.files.remove(seed)?;
    }
    let keys = first_start::host_keys(it.root);
    if !keys.is_empty() {
        done.push(format!("removed {} SSH host keys", keys.len() / 2));
    }
    first_start::renew_host_keys(it.cx, &keys)?;
    if it.files.has("/usr/sbin/sshd") {
        first_start::make_host_keys(it.cx)?;
        if it.files.has(KEY_UNIT) {
            it.files.write(&format!("{KEY_UNIT}.d/50-image.conf"), "[Unit]\nConditionFirstBoot=\n")?;
        }
    }
    for path in LEFT_OVER {
        if it.files.remove(path)? {
            done.push(format!("removed {path}"));
        }
    }
    // A link leads to what a resolver on the machine writes; a file is the build's.
    if it.files.link_target("/etc/resolv.conf")?.is_none() && it.files.remove("/etc/resolv.conf")? {
        done.push("removed /etc/resolv.conf".into());
    }
    it.set_default("/etc/default/useradd", "HOME", "/var/home")?;
    it.set_default("/etc/adduser.conf", "DHOME", "/var/home")?;
    Ok(done.join(", "))
}

/// Nothing installs packages on such a system.
pub(super) fn apt(it: &Preparation<'_>) -> Result<String> {
    let mut masked = Vec::new();
    for timer in TIMERS {
        if it.files.has(&format!("/usr/lib/systemd/system/{timer}")) {
            it.files.link(&format!("/etc/systemd/system/{timer}"), "/dev/null")?;
            it.files.remove(&format!("/etc/systemd/system/timers.target.wants/{timer}"))?;
            masked.push(timer);
        }
    }
    Ok(if masked.is_empty() { String::new() } else { format!("masked {}", masked.join(", ")) })
}

/// Whether a path of the root is in a directory that is emptied, or in dpkg's database, which moves.
pub(super) fn is_cache(path: &Path) -> bool {
    let below = |top: &&str| path.starts_with(top) && path != Path::new(top);
    CACHES.iter().chain(&["var/lib/dpkg"]).any(below)
}

/// Removes what can be made again, and logs.
pub(super) fn caches(it: &Preparation<'_>) -> Result<String> {
    for cache in CACHES {
        if let Some(path) = it.files.find(cache)?.filter(|path| path.is_dir()) {
            remove_contents(&path)?;
        }
    }
    let logs = it.files.find("/var/log")?.into_iter().flat_map(|logs| WalkDir::new(logs).min_depth(1));
    for entry in logs.filter_map(Result::ok) {
        if entry.file_type().is_file() {
            fs::remove_file(entry.path()).with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    Ok(String::new())
}

/// Has Python take its compiled files as they are: it compares their sources' dates, and a commit has none. Flags
/// and dates are in bytes 4 to 16 of a `.pyc` (PEP 552); with flag 1 alone nothing is compared.
pub(super) fn byte_code(it: &Preparation<'_>) -> Result<String> {
    let mut changed = 0;
    for entry in WalkDir::new(it.root.join("usr")).into_iter().filter_map(Result::ok) {
        if !entry.file_type().is_file() || entry.path().extension().is_none_or(|extension| extension != "pyc") {
            continue;
        }
        let doing = || format!("reading {}", entry.path().display());
        let mut head = [0; 8];
        let read = fs::File::open(entry.path()).and_then(|mut file| file.read_exact(&mut head));
        if read.is_err() || head[4..8] != [0; 4] {
            continue;
        }
        // Written anew, since a hard link may be another package's.
        let mut bytes = fs::read(entry.path()).with_context(doing)?;
        if bytes.len() < 16 {
            continue;
        }
        bytes[4..16].copy_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let mut file = OpenOptions::new().write(true).open(entry.path()).with_context(doing)?;
        file.write_all(&bytes).with_context(doing)?;
        changed += 1;
    }
    Ok(if changed == 0 { String::new() } else { format!("{changed} files of Python") })
}

/// Has /tmp in memory: the top level cannot be written to. Debian 12 has the unit, but not where it is used.
pub(super) fn tmp(it: &Preparation<'_>) -> Result<String> {
    const UNIT: &str = "/usr/lib/systemd/system/tmp.mount";
    const SPARE: &str = "/usr/share/systemd/tmp.mount";
    if !it.files.has(UNIT) {
        if !it.files.has(SPARE) {
            return Ok("no tmp.mount".into());
        }
        it.files.copy(SPARE, UNIT)?;
    }
    it.files.link("/usr/lib/systemd/system/local-fs.target.wants/tmp.mount", "../tmp.mount")?;
    Ok("in memory".into())
}

/// Moves dpkg's database to /usr, since it says what is in there, and what apt adds to it; both are found where they
/// were, here and on machines.
pub(super) fn database(it: &Preparation<'_>) -> Result<String> {
    let from = it.files.find("/var/lib/dpkg")?.context("the root has no /var/lib/dpkg")?;
    let to = it.root.join(DATABASE);
    for name in ["lock", "lock-frontend", "triggers/Lock", "status-old", "diversions-old", "statoverride-old"] {
        it.files.remove(&format!("/var/lib/dpkg/{name}"))?;
    }
    fs::create_dir_all(&to).context("making a place for dpkg's database")?;
    let count = move_contents(&from, &to).context("moving dpkg's database")?;
    fs::remove_dir(&from).context("removing /var/lib/dpkg")?;
    it.files.link("/var/lib/dpkg", &format!("../../{DATABASE}"))?;
    if it.files.has(&format!("/{STATES}")) {
        let moved = format!("{DATABASE}/apt-extended_states");
        move_one(&it.root.join(STATES), &it.root.join(&moved))?;
        it.files.link(&format!("/{STATES}"), &format!("../../../{moved}"))?;
    }
    Ok(format!("{count} names in /{DATABASE}"))
}

impl Preparation<'_> {
    /// Sets a variable of a file that shells read, where there is such a file.
    fn set_default(&self, path: &str, name: &str, value: &str) -> Result<()> {
        let Some(text) = self.files.text(path)? else { return Ok(()) };
        let is_it = |line: &str| line.trim_start_matches(['#', ' ']).starts_with(&format!("{name}="));
        let mut lines: Vec<String> = text.lines().filter(|line| !is_it(line)).map(str::to_owned).collect();
        lines.push(format!("{name}={value}"));
        self.files.write(Path::new(path).to_str().unwrap_or(path), lines.join("\n") + "\n")
    }
}
