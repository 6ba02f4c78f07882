//! The action `ostree-prepare`.

use anyhow::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ostree_commit::{check_branch, check_repository};
use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::ostree::prepare::{self, Options};
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::ostree::Repository;
use crate::ostree::release::Abilities;

/// Turn the root into a system that OSTree or bootc can deploy.
///
/// ```yaml
/// - action: ostree-prepare
/// ```
///
/// The root has `ostree`, `ostree-boot`, `dracut`, `systemd-sysv` and one kernel, all from Debian:
///
/// ```yaml
/// - action: apt
///   packages: [dracut, linux-image-amd64, ostree, ostree-boot, systemd-sysv]
/// ```
///
/// `dracut` conflicts with `initramfs-tools`; named together with the kernel it comes in its place. What is
/// done, each step looked at and written into the log:
///
/// - /bin, /lib and /sbin are links into /usr, or it is said that they are not;
/// - what OSTree or tmpfiles.d cannot keep is refused, with its path: devices, pipes outside of /var,
///   capabilities of files in /var, files outside of /usr, /etc and /var, names that are not UTF-8;
/// - the kernel and an initramfs that starts OSTree's deployments, made by dracut for any machine, are at
///   /usr/lib/modules/VERSION with the device trees of boards; /boot is empty. With several kernels the
///   action fails and names them;
/// - users and groups are written to sysusers.d, and with `previous` have the numbers of an earlier commit;
///   packages' own lines for them give way. Files of numbers that have no name are warned of;
/// - /home, /root, /srv, /mnt, /opt and /usr/local are links to /var, /media one to /run; their modes, owners
///   and contents are there. Other links of the top level stay;
/// - tmpfiles.d makes the directories, links and pipes that packages left in /var, with their owners, modes
///   and ACLs, and copies their files from /usr/share/factory when the system is first started. A commit's
///   /var is empty; in a bootc image it is full, so that dpkg, apt and scanners work in a container of it;
/// - dpkg's database is at /usr/share/dpkg/database, with a link to it in /var, and so is what apt knows of
///   dependencies (/var/lib/apt/extended_states); timers of apt are masked;
/// - no machine id, SSH host keys, resolv.conf, random seed, caches, logs or backups are left;
/// - compiled files of Python do not look at dates, since a commit has none;
/// - grub-mkconfig is diverted for one that writes a menu of deployments, so that `ostree admin upgrade`
///   works, and `debforge-rollback` goes back, also where OSTree itself cannot;
/// - users that an update brings get locked lines in shadow and gshadow, which a machine keeps of its own
///   (`debforge-accounts.service`, on each start);
/// - the journal of the first start is kept, where the system has /var/log/journal.
///
/// Units with `ConditionFirstBoot=yes` do not run: for them /etc/machine-id would have to say `uninitialized`,
/// and systemd would then enable all units that the recipe disabled. They are warned of, but for systemd's
/// own; sshd-keygen.service looks for its keys instead.
///
/// /etc stays at /etc: `ostree-commit` moves it to /usr/etc in the commit, and a bootc image wants it there.
/// In a recipe nothing can be installed by apt afterwards; a container of the bootc image can be added to.
///
/// What the release's OSTree cannot do is written into the log, and is an error where it was asked for:
///
/// | | Debian 12 | Debian 13 | sid |
/// |---|---|---|---|
/// | /sysroot read-only | by `ostree-deploy` | by prepare-root.conf | by prepare-root.conf |
/// | composefs | no | no | yes |
///
/// **Compared with debos**: there is no such action there; each recipe has a script of its own.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OstreePrepare {
    /// Whether deployments are mounted by composefs. Where it is left out: those that have an image for it, which the
    /// first update makes where the release can.
    #[serde(default)]
    pub composefs: Option<bool>,
    /// Whether /usr/local is a link to /var/usrlocal, which the machine's administrator can write to. A base that
    /// other systems are derived from had better keep it: `false`.
    #[serde(default = "super::defaults::yes")]
    pub local_in_var: bool,
    /// Modules of dracut's beside `ostree`, as `crypt` or `lvm`.
    #[serde(default)]
    pub dracut_modules: Vec<String>,
    /// The commit whose numbers of users and groups are kept: files in /var of machines that are updated have
    /// them. Where there is no such commit yet, the numbers are those that packages gave out.
    #[serde(default)]
    pub previous: Option<Previous>,
}

