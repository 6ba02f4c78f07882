//! The action `download`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use super::pack::{tool_version, unknown_compression};
use super::{Action, Changes, ImageRole, ImageSurroundings, Nature, Needs, Reads, RootUse};
use crate::build::apt::repository::Credentials;
use crate::build::archive::{Archive, Compression, unpack};
use crate::build::inside::Inside;
use crate::build::{BuildContext, CheckContext, InputContext};
use crate::diagnostics::{Diagnostics, redacted, size_shown};
use crate::store::fetch::Request;

/// Download a file for later actions.
///
/// ```yaml
/// - action: download
///   url: https://mirror.example/u-boot-rockpro64.img.xz
///   name: u-boot
///   sha256sum: 7f83b1657ff1fc53b92dc18148a1d65dfc2d4b1fa3d677284addd200126d9069
/// ```
///
/// Later actions use it by `origin: u-boot`. With `unpack: true` the origin is a directory with what
/// was in the archive (a `.tar`, plain or compressed, a `.zip` or a `.deb`); without, it is the file.
///
/// ```yaml
/// - action: download
///   url: https://mirror.example/firmware-{{ version }}.tar.gz
///   name: firmware
///   unpack: true
///   sha256sum: 7f83b1657ff1fc53b92dc18148a1d65dfc2d4b1fa3d677284addd200126d9069
///
/// - action: overlay
///   origin: firmware
///   source: firmware-{{ version }}/lib
///   destination: /usr/lib/firmware
/// ```
///
/// With a digest (`sha256sum`, `sha512sum` or both) the file is checked, the result of the recipe
/// does not depend on what the server has today, and nothing is fetched twice. Without one, every
/// build fetches the file anew, since nothing else tells whether it has changed, and debforge warns.
///
/// Transfers that break off are tried again, and with a digest go on where they were; a server that says nothing is
/// given up after a while. Files are kept in the store (`debforge store`).
///
/// A server that wants a login gets it from `credentials`, whose password stands in the environment or a file and
/// stays there, or from the file that `NETRC` names; a login in the address is refused.
///
/// **Compared with debos**: retries, resumes, time limits and a cache; `sha512sum`; digests in
/// capital letters count; archives cannot write outside of their directory.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Download {
    /// Address: http or https.
    pub url: String,
    /// What later actions call it as their `origin`.
    pub name: String,
    /// Name of the file; the last part of the address where it is left out.
    #[serde(default)]
    pub filename: Option<String>,
    /// Whether it is an archive to unpack.
    #[serde(default)]
    pub unpack: bool,
    /// Compression of the archive: `bzip2`, `gz`, `lzip`, `lzma`, `lzop`, `xz`, `zstd` or `none`;
    /// found out where it is left out.
    #[serde(default)]
    pub compression: Option<String>,
    /// SHA-256 that the file must have, 64 hex digits.
    #[serde(default)]
    pub sha256sum: Option<String>,
    /// SHA-512 that the file must have, 128 hex digits.
    #[serde(default)]
    pub sha512sum: Option<String>,
    /// How to log in.
    #[serde(default)]
    pub credentials: Option<Credentials>,
}

impl Download {
    fn filename(&self) -> Option<String> {
        match &self.filename {
            Some(name) => Some(name.clone()),
            None => {
                let url = Url::parse(&self.url).ok()?;
                let last = url.path_segments()?.next_back()?.to_owned();
                (!last.is_empty()).then_some(last)
            }
        }
    }

    /// The address for people.
    fn shown(&self) -> String {
        redacted(&self.url)
    }

    fn request(&self, recipe_dir: &Path) -> Result<Request> {
        Ok(Request {
            url: self.url.clone(),
            sha256: self.sha256sum.clone(),
            sha512: self.sha512sum.clone(),
            credentials: self.credentials.as_ref().map(|credentials| credentials.login(recipe_dir)).transpose()?,
            ..Request::default()
        })
    }

    /// The host's program that unpacks it, where debforge does not.
    fn program(&self) -> Option<(&'static str, &'static str)> {
        let compression = self.compression.as_deref().and_then(Compression::named).filter(|_| self.unpack);
        compression.and_then(|compression| compression.program(true))
    }

    /// The name of the input that tells which file it was.
    fn what(&self) -> String {
        format!("download {}", self.shown())
    }
}

