//! How repositories are fetched: by whose settings, over which proxies, with whose logins.

use std::fs;

use sha2::{Digest, Sha256};

use super::apt::{Case, DATE, SIGNED};
use crate::harness::repository::Deb;

/// A recipe whose root has these files when `two` is installed from the repository, which the root knows by
/// /etc/apt/sources.list.
fn with_files(case: &Case, uri: &str, files: &[(&str, &str)]) {
    let mut text = String::new();
    let list = format!("deb [signed-by=/etc/apt/key.asc] {uri} stable main\n");
    case.project.write("root/etc/apt/sources.list", list);
    case.project.write("root/etc/apt/key.asc", case.repository.public_key());
    for (path, contents) in files {
        case.project.write(&format!("root/{path}"), contents);
    }
    text.push_str("  - {action: overlay, source: root}\n  - action: apt\n    packages: [two]\n");
    case.project.set_actions(&format!("{text}  - action: pack\n    file: out.tar\n    compression: none\n"));
}

#[test]
fn a_mirror_without_its_lists_by_digest_gives_them_by_name() {
    let case = case!();
    let dist = case.project.path("repository/dists/stable");
    let release = fs::read_to_string(dist.join("Release")).unwrap();
    // It says that they are there, and they are not.
    case.repository.sign_release(&release.replace("Components:", "Acquire-By-Hash: yes\nComponents:"));
    case.recipe("[two]", SIGNED, "");
    case.build().success();
    assert_eq!(case.text("usr/share/two").as_deref(), Some("two\n"));
    assert!(case.server.seen().iter().any(|seen| seen.path.contains("/by-hash/")), "asked by digest first");
    case.server.forget();
    fs::remove_dir_all(case.project.store()).expect("removing the store");
    case.recipe("[two]", &format!("{SIGNED}\nby-hash: false"), "");
    case.build().success();
    assert!(!case.server.seen().iter().any(|seen| seen.path.contains("/by-hash/")), "asked by name");
    assert!(case.text("etc/apt/sources.list.d/tests.sources").expect("the repository").contains("By-Hash: no\n"));
}

#[test]
fn a_directory_with_a_list_alone_is_a_repository_where_it_is_trusted() {
    let case = case!();
    let flat = case.project.path("repository/flat");
    let list = fs::read_to_string(case.project.path("repository/dists/stable/main/binary-amd64/Packages")).unwrap();
    fs::create_dir(&flat).unwrap();
    fs::rename(case.project.path("repository/pool"), flat.join("pool")).unwrap();
    fs::write(flat.join("Packages.zst"), zstd::encode_all(list.as_bytes(), 1).unwrap()).unwrap();
    let recipe = |packages: &str, more: &str| {
        case.project.set_actions(&format!(
            "  - action: apt\n    packages: {packages}\n    repositories:\n      - {{name: flat, uris: ['{}'], suites: [./]{more}}}\n  - action: pack\n    file: out.tar\n    compression: none\n",
            case.server.url("flat")
        ));
    };
    recipe("[one]", "");
    case.build().code(1).says("has no Release file").says("`trusted: true`");
    recipe("[one=1.0]", ", trusted: true");
    case.build().success();
    assert_eq!(case.text("usr/share/one").as_deref(), Some("1.0\n"));
    // What it has is its state: unchanged nothing runs, changed the step runs.
    case.build().success();
    assert_eq!(case.server.sent("flat/pool/one_1.0_all.deb"), 1);
    let without: String =
        list.split_inclusive("\n\n").filter(|entry| !entry.starts_with("Package: one\nVersion: 1.0\n")).collect();
    fs::write(flat.join("Packages.zst"), zstd::encode_all(without.as_bytes(), 1).unwrap()).unwrap();
    case.build().code(1).says("Version '1.0' for 'one' was not found");
    fs::remove_file(flat.join("Packages.zst")).unwrap();
    case.build().code(1).says("could not get the Release file of");
}

#[test]
fn an_expired_release_file_is_refused_unless_asked_for() {
    let case = case!();
    case.repository.publish(&format!("{DATE}\nValid-Until: Tue, 03 Nov 2020 10:00:00 UTC"));
    case.recipe("[two]", SIGNED, "");
    case.build().code(1).says("has expired on 2020-11-03").says("check-valid-until");
    case.recipe("[two]", "signed-by: key.asc\ncheck-valid-until: false", "");
    case.build().success();
}

