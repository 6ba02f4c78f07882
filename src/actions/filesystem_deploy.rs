//! The action `filesystem-deploy`.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::image::{self, FindBy};
use crate::build::inside::{Inside, Kind};
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::Diagnostics;
use crate::image::{Deploy, ImageSize, Partition, Spec, Strategy};

/// Put the root into the disk image.
///
/// ```yaml
/// - action: filesystem-deploy
///   append-kernel-cmdline: console=ttyS0 quiet
/// ```
///
/// The root is divided among the partitions of the `image-partition` before, by their mount points.
/// Directories to mount on are made where they are missing. Nothing is copied now: later actions go on
/// changing the root, and all that they change is in the image, which is written when the recipe is
/// done or an action asks for its bytes.
///
/// `/etc/fstab` is written anew: a line for each mount point (without those of `buildtime`) and for
/// each swap partition. ext2 to ext4, FAT and f2fs are checked at boot, the root first, unless their
/// partition has `fsck: false`; file systems that cannot be written to are mounted `ro`, subvolumes by
/// `subvol=`. An EFI system partition at /boot/efi or /efi, which no start needs, is mounted when something first
/// looks there (`umask=0077,nofail,x-systemd.automount`), unless its mount point has `options` of its own.
///
/// `/etc/kernel/cmdline` keeps what it says, gets `root=` in the place of another, and at its end what
/// `append-kernel-cmdline` has. Boot loaders that are installed after this action take it from there.
/// For a root that dm-verity protects it names the root hash.
///
/// An initramfs of initramfs-tools is mostly made before there is an `/etc/fstab`, and without devices to be looked at;
/// so it has no fsck, and the root is checked by the system that it starts. `FSTYPE=ext4` in a file in
/// `/etc/initramfs-tools/conf.d`, before the kernel is installed, puts one in; for a /usr of its own nothing else checks it.
///
/// A swap file of the root stays one that the kernel takes; what is allocated in other files and zero becomes holes.
///
/// **Several deploys into one image**: mount points with a `slot` belong to the deploys with the same
/// `slot`, mount points without one to all of them. What runs before the second deploy is in both roots,
/// what runs after it in the second alone; a partition that both mount holds what the last one leaves.
///
/// ```yaml
/// - action: filesystem-deploy
///   slot: a
///   append-kernel-cmdline: slot=a
///
/// - action: filesystem-deploy
///   slot: b
///   append-kernel-cmdline: slot=b
/// ```
///
/// **Compared with debos**: `fstab-by`, `root-by` and `slot`; no device and no root is needed; fstab is
/// written whole, with the UUIDs that udev knows, and checks only what has something to check.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FilesystemDeploy {
    /// Whether /etc/fstab is written.
    #[serde(default = "super::defaults::yes")]
    pub setup_fstab: bool,
    /// Whether /etc/kernel/cmdline is written.
    #[serde(default = "super::defaults::yes")]
    pub setup_kernel_cmdline: bool,
    /// Further words for the kernel command line.
    #[serde(default)]
    pub append_kernel_cmdline: Option<String>,
    /// How /etc/fstab names partitions: `uuid` (of the file system), `partuuid`, `label` (of the file
    /// system) or `partlabel`. Where it is left out: `uuid`, and `partuuid` for squashfs, which has none.
    #[serde(default)]
    pub fstab_by: Option<FindBy>,
    /// How the kernel command line names the root; as `fstab-by`.
    #[serde(default)]
    pub root_by: Option<FindBy>,
    /// Whether the root is prepared for its first start right before the image is written: its machine
    /// id, SSH host keys and random seed are made new, and the last partition grows to the disk. See the
    /// action `first-boot`.
    #[serde(default = "super::defaults::yes")]
    pub first_boot: bool,
    /// Which of several deploys this is.
    #[serde(default)]
    pub slot: Option<String>,
}

impl FilesystemDeploy {
    fn slot(&self) -> Option<&str> {
        self.slot.as_deref()
    }

    /// What it adds to the kernel command line.
    fn words(&self, spec: &Spec) -> Vec<String> {
        if !self.setup_kernel_cmdline {
            return Vec::new();
        }
        let mut words = image::root_words(spec, self.slot(), self.root_by);
        words.extend(self.append_kernel_cmdline.as_deref().map(image::split).unwrap_or_default());
        words
    }

