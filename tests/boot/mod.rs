//! Images that are booted, each to a marker that its own userspace prints: the proof that table, file
//! systems, boot loader, kernel and root fit together. One virtual machine runs at a time.

#[macro_use]
mod qemu;

#[macro_use]
mod systems;

mod atomic;
mod boards;
mod boot_check;
mod first_boot;
mod grub;
mod iso;
mod slots;
mod systemd_boot;
mod verity;
