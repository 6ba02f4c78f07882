//! Terminals.

use std::io::{Error, Result};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Rows and columns of a terminal.
pub fn size(terminal: &BorrowedFd<'_>) -> Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: an open descriptor and a struct of the type that the request fills (ioctl_tty(2)).
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok((size.ws_row, size.ws_col)) }
}

/// Tells a terminal its size.
pub fn set_size(terminal: &BorrowedFd<'_>, rows: u16, columns: u16) -> Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: an open descriptor and a struct of the type that the request reads (ioctl_tty(2)).
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Makes a terminal the one of this process's new session, so that jobs and Ctrl-C work in it.
pub fn take_control(terminal: &BorrowedFd<'_>) -> Result<()> {
    // Whoever leads a session already, as a first process may, has nothing to begin.
    let _ = nix::unistd::setsid();
    // SAFETY: an open descriptor and an integer argument (ioctl_tty(2)).
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}
