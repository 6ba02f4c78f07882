//! Where partitions lie, and the tables that say so, as sfdisk reads them.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use debforge::actions::ImageWalk;
use debforge::image::{Layout, Spec, TableKind, table};
use debforge::recipe::{self, MemoryLoader, Options};
use rstest::rstest;
use serde_json::Value;

use crate::harness::has_program;

/// The image of a recipe whose `image-partition` has these properties, for arm64, and what is wrong
/// with it.
pub(super) fn load(sector_size: u32, properties: &str, more: &str) -> (Option<Spec>, String) {
    let indented: String = properties.trim().lines().map(|line| format!("    {line}\n")).collect();
    let text = format!(
        "architecture: arm64\nsectorsize: {sector_size}\nactions:\n  - action: image-partition\n    \
         imagename: test.img\n{indented}{more}\n"
    );
    let loader = MemoryLoader::new().with("recipe", text);
    let (recipe, diagnostics) = recipe::load(Path::new("recipe"), &Options::default(), &loader);
    let spec = recipe.map(|recipe| {
        let mut walk = ImageWalk::default();
        for (index, step) in recipe.steps.iter().enumerate() {
            walk.advance(step.action.as_ref(), index + 1, recipe.architecture, recipe.sector_size);
        }
        walk.spec().unwrap().clone()
    });
    (spec, diagnostics.render(false))
}

fn spec(sector_size: u32, properties: &str) -> Spec {
    spec_with(sector_size, properties, "")
}

fn spec_with(sector_size: u32, properties: &str, more: &str) -> Spec {
    let (spec, diagnostics) = load(sector_size, properties, more);
    spec.unwrap_or_else(|| panic!("{diagnostics}"))
}

pub(super) fn layout(spec: &Spec) -> Layout {
    Layout::of(spec, &mut |_| Ok(10 << 20)).unwrap()
}

/// Start and length of each partition, in sectors.
fn sectors(spec: &Spec) -> Vec<(u64, u64)> {
    let sector = u64::from(spec.sector_size);
    let layout = layout(spec);
    layout.partitions.iter().map(|placed| (placed.start / sector, placed.length / sector)).collect()
}

/// Writes the table into a file, and what sfdisk makes of it.
pub(super) fn written(spec: &Spec) -> (tempfile::NamedTempFile, Value) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let layout = layout(spec);
    file.as_file().set_len(layout.size).unwrap();
    table::write(file.as_file(), spec, &layout).unwrap();
    let read = sfdisk(file.path(), spec.sector_size, "--json");
    let json: Value = serde_json::from_str(&read).unwrap();
    let verified = sfdisk(file.path(), spec.sector_size, "--verify");
    assert!(verified.contains("No errors detected"), "{verified}");
    (file, json["partitiontable"].clone())
}

