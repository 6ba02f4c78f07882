//! Mounts held by descriptors: open_tree(2), move_mount(2), mount_setattr(2), all since Linux 5.12.

use std::ffi::CString;
use std::io::{Error, Result};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A copy of the mounts at and below `path` that stands nowhere yet; gone when closed.
pub fn clone_tree(path: &Path) -> Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = libc::OPEN_TREE_CLONE as libc::c_int | libc::O_CLOEXEC | libc::AT_RECURSIVE;
    // SAFETY: the path is a live C string; the kernel gives back a descriptor of our own.
    unsafe {
        let fd = libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags);
        if fd < 0 { Err(Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd as RawFd)) }
    }
}

/// Puts a tree made by [`clone_tree`] on top of `target`, a file or directory held open.
pub fn attach(tree: &impl AsFd, target: &impl AsFd) -> Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    let (tree, target) = (tree.as_fd().as_raw_fd(), target.as_fd().as_raw_fd());
    // SAFETY: two open descriptors and two static C strings.
    let result = unsafe { libc::syscall(libc::SYS_move_mount, tree, c"".as_ptr(), target, c"".as_ptr(), flags) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Makes the mount that `at` stands on, and all below it, read-only. `at` is the root of a mount.
pub fn make_read_only(at: &impl AsFd) -> Result<()> {
    set_attributes(at, libc::MOUNT_ATTR_RDONLY, 0)
}

/// Lets programs, set-user-id bits and devices count on the mount that `at` stands on, and all below it. In a user
/// namespace that is refused where the mount comes from one outside on which they do not.
pub fn allow_all(at: &impl AsFd) -> Result<()> {
    set_attributes(at, 0, libc::MOUNT_ATTR_NOEXEC | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV)
}

/// Lets no device be opened on the mount that `at` stands on, and all below it.
pub fn forbid_devices(at: &impl AsFd) -> Result<()> {
    set_attributes(at, libc::MOUNT_ATTR_NODEV, 0)
}

fn set_attributes(at: &impl AsFd, set: u64, clear: u64) -> Result<()> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: an open descriptor, a static C string and a struct of the size that is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            at.as_fd().as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// A new mount of a file system without a device, that stands nowhere; gone when closed.
pub fn detached(file_system: &std::ffi::CStr) -> Result<OwnedFd> {
    let owned = |result: libc::c_long| {
        if result < 0 {
            return Err(Error::last_os_error());
        }
        // SAFETY: the kernel gave us a new descriptor.
        Ok(unsafe { OwnedFd::from_raw_fd(result as RawFd) })
    };
    // SAFETY: live C strings, our own descriptors and null where the kernel wants null.
    unsafe {
        let context = owned(libc::syscall(libc::SYS_fsopen, file_system.as_ptr(), libc::FSOPEN_CLOEXEC))?;
        let null = std::ptr::null::<libc::c_char>();
        let number = context.as_raw_fd();
        if libc::syscall(libc::SYS_fsconfig, number, libc::FSCONFIG_CMD_CREATE, null, null, 0) < 0 {
            return Err(Error::last_os_error());
        }
        owned(libc::syscall(libc::SYS_fsmount, number, libc::FSMOUNT_CLOEXEC, 0))
    }
}
