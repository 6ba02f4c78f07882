//! What a command finds and what it may change where no mount can say so: what a view does not show is not there,
//! and what it shows read-only cannot be written to.
//!
//! Only paths are looked at, as a command comes by them: who means harm may get around it by open files. It is there
//! so that a step reads the same in a container as anywhere else.

mod shown;
mod targets;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::unistd::Pid;

use self::shown::{Shown, TEMPORARY, longest};
use self::targets::{CHANGES, Deed, Target};
use super::answer::mounts;
use super::calls::{self, Act};
use super::resolve::{MOST_LINKS, absolute, directory};
use super::stated::StatedFiles;
use crate::sandbox::constant::{self, Answer};
use crate::sandbox::supervisor::{Caller, Handler, Verdict, Wanted};
use crate::sandbox::view::held;
use crate::sandbox::{Bind, Command, View};
use crate::sys;
use crate::sys::notify::Call;

/// Bytes of a `struct linux_dirent64` before its name (getdents(2)), and where in it its length is.
const HEADER: usize = 19;
const LENGTH: std::ops::Range<usize> = 16..18;
/// Most bytes of entries that are read at once.
const MOST_ENTRIES: usize = 1 << 20;
/// Bytes of a `struct sockaddr_un` (unix(7)).
const ADDRESS: usize = 110;
/// Bytes of a script that name its interpreter (linux/binfmts.h, `BINPRM_BUF_SIZE`).
const FIRST_LINE: usize = 256;

/// Keeps a command within its view.
pub(in crate::sandbox) struct Bounds {
    /// Of the processes that are watched.
    root: PathBuf,
    opened: Option<OwnedFd>,
    /// Where processes of the target are, whom this does not concern.
    target: Option<PathBuf>,
    rule: Rule,
    stated: StatedFiles,
    /// What the command made in directories for temporary files.
    left: HashSet<PathBuf>,
    /// Hears of that.
    tell: Box<dyn Fn(PathBuf) + Send>,
}

/// Paths that a command of a view with bounds opens, and whether it writes there.
pub(in crate::sandbox) fn shown_paths(view: &View, binds: &[Bind]) -> Option<Vec<(PathBuf, bool)>> {
    Shown::of(view, binds).map(|shown| shown.opened())
}

enum Rule {
    /// Of the host, this alone.
    Shown(Shown),
    /// Everything, but these directories of the root are read-only.
    ReadOnly(Vec<PathBuf>),
}

impl Bounds {
    /// For a command; `None` where its view has none. `tell` hears what it leaves in directories for temporary files.
    pub(in crate::sandbox) fn new(command: &Command, tell: impl Fn(PathBuf) + Send + 'static) -> Option<Self> {
        let (root, target, rule) = match &command.view {
            View::Chroot { root } => {
                let read_only = command.binds.iter().filter(|bind| bind.read_only);
                let read_only: Vec<PathBuf> = read_only.map(|bind| bind.target.clone()).collect();
                (root.clone(), None, Rule::ReadOnly(Some(read_only).filter(|paths| !paths.is_empty())?))
            }
            View::Host { .. } => return None,
            view @ View::HostPrograms { root, .. } => {
                ("/".into(), root.clone(), Rule::Shown(Shown::of(view, &command.binds)?))
            }
        };
        let (stated, left) = (StatedFiles::default(), HashSet::new());
        Some(Self { root, opened: None, target, rule, stated, left, tell: Box::new(tell) })
    }

    fn judge(&self, place: &Path, exists: bool, deed: Deed) -> Result<(), Errno> {
        let writable = match &self.rule {
            Rule::ReadOnly(paths) => longest(place, paths).is_none(),
            Rule::Shown(shown) => {
                if !shown.has(place) {
                    let makes = matches!(deed, Deed::Make | Deed::Write { makes: true } | Deed::Open { makes: true });
                    let beside = place.parent().is_some_and(|parent| shown.has(parent));
                    return Err(if makes && beside { Errno::EROFS } else { Errno::ENOENT });
                }
                shown.is_writable(place) && !(deed == Deed::Change && Shown::is_machines(place))
            }
        };
        let changes = match deed {
            Deed::Look => false,
            // It would be on another file system.
            Deed::Link if !writable && exists => return Err(Errno::EXDEV),
            Deed::Link => false,
            Deed::Make => !exists,
            Deed::Change | Deed::Ask => exists,
            Deed::Write { makes } => exists || makes,
            Deed::Open { makes } => !exists && makes,
        };
        if changes && !writable { Err(Errno::EROFS) } else { Ok(()) }
    }

