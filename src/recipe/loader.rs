//! Where recipes, their includes and the files beside them are read from.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::build::{FileKind, Files};
use crate::diagnostics::{Diagnostic, Source};

/// Reads the texts that a recipe is made of.
pub trait Loader: Files {
    /// The text of a file; an error is why it could not be read.
    fn read(&self, path: &Path) -> Result<String, String>;

    /// The path from the root of the file system, links not followed.
    fn absolute(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }

    /// The path with its links followed, to find out whether it leads out of the recipe's directory.
    fn canonical(&self, path: &Path) -> PathBuf {
        normalise(path)
    }
}

/// Recipes larger than this are no recipes.
const MAX_SIZE: u64 = 8 << 20;

/// Reads from the disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiskLoader;

impl Files for DiskLoader {
    fn kind(&self, path: &Path) -> Option<FileKind> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(if metadata.is_dir() {
            FileKind::Directory
        } else if metadata.is_file() {
            FileKind::File
        } else {
            FileKind::Other
        })
    }

    fn size(&self, path: &Path) -> Option<u64> {
        std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len())
    }

    fn names(&self, path: &Path) -> Vec<OsString> {
        let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
        let mut names: Vec<OsString> = entries.map(|entry| entry.file_name()).collect();
        names.sort();
        names
    }

    fn is_link(&self, path: &Path) -> bool {
        path.is_symlink()
    }

    fn text(&self, path: &Path) -> Option<String> {
        self.size(path).filter(|size| *size <= MAX_SIZE)?;
        std::fs::read_to_string(path).ok()
    }
}

impl Loader for DiskLoader {
    fn read(&self, path: &Path) -> Result<String, String> {
        let metadata = std::fs::metadata(path).map_err(|error| reason(&error))?;
        if metadata.is_dir() {
            return Err("it is a directory".into());
        }
        if metadata.len() > MAX_SIZE {
            return Err(format!("it is larger than {} MiB", MAX_SIZE >> 20));
        }
        let bytes = std::fs::read(path).map_err(|error| reason(&error))?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(error) => {
                let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = valid.iter().filter(|&&byte| byte == b'\n').count() + 1;
                Err(format!("line {line} is not UTF-8"))
            }
        }
    }

    fn absolute(&self, path: &Path) -> PathBuf {
        std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
    }

    fn canonical(&self, path: &Path) -> PathBuf {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        std::fs::canonicalize(path).unwrap_or_else(|_| normalise(path))
    }
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

/// Texts held in memory, for tests, benchmarks and fuzzing.
#[derive(Debug, Clone, Default)]
pub struct MemoryLoader {
    texts: BTreeMap<PathBuf, String>,
}

impl MemoryLoader {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with one more file.
    #[must_use]
    pub fn with(mut self, path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        self.texts.insert(path.into(), text.into());
        self
    }
}

impl Files for MemoryLoader {
    fn kind(&self, path: &Path) -> Option<FileKind> {
        let path = normalise(path);
        if self.texts.contains_key(&path) {
            Some(FileKind::File)
        } else if path.as_os_str().is_empty() || self.texts.keys().any(|file| file.starts_with(&path)) {
            Some(FileKind::Directory)
        } else {
            None
        }
    }

    fn size(&self, path: &Path) -> Option<u64> {
        self.texts.get(&normalise(path)).map(|text| text.len() as u64)
    }

    fn names(&self, path: &Path) -> Vec<OsString> {
        let path = normalise(path);
        let below = self.texts.keys().filter_map(|file| file.strip_prefix(&path).ok()?.components().next());
        let names: BTreeSet<OsString> = below.map(|name| name.as_os_str().to_owned()).collect();
        names.into_iter().collect()
    }

    fn is_link(&self, _path: &Path) -> bool {
        false
    }

    fn text(&self, path: &Path) -> Option<String> {
        self.texts.get(&normalise(path)).cloned()
    }
}

impl Loader for MemoryLoader {
    fn read(&self, path: &Path) -> Result<String, String> {
        self.texts.get(&normalise(path)).cloned().ok_or_else(|| "there is no such file".to_owned())
    }
}

/// The path without `.` and, as far as the path itself tells, without `..`.
pub(super) fn normalise(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => match out.components().next_back() {
                Some(Component::Normal(_)) => {
                    out.pop();
                }
                Some(Component::RootDir) => {}
                _ => out.push(".."),
            },
            other => out.push(other),
        }
    }
    out
}

/// `path` as seen from the directory `base`, by the paths alone.
pub(super) fn relative(path: &Path, base: &Path) -> PathBuf {
    let (path, base) = (normalise(path), normalise(base));
    let shared = path.components().zip(base.components()).take_while(|(a, b)| a == b).count();
    let mut out: PathBuf = base.components().skip(shared).map(|_| Component::ParentDir).collect();
    out.extend(path.components().skip(shared));
    out
}

/// The directory of a recipe; the current one has a name too.
pub(super) fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

pub(super) fn read(path: &Path, loader: &dyn Loader) -> Result<Arc<Source>, String> {
    let name = if path.is_absolute() { path.to_owned() } else { normalise(path) };
    let text = loader.read(path)?;
    // Some editors start a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned);
    Ok(Arc::new(Source { name: name.display().to_string(), text }))
}

pub(super) fn cannot_read(path: &Path, why: &str) -> Diagnostic {
    Diagnostic::error(format!("cannot read the recipe `{}`: {why}", path.display()), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_normalised_without_the_disk() {
        for (given, expected) in
            [("./a/../b", "b"), ("../a", "../a"), ("/../a", "/a"), ("a/./b/", "a/b"), ("a/../../b", "../b"), (".", "")]
        {
            assert_eq!(normalise(Path::new(given)), Path::new(expected), "{given}");
        }
    }

    #[test]
    fn a_path_is_shown_from_another_directory() {
        for (path, base, expected) in [("a/b", "a", "b"), ("a", "a", ""), ("b", "a", "../b"), ("x/y", "", "x/y")] {
            assert_eq!(relative(Path::new(path), Path::new(base)), Path::new(expected), "{path} from {base}");
        }
    }
}
