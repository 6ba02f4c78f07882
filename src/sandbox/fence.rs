//! What the kernel keeps a command from beside its namespaces, or in their place (landlock(7)).
//!
//! A command that has the host's network would have the host's abstract sockets too. Where there are no namespaces,
//! it would signal and trace the host's processes, and who gets out of a root by a chroot of his own would find the
//! host's files: there it opens what it is shown and nothing else, by whatever way it came.

use std::path::PathBuf;

use anyhow::{Context, Result};
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope,
};

use super::plain::shown_paths;
use super::{Command, Isolation, View, powers};

/// The first version that knows of giving a file another name in another directory, which dpkg does all the time
/// (Linux 5.19).
const FILES: ABI = ABI::V2;

fn rules() -> Ruleset {
    Ruleset::default().set_compatibility(CompatLevel::HardRequirement)
}

fn knows_files() -> bool {
    rules().handle_access(AccessFs::from_all(FILES)).is_ok()
}

/// Since Linux 6.12.
fn knows(scope: Scope) -> bool {
    rules().scope(scope).is_ok()
}

/// Whether abstract sockets of others can be kept from a command that has their network.
pub(super) fn keeps_sockets_apart() -> bool {
    knows(Scope::AbstractUnixSocket)
}

/// What nothing keeps commands from here, where they have no namespaces.
pub fn missing() -> Option<&'static str> {
    match (knows_files(), knows(Scope::AbstractUnixSocket)) {
        (true, true) => None,
        (true, false) => Some("abstract sockets"),
        (false, _) => Some("files and abstract sockets"),
    }
}

/// Puts it around this process, for what it becomes.
pub(super) fn raise(command: &Command, isolation: Isolation) -> Result<()> {
    let plain = isolation == Isolation::Chroot;
    if !powers::held(command) || !(plain || command.network) {
        return Ok(());
    }
    let doing = "keeping it from the host's processes and files";
    let shown = if plain && knows_files() { open_to(command) } else { None };
    let mut rules = rules();
    if shown.is_some() {
        rules = rules.handle_access(AccessFs::from_all(FILES)).context(doing)?;
    }
    let scopes = [(Scope::AbstractUnixSocket, true), (Scope::Signal, plain)];
    let scopes: Vec<Scope> =
        scopes.into_iter().filter(|(scope, wanted)| *wanted && knows(*scope)).map(|(scope, _)| scope).collect();
    if shown.is_none() && scopes.is_empty() {
        return Ok(());
    }
    for scope in scopes {
        rules = rules.scope(scope).context(doing)?;
    }
    let mut rules = rules.create().context(doing)?;
    for (path, access) in shown.unwrap_or_default() {
        // What is not there is not to be reached.
        let Ok(place) = PathFd::new(&path) else { continue };
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(FILES) };
        rules = rules.add_rule(PathBeneath::new(place, access)).context(doing)?;
    }
    // Who is not root over the sandbox may do so only if its programs gain nothing, as with filters.
    let again = rules.try_clone().context(doing)?;
    let raised = rules.no_new_privs(false).restrict_self();
    raised.or_else(|_| again.no_new_privs(true).restrict_self()).context(doing)?;
    Ok(())
}

/// Paths that a command opens, as this process sees them, and what it may do there; `None` where that is not known.
fn open_to(command: &Command) -> Option<Vec<(PathBuf, BitFlags<AccessFs>)>> {
    let (all, read) = (AccessFs::from_all(FILES), AccessFs::from_read(FILES));
    match &command.view {
        // It is in its root already.
        View::Chroot { .. } => Some(vec![("/".into(), all)]),
        view @ View::HostPrograms { .. } => {
            let shown = shown_paths(view, &command.binds)?;
            let paths = shown.into_iter().map(|(path, writable)| (path, if writable { all } else { read }));
            // Names are no secret.
            Some(paths.chain([("/".into(), AccessFs::ReadDir.into())]).collect())
        }
        View::Host { .. } => None,
    }
}
