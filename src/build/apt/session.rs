//! One use of apt against one root.

use std::collections::HashMap;
use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use anyhow::{Context, Result, bail};

use super::{Access, explain, lists, unavailable};
use crate::build::BuildContext;
use crate::build::files::RootFiles;
use crate::debian::package_list::{self, Package};
use crate::debian::sources::Sources;
use crate::diagnostics::{Fault, FaultKind, fault_of};
use crate::sandbox::{Bind, Command, Exit, Input, Isolation, Told, View};
use crate::store::StateDir;
use crate::store::fetch::Request;

/// Downloads at once.
pub(super) const CONNECTIONS: usize = 8;

/// What apt is told beside its arguments.
#[derive(Clone, Default)]
pub struct Options {
    /// Whether recommended packages are taken too.
    pub recommends: bool,
    /// Whether the signatures of repositories are not looked at.
    pub unauthenticated: bool,
    /// How to get at repositories.
    pub access: Access,
    /// Whether maintainer scripts have the network.
    pub network: bool,
    /// Architectures that the root will have beside its own, where it is still to be made.
    pub foreign: Vec<String>,
    /// Lines of apt.conf(5), `APT::Default-Release "trixie";`: after everything else.
    pub config: Vec<String>,
}

/// What apt takes to be installed already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// Nothing: a bootstrap. The root's own configuration is not looked at either.
    Empty,
    /// The packages of the root.
    Root,
}

/// A package that apt wants to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageFile {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `amd64`, `all`.
    pub architecture: String,
    /// Where it is.
    pub url: String,
    /// Name that apt looks for in its archive directory.
    pub file_name: String,
    /// In bytes.
    pub size: u64,
    /// Lower-case hex. It is what ties the file to the verified Release file.
    pub sha256: String,
}

/// apt, its sources and its state.
pub struct Apt<'a> {
    pub(super) cx: &'a BuildContext<'a>,
    pub(super) sources: Sources,
    pub(super) options: Options,
    pub(super) directory: PathBuf,
    /// Where apt, and dpkg in the root, see [`Apt::archives`].
    pub(super) debs: PathBuf,
    pub(super) architectures: Vec<String>,
    state: Option<StateDir>,
}

impl<'a> Apt<'a> {
    /// A session with these repositories, whose states the step's inputs have (see
    /// [`super::add_repositories`]); files of its own go below the step's scratch directory.
    pub fn open(cx: &'a BuildContext<'a>, sources: Sources, options: Options) -> Result<Self> {
        if sources.0.is_empty() {
            return Err(lists::none().into());
        }
        let directory = tempfile::Builder::new().prefix("apt-").tempdir_in(cx.scratch).context("opening apt")?.keep();
        for part in ["cache", "debs/archives/partial", "debs/local", "etc/apt.conf.d", "state", "log"] {
            fs::create_dir_all(directory.join(part)).context("opening apt")?;
        }
        fs::write(directory.join("status"), "").context("opening apt")?;
        let mut architectures = lists::architectures(cx.root, cx.architecture);
        architectures.extend(options.foreign.iter().cloned());
        let debs = Path::new("/tmp").join(directory.file_name().context("opening apt")?);
        Ok(Self { cx, sources, options, directory, debs, architectures, state: None })
    }

    /// Brings the package lists to the planned states of the repositories.
    pub fn update(&mut self) -> Result<()> {
        let plan =
            lists::Plan { sources: &self.sources, architectures: &self.architectures, access: &self.options.access };
        let state = lists::state_directory(self.cx, &plan, &|state| self.make_cache(state))?;
        self.state = Some(state);
        Ok(())
    }

    /// Makes [`Base::Empty`] begin with these packages (paragraphs of dpkg's status) from here on.
    pub fn assume_installed(&self, status: &str) -> Result<()> {
        fs::write(self.directory.join("status"), status).context("telling apt what is installed")
    }

    /// Has apt read the indexes once, for all that use the state directory later.
    fn make_cache(&self, state: &Path) -> Result<()> {
        self.cx.progress("reading package lists", None);
        let argv = vec!["apt-cache".into(), "gencaches".into()];
        let output = self.ask(state, Base::Empty, argv, "apt could not read the package lists")?;
        output.iter().for_each(|line| self.cx.log(line));
        Ok(())
    }

    /// The packages that `apt-get ARGS` (`["install", "bash"]`) would fetch, in apt's order.
    pub fn resolve<S: AsRef<str>>(&self, base: Base, args: &[S]) -> Result<Vec<PackageFile>> {
        let args: Vec<String> = args.iter().map(|arg| arg.as_ref().to_owned()).collect();
        let question = |quiet: &str, args: &[String]| {
            let words = ["apt-get", "--print-uris", quiet, "-y"].map(str::to_owned);
            words.into_iter().chain(args.iter().cloned()).collect()
        };
        let (exit, mut output) = self.asked(self.state()?, base, question("-qq", &args))?;
        if exit != Exit::Code(0) {
            // Asked more loudly, apt says what does not fit, and of that again what does not.
            let unmet =
                explain::chain(&args, &mut |args| Ok(self.asked(self.state()?, base, question("-q", args))?.1))?;
            let wanted = explain::wanted_for(&args, &unmet, &self.needs()?);
            output.splice(0..0, unmet);
            output.retain(|line| !line.starts_with("W: Unable to read"));
            let mut fault = fault_of(&self.refusal("apt could not choose the packages", &output));
            fault.hints.splice(0..0, wanted.into_iter().map(|path| format!("it is wanted as {path}")));
            return Err(fault.into());
        }
        // Files that were given by name are there already.
        let own = format!("'file:{}/", self.debs.display());
        let lines = output.iter().filter(|line| !line.starts_with(&own));
        lines.filter_map(|line| parse_uri_line(line).transpose()).collect()
    }

