//! The recipes that come with debforge.

use std::fs;
use std::path::PathBuf;

use crate::harness::{Project, source_dir};

const ARCHITECTURES: [&str; 3] = ["amd64", "arm64", "riscv64"];

/// Every recipe below `recipes/`.
pub fn examples() -> Vec<PathBuf> {
    let yaml = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "yaml");
    let mut found: Vec<PathBuf> = walkdir::WalkDir::new(source_dir().join("recipes"))
        .into_iter()
        .flatten()
        .map(walkdir::DirEntry::into_path)
        .filter(yaml)
        .collect();
    found.sort();
    found
}

#[test]
fn every_example_is_a_good_recipe_for_every_architecture() {
    let project = Project::new();
    // What an example may begin with: the artifact of another.
    for architecture in ARCHITECTURES {
        project.write(&format!("base-{architecture}.tar.zst"), "");
    }
    let examples = examples();
    assert!(examples.len() >= 8, "{examples:?}");
    for example in examples {
        let path = example.display().to_string();
        let text = fs::read_to_string(&example).expect("a recipe");
        // A board has one architecture; tests/image/boards.rs checks them.
        if path.contains("/boards/") {
            continue;
        }
        for architecture in ARCHITECTURES {
            let arch = format!("arch:{architecture}");
            let mut args = vec!["check", &path, "--recipe-only", "-t", &arch];
            if text.contains("{{ mirror }}") {
                args.extend(["-t", "mirror:http://mirror.example/debian"]);
            }
            let finished = project.run(args).success();
            assert!(!finished.stderr.contains("warning"), "{finished}");
        }
    }
}

#[test]
fn every_example_begins_with_what_it_is_for() {
    for example in examples() {
        let text = fs::read_to_string(&example).expect("a recipe");
        assert!(text.starts_with("# "), "{} begins without a comment", example.display());
    }
}
