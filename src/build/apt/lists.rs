//! apt's state directory: the indexes of a set of repositories at their planned states.
//!
//! One directory per set and state, made once and shared by all builds. It holds what
//! `apt-get update` would leave, from the Release files that the plan fetched and the indexes that
//! these list by digest; so it is exactly the planned state, also when the mirror has moved on, and
//! an index is fetched once however many Release files list it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use anyhow::{Context, Result};

use super::{Access, release_file, unavailable};
use crate::build::BuildContext;
use crate::build::files::RootFiles;
use crate::debian::release::Release;
use crate::debian::sources::{ByHash, Source, Sources, Suite};
use crate::debian::{Architecture, host};
use crate::diagnostics::Fault;
use crate::store::fetch::{Fetched, Request};
use crate::store::{EntryId, StateDir, Store};

/// Raised when the same repositories come to give another directory.
const VERSION: u32 = 3;

/// How indexes may be compressed, what we would rather have first.
pub(super) const COMPRESSIONS: [&str; 7] = [".xz", ".zst", ".gz", ".bz2", ".lz4", ".lzma", ""];

/// The most bytes of an index whose Release file does not say how many it has.
pub(super) const LARGEST: u64 = 2 << 30;

/// The most memory that a list's decompression may want, in bytes.
const MEMORY: u64 = 512 << 20;

/// What a state directory is made from.
pub(super) struct Plan<'a> {
    /// Their order is apt's preference.
    pub sources: &'a Sources,
    /// The root's own first, then its foreign ones.
    pub architectures: &'a [String],
    pub access: &'a Access,
}

/// An index to be fetched.
pub(super) struct Wanted {
    pub url: String,
    /// Where it is without its digest, on a mirror that does not have what its Release file promises.
    pub by_name: Option<String>,
    pub sha256: String,
    /// As it is fetched, in bytes.
    pub size: u64,
    /// The most bytes that it may have when it is unpacked.
    pub unpacked: u64,
    /// apt's name for it in the lists directory.
    file: String,
    pub compression: &'static str,
    suite: Suite,
}

/// The state directory: `lists`, `sources.list.d`, `cache`.
pub(super) fn state_directory(
    cx: &BuildContext<'_>,
    plan: &Plan<'_>,
    finish: &dyn Fn(&Path) -> Result<()>,
) -> Result<StateDir> {
    let mut releases = BTreeMap::new();
    let mut key = blake3::Hasher::new();
    let mut mix = |part: &str| {
        key.update(&(part.len() as u64).to_le_bytes());
        key.update(part.as_bytes());
    };
    // The cache that apt makes is its version's own.
    mix(&format!("{VERSION} {}", host::package_version("apt").unwrap_or_default()));
    mix(&seen_by_apt(plan.sources).to_string());
    plan.architectures.iter().for_each(|architecture| mix(architecture));
    for suite in served(plan).flat_map(Source::suites) {
        let sha256 = cx.input(&release_file::input_name(&suite)).with_context(|| {
            format!("the plan does not know the state of the repository {suite}, which the root has")
        })?;
        mix(sha256);
        let path = cx.store.blob(sha256).with_context(|| format!("the store has lost the Release file of {suite}"))?;
        let text = fs::read_to_string(&path).with_context(|| format!("reading the Release file of {suite}"))?;
        releases.insert(suite, text);
    }
    for source in served(plan) {
        for suite in source.suites().filter(|suite| !suite.is_flat()) {
            let release = release_file::parse(&releases[&suite])?;
            lacking(source, &suite, &release, plan.architectures).into_iter().for_each(|what| cx.warn(what));
        }
    }
    let key = EntryId(key.finalize().to_hex().to_string());
    cx.store.state_dir("apt", &key, &mut |dir| {
        fill(cx, plan, &releases, dir)?;
        finish(dir)
    })
}

/// Sources as apt gets to see them: the plan has verified the Release files, and these are all there is.
/// So repositories that differ only in how they are verified share a directory.
fn seen_by_apt(sources: &Sources) -> Sources {
    let mut seen = sources.clone();
    for source in &mut seen.0 {
        source.trusted = Some(true);
        source.signed_by = None;
        source.check_valid_until = None;
        source.by_hash = None;
        source.of_apt = None;
        source.types.retain(|t| t == "deb");
    }
    seen.0.retain(|source| !source.types.is_empty());
    seen
}

fn served<'a>(plan: &'a Plan<'_>) -> impl Iterator<Item = &'a Source> {
    plan.sources.0.iter().filter(|source| {
        let names = &source.architectures;
        source.types.iter().any(|t| t == "deb")
            && (names.is_empty() || names.iter().any(|name| plan.architectures.contains(name)))
    })
}

