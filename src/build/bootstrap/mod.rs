//! Installing .deb files into an empty root, natively and in parallel.
//!
//! dpkg unpacks one package at a time, and a bootstrap makes it do so twice. Here files are
//! extracted by all processors at once, with the same result, and dpkg's database is written as
//! `dpkg --unpack` leaves it; maintainer scripts and configuration are left to dpkg itself.

mod database;
mod package;
mod rules;
mod run;
mod skeleton;
mod unpack;
mod variant;

use std::fmt::Write as _;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

pub use self::package::Package;
pub use self::rules::Filters;
pub use self::run::Bootstrap;
pub use self::skeleton::{HOSTNAME, Skeleton, reset_devices};
pub use self::variant::{VARIANTS, Variant};

use self::database::Database;
use self::package::Relations;
use self::rules::Rules;
use self::unpack::{Lost, Owners, Unpacked, Unpacker, canonical};
use crate::build::inside::{Inside, Kind};
use crate::debian::Architecture;
use crate::diagnostics::Fault;

/// Most threads that extract: more would only hold more decoders' memory.
const THREADS: usize = 8;

/// Directory in dpkg's, for preinst scripts that wait to be run.
const WAITING: &str = "debforge.preinst";

/// How the target's own programs are run, and whom progress is told.
pub trait Surroundings: Sync {
    /// Runs a program in the target root; what is being done starts the error.
    fn run(&self, argv: &[String], doing: &str) -> Result<()>;

    /// Says what is being done.
    fn progress(&self, message: &str, fraction: Option<(u64, u64)>);
}

/// A root that packages are installed into.
pub struct Target<'a> {
    root: PathBuf,
    architecture: Architecture,
    surroundings: &'a dyn Surroundings,
    filters: Filters,
    database: Database,
    /// All packages so far, each wave in its order.
    packages: Vec<Package>,
    aliases: Vec<String>,
    owners: Mutex<Owners>,
}

/// `merged-usr: false` for a suite whose packages know nothing else.
pub fn always_merged(suite: &str) -> Fault {
    Fault::recipe(format!(
        "`merged-usr: false` cannot hold: the packages of {suite} make /bin, /sbin and /lib links into /usr"
    ))
    .hint("leave it out; Debian 12 (bookworm) is the last release that can have them apart")
}

impl<'a> Target<'a> {
    /// Begins with a root that has no packages yet; its dpkg takes those of `foreign` architectures, too.
    pub fn create(
        root: &Path,
        architecture: Architecture,
        foreign: &[Architecture],
        filters: Filters,
        surroundings: &'a dyn Surroundings,
    ) -> Result<Self> {
        let database = Database::create(root, architecture, foreign)?;
        Ok(Self {
            root: root.to_owned(),
            architecture,
            surroundings,
            filters,
            database,
            packages: Vec::new(),
            aliases: Vec::new(),
            owners: Mutex::default(),
        })
    }

    /// All packages so far.
    pub fn packages(&self) -> &[Package] {
        &self.packages
    }

    /// Whether the packages are made for a root whose /bin, /sbin and /lib are links into /usr.
    pub fn wants_merged_usr(&self) -> Result<bool> {
        if self.packages.iter().any(|package| ["usrmerge", "usr-is-merged"].contains(&package.name.as_str())) {
            return Ok(true);
        }
        self.brings_merged_usr()
    }

    /// Whether the packages themselves make /bin a link into /usr, so that nothing can keep it apart.
    pub fn brings_merged_usr(&self) -> Result<bool> {
        let base = self.packages.iter().find(|package| package.name == "base-files");
        base.map_or(Ok(false), |package| unpack::ships_link(package, Path::new("bin")))
    }

    /// Makes /bin, /sbin and /lib links into /usr.
    pub fn merge_usr(&mut self) -> Result<()> {
        for name in merged_directories(self.architecture) {
            let directory = self.root.join("usr").join(name);
            fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
            symlink(format!("usr/{name}"), self.root.join(name)).with_context(|| format!("making the link /{name}"))?;
            self.aliases.push((*name).to_owned());
        }
        Ok(())
    }