fn sfdisk(image: &Path, sector_size: u32, what: &str) -> String {
    let mut sfdisk = Command::new("sfdisk");
    // Without a loop device sfdisk believes in 512 bytes.
    if sector_size != 512 {
        sfdisk.args(["--sector-size", &sector_size.to_string()]);
    }
    let output = sfdisk.arg(what).arg(image).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_gpt_is_what_sfdisk_reads() {
    needs_program!("sfdisk", "fdisk");
    let spec = spec(
        512,
        r"
imagesize: 1GiB
partitiontype: gpt
diskid: 0F1E2D3C-0000-4000-8000-123456789ABC
partitions:
  - {name: esp, fs: vfat, size: 64 MiB, flags: [esp]}
  - {name: root, fs: ext4, size: rest, parttype: root, partuuid: 11111111-2222-4333-8444-555555555555}
  - {name: data, fs: ext4, size: 100 MiB, partlabel: 'data of all', partattrs: ['0', '63'], flags: [legacy_boot]}
",
    );
    let (file, read) = written(&spec);
    assert_eq!(read["label"], "gpt");
    assert_eq!(read["id"], "0F1E2D3C-0000-4000-8000-123456789ABC");
    assert_eq!((&read["firstlba"], &read["lastlba"]), (&34.into(), &(2_097_152 - 34).into()));
    let parts = read["partitions"].as_array().unwrap();
    let shown: Vec<String> = parts
        .iter()
        .map(|part| format!("{} {} {} {} {}", part["start"], part["size"], part["type"], part["name"], part["attrs"]))
        .collect();
    assert_eq!(
        shown,
        [
            r#"2048 131072 "C12A7328-F81F-11D2-BA4B-00A0C93EC93B" "esp" null"#,
            r#"133120 1757184 "B921B045-1DF0-41C3-AF44-4C6F280D3FAE" "root" null"#,
            r#"1890304 204800 "0FC63DAF-8483-4772-8E79-3D69D8477DE4" "data of all" "RequiredPartition LegacyBIOSBootable GUID:63""#,
        ]
    );
    assert_eq!(parts[1]["uuid"], "11111111-2222-4333-8444-555555555555");
    let own = table::read(file.as_file(), None).unwrap().unwrap();
    assert_eq!(own.entries[2].attributes, [0, 2, 63]);
    assert_eq!(own.entries[1].uuid, "11111111-2222-4333-8444-555555555555");
}

#[test]
fn an_msdos_table_has_logical_partitions_behind_the_third() {
    needs_program!("sfdisk", "fdisk");
    let spec = spec(
        512,
        r"
imagesize: 6GiB
partitiontype: msdos
diskid: deadbeef
partitions:
  - {name: firmware, fs: vfat, size: 64 MiB, flags: [lba, boot]}
  - {name: swap, fs: swap, size: 64 MiB}
  - {name: root, fs: ext4, size: rest}
  - {name: var, fs: ext4, size: 100 MiB}
  - {name: home, fs: ext4, size: 200 MiB}
  - {name: fat, fs: fat16, size: 10 MiB}
",
    );
    let (file, read) = written(&spec);
    assert_eq!((&read["label"], &read["id"]), (&"dos".into(), &"0xdeadbeef".into()));
    let parts = read["partitions"].as_array().unwrap();
    let shown: Vec<String> = parts
        .iter()
        .map(|part| {
            let node = part["node"].as_str().unwrap().trim_start_matches(file.path().to_str().unwrap());
            // Behind a digit sfdisk puts one.
            let node = node.trim_start_matches('p');
            format!("{node} {} {} {}", part["type"], part["bootable"], part["start"].as_u64().unwrap() % 2048)
        })
        .collect();
    assert_eq!(
        shown,
        [
            r#"1 "c" true 0"#,
            r#"2 "82" null 0"#,
            r#"3 "83" null 0"#,
            r#"4 "f" null 0"#,
            r#"5 "83" null 0"#,
            r#"6 "83" null 0"#,
            r#"7 "e" null 0"#
        ]
    );
    let own = table::read(file.as_file(), None).unwrap().unwrap();
    assert_eq!(own.disk_id, "deadbeef");
    let starts: Vec<(u32, u64)> =
        own.entries.iter().filter(|entry| !entry.is_extended()).map(|entry| (entry.number, entry.start)).collect();
    let laid: Vec<(u32, u64)> = layout(&spec).partitions.iter().map(|placed| (placed.number, placed.start)).collect();
    assert_eq!(starts, laid);
    assert_eq!(own.entries.last().unwrap().uuid, "deadbeef-07");
}

#[rstest]
fn tables_for_large_sectors_are_read_back(#[values("gpt", "msdos")] kind: &str) {
    let spec = spec(
        4096,
        &format!(
            "imagesize: 1GiB\npartitiontype: {kind}\npartitions:\n  - {{name: a, fs: ext4, size: 64 MiB}}\n  \
             - {{name: b, fs: ext4, size: rest}}\n"
        ),
    );
    let file = tempfile::tempfile().unwrap();
    let layout = layout(&spec);
    file.set_len(layout.size).unwrap();
    table::write(&file, &spec, &layout).unwrap();
    let size = (kind == "msdos").then_some(4096);
    let read = table::read(&file, size).unwrap().unwrap();
    assert_eq!(read.sector_size, 4096);
    let found: Vec<(u64, u64)> = read.entries.iter().map(|entry| (entry.start, entry.length)).collect();
    let laid: Vec<(u64, u64)> = layout.partitions.iter().map(|placed| (placed.start, placed.length)).collect();
    assert_eq!(found, laid);
}

/// What parted 3.5 made of them with `-a none mkpart`, read back by sfdisk.
#[rstest]
#[case("gpt", "1GB", &[("0%", "256MB"), ("256MB", "100%")], &[(34, 499_967), (500_001, 1_453_091)])]
#[case("gpt", "1GB", &[("0%", "64MiB"), ("64MiB", "512MiB"), ("512MiB", "100%")], &[(34, 131_038), (131_072, 917_504), (1_048_576, 904_516)])]
#[case("gpt", "1GB", &[("1MB", "64MB"), ("64.5MB", "512MB"), ("513MB", "999MB")], &[(1953, 123_048), (125_001, 875_000), (1_001_953, 949_219)])]
#[case("gpt", "1GB", &[("10%", "50%"), ("50%", "-1MB")], &[(195_312, 781_251), (976_563, 974_610)])]
#[case("gpt", "1GB", &[("2048s", "4095s"), ("4096s", "-34s")], &[(2048, 2048), (4096, 1_948_996)])]
#[case("gpt", "1GB", &[("2048s", "4095s"), ("4096s", "1GB")], &[(2048, 2048), (4096, 1_948_996)])]
#[case("gpt", "1GiB", &[("3.5MiB", "10.2MiB")], &[(7168, 13_721)])]
#[case("msdos", "1GB", &[("0%", "64MB"), ("64MB", "128MB"), ("128MB", "256MB"), ("256MB", "512MB"), ("512MB", "100%")],
    &[(1, 125_000), (125_001, 125_000), (250_001, 250_000), (500_002, 499_999), (1_000_002, 953_123)])]
