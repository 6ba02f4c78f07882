//! What is wrong with a partition.

use uuid::Uuid;

use super::super::properties::Partition;
use super::super::{ImagePartition, declare};
use super::{size, whole_sectors};
use crate::actions::pack::check_artifact_name;
use crate::build::CheckContext;
use crate::diagnostics::{Diagnostics, suggest};
use crate::image::FilesystemKind::{
    self, Btrfs, Erofs, Exfat, Ext2, Ext3, Ext4, F2fs, Fat12, Fat16, Fat32, Hfs, Hfsplus, Hfsx, Nilfs2, Ntfs, Squashfs,
    Swap, Xfs,
};
use crate::image::table::types;
use crate::image::{Strategy, TableKind};

/// UTF-16 units of a GPT name.
const LONGEST_NAME: usize = 36;

/// Characters that FAT has no place for in a label.
const NOT_IN_FAT: &[char] = &['"', '*', '+', ',', '.', '/', ':', ';', '<', '=', '>', '?', '[', '\\', ']', '|'];

/// A partition with all that is said about it.
struct Checked<'a, 'c> {
    given: &'a ImagePartition,
    part: &'a Partition,
    index: usize,
    table: TableKind,
    cx: &'a CheckContext<'c>,
    out: &'a mut Diagnostics,
}

pub(super) fn check(given: &ImagePartition, index: usize, cx: &CheckContext<'_>, out: &mut Diagnostics) {
    let part = &given.partitions[index];
    let mut checked = Checked { given, part, index, table: given.partitiontype, cx, out };
    if part.name.trim().is_empty() {
        checked.error("name", "a partition needs a name", "mount points and `raw` call it by that");
    }
    checked.place();
    checked.table_entry();
    checked.verity(given);
    if let Some(kind) = checked.filesystem() {
        checked.label(kind);
        checked.uuid(kind);
        checked.options(kind);
    }
    if let Some(artifact) = &part.artifact {
        check_artifact_name(cx, &format!("partitions[{index}].artifact"), artifact, checked.out);
        if *artifact == given.imagename {
            checked.error("artifact", format!("`{artifact}` is the image itself"), "give the file another name");
        }
    }
}

impl Checked<'_, '_> {
    fn path(&self, property: &str) -> String {
        format!("partitions[{}].{property}", self.index)
    }

    fn error(&mut self, property: &str, message: impl Into<String>, hint: impl Into<String>) {
        let diagnostic = self.cx.error(&self.path(property), message).hint(hint);
        self.out.push(diagnostic);
    }

