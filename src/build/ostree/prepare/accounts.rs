//! Users and groups.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, lchown};

use anyhow::{Context, Result};
use walkdir::WalkDir;

use super::super::fit::listed;
use super::Preparation;
use crate::build::inside::Inside;
use crate::diagnostics::Fault;
use crate::ostree::accounts::{
    Account, Renumbering, conflicts, parse, renumber_group, renumber_passwd, renumbering, sysusers, without_known,
};

/// Read by systemd-sysusers(8) before the packages' own files.
const CONFIG: &str = "/usr/lib/sysusers.d/00-image.conf";

/// Gives users and groups the numbers that they have in the commit before, and their files likewise: /var of a
/// machine that is updated keeps the old numbers.
pub(super) fn keep_numbers(it: &Preparation<'_>) -> Result<String> {
    let Some((passwd_before, group_before)) = &it.options.previous else { return Ok("no commit before".into()) };
    let passwd = it.files.text("/etc/passwd")?.unwrap_or_default();
    let group = it.files.text("/etc/group")?.unwrap_or_default();
    let users = changes(passwd_before, &passwd, "user")?;
    let groups = changes(group_before, &group, "group")?;
    if users.is_empty() && groups.is_empty() {
        return Ok(String::new());
    }
    let inside = Inside::open(it.root)?;
    let mut files = 0;
    for entry in WalkDir::new(it.root) {
        let entry = entry.context("reading the root")?;
        let stat = entry.metadata().context("reading the root")?;
        let (user, group) = (users.get(&stat.uid()).copied(), groups.get(&stat.gid()).copied());
        if user.is_none() && group.is_none() {
            continue;
        }
        let relative = entry.path().strip_prefix(it.root)?;
        let shown = || format!("giving /{} to another user", relative.display());
        // A new owner clears setuid bits and capabilities.
        let mut attributes = inside.slot(relative)?.attributes()?;
        lchown(entry.path(), user, group).with_context(shown)?;
        attributes.uid = user.unwrap_or(attributes.uid);
        attributes.gid = group.unwrap_or(attributes.gid);
        if !stat.is_symlink() {
            inside.slot(relative)?.apply(&attributes).with_context(shown)?;
        }
        files += 1;
    }
    rewrite(it, "/etc/passwd", &renumber_passwd(&passwd, &users, &groups))?;
    rewrite(it, "/etc/group", &renumber_group(&group, &groups))?;
    Ok(format!("{} users and {} groups got their numbers back, {files} files", users.len(), groups.len()))
}

fn changes(before: &str, now: &str, what: &str) -> Result<Renumbering> {
    let (before, now) = (parse(before), parse(now));
    let changes = renumbering(&before, &now);
    if let Some((wants, has, number)) = conflicts(&changes, &now).first() {
        return Err(Fault::failed(format!("the {what} `{wants}` had the number {number}, which `{has}` has now"))
            .hint(format!("give `{has}` another number, or `{wants}` the same, before packages make them"))
            .into());
    }
    Ok(changes)
}

/// Writes a file in its place, with the owner and mode that it has.
fn rewrite(it: &Preparation<'_>, path: &str, text: &str) -> Result<()> {
    let place = it.files.find(path)?.with_context(|| format!("the root has no {path}"))?;
    fs::write(place, text).with_context(|| format!("writing {path}"))
}

/// Describes the system's users, so that they can be made anew. Packages' lines for them give way, since they have no
/// numbers, or other names.
pub(super) fn write_sysusers(it: &Preparation<'_>) -> Result<String> {
    const PACKAGES: &str = "/usr/lib/sysusers.d";
    let passwd = it.files.text("/etc/passwd")?.unwrap_or_default();
    let group = it.files.text("/etc/group")?.unwrap_or_default();
    warn_of_strangers(it, &passwd, &group)?;
    for name in it.files.names(PACKAGES)?.iter().filter(|name| name.ends_with(".conf")) {
        let path = format!("{PACKAGES}/{name}");
        if let Some(text) = without_known(&it.files.text(&path)?.unwrap_or_default(), &passwd, &group) {
            it.files.write(&path, text)?;
        }
    }
    let text = sysusers(&passwd, &group);
    let lines = text.lines().count() - 1;
    it.files.write(CONFIG, text)?;
    Ok(format!("{lines} lines"))
}

/// Says whose files nobody's are: no line makes a user of that number.
fn warn_of_strangers(it: &Preparation<'_>, passwd: &str, group: &str) -> Result<()> {
    let numbers = |text: &str| parse(text).iter().filter_map(Account::number).collect::<BTreeSet<u32>>();
    let (users, groups) = (numbers(passwd), numbers(group));
    let mut strangers: BTreeMap<String, String> = BTreeMap::new();
    for entry in WalkDir::new(it.root).sort_by_file_name() {
        let entry = entry.context("reading the root")?;
        let stat = entry.metadata().context("reading the root")?;
        let path = || format!("/{}", entry.path().strip_prefix(it.root).unwrap_or(entry.path()).display());
        if !users.contains(&stat.uid()) {
            strangers.entry(format!("the user {}", stat.uid())).or_insert_with(path);
        }
        if !groups.contains(&stat.gid()) {
            strangers.entry(format!("the group {}", stat.gid())).or_insert_with(path);
        }
    }
    if !strangers.is_empty() {
        let names: Vec<String> = strangers.iter().map(|(number, path)| format!("{number} ({path})")).collect();
        it.cx.warn(format!(
            "files belong to numbers that have no name, and that machines may give to others: {}",
            listed(&names)
        ));
    }
    Ok(())
}