    /// Takes up further packages, in the order that they are to be installed in.
    pub fn add(&mut self, debs: &[PathBuf]) -> Result<Range<usize>> {
        let mut packages = each(debs.len(), &|position| Package::read(&debs[position]))?;
        packages.sort_by(|a, b| (&a.name, &a.architecture).cmp(&(&b.name, &b.architecture)));
        for package in &packages {
            let known = [self.architecture.name(), "all"];
            ensure!(
                known.contains(&package.architecture.as_str()),
                "{} is for {}, the root for {}",
                package.deb.path().display(),
                package.architecture,
                self.architecture
            );
        }
        let start = self.packages.len();
        let order = Relations::of(&packages).order();
        let mut packages: Vec<_> = packages.into_iter().map(Some).collect();
        self.packages.extend(order.into_iter().filter_map(|position| packages[position].take()));
        Ok(start..self.packages.len())
    }

    /// dpkg's status as it will be when the packages so far are installed.
    pub fn status_when_installed(&self) -> String {
        self.packages
            .iter()
            .map(|package| format!("{}\nStatus: install ok installed\n\n", package.control_text))
            .collect()
    }

    /// Extracts packages without installing them.
    pub fn extract(&self, wave: Range<usize>) -> Result<()> {
        self.extract_files(&wave.collect::<Vec<_>>()).map(drop)
    }

    /// Installs the packages that all others take for granted: their files first, for the scripts
    /// need them all, then the scripts.
    pub fn install_essential(&mut self, wave: Range<usize>) -> Result<()> {
        let positions: Vec<usize> = wave.collect();
        self.unpack(&positions)?;
        self.run_preinsts(&positions)?;
        self.divert()?;
        self.configure(&positions)
    }

    /// Installs further packages. Those with a preinst wait until what they pre-depend on is configured.
    pub fn install(&mut self, wave: Range<usize>) -> Result<()> {
        let relations = Relations::of(&self.packages);
        let mut configured: Vec<bool> = (0..self.packages.len()).map(|position| position < wave.start).collect();
        let mut waiting: Vec<usize> = wave.collect();
        loop {
            let ready = |position: &usize| {
                self.packages[*position].file("preinst").is_none()
                    || relations.pre_depends(*position).iter().all(|needed| configured[*needed])
            };
            let (now, later): (Vec<usize>, Vec<usize>) = waiting.iter().copied().partition(ready);
            self.run_preinsts(&now)?;
            self.divert()?;
            self.unpack(&now)?;
            if later.is_empty() {
                break;
            }
            // What a package pre-depends on can be configured once all that this needs in turn is
            // unpacked. Some waiting package always has that, unless they wait for each other.
            let needs: Vec<Vec<usize>> =
                later.iter().map(|position| relations.closure(relations.pre_depends(*position))).collect();
            let unpacked = |needed: &&Vec<usize>| !needed.iter().any(|position| later.contains(position));
            let mut complete: Vec<&Vec<usize>> = needs.iter().filter(unpacked).collect();
            if complete.is_empty() {
                complete = needs.iter().collect();
            }
            let mut before: Vec<usize> = Vec::new();
            for position in complete.into_iter().flatten() {
                if !configured[*position] && !later.contains(position) && !before.contains(position) {
                    before.push(*position);
                }
            }
            // Only a pre-dependency on a package that itself waits for one could leave nothing to do.
            ensure!(
                !now.is_empty() || !before.is_empty(),
                "the pre-dependencies of {} form a circle",
                self.names(&later).join(", ")
            );
            self.configure(&before)?;
            before.iter().for_each(|position| configured[*position] = true);
            waiting = later;
        }
        self.surroundings.progress("configuring packages", None);
        let argv = ["dpkg", "--force-unsafe-io", "--configure", "--pending"];
        self.surroundings.run(&argv.map(str::to_owned), "configuring packages")
    }

