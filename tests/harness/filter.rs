//! What differs from run to run in debforge's output, replaced by words that do not.

use std::path::Path;

/// `text` with the project's directory as `[PROJECT]`, times as `[TIME]`, sizes as `[SIZE]`,
/// digests as `[DIGEST]` and the version as `[VERSION]`; trailing blanks removed.
pub fn filtered(text: &str, project: &Path) -> String {
    let text = console::strip_ansi_codes(text)
        .replace(&*project.to_string_lossy(), "[PROJECT]")
        .replace(env!("CARGO_PKG_VERSION"), "[VERSION]");
    // How far a step is, that takes long where the machine is busy.
    let is_beat = |line: &str| line.contains("[TIME] …") && line.trim_start().starts_with(|c: char| c.is_ascii_digit());
    let lines = text.lines().map(|line| words(line).trim_end().to_owned());
    let mut lines: Vec<String> = lines.filter(|line| !is_beat(line)).collect();
    if text.ends_with('\n') {
        lines.push(String::new());
    }
    lines.join("\n")
}

/// Replaces in one line; spaces stay, except that those before a filtered word become one, because
/// numbers are aligned to the right.
fn words(line: &str) -> String {
    let mut out = String::new();
    let parts: Vec<&str> = line.split(' ').collect();
    let mut index = 0;
    while index < parts.len() {
        if index > 0 {
            out.push(' ');
        }
        let next = parts.get(index + 1).copied().unwrap_or("");
        if is_number(parts[index])
            && let Some((word, rest)) = unit(next)
        {
            out.truncate(out.trim_end_matches(' ').len());
            if index > 0 {
                out.push_str(if out.is_empty() { "" } else { " " });
            }
            out.push_str(word);
            out.push_str(rest);
            index += 2;
            continue;
        }
        out.push_str(&digest(parts[index]));
        index += 1;
    }
    out
}

fn is_number(word: &str) -> bool {
    let word = word.trim_start_matches(['(', '+']);
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

fn unit(word: &str) -> Option<(&'static str, &str)> {
    let end = word.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(word.len());
    let (name, rest) = word.split_at(end);
    match name {
        "s" | "ms" | "min" => Some(("[TIME]", rest)),
        "B" | "bytes" | "kB" | "MB" | "GB" | "KiB" | "MiB" | "GiB" => Some(("[SIZE]", rest)),
        _ => None,
    }
}

/// Hex digits that are no ordinary word: at least twelve, or cut short by an ellipsis.
fn digest(word: &str) -> String {
    let bare = word.trim_matches(['(', ')', ',', ':']);
    let cut = bare.trim_end_matches('…');
    let hex = cut.bytes().all(|byte| byte.is_ascii_hexdigit()) && cut.bytes().any(|byte| byte.is_ascii_digit());
    if hex && (cut.len() >= 12 || (cut.len() >= 4 && cut.len() < bare.len())) {
        word.replace(bare, "[DIGEST]")
    } else {
        word.to_owned()
    }
}

#[test]
fn filters_what_differs_from_run_to_run() {
    let text = "  1/5  apt    5 packages     3.0 s … unpacking\n  1/5  apt    5 packages     6.1 s    +31 packages, 74 MB   \ndone in 16.9 s · /p/out/x.tar (61 MB, sha256 3f1c…)\n";
    let expected = "  1/5  apt    5 packages [TIME]    +31 packages, [SIZE]\ndone in [TIME] · [PROJECT]/out/x.tar [SIZE], sha256 [DIGEST])\n";
    assert_eq!(filtered(text, Path::new("/p")), expected);
}
