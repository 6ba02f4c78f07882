//! Whether a translation means the same: both are rendered with many values, and their steps are compared.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::Translation;
use crate::build::{FileKind, Files};
use crate::diagnostics::{Diagnostic, Diagnostics, Severity};
use crate::recipe::{Dialect, DiskLoader, Loader, Options, Recipe, Strictness};

/// Renderings of one recipe that are compared at most.
const MAX_RENDERINGS: usize = 300;

/// Of those, the ones with values for all variables at once, chosen without a plan.
const MIXED: usize = 64;

/// An artifact directory that has whatever is asked for: other recipes' artifacts need not be there to compare plans.
const ARTIFACTS: &str = "/artifacts of debforge import";

/// What the comparison of a recipe with its translation found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Same {
    /// How many pairs of texts were compared.
    pub renderings: usize,
    /// Whether the texts are the same but for what YAML does not see.
    pub only_as_yaml: bool,
    /// Inputs that were given made-up values, because the recipe cannot do without.
    pub made_up: BTreeSet<String>,
}

/// Where a recipe and its translation part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// With which variables.
    pub variables: BTreeMap<String, String>,
    /// One sentence.
    pub what: String,
}

/// A recipe file and what it became.
#[derive(Debug)]
pub struct Pair<'a> {
    /// Where the original is.
    pub path: &'a Path,
    /// The original.
    pub original: &'a str,
    /// Its translation.
    pub translation: &'a Translation,
}

impl Pair<'_> {
    /// Renders both with the variables that are given, with none, and with others that lead through the recipe's
    /// conditions, and compares the texts.
    ///
    /// # Errors
    /// The first rendering that differs.
    pub fn compare(&self, given: &BTreeMap<String, String>) -> Result<Same, Box<Difference>> {
        let mut same = Same::default();
        for mut variables in self.trials(given) {
            for name in &self.translation.wanted {
                if !variables.contains_key(name) {
                    variables.insert(name.clone(), format!("some-{name}"));
                    same.made_up.insert(name.clone());
                }
            }
            // To a recipe in Jinja these are one; the original is given both as well, where it asks for both.
            for (one, other) in [("arch", "architecture"), ("architecture", "arch")] {
                let asked = self.translation.inputs.contains(other) && !variables.contains_key(other);
                if let (Some(value), true) = (variables.get(one).cloned(), asked) {
                    variables.insert(other.to_owned(), value);
                }
            }
            let original = self.rendered(self.original, Dialect::Go, &variables);
            let translated = self.rendered(&self.translation.text, Dialect::Jinja, &variables);
            let what = match (original, translated) {
                (Ok(original), Ok(translated)) if original == translated => None,
                (Ok(original), Ok(translated)) if equal_as_yaml(&original, &translated) => {
                    same.only_as_yaml = true;
                    None
                }
                (Ok(original), Ok(translated)) => Some(first_difference(&original, &translated)),
                // What debos writes for what is missing is no part of any recipe: it is good that Jinja stops.
                (Ok(original), Err(_)) if original.contains("<no value>") => continue,
                (Ok(_), Err(faults)) => Some(format!("only the translation stops: {}", first_message(&faults))),
                // What debos cannot render cannot be compared; Jinja may well be more patient.
                (Err(_), _) => continue,
            };
            if let Some(what) = what {
                return Err(Box::new(Difference { variables, what }));
            }
            same.renderings += 1;
        }
        Ok(same)
    }

    fn rendered(
        &self,
        text: &str,
        dialect: Dialect,
        variables: &BTreeMap<String, String>,
    ) -> Result<String, Diagnostics> {
        let options = Options { variables: variables.clone(), dialect: Some(dialect), ..Options::default() };
        let loader = Overlaid::new([(self.path.to_owned(), text.to_owned())]);
        crate::recipe::print(self.path, &options, &loader)
    }

    /// Sets of variables to render with.
    fn trials(&self, given: &BTreeMap<String, String>) -> Vec<BTreeMap<String, String>> {
        let mut trials = vec![given.clone(), BTreeMap::new()];
        let values: Vec<(&String, Vec<&str>)> = self
            .translation
            .inputs
            .iter()
            .map(|input| {
                let compared = self.translation.compared.get(input).into_iter().flatten().map(String::as_str);
                (input, ["", "some other"].into_iter().chain(compared).collect())
            })
            .collect();
        let with = |pairs: &[(&String, &str)]| {
            let mut variables = given.clone();
            variables.extend(pairs.iter().map(|(name, value)| ((*name).clone(), (*value).to_owned())));
            variables
        };
        for (name, values) in &values {
            trials.extend(values.iter().map(|value| with(&[(name, value)])));
        }
        trials.truncate(MAX_RENDERINGS - MIXED);
        // A sequence that is the same each time: Knuth's MMIX generator.
        let mut state = 1u64;
        for _ in 0..MIXED.min(values.len() * values.len()) {
            let mut all = Vec::with_capacity(values.len());
            for (name, values) in &values {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                // One more than there are values: then it is left as it is.
                let chosen = (state >> 33) as usize % (values.len() + 1);
                if let Some(value) = values.get(chosen) {
                    all.push((*name, *value));
                }
            }
            trials.push(with(&all));
        }
        trials
    }
}

