//! A test file that no module declares would never run, and nobody would notice.

use std::fs;
use std::path::Path;

use super::source_dir;

#[test]
fn every_test_file_is_a_module() {
    let tests = source_dir().join("tests");
    let mut forgotten = Vec::new();
    for entry in walkdir::WalkDir::new(&tests).min_depth(1) {
        let entry = entry.expect("reading tests/");
        let path = entry.path();
        if path.extension().is_none_or(|extension| extension != "rs") || path == tests.join("main.rs") {
            continue;
        }
        let (parent, name) = declared_in(&tests, path);
        let declaration = format!("mod {name};");
        let text = fs::read_to_string(&parent).unwrap_or_default();
        let declared =
            text.lines().any(|line| line.trim() == declaration || line.trim() == format!("pub {declaration}"));
        if !declared {
            forgotten.push(format!("{} wants `{declaration}` in {}", path.display(), parent.display()));
        }
    }
    assert!(forgotten.is_empty(), "test files that never run:\n{}", forgotten.join("\n"));
}

/// The file that has to declare a module, and the module's name.
fn declared_in(tests: &Path, path: &Path) -> (std::path::PathBuf, String) {
    let is_mod = path.file_name().is_some_and(|name| name == "mod.rs");
    let module = if is_mod { path.parent().expect("below tests/") } else { path };
    let name = module.file_stem().expect("a name").to_string_lossy().into_owned();
    let above = module.parent().expect("below tests/");
    let parent = if above == tests { tests.join("main.rs") } else { above.join("mod.rs") };
    let parent = if parent.is_file() { parent } else { above.with_extension("rs") };
    (parent, name)
}
