//! The boards that come with debforge: what their parts put on a card, and where.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;

use debforge::debian::Architecture;
use debforge::image::Size;
use debforge::recipe::{DiskLoader, Options, print};
use serde_json::{Value, json};

use crate::harness::{Project, fixture, source_dir};

/// A board, as the manuals of its U-Boot have it; nothing of this is taken from its part.
struct Board {
    name: &'static str,
    architecture: &'static str,
    variables: &'static [(&'static str, &'static str)],
    table: &'static str,
    /// First sector and type of each partition, as sfdisk says them.
    partitions: &'static [(u64, &'static str)],
    /// Sector and file of each write, below /usr/lib/u-boot.
    writes: &'static [(u64, &'static str)],
    /// First byte and length of U-Boot's environment on the card.
    environment: Option<(u64, u64)>,
}

const LINUX: &str = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";
const SPL: &str = "2E54B353-1271-4842-806F-E436D6AF6985";

const fn rockchip(
    name: &'static str,
    writes: &'static [(u64, &'static str)],
    environment: Option<(u64, u64)>,
) -> Board {
    let partitions = &[(32768, LINUX)];
    Board { name, architecture: "arm64", variables: &[], table: "gpt", partitions, writes, environment }
}

const fn allwinner(name: &'static str, architecture: &'static str, writes: &'static [(u64, &'static str)]) -> Board {
    Board { name, architecture, variables: &[], table: "dos", partitions: &[(2048, "83")], writes, environment: None }
}

const BOARDS: &[Board] = &[
    Board {
        name: "raspberrypi",
        architecture: "arm64",
        variables: &[("imagesize", "1GB")],
        table: "dos",
        partitions: &[(8192, "c"), (8192 + (1 << 20), "83")],
        writes: &[],
        environment: None,
    },
    rockchip("rockpro64", &[(64, "rockpro64-rk3399/idbloader.img"), (16384, "rockpro64-rk3399/u-boot.itb")], None),
    rockchip(
        "pinebook-pro",
        &[(64, "pinebook-pro-rk3399/idbloader.img"), (16384, "pinebook-pro-rk3399/u-boot.itb")],
        None,
    ),
    rockchip(
        "rock-pi-4",
        &[(64, "rock-pi-4-rk3399/idbloader.img"), (16384, "rock-pi-4-rk3399/u-boot.itb")],
        Some((0x3f_8000, 0x8000)),
    ),
    rockchip(
        "rock64",
        &[(64, "rock64-rk3328/idbloader.img"), (16384, "rock64-rk3328/u-boot.itb")],
        Some((0x3f_8000, 0x8000)),
    ),
    rockchip(
        "puma-rk3399",
        &[(64, "puma-rk3399/idbloader.img"), (512, "puma-rk3399/u-boot.itb")],
        Some((0x3f_8000, 0x3000)),
    ),
    allwinner("pine64-plus", "arm64", &[(16, "pine64_plus/u-boot-sunxi-with-spl.bin")]),
    allwinner("nanopi-neo2", "arm64", &[(16, "nanopi_neo2/u-boot-sunxi-with-spl.bin")]),
    allwinner("orangepi-one-plus", "arm64", &[(16, "orangepi_one_plus/u-boot-sunxi-with-spl.bin")]),
    allwinner("orangepi-plus", "armhf", &[(16, "orangepi_plus/u-boot-sunxi-with-spl.bin")]),
    allwinner("orangepi-pc-plus", "armhf", &[(16, "orangepi_pc_plus/u-boot-sunxi-with-spl.bin")]),
    Board {
        variables: &[("table", "gpt")],
        table: "gpt",
        partitions: &[(2048, LINUX)],
        ..allwinner("orangepi-pc-plus", "armhf", &[(256, "orangepi_pc_plus/u-boot-sunxi-with-spl.bin")])
    },
    Board {
        name: "beaglebone-black",
        architecture: "armhf",
        variables: &[],
        table: "dos",
        partitions: &[(8192, "83")],
        writes: &[(256, "am335x_evm/MLO"), (768, "am335x_evm/u-boot.img")],
        environment: None,
    },
    Board {
        name: "wandboard",
        architecture: "armhf",
        variables: &[],
        table: "dos",
        partitions: &[(8192, "83")],
        writes: &[(2, "wandboard/SPL"), (138, "wandboard/u-boot.img")],
        environment: Some((0xc_0000, 0x2000)),
    },
    Board {
        name: "cubox-i",
        architecture: "armhf",
        variables: &[],
        table: "dos",
        partitions: &[(8192, "83")],
        writes: &[(2, "mx6cuboxi/SPL"), (138, "mx6cuboxi/u-boot.img")],
        environment: Some((0xf_e000, 0x2000)),
    },
    Board {
        name: "visionfive2",
        architecture: "riscv64",
        variables: &[],
        table: "gpt",
        partitions: &[(4096, SPL), (8192, "BC13C2FF-59E6-4262-A352-B275FD6F7172"), (16384, LINUX)],
        writes: &[(4096, "starfive_visionfive2/u-boot-spl.bin.normal.out"), (8192, "starfive_visionfive2/u-boot.itb")],
        environment: None,
    },
    Board {
        name: "hifive-unmatched",
        architecture: "riscv64",
        variables: &[],
        table: "gpt",
        partitions: &[(34, "5B193300-FC78-40CD-8002-E86C45580B47"), (2082, SPL), (16384, LINUX)],
        writes: &[(34, "sifive_unmatched/u-boot-spl.bin"), (2082, "sifive_unmatched/u-boot.itb")],
        environment: None,
    },
    Board {
        name: "hifive-unleashed",
        architecture: "riscv64",
        variables: &[],
        table: "gpt",
        partitions: &[(34, "5B193300-FC78-40CD-8002-E86C45580B47"), (2082, SPL), (16384, LINUX)],
        writes: &[(34, "sifive_unleashed/u-boot-spl.bin"), (2082, "sifive_unleashed/u-boot.itb")],
        environment: None,
    },
];

