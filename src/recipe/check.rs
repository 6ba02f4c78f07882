//! A parsed recipe to steps: its header, its actions, and those of the recipes it calls.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::dialect::Dialect;
use super::document::{self, Entry, entries};
use super::front::{Text, is_lenient, with_both_names};
use super::header::misspelt;
use super::lexer::words;
use super::loader::{Loader, cannot_read, directory_of, normalise, read, relative};
use super::nested::Caller;
use super::properties::Reader;
use super::source_map::{Origin, SourceMap};
use super::template::Rendered;
use super::template_fault;
use super::yaml::{self, Node, NodeKind};
use super::{MachineWish, Options, Recipe, Step};
use crate::actions::{self, ImageWalk, Kind};
use crate::build::CheckContext;
use crate::debian::Architecture;
use crate::diagnostics::{Diagnostic, Diagnostics, Source, Span, Spans, suggest};

/// Of disks, where the recipe does not say.
const DEFAULT_SECTOR_SIZE: u32 = 512;

/// Values that the actions of a recipe may have together; far beyond what anybody writes.
const MAX_VALUES: usize = 200_000;

/// Keys of every action.
const COMMON: [&str; 3] = ["action", "description", "when"];

/// A recipe with all that it calls while it is loaded.
pub(super) struct Loading<'a> {
    pub(super) options: &'a Options,
    pub(super) loader: &'a dyn Loader,
    pub(super) out: Diagnostics,
    /// The recipes that are being read, the outermost first.
    pub(super) open: Vec<PathBuf>,
    steps: Vec<Step>,
    files: Vec<PathBuf>,
    schemas: HashMap<&'static str, Arc<Value>>,
    top_dir: PathBuf,
    pub(super) sector_size: Option<(u32, Span)>,
    pub(super) machine: MachineWish,
    downloads: Vec<String>,
    artifacts: Vec<String>,
    has_root: bool,
    any_artifacts: bool,
    /// Release of Debian that the root is of.
    release: Option<String>,
    pub(super) image: ImageWalk,
    /// The action that needs the image's bytes, so that what follows it comes too late for them.
    pub(super) image_for: &'static str,
    /// The warning of the first step that changes the root too late for the image, unless another
    /// deploy follows.
    pub(super) late: Option<Diagnostic>,
    /// Whether images without a `strategy` are mounted for the steps.
    pub(super) mounts_images: bool,
    /// Whether a step wants the device that only an image has that is mounted.
    pub(super) wants_device: bool,
    budget: usize,
    said: HashSet<(String, Option<SpanKey>)>,
}

/// What makes two spans the same: the source, by its address, and the bytes.
type SpanKey = (*const Source, usize, usize);

/// One recipe file while its actions are read.
pub(super) struct Scope {
    pub(super) rendered: Rendered,
    /// The language of its template.
    pub(super) dialect: Dialect,
    /// Whether what debos takes and ignores is only warned of.
    pub(super) lenient: bool,
    pub(super) architecture: Option<Architecture>,
    pub(super) variables: Arc<BTreeMap<String, String>>,
    /// Names of the variables that were handed to it.
    given: Vec<String>,
    /// Words of expressions that stand in the document rather than in the template.
    words: BTreeSet<String>,
    /// As the path was given.
    pub(super) directory: PathBuf,
    /// From the root of the file system.
    pub(super) recipe_dir: PathBuf,
    pub(super) recipe_dir_shown: String,
}

impl Scope {
    pub(super) fn map(&self) -> &SourceMap {
        &self.rendered.map
    }

    /// Some architecture to go on with where the recipe's own is in doubt, which was reported.
    pub(super) fn architecture_or_any(&self) -> Architecture {
        self.architecture.unwrap_or_else(Architecture::host)
    }

    pub(super) fn locate(&self, node: &Node) -> Origin {
        self.map().locate(node.range.clone())
    }
}

impl<'a> Loading<'a> {
    /// How many steps there are so far.
    pub(super) fn step_count(&self) -> usize {
        self.steps.len()
    }

