//! What a user sees: commands, options, exit codes, output.

mod manual;
