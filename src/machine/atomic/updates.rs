//! The repository that the tested system is updated from: a throwaway one, so that branches can be led to what a
//! stage needs, and commits made that nobody else sees.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::diagnostics::Fault;
use crate::ostree::Repository;

/// Where derived commits have the file that tells them from what they are made of.
const MARK: &str = "usr/share/debforge-test";

/// The throwaway repository.
pub struct Updates {
    /// It.
    pub repository: Repository,
    key: Option<Key>,
}

impl Updates {
    /// Makes it with nothing in it, and a key where commits are to be signed.
    pub fn make(scratch: &Path, signed: bool) -> Result<Self> {
        let path = scratch.join("updates");
        fs::create_dir(&path).context("making a repository of updates")?;
        ostree(&path, &["init", "--mode=archive"], "making a repository of updates")?;
        let repository = Repository::open(&path)?.context("ostree made no repository")?;
        Ok(Self { repository, key: signed.then(|| Key::make(scratch)).transpose()? })
    }

    /// Takes a commit over from where it was made.
    pub fn add(&self, from: &Repository, commit: &str) -> Result<()> {
        let from = from.path.to_str().context("the repository's path is not UTF-8")?;
        let doing = "copying a commit to a repository of updates";
        ostree(&self.repository.path, &["pull-local", from, commit], doing).map(drop)
    }

    /// The public key that systems are to trust besides their own, armoured.
    pub fn public_key(&self) -> Option<&str> {
        self.key.as_ref().map(|key| key.public.as_str())
    }

    /// Leads a branch to a commit.
    pub fn lead(&self, branch: &str, commit: &str) -> Result<()> {
        let path = self.repository.path.join("refs/heads").join(branch);
        let doing = || format!("leading {branch} to {commit}");
        fs::create_dir_all(path.parent().unwrap_or(&path)).with_context(doing)?;
        let new = path.with_extension("new");
        fs::write(&new, format!("{commit}\n")).and_then(|()| fs::rename(&new, &path)).with_context(doing)
    }

    /// Makes a commit that is another with one small file more, and leads a branch to it.
    pub fn derive(&self, from: &str, branch: &str, name: &str, signed: bool) -> Result<String> {
        // A tar archive says who owns the file, whoever we are.
        let archive = self.repository.path.join("tmp/mark.tar");
        let mut builder = tar::Builder::new(fs::File::create(&archive).context("writing a mark")?);
        let mut header = tar::Header::new_gnu();
        let text = format!("{name}\n");
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        let path = format!("{MARK}/{name}");
        builder.append_data(&mut header, &path, text.as_bytes()).context("writing a mark")?;
        builder.into_inner().and_then(|mut file| file.flush()).context("writing a mark")?;
        let tree = format!("--tree=tar={}", archive.display());
        let (below, branch_word) = (format!("--tree=ref={from}"), format!("--branch={branch}"));
        let subject = format!("--subject={name}");
        let mut words =
            vec!["commit", "--parent=none", "--tar-autocreate-parents", &below, &tree, &branch_word, &subject];
        let mut signing = Vec::new();
        if let Some(key) = self.key.as_ref().filter(|_| signed) {
            signing.push(format!("--gpg-sign={}", key.fingerprint));
            signing.push(format!("--gpg-homedir={}", key.path));
        }
        words.extend(signing.iter().map(String::as_str));
        ostree(&self.repository.path, &words, &format!("making the commit `{name}`"))?;
        self.repository.head(branch).context("ostree made no commit")
    }
}

fn ostree(repository: &Path, words: &[&str], doing: &str) -> Result<String> {
    let (first, rest) = words.split_first().context("no command")?;
    let repo = format!("--repo={}", repository.display());
    let words: Vec<&str> = [*first, repo.as_str()].into_iter().chain(rest.iter().copied()).collect();
    run("ostree", "ostree", &words, doing)
}

fn run(program: &str, package: &str, words: &[&str], doing: &str) -> Result<String> {
    let output = Command::new(program).args(words).stdin(Stdio::null()).output().map_err(|error| {
        Fault::machine(format!("{doing}: {program} did not start: {error}")).hint(format!("sudo apt install {package}"))
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let tail = String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect();
    Err(Fault::failed(format!("{doing} failed: {program} ended with {}", output.status)).tail(tail).into())
}

/// A key that lives as long as the test.
struct Key {
    /// As programs are told it.
    path: String,
    _directory: File,
    _home: tempfile::TempDir,
    fingerprint: String,
    public: String,
}

impl Key {
    fn make(scratch: &Path) -> Result<Self> {
        const DOING: &str = "making a key for the test";
        let mut builder = tempfile::Builder::new();
        let home = builder.prefix("gpg-").tempdir_in(scratch).context(DOING)?;
        // The socket of gpg's agent wants a path of at most 108 bytes. When this process is gone, so is the path, and
        // then the agent ends.
        let directory = File::open(home.path()).context(DOING)?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), directory.as_raw_fd());
        let gpg = |words: &[&str]| {
            let words: Vec<&str> = ["--batch", "--homedir", &path].into_iter().chain(words.iter().copied()).collect();
            run("gpg", "gpg", &words, DOING)
        };
        let no_passphrase = ["--pinentry-mode", "loopback", "--passphrase", ""];
        let making = ["--quick-gen-key", "debforge test-atomic", "rsa2048", "sign", "2d"];
        gpg(&no_passphrase.iter().chain(&making).copied().collect::<Vec<_>>())?;
        let listed = gpg(&["--with-colons", "--list-keys"])?;
        let fingerprint = listed.lines().find_map(|line| line.strip_prefix("fpr:")).unwrap_or_default();
        let fingerprint = fingerprint.trim_matches(':').to_owned();
        let public = gpg(&["--armor", "--export"])?;
        Ok(Self { path, _directory: directory, _home: home, fingerprint, public })
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").arg("--homedir").arg(&self.path).args(["--kill", "all"]).output();
    }
}

/// Where a commit made by [`Updates::derive`] has its mark.
pub fn mark(name: &str) -> PathBuf {
    Path::new("/").join(MARK).join(name)
}