    pub(super) fn new(path: &Path, options: &'a Options, loader: &'a dyn Loader) -> Self {
        Self {
            options,
            loader,
            out: Diagnostics::new(),
            open: Vec::new(),
            steps: Vec::new(),
            files: Vec::new(),
            schemas: HashMap::new(),
            top_dir: directory_of(path),
            sector_size: None,
            machine: MachineWish::default(),
            downloads: Vec::new(),
            artifacts: Vec::new(),
            has_root: false,
            any_artifacts: false,
            release: None,
            image: ImageWalk::default(),
            image_for: "",
            late: None,
            mounts_images: false,
            wants_device: false,
            budget: MAX_VALUES,
            said: HashSet::new(),
        }
    }

    /// Loads the recipe that the user named.
    pub(super) fn top(&mut self, path: &Path) -> (Option<Recipe>, Diagnostics) {
        let source = match read(path, self.loader) {
            Ok(source) => source,
            Err(why) => {
                self.out.push(cannot_read(path, &why));
                return (None, std::mem::take(&mut self.out));
            }
        };
        let architecture = self.recipe(path, source, self.options.variables.clone(), None);
        if let Some(late) = self.late.take() {
            self.say(late);
        }
        let recipe = match architecture {
            Some(architecture) if !self.out.has_errors() => Some(Recipe {
                path: path.to_owned(),
                architecture,
                sector_size: self.sector_size.as_ref().map_or(DEFAULT_SECTOR_SIZE, |(size, _)| *size),
                machine: self.machine,
                steps: std::mem::take(&mut self.steps),
                files: std::mem::take(&mut self.files),
            }),
            _ => None,
        };
        (recipe, std::mem::take(&mut self.out))
    }

    /// The text of the recipe that the user named, without looking into it.
    pub(super) fn print(mut self, path: &Path) -> Result<String, Diagnostics> {
        let source = read(path, self.loader).map_err(|why| {
            let mut out = Diagnostics::new();
            out.push(cannot_read(path, &why));
            out
        })?;
        let variables = &self.options.variables;
        let text = Text { path, source: &source, variables, included_from: &[], caller: None };
        let dialect = text.dialect(self.options, &mut self.out);
        let rendered = dialect.and_then(|dialect| text.render(dialect, self.options, self.loader, &mut self.out));
        match rendered {
            Some(rendered) if !self.out.has_errors() => Ok(rendered.map.text().to_owned()),
            _ => Err(self.out),
        }
    }

    /// Adds the steps of one recipe file.
    pub(super) fn recipe(
        &mut self,
        path: &Path,
        source: Arc<Source>,
        variables: BTreeMap<String, String>,
        caller: Option<&Caller>,
    ) -> Option<Architecture> {
        let given: Vec<String> = variables.keys().cloned().collect();
        let included_from = caller.map(Caller::chain).unwrap_or_default();
        let mut faults = Diagnostics::new();
        let text = Text {
            path,
            source: &source,
            variables: &variables,
            included_from: &included_from,
            caller: caller.map(|caller| caller.dialect),
        };
        let dialect = text.dialect(self.options, &mut faults);
        let rendered =
            dialect.and_then(|dialect| Some((dialect, text.render(dialect, self.options, self.loader, &mut faults)?)));
        for fault in faults.iter() {
            self.say(fault.clone());
        }
        let Some((dialect, rendered)) = rendered else {
            self.assume_done(None);
            return None;
        };
        for file in &rendered.files {
            let file = self.loader.absolute(file);
            if !self.files.contains(&file) {
                self.files.push(file);
            }
        }
        let directory = directory_of(path);
        let shown = relative(&directory, &self.top_dir).display().to_string();
        let mut scope = Scope {
            rendered,
            architecture: None,
            dialect,
            lenient: is_lenient(dialect, self.options),
            variables: Arc::new(with_both_names(variables)),
            recipe_dir: self.loader.absolute(&directory),
            recipe_dir_shown: shown,
            words: BTreeSet::new(),
            given,
            directory,
        };
        let first_step = self.steps.len();
        self.open.push(normalise(path));
        self.document(&mut scope, &source, caller);
        self.open.pop();
        self.unused(&scope, caller, first_step);
        scope.architecture
    }

