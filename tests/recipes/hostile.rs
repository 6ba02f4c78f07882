//! Recipes that mean harm: they end, soon, with a fault that says so.

use std::path::Path;
use std::time::{Duration, Instant};

use debforge::recipe::{self, DiskLoader, MemoryLoader, Options};

/// The faults of a recipe that must not be valid; a build machine that is busy has time.
fn faults(text: &str) -> String {
    let start = Instant::now();
    let loader = MemoryLoader::new().with("recipe", text);
    let (recipe, diagnostics) = recipe::load(Path::new("recipe"), &Options::default(), &loader);
    let printed = diagnostics.render(false);
    assert!(recipe.is_none(), "this is no recipe");
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}: {printed}", start.elapsed());
    printed
}

#[test]
fn a_template_that_never_ends_is_ended() {
    let endless = "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}";
    assert!(faults(endless).contains("the template does too much"));
    let doubling = "{% set ns = namespace(x='x') %}{% for i in range(200) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}";
    assert!(faults(doubling).contains("the template does too much"));
    assert!(faults("{{ 'x' | repeat(4000000000) }}").contains("the template does too much"));
    let circle = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
    assert!(faults(circle).contains("goes deeper"));
    faults(&"{% if true %}".repeat(10_000));
    faults(&format!("{{{{ {}1{} }}}}", "(".repeat(10_000), ")".repeat(10_000)));
}

#[test]
fn anchors_that_multiply_are_refused() {
    let mut text = String::from("architecture: amd64\n.a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..20 {
        let above = format!("*a{}", level - 1);
        text += &format!(".a{level}: &a{level} [{}]\n", [above.as_str(); 10].join(", "));
    }
    text += "actions:\n  - action: mmdebstrap\n    suite: trixie\n  - action: recipe\n    recipe: r\n    variables: {v: *a19}\n";
    assert!(faults(&text).contains("anchors make this larger"));
}

#[test]
fn merges_that_multiply_are_merged_once() {
    let mut text = String::from("architecture: amd64\n.a0: &a0 {unknown: x}\n");
    for level in 1..40 {
        let above = format!("*a{}", level - 1);
        text += &format!(".a{level}: &a{level} {{<<: [{}]}}\n", [above.as_str(); 10].join(", "));
    }
    text += "actions:\n  - action: mmdebstrap\n    suite: trixie\n    <<: *a12\n";
    assert!(faults(&text).contains("unknown property `unknown`"));
}

#[test]
fn nesting_without_end_is_refused() {
    assert!(faults(&"[".repeat(100_000)).contains("error"));
    assert!(faults(&"- ".repeat(100_000)).contains("error"));
    let mut text = String::from("architecture: amd64\n.a0: &a0 x\n");
    for level in 1..40 {
        let (open, close) = ("[".repeat(80), "]".repeat(80));
        text += &format!(".a{level}: &a{level} {open}*a{}{close}\n", level - 1);
    }
    text += "actions:\n  - action: recipe\n    recipe: r\n    variables: {v: *a39}\n";
    assert!(faults(&text).contains("anchors make this larger"));
}

#[test]
fn a_link_does_not_lead_an_include_out_of_the_recipes_directory() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret.yaml");
    std::fs::write(&secret, "secret: text\n").unwrap();
    let recipes = directory.path().join("recipes");
    std::fs::create_dir(&recipes).unwrap();
    std::os::unix::fs::symlink(&secret, recipes.join("link.yaml")).unwrap();
    let path = recipes.join("recipe.yaml");
    let refused = |name: &str| {
        std::fs::write(&path, format!("{{% include \"{name}\" %}}")).unwrap();
        let (_, diagnostics) = recipe::load(&path, &Options::default(), &DiskLoader);
        diagnostics.iter().any(|fault| fault.message.contains("outside of the recipe's directory"))
    };
    assert!(refused("link.yaml"));
    assert!(refused("../secret.yaml"));
    assert!(refused(&secret.display().to_string()));
    let allowed = Options { template_dirs: vec![directory.path().to_owned()], ..Options::default() };
    std::fs::write(&path, "{% include \"link.yaml\" %}").unwrap();
    let (_, diagnostics) = recipe::load(&path, &allowed, &DiskLoader);
    assert!(!diagnostics.iter().any(|fault| fault.message.contains("outside")), "{}", diagnostics.render(false));
}
