//! The action `sign`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::artifact::{self, Output};
use super::pack::tool_version;
use super::signing::{check_file, check_signer};
use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::{BuildContext, CheckContext, FileKind, InputContext, gpg};
use crate::diagnostics::Diagnostics;

/// Sign artifacts with a detached OpenPGP signature.
///
/// ```yaml
/// - action: sign
///   files: [SHA256SUMS]
///   key: keys/release.asc
/// ```
///
/// leaves `SHA256SUMS.asc`, which `gpg --verify SHA256SUMS.asc SHA256SUMS` checks. `armor: false` leaves
/// the binary `SHA256SUMS.sig`.
///
/// `key` is a file with a secret key, as `gpg --export-secret-keys --armor` writes it: beside the
/// recipe, or anywhere by its absolute path. Or the key is taken from a gpg directory:
///
/// ```yaml
/// - action: sign
///   files: ["*.img.zst"]
///   gnupghome: "{{ gnupghome }}"
///   key-id: 0123456789ABCDEF0123456789ABCDEF01234567
///   passphrase-file: "{{ passphrase }}"
/// ```
///
/// gpg works on a copy of the key in a directory of its own that is gone afterwards, with no network and
/// no agent of the user's; so keys on a smart card cannot be used. Neither the key nor the passphrase
/// gets into the log, the store or the root: keep them out of the recipe's text, too.
///
/// The signature is dated `SOURCE_DATE_EPOCH`, or when the key was made where that is later, and so is
/// the same in each build. A pattern (`*`, `?`, `[ab]`; `**` for any directories) stands for what this
/// build has left so far.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sign {
    /// Artifacts, by name or pattern; each gets a signature of its own.
    pub files: Vec<String>,
    /// File with the secret key: beside the recipe, or an absolute path.
    #[serde(default)]
    pub key: Option<String>,
    /// Directory of gpg's with the key, in the place of `key`: beside the recipe, or an absolute path.
    #[serde(default)]
    pub gnupghome: Option<String>,
    /// Which key: a fingerprint, a key id or an address. Needed with `gnupghome`.
    #[serde(default)]
    pub key_id: Option<String>,
    /// File whose first line opens the key: beside the recipe, or an absolute path.
    #[serde(default)]
    pub passphrase_file: Option<String>,
    /// Whether signatures are text (`.asc`) rather than binary (`.sig`).
    #[serde(default = "super::defaults::yes")]
    pub armor: bool,
}

/// After [`gpg::HOME`]: given the kind, and then pairs of an artifact and its signature.
const SCRIPT: &str = r#"
kind=$1
shift
while [ $# -gt 0 ]; do
    gpg --batch --yes --quiet --no-options --trust-model always --faked-system-time "$newest!" \
        ${passphrase:+--pinentry-mode loopback --passphrase-file "$passphrase"} \
        ${id:+--local-user "$id"} --digest-algo SHA512 "$kind" --output "$2" --detach-sign -- "$1"
    shift 2
done
"#;

impl Sign {
    fn ending(&self) -> &'static str {
        if self.armor { "asc" } else { "sig" }
    }
}

impl Action for Sign {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        if self.files.is_empty() {
            out.push(cx.error("files", "there is nothing to sign").hint("`files` names artifacts or patterns"));
        }
        artifact::check_patterns(cx, "files", &self.files, out);
        let (key, home) = (self.key.as_deref(), self.gnupghome.as_deref());
        check_signer(cx, "", key, home, self.key_id.as_deref(), out);
        check_file(cx, "passphrase-file", self.passphrase_file.as_deref(), FileKind::File, out);
    }

    fn nature(&self) -> Nature {
        let names = self.files.iter().filter(|name| !artifact::is_pattern(name));
        Nature {
            version: 1,
            changes: Changes::ARTIFACTS,
            root: RootUse::Unused,
            reads: Reads::ARTIFACTS,
            needs: Needs::tools([gpg::GPG]),
            artifacts: names.map(|name| format!("{name}.{}", self.ending())).collect(),
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
        self.files.join(", ")
    }

    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        cx.add("tool gpg", tool_version("gpg"));
        for name in self.files.iter().filter(|name| !artifact::is_pattern(name)) {
            artifact::add_source(cx, name)?;
        }
        // The directory of gpg's changes whenever gpg runs; its keys are told apart by their ids.
        if let Some(key) = &self.key {
            let path = cx.recipe_dir.join(key);
            let path = path.canonicalize().with_context(|| format!("looking for {}", path.display()))?;
            cx.add_tree("key", &path)?;
        }
        Ok(())
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let files = artifact::expand(cx, &self.files)?;
        let mut binds = Vec::new();
        let mut secret = |path: &Option<String>| -> Result<String> {
            let Some(path) = path else { return Ok(String::new()) };
            let path = cx.recipe_dir.join(path);
            let path = path.canonicalize().with_context(|| format!("looking for {}", path.display()))?;
            let text = text(&path)?;
            binds.push(path);
            Ok(text)
        };
        let (key, home) = (secret(&self.key)?, secret(&self.gnupghome)?);
        let passphrase = secret(&self.passphrase_file)?;
        let script = format!("{}{SCRIPT}", gpg::HOME);
        let mut argv: Vec<String> = ["sh", "-e", "-u", "-c", &script, "sign"].map(str::to_owned).to_vec();
        argv.extend([cx.source_date_epoch.to_string(), key, home, self.key_id.clone().unwrap_or_default(), passphrase]);
        argv.push(if self.armor { "--armor" } else { "--no-armor" }.to_owned());
        let mut outputs = Vec::new();
        for (name, path) in &files {
            let output = Output::begin(cx, &format!("{name}.{}", self.ending()))?;
            argv.extend([text(path)?, text(output.path())?]);
            binds.push(path.clone());
            outputs.push(output);
        }
        let mut runner = cx.host_alone(argv).writable(cx.artifacts);
        for path in &binds {
            if !path.starts_with(cx.artifacts) {
                runner = runner.bind(path, path, true);
            }
        }
        if self.passphrase_file.is_none() {
            runner = runner.hint("if the key has a passphrase, `passphrase-file` names the file that it is in");
        }
        runner.run("signing")?;
        for output in outputs {
            output.finish()?;
        }
        cx.detail = match files.len() {
            1 => "1 signature".to_owned(),
            count => format!("{count} signatures"),
        };
        Ok(())
    }
}

fn text(path: &Path) -> Result<String> {
    PathBuf::from(path).into_os_string().into_string().ok().with_context(|| format!("{} is not UTF-8", path.display()))
}