fn positions_are_partitions_as_parted_has_them(
    #[case] table: &str,
    #[case] size: &str,
    #[case] positions: &[(&str, &str)],
    #[case] expected: &[(u64, u64)],
) {
    let parts: String = positions
        .iter()
        .enumerate()
        .map(|(index, (start, end))| format!("  - {{name: p{index}, fs: none, start: '{start}', end: '{end}'}}\n"))
        .collect();
    let spec = spec(512, &format!("imagesize: {size}\npartitiontype: {table}\npartitions:\n{parts}"));
    assert_eq!(sectors(&spec), expected);
}

/// The boards of Debian's own boot loaders: what is on their disks, to the sector.
#[rstest]
#[case::rockpro64("gpt", "", &["{name: root, fs: ext4, start: 32768s, size: rest}"], &["64s 16 KiB", "16384s 8 MiB"], &[(32768, "0fc63daf-8483-4772-8e79-3d69d8477de4")])]
#[case::rock64("gpt", "reserved: [{name: U-Boot environment, offset: 0x3F8000, size: 32 KiB}]", &["{name: root, fs: ext4, start: 32768s, end: 100%}"], &["64s 4000 KiB", "16384s 8 MiB"], &[(32768, "0fc63daf-8483-4772-8e79-3d69d8477de4")])]
#[case::puma("gpt", "", &["{name: root, fs: ext4, start: 32768s, size: rest}"], &["64s 224 KiB", "512s 4 MiB"], &[(32768, "0fc63daf-8483-4772-8e79-3d69d8477de4")])]
#[case::pine64("msdos", "", &["{name: root, fs: ext4, start: 2048s, size: rest, flags: [boot]}"], &["16s 1008 KiB"], &[(2048, "83")])]
#[case::orange_pi_zero("gpt", "", &["{name: root, fs: ext4, start: 2048s, size: rest, flags: [legacy_boot]}"], &["256s 896 KiB"], &[(2048, "0fc63daf-8483-4772-8e79-3d69d8477de4")])]
#[case::sunxi_in_a_gap("gpt", "gpt_gap: 1MiB", &["{name: root, fs: ext4, start: 4096s, size: rest}"], &["16s 1008 KiB"], &[(4096, "0fc63daf-8483-4772-8e79-3d69d8477de4")])]
#[case::beaglebone("msdos", "", &["{name: root, fs: ext4, start: 8192s, size: rest, flags: [boot]}"], &["256s 256 KiB", "768s 2 MiB"], &[(8192, "83")])]
#[case::wandboard("msdos", "reserved: [{name: environment, offset: 0xC0000, size: 8 KiB}, {name: second environment, offset: 0xFE000, size: 8 KiB}]", &["{name: root, fs: ext4, start: 8192s, size: rest}"], &["2s 68 KiB", "138s 690 KiB"], &[(8192, "83")])]
#[case::raspberry_pi("msdos", "", &["{name: firmware, fs: vfat, start: 8192s, size: 512 MiB}", "{name: root, fs: ext4, size: rest}"], &[], &[(8192, "0c"), (1_056_768, "83")])]
#[case::visionfive2("gpt", "", &["{name: spl, fs: none, start: 4096s, end: 8191s, parttype: 2E54B353-1271-4842-806F-E436D6AF6985}", "{name: uboot, fs: none, start: 8192s, end: 16383s, parttype: BC13C2FF-59E6-4262-A352-B275FD6F7172}", "{name: root, fs: ext4, size: rest}"], &["spl 2 MiB", "uboot 4 MiB"],
    &[(4096, "2e54b353-1271-4842-806f-e436d6af6985"), (8192, "bc13c2ff-59e6-4262-a352-b275fd6f7172"), (16384, "0fc63daf-8483-4772-8e79-3d69d8477de4")])]
