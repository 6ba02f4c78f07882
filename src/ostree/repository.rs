//! A repository on disk, read without libostree.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::object::{Commit, Directory, File};
use crate::diagnostics::Fault;

/// How a repository keeps files (ostree-repo-config(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As they are, owners included.
    Bare,
    /// With owners in an attribute of the repository's user.
    BareUser,
    /// Without owners.
    BareUserOnly,
    /// Compressed one by one, to be fetched over HTTP.
    Archive,
}

impl Mode {
    /// As in the configuration and in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::BareUser => "bare-user",
            Self::BareUserOnly => "bare-user-only",
            Self::Archive => "archive",
        }
    }

    fn named(name: &str) -> Option<Self> {
        [Self::Bare, Self::BareUser, Self::BareUserOnly, Self::Archive]
            .into_iter()
            .find(|mode| mode.name() == name)
            .or_else(|| (name == "archive-z2").then_some(Self::Archive))
    }
}

/// An OSTree repository.
#[derive(Debug, Clone)]
pub struct Repository {
    /// Its directory.
    pub path: PathBuf,
    /// How it keeps files.
    pub mode: Mode,
}

impl Repository {
    /// The repository in a directory; `None` where there is none.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        let config = path.join("config");
        if !path.join("objects").is_dir() || !config.is_file() {
            return Ok(None);
        }
        let text = fs::read_to_string(&config).with_context(|| format!("reading {}", config.display()))?;
        let mode = text.lines().find_map(|line| line.trim().strip_prefix("mode=")).unwrap_or("bare").trim().to_owned();
        let Some(mode) = Mode::named(&mode) else {
            bail!("{} has files kept as `{mode}`, which debforge cannot read", path.display());
        };
        Ok(Some(Self { path: path.to_owned(), mode }))
    }

    /// Makes the directories that libostree wants even where nothing is in them.
    pub fn complete(&self) -> Result<()> {
        for name in ["extensions", "refs/heads", "refs/mirrors", "refs/remotes", "state", "tmp"] {
            let path = self.path.join(name);
            fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        }
        Ok(())
    }

    /// The commit that a branch is at.
    pub fn head(&self, branch: &str) -> Option<String> {
        let text = fs::read_to_string(self.path.join("refs/heads").join(branch)).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_checksum(commit))
    }

    /// The commit that a branch, a full checksum or its beginning stands for.
    pub fn resolve(&self, name: &str) -> Result<String> {
        if let Some(commit) = self.head(name) {
            return Ok(commit);
        }
        if is_checksum(name) && self.object(name, "commit").exists() {
            return Ok(name.to_owned());
        }
        let mut fault = Fault::failed(format!("{} has no branch or commit `{name}`", self.path.display()));
        let branches = self.branches()?;
        if !branches.is_empty() {
            fault = fault.hint(format!("it has {}", branches.join(", ")));
        }
        Err(fault.into())
    }

    /// All branches, sorted.
    pub fn branches(&self) -> Result<Vec<String>> {
        let top = self.path.join("refs/heads");
        let mut branches = Vec::new();
        for entry in walkdir::WalkDir::new(&top).min_depth(1).sort_by_file_name() {
            let Ok(entry) = entry else { continue };
            if entry.file_type().is_file() {
                branches.push(entry.path().strip_prefix(&top)?.display().to_string());
            }
        }
        Ok(branches)
    }

    /// Where an object is, of the kind that its ending names.
    pub(super) fn object(&self, checksum: &str, kind: &str) -> PathBuf {
        let (directory, name) = checksum.split_at(checksum.len().min(2));
        self.path.join("objects").join(directory).join(format!("{name}.{kind}"))
    }

    /// Bytes that an object takes in the repository; of files, too, whatever their ending there is.
    pub fn size(&self, checksum: &str, kind: &str) -> u64 {
        let kind = match (kind, self.mode) {
            ("file", Mode::Archive) => "filez",
            (kind, _) => kind,
        };
        self.object(checksum, kind).symlink_metadata().map_or(0, |meta| meta.len())
    }

    /// The repository and the commit that `repo:branch` names, the commit also by its checksum; of a repository alone
    /// its only branch.
    pub fn of_name(name: &Path) -> Result<Option<(Self, String)>> {
        if let Some(repository) = Self::open(name)? {
            let branches = repository.branches()?;
            let [branch] = branches.as_slice() else {
                return Err(Fault::recipe(format!("{} has {} branches", name.display(), branches.len()))
                    .hint(format!(
                        "name one: {}",
                        branches
                            .iter()
                            .map(|branch| format!("{}:{branch}", name.display()))
                            .collect::<Vec<_>>()
                            .join(", ")
                    ))
                    .into());
            };
            let commit = repository.resolve(branch)?;
            return Ok(Some((repository, commit)));
        }
        let text = name.to_string_lossy();
        let Some((path, wanted)) = text.rsplit_once(':').filter(|_| !name.exists()) else { return Ok(None) };
        let Some(repository) = Self::open(Path::new(path))? else { return Ok(None) };
        let commit = repository.resolve(wanted)?;
        Ok(Some((repository, commit)))
    }

    /// The file that a commit is in.
    pub fn commit_file(&self, checksum: &str) -> PathBuf {
        self.object(checksum, "commit")
    }

    /// A commit.
    pub fn commit(&self, checksum: &str) -> Result<Commit> {
        Commit::parse(&self.read(checksum, "commit")?).with_context(|| format!("reading the commit {checksum}"))
    }

    /// A directory's names.
    pub fn directory(&self, checksum: &str) -> Result<Directory> {
        Directory::parse(&self.read(checksum, "dirtree")?).with_context(|| format!("reading the directory {checksum}"))
    }

    /// A file, link or directory's owner and mode.
    pub(super) fn read(&self, checksum: &str, kind: &str) -> Result<Vec<u8>> {
        let path = self.object(checksum, kind);
        fs::read(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// The text of a file of a commit, by its path; `None` where there is no such file.
    pub fn text(&self, commit: &str, path: &str) -> Result<Option<String>> {
        let Some(file) = self.find(commit, path)? else { return Ok(None) };
        let bytes = File::open(self, &file)?.contents()?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The checksum of a file in a commit.
    fn find(&self, commit: &str, path: &str) -> Result<Option<String>> {
        let mut directory = self.directory(&self.commit(commit)?.tree)?;
        let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return Ok(directory.files.into_iter().find(|(name, _)| name == part).map(|(_, file)| file));
            }
            let Some((_, tree, _)) = directory.directories.into_iter().find(|(name, ..)| name == part) else {
                return Ok(None);
            };
            directory = self.directory(&tree)?;
        }
        Ok(None)
    }
}

/// Whether it is a whole SHA-256 in hex digits.
pub fn is_checksum(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether OSTree takes it for a branch: words of letters, digits and `-._` that begin with a letter or digit, with
/// slashes between them (`ostree_validate_rev`).
pub fn is_branch(name: &str) -> bool {
    let word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
    };
    !name.is_empty() && name.split('/').all(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_are_words_with_slashes_between() {
        for good in ["debian/trixie/amd64", "a", "os/x86_64-v2.1"] {
            assert!(is_branch(good), "{good}");
        }
        for bad in ["", "/a", "a/", "a//b", "-a", "a b", "a/../b", "é"] {
            assert!(!is_branch(bad), "{bad}");
        }
        assert!(is_checksum(&"0af".repeat(22)[..64]));
        assert!(!is_checksum("abc"));
    }
}
