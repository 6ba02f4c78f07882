//! What boot loaders offer to start, as their own files say it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Tree;
use super::tree::EntryKind;
use crate::ostree::entry::Entry;

/// Whose file a choice stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Menu {
    /// grub.cfg.
    Grub,
    /// extlinux.conf, which U-Boot and syslinux read.
    Extlinux,
    /// `loader/entries/*.conf` (Boot Loader Specification, type 1) on a partition of the firmware's.
    Entries,
    /// config.txt and cmdline.txt of the Raspberry Pi's firmware.
    RaspberryPi,
}

/// A kernel that a loader offers to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Whose it is.
    pub menu: Menu,
    /// The file that it stands in, in the tree.
    pub file: PathBuf,
    /// UUID of the file system that its paths lie on, where the file names one; else that of the file itself.
    pub on: Option<String>,
    /// The kernel, from the top of its file system.
    pub kernel: PathBuf,
    /// Likewise, the initramfs archives.
    pub initrds: Vec<PathBuf>,
    /// Likewise, the device tree that is asked for by name.
    pub device_tree: Option<PathBuf>,
    /// The kernel's command line.
    pub words: Vec<String>,
}

impl Choice {
    /// The value of a word of the command line, the last one's where there are several, as the kernel has it.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.words
            .iter()
            .rev()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
            .map(|it| it.trim_matches('"'))
    }

    /// Devices that the kernel writes to.
    pub fn consoles(&self) -> impl Iterator<Item = &str> {
        let values = self.words.iter().filter_map(|word| word.strip_prefix("console="));
        values.map(|value| value.split(',').next().unwrap_or(value))
    }
}

/// Directories that may be the top of a partition which loaders read, relative to the top of the tree.
pub const TOPS: [&str; 5] = ["", "boot", "boot/efi", "efi", "boot/firmware"];

/// All choices of the menus in a tree, whose partitions are mounted in it; of each menu, what it starts by itself first.
pub fn choices(tree: &dyn Tree) -> Result<Vec<Choice>> {
    let mut found = Vec::new();
    // The same file may be found by several ways: OSTree's /boot/boot leads back to /boot.
    let mut read = BTreeSet::new();
    let mut text_at = |path: &Path| match tree.find(path)? {
        Some(entry) if entry.kind == EntryKind::File && read.insert(entry.path.clone()) => tree.text(path),
        _ => Ok(None),
    };
    for top in TOPS.map(Path::new) {
        for (name, menu) in [("grub/grub.cfg", Menu::Grub), ("extlinux/extlinux.conf", Menu::Extlinux)] {
            if let Some(text) = text_at(&top.join(name))? {
                found.extend(match menu {
                    Menu::Grub => grub(&text, &top.join(name)),
                    _ => extlinux(&text, &top.join(name)),
                });
            }
        }
        // What OSTree keeps in /boot is read by no firmware: a loader's own menu is made of it.
        if !top.as_os_str().is_empty() && (top != Path::new("boot") || tree.find(Path::new("ostree/repo"))?.is_none()) {
            for entry in tree.names(top.join("loader/entries"))? {
                if entry.path.extension().is_some_and(|ending| ending == "conf")
                    && let Some(text) = tree.text(&entry.path)?
                {
                    found.extend(specified(&text, &entry.path));
                }
            }
        }
        if let (Some(config), Some(line)) = (text_at(&top.join("config.txt"))?, text_at(&top.join("cmdline.txt"))?) {
            found.extend(raspberry_pi(&config, &line, &top.join("config.txt")));
        }
    }
    Ok(found)
}

/// Commands of GRUB that load a kernel, and an initramfs.
const KERNELS: [&str; 3] = ["linux", "linuxefi", "linux16"];
const INITRDS: [&str; 3] = ["initrd", "initrdefi", "initrd16"];

