//! Logins that this machine has for servers, in the form of netrc(5) and apt_auth.conf(5). They are read when a
//! server is asked, and get nowhere else.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result};
use url::Url;

/// Where apt has its logins: a file, and a directory of such.
pub const APT: (&str, &str) = ("/etc/apt/auth.conf", "/etc/apt/auth.conf.d");

/// The variable that names a file of logins, as it does to other programs.
pub const VARIABLE: &str = "NETRC";

/// One login.
#[derive(Clone, PartialEq, Eq)]
struct Login {
    /// `[SCHEME://]HOST[:PORT][/PATH]`, of apt_auth.conf(5).
    machine: String,
    user: String,
    password: String,
}

/// Logins, in the order that they are looked through in. Has no `Debug`: it holds secrets.
#[derive(Clone, Default)]
pub struct Logins(Vec<Login>);

/// The login for an address of a repository, or of another file: from the file that `NETRC` names, and for
/// repositories from apt's own.
pub fn of_machine(url: &Url, repository: bool) -> Result<Option<(String, String)>> {
    if let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading the logins in {}, which `{VARIABLE}` names", path.display()))?;
        if let Some(login) = Logins::parse(&text).find(url) {
            return Ok(Some(login));
        }
    }
    static OF_APT: OnceLock<Logins> = OnceLock::new();
    Ok(if repository { OF_APT.get_or_init(of_apt).find(url) } else { None })
}

/// apt's, as far as they can be read: like apt, which is content with what it may see.
fn of_apt() -> Logins {
    let mut parts: Vec<PathBuf> =
        std::fs::read_dir(APT.1).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    parts.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    parts.sort();
    let files = parts.iter().map(PathBuf::as_path).chain([Path::new(APT.0)]);
    Logins(
        files.filter_map(|file| std::fs::read_to_string(file).ok()).flat_map(|text| Logins::parse(&text).0).collect(),
    )
}

impl Logins {
    /// Reads the text of a file.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        let mut words = lines.flat_map(str::split_whitespace);
        let mut all: Vec<Login> = Vec::new();
        while let Some(word) = words.next() {
            let mut value = || words.next().unwrap_or_default().to_owned();
            match (word, all.last_mut()) {
                ("machine", _) => {
                    all.push(Login { machine: value(), user: String::new(), password: String::new() });
                }
                ("login", Some(login)) => login.user = value(),
                ("password", Some(login)) => login.password = value(),
                // It would send a password to whoever is asked: an entry for no server.
                ("default", _) => {
                    all.push(Login { machine: String::new(), user: String::new(), password: String::new() });
                }
                _ => {}
            }
        }
        Self(all)
    }

    /// The first that is meant for an address. Without a scheme https is meant, as it is to apt.
    pub fn find(&self, url: &Url) -> Option<(String, String)> {
        let meant = |login: &&Login| {
            let (scheme, rest) = login.machine.split_once("://").unwrap_or(("https", &login.machine));
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            let Ok(server) = Url::parse(&format!("{scheme}://{host}")) else { return false };
            let path = format!("/{}", path.trim_end_matches('/'));
            let below = url.path().strip_prefix(path.trim_end_matches('/')).is_some_and(|rest| rest.starts_with('/'));
            let of =
                |url: &Url| (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default());
            below && of(&server) == of(url)
        };
        self.0.iter().find(meant).map(|login| (login.user.clone(), login.password.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_goes_to_the_server_and_path_that_it_is_for() {
        let logins = Logins::parse(
            "# machine c.example login no password no\nmachine a.example/one login me password x\nmachine http://b.example:81\n  login you\n  password y\nmachine d.example login d password z\ndefault login all password all\n",
        );
        let user = |url: &str| logins.find(&Url::parse(url).unwrap()).map(|(user, _)| user);
        assert_eq!(user("https://a.example/one/dists/x").as_deref(), Some("me"));
        assert_eq!(user("https://a.example/one-more/x"), None);
        assert_eq!(user("http://a.example/one/x"), None, "a password on a way that anybody can read");
        assert_eq!(user("http://b.example:81/").as_deref(), Some("you"));
        assert_eq!(user("http://b.example/"), None);
        assert_eq!(user("https://d.example:443/x/y").as_deref(), Some("d"));
        assert_eq!(user("https://d.example.evil.example/"), None);
        assert_eq!(user("https://c.example/"), None);
    }
}
