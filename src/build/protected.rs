//! What chattr(1) protects (`+i`, `+a`). Overlayfs knows of it in the mount that it was done in and in no other, and a
//! layer of the store must remain removable, so it is kept beside the layers and done again for each step.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use walkdir::WalkDir;

use super::BuildContext;
use super::inside::{Inside, Kind};
use crate::diagnostics::Fault;
use crate::sys::file::{self, protection, protection_flags};

/// Protected files by their paths below the root, which is itself the empty one: letters of chattr(1).
pub type Protected = BTreeMap<String, String>;

/// Where nothing is.
pub static NONE: Protected = Protected::new();

/// Where overlayfs notes what it must not do to the file itself (linux/fs/overlayfs/overlayfs.h).
const NOTES: [&str; 2] = ["trusted.overlay.protattr", "user.overlay.protattr"];

/// What is protected in a layer; the files themselves can be removed afterwards.
pub fn take(layer: &Path) -> Result<Protected> {
    let mut all = Protected::new();
    for (entry, letters) in found(layer)? {
        let path = below(layer, entry.path())?;
        let meta = entry.metadata().with_context(|| format!("looking at /{path}"))?;
        if meta.is_file() && meta.nlink() > 1 {
            return Err(Fault::failed(format!(
                "/{path} is protected (`chattr +{letters}`) and has other names, which the next step would make copies of"
            ))
            .hint("protect a file that has one name, or make the others symbolic links")
            .into());
        }
        if protection(entry.path())?.is_some() {
            let no_follow = libc::O_NOFOLLOW | libc::O_NONBLOCK;
            let file = File::options().read(true).custom_flags(no_follow).open(entry.path());
            let doing = || format!("taking the protection off /{path} in the store");
            let file = file.with_context(doing)?;
            file::set_protection(file.as_fd(), 0).with_context(doing)?;
        }
        all.insert(path, letters);
    }
    Ok(all)
}

/// Protects files of a root again.
pub fn give(root: &Path, protected: &Protected) -> Result<()> {
    if protected.is_empty() {
        return Ok(());
    }
    let inside = Inside::open(root)?;
    // What is below a directory before the directory.
    for (path, letters) in protected.iter().rev() {
        let doing = || format!("protecting /{path} (`chattr +{letters}`) as an earlier step did");
        let at = Path::new("/").join(path);
        let file = match inside.link_kind(&at)? {
            Some(Kind::Directory) => inside.directory(&at, OFlag::O_RDONLY).with_context(doing)?,
            _ => inside.read(&at).with_context(doing)?.into(),
        };
        file::set_protection(file.as_fd(), protection_flags(letters)).with_context(doing)?;
    }
    Ok(())
}

/// Says what is protected in the root that no such product can say.
pub fn warn(cx: &BuildContext<'_>, product: &str) -> Result<()> {
    let mounted;
    let protected = match cx.disk {
        None => cx.protected,
        Some(_) => {
            let found = found(cx.root)?.into_iter();
            mounted = found
                .map(|(entry, letters)| Ok((below(cx.root, entry.path())?, letters)))
                .collect::<Result<Protected>>()?;
            &mounted
        }
    };
    for (path, letters) in protected {
        cx.warn(format!(
            "{product} does not keep that /{path} is protected (`chattr +{letters}`): {}",
            way(path, letters)
        ));
    }
    Ok(())
}

/// How else a file gets protected.
pub fn way(path: &str, letters: &str) -> String {
    format!("systemd-tmpfiles does it at each start, by `h /{path} - - - - +{letters}` in a file in /etc/tmpfiles.d")
}

/// Files and directories that are protected, with the letters.
fn found(top: &Path) -> Result<Vec<(walkdir::DirEntry, String)>> {
    let mut all = Vec::new();
    for entry in WalkDir::new(top).sort_by_file_name() {
        let entry = entry.context("looking for protected files")?;
        if !entry.file_type().is_file() && !entry.file_type().is_dir() {
            continue;
        }
        let letters = letters(entry.path()).with_context(|| format!("looking at {}", entry.path().display()))?;
        all.extend(letters.map(|letters| (entry, letters)));
    }
    Ok(all)
}

fn below(top: &Path, path: &Path) -> Result<String> {
    let path = path.strip_prefix(top).unwrap_or(path);
    path.to_str().map(str::to_owned).ok_or_else(|| {
        Fault::failed(format!("/{} is protected (chattr(1)), and its name is not UTF-8", path.display()))
            .hint("give it another name")
            .into()
    })
}

fn letters(path: &Path) -> std::io::Result<Option<String>> {
    if let Some(letters) = protection(path)? {
        return Ok(Some(letters.to_owned()));
    }
    for name in NOTES {
        match xattr::get(path, name) {
            Ok(Some(value)) => return Ok(Some(String::from_utf8_lossy(&value).into_owned())),
            Ok(None) => {}
            // Not a name that everyone may read, or that the file system knows: then nobody wrote it either.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EPERM)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}