    /// Warns of variables that nothing in the recipe asks for: most are typing errors.
    fn unused(&mut self, scope: &Scope, caller: Option<&Caller>, first_step: usize) {
        let asked: BTreeSet<&str> = scope
            .rendered
            .words
            .iter()
            .chain(&scope.words)
            .map(String::as_str)
            .chain(["arch", "architecture"])
            .collect();
        // Files that are rendered while the recipe is built are not read here.
        if self.steps[first_step..].iter().any(|step| step.properties["render"] == true) || self.out.has_errors() {
            return;
        }
        for name in scope.given.iter().filter(|name| !asked.contains(name.as_str())) {
            let message = format!("nothing in the recipe asks for the variable `{name}`");
            // Only names that nobody gave can be meant.
            let open = asked.iter().copied().filter(|word| !scope.given.iter().any(|given| given == word));
            let close = suggest(name, open);
            // Who has several recipes of debos gives all of them the same variables.
            if scope.dialect == Dialect::Go && caller.is_none() && close.is_none() {
                continue;
            }
            let diagnostic = match caller.and_then(|caller| caller.variable(name)) {
                Some(origin) => origin.warning(message),
                None => Diagnostic::warning(message, None),
            };
            let hint = close.map(|close| format!("did you mean `{close}`?"));
            self.push(scope, hint.into_iter().fold(diagnostic, Diagnostic::hint));
        }
    }

    fn document(&mut self, scope: &mut Scope, source: &Arc<Source>, caller: Option<&Caller>) {
        let whole =
            Origin { span: Span::new(source, 0, 0), included_from: caller.map(Caller::chain).unwrap_or_default() };
        let parsed = match scope.lenient {
            true => yaml::parse_first(scope.map().text()),
            false => yaml::parse(scope.map().text()).map(|root| (root, None)),
        };
        if let Ok((_, Some(further))) = &parsed {
            let warning = scope.map().locate(further.clone()).warning(yaml::SECOND_DOCUMENT);
            self.push(scope, warning.hint("it is ignored, as in debos"));
        }
        let root = match parsed.map(|(root, _)| root) {
            Ok(Some(root)) => root,
            Ok(None) => {
                self.out.push(whole.error("the recipe is empty").hint("it needs `architecture` and `actions`"));
                return;
            }
            Err(error) => {
                let mut diagnostic = scope.map().locate(error.range).error(error.message);
                diagnostic.hints.extend(error.hint);
                self.push(scope, diagnostic);
                return;
            }
        };
        let mut faults = Diagnostics::new();
        document::check(&root, scope.map(), scope.lenient, &mut faults);
        self.extend(scope, &faults);
        let NodeKind::Mapping(pairs) = &root.kind else {
            self.push(scope, scope.locate(&root).error("a recipe is a mapping with `architecture` and `actions`"));
            return;
        };
        let given = entries(pairs);
        self.header(scope, &given, &whole, caller);
        let actions = given.iter().find(|entry| entry.name() == "actions");
        match actions.map(|entry| (entry, &entry.value.kind)) {
            Some((_, NodeKind::Sequence(items))) if !items.is_empty() => {
                for item in items {
                    self.action(scope, item);
                }
            }
            Some((entry, NodeKind::Sequence(_))) => {
                self.push(scope, scope.locate(&entry.key).error("a recipe needs at least one action"));
            }
            Some((entry, _)) if entry.value.is_null() => {
                self.push(scope, scope.locate(&entry.key).error("a recipe needs at least one action"));
            }
            Some((entry, _)) => {
                let diagnostic = scope.locate(&entry.value).error("`actions` must be a list");
                self.push(scope, diagnostic.hint("each action starts with `- action: NAME`"));
            }
            None if !scope.lenient && misspelt(&given, "actions") => {}
            None => {
                let diagnostic = whole.error("the recipe has no `actions`");
                self.push(scope, diagnostic.hint("`debforge actions` lists what can be done"));
            }
        }
    }

