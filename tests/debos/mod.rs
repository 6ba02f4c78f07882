//! Recipes of debos as they are: its actions, properties, phases and arguments, as far as no test elsewhere shows
//! them; Go templates, read as leniently as debos reads them; and debos itself, side by side.

mod actions;
mod command_line;
mod odd;
mod pacman;
mod side_by_side;
mod strictness;
mod templates;
