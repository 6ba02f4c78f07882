//! What a command finds in the artifact directory because an earlier build, or the user, put it there.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::build::{BuildContext, InputContext};
use crate::store::digest::sha256;

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

/// What a file is called among the inputs.
fn shown(path: &Path) -> String {
    format!("$ARTIFACTDIR/{}", path.display())
}

/// What became of the named files when the command was last run after the same: those that the build
/// itself made, with the state that they had as inputs, and the digests of what it left and of what stood in the
/// artifact directory meanwhile, which stays there where the build fails later.
type Made = BTreeMap<PathBuf, (Option<String>, [String; 2])>;

/// Where that is kept: `who` tells commands apart.
fn key(previous: &crate::store::EntryId, who: &str) -> String {
    format!("earlier-2-{previous}-{}", blake3::hash(who.as_bytes()))
}

/// Adds the files that the command names and the artifact directory has. Of those that this build makes
/// itself, what is there was left by the one before: they count as they did when they were made.
pub(super) fn add(cx: &mut InputContext<'_>, text: &str, who: &str) -> Result<()> {
    let made: Made =
        cx.store.recall(&key(cx.previous, who)).and_then(|made| serde_json::from_value(made).ok()).unwrap_or_default();
    for path in named(text) {
        let there = cx.artifact_dir.join(&path);
        if let Some((state, known)) = made.get(&path)
            && (!there.is_file() || known.contains(&sha256(&there)?))
        {
            if let Some(state) = state {
                cx.add(format!("file {}", shown(&path)), state);
            }
            continue;
        }
        if there.is_file() && !path.to_str().is_none_or(|path| cx.is_planned(path)) {
            cx.add_tree(&shown(&path), &there)?;
        }
    }
    Ok(())
}

/// Files of earlier builds that were put before a command.
pub(super) struct Earlier {
    named: Vec<PathBuf>,
    /// Those that are of this build.
    ours: Vec<PathBuf>,
    /// Those that were put there, and how they were.
    lent: Vec<(PathBuf, State)>,
    /// Those that it does not see.
    unseen: Vec<PathBuf>,
}

type State = (u64, Option<SystemTime>, u64);

fn state(meta: &Metadata) -> State {
    use std::os::unix::fs::MetadataExt;
    (meta.len(), meta.modified().ok(), meta.ino())
}

/// Makes the directories that a command names and the artifact directory has, and copies the files there that
/// it names and that are among its inputs.
pub(super) fn prepare(cx: &BuildContext<'_>, text: &str) -> Result<Earlier> {
    let mut earlier = Earlier { named: named(text), ours: Vec::new(), lent: Vec::new(), unseen: Vec::new() };
    for path in &earlier.named {
        let there = cx.artifact_dir.join(path);
        let directory = if there.is_dir() { Some(path.as_path()) } else { path.parent() };
        if let Some(directory) = directory.filter(|directory| cx.artifact_dir.join(directory).is_dir()) {
            let ours = cx.artifacts.join(directory);
            fs::create_dir_all(&ours).with_context(|| format!("making {}", ours.display()))?;
        }
        let ours = cx.artifacts.join(path);
        if ours.symlink_metadata().is_ok() {
            earlier.ours.push(path.clone());
        } else if !there.is_file() {
        } else if cx.input(&format!("file {}", shown(path))).is_none() {
            earlier.unseen.push(path.clone());
        } else {
            let doing = || format!("copying {} of an earlier build", path.display());
            reflink_copy::reflink_or_copy(&there, &ours).with_context(doing)?;
            let meta = there.metadata().with_context(doing)?;
            fs::set_permissions(&ours, meta.permissions()).with_context(doing)?;
            filetime::set_file_mtime(&ours, filetime::FileTime::from_last_modification_time(&meta))
                .with_context(doing)?;
            earlier.lent.push((path.clone(), state(&ours.metadata().with_context(doing)?)));
        }
    }
    Ok(earlier)
}

impl Earlier {
    /// Takes away what the command left as it was, remembers what this build makes, and says what was not seen.
    pub(super) fn finish(self, cx: &BuildContext<'_>, who: &str) -> Result<()> {
        let mut lent = Vec::new();
        for (path, before) in self.lent {
            let ours = cx.artifacts.join(&path);
            if ours.symlink_metadata().is_ok_and(|meta| state(&meta) == before) {
                fs::remove_file(&ours).with_context(|| format!("taking {} away", ours.display()))?;
                lent.push(path);
            }
        }
        let here = |path: &PathBuf| self.ours.contains(path) || cx.artifacts.join(path).symlink_metadata().is_ok();
        let made: Made = self
            .named
            .iter()
            .filter(|path| here(path) && !lent.contains(path))
            .map(|path| {
                let before = cx.input(&format!("file {}", shown(path))).map(str::to_owned);
                let digest = |file: PathBuf| if file.is_file() { sha256(&file) } else { Ok(String::new()) };
                let known = [digest(cx.artifacts.join(path))?, digest(cx.artifact_dir.join(path))?];
                Ok((path.clone(), (before, known)))
            })
            .collect::<Result<_>>()?;
        if let (Some(previous), false) = (cx.previous, made.is_empty()) {
            cx.store.remember(&key(previous, who), &serde_json::to_value(&made)?);
        }
        for path in self.unseen.iter().filter(|path| !cx.artifacts.join(path).exists()) {
            let shown = path.display();
            cx.warn(format!(
                "`$ARTIFACTDIR/{shown}` is of an earlier build, so this command does not see it; it can come into the root \
                 by `overlay` or `unpack` with `origin: artifacts`"
            ));
        }
        Ok(())
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
