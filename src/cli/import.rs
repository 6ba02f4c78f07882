//! `debforge import`

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::output::print;
use super::recipe::{Said, pair};
use crate::diagnostics::{Diagnostic, Diagnostics, Fault, FaultKind, Severity};
use crate::import::{Pair, Steps, Together, Translated, comment_out, places_below, translate_all, write};
use crate::recipe::Options;
use crate::say;

/// Write debos's recipes, which are Go templates, in Jinja
///
/// Comments and layout stay as they are. Original and translation are rendered with the variables that are given, with
/// none, and with others that lead through the recipe's conditions, and have to be the same; so do the steps of both.
/// What cannot be translated is named with its place, and nothing is written.
///
/// Exit code 2 where something could not be translated.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Recipes to translate.
    #[arg(value_name = "RECIPE", required = true)]
    recipes: Vec<PathBuf>,

    /// File to write [default: standard output].
    #[arg(short, long, value_name = "FILE", conflicts_with = "output_dir")]
    output: Option<PathBuf>,

    /// Directory to write below; each recipe keeps its place among the others.
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,

    /// Translate the recipes that these call, too.
    #[arg(short, long)]
    recursive: bool,

    /// Write what could be translated, with the other tags as they are; replace files that are there.
    #[arg(long)]
    force: bool,

    /// Comment out keys that debos ignores and debforge does not.
    #[arg(long)]
    comment_ignored: bool,

    /// Set a variable of the template, for the comparison.
    #[arg(short = 't', long = "template-var", value_name = "NAME:VALUE", value_parser = pair)]
    variables: Vec<(String, String)>,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<u8> {
    let mut all = translate_all(&args.recipes, args.recursive).map_err(|faults| said(&faults))?;
    if all.len() > 1 && args.output_dir.is_none() {
        let message = format!("{} recipes cannot be written to one place", all.len());
        return Err(Fault::recipe(message).hint("name a directory for them: `--output-dir DIR`").into());
    }
    let whole = told(&mut all);
    if !whole && !args.force {
        let fault = Fault::recipe("nothing was written: not every tag could be translated");
        return Err(fault.hint("`--force` writes the rest, with those tags as they are and a comment at each").into());
    }
    let options = Options { variables: args.variables.iter().cloned().collect(), ..Options::default() };
    let mut lines = Vec::new();
    for recipe in all.iter().filter(|recipe| !recipe.translation.faults.has_errors()) {
        lines.push((recipe, compared(recipe, &options.variables)?));
    }
    // Which keys are ignored is found where the steps are looked at, that is from the recipes that were named.
    let mut keys: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    let together = Together::new(texts(&all), &options);
    for (recipe, line) in lines {
        let (end, planned) = if recipe.named { steps(recipe, &options, &together)? } else { (String::new(), false) };
        if planned {
            for fault in together.ignored(&recipe.path, args.comment_ignored) {
                match (args.comment_ignored, &fault.span) {
                    (true, Some(span)) => {
                        keys.entry(span.source.name.clone()).or_default().insert(span.start);
                    }
                    _ => crate::sys::output::say(&ignored(fault).render(console::colors_enabled_stderr())),
                }
            }
        }
        say!("{line}{end}");
        wanted(recipe, &options.variables);
    }
    commented(&mut all, &keys);
    written(args, &all)?;
    Ok(if whole { 0 } else { FaultKind::Recipe.exit_code() })
}

/// The translations, by the paths of the originals.
fn texts(all: &[Translated]) -> Vec<(PathBuf, String)> {
    all.iter().map(|recipe| (recipe.path.clone(), recipe.translation.text.clone())).collect()
}

/// What debos ignores, with what becomes of it in Jinja.
fn ignored(mut fault: Diagnostic) -> Diagnostics {
    fault.severity = Severity::Warning;
    let mut said = Diagnostics::new();
    said.push(fault.hint("debos ignores it; in Jinja it is an error: `--comment-ignored` comments it out"));
    said
}

/// Comments out the keys that begin at these bytes of the translations.
fn commented(all: &mut [Translated], keys: &BTreeMap<String, BTreeSet<usize>>) {
    for recipe in all {
        let Some(keys) = keys.get(&recipe.source.name) else { continue };
        let keys: Vec<usize> = keys.iter().copied().collect();
        let (text, left) = comment_out(&recipe.translation.text, &keys);
        let count = keys.len() - left.len();
        let path = recipe.path.display();
        say!("{path}: {count} {} commented out", if count == 1 { "key" } else { "keys" });
        for key in left {
            let rest = recipe.translation.text[key..].lines().next().unwrap_or_default();
            say!("{path}: `{rest}` is left, other keys stand on its line");
        }
        recipe.translation.text = text;
    }
}

