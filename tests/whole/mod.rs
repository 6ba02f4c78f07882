//! Whole builds, in every place where they must work and with everything that can get in their way.

mod archives_move;
mod escapes;
mod full_disk;
mod mirrors;
pub mod places;
mod plan_and_execution;
mod secrets;
mod stopped;
mod together;
