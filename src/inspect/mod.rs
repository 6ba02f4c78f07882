//! Reading what builds make (images, archives, file systems) without mounting any of it.
//!
//! [`Source`] turns a file of any form into plain bytes: compressed ones and those of virtual machines are
//! written out into a scratch directory. [`table`] and [`Tree`] look at these bytes; [`bootable`] finds out
//! what can start them.

pub mod artifact;
pub mod bootable;
pub mod bootc;
pub mod compare;
pub mod filesystem;
pub mod image;
pub mod initrd;
mod iso;
pub mod loaders;
pub mod menu;
mod source;
pub mod system;
pub mod table;
pub mod tree;
mod window;

pub use artifact::{Artifact, Form, Volume};
pub use source::{Format, Source, Workplace};
pub use tree::Tree;
pub use window::Window;
