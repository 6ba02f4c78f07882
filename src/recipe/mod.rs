//! From a recipe's text to typed actions: render, parse, check. Pure beyond the loader it is handed.

mod captures;
mod check;
mod dialect;
mod document;
mod front;
mod functions;
mod go;
mod header;
mod images;
mod lexer;
mod library;
mod loader;
mod nested;
mod origins;
mod properties;
mod rendered_files;
mod schema;
mod source_map;
mod template;
mod template_fault;
mod yaml;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::actions::Action;
use crate::debian::Architecture;
use crate::diagnostics::{Diagnostics, Spans};

use check::Loading;
pub use dialect::Dialect;
pub use loader::{DiskLoader, Loader, MemoryLoader};
pub use schema::schema;

/// A recipe that can be planned.
#[derive(Debug)]
pub struct Recipe {
    /// Path as the user gave it.
    pub path: PathBuf,
    /// What is built.
    pub architecture: Architecture,
    /// Of disk images, in bytes.
    pub sector_size: u32,
    /// What it wants to be built in.
    pub machine: MachineWish,
    /// Its actions and those of nested recipes, in order; without those whose `when` is false.
    pub steps: Vec<Step>,
    /// Every file that was read: the recipe, its includes, nested recipes.
    pub files: Vec<PathBuf>,
}

/// What a recipe wants to be built in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MachineWish {
    /// Whether a machine of its own and nothing less.
    pub required: bool,
    /// The least memory of such a machine, in MiB.
    pub memory: Option<u64>,
}

/// An action in its place.
#[derive(Debug)]
pub struct Step {
    /// As written after `action:`.
    pub kind: &'static str,
    /// What it does.
    pub action: Box<dyn Action>,
    /// Properties with defaults filled in.
    pub properties: Value,
    /// The author's own words.
    pub description: Option<String>,
    /// Directory of the recipe file it stands in.
    pub recipe_dir: PathBuf,
    /// That directory relative to the top recipe's, for ids and messages.
    pub recipe_dir_shown: String,
    /// Variables of the recipe it stands in.
    pub variables: Arc<BTreeMap<String, String>>,
    /// Where its parts stand.
    pub spans: Spans,
}

/// What the command line says about a recipe.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `-t NAME:VALUE`.
    pub variables: BTreeMap<String, String>,
    /// Where `include` and `import` look beside the recipe's own directory.
    pub template_dirs: Vec<PathBuf>,
    /// Where artifacts go and come from.
    pub artifact_dir: PathBuf,
    /// The language of all templates; where it is not given, each file's tags tell.
    pub dialect: Option<Dialect>,
    /// What becomes of keys and values that debos takes and that mean nothing.
    pub strictness: Strictness,
    /// Whether Go templates may use values that are others each time: dates, the environment, random numbers.
    pub impure: bool,
    /// Whether the program is used as debos: a recipe without tags is one of debos's.
    pub debos: bool,
}

/// What becomes of what debos takes and ignores, as unknown keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Strictness {
    /// Errors in recipes of ours, warnings in Go templates.
    #[default]
    ByDialect,
    /// Errors.
    Strict,
    /// Warnings.
    Lenient,
}

/// Reads a recipe with everything it includes. The recipe is there unless there are errors among the
/// diagnostics; warnings may come with either.
pub fn load(path: &Path, options: &Options, loader: &dyn Loader) -> (Option<Recipe>, Diagnostics) {
    let mut first = Loading::new(path, options, loader);
    let loaded = first.top(path);
    if !first.wants_device {
        return loaded;
    }
    // What a step wants of the image is known only when the image was described.
    let mut again = Loading::new(path, options, loader);
    again.mounts_images = true;
    again.top(path)
}

/// The recipe's text after its template was rendered, for `--print-recipe`.
pub fn print(path: &Path, options: &Options, loader: &dyn Loader) -> Result<String, Diagnostics> {
    Loading::new(path, options, loader).print(path)
}

/// The language that a text's tags are in, where they tell.
pub fn language(text: &str) -> Option<Dialect> {
    match dialect::detect(text) {
        dialect::Detected::Sure(dialect) => Some(dialect),
        _ => None,
    }
}

/// Renders a file that an `overlay` with `render` copies.
pub fn render_file(name: &str, text: &str, variables: &BTreeMap<String, String>) -> anyhow::Result<String> {
    template::render_text(name, text, variables)
}
