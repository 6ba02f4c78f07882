//! Mirrors that cannot be reached: what people read then.

use std::fs;

use crate::harness::Project;

/// The whole output of a build that wants packages from a mirror.
fn transcript(mirror: &str) -> Option<String> {
    let project = Project::new().tiny(&format!(
        "  - action: apt\n    packages: [one]\n    repositories:\n      - {{name: tests, uris: ['{mirror}'], suites: [stable]}}\n"
    ))?;
    let before = fs::read_dir(project.path(".")).unwrap().count();
    let finished = project.build([]).code(1);
    assert_eq!(fs::read_dir(project.path(".")).unwrap().count(), before, "artifacts of nothing");
    Some(finished.transcript())
}

macro_rules! transcript {
    ($mirror:expr) => {
        match transcript($mirror) {
            Some(transcript) => transcript.replace(debforge::debian::Architecture::host().name(), "[ARCHITECTURE]"),
            None => skip!("needs a static busybox (package busybox-static)"),
        }
    };
}

#[test]
fn nobody_listens() {
    needs_root!();
    insta::assert_snapshot!(transcript!("http://127.0.0.1:1/debian"));
}

#[test]
fn no_such_host() {
    needs_root!();
    // What a machine says that has no name server at all.
    let without = "Temporary failure in name resolution";
    let transcript = transcript!("http://mirror.invalid/debian").replace(without, "Name or service not known");
    insta::assert_snapshot!(transcript);
}
