//! The action `ostree-bundle`.

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::artifact::Output;
use super::ostree_commit::{branch_artifact, check_branch, check_repository};
use super::pack::{check_artifact_name, tool_version};
use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::ostree::OSTREE;
use crate::build::ostree::deploy::repository_with;
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::{Diagnostics, size_shown};
use crate::ostree::Repository;
use crate::ostree::repository::is_checksum;

/// Make a file that updates a system without a network.
///
/// ```yaml
/// - action: ostree-bundle
///   repository: repo
///   branch: debian/trixie/server/amd64
///   from: debian/trixie/server/previous
///   file: update.bundle
/// ```
///
/// The file is a static delta with everything in it: what a machine that has the commit `from` lacks of the
/// commit that the branch is at. Without `from` it has the whole commit. On the machine:
///
/// ```sh
/// ostree static-delta apply-offline update.bundle
/// ostree admin deploy CHECKSUM
/// ```
///
/// The signatures of the commit are in the file.
///
/// **Compared with debos**: there is no such action there.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OstreeBundle {
    /// Repository in the artifact directory.
    pub repository: String,
    /// Branch whose commit the file leads to.
    pub branch: String,
    /// Name of the file in the artifact directory.
    pub file: String,
    /// The commit that machines have: a branch of the repository or a checksum; none where it is left out.
    #[serde(default)]
    pub from: Option<String>,
}

const FROM: &str = "from commit";

impl OstreeBundle {
    /// The checksum of `from` among the artifacts of earlier builds.
    fn from(&self, artifacts: &std::path::Path) -> Result<Option<String>> {
        let Some(from) = &self.from else { return Ok(None) };
        let Some(repository) = Repository::open(&artifacts.join(&self.repository))? else {
            return Ok(is_checksum(from).then(|| from.clone()));
        };
        repository.resolve(from).map(Some)
    }
}

impl Action for OstreeBundle {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        check_repository(cx, "repository", &self.repository, out);
        check_branch(cx, "branch", &self.branch, out);
        check_artifact_name(cx, "file", &self.file, out);
        let mut known = |property: &str, branch: &str| {
            let artifact = branch_artifact(&self.repository, branch);
            let there = cx.any_artifacts
                || cx.artifacts.contains(&artifact)
                || cx.files.kind(&cx.artifact_dir.join(&artifact)).is_some();
            if !there {
                out.push(
                    cx.error(property, format!("the repository `{}` has no branch `{branch}`", self.repository))
                        .hint("an `ostree-commit` before this action, or an earlier build, makes it"),
                );
            }
        };
        known("branch", &self.branch);
        if let Some(from) = self.from.as_deref().filter(|from| !is_checksum(from)) {
            known("from", from);
        }
    }

    fn nature(&self) -> Nature {
        Nature {
            version: 1,
            changes: Changes::ARTIFACTS,
            root: RootUse::Unused,
            reads: Reads::ARTIFACTS,
            needs: Needs::tools([OSTREE]),
            artifacts: vec![self.file.clone()],
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
        format!("{} → {}", self.branch, self.file)
    }

    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        cx.add("tool ostree", tool_version("ostree"));
        if !cx.is_planned(&branch_artifact(&self.repository, &self.branch)) {
            let repository = Repository::open(&cx.artifact_dir.join(&self.repository))?;
            let head = repository.and_then(|repository| repository.head(&self.branch)).unwrap_or_default();
            cx.add(format!("commit of {}", self.branch), head);
        }
        if let Some(from) = &self.from
            && !cx.is_planned(&branch_artifact(&self.repository, from))
        {
            cx.add(FROM, self.from(cx.artifact_dir)?.unwrap_or_default());
        }
        Ok(())
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let (repository, to) = repository_with(cx, &self.repository, &self.branch)?;
        // Commits of this build and of earlier ones come together in a repository of this step's own.
        let work = cx.scratch.join("repo");
        let work = work.to_str().context("the scratch directory's path is not UTF-8")?;
        let here = format!("--repo={work}");
        cx.host_alone(["ostree", "init", &here, "--mode=bare-user"]).run("making a repository for the bundle")?;
        let mut wanted = vec![(repository, to.clone())];
        let from = match (&self.from, cx.input(FROM)) {
            (None, _) => None,
            (Some(_), Some(from)) if !from.is_empty() => {
                let earlier = Repository::open(&cx.artifact_dir.join(&self.repository))?;
                wanted.push((earlier.context("the repository is gone")?, from.to_owned()));
                Some(from.to_owned())
            }
            (Some(from), _) => {
                let (repository, from) = repository_with(cx, &self.repository, from)?;
                wanted.push((repository, from.clone()));
                Some(from)
            }
        };
        for (repository, commit) in wanted {
            let source = repository.path.to_str().context("the repository's path is not UTF-8")?;
            cx.host_alone(["ostree", "pull-local", &here, source, &commit])
                .bind(&repository.path, &repository.path, true)
                .run("collecting the bundle's commits")?;
        }
        let output = Output::begin(cx, &self.file)?;
        let file = format!("--filename={}", output.path().display());
        let to = format!("--to={to}");
        let from = from.map_or("--empty".to_owned(), |from| format!("--from={from}"));
        let words =
            ["ostree", "static-delta", "generate", &here, "--inline", "--min-fallback-size=0", &file, &to, &from];
        cx.host_alone(words).writable(cx.artifacts).run("making the bundle")?;
        cx.detail = size_shown(output.finish()?);
        Ok(())
    }
}
