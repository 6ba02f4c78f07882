//! What a command of the host can see of files: all of it is an input, or it is not shown.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};

use crate::build::InputContext;
use crate::debian::system::PROGRAMS;
use crate::store::is_of_publication;

/// More files than this are not read for a step's id.
const MOST_FILES: usize = 20_000;

/// Directories at the top that every system has, beside those of programs and the kernel.
const OF_EVERY_SYSTEM: [&str; 8] = ["home", "media", "mnt", "opt", "root", "srv", "tmp", "var"];

/// What git keeps of a directory.
const GIT: &str = ".git";

/// What is kept out of sight in a directory, because it would be another for every build: the artifact directory
/// (where that has the recipe, what earlier builds left there) and the store; and, unless the command names them, the
/// recipe's own files (what they say to a step is in its properties) and what git keeps.
pub(super) struct Hidden {
    paths: Vec<PathBuf>,
    /// Directories in sight that other builds may publish into meanwhile.
    published_into: Vec<PathBuf>,
    git: bool,
}

impl Hidden {
    /// For a command or script that says this.
    /// `always` is hidden whatever it says.
    pub(super) fn from<'a>(
        text: &str,
        recipe_dir: &Path,
        always: impl Iterator<Item = &'a Path>,
        recipe_files: &[PathBuf],
    ) -> Result<Self> {
        let recipe_dir = recipe_dir.canonicalize().with_context(|| format!("looking for {}", recipe_dir.display()))?;
        let unnamed = |path: &&PathBuf| !names(text, path.file_name().unwrap_or_default());
        let paths = always.map(Path::to_owned).chain(recipe_files.iter().filter(unnamed).cloned());
        // Artifacts may lie beside the recipe.
        let paths = paths.filter_map(|path| path.canonicalize().ok());
        let (published_into, paths) = paths.partition(|path| recipe_dir.starts_with(path));
        Ok(Self { paths, published_into, git: !names_git(text) })
    }

    /// What is debforge's own, whatever a command says.
    pub(super) fn own(paths: &[&Path]) -> Self {
        let paths = paths.iter().filter_map(|path| path.canonicalize().ok()).collect();
        Self { paths, published_into: Vec::new(), git: false }
    }

    /// Whether a path is hidden, or in something that is.
    pub(super) fn has(&self, path: &Path) -> bool {
        (self.git && path.file_name() == Some(OsStr::new(GIT)))
            || path.file_name().is_some_and(is_of_publication)
            || self.paths.iter().any(|other| path.starts_with(other))
    }

    /// All that is hidden, with what git keeps in these directories.
    pub(super) fn all_in(&self, directories: &[(String, PathBuf)]) -> Vec<PathBuf> {
        let git = directories.iter().filter(|_| self.git).flat_map(|(_, directory)| {
            let walk = walkdir::WalkDir::new(directory).into_iter().filter_map(Result::ok);
            walk.filter(|entry| entry.file_name() == GIT).map(walkdir::DirEntry::into_path)
        });
        let halves = self.published_into.iter().flat_map(|directory| {
            let children = fs::read_dir(directory).into_iter().flatten().flatten();
            children.filter(|child| is_of_publication(&child.file_name())).map(|child| child.path())
        });
        self.paths.iter().cloned().chain(git).chain(halves).collect()
    }

    /// Whether anything in a directory is hidden.
    fn is_in(&self, directory: &Path) -> bool {
        let git = || {
            let walk = walkdir::WalkDir::new(directory).into_iter();
            walk.filter_map(Result::ok).any(|entry| entry.file_name() == GIT)
        };
        self.paths.iter().chain(&self.published_into).any(|path| path.starts_with(directory)) || (self.git && git())
    }
}

/// Whether a shell's text may mean a file of this name: it has the name, or it takes in whole directories.
fn names(text: &str, name: &OsStr) -> bool {
    if name.to_str().is_none_or(|name| text.contains(name)) {
        return true;
    }
    // `$RECIPEDIR/*`, `"${RECIPEDIR}"`, `$RECIPEDIR/$x`: what is meant is not said.
    text.match_indices("RECIPEDIR").any(|(at, variable)| {
        let rest = text[at + variable.len()..].trim_start_matches(['}', '"', '\'']);
        let path = rest.strip_prefix('/').unwrap_or_default().trim_start_matches(['"', '\'']);
        let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-+@/".contains(letter);
        let end = path.find(|letter| !plain(letter)).unwrap_or(path.len());
        let pattern = path[end..].starts_with(['$', '*', '?', '[', '{']);
        path[..end].trim_matches(['/', '.']).is_empty() || (pattern && !path[..end].contains('/'))
    })
}

