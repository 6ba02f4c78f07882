//! Kernel modules: which ones are wanted, and in which order they are to be loaded.
//!
//! depmod(8) writes the order down when a kernel is installed. Here kernels are used that nobody
//! installed, so it is read from the modules themselves: each names those it needs (`depends=` in its
//! section `.modinfo`).

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use object::{Object, ObjectSection};

use crate::build::archive::Compression;

/// A module that can be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// As the kernel has it, with `_` only.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// How the file is compressed.
    pub compressed: Compression,
}

/// Modules and what they need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closure {
    /// In the order that they are to be loaded in; none that the kernel has built in.
    pub modules: Vec<Module>,
    /// Names that are neither modules nor built in, in the order that they were wanted in.
    pub missing: Vec<String>,
}

impl Module {
    fn of_file(path: PathBuf) -> Option<Self> {
        let (name, ending) = path.file_name()?.to_str()?.split_once(".ko")?;
        let compressed = match ending {
            "" => Compression::None,
            ".gz" => Compression::Gz,
            ".xz" => Compression::Xz,
            ".zst" => Compression::Zstd,
            _ => return None,
        };
        Some(Self { name: normal(name), compressed, path })
    }

    /// The module itself, decompressed: an ELF object file.
    pub fn contents(&self) -> Result<Vec<u8>> {
        let reading = || format!("reading the kernel module {}", self.path.display());
        let file = File::open(&self.path).with_context(reading)?;
        let mut contents = Vec::new();
        self.compressed
            .reader(file, u64::MAX)
            .and_then(|mut reader| Ok(reader.read_to_end(&mut contents)?))
            .with_context(reading)?;
        Ok(contents)
    }

    /// Names of the modules that it needs.
    fn depends(&self) -> Result<Vec<String>> {
        depends(&self.contents()?).with_context(|| format!("reading the kernel module {}", self.path.display()))
    }
}

/// The modules of a kernel (`…/lib/modules/RELEASE`) that are wanted and all those that these need,
/// each after what it needs. In names `-` and `_` are the same.
pub fn closure(modules_dir: &Path, wanted: &[&str]) -> Result<Closure> {
    let index = index(modules_dir)?;
    let builtin = builtin(modules_dir)?;
    let mut found = Closure::default();
    let mut seen = HashSet::new();
    for name in wanted.iter().map(|name| normal(name)) {
        if index.contains_key(&name) || builtin.contains(&name) {
            visit(&name, &index, &builtin, &mut seen, &mut found)?;
        } else if !found.missing.contains(&name) {
            found.missing.push(name);
        }
    }
    Ok(found)
}

fn visit(
    name: &str,
    index: &HashMap<String, Module>,
    builtin: &HashSet<String>,
    seen: &mut HashSet<String>,
    found: &mut Closure,
) -> Result<()> {
    if builtin.contains(name) || !seen.insert(name.to_owned()) {
        return Ok(());
    }
    let Some(module) = index.get(name) else { bail!("the kernel module {name} is missing, which others need") };
    for needed in module.depends()? {
        visit(&needed, index, builtin, seen, found)?;
    }
    found.modules.push(module.clone());
    Ok(())
}

/// All modules below a directory by name. What stands outside of `kernel` overrides what came with the
/// kernel (depmod.d(5), `search`).
fn index(modules_dir: &Path) -> Result<HashMap<String, Module>> {
    let mut all = HashMap::new();
    let mut overriding = Vec::new();
    for entry in walkdir::WalkDir::new(modules_dir).follow_links(false) {
        let entry = entry.with_context(|| format!("looking for kernel modules in {}", modules_dir.display()))?;
        let shipped = entry.path().strip_prefix(modules_dir).is_ok_and(|path| path.starts_with("kernel"));
        // Packages of further modules may put links here.
        match Module::of_file(entry.into_path()) {
            Some(module) if shipped => drop(all.insert(module.name.clone(), module)),
            Some(module) => overriding.push((module.name.clone(), module)),
            None => {}
        }
    }
    all.extend(overriding);
    Ok(all)
}

/// Names of modules that are part of the kernel itself; none where nothing says so.
fn builtin(modules_dir: &Path) -> Result<HashSet<String>> {
    let path = modules_dir.join("modules.builtin");
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.with_context(|| format!("reading {}", path.display()))?,
    };
    let name = |line: &str| Some(normal(Path::new(line.trim()).file_name()?.to_str()?.strip_suffix(".ko")?));
    Ok(text.lines().filter_map(name).collect())
}

