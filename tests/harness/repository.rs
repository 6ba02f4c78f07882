//! An apt repository made on the spot: packages, indices, signatures.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use super::user::work_dir;

/// A package to put into a [`Repository`], or a .deb of its own.
#[derive(Debug, Clone)]
pub struct Deb {
    name: String,
    version: String,
    architecture: String,
    fields: Vec<(String, String)>,
    files: Vec<(String, u32, Vec<u8>)>,
    scripts: Vec<(String, String)>,
}

impl Deb {
    /// A package of architecture `all` without files.
    pub fn new(name: &str, version: &str) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            architecture: "all".into(),
            fields: Vec::new(),
            files: Vec::new(),
            scripts: Vec::new(),
        }
    }

    /// The same for an architecture.
    #[must_use]
    pub fn architecture(mut self, architecture: &str) -> Self {
        self.architecture = architecture.into();
        self
    }

    /// The same with a field of its control file, as `Depends`.
    #[must_use]
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    /// The same with a file: path without a leading slash.
    #[must_use]
    pub fn file(mut self, path: &str, mode: u32, contents: impl AsRef<[u8]>) -> Self {
        self.files.push((path.into(), mode, contents.as_ref().into()));
        self
    }

    /// The same with a maintainer script: `postinst`, …
    #[must_use]
    pub fn script(mut self, name: &str, text: &str) -> Self {
        self.scripts.push((name.into(), text.into()));
        self
    }

    /// As a file of the usual name in a directory.
    pub fn write(&self, dir: &Path) -> PathBuf {
        let path = dir.join(format!("{}_{}_{}.deb", self.name, self.version, self.architecture));
        fs::create_dir_all(dir).expect("writing a package");
        fs::write(&path, self.bytes()).expect("writing a package");
        path
    }

    fn control(&self) -> String {
        let mut text = format!(
            "Package: {}\nVersion: {}\nArchitecture: {}\nMaintainer: Tests <tests@mirror.example>\n",
            self.name, self.version, self.architecture
        );
        for (name, value) in &self.fields {
            text.push_str(&format!("{name}: {value}\n"));
        }
        text.push_str("Description: package of a test\n");
        text
    }

    /// deb(5): an ar(5) archive of three members.
    fn bytes(&self) -> Vec<u8> {
        let control = self.control();
        let mut members = vec![("./control".to_owned(), 0o644, control.as_bytes())];
        members.extend(self.scripts.iter().map(|(name, text)| (format!("./{name}"), 0o755, text.as_bytes())));
        let files: Vec<_> =
            self.files.iter().map(|(path, mode, bytes)| (format!("./{path}"), *mode, bytes.as_slice())).collect();
        let mut deb = b"!<arch>\n".to_vec();
        for (name, bytes) in
            [("debian-binary", b"2.0\n".to_vec()), ("control.tar", archive(&members)), ("data.tar", archive(&files))]
        {
            deb.extend(
                format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 1_700_000_000, 0, 0, 100_644, bytes.len()).bytes(),
            );
            deb.extend(&bytes);
            deb.resize(deb.len().next_multiple_of(2), b'\n');
        }
        deb
    }
}

