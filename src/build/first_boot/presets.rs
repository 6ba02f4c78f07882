//! Units that stay as the build left them.
//!
//! At what it takes for its first start, systemd enables every unit that no preset disables
//! (systemd.preset(5)), where /etc can be written to that early: a service that a recipe disabled would
//! be back.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::Result;

use crate::build::files::RootFiles;

/// Ours; other presets do not come before it.
const PRESET: &str = "/etc/systemd/system-preset/00-image.preset";

/// Where units are that can be enabled.
const UNITS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// Where units are enabled.
const ENABLED: &str = "/etc/systemd/system";

/// Writes a preset that disables every unit that could be enabled and is not.
pub(super) fn keep_disabled(files: &RootFiles) -> Result<()> {
    let enabled = enabled(files)?;
    let mut disabled = BTreeSet::new();
    for directory in UNITS {
        for name in files.names(directory)? {
            let path = format!("{directory}/{name}");
            // What links elsewhere is an alias, or masked.
            if !is_unit(&name) || enabled.contains(&name) || files.link_target(&path)?.is_some() {
                continue;
            }
            if files.text(&path)?.is_some_and(|text| can_be_enabled(&text)) {
                disabled.insert(name);
            }
        }
    }
    if disabled.is_empty() {
        return Ok(());
    }
    let mut text =
        String::from("# Disabled when the image was built; systemd enables nothing of it at the first start.\n");
    for name in disabled {
        writeln!(text, "disable {name}")?;
    }
    files.write(PRESET, text)
}

fn is_unit(name: &str) -> bool {
    let kinds = ["service", "socket", "target", "timer", "path", "mount", "automount", "swap"];
    name.rsplit_once('.').is_some_and(|(_, kind)| kinds.contains(&kind))
}

/// Names that links in the configuration's directories have or lead to; of an instance also its template.
fn enabled(files: &RootFiles) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let mut add = |name: &str| {
        if let Some((template, rest)) = name.split_once('@')
            && let Some((_, kind)) = rest.rsplit_once('.')
        {
            found.insert(format!("{template}@.{kind}"));
        }
        found.insert(name.to_owned());
    };
    let mut directories = vec![ENABLED.to_owned()];
    while let Some(directory) = directories.pop() {
        for name in files.names(&directory)? {
            let path = format!("{directory}/{name}");
            match files.link_target(&path)? {
                Some(target) if target == "/dev/null" => {}
                Some(target) => {
                    add(&name);
                    add(target.rsplit('/').next().unwrap_or(&target));
                }
                None if files.has_directory(&path) => directories.push(path),
                None => {}
            }
        }
    }
    Ok(found)
}

/// Whether a unit says where it would be enabled.
fn can_be_enabled(text: &str) -> bool {
    let mut install = false;
    text.lines().map(str::trim).any(|line| {
        if line.starts_with('[') {
            install = line == "[Install]";
        }
        let keys = ["WantedBy=", "RequiredBy=", "UpheldBy=", "Alias=", "Also="];
        install && keys.iter().any(|key| line.starts_with(key))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_not_enabled_stays_so() {
        let root = tempfile::tempdir().unwrap();
        let path = |path: &str| root.path().join(path);
        for directory in ["usr/lib/systemd/system", "etc/systemd/system/multi-user.target.wants"] {
            fs::create_dir_all(path(directory)).unwrap();
        }
        let install = "[Unit]\n[Install]\nWantedBy=multi-user.target\n";
        for (name, text) in [
            ("on.service", install),
            ("off.service", install),
            ("static.service", "[Unit]\nWantedBy=nonsense\n"),
            ("getty@.service", install),
            ("off@.socket", install),
            ("masked.service", install),
            ("off.conf", install),
        ] {
            fs::write(path("usr/lib/systemd/system").join(name), text).unwrap();
        }
        let wants = path("etc/systemd/system/multi-user.target.wants");
        symlink("/usr/lib/systemd/system/on.service", wants.join("on.service")).unwrap();
        symlink("/usr/lib/systemd/system/getty@.service", wants.join("getty@ttyS0.service")).unwrap();
        symlink("/dev/null", path("etc/systemd/system/masked.service")).unwrap();
        keep_disabled(&RootFiles::open(root.path()).unwrap()).unwrap();
        let preset = fs::read_to_string(path(PRESET.trim_start_matches('/'))).unwrap();
        let lines: Vec<&str> = preset.lines().skip(1).collect();
        assert_eq!(lines, ["disable masked.service", "disable off.service", "disable off@.socket"]);
    }
}
