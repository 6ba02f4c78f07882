//! The action `ostree-commit`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::pack::{check_artifact_name, tool_version};
use super::signing::Signing;
use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::ostree::{OSTREE, commit};
use crate::build::{BuildContext, CheckContext, InputContext, gpg, packages, protected};
use crate::diagnostics::{Diagnostics, Fault};
use crate::ostree::Repository;
use crate::ostree::repository::{is_branch, is_checksum};
use crate::store::Store;

/// Commit the root to an OSTree repository.
///
/// ```yaml
/// - action: ostree-commit
///   repository: repo
///   branch: debian/trixie/server/{{ architecture }}
///   subject: Server of {{ version }}
///   metadata:
///     version: "{{ version }}"
/// ```
///
/// The repository is a directory among the artifacts; it is made where it is not there (`mode`), and any
/// web server can hand it out. What earlier builds committed stays in it. A commit with all its files is
/// there before the branch leads to it, so a build that is interrupted leaves a repository that is whole.
///
/// A root that `ostree-prepare` made ready has its /etc at /usr/etc in the commit, and an empty /var: what
/// came there later, and no tmpfiles.d makes, is refused. Other roots are committed as they are. /dev is
/// empty; devices, pipes and sockets elsewhere are refused. The commit is dated `timestamp`, or else SOURCE_DATE_EPOCH, and names no
/// parent unless it is told to: then the same root gives the same commit, whoever builds it, wherever.
///
/// `parent: branch` makes a history: the parent is what the branch is at, unless that was made by the same
/// steps, so that building twice adds nothing.
///
/// `deltas` names commits that clients may have; each client then fetches one file instead of many small
/// ones. `empty` is for clients that have nothing, `previous` for the commit that the branch is at before
/// the build.
///
/// With `sign` the commit and the summary are signed by GPG, which is what Debian's OSTree can verify; the
/// key is given as to the action `sign`. `/usr/share/sbom/system.spdx.json` of the commit lists all
/// packages (SPDX 2.3).
///
/// When the build is done the repository's summary is brought up to date, and with `prune` commits that no
/// branch needs are removed: that many before the last of each branch are kept.
///
/// **Compared with debos**: the repository is made; the same bytes each time, `parent`, `timestamp`, `sign`,
/// `deltas`, `prune`, the list of packages; no root is needed.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OstreeCommit {
    /// Directory of the repository, in the artifact directory.
    pub repository: String,
    /// The branch that gets the commit: `debian/trixie/server/amd64`.
    pub branch: String,
    /// One line that describes the commit; the branch's name where it is left out.
    #[serde(default)]
    pub subject: Option<String>,
    /// Further lines.
    #[serde(default)]
    pub body: Option<String>,
    /// Id of the collection that the repository belongs to: a domain name backwards.
    #[serde(default)]
    pub collection_id: Option<String>,
    /// Branches that the commit says it belongs to, beside its own.
    #[serde(default)]
    pub ref_binding: Vec<String>,
    /// Keys and texts that are kept in the commit: `version`.
    #[serde(default)]
    pub metadata: BTreeMap<String, String>,
    /// The commit before it: `none`, `branch`, or a commit's checksum.
    #[serde(default = "none")]
    pub parent: String,
    /// Seconds since 1970 that it is dated; SOURCE_DATE_EPOCH where it is left out.
    #[serde(default)]
    pub timestamp: Option<i64>,
    /// How a repository that is made keeps files: `archive`, `bare-user` or `bare`.
    #[serde(default)]
    pub mode: Mode,
    /// Who signs.
    #[serde(default)]
    pub sign: Option<Signing>,
    /// Static deltas to the commit: from `previous`, `empty`, branches, or checksums of commits.
    #[serde(default)]
    pub deltas: Vec<String>,
    /// Whether the commit has a list of its packages.
    #[serde(default = "super::defaults::yes")]
    pub sbom: bool,
    /// Whether the repository has a summary of its branches.
    #[serde(default = "super::defaults::yes")]
    pub summary: bool,
    /// How many commits before the last are kept of each branch; all where it is left out.
    #[serde(default)]
    pub prune: Option<u32>,
}

