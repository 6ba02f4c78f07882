//! Go templates in Jinja: what each construct becomes, and that it means the same.

use std::sync::Arc;

use debforge::diagnostics::Source;
use debforge::import::{Translation, translate};
use rstest::rstest;

use crate::harness::Project;

fn translated(go: &str) -> Translation {
    translate(&Arc::new(Source { name: "recipe.yaml".into(), text: go.into() }))
}

#[rstest]
#[case::variable("a: {{ .x }}", "a: {{ x }}")]
#[case::tight("a: {{.x}}", "a: {{ x }}")]
#[case::default(r#"{{- $arch := or .arch "amd64" -}}"#, r#"{%- set arch = arch | default("amd64", true) -%}"#)]
#[case::empty_default(r#"{{ $x := or .x "" }}"#, r#"{% set x = x | default("") %}"#)]
#[case::two_defaults(r#"{{ $x := or .x .y "z" }}"#, r#"{% set x = x | default(y, true) | default("z", true) %}"#)]
#[case::set_again(r#"{{ $x := "a" }}{{ $x = "b" }}{{ $x }}"#, r#"{% set x = "a" %}{% set x = "b" %}{{ x }}"#)]
#[case::given("{{ $x := .x }}{{ $x }}", "{# given: x #}{{ x }}")]
#[case::asked(
    r#"{{ $x := .x }}{{ if eq $x "a" }}b{{ end }}"#,
    r#"{% set x = x | default("") %}{% if x == "a" %}b{% endif %}"#
)]
#[case::absence(
    r#"{{ $x := .x }}{{ if ne $x "" }}b{{ end }}"#,
    r#"{# given: x #}{% if x | default(none) != "" %}b{% endif %}"#
)]
#[case::asked_directly(r#"{{ if .x }}{{ .x }}{{ end }}"#, r#"{% if x | default("") %}{{ x }}{% endif %}"#)]
#[case::chain(
    r#"{{if eq .x "a"}}1{{else if ne .y "b"}}2{{else}}3{{end}}"#,
    r#"{% if x | default("") == "a" %}1{% elif y | default("") != "b" %}2{% else %}3{% endif %}"#
)]
#[case::one_of_several(r#"{{ if eq .x "a" "b" }}c{{ end }}"#, r#"{% if x | default("") in ["a", "b"] %}c{% endif %}"#)]
#[case::logic(
    r#"{{ $a := or .a "1" }}{{ if and (eq $a "1") (not .b) }}c{{ end }}{{ if or .c (ne $a "2") }}d{{ end }}"#,
    r#"{% set a = a | default("1", true) %}{% if a == "1" and not b | default("") %}c{% endif %}{% if c | default("") or a != "2" %}d{% endif %}"#
)]
#[case::known(r#"{{ if and .x (ne .x "a") }}{{ end }}"#, r#"{% if x | default("") and x != "a" %}{% endif %}"#)]
#[case::printf(r#"{{ printf "%s-%s.img" .a .b }}"#, r#"{{ a ~ "-" ~ b ~ ".img" }}"#)]
#[case::long_printf(r#"{{ printf "%s-%s-%s-%s" .a .b .c .d }}"#, r#"{{ "%s-%s-%s-%s" | format(a, b, c, d) }}"#)]
#[case::padded_printf(r#"{{ printf "%05d" (int .a) }}"#, r#"{{ "%05d" | format(a | int) }}"#)]
#[case::bracketed_default(
    r#"{{ $i := or .i (printf "debian-%s.img" .suite) }}"#,
    r#"{% set i = i | default("debian-" ~ suite ~ ".img", true) %}"#
)]
#[case::piped(r#"{{ .x | default "a" | upper | quote }}"#, r#"{{ x | default("a", true) | upper | quote }}"#)]
#[case::piped_last(r#"{{ .x | printf "%s-%s" "a" }}"#, r#"{{ "a-" ~ x }}"#)]
#[case::debos(
    r#"{{ sector 64 }} {{ escape .x }} {{ uuid5 "dns" .x }} {{- sector 1 }} {{ sector .n }}"#,
    r#"64s {{ x | escape }} {{ uuid5("dns", x) }} {{- "1s" }} {{ n | int ~ "s" }}"#
)]
#[case::numbers(r#"{{ add 1 (mul 2 3) }} {{ add .x 1 }}"#, r#"{{ 1 + 2 * 3 }} {{ x | int + 1 }}"#)]
#[case::range(
    r#"{{ range $p := splitList " " .packages }}- {{ $p }}{{ end }}"#,
    r#"{% for p in packages | split(" ") %}- {{ p }}{% endfor %}"#
)]
#[case::range_dot(
    r#"{{ range list "a" "b" }}{{ . }}{{ $.x }}{{ end }}"#,
    r#"{% for item in ["a", "b"] %}{{ item }}{{ x }}{% endfor %}"#
)]
#[case::range_index(
    r#"{{ range $i, $p := list "a" }}{{ $i }}{{ $p }}{{ else }}none{{ end }}"#,
    r#"{% for p in ["a"] %}{{ loop.index0 }}{{ p }}{% else %}none{% endfor %}"#
)]
#[case::outer_index(
    r#"{{ range $i, $p := list "a" }}{{ range list 1 }}{{ $i }}{{ end }}{{ end }}"#,
    r#"{% for p in ["a"] %}{% set i = loop.index0 %}{% for item in [1] %}{{ i }}{% endfor %}{% endfor %}"#
)]
#[case::range_number(r#"{{ range $i := until 3 }}{{ $i }}{{ end }}"#, r#"{% for i in range(3) %}{{ i }}{% endfor %}"#)]
#[case::range_map(
    r#"{{ range $k, $v := dict "a" "b" }}{{ $k }}={{ $v }}{{ end }}"#,
    r#"{% for k, v in {"a": "b"} | dictsort(case_sensitive=true) %}{{ k }}={{ v }}{% endfor %}"#
)]
#[case::set_in_loop(
    r#"{{ $l := list }}{{ range $p := list "a" }}{{ $l = append $l $p }}{{ end }}{{ join "," $l }}"#,
    r#"{% set l = namespace(value=[]) %}{% for p in ["a"] %}{% set l.value = l.value + [p] %}{% endfor %}{{ l.value | join(",") }}"#
)]
#[case::inner(
    r#"{{ $x := "a" }}{{ if .y }}{{ $x := "b" }}{{ $x }}{{ end }}{{ $x }}"#,
    r#"{% set x = "a" %}{% if y | default("") %}{% set x_2 = "b" %}{{ x_2 }}{% endif %}{{ x }}"#
)]
#[case::same_name_as_an_input(
    r#"{{ $x := or .y "a" }}{{ $x }}{{ .x }}"#,
    r#"{% set x_2 = y | default("a", true) %}{{ x_2 }}{{ x }}"#
)]
#[case::with(
    r#"{{ with .x }}{{ . }}{{ else }}none{{ end }}"#,
    r#"{% if x | default("") %}{{ x }}{% else %}none{% endif %}"#
)]
#[case::with_computed(
    r#"{{ with printf "%s!" .x }}{{ . }}{{ end }}"#,
    r#"{% set it = x ~ "!" %}{% if it %}{{ it }}{% endif %}"#
)]
#[case::with_named(
    r#"{{ with $y := or .x "a" }}{{ $y }}{{ . }}{{ end }}"#,
    r#"{% set y = x | default("a", true) %}{% if y %}{{ y }}{{ y }}{% endif %}"#
)]
#[case::define(
    r#"{{ define "part" }}{{ .name }}{{ end }}{{ template "part" (dict "name" "a") }}"#,
    r#"{% macro part(dot) %}{{ dot.name }}{% endmacro %}{{ part({"name": "a"}) }}"#
)]
#[case::define_all(
    r#"{{ define "all" }}{{ .x }}{{ end }}{{ template "all" . }}"#,
    r#"{% macro all() %}{{ x }}{% endmacro %}{{ all() }}"#
)]
#[case::block(r#"{{ block "b" . }}{{ .x }}{{ end }}"#, r#"{% macro b() %}{{ x }}{% endmacro %}{{ b() }}"#)]
#[case::no_such_template(r#"{{ template "ERR" }}"#, r#"{{ fail("there is no template \"ERR\"") }}"#)]
#[case::jumps(
    r#"{{ range list 1 2 }}{{ if eq . 2 }}{{ break }}{{ else }}{{ continue }}{{ end }}{{ end }}"#,
    r#"{% for item in [1, 2] %}{% if item == 2 %}{% break %}{% else %}{% continue %}{% endif %}{% endfor %}"#
)]
#[case::parts(r#"{{ (split "-" .x)._0 }}"#, r#"{{ (x | split("-"))[0] }}"#)]
#[case::index(
    r#"{{ index . "x" }}{{ index (list "a" "b") 1 }}{{ len (list 1) }}"#,
    r#"{{ x | default("") }}{{ ["a", "b"][1] }}{{ [1] | length }}"#
)]
#[case::map(
    r#"{{ $d := dict "a" "1" }}{{ $_ := set $d "b" "2" }}{{ $d.a }}{{ $d.b }}"#,
    r#"{% set d = {"a": "1"} %}{% set d = dict(d, b="2") %}{{ d.a }}{{ d.b }}"#
)]
#[case::texts(
    r#"{{ if hasPrefix "a" .x }}{{ trimSuffix ".img" .x }}{{ end }}{{ if contains "b" .x }}{{ replace "a" "b" .x }}{{ end }}"#,
    r#"{% if x is startingwith("a") %}{{ x | removesuffix(".img") }}{% endif %}{% if "b" in x %}{{ x | replace("a", "b") }}{% endif %}"#
)]
#[case::ternary(r#"{{ ternary "a" "b" (eq .x "c") }}"#, r#"{{ "a" if x | default("") == "c" else "b" }}"#)]
#[case::ternary_asked(
    r#"{{ if ternary "a" "" (eq "c" "d") }}b{{ end }}"#,
    r#"{% if ("a" if "c" == "d" else "") %}b{% endif %}"#
)]
#[case::comment("a {{/* b */}} {{- /* c\n#} */ -}} d", "a {# b #} {#- c\n# } -#} d")]
#[case::comment_of_yaml("# see {{ .x }}\n", "# see {{ x }}\n")]
#[case::shell(
    "echo ${#list} {{ .x }} ${v%%{%}\n",
    "echo {% raw %}${#list}{% endraw %} {{ x }} {% raw %}${v%%{%}{% endraw %}\n"
)]
#[case::reserved("{{ $in := .loopy }}{{ $in }}", "{% set _in = loopy %}{{ _in }}")]
#[case::indented("{{-   $x = \"a\" }}", "{{-   $x = \"a\" }}{# not translated: `$x` is not declared #}")]
fn a_construct_becomes(#[case] go: &str, #[case] jinja: &str) {
    assert_eq!(translated(go).text, jinja);
}