    /// Whether it is clear which mount points are meant.
    fn check_slot(&self, cx: &CheckContext<'_>, spec: &Spec, out: &mut Diagnostics) -> bool {
        let known: BTreeSet<&str> = spec.mounts.iter().filter_map(|mount| mount.slot.as_deref()).collect();
        match self.slot() {
            Some(slot) if !known.contains(slot) => {
                out.push(
                    cx.error("slot", format!("no mount point of `{}` belongs to the slot `{slot}`", spec.name))
                        .suggest(slot, known.iter().copied()),
                );
                return false;
            }
            None if !known.is_empty() => {
                let known: Vec<String> = known.iter().map(|slot| format!("`{slot}`")).collect();
                out.push(
                    cx.error("", format!("`{}` has mount points for several deploys", spec.name))
                        .hint(format!("say which one this is by `slot`: {}", known.join(" or "))),
                );
                return false;
            }
            _ => {}
        }
        if spec.deploys.iter().any(|deploy| deploy.slot == self.slot) {
            let what = self.slot().map_or_else(String::new, |slot| format!(" the slot `{slot}` of"));
            out.push(
                cx.error("", format!("there is a root in{what} `{}` already", spec.name))
                    .hint("several deploys into one image need mount points with a `slot`, and each its own"),
            );
        }
        true
    }

    /// Reports a partition that is as large as the contents of an earlier deploy.
    fn check_measured(&self, cx: &CheckContext<'_>, spec: &Spec, out: &mut Diagnostics) {
        if spec.deploys.is_empty() || !matches!(spec.size, ImageSize::Auto { .. }) {
            return;
        }
        for mount in spec.mounts_of(self.slot()) {
            let Some(partition) = spec.partition(&mount.partition).filter(|partition| partition.fill) else { continue };
            let name = &partition.name;
            let hint = format!(
                "give `{name}` a `size` in `image-partition`, and `size: rest` to one that only the first deploy mounts"
            );
            let earlier =
                spec.deploys.iter().any(|deploy| spec.mounts_of(deploy.slot.as_deref()).any(|it| it == mount));
            let measured = format!("`{name}` gets its size when the first deploy is written");
            out.push(match earlier {
                false => cx.error("", format!("{measured}, before this one fills it")).hint(hint),
                true => cx.warning("", format!("{measured}, and this one fills it anew")).hint(hint),
            });
        }
    }

    fn check_mounts(&self, cx: &CheckContext<'_>, spec: &Spec, out: &mut Diagnostics) {
        let mounts: Vec<_> = spec.mounts_of(self.slot()).collect();
        if spec.strategy == Strategy::Mounted
            && let Some(hashes) = spec.partitions.iter().find_map(|partition| partition.contents.verity.as_ref())
        {
            out.push(
                cx.error("", format!("`{}` is protected by dm-verity, and mounting it would change it", hashes.data))
                    .hint("leave `strategy` out: offline it is hashed when it has all that it is to have"),
            );
        }
        if !mounts.iter().any(|mount| mount.path == "/" && !mount.build_time) {
            out.push(
                cx.error("", format!("no partition of `{}` is mounted on `/`", spec.name))
                    .hint("`mountpoints` of `image-partition` say where partitions are mounted"),
            );
        }
        for mount in mounts.iter().filter(|mount| !mount.build_time) {
            let Some(partition) = spec.partition(&mount.partition) else { continue };
            if spec.hashes_of(&partition.name).is_some() {
                if !image::is_protectable(&mount.path) {
                    out.push(
                        cx.error(
                            "",
                            format!("`{}` is protected by dm-verity and mounted on {}", partition.name, mount.path),
                        )
                        .hint("the initramfs knows only how to set up `/` and `/usr`"),
                    );
                }
                continue;
            }
            if self.setup_fstab {
                Self::check_named(cx, "fstab-by", self.fstab_by, partition, out);
            }
            if self.setup_kernel_cmdline && mount.path == "/" {
                Self::check_named(cx, "root-by", self.root_by, partition, out);
            }
        }
        for (property, by) in [("fstab-by", self.fstab_by), ("root-by", self.root_by)] {
            Self::check_unique(cx, property, by, spec, out);
        }
    }

    /// Reports a partition that has no name of the kind that is asked for.
    fn check_named(
        cx: &CheckContext<'_>,
        property: &str,
        by: Option<FindBy>,
        partition: &Partition,
        out: &mut Diagnostics,
    ) {
        match (image::device(partition, by), by) {
            (Some(device), _) if property == "root-by" && device.contains(char::is_whitespace) => out.push(
                cx.error(property, format!("the kernel command line cannot have the spaces of `{device}`"))
                    .hint("name it without spaces, or find it by `uuid`"),
            ),
            (Some(_), _) => {}
            (None, Some(by)) => {
                let kind = partition.contents.kind.fstab_type().unwrap_or("none");
                out.push(
                    cx.error(property, format!("`{}` ({kind}) has no {}", partition.name, by.name()))
                        .hint("`partuuid` works for every partition"),
                );
            }
            (None, None) => {}
        }
    }

