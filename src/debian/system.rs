//! The system whose programs do the work, as commands may see it: its packages, what was put beside them, and the
//! settings that programs want to find.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};

use super::host;

/// Directories at the top of a system that hold programs and their files, or lead to those that do.
pub const PROGRAMS: [&str; 8] = ["bin", "lib", "lib32", "lib64", "libo32", "libx32", "sbin", "usr"];

/// What programs want to find in /etc, and no secrets.
const SETTINGS: [&str; 27] = [
    "adduser.conf",
    "alternatives",
    "apt/apt.conf.d",
    "apt/keyrings",
    "apt/preferences.d",
    "apt/sources.list",
    "apt/sources.list.d",
    "apt/trusted.gpg.d",
    "ca-certificates",
    "debian_version",
    "dpkg",
    "group",
    "gss",
    "host.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "locale.alias",
    "mke2fs.conf",
    "nsswitch.conf",
    "os-release",
    "passwd",
    "perl",
    "protocols",
    "services",
    "ssl",
    "xattr.conf",
];

/// Below `ssl`, what only the machine's own services have business with.
const SECRETS: [&str; 1] = ["private"];

/// What dpkg and its kin keep of the packages that are installed, and what of them stands in no package.
pub const DATABASES: [&str; 2] = ["/var/lib/dpkg", "/var/lib/ca-certificates"];

/// What a command can see of the system, each part with its state. Equal states are equal files, as far as
/// packages are what their versions say.
pub fn state() -> Result<Vec<(&'static str, String)>> {
    let status = host::status();
    let packages = installed(&status);
    let mut parts = Vec::new();
    // Another system's /usr and /etc follow from its packages.
    let here = !host::is_elsewhere();
    if packages.is_empty() {
        // Not Debian's: names, sizes and dates of all that a package may have brought.
        parts.push(("packages of the host", tree_state(Path::new("/usr"))?));
    } else {
        parts.push(("packages of the host", digest(packages.as_bytes())));
        if here {
            parts.push(("files of the host that no package has", others_state(Path::new("/"))?));
        }
    }
    if here {
        parts.push(("/usr/local of the host", tree_state(Path::new("/usr/local"))?));
        parts.push(("settings of the host", settings_state()?));
    }
    Ok(parts)
}

/// Copies the settings to `etc`, which is made; `name_server` is what its resolv.conf says.
pub fn copy_settings(etc: &Path, name_server: &str) -> Result<()> {
    fs::create_dir(etc).with_context(|| format!("making {}", etc.display()))?;
    each_setting(&mut |name, from, setting| {
        let to = etc.join(name);
        let copied = match setting {
            Setting::Directory => fs::create_dir_all(&to),
            Setting::Link(target) => above(&to).and_then(|()| symlink(target, &to)),
            Setting::File => above(&to).and_then(|()| match fs::copy(from, &to) {
                Err(error) if error.kind() != ErrorKind::PermissionDenied => Err(error),
                _ => Ok(()),
            }),
        };
        copied.with_context(|| format!("copying {}", from.display()))
    })?;
    let write = |name: &str, text: &str| fs::write(etc.join(name), text).with_context(|| format!("writing {name}"));
    write("resolv.conf", name_server)?;
    write("hostname", "debforge\n")?;
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_else(|_| "127.0.0.1 localhost\n".into());
    write("hosts", &hosts)?;
    symlink("../proc/self/mounts", etc.join("mtab")).context("making mtab")
}

fn above(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// A digest of the settings. How the network is reached (resolv.conf, hosts) is not in it.
fn settings_state() -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    each_setting(&mut |name, from, setting| {
        let contents = match setting {
            Setting::Directory => return Ok(()),
            Setting::Link(target) => target.as_os_str().as_bytes().to_vec(),
            Setting::File => match fs::read(from) {
                Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(()),
                read => read.with_context(|| format!("reading {}", from.display()))?,
            },
        };
        for field in [name.as_os_str().as_bytes(), &contents] {
            hasher.update(&(field.len() as u64).to_le_bytes());
            hasher.update(field);
        }
        Ok(())
    })?;
    Ok(hasher.finalize().to_hex().to_string())
}