#[case::unmatched("gpt", "align: 1s", &["{name: spl, fs: none, start: 34s, end: 2081s, parttype: 5B193300-FC78-40CD-8002-E86C45580B47}", "{name: uboot, fs: none, start: 2082s, end: 10273s, parttype: 2E54B353-1271-4842-806F-E436D6AF6985}", "{name: root, fs: ext4, start: 16384s, end: 100%}"], &["spl 1 MiB", "uboot 4 MiB"],
    &[(34, "5b193300-fc78-40cd-8002-e86c45580b47"), (2082, "2e54b353-1271-4842-806f-e436d6af6985"), (16384, "0fc63daf-8483-4772-8e79-3d69d8477de4")])]
fn a_board_is_laid_out_as_its_boot_rom_wants_it(
    #[case] table: &str,
    #[case] more: &str,
    #[case] partitions: &[&str],
    #[case] raws: &[&str],
    #[case] expected: &[(u64, &str)],
) {
    let partitions: String = partitions.iter().map(|partition| format!("  - {partition}\n")).collect();
    let raws: String = raws
        .iter()
        .map(|raw| {
            let (place, size) = raw.split_once(' ').unwrap();
            let target = if place.ends_with('s') { format!("offset: {place}") } else { format!("partition: {place}") };
            format!("\n  - action: raw\n    origin: artifacts\n    source: loader\n    {target}\n    max-size: {size}")
        })
        .collect();
    let more = if more.is_empty() { String::new() } else { format!("{more}\n") };
    let spec =
        spec_with(512, &format!("imagesize: 2GiB\npartitiontype: {table}\n{more}partitions:\n{partitions}"), &raws);
    let kinds: Vec<(u64, &str)> = sectors(&spec)
        .into_iter()
        .map(|(start, _)| start)
        .zip(spec.partitions.iter().map(|part| part.kind.as_str()))
        .collect();
    assert_eq!(kinds, expected);
    if has_program("sfdisk") {
        let (_, read) = written(&spec);
        assert_eq!(read["partitions"].as_array().unwrap().len(), expected.len());
    }
}

