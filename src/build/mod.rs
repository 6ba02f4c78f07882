//! What an action works in: its contexts, origins, commands, clean-up, events.

pub mod accounts;
pub mod apt;
pub mod archive;
pub mod boot_check;
pub mod bootloader;
pub mod bootstrap;

mod check;
pub mod cleanup;
pub mod command;
pub mod context;
pub mod event;
pub mod files;
pub mod first_boot;
pub mod gpg;
mod guard;
pub mod image;
pub mod inputs;
pub mod inside;
pub mod oci;
pub mod origin;
pub mod ostree;
pub mod packages;
pub mod pacman;
pub mod protected;
pub mod secrets;

pub use crate::sys::interrupt::interrupted;
pub use check::{CheckContext, FileKind, Files, LOGIN_FILE};
pub use context::{BuildContext, RenderFile};
pub use event::{Event, Reporter};
pub use inputs::{Input, InputContext};
