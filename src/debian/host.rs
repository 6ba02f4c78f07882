//! What this machine's own Debian knows: versions of tools, and the mirror it uses.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context, Result};

use super::package_list;
use super::sources::{Source, Sources};
use crate::diagnostics::Fault;

/// dpkg's database of the system whose tools do the work, and whether that is another than this.
static STATUS: RwLock<Option<(Arc<str>, bool)>> = RwLock::new(None);

/// Version of an installed package of this machine; `None` without it or without dpkg.
pub fn package_version(name: &str) -> Option<String> {
    package_list::status_of(&status(), name)?.get("Version").map(str::to_owned)
}

/// What a tool is: the version of the package that has it, else its bytes.
pub fn tool_state(program: &str, package: &str) -> String {
    if let Some(version) = package_version(package) {
        return version;
    }
    let bytes = find_program(program).and_then(|path| fs::read(path).ok());
    bytes.map_or_else(|| "absent".to_owned(), |bytes| blake3::hash(&bytes).to_hex().to_string())
}

/// dpkg's database of the system whose tools do the work; empty where it has none.
pub(super) fn status() -> Arc<str> {
    if let Some((status, _)) = STATUS.read().unwrap_or_else(PoisonError::into_inner).as_ref() {
        return status.clone();
    }
    let mut known = STATUS.write().unwrap_or_else(PoisonError::into_inner);
    let own = || (fs::read_to_string("/var/lib/dpkg/status").unwrap_or_default().into(), false);
    known.get_or_insert_with(own).0.clone()
}

/// Has another system's tools count as this machine's from now on: `status` is dpkg's database there.
pub fn use_tools_of(status: String) {
    *STATUS.write().unwrap_or_else(PoisonError::into_inner) = Some((status.into(), true));
}

/// Whether the tools are another system's.
pub(super) fn is_elsewhere() -> bool {
    STATUS.read().unwrap_or_else(PoisonError::into_inner).as_ref().is_some_and(|(_, elsewhere)| *elsewhere)
}

/// A program of the PATH, or of an sbin directory, which ordinary users' PATHs lack.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

/// The repositories that this machine is set up for: all of its sources.list(5) files, in apt's order.
fn own_sources() -> Result<Sources> {
    let parts = fs::read_dir(SOURCES.1).into_iter().flatten().flatten();
    let parts = parts.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    sources_of(parts, &|path| match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        text => Ok(Some(text?)),
    })
}

/// Where a system says what its repositories are: a file, and a directory of such.
pub const SOURCES: (&str, &str) = ("/etc/apt/sources.list", "/etc/apt/sources.list.d");

/// The repositories that a system is set up for, in apt's order: `parts` are the names in the directory of [`SOURCES`],
/// `text` gives what a file says, `None` where there is none.
pub fn sources_of(mut parts: Vec<String>, text: &dyn Fn(&str) -> Result<Option<String>>) -> Result<Sources> {
    let mut all = Sources::default();
    let mut add = |path: &str, read: fn(&str) -> Result<Sources>| -> Result<()> {
        let doing = || format!("reading {path}");
        if let Some(text) = text(path).with_context(doing)? {
            all.0.extend(read(&text).with_context(doing)?.0);
        }
        Ok(())
    };
    add(SOURCES.0, Sources::from_lines)?;
    parts.sort();
    for part in parts {
        let read = match Path::new(&part).extension().and_then(|e| e.to_str()) {
            Some("list") => Sources::from_lines,
            Some("sources") => Sources::from_deb822,
            _ => continue,
        };
        add(&format!("{}/{part}", SOURCES.1), read)?;
    }
    Ok(all)
}

/// The mirror to take Debian from where the recipe names none: this machine's own, else the one
/// that debootstrap or mmdebstrap would use.
pub fn default_mirror() -> Result<String> {
    let own = own_sources().unwrap_or_default();
    let of_script = |path: &str, pattern: &str| fs::read_to_string(path).ok().and_then(|text| quoted(&text, pattern));
    own.0
        .iter()
        .find_map(debian_archive)
        .or_else(|| of_script("/usr/sbin/debootstrap", "DEF_MIRROR="))
        .or_else(|| of_script("/usr/share/debootstrap/scripts/debian-common", "DEF_MIRROR="))
        .or_else(|| of_script("/usr/bin/mmdebstrap", "my $mirror    = "))
        .ok_or_else(|| {
            Fault::recipe("the recipe names no mirror, and this machine has none to take over")
                .hint("give the bootstrap a `mirror` (debootstrap) or `mirrors` (mmdebstrap)")
                .into()
        })
}

/// The mirror of Debian's security updates that goes with [`default_mirror`]: this machine's own, else
/// the one that mmdebstrap would use; `None` where neither is there.
pub fn default_security_mirror() -> Option<String> {
    let own = own_sources().unwrap_or_default();
    let uris = own.0.iter().flat_map(|source| &source.uris);
    uris.filter(|uri| uri.ends_with("/debian-security") && uri.starts_with("http"))
        .map(String::clone)
        .next()
        .or_else(|| fs::read_to_string("/usr/bin/mmdebstrap").ok().and_then(|text| quoted(&text, "$secmirror = ")))
}

/// The address of a source that looks like Debian's main archive.
fn debian_archive(source: &Source) -> Option<String> {
    let is_main = source.types.iter().any(|t| t == "deb") && source.components.iter().any(|c| c == "main");
    // Security, updates and third parties have other paths or suites.
    let uri = source.uris.iter().find(|uri| uri.ends_with("/debian") && uri.starts_with("http"))?;
    let plain = source.suites.iter().any(|suite| suite.chars().all(|c| c.is_ascii_lowercase()));
    (is_main && plain).then(|| uri.clone())
}

/// The quoted address that follows `pattern`.
fn quoted(text: &str, pattern: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let value = line.trim().split_once(pattern)?.1.trim_start_matches(['"', '\'']);
        let value = value.split(['"', '\'', ';', ' ']).next()?;
        value.starts_with("http").then(|| value.trim_end_matches('/').to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_main_archive_from_others() {
        let uri = |line: &str| debian_archive(&Source::from_line(line).unwrap().unwrap());
        assert_eq!(uri("deb http://m.example/debian trixie main"), Some("http://m.example/debian".into()));
        assert_eq!(uri("deb http://m.example/debian trixie-updates main"), None);
        assert_eq!(uri("deb http://m.example/debian-security trixie-security main"), None);
        assert_eq!(uri("deb-src http://m.example/debian trixie main"), None);
        assert_eq!(uri("deb http://m.example/apt trixie main"), None);
    }

    #[test]
    fn reads_the_mirror_of_a_script() {
        assert_eq!(
            quoted("x\nDEF_MIRROR=\"http://m.example/debian\"\n", "DEF_MIRROR="),
            Some("http://m.example/debian".into())
        );
        assert_eq!(quoted("DEF_MIRROR=$X\n", "DEF_MIRROR="), None);
    }
}
