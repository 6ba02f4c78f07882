//! GRUB's configuration: `grub.cfg` as the root's own grub-mkconfig writes it, with the image's layout
//! answering for the devices that are not there.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::grub_word::{kernel_word, quoted};
use super::layout::{self, OnDisk};
use super::site::{Options, Site};
use super::{cmdline, grub};
use crate::build::command::shell_word;
use crate::build::files::RootFiles;
use crate::diagnostics::Fault;
use crate::image::{Mount, Spec};

/// The beginning of the script that answers for devices.
const PROBE: &str = include_str!("grub_probe.sh");

/// The root's own program, a script.
const MKCONFIG: &str = "/usr/sbin/grub-mkconfig";

/// Where [`update_grub`] is in the root while it runs here.
const SCRIPT: &str = "/tmp/update-grub";

/// What the installed system's update-grub reads after /etc/default/grub.
const DEFAULTS: &str = "/etc/default/grub.d/50-image.cfg";

/// Empty storage for variables that GRUB keeps between starts (1024 bytes).
const ENVIRONMENT: &str = "/boot/grub/grubenv";

/// What GRUB does first, to find its directory: for images that carry it.
pub fn early(site: &Site<'_>) -> Result<String> {
    let boot = layout::locate(site.spec, site.slot, grub::DIRECTORY)?;
    Ok(format!("search.fs_uuid {} root\nset prefix=($root){}\n", uuid(&boot), quoted(&boot.path)))
}

/// grub.cfg of the EFI system partition: goes on to the one in [`grub::DIRECTORY`]. Where there are
/// several deploys it asks for which, and starts the one that `slot` in the grubenv beside it names,
/// else the first.
pub fn stub(site: &Site<'_>) -> Result<String> {
    let slots: Vec<Option<&str>> = site.spec.deploys.iter().map(|deploy| deploy.slot.as_deref()).collect();
    if slots.len() < 2 {
        return Ok(early(site)? + "configfile $prefix/grub.cfg\n");
    }
    let mut text = String::from("if [ -s $prefix/grubenv ]; then load_env slot; fi\nset default=\"$slot\"\n");
    writeln!(text, "set timeout={}", site.options.timeout.unwrap_or(5))?;
    for slot in slots {
        let boot = layout::locate(site.spec, slot, grub::DIRECTORY)?;
        let name = quoted(slot.unwrap_or_default());
        writeln!(text, "menuentry {name} --id {name} {{")?;
        writeln!(text, "  search.fs_uuid {} root", uuid(&boot))?;
        writeln!(text, "  set prefix=($root){}\n  configfile $prefix/grub.cfg\n}}", quoted(&boot.path))?;
    }
    Ok(text)
}

/// A file system's UUID as GRUB's search compares it, without regard to case.
fn uuid<'a>(on_disk: &OnDisk<'a>) -> &'a str {
    &on_disk.partition.contents.uuid
}

/// Writes grub.cfg and what it is made from.
pub fn write(site: &Site<'_>) -> Result<()> {
    // Without one GRUB would show an empty menu.
    site.kernels()?;
    if !site.has(MKCONFIG) {
        return Err(site.missing("the root has no grub-mkconfig", &["grub-common"]).into());
    }
    site.write_cmdline()?;
    site.write(DEFAULTS, defaults(site)?)?;
    if !site.has(ENVIRONMENT) {
        site.write(ENVIRONMENT, format!("{:#<1024}", "# GRUB Environment Block\n"))?;
    }
    let script = site.cx.scratch.join("update-grub");
    fs::write(&script, update_grub(site.spec, site.slot, &site.words)?).context("writing update-grub")?;
    site.cx.chroot(["sh", SCRIPT]).bind(&script, SCRIPT, true).run("making grub.cfg")?;
    fs::remove_file(&script).context("removing update-grub")?;
    let config = format!("{}/grub.cfg", grub::DIRECTORY);
    let made = site.text(&config)?.unwrap_or_default();
    if !made.lines().any(|line| line.trim_start().starts_with("linux")) {
        return Err(Fault::failed("grub-mkconfig found no kernel to put into grub.cfg")
            .hint("is /etc/grub.d/10_linux there and executable?")
            .into());
    }
    Ok(())
}

/// What stands for update-grub(8) while processes run in a root that GRUB was installed into: kernels that
/// packages bring later get into the menu, as on the running system. `None` for other roots.
pub fn stand_in(spec: &Spec, root: &Path) -> Result<Option<String>> {
    let (files, deploy) = (RootFiles::open(root)?, spec.deploys.last());
    let Some(deploy) = deploy.filter(|_| files.has(DEFAULTS) && files.has(MKCONFIG)) else { return Ok(None) };
    let slot = deploy.slot.as_deref();
    let line = files.text(cmdline::FILE)?.unwrap_or_default();
    update_grub(spec, slot, &cmdline::words(spec, slot, &line, &Options::default())).map(Some)
}

/// update-grub(8) with stand-ins for grub-probe, whose path grub-mkconfig sets itself, and grub-mkrelpath.
fn update_grub(spec: &Spec, slot: Option<&str>, words: &[String]) -> Result<String> {
    let probe = probe(spec, slot, words)?;
    Ok(format!(
        r#"#!/bin/sh
# update-grub while an image is built: its layout answers, and no device of the machine that builds.
set -e
scripts=$(mktemp -d)
trap 'rm -r "$scripts"' EXIT
cat >"$scripts/grub-probe" <<'END OF GRUB-PROBE'
{probe}END OF GRUB-PROBE
chmod 755 "$scripts/grub-probe"
ln -s grub-probe "$scripts/grub-mkrelpath"
sed "s|^grub_probe=.*|grub_probe=$scripts/grub-probe; export grub_probe|" {MKCONFIG} >"$scripts/grub-mkconfig"
export grub_mkrelpath="$scripts/grub-mkrelpath" GRUB_DISABLE_OS_PROBER=true
sh "$scripts/grub-mkconfig" -o {}/grub.cfg "$@"
"#,
        grub::DIRECTORY
    ))
}