/// Whether a shell's text calls git.
fn names_git(text: &str) -> bool {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && !"-_".contains(letter)).any(|word| word == "git")
}

/// A place that links lead to, outside of the directories that are shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Elsewhere {
    /// The first of the links that lead there, as a path in the recipe.
    shown: String,
    /// Where it is.
    path: PathBuf,
    /// Where links say that it is.
    names: BTreeSet<PathBuf>,
}

impl Elsewhere {
    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where it has to be shown: where it is, and where links say that it is as far as that does not lie in one
    /// of these directories, which are shown themselves.
    pub(super) fn places<'a>(&'a self, shown: &'a [&Path]) -> impl Iterator<Item = &'a Path> {
        let around = |path: &Path| shown.iter().any(|top| path.starts_with(top) && path != *top);
        let names = self.names.iter().map(PathBuf::as_path).filter(move |name| !around(name) && *name != self.path);
        std::iter::once(self.path.as_path()).chain(names)
    }
}

/// Directories that a command sees, by the names that they have in the recipe (none is the recipe's own directory),
/// with all that links in them lead to.
pub(super) struct Sight {
    tops: Vec<(String, PathBuf)>,
    elsewhere: BTreeMap<PathBuf, Elsewhere>,
    files: usize,
}

impl Sight {
    /// Looks through directories.
    pub(super) fn of(tops: &[(String, PathBuf)], hidden: &Hidden) -> Result<Self> {
        let mut tops_found: Vec<(String, PathBuf)> = Vec::new();
        for (shown, path) in tops {
            let path = path.canonicalize().with_context(|| format!("looking for {}", path.display()))?;
            if !is_of_system(&path) && !tops_found.iter().any(|(_, top)| path.starts_with(top)) {
                tops_found.push((shown.clone(), path));
            }
        }
        let mut sight = Self { tops: tops_found.clone(), elsewhere: BTreeMap::new(), files: 0 };
        let mut queue = tops_found;
        while let Some((shown, top)) = queue.pop() {
            match sight.walk(&shown, &top, hidden) {
                Ok(found) => queue.extend(found),
                // To the command that is not its own either: the link leads nowhere for it.
                Err(error) if sight.elsewhere.contains_key(&top) && is_refused(&error) => {
                    sight.elsewhere.remove(&top);
                }
                Err(error) => return Err(error),
            }
            if sight.is_too_large() {
                break;
            }
        }
        Ok(sight)
    }

    /// Whether there is more than can be read for a step's id.
    fn is_too_large(&self) -> bool {
        self.files > MOST_FILES
    }

    /// Goes through a directory or file; the places that links lead to and that were not seen yet.
    fn walk(&mut self, shown: &str, top: &Path, hidden: &Hidden) -> Result<Vec<(String, PathBuf)>> {
        let mut found = Vec::new();
        let walk = walkdir::WalkDir::new(top).sort_by_file_name().into_iter();
        for entry in walk.filter_entry(|entry| !hidden.has(entry.path())) {
            let entry = entry.with_context(|| format!("reading {}", top.display()))?;
            self.files += 1;
            if self.is_too_large() {
                break;
            }
            if !entry.path_is_symlink() {
                continue;
            }
            // One that leads nowhere is no more than its text.
            let Ok(path) = entry.path().canonicalize() else { continue };
            if is_of_system(&path) || hidden.has(&path) || self.tops.iter().any(|(_, top)| path.starts_with(top)) {
                continue;
            }
            let text = fs::read_link(entry.path()).with_context(|| format!("reading {}", entry.path().display()))?;
            let name = normal(&entry.path().parent().unwrap_or(top).join(text));
            if passes_system(&name) {
                continue;
            }
            let below = entry.path().strip_prefix(top).unwrap_or(Path::new(""));
            let shown = Path::new(shown).join(below).display().to_string();
            let place = self.elsewhere.entry(path.clone()).or_insert_with(|| {
                found.push((shown.clone(), path.clone()));
                Elsewhere { shown, path, names: BTreeSet::new() }
            });
            place.names.insert(name);
        }
        Ok(found)
    }

    /// The places outside that are shown too.
    pub(super) fn elsewhere(&self) -> impl Iterator<Item = &Elsewhere> {
        self.elsewhere.values()
    }

