//! One use of pacman against one root.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::config::{Config, Repository, SignatureLevel};
use super::database::{self, Entry};
use super::first_start;
use crate::build::apt::in_parallel;
use crate::build::command::Runner;
use crate::build::files::RootFiles;
use crate::build::inside::Inside;
use crate::build::{BuildContext, InputContext, cleanup};
use crate::debian::{host, system};
use crate::diagnostics::{Fault, Remedy, fault_of};
use crate::store::fetch::{Fetched, Request};

/// What it needs on the host: programs, and the packages that have them.
pub const TOOLS: [(&str, &str); 3] =
    [("pacman", "pacman-package-manager"), ("pacman-key", "pacman-package-manager"), ("gpg", "gpg")];

/// Where keys of distributions are that use pacman: its own place, and Debian's.
const KEYRINGS: [&str; 2] = ["/usr/share/pacman/keyrings", "/usr/share/keyrings"];

/// Where pacman has what it knows of a root.
const DATABASE: &str = "/var/lib/pacman";

/// Downloads at once.
const CONNECTIONS: usize = 8;

/// pacman behind a keyring of its own, made for this one use, as `pacman-key --populate` makes it, which knows
/// one directory alone. Given the configuration, keyrings without `.gpg` (one a line), whether a keyring is
/// needed at all, and pacman's command line.
///
/// /tmp is the command's own where mounts are possible; else the trap clears up.
const SCRIPT: &str = r#"
umask 022
config=$1 keyrings=$2 needed=$3
shift 3
gpgdir=$(mktemp -d)
trap 'gpgconf --homedir "$gpgdir" --kill all >/dev/null 2>&1 || :; rm -rf "$gpgdir"' EXIT
chmod 755 "$gpgdir"
if [ "$needed" = yes ]; then
    keys() { pacman-key --config "$config" --gpgdir "$gpgdir" "$@"; }
    gpg() { command gpg --homedir "$gpgdir" --no-permission-warning --batch --quiet "$@"; }
    keys --init
    printf '%s\n' "$keyrings" | while read -r keyring; do
        [ -n "$keyring" ] || continue
        gpg --import "$keyring.gpg"
        # shellcheck disable=SC2046
        keys --lsign-key $(sed -n 's/^\([0-9A-Fa-f]\{16,\}\):.*/\1/p' "$keyring-trusted") </dev/null
        gpg --import-ownertrust "$keyring-trusted"
        if [ -s "$keyring-revoked" ]; then
            while read -r id; do
                printf 'disable\nquit\n' | gpg --command-fd 0 --no-auto-check-trustdb --edit-key "$id" || :
            done <"$keyring-revoked"
        fi
    done
    keys --updatedb
fi
"$@" --gpgdir "$gpgdir"
"#;

/// pacman with its databases and packages.
pub struct Session<'a> {
    cx: &'a BuildContext<'a>,
    config: Config,
    architecture: &'static str,
    directory: PathBuf,
    /// The databases that were put into the root, by the names of their repositories.
    databases: BTreeMap<String, HashMap<String, Entry>>,
}

/// The versions of the tools.
pub fn add_inputs(cx: &mut InputContext<'_>) {
    let (program, package) = TOOLS[0];
    cx.add(format!("tool {program}"), host::tool_state(program, package));
}

impl<'a> Session<'a> {
    /// Adds the states of all repositories, which come into the store.
    pub fn add_states(cx: &mut InputContext<'_>, config: &Config, architecture: &str) -> Result<()> {
        for repository in &config.repositories {
            (cx.progress)(&format!("asking for the database of {}", repository.name));
            let name = format!("{}.db", repository.name);
            let (url, fetched) = first(&repository.urls(architecture, &name), &name, |url| {
                cx.store.fetch(&Request { limit: Some(LARGEST), ..request(url, None) }, &mut |_, _| {})
            })?;
            cx.add(format!("{}{url}", input(repository)), fetched.sha256);
        }
        Ok(())
    }

    /// The same with the keys that a bootstrap verifies them by.
    pub fn add_databases(cx: &mut InputContext<'_>, config: &Config, architecture: &str) -> Result<()> {
        Self::add_states(cx, config, architecture)?;
        let keyrings: Vec<PathBuf> = KEYRINGS.iter().flat_map(|place| keyrings(Path::new(place))).collect();
        match config.highest_level() {
            SignatureLevel::Never => return Ok(()),
            SignatureLevel::Required if keyrings.is_empty() => return Err(no_keys().into()),
            _ => {}
        }
        for keyring in keyrings {
            let name = keyring.file_name().unwrap_or_default().to_string_lossy().into_owned();
            for ending in [".gpg", "-trusted", "-revoked"] {
                let file = PathBuf::from(format!("{}{ending}", keyring.display()));
                if file.is_file() {
                    cx.add_tree(&format!("keyring {name}{ending}"), &file)?;
                }
            }
        }
        Ok(())
    }

