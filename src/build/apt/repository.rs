//! Repositories as recipes name them.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Access;
use crate::build::inside::Inside;
use crate::build::{BuildContext, CheckContext};
use crate::debian::keyring;
use crate::debian::sources::{ByHash, SignedBy, Source, Sources, check_address};
use crate::diagnostics::{Diagnostics, Fault};

/// A repository, in the terms of sources.list(5)'s deb822 format.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Repository {
    /// Its file in /etc/apt/sources.list.d is NAME.sources.
    pub name: String,
    /// Base addresses.
    pub uris: Vec<String>,
    /// Suites, or exact paths ending in `/`.
    pub suites: Vec<String>,
    /// Parts of the archive; `main` where there are none, except with exact paths.
    #[serde(default)]
    pub components: Vec<String>,
    /// `deb` for packages, `deb-src` for sources.
    #[serde(default = "deb")]
    pub types: Vec<String>,
    /// Architectures to use it for; those of the root where there are none.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// Keyring the repository is signed with, relative to the recipe; it becomes /etc/apt/keyrings/NAME.asc or .gpg.
    #[serde(default)]
    pub signed_by: Option<String>,
    /// Whether it counts as signed without a signature.
    #[serde(default)]
    pub trusted: bool,
    /// Whether a Release file past its date of expiry is refused.
    #[serde(default = "yes")]
    pub check_valid_until: bool,
    /// Whether package lists are asked for by their digests; where the repository has them so, if it is left out.
    #[serde(default)]
    pub by_hash: Option<bool>,
    /// Whether the finished root keeps the repository.
    #[serde(default = "yes")]
    pub keep: bool,
    /// How to log in.
    #[serde(default)]
    pub credentials: Option<Credentials>,
}

/// A login whose secret never reaches the image, the plan or a log.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Credentials {
    /// User name.
    pub login: String,
    /// Environment variable of debforge that holds the password.
    #[serde(default)]
    pub password_env: Option<String>,
    /// File that holds the password, relative to the recipe.
    #[serde(default)]
    pub password_file: Option<String>,
}

fn yes() -> bool {
    true
}

fn deb() -> Vec<String> {
    vec!["deb".into()]
}

impl Repository {
    fn source(&self, signed_by: Option<SignedBy>) -> Source {
        let exact = self.suites.iter().all(|suite| suite.ends_with('/'));
        let components =
            if self.components.is_empty() && !exact { vec!["main".to_owned()] } else { self.components.clone() };
        let mut source = Source::new("", "", &[]);
        source.types.clone_from(&self.types);
        source.uris = self.uris.iter().map(|uri| uri.trim_end_matches('/').to_owned()).collect();
        source.suites.clone_from(&self.suites);
        source.components = components;
        source.architectures.clone_from(&self.architectures);
        source.signed_by = signed_by;
        source.trusted = self.trusted.then_some(true);
        source.by_hash = self.by_hash.map(|by_hash| if by_hash { ByHash::Yes } else { ByHash::No });
        source.check_valid_until = (!self.check_valid_until).then_some(false);
        source
    }

    /// Where its keyring stands in the root.
    fn keyring_path(&self, contents: &[u8]) -> String {
        let suffix = if contents.starts_with(b"-----BEGIN") { "asc" } else { "gpg" };
        format!("/etc/apt/keyrings/{}.{suffix}", self.name)
    }
}

impl Credentials {
    /// Reports what is wrong with it; it stands at `place`.
    pub fn check(&self, place: &str, cx: &CheckContext<'_>, out: &mut Diagnostics) {
        match (&self.password_env, &self.password_file) {
            (Some(_), Some(_)) => {
                out.push(cx.error(place, "`password-env` and `password-file` are both given").hint("keep one"));
            }
            (None, None) => out.push(cx.error(place, "there is neither `password-env` nor `password-file`")),
            (None, Some(file)) if cx.files.kind(&cx.recipe_dir.join(file)).is_none() => {
                out.push(cx.error(&format!("{place}.password-file"), format!("there is no file `{file}`")));
            }
            _ => {}
        }
    }

    /// User name and password.
    pub fn login(&self, recipe_dir: &Path) -> Result<(String, String)> {
        Ok((self.login.clone(), self.password(recipe_dir)?))
    }

    /// Reads the secret; the error names only where it should be.
    fn password(&self, recipe_dir: &Path) -> Result<String> {
        match (&self.password_env, &self.password_file) {
            (Some(name), _) => std::env::var(name).map_err(|_| {
                Fault::recipe(format!("the environment variable `{name}`, which is to hold a password, is not set"))
                    .hint(format!("run debforge with `{name}` in its environment"))
                    .into()
            }),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(recipe_dir.join(file))
                    .with_context(|| format!("reading the password file {file}"))?;
                Ok(text.trim_end_matches(['\n', '\r']).to_owned())
            }
            (None, None) => Err(Fault::recipe("`credentials` have no password").into()),
        }
    }
}

