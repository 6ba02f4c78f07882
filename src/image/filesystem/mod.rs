//! File systems made and filled from a tree without being mounted: a file per mkfs.

mod btrfs;
mod btrfs_nodes;
mod compression;
mod erofs;
mod ext;
mod ext_amend;
mod ext_inodes;
mod f2fs;
mod fat;
mod kernels;
mod squashfs;
mod swap;
mod verity;
mod walk;
mod xfs;
mod xfs_inodes;

pub use compression::compressions;
pub use fat::{fat_for, smallest_fat32};
pub use verity::{verity, verity_length};

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use self::walk::Entry;
use super::{Contents, FilesystemKind, Tool, Tools, sparse};
use crate::diagnostics::{Fault, FaultKind, fault_of};
use crate::sandbox::Uniform;
use crate::sys::label::labels_files;

/// What a file system is filled with.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// Its top directory; `None` leaves the file system empty.
    pub top: Option<PathBuf>,
    /// Directories in it, relative to the top, whose contents lie on other file systems. They
    /// themselves are in the tree.
    pub hidden: Vec<PathBuf>,
    /// Files with other contents than the tree's: (relative path, file to read instead).
    pub replaced: Vec<(PathBuf, PathBuf)>,
    /// Files that chattr(1) protects (relative path, letters), which is not on the files of the tree.
    pub protected: BTreeMap<PathBuf, String>,
    /// Subvolumes and where their contents lie in the tree, relative to the top (btrfs).
    pub subvolumes: Vec<(String, PathBuf)>,
}

/// A file system to be made.
pub struct Request<'a> {
    /// What it is called in messages: the partition's name.
    pub name: &'a str,
    /// What it is.
    pub contents: &'a Contents,
    /// What is in it.
    pub tree: &'a Tree,
    /// The image, of its full size, zeros where the file system goes.
    pub image: &'a Path,
    /// Where in the image, in bytes.
    pub offset: u64,
    /// In bytes.
    pub length: u64,
    /// Bytes of a sector of the disk.
    pub sector_size: u32,
    /// Date of what has no date of its own, seconds since 1970; nothing in it is younger.
    pub epoch: i64,
    /// An empty directory on a real file system.
    pub scratch: &'a Path,
    /// Runs programs.
    pub tools: &'a dyn Tools,
}

/// Makes a file system and fills it. The same request gives the same bytes.
///
/// A fault says when the tree does not fit, how much it wants and how much there is.
pub fn make(request: &Request<'_>) -> Result<()> {
    use FilesystemKind::{Ext2, Ext3, Ext4};
    if let Some((path, letters)) = request.tree.protected.first_key_value()
        && !matches!(request.contents.kind, Ext2 | Ext3 | Ext4)
    {
        return Err(request
            .fault(format!(
                "/{} is protected (`chattr +{letters}`), which only ext2, ext3 and ext4 are told",
                path.display()
            ))
            .hint("`strategy: mounted` of `image-partition` tells xfs, btrfs and f2fs, too")
            .hint("systemd-tmpfiles does it at each start: a line with the type `h` in a file in /etc/tmpfiles.d")
            .into());
    }
    let made = match request.contents.kind {
        FilesystemKind::None | FilesystemKind::Verity => Ok(()),
        FilesystemKind::Ext2 | FilesystemKind::Ext3 | FilesystemKind::Ext4 => ext::make(request),
        FilesystemKind::Fat12 | FilesystemKind::Fat16 | FilesystemKind::Fat32 => fat::make(request),
        FilesystemKind::Btrfs => btrfs::make(request),
        FilesystemKind::Xfs => xfs::make(request),
        FilesystemKind::F2fs => f2fs::make(request),
        FilesystemKind::Erofs => erofs::make(request),
        FilesystemKind::Squashfs => squashfs::make(request),
        FilesystemKind::Swap => swap::make(request),
        FilesystemKind::Exfat
        | FilesystemKind::Hfs
        | FilesystemKind::Hfsplus
        | FilesystemKind::Hfsx
        | FilesystemKind::Nilfs2
        | FilesystemKind::Ntfs => kernels::make(request),
    };
    // A fault says itself what was being done.
    made.map_err(|error| if error.is::<Fault>() { error } else { error.context(request.doing()) })
}

