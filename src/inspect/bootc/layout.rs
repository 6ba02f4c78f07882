//! Checks of directories and of what stands in them.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Deserialize;

use super::{Found, at, listed};
use crate::inspect::Tree;
use crate::inspect::tree::EntryKind;

/// Directories that are mounted over (<https://systemd.io/API_FILE_SYSTEMS/>), and /var.
const API: [&str; 6] = ["dev", "proc", "sys", "run", "tmp", "var"];

/// Where bootc has an example of a base image; checked as the root is.
const EXAMPLE: &str = "usr/share/doc/bootc/baseimage/base";

pub(super) fn api_directories(tree: &dyn Tree) -> Found {
    for name in API {
        match at(tree, name)? {
            None => return Ok(Some(format!("/{name} is missing"))),
            Some(entry) if entry.kind != EntryKind::Directory => {
                return Ok(Some(format!("/{name} is not a directory")));
            }
            Some(_) => {}
        }
    }
    Ok(None)
}

/// The tops of the root and of the example in it.
fn tops(tree: &dyn Tree) -> Result<Vec<&'static str>> {
    let example = tree.find(Path::new(EXAMPLE))?.is_some_and(|entry| entry.kind == EntryKind::Directory);
    Ok(if example { vec!["", "usr/share/doc/bootc/baseimage/base/"] } else { vec![""] })
}

pub(super) fn base_image(tree: &dyn Tree) -> Found {
    for top in tops(tree)? {
        match at(tree, &format!("{top}sysroot"))?.map(|entry| entry.kind) {
            None => return Ok(Some(format!("/{top}sysroot is missing"))),
            Some(EntryKind::Directory) => {}
            Some(_) => return Ok(Some(format!("/{top}sysroot is not a directory"))),
        }
        let wrong = match at(tree, &format!("{top}ostree"))?.map(|entry| entry.kind) {
            None => "is missing".to_owned(),
            Some(EntryKind::Link(target)) if target.as_os_str().as_bytes() == b"sysroot/ostree" => continue,
            Some(EntryKind::Link(target)) => format!("leads to {}", target.display()),
            Some(_) => "is not a link".to_owned(),
        };
        return Ok(Some(format!("/{top}ostree {wrong}: it must be a link to sysroot/ostree")));
    }
    Ok(None)
}

pub(super) fn composefs(tree: &dyn Tree) -> Found {
    for top in tops(tree)? {
        let mut text = None;
        for place in ["etc", "usr/lib"] {
            if text.is_none() {
                text = tree.text(format!("{top}{place}/ostree/prepare-root.conf"))?;
            }
        }
        match text {
            None => return Ok(Some(format!("there is no /{top}usr/lib/ostree/prepare-root.conf"))),
            Some(text) if !overlay_enabled(&text) => {
                return Ok(Some("prepare-root.conf does not turn composefs on".to_owned()));
            }
            Some(_) => {}
        }
    }
    Ok(None)
}

/// Whether ostree-prepare-root.conf(5) asks for an overlay: by composefs, or for a root that is thrown away.
fn overlay_enabled(text: &str) -> bool {
    let mut section = "";
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
        } else if let Some((key, value)) = line.split_once('=') {
            let (key, value) = (key.trim(), value.trim());
            let on = match (section, key) {
                ("root", "transient") => ["true", "1"].contains(&value),
                ("composefs", "enabled") => ["yes", "true", "1", "maybe", "signed", "verity"].contains(&value),
                _ => false,
            };
            if on {
                return true;
            }
        }
    }
    false
}

pub(super) fn injected(tree: &dyn Tree) -> Found {
    for path in ["etc/hostname", "etc/resolv.conf"] {
        if at(tree, path)?.is_some_and(|entry| entry.kind == EntryKind::File && entry.size == 0) {
            return Ok(Some(format!("/{path} is an empty file")));
        }
    }
    Ok(None)
}

pub(super) fn usr_etc(tree: &dyn Tree) -> Found {
    let both = at(tree, "etc")?.is_some() && at(tree, "usr/etc")?.is_some();
    Ok(both.then(|| "there is a /usr/etc beside /etc, which an image must not have".to_owned()))
}

/// A file of kargs.d.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[allow(dead_code)]
struct KernelArguments {
    kargs: Vec<String>,
    match_architectures: Option<Vec<String>>,
}

pub(super) fn kernel_arguments(tree: &dyn Tree) -> Found {
    for entry in tree.names("usr/lib/bootc/kargs.d")? {
        if entry.path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let Some(text) = tree.text(&entry.path)? else { continue };
        if let Err(error) = toml::from_str::<KernelArguments>(&text) {
            return Ok(Some(format!("/{}: {}", entry.path.display(), error.message())));
        }
    }
    Ok(None)
}

pub(super) fn kernel(tree: &dyn Tree) -> Found {
    let mut kernels = Vec::new();
    for entry in tree.names("usr/lib/modules")? {
        if entry.kind == EntryKind::Directory && tree.find(&entry.path.join("vmlinuz"))?.is_some() {
            kernels.push(entry.path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
    Ok(if kernels.len() > 1 { listed("there is more than one kernel", &kernels) } else { None })
}

pub(super) fn boot(tree: &dyn Tree) -> Found {
    if tree.find(Path::new("boot"))?.is_none_or(|entry| entry.kind != EntryKind::Directory) {
        return Ok(Some("/boot is missing".to_owned()));
    }
    // bootc's own unified kernel images may be in /boot/EFI.
    let names = tree.names("boot")?.into_iter().map(|entry| entry.path).filter(|path| !path.ends_with("EFI"));
    Ok(listed("/boot is not empty", &shown(names)))
}

pub(super) fn run_and_tmp(tree: &dyn Tree) -> Found {
    // podman leaves it behind.
    const KNOWN: &str = "run/systemd/resolve/stub-resolv.conf";
    let mut all = BTreeSet::new();
    for top in ["run", "tmp"] {
        let mut todo = vec![PathBuf::from(top)];
        while let Some(directory) = todo.pop() {
            for entry in tree.list(&directory)? {
                if entry.kind == EntryKind::Directory {
                    todo.push(entry.path.clone());
                }
                all.insert(entry.path);
            }
        }
    }
    all.remove(Path::new(KNOWN));
    for above in Path::new(KNOWN).ancestors().skip(1).take(2) {
        if !all.iter().any(|path| path != above && path.starts_with(above)) {
            all.remove(above);
        }
    }
    Ok(listed("there are files that nobody will see", &shown(all)))
}

pub(super) fn utf8(tree: &dyn Tree) -> Found {
    let mut wrong = None;
    tree.walk(&mut |entry| {
        if entry.path.file_name().is_some_and(|name| name.to_str().is_none()) {
            wrong.get_or_insert_with(|| format!("the name {:?} is not UTF-8", entry.path));
        }
        if let EntryKind::Link(target) = &entry.kind
            && target.to_str().is_none()
        {
            wrong.get_or_insert_with(|| format!("the link /{} leads to {target:?}, not UTF-8", entry.path.display()));
        }
        Ok(())
    })?;
    Ok(wrong)
}

fn shown(paths: impl IntoIterator<Item = PathBuf>) -> Vec<String> {
    paths.into_iter().map(|path| format!("/{}", path.display())).collect()
}
