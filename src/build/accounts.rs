//! Users and groups by name, as a target root has them.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};

use super::inside::{Inside, Kind};

/// What `/etc/passwd` and `/etc/group` of a root say.
#[derive(Debug, Default)]
pub struct Accounts {
    users: HashMap<String, u32>,
    groups: HashMap<String, u32>,
}

impl Accounts {
    /// Reads them; a root without the files knows `root` alone.
    pub fn of(root: &Inside) -> Result<Self> {
        Ok(Self { users: read(root, "/etc/passwd")?, groups: read(root, "/etc/group")? })
    }

    /// A user's number.
    pub fn user(&self, name: &str) -> Option<u32> {
        self.users.get(name).copied()
    }

    /// A group's number.
    pub fn group(&self, name: &str) -> Option<u32> {
        self.groups.get(name).copied()
    }

    /// All users' names.
    pub fn user_names(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(String::as_str)
    }

    /// All groups' names.
    pub fn group_names(&self) -> impl Iterator<Item = &str> {
        self.groups.keys().map(String::as_str)
    }
}

/// Both files have the name first and the number third (passwd(5), group(5)).
fn read(root: &Inside, path: &str) -> Result<HashMap<String, u32>> {
    let path = Path::new(path);
    let mut text = Vec::new();
    if root.kind(path)? == Some(Kind::File) {
        root.read(path)?.read_to_end(&mut text).with_context(|| format!("reading {}", path.display()))?;
    }
    let mut all = HashMap::from([("root".to_owned(), 0)]);
    for line in String::from_utf8_lossy(&text).lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(number)) = (fields.next(), fields.nth(1).and_then(|number| number.parse().ok())) {
            all.insert(name.to_owned(), number);
        }
    }
    Ok(all)
}
