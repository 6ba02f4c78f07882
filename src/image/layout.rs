//! Where the parts of an image lie: pure arithmetic.

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::Spec;

/// An image in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Layout {
    /// Of the whole image.
    pub size: u64,
    /// In the order of [`Spec::partitions`].
    pub partitions: Vec<Placed>,
}

/// A partition in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Placed {
    /// As in the recipe.
    pub name: String,
    /// 1 and up.
    pub number: u32,
    /// In bytes from the start of the disk.
    pub start: u64,
    /// In bytes.
    pub length: u64,
}

impl Layout {
    /// Lays a specification out. `contents` is what the file system of a partition wants at least, in
    /// bytes, for images that are as large as their contents; it is not asked for others.
    pub fn of(_spec: &Spec, _contents: &mut dyn FnMut(&str) -> Result<u64>) -> Result<Self> {
        bail!("layouts are not there yet")
    }

    /// A partition by its name.
    pub fn partition(&self, name: &str) -> Option<&Placed> {
        self.partitions.iter().find(|partition| partition.name == name)
    }
}
