//! The image of a build, written from the root without a device.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};

use super::mounted;
use super::tools::SandboxTools;
use super::trees::Trees;
use super::verity::{self, RootHashes};
use super::writes;
use crate::build::BuildContext;
use crate::build::boot_check::{self, Finding};
use crate::build::bootloader::grub;
use crate::build::bootloader::layout::locate;
use crate::diagnostics::{Fault, fault_of, size_shown};
use crate::image::filesystem::{self, Tree};
use crate::image::{BootCheck, Layout, Partition, Placed, Spec, Strategy, sparse, table};
use crate::store::is_disk_full;

/// Writes the image that `cx.image` describes: whole, or, where an earlier step wrote it, what was
/// deployed and written since. It has its name only when it is whole.
pub fn write(cx: &mut BuildContext<'_>) -> Result<()> {
    let spec = cx.image.context("no step before describes an image")?;
    let target = cx.artifacts.join(&spec.name);
    let partial = partial(&target)?;
    let started = check_start(cx, spec)?;
    if spec.written {
        fs::rename(&target, &partial).with_context(|| format!("opening {}", spec.name))?;
    } else if let Some(directory) = partial.parent() {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    }
    let began = Instant::now();
    let options = File::options().read(true).write(true).create(!spec.written).clone();
    let file = options.open(&partial).with_context(|| format!("opening {}", spec.name))?;
    Writer { cx, spec, path: &partial, file: &file, started: &started }.write()?;
    fs::rename(&partial, &target).with_context(|| format!("naming {}", spec.name))?;
    cx.log(format!("wrote {} in {:.3} s", spec.name, began.elapsed().as_secs_f64()));
    let meta = file.metadata()?;
    cx.detail = format!("{}, {} of data", size_shown(meta.len()), size_shown(meta.blocks() * 512));
    Ok(())
}

/// Programs that start a root.
#[derive(Default)]
struct Started {
    /// Versions of its kernels.
    kernels: BTreeSet<String>,
    /// Version of GRUB, where only that does.
    grub: Option<String>,
}

/// Looks at the root whether it starts.
fn check_start(cx: &BuildContext<'_>, spec: &Spec) -> Result<Started> {
    let Some(deploy) = spec.deploys.get(spec.deployed..).and_then(<[_]>::last) else { return Ok(Started::default()) };
    let boot_check::Found { findings, unknown, kernels, grub } =
        boot_check::check(spec, deploy.slot.as_deref(), cx.root)?;
    unknown.iter().for_each(|what| cx.warn(format!("whether {} starts is not known: {what}", spec.name)));
    if !kernels.is_empty() {
        let names = kernels.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        cx.log(format!("looked at what starts {names}: menu, root, fstab, drivers"));
    }
    judge(cx, spec, findings)?;
    Ok(Started { kernels, grub })
}

/// Refuses an image whose system does not start, or warns of it.
fn judge(cx: &BuildContext<'_>, spec: &Spec, findings: Vec<Finding>) -> Result<()> {
    if spec.boot_check == BootCheck::Warn {
        findings.iter().for_each(|finding| cx.warn(format!("{} would not start: {}", spec.name, finding.message)));
        return Ok(());
    }
    let mut findings = findings.into_iter();
    let Some(first) = findings.next() else { return Ok(()) };
    let mut fault = Fault::failed(format!("{} would not start: {}", spec.name, first.message)).hint(first.hint);
    for other in findings {
        fault = fault.hint(format!("another reason: {}: {}", other.message, other.hint));
    }
    Err(fault.hint("`boot-check: warn` in `image-partition` makes the image anyway").into())
}

/// Copies the partitions that are artifacts of their own out of an image that steps changed.
pub fn extract_partitions(spec: &Spec, artifacts: &Path) -> Result<()> {
    let file = File::open(artifacts.join(&spec.name)).with_context(|| format!("opening {}", spec.name))?;
    extract(&file, spec, &table::layout_of(&file, spec)?, artifacts)
}

