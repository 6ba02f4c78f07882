//! seccomp(2) filters.

use std::io::{Error, Result};

use seccompiler::sock_filter;

/// Has the kernel judge every later system call of this thread and its children by the program.
///
/// Needs CAP_SYS_ADMIN in the user namespace, or no_new_privs set before.
pub fn install(program: &[sock_filter]) -> Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| Error::from(std::io::ErrorKind::InvalidInput))?;
    // seccompiler's instruction is laid out as the kernel's (linux/filter.h).
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut() };
    // SAFETY: the program outlives the call, which only reads it.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0 as libc::c_ulong, &raw const program)
    };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}