/// A branch of a repository.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Previous {
    /// Repository in the artifact directory.
    pub repository: String,
    /// Branch of it.
    pub branch: String,
}

/// What an input of the earlier commit's numbers is called.
const NUMBERS: &str = "numbers of users and groups";

impl OstreePrepare {
    /// `passwd` and `group` of the earlier commit.
    fn numbers(&self, artifacts: &std::path::Path) -> Result<Option<(String, String)>> {
        let Some(previous) = &self.previous else { return Ok(None) };
        let Some(repository) = Repository::open(&artifacts.join(&previous.repository))? else { return Ok(None) };
        let Some(commit) = repository.head(&previous.branch) else { return Ok(None) };
        let text = |path| Ok::<_, anyhow::Error>(repository.text(&commit, path)?.unwrap_or_default());
        Ok(Some((text("usr/etc/passwd")?, text("usr/etc/group")?)))
    }
}

impl Action for OstreePrepare {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        if !cx.has_root {
            out.push(
                cx.error("", "there is no root to prepare yet")
                    .hint("an action before this one must make it: `mmdebstrap`, `debootstrap` or `unpack`"),
            );
        }
        if self.composefs == Some(true)
            && let Some(release) = cx.release
            && Abilities::of_release(release).is_some_and(|can| !can.composefs)
        {
            let fault = Abilities::no_composefs(&format!("the ostree of {release}"));
            let diagnostic = cx.error("composefs", fault.message);
            out.push(fault.hints.into_iter().fold(diagnostic, Diagnostic::hint));
        }
        if let Some(previous) = &self.previous {
            check_repository(cx, "previous.repository", &previous.repository, out);
            check_branch(cx, "previous.branch", &previous.branch, out);
        }
        for (index, module) in self.dracut_modules.iter().enumerate() {
            let good = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
            if module.is_empty() || !module.chars().all(good) {
                out.push(cx.error(&format!("dracut-modules[{index}]"), format!("`{module}` is no module of dracut's")));
            }
        }
    }

    fn nature(&self) -> Nature {
        Nature {
            // 2: what mounts composefs is in the initramfs, and a deployment without an image for it starts.
            // 4: /var is described as it is and stays for containers; units; sysusers.d has all users.
            version: 4,
            changes: Changes::ROOT,
            root: RootUse::Used,
            reads: Reads::NOTHING,
            needs: Needs { tools: Vec::new(), network: false, emulation: true },
            artifacts: Vec::new(),
            removes: Vec::new(),
            works_on_disk: false,
            postprocess: false,
        }
    }

    fn wants_device(&self, _cx: &CheckContext<'_>) -> bool {
        false
    }

    fn image(&self, _cx: ImageSurroundings<'_>) -> ImageRole {
        ImageRole::None
    }

    fn summary(&self) -> String {
        match self.composefs {
            Some(true) => "with composefs".into(),
            Some(false) => "without composefs".into(),
            None => String::new(),
        }
    }

    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        let state = match self.numbers(cx.artifact_dir)? {
            Some((passwd, group)) => blake3::hash(format!("{passwd}\0{group}").as_bytes()).to_hex().to_string(),
            None => "those that packages give out".to_owned(),
        };
        if self.previous.is_some() {
            cx.add(NUMBERS, state);
        }
        Ok(())
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let options = Options {
            composefs: self.composefs,
            local_in_var: self.local_in_var,
            dracut_modules: self.dracut_modules.clone(),
            previous: self.numbers(cx.artifact_dir)?,
        };
        cx.detail = prepare::prepare(cx, &options)?;
        Ok(())
    }
}