fn extract(image: &File, spec: &Spec, layout: &Layout, artifacts: &Path) -> Result<()> {
    for (partition, placed) in spec.partitions.iter().zip(&layout.partitions) {
        let Some(artifact) = &partition.artifact else { continue };
        let target = artifacts.join(artifact);
        if let Some(directory) = target.parent() {
            fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        }
        let partial = partial(&target)?;
        writes::extract(image, placed.start, placed.length, &partial)?;
        fs::rename(&partial, &target).with_context(|| format!("naming {artifact}"))?;
    }
    Ok(())
}

fn partial(target: &Path) -> Result<PathBuf> {
    let name = target.file_name().context("an image without a name")?;
    Ok(target.with_file_name(format!(".{}.partial", name.display())))
}

/// Does something for a partition, to which faults of it belong.
fn about<T>(partition: &Partition, work: impl FnOnce() -> Result<T>) -> Result<T> {
    work().map_err(|error| match is_disk_full(&error) {
        // That is no partition's fault, and the store knows the way out.
        true => error,
        false => fault_of(&error).about(&partition.name).into(),
    })
}

struct Writer<'a> {
    cx: &'a BuildContext<'a>,
    spec: &'a Spec,
    /// The image under its temporary name.
    path: &'a Path,
    file: &'a File,
    started: &'a Started,
}

