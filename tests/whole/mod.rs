//! Whole builds, in every place where they must work and with everything that can get in their way.

mod archives_move;
mod chaos;
mod doors;
mod escapes;
mod every_way;
mod full_disk;
mod host_does_not_leak;
mod messages;
mod mirrors;
mod names;
pub mod places;
mod plan_and_execution;
mod protected;
mod publishing;
mod secrets;
mod stopped;
mod together;
