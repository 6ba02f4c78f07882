//! Origins: where an action's files come from.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::inside::Inside;
use super::{BuildContext, CheckContext};
use crate::diagnostics::{Diagnostics, Fault, suggest};

/// Where files come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin<'a> {
    /// The directory of the recipe file that the action stands in.
    Recipe,
    /// The artifact directory: what this build has left so far, else what an earlier one did.
    Artifacts,
    /// The target root.
    Filesystem,
    /// What the `download` of this name left: a file, or the directory of an unpacked archive.
    Download(&'a str),
}

/// A file or directory of an origin.
#[derive(Debug)]
pub struct Located {
    /// Path on the host.
    pub path: PathBuf,
    /// Its own name, to put it under: that of the path asked for, or of a downloaded file.
    pub name: PathBuf,
    /// Keeps `path` valid where it leads through an open descriptor.
    _open: Option<OwnedFd>,
}

impl<'a> Origin<'a> {
    /// By its name in a recipe.
    pub fn named(name: &'a str) -> Self {
        match name {
            "recipe" => Self::Recipe,
            "artifacts" => Self::Artifacts,
            "filesystem" => Self::Filesystem,
            download => Self::Download(download),
        }
    }

    /// Whether earlier steps of a build make what is there, beside the root.
    pub fn is_made(self) -> bool {
        matches!(self, Self::Artifacts | Self::Download(_))
    }
}

/// A path that is joined to an origin: `/` at its start means the origin itself.
fn below(origin: &Path, path: &str) -> PathBuf {
    let path = path.trim_start_matches('/');
    if path.is_empty() { origin.to_owned() } else { origin.join(path) }
}

impl CheckContext<'_> {
    /// Reports an origin that does not exist; whether it does.
    pub fn check_origin(&self, property: &str, name: &str, out: &mut Diagnostics) -> bool {
        let Origin::Download(download) = Origin::named(name) else { return true };
        if self.downloads.iter().any(|known| known == download) {
            return true;
        }
        let known = ["recipe", "artifacts", "filesystem"].into_iter().chain(self.downloads.iter().map(String::as_str));
        let diagnostic = self.error(property, format!("there is no origin `{name}`"));
        out.push(match suggest(name, known) {
            Some(close) => diagnostic.hint(format!("did you mean `{close}`?")),
            None => diagnostic.hint(
                "an origin is `recipe`, `artifacts`, `filesystem` or the `name` of a `download` before this action",
            ),
        });
        false
    }

    /// Reports a file that is not beside the recipe; what it is if it is there.
    pub fn check_recipe_file(&self, property: &str, path: &str, out: &mut Diagnostics) -> Option<super::FileKind> {
        let full = below(self.recipe_dir, path);
        let kind = self.files.kind(&full);
        if kind.is_none() {
            out.push(
                self.error(property, format!("there is no `{path}` beside the recipe"))
                    .hint(format!("it is looked for at {}", full.display())),
            );
        }
        kind
    }
}

impl BuildContext<'_> {
    /// A file or directory of an origin; `path` empty for the origin itself.
    ///
    /// In a target root and in a download links are followed as if the origin were `/`; the recipe's
    /// own links and those among the artifacts are the user's, and may lead anywhere.
    pub fn locate(&self, origin: &str, path: &str) -> Result<Located> {
        let plain = |path: PathBuf| -> Result<Located> {
            let path = path.canonicalize().with_context(|| format!("looking for {}", path.display()))?;
            Ok(Located { name: path.file_name().unwrap_or_default().into(), path, _open: None })
        };
        match Origin::named(origin) {
            Origin::Recipe => plain(below(self.recipe_dir, path)),
            Origin::Artifacts => plain(self.artifact(Path::new(path.trim_start_matches('/')))?),
            Origin::Filesystem => confined(self.root, path).with_context(|| "looking in the root".to_owned()),
            Origin::Download(name) => {
                let left = self
                    .downloads
                    .get(name)
                    .ok_or_else(|| Fault::recipe(format!("no `download` before this action is called `{name}`")))?;
                if left.is_dir() {
                    return confined(left, path).with_context(|| format!("looking in the download `{name}`"));
                }
                if !path.trim_matches('/').is_empty() {
                    return Err(Fault::recipe(format!(
                        "the download `{name}` is a single file, which has no `{path}`"
                    ))
                    .hint("leave the path out, or set `unpack: true` on the `download`")
                    .into());
                }
                plain(left.clone())
            }
        }
    }
}

fn confined(top: &Path, path: &str) -> Result<Located> {
    let inside = Inside::open(top)?;
    let (open, host) = inside.host_path(Path::new(path))?;
    // A name that ends in a link is known by the link's name, as with cp.
    let name = Path::new(path).file_name().unwrap_or_default().into();
    Ok(Located { path: host, name, _open: Some(open) })
}
