//! What debos takes and ignores: a warning in its recipes, an error in ours, and as one asks.

use std::path::Path;

use debforge::recipe::{self, MemoryLoader, Options, Strictness};
use rstest::rstest;

/// A Go template's header.
const GO: &str = "architecture: {{ or .arch \"amd64\" }}\n";

fn checked(text: &str, strictness: Strictness) -> (bool, String) {
    let loader = MemoryLoader::new().with("r.yaml", text);
    let options = Options { strictness, ..Options::default() };
    let (recipe, diagnostics) = recipe::load(Path::new("r.yaml"), &options, &loader);
    (recipe.is_some(), diagnostics.render(false))
}

#[rstest]
#[case::a_property(
    "actions:\n  - action: mmdebstrap\n    suite: trixie\n  - action: pack\n    file: a.tar\n    compresion: gz\n",
    "unknown property `compresion`",
    "did you mean `compression`?"
)]
#[case::an_inner_property(
    "actions:\n  - action: mmdebstrap\n    suite: trixie\n  - action: image-partition\n    imagename: a.img\n    imagesize: 64MiB\n    partitiontype: gpt\n    partitions:\n      - name: a\n        fs: ext4\n        start: 1MiB\n        end: 100%\n        fsok: true\n",
    "unknown property `fsok`",
    "it is ignored, as in debos"
)]
#[case::a_header_key(
    "actons: 1\nactions:\n  - action: mmdebstrap\n    suite: trixie\n  - action: pack\n    file: a.tar\n",
    "unknown key `actons`",
    "did you mean `actions`?"
)]
#[case::a_key_twice(
    "actions:\n  - action: mmdebstrap\n    suite: trixie\n  - action: pack\n    file: a.tar\n    file: b.tar\n",
    "`file` is given twice",
    "first on line 6"
)]
#[case::no_value(
    "actions:\n  - action: mmdebstrap\n    suite: trixie\n  - action: pack\n    file: a.tar\n    compression:\n",
    "`compression` has no value",
    "left out"
)]
#[case::a_second_document(
    "actions:\n  - action: mmdebstrap\n    suite: trixie\n  - action: pack\n    file: a.tar\n---\nx: 1\n",
    "a second YAML document",
    "ignored"
)]
fn what_debos_ignores_is_a_warning_in_its_recipes_alone(#[case] rest: &str, #[case] message: &str, #[case] hint: &str) {
    let go = format!("{GO}{rest}");
    let plain = format!("architecture: amd64\n{rest}");
    for (text, strictness, good) in [
        (&go, Strictness::ByDialect, true),
        (&go, Strictness::Lenient, true),
        (&go, Strictness::Strict, false),
        (&plain, Strictness::ByDialect, false),
        (&plain, Strictness::Lenient, true),
    ] {
        let (loaded, said) = checked(text, strictness);
        assert_eq!(loaded, good, "{strictness:?}:\n{text}\n{said}");
        let severity = if good { "warning" } else { "error" };
        assert!(said.contains(&format!("{severity}: {message}")), "{strictness:?}:\n{said}");
        assert!(!good || said.contains(hint), "{strictness:?}:\n{said}");
    }
}

#[test]
fn the_last_of_a_key_given_twice_counts() {
    let loader = MemoryLoader::new()
        .with("r.yaml", format!("{GO}actions:\n  - action: mmdebstrap\n    suite: trixie\n  - action: pack\n    file: a.tar\n    file: b.tar\n"));
    let (recipe, _) = recipe::load(Path::new("r.yaml"), &Options::default(), &loader);
    assert_eq!(recipe.unwrap().steps[1].properties["file"], "b.tar");
}

#[test]
fn what_debos_refuses_stays_an_error() {
    for rest in [
        "actions:\n  - action: pakc\n    file: a.tar\n",
        "actions:\n  - action: mmdebstrap\n    suite: trixie\n  - action: pack\n",
        "actions: []\n",
        "actions:\n  - action: apt\n    packages: {a: b}\n",
    ] {
        let (loaded, said) = checked(&format!("{GO}{rest}"), Strictness::Lenient);
        assert!(!loaded, "{rest}\n{said}");
    }
}

#[test]
fn types_are_those_that_debos_takes() {
    let rest =
        "actions:\n  - action: mmdebstrap\n    suite: 12\n    merged-usr: yes\n  - action: pack\n    file: 007\n";
    let loader = MemoryLoader::new().with("r.yaml", format!("{GO}{rest}"));
    let (recipe, diagnostics) = recipe::load(Path::new("r.yaml"), &Options::default(), &loader);
    let recipe = recipe.unwrap_or_else(|| panic!("{}", diagnostics.render(false)));
    assert_eq!(recipe.steps[0].properties["suite"], "12");
    assert_eq!(recipe.steps[0].properties["merged-usr"], true);
    assert_eq!(recipe.steps[1].properties["file"], "007");
}

#[test]
fn whoever_stands_in_for_debos_takes_plain_recipes_as_it_does() {
    let text = "architecture: amd64\nactions:\n  - action: mmdebstrap\n    suite: trixie\n  - action: pack\n    file: a.tar\n    ignored: 1\n";
    let loader = MemoryLoader::new().with("r.yaml", text);
    let load = |debos| recipe::load(Path::new("r.yaml"), &Options { debos, ..Options::default() }, &loader).0;
    assert!(load(false).is_none());
    assert!(load(true).is_some());
}
