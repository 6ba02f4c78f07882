//! The keys of a recipe above its actions.

use std::sync::Arc;

use super::check::{Loading, Scope};
use super::document::Entry;
use super::nested::Caller;
use super::source_map::Origin;
use super::yaml;
use crate::debian::Architecture;
use crate::diagnostics::{Diagnostic, suggest};

/// Sizes that disks have.
const SECTOR_SIZES: [u32; 4] = [512, 1024, 2048, 4096];

/// Keys of a recipe.
const HEADER: [&str; 5] = ["architecture", "sectorsize", "machine", "memory", "actions"];

impl Loading<'_> {
    /// Reads the keys above the actions, and reports those that no recipe has.
    pub(super) fn header(&mut self, scope: &mut Scope, given: &[Entry], whole: &Origin, caller: Option<&Caller>) {
        for entry in given {
            let name = entry.name();
            if HEADER.contains(&name) || name.starts_with('.') {
                continue;
            }
            let (origin, message) = (scope.locate(&entry.key), format!("unknown key `{name}`"));
            let diagnostic = if scope.lenient { origin.warning(message) } else { origin.error(message) };
            let diagnostic = diagnostic.label("a recipe has no such key");
            let diagnostic = match suggest(name, HEADER) {
                Some(close) => diagnostic.hint(format!("did you mean `{close}`?")),
                None => diagnostic.hint(format!("for anchors of your own, let it start with a dot: `.{name}`")),
            };
            let ignored = scope.lenient.then_some("it is ignored, as in debos".to_owned());
            self.push(scope, ignored.into_iter().fold(diagnostic, Diagnostic::hint));
        }
        match given.iter().find(|entry| entry.name() == "architecture") {
            Some(entry) => self.architecture(scope, entry, caller),
            None if !scope.lenient && misspelt(given, "architecture") => {}
            None => {
                let diagnostic = whole.error("the recipe has no `architecture`");
                self.push(scope, diagnostic.hint(format!("`architecture: {}`, for instance", Architecture::host())));
            }
        }
        if let Some(entry) = given.iter().find(|entry| entry.name() == "sectorsize") {
            self.sector_size(scope, entry);
        }
        if let Some(entry) = given.iter().find(|entry| entry.name() == "machine") {
            self.machine(scope, entry);
        }
        if let Some(entry) = given.iter().find(|entry| entry.name() == "memory") {
            self.memory(scope, entry);
        }
        if let Some(architecture) = scope.architecture {
            scope.rendered.define("architecture", architecture.name());
            scope.rendered.define("arch", architecture.name());
            let mut variables = (*scope.variables).clone();
            for name in ["architecture", "arch"] {
                variables.entry(name.to_owned()).or_insert_with(|| architecture.name().to_owned());
            }
            scope.variables = Arc::new(variables);
        }
    }

    fn architecture(&mut self, scope: &mut Scope, entry: &Entry, caller: Option<&Caller>) {
        let origin = scope.locate(&entry.value);
        let Some(text) = entry.value.text().filter(|_| !entry.value.is_null()) else {
            self.push(scope, origin.error("`architecture` must be the name of a Debian architecture"));
            return;
        };
        match text.parse::<Architecture>() {
            Ok(architecture) => {
                if let Some(caller) = caller
                    && caller.architecture.is_some_and(|outer| outer != architecture)
                {
                    let outer = caller.architecture.unwrap_or(architecture);
                    let diagnostic =
                        origin.error(format!("this recipe is for {architecture}, the one that calls it for {outer}"));
                    self.push(
                        scope,
                        diagnostic.hint("write `architecture: {{ architecture }}` in a recipe that others call"),
                    );
                }
                scope.architecture = Some(architecture);
            }
            Err(message) => {
                let names = Architecture::ALL.map(Architecture::name);
                let foreign = match text {
                    "x86_64" | "x86-64" | "x64" => Some("amd64"),
                    "aarch64" => Some("arm64"),
                    "arm" | "armv7" | "armv7l" => Some("armhf"),
                    "i686" | "x86" | "386" => Some("i386"),
                    "ppc64le" => Some("ppc64el"),
                    "riscv" => Some("riscv64"),
                    _ => suggest(text, names),
                };
                let hint = match foreign {
                    Some(close) => format!("did you mean `{close}`?"),
                    None => format!("there are {}", names.join(", ")),
                };
                self.push(scope, origin.error(message).hint(hint));
            }
        }
    }

    fn machine(&mut self, scope: &Scope, entry: &Entry) {
        match entry.value.text() {
            Some("required") => self.machine.required = true,
            Some("auto") => {}
            text => {
                let origin = scope.locate(&entry.value);
                let diagnostic = origin.error(format!("`machine` cannot be {}", text.unwrap_or("that")));
                self.push(
                    scope,
                    diagnostic.hint("`machine: required` wants a machine of its own, `auto` takes what there is"),
                );
            }
        }
    }

    fn memory(&mut self, scope: &Scope, entry: &Entry) {
        let text = entry.value.text().unwrap_or_default();
        match crate::store::size::parse(text) {
            Ok(bytes) if bytes >= 1 << 20 => {
                let mebibytes = bytes.div_ceil(1 << 20);
                self.machine.memory = self.machine.memory.max(Some(mebibytes));
            }
            _ => {
                let diagnostic = scope.locate(&entry.value).error("`memory` is not a size of memory");
                self.push(scope, diagnostic.hint("write it like `memory: 4GiB`; a machine gets at least so much"));
            }
        }
    }

    fn sector_size(&mut self, scope: &Scope, entry: &Entry) {
        let origin = scope.locate(&entry.value);
        let size = entry.value.text().and_then(yaml::integer).and_then(|size| u32::try_from(size).ok());
        let Some(size) = size.filter(|size| SECTOR_SIZES.contains(size)) else {
            let shown = entry.value.text().unwrap_or("that");
            let diagnostic = origin.error(format!("`sectorsize` cannot be {shown}"));
            self.push(scope, diagnostic.hint("disks have sectors of 512 bytes, or of 4096"));
            return;
        };
        match &self.sector_size {
            Some((outer, span)) if *outer != size => {
                let diagnostic =
                    origin.error(format!("`sectorsize` is {size} here and {outer} in {}", span.place().file));
                self.push(scope, diagnostic.hint("one image has one sector size: give it in the outermost recipe"));
            }
            Some(_) => {}
            None => self.sector_size = Some((size, origin.span)),
        }
    }
}

/// Whether a key was reported that is probably this one.
pub(super) fn misspelt(given: &[Entry], key: &str) -> bool {
    given.iter().any(|entry| !HEADER.contains(&entry.name()) && suggest(entry.name(), HEADER) == Some(key))
}
