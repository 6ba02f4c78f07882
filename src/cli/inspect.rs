//! `debforge inspect`: what is in an artifact.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use super::StoreArgs;
use super::columns::{Columns, exact};
use super::output::print;
use crate::build::archive::Compression;
use crate::image::TableKind;
use crate::image::table::Entry;
use crate::inspect::artifact::CommitFacts;
use crate::inspect::filesystem::FileSystem;
use crate::inspect::image::Image;
use crate::inspect::loaders::{self, Loader};
use crate::inspect::system::System;
use crate::inspect::{Artifact, Form, Format, Volume, table};
use crate::report;

/// Show what is in an image or archive: partitions, file systems, boot loaders, kernels, packages
///
/// It takes disks (raw, qcow2, vmdk, vdi, vhdx), ISO images, single file systems, tar archives and OCI
/// images (archives and layout directories), also compressed ones (zst, xz, gz, …), and needs no
/// privileges: nothing is mounted.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Image or archive.
    artifact: PathBuf,

    /// List the installed packages.
    #[arg(long)]
    packages: bool,

    /// Print JSON.
    #[arg(long, conflicts_with = "packages")]
    json: bool,

    #[command(flatten)]
    store: StoreArgs,
}

/// All that is found, as `--json` prints it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Findings {
    file: PathBuf,
    form: Form,
    format: Format,
    #[serde(skip_serializing_if = "Option::is_none")]
    compression: Option<&'static str>,
    /// Bytes of the disk, file system or archive.
    size: u64,
    /// Bytes that the file takes on the disk.
    allocated: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<TableFindings>,
    volumes: Vec<VolumeFindings>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    images: Vec<Image>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    commit: Vec<(String, String)>,
    boot_loaders: Vec<Loader>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<System>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct TableFindings {
    kind: TableKind,
    disk_id: String,
    sector_size: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct VolumeFindings {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<PartitionFindings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_system: Option<FileSystem>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mounted_at: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unread: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct PartitionFindings {
    #[serde(flatten)]
    entry: Entry,
    type_name: String,
    flags: Vec<String>,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<u8> {
    crate::machine::interruptible()?;
    let workplace = super::workplace(&args.store);
    let artifact = Artifact::open(&args.artifact, &workplace)?;
    let findings = Findings::of(&artifact)?;
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&findings)?))?;
    } else {
        print(&findings.text(args.packages))?;
    }
    Ok(0)
}

impl Findings {
    fn of(artifact: &Artifact) -> Result<Self> {
        let source = &artifact.source;
        let system = match artifact.system() {
            Some(tree) => Some(System::of(&tree)?).filter(|system| !system.is_empty()),
            None => None,
        };
        let compression = source.compression;
        Ok(Self {
            file: source.path.clone(),
            form: artifact.form,
            format: source.format,
            compression: (compression != Compression::None).then(|| compression.name()),
            size: match &artifact.commit {
                Some(commit) => commit.size(),
                None if artifact.images.is_empty() => source.bytes.len(),
                None => artifact.images.iter().map(Image::size).sum(),
            },
            allocated: match &artifact.commit {
                Some(commit) => commit.size(),
                None if source.path.is_dir() => artifact.images.iter().map(Image::size).sum(),
                None => source.path.metadata()?.blocks() * 512,
            },
            table: artifact.table.as_ref().map(|table| TableFindings {
                kind: table.kind,
                disk_id: table.disk_id.clone(),
                sector_size: table.sector_size,
            }),
            volumes: artifact.volumes.iter().map(VolumeFindings::of).collect(),
            images: artifact.images.clone(),
            commit: artifact.commit.as_ref().map(CommitFacts::named).unwrap_or_default(),
            boot_loaders: loaders::find(artifact)?,
            system,
        })
    }

    fn text(&self, packages: bool) -> String {
        let mut text = format!("{}\n", self.headline());
        let mut part = |body: String| {
            if !body.is_empty() {
                text.push('\n');
                text.push_str(&body);
            }
        };
        part(self.images());
        part(self.commit());
        part(self.partitions());
        part(self.file_systems());
        part(self.facts());
        if packages && let Some(system) = &self.system {
            let mut list = Columns::new(&["", "", ""]);
            for package in &system.packages {
                list.row([package.name.clone(), package.version.clone(), package.architecture.clone()]);
            }
            part(list.print(""));
        }
        text
    }

    /// "disk.img · gpt disk · raw · 1.0 GB, 210 MB allocated"
    fn headline(&self) -> String {
        let name = self.file.file_name().unwrap_or(self.file.as_os_str()).to_string_lossy();
        let table = self.table.as_ref().map(|table| kind_name(table.kind));
        let form = match (self.form, table) {
            (Form::Disk, Some(table)) => format!("{table} disk"),
            (Form::Disk, None) => "disk without a partition table".into(),
            (Form::Iso, Some(table)) => format!("ISO image, {table} disk"),
            (Form::Iso, None) => "ISO image".into(),
            (Form::FileSystem, _) => "file system".into(),
            (Form::Archive, _) => "tar archive".into(),
            (Form::Image, _) => "OCI image".into(),
            (Form::Commit, _) => "OSTree commit".into(),
        };
        let mut parts = vec![console::style(name).bold().to_string(), form];
        if !matches!(self.form, Form::Archive | Form::Image | Form::Commit) && self.format != Format::Raw {
            parts.push(self.format.qemu().to_owned());
        }
        parts.extend(self.compression.map(str::to_owned));
        let size = report::bytes(self.size);
        let allocated = report::bytes(self.allocated);
        parts.push(if size == allocated { size } else { format!("{size}, {allocated} on this disk") });
        parts.join(" · ")
    }

