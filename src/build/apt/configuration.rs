//! What apt is told, and that nothing of the host's apt's settings is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::session::{Apt, Base};
use super::settings;
use crate::build::files::RootFiles;
use crate::build::inside::Inside;
use crate::debian::system;
use crate::sandbox::{Bind, Isolation};

impl Apt<'_> {
    /// Makes a command of apt use a configuration of ours and nothing of the host's.
    pub(super) fn configure(
        &self,
        state: &Path,
        base: Base,
        name: &str,
        more: &[String],
        argv: &mut Vec<String>,
        environment: &mut BTreeMap<String, String>,
    ) -> Result<()> {
        let etc = self.etc(base);
        // The root's own apt.conf.d is read after the first file, then its apt.conf; the last overrules them.
        let first = format!(
            "Dir::Etc::main \"/dev/null\";\nDir::Etc::parts {};\n",
            quote(&etc.join("apt.conf.d").display().to_string())
        );
        let files = [("first", first), ("last", self.config(state, base, more))];
        let [first, last] = files.map(|(part, text)| {
            let path = self.directory.join(format!("{name}-{part}.conf"));
            fs::write(&path, text).context("writing apt's configuration").map(|()| path.display().to_string())
        });
        environment.insert("APT_CONFIG".into(), first?);
        argv.splice(1..1, ["-c".to_owned(), last?]);
        let main = match base {
            Base::Empty => None,
            Base::Root => RootFiles::open(self.cx.root)?.text(settings::FILES.0)?,
        };
        if let Some(main) = main {
            let path = self.directory.join(format!("{name}-main.conf"));
            fs::write(&path, main).context("writing apt's configuration")?;
            argv.splice(1..1, ["-c".to_owned(), path.display().to_string()]);
        }
        Ok(())
    }

    /// Binds that show apt the same configuration in the place of the host's, so that no variable has to name it, which
    /// all that apt runs would have; `None` where they cannot.
    pub(super) fn configuration_in_place(&self) -> Result<Option<Vec<Bind>>> {
        let (main, parts) = settings::FILES;
        if self.cx.sandbox.isolation != Isolation::Namespaces || !Path::new(parts).is_dir() {
            return Ok(None);
        }
        // A link there leads to a directory of the root, or to none.
        let own = Inside::open(self.cx.root)?.resolve(Path::new(parts)).map(|own| self.cx.root.join(own));
        let own = own.ok().filter(|own| own.is_dir());
        let source = own.unwrap_or_else(|| self.etc(Base::Empty).join("apt.conf.d"));
        let mut binds = vec![Bind { source, target: parts.into(), read_only: true }];
        if Path::new(main).is_file() {
            let empty = self.directory.join("empty.conf");
            fs::write(&empty, "").context("writing apt's configuration")?;
            binds.push(Bind { source: empty, target: main.into(), read_only: true });
        }
        Ok(Some(binds))
    }

    /// Lays out what apt, and who gets out of the root that it enters, sees of the host's settings; the directory.
    pub(super) fn host_settings(&self) -> Result<PathBuf> {
        let directory = self.directory.join("host-etc");
        if !directory.exists() {
            system::copy_settings(&directory, "").context("laying out the settings that apt sees")?;
            let (main, parts) = settings::FILES;
            let below = |path: &str| directory.join(path.trim_start_matches("/etc/"));
            fs::create_dir_all(below(parts)).context("laying out the settings that apt sees")?;
            fs::write(below(main), "").context("laying out the settings that apt sees")?;
        }
        Ok(directory)
    }

    fn etc(&self, base: Base) -> PathBuf {
        match base {
            Base::Empty => self.directory.join("etc"),
            Base::Root => self.of_root("etc/apt"),
        }
    }

    /// Where something of the root is on the host, which an absolute link in it must not lead apt out of.
    fn of_root(&self, path: &str) -> PathBuf {
        let found = RootFiles::open(self.cx.root).and_then(|files| files.find(path));
        found.ok().flatten().unwrap_or_else(|| self.cx.root.join(path))
    }

    /// apt's whole configuration.
    fn config(&self, state: &Path, base: Base, more: &[String]) -> String {
        let own = &self.directory;
        let etc = self.etc(base);
        let (status, var) = match base {
            Base::Empty => (own.join("status"), own.join("state")),
            Base::Root => (self.of_root("var/lib/dpkg/status"), self.of_root("var/lib/apt")),
        };
        let mut lines = vec!["#clear APT::Architectures;".to_owned()];
        let mut set = |name: &str, value: &str| lines.push(format!("{name} {};", quote(value)));
        for (name, path) in [
            ("Dir::State", &var),
            ("Dir::State::lists", &state.join("lists")),
            ("Dir::State::status", &status),
            ("Dir::Cache", &own.join("cache")),
            ("Dir::Cache::archives", &self.debs.join("archives")),
            ("Dir::Cache::srcpkgcache", &state.join("cache/srcpkgcache.bin")),
            ("Dir::Etc", &etc),
            ("Dir::Etc::sourceparts", &state.join("sources.list.d")),
            ("Dir::Log", &own.join("log")),
        ] {
            set(name, &path.display().to_string());
        }
        let recommends = if self.options.recommends { "true" } else { "false" };
        for (name, value) in [
            // What is in it beyond the other one, the root's packages, is read in no time.
            ("Dir::Cache::pkgcache", ""),
            ("Dir::Etc::sourcelist", "/dev/null"),
            ("APT::Architecture", self.cx.architecture.name()),
            ("APT::Sandbox::User", "root"),
            ("APT::Install-Recommends", recommends),
            ("APT::Install-Suggests", "false"),
            ("APT::Get::Assume-Yes", "true"),
            ("APT::Color", "false"),
            ("APT::Cmd::Disable-Script-Warning", "true"),
            ("Acquire::Languages", "none"),
            // Else it shows only MD5 for a source that is trusted without its signature being looked at.
            ("Acquire::ForceHash", "sha256"),
            ("Dpkg::Use-Pty", "false"),
            ("Dpkg::Progress-Fancy", "false"),
        ] {
            set(name, value);
        }
        for architecture in &self.architectures {
            set("APT::Architectures::", architecture);
        }
        lines.extend(self.options.config.iter().chain(more).cloned());
        // With these apt would say that all is done.
        lines.extend(["Simulate", "Download-Only", "Print-URIs"].map(|name| format!("APT::Get::{name} \"false\";")));
        lines.join("\n") + "\n"
    }
}

/// A value as apt reads it: `%` and two hex digits stand for a byte.
fn quote(value: &str) -> String {
    format!("\"{}\"", value.replace('%', "%25").replace('"', "%22"))
}
