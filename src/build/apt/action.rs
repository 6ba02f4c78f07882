//! What the actions that install packages share.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::release_file::verify_in_root;
use super::repository::write_file;
use super::root;
use super::{Access, Apt, Keys, Options, Settings, Trust, add_repositories, first_start};
use crate::build::cleanup::{self, Volatile};
use crate::build::files::RootFiles;
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::debian::host;
use crate::debian::sources::Sources;
use crate::diagnostics::{Diagnostics, Fault};

/// A pin, as in apt_preferences(5).
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Pin {
    /// Packages it is about.
    pub package: String,
    /// `release n=trixie-backports`, `version 1.2*`, `origin HOST`.
    pub pin: String,
    /// 1 to 1000 and beyond, or negative to forbid.
    pub priority: i32,
}

impl Pin {
    /// Reports what apt would not understand.
    pub fn check(&self, place: &str, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        let kind = self.pin.split_whitespace().next().unwrap_or_default();
        if !matches!(kind, "release" | "version" | "origin") || self.pin.trim() == kind {
            let hint = "say `release n=SUITE`, `version 1.2*` or `origin HOST`";
            out.push(cx.error(&format!("{place}.pin"), format!("`{}` is no pin", self.pin)).hint(hint));
        }
        if self.package.trim().is_empty() || self.package.contains('\n') {
            out.push(cx.error(&format!("{place}.package"), "a pin needs packages").hint("`*` means all"));
        }
        if self.priority == 0 {
            out.push(cx.error(&format!("{place}.priority"), "apt gives no meaning to the priority 0"));
        }
    }
}

/// Writes pins where apt reads them, after those that are there from an earlier step.
pub fn write_preferences(root: &Path, pins: &[Pin]) -> Result<()> {
    if pins.is_empty() {
        return Ok(());
    }
    let path = "/etc/apt/preferences.d/debforge";
    let mut all = RootFiles::open(root)?.text(path)?.unwrap_or_default();
    for pin in pins {
        if !all.is_empty() {
            all.push('\n');
        }
        all.push_str(&format!("Package: {}\nPin: {}\nPin-Priority: {}\n", pin.package, pin.pin, pin.priority));
    }
    write_file(root, path, all.as_bytes())
}

/// Whose settings apt's are.
const ROOT_SETS: &str = "apt's configuration in the root";

/// What installing packages needs on the host: programs, and the packages that have them.
pub const TOOLS: [(&str, &str); 3] = [("apt-get", "apt"), ("dpkg", "dpkg"), ("gpgv", "gpgv")];

/// Reports an installation before there is anything to install into.
pub fn check_root(cx: &CheckContext<'_>, out: &mut Diagnostics) {
    if !cx.has_root {
        out.push(
            cx.error("", "there is no root to install packages into")
                .hint("put a bootstrap (mmdebstrap, debootstrap) or an `unpack` before"),
        );
    }
}

/// Why a word on apt's command line is no package.
pub fn check_package(word: &str) -> Result<(), &'static str> {
    if word.starts_with(['?', '~', '!']) {
        return Ok(());
    }
    if word.starts_with('-') {
        return Err("it looks like an option");
    }
    if word.contains(char::is_whitespace) {
        return Err("it has a space in it");
    }
    let end = word.find(['=', '/', ':', '^']).unwrap_or(word.len());
    let (name, rest) = word.split_at(end);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("package names are lower-case");
    }
    if name.len() < 2
        || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.*".contains(&byte))
    {
        return Err("names have at least two of `a-z 0-9 + - .`");
    }
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b".+~:-_*=/^".contains(&byte);
    if !rest.is_empty() && rest != "^" && (rest.len() < 2 || !rest.bytes().all(known)) {
        return Err("after the name there is `=VERSION`, `/SUITE` or `:ARCHITECTURE`");
    }
    Ok(())
}

