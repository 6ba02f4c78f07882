//! What apt.conf(5) says of how repositories are fetched: debforge, which does it in apt's place, does it so, or says
//! that it cannot.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::build::files::RootFiles;
use crate::debian::apt_conf::{self, Setting};
use crate::debian::logins::{APT as LOGINS, Logins};
use crate::debian::sources::{ByHash, Sources};
use crate::diagnostics::Fault;

/// apt's main file, and the directory that it reads before.
pub(super) const FILES: (&str, &str) = ("/etc/apt/apt.conf", "/etc/apt/apt.conf.d");

/// dpkg's list of the root's architectures, its own first.
const ARCHITECTURES: &str = "/var/lib/dpkg/arch";

/// What begins the line of a root's repositories that has its settings, a comment to who reads on.
const LINE: &str = "#settings ";

/// Settings of a root, or of a recipe for the root that it makes; beside them, what else of a root fetching depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Whether a Release file past its `Valid-Until` is refused.
    check_valid_until: Option<bool>,
    /// How indexes are asked for.
    by_hash: Option<ByHash>,
    /// Proxies: names below `acquire::`, and values.
    pub(super) proxies: Vec<Setting>,
    /// Those that cannot be met.
    refused: Vec<Refused>,
    /// Why not all are known.
    unread: Option<String>,
    /// Those that are not met, with the same files in the end.
    unheeded: Vec<String>,
    /// Logins, in the form of apt_auth.conf(5).
    pub(super) logins: String,
    /// The root's architectures, where it has several.
    pub(super) architectures: Vec<String>,
}

/// A setting that cannot be met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Its name, as apt compares it.
    pub name: String,
    /// Whether it is about https alone.
    https: bool,
}

/// What becomes of a setting.
enum Effect {
    CheckValidUntil,
    ByHash,
    Proxy,
    /// None here: it says in which way the same files come, or asks for more care than there is any use for.
    None,
    /// None here, which may be noticed on the way.
    Unheeded,
    Refused,
}

/// Settings that change which files count, or who may have them.
const REFUSED: &[&str] = &[
    "acquire::max-validtime",
    "acquire::min-validtime",
    "acquire::check-date",
    "acquire::snapshot",
    "acquire::snapshots",
    "apt::snapshot",
    "dir",
];

/// Below `dir`, where apt keeps what nobody else sees, or what is not of fetching.
const OWN_DIRECTORIES: &[&str] =
    &["dir::cache", "dir::log", "dir::bin", "dir::media", "dir::parser", "dir::ignore-files-silently"];

/// The same of a method: the last parts of their names.
const REFUSED_OF_METHOD: &[&str] = &[
    "proxy-auto-detect",
    "proxyautodetect",
    "cainfo",
    "capath",
    "verify-peer",
    "verify-host",
    "sslcert",
    "sslkey",
    "crlfile",
    "issuercert",
    "sslforceversion",
];

/// How apt would go about it.
const UNHEEDED: &[&str] =
    &["dl-limit", "user-agent", "user-agent-non-interactive", "allowredirect", "forceipv4", "forceipv6"];

impl Effect {
    fn of(name: &str) -> Self {
        match name {
            "acquire::check-valid-until" => return Self::CheckValidUntil,
            "acquire::by-hash" | "apt::acquire::by-hash" => return Self::ByHash,
            _ => {}
        }
        let last = name.rsplit("::").next().unwrap_or_default();
        let is_below = |top: &&str| name == *top || name.strip_prefix(*top).is_some_and(|rest| rest.starts_with("::"));
        if REFUSED.iter().any(is_below) && !OWN_DIRECTORIES.iter().any(is_below) {
            return Self::Refused;
        }
        let Some(rest) = name.strip_prefix("acquire::") else { return Self::None };
        if rest.ends_with("::by-hash") {
            return Self::Refused;
        }
        let method = ["http::", "https::"].into_iter().find_map(|method| rest.strip_prefix(method));
        match method {
            Some(of_method) if of_method == "proxy" || of_method.starts_with("proxy::") => Self::Proxy,
            Some(_) if REFUSED_OF_METHOD.contains(&last) => Self::Refused,
            _ if UNHEEDED.contains(&last) => Self::Unheeded,
            _ => Self::None,
        }
    }
}

impl Settings {
    /// What settings mean for fetching.
    pub fn of(settings: &[Setting]) -> Self {
        let mut all = Self::default();
        for (name, value) in settings {
            let refused = || Refused { name: name.clone(), https: name.starts_with("acquire::https::") };
            match Effect::of(name) {
                Effect::CheckValidUntil => match apt_conf::flag(value) {
                    Some(check) => all.check_valid_until = Some(check),
                    None => all.refused.push(refused()),
                },
                Effect::ByHash => match ByHash::parse(value) {
                    Some(by_hash) => all.by_hash = Some(by_hash),
                    None => all.refused.push(refused()),
                },
                Effect::Proxy => all.proxies.push((name["acquire::".len()..].to_owned(), value.clone())),
                // Cleared, or as it is by itself.
                Effect::Refused if value.is_empty() || is_default(name, value) => {}
                Effect::Refused => all.refused.push(refused()),
                Effect::Unheeded => all.unheeded.push(name.clone()),
                Effect::None => {}
            }
        }
        all
    }

