//! The repositories that a root is set up for.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::debian::host::sources_of;
use crate::debian::keyring;
use crate::debian::sources::SignedBy;

/// The repositories of a root as one deb822 text that stands for itself: the keys that may have
/// signed each are part of it, so that it says all even when the root is not at hand.
pub fn sources_of_root(root: &Path) -> Result<String> {
    let mut sources = sources_of(root)?;
    for source in &mut sources.0 {
        let (files, fingerprints) = match &source.signed_by {
            Some(SignedBy::Key(_)) => continue,
            Some(SignedBy::Named(names)) => {
                let (files, fingerprints) =
                    keyring::named(names, &[]).with_context(|| format!("reading `Signed-By: {}`", names.join(" ")))?;
                match files.as_slice() {
                    [] => (keyring::trusted(root), fingerprints),
                    files => (files.iter().map(|file| below(root, file)).collect(), fingerprints),
                }
            }
            None => (keyring::trusted(root), Vec::new()),
        };
        let mut keys = Vec::new();
        for file in files {
            // A link with an absolute target means a file of the root.
            let file = match fs::read_link(&file) {
                Ok(target) if target.is_absolute() => below(root, &target),
                _ => file,
            };
            match fs::read(&file) {
                Ok(contents) => keys.extend(
                    keyring::binary(&contents).with_context(|| format!("reading the keyring {}", file.display()))?,
                ),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("reading the keyring {}", file.display())),
            }
        }
        let keys = keyring::with_fingerprints(keys, &fingerprints).context("reading the root's keyrings")?;
        if !keys.is_empty() {
            source.signed_by = Some(SignedBy::Key(keyring::armoured(&keys)));
        }
    }
    Ok(sources.to_string())
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::debian::sources::Sources;

    #[test]
    fn keys_become_part_of_the_text() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/apt/trusted.gpg.d")).unwrap();
        fs::write(
            root.path().join("etc/apt/sources.list"),
            "deb http://a.example x main\ndeb [signed-by=/k.gpg] http://b.example x main\n",
        )
        .unwrap();
        fs::write(root.path().join("etc/apt/trusted.gpg.d/a.gpg"), [0x99, 1]).unwrap();
        fs::write(root.path().join("k.gpg"), [0x99, 2]).unwrap();
        let text = sources_of_root(root.path()).unwrap();
        let sources = Sources::from_deb822(&text).unwrap();
        let keys: Vec<_> = sources
            .0
            .iter()
            .map(|source| match &source.signed_by {
                Some(SignedBy::Key(key)) => keyring::binary(key.as_bytes()).unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(keys, [vec![0x99, 1], vec![0x99, 2]]);
    }

    #[test]
    fn a_root_without_repositories_has_an_empty_text() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(sources_of_root(root.path()).unwrap(), "");
    }
}
