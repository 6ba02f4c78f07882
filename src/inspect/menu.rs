//! What boot loaders offer to start, as their own files say it.
//!
//! Only what is certain is said: an entry whose parts a loader computes, or that is written in a way which is not known
//! here, is left out, and the menus are not complete then.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Tree;
use super::tree::EntryKind;
use crate::build::image::split;
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

/// All menus of a system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Menus {
    /// What they offer.
    pub choices: Vec<Choice>,
    /// Whether they may offer something else, too, that is not known here.
    pub more: bool,
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

    /// Whether it starts a system, rather than a tester of memory and the like.
    pub fn starts_system(&self) -> bool {
        self.value("root").is_some() || !self.initrds.is_empty()
    }

    /// Whether the loader computes what the command line says of the root.
    fn is_computed(&self) -> bool {
        let is_root = |word: &&String| word.starts_with("root=");
        let has_root = self.words.iter().any(|word| is_root(&word));
        self.words.iter().filter(|word| !has_root || is_root(word)).any(|word| word.contains('$'))
    }
}

impl Menus {
    fn push(&mut self, choice: Option<Choice>) {
        match choice.filter(|choice| !choice.is_computed()) {
            Some(choice) => self.choices.push(choice),
            None => self.more = true,
        }
    }
}

/// Directories that may be the top of a partition which loaders read, relative to the top of the tree.
const TOPS: [&str; 5] = ["", "boot", "boot/efi", "efi", "boot/firmware"];

/// Scripts that U-Boot runs.
const SCRIPTS: [&str; 3] = ["boot.scr", "boot.scr.uimg", "boot.cmd"];

/// The most that is read of a menu, in bytes.
const LARGEST: u64 = 16 << 20;

/// The menus in a tree, whose partitions are mounted in it.
pub fn menus(tree: &dyn Tree) -> Result<Menus> {
    let mut found = Menus::default();
    // The same file may be found by several ways: OSTree's /boot/boot leads back to /boot.
    let mut read = BTreeSet::new();
    let mut text_at = |path: &Path| match tree.find(path)? {
        Some(entry) if entry.kind == EntryKind::File && read.insert(entry.path.clone()) => text(tree, path),
        _ => Ok(None),
    };
    for top in TOPS.map(Path::new) {
        if let Some(text) = text_at(&top.join("grub/grub.cfg"))? {
            let custom = tree.find(&top.join("grub").join(CUSTOM))?.is_some();
            grub(&text, &top.join("grub/grub.cfg"), custom, &mut found);
        }
        if let Some(text) = text_at(&top.join("extlinux/extlinux.conf"))? {
            extlinux(&text, &top.join("extlinux/extlinux.conf"), &mut found);
        }
        // What OSTree keeps in /boot is read by no firmware: a loader's own menu is made of it.
        if !top.as_os_str().is_empty() && (top != Path::new("boot") || tree.find(Path::new("ostree/repo"))?.is_none()) {
            for entry in tree.names(top.join("loader/entries"))? {
                if entry.path.extension().is_some_and(|ending| ending == "conf")
                    && let Some(text) = text(tree, &entry.path)?
                {
                    found.push(specified(&text, &entry.path));
                }
            }
        }
        if let (Some(config), Some(line)) = (text_at(&top.join("config.txt"))?, text_at(&top.join("cmdline.txt"))?) {
            found.push(raspberry_pi(&config, &line, &top.join("config.txt")));
        }
        // Unified kernel images have all in themselves.
        found.more |= !tree.names(top.join("EFI/Linux"))?.is_empty();
        for script in SCRIPTS {
            found.more |= tree.find(&top.join(script))?.is_some();
        }
    }
    Ok(found)
}

fn text(tree: &dyn Tree, path: &Path) -> Result<Option<String>> {
    let bytes = tree.read_some(path, LARGEST)?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// Commands of GRUB that load a kernel, and an initramfs.
const KERNELS: [&str; 3] = ["linux", "linuxefi", "linux16"];
const INITRDS: [&str; 3] = ["initrd", "initrdefi", "initrd16"];

/// Commands that lead to what stands elsewhere.
const ELSEWHERE: [&str; 7] =
    ["configfile", "source", "blscfg", "chainloader", "multiboot", "multiboot2", "legacy_configfile"];

/// What grub-mkconfig has every grub.cfg read if it is there, beside itself.
const CUSTOM: &str = "custom.cfg";

/// Where GRUB's `root` is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Root {
    /// Where the file itself is.
    Own,
    /// On the file system of this UUID.
    Uuid(String),
    /// Nobody knows before it runs.
    Unknown,
}

