//! Bytes that are put over an image when its file systems are made.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};

use crate::build::BuildContext;
use crate::build::inside::Inside;
use crate::diagnostics::Fault;
use crate::image::{ImageSize, Layout, Spec, Write, WriteSource, WriteTarget, grub, sparse};

/// Refuses what would destroy something, now that all sizes are known and before anything is written.
pub fn check(cx: &BuildContext<'_>, spec: &Spec, layout: &Layout) -> Result<()> {
    let mut earlier: Vec<(&Write, u64)> = Vec::new();
    // What was open in the recipe no longer is.
    let spec = &Spec { size: ImageSize::Bytes(layout.size), ..spec.clone() };
    for write in &cx.image.unwrap_or(spec).writes {
        let length = open(cx, &write.source)?.metadata()?.len();
        if let Some(overwrite) = layout.overwrites(spec, write, length, &earlier).into_iter().next() {
            return Err(Fault::failed(overwrite.message).hint(overwrite.hint).into());
        }
        earlier.push((write, length));
    }
    Ok(())
}

/// Puts the bytes over the image, in order.
pub fn apply(cx: &BuildContext<'_>, image: &File, spec: &Spec, layout: &Layout) -> Result<()> {
    for write in &spec.writes {
        one(cx, image, spec, layout, write).with_context(|| format!("writing `{}` into the image", write.name))?;
    }
    Ok(())
}

fn one(cx: &BuildContext<'_>, image: &File, spec: &Spec, layout: &Layout, write: &Write) -> Result<()> {
    let source = open(cx, &write.source)?;
    let length = source.metadata()?.len();
    match &write.target {
        WriteTarget::At { partition, offset } => {
            let (start, room) = area(layout, partition.as_deref())?;
            if offset + length > room {
                let whole = partition.as_ref().map_or("the image".to_owned(), |name| format!("`{name}`"));
                return Err(Fault::failed(format!(
                    "`{}` has {length} bytes and would end {} bytes behind the end of {whole}",
                    write.name,
                    offset + length - room
                ))
                .into());
            }
            sparse::clear(image, start + offset, length)?;
            Ok(sparse::copy_into(&source, image, start + offset, length)?)
        }
        WriteTarget::GrubBoot { core } => grub::write_boot(image, spec, layout, &all(&source)?, core.as_deref()),
        WriteTarget::GrubCore { partition } => {
            grub::write_core(image, spec, layout, &all(&source)?, partition.as_deref())
        }
    }
}

fn all(mut file: &File) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn open(cx: &BuildContext<'_>, source: &WriteSource) -> Result<File> {
    match source {
        WriteSource::Step(step) => {
            let path = cx.writes.get(step).with_context(|| format!("step {step} kept nothing"))?;
            File::open(path).with_context(|| format!("opening what step {step} kept"))
        }
        WriteSource::Root(path) => Inside::open(cx.root)?.read(path),
    }
}

/// Start and length of a partition, or of the whole image.
fn area(layout: &Layout, partition: Option<&str>) -> Result<(u64, u64)> {
    let Some(name) = partition else { return Ok((0, layout.size)) };
    let placed = layout.partition(name).with_context(|| format!("the image has no partition `{name}`"))?;
    Ok((placed.start, placed.length))
}

/// Copies a part of the image to a file of its own, holes kept.
pub fn extract(image: &File, offset: u64, length: u64, to: &Path) -> Result<()> {
    let doing = || format!("writing {}", to.display());
    let file = File::create(to).with_context(doing)?;
    file.set_len(length).with_context(doing)?;
    sparse::copy_range(image, offset, &file, 0, length).with_context(doing)
}
