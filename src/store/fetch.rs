//! Everything fetched over HTTP: retried, resumed, bounded in time, kept by digest.
//!
//! What a file is, its bytes say: without a digest they are fetched anew each time, whatever a server says of
//! times and tags (a mirror's clock may stand still or go back), and from the start, since two versions
//! could not be told apart in one file. With a digest, transfers go on where they broke off.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256, Sha512};
use url::Url;

use super::http::{Answer, Asked, Failure, Validators, percent_decode};
use super::lock::{MakeLock, check_cancelled};
use super::size::{free_space, human};
use super::{ROOM, Store};
use crate::diagnostics::{Fault, Remedy};
use crate::sys::remove::make_way;

pub(super) use super::http::Fetcher;

/// How often a transfer that does not move on is tried again.
const ATTEMPTS: u32 = 4;
/// The bytes by which one moves on.
const PROGRESS: u64 = 64 * 1024;
/// The slowest that a server may send, in bytes per second: it could go on for ever.
const SLOWEST: f64 = 1024.0;
/// The pause before the second attempt; doubled before each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(400);

/// Where files stand under their SHA-256.
pub(super) const BLOBS: &str = "blobs/sha256";
/// Where their SHA-512 leads to it.
pub(super) const BLOBS_BY_SHA512: &str = "blobs/sha512";

/// What is to be fetched.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Request {
    /// http, https or file.
    pub url: String,
    /// Hex digits in any case; checked, and with it nothing is asked of the network when the store has the file.
    pub sha256: Option<String>,
    /// The same for SHA-512.
    pub sha512: Option<String>,
    /// Sent as Basic authentication; never part of an error, a log or a record.
    pub credentials: Option<(String, String)>,
    /// The most bytes that it may have, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// Whether it is a file of a package repository, which apt's proxies are for.
    pub repository: bool,
    /// apt's settings of proxies that go before this machine's, by their names below `Acquire`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub proxies: Vec<(String, String)>,
}

/// A file of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Read-only file in the store.
    pub path: PathBuf,
    /// Of its contents, lower-case hex.
    pub sha256: String,
    /// In bytes.
    pub size: u64,
    /// Whether bytes came over the network now.
    pub transferred: bool,
}

/// What the store knows of a URL's last answer: where to look for a file whose SHA-512 alone is known.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Known {
    sha256: String,
    /// The last part of the address.
    #[serde(default)]
    name: String,
}

/// A request whose parts are known to be sound.
struct Wanted {
    /// Without credentials.
    url: Url,
    sha256: Option<String>,
    sha512: Option<String>,
    limit: Option<u64>,
    credentials: Option<(String, String)>,
    repository: bool,
    proxies: Vec<(String, String)>,
    /// Names what the store keeps for the URL.
    key: String,
}

impl Wanted {
    fn new(request: &Request) -> Result<Self> {
        let mut url = Url::parse(&request.url).map_err(|error| {
            // The text may hold credentials, so it is not repeated.
            Fault::recipe(format!("a URL to fetch cannot be read: {error}"))
        })?;
        let inline = (!url.username().is_empty() || url.password().is_some()).then(|| {
            let decode = |text: &str| percent_decode(text);
            (decode(url.username()), decode(url.password().unwrap_or_default()))
        });
        let _ = url.set_username("");
        let _ = url.set_password(None);
        if !matches!(url.scheme(), "http" | "https" | "file") {
            let message = format!("{url} has a scheme that cannot be fetched");
            return Err(Fault::recipe(message).hint("http, https and file can").into());
        }
        let credentials = request.credentials.clone().or(inline);
        let user = credentials.as_ref().map(|(user, _)| user.as_str()).unwrap_or_default();
        let key = blake3::hash(format!("{user}\n{url}").as_bytes()).to_hex()[..32].to_owned();
        Ok(Self {
            sha256: expected(&request.sha256, 64, "sha256")?,
            sha512: expected(&request.sha512, 128, "sha512")?,
            url,
            limit: request.limit,
            credentials,
            repository: request.repository,
            proxies: request.proxies.clone(),
            key,
        })
    }
}

