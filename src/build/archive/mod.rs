//! Archives: reading what others made without trusting it, and writing the same bytes for the same tree.

mod acl;
mod compression;
mod deb;
mod external;
mod file;
mod header;
mod pack;
mod parallel;
mod pax;
mod sparse;
mod tar;
#[cfg(test)]
mod tests;
mod unpack;
mod zip;

pub use compression::Compression;
pub use file::compress;
pub(crate) use pack::{Entry as PackEntry, Item as PackItem, Style as PackStyle, pack_items, scan};
pub use pack::{Packed, pack};
pub(crate) use sparse::Part;
pub(crate) use tar::{Member as TarMember, Reader as TarReader, Type as TarType, is_header as is_tar_header};
pub use unpack::{Archive, Unpacked, unpack};
