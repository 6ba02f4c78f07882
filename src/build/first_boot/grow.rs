//! A file system that becomes as large as the disk that the image is written to.

use anyhow::Result;

use crate::build::BuildContext;
use crate::build::files::RootFiles;
use crate::diagnostics::Fault;
use crate::image::{FilesystemKind, Layout, Mount, Partition, Spec, TableKind};

/// Grows a file system that is mounted (systemd-growfs(8)).
const GROWFS: [&str; 2] = ["/usr/lib/systemd/systemd-growfs", "/lib/systemd/systemd-growfs"];

/// Grows a GPT's partitions as files say (repart.d(5)).
const REPART: &str = "/usr/bin/systemd-repart";

/// Where those files are.
const DEFINITIONS: &str = "/etc/repart.d";

/// What grows a partition where there is no systemd-repart, or on msdos.
const SCRIPT: &str = include_str!("grow-partition");
const SERVICE: &str = include_str!("grow-partition.service");
const SCRIPT_PATH: &str = "/usr/lib/debforge/grow-partition";
const SERVICE_NAME: &str = "grow-partition.service";

/// Grows the file system where the system has no unit for it.
const GROW_SERVICE: &str = include_str!("grow-file-system.service");
/// Where a system's own units are.
const UNITS: [&str; 2] = ["/usr/lib/systemd/system", "/lib/systemd/system"];

/// Units are started with this target at each boot.
const WANTS: &str = "/etc/systemd/system/local-fs.target.wants";

/// Has the last partition and its file system grow, where they can; what grows, for the progress line.
/// Where they cannot, that is a fault only if the recipe `insists`.
pub(super) fn prepare(cx: &BuildContext<'_>, files: &RootFiles, spec: &Spec, insists: bool) -> Result<Option<String>> {
    let slot = spec.deploys.last().and_then(|deploy| deploy.slot.as_deref());
    let Growing { mount, partition, whole } = match last(spec, slot)? {
        Ok(last) => last,
        Err(reason) if insists => return Err(Fault::failed(format!("the image cannot grow: {reason}")).into()),
        Err(reason) => {
            cx.log(format!("nothing grows at the first start: {reason}"));
            return Ok(None);
        }
    };
    // Without free space it fails on a partition that it would round up.
    let uses_repart = spec.table == TableKind::Gpt && whole && files.has(REPART);
    let growfs = GROWFS.iter().find(|path| files.has(path));
    let lacking = if growfs.is_none() {
        Some(("systemd", "systemd-sysv"))
    } else if uses_repart || files.has("/usr/sbin/sfdisk") || files.has("/sbin/sfdisk") {
        None
    } else if spec.table == TableKind::Gpt && whole {
        Some(("systemd-repart or sfdisk", "systemd-repart"))
    } else {
        Some(("sfdisk", "fdisk"))
    };
    if let Some((what, package)) = lacking {
        let message = format!("{} cannot grow at the first start: the root has no {what}", mount.path);
        let hint = format!("add the package `{package}`, or say `first-boot: false` at `filesystem-deploy`");
        if insists {
            return Err(Fault::failed(message).hint(hint).into());
        }
        cx.warn(format!("{message}; {hint}"));
        return Ok(None);
    }
    if uses_repart {
        define(files, spec, partition)?;
    } else {
        install_script(files, mount)?;
    }
    let unit = growfs_unit(&mount.path);
    let template = if mount.path == "/" { unit.as_str() } else { "systemd-growfs@.service" };
    let mut of_system = UNITS.iter().map(|directory| format!("{directory}/{template}"));
    let stands = match of_system.find(|path| files.has(path)) {
        Some(path) => path,
        // Before systemd 254 only its generators make them, for what fstab says.
        None => {
            let path = format!("/etc/systemd/system/{unit}");
            let service = GROW_SERVICE
                .replace("@MOUNT@", &mount_unit(&mount.path))
                .replace("@GROWFS@", growfs.unwrap_or(&GROWFS[0]))
                .replace("@PATH@", &specifier(&mount.path));
            files.write(&path, service)?;
            path
        }
    };
    files.link(&format!("{WANTS}/{unit}"), &stands)?;
    Ok(Some(format!("{} grows", mount.path)))
}

/// What grows.
struct Growing<'a> {
    mount: &'a Mount,
    partition: &'a Partition,
    /// Whether it, and others of its type, have sizes that systemd-repart does not round.
    whole: bool,
}

/// systemd-repart's unit of sizes.
const GRAIN: u64 = 4096;

