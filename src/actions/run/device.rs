//! Commands that want the image's device, which an image that is written offline does not have.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::stat::{major, minor};

use super::Run;
use crate::build::command::Runner;
use crate::build::image::Disk;
use crate::build::{BuildContext, CheckContext};
use crate::diagnostics::Diagnostics;
use crate::image::{FilesystemKind, Spec, Strategy};
use crate::sandbox::constant;

/// debos's variables for the image's device, and for where its file systems are mounted.
const VARIABLES: [&str; 2] = ["IMAGE", "IMAGEMNTDIR"];

/// The variable of these that a command or script uses, and the property that it stands in; with `optional`
/// also one that it does without.
pub(super) fn used(run: &Run, cx: &CheckContext<'_>, optional: bool) -> Option<(&'static str, &'static str)> {
    let (property, text) = match (&run.command, run.script()) {
        (Some(command), _) => ("command", command.clone()),
        (None, Some((script, arguments))) => {
            let text = cx.files.text(&cx.recipe_dir.join(script));
            ("script", format!("{arguments}\n{}", text.unwrap_or_default()))
        }
        (None, None) => return None,
    };
    let given = |name: &str| run.environment.contains_key(name) || sets(&text, name);
    let name = VARIABLES.into_iter().find(|name| uses(&text, name, optional) && !given(name))?;
    Some((property, name))
}

/// Reports a command or script that uses one of them in vain.
pub(super) fn check(run: &Run, cx: &CheckContext<'_>, out: &mut Diagnostics) {
    let mounted = |spec: &Spec| spec.strategy == Strategy::Mounted && !spec.deploys.is_empty() && !run.postprocess;
    let Some(spec) = cx.image.filter(|spec| !mounted(spec)) else { return };
    let Some((property, name)) = used(run, cx, false) else { return };
    let file = &spec.name;
    if spec.strategy == Strategy::Mounted && !run.postprocess {
        let diagnostic = cx.error(property, format!("there is no `${name}` before `filesystem-deploy`"));
        out.push(diagnostic.hint("move this action behind it: the image is mounted from there on"));
        return;
    }
    let diagnostic =
        cx.error(property, format!("there is no `${name}`: `{file}` is written when all is done, without a device"));
    out.push(if run.postprocess {
        diagnostic.hint(format!("when everything is done it is `$ARTIFACTDIR/{file}`"))
    } else {
        diagnostic
            .hint("a boot loader is written by `bootloader`, or from a file by `raw`")
            .hint(format!(
                "what works on the image as a file can wait for it: `postprocess: true`, `$ARTIFACTDIR/{file}`"
            ))
            .hint("for everything else, `strategy: mounted` on the `image-partition` makes a device")
    });
}

/// What `$IMAGE` is; behind it `-part1` and so on are the partitions, as udev names them.
const DISK: &str = "/dev/disk/by-id/image";

/// Shows a command the disk and its partitions, under the names that udev would give them.
pub(super) fn show<'a>(cx: &BuildContext<'_>, disk: &Disk, runner: Runner<'a>) -> Result<Runner<'a>> {
    let links = cx.scratch.join("disk");
    let seen = |node: &Path| Path::new("/dev").join(node.file_name().unwrap_or_default());
    let mut runner = runner.bind(&disk.node, seen(&disk.node), false).env("IMAGE", DISK);
    let mut names = vec![(PathBuf::from("by-id/image"), &disk.node)];
    for (number, node) in &disk.partitions {
        runner = runner.bind(node, seen(node), false);
        names.push((format!("by-id/image-part{number}").into(), node));
        let described = cx.image.and_then(|spec| spec.partitions.iter().find(|partition| partition.number == *number));
        let Some(partition) = described else { continue };
        let contents = &partition.contents;
        let ids = [
            ("by-uuid", &contents.uuid),
            ("by-label", &contents.label),
            ("by-partuuid", &partition.uuid),
            ("by-partlabel", &partition.label),
        ];
        let known = |of: &str| match of {
            "by-uuid" => contents.kind != FilesystemKind::None && !contents.kind.is_kernels(),
            "by-label" => contents.kind != FilesystemKind::None,
            _ => true,
        };
        let ids = ids.into_iter().filter(|(of, id)| !id.is_empty() && known(of));
        names.extend(ids.map(|(directory, id)| (Path::new(directory).join(encoded(id)), node)));
    }
    for (name, node) in names {
        let link = links.join(name);
        let target = Path::new("../..").join(node.file_name().unwrap_or_default());
        let made = fs::create_dir_all(link.parent().unwrap_or(&links)).and_then(|()| symlink(target, &link));
        match made {
            // Of two with the same label one has it.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            other => other.with_context(|| format!("naming the disk {}", link.display()))?,
        }
    }
    // As is done for zerofree, which wants a file system that is only read.
    runner = runner.bind(&links, "/dev/disk", true).remounts();
    kernels_view(cx, disk, runner)
}