#[test]
fn the_types_of_an_architecture_are_those_that_sfdisk_knows() {
    needs_program!("sfdisk", "fdisk");
    let known = Command::new("sfdisk").args(["--label", "gpt", "--list-types"]).output().unwrap();
    let known = String::from_utf8(known.stdout).unwrap();
    let known: Vec<(String, &str)> = known
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(guid, name)| (guid.to_lowercase(), name.trim()))
        .collect();
    for (architecture, name) in [
        ("amd64", "x86-64"),
        ("i386", "x86"),
        ("arm64", "ARM-64"),
        ("armhf", "ARM"),
        ("armel", "ARM"),
        ("riscv64", "RISC-V-64"),
        ("ppc64el", "PPC64LE"),
        ("s390x", "S390X"),
        ("loong64", "LoongArch-64"),
    ] {
        let Ok(architecture) = architecture.parse() else { continue };
        for (asked, said) in [
            ("root", "Linux root"),
            ("root-verity", "Linux root verity"),
            ("usr", "Linux /usr"),
            ("usr-verity", "Linux /usr verity"),
        ] {
            let guid = table::types::named(asked, TableKind::Gpt, architecture).unwrap();
            let found = known.iter().find(|(known, _)| *known == guid).map(|(_, name)| *name);
            assert_eq!(found, Some(format!("{said} ({name})").as_str()), "{asked} on {architecture}");
        }
    }
}

#[test]
fn a_rest_in_front_leaves_what_follows_its_size() {
    let spec = spec(
        512,
        r"
imagesize: 1GiB
partitiontype: gpt
partitions:
  - {name: root, fs: ext4, size: rest}
  - {name: swap, fs: swap, size: 100 MiB}
  - {name: data, fs: ext4, start: -200MiB, end: 100%}
",
    );
    let end = 2 * 1024 * 1024;
    let data = end - 200 * 2048;
    assert_eq!(
        sectors(&spec),
        [(2048, data - 100 * 2048 - 2048), (data - 100 * 2048, 100 * 2048), (data, 200 * 2048 - 33)]
    );
}

#[test]
fn what_takes_the_rest_keeps_clear_of_reserved_areas() {
    let laid = |offset: &str| {
        sectors(&spec(
            512,
            &format!(
                "imagesize: 64MiB\npartitiontype: msdos\nreserved:\n  - {{name: environment, offset: {offset}, size: 1 MiB}}\n\
                 partitions:\n  - {{name: root, fs: ext4, size: rest}}\n"
            ),
        ))
    };
    assert_eq!(laid("4 MiB"), [(10240, 131_072 - 10240)]);
    assert_eq!(laid("60 MiB"), [(2048, 60 * 2048 - 2048)]);
}

#[test]
fn an_image_is_as_large_as_its_contents_and_the_margin() {
    for (margin, expected) in [("0", 10), ("6 MiB", 16), ("50%", 15)] {
        let spec = spec(
            512,
            &format!(
                "imagesize: auto\nmargin: {margin}\npartitiontype: gpt\npartitions:\n  - {{name: esp, fs: vfat, size: 8 MiB}}\n  \
                 - {{name: root, fs: ext4, size: rest}}\n  - {{name: swap, fs: swap, size: 4 MiB}}\n"
            ),
        );
        let layout = layout(&spec);
        assert_eq!(layout.partition("root").unwrap().length >> 20, expected);
        // The table in front, and its copy behind.
        assert_eq!(layout.size >> 20, 1 + 8 + expected + 4 + 1);
    }
}

#[test]
fn boot_code_and_what_lies_behind_the_table_stay() {
    let spec = spec(512, "imagesize: 16MiB\npartitiontype: msdos\npartitions:\n  - {name: a, fs: ext4, size: rest}\n");
    let layout = layout(&spec);
    let file = tempfile::tempfile().unwrap();
    file.set_len(layout.size).unwrap();
    file.write_all_at(&[7; 440], 0).unwrap();
    file.write_all_at(&[9; 4096], 512).unwrap();
    table::write(&file, &spec, &layout).unwrap();
    let mut first = vec![0; 512 + 4096];
    file.read_exact_at(&mut first, 0).unwrap();
    assert_eq!(&first[..440], [7; 440]);
    assert_eq!(&first[512..], [9; 4096]);
    assert_eq!(&first[510..512], [0x55, 0xaa]);
}

