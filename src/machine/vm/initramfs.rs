//! The first root of a guest: debforge itself, kernel modules, and little else.
//!
//! An archive in the format `newc` of cpio, not compressed, which the kernel unpacks before it starts its
//! first process (Documentation/driver-api/early-userspace/buffer-format.rst of Linux).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::modules::Module;
use super::program::{self, Needed};

/// Kinds of files in a mode (inode(7)).
const DIRECTORY: u32 = 0o040_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const REGULAR: u32 = 0o100_000;

/// Name of the last member.
const TRAILER: &str = "TRAILER!!!";

/// Where modules are laid, in the order that they are to be loaded in.
pub const MODULES: &str = "/modules";

/// An initramfs that is put together.
#[derive(Debug, Default)]
pub struct Initramfs {
    entries: Vec<(PathBuf, Entry)>,
    modules: usize,
}

#[derive(Debug)]
enum Entry {
    Device { mode: u32, major: u32, minor: u32 },
    File { mode: u32, contents: Vec<u8> },
    Program(Needed),
    Module(Module),
}

impl Initramfs {
    /// One with the devices that the kernel opens for its first process.
    pub fn new() -> Self {
        let mut new = Self::default();
        // Documentation/admin-guide/devices.txt of Linux.
        new.add("/dev/console", Entry::Device { mode: 0o600, major: 5, minor: 1 });
        new.add("/dev/null", Entry::Device { mode: 0o666, major: 1, minor: 3 });
        new
    }

    /// Adds a program of this machine with all that it needs to run.
    pub fn program(&mut self, program: &Path, at: &Path) -> Result<()> {
        for needed in program::closure(program, at)? {
            if !self.entries.iter().any(|(known, _)| *known == needed.at) {
                self.add(needed.at.clone(), Entry::Program(needed));
            }
        }
        Ok(())
    }

    /// Adds modules, to be loaded after those that are there: `/modules/NNN-NAME.ko`.
    pub fn modules(&mut self, modules: &[Module]) {
        for module in modules {
            self.add(place(self.modules, module), Entry::Module(module.clone()));
            self.modules += 1;
        }
    }

    /// Where modules come to lie that are added to an initramfs without any.
    pub fn paths(modules: &[Module]) -> Vec<PathBuf> {
        modules.iter().enumerate().map(|(number, module)| place(number, module)).collect()
    }

    /// Adds a file, with its permission bits.
    pub fn file(&mut self, at: &Path, mode: u32, contents: Vec<u8>) {
        self.add(at, Entry::File { mode, contents });
    }

    fn add(&mut self, at: impl Into<PathBuf>, entry: Entry) {
        self.entries.push((at.into(), entry));
    }

    /// Writes the archive.
    pub fn write(&self, to: &Path) -> Result<()> {
        let writing = || format!("writing {}", to.display());
        let mut archive =
            Archive { file: BufWriter::with_capacity(1 << 18, File::create(to).with_context(writing)?), inode: 0 };
        let mut directories = BTreeSet::new();
        for (path, _) in &self.entries {
            directories.extend(path.ancestors().skip(1).filter(|parent| parent.parent().is_some()));
        }
        // A directory's name sorts before those of what is in it.
        for directory in directories {
            archive.member(directory, &Head::of(DIRECTORY | 0o755)).with_context(writing)?;
        }
        for (path, entry) in &self.entries {
            archive.entry(path, entry).with_context(|| format!("{} ({})", writing(), path.display()))?;
        }
        archive.finish().with_context(writing)
    }
}

fn place(number: usize, module: &Module) -> PathBuf {
    format!("{MODULES}/{number:03}-{}.ko", module.name).into()
}

/// What a member's header says beside its name and inode.
#[derive(Default)]
struct Head {
    mode: u32,
    size: u64,
    major: u32,
    minor: u32,
}

impl Head {
    fn of(mode: u32) -> Self {
        Self { mode, ..Self::default() }
    }
}

struct Archive {
    file: BufWriter<File>,
    inode: u32,
}

impl Archive {
    fn entry(&mut self, path: &Path, entry: &Entry) -> Result<()> {
        match entry {
            Entry::Device { mode, major, minor } => {
                let head = Head { mode: CHARACTER_DEVICE | mode, size: 0, major: *major, minor: *minor };
                Ok(self.member(path, &head)?)
            }
            Entry::File { mode, contents } => self.bytes(path, *mode, contents),
            Entry::Module(module) => self.bytes(path, 0o644, &module.contents()?),
            Entry::Program(needed) => self.program(path, needed),
        }
    }

    fn bytes(&mut self, path: &Path, mode: u32, contents: &[u8]) -> Result<()> {
        self.member(path, &Head { mode: REGULAR | mode, size: contents.len() as u64, ..Head::default() })?;
        self.file.write_all(contents)?;
        Ok(self.pad(contents.len() as u64)?)
    }

