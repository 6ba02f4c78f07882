//! Gives a command's calls the files that only the kernel has.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::unistd::{Pid, linkat};

use super::calls::{self, Act, Asked, Follow};
use super::carry_out::{self, Shown, code};
use super::resolve::{Found, absolute, beside, directory, follow, is_kernels, is_there};
use super::stated::StatedFiles;
use crate::sandbox::supervisor::{Caller, Handler, Verdict, Wanted, memory};
use crate::sandbox::view::held;
use crate::sandbox::{View, constant};
use crate::sys::notify::Call;

/// What everybody may know of a process (proc_pid(5)).
const OPEN_TO_ALL: [&str; 4] = ["cmdline", "comm", "stat", "status"];

/// A root whose processes are to have /proc and /dev.
pub(in crate::sandbox) struct Furnished {
    /// Without links, as the kernel tells of it.
    root: PathBuf,
    opened: Option<OwnedFd>,
    /// Whether all processes are in the root; none leaves it.
    all_inside: bool,
    /// The first of them.
    first: i32,
    stated: StatedFiles,
}

impl Furnished {
    /// For the root of a view; `None` where there is none.
    pub(in crate::sandbox) fn new(view: &View) -> Option<Self> {
        let (root, all_inside) = match view {
            View::Chroot { root } => (root, true),
            View::Host { root, .. } | View::HostPrograms { root, .. } => (root.as_ref()?, false),
        };
        Some(Self { root: root.clone(), opened: None, all_inside, first: 0, stated: StatedFiles::default() })
    }
}

impl Handler for Furnished {
    fn calls(&self) -> Vec<Wanted> {
        let mut calls = calls::wanted();
        calls.push(Wanted::all(libc::SYS_fstatfs));
        calls
    }

    fn begin(&mut self, child: Pid) -> anyhow::Result<()> {
        let doing = || format!("opening the root {}", self.root.display());
        let root = self.root.canonicalize().with_context(doing)?;
        self.opened = Some(fs::File::open(&root).with_context(doing)?.into());
        self.root = root;
        self.first = child.as_raw();
        memory(self.first).context("reaching into its memory")?;
        Ok(())
    }

    fn required(&self) -> bool {
        true
    }

    fn answer(&mut self, call: &Call, caller: &Caller<'_>) -> Result<Verdict, Errno> {
        let Some(asked) = calls::asked(call.number) else { return self.open_file_system(call, caller) };
        // What cannot be read there the kernel will not find either.
        let Ok(path) = caller.path(call.arguments[asked.path]) else { return Ok(Verdict::Pass) };
        if path.as_os_str().is_empty() || !self.is_inside(caller) {
            return Ok(Verdict::Pass);
        }
        if asked.act == Act::Root {
            // Who is in a root leaves it by entering another, with a directory outside of that still open.
            return Err(Errno::EPERM);
        }
        let Some(path) = absolute(&self.root, call, caller, asked.directory, path) else { return Ok(Verdict::Pass) };
        let Some(root) = &self.opened else { return Ok(Verdict::Pass) };
        let last = follows(call, caller, asked);
        if !is_kernels(&path) && is_there(root, &path, last) {
            return Ok(Verdict::Pass);
        }
        let found = follow(root, &path, last);
        if !matches!(found, Found::Root) && !caller.waits() {
            return Ok(Verdict::Pass);
        }
        self.give(call, caller, asked, last, &found)
    }
}

/// Whether a link at the end of the path is followed.
pub(super) fn follows(call: &Call, caller: &Caller<'_>, asked: Asked) -> bool {
    let has = |position: usize, bit: i32| call.arguments[position] as i32 & bit != 0;
    match (asked.follow, asked.act) {
        (_, Act::OpenHow(position)) => {
            how(caller, call.arguments[position]).is_ok_and(|how| how[0] as i32 & libc::O_NOFOLLOW == 0)
        }
        (Follow::Yes, _) => true,
        (Follow::No, _) => false,
        (Follow::Unless(position, bit), _) => !has(position, bit),
        (Follow::If(position, bit), _) => has(position, bit),
    }
}

/// `struct open_how` (openat2(2)): flags, mode, how to resolve.
pub(super) fn how(caller: &Caller<'_>, at: u64) -> Result<[u64; 3], Errno> {
    let mut bytes = [0; 24];
    if caller.read(at, &mut bytes)? < bytes.len() {
        return Err(Errno::EFAULT);
    }
    let mut how = [0; 3];
    for (number, bytes) in how.iter_mut().zip(bytes.chunks_exact(8)) {
        *number = bytes.try_into().map(u64::from_ne_bytes).map_err(|_| Errno::EFAULT)?;
    }
    Ok(how)
}