/// How two recipes' steps compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Steps {
    /// They are the same, so many.
    Same(usize),
    /// Where they part.
    Differ(String),
    /// Neither can be planned, for the same so many reasons.
    Faulty(usize),
}

/// Recipes and their translations, all of which are read in the place of the originals.
#[derive(Debug)]
pub struct Together<'a> {
    texts: BTreeMap<PathBuf, String>,
    options: &'a Options,
}

impl<'a> Together<'a> {
    /// The translations of files.
    pub fn new(texts: impl IntoIterator<Item = (PathBuf, String)>, options: &'a Options) -> Self {
        Self { texts: texts.into_iter().collect(), options }
    }

    fn load(&self, path: &Path, translated: bool, strictness: Strictness) -> (Option<Recipe>, Diagnostics) {
        let dialect = (!translated).then_some(Dialect::Go);
        let options = Options { dialect, strictness, artifact_dir: ARTIFACTS.into(), ..self.options.clone() };
        let texts = if translated { self.texts.clone() } else { BTreeMap::new() };
        crate::recipe::load(path, &options, &Overlaid::new(texts))
    }

    /// Compares the steps of a recipe with those of its translation: kinds, properties, descriptions, directories, of
    /// which the ids of a plan are made.
    pub fn steps(&self, path: &Path) -> Steps {
        let (original, said) = self.load(path, false, Strictness::Lenient);
        let (translated, faults) = self.load(path, true, Strictness::Lenient);
        match (original.filter(|_| !said.has_errors()), translated.filter(|_| !faults.has_errors())) {
            (Some(original), Some(translated)) => match unlike(&original, &translated) {
                Some(what) => Steps::Differ(what),
                None => Steps::Same(original.steps.len()),
            },
            (None, None) if errors(&said).eq(errors(&faults)) => Steps::Faulty(errors(&said).count()),
            (None, None) => Steps::Differ("they have other faults".to_owned()),
            (Some(_), None) => {
                Steps::Differ(format!("only the translation cannot be read: {}", first_message(&faults)))
            }
            (None, Some(_)) => Steps::Differ(format!("only debos's cannot be read: {}", first_message(&said))),
        }
    }

    /// What debos ignores and a recipe in Jinja must not have, where it stands in the original or in its translation.
    pub fn ignored(&self, path: &Path, translated: bool) -> Vec<Diagnostic> {
        let (_, lenient) = self.load(path, translated, Strictness::Lenient);
        let (_, strict) = self.load(path, translated, Strictness::Strict);
        let place = |fault: &Diagnostic| fault.span.as_ref().map(|span| (span.source.name.clone(), span.start));
        let known: BTreeSet<_> = lenient.iter().filter(|fault| fault.severity == Severity::Error).map(place).collect();
        let new = strict.iter().filter(|fault| fault.severity == Severity::Error && !known.contains(&place(fault)));
        if !translated {
            // Some of what is no error to debos is gone with the translation.
            let stays: BTreeSet<String> = self.ignored(path, true).into_iter().map(|fault| fault.message).collect();
            return new.filter(|fault| stays.contains(&fault.message)).cloned().collect();
        }
        new.cloned().collect()
    }
}

