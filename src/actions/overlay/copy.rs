//! Copying a tree into the root.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::stat::SFlag;

use super::inherited::Inherited;
use super::mode::FileMode;
use crate::build::inside::{Attributes, Inside, Kind, Slot, xattrs};
use crate::build::{BuildContext, RenderFile, interrupted};
use crate::diagnostics::{Fault, FaultKind};

/// Copies files of the host to places in the root.
pub(super) struct Copier<'a> {
    inside: &'a Inside,
    renderer: RenderFile,
    variables: &'a BTreeMap<String, String>,
    /// Who gets the copies; as they are where `None`.
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mode: Option<FileMode>,
    pub(super) render: bool,
    /// Files and links copied so far.
    pub(super) files: u64,
    /// Where the files are on the host, and what the recipe calls that.
    top: (PathBuf, String),
    /// What the directory that the files stand in gave them.
    pub(super) inherited: Inherited,
    /// Where the first name of a file with several went.
    first_names: HashMap<(u64, u64), PathBuf>,
}

/// The text of a file that is a template.
pub(super) fn read_text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    String::from_utf8(bytes).map_err(|_| {
        Fault::recipe(format!("{} is not text in UTF-8, and `render` is for templates", path.display())).into()
    })
}

impl<'a> Copier<'a> {
    pub(super) fn new(cx: &BuildContext<'a>, inside: &'a Inside) -> Self {
        Self {
            inside,
            renderer: cx.render,
            variables: cx.variables,
            owner: None,
            mode: None,
            render: false,
            files: 0,
            top: (PathBuf::new(), String::new()),
            inherited: Inherited::default(),
            first_names: HashMap::new(),
        }
    }

    /// Sets what the recipe calls the files at `top`.
    pub(super) fn shown(&mut self, top: &Path, source: &str, origin: &str) {
        let source = if source.is_empty() { ".".to_owned() } else { source.to_owned() };
        let shown = if origin == "recipe" { source } else { format!("{source} of {origin}") };
        self.top = (top.to_owned(), shown);
    }

    /// A file as the recipe's author knows it.
    fn name(&self, from: &Path) -> String {
        match from.strip_prefix(&self.top.0) {
            Ok(below) if below.as_os_str().is_empty() => self.top.1.clone(),
            Ok(below) => format!("{}/{}", self.top.1, below.display()),
            Err(_) => from.display().to_string(),
        }
    }

    /// Copies what is in a directory into one that is there.
    pub(super) fn directory(&mut self, from: &Path, to: &Path) -> Result<()> {
        // Everything is looked at first: the copies may land in the very same directory.
        let mut found: Vec<(OsString, Metadata)> = Vec::new();
        let doing = || format!("reading the directory {}", self.name(from));
        for child in fs::read_dir(from).with_context(doing)? {
            let child = child.with_context(doing)?;
            found.push((child.file_name(), child.metadata().with_context(doing)?));
        }
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (name, meta) in found {
            self.entry(&from.join(&name), &meta, &to.join(&name))?;
        }
        Ok(())
    }

    /// Copies one file to a place, a link at the end of `from` followed.
    pub(super) fn file_itself(&mut self, from: &Path, to: &Path) -> Result<()> {
        let meta = fs::metadata(from).with_context(|| format!("looking at {}", self.name(from)))?;
        self.entry(from, &meta, to)
    }

    fn entry(&mut self, from: &Path, meta: &Metadata, to: &Path) -> Result<()> {
        if interrupted() {
            return Err(Fault::new(FaultKind::Interrupted, "interrupted").into());
        }
        let slot = self.inside.slot(to)?;
        let kind = meta.file_type();
        if kind.is_dir() {
            self.make_directory(&slot, from, meta, to)?;
            return self.directory(from, to);
        }
        // A socket is nothing without the process that listens.
        if kind.is_socket() {
            return Ok(());
        }
        if slot.kind()? == Some(Kind::Directory) {
            return Err(Fault::failed(format!(
                "{} is a directory in the root; a file does not replace it",
                to.display()
            ))
            .hint("remove the directory by a `run` before, or rename the file")
            .into());
        }
        self.files += 1;
        if meta.nlink() > 1 {
            let first = self.first_names.entry((meta.dev(), meta.ino())).or_insert_with(|| to.to_owned());
            if first != to {
                return slot.create_hard_link(&self.inside.slot(first)?);
            }
        }
        if kind.is_symlink() {
            let target = fs::read_link(from).with_context(|| format!("reading the link {}", self.name(from)))?;
            slot.create_link(target.as_os_str())?;
        } else if kind.is_file() {
            self.contents(&slot, from)?;
        } else {
            let node = if kind.is_fifo() {
                SFlag::S_IFIFO
            } else if kind.is_char_device() {
                SFlag::S_IFCHR
            } else {
                SFlag::S_IFBLK
            };
            slot.create_node(node, meta.rdev())?;
        }
        let mode = self.inherited.mode_of(from, meta)?;
        let mode = if kind.is_file() { self.mode.as_ref().map_or(mode, |change| change.apply(mode)) } else { mode };
        slot.apply(&self.attributes(from, meta, mode)?)
    }

    fn make_directory(&self, slot: &Slot, from: &Path, meta: &Metadata, to: &Path) -> Result<()> {
        match slot.kind()? {
            Some(Kind::Directory) => Ok(()),
            Some(Kind::Link) if self.inside.kind(to)? == Some(Kind::Directory) => Ok(()),
            Some(other) => {
                Err(Fault::failed(format!("{} is {other} in the root; a directory does not replace it", to.display()))
                    .hint("remove it by a `run` before, or rename the directory")
                    .into())
            }
            None => {
                slot.create_dir()?;
                slot.apply(&self.attributes(from, meta, self.inherited.mode_of(from, meta)?)?)
            }
        }
    }

    fn contents(&self, slot: &Slot, from: &Path) -> Result<()> {
        let doing = || format!("copying {} to {}", self.name(from), slot.shown().display());
        if self.render {
            let name = from.file_name().unwrap_or_default().to_string_lossy();
            let text = (self.renderer)(&name, &read_text(from)?, self.variables)?;
            return io::Write::write_all(&mut slot.create_file()?, text.as_bytes()).with_context(doing);
        }
        let mut source = File::open(from).with_context(doing)?;
        let mut target = slot.create_file()?;
        io::copy(&mut source, &mut target).with_context(doing)?;
        Ok(())
    }

    fn attributes(&self, from: &Path, meta: &Metadata, mode: u32) -> Result<Attributes> {
        let (uid, gid) = self.owner.unwrap_or((meta.uid(), meta.gid()));
        let all = xattrs(from).with_context(|| format!("reading attributes of {}", self.name(from)))?;
        let xattrs = all.into_iter().filter(|(name, _)| travels(name) && !self.inherited.gave(name)).collect();
        Ok(Attributes { uid, gid, mode, modified: None, xattrs })
    }
}

/// Whether an attribute belongs to the file and not to the host's security modules.
fn travels(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_") || name == b"security.capability"
}
