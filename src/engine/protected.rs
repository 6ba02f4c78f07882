//! Files that chattr(1) protects (`+i`, `+a`): overlayfs knows of them in the step that does it and in no other, and
//! no archive or tool that makes a file system takes them over.

use std::path::Path;

use anyhow::{Context, Result};
use walkdir::WalkDir;

use crate::diagnostics::Fault;
use crate::sys::file::protection;

/// Where overlayfs notes what it must not do to the file itself (linux/fs/overlayfs/overlayfs.h).
const NOTES: [&str; 2] = ["trusted.overlay.protattr", "user.overlay.protattr"];

/// Refuses a layer in which files are protected.
pub(super) fn refuse(layer: &Path) -> Result<()> {
    for entry in WalkDir::new(layer).sort_by_file_name() {
        let entry = entry.context("looking for protected files")?;
        let (path, kind) = (entry.path(), entry.file_type());
        if !kind.is_file() && !kind.is_dir() {
            continue;
        }
        let Some(letters) = letters(path).with_context(|| format!("looking at {}", path.display()))? else { continue };
        let shown = Path::new("/").join(path.strip_prefix(layer).unwrap_or(path));
        let shown = shown.display();
        return Err(Fault::failed(format!(
            "{shown} is protected (`chattr +{letters}`), which neither later steps nor what is built would keep"
        ))
        .hint(format!(
            "systemd-tmpfiles does it at each start: `h {shown} - - - - +{letters}` in a file in /etc/tmpfiles.d"
        ))
        .hint("in an image that is mounted (`strategy: mounted`), `chattr` after `filesystem-deploy` stays")
        .into());
    }
    Ok(())
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
