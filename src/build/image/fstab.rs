//! What a deployed system is told of its file systems: /etc/fstab and the kernel command line.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::build::bootloader::layout;
use crate::image::{Contents, FilesystemKind, Mount, Partition, Spec};

/// How a system finds a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FindBy {
    /// The file system's UUID.
    Uuid,
    /// The partition's UUID; on msdos the disk's id and the partition's number.
    Partuuid,
    /// The file system's label.
    Label,
    /// The partition's label (gpt).
    Partlabel,
}

impl FindBy {
    /// As in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uuid => "uuid",
            Self::Partuuid => "partuuid",
            Self::Label => "label",
            Self::Partlabel => "partlabel",
        }
    }

    /// What a partition is called this way; `None` where it has no such name.
    pub fn value(self, partition: &Partition) -> Option<&str> {
        let kind = partition.contents.kind;
        let squashfs = kind == FilesystemKind::Squashfs;
        let value = match self {
            // Nobody knows the UUID that the mkfs of these will choose.
            Self::Uuid if squashfs || kind.is_kernels() => "",
            Self::Label if squashfs => "",
            Self::Uuid => &partition.contents.uuid,
            Self::Label => &partition.contents.label,
            Self::Partuuid => &partition.uuid,
            Self::Partlabel => &partition.label,
        };
        Some(value).filter(|value| !value.is_empty())
    }
}

/// A partition as fstab(5) and the kernel name it, `UUID=…`. Where nobody said how, by its file
/// system's UUID, or by its own where the file system has none.
pub fn device(partition: &Partition, by: Option<FindBy>) -> Option<String> {
    let ways = match by {
        Some(by) => vec![by],
        None => vec![FindBy::Uuid, FindBy::Partuuid],
    };
    ways.into_iter().find_map(|by| Some(format!("{}={}", by.name().to_uppercase(), by.value(partition)?)))
}

/// The device of a partition that dm-verity protects; the initramfs gives it this name
/// (systemd-veritysetup-generator(8)).
fn mapped(path: &str) -> Option<&'static str> {
    match path {
        "/" => Some("/dev/mapper/root"),
        "/usr" => Some("/dev/mapper/usr"),
        _ => None,
    }
}

/// Whether dm-verity can protect what is mounted there.
pub fn is_protectable(path: &str) -> bool {
    mapped(path).is_some()
}

/// /etc/fstab of a deploy: its mounts, without those of the build alone, and all swap.
pub fn fstab(spec: &Spec, slot: Option<&str>, by: Option<FindBy>) -> String {
    let mut lines = vec!["# file system\tmount point\ttype\toptions\tdump\tpass".to_owned()];
    for mount in spec.mounts_of(slot).filter(|mount| !mount.build_time) {
        let Some(partition) = spec.partition(&mount.partition) else { continue };
        let Some(kind) = partition.contents.kind.fstab_type().filter(|kind| *kind != "swap") else { continue };
        let protected = spec.hashes_of(&partition.name).is_some();
        let device = match mapped(&mount.path).filter(|_| protected) {
            Some(device) => Some(device.to_owned()),
            None => device(partition, by),
        };
        let Some(device) = device else { continue };
        let options = options(mount, partition, protected);
        let pass = pass(mount, &partition.contents, protected);
        lines.push(line(&device, &mount.path, kind, &options, pass));
    }
    for partition in spec.partitions.iter().filter(|partition| partition.contents.kind == FilesystemKind::Swap) {
        let mount = spec.mounts_of(slot).find(|mount| mount.partition == partition.name);
        let options = mount.map(|mount| mount.options.as_slice()).unwrap_or_default();
        let options = if options.is_empty() { "sw".to_owned() } else { options.join(",") };
        lines.extend(device(partition, by).map(|device| line(&device, "none", "swap", &options, 0)));
    }
    lines.join("\n") + "\n"
}

fn line(device: &str, path: &str, kind: &str, options: &str, pass: u8) -> String {
    format!("{}\t{}\t{kind}\t{}\t0\t{pass}", escaped(device), escaped(path), escaped(options))
}

/// A field as fstab(5) has it.
fn escaped(field: &str) -> String {
    let mut all = String::new();
    for letter in field.chars() {
        match letter {
            ' ' | '\t' | '\n' | '\\' | '#' => all.push_str(&format!("\\{:03o}", letter as u32)),
            letter => all.push(letter),
        }
    }
    all
}

/// Of an EFI system partition where only updates of the boot loader look: a start needs neither it nor the kernel's
/// driver of FAT, and what cannot be mounted must not keep the system from starting.
const RARELY_USED: [&str; 3] = ["umask=0077", "nofail", "x-systemd.automount"];

fn is_rarely_used(mount: &Mount, partition: &Partition) -> bool {
    ["/boot/efi", "/efi"].contains(&mount.path.as_str()) && layout::is_esp(partition) && mount.options.is_empty()
}

