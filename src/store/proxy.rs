//! Proxies, as the environment names them, or for repositories apt's configuration.
//!
//! `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, in lower or upper case, mean what they
//! mean to curl: an https URL goes through a tunnel (CONNECT), an http URL is asked for by its full
//! name, which caches such as apt-cacher-ng want.

use ureq::Agent;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, TcpConnector, Transport,
};
use url::Url;

use anyhow::{Context, Result};

use super::resolver::Remembering;
use crate::diagnostics::Fault;

/// The way of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Route {
    /// To the server itself.
    Direct,
    /// Through a tunnel that the proxy opens.
    Tunnel(Url),
    /// To the proxy, which asks the server.
    Forward(Url),
}

impl Route {
    /// The way to a URL in an environment, or else the one that `otherwise` names.
    pub(super) fn to(
        url: &Url,
        environment: &dyn Fn(&str) -> Option<String>,
        otherwise: &dyn Fn(&Url) -> Result<Option<String>>,
    ) -> Result<Self> {
        let variable = |name: &str| {
            [name.to_owned(), name.to_uppercase()]
                .iter()
                .find_map(|name| environment(name))
                .map(|v| v.trim().to_owned())
        };
        if variable("no_proxy").is_some_and(|list| is_exempt(url, &list)) {
            return Ok(Self::Direct);
        }
        let own = format!("{}_proxy", url.scheme());
        let (proxy, own) = match variable(&own).or_else(|| variable("all_proxy")) {
            Some(proxy) => (Some(proxy), own),
            None => (otherwise(url)?, "the proxy in apt's configuration".to_owned()),
        };
        match proxy.filter(|proxy| !proxy.is_empty()) {
            Some(proxy) => Self::through(&proxy, &own, url),
            None => Ok(Self::Direct),
        }
    }

    /// The way to a URL through a proxy; `own` says where it comes from.
    fn through(proxy: &str, own: &str, url: &Url) -> Result<Self> {
        // The proxy resolves names with both.
        let proxy = proxy.replace("socks5h://", "socks5://");
        let full = if proxy.contains("://") { proxy } else { format!("http://{proxy}") };
        // The text may hold credentials, so it is not repeated.
        let proxy = Url::parse(&full).map_err(|error| Fault::machine(format!("{own} is not a URL: {error}")))?;
        match (proxy.scheme(), url.scheme()) {
            ("http", "http") => Ok(Self::Forward(proxy)),
            ("http" | "https" | "socks4" | "socks4a" | "socks5", _) => Ok(Self::Tunnel(proxy)),
            (scheme, _) => Err(Fault::machine(format!("{own} names a proxy of the kind {scheme}"))
                .hint("proxies of the kinds http, https, socks4, socks4a and socks5 can be used")
                .into()),
        }
    }

    /// An agent that goes this way.
    pub(super) fn agent(&self, config: ureq::config::ConfigBuilder<ureq::typestate::AgentScope>) -> Result<Agent> {
        Ok(match self {
            Self::Direct => {
                let config = config.proxy(None).build();
                Agent::with_parts(config, DefaultConnector::default(), Remembering::default())
            }
            Self::Tunnel(proxy) => {
                let proxy = ureq::Proxy::new(proxy.as_str()).context("setting up the proxy")?;
                config.proxy(Some(proxy)).build().new_agent()
            }
            Self::Forward(proxy) => {
                let mut bare = proxy.clone();
                let _ = bare.set_username("");
                let _ = bare.set_password(None);
                let proxy: Uri = bare.as_str().parse().context("setting up the proxy")?;
                let connector = ().chain(TcpConnector::default()).chain(FullNames);
                Agent::with_parts(config.proxy(None).build(), connector, AtProxy(proxy))
            }
        })
    }

    /// User and password for a proxy that is asked by full names.
    pub(super) fn login(&self) -> Option<(&str, &str)> {
        match self {
            Self::Forward(proxy) if !proxy.username().is_empty() => {
                Some((proxy.username(), proxy.password().unwrap_or_default()))
            }
            _ => None,
        }
    }
}

/// Whether a list like `localhost,.example.org,10.1.2.3:80` or `*` names the host of a URL. A name
/// stands for itself and all names below it.
fn is_exempt(url: &Url, list: &str) -> bool {
    let Some(host) = url.host_str().map(|host| host.trim_matches(['[', ']']).to_ascii_lowercase()) else {
        return false;
    };
    let port = url.port_or_known_default().map(|port| port.to_string());
    list.split([',', ' ']).map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = entry.to_ascii_lowercase();
        // A port, unless the colon belongs to an IPv6 address.
        let (name, wanted) = match entry.rsplit_once(':') {
            Some((name, wanted)) if !name.contains(':') || name.ends_with(']') => (name, Some(wanted.to_owned())),
            _ => (entry.as_str(), None),
        };
        let name = name.trim_matches(['[', ']']).trim_start_matches('*').trim_start_matches('.');
        let named = entry == "*" || (!name.is_empty() && (host == name || host.ends_with(&format!(".{name}"))));
        named && wanted.is_none_or(|wanted| Some(wanted) == port)
    })
}

/// Finds the proxy's address for whatever host.
#[derive(Debug)]
struct AtProxy(Uri);

impl Resolver for AtProxy {
    fn resolve(&self, _: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        DefaultResolver::default().resolve(&self.0, config, timeout)
    }
}

/// Has requests name the whole URL, as a proxy wants it (RFC 9112, 3.2.2).
#[derive(Debug)]
struct FullNames;

impl<In: Transport> Connector<In> for FullNames {
    type Out = FullNamed<In>;

