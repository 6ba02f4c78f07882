//! The states of repositories, fetched once per build.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::lists::{self, COMPRESSIONS};
use super::session::{CONNECTIONS, in_parallel};
use super::{Access, unavailable, verify};
use crate::build::inputs::ReleaseState;
use crate::build::{BuildContext, InputContext};
use crate::debian::release::{Release, clear_signed};
use crate::debian::sources::{SignedBy, Source, Sources, Suite, check_address};
use crate::debian::{Architecture, keyring};
use crate::diagnostics::{Fault, Remedy, fault_of};
use crate::store::Store;
use crate::store::fetch::{Fetched, Request};

/// What makes a repository trustworthy.
#[derive(Clone, Default)]
pub struct Trust {
    /// What sources are verified with that do not hold their keys.
    pub keys: Keys,
    /// Whether signatures are not looked at.
    pub unauthenticated: bool,
    /// Whether Release files past their `Valid-Until` are taken, as snapshots of the past need it.
    pub expired: bool,
    /// Architectures that the root has beside its own.
    pub foreign: Vec<String>,
    /// How to get at it.
    pub access: Access,
}

/// Keys that a repository may be signed with. What this machine trusts for its own is none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keys {
    /// For a bootstrap: keyrings of the recipe.
    Recipe(Vec<PathBuf>),
    /// For a bootstrap whose recipe names no keyring: this machine's, of Debian's archive, as an input.
    DebianArchive,
    /// Those that the root trusts for all repositories, binary; a file that a source names is in the root or nowhere.
    Root(Vec<u8>),
    /// The root's, which is still to be made: its step verifies, before it uses anything.
    Later,
}

impl Default for Keys {
    /// None.
    fn default() -> Self {
        Self::Recipe(Vec::new())
    }
}

impl Trust {
    /// For a bootstrap: the keyrings given, else this machine's of Debian's archive.
    pub fn new(keyrings: Vec<PathBuf>) -> Self {
        let keys = if keyrings.is_empty() { Keys::DebianArchive } else { Keys::Recipe(keyrings) };
        Self { keys, ..Self::default() }
    }

    /// Whether anything is taken from a source.
    fn is_for(&self, source: &Source, architecture: Architecture) -> bool {
        source.serves(architecture.name()) || self.foreign.iter().any(|name| source.serves(name))
    }