/// An entry of a grub.cfg that is being read.
struct Open {
    root: Root,
    kernels: Vec<Vec<String>>,
    initrds: Vec<String>,
    device_tree: Option<String>,
    elsewhere: bool,
}

impl Open {
    fn new(root: Root) -> Self {
        Self { root, kernels: Vec::new(), initrds: Vec::new(), device_tree: None, elsewhere: false }
    }

    /// Adds what it offers; nothing where it loads no kernel.
    fn close(self, file: &Path, found: &mut Menus) {
        let [kernel] = self.kernels.as_slice() else {
            // A menu that chooses between several when it runs.
            found.more |= self.elsewhere || !self.kernels.is_empty();
            return;
        };
        found.push(self.choice(kernel, file));
    }

    fn choice(&self, kernel: &[String], file: &Path) -> Option<Choice> {
        let (path, words) = kernel.split_first()?;
        let on = match &self.root {
            Root::Own => None,
            Root::Uuid(uuid) => Some(uuid.clone()),
            Root::Unknown => return None,
        };
        Some(Choice {
            menu: Menu::Grub,
            file: file.to_owned(),
            on,
            kernel: on_root(path)?,
            initrds: self.initrds.iter().map(|path| on_root(path)).collect::<Option<_>>()?,
            device_tree: match &self.device_tree {
                Some(path) => Some(on_root(path)?),
                None => None,
            },
            words: words.to_vec(),
        })
    }
}

/// The entries of a grub.cfg whose words are plain; `custom` says that there is a file of one's own beside it.
fn grub(text: &str, file: &Path, custom: bool, found: &mut Menus) {
    let mut outside = Root::Own;
    let mut open: Option<Open> = None;
    for words in statements(text) {
        let keywords = words.iter().take_while(|word| matches!(word.as_str(), "then" | "else" | "do")).count();
        let Some((command, words)) = words[keywords..].split_first() else { continue };
        let command = command.as_str();
        if matches!(command, "menuentry" | "submenu" | "}") {
            open.take().into_iter().for_each(|open| open.close(file, found));
            open = (command == "menuentry").then(|| Open::new(outside.clone()));
            continue;
        }
        let root = open.as_mut().map_or(&mut outside, |open| &mut open.root);
        match command {
            "set" if words.iter().any(|word| word.starts_with("root=")) => *root = Root::Unknown,
            "search" => *root = searched(words),
            _ if command.starts_with("search.") => *root = Root::Unknown,
            _ => {}
        }
        let absent = !custom && words.last().is_some_and(|word| word.ends_with(CUSTOM));
        let loads = KERNELS.contains(&command) || (ELSEWHERE.contains(&command) && !absent);
        let Some(open) = &mut open else {
            // A script that starts something by itself.
            found.more |= loads;
            continue;
        };
        match command {
            _ if KERNELS.contains(&command) => open.kernels.push(words.to_vec()),
            _ if INITRDS.contains(&command) => open.initrds.extend(words.iter().cloned()),
            "devicetree" => open.device_tree = words.first().cloned(),
            _ => open.elsewhere |= loads,
        }
    }
    open.into_iter().for_each(|open| open.close(file, found));
}

/// Where `search` leaves GRUB's root: known where it looks for one UUID.
fn searched(words: &[String]) -> Root {
    let by_uuid = words.iter().any(|word| word == "--fs-uuid" || word == "-u");
    let mut plain = words.iter().filter(|word| !word.starts_with('-'));
    match (plain.next(), plain.next()) {
        (Some(uuid), None) if by_uuid && !uuid.contains('$') => Root::Uuid(uuid.clone()),
        _ => Root::Unknown,
    }
}

/// A path on the device that GRUB searched for.
fn on_root(word: &str) -> Option<PathBuf> {
    let path = word.strip_prefix("($root)").unwrap_or(word);
    (path.starts_with('/') && !path.contains(['$', '(', '*'])).then(|| PathBuf::from(path))
}