impl Writer<'_> {
    fn write(&self) -> Result<()> {
        let (spec, cx) = (self.spec, self.cx);
        let deploy = spec.deploys.get(spec.deployed..).and_then(<[_]>::last);
        let trees = match deploy {
            Some(deploy) => {
                Some(Trees::of(spec, deploy.slot.as_deref(), cx.root, cx.protected, &self.scratch("aside")?)?)
            }
            None => None,
        };
        let tools = SandboxTools::new(cx, self.scratch("tools")?);
        let layout = self.layout(trees.as_ref(), &tools)?;
        writes::check(cx, spec, &layout)?;
        verity::check(spec)?;
        if !spec.written {
            self.file.set_len(layout.size).context("making the image as large as it is to be")?;
        }
        let changed = self.changed(deploy.map(|deploy| deploy.slot.as_deref()));
        let hashes = self.file_systems(&layout, &changed, trees.as_ref(), &tools)?;
        self.check_features(&layout, deploy.and_then(|deploy| deploy.slot.as_deref()))?;
        let spec = &verity::with_uuids(spec, &hashes);
        trees.map_or(Ok(()), Trees::put_back)?;
        table::write(self.file, spec, &layout).context("writing the partition table")?;
        writes::apply(cx, self.file, spec, &layout)?;
        extract(self.file, spec, &layout, cx.artifacts)
    }

    /// Whether GRUB and the kernels know the file systems as they were made.
    fn check_features(&self, layout: &Layout, slot: Option<&str>) -> Result<()> {
        let mut findings = Vec::new();
        if let Some(grub) = &self.started.grub
            && let Ok(on) = locate(self.spec, slot, grub::DIRECTORY)
            && let Some(placed) = layout.partition(&on.partition.name)
        {
            findings.extend(boot_check::features::check_grub(self.file, placed.start, on.partition, grub));
        }
        for (partition, placed) in self.spec.partitions.iter().zip(&layout.partitions) {
            let mount = self.spec.mounts_of(slot).find(|mount| mount.partition == partition.name && !mount.build_time);
            let Some(mount) = mount else { continue };
            let has = |option: &str| mount.options.iter().any(|known| known == option);
            if has("nofail") || has("noauto") {
                continue;
            }
            let of =
                |kernel: &String| boot_check::features::check(self.file, placed.start, partition, has("ro"), kernel);
            findings.extend(boot_check::of_all(self.started.kernels.iter().map(of).collect()));
        }
        judge(self.cx, self.spec, findings)
    }

    /// What was written stays where it is.
    fn layout(&self, trees: Option<&Trees<'_>>, tools: &SandboxTools<'_>) -> Result<Layout> {
        let spec = self.spec;
        if spec.written {
            return table::layout_of(self.file, spec);
        }
        Layout::of(spec, &mut |name| {
            let partition = spec.partition(name).with_context(|| format!("there is no partition `{name}`"))?;
            about(partition, || {
                let tree = trees.map_or(Ok(Tree::default()), |trees| trees.tree(name))?;
                let scratch = self.scratch(&format!("measured-{}", partition.number))?;
                filesystem::minimum(&self.request(partition, &tree, &scratch, tools))
            })
        })
    }

    /// Makes the file systems of some partitions, and the hashes of those that are protected.
    fn file_systems(
        &self,
        layout: &Layout,
        changed: &BTreeSet<&str>,
        trees: Option<&Trees<'_>>,
        tools: &SandboxTools<'_>,
    ) -> Result<RootHashes> {
        let spec = self.spec;
        let (mut hashes, mut named) = (RootHashes::new(), Vec::new());
        for index in verity::order(spec) {
            let (partition, placed) = (&spec.partitions[index], &layout.partitions[index]);
            if let Some(verity) = &partition.contents.verity {
                // Also those of an earlier deploy: what is made next may name them.
                let data = layout.partition(&verity.data).context("hashes of a partition that is not there")?;
                let hash = about(partition, || self.hash(partition, placed, data, tools))?;
                hashes.insert(verity.data.clone(), hash);
            } else if changed.contains(partition.name.as_str()) {
                about(partition, || {
                    let mut tree = trees.map_or(Ok(Tree::default()), |trees| trees.tree(&partition.name))?;
                    if !hashes.is_empty() && spec.hashes_of(&partition.name).is_none() {
                        let scratch = self.scratch(&format!("told-{}", partition.number))?;
                        verity::tell(spec, &hashes, &mut tree, &scratch, &mut named)?;
                    }
                    self.fill(partition, placed, &tree, tools)
                })?;
            }
        }
        for name in hashes.keys().filter(|name| trees.is_some() && !named.contains(name)) {
            self.cx.warn(format!(
                "no file outside of `{name}` names its root hash: a boot loader that is installed after `filesystem-deploy` would"
            ));
        }
        Ok(hashes)
    }

    /// Makes the hashes of a protected partition; its root hash.
    fn hash(&self, partition: &Partition, placed: &Placed, data: &Placed, tools: &SandboxTools<'_>) -> Result<String> {
        if self.spec.written {
            sparse::clear(self.file, placed.start, placed.length).context("clearing a partition")?;
        }
        let scratch = self.scratch(&format!("partition-{}", placed.number))?;
        let tree = Tree::default();
        let request = self.request(partition, &tree, &scratch, tools);
        let request = filesystem::Request { offset: placed.start, length: placed.length, ..request };
        filesystem::verity(&request, data.start, data.length)
    }

    /// The partitions whose file systems are made: all of a new image, else what the new deploy mounts.
    fn changed(&self, deploy: Option<Option<&str>>) -> BTreeSet<&str> {
        if !self.spec.written {
            return self.spec.partitions.iter().map(|partition| partition.name.as_str()).collect();
        }
        let Some(slot) = deploy else { return BTreeSet::new() };
        let mounts = self.spec.mounts.iter().filter(|mount| mount.slot.is_none() || mount.slot.as_deref() == slot);
        mounts.map(|mount| mount.partition.as_str()).collect()
    }

    fn fill(&self, partition: &Partition, placed: &Placed, tree: &Tree, tools: &SandboxTools<'_>) -> Result<()> {
        if self.spec.written {
            sparse::clear(self.file, placed.start, placed.length).context("clearing a partition")?;
        }
        let scratch = self.scratch(&format!("partition-{}", placed.number))?;
        let request = self.request(partition, tree, &scratch, tools);
        let request = filesystem::Request { offset: placed.start, length: placed.length, ..request };
        match self.spec.strategy == Strategy::Mounted && mounted::is_copied(partition.contents.kind) {
            true => mounted::fill(&request),
            false => filesystem::make(&request),
        }
    }

    /// A file system that has no place yet.
    fn request<'a>(
        &'a self,
        partition: &'a Partition,
        tree: &'a Tree,
        scratch: &'a Path,
        tools: &'a SandboxTools<'_>,
    ) -> filesystem::Request<'a> {
        filesystem::Request {
            name: &partition.name,
            contents: &partition.contents,
            tree,
            image: self.path,
            offset: 0,
            length: 0,
            sector_size: self.spec.sector_size,
            epoch: self.cx.source_date_epoch,
            scratch,
            tools,
        }
    }

    fn scratch(&self, name: &str) -> Result<PathBuf> {
        let path = self.cx.scratch.join(name);
        fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }
}
