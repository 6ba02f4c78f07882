//! dpkg's database as `dpkg --unpack` leaves it: everything that `dpkg --configure` goes by.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use filetime::{FileTime, set_file_handle_times};

use super::package::Package;
use super::unpack::Unpacked;
use crate::debian::Architecture;

/// dpkg's directory in a root.
pub struct Database {
    directory: PathBuf,
}

impl Database {
    /// Makes an empty database. Its directories are there before any package's files, so that no
    /// package can put a link in their place.
    pub fn create(root: &Path, architecture: Architecture, foreign: &[Architecture]) -> Result<Self> {
        let directory = root.join("var/lib/dpkg");
        for name in ["alternatives", "info", "triggers", "updates"] {
            let path = directory.join(name);
            fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        }
        let database = Self { directory };
        database.write("status", "")?;
        let architectures: String = [architecture].iter().chain(foreign).map(|name| format!("{name}\n")).collect();
        database.write("arch", &architectures)?;
        database.write("info/format", "1\n")?;
        database.write("triggers/Lock", "")?;
        fs::set_permissions(database.directory.join("triggers/Lock"), fs::Permissions::from_mode(0o600))?;
        database.write("triggers/Unincorp", "")?;
        Ok(database)
    }

    /// Where it stands.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Records packages whose files are in place as unpacked and to be configured.
    pub fn register(&self, packages: &[(&Package, &Unpacked)]) -> Result<()> {
        let mut stanzas = String::new();
        for (package, unpacked) in packages {
            self.write_info(package, unpacked)
                .with_context(|| format!("recording {} in dpkg's database", package.name))?;
            writeln!(stanzas, "{}", stanza(package, unpacked))?;
        }
        self.append("status", &stanzas)?;
        self.set_off(packages)?;
        self.listen(packages)
    }

    fn write_info(&self, package: &Package, unpacked: &Unpacked) -> Result<()> {
        let info = self.directory.join("info");
        let name = package.database_name();
        let mut list = unpacked.list.join(&b'\n');
        list.push(b'\n');
        write_file(&info.join(format!("{name}.list")), &list, true)?;
        for file in &package.files {
            ensure!(!matches!(file.name.as_str(), "list" | "control"), "`{}` is no name for a control file", file.name);
            let path = info.join(format!("{name}.{}", file.name));
            let written = write_file(&path, &file.contents, true)?;
            written.set_permissions(fs::Permissions::from_mode(file.mode))?;
            set_file_handle_times(&written, None, Some(FileTime::from_unix_time(file.mtime, 0)))?;
        }
        Ok(())
    }

    /// Takes paths out of the list of a package that was recorded before.
    pub fn forget(&self, name: &str, lost: &[&[u8]]) -> Result<()> {
        let path = self.directory.join("info").join(format!("{name}.list"));
        let list = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let kept: Vec<&[u8]> = list.split(|byte| *byte == b'\n').filter(|line| !lost.contains(line)).collect();
        let kept = kept.join(&b'\n');
        write_file(&path, &kept, true).map(drop).with_context(|| format!("writing {}", path.display()))
    }

    /// Notes the triggers that the packages set off, by name and by their files' paths, for dpkg to
    /// take up on its next run (`Unincorp`); those that nobody configured listens to it drops.
    fn set_off(&self, packages: &[(&Package, &Unpacked)]) -> Result<()> {
        let mut activated: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut activate = |trigger: &str, by: String| {
            let by_whom = activated.entry(trigger.to_owned()).or_default();
            if !by_whom.contains(&by) {
                by_whom.push(by);
            }
        };
        let interests = self.file_interests()?;
        for (package, unpacked) in packages {
            for (trigger, waits) in &package.triggers.activates {
                activate(trigger, if *waits { package.database_name() } else { "-".into() });
            }
            for (path, waits) in &interests {
                let below = [path.as_bytes(), b"/"].concat();
                if unpacked.list.iter().any(|file| file == path.as_bytes() || file.starts_with(&below)) {
                    activate(path, if *waits { package.database_name() } else { "-".into() });
                }
            }
        }
        let lines: String =
            activated.into_iter().map(|(trigger, by_whom)| format!("{trigger} {}\n", by_whom.join(" "))).collect();
        self.append("triggers/Unincorp", &lines)
    }

    /// Paths that configured packages listen to, and whether those who touch them wait.
    fn file_interests(&self) -> Result<Vec<(String, bool)>> {
        let text = match fs::read_to_string(self.directory.join("triggers/File")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            other => other.context("reading dpkg's file triggers")?,
        };
        let interest = |line: &str| line.split_once(' ').map(|(path, by)| (path.to_owned(), !by.ends_with("/noawait")));
        Ok(text.lines().filter_map(interest).collect())
    }

    /// Records the triggers that the packages listen to.
    fn listen(&self, packages: &[(&Package, &Unpacked)]) -> Result<()> {
        for (package, _) in packages {
            for (trigger, waits) in &package.triggers.interests {
                let listener = format!("{}{}", package.database_name(), if *waits { "" } else { "/noawait" });
                if trigger.starts_with('/') {
                    self.append("triggers/File", &format!("{trigger} {listener}\n"))?;
                } else {
                    ensure!(!trigger.contains('/'), "`{trigger}` is no name of a trigger");
                    self.append(&format!("triggers/{trigger}"), &format!("{listener}\n"))?;
                }
            }
        }
        Ok(())
    }

    fn write(&self, name: &str, contents: &str) -> Result<()> {
        let path = self.directory.join(name);
        write_file(&path, contents.as_bytes(), true).map(drop).with_context(|| format!("writing {}", path.display()))
    }

    fn append(&self, name: &str, contents: &str) -> Result<()> {
        let path = self.directory.join(name);
        write_file(&path, contents.as_bytes(), false).map(drop).with_context(|| format!("writing {}", path.display()))
    }
}

/// Writes a file of the database from its start or at its end. A link in its place, which could lead
/// out of the root, is an error.
pub(super) fn write_file(path: &Path, contents: &[u8], from_start: bool) -> std::io::Result<File> {
    let mut options = File::options();
    options.create(true).custom_flags(nix::libc::O_NOFOLLOW);
    if from_start {
        options.write(true).truncate(true)
    } else {
        options.append(true)
    };
    let mut file = options.open(path)?;
    file.write_all(contents)?;
    Ok(file)
}

/// A package's paragraph of `status`; dpkg brings the fields into its order when it writes them again.
fn stanza(package: &Package, unpacked: &Unpacked) -> String {
    let mut stanza = format!("{}\nStatus: install ok unpacked\n", package.control_text);
    if !unpacked.conffiles.is_empty() {
        stanza.push_str("Conffiles:\n");
        for conffile in &unpacked.conffiles {
            stanza.push_str(&format!(" {} {}\n", conffile.path, conffile.digest));
        }
    }
    stanza
}