    fn action(&mut self, scope: &mut Scope, node: &Node) {
        let NodeKind::Mapping(pairs) = &node.kind else {
            let diagnostic = scope.locate(node).error("an action must be a mapping");
            self.push(scope, diagnostic.hint("it starts with `- action: NAME`"));
            return;
        };
        let given = entries(pairs);
        let common = |name: &str| given.iter().find(|entry| entry.name() == name);
        let Some(named) = common("action") else {
            let diagnostic = scope.locate(node).error("this action has no `action`");
            let close = given.iter().find(|entry| suggest(entry.name(), ["action"]).is_some());
            let hint = match close {
                Some(entry) => format!("did you mean `action` where you wrote `{}`?", entry.name()),
                None => "`debforge actions` lists what can be done".to_owned(),
            };
            self.push(scope, diagnostic.hint(hint));
            return;
        };
        let name_origin = scope.locate(&named.value);
        let Some(name) = named.value.text().filter(|_| !named.value.is_null()) else {
            self.push(scope, name_origin.error("`action` must be the name of an action"));
            return;
        };
        let Some(kind) = actions::find(name) else {
            self.unknown_action(scope, name, &name_origin);
            self.assume_done(None);
            return;
        };
        let description = common("description").and_then(|entry| self.description(scope, entry));
        let wanted = match common("when") {
            Some(entry) => {
                scope.words.extend(words(entry.value.text().unwrap_or_default()));
                self.when(scope, entry)
            }
            None => true,
        };

        let schema = self.schema(kind);
        let subject = format!("the action `{name}`");
        let mut reader = Reader::new(&subject, &schema, scope.map(), name_origin, self.budget).lenient(scope.lenient);
        let rest: Vec<Entry> = given.iter().filter(|entry| !COMMON.contains(&entry.name())).cloned().collect();
        let mut value = reader.properties(&rest);
        let Reader { mut spans, faults, ignored, elsewhere, budget, .. } = reader;
        self.budget = budget;
        for warning in ignored {
            self.push(scope, warning);
        }
        for entry in given.iter().filter(|entry| COMMON.contains(&entry.name())) {
            spans.keys.insert(entry.name().to_owned(), scope.locate(&entry.key).span);
            spans.values.insert(entry.name().to_owned(), scope.locate(&entry.value).span);
        }
        if !faults.is_empty() {
            let last = faults.len() - 1;
            for (index, fault) in faults.into_iter().enumerate() {
                let manual = format!("`debforge actions {name}` prints the manual");
                self.push(scope, if index == last { fault.hint(manual) } else { fault });
            }
            self.assume_done(value["name"].as_str());
            return;
        }
        self.mount_image(kind, &mut value);
        Self::excuse_image(scope.lenient, kind, &mut value);
        self.decoded(scope, kind, value, spans, &elsewhere, description, wanted);
    }

    #[allow(clippy::too_many_arguments)] // The parts of one action on their way into a step.
    fn decoded(
        &mut self,
        scope: &Scope,
        kind: &'static Kind,
        value: Value,
        spans: Spans,
        elsewhere: &[Origin],
        description: Option<String>,
        wanted: bool,
    ) {
        let decoded = (kind.decode)(value.clone()).and_then(|action| Ok((action, (kind.normalise)(value.clone())?)));
        let (action, properties) = match decoded {
            Ok(decoded) => decoded,
            Err(error) => {
                let mut diagnostic = Diagnostic::error(
                    match error.property.as_str() {
                        "" => format!("the action `{}`: {}", kind.name, error.message),
                        property => format!("`{property}`: {}", error.message),
                    },
                    spans.value(&error.property),
                );
                diagnostic.included_from.clone_from(&spans.included_from);
                self.push(scope, diagnostic.hint(format!("`debforge actions {}` prints the manual", kind.name)));
                self.assume_done(value["name"].as_str());
                return;
            }
        };
        if !wanted {
            return;
        }
        if kind.name == "recipe" {
            self.nested(scope, &properties, &spans);
            return;
        }
        let architecture = scope.architecture_or_any();
        let sector_size = self.sector_size.as_ref().map_or(DEFAULT_SECTOR_SIZE, |(size, _)| *size);
        let mut faults = Diagnostics::new();
        let cx = CheckContext {
            architecture,
            recipe_dir: &scope.recipe_dir,
            artifact_dir: &self.options.artifact_dir,
            files: self.loader,
            spans: &spans,
            downloads: &self.downloads,
            artifacts: &self.artifacts,
            sector_size,
            image: self.image.spec(),
            has_root: self.has_root,
            any_artifacts: self.any_artifacts,
            release: self.release.as_deref(),
            lenient: scope.lenient,
        };
        self.wants_device |= scope.dialect == Dialect::Go && !self.mounts_images && action.wants_device(&cx);
        action.check(&cx, &mut faults);
        let image_bytes = action.image_bytes(&cx);
        for fault in faults.iter() {
            let mut fault = fault.clone();
            // The action only knows the way that led to itself.
            if let Some(origin) = elsewhere.iter().find(|origin| Some(&origin.span) == fault.span.as_ref()) {
                fault.included_from.clone_from(&origin.included_from);
            }
            self.push(scope, fault);
        }
        let variables = self.rendered_with(scope, kind.name, &properties, &spans);
        let changes = action.changes();
        self.follow_image(action.as_ref(), kind, architecture, sector_size, image_bytes);
        self.note_late(kind, action.as_ref(), &properties, &spans);
        let artifacts = action.artifacts();
        self.release = action.release_after(self.release.take());
        self.has_root |= changes.root;
        self.any_artifacts |= changes.artifacts && artifacts.is_empty();
        self.artifacts.extend(artifacts);
        let removed = action.removes();
        self.artifacts.retain(|artifact| !removed.contains(artifact));
        self.downloads.extend(action.origin_name().map(str::to_owned));
        self.steps.push(Step {
            kind: kind.name,
            action,
            properties,
            description,
            recipe_dir: scope.recipe_dir.clone(),
            recipe_dir_shown: scope.recipe_dir_shown.clone(),
            variables: variables.unwrap_or_else(|| scope.variables.clone()),
            spans,
        });
    }

