//! Disk images: what a recipe declares, where its parts lie, and how they are written into a sparse
//! file without a device.
//!
//! [`Spec`] is what a recipe says. [`Layout`] is what it comes to in bytes: pure arithmetic. The rest
//! turns both into an image: [`table`] writes the partition table, [`filesystem`] makes and fills a file
//! system at its place. Nothing here knows recipes or steps; programs are run by whoever calls
//! ([`Tools`]).

pub mod filesystem;
pub mod format;
pub mod grub;
mod layout;
mod overwrite;
mod position;
mod size;
pub mod sparse;
mod spec;
pub mod table;
mod tools;

pub use layout::{Extended, Finding, Layout, Placed};
pub use overwrite::{Area, Overwrite, Owner};
pub use position::Position;
pub use size::{Size, exact};
pub use spec::{
    BootCheck, Contents, Deploy, FilesystemKind, ImageSize, Mount, Partition, Reserved, Spec, Strategy, TableKind,
    Verity, Write, WriteSource, WriteTarget,
};
pub use tools::{Tool, Tools};