/// The partition that nothing follows, and where it is mounted; or why it cannot grow.
fn last<'a>(spec: &'a Spec, slot: Option<&'a str>) -> Result<Result<Growing<'a>, String>> {
    let layout = Layout::of(spec, &mut |_| Ok(0))?;
    let Some(last) = layout.partitions.iter().max_by_key(|placed| placed.start) else {
        return Ok(Err("there is no partition".into()));
    };
    let name = &last.name;
    let Some(partition) = spec.partition(name) else { return Ok(Err(format!("there is no partition `{name}`"))) };
    let mount = spec.mounts_of(slot).find(|mount| mount.partition == *name && !mount.build_time);
    let Some(mount) = mount else {
        return Ok(Err(format!("the last partition, `{name}`, is not mounted")));
    };
    use FilesystemKind::{Btrfs, Ext3, Ext4, Xfs};
    let kind = partition.contents.kind;
    if !matches!(kind, Ext3 | Ext4 | Btrfs | Xfs) {
        let kind = kind.fstab_type().unwrap_or("none");
        return Ok(Err(format!("the last partition, `{name}`, has {kind}, which does not grow while mounted")));
    }
    if spec.hashes_of(name).is_some() || mount.options.iter().any(|option| option == "ro") {
        return Ok(Err(format!("the last partition, `{name}`, is never written to")));
    }
    let whole = layout.partitions.iter().all(|placed| {
        let kind = spec.partition(&placed.name).map(|other| &other.kind);
        !kind.is_some_and(|kind| kind.eq_ignore_ascii_case(&partition.kind)) || placed.length.is_multiple_of(GRAIN)
    });
    Ok(Ok(Growing { mount, partition, whole }))
}

/// Files for systemd-repart. Each stands for the next partition of its type, so those before the one
/// that grows get theirs too.
fn define(files: &RootFiles, spec: &Spec, grown: &Partition) -> Result<()> {
    let same = spec.partitions.iter().filter(|partition| partition.kind.eq_ignore_ascii_case(&grown.kind));
    for partition in same {
        let weight = if partition.name == grown.name { 1000 } else { 0 };
        let text = format!("[Partition]\nType={}\nWeight={weight}\n", partition.kind.to_lowercase());
        files.write(&format!("{DEFINITIONS}/{:02}-{}.conf", partition.number, partition.name), text)?;
    }
    Ok(())
}

fn install_script(files: &RootFiles, mount: &Mount) -> Result<()> {
    let service = SERVICE
        .replace("@MOUNT@", &mount_unit(&mount.path))
        .replace("@GROWFS@", &growfs_unit(&mount.path))
        .replace("@PATH@", &specifier(&mount.path));
    files.write(SCRIPT_PATH, SCRIPT)?;
    files.set_executable(SCRIPT_PATH)?;
    let path = format!("/etc/systemd/system/{SERVICE_NAME}");
    files.write(&path, service)?;
    files.link(&format!("{WANTS}/{SERVICE_NAME}"), &path)
}

/// The unit of a mount point.
fn mount_unit(path: &str) -> String {
    if path == "/" { "-.mount".to_owned() } else { format!("{}.mount", escaped(path)) }
}

/// A path as a word of a unit's command (systemd.service(5), "Command lines").
fn specifier(path: &str) -> String {
    let mut word = String::from("\"");
    for letter in path.chars() {
        match letter {
            '"' | '\\' => word.extend(['\\', letter]),
            '%' | '$' => word.extend([letter, letter]),
            letter => word.push(letter),
        }
    }
    word + "\""
}

/// The unit that grows the file system at a mount point.
fn growfs_unit(path: &str) -> String {
    match path {
        "/" => "systemd-growfs-root.service".to_owned(),
        path => format!("systemd-growfs@{}.service", escaped(path)),
    }
}

/// A path as units are named by it (systemd.unit(5), "String Escaping for Inclusion in Unit Names").
fn escaped(path: &str) -> String {
    let mut name = String::new();
    for (at, byte) in path.trim_matches('/').bytes().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if at == 0 => name.push_str("\\x2e"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' => name.push(char::from(byte)),
            byte => name.push_str(&format!("\\x{byte:02x}")),
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("/", "systemd-growfs-root.service")]
    #[case("/srv", "systemd-growfs@srv.service")]
    #[case("/srv/my-data", "systemd-growfs@srv-my\\x2ddata.service")]
    #[case("/.hidden/é", "systemd-growfs@\\x2ehidden-\\xc3\\xa9.service")]
    fn units_are_named_by_paths(#[case] path: &str, #[case] unit: &str) {
        assert_eq!(growfs_unit(path), unit);
    }

    #[test]
    fn a_path_is_one_word_of_a_command() {
        assert_eq!(specifier("/srv/a b"), "\"/srv/a b\"");
        assert_eq!(specifier("/100%$\"\\"), "\"/100%%$$\\\"\\\\\"");
    }
}
