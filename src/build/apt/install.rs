//! Installing into the root: apt decides the order, dpkg does it there.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use walkdir::WalkDir;

use super::explain;
use super::session::{Apt, Base, in_parallel};
use crate::build::bootloader;
use crate::build::files::RootFiles;
use crate::debian::deb::Deb;
use crate::debian::deb822::Paragraph;
use crate::debian::package_list::{self, Package};
use crate::diagnostics::{Fault, FaultKind};
use crate::sandbox::{Bind, Stream};

/// What apt starts for dpkg, in the root, and its text, where a variable has to name apt's configuration: no script of a
/// package gets to know of it.
const DPKG: (&str, &str) = ("dpkg", "#!/bin/sh\nunset APT_CONFIG\nexec dpkg \"$@\"\n");

/// How apt names a package in its archives: colons of epochs are numbers.
fn name_in_archives(control: &Paragraph) -> String {
    let field = |name: &str| control.get(name).unwrap_or_default().replace(':', "%3a");
    format!("{}_{}_{}.deb", field("Package"), field("Version"), field("Architecture"))
}

impl Apt<'_> {
    /// Runs `apt-get ARGS` (`["install", "--", "bash"]`) for the root, after fetching what it needs.
    /// `local` are .deb files on the host that are installed too, with the names to give them.
    pub fn install<S: AsRef<str>>(&self, args: &[S], local: &[(PathBuf, PathBuf)]) -> Result<()> {
        let mut args: Vec<String> = args.iter().map(|arg| arg.as_ref().to_owned()).collect();
        let (installed, _) = self.installed_packages()?;
        let (mut own, mut replaced) = (BTreeMap::new(), Vec::new());
        for (number, (file, name)) in local.iter().enumerate() {
            // A directory each, since two may have the same name; and apt takes a word for a file by its end.
            let mut name = Path::new("local").join(number.to_string()).join(name);
            if name.extension().is_none_or(|extension| extension != "deb") {
                name.as_mut_os_string().push(".deb");
            }
            let there = self.directory.join("debs").join(&name);
            fs::create_dir_all(there.parent().unwrap_or(&there)).context("placing packages")?;
            place(file, &there)?;
            let control = Deb::open(file)?.control()?;
            replaced.push(
                installed
                    .iter()
                    .find(|known| known.name == control.get("Package").unwrap_or_default())
                    .map(|known| Some(known.version.as_str()) == control.get("Version")),
            );
            own.insert(name_in_archives(&control), there);
            args.push(self.debs.join(&name).display().to_string());
        }
        // apt calls another build of an installed version a downgrade; where any other is meant, it says so.
        if replaced.contains(&Some(true)) && !replaced.contains(&Some(false)) {
            args.insert(1, "--allow-downgrades".to_owned());
        }
        self.cx.progress("choosing packages", None);
        let fetched = self.resolve(Base::Root, &args)?;
        let files = self.fetch(&fetched)?;
        for (package, file) in fetched.iter().zip(&files) {
            place(file, &self.directory.join("debs/archives").join(&package.file_name))?;
        }
        self.decompress()?;
        for package in &fetched {
            // apt takes a repository's package of the same version for the same; dpkg is given the file that is meant.
            if let Some(file) = own.get(&package.file_name) {
                let there = self.stored().join("archives").join(&package.file_name);
                Deb::open(file).and_then(|deb| deb.write_stored(&there)).context("placing packages")?;
            }
        }
        self.drive(&args, files.len() + local.len())
    }

    /// Makes what dpkg will see in the root: the same packages with nothing compressed, since it
    /// would decompress one after the other, and emulated where the root is foreign. apt, which
    /// compares sizes, sees those that were fetched.
    fn decompress(&self) -> Result<()> {
        let (from, to) = (self.directory.join("debs"), self.stored());
        let mut packages = Vec::new();
        for entry in WalkDir::new(&from) {
            let entry = entry.context("looking for packages")?;
            let there = to.join(entry.path().strip_prefix(&from)?);
            if entry.file_type().is_dir() {
                fs::create_dir_all(&there).context("placing packages")?;
            } else {
                packages.push((entry.into_path(), there));
            }
        }
        let count = packages.len() as u64;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let decompress = |(from, to): &(PathBuf, PathBuf)| {
            let doing = || format!("decompressing {}", from.display());
            Deb::open(from).and_then(|deb| deb.write_stored(to)).with_context(doing)
        };
        let progress = |done| self.cx.progress("decompressing packages", Some((done as u64, count)));
        in_parallel(threads, &packages, decompress, progress).map(drop)
    }

    /// Where dpkg's packages are.
    fn stored(&self) -> PathBuf {
        self.directory.join("stored")
    }

    fn drive(&self, args: &[String], count: usize) -> Result<()> {
        let cx = self.cx;
        let mut argv = vec!["apt-get".to_owned(), "-q".into(), "-y".into()];
        argv.extend(args.iter().cloned());
        let mut environment = cx.process_environment();
        let mut more = vec![
            format!("DPkg::Chroot-Directory \"{}\";", cx.root.display()),
            // It would make links for dpkg in a directory that dpkg, in the root, cannot see.
            "DPkg::Install::Recursive \"false\";".to_owned(),
            "DPkg::Options { \"--force-unsafe-io\"; \"--force-confdef\"; \"--force-confold\"; };".to_owned(),
        ];
        let in_place = self.configuration_in_place()?;
        if in_place.is_none() {
            let (name, text) = DPKG;
            let dpkg = self.stored().join(name);
            fs::write(&dpkg, text).context("writing what starts dpkg")?;
            fs::set_permissions(&dpkg, fs::Permissions::from_mode(0o755)).context("writing what starts dpkg")?;
            more.push(format!("Dir::Bin::dpkg \"{}\";", self.debs.join(name).display()));
        }
        if let Some(image) = cx.image
            && bootloader::update_grub(image, cx.root)?.is_some()
        {
            // What stands for update-grub is in /usr/local, which apt's own PATH for dpkg does not have.
            more.push("DPkg::Path \"/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin\";".to_owned());
        }
        self.configure(self.state()?, Base::Root, "install", &more, &mut argv, &mut environment)?;
        let in_root = cx.root.join(self.debs.strip_prefix("/").unwrap_or(&self.debs));
        let own = self.archives();
        let state = self.state()?;
        let mut runner = cx.host(argv).bind(state, state, true).bind(&own.source, &own.target, false).bind(
            self.stored(),
            in_root,
            true,
        );
        // Who gets out of the root that apt enters finds programs, and nothing else of the host's.
        runner = runner.programs_only(&self.host_settings()?, Vec::new());
        runner = runner.maintainer_scripts().network(self.options.network);
        if let Some(binds) = in_place {
            environment.remove("APT_CONFIG");
            runner = binds
                .into_iter()
                .fold(runner, |runner, Bind { source, target, read_only }| runner.bind(source, target, read_only));
        }
        for (name, value) in environment {
            runner = runner.env(name, value);
        }
        let mut output = Vec::new();
        let mut progress = Progress { unpacked: 0, configured: 0, count };
        let result = runner.run_with("installing packages", &mut |_: Stream, line| {
            if let Some((message, done)) = progress.line(line) {
                cx.progress(message, Some((done as u64, 2 * count as u64)));
            }
            output.push(line.to_owned());
        });
        let Err(error) = result else { return Ok(()) };
        match error.downcast_ref::<Fault>() {
            Some(fault) if fault.kind == FaultKind::Failed => {
                let mut explained = explain::explain("apt could not install the packages", &output, || self.names());
                explained.hints.extend(fault.hints.iter().cloned());
                Err(explained.into())
            }
            _ => Err(error),
        }
    }

    /// The root's packages, and their size in bytes.
    pub fn installed(&self) -> Result<(usize, u64)> {
        let (packages, bytes) = self.installed_packages()?;
        Ok((packages.len(), bytes))
    }

    fn installed_packages(&self) -> Result<(Vec<Package>, u64)> {
        let status = RootFiles::open(self.cx.root)?.text("/var/lib/dpkg/status")?;
        let status = status.context("the root has no /var/lib/dpkg/status")?;
        Ok(package_list::installed(&status))
    }
}

