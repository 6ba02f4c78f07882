//! The action `run`.

mod device;
mod earlier;
mod room;
mod surroundings;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::room::Room;
use self::surroundings::{Hidden, Sight};
use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::command::shell_word;
use crate::build::{BuildContext, CheckContext, FileKind, InputContext};
use crate::debian::system;
use crate::diagnostics::Diagnostics;
use crate::sandbox::Isolation;

/// Run a command or a script.
///
/// ```yaml
/// - action: run
///   chroot: true
///   command: systemctl enable ssh.service && echo forge > /etc/hostname
/// ```
///
/// `command` is given to `sh -e -u -c`: it ends at the first command that fails, and at a variable
/// that is not set. `script` is a program beside the recipe with its arguments, which go through the
/// same shell: `script: scripts/setup.sh --fast "$ROOTDIR"`.
///
/// **In the root** (`chroot: true`) it sees the root and nothing of the host: its own /dev, /proc,
/// /tmp and processes, and a machine that is the same on every host.
/// A script's directory is at `/tmp/script`, so it can use the files beside it.
/// Services are not started.
/// What chattr(1) protects (`+i`, `+a`; only root can) stays so in the steps that follow, and is in images with ext2 to
/// ext4, as `A`, `d`, `D`, `S` and `T` are, or with `strategy: mounted` in those with xfs, btrfs and f2fs. Other file
/// systems refuse it; archives, containers and commits cannot say it, and the build warns.
///
/// **On the host** (neither `chroot` nor `postprocess`) it sees the host's programs and their settings, read-only,
/// a /tmp of its own, and:
///
/// | variable | |
/// |---|---|
/// | `ROOTDIR` | the root, writable |
/// | `ARTIFACTDIR` | what this build leaves, writable |
/// | `RECIPEDIR` | the recipe's directory, read-only |
/// | `IMAGE` | the disk image as a block device; `$IMAGE-part1` is its first partition |
/// | `IMAGEMNTDIR` | where it is mounted: the root |
///
/// The last two are there after the `filesystem-deploy` of an image with `strategy: mounted`; `IMAGE`
/// also in the root, where `/dev/disk` and `/sys` show this disk, as `grub-install "$IMAGE"` and
/// `update-grub` want it.
///
/// It starts in an empty directory of its own, which goes when it ends; what stands beside the recipe is linked
/// to there. Files that downloads left are at `$ROOTDIR/..`, under their names (`.d` behind the name of an archive
/// that was unpacked), for commands that look there. Of what is in the artifact directory already, it sees the
/// files that it names, as `$ARTIFACTDIR/u-boot.bin`; they count as its inputs.
///
/// **At the end** (`postprocess: true`) it runs on the host when all other actions are done, with
/// `ARTIFACTDIR`, where it starts, and `RECIPEDIR`: to sign or upload what was built, for example.
///
/// ```yaml
/// - action: run
///   postprocess: true
///   label: checksums
///   command: sha256sum -- *.tar.zst > SHA256SUMS
/// ```
///
/// Like every step, it is not run again as long as nothing changes that it can see: for `chroot` the
/// command or the directory of the script; on the host also every other file of the recipe's
/// directory, what links there lead to, and the host's packages, /usr/local and settings. Of the recipe's own files
/// and of `.git` it sees what its text names. Time, the network and chance do not count: a command that
/// depends on them should pin what it fetches, or the recipe be built with `--from`.
///
/// Every process has `PATH`, `HOME=/root`, `LC_ALL=C.UTF-8` and `SOURCE_DATE_EPOCH`, the variables of
/// `-e`, those of `environment`, and nothing else.
///
/// **Compared with debos**: not run twice without need; the host is read-only; `environment` and
/// `network: false`; no service of the host or the root is reached, and invoke-rc.d(8) starts none. A command that calls
/// start-stop-daemon(8) or an init script itself means it: what it starts ends with the step.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Run {
    /// Command line for `sh -e -u -c`.
    #[serde(default)]
    pub command: Option<String>,
    /// Program beside the recipe (or of the host, by its absolute path), with arguments as for a shell.
    #[serde(default)]
    pub script: Option<String>,
    /// Whether it runs in the target root.
    #[serde(default)]
    pub chroot: bool,
    /// Whether it runs on the host when everything else is done.
    #[serde(default)]
    pub postprocess: bool,
    /// Shown in front of its output, at most 40 characters.
    #[serde(default)]
    pub label: Option<String>,
    /// Variables it finds in its environment, beside the usual ones.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Whether it has the network; else it has a loopback of its own.
    #[serde(default = "super::defaults::yes")]
    pub network: bool,
}

