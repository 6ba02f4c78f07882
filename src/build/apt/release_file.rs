//! The states of repositories, fetched once per build.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{Logins, verify};
use crate::build::InputContext;
use crate::build::inputs::ReleaseState;
use crate::debian::keyring;
use crate::debian::release::{Release, clear_signed};
use crate::debian::sources::{SignedBy, Source, Sources, Suite, check_address};
use crate::diagnostics::{Fault, Remedy, fault_of};
use crate::store::Store;
use crate::store::fetch::{Fetched, Request};

/// What makes a repository trustworthy.
#[derive(Clone, Default)]
pub struct Trust {
    /// Keyring files for sources that name none.
    pub keyrings: Vec<PathBuf>,
    /// Whether signatures are not looked at.
    pub unauthenticated: bool,
    /// Whether Release files past their `Valid-Until` are taken, as snapshots of the past need it.
    pub expired: bool,
    /// How to log in.
    pub logins: Logins,
}

impl Trust {
    /// The keyrings given, else those of this machine for Debian's archive.
    pub fn new(keyrings: Vec<PathBuf>) -> Self {
        let keyrings = if keyrings.is_empty() { keyring::host_debian() } else { keyrings };
        Self { keyrings, ..Self::default() }
    }
}

/// The input that stands for a suite's state.
pub(super) fn input_name(suite: &Suite) -> String {
    format!("repository {suite}")
}

/// Fetches the Release file of every suite that has packages for the architecture (once per build),
/// verifies it, and makes its digest an input.
pub fn add_repositories(cx: &mut InputContext<'_>, sources: &Sources, trust: &Trust) -> Result<()> {
    let architecture = cx.architecture;
    for source in sources.0.iter().filter(|source| source.serves(architecture)) {
        for suite in source.suites() {
            let state = match cx.releases.get(&suite.to_string()) {
                Some(state) => state.clone(),
                None => {
                    (cx.progress)(&format!("asking {suite}"));
                    let state = fetch(cx.store, &suite, &trust.logins)?;
                    cx.releases.insert(suite.to_string(), state.clone());
                    state
                }
            };
            check(cx.store, source, &suite, &state, trust)?;
            cx.add(input_name(&suite), state.sha256);
        }
    }
    Ok(())
}

/// The Release file of a suite as it is now, verified.
pub(super) fn verified(store: &Store, source: &Source, suite: &Suite, trust: &Trust) -> Result<Release> {
    let state = fetch(store, suite, &trust.logins)?;
    check(store, source, suite, &state, trust)
}

fn fetch(store: &Store, suite: &Suite, logins: &Logins) -> Result<ReleaseState> {
    check_address(&suite.uri).map_err(|error| Fault::recipe(format!("{error:#}")))?;
    let file = match get(store, suite, "InRelease", logins) {
        Ok(file) => file,
        // Small repositories have only the older form.
        Err(error) if is_absent(&error) => match get(store, suite, "Release", logins) {
            Ok(file) => file,
            Err(_) => return Err(unreachable(suite, &error)),
        },
        Err(error) => return Err(unreachable(suite, &error)),
    };
    let text = fs::read_to_string(&file.path).with_context(|| format!("reading the Release file of {suite}"))?;
    let release = parse(&text).with_context(|| format!("reading the Release file of {suite}"))?;
    Ok(ReleaseState { sha256: file.sha256, date: release.date })
}

fn get(store: &Store, suite: &Suite, name: &str, logins: &Logins) -> Result<Fetched> {
    let url = format!("{}{name}", suite.base());
    let request = Request { credentials: logins.of(&url), url, repository: true, ..Request::default() };
    store.fetch(&request, &mut |_, _| {})
}

/// Whether there is a server (or directory), but not this file.
fn is_absent(error: &anyhow::Error) -> bool {
    fault_of(error).remedy == Remedy::LookElsewhere
}

fn unreachable(suite: &Suite, error: &anyhow::Error) -> anyhow::Error {
    let mut fault = fault_of(error);
    fault.message = format!("could not get the Release file of {suite}: {}", fault.message);
    fault.hint("is the address right, does the suite exist there, and can this machine reach it?").into()
}

