//! What needs root or user namespaces: the sandbox and the engine's process.

mod examples;
mod sandbox;