const LONGEST_LABEL: usize = 40;

/// Where a script's directory is in the root.
const SCRIPTS: &str = "/tmp/script";

impl Run {
    /// The script, and its arguments as they were written.
    fn script(&self) -> Option<(String, &str)> {
        self.script.as_deref().and_then(first_word)
    }

    /// The script's directory on the host and its name in it.
    fn script_file(recipe_dir: &Path, script: &str) -> (PathBuf, PathBuf) {
        let path = recipe_dir.join(script);
        let name = path.file_name().unwrap_or_default().into();
        let directory = path.parent().unwrap_or(recipe_dir);
        (directory.canonicalize().unwrap_or_else(|_| directory.to_owned()), name)
    }

    /// The script's directory, as the recipe calls it and where it is.
    fn script_directory(&self, recipe_dir: &Path) -> Option<(String, PathBuf)> {
        let (script, _) = self.script()?;
        let shown = Path::new(&script).parent().map(|parent| parent.display().to_string()).unwrap_or_default();
        Some((shown, Self::script_file(recipe_dir, &script).0))
    }

    /// The directories that a command of the host sees, as the recipe calls them and where they are.
    fn directories(&self, recipe_dir: &Path) -> Vec<(String, PathBuf)> {
        std::iter::once((String::new(), recipe_dir.to_owned())).chain(self.script_directory(recipe_dir)).collect()
    }

    /// What it sees of the recipe's files, and where.
    fn shown(&self, cx: &BuildContext<'_>, hidden: &Hidden) -> Result<Vec<(PathBuf, PathBuf)>> {
        if self.chroot {
            let Some((_, directory)) = self.script_directory(cx.recipe_dir) else { return Ok(Vec::new()) };
            return surroundings::lay_out(&directory, Path::new(SCRIPTS), hidden, &cx.scratch.join("script"), &[]);
        }
        let sight = Sight::of(&self.directories(cx.recipe_dir), hidden)?;
        // The recipe may be named by a path that has links in it.
        let tops: Vec<&Path> = sight.tops().collect();
        let mut all = Vec::new();
        if cx.sandbox.isolation == Isolation::Chroot {
            // They are where they are, and what is hidden is left out in another way.
            let elsewhere = sight.elsewhere().map(surroundings::Elsewhere::path);
            all.extend(tops.iter().copied().chain(elsewhere).map(|path| (path.to_owned(), path.to_owned())));
            return Ok(all);
        }
        let places = [cx.scratch, cx.artifacts, cx.root];
        for (number, top) in tops.iter().enumerate() {
            let stand_in = cx.scratch.join(format!("seen-{number}"));
            all.extend(surroundings::lay_out(top, top, hidden, &stand_in, &places)?);
        }
        if let Some(top) = tops.first().filter(|top| **top != cx.recipe_dir) {
            let stand_in = cx.scratch.join("seen-by-name");
            all.extend(surroundings::lay_out(top, cx.recipe_dir, hidden, &stand_in, &[])?);
        }
        for place in sight.elsewhere() {
            all.extend(place.places(&tops).map(|at| (place.path().to_owned(), at.to_owned())));
        }
        Ok(all)
    }

    /// What is run, the script standing in `directory`.
    fn argv(&self, directory: impl Fn(&str) -> PathBuf) -> Result<Vec<String>> {
        let line = match &self.command {
            Some(command) => command.clone(),
            None => {
                let (script, arguments) = self.script().context("neither a command nor a script")?;
                let path = directory(&script);
                format!("{}{arguments}", shell_word(path.to_str().context("the script's path is not UTF-8")?))
            }
        };
        Ok(["sh", "-e", "-u", "-c", &line].map(str::to_owned).to_vec())
    }

    /// What is run, and what a script says, for a look into it.
    fn text(&self, recipe_dir: &Path) -> String {
        match (&self.command, self.script()) {
            (Some(command), _) => command.clone(),
            (None, Some((script, arguments))) => {
                let (directory, name) = Self::script_file(recipe_dir, &script);
                format!("{arguments}\n{}", std::fs::read_to_string(directory.join(name)).unwrap_or_default())
            }
            (None, None) => String::new(),
        }
    }

