//! What a command has where nothing may be mounted.
//!
//! Binds are copies, and /proc, /dev, /sys and /tmp of the root are covered by directories of the command's own
//! ([`copies`], [`cover`]). What only the kernel has is given by who answers the command's calls ([`answer`]): a
//! path is looked at as the command would resolve it ([`resolve`]), and where it leads to /proc or to a device,
//! the call is carried out here, on the process's own files or on what [`super::constant`] states.

mod answer;
mod bounds;
mod calls;
mod carry_out;
mod copies;
mod cover;
mod others;
mod refused;
mod resolve;
mod set_id;
mod stated;

pub(super) use self::answer::Furnished;
pub(super) use self::bounds::{Bounds, shown_paths};
pub(super) use self::copies::Copies;
pub(super) use self::others::Others;
pub(super) use self::refused::Refused;
pub(super) use self::set_id::SetId;
