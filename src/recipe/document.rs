//! A parsed recipe as mappings with merges resolved.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::source_map::SourceMap;
use super::yaml::{Node, NodeKind};
use crate::diagnostics::{Diagnostic, Diagnostics};

/// Key of YAML 1.1's merge: the mappings that it names fill in what is not given.
const MERGE: &str = "<<";

/// A key and its value, as written or as merged in.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: Arc<Node>,
    pub(super) value: Arc<Node>,
}

impl Entry {
    /// The key's text; [`check`] has seen to it that there is one.
    pub(super) fn name(&self) -> &str {
        self.key.text().unwrap_or_default()
    }
}

/// The entries of a mapping, its own first, then those of its merges that it does not give itself. Of a key that
/// is given twice the last counts.
pub(super) fn entries(mapping: &[(Arc<Node>, Arc<Node>)]) -> Vec<Entry> {
    let mut found = Vec::with_capacity(mapping.len());
    collect(mapping, &mut found, &mut Seen::default(), 0);
    found
}

/// What was collected already.
#[derive(Default)]
struct Seen {
    keys: HashSet<String>,
    /// Mappings, by their address: merged twice, they add nothing but time.
    merged: HashSet<*const Node>,
}

fn collect(mapping: &[(Arc<Node>, Arc<Node>)], found: &mut Vec<Entry>, seen: &mut Seen, depth: usize) {
    let merged = found.len();
    for (key, value) in mapping.iter().filter(|(key, _)| !is_merge(key)) {
        let Some(name) = key.text() else { continue };
        let entry = Entry { key: key.clone(), value: value.clone() };
        if seen.keys.insert(name.to_owned()) {
            found.push(entry);
        } else if let Some(earlier) = found[merged..].iter_mut().find(|earlier| earlier.name() == name) {
            *earlier = entry;
        }
    }
    // Merges of merges of merges: nobody writes that.
    if depth > 16 {
        return;
    }
    for (_, value) in mapping.iter().filter(|(key, _)| is_merge(key)) {
        let merged: &[Arc<Node>] = match &value.kind {
            NodeKind::Sequence(items) => items,
            _ => std::slice::from_ref(value),
        };
        for node in merged {
            if let NodeKind::Mapping(pairs) = &node.kind
                && seen.merged.insert(Arc::as_ptr(node))
            {
                collect(pairs, found, seen, depth + 1);
            }
        }
    }
}

fn is_merge(key: &Node) -> bool {
    matches!(&key.kind, NodeKind::Scalar { text, plain: true } if text == MERGE)
}

/// Reports keys given twice, keys that are no text, and merges of what is no mapping, everywhere. Debos up to
/// 1.1.5 takes the last of keys given twice, which is a warning where one is `lenient`.
pub(super) fn check(root: &Arc<Node>, map: &SourceMap, lenient: bool, out: &mut Diagnostics) {
    let mut seen: HashSet<*const Node> = HashSet::new();
    let mut open = vec![root.clone()];
    while let Some(node) = open.pop() {
        if !seen.insert(Arc::as_ptr(&node)) {
            continue;
        }
        match &node.kind {
            NodeKind::Scalar { .. } => {}
            NodeKind::Sequence(items) => open.extend(items.iter().rev().cloned()),
            NodeKind::Mapping(pairs) => {
                check_keys(pairs, map, lenient, out);
                open.extend(pairs.iter().rev().map(|(_, value)| value.clone()));
            }
        }
    }
}

fn check_keys(pairs: &[(Arc<Node>, Arc<Node>)], map: &SourceMap, lenient: bool, out: &mut Diagnostics) {
    let mut first: HashMap<&str, &Node> = HashMap::new();
    for (key, value) in pairs {
        let Some(name) = key.text() else {
            out.push(
                map.locate(key.range.clone())
                    .error("a key must be text")
                    .hint("a value that starts with `{` or `[` needs quotes"),
            );
            continue;
        };
        if let Some(earlier) = first.insert(name, key) {
            out.push(duplicate(name, earlier, key, map, lenient));
        }
        if is_merge(key) {
            check_merge(value, map, out);
        }
    }
}

fn duplicate(name: &str, earlier: &Node, key: &Node, map: &SourceMap, lenient: bool) -> Diagnostic {
    let (origin, message) = (map.locate(key.range.clone()), format!("`{name}` is given twice"));
    let diagnostic = if lenient { origin.warning(message) } else { origin.error(message) };
    let place = map.locate(earlier.range.clone()).span.place();
    if name == MERGE {
        return diagnostic
            .label(format!("first on line {}", place.line))
            .hint("merge several with a list: `<<: [*one, *two]`");
    }
    diagnostic.label(format!("first on line {}", place.line))
}

fn check_merge(value: &Arc<Node>, map: &SourceMap, out: &mut Diagnostics) {
    let merged: &[Arc<Node>] = match &value.kind {
        NodeKind::Sequence(items) => items,
        _ => std::slice::from_ref(value),
    };
    for node in merged {
        if !matches!(node.kind, NodeKind::Mapping(_)) {
            out.push(
                map.locate(node.range.clone())
                    .error("only a mapping can be merged in")
                    .hint("name an anchor that stands before a mapping: `<<: *anchor`"),
            );
        }
    }
}