    /// The first line of what is run, as short as a progress line wants it.
    fn short(&self) -> String {
        let text = self.command.as_deref().or(self.script.as_deref()).unwrap_or_default().trim();
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let first = lines.next().unwrap_or_default();
        let more = lines.next().is_some();
        if more { format!("{first} …") } else { first.to_owned() }
    }
}

impl Action for Run {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        match (&self.command, &self.script) {
            (None, None) => out.push(
                cx.error("", "`run` needs `command` or `script`")
                    .hint("`command` is given to a shell, `script` is a program beside the recipe"),
            ),
            (Some(_), Some(_)) => {
                out.push(
                    cx.error("script", "`command` and `script` cannot both be given").hint("use an action for each"),
                );
            }
            (Some(command), None) if command.trim().is_empty() => out.push(cx.error("command", "the command is empty")),
            (Some(_), None) => {}
            (None, Some(script)) => match first_word(script) {
                None if script.trim().is_empty() => out.push(cx.error("script", "the script is empty")),
                None => out.push(cx.error("script", "a quote is not closed")),
                Some((file, _)) => {
                    let known = match file.starts_with('/') {
                        true => cx.files.kind(Path::new(&file)),
                        false => None,
                    };
                    match known.or_else(|| cx.check_recipe_file("script", &file, out)) {
                        None | Some(FileKind::File) => {}
                        Some(_) => out.push(cx.error("script", format!("`{file}` is not a file"))),
                    }
                }
            },
        }
        if self.chroot && self.postprocess {
            out.push(
                cx.error("postprocess", "`chroot` and `postprocess` cannot both be set")
                    .hint("when everything is done there is no root any more"),
            );
        }
        if self.chroot && !cx.has_root {
            out.push(
                cx.error("chroot", "there is no root to run it in yet")
                    .hint("an action before this one must make it: `mmdebstrap`, `debootstrap` or `unpack`"),
            );
        }
        if let Some(label) = &self.label {
            let length = label.chars().count();
            if length > LONGEST_LABEL {
                out.push(
                    cx.error("label", format!("the label has {length} characters, {LONGEST_LABEL} at most are shown")),
                );
            }
            if label.chars().any(char::is_control) {
                out.push(cx.error("label", "the label has a line break or another control character"));
            }
        }
        device::check(self, cx, out);
        for name in self.environment.keys() {
            if name.is_empty() || name.contains(['=', '\0']) {
                out.push(cx.error(&format!("environment.{name}"), format!("`{name}` is not the name of a variable")));
            }
        }
    }

    fn nature(&self) -> Nature {
        Nature {
            version: 5,
            changes: Changes {
                root: !self.postprocess,
                artifacts: !self.chroot,
                origin: false,
                write: false,
                outside: false,
            },
            root: if self.postprocess { RootUse::Unused } else { RootUse::Used },
            reads: Reads { artifacts: !self.chroot, repositories: false, image: false, host: !self.chroot },
            needs: Needs { tools: Vec::new(), network: self.network, emulation: self.chroot },
            artifacts: Vec::new(),
            removes: Vec::new(),
            works_on_disk: false,
            postprocess: self.postprocess,
        }
    }

    fn image(&self, _cx: ImageSurroundings<'_>) -> ImageRole {
        ImageRole::None
    }

    fn wants_device(&self, cx: &CheckContext<'_>) -> bool {
        !self.postprocess && cx.image.is_some() && device::used(self, cx, true).is_some()
    }

    fn summary(&self) -> String {
        self.label.clone().unwrap_or_else(|| self.short())
    }

    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        let text = self.text(cx.recipe_dir);
        let always = [cx.artifact_dir, cx.store.root()].into_iter().chain(cx.products.iter().map(PathBuf::as_path));
        let hidden = Hidden::from(&text, cx.recipe_dir, always, cx.recipe_files)?;
        if self.chroot {
            let Some((shown, directory)) = self.script_directory(cx.recipe_dir) else { return Ok(()) };
            // Links that lead out of it lead to files of the root.
            return surroundings::add_directory(cx, &shown, &directory, &hidden);
        }
        Sight::of(&self.directories(cx.recipe_dir), &hidden)?.add(cx, &hidden)?;
        earlier::add(cx, &text, &text)
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let words = self.argv(|script| {
            let (directory, name) = Self::script_file(cx.recipe_dir, script);
            if self.chroot { Path::new(SCRIPTS).join(name) } else { directory.join(name) }
        })?;
        let doing = format!("running {}", self.label.clone().unwrap_or_else(|| format!("`{}`", self.short())));
        let text = self.text(cx.recipe_dir);
        let always = [cx.artifact_dir, cx.store.root()].into_iter().chain(cx.products.iter().map(PathBuf::as_path));
        let hidden = Hidden::from(&text, cx.recipe_dir, always, cx.recipe_files)?;
        let mut runner = if self.chroot {
            cx.chroot(words)
        } else if self.postprocess {
            cx.host_alone(words).directory(cx.artifacts)
        } else {
            let room = Room::furnish(cx, &text, &hidden)?;
            let variables: &[&str] = if cx.disk.is_some() { &["ROOTDIR", "IMAGEMNTDIR"] } else { &["ROOTDIR"] };
            cx.host(words).root_at(&room.root, variables).directory(&room.path)
        };
        if let Some(disk) = cx.disk.filter(|_| !self.postprocess) {
            runner = device::show(cx, disk, runner)?;
        }
        for (from, to) in self.shown(cx, &hidden)? {
            runner = runner.bind(from, to, true);
        }
        if !self.chroot {
            let real = cx.recipe_dir.canonicalize().context("looking for the recipe's directory")?;
            let settings = cx.scratch.join("etc");
            let name_server = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
            system::copy_settings(&settings, &name_server).context("laying out the settings that programs want")?;
            runner = runner
                .env("ARTIFACTDIR", cx.artifacts.display().to_string())
                // By its real name: links in it may lead out of it.
                .env("RECIPEDIR", real.display().to_string())
                .writable(cx.artifacts)
                .programs_only(&settings, hidden.all_in(&self.directories(cx.recipe_dir)));
        }
        for (name, value) in &self.environment {
            runner = runner.env(name, value);
        }
        let earlier = if self.chroot { None } else { Some(earlier::prepare(cx, &text)?) };
        runner.network(self.network).label(self.label.clone()).run(&doing)?;
        earlier.map_or(Ok(()), |earlier| earlier.finish(cx, &text))
    }
}