    /// A use of pacman with a configuration; files of its own go below the step's scratch directory.
    pub fn open(cx: &'a BuildContext<'a>, config: Config, architecture: &'static str) -> Result<Self> {
        let directory = cx.scratch.join("pacman");
        for part in ["cache", "hooks"] {
            fs::create_dir_all(directory.join(part)).context("opening pacman")?;
        }
        fs::write(directory.join("pacman.conf"), config.text(architecture)).context("opening pacman")?;
        Ok(Self { cx, config, architecture, directory, databases: BTreeMap::new() })
    }

    /// Puts the databases into the root in the states that the step's id was made from. Of a repository
    /// that has none there, the one in the root counts.
    pub fn place_databases(&mut self) -> Result<()> {
        let files = RootFiles::open(self.cx.root)?;
        for repository in &self.config.repositories {
            let (name, inside) = (format!("{}.db", repository.name), database_file(repository));
            let planned = self.cx.inputs.iter().find_map(|planned| {
                let url = planned.what.strip_prefix(&input(repository))?;
                Some((vec![url.to_owned()], Some(planned.state.as_str())))
            });
            if planned.is_none() && files.has(&inside) {
                let (_open, path) = Inside::open(self.cx.root)?.host_path(Path::new(&inside))?;
                self.databases.insert(repository.name.clone(), database::read(&path)?);
                continue;
            }
            let (urls, sha256) = planned.with_context(|| format!("nothing was planned of the database {name}"))?;
            let (url, fetched) = first(&urls, &name, |url| self.fetch(&request(url, sha256)))?;
            files.write(&inside, fs::read(&fetched.path).with_context(|| format!("reading {name}"))?)?;
            if self.config.database_level(repository) != SignatureLevel::Never {
                match self.fetch(&Request { limit: Some(LARGEST_SIGNATURE), ..request(&format!("{url}.sig"), None) }) {
                    Ok(signature) => files.write(&format!("{inside}.sig"), fs::read(signature.path)?)?,
                    Err(error) if self.config.database_level(repository) == SignatureLevel::Required => {
                        return Err(error);
                    }
                    Err(_) => {}
                }
            }
            self.databases.insert(repository.name.clone(), database::read(&fetched.path)?);
        }
        Ok(())
    }

    /// Runs `pacman OPERATION PACKAGES` for the root, after fetching what it needs; what to show for it.
    pub fn install(&self, operation: &str, packages: &[String]) -> Result<String> {
        self.cx.progress("choosing packages", None);
        let wanted = self.choose(operation, packages)?;
        self.take(&wanted)?;
        let before = self.installed()?;
        let count = wanted.len();
        let mut done = 0;
        let argv = self.argv(&[operation], packages);
        self.runner(argv, self.keyrings()?.as_deref())?
            .hint("`pacman.conf` says which repositories there are, and which signatures they need")
            .run_with("installing packages", &mut |_, line| {
                let line = line.trim_start_matches(|letter: char| "()/ ".contains(letter) || letter.is_ascii_digit());
                if let Some(name) = ["installing ", "upgrading "].iter().find_map(|verb| line.strip_prefix(verb)) {
                    done += 1;
                    let name = name.trim_end_matches('.').to_owned();
                    self.cx.progress(format!("installing {name}"), Some((done.min(count) as u64, count as u64)));
                }
            })?;
        let added = self.installed()?.len() as i64 - before.len() as i64;
        self.settle(&before)?;
        cleanup::after_packages(self.cx.root)?;
        first_start::make_keyring(self.cx.root)?;
        Ok(format!("{added:+} packages"))
    }

    /// The packages that pacman would fetch: names of repositories, and of files.
    fn choose(&self, operation: &str, packages: &[String]) -> Result<Vec<(String, String)>> {
        let mut argv = self.argv(&[operation, "--print", "--print-format", "%r %l"], packages);
        argv.extend(["--logfile".into(), "/dev/null".into()]);
        let output = self.runner(argv, None)?.output("choosing packages")?;
        let named = output.lines().filter_map(|line| {
            let (repository, address) = line.split_once(' ')?;
            let known = self.databases.contains_key(repository) && address.contains("://");
            known.then(|| (repository.to_owned(), address.rsplit('/').next().unwrap_or_default().to_owned()))
        });
        Ok(named.collect())
    }