#[test]
fn a_release_file_of_the_future_or_of_another_suite_is_refused() {
    let case = case!();
    case.recipe("[two]", SIGNED, "");
    case.repository.publish("Sat, 03 Nov 2170 10:00:00 UTC");
    case.build().code(1).says("is of 2170-11-03, which is still to come").says("clock");
    case.repository.publish(DATE);
    let release = fs::read_to_string(case.project.path("repository/dists/stable/Release")).unwrap();
    // What a mirror gives in the place of another suite is signed by the same archive.
    let old = release.replace("Suite: stable", "Suite: oldstable").replace("Codename: stable", "Codename: bookworm");
    case.repository.sign_release(&old);
    case.build().code(1).says("calls itself `oldstable` and `bookworm`");
    case.repository.sign_release(&old.replace("oldstable", "stable"));
    case.build().success();
}

#[test]
fn an_older_release_file_leaves_the_newer_one_in_force() {
    let mut case = case!();
    case.recipe("[two]", SIGNED, "");
    let dist = case.project.path("repository/dists/stable");
    let kept = case.project.path("older");
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        let copied = std::process::Command::new("cp").arg("-aT").args([from, to]).status().unwrap();
        assert!(copied.success());
    };
    copy(&dist, &kept);
    case.repository.add(Deb::new("two", "3.0").file("usr/share/two", 0o644, "three\n"));
    case.repository.publish("Tue, 03 Nov 2020 10:00:00 UTC");
    case.build().success();
    assert_eq!(case.text("usr/share/two").as_deref(), Some("three\n"));
    // The mirror falls back, or somebody on the way plays an old state.
    fs::remove_dir_all(&dist).unwrap();
    copy(&kept, &dist);
    let said =
        "went back to its state of 2020-11-02 10:00 (UTC): the one of 2020-11-03 10:00, seen before, stays in force";
    case.build().success().says(said);
    case.project.build(["--no-cache"]).success().says(said);
    assert_eq!(case.text("usr/share/two").as_deref(), Some("three\n"));
    assert!(case.project.run(["plan", "recipe.yaml"]).success().stdout.contains("went back to its state"));
    // What was never fetched of it cannot be had.
    case.recipe("[one]", SIGNED, "");
    fs::remove_file(case.project.path("repository/pool/two_3.0_all.deb")).unwrap();
    for blob in walkdir::WalkDir::new(case.project.path("store")).into_iter().filter_map(Result::ok) {
        if blob.file_type().is_file() && fs::read(blob.path()).is_ok_and(|bytes| bytes.starts_with(b"!<arch>")) {
            fs::remove_file(blob.path()).unwrap();
        }
    }
    case.build().code(1).says("could not get the package two 3.0");
    // Whatever the store has lost, it stays in force, and its lists are not what the mirror has.
    case.project.run(["store", "prune", "--to", "0"]).success();
    case.build().code(1).says(said).says("could not get the package lists");
    // Who wants an old state gets it.
    case.recipe("[two]", "signed-by: key.asc\ncheck-valid-until: false", "");
    case.build().success().says_nothing_of("went back");
    assert_eq!(case.text("usr/share/two").as_deref(), Some("two\n"));
}

#[test]
fn what_would_fill_disk_or_memory_is_refused() {
    let case = case!();
    case.recipe("[two]", SIGNED, "");
    let dist = case.project.path("repository/dists/stable");
    let release = fs::read_to_string(dist.join("Release")).unwrap();
    fs::write(dist.join("InRelease"), " \n".repeat(6_000_000)).unwrap();
    case.build().code(1).says("that it may have");
    // A list that is larger than the Release file says, compressed to next to nothing.
    let list = dist.join("main/binary-amd64/Packages");
    let mut text = fs::read(&list).unwrap();
    text.resize(64 << 20, b'\n');
    let packed = zstd::encode_all(text.as_slice(), 3).unwrap();
    fs::write(list.with_extension("zst"), &packed).unwrap();
    let listed = format!(" {} {} main/binary-amd64/Packages.zst\n", hex::encode(Sha256::digest(&packed)), packed.len());
    case.repository.sign_release(&(release.clone() + &listed));
    case.build().code(1).says("it unpacks to more than the").says("package lists");
    // And one that is larger than it says itself.
    let wrong = listed.replace(&format!(" {} ", packed.len()), &format!(" {} ", packed.len() - 1));
    case.repository.sign_release(&(release + &wrong));
    case.build().code(1).says("that it may have");
}

