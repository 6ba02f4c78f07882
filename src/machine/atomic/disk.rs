//! The throwaway disk that is tested: a copy of the image with the agent in the /etc of its deployment.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::agent;
use crate::diagnostics::Fault;
use crate::image::sparse;
use crate::image::table::Entry as Partition;
use crate::inspect::bootable::Bootable;
use crate::inspect::tree::Ext;
use crate::inspect::{Source, Tree, Window};
use crate::ostree::entry::{self, Entry};
use crate::ostree::repository::is_checksum;

/// Where boot entries are.
const ENTRIES: &str = "boot/loader/entries";

/// GRUB's menu, where the disk has GRUB.
const MENU: &str = "boot/grub/grub.cfg";

/// A disk that OSTree deploys to.
pub struct Disk {
    /// The file, raw.
    pub file: PathBuf,
    /// What can start it.
    pub bootable: Bootable,
    /// Of the file system that has the deployments.
    root: Partition,
}

/// The deployment that a disk has when it is new.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The commit's checksum.
    pub commit: String,
    /// What it follows: the remote's name, and the branch.
    pub remote: String,
    /// See [`Origin::remote`].
    pub branch: String,
    /// Whether commits of the remote have to be signed.
    pub verified: bool,
    /// Where it is on the disk.
    directory: PathBuf,
}

/// What a boot loader would start: kernel and initramfs in files, and the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initrd: PathBuf,
    /// Its command line.
    pub line: String,
}

impl Disk {
    /// Copies an image to a file and finds the deployments on it.
    pub fn copy(source: &Source, file: PathBuf) -> Result<Self> {
        let shown = source.path.display();
        let bootable = Bootable::of(&source.bytes)?;
        let doing = || format!("copying {shown}");
        let copy = File::options().read(true).write(true).create_new(true).open(&file).with_context(doing)?;
        copy.set_len(source.bytes.len()).with_context(doing)?;
        sparse::copy_into(source.bytes.file(), &copy, 0, source.bytes.len()).with_context(doing)?;
        let whole = Window::whole(copy).with_context(doing)?;
        let parts = bootable.table.as_ref().map(|table| table.entries.clone()).unwrap_or_default();
        for root in parts {
            let Ok(tree) = Ext::open(whole.part(root.start, root.length)) else { continue };
            let tree: &dyn Tree = &tree;
            if tree.text("ostree/repo/config")?.is_some() {
                return Ok(Self { file, bootable, root });
            }
        }
        Err(Fault::recipe(format!("{shown} has no ext4 file system with OSTree's deployments"))
            .hint("`ostree-deploy` makes one; other file systems than ext4 cannot be tested yet")
            .into())
    }

    fn tree(&self) -> Result<Ext> {
        let file = File::open(&self.file).with_context(|| format!("reading {}", self.file.display()))?;
        Ext::open(Window::whole(file)?.part(self.root.start, self.root.length))
    }

    /// The boot entries, what is started first first.
    fn entries(tree: &dyn Tree) -> Result<Vec<Entry>> {
        let mut all = Vec::new();
        for file in tree.names(ENTRIES)? {
            if file.path.extension().is_some_and(|extension| extension == "conf") {
                all.push(Entry::parse(&tree.text(&file.path)?.unwrap_or_default()));
            }
        }
        all.sort_by_key(|entry| std::cmp::Reverse(entry::version(entry)));
        Ok(all)
    }

    /// The deployment that is started first.
    pub fn origin(&self) -> Result<Origin> {
        let tree = self.tree()?;
        let tree: &dyn Tree = &tree;
        let first = Self::entries(tree)?.into_iter().next().context("the disk has no boot entry of OSTree's")?;
        let link = word(first.get("options").unwrap_or_default(), "ostree=")
            .context("the first boot entry names no deployment")?;
        let found = tree.find(Path::new(link))?.with_context(|| format!("the disk has no {link}"))?;
        let name = found.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let commit = name.split('.').next().unwrap_or_default().to_owned();
        anyhow::ensure!(is_checksum(&commit), "{} is no deployment", found.path.display());
        let text = tree.text(found.path.with_file_name(format!("{name}.origin")))?.unwrap_or_default();
        let refspec = text.lines().find_map(|line| line.strip_prefix("refspec=")).unwrap_or_default().trim();
        let (remote, branch) = refspec
            .split_once(':')
            .ok_or_else(|| Fault::recipe("the deployment follows no branch of a remote, so it cannot be updated"))?;
        let config = tree.text("ostree/repo/config")?.unwrap_or_default();
        let verified = setting(&config, &format!("remote \"{remote}\""), "gpg-verify") != Some("false");
        Ok(Origin { commit, remote: remote.to_owned(), branch: branch.to_owned(), verified, directory: found.path })
    }

