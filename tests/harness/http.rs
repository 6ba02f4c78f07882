//! A small HTTP server for what a mirror does and what it should not.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// How one path is served from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manner {
    /// This status with an empty body, this many times; then as usual.
    Status {
        /// 503, 404, …
        code: u16,
        /// How often.
        times: usize,
    },
    /// The connection breaks after so many bytes of the body, this many times; then as usual.
    Cut {
        /// Bytes of the body that are sent.
        after: usize,
        /// How often.
        times: usize,
    },
    /// Headers and so many bytes of the body, then nothing until the server ends.
    Stall {
        /// Bytes of the body that are sent.
        after: usize,
    },
    /// Headers and one byte of the body after the other, each after so many milliseconds.
    Drip {
        /// Between two bytes.
        milliseconds: u64,
    },
    /// A redirection to another path or address.
    Redirect(String),
}

/// A request that was answered.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Path without its leading slash.
    pub path: String,
    /// Status of the answer.
    pub status: u16,
    /// First byte that was asked for.
    pub from: u64,
    /// Whether caches on the way were told to ask the server itself.
    pub fresh: bool,
}

/// What a server that lies calls every version of a file.
const STILL: (&str, &str) = ("\"5f-1\"", "Mon, 02 Nov 2020 10:00:00 GMT");

/// Something to be done once.
type Deed = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    deeds: BTreeMap<String, Deed>,
    manners: BTreeMap<String, Manner>,
    login: Option<String>,
    still: bool,
    cache: Option<BTreeMap<String, Vec<u8>>>,
    seen: Vec<Seen>,
}

/// Serves a directory on 127.0.0.1 until dropped.
pub struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    /// Serves `dir`.
    pub fn new(dir: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listening");
        let address = listener.local_addr().expect("the server's address");
        let server = Self { address, state: Arc::default(), stop: Arc::default() };
        let (dir, state, stop) = (dir.to_owned(), server.state.clone(), server.stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let (dir, state, stop) = (dir.clone(), state.clone(), stop.clone());
                std::thread::spawn(move || serve(&stream, &dir, &state, &stop));
            }
        });
        server
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// Serves a path in another manner.
    pub fn set(&self, path: &str, manner: Manner) {
        self.state.lock().unwrap().manners.insert(path.into(), manner);
    }

    /// Does something when a path is asked for next, after its file was read: what comes behind it is
    /// of another time.
    pub fn then(&self, path: &str, deed: impl FnOnce() + Send + 'static) {
        self.state.lock().unwrap().deeds.insert(path.into(), Box::new(deed));
    }

    /// Lets the clock stand still: all versions of a file have one date and one tag, and to a request that asks for
    /// what has changed the answer is that nothing has.
    pub fn stand_still(&self) {
        self.state.lock().unwrap().still = true;
    }

    /// Keeps what it has once sent, as a cache on the way does, for all who do not ask for the server itself.
    pub fn keep_what_was_sent(&self) {
        self.state.lock().unwrap().cache = Some(BTreeMap::new());
    }

    /// Asks for Basic authentication.
    pub fn require_login(&self, user: &str, password: &str) {
        self.state.lock().unwrap().login = Some(base64(format!("{user}:{password}").as_bytes()));
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.state.lock().unwrap().seen.clear();
    }

    /// How often a path was asked for.
    pub fn count(&self, path: &str) -> usize {
        self.seen().iter().filter(|seen| seen.path == path).count()
    }

    /// How often a path's bytes were sent, in whole or in part.
    pub fn sent(&self, path: &str) -> usize {
        self.seen().iter().filter(|seen| seen.path == path && matches!(seen.status, 200 | 206)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the listener, which then sees that it is to stop.
        let _ = TcpStream::connect(self.address);
    }
}

struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
}

