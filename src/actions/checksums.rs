//! The action `checksums`.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use blake2::Blake2b512;
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::digest::Digest;
use sha2::{Sha256, Sha512};

use super::artifact::{self, Output};
use super::pack::check_artifact_name;
use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::{BuildContext, CheckContext, InputContext, interrupted};
use crate::diagnostics::{Diagnostics, Fault, FaultKind, suggest};

/// Write the checksums of artifacts.
///
/// ```yaml
/// - action: checksums
/// ```
///
/// leaves `SHA256SUMS` with a line for each artifact that the actions before have left, sorted by name.
/// `sha256sum -c SHA256SUMS` in the artifact directory checks them.
///
/// ```yaml
/// - action: checksums
///   files: [disk.img.zst, "*.bmap"]
///   algorithm: b2
///   file: release/B2SUMS
/// ```
///
/// A pattern (`*`, `?`, `[ab]`; `**` for any directories) stands for what this build has left so far; a
/// name without one may also be of an earlier build. Names in the list are relative to the list's own
/// directory. `sha512sum -c` and `b2sum -c` check the other kinds. With `sign` after it, the list is
/// what a signature stands for.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Checksums {
    /// Artifacts, by name or pattern; all that this build has left so far where it is left out.
    #[serde(default)]
    pub files: Vec<String>,
    /// `sha256`, `sha512` or `b2` (BLAKE2b, 512 bits).
    #[serde(default = "sha256")]
    pub algorithm: String,
    /// Name of the list; `SHA256SUMS`, `SHA512SUMS` or `B2SUMS` where it is left out.
    #[serde(default)]
    pub file: Option<String>,
}

fn sha256() -> String {
    "sha256".into()
}

/// Digests as the tools of coreutils print them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Sha256,
    Sha512,
    B2,
}

/// Names, and the lists' names.
const ALGORITHMS: [(&str, Algorithm, &str); 3] = [
    ("sha256", Algorithm::Sha256, "SHA256SUMS"),
    ("sha512", Algorithm::Sha512, "SHA512SUMS"),
    ("b2", Algorithm::B2, "B2SUMS"),
];

impl Algorithm {
    fn digest(self, path: &Path) -> Result<String> {
        match self {
            Self::Sha256 => digest::<Sha256>(path),
            Self::Sha512 => digest::<Sha512>(path),
            Self::B2 => digest::<Blake2b512>(path),
        }
    }
}

impl Checksums {
    fn algorithm(&self) -> Option<(Algorithm, &'static str)> {
        ALGORITHMS.iter().find(|(name, ..)| *name == self.algorithm).map(|(_, algorithm, list)| (*algorithm, *list))
    }

    fn file(&self) -> &str {
        self.file.as_deref().or(self.algorithm().map(|(_, list)| list)).unwrap_or_default()
    }
}

