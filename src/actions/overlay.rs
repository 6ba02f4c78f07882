//! The action `overlay`.

mod copy;
mod inherited;
mod mode;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path};

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::copy::Copier;
use self::inherited::Inherited;
use self::mode::FileMode;
use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::accounts::Accounts;
use crate::build::inside::{Inside, Kind, shown};
use crate::build::origin::Origin;
use crate::build::{BuildContext, CheckContext, FileKind, InputContext};
use crate::diagnostics::{Diagnostics, Fault, suggest};

/// Copy files into the target root.
///
/// ```yaml
/// - action: overlay
///   source: overlays/ssh
///   destination: /etc/ssh
/// ```
///
/// Where `source` is a directory, what is *in* it is copied to `destination`, directory by directory;
/// files that are there already are replaced, others stay. Where it is a file, `destination` is its
/// new path; if that ends in `/` or is a directory in the root, the file keeps its name and goes into
/// it. Directories that are missing are made (root's, mode 0755).
///
/// Modes, extended attributes, capabilities, ACLs, links and hard links come along; but not an ACL or a
/// set-group-id bit that the recipe's directory gives to all that is made in it. Everything
/// belongs to root, unless `owner` and `group` say otherwise; copies within the root (`origin:
/// filesystem`) keep their owners. Directories that the root already has keep their owner and mode.
/// The copies are dated by the build, so that a fresh checkout of the recipe gives the same image.
///
/// A link in the root that stands in the way is followed inside the root where it leads to a
/// directory (`/lib` → `usr/lib`), and replaced where a file comes to its place. A file never
/// replaces a directory, nor a directory a file: that is an error.
///
/// A private key for one service, and a greeting that is written for each build:
///
/// ```yaml
/// - action: overlay
///   source: keys/server.pem
///   destination: /etc/myservice/
///   owner: myservice
///   group: myservice
///   mode: "0600"
///
/// - action: overlay
///   source: templates/motd
///   destination: /etc/motd
///   render: true
/// ```
///
/// **Compared with debos**: owners, modes, extended attributes and hard links are kept or set; links
/// are never followed out of the root; `owner`, `group`, `mode` and `render` are new.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Overlay {
    /// File or directory below the origin; the origin itself where it is left out.
    #[serde(default)]
    pub source: Option<String>,
    /// Where the files are: `recipe` (beside the recipe), `artifacts`, `filesystem` (the root), or the
    /// `name` of a `download`.
    #[serde(default = "super::defaults::recipe_origin")]
    pub origin: String,
    /// Where they go in the root.
    #[serde(default = "super::defaults::slash")]
    pub destination: String,
    /// Owner of what is copied: a name that the root's /etc/passwd has, or a number.
    #[serde(default)]
    pub owner: Option<String>,
    /// Group of what is copied: a name that the root's /etc/group has, or a number. Where only
    /// `owner` is given, root.
    #[serde(default)]
    pub group: Option<String>,
    /// Mode of the files, not of directories: octal (`0644`), or changes as chmod takes them
    /// (`u=rw,go-w`).
    #[serde(default)]
    pub mode: Option<String>,
    /// Whether the files are Jinja templates: they are rendered with the variables that the recipe was given and
    /// the texts that it sets at its top level, where an undefined one is an error.
    #[serde(default)]
    pub render: bool,
}

impl Overlay {
    fn source(&self) -> &str {
        self.source.as_deref().unwrap_or("")
    }

    /// A user or group by name or number.
    fn account<'a>(
        what: &str,
        said: Option<&str>,
        find: impl Fn(&str) -> Option<u32>,
        names: impl Iterator<Item = &'a str>,
    ) -> Result<Option<u32>> {
        let Some(said) = said else { return Ok(None) };
        if let Some(number) = said.parse().ok().or_else(|| find(said)) {
            return Ok(Some(number));
        }
        let fault = Fault::failed(format!("the root has no {what} `{said}`"));
        let fault = match suggest(said, names) {
            Some(close) => fault.hint(format!("did you mean `{close}`?")),
            None => fault.hint(format!("the packages that bring the {what} must be installed before this action")),
        };
        Err(fault.into())
    }
}

