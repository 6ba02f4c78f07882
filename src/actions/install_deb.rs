//! The action `install-deb`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::apt::{self, Access, Options};
use crate::build::origin::Origin;
use crate::build::{BuildContext, CheckContext, FileKind, InputContext};
use crate::debian::sources::Sources;
use crate::diagnostics::{Diagnostics, Fault};

/// Install .deb files.
///
/// ```yaml
/// - action: install-deb
///   packages: [debs/*.deb, extra/tool_1.0_all.deb]
/// ```
///
/// apt installs them, with what they depend on from the repositories that the root is set up for. The
/// files stand beside the recipe, or where `origin` says: among the artifacts, in the root, or in a
/// download. A pattern that fits no file is an error; `*` does not go into directories.
///
/// ```yaml
/// - action: download
///   url: https://mirror.example/tool_1.0_all.deb
///   name: tool
///   sha256sum: 7f83b1657ff1fc53b92dc18148a1d65dfc2d4b1fa3d677284addd200126d9069
///
/// - action: install-deb
///   origin: tool
/// ```
///
/// Packages' scripts, and apt's configuration in the root, are as for `apt`.
///
/// **Compared with debos**: dependencies are downloaded once and kept; in a recipe within a recipe the
/// origin `recipe` is that recipe's own directory.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct InstallDeb {
    /// Files or globs below the origin; left out where the origin is a single file.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Where the files are: recipe, artifacts, filesystem, or the name of a download.
    #[serde(default = "super::defaults::recipe_origin")]
    pub origin: String,
    /// Whether recommended packages are installed too.
    #[serde(default)]
    pub recommends: bool,
    /// Whether packages of repositories may be installed that are not signed, or not with a known key.
    #[serde(default)]
    pub unauthenticated: bool,
    /// Whether the package lists are brought up to date first. Within one build every repository is
    /// asked once in any case.
    #[serde(default = "super::defaults::yes")]
    pub update: bool,
    /// Whether the packages' scripts have the network, with the name servers of this machine; else they have a loopback
    /// of their own. What one of them downloads is not noticed when it changes.
    #[serde(default = "super::defaults::yes")]
    pub network: bool,
}

/// Files below a directory that a pattern fits, relative to it and sorted.
fn matching(directory: &Path, pattern: &str) -> Result<BTreeSet<PathBuf>> {
    let top = glob::Pattern::escape(&directory.display().to_string());
    let options = glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::default() };
    let mut found = BTreeSet::new();
    for path in glob::glob_with(&format!("{top}/{pattern}"), options).with_context(|| format!("reading `{pattern}`"))? {
        let path = path.with_context(|| format!("looking for `{pattern}`"))?;
        if let Ok(below) = path.strip_prefix(directory) {
            found.insert(below.to_owned());
        }
    }
    Ok(found)
}

/// Whether a pattern fits any file beside the recipe.
fn fits_any(cx: &CheckContext<'_>, pattern: &str) -> bool {
    let mut places = vec![cx.recipe_dir.to_owned()];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        // `**` goes any number of directories down, and what is no pattern was found before.
        let Some(part) = glob::Pattern::new(part).ok().filter(|_| part != "**") else {
            // At the end it is directories alone.
            return !pattern.ends_with("**");
        };
        let fits = |name: &OsString| part.matches(&name.to_string_lossy());
        let below =
            |place: &PathBuf| cx.files.names(place).into_iter().filter(fits).map(|name| place.join(name)).collect();
        places = places.iter().flat_map(|place| -> Vec<PathBuf> { below(place) }).collect();
    }
    places.iter().any(|place| cx.files.kind(place) == Some(FileKind::File))
}

fn no_match(pattern: &str, origin: &str) -> Fault {
    let place = match Origin::named(origin) {
        Origin::Recipe => "beside the recipe".to_owned(),
        Origin::Artifacts => "among the artifacts".to_owned(),
        Origin::Filesystem => "in the root".to_owned(),
        Origin::Download(name) => format!("in the download `{name}`"),
    };
    Fault::recipe(format!("`{pattern}` fits no file {place}"))
}

impl InstallDeb {
    /// The files of the origin that the patterns fit, each once.
    fn files(&self, cx: &BuildContext<'_>) -> Result<Vec<PathBuf>> {
        if self.packages.is_empty() {
            return Ok(vec![PathBuf::new()]);
        }
        // Held as long as it is read: it may be an open descriptor.
        let origin = match Origin::named(&self.origin) {
            Origin::Artifacts => None,
            _ => Some(cx.locate(&self.origin, "")?),
        };
        let directories = match &origin {
            Some(origin) => vec![origin.path.as_path()],
            None => vec![cx.artifacts, cx.artifact_dir],
        };
        let mut all: Vec<PathBuf> = Vec::new();
        for pattern in &self.packages {
            let pattern = pattern.trim_start_matches('/');
            let mut found = BTreeSet::new();
            for directory in &directories {
                found.extend(matching(directory, pattern)?);
            }
            if found.is_empty() {
                return Err(no_match(pattern, &self.origin).into());
            }
            all.extend(found.into_iter().filter(|path| !all.contains(path)).collect::<Vec<_>>());
        }
        Ok(all)
    }
}

