//! Whether a tree would make a bootc image: the checks of `bootc container lint`, by its names and levels
//! (bootc 1.x, crates/lib/src/lints.rs), on any [`Tree`]. `var-tmpfiles`, which bootc does on a running system alone,
//! is done always.

mod accounts;
mod layout;
mod tmpfiles;
mod var;

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::Tree;
use super::tree::Entry;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The image will not install or not run.
    Fatal,
    /// It will, but not as one would wish.
    Warning,
}

/// What is wrong, or nothing.
type Found = Result<Option<String>>;

/// One check.
pub struct Lint {
    /// As bootc calls it.
    pub name: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What is looked for.
    pub description: &'static str,
    check: fn(&dyn Tree) -> Found,
}

/// All checks, in the alphabet's order.
pub const LINTS: [Lint; 14] = [
    fatal("api-base-directories", "/dev, /proc, /sys, /run, /tmp and /var are directories", layout::api_directories),
    warning("baseimage-composefs", "prepare-root.conf turns composefs on", layout::composefs),
    fatal("baseimage-root", "/sysroot is a directory, /ostree a link to sysroot/ostree", layout::base_image),
    fatal("bootc-kargs", "the files of /usr/lib/bootc/kargs.d can be read", layout::kernel_arguments),
    warning("buildah-injected", "/etc/hostname and /etc/resolv.conf are not empty files", layout::injected),
    fatal("etc-usretc", "there is no /usr/etc beside /etc", layout::usr_etc),
    fatal("kernel", "at most one directory of /usr/lib/modules has a vmlinuz", layout::kernel),
    warning("nonempty-boot", "/boot is there and empty", layout::boot),
    warning("nonempty-run-tmp", "/run and /tmp are empty", layout::run_and_tmp),
    warning("sysusers", "users and groups of /etc are in sysusers.d", accounts::sysusers),
    fatal("utf8", "names of files and targets of links are UTF-8", layout::utf8),
    warning("var-log", "/var/log has no logs", var::logs),
    fatal("var-run", "/var/run is a link", var::run),
    warning("var-tmpfiles", "what is in /var is in tmpfiles.d", tmpfiles::var),
];

const fn fatal(name: &'static str, description: &'static str, check: fn(&dyn Tree) -> Found) -> Lint {
    Lint { name, level: Level::Fatal, description, check }
}

const fn warning(name: &'static str, description: &'static str, check: fn(&dyn Tree) -> Found) -> Lint {
    Lint { name, level: Level::Warning, description, check }
}

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Finding {
    /// Of the check.
    pub name: &'static str,
    /// How bad it is where it fails.
    pub level: Level,
    /// What is wrong; nothing where the check passed.
    pub fault: Option<String>,
}

/// Does all checks.
///
/// # Errors
/// Where the tree cannot be read.
pub fn lint(tree: &dyn Tree) -> Result<Vec<Finding>> {
    let done = LINTS.iter().map(|lint| {
        let fault = (lint.check)(tree).with_context(|| format!("checking `{}`", lint.name))?;
        Ok(Finding { name: lint.name, level: lint.level, fault })
    });
    done.collect()
}

/// What is in /var that no line of tmpfiles.d makes.
///
/// # Errors
/// Where the tree cannot be read.
pub fn undescribed(tree: &dyn Tree) -> Result<Option<String>> {
    tmpfiles::var(tree).context("checking /var")
}

/// What is at a path: links on the way followed, one at its end not.
fn at(tree: &dyn Tree, path: &str) -> Result<Option<Entry>> {
    let path = Path::new(path);
    let parent = match path.parent().filter(|parent| *parent != Path::new("")) {
        Some(parent) => match tree.find(parent)? {
            Some(found) => found.path,
            None => return Ok(None),
        },
        None => Path::new("").to_owned(),
    };
    Ok(tree.list(&parent)?.into_iter().find(|entry| entry.path.file_name() == path.file_name()))
}

/// How many of a list are shown.
const SHOWN: usize = 5;

/// "what: /a, /b and 3 more"; nothing where there are none.
fn listed(what: &str, items: &[String]) -> Option<String> {
    let (shown, rest) = items.split_at(items.len().min(SHOWN));
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    (!items.is_empty()).then(|| format!("{what}: {}{more}", shown.join(", ")))
}

#[cfg(test)]
mod tests;
