//! Unpacking made-up packages into a root, in the ways that real ones seldom need.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Result;
use debforge::build::bootstrap::{Filters, Surroundings, Target};
use debforge::debian::Architecture;

/// Takes note of what would be run in the root.
#[derive(Default)]
struct Recorder(Mutex<Vec<String>>);

impl Surroundings for Recorder {
    fn run(&self, argv: &[String], _doing: &str) -> Result<()> {
        self.0.lock().unwrap().push(argv.join(" "));
        Ok(())
    }

    fn progress(&self, _message: &str, _fraction: Option<(u64, u64)>) {}
}

/// An entry of a package: path, mode, and contents, `-> target` or `=> hard link`.
type Item<'a> = (&'a str, u32, &'a str);

fn deb(dir: &Path, control: &str, files: &[(&str, &str)], items: &[Item<'_>]) -> PathBuf {
    let name = control.lines().next().unwrap().trim_start_matches("Package: ");
    let control = format!("{control}Version: 1\nArchitecture: all\nMaintainer: nobody\nDescription: x\n");
    let header = |mode: u32, size: usize| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(size as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000);
        header
    };
    let mut members = tar::Builder::new(Vec::new());
    for (file, text) in [("control", control.as_str())].iter().chain(files) {
        members.append_data(&mut header(0o755, text.len()), file, text.as_bytes()).unwrap();
    }
    let mut data = tar::Builder::new(Vec::new());
    for (path, mode, contents) in items {
        let raw = |header: &mut tar::Header| {
            // Builder's own methods refuse paths that lead out of the archive.
            header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_cksum();
        };
        let mut entry = header(*mode, 0);
        if path.ends_with('/') {
            entry.set_entry_type(tar::EntryType::Directory);
            raw(&mut entry);
            data.append(&entry, std::io::empty()).unwrap();
        } else if let Some((kind, target)) = contents.split_once("> ").filter(|(kind, _)| ["-", "="].contains(kind)) {
            entry.set_entry_type(if kind == "-" { tar::EntryType::Symlink } else { tar::EntryType::Link });
            entry.set_link_name_literal(target).unwrap();
            raw(&mut entry);
            data.append(&entry, std::io::empty()).unwrap();
        } else {
            entry.set_size(contents.len() as u64);
            raw(&mut entry);
            data.append(&entry, contents.as_bytes()).unwrap();
        }
    }
    let path = dir.join(format!("{name}.deb"));
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(b"!<arch>\n").unwrap();
    let members = [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar", members.into_inner().unwrap()),
        ("data.tar", data.into_inner().unwrap()),
    ];
    for (name, bytes) in members {
        writeln!(file, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, "100644", bytes.len()).unwrap();
        file.write_all(&bytes).unwrap();
    }
    path
}

/// Installs packages as the essential ones of a merged root, and gives the root with what was run in it.
fn install(root: &Path, filters: &str, debs: &[PathBuf]) -> Result<Vec<String>> {
    let recorder = Recorder::default();
    let mut target = Target::create(root, Architecture::host(), &[], Filters::parse(filters)?, &recorder)?;
    target.merge_usr()?;
    let wave = target.add(debs)?;
    target.install_essential(wave)?;
    Ok(recorder.0.into_inner().unwrap())
}

