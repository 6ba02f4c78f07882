//! debforge builds Debian systems from a recipe.
//!
//! The rooms, from the top down; imports run downwards only:
//! [`cli`] → [`machine`] → [`engine`] → [`plan`], [`import`] → [`recipe`] → [`actions`] → [`inspect`] →
//! [`build`] → [`image`], [`store`], [`sandbox`] → [`debian`], [`diagnostics`] → [`sys`].
//! [`report`] stands beside [`cli`].

pub mod actions;
pub mod build;
pub mod cli;
pub mod debian;
pub mod diagnostics;
pub mod engine;
pub mod image;
pub mod import;
pub mod inspect;
pub mod machine;
pub mod oci;
pub mod ostree;
pub mod plan;
pub mod recipe;
pub mod report;
pub mod sandbox;
pub mod store;
pub mod sys;
