//! Fetching from a server that does what it should, and from one that does not.

use std::path::Path;
use std::time::{Duration, Instant};

use debforge::diagnostics::{FaultKind, fault_of};
use debforge::store::Store;
use debforge::store::fetch::{Fetched, Request};
use sha2::{Digest, Sha256, Sha512};

use super::store;
use crate::harness::http::{Manner, Server};

/// A served directory with a file `file` of this many bytes that are not all the same.
fn served(size: usize) -> (tempfile::TempDir, Server, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..size).map(|at| (at * 7 + at / 251) as u8).collect();
    std::fs::write(dir.path().join("file"), &bytes).unwrap();
    let server = Server::new(dir.path());
    (dir, server, bytes)
}

fn get(store: &Store, request: &Request) -> anyhow::Result<Fetched> {
    store.fetch(request, &mut |_, _| {})
}

fn plain(url: String) -> Request {
    Request { url, ..Request::default() }
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn error(result: anyhow::Result<Fetched>) -> String {
    let fault = fault_of(&result.unwrap_err());
    format!("{}\n{}", fault.message, fault.hints.join("\n"))
}

#[test]
fn what_has_no_digest_is_fetched_each_time_whatever_the_server_says_of_times() {
    let (dir, server, bytes) = served(100_000);
    server.stand_still();
    let (_dir, store) = store();
    let request = plain(server.url("file"));
    let first = get(&store, &request).unwrap();
    assert_eq!(std::fs::read(&first.path).unwrap(), bytes);
    assert_eq!((first.size, &first.sha256, first.transferred), (100_000, &sha256(&bytes), true));
    assert_eq!(get(&store, &request).unwrap(), first);
    assert_eq!((server.count("file"), server.sent("file")), (2, 2));
    assert!(server.seen().iter().all(|seen| seen.fresh), "a cache might answer");

    let changed = bytes.iter().map(|byte| !byte).collect::<Vec<_>>();
    std::fs::write(dir.path().join("file"), &changed).unwrap();
    let third = get(&store, &request).unwrap();
    assert_eq!(std::fs::read(&third.path).unwrap(), changed);
    assert!(third.transferred);
    // The earlier contents are still there under their digest.
    assert_eq!(store.blob(&first.sha256), Some(first.path));
}

#[test]
fn a_cache_that_holds_another_version_is_passed() {
    let (dir, server, before) = served(1000);
    server.keep_what_was_sent();
    let (_dir, store) = store();
    get(&store, &Request { sha256: Some(sha256(&before)), ..plain(server.url("file")) }).unwrap();
    std::fs::write(dir.path().join("file"), "changed").unwrap();
    let fetched = get(&store, &Request { sha256: Some(sha256(b"changed")), ..plain(server.url("file")) }).unwrap();
    assert_eq!(std::fs::read(&fetched.path).unwrap(), b"changed");
    let fresh: Vec<bool> = server.seen().iter().map(|seen| seen.fresh).collect();
    assert_eq!(fresh, [false, false, true]);
}

#[test]
fn what_is_named_by_its_digest_is_not_even_asked_for_again() {
    let (_served, server, bytes) = served(1000);
    let (_dir, store) = store();
    let sha512 = Some(hex::encode(Sha512::digest(&bytes)).to_uppercase());
    let sha256 = Some(sha256(&bytes).to_uppercase());
    for (sha256, sha512) in [(sha256.clone(), None), (None, sha512.clone()), (sha256, sha512)] {
        get(&store, &Request { sha256, sha512, ..plain(server.url("file")) }).unwrap();
    }
    assert_eq!(server.count("file"), 1);
}

#[test]
fn another_digest_is_a_fault_that_shows_both() {
    let (_served, server, bytes) = served(1000);
    let (_dir, store) = store();
    let wrong = "0123456789abcdef".repeat(4);
    let said = error(get(&store, &Request { sha256: Some(wrong.clone()), ..plain(server.url("file")) }));
    assert!(said.contains(&wrong) && said.contains(&sha256(&bytes)), "{said}");
    assert_eq!(store.blob(&sha256(&bytes)), None);
    let wrong = wrong.repeat(2);
    let said = error(get(&store, &Request { sha512: Some(wrong.clone()), ..plain(server.url("file")) }));
    assert!(said.contains(&wrong), "{said}");
    let said = error(get(&store, &Request { sha256: Some("abc".into()), ..plain(server.url("file")) }));
    assert!(said.contains("not a sha256"), "{said}");
}

#[test]
fn a_transfer_that_breaks_off_goes_on_where_it_broke() {
    let (_served, server, bytes) = served(500_000);
    let (_dir, store) = store();
    server.set("file", Manner::Cut { after: 150_000, times: 2 });
    let mut seen = Vec::new();
    let request = Request { sha256: Some(sha256(&bytes)), ..plain(server.url("file")) };
    let fetched = store.fetch(&request, &mut |done, total| seen.push((done, total))).unwrap();
    assert_eq!(std::fs::read(fetched.path).unwrap(), bytes);
    let from: Vec<u64> = server.seen().iter().map(|seen| seen.from).collect();
    assert_eq!(from, [0, 150_000, 300_000]);
    assert!(seen.is_sorted(), "progress runs backwards");
    assert_eq!(seen.last(), Some(&(500_000, Some(500_000))));
}

#[test]
fn what_came_in_an_earlier_run_is_not_sent_again_unless_the_file_changed() {
    for changed in [false, true] {
        let (dir, server, mut bytes) = served(500_000);
        let (_dir, store) = store();
        server.set("file", Manner::Cut { after: 200_000, times: 1 });
        // Then the server has enough for a while.
        let digest = |bytes: &[u8]| Request { sha256: Some(sha256(bytes)), ..plain(server.url("file")) };
        let mut request = digest(&bytes);
        let server_gives_up = std::thread::scope(|scope| {
            scope.spawn(|| {
                while server.count("file") < 1 {
                    std::thread::sleep(Duration::from_millis(5));
                }
                server.set("file", Manner::Status { code: 404, times: 1 });
            });
            get(&store, &request)
        });
        assert!(server_gives_up.is_err());
        if changed {
            bytes = vec![9; 300_000];
            std::fs::write(dir.path().join("file"), &bytes).unwrap();
            request = digest(&bytes);
        }
        let later = Store::open(store.root()).unwrap();
        let fetched = get(&later, &request).unwrap();
        assert_eq!(std::fs::read(fetched.path).unwrap(), bytes);
        assert_eq!(server.seen().last().unwrap().from, 200_000);
        assert_eq!(server.seen().last().unwrap().status, if changed { 200 } else { 206 });
    }
}

#[test]
fn a_busy_server_is_asked_again_and_a_missing_file_is_not() {
    let (_served, server, bytes) = served(1000);
    let (_dir, store) = store();
    for code in [503, 429, 500] {
        server.set("file", Manner::Status { code, times: 2 });
        assert_eq!(std::fs::read(get(&store, &plain(server.url("file"))).unwrap().path).unwrap(), bytes);
    }
    server.set("file", Manner::Status { code: 503, times: 100 });
    let said = error(get(&store, &plain(server.url("file"))));
    assert!(said.contains("503"), "{said}");
    let said = error(get(&store, &plain(server.url("missing"))));
    assert!(said.contains("404") && said.contains("missing"), "{said}");
    assert_eq!(server.count("missing"), 1);
}

#[test]
fn a_server_that_falls_silent_is_asked_again() {
    let (_served, server, bytes) = served(300_000);
    let (_dir, store) = store();
    store.set_stall_timeout(Duration::from_millis(300));
    server.set("file", Manner::Stall { after: 100_000 });
    let began = Instant::now();
    let fetched = std::thread::scope(|scope| {
        scope.spawn(|| {
            while server.count("file") < 2 {
                std::thread::sleep(Duration::from_millis(5));
            }
            server.set("file", Manner::Cut { after: 300_000, times: 0 });
        });
        get(&store, &plain(server.url("file"))).unwrap()
    });
    assert_eq!(std::fs::read(fetched.path).unwrap(), bytes);
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_server_that_would_go_on_for_ever_is_given_up() {
    let (_served, server, _) = served(300_000);
    let (_dir, store) = store();
    store.set_stall_timeout(Duration::from_millis(200));
    server.set("file", Manner::Drip { milliseconds: 20 });
    let began = Instant::now();
    let said = error(get(&store, &plain(server.url("file"))));
    assert!(said.contains("less than 1024 bytes in a second"), "{said}");
    // With a digest transfers go on where they were, which is no way to go on for ever either.
    let checked = Request { sha256: Some("0".repeat(64)), ..plain(server.url("file")) };
    let said = error(get(&store, &checked));
    assert!(said.contains("less than 1024 bytes in a second"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[test]
fn more_bytes_than_there_may_be_are_not_taken() {
    let (served, server, bytes) = served(300_000);
    let (_dir, store) = store();
    let limited = |url: String, limit| Request { limit: Some(limit), ..plain(url) };
    let file = url::Url::from_file_path(served.path().join("file")).unwrap().to_string();
    for url in [server.url("file"), file] {
        let said = error(get(&store, &limited(url.clone(), 299_999)));
        assert!(said.contains("has more than the 299999 bytes that it may have"), "{said}");
        let fetched = get(&store, &limited(url, 300_000)).unwrap();
        assert!(std::fs::read(fetched.path).unwrap() == bytes);
    }
}

#[test]
fn nobody_listening_is_a_fault_that_names_the_url() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (_dir, store) = store();
    let said = error(get(&store, &plain(format!("http://127.0.0.1:{port}/a"))));
    assert!(said.contains(&format!("http://127.0.0.1:{port}/a")), "{said}");
}

#[test]
fn redirects_are_followed_without_the_credentials() {
    let (_there, there, bytes) = served(1000);
    let (_here, here, _) = served(10);
    here.require_login("user", "secret");
    let (_dir, store) = store();
    let credentials = Some(("user".to_owned(), "secret".to_owned()));
    let request = Request { credentials, ..plain(here.url("elsewhere")) };

    here.set("elsewhere", Manner::Redirect(there.url("file")));
    assert_eq!(std::fs::read(get(&store, &request).unwrap().path).unwrap(), bytes);

    // One that would let them in shows that they are not sent.
    there.require_login("user", "secret");
    here.set("elsewhere", Manner::Redirect(there.url("file")));
    std::fs::remove_dir_all(store.root().join("v1/validators")).unwrap();
    std::fs::create_dir(store.root().join("v1/validators")).unwrap();
    let said = error(get(&store, &request));
    assert!(said.contains("401") && !said.contains("secret"), "{said}");

    here.set("elsewhere", Manner::Redirect("/file".into()));
    assert_eq!(get(&store, &request).unwrap().size, 10);
}

#[test]
fn credentials_in_the_url_are_used_and_kept_out_of_everything() {
    let (_served, server, _) = served(1000);
    server.require_login("us er", "s/cret");
    let (dir, store) = store();
    let url = server.url("file").replace("http://", "http://us%20er:s%2Fcret@");
    get(&store, &plain(url.clone())).unwrap();
    let said = error(get(&store, &plain(url.replace("/file", "/missing"))));
    assert!(said.contains("404") && !said.contains("cret"), "{said}");
    let kept = std::process::Command::new("grep").args(["-r", "cret"]).arg(dir.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&kept.stdout), "");
    let said = error(get(&store, &plain(server.url("file").replace("http://", "http://a:wrong@"))));
    assert!(said.contains("401") && !said.contains("wrong"), "{said}");
}

#[test]
fn redirects_without_end_come_to_one() {
    let (_served, server, _) = served(1);
    server.set("file", Manner::Redirect("/file".into()));
    let (_dir, store) = store();
    let said = error(get(&store, &plain(server.url("file"))));
    assert!(said.contains("without end"), "{said}");
    server.set("file", Manner::Redirect("file:///etc/passwd".into()));
    let said = error(get(&store, &plain(server.url("file"))));
    assert!(said.contains("not HTTP"), "{said}");
}

#[test]
fn files_of_this_machine_are_taken_as_they_are() {
    let (dir, store) = store();
    let path = dir.path().join("a file");
    std::fs::write(&path, "text").unwrap();
    let url = format!("file://{}/a%20file", dir.path().display());
    let fetched = get(&store, &Request { sha256: Some(sha256(b"text")), ..plain(url.clone()) }).unwrap();
    assert_ne!(fetched.path, path);
    assert_eq!(std::fs::read(&fetched.path).unwrap(), b"text");
    assert!(!fetched.transferred);
    std::fs::write(&path, "other").unwrap();
    assert_eq!(get(&store, &plain(url)).unwrap().sha256, sha256(b"other"));
    let fault = fault_of(&get(&store, &plain("ftp://mirror.example/a".into())).unwrap_err());
    assert_eq!(fault.kind, FaultKind::Recipe);
}

#[test]
fn an_archive_that_the_server_calls_encoded_is_kept_as_it_is() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/a.tar.gz", listener.local_addr().unwrap());
    let body = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            std::io::Read::read_exact(&mut stream, &mut byte).unwrap();
            seen.push(byte[0]);
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", body.len());
        std::io::Write::write_all(&mut stream, &[head.as_bytes(), body].concat()).unwrap();
    });
    let (_dir, store) = store();
    assert_eq!(std::fs::read(get(&store, &plain(url)).unwrap().path).unwrap(), body);
    serving.join().unwrap();
}

#[test]
fn two_builds_that_want_the_same_file_fetch_it_once() {
    let (_served, server, bytes) = served(3_000_000);
    let (_dir, store) = store();
    let request = Request { sha256: Some(sha256(&bytes)), ..plain(server.url("file")) };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let store = Store::open(store.root()).unwrap();
                assert_eq!(get(&store, &request).unwrap().size, 3_000_000);
            });
        }
    });
    assert_eq!(server.sent("file"), 1);
    assert_eq!(left(store.root()), 0);
}

/// Files of unfinished transfers and their locks.
fn left(root: &Path) -> usize {
    ["partial", "locks"].iter().map(|dir| root.join("v1").join(dir).read_dir().unwrap().count()).sum()
}