/// The inputs of an installation: the states of the root's repositories and of `own`.
pub fn add_inputs(cx: &mut InputContext<'_>, mut own: Sources, access: Access, unauthenticated: bool) -> Result<()> {
    for tool in ["apt", "dpkg"] {
        cx.add(format!("tool {tool}"), host::tool_state(tool, tool));
    }
    let root = cx.apt_sources.context("what the root's repositories are was asked before the root was there")?;
    let mut sources = Sources::from_deb822(root).context("reading the root's repositories")?;
    let settings = Settings::from_text(root)?;
    settings.apply(&mut own);
    sources.0.extend(own.0);
    settings.check(&sources, ROOT_SETS)?;
    let access = access.with(&settings);
    let trust = Trust { keys: Keys::Later, unauthenticated, expired: false, foreign: settings.architectures, access };
    add_repositories(cx, &sources, &trust)
}

/// Runs `apt-get ARGS` for the root with its own repositories and `own`; what to show for it.
pub fn install(
    cx: &BuildContext<'_>,
    mut own: Sources,
    mut options: Options,
    args: &[String],
    local: &[(PathBuf, PathBuf)],
) -> Result<String> {
    let (mut sources, trusted, settings) = root::read(cx.root).context("reading the root's repositories")?;
    settings.apply(&mut own);
    options.access = options.access.with(&settings);
    if let Some(suite) = sources.signed_differently() {
        return Err(Fault::recipe(format!("the root has {suite} twice, with different keys: apt reads no such list"))
            .hint("`signed-by` (in files of the root: `Signed-By`) is to be the same wherever a suite is named, or nowhere")
            .hint("a repository with `keep: false` is not written into the root")
            .into());
    }
    for source in own.0 {
        // A repository that the root keeps was written before and is there already.
        if !sources.0.iter().any(|other| {
            (&other.uris, &other.suites, &other.components) == (&source.uris, &source.suites, &source.components)
        }) {
            sources.0.push(source);
        }
    }
    settings.check(&sources, ROOT_SETS)?;
    for name in settings.unheeded() {
        cx.warn(format!(
            "{ROOT_SETS} sets `{name}`, which has no effect: packages are fetched by debforge, not by apt"
        ));
    }
    let keys = Keys::Root(trusted);
    let (unauthenticated, access) = (options.unauthenticated, options.access.clone());
    let foreign = settings.architectures;
    verify_in_root(cx, &sources, &Trust { keys, unauthenticated, expired: false, foreign, access })?;
    let keys = first_start::host_keys(cx.root);
    let volatile = Volatile::before(cx.root)?;
    let mut apt = Apt::open(cx, sources, options)?;
    let (packages, bytes) = apt.installed()?;
    apt.update()?;
    apt.install(args, local)?;
    let made: BTreeSet<_> = first_start::host_keys(cx.root).difference(&keys).cloned().collect();
    first_start::renew_host_keys(cx, &made)?;
    cleanup::after_packages(cx.root)?;
    volatile.remove_new(cx.root)?;
    let (packages_now, bytes_now) = apt.installed()?;
    let added = packages_now as i64 - packages as i64;
    let megabytes = (bytes_now as f64 - bytes as f64) / 1e6;
    Ok(format!("{added:+} packages, {megabytes:.0} MB"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn knows_packages_from_other_words() {
        for good in [
            "bash",
            "g++",
            "libc6:arm64",
            "bash=5.2-3+b1",
            "vim/trixie-backports",
            "?essential",
            "~nfoo",
            "task-x^",
            "lib*",
            "vim-",
        ] {
            assert_eq!(check_package(good), Ok(()), "{good}");
        }
        for bad in ["", "a", "Bash", "--force", "bash vim", "ba$h", "bash=", "bäsh"] {
            assert!(check_package(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pins_add_up() {
        let root = tempfile::tempdir().unwrap();
        let pin = |package: &str| Pin { package: package.into(), pin: "release n=x".into(), priority: 5 };
        write_preferences(root.path(), &[pin("a"), pin("b")]).unwrap();
        write_preferences(root.path(), &[pin("c")]).unwrap();
        let text = fs::read_to_string(root.path().join("etc/apt/preferences.d/debforge")).unwrap();
        assert_eq!(text.matches("\n\nPackage: ").count(), 2);
        assert!(text.ends_with("Package: c\nPin: release n=x\nPin-Priority: 5\n"));
    }
}
