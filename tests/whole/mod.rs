//! Whole builds, in every place where they must work and with everything that can get in their way.

mod escapes;
mod full_disk;
mod mirrors;
mod names;
pub mod places;
mod stopped;
mod together;
