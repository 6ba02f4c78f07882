//! Commits a root into a repository among the artifacts.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::fit::{self, Fate, listed};
use super::prepare::DESCRIPTION_OF_VAR;
use crate::build::BuildContext;
use crate::build::files::RootFiles;
use crate::build::gpg;
use crate::build::inside::Inside;
use crate::diagnostics::{Fault, size_shown};
use crate::inspect::bootc;
use crate::inspect::tree::Directory;
use crate::ostree::Repository;

/// A commit to be made.
#[derive(Debug, Clone)]
pub struct Commit<'a> {
    /// Repository among the artifacts; made where it is not there.
    pub repository: &'a str,
    /// Mode of a repository that is made.
    pub mode: &'a str,
    /// Id of the collection that the repository's branches belong to.
    pub collection: Option<&'a str>,
    /// Branch that gets it.
    pub branch: &'a str,
    /// Branches that it says it belongs to, beside that one.
    pub bindings: &'a [String],
    /// One line.
    pub subject: &'a str,
    /// More lines.
    pub body: Option<&'a str>,
    /// The commit before it.
    pub parent: Option<String>,
    /// Further facts.
    pub metadata: &'a BTreeMap<String, String>,
    /// Seconds since 1970.
    pub timestamp: i64,
    /// The list of the system's packages, and where it goes in the tree.
    pub sbom: Option<(&'static str, Vec<u8>)>,
    /// Who signs it.
    pub signer: Option<gpg::Signer>,
    /// Commits that static deltas lead from; an empty one stands for a first installation.
    pub deltas: Vec<Option<String>>,
}

/// Opens the repository that this build gathers, made like the one of earlier builds where there is one.
fn open(cx: &BuildContext<'_>, commit: &Commit<'_>) -> Result<Repository> {
    let path = cx.artifacts.join(commit.repository);
    if let Some(repository) = Repository::open(&path)? {
        repository.complete()?;
        return Ok(repository);
    }
    fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
    let earlier = Repository::open(&cx.artifact_dir.join(commit.repository))?;
    let mode = earlier.as_ref().map_or(commit.mode, |earlier| earlier.mode.name());
    let mut words = vec!["ostree".to_owned(), "init".into(), repo(&path)?, format!("--mode={mode}")];
    words.extend(commit.collection.map(|id| format!("--collection-id={id}")));
    cx.host_alone(words).writable(cx.artifacts).run("making the repository")?;
    if let Some(earlier) = earlier {
        // The user's settings stay as they are.
        fs::copy(earlier.path.join("config"), path.join("config")).context("copying the repository's settings")?;
    }
    Repository::open(&path)?.context("ostree made no repository")
}

fn repo(path: &Path) -> Result<String> {
    Ok(format!("--repo={}", path.to_str().context("the repository's path is not UTF-8")?))
}

/// Makes the commit; its checksum, and what to show.
pub fn commit(cx: &BuildContext<'_>, wanted: &Commit<'_>) -> Result<(String, String)> {
    let repository = open(cx, wanted)?;
    let aside = Aside::make(cx, wanted.sbom.as_ref())?;
    let root = cx.root.to_str().context("the root's path is not UTF-8")?;
    let mut words = vec!["ostree".to_owned(), "commit".into(), repo(&repository.path)?];
    words.extend([
        format!("--branch={}", wanted.branch),
        format!("--subject={}", wanted.subject),
        format!("--timestamp=@{}", wanted.timestamp),
        format!("--parent={}", wanted.parent.as_deref().unwrap_or("none")),
        "--no-bindings".into(),
        format!("--tree=dir={root}"),
    ]);
    words.extend(wanted.body.map(|body| format!("--body={body}")));
    for (key, value) in wanted.metadata {
        words.push(format!("--add-metadata-string={key}={value}"));
    }
    let mut bindings: Vec<&str> = vec![wanted.branch];
    bindings.extend(wanted.bindings.iter().map(String::as_str));
    bindings.sort_unstable();
    bindings.dedup();
    let bindings: Vec<String> = bindings.iter().map(|branch| format!("'{branch}'")).collect();
    words.push(format!("--add-metadata=ostree.ref-binding=[{}]", bindings.join(", ")));
    if let Some(collection) = wanted.collection {
        words.push(format!("--add-metadata-string=ostree.collection-binding={collection}"));
    }
    if let Some(kernel) = kernel(cx.root) {
        words.push("--add-metadata=ostree.bootable=true".into());
        words.push(format!("--add-metadata-string=ostree.linux={kernel}"));
    }
    if repository.mode == crate::ostree::repository::Mode::Archive {
        words.push("--generate-sizes".into());
    }
    words.push(format!("--skip-list={}", aside.skip_list.display()));
    if let Some(tree) = &aside.tree {
        words.push(format!("--tree=dir={}", tree.display()));
    }
    cx.progress("committing", None);
    match &wanted.signer {
        Some(signer) => signer.ostree(cx, words),
        None => cx.host_alone(words),
    }
    .bind(cx.root, cx.root, true)
    .writable(cx.artifacts)
    .run("committing the root")?;
    let head = repository.head(wanted.branch).context("ostree made no commit")?;
    for from in &wanted.deltas {
        delta(cx, &repository, wanted, from.as_deref(), &head)?;
    }
    // Both are the repository's own, and nothing of the commit.
    for name in ["tmp", "state"] {
        let path = repository.path.join(name);
        fs::remove_dir_all(&path).with_context(|| format!("clearing {}", path.display()))?;
        fs::create_dir(&path).with_context(|| format!("clearing {}", path.display()))?;
    }
    let _ = fs::remove_file(repository.path.join(".lock"));
    let size: u64 = walkdir::WalkDir::new(&repository.path)
        .into_iter()
        .filter_map(Result::ok)
        .filter(|entry| entry.file_type().is_file())
        .filter_map(|entry| entry.metadata().ok())
        .map(|meta| meta.len())
        .sum();
    let shown = format!("{}, {}", &head[..12], size_shown(size));
    Ok((head, shown))
}