fn serve(stream: &TcpStream, dir: &Path, state: &Mutex<State>, stop: &AtomicBool) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader) {
        if answer(stream, &request, dir, state, stop).is_none() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Request> {
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
    // As a proxy the server is asked by full names, and answers from its directory.
    let target = match target.strip_prefix("http://") {
        Some(rest) => rest.split_once('/').map_or("", |(_, path)| path),
        None => &target,
    };
    let path = target.split('?').next().unwrap_or("").trim_start_matches('/').to_owned();
    Some(Request { method, path: unescape(&path), headers })
}

/// Answers one request; `None` where the connection is not to be used any more.
fn answer(
    mut stream: &TcpStream,
    request: &Request,
    dir: &Path,
    state: &Mutex<State>,
    stop: &AtomicBool,
) -> Option<()> {
    let from =
        request.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
    let fresh = request.headers.get("cache-control").is_some_and(|value| value.contains("no-cache"));
    let note = |status: u16| {
        let seen = Seen { path: request.path.clone(), status, from: from.unwrap_or(0), fresh };
        state.lock().unwrap().seen.push(seen);
    };
    let (login, manner, still) = {
        let mut state = state.lock().unwrap();
        (state.login.clone(), take_manner(&mut state.manners, &request.path), state.still)
    };
    if login.is_some_and(|login| request.headers.get("authorization") != Some(&format!("Basic {login}"))) {
        note(401);
        return head(stream, "401 Unauthorized", 0, "WWW-Authenticate: Basic realm=\"test\"\r\n");
    }
    match &manner {
        Some(Manner::Status { code, .. }) => {
            note(*code);
            return head(stream, &format!("{code} As Asked"), 0, "Retry-After: 0\r\n");
        }
        Some(Manner::Redirect(to)) => {
            note(302);
            return head(stream, "302 Found", 0, &format!("Location: {to}\r\n"));
        }
        _ => {}
    }
    let Some((mut file, modified, mut size)) = open(dir, &request.path) else {
        note(404);
        return head(stream, "404 Not Found", 0, "");
    };
    let tag = match still {
        true => STILL.0.to_owned(),
        false => tag_of(modified, size),
    };
    let asked_before = ["if-none-match", "if-modified-since"].map(|name| request.headers.contains_key(name));
    let same = match still {
        true => asked_before.contains(&true),
        false => request.headers.get("if-none-match").is_some_and(|known| known.contains(&tag)),
    };
    if same {
        note(304);
        return head(stream, "304 Not Modified", 0, &format!("ETag: {tag}\r\n"));
    }
    let mut body = Vec::new();
    file.read_to_end(&mut body).ok()?;
    if let Some(cache) = &mut state.lock().unwrap().cache {
        if fresh {
            cache.remove(&request.path);
        }
        body = cache.entry(request.path.clone()).or_insert(body).clone();
        size = body.len() as u64;
    }
    let deed = state.lock().unwrap().deeds.remove(&request.path);
    if let Some(deed) = deed {
        deed();
    }
    // A range of another version of the file is answered with the whole of this one.
    let valid = request.headers.get("if-range").is_none_or(|known| *known == tag);
    let start = from.filter(|from| valid && *from < size).unwrap_or(0);
    let body = &body[usize::try_from(start).ok()?..];
    let mut more = format!("ETag: {tag}\r\nAccept-Ranges: bytes\r\n");
    if still {
        more.push_str(&format!("Last-Modified: {}\r\n", STILL.1));
    }
    let status = if start > 0 {
        more.push_str(&format!("Content-Range: bytes {start}-{}/{size}\r\n", size - 1));
        "206 Partial Content"
    } else {
        "200 OK"
    };
    note(if start > 0 { 206 } else { 200 });
    head(stream, status, body.len(), &more)?;
    if request.method == "HEAD" {
        return Some(());
    }
    match manner {
        Some(Manner::Cut { after, .. }) => {
            stream.write_all(&body[..after.min(body.len())]).ok()?;
            None
        }
        Some(Manner::Stall { after }) => {
            stream.write_all(&body[..after.min(body.len())]).ok()?;
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(50));
            }
            None
        }
        Some(Manner::Drip { milliseconds }) => {
            for byte in body {
                if stop.load(Ordering::Relaxed) {
                    return None;
                }
                std::thread::sleep(Duration::from_millis(milliseconds));
                stream.write_all(&[*byte]).ok()?;
            }
            Some(())
        }
        _ => stream.write_all(body).ok(),
    }
}

fn tag_of(modified: SystemTime, size: u64) -> String {
    format!("\"{}-{size}\"", modified.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_nanos()))
}

fn head(mut stream: &TcpStream, status: &str, length: usize, more: &str) -> Option<()> {
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{more}\r\n").ok()
}

fn open(dir: &Path, path: &str) -> Option<(fs::File, SystemTime, u64)> {
    let path = PathBuf::from(path);
    if path.components().any(|part| !matches!(part, Component::Normal(_))) {
        return None;
    }
    let file = fs::File::open(dir.join(path)).ok()?;
    let stat = file.metadata().ok().filter(fs::Metadata::is_file)?;
    Some((file, stat.modified().ok()?, stat.len()))
}

/// The manner for a path; what is limited in number is used up by one.
fn take_manner(manners: &mut BTreeMap<String, Manner>, path: &str) -> Option<Manner> {
    let manner = manners.get_mut(path)?;
    let taken = manner.clone();
    if let Manner::Status { times, .. } | Manner::Cut { times, .. } = manner {
        if *times == 0 {
            manners.remove(path);
            return None;
        }
        *times -= 1;
    }
    Some(taken)
}

fn unescape(path: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        let hex = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        match byte {
            b'%' => match (hex(bytes.next()), hex(bytes.next())) {
                (Some(high), Some(low)) => out.push(u8::try_from(high * 16 + low).unwrap_or(b'?')),
                _ => out.push(b'?'),
            },
            byte => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = (group >> (18 - 6 * place)) & 63;
            out.push(if place <= chunk.len() { char::from(DIGITS[digit as usize]) } else { '=' });
        }
    }
    out
}

#[test]
fn logins_are_encoded_as_browsers_do() {
    assert_eq!(base64(b"user:pass"), "dXNlcjpwYXNz");
    assert_eq!(base64(b"a:b1"), "YTpiMQ==");
    assert_eq!(base64(b"a:b12"), "YTpiMTI=");
}