    /// All packages of the lists, with the names of those that they need.
    fn needs(&self) -> Result<Vec<(String, Vec<String>)>> {
        let mut all = Vec::new();
        self.each_package(&mut |package| all.push((package.name, package.needs)))?;
        Ok(all)
    }

    /// Hands over all packages of the lists, of the root's own architecture and of all architectures.
    pub fn each_package(&self, take: &mut dyn FnMut(Package)) -> Result<()> {
        for entry in fs::read_dir(self.state()?.join("lists")).context("reading the package lists")? {
            let path = entry.context("reading the package lists")?.path();
            if path.to_string_lossy().ends_with("_Packages") {
                let index = BufReader::new(fs::File::open(&path).context("reading the package lists")?);
                package_list::each_package(index, take).context("reading the package lists")?;
            }
        }
        Ok(())
    }

    /// Takes packages into the store, several at once; their files there, in the same order.
    pub fn fetch(&self, packages: &[PackageFile]) -> Result<Vec<PathBuf>> {
        let total: u64 = packages.iter().map(|package| package.size).sum();
        let count = packages.len();
        let bytes = AtomicU64::new(0);
        let started = std::time::Instant::now();
        let paths = in_parallel(
            CONNECTIONS,
            packages,
            |package| {
                let request = self.options.access.request(&package.url, Some(package.sha256.clone()));
                let request = Request { limit: Some(package.size), ..request };
                let mut before = 0;
                let fetched = self
                    .cx
                    .store
                    .fetch(&request, &mut |now, _| {
                        bytes.fetch_add(now.saturating_sub(before), Ordering::Relaxed);
                        before = before.max(now);
                    })
                    .map_err(|error| {
                        unavailable(&format!("the package {} {}", package.name, package.version), &error)
                    })?;
                if fetched.size != package.size {
                    let (got, size) = (fetched.size, package.size);
                    bail!("{} has {got} bytes where the package list says {size}", package.file_name);
                }
                Ok(fetched.path)
            },
            |done| {
                let rate = bytes.load(Ordering::Relaxed) as f64 / 1e6 / started.elapsed().as_secs_f64().max(0.001);
                let message = format!("downloading {done}/{count}, {:.0} MB, {rate:.1} MB/s", total as f64 / 1e6);
                self.cx.progress(message, Some((done as u64, count as u64)));
            },
        )?;
        Ok(paths)
    }

    /// The state directory of the store.
    pub(super) fn state(&self) -> Result<&Path> {
        self.state.as_ref().map(|state| state.path.as_path()).context("apt is asked before its lists are there")
    }

    /// Runs a command of apt that only reads, on the host, and returns its output.
    fn ask(&self, state: &Path, base: Base, argv: Vec<String>, doing: &str) -> Result<Vec<String>> {
        let (exit, output) = self.asked(state, base, argv)?;
        if exit == Exit::Code(0) { Ok(output) } else { Err(self.refusal(doing, &output)) }
    }

    /// What a command that failed means.
    fn refusal(&self, doing: &str, output: &[String]) -> anyhow::Error {
        output.iter().for_each(|line| self.cx.log(line));
        if crate::build::interrupted() {
            return Fault::new(FaultKind::Interrupted, "interrupted").into();
        }
        let mut fault = explain::explain(doing, output, || self.names());
        self.point_out(output, &mut fault);
        fault.into()
    }

    /// The same, and how it ended.
    fn asked(&self, state: &Path, base: Base, mut argv: Vec<String>) -> Result<(Exit, Vec<String>)> {
        let mut environment = self.cx.process_environment();
        if let Base::Root = base {
            // Even where apt is only asked, it notes which packages were wanted by name.
            let copy = self.directory.join("noted");
            if let Some(noted) = RootFiles::open(self.cx.root)?.bytes("/var/lib/apt/extended_states")? {
                fs::write(&copy, noted).with_context(|| format!("writing {}", copy.display()))?;
            }
            argv.insert(1, format!("--option=Dir::State::extended_states={}", copy.display()));
        }
        self.configure(state, base, "ask", &[], &mut argv, &mut environment)?;
        let settings = self.host_settings()?;
        // The view hides the host's temporary directories, which any of these may be in.
        let mut binds = vec![
            self.archives(),
            Bind { source: state.into(), target: state.into(), read_only: self.state.is_some() },
            Bind { source: self.cx.root.into(), target: self.cx.root.into(), read_only: true },
        ];
        if self.cx.sandbox.isolation == Isolation::Namespaces {
            binds.push(Bind { source: settings.clone(), target: "/etc".into(), read_only: true });
        }
        // The root's own configuration names programs that apt runs.
        let writable = vec![self.cx.scratch.into()];
        let command = Command {
            argv,
            environment,
            directory: None,
            view: View::HostPrograms { root: None, writable, settings, hidden: Vec::new() },
            binds,
            network: false,
            input: Input::Null,
            uniform: None,
            remounts: false,
            told: Told::Constant,
        };
        let mut output = Vec::new();
        let exit = self
            .cx
            .sandbox
            .run(&command, &mut |_, line| output.push(line.to_owned()))
            .with_context(|| format!("starting `{}`", command.argv[0]))?;
        Ok((exit, output))
    }

