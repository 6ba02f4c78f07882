//! pacman on the host, working for a target root.
//!
//! When a build is planned, [`Session::add_databases`] takes the databases of all repositories into the
//! store: they are the state that the step's id is made from. When the step runs, the host's pacman decides
//! over these databases what it wants, the packages come into the store, each checked against the digest that
//! the database has of it, and pacman installs them without a network.

mod config;
mod database;
mod first_start;
mod session;

pub use config::{Config, MIRROR_LIST, Repository, architecture_name};
pub use session::{Session, TOOLS, add_inputs, has_database};