fn none() -> String {
    "none".into()
}

/// See [`OstreeCommit::mode`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Compressed files, for web servers.
    #[default]
    Archive,
    /// Files as they are, owners aside.
    BareUser,
    /// Files as they are.
    Bare,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Self::Archive => "archive",
            Self::BareUser => "bare-user",
            Self::Bare => "bare",
        }
    }
}

/// What inputs are called.
const PARENT: &str = "parent commit";
const BUILT_ON: &str = "built on";

/// Where the list of packages is in a commit.
const SBOM: &str = "/usr/share/sbom/system.spdx.json";

/// Reports what is no place for a repository.
pub(super) fn check_repository(cx: &CheckContext<'_>, property: &str, name: &str, out: &mut Diagnostics) {
    check_artifact_name(cx, property, name, out);
}

/// Reports what OSTree does not take for a branch.
pub(super) fn check_branch(cx: &CheckContext<'_>, property: &str, name: &str, out: &mut Diagnostics) {
    if !is_branch(name) {
        out.push(
            cx.error(property, format!("`{name}` is not the name of a branch"))
                .hint("words of letters, digits and `-._`, with slashes between them: `debian/trixie/amd64`"),
        );
    }
}

impl OstreeCommit {
    /// What stands for the commit among the artifacts.
    fn artifact(&self) -> String {
        branch_artifact(&self.repository, &self.branch)
    }

    fn earlier(&self, artifacts: &Path) -> Result<Option<Repository>> {
        Repository::open(&artifacts.join(&self.repository))
    }

    /// What the branch was at before a commit was made of this root: that commit takes no place in a history of its
    /// own making.
    fn before(&self, store: &Store, artifacts: &Path, built_on: &str) -> Result<Option<String>> {
        let Some(head) = self.earlier(artifacts)?.and_then(|earlier| earlier.head(&self.branch)) else {
            return Ok(None);
        };
        match store.recall(&fact(&head)) {
            Some(known) if known["built-on"] == built_on => Ok(known["before"].as_str().map(str::to_owned)),
            _ => Ok(Some(head)),
        }
    }

    /// The commit that a branch or checksum stands for.
    fn resolve(&self, name: &str, artifacts: &Path) -> Result<String> {
        match self.earlier(artifacts)? {
            Some(earlier) => earlier.resolve(name),
            None => Err(Fault::failed(format!("there is no repository `{}` with `{name}`", self.repository)).into()),
        }
    }
}

/// What stands for a branch among the artifacts: its file in the repository.
pub(super) fn branch_artifact(repository: &str, branch: &str) -> String {
    format!("{}/refs/heads/{branch}", repository.trim_end_matches('/'))
}

/// Under which key it is kept how a commit came to be.
fn fact(commit: &str) -> String {
    format!("ostree-commit-{commit}")
}

