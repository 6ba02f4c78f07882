//! The root filesystem of a build as it grows, step by step.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};

use super::Lost;
use crate::build::image::{Disk, MountedImage};
use crate::build::protected::{self, Protected};
use crate::diagnostics::Fault;
use crate::store::{
    Begun, Checkpoints, EntryId, IdMap, MadeOn, MountedRoot, PendingTree, Store, Tree, TreeRecord, Waiting,
};
use crate::sys::remove::remove_wholly;

/// The sealed layers so far and how the next one is made.
pub(super) struct Root<'a> {
    store: &'a Store,
    map: &'a IdMap,
    checkpoints: Checkpoints,
    /// Bottom first. With [`Checkpoints::Reflink`] only the last one is of interest.
    layers: Vec<Tree>,
    /// How many of these are known to be as they were sealed.
    checked: usize,
    /// Ids of the steps that made the root as it stands.
    made_by: Vec<EntryId>,
    /// What chattr(1) protects in it.
    protected: Protected,
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
        let (layers, made_by, protected) = (Vec::new(), Vec::new(), Protected::new());
        Ok(Self { store, map, checkpoints, layers, checked: 0, made_by, protected, at })
    }

    /// Digest of the root's bytes; empty where they are not known, or where it is not the one that `steps` make.
    pub(super) fn digest(&self, steps: &[EntryId]) -> String {
        match (self.checkpoints, self.layers.as_slice()) {
            _ if self.made_by != steps => String::new(),
            (Checkpoints::None, _) | (_, []) => String::new(),
            (Checkpoints::Reflink, [.., last]) => last.digest.clone(),
            (Checkpoints::Overlay { .. }, layers) => {
                let mut hasher = blake3::Hasher::new_derive_key("debforge root 1");
                for layer in layers {
                    hasher.update(layer.digest.as_bytes());
                }
                for (path, letters) in &self.protected {
                    hasher.update(format!("{path} +{letters}\0").as_bytes());
                }
                hasher.finalize().to_hex().to_string()
            }
        }
    }

    /// Sees to it that the root is the one that `steps` make, of layers as they were sealed.
    fn settle(&mut self, steps: &[EntryId]) -> Result<()> {
        if self.made_by != steps {
            let message = "the root is not the one that the plan names for this step";
            return Err(Fault::failed(message).hint("nothing was published; this is a fault of debforge").into());
        }
        let first = match self.checkpoints {
            Checkpoints::Reflink => self.checked.max(self.layers.len().saturating_sub(1)),
            _ => self.checked,
        };
        for position in first..self.layers.len() {
            if let Some(why) = self.store.damage(&self.layers[position])? {
                let tree = self.layers.swap_remove(position);
                return Err(Lost::tree(self.store, self.map, tree, why));
            }
        }
        self.checked = self.layers.len();
        Ok(())
    }

    /// What was sealed beside the layer on top.
    pub(super) fn record(&self) -> Option<&TreeRecord> {
        self.layers.last().map(|tree| &tree.record)
    }

    /// What chattr(1) protects in the root as it stands.
    pub(super) fn protected(&self) -> &Protected {
        &self.protected
    }

    /// A layer that stands on top now.
    fn push(&mut self, tree: Tree) {
        self.protected.clone_from(&tree.record.protected);
        self.made_by.push(tree.id.clone());
        self.layers.push(tree);
    }

    /// Begins an empty root: the one so far is history.
    pub(super) fn forget(&mut self) -> Result<()> {
        if self.checkpoints == Checkpoints::None {
            for entry in fs::read_dir(&self.at).context("clearing the root")? {
                let entry = entry.context("clearing the root")?;
                remove_wholly(&entry.path()).context("clearing the root")?;
            }
        }
        self.layers.clear();
        self.checked = 0;
        self.made_by.clear();
        self.protected.clear();
        Ok(())
    }

    /// Takes a sealed layer from the store; `None` where it is not there, or was made on something else than
    /// what there is `now`.
    pub(super) fn restore(&mut self, id: &EntryId, now: &MadeOn) -> Result<Option<TreeRecord>> {
        let Some(tree) = self.store.tree(self.map, id)? else { return Ok(None) };
        if !tree.record.made_on.fits(now) {
            return Err(Lost::tree(self.store, self.map, tree, OTHER_ROOT.into()));
        }
        let record = tree.record.clone();
        self.push(tree);
        Ok(Some(record))
    }

    /// Starts the layer of a step that changes the root as `steps` left it; `None` where another build has made
    /// it in the meantime.
    pub(super) fn begin(&mut self, id: &EntryId, steps: &[EntryId], waiting: Waiting<'_>) -> Result<Option<Workspace>> {
        self.settle(steps)?;
        if self.checkpoints == Checkpoints::None {
            return Ok(Some(Workspace::Shared(self.at.clone())));
        }
        let pending = match self.store.begin(self.map, id, waiting)? {
            Begun::Sealed(tree) => {
                let root = self.digest(steps);
                if !tree.record.made_on.fits(&MadeOn { root, artifacts: String::new() }) {
                    return Err(Lost::tree(self.store, self.map, tree, OTHER_ROOT.into()));
                }
                self.push(tree);
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

    /// Protects again in a root that is to be changed what steps before have protected.
    pub(super) fn protect(&self, workspace: &Workspace) -> Result<()> {
        match workspace {
            Workspace::Overlay(..) | Workspace::Plain(_) | Workspace::Shared(_) => {
                protected::give(workspace.path(), &self.protected)
            }
            Workspace::Viewed(_) | Workspace::Mounted(_) => Ok(()),
        }
    }

    /// The root as `steps` left it, for a step that only reads it.
    pub(super) fn view(&mut self, steps: &[EntryId]) -> Result<Workspace> {
        self.settle(steps)?;
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
    pub(super) fn throwaway(&mut self, steps: &[EntryId]) -> Result<Workspace> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{made}-{:?}", std::process::id(), std::time::SystemTime::now());
        let id = EntryId(blake3::hash(name.as_bytes()).to_hex().to_string());
        self.begin(&id, steps, &mut |_| {})?.context("the store holds an entry under a name that was just made up")
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

    /// Ends the work of the step `id` and seals its layer.
    pub(super) fn seal(&mut self, id: &EntryId, workspace: Workspace, record: TreeRecord) -> Result<()> {
        let pending = match workspace {
            Workspace::Overlay(mounted, pending) => {
                mounted.unmount().context("unmounting the root")?;
                pending
            }
            Workspace::Plain(pending) => pending,
            other => {
                self.made_by.push(id.clone());
                if matches!(other, Workspace::Shared(_)) {
                    self.protected = record.protected;
                }
                return self.discard(other);
            }
        };
        self.push(pending.seal(record).context("sealing the layer")?);
        // Nobody else has touched it.
        self.checked = self.layers.len();
        Ok(())
    }

    fn lower(&self) -> Vec<&Path> {
        self.layers.iter().map(|tree| tree.path.as_path()).collect()
    }
}

/// Why a layer is of no use that is whole.
const OTHER_ROOT: &str = "it was made on another root than there is now";

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
