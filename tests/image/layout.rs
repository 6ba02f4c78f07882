//! Where partitions lie, and the tables that say so, as sfdisk reads them.

use std::path::Path;
use std::process::Command;

use debforge::actions::ImageWalk;
use debforge::image::{Layout, Spec, table};
use debforge::recipe::{self, MemoryLoader, Options};
use rstest::rstest;
use serde_json::Value;

/// The image of a recipe whose `image-partition` has these properties, for arm64, and what is wrong
/// with it.
fn load(sector_size: u32, properties: &str) -> (Option<Spec>, String) {
    let indented: String = properties.trim().lines().map(|line| format!("    {line}\n")).collect();
    let text = format!(
        "architecture: arm64\nsectorsize: {sector_size}\nactions:\n  - action: image-partition\n    \
         imagename: test.img\n{indented}"
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
    let (spec, diagnostics) = load(sector_size, properties);
    spec.unwrap_or_else(|| panic!("{diagnostics}"))
}

fn layout(spec: &Spec) -> Layout {
    Layout::of(spec, &mut |_| Ok(10 << 20)).unwrap()
}

/// Start and length of each partition, in sectors.
fn sectors(spec: &Spec) -> Vec<(u64, u64)> {
    let sector = u64::from(spec.sector_size);
    let layout = layout(spec);
    layout.partitions.iter().map(|placed| (placed.start / sector, placed.length / sector)).collect()
}

/// Writes the table into a file, and what sfdisk makes of it.
fn written(spec: &Spec) -> (tempfile::NamedTempFile, Value) {
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