/// The version of the kernel that OSTree will start.
fn kernel(root: &Path) -> Option<String> {
    let files = RootFiles::open(root).ok()?;
    let names = files.names("/usr/lib/modules").ok()?;
    names.into_iter().find(|name| files.has(&format!("/usr/lib/modules/{name}/vmlinuz")))
}

/// Makes a static delta: what a client that has `from` fetches, in few large files.
fn delta(
    cx: &BuildContext<'_>,
    repository: &Repository,
    wanted: &Commit<'_>,
    from: Option<&str>,
    to: &str,
) -> Result<()> {
    let here = repo(&repository.path)?;
    let earlier = cx.artifact_dir.join(wanted.repository);
    let config = repository.path.join("config");
    let before = fs::read(&config).context("reading the repository's settings")?;
    if from.is_some() {
        // The older commit's files are read from where they are.
        let parent = earlier.to_str().context("the artifact directory's path is not UTF-8")?;
        cx.host_alone(["ostree", "config", &here, "set", "core.parent", parent])
            .bind(&earlier, &earlier, true)
            .writable(cx.artifacts)
            .run("opening the earlier repository")?;
    }
    let mut words = vec!["ostree".to_owned(), "static-delta".into(), "generate".into(), here, format!("--to={to}")];
    words.push(from.map_or("--empty".to_owned(), |from| format!("--from={from}")));
    let mut runner = cx.host_alone(words).writable(cx.artifacts);
    if earlier.is_dir() {
        runner = runner.bind(&earlier, &earlier, true);
    }
    let made = runner.run("making a static delta");
    fs::write(&config, before).context("writing the repository's settings")?;
    made
}

/// What the commit has in the place of parts of the root.
struct Aside {
    /// Names of the root that are left out.
    skip_list: PathBuf,
    /// A tree that is laid over the root's.
    tree: Option<PathBuf>,
}

impl Aside {
    /// /dev is empty in a commit, a prepared root's /var likewise, and the /etc of a prepared root is at /usr/etc.
    fn make(cx: &BuildContext<'_>, sbom: Option<&(&'static str, Vec<u8>)>) -> Result<Self> {
        let files = RootFiles::open(cx.root)?;
        let mut skipped: Vec<String> = files.names("/dev")?.into_iter().map(|name| format!("/dev/{name}")).collect();
        let prepared = files.link_target("/ostree")?.is_some();
        let has_description = files.has(DESCRIPTION_OF_VAR);
        if has_description {
            // tmpfiles.d makes it; OSTree would take it over once, or not at all.
            check_var(cx.root)?;
            skipped.extend(files.names("/var")?.into_iter().map(|name| format!("/var/{name}")));
        }
        check_holds(cx.root, has_description)?;
        if prepared && files.has_directory("/usr/etc") && files.has_directory("/etc") {
            return Err(Fault::failed("the root has both /etc and /usr/etc")
                .hint("`ostree-commit` moves /etc to /usr/etc itself: leave it where it is")
                .into());
        }
        let move_etc = prepared && files.has_directory("/etc");
        if move_etc {
            skipped.push("/etc".into());
        }
        let skip_list = cx.scratch.join("left-out");
        fs::write(&skip_list, skipped.iter().map(|path| format!("{path}\n")).collect::<String>())
            .context("writing what is left out")?;
        if !move_etc && sbom.is_none() {
            return Ok(Self { skip_list, tree: None });
        }
        let tree = cx.scratch.join("over");
        fs::create_dir(&tree).context("making a tree over the root's")?;
        let like = |path: &str| copy_directory(&cx.root.join(path), &tree.join(path));
        like("")?;
        like("usr")?;
        if move_etc {
            let (from, to) = (cx.root.join("etc"), tree.join("usr/etc"));
            let words = ["cp".as_ref(), "-a".as_ref(), from.as_os_str(), to.as_os_str()];
            cx.host_alone(words.map(|word| word.to_string_lossy()))
                .bind(cx.root, cx.root, true)
                .run("copying /etc to /usr/etc")?;
        }
        if let Some((path, bytes)) = sbom {
            let path = path.trim_start_matches('/');
            for parent in Path::new(path).ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
                let to = tree.join(parent);
                if to.is_dir() {
                    continue;
                }
                match Inside::open(cx.root)?.find(parent)? {
                    Some(from) if from.is_dir() => copy_directory(&from, &to)?,
                    _ => fs::create_dir(&to).context("making a directory for the list of packages")?,
                }
            }
            let to = tree.join(path);
            fs::write(&to, bytes).context("writing the list of packages")?;
            fs::set_permissions(&to, fs::Permissions::from_mode(0o644)).context("writing the list of packages")?;
        }
        Ok(Self { skip_list, tree: Some(tree) })
    }
}

