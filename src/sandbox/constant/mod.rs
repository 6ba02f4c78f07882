//! What steps are told of the machine: the same on every host and in every way of building.
//!
//! A program that looks at the machine it runs on, to decide what it writes, would carry that machine into
//! the product. So all of /proc that is not a process's own and all of /sys are stated here, and with them what
//! uname(2), sysinfo(2) and sched_getaffinity(2) say. In namespaces these files are mounted over a /proc
//! ([`super::cover`]); without mounts, and for the system calls, whoever answers a command's calls looks here.
//!
//! What is stated is a plain machine: what any host that builds can do, so that a step that fits its work to
//! it is neither refused nor slow, and no more.

mod kernel;
mod machine;

use std::path::Path;

pub use kernel::{NODE_NAME, RELEASE, VERSION};
pub use machine::{MEMORY, PROCESSORS, UPTIME};

/// When the stated files were written, in seconds: what is copied from them has a date that is the same everywhere.
pub const MOMENT: i64 = 315_532_800;

/// What a command is told of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// What is stated here.
    #[default]
    Constant,
    /// The same, but as many processors to run on as there are: for tools that write the same with more.
    AllProcessors,
    /// The same, but what is mounted as it is: in an image that is mounted.
    Mounts,
    /// What is so: for the machines of our own, which have to fit the one they run on.
    Truth,
}

/// What is at a path in /proc or /sys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The kernel's own: it tells of the process that asks or of its namespaces.
    Own,
    /// A file with this text, which nobody may write to.
    File(&'static [u8]),
    /// A directory of files that are stated here, and nothing else: read-only.
    Directory,
    /// Nothing. Where the kernel has a name for it and that cannot be taken away, an empty file or directory.
    Nothing,
}

/// What is stated of an absolute path in /proc or /sys, which is taken by its text: without `.`, `..` or links.
/// `None` for a path outside of them.
pub fn lookup(path: &Path) -> Option<Answer> {
    let path = path.to_str()?.trim_matches('/');
    let (top, name) = path.split_once('/').unwrap_or((path, ""));
    let first = name.split('/').next().unwrap_or_default();
    match top {
        "proc" if name.is_empty() || OWN.contains(&first) || OWN_BELOW.contains(&name) => return Some(Answer::Own),
        "proc" if first.bytes().all(|byte| byte.is_ascii_digit()) => return Some(Answer::Own),
        "proc" | "sys" => {}
        _ => return None,
    }
    if let Some((_, text)) = files().find(|(known, _)| *known == path) {
        return Some(Answer::File(text));
    }
    let below = |known: &str| known.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    let own_below = || OWN_BELOW.iter().any(|own| top == "proc" && below(&format!("proc/{own}")));
    Some(if files().any(|(known, _)| below(known)) || own_below() { Answer::Directory } else { Answer::Nothing })
}

/// The text of a file; `None` where none is stated.
pub fn text(path: &Path) -> Option<&'static [u8]> {
    match lookup(path)? {
        Answer::File(text) => Some(text),
        _ => None,
    }
}

/// All stated files, by their paths without the first slash.
pub fn files() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    let all = machine::FILES.iter().chain(kernel::FILES).map(|(name, text)| (*name, text.as_bytes()));
    all.chain([("proc/cpuinfo", machine::processors()), ("proc/stat", machine::statistics())])
}

/// The stated files of a directory, `proc` or `sys`, by their paths in it.
pub(super) fn files_of(top: &str) -> impl Iterator<Item = (&'static str, &'static [u8])> {
    files().filter_map(move |(name, text)| Some((name.strip_prefix(top)?.strip_prefix('/')?, text)))
}

/// First parts of paths in /proc that tell of the asking process, or of namespaces that are its own (the
/// network's is where a step was given the host's). `mounts` is not one of them, though a link to a
/// process's own: it is stated, but for steps that are given a device.
const OWN: &[&str] = &["self", "thread-self", "net", "sysvipc"];

/// Files of /proc/sys that are another each time they are read.
const OWN_BELOW: &[&str] = &["sys/kernel/random/uuid"];

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str) -> Option<Answer> {
        lookup(Path::new(path))
    }

    #[test]
    fn every_path_below_proc_has_one_answer() {
        assert_eq!(at("/etc/passwd"), None);
        assert_eq!(at("/processor"), None);
        for own in ["/proc", "/proc/", "/proc/self/exe", "/proc/1/environ", "/proc/net", "/proc/sys/kernel/random/uuid"]
        {
            assert_eq!(at(own), Some(Answer::Own), "{own}");
        }
        for directory in ["/proc/sys", "/proc/sys/kernel", "/proc/sys/kernel/random", "/proc/sys/", "/sys"] {
            assert_eq!(at(directory), Some(Answer::Directory), "{directory}");
        }
        for hidden in [
            "/proc/config.gz",
            "/proc/bus/pci/devices",
            "/proc/sys/vm/stat_refresh",
            "/proc/xen",
            "/proc/sy",
            "/sys/class",
        ] {
            assert_eq!(at(hidden), Some(Answer::Nothing), "{hidden}");
        }
        assert_eq!(text(Path::new("/proc/sys/kernel/osrelease")), Some(format!("{RELEASE}\n").as_bytes()));
    }

    #[test]
    fn what_is_stated_twice_is_stated_alike() {
        let named = |path: &str| std::str::from_utf8(text(Path::new(path)).unwrap()).unwrap();
        assert!(named("/proc/version").contains(RELEASE) && named("/proc/version").ends_with(&format!("{VERSION}\n")));
        assert_eq!(named("/proc/sys/kernel/version"), format!("{VERSION}\n"));
        assert_eq!(named("/proc/sys/kernel/hostname"), format!("{NODE_NAME}\n"));
        assert_eq!(named("/proc/cpuinfo").matches("processor\t: ").count(), PROCESSORS);
        assert_eq!(named("/proc/stat").lines().filter(|line| line.starts_with("cpu")).count(), PROCESSORS + 1);
        assert!(named("/proc/meminfo").starts_with(&format!("MemTotal:        {} kB\n", MEMORY / 1024)));
        assert!(named("/proc/uptime").starts_with(&format!("{UPTIME}.")));
    }

    #[test]
    fn no_file_is_stated_twice() {
        let mut names: Vec<&str> = files().map(|(name, _)| name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
