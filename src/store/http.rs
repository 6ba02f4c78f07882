//! One HTTP exchange: connections, proxies, redirects, and what its outcome means.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow};
use serde::{Deserialize, Serialize};
use ureq::Agent;
use ureq::http::{HeaderMap, Response, header};
use ureq::tls::{RootCerts, TlsConfig};
use url::Url;

use super::patience::{Pieces, unless_cancelled};
use super::proxy::Route;
use crate::debian::apt_proxy::{AptProxies, DIRECT};
use crate::debian::logins;
use crate::diagnostics::{Fault, Remedy};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest silence in an answer, unless set otherwise; there is no limit on how long it takes in all.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 10;
/// The longest that a server may have us wait.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// What tells one version of a file from another, by the server's word: good enough to go on with a transfer
/// whose whole is checked, never to take a file for unchanged. Most servers make them of a file's time and size.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Validators {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_modified: Option<String>,
}

impl Validators {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Self { etag: text(header::ETAG), last_modified: text(header::LAST_MODIFIED) }
    }

    /// One that promises equal bytes, as `If-Range` wants it (RFC 9110, 13.1.5).
    pub(super) fn strong(&self) -> Option<&str> {
        self.etag.as_deref().filter(|etag| !etag.starts_with("W/")).or(self.last_modified.as_deref())
    }
}

/// A request, ready to be sent.
pub(super) struct Asked<'a> {
    pub url: &'a Url,
    pub credentials: Option<&'a (String, String)>,
    /// Whether caches on the way have to ask the server itself.
    pub fresh: bool,
    /// Bytes that are there already, and of which file.
    pub resume: Option<(u64, &'a Validators)>,
    /// Whether https may redirect to http.
    pub downgrade: bool,
    /// Whether it is for a file of a package repository.
    pub repository: bool,
    /// apt's settings of proxies that go before all others.
    pub proxies: &'a [(String, String)],
}

/// What the server says.
pub(super) enum Answer {
    /// The part that was there is of no use.
    Unresumable,
    /// The file from the offset `from` on.
    Body { reader: Pieces, from: u64, total: Option<u64>, validators: Validators },
}

/// Why there was no answer.
pub(super) enum Failure {
    /// Trying again may help.
    Transient { error: anyhow::Error, pause: Option<Duration> },
    /// The whole file came, and is not the one that was asked for.
    Wrong(anyhow::Error),
    /// It will not.
    Final(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Final(error)
    }
}

/// Connections to servers, kept open between requests.
#[derive(Debug, Default)]
pub(super) struct Fetcher {
    agents: Mutex<HashMap<Route, Agent>>,
    stall: OnceLock<Duration>,
}

impl Fetcher {
    /// Sets the longest silence in an answer; has an effect only before the first request.
    pub(super) fn set_stall_timeout(&self, timeout: Duration) {
        let _ = self.stall.set(timeout);
    }

    /// The longest silence in an answer.
    pub(super) fn stall_timeout(&self) -> Duration {
        *self.stall.get_or_init(|| STALL_TIMEOUT)
    }

    fn agent(&self, route: &Route) -> Result<Agent> {
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(route) {
            return Ok(agent.clone());
        }
        let stall = self.stall_timeout();
        // The system's certificates, or those that SSL_CERT_FILE names.
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("debforge/", env!("CARGO_PKG_VERSION")))
            // Compressed in transit, neither digests nor offsets would be those of the file.
            .accept_encoding("identity")
            // As many as are used at once, or they would be opened again and again.
            .max_idle_connections(32)
            .max_idle_connections_per_host(16)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(2 * stall))
            .timeout_per_read(Some(stall))
            .timeout_per_write(Some(stall));
        let agent = route.agent(config)?;
        agents.insert(route.clone(), agent.clone());
        Ok(agent)
    }

    /// Sends a request and follows redirects. Credentials go to the host they are meant for only.
    pub(super) fn ask(&self, asked: &Asked<'_>) -> Result<Answer, Failure> {
        let mut url = asked.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(asked, &url)?;
            let status = response.status().as_u16();
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return judge(asked, &url, response);
            }
            url = redirected(asked, &url, response.headers())?;
        }
        Err(Failure::Final(Fault::failed(format!("{} redirects without end", asked.url)).into()))
    }

    fn send(&self, asked: &Asked<'_>, url: &Url) -> Result<Response<ureq::Body>, Failure> {
        let otherwise = |url: &Url| if asked.repository { AptProxies::of_host().to(url) } else { Ok(None) };
        let environment = |name: &str| std::env::var(name).ok();
        let route = match AptProxies::of(asked.proxies).set_for(url)? {
            // As to apt, before which only `no_proxy` goes.
            Some(proxy) => {
                let exempt = |name: &str| name.eq_ignore_ascii_case("no_proxy").then(|| environment(name)).flatten();
                Route::to(url, &exempt, &|_| Ok(Some(proxy.clone()).filter(|proxy| proxy != DIRECT)))?
            }
            None => Route::to(url, &environment, &otherwise)?,
        };
        let mut request = self.agent(&route)?.get(url.as_str());
        if let Some((user, password)) = route.login() {
            let login = format!("{}:{}", percent_decode(user), percent_decode(password));
            request = request.header(header::PROXY_AUTHORIZATION, format!("Basic {}", base64(&login)));
        }
        let login = match asked.credentials {
            Some(login) => Some(login.clone()),
            None => logins::of_machine(asked.url, asked.repository)?,
        };
        if let Some((user, password)) = login.filter(|_| same_host(asked.url, url)) {
            request = request.header(header::AUTHORIZATION, format!("Basic {}", base64(&format!("{user}:{password}"))));
        }
        if let Some((offset, validator)) = asked.resume.and_then(|(offset, v)| Some((offset, v.strong()?))) {
            request = request.header(header::RANGE, format!("bytes={offset}-"));
            request = request.header(header::IF_RANGE, validator);
        }
        if asked.fresh {
            request = request.header(header::CACHE_CONTROL, "no-cache").header(header::PRAGMA, "no-cache");
        }
        unless_cancelled(move || request.call())?.map_err(|error| match error {
            ureq::Error::Io(error) => Failure::Transient { error: error.into(), pause: None },
            ureq::Error::Timeout(_)
            | ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed
            | ureq::Error::Protocol(_) => Failure::Transient { error: anyhow!(error), pause: None },
            error => Failure::Final(anyhow!(error).context(format!("fetching {}", asked.url))),
        })
    }
}