    fn names(&self, positions: &[usize]) -> Vec<String> {
        positions.iter().map(|position| self.packages[*position].database_name()).collect()
    }

    /// Extracts packages and records them.
    fn unpack(&self, positions: &[usize]) -> Result<()> {
        let unpacked = self.extract_files(positions)?;
        let registered: Vec<_> =
            positions.iter().map(|position| &self.packages[*position]).zip(unpacked.iter()).collect();
        self.database.register(&registered)
    }

    fn extract_files(&self, positions: &[usize]) -> Result<Vec<Unpacked>> {
        self.refuse_moved_directories()?;
        let rules = Rules::read(&self.root, &self.filters)?;
        let unpacker = Unpacker::new(&self.root, &self.packages, &rules, &self.aliases, &self.owners)?;
        // The largest first, so that no thread is left alone with one at the end.
        let mut by_size: Vec<usize> = (0..positions.len()).collect();
        by_size.sort_by_key(|index| std::cmp::Reverse(self.packages[positions[*index]].deb.data_size()));
        let done = AtomicUsize::new(0);
        let mut results = each(positions.len(), &|turn| {
            let index = by_size[turn];
            let unpacked = unpacker.unpack(positions[index])?;
            let count = done.fetch_add(1, Ordering::Relaxed) + 1;
            let message = format!("unpacked {}", self.packages[positions[index]].name);
            self.surroundings.progress(&message, Some((count as u64, positions.len() as u64)));
            Ok((index, unpacked))
        })?;
        let lost = unpacker.finish()?;
        results.sort_by_key(|(index, _)| *index);
        let mut unpacked: Vec<Unpacked> = results.into_iter().map(|(_, unpacked)| unpacked).collect();
        self.drop_lost_paths(positions, &mut unpacked, &lost)?;
        Ok(unpacked)
    }

    /// The database and /etc are read and written from outside the root, so nothing on the way to
    /// them may have become a link, which could lead out of it.
    fn refuse_moved_directories(&self) -> Result<()> {
        let root = Inside::open(&self.root)?;
        for path in ["etc", "var", "var/lib", "var/lib/dpkg", "var/lib/dpkg/info", "var/lib/dpkg/triggers"] {
            let kind = root.link_kind(Path::new(path))?;
            ensure!(matches!(kind, None | Some(Kind::Directory)), "a package has put a link in the place of /{path}");
        }
        Ok(())
    }

    /// dpkg takes a file that another package replaced out of the list of the one that lost it.
    fn drop_lost_paths(&self, positions: &[usize], unpacked: &mut [Unpacked], lost: &[Lost]) -> Result<()> {
        for Lost { package, path } in lost {
            let index = positions.iter().position(|position| self.packages[*position].database_name() == *package);
            match index {
                Some(index) => unpacked[index].list.retain(|shipped| shipped != path),
                None => self.database.forget(package, &[path])?,
            }
        }
        Ok(())
    }

