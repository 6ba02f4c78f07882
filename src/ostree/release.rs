//! What the OSTree of a Debian release can do.

use crate::diagnostics::Fault;

/// What a version of Debian's ostree package can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// It reads /usr/lib/ostree/prepare-root.conf (ostree-prepare-root(1)).
    pub prepare_root: bool,
    /// It mounts deployments by composefs, which checks what is read.
    pub composefs: bool,
    /// `ostree admin set-default`.
    pub set_default: bool,
    /// It takes a commit's /var over once, when a system is first deployed.
    pub initial_var: bool,
}

/// Debian's releases, and the version of ostree in each.
const RELEASES: [(&str, &str); 3] = [("bookworm", "2022.7"), ("trixie", "2025.2"), ("forky", "2026.4")];

impl Abilities {
    /// Of a version: `2022.7-2+deb12u1`.
    pub fn of(version: &str) -> Self {
        let mut numbers = version.split(['.', '-', '~', '+']).map(|part| part.parse::<u32>().unwrap_or_default());
        let version = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        Self {
            prepare_root: version >= (2023, 4),
            // Debian builds it in from 2025.3 on.
            composefs: version >= (2025, 3),
            set_default: version >= (2023, 1),
            initial_var: version >= (2024, 3),
        }
    }

    /// Of a release by its name; `None` for others than Debian's from 12 on.
    pub fn of_release(suite: &str) -> Option<Self> {
        let suite = suite.split('-').next().unwrap_or(suite);
        let suite = match suite {
            "oldstable" => "bookworm",
            "stable" => "trixie",
            "testing" | "sid" | "unstable" => "forky",
            other => other,
        };
        RELEASES.iter().find(|(name, _)| *name == suite).map(|(_, version)| Self::of(version))
    }

    /// What it cannot do, in words for people.
    pub fn lacks(self) -> Vec<&'static str> {
        let all = [
            (self.prepare_root, "prepare-root.conf (a read-only /sysroot is set by `ostree-deploy` instead)"),
            (self.composefs, "composefs"),
            (self.set_default, "`ostree admin set-default` (`debforge-rollback` does it)"),
        ];
        let mut lacks: Vec<_> = all.iter().filter(|(can, _)| !can).map(|(_, what)| *what).collect();
        lacks.push("ed25519 signatures (GPG ones work)");
        lacks
    }

    /// The fault where composefs was asked for.
    pub fn no_composefs(what: &str) -> Fault {
        Fault::recipe(format!("{what} is built without composefs"))
            .hint("leave `composefs` out, or build for forky or sid")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_can_do_more_and_more() {
        let bookworm = Abilities::of("2022.7-2+deb12u1");
        assert_eq!((bookworm.prepare_root, bookworm.set_default, bookworm.composefs), (false, false, false));
        let trixie = Abilities::of_release("trixie-updates").unwrap();
        assert_eq!((trixie.prepare_root, trixie.set_default, trixie.composefs), (true, true, false));
        assert!(Abilities::of_release("sid").unwrap().composefs);
        assert!(Abilities::of_release("jammy").is_none());
        assert_eq!(trixie.lacks().len(), 2);
    }
}