fn errors(said: &Diagnostics) -> impl Iterator<Item = &str> {
    said.iter().filter(|fault| fault.severity == Severity::Error).map(|fault| fault.message.as_str())
}

/// Where two recipes part.
fn unlike(one: &Recipe, other: &Recipe) -> Option<String> {
    if (one.architecture, one.sector_size) != (other.architecture, other.sector_size) {
        return Some("the headers differ".to_owned());
    }
    for (index, pair) in one.steps.iter().zip(&other.steps).enumerate() {
        let (a, b) = pair;
        let parts = [
            ("kind", a.kind != b.kind),
            ("properties", a.properties != b.properties),
            ("description", a.description != b.description),
            ("directory", a.recipe_dir != b.recipe_dir),
        ];
        if let Some((part, _)) = parts.into_iter().find(|(_, differs)| *differs) {
            return Some(format!("step {} (`{}`) has another {part}", index + 1, a.kind));
        }
    }
    let counts = (one.steps.len(), other.steps.len());
    (counts.0 != counts.1).then(|| format!("debos has {} steps, the translation {}", counts.0, counts.1))
}

fn equal_as_yaml(one: &str, other: &str) -> bool {
    let parsed = |text: &str| serde_yaml::from_str::<serde_yaml::Value>(text).ok();
    parsed(one).is_some_and(|one| parsed(other) == Some(one))
}

fn first_difference(one: &str, other: &str) -> String {
    let mut lines = one.lines().zip(other.lines()).enumerate();
    match lines.find(|(_, (one, other))| one != other) {
        Some((index, (one, other))) => {
            format!("line {} of the rendered text is `{one}`, of the translation `{other}`", index + 1)
        }
        None => "one text goes on where the other ends".to_owned(),
    }
}

fn first_message(faults: &Diagnostics) -> String {
    faults.iter().next().map(|fault| fault.message.clone()).unwrap_or_default()
}

/// The disk with other texts in the place of some files, and with [`ARTIFACTS`].
struct Overlaid {
    texts: BTreeMap<PathBuf, String>,
}

impl Overlaid {
    fn new(texts: impl IntoIterator<Item = (PathBuf, String)>) -> Self {
        Self { texts: texts.into_iter().map(|(path, text)| (DiskLoader.canonical(&path), text)).collect() }
    }

    fn find(&self, path: &Path) -> Option<&String> {
        self.texts.get(&DiskLoader.canonical(path))
    }
}

impl Files for Overlaid {
    fn kind(&self, path: &Path) -> Option<FileKind> {
        let there = path.starts_with(ARTIFACTS) || self.find(path).is_some();
        if there { Some(FileKind::File) } else { DiskLoader.kind(path) }
    }

    fn size(&self, path: &Path) -> Option<u64> {
        self.find(path).map(|text| text.len() as u64).or_else(|| DiskLoader.size(path))
    }

    fn names(&self, path: &Path) -> Vec<OsString> {
        DiskLoader.names(path)
    }

    fn is_link(&self, path: &Path) -> bool {
        DiskLoader.is_link(path)
    }

    fn text(&self, path: &Path) -> Option<String> {
        self.find(path).cloned().or_else(|| DiskLoader.text(path))
    }
}

impl Loader for Overlaid {
    fn read(&self, path: &Path) -> Result<String, String> {
        self.find(path).cloned().map_or_else(|| DiskLoader.read(path), Ok)
    }

    fn absolute(&self, path: &Path) -> PathBuf {
        DiskLoader.absolute(path)
    }

    fn canonical(&self, path: &Path) -> PathBuf {
        DiskLoader.canonical(path)
    }
}
