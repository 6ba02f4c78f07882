//! The directory that a command of the host starts in: debos's scratch directory, as far as commands know it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::surroundings::Hidden;
use crate::build::BuildContext;
use crate::diagnostics::Fault;
use crate::sandbox::Isolation;

/// A directory of the command's own. What it writes there goes with it.
pub(super) struct Room {
    /// Where it starts.
    pub(super) path: PathBuf,
    /// What `$ROOTDIR` is.
    pub(super) root: PathBuf,
}

impl Room {
    /// Makes it: with a place for the root, what was downloaded where the command looks for that beside the
    /// root, and links to what stands beside the recipe.
    pub(super) fn furnish(cx: &BuildContext<'_>, text: &str, hidden: &Hidden) -> Result<Self> {
        let path = cx.scratch.join("room");
        let root = path.join("root");
        fs::create_dir_all(&root).context("making a directory for the command")?;
        if looks_beside_root(text) {
            if cx.sandbox.isolation == Isolation::Chroot && !cx.downloads.is_empty() {
                // There the root stands where it was made, and only a mount could show it beside them.
                return Err(Fault::machine(
                    "a command that looks for downloads at `$ROOTDIR/..` cannot find them here",
                )
                .hint("build in a machine of its own: `--backend uml` needs no privilege")
                .hint("or copy what it needs by an `overlay` with the download as its `origin`")
                .into());
            }
            for download in cx.downloads.values() {
                let name = download.file_name().unwrap_or_default();
                copy(download, &path.join(name))
                    .with_context(|| format!("putting {} beside the root", Path::new(name).display()))?;
            }
        }
        let real = cx.recipe_dir.canonicalize().context("looking for the recipe's directory")?;
        let beside = fs::read_dir(&real).with_context(|| format!("reading {}", real.display()))?;
        for entry in beside {
            let entry = entry?;
            if hidden.has(&real.join(entry.file_name())) {
                continue;
            }
            let link = path.join(entry.file_name());
            if link.symlink_metadata().is_err() {
                symlink(entry.path(), &link).with_context(|| format!("linking to {}", entry.path().display()))?;
            }
        }
        Ok(Self { path, root })
    }
}

/// Whether a shell's text has a path like `$ROOTDIR/../x`.
pub(super) fn looks_beside_root(text: &str) -> bool {
    text.match_indices("ROOTDIR").any(|(at, variable)| {
        let rest = text[at + variable.len()..].trim_start_matches(['}', '"', '\'']);
        rest.strip_prefix('/').is_some_and(|rest| rest.trim_start_matches('/').starts_with(".."))
    })
}

/// Copies a file or directory that the command may change.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if from.is_file() {
        reflink_copy::reflink_or_copy(from, to)?;
        return Ok(());
    }
    let copied = std::process::Command::new("cp").args(["-a", "--reflink=auto", "--"]).args([from, to]).output()?;
    anyhow::ensure!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr).trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::looks_beside_root;

    #[rstest]
    #[case("cat \"${ROOTDIR}/../u-boot.bin\"", true)]
    #[case("ls -d \"$ROOTDIR\"/../src.tar.gz.d/*", true)]
    #[case("cp a $ROOTDIR/usr/../etc", false)]
    #[case("cd $ROOTDIR; ls ..", false)]
    fn paths_beside_the_root_are_found(#[case] text: &str, #[case] found: bool) {
        assert_eq!(looks_beside_root(text), found);
    }
}
