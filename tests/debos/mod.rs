//! Recipes of debos: as they are, read as leniently as debos reads them, in Jinja, and beside debos itself.

mod actions;
mod command_line;
mod import;
mod odd;
mod pacman;
mod random;
mod side_by_side;
mod strictness;
mod templates;