    /// Puts the agent into the deployment's /etc. Files that are added there stay when OSTree merges it.
    pub fn add_agent(&self, origin: &Origin, scratch: &Path) -> Result<()> {
        let etc = format!("/{}/etc", origin.directory.display());
        let units = format!("{etc}/systemd/system");
        let wanted = format!("{units}/multi-user.target.wants");
        for (name, text) in [("agent.sh", agent::SCRIPT), ("agent.service", agent::UNIT)] {
            fs::write(scratch.join(name), text).context("writing the test's agent")?;
        }
        let commands = [
            format!("mkdir {etc}/systemd"),
            format!("mkdir {units}"),
            format!("mkdir {wanted}"),
            format!("write agent.sh {etc}/debforge-test.sh"),
            format!("write agent.service {units}/debforge-test.service"),
            format!("symlink {wanted}/debforge-test.service ../debforge-test.service"),
        ];
        self.debugfs(scratch, &commands)?;
        let tree = self.tree()?;
        let tree: &dyn Tree = &tree;
        for (path, text) in [
            (format!("{etc}/debforge-test.sh"), agent::SCRIPT),
            (format!("{wanted}/debforge-test.service"), agent::UNIT),
        ] {
            anyhow::ensure!(tree.text(&path)?.as_deref() == Some(text), "debugfs has not written {path}");
        }
        Ok(())
    }

    /// Changes the file system as it lies in the image (debugfs(8)): no mount, no root.
    fn debugfs(&self, scratch: &Path, commands: &[String]) -> Result<()> {
        fs::write(scratch.join("debugfs"), commands.join("\n") + "\n").context("writing commands for debugfs")?;
        let program = crate::machine::find_program("debugfs").ok_or_else(|| {
            Fault::machine("debugfs is missing, which puts the test's agent into the image")
                .hint("sudo apt install e2fsprogs")
        })?;
        let device = format!("{}?offset={}", self.file.display(), self.root.start);
        // It ends well whatever its commands come to.
        let output = Command::new(program)
            .current_dir(scratch)
            .args(["-w", "-f", "debugfs", &device])
            .output()
            .context("starting debugfs")?;
        tracing::debug!("debugfs: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// What a boot loader would start now, written to files; fails where the loader's menu says something else.
    pub fn start(&self, scratch: &Path) -> Result<Start> {
        let tree = self.tree()?;
        let tree: &dyn Tree = &tree;
        let first = Self::entries(tree)?.into_iter().next().context("the disk has no boot entry of OSTree's")?;
        let key = |key: &str| first.get(key).with_context(|| format!("the first boot entry has no `{key}`"));
        let line = key("options")?.to_owned();
        if let Some(menu) = tree.text(MENU)? {
            let started = menu.lines().map(str::trim).find_map(|line| line.strip_prefix("linux ")).unwrap_or_default();
            let (_, options) = started.split_once(' ').unwrap_or_default();
            anyhow::ensure!(
                word(options, "ostree=") == word(&line, "ostree="),
                "GRUB's menu starts `{started}`, and OSTree's first entry `{line}`"
            );
        }
        let file = |name: &str, to: &str| -> Result<PathBuf> {
            // Relative to the file system that /boot is, which may have a link `boot` to itself.
            let path = format!("boot/{}", key(name)?.trim_start_matches('/'));
            let bytes = tree.read_some(Path::new(&path), u64::MAX)?;
            let bytes = bytes.with_context(|| format!("the first boot entry names {path}, which is not there"))?;
            let to = scratch.join(to);
            fs::write(&to, bytes).with_context(|| format!("writing {}", to.display()))?;
            Ok(to)
        };
        Ok(Start { kernel: file("linux", "kernel")?, initrd: file("initrd", "initrd")?, line })
    }

    /// Has the file system checked, which nothing may use meanwhile; what e2fsck found, where that is something.
    pub fn faults(&self) -> Result<Option<String>> {
        let Some(program) = crate::machine::find_program("e2fsck") else { return Ok(None) };
        let device = format!("{}?offset={}", self.file.display(), self.root.start);
        let output = Command::new(program).args(["-f", "-n", &device]).output().context("starting e2fsck")?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((!output.status.success()).then_some(said))
    }
}

/// The rest of the word of a command line that begins so.
fn word<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.split_whitespace().find_map(|word| word.strip_prefix(start))
}

/// A setting of a key file.
fn setting<'a>(text: &'a str, section: &str, key: &str) -> Option<&'a str> {
    let mut here = false;
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            here = name == section;
        } else if here
            && let Some((known, value)) = line.split_once('=')
            && known.trim() == key
        {
            return Some(value.trim());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_those_of_their_section() {
        let text = "[core]\nmode=bare\n\n[remote \"origin\"]\nurl=http://x\ngpg-verify=false\n";
        assert_eq!(setting(text, "remote \"origin\"", "gpg-verify"), Some("false"));
        assert_eq!(setting(text, "core", "gpg-verify"), None);
        assert_eq!(word("root=UUID=1 ostree=/ostree/boot.1/x/0 rw", "ostree="), Some("/ostree/boot.1/x/0"));
    }
}