enum Setting {
    Directory,
    File,
    Link(PathBuf),
}

/// Gives the name below /etc, the path and the kind of all that may be seen there, in a fixed order. What is not
/// there or not for this user is left out.
fn each_setting(give: &mut dyn FnMut(&Path, &Path, Setting) -> Result<()>) -> Result<()> {
    SETTINGS.iter().try_for_each(|name| setting(Path::new(name), give))
}

fn setting(name: &Path, give: &mut dyn FnMut(&Path, &Path, Setting) -> Result<()>) -> Result<()> {
    let path = Path::new("/etc").join(name);
    let doing = || format!("reading {}", path.display());
    let meta = match path.symlink_metadata() {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => return Ok(()),
        meta => meta.with_context(doing)?,
    };
    if meta.is_symlink() {
        let target = fs::read_link(&path).with_context(doing)?;
        // A link to something beside /usr and /etc would lead nowhere.
        let known = |part: Option<Component<'_>>| {
            part.is_some_and(|part| ["usr", "etc", "bin", "lib", "sbin"].iter().any(|name| part.as_os_str() == *name))
        };
        if target.is_relative() || known(target.components().nth(1)) {
            return give(name, &path, Setting::Link(target));
        }
        return if path.is_file() { give(name, &path, Setting::File) } else { Ok(()) };
    }
    if meta.is_file() {
        return give(name, &path, Setting::File);
    }
    if !meta.is_dir() {
        return Ok(());
    }
    let entries = match fs::read_dir(&path) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Ok(()),
        entries => entries.with_context(doing)?,
    };
    let mut names: Vec<_> =
        entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<_, _>>().with_context(doing)?;
    names.sort();
    give(name, &path, Setting::Directory)?;
    names.retain(|name| !SECRETS.iter().any(|secret| name == *secret));
    names.iter().try_for_each(|below| setting(&name.join(below), give))
}

/// Where dpkg keeps the names of packages' files.
const LISTS: &str = "var/lib/dpkg/info";
/// What Python makes of its programs, and looks at no more when one of them is another.
const COMPILED: &str = "__pycache__";

