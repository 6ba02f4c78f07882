//! Entries of boot loaders as OSTree writes them (Boot Loader Specification, type 1), and what loaders that do not
//! read such entries are given instead.

use std::fmt::Write as _;

/// An entry: keys and values in the order of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    lines: Vec<(String, String)>,
}

impl Entry {
    /// Reads `loader/entries/*.conf`.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let lines = lines.filter_map(|line| {
            let (key, value) = line.trim().split_once(char::is_whitespace)?;
            Some((key.to_owned(), value.trim().to_owned()))
        });
        Self { lines: lines.collect() }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.lines.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// Sets a key.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        match self.lines.iter_mut().find(|(known, _)| known == key) {
            Some((_, known)) => *known = value.into(),
            None => self.lines.push((key.into(), value.into())),
        }
    }

    /// As it stands in its file.
    pub fn text(&self) -> String {
        self.lines.iter().map(|(key, value)| format!("{key} {value}\n")).collect()
    }
}

/// An entry's rank: that with the highest version is started.
pub fn version(entry: &Entry) -> u64 {
    entry.get("version").and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// extlinux.conf as libostree's syslinux backend writes it, which keeps what stands before the entries. Paths are
/// those of the entries: relative to the file system that /boot is.
pub fn syslinux(entries: &[Entry], timeout: u32) -> String {
    let mut text = format!("TIMEOUT {}\nPROMPT 1\n", (timeout * 10).max(1));
    for (index, entry) in entries.iter().enumerate() {
        let title = entry.get("title").unwrap_or("Debian");
        if index == 0 {
            writeln!(text, "DEFAULT {title}").unwrap_or_default();
        }
        writeln!(text, "LABEL {title}").unwrap_or_default();
        let keys = [
            ("KERNEL", "linux"),
            ("INITRD", "initrd"),
            ("DEVICETREE", "devicetree"),
            ("FDTDIR", "fdtdir"),
            ("APPEND", "options"),
        ];
        for (word, key) in keys {
            if let Some(value) = entry.get(key) {
                writeln!(text, "\t{word} {value}").unwrap_or_default();
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "title Debian (ostree:0)\nversion 1\noptions root=UUID=1 rw\nlinux /ostree/d/vmlinuz\ninitrd /ostree/d/initramfs.img\n";

    #[test]
    fn entries_are_read_changed_and_written() {
        let mut entry = Entry::parse(ONE);
        assert_eq!(entry.get("linux"), Some("/ostree/d/vmlinuz"));
        entry.set("options", "root=UUID=2");
        entry.set("fdtdir", "/ostree/d/dtb");
        assert_eq!(Entry::parse(&entry.text()), entry);
        assert_eq!((version(&entry), version(&Entry::parse("version 12\n"))), (1, 12));
    }

    #[test]
    fn u_boot_gets_a_label_each() {
        let text = syslinux(&[Entry::parse(ONE)], 3);
        assert_eq!(
            text,
            "TIMEOUT 30\nPROMPT 1\nDEFAULT Debian (ostree:0)\nLABEL Debian (ostree:0)\n\tKERNEL /ostree/d/vmlinuz\n\
             \tINITRD /ostree/d/initramfs.img\n\tAPPEND root=UUID=1 rw\n"
        );
    }
}