fn fill(cx: &BuildContext<'_>, plan: &Plan<'_>, releases: &BTreeMap<Suite, String>, dir: &Path) -> Result<()> {
    let lists = dir.join("lists");
    for part in ["lists/partial", "sources.list.d", "cache"] {
        fs::create_dir_all(dir.join(part)).context("making apt's state directory")?;
    }
    let mut wanted: Vec<Wanted> = Vec::new();
    for source in served(plan) {
        for suite in source.suites() {
            let text = &releases[&suite];
            let release = release_file::parse(text)?;
            let name = if text.starts_with("-----BEGIN") { "InRelease" } else { "Release" };
            fs::write(lists.join(file_name(&format!("{}{name}", suite.base()))), text)
                .context("writing a Release file")?;
            for index in indexes(source, &suite, &release, plan.architectures)? {
                if !wanted.iter().any(|other| other.file == index.file) {
                    wanted.push(index);
                }
            }
        }
    }
    fs::write(dir.join("sources.list.d/debforge.sources"), seen_by_apt(plan.sources).to_string())
        .context("writing apt's sources")?;
    let total = wanted.len();
    super::session::in_parallel(
        super::session::CONNECTIONS,
        &wanted,
        |index| {
            let fetched = fetch(cx.store, plan.access, index)?;
            unpack(&fetched.path, index, &lists.join(&index.file))
                .with_context(|| format!("unpacking the package lists of {}", index.suite))
        },
        |done| cx.progress("reading package lists", Some((done as u64, total as u64))),
    )?;
    Ok(())
}

/// Fetches an index: by its digest where the repository says so, and by its name where it is not there. Both are
/// verified.
pub(super) fn fetch(store: &Store, access: &Access, index: &Wanted) -> Result<Fetched> {
    let get = |url: &str| {
        let request = access.request(url, Some(index.sha256.clone()));
        store.fetch(&Request { limit: Some(index.size), ..request }, &mut |_, _| {})
    };
    let fetched = match (get(&index.url), &index.by_name) {
        (Err(error), Some(name)) if release_file::is_absent(&error) => get(name),
        (fetched, _) => fetched,
    };
    fetched.map_err(|error| unavailable(&format!("the package lists of {}", index.suite), &error))
}

/// What a source asks for and a suite does not have, in words: a component, the packages of an architecture. The first
/// architecture is the root's own; of others apt says nothing either.
fn lacking(source: &Source, suite: &Suite, release: &Release, architectures: &[String]) -> Vec<String> {
    let has = |directory: &str| release.paths().any(|path| path.starts_with(directory));
    let mut missing = Vec::new();
    for component in source.components.iter().map(|component| component.trim_matches('/')) {
        if !has(&format!("{component}/")) {
            let known: BTreeSet<&str> =
                release.paths().filter_map(|path| Some(path.split_once("/binary-")?.0)).collect();
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            missing.push(format!("{suite} has no component `{component}`; it has {known}"));
            continue;
        }
        let served = |name: &str| source.architectures.is_empty() || source.architectures.iter().any(|it| it == name);
        if let Some(native) = architectures.first().filter(|native| served(native))
            && !has(&format!("{component}/binary-{native}/Packages"))
            && !has(&format!("{component}/binary-all/Packages"))
        {
            missing.push(format!("{suite} has no packages for {native} in `{component}`"));
        }
    }
    missing
}

/// The package indexes of a suite that a source asks for.
pub(super) fn indexes(
    source: &Source,
    suite: &Suite,
    release: &Release,
    architectures: &[String],
) -> Result<Vec<Wanted>> {
    let mut paths = Vec::new();
    if suite.is_flat() {
        paths.push("Packages".to_owned());
    }
    for component in &source.components {
        // `stable/updates main` lists its indexes without the first part.
        let component = component.trim_matches('/');
        for architecture in architectures {
            if source.architectures.is_empty() || source.architectures.contains(architecture) {
                paths.push(format!("{component}/binary-{architecture}/Packages"));
            }
        }
        if release.separate_all {
            paths.push(format!("{component}/binary-all/Packages"));
        }
    }
    let mut wanted = Vec::new();
    for path in paths {
        let listed = |compression: &str| release.index(&format!("{path}{compression}"));
        let found = COMPRESSIONS.into_iter().find_map(|compression| Some((compression, listed(compression)?)));
        let Some((compression, index)) = found else {
            let prefix = format!("{path}.");
            // `Packages.diff/Index` is a list of changes.
            let other = release.paths().find_map(|listed| listed.strip_prefix(&prefix).filter(|it| !it.contains('/')));
            if let Some(other) = other {
                return Err(Fault::failed(format!("{suite} has its package lists as {path}.{other} only"))
                    .hint("known are lists that are compressed by xz, zstd, gzip, bzip2, lz4 or lzma, or not at all")
                    .into());
            }
            continue;
        };
        let base = suite.base();
        let by_name = format!("{base}{path}{compression}");
        let directory = path.rsplit_once('/').map(|(directory, _)| format!("{directory}/")).unwrap_or_default();
        let by_hash = match source.by_hash {
            Some(ByHash::No) => false,
            Some(ByHash::Force) => true,
            Some(ByHash::Yes) | None => release.by_hash,
        };
        let by_hash = by_hash.then(|| format!("{base}{directory}by-hash/SHA256/{}", index.sha256));
        wanted.push(Wanted {
            by_name: by_hash.is_some().then(|| by_name.clone()),
            url: by_hash.unwrap_or(by_name),
            sha256: index.sha256.clone(),
            size: index.size,
            unpacked: listed("").map_or(LARGEST, |plain| plain.size),
            file: file_name(&format!("{base}{path}")),
            compression,
            suite: suite.clone(),
        });
    }
    Ok(wanted)
}