impl Action for Download {
    fn check(&self, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        match Url::parse(&self.url) {
            Err(error) => out.push(cx.error("url", format!("`{}` is not an address: {error}", self.url))),
            Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                let hint = match url.scheme() {
                    "file" => "a file of this machine is used by `origin: recipe`, beside the recipe",
                    _ => "it must start with http:// or https://",
                };
                out.push(cx.error("url", format!("`{}:` cannot be downloaded from", url.scheme())).hint(hint));
            }
            Ok(url) => {
                cx.refuse_login("url", &self.url, "use `credentials`", out);
                if let Some(credentials) = &self.credentials {
                    credentials.check("credentials", cx, out);
                    if url.scheme() == "http" {
                        let message = "the password is sent over http, where anybody on the way can read it";
                        out.push(cx.warning("url", message).hint("use https"));
                    }
                }
                if self.filename().is_none() {
                    out.push(
                        cx.error("url", "the address does not end in the name of a file").hint("give it by `filename`"),
                    );
                }
            }
        }
        if let Some(name) = &self.filename
            && (name.is_empty() || name.contains('/') || name == "." || name == "..")
        {
            out.push(cx.error("filename", format!("`{name}` is not the name of a file")));
        }
        if self.name.is_empty() || matches!(self.name.as_str(), "recipe" | "artifacts" | "filesystem") {
            out.push(
                cx.error("name", format!("`{}` cannot be the name of a download", self.name))
                    .hint("`recipe`, `artifacts` and `filesystem` are origins that every recipe has"),
            );
        } else if cx.downloads.contains(&self.name) {
            let message = format!("there is already a download `{}`", self.name);
            out.push(match cx.lenient {
                true => cx.warning("name", message).hint("from here on this one is meant, as in debos"),
                false => cx.error("name", message),
            });
        }
        for (property, digest, digits) in [("sha256sum", &self.sha256sum, 64), ("sha512sum", &self.sha512sum, 128)] {
            if let Some(digest) = digest
                && (digest.len() != digits || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()))
            {
                out.push(cx.error(property, format!("`{digest}` is not a digest of {digits} hex digits")));
            }
        }
        if self.sha256sum.is_none() && self.sha512sum.is_none() {
            out.push(
                cx.warning("url", "nothing says what this file must be: `sha256sum` is missing")
                    .hint(format!("`curl -sSfL '{}' | sha256sum` prints it", self.shown())),
            );
        }
        if let Some(compression) = &self.compression {
            if Compression::named(compression).is_none() {
                out.push(unknown_compression(cx, compression, &[]));
            } else if !self.unpack {
                out.push(
                    cx.warning("compression", "`compression` means nothing without `unpack: true`")
                        .hint("a file that is not unpacked stays as it is"),
                );
            }
        }
    }

    fn origin_name(&self) -> Option<&str> {
        Some(&self.name)
    }

    fn nature(&self) -> Nature {
        Nature {
            version: 2,
            changes: Changes::ORIGIN,
            root: RootUse::Unused,
            reads: Reads::NOTHING,
            needs: Needs { tools: self.program().into_iter().collect(), network: true, emulation: false },
            artifacts: Vec::new(),
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
        self.shown()
    }

    fn inputs(&self, cx: &mut InputContext<'_>) -> Result<()> {
        if let Some((program, _)) = self.program() {
            cx.add(format!("tool {program}"), tool_version(program));
        }
        let state = match (&self.sha256sum, &self.sha512sum) {
            (Some(sha256), _) => format!("sha256:{}", sha256.to_ascii_lowercase()),
            (None, Some(sha512)) => format!("sha512:{}", sha512.to_ascii_lowercase()),
            (None, None) => {
                (cx.progress)(&format!("fetching {}", self.shown()));
                let fetched = cx.store.fetch(&self.request(cx.recipe_dir)?, &mut |_, _| {})?;
                format!("sha256:{}", fetched.sha256)
            }
        };
        cx.add(self.what(), state);
        Ok(())
    }

    fn run(&self, cx: &mut BuildContext<'_>) -> Result<()> {
        let mut request = self.request(cx.recipe_dir)?;
        if let Some(planned) = cx.input(&self.what()).and_then(|state| state.strip_prefix("sha256:")) {
            request.sha256 = Some(planned.to_owned());
        }
        let fetched = cx.store.fetch(&request, &mut |done, all| {
            cx.progress("downloading", all.map(|all| (done, all)));
        })?;
        let filename = self.filename().context("the address does not end in the name of a file")?;
        if !self.unpack {
            place(&fetched.path, &cx.scratch.join(&filename))?;
            cx.origin = Some(PathBuf::from(filename));
            cx.detail = size_shown(fetched.size);
            return Ok(());
        }
        // As debos calls it; commands look for it beside the root.
        let name = format!("{filename}.d");
        let directory = cx.scratch.join(&name);
        fs::create_dir(&directory).with_context(|| format!("making {}", directory.display()))?;
        let file = fs::File::open(&fetched.path).with_context(|| format!("opening {filename}"))?;
        let compression = self.compression.as_deref().and_then(Compression::named);
        let archive = Archive { file, name: &filename, compression };
        let unpacked = unpack(archive, &Inside::open(&directory)?, Path::new("/"), &mut |done, total| {
            cx.progress("unpacking", Some((done, total)));
        })?;
        super::unpack::report(cx, &unpacked);
        cx.origin = Some(PathBuf::from(name));
        Ok(())
    }
}

/// Puts a file of the store into the step's directory: a file of its own (sharing the store's bytes on
/// disk where the file system can), so that nothing done to it reaches the store.
fn place(blob: &Path, target: &Path) -> Result<()> {
    reflink_copy::reflink_or_copy(blob, target)
        .with_context(|| format!("copying the download to {}", target.display()))?;
    fs::set_permissions(target, fs::Permissions::from_mode(0o644))
        .with_context(|| format!("setting the mode of {}", target.display()))
}
