//! What holds of any text that somebody may call a recipe.

use std::path::Path;

use debforge::diagnostics::{Diagnostics, Span};
use debforge::recipe::{self, MemoryLoader, Options};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Pieces that recipes, and broken ones, are made of.
const WORDS: &[&str] = &[
    "architecture: amd64\n",
    "architecture: ",
    "actions:\n",
    "actions: []\n",
    "sectorsize: 512\n",
    "  - action: mmdebstrap\n",
    "    suite: trixie\n",
    "    suite: ",
    "  - action: apt\n",
    "    packages: [a, b]\n",
    "    packages:\n      - ",
    "  - action: run\n",
    "    command: |\n      echo\n",
    "    chroot: true\n",
    "    when: ",
    "    <<: *a\n",
    "    <<: [*a, *b]\n",
    ".x: &a\n",
    "  k: &b {c: d}\n",
    "- ",
    "  ",
    "\n",
    "\t",
    ": ",
    "\"",
    "'",
    "[",
    "]",
    "{",
    "}",
    "#",
    "|",
    ">",
    "&a ",
    "*a",
    "!t ",
    "--- ",
    "{{ ",
    " }}",
    "{{- ",
    " -}}",
    "{% ",
    " %}",
    "{%- ",
    " -%}",
    "{# ",
    " #}",
    "name",
    "other",
    " | upper",
    " | default('x')",
    "{% if name %}",
    "{% else %}",
    "{% endif %}",
    "{% for i in [1, 2] %}",
    "{% for i in name %}",
    "{% endfor %}",
    "{{ i }}",
    "{{ loop.index }}",
    "{% set s %}",
    "{% endset %}",
    "{{ s }}",
    "{% macro m(x) %}",
    "{% endmacro %}",
    "{{ m(1) }}",
    "{% call m(2) %}",
    "{% endcall %}",
    "{{ caller() }}",
    "{% filter trim %}",
    "{% endfilter %}",
    "{% raw %}",
    "{% endraw %}",
    "{% include 'part' %}",
    "{% include name %}",
    "{% extends 'part' %}",
    "{% import 'part' as p %}",
    "{{ p.q() }}",
    "{% block b %}",
    "{% endblock %}",
    "{{ super() }}",
    "  - action: recipe\n    recipe: part\n",
    "  - action: recipe\n    recipe: recipe\n",
    "ü",
    "日本",
    "\u{f8f0}",
    "\r\n",
    "\u{feff}",
    "\0",
    "0644",
    "true",
    "null",
    "~",
];

fn soup() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => vec(select(WORDS), 0..40).prop_map(|words| words.concat()),
        2 => vec(select(WORDS), 0..20).prop_map(|words| format!("architecture: amd64\nactions:\n{}", words.concat())),
        1 => any::<String>(),
    ]
}

fn load(recipe: &str, part: &str) -> (Option<recipe::Recipe>, Diagnostics) {
    let loader = MemoryLoader::new().with("recipe", recipe).with("part", part);
    let options = Options { variables: [("name".to_owned(), "part".to_owned())].into(), ..Options::default() };
    recipe::load(Path::new("recipe"), &options, &loader)
}

fn is_inside(span: &Span) -> bool {
    let text = &span.source.text;
    span.start <= span.end && text.is_char_boundary(span.start) && text.is_char_boundary(span.end)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_is_too_odd_to_be_read(recipe in soup(), part in soup()) {
        let (loaded, diagnostics) = load(&recipe, &part);
        prop_assert_eq!(loaded.is_none(), diagnostics.has_errors());
        let printed = diagnostics.render(false);
        let escape = '\u{1b}';
        prop_assert!(!printed.contains(escape));
        for diagnostic in diagnostics.iter() {
            prop_assert!(diagnostic.span.iter().chain(&diagnostic.included_from).all(is_inside), "{:?}", diagnostic);
        }
        for step in loaded.iter().flat_map(|recipe| &recipe.steps) {
            let spans = &step.spans;
            prop_assert!(spans.whole.iter().chain(spans.keys.values()).chain(spans.values.values()).all(is_inside));
        }
    }

    #[test]
    fn a_recipe_printed_is_the_same_recipe(steps in vec(step(), 1..12), suite in "[a-z]{1,8}") {
        let body: String = steps.concat();
        let text = format!(
            "{{% set suite = \"{suite}\" %}}\narchitecture: {{{{ arch | default('arm64') }}}}\nactions:\n  - action: mmdebstrap\n    suite: {{{{ suite }}}}\n{body}"
        );
        let loader = MemoryLoader::new().with("recipe", text.clone());
        let options = Options::default();
        let path = Path::new("recipe");
        let (first, faults) = recipe::load(path, &options, &loader);
        prop_assert!(first.is_some(), "{}{}", text, faults.render(false));
        let printed = recipe::print(path, &options, &loader).unwrap();
        let (second, _) = recipe::load(path, &options, &MemoryLoader::new().with("recipe", printed));
        let seen = |recipe: Option<recipe::Recipe>| {
            let recipe = recipe.unwrap();
            let steps: Vec<_> = recipe.steps.into_iter().map(|step| (step.kind, step.properties, step.description)).collect();
            (recipe.architecture, recipe.sector_size, steps)
        };
        prop_assert_eq!(seen(first), seen(second));
    }
}

/// An action as an author may write it, with some template in it.
fn step() -> impl Strategy<Value = String> {
    let word = "[a-z][a-z0-9]{1,10}";
    prop_oneof![
        vec(word, 1..5).prop_map(|packages| format!("  - action: apt\n    packages: [{}]\n", packages.join(", "))),
        (word, any::<bool>()).prop_map(|(package, update)| format!(
            "{{%- for package in [\"{package}\", \"bb\"] %}}\n  - action: apt\n    update: {update}\n    packages:\n      - {{{{ package }}}}\n{{%- endfor %}}\n"
        )),
        ("[ -z|~]{0,30}").prop_map(|line| format!(
            "  - action: run\n    chroot: true\n    description: {}\n    command: {{{{ {} | quote }}}}\n",
            serde_json::to_string(&line).unwrap(),
            serde_json::to_string(&format!("echo {line}")).unwrap(),
        )),
        (word, "[a-z /]{1,20}").prop_map(|(label, text)| format!(
            "  - action: run\n    chroot: true\n    label: x{label}\n    command: |\n      echo {text}x\n      {{% if suite %}}true{{% endif %}}\n"
        )),
    ]
}