/// Says what could not be translated; whether all could.
fn told(all: &mut [Translated]) -> bool {
    let mut whole = true;
    for recipe in all.iter_mut() {
        let faults = &recipe.translation.faults;
        whole &= !faults.has_errors();
        if !faults.is_empty() {
            crate::sys::output::say(&faults.render(console::colors_enabled_stderr()));
        }
    }
    whole
}

fn said(faults: &Diagnostics) -> anyhow::Error {
    crate::sys::output::say(&faults.render(console::colors_enabled_stderr()));
    Said(FaultKind::Recipe).into()
}

/// Compares a recipe with its translation; what came of it.
fn compared(recipe: &Translated, given: &BTreeMap<String, String>) -> Result<String> {
    let path = recipe.path.display();
    let translation = &recipe.translation;
    let pair = Pair { path: &recipe.path, original: &recipe.source.text, translation };
    let same = pair.compare(given).map_err(|difference| {
        let set: Vec<String> =
            difference.variables.iter().map(|(name, value)| format!("-t '{name}:{value}'")).collect();
        Fault::recipe(format!("{path}: the translation is not the same: {}", difference.what))
            .hint(format!("so it is with {}", if set.is_empty() { "no variables".into() } else { set.join(" ") }))
            .hint("this is a fault of debforge; please report it with the recipe")
    })?;
    let tags = match translation.tags {
        0 => "no template in it".to_owned(),
        1 => "1 tag".to_owned(),
        tags => format!("{tags} tags"),
    };
    let texts = match (same.renderings, same.only_as_yaml) {
        (0, _) => "not rendered".to_owned(),
        (1, false) => "the same text".to_owned(),
        (count, false) => format!("the same text with {count} sets of variables"),
        (count, true) => format!("the same YAML with {count} sets of variables"),
    };
    Ok(format!("{path}: {tags}, {texts}"))
}

/// Says which variables have to be given beside these.
fn wanted(recipe: &Translated, given: &BTreeMap<String, String>) {
    let wanted = recipe.translation.wanted.iter().filter(|name| !given.contains_key(*name));
    let names: Vec<&str> = wanted.map(String::as_str).collect();
    if !names.is_empty() {
        say!("  has to be given: {} (debos writes `<no value>`, Jinja stops)", names.join(", "));
    }
}

/// Whether the steps are the same, as the end of a line; and whether they were compared.
fn steps(recipe: &Translated, options: &Options, together: &Together) -> Result<(String, bool)> {
    let wanted = &recipe.translation.wanted;
    if wanted.iter().any(|name| !options.variables.contains_key(name)) {
        return Ok(("; the plans are compared where all its variables are given (`-t`)".into(), false));
    }
    let path = recipe.path.display();
    match together.steps(&recipe.path) {
        Steps::Same(1) => Ok((", the same plan: 1 step".into(), true)),
        Steps::Same(count) => Ok((format!(", the same plan: {count} steps"), true)),
        Steps::Faulty(count) => {
            let errors = if count == 1 { "error".to_owned() } else { format!("{count} errors") };
            Ok((format!("; no plan, for the same {errors} (`debforge check {path}`)"), true))
        }
        Steps::Differ(what) => {
            let fault = Fault::recipe(format!("{path}: the translation has another plan: {what}"));
            Err(fault.hint("this is a fault of debforge; please report it with the recipe").into())
        }
    }
}

fn written(args: &Args, all: &[Translated]) -> Result<()> {
    let paths: Vec<&Path> = all.iter().map(|recipe| recipe.path.as_path()).collect();
    let places = match (&args.output, &args.output_dir) {
        (Some(file), _) => vec![file.clone()],
        (None, Some(directory)) => places_below(directory, &paths)?,
        (None, None) => {
            return all.iter().try_for_each(|recipe| print(&recipe.translation.text));
        }
    };
    if args.output.is_none() && !args.force {
        let there: Vec<String> =
            places.iter().filter(|place| place.exists()).map(|place| place.display().to_string()).collect();
        if !there.is_empty() {
            let message = format!("nothing was written: {} would be replaced", there.join(", "));
            return Err(Fault::recipe(message).hint("`--force` replaces files that are there").into());
        }
    }
    for (recipe, place) in all.iter().zip(&places) {
        write(place, &recipe.translation.text, &recipe.path, args.force || args.output.is_some())?;
        say!("wrote {}", place.display());
    }
    Ok(())
}
