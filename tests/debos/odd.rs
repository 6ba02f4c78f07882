//! Go templates that nobody writes: none is too odd to be read.

use std::path::Path;

use debforge::diagnostics::Span;
use debforge::recipe::{self, Dialect, MemoryLoader, Options};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const PARTS: &[&str] = &[
    "{{",
    "}}",
    "{{-",
    "-}}",
    " -}}",
    "{{- ",
    "{{ if ",
    "{{ end }}",
    "{{ else }}",
    "{{ else if .x }}",
    "{{ range $i, $x := ",
    "{{ with ",
    "{{ define \"t\" }}",
    "{{ template \"t\" . }}",
    "{{ block \"b\" . }}",
    "{{ break }}",
    "{{ continue }}",
    "{{/*",
    "*/}}",
    "$x",
    "$",
    ":=",
    "=",
    ".",
    ".name",
    ".x.y",
    "(",
    ")",
    "|",
    ",",
    " ",
    "\n",
    "\"",
    "`",
    "'",
    "'a'",
    "\"a\\",
    "\"text\"",
    "1",
    "-1.5e3",
    "0x",
    "9223372036854775808",
    "true",
    "nil",
    "and",
    "or",
    "print",
    "printf \"%[2]*.[1]*v%!\"",
    "list 1 \"a\"",
    "dict \"a\" 1",
    "set",
    "index",
    "slice",
    "len",
    "until 3",
    "repeat 3",
    "substr 1 2",
    "trunc -2",
    "upper",
    "regexFind \"[\"",
    "regexReplaceAll \"(a)\"",
    "toDate \"2006\"",
    "date \"Jan _2\"",
    "b64dec",
    "fromJson",
    "toPrettyJson",
    "urlParse",
    "splitList \"\"",
    "chunk 2",
    "fail",
    "now",
    "nosuch",
    "ü",
    "日本",
    "\r\n",
    "\0",
    "architecture: amd64\n",
    "actions:\n  - action: pack\n    file: ",
    "{{ .name }}",
    "{{ $x := 1 }}",
    "{{ \"é\" }}",
];

fn soup() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => vec(select(PARTS), 0..40).prop_map(|parts| parts.concat()),
        3 => vec(vec(select(PARTS), 1..6), 0..8)
            .prop_map(|tags| tags.iter().map(|tag| format!("{{{{ {} }}}}", tag.join(" "))).collect()),
        1 => any::<String>(),
    ]
}

fn is_inside(span: &Span) -> bool {
    let text = &span.source.text;
    span.start <= span.end && text.is_char_boundary(span.start) && text.is_char_boundary(span.end)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_template_is_too_odd_to_be_read(text in soup(), forced in any::<bool>()) {
        let loader = MemoryLoader::new().with("recipe", text);
        let dialect = forced.then_some(Dialect::Go);
        let variables = [("name".to_owned(), "ü b".to_owned())].into();
        let options = Options { variables, dialect, ..Options::default() };
        let (loaded, diagnostics) = recipe::load(Path::new("recipe"), &options, &loader);
        prop_assert_eq!(loaded.is_none(), diagnostics.has_errors());
        diagnostics.render(false);
        for diagnostic in diagnostics.iter() {
            prop_assert!(diagnostic.span.iter().chain(&diagnostic.included_from).all(is_inside), "{:?}", diagnostic);
        }
    }
}