#[test]
fn what_the_roots_apt_is_told_of_fetching_holds() {
    let case = case!();
    let conf = "etc/apt/apt.conf.d/90own";
    let uri = case.server.url("");
    case.repository.publish(&format!("{DATE}\nValid-Until: Tue, 03 Nov 2020 10:00:00 UTC\nAcquire-By-Hash: yes"));
    with_files(&case, &uri, &[]);
    case.build().code(1).says("has expired on 2020-11-03").says("of the root");
    with_files(&case, &uri, &[(conf, "Acquire::Check-Valid-Until \"false\";\n")]);
    case.build().success();
    assert!(case.server.seen().iter().any(|seen| seen.path.contains("/by-hash/")), "asked by digest");
    case.server.forget();
    let text = "Acquire { Check-Valid-Until no; By-Hash no; http::Dl-Limit 70; };\n";
    with_files(&case, &uri, &[(conf, text)]);
    // What the store has it does not ask for.
    fs::remove_dir_all(case.project.store()).expect("removing the store");
    case.build().success().says("`acquire::http::dl-limit`, which has no effect");
    assert!(!case.server.seen().iter().any(|seen| seen.path.contains("/by-hash/")), "asked by name");
    with_files(&case, &uri, &[(conf, "Acquire::Max-ValidTime \"1\";\n")]);
    case.build().code(2).says("sets `acquire::max-validtime`").says("cannot be met");
    with_files(&case, &uri, &[(conf, "#include \"/etc/apt/more\";\n")]);
    case.build().code(2).says("/etc/apt/apt.conf.d/90own of the root cannot be read: it includes another file");
    // A file that apt does not read.
    with_files(&case, &uri, &[(conf, text), ("etc/apt/apt.conf.d/91own.bak", "Acquire::Max-ValidTime \"1\";\n")]);
    case.build().success();
}

#[test]
fn what_of_the_roots_apt_cannot_be_met_is_said_and_the_rest_is_no_matter() {
    let case = case!();
    let uri = case.server.url("");
    for (setting, said) in [
        ("APT::Snapshot \"20260101T000000Z\";", "sets `apt::snapshot`"),
        ("Dir::Etc::sourcelist \"/etc/apt/other.list\";", "sets `dir::etc::sourcelist`"),
        ("Dir { Etc { netrc \"/x\"; }; };", "sets `dir::etc::netrc`"),
    ] {
        with_files(&case, &uri, &[("etc/apt/apt.conf.d/90own", setting)]);
        case.build().code(2).says(said);
    }
    // Neither is what apt would leave out of an installation, nor what is in no known encoding.
    let harmless = "APT::Get::Simulate \"true\"; APT::Get::Download-Only \"true\"; Dir::Cache::pkgcache \"\";\n";
    with_files(&case, &uri, &[("etc/apt/apt.conf.d/90own", harmless)]);
    case.project.write("root/etc/apt/apt.conf.d/91latin", b"// caf\xe9 Acquire\n");
    case.build().success();
    assert_eq!(case.text("usr/share/two").as_deref(), Some("two\n"));
}