/// Reports all that is wrong with repositories.
pub fn check(repositories: &[Repository], cx: &CheckContext<'_>, out: &mut Diagnostics) {
    for (index, repository) in repositories.iter().enumerate() {
        let at = |part: &str| format!("repositories[{index}].{part}");
        let name = &repository.name;
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
            out.push(
                cx.error(&at("name"), format!("`{name}` cannot be the name of a repository"))
                    .hint("apt reads only files named with letters, digits, `-`, `_` and `.`"),
            );
        }
        if repositories[..index].iter().any(|other| other.name == *name) {
            out.push(cx.error(&at("name"), format!("there are two repositories `{name}`")));
        }
        for (part, empty) in [("uris", repository.uris.is_empty()), ("suites", repository.suites.is_empty())] {
            if empty {
                out.push(cx.error(&at(part), format!("the repository `{name}` has no {part}")));
            }
        }
        for (number, uri) in repository.uris.iter().enumerate() {
            check_uri(uri, &at(&format!("uris[{number}]")), repository.credentials.is_some(), cx, out);
        }
        let exact = repository.suites.iter().filter(|suite| suite.ends_with('/')).count();
        if exact > 0 && (exact < repository.suites.len() || !repository.components.is_empty()) {
            out.push(
                cx.error(&at("suites"), "exact paths (ending in `/`) have neither components nor suites beside them")
                    .hint("make it two repositories"),
            );
        }
        for (number, kind) in repository.types.iter().enumerate() {
            if !matches!(kind.as_str(), "deb" | "deb-src") {
                let place = at(&format!("types[{number}]"));
                out.push(cx.error(&place, format!("`{kind}` is neither `deb` nor `deb-src`")));
            }
        }
        if let Some(key) = &repository.signed_by
            && cx.files.kind(&cx.recipe_dir.join(key)).is_none()
        {
            out.push(cx.error(&at("signed-by"), format!("there is no keyring `{key}`")));
        }
        if let Some(credentials) = &repository.credentials {
            credentials.check(&at("credentials"), cx, out);
        }
    }
}

fn check_uri(uri: &str, place: &str, credentials: bool, cx: &CheckContext<'_>, out: &mut Diagnostics) {
    let scheme = uri.split_once(':').map_or("", |(scheme, _)| scheme);
    match scheme {
        "http" if credentials => out.push(
            cx.warning(place, "the password is sent over http, where anybody on the way can read it").hint("use https"),
        ),
        "http" | "https" | "file" => {}
        "" => out
            .push(cx.error(place, format!("`{uri}` is no address")).hint("begin it with https://, http:// or file:/")),
        _ => {
            if let Err(error) = check_address(uri) {
                out.push(cx.error(place, error.to_string()));
            }
        }
    }
    cx.refuse_login(place, uri, "use `credentials` of the repository", out);
}

/// The repositories with their keys inside, as they are planned and used.
pub fn sources(repositories: &[Repository], recipe_dir: &Path) -> Result<Sources> {
    let mut all = Sources::default();
    for repository in repositories {
        let key = match &repository.signed_by {
            Some(file) => Some(SignedBy::Key(keyring::armoured(&keyring::binary(&read_key(recipe_dir, file)?)?))),
            None => None,
        };
        all.0.push(repository.source(key));
    }
    Ok(all)
}

fn read_key(recipe_dir: &Path, file: &str) -> Result<Vec<u8>> {
    std::fs::read(recipe_dir.join(file)).with_context(|| format!("reading the keyring {file}"))
}

/// The logins of all repositories that have one.
pub fn access(repositories: &[Repository], recipe_dir: &Path) -> Result<Access> {
    let mut all = Access::default();
    for repository in repositories {
        if let Some(credentials) = &repository.credentials {
            let password = credentials.password(recipe_dir)?;
            repository.uris.iter().for_each(|uri| all.add(uri, &credentials.login, &password));
        }
    }
    Ok(all)
}

/// Writes the repositories that the root keeps, with their keys.
pub fn write(repositories: &[Repository], cx: &BuildContext<'_>) -> Result<()> {
    for repository in repositories.iter().filter(|repository| repository.keep) {
        let mut signed_by = None;
        if let Some(file) = &repository.signed_by {
            let contents = read_key(cx.recipe_dir, file)?;
            let path = repository.keyring_path(&contents);
            write_file(cx.root, &path, &contents)?;
            signed_by = Some(SignedBy::Named(vec![path]));
        }
        let text = repository.source(signed_by).to_paragraph().to_string();
        write_file(cx.root, &format!("/etc/apt/sources.list.d/{}.sources", repository.name), text.as_bytes())?;
    }
    Ok(())
}

/// Writes a file that everybody may read, wherever links in the root would lead.
pub(super) fn write_file(root: &Path, path: &str, contents: &[u8]) -> Result<()> {
    let doing = || format!("writing {path} in the root");
    let inside = Inside::open(root)?;
    let path = Path::new(path);
    inside.create_dir_all(path.parent().unwrap_or(path)).with_context(doing)?;
    let mut file = inside.slot(path).with_context(doing)?.create_file().with_context(doing)?;
    file.write_all(contents).with_context(doing)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o644)).with_context(doing)
}