    /// Reports a label that two partitions share.
    fn check_unique(cx: &CheckContext<'_>, property: &str, by: Option<FindBy>, spec: &Spec, out: &mut Diagnostics) {
        let Some(by @ (FindBy::Label | FindBy::Partlabel)) = by else { return };
        let mut seen: Vec<(&str, &str)> = Vec::new();
        for partition in &spec.partitions {
            let Some(value) = by.value(partition) else { continue };
            if let Some((other, _)) = seen.iter().find(|(_, known)| *known == value) {
                out.push(cx.error(
                    property,
                    format!("`{other}` and `{}` have the same {}, `{value}`", partition.name, by.name()),
                ));
            }
            seen.push((&partition.name, value));
        }
    }
}

impl Action for FilesystemDeploy {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        if !cx.has_root {
            out.push(
                cx.error("", "there is no root to deploy yet")
                    .hint("an action before this one must make it: `mmdebstrap`, `debootstrap` or `unpack`"),
            );
        }
        if self.append_kernel_cmdline.is_some() && !self.setup_kernel_cmdline {
            out.push(cx.warning("append-kernel-cmdline", "this is not used: `setup-kernel-cmdline` is false"));
        }
        if self.append_kernel_cmdline.as_ref().is_some_and(|words| words.matches('"').count() % 2 == 1) {
            out.push(cx.error("append-kernel-cmdline", "a quote is not closed"));
        }
        match cx.image {
            None => out.push(
                cx.error("", "there is no image to deploy to")
                    .hint("an `image-partition` before this action says what it looks like"),
            ),
            Some(spec) => {
                if self.check_slot(cx, spec, out) {
                    self.check_measured(cx, spec, out);
                    self.check_mounts(cx, spec, out);
                }
            }
        }
    }

    fn nature(&self) -> Nature {
        Nature {
            // 2: an EFI system partition is mounted when something looks there.
            version: 2,
            changes: Changes::ROOT,
            root: RootUse::Used,
            reads: Reads::NOTHING,
            needs: Needs::NOTHING,
            artifacts: Vec::new(),
            removes: Vec::new(),
            works_on_disk: false,
            postprocess: false,
        }
    }

    fn wants_device(&self, _cx: &CheckContext<'_>) -> bool {
        false
    }

    fn image(&self, cx: ImageSurroundings<'_>) -> ImageRole {
        let words = cx.spec.map(|spec| self.words(spec)).unwrap_or_default();
        ImageRole::Deploys(Deploy { slot: self.slot.clone(), words, first_boot: self.first_boot })
    }

    fn summary(&self) -> String {
        self.slot().map(|slot| format!("slot {slot}")).unwrap_or_default()
    }

    /// What it writes, rather than the image as a whole: a larger image is no reason to run what comes
    /// after it again.
    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        let spec = cx.image.context("no step before describes an image")?;
        let paths: Vec<&str> = spec.mounts_of(self.slot()).map(|mount| mount.path.as_str()).collect();
        cx.add("mount points", paths.join(" "));
        if self.setup_fstab {
            cx.add("fstab", image::fstab(spec, self.slot(), self.fstab_by));
        }
        cx.add("kernel command line", self.words(spec).join(" "));
        let earlier: Vec<&str> = spec.deploys.iter().flat_map(|deploy| &deploy.words).map(String::as_str).collect();
        if !earlier.is_empty() {
            cx.add("kernel command line of earlier deploys", earlier.join(" "));
        }
        Ok(())
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let spec = cx.image.context("no step before describes an image")?;
        image::make_mount_points(spec, self.slot(), cx.root)?;
        let root = Inside::open(cx.root)?;
        if self.setup_fstab {
            write(&root, "/etc/fstab", &image::fstab(spec, self.slot(), self.fstab_by))?;
        }
        if self.setup_kernel_cmdline {
            let path = "/etc/kernel/cmdline";
            let mut before = String::new();
            if root.kind(Path::new(path))? == Some(Kind::File) {
                root.read(Path::new(path))?.read_to_string(&mut before).with_context(|| format!("reading {path}"))?;
            }
            let earlier: Vec<String> = spec.deploys.iter().flat_map(|deploy| deploy.words.clone()).collect();
            write(&root, path, &image::command_line(&before, &earlier, &self.words(spec)))?;
        }
        Ok(())
    }
}