#[test]
fn what_a_recipes_apt_opts_say_of_fetching_holds() {
    let case = case!();
    case.repository.publish(&format!("{DATE}\nValid-Until: Tue, 03 Nov 2020 10:00:00 UTC\nAcquire-By-Hash: yes"));
    let recipe = |uri: &str, more: &str| {
        let text = format!(
            "architecture: {}\nactions:\n  - action: mmdebstrap\n    suite: stable\n    variant: extract\n    mirrors: ['{uri}']\n    keyring-files: [key.asc]\n    include: [two]\n    {more}\n  - action: pack\n    file: out.tar\n    compression: none\n",
            debforge::debian::Architecture::host()
        );
        case.project.write("recipe.yaml", text);
    };
    let uri = case.server.url("");
    recipe(&uri, "");
    case.build().code(1).says("has expired on 2020-11-03").says("`check-valid-until: false`, for the bootstrap");
    recipe(&uri, "check-valid-until: false");
    case.build().success();
    assert_eq!(case.text("usr/share/two").as_deref(), Some("two\n"));
    let list = case.text("etc/apt/sources.list").expect("the list of repositories");
    assert!(list.starts_with("deb [check-valid-until=no] "), "{list}");
    assert!(case.server.seen().iter().any(|seen| seen.path.contains("/by-hash/")), "asked by digest");
    case.server.forget();
    fs::remove_dir_all(case.project.store()).expect("removing the store");
    let proxy = format!(
        "apt-opts: ['Acquire::Check-Valid-Until \"false\"', 'Acquire::By-Hash \"no\"', 'Acquire::http::Proxy \"{uri}\"']"
    );
    // Nobody knows this host; the proxy is not asked for its address.
    recipe("http://mirror.invalid/", &proxy);
    case.build().success();
    assert_eq!(case.text("usr/share/two").as_deref(), Some("two\n"));
    assert!(case.server.sent("dists/stable/main/binary-amd64/Packages") == 1, "asked by name");
    let list = case.text("etc/apt/sources.list").expect("the list of repositories");
    assert_eq!(list, "deb http://mirror.invalid/ stable main\n");
}

