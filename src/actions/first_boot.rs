//! The action `first-boot`.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::first_boot::{self, Wanted};
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::Diagnostics;
use crate::image::Layout;

/// Prepare the root for its first start, on as many machines as there are copies of it.
///
/// Disk images get this by themselves, right before they are written, unless their `filesystem-deploy`
/// says `first-boot: false`. The action is for roots that are packed, and for images that want only
/// parts of it:
///
/// ```yaml
/// - action: filesystem-deploy
///
/// - action: first-boot
///   ssh-host-keys: false
///   grow: true
/// ```
///
/// - `machine-id`: /etc/machine-id says `uninitialized`, and systemd makes an id at the first start. A
///   root that is read-only gets one at every start. Units that are disabled stay so: without the preset
///   that is written for this, systemd would enable them then.
/// - `ssh-host-keys`: keys that are in the root are removed, with a warning, and a unit makes new ones
///   where openssh-server does not bring one.
/// - `random-seed`: what the random numbers of a machine start from is removed.
/// - `secrets`: keys and names that packages made when they were installed, and something makes anew, are removed,
///   with a warning: those of ssl-cert, bind9, unbound, network-manager, open-iscsi, nvme-cli, rabbitmq-server and tor,
///   and systemd's credential.secret. Units make them at the first start where their programs do not. Before
///   anything is made of a root, a build names private keys that it has made and nobody renews.
/// - `keep`: secrets that all copies are meant to share. They are neither removed nor named.
/// - `grow`: the last partition of the image, if it is mounted and has ext4, btrfs or xfs, becomes as
///   large as the disk, and its file system with it; at each start, so a larger disk later is used too.
///   systemd-repart does that on gpt where the root has it, else a unit with sfdisk (package `fdisk`):
///   on msdos too, and where a partition has no whole number of 4096 bytes. Where it is left out, what cannot grow does not; with `true` that is an error.
///
/// **Compared with debos**: there is no such action there; its images share what the build made.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FirstBoot {
    /// Whether each copy gets an id of its own (machine-id(5)).
    #[serde(default = "super::defaults::yes")]
    pub machine_id: bool,
    /// Whether each copy gets SSH host keys of its own.
    #[serde(default = "super::defaults::yes")]
    pub ssh_host_keys: bool,
    /// Whether the seed of random numbers goes.
    #[serde(default = "super::defaults::yes")]
    pub random_seed: bool,
    /// Whether each copy makes other secrets for itself.
    #[serde(default = "super::defaults::yes")]
    pub secrets: bool,
    /// Paths of secrets that all copies share.
    #[serde(default)]
    pub keep: Vec<String>,
    /// Whether the last partition grows to its disk; where it is left out, if it can.
    #[serde(default)]
    pub grow: Option<bool>,
}

impl FirstBoot {
    /// What images get where the recipe says nothing.
    pub const USUAL: &'static Self =
        &Self { machine_id: true, ssh_host_keys: true, random_seed: true, secrets: true, keep: Vec::new(), grow: None };
}

impl Action for FirstBoot {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        if !cx.has_root {
            out.push(
                cx.error("", "there is no root to prepare yet")
                    .hint("an action before this one must make it: `mmdebstrap`, `debootstrap` or `unpack`"),
            );
        }
        for (index, path) in self.keep.iter().enumerate() {
            if !path.starts_with('/') {
                let message = format!("`{path}` is no path in the root");
                out.push(cx.error(&format!("keep[{index}]"), message).hint("it begins with `/`"));
            }
        }
        if self.grow == Some(true) && cx.image.is_none_or(|spec| spec.deploys.is_empty()) {
            out.push(
                cx.error("grow", "there is no image that could grow")
                    .hint("put this action after `filesystem-deploy`, or leave `grow` out"),
            );
        }
    }

    fn nature(&self) -> Nature {
        Nature {
            version: 4,
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
        match cx.spec {
            Some(spec) if !spec.deploys.is_empty() => ImageRole::PreparesFirstBoot,
            _ => ImageRole::None,
        }
    }

    fn summary(&self) -> String {
        let parts = [
            (self.machine_id, "machine-id"),
            (self.ssh_host_keys, "SSH host keys"),
            (self.random_seed, "random seed"),
            (self.secrets, "secrets"),
            (self.grow != Some(false), "growth"),
        ];
        parts.iter().filter(|(wanted, _)| *wanted).map(|(_, what)| *what).collect::<Vec<_>>().join(", ")
    }

    /// What grows, rather than the image as a whole: a larger image is no reason to do it again.
    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        let Some(spec) = cx.image else { return Ok(()) };
        let layout = Layout::of(spec, &mut |_| Ok(0))?;
        let last = layout.partitions.iter().max_by_key(|placed| placed.start);
        let kinds: Vec<String> = spec
            .partitions
            .iter()
            .map(|partition| {
                let last = if last.is_some_and(|last| last.name == partition.name) { " last" } else { "" };
                let kind = partition.contents.kind.fstab_type().unwrap_or("none");
                format!("{} {} {} {kind}{last}", partition.number, partition.name, partition.kind)
            })
            .collect();
        cx.add("partitions", kinds.join(", "));
        let mounts: Vec<String> = spec
            .mounts
            .iter()
            .map(|mount| {
                let slot = mount.slot.as_deref().unwrap_or_default();
                format!("{} {} {} {} {slot}", mount.path, mount.partition, mount.options.join(","), mount.build_time)
            })
            .collect();
        cx.add("mount points", mounts.join(", "));
        let protected =
            spec.partitions.iter().filter_map(|partition| Some(partition.contents.verity.as_ref()?.data.as_str()));
        cx.add("partitions protected by dm-verity", protected.collect::<Vec<_>>().join(" "));
        Ok(())
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let wanted = Wanted {
            machine_id: self.machine_id,
            ssh_host_keys: self.ssh_host_keys,
            random_seed: self.random_seed,
            secrets: self.secrets,
            keep: self.keep.clone(),
            grow: self.grow,
        };
        let done = first_boot::prepare(cx, wanted)?;
        cx.detail = done.join(", ");
        Ok(())
    }
}
