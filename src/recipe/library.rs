//! The files of a template: the recipe, and what it includes, imports and extends.
//!
//! minijinja asks for templates from inside a rendering, where the caller's loader cannot be reached
//! (it need not be `'static`). So what is missing is noted, read after the rendering failed, and the
//! text is rendered again: a template is pure, nothing is lost but the time of its first includes.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use minijinja::Environment;

use super::captures::{self, Marks};
use super::lexer::{TagKind, tags, words};
use super::loader::{Loader, normalise};
use crate::build::FileKind;
use crate::diagnostics::{Source, Span};

/// More files than this are no recipe.
const MAX_FILES: usize = 256;

/// Name of a template that is not there; no path can have it.
const MISSING: &str = "\0";

/// A file's place in [`Library::files`], in order of reading; the recipe itself is 0.
pub(super) type FileIndex = usize;

/// All that was read for one recipe.
#[derive(Clone)]
pub(super) struct Library {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    files: Vec<TemplateFile>,
    by_name: HashMap<String, FileIndex>,
    /// (name of the template that asks, what it asks for) → what that is.
    resolved: HashMap<(String, String), Resolved>,
    wanted: Vec<(String, String)>,
    last_missing: Option<Missing>,
}

struct TemplateFile {
    source: Arc<Source>,
    path: PathBuf,
    /// Where it is asked for.
    referrers: Vec<(FileIndex, Span)>,
}

#[derive(Clone)]
enum Resolved {
    File(FileIndex),
    Missing(String),
    /// Taken for empty, after its absence was reported.
    Stub,
}

/// A template that was asked for and is not there.
#[derive(Debug, Clone)]
pub(super) struct Missing {
    parent: String,
    pub(super) name: String,
    pub(super) why: String,
}

impl Library {
    /// A library of the recipe alone.
    pub(super) fn new(path: &Path, source: Arc<Source>) -> Self {
        let mut shared = Shared::default();
        shared.by_name.insert(source.name.clone(), 0);
        shared.files.push(TemplateFile { source, path: path.to_owned(), referrers: Vec::new() });
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets an environment find the library's files.
    pub(super) fn serve(&self, env: &mut Environment<'_>) {
        self.serve_as(env, |source| source.text.clone());
    }

    /// Lets an environment find the library's files with marks in the text that they catch; `None`
    /// where none of them does, or where the marks could be mistaken.
    pub(super) fn serve_marked(&self, env: &mut Environment<'_>) -> Option<Marks> {
        let shared = self.lock();
        let texts = || shared.files.iter().map(|file| file.source.text.as_str());
        if !texts().any(captures::has_captures) || texts().any(captures::clashes) {
            return None;
        }
        let mut marks = Marks::default();
        let marked: HashMap<String, String> =
            shared.files.iter().map(|file| (file.source.name.clone(), marks.mark(&file.source))).collect();
        drop(shared);
        self.serve_as(env, move |source| marked.get(&source.name).unwrap_or(&source.text).clone());
        Some(marks)
    }

    fn serve_as(&self, env: &mut Environment<'_>, text: impl Fn(&Source) -> String + Send + Sync + 'static) {
        let library = self.clone();
        env.set_path_join_callback(move |name, parent| Cow::Owned(library.join(name, parent)));
        let library = self.clone();
        env.set_loader(move |name| {
            if name == MISSING_STUB {
                return Ok(Some(String::new()));
            }
            let shared = library.lock();
            Ok(shared.by_name.get(name).map(|&index| text(&shared.files[index].source)))
        });
    }

    fn join(&self, name: &str, parent: &str) -> String {
        let mut shared = self.lock();
        let key = (parent.to_owned(), name.to_owned());
        match shared.resolved.get(&key).cloned() {
            Some(Resolved::File(index)) => shared.files[index].source.name.clone(),
            Some(Resolved::Stub) => MISSING_STUB.to_owned(),
            Some(Resolved::Missing(why)) => {
                shared.last_missing = Some(Missing { parent: key.0, name: key.1, why });
                MISSING.to_owned()
            }
            None => {
                shared.wanted.push(key);
                MISSING.to_owned()
            }
        }
    }

    /// Reads what the last rendering asked for in vain; whether there was anything.
    pub(super) fn read_wanted(&self, template_dirs: &[PathBuf], loader: &dyn Loader) -> bool {
        let mut shared = self.lock();
        let wanted = std::mem::take(&mut shared.wanted);
        for (parent, name) in &wanted {
            let resolved = shared.resolve(parent, name, template_dirs, loader).unwrap_or_else(Resolved::Missing);
            if let Resolved::File(index) = resolved {
                shared.refer(parent, name, index);
            }
            shared.resolved.insert((parent.clone(), name.clone()), resolved);
        }
        !wanted.is_empty()
    }

    /// The template that was found missing last.
    pub(super) fn take_missing(&self) -> Option<Missing> {
        self.lock().last_missing.take()
    }

    /// From now on that template is empty.
    pub(super) fn stub(&self, missing: &Missing) {
        self.lock().resolved.insert((missing.parent.clone(), missing.name.clone()), Resolved::Stub);
    }

    /// The file that minijinja knows by a name.
    pub(super) fn find(&self, name: &str) -> Option<(FileIndex, Arc<Source>)> {
        let shared = self.lock();
        shared.by_name.get(name).map(|&index| (index, shared.files[index].source.clone()))
    }

    /// Where a file is asked for: the file that does, and the tag.
    pub(super) fn referrers(&self, file: FileIndex) -> Vec<(FileIndex, Span)> {
        self.lock().files.get(file).map(|file| file.referrers.clone()).unwrap_or_default()
    }

    /// How one comes to a file, by the first tag that asks for it, and so on up to the recipe.
    pub(super) fn chain(&self, file: FileIndex) -> Vec<Span> {
        let shared = self.lock();
        let mut chain: Vec<Span> = Vec::new();
        let mut file = file;
        // A file is read after the one that asked for it, so this ends at the recipe.
        while let Some((parent, tag)) = shared.files.get(file).and_then(|file| file.referrers.first()) {
            chain.push(tag.clone());
            if *parent >= file {
                break;
            }
            file = *parent;
        }
        chain
    }

    /// Every word in the tags of every file: what the templates may ask for.
    pub(super) fn words(&self) -> BTreeSet<String> {
        let shared = self.lock();
        let mut found = BTreeSet::new();
        for file in &shared.files {
            let text = &file.source.text;
            for tag in tags(text).into_iter().filter(|tag| tag.kind != TagKind::Comment) {
                found.extend(words(&text[tag.inner]));
            }
        }
        found
    }

    /// Every file that was read.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.lock().files.iter().map(|file| file.path.clone()).collect()
    }
}

