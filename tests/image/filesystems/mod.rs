//! Each kind of file system, made from a tree and read back by the programs of its own.

mod btrfs;
mod ext;
mod f2fs;
mod fat;
mod read_only;
mod swap;
mod tree;
mod verity;
mod xfs;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use debforge::image::filesystem::{self, Request, Tree};
use debforge::image::{Contents, FilesystemKind, Tool, Tools};
use tempfile::TempDir;

pub use tree::{grow, listing};

pub const UUID: &str = "0d61e1cf-9d2a-5b3e-8f39-0a8b3f4c1d2e";
/// 2024-01-01.
pub const EPOCH: i64 = 1_704_067_200;
/// Where a file system lies in its image.
pub const OFFSET: u64 = 3 << 20;
const MIB: u64 = 1 << 20;

/// Runs programs as they are; what is hidden and replaced is mounted over in a namespace of theirs.
struct PlainTools;

impl PlainTools {
    /// Runs a program that is to see its tree the same on every host, which the sandbox does.
    fn uniform(tool: &Tool, doing: &str) -> Result<String> {
        use debforge::sandbox::{Bind, Command, Exit, Input, Isolation, Sandbox, Stream, View};
        debforge::sandbox::use_program(env!("CARGO_BIN_EXE_debforge"));
        let stand_ins = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let top = tool.uniform.as_ref().map(|uniform| uniform.top.clone());
        let mut seen: Vec<_> = top.map(|top| (top.clone(), top)).into_iter().chain(tool.replaced.clone()).collect();
        for (number, hidden) in tool.hidden.iter().enumerate() {
            let empty = stand_ins.path().join(number.to_string());
            fs::create_dir(&empty)?;
            seen.push((hidden.clone(), empty));
        }
        let command = Command {
            argv: tool.argv.clone(),
            environment: [("LC_ALL", "C.UTF-8"), ("SOURCE_DATE_EPOCH", &EPOCH.to_string())]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into_iter()
                .chain(tool.environment.iter().cloned())
                .collect(),
            directory: None,
            view: View::Host { root: None, writable: vec![env!("CARGO_TARGET_TMPDIR").into()] },
            binds: seen.into_iter().map(|(target, source)| Bind { source, target, read_only: true }).collect(),
            network: false,
            input: Input::Null,
            uniform: tool.uniform.clone(),
            remounts: false,
            told: debforge::sandbox::Told::Constant,
        };
        let isolation = if crate::harness::is_root() { Isolation::Namespaces } else { Isolation::Chroot };
        let (mut text, mut errors) = (String::new(), String::new());
        let exit = Sandbox::new(isolation).run(&command, &mut |stream, line| match stream {
            Stream::Out => text += &format!("{line}\n"),
            Stream::Err => errors += &format!("{line}\n"),
            Stream::Note => panic!("{doing}: {line}"),
        })?;
        ensure!(exit == Exit::Code(0), "{doing}: {:?}: {exit:?}: {text}{errors}", tool.argv);
        Ok(text)
    }
}

impl Tools for PlainTools {
    fn run(&self, tool: &Tool, doing: &str) -> Result<String> {
        if tool.uniform.is_some() {
            return Self::uniform(tool, doing);
        }
        let mut script = String::from("set -e\n");
        let stand_ins = tempfile::tempdir()?;
        for (number, hidden) in tool.hidden.iter().enumerate() {
            let empty = stand_ins.path().join(number.to_string());
            fs::create_dir(&empty)?;
            let meta = fs::metadata(hidden)?;
            std::os::unix::fs::chown(&empty, Some(meta.uid()), Some(meta.gid()))?;
            fs::set_permissions(&empty, meta.permissions())?;
            filetime::set_file_mtime(&empty, filetime::FileTime::from_last_modification_time(&meta))?;
            script += &format!("mount --bind '{}' '{}'\n", empty.display(), hidden.display());
        }
        for (seen, really) in &tool.replaced {
            script += &format!("mount --bind '{}' '{}'\n", really.display(), seen.display());
        }
        let mut command = if tool.hidden.is_empty() && tool.replaced.is_empty() {
            let mut command = Command::new(&tool.argv[0]);
            command.args(&tool.argv[1..]);
            command
        } else {
            let mut command = Command::new("unshare");
            command.args(["--mount", "sh", "-c", &format!("{script}exec \"$@\""), "sh"]).args(&tool.argv);
            command
        };
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("SOURCE_DATE_EPOCH", EPOCH.to_string())
            .envs(tool.environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{doing}: starting {}", tool.argv[0]))?;
        let mut input = child.stdin.take().context("its input")?;
        input.write_all(tool.input.as_deref().unwrap_or_default().as_bytes())?;
        drop(input);
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{doing}: {:?}: {text}{errors}", tool.argv);
        Ok(text)
    }
}

/// A file system of a kind, as a recipe that says little describes it.
pub fn contents(kind: FilesystemKind) -> Contents {
    let uuid = match kind {
        FilesystemKind::Fat12 | FilesystemKind::Fat16 | FilesystemKind::Fat32 => "DEAD-BEEF",
        _ => UUID,
    };
    Contents {
        kind,
        label: "FORGE".into(),
        uuid: uuid.into(),
        features: Vec::new(),
        extended_options: Vec::new(),
        mkfs_options: Vec::new(),
        compression: None,
        subvolumes: Vec::new(),
        fsck: true,
        verity: None,
    }
}

/// An image with one file system in it.
pub struct Made {
    directory: TempDir,
    pub length: u64,
}

impl Made {
    pub fn image(&self) -> PathBuf {
        self.directory.path().join("disk.img")
    }