impl Wanted {
    /// Whether only certain contents will do.
    fn is_checked(&self) -> bool {
        self.sha256.is_some() || self.sha512.is_some()
    }

    /// Refuses more bytes than it may have.
    fn check_size(&self, size: u64) -> Result<()> {
        let Some(limit) = self.limit.filter(|limit| size > *limit) else { return Ok(()) };
        let message = format!("{} has more than the {limit} bytes that it may have", self.url);
        let fault = Fault::failed(message);
        // It may be another file than the one with the digest that is asked for.
        Err(if self.is_checked() { fault.remedy(Remedy::LookElsewhere) } else { fault }.into())
    }
}

fn expected(digest: &Option<String>, length: usize, name: &str) -> Result<Option<String>> {
    let Some(digest) = digest else { return Ok(None) };
    let digest = digest.trim().to_ascii_lowercase();
    if digest.len() != length || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Fault::recipe(format!("`{digest}` is not a {name} of {length} hex digits")).into());
    }
    Ok(Some(digest))
}

/// Digests of contents that come piece by piece.
struct Digests {
    sha256: Sha256,
    sha512: Option<Sha512>,
}

impl Digests {
    fn new(wanted: &Wanted) -> Self {
        Self { sha256: Sha256::new(), sha512: wanted.sha512.is_some().then(Sha512::new) }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if let Some(sha512) = &mut self.sha512 {
            sha512.update(bytes);
        }
    }

    /// The SHA-256, if the contents are what was asked for.
    fn check(self, wanted: &Wanted) -> Result<String> {
        let sha256 = hex::encode(self.sha256.finalize());
        let sha512 = self.sha512.map(|sha512| hex::encode(sha512.finalize()));
        let pairs = [("sha256", &wanted.sha256, Some(&sha256)), ("sha512", &wanted.sha512, sha512.as_ref())];
        for (name, expected, found) in pairs {
            if let (Some(expected), Some(found)) = (expected, found)
                && expected != found
            {
                let message = format!("{} has another {name} than it should have", wanted.url);
                return Err(Fault::failed(message)
                    .remedy(Remedy::LookElsewhere)
                    .hint(format!("expected {expected}"))
                    .hint(format!("received {found}"))
                    .into());
            }
        }
        Ok(sha256)
    }
}

impl Store {
    /// The file of a request, from the store where its digest is known, else over the network. `progress` is given
    /// bytes so far and, where known, in all.
    pub fn fetch(&self, request: &Request, progress: &mut dyn FnMut(u64, Option<u64>)) -> Result<Fetched> {
        let wanted = Wanted::new(request)?;
        if let Some(fetched) = self.kept(&wanted)? {
            return Ok(fetched);
        }
        let claim = self.dir("locks").join(format!("fetch-{}", wanted.key));
        let _claim = MakeLock::take(claim, &mut |_| {})?;
        // Another build may have fetched it while this one waited.
        if let Some(fetched) = self.kept(&wanted)? {
            return Ok(fetched);
        }
        if wanted.url.scheme() == "file" {
            return self.take_file(&wanted, progress);
        }
        if let Some(known) = self.known(&wanted).filter(|_| wanted.is_checked()) {
            // Right by its digest, whatever the server has now.
            let path = self.blob(&known.sha256).context("a file vanished from the store")?;
            return Ok(Fetched { size: size_of(&path)?, path, sha256: known.sha256, transferred: false });
        }
        let mut attempt = 0;
        let mut reached = 0;
        // A cache on the way may hold what a file was before, and an earlier run its first part; a digest shows both.
        let mut fresh = !wanted.is_checked();
        loop {
            let partial = Partial::open(self, &wanted)?;
            match self.transfer(&wanted, &partial, fresh, progress) {
                Ok(fetched) => return Ok(fetched),
                Err(Failure::Wrong(error)) if !fresh => {
                    tracing::debug!("fetching {} past caches: {error:#}", wanted.url);
                    fresh = true;
                }
                Err(Failure::Wrong(error) | Failure::Final(error)) => return Err(error),
                Err(Failure::Transient { error, pause }) => {
                    let length = partial.length();
                    attempt = if length > reached + PROGRESS { 1 } else { attempt + 1 };
                    reached = reached.max(length);
                    if attempt >= ATTEMPTS {
                        let message = format!("{} could not be fetched (tried {attempt} times): {error:#}", wanted.url);
                        return Err(Fault::failed(message).into());
                    }
                    tracing::debug!("fetching {} again: {error:#}", wanted.url);
                    rest(pause.unwrap_or(FIRST_PAUSE * 2u32.pow(attempt - 1)))?;
                }
            }
        }
    }

