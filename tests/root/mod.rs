//! Recipes that need root or user namespaces.

mod bootstrap;
mod bootstrap_unpack;
mod examples;
