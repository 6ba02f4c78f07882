//! The action `ostree-deploy`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ostree_commit::{branch_artifact, check_branch, check_repository};
use super::pack::tool_version;
use super::signing::check_file;
use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::image;
use crate::build::ostree::OSTREE;
use crate::build::ostree::deploy::{self, Deploy, Remote};
use crate::build::{BuildContext, CheckContext, FileKind, InputContext};
use crate::diagnostics::Diagnostics;
use crate::image::{FilesystemKind, Spec};
use crate::ostree::Repository;

/// Put an OSTree commit onto the disk image.
///
/// ```yaml
/// - action: ostree-deploy
///   repository: repo
///   branch: debian/trixie/server/amd64
///   remote-repository: https://os.example.org/repo
///   append-kernel-cmdline: console=ttyS0
///
/// - action: bootloader
///   type: grub
/// ```
///
/// The root becomes a disk of OSTree's: a repository with the commit, and a deployment of it that is
/// started. What was in the root before is not on it. `image-partition` comes before, `bootloader` after;
/// no device, mount or root is needed. Without an `image-partition` the disk is a tree, for `pack` say.
///
/// The system knows the branch, and `ostree admin upgrade` fetches what it becomes from
/// `remote-repository`. With `gpg-keys` it takes commits only that one of these keys has signed; the commit
/// that is deployed now is verified, too. /sysroot and /usr are read-only.
///
/// `others` are branches that are deployed besides, behind the first in the boot menu.
///
/// In the deployment's /etc, /etc/fstab names the partitions that are mounted beside the root. The kernel
/// command line has `root=`, `rw` and the words of `append-kernel-cmdline`; OSTree keeps it for all
/// updates.
///
/// With `type: extlinux` (U-Boot) /boot is a partition of its own where the system is Debian 12.
///
/// **Compared with debos**: offline; `gpg-keys`, `others`; `remote_repository` is `remote-repository` (the
/// old spelling is taken, too).
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OstreeDeploy {
    /// Repository in the artifact directory.
    pub repository: String,
    /// The branch of it that is deployed, and that the system follows.
    pub branch: String,
    /// Name of the system's files on the disk.
    #[serde(default = "debian")]
    pub os: String,
    /// Address of the repository that updates come from.
    #[serde(default, alias = "remote_repository")]
    pub remote_repository: Option<String>,
    /// What the system calls that repository.
    #[serde(default = "origin")]
    pub remote: String,
    /// Files with public keys, one of which has to have signed each commit; beside the recipe.
    #[serde(default)]
    pub gpg_keys: Vec<String>,
    /// Branches that are deployed behind it.
    #[serde(default)]
    pub others: Vec<String>,
    /// Whether /etc/fstab of the deployment is written.
    #[serde(default = "super::defaults::yes")]
    pub setup_fstab: bool,
    /// Whether the kernel command line names the root of the image.
    #[serde(default = "super::defaults::yes")]
    pub setup_kernel_cmdline: bool,
    /// Further words for the kernel command line.
    #[serde(default)]
    pub append_kernel_cmdline: Option<String>,
    /// On the system: its certificate for the remote repository.
    #[serde(default)]
    pub tls_client_cert_path: Option<String>,
    /// On the system: the key of that certificate.
    #[serde(default)]
    pub tls_client_key_path: Option<String>,
    /// Id of the collection that the remote repository has to belong to.
    #[serde(default)]
    pub collection_id: Option<String>,
}

fn debian() -> String {
    "debian".into()
}

fn origin() -> String {
    "origin".into()
}

impl OstreeDeploy {
    fn branches(&self) -> impl Iterator<Item = (String, &str)> {
        let others = self.others.iter().enumerate().map(|(index, name)| (format!("others[{index}]"), name.as_str()));
        std::iter::once(("branch".to_owned(), self.branch.as_str())).chain(others)
    }

    /// Words of the kernel command line.
    fn words(&self, spec: Option<&Spec>) -> Vec<String> {
        let mut words = match spec.filter(|_| self.setup_kernel_cmdline) {
            Some(spec) => image::root_words(spec, None, None),
            None => Vec::new(),
        };
        // The initramfs makes what has to be so read-only itself.
        words.retain(|word| word != "ro");
        words.push("rw".into());
        words.extend(self.append_kernel_cmdline.as_deref().map(image::split).unwrap_or_default());
        words
    }

