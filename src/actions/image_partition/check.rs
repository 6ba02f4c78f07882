//! What is wrong with a layout, said all at once.

mod mounts;
mod partition;

use uuid::Uuid;

use super::{ImagePartition, declare};
use crate::actions::pack::check_artifact_name;
use crate::build::CheckContext;
use crate::diagnostics::{Diagnostics, Severity};
use crate::image::filesystem::smallest_fat32;
use crate::image::{FilesystemKind, ImageSize, Layout, Owner, Partition, Size, Spec, Strategy, TableKind, exact};

/// Sectors that tables are written for.
const SECTOR_SIZES: [u32; 2] = [512, 4096];

/// Entries of a GPT.
const MOST_PARTITIONS: usize = 128;

/// How a size is written, for hints.
const SIZES: &str = "a size is as in `512 MiB`, `1GB` or `2048s`";

pub(super) fn check(given: &ImagePartition, cx: &CheckContext<'_>, out: &mut Diagnostics) {
    image(given, cx, out);
    for index in 0..given.partitions.len() {
        partition::check(given, index, cx, out);
    }
    partition::check_unique(given, cx, out);
    mounts::check(given, cx, out);
    // Where sizes are wrong, which was said, all that follows from them would be too.
    if reserved(given, cx, out) && sizes_are_right(given, cx) {
        layout(given, cx, out);
    }
}

/// A size of so many bytes; a wrong one is reported.
fn size(cx: &CheckContext<'_>, property: &str, text: &str, out: &mut Diagnostics) -> Option<u64> {
    match text.parse::<Size>() {
        Err(message) => out.push(cx.error(property, message).hint(SIZES)),
        Ok(size) => match size.bytes(cx.sector_size) {
            Some(bytes) => return Some(bytes),
            None => out.push(cx.error(property, format!("`{text}` is beyond any disk"))),
        },
    }
    None
}

/// A size that is no multiple of the sector is reported.
fn whole_sectors(cx: &CheckContext<'_>, property: &str, text: &str, bytes: u64, out: &mut Diagnostics) {
    let sector = u64::from(cx.sector_size);
    if !bytes.is_multiple_of(sector) {
        let nearest = bytes.next_multiple_of(sector);
        out.push(
            cx.error(property, format!("`{text}` is no whole number of sectors of {sector} bytes"))
                .hint(format!("the next larger is {}", exact(nearest))),
        );
    }
}

/// Whether all that a layout is made from can be read.
fn sizes_are_right(given: &ImagePartition, cx: &CheckContext<'_>) -> bool {
    let size = |text: &str| text.parse::<Size>().ok().and_then(|size| size.bytes(cx.sector_size)).is_some();
    (given.imagesize.trim() == "auto" || size(&given.imagesize))
        && size(&given.align)
        && given.gpt_gap.as_deref().is_none_or(size)
        && given.partitions.iter().all(|part| {
            (part.fills() || part.size.as_deref().is_none_or(size)) && (part.size.is_some() != part.end.is_some())
        })
        && SECTOR_SIZES.contains(&cx.sector_size)
}

fn image(given: &ImagePartition, cx: &CheckContext<'_>, out: &mut Diagnostics) {
    check_artifact_name(cx, "imagename", &given.imagename, out);
    if !SECTOR_SIZES.contains(&cx.sector_size) {
        let message = format!("a disk image cannot have sectors of {} bytes", cx.sector_size);
        out.push(cx.error("", message).hint("the recipe's `sectorsize` can be 512 or 4096"));
    }
    let automatic = given.imagesize.trim() == "auto";
    if automatic {
        if !given.partitions.iter().any(super::Partition::fills)
            && given.partitions.iter().all(|part| part.size.is_some() || part.end.is_some())
        {
            out.push(
                cx.warning("imagesize", "`auto` follows the contents of no partition: all have a size")
                    .hint("`size: rest` makes a partition as large as its contents"),
            );
        }
    } else if size(cx, "imagesize", &given.imagesize, out) == Some(0) {
        out.push(cx.error("imagesize", "the image has no size"));
    }
    if let Some(margin) = &given.margin {
        if declare::margin_of(margin, cx.sector_size).is_none() {
            let diagnostic = cx.error("margin", format!("`{margin}` is not a margin"));
            out.push(diagnostic.hint("it is as in `200 MiB` or `10%`"));
        } else if !automatic {
            let diagnostic = cx.error("margin", "`margin` is for images that are as large as their contents");
            out.push(diagnostic.hint("`imagesize: auto` makes one"));
        }
    }
    if let Some(align) = size(cx, "align", &given.align, out) {
        if align == 0 {
            out.push(cx.error("align", "partitions cannot be aligned to nothing").hint("`align: 1s` packs them"));
        } else {
            whole_sectors(cx, "align", &given.align, align, out);
        }
    }
    disk_id(given, cx, out);
    gap(given, cx, out);
    if given.partitions.is_empty() {
        out.push(cx.error("partitions", "the image has no partitions"));
    } else if given.partitions.len() > MOST_PARTITIONS {
        let message = format!("a partition table has {MOST_PARTITIONS} partitions at most");
        out.push(cx.error(&format!("partitions[{MOST_PARTITIONS}]"), message));
    }
    if given.strategy == Strategy::Offline {
        for (index, mount) in given.mountpoints.iter().enumerate().filter(|(_, mount)| !mount.build_options.is_empty())
        {
            let property = format!("mountpoints[{index}].build-options");
            let message = format!("{} is not mounted while the image is built", mount.mountpoint);
            out.push(cx.warning(&property, message).hint("`strategy: mounted` mounts it"));
        }
    }
}