/// Directories outside of the recipe's that links in it lead to, or that have the files that they lead to. Links in
/// what `own` has (the store, artifacts) are nobody's.
pub fn linked_directories(recipe_dir: &Path, own: &[&Path]) -> Vec<PathBuf> {
    let hidden = Hidden::own(own);
    let Ok(sight) = Sight::of(&[(String::new(), recipe_dir.to_owned())], &hidden) else { return Vec::new() };
    let directory = |path: &Path| match path.is_dir() {
        true => path.to_owned(),
        false => path.parent().unwrap_or(path).to_owned(),
    };
    sight.elsewhere().map(|place| directory(place.path())).collect()
}

/// Splits the first word off a command line as a shell does, quotes and backslashes honoured, nothing
/// expanded; `None` where there is none, or a quote in it is not closed. The rest stays as it is.
fn first_word(line: &str) -> Option<(String, &str)> {
    let line = line.trim();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = line.char_indices();
    while let Some((at, letter)) = letters.next() {
        match (quote, letter) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => word.get_or_insert_default().push(letters.next()?.1),
            (None, letter) if letter.is_whitespace() => return Some((word?, &line[at..])),
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    word.filter(|_| quote.is_none()).map(|word| (word, ""))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::first_word;

    #[rstest]
    #[case("scripts/setup.sh", "scripts/setup.sh", "")]
    #[case("  a  b\tc\n", "a", "  b\tc")]
    #[case(r#"a "two words" '$more' b\ c"#, "a", r#" "two words" '$more' b\ c"#)]
    #[case(r#"my\ own" script.sh" $IMAGE-part1"#, "my own script.sh", " $IMAGE-part1")]
    fn the_script_is_split_off_as_by_a_shell(#[case] line: &str, #[case] script: &str, #[case] rest: &str) {
        assert_eq!(first_word(line).unwrap(), (script.to_owned(), rest));
    }

    #[rstest]
    fn wants_a_word_with_its_quotes_closed(#[values("", " ", "'a b", "\"a b", "a\\")] line: &str) {
        assert_eq!(first_word(line), None);
    }
}