    /// /etc/fstab without the root, which the initramfs mounts and a remount would make writable.
    fn fstab(spec: &Spec) -> String {
        let text = image::fstab(spec, None, None);
        let is_root = |line: &str| line.split('\t').nth(1) == Some("/");
        text.lines().filter(|line| !is_root(line)).map(|line| format!("{line}\n")).collect()
    }

    fn check_layout(cx: &CheckContext<'_>, spec: &Spec, out: &mut Diagnostics) {
        if spec.mounts.iter().any(|mount| mount.slot.is_some()) {
            out.push(
                cx.error("", format!("`{}` has mount points for several deploys", spec.name))
                    .hint("OSTree keeps several systems in one file system: no `slot` is needed"),
            );
            return;
        }
        let root = spec.mounts.iter().find(|mount| mount.path == "/" && !mount.build_time);
        let Some(root) = root else {
            out.push(
                cx.error("", format!("no partition of `{}` is mounted on `/`", spec.name))
                    .hint("`mountpoints` of `image-partition` say where partitions are mounted"),
            );
            return;
        };
        let Some(partition) = spec.partition(&root.partition) else { return };
        let kind = partition.contents.kind;
        let hard_links = matches!(
            kind,
            FilesystemKind::Ext2
                | FilesystemKind::Ext3
                | FilesystemKind::Ext4
                | FilesystemKind::Xfs
                | FilesystemKind::Btrfs
        );
        let name = kind.fstab_type().unwrap_or("none");
        if !hard_links || spec.hashes_of(&partition.name).is_some() {
            out.push(
                cx.error("", format!("OSTree cannot keep systems in the partition `{}` ({name})", partition.name))
                    .hint("it writes to it and links its files: ext4, xfs or btrfs"),
            );
        }
        if let Some(boot) = spec.mounts.iter().find(|mount| mount.path == "/boot" && !mount.build_time)
            && let Some(partition) = spec.partition(&boot.partition)
            && !has_links(partition.contents.kind)
        {
            let name = partition.contents.kind.fstab_type().unwrap_or("none");
            out.push(
                cx.error("", format!("OSTree cannot keep boot entries in the partition `{}` ({name})", partition.name))
                    .hint(
                        "it switches between them by a link in /boot: ext4; an EFI system partition goes to /boot/efi",
                    ),
            );
        }
        if root.subvolume.is_some() {
            out.push(
                cx.error("", "the root of OSTree's disk is a subvolume, which boot loaders would look for in vain")
                    .hint("mount the file system itself on `/`"),
            );
        }
        for mount in spec.mounts.iter().filter(|mount| !mount.build_time) {
            let place = mount.path.as_str();
            let known = place == "/" || place == "/boot" || place.starts_with("/boot/") || place == "/efi";
            if !known {
                out.push(
                    cx.error(
                        "",
                        format!("`{}` is mounted on {place}, where OSTree's disk has nothing", mount.partition),
                    )
                    .hint("/, /boot and /boot/efi are on the disk; the system mounts others by its /etc/fstab"),
                );
            }
        }
    }
}

/// Whether a file system has links, and is written to by a running system.
fn has_links(kind: FilesystemKind) -> bool {
    use FilesystemKind::{Btrfs, Ext2, Ext3, Ext4, F2fs, Xfs};
    matches!(kind, Ext2 | Ext3 | Ext4 | Xfs | Btrfs | F2fs)
}

