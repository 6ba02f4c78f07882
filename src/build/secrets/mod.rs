//! Secrets in a root: private keys and what else a system has for itself alone. Those that a build makes would be
//! shared by all copies of its product.

mod known;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::build::files::RootFiles;
use anyhow::{Context, Result};
use walkdir::{DirEntry, WalkDir};

pub(super) use known::{KNOWN, Known, Renewal};

/// Where systems keep them; what is elsewhere came in packages.
const PLACES: [&str; 7] = ["etc", "home", "opt", "root", "srv", "usr", "var"];

/// Parts of these that are large and have none: databases of packages, caches.
const NOWHERE: [&str; 4] = ["var/cache", "var/lib/apt", "var/lib/dpkg", "var/lib/pacman"];

/// Longer files are no keys. RSA keys of 16384 bits have 13 kB.
const LONGEST: u64 = 64 * 1024;

/// Where GnuPG has private keys, one a file, in a form of its own.
const GNUPG: &str = "/private-keys-v1.d/";

/// The secrets below a directory, a root or a layer of one, by their paths in the root. What a package has shipped is no
/// secret.
pub fn find(top: &Path) -> Result<BTreeSet<String>> {
    let doing = "looking for private keys";
    let wanted = |entry: &DirEntry| {
        let path = entry.path().strip_prefix(top).unwrap_or(entry.path());
        match entry.depth() {
            0 => true,
            1 => PLACES.iter().any(|place| path == Path::new(place)),
            2 if path.starts_with("usr") => path == Path::new("usr/local"),
            _ => !NOWHERE.iter().any(|place| path == Path::new(place)),
        }
    };
    let mut found = BTreeSet::new();
    for entry in WalkDir::new(top).follow_root_links(false).same_file_system(true).into_iter().filter_entry(wanted) {
        let entry = entry.context(doing)?;
        if !entry.file_type().is_file() || entry.metadata().context(doing)?.len() > LONGEST {
            continue;
        }
        let path = format!("/{}", entry.path().strip_prefix(top).context(doing)?.display());
        // What nobody can read, not even the build, is no key of a system.
        let Ok(contents) = fs::read(entry.path()) else { continue };
        if is_secret(&path, &contents) {
            found.insert(path);
        }
    }
    if !found.is_empty() {
        drop_shipped(top, &mut found)?;
    }
    Ok(found)
}

/// Whether a file of a root is a secret, by its place or by what is in it.
pub fn is_secret(path: &str, contents: &[u8]) -> bool {
    match KNOWN.iter().find(|known| known.path == path) {
        Some(known) => known.is_in(contents),
        None => path.contains(GNUPG) || has_private_key(contents),
    }
}

/// Whether a file has a private key in one of the armoured forms (RFC 7468, RFC 9580, OpenSSH's, OpenVPN's).
fn has_private_key(contents: &[u8]) -> bool {
    // Most files are something else.
    if !contents.windows(11).any(|window| window == b"-----BEGIN ") {
        return false;
    }
    let text = String::from_utf8_lossy(contents);
    let mut lines = text.lines().map(str::trim_end);
    while let Some(line) = lines.next() {
        let name = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----"));
        let private = |name: &str| {
            name.ends_with("PRIVATE KEY")
                || name.ends_with("PRIVATE KEY BLOCK")
                || name.starts_with("OpenVPN Static key")
        };
        // A text about keys has no key behind the line.
        if name.is_some_and(private) && lines.next().is_some_and(|body| !body.is_empty() || lines.next().is_some()) {
            return true;
        }
    }
    false
}

/// Leaves out what packages have brought: examples, and keys that all the world has.
fn drop_shipped(top: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    const LISTS: &str = "/var/lib/dpkg/info";
    let files = RootFiles::open(top)?;
    for name in files.names(LISTS)?.iter().filter(|name| name.ends_with(".list")) {
        let text = files.bytes(&format!("{LISTS}/{name}")).context("reading the lists of packages' files")?;
        for line in String::from_utf8_lossy(&text.unwrap_or_default()).lines() {
            found.remove(line);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const PEM: &str = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n-----END PRIVATE KEY-----\n";

    fn root_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn keys_are_found_by_place_and_by_contents() {
        let openssh = PEM.replace("PRIVATE", "OPENSSH PRIVATE");
        let both = format!("-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n{PEM}");
        let root = root_with(&[
            ("etc/ssl/private/own.key", PEM),
            ("etc/ssh/ssh_host_ed25519_key", &openssh),
            ("opt/app/both.pem", &both),
            ("usr/local/etc/x", PEM),
            ("var/lib/systemd/credential.secret", "anything"),
            ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
            ("root/.gnupg/private-keys-v1.d/AB.key", "(private-key"),
        ]);
        let found: Vec<_> = find(root.path()).unwrap().into_iter().collect();
        let expected = [
            "/etc/machine-id",
            "/etc/ssh/ssh_host_ed25519_key",
            "/etc/ssl/private/own.key",
            "/opt/app/both.pem",
            "/root/.gnupg/private-keys-v1.d/AB.key",
            "/usr/local/etc/x",
            "/var/lib/systemd/credential.secret",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_no_secret_is_left_alone() {
        let root = root_with(&[
            ("etc/machine-id", "uninitialized\n"),
            ("etc/shipped.pem", PEM),
            ("var/lib/dpkg/info/shipped.list", "/.\n/etc\n/etc/shipped.pem\n"),
            ("var/lib/dpkg/info/a.postinst", PEM),
            ("usr/share/doc/example.pem", PEM),
            ("etc/cert.pem", "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n"),
            ("etc/script", "grep -q '-----BEGIN PRIVATE KEY-----' \"$1\"\n"),
            ("etc/iscsi/initiatorname.iscsi", "GenerateName=yes\n"),
        ]);
        let host = root_with(&[("key", PEM)]);
        symlink(host.path(), root.path().join("root")).unwrap();
        symlink(host.path().join("key"), root.path().join("etc/link")).unwrap();
        assert_eq!(find(root.path()).unwrap(), BTreeSet::new());
    }
}
