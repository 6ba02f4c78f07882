//! What holds of any layout that debforge makes itself.

use debforge::image::{ImageSize, Layout, Spec};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::layout::load;

/// A recipe's partitions, with sizes in KiB; one of them may take the rest.
#[derive(Debug, Clone)]
struct Wanted {
    sector_size: u32,
    table: &'static str,
    alignment: u64,
    sizes: Vec<u64>,
    rest: Option<usize>,
    /// Offset and length, in KiB.
    reserved: Option<(u64, u64)>,
    automatic: bool,
}

const CONTENTS: u64 = 3 << 20;

fn wanted() -> impl Strategy<Value = Wanted> {
    let table = select(vec!["gpt", "msdos"]);
    let alignment = select(vec![4_u64, 64, 1024, 4096]);
    let reserved = proptest::option::of((32_u64..8192, 4_u64..512));
    (
        select(vec![512, 4096]),
        table,
        alignment,
        vec(1_u64..4096, 1..9),
        any::<proptest::sample::Index>(),
        0..3,
        reserved,
    )
        .prop_map(|(sector_size, table, alignment, sizes, rest, mode, reserved)| Wanted {
            sector_size,
            table,
            alignment,
            rest: (mode > 0).then(|| rest.index(sizes.len())),
            sizes: sizes.into_iter().map(|size| size * 4).collect(),
            reserved: reserved.map(|(offset, length)| (offset * 4, length * 4)),
            automatic: mode == 2,
        })
}

fn spec_of(wanted: &Wanted) -> Spec {
    let (align, rest) = (wanted.alignment, wanted.rest);
    let partitions: String = wanted
        .sizes
        .iter()
        .enumerate()
        .map(|(index, size)| match rest {
            Some(rest) if rest == index => format!("  - {{name: p{index}, fs: ext4, size: rest}}\n"),
            _ => format!("  - {{name: p{index}, fs: ext4, size: {size} KiB}}\n"),
        })
        .collect();
    // Enough for each partition, twice its alignment, what is reserved, and the rest.
    let length = wanted.sizes.len() as u64;
    let behind = wanted.reserved.map_or(0, |(offset, length)| offset + length);
    let total = wanted.sizes.iter().sum::<u64>() * 2 + (length + 3) * 2 * align + behind + 4096;
    let size = if wanted.automatic { "auto".to_owned() } else { format!("{total} KiB") };
    let reserved = wanted.reserved.map_or(String::new(), |(offset, length)| {
        format!("reserved: [{{name: environment, offset: {offset} KiB, size: {length} KiB}}]\n")
    });
    let table = wanted.table;
    let properties =
        format!("imagesize: {size}\npartitiontype: {table}\nalign: {align} KiB\n{reserved}partitions:\n{partitions}");
    let (spec, diagnostics) = load(wanted.sector_size, &properties, "");
    spec.unwrap_or_else(|| panic!("{properties}{diagnostics}"))
}

proptest! {
    #[test]
    fn partitions_lie_apart_in_their_order_inside_and_aligned(wanted in wanted()) {
        let spec = spec_of(&wanted);
        let layout = Layout::of(&spec, &mut |_| Ok(CONTENTS)).unwrap();
        let sector = u64::from(spec.sector_size);
        let mut free = spec.first_usable() * sector;
        for (index, placed) in layout.partitions.iter().enumerate() {
            let record = layout.extended.as_ref().filter(|_| spec.is_logical(index)).map(|extended| extended.records[index - 3]);
            if let Some(record) = record {
                prop_assert!(free <= record && record + sector <= placed.start, "{layout:?}");
            }
            prop_assert!(free <= placed.start, "{} in {layout:?}", placed.name);
            prop_assert_eq!(placed.start % spec.alignment, 0);
            match spec.partitions[index].size {
                Some(size) => prop_assert_eq!(placed.length, size.next_multiple_of(sector)),
                None => prop_assert!(placed.length > 0),
            }
            for area in &spec.reserved {
                prop_assert!(placed.end() <= area.offset || area.offset + area.length <= placed.start, "{layout:?}");
            }
            free = placed.end();
        }
        prop_assert!(free + spec.sectors_behind() * sector <= layout.size, "{layout:?}");
        if let Some(extended) = &layout.extended {
            prop_assert_eq!(extended.records[0], extended.start);
            prop_assert_eq!(extended.start + extended.length, free);
        }
    }

    #[test]
    fn an_image_that_follows_its_contents_has_room_for_them_and_no_more(mut wanted in wanted()) {
        wanted.automatic = true;
        wanted.rest.get_or_insert(0);
        let spec = spec_of(&wanted);
        let layout = Layout::of(&spec, &mut |_| Ok(CONTENTS)).unwrap();
        let index = wanted.rest.unwrap();
        prop_assert!(layout.partitions[index].length >= CONTENTS);
        prop_assert!(layout.partitions[index].length < CONTENTS + spec.alignment + u64::from(spec.sector_size));
        if spec.reserved.is_empty() {
        // Laid out again with the size that it came to, as when another deploy adds to it.
        let fixed = Spec { size: ImageSize::Bytes(layout.size), ..spec };
        let again = Layout::of(&fixed, &mut |_| Ok(0)).unwrap();
        prop_assert!(again.partitions[index].length >= CONTENTS, "{layout:?} {again:?}");
        }
    }
}
