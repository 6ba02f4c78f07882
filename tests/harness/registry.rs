//! A small registry (distribution specification 1.1): blobs, manifests, Basic authentication.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

#[derive(Default)]
struct State {
    login: Option<String>,
    blobs: BTreeMap<String, Vec<u8>>,
    uploads: BTreeMap<String, Vec<u8>>,
    /// By name and tag or digest: media type and bytes.
    manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    sent: usize,
}

/// Serves on 127.0.0.1 until dropped.
pub struct Registry {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

impl Registry {
    /// An empty one.
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listening");
        let address = listener.local_addr().expect("the registry's address");
        let registry = Self { address, state: Arc::default(), stop: Arc::default() };
        let (state, stop) = (registry.state.clone(), registry.stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let state = state.clone();
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(&stream);
                    while let Some(request) = read(&mut reader) {
                        if answer(&stream, request, &state).is_none() {
                            return;
                        }
                    }
                });
            }
        });
        registry
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Asks for Basic authentication; `login` is `user:password` in base64.
    pub fn require_login(&self, login: &str) {
        self.state.lock().unwrap().login = Some(login.to_owned());
    }

    /// The bytes of a manifest, by tag or digest.
    pub fn manifest(&self, name: &str, reference: &str) -> Option<Vec<u8>> {
        let state = self.state.lock().unwrap();
        state.manifests.get(&(name.to_owned(), reference.to_owned())).map(|(_, bytes)| bytes.clone())
    }

    /// How many blobs it has been sent.
    pub fn sent(&self) -> usize {
        self.state.lock().unwrap().sent
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the listener, which then sees that it is to stop.
        let _ = TcpStream::connect(self.address);
    }
}

struct Request {
    method: String,
    path: String,
    query: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

fn read(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = Vec::new();
    if headers.get("transfer-encoding").is_some_and(|value| value == "chunked") {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let size = u64::from_str_radix(size.trim(), 16).ok()?;
            reader.take(size).read_to_end(&mut body).ok()?;
            reader.read_line(&mut String::new()).ok()?;
            if size == 0 {
                break;
            }
        }
    } else if let Some(length) = headers.get("content-length").and_then(|length| length.parse().ok()) {
        reader.take(length).read_to_end(&mut body).ok()?;
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Some(Request { method, path: path.to_owned(), query: query.replace("%3A", ":"), headers, body })
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

fn answer(stream: &TcpStream, request: Request, state: &Mutex<State>) -> Option<()> {
    let mut state = state.lock().unwrap();
    let allowed = state.login.as_ref().map(|login| format!("Basic {login}"));
    if allowed.is_some() && request.headers.get("authorization") != allowed.as_ref() {
        return send(stream, "401 Unauthorized", "WWW-Authenticate: Basic realm=\"test\"\r\n", b"", true);
    }
    let body = request.method != "HEAD";
    let path = request.path.strip_prefix("/v2/")?.to_owned();
    if path.is_empty() {
        return send(stream, "200 OK", "", b"{}", body);
    }
    let asked = (request.method.as_str(), path.as_str());
    if let Some((name, id)) = path.split_once("/blobs/uploads/") {
        let place = |id: &str| format!("Location: /v2/{name}/blobs/uploads/{id}\r\nRange: 0-0\r\n");
        if request.method == "POST" {
            let id = format!("upload-{}", state.uploads.len());
            state.uploads.insert(id.clone(), Vec::new());
            return send(stream, "202 Accepted", &place(&id), b"", true);
        }
        state.uploads.get_mut(id)?.extend_from_slice(&request.body);
        if request.method == "PATCH" {
            return send(stream, "202 Accepted", &place(id), b"", true);
        }
        let bytes = std::mem::take(state.uploads.get_mut(id)?);
        let found = digest(&bytes);
        if !request.query.contains(&found) {
            return send(stream, "400 Bad Request", "", b"", true);
        }
        state.sent += 1;
        state.blobs.insert(found.clone(), bytes);
        return send(stream, "201 Created", &format!("Docker-Content-Digest: {found}\r\n"), b"", true);
    }
    if let Some((_, wanted)) = path.split_once("/blobs/") {
        return match state.blobs.get(wanted) {
            Some(bytes) => send(stream, "200 OK", &format!("Docker-Content-Digest: {wanted}\r\n"), bytes, body),
            None => send(stream, "404 Not Found", "", b"", body),
        };
    }
    let (name, reference) = path.split_once("/manifests/")?;
    if asked.0 == "PUT" {
        let kind = request.headers.get("content-type").cloned().unwrap_or_default();
        let found = digest(&request.body);
        for reference in [reference, found.as_str()] {
            let key = (name.to_owned(), reference.to_owned());
            state.manifests.insert(key, (kind.clone(), request.body.clone()));
        }
        return send(stream, "201 Created", &format!("Docker-Content-Digest: {found}\r\n"), b"", true);
    }
    match state.manifests.get(&(name.to_owned(), reference.to_owned())) {
        Some((kind, bytes)) => {
            let more = format!("Content-Type: {kind}\r\nDocker-Content-Digest: {}\r\n", digest(bytes));
            send(stream, "200 OK", &more, bytes, body)
        }
        None => send(stream, "404 Not Found", "", b"", body),
    }
}

fn send(mut stream: &TcpStream, status: &str, more: &str, bytes: &[u8], body: bool) -> Option<()> {
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{more}\r\n", bytes.len()).ok()?;
    if body { stream.write_all(bytes).ok() } else { Some(()) }
}