fn redirected(asked: &Asked<'_>, from: &Url, headers: &HeaderMap) -> Result<Url, Failure> {
    let refuse = |why: String| Failure::Final(Fault::failed(format!("{} {why}", asked.url)).into());
    let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or_else(|| refuse("redirects to nowhere".into()))?;
    let mut to = from.join(location).map_err(|error| refuse(format!("redirects to what is no URL: {error}")))?;
    let _ = to.set_username("");
    let _ = to.set_password(None);
    if !matches!(to.scheme(), "http" | "https") {
        return Err(refuse(format!("redirects to {}, which is not HTTP", target(&to))));
    }
    if from.scheme() == "https" && to.scheme() == "http" && !asked.downgrade {
        return Err(refuse(format!("redirects to {}, which anybody on the way could change", target(&to))));
    }
    Ok(to)
}

/// An address that a server has made up, for people: its query may be what lets in.
fn target(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(url.query().map(|_| "…"));
    shown.to_string().replace("%E2%80%A6", "…")
}

fn same_host(a: &Url, b: &Url) -> bool {
    (a.scheme(), a.host_str(), a.port_or_known_default()) == (b.scheme(), b.host_str(), b.port_or_known_default())
}

fn judge(asked: &Asked<'_>, url: &Url, response: Response<ureq::Body>) -> Result<Answer, Failure> {
    let status = response.status();
    let headers = response.headers();
    let number = |name| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    match status.as_u16() {
        200 | 203 => {
            let (total, validators) = (number(header::CONTENT_LENGTH), Validators::of(headers));
            let reader = Pieces::of(response.into_body().into_reader())?;
            Ok(Answer::Body { reader, from: 0, total, validators })
        }
        206 => {
            let range = headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
            match (range.and_then(content_range), asked.resume) {
                (Some((start, total)), Some((offset, _))) if start == offset => {
                    let validators = Validators::of(headers);
                    let reader = Pieces::of(response.into_body().into_reader())?;
                    Ok(Answer::Body { reader, from: offset, total, validators })
                }
                _ => Ok(Answer::Unresumable),
            }
        }
        416 if asked.resume.is_some() => Ok(Answer::Unresumable),
        408 | 425 | 429 | 500..=599 => {
            let pause = number(header::RETRY_AFTER).map(|seconds| Duration::from_secs(seconds).min(MAX_PAUSE));
            Err(Failure::Transient { error: anyhow!("the server answers {status}"), pause })
        }
        code => {
            let mut fault = Fault::failed(format!("{} could not be fetched: the server answers {status}", asked.url));
            if url != asked.url {
                fault = fault.hint(format!("it redirects to {}", target(url)));
            }
            // Some object stores say 403 for what is not there.
            if matches!(code, 403 | 404 | 410) {
                fault = fault.remedy(Remedy::LookElsewhere);
            }
            if matches!(code, 401 | 403 | 407) && asked.credentials.is_none() {
                fault = fault.hint(format!(
                    "it may want credentials: `credentials` in the recipe, or a login in the file that `{}` names",
                    logins::VARIABLE
                ));
            }
            Err(Failure::Final(fault.into()))
        }
    }
}

/// `bytes 200-999/1000` as the first offset and the length in all (RFC 9110, 14.4).
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.trim().parse().ok()?, total.trim().parse().ok()))
}

/// RFC 3986, section 2.1.
pub(super) fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let code = (byte == b'%' && tail.len() >= 2)
            .then(|| std::str::from_utf8(&tail[..2]).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok()))
            .flatten();
        bytes.push(code.unwrap_or(byte));
        rest = if code.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// RFC 4648, section 4.
fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(group >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= chunk.len() { digit.into() } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads_as_the_rfc_says() {
        let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (text, encoded) in cases {
            assert_eq!(base64(text), encoded);
        }
    }

    #[test]
    fn content_ranges_are_read() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(content_range("lines 5-9/10"), None);
    }

    #[test]
    fn weak_tags_are_no_ground_to_resume() {
        let weak = Validators { etag: Some("W/\"a\"".into()), last_modified: None };
        assert_eq!(weak.strong(), None);
    }
}
