//! Files that an `overlay` renders: looked at before anything runs, as the recipe itself is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::check::{Loading, Scope};
use super::{MemoryLoader, template};
use crate::build::FileKind;
use crate::diagnostics::{Diagnostic, Diagnostics, Source, Spans};

/// Beyond this many, an overlay's files are left to its step.
const MAX_FILES: usize = 1000;

impl Loading<'_> {
    /// The variables that an action's files are rendered with: those handed to its recipe, and texts that this sets at
    /// its top level. `None` for an action that renders none.
    pub(super) fn rendered_with(
        &mut self,
        scope: &Scope,
        action: &str,
        properties: &Value,
        spans: &Spans,
    ) -> Option<Arc<BTreeMap<String, String>>> {
        if action != "overlay" || properties["render"] != true {
            return None;
        }
        let mut variables = scope.rendered.texts();
        variables.extend(scope.variables.iter().map(|(name, value)| (name.clone(), value.clone())));
        if properties["origin"] == "recipe" {
            let source = properties["source"].as_str().unwrap_or("");
            let top = scope.recipe_dir.join(source.trim_start_matches('/'));
            let mut files = Vec::new();
            self.files_in(&top, &mut files);
            for file in files {
                self.render(scope, &file, &variables, spans);
            }
        }
        Some(Arc::new(variables))
    }

    fn files_in(&self, path: &Path, files: &mut Vec<PathBuf>) {
        match self.loader.kind(path) {
            Some(FileKind::File) if files.len() < MAX_FILES => files.push(path.to_owned()),
            Some(FileKind::Directory) => {
                for name in self.loader.names(path) {
                    // What a link leads to is copied as a link.
                    let path = path.join(name);
                    if !self.loader.is_link(&path) {
                        self.files_in(&path, files);
                    }
                }
            }
            Some(FileKind::Other) => files.push(path.to_owned()),
            _ => {}
        }
    }

    fn render(&mut self, scope: &Scope, file: &Path, variables: &BTreeMap<String, String>, spans: &Spans) {
        let shown = file.strip_prefix(&scope.recipe_dir).unwrap_or(file);
        let name = Path::new(&scope.recipe_dir_shown).join(shown).display().to_string();
        if self.loader.kind(file) == Some(FileKind::Other) {
            let message = format!("{name} cannot be rendered: it is neither a file nor a directory");
            self.push(scope, Diagnostic::error(message, spans.value("render")));
            return;
        }
        let text = match self.loader.read(file) {
            Ok(text) => text,
            Err(why) => {
                let message = format!("{name} cannot be rendered: {why}");
                self.push(scope, Diagnostic::error(message, spans.value("render")));
                return;
            }
        };
        let Err(error) = template::render_text(&name, &text, variables) else { return };
        let source = Arc::new(Source { name, text });
        // Nothing can be included.
        let (nothing, mut faults) = (MemoryLoader::new(), Diagnostics::new());
        let nested: Vec<_> = spans.included_from.clone();
        let _ = template::render(Path::new(&source.name), &source, variables, &[], &nested, &nothing, &mut faults);
        if faults.is_empty() {
            faults.push(Diagnostic::error(format!("{error:#}"), spans.value("render")));
        }
        for fault in faults.iter() {
            let mut fault = fault.clone();
            if fault.span.as_ref().is_some_and(|span| Arc::ptr_eq(&span.source, &source)) {
                fault.included_from.splice(0..0, spans.whole.iter().cloned());
            }
            self.push(scope, fault);
        }
    }
}
