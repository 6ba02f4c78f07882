//! Which source packages share a layer.
//!
//! A client fetches every layer that holds a changed package, so a package that is large should be alone, and no
//! package should move to another layer because a third one came or went. All binary packages of a source change
//! together and stay together.

use std::collections::{BTreeMap, BTreeSet};

/// What a layer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Files of packages.
    Packages,
    /// Initramfs and what else no package has beside the kernels.
    Boot,
    /// Other files that no package has.
    Files,
    /// /var and caches.
    State,
    /// dpkg's database and logs: what changes with every package.
    Database,
    /// Files that are in the image alone: kernel arguments.
    Image,
}

impl Kind {
    /// As the annotation has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Packages => "packages",
            Self::Boot => "boot",
            Self::Files => "files",
            Self::State => "state",
            Self::Database => "database",
            Self::Image => "image",
        }
    }
}

/// Layers that are not of packages.
const OTHERS: usize = 5;

/// The least that `max-layers` can be: those, and one for all packages.
pub const FEWEST: usize = OTHERS + 1;

/// One layer in so many is shared, where not every package can have its own.
const SHARED: usize = 4;

/// Divides source packages among layers, at most `most` of all kinds: a list of names for each layer of packages.
/// `sizes` are the bytes of each one's files. `previous` is the division of an earlier image, kept as far as it goes.
pub fn divide(sizes: &BTreeMap<String, u64>, previous: &[Vec<String>], most: usize) -> Vec<Vec<String>> {
    let most = most.saturating_sub(OTHERS).max(1);
    let layers = match previous.is_empty() || previous.len() > most {
        true => afresh(sizes, most),
        false => along(sizes, previous, most),
    };
    layers.into_iter().filter(|layer| !layer.is_empty()).collect()
}

/// Without an earlier division: the largest have a layer each; the others share some, each in the one that its name
/// says, so that none moves when another comes or goes.
fn afresh(sizes: &BTreeMap<String, u64>, most: usize) -> Vec<Vec<String>> {
    if sizes.len() <= most {
        return sizes.keys().map(|name| vec![name.clone()]).collect();
    }
    let shared = (most / SHARED).max(1);
    let mut by_size: Vec<(&String, &u64)> = sizes.iter().collect();
    by_size.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let (alone, others) = by_size.split_at(most - shared);
    let alone: BTreeSet<&String> = alone.iter().map(|(name, _)| *name).collect();
    let mut together = vec![Vec::new(); shared];
    for name in others.iter().map(|(name, _)| *name).collect::<BTreeSet<_>>() {
        together[place(name, shared)].push(name.clone());
    }
    alone.into_iter().map(|name| vec![name.clone()]).chain(together).collect()
}

/// Along an earlier division: who shared a layer shares it still; who is new gets a layer, or shares one that is
/// shared.
fn along(sizes: &BTreeMap<String, u64>, previous: &[Vec<String>], most: usize) -> Vec<Vec<String>> {
    let mut known = BTreeSet::new();
    let mut layers: Vec<Vec<String>> = Vec::new();
    for layer in previous {
        let still = layer.iter().filter(|name| sizes.contains_key(*name) && known.insert((*name).clone()));
        layers.push(still.cloned().collect());
    }
    layers.retain(|layer| !layer.is_empty());
    let mut new: Vec<(&String, &u64)> = sizes.iter().filter(|(name, _)| !known.contains(*name)).collect();
    new.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    for (name, _) in new {
        if layers.len() < most {
            layers.push(vec![name.clone()]);
            continue;
        }
        let mut shared: Vec<usize> = (0..layers.len()).filter(|at| layers[*at].len() > 1).collect();
        if shared.is_empty() {
            // The smallest has to share from now on.
            let size = |at: &usize| layers[*at].iter().filter_map(|name| sizes.get(name)).sum::<u64>();
            shared.extend((0..layers.len()).min_by_key(size));
        }
        layers[shared[place(name, shared.len())]].push(name.clone());
    }
    layers
}

/// A number below `places` that depends on the name alone.
fn place(name: &str, places: usize) -> usize {
    let hash = blake3::hash(name.as_bytes());
    let (first, _) = hash.as_bytes().split_first_chunk::<8>().map_or(([0; 8], &[][..]), |(first, rest)| (*first, rest));
    usize::try_from(u64::from_le_bytes(first) % places as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sizes(count: usize) -> BTreeMap<String, u64> {
        (0..count).map(|number| (format!("p{number:03}"), (number as u64 + 1) * 1000)).collect()
    }

    /// Layers of `after` that `before` has not.
    fn fetched(before: &[Vec<String>], after: &[Vec<String>]) -> Vec<Vec<String>> {
        after.iter().filter(|layer| !before.contains(layer)).cloned().collect()
    }

    #[test]
    fn few_packages_have_a_layer_each() {
        let layers = divide(&sizes(10), &[], 64);
        assert_eq!(layers.len(), 10);
        assert!(layers.iter().all(|layer| layer.len() == 1));
    }

    #[test]
    fn of_many_the_largest_are_alone() {
        let layers = divide(&sizes(200), &[], 64);
        assert!(layers.len() <= 60);
        assert!(layers.contains(&vec!["p199".to_owned()]));
        assert!(layers.iter().any(|layer| layer.contains(&"p000".to_owned()) && layer.len() > 1));
        assert_eq!(layers.iter().map(Vec::len).sum::<usize>(), 200);
    }

    #[test]
    fn a_small_package_more_changes_one_layer() {
        let before = divide(&sizes(200), &[], 64);
        let mut more = sizes(200);
        more.insert("aaa".into(), 10);
        assert_eq!(fetched(&before, &divide(&more, &[], 64)).len(), 1);
    }

    #[test]
    fn an_earlier_division_stays() {
        let before = divide(&sizes(200), &[], 64);
        let mut other = sizes(200);
        // Grown beyond all others, gone, and new.
        other.insert("p000".into(), 1 << 30);
        other.remove("p199");
        other.insert("zzz".into(), 1 << 29);
        let after = divide(&other, &before, 64);
        let fetched = fetched(&before, &after);
        assert_eq!(fetched, [vec!["zzz".to_owned()]]);
        assert_eq!(divide(&other, &after, 64), after);
    }

    proptest! {
        #[test]
        fn every_package_is_in_one_layer(
            first in proptest::collection::btree_map("[a-z]{1,6}", 0u64..10_000, 0..80),
            second in proptest::collection::btree_map("[a-z]{1,6}", 0u64..10_000, 0..80),
            most in FEWEST..40,
        ) {
            let before = divide(&first, &[], most);
            for (sizes, layers) in [(&first, &before), (&second, &divide(&second, &before, most))] {
                prop_assert!(layers.len() + OTHERS <= most);
                let mut all: Vec<&String> = layers.iter().flatten().collect();
                all.sort();
                prop_assert_eq!(all, sizes.keys().collect::<Vec<_>>());
            }
        }
    }
}