impl Action for OstreeDeploy {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        check_repository(cx, "repository", &self.repository, out);
        for (property, branch) in self.branches() {
            check_branch(cx, &property, branch, out);
            let artifact = branch_artifact(&self.repository, branch);
            let known = cx.any_artifacts
                || cx.artifacts.contains(&artifact)
                || cx.files.kind(&cx.artifact_dir.join(&artifact)).is_some();
            if !known {
                out.push(
                    cx.error(&property, format!("the repository `{}` has no branch `{branch}`", self.repository)).hint(
                        format!("no `ostree-commit` before makes it, and it is not in {}", cx.artifact_dir.display()),
                    ),
                );
            }
        }
        let word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        for (property, name) in [("os", &self.os), ("remote", &self.remote)] {
            if name.is_empty() || !name.chars().all(word) || name.starts_with(['-', '.']) {
                out.push(cx.error(property, format!("`{name}` cannot be a name in OSTree")));
            }
        }
        if let Some(url) = &self.remote_repository
            && !url.contains("://")
        {
            out.push(
                cx.error("remote-repository", format!("`{url}` is not an address")).hint("as `https://host/repo`"),
            );
        }
        if let Some(url) = &self.remote_repository {
            let instead =
                "systems log in with a certificate of their own: `tls-client-cert-path`, `tls-client-key-path`";
            cx.refuse_login("remote-repository", url, instead, out);
        }
        for (index, key) in self.gpg_keys.iter().enumerate() {
            check_file(cx, &format!("gpg-keys[{index}]"), Some(key), FileKind::File, out);
        }
        if self.remote_repository.is_some() && self.gpg_keys.is_empty() {
            out.push(
                cx.warning("remote-repository", "the system takes any commit that it finds there")
                    .hint("`gpg-keys` has it verify signatures, which `sign` of `ostree-commit` makes"),
            );
        }
        if self.append_kernel_cmdline.as_ref().is_some_and(|words| words.matches('"').count() % 2 == 1) {
            out.push(cx.error("append-kernel-cmdline", "a quote is not closed"));
        }
        if let Some(spec) = cx.image {
            if !spec.deploys.is_empty() {
                out.push(cx.error("", format!("there is a root in `{}` already", spec.name)));
            }
            Self::check_layout(cx, spec, out);
        }
    }

    fn nature(&self) -> Nature {
        Nature {
            version: 2,
            changes: Changes::ROOT,
            root: RootUse::Replaced,
            reads: Reads::ARTIFACTS,
            needs: Needs::tools([OSTREE]),
            artifacts: Vec::new(),
            removes: Vec::new(),
            works_on_disk: true,
            postprocess: false,
        }
    }

    fn wants_device(&self, _cx: &CheckContext<'_>) -> bool {
        false
    }

    fn image(&self, cx: ImageSurroundings<'_>) -> ImageRole {
        if cx.spec.is_none() {
            return ImageRole::None;
        }
        ImageRole::Deploys(crate::image::Deploy { slot: None, words: self.words(cx.spec), first_boot: false })
    }

    fn release_after(&self, _before: Option<String>) -> Option<String> {
        None
    }

    fn summary(&self) -> String {
        self.branch.clone()
    }

    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        cx.add("tool ostree", tool_version("ostree"));
        for (_, branch) in self.branches() {
            if cx.is_planned(&branch_artifact(&self.repository, branch)) {
                continue;
            }
            let repository = Repository::open(&cx.artifact_dir.join(&self.repository))?;
            let commit = repository.and_then(|repository| repository.head(branch)).unwrap_or_default();
            cx.add(format!("commit of {branch}"), commit);
        }
        for key in &self.gpg_keys {
            let path = cx.recipe_dir.join(key);
            cx.add_tree(key, &path)?;
        }
        if let Some(spec) = cx.image {
            let paths: Vec<&str> = spec.mounts.iter().map(|mount| mount.path.as_str()).collect();
            cx.add("mount points", paths.join(" "));
            if self.setup_fstab {
                cx.add("fstab", Self::fstab(spec));
            }
        }
        cx.add("kernel command line", self.words(cx.image).join(" "));
        Ok(())
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let mut gpg_keys: Vec<PathBuf> = Vec::new();
        for key in &self.gpg_keys {
            let path = cx.recipe_dir.join(key);
            gpg_keys.push(path.canonicalize().with_context(|| format!("looking for {}", path.display()))?);
        }
        let settings = [
            ("tls-client-cert-path", &self.tls_client_cert_path),
            ("tls-client-key-path", &self.tls_client_key_path),
            ("collection-id", &self.collection_id),
        ];
        let settings =
            settings.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))).collect();
        let separate = cx.image.is_some_and(|spec| spec.mounts.iter().any(|mount| mount.path == "/boot"));
        let wanted = Deploy {
            repository: &self.repository,
            branch: &self.branch,
            others: &self.others,
            os: &self.os,
            arguments: self.words(cx.image),
            remote: Remote { name: self.remote.clone(), url: self.remote_repository.clone(), gpg_keys, settings },
            boot_prefix: !separate,
        };
        let commits = deploy::deploy(cx, &wanted)?;
        if let Some(spec) = cx.image {
            image::make_mount_points(spec, None, cx.root)?;
            if self.setup_fstab {
                deploy::write_etc(cx.root, "/etc/fstab", &Self::fstab(spec))?;
            }
        }
        let shown: Vec<&str> = commits.iter().map(|commit| &commit[..12]).collect();
        cx.detail = shown.join(", ");
        Ok(())
    }
}