/// Bytes that the file system wants at least for its tree, without free space. The request's image,
/// offset and length are not looked at.
pub fn minimum(request: &Request<'_>) -> Result<u64> {
    match request.contents.kind {
        FilesystemKind::None | FilesystemKind::Verity => Ok(0),
        FilesystemKind::Ext2 | FilesystemKind::Ext3 | FilesystemKind::Ext4 => ext::minimum(request),
        FilesystemKind::Fat12 | FilesystemKind::Fat16 | FilesystemKind::Fat32 => fat::minimum(request),
        FilesystemKind::Btrfs => btrfs::minimum(request),
        FilesystemKind::Xfs => xfs::minimum(request),
        FilesystemKind::F2fs => f2fs::minimum(request),
        FilesystemKind::Erofs => erofs::minimum(request),
        FilesystemKind::Squashfs => squashfs::minimum(request),
        FilesystemKind::Swap => Ok(swap::SMALLEST),
        FilesystemKind::Exfat
        | FilesystemKind::Hfs
        | FilesystemKind::Hfsplus
        | FilesystemKind::Hfsx
        | FilesystemKind::Nilfs2
        | FilesystemKind::Ntfs => kernels::minimum(request),
    }
}

/// Files of a tree that are swap space, relative to its top.
pub fn swap_files(tree: &Tree) -> Result<Vec<PathBuf>> {
    let entries = walk::entries(tree)?;
    Ok(walk::swap_files(&entries)?.into_iter().map(|entry| entry.path.clone()).collect())
}

/// The host's programs (name, Debian package) that make and fill such a file system.
pub fn programs(kind: FilesystemKind) -> &'static [(&'static str, &'static str)] {
    match kind {
        FilesystemKind::None => &[],
        FilesystemKind::Ext2 | FilesystemKind::Ext3 | FilesystemKind::Ext4 => {
            &[("mke2fs", "e2fsprogs"), ("debugfs", "e2fsprogs")]
        }
        FilesystemKind::Fat12 | FilesystemKind::Fat16 | FilesystemKind::Fat32 => &[("mkfs.vfat", "dosfstools")],
        FilesystemKind::Btrfs => &[("mkfs.btrfs", "btrfs-progs")],
        FilesystemKind::Xfs => &[("mkfs.xfs", "xfsprogs")],
        FilesystemKind::F2fs => &[("mkfs.f2fs", "f2fs-tools"), ("sload.f2fs", "f2fs-tools")],
        FilesystemKind::Erofs => &[("mkfs.erofs", "erofs-utils")],
        FilesystemKind::Squashfs => &[("mksquashfs", "squashfs-tools")],
        FilesystemKind::Swap => &[("mkswap", "util-linux")],
        FilesystemKind::Exfat => &[("mkfs.exfat", "exfatprogs")],
        FilesystemKind::Hfs => &[("mkfs.hfs", "hfsprogs")],
        FilesystemKind::Hfsplus | FilesystemKind::Hfsx => &[("mkfs.hfsplus", "hfsprogs")],
        FilesystemKind::Nilfs2 => &[("mkfs.nilfs2", "nilfs-tools")],
        FilesystemKind::Ntfs => &[("mkfs.ntfs", "ntfs-3g")],
        FilesystemKind::Verity => &[("veritysetup", "cryptsetup-bin")],
    }
}

