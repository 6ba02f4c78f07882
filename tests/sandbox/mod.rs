//! What needs root or user namespaces: the sandbox and the engine's process.

mod chroot;
mod foreign;
mod host;
mod inner;
mod kill;
mod local;
mod output;
mod plain;
mod uniform;

use std::path::{Path, PathBuf};

use anyhow::Result;
use debforge::sandbox::{Bind, Command, Exit, Input, Isolation, Sandbox, Stream, Told, View};

use crate::harness::fixture::tiny_root;

/// The debforge under test; another copy of it where the tests run as somebody else.
fn use_program() {
    let program = std::env::var_os("DEBFORGE_TEST_PROGRAM");
    debforge::sandbox::use_program(program.unwrap_or_else(|| env!("CARGO_BIN_EXE_debforge").into()));
}

/// A directory on a real file system.
fn directory() -> tempfile::TempDir {
    let parent = std::env::var_os("DEBFORGE_TEST_DIR").map_or_else(crate::harness::user::work_dir, PathBuf::from);
    tempfile::Builder::new().prefix("sandbox-").tempdir_in(parent).unwrap()
}

/// Whether this process can be root over mounts, as the engine is.
fn mounts_allowed() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or("0").trim();
    // CAP_SYS_ADMIN is bit 21 (capabilities(7)).
    u64::from_str_radix(effective, 16).is_ok_and(|bits| bits & (1 << 21) != 0)
}

/// Ends a test where it cannot run.
macro_rules! needs_mounts {
    () => {
        if !super::mounts_allowed() {
            skip!("needs root, or a user namespace");
        }
    };
}
use needs_mounts;

/// Ends a test where there is no small root to run in.
macro_rules! tiny {
    () => {
        match super::Tiny::new() {
            Some(tiny) => tiny,
            None => skip!("needs a static busybox (package busybox-static)"),
        }
    };
}
use tiny;

/// A small root of busybox.
struct Tiny {
    dir: tempfile::TempDir,
}

impl Tiny {
    fn new() -> Option<Self> {
        let archive = tiny_root()?;
        let dir = directory();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        let mut archive = tar::Archive::new(archive.as_slice());
        archive.set_preserve_permissions(true);
        archive.unpack(dir.path().join("root")).unwrap();
        Some(Self { dir })
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// A file or directory beside the root.
    fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A shell script in the root.
    fn script(&self, script: &str) -> Command {
        command(&["sh", "-c", script], View::Chroot { root: self.root() })
    }

    /// Everything in the root with its modification time, to be the same before and after.
    fn listing(&self) -> Vec<String> {
        walkdir::WalkDir::new(self.root())
            .sort_by_file_name()
            .into_iter()
            .map(|entry| {
                let entry = entry.unwrap();
                let meta = entry.metadata().unwrap();
                format!("{} {:?} {}", entry.path().display(), meta.modified().unwrap(), meta.len())
            })
            .collect()
    }
}

/// Asserts that nothing was added, removed or changed.
#[track_caller]
fn assert_same(before: &[String], after: &[String]) {
    let only = |these: &[String], those: &[String]| {
        these.iter().filter(|line| !those.contains(line)).cloned().collect::<Vec<_>>().join("\n")
    };
    assert!(before == after, "before:\n{}\nafter:\n{}", only(before, after), only(after, before));
}

impl Drop for Tiny {
    fn drop(&mut self) {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        if mounts.contains(&*self.dir.path().to_string_lossy()) {
            self.dir.disable_cleanup(true);
            assert!(std::thread::panicking(), "mounts left below {}:\n{mounts}", self.dir.path().display());
        }
    }
}

fn command(argv: &[&str], view: View) -> Command {
    Command {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        environment: [("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned())].into(),
        directory: None,
        view,
        binds: Vec::new(),
        network: false,
        input: Input::Null,
        uniform: None,
        remounts: false,
        told: Told::Constant,
    }
}

fn bind(source: &Path, target: impl AsRef<Path>, read_only: bool) -> Bind {
    Bind { source: source.into(), target: target.as_ref().into(), read_only }
}

/// Runs it in namespaces; errors lines are marked with `!`.
fn run(command: &Command) -> Result<(Exit, String)> {
    run_in(Isolation::Namespaces, command)
}

fn run_in(isolation: Isolation, command: &Command) -> Result<(Exit, String)> {
    use_program();
    let mut output = String::new();
    let exit = Sandbox::new(isolation).run(command, &mut |stream, line| {
        output.push_str(if stream == Stream::Err { "!" } else { "" });
        output.push_str(line);
        output.push('\n');
    })?;
    Ok((exit, output))
}

/// Runs what is expected to end well and gives its output.
#[track_caller]
fn output_of(command: &Command) -> String {
    let (exit, output) = run(command).unwrap();
    assert_eq!(exit, Exit::Code(0), "{output}");
    output
}
