//! What actions that have OSTree sign something share.

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pack::tool_version;
use crate::build::gpg::Signer;
use crate::build::{BuildContext, CheckContext, FileKind, InputContext};
use crate::diagnostics::Diagnostics;

/// Who signs: as in the action `sign`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Signing {
    /// File with the secret key: beside the recipe, or an absolute path.
    #[serde(default)]
    pub key: Option<String>,
    /// Directory of gpg's with the key, in the place of `key`.
    #[serde(default)]
    pub gnupghome: Option<String>,
    /// Which key: a fingerprint, a key id or an address. Needed with `gnupghome`.
    #[serde(default)]
    pub key_id: Option<String>,
    /// File whose first line opens the key.
    #[serde(default)]
    pub passphrase_file: Option<String>,
}

impl Signing {
    /// Reports what is not there.
    pub(super) fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        check_signer(cx, "sign", self.key.as_deref(), self.gnupghome.as_deref(), self.key_id.as_deref(), out);
        check_file(cx, "sign.passphrase-file", self.passphrase_file.as_deref(), FileKind::File, out);
    }

    /// Adds the key to what a step depends on.
    pub(super) fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        cx.add("tool gpg", tool_version("gpg"));
        let Some(key) = &self.key else { return Ok(()) };
        let path = cx.recipe_dir.join(key);
        let path = path.canonicalize().with_context(|| format!("looking for {}", path.display()))?;
        cx.add_tree("key", &path)
    }

    /// The same with whole paths.
    pub(super) fn signer(&self, cx: &BuildContext<'_>) -> Result<Signer> {
        let whole = |path: &Option<String>| path.as_ref().map(|path| cx.recipe_dir.join(path));
        Signer {
            key: whole(&self.key),
            home: whole(&self.gnupghome),
            id: self.key_id.clone(),
            passphrase: whole(&self.passphrase_file),
        }
        .resolved()
    }
}

/// Reports what is no key, where the properties stand below `at` (nothing: in the action itself).
pub(super) fn check_signer(
    cx: &CheckContext<'_>,
    at: &str,
    key: Option<&str>,
    home: Option<&str>,
    id: Option<&str>,
    out: &mut Diagnostics,
) {
    let property = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
    match (key, home) {
        (None, None) => out.push(
            cx.error(at, "`sign` needs `key` or `gnupghome`")
                .hint("`key` is a file with a secret key, `gnupghome` a directory of gpg's"),
        ),
        (Some(_), Some(_)) => {
            out.push(cx.error(&property("gnupghome"), "`key` and `gnupghome` cannot both be given"));
        }
        (None, Some(_)) if id.is_none() => out.push(
            cx.error(&property("gnupghome"), "`key-id` is missing")
                .hint("`gpg --list-secret-keys` shows the fingerprints of the keys there"),
        ),
        _ => {}
    }
    if let Some(id) = id.filter(|id| id.is_empty() || id.starts_with('-')) {
        out.push(cx.error(&property("key-id"), format!("`{id}` is no key's id")));
    }
    check_file(cx, &property("key"), key, FileKind::File, out);
    check_file(cx, &property("gnupghome"), home, FileKind::Directory, out);
}

/// Reports a file beside the recipe that is not there, or is something else.
pub(super) fn check_file(
    cx: &CheckContext<'_>,
    property: &str,
    path: Option<&str>,
    wanted: FileKind,
    out: &mut Diagnostics,
) {
    let Some(path) = path else { return };
    let full = cx.recipe_dir.join(path);
    match cx.files.kind(&full) {
        None => out.push(
            cx.error(property, format!("there is no `{path}`")).hint(format!("it is looked for at {}", full.display())),
        ),
        Some(kind) if kind != wanted => {
            let what = if wanted == FileKind::File { "file" } else { "directory" };
            out.push(cx.error(property, format!("`{path}` is not a {what}")));
        }
        Some(_) => {}
    }
}