    /// Takes packages into the store, and from there to where pacman looks for them.
    fn take(&self, wanted: &[(String, String)]) -> Result<()> {
        let count = wanted.len();
        let work = |(name, file): &(String, String)| self.take_one(name, file);
        let progress =
            |done| self.cx.progress(format!("downloading {done}/{count}"), Some((done as u64, count as u64)));
        in_parallel(CONNECTIONS, wanted, work, progress).map(drop)
    }

    fn take_one(&self, name: &str, file: &str) -> Result<()> {
        let repository =
            self.config.repositories.iter().find(|repo| repo.name == name).context("a repository that is none")?;
        let entry = self.databases.get(name).and_then(|database| database.get(file)).cloned().unwrap_or_default();
        let urls = repository.urls(self.architecture, file);
        let (url, fetched) = first(&urls, file, |url| self.fetch(&request(url, entry.sha256.as_deref())))?;
        let cache = self.directory.join("cache");
        place(&fetched.path, &cache.join(file))?;
        let level = self.config.package_level(repository);
        if level == SignatureLevel::Never {
            return Ok(());
        }
        let signature = cache.join(format!("{file}.sig"));
        if let Some(bytes) = entry.signature {
            return fs::write(&signature, bytes).with_context(|| format!("placing {}", signature.display()));
        }
        match self.fetch(&Request { limit: Some(LARGEST_SIGNATURE), ..request(&format!("{url}.sig"), None) }) {
            Ok(fetched) => place(&fetched.path, &signature),
            Err(error) if level == SignatureLevel::Required => Err(error),
            Err(_) => Ok(()),
        }
    }

    fn fetch(&self, request: &Request) -> Result<Fetched> {
        self.cx.store.fetch(request, &mut |_, _| {}).map_err(|error| {
            let mut fault = fault_of(&error);
            if fault.remedy == Remedy::LookElsewhere {
                fault.remedy = Remedy::PlanAnew;
            }
            fault.into()
        })
    }

    fn argv(&self, operation: &[&str], packages: &[String]) -> Vec<String> {
        let path = |part: &str| self.directory.join(part).display().to_string();
        let root = self.cx.root.display().to_string();
        let mut argv: Vec<String> = vec!["pacman".into()];
        argv.extend(operation.iter().map(|word| (*word).to_owned()));
        for (option, value) in [
            ("--root", root.clone()),
            ("--dbpath", format!("{root}{DATABASE}")),
            ("--cachedir", path("cache")),
            ("--hookdir", format!("{root}/etc/pacman.d/hooks")),
            ("--config", path("pacman.conf")),
            ("--color", "never".into()),
        ] {
            argv.extend([option.to_owned(), value]);
        }
        argv.extend(["--noconfirm".into(), "--noprogressbar".into()]);
        if !operation.contains(&"--print") {
            argv.extend(["--logfile".into(), path("pacman.log")]);
        }
        argv.extend(packages.iter().cloned());
        argv
    }

