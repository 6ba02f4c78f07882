//! The action `recipe`.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::{BuildContext, CheckContext, FileKind, InputContext};
use crate::diagnostics::Diagnostics;

/// Run the actions of another recipe.
///
/// ```yaml
/// - action: recipe
///   recipe: common/network.yaml
///   variables:
///     hostname: board
///     wifi: true
/// ```
///
/// The actions of the other recipe take the place of this one. It is a recipe of its own: paths in it
/// (and its origin `recipe`) count from its own directory, and it knows only the variables given
/// here, and `architecture` — not the `-t` values of the command line. It must be for the same
/// architecture. Downloads and artifacts are shared: the names that its `download` actions give are
/// known to the actions that follow.
///
/// Parts of a recipe that are only text can as well be shared by Jinja's `include` and `import`,
/// which see all variables.
///
/// **Compared with debos**: faults of the other recipe are found before anything runs, with the chain
/// of recipes that led to them; its origin `recipe` is its own directory for every action; its
/// `sectorsize` counts.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RecipeAction {
    /// The other recipe, relative to this one.
    pub recipe: String,
    /// Variables that it gets, beside `architecture`.
    #[serde(default)]
    pub variables: BTreeMap<String, serde_json::Value>,
}

impl Action for RecipeAction {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        if self.recipe.is_empty() {
            out.push(cx.error("recipe", "the other recipe has no name"));
        } else if let Some(FileKind::Directory | FileKind::Other) = cx.check_recipe_file("recipe", &self.recipe, out) {
            out.push(cx.error("recipe", format!("`{}` is not a file", self.recipe)));
        }
    }

    fn nature(&self) -> Nature {
        Nature {
            version: 1,
            changes: Changes { root: true, artifacts: true, origin: false, write: false, outside: false },
            root: RootUse::Used,
            reads: Reads::NOTHING,
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
        self.recipe.clone()
    }

    fn inputs(&self, _cx: &mut InputContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Its actions were put in its place when the recipe was read.
    fn run(&self, _cx: &mut BuildContext<'_>) -> Result<()> {
        bail!("the actions of {} were not put in place of the action `recipe`", self.recipe)
    }
}