#[test]
fn a_file_without_a_table_has_none() {
    let file = tempfile::tempfile().unwrap();
    assert_eq!(table::read(&file, None).unwrap(), None);
    file.set_len(1 << 20).unwrap();
    assert_eq!(table::read(&file, None).unwrap(), None);
}

#[test]
fn a_file_system_on_the_whole_disk_is_no_table() {
    needs_program!("mkfs.vfat", "dosfstools");
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(40 << 20).unwrap();
    assert!(Command::new("mkfs.vfat").arg(file.path()).output().unwrap().status.success());
    assert_eq!(table::read(file.as_file(), None).unwrap(), None);
}

#[rstest]
fn tables_for_large_sectors_are_what_sfdisk_reads(#[values("gpt", "msdos")] kind: &str) {
    needs_root!();
    needs_program!("sfdisk", "fdisk");
    let spec = spec(
        4096,
        &format!(
            "imagesize: 64MiB\npartitiontype: {kind}\npartitions:\n  - {{name: a, fs: ext4, size: 8 MiB}}\n  \
             - {{name: b, fs: ext4, size: rest}}\n"
        ),
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    let layout = layout(&spec);
    file.as_file().set_len(layout.size).unwrap();
    table::write(file.as_file(), &spec, &layout).unwrap();
    let attached =
        Command::new("losetup").args(["--find", "--show", "--sector-size", "4096"]).arg(file.path()).output().unwrap();
    if !attached.status.success() {
        skip!("loop devices with large sectors cannot be made here");
    }
    let device = String::from_utf8(attached.stdout).unwrap().trim().to_owned();
    let read = Command::new("sfdisk").args(["--json", &device]).output().unwrap();
    let verified = Command::new("sfdisk").args(["--verify", &device]).output().unwrap();
    assert!(Command::new("losetup").args(["--detach", &device]).status().unwrap().success());
    assert!(String::from_utf8_lossy(&verified.stdout).contains("No errors detected"), "{verified:?}");
    let json: Value = serde_json::from_slice(&read.stdout).unwrap();
    let parts = json["partitiontable"]["partitions"].as_array().unwrap();
    let found: Vec<(u64, u64)> =
        parts.iter().map(|part| (part["start"].as_u64().unwrap(), part["size"].as_u64().unwrap())).collect();
    assert_eq!(found, sectors(&spec));
}

#[test]
fn the_kind_of_a_fat_follows_from_its_size_where_it_is_left_open() {
    let spec = spec(
        512,
        r"
imagesize: 2GiB
partitiontype: msdos
partitions:
  - {name: small, fs: fat, start: 1MiB, end: 9MiB}
  - {name: medium, fs: fat, start: 9MiB, end: 25%}
  - {name: given, fs: vfat, start: 25%, end: 50%}
  - {name: large, fs: fat, start: 50%, end: 100%}
",
    );
    let kinds: Vec<_> = spec.partitions.iter().map(|part| format!("{:?} {}", part.contents.kind, part.kind)).collect();
    assert_eq!(kinds, ["Fat12 0e", "Fat16 0e", "Fat32 0c", "Fat32 0c"]);
}

#[test]
fn a_fat32_that_is_too_small_to_be_one_is_a_warning() {
    let (spec, said) = load(
        512,
        r"
imagesize: 200MiB
partitiontype: gpt
partitions:
  - {name: asked, fs: vfat, size: 32 MiB}
  - {name: enough, fs: vfat, size: 33 MiB}
  - {name: open, fs: fat, start: 70MiB, end: 80MiB}
  - {name: root, fs: ext4, size: rest}
",
        "",
    );
    assert!(spec.is_some());
    insta::assert_snapshot!(said, @r"
    warning: `asked` has 32 MiB, which is too small for FAT32: firmware and systems may take it for FAT16
      ┌ recipe:9:27
    9 │       - {name: asked, fs: vfat, size: 32 MiB}
      │                           ^^^^
      = hint: make it 33 MiB or larger, or say `fs: fat16`; `fat` follows the size

    1 warning in recipe
    ");
}
