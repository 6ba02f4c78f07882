//! What tests share: projects (a recipe with its files and a store of its own), users, servers,
//! leftovers.

#[macro_use]
pub mod skip;

pub mod confinement;
pub mod filter;
pub mod fixture;
pub mod http;
pub mod leftover;
mod modules;
pub mod project;
pub mod registry;
pub mod repository;
pub mod user;

pub use project::Project;
pub use user::User;

use std::path::PathBuf;

/// The top of the sources.
pub fn source_dir() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// Whether a program is in PATH (or in an sbin directory, which users' PATHs often lack).
pub fn has_program(name: &str) -> bool {
    find_program(name).is_some()
}

/// Where a program is.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// Whether these tests run as root.
pub fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}