/// The statements of GRUB's language (Shell-like scripting, in its manual), each as its words: quotes and backslashes
/// undone, but for variables.
fn statements(text: &str) -> Vec<Vec<String>> {
    let mut all = vec![Vec::new()];
    let mut word: Option<String> = None;
    let (mut letters, mut quote) = (text.chars().peekable(), None);
    let end = |word: &mut Option<String>, all: &mut Vec<Vec<String>>| {
        if let (Some(word), Some(last)) = (word.take(), all.last_mut()) {
            last.push(word);
        }
    };
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\'' | '"', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (letter, Some(open)) if letter == open => quote = None,
            ('\\', None | Some('"')) => match letters.next() {
                Some('\n') | None => {}
                Some(letter) => word.get_or_insert_default().push(letter),
            },
            ('\n' | ';', None) => {
                end(&mut word, &mut all);
                all.push(Vec::new());
            }
            (letter, None) if letter.is_whitespace() => end(&mut word, &mut all),
            ('#', None) if word.is_none() => while letters.next_if(|letter| *letter != '\n').is_some() {},
            (letter, _) => word.get_or_insert_default().push(letter),
        }
    }
    end(&mut word, &mut all);
    all.retain(|words| !words.is_empty());
    all
}

/// A label of an extlinux.conf that is being read; `None` where it is not known what it starts.
#[derive(Default)]
struct Label {
    kernel: Option<String>,
    initrds: Vec<String>,
    device_tree: Option<String>,
    words: Vec<String>,
}

/// Entries of an extlinux.conf (U-Boot, doc/README.pxe): their parts come in any order.
fn extlinux(text: &str, file: &Path, found: &mut Menus) {
    let mut label: Option<Label> = None;
    let mut for_all: Vec<String> = Vec::new();
    let close = |label: Option<Label>, found: &mut Menus| {
        let Some(label) = label else { return };
        // Paths that are not absolute are relative to a place that the loader has; `#` chooses a part of a file.
        let plain = |path: &String| (path.starts_with('/') && !path.contains(['#', '$'])).then(|| PathBuf::from(path));
        let Some(kernel) = &label.kernel else { return };
        let initrds = label.initrds.iter().map(plain).collect::<Option<Vec<_>>>();
        let device_tree = label.device_tree.iter().map(plain).collect::<Option<Vec<_>>>();
        found.push(plain(kernel).zip(initrds).zip(device_tree).map(|((kernel, initrds), device_tree)| Choice {
            menu: Menu::Extlinux,
            file: file.to_owned(),
            on: None,
            kernel,
            initrds,
            device_tree: device_tree.into_iter().next(),
            words: label.words,
        }));
    };
    for line in text.lines() {
        let (key, value) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
        let value = value.trim();
        match (key.to_ascii_lowercase().as_str(), &mut label) {
            ("label", _) => {
                close(label.replace(Label { words: for_all.clone(), ..Label::default() }), found);
            }
            ("include", _) => found.more = true,
            ("linux" | "kernel", Some(label)) => label.kernel = Some(value.to_owned()),
            ("initrd", Some(label)) => label.initrds = value.split(',').map(str::to_owned).collect(),
            ("fdt" | "devicetree", Some(label)) if value != "-" => label.device_tree = Some(value.to_owned()),
            ("append", Some(label)) => {
                label.words = split(value);
                label
                    .initrds
                    .extend(label.words.iter().filter_map(|word| Some(word.strip_prefix("initrd=")?.to_owned())));
            }
            ("append", None) => for_all = split(value),
            _ => {}
        }
    }
    close(label, found);
}

/// An entry of the Boot Loader Specification; EFI's programs write backslashes.
fn specified(text: &str, file: &Path) -> Option<Choice> {
    let entry = Entry::parse(text);
    let path = |value: &str| Path::new("/").join(value.replace('\\', "/").trim_start_matches('/'));
    let values = |key: &'static str| {
        let lines =
            text.lines().filter_map(move |line| line.trim().strip_prefix(key)?.strip_prefix(char::is_whitespace));
        lines.map(str::trim)
    };
    let kernel = entry.get("linux")?;
    // A unified kernel image has an initramfs of its own.
    if kernel.to_ascii_lowercase().ends_with(".efi") {
        return None;
    }
    let words = split(&values("options").collect::<Vec<_>>().join(" "));
    let given = words.iter().filter_map(|word| word.strip_prefix("initrd="));
    Some(Choice {
        menu: Menu::Entries,
        file: file.to_owned(),
        on: None,
        kernel: path(kernel),
        initrds: values("initrd").chain(given).map(path).collect(),
        device_tree: entry.get("devicetree").map(path),
        words: words.clone(),
    })
}

