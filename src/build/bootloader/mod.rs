//! Boot loaders, installed into a root that is a tree of files: nothing here needs a block device.
//!
//! What the loaders' own installers ask devices for (which file system, which UUID, where on the disk)
//! follows from the image's [`Spec`](crate::image::Spec).

pub mod cmdline;
mod efi;
pub mod extlinux;
pub mod grub;
mod grub_config;
pub mod grub_word;
pub mod layout;
pub mod raspberrypi;
mod site;
pub mod systemd_boot;

pub use efi::{EfiNames, efi_names};
pub use grub_config::stand_in as update_grub;
pub use site::{Options, Site};