    /// Sets the longest silence of a server after which a transfer is tried again, 30 s by default;
    /// has an effect only before the first [`Store::fetch`].
    pub fn set_stall_timeout(&self, timeout: Duration) {
        self.inner.fetcher.set_stall_timeout(timeout);
    }

    /// A fetched file by the digest of its contents, without any network.
    pub fn blob(&self, sha256: &str) -> Option<PathBuf> {
        self.hand_out(&self.dir(BLOBS), sha256)
    }

    /// Keeps a text as if it had been fetched; its SHA-256.
    pub fn keep_text(&self, text: &str) -> Result<String> {
        self.keep_bytes(text.as_bytes())
    }

    /// The same of bytes.
    pub fn keep_bytes(&self, bytes: &[u8]) -> Result<String> {
        let sha256 = hex::encode(Sha256::digest(bytes));
        if self.blob(&sha256).is_none() {
            let scratch = self.scratch()?;
            let file = scratch.path.join("file");
            std::fs::write(&file, bytes).context("writing a text").map_err(|error| self.explain(error))?;
            self.take_in(&file, &self.dir(BLOBS), &sha256)?;
        }
        Ok(sha256)
    }

    /// What the store has under the digests that are asked for.
    fn kept(&self, wanted: &Wanted) -> Result<Option<Fetched>> {
        let indexed = wanted
            .sha512
            .as_ref()
            .and_then(|sha512| std::fs::read_to_string(self.dir(BLOBS_BY_SHA512).join(sha512)).ok());
        let Some(sha256) = wanted.sha256.clone().or_else(|| indexed.clone()) else { return Ok(None) };
        let Some(path) = self.blob(&sha256) else { return Ok(None) };
        // What the index says is a hint: only the bytes tell.
        if wanted.sha512.is_some()
            && let Err(error) = self.check_kept(&path, wanted)
        {
            return if wanted.sha256.is_some() { Err(error) } else { Ok(None) };
        }
        Ok(Some(Fetched { size: size_of(&path)?, path, sha256, transferred: false }))
    }

    /// Checks a file of the store that is asked for by its SHA-512.
    fn check_kept(&self, path: &Path, wanted: &Wanted) -> Result<()> {
        let mut digests = Digests::new(wanted);
        digest_file(&mut File::open(path)?, &mut digests)?;
        let sha256 = digests.check(wanted)?;
        self.index(wanted, &sha256)
    }

    /// Names of fetched files where they came from, by their SHA-256.
    pub fn fetched_names(&self) -> BTreeMap<String, String> {
        let entries = std::fs::read_dir(self.dir("validators")).into_iter().flatten().flatten();
        let read = |path: PathBuf| serde_json::from_slice::<Known>(&std::fs::read(path).ok()?).ok();
        entries.filter_map(|entry| read(entry.path())).map(|known| (known.sha256, known.name)).collect()
    }

    /// Lets a file be found by its SHA-512 too, if it was asked for by that.
    fn index(&self, wanted: &Wanted, sha256: &str) -> Result<()> {
        let Some(sha512) = &wanted.sha512 else { return Ok(()) };
        self.write_atomically(&self.dir(BLOBS_BY_SHA512).join(sha512), sha256.as_bytes())
    }