/// A /sys with the disk, its partitions and what is stated of any machine, and nothing else of the host's: grub-probe
/// looks there for what a partition is a part of.
fn kernels_view<'a>(cx: &BuildContext<'_>, disk: &Disk, mut runner: Runner<'a>) -> Result<Runner<'a>> {
    let sys = cx.scratch.join("sys");
    let doing = || format!("making {}", sys.display());
    for (name, text) in constant::files().filter(|(name, _)| name.starts_with("sys/")) {
        let file = cx.scratch.join(name);
        fs::create_dir_all(file.parent().unwrap_or(&sys)).with_context(doing)?;
        fs::write(&file, text).with_context(doing)?;
    }
    let mut shown: Vec<PathBuf> = Vec::new();
    for node in [&disk.node].into_iter().chain(disk.partitions.iter().map(|(_, node)| node)) {
        let device = fs::metadata(node).with_context(|| format!("looking at {}", node.display()))?.rdev();
        let number = format!("{}:{}", major(device), minor(device));
        let known = Path::new("/sys/dev/block").join(&number);
        let described = known.canonicalize().with_context(|| format!("looking at {}", known.display()))?;
        let Ok(below) = described.strip_prefix("/sys") else { continue };
        let up = Path::new("../..").join(below);
        let name = below.file_name().unwrap_or_default();
        let mut links =
            vec![(sys.join("dev/block").join(number), up.clone()), (sys.join("class/block").join(name), up)];
        // A partition stands in its disk's directory.
        if !shown.iter().any(|disk| described.starts_with(disk)) {
            links.push((sys.join("block").join(name), Path::new("..").join(below)));
            fs::create_dir_all(sys.join(below)).with_context(doing)?;
            shown.push(described.clone());
        }
        for (link, target) in links {
            fs::create_dir_all(link.parent().unwrap_or(&sys)).with_context(doing)?;
            symlink(target, &link).with_context(doing)?;
        }
    }
    runner = runner.bind(&sys, "/sys", true);
    for device in shown {
        runner = runner.bind(&device, &device, true);
    }
    Ok(runner)
}

/// A name as udev writes it (systemd's `encode_devnode_name`).
fn encoded(name: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || !letter.is_ascii() || "#+-.:=@_".contains(letter);
    let encode = |letter: char| match plain(letter) {
        true => letter.to_string(),
        false => format!("\\x{:02x}", u32::from(letter)),
    };
    name.chars().map(encode).collect()
}

/// Whether a shell's text gives a variable a value of its own: `IMAGE=$1`.
fn sets(text: &str, name: &str) -> bool {
    text.lines()
        .map(str::trim_start)
        .map(|line| line.strip_prefix("export ").unwrap_or(line))
        .any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('=')))
}

/// Whether a shell's text uses a variable; `optional` counts uses that say what holds without it, as `${IMAGE:-}`.
fn uses(text: &str, name: &str, optional: bool) -> bool {
    let part_of_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    text.lines().map(str::trim_start).filter(|line| !line.starts_with('#')).any(|line| {
        line.match_indices('$').any(|(at, _)| {
            let rest = &line[at + 1..];
            let braced = rest.starts_with('{');
            let rest = rest.strip_prefix('{').unwrap_or(rest);
            let escaped = line[..at].ends_with('\\');
            let needed = |rest: &str| optional || !braced || !rest.starts_with([':', '-', '+']);
            !escaped && rest.strip_prefix(name).is_some_and(|rest| !rest.starts_with(part_of_name) && needed(rest))
        })
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{sets, uses};

    #[rstest]
    #[case("grub-install $IMAGE", true)]
    #[case("dd of=\"${IMAGE}\"", true)]
    #[case("dd of=${IMAGE:-x}", false)]
    #[case("ls $IMAGES ${IMAGE_NAME}", false)]
    #[case("echo \\$IMAGE", false)]
    #[case("true\n  # $IMAGE is not for us\n", false)]
    #[case("echo IMAGE", false)]
    fn a_variable_is_found_by_its_whole_name(#[case] text: &str, #[case] used: bool) {
        assert_eq!(uses(text, "IMAGE", false), used);
    }

    #[rstest]
    #[case("  IMAGE=$2", true)]
    #[case("export IMAGE=x", true)]
    #[case("IMAGES=x", false)]
    #[case("test $IMAGE = x", false)]
    fn a_variable_that_the_script_sets_is_its_own(#[case] text: &str, #[case] set: bool) {
        assert_eq!(sets(text, "IMAGE"), set);
    }
}