    fn program(&mut self, path: &Path, needed: &Needed) -> Result<()> {
        let source = File::open(&needed.source).with_context(|| format!("reading {}", needed.source.display()))?;
        let mut source = source.take(needed.loaded);
        self.member(path, &Head { mode: REGULAR | 0o755, size: needed.loaded, ..Head::default() })?;
        let mut header = [0; 64];
        source.read_exact(&mut header).context("reading its header")?;
        program::forget_sections(&mut header);
        self.file.write_all(&header)?;
        // Past the buffer, so that the kernel copies.
        self.file.flush()?;
        let copied = io::copy(&mut source, self.file.get_mut())?;
        anyhow::ensure!(copied + 64 == needed.loaded, "the file is cut off");
        Ok(self.pad(needed.loaded)?)
    }

    /// A header: magic, inode, mode, uid, gid, links, mtime, size, device (two numbers), the device that
    /// it is (two), length of the name with its NUL, and a checksum that nobody reads; 8 hex digits each.
    fn member(&mut self, path: &Path, head: &Head) -> io::Result<()> {
        use std::os::unix::ffi::OsStrExt;
        self.inode += 1;
        let name = path.strip_prefix("/").unwrap_or(path).as_os_str().as_bytes();
        let size = u32::try_from(head.size).map_err(|_| io::Error::other("a file of more than 4 GiB"))?;
        let length = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        write!(self.file, "070701")?;
        for field in [self.inode, head.mode, 0, 0, 1, 0, size, 0, 0, head.major, head.minor, length, 0] {
            write!(self.file, "{field:08x}")?;
        }
        self.file.write_all(name)?;
        self.file.write_all(&[0])?;
        self.pad(110 + u64::from(length))
    }

    /// Fills up to a multiple of four bytes after so many.
    fn pad(&mut self, written: u64) -> io::Result<()> {
        let missing = (written.next_multiple_of(4) - written) as usize;
        self.file.write_all(&[0; 3][..missing])
    }

    fn finish(mut self) -> Result<()> {
        self.inode = 0;
        self.member(Path::new(TRAILER), &Head::default())?;
        Ok(self.file.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode, device and contents.
    type Member = (String, u32, (u32, u32), Vec<u8>);

    fn members(archive: &[u8]) -> Vec<Member> {
        let mut all = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(&archive[at..at + 6], b"070701");
            let field = |number: usize| {
                let digits = &archive[at + 6 + number * 8..at + 14 + number * 8];
                u32::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
            };
            let (size, length) = (field(6) as usize, field(11) as usize);
            let name = String::from_utf8(archive[at + 110..at + 110 + length - 1].to_vec()).unwrap();
            let data = (at + 110 + length).next_multiple_of(4);
            if name == TRAILER {
                assert_eq!(data, archive.len());
                return all;
            }
            all.push((name, field(1), (field(9), field(10)), archive[data..data + size].to_vec()));
            at = (data + size).next_multiple_of(4);
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let module = dir.path().join("x.ko.xz");
        std::fs::write(&module, liblzma::encode_all(&b"module"[..], 1).unwrap()).unwrap();
        let mut initramfs = Initramfs::new();
        initramfs.program(Path::new("/proc/self/exe"), Path::new("/debforge")).unwrap();
        let compressed = crate::build::archive::Compression::Xz;
        initramfs.modules(&[Module { name: "x".into(), path: module, compressed }]);
        initramfs.file(Path::new("/etc/a/job.json"), 0o600, b"12345".to_vec());
        let to = dir.path().join("initramfs");
        initramfs.write(&to).unwrap();

        let all = members(&std::fs::read(&to).unwrap());
        let member = |name: &str| all.iter().find(|member| member.0 == name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(member("dev/console").1, 0o020_600);
        assert_eq!(member("dev/console").2, (5, 1));
        assert_eq!(member("dev/null").2, (1, 3));
        assert_eq!(member("etc/a/job.json").3, b"12345");
        assert_eq!(member("modules/000-x.ko").3, b"module");
        let program = member("debforge");
        assert_eq!(program.1, 0o100_755);
        assert!(program.3.starts_with(b"\x7fELF"));
        let place = |name: &str| all.iter().position(|member| member.0 == name).unwrap();
        assert!(place("etc") < place("etc/a") && place("etc/a") < place("etc/a/job.json"));
        let names: BTreeSet<_> = all.iter().map(|member| &member.0).collect();
        assert_eq!(names.len(), all.len(), "a name is there twice");
    }

    #[test]
    fn cpio_reads_it() {
        let Some(cpio) = crate::machine::find_program("cpio") else { return };
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("initramfs");
        let mut initramfs = Initramfs::new();
        initramfs.file(Path::new("/a"), 0o644, b"a".to_vec());
        initramfs.write(&to).unwrap();
        let listed = std::process::Command::new(cpio).args(["-it", "--quiet"]).stdin(File::open(&to).unwrap()).output();
        assert_eq!(String::from_utf8(listed.unwrap().stdout).unwrap(), "dev\ndev/console\ndev/null\na\n");
    }
}
