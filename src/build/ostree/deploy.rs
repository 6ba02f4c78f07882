//! Puts a commit onto a disk: a sysroot with its repository and one deployment or several.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{deployment, system};
use crate::build::BuildContext;
use crate::build::files::RootFiles;
use crate::diagnostics::Fault;
use crate::ostree::Repository;

/// Where a system fetches its updates.
#[derive(Debug, Clone, Default)]
pub struct Remote {
    /// Its name on the system.
    pub name: String,
    /// `http://…`; a system without one is updated by hand.
    pub url: Option<String>,
    /// Keys that commits must be signed with.
    pub gpg_keys: Vec<PathBuf>,
    /// Other settings: `tls-client-cert-path` and the like.
    pub settings: Vec<(String, String)>,
}

/// What is to be on the disk.
#[derive(Debug, Clone)]
pub struct Deploy<'a> {
    /// Repository among the artifacts.
    pub repository: &'a str,
    /// The branch that the system follows.
    pub branch: &'a str,
    /// Other branches, deployed behind it in the menu.
    pub others: &'a [String],
    /// The name of the system's files on the disk.
    pub os: &'a str,
    /// Words of the kernel command line.
    pub arguments: Vec<String>,
    /// Where updates come from.
    pub remote: Remote,
    /// Whether kernels' paths are to begin with /boot.
    pub boot_prefix: bool,
}

/// The repository among the artifacts that has a branch: this build's, or an earlier one's.
pub fn repository_with(cx: &BuildContext<'_>, repository: &str, branch: &str) -> Result<(Repository, String)> {
    for directory in [cx.artifacts, cx.artifact_dir] {
        let Some(found) = Repository::open(&directory.join(repository))? else { continue };
        if let Some(commit) = found.head(branch) {
            if directory == cx.artifacts {
                found.complete()?;
            }
            return Ok((found, commit));
        }
    }
    Err(Fault::failed(format!("the repository `{repository}` has no branch `{branch}`"))
        .hint("an `ostree-commit` with these names makes it")
        .into())
}

/// Makes the disk in the empty root; the commits that were deployed.
pub fn deploy(cx: &BuildContext<'_>, wanted: &Deploy<'_>) -> Result<Vec<String>> {
    let root = cx.root.to_str().context("the root's path is not UTF-8")?;
    let repo = format!("--repo={root}/ostree/repo");
    let sysroot = format!("--sysroot={root}");
    let ostree = |words: &[&str], doing: &str| {
        let mut argv = vec!["ostree"];
        argv.extend(words);
        // A directory that nobody can change could not be sealed, nor removed from the store.
        cx.host_alone(argv).writable(cx.root).env("OSTREE_SYSROOT_DEBUG", "mutable-deployments").run(doing)
    };
    ostree(&["admin", "init-fs", "--modern", root], "preparing the disk for OSTree")?;
    ostree(&["admin", "os-init", &sysroot, wanted.os], "preparing the disk for OSTree")?;
    let settings = [
        ("sysroot.readonly", "true"),
        // The action `bootloader` says which one; until then there is nothing to be written for it.
        ("sysroot.bootloader", "none"),
        ("sysroot.bootprefix", if wanted.boot_prefix { "true" } else { "false" }),
    ];
    for (key, value) in settings {
        ostree(&["config", &repo, "set", key, value], "setting up the disk's repository")?;
    }
    add_remote(cx, &repo, &wanted.remote)?;
    let mut commits = Vec::new();
    // The last to be deployed is the first in the menu.
    for branch in wanted.others.iter().rev().map(String::as_str).chain([wanted.branch]) {
        let (source, commit) = repository_with(cx, wanted.repository, branch)?;
        cx.progress(format!("deploying {branch}"), None);
        let origin = wanted.remote.name.as_str();
        let remote = format!("--remote={origin}");
        let from = source.path.to_str().context("the repository's path is not UTF-8")?.to_owned();
        let mut words = vec!["pull-local", &repo, &remote];
        if !wanted.remote.gpg_keys.is_empty() {
            words.push("--gpg-verify");
        }
        words.extend([from.as_str(), branch]);
        cx.host_alone(["ostree"].iter().chain(&words).copied())
            .writable(cx.root)
            .bind(&source.path, &source.path, true)
            .run(&format!("copying {branch} to the disk"))?;
        let os = format!("--os={}", wanted.os);
        let arguments: Vec<String> = wanted.arguments.iter().map(|word| format!("--karg={word}")).collect();
        let refspec = format!("{origin}:{branch}");
        let mut words = vec!["admin", "deploy", &sysroot, &os, "--retain"];
        words.extend(arguments.iter().map(String::as_str));
        words.push(&refspec);
        ostree(&words, &format!("deploying {branch}"))?;
        commits.push(commit);
    }
    commits.reverse();
    check_composefs(cx.root, wanted.os)?;
    fs::create_dir_all(cx.root.join("boot")).context("making /boot")?;
    let link = cx.root.join("boot/boot");
    if link.symlink_metadata().is_err() {
        // Kernels are found at /boot/ostree, whether or not /boot is a partition of its own.
        std::os::unix::fs::symlink(".", link).context("linking /boot to itself")?;
    }
    Ok(commits)
}

