//! What differs between two commits, as far as a running system shows it.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use crate::ostree::Repository;
use crate::ostree::object::Directory;

/// How many files of each sort are looked at on the system.
const LOOKED_AT: usize = 20;

/// Files that a system has other contents of than its commit, by their purpose.
const LOCAL: [&str; 3] = ["/etc/fstab", "/etc/machine-id", "/etc/resolv.conf"];

/// What a system shows of having been updated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Files below /usr (not /usr/etc) that only the second has: absolute.
    pub only_second: Vec<String>,
    /// Files below /usr/etc that both have and that differ, as they are called in /etc.
    pub changed_defaults: Vec<String>,
    /// Those that only the second has.
    pub new_defaults: Vec<String>,
    /// Whether kernel or initramfs differ.
    pub kernel: bool,
}

impl Difference {
    /// Compares two commits; directories that are the same are not looked into.
    pub fn between(first: (&Repository, &str), second: (&Repository, &str)) -> Result<Self> {
        let mut paths = BTreeMap::new();
        let tops = (top(first)?, top(second)?);
        compare((first.0, &tops.0), (second.0, &tops.1), "", &mut paths)?;
        let mut difference = Self::default();
        for (path, in_first) in paths {
            difference.kernel |= path.starts_with("/usr/lib/modules/")
                && (path.ends_with("/vmlinuz") || path.ends_with("/initramfs.img"));
            if let Some(default) = path.strip_prefix("/usr/etc/") {
                let path = format!("/etc/{default}");
                if LOCAL.contains(&path.as_str()) {
                    continue;
                }
                let list = if in_first { &mut difference.changed_defaults } else { &mut difference.new_defaults };
                push(list, path);
            } else if path.starts_with("/usr/") && !in_first {
                push(&mut difference.only_second, path);
            }
        }
        Ok(difference)
    }
}

fn push(list: &mut Vec<String>, path: String) {
    // A shell reads them; others do not matter.
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.+@".contains(c);
    if list.len() < LOOKED_AT && path.chars().all(plain) {
        list.push(path);
    }
}

fn top((repository, commit): (&Repository, &str)) -> Result<Directory> {
    repository.directory(&repository.commit(commit)?.tree)
}

/// Collects files of the second that the first does not have the same, and whether it has them at all.
fn compare(
    first: (&Repository, &Directory),
    second: (&Repository, &Directory),
    above: &str,
    into: &mut BTreeMap<String, bool>,
) -> Result<()> {
    let known: BTreeMap<&str, &str> = first.1.files.iter().map(|(name, sum)| (name.as_str(), sum.as_str())).collect();
    for (name, sum) in &second.1.files {
        match known.get(name.as_str()) {
            Some(known) if known == sum => {}
            known => drop(into.insert(format!("{above}/{name}"), known.is_some())),
        }
    }
    let known: BTreeMap<&str, &str> =
        first.1.directories.iter().map(|(name, tree, _)| (name.as_str(), tree.as_str())).collect();
    for (name, tree, _) in &second.1.directories {
        let theirs = match known.get(name.as_str()) {
            Some(known) if known == tree => continue,
            Some(known) => first.0.directory(known)?,
            None => Directory::default(),
        };
        let ours = second.0.directory(tree)?;
        compare((first.0, &theirs), (second.0, &ours), &format!("{above}/{name}"), into)?;
    }
    Ok(())
}

/// The version of the kernel in a commit.
pub fn kernel(repository: &Repository, commit: &str) -> Result<String> {
    let mut directory = repository.directory(&repository.commit(commit)?.tree)?;
    for part in ["usr", "lib", "modules"] {
        let found = directory.directories.into_iter().find(|(name, ..)| name == part);
        let (_, tree, _) = found.context("the commit has no /usr/lib/modules")?;
        directory = repository.directory(&tree)?;
    }
    for (name, tree, _) in &directory.directories {
        if repository.directory(tree)?.files.iter().any(|(file, _)| file == "vmlinuz") {
            return Ok(name.clone());
        }
    }
    anyhow::bail!("the commit has no kernel")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn commits_are_compared_by_their_files() {
        let top = tempfile::tempdir().unwrap();
        let (tree, repo) = (top.path().join("tree"), top.path().join("repo"));
        let write = |path: &str, text: &str| {
            let path = tree.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let ostree = |words: &[&str]| {
            let done = Command::new("ostree").arg(format!("--repo={}", repo.display())).args(words).output();
            done.is_ok_and(|output| output.status.success())
        };
        if !ostree(&["init", "--mode=archive"]) {
            return;
        }
        write("usr/lib/modules/1/vmlinuz", "kernel");
        write("usr/etc/issue", "one");
        write("usr/etc/same", "same");
        let commit = |branch: &str| {
            let (branch, tree) = (format!("--branch={branch}"), format!("--tree=dir={}", tree.display()));
            assert!(ostree(&["commit", &branch, &tree]));
        };
        commit("a");
        write("usr/etc/issue", "two");
        write("usr/etc/new.d/file", "new");
        write("usr/share/b/file", "b");
        commit("b");
        let repository = Repository::open(&repo).unwrap().unwrap();
        let (a, b) = (repository.head("a").unwrap(), repository.head("b").unwrap());
        let found = Difference::between((&repository, &a), (&repository, &b)).unwrap();
        assert_eq!(found.only_second, ["/usr/share/b/file"]);
        assert_eq!(found.changed_defaults, ["/etc/issue"]);
        assert_eq!(found.new_defaults, ["/etc/new.d/file"]);
        assert!(!found.kernel);
        assert_eq!(kernel(&repository, &a).unwrap(), "1");
        let same = Difference::between((&repository, &a), (&repository, &a)).unwrap();
        assert_eq!(same, Difference::default());
    }
}
