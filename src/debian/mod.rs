//! Debian's own formats and tools: architectures, repositories, packages, apt.

mod architecture;

pub use architecture::Architecture;