/// A tar archive of files, with the directories that lead to them.
fn archive(files: &[(String, u32, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut known = std::collections::BTreeSet::new();
    let mut add = |kind, path: &str, mode, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(bytes.len() as u64);
        header.set_mtime(1_700_000_000);
        header.set_uid(0);
        header.set_gid(0);
        // `append_data` would drop the leading `./`, which dpkg writes and expects.
        header.as_gnu_mut().expect("a GNU header").name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        tar.append(&header, bytes).expect("writing an archive");
    };
    add(tar::EntryType::Directory, "./", 0o755, &[]);
    for (path, mode, bytes) in files {
        for (end, _) in path.match_indices('/').skip(1) {
            if known.insert(path[..=end].to_owned()) {
                add(tar::EntryType::Directory, &path[..=end], 0o755, &[]);
            }
        }
        add(tar::EntryType::Regular, path, *mode, bytes);
    }
    tar.into_inner().expect("writing an archive")
}

/// A repository in a directory, for `file:` sources or behind a [`super::http::Server`].
pub struct Repository {
    dir: PathBuf,
    suite: String,
    packages: Vec<Deb>,
    key: Key,
}

impl Repository {
    /// An empty one in a directory, with a key of its own. Needs gpg.
    pub fn new(dir: &Path, suite: &str) -> Self {
        fs::create_dir_all(dir).expect("making a repository");
        Self { dir: dir.into(), suite: suite.into(), packages: Vec::new(), key: Key::new() }
    }

    /// The same with a package.
    #[must_use]
    pub fn with(mut self, package: Deb) -> Self {
        self.packages.push(package);
        self
    }

    /// Adds a package; seen after the next [`Repository::publish`].
    pub fn add(&mut self, package: Deb) {
        self.packages.push(package);
    }

    /// Takes all versions of a package out; seen after the next [`Repository::publish`].
    pub fn remove(&mut self, name: &str) {
        self.packages.retain(|package| package.name != name);
    }

    /// Writes packages, indices and the signed release file, dated `date` (in the form of RFC 2822).
    pub fn publish(&self, date: &str) {
        let mut architectures: Vec<&str> =
            self.packages.iter().map(|package| &*package.architecture).filter(|name| *name != "all").collect();
        architectures.extend(["amd64", "arm64"]);
        architectures.sort_unstable();
        architectures.dedup();
        let mut indices = BTreeMap::new();
        for architecture in &architectures {
            let index: String = self
                .packages
                .iter()
                .filter(|package| package.architecture == "all" || package.architecture == *architecture)
                .map(|package| self.entry(package))
                .collect();
            indices.insert(format!("main/binary-{architecture}/Packages"), index);
        }
        let dist = self.dir.join("dists").join(&self.suite);
        let mut release = format!(
            "Origin: Tests\nLabel: Tests\nSuite: {0}\nCodename: {0}\nDate: {date}\nArchitectures: {1}\nComponents: main\nSHA256:\n",
            self.suite,
            architectures.join(" ")
        );
        for (path, text) in &indices {
            let full = dist.join(path);
            fs::create_dir_all(full.parent().expect("a directory")).expect("writing an index");
            fs::write(&full, text).expect("writing an index");
            release.push_str(&format!(" {} {} {path}\n", sha256(text.as_bytes()), text.len()));
        }
        self.sign_release(&release);
    }

    /// Signs another release file in its place.
    pub fn sign_release(&self, release: &str) {
        let dist = self.dir.join("dists").join(&self.suite);
        fs::write(dist.join("Release"), release).expect("writing the release file");
        self.key.sign(&dist.join("Release"), &dist.join("InRelease"), "--clear-sign");
        self.key.sign(&dist.join("Release"), &dist.join("Release.gpg"), "--detach-sign");
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The public key, as text (`.asc`).
    pub fn public_key(&self) -> Vec<u8> {
        self.key.gpg(&["--armor", "--export"])
    }

    /// The public key, as a keyring (`.gpg`).
    pub fn keyring(&self) -> Vec<u8> {
        self.key.gpg(&["--export"])
    }

    /// The fingerprint of its key.
    pub fn fingerprint(&self) -> String {
        let listed = self.key.gpg(&["--with-colons", "--fingerprint"]);
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let line = listed.lines().find_map(|line| line.strip_prefix("fpr:")).expect("a fingerprint");
        line.trim_matches(':').to_owned()
    }

    fn entry(&self, package: &Deb) -> String {
        let pool = self.dir.join("pool");
        let path = package.write(&pool);
        let bytes = fs::read(&path).expect("reading a package");
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        format!("{}Filename: pool/{name}\nSize: {}\nSHA256: {}\n\n", package.control(), bytes.len(), sha256(&bytes))
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A key that signs, in a directory of its own.
pub struct Key {
    home: tempfile::TempDir,
}

impl Key {
    /// Makes one, without a passphrase.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        // Short: the agent's socket stands in it, and its path has a limit of about 100 bytes.
        let key = Self { home: tempfile::Builder::new().prefix("key-").tempdir_in(work_dir()).expect("making a key") };
        key.gpg(&["--passphrase", "", "--quick-gen-key", "Tests <tests@mirror.example>", "ed25519", "sign", "never"]);
        key
    }

    /// The secret key, armoured.
    pub fn secret(&self) -> Vec<u8> {
        self.gpg(&["--armor", "--export-secret-keys"])
    }

    /// The public key, armoured.
    pub fn public(&self) -> Vec<u8> {
        self.gpg(&["--armor", "--export"])
    }

    fn sign(&self, file: &Path, signed: &Path, how: &str) {
        let (file, signed) = (file.display().to_string(), signed.display().to_string());
        self.gpg(&["--armor", "--output", &signed, how, &file]);
    }

    pub fn gpg(&self, args: &[&str]) -> Vec<u8> {
        let output = Command::new("gpg")
            .args(["--batch", "--yes", "--quiet", "--homedir"])
            .arg(self.home.path())
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("starting gpg");
        assert!(output.status.success(), "gpg {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // The agent would stay for ever.
        let _ = Command::new("gpgconf").arg("--homedir").arg(self.home.path()).args(["--kill", "gpg-agent"]).status();
    }
}

#[test]
fn apt_takes_packages_from_the_repository() {
    needs_program!("gpg", "gnupg");
    needs_program!("apt-get", "apt");
    let dir = tempfile::tempdir_in(work_dir()).expect("a directory");
    let repository = Repository::new(&dir.path().join("repository"), "stable").with(
        Deb::new("hello-tests", "1.0").file("usr/share/hello/text", 0o644, "hello\n").script("postinst", "#!/bin/sh\n"),
    );
    repository.publish("Mon, 02 Nov 2026 10:00:00 UTC");
    fs::write(dir.path().join("key.asc"), repository.public_key()).expect("writing the key");
    let at = |name: &str| dir.path().join(name).display().to_string();
    fs::write(
        dir.path().join("sources.list"),
        format!("deb [signed-by={}] file:{} stable main\n", at("key.asc"), repository.dir().display()),
    )
    .expect("writing the sources");
    for name in ["lists/partial", "archives/partial"] {
        fs::create_dir_all(dir.path().join(name)).expect("making apt's directories");
    }
    let options = [
        format!("Dir::Etc::SourceList={}", at("sources.list")),
        "Dir::Etc::SourceParts=/dev/null".into(),
        "Dir::Etc::Parts=/dev/null".into(),
        format!("Dir::State::Lists={}", at("lists")),
        format!("Dir::Cache={}", at("")),
        format!("Dir::Cache::Archives={}", at("archives")),
        "APT::Architecture=amd64".into(),
        "APT::Architectures=amd64".into(),
        "APT::Sandbox::User=root".into(),
    ];
    let apt = |args: &[&str]| {
        let output = Command::new("apt-get")
            .args(options.iter().flat_map(|option| ["-o", option]))
            .args(args)
            .current_dir(dir.path())
            .output()
            .expect("starting apt-get");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && !said.contains("W:"), "apt-get {args:?}: {said}");
    };
    apt(&["update"]);
    apt(&["download", "hello-tests"]);
    let contents = Command::new("dpkg-deb").arg("-c").arg(dir.path().join("hello-tests_1.0_all.deb")).output();
    let contents = String::from_utf8_lossy(&contents.expect("starting dpkg-deb").stdout).into_owned();
    assert!(contents.contains("./usr/share/hello/text"), "{contents}");
}
