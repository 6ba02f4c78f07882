//! Directories in which files come into being as a step makes them, whatever the place hands down.
//!
//! A directory gives what is made in it of its own: a default ACL, its group, flags of the file system, on some
//! hosts a label. All trees, artifacts and copies of a build are made below one directory of the store, so it is
//! that one which has nothing to give.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, Permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::unistd::{getegid, geteuid};

use crate::diagnostics::Fault;
use crate::sys::file::{flags, set_flags};
use crate::sys::label;

/// Flags that a directory hands down and that change how files behave (linux/fs.h). How data is kept on the disk
/// (compression, copy on write) is the place's own business: no program sees it in what it reads.
const HANDED_DOWN: [(u32, &str); 10] = [
    (0x0000_0001, "s"),
    (0x0000_0002, "u"),
    (0x0000_0008, "S"),
    (0x0000_0010, "i"),
    (0x0000_0020, "a"),
    (0x0000_0040, "d"),
    (0x0000_0080, "A"),
    (0x0001_0000, "D"),
    (0x0002_0000, "T"),
    (0x4000_0000, "F"),
];

/// Makes a directory (0755) that hands nothing down. What it cannot be freed of is a fault that names it.
pub(super) fn make(path: &Path) -> Result<()> {
    let doing = || format!("making {}", path.display());
    DirBuilder::new().mode(0o700).create(path).with_context(doing)?;
    let directory = File::open(path).with_context(doing)?;
    // A new group takes the set-group-id bit, and an ACL's mask is part of the mode.
    std::os::unix::fs::fchown(&directory, None, Some(getegid().as_raw())).with_context(doing)?;
    for name in attributes(path).with_context(doing)? {
        if label::is_label(&name) {
            label::saw_label();
        } else {
            remove_attribute(path, &name)?;
        }
    }
    directory.set_permissions(Permissions::from_mode(0o755)).with_context(doing)?;
    if let Some(all) = flags(directory.as_fd()).with_context(doing)?
        && let unwanted = HANDED_DOWN.iter().fold(0, |mask, (flag, _)| mask | flag) & all
        && unwanted != 0
    {
        // What it would not let go of is seen below.
        let _ = set_flags(directory.as_fd(), all & !unwanted);
    }
    match inherited(path, &directory).with_context(doing)? {
        None => Ok(()),
        Some(what) => Err(Fault::machine(format!(
            "{} gives every file that is made in it {what}, which would end in what is built",
            path.parent().unwrap_or(path).display()
        ))
        .hint("name another place for the store in DEBFORGE_STORE, on another file system")
        .into()),
    }
}

fn remove_attribute(path: &Path, name: &OsStr) -> Result<()> {
    match xattr::remove(path, name) {
        // Some come and go with others.
        Err(error) if !matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::ENODATA)) => {
            Err(error).with_context(|| format!("taking {} from {}", name.to_string_lossy(), path.display()))
        }
        _ => Ok(()),
    }
}

/// What a file that is made in a directory gets from it, tried with one.
fn inherited(path: &Path, directory: &File) -> Result<Option<String>> {
    let all = flags(directory.as_fd())?.unwrap_or_default();
    if let Some((_, letter)) = HANDED_DOWN.iter().find(|(flag, _)| all & flag != 0) {
        return Ok(Some(format!("the attribute `{letter}` (chattr(1))")));
    }
    let probe = path.join("probe");
    // A group that is not ours, where this process may give it: `grpid` (mount(8)) hands it down.
    let another = getegid().as_raw() + 1;
    let given = geteuid().is_root() && std::os::unix::fs::chown(path, None, Some(another)).is_ok();
    DirBuilder::new().mode(0o777).create(&probe)?;
    let about = fs::metadata(&probe)?;
    let attributes: Vec<OsString> = attributes(&probe)?.into_iter().filter(|name| !label::is_hosts(name)).collect();
    fs::remove_dir(&probe)?;
    if given {
        std::os::unix::fs::chown(path, None, Some(getegid().as_raw()))?;
    }
    if about.gid() != getegid().as_raw() || about.mode() & 0o7000 != 0 {
        return Ok(Some("the group of its directory".to_owned()));
    }
    Ok(attributes.first().map(|name| format!("the attribute {}", name.to_string_lossy())))
}

fn attributes(path: &Path) -> std::io::Result<Vec<OsString>> {
    match xattr::list(path) {
        Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => Ok(Vec::new()),
        other => Ok(other?.collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_hands_nothing_down_of_the_one_that_it_is_made_in() {
        let place = tempfile::tempdir().unwrap();
        // A default ACL of a named user, as setfacl(1) writes it (linux/posix_acl_xattr.h): version, then tag,
        // permissions and id of user::rwx, user:1234:rwx, group::r-x, mask::rwx, other::---.
        let entries: [(u16, u16, u32); 5] =
            [(1, 7, u32::MAX), (2, 7, 1234), (4, 5, u32::MAX), (0x10, 7, u32::MAX), (0x20, 0, u32::MAX)];
        let mut acl = 2u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            acl.extend(tag.to_le_bytes().into_iter().chain(permissions.to_le_bytes()).chain(id.to_le_bytes()));
        }
        let has_acls = xattr::set(place.path(), "system.posix_acl_default", &acl).is_ok();
        fs::set_permissions(place.path(), Permissions::from_mode(0o2770)).unwrap();
        let (inherits, clean) = (place.path().join("inherits"), place.path().join("clean"));
        fs::create_dir(&inherits).unwrap();
        assert_ne!(fs::metadata(&inherits).unwrap().mode() & 0o2000, 0);
        assert_eq!(attributes(&inherits).unwrap().is_empty(), !has_acls);
        make(&clean).unwrap();
        assert_eq!(fs::metadata(&clean).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(attributes(&clean).unwrap(), [""; 0]);
        assert_eq!(fs::read_dir(&clean).unwrap().count(), 0);
    }
}