fn unpack(packed: &Path, index: &Wanted, to: &Path) -> Result<()> {
    let mut reader = decoder(File::open(packed)?, index)?;
    let mut writer = BufWriter::with_capacity(1 << 18, File::create(to)?);
    std::io::copy(&mut reader, &mut writer)?;
    writer.flush()?;
    Ok(())
}

/// Reads an index as it is unpacked.
pub(super) fn decoder(file: File, index: &Wanted) -> Result<Bounded<Box<dyn Read>>> {
    let starting = "starting the decompression";
    let reader: Box<dyn Read> = match index.compression {
        "" => Box::new(file),
        ".xz" => {
            let stream = liblzma::stream::Stream::new_stream_decoder(MEMORY, liblzma::stream::CONCATENATED);
            Box::new(liblzma::read::XzDecoder::new_stream(file, stream.context(starting)?))
        }
        ".lzma" => {
            let stream = liblzma::stream::Stream::new_lzma_decoder(MEMORY).context(starting)?;
            Box::new(liblzma::read::XzDecoder::new_stream(file, stream))
        }
        ".zst" => Box::new(zstd::stream::read::Decoder::new(file).context(starting)?),
        ".lz4" => Box::new(lz4_flex::frame::FrameDecoder::new(file)),
        ".gz" => Box::new(flate2::read::MultiGzDecoder::new(std::io::BufReader::with_capacity(1 << 16, file))),
        _ => Box::new(bzip2::read::MultiBzDecoder::new(file)),
    };
    Ok(Bounded { reader, left: index.unpacked, limit: index.unpacked })
}

/// A few bytes can be made to unpack to more than any disk holds: what goes on behind a limit is an error.
pub(super) struct Bounded<R> {
    reader: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            Some(left) => self.left = left,
            None => {
                let message = format!("it unpacks to more than the {} bytes that it may have", self.limit);
                return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, message));
            }
        }
        Ok(count)
    }
}

/// apt's name for a file of a repository in its lists directory (`URItoFileName` in apt).
fn file_name(uri: &str) -> String {
    let rest = uri.split_once("://").map(|(_, rest)| rest).or_else(|| uri.split_once(':').map(|(_, rest)| rest));
    let rest = rest.unwrap_or(uri);
    // A login before the host is left out.
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let mut name = String::new();
    for character in format!("{host}/{path}").chars() {
        match character {
            '/' => name.push('_'),
            '\\' | '|' | '{' | '}' | '[' | ']' | '<' | '>' | '"' | '^' | '~' | '_' | '=' | '!' | '@' | '#' | '$'
            | '%' | '&' | '*' => name.push_str(&format!("%{:02x}", character as u32)),
            other => name.push(other),
        }
    }
    name
}

/// The architecture of a root, then its foreign ones.
pub(super) fn architectures(root: &Path, native: Architecture) -> Vec<String> {
    let mut all = vec![native.name().to_owned()];
    let text = RootFiles::open(root).and_then(|files| files.text("/var/lib/dpkg/arch"));
    let text = text.ok().flatten().unwrap_or_default();
    for name in text.split_whitespace() {
        if !all.iter().any(|known| known == name) {
            all.push(name.to_owned());
        }
    }
    all
}

