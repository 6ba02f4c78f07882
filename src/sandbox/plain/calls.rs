//! The system calls that take paths, on the architectures whose numbers are known here.

use crate::sandbox::supervisor::Wanted;

/// Where a path is among a call's arguments, and what is asked of it. Numbers are positions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// The directory that it is relative to; the working directory where `None`.
    pub(super) directory: Option<usize>,
    pub(super) path: usize,
    pub(super) follow: Follow,
    pub(super) act: Act,
}

/// Whether a link at the path's end is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Follow {
    Yes,
    No,
    /// Unless the flags at this position have this bit.
    Unless(usize, i32),
    /// Only if they have it.
    If(usize, i32),
}

/// What is asked of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// A descriptor: position of the flags.
    Open(usize),
    /// The same with `struct open_how` (openat2(2)).
    OpenHow(usize),
    /// What stat(2) says, into a buffer.
    Stat(usize),
    /// What statx(2) says: flags, mask, buffer.
    StatExtended(usize, usize, usize),
    /// Whether it may be used so.
    Access(usize),
    /// Where a link leads: buffer, its size.
    ReadLink(usize, usize),
    /// Another mode.
    Mode(usize),
    /// Other owners: user, group.
    Owner(usize, usize),
    /// Other times, as utimensat(2) takes them.
    Times(usize),
    /// Another length.
    Length(usize),
    /// Extended attributes: name, value, its size.
    SetAttribute,
    GetAttribute,
    ListAttributes,
    RemoveAttribute,
    /// What statfs(2) says, into a buffer.
    FileSystem(usize),
    /// To become this program.
    Execute,
    /// To work in it.
    Enter,
    /// To have it as the root.
    Root,
    /// Another name for it: its directory, the name.
    Link(usize, usize),
}

const fn plain(path: usize, follow: Follow, act: Act) -> Asked {
    Asked { directory: None, path, follow, act }
}

const fn at(directory: usize, follow: Follow, act: Act) -> Asked {
    Asked { directory: Some(directory), path: directory + 1, follow, act }
}

const fn unless(position: usize) -> Follow {
    Follow::Unless(position, libc::AT_SYMLINK_NOFOLLOW)
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
const CALLS: &[(libc::c_long, Asked)] = &[
    (libc::SYS_openat, at(0, Follow::Unless(2, libc::O_NOFOLLOW), Act::Open(2))),
    (libc::SYS_openat2, at(0, Follow::Yes, Act::OpenHow(2))),
    (libc::SYS_newfstatat, at(0, unless(3), Act::Stat(2))),
    (libc::SYS_statx, at(0, unless(2), Act::StatExtended(2, 3, 4))),
    (libc::SYS_faccessat, at(0, Follow::Yes, Act::Access(2))),
    (libc::SYS_faccessat2, at(0, unless(3), Act::Access(2))),
    (libc::SYS_readlinkat, at(0, Follow::No, Act::ReadLink(2, 3))),
    (libc::SYS_fchmodat, at(0, Follow::Yes, Act::Mode(2))),
    (libc::SYS_fchmodat2, at(0, unless(3), Act::Mode(2))),
    (libc::SYS_fchownat, at(0, unless(4), Act::Owner(2, 3))),
    (libc::SYS_utimensat, at(0, unless(3), Act::Times(2))),
    (libc::SYS_truncate, plain(0, Follow::Yes, Act::Length(1))),
    (libc::SYS_setxattr, plain(0, Follow::Yes, Act::SetAttribute)),
    (libc::SYS_getxattr, plain(0, Follow::Yes, Act::GetAttribute)),
    (libc::SYS_listxattr, plain(0, Follow::Yes, Act::ListAttributes)),
    (libc::SYS_removexattr, plain(0, Follow::Yes, Act::RemoveAttribute)),
    (libc::SYS_lgetxattr, plain(0, Follow::No, Act::GetAttribute)),
    (libc::SYS_llistxattr, plain(0, Follow::No, Act::ListAttributes)),
    (libc::SYS_statfs, plain(0, Follow::Yes, Act::FileSystem(1))),
    (libc::SYS_execve, plain(0, Follow::Yes, Act::Execute)),
    (libc::SYS_execveat, at(0, unless(4), Act::Execute)),
    (libc::SYS_chdir, plain(0, Follow::Yes, Act::Enter)),
    (libc::SYS_chroot, plain(0, Follow::Yes, Act::Root)),
    (libc::SYS_linkat, at(0, Follow::If(4, libc::AT_SYMLINK_FOLLOW), Act::Link(2, 3))),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, plain(0, Follow::Unless(1, libc::O_NOFOLLOW), Act::Open(1))),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_stat, plain(0, Follow::Yes, Act::Stat(1))),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_lstat, plain(0, Follow::No, Act::Stat(1))),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_access, plain(0, Follow::Yes, Act::Access(1))),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_readlink, plain(0, Follow::No, Act::ReadLink(1, 2))),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, plain(0, Follow::Yes, Act::Mode(1))),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chown, plain(0, Follow::Yes, Act::Owner(1, 2))),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_lchown, plain(0, Follow::No, Act::Owner(1, 2))),
];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
const CALLS: &[(libc::c_long, Asked)] = &[];

/// What a call is.
pub(super) fn asked(number: libc::c_long) -> Option<Asked> {
    CALLS.iter().find(|(known, _)| *known == number).map(|(_, asked)| *asked)
}

/// All of them, without those that are about an open file (as fstat(3) is made of newfstatat(2)).
pub(super) fn wanted() -> Vec<Wanted> {
    let open = |number: libc::c_long, position| Wanted::without(number, position, libc::AT_EMPTY_PATH);
    let wanted = CALLS.iter().map(|(number, asked)| match (asked.follow, asked.act) {
        (Follow::Unless(position, libc::AT_SYMLINK_NOFOLLOW), act) if !matches!(act, Act::Execute) => {
            open(*number, position as u32)
        }
        _ => Wanted::all(*number),
    });
    wanted.collect()
}
