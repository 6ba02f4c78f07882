//! Who the engine is, and which owners files can have.

use std::path::Path;

use anyhow::{Context, Result};
use nix::unistd::{Gid, Uid, User};
use serde::{Deserialize, Serialize};

use crate::debian::host::find_program;
use crate::diagnostics::Fault;
use crate::sandbox::in_initial_user_namespace;
use crate::store::IdMap;

/// Ids that a Debian system needs: 0 to 65535 (Debian Policy, 9.2.2).
const NEEDED: u32 = 65536;

/// First id that Debian hands out to users for their own use (`SUB_UID_MIN` in login.defs(5)).
const FIRST_SUBORDINATE: u32 = 100_000;

/// Ids of a user namespace and what they are outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// First id inside.
    pub inside: u32,
    /// What it is outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Who the engine runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// Root already, of the machine or of a container.
    Root,
    /// An ordinary user, who is root in a user namespace that has no other ids: enough to keep a process
    /// apart, not to own a system's files.
    Alone {
        /// The user.
        uid: u32,
        /// The user's group.
        gid: u32,
    },
    /// An ordinary user, who is root in a user namespace.
    Mapped {
        /// The user.
        uid: u32,
        /// User ids of the namespace.
        uids: Vec<Range>,
        /// Group ids of the namespace.
        gids: Vec<Range>,
    },
}

impl Identity {
    /// That of this process's user where no files with other owners are to be made.
    pub fn for_a_process() -> Self {
        match Uid::effective().is_root() {
            true => Self::Root,
            false => Self::Alone { uid: Uid::effective().as_raw(), gid: Gid::effective().as_raw() },
        }
    }

    /// That of this process's user; a fault with the way out where the machine grants too little.
    pub fn current() -> Result<Self> {
        if Uid::effective().is_root() {
            return Ok(Self::Root);
        }
        let (uid, gid) = (Uid::effective(), Gid::effective());
        let name = User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
        let [subuids, subgids] = ["/etc/subuid", "/etc/subgid"].map(subordinates);
        let uids = map(uid.as_raw(), &granted(&subuids, &name, uid.as_raw()));
        let gids = map(gid.as_raw(), &granted(&subgids, &name, uid.as_raw()));
        let (Some(uids), Some(gids)) = (uids, gids) else {
            let first = next_free(&[subuids, subgids].concat());
            let range = format!("{first}-{}", first + NEEDED - 1);
            return Err(Fault::machine(format!("the user {name} has too few subordinate ids to own a system's files"))
                .hint(format!("sudo usermod --add-subuids {range} --add-subgids {range} {name}"))
                .into());
        };
        for tool in ["newuidmap", "newgidmap"] {
            if find_program(tool).is_none() {
                return Err(Fault::machine(format!("{tool} is missing, which maps subordinate ids"))
                    .hint("sudo apt install uidmap")
                    .into());
            }
        }
        Ok(Self::Mapped { uid: uid.as_raw(), uids, gids })
    }

    /// How files made under this identity are owned on the disk.
    pub fn id_map(&self) -> IdMap {
        match self {
            Self::Root if in_initial_user_namespace() => IdMap("root".into()),
            Self::Root => IdMap(format!("root-{}", own_map().unwrap_or_default().trim().replace(['\n', ' '], "-"))),
            Self::Alone { uid, .. } => IdMap(format!("alone-{uid}")),
            Self::Mapped { uids, gids, .. } => IdMap(format!("{}+{}", text(uids, "-", "_"), text(gids, "-", "_"))),
        }
    }

    /// "rootless (uid 1000 → 100000+65536)".
    pub fn describe(&self) -> String {
        match self {
            Self::Root if in_initial_user_namespace() => "root".into(),
            Self::Root => "root of a container".into(),
            Self::Alone { uid, .. } => format!("rootless (uid {uid} alone)"),
            Self::Mapped { uid, uids, .. } => {
                let ranges: Vec<String> =
                    uids.iter().skip(1).map(|range| format!("{}+{}", range.outside, range.count)).collect();
                format!("rootless (uid {uid} → {})", ranges.join(", "))
            }
        }
    }
}

