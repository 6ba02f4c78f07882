//! Reading what builds make (images, archives, file systems) without mounting any of it.
//!
//! [`Source`] turns a file of any form into plain bytes: compressed ones and those of virtual machines are
//! written out into a scratch directory. [`table`] and [`Tree`] look at these bytes; [`bootable`] finds out
//! what can start them.

pub mod bootable;
mod iso;
mod source;
pub mod table;
pub mod tree;
mod window;

pub use source::{Format, Source, Workplace};
pub use tree::Tree;
pub use window::Window;
