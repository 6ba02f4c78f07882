//! Recipes that are Go templates.

use std::path::Path;

use debforge::recipe::{self, Dialect, MemoryLoader, Options, Recipe};
use rstest::rstest;

use crate::harness::Project;

const HEADER: &str = "{{- $arch := or .arch \"amd64\" -}}
architecture: {{ $arch }}
actions:
  - action: mmdebstrap
    suite: trixie
";

fn loaded(text: &str, files: &[(&str, &str)], options: &Options) -> (Option<Recipe>, String) {
    let mut loader = MemoryLoader::new().with("r.yaml", text);
    for (path, text) in files {
        loader = loader.with(*path, *text);
    }
    let (recipe, diagnostics) = recipe::load(Path::new("r.yaml"), options, &loader);
    (recipe, diagnostics.render(false))
}

fn with(variables: &[(&str, &str)]) -> Options {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Options { variables, ..Options::default() }
}

#[test]
fn a_recipe_of_debos_is_read_as_it_stands() {
    let text = r#"{{/* A comment */}}
{{- $arch := or .arch "amd64" -}}
{{- $image := or .image (printf "debian-%s.img" $arch) -}}
{{ $packages := splitList "," (or .packages "a,b") }}

.common: &common
  recommends: false

architecture: {{ $arch }}

actions:
  - action: mmdebstrap
    suite: trixie
{{ if eq $arch "arm64" }}
  - action: apt
    <<: *common
    packages: [ {{ range $i, $p := $packages }}{{ if $i }}, {{ end }}{{ $p }}{{ end }} ]
{{ else }}
  - action: apt
    packages: [ other ]
{{ end }}
  - action: run
    description: Name {{ $image }}
    command: echo {{ escape $image }} ${#HOME} ${x%%y}
"#;
    let (recipe, said) = loaded(text, &[], &with(&[("arch", "arm64"), ("packages", "vim,less,tar")]));
    let recipe = recipe.unwrap_or_else(|| panic!("{said}"));
    assert_eq!(recipe.architecture.name(), "arm64");
    assert_eq!(recipe.steps[1].properties["packages"], serde_json::json!(["vim", "less", "tar"]));
    assert_eq!(recipe.steps[2].description.as_deref(), Some("Name debian-arm64.img"));
    assert_eq!(recipe.steps[2].properties["command"], "echo debian-arm64.img ${#HOME} ${x%%y}");
    assert_eq!(said, "");
}

#[test]
fn faults_are_shown_where_the_author_wrote() {
    let text = format!(
        "{HEADER}{{{{ range $suite := list \"trixie\" }}}}\n  - action: mmdebstrap\n    suite: {{{{ $suite }}}}\n    variant: {{{{ upper \"none\" }}}}\n{{{{ end }}}}\n"
    );
    let (recipe, said) = loaded(&text, &[], &Options::default());
    assert!(recipe.is_none());
    assert!(said.contains("r.yaml:9:17") && said.contains("{{ upper \"none\" }}"), "{said}");
}

#[test]
fn every_fault_of_a_template_is_shown_at_once() {
    let text = format!(
        "{HEADER}  - action: run\n    command: {{{{ uper .a }}}} {{{{ $nope }}}} {{{{ print ( }}}}\n{{{{ end }}}}\n{{{{ if .x }}}}\n"
    );
    let (_, said) = loaded(&text, &[], &Options::default());
    for (message, place) in [
        ("unexpected {{end}}", "r.yaml:8:4"),
        ("unexpected EOF", "r.yaml:9:4"),
        ("missing value for command", "r.yaml:7:"),
    ] {
        assert!(said.contains(message) && said.contains(place), "{message} at {place}:\n{said}");
    }
    let text =
        format!("{HEADER}  - action: run\n    command: {{{{ uper .a }}}} {{{{ $nope }}}} {{{{ sha512sum \"\" }}}}\n");
    let (_, said) = loaded(&text, &[], &Options::default());
    for part in ["function \"uper\" not defined", "did you mean `upper`?", "undefined variable \"$nope\"", "slim-sprig"]
    {
        assert!(said.contains(part), "{part}:\n{said}");
    }
}

#[test]
fn faults_while_rendering_have_places_and_do_not_hide_each_other() {
    let text = format!(
        "{HEADER}  - action: run\n    command: {{{{ fail \"use another\" }}}}\n  - action: pack\n    file: {{{{ repeat 2 .name }}}}\n  - action: pack\n    file: {{{{ .n.deep }}}}\n"
    );
    let (_, said) = loaded(&text, &[], &with(&[("n", "1")]));
    for (message, place) in [
        ("use another", "r.yaml:7:17"),
        ("invalid value; expected string", "r.yaml:9:23"),
        ("can't evaluate field deep in type string", "r.yaml:11:14"),
    ] {
        assert!(said.contains(message) && said.contains(place), "{message} at {place}:\n{said}");
    }
    assert!(said.contains("-t name:VALUE"), "{said}");
    assert!(said.contains("3 errors"), "what follows from a fault is not one:\n{said}");
}

#[test]
fn a_part_that_a_template_defines_is_shown_with_its_caller() {
    let text = format!(
        "{{{{ define \"apt\" }}}}\n  - action: apt\n    packages: {{{{ . }}}}\n    sort: 1\n{{{{ end }}}}{HEADER}{{{{ template \"apt\" \"text\" }}}}\n"
    );
    let (_, said) = loaded(&text, &[], &Options::default());
    assert!(said.contains("r.yaml:3:18 (included from r.yaml:10)"), "{said}");
}

#[test]
fn what_has_no_value_is_warned_of_and_printed_as_debos_does() {
    let text = format!("{HEADER}  - action: pack\n    file: a-{{{{ .suite }}}}.tar\n");
    let (recipe, said) = loaded(&text, &[], &Options::default());
    assert_eq!(recipe.unwrap().steps[1].properties["file"], "a-<no value>.tar");
    assert!(said.contains("warning: `.suite` has no value") && said.contains("-t suite:VALUE"), "{said}");
    let strict = Options { strictness: recipe::Strictness::Strict, ..Options::default() };
    assert!(loaded(&text, &[], &strict).0.is_none());
}

#[test]
fn only_what_was_given_is_known() {
    // debos hands `-t` values to the template, and nothing else; no name is another's.
    let text = "architecture: {{ or .arch \"amd64\" }}\nactions:\n  - action: mmdebstrap\n    suite: trixie\n  - action: pack\n    file: {{ or .architecture \"none\" }}.tar\n";
    let (recipe, said) = loaded(text, &[], &with(&[("arch", "arm64")]));
    assert_eq!(recipe.unwrap_or_else(|| panic!("{said}")).steps[1].properties["file"], "none.tar");
}

#[test]
fn a_called_recipe_gets_its_architecture_and_variables_alone() {
    let text = format!(
        "{HEADER}  - action: recipe\n    recipe: sub/s.yaml\n    variables:\n      name: x\n      number: 0644\n"
    );
    let sub = "architecture: {{ .architecture }}\nactions:\n  - action: pack\n    file: {{ .name }}-{{ .number }}-{{ or .arch \"none\" }}.tar\n";
    let (recipe, said) = loaded(&text, &[("sub/s.yaml", sub)], &with(&[("arch", "arm64")]));
    assert_eq!(recipe.unwrap_or_else(|| panic!("{said}")).steps[1].properties["file"], "x-0644-none.tar");
}

#[test]
fn each_file_is_in_its_own_language() {
    let text =
        format!("{HEADER}  - action: recipe\n    recipe: jinja.yaml\n  - action: recipe\n    recipe: plain.yaml\n");
    let jinja = "architecture: {{ architecture }}\nactions:\n{% for n in [1, 2] %}\n  - action: pack\n    file: j{{ n }}.tar\n{% endfor %}\n";
    let plain = "architecture: amd64\nactions:\n  - action: pack\n    file: p.tar\n    ignored: 1\n";
    let files = [("jinja.yaml", jinja), ("plain.yaml", plain)];
    let (recipe, said) = loaded(&text, &files, &Options::default());
    let recipe = recipe.unwrap_or_else(|| panic!("{said}"));
    let names: Vec<_> = recipe
        .steps
        .iter()
        .filter(|step| step.kind == "pack")
        .map(|step| step.properties["file"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["j1.tar", "j2.tar", "p.tar"]);
    assert!(said.contains("warning: unknown property `ignored`"), "a plain file is its caller's:\n{said}");
    let go = Options { dialect: Some(Dialect::Go), ..Options::default() };
    let (_, said) = loaded(&text, &files, &go);
    assert!(said.contains("function \"architecture\" not defined"), "an option holds for all files:\n{said}");
}

#[test]
fn a_mix_of_languages_names_both_places_and_the_option() {
    let text = "architecture: {{ .arch }}\nactions:\n  - action: mmdebstrap\n    suite: trixie\n  - action: pack\n    file: {{ name }}.tar\n";
    let (recipe, said) = loaded(text, &[], &with(&[("arch", "amd64"), ("name", "x")]));
    assert!(recipe.is_none());
    for part in ["r.yaml:6:11", "the one on line 1 is Go's", "`{{ .arch }}` on line 1", "--template go"] {
        assert!(said.contains(part), "{part}:\n{said}");
    }
    let jinja = Options { dialect: Some(Dialect::Jinja), ..with(&[("arch", "amd64"), ("name", "x")]) };
    assert!(loaded(text, &[], &jinja).1.contains("this is not Jinja"));
}

#[rstest]
#[case("now | date \"2006\"")]
#[case("env \"HOME\"")]
#[case("expandenv \"$HOME\"")]
#[case("randInt 1 9")]
#[case("getHostByName \"localhost\"")]
#[case("date \"2006\" \"no time\"")]
fn what_changes_by_itself_is_refused_unless_it_is_allowed(#[case] call: &str) {
    let text = format!("{HEADER}  - action: pack\n    file: x{{{{ {call} }}}}.tar\n");
    let (recipe, said) = loaded(&text, &[], &Options::default());
    assert!(recipe.is_none());
    for part in ["another value on another day", "r.yaml:7:15", "--impure", "-t name:value"] {
        assert!(said.contains(part), "{part}:\n{said}");
    }
    // The way out works: a call that is not reached is no fault.
    let text = format!("{HEADER}  - action: pack\n    file: x{{{{ or .x ({call}) }}}}.tar\n");
    assert!(loaded(&text, &[], &with(&[("x", "1")])).0.is_some());
    let impure = Options { impure: true, ..Options::default() };
    let (recipe, said) = loaded(&text, &[], &impure);
    assert!(recipe.is_some() || said.contains('/'), "{said}");
}

#[test]
fn a_template_without_end_is_ended() {
    for (template, message) in [
        ("{{ define \"x\" }}{{ template \"x\" }}{{ end }}{{ template \"x\" }}", "exceeded maximum template depth"),
        ("{{ range until 100000 }}{{ range until 100000 }}x{{ end }}{{ end }}", "the template does too much"),
        ("{{ $x := \"aaaaaaaa\" }}{{ range until 60 }}{{ $x = repeat 8 $x }}{{ end }}", "the text is too long"),
        ("{{ $x := list 1 }}{{ range until 60 }}{{ $x = concat $x $x }}{{ end }}", "the list is too long"),
        ("{{ $d := dict }}{{ $_ := set $d \"d\" $d }}{{ $d }}", "has itself in it"),
        ("{{ until 100000000 }}", "the list is too long"),
        ("{{ printf \"%999999999d\" 1 }}{{ indent 99999999 \"\\n\\n\" }}", "the text is too long"),
    ] {
        let (recipe, said) = loaded(template, &[], &Options::default());
        assert!(recipe.is_none() && said.contains(message), "{template}:\n{said}");
    }
}

#[test]
fn a_plan_does_not_tell_which_language_the_text_was_in() {
    let go = "{{- $a := \"amd64\" -}}architecture: {{ $a }}\nactions:\n  - action: mmdebstrap\n    suite: trixie\n  - action: pack\n    file: {{ .n }}.tar\n";
    let jinja = "{% set a = \"amd64\" %}architecture: {{ a }}\nactions:\n  - action: mmdebstrap\n    suite: trixie\n  - action: pack\n    file: {{ n }}.tar\n";
    let properties = |text| loaded(text, &[], &with(&[("n", "x")])).0.unwrap().steps[1].properties.clone();
    assert_eq!(properties(go), properties(jinja));
}

#[test]
fn the_rendered_recipe_is_printed() {
    let project = Project::new().recipe(
        "{{- $arch := or .arch \"amd64\" -}}\narchitecture: {{ $arch }}\nactions:\n  - action: mmdebstrap\n    suite: trixie\n  - action: pack\n    file: {{ .name | upper }}.tar\n",
    );
    let args = ["build", "--print-recipe", "--dry-run", "recipe.yaml", "-t", "name:x"];
    project.run(args).prints(
        "architecture: amd64\nactions:\n  - action: mmdebstrap\n    suite: trixie\n  - action: pack\n    file: X.tar\n",
    );
    project.run(["check", "--recipe-only", "--template", "jinja", "recipe.yaml"]).code(2).says("this is not Jinja");
}
