//! Any template that can be translated renders to the same text before and after.

use std::collections::BTreeMap;
use std::sync::Arc;

use debforge::diagnostics::Source;
use debforge::import::translate;
use debforge::recipe::{Dialect, MemoryLoader, Options, print};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;

/// Declared before everything else, so that the rest can read and set them.
const DECLARED: &str = "{{ $x := or .x \"dx\" }}{{ $y := .y }}{{ $l := list \"l\" }}{{ $n := 2 }}";

/// Values that are texts.
fn value() -> impl Strategy<Value = String> {
    let leaf = select(vec!["$.a", "$.b", "$.x", "$x", "$y", "\"lit\"", "\"\"", "`raw`", "\"a b\\n\""]);
    leaf.prop_map(str::to_owned).prop_recursive(3, 12, 3, |inner| {
        let two = (inner.clone(), inner.clone());
        prop_oneof![
            two.clone().prop_map(|(a, b)| format!("(or {a} {b})")),
            two.clone().prop_map(|(a, b)| format!("(default {a} {b})")),
            two.clone().prop_map(|(a, b)| format!("({a} | default {b} | upper)")),
            two.clone().prop_map(|(a, b)| format!("(printf \"%s-%s\" {a} {b})")),
            two.clone().prop_map(|(a, b)| format!("({a} | printf \"%q %v\" {b})")),
            two.clone().prop_map(|(a, b)| format!("(ternary {a} {b} (eq {a} {b}))")),
            two.clone().prop_map(|(a, b)| format!("(print {a} {b})")),
            two.prop_map(|(a, b)| format!("(replace \"a\" {a} {b})")),
            inner.clone().prop_map(|a| format!("(trim {a})")),
            inner.clone().prop_map(|a| format!("(quote {a})")),
            inner.clone().prop_map(|a| format!("(indent 2 {a})")),
            inner.clone().prop_map(|a| format!("(join \"+\" (splitList \"a\" {a}))")),
            inner.prop_map(|a| format!("(len {a} | printf \"%03d\")")),
            Just("(join \",\" $l)".to_owned()),
            Just("(index $ \"b\")".to_owned()),
        ]
    })
}

/// What is asked in an `if`.
fn condition() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        value(),
        (value(), value()).prop_map(|(a, b)| format!("(eq {a} {b})")),
        (value(), value()).prop_map(|(a, b)| format!("(ne {a} {b})")),
        (value(), value(), value()).prop_map(|(a, b, c)| format!("(eq {a} {b} {c})")),
        (value(), value()).prop_map(|(a, b)| format!("(contains {a} {b})")),
        Just("(has \"l\" $l)".to_owned()),
        Just("(gt $n 2)".to_owned()),
    ];
    leaf.prop_recursive(2, 8, 2, |inner| {
        let two = (inner.clone(), inner.clone());
        prop_oneof![
            two.clone().prop_map(|(a, b)| format!("(and {a} {b})")),
            two.prop_map(|(a, b)| format!("(or {a} {b})")),
            inner.prop_map(|a| format!("(not {a})")),
        ]
    })
}

/// A tag with signs.
fn tag(inner: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    (inner, any::<bool>(), any::<bool>()).prop_map(|(inner, before, after)| {
        format!("{{{{{}{inner}{}}}}}", if before { "- " } else { "" }, if after { " -" } else { "" })
    })
}