    /// After a fault nobody knows what an action would have left to the later ones: anything, so that
    /// what follows from the fault is not reported as a fault of theirs.
    pub(super) fn assume_done(&mut self, origin: Option<&str>) {
        self.has_root = true;
        self.any_artifacts = true;
        self.downloads.extend(origin.map(str::to_owned));
    }

    fn unknown_action(&mut self, scope: &Scope, name: &str, origin: &Origin) {
        let diagnostic = origin.error(format!("unknown action `{name}`"));
        let names = actions::KINDS.iter().map(|kind| kind.name);
        let diagnostic = match suggest(name, names) {
            Some(close) => diagnostic.hint(format!("did you mean `{close}`?")),
            None => diagnostic.hint("`debforge actions` lists what can be done"),
        };
        self.push(scope, diagnostic);
    }

    fn description(&mut self, scope: &Scope, entry: &Entry) -> Option<String> {
        match entry.value.text() {
            Some(_) if entry.value.is_null() => None,
            Some(text) => Some(text.to_owned()),
            None => {
                self.push(scope, scope.locate(&entry.value).error("`description` must be text"));
                None
            }
        }
    }

    /// Whether an action is wanted; where that cannot be told, it is looked at like any other.
    fn when(&mut self, scope: &Scope, entry: &Entry) -> bool {
        let origin = scope.locate(&entry.value);
        let Some(expression) = entry.value.text().filter(|_| !entry.value.is_null()) else {
            let diagnostic = origin.error("`when` must be a Jinja expression");
            self.push(scope, diagnostic.hint("for instance `when: arch == \"arm64\"`"));
            return true;
        };
        let plain = matches!(&entry.value.kind, NodeKind::Scalar { plain: true, .. });
        if plain && let Some(value) = yaml::boolean(expression).or_else(|| yaml::old_boolean(expression)) {
            return value;
        }
        match scope.rendered.evaluate(expression) {
            Ok(value) => value.is_true(),
            Err(error) => {
                let diagnostic =
                    template_fault::explain_expression(&error, expression, &scope.rendered.names(), &origin);
                self.push(scope, diagnostic);
                true
            }
        }
    }

    fn schema(&mut self, kind: &'static Kind) -> Arc<Value> {
        self.schemas.entry(kind.name).or_insert_with(|| Arc::new((kind.schema)().to_value())).clone()
    }

    /// Adds a diagnostic unless it follows from another that was reported.
    pub(super) fn push(&mut self, scope: &Scope, diagnostic: Diagnostic) {
        let follows = diagnostic.span.as_ref().is_some_and(|span| {
            scope.rendered.tainted.iter().any(|tainted| {
                Arc::ptr_eq(&tainted.source, &span.source) && tainted.start < span.end && span.start < tainted.end
            })
        });
        if !follows {
            self.say(diagnostic);
        }
    }

    /// Adds a diagnostic once: a loop, or a file that is included twice, says the same again.
    fn say(&mut self, diagnostic: Diagnostic) {
        let place = diagnostic.span.as_ref().map(|span| (Arc::as_ptr(&span.source), span.start, span.end));
        if self.said.insert((diagnostic.message.clone(), place)) {
            self.out.push(diagnostic);
        }
    }

    fn extend(&mut self, scope: &Scope, diagnostics: &Diagnostics) {
        for diagnostic in diagnostics.iter() {
            self.push(scope, diagnostic.clone());
        }
    }
}
