//! The proxies that this machine's apt is set up for (apt-transport-http(1)).

use std::collections::HashMap;
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::Result;
use url::Url;

use crate::diagnostics::Fault;

/// apt's word for "no proxy".
pub const DIRECT: &str = "DIRECT";

/// Options for an external program that finds the proxy; the second is the older one.
const AUTO_DETECT: [&str; 2] = ["proxy-auto-detect", "proxyautodetect"];

/// apt's settings of proxies.
#[derive(Debug, Default)]
pub struct AptProxies {
    /// Values by names below `Acquire`, in lower case.
    settings: HashMap<String, String>,
    /// Why they are not known.
    unknown: Option<String>,
    /// What was found for the servers asked so far.
    detected: Mutex<HashMap<String, Option<String>>>,
}

impl AptProxies {
    /// This machine's; none where there is no apt. Read once.
    pub fn of_host() -> &'static Self {
        static PROXIES: OnceLock<AptProxies> = OnceLock::new();
        PROXIES.get_or_init(|| {
            let dump = Command::new("apt-config").args(["dump", "--format", "%f %v%n", "Acquire"]).output();
            let unknown = match dump {
                Ok(output) if output.status.success() => return Self::read(&String::from_utf8_lossy(&output.stdout)),
                Ok(output) => format!("failed ({})", output.status),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Self::default(),
                Err(error) => format!("cannot be started: {error}"),
            };
            Self { unknown: Some(unknown), ..Self::default() }
        })
    }

    /// Those of settings by their names below `Acquire`, in lower case.
    pub fn of(settings: &[(String, String)]) -> Self {
        // What is empty takes back what was set before.
        let mut all: HashMap<String, String> = settings.iter().cloned().collect();
        all.retain(|_, value| !value.trim().is_empty());
        Self { settings: all, unknown: None, detected: Mutex::default() }
    }

    /// Reads what `apt-config dump --format '%f %v%n' Acquire` prints.
    fn read(dump: &str) -> Self {
        let setting = |line: &str| {
            let (name, value) = line.split_once(' ')?;
            let name = name.to_ascii_lowercase();
            let name = name.strip_prefix("acquire::http").map(|_| name["acquire::".len()..].to_owned())?;
            (!value.trim().is_empty()).then(|| (name, value.trim().to_owned()))
        };
        Self { settings: dump.lines().filter_map(setting).collect(), unknown: None, detected: Mutex::default() }
    }

    /// The proxy to reach a URL by; `None` where the server is asked itself.
    pub fn to(&self, url: &Url) -> Result<Option<String>> {
        Ok(self.set_for(url)?.filter(|proxy| proxy != DIRECT))
    }

    /// What is set for a URL: a proxy, or [`DIRECT`]; `None` where nothing is.
    pub fn set_for(&self, url: &Url) -> Result<Option<String>> {
        if let Some(why) = &self.unknown {
            let fault = Fault::machine(format!("`apt-config dump`, which is to say what apt's proxy is, {why}"));
            return Err(fault.hint("`http_proxy` and `https_proxy` in the environment go before it").into());
        }
        let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
        // https takes over what is set for http alone.
        let methods: &[&str] = if url.scheme() == "https" { &["https", "http"] } else { &["http"] };
        let find = |option: &str| methods.iter().find_map(|method| self.settings.get(&format!("{method}::{option}")));
        let mut proxy = find(&format!("proxy::{host}")).cloned();
        if proxy.is_none()
            && let Some(program) = AUTO_DETECT.iter().find_map(|option| find(option))
        {
            proxy = self.detect(program, url)?;
        }
        Ok(proxy.or_else(|| find("proxy").cloned()))
    }

    /// Asks the program, once per server.
    fn detect(&self, program: &str, url: &Url) -> Result<Option<String>> {
        let server = url[..url::Position::BeforePath].to_owned();
        let mut detected = self.detected.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = detected.get(&server) {
            return Ok(known.clone());
        }
        let refused = |why: String| {
            Fault::machine(format!("`{program}`, which is to find apt's proxy, {why}")).hint(
                "apt-config dump Acquire::http shows who asks for it; `http_proxy` in the environment goes before it",
            )
        };
        let output = Command::new(program)
            .arg(&server)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| refused(format!("cannot be started: {error}")))?;
        if !output.status.success() {
            return Err(refused(format!("failed ({})", output.status)).into());
        }
        let said = String::from_utf8_lossy(&output.stdout);
        let proxy = said.lines().next().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned);
        detected.insert(server, proxy.clone());
        Ok(proxy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(dump: &str, url: &str) -> Option<String> {
        AptProxies::read(dump).to(&Url::parse(url).unwrap()).unwrap()
    }

    #[test]
    fn a_machine_that_does_not_say_is_not_taken_for_one_without_a_proxy() {
        let proxies = AptProxies { unknown: Some("failed (signal: 9)".into()), ..AptProxies::default() };
        let fault = proxies.to(&Url::parse("http://m.example/").unwrap()).unwrap_err();
        assert!(fault.to_string().contains("failed (signal: 9)"), "{fault}");
    }

    #[test]
    fn the_most_special_setting_counts() {
        let dump = "Acquire \nAcquire::http \nAcquire::HTTP::Proxy http://cache.example:3142\nAcquire::http::Proxy::near.example DIRECT\nAcquire::http::Proxy::far.example http://other.example\nAcquire::http::Timeout 5\n";
        assert_eq!(proxy(dump, "http://a.example/x").as_deref(), Some("http://cache.example:3142"));
        assert_eq!(proxy(dump, "http://near.example/x"), None);
        assert_eq!(proxy(dump, "http://far.example/x").as_deref(), Some("http://other.example"));
        assert_eq!(proxy(dump, "https://a.example/x").as_deref(), Some("http://cache.example:3142"));
        let dump = format!("{dump}Acquire::https::Proxy DIRECT\n");
        assert_eq!(proxy(&dump, "https://a.example/x"), None);
        assert_eq!(proxy(&dump, "http://a.example/x").as_deref(), Some("http://cache.example:3142"));
        assert_eq!(proxy("Acquire::http::Proxy \n", "http://a.example/x"), None);
        assert_eq!(proxy("", "http://a.example/x"), None);
    }

    #[test]
    fn a_program_may_find_the_proxy() {
        let echo = "Acquire::http::Proxy http://x.example\nAcquire::http::Proxy-Auto-Detect /bin/echo\n";
        assert_eq!(proxy(echo, "http://a.example:81/x").as_deref(), Some("http://a.example:81"));
        let silent = "Acquire::http::Proxy http://x.example\nAcquire::http::ProxyAutoDetect /bin/true\n";
        assert_eq!(proxy(silent, "http://a.example/x").as_deref(), Some("http://x.example"));
        let exempt = format!("{echo}Acquire::http::Proxy::a.example DIRECT\n");
        assert_eq!(proxy(&exempt, "http://a.example/x"), None);
        for (program, why) in [("/nonexistent", "cannot be started"), ("/bin/false", "failed")] {
            let proxies = AptProxies::read(&format!("Acquire::http::Proxy-Auto-Detect {program}\n"));
            let error = proxies.to(&Url::parse("http://a.example").unwrap()).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(program), "{error}");
        }
    }
}