    /// Those of a recipe: lines of apt.conf(5), one an option.
    pub fn of_options(options: &[String]) -> Result<Self> {
        let mut settings = Vec::new();
        options.iter().try_for_each(|option| apt_conf::read(&format!("{option}\n;"), &mut settings))?;
        Ok(Self::of(&settings))
    }

    /// Those of a root, with its logins.
    pub(super) fn of_root(files: &RootFiles) -> Result<Self> {
        let (mut settings, mut unread) = (Vec::new(), None);
        let (main, parts) = FILES;
        let names = files.names(parts)?.into_iter().filter(|name| apt_conf::is_part(name));
        for path in names.map(|name| format!("{parts}/{name}")).chain([main.to_owned()]) {
            if let Some(bytes) = files.bytes(&path)? {
                let text = String::from_utf8_lossy(&bytes);
                // What does not speak of fetching is apt's alone.
                let lower = text.to_ascii_lowercase();
                if ["acquire", "dir", "snapshot", "#clear", "#include"].iter().any(|word| lower.contains(word))
                    && let Err(error) = apt_conf::read(&text, &mut settings)
                {
                    // Of no account until something is to be fetched.
                    unread.get_or_insert(format!("{path} of the root cannot be read: {error:#}"));
                }
            }
        }
        let mut all = Self { unread, ..Self::of(&settings) };
        let names = files.names(LOGINS.1)?.into_iter().filter(|name| name.ends_with(".conf"));
        for path in names.map(|name| format!("{}/{name}", LOGINS.1)).chain([LOGINS.0.to_owned()]) {
            if let Some(bytes) = files.bytes(&path)? {
                all.logins.push_str(&String::from_utf8_lossy(&bytes));
                all.logins.push('\n');
            }
        }
        let architectures = files.text(ARCHITECTURES)?.unwrap_or_default();
        let architectures: Vec<&str> = architectures.split_whitespace().collect();
        if architectures.len() > 1 {
            all.architectures = architectures.into_iter().map(str::to_owned).collect();
        }
        Ok(all)
    }

    /// A line that says the same.
    pub(super) fn to_line(&self) -> Result<String> {
        if *self == Self::default() {
            return Ok(String::new());
        }
        Ok(format!("{LINE}{}\n", serde_json::to_string(self).context("writing apt's settings")?))
    }

    /// What a text that may begin with such a line says.
    pub(super) fn from_text(text: &str) -> Result<Self> {
        let line = text.lines().next().and_then(|line| line.strip_prefix(LINE));
        line.map_or(Ok(Self::default()), |line| serde_json::from_str(line).context("reading apt's settings"))
    }

    /// Lets sources that say nothing of their own be as the settings have it.
    pub fn apply(&self, sources: &mut Sources) {
        for source in &mut sources.0 {
            source.check_valid_until = source.check_valid_until.or(self.check_valid_until);
            source.by_hash = source.by_hash.or(self.by_hash);
        }
    }

    /// The settings that cannot be met.
    pub fn refused(&self) -> impl Iterator<Item = &Refused> {
        self.refused.iter()
    }

    /// Those that have no effect.
    pub fn unheeded(&self) -> &[String] {
        &self.unheeded
    }

    /// Refuses to fetch from these repositories where apt would do it otherwise; `of` says whose settings they are.
    pub fn check(&self, sources: &Sources, of: &str) -> Result<()> {
        if let Some(unread) = &self.unread {
            return Err(Fault::recipe(unread.clone())
                .hint("debforge, which fetches in apt's place, has to know apt's settings")
                .into());
        }
        let unmet = sources.0.iter().find_map(|source| Some((source, &source.of_apt.as_ref()?.0)));
        if let Some((source, option)) = unmet {
            let suite = source.suites().next().map(|suite| suite.to_string()).unwrap_or_default();
            return Err(Fault::recipe(format!(
                "the repository {suite} has the option `{option}`, which cannot be met: packages are fetched by debforge, not by apt"
            ))
            .hint("write it into the root after the last step that installs packages")
            .into());
        }
        let mut uris = sources.0.iter().flat_map(|source| &source.uris);
        let https = uris.any(|uri| uri.starts_with("https:"));
        let Some(refused) = self.refused.iter().find(|refused| https || !refused.https) else { return Ok(()) };
        Err(Fault::recipe(format!(
            "{of} sets `{}`, which cannot be met: packages are fetched by debforge, not by apt",
            refused.name
        ))
        .hint(refused.instead())
        .into())
    }

