//! What an action works in while it runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::event::{Event, Reporter};
use super::image::Disk;
use super::inputs::Input;
use super::protected::Protected;
use crate::debian::Architecture;
use crate::diagnostics::{Fault, suggest};
use crate::image::Spec;
use crate::sandbox::Sandbox;
use crate::store::{EntryId, Store};

/// Renders a file's text, given its name for messages and the recipe's variables. The template
/// language belongs to the recipe, which stands above the actions; so it is handed down.
pub type RenderFile = fn(&str, &str, &BTreeMap<String, String>) -> Result<String>;

/// An action's surroundings while it runs.
pub struct BuildContext<'a> {
    /// Number of the step, from 1.
    pub step: usize,
    /// The target root, mounted and writable.
    pub root: &'a Path,
    /// Files of the root that chattr(1) protects, which a step that does not change it does not see on them.
    pub protected: &'a Protected,
    /// The image as a device, for steps that work in the mounted image.
    pub disk: Option<&'a Disk>,
    /// What is built.
    pub architecture: Architecture,
    /// Directory of the recipe file that the action stands in.
    pub recipe_dir: &'a Path,
    /// The files that the recipe was read from.
    pub recipe_files: &'a [PathBuf],
    /// What earlier builds left in the artifact directory.
    pub products: &'a [PathBuf],
    /// Where this build gathers artifacts: moved into the artifact directory when the build is done.
    pub artifacts: &'a Path,
    /// The user's artifact directory, for artifacts of earlier builds; not to be written.
    pub artifact_dir: &'a Path,
    /// Directory or file that each named `download` left.
    pub downloads: &'a BTreeMap<String, PathBuf>,
    /// The image as the steps before this one describe it.
    pub image: Option<&'a Spec>,
    /// Bytes that earlier steps keep for the image: the step's number, and a file.
    pub writes: &'a BTreeMap<usize, PathBuf>,
    /// An empty directory of the step's own on a real file system, removed afterwards. A `download`
    /// leaves its result in it and sets `origin`.
    pub scratch: &'a Path,
    /// Set by a `download` or `raw`: its result, relative to `scratch`.
    pub origin: Option<PathBuf>,
    /// The store.
    pub store: &'a Store,
    /// How commands are run here.
    pub sandbox: &'a Sandbox,
    /// Where events go.
    pub reporter: &'a dyn Reporter,
    /// The user's `-e` variables and proxies, for every process.
    pub environment: &'a BTreeMap<String, String>,
    /// Variables of the recipe, for files that are rendered.
    pub variables: &'a BTreeMap<String, String>,
    /// Renders files that an `overlay` copies as templates.
    pub render: RenderFile,
    /// Seconds since 1970 that files written by the build are dated; a function of the inputs.
    pub source_date_epoch: i64,
    /// What the step's id was made from.
    pub inputs: &'a [Input],
    /// Id of what came before the step, which its own id was made from, too.
    pub previous: Option<&'a EntryId>,
    /// What to show when the step is done: "78 packages, 111 MB".
    pub detail: String,
}

/// Names that a message lists.
const FEW: usize = 6;

impl BuildContext<'_> {
    /// The state of one of the step's inputs.
    pub fn input(&self, what: &str) -> Option<&str> {
        self.inputs.iter().find(|input| input.what == what).map(|input| input.state.as_str())
    }

    /// Says what is being done now.
    pub fn progress(&self, message: impl Into<String>, fraction: Option<(u64, u64)>) {
        self.reporter.report(Event::Progress { step: self.step, message: message.into(), fraction });
    }

    /// A line for the log.
    pub fn log(&self, line: impl Into<String>) {
        self.reporter.report(Event::Log { step: self.step, line: line.into() });
    }

    /// Something the user should know.
    pub fn warn(&self, message: impl Into<String>) {
        self.reporter.report(Event::Warning { step: Some(self.step), message: message.into() });
    }

    /// An existing artifact: of this build first, else of an earlier one.
    pub fn artifact(&self, name: &Path) -> Result<PathBuf> {
        [self.artifacts, self.artifact_dir]
            .iter()
            .map(|dir| dir.join(name))
            .find(|path| path.exists())
            .ok_or_else(|| self.no_artifact(name).into())
    }

    fn no_artifact(&self, name: &Path) -> Fault {
        let shown = name.display().to_string();
        let fault = Fault::failed(format!("there is no `{shown}` among the artifacts"));
        let names = |dir: &Path| {
            let directory = dir.join(name.parent().unwrap_or(Path::new("")));
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            entries
                .map(|entry| entry.path().strip_prefix(dir).unwrap_or(&entry.path()).display().to_string())
                .filter(|name| !name.starts_with('.'))
                .collect::<Vec<_>>()
        };
        let mut made = names(self.artifacts);
        made.sort();
        let all = names(self.artifact_dir).into_iter().chain(made.iter().cloned()).collect::<Vec<_>>();
        let fault = match suggest(&shown, all.iter().map(String::as_str)) {
            Some(close) => fault.hint(format!("did you mean `{close}`?")),
            None => fault,
        };
        fault.hint(match made.as_slice() {
            [] => "no step before this one has left anything in `$ARTIFACTDIR`".to_owned(),
            made => {
                let more = made.len().checked_sub(FEW).filter(|more| *more > 0);
                let more = more.map(|more| format!(" and {more} more")).unwrap_or_default();
                format!("the steps before this one have left {}{more}", made[..made.len().min(FEW)].join(", "))
            }
        })
    }
}