impl Action for Checksums {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        artifact::check_patterns(cx, "files", &self.files, out);
        if self.files.is_empty() && cx.artifacts.is_empty() && !cx.any_artifacts {
            out.push(
                cx.error("", "there are no artifacts to list yet")
                    .hint("an action before this one must leave some: `pack`, `image-partition`, `run` on the host"),
            );
        }
        if self.algorithm().is_none() {
            let names = ALGORITHMS.map(|(name, ..)| name);
            let said = self.algorithm.to_ascii_lowercase().replace(['-', '_'], "");
            let close = match said.as_str() {
                "blake2" | "blake2b" | "b2sum" => Some("b2"),
                said => suggest(said, names),
            };
            let diagnostic = cx.error("algorithm", format!("there is no algorithm `{}`", self.algorithm));
            out.push(match close {
                Some(close) => diagnostic.hint(format!("did you mean `{close}`?")),
                None => diagnostic.hint(format!("it is one of {}", names.join(", "))),
            });
        }
        if let Some(file) = &self.file {
            check_artifact_name(cx, "file", file, out);
        }
    }

    fn nature(&self) -> Nature {
        Nature {
            version: 1,
            changes: Changes::ARTIFACTS,
            root: RootUse::Unused,
            reads: Reads::ARTIFACTS,
            needs: Needs::NOTHING,
            artifacts: vec![self.file().to_owned()],
            removes: Vec::new(),
            works_on_disk: false,
            postprocess: false,
        }
    }

    fn wants_device(&self, _cx: &CheckContext<'_>) -> bool {
        false
    }

    fn image(&self, _cx: ImageSurroundings<'_>) -> ImageRole {
        ImageRole::None
    }

    fn summary(&self) -> String {
        let files = if self.files.is_empty() { "all artifacts".to_owned() } else { self.files.join(", ") };
        format!("{files} → {}", self.file())
    }

    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        self.files.iter().filter(|name| !artifact::is_pattern(name)).try_for_each(|name| artifact::add_source(cx, name))
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let (algorithm, _) = self.algorithm().context("the algorithm has no meaning")?;
        let mut files = artifact::expand(cx, &self.files)?;
        if self.files.is_empty() {
            files.retain(|(name, _)| name != self.file());
        }
        if files.is_empty() {
            return Err(Fault::failed("there are no artifacts to list").into());
        }
        cx.progress(format!("reading {} files", files.len()), None);
        let lines = files
            .par_iter()
            .map(|(name, path)| {
                let digest = algorithm.digest(path).with_context(|| format!("reading {name}"))?;
                Ok(line(&digest, &relative(name, self.file())))
            })
            .collect::<Result<Vec<String>>>()?;
        let output = Output::begin(cx, self.file())?;
        output.file().write_all(lines.concat().as_bytes()).with_context(|| format!("writing {}", self.file()))?;
        output.finish()?;
        cx.detail = match lines.len() {
            1 => "1 file".to_owned(),
            count => format!("{count} files"),
        };
        Ok(())
    }
}

/// A line as `sha256sum` prints it: names with a line break are escaped, and a backslash in front says so.
fn line(digest: &str, name: &str) -> String {
    if !name.contains(['\n', '\r', '\\']) {
        return format!("{digest}  {name}\n");
    }
    let escaped = name.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
    format!("\\{digest}  {escaped}\n")
}

/// An artifact's name as seen from the directory of the list.
fn relative(name: &str, list: &str) -> String {
    let parts = |path: &'_ str| -> Vec<String> {
        let parts = Path::new(path).components().filter(|part| *part != Component::CurDir);
        parts.map(|part| part.as_os_str().to_string_lossy().into_owned()).collect()
    };
    let (name, mut from) = (parts(name), parts(list));
    from.pop();
    let common = name.iter().zip(&from).take_while(|(a, b)| a == b).count().min(name.len() - 1);
    let up = std::iter::repeat_n("..".to_owned(), from.len() - common);
    up.chain(name[common..].iter().cloned()).collect::<PathBuf>().display().to_string()
}

fn digest<D: Digest>(path: &Path) -> Result<String> {
    let mut file = File::open(path)?;
    let (mut hasher, mut buffer) = (D::new(), vec![0; 1 << 20]);
    loop {
        if interrupted() {
            return Err(Fault::new(FaultKind::Interrupted, "interrupted").into());
        }
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("disk.img", "SHA256SUMS", "disk.img")]
    #[case("boards/disk.img", "SHA256SUMS", "boards/disk.img")]
    #[case("boards/disk.img", "boards/SHA256SUMS", "disk.img")]
    #[case("disk.img", "release/SHA256SUMS", "../disk.img")]
    #[case("a/b/disk.img", "a/c/SHA256SUMS", "../b/disk.img")]
    fn names_are_relative_to_the_list(#[case] name: &str, #[case] list: &str, #[case] expected: &str) {
        assert_eq!(relative(name, list), expected);
    }

    #[test]
    fn odd_names_are_escaped() {
        assert_eq!(line("ab", "x y"), "ab  x y\n");
        assert_eq!(line("ab", "x\\y\nz"), "\\ab  x\\\\y\\nz\n");
    }
}
