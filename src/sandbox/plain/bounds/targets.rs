//! What calls do with the paths that they are given.

use crate::sandbox::plain::answer::{follows, how};
use crate::sandbox::plain::calls::{self, Act};
use crate::sandbox::supervisor::Caller;
use crate::sys::notify::Call;

/// What is done with a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Look,
    /// Whether it may be changed.
    Ask,
    /// It is given another name.
    Link,
    /// Something new.
    Make,
    /// What is there is changed or taken away.
    Change,
    /// It is opened to be written to; where nothing is there, it is made or not.
    Write {
        makes: bool,
    },
    /// It is opened to be read, and made where it is not there.
    Open {
        makes: bool,
    },
}

impl Deed {
    /// By the flags of open(2).
    pub(super) fn of_flags(flags: i32) -> Self {
        let makes = flags & libc::O_CREAT != 0;
        let kind = flags & libc::O_ACCMODE;
        let writes = kind == libc::O_WRONLY || kind == libc::O_RDWR || flags & libc::O_TRUNC != 0;
        match writes && flags & libc::O_PATH == 0 {
            true => Self::Write { makes },
            false => Self::Open { makes },
        }
    }
}

/// One path of a call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) directory: Option<usize>,
    pub(super) path: usize,
    pub(super) follow: bool,
    pub(super) deed: Deed,
}

impl Target {
    /// All of a call's.
    pub(super) fn all(call: &Call, caller: &Caller<'_>) -> Vec<Self> {
        if let Some((_, changes)) = CHANGES.iter().find(|(number, _)| *number == call.number) {
            return changes.to_vec();
        }
        let Some(asked) = calls::asked(call.number) else { return Vec::new() };
        let follow = follows(call, caller, asked);
        let deed = match asked.act {
            Act::Open(flags) => Deed::of_flags(call.arguments[flags] as i32),
            Act::OpenHow(at) => how(caller, call.arguments[at]).map_or(Deed::Look, |how| Deed::of_flags(how[0] as i32)),
            Act::Mode(_) | Act::Owner(..) | Act::Times(_) | Act::Length(_) => Deed::Change,
            Act::SetAttribute | Act::RemoveAttribute => Deed::Change,
            Act::Access(mode) if call.arguments[mode] as i32 & libc::W_OK != 0 => Deed::Ask,
            Act::Link(to, name) => {
                let of = Self { directory: asked.directory, path: asked.path, follow, deed: Deed::Link };
                return vec![of, at(to, name, Deed::Make)];
            }
            _ => Deed::Look,
        };
        vec![Self { directory: asked.directory, path: asked.path, follow, deed }]
    }
}

const fn at(directory: usize, path: usize, deed: Deed) -> Target {
    Target { directory: Some(directory), path, follow: false, deed }
}

const fn plain(path: usize, deed: Deed) -> Target {
    Target { directory: None, path, follow: false, deed }
}

/// Calls beside those of [`super::super::calls`] that change something.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
pub(super) const CHANGES: &[(libc::c_long, &[Target])] = &[
    (libc::SYS_mkdirat, &[at(0, 1, Deed::Make)]),
    (libc::SYS_mknodat, &[at(0, 1, Deed::Make)]),
    (libc::SYS_unlinkat, &[at(0, 1, Deed::Change)]),
    (libc::SYS_symlinkat, &[at(1, 2, Deed::Make)]),
    (libc::SYS_renameat2, &[at(0, 1, Deed::Change), at(2, 3, Deed::Write { makes: true })]),
    (libc::SYS_lsetxattr, &[plain(0, Deed::Change)]),
    (libc::SYS_lremovexattr, &[plain(0, Deed::Change)]),
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    (libc::SYS_renameat, &[at(0, 1, Deed::Change), at(2, 3, Deed::Write { makes: true })]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, &[plain(0, Deed::Make)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mknod, &[plain(0, Deed::Make)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rmdir, &[plain(0, Deed::Change)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, &[plain(0, Deed::Change)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_symlink, &[plain(1, Deed::Make)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_link, &[plain(0, Deed::Link), plain(1, Deed::Make)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, &[plain(0, Deed::Change), plain(1, Deed::Write { makes: true })]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, &[plain(0, Deed::Write { makes: true })]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_utime, &[plain(0, Deed::Change)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_utimes, &[plain(0, Deed::Change)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_futimesat, &[at(0, 1, Deed::Change)]),
];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
pub(super) const CHANGES: &[(libc::c_long, &[Target])] = &[];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_say_what_is_done() {
        assert_eq!(Deed::of_flags(libc::O_RDONLY | libc::O_CLOEXEC), Deed::Open { makes: false });
        assert_eq!(Deed::of_flags(libc::O_RDONLY | libc::O_TRUNC), Deed::Write { makes: false });
        assert_eq!(Deed::of_flags(libc::O_WRONLY | libc::O_CREAT), Deed::Write { makes: true });
        assert_eq!(Deed::of_flags(libc::O_RDWR | libc::O_PATH), Deed::Open { makes: false });
    }
}
