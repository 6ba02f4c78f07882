//! A recipe with its files, built by the real debforge in a directory and a store of its own.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use super::filter::filtered;
use super::leftover::leftovers;
use super::user::{User, work_dir};

/// A directory with a recipe. When dropped, nothing may be left mounted or running in it.
pub struct Project {
    dir: tempfile::TempDir,
    user: User,
    store: PathBuf,
    environment: Vec<(String, String)>,
}

impl Default for Project {
    fn default() -> Self {
        Self::new()
    }
}

impl Project {
    /// An empty one, for whoever runs the tests.
    pub fn new() -> Self {
        Self::of(User::current())
    }

    /// An empty one that belongs to a user, who also runs debforge in it.
    pub fn of(user: User) -> Self {
        let dir = tempfile::Builder::new().prefix("project-").tempdir_in(work_dir()).expect("making a project");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("making a project");
        let project = Self { store: dir.path().join("store"), dir, user, environment: Vec::new() };
        project.own(project.dir.path());
        for name in ["home", "store"] {
            fs::create_dir(project.path(name)).expect("making a project");
            project.own(&project.path(name));
        }
        project
    }

    /// The same with `recipe.yaml`.
    #[must_use]
    pub fn recipe(self, text: &str) -> Self {
        self.file("recipe.yaml", text)
    }

    /// The same with a file.
    #[must_use]
    pub fn file(self, path: &str, text: impl AsRef<[u8]>) -> Self {
        self.write(path, text);
        self
    }

