//! What decides where and how a package's file lands: path filters, diversions, overrides, names of owners.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use glob::Pattern;

use crate::build::files::RootFiles;
use crate::debian::dpkg::Diversion;

/// dpkg's `path-exclude` and `path-include`, in order; the last that matches decides.
#[derive(Debug, Clone, Default)]
pub struct Filters(Vec<(bool, Pattern)>);

impl Filters {
    /// The filters among lines of a dpkg configuration file.
    pub fn parse(configuration: &str) -> Result<Self> {
        let mut filters = Vec::new();
        for line in configuration.lines().map(str::trim) {
            let Some((option, value)) = line.split_once(['=', ' ', '\t']) else { continue };
            let include = match option.trim_start_matches("--").trim() {
                "path-exclude" => false,
                "path-include" => true,
                _ => continue,
            };
            let pattern = Pattern::new(value.trim()).with_context(|| format!("reading the dpkg option `{line}`"))?;
            filters.push((include, pattern));
        }
        Ok(Self(filters))
    }

    /// Whether a path (absolute) is left out. Directories and links on the way to something that
    /// is included again stay, as in dpkg.
    pub fn excludes(&self, path: &str, may_lead_on: bool) -> bool {
        let last = self.0.iter().rfind(|(_, pattern)| pattern.matches(path));
        if last.is_none_or(|(include, _)| *include) {
            return false;
        }
        let leads_on = |pattern: &Pattern| {
            let fixed = pattern.as_str().split(['*', '?', '[', ']', '\\']).next().unwrap_or_default();
            path.starts_with(fixed.trim_end_matches('/')) || fixed.starts_with(&format!("{path}/"))
        };
        !(may_lead_on && self.0.iter().any(|(include, pattern)| *include && leads_on(pattern)))
    }
}

/// Owner and mode that the administrator or a package set for a path (dpkg-statoverride(1)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Override {
    /// Number of the user.
    pub uid: u32,
    /// Number of the group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

/// The rules as they stand in a root at one moment.
#[derive(Debug, Default)]
pub struct Rules {
    filters: Filters,
    diversions: HashMap<String, Diversion>,
    overrides: HashMap<String, Override>,
    users: HashMap<String, u32>,
    groups: HashMap<String, u32>,
}

impl Rules {
    /// Reads them from a root whose dpkg database and /etc are plain directories.
    pub fn read(root: &Path, filters: &Filters) -> Result<Self> {
        let users = numbers(&optional(root, "/etc/passwd")?);
        let groups = numbers(&optional(root, "/etc/group")?);
        let diversions = diversions(root)?;
        let overrides = overrides(&optional(root, "/var/lib/dpkg/statoverride")?, &users, &groups);
        Ok(Self {
            filters: filters.clone(),
            diversions: diversions.into_iter().map(|diversion| (diversion.from.clone(), diversion)).collect(),
            overrides,
            users,
            groups,
        })
    }

    /// See [`Filters::excludes`].
    pub fn excludes(&self, path: &str, may_lead_on: bool) -> bool {
        self.filters.excludes(path, may_lead_on)
    }

    /// Where a package's file goes.
    pub fn diverted<'a>(&'a self, path: &'a str, package: &str) -> &'a str {
        match self.diversions.get(path) {
            Some(diversion) if diversion.by.as_deref() != Some(package) => &diversion.to,
            _ => path,
        }
    }

    /// What was set for a path.
    pub fn set_for(&self, path: &str) -> Option<Override> {
        self.overrides.get(path).copied()
    }

    /// The number of a user in this root, else the number that the package has for it.
    pub fn uid(&self, name: Option<&str>, number: u32) -> u32 {
        name.and_then(|name| self.users.get(name)).copied().unwrap_or(number)
    }

    /// The number of a group in this root, else the number that the package has for it.
    pub fn gid(&self, name: Option<&str>, number: u32) -> u32 {
        name.and_then(|name| self.groups.get(name)).copied().unwrap_or(number)
    }
}

/// A root's diversions.
pub fn diversions(root: &Path) -> Result<Vec<Diversion>> {
    Diversion::parse_all(&optional(root, "/var/lib/dpkg/diversions")?)
}

fn optional(root: &Path, path: &str) -> Result<String> {
    Ok(RootFiles::open(root)?.text(path)?.unwrap_or_default())
}

/// Name to number, of passwd(5) or group(5).
fn numbers(text: &str) -> HashMap<String, u32> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
        })
        .collect()
}

fn overrides(text: &str, users: &HashMap<String, u32>, groups: &HashMap<String, u32>) -> HashMap<String, Override> {
    let number = |name: &str, numbers: &HashMap<String, u32>| match name.strip_prefix('#') {
        Some(number) => number.parse().ok(),
        None => numbers.get(name).copied(),
    };
    text.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(4, ' ');
            let uid = number(fields.next()?, users)?;
            let gid = number(fields.next()?, groups)?;
            let mode = u32::from_str_radix(fields.next()?, 8).ok()?;
            Some((fields.next()?.to_owned(), Override { uid, gid, mode }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_filter_that_matches_decides() {
        let filters = Filters::parse(
            "path-exclude=/usr/share/doc/*\npath-include=/usr/share/doc/*/copyright\nforce-unsafe-io\npath-exclude /usr/share/man/*\n",
        )
        .unwrap();
        let cases = [
            ("/usr/share/doc/bash/changelog.gz", false, true),
            ("/usr/share/doc/bash/copyright", false, false),
            ("/usr/share/doc/bash", true, false),
            ("/usr/share/man/man1", true, true),
            ("/usr/share/man/man1/sh.1.gz", false, true),
            ("/usr/bin/bash", false, false),
        ];
        for (path, leads, expected) in cases {
            assert_eq!(filters.excludes(path, leads), expected, "{path}");
        }
        assert!(Filters::parse("path-exclude=/a/[").is_err());
    }

    #[test]
    fn overrides_name_users_by_name_or_number() {
        let users = numbers("root:x:0:0:root:/root:/bin/bash\nman:x:6:12::/:/bin/false\n");
        let groups = numbers("shadow:*:42:\n");
        let all = overrides("man shadow 2755 /usr/bin/x\n#7 #8 640 /etc/y\nnobody shadow 1 /z\n", &users, &groups);
        assert_eq!(all["/usr/bin/x"], Override { uid: 6, gid: 42, mode: 0o2755 });
        assert_eq!(all["/etc/y"], Override { uid: 7, gid: 8, mode: 0o640 });
        assert_eq!(all.len(), 2);
    }
}