    /// The logins.
    pub(super) fn logins(&self) -> Logins {
        Logins::parse(&self.logins)
    }
}

impl Refused {
    /// The way out.
    pub fn instead(&self) -> &'static str {
        let last = self.name.rsplit("::").next().unwrap_or_default();
        match last {
            "proxy-auto-detect" | "proxyautodetect" => {
                "name the proxy itself, `Acquire::http::Proxy`, or have this machine's apt find it"
            }
            "cainfo" | "capath" | "verify-peer" | "verify-host" | "crlfile" | "issuercert" => {
                "certificates are checked with those that this machine knows, or that `SSL_CERT_FILE` names"
            }
            "sslcert" | "sslkey" => {
                "only `debootstrap` can show a certificate of its own: `certificate`, `private-key`"
            }
            "trusted" | "trustedparts" => "name the keyrings by `keyring-files`, or `signed-by` of the repository",
            "by-hash" | "check-valid-until" => {
                "say `yes` or `no`, for all repositories or for one in its `.sources` file"
            }
            "check-date" => "say `Acquire::Check-Valid-Until` where an old state is what you want",
            "snapshot" => "the bootstraps have `snapshot`",
            _ if self.name.starts_with("dir::etc::source") => "the repositories of a root are those in its /etc/apt",
            _ => "leave it out, or write it into the root after the last step that installs packages",
        }
    }
}

/// Whether a setting asks for what is done anyhow.
fn is_default(name: &str, value: &str) -> bool {
    let yes = ["verify-peer", "verify-host", "check-date"].iter().any(|last| name.ends_with(last));
    let never = name.ends_with("-validtime") && value == "0";
    never || yes && apt_conf::flag(value) == Some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &[&str]) -> Settings {
        Settings::of_options(&options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn settings_hold_for_sources_that_say_nothing_else() {
        let settings = of(&["Acquire::Check-Valid-Until \"no\"", "Acquire::By-Hash false;"]);
        let mut sources = Sources::from_lines(
            "deb http://a.example x main\ndeb [check-valid-until=yes by-hash=force] http://b.example x main\n",
        )
        .unwrap();
        settings.apply(&mut sources);
        let said: Vec<_> = sources.0.iter().map(|source| (source.check_valid_until, source.by_hash)).collect();
        assert_eq!(said, [(Some(false), Some(ByHash::No)), (Some(true), Some(ByHash::Force))]);
    }

    #[test]
    fn every_setting_is_met_or_named() {
        let refused = |option: &str| of(&[option]).refused().map(|it| it.name.clone()).collect::<Vec<_>>();
        for option in [
            "Acquire::https::Verify-Peer \"false\"",
            "Acquire::https::repo.example::SslCert \"/etc/x.pem\"",
            "Acquire::Max-ValidTime::Debian \"60\"",
            "Acquire::http::Proxy-Auto-Detect \"/usr/bin/x\"",
            "Dir::Etc::TrustedParts \"/x\"",
            "Acquire::Check-Valid-Until \"perhaps\"",
        ] {
            assert_eq!(refused(option).len(), 1, "{option}");
        }
        for option in [
            "Acquire::https::Verify-Peer \"true\"",
            "Acquire::Retries \"3\"",
            "Acquire::Languages \"none\"",
            "APT::Get::Show-Upgraded \"1\"",
        ] {
            let settings = of(&[option]);
            assert!(settings.refused().next().is_none() && settings.unheeded().is_empty(), "{option}");
        }
        assert_eq!(of(&["Acquire { http { Dl-Limit \"70\"; } }"]).unheeded(), ["acquire::http::dl-limit"]);
        let proxies = of(&["Acquire::http { Proxy \"http://p.example\"; Proxy::a.example \"DIRECT\"; }"]).proxies;
        assert_eq!(proxies[1], ("http::proxy::a.example".to_owned(), "DIRECT".to_owned()));
    }

    #[test]
    fn what_is_about_https_is_refused_where_there_is_some() {
        let settings = of(&["Acquire::https::CaInfo \"/x\""]);
        let check = |uri: &str| settings.check(&Sources::from_lines(&format!("deb {uri} x main")).unwrap(), "the root");
        assert!(check("http://a.example").is_ok());
        assert!(check("https://a.example").unwrap_err().to_string().contains("acquire::https::cainfo"));
    }

    #[test]
    fn a_line_keeps_all() {
        let mut settings = of(&["Acquire::http::Proxy \"http://p.example\"", "Acquire::By-Hash \"force\""]);
        settings.logins = "machine a.example\nlogin x\n".into();
        let text = format!("{}Types: deb\n", settings.to_line().unwrap());
        assert_eq!(Settings::from_text(&text).unwrap(), settings);
        assert_eq!(Settings::from_text("Types: deb\n").unwrap(), Settings::default());
    }
}
