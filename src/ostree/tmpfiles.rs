//! tmpfiles.d(5): what makes /var anew on a system that came without one.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// Something of /var.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A directory.
    Directory,
    /// A link, and where it leads.
    Link(String),
    /// A file that has a copy below /usr/share/factory, and is copied from there.
    File,
    /// A named pipe.
    Pipe,
}

/// A line of tmpfiles.d(5). Owners by number: names may have no numbers yet when it is read.
pub fn line(path: &str, item: &Item, mode: u32, uid: u32, gid: u32) -> String {
    let path = word(path);
    match item {
        Item::Directory => format!("d {path} {mode:04o} {uid} {gid} - -"),
        Item::Link(target) if (uid, gid) == (0, 0) => format!("L {path} - - - - {}", argument(target)),
        Item::Link(target) => format!("L {path} - {uid} {gid} - {}", argument(target)),
        Item::File => format!("C {path} {mode:04o} {uid} {gid} - -"),
        Item::Pipe => format!("p {path} {mode:04o} {uid} {gid} - -"),
    }
}

/// A line that gives what other lines make a mode, a user and a group; `-` leaves one as it is.
pub fn adjusting_line(path: &str, mode: &str, uid: &str, gid: &str) -> String {
    format!("z {} {mode} {uid} {gid} - -", word(path))
}

/// A line that gives what other lines make an ACL (acl(5)).
pub fn acl_line(path: &str, acl: &str) -> String {
    format!("a {} - - - - {acl}", word(path))
}

/// A path: quoted where it has to be, `%` doubled, since specifiers begin with it. systemd 252 knows no escapes of C
/// here: a backslash only takes the next letter's meaning away, so there is no way to write a control character.
fn word(path: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && !"\"'\\".contains(c);
    let path = path.replace('%', "%%");
    if path.chars().all(plain) {
        return path;
    }
    format!("\"{}\"", path.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The rest of a line, which knows no quotes, but escapes of C.
fn argument(text: &str) -> String {
    text.chars().fold(String::new(), |mut all, letter| {
        match letter {
            '\\' => all.push_str("\\\\"),
            '%' => all.push_str("%%"),
            letter if letter == ' ' || letter.is_ascii_control() => {
                write!(all, "\\x{:02x}", letter as u32).unwrap_or_default();
            }
            letter => all.push(letter),
        }
        all
    })
}

/// What a line of some package makes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Made {
    /// `d`, `L`, `C`, `f` and their kin.
    pub letter: char,
    /// Whether it says a mode, a user and a group.
    pub says: [bool; 3],
    /// What is behind the six fields, as it stands there.
    pub argument: Option<String>,
}

impl Made {
    /// Whether it makes directories.
    pub fn is_directory(&self) -> bool {
        "dDvqQ".contains(self.letter)
    }
}

/// The paths that a file of tmpfiles.d makes: of directories, links, files, pipes and copies; and, as `a`, those that
/// it gives an ACL.
pub fn made_by(text: &str) -> BTreeMap<String, Vec<Made>> {
    let mut all: BTreeMap<String, Vec<Made>> = BTreeMap::new();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in lines {
        let mut words = line.split_whitespace();
        let (Some(kind), Some(path)) = (words.next(), words.next()) else { continue };
        let letter = kind.trim_end_matches(['+', '!', '-', '=', '~', '^', '$', '?']);
        let known = ["d", "D", "v", "q", "Q", "L", "C", "f", "F", "p", "a"].contains(&letter) && !path.contains('%');
        let Some(letter) = letter.chars().next().filter(|_| known) else { continue };
        let says = [(); 3].map(|()| words.next().is_some_and(|word| word != "-"));
        let rest: Vec<&str> = words.skip(1).collect();
        let argument = Some(rest.join(" ")).filter(|rest| !rest.is_empty() && rest != "-");
        let path = Path::new(path).components().as_path().display().to_string();
        all.entry(path).or_default().push(Made { letter, says, argument });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_systemd_reads_them() {
        assert_eq!(line("/var/lib/x", &Item::Directory, 0o2755, 0, 42), "d /var/lib/x 2755 0 42 - -");
        assert_eq!(line("/var/run", &Item::Link("../run".into()), 0, 0, 0), "L /var/run - - - - ../run");
        assert_eq!(line("/var/l", &Item::Link("a\"b \\%".into()), 0, 3, 4), r#"L /var/l - 3 4 - a"b\x20\\%%"#);
        assert_eq!(line("/var/a b%", &Item::File, 0o644, 0, 0), r#"C "/var/a b%%" 0644 0 0 - -"#);
        assert_eq!(line("/var/\"\\", &Item::File, 0o644, 0, 0), r#"C "/var/\"\\" 0644 0 0 - -"#);
        assert_eq!(line("/var/p", &Item::Pipe, 0o620, 1, 2), "p /var/p 0620 1 2 - -");
        assert_eq!(acl_line("/var/p", "u:33:rw-"), "a /var/p - - - - u:33:rw-");
    }

    #[test]
    fn knows_what_other_files_make() {
        let made = made_by(
            "# x\nd /var/log 0755 - - -\nL+ /var/run - - - - ../run\nx /var/tmp/keep\nq /var/tmp/ 1777\nz /var/x 0\n",
        );
        assert_eq!(made.keys().collect::<Vec<_>>(), ["/var/log", "/var/run", "/var/tmp"]);
        assert_eq!(made["/var/run"][0].argument.as_deref(), Some("../run"));
        assert_eq!((made["/var/log"][0].says, made["/var/log"][0].is_directory()), ([true, false, false], true));
    }
}