    /// The same with a variable in debforge's environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<Path>) -> Self {
        self.environment.push((name.into(), value.as_ref().display().to_string()));
        self
    }

    /// The same with a store that outlives the project, so that what is slow to make is made once;
    /// a user's builds share one. Not for tests that count hits of what others make too. Another
    /// build of the program gets another store: a test that finds its result there proves nothing.
    #[must_use]
    pub fn shared_store(self) -> Self {
        self.kept_store("store")
    }

    fn kept_store(mut self, kind: &str) -> Self {
        let prefix = format!("{kind}-{}-", self.user.uid);
        let name = format!("{prefix}{}", program_digest());
        remove_old_stores(&prefix, &name);
        self.store = work_dir().join(name);
        fs::create_dir_all(&self.store).expect("making the shared store");
        self.own(&self.store);
        let now = fs::FileTimes::new().set_modified(SystemTime::now());
        fs::File::open(&self.store).and_then(|dir| dir.set_times(now)).expect("marking the shared store as used");
        self
    }

    /// The same with the kernel of a kind of machines in its store. It is fetched once for all tests; where it
    /// cannot be, the project's builds will say so.
    #[must_use]
    pub fn kernel_of(self, machine: &str) -> Self {
        let fetching = Self::new().kept_store(&format!("kernel-{machine}"));
        let layout = fetching.store.join("v1");
        let lock = fs::File::create(work_dir().join("kernel.lock")).expect("the kernels' lock");
        lock.lock().expect("the kernels' lock");
        if !layout.join("state/kernel").exists() {
            let _ = fetching
                .recipe(&format!(
                    "architecture: {}\nactions: [{{ action: run, command: 'true' }}]\n",
                    debforge::debian::Architecture::host()
                ))
                .run(["check", "recipe.yaml", "-b", machine]);
        }
        // What the store knows of it and the directories that hold it.
        for name in ["facts", "state/kernel", "state/kernel-image"] {
            let (from, to) = (layout.join(name), self.store.join("v1").join(name));
            if from.exists() {
                fs::create_dir_all(&to).expect("making a store");
                let copied = Command::new("cp").args(["-a", "--reflink=auto", "-T"]).args([&from, &to]).status();
                assert!(copied.is_ok_and(|status| status.success()), "copying {}", from.display());
            }
        }
        if self.user != User::current() {
            let owner = format!("{}:{}", self.user.uid, self.user.gid);
            let given = Command::new("chown").args(["-R", &owner]).arg(&self.store).status();
            assert!(given.is_ok_and(|status| status.success()), "giving a store to the test's user");
        }
        self
    }

    /// The same with a recipe that begins with a tiny root (busybox and little else), unpacked from
    /// `root.tar`; `actions` follow. `None` where there is no static busybox.
    pub fn tiny(self, actions: &str) -> Option<Self> {
        let project = self.file("root.tar", super::fixture::tiny_root()?);
        project.set_actions(actions);
        Some(project)
    }

    /// Writes another recipe of the kind that [`Project::tiny`] makes.
    pub fn set_actions(&self, actions: &str) {
        // A text in a test begins best on a line of its own.
        let actions = actions.trim_start_matches('\n');
        let architecture = debforge::debian::Architecture::host();
        self.write(
            "recipe.yaml",
            format!(
                "architecture: {architecture}\nactions:\n  - action: unpack\n    origin: recipe\n    file: root.tar\n{actions}"
            ),
        );
    }

    /// Writes a file, with its directories.
    pub fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let full = self.path(path);
        let mut made = Vec::new();
        let mut parent = full.parent();
        while let Some(dir) = parent.filter(|dir| !dir.exists()) {
            made.push(dir.to_owned());
            parent = dir.parent();
        }
        if let Some(dir) = full.parent() {
            fs::create_dir_all(dir).expect("writing a project's file");
        }
        fs::write(&full, text).expect("writing a project's file");
        for path in made.iter().chain([&full]) {
            self.own(path);
        }
    }

    /// Sets a file's mode.
    pub fn chmod(&self, path: &str, mode: u32) {
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(mode)).expect("changing a mode");
    }

    /// The text of a file.
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("reading {path}: {error}"))
    }

    /// A path in the project.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Who runs debforge.
    pub fn user(&self) -> &User {
        &self.user
    }

    /// The store that builds of the project use.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// debforge with arguments, in the project's directory, artifacts going to `out/`; not yet run.
    pub fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let program = self.user.reachable(Path::new(env!("CARGO_BIN_EXE_debforge")));
        self.as_user([program].into_iter().chain(args.into_iter().map(PathBuf::from)))
    }

    /// A command of the project's user in its directory.
    fn as_user(&self, words: impl IntoIterator<Item = PathBuf>) -> Command {
        let mut words = words.into_iter();
        let mut command = self.user.command(words.next().expect("a program"));
        command
            .args(words)
            .current_dir(self.dir.path())
            .env("HOME", self.path("home"))
            .env("DEBFORGE_STORE", &self.store)
            .env("RUST_BACKTRACE", "0")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs debforge to its end: `project.run(["build", "recipe.yaml"])`.
    pub fn run<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Finished {
        let args: Vec<&str> = args.into_iter().collect();
        let output = self.command(args.iter().copied()).output().expect("starting debforge");
        self.finished(&args, output)
    }

    /// Builds `recipe.yaml` into `out/`, with further arguments.
    pub fn build<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Finished {
        self.run(["build", "recipe.yaml", "--artifactdir", "out"].into_iter().chain(args))
    }

    /// Runs debforge behind another program: `run_behind(["unshare", "--net"], ["check", "recipe.yaml"])`.
    pub fn run_behind<'a>(
        &self,
        before: impl IntoIterator<Item = &'a str>,
        args: impl IntoIterator<Item = &'a str>,
    ) -> Finished {
        let args: Vec<&str> = args.into_iter().collect();
        let inner = self.command(args.iter().copied());
        let mut before = before.into_iter();
        let mut outer = Command::new(before.next().expect("a program"));
        outer.args(before).arg(inner.get_program()).args(inner.get_args()).current_dir(self.dir.path()).env_clear();
        outer.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = outer.stdin(Stdio::null()).output().expect("starting debforge");
        self.finished(&args, output)
    }

    /// Runs debforge behind a program that the project's user starts, as those of [`super::confinement`].
    pub fn run_inside<'a>(&self, before: &[String], args: impl IntoIterator<Item = &'a str>) -> Finished {
        let args: Vec<&str> = args.into_iter().collect();
        let program = self.user.reachable(Path::new(env!("CARGO_BIN_EXE_debforge")));
        let words = before.iter().map(PathBuf::from).chain([program]).chain(args.iter().map(PathBuf::from));
        let mut command = self.as_user(words);
        let mut finished = self.finished(&args, command.output().expect("starting debforge"));
        // A test that becomes the program has been announced on its standard output.
        if let Some(rest) = finished.stdout.strip_prefix("\nrunning 1 test\n") {
            finished.stdout = rest.to_owned();
        }
        finished
    }

    /// Runs debforge with a text on its standard input.
    pub fn run_with_input<'a>(&self, args: impl IntoIterator<Item = &'a str>, input: &str) -> Finished {
        let args: Vec<&str> = args.into_iter().collect();
        let mut child = self.command(args.iter().copied()).stdin(Stdio::piped()).spawn().expect("starting debforge");
        // A program that does not read its input is no reason to fail here.
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).ok();
        let output = child.wait_with_output().expect("waiting for debforge");
        self.finished(&args, output)
    }

    /// Starts debforge; see [`Running`].
    pub fn start<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Running<'_> {
        self.start_with(args, |_| {})
    }

    /// Starts debforge as [`Project::start`] does, with something changed about it first.
    pub fn start_with<'a>(
        &self,
        args: impl IntoIterator<Item = &'a str>,
        change: impl FnOnce(&mut Command),
    ) -> Running<'_> {
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        let mut command = self.command(args.iter().map(String::as_str));
        change(&mut command);
        Running { project: self, child: Some(command.spawn().expect("starting debforge")), args }
    }

    /// Starts debforge behind a program that the project's user starts, as [`Project::run_inside`] runs it.
    pub fn start_inside<'a>(&self, before: &[String], args: impl IntoIterator<Item = &'a str>) -> Running<'_> {
        let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
        let program = self.user.reachable(Path::new(env!("CARGO_BIN_EXE_debforge")));
        let words = before.iter().map(PathBuf::from).chain([program]).chain(args.iter().map(PathBuf::from));
        let child = self.as_user(words).spawn().expect("starting debforge");
        Running { project: self, child: Some(child), args }
    }

    /// What still holds something of the project: empty for a clean one.
    pub fn leftovers(&self) -> Vec<String> {
        leftovers(self.dir.path())
    }

    fn finished(&self, args: &[&str], output: Output) -> Finished {
        Finished {
            command: format!("debforge {}", args.join(" ")),
            project: self.dir.path().into(),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn own(&self, path: &Path) {
        if self.user != User::current() {
            chown(path, Some(self.user.uid), Some(self.user.gid)).expect("giving a file to the test's user");
        }
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        let left = self.leftovers();
        if !left.is_empty() {
            // Deleting below a mount that is still there would delete what is mounted.
            self.dir.disable_cleanup(true);
        } else if !self.user.is_root() {
            // Files of subordinate ids are not the user's to delete; they are root's, or debforge's own.
            let _ = self.run(["store", "clear"]);
        }
        if !left.is_empty() && !std::thread::panicking() {
            panic!("left behind:\n{}", left.join("\n"));
        }
    }
}

/// A debforge that runs.
pub struct Running<'a> {
    project: &'a Project,
    child: Option<Child>,
    args: Vec<String>,
}

