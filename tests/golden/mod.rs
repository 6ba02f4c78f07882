//! What each action changes in a root: the differences between its tree before and after, read from
//! the archives that `pack` made of both by GNU tar.

mod download;
mod overlay;
mod pack;
mod run;
mod unpack;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::harness::Project;

/// Who builds: root, and a user in a namespace. The result must be the same.
pub fn users() -> Vec<crate::harness::User> {
    let mut users = vec![crate::harness::User::current()];
    match crate::harness::User::ordinary() {
        Ok(user) if !users.contains(&user) => users.push(user),
        Ok(_) => {}
        Err(reason) => eprintln!("skipped for an ordinary user: {reason}"),
    }
    users
}

/// Builds a tiny root, `before` actions, and the actions in question; the lines that differ between
/// the roots before and after those.
pub fn changes(project: &Project, before: &str, actions: &str) -> String {
    let pack = |file| format!("  - action: pack\n    file: {file}\n    compression: none\n");
    let actions = actions.trim_matches('\n');
    let before = before.trim_matches('\n');
    project.set_actions(&format!("{before}\n{}{actions}\n{}", pack("before.tar"), pack("after.tar")));
    project.build([]).success();
    difference(&listing(&project.path("out/before.tar")), &listing(&project.path("out/after.tar")))
}

fn difference(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> String {
    let mut lines = String::new();
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let (old, new) = (before.get(name), after.get(name));
        if old != new {
            lines.extend(old.map(|old| format!("- {name} {old}\n")));
            lines.extend(new.map(|new| format!("+ {name} {new}\n")));
        }
    }
    lines
}

/// The members of an archive: path to type and mode, owner, size, time, link, attributes. Sizes of
/// directories and times of build (all one date) are left as GNU tar prints them.
pub fn listing(archive: &Path) -> BTreeMap<String, String> {
    let output = Command::new("tar")
        .args(["-tvv", "--numeric-owner", "--full-time", "--xattrs", "--acls", "--utc", "--quoting-style=escape", "-f"])
        .arg(archive)
        .env("LC_ALL", "C")
        .output()
        .expect("starting tar");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut members = BTreeMap::new();
    let mut last = String::new();
    for line in text.lines() {
        if line.starts_with([' ', '\t']) {
            let attributes: &mut String = members.entry(last.clone()).or_default();
            attributes.push_str(&format!(" [{}]", line.trim()));
            continue;
        }
        // Mode, owner, size, date, time, name.
        let mut fields = line.split_whitespace();
        let mut next = || fields.next().unwrap_or_default().to_owned();
        let (mode, owner, size, date, time) = (next(), next(), next(), next(), next());
        let name = line.split_once(&format!("{date} {time} ")).map_or("", |(_, name)| name).to_owned();
        let (name, link) = match name.split_once(" -> ").or_else(|| name.split_once(" link to ")) {
            Some((name, target)) => (name.to_owned(), format!(" -> {target}")),
            None => (name, String::new()),
        };
        last = name.clone();
        members.insert(name, format!("{mode} {owner} {size}{link}"));
    }
    members
}