impl Action for InstallDeb {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        let known = cx.check_origin("origin", &self.origin, out);
        if self.packages.is_empty() && known && !matches!(Origin::named(&self.origin), Origin::Download(_)) {
            out.push(
                cx.error("packages", "`install-deb` needs `packages`")
                    .hint("only a `download` that is a single file can be installed without naming it"),
            );
        }
        for (index, pattern) in self.packages.iter().enumerate() {
            let place = format!("packages[{index}]");
            if let Err(why) = glob::Pattern::new(pattern) {
                out.push(cx.error(&place, format!("`{pattern}` is no pattern: {}", why.msg)));
            } else if Path::new(pattern).components().any(|part| part == Component::ParentDir) {
                out.push(cx.error(&place, format!("`{pattern}` leads out of the origin")));
            } else if known && self.origin == "recipe" && !pattern.contains(['*', '?', '[']) {
                if cx.check_recipe_file(&place, pattern, out).is_some_and(|kind| kind != FileKind::File) {
                    out.push(
                        cx.error(&place, format!("`{pattern}` is no file"))
                            .hint(format!("for all packages in a directory: `{}/*.deb`", pattern.trim_matches('/'))),
                    );
                }
            } else if known && self.origin == "recipe" && !fits_any(cx, pattern) {
                let hint = format!("it is looked for below {}", cx.recipe_dir.display());
                out.push(cx.error(&place, no_match(pattern, &self.origin).message).hint(hint));
            }
        }
        apt::check_root(cx, out);
    }

    fn nature(&self) -> Nature {
        Nature {
            // 3: nothing of packages is left in /run and /tmp. 4: scripts have the network, and start no daemon. 5: copies of
            // this machine's name servers go.
            version: 5,
            changes: Changes::ROOT,
            root: RootUse::Used,
            reads: Reads {
                artifacts: Origin::named(&self.origin).is_made(),
                repositories: true,
                image: false,
                host: false,
            },
            needs: Needs { tools: apt::TOOLS.into(), network: true, emulation: true },
            artifacts: Vec::new(),
            removes: Vec::new(),
            works_on_disk: false,
            postprocess: false,
        }
    }

    fn wants_device(&self, _cx: &CheckContext<'_>) -> bool {
        false
    }

    fn image(&self, _cx: ImageSurroundings<'_>) -> ImageRole {
        ImageRole::None
    }

    fn release_after(&self, _before: Option<String>) -> Option<String> {
        None
    }

    fn summary(&self) -> String {
        if self.packages.is_empty() { self.origin.clone() } else { self.packages.join(", ") }
    }

    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        let directory = match Origin::named(&self.origin) {
            Origin::Recipe => Some(cx.recipe_dir),
            Origin::Artifacts => Some(cx.artifact_dir),
            // What the root and downloads have follows from the steps before.
            Origin::Filesystem | Origin::Download(_) => None,
        };
        for pattern in directory.map_or(&[][..], |_| &self.packages) {
            let pattern = pattern.trim_start_matches('/');
            let directory = directory.unwrap_or(Path::new("/"));
            let found = matching(directory, pattern)?;
            if found.is_empty() && self.origin == "recipe" {
                return Err(no_match(pattern, &self.origin).into());
            }
            for path in found {
                let shown = path.display().to_string();
                if self.origin == "recipe" || !cx.is_planned(&shown) {
                    cx.add_tree(&shown, &directory.join(&path))?;
                }
            }
        }
        apt::add_inputs(cx, Sources::default(), Access::default(), self.unauthenticated)
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let mut located = Vec::new();
        for path in self.files(cx)? {
            located.push(cx.locate(&self.origin, &path.display().to_string())?);
        }
        let files: Vec<(PathBuf, PathBuf)> =
            located.iter().map(|file| (file.path.clone(), file.name.clone())).collect();
        let Self { recommends, unauthenticated, network, .. } = *self;
        let options = Options { recommends, unauthenticated, network, ..Options::default() };
        // Of the version that is installed, too: what the recipe has is meant, and it may be another build of it.
        let words = ["install", "--reinstall"].map(str::to_owned);
        cx.detail = apt::install(cx, Sources::default(), options, &words, &files)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stay_in_one_directory() {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir(top.path().join("more")).unwrap();
        for name in ["b.deb", "a.deb", "a.txt", "more/c.deb"] {
            std::fs::write(top.path().join(name), "").unwrap();
        }
        let names = |pattern| matching(top.path(), pattern).unwrap().into_iter().collect::<Vec<_>>();
        assert_eq!(names("*.deb"), [Path::new("a.deb"), Path::new("b.deb")]);
        assert_eq!(names("*/*.deb"), [Path::new("more/c.deb")]);
        assert_eq!(names("more/c.deb"), [Path::new("more/c.deb")]);
        assert!(names("*.rpm").is_empty());
    }
}
