//! What a command of the host can see, as inputs.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result};

use crate::build::InputContext;

/// More files than this are not read for a step's id.
const MOST_FILES: usize = 20_000;

/// Adds every file of a directory that is the recipe's: without the recipe itself, the artifact
/// directory, the store and what git keeps.
pub(super) fn add_directory(cx: &mut InputContext<'_>, shown: &str, directory: &Path) -> Result<()> {
    let left_out: Vec<PathBuf> = [cx.artifact_dir, cx.store.root()]
        .into_iter()
        .chain(cx.recipe_files.iter().map(PathBuf::as_path))
        .filter_map(|path| path.canonicalize().ok())
        .collect();
    let directory = directory.canonicalize().with_context(|| format!("looking for {}", directory.display()))?;
    if too_many(&directory, &left_out) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let shown = if shown.is_empty() { "the recipe's directory" } else { shown };
        cx.add(
            format!("{shown}, which has more than {MOST_FILES} files and so is taken as changed every time"),
            now.as_nanos().to_string(),
        );
        return Ok(());
    }
    add_except(cx, shown, &directory, &left_out)
}

fn is_left_out(path: &Path, left_out: &[PathBuf]) -> bool {
    path.file_name() == Some(OsStr::new(".git")) || left_out.iter().any(|other| other == path)
}

fn too_many(directory: &Path, left_out: &[PathBuf]) -> bool {
    let walk = walkdir::WalkDir::new(directory).into_iter();
    walk.filter_entry(|entry| !is_left_out(entry.path(), left_out)).take(MOST_FILES + 1).count() > MOST_FILES
}

/// Whole directories at once where nothing in them is left out.
fn add_except(cx: &mut InputContext<'_>, shown: &str, directory: &Path, left_out: &[PathBuf]) -> Result<()> {
    let doing = || format!("reading {}", directory.display());
    let mut children: Vec<_> =
        fs::read_dir(directory).with_context(doing)?.collect::<Result<_, _>>().with_context(doing)?;
    children.sort_by_key(fs::DirEntry::file_name);
    for child in children {
        let path = child.path();
        if is_left_out(&path, left_out) {
            continue;
        }
        let kind = child.file_type().with_context(doing)?;
        let shown = match shown {
            "" => child.file_name().to_string_lossy().into_owned(),
            shown => format!("{shown}/{}", child.file_name().to_string_lossy()),
        };
        let below = |other: &PathBuf| other.starts_with(&path);
        if kind.is_symlink() {
            let target = fs::read_link(&path).with_context(doing)?;
            cx.add(format!("link {shown}"), target.display().to_string());
            // What a link leads to may lie elsewhere; a directory there could be anything.
            if path.is_file() {
                cx.add_tree(&shown, &path)?;
            }
        } else if kind.is_dir() && (left_out.iter().any(below) || has_git(&path)) {
            add_except(cx, &shown, &path, left_out)?;
        } else if kind.is_dir() || kind.is_file() {
            cx.add_tree(&shown, &path)?;
        }
    }
    Ok(())
}

fn has_git(directory: &Path) -> bool {
    let walk = walkdir::WalkDir::new(directory).into_iter();
    walk.filter_map(Result::ok).any(|entry| entry.file_name() == ".git")
}

/// The state of the host's packages: a digest of names and versions of what dpkg has installed, or
/// what another system says it is.
pub(super) fn host_packages() -> String {
    static STATE: OnceLock<String> = OnceLock::new();
    STATE
        .get_or_init(|| {
            let installed = match fs::read_to_string("/var/lib/dpkg/status") {
                Ok(status) => installed(&status),
                Err(_) => fs::read_to_string("/etc/os-release").unwrap_or_default(),
            };
            blake3::hash(installed.as_bytes()).to_hex().to_string()
        })
        .clone()
}

/// Name, architecture and version of each package that is installed, a line each, sorted.
fn installed(status: &str) -> String {
    let mut lines: Vec<String> = status
        .split("\n\n")
        .filter_map(|paragraph| {
            let field = |name: &str| paragraph.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            let installed = field("Status:")?.ends_with(" installed");
            installed.then(|| Some([field("Package:")?, field("Architecture:")?, field("Version:")?].join(" ")))?
        })
        .collect();
    lines.sort_unstable();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::installed;

    #[test]
    fn only_installed_packages_count() {
        let status = "Package: b\nStatus: install ok installed\nArchitecture: all\nVersion: 2\n\n\
                      Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n\n\
                      Package: a\nStatus: hold ok installed\nArchitecture: amd64\nVersion: 1-1\nDescription: x\n y\n";
        assert_eq!(installed(status), "a amd64 1-1\nb all 2");
    }
}
