//! Tests of atomic systems: that a disk starts, takes an update, keeps what is its own, and finds its way back.
//!
//! [`Test`] has what is tested and what it did so far; [`stages`] is the table of what is done to it. All of that
//! happens out here: in the machine an agent only runs commands ([`system`]), and nothing of the tested commits is
//! changed for it.

mod agent;
mod cut;
mod difference;
mod disk;
mod serve;
pub mod stages;
mod status;
mod system;
mod test;
mod updates;

pub use difference::Difference;
pub use disk::{Disk, Origin};
pub use system::{Hardware, System};
pub use test::Test;
pub use updates::Updates;
