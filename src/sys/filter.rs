//! seccomp(2) filters.

use std::io::{Error, Result};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use seccompiler::sock_filter;

/// Has the kernel judge every later system call of this thread and its children by the program.
///
/// Needs CAP_SYS_ADMIN in the user namespace, or no_new_privs set before.
pub fn install(program: &[sock_filter]) -> Result<()> {
    install_with(program, 0).map(drop)
}

/// The same with a descriptor for whoever is to answer the calls that the program hands over; see
/// [`super::notify`]. A thread can have one such program.
pub fn install_listened(program: &[sock_filter]) -> Result<OwnedFd> {
    let listener = install_with(program, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    // SAFETY: with this flag the kernel gives back a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(listener) })
}

fn install_with(program: &[sock_filter], flags: libc::c_ulong) -> Result<RawFd> {
    let length = u16::try_from(program.len()).map_err(|_| Error::from(std::io::ErrorKind::InvalidInput))?;
    // seccompiler's instruction is laid out as the kernel's (linux/filter.h).
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut() };
    // SAFETY: the program outlives the call, which only reads it.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result as RawFd) }
}