fn template() -> impl Strategy<Value = String> {
    let text = select(vec!["\n", " ", "a", "  b\n", "${#v} ", "{%", "\n\n c", "# d "]).prop_map(str::to_owned);
    let leaf = prop_oneof![
        text,
        tag(value()),
        tag(value().prop_map(|a| format!("$x = {a}"))),
        tag(value().prop_map(|a| format!("$y = {a}"))),
        tag(value().prop_map(|a| format!("$x := {a}"))),
        tag(value().prop_map(|a| format!("$z := {a}"))),
        tag(value().prop_map(|a| format!("$l = append $l {a}"))),
        tag(Just("$n = add $n 1".to_owned())),
        tag(Just("$n".to_owned())),
        tag(Just("/* a comment */".to_owned())),
    ];
    vec(leaf, 0..4).prop_map(|parts| parts.concat()).prop_recursive(3, 24, 3, |inner| {
        let body = vec(inner, 1..3).prop_map(|parts| parts.concat());
        let two = (body.clone(), body.clone());
        prop_oneof![
            (tag(condition().prop_map(|c| format!("if {c}"))), body.clone())
                .prop_map(|(i, b)| format!("{i}{b}{{{{ end }}}}")),
            (condition(), two.clone())
                .prop_map(|(c, (a, b))| format!("{{{{ if {c} }}}}{a}{{{{- else }}}}{b}{{{{ end -}}}}")),
            (condition(), condition(), two.clone())
                .prop_map(|(c, d, (a, b))| format!("{{{{ if {c} }}}}{a}{{{{ else if {d} }}}}{b}{{{{ end }}}}")),
            (value(), two.clone())
                .prop_map(|(v, (a, b))| format!("{{{{ with {v} }}}}{{{{ . }}}}{a}{{{{ else }}}}{b}{{{{ end }}}}")),
            (value(), body.clone()).prop_map(|(v, b)| format!("{{{{ with $w := {v} }}}}{{{{ $w }}}}{{{{ end }}}}{b}")),
            (value(), body.clone())
                .prop_map(|(v, b)| format!("{{{{ range $p := splitList \" \" {v} }}}}{{{{ $p }}}}{{{{ end }}}}{b}")),
            body.clone().prop_map(|b| format!(
                "{{{{ range $i, $p := list \"p\" \"q\" }}}}{{{{ $i }}}}{{{{ $x = $p }}}}{{{{ end }}}}{b}"
            )),
            body.prop_map(|b| format!(
                "{{{{ range until $n }}}}{{{{ . }}}}{{{{ if eq . 1 }}}}{{{{ continue }}}}{{{{ end }}}}{{{{ end }}}}{b}"
            )),
        ]
    })
}

fn rendered(text: &str, dialect: Dialect, variables: &BTreeMap<String, String>) -> Result<String, String> {
    let options = Options { variables: variables.clone(), dialect: Some(dialect), ..Options::default() };
    let loader = MemoryLoader::new().with("r.yaml", text);
    print("r.yaml".as_ref(), &options, &loader).map_err(|faults| faults.render(false))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_translation_renders_to_the_same_text(
        body in template(),
        variables in btree_map(select(vec!["a", "b", "x", "y"]), select(vec!["", "lit", "a b", "cab\n"]), 0..4),
    ) {
        let go = format!("{DECLARED}{body}");
        let variables: BTreeMap<String, String> =
            variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let translation = translate(&Arc::new(Source { name: "r.yaml".into(), text: go.clone() }));
        let jinja = &translation.text;
        // What is absent debos writes, or counts the letters of what it would write; Jinja stops at it.
        let absent = translation.wanted.iter().any(|name| !variables.contains_key(name));
        let differs = same(&go, jinja, &variables)?;
        let stops = absent && rendered(jinja, Dialect::Jinja, &variables).is_err();
        prop_assert!(differs.is_none_or(|original| stops || shows_absence(&original)), "{go}\n{jinja}");
        // With all that has to be given, nothing is absent.
        let mut given = variables;
        for name in &translation.wanted {
            given.entry(name.clone()).or_insert_with(|| "given".into());
        }
        let differs = same(&go, jinja, &given)?;
        prop_assert!(differs.is_none(), "{go}\n{jinja}\n{differs:?}");
    }
}

/// What debos writes where the translation renders to something else or not at all; what debos cannot render has no
/// meaning that could be kept.
fn same(go: &str, jinja: &str, variables: &BTreeMap<String, String>) -> Result<Option<String>, TestCaseError> {
    let Ok(original) = rendered(go, Dialect::Go, variables) else { return Ok(None) };
    let faults = translate(&Arc::new(Source { name: "r.yaml".into(), text: go.into() })).faults;
    prop_assert!(!faults.has_errors(), "{go}\n{}", faults.render(false));
    let translated = rendered(jinja, Dialect::Jinja, variables);
    Ok((translated.as_ref() != Ok(&original)).then(|| format!("{original}\n{translated:?}")))
}

fn shows_absence(original: &str) -> bool {
    original.contains("<no value>") || original.contains("<nil>") || original.contains("undefined")
}