    /// pacman in the sandbox, with these keyrings where it needs any.
    fn runner(&self, argv: Vec<String>, keyrings: Option<&str>) -> Result<Runner<'_>> {
        let config = self.directory.join("pacman.conf").display().to_string();
        let mut all: Vec<String> = ["sh", "-e", "-u", "-c", SCRIPT, "pacman"].map(str::to_owned).to_vec();
        let needed = if keyrings.is_some() { "yes" } else { "no" };
        all.extend([config, keyrings.unwrap_or_default().to_owned(), needed.to_owned()]);
        all.extend(argv);
        let settings = self.directory.join("host-etc");
        if !settings.exists() {
            system::copy_settings(&settings, "").context("laying out the settings that pacman sees")?;
        }
        // Scripts of packages may leave the root that pacman enters, as with apt.
        Ok(self.cx.host(all).programs_only(&settings, Vec::new()))
    }

    /// The root's own keyrings, or where it has none, as before its first package, the host's, which are inputs; one a
    /// line. `None` where nothing is verified.
    fn keyrings(&self) -> Result<Option<String>> {
        let level = self.config.highest_level();
        if level == SignatureLevel::Never {
            return Ok(None);
        }
        let own = Inside::open(self.cx.root)?.resolve(Path::new(KEYRINGS[0])).unwrap_or_default();
        let mut found = keyrings(&self.cx.root.join(own));
        if found.is_empty() {
            found = KEYRINGS.iter().flat_map(|place| keyrings(Path::new(place))).collect();
        }
        let found: Vec<String> = found.iter().map(|keyring| keyring.display().to_string()).collect();
        if found.is_empty() && level == SignatureLevel::Required {
            return Err(no_keys().into());
        }
        Ok(Some(found.join("\n")))
    }

    /// What pacman knows of each package of the root, by its directory.
    fn installed(&self) -> Result<BTreeMap<String, String>> {
        let files = RootFiles::open(self.cx.root)?;
        let local = format!("{DATABASE}/local");
        let mut all = BTreeMap::new();
        for name in files.names(&local)? {
            if let Some(text) = files.text(&format!("{local}/{name}/desc"))? {
                all.insert(name, text);
            }
        }
        Ok(all)
    }

    /// Dates what was installed by the build, not by the clock.
    fn settle(&self, before: &BTreeMap<String, String>) -> Result<()> {
        let files = RootFiles::open(self.cx.root)?;
        for (name, text) in self.installed()? {
            if before.get(&name) != Some(&text) {
                let dated = dated(&text, self.cx.source_date_epoch);
                files.write(&format!("{DATABASE}/local/{name}/desc"), dated)?;
            }
        }
        Ok(())
    }
}

/// The description of an installed package with another date.
fn dated(text: &str, epoch: i64) -> String {
    match database::field(text, "INSTALLDATE") {
        Some(date) => text.replacen(&format!("%INSTALLDATE%\n{date}\n"), &format!("%INSTALLDATE%\n{epoch}\n"), 1),
        None => text.to_owned(),
    }
}

/// Where a root has a repository's database.
fn database_file(repository: &Repository) -> String {
    format!("{DATABASE}/sync/{}.db", repository.name)
}

/// Whether a root has a repository's database.
pub fn has_database(files: &RootFiles, repository: &Repository) -> bool {
    files.has(&database_file(repository))
}

/// How the input of a repository's database is named, before its address.
fn input(repository: &Repository) -> String {
    format!("database of {}, ", repository.name)
}

/// The most bytes of a database, and of a signature.
const LARGEST: u64 = 1 << 30;
const LARGEST_SIGNATURE: u64 = 1 << 20;

fn request(url: &str, sha256: Option<&str>) -> Request {
    Request { url: url.to_owned(), sha256: sha256.map(str::to_owned), ..Request::default() }
}

/// What the first address gives that has it, with the address.
fn first(urls: &[String], what: &str, mut fetch: impl FnMut(&str) -> Result<Fetched>) -> Result<(String, Fetched)> {
    let mut failed = None;
    for url in urls {
        match fetch(url) {
            Ok(fetched) => return Ok((url.clone(), fetched)),
            Err(error) if crate::build::interrupted() => return Err(error),
            Err(error) => {
                failed.get_or_insert(error);
            }
        }
    }
    match failed {
        Some(error) => Err(error.context(format!("getting {what}"))),
        None => Err(Fault::recipe(format!("no server has {what}: its repository has none")).into()),
    }
}

/// Keyrings of a directory, without `.gpg`: those that say whom they trust.
fn keyrings(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let trusted = |name: &&str| names.iter().any(|other| other.strip_suffix("-trusted") == Some(*name));
    names.iter().filter_map(|name| name.strip_suffix(".gpg")).filter(trusted).map(|name| directory.join(name)).collect()
}

fn no_keys() -> Fault {
    Fault::machine("packages must be signed, and this machine has no keys of Arch Linux to verify them with")
        .hint("apt install archlinux-keyring")
        .hint("or say in pacman.conf what its repositories need: `SigLevel`")
}

/// Gives a file of the store another name; nobody writes to it under any.
fn place(from: &Path, to: &Path) -> Result<()> {
    fs::hard_link(from, to)
        .or_else(|_| fs::copy(from, to).map(drop))
        .with_context(|| format!("placing {}", to.display()))
}

#[cfg(test)]
mod tests {
    use super::dated;

    #[test]
    fn a_package_is_dated_by_the_build() {
        let text = "%NAME%\na\n\n%INSTALLDATE%\n1764097000\n\n%SIZE%\n1764097000\n";
        assert_eq!(dated(text, 7), "%NAME%\na\n\n%INSTALLDATE%\n7\n\n%SIZE%\n1764097000\n");
    }
}