    /// Where apt finds packages, as it sees them.
    pub(super) fn archives(&self) -> Bind {
        Bind { source: self.directory.join("debs"), target: self.debs.clone(), read_only: false }
    }

    /// Names of the lists' packages, for suggestions.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        // Without the lists there are no suggestions, which is no fault of its own.
        let _ = self.each_package(&mut |package| names.push(package.name));
        names
    }
}

/// Reads a line of `--print-uris`: `'http://…/a_1%3a2_amd64.deb' a_1%3a2_amd64.deb 123 SHA256:…`.
fn parse_uri_line(line: &str) -> Result<Option<PackageFile>> {
    let Some((url, rest)) = line.strip_prefix('\'').and_then(|rest| rest.split_once('\'')) else { return Ok(None) };
    let mut words = rest.split_whitespace();
    let (Some(file_name), Some(size)) = (words.next(), words.next()) else {
        bail!("apt said `{line}`, which has no size");
    };
    let hashes: HashMap<_, _> = words.filter_map(|word| word.split_once(':')).collect();
    let stem = file_name.strip_suffix(".deb").unwrap_or(file_name);
    let mut parts = stem.split('_').map(|part| part.replace("%3a", ":").replace("%7e", "~"));
    let (Some(name), Some(version), Some(architecture)) = (parts.next(), parts.next(), parts.next()) else {
        bail!("apt said `{line}`, which names no package");
    };
    let sha256 = hashes.get("SHA256").with_context(|| {
        format!("the repository has no SHA-256 for {file_name}, so nothing says that it is the right file")
    })?;
    Ok(Some(PackageFile {
        name,
        version,
        architecture,
        url: url.to_owned(),
        file_name: file_name.to_owned(),
        size: size.parse().with_context(|| format!("apt said `{line}`"))?,
        sha256: sha256.to_ascii_lowercase(),
    }))
}

/// Works on all items with several threads; the results in the items' order, or the first error.
/// `progress` is told on this thread how many are done, several times a second.
pub(crate) fn in_parallel<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
    progress: impl Fn(usize),
) -> Result<Vec<R>> {
    let next = AtomicUsize::new(0);
    let done = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let results: Mutex<Vec<Option<Result<R>>>> = Mutex::new(items.iter().map(|_| None).collect());
    let poisoned = "a download thread has ended in panic";
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.min(items.len()))
            .map(|_| {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) && !crate::build::interrupted() {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(item) = items.get(index) else { break };
                        let result = work(item);
                        stop.fetch_or(result.is_err(), Ordering::Relaxed);
                        if let Ok(mut results) = results.lock() {
                            results[index] = Some(result);
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            progress(done.load(Ordering::Relaxed));
            for _ in 0..10 {
                if threads.iter().all(|thread| thread.is_finished()) {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    });
    let mut all = Vec::with_capacity(items.len());
    let mut missing = false;
    for result in results.into_inner().map_err(|_| anyhow::anyhow!(poisoned))? {
        match result {
            Some(result) => all.push(result?),
            None => missing = true,
        }
    }
    if missing {
        return Err(Fault::new(FaultKind::Interrupted, "interrupted").into());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_apt_prints() {
        let line = "'http://m.example/pool/a/a_1%3a2.0-1_amd64.deb' a_1%3a2.0-1_amd64.deb 53080 SHA256:AB12";
        let package = parse_uri_line(line).unwrap().unwrap();
        assert_eq!((package.name.as_str(), package.version.as_str(), package.size), ("a", "1:2.0-1", 53080));
        assert_eq!(package.sha256, "ab12");
        assert!(parse_uri_line(line.split(" SHA").next().unwrap()).is_err(), "unchecked files are refused");
        assert_eq!(parse_uri_line("Reading package lists...").unwrap(), None);
        assert!(parse_uri_line("'http://x' y").is_err());
    }

    #[test]
    fn parallel_work_keeps_the_order() {
        let items: Vec<usize> = (0..100).collect();
        assert_eq!(in_parallel(4, &items, |n| Ok(n * 2), |_| {}).unwrap(), (0..100).map(|n| n * 2).collect::<Vec<_>>());
        let failed = in_parallel(4, &items, |n| if *n == 7 { bail!("seven") } else { Ok(()) }, |_| {});
        assert_eq!(failed.unwrap_err().to_string(), "seven");
    }
}
