//! /var: not part of what is deployed, so tmpfiles.d makes it on each machine.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use walkdir::WalkDir;

use super::super::fit::listed;
use super::tree::slot;
use super::{Preparation, tidy};
use crate::diagnostics::Fault;
use crate::ostree::acl;
use crate::ostree::tmpfiles::{self, Item, Made};

/// Read by systemd-tmpfiles(8). Debian's own files come first where both have a line.
pub(in super::super) const CONFIG: &str = "/usr/lib/tmpfiles.d/var-of-image.conf";

/// Where tmpfiles.d's `C` copies from.
const FACTORY: &str = "usr/share/factory";

/// What packages' own lines make, and the files that these are in.
type Known = BTreeMap<String, Vec<(Made, String)>>;

/// Describes /var: tmpfiles.d has lines for all directories, links, pipes and files in it, and copies of the files are
/// below /usr/share/factory. In /var itself they stay for containers, where nothing runs tmpfiles.d.
pub(super) fn describe(it: &Preparation<'_>) -> Result<String> {
    let found = survey(it, Path::new("var"), "/var")?;
    let copied = found.iter().filter(|found| found.is_copied).count();
    for file in found.iter().filter(|found| found.is_copied) {
        let shown = &file.path;
        let from = it.root.join(shown.trim_start_matches('/'));
        let to = it.root.join(FACTORY).join(shown.trim_start_matches('/'));
        make_place(it.root, shown).with_context(|| format!("making a place for {shown}"))?;
        fs::copy(&from, &to).with_context(|| format!("copying {shown} to /{FACTORY}"))?;
        slot(&to)?.apply(&slot(&from)?.attributes()?)?;
    }
    let lines: Vec<String> = found.into_iter().flat_map(|found| found.lines).collect();
    let text = format!("# What packages left in /var when this system was built.\n{}\n", lines.join("\n"));
    it.files.write(CONFIG, text)?;
    Ok(format!("{} lines of tmpfiles.d, {copied} files copied on the first start", lines.len()))
}

/// Something of /var, and the lines that make it.
pub(super) struct Found {
    path: String,
    lines: Vec<String>,
    /// Whether a line copies it from the factory.
    is_copied: bool,
}

/// Looks through a directory of the root, which is or will be at `shown` in /var.
///
/// # Errors
/// What no line of tmpfiles.d makes as it is, and what another line makes otherwise.
pub(super) fn survey(it: &Preparation<'_>, directory: &Path, shown: &str) -> Result<Vec<Found>> {
    let known = known(it)?;
    let (mut all, mut marked, mut otherwise) = (Vec::new(), Vec::new(), Vec::new());
    let top = it.root.join(directory);
    if !top.is_dir() || top.is_symlink() {
        return Ok(all);
    }
    let least = usize::from(shown == "/var");
    let is_kept = |path: &Path| !path.strip_prefix(it.root).is_ok_and(tidy::is_cache);
    let walk = WalkDir::new(&top).min_depth(least).sort_by_file_name();
    for entry in walk.into_iter().filter_entry(|entry| is_kept(entry.path())) {
        let entry = entry.with_context(|| format!("reading {shown}"))?;
        let below = entry.path().strip_prefix(&top)?;
        let path = Path::new(shown).join(below).components().as_path().display().to_string();
        let stat = entry.metadata().with_context(|| format!("reading {path}"))?;
        let item = if stat.is_dir() {
            Item::Directory
        } else if stat.is_symlink() {
            Item::Link(fs::read_link(entry.path())?.display().to_string())
        } else if stat.is_file() && path.starts_with("/var/log/") {
            // Logs are removed.
            continue;
        } else if stat.is_file() {
            Item::File
        } else if stat.file_type().is_fifo() {
            Item::Pipe
        } else {
            marked.push(format!("{path} (a device or socket)"));
            continue;
        };
        let lines_of = known.get(&path).map(Vec::as_slice).unwrap_or_default();
        if path.contains(char::is_control) {
            marked.push(format!("{path:?} (its name)"));
            continue;
        }
        let mut found = Found { path: path.clone(), lines: Vec::new(), is_copied: false };
        match lines_of.iter().find(|(made, _)| made.letter != 'a') {
            None => {
                found.lines.push(tmpfiles::line(&path, &item, stat.mode() & 0o7777, stat.uid(), stat.gid()));
                found.is_copied = item == Item::File;
            }
            Some((made, _)) if is_same(it, made, &item, &path, entry.path())? => {
                found.lines.extend(rest(made, &item, &path, &stat));
            }
            Some((_, config)) => otherwise.push(format!("{path} (by {config})")),
        }
        if !stat.is_symlink() {
            for (name, value) in slot(entry.path())?.attributes()?.xattrs {
                let prefix = match name.to_str() {
                    Some(acl::ACCESS) => "",
                    Some(acl::DEFAULT) => "d:",
                    // tmpfiles.d copies these of files.
                    Some(name) if name.starts_with("user.") && item == Item::File => continue,
                    _ => {
                        marked.push(format!("{path} ({})", name.display()));
                        continue;
                    }
                };
                if !lines_of.iter().any(|(made, _)| made.letter == 'a') {
                    let text = acl::text(&value, prefix).with_context(|| format!("reading the ACL of {path}"))?;
                    found.lines.push(tmpfiles::acl_line(&path, &text));
                }
            }
        }
        all.push(found);
    }
    if !otherwise.is_empty() {
        return Err(Fault::failed(format!("tmpfiles.d would make something else of {}", listed(&otherwise)))
            .hint("a file of the same name in /etc/tmpfiles.d replaces that of the package")
            .into());
    }
    if !marked.is_empty() {
        return Err(Fault::failed(format!(
            "nothing gives machines these files with what is special of them: {}",
            listed(&marked)
        ))
        .hint("/var is made anew on each machine by tmpfiles.d, which knows modes, owners and ACLs: have it below /usr")
        .into());
    }
    Ok(all)
}

