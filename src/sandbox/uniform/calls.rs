//! The system calls that tell of a tree, on the architectures whose numbers are known here.

use crate::sandbox::supervisor::Wanted;

/// A system call, by what it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Names of a directory: descriptor, buffer, its size.
    Names,
    /// The place in a directory that is read: descriptor, offset, from where.
    Seek,
    /// A descriptor that is not wanted any more.
    Close,
    /// About a file by path: path, buffer. Links are followed or not.
    Path { follow: bool },
    /// About an open file: descriptor, buffer.
    Open,
    /// About a file: directory, path, buffer, flags.
    At,
    /// About a file: directory, path, flags, mask, buffer.
    Extended,
    /// Names of attributes: path, buffer, its size. Links are followed or not.
    Attributes { follow: bool },
    /// Names of attributes: descriptor, buffer, its size.
    OpenAttributes,
}

/// The table: number, what it is.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
const CALLS: &[(libc::c_long, Asked)] = &[
    (libc::SYS_getdents64, Asked::Names),
    (libc::SYS_lseek, Asked::Seek),
    (libc::SYS_close, Asked::Close),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_stat, Asked::Path { follow: true }),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_lstat, Asked::Path { follow: false }),
    (libc::SYS_fstat, Asked::Open),
    (libc::SYS_newfstatat, Asked::At),
    (libc::SYS_statx, Asked::Extended),
    (libc::SYS_listxattr, Asked::Attributes { follow: true }),
    (libc::SYS_llistxattr, Asked::Attributes { follow: false }),
    (libc::SYS_flistxattr, Asked::OpenAttributes),
];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
const CALLS: &[(libc::c_long, Asked)] = &[];

/// What a call is.
pub(super) fn asked(number: libc::c_long) -> Option<Asked> {
    CALLS.iter().find(|(known, _)| *known == number).map(|(_, asked)| *asked)
}

/// All of them, or only those that list attributes.
pub(super) fn wanted(attributes_only: bool) -> Vec<Wanted> {
    let lists = |asked| matches!(asked, Asked::Attributes { .. } | Asked::OpenAttributes);
    let wanted = CALLS.iter().filter(|(_, asked)| !attributes_only || lists(*asked));
    wanted.map(|(number, _)| Wanted::all(*number)).collect()
}
