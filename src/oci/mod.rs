//! OCI images: what the image specification (<https://github.com/opencontainers/image-spec>, 1.1) has them be.
//!
//! [`Layout`] reads a layout directory or an oci-archive, [`Writer`] makes one; [`chunk`] divides packages among
//! layers. Everything here is written the same for the same contents.

pub mod chunk;
mod join;
mod layout;
mod reference;
mod write;

use oci_spec::image::{Arch, Os, Platform, PlatformBuilder};

pub use join::join;
pub use layout::{Layout, is_layout, manifest_of};
pub use reference::Tag;
pub use write::{Finished, Writer, canonical};

use crate::debian::Architecture;

/// Annotation of a layer: what kind it is, by [`chunk::Kind::name`].
pub const LAYER: &str = "org.debforge.layer";

/// Annotation of a layer: the source packages whose files it holds, with spaces between.
pub const SOURCES: &str = "org.debforge.sources";

/// Annotation of a manifest in an index: the name that it is asked for by.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The platform of images of an architecture, in Go's words.
pub fn platform(architecture: Architecture) -> Platform {
    let (name, variant) = match architecture {
        Architecture::Amd64 => ("amd64", None),
        Architecture::Arm64 => ("arm64", Some("v8")),
        Architecture::Armel => ("arm", Some("v5")),
        Architecture::Armhf => ("arm", Some("v7")),
        Architecture::I386 => ("386", None),
        Architecture::Loong64 => ("loong64", None),
        Architecture::Mips64el => ("mips64le", None),
        Architecture::Mipsel => ("mipsle", None),
        Architecture::Ppc64el => ("ppc64le", None),
        Architecture::Riscv64 => ("riscv64", None),
        Architecture::S390x => ("s390x", None),
    };
    let builder = PlatformBuilder::default().architecture(Arch::from(name)).os(Os::Linux);
    let builder = match variant {
        Some(variant) => builder.variant(variant),
        None => builder,
    };
    builder.build().unwrap_or_default()
}

/// `linux/arm/v7`.
pub fn platform_name(platform: &Platform) -> String {
    let mut name = format!("{}/{}", platform.os(), platform.architecture());
    if let Some(variant) = platform.variant() {
        name.push_str(&format!("/{variant}"));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_named_as_go_does() {
        assert_eq!(platform_name(&platform(Architecture::Armhf)), "linux/arm/v7");
        assert_eq!(platform_name(&platform(Architecture::I386)), "linux/386");
        assert_eq!(platform_name(&platform(Architecture::Amd64)), "linux/amd64");
        let names: std::collections::BTreeSet<_> = Architecture::ALL.map(|a| platform_name(&platform(a))).into();
        assert_eq!(names.len(), Architecture::ALL.len());
    }
}