/// The entries of a grub.cfg whose paths are plain: what GRUB computes when it runs is not known here.
fn grub(text: &str, file: &Path) -> Vec<Choice> {
    let mut found: Vec<Choice> = Vec::new();
    let mut on: Option<String> = None;
    let mut open = false;
    for line in text.lines() {
        let words = tokens(line);
        let Some((command, words)) = words.split_first() else { continue };
        match command.as_str() {
            "menuentry" | "submenu" => (on, open) = (None, false),
            "search" if words.iter().any(|word| word == "--fs-uuid" || word == "-u") => {
                on = words.last().filter(|word| !word.starts_with('-') && !word.contains('$')).cloned();
            }
            command if KERNELS.contains(&command) => {
                open = false;
                if let Some((kernel, words)) = words.split_first()
                    && let Some(kernel) = on_root(kernel)
                {
                    open = true;
                    found.push(Choice {
                        menu: Menu::Grub,
                        file: file.to_owned(),
                        on: on.clone(),
                        kernel,
                        initrds: Vec::new(),
                        device_tree: None,
                        words: words.to_vec(),
                    });
                }
            }
            command if open && (INITRDS.contains(&command) || command == "devicetree") => {
                let paths = words.iter().map(|word| on_root(word)).collect::<Option<Vec<_>>>();
                let choice = found.last_mut();
                match (choice, paths) {
                    (Some(choice), Some(paths)) if command == "devicetree" => {
                        choice.device_tree = paths.into_iter().next()
                    }
                    (Some(choice), Some(paths)) => choice.initrds.extend(paths),
                    // Its parts are not known, so nothing can be said of it.
                    (_, None) => drop(found.pop()),
                    (None, _) => {}
                }
            }
            _ => {}
        }
    }
    found
}

/// A path on the device that GRUB searched for.
fn on_root(word: &str) -> Option<PathBuf> {
    let path = word.strip_prefix("($root)").unwrap_or(word);
    (path.starts_with('/') && !path.contains(['$', '(', '*'])).then(|| PathBuf::from(path))
}

