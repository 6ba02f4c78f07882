//! Everything fetched over HTTP: retried, resumed, bounded in time, kept by digest.

use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::Store;

/// What is to be fetched.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Request {
    /// http, https or file.
    pub url: String,
    /// Hex digits in any case; checked, and with it nothing is asked of the network when the store has the file.
    pub sha256: Option<String>,
    /// The same for SHA-512.
    pub sha512: Option<String>,
    /// Sent as Basic authentication; never part of an error, a log or a record.
    pub credentials: Option<(String, String)>,
}

/// A file of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Read-only file in the store.
    pub path: PathBuf,
    /// Of its contents, lower-case hex.
    pub sha256: String,
    /// In bytes.
    pub size: u64,
    /// Whether bytes came over the network now.
    pub transferred: bool,
}

impl Store {
    /// The file of a request, from the store where its digest is known or the server says it has not
    /// changed (ETag, Last-Modified), else over the network. `progress` is given bytes so far and, where known, in all.
    pub fn fetch(&self, _request: &Request, _progress: &mut dyn FnMut(u64, Option<u64>)) -> Result<Fetched> {
        anyhow::bail!("fetching is not there yet")
    }

    /// A fetched file by the digest of its contents, without any network.
    pub fn blob(&self, _sha256: &str) -> Option<PathBuf> {
        None
    }
}
