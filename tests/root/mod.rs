//! Recipes that need root or user namespaces.

mod examples;
