//! The pool of Debian packages, by the digest of their contents.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Store;
use super::copy::copy_file;
use super::files::sha256_of;
use crate::diagnostics::Fault;

/// Where packages stand.
pub(super) const PACKAGES: &str = "packages";

impl Store {
    /// A package of the pool, not to be written; marks it as used now.
    pub fn package(&self, sha256: &str) -> Option<PathBuf> {
        self.hand_out(&self.dir(PACKAGES), sha256)
    }

    /// Takes a package into the pool: linked where possible, so the file at `path` is not to be
    /// written any more, else copied. Fails if its contents have another digest.
    pub fn add_package(&self, path: &Path, sha256: &str) -> Result<PathBuf> {
        if let Some(kept) = self.package(sha256) {
            return Ok(kept);
        }
        let context = || format!("keeping the package {}", path.display());
        let scratch = self.scratch()?;
        let fresh = scratch.path.join("package");
        // Only an owner can mark a file as used, and downloads of apt may belong to `_apt`.
        let ours = std::fs::metadata(path).with_context(context)?.uid() == nix::unistd::geteuid().as_raw();
        if !ours || std::fs::hard_link(path, &fresh).is_err() {
            copy_file(path, &fresh).with_context(context).map_err(|error| self.explain(error))?;
        }
        let found = sha256_of(&fresh).with_context(context)?;
        if !found.eq_ignore_ascii_case(sha256) {
            let message = format!("the package {} has another sha256 than its repository says", path.display());
            return Err(Fault::failed(message)
                .hint(format!("expected {sha256}"))
                .hint(format!("received {found}"))
                .into());
        }
        self.take_in(&fresh, &self.dir(PACKAGES), sha256)
    }
}