/// The words of a line of GRUB's language (Shell-like scripting, in its manual): quotes and backslashes undone.
fn tokens(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let (mut letters, mut quote) = (line.chars(), None);
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\'' | '"', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (letter, Some(open)) if letter == open => quote = None,
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(letters.next()),
            (letter, None) if letter.is_whitespace() => words.extend(word.take()),
            ('#', None) if word.is_none() => break,
            (letter, _) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// Entries of an extlinux.conf (U-Boot, doc/README.pxe).
fn extlinux(text: &str, file: &Path) -> Vec<Choice> {
    let mut found: Vec<Choice> = Vec::new();
    let mut words = Vec::new();
    let mut blank = true;
    let (mut default, mut label, mut first) = (None, None, 0);
    for line in text.lines() {
        let (key, value) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
        let value = value.trim();
        let path = |value: &str| PathBuf::from(value);
        match (key.to_ascii_lowercase().as_str(), found.last_mut()) {
            ("default", _) => default = Some(value),
            ("label", _) => (label, words, blank) = (Some(value), Vec::new(), true),
            // Others are relative to a place that the loader has.
            ("linux" | "kernel", _) if value.starts_with('/') => {
                blank = false;
                if default.is_some() && label == default {
                    first = found.len();
                }
                found.push(Choice {
                    menu: Menu::Extlinux,
                    file: file.to_owned(),
                    on: None,
                    kernel: path(value),
                    initrds: Vec::new(),
                    device_tree: None,
                    words: std::mem::take(&mut words),
                });
            }
            ("append", Some(choice)) if !blank => choice.words = crate::build::image::split(value),
            // What stands before the kernel, or for all entries.
            ("append", _) => words = crate::build::image::split(value),
            ("initrd" | "fdt" | "devicetree", Some(_)) if !blank && !value.starts_with(['/', '-']) => {
                found.pop();
                blank = true;
            }
            ("initrd", Some(choice)) if !blank => choice.initrds = value.split(',').map(path).collect(),
            ("fdt" | "devicetree", Some(choice)) if !blank && value != "-" => choice.device_tree = Some(path(value)),
            _ => {}
        }
    }
    // What is started by itself comes first.
    if first < found.len() {
        found[..=first].rotate_right(1);
    }
    found
}

fn specified(text: &str, file: &Path) -> Option<Choice> {
    let entry = Entry::parse(text);
    let initrds = text.lines().filter_map(|line| line.trim().strip_prefix("initrd")).map(str::trim);
    Some(Choice {
        menu: Menu::Entries,
        file: file.to_owned(),
        on: None,
        kernel: PathBuf::from(entry.get("linux")?),
        initrds: initrds.filter(|path| path.starts_with('/')).map(PathBuf::from).collect(),
        device_tree: entry.get("devicetree").map(PathBuf::from),
        words: crate::build::image::split(entry.get("options").unwrap_or_default()),
    })
}

/// What the Raspberry Pi's firmware starts, where config.txt names it for all boards alike.
fn raspberry_pi(config: &str, line: &str, file: &Path) -> Option<Choice> {
    let lines = config.lines().map(str::trim);
    if lines.clone().any(|line| line.starts_with('[') && line != "[all]") {
        return None;
    }
    let kernel = lines.clone().rev().find_map(|line| line.strip_prefix("kernel="))?;
    let initrd = lines.rev().find_map(|line| line.strip_prefix("initramfs ")?.split_whitespace().next());
    Some(Choice {
        menu: Menu::RaspberryPi,
        file: file.to_owned(),
        on: None,
        kernel: Path::new("/").join(kernel.trim()),
        initrds: initrd.map(|name| Path::new("/").join(name)).into_iter().collect(),
        device_tree: None,
        words: crate::build::image::split(line),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(choice: &Choice) -> Vec<&str> {
        let all = [&choice.kernel].into_iter().chain(&choice.initrds).chain(&choice.device_tree);
        all.map(|path| path.to_str().unwrap()).collect()
    }

    #[test]
    fn grub_is_read_as_far_as_its_words_are_plain() {
        let text = r#"
set timeout=1
search --no-floppy --fs-uuid --set=root of-the-font
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-1' {
    search --no-floppy --fs-uuid --set=root 0b1c
    echo 'Loading Linux ...'
    linux /boot/vmlinuz-6.12 root=UUID=0b1c ro "console=ttyS0,115200" dyndbg=\"file a.c +p\" # and no more
    initrd /boot/early.img ($root)/boot/initrd.img-6.12
}
submenu 'more' {
    menuentry 'computed' {
        linux ${path}/vmlinuz root=/dev/sda1
        initrd /boot/initrd.img
    }
    menuentry 'half computed' {
        linux /boot/vmlinuz root=/dev/sda1
        initrd $early /boot/initrd.img
    }
    menuentry 'memory' {
        linux16 /boot/memtest.bin console=ttyS1
    }
}
"#;
        let found = grub(text, Path::new("boot/grub/grub.cfg"));
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(paths(&found[0]), ["/boot/vmlinuz-6.12", "/boot/early.img", "/boot/initrd.img-6.12"]);
        assert_eq!(found[0].on.as_deref(), Some("0b1c"));
        assert_eq!(found[0].value("root"), Some("UUID=0b1c"));
        assert_eq!(found[0].consoles().collect::<Vec<_>>(), ["ttyS0"]);
        assert_eq!((paths(&found[1]), &found[1].on), (vec!["/boot/memtest.bin"], &None));
    }

    #[test]
    fn extlinux_takes_its_words_before_the_kernel_and_behind_it() {
        let text = "default l0\nappend root=/dev/mmcblk0p1\nlabel l0\n\tkernel ../vmlinuz\n\tappend x\n\tfdtdir /dtbs\n\
                    label l1\n  LINUX /boot/vmlinuz\n  initrd /boot/initrd.img\n  fdt /boot/a.dtb\n  append root=LABEL=x \"a b\"\n";
        let found = extlinux(text, Path::new("boot/extlinux/extlinux.conf"));
        assert_eq!(found.len(), 1);
        let two = "default b\nlabel a\nlinux /a\nlabel b\nlinux /b\nlabel c\nlinux /c\n";
        let kernels: Vec<_> = extlinux(two, Path::new("x")).into_iter().map(|choice| choice.kernel).collect();
        assert_eq!(kernels, [Path::new("/b"), Path::new("/a"), Path::new("/c")]);
        assert_eq!(paths(&found[0]), ["/boot/vmlinuz", "/boot/initrd.img", "/boot/a.dtb"]);
        assert_eq!(found[0].words, ["root=LABEL=x", "\"a b\""]);
    }

    #[test]
    fn the_raspberry_pi_is_read_where_all_boards_get_the_same() {
        let config = "kernel=vmlinuz-6.12\ninitramfs initrd.img-6.12 followkernel\n";
        let found = raspberry_pi(config, "root=LABEL=root ro\n", Path::new("config.txt")).unwrap();
        assert_eq!(paths(&found), ["/vmlinuz-6.12", "/initrd.img-6.12"]);
        assert!(raspberry_pi(&format!("[pi4]\n{config}"), "", Path::new("config.txt")).is_none());
    }
}
