//! From the root and a [`Spec`] to an image among the artifacts.

use anyhow::{Result, bail};

use super::{BuildContext, InputContext};
use crate::image::Spec;

/// What an image's bytes depend on beside its specification and the steps before: the programs that
/// make its file systems.
pub fn inputs(_spec: &Spec, _cx: &mut InputContext<'_>) -> Result<()> {
    Ok(())
}

/// Writes the image that `cx.image` describes: whole, or, where an earlier step wrote it, what was
/// deployed and written since.
pub fn write(_cx: &mut BuildContext<'_>) -> Result<()> {
    bail!("images are not there yet")
}

/// A few words on an image: "gpt, esp vfat, root ext4".
pub fn summary(spec: &Spec) -> String {
    let parts = spec.partitions.iter().map(|partition| {
        let kind = partition.contents.kind.fstab_type().unwrap_or("none");
        format!("{} {kind}", partition.name)
    });
    format!("{}: {}", spec.name, parts.collect::<Vec<_>>().join(", "))
}