    /// What the last answer for the URL was, where its contents are still there and would do.
    fn known(&self, wanted: &Wanted) -> Option<Known> {
        let text = std::fs::read(self.dir("validators").join(&wanted.key)).ok()?;
        let known: Known = serde_json::from_slice(&text).ok()?;
        let path = self.blob(&known.sha256)?;
        if wanted.sha256.as_ref().is_some_and(|sha256| *sha256 != known.sha256) {
            return None;
        }
        if wanted.sha512.is_some() {
            self.check_kept(&path, wanted).ok()?;
        }
        Some(known)
    }

    fn transfer(
        &self,
        wanted: &Wanted,
        partial: &Partial,
        fresh: bool,
        progress: &mut dyn FnMut(u64, Option<u64>),
    ) -> std::result::Result<Fetched, Failure> {
        let resume = partial.validators().filter(|_| partial.length() > 0 && wanted.is_checked());
        let asked = Asked {
            url: &wanted.url,
            credentials: wanted.credentials.as_ref(),
            fresh,
            resume: resume.as_ref().map(|validators| (partial.length(), validators)),
            // Contents that are checked may come over any way.
            downgrade: wanted.is_checked(),
            repository: wanted.repository,
            proxies: &wanted.proxies,
        };
        let answer = self.inner.fetcher.ask(&asked)?;
        let (body, from, total, validators) = match answer {
            Answer::Unresumable => {
                partial.forget();
                return Err(Failure::Transient {
                    error: anyhow::anyhow!("the server cannot resume"),
                    pause: Some(Duration::ZERO),
                });
            }
            Answer::Body { reader, from, total, validators } => (reader, from, total, validators),
        };
        let wrong = |error| {
            partial.forget();
            Failure::Wrong(error)
        };
        wanted.check_size(total.unwrap_or_default()).map_err(wrong)?;
        self.check_room(wanted, total.map(|total| total.saturating_sub(from)))?;
        let mut digests = Digests::new(wanted);
        let mut file =
            partial.start(from, &validators, &mut digests).map_err(|error| Failure::Final(self.explain(error)))?;
        let mut done = from;
        let mut pace = Pace::new(self.inner.fetcher.stall_timeout());
        progress(done, total);
        loop {
            check_cancelled().map_err(Failure::Final)?;
            let piece = match body.next()? {
                Ok(piece) if piece.is_empty() => break,
                Ok(piece) => piece,
                Err(error) => return Err(Failure::Transient { error: error.into(), pause: None }),
            };
            wanted.check_size(done + piece.len() as u64).map_err(wrong)?;
            pace.add(piece.len()).map_err(|error| Failure::Transient { error, pause: None })?;
            digests.update(&piece);
            file.write_all(&piece).map_err(|error| Failure::Final(self.explain(error)))?;
            done += piece.len() as u64;
            progress(done, total);
        }
        if let Some(total) = total.filter(|total| *total != done) {
            let error = anyhow::anyhow!("the connection ended after {done} of {total} bytes");
            return Err(Failure::Transient { error, pause: None });
        }
        drop(file);
        let sha256 = match digests.check(wanted) {
            Ok(sha256) => sha256,
            Err(error) => return Err(wrong(error)),
        };
        let finish = || {
            let path = self.take_in(&partial.data, &self.dir(BLOBS), &sha256)?;
            partial.forget();
            self.index(wanted, &sha256)?;
            let name = wanted.url.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or_default();
            let known = Known { sha256: sha256.clone(), name: percent_decode(name) };
            self.write_atomically(&self.dir("validators").join(&wanted.key), &serde_json::to_vec(&known)?)?;
            Ok(Fetched { path, sha256: sha256.clone(), size: done, transferred: true })
        };
        finish().map_err(Failure::Final)
    }

    /// Refuses to begin what cannot end well.
    fn check_room(&self, wanted: &Wanted, needed: Option<u64>) -> Result<()> {
        let free = free_space(self.root())?;
        let Some(needed) = needed.filter(|needed| *needed > free) else { return Ok(()) };
        let message =
            format!("{} has {}, and the disk of the store has room for {}", wanted.url, human(needed), human(free));
        Err(Fault::failed(message).hint(ROOM).into())
    }

