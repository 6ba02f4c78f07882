//! What a program needs to run where there is nothing else.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use object::Endianness;
use object::elf::{self, FileHeader32, FileHeader64, Machine};
use object::read::ReadCache;
use object::read::elf::{ElfFile, FileHeader, ProgramHeader};

use crate::debian::Architecture;

/// A file to be laid where a program looks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    /// On this machine.
    pub source: PathBuf,
    /// Absolute path where it is wanted.
    pub at: PathBuf,
    /// Its first bytes that are loaded when it runs. What follows is for debuggers and linkers alone.
    pub loaded: u64,
}

/// What elf(5) says of a program or a shared library.
struct Elf {
    machine: Machine,
    wide: bool,
    interpreter: Option<PathBuf>,
    needed: Vec<String>,
    search: Vec<String>,
    loaded: u64,
}

/// A program that is to stand at `at`, its loader and all its libraries, found as ld.so(8) does on this
/// machine. Libraries that it opens by itself while it runs are not known.
pub fn closure(program: &Path, at: &Path) -> Result<Vec<Needed>> {
    let first = read(program)?;
    let mut all = vec![Needed { source: program.to_owned(), at: at.to_owned(), loaded: first.loaded }];
    let usual = usual_directories();
    if let Some(interpreter) = &first.interpreter {
        let loaded = read(interpreter)?.loaded;
        all.push(Needed { source: interpreter.clone(), at: interpreter.clone(), loaded });
    }
    let mut seen: HashSet<String> = HashSet::new();
    let (machine, wide) = (first.machine, first.wide);
    let mut pending = VecDeque::from([(program.canonicalize().unwrap_or_else(|_| program.to_owned()), first)]);
    while let Some((path, elf)) = pending.pop_front() {
        let origin = path.parent().unwrap_or(Path::new("/")).to_string_lossy().into_owned();
        let own: Vec<PathBuf> = elf
            .search
            .iter()
            .map(|entry| entry.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin).into())
            .collect();
        for name in elf.needed {
            // The loader itself is named as a library by some.
            if all.iter().any(|known| known.at.file_name().is_some_and(|file| file == name.as_str()))
                || !seen.insert(name.clone())
            {
                continue;
            }
            let candidates = own.iter().chain(&usual).map(|directory| directory.join(&name));
            let fits = |path: PathBuf| {
                let elf = read(&path).ok()?;
                (elf.machine == machine && elf.wide == wide).then_some((path, elf))
            };
            let Some((found, library)) = candidates.filter(|path| path.is_file()).find_map(fits) else {
                bail!("the library {name} is missing, which {} needs", path.display());
            };
            // A directory that the program names may mean another place in the guest.
            let usual_place = found.parent().is_some_and(|parent| usual.iter().any(|known| known == parent));
            let at = if usual_place { found.clone() } else { usual[0].join(&name) };
            all.push(Needed { source: found.clone(), at, loaded: library.loaded });
            pending.push_back((found.canonicalize().unwrap_or(found), library));
        }
    }
    Ok(all)
}

/// Where Debian's loader looks where nothing else is said, first to last.
fn usual_directories() -> Vec<PathBuf> {
    let architecture = Architecture::host();
    let abi = match architecture {
        Architecture::Armhf => "gnueabihf",
        Architecture::Armel => "gnueabi",
        Architecture::Mips64el => "gnuabi64",
        _ => "gnu",
    };
    let processor = match architecture {
        Architecture::Ppc64el => "powerpc64le",
        other => other.qemu(),
    };
    let triplet = format!("{processor}-linux-{abi}");
    let directories =
        [&format!("/lib/{triplet}"), &format!("/usr/lib/{triplet}"), "/lib64", "/usr/lib64", "/lib", "/usr/lib"];
    directories.map(PathBuf::from).to_vec()
}

fn read(path: &Path) -> Result<Elf> {
    let reading = || format!("reading {}", path.display());
    let cache = ReadCache::new(File::open(path).with_context(reading)?);
    let read = match object::FileKind::parse(&cache).with_context(reading)? {
        object::FileKind::Elf32 => read_class::<FileHeader32<Endianness>>(&cache),
        object::FileKind::Elf64 => read_class::<FileHeader64<Endianness>>(&cache),
        _ => bail!("{} is no ELF file", path.display()),
    };
    read.with_context(reading)
}

fn read_class<Header: FileHeader<Endian = Endianness>>(cache: &ReadCache<File>) -> Result<Elf> {
    let file = ElfFile::<Header, _>::parse(cache)?;
    let endian = file.endian();
    let mut elf = Elf {
        machine: file.elf_header().e_machine(endian),
        wide: file.elf_header().is_class_64(),
        interpreter: None,
        needed: Vec::new(),
        search: Vec::new(),
        loaded: 0,
    };
    for header in file.elf_program_headers() {
        if let Some(interpreter) = header.interpreter(endian, cache)? {
            elf.interpreter = Some(PathBuf::from(std::ffi::OsStr::from_bytes(interpreter)));
        }
        let (offset, size) = header.file_range(endian);
        elf.loaded = elf.loaded.max(offset.checked_add(size).context("a segment without an end")?);
    }
    let table = file.elf_dynamic_table()?;
    for entry in &table {
        if ![elf::DT_NEEDED, elf::DT_RUNPATH, elf::DT_RPATH].contains(&entry.tag) {
            continue;
        }
        let text = std::str::from_utf8(table.string(entry)?).context("a library's name is no text")?;
        if entry.tag == elf::DT_NEEDED {
            elf.needed.push(text.to_owned());
        } else {
            elf.search.extend(text.split(':').filter(|part| !part.is_empty()).map(str::to_owned));
        }
    }
    Ok(elf)
}

