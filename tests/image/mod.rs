//! Disk images and what is made of them, read back by the programs that everybody has for them.

mod artifacts;
mod filesystems;
mod layout;