impl Furnished {
    fn is_inside(&self, caller: &Caller<'_>) -> bool {
        self.all_inside
            || caller
                .as_itself(|| fs::read_link(format!("/proc/{}/root", caller.pid())))
                .is_ok_and(|root| root == self.root)
    }

    /// fstatfs(2): the cover of /proc says that it is one.
    fn open_file_system(&self, call: &Call, caller: &Caller<'_>) -> Result<Verdict, Errno> {
        let [fd, to, ..] = call.arguments;
        let open = caller.as_itself(|| fs::read_link(format!("/proc/{}/fd/{}", caller.pid(), fd as i32)));
        match open.is_ok_and(|open| open.starts_with(self.root.join("proc"))) && self.is_inside(caller) {
            true => carry_out::file_system(caller, Path::new("/proc"), to),
            false => Ok(Verdict::Pass),
        }
    }

    fn give(
        &mut self,
        call: &Call,
        caller: &Caller<'_>,
        asked: Asked,
        last: bool,
        found: &Found,
    ) -> Result<Verdict, Errno> {
        match found {
            Found::Root => Ok(Verdict::Pass),
            Found::Nothing => Err(Errno::ENOENT),
            Found::Directory(named) => {
                match asked.act {
                    Act::FileSystem(to) => {
                        return carry_out::file_system(caller, Path::new("/proc"), call.arguments[to]);
                    }
                    Act::Open(_) | Act::OpenHow(_) if named == Path::new("/proc") => self.list_processes(),
                    _ => {}
                }
                Ok(Verdict::Pass)
            }
            Found::Stated(named, text) => self.stated.answer(call, caller, asked, named, text),
            Found::Device(name) => {
                let inside = Path::new("dev").join(name);
                let own = self.root.join(&inside).symlink_metadata();
                if own.is_ok_and(|about| about.file_type().is_char_device()) {
                    return Ok(Verdict::Pass);
                }
                device(call, caller, asked, &Path::new("/").join(inside))
            }
            Found::Process(named) => self.process(call, caller, asked, last, named),
        }
    }

    fn process(
        &mut self,
        call: &Call,
        caller: &Caller<'_>,
        asked: Asked,
        last: bool,
        named: &Path,
    ) -> Result<Verdict, Errno> {
        let arguments = call.arguments;
        if !last && let Some(target) = stated_link(caller, named)? {
            return match asked.act {
                Act::ReadLink(to, room) => carry_out::link_target(caller, &target, arguments[to], arguments[room]),
                _ => self.on_process(call, caller, asked, last, named, Path::new("/proc/self")),
            };
        }
        if let Some(text) = mounts(named) {
            return self.stated.answer(call, caller, asked, named, &text);
        }
        let here = self.here(caller, named)?;
        if let Some((link, rest)) = through(&here) {
            return caller.as_itself(|| self.beyond(call, caller, asked, last, &link, &rest));
        }
        match asked.act {
            // In the cover, which is root's.
            Act::Execute | Act::Enter | Act::Root => self.on_process(call, caller, asked, last, named, &here),
            _ => caller.as_itself(|| self.on_process(call, caller, asked, last, named, &here)),
        }
    }

