//! The manuals of actions, and what is generated from them.
