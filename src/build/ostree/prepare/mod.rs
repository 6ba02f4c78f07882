//! Turns a root into what OSTree deploys: a /usr that is the whole system, an /etc to be merged, and a /var that is
//! made anew on each machine.

mod accounts;
mod boot;
mod kernel;
mod look;
mod tidy;
mod top;
mod tree;
mod units;
mod var;

use std::path::Path;

use anyhow::{Context, Result};

pub(super) use self::var::CONFIG as DESCRIPTION_OF_VAR;
use super::super::files::RootFiles;
use crate::build::BuildContext;
use crate::debian::deb822;
use crate::diagnostics::Fault;
use crate::ostree::release::Abilities;

/// What a recipe asks for.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `None`: where the release can.
    pub composefs: Option<bool>,
    /// Whether /usr/local is kept in /var.
    pub local_in_var: bool,
    /// Modules that dracut adds beside `ostree`.
    pub dracut_modules: Vec<String>,
    /// `passwd` and `group` of the commit whose numbers are kept.
    pub previous: Option<(String, String)>,
}

/// A root on its way.
struct Preparation<'a> {
    cx: &'a BuildContext<'a>,
    root: &'a Path,
    files: RootFiles,
    options: &'a Options,
    abilities: Abilities,
}

/// Does one thing, and says what it did.
type Step = fn(&Preparation<'_>) -> Result<String>;

/// What is done and looked at, in this order: each step relies on those before it.
const STEPS: &[(&str, Step)] = &[
    ("merged /usr", top::check_merged),
    ("what has no place", look::through),
    ("users", accounts::keep_numbers),
    ("sysusers.d", accounts::write_sysusers),
    ("units", units::install),
    ("boot loader's tools", boot::install),
    ("kernel", kernel::prepare),
    ("identity", tidy::identity),
    ("apt", tidy::apt),
    ("caches", tidy::caches),
    ("byte code", tidy::byte_code),
    ("/tmp", tidy::tmp),
    ("top level", top::arrange),
    ("dpkg's database", tidy::database),
    ("/var", var::describe),
];

/// Does all of it; what was done, for the progress line.
pub fn prepare(cx: &BuildContext<'_>, options: &Options) -> Result<String> {
    let files = RootFiles::open(cx.root)?;
    if files.link_target("/ostree")?.is_some() {
        return Err(Fault::failed("the root is in OSTree's layout already").into());
    }
    let version = package_version(&files, "ostree")?;
    let missing = |what: &str, packages: &str| {
        Fault::failed(what.to_owned())
            .hint(format!("before `ostree-prepare`: `action: apt` with `packages: [{packages}]`"))
    };
    let Some(version) = version else {
        return Err(missing("the root has no ostree", "ostree, ostree-boot, dracut").into());
    };
    let abilities = Abilities::of(&version);
    if options.composefs == Some(true) && !abilities.composefs {
        return Err(Abilities::no_composefs(&format!("ostree {version}")).into());
    }
    for lacking in abilities.lacks() {
        cx.log(format!("ostree {version} has no {lacking}"));
    }
    let preparation = Preparation { cx, root: cx.root, files, options, abilities };
    let mut shown = String::new();
    for (number, (name, step)) in STEPS.iter().enumerate() {
        cx.progress(*name, Some((number as u64, STEPS.len() as u64)));
        let done = step(&preparation).with_context(|| format!("preparing for OSTree: {name}"))?;
        if *name == "kernel" {
            shown.clone_from(&done);
        }
        cx.log(format!("{name}: {}", if done.is_empty() { "as it should be" } else { &done }));
    }
    Ok(shown)
}

/// The version of an installed package.
fn package_version(files: &RootFiles, package: &str) -> Result<Option<String>> {
    let status = files.text("/var/lib/dpkg/status")?.unwrap_or_default();
    let paragraphs = deb822::parse(&status).context("reading dpkg's status")?;
    let found = paragraphs.iter().find(|paragraph| {
        paragraph.get("Package") == Some(package)
            && paragraph.get("Status").is_some_and(|status| status.ends_with(" installed"))
    });
    Ok(found.and_then(|paragraph| paragraph.get("Version")).map(str::to_owned))
}