fn add_remote(cx: &BuildContext<'_>, repo: &str, remote: &Remote) -> Result<()> {
    // Without an address `ostree admin upgrade` says so, and `ostree remote add` can set one.
    let url = remote.url.as_deref().unwrap_or("file:///var/lib/ostree/no-remote");
    let mut words: Vec<String> = ["ostree", "remote", "add", repo].map(str::to_owned).to_vec();
    if remote.gpg_keys.is_empty() {
        words.push("--no-gpg-verify".into());
    }
    for key in &remote.gpg_keys {
        words.push(format!("--gpg-import={}", key.display()));
    }
    for (name, value) in &remote.settings {
        words.push(format!("--set={name}={value}"));
    }
    words.extend([remote.name.clone(), url.to_owned()]);
    let mut runner = cx.host_alone(words).writable(cx.root);
    for key in &remote.gpg_keys {
        runner = runner.bind(key, key, true);
    }
    runner.run("naming the remote")
}

/// A deployment that starts from a composefs image alone must have one; this machine's OSTree may not write it.
fn check_composefs(root: &Path, os: &str) -> Result<()> {
    let deployments = root.join("ostree/deploy").join(os).join("deploy");
    for entry in fs::read_dir(&deployments).context("reading the deployments")? {
        let path = entry.context("reading the deployments")?.path();
        let settings = RootFiles::open(&path).and_then(|files| files.text("/usr/lib/ostree/prepare-root.conf"));
        let Ok(Some(settings)) = settings else { continue };
        if needs_composefs(&settings) && !path.join(".ostree.cfs").exists() {
            return Err(Fault::failed(
                "the system starts from a composefs image, and the ostree of this machine writes none",
            )
            .hint("build it where `ostree --version` names composefs (Debian forky and later)")
            .hint("or leave `composefs` of `ostree-prepare` out: the system makes the image with its first update")
            .into());
        }
    }
    Ok(())
}

/// Whether `enabled` of `[composefs]` takes nothing else.
fn needs_composefs(settings: &str) -> bool {
    let lines = settings.lines().map(str::trim).skip_while(|line| *line != "[composefs]").skip(1);
    lines.take_while(|line| !line.starts_with('[')).any(|line| {
        let value = line.strip_prefix("enabled").and_then(|rest| rest.trim_start().strip_prefix('='));
        value.is_some_and(|value| ["yes", "true", "1", "signed", "verity"].contains(&value.trim()))
    })
}

/// Writes a file of the first deployment's /etc.
pub fn write_etc(root: &Path, path: &str, text: &str) -> Result<()> {
    RootFiles::open(&root.join(deployment(root)?))?.write(path, text)
}

/// The kernel command line of the deployment that is started first.
pub fn arguments(root: &Path) -> Result<Vec<String>> {
    let files = RootFiles::open(root)?;
    let first = system::entries(&files)?.into_iter().next().context("the disk has no boot entry of OSTree's")?;
    Ok(crate::build::image::split(first.1.get("options").unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_image_that_must_be_there_is_asked_for() {
        assert!(needs_composefs("[sysroot]\nreadonly=true\n\n[composefs]\nenabled = yes\n"));
        assert!(!needs_composefs("[composefs]\nenabled=maybe\n"));
        assert!(!needs_composefs("[sysroot]\nenabled=yes\n[composefs]\n[other]\nenabled=yes\n"));
    }
}