/// Gives a file of the store another name; nobody writes to it under any.
fn place(from: &Path, to: &Path) -> Result<()> {
    if fs::hard_link(from, to).is_err() && !to.exists() {
        fs::copy(from, to).with_context(|| format!("copying {}", from.display()))?;
    }
    Ok(())
}

/// How far dpkg has got, from what it says.
struct Progress {
    unpacked: usize,
    configured: usize,
    count: usize,
}

impl Progress {
    /// What to show after this line, and how many halves of packages are done.
    fn line(&mut self, line: &str) -> Option<(String, usize)> {
        let (verb, name) = if let Some(rest) = line.strip_prefix("Unpacking ") {
            self.unpacked = (self.unpacked + 1).min(self.count);
            ("unpacking", rest)
        } else if let Some(rest) = line.strip_prefix("Setting up ") {
            self.configured = (self.configured + 1).min(self.count);
            ("setting up", rest)
        } else {
            ("triggers of", line.strip_prefix("Processing triggers for ")?)
        };
        let name = name.split([' ', ':']).next().unwrap_or_default();
        Some((format!("{verb} {name}"), self.unpacked + self.configured))
    }
}

#[cfg(test)]
mod tests {
    use super::Progress;

    #[test]
    fn progress_follows_dpkg() {
        let mut progress = Progress { unpacked: 0, configured: 0, count: 1 };
        assert_eq!(progress.line("Selecting previously unselected package udev."), None);
        assert_eq!(progress.line("Unpacking libc6:amd64 (2.41-12) ..."), Some(("unpacking libc6".into(), 1)));
        assert_eq!(progress.line("Setting up libc6:amd64 (2.41-12) ..."), Some(("setting up libc6".into(), 2)));
        assert_eq!(
            progress.line("Processing triggers for libc-bin (2.41-12) ..."),
            Some(("triggers of libc-bin".into(), 2))
        );
    }
}