/// Whether a package's line makes what is there.
fn is_same(it: &Preparation<'_>, made: &Made, item: &Item, path: &str, host: &Path) -> Result<bool> {
    Ok(match (item, made.letter) {
        (Item::Directory, 'C') => true,
        (Item::Directory, _) => made.is_directory(),
        (Item::Link(target), 'L') => {
            made.argument.as_ref().is_some_and(|argument| leads_to(path, argument) == leads_to(path, target))
        }
        (Item::Pipe, 'p') => true,
        (Item::File, letter @ ('f' | 'F' | 'C')) => {
            let has = fs::read(host).with_context(|| format!("reading {path}"))?;
            match (&made.argument, letter) {
                (argument, 'C') => {
                    let source = argument.clone().unwrap_or_else(|| format!("/{FACTORY}{path}"));
                    it.files.bytes(&source)? == Some(has)
                }
                (argument, _) => has.trim_ascii() == argument.as_deref().unwrap_or_default().as_bytes(),
            }
        }
        _ => false,
    })
}

/// Where a link leads, as far as its text says it: Debian's /var/run says `/run`, and systemd's line `../run`.
fn leads_to(link: &str, target: &str) -> PathBuf {
    let mut place = PathBuf::new();
    for part in Path::new(link).parent().unwrap_or(Path::new("/")).join(target).components() {
        match part {
            Component::ParentDir => drop(place.pop()),
            Component::CurDir => {}
            part => place.push(part),
        }
    }
    place
}

/// The mode and the owner, as far as a package's line leaves them open.
fn rest(made: &Made, item: &Item, path: &str, stat: &fs::Metadata) -> Option<String> {
    let usual = match item {
        Item::Directory => 0o755,
        Item::File | Item::Pipe => 0o644,
        Item::Link(_) => return None,
    };
    let mode = stat.mode() & 0o7777;
    let open = |field: usize, differs: bool, value: String| (!made.says[field] && differs).then_some(value);
    let fields = [
        open(0, mode != usual, format!("{mode:04o}")),
        open(1, stat.uid() != 0, stat.uid().to_string()),
        open(2, stat.gid() != 0, stat.gid().to_string()),
    ];
    fields.iter().any(Option::is_some).then(|| {
        let [mode, uid, gid] = fields.map(|field| field.unwrap_or_else(|| "-".into()));
        tmpfiles::adjusting_line(path, &mode, &uid, &gid)
    })
}

/// Makes the directories that a file is in once more below the factory's, as they are: what is in a home of mode 0700
/// is for nobody else there either.
fn make_place(root: &Path, shown: &str) -> Result<()> {
    let parents: Vec<&Path> = Path::new(shown).ancestors().skip(1).collect();
    fs::create_dir_all(root.join(FACTORY))?;
    for parent in parents.into_iter().rev().filter_map(|parent| parent.strip_prefix("/").ok()) {
        let at = root.join(FACTORY).join(parent);
        if parent.as_os_str().is_empty() || at.symlink_metadata().is_ok() {
            continue;
        }
        fs::create_dir(&at)?;
        slot(&at)?.apply(&slot(&root.join(parent))?.attributes()?)?;
    }
    Ok(())
}

/// What the packages' own tmpfiles.d makes. A file in /etc stands for that of the same name in /usr/lib.
fn known(it: &Preparation<'_>) -> Result<Known> {
    let mut known = Known::new();
    let mut configs: BTreeMap<String, &str> = BTreeMap::new();
    for directory in ["/usr/lib/tmpfiles.d", "/etc/tmpfiles.d"] {
        configs.extend(it.files.names(directory)?.into_iter().map(|name| (name, directory)));
    }
    for (name, directory) in configs.iter().filter(|(name, _)| name.ends_with(".conf")) {
        let path = format!("{directory}/{name}");
        for (made, lines) in tmpfiles::made_by(&it.files.text(&path)?.unwrap_or_default()) {
            known.entry(made).or_default().extend(lines.into_iter().map(|line| (line, path.clone())));
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_nobody_else_may_enter_stays_so_in_the_factory() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("var/home/user");
        fs::create_dir_all(&home).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
        make_place(dir.path(), "/var/home/user/file").unwrap();
        let mode = |path: &str| dir.path().join(FACTORY).join(path).metadata().unwrap().mode() & 0o7777;
        assert_eq!((mode("var/home"), mode("var/home/user")), (0o755, 0o700));
        assert!(!dir.path().join(FACTORY).join("var/home/user/file").exists());
    }
}
