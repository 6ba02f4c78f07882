//! A package about to be installed, and the order that packages go in.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};

use crate::debian::deb::{self, ControlFile, Deb};
use crate::debian::deb822::Paragraph;
use crate::debian::dpkg::{Triggers, relations};

/// A .deb file with its control files read.
#[derive(Debug)]
pub struct Package {
    /// Where its files come from.
    pub deb: Deb,
    /// Its name, without architecture.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture, or `all`.
    pub architecture: String,
    /// The fields of its control file.
    pub control: Paragraph,
    /// The control file as it is written.
    pub control_text: String,
    /// The other control files: scripts, `md5sums`, `triggers`, …
    pub files: Vec<ControlFile>,
    /// Absolute paths of its configuration files, in its order, and whether they are only to be removed
    /// on an upgrade: those it does not ship (deb-conffiles(5)).
    pub conffiles: Vec<(String, bool)>,
    /// Triggers that it listens to and sets off.
    pub triggers: Triggers,
}

impl Package {
    /// Reads a .deb file's control files.
    pub fn read(path: &Path) -> Result<Self> {
        let deb = Deb::open(path)?;
        Self::of(deb).with_context(|| format!("reading {}", path.display()))
    }

    fn of(deb: Deb) -> Result<Self> {
        let mut files = deb.control_files()?;
        let control = deb::control_of(&files)?;
        let control_text = files.iter().find(|file| file.name == "control").map(|file| &file.contents);
        let control_text = String::from_utf8_lossy(control_text.map_or(&[], |text| text)).trim_matches('\n').to_owned();
        files.retain(|file| file.name != "control");
        let field = |name: &str| {
            control.get(name).map(str::to_owned).with_context(|| format!("its control file has no field {name}"))
        };
        let text = |name: &str| {
            let file = files.iter().find(|file| file.name == name);
            file.map(|file| String::from_utf8_lossy(&file.contents).into_owned()).unwrap_or_default()
        };
        let conffiles = text("conffiles");
        let conffiles = conffiles.lines().map(str::trim).filter_map(|line| match line.split_once(' ') {
            Some(("remove-on-upgrade", path)) => Some((path.trim().to_owned(), true)),
            _ => line.starts_with('/').then(|| (line.to_owned(), false)),
        });
        Ok(Self {
            name: field("Package")?,
            version: field("Version")?,
            architecture: field("Architecture")?,
            conffiles: conffiles.collect(),
            triggers: Triggers::parse(&text("triggers"))?,
            control,
            control_text,
            files,
            deb,
        })
    }

    /// Whether packages of the same name and another architecture may stand beside it.
    pub fn is_multi_arch_same(&self) -> bool {
        self.control.get("Multi-Arch") == Some("same")
    }

    /// Its name in dpkg's database: with the architecture where there may be several.
    pub fn database_name(&self) -> String {
        if self.is_multi_arch_same() { format!("{}:{}", self.name, self.architecture) } else { self.name.clone() }
    }

    /// One of its control files.
    pub fn file(&self, name: &str) -> Option<&ControlFile> {
        self.files.iter().find(|file| file.name == name)
    }

    /// Whether it may overwrite files of a package: by its `Replaces`.
    pub fn replaces(&self, other: &Self) -> bool {
        let provides = relations(&other.control, "Provides");
        relations(&self.control, "Replaces")
            .iter()
            .flatten()
            .any(|replaced| *replaced == other.name || provides.iter().flatten().any(|provided| provided == replaced))
    }
}

/// Which packages of a set the packages need, by position.
pub struct Relations {
    pre_depends: Vec<Vec<usize>>,
    depends: Vec<Vec<usize>>,
}

impl Relations {
    /// The relations within a set.
    pub fn of(packages: &[Package]) -> Self {
        let mut providers: HashMap<String, usize> = HashMap::new();
        for (position, package) in packages.iter().enumerate() {
            for name in relations(&package.control, "Provides").into_iter().flatten() {
                providers.entry(name).or_insert(position);
            }
        }
        // A package's own name goes before what others provide.
        providers.extend(packages.iter().enumerate().map(|(position, package)| (package.name.clone(), position)));
        let resolve = |package: &Package, field: &str| -> Vec<usize> {
            relations(&package.control, field)
                .iter()
                .filter_map(|any| any.iter().find_map(|name| providers.get(name).copied()))
                .collect()
        };
        Self {
            pre_depends: packages.iter().map(|package| resolve(package, "Pre-Depends")).collect(),
            depends: packages.iter().map(|package| resolve(package, "Depends")).collect(),
        }
    }

    /// All packages, each after those it pre-depends on and, but for circles, those it depends on.
    pub fn order(&self) -> Vec<usize> {
        let all: Vec<usize> = (0..self.depends.len()).collect();
        let by_depends = walk(&all, &|position| [&self.pre_depends[position][..], &self.depends[position]].concat());
        // Circles of Depends may have been broken at a Pre-Depends, which never form circles themselves.
        walk(&by_depends, &|position| self.pre_depends[position].clone())
    }

    /// What a package pre-depends on.
    pub fn pre_depends(&self, position: usize) -> &[usize] {
        &self.pre_depends[position]
    }

    /// Some packages and all that must be configured before them, in order.
    pub fn closure(&self, wanted: &[usize]) -> Vec<usize> {
        walk(wanted, &|position| [&self.pre_depends[position][..], &self.depends[position]].concat())
    }
}

/// Depth first, each position after those it leads to; circles are cut where they close.
fn walk(start: &[usize], next: &dyn Fn(usize) -> Vec<usize>) -> Vec<usize> {
    let mut order = Vec::new();
    let mut seen = std::collections::HashSet::new();
    let mut stack: Vec<(usize, Vec<usize>)> = Vec::new();
    for &position in start {
        if !seen.insert(position) {
            continue;
        }
        stack.push((position, reversed(next(position))));
        while let Some((current, rest)) = stack.last_mut() {
            match rest.pop() {
                Some(position) if seen.insert(position) => stack.push((position, reversed(next(position)))),
                Some(_) => {}
                None => {
                    order.push(*current);
                    stack.pop();
                }
            }
        }
    }
    order
}

fn reversed(mut positions: Vec<usize>) -> Vec<usize> {
    positions.reverse();
    positions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pre_depends_hold_in_circles_of_depends() {
        // 0 depends on 1, 1 depends on 0 and 2, 2 pre-depends on 0.
        let relations =
            Relations { pre_depends: vec![vec![], vec![], vec![0]], depends: vec![vec![1], vec![0, 2], vec![]] };
        let order = relations.order();
        let place = |wanted| order.iter().position(|position| *position == wanted).unwrap();
        assert!(place(0) < place(2), "{order:?}");
        assert_eq!(order.len(), 3);
        assert_eq!(relations.closure(&[2]).len(), 3);
    }
}