    /// The file system in a file of its own.
    pub fn alone(&self) -> PathBuf {
        let path = self.directory.path().join("alone.img");
        let source = File::open(self.image()).unwrap();
        let target = File::create(&path).unwrap();
        target.set_len(self.length).unwrap();
        let mut bytes = vec![0; MIB as usize];
        for at in (0..self.length).step_by(MIB as usize) {
            use std::os::unix::fs::FileExt;
            let count = (self.length - at).min(MIB) as usize;
            source.read_exact_at(&mut bytes[..count], OFFSET + at).unwrap();
            if bytes[..count].iter().any(|byte| *byte != 0) {
                target.write_all_at(&bytes[..count], at).unwrap();
            }
        }
        path
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        File::open(self.image()).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Bytes that the image takes on the disk.
    pub fn allocated(&self) -> u64 {
        fs::metadata(self.image()).unwrap().blocks() * 512
    }

    /// What the kernel sees in it; `None`, with the reason printed, where nothing can be mounted.
    pub fn mounted(&self, kind: &str, read: impl FnOnce(&Path)) -> Option<()> {
        let at = self.directory.path().join("mounted");
        fs::create_dir_all(&at).unwrap();
        let alone = self.alone();
        let mount = Command::new("mount").args(["-t", kind, "-o", "ro,loop"]).args([&alone, &at]).output().unwrap();
        if !mount.status.success() {
            crate::harness::skip::note(&format!("mounting {kind}: {}", String::from_utf8_lossy(&mount.stderr).trim()));
            return None;
        }
        let unmount = Unmount(&at);
        read(&at);
        drop(unmount);
        Some(())
    }
}

/// Unmounts even when an assertion fails.
struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

/// How a file system is made.
pub struct Making {
    pub contents: Contents,
    pub tree: Tree,
    pub length: u64,
    pub sector_size: u32,
}

impl Making {
    pub fn of(kind: FilesystemKind, top: &Path, length: u64) -> Self {
        let tree = Tree { top: Some(top.into()), ..Tree::default() };
        Self { contents: contents(kind), tree, length, sector_size: 512 }
    }

    pub fn make(&self) -> Result<Made> {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let made = Made { directory, length: self.length };
        let image = made.image();
        File::create(&image)?.set_len(OFFSET + self.length + MIB)?;
        self.request(&image, filesystem::make)?;
        Ok(made)
    }

    pub fn minimum(&self) -> u64 {
        self.request(Path::new("/nonexistent"), filesystem::minimum).unwrap()
    }

    pub fn request<T>(&self, image: &Path, run: impl FnOnce(&Request<'_>) -> Result<T>) -> Result<T> {
        let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        run(&Request {
            name: "root",
            contents: &self.contents,
            tree: &self.tree,
            image,
            offset: OFFSET,
            length: self.length,
            sector_size: self.sector_size,
            epoch: EPOCH,
            scratch: scratch.path(),
            tools: &PlainTools,
        })
    }

    /// What a making that cannot be says.
    pub fn fault(&self) -> String {
        let error = self.make().err().expect("it was made");
        let fault = debforge::diagnostics::fault_of(&error);
        fault.hints.iter().fold(fault.message, |text, hint| format!("{text}\nhint: {hint}"))
    }
}

/// Runs a program and returns what it prints; it must succeed.
pub fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).env("LC_ALL", "C.UTF-8").env("TZ", "UTC").output();
    let output = output.unwrap_or_else(|error| panic!("starting {program}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?} ended with {}: {text}", output.status);
    text
}

/// A directory for trees.
pub fn workshop() -> TempDir {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

/// The same on another file system, where the machine has one that holds all that files have.
pub fn elsewhere() -> TempDir {
    let directory = tempfile::tempdir_in("/dev/shm").ok();
    directory.filter(|it| xattr::set(it.path(), "user.test", b"").is_ok()).unwrap_or_else(workshop)
}

/// Makes the same file system from two copies of a tree that came to be in another way: the bytes
/// must be the same.
pub fn same_twice(making: impl Fn(&Path) -> Making) -> Made {
    same_twice_of(grow, making)
}

/// The same of trees that `grow` makes one way or the other.
pub fn same_twice_of(grow: impl Fn(&Path, bool), making: impl Fn(&Path) -> Making) -> Made {
    let (directory, elsewhere) = (workshop(), elsewhere());
    let [one, other] = [directory.path().join("one"), elsewhere.path().join("other/elsewhere")];
    grow(&one, false);
    let first = making(&one).make().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    grow(&other, true);
    let second = making(&other).make().unwrap();
    let (a, b) = (first.bytes(), second.bytes());
    let different = a.iter().zip(&b).position(|(a, b)| a != b);
    assert_eq!(different.map(|at| format!("{at:#x}")), None, "bytes differ from here");
    let outside = a[..OFFSET as usize].iter().chain(&a[(OFFSET + first.length) as usize..]).any(|byte| *byte != 0);
    assert!(!outside, "it wrote outside its place");
    first
}

/// Compares listings line by line.
pub fn same(expected: &str, found: &str) {
    for (expected, found) in expected.lines().zip(found.lines()) {
        assert_eq!(expected, found);
    }
    assert_eq!(expected.lines().count(), found.lines().count());
}
