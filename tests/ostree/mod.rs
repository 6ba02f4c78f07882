//! OSTree commits and disks, made of small roots and read back by ostree itself; and of a real Debian.

mod commit;
mod debian;
mod deploy;
mod prepare;

use std::path::Path;

use crate::harness::Project;
use crate::oci;

/// What ostree prints.
#[track_caller]
pub fn ostree(project: &Project, args: &[&str]) -> String {
    oci::run(&project.path("."), "ostree", args)
}

/// The commit of a branch of `out/repo`.
pub fn head(project: &Project, branch: &str) -> String {
    project.read(&format!("out/repo/refs/heads/{branch}")).trim().to_owned()
}

/// A name in a directory of the project, with text in it.
pub fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