fn disk_id(given: &ImagePartition, cx: &CheckContext<'_>, out: &mut Diagnostics) {
    let Some(id) = &given.diskid else { return };
    let (right, form) = match given.partitiontype {
        TableKind::Gpt => (Uuid::parse_str(id).is_ok_and(|id| !id.is_nil()), "the id of a gpt disk is a GUID"),
        TableKind::Msdos => (declare::hex8(id).is_some(), "the id of an msdos disk is 8 hex digits"),
    };
    if !right {
        out.push(cx.error("diskid", format!("`{id}` is not the id of a disk")).hint(form));
    }
}

fn gap(given: &ImagePartition, cx: &CheckContext<'_>, out: &mut Diagnostics) {
    let Some(gap) = &given.gpt_gap else { return };
    if given.partitiontype != TableKind::Gpt {
        out.push(cx.error("gpt_gap", "only a gpt table has entries that can be moved"));
    } else if let Some(bytes) = size(cx, "gpt_gap", gap, out)
        && bytes < 2 * u64::from(cx.sector_size)
    {
        let least = 2 * cx.sector_size;
        out.push(cx.error("gpt_gap", format!("a GPT's entries start at {least} or later, behind its header")));
    }
}

/// Whether the reserved areas can be read.
fn reserved(given: &ImagePartition, cx: &CheckContext<'_>, out: &mut Diagnostics) -> bool {
    let mut right = true;
    for (index, area) in given.reserved.iter().enumerate() {
        let property = |name: &str| format!("reserved[{index}].{name}");
        let offset = size(cx, &property("offset"), &area.offset, out);
        let length = size(cx, &property("size"), &area.size, out);
        right &= offset.is_some() && length.is_some();
        if length == Some(0) {
            out.push(cx.error(&property("size"), format!("`{}` has no size", area.name)));
        }
        if area.name.trim().is_empty() {
            out.push(cx.error(&property("name"), "a reserved area needs a name, for messages"));
        }
    }
    right
}

/// What the solver finds, and reserved areas that something else has.
fn layout(given: &ImagePartition, cx: &CheckContext<'_>, out: &mut Diagnostics) {
    let spec = declare::declare(given, cx.architecture, cx.sector_size);
    let Ok((layout, findings)) = Layout::solve(&spec, &mut |_| Ok(1)) else { return };
    let wrong = findings.iter().any(|finding| finding.severity == Severity::Error);
    for finding in findings {
        let property = match finding.partition {
            Some(index) => format!("partitions[{index}].{}", finding.property),
            None => finding.property.to_owned(),
        };
        let diagnostic = match finding.severity {
            Severity::Error => cx.error(&property, finding.message),
            Severity::Warning => cx.warning(&property, finding.message),
        };
        out.push(diagnostic.hint(finding.hint));
    }
    if !wrong {
        small_fats(&spec, &layout, cx, out);
        reserved_apart(&spec, &layout, cx, out);
    }
}

/// Warns of FAT32s that some take for FAT16: what counts is the number of clusters.
fn small_fats(spec: &Spec, layout: &Layout, cx: &CheckContext<'_>, out: &mut Diagnostics) {
    let least = smallest_fat32(spec.sector_size);
    let open = |partition: &Partition| partition.fill && matches!(spec.size, ImageSize::Auto { .. });
    for (index, (partition, placed)) in spec.partitions.iter().zip(&layout.partitions).enumerate() {
        let small = placed.length < least && partition.contents.mkfs_options.is_empty() && !open(partition);
        if partition.contents.kind == FilesystemKind::Fat32 && small {
            let message = format!(
                "`{}` has {}, which is too small for FAT32: firmware and systems may take it for FAT16",
                partition.name,
                exact(placed.length)
            );
            let enough = exact(least.next_multiple_of(1 << 20));
            let diagnostic = cx.warning(&format!("partitions[{index}].fs"), message);
            out.push(
                diagnostic.hint(format!("make it {enough} or larger, or say `fs: fat16`; `fat` follows the size")),
            );
        }
    }
}

fn reserved_apart(spec: &Spec, layout: &Layout, cx: &CheckContext<'_>, out: &mut Diagnostics) {
    let areas = layout.areas(spec);
    let own = areas.len() - spec.reserved.len();
    for (index, area) in areas[own..].iter().enumerate() {
        let overlaps = |other: &&crate::image::Area| area.start < other.end && other.start < area.end;
        let property = format!("reserved[{index}].offset");
        // A partition without a file system may be there to hold it.
        let holds = |other: &&crate::image::Area| {
            other.owner == Owner::Room && other.start <= area.start && area.end <= other.end
        };
        for other in areas[..own + index].iter().filter(overlaps).filter(|other| !holds(other)) {
            let (from, to) = (exact(other.start), exact(other.end));
            let message = format!("{} lies in {}, from {from} to {to}", area.name, other.name);
            let start = exact(area.end.next_multiple_of(spec.alignment)).replace(' ', "");
            let hint = match other.owner {
                Owner::Filesystem => format!("let the partition start behind it: `start: {start}`"),
                _ => "each place can have only one owner".to_owned(),
            };
            out.push(cx.error(&property, message).hint(hint));
        }
        if area.end > layout.size && matches!(spec.size, ImageSize::Bytes(_)) {
            out.push(cx.error(&property, format!("{} is beyond the end of the image", area.name)));
        }
    }
}
