//! Lists of packages: `Packages` indexes, and dpkg's status file.

use std::io::{self, BufRead};

use super::deb822::{self, Paragraph};

/// The fields of one package that decisions are made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `amd64`, `all`.
    pub architecture: String,
    /// `required`, `important`, `standard`, `optional`.
    pub priority: String,
    /// Whether dpkg refuses to be without it.
    pub essential: bool,
    /// Names of the packages that it depends on, alternatives among them.
    pub needs: Vec<String>,
}

impl Package {
    fn from_stanza(stanza: &str) -> Option<Self> {
        let mut package = Self::default();
        for line in stanza.lines() {
            let Some((name, value)) = line.split_once(": ") else { continue };
            match name {
                "Package" => package.name = value.trim().to_owned(),
                "Version" => package.version = value.trim().to_owned(),
                "Architecture" => package.architecture = value.trim().to_owned(),
                "Depends" | "Pre-Depends" => package.needs.extend(names_of(value)),
                "Priority" => package.priority = value.trim().to_owned(),
                "Essential" => package.essential = value.trim() == "yes",
                _ => {}
            }
        }
        (!package.name.is_empty()).then_some(package)
    }
}

/// Hands over the packages of an index one by one: all at once, an archive's would fill 100 MB.
pub fn each_package(index: impl BufRead, take: &mut dyn FnMut(Package)) -> io::Result<()> {
    let mut stanza = String::new();
    for line in index.split(b'\n') {
        let line = line?;
        if line.is_empty() {
            Package::from_stanza(&stanza).into_iter().for_each(&mut *take);
            stanza.clear();
        } else if !line.starts_with(b" ") {
            stanza.push_str(&String::from_utf8_lossy(&line));
            stanza.push('\n');
        }
    }
    Package::from_stanza(&stanza).into_iter().for_each(take);
    Ok(())
}

/// The names in a relation (deb-control(5)): `a (>= 1) | b, c:any` has three.
fn names_of(relation: &str) -> impl Iterator<Item = String> + '_ {
    let name = |part: &str| part.trim().split([' ', '(', ':', '[']).next().unwrap_or_default().to_owned();
    relation.split([',', '|']).map(name).filter(|name| !name.is_empty())
}

/// The paragraph of one package in dpkg's status file.
pub fn status_of(status: &str, name: &str) -> Option<Paragraph> {
    let first = format!("Package: {name}\n");
    let stanza = status.split("\n\n").find(|stanza| stanza.trim_start_matches('\n').starts_with(&first))?;
    deb822::parse(stanza).ok()?.into_iter().next()
}

/// Names and versions of the installed packages of a status file, and the sum of their sizes in bytes.
pub fn installed(status: &str) -> (Vec<Package>, u64) {
    let mut all = Vec::new();
    let mut bytes = 0;
    for stanza in status.split("\n\n") {
        if !stanza.lines().any(|line| line == "Status: install ok installed" || line == "Status: hold ok installed") {
            continue;
        }
        let size = stanza.lines().find_map(|line| line.strip_prefix("Installed-Size: "));
        bytes += size.and_then(|size| size.trim().parse::<u64>().ok()).unwrap_or(0) * 1024;
        all.extend(Package::from_stanza(stanza));
    }
    (all, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Package: a\nStatus: install ok installed\nPriority: required\nEssential: yes\nInstalled-Size: 10\nArchitecture: amd64\nVersion: 1.0-1\nDescription: first\n Package: not me\n\nPackage: b\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 2\n";

    #[test]
    fn reads_an_index() {
        let mut all = Vec::new();
        each_package(STATUS.as_bytes(), &mut |package| all.push(package)).unwrap();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].name.as_str(), all[0].essential, all[0].priority.as_str()), ("a", true, "required"));
        assert_eq!((all[1].version.as_str(), all[1].architecture.as_str()), ("2", "all"));
    }

    #[test]
    fn counts_only_what_is_installed() {
        let (all, bytes) = installed(STATUS);
        assert_eq!((all.len(), bytes), (1, 10240));
        assert_eq!(status_of(STATUS, "b").unwrap().get("Version"), Some("2"));
        assert!(status_of(STATUS, "c").is_none());
    }
}