/// Ranges as numbers for newuidmap(1): inside, outside, count.
pub(super) fn text(ranges: &[Range], within: &str, between: &str) -> String {
    let ranges: Vec<String> = ranges
        .iter()
        .map(|range| [range.inside, range.outside, range.count].map(|n| n.to_string()).join(within))
        .collect();
    ranges.join(between)
}

fn own_map() -> Option<String> {
    std::fs::read_to_string("/proc/self/uid_map").ok()
}

/// A line of subuid(5).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Grant {
    owner: String,
    first: u32,
    count: u32,
}

fn subordinates(file: &str) -> Vec<Grant> {
    std::fs::read_to_string(Path::new(file)).map(|text| parse(&text)).unwrap_or_default()
}

fn parse(text: &str) -> Vec<Grant> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let (owner, first, count) = (fields.next()?, fields.next()?, fields.next()?);
            Some(Grant { owner: owner.into(), first: first.parse().ok()?, count: count.parse().ok()? })
        })
        .collect()
}

fn granted(all: &[Grant], name: &str, uid: u32) -> Vec<Grant> {
    let uid = uid.to_string();
    all.iter().filter(|grant| grant.owner == name || grant.owner == uid).cloned().collect()
}

/// The user as root, and as many subordinate ids as it takes after that.
fn map(own: u32, grants: &[Grant]) -> Option<Vec<Range>> {
    let mut ranges = vec![Range { inside: 0, outside: own, count: 1 }];
    let mut inside = 1;
    for grant in grants {
        let count = grant.count.min(NEEDED + 1 - inside);
        if count > 0 {
            ranges.push(Range { inside, outside: grant.first, count });
            inside += count;
        }
    }
    (inside >= NEEDED).then_some(ranges)
}

fn next_free(all: &[Grant]) -> u32 {
    all.iter().map(|grant| grant.first.saturating_add(grant.count)).max().unwrap_or(0).max(FIRST_SUBORDINATE)
}

/// Makes this process, which has just entered a user namespace of its own, root there.
pub(super) fn map_alone(uid: u32, gid: u32) -> Result<()> {
    let files =
        [("setgroups", "deny".to_owned()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))];
    for (name, text) in files {
        std::fs::write(Path::new("/proc/self").join(name), text).with_context(|| format!("writing {name}"))?;
    }
    Ok(())
}

/// Writes the maps of a process that has just entered a user namespace of its own.
pub(super) fn write_maps(process: u32, uids: &[Range], gids: &[Range]) -> Result<()> {
    for (tool, ranges) in [("newuidmap", uids), ("newgidmap", gids)] {
        let program = find_program(tool).unwrap_or_else(|| tool.into());
        let output = std::process::Command::new(&program)
            .arg(process.to_string())
            .args(text(ranges, " ", " ").split(' '))
            .output()
            .with_context(|| format!("running {}", program.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Fault::machine(format!("{tool} refused: {said}"))
                .hint("it needs its setuid bit or capability: sudo apt install --reinstall uidmap")
                .into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_grant_maps_the_user_to_root_and_the_rest_behind_it() {
        let grants = parse("# who:first:count\nann:100000:65536\nbob:165536:65536\n1000:300000:10\n");
        assert_eq!(grants.len(), 3);
        let ranges = map(1000, &granted(&grants, "bob", 1001)).expect("enough");
        assert_eq!(text(&ranges, " ", " "), "0 1000 1 1 165536 65536");
    }

    #[test]
    fn several_small_grants_add_up_and_too_few_do_not() {
        let grants = parse("ann:100000:40000\nann:200000:40000\n");
        assert_eq!(text(&map(1000, &grants).expect("enough"), " ", " "), "0 1000 1 1 100000 40000 40001 200000 25536");
        assert_eq!(map(1000, &grants[..1]), None);
        assert_eq!(map(1000, &[]), None);
    }

    #[test]
    fn the_next_free_range_is_behind_all_others() {
        assert_eq!(next_free(&parse("ann:100000:65536\nbob:165536:65536\n")), 231_072);
        assert_eq!(next_free(&[]), FIRST_SUBORDINATE);
    }
}