#[test]
fn the_proxy_of_the_roots_apt_goes_before_this_machines() {
    let case = case!();
    let conf = "etc/apt/apt.conf.d/90proxy";
    let proxy = format!("Acquire::http::Proxy \"{}\";\n", case.server.url(""));
    // Nobody knows this host; the proxy is not asked for its address.
    with_files(&case, "http://mirror.invalid/", &[(conf, &proxy)]);
    let build = |variable: &str| {
        let mut command = case.project.command(["build", "recipe.yaml", "--artifactdir", "out"]);
        for name in ["http_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        let output = command.env("http_proxy", variable).output().expect("starting debforge");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (done, said) = build("http://proxy.invalid:1");
    assert!(done, "{said}");
    assert_eq!(case.text("usr/share/two").as_deref(), Some("two\n"));
    // One that is exempt is asked itself, whatever stands elsewhere.
    let exempt = "Acquire::http::Proxy \"http://proxy.invalid:1\";\nAcquire::http::Proxy::127.0.0.1 \"DIRECT\";\n";
    with_files(&case, &case.server.url(""), &[(conf, exempt)]);
    let (done, said) = build("http://proxy.invalid:1");
    assert!(done, "{said}");
    with_files(&case, &case.server.url(""), &[(conf, "Acquire::http::ProxyAutoDetect \"/usr/bin/find-it\";\n")]);
    let (done, said) = build("");
    assert!(!done && said.contains("`acquire::http::proxyautodetect`"), "{said}");
}

#[test]
fn the_logins_of_the_roots_apt_are_used() {
    let case = case!();
    case.server.require_login("me", "secret-of-mine");
    let uri = case.server.url("");
    with_files(&case, &uri, &[]);
    case.build().code(1).says("401");
    let login = format!("machine {}\nlogin me\npassword secret-of-mine\n", uri.trim_end_matches('/'));
    with_files(&case, &uri, &[("etc/apt/auth.conf.d/own.conf", &login)]);
    case.build().success().says_nothing_of("secret-of-mine");
    assert_eq!(case.text("usr/share/two").as_deref(), Some("two\n"));
    let planned = case.project.run(["plan", "recipe.yaml", "--json"]);
    assert!(!planned.transcript().contains("secret-of-mine"), "{planned}");
}

#[test]
fn the_proxy_of_the_hosts_apt_is_used() {
    let case = case!();
    let server = case.server.url("");
    let proxy = |lines: &str| case.project.write("apt.conf", lines);
    let recipe = |uri: &str| {
        case.project.set_actions(&format!(
            "  - action: apt\n    packages: [two]\n    repositories:\n      - {{name: tests, uris: ['{uri}'], suites: [stable], signed-by: key.asc}}\n  - action: pack\n    file: out.tar\n    compression: none\n"
        ));
    };
    let build = || {
        let mut command = case.project.command(["build", "recipe.yaml", "--artifactdir", "out"]);
        for name in ["http_proxy", "all_proxy", "no_proxy"] {
            command.env_remove(name).env_remove(name.to_uppercase());
        }
        let output = command.env("APT_CONFIG", case.project.path("apt.conf")).output().expect("starting debforge");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // Nobody knows this host; the proxy is not asked for its address.
    recipe("http://mirror.invalid/debian");
    fs::rename(case.project.path("repository"), case.project.path("moved")).expect("moving the repository");
    fs::create_dir(case.project.path("repository")).expect("moving the repository");
    fs::rename(case.project.path("moved"), case.project.path("repository/debian")).expect("moving the repository");
    proxy(&format!("Acquire::http::Proxy \"{server}\";\n"));
    let (done, said) = build();
    assert!(done, "{said}");
    assert_eq!(case.text("usr/share/two").as_deref(), Some("two\n"));
    assert_eq!(case.server.sent("debian/pool/two_1.0_all.deb"), 1);
    // A server that is exempt is asked itself.
    recipe(&case.server.url("debian"));
    proxy("Acquire::http::Proxy \"http://proxy.invalid:1\";\nAcquire::http::Proxy::127.0.0.1 \"DIRECT\";\n");
    let (done, said) = build();
    assert!(done, "{said}");
    proxy("Acquire::http::Proxy-Auto-Detect \"/bin/false\";\n");
    let (done, said) = build();
    assert!(!done && said.contains("`/bin/false`, which is to find apt's proxy, failed"), "{said}");
}

#[test]
fn a_repository_for_another_architecture_of_the_root_is_one_of_its_own() {
    let mut case = case!();
    let (native, foreign) = match debforge::debian::Architecture::host() {
        debforge::debian::Architecture::Amd64 => ("amd64", "i386"),
        other => (other.name(), "amd64"),
    };
    let text = format!("for {foreign}\n");
    case.repository.add(Deb::new("three", "1.0").architecture(foreign).file("usr/share/three", 0o644, &text));
    case.repository.publish(DATE);
    case.recipe(&format!("['three:{foreign}']"), &format!("{SIGNED}\narchitectures: [{foreign}]"), "");
    let recipe = case.project.read("recipe.yaml");
    let add =
        format!("  - action: run\n    chroot: true\n    command: dpkg --add-architecture {foreign}\n  - action: apt\n");
    case.project.write("recipe.yaml", recipe.replacen("  - action: apt\n", &add, 1));
    case.build().success();
    assert_eq!(case.text("usr/share/three"), Some(text), "{native}");
}

#[test]
fn debootstrap_goes_over_the_proxy_of_the_hosts_apt_too() {
    let case = case!();
    needs_program!("debootstrap", "debootstrap");
    needs_program!("wget", "wget");
    case.project.write("apt.conf", format!("Acquire::http::Proxy \"{}\";\n", case.server.url("")));
    let text = format!(
        "architecture: {}\nactions:\n  - {{action: debootstrap, suite: stable, mirror: 'http://mirror.invalid', check-gpg: false}}\n",
        debforge::debian::Architecture::host()
    );
    case.project.write("recipe.yaml", text);
    let mut command = case.project.command(["build", "recipe.yaml", "--artifactdir", "out"]);
    for name in ["http_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(name).env_remove(name.to_uppercase());
    }
    let output = command.env("APT_CONFIG", case.project.path("apt.conf")).output().expect("starting debforge");
    // The repository has no essential packages, so that it does not get far.
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && !said.contains("could not get the Release file"), "{said}");
    assert_eq!(case.server.sent("dists/stable/InRelease"), 2, "asked by debforge, then by debootstrap: {said}");
}

#[test]
fn a_package_that_is_damaged_in_the_store_heals_and_that_is_said() {
    let case = case!();
    case.recipe("[two]", SIGNED, "");
    case.build().success();
    let blobs = fs::read_dir(case.project.store().join("v1/blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    let debs: Vec<_> = blobs.filter(|path| fs::read(path).unwrap().starts_with(b"!<arch>")).collect();
    assert!(!debs.is_empty());
    for deb in &debs {
        let modified = fs::metadata(deb).unwrap().modified().unwrap();
        let mut bytes = fs::read(deb).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(deb, bytes).unwrap();
        fs::File::options().write(true).open(deb).unwrap().set_modified(modified).unwrap();
    }
    case.project.build(["--no-cache"]).success().says("in the store was damaged, and is made anew");
    assert_eq!(case.text("usr/share/two").as_deref(), Some("two\n"));
    case.project.run(["store", "verify"]).success();
}