    /// Notes what is about to be made in a directory for temporary files.
    fn note(&mut self, place: &Path, exists: bool, deed: Deed) {
        let makes = matches!(deed, Deed::Make | Deed::Write { makes: true } | Deed::Open { makes: true });
        if exists || !makes || !matches!(self.rule, Rule::Shown(_)) {
            return;
        }
        for top in TEMPORARY {
            let Ok(below) = place.strip_prefix(top) else { continue };
            let Some(first) = below.components().next() else { continue };
            let made = Path::new(top).join(first);
            // What is there already is the step's own place.
            if made.symlink_metadata().is_err() && self.left.insert(made.clone()) {
                (self.tell)(made);
            }
        }
    }

    /// What a path is for the caller; an answer where it is not for the kernel to give.
    fn look(
        &mut self,
        call: &Call,
        caller: &Caller<'_>,
        from: &Standpoint,
        path: PathBuf,
        target: Target,
    ) -> Result<Option<Verdict>, Errno> {
        let Some(path) = absolute(&from.root, call, caller, target.directory, path) else { return Ok(None) };
        let Some(opened) = from.opened.as_ref().or(self.opened.as_ref()) else { return Ok(None) };
        let Some((place, exists)) = place(opened, &from.root, &path, target.follow, 0) else { return Ok(None) };
        let (path, place) = (from.on_host(&path), from.on_host(&place));
        if let Rule::Shown(shown) = &self.rule {
            // A link that is hidden leads nowhere.
            let plain = !path.components().any(|part| part == Component::ParentDir);
            if plain && path != place && !shown.has(&path) {
                self.judge(&path, false, target.deed)?;
                return Err(Errno::ENOENT);
            }
        }
        self.judge(&place, exists, target.deed)?;
        self.note(&place, exists, target.deed);
        let Some(asked) = calls::asked(call.number).filter(|_| matches!(self.rule, Rule::Shown(_))) else {
            return Ok(None);
        };
        if asked.act == Act::Execute {
            self.interpreter(opened_at(&place), &place)?;
        }
        let text = match constant::lookup(&place) {
            Some(Answer::File(text)) => Some(text.to_vec()),
            Some(Answer::Own) if place.starts_with("/proc") => mounts(&place),
            _ => None,
        };
        text.map(|text| self.stated.answer(call, caller, asked, &place, &text)).transpose()
    }

    /// Whether the interpreter of a script is there.
    fn interpreter(&self, program: Option<File>, place: &Path) -> Result<(), Errno> {
        let Rule::Shown(shown) = &self.rule else { return Ok(()) };
        let mut first = [0; FIRST_LINE];
        let Some(count) = program.and_then(|mut program| program.read(&mut first).ok()) else { return Ok(()) };
        let Some(line) = first[..count].strip_prefix(b"#!") else { return Ok(()) };
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii_start();
        let name = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        let interpreter = Path::new(std::ffi::OsStr::from_bytes(name));
        let interpreter = place.parent().unwrap_or(Path::new("/")).join(interpreter);
        let real = interpreter.canonicalize().unwrap_or_else(|_| interpreter.clone());
        if shown.has(&interpreter) && shown.has(&real) { Ok(()) } else { Err(Errno::ENOENT) }
    }

    /// A directory's names without those that are not there (getdents64(2)).
    fn names(&self, call: &Call, caller: &Caller<'_>) -> Result<Verdict, Errno> {
        let Rule::Shown(shown) = &self.rule else { return Ok(Verdict::Pass) };
        let [fd, to, room, ..] = call.arguments;
        let named = caller.as_itself(|| fs::read_link(format!("/proc/{}/fd/{}", caller.pid(), fd as i32)));
        let Ok(directory) = named else { return Ok(Verdict::Pass) };
        if shown.is_whole(&directory) {
            return Ok(Verdict::Pass);
        }
        let Ok(open) = sys::process::open_file_of(caller.process()?, fd as i32) else { return Ok(Verdict::Pass) };
        let mut bytes = vec![0; MOST_ENTRIES.min(room as u32 as usize)];
        loop {
            let count = sys::file::entries(open.as_fd(), &mut bytes).map_err(super::carry_out::code)?;
            let kept = kept(&bytes[..count], &|name| shown.has(&directory.join(name)));
            if count == 0 || !kept.is_empty() {
                caller.write(to, &kept)?;
                return Ok(Verdict::Value(kept.len() as i64));
            }
        }
    }
}

/// Entries of a directory but for those whose names are not wanted.
fn kept(entries: &[u8], wanted: &dyn Fn(&Path) -> bool) -> Vec<u8> {
    let (mut kept, mut rest) = (Vec::new(), entries);
    while rest.len() > HEADER {
        let length = usize::from(u16::from_ne_bytes([rest[LENGTH.start], rest[LENGTH.start + 1]]));
        if length <= HEADER || length > rest.len() {
            break;
        }
        let (entry, more) = rest.split_at(length);
        let name = entry[HEADER..].split(|byte| *byte == 0).next().unwrap_or_default();
        if matches!(name, b"." | b"..") || wanted(Path::new(std::ffi::OsStr::from_bytes(name))) {
            kept.extend_from_slice(entry);
        }
        rest = more;
    }
    kept
}