    fn take_file(&self, wanted: &Wanted, progress: &mut dyn FnMut(u64, Option<u64>)) -> Result<Fetched> {
        let Ok(from) = wanted.url.to_file_path() else {
            return Err(Fault::recipe(format!("{} names no file of this machine", wanted.url)).into());
        };
        let context = || format!("fetching {}", wanted.url);
        if !from.try_exists().with_context(context)? {
            let message = format!("{} could not be fetched: there is no such file", wanted.url);
            return Err(Fault::failed(message).remedy(Remedy::LookElsewhere).into());
        }
        let scratch = self.scratch()?;
        let copy = scratch.path.join("file");
        super::copy::copy_file(&from, &copy).with_context(context).map_err(|error| self.explain(error))?;
        let mut digests = Digests::new(wanted);
        digest_file(&mut File::open(&copy)?, &mut digests)?;
        let size = size_of(&copy)?;
        wanted.check_size(size)?;
        let sha256 = digests.check(wanted)?;
        progress(size, Some(size));
        Ok(Fetched {
            path: self.take_in(&copy, &self.dir(BLOBS), &sha256)?,
            size: size_of(&copy).unwrap_or(size),
            sha256,
            transferred: false,
        })
    }
}

/// How fast a file comes.
struct Pace {
    period: Duration,
    since: Instant,
    bytes: usize,
}

impl Pace {
    /// Looks at as long as twice a server's longest silence.
    fn new(silence: Duration) -> Self {
        Self { period: 2 * silence, since: Instant::now(), bytes: 0 }
    }

    /// Takes note of bytes that came; an error where they come too slowly.
    fn add(&mut self, bytes: usize) -> Result<()> {
        self.bytes += bytes;
        let passed = self.since.elapsed();
        if passed < self.period {
            return Ok(());
        }
        ensure!(
            self.bytes as f64 >= SLOWEST * passed.as_secs_f64(),
            "the server sends less than {SLOWEST} bytes in a second"
        );
        (self.since, self.bytes) = (Instant::now(), 0);
        Ok(())
    }
}

/// The part of a file that came before a transfer broke off, kept also across runs.
struct Partial {
    data: PathBuf,
    record: PathBuf,
}

impl Partial {
    fn open(store: &Store, wanted: &Wanted) -> Result<Self> {
        let data = store.dir("partial").join(&wanted.key);
        Ok(Self { record: data.with_extension("json"), data })
    }

    fn length(&self) -> u64 {
        std::fs::metadata(&self.data).map_or(0, |stat| stat.len())
    }

    /// What the server said of the file that this is a part of, if that tells files apart.
    fn validators(&self) -> Option<Validators> {
        let validators: Validators = serde_json::from_slice(&std::fs::read(&self.record).ok()?).ok()?;
        validators.strong().is_some().then_some(validators)
    }

    /// The file open for what comes after `from`; what is before it goes into the digests.
    fn start(&self, from: u64, validators: &Validators, digests: &mut Digests) -> Result<File> {
        let context = || format!("writing {}", self.data.display());
        make_way(&self.data);
        make_way(&self.record);
        let options = File::options().read(true).write(true).create(true).truncate(from == 0).clone();
        let mut file = options.open(&self.data).with_context(context)?;
        if from == 0 {
            std::fs::write(&self.record, serde_json::to_vec(validators)?).with_context(context)?;
        } else {
            file.set_len(from).with_context(context)?;
            digest_file(&mut file, digests).with_context(context)?;
            file.seek(SeekFrom::Start(from)).with_context(context)?;
        }
        Ok(file)
    }

    fn forget(&self) {
        let _ = std::fs::remove_file(&self.data);
        let _ = std::fs::remove_file(&self.record);
    }
}

fn digest_file(file: &mut File, digests: &mut Digests) -> Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        digests.update(&buffer[..count]);
    }
}

fn size_of(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path).with_context(|| format!("reading {}", path.display()))?.len())
}

/// Waits, but not longer than the user wants to.
fn rest(pause: Duration) -> Result<()> {
    let until = std::time::Instant::now() + pause;
    loop {
        check_cancelled()?;
        let left = until.saturating_duration_since(std::time::Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}
