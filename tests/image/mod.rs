//! Disk images and what is made of them, read back by the programs that everybody has for them.

mod artifacts;
mod bmap;
mod boards;
mod boot_check;
mod deploy;
pub mod disk;
mod filesystem_image;
mod filesystems;
mod iso;
mod layout;
mod layout_properties;
pub mod mounted;
mod raw;
mod slots;
mod write;
