//! Source texts and places in them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A file of the author's, as it was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// As shown to the user: the path as given, or relative to the top recipe.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// A part of a [`Source`], in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The file.
    pub source: Arc<Source>,
    /// First byte.
    pub start: usize,
    /// One past the last byte; at least `start`.
    pub end: usize,
}

/// A place one can print: `file:line:column`, both counted from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// [`Source::name`].
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl Span {
    /// A part of a source.
    pub fn new(source: &Arc<Source>, start: usize, end: usize) -> Self {
        let start = start.min(source.text.len());
        let end = end.clamp(start, source.text.len());
        Self { source: source.clone(), start, end }
    }

    /// Where the span starts.
    pub fn place(&self) -> Place {
        let before = &self.source.text.as_bytes()[..self.start];
        let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
        let line_start = before.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
        let column = String::from_utf8_lossy(&before[line_start..]).chars().count() + 1;
        Place { file: self.source.name.clone(), line, column }
    }
}

/// Where the parts of one action stand in the author's files.
///
/// Paths are those of [`serde_path_to_error`]: `packages[2]`, `sources[0].suites`.
#[derive(Debug, Clone, Default)]
pub struct Spans {
    /// The whole action: its `action: NAME` value.
    pub whole: Option<Span>,
    /// Property path → the key's text.
    pub keys: std::collections::HashMap<String, Span>,
    /// Property path → the value's text.
    pub values: std::collections::HashMap<String, Span>,
    /// The chain of includes and nested recipes that led here, innermost first.
    pub included_from: Vec<Span>,
}

impl Spans {
    /// The value at a property path, or the nearest thing around it that has a place.
    pub fn value(&self, path: &str) -> Option<Span> {
        let mut path = path;
        loop {
            if let Some(span) = self.values.get(path) {
                return Some(span.clone());
            }
            match path.rfind(['.', '[']) {
                Some(cut) => path = &path[..cut],
                None => return self.whole.clone(),
            }
        }
    }

    /// The key at a property path, or the nearest thing around it that has a place.
    pub fn key(&self, path: &str) -> Option<Span> {
        self.keys.get(path).cloned().or_else(|| self.value(path))
    }
}