fn opened_at(place: &Path) -> Option<File> {
    place.metadata().ok().filter(fs::Metadata::is_file)?;
    File::open(place).ok()
}

/// Where a path leads in a root that is open, and whether there is something: without links, from the root. `None`
/// where not even the directory is there that it would be in.
fn place(root: &OwnedFd, at: &Path, path: &Path, follow: bool, links: usize) -> Option<(PathBuf, bool)> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    if relative.as_os_str().is_empty() {
        return Some(("/".into(), true));
    }
    let inside = |file: &OwnedFd| {
        let path = fs::read_link(held(file)).ok()?;
        Some(Path::new("/").join(path.strip_prefix(at).ok()?))
    };
    let last = if follow { OFlag::empty() } else { OFlag::O_NOFOLLOW };
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC | last).resolve(ResolveFlag::RESOLVE_IN_ROOT);
    if let Ok(found) = openat2(root, relative, how) {
        return Some((inside(&found)?, true));
    }
    let parent = directory(root, path.parent()?).ok()?;
    let (above, name) = (inside(&parent)?, path.file_name()?);
    if above.starts_with("/proc") {
        // Its links lead to what a process has open, and this is another process.
        return Some((above.join(name), true));
    }
    // What would be made is made where a link leads to.
    if follow && let Ok(target) = readlinkat(&parent, name) {
        return if links < MOST_LINKS { place(root, at, &above.join(target), true, links + 1) } else { None };
    }
    Some((above.join(name), false))
}

/// From where a process sees paths.
struct Standpoint {
    root: PathBuf,
    /// Where that is not the root of the command.
    opened: Option<OwnedFd>,
}

impl Standpoint {
    fn on_host(&self, path: &Path) -> PathBuf {
        match self.opened {
            Some(_) => self.root.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }
}

impl Handler for Bounds {
    fn calls(&self) -> Vec<Wanted> {
        let mut all = calls::wanted();
        all.extend(CHANGES.iter().map(|(number, _)| Wanted::all(*number)));
        if matches!(self.rule, Rule::Shown(_)) {
            all.extend([libc::SYS_getdents64, libc::SYS_connect, libc::SYS_bind].map(Wanted::all));
        }
        all
    }

    fn begin(&mut self, _child: Pid) -> anyhow::Result<()> {
        let doing = || format!("opening the root {}", self.root.display());
        let root = self.root.canonicalize().with_context(doing)?;
        self.opened = Some(File::open(&root).with_context(doing)?.into());
        self.root = root;
        self.target = self.target.as_ref().and_then(|target| target.canonicalize().ok());
        if let Rule::Shown(shown) = &mut self.rule {
            shown.begin();
        }
        Ok(())
    }

    fn required(&self) -> bool {
        true
    }