    /// Runs the preinst scripts of packages, one after the other, as dpkg does before it unpacks.
    fn run_preinsts(&self, positions: &[usize]) -> Result<()> {
        self.refuse_moved_directories()?;
        let waiting = self.database.directory().join(WAITING);
        let version = self.packages.iter().find(|package| package.name == "dpkg").map_or("1.20", |dpkg| &dpkg.version);
        let mut script =
            format!("cd /\nexport DPKG_ADMINDIR=/var/lib/dpkg DPKG_ROOT= DPKG_RUNNING_VERSION={version}\n");
        let mut count = 0;
        for position in positions {
            let package = &self.packages[*position];
            if package.file("preinst").is_none() {
                continue;
            }
            count += 1;
            let directory = waiting.join(count.to_string());
            fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
            fs::write(directory.join("control"), &package.control_text)?;
            for file in &package.files {
                let path = directory.join(&file.name);
                fs::write(&path, &file.contents).with_context(|| format!("writing {}", path.display()))?;
                fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))?;
            }
            let Package { name, architecture, .. } = package;
            write!(
                script,
                "mv /var/lib/dpkg/{WAITING}/{count} /var/lib/dpkg/tmp.ci\n\
                 DPKG_MAINTSCRIPT_PACKAGE={name} DPKG_MAINTSCRIPT_ARCH={architecture} DPKG_MAINTSCRIPT_NAME=preinst \
                 DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1 DPKG_MAINTSCRIPT_DEBUG=0 /var/lib/dpkg/tmp.ci/preinst install || \
                 {{ code=$?; echo \"the preinst script of {name} exited with code $code\"; exit $code; }}\n\
                 rm -rf /var/lib/dpkg/tmp.ci\n"
            )?;
        }
        if count == 0 {
            return Ok(());
        }
        self.surroundings.progress("running preinst scripts", None);
        let argv = ["sh", "-e", "-c", &script].map(str::to_owned);
        self.surroundings.run(&argv, "running preinst scripts")?;
        fs::remove_dir(&waiting).with_context(|| format!("removing {}", waiting.display()))
    }

    /// Moves files that are there already to where their diversions lead.
    fn divert(&self) -> Result<()> {
        let root = Inside::open(&self.root)?;
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        for diversion in rules::diversions(&self.root)? {
            let from = PathBuf::from(diversion.from.trim_start_matches('/'));
            let to = PathBuf::from(diversion.to.trim_start_matches('/'));
            let (known, becomes) = (canonical(&self.aliases, &from), canonical(&self.aliases, &to));
            let Some(owner) = owners.get(&known).cloned() else { continue };
            if diversion.by.as_deref() == owner.split(':').next() {
                continue;
            }
            let (source, destination) = (root.slot(&from)?, root.slot(&to)?);
            if source.kind()?.is_some() && destination.kind()?.is_none() {
                source
                    .rename(&destination)
                    .with_context(|| format!("diverting {} to {}", diversion.from, diversion.to))?;
            }
            owners.remove(&known);
            owners.insert(becomes, owner);
        }
        Ok(())
    }

    /// Configures packages whatever else they depend on, as far as it goes in the order of dependencies.
    fn configure(&self, positions: &[usize]) -> Result<()> {
        self.surroundings.progress("configuring packages", None);
        let options = ["dpkg", "--force-unsafe-io", "--force-depends", "--configure"].map(str::to_owned);
        let argv: Vec<String> = options.into_iter().chain(self.names(positions)).collect();
        self.surroundings.run(&argv, "configuring packages")
    }
}

/// Top-level directories that are links into /usr: those that the architecture's ABI names beside
/// /bin, /sbin and /lib hold the dynamic linker (usrmerge, base-files).
fn merged_directories(architecture: Architecture) -> &'static [&'static str] {
    match architecture {
        Architecture::Amd64 | Architecture::Loong64 | Architecture::Mips64el | Architecture::Ppc64el => {
            &["bin", "lib", "lib64", "sbin"]
        }
        _ => &["bin", "lib", "sbin"],
    }
}

/// Does something for each of the first `count` numbers on several threads; the results are in no
/// particular order, the first error ends it.
fn each<T: Send>(count: usize, work: &(dyn Fn(usize) -> Result<T> + Sync)) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Ok(Vec::with_capacity(count)));
    let threads = std::thread::available_parallelism().map_or(1, usize::from).clamp(1, THREADS);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(count) {
            scope.spawn(|| {
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    if turn >= count {
                        break;
                    }
                    let result = work(turn);
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    match (&mut *results, result) {
                        (Ok(all), Ok(one)) => all.push(one),
                        (Ok(_), Err(error)) => {
                            *results = Err(error);
                            next.store(count, Ordering::Relaxed);
                        }
                        (Err(_), _) => {}
                    }
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner)?;
    Ok(results)
}
