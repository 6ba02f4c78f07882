//! What a directory gave to files that were made in it, and that is not their own.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

/// The set-group-id bit, which a directory takes from the one that it is made in.
const SET_GROUP_ID: u32 = 0o2000;
const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

/// What a checkout of a recipe has from the directory that it was made in.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Inherited {
    acls: bool,
    set_group_id: bool,
}

impl Inherited {
    /// What files in a directory have from it.
    pub(super) fn from(directory: &Path) -> Result<Self> {
        let doing = || format!("looking at {}", directory.display());
        let mode = directory.metadata().with_context(doing)?.mode();
        let acls = xattr::get_deref(directory, DEFAULT).ok().flatten().is_some();
        Ok(Self { acls, set_group_id: mode & SET_GROUP_ID != 0 })
    }

    /// Whether there is something.
    pub(super) fn any(self) -> bool {
        self.acls || self.set_group_id
    }

    /// Whether an attribute is not the file's own.
    pub(super) fn gave(self, name: &OsStr) -> bool {
        self.acls && (name == ACCESS || name == DEFAULT)
    }

    /// The mode of a file as it were without.
    pub(super) fn mode_of(self, file: &Path, meta: &Metadata) -> Result<u32> {
        let mut mode = meta.mode() & 0o7777;
        if self.set_group_id && meta.is_dir() {
            mode &= !SET_GROUP_ID;
        }
        if self.acls && !meta.is_symlink() {
            let acl = xattr::get(file, ACCESS).with_context(|| format!("reading the ACL of {}", file.display()))?;
            if let Some(group) = acl.as_deref().and_then(group_of) {
                // With an ACL the group's bits of a mode are its mask (acl(5)).
                mode = mode & !0o070 | (mode & 0o070 & group << 3);
            }
        }
        Ok(mode)
    }
}

/// The permissions of the owning group in an ACL as the kernel writes it: a version, then a tag, permissions
/// and an id for each entry (linux/posix_acl_xattr.h).
fn group_of(acl: &[u8]) -> Option<u32> {
    const OWNING_GROUP: u16 = 4;
    acl.get(4..)?
        .chunks_exact(8)
        .map(|entry| (u16::from_le_bytes([entry[0], entry[1]]), u16::from_le_bytes([entry[2], entry[3]])))
        .find(|(tag, _)| *tag == OWNING_GROUP)
        .map(|(_, permissions)| permissions.into())
}
