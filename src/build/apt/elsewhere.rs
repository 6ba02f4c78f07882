//! Where a package is that no repository of the root has: in other components of the same suites.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufReader;

use anyhow::{Context, Result};

use super::session::Apt;
use super::{explain, lists, release_file};
use crate::debian::package_list;
use crate::debian::release::Release;
use crate::debian::sources::{Source, Suite};
use crate::diagnostics::Fault;

/// Lists larger than this, packed, are not fetched for a hint.
const LARGEST: u64 = 8 << 20;

impl Apt<'_> {
    /// For each of these packages that another component has, where (`non-free of trixie`). What cannot be
    /// looked at has none.
    fn in_other_components(&self, packages: &[&str]) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        if !packages.is_empty() && !crate::build::interrupted() {
            let _ = self.look_around(packages, &mut found);
        }
        found
    }

    /// Says of packages that are not there where they are.
    pub(super) fn point_out(&self, output: &[String], fault: &mut Fault) {
        for (package, place) in self.in_other_components(&explain::missing_packages(output)) {
            let before = format!("no repository of the root has `{package}`");
            fault.hints.retain(|hint| !hint.starts_with(&before));
            fault.hints.push(format!("`{package}` is in {place}: give the repository that component, too"));
        }
    }

    /// A suite's Release file, as the plan knows it.
    fn release(&self, suite: &Suite) -> Result<Option<Release>> {
        let Some(sha256) = self.cx.input(&release_file::input_name(suite)) else { return Ok(None) };
        let Some(path) = self.cx.store.blob(sha256) else { return Ok(None) };
        release_file::parse(&std::fs::read_to_string(path)?).map(Some)
    }

    fn look_around(&self, packages: &[&str], found: &mut BTreeMap<String, String>) -> Result<()> {
        for source in &self.sources.0 {
            for suite in source.suites().filter(|suite| !suite.is_flat()) {
                let Some(release) = self.release(&suite)? else { continue };
                for component in others(source, &release) {
                    let other = Source { components: vec![component.clone()], ..source.clone() };
                    for index in lists::indexes(&other, &suite, &release, &self.architectures)? {
                        if index.size > LARGEST {
                            continue;
                        }
                        let fetched = lists::fetch(self.cx.store, &self.options.access, &index)?;
                        let file = std::fs::File::open(&fetched.path).context("reading a package list")?;
                        package_list::each_package(BufReader::new(lists::decoder(file, &index)?), &mut |package| {
                            if packages.contains(&package.name.as_str()) {
                                let place = format!("`{component}` of {}", suite.name);
                                found.entry(package.name).or_insert(place);
                            }
                        })?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Components that a suite has and a source does not name; without those of its installer.
fn others(source: &Source, release: &Release) -> BTreeSet<String> {
    let all = release.paths().filter_map(|path| Some(path.split_once("/binary-")?.0.to_owned()));
    all.filter(|component| !source.components.contains(component) && !component.ends_with("/debian-installer"))
        .collect()
}
