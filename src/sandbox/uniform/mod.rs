//! A tree that a command sees the same on every host.
//!
//! Programs that make file systems take from the host what differs between two copies of a tree: the
//! order in which directories are read and attributes listed, inode numbers, what directories "weigh".
//! The kernel hands these system calls of the command over (seccomp user notification), and they are
//! answered here from the real tree: names sorted, inodes numbered in the order of first sight. Calls
//! that are not about the tree are carried out as they are.

mod caller;
mod calls;
mod inodes;
mod listing;
mod watch;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(super) use self::watch::Numbered;

/// See [`super::Command::uniform`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uniform {
    /// The tree's top directory, absolute. In a root that is entered by `chroot` alone a tree is out of reach.
    pub top: PathBuf,
    /// Whether only the order of extended attributes matters: what else differs between hosts the
    /// command leaves aside by itself, and there is less to answer.
    pub attributes_only: bool,
    /// Whether files have labels that the host's kernel gave them, which are not to be seen.
    pub labelled: bool,
}