#[test]
fn the_layout_of_a_long_tag_is_kept() {
    let go = "{{- $boards = append $boards (dict\n    \"name\" \"one\"\n    \"parts\" (list \"a\" \"b\")\n    \"more\" (dict\n        \"c\" \"d\"\n    )\n)}}\n";
    let translation = translated(&format!("{{{{ $boards := list }}}}\n{go}"));
    assert!(translation.faults.is_empty(), "{}", translation.faults.render(false));
    assert_eq!(
        translation.text,
        "{% set boards = [] %}\n{%- set boards = boards + [{\n    \"name\": \"one\",\n    \"parts\": [\"a\", \"b\"],\n    \"more\": {\n        \"c\": \"d\"\n    }\n}] %}\n"
    );
}

#[rstest]
#[case("{{ env \"HOME\" }}", "1:4", "a recipe cannot read the environment")]
#[case("a: b\nc: {{ now | date \"2006\" }}", "2:7", "a recipe cannot know the time")]
#[case("{{ . }}", "1:1", "the map of all variables")]
#[case("{{ .a.b }}", "1:4", "this is text, which has no `.b`")]
#[case("{{ range .x }}{{ end }}", "1:10", "a loop over text")]
#[case("{{ printf \"%d\" .x }}", "1:4", "`%d` of text")]
#[case("{{ if eq .x 1 }}{{ end }}", "1:7", "`eq` of text and a number")]
#[case("{{ regexMatch \"a\" .x }}", "1:4", "no counterpart of `regexMatch`")]
#[case("{{ template \"a\" . }}{{ define \"a\" }}{{ end }}", "1:1", "defined further down")]
#[case("a: {{ if .x }}{{ if .y }}{{ end }}", "1:4", "this block has no `end`")]
#[case("a: {{ end }}{{ .x }}", "1:4", "no block is open that this could end")]
#[case("a: {{ if }}{{ end }}", "1:", "this is no Go template")]
#[case("architecture: {{ arch | default(\"amd64\") }}", "1:1", "in Jinja already")]
fn what_has_no_counterpart_is_named(#[case] go: &str, #[case] place: &str, #[case] why: &str) {
    let shown = translated(go).faults.render(false);
    assert!(shown.contains(&format!("recipe.yaml:{place}")) && shown.contains(why), "{shown}");
}

