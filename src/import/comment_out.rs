//! Keys that debos ignores, as comments.

use std::collections::BTreeMap;

/// What stands before a key that was commented out.
const MARK: &str = "# debos ignored this: ";

/// Comments out the keys that begin at these bytes, each with its value. Gives those that stand where a comment would
/// take more away than the key.
pub fn comment_out(text: &str, keys: &[usize]) -> (String, Vec<usize>) {
    let mut left = Vec::new();
    let mut marks: BTreeMap<usize, (usize, &str)> = BTreeMap::new();
    let starts: Vec<usize> = std::iter::once(0)
        .chain(text.match_indices('\n').map(|(at, _)| at + 1))
        .filter(|start| *start < text.len())
        .collect();
    let line_of = |at: usize| starts.partition_point(|start| *start <= at).saturating_sub(1);
    for &key in keys {
        let first = line_of(key);
        let indent = key - starts[first];
        // After `- ` or `{` there is something else on the line.
        if !text[starts[first]..key].trim().is_empty() {
            left.push(key);
            continue;
        }
        marks.insert(first, (indent, MARK));
        for (line, start) in starts.iter().enumerate().skip(first + 1) {
            let content = text[*start..].lines().next().unwrap_or_default();
            let depth = content.len() - content.trim_start().len();
            let item = content.trim_start().starts_with("- ") && depth == indent;
            if content.trim().is_empty() {
                continue;
            }
            if depth <= indent && !item {
                break;
            }
            marks.entry(line).or_insert((indent, "# "));
        }
    }
    let mut out = String::with_capacity(text.len());
    for (line, content) in text.split_inclusive('\n').enumerate() {
        match marks.get(&line) {
            Some((indent, mark)) => {
                out.push_str(&content[..*indent]);
                out.push_str(mark);
                out.push_str(&content[*indent..]);
            }
            None => out.push_str(content),
        }
    }
    (out, left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_goes_with_its_value() {
        let text = "a:\n  - b: 1\n    c:\n      d: 2\n\n      e: 3\n    f:\n    - 4\n    g: 5\n";
        let at = |key: &str| text.find(key).unwrap();
        let (out, left) = comment_out(text, &[at("c:"), at("f:"), at("b:")]);
        assert_eq!(
            out,
            "a:\n  - b: 1\n    # debos ignored this: c:\n    #   d: 2\n\n    #   e: 3\n    # debos ignored this: f:\n    # - 4\n    g: 5\n"
        );
        assert_eq!(left, [at("b:")]);
    }
}