fn read(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn files_of_aliased_directories_land_in_usr() {
    needs_root!();
    let (dir, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let items =
        [("./", 0o755, ""), ("./bin/", 0o755, ""), ("./bin/su", 0o4755, "su"), ("./bin/mu", 0o755, "=> ./bin/su")];
    let package = deb(dir.path(), "Package: a\n", &[], &items);
    install(root.path(), "", &[package]).unwrap();
    let su = fs::metadata(root.path().join("usr/bin/su")).unwrap();
    assert_eq!((su.mode() & 0o7777, su.mtime(), su.nlink()), (0o4755, 1_000_000, 2));
    assert_eq!(fs::read_link(root.path().join("bin")).unwrap(), Path::new("usr/bin"));
    assert_eq!(read(root.path(), "var/lib/dpkg/info/a.list"), "/.\n/bin\n/bin/su\n/bin/mu\n");
    assert!(read(root.path(), "var/lib/dpkg/status").contains("Package: a\nVersion: 1\n"));
}

#[test]
fn the_package_that_replaces_another_has_the_file() {
    needs_root!();
    for names in [("a", "b"), ("b", "a")] {
        let (dir, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (old, new) = (format!("Package: {}\n", names.0), format!("Package: {}\nReplaces: {}\n", names.1, names.0));
        let debs = [
            deb(dir.path(), &old, &[], &[("./usr/", 0o755, ""), ("./usr/x", 0o644, "old")]),
            deb(dir.path(), &new, &[], &[("./usr/", 0o755, ""), ("./usr/x", 0o600, "new")]),
        ];
        install(root.path(), "", &debs).unwrap();
        assert_eq!(read(root.path(), "usr/x"), "new");
        assert_eq!(read(root.path(), &format!("var/lib/dpkg/info/{}.list", names.0)), "/usr\n");
        assert_eq!(read(root.path(), &format!("var/lib/dpkg/info/{}.list", names.1)), "/usr\n/usr/x\n");
    }
}

#[test]
fn two_packages_with_one_file_are_refused() {
    needs_root!();
    let (dir, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let debs = ["a", "b"].map(|name| {
        // The same file behind the link /bin.
        let path = if name == "a" { "./bin/x" } else { "./usr/bin/x" };
        deb(dir.path(), &format!("Package: {name}\n"), &[], &[(path, 0o755, name)])
    });
    let error = format!("{:#}", install(root.path(), "", &debs).unwrap_err());
    assert!(error.contains("it is also in the package"), "{error}");
}

#[test]
fn configuration_files_have_their_digests_in_the_database() {
    needs_root!();
    let (dir, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let items = [("./etc/", 0o755, ""), ("./etc/a.conf", 0o644, "a\n")];
    let package = deb(dir.path(), "Package: a\n", &[("conffiles", "/etc/a.conf\n")], &items);
    install(root.path(), "", &[package]).unwrap();
    // echo a | md5sum
    let expected = "Conffiles:\n /etc/a.conf 60b725f10c9c85c70d97880dfe8191b3\n";
    assert!(read(root.path(), "var/lib/dpkg/status").contains(expected));
    assert_eq!(read(root.path(), "etc/a.conf"), "a\n");
}

#[test]
fn directories_do_not_depend_on_which_thread_was_first() {
    needs_root!();
    for _ in 0..8 {
        let (dir, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        // "b" depends on "a", so it comes after it.
        let debs = [
            deb(dir.path(), "Package: b\nDepends: a\n", &[], &[("./opt/", 0o755, ""), ("./opt/b", 0o644, "b")]),
            deb(dir.path(), "Package: a\n", &[], &[("./opt/", 0o2750, ""), ("./opt/a", 0o644, "a")]),
        ];
        install(root.path(), "", &debs).unwrap();
        let opt = fs::metadata(root.path().join("opt")).unwrap();
        assert_eq!((opt.mode() & 0o7777, opt.mtime()), (0o2750, 1_000_000));
    }
}

#[test]
fn nothing_leads_out_of_the_root() {
    needs_root!();
    let outside = tempfile::tempdir().unwrap();
    let (dir, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let link = format!("-> {}", outside.path().display());
    let items = [("./etc/", 0o755, ""), ("./etc/out", 0o777, link.as_str()), ("./etc/out/x", 0o644, "x")];
    let package = deb(dir.path(), "Package: a\n", &[], &items);
    // The link's target does not exist inside the root, so the file cannot be made.
    assert!(install(root.path(), "", &[package]).is_err());
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    let climbing = deb(dir.path(), "Package: c\n", &[], &[("./../x", 0o644, "x")]);
    let root = tempfile::tempdir().unwrap();
    let error = format!("{:#}", install(root.path(), "", &[climbing]).unwrap_err());
    assert!(error.contains("leads out of the root"), "{error}");
}

#[test]
fn triggers_and_scripts_are_recorded_for_dpkg() {
    needs_root!();
    let (dir, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files = [
        ("preinst", "#!/bin/sh\n"),
        ("postinst", "#!/bin/sh\n"),
        ("triggers", "interest-noawait /usr/share/man\ninterest named\nactivate-noawait ldconfig\n"),
    ];
    let package = deb(dir.path(), "Package: a\n", &files, &[("./usr/", 0o755, "")]);
    let ran = install(root.path(), "", &[package]);
    // The recorder leaves the script where it waits, which counts as not run.
    assert!(ran.is_err());
    assert_eq!(read(root.path(), "var/lib/dpkg/triggers/File"), "/usr/share/man a/noawait\n");
    assert_eq!(read(root.path(), "var/lib/dpkg/triggers/named"), "a\n");
    assert_eq!(read(root.path(), "var/lib/dpkg/triggers/Unincorp"), "ldconfig -\n");
    let postinst = fs::metadata(root.path().join("var/lib/dpkg/info/a.postinst")).unwrap();
    assert_eq!(postinst.permissions().mode() & 0o777, 0o755);
}

#[test]
fn a_link_does_not_take_the_place_of_a_directory() {
    needs_root!();
    let (dir, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir_all(root.path().join("srv/data")).unwrap();
    symlink("data", root.path().join("srv/link")).unwrap();
    let items = [
        ("./srv/", 0o755, ""),
        ("./srv/data", 0o777, "-> elsewhere"),
        ("./srv/link/", 0o755, ""),
        ("./srv/link/x", 0o644, "x"),
    ];
    install(root.path(), "", &[deb(dir.path(), "Package: a\n", &[], &items)]).unwrap();
    assert_eq!(read(root.path(), "srv/data/x"), "x");
    assert_eq!(fs::read_link(root.path().join("srv/link")).unwrap(), Path::new("data"));
}