impl Running<'_> {
    /// Waits until `ready` holds; panics after a minute, or when debforge ends before.
    pub fn wait_until(&mut self, what: &str, mut ready: impl FnMut() -> bool) {
        let child = self.child.as_mut().expect("a child");
        for _ in 0..6000 {
            if ready() {
                return;
            }
            if let Some(status) = child.try_wait().expect("waiting for debforge") {
                let output = self.child.take().expect("a child").wait_with_output().expect("reading debforge's output");
                panic!("debforge ended ({status}) before {what}:\n{}", String::from_utf8_lossy(&output.stderr));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{what} did not happen within a minute");
    }

    /// Its process id.
    pub fn pid(&self) -> nix::unistd::Pid {
        let id = self.child.as_ref().expect("a child").id();
        nix::unistd::Pid::from_raw(i32::try_from(id).expect("a process id"))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(self.pid(), signal).expect("sending a signal to debforge");
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Finished {
        let output = self.child.take().expect("a child").wait_with_output().expect("waiting for debforge");
        let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        self.project.finished(&args, output)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a run of debforge came to. Its assertions show all of it when they fail.
#[derive(Debug, Clone)]
pub struct Finished {
    command: String,
    project: PathBuf,
    /// Exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Standard output as it was.
    pub stdout: String,
    /// Standard error as it was.
    pub stderr: String,
}

impl Finished {
    /// Of a command that a test started itself.
    pub fn of(project: &Project, words: &[String], output: &Output) -> Self {
        Self {
            command: words.join(" "),
            project: project.dir.path().into(),
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn code(self, expected: i32) -> Self {
        assert_eq!(self.code, Some(expected), "exit code of {self}");
        self
    }

    /// Asserts that the run went well.
    #[track_caller]
    pub fn success(self) -> Self {
        self.code(0)
    }

    /// Asserts a part of standard error (filtered, see [`filtered`]).
    #[track_caller]
    pub fn says(self, part: &str) -> Self {
        assert!(self.stderr_filtered().contains(part), "`{part}` on standard error of {self}");
        self
    }

    /// Asserts that something is not on standard error.
    #[track_caller]
    pub fn says_nothing_of(self, part: &str) -> Self {
        assert!(!self.stderr_filtered().contains(part), "no `{part}` on standard error of {self}");
        self
    }

    /// How each step came to its result, in order: `ran`, `cached` or `not-needed`. For runs with `--json`.
    #[track_caller]
    pub fn outcomes(&self) -> Vec<String> {
        let outcome = |event: serde_json::Value| Some(event["outcome"].as_str()?.to_owned());
        self.events().into_iter().filter(|event| event["event"] == "step-finished").filter_map(outcome).collect()
    }

    /// The events of a run with `--json`.
    #[track_caller]
    pub fn events(&self) -> Vec<serde_json::Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}\n{self}"));
        self.stdout.lines().map(parse).collect()
    }

    /// Asserts a part of standard output.
    #[track_caller]
    pub fn prints(self, part: &str) -> Self {
        assert!(self.stdout.contains(part), "`{part}` on standard output of {self}");
        self
    }

    /// Standard error with what differs from run to run replaced, for snapshots.
    pub fn stderr_filtered(&self) -> String {
        filtered(&self.stderr, &self.project)
    }

    /// Standard output likewise.
    pub fn stdout_filtered(&self) -> String {
        filtered(&self.stdout, &self.project)
    }

    /// Exit code, output and messages as one text, for snapshots.
    pub fn transcript(&self) -> String {
        format!(
            "$ {}\n--- exit code {}\n--- standard output\n{}--- standard error\n{}",
            filtered(&self.command, &self.project),
            self.code.map_or_else(|| "none".into(), |code| code.to_string()),
            self.stdout_filtered(),
            self.stderr_filtered()
        )
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}` (in {})\nexit code: {:?}\n--- standard output\n{}\n--- standard error\n{}",
            self.command,
            self.project.display(),
            self.code,
            self.stdout,
            self.stderr
        )
    }
}

/// What names the program under test.
fn program_digest() -> &'static str {
    static DIGEST: OnceLock<String> = OnceLock::new();
    DIGEST.get_or_init(|| {
        let program = fs::read(env!("CARGO_BIN_EXE_debforge")).expect("reading the program");
        blake3::hash(&program).to_hex()[..12].to_owned()
    })
}

/// Removes stores of programs that are no longer tested, as far as this user may.
fn remove_old_stores(prefix: &str, current: &str) {
    let unused = |path: &Path| {
        let used = fs::metadata(path).and_then(|stat| stat.modified()).ok();
        used.and_then(|time| time.elapsed().ok()).is_some_and(|age| age > Duration::from_secs(2 * 3600))
    };
    for entry in fs::read_dir(work_dir()).expect("reading the tests' directory").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(prefix) && name != current && unused(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