fn options(mount: &Mount, partition: &Partition, protected: bool) -> String {
    let contents = &partition.contents;
    let mut all = vec!["defaults".to_owned()];
    if is_rarely_used(mount, partition) {
        all.extend(RARELY_USED.map(str::to_owned));
    }
    all.extend(mount.options.iter().filter(|option| *option != "defaults").cloned());
    if (contents.kind.is_read_only() || protected) && !all.iter().any(|option| option == "ro") {
        all.push("ro".into());
    }
    if let Some(subvolume) = &mount.subvolume
        && !all.iter().any(|option| option.starts_with("subvol="))
    {
        all.push(format!("subvol={subvolume}"));
    }
    all.join(",")
}

/// When it is checked at boot: btrfs, xfs and what is never written to check themselves or have nothing
/// to check (fstab(5)).
fn pass(mount: &Mount, contents: &Contents, protected: bool) -> u8 {
    use FilesystemKind::{Ext2, Ext3, Ext4, F2fs, Fat12, Fat16, Fat32};
    let checked = matches!(contents.kind, Ext2 | Ext3 | Ext4 | F2fs | Fat12 | Fat16 | Fat32);
    match (checked && contents.fsck && !protected, mount.path.as_str()) {
        (false, _) => 0,
        (true, "/") => 1,
        (true, _) => 2,
    }
}

/// The words of the kernel command line that say where the root of a deploy is.
pub fn root_words(spec: &Spec, slot: Option<&str>, by: Option<FindBy>) -> Vec<String> {
    let mut words = Vec::new();
    for mount in spec.mounts_of(slot).filter(|mount| !mount.build_time) {
        let Some(partition) = spec.partition(&mount.partition) else { continue };
        let hashes = spec.hashes_of(&partition.name);
        match (mount.path.as_str(), hashes) {
            ("/", None) => words.extend(device(partition, by).map(|device| format!("root={device}"))),
            ("/", Some(hashes)) => {
                words.push("root=/dev/mapper/root".into());
                words.extend(verity_words(spec, "root", partition, hashes));
            }
            ("/usr", Some(hashes)) => {
                words.push("mount.usr=/dev/mapper/usr".into());
                words.extend(verity_words(spec, "usr", partition, hashes));
            }
            _ => {}
        }
        if mount.path == "/" {
            words.extend(mount.subvolume.as_ref().map(|subvolume| format!("rootflags=subvol={subvolume}")));
            if partition.contents.kind.is_read_only() || hashes.is_some() {
                words.push("ro".into());
            }
        }
    }
    words
}

/// How an initramfs sets up dm-verity. Partitions whose UUIDs follow from the root hash are found by
/// that alone.
fn verity_words(spec: &Spec, what: &str, data: &Partition, hashes: &Partition) -> Vec<String> {
    let mut words = vec![format!("{what}hash={}", spec.verity_placeholder(&data.name))];
    if data.uuid_given || hashes.uuid_given {
        words.push(format!("systemd.verity_{what}_data=PARTUUID={}", data.uuid));
        words.push(format!("systemd.verity_{what}_hash=PARTUUID={}", hashes.uuid));
    }
    words
}

/// A kernel command line where there was `before`: words of earlier deploys and other roots left out,
/// `words` at its end.
pub fn command_line(before: &str, earlier: &[String], words: &[String]) -> String {
    let mut earlier = earlier.to_vec();
    let kept = split(before).into_iter().filter(|word| {
        let known = earlier.iter().position(|known| known == word);
        if let Some(known) = known {
            earlier.swap_remove(known);
        }
        known.is_none() && !word.starts_with("root=")
    });
    kept.chain(words.iter().cloned()).collect::<Vec<_>>().join(" ") + "\n"
}

/// The words of a kernel command line: spaces between double quotes belong to the word.
pub fn split(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for letter in line.chars() {
        quoted ^= letter == '"';
        match words.last_mut() {
            Some(word) if quoted || !letter.is_whitespace() => word.push(letter),
            _ => words.push(String::new()),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::{command_line, split};

    #[test]
    fn a_command_line_has_one_root_and_no_stray_spaces() {
        let words = ["root=UUID=1".to_owned(), "quiet".to_owned()];
        assert_eq!(command_line("", &[], &words), "root=UUID=1 quiet\n");
        assert_eq!(command_line(" console=ttyS0  \n", &[], &words), "console=ttyS0 root=UUID=1 quiet\n");
        assert_eq!(command_line("root=/dev/sda1 rw\n", &[], &words), "rw root=UUID=1 quiet\n");
    }

    #[test]
    fn what_an_earlier_deploy_said_is_said_no_more() {
        let earlier = ["root=UUID=1".to_owned(), "slot=a".to_owned(), "quiet".to_owned()];
        let now = ["root=UUID=2".to_owned(), "slot=b".to_owned()];
        assert_eq!(
            command_line("quiet debug root=UUID=1 slot=a quiet", &earlier, &now),
            "debug quiet root=UUID=2 slot=b\n"
        );
    }

    #[test]
    fn quotes_keep_words_together() {
        assert_eq!(split("a=\"b c\" d"), ["a=\"b c\"", "d"]);
    }
}
