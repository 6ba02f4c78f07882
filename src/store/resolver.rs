//! Addresses of hosts, asked for once in a while instead of for every connection: a build opens
//! dozens at once, and a name server that drops one of as many questions costs seconds.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// How long an address is taken to hold.
const LIFETIME: Duration = Duration::from_secs(60);

/// The system's resolver, and what it said lately. One question at a time.
#[derive(Debug, Default)]
pub(super) struct Remembering {
    system: DefaultResolver,
    known: Mutex<HashMap<String, (Instant, Vec<SocketAddr>)>>,
}

impl Resolver for Remembering {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = format!("{}://{}", uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default());
        let host = format!("{host}:{}", uri.port_u16().unwrap_or_default());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, addresses)) = known.get(&host).filter(|(asked, _)| asked.elapsed() < LIFETIME) {
            let mut all = self.empty();
            addresses.iter().for_each(|address| all.push(*address));
            return Ok(all);
        }
        let addresses = self.system.resolve(uri, config, timeout)?;
        known.insert(host, (Instant::now(), addresses.iter().copied().collect()));
        Ok(addresses)
    }
}