/// A digest as [`tree_state`] is one, of what no package of the system at `top` has: links to alternatives, what was
/// put beside the packages, what their scripts made. /usr/local is left out.
fn others_state(top: &Path) -> Result<String> {
    let owned = owned(top)?;
    let mut hasher = blake3::Hasher::new();
    for directory in PROGRAMS.iter().map(|name| top.join(name)).filter(|path| !path.is_symlink() && path.is_dir()) {
        let walk = walkdir::WalkDir::new(&directory).sort_by_file_name().into_iter();
        let local = top.join("usr/local");
        for entry in walk.filter_entry(|entry| entry.file_name() != COMPILED && entry.path() != local) {
            let entry = match entry {
                Err(error) if error.io_error().is_some_and(|error| is_out_of_reach(error.kind())) => continue,
                entry => entry.with_context(|| format!("reading {}", directory.display()))?,
            };
            let name = entry.path().strip_prefix(top).unwrap_or(entry.path());
            if !owned.contains(name.as_os_str().as_bytes()) {
                add_entry(&mut hasher, &entry)?;
            }
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// The files of all packages, by their paths below `top`.
fn owned(top: &Path) -> Result<HashSet<Vec<u8>>> {
    let lists = top.join(LISTS);
    let doing = || format!("reading {}", lists.display());
    // A package may say /bin where that is a link to /usr/bin.
    let merged: Vec<&str> = PROGRAMS.into_iter().filter(|name| top.join(name).is_symlink()).collect();
    let mut all = HashSet::new();
    for entry in fs::read_dir(&lists).with_context(doing)? {
        let path = entry.with_context(doing)?.path();
        if path.extension() != Some(OsStr::new("list")) {
            continue;
        }
        let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        for line in text.split(|byte| *byte == b'\n') {
            let name = line.strip_prefix(b"/").unwrap_or(line);
            let first = name.split(|byte| *byte == b'/').next().unwrap_or_default();
            match merged.iter().any(|merged| merged.as_bytes() == first) {
                true => all.insert([b"usr/", name].concat()),
                false => all.insert(name.to_vec()),
            };
        }
    }
    Ok(all)
}

/// A digest of the names, kinds, sizes, dates and link targets of a tree: as compilers are known to ccache, and
/// programs to make.
fn tree_state(top: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    for entry in walkdir::WalkDir::new(top).sort_by_file_name() {
        let entry = match entry {
            Err(error) if error.io_error().is_some_and(|error| is_out_of_reach(error.kind())) => continue,
            entry => entry.with_context(|| format!("reading {}", top.display()))?,
        };
        add_entry(&mut hasher, &entry)?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}

fn add_entry(hasher: &mut blake3::Hasher, entry: &walkdir::DirEntry) -> Result<()> {
    let meta = entry.metadata().with_context(|| format!("reading {}", entry.path().display()))?;
    for field in [entry.path().as_os_str().as_bytes(), of_entry(&meta, entry.path()).as_bytes()] {
        hasher.update(field);
        hasher.update(&[0]);
    }
    Ok(())
}

fn of_entry(meta: &Metadata, path: &Path) -> String {
    if meta.is_symlink() {
        return fs::read_link(path).unwrap_or_default().display().to_string();
    }
    // Neither a directory's size nor its date says anything of what is in it that its entries do not.
    match meta.is_dir() {
        true => "directory".to_owned(),
        false => format!("{} {} {}.{}", meta.mode(), meta.size(), meta.mtime(), meta.mtime_nsec()),
    }
}

fn is_out_of_reach(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::PermissionDenied)
}

fn digest(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Name, architecture and version of each package that is installed, a line each, sorted.
fn installed(status: &str) -> String {
    let mut lines: Vec<String> = status
        .split("\n\n")
        .filter_map(|paragraph| {
            let field = |name: &str| paragraph.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            let installed = field("Status:")?.ends_with(" installed");
            installed.then(|| Some([field("Package:")?, field("Architecture:")?, field("Version:")?].join(" ")))?
        })
        .collect();
    lines.sort_unstable();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages_count() {
        let status = "Package: b\nStatus: install ok installed\nArchitecture: all\nVersion: 2\n\n\
                      Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n\n\
                      Package: a\nStatus: hold ok installed\nArchitecture: amd64\nVersion: 1-1\nDescription: x\n y\n";
        assert_eq!(installed(status), "a amd64 1-1\nb all 2");
    }

    #[test]
    fn settings_have_no_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let etc = dir.path().join("etc");
        copy_settings(&etc, "nameserver 192.0.2.1\n").unwrap();
        assert!(etc.join("passwd").is_file() && etc.join("resolv.conf").is_file());
        assert!(!etc.join("shadow").exists() && !etc.join("ssl/private").exists());
    }

    #[test]
    fn what_no_package_has_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["var/lib/dpkg/info", "usr/bin", "usr/local", "usr/lib/python3/__pycache__"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        symlink("usr/bin", dir.path().join("bin")).unwrap();
        fs::write(dir.path().join("var/lib/dpkg/info/base.list"), "/.\n/bin\n/bin/true\n/usr/bin/sum\n").unwrap();
        let state = || others_state(dir.path()).unwrap();
        let first = state();
        for none in ["usr/bin/true", "usr/bin/sum", "usr/local/x", "usr/lib/python3/__pycache__/x.pyc"] {
            fs::write(dir.path().join(none), "").unwrap();
            assert_eq!(state(), first, "{none}");
        }
        fs::write(dir.path().join("usr/bin/tool"), "one").unwrap();
        let with = state();
        fs::write(dir.path().join("usr/bin/tool"), "two").unwrap();
        assert!(first != with && with != state());
    }

    #[test]
    fn a_program_that_is_put_beside_the_packages_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let state = || tree_state(dir.path()).unwrap();
        let empty = state();
        fs::write(dir.path().join("tool"), "1").unwrap();
        let first = state();
        fs::write(dir.path().join("tool"), "22").unwrap();
        assert!(empty != first && first != state());
    }
}