    /// Makes a keyring of this machine an input, where it verifies anything.
    pub fn add_keyring(&self, cx: &mut InputContext<'_>) -> Result<()> {
        if self.keys == Keys::DebianArchive && !self.unauthenticated {
            let path = debian_archive()?;
            let contents = fs::read(&path).with_context(|| format!("reading the keyring {}", path.display()))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            cx.add(format!("keyring {name} of this machine"), blake3::hash(&contents).to_hex().to_string());
        }
        Ok(())
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
    let served = || sources.0.iter().filter(|source| trust.is_for(source, architecture));
    let mut unknown: Vec<(&Source, Suite)> = Vec::new();
    for (source, suite) in served().flat_map(|source| source.suites().map(move |suite| (source, suite))) {
        if !cx.releases.contains_key(&suite.to_string()) && !unknown.iter().any(|(_, known)| *known == suite) {
            (cx.progress)(&format!("asking {suite}"));
            unknown.push((source, suite));
        }
    }
    let fetched = in_parallel(CONNECTIONS, &unknown, |(source, suite)| fetch(cx.store, source, suite, trust), |_| {})?;
    cx.releases.extend(unknown.iter().map(|(_, suite)| suite.to_string()).zip(fetched));
    if served().any(|source| source.trusted != Some(true) && !matches!(source.signed_by, Some(SignedBy::Key(_)))) {
        trust.add_keyring(cx)?;
    }
    for source in served() {
        for suite in source.suites() {
            let state = cx.releases.get(&suite.to_string()).cloned().context("a repository that was not asked")?;
            check(cx.store, source, &suite, &state, trust)?;
            cx.add(input_name(&suite), state.sha256);
        }
    }
    Ok(())
}

/// The Release file of a suite as it is now, verified.
pub(super) fn verified(
    store: &Store,
    source: &Source,
    suite: &Suite,
    trust: &Trust,
    progress: &mut dyn FnMut(&str),
) -> Result<Release> {
    let state = fetch(store, source, suite, trust)?;
    if let Some(warning) = state.warning(&suite.to_string()) {
        progress(&warning);
    }
    check(store, source, suite, &state, trust)
}

fn fetch(store: &Store, source: &Source, suite: &Suite, trust: &Trust) -> Result<ReleaseState> {
    check_address(&suite.uri).map_err(|error| Fault::recipe(format!("{error:#}")))?;
    let access = &trust.access;
    let file = match get(store, suite, "InRelease", access) {
        Ok(file) => file,
        // Small repositories have only the older form.
        Err(error) if is_absent(&error) => match get(store, suite, "Release", access) {
            Ok(file) => {
                // Now, since in a while there may be that of another Release file.
                if let Ok(signature) = get(store, suite, "Release.gpg", access) {
                    store.remember(&signature_key(&file.sha256), &signature.sha256.into());
                }
                file
            }
            Err(none) if is_absent(&none) && suite.is_flat() => {
                return stated(store, source, suite, trust)?.ok_or_else(|| unreachable(suite, &error));
            }
            Err(_) => return Err(unreachable(suite, &error)),
        },
        Err(error) => return Err(unreachable(suite, &error)),
    };
    let text = fs::read_to_string(&file.path).with_context(|| format!("reading the Release file of {suite}"))?;
    let release = parse(&text).with_context(|| format!("reading the Release file of {suite}"))?;
    let state = ReleaseState { sha256: file.sha256, date: release.date, lags: None };
    match newest(store, suite).filter(|known| known.state.date > state.date && !may_be_old(source, trust)) {
        Some(known) => in_force(store, source, suite, trust, state, known),
        None => Ok(state),
    }
}

/// Whether any state of a repository will do, as where it is one of the past.
fn may_be_old(source: &Source, trust: &Trust) -> bool {
    trust.expired || trust.unauthenticated || source.trusted == Some(true) || source.check_valid_until == Some(false)
}

fn newest_key(suite: &Suite) -> String {
    format!("newest Release of {suite}")
}

/// The newest state of a suite that a signature was seen of, and its bytes: making room in the store takes them.
#[derive(Serialize, Deserialize)]
struct Newest {
    state: ReleaseState,
    /// The Release file.
    text: String,
    /// The signature, in hex, where it is a file of its own.
    signature: Option<String>,
}

fn newest(store: &Store, suite: &Suite) -> Option<Newest> {
    serde_json::from_value(store.recall(&newest_key(suite))?).ok()
}

/// Keeps in mind that a state was there, and was signed.
fn keep_newest(store: &Store, suite: &Suite, state: &ReleaseState) {
    if newest(store, suite).is_some_and(|known| known.state.date > state.date) {
        return;
    }
    let Some(text) = store.blob(&state.sha256).and_then(|path| fs::read_to_string(path).ok()) else { return };
    let signature = store.recall(&signature_key(&state.sha256)).and_then(|digest| store.blob(digest.as_str()?));
    let signature = signature.and_then(|path| fs::read(path).ok()).map(hex::encode);
    let newest = Newest { state: ReleaseState { lags: None, ..state.clone() }, text, signature };
    if let Ok(newest) = serde_json::to_value(newest) {
        store.remember(&newest_key(suite), &newest);
    }
}

impl Newest {
    /// Puts its bytes back into the store where they are no longer there; whether they are what they were.
    fn put_back(&self, store: &Store) -> Result<bool> {
        if let Some(signature) = &self.signature {
            let signature = store.keep_bytes(&hex::decode(signature).unwrap_or_default())?;
            store.remember(&signature_key(&self.state.sha256), &signature.into());
        }
        Ok(store.keep_text(&self.text)? == self.state.sha256)
    }
}

/// What holds where a server has an older state than it had: the newer one, as to apt. Whoever can change what is
/// sent cannot have builds go back to packages with known faults.
fn in_force(
    store: &Store,
    source: &Source,
    suite: &Suite,
    trust: &Trust,
    now: ReleaseState,
    known: Newest,
) -> Result<ReleaseState> {
    let whole = known.put_back(store)?;
    let known = known.state;
    if !whole {
        return Err(Fault::failed(format!(
            "the Release file of {suite} is of {}, and one of {} was seen before, which the store no longer has",
            moment(now.date),
            moment(known.date)
        ))
        .hint("the mirror lags: try again later, or name another")
        .hint("where an old state is what you want, say `check-valid-until: false`, or use `snapshot`")
        .into());
    }
    // One that was signed with other keys is of another repository at this address.
    if verify_signature(store, source, suite, &known.sha256, trust).is_err() {
        return Ok(now);
    }
    Ok(ReleaseState { lags: Some(now.date), ..known })
}

/// The state of a directory that has packages and their list, and no Release file: one that states the list as it is
/// now. Nobody has signed it, so it has to be trusted.
fn stated(store: &Store, source: &Source, suite: &Suite, trust: &Trust) -> Result<Option<ReleaseState>> {
    let get = |name: &str| get(store, suite, name, &trust.access);
    for compression in COMPRESSIONS {
        let name = format!("Packages{compression}");
        let list = match get(&name) {
            Err(error) if is_absent(&error) => continue,
            Err(error) => return Err(unavailable(&format!("the package lists of {suite}"), &error)),
            Ok(list) => list,
        };
        if source.trusted != Some(true) && !trust.unauthenticated {
            return Err(Fault::failed(format!(
                "the repository {suite} has no Release file, so nothing says whose it is"
            ))
            .hint("if you trust it all the same, say `trusted: true` (`[trusted=yes]` in a line of sources.list)")
            .into());
        }
        let text = format!("Date: Thu, 01 Jan 1970 00:00:00 UTC\nSHA256:\n {} {} {name}\n", list.sha256, list.size);
        return Ok(Some(ReleaseState { sha256: store.keep_text(&text)?, date: i64::MIN, lags: None }));
    }
    Ok(None)
}

/// Where the store has the digest of the signature that came with a Release file.
fn signature_key(release: &str) -> String {
    format!("signature of Release {release}")
}

/// The signature that came with a Release file; where the store has lost it, the one that is there now.
fn signature(store: &Store, suite: &Suite, release: &str, access: &Access) -> Result<Vec<u8>> {
    let known = store.recall(&signature_key(release)).and_then(|digest| store.blob(digest.as_str()?));
    let path = match known {
        Some(path) => path,
        None => get(store, suite, "Release.gpg", access)?.path,
    };
    fs::read(path).context("reading Release.gpg")
}

fn get(store: &Store, suite: &Suite, name: &str, access: &Access) -> Result<Fetched> {
    let url = format!("{}{name}", suite.base());
    let limit = if name.starts_with("Packages") { lists::LARGEST } else { LARGEST };
    store.fetch(&Request { limit: Some(limit), ..access.request(&url, None) }, &mut |_, _| {})
}

/// Whether there is a server (or directory), but not this file.
pub(super) fn is_absent(error: &anyhow::Error) -> bool {
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

/// Verifies that the Release files which a step was planned with are signed with keys of the root that it works on.
pub(super) fn verify_in_root(cx: &BuildContext<'_>, sources: &Sources, trust: &Trust) -> Result<()> {
    for source in sources.0.iter().filter(|source| trust.is_for(source, cx.architecture)) {
        for suite in source.suites() {
            // Of one that the plan does not know nothing is taken.
            if let Some(sha256) = cx.input(&input_name(&suite)) {
                let file = verify_signature(cx.store, source, &suite, sha256, trust)?;
                if !may_be_old(source, trust) {
                    let state = ReleaseState { sha256: sha256.to_owned(), date: parse(&file)?.date, lags: None };
                    keep_newest(cx.store, &suite, &state);
                }
            }
        }
    }
    Ok(())
}

/// The largest Release file (or signature) that is read, in bytes, as apt has it (`Acquire::MaxReleaseFileSize`).
const LARGEST: u64 = 10_000_000;

/// How much the clocks of a mirror and of this machine may differ, in seconds.
const FAST: i64 = 60;

/// Verifies signature, age, and that it is what was asked for.
fn check(store: &Store, source: &Source, suite: &Suite, state: &ReleaseState, trust: &Trust) -> Result<Release> {
    let file = verify_signature(store, source, suite, &state.sha256, trust)?;
    let release = parse(&file)?;
    let now = jiff::Timestamp::now().as_second();
    if release.date > now + FAST {
        return Err(Fault::failed(format!(
            "the Release file of {suite} is of {}, which is still to come",
            day(release.date)
        ))
        .hint("the clock of this machine is slow, or the mirror's is fast")
        .into());
    }
    if source.trusted != Some(true) && !trust.unauthenticated && !suite.is_named(&[&release.suite, &release.codename]) {
        let names: Vec<String> = [&release.suite, &release.codename].map(|name| format!("`{name}`")).into();
        return Err(Fault::failed(format!(
            "the repository {suite} calls itself {}: it is another than was asked for",
            names.join(" and ")
        ))
        .hint("name the suite as it does; or, if it is the right one, say `trusted: true` (`[trusted=yes]` in a line of sources.list)")
        .into());
    }
    match release.valid_until {
        Some(end) if end < now && !trust.expired && source.check_valid_until != Some(false) => {
            Err(Fault::failed(format!("the Release file of {suite} has expired on {}", day(end)))
                .hint("a mirror that is no longer brought up to date hides security updates: choose another one")
                .hint("where an old state is what you want, say `check-valid-until: false`, for the bootstrap or a repository of `apt`; `Check-Valid-Until: no` in a `.sources` file of the root; or `snapshot`")
                .into())
        }
        _ => {
            if !may_be_old(source, trust) && trust.keys != Keys::Later {
                keep_newest(store, suite, state);
            }
            Ok(release)
        }
    }
}

/// A moment, to the minute.
fn moment(moment: i64) -> String {
    let time = jiff::Timestamp::from_second(moment).unwrap_or_default();
    time.strftime("%Y-%m-%d %H:%M (UTC)").to_string()
}

/// The date of a moment, in seconds since 1970.
fn day(moment: i64) -> String {
    jiff::Timestamp::from_second(moment).map(|time| time.strftime("%Y-%m-%d").to_string()).unwrap_or_default()
}

/// The Release file by its digest, verified.
fn verify_signature(store: &Store, source: &Source, suite: &Suite, sha256: &str, trust: &Trust) -> Result<String> {
    let path = store.blob(sha256).with_context(|| format!("the store lost the Release file of {suite}"))?;
    let file = fs::read_to_string(&path).with_context(|| format!("reading the Release file of {suite}"))?;
    if source.trusted == Some(true) || trust.unauthenticated {
        return Ok(file);
    }
    let Some(keys) = keys_for(source, suite, trust)? else { return Ok(file) };
    if is_clear_signed(&file) {
        let parts = clear_signed(&file).with_context(|| format!("reading the Release file of {suite}"))?;
        verify::detached(suite, parts.text.as_bytes(), parts.signature.as_bytes(), &keys)?;
    } else {
        let signature = signature(store, suite, sha256, &trust.access).map_err(|_| {
            Fault::failed(format!("the repository {suite} is not signed"))
                .hint("if you trust it all the same, say `unauthenticated: true`")
        })?;
        verify::detached(suite, file.as_bytes(), &signature, &keys)?;
    }
    Ok(file)
}

fn shown(files: &[PathBuf]) -> String {
    let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    if files.is_empty() { "any trusted keyring".to_owned() } else { files.join(", ") }
}

/// This machine's keyring of Debian's archive.
fn debian_archive() -> Result<PathBuf> {
    keyring::host_debian().ok_or_else(|| {
        Fault::machine("the recipe names no keyring, and this machine has none of Debian's archive")
            .hint("apt install debian-archive-keyring")
            .hint("or give the bootstrap the archive's keys: `keyring-files`, `keyring-file`")
            .into()
    })
}

/// The keys that may have signed a source, as one binary keyring; `None` where only the root will tell.
fn keys_for(source: &Source, suite: &Suite, trust: &Trust) -> Result<Option<Vec<u8>>> {
    if let Some(SignedBy::Key(key)) = &source.signed_by {
        return keyring::binary(key.as_bytes()).with_context(|| format!("reading the key of {suite}")).map(Some);
    }
    let names = match &source.signed_by {
        Some(SignedBy::Named(names)) => names.as_slice(),
        _ => &[],
    };
    let (files, fingerprints) =
        keyring::named(names).with_context(|| format!("reading `Signed-By` of the repository {suite}"))?;
    let keyrings = match &trust.keys {
        Keys::Later => return Ok(None),
        Keys::Root(keys) if names.is_empty() && keys.is_empty() => {
            return Err(Fault::recipe(format!("the root has no key to verify the repository {suite} with"))
                .hint("name its keyring: `signed-by` of the repository, a file beside the recipe")
                .hint("Debian's are in the package debian-archive-keyring, for a step before")
                .into());
        }
        Keys::Root(keys) if names.is_empty() => return Ok(Some(keys.clone())),
        // What the root has of them stands in the source itself.
        Keys::Root(_) => {
            let what = if files.is_empty() { fingerprints.join(", ") } else { shown(&files) };
            return Err(Fault::recipe(format!(
                "the repository {suite} is to be signed by a key of {what}, which the root does not have"
            ))
            .hint("put the keyring there before: by an `overlay`, or by the package that has it")
            .into());
        }
        Keys::Recipe(keyrings) => keyrings.clone(),
        Keys::DebianArchive => vec![debian_archive()?],
    };
    let keyrings = chosen(&keyrings, &files, suite)?;
    let mut keys = Vec::new();
    for path in &keyrings {
        let contents = fs::read(path).with_context(|| format!("reading the keyring {}", path.display()))?;
        keys.extend(keyring::binary(&contents).with_context(|| format!("reading the keyring {}", path.display()))?);
    }
    let keys = keyring::with_fingerprints(keys, &fingerprints)?;
    if keys.is_empty() {
        let wanted = if fingerprints.is_empty() { "its key".to_owned() } else { fingerprints.join(", ") };
        return Err(Fault::recipe(format!(
            "the repository {suite} is to be signed by {wanted}, which is not in {}",
            shown(&keyrings)
        ))
        .hint("give the bootstrap the keyring that has it: `keyring-files`")
        .into());
    }
    Ok(Some(keys))
}

/// Those of a bootstrap's keyrings that a source means by the names that they will have in the root; all of them
/// where it names none. A file of the host is never meant.
fn chosen(keyrings: &[PathBuf], files: &[PathBuf], suite: &Suite) -> Result<Vec<PathBuf>> {
    if files.is_empty() {
        return Ok(keyrings.to_vec());
    }
    let mut found = Vec::new();
    for file in files {
        let same = |keyring: &&PathBuf| keyring.file_stem() == file.file_stem();
        let Some(keyring) = keyrings.iter().find(same) else {
            return Err(Fault::recipe(format!(
                "the repository {suite} is to be signed by a key of {}, which is a file of the finished system",
                file.display()
            ))
            .hint("have the recipe bring the keyring: name a file of the same name under `keyring-files`")
            .into());
        };
        found.push(keyring.clone());
    }
    Ok(found)
}
