//! The repositories that a root is set up for, and the keys that it verifies them with.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};

use super::settings::Settings;
use crate::build::files::RootFiles;
use crate::build::inside::{Inside, Kind};
use crate::debian::host::{SOURCES, sources_of};
use crate::debian::keyring;
use crate::debian::sources::{SignedBy, Sources};

/// The repositories of a root as one deb822 text that stands for itself, also when the root is not at hand: the
/// keys that each names are part of it, and so are apt's settings, as a comment.
pub fn sources_of_root(root: &Path) -> Result<String> {
    let (sources, _, settings) = read(root)?;
    Ok(settings.to_line()? + &sources.to_string())
}

/// The repositories of a root, with the keys that they name, as far as the root has them; and the keys that may have
/// signed those that name none, binary; and what apt's settings there say.
pub(super) fn read(root: &Path) -> Result<(Sources, Vec<u8>, Settings)> {
    let keys = Keys::open(root)?;
    let mut sources = sources_of(keys.files.names(SOURCES.1)?, &|path| keys.files.text(path))?;
    let trusted = keys.trusted()?;
    for source in &mut sources.0 {
        let Some(SignedBy::Named(names)) = &source.signed_by else { continue };
        let (files, fingerprints) =
            keyring::named(names).with_context(|| format!("reading `Signed-By: {}`", names.join(" ")))?;
        let mut found = if files.is_empty() { trusted.clone() } else { Vec::new() };
        for file in files {
            found.extend(keys.read(&file)?);
        }
        let found = keyring::with_fingerprints(found, &fingerprints).context("reading the root's keyrings")?;
        if !found.is_empty() {
            source.signed_by = Some(SignedBy::Key(keyring::armoured(&found).trim_end().to_owned()));
        }
    }
    let settings = Settings::of_root(&keys.files)?;
    settings.apply(&mut sources);
    Ok((sources, trusted, settings))
}

/// The keyrings of a root. A link in it leads to a file of it, never to one of the host.
struct Keys {
    files: RootFiles,
    inside: Inside,
}

impl Keys {
    fn open(root: &Path) -> Result<Self> {
        Ok(Self { files: RootFiles::open(root)?, inside: Inside::open(root)? })
    }

    /// What the root trusts, and the keys of Debian's archive where it has them.
    fn trusted(&self) -> Result<Vec<u8>> {
        let (file, directory) = keyring::TRUSTED;
        let mut all = self.read(file.as_ref())?;
        for name in self.files.names(directory)?.iter().filter(|name| keyring::is_keyring(name)) {
            all.extend(self.read(&Path::new(directory).join(name))?);
        }
        if let Some(archive) = keyring::DEBIAN_ARCHIVE.iter().find(|path| self.files.has(path)) {
            all.extend(self.read(archive.as_ref())?);
        }
        Ok(all)
    }

    /// The keys of a file; none where there is no such file.
    fn read(&self, path: &Path) -> Result<Vec<u8>> {
        let doing = || format!("reading the root's keyring {}", path.display());
        if self.inside.kind(path).with_context(doing)? != Some(Kind::File) {
            return Ok(Vec::new());
        }
        let mut contents = Vec::new();
        self.inside.read(path).and_then(|mut file| Ok(file.read_to_end(&mut contents)?)).with_context(doing)?;
        // `touch` makes such, and apt takes them for what they are.
        if contents.is_empty() { Ok(contents) } else { keyring::binary(&contents).with_context(doing) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

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
        let (sources, trusted, _) = read(root.path()).unwrap();
        let key = |source: usize| match &sources.0[source].signed_by {
            Some(SignedBy::Key(key)) => Some(keyring::binary(key.as_bytes()).unwrap()),
            _ => None,
        };
        assert_eq!((sources.0.len(), key(0), key(1)), (2, None, Some(vec![0x99, 2])));
        assert_eq!(trusted, [0x99, 1]);
        assert_eq!(Sources::from_deb822(&sources_of_root(root.path()).unwrap()).unwrap(), sources);
    }

    #[test]
    fn reads_both_formats_and_no_file_of_the_host() {
        let host = tempfile::tempdir().unwrap();
        fs::write(host.path().join("x.list"), "deb http://host.example trixie main\n").unwrap();
        let root = tempfile::tempdir().unwrap();
        let parts = root.path().join("etc/apt/sources.list.d");
        fs::create_dir_all(&parts).unwrap();
        fs::write(root.path().join("etc/apt/sources.list"), "deb http://a.example trixie main\n").unwrap();
        fs::write(parts.join("b.sources"), "Types: deb\nURIs: http://b.example\nSuites: x/\n").unwrap();
        fs::write(parts.join("c.sources.bak"), "nonsense").unwrap();
        symlink(host.path().join("x.list"), parts.join("d.list")).unwrap();
        let all = Sources::from_deb822(&sources_of_root(root.path()).unwrap()).unwrap();
        assert_eq!(
            all.suites().iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["http://a.example trixie", "http://b.example x/"]
        );
    }

    #[test]
    fn keys_of_the_host_are_none_of_the_root() {
        let host = tempfile::tempdir().unwrap();
        fs::write(host.path().join("k.gpg"), [0x99, 1]).unwrap();
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("etc/apt")).unwrap();
        symlink(host.path(), root.path().join("etc/apt/trusted.gpg.d")).unwrap();
        symlink(host.path().join("k.gpg"), root.path().join("k.gpg")).unwrap();
        let named = host.path().join("k.gpg");
        let list = format!(
            "deb [signed-by=/k.gpg] http://a.example x main\ndeb [signed-by={}] http://b.example x main\n",
            named.display()
        );
        fs::write(root.path().join("etc/apt/sources.list"), list).unwrap();
        let (sources, trusted, _) = read(root.path()).unwrap();
        assert!(sources.0.iter().all(|source| matches!(source.signed_by, Some(SignedBy::Named(_)))), "{sources}");
        assert_eq!(trusted, Vec::<u8>::new());
    }

    #[test]
    fn a_root_without_repositories_has_an_empty_text() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(sources_of_root(root.path()).unwrap(), "");
    }
}