    /// What lies below a directory that a process has open: found as the process would find it, in its root.
    fn beyond(
        &self,
        call: &Call,
        caller: &Caller<'_>,
        asked: Asked,
        last: bool,
        link: &Path,
        rest: &Path,
    ) -> Result<Verdict, Errno> {
        let from = fs::read_link(link).map_err(code)?;
        let from = from.strip_prefix(&self.root).map_err(|_| Errno::EACCES)?;
        let root = self.opened.as_ref().ok_or(Errno::EIO)?;
        let follow = if last { OFlag::empty() } else { OFlag::O_NOFOLLOW };
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC | follow).resolve(ResolveFlag::RESOLVE_IN_ROOT);
        let found = openat2(root, &from.join(rest), how)?;
        match asked.act {
            Act::ReadLink(to, room) => {
                let target = readlinkat(&found, "").map_err(|_| Errno::EINVAL)?;
                carry_out::link_target(caller, Path::new(&target), call.arguments[to], call.arguments[room])
            }
            // The kernel would have to find it in the cover.
            Act::Execute | Act::Enter | Act::Root => Err(Errno::EACCES),
            _ => self.on_process(call, caller, asked, true, link, &held(&found)),
        }
    }

    fn on_process(
        &self,
        call: &Call,
        caller: &Caller<'_>,
        asked: Asked,
        last: bool,
        named: &Path,
        here: &Path,
    ) -> Result<Verdict, Errno> {
        let arguments = call.arguments;
        let namespace = here.parent().is_some_and(|parent| parent.ends_with("ns"));
        let shown = if namespace && last {
            Shown::Namespace
        } else if here.metadata().is_ok_and(|about| last && about.file_type().is_char_device()) {
            Shown::Device
        } else {
            Shown::AsIs
        };
        match asked.act {
            Act::Open(flags) => carry_out::open(here, arguments[flags] as i32, arguments[(flags + 1).min(5)] as u32),
            Act::OpenHow(at) => {
                let how = how(caller, arguments[at])?;
                carry_out::open(here, how[0] as i32, how[1] as u32)
            }
            Act::Stat(to) => carry_out::stat(caller, here, last, shown, arguments[to]),
            Act::StatExtended(flags, mask, to) => {
                carry_out::stat_extended(caller, here, last, shown, [flags, mask, to].map(|at| arguments[at]))
            }
            Act::Access(mode) => carry_out::access(here, arguments[mode]),
            Act::ReadLink(to, room) => {
                let target = fs::read_link(here).map_err(code)?;
                let target = if namespace { later(&target) } else { self.inside(target) };
                carry_out::link_target(caller, &target, arguments[to], arguments[room])
            }
            Act::Mode(mode) => carry_out::mode(here, arguments[mode]),
            Act::Owner(user, group) => carry_out::owner(here, last, arguments[user], arguments[group]),
            Act::Times(at) => carry_out::times(caller, here, last, arguments[at]),
            Act::Length(length) => carry_out::length(here, arguments[length]),
            Act::SetAttribute => carry_out::set_attribute(caller, here, arguments),
            Act::GetAttribute if last => carry_out::get_attribute(caller, here, arguments),
            Act::GetAttribute => Err(Errno::ENODATA),
            Act::ListAttributes if last => carry_out::list_attributes(caller, here, arguments),
            Act::ListAttributes => Ok(Verdict::Value(0)),
            Act::RemoveAttribute => carry_out::remove_attribute(caller, here, arguments[1]),
            Act::FileSystem(to) => carry_out::file_system(caller, here, arguments[to]),
            Act::Link(to, name) => self.link(call, caller, last, here, (to, name)),
            Act::Execute | Act::Enter | Act::Root => self.lead_there(caller, named, here),
        }
    }

    /// Gives an open file another name (linkat(2)).
    fn link(
        &self,
        call: &Call,
        caller: &Caller<'_>,
        last: bool,
        here: &Path,
        (to, name): (usize, usize),
    ) -> Result<Verdict, Errno> {
        let name = caller.path(call.arguments[name])?;
        let name = absolute(&self.root, call, caller, Some(to), name).ok_or(Errno::EXDEV)?;
        let root = self.opened.as_ref().ok_or(Errno::EIO)?;
        let parent = directory(root, name.parent().ok_or(Errno::EEXIST)?)?;
        let target = beside(&parent, name.file_name().ok_or(Errno::EEXIST)?);
        let flags = if last { AtFlags::AT_SYMLINK_FOLLOW } else { AtFlags::empty() };
        linkat(AT_FDCWD, here, AT_FDCWD, &target, flags)?;
        Ok(Verdict::Value(0))
    }

    /// A file of a process in the command's /proc, as a path of ours.
    fn here(&self, caller: &Caller<'_>, named: &Path) -> Result<PathBuf, Errno> {
        let mut parts = named.components().skip(2);
        let first = parts.next().ok_or(Errno::ENOENT)?.as_os_str().to_string_lossy().into_owned();
        let base = match first.as_str() {
            "self" => format!("/proc/{}", caller.process()?),
            "thread-self" => format!("/proc/{}/task/{}", caller.process()?, caller.pid()),
            // Process 1 is not the command's own; it has the same root.
            "1" => format!("/proc/{}", self.first),
            number => match number.parse() {
                Ok(pid) if !is_ours(pid) => return Err(Errno::ENOENT),
                _ => format!("/proc/{first}"),
            },
        };
        // Of one that is not in the root, as apt, it is told no more than anybody would be.
        if let Some(name) = parts.clone().next()
            && !OPEN_TO_ALL.iter().any(|open| name.as_os_str() == *open)
            && caller.as_itself(|| fs::read_link(format!("{base}/root"))).map_err(code)? != self.root
        {
            return Err(Errno::EACCES);
        }
        Ok(parts.fold(PathBuf::from(base), |path, part| path.join(part)))
    }

    /// What the kernel tells us of a path, as it would tell the command.
    fn inside(&self, target: PathBuf) -> PathBuf {
        match target.strip_prefix(&self.root) {
            Ok(inside) => Path::new("/").join(inside),
            Err(_) => target,
        }
    }

    /// Has the cover of /proc name the command's processes. Where there is none, nobody lists it.
    fn list_processes(&self) {
        let cover = self.root.join("proc");
        let (Ok(listed), Ok(running)) = (fs::read_dir(&cover), fs::read_dir("/proc")) else { return };
        for gone in listed.flatten().filter(|entry| is_number(&entry.file_name())) {
            let _ = fs::remove_dir_all(gone.path());
        }
        let pids = running.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        for pid in pids.filter(|pid| *pid != Pid::this().as_raw() && is_ours(*pid)).chain([1]) {
            let _ = fs::create_dir(cover.join(pid.to_string()));
        }
    }

    /// Has the kernel itself find what a path in /proc leads to: by directories and links in the cover.
    fn lead_there(&self, caller: &Caller<'_>, named: &Path, here: &Path) -> Result<Verdict, Errno> {
        let cover = self.root.join("proc");
        let mut below = cover.clone();
        let mut parts = named.components().skip(2).peekable();
        let first = parts.peek().map(|first| Path::new("/proc").join(first)).unwrap_or_default();
        if let Some(target) = stated_link(caller, &first)? {
            // Who is meant is settled now: a working directory stays that of the process that entered it.
            lead(&cover.join(first.file_name().unwrap_or_default()), &target)?;
            below.push(target);
            parts.next();
        }
        below.extend(parts);
        if caller.as_itself(|| here.symlink_metadata()).map_err(code)?.is_dir() {
            fs::create_dir_all(&below).map_err(code)?;
            return Ok(Verdict::Pass);
        }
        let target = caller.as_itself(|| fs::read_link(here)).map_err(code)?;
        let target = Path::new("/").join(target.strip_prefix(&self.root).map_err(|_| Errno::EACCES)?);
        fs::create_dir_all(below.parent().ok_or(Errno::EIO)?).map_err(code)?;
        lead(&below, &target)?;
        Ok(Verdict::Pass)
    }
}

