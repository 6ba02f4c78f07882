//! What debos promises its recipes and its callers (shared/reference: the tables of its actions, properties,
//! phases and options), as far as no test elsewhere shows it.

mod actions;
mod command_line;
mod pacman;
mod side_by_side;
