//! What dpkg knows of a root, wherever its database is.

use std::path::Path;

use anyhow::Result;

use super::files::RootFiles;
use crate::debian::sbom;

/// Directories that dpkg's database may be in: the usual one, and those of systems whose /var is not part of them.
pub const DATABASES: [&str; 3] = ["/var/lib/dpkg", "/usr/share/dpkg/database", "/usr/lib/sysimage/dpkg"];

/// The directory of dpkg's database in a root, and its status; `None` where there is none.
pub fn database(root: &RootFiles) -> Result<Option<(&'static str, String)>> {
    for directory in DATABASES {
        if let Some(status) = root.text(&format!("{directory}/status"))? {
            return Ok(Some((directory, status)));
        }
    }
    Ok(None)
}

/// The bill of materials of a root: the packages that dpkg has in it, with their sources, as SPDX 2.3 in JSON
/// (media type [`sbom::MEDIA_TYPE`]). `name` is what it is about, `epoch` its date in seconds since 1970. A root
/// without dpkg has no packages.
pub fn sbom(root: &Path, name: &str, epoch: i64) -> Result<Vec<u8>> {
    let files = RootFiles::open(root)?;
    let status = database(&files)?.map(|(_, status)| status).unwrap_or_default();
    let os_release = match files.text("/etc/os-release")? {
        Some(text) => text,
        None => files.text("/usr/lib/os-release")?.unwrap_or_default(),
    };
    sbom::spdx(&status, &os_release, name, epoch)
}