    /// A wrong word, with what may have been meant.
    fn unknown<'n>(&mut self, property: &str, message: String, said: &str, names: impl Iterator<Item = &'n str>) {
        let names: Vec<&str> = names.collect();
        let hint = match suggest(said, names.iter().copied()) {
            Some(close) => format!("did you mean `{close}`?"),
            None => format!("there are {}", names.join(", ")),
        };
        self.error(property, message, hint);
    }

    /// `size`, `start` and `end`.
    fn place(&mut self) {
        let part = self.part;
        match (&part.size, &part.end) {
            (None, None) => {
                let message = format!("nothing says how large partition `{}` is", part.name);
                self.error("name", message, "`size: 512 MiB`, for instance, or `size: rest`");
            }
            (Some(_), Some(_)) => {
                let message = format!("`size` and `end` both say how large partition `{}` is", part.name);
                self.error("end", message, "leave one of them out");
            }
            (Some(text), None) if !part.fills() => {
                let path = self.path("size");
                if let Some(bytes) = size(self.cx, &path, text, self.out) {
                    whole_sectors(self.cx, &path, text, bytes, self.out);
                }
            }
            _ => {}
        }
    }

    /// What the partition table says of it.
    fn table_entry(&mut self) {
        let part = self.part;
        let gpt = self.table == TableKind::Gpt;
        match &part.partlabel {
            Some(_) if !gpt => self.error("partlabel", "an msdos table has no names", "`partitiontype: gpt` has"),
            label if gpt => {
                let (property, text) = label.as_ref().map_or(("name", &part.name), |label| ("partlabel", label));
                let units = text.encode_utf16().count();
                if units > LONGEST_NAME {
                    let message = format!("`{text}` has {units} characters, a GPT name has {LONGEST_NAME} at most");
                    self.error(property, message, "give it a shorter `partlabel`");
                }
            }
            _ => {}
        }
        match &part.partuuid {
            Some(_) if !gpt => {
                let hint = "there it is made from `diskid` and the number";
                self.error("partuuid", "partitions of an msdos table have no UUIDs of their own", hint);
            }
            Some(text) if Uuid::parse_str(text).is_ok_and(|uuid| !uuid.is_nil()) => {}
            Some(text) => {
                let hint = "it is as in `0fc63daf-8483-4772-8e79-3d69d8477de4`";
                self.error("partuuid", format!("`{text}` is not a UUID"), hint);
            }
            None => {}
        }
        if !gpt && !part.partattrs.is_empty() {
            self.error("partattrs", "partitions of an msdos table have no attributes", "`partitiontype: gpt` has");
        } else {
            for (index, text) in part.partattrs.iter().enumerate() {
                if declare::attribute(text).is_none() {
                    let message = format!("`{text}` is not an attribute's bit");
                    self.error(&format!("partattrs[{index}]"), message, "the bits are 0 to 2, and 48 to 63");
                }
            }
        }
        for (index, flag) in part.flags.iter().enumerate() {
            if types::find_flag(flag, self.table).is_none() {
                let kind = if gpt { "a gpt" } else { "an msdos" };
                let message = format!("partitions of {kind} table have no flag `{flag}`");
                self.unknown(&format!("flags[{index}]"), message, flag, types::flags(self.table));
            }
        }
        self.partition_type();
    }

    fn partition_type(&mut self) {
        let Some(text) = &self.part.parttype else { return };
        if types::named(text, self.table, self.cx.architecture).is_some() {
            return;
        }
        let known = types::names().any(|name| name == text);
        match self.table {
            TableKind::Msdos if known => {
                let hint = "give two hex digits, as in `parttype: 83`";
                self.error("parttype", format!("an msdos table has no type for `{text}`"), hint);
            }
            TableKind::Gpt if known => {
                let message = format!("there is no type for `{text}` on {}", self.cx.architecture);
                self.error("parttype", message, "give a GUID");
            }
            table => match suggest(text, types::names()) {
                Some(close) => {
                    self.error(
                        "parttype",
                        format!("`{text}` is not a partition type"),
                        format!("did you mean `{close}`?"),
                    );
                }
                None => {
                    let hint = match table {
                        TableKind::Gpt => "a gpt table wants a GUID, or a name such as `root`, `home` or `esp`",
                        TableKind::Msdos => "an msdos table wants two hex digits, as in `0c`",
                    };
                    self.error("parttype", format!("`{text}` is not a partition type"), hint);
                }
            },
        }
    }

    fn verity(&mut self, given: &ImagePartition) {
        let Some(verity) = &self.part.verity else { return };
        if let Some(fs) = self.part.fs.as_deref().filter(|fs| *fs != "none") {
            let message = format!("`{}` holds hashes, no `{fs}` file system", self.part.name);
            self.error("fs", message, "leave `fs` out");
        }
        let names = || given.partitions.iter().map(|part| part.name.as_str());
        let data = given.partitions.iter().find(|part| part.name == verity.data);
        match data {
            None => {
                let message = format!("there is no partition `{}` to protect", verity.data);
                self.unknown("verity.data", message, &verity.data, names());
            }
            Some(data) if data.name == self.part.name || data.verity.is_some() => {
                let message = format!("`{}` holds hashes itself", data.name);
                self.error("verity.data", message, "name the partition with the file system");
            }
            Some(data) if data.fs.as_deref() == Some("none") || data.fs.as_deref() == Some("swap") => {
                let message = format!("`{}` has no file system to protect", data.name);
                self.error("verity.data", message, "a `raw` in it is checked by nobody");
            }
            Some(_) => {
                let theirs = |part: &&Partition| part.verity.as_ref().is_some_and(|other| other.data == verity.data);
                if let Some(other) = given.partitions[..self.index].iter().find(theirs) {
                    let message = format!("`{}` holds the hashes of `{}` already", other.name, verity.data);
                    self.error("verity.data", message, "one partition of hashes is enough");
                }
            }
        }
    }

    fn filesystem(&mut self) -> Option<FilesystemKind> {
        let part = self.part;
        let kind = declare::filesystem(part);
        match (&part.fs, kind) {
            (_, Some(kind)) => {
                let filled = self.given.mountpoints.iter().any(|mount| mount.partition == part.name);
                if kind.is_kernels() && filled && self.given.strategy != Strategy::Mounted {
                    let name = part.fs.as_deref().unwrap_or_default();
                    let message = format!("`{name}` cannot be filled without mounting it");
                    self.error("fs", message, "`strategy: mounted` on the image fills it through the kernel");
                }
                return Some(kind);
            }
            (None, None) => {
                let hint = "`fs: ext4`, for instance; `fs: none` for a partition that a `raw` fills";
                self.error("name", format!("partition `{}` needs `fs`", part.name), hint);
            }
            (Some(name), None) => {
                let names = FilesystemKind::NAMES.iter().map(|(name, _)| *name);
                self.unknown("fs", format!("there is no file system `{name}`"), name, names);
            }
        }
        None
    }

    fn label(&mut self, kind: FilesystemKind) {
        let part = self.part;
        let longest = kind.longest_label();
        if longest == 0 {
            if part.fslabel.is_some() {
                let what = part.fs.as_deref().unwrap_or("verity");
                let message = format!("`{what}` has no label");
                self.error("fslabel", message, "a gpt partition can be found by its `partlabel`");
            }
            return;
        }
        let (property, label) = part.fslabel.as_ref().map_or(("name", &part.name), |label| ("fslabel", label));
        let fs = part.fs.as_deref().unwrap_or_default();
        if label.len() > longest {
            let message = format!("the label `{label}` has {} bytes, {fs} takes {longest}", label.len());
            self.error(property, message, "give it a shorter `fslabel`");
        }
        if matches!(kind, Fat12 | Fat16 | Fat32)
            && let Some(wrong) =
                label.chars().find(|letter| !(' '..='~').contains(letter) || NOT_IN_FAT.contains(letter))
        {
            let message = format!("the label `{label}` has `{}`, which FAT cannot", wrong.escape_default());
            self.error(property, message, "give it another `fslabel`");
        }
    }

    fn uuid(&mut self, kind: FilesystemKind) {
        let Some(text) = &self.part.fsuuid else { return };
        let (right, hint) = match kind {
            Fat12 | Fat16 | Fat32 => (declare::fat_serial(text).is_some(), "FAT has 8 hex digits, as in `DEAD-BEEF`"),
            Ext2 | Ext3 | Ext4 | Btrfs | Xfs | F2fs | Erofs | Swap => (
                Uuid::parse_str(text).is_ok_and(|uuid| !uuid.is_nil()),
                "it is as in `0fc63daf-8483-4772-8e79-3d69d8477de4`",
            ),
            FilesystemKind::None | Squashfs | FilesystemKind::Verity | Exfat | Hfs | Hfsplus | Hfsx | Nilfs2 | Ntfs => {
                let what = self.part.fs.as_deref().unwrap_or("verity");
                let message = match kind.is_kernels() {
                    true => format!("the UUID of `{what}` cannot be chosen"),
                    false => format!("`{what}` has no UUID"),
                };
                self.error("fsuuid", message, "a gpt partition can be found by its `partuuid`");
                return;
            }
        };
        if !right {
            let fs = self.part.fs.as_deref().unwrap_or_default();
            self.error("fsuuid", format!("`{text}` is not a UUID of {fs}"), hint);
        }
    }

    /// Properties that only some file systems have.
    fn options(&mut self, kind: FilesystemKind) {
        let part = self.part;
        let fs = part.fs.as_deref().unwrap_or("verity");
        let ext = matches!(kind, Ext2 | Ext3 | Ext4);
        if !(part.features.is_empty() || ext || matches!(kind, Btrfs | F2fs)) {
            let hint = match kind {
                Xfs => "give mkfs.xfs its own by `mkfs-options: [-m, reflink=0]`",
                Erofs | Fat12 | Fat16 | Fat32 | Squashfs => "what its mkfs takes goes into `mkfs-options`",
                _ => "leave them out",
            };
            self.error("features", format!("`{fs}` has no features to choose"), hint);
        }
        if !part.extendedoptions.is_empty() && !ext {
            let message = format!("only ext2, ext3 and ext4 have extended options, not `{fs}`");
            self.error("extendedoptions", message, "what its mkfs takes goes into `mkfs-options`");
        }
        if !part.mkfs_options.is_empty() && matches!(kind, FilesystemKind::None | FilesystemKind::Verity) {
            self.error("mkfs-options", "there is no file system to make", "leave them out, or give it an `fs`");
        }
        if let Some(compression) = &part.compression {
            self.compression(kind, fs, compression);
        }
        if !part.subvolumes.is_empty() && kind != Btrfs {
            self.error("subvolumes", format!("`{fs}` has no subvolumes"), "btrfs has");
        }
        for (index, name) in part.subvolumes.iter().enumerate() {
            let property = format!("subvolumes[{index}]");
            let path = name.trim_matches('/');
            if path.is_empty() || path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
                self.error(&property, format!("`{name}` is not the name of a subvolume"), "it is as in `@home`");
            } else if part.subvolumes[..index].contains(name) {
                self.error(&property, format!("the subvolume `{name}` is there twice"), "leave one out");
            }
        }
    }

    fn compression(&mut self, kind: FilesystemKind, fs: &str, said: &str) {
        let algorithms = kind.compressions();
        if algorithms.is_empty() {
            let message = format!("`{fs}` cannot compress");
            return self.error("compression", message, "btrfs, erofs, squashfs and f2fs can");
        }
        let (name, level) = said.split_once([':', ',']).map_or((said, None), |(name, level)| (name, Some(level)));
        if !algorithms.contains(&name) {
            let message = format!("{fs} has no compression `{name}`");
            return self.unknown("compression", message, name, algorithms.iter().copied());
        }
        if let Some(level) = level
            && level.parse::<u32>().is_err()
        {
            let message = format!("`{level}` is not a level of {name}");
            self.error("compression", message, format!("it is as in `{name}:3`"));
        }
    }
}

