//! Whether sysusers.d(5) makes the users and groups.

use std::collections::BTreeSet;

use anyhow::Result;

use super::{Found, listed};
use crate::inspect::Tree;

pub(super) fn sysusers(tree: &dyn Tree) -> Found {
    let Some(passwd) = tree.text("etc/passwd")? else { return Ok(None) };
    let group = tree.text("etc/group")?.unwrap_or_default();
    let (users, groups) = declared(tree)?;
    let missing = |text: &str, declared: &BTreeSet<String>| -> Vec<String> {
        let names = text.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '+', '-']));
        let names: BTreeSet<&str> = names.filter_map(|line| line.split(':').next()).collect();
        names.into_iter().filter(|name| !declared.contains(*name)).map(str::to_owned).collect()
    };
    let parts = [
        listed("no sysusers.d makes the users", &missing(&passwd, &users)),
        listed("no sysusers.d makes the groups", &missing(&group, &groups)),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    Ok((!parts.is_empty()).then(|| parts.join("; ")))
}

/// Names of users and groups that are made.
fn declared(tree: &dyn Tree) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let (mut users, mut groups) = (BTreeSet::new(), BTreeSet::new());
    for entry in tree.names("usr/lib/sysusers.d")? {
        if entry.path.extension().is_none_or(|extension| extension != "conf") {
            continue;
        }
        for line in tree.text(&entry.path)?.unwrap_or_default().lines() {
            let mut words = line.split_whitespace();
            let (Some(kind), Some(name)) = (words.next(), words.next()) else { continue };
            let name = name.trim_matches('"').to_owned();
            match kind {
                // A user brings a group of the same name.
                "u" | "u!" => {
                    groups.insert(name.clone());
                    users.insert(name);
                }
                "g" => {
                    groups.insert(name);
                }
                _ => {}
            }
        }
    }
    Ok((users, groups))
}