/// Settings of the Raspberry Pi's firmware that change what the others mean.
const CHANGING: [&str; 6] = ["include", "os_prefix=", "cmdline=", "ramfsfile=", "auto_initramfs=", "ramfsaddr="];

/// What the Raspberry Pi's firmware starts, where config.txt names it for all boards alike.
fn raspberry_pi(config: &str, line: &str, file: &Path) -> Option<Choice> {
    let lines = config.lines().map(str::trim);
    let changes = |line: &str| {
        (line.starts_with('[') && line != "[all]") || CHANGING.iter().any(|setting| line.starts_with(setting))
    };
    if lines.clone().any(changes) {
        return None;
    }
    // Others are loaders, or have an initramfs of their own.
    let kernel = lines.clone().rev().find_map(|line| line.strip_prefix("kernel="))?.trim();
    if !kernel.starts_with("vmlinuz") {
        return None;
    }
    let initrd = lines.rev().find_map(|line| line.strip_prefix("initramfs ")?.split_whitespace().next());
    if initrd.is_some_and(|names| names.contains(',')) {
        return None;
    }
    let path = |name: &str| Path::new("/").join(name);
    Some(Choice {
        menu: Menu::RaspberryPi,
        file: file.to_owned(),
        on: None,
        kernel: path(kernel),
        initrds: initrd.map(path).into_iter().collect(),
        device_tree: None,
        words: split(line),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(choice: &Choice) -> Vec<&str> {
        let all = [&choice.kernel].into_iter().chain(&choice.initrds).chain(&choice.device_tree);
        all.map(|path| path.to_str().unwrap()).collect()
    }

    fn of_grub(text: &str) -> Menus {
        let mut found = Menus::default();
        grub(text, Path::new("boot/grub/grub.cfg"), false, &mut found);
        found
    }

    #[test]
    fn grub_is_read_as_grub_mkconfig_writes_it() {
        let text = r#"
set timeout=1
set root='hd0,gpt2'
search --no-floppy --fs-uuid --set=root 0a0a
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-1' {
    set root='hd0,gpt2'
    if [ x$feature_platform_search_hint = xy ]; then
      search --no-floppy --fs-uuid --set=root --hint-bios=hd0,gpt2 0b1c
    else
      search --no-floppy --fs-uuid --set=root 0b1c
    fi
    echo 'Loading Linux ...'
    linux /boot/vmlinuz-6.12 root=UUID=0b1c ro "console=ttyS0,115200" dyndbg=\"file a.c +p\" # and no more
    initrd /boot/early.img ($root)/boot/initrd.img-6.12
}
submenu 'more' {
    menuentry 'memory' {
        linux16 /boot/memtest.bin console=ttyS1
    }
}
if [ "$grub_platform" = "efi" ]; then
	fwsetup --is-supported
	if [ "$?" = 0 ]; then
		menuentry 'UEFI Firmware Settings' $menuentry_id_option 'uefi-firmware' {
			fwsetup
		}
	fi
fi
if [ -f  ${config_directory}/custom.cfg ]; then
  source ${config_directory}/custom.cfg
elif [ -z "${config_directory}" -a -f  $prefix/custom.cfg ]; then
  source $prefix/custom.cfg
fi
"#;
        let mut with_custom = Menus::default();
        grub(text, Path::new("boot/grub/grub.cfg"), true, &mut with_custom);
        assert!(with_custom.more);
        let found = of_grub(text);
        assert!(!found.more);
        assert_eq!(found.choices.len(), 2, "{found:?}");
        let first = &found.choices[0];
        assert_eq!(paths(first), ["/boot/vmlinuz-6.12", "/boot/early.img", "/boot/initrd.img-6.12"]);
        assert_eq!((first.on.as_deref(), first.value("root")), (Some("0b1c"), Some("UUID=0b1c")));
        assert_eq!(first.consoles().collect::<Vec<_>>(), ["ttyS0"]);
        let second = &found.choices[1];
        assert_eq!((paths(second), second.on.as_deref()), (vec!["/boot/memtest.bin"], Some("0a0a")));
        assert!(!second.starts_system());
    }

    #[test]
    fn what_grub_computes_when_it_runs_is_not_known() {
        let entry = |before: &str, lines: &str| of_grub(&format!("{before}\nmenuentry a {{\n{lines}\n}}\n"));
        let plain = "linux /vmlinuz root=/dev/vda1; initrd /initrd.img";
        assert_eq!(entry("", plain).choices[0].initrds, [Path::new("/initrd.img")]);
        assert_eq!(entry("", "linux /vmlinuz \\\nroot=/dev/vda1").choices[0].value("root"), Some("/dev/vda1"));
        for (before, lines) in [
            ("", "set root='hd0,gpt2'\nlinux /vmlinuz root=/dev/vda1"),
            ("search --label --set=root boot", plain),
            ("search.fs_uuid 0b1c root", plain),
            ("search --fs-uuid --set=root $uuid", plain),
            ("", "linux $path root=/dev/vda1"),
            ("", "linux /vmlinuz root=UUID=$uuid"),
            ("", "linux /vmlinuz $options\ninitrd /initrd.img"),
            ("", "linux /vmlinuz root=/dev/vda1\ninitrd $early /initrd.img"),
            ("", "if [ -f /try ]; then linux /try root=/dev/vda1; else linux /vmlinuz root=/dev/vda1; fi"),
            ("", "chainloader +1"),
            ("blscfg", ""),
            ("linux /vmlinuz root=/dev/vda1", ""),
        ] {
            let found = entry(before, lines);
            assert!(found.more && found.choices.is_empty(), "{before} {lines}: {found:?}");
        }
    }

    #[test]
    fn extlinux_takes_its_parts_in_any_order() {
        let read = |text: &str| {
            let mut found = Menus::default();
            extlinux(text, Path::new("boot/extlinux/extlinux.conf"), &mut found);
            found
        };
        let found = read(
            "label l1\n  initrd /boot/initrd.img\n  LINUX /boot/vmlinuz\n  fdt /boot/a.dtb\n  append root=LABEL=x \"a b\"\n",
        );
        assert_eq!(paths(&found.choices[0]), ["/boot/vmlinuz", "/boot/initrd.img", "/boot/a.dtb"]);
        assert_eq!(
            (&found.choices[0].words[..], found.more),
            (&["root=LABEL=x".to_owned(), "\"a b\"".to_owned()][..], false)
        );
        let found =
            read("append root=LABEL=x\nlabel a\nkernel /a\nlabel b\nkernel /b\nappend initrd=/i root=LABEL=y\n");
        assert_eq!(found.choices[0].words, ["root=LABEL=x"]);
        assert_eq!(paths(&found.choices[1]), ["/b", "/i"]);
        for text in [
            "label a\nkernel ../a",
            "label a\nkernel /fit#conf",
            "include /x",
            "label a\nkernel /a\nappend root=UUID=${uuid}",
        ] {
            let found = read(text);
            assert!(found.more && found.choices.is_empty(), "{text}");
        }
    }

    #[test]
    fn entries_have_paths_as_efi_has_them() {
        let text = "title Debian\nlinux d\\linux\ninitrd d/initrd.img\noptions quiet\noptions root=LABEL=root\n";
        let found = specified(text, Path::new("efi/loader/entries/a.conf")).unwrap();
        assert_eq!((paths(&found), found.value("root")), (vec!["/d/linux", "/d/initrd.img"], Some("LABEL=root")));
        assert!(specified("linux /EFI/Linux/a.efi", Path::new("x")).is_none());
        assert!(specified("efi /EFI/tool.efi", Path::new("x")).is_none());
    }

    #[test]
    fn the_raspberry_pi_is_read_where_all_boards_get_the_same() {
        let config = "kernel=vmlinuz-6.12\ninitramfs initrd.img-6.12 followkernel\n";
        let read = |config: &str| raspberry_pi(config, "root=LABEL=root ro\n", Path::new("config.txt"));
        assert_eq!(paths(&read(config).unwrap()), ["/vmlinuz-6.12", "/initrd.img-6.12"]);
        for more in ["[pi4]", "os_prefix=current/", "include more.txt", "cmdline=other.txt", "kernel=u-boot.bin"] {
            assert!(read(&format!("{config}{more}\n")).is_none(), "{more}");
        }
    }
}