/// Name of the empty template that stands for missing ones; no path can have it.
const MISSING_STUB: &str = "\0stub";

impl Shared {
    /// Looks beside the template that asks, beside the recipe, and below the template directories, and
    /// nowhere else.
    fn resolve(
        &mut self,
        parent: &str,
        name: &str,
        template_dirs: &[PathBuf],
        loader: &dyn Loader,
    ) -> Result<Resolved, String> {
        let recipe_dir = self.files[0].path.parent().unwrap_or(Path::new("")).to_owned();
        let parent_dir = self
            .by_name
            .get(parent)
            .and_then(|&index| self.files[index].path.parent())
            .unwrap_or(&recipe_dir)
            .to_owned();
        let roots: Vec<PathBuf> =
            std::iter::once(&recipe_dir).chain(template_dirs).map(|directory| normalise(directory)).collect();
        let mut outside = false;
        for directory in std::iter::once(&normalise(&parent_dir)).chain(&roots) {
            let path = normalise(&directory.join(name));
            let within = |path: &Path, root: &Path| path.starts_with(root) && !escapes(path, root);
            if !roots.iter().any(|root| within(&path, root)) {
                outside = true;
                continue;
            }
            match loader.kind(&path) {
                Some(FileKind::File) => {}
                Some(FileKind::Directory) => return Err("it is a directory".into()),
                _ => continue,
            }
            let real = loader.canonical(&path);
            if !roots.iter().any(|root| real.starts_with(loader.canonical(root))) {
                outside = true;
                continue;
            }
            return self.read(&path, loader).map(Resolved::File);
        }
        Err(if outside {
            "it is outside of the recipe's directory and the template directories".into()
        } else {
            "there is no such file".into()
        })
    }

    fn read(&mut self, path: &Path, loader: &dyn Loader) -> Result<FileIndex, String> {
        let shown = path.display().to_string();
        if let Some(&index) = self.by_name.get(&shown) {
            return Ok(index);
        }
        // The recipe's own name may have been given with a `./`.
        if normalise(&self.files[0].path) == path {
            return Ok(0);
        }
        if self.files.len() >= MAX_FILES {
            return Err(format!("more than {MAX_FILES} files are included"));
        }
        let text = loader.read(path)?;
        let source = Arc::new(Source { name: shown.clone(), text });
        self.files.push(TemplateFile { source, path: path.to_owned(), referrers: Vec::new() });
        self.by_name.insert(shown, self.files.len() - 1);
        Ok(self.files.len() - 1)
    }

    /// Notes the tags by which `parent` may ask for a file.
    fn refer(&mut self, parent: &str, name: &str, file: FileIndex) {
        let Some(&parent) = self.by_name.get(parent) else { return };
        if parent == file {
            return;
        }
        let source = self.files[parent].source.clone();
        let asking = asking_tags(&source.text).into_iter().filter(|tag| may_name(&source.text[tag.clone()], name));
        self.files[file].referrers.extend(asking.map(|tag| (parent, Span::new(&source, tag.start, tag.end))));
    }
}

/// Whether a tag asks for a template by this name, or by a name that it puts together.
fn may_name(tag: &str, name: &str) -> bool {
    let named = |quote: char| tag.contains(&format!("{quote}{name}{quote}"));
    named('"') || named('\'') || tag.contains('~') || !tag.contains(['"', '\''])
}

/// Whether what is left of a path below a root climbs out of it again.
fn escapes(path: &Path, root: &Path) -> bool {
    path.strip_prefix(root).is_ok_and(|rest| rest.components().any(|part| part == std::path::Component::ParentDir))
}

/// The tags of a template that ask for another one.
fn asking_tags(text: &str) -> Vec<Range<usize>> {
    tags(text)
        .into_iter()
        .filter(|tag| tag.kind == TagKind::Statement)
        .filter(|tag| matches!(tag.word(text), "include" | "import" | "from" | "extends"))
        .map(|tag| tag.range)
        .collect()
}