    /// The directories that are shown, those of [`Sight::elsewhere`] left out.
    pub(super) fn tops(&self) -> impl Iterator<Item = &Path> {
        self.tops.iter().map(|(_, top)| top.as_path())
    }

    /// Adds all that is seen to a step's inputs.
    pub(super) fn add(&self, cx: &mut InputContext<'_>, hidden: &Hidden) -> Result<()> {
        if self.is_too_large() {
            let what = "the recipe's directory, with what links there lead to,";
            cx.add_unknown(format!(
                "{what} which has more than {MOST_FILES} files and so is taken as changed every time"
            ));
            return Ok(());
        }
        let elsewhere = self.elsewhere().map(|place| (&place.shown, &place.path));
        for (shown, path) in self.tops.iter().map(|(shown, path)| (shown, path)).chain(elsewhere) {
            match path.is_dir() {
                true => add_directory(cx, shown, path, hidden)?,
                false => cx.add_tree(shown, path)?,
            }
        }
        Ok(())
    }
}

/// Whether a place as a whole is not for this user to read; what is so within one ends the plan.
fn is_refused(error: &anyhow::Error) -> bool {
    error.downcast_ref::<walkdir::Error>().is_some_and(|error| {
        let kind = error.io_error().map(std::io::Error::kind);
        error.depth() == 0 && kind == Some(std::io::ErrorKind::PermissionDenied)
    })
}

/// Whether a path is of what is shown of the host's system anyway, or of what each command has of its own; or is a
/// directory that every system has (`/run`, `/home`, `/var/log`): a link there is one of a tree to be laid over a root,
/// and means that root's.
fn is_of_system(path: &Path) -> bool {
    let parts: Vec<&OsStr> = path.iter().collect();
    match parts.as_slice() {
        [] => false,
        [root, ..] if *root != "/" => false,
        [_] => true,
        [_, top] if OF_EVERY_SYSTEM.iter().any(|name| top == name) => true,
        [_, var, _] if *var == "var" => true,
        [_, top, ..] => PROGRAMS.iter().chain(&["dev", "etc", "proc", "run", "sys"]).any(|name| top == name),
    }
}

/// Whether a name leads on through links of the system, as `/dev/stdout` does to wherever the output goes.
fn passes_system(name: &Path) -> bool {
    let mut name = name.to_owned();
    for _ in 0..40 {
        if is_of_system(&name) {
            return true;
        }
        match fs::read_link(&name) {
            Ok(text) => name = normal(&name.parent().unwrap_or(Path::new("/")).join(text)),
            Err(_) => return false,
        }
    }
    true
}

/// A path without `.` and `..`, as far as names say.
fn normal(path: &Path) -> PathBuf {
    let mut all = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                all.pop();
            }
            Component::CurDir => {}
            part => all.push(part),
        }
    }
    all
}

/// Adds every file of a directory that is not hidden; whole directories at once where nothing in them is.
pub(super) fn add_directory(cx: &mut InputContext<'_>, shown: &str, directory: &Path, hidden: &Hidden) -> Result<()> {
    let doing = || format!("reading {}", directory.display());
    let mut children: Vec<_> =
        fs::read_dir(directory).with_context(doing)?.collect::<Result<_, _>>().with_context(doing)?;
    children.sort_by_key(fs::DirEntry::file_name);
    for child in children {
        let path = child.path();
        if hidden.has(&path) {
            continue;
        }
        let kind = child.file_type().with_context(doing)?;
        let shown = match shown {
            "" => child.file_name().to_string_lossy().into_owned(),
            shown => format!("{shown}/{}", child.file_name().to_string_lossy()),
        };
        if kind.is_symlink() {
            let target = fs::read_link(&path).with_context(doing)?;
            cx.add(format!("link {shown}"), target.display().to_string());
        } else if kind.is_dir() && path.file_name() == Some(OsStr::new(GIT)) {
            add_git(cx, &shown, &path)?;
        } else if kind.is_dir() && hidden.is_in(&path) {
            add_directory(cx, &shown, &path, hidden)?;
        } else if kind.is_dir() || kind.is_file() {
            cx.add_tree(&shown, &path)?;
        }
    }
    Ok(())
}

/// What git tells of a directory: objects and logs follow from what names them.
fn add_git(cx: &mut InputContext<'_>, shown: &str, git: &Path) -> Result<()> {
    for name in ["HEAD", "config", "index", "packed-refs", "refs", "shallow"] {
        let path = git.join(name);
        if path.exists() {
            cx.add_tree(&format!("{shown}/{name}"), &path)?;
        }
    }
    Ok(())
}