impl Action for OstreeCommit {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        check_repository(cx, "repository", &self.repository, out);
        check_branch(cx, "branch", &self.branch, out);
        for (index, branch) in self.ref_binding.iter().enumerate() {
            check_branch(cx, &format!("ref-binding[{index}]"), branch, out);
        }
        if !cx.has_root {
            out.push(
                cx.error("", "there is no root to commit yet")
                    .hint("an action before this one must make it: `mmdebstrap`, `debootstrap` or `unpack`"),
            );
        }
        if !["none", "branch"].contains(&self.parent.as_str()) && !is_checksum(&self.parent) {
            out.push(
                cx.error("parent", format!("`{}` is no commit", self.parent))
                    .hint("`none`, `branch` for what the branch is at, or the 64 hex digits of a commit"),
            );
        }
        if self.subject.as_ref().is_some_and(|subject| subject.contains('\n')) {
            out.push(cx.error("subject", "a subject is one line").hint("`body` takes more"));
        }
        for (index, from) in self.deltas.iter().enumerate() {
            if from != "previous" && from != "empty" && !is_checksum(from) && !is_branch(from) {
                out.push(cx.error(&format!("deltas[{index}]"), format!("`{from}` is no commit")));
            }
        }
        if !self.deltas.is_empty() && self.mode != Mode::Archive {
            out.push(cx.error("deltas", "only clients of an `archive` repository use deltas"));
        }
        if let Some(key) = self.metadata.keys().find(|key| key.is_empty() || key.contains('=')) {
            out.push(cx.error("metadata", format!("`{key}` cannot be a key")));
        }
        if let Some(id) = self.collection_id.as_ref().filter(|id| !id.contains('.')) {
            out.push(
                cx.error("collection-id", format!("`{id}` is no id of a collection"))
                    .hint("a domain name backwards: `org.example.Os`"),
            );
        }
        if let Some(signing) = &self.sign {
            signing.check(cx, out);
        }
    }

    fn artifact_tree(&self) -> Option<&str> {
        Some(&self.repository)
    }

    fn nature(&self) -> Nature {
        Nature {
            // 2: a prepared root's /var is left out.
            version: 2,
            changes: Changes::ARTIFACTS,
            root: RootUse::Used,
            reads: Reads::NOTHING,
            needs: Needs::tools([OSTREE].into_iter().chain(self.sign.as_ref().map(|_| gpg::GPG))),
            artifacts: vec![self.artifact()],
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
        format!("{} → {}", self.branch, self.repository)
    }

    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        cx.add("tool ostree", tool_version("ostree"));
        let earlier = self.earlier(cx.artifact_dir)?;
        // What the objects look like.
        cx.add("mode of the repository", earlier.map_or(self.mode.name(), |earlier| earlier.mode.name()));
        let built_on = cx.previous.to_string();
        let before = self.before(cx.store, cx.artifact_dir, &built_on)?;
        match self.parent.as_str() {
            "none" => {}
            "branch" => cx.add(PARENT, before.clone().unwrap_or_default()),
            commit => cx.add(PARENT, commit),
        }
        for name in self.deltas.iter().filter(|name| *name != "empty") {
            let from = match name.as_str() {
                "previous" => before.clone(),
                name => Some(self.resolve(name, cx.artifact_dir)?),
            };
            cx.add(format!("delta from {name}"), from.unwrap_or_default());
        }
        cx.add(BUILT_ON, built_on);
        self.sign.as_ref().map_or(Ok(()), |signing| signing.inputs(cx))
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let parent = cx.input(PARENT).filter(|parent| !parent.is_empty()).map(str::to_owned);
        let signer = self.sign.as_ref().map(|signing| signing.signer(cx)).transpose()?;
        let mut deltas = Vec::new();
        for name in &self.deltas {
            match cx.input(&format!("delta from {name}")) {
                None => deltas.push(None),
                Some("") => cx.log(format!("no delta from {name}: there is no such commit yet")),
                Some(from) => deltas.push(Some(from.to_owned())),
            }
        }
        protected::warn(cx, "a commit")?;
        let sbom = self.sbom.then(|| packages::sbom(cx.root, "system", cx.source_date_epoch)).transpose()?;
        let wanted = commit::Commit {
            repository: &self.repository,
            mode: self.mode.name(),
            collection: self.collection_id.as_deref(),
            branch: &self.branch,
            bindings: &self.ref_binding,
            subject: self.subject.as_deref().unwrap_or(&self.branch),
            body: self.body.as_deref(),
            parent,
            metadata: &self.metadata,
            timestamp: self.timestamp.unwrap_or(cx.source_date_epoch),
            sbom: sbom.map(|bytes| (SBOM, bytes)),
            signer,
            deltas,
        };
        let (head, shown) = commit::commit(cx, &wanted)?;
        let built_on = cx.input(BUILT_ON).unwrap_or_default();
        let before = self.before(cx.store, cx.artifact_dir, built_on)?.filter(|before| *before != head);
        cx.store.remember(&fact(&head), &json!({ "built-on": built_on, "before": before }));
        cx.log(format!("{} is at {head}", self.branch));
        cx.detail = shown;
        Ok(())
    }

    fn published(&self, cx: &BuildContext<'_>) -> Result<()> {
        let signer = self.sign.as_ref().map(|signing| signing.signer(cx)).transpose()?;
        let upkeep = commit::Upkeep { summary: self.summary, prune: self.prune, signer };
        commit::keep_up(cx, &self.repository, &upkeep).context("looking after the repository")
    }
}
