//! What a command expects in the artifact directory because an earlier build, or the user, put it there.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};

use crate::build::BuildContext;

/// Paths behind `$ARTIFACTDIR/` in a shell's text, each as far as it is plain.
fn named(text: &str) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for (at, variable) in text.match_indices("ARTIFACTDIR") {
        let rest = text[at + variable.len()..].trim_start_matches(['}', '"', '\'']);
        let Some(path) = rest.strip_prefix('/') else { continue };
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-+@/".contains(letter);
        let end = path.find(|letter| !plain(letter)).unwrap_or(path.len());
        // What a variable or a pattern goes on with is not the whole name.
        let whole = !path[end..].starts_with(['$', '*', '?', '[', '{']);
        let directory = path[..end].ends_with('/');
        let path = Path::new(path[..end].trim_end_matches('/'));
        let path = if whole || directory { path } else { path.parent().unwrap_or(path) };
        if !path.as_os_str().is_empty() && path.components().all(|part| matches!(part, Component::Normal(_))) {
            all.push(path.to_owned());
        }
    }
    all.sort();
    all.dedup();
    all
}

/// Makes the directories that a command names and the artifact directory has; gives the files of earlier builds
/// that it names.
pub(super) fn prepare(cx: &BuildContext<'_>, text: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in named(text) {
        let there = cx.artifact_dir.join(&path);
        let directory = if there.is_dir() { Some(path.as_path()) } else { path.parent() };
        if let Some(directory) = directory.filter(|directory| cx.artifact_dir.join(directory).is_dir()) {
            let ours = cx.artifacts.join(directory);
            fs::create_dir_all(&ours).with_context(|| format!("making {}", ours.display()))?;
        }
        if there.is_file() && !cx.artifacts.join(&path).exists() {
            files.push(path);
        }
    }
    Ok(files)
}

/// Says of files of earlier builds that a command did not see them, unless it made them itself.
pub(super) fn report(cx: &BuildContext<'_>, files: &[PathBuf]) {
    for path in files.iter().filter(|path| !cx.artifacts.join(path).exists()) {
        let shown = path.display();
        cx.warn(format!(
            "`$ARTIFACTDIR/{shown}` is of an earlier build, so this command does not see it; it can come into the root \
             by `overlay` or `unpack` with `origin: artifacts`"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_as_far_as_they_are_plain() {
        let text = "cp a \"${ARTIFACTDIR}/output/x.img\"; rm $ARTIFACTDIR/*.gz; cd $ARTIFACTDIR && ls ${ARTIFACTDIR}/a/$b \
                    ${ARTIFACTDIR}\"/c\" $ARTIFACTDIR/../d";
        let paths: Vec<String> = named(text).iter().map(|path| path.display().to_string()).collect();
        assert_eq!(paths, ["a", "c", "output/x.img"]);
    }
}
