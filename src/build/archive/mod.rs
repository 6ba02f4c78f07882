//! Archives: reading what others made without trusting it, and writing the same bytes for the same tree.

mod acl;
mod compression;
mod deb;
mod external;
mod file;
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
pub use pack::{Packed, pack};
pub use unpack::{Archive, Unpacked, unpack};
