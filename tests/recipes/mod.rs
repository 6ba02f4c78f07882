//! Recipes with their whole diagnostics.
//!
//! A recipe's variables stand in its first line: `# -t NAME:VALUE …`. What a recipe yields is a
//! snapshot; after a wanted change, `INSTA_UPDATE=always cargo test --test main recipes` writes them anew.

mod hostile;
mod properties;

use std::path::{Path, PathBuf};

use debforge::recipe::{self, DiskLoader, Options};

/// The recipes of a directory beside this file, without what they include.
fn recipes(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new("tests/recipes").join(directory);
    let mut found: Vec<PathBuf> = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    found.sort();
    assert!(!found.is_empty());
    found
}

fn options(path: &Path) -> Options {
    let text = std::fs::read_to_string(path).unwrap();
    let first = text.lines().next().unwrap_or_default();
    let words: Vec<&str> = first.strip_prefix("# ").unwrap_or_default().split(' ').collect();
    let variables = words
        .windows(2)
        .filter(|pair| pair[0] == "-t")
        .map(|pair| pair[1].split_once(':').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Options { variables, artifact_dir: "out".into(), ..Options::default() }
}

fn snapshot(kind: &str, path: &Path, text: &str) {
    let here = std::env::current_dir().unwrap();
    let text = text.replace(&here.display().to_string(), "HERE");
    let name = format!("{kind}-{}", path.file_stem().unwrap().to_string_lossy());
    insta::with_settings!({ prepend_module_to_snapshot => false, snapshot_path => format!("{kind}/snapshots"), omit_expression => true }, {
        insta::assert_snapshot!(name, text);
    });
}

#[test]
fn what_is_wrong_with_a_recipe_is_said_at_its_place() {
    for path in recipes("invalid") {
        let (recipe, diagnostics) = recipe::load(&path, &options(&path), &DiskLoader);
        let text = diagnostics.render(false);
        assert!(recipe.is_none(), "{} is a valid recipe", path.display());
        assert!(diagnostics.has_errors(), "{} has no errors", path.display());
        snapshot("invalid", &path, &text);
    }
}

#[test]
fn what_is_right_is_read_as_it_was_meant() {
    for path in recipes("valid") {
        let (recipe, diagnostics) = recipe::load(&path, &options(&path), &DiskLoader);
        let text = diagnostics.render(false);
        let recipe = recipe.unwrap_or_else(|| panic!("{}:\n{text}", path.display()));
        let mut shown = format!("architecture {}, sectors of {} bytes\n", recipe.architecture, recipe.sector_size);
        for step in &recipe.steps {
            let properties = serde_json::to_string_pretty(&step.properties).unwrap();
            shown += &format!("\n{} in `{}`: {properties}\n", step.kind, step.recipe_dir_shown);
            if let Some(description) = &step.description {
                shown += &format!("description: {description}\n");
            }
        }
        shown += &text;
        snapshot("valid", &path, &shown);
    }
}