impl Action for Overlay {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        check_destination(cx, "destination", &self.destination, out);
        if self.source().is_empty() && !cx.spans.values.contains_key("origin") {
            out.push(
                cx.error("", "`overlay` needs `source` or `origin`")
                    .hint("`source` names what is copied, `origin` alone a download, or a whole directory"),
            );
        } else if cx.check_origin("origin", &self.origin, out) && self.origin == "recipe" {
            let property = if self.source.is_some() { "source" } else { "origin" };
            if cx.check_recipe_file(property, self.source(), out) == Some(FileKind::Other) {
                out.push(cx.error(property, format!("`{}` is neither a file nor a directory", self.source())));
            }
        }
        if let Some(mode) = &self.mode
            && FileMode::parse(mode).is_none()
        {
            out.push(
                cx.error("mode", format!("`{mode}` is not a mode"))
                    .hint("a mode is octal as in `0644`, or changes as in `u=rw,go-w`"),
            );
        }
    }

    fn nature(&self) -> Nature {
        Nature {
            version: 1,
            changes: Changes::ROOT,
            root: RootUse::Used,
            reads: Reads {
                artifacts: Origin::named(&self.origin).is_made(),
                repositories: false,
                image: false,
                host: false,
            },
            needs: Needs::NOTHING,
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

    fn summary(&self) -> String {
        let source = match (self.source(), self.origin.as_str()) {
            ("", origin) => origin.to_owned(),
            (source, "recipe") => source.to_owned(),
            (source, origin) => format!("{origin}:{source}"),
        };
        format!("{source} → {}", self.destination)
    }

    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        let source = self.source().trim_start_matches('/');
        let path = match Origin::named(&self.origin) {
            Origin::Recipe => cx.recipe_dir.join(source),
            Origin::Artifacts if !cx.is_planned(source) => cx.artifact_dir.join(source),
            // What the root, downloads and planned artifacts have follows from the steps before.
            Origin::Artifacts | Origin::Filesystem | Origin::Download(_) => {
                if self.render {
                    let variables = serde_json::to_string(cx.variables).context("writing the variables down")?;
                    cx.add("variables of the recipe", variables);
                }
                return Ok(());
            }
        };
        let top = path.canonicalize().with_context(|| format!("looking for {}", path.display()))?;
        let shown = if source.is_empty() { "." } else { source };
        cx.add_tree(shown, &top)?;
        let mut linked: BTreeMap<(u64, u64), Vec<String>> = BTreeMap::new();
        for entry in walkdir::WalkDir::new(&top).sort_by_file_name() {
            let entry = entry.with_context(|| format!("reading {}", top.display()))?;
            let meta = entry.metadata().with_context(|| format!("reading {}", entry.path().display()))?;
            let below = entry.path().strip_prefix(&top).unwrap_or(entry.path()).display().to_string();
            if meta.is_file() && meta.nlink() > 1 {
                linked.entry((meta.dev(), meta.ino())).or_default().push(below.clone());
            }
            if self.render && meta.is_file() {
                let text = copy::read_text(entry.path())?;
                let rendered = (cx.render)(&below, &text, cx.variables)?;
                cx.add(format!("rendered {shown}/{below}"), blake3::hash(rendered.as_bytes()).to_hex().to_string());
            }
        }
        let mut groups: Vec<_> = linked.into_values().filter(|names| names.len() > 1).collect();
        groups.sort();
        if !groups.is_empty() {
            cx.add(format!("hard links of {shown}"), format!("{groups:?}"));
        }
        Ok(())
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let source = cx.locate(&self.origin, self.source())?;
        let inside = Inside::open(cx.root)?;
        let accounts = Accounts::of(&inside)?;
        let uid = Self::account("user", self.owner.as_deref(), |name| accounts.user(name), accounts.user_names())?;
        let gid = Self::account("group", self.group.as_deref(), |name| accounts.group(name), accounts.group_names())?;
        let keep = self.origin == "filesystem" && uid.is_none() && gid.is_none();
        let mut copier = Copier::new(cx, &inside);
        copier.owner = (!keep).then(|| (uid.unwrap_or(0), gid.unwrap_or(0)));
        copier.mode = self.mode.as_deref().and_then(FileMode::parse);
        copier.render = self.render;
        let destination = shown(Path::new(&self.destination));
        copier.shown(&source.path, self.source(), &self.origin);
        if self.origin == "recipe"
            && let Some(directory) = source.path.parent()
        {
            copier.inherited = Inherited::from(directory)?;
            if copier.inherited.any() {
                cx.log(format!(
                    "what files have from {} (ACLs, the set-group-id bit) is not copied",
                    directory.display()
                ));
            }
        }
        if fs::metadata(&source.path).with_context(|| format!("looking at {}", source.path.display()))?.is_dir() {
            inside.create_dir_all(&destination)?;
            if self.origin == "filesystem"
                && inside.resolve(&destination)?.starts_with(inside.resolve(Path::new(self.source()))?)
            {
                let message = format!("/{} cannot be copied into itself", self.source().trim_start_matches('/'));
                return Err(Fault::failed(message).into());
            }
            copier.directory(&source.path, &destination)?;
        } else {
            let into = self.destination.ends_with('/') || inside.kind(&destination)? == Some(Kind::Directory);
            let target = if into { destination.join(&source.name) } else { destination };
            if let Some(parent) = target.parent() {
                inside.create_dir_all(parent)?;
            }
            copier.file_itself(&source.path, &target)?;
        }
        cx.detail = match copier.files {
            1 => "1 file".to_owned(),
            files => format!("{files} files"),
        };
        Ok(())
    }
}

/// Reports a path in the root that is not absolute or climbs.
pub(super) fn check_destination(cx: &CheckContext<'_>, property: &str, path: &str, out: &mut Diagnostics) {
    if Path::new(path).components().any(|part| part == Component::ParentDir) {
        out.push(cx.error(property, format!("`{path}` climbs with `..`")).hint("write the path as it is in the root"));
    } else if path.is_empty() {
        out.push(cx.error(property, format!("`{property}` is empty")).hint("`/` is the root itself"));
    } else if !path.starts_with('/') {
        out.push(
            cx.warning(property, format!("`{path}` is not absolute; it is taken from the root's top"))
                .hint(format!("write `/{path}`")),
        );
    }
}
