//! The root filesystem of a build as it grows, step by step.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};

use crate::build::image::{Disk, MountedImage};
use crate::store::{Begun, Checkpoints, EntryId, IdMap, MountedRoot, PendingTree, Store, Tree, TreeRecord};

/// The sealed layers so far and how the next one is made.
pub(super) struct Root<'a> {
    store: &'a Store,
    map: &'a IdMap,
    checkpoints: Checkpoints,
    /// Bottom first. With [`Checkpoints::Reflink`] only the last one is of interest.
    layers: Vec<Tree>,
    /// Where a root is mounted, or stands where nothing can be mounted.
    at: PathBuf,
}

/// A root that a step works on.
pub(super) enum Workspace {
    /// The layers below the step's own.
    Overlay(MountedRoot, PendingTree),
    /// A tree of its own: the first layer, or a copy of the one before.
    Plain(PendingTree),
    /// The one directory that all steps work on.
    Shared(PathBuf),
    /// Not to be changed.
    Viewed(MountedRoot),
    /// The file systems of an image.
    Mounted(MountedImage),
}

impl Workspace {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Overlay(mounted, _) | Self::Viewed(mounted) => &mounted.path,
            Self::Plain(pending) => &pending.path,
            Self::Shared(path) => path,
            Self::Mounted(image) => &image.path,
        }
    }

    /// The image as a device, where it is mounted.
    pub(super) fn disk(&self) -> Option<&Disk> {
        match self {
            Self::Mounted(image) => Some(&image.disk),
            _ => None,
        }
    }

    /// The directories that hold what the step writes; none for a root that is only looked at.
    pub(super) fn written(&self) -> Vec<&Path> {
        match self {
            Self::Overlay(_, pending) | Self::Plain(pending) => vec![&pending.path],
            Self::Shared(path) => vec![path],
            Self::Viewed(_) => Vec::new(),
            Self::Mounted(image) => image.places().collect(),
        }
    }
}

impl<'a> Root<'a> {
    /// An empty root; `scratch` is the build's own directory.
    pub(super) fn new(store: &'a Store, map: &'a IdMap, checkpoints: Checkpoints, scratch: &Path) -> Result<Self> {
        let at = scratch.join("root");
        fs::create_dir(&at).context("making a place for the root")?;
        Ok(Self { store, map, checkpoints, layers: Vec::new(), at })
    }

    /// Begins an empty root: the one so far is history.
    pub(super) fn forget(&mut self) -> Result<()> {
        if self.checkpoints == Checkpoints::None {
            for entry in fs::read_dir(&self.at).context("clearing the root")? {
                let entry = entry.context("clearing the root")?;
                let removed = match entry.file_type()?.is_dir() {
                    true => fs::remove_dir_all(entry.path()),
                    false => fs::remove_file(entry.path()),
                };
                removed.context("clearing the root")?;
            }
        }
        self.layers.clear();
        Ok(())
    }

    /// Takes a sealed layer from the store; false where it is not there.
    pub(super) fn restore(&mut self, id: &EntryId) -> Result<Option<TreeRecord>> {
        let Some(tree) = self.store.tree(self.map, id)? else { return Ok(None) };
        let record = tree.record.clone();
        self.layers.push(tree);
        Ok(Some(record))
    }

    /// Starts the layer of a step that changes the root; `None` where another build has made it in
    /// the meantime.
    pub(super) fn begin(&mut self, id: &EntryId, waiting: &mut dyn FnMut()) -> Result<Option<Workspace>> {
        if self.checkpoints == Checkpoints::None {
            return Ok(Some(Workspace::Shared(self.at.clone())));
        }
        let pending = match self.store.begin(self.map, id, waiting)? {
            Begun::Sealed(tree) => {
                self.layers.push(tree);
                return Ok(None);
            }
            Begun::Pending(pending) => pending,
        };
        let Some(last) = self.layers.last() else { return Ok(Some(Workspace::Plain(pending))) };
        match self.checkpoints {
            Checkpoints::Overlay { userxattr } => {
                let mounted = MountedRoot::overlay(&self.lower(), &pending, &self.at, userxattr)?;
                Ok(Some(Workspace::Overlay(mounted, pending)))
            }
            _ => {
                copy(&last.path, &pending.path)?;
                Ok(Some(Workspace::Plain(pending)))
            }
        }
    }

    /// The root for a step that only reads it.
    pub(super) fn view(&self) -> Result<Workspace> {
        let userxattr = match self.checkpoints {
            Checkpoints::None => return Ok(Workspace::Shared(self.at.clone())),
            Checkpoints::Reflink => false,
            Checkpoints::Overlay { userxattr } => userxattr,
        };
        let layers = match self.checkpoints {
            Checkpoints::Reflink => self.lower().split_off(self.layers.len().saturating_sub(1)),
            _ => self.lower(),
        };
        if layers.is_empty() {
            return Ok(Workspace::Shared(self.at.clone()));
        }
        if self.checkpoints == Checkpoints::Reflink {
            return Ok(Workspace::Shared(layers[0].to_owned()));
        }
        Ok(Workspace::Viewed(MountedRoot::read_only(&layers, &self.at, userxattr)?))
    }

    /// The root with a layer on top that is thrown away: for a shell, or a step that changes the root
    /// for its own work.
    pub(super) fn throwaway(&mut self) -> Result<Workspace> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{made}-{:?}", std::process::id(), std::time::SystemTime::now());
        let id = EntryId(blake3::hash(name.as_bytes()).to_hex().to_string());
        self.begin(&id, &mut || {})?.context("the store holds an entry under a name that was just made up")
    }

    /// Ends work on a root that is thrown away.
    pub(super) fn discard(&self, workspace: Workspace) -> Result<()> {
        match workspace {
            Workspace::Overlay(mounted, pending) => {
                mounted.unmount().context("unmounting the root")?;
                drop(pending);
                Ok(())
            }
            Workspace::Viewed(mounted) => mounted.unmount().context("unmounting the root"),
            Workspace::Mounted(image) => image.unmount(),
            Workspace::Plain(_) | Workspace::Shared(_) => Ok(()),
        }
    }

    /// Ends a step's work and seals its layer.
    pub(super) fn seal(&mut self, workspace: Workspace, record: TreeRecord) -> Result<()> {
        let pending = match workspace {
            Workspace::Overlay(mounted, pending) => {
                mounted.unmount().context("unmounting the root")?;
                pending
            }
            Workspace::Plain(pending) => pending,
            other => return self.discard(other),
        };
        self.layers.push(pending.seal(record).context("sealing the layer")?);
        Ok(())
    }

    fn lower(&self) -> Vec<&Path> {
        self.layers.iter().map(|tree| tree.path.as_path()).collect()
    }
}

/// A copy with shared extents.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let output = Command::new("cp")
        .args(["-a", "--reflink=always", "--"])
        .arg(from.join("."))
        .arg(to)
        .output()
        .context("starting cp")?;
    ensure!(output.status.success(), "copying the root: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