/// Parts a file of a process, as a path of ours, at a link to a directory that it has open, where it leads on.
fn through(here: &Path) -> Option<(PathBuf, PathBuf)> {
    let parts: Vec<&str> = here.iter().skip(3).map(|part| part.to_str().unwrap_or_default()).collect();
    // Of a thread, one further down.
    let of_thread = if parts.first() == Some(&"task") { 2 } else { 0 };
    let link = match parts.get(of_thread)? {
        &"root" | &"cwd" => of_thread + 1,
        &"fd" => of_thread + 2,
        _ => return None,
    };
    let all: Vec<_> = here.iter().collect();
    let (link, rest) = all.split_at_checked(3 + link)?;
    (!rest.is_empty()).then(|| (link.iter().collect(), rest.iter().collect()))
}

/// Makes a link in the cover lead somewhere.
fn lead(link: &Path, target: &Path) -> Result<(), Errno> {
    match fs::read_link(link) {
        Ok(there) if there == target => return Ok(()),
        Ok(there) => {
            if link.file_name() != Some(there.as_os_str()) {
                // Another's call may be on its way through it.
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            fs::remove_file(link).map_err(code)?;
        }
        Err(_) => {}
    }
    symlink(target, link).map_err(code)
}

/// The text of a link to a namespace (`pid:[4026531836]`), as it is shown.
fn later(target: &Path) -> PathBuf {
    let shown = target.to_str().and_then(|text| {
        let (kind, inode) = text.strip_suffix(']')?.split_once(":[")?;
        Some(format!("{kind}:[{}]", carry_out::namespace(inode.parse().ok()?)))
    });
    shown.map_or_else(|| target.to_owned(), PathBuf::from)
}

fn is_number(name: &std::ffi::OsStr) -> bool {
    name.to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether a process is one of the command's: every orphan becomes a child of ours, who are none.
pub(super) fn is_ours(pid: i32) -> bool {
    let us = Pid::this().as_raw();
    let parent = |pid: i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
    };
    // A thread has the parent of its process.
    let above = std::iter::successors(parent(pid), |pid| if *pid > 1 { parent(*pid) } else { None });
    pid != us && above.take_while(|pid| *pid > 1).any(|pid| pid == us)
}

/// Where the links in /proc lead that depend on who asks.
fn stated_link(caller: &Caller<'_>, named: &Path) -> Result<Option<PathBuf>, Errno> {
    Ok(match named.to_str() {
        Some("/proc/self") => Some(caller.process()?.to_string().into()),
        Some("/proc/thread-self") => Some(format!("{}/task/{}", caller.process()?, caller.pid()).into()),
        Some("/proc/net") => Some("self/net".into()),
        _ => None,
    })
}

/// What is mounted, in the two forms in which a process is told: this is not its own here.
pub(super) fn mounts(named: &Path) -> Option<Vec<u8>> {
    let text = constant::text(Path::new("/proc/mounts"))?;
    match named.file_name()?.to_str()? {
        "mounts" => Some(text.into()),
        "mountinfo" => {
            let lines = std::str::from_utf8(text).ok()?.lines().enumerate().filter_map(|(number, line)| {
                let fields: Vec<&str> = line.split(' ').collect();
                let [source, target, kind, options, ..] = fields[..] else { return None };
                let (id, parent) = (number + 20, if number == 0 { 1 } else { 20 });
                Some(format!("{id} {parent} 0:{id} / {target} {options} - {kind} {source} {options}\n"))
            });
            Some(lines.collect::<String>().into_bytes())
        }
        _ => None,
    }
}

/// A call about a device that could not be made. Its mode, owner and dates are nobody's: it goes with the command.
fn device(call: &Call, caller: &Caller<'_>, asked: Asked, here: &Path) -> Result<Verdict, Errno> {
    let arguments = call.arguments;
    match asked.act {
        Act::Open(flags) => carry_out::open(here, opened(arguments[flags])?, 0),
        Act::OpenHow(at) => carry_out::open(here, opened(how(caller, arguments[at])?[0])?, 0),
        Act::Stat(to) => carry_out::stat(caller, here, true, Shown::Device, arguments[to]),
        Act::StatExtended(flags, mask, to) => {
            carry_out::stat_extended(caller, here, true, Shown::Device, [flags, mask, to].map(|at| arguments[at]))
        }
        Act::Access(mode) => carry_out::access(here, arguments[mode]),
        Act::FileSystem(to) => carry_out::file_system(caller, Path::new("/dev"), arguments[to]),
        Act::ReadLink(..) | Act::Length(_) => Err(Errno::EINVAL),
        Act::GetAttribute | Act::RemoveAttribute => Err(Errno::ENODATA),
        Act::SetAttribute => Err(Errno::EOPNOTSUPP),
        Act::ListAttributes | Act::Mode(_) | Act::Owner(..) | Act::Times(_) => Ok(Verdict::Value(0)),
        Act::Execute => Err(Errno::EACCES),
        Act::Enter | Act::Root => Err(Errno::ENOTDIR),
        Act::Link(..) => Err(Errno::EXDEV),
    }
}

/// Flags for opening what is there.
fn opened(flags: u64) -> Result<i32, Errno> {
    let flags = flags as i32;
    match flags & libc::O_CREAT != 0 && flags & libc::O_EXCL != 0 {
        true => Err(Errno::EEXIST),
        false => Ok(flags & !(libc::O_CREAT | libc::O_NOFOLLOW)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_has_open_is_told_from_what_lies_below_it() {
        let parted =
            |path: &str| through(Path::new(path)).map(|(link, rest)| format!("{} {}", link.display(), rest.display()));
        assert_eq!(parted("/proc/7/root/etc/passwd").unwrap(), "/proc/7/root etc/passwd");
        assert_eq!(parted("/proc/7/cwd/x").unwrap(), "/proc/7/cwd x");
        assert_eq!(parted("/proc/7/fd/3/x").unwrap(), "/proc/7/fd/3 x");
        assert_eq!(parted("/proc/7/task/8/root/x").unwrap(), "/proc/7/task/8/root x");
        for whole in ["/proc/7", "/proc/7/root", "/proc/7/fd", "/proc/7/fd/3", "/proc/7/task/8/fd/3", "/proc/7/net/dev"]
        {
            assert_eq!(parted(whole), None, "{whole}");
        }
    }
}
