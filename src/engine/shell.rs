//! A shell of the user's in the root.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use super::Build;
use super::root::Root;
use crate::build::{Event, Reporter};
use crate::diagnostics::Fault;
use crate::sandbox::{Command, Input, Told, View};
use crate::store::EntryId;

/// A shell in the root as it stands; what it changes is thrown away.
pub(super) fn in_root(
    root: &mut Root<'_>,
    steps: &[EntryId],
    build: &Build,
    environment: &BTreeMap<String, String>,
    shell: &str,
    reporter: &dyn Reporter,
) -> Result<()> {
    let workspace = root.throwaway(steps)?;
    root.protect(&workspace)?;
    run(workspace.path(), Told::Constant, build, environment, shell, reporter)
}

/// A shell in a root.
pub(super) fn run(
    root: &Path,
    told: Told,
    build: &Build,
    environment: &BTreeMap<String, String>,
    shell: &str,
    reporter: &dyn Reporter,
) -> Result<()> {
    let mut all = crate::build::command::fixed_environment();
    all.extend(environment.iter().map(|(k, v)| (k.clone(), v.clone())));
    all.insert("TERM".into(), std::env::var("TERM").unwrap_or_else(|_| "dumb".into()));
    all.insert("debian_chroot".into(), "debforge".into());
    let command = Command {
        argv: vec![shell.to_owned(), "-i".into()],
        environment: all,
        directory: None,
        view: View::Chroot { root: root.to_owned() },
        binds: Vec::new(),
        network: true,
        input: Input::Terminal,
        uniform: None,
        remounts: false,
        told,
    };
    reporter.report(Event::Terminal { taken: true });
    let exit = crate::build::command::interactive(&build.sandbox, &command);
    reporter.report(Event::Terminal { taken: false });
    exit.map(|_| ()).map_err(|error| {
        let reason = crate::diagnostics::fault_of(&error).message;
        Fault::failed(format!("opening a shell: {reason}")).hint("name another one with `--shell`").into()
    })
}