/// What /etc/default/grub does not say: the image's kernel command line, its console, its menu.
fn defaults(site: &Site<'_>) -> Result<String> {
    let mut text = String::from("# What the image was built with; read by update-grub.\n");
    // /etc/default/grub, which says it, comes with the packages that install GRUB on a running system.
    let name = shell_word(&site.os_release("NAME", "Debian GNU/Linux")?);
    writeln!(text, "GRUB_DISTRIBUTOR=${{GRUB_DISTRIBUTOR:-{name}}}")?;
    let root = layout::locate(site.spec, site.slot, "/")?;
    let by_uuid = format!("UUID={}", root.partition.contents.uuid);
    let mut words = cmdline::without_root(&site.words);
    let named = cmdline::root(&site.words).filter(|root| **root != by_uuid).map(|root| format!("root={root}"));
    // update-grub finds out the subvolume, and the root where it goes by UUID.
    words.retain(|word| *word != "ro" && !word.starts_with("rootflags=subvol="));
    words.extend(named.as_deref());
    if !words.is_empty() {
        // grub-mkconfig puts them into grub.cfg as they are.
        let words = words.into_iter().map(kernel_word).collect::<Result<Vec<_>, _>>()?;
        let words = shell_word(&format!(" {}", words.join(" ")));
        writeln!(text, "GRUB_CMDLINE_LINUX=\"${{GRUB_CMDLINE_LINUX:-}}\"{words}")?;
    }
    if let Some(timeout) = site.options.timeout {
        writeln!(text, "GRUB_TIMEOUT={timeout}")?;
        // Debian's scripts wait 30 seconds after a start that failed, with nobody there to choose.
        writeln!(text, "GRUB_RECORDFAIL_TIMEOUT={timeout}")?;
    }
    if let Some(unit) = site.console_device().and_then(|device| device.strip_prefix("ttyS")) {
        let settings = site.options.console.as_deref().unwrap_or_default();
        let speed: String = settings
            .split_once(',')
            .map_or("115200", |(_, speed)| speed)
            .chars()
            .take_while(char::is_ascii_digit)
            .collect();
        writeln!(text, "GRUB_TERMINAL=\"console serial\"")?;
        writeln!(text, "GRUB_SERIAL_COMMAND=\"serial --unit={unit} --speed={speed}\"")?;
    }
    Ok(text)
}

/// The script that answers for devices: for each mount point its device, and for each device what it
/// holds.
fn probe(spec: &Spec, slot: Option<&str>, words: &[String]) -> Result<String> {
    let mut mounts: Vec<&Mount> = spec.mounts_of(slot).collect();
    // The longest first: a path lies on the nearest mount point above it.
    mounts.sort_by_key(|mount| std::cmp::Reverse(mount.path.len()));
    let table = grub::table(spec.table);
    let (mut locate, mut about, mut inside) = (String::new(), String::new(), String::new());
    for mount in mounts {
        let Some(partition) = spec.partition(&mount.partition) else { continue };
        if partition.contents.kind.fstab_type().is_none() {
            continue;
        }
        let uuid = &partition.contents.uuid;
        let device = match (mount.path.as_str(), cmdline::root(words)) {
            ("/", Some(root)) => root.to_owned(),
            _ => format!("UUID={uuid}"),
        };
        let (word, path) = (shell_word(&device), mount.path.trim_end_matches('/'));
        let pattern = if path.is_empty() { "*".to_owned() } else { format!("{0} | {0}/*", shell_word(path)) };
        writeln!(locate, "        {pattern}) echo {word} ;;")?;
        let answers = [
            ("fs_uuid", uuid.as_str()),
            ("partuuid", &partition.uuid),
            ("partmap", table),
            ("abstraction", ""),
            ("fs", grub::module(partition.contents.kind).unwrap_or_default()),
        ];
        // GRUB fails to read what has no module; grub-probe says so by failing.
        for (target, value) in answers.iter().filter(|(target, value)| *target != "fs" || !value.is_empty()) {
            writeln!(about, "        {word}/{target}) echo {} ;;", shell_word(value))?;
        }
        writeln!(about, "        {word}/compatibility_hint | {word}/hints_string) echo ;;")?;
        let subvolume = layout::locate(spec, slot, &mount.path)?.path;
        let subvolume = shell_word(subvolume.trim_end_matches('/'));
        writeln!(inside, "        {pattern}) echo {subvolume}\"${{1#{}}}\" ;;", shell_word(path))?;
    }
    Ok(format!(
        "{PROBE}
locate() {{
    case $1 in
{locate}        *) return 1 ;;
    esac
}}
about() {{
    case $1/$2 in
{about}        *) return 1 ;;
    esac
}}
inside() {{
    case $1 in
{inside}        *) return 1 ;;
    esac
}}
if [ -n \"$relative\" ]; then
    path=$(inside \"$what\")
    echo \"${{path:-/}}\"
    exit
fi
[ -n \"$device\" ] || what=$(locate \"$what\")
if [ \"$target\" = device ]; then
    echo \"$what\"
else
    about \"$what\" \"$target\"
fi
"
    ))
}
