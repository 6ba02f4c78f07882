//! tmpfiles.d(5): what makes /var anew on a system that came without one.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

/// Something of /var.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A directory.
    Directory,
    /// A link, and where it leads.
    Link(String),
    /// A file that was moved to /usr/share/factory, and is copied from there.
    File,
}

/// A line of tmpfiles.d(5). Owners by number: names may have no numbers yet when it is read.
pub fn line(path: &str, item: &Item, mode: u32, uid: u32, gid: u32) -> String {
    let path = escaped(path);
    match item {
        Item::Directory => format!("d {path} {mode:04o} {uid} {gid} - -"),
        Item::Link(target) => format!("L {path} - - - - {}", escaped(target)),
        Item::File => format!("C {path} {mode:04o} {uid} {gid} - -"),
    }
}

/// A word: quoted where it has to be, `%` doubled, since specifiers begin with it.
fn escaped(text: &str) -> String {
    let plain = |c: char| c.is_ascii_graphic() && !"\"'\\".contains(c);
    let text = text.replace('%', "%%");
    if text.chars().all(plain) {
        return text;
    }
    let mut word = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => word.extend(['\\', letter]),
            letter if letter.is_control() => write!(word, "\\x{:02x}", letter as u32).unwrap_or_default(),
            letter => word.push(letter),
        }
    }
    word.push('"');
    word
}

/// The paths that a file of tmpfiles.d makes: of directories, links, files and copies.
pub fn made_by(text: &str) -> BTreeSet<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (kind, path) = (words.next()?, words.next()?);
            let letter = kind.trim_end_matches(['+', '!', '-', '=', '~', '^', '$', '?']);
            let makes = ["d", "D", "v", "q", "Q", "L", "C", "f", "F"].contains(&letter) && !path.contains('%');
            makes.then(|| Path::new(path).components().as_path().display().to_string())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_systemd_reads_them() {
        assert_eq!(line("/var/lib/x", &Item::Directory, 0o2755, 0, 42), "d /var/lib/x 2755 0 42 - -");
        assert_eq!(line("/var/run", &Item::Link("../run".into()), 0, 0, 0), "L /var/run - - - - ../run");
        assert_eq!(line("/var/a b%", &Item::File, 0o644, 0, 0), "C \"/var/a b%%\" 0644 0 0 - -");
    }

    #[test]
    fn knows_what_other_files_make() {
        let made =
            made_by("# x\nd /var/log 0755 - - -\nL+ /var/run - - - - ../run\nx /var/tmp/keep\nq /var/tmp/ 1777\n");
        assert_eq!(made.into_iter().collect::<Vec<_>>(), ["/var/log", "/var/run", "/var/tmp"]);
    }
}