/// Refuses what came into /var after `ostree-prepare` had it described.
fn check_var(root: &Path) -> Result<()> {
    let Some(fault) = bootc::undescribed(&Directory::new(root.to_owned(), true))? else { return Ok(()) };
    Err(Fault::failed(format!("a part of /var would not be deployed: {fault}"))
        .hint("have it there before `ostree-prepare`, or have a line in /usr/lib/tmpfiles.d make it")
        .into())
}

/// Refuses what a commit cannot hold.
fn check_holds(root: &Path, without_var: bool) -> Result<()> {
    let left_out = |path: &Path| {
        let below = |top: &str| path.starts_with(top) && path != Path::new(top);
        below("dev") || (without_var && below("var"))
    };
    let fate = |path: &Path| if left_out(path) { Fate::LeftOut } else { Fate::Committed };
    let (_, sockets) = fit::check(root, fate)?;
    if sockets.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = sockets.iter().map(|path| format!("/{}", path.display())).collect();
    Err(Fault::failed(format!("OSTree keeps no file of this kind, a socket: {}", listed(&names)))
        .hint("remove it: a socket means nothing without its program")
        .into())
}

/// A directory with the owner and mode of another, and nothing in it.
fn copy_directory(from: &Path, to: &Path) -> Result<()> {
    let doing = || format!("making {}", to.display());
    let stat = from.metadata().with_context(doing)?;
    if !to.is_dir() {
        fs::create_dir(to).with_context(doing)?;
    }
    chown(to, Some(stat.uid()), Some(stat.gid())).with_context(doing)?;
    fs::set_permissions(to, fs::Permissions::from_mode(stat.mode() & 0o7777)).with_context(doing)
}

/// What is kept up to date in a repository that commits were published to.
#[derive(Debug, Clone, Default)]
pub struct Upkeep {
    /// Whether clients find branches by a summary.
    pub summary: bool,
    /// How many commits before the last of each branch are kept; `None`: all.
    pub prune: Option<u32>,
    /// Who signs the summary.
    pub signer: Option<gpg::Signer>,
}

/// Looks after a repository in the artifact directory.
pub fn keep_up(cx: &BuildContext<'_>, repository: &str, upkeep: &Upkeep) -> Result<()> {
    let path = cx.artifact_dir.join(repository);
    let here = repo(&path)?;
    Repository::open(&path)?.context("the repository is gone")?.complete()?;
    if let Some(depth) = upkeep.prune {
        let depth = format!("--depth={depth}");
        cx.host_alone(["ostree", "prune", &here, "--refs-only", &depth])
            .writable(&path)
            .run("pruning the repository")?;
    }
    if upkeep.summary {
        let words = ["ostree".to_owned(), "summary".into(), here, "--update".into()].to_vec();
        match &upkeep.signer {
            Some(signer) => signer.ostree(cx, words).writable(&path).run("signing the repository's summary")?,
            None => {
                cx.host_alone(words).writable(&path).run("writing the repository's summary")?;
                date_summary(&path, cx.source_date_epoch).context("dating the repository's summary")?;
            }
        }
    }
    Ok(())
}

/// Has a summary say that it was written at `epoch`: ostree takes the clock's time. One that is signed cannot be changed,
/// and signatures have their own time.
fn date_summary(repository: &Path, epoch: i64) -> Result<()> {
    const KEY: &[u8] = b"ostree.summary.last-modified\0";
    let path = repository.join("summary");
    let mut summary = fs::read(&path)?;
    let at = summary.windows(KEY.len()).position(|part| part == KEY).context("it has no date")?;
    // A number of 64 bits, aligned to eight bytes, and its type (the GVariant specification, 2.5).
    let at = (at + KEY.len()).next_multiple_of(8);
    ensure!(summary.get(at + 8..at + 10) == Some(b"\0t"), "its date is of another type");
    summary[at..at + 8].copy_from_slice(&epoch.to_be_bytes());
    let fresh = repository.join("tmp").join("debforge-summary");
    fs::write(&fresh, summary)?;
    fs::rename(&fresh, &path)?;
    Ok(())
}