    fn answer(&mut self, call: &Call, caller: &Caller<'_>) -> Result<Verdict, Errno> {
        let link = format!("/proc/{}/root", caller.pid());
        let Ok(own) = caller.as_itself(|| fs::read_link(&link)) else { return Ok(Verdict::Pass) };
        let from = if own == self.root {
            Standpoint { root: own, opened: None }
        } else {
            let concerned = matches!(self.rule, Rule::Shown(_));
            let inside = self.target.as_ref().is_some_and(|target| own.starts_with(target));
            if !concerned || inside {
                return Ok(Verdict::Pass);
            }
            let Ok(opened) = caller.as_itself(|| File::open(&link)) else { return Ok(Verdict::Pass) };
            Standpoint { root: own, opened: Some(opened.into()) }
        };
        if call.number == libc::SYS_getdents64 {
            return self.names(call, caller);
        }
        if let libc::SYS_connect | libc::SYS_bind = call.number {
            let deed = if call.number == libc::SYS_bind { Deed::Make } else { Deed::Look };
            let Some(path) = socket(call, caller) else { return Ok(Verdict::Pass) };
            let target = Target { directory: None, path: 1, follow: true, deed };
            return Ok(self.look(call, caller, &from, path, target)?.unwrap_or(Verdict::Pass));
        }
        for target in Target::all(call, caller) {
            let Ok(path) = caller.path(call.arguments[target.path]) else { continue };
            if path.as_os_str().is_empty() {
                continue;
            }
            if let Some(answer) = self.look(call, caller, &from, path, target)? {
                return Ok(answer);
            }
        }
        Ok(Verdict::Pass)
    }
}

/// The path of a socket that connect(2) or bind(2) is about; `None` for one of another kind.
fn socket(call: &Call, caller: &Caller<'_>) -> Option<PathBuf> {
    let [_, at, length, ..] = call.arguments;
    let mut address = [0; ADDRESS];
    let length = ADDRESS.min(length as u32 as usize);
    let count = caller.read(at, &mut address[..length]).ok()?;
    let (family, path) = address[..count].split_at_checked(2)?;
    let path = path.split(|byte| *byte == 0).next()?;
    let unix = u16::from_ne_bytes([family[0], family[1]]) == libc::AF_UNIX as u16;
    (unix && !path.is_empty()).then(|| Path::new(std::ffi::OsStr::from_bytes(path)).into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn bounds(root: &Path, rule: Rule) -> Bounds {
        Bounds {
            root: root.canonicalize().unwrap(),
            opened: Some(File::open(root).unwrap().into()),
            target: None,
            rule,
            stated: StatedFiles::default(),
            left: HashSet::new(),
            tell: Box::new(|_| {}),
        }
    }

    #[test]
    fn what_is_not_shown_is_not_there_by_whatever_name() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["usr/bin", "opt/tool", "home/recipe/.git", "home/recipe/out", "settings", "etc", "tmp"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        symlink("/opt/tool", dir.path().join("usr/bin/tool")).unwrap();
        symlink("/home/recipe/absent", dir.path().join("home/recipe/out/dangling")).unwrap();
        fs::write(dir.path().join("settings/passwd"), "").unwrap();
        fs::write(dir.path().join("etc/passwd"), "").unwrap();
        let path = |name: &str| PathBuf::from(name);
        let shown = Shown {
            shown: vec![
                path("/usr"),
                path("/home/recipe"),
                path("/home/recipe/.git/work"),
                path("/home/recipe/out"),
                path("/tmp"),
            ],
            hidden: vec![path("/home/recipe/.git"), path("/home/recipe")],
            writable: vec![path("/home/recipe/out"), path("/tmp")],
            settings: dir.path().join("settings"),
        };
        let bounds = bounds(dir.path(), Rule::Shown(shown));
        let try_it = |name: &str, deed: Deed| {
            let root = bounds.opened.as_ref().unwrap();
            let (place, exists) = place(root, &bounds.root, Path::new(name), true, 0).unwrap();
            bounds.judge(&place, exists, deed)
        };
        for there in
            ["/", "/usr/bin", "/home", "/opt", "/home/recipe/none", "/etc", "/etc/passwd", "/home/recipe/.git/work"]
        {
            assert_eq!(try_it(there, Deed::Look), Ok(()), "{there}");
        }
        for gone in ["/opt/tool", "/usr/bin/tool", "/home/other", "/home/recipe/.git/HEAD", "/etc/shadow"] {
            assert_eq!(try_it(gone, Deed::Look), Err(Errno::ENOENT), "{gone}");
        }
        assert_eq!(try_it("/home/recipe/out/new", Deed::Make), Ok(()));
        for (name, deed) in [
            ("/home/recipe/new", Deed::Make),
            ("/home/new", Deed::Make),
            ("/opt/tool", Deed::Make),
            ("/new", Deed::Make),
            ("/etc/passwd", Deed::Write { makes: true }),
            ("/etc", Deed::Change),
            ("/tmp", Deed::Change),
            ("/home/recipe", Deed::Change),
            ("/home/recipe/new", Deed::Write { makes: true }),
            ("/home/recipe/new", Deed::Open { makes: true }),
            ("/home/recipe/out/dangling", Deed::Write { makes: true }),
        ] {
            assert_eq!(try_it(name, deed), Err(Errno::EROFS), "{name} {deed:?}");
        }
        assert_eq!(try_it("/home/recipe", Deed::Link), Err(Errno::EXDEV));
        // As the kernel has it: that it is there, or not there, comes first.
        for (name, deed) in [
            ("/home/recipe", Deed::Make),
            ("/home/recipe/none", Deed::Change),
            ("/home/recipe/none", Deed::Write { makes: false }),
            ("/home/recipe", Deed::Open { makes: true }),
            ("/tmp", Deed::Ask),
        ] {
            assert_eq!(try_it(name, deed), Ok(()), "{name} {deed:?}");
        }
    }

    #[test]
    fn names_of_what_is_not_there_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["kept", "hidden", "also kept"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let open = File::open(dir.path()).unwrap();
        let mut bytes = vec![0; 4096];
        let count = sys::file::entries(open.as_fd(), &mut bytes).unwrap();
        let names = |bytes: &[u8]| {
            let found = std::cell::RefCell::new(Vec::new());
            kept(bytes, &|name| {
                found.borrow_mut().push(name.display().to_string());
                true
            });
            let mut found = found.into_inner();
            found.sort();
            found
        };
        let some = kept(&bytes[..count], &|name| name != Path::new("hidden"));
        assert_eq!(names(&bytes[..count]), ["also kept", "hidden", "kept"]);
        assert_eq!(names(&some), ["also kept", "kept"]);
    }
}