    /// The OCI images: what they are, and what they say of themselves.
    fn images(&self) -> String {
        let mut text = String::new();
        for image in &self.images {
            let mut columns = Columns::new(&["", ""]);
            columns.row(["image".to_owned(), format!("{}  {}", image.platform, image.digest)]);
            if !image.tags.is_empty() {
                columns.row(["tag".to_owned(), image.tags.join(", ")]);
            }
            let size = report::bytes(image.size());
            columns.row(["layers".to_owned(), format!("{}, {size}", image.layers.len())]);
            for (name, value) in &image.configuration {
                columns.row([name.clone(), value.clone()]);
            }
            if !image.referrers.is_empty() {
                columns.row(["referrers".to_owned(), image.referrers.join(", ")]);
            }
            text.push_str(&columns.print(""));
        }
        text
    }

    /// What an OSTree commit says of itself.
    fn commit(&self) -> String {
        let mut columns = Columns::new(&["", ""]);
        for (name, value) in self.commit.iter().filter(|(_, value)| !value.is_empty()) {
            columns.row([name.clone(), value.clone()]);
        }
        columns.print("")
    }

    fn partitions(&self) -> String {
        let Some(table) = &self.table else { return String::new() };
        let mut columns = Columns::new(&[">#", ">first sector", ">size", "type", "label", "uuid", "flags"]);
        for partition in self.volumes.iter().filter_map(|volume| volume.partition.as_ref()) {
            let entry = &partition.entry;
            columns.row([
                entry.number.to_string(),
                (entry.start / u64::from(table.sector_size)).to_string(),
                exact(entry.length),
                partition.type_name.clone(),
                entry.label.clone(),
                entry.uuid.clone(),
                partition.flags.join(" "),
            ]);
        }
        let sectors = if table.sector_size == 512 { "" } else { ", sectors of 4096 bytes" };
        format!("{}  {}{sectors}\n{}", kind_name(table.kind), table.disk_id, columns.print(""))
    }

    fn file_systems(&self) -> String {
        let mut columns = Columns::new(&["#", "file system", "label", "uuid", ">size", ">used", "mounted at"]);
        let mut notes = String::new();
        for volume in &self.volumes {
            let Some(found) = &volume.file_system else { continue };
            columns.row([
                volume.name.clone(),
                match &found.variant {
                    Some(variant) => format!("{} ({variant})", found.kind),
                    None => found.kind.to_owned(),
                },
                found.label.clone(),
                found.uuid.clone(),
                if found.size.is_multiple_of(1 << 20) { exact(found.size) } else { report::bytes(found.size) },
                found.used.map(report::bytes).unwrap_or_default(),
                volume.mounted_at.as_ref().map(|place| place.display().to_string()).unwrap_or_default(),
            ]);
            if let Some(why) = &volume.unread {
                let of = if volume.name.is_empty() { String::new() } else { format!("{}: ", volume.name) };
                notes.push_str(&format!("{}\n", report::note(&format!("{of}{why}"))));
            }
        }
        columns.print("") + &notes
    }

    fn facts(&self) -> String {
        let mut columns = Columns::new(&["", "", ""]);
        let mut label = "boot";
        for loader in &self.boot_loaders {
            columns.row([std::mem::take(&mut label).to_owned(), loader.name.clone(), loader.place.clone()]);
        }
        let Some(system) = &self.system else { return columns.print("") };
        label = "kernels";
        for kernel in &system.kernels {
            let missing = [("no kernel", kernel.image), ("no initrd", kernel.initrd), ("no modules", kernel.modules)];
            let missing: Vec<&str> = missing.iter().filter(|(_, there)| !there).map(|(name, _)| *name).collect();
            columns.row([std::mem::take(&mut label).to_owned(), kernel.version.clone(), missing.join(", ")]);
        }
        let name = match (system.name.as_str(), &system.architecture) {
            ("", Some(architecture)) => architecture.clone(),
            (name, Some(architecture)) => format!("{name}, {architecture}"),
            (name, None) => name.to_owned(),
        };
        if !name.is_empty() {
            columns.row(["system".to_owned(), name]);
        }
        if !system.packages.is_empty() {
            let size = report::bytes(system.installed_size);
            columns.row(["packages".to_owned(), format!("{}, {size}", system.packages.len())]);
        }
        columns.print("")
    }
}

impl VolumeFindings {
    fn of(volume: &Volume) -> Self {
        Self {
            name: volume.name.clone(),
            partition: volume.partition.as_ref().map(|entry| PartitionFindings {
                entry: entry.clone(),
                type_name: table::type_name(&entry.kind).to_owned(),
                flags: table::flags(entry),
            }),
            file_system: volume.filesystem.clone(),
            mounted_at: volume.mount.clone(),
            unread: volume.unread.clone(),
        }
    }
}

/// As sfdisk and parted call it.
pub(super) fn kind_name(kind: TableKind) -> &'static str {
    match kind {
        TableKind::Gpt => "gpt",
        TableKind::Msdos => "msdos",
    }
}