/// What a Release file says, whether it is signed inside or not.
pub(super) fn parse(file: &str) -> Result<Release> {
    if is_clear_signed(file) { Release::parse(&clear_signed(file)?.text) } else { Release::parse(file) }
}

fn is_clear_signed(file: &str) -> bool {
    file.starts_with("-----BEGIN PGP SIGNED MESSAGE-----")
}

/// Verifies signature and age.
fn check(store: &Store, source: &Source, suite: &Suite, state: &ReleaseState, trust: &Trust) -> Result<Release> {
    let path = store.blob(&state.sha256).with_context(|| format!("the store lost the Release file of {suite}"))?;
    let file = fs::read_to_string(&path).with_context(|| format!("reading the Release file of {suite}"))?;
    if source.trusted != Some(true) && !trust.unauthenticated {
        let keys = keys_for(source, suite, trust)?;
        if is_clear_signed(&file) {
            let parts = clear_signed(&file).with_context(|| format!("reading the Release file of {suite}"))?;
            verify::detached(suite, parts.text.as_bytes(), parts.signature.as_bytes(), &keys)?;
        } else {
            let signature = get(store, suite, "Release.gpg", &trust.logins).map_err(|_| {
                Fault::failed(format!("the repository {suite} is not signed"))
                    .hint("if you trust it all the same, say `unauthenticated: true`")
            })?;
            let signature = fs::read(&signature.path).context("reading Release.gpg")?;
            verify::detached(suite, file.as_bytes(), &signature, &keys)?;
        }
    }
    let release = parse(&file)?;
    let now = jiff::Timestamp::now().as_second();
    match release.valid_until {
        Some(end) if end < now && !trust.expired && source.check_valid_until != Some(false) => {
            let end = jiff::Timestamp::from_second(end).map(|t| t.strftime("%Y-%m-%d").to_string()).unwrap_or_default();
            Err(Fault::failed(format!("the Release file of {suite} has expired on {end}"))
                .hint("a mirror that is no longer brought up to date hides security updates: choose another one")
                .hint("where an old state is what you want, say `check-valid-until: false` for the repository")
                .into())
        }
        _ => Ok(release),
    }
}

fn shown(files: &[PathBuf]) -> String {
    let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    if files.is_empty() { "any trusted keyring".to_owned() } else { files.join(", ") }
}

/// The keys that may have signed a source, as one binary keyring.
fn keys_for(source: &Source, suite: &Suite, trust: &Trust) -> Result<Vec<u8>> {
    let mut keys = Vec::new();
    let mut read = |path: &std::path::Path| -> Result<()> {
        let contents = fs::read(path).with_context(|| format!("reading the keyring {}", path.display()))?;
        keys.extend(keyring::binary(&contents).with_context(|| format!("reading the keyring {}", path.display()))?);
        Ok(())
    };
    match &source.signed_by {
        Some(SignedBy::Key(key)) => {
            return keyring::binary(key.as_bytes()).with_context(|| format!("reading the key of {suite}"));
        }
        Some(SignedBy::Named(names)) => {
            let (files, fingerprints) = keyring::named(names, &trust.keyrings)
                .with_context(|| format!("reading `Signed-By` of the repository {suite}"))?;
            for file in &files {
                read(file)?;
            }
            keys = keyring::with_fingerprints(keys, &fingerprints)?;
            if keys.is_empty() && !fingerprints.is_empty() {
                let (fingerprints, files) = (fingerprints.join(", "), shown(&files));
                return Err(Fault::recipe(format!(
                    "the repository {suite} is to be signed by the key {fingerprints}, which is not in {files}"
                ))
                .hint("name the file of a keyring that has it in `Signed-By` too")
                .into());
            }
        }
        None => {
            for path in &trust.keyrings {
                read(path)?;
            }
        }
    }
    if keys.is_empty() {
        return Err(Fault::recipe(format!("there is no key to verify the repository {suite} with"))
            .hint("name its keyring (`signed-by`, `keyring-files`), or install debian-archive-keyring")
            .into());
    }
    Ok(keys)
}