/// The loader that a program names; none of one that needs none.
pub fn interpreter(program: &Path) -> Result<Option<PathBuf>> {
    Ok(read(program)?.interpreter)
}

/// Has a program of 64 bits name another loader, whose name must be no longer than that of the one before. A name
/// without a directory is looked for where the program is started.
pub fn set_interpreter(program: &Path, loader: &str) -> Result<()> {
    let writing = || format!("naming the loader of {}", program.display());
    let file = File::options().read(true).write(true).open(program).with_context(writing)?;
    let cache = ReadCache::new(file.try_clone().with_context(writing)?);
    let elf = ElfFile::<FileHeader64<Endianness>, _>::parse(&cache).with_context(writing)?;
    let endian = elf.endian();
    let header = elf.elf_program_headers().iter().find(|header| header.p_type(endian) == elf::PT_INTERP);
    let (offset, size) = header.with_context(|| format!("{} names no loader", program.display()))?.file_range(endian);
    let mut name = loader.as_bytes().to_vec();
    let size = usize::try_from(size).ok().filter(|size| name.len() < *size);
    name.resize(size.with_context(|| format!("{} has no room for {loader}", program.display()))?, 0);
    file.write_all_at(&name, offset).with_context(writing)
}

/// Makes a header (the first 64 bytes of a file) say that there is nothing behind what is loaded.
pub fn forget_sections(header: &mut [u8; 64]) {
    // e_shoff; e_shnum and e_shstrndx (elf(5)).
    let (offset, counts) = if header[4] == 2 { (40..48, 60..64) } else { (32..36, 48..52) };
    header[offset].fill(0);
    header[counts].fill(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_comes_with_its_loader_and_libraries() {
        let all = closure(Path::new("/proc/self/exe"), Path::new("/debforge")).unwrap();
        assert_eq!(all[0].at, Path::new("/debforge"));
        let has =
            |start: &str| all.iter().any(|needed| needed.at.file_name().unwrap().to_string_lossy().starts_with(start));
        assert!(has("ld-") || has("ld64"), "{all:?}");
        assert!(has("libc.so") && has("libgcc_s.so"), "{all:?}");
        let places: HashSet<_> = all.iter().map(|needed| &needed.at).collect();
        assert_eq!(places.len(), all.len(), "{all:?}");
    }

    #[test]
    fn what_is_loaded_runs_without_the_rest() {
        use std::os::unix::fs::PermissionsExt;
        let sh = Path::new("/bin/sh").canonicalize().unwrap();
        let needed = &closure(&sh, Path::new("/sh")).unwrap()[0];
        let mut bytes = std::fs::read(&sh).unwrap();
        bytes.truncate(usize::try_from(needed.loaded).unwrap());
        let (header, rest) = bytes.split_first_chunk::<64>().unwrap();
        let mut header = *header;
        forget_sections(&mut header);
        let dir = tempfile::tempdir().unwrap();
        let cut = dir.path().join("sh");
        std::fs::write(&cut, [&header[..], rest].concat()).unwrap();
        std::fs::set_permissions(&cut, PermissionsExt::from_mode(0o755)).unwrap();
        // A process that another test is just starting may still hold the file open for writing.
        let run = || std::process::Command::new(&cut).args(["-c", "exit 7"]).status();
        let status = (0..50).find_map(|_| {
            run().ok().or_else(|| {
                std::thread::sleep(std::time::Duration::from_millis(20));
                None
            })
        });
        assert_eq!(status.unwrap().code(), Some(7));
    }

    #[test]
    fn a_program_can_have_its_loader_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("true");
        std::fs::copy("/bin/true", &program).unwrap();
        let before = interpreter(&program).unwrap().unwrap();
        let name = before.file_name().unwrap().to_str().unwrap();
        set_interpreter(&program, name).unwrap();
        assert_eq!(interpreter(&program).unwrap(), Some(name.into()));
        let run = || std::process::Command::new(&program).current_dir(dir.path()).status().is_ok_and(|it| it.success());
        assert!(!run(), "there is none yet");
        std::fs::copy(&before, dir.path().join(name)).unwrap();
        assert!(run());
        let long = "a-name-that-is-far-longer-than-any-loader-has";
        assert!(set_interpreter(&program, long).unwrap_err().to_string().contains("has no room"));
    }

    #[test]
    fn says_what_is_no_program() {
        let error = closure(Path::new("/etc/passwd"), Path::new("/x")).unwrap_err();
        assert!(format!("{error:#}").contains("/etc/passwd"), "{error:#}");
    }
}