/// There is nothing to install from.
pub(super) fn none() -> Fault {
    Fault::recipe("the root has no package repository")
        .hint("name one under `repositories` of the action `apt`, or write it with an `overlay` before")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_out_of_the_root_tells_nothing_of_the_host() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(root.path().join("var/lib/dpkg")).unwrap();
        fs::write(outside.path().join("arch"), "riscv64\n").unwrap();
        std::os::unix::fs::symlink(outside.path().join("arch"), root.path().join("var/lib/dpkg/arch")).unwrap();
        assert_eq!(architectures(root.path(), Architecture::Amd64), ["amd64"]);
    }

    #[test]
    fn names_files_as_apt_does() {
        assert_eq!(
            file_name("http://m.example/debian/dists/trixie/main/binary-amd64/Packages"),
            "m.example_debian_dists_trixie_main_binary-amd64_Packages"
        );
        assert_eq!(file_name("https://me:pw@m.example:8080/a_b/./Packages"), "m.example:8080_a%5fb_._Packages");
        assert_eq!(file_name("file:/srv/repo/dists/x/InRelease"), "_srv_repo_dists_x_InRelease");
    }

    #[test]
    fn asks_for_what_the_release_file_lists() {
        let text = "Date: Sat, 06 Sep 2025 10:10:30 UTC\nAcquire-By-Hash: yes\nArchitectures: all amd64\nSHA256:\n aa 1 main/binary-amd64/Packages.gz\n bb 1 main/binary-amd64/Packages.xz\n cc 1 main/binary-all/Packages.gz\n";
        let release = Release::parse(text).unwrap();
        let source = Source::new("http://m.example/d", "x", &["main", "contrib"]);
        let suite = source.suites().next().unwrap();
        let urls: Vec<_> =
            indexes(&source, &suite, &release, &["amd64".into()]).unwrap().into_iter().map(|w| w.url).collect();
        assert_eq!(
            urls,
            [
                "http://m.example/d/dists/x/main/binary-amd64/by-hash/SHA256/bb",
                "http://m.example/d/dists/x/main/binary-all/by-hash/SHA256/cc"
            ]
        );
    }

    #[test]
    fn what_a_suite_does_not_have_is_named() {
        let text = "Date: Sat, 06 Sep 2025 10:10:30 UTC\nSHA256:\n aa 1 main/binary-amd64/Packages.xz\n bb 1 non-free/binary-all/Packages.xz\n cc 1 contrib/binary-arm64/Packages.xz\n";
        let release = Release::parse(text).unwrap();
        let source = Source::new("http://m.example/d", "x", &["main", "contrib", "non-free", "nonfree"]);
        let suite = source.suites().next().unwrap();
        let missing = lacking(&source, &suite, &release, &["amd64".into(), "i386".into()]);
        assert_eq!(missing.len(), 2, "{missing:?}");
        assert!(missing[0].ends_with("has no packages for amd64 in `contrib`"), "{missing:?}");
        assert!(missing[1].ends_with("has no component `nonfree`; it has contrib, main, non-free"), "{missing:?}");
    }

    #[test]
    fn lists_of_an_unknown_compression_are_no_empty_ones() {
        let text = "Date: Sat, 06 Sep 2025 10:10:30 UTC\nSHA256:\n aa 1 main/binary-amd64/Packages.br\n aa 1 contrib/binary-amd64/Packages.diff/Index\n";
        let release = Release::parse(text).unwrap();
        let of = |component: &str| {
            let source = Source::new("http://m.example/d", "x", &[component]);
            let suite = source.suites().next().unwrap();
            indexes(&source, &suite, &release, &["amd64".into()]).map(|found| found.len())
        };
        assert!(of("main").unwrap_err().to_string().contains("main/binary-amd64/Packages.br only"));
        assert_eq!(of("contrib").unwrap(), 0);
    }

    #[test]
    fn unpacks_every_compression() {
        let dir = tempfile::tempdir().unwrap();
        let text = "Package: a\n".repeat(1000);
        let packed = dir.path().join("packed");
        let unpacked = dir.path().join("unpacked");
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(text.as_bytes()).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(text.as_bytes()).unwrap();
        let options = liblzma::stream::LzmaOptions::new_preset(1).unwrap();
        let stream = liblzma::stream::Stream::new_lzma_encoder(&options).unwrap();
        let mut lzma = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
        lzma.write_all(text.as_bytes()).unwrap();
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(text.as_bytes()).unwrap();
        for (compression, bytes) in [
            (".gz", gz.finish().unwrap()),
            (".xz", xz.finish().unwrap()),
            (".zst", zstd::encode_all(text.as_bytes(), 1).unwrap()),
            (".lz4", lz4.finish().unwrap()),
            (".lzma", lzma.finish().unwrap()),
            ("", text.clone().into_bytes()),
        ] {
            fs::write(&packed, bytes).unwrap();
            let index = |limit: usize| Wanted {
                url: String::new(),
                by_name: None,
                sha256: String::new(),
                size: 0,
                unpacked: limit as u64,
                file: String::new(),
                compression,
                suite: Suite { uri: String::new(), name: String::new() },
            };
            unpack(&packed, &index(text.len()), &unpacked).unwrap();
            assert_eq!(fs::read_to_string(&unpacked).unwrap(), text, "{compression}");
            assert!(unpack(&packed, &index(text.len() - 1), &unpacked).is_err(), "{compression}");
        }
    }
}