/// Names that the section `.modinfo` of a module has under `depends`.
fn depends(module: &[u8]) -> Result<Vec<String>> {
    let section = object::File::parse(module)
        .context("it is no ELF file")?
        .section_by_name_bytes(b".modinfo")
        .context("it has no section .modinfo")?
        .uncompressed_data()
        .context("its section .modinfo cannot be read")?
        .into_owned();
    Ok(section
        .split(|byte| *byte == 0)
        .filter_map(|field| std::str::from_utf8(field).ok()?.strip_prefix("depends="))
        .flat_map(|names| names.split(',').filter(|name| !name.is_empty()))
        .map(normal)
        .collect())
}

fn normal(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF object file that has nothing but a section `.modinfo`.
    pub(crate) fn module(modinfo: &str) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let (info_at, names_at) = (64, 64 + modinfo.len());
        let sections_at = (names_at + names.len()).next_multiple_of(8);
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        // e_type (relocatable), e_machine (x86-64), e_version
        file.extend([1, 0, 62, 0, 1, 0, 0, 0]);
        for word in [0, 0, sections_at as u64] {
            file.extend(word.to_le_bytes());
        }
        file.extend([0; 4]);
        for half in [64u16, 0, 0, 64, 3, 2] {
            file.extend(half.to_le_bytes());
        }
        file.extend(modinfo.as_bytes());
        file.extend(names);
        file.resize(sections_at, 0);
        // sh_name, sh_type, sh_flags, sh_addr, sh_offset, sh_size, sh_link and sh_info, sh_addralign, sh_entsize
        for section in
            [[0; 9], [1, 1, 2, 0, info_at, modinfo.len(), 0, 1, 0], [10, 3, 0, 0, names_at, names.len(), 0, 1, 0]]
        {
            let [name, kind, rest @ ..] = section;
            file.extend((name as u32).to_le_bytes());
            file.extend((kind as u32).to_le_bytes());
            rest.iter().for_each(|word| file.extend((*word as u64).to_le_bytes()));
        }
        file
    }

    fn tree(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, contents) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        dir
    }

    fn names(closure: &Closure) -> Vec<&str> {
        closure.modules.iter().map(|module| module.name.as_str()).collect()
    }

    #[test]
    fn modules_come_after_what_they_need() {
        let xz = liblzma::encode_all(&module("license=GPL\0depends=mbcache,jbd2,crc16\0")[..], 1).unwrap();
        let zst = zstd::encode_all(&module("depends=crc16\0")[..], 1).unwrap();
        let dir = tree(&[
            ("kernel/fs/ext4/ext4.ko.xz", &xz),
            ("kernel/fs/jbd2/jbd2.ko.zst", &zst),
            ("kernel/fs/mbcache.ko", &module("depends=\0")),
            ("kernel/lib/other.ko", &module("depends=ext4\0")),
            ("modules.builtin", b"kernel/lib/crc16.ko\n"),
        ]);
        let found = closure(dir.path(), &["ext4", "crc16", "toaster", "jbd2"]).unwrap();
        assert_eq!(names(&found), ["mbcache", "jbd2", "ext4"]);
        assert_eq!(found.missing, ["toaster"]);
        assert_eq!(found.modules[2].contents().unwrap(), module("license=GPL\0depends=mbcache,jbd2,crc16\0"));
    }

    #[test]
    fn dashes_are_underscores() {
        let dir = tree(&[
            ("kernel/a-b.ko", &module("depends=c-d\0")),
            ("kernel/c_d.ko", &module("depends=\0")),
            ("modules.builtin", b"kernel/lib/e-f.ko\n"),
        ]);
        let found = closure(dir.path(), &["a_b", "e_f"]).unwrap();
        assert_eq!(names(&found), ["c_d", "a_b"]);
        assert!(found.missing.is_empty());
    }

    #[test]
    fn updates_override_what_came_with_the_kernel() {
        let dir = tree(&[
            ("kernel/a.ko", &module("depends=\0")),
            ("updates/dkms/a.ko", &module("depends=\0")),
            ("kernel/b.ko", b"not ELF"),
        ]);
        let found = closure(dir.path(), &["a"]).unwrap();
        assert!(found.modules[0].path.ends_with("updates/dkms/a.ko"));
        let error = format!("{:#}", closure(dir.path(), &["b"]).unwrap_err());
        assert!(error.contains("b.ko: it is no ELF file"), "{error}");
    }

    #[test]
    fn a_module_that_others_need_is_not_left_out_silently() {
        let dir = tree(&[("kernel/a.ko", &module("depends=b\0"))]);
        assert!(closure(dir.path(), &["a"]).unwrap_err().to_string().contains("module b is missing"));
    }
}