    fn connect(&self, details: &ConnectionDetails<'_>, chained: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        let authority = details.uri.authority().map(ToString::to_string).unwrap_or_default();
        Ok(chained.map(|inner| FullNamed { inner, origin: format!("http://{authority}").into_bytes() }))
    }
}

#[derive(Debug)]
struct FullNamed<T> {
    inner: T,
    origin: Vec<u8>,
}

impl<T: Transport> Transport for FullNamed<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        const METHOD: &[u8] = b"GET ";
        let output = self.inner.buffers().output();
        let longer = amount + self.origin.len();
        // Only a request's head starts so: none of ours has a body.
        if !output[..amount].starts_with(b"GET /") || longer > output.len() {
            return self.inner.transmit_output(amount, timeout);
        }
        output.copy_within(METHOD.len()..amount, METHOD.len() + self.origin.len());
        output[METHOD.len()..METHOD.len() + self.origin.len()].copy_from_slice(&self.origin);
        self.inner.transmit_output(longer, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(url: &str, environment: &[(&str, &str)]) -> Route {
        let find = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Route::to(&Url::parse(url).unwrap(), &find, &|_| Ok(None)).unwrap()
    }

    #[test]
    fn the_environment_goes_before_other_settings() {
        let url = Url::parse("http://a.example/").unwrap();
        let route = |name: &str, value: &str| {
            let find = |wanted: &str| (wanted == name).then(|| value.to_owned());
            Route::to(&url, &find, &|_| Ok(Some("http://apt.example".into()))).unwrap()
        };
        let forward = |proxy: &str| Route::Forward(Url::parse(proxy).unwrap());
        assert_eq!(route("other", ""), forward("http://apt.example"));
        assert_eq!(route("http_proxy", "http://x.example"), forward("http://x.example"));
        assert_eq!(route("http_proxy", ""), Route::Direct);
        assert_eq!(route("no_proxy", "a.example"), Route::Direct);
        let broken = Route::to(&url, &|_| None, &|_| Ok(Some("gopher://x".into()))).unwrap_err();
        assert!(broken.to_string().contains("apt's configuration"), "{broken}");
    }

    #[test]
    fn the_environment_names_the_proxy_by_scheme() {
        let proxy = |text| Url::parse(text).unwrap();
        let environment = [("http_proxy", "cache.example:3142"), ("HTTPS_PROXY", "http://u:p@tunnel.example")];
        assert_eq!(route("http://a.example/", &environment), Route::Forward(proxy("http://cache.example:3142")));
        assert_eq!(route("https://a.example/", &environment), Route::Tunnel(proxy("http://u:p@tunnel.example")));
        assert_eq!(route("http://a.example/", &[]), Route::Direct);
        assert_eq!(route("http://a.example/", &[("http_proxy", ""), ("all_proxy", "x")]), Route::Direct);
        assert_eq!(route("http://a.example/", &[("ALL_PROXY", "x")]), Route::Forward(proxy("http://x")));
        assert_eq!(route("http://a.example/", &[("all_proxy", "socks5h://x")]), Route::Tunnel(proxy("socks5://x")));
        let gopher = |name: &str| (name == "all_proxy").then(|| "gopher://x".to_owned());
        assert!(Route::to(&proxy("http://a.example"), &gopher, &|_| Ok(None)).is_err());
    }

    #[test]
    fn hosts_are_exempt_with_all_below_them() {
        let cases = [
            ("http://a.example/", "example", true),
            ("http://a.example/", ".example", true),
            ("http://a.example/", "*.example", true),
            ("http://A.Example/", "a.example", true),
            ("http://ba.example/", "a.example", false),
            ("http://a.example/", "b.example, a.example", true),
            ("http://a.example/", "a.example:80", true),
            ("http://a.example:81/", "a.example:80", false),
            ("http://127.0.0.1/", "127.0.0.1", true),
            ("http://[::1]:80/", "::1", true),
            ("http://[::1]:80/", "[::1]:80", true),
            ("http://a.example/", "*", true),
            ("http://a.example/", "", false),
            ("http://a.example/", ",", false),
        ];
        for (url, list, exempt) in cases {
            assert_eq!(is_exempt(&Url::parse(url).unwrap(), list), exempt, "{url} in {list}");
        }
    }

    /// Answers one request for each connection with "hello"; gives the first lines of what was asked.
    fn proxy_once() -> (Url, std::thread::JoinHandle<Vec<String>>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let served = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = Vec::new();
            let mut reader = std::io::BufReader::new(stream.try_clone().unwrap());
            // Two requests over one connection.
            for _ in 0..2 {
                let head =
                    std::io::BufRead::lines(&mut reader).map_while(Result::ok).take_while(|line| !line.is_empty());
                lines.push(head.take(40).next().unwrap_or_default());
                for line in std::io::BufRead::lines(&mut reader).map_while(Result::ok) {
                    if line.is_empty() {
                        break;
                    }
                }
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
                std::io::Write::write_all(&mut stream, answer).unwrap();
            }
            lines
        });
        (Url::parse(&url).unwrap(), served)
    }

    #[test]
    fn a_cache_is_asked_by_full_names_over_one_connection() {
        let (proxy, served) = proxy_once();
        let agent = Route::Forward(proxy).agent(Agent::config_builder()).unwrap();
        for path in ["/debian/a", "/debian/b?c=d"] {
            // A name that nobody can resolve: only the proxy is asked.
            let answer = agent.get(format!("http://mirror.invalid:8080{path}")).call().unwrap();
            assert_eq!(answer.into_body().read_to_string().unwrap(), "hello");
        }
        let expected =
            ["/debian/a", "/debian/b?c=d"].map(|path| format!("GET http://mirror.invalid:8080{path} HTTP/1.1"));
        assert_eq!(served.join().unwrap(), expected);
    }
}
