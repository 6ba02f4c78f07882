//! Secrets that packages have made, made anew on the first start.

use std::path::Path;

use anyhow::Result;

use super::{has_systemd, is_read_only};
use crate::build::BuildContext;
use crate::build::files::RootFiles;
use crate::build::inside::Inside;
use crate::build::secrets::{KNOWN, Known, Renewal, is_secret};

/// Where units stand that the build adds.
const UNITS: &str = "/etc/systemd/system";

/// Removes the secrets that something makes anew, but those that are to be kept; their paths.
pub(super) fn renew(cx: &BuildContext<'_>, files: &RootFiles, keep: &[String]) -> Result<Vec<&'static str>> {
    // What cannot be written to cannot be given another one.
    let fixed = cx.image.is_some_and(is_read_only);
    let mut renewed = Vec::new();
    for known in KNOWN.iter().filter(|known| !keep.iter().any(|path| path == known.path)) {
        if !is_there(cx.root, known.path)? {
            continue;
        }
        match known.renewal {
            Renewal::Nobody => continue,
            Renewal::ItsUser => {}
            Renewal::Command(command) => {
                let program = command.split(' ').next().unwrap_or_default();
                if fixed || !has_systemd(files) || !files.has(program) {
                    continue;
                }
                write_unit(files, known, command)?;
            }
        }
        for path in [known.path].iter().chain(known.with) {
            files.remove(path)?;
        }
        renewed.push(known.path);
    }
    Ok(renewed)
}

/// Whether the root has a secret there.
fn is_there(root: &Path, path: &str) -> Result<bool> {
    let inside = Inside::open(root)?;
    let mut contents = Vec::new();
    match RootFiles::open(root)?.has(path) {
        true => std::io::Read::read_to_end(&mut inside.read(Path::new(path))?, &mut contents)?,
        false => return Ok(false),
    };
    Ok(is_secret(path, &contents))
}

/// A unit that makes a secret before anything starts that could use it.
fn write_unit(files: &RootFiles, known: &Known, command: &str) -> Result<()> {
    let name = known.path.rsplit('/').next().unwrap_or(known.path).replace('.', "-");
    let (path, unit) = (known.path, format!("renew-{name}.service"));
    files.write(
        &format!("{UNITS}/{unit}"),
        format!(
            "[Unit]\nDescription=Make this system's {path}\nDefaultDependencies=no\nConflicts=shutdown.target\n\
             After=local-fs.target systemd-tmpfiles-setup.service\nBefore=basic.target shutdown.target\n\
             ConditionPathExists=!{path}\n\n[Service]\nType=oneshot\nExecStart=/bin/sh -c '{}'\n\n[Install]\n\
             WantedBy=basic.target\n",
            // A quote ends systemd's word, as it ends the shell's.
            command.replace('\'', "\\'")
        ),
    )?;
    files.link(&format!("{UNITS}/basic.target.wants/{unit}"), &format!("{UNITS}/{unit}"))
}
