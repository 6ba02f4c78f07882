//! A repository handed out over HTTP on the loopback interface, which machines reach as 10.0.2.2.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result};

/// A server, until dropped.
pub(super) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

struct Shared {
    directory: PathBuf,
    ended: AtomicBool,
    files: AtomicU64,
    bytes: AtomicU64,
}

impl Server {
    /// Starts it.
    pub(super) fn start(directory: &Path) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("serving the repository")?;
        let address = listener.local_addr().context("serving the repository")?;
        let shared = Arc::new(Shared {
            directory: directory.to_owned(),
            ended: AtomicBool::new(false),
            files: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        let theirs = shared.clone();
        let listening = std::thread::spawn(move || {
            for connection in listener.incoming() {
                if theirs.ended.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(connection) = connection else { continue };
                let shared = theirs.clone();
                // It ends with the client's connection, which a machine takes with it.
                std::thread::spawn(move || {
                    if let Err(error) = shared.converse(&connection) {
                        tracing::debug!("a client of the repository: {error}");
                    }
                });
            }
        });
        Ok(Self { address, shared, listening: Some(listening) })
    }

    /// Its address as a machine sees it: QEMU's slirp leads 10.0.2.2 to this one's loopback interface.
    pub(super) fn url(&self) -> String {
        format!("http://10.0.2.2:{}", self.address.port())
    }

    /// How many files and bytes were fetched so far.
    pub(super) fn fetched(&self) -> (u64, u64) {
        (self.shared.files.load(Ordering::Relaxed), self.shared.bytes.load(Ordering::Relaxed))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // It waits for a connection.
        let _ = TcpStream::connect(self.address);
        if let Some(listening) = self.listening.take() {
            let _ = listening.join();
        }
    }
}

impl Shared {
    /// One request after the other, as HTTP/1.1 has it (RFC 9112): libcurl keeps its connections.
    fn converse(&self, connection: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(connection);
        loop {
            let mut request = String::new();
            if reader.read_line(&mut request)? == 0 || self.ended.load(Ordering::Relaxed) {
                return Ok(());
            }
            let mut last = false;
            loop {
                let mut header = String::new();
                if reader.read_line(&mut header)? == 0 {
                    return Ok(());
                }
                if header.trim().is_empty() {
                    break;
                }
                last |= header.trim().eq_ignore_ascii_case("connection: close");
            }
            let mut words = request.split_whitespace();
            let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            match self.open(method, path) {
                Ok((mut file, length)) => {
                    let mut connection = connection;
                    write!(connection, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")?;
                    if method == "GET" {
                        let sent = std::io::copy(&mut file, &mut connection)?;
                        self.files.fetch_add(1, Ordering::Relaxed);
                        self.bytes.fetch_add(sent, Ordering::Relaxed);
                    }
                }
                Err(status) => {
                    let mut connection = connection;
                    write!(connection, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")?;
                }
            }
            if last {
                return Ok(());
            }
        }
    }

    /// A file of the repository; else the status that says what is wrong.
    fn open(&self, method: &str, path: &str) -> Result<(File, u64), &'static str> {
        if !["GET", "HEAD"].contains(&method) {
            return Err("405 Method Not Allowed");
        }
        let path = Path::new(path.split('?').next().unwrap_or_default().trim_start_matches('/'));
        if !path.components().all(|part| matches!(part, Component::Normal(_))) {
            return Err("400 Bad Request");
        }
        let file = File::open(self.directory.join(path)).map_err(|_| "404 Not Found")?;
        match file.metadata() {
            Ok(stat) if stat.is_file() => Ok((file, stat.len())),
            _ => Err("404 Not Found"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn files_are_handed_out_over_one_connection_and_nothing_beside_them() {
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir(top.path().join("repo")).unwrap();
        std::fs::write(top.path().join("secret"), "no").unwrap();
        std::fs::write(top.path().join("repo/config"), "[core]").unwrap();
        let server = Server::start(&top.path().join("repo")).unwrap();
        let mut client = TcpStream::connect(server.address).unwrap();
        for path in ["/config", "//../secret", "/missing"] {
            write!(client, "GET {path} HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
        }
        write!(client, "HEAD /config HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        let statuses: Vec<&str> = text.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
        assert_eq!(statuses, ["200", "400", "404", "200"], "{text}");
        assert!(text.contains("\r\n\r\n[core]HTTP/1.1"), "{text}");
        assert_eq!(server.fetched(), (1, 6));
    }
}
