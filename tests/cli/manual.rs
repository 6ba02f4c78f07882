//! The manuals of actions, and what is generated from the code.

use std::fs;

use debforge::actions::{KINDS, find};
use debforge::cli::manual::{examples, manual};

use crate::harness::{Project, source_dir};

#[path = "../../contrib/generate/files.rs"]
mod files;

#[test]
fn generated_files_are_fresh() {
    let stale: Vec<String> = files::files()
        .into_iter()
        .filter(|(path, text)| fs::read_to_string(source_dir().join(path)).ok().as_ref() != Some(text))
        .map(|(path, _)| path.display().to_string())
        .collect();
    assert!(stale.is_empty(), "out of date, `./x generate` refreshes them:\n{}", stale.join("\n"));
}

#[test]
fn the_book_lists_every_page() {
    let source = source_dir().join("docs/src");
    let summary = fs::read_to_string(source.join("SUMMARY.md")).expect("the book's summary");
    for entry in walkdir::WalkDir::new(&source).into_iter().flatten() {
        let path = entry.path().strip_prefix(&source).expect("below the book").display().to_string();
        if path.ends_with(".md") && path != "SUMMARY.md" {
            assert!(summary.contains(&format!("({path})")), "SUMMARY.md does not name {path}");
        }
    }
}

#[test]
fn links_between_pages_of_the_book_lead_somewhere() {
    let source = source_dir().join("docs/src");
    let mut broken = Vec::new();
    for entry in walkdir::WalkDir::new(&source).into_iter().flatten() {
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let text = fs::read_to_string(path).expect("a page of the book");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            let local = !file.is_empty() && !file.contains("://");
            if local && !path.parent().expect("a directory").join(file).exists() {
                broken.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

#[test]
fn the_examples_in_manuals_are_read_by_their_actions() {
    for kind in KINDS {
        let examples = examples(&manual(kind).description);
        assert!(!examples.is_empty(), "the manual of {} has no example", kind.name);
        let mut own = 0;
        for example in examples {
            let actions: Vec<serde_json::Map<String, serde_json::Value>> = serde_yaml::from_str(&example)
                .unwrap_or_else(|error| {
                    panic!("the example of {} is no list of actions: {error}\n{example}", kind.name)
                });
            for mut properties in actions {
                let name = properties.remove("action").expect("`action` in an example");
                let name = name.as_str().expect("a name after `action`").to_owned();
                for common in ["description", "when"] {
                    properties.remove(common);
                }
                let decoded = (find(&name).expect("an action of the table").decode)(properties.into());
                if let Err(error) = decoded {
                    panic!("{name} in the manual of {}: {} {}", kind.name, error.property, error.message);
                }
                own += usize::from(name == kind.name);
            }
        }
        assert!(own > 0, "the example of {} does not show it", kind.name);
    }
}

#[test]
fn actions_lists_all_of_them() {
    let finished = Project::new().run(["actions"]).success();
    for kind in KINDS {
        assert!(finished.stdout.contains(kind.name), "{} in {finished}", kind.name);
    }
}

#[test]
fn actions_shows_the_manual_of_one() {
    Project::new()
        .run(["actions", "pack"])
        .success()
        .prints("pack\n")
        .prints("  file  (text, required)\n")
        .prints("Every action also takes `description` and `when`.");
}

#[test]
fn actions_suggests_a_name() {
    Project::new().run(["actions", "pakc"]).code(2).says("there is no action `pakc`").says("did you mean `pack`?");
}

#[test]
fn completions_are_printed_for_the_usual_shells() {
    let project = Project::new();
    for shell in ["bash", "zsh", "fish"] {
        project.run(["completions", shell]).success().prints("debforge");
    }
}

#[test]
fn the_schema_knows_every_action() {
    let finished = Project::new().run(["schema"]).success();
    let schema: serde_json::Value = serde_json::from_str(&finished.stdout).expect("JSON");
    assert!(schema["properties"]["actions"].is_object(), "{schema:#}");
    for kind in KINDS {
        assert!(finished.stdout.contains(&format!("\"{}\"", kind.name)), "{} in {finished}", kind.name);
    }
}
