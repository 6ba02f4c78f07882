//! apt on the host, working for a target root.
//!
//! When a build is planned, [`add_repositories`] fetches and verifies the Release file of every suite:
//! it is the state that the step's id is made from. When the step runs, an [`Apt`] session takes the
//! indexes that those files list into a directory of the store ([`lists`]), lets the host's apt decide
//! over them ([`Apt::resolve`]), and takes the packages into the store ([`Apt::fetch`]). Nothing is
//! downloaded by apt itself, so it needs no network, no credentials and no keys.

mod action;
mod configuration;
mod elsewhere;
mod explain;
pub(crate) mod first_start;
mod install;
mod lists;
pub mod pick;
mod release_file;
pub mod repository;
mod root;
mod session;
mod settings;
mod verify;

pub use action::{Pin, TOOLS, add_inputs, check_package, check_root, install, write_preferences};
pub use release_file::{Keys, Trust, add_repositories};
pub use root::sources_of_root;
pub(crate) use session::in_parallel;
pub use session::{Apt, Base, Options, PackageFile};
pub use settings::Settings;

use std::collections::BTreeMap;

use url::Url;

use crate::debian::apt_conf::Setting;
use crate::debian::logins::Logins;
use crate::diagnostics::{Remedy, fault_of};
use crate::store::fetch::Request;

/// How to get at repositories: logins, by the start of their addresses, and what apt's settings say. Has no `Debug`:
/// it holds secrets.
#[derive(Clone, Default)]
pub struct Access {
    own: BTreeMap<String, (String, String)>,
    /// The root's.
    logins: Logins,
    /// Settings of proxies that go before this machine's.
    proxies: Vec<Setting>,
}

impl Access {
    /// Sets user name and password for everything below an address.
    pub fn add(&mut self, uri: &str, login: &str, password: &str) {
        self.own.insert(uri.trim_end_matches('/').to_owned(), (login.to_owned(), password.to_owned()));
    }

    /// Adds what settings say of it.
    pub fn with(mut self, settings: &Settings) -> Self {
        self.logins = settings.logins();
        self.proxies.clone_from(&settings.proxies);
        self
    }

    /// Asks for a file of a repository.
    fn request(&self, url: &str, sha256: Option<String>) -> Request {
        let proxies = self.proxies.clone();
        Request {
            credentials: self.of(url),
            url: url.to_owned(),
            sha256,
            repository: true,
            proxies,
            ..Request::default()
        }
    }

    /// The login for a file.
    fn of(&self, url: &str) -> Option<(String, String)> {
        let below = |uri: &str| url.strip_prefix(uri).is_some_and(|rest| rest.starts_with('/'));
        let own = self.own.iter().filter(|(uri, _)| below(uri)).max_by_key(|(uri, _)| uri.len());
        own.map(|(_, login)| login.clone()).or_else(|| self.logins.find(&Url::parse(url).ok()?))
    }
}

/// The fault for a file of a repository (`the package bash`) that could not be fetched. One that is
/// gone, or no longer what the lists say, means that the repository has moved on since it was asked.
fn unavailable(what: &str, error: &anyhow::Error) -> anyhow::Error {
    let mut fault = fault_of(error);
    fault.message = format!("could not get {what}: {}", fault.message);
    if fault.remedy == Remedy::LookElsewhere {
        fault.remedy = Remedy::PlanAnew;
        fault.hints.push(
            "a mirror may lack an architecture that its Release file lists, or be in the middle of an update: try \
             again later, or name another"
                .into(),
        );
    }
    fault.into()
}

#[cfg(test)]
mod tests {
    use super::Access;

    #[test]
    fn a_login_goes_to_its_own_repository_alone() {
        let mut access = Access::default();
        access.add("https://a.example/one/", "me", "x");
        assert!(access.of("https://a.example/one/dists/x").is_some());
        assert!(access.of("https://a.example/one-more/dists/x").is_none());
        assert!(access.of("https://a.example.evil.example/one/").is_none());
    }
}
