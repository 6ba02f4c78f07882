//! Recipes that need root or user namespaces.

mod apt;
mod bootstrap;
mod bootstrap_unpack;
mod examples;
mod scripts;
mod snapshot;
