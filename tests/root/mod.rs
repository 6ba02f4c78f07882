//! Recipes that need root or user namespaces.

/// An [`apt::Case`], or the test ends.
macro_rules! case {
    () => {{
        needs_program!("gpg", "gnupg");
        needs_program!("apt-get", "apt");
        needs_program!("gpgv", "gpgv");
        match crate::root::apt::Case::new() {
            Some(case) => case,
            None => skip!("needs dpkg and what it calls"),
        }
    }};
}

mod apt;
mod bootstrap;
mod bootstrap_unpack;
mod examples;
mod fetching;
mod scripts;
mod snapshot;
