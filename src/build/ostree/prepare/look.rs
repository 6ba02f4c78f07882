//! What can be told to be wrong before anything is changed, and before the initramfs, which takes its time.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::super::fit::{self, Fate, listed};
use super::{Preparation, tidy, top, var};
use crate::build::inside::{Inside, Kind};
use crate::diagnostics::Fault;

/// Looks for what the layout has no place for, what a commit cannot hold, and what tmpfiles.d cannot make again.
pub(super) fn through(it: &Preparation<'_>) -> Result<String> {
    top_level(it)?;
    let in_var = top::moved(it.options.local_in_var);
    let mut clashing = Vec::new();
    for (from, place) in in_var.iter().map(|(from, place, _)| (*from, *place)).chain([tidy::MOVED_DATABASE]) {
        match it.root.join(place).symlink_metadata() {
            // Whether or not there is anything to move.
            Ok(meta) if !meta.is_dir() => clashing.push((from.into(), place.into())),
            _ => clashes(it.root, Path::new(from), Path::new(place), &mut clashing)?,
        }
    }
    if let Some((from, to)) = clashing.first() {
        let more = if clashing.len() > 1 { format!(", and {} more", clashing.len() - 1) } else { String::new() };
        return Err(Fault::failed(format!(
            "/{} would move to /{}, where something else is{more}",
            from.display(),
            to.display()
        ))
        .hint("remove one of the two, or give it another name")
        .into());
    }
    let fate = |path: &Path| match path {
        path if top::is_emptied(path) || tidy::is_cache(path) => Fate::LeftOut,
        path if path.starts_with("var") || in_var.iter().any(|(from, ..)| path.starts_with(from)) => Fate::Described,
        _ => Fate::Committed,
    };
    let (files, sockets) = fit::check(it.root, fate)?;
    for socket in &sockets {
        fs::remove_file(it.root.join(socket)).with_context(|| format!("removing /{}", socket.display()))?;
        it.cx.log(format!("left out: the socket /{}, which means nothing without its program", socket.display()));
    }
    var::survey(it, Path::new("var"), "/var")?;
    for (from, place, _) in in_var {
        var::survey(it, Path::new(from), &format!("/{place}"))?;
    }
    Ok(format!("{files} files"))
}

/// What in a directory has the name of something else where it is to move: (from, to) of each.
fn clashes(root: &Path, from: &Path, to: &Path, found: &mut Vec<(PathBuf, PathBuf)>) -> Result<()> {
    let kind = |path: &Path| match root.join(path).symlink_metadata() {
        Ok(meta) => Ok(Some(meta.file_type())),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("looking at /{}", path.display())),
    };
    let (Some(here), Some(there)) = (kind(from)?, kind(to)?) else { return Ok(()) };
    if !(here.is_dir() && there.is_dir()) {
        // A link at the top was looked at before.
        let is_top = here.is_symlink() && from.parent().is_none_or(|parent| parent.as_os_str().is_empty());
        if !is_top {
            found.push((from.to_owned(), to.to_owned()));
        }
        return Ok(());
    }
    let doing = || format!("reading /{}", from.display());
    let names = fs::read_dir(root.join(from)).with_context(doing)?.map(|entry| entry.map(|entry| entry.file_name()));
    let mut names = names.collect::<std::io::Result<Vec<_>>>().with_context(doing)?;
    names.sort();
    names.iter().try_for_each(|name| clashes(root, &from.join(name), &to.join(name), found))
}

/// Refuses what would be lost without a word when the top level is arranged.
fn top_level(it: &Preparation<'_>) -> Result<()> {
    let inside = Inside::open(it.root)?;
    for (from, place, link) in
        top::moved(it.options.local_in_var).into_iter().chain([("media", "run/media", "run/media")])
    {
        if inside.link_kind(Path::new(from))? == Some(Kind::Link) {
            let target = inside.slot(Path::new(from))?.link_target()?;
            if target != Path::new(link) && target.strip_prefix("/").ok() != Some(Path::new(place)) {
                return Err(Fault::failed(format!("/{from} is a link to {}", target.display()))
                    .hint(format!("OSTree's systems have one to /{place} there: move what it leads to, or remove it"))
                    .into());
            }
        }
    }
    let mut strange = BTreeSet::new();
    for entry in fs::read_dir(it.root).context("reading the root")? {
        let entry = entry.context("reading the root")?;
        let (name, kind) = (entry.file_name(), entry.file_type()?);
        let empty = || fs::read_dir(entry.path()).is_ok_and(|mut all| all.next().is_none());
        if !(top::is_known(&name) || kind.is_symlink() || kind.is_dir() && empty()) {
            strange.insert(format!("/{}", name.display()));
        }
    }
    if !strange.is_empty() {
        let names: Vec<String> = strange.into_iter().collect();
        return Err(Fault::failed(format!("neither in /usr nor in /etc nor in /var: {}", listed(&names)))
            .hint("OSTree's systems have no other place for files: move it below /usr, or remove it")
            .into());
    }
    Ok(())
}
