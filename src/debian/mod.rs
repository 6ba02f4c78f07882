//! Debian's own formats and tools: architectures, repositories, packages, apt.

pub mod apt_conf;
pub mod apt_proxy;
mod architecture;
pub mod deb;
pub mod deb822;
pub mod dpkg;
pub mod host;
pub mod keyring;
pub mod logins;
pub mod openpgp;
pub mod package_list;
pub mod release;
pub mod sbom;
pub mod snapshot;
pub mod sources;
pub mod system;

pub use architecture::Architecture;