/// Writes a file of the root whole.
fn write(root: &Inside, path: &str, text: &str) -> Result<()> {
    let path = Path::new(path);
    if let Some(parent) = path.parent() {
        root.create_dir_all(parent)?;
    }
    let slot = root.slot(path)?;
    slot.create_file()?.write_all(text.as_bytes()).with_context(|| format!("writing {}", path.display()))?;
    slot.set_mode(0o644)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{BootCheck, Contents, FilesystemKind, ImageSize, Mount, TableKind, Verity};

    fn partition(name: &str, kind: FilesystemKind, uuid: &str) -> Partition {
        Partition {
            name: name.into(),
            number: 1,
            start: None,
            end: None,
            size: None,
            fill: false,
            label: format!("{name}-part"),
            kind: String::new(),
            attributes: Vec::new(),
            uuid: format!("{name}-partuuid"),
            uuid_given: false,
            flags: Vec::new(),
            contents: Contents {
                kind,
                label: format!("{name} fs"),
                uuid: uuid.into(),
                features: Vec::new(),
                extended_options: Vec::new(),
                mkfs_options: Vec::new(),
                compression: None,
                subvolumes: Vec::new(),
                fsck: true,
                verity: None,
            },
            artifact: None,
        }
    }

    fn mount(path: &str, partition: &str) -> Mount {
        Mount {
            path: path.into(),
            partition: partition.into(),
            subvolume: None,
            options: Vec::new(),
            build_options: Vec::new(),
            build_time: false,
            slot: None,
        }
    }

    fn spec(partitions: Vec<Partition>, mounts: Vec<Mount>) -> Spec {
        Spec {
            name: "disk.img".into(),
            size: ImageSize::Bytes(1 << 30),
            table: TableKind::Gpt,
            disk_id: String::new(),
            sector_size: 512,
            alignment: 1 << 20,
            gpt_gap: 0,
            strategy: Strategy::Offline,
            partitions,
            mounts,
            reserved: Vec::new(),
            seed: "seed".into(),
            deploys: Vec::new(),
            writes: Vec::new(),
            written: false,
            deployed: 0,
            boot_check: BootCheck::Error,
        }
    }

    fn fields(spec: &Spec, by: Option<FindBy>) -> Vec<String> {
        image::fstab(spec, None, by).lines().skip(1).map(|line| line.replace('\t', " ")).collect()
    }

    #[test]
    fn fstab_has_a_line_for_every_mount_point_and_swap() {
        use FilesystemKind::{Btrfs, Ext4, Fat32, Squashfs, Swap};
        let mut home = mount("/home", "pool");
        home.subvolume = Some("@home".into());
        home.options = vec!["noatime".into()];
        let mut build = mount("/boot/scratch", "scratch");
        build.build_time = true;
        let spec = spec(
            vec![
                partition("efi", Fat32, "DEAD-BEEF"),
                partition("root", Ext4, "1111"),
                partition("pool", Btrfs, "2222"),
                partition("app", Squashfs, ""),
                partition("scratch", Ext4, "4444"),
                partition("swap", Swap, "3333"),
            ],
            vec![mount("/", "root"), mount("/boot/efi", "efi"), home, mount("/opt/my app", "app"), build],
        );
        assert_eq!(
            fields(&spec, None),
            [
                "UUID=1111 / ext4 defaults 0 1",
                "UUID=DEAD-BEEF /boot/efi vfat defaults 0 2",
                "UUID=2222 /home btrfs defaults,noatime,subvol=@home 0 0",
                "PARTUUID=app-partuuid /opt/my\\040app squashfs defaults,ro 0 0",
                "UUID=3333 none swap sw 0 0",
            ]
        );
        assert_eq!(fields(&spec, Some(FindBy::Label))[0], "LABEL=root\\040fs / ext4 defaults 0 1");
        assert_eq!(fields(&spec, Some(FindBy::Partlabel))[1], "PARTLABEL=efi-part /boot/efi vfat defaults 0 2");
    }

    #[test]
    fn a_protected_root_is_found_by_its_hash() {
        let mut hashes = partition("hashes", FilesystemKind::Verity, "");
        hashes.contents.verity = Some(Verity { data: "root".into(), salt: String::new() });
        let mut spec = spec(vec![partition("root", FilesystemKind::Ext4, "1"), hashes], vec![mount("/", "root")]);
        let hash = spec.verity_placeholder("root");
        assert_eq!(hash.len(), 64);
        assert_eq!(fields(&spec, None), ["/dev/mapper/root / ext4 defaults,ro 0 0"]);
        let words = image::root_words(&spec, None, None);
        assert_eq!(words, ["root=/dev/mapper/root".to_owned(), format!("roothash={hash}"), "ro".into()]);
        spec.partitions[1].uuid_given = true;
        let words = image::root_words(&spec, None, None).join(" ");
        assert!(words.contains("systemd.verity_root_data=PARTUUID=root-partuuid"), "{words}");
        assert!(words.contains("systemd.verity_root_hash=PARTUUID=hashes-partuuid"), "{words}");
    }
}
