//! From what minijinja noted while it rendered to pieces of text with their origins.

use std::collections::HashMap;
use std::sync::Arc;

use minijinja::{OutputSpan, OutputSpanKind};

use super::library::Library;
use super::source_map::Piece;
use crate::diagnostics::{Source, Span};

/// Where a file's output last came from.
struct Last {
    sequence: usize,
    end: usize,
    chain: usize,
}

/// The pieces of a rendered text, and the chains of includes that they index.
pub(super) fn pieces(spans: &[OutputSpan], library: &Library, included_from: &[Span]) -> (Vec<Piece>, Vec<Vec<Span>>) {
    let mut chains = vec![included_from.to_vec()];
    let mut files: HashMap<&str, Option<(usize, Arc<Source>)>> = HashMap::new();
    let mut last: HashMap<usize, Last> = HashMap::new();
    let mut pieces = Vec::with_capacity(spans.len());
    for (sequence, span) in spans.iter().enumerate() {
        let found = files.entry(span.name()).or_insert_with(|| library.find(span.name()));
        let Some((file, source)) = found.clone() else { continue };
        let origin = span.source_range();
        let chain = if file == 0 {
            0
        } else {
            // The file that asked for this one is the one of its referrers that wrote last.
            let parent = library
                .referrers(file)
                .into_iter()
                .filter_map(|(parent, tag)| last.get(&parent).map(|last| (last.sequence, parent, tag)))
                .max_by_key(|(sequence, _, tag)| (*sequence, std::cmp::Reverse(tag.start)));
            let own = last.get(&file);
            match (parent, own) {
                (Some((at, ..)), Some(own)) if own.sequence > at => own.chain,
                (None, Some(own)) => own.chain,
                (Some((_, parent, first_tag)), _) => {
                    let (end, chain) = last.get(&parent).map_or((0, 0), |last| (last.end, last.chain));
                    let tag = library
                        .referrers(file)
                        .into_iter()
                        .filter(|(from, tag)| *from == parent && tag.start >= end)
                        .map(|(_, tag)| tag)
                        .min_by_key(|tag| tag.start)
                        .unwrap_or(first_tag);
                    let mut links = vec![tag];
                    links.extend_from_slice(&chains[chain]);
                    chains.push(links);
                    chains.len() - 1
                }
                (None, None) => {
                    let mut links = library.chain(file);
                    links.extend_from_slice(included_from);
                    chains.push(links);
                    chains.len() - 1
                }
            }
        };
        last.insert(file, Last { sequence, end: origin.end, chain });
        let literal = span.kind() == OutputSpanKind::Raw && origin.len() == span.output_range().len();
        pieces.push(Piece { rendered: span.output_range(), source, origin, literal, chain });
    }
    (pieces, chains)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use rstest::rstest;

    use crate::diagnostics::{Diagnostics, Source};
    use crate::recipe::MemoryLoader;
    use crate::recipe::template::{self, Rendered};

    use super::*;

    /// `top` rendered with files beside it, where `name` is "value".
    fn render(top: &str, files: &[(&str, &str)]) -> Rendered {
        let mut loader = MemoryLoader::new();
        for (path, text) in files {
            loader = loader.with(*path, *text);
        }
        let source = Arc::new(Source { name: "top".into(), text: top.into() });
        let variables = BTreeMap::from([("name".to_owned(), "value".to_owned())]);
        let mut out = Diagnostics::new();
        let rendered = template::render(Path::new("top"), &source, &variables, &[], &[], &loader, &mut out);
        rendered.unwrap_or_else(|| panic!("{}", out.render(false)))
    }

    /// What the author wrote where each of the words was rendered: `FILE:LINE TEXT`.
    fn origins_of(rendered: &Rendered, word: &str) -> Vec<String> {
        let text = rendered.map.text();
        text.match_indices(word)
            .map(|(at, _)| {
                let origin = rendered.map.locate(at..at + word.len());
                let place = origin.span.place();
                let written = &origin.span.source.text[origin.span.start..origin.span.end];
                let from: String = origin
                    .included_from
                    .iter()
                    .map(|span| span.place())
                    .map(|at| format!(" < {}:{}", at.file, at.line))
                    .collect();
                format!("{}:{} {written}{from}", place.file, place.line)
            })
            .collect()
    }

    #[rstest]
    #[case::plain("a\nHERE\n", &["top:2 HERE"])]
    #[case::after_an_expression_of_other_length("{{ name }}\n\nHERE\n", &["top:3 HERE"])]
    #[case::after_lines_that_are_left_out("{% if false %}\na\nb\n{% endif %}\nHERE\n", &["top:5 HERE"])]
    #[case::in_a_loop("{% for i in [1, 2] %}\nx{{ i }}\nHERE\n{% endfor %}HERE", &["top:3 HERE", "top:3 HERE", "top:4 HERE"])]
    #[case::whitespace_control("a\n  {%- if true -%}\n\n   HERE  {%- endif -%}\n\n HERE", &["top:4 HERE", "top:6 HERE"])]
    #[case::an_expression_of_many_lines("{{ name\n | upper\n }}\nHERE", &["top:4 HERE"])]
    #[case::a_comment("{# a\nb #}\nHERE", &["top:3 HERE"])]
    #[case::raw("{% raw %}{{ HERE }}\n{% endraw %}HERE", &["top:1 HERE", "top:2 HERE"])]
    #[case::wide_characters("ü{{ name }}日本\n日本 HERE", &["top:2 HERE"])]
    #[case::windows_lines("a\r\n{{ name }}\r\nHERE\r\n", &["top:3 HERE"])]
    #[case::a_macro("{% macro m(x) %}\nHERE {{ x }}\n{% endmacro %}\n{{ m(1) }}", &["top:2 HERE < top:4"])]
    #[case::a_macro_indented("{% macro m() %}a\nHERE\n{% endmacro %}\n  {{ m() | indent(2) }}", &["top:2 HERE < top:4"])]
    #[case::a_set_block("{% set x %}\nHERE\n{% endset %}\n{{ x }}{{ x }}", &["top:2 HERE < top:4", "top:2 HERE < top:4"])]
    #[case::a_set_block_that_is_compared("{% set x %}a{% endset %}{% if x == 'a' %}\nHERE{% endif %}{{ x }}", &["top:2 HERE"])]
    #[case::a_set_block_measured("{% set x %}HERE{% endset %}\n{{ x | length }}\n{{ x }}", &["top:3 x"])]
    #[case::a_set_block_changed("{% set x %}\nhere\n{% endset %}\n{{ x | upper }}", &["top:4 x | upper"])]
    #[case::a_call_block("{% macro m() %}<{{ caller() }}>{% endmacro %}\n{% call m() %}\nHERE\n{% endcall %}", &["top:3 HERE < top:2"])]
    #[case::a_filter_block("{% filter replace('a', 'b') %}\na\n HERE\n{% endfilter %}", &["top:3 HERE < top:1"])]
    #[case::a_filter_block_that_trims("{% filter trim %}\n HERE\n{% endfilter %}", &["top:1 trim"])]
    fn literal_text_is_found_where_it_was_written(#[case] top: &str, #[case] expected: &[&str]) {
        assert_eq!(origins_of(&render(top, &[]), "HERE"), expected);
    }

    #[rstest]
    #[case::alone("a\n{{ name }}", &["top:2 name"])]
    #[case::within_text("a\nx{{ name }}y", &["top:2 name"])]
    #[case::in_a_macro("{% macro m(x) %}\n{{ x }}\n{% endmacro %}{{ m(name) }}", &["top:2 x < top:3"])]
    #[case::as_a_default("{{ other | default(name) }}", &["top:1 other | default(name)"])]
    fn a_value_is_found_where_it_was_printed(#[case] top: &str, #[case] expected: &[&str]) {
        assert_eq!(origins_of(&render(top, &[]), "value"), expected);
    }

    #[test]
    fn text_around_an_expression_is_one_part() {
        for written in ["x{{ name }}y", "{{- name }}y", "x{{ name -}}", "{{ name }}{{name}}", "{{ name }}"] {
            let top = format!("a: {written}\n");
            let rendered = render(&top, &[]);
            let text = rendered.map.text();
            let value = text[2..].trim();
            let start = text.find(value).unwrap();
            let origin = rendered.map.locate(start..start + value.len());
            let found = &origin.span.source.text[origin.span.start..origin.span.end];
            assert_eq!(found, if written == "{{ name }}" { "name" } else { written });
        }
    }

    #[rstest]
    #[case::included("\n{% include 'a' %}", &[("a", "\n\nHERE")], &["a:3 HERE < top:2"])]
    #[case::included_twice("{% include 'a' %}\n{% include 'a' %}", &[("a", "HERE")], &["a:1 HERE < top:1", "a:1 HERE < top:2"])]
    #[case::included_below("{% include 'a' %}", &[("a", "\n{% include 'b' %}"), ("b", "HERE")], &["b:1 HERE < a:2 < top:1"])]
    #[case::around_an_include("{% include 'a' %}\nHERE", &[("a", "x\ny\nz\n")], &["top:2 HERE"])]
    #[case::by_a_name_put_together("{% include name ~ '.x' %}", &[("value.x", "HERE")], &["value.x:1 HERE < top:1"])]
    #[case::the_first_of_several("{% include ['no', 'a'] %}", &[("a", "HERE")], &["a:1 HERE < top:1"])]
    #[case::in_a_directory("{% include 'd/a' %}", &[("d/a", "{% include 'b' %}"), ("d/b", "HERE")], &["d/b:1 HERE < d/a:1 < top:1"])]
    #[case::beside_the_recipe("{% include 'd/a' %}", &[("d/a", "{% include 'b' %}"), ("b", "HERE")], &["b:1 HERE < d/a:1 < top:1"])]
    #[case::imported("{% from 'a' import m %}\n{{ m() }}", &[("a", "{% macro m() %}\nHERE{% endmacro %}")], &["a:2 HERE < top:2"])]
    #[case::extended("{% extends 'a' %}{% block x %}\nHERE{% endblock %}", &[("a", "HERE{% block x %}{% endblock %}")], &["a:1 HERE < top:1", "top:2 HERE"])]
    fn a_file_is_shown_with_the_way_to_it(
        #[case] top: &str,
        #[case] files: &[(&str, &str)],
        #[case] expected: &[&str],
    ) {
        assert_eq!(origins_of(&render(top, files), "HERE"), expected);
    }
}