/// Shows `directory` at a path: what is bound, and to where. Where something in it is hidden, a directory is made at
/// `stand_in` that has the rest. `places` are paths that are mounted to besides.
pub(super) fn lay_out(
    directory: &Path,
    at: &Path,
    hidden: &Hidden,
    stand_in: &Path,
    places: &[&Path],
) -> Result<Vec<(PathBuf, PathBuf)>> {
    if !hidden.is_in(directory) {
        return Ok(vec![(directory.to_owned(), at.to_owned())]);
    }
    let mut binds = vec![(stand_in.to_owned(), at.to_owned())];
    lay_out_below(directory, at, hidden, stand_in, &mut binds)?;
    for place in places.iter().filter_map(|place| place.strip_prefix(directory).ok()) {
        let place = stand_in.join(place);
        fs::create_dir_all(&place).with_context(|| format!("making {}", place.display()))?;
    }
    Ok(binds)
}

fn lay_out_below(
    directory: &Path,
    at: &Path,
    hidden: &Hidden,
    stand_in: &Path,
    binds: &mut Vec<(PathBuf, PathBuf)>,
) -> Result<()> {
    let doing = || format!("showing {}", directory.display());
    fs::create_dir_all(stand_in).with_context(doing)?;
    let meta = fs::metadata(directory).with_context(doing)?;
    for child in fs::read_dir(directory).with_context(doing)? {
        let child = child.with_context(doing)?;
        let (path, name) = (child.path(), child.file_name());
        let (at, stand_in) = (at.join(&name), stand_in.join(&name));
        let kind = child.file_type().with_context(doing)?;
        if hidden.has(&path) {
            continue;
        }
        if kind.is_symlink() {
            let target = fs::read_link(&path).with_context(doing)?;
            std::os::unix::fs::symlink(target, &stand_in).with_context(doing)?;
        } else if kind.is_dir() && hidden.is_in(&path) {
            lay_out_below(&path, &at, hidden, &stand_in, binds)?;
        } else if kind.is_dir() {
            fs::create_dir(&stand_in).with_context(doing)?;
            binds.push((path, at));
        } else if kind.is_file() {
            fs::write(&stand_in, "").with_context(doing)?;
            binds.push((path, at));
        }
    }
    fs::set_permissions(stand_in, meta.permissions()).with_context(doing)?;
    let modified = filetime::FileTime::from_last_modification_time(&meta);
    filetime::set_file_mtime(stand_in, modified).with_context(doing)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("cp \"$RECIPEDIR/recipe.yaml\" x", true)]
    #[case("cat *.yaml recipe.yaml", true)]
    #[case("cp -r $RECIPEDIR/* x", true)]
    #[case("tar c -C \"${RECIPEDIR}\" .", true)]
    #[case("cp -r \"$RECIPEDIR\"/. x", true)]
    #[case("cp $RECIPEDIR/$name x", true)]
    #[case("cp $RECIPEDIR/files/* x", false)]
    #[case("cp \"$RECIPEDIR/files/a\" x", false)]
    #[case("true", false)]
    fn a_recipe_is_shown_to_what_may_mean_it(#[case] text: &str, #[case] named: bool) {
        assert_eq!(names(text, OsStr::new("recipe.yaml")), named);
    }

    #[rstest]
    #[case("/run", true)]
    #[case("/run/dbus/system_bus_socket", true)]
    #[case("/etc/passwd", true)]
    #[case("/var/log", true)]
    #[case("/home", true)]
    #[case("/home/ada/overlay", false)]
    #[case("/var/lib/machines", false)]
    #[case("/tmp/work", false)]
    #[case("/data", false)]
    fn links_of_a_tree_to_directories_of_every_system_show_nothing(#[case] path: &str, #[case] is: bool) {
        assert_eq!(is_of_system(Path::new(path)), is);
    }

    #[test]
    fn links_through_dev_lead_to_nothing_of_the_recipes() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("out");
        std::os::unix::fs::symlink("/dev/stdout", &link).unwrap();
        assert!(passes_system(&link));
        assert!(!passes_system(directory.path()));
    }

    #[rstest]
    #[case("v=$(git describe)", true)]
    #[case("cd x; git\tlog", true)]
    #[case("cp digits git-lfs .gitignore x", false)]
    fn git_is_shown_to_what_calls_it(#[case] text: &str, #[case] named: bool) {
        assert_eq!(names_git(text), named);
    }
}
