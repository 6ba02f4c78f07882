//! The repositories that a root is set up for, and the keys that it verifies them with.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};

use crate::build::files::RootFiles;
use crate::build::inside::{Inside, Kind};
use crate::debian::deb822::{self, Paragraph};
use crate::debian::host::{SOURCES, sources_of};
use crate::debian::keyring;
use crate::debian::sources::SignedBy;

/// The field with the keys that a root trusts for every repository, in a paragraph that is no repository.
const TRUSTED: &str = "X-Trusted-Keys";

/// The repositories of a root as one deb822 text that stands for itself: the keys that may have
/// signed each are part of it, and those for all that name none ([`trusted_keys`]), so that it says all even
/// when the root is not at hand.
pub fn sources_of_root(root: &Path) -> Result<String> {
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
            source.signed_by = Some(SignedBy::Key(keyring::armoured(&found)));
        }
    }
    let mut text = sources.to_string();
    if !text.is_empty() || !trusted.is_empty() {
        let mut own = Paragraph::default();
        own.set("Enabled", "no");
        own.set(TRUSTED, format!("\n{}", keyring::armoured(&trusted).trim()));
        let gap = if text.is_empty() { "" } else { "\n" };
        text.push_str(&format!("{gap}{own}"));
    }
    Ok(text)
}

/// The keys that a root trusts for every repository that names none, from its [`sources_of_root`]; `None` where
/// the text is not of a root that was there to be read.
pub(super) fn trusted_keys(sources: &str) -> Result<Option<Vec<u8>>> {
    let paragraphs = deb822::parse(sources).context("reading the root's repositories")?;
    let Some(armoured) = paragraphs.iter().find_map(|paragraph| paragraph.get(TRUSTED)) else { return Ok(None) };
    match keyring::binary(armoured.trim().as_bytes()) {
        Ok(keys) => Ok(Some(keys)),
        // Armour around nothing.
        Err(_) => Ok(Some(Vec::new())),
    }
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
        let key = |source: usize| match &sources.0[source].signed_by {
            Some(SignedBy::Key(key)) => Some(keyring::binary(key.as_bytes()).unwrap()),
            _ => None,
        };
        assert_eq!((sources.0.len(), key(0), key(1)), (2, None, Some(vec![0x99, 2])));
        assert_eq!(trusted_keys(&text).unwrap(), Some(vec![0x99, 1]));
        assert_eq!(trusted_keys(&sources.to_string()).unwrap(), None);
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
        let text = sources_of_root(root.path()).unwrap();
        let sources = Sources::from_deb822(&text).unwrap();
        assert!(sources.0.iter().all(|source| matches!(source.signed_by, Some(SignedBy::Named(_)))), "{text}");
        assert_eq!(trusted_keys(&text).unwrap(), Some(Vec::new()));
    }

    #[test]
    fn a_root_without_repositories_has_an_empty_text() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(sources_of_root(root.path()).unwrap(), "");
    }
}
