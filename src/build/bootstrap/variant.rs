//! Which packages a bootstrap takes: mmdebstrap's variants.

use std::str::FromStr;

use crate::debian::Architecture;

/// A variant, by what it installs beside what is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Nothing, and what is asked for is only extracted.
    Extract,
    /// Nothing.
    Custom,
    /// Essential packages.
    Essential,
    /// Essential packages and apt.
    Apt,
    /// Essential packages and those of priority required.
    Required,
    /// The same and build-essential.
    Buildd,
    /// Essential packages and those of priority required and important.
    Important,
    /// Essential packages and those of priority required, important and standard.
    Standard,
}

/// mmdebstrap's names for variants.
pub const VARIANTS: &[(&str, Variant)] = &[
    ("extract", Variant::Extract),
    ("custom", Variant::Custom),
    ("essential", Variant::Essential),
    ("apt", Variant::Apt),
    ("minbase", Variant::Required),
    ("required", Variant::Required),
    ("buildd", Variant::Buildd),
    ("important", Variant::Important),
    ("debootstrap", Variant::Important),
    ("-", Variant::Important),
    ("standard", Variant::Standard),
];

impl FromStr for Variant {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = VARIANTS.iter().find(|(known, _)| *known == name);
        found.map(|(_, variant)| *variant).ok_or_else(|| format!("`{name}` is not a variant of mmdebstrap"))
    }
}

impl Variant {
    /// What apt is asked for first, into an empty root: what all other packages take for granted.
    pub fn essential(self, suite: &str, architecture: Architecture, include: &[String]) -> Vec<String> {
        match self {
            Self::Extract | Self::Custom => include.to_vec(),
            // apt counts itself as essential.
            _ => {
                let mut wanted = vec![of_suite(suite, architecture, "?and(?essential,?not(?exact-name(apt)))")];
                if self == Self::Apt {
                    wanted.push("apt".into());
                }
                wanted
            }
        }
    }

    /// What apt is asked for then.
    pub fn rest(self, suite: &str, architecture: Architecture, include: &[String]) -> Vec<String> {
        if matches!(self, Self::Extract | Self::Custom) {
            return Vec::new();
        }
        let mut wanted = include.to_vec();
        if self == Self::Buildd {
            wanted.push("build-essential".into());
        }
        if let Some((last, others)) = self.priorities().split_last() {
            let any = others
                .iter()
                .fold(format!("?priority({last})"), |any, priority| format!("?or(?priority({priority}),{any})"));
            wanted.push(of_suite(suite, architecture, &any));
        }
        wanted
    }

    /// Priorities of the packages that it installs beside the essential ones.
    pub fn priorities(self) -> &'static [&'static str] {
        match self {
            Self::Extract | Self::Custom | Self::Essential | Self::Apt => &[],
            Self::Required | Self::Buildd => &["required"],
            Self::Important => &["required", "important"],
            Self::Standard => &["required", "important", "standard"],
        }
    }
}

/// A pattern of apt (apt-patterns(7)) for packages that the suite itself has, not one beside it.
fn of_suite(suite: &str, architecture: Architecture, pattern: &str) -> String {
    format!("?narrow(?or(?archive(^{suite}$),?codename(^{suite}$)),?architecture({architecture}),{pattern})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_ask_for_their_priorities() {
        let include = ["vim".to_owned()];
        let rest = |name: &str| name.parse::<Variant>().unwrap().rest("trixie", Architecture::Arm64, &include);
        assert_eq!(rest("essential"), ["vim"]);
        assert_eq!(
            rest("minbase"),
            ["vim", "?narrow(?or(?archive(^trixie$),?codename(^trixie$)),?architecture(arm64),?priority(required))"]
        );
        assert!(rest("-")[1].ends_with(",?or(?priority(required),?priority(important)))"));
        assert!(rest("buildd").contains(&"build-essential".to_owned()));
        assert!(rest("custom").is_empty());
        assert!("minimal".parse::<Variant>().is_err());
    }
}