#[test]
fn a_block_that_is_not_translated_is_left_whole() {
    let go = "{{ if env \"X\" }}a{{ else }}b{{ end }}{{ if .x }}c{{ end }}";
    let translation = translated(go);
    assert_eq!(translation.faults.iter().count(), 1);
    assert!(translation.text.starts_with("{{ if env \"X\" }}{# not translated: "), "{}", translation.text);
    assert!(
        translation.text.contains("a{{ else }}b{{ end }}{% if x | default(\"\") %}c{% endif %}"),
        "{}",
        translation.text
    );
}

#[test]
fn variables_that_have_to_be_given_are_named() {
    let translation = translated("{{ .a }}{{ if .b }}{{ .b }}{{ end }}{{ $c := or .c \"d\" }}{{ $c }}");
    assert_eq!(translation.inputs.into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(translation.wanted.into_iter().collect::<Vec<_>>(), ["a"]);
}

/// A recipe of debos that needs neither network nor root to be planned.
const RECIPE: &str = "# A comment.
{{- $name := or .name \"out\" }}
architecture: amd64

actions:
  - action: overlay
    description: {{ $name }}
    source: files
{{ if eq $name \"other\" }}
  - action: run
    chroot: true
    command: echo ${#HOME}
{{ end }}
";

const IN_JINJA: &str = "# A comment.
{%- set name = name | default(\"out\", true) %}
architecture: amd64

actions:
  - action: overlay
    description: {{ name }}
    source: files
{% if name == \"other\" %}
  - action: run
    chroot: true
    command: echo {% raw %}${#HOME}{% endraw %}
{% endif %}
";

#[test]
fn a_recipe_is_written_in_jinja_with_the_same_plan() {
    let project = Project::new().recipe(RECIPE).file("files/a", "a");
    let finished = project.run(["import", "recipe.yaml"]).success();
    assert_eq!(finished.stdout, IN_JINJA);
    finished.says("recipe.yaml: 4 tags, the same text with").says("the same plan: 1 step");
    let finished = project.run(["import", "recipe.yaml", "-t", "name:other", "-o", "jinja.yaml"]).success();
    finished.says("the same plan: 2 steps").says("wrote jinja.yaml");
    assert_eq!(project.read("jinja.yaml"), IN_JINJA);
    // The ids, as they are planned here.
    let ids = |recipe: &str| {
        let plan = project.run(["plan", recipe, "--json", "-t", "name:other"]).success().stdout;
        let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
        plan["steps"].as_array().unwrap().iter().map(|step| step["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids("recipe.yaml"), ids("jinja.yaml"));
}

#[test]
fn nothing_is_written_where_a_tag_is_left() {
    let project = Project::new().recipe("architecture: {{ env \"ARCH\" }}\nactions: []\n");
    let finished = project.run(["import", "recipe.yaml", "-o", "jinja.yaml"]).code(2);
    finished.says("recipe.yaml:1:18").says("-t").says("nothing was written").says("--force");
    assert!(!project.path("jinja.yaml").exists());
    project.run(["import", "recipe.yaml", "-o", "jinja.yaml", "--force"]).code(2).says("wrote jinja.yaml");
    let text = project.read("jinja.yaml");
    assert!(text.starts_with("architecture: {{ env \"ARCH\" }}{# not translated: a recipe cannot read"), "{text}");
}

#[test]
fn recipes_that_are_called_go_with_the_caller() {
    let top = "architecture: amd64\nactions:\n{{ $p := or .p \"one\" }}  - action: recipe\n    recipe: parts/{{ $p }}.yaml\n    variables:\n      name: x\n";
    let part = "architecture: {{ .architecture }}\nactions:\n  - action: run\n    command: echo {{ .name }}\n";
    let project = Project::new().recipe(top).file("parts/one.yaml", part).file("parts/two.yaml", part);
    project.run(["import", "-r", "recipe.yaml"]).code(2).says("3 recipes").says("--output-dir DIR");
    let finished = project.run(["import", "-r", "recipe.yaml", "--output-dir", "jinja"]).success();
    finished.says("the same plan: 1 step").says("has to be given: architecture, name");
    let translated = "architecture: {{ architecture }}\nactions:\n  - action: run\n    command: echo {{ name }}\n";
    assert_eq!(project.read("jinja/parts/one.yaml"), translated);
    assert_eq!(project.read("jinja/parts/two.yaml"), translated);
    project.run(["check", "--recipe-only", "jinja/recipe.yaml"]).success().says("1 step");
    let again = project.run(["import", "-r", "recipe.yaml", "--output-dir", "jinja"]).code(2);
    again.says("would be replaced").says("--force");
}

#[test]
fn what_debos_ignores_is_named_or_commented_out() {
    let text = "{{ $x := or .x \"a\" }}architecture: amd64\nactions:\n  - action: run\n    comand:\n      - {{ $x }}\n    command: echo\n";
    let project = Project::new().recipe(text);
    let finished = project.run(["import", "recipe.yaml"]).success();
    finished.says("recipe.yaml:4:5").says("comand").says("`--comment-ignored` comments it out");
    let finished = project.run(["import", "--comment-ignored", "recipe.yaml"]).success();
    let shown = "    # debos ignored this: comand:\n    #   - {{ x }}\n    command: echo\n";
    assert!(finished.stdout.ends_with(shown), "{finished}");
    finished.says("1 key commented out");
}