impl Request<'_> {
    /// What every message about it begins with.
    fn doing(&self) -> String {
        format!("making the file system `{}`", self.name)
    }

    /// A program that sees the tree as the file system is to hold it.
    fn tool(&self, argv: Vec<String>) -> Tool {
        let inside = |path: &PathBuf| self.tree.top.as_deref().unwrap_or(Path::new("/")).join(path);
        let mut tool = Tool::new(argv);
        if self.tree.top.is_some() {
            tool.hidden = self.tree.hidden.iter().map(inside).collect();
            tool.replaced = self.tree.replaced.iter().map(|(seen, real)| (inside(seen), real.clone())).collect();
        }
        tool
    }

    /// The same for one that takes more from the host than what is in the tree.
    fn uniform_tool(&self, argv: Vec<String>) -> Tool {
        let uniform =
            self.tree.top.clone().map(|top| Uniform { top, attributes_only: false, labelled: labels_files() });
        Tool { uniform, ..self.tool(argv) }
    }

    /// The same for one that takes the order of a file's attributes from the host, and nothing else.
    fn attributes_tool(&self, argv: Vec<String>, entries: &[Entry]) -> Result<Tool> {
        let tool = self.tool(argv);
        if !walk::has_several_attributes(entries)? {
            return Ok(tool);
        }
        let uniform = self.tree.top.clone().map(|top| Uniform { top, attributes_only: true, labelled: labels_files() });
        Ok(Tool { uniform, ..tool })
    }

    /// Runs a program on the tree.
    fn run(&self, tool: &Tool) -> Result<String> {
        self.tools.run(tool, &self.doing())
    }

    /// What a program says of its options.
    fn help(&self, program: &str) -> Result<String> {
        let asked = Tool::new(["sh", "-c", &format!("{program} --help 2>&1 || true")]);
        self.tools.run(&asked, &format!("asking {program} for its options"))
    }

    /// The tree's top, or an empty directory where there is no tree.
    fn top(&self) -> Result<PathBuf> {
        if let Some(top) = &self.tree.top {
            return Ok(top.clone());
        }
        let path = self.scratch.join("empty");
        let made = || -> std::io::Result<()> {
            std::fs::create_dir_all(&path)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
            filetime::set_file_mtime(&path, filetime::FileTime::from_unix_time(self.epoch, 0))
        };
        made().with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }

    /// The image, to be written.
    fn open_image(&self) -> Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.image)
            .with_context(|| format!("opening {}", self.image.display()))
    }

    /// A sparse file of the partition's size in the scratch directory, for programs that cannot write
    /// in the middle of an image.
    fn scratch_file(&self) -> Result<PathBuf> {
        let path = self.scratch.join("file-system");
        let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
        file.set_len(self.length).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }

    /// Puts a file of the scratch directory into its place and removes it.
    fn take(&self, path: &Path) -> Result<()> {
        let doing = || format!("copying it into {}", self.image.display());
        let from = File::open(path).with_context(doing)?;
        let length = from.metadata().with_context(doing)?.len();
        if length > self.length {
            return Err(self.too_small(length).into());
        }
        sparse::copy_into(&from, &self.open_image()?, self.offset, length).with_context(doing)?;
        std::fs::remove_file(path).with_context(doing)
    }

    /// What cannot be done, and why.
    fn fault(&self, why: impl std::fmt::Display) -> Fault {
        Fault::failed(format!("{}: {why}", self.doing()))
    }

    /// A failure of the program that makes it, which may be that the tree does not fit: what the program said of it
    /// stays to be read.
    fn perhaps_too_small(&self, needed: u64, error: anyhow::Error) -> anyhow::Error {
        let said = fault_of(&error);
        if needed <= self.length || said.kind == FaultKind::Interrupted {
            return error;
        }
        Fault { replay: said.replay, ..self.too_small(needed).tail(said.tail) }.into()
    }

    /// The tree does not fit.
    fn too_small(&self, needed: u64) -> Fault {
        let label = self.name;
        self.fault(format!(
            "the contents need {}, the partition has {}",
            shown(needed, self.length),
            shown(self.length, needed)
        ))
        .hint(format!("make `{label}` larger, or as large as its contents: `imagesize: auto` of an image with partitions, `size: auto` of one without"))
    }
}

/// A size for people, in units of 1000 as disks are labelled, as exact as it takes to tell it from
/// `other`.
fn shown(bytes: u64, other: u64) -> String {
    let (unit, divisor) = match bytes.max(other) {
        0..10_000 => return format!("{bytes} B"),
        10_000..10_000_000 => ("kB", 1e3),
        10_000_000..10_000_000_000 => ("MB", 1e6),
        _ => ("GB", 1e9),
    };
    let digits = (0..3).find(|digits| {
        let [a, b] = [bytes, other].map(|size| format!("{:.digits$}", size as f64 / divisor));
        a != b
    });
    format!("{:.*} {unit}", digits.unwrap_or(3), bytes as f64 / divisor)
}
