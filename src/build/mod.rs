//! What an action works in: its contexts, origins, commands, clean-up, events.

pub mod apt;
pub mod bootstrap;
mod check;
pub mod cleanup;
pub mod command;
pub mod context;
pub mod event;
mod guard;
pub mod inputs;
pub mod inside;
pub mod interrupt;

pub use check::{CheckContext, FileKind, Files};
pub use context::BuildContext;
pub use event::{Event, Reporter};
pub use inputs::{Input, InputContext};
pub use interrupt::interrupted;