/// Parts that others include.
const FAMILIES: [&str; 5] = ["allwinner", "imx6", "rockchip", "sifive", "system"];

fn names(directory: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(source_dir().join(directory)).unwrap();
    entries.map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

impl Board {
    /// The actions of its recipe.
    fn actions(&self) -> Vec<Value> {
        let mut variables = BTreeMap::from([("imagesize".to_owned(), "64MiB".to_owned())]);
        variables.extend(self.variables.iter().map(|(name, value)| ((*name).into(), (*value).into())));
        let options = Options {
            variables,
            template_dirs: vec![source_dir().join("templates")],
            artifact_dir: "/nowhere".into(),
            ..Options::default()
        };
        let path = source_dir().join(format!("recipes/boards/{}.yaml", self.name));
        let text = print(&path, &options, &DiskLoader).unwrap_or_else(|_| panic!("{} does not render", self.name));
        let recipe: Value = serde_yaml::from_str(&text).unwrap();
        assert_eq!(recipe["architecture"], self.architecture, "{}", self.name);
        recipe["actions"].as_array().unwrap().clone()
    }

    /// Its image, of a tiny root with files of the names that the board's packages have.
    fn build(&self, project: &Project) -> std::path::PathBuf {
        let actions = self.actions();
        let files: Vec<(String, String)> = actions
            .iter()
            .filter(|action| action["action"] == "raw")
            .map(|action| {
                assert_eq!(action["origin"], "filesystem", "{}", self.name);
                let path = action["source"].as_str().unwrap().trim_start_matches('/').to_owned();
                let most: Size = action["max-size"].as_str().unwrap().parse().unwrap();
                (path.clone(), blob(&path, most.bytes(512).unwrap()))
            })
            .collect();
        let files: Vec<(&str, u32, &str)> =
            files.iter().map(|(path, text)| (path.as_str(), 0o644, text.as_str())).collect();
        project.write("u-boot.tar", fixture::archive(&files));
        let unpack = |file: &str| json!({"action": "unpack", "origin": "recipe", "file": file});
        let mut kept = vec![unpack("root.tar"), unpack("u-boot.tar")];
        let on_disk = ["image-partition", "filesystem-deploy", "raw"];
        kept.extend(actions.into_iter().filter(|action| on_disk.contains(&action["action"].as_str().unwrap())));
        let image = kept.iter().find_map(|action| action["imagename"].as_str()).unwrap().to_owned();
        let recipe = json!({"architecture": Architecture::host().to_string(), "actions": kept});
        project.write("recipe.yaml", serde_json::to_string_pretty(&recipe).unwrap());
        project.build([]).success();
        project.path("out").join(image)
    }
}

/// Something to stand for a file of U-Boot: text that no other file has, and odd in length.
fn blob(path: &str, most: u64) -> String {
    let length = (most as usize).min(200_001);
    format!("{path} ").chars().cycle().take(length).collect()
}

fn table(image: &std::path::Path) -> Value {
    let output = Command::new("sfdisk").arg("--json").arg(image).output().expect("starting sfdisk");
    let all: Value = serde_json::from_slice(&output.stdout).expect("what sfdisk says");
    all["partitiontable"].clone()
}

#[test]
fn every_board_has_a_part_a_recipe_and_a_row_here() {
    let rows: BTreeSet<String> = BOARDS.iter().map(|board| board.name.to_owned()).collect();
    let parts: BTreeSet<String> =
        names("templates/boards").into_iter().filter(|name| !FAMILIES.contains(&name.as_str())).collect();
    assert_eq!(parts, rows);
    assert_eq!(names("recipes/boards"), rows);
}

#[test]
fn every_recipe_of_a_board_is_good_as_it_stands() {
    let project = Project::new();
    for board in BOARDS {
        let path = source_dir().join(format!("recipes/boards/{}.yaml", board.name)).display().to_string();
        let variables: Vec<String> = board.variables.iter().map(|(name, value)| format!("{name}:{value}")).collect();
        let mut args = vec!["check", &path, "--recipe-only"];
        args.extend(variables.iter().flat_map(|variable| ["-t", variable]));
        let finished = project.run(args).success();
        assert!(!finished.stderr.contains("warning"), "{finished}");
    }
}

#[test]
fn what_a_user_may_set_is_in_the_recipe() {
    let board = |variables| Board { variables, ..rockchip("rock64", &[], None) };
    let all = board(&[
        ("suite", "bookworm"),
        ("mirror", "http://mirror.example/debian"),
        ("hostname", "shed"),
        ("packages", "openssh-server, less"),
        ("ssh_key", "ssh-ed25519 AAAA me"),
        ("imagename", "shed.img"),
        ("imagesize", "auto"),
        ("kernel", "linux-image-cloud-arm64"),
        ("console", "ttyS1"),
        ("cmdline", "quiet splash"),
    ]);
    let actions = all.actions();
    let find = |name: &str| actions.iter().filter(|action| action["action"] == name).cloned().collect::<Vec<_>>();
    assert_eq!(find("mmdebstrap")[0]["suite"], "bookworm");
    assert_eq!(find("mmdebstrap")[0]["mirrors"], json!(["http://mirror.example/debian"]));
    let packages: Vec<String> = find("apt").iter().map(|action| action["packages"].to_string()).collect();
    assert!(packages.iter().any(|list| list == r#"["openssh-server","less"]"#), "{packages:?}");
    assert!(packages.iter().any(|list| list.contains(r#""linux-image-cloud-arm64""#)), "{packages:?}");
    let script = find("run")[0]["command"].as_str().unwrap().to_owned();
    assert!(script.contains("echo shed > /etc/hostname") && script.contains("'ssh-ed25519 AAAA me'"), "{script}");
    assert_eq!(find("image-partition")[0]["imagename"], "shed.img");
    assert_eq!(find("image-partition")[0]["imagesize"], "auto");
    assert_eq!(find("bootloader")[0]["console"], "ttyS1");
    assert_eq!(find("bootloader")[0]["append-kernel-cmdline"], "quiet splash");
}

#[test]
fn u_boot_and_the_partitions_are_where_each_board_looks_for_them() {
    needs_program!("sfdisk", "fdisk");
    let Some(root) = fixture::tiny_root() else { skip!("needs a static busybox") };
    let project = Project::new().file("root.tar", root);
    for board in BOARDS {
        let what = format!("{} {:?}", board.name, board.variables);
        let image = board.build(&project);
        let table = table(&image);
        assert_eq!(table["label"], board.table, "{what}");
        let found: Vec<(u64, &str)> = table["partitions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|partition| (partition["start"].as_u64().unwrap(), partition["type"].as_str().unwrap()))
            .collect();
        assert_eq!(found, board.partitions, "{what}");
        let file = File::open(&image).unwrap();
        for (sector, path) in board.writes {
            let path = format!("usr/lib/u-boot/{path}");
            let expected = blob(&path, 512);
            let mut bytes = vec![0; 512];
            file.read_exact_at(&mut bytes, sector * 512).unwrap();
            assert_eq!(String::from_utf8_lossy(&bytes), expected, "{what}: sector {sector}");
        }
        if let Some((start, length)) = board.environment {
            let mut bytes = vec![1; length as usize];
            file.read_exact_at(&mut bytes, start).unwrap();
            assert!(bytes.iter().all(|byte| *byte == 0), "{what}: something is in U-Boot's environment");
        }
        fs::remove_file(&image).unwrap();
    }
}

#[test]
fn the_recipes_of_the_book_are_good() {
    let book = fs::read_to_string(source_dir().join("docs/src/boards.md")).unwrap();
    let recipes: Vec<&str> = book.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert_eq!(recipes.len(), 2);
    let project = Project::new();
    for recipe in recipes {
        project.write("recipe.yaml", recipe);
        let finished = project.run(["check", "recipe.yaml", "--recipe-only"]).success();
        assert!(!finished.stderr.contains("warning"), "{finished}");
    }
    for board in BOARDS {
        assert!(book.contains(&format!("\n| `{}` |", board.name)), "{} is not in the book", board.name);
    }
}