/// Reports names that two partitions share.
pub(super) fn check_unique(given: &ImagePartition, cx: &CheckContext<'_>, out: &mut Diagnostics) {
    let mut artifacts: Vec<&str> = Vec::new();
    for (index, part) in given.partitions.iter().enumerate() {
        let before = &given.partitions[..index];
        let path = |property: &str| format!("partitions[{index}].{property}");
        if !part.name.is_empty() && before.iter().any(|other| other.name == part.name) {
            let diagnostic = cx.error(&path("name"), format!("there is already a partition `{}`", part.name));
            out.push(diagnostic.hint("names are unique in an image"));
        }
        let same = |value: fn(&Partition) -> Option<String>| {
            value(part).and_then(|own| before.iter().find(|other| value(other).as_deref() == Some(own.as_str())))
        };
        for (property, value) in [
            (
                "partuuid",
                (|part| part.partuuid.as_deref().map(str::to_ascii_lowercase)) as fn(&Partition) -> Option<String>,
            ),
            ("fsuuid", |part| part.fsuuid.as_deref().map(|uuid| uuid.to_ascii_lowercase().replace('-', ""))),
        ] {
            if let Some(other) = same(value) {
                let message = format!("`{}` and `{}` have the same `{property}`", other.name, part.name);
                out.push(cx.error(&path(property), message).hint("nobody can tell them apart by it"));
            }
        }
        for (property, value) in [
            ("partlabel", (|part| part.partlabel.clone()) as fn(&Partition) -> Option<String>),
            ("fslabel", |part| part.fslabel.clone()),
        ] {
            if let Some(other) = same(value) {
                let message = format!("`{}` and `{}` have the same `{property}`", other.name, part.name);
                out.push(cx.warning(&path(property), message).hint("what is found by it may be either"));
            }
        }
        if let Some(artifact) = &part.artifact {
            if artifacts.contains(&artifact.as_str()) {
                out.push(cx.error(&path("artifact"), format!("two partitions are to be `{artifact}`")));
            }
            artifacts.push(artifact);
        }
    }
}
